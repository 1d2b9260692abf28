"""Several radii of each input, decided on the same votes under one alpha."""

import re
import warnings
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import DeterministicSplitNoise, LipschitzRadius, SmoothedClassifier
from smoothcert.certify.stopping import RadiusTest

from ..base_models import Rule, constant
from .test_stopping import ALPHA, inputs, rarely, smooth


def true_radius(clf, p):
    margin = np.array([p[0] - p[1:].max()])
    return float(LipschitzRadius().radii(clf.noise_, (1 + margin) / 2, (1 - margin) / 2, *np.ones((2, 1, 1)))[0])


@pytest.mark.parametrize("shares", [[0.7, 0.3], [0.6, 0.25, 0.15], [0.97, 0.03]])
def test_one_alpha_covers_all_radii(shares):
    """Some radii are true and some are false: hardly any input gets a false one, among however many."""
    clf, p = smooth(shares, radius="lipschitz")
    # Several rivals make false certificates rarer.
    n = 700 if len(shares) > 2 else 300
    X, limit = inputs(n), true_radius(clf, p)
    below, above = limit * np.array([0.2, 0.5, 0.8]), limit * np.array([1 + 1e-9, 1.001, 1.003, 1.01, 1.03, 1.1])
    decisions = clf.certify_at(X, [[*above, *below]])
    assert decisions.robust.shape == decisions.radius.shape == (n, 9)
    wrong = decisions.robust[:, :6].any(axis=1)
    assert 0 < wrong.sum(), "a test of no power would pass as well"
    assert rarely(wrong.sum(), n)
    np.testing.assert_array_equal(decisions.robust[:, :6].any(axis=1), decisions.robust[:, 0])
    assert decisions.robust[:, 6].mean() > 0.95


def test_decisions_fall_with_the_radius_and_columns_keep_their_order():
    clf, _ = smooth([0.8, 0.15, 0.05])
    radii = np.linspace(0, 1, 11)
    X, shuffled = inputs(50), np.random.default_rng(0).permutation(11)
    robust = clf.certify_at(X, radii[None]).robust
    assert (robust[:, 1:] <= robust[:, :-1]).all()
    assert robust[:, 0].all()
    assert not robust[:, -1].any()
    np.testing.assert_array_equal(clf.certify_at(X, radii[None, shuffled]).robust, robust[:, shuffled])


def test_an_input_draws_until_all_of_its_radii_are_decided():
    clf, _ = smooth([0.9, 0.1], n_samples=20_000, alpha=0.001)
    X, radii = inputs(30), [0.1, 0.6, 0.9]
    together = clf.certify_at(X, [radii])
    alone = [clf.certify_at(X, radius) for radius in radii]
    # A radius that is decided at one checkpoint may be open again at the next.
    most = np.max([one.n_samples for one in alone], axis=0)
    assert (together.n_samples >= most).all()
    assert (together.n_samples == most).mean() > 0.5
    np.testing.assert_array_equal(together.robust, np.stack([one.robust for one in alone], axis=1))
    # One column is the same as one radius.
    np.testing.assert_array_equal(clf.certify_at(X, [[0.6]]).robust[:, 0], alone[1].robust)
    each = np.array(radii) * np.arange(30)[:, None] / 30
    for i in (3, 17):
        np.testing.assert_array_equal(
            clf.certify_at(X, each).robust[i], clf.certify_at(X[i : i + 1], each[[i]]).robust[0]
        )


@pytest.mark.parametrize(
    ("radius", "message"),
    [
        ([0.5, 1, 2], r"got \[0\.5, 1, 2\]\. Write \[\[0\.5, 1\.0, 2\.0\]\] to ask for all of these radii"),
        ([[0.5, 1], [2, 3]], r"\(n_inputs, n_radii\), got \[\[0\.5, 1\], \[2, 3\]\]\.$"),
        ("0.5", r"got '0\.5'\.$"),
        (["0.5"] * 4, r"got \['0\.5'"),
        (np.array([0.1, "0.5", 1, 2], dtype=object), "got array"),
        ([True] * 4, "got .True"),
        ([None] * 4, "got .None"),
        (-0.1, r"got -0\.1\.$"),
        (np.nan, r"got nan\.$"),
        ([[]], r"got \[\[\]\]\.$"),
        ([[0.5], [1, 2]], "radius must be a number of at least 0, or one for each of 4 inputs"),
    ],
)
def test_radii_that_are_refused(radius, message):
    clf, _ = smooth([0.9, 0.1])
    with pytest.raises(ValueError, match=message):
        clf.certify_at(inputs(4), radius)


