import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import beta, binom, multinomial

from smoothcert.certify.betting import (
    _BETS,
    _GRID,
    anytime_lower_bound,
    checkpoints,
    log_e_margin,
    log_e_value,
    rejects_margin,
)

SELECTION = 256

#: Sums over all outcomes are this far from exact: the probabilities of the outcomes are rounded.
ROUNDING = 1e-11


def log_beta(a, b):
    return mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)


def log_tail(p, a, b):
    """Logarithm of the Beta survival function by its hypergeometric series; NaN where that takes too long."""
    term = total = mpmath.mpf(1)
    for j in range(4_000):
        term *= (a + b + j) / (b + 1 + j) * (1 - p)
        total += term
        if term < total * 1e-25:
            return b * mpmath.log(1 - p) + a * mpmath.log(p) - mpmath.log(b) - log_beta(a, b) + mpmath.log(total)
    return mpmath.nan


def log_survival(p, a, b):
    return log_tail(p, a, b) if p > a / (a + b) else mpmath.log1p(-mpmath.exp(log_tail(1 - p, b, a)))


def exact_log_e_value(k, n, p0, a, b):
    with mpmath.workdps(45):
        k, n, p0, a, b = (mpmath.mpf(float(value)) for value in (k, n, p0, a, b))
        evidence = log_beta(a + k, b + n - k) - log_beta(a, b)
        mass = log_survival(p0, a + k, b + n - k) - log_survival(p0, a, b)
        return evidence + mass - k * mpmath.log(p0) - (n - k) * mpmath.log(1 - p0)


def exact_log_e_margin(votes, mu0, prior):
    with mpmath.workdps(45):
        start, mu0, stakes, wealth = mpmath.mpf(cell_start(mu0)), mpmath.mpf(mu0), 0, 0
        for share in map(mpmath.mpf, map(float, _BETS)):
            stake = mpmath.sqrt(share * (1 - share)) * factor(share, start, *prior)
            stakes += stake
            wealth += stake * factor(share, mu0, *votes)
        return mpmath.log(wealth / stakes)


def cell_start(mu0):
    return float(_GRID[_GRID <= mu0].max())


def factor(share, mu0, n_a, n_b, n):
    """What votes multiply the wealth of a bet by."""
    win, draw, loss = (1 + share / mu0 * (vote - mu0) for vote in (1, 0.5, 0))
    return win ** int(n_a) * loss ** int(n_b) * draw ** int(n - n_a - n_b)


def random_arguments(rng, largest):
    """Counts around what the null allows, and a prior from other votes or, now and then, a strange one."""
    n = int(largest ** rng.uniform())
    p0 = rng.choice([rng.uniform(), 1 - 10 ** rng.uniform(-6, 0), 10 ** rng.uniform(-9, 0)])
    p = np.clip(p0 + rng.uniform(-8, 25) * math.sqrt(p0 * (1 - p0) / n), 0, 1)
    selected = rng.binomial(SELECTION, p)
    prior = (selected + 0.5, SELECTION - selected + 0.5) if rng.uniform() < 0.8 else rng.choice([0.01, 0.5, 1, 7.3], 2)
    return round(n * p), n, p0, *prior


@pytest.mark.parametrize(("largest", "tolerance"), [(1e5, 1e-6), (1e8, 1e-4)])
def test_log_e_value_is_just_below_the_exact_one(largest, tolerance):
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(50):
        arguments = random_arguments(rng, largest)
        value, exact = float(log_e_value(*arguments)), exact_log_e_value(*arguments)
        if mpmath.isnan(exact) or value == -np.inf:
            continue
        assert 0 < float(exact - value) <= tolerance * max(1, abs(value)), arguments
        checked += 1
    assert checked > 25


def test_log_e_value_is_just_below_the_exact_one_where_the_null_is_hardly_possible():
    """The likelihood of the null has by far the largest logarithm here, and the largest rounding."""
    for p0 in (1e-300, 1e-100, 1e-30):
        for k in range(1, 100, 3):
            value = float(log_e_value(k, 100, p0, 0.5, 0.5))
            assert 0 < float(exact_log_e_value(k, 100, p0, 0.5, 0.5) - value) < 1e-12 * value


