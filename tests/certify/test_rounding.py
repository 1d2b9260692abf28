"""Each step from counts to radius against exact arithmetic: rounding errors only ever shrink a radius."""

import math
from fractions import Fraction

import mpmath as mp
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
from smoothcert.certify.binomial import clopper_pearson, hoeffding, randomized_clopper_pearson, upper_bound
from smoothcert.certify.reach import certified_radii
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

mp.mp.dps = 40

LEVELS = [0.7, 0.4, 0.05, 5e-4, 1e-10, 1e-50, 1e-100]
TRIALS = [1, 2, 10, 97, 1000, 10**4, 10**6, 10**9]


def tail(k, n, p):
    """P(X >= k) to 30 digits, term by term; p is rational."""
    p = mp.mpf(p.numerator) / p.denominator if isinstance(p, Fraction) else mp.mpf(p)
    if k == 0:
        return mp.mpf(1)
    if k > n or p == 0:
        return mp.mpf(0)
    if k > n * p:
        first, step, ratio = k, 1, p / (1 - p) if p < 1 else mp.inf
        count = n - k
    else:
        first, step, ratio, count = k - 1, -1, (1 - p) / p, k - 1
    term = mp.exp(mp.loggamma(n + 1) - mp.loggamma(first + 1) - mp.loggamma(n - first + 1) + first * mp.log(p))
    term *= mp.exp((n - first) * mp.log(1 - p)) if first < n else 1
    total, at = mp.mpf(0), first
    for _ in range(count + 1):
        total += term
        if term < total * mp.mpf(10) ** -32:
            break
        term *= ratio * (mp.mpf(n - at) / (at + 1) if step == 1 else mp.mpf(at) / (n - at + 1))
        at += step
    return total if step == 1 else 1 - total


