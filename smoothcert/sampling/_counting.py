"""Votes counted in one pass, from logits or class indices, for models that run on CPUs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def count_logits(
    logits: NDArray[np.floating], sizes: NDArray[np.int64], near_tie: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the votes of a batch: the index of each row's largest logit.

    Parameters
    ----------
    logits : ndarray of shape (n_rows, n_classes)
    sizes : ndarray of shape (n_segments,)
        Numbers of consecutive rows that are counted together.
    near_tie : float
        A row is doubtful unless its largest logit leads the second by more than this part of 1 plus its size.

    Returns
    -------
    votes : ndarray of shape (n_segments, n_classes)
        Of rows that are not doubtful.
    doubtful : ndarray of shape (n_doubtful,)
        The others; among them all that hold a NaN.
    """
    votes = np.zeros((len(sizes), logits.shape[1]), dtype=np.int64)
    doubtful = np.empty(len(logits), dtype=np.int64)
    return votes, doubtful[: _count_logits(logits, sizes, near_tie, votes, doubtful)]


def count_indices(indices: NDArray[np.intp], sizes: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Count the votes of a batch, given the class index of each row; see `count_logits`."""
    votes = np.zeros((len(sizes), n_classes), dtype=np.int64)
    _count_indices(indices, sizes, votes)
    return votes


@njit(nogil=True, cache=True)
def _count_logits(logits: Any, sizes: Any, near_tie: Any, votes: Any, doubtful: Any) -> Any:
    """Fill ``votes`` and ``doubtful``; return how many are doubtful."""
    row = n_doubtful = 0
    for run in range(sizes.size):
        for _ in range(sizes[run]):
            first, second, vote = logits[row, 0], logits.dtype.type(-math.inf), 0
            nan = first != first
            for i in range(1, logits.shape[1]):
                logit = logits[row, i]
                nan |= logit != logit
                vote = i if logit > first else vote
                second = max(second, min(first, logit))
                first = max(first, logit)
            clear = not nan and first - second > near_tie * (1 + abs(first))
            votes[run, vote] += clear
            doubtful[n_doubtful] = row
            n_doubtful += not clear
            row += 1
    return n_doubtful


@njit(nogil=True, cache=True)
def _count_indices(indices: Any, sizes: Any, votes: Any) -> None:
    """Fill ``votes``."""
    row = 0
    for run in range(sizes.size):
        for _ in range(sizes[run]):
            votes[run, indices[row]] += 1
            row += 1
