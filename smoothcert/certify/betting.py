"""Tests and bounds that hold at every stopping time: vote counts in, e-values out. Pure functions of arrays.

An e-process is the wealth of a gambler who bets against the null hypothesis, votes being the outcomes. Under the null,
wealth is expected not to grow, so it ever reaches 1/alpha with probability at most alpha (Ville's inequality): one may
look at any moment and stop at the first at which it has. What is bet must not depend on the votes that decide the bets;
priors come from other votes, here those that selected the class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaln, expit, xlog1py, xlogy

from .binomial import FloatArray

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)

#: Probabilities below this count as 0: betaincc of SciPy 1.12 has no right digit in some below 1e-250.
_SMALLEST_MASS = 1e-200

#: Bets as shares of the wealth, i.e. of the largest bet that cannot lose more than all. Evenly spaced on the logistic
#: scale, so that the distance to either end grows by a constant factor: whatever the votes, some bet makes their wealth
#: grow at 97 % of the largest rate or more, if that is not so small that it would take more than 10**8 votes to notice.
_BETS = expit(np.linspace(-9, 5, 43))


def log_e_value(k: ArrayLike, n: ArrayLike, p0: ArrayLike, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Natural logarithm of the e-process against the null hypothesis that successes have probability at most ``p0``.

    It is the likelihood ratio of p to ``p0``, averaged over a Beta prior of p that is truncated to p > ``p0``.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials so far.
    p0 : array-like of float
        Largest probability under the null, from 0 to 1. At 1 the null is true, and never rejected.
    a, b : array-like of float
        Parameters of the prior, above 0: for instance 1/2 plus the successes and failures among other trials.

    Returns
    -------
    log_e : ndarray
        Never above the exact value, though that is rounded; -inf where prior or posterior have hardly any mass
        (1e-200) above ``p0``. Reject where it is at least ln(1/alpha).

    Examples
    --------
    >>> log_e_value([80, 90, 100], 100, 0.75, 26, 6).round(2)
    array([ 0.07,  6.1 , 19.92])
    """
    k, n, a, b = (np.asarray(value, dtype=np.float64) for value in (k, n, a, b))
    # The null of a larger p0 includes that of 0, and has finite logarithms.
    p0 = np.maximum(np.asarray(p0, dtype=np.float64), _TINY)
    misses = n - k
    prior_mass, mass = betaincc(a, b, p0), betaincc(a + k, b + misses, p0)
    prior_norm, total = betaln(a, b), a + b + n
    with np.errstate(divide="ignore", invalid="ignore"):
        log_null = xlogy(k, p0) + xlog1py(misses, -p0)
        log_e = betaln(a + k, b + misses) - prior_norm + np.log(mass) - np.log(prior_mass) - log_null
        # A betaln sums three log-gammas of at most total ln(total), or |prior_norm| for a prior near 0, each right to a
        # few units of rounding (as is its argument); 3 eps of that size is the largest error seen. The terms of
        # log_null are right to 2 units each, both masses to 40 eps (of SciPy 1.12: total eps). The constant exceeds
        # the rounding of ln(1/alpha).
        error = _EPS * (32 * (total * np.log(total + 3) + np.abs(prior_norm) + np.abs(log_null)) + 1024)
        known = np.minimum(prior_mass, mass) > _SMALLEST_MASS
        return np.where(known, log_e - error, -np.inf)


