"""Gaussian, Laplace and mixture noise, limits on the adversary, and norms other than l1."""

import itertools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.noise._philox import apply_offsets
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

from ..base_models import Rule, all_offsets, steps

ALL = [
    UniformNoise(0.7),
    SplitNoise(1.3),
    GaussianNoise(0.5),
    LaplaceNoise(0.5),
    UniformMixtureNoise([0.3, 1.0, 4.0], [0.2, 0.5, 0.3]),
]
WITH_BOX = [noise for noise in ALL if noise.uses_box]


def radius(strategy, noise, p_a, p_b, x):
    strategy.check(noise)
    x = np.atleast_2d(np.asarray(x, dtype=float))
    return strategy.radii(noise, np.array([p_a]), np.array([p_b]), x, 1 - x)[0]


# Golden values


def test_gaussian_golden_values():
    x = np.full(99, 0.5)
    noise = GaussianNoise(sigma=1.0)
    assert radius(LipschitzRadius(norm=2), noise, 0.99, 0.01, x) == pytest.approx(2.326348, abs=1e-6)
    assert radius(LipschitzRadius(), noise, 0.99, 0.01, x) == pytest.approx(2.326348, abs=1e-6)
    assert radius(LipschitzRadius(norm=np.inf), noise, 0.99, 0.01, x) == pytest.approx(2.326348 / 99**0.5, abs=1e-6)
    assert radius(BoxRadius(), noise, 0.99, 0.01, x) == pytest.approx(5.641790, abs=1e-6)
    p_a = stats.norm.cdf(2.0)
    assert radius(BoxRadius(), noise, p_a, 1 - p_a, x) == pytest.approx(4, abs=1e-6)  # l2 radius 2


def test_gaussian_with_a_runner_up_is_the_two_sided_form():
    found = radius(LipschitzRadius(norm=2), GaussianNoise(0.5), 0.6, 0.1, [0.5])
    assert found == pytest.approx(0.25 * (stats.norm.ppf(0.6) - stats.norm.ppf(0.1)))


def test_laplace_is_the_historical_formula():
    for p_a in (0.6, 0.9, 0.999):
        found = radius(LipschitzRadius(), LaplaceNoise(b=0.7), p_a, 1 - p_a, [0.5])
        assert found == pytest.approx(-0.7 * np.log(2 * (1 - p_a)))
    assert LaplaceNoise.from_sigma(2.0).sigma == pytest.approx(2)
    assert GaussianNoise.from_sigma(2.0).sigma == 2


@pytest.mark.parametrize(
    ("p_a", "p_b", "expected"),
    [
        (0.4, 0.1, np.log(4) / 2),
        (0.9, 0.1, -np.log(0.2)),
        (0.9, 0.0, np.inf),
        (1.0, 0.3, -np.log(0.3)),
        (0.6, 0.5, -np.log(0.9)),
        (1 - 1e-12, 1e-12, -np.log(2e-12)),
        (0.5 + 1e-12, 0.5, 1e-12),
    ],
)
def test_laplace_noise_takes_the_larger_of_two_bounds(p_a, p_b, expected):
    noise = LaplaceNoise(0.7)
    assert noise.budget(p_a, p_b) == pytest.approx(expected, rel=1e-3, abs=0)
    assert noise.inverse_cost(noise.cost(0.3)) == pytest.approx(0.3)
    assert noise.cost(0.35) == pytest.approx(0.5)


def test_widths_of_a_mixture():
    noise = UniformMixtureNoise([2.0, 0.5], [0.75, 0.25])
    assert noise.sigma == pytest.approx(np.sqrt((0.75 * 4 + 0.25 * 0.25) / 3))
    assert noise.lam == 2
    out = np.empty((20_000, 1))
    noise.draw(np.zeros(1, dtype=np.uint32), np.random.default_rng(0), out)
    assert out.std() == pytest.approx(noise.sigma, rel=0.02)


