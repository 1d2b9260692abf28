"""Confidence bounds for binomial probabilities, such as Clopper-Pearson, and the split of alpha between p_a and p_b.

Pure functions of arrays: vote counts in, one-sided bounds out.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from .._utils.checks import check_choice, check_open_unit
from ..noise.greedy import bisect
from .duel import Duel, FloatArray

LowerBound = Callable[[ArrayLike, Any, float], FloatArray]

#: Relative error allowed for SciPy's binomial tails. The largest error found is 2e-11, for n up to 10**9.
TAIL_ERROR = 1e-10

#: A lower bound below this is returned as 0: quantiles this small can be off by orders of magnitude.
SMALLEST_BOUND = 1e-12


def clopper_pearson(k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Lower confidence bound on a binomial probability (Clopper and Pearson 1934).

    The bound exceeds the probability with probability at most ``alpha``.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials, with 0 <= k <= n and n >= 1.
    alpha : float
        One-sided level, between 0 and 1.

    Returns
    -------
    lower : ndarray
        Rounded down. A bound below 1e-12 is returned as 0.

    Raises
    ------
    ValueError
        If ``k``, ``n`` or ``alpha`` is out of range or NaN.

    See Also
    --------
    randomized_clopper_pearson : Never below this bound.
    hoeffding : A simpler bound, usually smaller.

    References
    ----------
    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934.

    Examples
    --------
    >>> float(clopper_pearson(10_000, 10_000, 0.001).round(6))
    0.999309
    """
    k, n = _check_counts(k, n)
    some = k > 0
    lower = np.zeros(k.shape)
    if some.any():
        lower[some] = _confirmed_quantile(k[some], n[some], check_open_unit("alpha", alpha))
    return lower


def _confirmed_quantile(k: FloatArray, n: FloatArray, alpha: float) -> FloatArray:
    """Return Clopper and Pearson's bound by statsmodels, corrected until the binomial tail confirms it."""
    from statsmodels.stats.proportion import proportion_confint

    target = alpha * (1 - TAIL_ERROR)

    def level(p: FloatArray) -> FloatArray:
        """Return P(X >= k) for success probability p."""
        return np.asarray(betainc(k, n - k + 1, p))

    # Root finding warns at extreme levels. All threads share the filters of warnings, so other levels leave them alone.
    quiet = warnings.catch_warnings(action="ignore", category=RuntimeWarning) if alpha < 1e-50 else nullcontext()
    # The interval of statsmodels is two-sided, and each side has half of its alpha.
    with np.errstate(all="ignore"), quiet:
        lower = np.nan_to_num(proportion_confint(k, n, alpha=min(2 * target, 1.0), method="beta")[0])
    loose = level(lower) < alpha * (1 - 1e-6)
    if loose.any():
        lower = np.where(loose, bisect_unit(lambda p: level(p) <= target, k.shape), lower)
    lower = np.where(lower < SMALLEST_BOUND, 0.0, lower)
    # The quantile comes from root finding, which can return a bound that is too large. Steps of doubling size lead down
    # to a bound whose level is below alpha by more than the error of the level.
    step = np.spacing(lower)
    while (unsafe := level(lower) > target).any():
        lower = np.where(unsafe, np.maximum(lower - step, 0.0), lower)
        step *= 2
    return lower


