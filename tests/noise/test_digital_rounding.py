"""Digital inputs may be off the lattice by a rounding error, which certificates count."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import (
    Box,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SplitNoise,
    UniformNoise,
)
from smoothcert.certify.reach import certified_radii, required_probability
from smoothcert.noise.lattice import ON_LATTICE
from smoothcert.noise.mechanism import NoiseMechanism

OFF = Fraction(ON_LATTICE)


def mechanism_of(noise, d):
    return NoiseMechanism(Box.from_bounds((0, 1)), noise, (d,))


def distances(d, q, norm):
    """Return the distances of all points of a small lattice from 0, and the smallest of accepted inputs, powered."""
    found = {}
    for steps in itertools.combinations_with_replacement(range(5), d):
        exact, raw = [Fraction(k, q) for k in steps], [max(Fraction(k, q) - 2 * OFF, Fraction(0)) for k in steps]
        point = max(exact) if norm == np.inf else sum(z**norm for z in exact)
        distance = max(raw) if norm == np.inf else sum(z**norm for z in raw)
        found[point] = min(found.get(point, distance), distance)
    return list(found.items())


@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize(("d", "q"), [(1, 3), (3, 4), (4, 2), (2, 60_000)])
def test_accepted_inputs_within_the_radius_lie_within_the_radius_of_points(norm, d, q):
    """All lattice points are compared, each at the smallest distance that two accepted inputs can have there."""
    noise = GaussianNoise(1.0, levels=q)
    mechanism, power, found = mechanism_of(noise, d), 1 if norm == np.inf else norm, distances(d, q, norm)
    near = [float(point) ** (1 / power) for point, _ in found if point <= Fraction(3, q) ** power]
    radii = np.array([r * (1 + change) for r in near for change in (-1e-3, -1e-6, -3e-8 * q, -1e-12, 0, 1e-12, 1e-3)])
    radii = radii[radii >= 0]
    shrunk = mechanism.raw_radius(radii, norm)
    assert (shrunk <= radii).all()
    for radius, sure in zip(radii, shrunk, strict=True):
        outside = min(raw for point, raw in found if point > Fraction(radius) ** power)
        assert Fraction(sure) ** power < outside
        # As large as it can be, up to a few roundings, where the radius is not that of lattice points to the last bit.
        if norm != 2 and min(abs(radius - r) for r in near) > 1e-14 * radius:
            assert sure >= min(radius, float(outside) ** (1 / power)) * (1 - 1e-9)
        # The inverse leads back, from below a few roundings too.
        for goal in (sure, sure * (1 - 1e-12)):
            again = mechanism.point_radius(np.array([goal]), norm)
            assert mechanism.raw_radius(again, norm) >= goal
        assert again <= radius * (1 + 1e-13)


def test_a_flip_within_the_rounding_is_outside_the_certificate():
    """The lattice point next to x has another label, and an accepted input of it is closer to x than a step."""
    noise = UniformNoise(1.0, levels=4)
    mechanism = mechanism_of(noise, 1)
    x, y = np.array([[0.5 + ON_LATTICE]]), np.array([[0.75 - ON_LATTICE]])
    assert (mechanism.points(y) - mechanism.points(x)).item() == 1
    # For one step the noise must overlap by 1 - 1/8: a margin just below .25 certifies none.
    margin = np.array([0.25 - 1e-8])
    radius = certified_radii(LipschitzRadius(), mechanism, x, (1 + margin) / 2, (1 - margin) / 2)
    assert radius < (y - x).item()
    assert radius == pytest.approx(0.25 - 2 * ON_LATTICE)
    required = required_probability(LipschitzRadius(), mechanism, x, np.array([[0.2, (y - x).item(), 0.25]]))
    np.testing.assert_allclose(required, [[0.6, 0.625, 0.625]], rtol=1e-9)


def test_lattices_of_columns_count_the_rounding_of_both_inputs():
    mechanism = mechanism_of(UniformNoise(1.0, levels=(4, 8)), 2)
    x, y = np.array([[0.5, 0.5]]) + ON_LATTICE, np.array([[0.75, 0.75]]) - ON_LATTICE
    np.testing.assert_array_equal(mechanism.snapped(y) - mechanism.snapped(x), [[0.25, 0.25]])
    assert mechanism.raw_radius(np.array([0.5])) <= np.abs(y - x).sum()


def test_what_is_on_the_lattice_keeps_its_radius_unless_the_next_points_are_near():
    mechanism = mechanism_of(SplitNoise(1.0, levels=255), 784)
    steps = np.arange(1, 300)
    for beyond in (1e-12, 1e-3, 0.5):
        np.testing.assert_array_equal(mechanism.raw_radius((steps + beyond) / 255), (steps + beyond) / 255)
    rng = np.random.default_rng(0)
    radii = rng.uniform(0.5, 1.0, 100_000)
    lost = radii - mechanism.raw_radius(radii)
    assert 0 < (lost > 0).mean() < 0.04
    assert lost.max() < 784 * 2 * ON_LATTICE
    assert lost.mean() < 3e-6


def test_whole_steps_of_deterministic_noise_stay_whole():
    noise = DeterministicSplitNoise(1.0, levels=255)
    steps = np.arange(0, 510)
    np.testing.assert_array_equal(mechanism_of(noise, 784).raw_radius(steps / 255), steps / 255)


def test_limits_let_a_feature_move_to_the_lattice_point_that_rounding_reaches():
    noise, faces = UniformNoise(1.0, levels=10), np.full((1, 3), 0.5)
    limits = [0.3, 0.3 - 1e-8, 0.25]
    found = GreedyRadius(max_change=limits).reach(noise, faces, faces)
    np.testing.assert_allclose(found, [[0.3, 0.3, 0.25]], rtol=1e-15)
