"""Inputs of any kind, read when their turn comes: arrays, memory maps, data sets, sized sequences."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from .._utils.checks import check_unmasked, on_host
from ..models.series import check_whole_numbers, is_arrow, library_of
from ..training.torch_datasets import check_no_loader

#: Values that are read at once where nothing else decides.
CHUNK_VALUES = 2**20

#: The number of inputs among which a valid one must be, where inputs may be skipped.
FIRST_READ = 1000


class Inputs:
    """Sized inputs, of which a part is read and validated at a time.

    Parameters
    ----------
    X : array-like or sequence
        What is in memory is validated at once. Of anything else, that is memory maps, torch data sets, columns of
        Hugging Face data sets, dask and HDF5 arrays and all that has ``len`` and ``[]``, parts are. Where an item is a
        tuple, the input is its first entry.
    validate : callable
        Takes an array-like of inputs, raises a ValueError or returns the array.
    shard : tuple of int, optional
        The part (i, n) of the inputs to use; see `shard_positions`. Positions are those in all of X.
    skip : bool, default=False
        Whether inputs that are invalid may be skipped. Those in memory are then read one part after another too.

    Examples
    --------
    >>> inputs = Inputs([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.asarray)
    >>> len(inputs), inputs.shape
    (3, (2,))
    >>> inputs.read(np.array([2, 0]))
    array([[5., 6.],
           [1., 2.]])
    """

    def __init__(
        self, X: Any, validate: Callable[[Any], NDArray[Any]], *, shard: Any = None, skip: bool = False
    ) -> None:
        check_no_loader(X)
        X = on_host(X)
        # Sparse matrices are refused at once.
        self.lazy = is_lazy(X) or (skip and not hasattr(X, "tocsr"))
        self.validate = validate
        self.X = X if self.lazy else validate(X)
        self.n_inputs = _length(self.X)
        if self.n_inputs == 0:
            raise ValueError("X must hold at least one input, got none.")
        self.shard = check_shard(shard, self.n_inputs)
        self.positions = shard_positions(self.n_inputs, self.shard)
        self.shape: tuple[int, ...] = self._first_valid(skip).shape[1:] if self.lazy else self.X.shape[1:]

    def __len__(self) -> int:
        return self.n_inputs

    def only(self, positions: NDArray[np.intp]) -> Self:
        """Return the inputs with some of their positions, in increasing order."""
        some = copy(self)
        some.positions = positions
        return some

    def _first_valid(self, skip: bool) -> NDArray[Any]:
        """Return the first input; where inputs may be skipped, the first of a few that is valid."""
        for position in self.positions[: FIRST_READ if skip else 1]:
            try:
                return self.read(np.array([position]))
            except Exception as error:
                last_error = error
        raise last_error

    def read(self, index: NDArray[np.intp]) -> NDArray[Any]:
        """Return some inputs as a validated array.

        Parameters
        ----------
        index : ndarray of shape (n,)
            Increasing, at least one.

        Raises
        ------
        ValueError
            If one of them is invalid; the message names the first.
        """
        if not self.lazy:
            return self.X[_slice(index)]
        try:
            X = self.validate(_fetch(self.X, index))
            if hasattr(self, "shape") and X.shape[1:] != self.shape:
                raise ValueError(f"It has shape {X.shape[1:]}, but the first input has shape {self.shape}.")
            return X
        except ValueError as error:
            if len(index) == 1:
                raise ValueError(f"X[{index[0]}]: {error}") from error
            # One of the halves raises the error of the first invalid input, unless only their combination is invalid.
            for half in np.array_split(index, 2):
                self.read(half)
            raise ValueError(f"X[{index[0]}:{index[-1] + 1}]: {error}") from error

    def check_repeatable(self, index: NDArray[np.intp]) -> None:
        """Raise a ValueError if some inputs change from one reading to the next."""
        if self.lazy and not np.array_equal(self.read(index), self.read(index)):
            raise ValueError(
                f"X must give the same inputs at each reading, but X[{index[0]}:{index[-1] + 1}] changed. Leave random "
                f"transforms out of the data set, or read it once into an array."
            )

    def chunks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Yield the positions of a few inputs and these inputs, in order."""
        for part in gen_batches(len(self.positions), max(1, CHUNK_VALUES // max(1, int(np.prod(self.shape))))):
            index = self.positions[part]
            yield index, self.read(index)


def check_shard(shard: Any, n_inputs: int) -> tuple[int, int] | None:
    """Return a shard as two ints, or None, or raise a ValueError unless there is such a part of the inputs."""
    if shard is None:
        return None
    try:
        number, count = map(operator.index, shard)
        valid = 1 <= number <= count <= n_inputs
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"shard must be a pair (i, n) with 1 <= i <= n, for the i-th of n parts, and n at most the number of "
            f"inputs, {n_inputs}, got {shard!r}. The first part is (1, n), the last (n, n)."
        )
    return number, count


def shard_positions(n_inputs: int, shard: tuple[int, int] | None) -> NDArray[np.intp]:
    """Return the positions of the inputs in part i of n, or of all inputs for None.

    Parts are consecutive, and their sizes differ by at most 1.

    Examples
    --------
    >>> shard_positions(8, (2, 3))
    array([2, 3, 4])
    """
    number, count = shard or (1, 1)
    return np.arange((number - 1) * n_inputs // count, number * n_inputs // count)


def is_lazy(X: Any) -> bool:
    """Tell whether X is a sequence that is read part by part: it is sized, indexed and not in memory."""
    if isinstance(X, np.memmap):
        return True
    torch = sys.modules.get("torch")
    known = (np.ndarray, list, tuple, str, bytes, Mapping, *((torch.Tensor,) if torch is not None else ()))
    table = hasattr(X, "columns") or hasattr(X, "iloc") or hasattr(X, "tocsr")
    return not isinstance(X, known) and not table and hasattr(X, "__len__") and hasattr(X, "__getitem__")


def _length(X: Any) -> int:
    try:
        return len(X)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X must have a known length, got a {type(X).__name__} without. For a dask array call "
            f"compute_chunk_sizes() first."
        ) from error


def _slice(index: NDArray[np.intp]) -> Any:
    """Return consecutive positions as a slice, which copies nothing."""
    first, last = int(index[0]), int(index[-1])
    return slice(first, last + 1) if last - first + 1 == len(index) else index


def _fetch(X: Any, index: NDArray[np.intp]) -> Any:
    """Read inputs that are not in memory."""
    if hasattr(X, "iloc"):
        return X.iloc[_slice(index)]
    if library_of(X) == "polars":
        return X[_slice(index)]
    if is_arrow(X):
        # Its items are columns.
        return X.take(index)
    if hasattr(X, "dtype") and hasattr(X, "shape"):
        part = X[_slice(index)]
        # Masked arrays stay what they are, so that they can be refused.
        return np.asanyarray(part.compute() if hasattr(part, "compute") else part)
    items = [_input(X[int(i)], int(i)) for i in index]
    shapes = {item.shape for item in items}
    if len(shapes) > 1:
        raise ValueError(f"Inputs must have one shape, got {', '.join(map(str, sorted(shapes)))}.")
    return np.stack(items)


def _input(item: Any, index: int) -> NDArray[Any]:
    """Return one item of a sequence as an array."""
    if isinstance(item, Mapping):
        raise ValueError(
            f"Items must be inputs, but X[{index}] is a mapping with the keys {', '.join(map(repr, item))}. Pass the "
            f"column that holds the inputs, such as dataset['image']."
        )
    found = on_host(item[0] if isinstance(item, tuple) else item)
    # What is lost in the batch cannot be seen there: masks, and whole numbers among floats.
    check_unmasked("X", found)
    array = np.asarray(found)
    check_whole_numbers(found, array)
    return array
