"""Curves of certified accuracy, and what all displays share, against the numbers that they are about."""

import dataclasses
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from smoothcert import (
    CertifiedAccuracyDisplay,
    GreedyBudgetDisplay,
    ProbabilityDisplay,
    VotesDisplay,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from smoothcert.results.plotting import COLORS, Curve

from .examples import X, certificates, value_at


def test_curves_are_exact_at_and_between_all_jumps():
    rng = np.random.default_rng(0)
    radii = rng.choice([0.0, 0.1 + 0.2, 0.3, 0.5, 1.0, np.inf, np.nan, 2.7], size=60)
    y = rng.integers(2, size=60)
    certified = certificates(radii)
    (line,) = CertifiedAccuracyDisplay.from_certificates(certified, y).lines_
    known = np.unique(radii[np.isfinite(radii)])
    for radius in [*known, *np.nextafter(known, np.inf), *np.nextafter(known[1:], 0), 1.5, 100.0]:
        assert value_at(line, radius) == certified_accuracy_score(y, certified, radius)


def test_infinite_radii_keep_the_curve_up_to_the_edge_and_beyond():
    display = CertifiedAccuracyDisplay.from_certificates(certificates([1, np.inf, np.nan, 2]), [0, 0, 0, 1])
    (line,) = display.lines_
    assert value_at(line, 1000) == 0.25
    (arrow,) = [one for one in display.ax_.lines if one.get_marker() == ">"]
    assert arrow.get_ydata() == [0.25]
    assert display.ax_.get_xlim() == (0, 1.05)
    endless = CertifiedAccuracyDisplay.from_certificates(certificates([np.inf, np.inf]), [0, 0])
    assert endless.ax_.get_xlim() == (0, 1)
    nothing = CertifiedAccuracyDisplay.from_certificates(certificates([np.nan, np.nan]), [0, 0])
    assert (nothing.lines_[0].get_ydata() == 0).all()


def test_several_curves_on_one_axis():
    y = [0, 0, 0]
    one, other, third = certificates([1, 2, 3]), certificates([0.5, 1, 7]), certificates([1, 1, 1])
    display = CertifiedAccuracyDisplay.from_certificates({"one": one, "other": other}, y)
    again = CertifiedAccuracyDisplay.from_certificates({"third": third}, y, ax=display.ax_)
    lines = [*display.lines_, *again.lines_]
    assert again.ax_ is display.ax_
    assert display.ax_.get_xlim() == pytest.approx((0, 7.35))
    entries = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert entries == ["one", "other", "third", "always the most frequent class"]
    assert len({line.get_color() for line in lines}) == 3
    assert len({str(line._dash_pattern) for line in lines}) == 3
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(set(widths), reverse=True)
    assert display.ax_.get_xlabel() == "l1 radius (1 = one feature across its range)"
    (styled,) = display.plot(plt.figure().gca(), color="red", linewidth=3).lines_[:1]
    assert (styled.get_color(), styled.get_linewidth()) == ("red", 3)


def test_curves_beyond_the_number_of_colors_start_again():
    display = CertifiedAccuracyDisplay.from_certificates({str(i): certificates([i]) for i in range(8)}, [0])
    colors = [line.get_color() for line in display.lines_]
    assert colors == [*COLORS["light"], *COLORS["light"][:2]]


def test_only_the_share_of_the_majority_class_is_dotted():
    ax = CertifiedAccuracyDisplay.from_certificates({str(i): certificates([i]) for i in range(6)}, [0]).ax_
    patterns = {line.get_label(): line._dash_pattern[1] or [np.inf] for line in ax.lines}
    widths = {line.get_label(): line.get_linewidth() for line in ax.lines}
    longest = {label: max(pattern[::2]) / widths[label] for label, pattern in patterns.items()}
    assert longest.pop("always the most frequent class") == 1
    assert min(longest.values()) >= 2


def test_curves_of_large_radii_fall_to_0_beyond_them():
    (line,) = CertifiedAccuracyDisplay.from_certificates(certificates([3e6]), [0]).lines_
    assert [value_at(line, radius) for radius in (2e6, 3e6, 4e6)] == [1, 1, 0]


def test_names_styles_and_reference_lines():
    def references(display):
        return sorted(line.get_ydata()[0] for line in display.ax_.lines if line.get_gid() == "majority")

    passing = certificates([1.0, 2.0, 3.0])
    display = CertifiedAccuracyDisplay.from_certificates(passing, [0, 0, 1])
    assert references(display) == [2 / 3]
    display.plot(display.ax_, name="again", color="red")
    assert references(display) == [2 / 3]
    assert display.lines_[0].get_color() == "red"
    assert display.ax_.get_legend().get_texts()[0].get_text() == "again"
    CertifiedAccuracyDisplay.from_certificates(passing[[0, 1, 2, 2]], [0, 0, 0, 1], ax=display.ax_)
    assert references(display) == [2 / 3, 3 / 4]


def test_axes_say_which_norm_and_threat():
    limited = certificates([1], norm=2, threat="perturbations with " + "max_change=1, " * 30)
    label = CertifiedAccuracyDisplay.from_certificates(limited, [0]).ax_.get_xlabel()
    first, *others = label.split("\n")
    assert first == "l2 radius (1 = one feature across its range)"
    assert others[0].startswith("against perturbations with max_change=1")
    assert max(map(len, others)) <= 56
    assert label.endswith(" ...")
    assert 90 < len(" ".join(others)) <= 110
    assert len(others) <= 3
    assert "l-inf" in CertifiedAccuracyDisplay.from_certificates(certificates([1], norm=np.inf), [0]).ax_.get_xlabel()
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        CertifiedAccuracyDisplay.from_certificates({"a": limited, "b": certificates([1])}, [0])
    with pytest.raises(ValueError, match="y must hold one label"):
        CertifiedAccuracyDisplay.from_certificates(limited, [0, 1])
    with pytest.raises(
        ValueError, match=r"certificates\['a\[0\]'\] must be the Certificates that certify returns, got int"
    ):
        CertifiedAccuracyDisplay.from_certificates({"a": (1, 2)}, [0])


def test_a_list_of_certificates_is_drawn_as_its_envelope():
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=40)
    several = [certificates(rng.choice([0.0, 0.3, 0.7, 1.2, np.inf, np.nan], size=40)) for _ in range(3)]
    single = CertifiedAccuracyDisplay.from_certificates(several[0], y).lines_[0]
    (line,) = CertifiedAccuracyDisplay.from_certificates({"best": several}, y).lines_
    for radius in (0, 0.1, 0.3, 0.31, 0.7, 1.0, 1.2, 1.3, 50):
        assert value_at(line, radius) == certified_accuracy_envelope(y, several, radius)
        assert value_at(line, radius) >= value_at(single, radius)
    with pytest.raises(ValueError, match="got an empty list for 'best'"):
        CertifiedAccuracyDisplay.from_certificates({"best": []}, y)
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        CertifiedAccuracyDisplay.from_certificates({"best": [several[0], certificates([1.0] * 40, norm=2)]}, y)