@pytest.mark.parametrize(
    "noise", [SplitNoise(0.4), UniformNoise(1.0), LaplaceNoise(), GaussianNoise(), GaussianNoise(1.0, 4)]
)
def test_copies_of_a_point_are_in_a_row_and_each_point_has_noise_of_its_own(noise):
    points = noise.to_points(np.repeat([[0.0], [1.0], [0.0]], 9, axis=1))
    drawn, alone = np.empty((300, 9)), np.empty((100, 9))
    noise.draw(points, np.random.default_rng(0), drawn)
    noise.draw(points[0], np.random.default_rng(1), alone)
    means = drawn.reshape(3, 100, 9).mean(axis=(1, 2))
    assert means[1] - means[0] > 0.25
    assert means[1] - means[2] > 0.25
    assert means[0] == pytest.approx(alone.mean(), abs=0.3)
    assert not np.array_equal(drawn[:100], drawn[200:])


@pytest.mark.parametrize("noise_type", [UniformNoise, SplitNoise])
def test_uniform_noise_in_linf(noise_type):
    margin, lam, d = 0.6, 1.5, 7
    expected = 2 * lam * (1 - (1 - margin / 2) ** (1 / d))
    assert radius(LipschitzRadius(norm=np.inf), noise_type(lam), 0.8, 0.2, np.full(d, 0.3)) == pytest.approx(expected)


# What the samplers do is what the certificates assume


def test_the_mixtures_overlap_is_that_of_its_parts():
    noise = UniformMixtureNoise([0.5, 1.0], [0.25, 0.75], levels=4)
    parts = [UniformNoise(0.5, 4), UniformNoise(1.0, 4)]
    for dx in itertools.product(range(5), repeat=2):
        expected = sum(
            w * np.prod([max(p.n_offsets - d, 0) / p.n_offsets for d in dx])
            for w, p in zip((0.25, 0.75), parts, strict=True)
        )
        assert noise.overlap(np.array(dx) / 4) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("lams", [(0.5, 1.0), (0.375, 1.0)])
def test_two_inputs_share_at_least_the_mixtures_overlap(lams):
    """All outcomes on a small lattice; parts on the same half-lattice share even more."""
    weights, levels = (0.25, 0.75), 4
    noise = UniformMixtureNoise(lams, weights, levels=levels)
    points = list(itertools.product(range(levels + 1), repeat=2))
    mass = {}
    for x in points:
        table = mass[x] = {}
        for part, weight in zip(noise.parts, weights, strict=True):
            offsets = all_offsets(part, 2)
            out = np.empty(offsets.shape)
            apply_offsets(part.recipe, np.array(x), offsets, out)
            for row in np.rint(out * 4 * levels).astype(int):
                key = row.tobytes()
                table[key] = table.get(key, 0) + weight / len(offsets)
    gaps = []
    for x, y in itertools.combinations(points, 2):
        shared = sum(min(p, mass[y].get(key, 0)) for key, p in mass[x].items())
        gaps.append(shared - noise.overlap(np.abs(np.array(x) - y) / levels))
    assert min(gaps) >= -1e-12
    if noise.parts[0].n_offsets % 2 != noise.parts[1].n_offsets % 2:
        assert max(gaps) <= 1e-12


@pytest.mark.parametrize(
    ("noise", "law"), [(GaussianNoise(0.3), stats.norm(0.5, 0.3)), (LaplaceNoise(0.3), stats.laplace(0.5, 0.3))]
)
def test_samplers_follow_their_law(noise, law):
    out = np.empty((20_000, 2))
    noise.draw(np.full(2, 0.5), np.random.default_rng(0), out)
    assert stats.kstest(out.ravel(), law.cdf).pvalue > 1e-4
    assert abs(np.corrcoef(out.T)[0, 1]) < 0.03


@pytest.mark.parametrize("strategy", [LipschitzRadius(), BoxRadius(), GreedyRadius()])
@pytest.mark.parametrize(
    "family", [UniformNoise, SplitNoise, GaussianNoise, lambda lam: UniformMixtureNoise([lam, 2 * lam], [0.5, 0.5])]
)
def test_wider_noise_certifies_more(strategy, family):
    x = np.random.default_rng(0).random(60)
    radii = [radius(strategy, family(width), 0.9, 0.1, x) for width in (0.2, 0.5, 0.8, 1.0, 2.0, 5.0)]
    assert radii == sorted(set(radii))


