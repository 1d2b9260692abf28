"""Radii of the three strategies against golden values and exact arithmetic, and what strategies ask for."""

import itertools
from decimal import Decimal, getcontext

import numpy as np
import pytest

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)

from ..noise.reaches import REACHES

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


def test_limits_by_name_are_in_the_order_of_the_columns():
    strategy = GreedyRadius(({"b": 0.5}, {"a": 2, "c": 0.25})).for_columns(["a", "b", "c"])
    down, up = strategy.max_change
    assert (down.tolist(), up.tolist()) == ([np.inf, 0.5, np.inf], [2, np.inf, 0.25])
    assert GreedyRadius().for_columns(["a"]).max_change is None
    assert GreedyRadius(0.5).for_columns(["a"]).max_change == 0.5


def test_noise_with_few_outcomes_loses_nothing_to_rounding():
    noise, reach = DeterministicSplitNoise(1.0, 4), np.ones((1, 3))
    assert LipschitzRadius().within(noise, np.array([0.25]), reach).tolist() == [0.5]
