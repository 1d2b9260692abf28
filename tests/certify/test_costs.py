"""Certificates with costs, fixed features and categories, against all perturbations of small lattices."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify import changes
from smoothcert.certify.reach import (
    certified_radii,
    reaches_to_keep,
    required_probability,
    smallest_overlap,
    worst_perturbations,
)
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features

from ..guarantees.mixed import Mix
from ..guarantees.problems import FINE

STRATEGIES = [LipschitzRadius(), BoxRadius(), GreedyRadius()]


def mechanism_of(mix, noise=None):
    """Return the library's noise for a mix and a fixed column at its end."""
    levels = mix.q if mix.levels is None else [*mix.levels, *["auto"] * (len(mix.costs) - 1)]
    noise = noise or (UniformNoise if mix.kind == "uniform" else SplitNoise)(float(mix.lam), levels)
    costs = np.array([*map(float, mix.costs), np.inf])
    features = Features(costs, np.array([0, 0, *mix.n_categories, 0]), mix.hidden)
    width = [*(mix.levels or (1, 1)), *[1] * (len(costs) - 2)]
    return NoiseMechanism(Box.from_bounds((0, width)), noise, (len(costs),), features)


def as_input(mix, x, fixed=np.nan):
    return np.array([[*(value if mix.levels else value / mix.q for value in x[:2]), *x[2:], fixed]])


MIXES = [
    Mix("uniform", 6, Fraction(1), (Fraction(1), Fraction(2), Fraction(1)), (3,), "mask"),
    Mix("split", 6, Fraction(1), (Fraction(1), Fraction(2), Fraction(1, 2)), (2,), "mask"),
    Mix("split", 8, Fraction(3, 4), (Fraction(1, 2), Fraction(1), Fraction(1, 2), Fraction(1, 4)), (3, 2), "mask"),
    Mix("uniform", 6, Fraction(1), (Fraction(1), Fraction(1, 2), Fraction(2)), (3,), "mask"),
    Mix("split", 6, Fraction(2), (Fraction(4), Fraction(2), Fraction(1), Fraction(1)), (2, 2), "mask"),
    Mix("uniform", 1, Fraction(1), (Fraction(1), Fraction(1), Fraction(1)), (3,), "mask", (4, 6)),
    Mix("uniform", 1, Fraction(3, 4), (Fraction(1), Fraction(1, 2), Fraction(1, 2)), (2,), "mask", (2, 6)),
]
#: The worst perturbation of few features changes categories alone.
DEAR = Mix("split", 8, Fraction(3, 4), (Fraction(1, 4), Fraction(1, 4), Fraction(1, 2), Fraction(1, 2)), (3, 2), "mask")
LOOSE = [
    Mix("uniform", 6, Fraction(1), (Fraction(1), Fraction(1), Fraction(1)), (3,), "uniform"),
    Mix("split", 5, Fraction(9, 10), (Fraction(7, 10), Fraction(13, 10), Fraction(3, 10)), (3,), "mask"),
    Mix("uniform", 7, Fraction(1, 2), (Fraction(3, 10), Fraction(1, 3), Fraction(2, 5)), (2,), "mask"),
    Mix("split", 1, Fraction(1), (Fraction(1), Fraction(1), Fraction(1)), (3,), "mask", (4, 6)),
    Mix("split", 1, Fraction(1, 3), (Fraction(1), Fraction(1, 2), Fraction(1, 4)), (2,), "mask", (5, 8)),
    Mix("uniform", 1, Fraction(9, 10), (Fraction(7, 10), Fraction(1), Fraction(1, 4)), (2,), "mask", (3, 7)),
]


