"""Confidence bounds: vote counts in, one-sided bounds on probabilities out. Pure functions of arrays."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from .._utils.checks import check_choice, check_open_unit

FloatArray = NDArray[np.float64]
LowerBound = Callable[[ArrayLike, Any, float], FloatArray]

#: Relative error that SciPy's binomial tails may have, generously: 2e-11 was the largest found for n up to 10**8.
TAIL_ERROR = 1e-10


def clopper_pearson(k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Lower bound on a binomial probability, exceeding it with probability at most ``alpha``.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials.
    alpha : float
        One-sided level.

    Examples
    --------
    >>> float(clopper_pearson(10_000, 10_000, 0.001).round(6))
    0.999309
    """
    k, n = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    found, some = np.zeros(k.shape), k > 0
    k, n, target = k[some], n[some], alpha * (1 - TAIL_ERROR)
    # The quantile is a guess, which root finding may get wrong. What counts is the tail P(X >= k) there: it must be
    # below alpha by more than its own error, and not needlessly far.
    with np.errstate(all="ignore"):
        lower = betaincinv(k, n - k + 1, target)
    tail = betainc(k, n - k + 1, lower)
    poor = ~((lower > 0) & (tail <= alpha * (1 - TAIL_ERROR / 2)) & (tail > alpha * (1 - 1e-6)))
    if poor.any():
        lower[poor] = _bisect_tail(k[poor], n[poor], target)
    found[some] = lower
    return found


def _bisect_tail(k: FloatArray, n: FloatArray, target: float) -> FloatArray:
    """Return, by bisection of its logarithm, the largest p at which P(X >= k) is at most ``target``."""
    low, high = np.full(k.shape, math.log(np.finfo(np.float64).tiny)), np.zeros(k.shape)
    for _ in range(80):
        middle = (low + high) / 2
        below = betainc(k, n - k + 1, np.exp(middle)) <= target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    # At the lowest end of all there is no telling.
    lower: FloatArray = np.exp(low)
    return np.where(betainc(k, n - k + 1, lower) <= target, lower, 0.0)


def randomized_clopper_pearson(k: ArrayLike, n: ArrayLike, alpha: float, uniforms: ArrayLike) -> FloatArray:
    """Lower bound on a binomial probability, exceeding it with probability exactly ``alpha`` (Stevens 1950).

    Counts are discrete, so the bound of Clopper and Pearson is wrong less often than it may be. An auxiliary uniform
    number, independent of the count, makes up for it: the bound solves P(X > k) + u P(X = k) = alpha.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials.
    alpha : float
        One-sided level.
    uniforms : array-like of float
        The u of each count; 1 gives Clopper and Pearson's bound.

    Examples
    --------
    >>> randomized_clopper_pearson([90, 90], 100, 0.05, [1.0, 0.5]).round(4)
    array([0.8363, 0.8415])
    """
    k, n, uniforms = np.broadcast_arrays(np.asarray(k), np.asarray(n), np.asarray(uniforms, dtype=np.float64))
    low, high = np.zeros(k.shape), np.ones(k.shape)
    # P(X > n) is 0 and P(X >= 0) is 1: no Beta distribution stands for them. The lower end is returned, at which the
    # sum is below alpha by more than the error of its terms.
    for _ in range(60):
        middle = (low + high) / 2
        above = np.where(k < n, betainc(k + 1, np.maximum(n - k, 1), middle), 0.0)
        at_least = np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, middle), 1.0)
        exceeds = (1 - uniforms) * above + uniforms * at_least > alpha * (1 - TAIL_ERROR)
        low, high = np.where(exceeds, low, middle), np.where(exceeds, middle, high)
    return np.maximum(low, clopper_pearson(k, n, alpha))


