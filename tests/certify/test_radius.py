import itertools
import tracemalloc
from decimal import Decimal, getcontext

import numpy as np
import pytest

from smoothcert import (
    BoxRadius,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert._utils.memory import keep_freed
from smoothcert.certify.changes import changes_of
from smoothcert.certify.reach import certified_radii, reaches_to_keep, required_probability, worst_perturbations
from smoothcert.certify.strategy import RadiusStrategy
from smoothcert.noise.box import Box
from smoothcert.noise.greedy import covering, largest, moves, walk, walk_largest
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features

getcontext().prec = 60
STRATEGIES = [LipschitzRadius(), BoxRadius(), GreedyRadius()]


def radius(strategy, lam, margin, reach):
    """Radius at one margin; p_a and p_b are such that their difference is exact."""
    noise = UniformNoise(lam=lam)
    return float(strategy.radii(noise, np.array([margin]), np.array([0.0]), *faces(np.atleast_2d(reach)))[0])


def faces(reach):
    """Room down and up of inputs whose far faces are at these distances; 0 is a feature that cannot move."""
    reach = np.asarray(reach, dtype=float)
    return reach, np.where(reach > 0, 1 - reach, 0)


def down_only(reach):
    """Room of inputs whose features can move down by these distances, and not up."""
    return reach, np.zeros_like(reach)


@pytest.mark.parametrize(
    ("margin", "lam", "lipschitz", "closed", "box"),
    [
        (0.2, 1, 0.2, 0.152003, 0.2),
        (0.5, 6.062177826, 3.031089, 3.342055, 3.351784),
        (0.9, 6.062177826, 5.455960, 6.945182, 6.947383),
        (0.98, 6.062177826, 5.940934, 7.822367, 7.828596),
    ],
)
def test_golden_values(margin, lam, lipschitz, closed, box):
    reach = np.ones(50)
    assert radius(LipschitzRadius(), lam, margin, reach) == pytest.approx(lipschitz, abs=1e-6)
    assert radius(BoxRadius(closed_form=True), lam, margin, reach) == pytest.approx(closed, abs=1e-6)
    assert radius(BoxRadius(), lam, margin, reach) == pytest.approx(box, abs=1e-6)
    assert radius(GreedyRadius(), lam, margin, reach) == pytest.approx(box, abs=1e-6)


def test_example_2_9():
    assert radius(LipschitzRadius(), 1, 0.76, [0.6, 0.6]) == pytest.approx(0.76)
    assert radius(GreedyRadius(), 1, 0.76, [0.6, 0.6]) == pytest.approx(0.828571, abs=1e-6)


def exact_radius(lam, margin, reach):
    """Walk the overlap down to 1 - margin/2 in 60 digits (Theorem 2.8, Proposition 2.12); None where it stays above."""
    lam, overlap, target, covered = Decimal(lam), Decimal(1), 1 - Decimal(margin) / 2, Decimal(0)
    for r in sorted(map(Decimal, reach), reverse=True):
        factor = 1 - r / (2 * lam)
        if overlap * max(factor, Decimal(0)) <= target:
            return covered + 2 * lam * (1 - target / overlap)
        overlap *= factor
        covered += r
    return None


@pytest.mark.parametrize("seed", range(40))
def test_greedy_radius_is_the_exact_one_rounded_down(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 60))
    noise = UniformNoise(lam=float(rng.choice([0.02, 0.3, 0.5, 0.7, 1.0, 3.5, 40.0, 900.0])))
    reach = np.maximum(x := rng.choice([rng.random(d), np.zeros(d), rng.integers(0, 2, d)]), 1 - x)
    margin = float(rng.choice([rng.random(), 1e-12, 1 - 1e-12, 1.0]))
    found = radius(GreedyRadius(), noise.lam, margin, reach)
    exact = exact_radius(noise.effective_lam, margin, reach)
    if exact is None:
        assert found == np.inf
    else:
        assert Decimal(found) <= exact
        assert found == pytest.approx(float(exact), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("lam", [0.2, 0.45, 0.55, 0.8, 1.0, 2.0])
def test_greedy_radius_is_sound_and_tight(d, lam):
    """No move inside the radius costs too much overlap, and one just outside does."""
    rng = np.random.default_rng(d)
    for _ in range(15):
        reach = np.maximum(x := rng.random(d), 1 - x)
        margin = rng.uniform(0.02, 1)
        r = radius(GreedyRadius(), lam, margin, reach)
        effective = UniformNoise(lam=lam).effective_lam

        def overlap(moves, effective=effective):
            return np.prod(np.maximum(1 - moves / (2 * effective), 0), axis=-1)

        moves = rng.random((4000, d)) ** rng.choice([0.2, 1, 5], size=(4000, 1)) * reach
        corners = np.array(list(itertools.product([0, 1], repeat=d))) * reach
        moves = np.vstack(
            [moves, corners, *[_fill(reach, order, r) for order in itertools.permutations(range(d), d)][:200]]
        )
        sums = moves.sum(axis=1, keepdims=True)
        inside = moves * np.minimum(1, r / np.maximum(sums, 1e-300)) if np.isfinite(r) else moves
        assert overlap(inside).min() >= 1 - margin / 2 - 1e-12
        if np.isfinite(r):
            outside = _fill(reach, np.argsort(-reach), r + 1e-6)
            assert overlap(outside).min() < 1 - margin / 2
            assert outside.sum() <= r + 1.001e-6


def _fill(reach, order, total):
    """Spend the total on the features in the given order, each up to its reach."""
    moves = np.zeros((1, len(reach)))
    for i in order:
        moves[0, i] = min(reach[i], max(total - moves.sum(), 0))
    return moves


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0, 3.5, 100.0])
def test_lipschitz_box_greedy_in_this_order_and_growing_with_the_margin(lam):
    rng = np.random.default_rng(0)
    reach = np.maximum(x := rng.random((200, 30)), 1 - x)
    margin = np.sort(rng.random(200))
    noise = SplitNoise(lam=lam)
    lipschitz, box, greedy = (s.radii(noise, margin, np.zeros(200), *faces(reach)) for s in STRATEGIES)
    assert (lipschitz <= box).all()
    assert (box <= greedy).all()
    one = np.broadcast_to(reach[:1], reach.shape)
    for strategy in STRATEGIES:
        radii = strategy.radii(noise, margin, np.zeros(200), *faces(one))
        assert (np.diff(radii[np.isfinite(radii)]) >= 0).all()
        assert (np.diff(np.isinf(radii).astype(int)) >= 0).all()