@pytest.mark.parametrize("mix", [*MIXES, *LOOSE])
def test_overlaps_are_the_integers_of_the_design(mix):
    """A number of cost kappa overlaps in L - |dx| of L = floor(2 lam q / kappa) offsets, a category in L - R.

    Splitting noise that is rounded to whole steps overlaps more.
    """
    for i, cost in enumerate(mix.costs):
        q = mix.steps[i] if i < 2 else FINE if mix.levels else mix.q
        n_offsets = int(2 * mix.lam * q / (cost if i < 2 else 1))
        for x, y in itertools.product(range(q + 1 if i < 2 else mix.n_categories[i - 2]), repeat=2):
            shared = mix.overlap(i, x, y) * n_offsets
            expected = max(n_offsets - (abs(x - y) if i < 2 else (x != y) * int(cost * q)), 0)
            if (mix.hidden == "mask") if i >= 2 else not (mix.levels and mix.kind == "split"):
                assert shared == expected
            else:
                assert shared >= expected


@pytest.mark.parametrize("mix", [*MIXES, *LOOSE])
def test_the_sampler_draws_these_outcomes_equally_often(mix):
    mechanism, rng = mechanism_of(mix), np.random.default_rng(0)
    x = [2, mix.steps[1] - 1, *(n - 1 for n in mix.n_categories)]
    X = np.repeat(as_input(mix, x, fixed=1e9), 2, axis=0)
    out, n = np.empty((60_000, X.shape[1])), 30_000
    keys = seeding.keys(5, seeding.digests(mechanism.points(X)), 0)
    mechanism.sample(mechanism.points(X), keys, np.array([[1, 0, n], [0, 7, n]]), out)
    np.testing.assert_array_equal(out[7:n], out[n : 2 * n - 7])
    trained = mechanism.noisy(np.repeat(X[:1], n, axis=0), rng)
    assert (out[:, -1] == 1e9).all()
    assert (trained[:, -1] == 1e9).all()
    for i, value in enumerate(x):
        expected = mix.outcomes(i, value)
        for drawn in (out[:n, i], trained[:, i]):
            found = drawn if mix.levels else np.rint(drawn * (4 * mix.q if i < 2 else 1)).astype(int)
            assert set(found) <= set(expected)
            counts = [np.count_nonzero(found == key) for key in expected]
            shares = np.array(list(expected.values())) / sum(expected.values())
            assert len(shares) == 1 or chisquare(counts, n * shares).pvalue > 1e-6
    ranks = out[:n, :-1] - out[:n, :-1].mean(axis=0)
    for drawn in (ranks, trained[:, :-1] - trained[:, :-1].mean(axis=0)):
        spread = drawn.std(axis=0) > 0
        correlation = np.corrcoef(drawn[:, spread].T)
        assert np.abs(correlation - np.eye(len(correlation))).max() < 0.03


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["lipschitz", "box", "greedy"])
@pytest.mark.parametrize("mix", [*MIXES, *LOOSE[1:]])
def test_nothing_inside_the_radius_and_something_a_step_outside(mix, strategy):
    """Brute force over all numbers and categories, with the product of the overlaps of all features."""
    mechanism, rng = mechanism_of(mix), np.random.default_rng(1)
    step = max(cost / q for cost, q in zip(mix.costs[:2], mix.steps, strict=True))
    for _ in range(4):
        x = [int(rng.integers(n)) for n in (*(q + 1 for q in mix.steps), *mix.n_categories)]
        ways = mix.ways(x)
        for p_a in rng.uniform(0.51, 1, size=8):
            radius = certified_radii(strategy, mechanism, as_input(mix, x), np.array([p_a]), np.array([1 - p_a]))[0]
            beyond = ways.nearest(1 - (2 * Fraction(p_a) - 1) / 2)
            assert beyond is None or beyond > radius
            if mix in MIXES and isinstance(strategy, GreedyRadius):
                assert radius == np.inf if beyond is None else float(beyond - step) <= radius + 1e-5


