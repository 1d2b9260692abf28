"""Certified accuracy and its averages against their definitions, tables with truth, and useless classifiers."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import auc, balanced_accuracy_score, recall_score

from smoothcert import (
    Certificates,
    Decisions,
    SmoothedClassifier,
    average_certified_radius,
    certified_accuracy_curve,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from smoothcert.results import make_certified_scorer, summarize
from smoothcert.results.metrics import warn_useless

RNG = np.random.default_rng(0)
N = 200
Y = RNG.choice(["a", "b", "c"], N, p=[0.7, 0.25, 0.05])
LABELS = np.where(RNG.random(N) < 0.8, Y, "a")
RADII = np.where(RNG.random(N) < 0.1, np.nan, RNG.random(N))


def certificates(labels=LABELS, radii=RADII):
    n = len(labels)
    return Certificates(labels, radii, np.isnan(radii), np.full(n, 0.9), np.full(n, 0.1), alpha=0.001, norm=1)


@pytest.mark.parametrize("weight", [None, RNG.random(N) + 0.01])
@pytest.mark.parametrize("radius", [0.0, 0.3, 0.9])
def test_averages_are_those_of_scikit_learn_on_what_is_certified(weight, radius):
    certified = np.where(certificates().radii >= radius, LABELS, "none")
    expected = recall_score(Y, certified, average=None, sample_weight=weight, labels=["a", "b", "c"])

    def score(average):
        return certified_accuracy_score(Y, certificates(), radius, average=average, sample_weight=weight)

    np.testing.assert_allclose(score(None), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(score("macro"), balanced_accuracy_score(Y, certified, sample_weight=weight))
    np.testing.assert_allclose(score("micro"), np.average(certified == Y, weights=weight))


def test_shapes_and_curves():
    grid = np.array([[0.0, 0.2], [0.4, 0.6]])
    recall = certified_accuracy_score(Y, certificates(), grid, average=None)
    assert recall.shape == (3, 2, 2)
    np.testing.assert_allclose(recall.mean(axis=0), certified_accuracy_score(Y, certificates(), grid, average="macro"))
    radii, accuracy = certified_accuracy_curve(Y, certificates(), average="macro")
    np.testing.assert_allclose(accuracy, certified_accuracy_score(Y, certificates(), radii, average="macro"))
    assert (np.diff(accuracy) <= 0).all()


def test_tables_of_averages():
    one = certificates()
    recall = one.summary(Y, [0, 0.5], average=None)
    assert list(recall.accuracy) == ["recall of a", "recall of b", "recall of c"]
    balanced = one.summary(Y, [0, 0.5], average="macro")
    np.testing.assert_allclose(np.mean(list(recall.accuracy.values()), axis=0), *balanced.accuracy.values())
    assert list(balanced.accuracy) == ["certified balanced accuracy"]
    assert one.summary(Y, [0.5]).note == balanced.note == recall.note
    assert balanced.note.startswith("200 inputs, ")
    two = summarize({"x": one, "y": one}, Y, [0.5], average=None)
    assert list(two.accuracy) == ["x: a", "x: b", "x: c", "y: a", "y: b", "y: c"]
    assert summarize({"x": one}, Y, [0.5], average="macro").note.startswith("certified balanced accuracy; 200 inputs")


def test_unknown_averages_and_classes_without_weight():
    for call in (certified_accuracy_score, lambda *args, **kw: summarize(args[1], args[0], args[2], **kw)):
        with pytest.raises(ValueError, match="average must be one of 'micro', 'macro', None, got 'weighted'"):
            call(Y, certificates(), [0.5], average="weighted")
    for call in (
        make_certified_scorer,
        lambda radius, average: certified_accuracy_curve(Y, certificates(), average=average),
    ):
        with pytest.raises(ValueError, match="average must be one of 'micro', 'macro', got None"):
            call(0.5, average=None)
    with pytest.raises(ValueError, match="above 0 for an input of each class, but is 0 for class 'c'"):
        certified_accuracy_score(Y, certificates(), 0.5, average="macro", sample_weight=(Y != "c").astype(float))


class Fixed:
    """A classifier of given decisions."""

    def __init__(self, decisions):
        self.decisions = decisions

    def certify_at(self, X, radius):
        return self.decisions


def test_the_scorer_averages_as_the_score_does():
    one = certificates()
    decisions = Decisions(LABELS, one.radii >= 0.3, np.full(N, 9), np.full(N, 0.3), alpha=0.001, norm=1)
    weight = RNG.random(N) + 0.01
    for average in ("micro", "macro"):
        scorer = make_certified_scorer(0.3, average=average)
        for given in (None, weight):
            expected = certified_accuracy_score(Y, one, 0.3, average=average, sample_weight=given)
            np.testing.assert_allclose(scorer(Fixed(decisions), None, pd.Series(Y), sample_weight=given), expected)


def test_truth_and_index_in_frames():
    one, index = certificates()[:5], pd.Index([9, 3, 3, 7, 1], name="row")
    frame = one.to_frame(y=pd.Series(Y[:5], index=[4, 3, 2, 1, 0]), index=pd.DataFrame({"x": range(5)}, index=index))
    assert frame.index.equals(index)
    assert frame["truth"].tolist() == Y[:5].tolist()
    assert frame["correct"].tolist() == (Y[:5] == LABELS[:5]).tolist()
    assert list(one.to_frame().columns) == [name for name in frame.columns if name not in ("truth", "correct")]
    for given in (index, pd.Series(range(5), index=index), list(index)):
        assert one.to_frame(index=given).index.tolist() == index.tolist()
    with pytest.raises(ValueError, match="index must have one entry for each of 5 inputs, got 4"):
        one.to_frame(index=index[:4])
    with pytest.raises(ValueError, match="y must hold one label for each of 5 inputs"):
        one.to_frame(y=Y[:4])


@pytest.mark.parametrize(
    ("labels", "y", "words"),
    [
        (
            ["a"] * 60,
            ["a"] * 40 + ["b"] * 20,
            r"never predicts some labels of y, 'b' \(20 of 60\) and is no better .* 'a'",
        ),
        (
            ["a"] * 40 + ["b"] * 20,
            ["a"] * 30 + ["b"] * 15 + ["c"] * 15,
            r"never predicts some labels of y, 'c' \(15 of 60\)",
        ),
        # The smallest numbers that tell: 50 inputs, 10 of the class.
        (["a"] * 20 + ["b"] * 30, ["a"] * 20 + ["b"] * 20 + ["c"] * 10, r"some labels of y, 'c' \(10 of 50\): large"),
        (["b"] * 30 + ["a"] * 30, ["a"] * 40 + ["b"] * 20, "is no better than always predicting 'a'"),
    ],
)
def test_useless_classifiers_are_named(labels, y, words):
    with pytest.warns(UserWarning, match=words):
        warn_useless(np.array(labels), np.array(y, dtype=object))


@pytest.mark.parametrize(
    ("labels", "y"),
    [
        (["a"] * 49, ["a"] * 29 + ["b"] * 20),  # Too few inputs to tell.
        (["a"] * 60, ["a"] * 60),
        (["a"] * 30 + ["b"] * 30, ["a"] * 27 + ["b"] * 24 + ["c"] * 9),  # Too few of the class.
        (["a"] * 50 + ["b"] * 50, ["a"] * 50 + ["b"] * 10 + ["a"] * 40),  # A gain in balanced accuracy.
        (["a"] * 60 + ["b"] * 10, ["a"] * 60 + ["b"] * 10),
    ],
)
def test_warnings_are_rare(labels, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_useless(np.array(labels), np.array(y))


def test_certify_warns_if_it_knows_the_truth():
    X, y = np.full((60, 1), 0.5), np.repeat([0, 1], [40, 20])
    clf = SmoothedClassifier(DummyClassifier(), n_samples=50, random_state=0).fit(X, y)
    with pytest.warns(UserWarning, match="never predicts some labels of y, 1 .* tune its threshold there"):
        clf.certify(X, y=y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.certify(X)


def random_certificates(seed, n=200):
    """Certificates with ties, abstentions and infinite radii, and the truth."""
    rng = np.random.default_rng(seed)
    radii = rng.integers(0, 9, n) / 4
    radii[rng.random(n) < 0.1] = np.inf
    radii[rng.random(n) < 0.2] = np.nan
    labels = rng.integers(0, 3, n)
    p = np.full(n, 0.5)
    found = Certificates(
        labels=labels, radii=radii, abstained=np.isnan(radii), p_a=p, p_b=p, alpha=0.001, norm=1, n_samples=None
    )
    return rng.integers(0, 3, n), found, rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_and_curve_against_the_definition(seed, weighted):
    y, certificates, weight = random_certificates(seed)
    weight = weight if weighted else None
    labels, radii = certificates
    at = np.array([0, 0.1, 0.25, 0.3, 1.0, 2.0, 2.1, np.inf])
    expected = [np.average((labels == y) & (radii >= r), weights=weight) for r in at]
    np.testing.assert_allclose(
        certified_accuracy_score(y, certificates, at, sample_weight=weight), expected, rtol=1e-14
    )
    np.testing.assert_array_equal(
        certified_accuracy_score(y, certificates, 0.25), np.mean((labels == y) & (radii >= 0.25))
    )

    steps, accuracy = certified_accuracy_curve(y, certificates, sample_weight=weight)
    np.testing.assert_array_equal(steps, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, np.inf])
    for r, share in zip(at, expected, strict=True):
        assert accuracy[np.searchsorted(steps, r)] == pytest.approx(share, rel=1e-14)
    assert (np.diff(accuracy) <= 0).all()


def test_a_curve_of_nothing_certified_is_one_point():
    y, certificates, _ = random_certificates(0)
    radii, accuracy = certified_accuracy_curve(y + 7, certificates)
    assert (radii.tolist(), accuracy.tolist()) == ([0.0], [0.0])


@pytest.mark.parametrize("weighted", [False, True])
def test_average_radius_is_the_area_under_the_curve(weighted):
    y, certificates, weight = random_certificates(3)
    weight = weight if weighted else None
    assert average_certified_radius(y, certificates, sample_weight=weight) == np.inf
    grid = np.linspace(0, 3, 30_001)
    curve = certified_accuracy_score(y, certificates, grid, sample_weight=weight)
    found = average_certified_radius(y, certificates, max_radius=3, sample_weight=weight)
    assert found == pytest.approx(auc(grid, curve), abs=1e-4)
    finite = certificates[~np.isinf(certificates.radii)]
    right = (finite.labels == y[~np.isinf(certificates.radii)]) & ~finite.abstained
    expected = np.where(right, finite.radii, 0).mean()
    assert average_certified_radius(y[~np.isinf(certificates.radii)], finite) == pytest.approx(expected)


def test_infinite_radii_of_wrong_or_unweighted_inputs_count_nothing():
    p = np.full(2, 0.5)
    found = Certificates(
        labels=np.array([0, 1]),
        radii=np.array([np.inf, 1.0]),
        abstained=np.zeros(2, bool),
        p_a=p,
        p_b=p,
        alpha=0.1,
        norm=1,
    )
    assert average_certified_radius([1, 1], found) == 0.5
    assert average_certified_radius([0, 1], found, sample_weight=[0, 2]) == 1


@pytest.mark.parametrize("weight", [[1, 2], [-1] * 200, [0] * 200, [np.nan] * 200, ["a"] * 200, np.ones((200, 1))])
def test_bad_weights(weight):
    y, certificates, _ = random_certificates(0)
    for score in (certified_accuracy_curve, average_certified_radius):
        with pytest.raises(ValueError, match=r"sample_weight must hold (one finite number for each of 200|numbers of)"):
            score(y, certificates, sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight must hold"):
        certified_accuracy_envelope(y, [certificates], 0.5, sample_weight=weight)


@pytest.mark.parametrize("cap", [0, -1, np.inf, "3"])
def test_bad_cap(cap):
    y, certificates, _ = random_certificates(0)
    with pytest.raises(ValueError, match="max_radius must be a finite number above 0"):
        average_certified_radius(y, certificates, max_radius=cap)