def test_radii_of_other_types_of_numbers():
    clf, _ = smooth([0.9, 0.1])
    expected = clf.certify_at(inputs(4), [0.25, 0.5, 0.75, 1.0]).robust
    for radii in ([Fraction(k, 4) for k in (1, 2, 3, 4)], np.array([0.25, 0.5, 0.75, 1], dtype=object)):
        np.testing.assert_array_equal(clf.certify_at(inputs(4), radii).robust, expected)


def test_decisions_are_indexed_by_inputs_and_iterate_as_two_arrays():
    clf, _ = smooth([0.9, 0.1])
    for radius, shape in ((0.1, (1,)), ([[0.1, 0.9]], (1, 2))):
        decisions = clf.certify_at(inputs(4), radius)
        assert decisions[0].robust.shape == shape
        assert decisions[0].labels == decisions.labels[:1]
        labels, robust = decisions
        np.testing.assert_array_equal(robust, decisions.robust)
        np.testing.assert_array_equal(labels, decisions.labels)
        assert re.match(r"Decisions\(0 inputs, .* 0 votes each", repr(decisions[:0]))
        for index in (True, None, [[0, 1]]):
            with pytest.raises(IndexError, match="Decisions takes a position, a slice or a mask of inputs"):
                decisions[index]


def test_a_rule_goes_on_while_one_radius_is_open():
    rule = RadiusTest(strategy=None, mechanism=None, alpha=0.001, strongest_rival=False, cap=100_000)
    selection, counts = np.array([[32, 0]] * 3), np.array([[900, 100]] * 3)
    required = np.array([[0.6, 0.7], [0.6, 0.89], [0.7, 0.99]])
    assert rule.enough(counts, selection=selection, required=required).tolist() == [True, False, True]


def test_several_radii_without_sampling():
    noise = DeterministicSplitNoise(1.0, levels=4)
    clf = SmoothedClassifier.from_pretrained(Rule(constant).fit(None, None), [0, 1], noise)
    decisions = clf.certify_at([[0.25, 0.5]] * 2, [[0.75, 1.0, 1.25]])
    assert decisions.robust.tolist() == [[True, True, False]] * 2
    assert repr(decisions).startswith("Decisions(2 inputs, 2, 2, 0 robust in l1")
    frame = decisions.to_frame()
    assert frame.columns.tolist()[1:5] == ["radius 0", "robust 0", "radius 1", "robust 1"]
    assert frame["robust 2"].tolist() == [False, False]


def test_decisions_at_several_radii_can_be_sliced_and_saved(tmp_path):
    clf, _ = smooth([0.9, 0.1])
    decisions = clf.certify_at(inputs(4), [[0.1, 0.9]])
    for path in (tmp_path / "decisions.npz", tmp_path / "decisions.parquet"):
        decisions.save(path)
        np.testing.assert_array_equal(type(decisions).load(path)[1:].robust, decisions.robust[1:])


@pytest.mark.parametrize("shares", [[1.0, 0.0], [1.0, 0.0, 0.0]])
def test_the_largest_radius_in_reach_is_named(shares):
    """Whatever is beyond it is not certified, and what is below is, by votes that all agree."""
    clf, _ = smooth(shares, n_samples=1000, alpha=ALPHA)
    X = inputs(3)
    with pytest.warns(UserWarning, match="radius is out of reach for every input: it is at least 1.999, but even") as w:
        assert not clf.certify_at(X, [[1.9999, 1.999]]).robust.any()
    largest = float(str(w[0].message).split("certify no more than ")[1].split(". ")[0])
    assert f"raise n_samples={1000} or the width" in str(w[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clf.certify_at(X, largest).robust.all()
        assert clf.certify_at(X, [[largest, 5.0]]).robust[:, 0].all()
    with pytest.warns(UserWarning, match=f"no more than {largest:g}"):
        clf.certify_at(X, largest + 1e-3)
    weak, _ = smooth([0.55, 0.45], n_samples=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not weak.certify_at(X, 0.5).robust.any(), "in reach of other votes"
