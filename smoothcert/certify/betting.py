"""Tests and bounds that hold at every stopping time: vote counts in, e-values out. Pure functions of arrays.

An e-process is the wealth of a gambler who bets against the null hypothesis. Under the null, the expected wealth does
not grow, so the wealth ever reaches 1/alpha with probability at most alpha (Ville's inequality). A test that rejects
at wealth 1/alpha may therefore look after every vote and stop at any time. Bets must not depend on the votes they are
placed on. Here they depend on the selection votes, which are independent of the estimation votes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaln, expit, xlog1py, xlogy

from .binomial import FloatArray, bisect_unit

#: Numbers of votes for class A, for a rival B and in total, such as a `Duel`.
Counted = tuple[ArrayLike, ArrayLike, ArrayLike]

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)

#: Probabilities below this count as 0: some results of betaincc below 1e-250 have no correct digit in SciPy 1.12.
_SMALLEST_MASS = 1e-200

#: Bets, as shares of the largest bet that cannot lose more than the wealth. They are evenly spaced on the logistic
#: scale, so the distance to either end grows by a constant factor. For all vote probabilities, one of these bets makes
#: wealth grow at 97 % of the best rate or more, unless that rate needs more than 10**8 votes to be noticed.
_BETS = expit(np.linspace(-9, 5, 43))

#: Grid of null means, from 1/2 to almost 1. Eight cells halve the distance to 1.
_GRID = 1 - 0.5 ** (1 + np.arange(8 * 50) / 8)


def log_e_value(k: ArrayLike, n: ArrayLike, p0: ArrayLike, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Natural logarithm of the e-process against the null hypothesis that votes have mean at most ``p0``.

    The e-value is the likelihood ratio of p to ``p0``, averaged over a Beta prior of p that is truncated to p > ``p0``.

    Parameters
    ----------
    k, n : array-like of float
        Sum of the votes and number of votes so far. A vote is a number from 0 to 1: 1 for a success, 0 for a failure,
        and for instance 1/2 for a vote that is neither.
    p0 : array-like of float
        Largest mean under the null, from 0 to 1. The null ``p0`` = 1 is true and never rejected.
    a, b : array-like of float
        Parameters of the prior, above 0: for instance 1/2 plus the successes and failures among other votes.

    Returns
    -------
    log_e : ndarray
        Rounded down, and -inf where the prior or the posterior has a mass below 1e-200 above ``p0``. Reject the null
        where ``log_e`` is at least ln(1/alpha).

    See Also
    --------
    log_e_margin : More powerful where many votes are neither success nor failure.
    anytime_lower_bound : The largest null that is rejected.

    References
    ----------
    Ville, "Etude critique de la notion de collectif", 1939.
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024.

    Examples
    --------
    >>> log_e_value([80, 90, 100], 100, 0.75, 26, 6).round(2)
    array([ 0.07,  6.1 , 19.92])
    """
    # Why votes between 0 and 1 may enter: for p > p0, a vote x multiplies the likelihood ratio by
    # (p / p0)**x ((1 - p) / (1 - p0))**(1 - x). This is convex in x, so it lies below its chord from x = 0 to x = 1,
    # which is 1 + (p - p0)(x - p0) / (p0 (1 - p0)). The chord is the factor of a bet on x. Its expectation is at most 1
    # if x has mean at most p0. So each ratio is below an e-process, and so is their average.
    k, n, a, b = (np.asarray(value, dtype=np.float64) for value in (k, n, a, b))
    # The null of a larger p0 includes that of p0 = 0, and has finite logarithms.
    p0 = np.maximum(np.asarray(p0, dtype=np.float64), _TINY)
    misses = n - k
    prior_mass, mass = betaincc(a, b, p0), betaincc(a + k, b + misses, p0)
    prior_norm, total = betaln(a, b), a + b + n
    with np.errstate(divide="ignore", invalid="ignore"):
        log_null = xlogy(k, p0) + xlog1py(misses, -p0)
        log_e = betaln(a + k, b + misses) - prior_norm + np.log(mass) - np.log(prior_mass) - log_null
        # betaln sums three log-gammas. Each is at most total * ln(total), or |prior_norm| for a prior near 0, with an
        # error of a few rounding units (3 eps is the largest seen). Each term of log_null has an error of 2 units, both
        # masses of 40 eps (total * eps in SciPy 1.12). The constant exceeds the rounding error of ln(1/alpha).
        error = _EPS * (32 * (total * np.log(total + 3) + np.abs(prior_norm) + np.abs(log_null)) + 1024)
        known = np.minimum(prior_mass, mass) > _SMALLEST_MASS
        return np.where(known, log_e - error, -np.inf)