@pytest.mark.parametrize("largest", [1e2, 1e5, 1e8])
def test_log_e_margin_is_just_below_the_exact_one(largest):
    rng = np.random.default_rng(2)
    for _ in range(12):
        mu0 = rng.choice([0.5, rng.uniform(0.5, 1), 0.999, 1 - 1e-6])
        shares = rng.dirichlet([8 * mu0 / (1 - mu0), 1, 1])
        counts, prior = rng.multinomial(int(largest ** rng.uniform()), shares), rng.multinomial(SELECTION, shares)
        arguments = ((*counts[:2], counts.sum()), mu0, (*prior[:2], SELECTION))
        assert 0 < float(exact_log_e_margin(*arguments) - float(log_e_margin(*arguments))) < 1e-9 + 1e-12 * counts.sum()


@pytest.mark.parametrize(
    ("k", "n", "p0", "a", "b"),
    [(8, 10, 0.5, 0.5, 0.5), (3, 10, 0.6, 2, 5), (30, 30, 0.9, 20.5, 1.5), (0, 4, 0.2, 1, 1), (17, 20, 0.75, 25, 300)],
)
def test_log_e_value_averages_the_likelihood_ratio_over_the_truncated_prior(k, n, p0, a, b):
    def weighted(p):
        return (p / p0) ** k * ((1 - p) / (1 - p0)) ** (n - k) * beta.pdf(p, a, b)

    parts = [quad(weighted, *ends, epsabs=0, epsrel=1e-9)[0] for ends in ((p0, (1 + p0) / 2), ((1 + p0) / 2, 1))]
    assert np.exp(log_e_value(k, n, p0, a, b)) == pytest.approx(sum(parts) / beta.sf(p0, a, b), rel=1e-6)


@pytest.mark.parametrize("mu0", [0.5, 0.75, 0.999])
def test_log_e_margin_is_the_wealth_of_bets_on_one_vote_after_another(mu0):
    rng = np.random.default_rng(1)
    bets, start = _BETS / mu0, cell_start(mu0)
    stakes = np.sqrt(_BETS * (1 - _BETS)) * factor(_BETS, start, 20, 3, 25)
    for _ in range(20):
        votes = rng.choice([0, 0.5, 1], p=[0.1, 0.2, 0.7], size=rng.integers(1, 40))
        wealth = stakes / stakes.sum()
        for vote in votes:
            wealth = wealth * (1 + bets * (vote - mu0))
        value = log_e_margin(((votes == 1).sum(), (votes == 0).sum(), len(votes)), mu0, (20, 3, 25))
        assert value == pytest.approx(np.log(wealth.sum()), abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (20.5, 5.5), (2, 40)])
@pytest.mark.parametrize("p0", [0.1, 0.5, 0.75, 0.99])
def test_log_e_value_is_a_martingale_at_the_null_and_a_supermartingale_below(p0, a, b):
    """Whatever the counts, the next vote is expected to leave wealth as it is if p = p0, and to lower it if p < p0."""
    n, k = np.tril_indices(40)
    now, success, failure = (np.exp(log_e_value(k + i, n + j, p0, a, b)) for i, j in ((0, 0), (1, 1), (0, 1)))
    np.testing.assert_allclose(p0 * success + (1 - p0) * failure, now, rtol=1e-9)
    assert (success >= failure).all()
    k = np.arange(41)
    e = np.exp(log_e_value(k, 40, p0, a, b))
    assert (binom.pmf(k, 40, p0) * e).sum() == pytest.approx(1, abs=1e-9)
    for p in p0 * np.array([0, 0.3, 0.9, 0.999, 1]):
        assert (binom.pmf(k, 40, p) * e).sum() <= 1 + ROUNDING


@pytest.mark.parametrize("prior", [(0, 0, 0), (20, 3, 25), (5, 20, 25)])
@pytest.mark.parametrize("mu0", [0.5, 0.6, 0.75, 0.99])
def test_log_e_margin_is_a_martingale_at_the_null_and_a_supermartingale_below(mu0, prior):
    n = 24
    n_a, n_b = (axis.ravel() for axis in np.mgrid[: n + 1, : n + 1])
    n_a, n_b = n_a[n_a + n_b <= n], n_b[n_a + n_b <= n]
    votes = np.stack([n_a, n_b, n - n_a - n_b], axis=1)
    now = np.exp(log_e_margin((n_a, n_b, n), mu0, prior))
    after = [np.exp(log_e_margin((n_a + i, n_b + j, n + 1), mu0, prior)) for i, j in ((1, 0), (0, 1), (0, 0))]
    for others in np.array([0, 0.3, 0.7, 1]) * 2 * (1 - mu0):
        probabilities = np.array([mu0 - others / 2, 1 - mu0 - others / 2, others])
        np.testing.assert_allclose(probabilities @ after, now, rtol=1e-9)
        assert multinomial.pmf(votes, n, probabilities) @ now == pytest.approx(1, abs=1e-9)
        for shift in probabilities[0] * np.array([0.001, 0.1, 1]):
            below = probabilities + shift * np.array([-1, 0.5, 0.5])
            assert (below @ after <= now).all()
            assert multinomial.pmf(votes, n, below) @ now <= 1 + ROUNDING