def test_the_mixture_draws_one_width_for_all_features():
    noise = UniformMixtureNoise([0.25, 2.0], [0.3, 0.7], levels=8)
    out = np.empty((20_000, 5))
    noise.draw(np.full(5, 4), np.random.default_rng(0), out)
    narrow = (np.abs(out - 0.5) <= 0.25).all(axis=1)
    assert narrow.mean() == pytest.approx(0.3 + 0.7 * 0.125**5, abs=0.015)
    wide = out[~narrow]
    assert stats.kstest(wide[:, 0], "uniform", args=(-1.5, 4)).statistic < 0.05


def test_the_weights_of_a_mixture_are_exact_shares_of_the_random_numbers():
    """Of the multiples k of 2**-53 those below the first weight, rounded to such a multiple, draw the first part."""
    noise, edge = UniformMixtureNoise([0.25, 2.0], [0.3, 0.7], levels=8), round(0.3 * 2**53) / 2**53
    rng, out = SimpleNamespace(random=lambda n: edge + np.array([-1, 0, 1]) * 2.0**-53), np.empty((3, 1))

    def of(part):
        return lambda points, rng, drawn: drawn.fill(part)

    noise.draw_parts([of(0), of(1)], np.zeros(1), rng, out)
    assert out.ravel().tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "noise",
    [
        UniformNoise(),
        SplitNoise(0.3),
        UniformMixtureNoise([0.25, 2.0], [0.3, 0.7]),
        UniformMixtureNoise([0.25, 2.0], [0.001, 0.999]),
        GaussianNoise(),
        GaussianNoise(levels=4),
        LaplaceNoise(),
    ],
)
@pytest.mark.parametrize("d", [3, 1000])
def test_a_sample_is_the_same_in_whatever_run_it_is_drawn(noise, d):
    """Runs that start and end anywhere, in any order, of several inputs: each row is a function of key and number."""
    rng = np.random.default_rng(0)
    points = noise.to_points(rng.integers(0, 5, size=(2, d)) / 4)
    keys = rng.integers(2**32, size=(2, 4), dtype=np.uint32)
    whole = np.empty((600, d))
    noise.sample(points, keys, np.array([[0, 0, 300], [1, 0, 300]]), whole)
    runs = np.array([[1, 130, 7], [0, 120, 150], [1, 299, 1], [0, 0, 1]])
    parts = np.empty((runs[:, 2].sum(), d))
    noise.sample(points, keys, runs, parts)
    expected = [whole[300 * owner + first : 300 * owner + first + count] for owner, first, count in runs]
    np.testing.assert_array_equal(parts, np.concatenate(expected))
    assert len(np.unique(whole[:, 0])) > 3


@pytest.mark.parametrize(("sigma", "levels"), [(0.5, 4), (1.0, 255), (0.1, 2), (0.02, 10)])
def test_discretised_normal_has_the_probabilities_of_rounding(sigma, levels):
    from smoothcert.noise.gaussian import TAIL, _thresholds

    noise = GaussianNoise(sigma, levels=levels)
    noise.check()
    thresholds, first = _thresholds(sigma * levels), -math.ceil(TAIL * sigma * levels)
    assert (np.diff(thresholds.astype(float)) >= 0).all()
    found = np.diff(np.concatenate([[0.0], thresholds / 2.0**64, [1.0]]))
    k = first + np.arange(len(found))
    expected = stats.norm.cdf((k + 0.5) / (sigma * levels)) - stats.norm.cdf((k - 0.5) / (sigma * levels))
    assert np.abs(found - expected).sum() / 2 <= noise.draw_error + 1e-15
    out = np.empty((4000, 3))
    noise.draw(np.array([0, 1, levels]), np.random.default_rng(0), out)
    steps_seen = out * levels - np.array([0, 1, levels])
    np.testing.assert_allclose(steps_seen, np.rint(steps_seen), atol=1e-9)
    if sigma * levels >= 1:
        assert steps_seen.std() == pytest.approx(np.sqrt((sigma * levels) ** 2 + 1 / 12), rel=0.1)