@pytest.mark.parametrize(
    ("strategy", "allowed"),
    [
        (GreedyRadius(max_features=1), lambda moves, flips: (np.count_nonzero(moves) + flips) <= 1),
        (GreedyRadius(max_features=2), lambda moves, flips: (np.count_nonzero(moves) + flips) <= 2),
        (GreedyRadius(max_change=0.5), lambda moves, flips: max(moves) <= 0.5 and flips == 0),
        (GreedyRadius(max_change=[0.5, 1, 1, 0, 1]), lambda moves, flips: moves[0] <= 0.5 and flips[1] == 0),
        (
            GreedyRadius(max_change=[1, 0.5, 0.5, 1, 1], max_features=2),
            lambda moves, flips: moves[1] <= 0.5 and flips[0] == 0 and np.count_nonzero(moves) + flips[1] <= 2,
        ),
    ],
)
@pytest.mark.parametrize("mix", [MIXES[2], DEAR], ids=["numbers cost more", "categories cost more"])
def test_limits_hold_for_numbers_as_shares_and_for_categories_as_a_whole(mix, strategy, allowed):
    mechanism, rng = mechanism_of(mix), np.random.default_rng(2)
    per_category = np.ndim(strategy.max_change) > 0
    for _ in range(4):
        x = [*rng.integers(mix.q + 1, size=2).tolist(), *(int(rng.integers(n)) for n in mix.n_categories)]
        ways = mix.ways(x)
        moves, flips = np.abs(ways.ends[:, :2] - x[:2]) / mix.q, ways.ends[:, 2:] != x[2:]
        kinds = zip(moves, flips if per_category else np.count_nonzero(flips, axis=1), strict=True)
        some = np.array([allowed(*kind) for kind in kinds])
        ways = replace(ways, lengths=ways.lengths[some], kept=ways.kept[some])
        for p_a in rng.uniform(0.51, 1, size=8):
            radius = certified_radii(strategy, mechanism, as_input(mix, x), np.array([p_a]), np.array([1 - p_a]))[0]
            beyond = ways.nearest(1 - (2 * Fraction(p_a) - 1) / 2)
            assert beyond is None or beyond > radius
            assert radius == np.inf if beyond is None else float(beyond - Fraction(1, mix.q)) <= radius + 1e-5


def test_mixtures_draw_one_width_for_all_features_and_pay_for_categories_by_their_overlap():
    lams, weights = [Fraction(1, 2), Fraction(2)], [Fraction(1, 4), Fraction(3, 4)]
    costs, n_categories, q = (Fraction(1), Fraction(1, 2), Fraction(1, 2)), (3,), 6
    parts = [Mix("uniform", q, lam, costs, n_categories, "mask") for lam in lams]
    mechanism = mechanism_of(parts[0], UniformMixtureNoise([0.5, 2.0], [0.25, 0.75], q))
    rng = np.random.default_rng(3)
    tight = 0
    for _ in range(5):
        x = [*rng.integers(q + 1, size=2).tolist(), int(rng.integers(3))]
        each = [part.ways(x) for part in parts]
        shares = sum(weight * part.kept * Fraction(1, part.total) for weight, part in zip(weights, each, strict=True))
        for p_a in rng.uniform(0.51, 1, size=10):
            p = np.array([p_a])
            radius = certified_radii(GreedyRadius(), mechanism, as_input(parts[0], x), p, 1 - p)[0]
            beyond = each[0].lengths[(shares <= 1 - (2 * Fraction(p_a) - 1) / 2).astype(bool)]
            nearest = Fraction(int(beyond.min()), each[0].unit) if len(beyond) else None
            assert nearest is None or nearest > radius
            tight += radius == np.inf if nearest is None else float(nearest - Fraction(1, q)) <= radius + 1e-5
    assert tight == 50
    out = np.empty((4000, 4))
    points = mechanism.points(as_input(parts[0], [0, 0, 0], 0.0))
    mechanism.sample(points, np.ones((1, 4), np.uint32), np.array([[0, 0, 4000]]), out)
    # Far values of the numbers come from the wide part alone, under which categories are mostly hidden.
    wide = np.abs(out[:, 0]) > 0.5
    assert wide.any()
    shown = out[:, 2] == 0
    assert shown[wide].mean() == pytest.approx(0.5 / 4, abs=0.03)
    narrow = shown[~wide].mean()
    assert narrow == pytest.approx((0.25 * 0.5 + 0.75 * 0.25 * 0.125) / (0.25 + 0.75 * 0.25), abs=0.04)
    assert (np.abs(out[~wide, 1]) <= 4).all()


