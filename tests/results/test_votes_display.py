"""The display of votes."""

import dataclasses

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from smoothcert import SmoothedClassifier, VotesDisplay
from smoothcert.results.plotting import COLORS

from ..base_models import Rule, constant
from .examples import X, certificates


def test_titles_and_colors_of_votes(smoothed):
    counts = np.tile([70, 20, 10], (5, 1))
    votes = dataclasses.replace(smoothed.count_votes(X), estimation=counts)
    names = np.array(["left", "right", "left", "left", "up"])
    found = certificates([0.29999, 1.0, np.nan, 0.5, 2.0], labels=names, norm=2)
    found = dataclasses.replace(found, p_a=np.full(5, 2 / 3), p_b=np.full(5, 1 / 6))
    _, axes = plt.subplots(1, 5)
    display = VotesDisplay(votes, found, classes=smoothed.classes_, y=["left", "left", "left", "up", "up"]).plot(axes)
    assert [ax.get_title().splitlines() for ax in display.axes_] == [
        ["predicted left (right)", "l2 radius 0.299, margin 0.5"],
        ["predicted right (it is left)", "l2 radius 1, margin 0.5"],
        ["predicted left (right)", "abstained"],
        ["predicted left (it is up)", "l2 radius 0.5, margin 0.5"],
        ["predicted up (right)", "l2 radius 2, margin 0.5"],
    ]
    assert display.axes_.tolist() == axes.tolist()
    strong = matplotlib.colors.to_rgba(COLORS["light"][0])
    for ax, name in zip(axes, names, strict=True):
        shown = [bar.get_facecolor() == strong for bar in ax.containers[0]]
        assert shown == (smoothed.classes_ == name).tolist()
    below = VotesDisplay(votes, found, classes=smoothed.classes_).plot()
    assert [ax.get_xlabel() for ax in below.axes_] == ["", "", *["share of votes"] * 3]
    assert below.axes_[0].get_title().startswith("predicted left\n")
    for n in (4, 6):
        with pytest.raises(ValueError, match=f"got 5, 5 and {n}. Slice them"):
            VotesDisplay(votes, found, classes=smoothed.classes_, y=["up"] * n).plot()


def test_votes_are_the_bars_and_bounds_the_lines(smoothed):
    votes = smoothed.count_votes(X)
    certified = smoothed.certify(X, votes=votes)
    display = VotesDisplay.from_estimator(smoothed, X, certified.labels, votes=votes)
    assert len(display.axes_) == 5
    for i, ax in enumerate(display.axes_):
        np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], votes.estimation[i] / 300)
        lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
        assert lines == {"p_a, at least": certified.p_a[i], "p_b, at most": certified.p_b[i]}
        spans = [patch for patch in ax.patches if patch.get_label() == "margin"]
        assert len(spans) == (certified.p_a[i] > certified.p_b[i])
        for span in spans:
            assert (span.get_x(), span.get_x() + span.get_width()) == (certified.p_b[i], certified.p_a[i])
        assert f"predicted {certified.labels[i]} (right)" in ax.get_title()
        shown = "abstained" if certified.abstained[i] else f"l1 radius {str(certified.radii[i])[:4]}"
        assert shown in ax.get_title()
        assert [text.get_text() for text in ax.get_yticklabels()] == ["left", "right", "up"]
    with pytest.raises(ValueError, match=r"votes, certificates and y must be of the same 1 to 12 inputs"):
        VotesDisplay(votes, certified[:3], classes=smoothed.classes_).plot()
    with pytest.raises(ValueError, match=r"1 to 12 inputs, got 13"):
        VotesDisplay.from_estimator(smoothed, np.full((13, 4), 0.5))


def test_of_many_classes_those_with_most_votes_are_shown_and_the_predicted_one():
    """The predicted class, 0, has no estimation votes; of the others, those with the highest numbers have most."""
    rule = Rule(constant, classes=range(40)).fit(0, 0)
    clf = SmoothedClassifier.from_pretrained(rule, range(40), "uniform", n_samples=300, random_state=0)
    votes = dataclasses.replace(clf.count_votes(X[:1]), estimation=np.arange(40)[None] * 10)
    display = VotesDisplay(votes, certificates([0.5]), classes=clf.classes_, y=[3])
    (ax,) = display.plot().axes_
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", *map(str, range(31, 40))]
    widths = [bar.get_width() for bar in ax.containers[0]]
    np.testing.assert_allclose(widths, np.array([0, *range(31, 40)]) / np.arange(40).sum())
    assert "predicted 0 (it is 3)" in ax.get_title()