def test_errors_of_drawing_are_taken_from_alpha():
    base = Rule(steps([2.0])).fit(None, None)
    X = np.full((1, 40), 0.2)
    noise = GaussianNoise(1.0, levels=255)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], noise, n_samples=1000, random_state=0)
    certificates = clf.certify(X)
    assert clf.algorithm((40,)).level(1000) == pytest.approx(0.001 - noise.draw_error * 40_000)
    assert certificates.p_a[0] < 1 - stats.norm.sf(1.8)
    with pytest.raises(ValueError, match=r"alpha=1e-09 must exceed .* the error of drawing 1000 votes"):
        clf.set_params(alpha=1e-9).certify(X)


# Brute force


def loss(noise, delta):
    """Cost of whole perturbations, from the definition of each family."""
    if isinstance(noise, UniformMixtureNoise):
        with np.errstate(divide="ignore"):
            return -np.log(noise.overlap(delta))
    return noise.cost(delta).sum(axis=-1)


@pytest.mark.parametrize("noise", WITH_BOX, ids=repr)
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_change": 0.4},
        {"max_change": (0.0, np.inf)},
        {"max_features": 2},
        {"max_change": (0.3, 0.7), "max_features": 1},
    ],
)
def test_greedy_radius_is_sound_and_tight(noise, d, limits):
    rng = np.random.default_rng(d)
    strategy = GreedyRadius(**limits)
    down_limit, up_limit = (limit[0] for limit in strategy._limits())
    for _ in range(10):
        x = rng.random(d)
        p_a = rng.uniform(0.55, 0.99)
        r = radius(strategy, noise, p_a, 1 - p_a, x)
        budget = float(noise.budget(p_a, 1 - p_a))
        reach = np.maximum(np.minimum(x, down_limit), np.minimum(1 - x, up_limit))
        moves = rng.random((2000, d)) ** rng.choice([0.2, 1, 5], size=(2000, 1)) * reach
        corners = np.array(list(itertools.product([0, 1], repeat=d))) * reach
        moves = np.vstack([moves, corners])
        if "max_features" in limits:
            keep = np.argsort(rng.random(moves.shape), axis=1) < limits["max_features"]
            moves = moves * keep
        sums = moves.sum(axis=1, keepdims=True)
        inside = moves * np.minimum(1, r / np.maximum(sums, 1e-300)) if np.isfinite(r) else moves
        assert loss(noise, inside).max() <= budget + 1e-9
        if np.isfinite(r):
            outside, left = np.zeros(d), r * (1 + 1e-6) + 1e-6
            for i in np.argsort(-reach):
                outside[i] = min(reach[i], left)
                left -= outside[i]
            assert loss(noise, outside) > budget - 1e-9


@pytest.mark.parametrize("noise", WITH_BOX, ids=repr)
def test_strategies_in_order_and_monotone(noise):
    rng = np.random.default_rng(0)
    x = rng.random((100, 20))
    p_a = np.sort(rng.uniform(0.5001, 0.9999, 100))
    lipschitz, box, greedy = (
        s.radii(noise, p_a, 1 - p_a, x, 1 - x) for s in (LipschitzRadius(), BoxRadius(), GreedyRadius())
    )
    assert (lipschitz <= box).all()
    assert (box <= greedy).all()
    same = np.broadcast_to(x[:1], x.shape)
    for strategy in (LipschitzRadius(), BoxRadius(), GreedyRadius()):
        radii = strategy.radii(noise, p_a, 1 - p_a, same, 1 - same)
        finite = radii[np.isfinite(radii)]
        assert (np.diff(finite) >= -1e-12).all()
    limited = GreedyRadius(max_change=0.3, max_features=5).radii(noise, p_a, 1 - p_a, x, 1 - x)
    assert (limited >= greedy).all()


def test_mixture_of_one_is_uniform_noise():
    rng = np.random.default_rng(0)
    x, p_a = rng.random((50, 8)), rng.uniform(0.51, 0.999, 50)
    for strategy in (LipschitzRadius(), BoxRadius(), GreedyRadius(), BoxRadius(closed_form=True)):
        mixed, plain = (
            strategy.radii(noise, p_a, 1 - p_a, x, 1 - x)
            for noise in (UniformMixtureNoise([1.3], [1.0]), UniformNoise(1.3))
        )
        np.testing.assert_allclose(mixed, plain, rtol=1e-10)


