"""Datasets of torch are read once, and what is none is refused."""

import numpy as np
import pytest
import torch

from smoothcert.training.torch_datasets import check_no_loader, read_dataset

from .problems import Pairs, X, Y


def test_datasets_are_read_once():
    data = Pairs([(torch.ones(2), torch.tensor([3])), [np.zeros(2), 4], ([5.0, 6.0], np.int64(1))])
    found, labels, dataset = read_dataset(data, None)
    assert (found.tolist(), labels.tolist(), dataset) == ([[1, 1], [0, 0], [5, 6]], [3, 4, 1], data)
    assert read_dataset(X, Y) == (X, Y, None)
    with pytest.raises(ValueError, match=r"^y should be a 1d array of labels, got None\. Give y, or a torch Dataset"):
        read_dataset(X, None)
    with pytest.raises(ValueError, match=r"^y must be None where X is a torch Dataset"):
        read_dataset(data, Y)
    for X_given in (torch.utils.data.DataLoader(data), iter([1]), (one for one in [1])):
        with pytest.raises(ValueError, match=rf"with a length, got a {type(X_given).__name__}\. Give the Dataset"):
            check_no_loader(X_given)
    for items, words in (
        ([{"image": 1, "label": 2}], r"an item is a dict with the keys \['image', 'label'\]\. Wrap the Dataset"),
        ([np.ones(2)], r"an item is a ndarray\. Wrap"),
        ([(1, 2, 3)], "too many values"),
        ([(np.ones(2), 0), (np.ones(3), 0)], "same shape"),
        ([(np.ones(2), [0, 1])], "reshape"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)^X must be a torch Dataset of pairs \(input, label\), .*{words}"):
            read_dataset(Pairs(items), None)