def test_radii_of_many_inputs_are_the_radii_of_each():
    rng = np.random.default_rng(3)
    reach = np.maximum(x := rng.random((50, 40)), 1 - x)
    margin = rng.random(50)
    noise = UniformNoise(lam=2.0)
    together = GreedyRadius().radii(noise, margin, np.zeros(50), *faces(reach))
    alone = [radius(GreedyRadius(), 2.0, m, r) for m, r in zip(margin, reach, strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_whole_box_certified_is_infinite():
    assert radius(BoxRadius(), 5.0, 0.99, [1, 1]) == np.inf
    assert radius(GreedyRadius(), 5.0, 0.99, [0.7, 0.7]) == np.inf
    assert radius(LipschitzRadius(), 5.0, 0.99, [1, 1]) == pytest.approx(4.95)


def test_a_tie_at_the_far_corner_is_not_certified():
    """lam=1, d=1, margin 1: at distance 1 the two classes may tie exactly."""
    found = radius(GreedyRadius(), 1.0, 1.0, [1.0])
    assert found < 1
    assert found == pytest.approx(1)


def test_features_that_cannot_move_do_not_count():
    assert radius(GreedyRadius(), 1.0, 0.5, [0.6, 0, 0]) == radius(GreedyRadius(), 1.0, 0.5, [0.6])
    assert radius(BoxRadius(), 1.0, 0.999, [0.6, 0, 0]) == radius(BoxRadius(), 1.0, 0.999, [1.0])
    assert radius(BoxRadius(), 1.0, 0.1, [0, 0]) == np.inf


def test_no_inputs():
    for strategy in STRATEGIES:
        assert strategy.radii(UniformNoise(), np.empty(0), np.empty(0), *faces(np.empty((0, 3)))).shape == (0,)


@pytest.mark.parametrize("d", [1, 2, 30, 64, 65, 500, 3072])
@pytest.mark.parametrize("kind", ["random", "ties", "ones", "tiny", "zeros"])
def test_largest_selects_without_losing_any(d, kind):
    values = {
        "random": rng_values(d),
        "ties": np.rint(4 * rng_values(d)) / 4,
        "ones": np.ceil(rng_values(d) - 0.9),
        "tiny": rng_values(d) ** 99,
        "zeros": np.zeros((20, d)),
    }[kind]
    expected = -np.sort(-values, axis=1)
    before = values.copy()
    for k in (1, 5, 16, 30, 99, 128, 5000):
        np.testing.assert_array_equal(largest(values, k), expected[:, :k])
        assert largest(values[:0], k).shape == (0, min(k, d))
    np.testing.assert_array_equal(values, before)


def rng_values(d):
    return np.random.default_rng(d).random((20, d))


def test_covering_selects_enough():
    values = rng_values(3000)
    assert covering(values, np.full(20, 3.0)).shape == (20, 16)
    assert (covering(values, np.full(20, 99.0)).sum(axis=1) >= 99).all()
    assert covering(values, np.full(20, np.inf)).shape == values.shape
    few = np.where(np.arange(3000) < 10, values, 0)
    np.testing.assert_allclose(covering(few, np.full(20, np.inf)).sum(axis=1), few.sum(axis=1))


REACHES = {
    "random": lambda rng, d: rng.random(d),
    "far faces": lambda rng, d: np.maximum(x := rng.random(d), 1 - x),
    "ties": lambda rng, d: rng.integers(1, 5, d) / 4,
    "many zeros": lambda rng, d: rng.random(d) * (rng.random(d) < 0.1),
    "mostly tiny": lambda rng, d: np.where(rng.random(d) < 0.01, rng.random(d), 1e-7 * rng.random(d)),
    "all tiny": lambda rng, d: 1e-9 * rng.random(d),
    "ones": lambda rng, d: np.ones(d),
    "zeros": lambda rng, d: np.zeros(d),
}


def exact_walk(budget, reach):
    """Pay the squares of the reaches in decreasing order, in 60 digits; None where the budget pays for all."""
    rest, covered = Decimal(budget), Decimal(0)
    for r in sorted(map(Decimal, reach), reverse=True):
        if r > 0 and r * r >= rest:
            return covered + rest.sqrt()
        rest -= r * r
        covered += r
    return None


@pytest.mark.parametrize("d", [1, 7, 40, 900])
@pytest.mark.parametrize("kind", REACHES)
def test_walk_is_that_of_a_loop_over_sorted_reaches(d, kind):
    rng = np.random.default_rng(d)
    budgets = np.array([1e-300, 1e-12, 1e-4, 0.1, 0.5, 1.3, 4.7, 21.1, 130.3, np.inf])
    reach = np.array([REACHES[kind](rng, d) for _ in budgets])

    def pay(budget, reach):
        return walk(np.square, np.sqrt, budget, reach)

    found = walk_largest(pay, budgets, reach)
    np.testing.assert_array_equal(found, pay(budgets, reach))
    for i, (budget, row) in enumerate(zip(budgets, reach, strict=True)):
        assert walk_largest(pay, budgets[i : i + 1], reach[i : i + 1])[0] == found[i]
        exact = exact_walk(budget, row)
        if exact is None:
            assert found[i] == np.inf
        else:
            assert Decimal(found[i]) <= exact
            assert found[i] == pytest.approx(float(exact), rel=1e-7)
    nothing = pay(np.zeros(len(reach)), reach)
    np.testing.assert_array_equal(nothing, np.where(reach.any(axis=1), 0, np.inf))


@pytest.mark.parametrize("kind", REACHES)
@pytest.mark.parametrize("lam", [0.3, 1.0, 3.5, 40.0])
def test_radii_of_many_features_are_the_exact_ones_rounded_down(kind, lam):
    rng = np.random.default_rng(1)
    noise = UniformNoise(lam=lam)
    for margin in (1e-9, 0.3, 0.9, 1.0):
        reach = REACHES[kind](rng, 2000)
        for strategy, granted in ((GreedyRadius(), reach), (BoxRadius(), np.ceil(reach))):
            found = strategy.radii(noise, np.array([margin]), np.array([0.0]), *down_only(reach[None]))[0]
            exact = exact_radius(noise.effective_lam, margin, granted)
            if exact is None:
                assert found == np.inf
            else:
                assert Decimal(found) <= exact
                assert found == pytest.approx(float(exact), rel=1e-11)


@pytest.mark.parametrize("kind", REACHES)
@pytest.mark.parametrize(
    "noise",
    [UniformNoise(0.4), SplitNoise(30.0), GaussianNoise(2.0), UniformMixtureNoise([0.8, 30.0], [0.2, 0.8])],
    ids=repr,
)
def test_many_features_lipschitz_box_greedy_in_this_order(kind, noise):
    rng = np.random.default_rng(2)
    reach = np.array([REACHES[kind](rng, 400) for _ in range(60)])
    p_a = 1 - rng.random(60) ** 3 / 2
    lipschitz, box, greedy, limited = (
        s.radii(noise, p_a, 1 - p_a, *down_only(reach))
        for s in (*STRATEGIES, GreedyRadius(max_change=(0.9, 0.9), max_features=390))
    )
    assert (lipschitz <= box).all()
    assert (box <= greedy).all()
    assert (box <= limited).all()


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


# The probability that a radius requires

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


@pytest.mark.parametrize("lam", [0.5, 0.2])
def test_closed_form_needs_wide_noise(lam):
    with pytest.raises(ValueError, match=r"closed_form=True\) needs lam > 1/2.*Use BoxRadius\(\)"):
        BoxRadius(closed_form=True).check(UniformNoise(lam=lam))


def test_closed_form_is_the_papers_and_never_above_the_exact_one():
    noise = UniformNoise(lam=2.0)
    margin = np.linspace(0.01, 1, 50)
    reach = np.ones((50, 99))
    closed = BoxRadius(closed_form=True).radii(noise, margin, np.zeros(50), *faces(reach))
    np.testing.assert_allclose(closed, np.log(1 - margin / 2) / np.log(1 - 1 / 4), rtol=1e-7)
    assert (closed <= BoxRadius().radii(noise, margin, np.zeros(50), *faces(reach)) + 1e-12).all()


def test_closed_form_is_rounded_down():
    for lam, margin in itertools.product([0.6, 1.0, 3.5, 77.0], np.random.default_rng(0).random(50)):
        noise = UniformNoise(lam=lam)
        exact = (1 - Decimal(margin) / 2).ln() / (1 - 1 / (2 * Decimal(noise.effective_lam))).ln()
        assert Decimal(radius(BoxRadius(closed_form=True), lam, margin, np.ones(5))) <= exact


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


def test_required_probability_of_a_strategy_of_ones_own():
    """It may depend on reaches that never matter to the strategies of the library."""

    class Shared(RadiusStrategy):
        def within(self, noise, budget, reach):
            return noise.inverse_cost(budget / np.count_nonzero(reach, axis=1))

    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (300,))
    X, p = np.full((1, 300), 0.5), np.array([0.9])
    radius = certified_radii(Shared(), mechanism, X, p, 1 - p)
    assert required_probability(Shared(), mechanism, X, radius) == pytest.approx(p)


def test_limits_are_taken_to_the_last_lattice_step():
    """What cannot change has no reach; what can change may move one step farther at either end, by rounding."""
    noise, strategy = UniformNoise(1.0), GreedyRadius(max_change=[0.0, 0.3, 0.9])
    found = strategy.reach(noise, np.array([[0.4, 0.4, 0.4]]), np.array([[0.6, 0.6, 0.6]]))
    np.testing.assert_allclose(found, [[0.0, 0.3 + 2 / noise.q, 0.6]], rtol=1e-13)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [(BoxRadius(closed_form="no"), "closed_form must be"), (GreedyRadius(max_features=0), "max_features must be")],
)
def test_invalid_limits_are_named(strategy, message):
    with pytest.raises(ValueError, match=message):
        strategy.check(UniformNoise(1.0))