@pytest.mark.parametrize(
    ("noise", "lams", "weights"),
    [
        (UniformNoise(2.0, 4), [2.0], [1.0]),
        (SplitNoise(3.0, 4), [3.0], [1.0]),
        (UniformMixtureNoise([1.0, 2.0], [0.25, 0.75], 4), [1.0, 2.0], [0.25, 0.75]),
    ],
    ids=["uniform", "split", "mixture"],
)
def test_several_categories_that_change_together_cost_the_product_of_their_overlaps(noise, lams, weights):
    """Of four categories at a cost of 1/2 and a number at a cost of 1/10, k change and the number makes up the rest."""
    features = Features(np.array([0.5, 0.5, 0.1, 0.5, 0.5]), np.array([2, 3, 0, 2, 5]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (5,), features)
    X, lams = np.zeros((1, 5)), np.array(lams)

    def overlap(k, z):
        return ((1 - 0.25 / lams) ** k[..., None] * (1 - z[..., None] / (2 * lams))) @ weights

    k, z = np.meshgrid(np.arange(5), np.linspace(0, 0.1, 1001), indexing="ij")
    distance, kept = 0.5 * k + z, overlap(k, z)
    for p in np.linspace(0.51, 0.99, 8):
        most = np.min(distance, where=kept <= 1.5 - p, initial=np.inf)
        for strategy in (BoxRadius(), GreedyRadius()):
            radius = certified_radii(strategy, mechanism, X, np.array([p]), np.array([1 - p]))[0]
            assert radius <= most
            assert radius == most or radius >= most - 2e-4
    needed = required_probability(GreedyRadius(), mechanism, X, 0.5 * np.arange(1, 5)[None])[0]
    expected = 1.5 - overlap(np.arange(1, 5), np.zeros(4))
    np.testing.assert_allclose(needed, np.where(expected < 1, expected, np.inf), atol=1e-4)


@pytest.mark.parametrize("noise", [UniformNoise(1.0), SplitNoise(1.5), UniformMixtureNoise(), GaussianNoise(0.5)])
@pytest.mark.parametrize("strategy", [*STRATEGIES, GreedyRadius(max_features=2), GreedyRadius(max_change=0.4)])
def test_required_probabilities_are_the_inverse_of_radii(noise, strategy):
    rng = np.random.default_rng(4)
    gaussian = isinstance(noise, GaussianNoise)
    features = Features(
        np.array([1, 0.5, 2, np.inf, 1, 0.25, 0.25, 1]),
        np.zeros(8, dtype=np.int64) if gaussian else np.array([0, 0, 0, 0, 3, 2, 4, 1]),
    )
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (8,), features)
    X = rng.random((40, 8))
    X[:, 3] *= 1e6
    if not gaussian:
        X[:, 4:] = rng.integers([3, 2, 4, 1], size=(40, 4))
    goals = rng.uniform(0, 1.5, size=40)
    goals[:8] = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 0.3, 0.6]
    p_a = required_probability(strategy, mechanism, X, goals)
    found = np.isfinite(p_a)
    assert found.sum() >= 10
    radii = certified_radii(strategy, mechanism, X[found], p_a[found], 1 - p_a[found])
    assert (radii >= goals[found]).all()
    less = p_a[found] - 1e-9
    assert (certified_radii(strategy, mechanism, X[found], less, 1 - less) < goals[found])[less > 0.5].all()
    at_most = certified_radii(strategy, mechanism, X[~found], np.ones((~found).sum()), np.zeros((~found).sum()))
    assert (at_most < goals[~found]).all()