def log_e_margin(
    n_a: ArrayLike,
    n_b: ArrayLike,
    n: ArrayLike,
    mu0: ArrayLike,
    prior_a: ArrayLike,
    prior_b: ArrayLike,
    prior_n: ArrayLike,
) -> FloatArray:
    """Natural logarithm of an e-process against the null hypothesis that (1 + pA - pB) / 2 is at most ``mu0``.

    A vote X is 1 for class A, 0 for its rival B and 1/2 for any other class. A bet ``lam`` multiplies wealth by
    1 + lam (X - mu0); the process is the wealth from a fixed set of bets, among which the first stake is divided by the
    wealth that each would have made on the votes of the selection.

    The value falls as ``n_b`` rises at the same ``n_a`` and ``n``. The rival with the most votes thus has the smallest
    of all rivals' values, and if that is at least 1/alpha every rival is rejected: at level alpha, for A is wrong only
    if one certain rival is wrongly rejected. Which rival has the most votes may change from one look to the next.

    Parameters
    ----------
    n_a, n_b, n : array-like of int
        Votes so far for A, for B and in all.
    mu0 : array-like of float
        Largest mean under the null, from 1/2 to 1. At 1 the null is true, and never rejected.
    prior_a, prior_b, prior_n : array-like of int
        Votes of the selection for A, for its strongest rival there and in all, for all rivals alike.

    Returns
    -------
    log_e : ndarray
        Never above the exact value, though that is rounded. Reject where it is at least ln(1/alpha).

    Examples
    --------
    >>> log_e_margin(90, [0, 5, 10], 100, 0.75, 25, 3, 30).round(2)
    array([16.67, 10.27,  6.3 ])
    """
    n_a, n_b, n, mu0, prior_a, prior_b, prior_n = (
        np.asarray(value, dtype=np.float64) for value in (n_a, n_b, n, mu0, prior_a, prior_b, prior_n)
    )
    log_stakes = log_wealth = np.asarray(-np.inf)
    for bet in _BETS:
        win, draw, loss = np.log1p(bet * (1 - mu0) / mu0), np.log1p(-bet * (mu0 - 0.5) / mu0), np.log1p(-bet)
        # Before the selection, stakes have the arcsine law: heavy at both ends, where bets are hard to tell apart.
        log_stake = prior_a * win + prior_b * loss + (prior_n - prior_a - prior_b) * draw
        log_stake = log_stake + np.log(bet * (1 - bet)) / 2
        log_stakes = np.logaddexp(log_stakes, log_stake)
        log_wealth = np.logaddexp(log_wealth, log_stake + n_a * win + n_b * loss + (n - n_a - n_b) * draw)
    # The logarithm of a vote's factor is at most 5.1, so that sums are at most 5.1 (n + prior_n) + 10. Each bet's is
    # right to 10 eps of this, each addition to the two totals to 1 eps. Stakes need not be right, only add up to 1.
    error = _EPS * 5.1 * (10 + 2 * len(_BETS)) * (n + prior_n + 10)
    return np.asarray(log_wealth - log_stakes - error)


def anytime_lower_bound(k: ArrayLike, n: ArrayLike, alpha: float, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Lower bound on a probability that ever exceeds it, at any number of trials, with probability at most ``alpha``.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials so far.
    alpha : float
        One-sided level, for all checkpoints together.
    a, b : array-like of float
        Parameters of the Beta prior, the same at all checkpoints and independent of these trials.

    Examples
    --------
    >>> anytime_lower_bound([90, 900, 9_000], [100, 1_000, 10_000], 0.001, 0.5, 0.5).round(4)
    array([0.7363, 0.8545, 0.8859])
    """
    # E falls as p0 rises to k/n, and is at most 1 beyond, where no p > p0 is likelier than p0. In u = ln p0 let h be
    # the prior's hazard and s > 0 the slope of the log-likelihood: the derivative of ln E is h (1 - 1/E) - s. That is
    # negative if s >= h. Else, the log-likelihood is concave in u, so its ratio at distance x above p0 is at most
    # exp(s x); and h increases with u, since the prior's log-density, a u + (b - 1) ln(1 - exp(u)) and a constant, is
    # concave or (b < 1) increasing, so x is stochastically smaller than an exponential variable of rate h. Hence
    # E <= h / (h - s), and the derivative is at most 0.
    threshold = -np.log(alpha)
    shape = np.broadcast_shapes(*(np.shape(value) for value in (k, n, alpha, a, b)))
    low, high = np.zeros(shape), np.ones(shape)
    # All middles are multiples of 2**-53, so that 1 - low is exact. One bracket for all keeps bounds in order of k.
    for _ in range(53):
        middle = (low + high) / 2
        rejected = log_e_value(k, n, middle, a, b) >= threshold
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def anytime_upper_bound(k: ArrayLike, n: ArrayLike, alpha: float, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Upper bound on a probability: 1 minus the lower bound of the failures, whose prior is Beta(b, a).

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials so far.
    alpha : float
        One-sided level, for all checkpoints together.
    a, b : array-like of float
        Parameters of the Beta prior, the same at all checkpoints and independent of these trials.

    Examples
    --------
    >>> anytime_upper_bound([10, 100, 1_000], [100, 1_000, 10_000], 0.001, 0.5, 0.5).round(4)
    array([0.2637, 0.1455, 0.1141])
    """
    return 1 - anytime_lower_bound(np.asarray(n) - np.asarray(k), n, alpha, b, a)


def checkpoints(n_samples: int, growth: float = 1.1, step: int = 16) -> NDArray[np.int64]:
    """Numbers of votes at which a sequential test looks at them: multiples of ``step``, and ``n_samples`` last.

    Parameters
    ----------
    n_samples : int
        Votes after which the test ends.
    growth : float
        Factor from one look to the next, about.
    step : int
        First look, and what the others but the last are multiples of.

    Examples
    --------
    >>> checkpoints(200, growth=1.5)
    array([ 16,  32,  48,  64,  96, 144, 200])
    """
    at, sizes = step, []
    while at < n_samples:
        sizes.append(at)
        at = max(at + step, round(at * growth / step) * step)
    return np.array([*sizes, n_samples], dtype=np.int64)