def log_e_margin(votes: Counted, mu0: ArrayLike, prior: Counted) -> FloatArray:
    """Natural logarithm of an e-process against the null hypothesis that (1 + pA - pB) / 2 is at most ``mu0``.

    A vote X is 1 for class A, 0 for its rival B and 1/2 for any other class. A bet c from 0 to 1 multiplies wealth by
    1 + c (X - mu0) / mu0. The e-value is the total wealth of a fixed set of bets. The initial wealth is shared among
    the bets in proportion to the wealth that each would have made on the selection votes.

    The value falls as the votes for B rise, for the same votes for A and in total. Hence the rival with the most votes
    has the smallest value of all rivals. If this value is at least 1/alpha, every rival is rejected. The error
    probability is at most alpha without a correction for the number of rivals, because an error includes a false
    rejection for one fixed rival, the most probable one. The rival with the most votes may change between checkpoints.

    Parameters
    ----------
    votes : tuple of three array-like of int
        Votes so far for A, for B and in total.
    mu0 : array-like of float
        Largest mean under the null, from 1/2 to 1. The null ``mu0`` = 1 is true and never rejected.
    prior : tuple of three array-like of int
        Selection votes for A, for its strongest rival there and in total; the same for all rivals.

    Returns
    -------
    log_e : ndarray
        Rounded down. Reject the null where ``log_e`` is at least ln(1/alpha).

    See Also
    --------
    rejects_margin : Also rejects all smaller nulls, as tests of several radii on the same votes need.

    References
    ----------
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024.

    Examples
    --------
    >>> log_e_margin((90, [0, 5, 10], 100), 0.75, (25, 3, 30)).round(2)
    array([16.67, 10.27,  6.3 ])
    """
    start = _GRID[np.searchsorted(_GRID, mu0, side="right") - 1]
    return _log_wealth(votes, mu0, start, prior)


def _log_wealth(votes: Counted, mu0: ArrayLike, start: ArrayLike, prior: Counted) -> FloatArray:
    """Return the logarithm of the wealth of bets against ``mu0``, with the stakes of the null ``start``."""
    values = [np.asarray(value, dtype=np.float64) for value in (*votes, mu0, start, *prior)]
    nulls = np.broadcast(*values)
    n_a, n_b, n, mu0, start, prior_a, prior_b, prior_n = values
    column = _BETS.reshape(-1, *[1] * nulls.ndim)
    log_stakes = log_wealth = np.asarray(-np.inf)
    # All bets at once are faster for few nulls; one after another, they take less memory for many.
    for bets in [column] if nulls.size < 1000 else column[:, None]:
        # Without selection votes, stakes follow the arcsine law. It is heavy at both ends, where bets are close.
        stakes = np.log(bets * (1 - bets)) / 2 + _log_factor(bets, start, prior_a, prior_b, prior_n)
        wealth = stakes + _log_factor(bets, mu0, n_a, n_b, n)
        log_stakes = np.logaddexp(log_stakes, np.logaddexp.reduce(stakes, axis=0, initial=None))
        log_wealth = np.logaddexp(log_wealth, np.logaddexp.reduce(wealth, axis=0, initial=None))
    # The logarithm of a vote's factor is at most 5.1, so sums are at most 5.1 (n + prior_n) + 10. The error for each
    # bet is 10 eps of this, and 1 eps for each addition to the two totals. Errors of stakes do not matter as long as
    # the stakes add up to 1.
    error = _EPS * 5.1 * (10 + 2 * len(_BETS)) * (n + prior_n + 10)
    return np.asarray(log_wealth - log_stakes - error)


def _log_factor(bet: FloatArray, mu0: FloatArray, n_a: FloatArray, n_b: FloatArray, n: FloatArray) -> FloatArray:
    """Return the logarithm of the factor by which votes multiply the wealth of a bet."""
    win, draw, loss = np.log1p(bet * (1 - mu0) / mu0), np.log1p(-bet * (mu0 - 0.5) / mu0), np.log1p(-bet)
    return np.asarray(n_a * win + n_b * loss + (n - n_a - n_b) * draw)


