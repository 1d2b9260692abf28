import itertools
import re
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import Box, SmoothedClassifier, SplitNoise, UniformNoise
from smoothcert.noise.mechanism import NoiseMechanism

from ..base_models import constant


def test_minmax_takes_each_features_range():
    box = Box.from_bounds("minmax", np.array([[0, 5, 2], [10, 5, 4]]))
    np.testing.assert_array_equal(box.lo, [0, 5, 2])
    np.testing.assert_array_equal(box.hi, [10, 5, 4])


def test_to_unit_clips_and_scales_and_keeps_constant_features_at_0():
    box = Box.from_bounds(([0, 5, 2], [10, 5, 4]))
    np.testing.assert_array_equal(box.to_unit([[5, 5, 9], [-3, 7, 2]]), [[0.5, 0, 1], [0, 0, 0]])
    unit = np.array([[0.5, 0.3, 1.5]])
    box.to_raw_inplace(unit)
    np.testing.assert_array_equal(unit, [[5, 5, 5]])


def test_a_box_too_wide_for_floats():
    with pytest.raises(ValueError, match="bounds must be less than 1e308 apart"):
        Box.from_bounds("minmax", np.array([[-1.7e308], [1.7e308]]))


@pytest.mark.parametrize(
    "bounds",
    [
        (0, 1),
        (0, 255),
        (-1, 2),
        (0.1, 0.7),
        (1e3, 1e3 + 1),
        (1e6, 1e6 + 1),
        (1e9, 1e9 + 1),
        (1e9, 1e9 + 0.3),
        (1e12, 1e12 + 1),
        (-1e9, 1e9),
        (-1e-9, 2e-9),
        (-1.5e300, 1e300),
        (1e-310, 3e-310),
        (2.0**52, 2.0**53),
    ],
)
def test_rounding_covers_neighbors_of_every_boundary_in_exact_arithmetic(bounds):
    """Floats around the boundaries of lattice cells, where rounding adds most; distances as fractions."""
    rng = np.random.default_rng(0)
    lo, hi = map(float, bounds)
    mechanism = NoiseMechanism(Box.from_bounds(bounds), UniformNoise(), (1,))
    q, width = mechanism.noise.q, Fraction(hi) - Fraction(lo)
    below = np.clip(lo + (rng.integers(q - 1, size=400) + 0.5) / q * (hi - lo), lo, hi)
    for _ in range(2):
        below = np.nextafter(below, lo)
    sides = [below]
    for _ in range(4):
        sides.append(np.nextafter(sides[-1], hi))
    points = [mechanism.points(side[:, None])[:, 0].astype(int) for side in sides]
    pairs = list(itertools.combinations(range(5), 2))
    worst = max(
        Fraction(int(abs(a - b)), q) - abs(Fraction(float(x)) - Fraction(float(y))) / width
        for i, j in pairs
        for a, b, x, y in zip(points[i], points[j], sides[i], sides[j], strict=True)
    )
    assert worst <= Fraction(mechanism.rounding())
    assert mechanism.rounding() == pytest.approx(1 / q, rel=1e-6)


def test_room_is_the_distance_to_the_faces():
    box = Box.from_bounds(([0, 0, 2], [1, 1, 2]))
    down, up = box.room(np.array([[0.25, 0.75, 0.0]]))
    np.testing.assert_array_equal(down, [[0.25, 0.75, 0]])
    np.testing.assert_array_equal(up, [[0.75, 0.25, 0]])


def test_bounds_per_channel():
    box = Box.from_bounds((np.zeros((3, 1, 1)), np.array([1, 2, 4]).reshape(3, 1, 1)))
    unit = box.to_unit(np.ones((2, 3, 4, 4)))
    np.testing.assert_array_equal(unit[0, :, 0, 0], [1, 0.5, 0.25])
    assert box.movable((3, 4, 4)).shape == (3, 4, 4)


@pytest.mark.parametrize(
    "bounds", [(1, 0), (0, 0), (0, np.inf), (np.nan, 1), (0, 1, 2), 3, "range", None, ("a", "b"), ([0, 0], [1, 1, 1])]
)
def test_bad_bounds(bounds):
    expected = 'bounds must be a pair (lo, hi) of finite numbers or arrays with lo < hi, or "minmax", got '
    with pytest.raises(ValueError, match=re.escape(expected)):
        Box.from_bounds(bounds)


@pytest.mark.parametrize("ends", [(np.zeros(2), np.ones(2)), (0, np.ones((1, 5))), (np.zeros((3, 1, 1)), 1)])
def test_bounds_that_do_not_fit_the_inputs(ends):
    with pytest.raises(ValueError, match=r"bounds must be scalars or fit inputs of shape \(5,\), but one has shape"):
        NoiseMechanism(Box.from_bounds(ends), UniformNoise(), (5,))
    with pytest.raises(ValueError, match=r"bounds must be scalars or fit inputs of shape \(5,\)"):
        Box.from_bounds(ends).check(np.zeros((4, 5)))