def test_votes_must_not_choose_their_own_prior():
    """What is fair with a prior from other votes is not with one from the same."""
    k = np.arange(41)
    e = np.exp(log_e_value(k, 40, 0.75, k + 0.5, 40 - k + 0.5))
    assert (binom.pmf(k, 40, 0.75) * e).sum() > 1.5
    e = np.exp(log_e_margin((k, 40 - k, 40), 0.75, (k, 40 - k, 40)))
    assert (binom.pmf(k, 40, 0.75) * e).sum() > 1.5


def paths(rng, repetitions, at, probabilities):
    """Counts of every class at every look."""
    increments = rng.multinomial(np.diff(at, prepend=0), probabilities, size=(repetitions, len(at)))
    return np.moveaxis(increments.cumsum(axis=1), -1, 0)


def most_false_alarms(repetitions, alpha):
    return binom.ppf(0.999, repetitions, alpha)


@pytest.mark.parametrize(
    ("p0", "alpha", "repetitions", "flat"),
    [
        (0.5, 0.05, 1_000, True),
        (0.75, 0.05, 1_000, False),
        (0.99, 0.05, 1_000, True),
        (0.99, 0.05, 1_000, False),
        (0.9, 0.001, 6_000, False),
    ],
)
def test_log_e_value_keeps_its_level_at_the_worst_moment(p0, alpha, repetitions, flat):
    rng = np.random.default_rng(3)
    at = checkpoints(10_000)
    k = paths(rng, repetitions, at, [p0, 1 - p0])[0]
    selected = np.zeros((repetitions, 1)) if flat else rng.binomial(SELECTION, p0, size=(repetitions, 1))
    prior = selected + 0.5, (0 if flat else SELECTION) - selected + 0.5
    alarms = (log_e_value(k, at, p0, *prior).max(axis=1) >= -np.log(alpha)).sum()
    assert alarms <= most_false_alarms(repetitions, alpha)
    assert alarms >= alpha * repetitions / 8


@pytest.mark.parametrize(
    ("mu0", "probabilities", "alpha", "repetitions"),
    [
        (0.5, [0.4, 0.4, 0.2], 0.05, 2_000),
        (0.5, [0.4, 0.4, 0.1, 0.1], 0.05, 2_000),
        (0.5, [1 / 3, 1 / 3, 1 / 3], 0.05, 2_000),
        (0.75, [0.6, 0.1, 0.3], 0.05, 2_000),
        (0.75, [0.75, 0.25, 0], 0.05, 2_000),
        (0.99, [0.985, 0.005, 0.01], 0.05, 2_000),
        (0.75, [0.65, 0.15, 0.2], 0.001, 8_000),
    ],
)
def test_log_e_margin_of_the_strongest_rival_keeps_its_level_at_the_worst_moment(
    mu0, probabilities, alpha, repetitions
):
    rng = np.random.default_rng(4)
    at = checkpoints(10_000)
    votes = paths(rng, repetitions, at, probabilities)
    selected = rng.multinomial(SELECTION, probabilities, size=repetitions)[..., None]
    prior = selected[:, 0], selected[:, 1:].max(axis=1), SELECTION
    log_e = log_e_margin((votes[0], votes[1:].max(axis=0), at), mu0, prior)
    alarms = (log_e.max(axis=1) >= -np.log(alpha)).sum()
    assert alarms <= most_false_alarms(repetitions, alpha)
    if probabilities[1] > max(probabilities[2:]):
        assert alarms >= alpha * repetitions / 8