def test_limits_of_too_few_features_are_refused():
    noise, faces, strategy = UniformNoise(1.0), np.full((1, 3), 0.5), GreedyRadius(max_change=[0.1, 0.2])
    with pytest.raises(ValueError, match="max_change must hold one number, or one for each of 3 features, got 2"):
        strategy.radii(noise, np.array([0.9]), np.array([0.1]), faces, faces)


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


# What is asked of strategies


@pytest.mark.parametrize(
    ("strategy", "needs_inputs", "needs_every_feature"),
    [
        (LipschitzRadius(), False, False),
        (BoxRadius(), False, False),
        (GreedyRadius(), True, False),
        (GreedyRadius(0.3, max_features=2), True, False),
        (GreedyRadius([0.3]), True, False),
        (GreedyRadius([0.3, 0.3]), True, True),
        (GreedyRadius((0.3, 0.3)), True, True),
        (GreedyRadius((0.3, [0.1, 0.2])), True, True),
        (type("Rooms", (GreedyRadius,), {"room": lambda self, noise, down, up: (down, up)})(), True, True),
        (type("Reaches", (GreedyRadius,), {"reach": lambda self, noise, down, up: down})(), True, True),
        (type("Faces", (BoxRadius,), {"reach": lambda self, noise, down, up: down})(), True, True),
        (type("Named", (GreedyRadius,), {})(), True, False),
    ],
    ids=repr,
)
def test_what_must_be_known_of_inputs(strategy, needs_inputs, needs_every_feature):
    assert (strategy.needs_inputs, strategy.needs_every_feature) == (needs_inputs, needs_every_feature)


