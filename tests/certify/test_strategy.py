"""What all radius strategies share: checks, broadcasting, and prices of distances."""

import numpy as np
import pytest

from smoothcert import BoxRadius, GreedyRadius, LipschitzRadius, SplitNoise, UniformNoise
from smoothcert.certify.strategy import RadiusStrategy

STRATEGIES = [LipschitzRadius(), BoxRadius(), GreedyRadius()]


def test_invalid_norm_lists_the_valid_ones():
    with pytest.raises(
        ValueError,
        match=r"LipschitzRadius\(norm=2\) has no certificate for UniformNoise\(\). Valid are Lipsch.*norm=inf.*Greedy",
    ):
        LipschitzRadius(norm=2).check(UniformNoise())


def test_strategies_define_within():
    with pytest.raises(TypeError, match="Half must not define radii, which certification does not ask for, but within"):

        class Half(LipschitzRadius):
            def radii(self, noise, p_a, p_b, down, up):
                return super().radii(noise, p_a, p_b, down, up) / 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_radii_of_all_strategies_broadcast(strategy):
    noise, p = UniformNoise(1.0), np.array([0.6, 0.8, 0.9])
    one, all_of_them = np.full((1, 4), 0.5), np.full((3, 4), 0.5)
    expected = strategy.radii(noise, p, 1 - p, all_of_them, all_of_them)
    np.testing.assert_array_equal(strategy.radii(noise, p, 1 - p, one, one), expected)
    np.testing.assert_array_equal(strategy.radii(noise, 0.8, 0.2, all_of_them, one), expected[[1, 1, 1]])
    np.testing.assert_array_equal(
        strategy.radii(noise, 0.9, p[:2], one, one), strategy.radii(noise, [0.9, 0.9], p[:2], one, one)
    )
    np.testing.assert_array_equal(
        strategy.radii(noise, p.tolist(), 0.1, one[0], one),
        strategy.radii(noise, p, np.full(3, 0.1), all_of_them, all_of_them),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("p_a", "p_b"), [(1.2, 0.1), (0.9, -0.1), (np.nan, 0.1), (0.9, np.nan), (0.5, 0.5), (0.4, 0.6), ([0.9, 0.1], 0.2)]
)
def test_radii_of_impossible_probabilities_are_refused(strategy, p_a, p_b):
    faces = np.full((1, 4), 0.5)
    with pytest.raises(ValueError, match="p_a and p_b must be probabilities from 0 to 1 with p_a > p_b"):
        strategy.radii(UniformNoise(1.0), p_a, p_b, faces, faces)


def test_a_distance_that_certainty_just_covers_has_a_price():
    class Halved(RadiusStrategy):
        def within(self, noise, budget, reach):
            return LipschitzRadius().within(noise, budget, reach) / 2

    noise, reach = SplitNoise(1.0), np.ones((3, 2))
    most = Halved().within(noise, np.array([noise.budget(1.0, 0.0)]), reach[:1])[0]
    found = Halved().price(noise, reach, np.array([most / 2, most, most * (1 + 1e-9)]))
    np.testing.assert_allclose(found, [-np.log(0.75), np.log(2), np.inf], rtol=1e-9)