def test_the_envelope_of_curves_that_end_at_different_radii():
    steep, flat = Curve(np.array([0.0, 1.0]), np.array([0.9, 0.8])), Curve(np.array([2.0]), np.array([0.5]))
    best = Curve.envelope([steep, flat])
    np.testing.assert_array_equal(best.radii, [0, 1, 2])
    np.testing.assert_array_equal(best.accuracy, [0.9, 0.8, 0.5])


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("radius", [1.5, np.inf])
def test_the_share_of_the_majority_class_shows_where_a_curve_is_as_high(radius, style):
    with plt.style.context(style):
        ax = plt.figure(figsize=(4, 3)).gca()
        shown = CertifiedAccuracyDisplay.from_certificates(
            certificates([radius] * 3, labels=[1, 1, 1]), [0, 1, 1], ax=ax
        )
        (majority,) = [line for line in ax.lines if line.get_gid() == "majority"]

        def pixels():
            shown.figure_.canvas.draw()
            x, y = ax.transData.transform((0.75, 2 / 3)).astype(int)
            strip = np.asarray(shown.figure_.canvas.buffer_rgba())[::-1][y - 2 : y + 3, x - 30 : x + 30, :3]
            return strip.astype(int)

        with_line = pixels()
        majority.set_visible(False)
        # The dots differ from the curve by more than half of the scale.
        assert (np.abs(with_line - pixels()).max(axis=(0, 2)) > 128).sum() > 10