def test_limits_go_down_and_up():
    noise, down, up = UniformNoise(1.0, levels=100), np.array([[0.2, 0.9, 0.5]]), np.array([[0.8, 0.1, 0.5]])
    for limit, expected in (
        (None, ([0.2, 0.9, 0.5], [0.8, 0.1, 0.5])),
        (0.3, ([0.2, 0.3, 0.3], [0.3, 0.1, 0.3])),
        ((0.1, None), ([0.1, 0.1, 0.1], [0.8, 0.1, 0.5])),
        ((np.inf, 0.0), ([0.2, 0.9, 0.5], [0, 0, 0])),
        (([0.0, 0.4, 1], 0.2), ([0, 0.4, 0.5], [0.2, 0.1, 0.2])),
    ):
        strategy = GreedyRadius(limit)
        np.testing.assert_allclose(strategy.room(noise, down, up), np.array(expected)[:, None], atol=1e-6)
        np.testing.assert_allclose(strategy.reach(noise, down, up)[0], np.max(expected, axis=0), atol=1e-6)
    for wrong in (-1e-9, [0.1, -0.1], (0.1, -0.1), (0.1,), np.nan, ("a", 1)):
        with pytest.raises(ValueError, match="max_change must be a number or array of numbers of at least 0"):
            GreedyRadius(wrong).check(noise)


