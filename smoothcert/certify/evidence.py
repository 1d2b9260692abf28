"""Evidence of votes: bounds and tests that are valid whenever drawing stops, and the split of their alpha.

Bounds and tests bet on the estimation votes (Ville's inequality). The prior comes from the selection votes, which are
independent of them.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from ..noise.greedy import bisect
from .betting import anytime_lower_bound, log_e_value, rejects_margin
from .binomial import class_probabilities
from .duel import Counts, Duel, FloatArray

#: Share of alpha that a test at a radius bets, so that it can stop early. The rest is for the fixed-n bound at the cap.
#: A larger share saves votes, and loses certificates of inputs that only all votes together would certify.
BET = 0.9

#: Bound on the rounding error of the difference of two probabilities.
ROUNDING = 1e-15


def prior(selection: Duel) -> tuple[FloatArray, FloatArray]:
    """Return the Beta prior of the mean of (1 + [A] - [B])/2 that selection votes suggest."""
    return selection.score + 0.5, selection.n - selection.score + 0.5


def anytime_probabilities(
    selection: Counts, estimation: Counts, alpha: float, *, strongest_rival: bool
) -> tuple[FloatArray, FloatArray]:
    """Return p_a and p_b = 1 - p_a, whose difference bounds the margin from below at all numbers of votes at once."""
    top = selection.argmax(axis=1)
    before, fresh = (Duel.of(counts, top, strongest_rival=strongest_rival) for counts in (selection, estimation))
    p_a = anytime_lower_bound(fresh.score, fresh.n, alpha, *prior(before))
    return p_a, 1 - p_a


def rejected(
    selection: Duel, estimation: Duel, required: FloatArray, alpha: float, *, strongest_rival: bool
) -> NDArray[np.bool_]:
    """Tell where bets at level alpha reject that the radius which needs probability ``required`` is not certified.

    The mean of (1 + [A] - [B])/2 is smallest for the most probable rival, and the evidence is smallest for the rival
    with the most votes. A test of the latter therefore errs no more often than a test of the former.
    """
    null = np.minimum(required, 1.0)
    if strongest_rival:
        found = rejects_margin(estimation, null, selection, alpha)
    else:
        found = log_e_value(estimation.k_a, estimation.n, null, *prior(selection)) >= -np.log(alpha)
    return found & (required <= 1)


def certified_at(
    selection: Counts, estimation: Counts, required: FloatArray, *, alpha: float, strongest_rival: bool, cap: int
) -> NDArray[np.bool_]:
    """Tell for each input whether its votes certify the radius that needs probability ``required``.

    A part of alpha is bet: if a radius does not hold, the evidence ever reaches 1/part with probability at most that
    part. The rest is for the bounds of Algorithm 1 after all ``cap`` votes. They need less evidence than bets, which
    must be valid at every checkpoint.

    Both parts are monotone in ``required``, so that one alpha covers all radii that are asked of the same votes.

    Parameters
    ----------
    selection, estimation : ndarray of shape (n_inputs, n_classes)
    required : ndarray of shape (n_inputs,) or (n_inputs, n_radii)
        Probability p at which p_a = p and p_b = 1 - p certify the radius; inf where nothing does. One alpha covers all
        radii of an input.
    alpha : float
    strongest_rival : bool
        Whether class A is compared with its strongest rival or with all rivals as one.
    cap : int
        Number of votes at which drawing ends.

    Returns
    -------
    certified : ndarray of bool, of the shape of ``required``
    """
    top, nulls = selection.argmax(axis=1), required[:, None] if required.ndim == 1 else required
    before, fresh = (
        Duel(*(votes[:, None] for votes in Duel.of(counts, top, strongest_rival=strongest_rival)))
        for counts in (selection, estimation)
    )
    certified = with_all_smaller(rejected(before, fresh, nulls, BET * alpha, strongest_rival=strongest_rival), nulls)
    last = estimation.sum(axis=1) == cap
    if last.any():
        p_a, p_b = class_probabilities(
            estimation[last],
            top[last],
            scheme="multiclass" if strongest_rival else "binary",
            bound="clopper-pearson",
            alpha=(1 - BET) * alpha,
        )
        certified[last] |= (p_a - p_b)[:, None] >= 2 * nulls[last] - 1 + ROUNDING
    return certified.reshape(required.shape)


@cache
def largest_certified(n_classes: int, n_selection: int, n_samples: int, alpha: float, strongest_rival: bool) -> float:
    """Return the largest probability that any votes certify, which unanimous votes do; see `certified_at`."""
    unanimous = np.eye(1, n_classes, dtype=np.int64)
    votes = n_selection * unanimous, n_samples * unanimous
    certified = partial(certified_at, *votes, alpha=alpha, strongest_rival=strongest_rival, cap=n_samples)
    return float(bisect(certified, np.full(1, 0.5), np.ones(1), 53)[0])


def with_all_smaller(rejected: NDArray[np.bool_], nulls: FloatArray) -> NDArray[np.bool_]:
    """Keep a rejection only where all smaller nulls of the input are rejected as well; shape (n_inputs, n_nulls) each.

    The null "the mean is at most p" is true for every p from the mean on. A false rejection is then one of the smallest
    true null too, so one alpha covers all nulls (a test in fixed order; Marcus, Peritz and Gabriel 1976).
    """
    order = np.argsort(nulls, axis=1, kind="stable")
    kept = np.empty_like(rejected)
    in_turn = np.logical_and.accumulate(np.take_along_axis(rejected, order, axis=1), axis=1)
    np.put_along_axis(kept, order, in_turn, axis=1)
    return kept