def test_mixture_of_two_satisfies_its_equation():
    noise = UniformMixtureNoise([0.6, 3.0], [0.4, 0.6])
    rng = np.random.default_rng(1)
    for _ in range(30):
        x, p_a = rng.random(12), rng.uniform(0.55, 0.99)
        r, left = radius(GreedyRadius(), noise, p_a, 1 - p_a, x), None
        if np.isinf(r):
            continue
        moves, left = np.zeros(12), r
        reach = np.maximum(x, 1 - x)
        for i in np.argsort(-reach):
            moves[i] = min(reach[i], left)
            left -= moves[i]
        assert noise.overlap(moves) == pytest.approx(1 - (p_a - (1 - p_a)) / 2, abs=1e-10)


def test_exact_gaussian_worst_case():
    """A half-space is the worst base model: its smoothed label flips exactly at the l2 radius."""
    sigma, p_a = 0.7, 0.93
    r = radius(LipschitzRadius(norm=2), GaussianNoise(sigma), p_a, 1 - p_a, [0.5, 0.5])
    threshold = sigma * stats.norm.ppf(p_a)
    flip = brentq(lambda z: stats.norm.cdf((threshold - z) / sigma) - 0.5, 0, 10)
    assert r == pytest.approx(flip, rel=1e-9)
    assert r <= flip + 1e-12


# Through the public API


@pytest.mark.parametrize("noise", ALL, ids=repr)
def test_radii_exceed_the_true_one_no_more_often_than_alpha(noise):
    """A threshold on one feature; the second feature gives each repetition noise of its own."""
    alpha, repetitions, x, threshold = 0.05, 400, 0.4, 0.7
    if isinstance(noise, SplitNoise):
        pytest.skip("its coverage is tested with the guarantees")

    def share(z):
        if isinstance(noise, UniformMixtureNoise):
            return sum(
                w * np.clip((threshold - z + lam) / (2 * lam), 0, 1)
                for w, lam in zip(noise.weights, noise.lams, strict=True)
            )
        frozen = {
            UniformNoise: lambda: stats.uniform(-noise.lam, 2 * noise.lam),
            GaussianNoise: lambda: stats.norm(scale=noise.sigma),
            LaplaceNoise: lambda: stats.laplace(scale=noise.b),
        }[type(noise)]()
        return frozen.cdf(threshold - z)

    true_radius = brentq(lambda z: share(z) - 0.5, x, 3) - x
    clf = SmoothedClassifier.from_pretrained(
        Rule(steps([threshold])).fit(None, None),
        [0, 1],
        noise,
        radius="lipschitz",
        alpha=alpha,
        n_samples=500,
        random_state=2,
    )
    X = np.column_stack([np.full(repetitions, x), np.linspace(0, 1, repetitions)])
    labels, radii = clf.certify(X)
    wrong = (radii[labels == 0] > true_radius).sum()
    assert wrong <= stats.binom.ppf(1 - 1e-4, (labels == 0).sum(), alpha)
    assert np.nanmedian(radii) > 0.5 * true_radius


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform-mixture", GaussianNoise(0.3, levels=16)])
def test_every_family_trains_and_certifies(noise):
    from sklearn.datasets import load_digits
    from sklearn.naive_bayes import GaussianNB

    X, y = load_digits(return_X_y=True)
    clf = SmoothedClassifier(GaussianNB(), noise, bounds=(0, 16), n_samples=100, random_state=0).fit(X[:500], y[:500])
    whole = clf.certify(X[500:520])
    assert (whole.labels == y[500:520]).mean() > 0.3
    for batch_size in (7, 500):
        again = clf.set_params(batch_size=batch_size).certify(X[510:515])
        np.testing.assert_array_equal(again.radii, whole[10:15].radii)
    assert clf.set_params(radius="auto").certify(X[500:501]).norm == 1


