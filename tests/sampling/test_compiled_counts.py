"""Votes that are counted by segment, against NumPy."""

import numpy as np

from smoothcert.sampling._compiled_counts import count_votes


def test_votes_are_counted_by_segment():
    counts, near_ties = count_votes(np.array([2, 0, -1, 0, 1, 2, -1]), np.array([3, 0, 4]), 4)
    assert counts.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert near_ties.tolist() == [2, 6]
    counts, near_ties = count_votes(np.array([1, 1, 0]), np.array([1, 2]), 2)
    assert counts.tolist() == [[0, 1], [1, 1]]
    assert near_ties.tolist() == []