def largest_after(mix, x, y, share):
    """The largest share of y's outcomes that at most a share of x's outcomes can have (Neyman and Pearson)."""
    before, after = np.ones(1), np.ones(1)
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        of_x, of_y = mix.outcomes(i, a), mix.outcomes(i, b)
        values, total = sorted(of_x.keys() | of_y.keys()), sum(of_x.values())
        before = np.outer(before, [of_x.get(value, 0) / total for value in values]).ravel()
        after = np.outer(after, [of_y.get(value, 0) / total for value in values]).ravel()
    order = np.argsort(-after / np.maximum(before + after, 1e-300), kind="stable")
    return np.interp(share, np.append(0, before[order].cumsum()), np.append(0, after[order].cumsum()))


DRAWN = [
    Mix("uniform", 4, Fraction(1), (Fraction(1, 4), Fraction(1, 4), Fraction(1, 2), Fraction(1, 2)), (3, 3), "uniform"),
    Mix("split", 4, Fraction(1), (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)), (5,), "uniform"),
    Mix("uniform", 4, Fraction(2), (Fraction(1, 2), Fraction(1, 2), Fraction(1), Fraction(1)), (2, 4), "uniform"),
    Mix("uniform", 5, Fraction(1), (Fraction(1, 4), Fraction(1, 4), Fraction(4, 5)), (2,), "uniform"),
]


@pytest.mark.parametrize("mix", DRAWN)
def test_drawn_categories_are_certified_by_their_likelihood_ratios(mix):
    """Brute force: the best test between x and every y, from all outcomes of all features."""
    mechanism, rng = mechanism_of(mix), np.random.default_rng(6)
    masked = mechanism_of(Mix(mix.kind, mix.q, mix.lam, mix.costs, mix.n_categories, "mask"))
    step, larger = float(max(mix.costs[:2])) / mix.q, 0
    # Where every code hides equally often, nothing is lost to rounding.
    pairs = zip(mix.costs[2:], mix.n_categories, strict=True)
    tight = mix.kind == "uniform" and all((2 * mix.lam - cost) * mix.q % n == 0 for cost, n in pairs)
    for _ in range(2):
        x = [*rng.integers(mix.q + 1, size=2).tolist(), *(int(rng.integers(n)) for n in mix.n_categories)]
        ways = mix.ways(x)
        lengths = ways.lengths / ways.unit
        for p in rng.uniform(0.7, 1, size=2):
            p_a = np.array([p])
            radius, simple = (
                certified_radii(GreedyRadius(), one, as_input(mix, x), p_a, 1 - p_a)[0] for one in (mechanism, masked)
            )
            assert radius >= simple - 1e-9
            larger += radius > simple + 1e-6
            near = zip(
                lengths[lengths < radius + 2 * step], ways.ends[lengths < radius + 2 * step].tolist(), strict=True
            )
            beyond = [length for length, y in near if largest_after(mix, x, y, 1 - p) >= 0.5 - 1e-9]
            assert all(distance > radius for distance in beyond)
            assert not tight or min(beyond, default=np.inf) - step <= radius + 1e-5
    assert larger
    goals = np.array([0.3, 0.5, 0.8, 1.0])
    X = np.repeat(as_input(mix, x), 4, axis=0)
    p_a = required_probability(GreedyRadius(), mechanism, X, goals)
    assert (certified_radii(GreedyRadius(), mechanism, X, p_a.clip(0, 1), 1 - p_a.clip(0, 1)) >= goals)[p_a <= 1].all()
    less = p_a[p_a <= 1] - 1e-6
    assert (certified_radii(GreedyRadius(), mechanism, X[p_a <= 1], less, 1 - less) < goals[p_a <= 1]).all()


def test_costs_off_the_lattice_take_the_smallest_width():
    mechanism = mechanism_of(LOOSE[1])
    widths = [int(Fraction(9, 10) * 2 * 5 / cost) * cost / 10 for cost in (Fraction(7, 10), Fraction(13, 10), 1)]
    assert mechanism.prices.effective_lam == pytest.approx(float(min(widths)), rel=1e-12)
    assert min(widths) < max(widths)


