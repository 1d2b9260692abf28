"""Radii, required probabilities, smallest overlaps and worst perturbations, against all inputs of small lattices."""

import itertools
import math
import tracemalloc
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
from smoothcert._utils.memory import keep_freed
from smoothcert.certify.reach import (
    certified_radii,
    reaches_to_keep,
    required_probability,
    smallest_overlap,
    worst_perturbations,
)
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
    totals = [math.prod(sum(each.values()) for each in at) for at in (at_x, at_y)]
    masses = [np.ones((), dtype=object), np.ones((), dtype=object)]
    for x, y in zip(at_x, at_y, strict=True):
        of_x, of_y = ([each.get(value, 0) for value in x] for each in (x, y))
        masses = [
            np.multiply.outer(mass, np.array(of, dtype=object)) for mass, of in zip(masses, (of_x, of_y), strict=True)
        ]
    shared = np.minimum(masses[0] * totals[1], masses[1] * totals[0]).sum()
    return Fraction(int(shared), totals[0] * totals[1])


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
        kept = ways.kept * Fraction(1, ways.total)
        if mix.hidden == "uniform":
            at_x = [mix.outcomes(i, value) for i, value in enumerate(x)]
            kept = [joint_overlap(at_x, [mix.outcomes(i, at) for i, at in enumerate(y)]) for y in ways.ends.tolist()]
        lengths, kinds = np.unique(ways.lengths, return_inverse=True)
        radius, least = [Fraction(length, ways.unit) for length in lengths.tolist()], np.ones(len(lengths))
        np.minimum.at(least, kinds, np.array(kept, dtype=float))
        least = np.minimum.accumulate(least)
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "strategy",
    [
        LipschitzRadius(norm=np.inf),
        BoxRadius(),
        GreedyRadius(),
        GreedyRadius(max_change=np.full(150_528, 1e-3)),
        GreedyRadius(max_change=(0.1, np.inf), max_features=9),
    ],
    ids=["linf", "box", "greedy", "tiny", "limited"],
)
def test_memory_stays_within_twice_the_inputs(strategy, dtype):
    rng = np.random.default_rng(0)
    X = rng.random((16, 3, 224, 224), dtype=dtype)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(3.5), X.shape[1:])
    p_a = rng.uniform(0.5, 1, len(X))
    # Once in a process, this asks for memory that it never touches.
    keep_freed()
    tracemalloc.start()
    try:
        radii = certified_radii(strategy, mechanism, X, p_a, 1 - p_a)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (radii >= 0).all()
    assert peak <= 2 * X.nbytes


NOISES = [
    UniformNoise(0.7),
    SplitNoise(1.3, levels=255),
    GaussianNoise(0.5),
    LaplaceNoise(0.5),
    UniformMixtureNoise([0.3, 1.0, 4.0], [0.2, 0.5, 0.3]),
]
PAIRS = [
    (noise, strategy)
    for noise, strategy in itertools.product(
        NOISES,
        [
            LipschitzRadius(),
            LipschitzRadius(norm=2),
            LipschitzRadius(norm=np.inf),
            BoxRadius(),
            BoxRadius(closed_form=True),
            GreedyRadius(),
            GreedyRadius(max_change=(0.01, 0.3), max_features=30),
        ],
    )
    if (noise.uses_box or not strategy.uses_box) and strategy.norm in noise.norms
    if not getattr(strategy, "closed_form", False) or noise.allows_closed_form
]


def inputs(n, d):
    return np.random.default_rng(d).integers(256, size=(n, d)) / 255


def certified(strategy, noise, X, p_a):
    p_a = np.broadcast_to(p_a, len(X))
    return certified_radii(strategy, channel_of(noise, X), X, p_a, 1 - p_a)


def channel_of(noise, X):
    """Channel with a box that holds the last feature fixed."""
    hi = np.where(np.arange(X.shape[1]) < X.shape[1] - 1, 1.0, 0.0)
    return NoiseMechanism(Box.from_bounds((np.zeros(X.shape[1]), hi)), noise, X.shape[1:])


