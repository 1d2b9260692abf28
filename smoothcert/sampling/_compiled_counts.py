"""The compiled pass that counts the votes of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.compiled import njit


def count_votes(
    votes: NDArray[np.intp], sizes: NDArray[np.int64], n_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the votes of a batch.

    Parameters
    ----------
    votes : ndarray of shape (n_rows,)
        Class indices, and -1 for near ties.
    sizes : ndarray of shape (n_segments,)
        Numbers of consecutive rows that are counted together.
    n_classes : int

    Returns
    -------
    counts : ndarray of shape (n_segments, n_classes)
    near_ties : ndarray of shape (n_near_ties,)
        Rows that are near ties, which are not counted.
    """
    # Near ties are counted in the last column.
    counts = np.zeros((len(sizes), n_classes + 1), dtype=np.int64)
    _count(votes, sizes, counts)
    near_ties = np.flatnonzero(votes < 0) if counts[:, -1].any() else np.empty(0, dtype=np.int64)
    return counts[:, :-1], near_ties


@njit(nogil=True, cache=True)
def _count(votes: Any, sizes: Any, counts: Any) -> None:
    """Fill ``counts``."""
    row = 0
    for segment in range(sizes.size):
        for _ in range(sizes[segment]):
            counts[segment, votes[row]] += 1
            row += 1
