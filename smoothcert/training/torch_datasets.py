"""Torch datasets as training data: inputs and labels in one object, whose transforms run again in each epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import on_host, unmasked


def read_dataset(X: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return what ``fit`` was given as arrays, and the torch Dataset that they come from, if it is one.

    Parameters
    ----------
    X : array-like or torch.utils.data.Dataset of pairs (input, label)
    y : array-like or None
        None for a Dataset.

    Returns
    -------
    X, y : array-like
        Of a Dataset: arrays of shapes (n_inputs, ...) and (n_inputs,), read in one pass.
    dataset : torch.utils.data.Dataset or None

    Raises
    ------
    ValueError
        If X is a DataLoader, a generator or an iterable dataset, if its items are not pairs, or if labels are missing
        or given twice.
    """
    check_no_loader(X)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(X, torch.utils.data.Dataset):
        if y is None:
            raise ValueError("y should be a 1d array of labels, got None. Give y, or a torch Dataset of pairs as X.")
        return X, y, None
    if y is not None:
        raise ValueError("y must be None where X is a torch Dataset: its items hold the labels. Use fit(dataset).")
    return (*_arrays(X), X)


def check_no_loader(X: Any) -> None:
    """Raise a ValueError if X yields batches or items in an order of its own: a DataLoader, or any iterator."""
    torch = sys.modules.get("torch")
    loaders = () if torch is None else (torch.utils.data.DataLoader, torch.utils.data.IterableDataset)
    if isinstance(X, (Iterator, *loaders)):
        raise ValueError(
            f"X must be an array or a torch Dataset with a length, got a {type(X).__name__}. Give the Dataset, such as "
            f"loader.dataset, or collect the inputs in an array."
        )


def _arrays(dataset: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read the items of a Dataset once."""
    try:
        items = [_pair(dataset[i]) for i in range(len(dataset))]
        inputs, labels = zip(*items, strict=True)
        return np.stack(inputs), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X must be a torch Dataset of pairs (input, label), with a length and inputs of one shape: {error}."
        ) from error


def _pair(item: Any) -> tuple[NDArray[Any], Any]:
    """Return the input and the label of an item."""
    if not isinstance(item, (tuple, list)):
        keys = f" with the keys {list(item)}" if isinstance(item, Mapping) else ""
        raise ValueError(
            f"an item is a {type(item).__name__}{keys}. Wrap the Dataset in one whose items are pairs, such as "
            f"(item['image'], item['label'])"
        )
    x, label = item
    return np.asarray(on_host(x)), np.asarray(unmasked("y", label)).reshape(())[()]