def test_closed_form_is_k_budgets_over_the_cost_of_the_largest_move():
    noise = UniformNoise(1.5)
    features = Features(np.array([0.5, 2.0, 1.0]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (3,), features)
    p_a = np.array([0.8])
    radius = certified_radii(BoxRadius(closed_form=True), mechanism, None, p_a, 1 - p_a)
    expected = 2 * np.log(1 - 0.3) / np.log(1 - 2 / 3)
    np.testing.assert_allclose(radius, expected, atol=1e-6)
    assert radius[0] <= certified_radii(BoxRadius(), mechanism, None, p_a, 1 - p_a)[0]
    BoxRadius(closed_form=True).check(mechanism.prices)
    wide = NoiseMechanism(Box.from_bounds((0, 1)), noise, (3,), Features(np.array([0.5, 3.0, 1.0])))
    with pytest.raises(ValueError, match="needs lam > 1/2, times the largest cost"):
        BoxRadius(closed_form=True).check(wide.prices)


def test_all_features_share_the_budget_in_l_inf():
    """Every feature pays for the same distance: numbers of any cost, and categories that it suffices to change."""
    mix = MIXES[0]
    mechanism, p_a = mechanism_of(mix), np.array([0.9])
    radius = certified_radii(LipschitzRadius(norm=np.inf), mechanism, as_input(mix, [3, 3, 0]), p_a, 1 - p_a)[0]
    assert radius == pytest.approx(2 * (1 - 0.6 ** (1 / 3)), abs=1e-5)


def test_a_store_keeps_enough_reaches_of_cheap_features():
    rng = np.random.default_rng(5)
    features = Features(
        np.concatenate([np.full(300, 0.05), np.full(20, 1.0), [0.5] * 3, [np.inf]]), np.array([0] * 320 + [3] * 3 + [0])
    )
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (324,), features)
    X = np.hstack([rng.random((6, 320)), rng.integers(3, size=(6, 3)), rng.standard_normal((6, 1))])
    kept = reaches_to_keep(mechanism, X, 0.49)
    p_a = rng.uniform(0.6, 0.999, size=6)
    for strategy in (LipschitzRadius(), BoxRadius(), GreedyRadius(), GreedyRadius(max_features=3)):
        radii = certified_radii(strategy, mechanism, X, p_a, 1 - p_a)
        np.testing.assert_array_equal(
            radii, certified_radii(strategy, mechanism, None, p_a, 1 - p_a, largest_reaches=kept)
        )
    with pytest.raises(ValueError, match=r"looks at the features of each input.* Give X="):
        certified_radii(GreedyRadius(max_change=0.5), mechanism, None, p_a, 1 - p_a, largest_reaches=kept)


def test_categories_of_many_costs_count_in_part_where_sets_are_too_many(monkeypatch):
    mix = MIXES[2]
    mechanism, x = mechanism_of(mix), [1, 7, 0, 1]
    p_a = np.array([0.7, 0.9, 0.97])
    X = np.repeat(as_input(mix, x), 3, axis=0)
    exact = certified_radii(GreedyRadius(), mechanism, X, p_a, 1 - p_a)
    for most in (1, 2, 3):
        monkeypatch.setattr(changes, "MOST_SETS", most)
        changes.changes_of.cache_clear()
        partly = certified_radii(GreedyRadius(), mechanism, X, p_a, 1 - p_a)
        assert (partly <= exact).all()
        # The largest radius needs a part of each feature.
        wide, p_b = mechanism_of(mix, SplitNoise(3.0, mix.q)), np.array([0.4, 0.3, 0.2])
        radii = certified_radii(GreedyRadius(), wide, X, 1 - p_b, p_b)
        assert 0.875 + 0.5 + 0.4375 < radii[2] < 0.875 + 0.5 + 0.4375 + 0.25
        kept = reaches_to_keep(wide, X, 0.49)
        found = certified_radii(GreedyRadius(), wide, None, 1 - p_b, p_b, largest_reaches=kept)
        np.testing.assert_array_equal(found, radii)
    assert (partly > 0).all()
    many = Features(np.linspace(0.1, 0.3, 40), np.full(40, 3))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(4.0), (40,), many)
    radius = certified_radii(GreedyRadius(), mechanism, np.zeros((1, 40)), np.array([0.99]), np.array([0.01]))
    assert 2 < radius[0] < 8