def _check_counts(k: ArrayLike, n: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return counts as float arrays of one shape, or raise a ValueError unless they are whole numbers in range."""
    k, n = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    for name, value, valid, expected in (
        ("n", n, (n >= 1) & (n < np.inf), "whole numbers of at least 1"),
        ("k", k, (k >= 0) & (k <= n), "whole numbers from 0 to n"),
    ):
        wrong = ~(valid & (value == np.floor(value)))
        if wrong.any():
            raise ValueError(f"{name} must hold {expected}, got {value[wrong].flat[0]:g}. Pass vote counts.")
    return k, n


def bisect_unit(holds: Callable[[FloatArray], NDArray[np.bool_]], shape: tuple[int, ...]) -> FloatArray:
    """Return the largest p in [0, 1] at which a condition holds, for a condition that holds up to some p.

    All p tried are multiples of 2**-53, so ``1 - p`` is exact. The condition holds at the returned p, or p is 0.

    Parameters
    ----------
    holds : callable
        Maps an array of p to an array of bools.
    shape : tuple of int

    Examples
    --------
    >>> bisect_unit(lambda p: p**2 <= [0.25, 0.49], (2,)).round(6)
    array([0.5, 0.7])
    """
    return bisect(holds, np.zeros(shape), np.ones(shape), 53)


def randomized_clopper_pearson(k: ArrayLike, n: ArrayLike, alpha: float, uniforms: ArrayLike) -> FloatArray:
    """Lower confidence bound on a binomial probability with error probability exactly ``alpha`` (Stevens 1950).

    Counts are discrete, so the bound of Clopper and Pearson errs less often than ``alpha`` allows. An auxiliary uniform
    number u, independent of the count, removes this slack: the bound solves P(X > k) + u P(X = k) = alpha.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials, with 0 <= k <= n and n >= 1.
    alpha : float
        One-sided level, between 0 and 1.
    uniforms : array-like of float
        The number u for each count, from 0 to 1; u = 1 gives Clopper and Pearson's bound.

    Returns
    -------
    lower : ndarray
        Rounded down, and never below the bound of `clopper_pearson`.

    Raises
    ------
    ValueError
        If an argument is out of range or NaN.

    See Also
    --------
    clopper_pearson : The bound without auxiliary numbers.

    References
    ----------
    Stevens, "Fiducial limits of the parameter of a discontinuous distribution", Biometrika 37, 1950.

    Examples
    --------
    >>> randomized_clopper_pearson([90, 90], 100, 0.05, [1.0, 0.5]).round(4)
    array([0.8363, 0.8415])
    """
    k, n = _check_counts(k, n)
    k, n, u = np.broadcast_arrays(k, n, np.asarray(uniforms, dtype=np.float64))
    if not ((u >= 0) & (u <= 1)).all():
        raise ValueError(f"uniforms must hold numbers from 0 to 1, got {u[~((u >= 0) & (u <= 1))].flat[0]:g}.")
    target = check_open_unit("alpha", alpha) * (1 - TAIL_ERROR)

    def valid(p: FloatArray) -> NDArray[np.bool_]:
        # P(X > n) is 0 and P(X >= 0) is 1; no Beta distribution describes these two.
        above = np.where(k < n, betainc(k + 1, np.maximum(n - k, 1), p), 0.0)
        at_least = np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, p), 1.0)
        return np.asarray((1 - u) * above + u * at_least <= target)

    return np.maximum(bisect_unit(valid, k.shape), clopper_pearson(k, n, alpha))


def hoeffding(k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Lower confidence bound k/n - sqrt(ln(1/alpha) / (2n)) on a binomial probability (Theorem B.1), and at least 0.

    Parameters
    ----------
    k, n : array-like of int
        Successes and trials, with 0 <= k <= n and n >= 1.
    alpha : float
        One-sided level, between 0 and 1.

    Returns
    -------
    lower : ndarray
        Rounded down.

    Raises
    ------
    ValueError
        If an argument is out of range or NaN.

    See Also
    --------
    clopper_pearson : The exact bound, usually larger.

    References
    ----------
    Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58, 1963.
    Voracek and Hein, "Improving l1-certified robustness via randomized smoothing by leveraging box constraints",
    ICML 2023, Theorem B.1.

    Examples
    --------
    >>> float(hoeffding(10_000, 10_000, 0.001).round(6))
    0.981415
    """
    k, n = _check_counts(k, n)
    width = np.sqrt(-np.log(check_open_unit("alpha", alpha)) / (2 * n))
    # The share and the width each carry at most 3 rounding errors of relative size 2**-53.
    return np.maximum(k / n - width - 2**-50 * (1 + width), 0.0)


#: Lower bounds by name. An upper bound is 1 minus the lower bound of the failures. The randomized bound is listed with
#: the bound that it never falls below; `class_probabilities` adds its auxiliary numbers.
BOUNDS: dict[str, LowerBound] = {
    "clopper-pearson": clopper_pearson,
    "randomized-clopper-pearson": clopper_pearson,
    "hoeffding": hoeffding,
}

#: The smallest level for which the bounds are tested.
SMALLEST_LEVEL = 1e-100

#: Schemes of certification (section 2.4 of the paper).
SCHEMES = ("multiclass", "binary")


def upper_bound(lower: LowerBound, k: ArrayLike, n: ArrayLike, alpha: float) -> FloatArray:
    """Upper confidence bound on a binomial probability: 1 minus the lower bound of the failures.

    Parameters
    ----------
    lower : callable
        A lower bound, such as `clopper_pearson`.
    k, n : array-like of int
        Successes and trials, with 0 <= k <= n and n >= 1.
    alpha : float
        One-sided level, between 0 and 1.

    Examples
    --------
    >>> float(upper_bound(clopper_pearson, 0, 10_000, 0.001).round(6))
    0.000691
    """
    # 1 - p can be rounded down by half a unit, so the next float is returned.
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
        Estimation votes.
    top : ndarray of shape (n_inputs,)
        Class A of each input, chosen by the selection votes.
    scheme : {"multiclass", "binary"}
        "multiclass" spends alpha/2 on each of the two probabilities; "binary" spends alpha on p_a and takes
        p_b = 1 - p_a. For two classes the schemes are the same. A single class has no rival.
    bound : {"clopper-pearson", "randomized-clopper-pearson", "hoeffding"}
    alpha : float
        Probability, for each input, that the bounds fail.
    uniforms : ndarray of shape (n_inputs, 2), optional
        Auxiliary numbers of the randomized bound, independent of the counts.

    Returns
    -------
    p_a, p_b : ndarray of shape (n_inputs,)

    Raises
    ------
    ValueError
        If the randomized bound gets no ``uniforms``.

    See Also
    --------
    exact_probabilities : For noise whose outcomes are all counted.

    Examples
    --------
    >>> counts, top = np.array([[950, 30, 20]]), np.array([0])
    >>> p_a, p_b = class_probabilities(counts, top, scheme="multiclass", bound="clopper-pearson", alpha=0.001)
    >>> p_a.round(4), p_b.round(4)
    (array([0.9233]), array([0.052]))
    """
    if counts.shape[1] == 1:
        return np.ones(len(counts)), np.zeros(len(counts))
    lower_a = lower_b = BOUNDS[bound]
    if bound == "randomized-clopper-pearson":
        if uniforms is None:
            raise ValueError("bound='randomized-clopper-pearson' needs uniforms: two numbers for each input.")
        lower_a, lower_b = (partial(randomized_clopper_pearson, uniforms=column) for column in uniforms.T)
    one_versus_all = _one_versus_all(counts.shape[1], scheme)
    level = level_of_each_bound(counts.shape[1], scheme, alpha)
    k_a, k_b, n = Duel.of(counts, top, strongest_rival=not one_versus_all)
    p_a = lower_a(k_a, n, level)
    if one_versus_all:
        return p_a, 1 - p_a
    # The bound has to hold for one fixed rival, the most probable one. Upper bounds rise with the count, so the bound
    # of the largest count is at least that of this rival. The randomized bound rises too, at every u: it solves for the
    # level (1 - u) P(X > k) + u P(X >= k), which lies between P(X >= k + 1) and P(X >= k), so it lies between Clopper
    # and Pearson's bounds for k and k + 1.
    p_b = upper_bound(lower_b, k_b, n, level)
    return p_a, np.minimum(p_b, 1 - p_a)


def exact_probabilities(counts: NDArray[np.int64], top: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Return the shares of class A and of its strongest rival, for noise whose outcomes are all counted.

    Ties go to the lower index, so a rival of lower index than class A counts as one vote stronger.

    Parameters
    ----------
    counts : ndarray of shape (n_inputs, n_classes)
        Number of outcomes that vote for each class.
    top : ndarray of shape (n_inputs,)
        Class A of each input.

    Returns
    -------
    p_a, p_b : ndarray of shape (n_inputs,)

    Examples
    --------
    >>> exact_probabilities(np.array([[3, 5]]), np.array([1]))
    (array([0.625]), array([0.5]))
    """
    n = counts.sum(axis=1)
    rows, classes = np.arange(len(counts)), np.arange(counts.shape[1])
    rivals = counts + (classes < top[:, None])
    rivals[rows, top] = 0
    return counts[rows, top] / n, rivals.max(axis=1) / n


def check_statistics(n_samples: int, n_classes: int, *, scheme: str, bound: str, alpha: float) -> None:
    """Raise a ValueError for an unknown name, a bad level, or too few samples to certify a unanimous vote.

    Parameters
    ----------
    n_samples, n_classes : int
    scheme, bound : str
    alpha : float
    """
    check_choice("scheme", scheme, SCHEMES)
    check_choice("bound", bound, BOUNDS)
    level = level_of_each_bound(n_classes, scheme, check_open_unit("alpha", alpha))
    if level < SMALLEST_LEVEL:
        raise ValueError(f"alpha must be at least {2 * SMALLEST_LEVEL:g}, got {alpha!r}.")
    if n_classes > 1 and BOUNDS[bound](n_samples, n_samples, level) <= 0.5:
        # Each bound of a unanimous vote rises with n, so bisection finds the first n for which it exceeds 1/2.
        candidates = range(1, 10**9)
        smallest = 1 + bisect_right(candidates, 0.5, key=lambda n: float(BOUNDS[bound](n, n, level)))
        raise ValueError(
            f"n_samples={n_samples} cannot certify even a unanimous vote at alpha={alpha} with scheme={scheme!r} and "
            f"bound={bound!r}: n_samples must be at least {smallest}."
        )


def _one_versus_all(n_classes: int, scheme: str) -> bool:
    return scheme == "binary" or n_classes <= 2


def level_of_each_bound(n_classes: int, scheme: str, alpha: float) -> float:
    """Split alpha: half of it for each of p_a and p_b, or all of it for p_a where p_b is 1 - p_a."""
    return alpha if _one_versus_all(n_classes, scheme) else alpha / 2