def test_norms_travel_with_the_certificates():
    base = Rule(steps([0.9])).fit(None, None)
    X = np.full((1, 4), 0.2)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], GaussianNoise(0.5), random_state=0)
    votes = clf.count_votes(X)
    found = {}
    for norm in (1, 2, np.inf):
        certificates = clf.set_params(radius=LipschitzRadius(norm=norm)).certify(X, votes=votes)
        assert certificates.norm == norm
        assert f"l{norm:g} radius" in repr(certificates)
        found[norm] = certificates.radii[0]
    assert found[1] == pytest.approx(found[2])
    assert found[np.inf] == pytest.approx(found[2] / 2)


def test_limits_travel_with_the_certificates():
    clf = SmoothedClassifier.from_pretrained(Rule(steps([0.9])).fit(None, None), [0, 1], UniformNoise(), random_state=0)
    assert clf.certify([[0.2, 0.5]]).threat == "every perturbation"
    limited = clf.set_params(radius=GreedyRadius(max_change=0.1, max_features=1)).certify([[0.2, 0.5]])
    assert limited.threat == "perturbations of any one feature with max_change=0.1"
    assert limited.threat in repr(limited)


def test_immovable_features_do_not_share_the_budget_of_linf():
    mechanism = NoiseMechanism(Box.from_bounds(([0, 0, 5], [1, 1, 5])), UniformNoise(2.0), (3,))
    down, up = mechanism.room(np.array([[0.5, 0.5, 5.0]]))
    found = LipschitzRadius(norm=np.inf).radii(UniformNoise(2.0), np.array([0.9]), np.array([0.1]), down, up)
    assert found[0] == pytest.approx(4 * (1 - 0.6**0.5))


# Bad input


@pytest.mark.parametrize(
    ("strategy", "noise", "message"),
    [
        (
            GreedyRadius(),
            LaplaceNoise(),
            r"GreedyRadius\(\) has no certificate for LaplaceNoise\(\). Valid are LipschitzRadius\(norm=1\)\.",
        ),
        (BoxRadius(), LaplaceNoise(), "BoxRadius.* has no certificate for LaplaceNoise"),
        (
            LipschitzRadius(norm=2),
            SplitNoise(),
            r"Valid are LipschitzRadius\(norm=1\), LipschitzRadius\(norm=inf\), BoxRadius\(\), GreedyRadius",
        ),
        (LipschitzRadius(norm=np.inf), UniformMixtureNoise(), "has no certificate for UniformMixtureNoise"),
        (LipschitzRadius(norm=3), GaussianNoise(), r"LipschitzRadius\(norm=2\), LipschitzRadius\(norm=inf\)"),
        (GreedyRadius(max_features=0), UniformNoise(), "max_features must be a whole number of at least 1, got 0"),
        (GreedyRadius(max_change=-1), UniformNoise(), "max_change must be a number or array .* got -1"),
        (GreedyRadius(max_change="all"), UniformNoise(), "max_change must be a number or array .* got 'all'"),
        (GreedyRadius(max_change=(1, 2, 3)), UniformNoise(), r"max_change must be .* got \(1, 2, 3\)"),
    ],
)
def test_invalid_pairs_list_the_valid_ones(strategy, noise, message):
    with pytest.raises(ValueError, match=message):
        strategy.check(noise)


def test_max_change_must_fit_the_features():
    with pytest.raises(ValueError, match="max_change must hold one number, or one for each of 3 features, got 2"):
        radius(GreedyRadius(max_change=[0.1, 0.2]), UniformNoise(), 0.9, 0.1, [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (GaussianNoise(0), "sigma must be a finite number above 0, got 0"),
        (GaussianNoise(1.0, levels=2.5), "levels must be .* got 2.5"),
        (GaussianNoise(1e-5, levels=255), "sigma must lie between"),
        (LaplaceNoise(-1), "b must be a finite number above 0, got -1"),
        (UniformMixtureNoise([1.0], [0.5, 0.5]), "weights must hold one number for each of lams and sum to 1"),
        (UniformMixtureNoise([1.0, 2.0], [0.5, 0.6]), "weights must hold one number for each of lams and sum to 1"),
        (UniformMixtureNoise([0.0, 2.0], [0.5, 0.5]), "each of lams must be a finite number above 0, got 0.0"),
        (UniformMixtureNoise(1.0, 1.0), "lams must be a list of numbers, got 1.0"),
    ],
)
def test_bad_parameters(noise, message):
    with pytest.raises(ValueError, match=message):
        noise.check()