def test_known_reaches_of_numbers_are_all_that_matters_besides_categories():
    """The overlap is below 1/2, where categories count as numbers that were not among those kept."""
    mix = MIXES[4]
    mechanism, X, radius = mechanism_of(mix), as_input(mix, [2, 3, 0, 1]), np.array([7.0])
    known = -np.sort(-np.array([[4.0 * 4 / 6, 2.0 * 3 / 6]]))
    found = smallest_overlap(GreedyRadius(), mechanism, None, radius, largest_reaches=known)
    np.testing.assert_allclose(found, smallest_overlap(GreedyRadius(), mechanism, X, radius), rtol=1e-9)
    assert 0 < found[0] < 0.5


def test_worst_perturbations_change_whole_categories_and_spend_the_distance():
    mix = MIXES[2]
    mechanism = mechanism_of(mix)
    X = np.repeat(as_input(mix, [1, 7, 0, 1], 5.0), 3, axis=0)
    found = worst_perturbations(GreedyRadius(), mechanism, X, np.array([0.3, 0.8, 1.7]))
    np.testing.assert_allclose(np.abs(found.moves).sum(axis=1), [0.3, 0.8, 1.7])
    for row, (perturbed, moves) in enumerate(zip(found.perturbed, found.moves, strict=True)):
        y = [*np.rint(perturbed[:2] * mix.q * 1000).astype(int) / 1000, *perturbed[2:4].astype(int)]
        paid = sum(
            float(c) * abs(a / mix.q - X[row, i]) for i, (c, a) in enumerate(zip(mix.costs[:2], y, strict=False))
        )
        paid += sum(float(mix.costs[i]) * (perturbed[i] != X[row, i]) for i in (2, 3))
        assert paid == pytest.approx(np.abs(moves).sum(), abs=1e-3)
    assert (found.perturbed[:, -1] == 5).all()
    np.testing.assert_array_equal(found.reach[0], [0.5 * 7 / 8, 7 / 8, 0.5, 0.25, 0])


@pytest.mark.parametrize("noise", [LaplaceNoise(), DeterministicSplitNoise(1.0, 4)])
@pytest.mark.parametrize("costs", [[1, 2], [1, np.inf], [2, 2]])
def test_noise_without_box_certificates_refuses_costs(noise, costs):
    with pytest.raises(
        ValueError, match=r"costs must be 1 for all features under .* bound the distance of all features together"
    ):
        NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,), Features(np.array(costs, dtype=float)))


def test_gaussian_noise_refuses_categories():
    with pytest.raises(ValueError, match="categorical_features need uniform, splitting or mixture noise"):
        NoiseMechanism(Box.from_bounds((0, 1)), GaussianNoise(), (2,), Features(n_categories=np.array([0, 3])))


def test_a_family_of_ones_own_must_narrow_with_the_cost():
    class Narrow(GaussianNoise):
        pass

    class Same(GaussianNoise):
        def for_cost(self, cost):
            return Same(self.sigma, self.levels)

    features = Features(np.array([0.5, 2.0]))
    NoiseMechanism(Box.from_bounds((0, 1)), Narrow(1.0), (2,), features)
    with pytest.raises(ValueError, match=r"costs need noise that narrows with the cost"):
        NoiseMechanism(Box.from_bounds((0, 1)), Same(1.0), (2,), features)


def test_unknown_codes_and_too_wide_noise_are_named():
    mechanism = mechanism_of(MIXES[0])
    with pytest.raises(ValueError, match=r"codes from 0 to 2 in feature 2, got 3"):
        mechanism.points(as_input(MIXES[0], [0, 0, 3]))
    with pytest.raises(ValueError, match=r"costs must leave the noise a valid width: at cost 0.001, lam must lie"):
        NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (2,), Features(np.array([1, 0.001])))
