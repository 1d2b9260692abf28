"""The smallest overlap within a radius, against all inputs of small lattices and against the certified radii."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    RadiusStrategy,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify.reach import certified_radii, smallest_overlap
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features

from ..guarantees.mixed import Mix, number_outcomes
from .test_costs import LOOSE, MIXES, as_input, mechanism_of

#: The adversary's worst moves end on the lattice here.
SAME_STEPS = [*MIXES[:2], LOOSE[0]]

#: A change of one category leaves half of the overlap, so that no budget pays for two.
HALVES = Mix("split", 4, Fraction(1), (Fraction(1, 2), Fraction(1, 2), Fraction(1), Fraction(1)), (2, 2), "mask")

STRATEGIES = [LipschitzRadius(), BoxRadius(), GreedyRadius()]


def joint_overlap(at_x, at_y):
    """Return the mass that the products of two lists of outcomes share, outcome by outcome."""
    shared = Fraction(0)
    for outcome in itertools.product(*(sorted(each) for each in at_x)):
        of_x, of_y = Fraction(1), Fraction(1)
        for value, x, y in zip(outcome, at_x, at_y, strict=True):
            of_x *= Fraction(x[value], sum(x.values()))
            of_y *= Fraction(y.get(value, 0), sum(y.values()))
        shared += min(of_x, of_y)
    return shared


@pytest.mark.parametrize("kind", ["uniform", "split"])
@pytest.mark.parametrize(("lam", "q"), [(Fraction(1), 4), (Fraction(3, 4), 4), (Fraction(3, 8), 4)])
def test_numbers_against_the_total_variation_of_both_noises(kind, lam, q):
    n_offsets = int(2 * lam * q)
    noise = (UniformNoise if kind == "uniform" else SplitNoise)(float(lam), q)
    for x in [(0, 0), (1, 4), (2, 2), (3, 2), (4, 1)]:
        point, at_x = np.array([x]) / q, [number_outcomes(kind, q, n_offsets, value) for value in x]
        shared = {}
        for y in itertools.product(range(q + 1), repeat=2):
            distance = sum(abs(a - b) for a, b in zip(x, y, strict=True))
            at_y = [number_outcomes(kind, q, n_offsets, value) for value in y]
            shared[distance] = min(shared.get(distance, 1), joint_overlap(at_x, at_y))
        farthest = max(shared)
        least = [float(min(shared[d] for d in shared if d <= r)) for r in range(farthest + 1)]
        radius = np.arange(farthest + 1) / q
        greedy = GreedyRadius().overlap(noise, radius, point, 1 - point)
        assert greedy == pytest.approx(least, abs=1e-12)
        assert (greedy <= least).all()
        for strategy in (LipschitzRadius(), BoxRadius()):
            assert (strategy.overlap(noise, radius, point, 1 - point) <= greedy).all()


@pytest.mark.parametrize("mix", [*MIXES, *LOOSE, HALVES])
def test_mixed_features_against_the_total_variation_of_both_noises(mix):
    """The library's adversary moves numbers by any amount, and below 1/2 changes categories in part."""
    mechanism, rng = mechanism_of(mix), np.random.default_rng(0)
    for _ in range(1 if mix.hidden == "uniform" else 2):
        x = (*rng.integers(mix.q + 1, size=2).tolist(), *(int(rng.integers(n)) for n in mix.n_categories))
        ways = mix.ways(x)
        if mix.hidden == "uniform":
            at_x = [mix.outcomes(i, value) for i, value in enumerate(x)]
            ways = [(y, d, joint_overlap(at_x, [mix.outcomes(i, at) for i, at in enumerate(y)])) for y, d, _ in ways]
        radius = sorted({d for _, d, _ in ways})
        least = np.array([float(min(kept for _, d, kept in ways if d <= r)) for r in radius])
        lipschitz, box, greedy = (
            smallest_overlap(strategy, mechanism, as_input(mix, x), np.array([list(map(float, radius))]))[0]
            for strategy in STRATEGIES
        )
        assert (lipschitz <= box + 1e-12).all()
        assert (box <= greedy + 1e-12).all()
        assert (greedy <= least).all()
        if mix not in LOOSE[1:]:
            # Few distances are whole steps of several lattices at once.
            share = 1 if mix in SAME_STEPS else 0.6 if mix.levels else 0.75
            assert np.mean(greedy[least > 0.5] > least[least > 0.5] - 1e-5) >= share