def test_the_rival_with_the_most_votes_decides():
    """At the same votes for A, more votes for a rival leave less wealth, whatever the prior."""
    n = 60
    for mu0 in (0.5, 0.75, 0.999):
        for prior in ((0, 0, 0), (20, 3, 25), (3, 20, 25), (256, 0, 256)):
            for n_a in (0, 20, 40):
                assert (np.diff(log_e_margin((n_a, np.arange(n - n_a + 1), n), mu0, prior)) < 0).all()


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1, 1), (0.01, 30), (30, 0.01), (200.5, 56.5), (3.5, 253.5)])
def test_log_e_value_falls_in_the_null_and_rises_in_the_successes(a, b):
    for k, n in ((1, 1), (5, 5), (9, 10), (300, 400), (9_990, 10_000)):
        p0 = np.concatenate([np.geomspace(1e-9, 0.1, 300), np.linspace(0.1, 1, 600)]) * k / n
        log_e = log_e_value(k, n, p0, a, b)
        seen = np.isfinite(log_e)
        assert (np.diff(log_e[seen]) < 1e-9).all()
        assert (np.diff(seen.astype(int)) <= 0).all()
        assert (log_e_value(k, n, np.linspace(k / n, 1, 50), a, b) < 0).all()
        log_e = log_e_value(np.arange(n + 1), n, 0.7, a, b)
        assert (np.diff(log_e[np.isfinite(log_e)]) > 0).all()
        assert (np.diff(np.isfinite(log_e).astype(int)) >= 0).all()


@pytest.mark.parametrize("k", [1, 60, 99, 100])
def test_anytime_lower_bound_solves_its_equation_from_below(k):
    alpha, prior = 0.001, (20.5, 5.5)
    lower = float(anytime_lower_bound(k, 100, alpha, *prior))
    assert exact_log_e_value(k, 100, lower, *prior) >= -mpmath.log(alpha)
    assert exact_log_e_value(k, 100, lower + 1e-9, *prior) < -mpmath.log(alpha)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.5, 256.5), (256.5, 0.5), (200.5, 56.5)])
@pytest.mark.parametrize("n", [0, 1, 50, 400])
def test_anytime_bounds_rise_with_the_successes_and_enclose_their_share(n, a, b):
    k = np.arange(n + 1)
    lower, upper = anytime_lower_bound(k, n, 0.01, a, b), 1 - anytime_lower_bound(n - k, n, 0.01, b, a)
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) >= 0).all()
    assert (lower <= k / max(n, 1)).all()
    assert (upper >= k / max(n, 1)).all()
    assert (lower[0], upper[-1]) == (0, 1)
    np.testing.assert_array_equal(lower * 2**53, np.floor(lower * 2**53), "1 - lower would be rounded")


def test_anytime_bounds_hold_at_all_looks_at_once():
    rng = np.random.default_rng(5)
    repetitions, alpha, p, prior, at = 2_000, 0.05, 0.9, (20.5, 5.5), checkpoints(10_000, growth=1.3)
    k = paths(rng, repetitions, at, [p, 1 - p])[0]
    pairs, inverse = np.unique(np.stack(np.broadcast_arrays(k, at)).reshape(2, -1), axis=1, return_inverse=True)
    hits, n = pairs
    lower = anytime_lower_bound(hits, n, alpha, *prior)
    upper = 1 - anytime_lower_bound(n - hits, n, alpha, *prior[::-1])
    np.testing.assert_array_equal(lower > p, log_e_value(*pairs, p, *prior) >= -np.log(alpha))
    for wrong in (lower > p, upper < p):
        failures = wrong[inverse].reshape(k.shape).any(axis=1).sum()
        assert alpha * repetitions / 8 <= failures <= most_false_alarms(repetitions, alpha)
    last = pairs[1] == at[-1]
    assert np.median((upper - lower)[last]) < 7 * math.sqrt(p * (1 - p) / at[-1])


def test_rejecting_a_margin_rejects_all_smaller_ones():
    """At priors that contradict the votes too, where the e-process of one null can rise with the null."""
    rng = np.random.default_rng(8)
    nulls = np.unique(np.concatenate([np.linspace(0.5, 0.999, 60), _GRID[:40], np.nextafter(_GRID[1:40], 0)]))
    rising = 0
    for _ in range(150):
        n = int(10 ** rng.uniform(1, 4))
        votes = rng.multinomial(n, rng.dirichlet([8, 1, 1]))
        prior = rng.multinomial(256, rng.dirichlet([8, 1, 1]))
        arguments = (votes[0], votes[1], n), nulls, (prior[0], prior[1], 256)
        rejected = rejects_margin(*arguments, 0.05)
        one_by_one = log_e_margin(*arguments) >= -np.log(0.05)
        assert (np.diff(rejected.astype(int)) <= 0).all()
        assert (rejected <= one_by_one).all()
        np.testing.assert_array_equal(rejected, np.logical_and.accumulate(rejected & one_by_one))
        assert rejected.sum() >= np.logical_and.accumulate(one_by_one).sum() - 2
        rising += (np.diff(one_by_one.astype(int)) > 0).any()
    assert rising, "no case in which the nulls below decide"