def test_the_largest_reaches_are_left():
    reach = np.array([[0.1, 0.7, 0.3, 0.5]])
    assert GreedyRadius(max_features=2).limited(reach).tolist() == [[0.7, 0.5]]
    assert GreedyRadius(max_features=3).limited(reach, 1).tolist() == [[0.7, 0.5]]
    assert not GreedyRadius(max_features=2).limited(reach, 2).any()
    assert not GreedyRadius(max_features=2).limited(reach, 5).any()
    assert GreedyRadius().limited(reach, 3) is reach


def test_box_strategies_certify_l1_alone():
    for kind in (BoxRadius, GreedyRadius):
        with pytest.raises(ValueError, match="has no certificate for GaussianNoise"):
            type("Two", (kind,), {"norm": 2})().check(GaussianNoise())
        kind().check(GaussianNoise())


@pytest.mark.parametrize("norm", [1, np.inf])
def test_price_of_moves_without_a_box(norm):
    noise, reach = UniformNoise(1.0), np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    found = LipschitzRadius(norm).price(noise, reach, np.array([0.4, 0.4]))
    one = -np.log(1 - 0.4 / 2)
    np.testing.assert_allclose(found, [one, one] if norm == 1 else [2 * one, 0], rtol=1e-12)
    np.testing.assert_allclose(LipschitzRadius(norm).price(noise, reach, np.array([3.0, 3.0]))[0], np.inf)


