"""What votes prove at any moment: bounds and tests that stay valid whenever drawing stops.

All of it is by betting (Ville's inequality), with the selection votes as the prior: they are independent of the
estimation votes that are bet on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .betting import anytime_lower_bound, log_e_value, rejects_margin
from .binomial import class_probabilities

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Share of alpha that a test at a radius bets, so that it can stop early. The rest is for the fixed-n bound at the cap.
#: A larger share saves votes, and loses certificates of inputs that only all votes together would certify.
BET = 0.9

#: More than rounding adds to the difference of two probabilities.
ROUNDING = 1e-15


class Duel(NamedTuple):
    """Votes as a duel of the predicted class A with its rival.

    Attributes
    ----------
    k_a, k_b, n : ndarray of shape (n_inputs,)
        Votes for class A, for its rival, and in all.
    """

    k_a: Counts
    k_b: Counts
    n: Counts

    @classmethod
    def of(cls, counts: Counts, top: NDArray[np.intp], *, strongest_rival: bool) -> Duel:
        """Return the duel of class ``top`` with its strongest rival, or with all rivals as one."""
        rows, n = np.arange(len(counts)), counts.sum(axis=1)
        k_a = counts[rows, top]
        if not strongest_rival:
            return cls(k_a, n - k_a, n)
        rivals = counts.copy()
        rivals[rows, top] = -1
        return cls(k_a, rivals.max(axis=1), n)

    @property
    def score(self) -> FloatArray:
        """The sum of (1 + [A] - [B])/2 over all votes: a vote for neither counts half."""
        return (self.n + self.k_a - self.k_b) / 2


def prior(selection: Duel) -> tuple[FloatArray, FloatArray]:
    """Return the Beta prior of the mean of (1 + [A] - [B])/2 that selection votes suggest."""
    return selection.score + 0.5, selection.n - selection.score + 0.5


def anytime_probabilities(selection: Duel, estimation: Duel, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Return p_a and p_b = 1 - p_a, whose difference bounds the margin from below at all numbers of votes at once."""
    p_a = anytime_lower_bound(estimation.score, estimation.n, alpha, *prior(selection))
    return p_a, 1 - p_a


def rejected(
    selection: Duel, estimation: Duel, required: FloatArray, alpha: float, *, strongest_rival: bool
) -> NDArray[np.bool_]:
    """Tell where bets at level alpha reject that the radius which needs probability ``required`` is not certified.

    For the rival of largest probability the mean of (1 + [A] - [B])/2 is smallest, and for the one with most votes so
    is the evidence. Looking at the latter therefore errs no more often than a test of the former.
    """
    null = np.minimum(required, 1.0)
    if strongest_rival:
        found = rejects_margin(*estimation, null, *selection, alpha)
    else:
        found = log_e_value(estimation.k_a, estimation.n, null, *prior(selection)) >= -np.log(alpha)
    return found & (required <= 1)


def certified_at(
    selection: Counts,
    estimation: Counts,
    required: FloatArray,
    *,
    alpha: float,
    strongest_rival: bool,
    cap: int,
) -> NDArray[np.bool_]:
    """Tell for each input whether its votes certify the radius that needs probability ``required``.

    A part of alpha is bet: where an input is not certified, the evidence ever reaches 1/part with probability at most
    that part. The rest is for the bounds of Algorithm 1 once all ``cap`` votes are drawn: those ask for less than bets
    that had to be good at every checkpoint.

    Both parts are monotone in ``required``, so that one alpha covers all radii that are asked of the same votes.

    Parameters
    ----------
    selection, estimation : ndarray of shape (n_inputs, n_classes)
    required : ndarray of shape (n_inputs,)
        Probability p at which p_a = p and p_b = 1 - p certify the radius; inf where nothing does.
    alpha : float
    strongest_rival : bool
        Whether class A is compared with its strongest rival or with all rivals as one.
    cap : int
        Number of votes at which drawing ends.

    Returns
    -------
    certified : ndarray of bool, shape (n_inputs,)
    """
    top = selection.argmax(axis=1)
    before, fresh = (Duel.of(counts, top, strongest_rival=strongest_rival) for counts in (selection, estimation))
    certified = rejected(before, fresh, required, BET * alpha, strongest_rival=strongest_rival)
    last = estimation.sum(axis=1) == cap
    if last.any():
        p_a, p_b = class_probabilities(
            estimation[last],
            top[last],
            scheme="multiclass" if strongest_rival else "binary",
            bound="clopper-pearson",
            alpha=(1 - BET) * alpha,
        )
        certified[last] |= p_a - p_b >= 2 * required[last] - 1 + ROUNDING
    return certified