def test_the_legend_says_what_a_reader_must_know():
    few, many = (certificates([1, np.nan, 2], n_samples=np.array(n)) for n in ([100, 100, 100], [1000, 400, 10_000]))

    def title(display):
        return display.ax_.get_legend().get_title().get_text()

    display = CertifiedAccuracyDisplay.from_certificates(few, [0, 1, 1])
    assert title(display) == "3 inputs, n = 100, alpha = 0.001\nagainst every perturbation"
    (majority,) = [line for line in display.ax_.lines if line.get_gid() == "majority"]
    assert set(majority.get_ydata()) == {2 / 3}
    other = dataclasses.replace(many, alpha=0.01)
    CertifiedAccuracyDisplay.from_certificates({"a": few, "b": other}, [0, 1, 1], ax=display.ax_)
    assert "3 inputs, n = 100 to 10,000, alpha = 0.001 or 0.01" in title(display).splitlines()
    assert title(display).count("against every perturbation") == 1
    assert len([line for line in display.ax_.lines if line.get_gid() == "majority"]) == 1
    unknown = CertifiedAccuracyDisplay.from_certificates(certificates([1], threat="2 features"), [0])
    assert title(unknown) == "1 input, alpha = 0.001"
    for n, shown in (([100, 0, 100], "n = 100"), ([0, 500, 100], "n = 100 to 500")):
        # A skipped input has no votes.
        some = CertifiedAccuracyDisplay.from_certificates(certificates([1, 2, 3], n_samples=np.array(n)), [0, 0, 0])
        assert title(some).startswith(f"3 inputs, {shown}, alpha")
    exact = certificates([1, 2], n_samples=np.zeros(2, dtype=int), alpha=0.0)
    assert title(CertifiedAccuracyDisplay.from_certificates(exact, [0, 0])).startswith("2 inputs, alpha = 0")


def test_estimators_are_drawn(smoothed):
    y = np.array(["left", "right", "up", "left", "up"])
    votes = smoothed.count_votes(X)
    certified = smoothed.certify(X, votes=votes)
    (line,) = ProbabilityDisplay.from_estimator(smoothed, X, y, votes=votes).lines_
    assert value_at(line, 0) == (certified.labels == y).mean()
    display = CertifiedAccuracyDisplay.from_estimator(smoothed, X, y, votes=votes)
    again = CertifiedAccuracyDisplay.from_estimator(smoothed, X, y, name="again", ax=display.ax_)
    for radius in (0, 0.1, 0.3):
        for shown in (display, again):
            assert value_at(shown.lines_[0], radius) == certified_accuracy_score(y, certified, radius)
    shown = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert shown == ["UniformNoise(lam=0.5)", "again", "always the most frequent class"]


class Recorder:
    """A classifier that records what it is asked, and has certificates of two inputs."""

    classes_ = np.array([0, 1, 2])

    def __init__(self):
        self.asked = []

    def certify(self, X, **options):
        self.asked.append(options)
        return certificates([0.5, 0.7])


@pytest.mark.parametrize("display", [CertifiedAccuracyDisplay, ProbabilityDisplay, VotesDisplay])
def test_votes_that_are_given_are_certified(display, smoothed):
    votes, clf = smoothed.count_votes(X[:2]), Recorder()
    shown = display.from_estimator(clf, X[:2], [0, 0], votes=votes, color="red")
    assert clf.asked == [{"votes": votes}]
    if display is VotesDisplay:
        assert {patch.get_facecolor() for ax in shown.axes_ for patch in ax.containers[0]} == {(1.0, 0.0, 0.0, 1.0)}
    else:
        assert shown.lines_[0].get_color() == "red"
        display.from_estimator(clf, X[:2], [0, 0])
        assert clf.asked[1:] == [{}]


def test_pictures_that_cannot_be_drawn(smoothed):
    wide = X[:1].repeat(1, axis=0)
    with pytest.raises(ValueError, match=r'radius must be "greedy".*BoxRadius'):
        GreedyBudgetDisplay.from_estimator(smoothed.set_params(radius="box"), X[0], image_shape=(2, 2))
    smoothed.set_params(radius="greedy")
    for shape in (None, (2, 3), (2, 2, 1, 1), (4,)):
        with pytest.raises(ValueError, match="image_shape must be"):
            GreedyBudgetDisplay.from_estimator(smoothed, X[0], image_shape=shape)
    with pytest.raises(
        ValueError, match="certificate must be of a single input for which the classifier does not abstain"
    ):
        GreedyBudgetDisplay.from_estimator(smoothed, wide[0], certificate=certificates([np.nan]), image_shape=(2, 2))


def test_matplotlib_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "smoothcert\[plots\]"'):
        CertifiedAccuracyDisplay.from_certificates(certificates([1]), [0])


def test_importing_the_displays_does_not_import_matplotlib():
    code = "import sys, smoothcert.results.display; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
