"""Votes that are counted, and counts that do not fit."""

import numpy as np
import pytest

from smoothcert import VoteCounts
from smoothcert.results.votes import Origin, check_counts


def test_freezing_leaves_the_callers_arrays_alone():
    counts = np.array([[3, 1]])
    votes = VoteCounts(counts, counts, np.zeros((1, 16), np.uint8), Origin("n", "b", 0, "m", "c", (3,)))
    counts[0, 0] = 5
    with pytest.raises(ValueError, match="read-only"):
        votes.selection[0, 0] = 1


def test_ties_of_the_selection_go_to_the_first_class():
    counts, origin = np.array([[1, 5, 5], [2, 0, 2]]), Origin("n", "b", 0, "m", "c", (3,))
    votes = VoteCounts(counts, 2 * counts, np.zeros((2, 16), np.uint8), origin)
    assert votes.selected.tolist() == [1, 0]
    assert votes.n_samples == 8
    assert repr(votes) == "VoteCounts(2 inputs, 3 classes, up to 11 selection and 8 estimation votes each, n)"


def test_counts_that_do_not_fit():
    counts, largest = np.array([[3, 1], [2, 2]]), np.array([[2**53, 0]])
    for n in (1, 3):
        with pytest.raises(ValueError, match=f"inputs must hold a row for each of 2 inputs, got {n}"):
            VoteCounts(counts, counts, np.zeros((n, 16), np.uint8), Origin("n", "b", 0, "m", "c", (3,)))
    with pytest.raises(ValueError, match="estimation must hold at least one vote for each input, got none in row 1"):
        check_counts(counts, [[3, 1], [0, 0]])
    assert check_counts(largest, largest.astype(float))["estimation"].tolist() == largest.tolist()
    for wrong in (np.array([[2**53 + 1, 0]]), np.array([[-1, 2]]), np.array([[0.5, 1.0]]), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="estimation must hold whole numbers of at least 0, got"):
            check_counts(largest, wrong)
    with pytest.raises(
        ValueError, match=r"selection must hold counts of shape \(2, 3\), .* got int64 of shape \(2, 2\)"
    ):
        check_counts(counts, counts, 3)


def test_sums_of_counts_that_int64_cannot_hold():
    many = np.full((1, 2050), 2**53)
    with pytest.raises(ValueError, match=r"estimation must hold no more than 2\*\*53 votes for each input, got 1.8"):
        check_counts(np.ones((1, 2050), int), many)
