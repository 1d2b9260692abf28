"""The compiled pass over the logits of a batch, for torch models on CPUs: ``torch.topk`` takes many times longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.compiled import njit


def votes_of_logits(logits: NDArray[np.floating], scale: float, near_tie: float) -> tuple[NDArray[np.int64], int]:
    """Return the index of the largest logit of each row, or -1 for near ties, and the number of near ties.

    Parameters
    ----------
    logits : ndarray of shape (n_rows, n_classes)
    scale : float
        Size of logits below which their rounding errors do not shrink.
    near_tie : float
        A row nearly ties unless the lead of its largest logit exceeds this part of ``scale`` plus the logit's size.
        Rows that hold a NaN always do.
    """
    votes = np.empty(len(logits), dtype=np.int64)
    return votes, _fill(logits, scale, near_tie, votes)


@njit(nogil=True, cache=True)
def _fill(logits: Any, scale: Any, near_tie: Any, votes: Any) -> Any:
    """Fill ``votes``; return the number of near ties."""
    n_near_ties = 0
    for row in range(len(logits)):
        first, second, vote = logits[row, 0], logits.dtype.type(-math.inf), 0
        nan = first != first
        for i in range(1, logits.shape[1]):
            logit = logits[row, i]
            nan |= logit != logit
            vote = i if logit > first else vote
            second = max(second, min(first, logit))
            first = max(first, logit)
        clear = not nan and first - second > near_tie * (scale + abs(first))
        votes[row] = vote if clear else -1
        n_near_ties += not clear
    return n_near_ties