@pytest.mark.parametrize(("noise", "strategy"), PAIRS, ids=repr)
def test_required_probability_is_the_smallest_one(noise, strategy):
    strategy.check(noise)
    X = inputs(60, 50)
    certain = certified(strategy, noise, X, 1.0)
    most = np.where(np.isfinite(certain), certain, 3.0)
    goal = most * np.linspace(0.01, 1.0, len(X))
    found = required_probability(strategy, channel_of(noise, X), X, goal)
    assert ((found > 0.5) & (found <= 1)).all()
    assert (certified(strategy, noise, X, found) >= goal).all()
    below = found - 1e-6
    assert (certified(strategy, noise, X, np.maximum(below, 0.5)) < goal)[below > 0.5].all()
    assert (below > 0.5).mean() > 0.9

    beyond = required_probability(strategy, channel_of(noise, X), X, np.nextafter(certain, np.inf))
    assert (beyond[np.isfinite(certain)] == np.inf).all()
    np.testing.assert_array_equal(required_probability(strategy, channel_of(noise, X), X, 0.0), 0.5)


@pytest.mark.parametrize(("noise", "strategy"), PAIRS, ids=repr)
def test_required_probability_agrees_with_a_grid(noise, strategy):
    X = inputs(1, 20)
    grid = np.linspace(0.5, 1, 2001)
    radii = certified(strategy, noise, np.repeat(X, len(grid), axis=0), grid)
    for goal in (1e-4, 0.05, 0.4, 1.1, 6.0):
        found = required_probability(strategy, channel_of(noise, X), X, goal)[0]
        enough = np.flatnonzero((radii >= goal) & (grid > 0.5))
        if len(enough):
            assert grid[enough[0] - 1] < found <= grid[enough[0]]
        else:
            assert found == np.inf


def test_required_probability_of_chunks_and_of_one_number(monkeypatch):
    noise, X, goal = SplitNoise(2.0), inputs(37, 300), np.random.default_rng(0).uniform(0, 2.5, 37)
    mechanism = channel_of(noise, X)
    whole = required_probability(GreedyRadius(), mechanism, X, goal)
    one = required_probability(GreedyRadius(), mechanism, X, 1.5)
    np.testing.assert_array_equal(one, required_probability(GreedyRadius(), mechanism, X, np.full(37, 1.5)))
    monkeypatch.setattr("smoothcert.certify.reach.REACH_VALUES", 1000)
    np.testing.assert_array_equal(required_probability(GreedyRadius(), mechanism, X, goal), whole)
    assert required_probability(GreedyRadius(), mechanism, X[:0], 1.0).shape == (0,)


@pytest.mark.parametrize("goal", [20.0, 400.0])
def test_required_probability_where_many_features_move(goal):
    noise, X = GaussianNoise(4.0), inputs(5, 3000)
    found = required_probability(GreedyRadius(), channel_of(noise, X), X, goal)
    assert (certified(GreedyRadius(), noise, X, found) >= goal).all()
    assert (certified(GreedyRadius(), noise, X, found - 1e-9) < goal).all()


def test_required_probability_where_nothing_can_move():
    noise, X = SplitNoise(1.0), np.zeros((2, 1))
    mechanism = NoiseMechanism(Box.from_bounds((np.zeros(1), np.zeros(1))), noise, (1,))
    np.testing.assert_allclose(required_probability(GreedyRadius(), mechanism, X, np.array([0.0, 5.0])), 0.5)


def test_required_probability_of_a_strategy_of_ones_own():
    """It may depend on reaches that never matter to the strategies of the library."""

    class Shared(RadiusStrategy):
        def within(self, noise, budget, reach):
            return noise.inverse_cost(budget / np.count_nonzero(reach, axis=1))

    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (300,))
    X, p = np.full((1, 300), 0.5), np.array([0.9])
    radius = certified_radii(Shared(), mechanism, X, p, 1 - p)
    assert required_probability(Shared(), mechanism, X, radius) == pytest.approx(p)