@pytest.mark.parametrize(("sigma", "valid"), [(0.01, True), (0.0099, False), (1e4, True), (1.01e4, False)])
def test_digital_gaussian_noise_has_a_width_between_a_tenth_of_a_step_and_a_hundred_thousand(sigma, valid):
    message = rf"sigma must lie between 0\.01 and 10000 at levels=10, got {sigma}\."
    with nullcontext() if valid else pytest.raises(ValueError, match=message):
        GaussianNoise(sigma, levels=10).check()
    GaussianNoise(sigma).check()


def test_weights_of_a_mixture_add_up_to_1():
    for weights in ([0.5, 0.5 + 1e-8], [0.5, 0.5 - 1e-8]):
        with pytest.raises(ValueError, match="weights must hold one number for each of lams and sum to 1"):
            UniformMixtureNoise([1.0, 2.0], weights).check()
    UniformMixtureNoise([1.0, 2.0, 3.0], [0.1, 0.2, 0.7]).check()


# What a review found


def test_closed_form_needs_every_part_of_a_mixture_to_be_wide():
    noise = UniformMixtureNoise([0.25, 2.0], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"closed_form=True\) needs lam > 1/2"):
        BoxRadius(closed_form=True).check(noise)
    rng = np.random.default_rng(0)
    x, p_a = rng.random((200, 9)), rng.uniform(0.51, 0.99, 200)
    wide = UniformMixtureNoise([0.6, 2.0], [0.5, 0.5])
    closed, exact = (BoxRadius(closed_form=c).radii(wide, p_a, 1 - p_a, x, 1 - x) for c in (True, False))
    assert (closed <= exact + 1e-12).all()


def test_mass_that_is_never_drawn_is_no_overlap():
    noise = UniformMixtureNoise([1.0, 1.0], [1.0, 9e-10])
    noise.check()
    assert radius(GreedyRadius(max_features=9), noise, 0.9, 0.1, np.zeros(9)) <= 0.8
    assert radius(LipschitzRadius(), noise, 0.9, 0.1, np.zeros(9)) <= 0.8


def test_radii_of_a_mixture_do_not_depend_on_the_other_inputs():
    rng = np.random.default_rng(0)
    x, p_a = rng.random((57, 41)), rng.uniform(0.51, 0.99, 57)
    noise = UniformMixtureNoise([0.3, 1.0, 4.0], [0.2, 0.5, 0.3])
    for strategy in (LipschitzRadius(), BoxRadius(), GreedyRadius()):
        together = strategy.radii(noise, p_a, 1 - p_a, x, 1 - x)
        alone = [radius(strategy, noise, p, 1 - p, row) for p, row in zip(p_a, x, strict=True)]
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("gap", [1e-3, 1e-9, 1e-12])
def test_gaussian_radius_is_rounded_down_where_probabilities_are_close(gap):
    mpmath.mp.dps = 40
    rng = np.random.default_rng(0)
    for p_b in rng.uniform(0.01, 0.49, 20):
        p_a = p_b + gap
        quantiles = [mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(float(p)) - 1) for p in (p_a, p_b)]
        exact = (quantiles[0] - quantiles[1]) / 2
        assert radius(LipschitzRadius(norm=2), GaussianNoise(1.0), p_a, p_b, [0.5]) <= exact


@pytest.mark.parametrize("levels", [49, 98, 103])
def test_noise_without_outcomes_is_refused(levels):
    noise = SplitNoise(0.5 / levels, levels=levels)
    if noise.n_offsets < 1:
        with pytest.raises(ValueError, match="lam must lie between"):
            noise.check()
    else:
        noise.check()


def test_deterministic_noise_from_sigma_is_valid():
    noise = DeterministicSplitNoise.from_sigma(0.5)
    noise.check()
    assert noise.lam == pytest.approx(0.5 * 3**0.5)


@pytest.mark.parametrize("family", [UniformNoise, SplitNoise, GaussianNoise, LaplaceNoise])
def test_a_bad_sigma_is_named(family):
    with pytest.raises(ValueError, match=r"^sigma must be"):
        family.from_sigma(-1.0)