def successes(n):
    middle = {n // 10, n // 2, n - n // 10, n - n // 100} if n <= 10**4 else {n // 1000, n - n // 1000}
    return sorted(k for k in {1, 2, n - 2, n - 1, n} | middle if 1 <= k <= n)


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("n", TRIALS)
def test_clopper_pearson_is_rounded_down(n, alpha):
    k = np.array([0, *successes(n)])
    lower = clopper_pearson(k, n, alpha)
    assert lower[0] == 0
    for successes_, p in zip(k[1:].tolist(), lower[1:].tolist(), strict=True):
        if p == 0:
            assert tail(successes_, n, 1e-12) > mp.mpf(alpha) * (1 - 1e-9), "only bounds below 1e-12 may be 0"
            continue
        exact = tail(successes_, n, p)
        assert exact <= mp.mpf(alpha)
        assert exact >= mp.mpf(alpha) * (1 - 2e-6)


@pytest.mark.parametrize("alpha", LEVELS[::2])
@pytest.mark.parametrize("n", TRIALS)
def test_upper_bounds_are_rounded_up(n, alpha):
    for k in [0, *successes(n)]:
        upper = Fraction(float(upper_bound(clopper_pearson, k, n, alpha)))
        if upper < 1:
            assert tail(n - k, n, 1 - upper) <= mp.mpf(alpha)
        else:
            assert upper == 1


@pytest.mark.parametrize("alpha", LEVELS[::2])
@pytest.mark.parametrize("n", [1, 10, 97, 10**4, 10**6])
def test_randomised_bound_is_rounded_down(n, alpha):
    k = np.array([0, *successes(n)])
    for u in (1e-12, 0.01, 0.3, 0.999, 1.0):
        lower = randomized_clopper_pearson(k, n, alpha, u)
        for successes_, p in zip(k.tolist(), lower.tolist(), strict=True):
            if 0 < p < 1:
                exact = (1 - mp.mpf(u)) * tail(successes_ + 1, n, p) + mp.mpf(u) * tail(successes_, n, p)
                assert exact <= mp.mpf(alpha)


@pytest.mark.parametrize("wrong", [np.nan, 0.0, 1e-5, 1 - 1e-10])
def test_a_quantile_that_is_too_small_or_missing_is_found_by_bisection(monkeypatch, wrong):
    k, n = np.array([1, 5, 90, 100]), 100
    right = clopper_pearson(k, n, 0.01)
    monkeypatch.setattr(
        "statsmodels.stats.proportion.proportion_confint", lambda k, n, **_: (right * wrong, np.ones(k.shape))
    )
    found = clopper_pearson(k, n, 0.01)
    np.testing.assert_allclose(found, right, rtol=1e-9)
    assert all(tail(int(k_), n, p) <= mp.mpf(0.01) for k_, p in zip(k, found.tolist(), strict=True))


@pytest.mark.parametrize("factor", [1 + 1e-12, 1 + 1e-8, 1.001, 2.0])
def test_a_quantile_that_is_too_large_is_stepped_down(monkeypatch, factor):
    k, n = np.array([1, 5, 90, 100]), 100
    right = clopper_pearson(k, n, 0.01)
    monkeypatch.setattr(
        "statsmodels.stats.proportion.proportion_confint",
        lambda k, n, **_: (np.minimum(right * factor, 1.0), np.ones(k.shape)),
    )
    found = clopper_pearson(k, n, 0.01)
    assert all(tail(int(k_), n, p) <= mp.mpf(0.01) for k_, p in zip(k, found.tolist(), strict=True))
    assert (found >= right * (1 - 2 * (factor - 1) - 1e-9)).all()


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("n", TRIALS)
def test_hoeffding_is_rounded_down(n, alpha):
    for k in successes(n):
        lower = float(hoeffding(k, n, alpha))
        assert lower == 0 or lower <= mp.mpf(k) / n - mp.sqrt(-mp.log(mp.mpf(alpha)) / (2 * n))


def margins(rng, size):
    """Probabilities p_a > p_b, random and extreme."""
    p_a = 1 - rng.random(size) ** rng.choice([1, 4, 16], size) / 2
    p_b = (1 - p_a) * rng.choice([1.0, 0.5, 1e-9], size)
    p_a[:4], p_b[:4] = [1.0, 1.0, 0.5 + 1e-15, 0.9], [0.0, 0.5, 0.5, 0.1]
    return p_a, p_b


def exact_budget(noise, p_a, p_b):
    p_a, p_b = mp.mpf(p_a), mp.mpf(p_b)
    if isinstance(noise, GaussianNoise):
        quantile = lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1) if p > mp.mpf("1e-3") else small_quantile(p)  # noqa: E731
        upper = -small_quantile(1 - p_a) if p_a > mp.mpf("0.999") else quantile(p_a)
        return (mp.mpf(noise.sigma) / 2 * (upper - quantile(p_b))) ** 2
    if isinstance(noise, LaplaceNoise):
        half = mp.log(p_a / p_b) / 2 if p_b else mp.inf
        return max(-mp.log(1 - (p_a - p_b)), half)
    return -mp.log(1 - (p_a - p_b) / 2)


def small_quantile(p):
    """Quantile of the normal distribution for a small p, by Newton's method."""
    if p == 0:
        return -mp.inf
    z = -mp.sqrt(-2 * mp.log(p))
    for _ in range(60):
        z -= (mp.erfc(-z / mp.sqrt(2)) / 2 - p) / (mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi))
    return z


def exact_radius(noise, p_a, p_b, reach):
    """Walk in 40 digits; None where all of it is affordable."""
    budget = exact_budget(noise, p_a, p_b)
    if budget == mp.inf:
        return None
    if isinstance(noise, GaussianNoise):
        cost, inverse = (lambda z: z * z), mp.sqrt
    elif isinstance(noise, LaplaceNoise):
        cost, inverse = (lambda z: z / mp.mpf(noise.b)), (lambda c: c * mp.mpf(noise.b))
    else:
        wide = mp.mpf(noise.n_offsets) / noise.q
        cost, inverse = (lambda z: -mp.log(1 - z / wide) if z < wide else mp.inf), (lambda c: wide * (1 - mp.exp(-c)))
    covered = mp.mpf(0)
    for r in sorted((mp.mpf(float(r)) for r in reach), reverse=True):
        if r == 0:
            break
        if cost(r) >= budget:
            return covered + inverse(budget)
        budget -= cost(r)
        covered += r
    return None


