"""Votes that are read from logits, and near ties, against NumPy."""

import numpy as np
import pytest
import torch

from smoothcert.models.torch import NEAR_TIE
from smoothcert.models.torch_outputs import votes_by_lead


def read(logits, scale=1.0):
    return votes_by_lead(torch.from_numpy(logits), scale, NEAR_TIE).numpy()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 1000])
def test_votes_are_those_of_argmax(n_classes, dtype, scale):
    logits = np.random.default_rng(0).normal(size=(2000, n_classes)).astype(dtype)
    first, second = np.sort(logits.astype(np.float64), axis=1)[:, :-3:-1].T
    near_ties = first - second <= NEAR_TIE * (scale + abs(first))
    assert near_ties.any() or scale < 1 or n_classes < 10
    np.testing.assert_array_equal(read(logits, scale), np.where(near_ties, -1, logits.argmax(axis=1)))


@pytest.mark.parametrize("row", [[1, 2, 3], [3, 2, 1], [2, 3, 1]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_with_nan_is_a_near_tie(row, place):
    row[place] = np.nan
    assert read(np.array([[5.0, 1, 1], row])).tolist() == [0, -1]


def test_other_near_ties():
    inf = np.inf
    rows = [[1, 1 + 1e-6], [1e6, 1e6 + 1], [inf, inf], [-inf, -inf], [inf, 0], [0, 1e-3], [1, 2], [-inf, 0]]
    assert read(np.array(rows, dtype=np.float32)).tolist() == [-1, -1, -1, -1, -1, 1, 1, 1]


def test_a_single_class_gets_all_votes_except_nan():
    assert read(np.array([[0.0], [np.nan], [-7.0]])).tolist() == [0, -1, 0]