def test_minmax_needs_data():
    with pytest.raises(ValueError, match=r'bounds="minmax" needs training data'):
        Box.from_bounds("minmax")


def test_training_data_outside_the_box():
    box = Box.from_bounds((0, 1))
    box.check(np.array([[1 + 1e-9, -1e-9]]))
    with pytest.raises(
        ValueError, match=r"X must lie inside bounds=\(0, 1\), but ranges from 0 to 255. Scale X .* or set"
    ):
        box.check(np.array([[0.0, 255.0]]))
    box = Box.from_bounds(([0, 0], [1, 2]))
    with pytest.raises(ValueError, match=r"inside bounds=\(0, 2\), but ranges from 3 to 4 in feature 1. Scale X"):
        box.check(np.array([[0.0, 3.0], [1.0, 4.0]]))
    with pytest.raises(ValueError, match=r"but ranges from 3 to 3 in column 'dose'. Scale X"):
        box.check(np.array([[0.0, 3.0]]), ["age", "dose"])
    images = Box.from_bounds((np.zeros((3, 1, 1)), np.ones((3, 1, 1))))
    X = np.zeros((2, 3, 4, 4))
    X[1, 2, 3, 1] = 7
    with pytest.raises(ValueError, match=r"inside bounds=\(0, 1\), but ranges from 0 to 7 in feature \(2, 3, 1\)"):
        images.check(X)


@pytest.mark.parametrize("width", [1e-3, 1.0, 1e6])
def test_training_data_may_leave_the_box_by_a_part_of_its_width(width):
    box = Box.from_bounds((-width, 0))
    box.check(np.array([[-width * (1 + 0.9e-6), width * 0.9e-6]]))
    for wrong in (-width * (1 + 2e-6), width * 2e-6, np.nan):
        with pytest.raises(ValueError, match="X must lie inside bounds"):
            box.check(np.array([[0.0, wrong]]))


def test_only_the_unit_box_is_the_unit_box():
    assert Box.from_bounds((0, 1)).is_unit
    assert Box.from_bounds(([0, 0], 1)).is_unit
    for lo, hi in ((0, [1, 2]), ([0, 0.5], 1), (-1, 1), ([0, 1], [1, 2])):
        box, unit = Box.from_bounds((lo, hi)), np.array([[0.5, 0.25]])
        assert not box.is_unit
        box.to_raw_inplace(unit)
        np.testing.assert_array_equal(unit[0], np.add(lo, np.multiply(np.subtract(hi, lo), [0.5, 0.25])))


def test_inputs_stay_as_they_are():
    for bounds in ((0, 1), (0, 2), (-1, 0)):
        X = np.array([[0.25, 3.0], [-2.0, 0.5]])
        Box.from_bounds(bounds).to_unit(X)
        np.testing.assert_array_equal(X, [[0.25, 3.0], [-2.0, 0.5]])


def test_fingerprints_are_those_of_both_ends_and_their_shapes():
    ends = [
        (0, 1),
        (0, 2),
        (-1, 1),
        ([0, 0], [1, 1]),
        ([0, 0], 1),
        (0, [1, 1]),
        ([0, 0], [1, 2]),
        (np.zeros((2, 1)), 1),
    ]
    assert len({Box.from_bounds(bounds).fingerprint() for bounds in ends}) == len(ends)
    # Stores hold them.
    assert Box.from_bounds((0, 1)).fingerprint() == "0bc9e86d3f3f87b6336cb9ff611afeb9"


def test_features_without_extent_are_allowed_beside_a_number():
    for bounds in ((0, [1, 0]), ([0, 1], 1), ([0, 1], [1, 1])):
        assert (Box.from_bounds(bounds).width == 0).any()
    for bounds in ((0, 0), (0, [1, -1])):
        with pytest.raises(ValueError, match="bounds must be a pair"):
            Box.from_bounds(bounds)


def test_noisy_copies_in_float32_become_raw_values_in_float32():
    unit = np.linspace(-1, 2, 1000, dtype=np.float32)
    raw = unit.copy()
    Box.from_bounds((0.1, 0.7)).to_raw_inplace(raw)
    np.testing.assert_array_equal(raw, unit * np.float32(0.7 - 0.1) + np.float32(0.1))


def test_the_warning_of_clipped_inputs_points_at_the_caller():
    clf = SmoothedClassifier.from_pretrained(constant, [0, 1], n_samples=10)
    for method in (clf.certify, clf.predict, clf.count_votes):
        with pytest.warns(UserWarning, match="outside bounds") as caught:
            method(np.full((4, 2), 7.0))
        assert caught[0].filename == __file__


