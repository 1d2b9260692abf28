"""Futility: whether votes to come can still certify an input at a required probability. Pure functions of arrays.

This decides about cost and not about validity: giving up too early loses certificates and never makes a wrong one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from .binomial import FloatArray, clopper_pearson, upper_bound

#: Standard deviations by which votes to come may turn out better than the votes so far.
LUCK = 2.8


def is_futile(
    k_a: Any, k_b: Any, n: Any, n_samples: int, required: Any, *, alpha: float, rivals_apart: bool
) -> NDArray[np.bool_]:
    """Tell for each input whether even lucky votes will not certify it at the last checkpoint.

    Parameters
    ----------
    k_a, k_b, n : ndarray of int
        Votes so far for class A, for its strongest rival and in total.
    n_samples : int
        Number of votes at the last checkpoint.
    required : ndarray of float
        The input is certified if p_a - p_b is at least ``2 * required - 1``. Above 1 nothing certifies it.
    alpha : float
        Level of the bounds at the last checkpoint.
    rivals_apart : bool
        Whether p_b bounds the strongest rival, with alpha/2 for each of the two bounds. Otherwise p_b = 1 - p_a.

    Returns
    -------
    futile : ndarray of bool

    Examples
    --------
    >>> votes = {"k_a": np.array([55, 90]), "k_b": np.array([8, 3]), "n": 100}
    >>> is_futile(**votes, n_samples=10_000, required=np.array([0.9, 0.9]), alpha=0.0001, rivals_apart=True)
    array([ True, False])
    """
    k_a, k_b, n, required = np.broadcast_arrays(k_a, k_b, n, np.asarray(required, dtype=np.float64))
    level = alpha / 2 if rivals_apart else alpha
    reachable = required <= 1
    # A few votes say little about a share: four more votes on either side keep A's share away from 0 and 1. The count
    # of the strongest rival is the largest of several, so it is too large by about one standard deviation.
    share_a, share_b = (k_a + 4) / (n + 8), (k_b - np.minimum(np.sqrt(k_b), k_b) + 0.5) / (n + 1)
    # By the share of A alone: p_a reaches ``required``, and p_b is at most 1 - p_a.
    best = np.ceil(_final_votes(k_a, share_a, n, n_samples, np.sqrt(share_a * (1 - share_a))))
    by_share = betainc(best, n_samples - best + 1, np.minimum(required, 1)) <= level
    if not rivals_apart:
        return np.asarray(~(reachable & by_share))
    # By the margin. The covariance of each count with the margin, divided by the standard deviation of the margin, is
    # what the count gains or loses when the margin is one standard deviation above its mean.
    by_margin = np.zeros(n.shape, dtype=bool)
    rows = reachable & ~by_share
    if rows.any():
        k_a, k_b, n, a, b = k_a[rows], k_b[rows], n[rows], share_a[rows], share_b[rows]
        spread = np.sqrt(a + b - (a - b) ** 2)
        best_a = np.ceil(_final_votes(k_a, a, n, n_samples, a * (1 - a + b) / spread))
        best_b = np.floor(_final_votes(k_b, b, n, n_samples, -b * (1 + a - b) / spread))
        p_a = clopper_pearson(best_a, n_samples, level)
        by_margin[rows] = p_a - upper_bound(clopper_pearson, best_b, n_samples, level) >= 2 * required[rows] - 1
    return np.asarray(~(reachable & (by_share | by_margin)))


def _final_votes(k: Any, share: FloatArray, n: Any, n_samples: int, deviation: FloatArray) -> FloatArray:
    """Return the votes of a class at the last checkpoint, with luck of ``deviation`` for each vote to come."""
    left = n_samples - n
    # The share after n votes is known as precisely as n votes estimate it, which the factor 1 + left / n accounts for.
    return np.clip(k + left * share + LUCK * deviation * np.sqrt(left * (1 + left / n)), k, k + left)