@pytest.mark.parametrize("probabilities", [[0.65, 0.15, 0.2], [0.4, 0.4, 0.1, 0.1]])
def test_one_alpha_covers_all_margins_at_all_checkpoints(probabilities):
    """No null above the true mean is ever rejected, in all but a share alpha of the repetitions."""
    rng, alpha, repetitions = np.random.default_rng(9), 0.05, 1_500
    at = checkpoints(3_000, growth=1.3, step=16)
    votes = paths(rng, repetitions, at, probabilities)
    selected = rng.multinomial(64, probabilities, size=repetitions)
    mean = (1 + probabilities[0] - max(probabilities[1:])) / 2
    false = np.zeros(repetitions, dtype=bool)
    for mu0 in mean + (1 - mean) * np.array([0, 0.02, 0.1, 0.3]):
        for i, n in enumerate(at):
            k_b = votes[1:, :, i].max(axis=0)
            prior = selected[:, 0], selected[:, 1:].max(axis=1), 64
            false |= rejects_margin((votes[0, :, i], k_b, n), mu0, prior, alpha)
    assert false.sum() <= most_false_alarms(repetitions, alpha)
    assert false.any()


@pytest.mark.parametrize("p0", [0.5, 0.75, 0.95])
def test_half_votes_lose_on_average(p0):
    """A vote for neither class counts 1/2: the next vote lowers the expected e-value, whatever the share of halves."""
    n, twice_k = np.tril_indices(41)
    k, n = twice_k / 2, (n + 1) // 2
    keep = k <= n
    k, n = k[keep], n[keep]
    now, *after = (
        np.exp(log_e_value(k + vote, n + later, p0, 3.5, 1.5)) for vote, later in [(0, 0), (1, 1), (0.5, 1), (0, 1)]
    )
    for halves in np.array([0.001, 0.3, 0.7, 1]) * 2 * (1 - p0):
        probabilities = np.array([p0 - halves / 2, halves, 1 - p0 - halves / 2])
        assert (probabilities @ np.array(after) <= now * (1 + 1e-12)).all()


def stopping_times(log_e, alpha):
    reached = log_e >= -np.log(alpha)
    assert reached.any(axis=1).all()
    return 1 + reached.argmax(axis=1)


@pytest.mark.parametrize(("p", "p0"), [(0.9, 0.75), (0.6, 0.5), (1, 0.5), (0.995, 0.9), (1, 0.9), (1, 0.99)])
def test_votes_needed_are_few(p, p0):
    """The likelihood ratio of p to p0 grows fastest, and reaches 1/alpha after ln(1/alpha) / KL(p, p0) on average."""
    alpha, rng, repetitions = 0.001, np.random.default_rng(6), 200 if p < 1 else 1
    misses = (1 - p) * math.log((1 - p) / (1 - p0)) if p < 1 else 0
    optimum = -math.log(alpha) / (p * math.log(p / p0) + misses)
    at = np.arange(1, math.ceil(5 * optimum))
    k = paths(rng, repetitions, at, [p, 1 - p])[0]
    selected = rng.binomial(SELECTION, p, size=(repetitions, 1))
    value = stopping_times(log_e_value(k, at, p0, selected + 0.5, SELECTION - selected + 0.5), alpha)
    margin = stopping_times(log_e_margin((k, at - k, at), p0, (selected, SELECTION - selected, SELECTION)), alpha)
    assert value.mean() <= 1.2 * optimum
    assert np.median(value) <= 1.15 * optimum
    assert margin.mean() <= 1.15 * value.mean()


@pytest.mark.parametrize("mu0", [0.5, 0.75, 0.999])
def test_some_bet_is_nearly_the_best(mu0):
    for others in (0, 0.3, 0.9):
        for excess in np.geomspace(1e-3, 1, 20):
            mean = mu0 + (1 - mu0) * excess
            other = min(others, 2 * (1 - mean))
            probabilities = np.array([mean - other / 2, 1 - mean - other / 2, other]).clip(0)

            def growth(logit, probabilities=probabilities):
                bet = expit(logit) / mu0
                return probabilities @ np.log1p([bet * (1 - mu0), -bet * mu0, bet * (0.5 - mu0)])

            best = minimize_scalar(lambda logit: -growth(logit), bounds=(-15, 30), method="bounded")
            assert max(map(growth, np.log(_BETS / (1 - _BETS)))) > 0.97 * -best.fun