def hoeffding(k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Lower bound k/n - sqrt(ln(1/alpha) / (2n)) on a binomial probability (Theorem B.1); at least 0.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials.
    alpha : float
        One-sided level.

    Examples
    --------
    >>> float(hoeffding(10_000, 10_000, 0.001).round(6))
    0.981415
    """
    n = np.asarray(n, dtype=np.float64)
    # A share and a width are right to 3 units of rounding of at most 1 + width each.
    width = np.sqrt(-np.log(alpha) / (2 * n))
    return np.maximum(np.asarray(k) / n - width - 2**-50 * (1 + width), 0.0)


#: Lower bounds by name; every upper bound is the lower bound of the complement. The randomised one is never below the
#: bound it is listed with, to which its auxiliary numbers are added.
BOUNDS: dict[str, LowerBound] = {
    "clopper-pearson": clopper_pearson,
    "randomized-clopper-pearson": clopper_pearson,
    "hoeffding": hoeffding,
}

#: Confidence levels below this are beyond what the bounds are accurate for.
SMALLEST_LEVEL = 1e-100

#: Schemes of certification (section 2.4 of the paper).
SCHEMES = ("multiclass", "binary")


def upper_bound(lower: LowerBound, k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Upper bound on a binomial probability: 1 minus the lower bound of the failures."""
    # 1 - p may round down by half a unit: the next float is above it.
    return np.minimum(np.nextafter(1 - lower(np.asarray(n) - np.asarray(k), n, alpha), 2.0), 1.0)


def class_probabilities(
    counts: NDArray[np.int64],
    top: NDArray[np.intp],
    *,
    scheme: str,
    bound: str,
    alpha: float,
    uniforms: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Bound the probability of class A from below and of every other class from above (Algorithm 1).

    Parameters
    ----------
    counts : ndarray of shape (n_inputs, n_classes)
        Votes of the estimation stage.
    top : ndarray of shape (n_inputs,)
        Class A of each input, chosen from other votes.
    scheme : {"multiclass", "binary"}
        "multiclass" spends alpha/2 on each of the two probabilities; "binary" spends alpha on p_a and takes
        p_b = 1 - p_a. With two classes they are one; a single class has no rival.
    bound : {"clopper-pearson", "randomized-clopper-pearson", "hoeffding"}
    alpha : float
        Probability, for each input, that the bounds fail.
    uniforms : ndarray of shape (n_inputs, 2), optional
        Auxiliary numbers of the randomised bound, independent of the counts.

    Returns
    -------
    p_a, p_b : ndarray of shape (n_inputs,)
    """
    if counts.shape[1] == 1:
        return np.ones(len(counts)), np.zeros(len(counts))
    lower_a = lower_b = BOUNDS[bound]
    if bound == "randomized-clopper-pearson":
        if uniforms is None:
            raise ValueError("bound='randomized-clopper-pearson' needs uniforms: two numbers for each input.")
        lower_a, lower_b = (partial(randomized_clopper_pearson, uniforms=column) for column in uniforms.T)
    rows = np.arange(len(counts))
    n = counts.sum(axis=1)
    count_a = counts[rows, top]
    p_a = lower_a(count_a, n, _level(counts.shape[1], scheme, alpha))
    if _one_versus_all(counts.shape[1], scheme):
        return p_a, 1 - p_a
    rivals = counts.copy()
    rivals[rows, top] = -1
    count_b = rivals.max(axis=1)
    p_b = upper_bound(lower_b, count_b, n, alpha / 2)
    return p_a, np.minimum(p_b, 1 - p_a)


def exact_probabilities(counts: NDArray[np.int64], top: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Return the share of class A and of its strongest rival, where all outcomes were counted.

    A rival of a lower index wins ties, and counts as one vote stronger.
    """
    n = counts.sum(axis=1)
    rows, classes = np.arange(len(counts)), np.arange(counts.shape[1])
    rivals = counts + (classes < top[:, None])
    rivals[rows, top] = 0
    return counts[rows, top] / n, rivals.max(axis=1) / n


def check_statistics(n_samples: int, n_classes: int, *, scheme: str, bound: str, alpha: float) -> None:
    """Raise a ValueError for unknown names, alpha outside (0, 1), or samples too few to certify a unanimous vote."""
    check_choice("scheme", scheme, SCHEMES)
    check_choice("bound", bound, BOUNDS)
    level = _level(n_classes, scheme, check_open_unit("alpha", alpha))
    if level < SMALLEST_LEVEL:
        raise ValueError(f"alpha must be at least {2 * SMALLEST_LEVEL:g}, got {alpha!r}.")
    if n_classes > 1 and BOUNDS[bound](n_samples, n_samples, level) <= 0.5:
        # Both bounds rise with n when all votes agree, so bisection finds the first n above 1/2.
        candidates = range(1, 10**9)
        smallest = 1 + bisect_right(candidates, 0.5, key=lambda n: float(BOUNDS[bound](n, n, level)))
        raise ValueError(
            f"n_samples={n_samples} cannot certify even a unanimous vote at alpha={alpha} with scheme={scheme!r} and "
            f"bound={bound!r}: n_samples must be at least {smallest}."
        )


def _one_versus_all(n_classes: int, scheme: str) -> bool:
    return scheme == "binary" or n_classes <= 2


def _level(n_classes: int, scheme: str, alpha: float) -> float:
    return alpha if _one_versus_all(n_classes, scheme) else alpha / 2