def test_features_without_bounds_have_no_extent():
    unbounded, names = np.array([False, True, False]), ["a", "b", "c"]
    X = np.array([[1.0, np.nan, 3.0], [2.0, 9.0, 5.0]])
    minmax = Box.from_bounds("minmax", X, unbounded=unbounded)
    by_name = Box.from_bounds({"c": (3, 5), "a": (1, 2)}, names=names, unbounded=unbounded)
    by_end = Box.from_bounds(({"c": 3, "a": 1}, {"a": 2, "c": 5}), names=names, unbounded=unbounded)
    without = Box.from_bounds(([1, 4, 3], [2, 6, 5])).without(unbounded)
    for box in (minmax, by_name, by_end, without):
        np.testing.assert_array_equal([box.lo, box.hi], [[1, 0, 3], [2, 0, 5]])
    images = Box.from_bounds("minmax", np.arange(8.0).reshape(2, 2, 2), unbounded=np.array([True, False, False, True]))
    np.testing.assert_array_equal([images.lo, images.hi], [[[0, 1], [2, 0]], [[0, 5], [6, 0]]])
    np.testing.assert_array_equal(Box.from_bounds((2, 3)).without(unbounded).hi, [3, 0, 3])
    assert Box.from_bounds((2, 3), unbounded=unbounded).hi == 3


def test_bad_bounds_name_the_feature():
    with pytest.raises(ValueError, match=r"got \(5, 1\) in feature 1\."):
        Box.from_bounds(([0, 5, 0], 1))
    with pytest.raises(ValueError, match=r"got \(5, 1\) in column 'b'\."):
        Box.from_bounds({"a": (0, 1), "b": (5, 1)}, names=["a", "b"])
    with pytest.raises(ValueError, match=r"bounds by column name must hold a pair \(lo, hi\) for each column, got"):
        Box.from_bounds({"a": (0, 1), "b": (0, 1, 2)}, names=["a", "b"])
    with pytest.raises(ValueError, match=r"bounds by column name must hold a pair \(lo, hi\) for each column, got"):
        Box.from_bounds({"a": (0, 1), "b": None}, names=["a", "b"])
    with pytest.raises(ValueError, match=r"of finite numbers or arrays with lo < hi.* in column 'a'\."):
        Box.from_bounds(({"a": None, "b": 0}, 1), names=["a", "b"])


@pytest.mark.parametrize("bounds", [(0, 1), (-1000, -999.5), ([0, 3, 7] * 10, [1, 3, 9] * 10)])
@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-3, 1])
def test_rounding_bounds_what_the_lattice_adds_to_a_distance(bounds, scale):
    """Points never lie farther apart than the raw inputs, by more than the radii shrink."""
    rng = np.random.default_rng(0)
    box = Box.from_bounds(bounds)
    mechanism = NoiseMechanism(box, UniformNoise(), (30,))
    lo, width = np.broadcast_to(box.lo, 30), np.broadcast_to(box.width, 30)
    x = lo + rng.random((300, 30)) * width
    y = np.clip(x + scale * rng.standard_normal((300, 30)) * width, lo, lo + width)
    raw = np.where(width > 0, np.abs(x - y) / np.where(width > 0, width, 1), 0).sum(axis=1)
    apart = np.abs(mechanism.points(x).astype(float) - mechanism.points(y)).sum(axis=1) / mechanism.noise.q
    assert (apart <= raw + mechanism.rounding()).all()
    assert mechanism.rounding() < 30 / mechanism.noise.q * 1.01


def test_half_a_step_per_feature_reaches_the_bound():
    """The worst case for rounding: radii that ignored it would be wrong."""
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(), (100,))
    q = mechanism.noise.q
    x = np.full((1, 100), 5.5 / q - 1e-13)
    y = np.full((1, 100), 5.5 / q + 1e-13)
    apart = np.abs(mechanism.points(x).astype(float) - mechanism.points(y)).sum() / q
    assert apart == pytest.approx(mechanism.rounding(), rel=1e-6)


@pytest.mark.parametrize(
    ("X", "warned"),
    [
        (np.linspace(-1, 1, 100), True),
        (np.linspace(0, 2, 100), True),
        (np.append(np.linspace(0, 1, 99), 2.5), True),
        (np.append(np.linspace(0, 1, 95), [1.2, -0.1, 1.3, 1.9, 1.1]), False),
        (np.linspace(0, 1 + 1e-9, 100), False),
    ],
)
@pytest.mark.parametrize(("lo", "width"), [(0, 1), (-200, 1000), (3, 0.001)])
def test_many_clipped_values_or_one_far_away_look_like_other_units(X, warned, lo, width):
    box, X = Box.from_bounds((lo, lo + width)), lo + width * X.reshape(4, -1)
    share = np.mean((X < lo - 1e-6 * width) | (X > lo + width + 1e-6 * width))
    message = rf"X ranges from {X.min():g} to {X.max():g}, outside .* was clipped \({share:.2%} of its values\)"
    with pytest.warns(UserWarning, match=message) if warned else nullcontext():
        assert box.warn_clipped(X) == warned


def test_a_feature_that_is_constant_cannot_leave_the_box():
    box = Box.from_bounds(([0.0, 3.0], [1.0, 3.0]))
    assert not box.warn_clipped(np.array([[0.5, 99.0]]))