@pytest.mark.parametrize("lam", [0.6, 20.0, 60.0])
@pytest.mark.parametrize("n_samples", [0, 1000])
def test_the_reaches_kept_decide_even_if_all_are_the_least_ones(lam, n_samples):
    """A feature in the middle of its range has the least reach, half of the range."""
    mechanism, X = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(lam), (400,)), np.full((1, 400), 0.5)
    p_a = np.array([1.0 if n_samples == 0 else 1e-6 ** (1 / n_samples)])
    kept = reaches_to_keep(mechanism, X, p_a[0] - 0.5)
    assert kept.shape[1] < 200
    found = certified_radii(GreedyRadius(), mechanism, None, p_a, 1 - p_a, largest_reaches=kept)
    np.testing.assert_array_equal(found, certified_radii(GreedyRadius(), mechanism, X, p_a, 1 - p_a))
    assert np.isfinite(found).all()


def test_the_worst_perturbation_moves_to_the_far_faces():
    """Up from the middle, in raw units of each feature, and no more features than are allowed."""
    mechanism = NoiseMechanism(Box.from_bounds(([0, 0, -2], [1, 10, 2])), UniformNoise(1.0), (3,))
    X, distance = np.array([[0.2, 5.0, 1.6], [0.2, 5.0, 1.6]]), np.array([1.2, 2.0])
    found = worst_perturbations(GreedyRadius(), mechanism, X, distance)
    np.testing.assert_allclose(found.reach, [[0.8, 0.5, 0.9]] * 2, atol=1e-6)
    np.testing.assert_allclose(found.moves, [[0.3, 0, -0.9], [0.8, 0.3, -0.9]], atol=1e-6)
    np.testing.assert_allclose(found.perturbed, [[0.5, 5, -2], [1, 8, -2]], atol=1e-5)
    for strategy, expected in (
        (GreedyRadius(max_features=1), [[0, 0, -0.9]] * 2),
        (GreedyRadius(max_features=2), [[0.3, 0, -0.9], [0.8, 0, -0.9]]),
        (GreedyRadius((0.6, np.inf)), [[0.8, 0, -0.4], [0.8, 0.5, -0.6]]),
    ):
        moved = worst_perturbations(strategy, mechanism, X, distance).moves
        np.testing.assert_allclose(moved, expected, atol=1e-6)
    for strategy in (BoxRadius(), LipschitzRadius()):
        with pytest.raises(ValueError, match='radius must be "greedy" to find worst perturbations, got '):
            worst_perturbations(strategy, mechanism, X, distance)


def test_worst_perturbations_of_images_have_their_shape():
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (2, 3))
    images = np.linspace(0.1, 0.9, 12).reshape(2, 2, 3)
    for found in worst_perturbations(GreedyRadius(), mechanism, images, np.array([0.5, 0.7])):
        assert found.shape == images.shape


def test_a_store_of_noise_without_a_box_keeps_no_reaches():
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), LaplaceNoise(), (3,))
    assert reaches_to_keep(mechanism, np.zeros((5, 3)), 0.4).shape == (5, 0)


def test_reaches_that_do_not_decide_are_counted_in_the_message():
    mechanism, p_a = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(9.0), (300,)), np.array([0.7, 0.999])
    for strategy in (GreedyRadius(), GreedyRadius(max_features=200)):
        with pytest.raises(
            ValueError, match="needs more than the 7 largest reaches of each input that the store holds"
        ):
            certified_radii(strategy, mechanism, None, p_a, 1 - p_a, largest_reaches=np.full((2, 7), 0.9))
    few = GreedyRadius(max_features=7)
    assert np.isinf(certified_radii(few, mechanism, None, p_a, 1 - p_a, largest_reaches=np.full((2, 7), 0.9))[1])
    ended = np.array([[0.9] * 6 + [0.0]] * 2)
    assert np.isinf(certified_radii(GreedyRadius(), mechanism, None, p_a, 1 - p_a, largest_reaches=ended)[1])


def test_radius_0_needs_one_half_and_no_more():
    mechanism, X = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (2,)), np.full((2, 2), 0.5)
    for strategy in STRATEGIES:
        found = required_probability(strategy, mechanism, X, np.array([[0.0, 0.5, 5.0]] * 2))
        np.testing.assert_allclose(found[:, :2], [[0.5, 0.75]] * 2, atol=1e-6)
        assert (found[:, 0] == 0.5).all()
        assert (found[:, 2] == np.inf).all() == (not isinstance(strategy, GreedyRadius))