NOISES = [
    UniformNoise(1.0, levels=255),
    SplitNoise(0.3, levels=255),
    UniformNoise(100.0),
    SplitNoise(3.5),
    GaussianNoise(0.25),
    GaussianNoise(2.0),
]


@pytest.mark.parametrize("noise", [*NOISES, LaplaceNoise(0.4)], ids=repr)
@pytest.mark.parametrize("strategy", [LipschitzRadius(), BoxRadius(), GreedyRadius()], ids=repr)
def test_radii_are_rounded_down(noise, strategy):
    if strategy.uses_box and not noise.uses_box:
        pytest.skip("no such certificate")
    rng = np.random.default_rng(0)
    p_a, p_b = margins(rng, 60)
    x = rng.choice([rng.random((60, 7)), rng.integers(0, 2, (60, 7)), rng.random((60, 7)) ** 20])
    found = strategy.radii(noise, p_a, p_b, x, 1 - x)
    for i in range(60):
        reach = {"LipschitzRadius": [1e6], "BoxRadius": np.ones(7)}.get(
            type(strategy).__name__, np.maximum(x[i], 1 - x[i])
        )
        exact = exact_radius(noise, p_a[i], p_b[i], reach)
        assert exact is None or mp.mpf(float(found[i])) <= exact
        if exact is not None and exact > 1e-6:
            assert found[i] >= exact * (1 - mp.mpf("1e-7"))


def test_mixture_radii_are_rounded_down():
    """Overlaps are rational: those at the radius, moved the worst way, must not be below what the margin allows."""
    rng = np.random.default_rng(1)
    noise = UniformMixtureNoise([0.5, 2.0, 0.75], [0.25, 0.5, 0.25], levels=64)
    sizes = [Fraction(part.n_offsets, 64) for part in noise.parts]
    p_a, p_b = margins(rng, 80)
    x = rng.integers(65, size=(80, 5)) / 64
    for strategy in (BoxRadius(), GreedyRadius()):
        found = strategy.radii(noise, p_a, p_b, x, 1 - x)
        for i in range(80):
            reach = np.ones(5) if isinstance(strategy, BoxRadius) else np.maximum(x[i], 1 - x[i])
            rest, moves = (Fraction(float(found[i])) if np.isfinite(found[i]) else 99), []
            for r in sorted(map(Fraction, reach.tolist()), reverse=True):
                moves.append(min(r, rest))
                rest -= moves[-1]
            overlap = sum(
                weight * math.prod(max(1 - move / size, 0) for move in moves)
                for weight, size in zip([Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)], sizes, strict=True)
            )
            assert overlap > 1 - (Fraction(float(p_a[i])) - Fraction(float(p_b[i]))) / 2


@pytest.mark.parametrize("lam", [0.6, 1.0, 3.5, 77.0, 0.5 + 1e-6])
def test_closed_form_is_rounded_down(lam):
    noise, rng = UniformNoise(lam), np.random.default_rng(2)
    if not noise.allows_closed_form:
        pytest.skip("lam is 1/2 on the lattice")
    p_a, p_b = margins(rng, 100)
    found = BoxRadius(closed_form=True).radii(noise, p_a, p_b, np.ones((100, 3)), np.zeros((100, 3)))
    wide = mp.mpf(noise.n_offsets) / noise.q
    for r, a, b in zip(found.tolist(), p_a.tolist(), p_b.tolist(), strict=True):
        assert mp.mpf(r) <= exact_budget(noise, a, b) / -mp.log(1 - 1 / wide)


@pytest.mark.parametrize("noise", [UniformNoise(0.7), SplitNoise(5.0)], ids=repr)
def test_l_inf_radii_are_rounded_down(noise):
    p_a, p_b = margins(np.random.default_rng(3), 50)
    for d in (1, 3, 1000):
        found = LipschitzRadius(norm=np.inf).radii(noise, p_a, p_b, np.ones((50, d)), np.zeros((50, d)))
        wide = mp.mpf(noise.n_offsets) / noise.q
        for r, a, b in zip(found.tolist(), p_a.tolist(), p_b.tolist(), strict=True):
            assert mp.mpf(r) <= wide * (1 - mp.exp(-exact_budget(noise, a, b) / d))


