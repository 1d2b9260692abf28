import numpy as np
import pytest
from scipy.stats import beta

from smoothcert.certify.betting import checkpoints
from smoothcert.certify.binomial import class_probabilities
from smoothcert.certify.futility import is_futile

ALPHA = 0.0001


def play(shares, required, n_samples, size, alpha=ALPHA, growth=1.3):
    """Which inputs the last checkpoint certifies, after how many votes each is given up, and whether it is at all."""
    rng, rivals_apart = np.random.default_rng(0), len(shares) > 2
    counts, n, given_up = np.zeros((size, len(shares)), dtype=int), 0, np.full(size, n_samples)
    for look in checkpoints(n_samples, growth, 16):
        counts, n = counts + rng.multinomial(look - n, shares, size=size), look
        k_a, k_b = counts[:, 0], counts[:, 1:].max(axis=1)
        futile = is_futile(k_a, k_b, n, n_samples, required, alpha=alpha, rivals_apart=rivals_apart)
        given_up = np.where(futile, np.minimum(given_up, look), given_up)
    top = np.zeros(size, dtype=int)
    p_a, p_b = class_probabilities(counts, top, scheme="multiclass", bound="clopper-pearson", alpha=alpha)
    np.testing.assert_array_equal(futile, p_a - p_b < 2 * required - 1, "the last checkpoint knows")
    return ~futile, given_up


def near(p_a, n_rivals, required, n_samples, deviations):
    """Shares whose margin is above the required one, by so many standard deviations of its estimate."""
    p_b = (1 - p_a) / n_rivals
    spread = np.sqrt(p_a + p_b - (p_a - p_b) ** 2) if n_rivals > 1 else 2 * np.sqrt(required * (1 - required))
    excess = (2 * required - 1 + deviations * spread / np.sqrt(n_samples) - (p_a - p_b)) * n_rivals / (n_rivals + 1)
    return [p_a + excess, *[p_b - excess / n_rivals] * n_rivals]


@pytest.mark.parametrize(("p_a", "n_rivals", "deviations"), [(0.75, 1, 4.2), (0.55, 9, 5.2), (0.65, 2, 4.5)])
def test_giving_up_costs_few_certificates(p_a, n_rivals, deviations):
    """Where about half of the inputs are certified: the loss is largest there."""
    certified, given_up = play(near(p_a, n_rivals, 0.75, 10_000, deviations), 0.75, 10_000, 1500)
    assert 0.3 < certified.mean() < 0.95
    assert (certified & (given_up < 10_000)).mean() < 0.04


@pytest.mark.parametrize(("p_a", "n_rivals", "share_of_votes"), [(0.75, 1, 0.45), (0.55, 9, 0.28), (0.65, 2, 0.5)])
def test_inputs_at_the_threshold_are_given_up_before_the_cap(p_a, n_rivals, share_of_votes):
    _, given_up = play(near(p_a, n_rivals, 0.75, 100_000, 0), 0.75, 100_000, 200)
    assert given_up.mean() < share_of_votes * 100_000


@pytest.mark.parametrize("shares", [[0.6, 0.4], [0.5, 0.25, 0.25], [0.3, *[0.1] * 7]])
def test_inputs_far_below_the_threshold_are_given_up_at_once(shares):
    _, given_up = play(shares, 0.9, 10_000, 500)
    assert np.mean(given_up) < 100


@pytest.mark.parametrize("shares", [[0.97, 0.03], [0.9, *[0.02] * 5], [0.6, *[0.01] * 40], [0.4, *[0.005] * 120]])
def test_inputs_above_the_threshold_are_not_given_up(shares):
    margin = shares[0] - shares[1]
    certified, given_up = play(shares, (1 + 0.85 * margin) / 2, 10_000, 500)
    assert certified.all()
    assert (given_up < 10_000).mean() < 0.005


def test_what_unanimous_votes_would_not_certify_is_given_up_at_once():
    largest = ALPHA ** (1 / 10_000)
    votes = np.array([16]), np.array([0]), np.array([16]), 10_000
    for required, futile in ((largest - 1e-9, False), (largest + 1e-9, True), (1.0, True), (np.inf, True)):
        assert is_futile(*votes, required, alpha=ALPHA, rivals_apart=False) == [futile]
    assert is_futile(*votes, np.inf, alpha=ALPHA, rivals_apart=True) == [True]


def test_small_levels_are_known():
    votes = np.array([14]), np.array([2]), np.array([16]), 3000
    for rivals_apart in (False, True):
        assert not is_futile(*votes, 0.5, alpha=1e-99, rivals_apart=rivals_apart)
        assert is_futile(*votes, 0.99, alpha=1e-99, rivals_apart=rivals_apart)


def final(k, share, n, n_samples, deviation):
    """The votes at the end, 2.8 standard deviations better than expected, and never fewer than now."""
    left = n_samples - n
    luck = 2.8 * deviation * np.sqrt(left + left**2 / n)
    return min(max(k + left * share + luck, k), k + left)


@pytest.mark.parametrize(("k_a", "k_b", "n"), [(55, 45, 100), (80, 8, 100), (300, 100, 1000), (3, 0, 4), (0, 3, 16)])
@pytest.mark.parametrize("rivals_apart", [False, True])
def test_the_largest_probability_that_is_hoped_for(k_a, k_b, n, rivals_apart):
    """The formula of the module in scalars: by the share of A, or by its margin to the strongest rival."""
    n_samples, alpha = 3000, 0.001
    a, b = (k_a + 4) / (n + 8), (k_b - min(np.sqrt(k_b), k_b) + 0.5) / (n + 1)
    best = np.ceil(final(k_a, a, n, n_samples, np.sqrt(a * (1 - a))))
    level = alpha / 2 if rivals_apart else alpha
    hoped_for = beta.ppf(level, best, n_samples - best + 1)
    if rivals_apart:
        spread = np.sqrt(a + b - (a - b) ** 2)
        best_a = np.ceil(final(k_a, a, n, n_samples, a * (1 - a + b) / spread))
        best_b = np.floor(final(k_b, b, n, n_samples, -b * (1 + a - b) / spread))
        p_a, p_b = beta.ppf(level, best_a, n_samples - best_a + 1), beta.ppf(1 - level, best_b + 1, n_samples - best_b)
        hoped_for = max(hoped_for, (1 + p_a - p_b) / 2)
    required = np.array([hoped_for - 1e-7, hoped_for + 1e-7, 1.5, 0.0])
    votes = [np.full(4, k) for k in (k_a, k_b, n)]
    found = is_futile(*votes, n_samples, required, alpha=alpha, rivals_apart=rivals_apart)
    assert found.tolist() == [False, True, True, False]