def test_a_distance_that_certainty_just_covers_has_a_price():
    class Halved(RadiusStrategy):
        def within(self, noise, budget, reach):
            return LipschitzRadius().within(noise, budget, reach) / 2

    noise, reach = SplitNoise(1.0), np.ones((3, 2))
    most = Halved().within(noise, np.array([noise.budget(1.0, 0.0)]), reach[:1])[0]
    found = Halved().price(noise, reach, np.array([most / 2, most, most * (1 + 1e-9)]))
    np.testing.assert_allclose(found, [-np.log(0.75), np.log(2), np.inf], rtol=1e-9)


def test_moves_fill_the_largest_reaches_first():
    reach = np.array([[0.5, 0.5, 1.0, 0.2], [0.4, 0.9, 0.0, 0.6]])
    np.testing.assert_allclose(moves(reach, np.array([1.2, 1.7])), [[0.2, 0, 1, 0], [0.2, 0.9, 0, 0.6]])
    for most, expected in ((1, [[0, 0, 1, 0], [0, 0.9, 0, 0]]), (2, [[0.5, 0, 1, 0], [0, 0.9, 0, 0.6]])):
        np.testing.assert_array_equal(moves(reach, np.full(2, np.inf), most), expected)
    np.testing.assert_array_equal(moves(reach, np.full(2, np.inf)), reach)


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
        with pytest.raises(ValueError, match='estimator must have radius="greedy", whose budget is drawn, got '):
            worst_perturbations(strategy, mechanism, X, distance)


def test_worst_perturbations_of_images_have_their_shape():
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (2, 3))
    images = np.linspace(0.1, 0.9, 12).reshape(2, 2, 3)
    for found in worst_perturbations(GreedyRadius(), mechanism, images, np.array([0.5, 0.7])):
        assert found.shape == images.shape


def test_changed_categories_count_among_the_features_that_change():
    features = Features(np.array([0.1, 0.5, 0.1, 0.1]), np.array([0, 3, 0, 0]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (4,), features)
    X = np.array([[0.5, 2.0, 0.0, 0.25]])
    found = [
        worst_perturbations(GreedyRadius(max_features=most), mechanism, X, np.array([0.7])) for most in (1, 2, 3, None)
    ]
    expected = [[0, 0.5, 0, 0], [0, 0.5, 0.1, 0], [0, 0.5, 0.1, 0.075], [0.025, 0.5, 0.1, 0.075]]
    for one, moved in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.moves, [moved], atol=1e-6)
    np.testing.assert_allclose(found[2].perturbed, [[0.5, 0, 1, 1]], atol=1e-5)


def test_a_radius_just_below_the_cost_of_a_change_does_not_change_it():
    """The budget pays for all numbers, of cost 1/4 each, and not for a category of cost 1."""
    features = Features(np.array([0.25, 1.0, 0.25]), np.array([0, 2, 0]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(3.0), (3,), features)
    X, strategy = np.zeros((1, 3)), GreedyRadius()
    changes = changes_of(mechanism)
    reaches = changes.reaches(strategy, np.maximum(*mechanism.room(X)))
    most = changes.within(strategy, mechanism.noise.budget(np.array([0.66]), np.array([0.34])), reaches)
    assert most[0] == pytest.approx(1, abs=1e-12)
    assert most[0] < 1
    for distance, changed in ((most, 0), (np.ones(1), 1)):
        assert worst_perturbations(strategy, mechanism, X, distance).moves[0, 1] == changed


def test_mixtures_count_hidden_categories_by_their_overlap():
    """Whether they are masked or drawn: the parts of a mixture have offsets of their own."""
    for noise, curved in ((UniformMixtureNoise([1.0, 2.0]), False), (UniformNoise(2.0), True)):
        features = Features(np.array([1.0, 0.5]), np.array([0, 3]), "uniform")
        sets = changes_of(NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,), features)).sets
        assert [one.curve is not None for one in sets] == [False, *[curved] * (len(sets) - 1)]
        assert len(sets) > 1


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
