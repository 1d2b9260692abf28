"""Votes for class A and for its strongest rival: what all bounds on the margin look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]


class Duel(NamedTuple):
    """Votes as a duel of the predicted class A with its rival.

    Attributes
    ----------
    k_a, k_b, n : ndarray of shape (n_inputs,)
        Votes for class A, for its rival, and in total.
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