def rejects_margin(votes: Counted, mu0: ArrayLike, prior: Counted, alpha: float) -> NDArray[np.bool_]:
    """Tell whether all null hypotheses that (1 + pA - pB) / 2 is at most mu are rejected, for all mu up to ``mu0``.

    One alpha covers all ``mu0`` tested on the same votes, at all numbers of votes.

    Parameters
    ----------
    votes, mu0, prior
        As in `log_e_margin`.
    alpha : float
        Probability, for all ``mu0`` and numbers of votes together, that a true null is rejected.

    Returns
    -------
    rejected : ndarray of bool

    See Also
    --------
    log_e_margin : The e-process of one null.

    Examples
    --------
    >>> rejects_margin((90, 5, 100), [0.6, 0.7, 0.8], (25, 3, 30), 0.001)
    array([ True,  True, False])
    """
    # The stakes are the same for all nulls within a cell of the grid, and a bet's factor 1 - c + c X / mu falls as mu
    # rises. So within a cell the wealth falls too, and its infimum is the wealth at the end of the cell. Rejecting mu0
    # takes wealth 1/alpha at mu0 and at the end of every cell below it. Then the e-process of the true mean m <= mu0
    # has reached 1/alpha, for whichever mu0 was tested: an event of probability alpha or less (Ville).
    threshold = -np.log(alpha)
    log_e = log_e_margin(votes, mu0, prior)
    rejected = np.array(log_e >= threshold)
    nulls, *counts = (np.broadcast_to(value, log_e.shape) for value in (mu0, *votes, *prior))
    for start, end in pairwise(_GRID):
        rejected_here = rejected & (nulls >= end)
        if not rejected_here.any():
            break
        n_a, n_b, n, *prior_here = (value[rejected_here] for value in counts)
        rejected[rejected_here] = _log_wealth((n_a, n_b, n), end, start, tuple(prior_here)) >= threshold
    return rejected


def anytime_lower_bound(k: ArrayLike, n: ArrayLike, alpha: float, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Lower confidence bound on a mean, valid at all numbers of votes at once.

    The bound ever exceeds the mean with probability at most ``alpha``.

    Parameters
    ----------
    k, n : array-like of float
        Sum of the votes and number of votes so far, as in `log_e_value`.
    alpha : float
        One-sided level, for all numbers of votes together.
    a, b : array-like of float
        Parameters of the Beta prior, the same at all numbers of votes and independent of these votes.

    Returns
    -------
    lower : ndarray
        A multiple of 2**-53, so that ``1 - lower`` is exact.

    See Also
    --------
    clopper_pearson : Larger, but valid only for a number of votes fixed in advance.

    References
    ----------
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024.

    Examples
    --------
    >>> anytime_lower_bound([90, 900, 9_000], [100, 1_000, 10_000], 0.001, 0.5, 0.5).round(4)
    array([0.7363, 0.8545, 0.8859])
    """
    # The rejected p0 form an interval from 0, because E falls as p0 rises to k/n and is at most 1 beyond, where no
    # p > p0 is likelier than p0. Proof: with u = ln p0, let h be the hazard of the prior and s > 0 the slope of the
    # log-likelihood. The derivative of ln E is h (1 - 1/E) - s, which is negative if s >= h. Otherwise, the
    # log-likelihood is concave in u, so the likelihood ratio at distance x above u is at most exp(s x). The log-density
    # of the prior, a u + (b - 1) ln(1 - exp(u)) plus a constant, is concave or (for b < 1) increasing, so h increases
    # with u and x is stochastically smaller than an exponential variable of rate h. Hence E <= h / (h - s), and the
    # derivative is at most 0.
    threshold = -np.log(alpha)
    shape = np.broadcast_shapes(*(np.shape(value) for value in (k, n, alpha, a, b)))
    return bisect_unit(lambda p0: log_e_value(k, n, p0, a, b) >= threshold, shape)


def checkpoints(n_samples: int, growth: float = 1.0625, step: int = 4) -> NDArray[np.int64]:
    """Return the numbers of votes at which a sequential test looks: multiples of ``step``, and ``n_samples`` last.

    Parameters
    ----------
    n_samples : int
        Number of votes after which the test ends.
    growth : float
        Approximate factor from one checkpoint to the next.
    step : int
        First checkpoint; all checkpoints except the last are multiples of it.

    Examples
    --------
    >>> checkpoints(200, growth=1.5, step=16)
    array([ 16,  32,  48,  64,  96, 144, 200])
    """
    at, sizes = step, []
    while at < n_samples:
        sizes.append(at)
        at = max(at + step, round(at * growth / step) * step)
    return np.array([*sizes, n_samples], dtype=np.int64)