@pytest.mark.parametrize("lam", [0.3, 0.75, 2.2])
def test_closed_forms(lam):
    noise, faces, radius = SplitNoise(lam=lam), np.full((1, 7), 0.5), np.linspace(0, 7, 71)
    width = 2 * noise.effective_lam
    lipschitz = LipschitzRadius().overlap(noise, radius, faces, faces)
    assert lipschitz == pytest.approx(np.maximum(1 - radius / width, 0), abs=1e-12)
    box = BoxRadius().overlap(noise, radius, faces, faces)
    whole = np.floor(radius)
    closed = max(1 - 1 / width, 0) ** whole * np.maximum(1 - (radius - whole) / width, 0)
    assert box == pytest.approx(np.where((whole > 0) & (width <= 1), 0, closed), abs=1e-12)
    assert (lipschitz[0], box[0]) == (1, 1)


def test_of_mixtures_is_the_sum_of_the_overlaps_of_the_parts():
    mixture, rng = UniformMixtureNoise([0.4, 1.0, 3.0], [0.5, 0.25, 0.25]), np.random.default_rng(0)
    x, radius = rng.random((5, 4)), np.array([0.1, 0.5, 0.9, 1.7, 2.5])
    for strategy in (BoxRadius(), GreedyRadius(), GreedyRadius(max_features=2)):
        parts = [strategy.overlap(UniformNoise(lam), radius, x, 1 - x) for lam in (0.4, 1.0, 3.0)]
        found = strategy.overlap(mixture, radius, x, 1 - x)
        assert found == pytest.approx(np.dot([0.5, 0.25, 0.25], parts), abs=1e-12)
        assert (found <= np.dot([0.5, 0.25, 0.25], parts)).all()


@pytest.mark.parametrize("noise", [UniformNoise(lam=0.8), SplitNoise(lam=1.7), UniformMixtureNoise([0.5, 2.0])])
@pytest.mark.parametrize(
    "strategy",
    [*STRATEGIES, BoxRadius(closed_form=True), GreedyRadius(max_features=2), GreedyRadius(max_change=(0.3, 0.8))],
)
def test_the_overlap_at_a_radius_is_what_its_probabilities_leave(noise, strategy):
    if getattr(strategy, "closed_form", False) and not noise.allows_closed_form:
        pytest.skip("There is no closed form for this noise.")
    rng = np.random.default_rng(1)
    x, p_a = rng.random((200, 5)), rng.uniform(0.5, 1, 200)
    radii = strategy.radii(noise, p_a, 1 - p_a, x, 1 - x)
    finite = np.isfinite(radii) & (radii > 0)
    assert finite.sum() > 50
    overlap = strategy.overlap(noise, radii[finite], x[finite], 1 - x[finite])
    assert overlap == pytest.approx(1.5 - p_a[finite], abs=1e-11)
    beyond = strategy.overlap(noise, radii[finite] * (1 + 1e-9), x[finite], 1 - x[finite])
    assert (beyond < 1.5 - p_a[finite]).all()
    everything = strategy.overlap(noise, np.full(200, 1e9), x, 1 - x)
    assert (everything[np.isinf(radii)] > 1.5 - p_a[np.isinf(radii)]).all()