@pytest.mark.parametrize(
    ("mu0", "probabilities"), [(0.5, [0.3, 0.1, 0.6]), (0.5, [0.7, 0.05, 0.25]), (0.75, [0.8, 0.05, 0.15])]
)
def test_votes_needed_against_a_rival_are_few(mu0, probabilities):
    """No bet makes wealth grow faster than the best fixed one."""
    alpha, rng, repetitions = 0.001, np.random.default_rng(7), 300
    outcomes = np.array([1, 0, 0.5]) - mu0
    best = minimize_scalar(
        lambda bet: -np.dot(probabilities, np.log1p(bet * outcomes)), bounds=(0, 1 / mu0 - 1e-6), method="bounded"
    )
    optimum = -math.log(alpha) / -best.fun
    at = np.arange(1, math.ceil(6 * optimum))
    votes = paths(rng, repetitions, at, probabilities)
    selected = rng.multinomial(SELECTION, probabilities, size=repetitions)[..., None]
    times = stopping_times(log_e_margin((*votes[:2], at), mu0, (selected[:, 0], selected[:, 1], SELECTION)), alpha)
    assert times.mean() <= 1.25 * optimum


def test_no_votes_are_no_evidence():
    """Before the first vote E is 1, rounded down."""
    for log_e in (
        log_e_value(0, 0, [0, 0.2, 0.5, 0.999], 0.5, 0.5),
        log_e_margin((0, 0, 0), [0.5, 0.9, 1], (10, 2, 16)),
    ):
        assert ((log_e > -1e-9) & (log_e < 0)).all()


def test_extreme_arguments_give_numbers_that_do_not_certify():
    k, n, p0, a, b = np.meshgrid(
        [0, 1, 999, 1_000], [1_000], [0, 1e-300, 0.5, 1 - 2**-53, 1], [0.5, 1, 1e4], [0.5, 1, 1e4]
    )
    log_e = log_e_value(k, n, p0, a, b)
    assert not np.isnan(log_e).any()
    assert (log_e < np.inf).all()
    assert (log_e[k <= n * p0] < 0).all()
    assert log_e_value(10**8, 10**8, 0.999, 0.5, 1_000.5) == -np.inf
    n_a, n_b, mu0, prior_a = np.meshgrid([0, 500, 1_000], [0, 500], [0.5, 0.999, 1], [0, 256])
    n_a = n_a - n_b * (n_a == 1_000)
    log_e = log_e_margin((n_a, n_b, 1_000), mu0, (prior_a, 256 - prior_a, 256))
    assert np.isfinite(log_e).all()
    assert (log_e[mu0 == 1] < 0).all()
    assert log_e_margin((10**8, 0, 10**8), 0.5, (256, 0, 256)) > 6e7


def test_arguments_broadcast():
    k = np.array([[80], [90]])
    assert log_e_value(k, 100, [0.5, 0.6, 0.7], 0.5, 0.5).shape == (2, 3)
    assert log_e_margin((k, 3, 100), [0.5, 0.6, 0.7], (10, 1, 16)).shape == (2, 3)
    assert anytime_lower_bound(k, 100, 0.05, [0.5, 1, 2], 0.5).shape == (2, 3)
    assert log_e_value(1, 2, 0.5, 1, 1).shape == ()


@pytest.mark.parametrize(("growth", "step"), [(1.1, 16), (1.5, 16), (2, 64), (1.0001, 100), (1.1, 1)])
@pytest.mark.parametrize("n_samples", [1, 15, 16, 17, 100, 10_000])
def test_looks(n_samples, growth, step):
    at = checkpoints(n_samples, growth, step)
    assert at.dtype == np.int64
    assert (at[0], at[-1]) == (min(step, n_samples), n_samples)
    assert (at[:-1] % step == 0).all()
    between = np.diff(at[:-1])
    assert (between > 0).all()
    assert at[-1] > at[-2:-1].sum() or len(at) == 1
    assert (np.abs(between - (growth - 1) * at[:-2])[between > step] <= step / 2 + 1e-9).all()


def test_looks_are_few():
    assert len(checkpoints(100_000)) < 150
    assert len(checkpoints(100_000, growth=1.1, step=16)) < 90
    assert checkpoints(10).tolist() == [4, 8, 10]