def test_the_lattice_is_never_wider_than_lam_but_for_a_rounding_error():
    rng = np.random.default_rng(4)
    for lam in (*rng.uniform(0.01, 100, 300), 0.1, 0.3, 0.7, 1 / 3):
        for levels in (3, 255, 65_535, "auto"):
            noise = UniformNoise(float(lam), levels)
            assert Fraction(noise.n_offsets, 2 * noise.q) <= Fraction(float(lam)) * (1 + Fraction(1, 2**52))
            assert noise.n_offsets + 1 > 2 * Fraction(float(lam)) * noise.q * (1 - Fraction(1, 2**52))


@pytest.mark.parametrize("bounds", [(0, 1), (-1e8, 1e8 + 3), (1e9, 1e9 + 1), (1e-9, 2e-9), (-0.1, 0.3)])
def test_rounding_of_the_box_map_is_taken_from_the_radius(bounds):
    """Two raw inputs are never farther apart as lattice points than their exact distance plus what is taken off."""
    rng = np.random.default_rng(5)
    mechanism = NoiseMechanism(Box.from_bounds(bounds), SplitNoise(1.0), (4,))
    lo, hi = map(Fraction, map(float, bounds))
    for _ in range(300):
        X = np.clip(rng.uniform(*bounds, (2, 4)), *bounds)
        X[1, :2] = np.nextafter(X[0, :2], rng.choice([-np.inf, np.inf]))
        points = mechanism.points(np.clip(X, *bounds)).astype(object)
        on_lattice = Fraction(int(np.abs(points[0] - points[1]).sum()), mechanism.noise.q)
        exact = sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(*np.clip(X, *bounds).tolist(), strict=True)) / (
            hi - lo
        )
        assert on_lattice <= exact + Fraction(mechanism.rounding())


def test_published_radii_are_below_the_walk_by_the_rounding_of_the_lattice():
    noise = SplitNoise(1.0)
    mechanism, X = NoiseMechanism(Box.from_bounds((0, 1)), noise, (3,)), np.array([[0.1, 0.5, 0.7]])
    p = np.array([0.8])
    exact = exact_radius(noise, 0.8, 1 - 0.8, [0.9, 0.5, 0.7])
    assert certified_radii(LipschitzRadius(), mechanism, X, p, 1 - p)[0] <= exact - mp.mpf(3) / noise.q


@pytest.mark.parametrize("bounds", [(1e5, 1e5 + 1), (1e9, 1e9 + 1), (0, 1e300)])
def test_limits_hold_on_the_lattice(bounds):
    """A move within the limit in raw units is one within the granted reach after rounding."""
    mechanism = NoiseMechanism(Box.from_bounds(bounds), SplitNoise(1.0), (3,))
    strategy = GreedyRadius(max_change=0.01)
    X = np.full((1, 3), bounds[0])
    granted = strategy.reach(mechanism.noise, *mechanism.room(X))[0, 0]
    rng, width = np.random.default_rng(0), bounds[1] - bounds[0]
    a = bounds[0] + width * rng.random(2000)
    b = np.clip(a + 0.01 * width, *bounds)
    exact = [abs(Fraction(u) - Fraction(v)) <= Fraction(0.01) * Fraction(width) for u, v in zip(a, b, strict=True)]
    moved = np.abs(np.diff(mechanism.box.to_unit(np.array([a, b])) * mechanism.noise.q, axis=0)[0])
    assert (np.ceil(moved[exact]) / mechanism.noise.q <= granted).all()


def test_votes_of_unequal_number_take_the_drawing_error_of_the_most():
    from dataclasses import replace

    from smoothcert import SmoothedClassifier

    from ..base_models import Rule, constant

    base = Rule(constant).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], GaussianNoise(0.5, levels=255), random_state=0)
    X = np.full((2, 3), 1 / 255)
    votes = clf.count_votes(X)
    more = votes.estimation.copy()
    more[1] *= 10**9
    unequal = replace(votes, estimation=more)
    with pytest.raises(ValueError, match=r"must exceed .* the error of drawing 10000000000000 votes"):
        clf.certify(X, votes=unequal)