@pytest.mark.parametrize("hidden", ["mask", "uniform"])
def test_raw_inputs_with_costs_and_categories_agree_with_their_radii(hidden):
    features = Features(np.array([1.0, 0.5, 2.0, 0.7, 0.7, np.inf]), np.array([0, 0, 0, 4, 3, 0]), hidden)
    bounds = (np.array([-5.0, 0, 10, 0, 0, 0]), np.array([5.0, 1, 1000, 1, 1, 1]))
    mechanism = NoiseMechanism(Box.from_bounds(bounds), UniformNoise(lam=1.2), (6,), features)
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.uniform(lo, hi, 60) for lo, hi in zip(*bounds, strict=True)])
    X[:, 3:5] = rng.integers(3, size=(60, 2))
    p_a = rng.uniform(0.51, 1, 60)
    for strategy in STRATEGIES:
        radii = certified_radii(strategy, mechanism, X, p_a, 1 - p_a)
        inside = (radii > 0.01) & np.isfinite(radii)
        for sign in (-1, 1):
            radius = radii[inside] + sign * 1e-5
            overlap = smallest_overlap(strategy, mechanism, X[inside], radius)
            if sign < 0:
                # The likelihood-ratio test of hidden categories certifies more than their overlap.
                assert hidden == "uniform" or (overlap > 1.5 - p_a[inside]).all()
            elif hidden == "mask" or not strategy.uses_box:
                assert (overlap < 1.5 - p_a[inside]).all()
    assert smallest_overlap(GreedyRadius(), mechanism, X, np.zeros(60)).tolist() == [1.0] * 60
    for strategy in STRATEGIES[:2]:
        radius = np.linspace(0, 3, 60)
        for_all = smallest_overlap(strategy, mechanism, None, radius)
        assert for_all.tolist() == smallest_overlap(strategy, mechanism, X, radius).tolist()
    with pytest.raises(ValueError, match="'lipschitz' or 'box'"):
        smallest_overlap(GreedyRadius(), mechanism, None, np.ones(60))


class HalfRadius(RadiusStrategy):
    """Half the greedy radius; it defines no price."""

    def within(self, noise, budget, reach):
        return GreedyRadius().within(noise, budget, reach) / 2


def test_a_strategy_of_the_users_own_has_no_overlap_beyond_its_largest_radius():
    noise, x = SplitNoise(lam=1.0), np.array([[0.4, 0.9]])
    radius = np.array([0.1, 0.4, 0.7, 3.0])
    greedy = GreedyRadius().overlap(noise, 2 * radius, x, 1 - x)
    found = HalfRadius().overlap(noise, radius, x, 1 - x)
    assert found == pytest.approx(np.where(greedy > 0.5, greedy, 0), abs=1e-11)
    assert (found <= greedy).all()


@pytest.mark.parametrize("noise", [GaussianNoise(), LaplaceNoise(), DeterministicSplitNoise()])
def test_noise_that_does_not_pay_by_overlap_is_refused(noise):
    with pytest.raises(ValueError, match="noise must be uniform, splitting or mixture noise"):
        LipschitzRadius().overlap(noise, 0.5, np.ones((1, 2)), np.zeros((1, 2)))


def test_a_radius_that_is_no_distance_is_refused():
    with pytest.raises(ValueError, match="radius must be a number of at least 0"):
        LipschitzRadius().overlap(SplitNoise(), -0.5, np.ones((1, 2)), np.zeros((1, 2)))


def test_features_that_cannot_move_keep_the_whole_overlap():
    nothing = np.zeros((1, 2))
    for strategy in (BoxRadius(), GreedyRadius(), LipschitzRadius(norm=np.inf)):
        assert strategy.overlap(SplitNoise(), [1.0, np.inf], nothing, nothing) == pytest.approx(1, abs=1e-12)


def test_known_reaches_decide_about_overlaps_unless_the_walk_leaves_them():
    """Of 300 features the 7 with the largest reaches are known: 9/10 each."""
    radius, known = np.array([[0.5, 6.2], [0.0, 3.0]]), np.full((2, 7), 0.9)
    for lam in (0.6, 9.0):
        mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(lam), (300,))
        found = smallest_overlap(GreedyRadius(), mechanism, None, radius, largest_reaches=known)
        full = np.floor(radius / 0.9)
        expected = (1 - 0.9 / (2 * lam)) ** full * (1 - (radius - 0.9 * full) / (2 * lam))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert found[1, 0] == 1
    # Beyond all 7, less than 0.001 is left of narrow noise, which counts as nothing, and much of wide noise.
    beyond = np.array([6.5, 100.0])
    narrow = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(0.6), (300,))
    assert smallest_overlap(GreedyRadius(), narrow, None, beyond, largest_reaches=known).tolist() == [0, 0]
    with pytest.raises(ValueError, match="needs more than the 7 largest reaches"):
        smallest_overlap(GreedyRadius(), mechanism, None, beyond, largest_reaches=known)
    ended = np.column_stack([known, np.zeros(2)])
    found = smallest_overlap(GreedyRadius(), mechanism, None, beyond, largest_reaches=ended)
    np.testing.assert_allclose(found, 0.95**7, rtol=1e-9)
