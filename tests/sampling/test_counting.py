"""Votes counted from logits: against NumPy's argmax, and what is doubtful."""

import numpy as np
import pytest

from smoothcert.models.torch import NEAR_TIE
from smoothcert.sampling._counting import count_indices, count_logits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 1000])
def test_votes_are_those_of_argmax(n_classes, dtype):
    logits = np.random.default_rng(0).normal(size=(200, n_classes)).astype(dtype)
    sizes = np.array([1, 0, 120, 79])
    votes, doubtful = count_logits(logits, sizes, NEAR_TIE)
    runs = np.repeat(np.arange(4), sizes)
    expected = np.zeros((4, n_classes), dtype=int)
    np.add.at(expected, (runs, logits.argmax(axis=1)), 1)
    np.subtract.at(expected, (runs[doubtful], logits[doubtful].argmax(axis=1)), 1)
    np.testing.assert_array_equal(votes, expected)
    first, second = np.sort(logits.astype(np.float64), axis=1)[:, :-3:-1].T
    np.testing.assert_array_equal(doubtful, np.flatnonzero(first - second <= NEAR_TIE * (1 + abs(first))))


@pytest.mark.parametrize("row", [[1, 2, 3], [3, 2, 1], [2, 3, 1]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_is_doubtful_wherever_it_is(row, place):
    row[place] = np.nan
    votes, doubtful = count_logits(np.array([[5.0, 1, 1], row]), np.array([2]), NEAR_TIE)
    assert votes.tolist() == [[1, 0, 0]]
    assert doubtful.tolist() == [1]


def test_what_else_is_doubtful():
    inf = np.inf
    rows = [[1, 1 + 1e-6], [1e6, 1e6 + 1], [inf, inf], [-inf, -inf], [inf, 0], [0, 1e-3], [1, 2], [-inf, 0]]
    votes, doubtful = count_logits(np.array(rows, dtype=np.float32), np.array([len(rows)]), NEAR_TIE)
    assert doubtful.tolist() == [0, 1, 2, 3, 4]
    assert votes.tolist() == [[0, 3]]


def test_a_single_class_gets_all_votes_but_nan():
    votes, doubtful = count_logits(np.array([[0.0], [np.nan], [-7.0]]), np.array([3]), NEAR_TIE)
    assert votes.tolist() == [[2]]
    assert doubtful.tolist() == [1]


def test_indices_are_counted_run_by_run():
    votes = count_indices(np.array([2, 0, 0, 1, 2]), np.array([2, 0, 3]), 4)
    assert votes.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
