"""What the record of an input holds about its votes: counts and probabilities as JSON, numbers as compressed bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sampling.exact_sampler import Shares
from ..sampling.sampler import Votes
from ..sampling.values import Values
from .metadata import RunMetadata

#: What both columns of votes hold, by the way in which they were found.
COLUMNS: dict[str, tuple[Any, tuple[str, str]]] = {
    "sample": (Votes, ("selection", "estimation")),
    "exact": (Shares.of, ("lower", "upper")),
    "values": (Values, ("selection", "estimation")),
}


def encoded(votes: Votes) -> list[list[Any]]:
    """Return what the records of inputs hold about their votes: two columns, and two with the numbers of votes."""
    encode = to_bytes if isinstance(votes, Values) else to_text
    return [*map(encode, votes.recorded), *(n.tolist() for n in votes.drawn)]


def decoded(run: RunMetadata, columns: Sequence[Sequence[Any]], **known: Any) -> Votes:
    """Return the votes that `encoded` took apart, or raise a ValueError if they are impossible.

    Parameters
    ----------
    run : RunMetadata
    columns : sequence of two sequences
        The first ones of `encoded`.
    **known
        The other parameters of `Votes`.
    """
    kind = run.parameters["estimation"]
    make, names = COLUMNS[kind]
    if kind == "values":
        sizes = (run.parameters["n_selection"], run.parameters["n_samples"])
        found: Any = map(from_bytes, columns, sizes)
    else:
        dtype = np.int64 if kind == "sample" else np.float64
        found = (from_text(column, len(run.classes), dtype) for column in columns)
    votes: Votes = make(**dict(zip(names, found, strict=True)), **known)
    return votes


def to_text(counts: NDArray[Any]) -> list[str]:
    """Return the votes of each input as JSON, from class index to number of votes; or bounds on probabilities.

    Examples
    --------
    >>> to_text(np.array([[0, 250, 0, 6]]))
    ['{"1": 250, "3": 6}']
    """
    # This takes half as long as json.dumps.
    texts = (", ".join([f'"{i}": {n}' for i, n in enumerate(row) if n]) for row in counts.tolist())
    return [f"{{{text}}}" for text in texts]


def from_text(texts: Sequence[str], n_classes: int, dtype: type[np.number]) -> NDArray[Any]:
    """Return votes or bounds of shape (n_inputs, n_classes), or raise a ValueError if they are impossible."""
    counts = np.zeros((len(texts), n_classes), dtype=dtype)
    found = json.loads(f"[{','.join(texts)}]")
    entries = [(row, int(i), n) for row, votes in enumerate(found) for i, n in dict(votes).items()]
    kind = int if dtype is np.int64 else float
    possible = all(0 <= i < n_classes and type(n) is kind and n > 0 for _, i, n in entries)
    complete = kind is float or {row for row, _, _ in entries} == set(range(len(texts)))
    if len(found) != len(texts) or not possible or not complete:
        raise ValueError("votes must be positive whole numbers, for known classes")
    if entries:
        rows, columns, values = zip(*entries, strict=True)
        counts[list(rows), list(columns)] = values
    return counts


def to_bytes(numbers: NDArray[np.float64]) -> list[bytes]:
    """Return the numbers of each input as compressed bytes.

    Bytes of equal significance lie side by side: the leading ones of sorted numbers are often the same.
    """
    shape = (*numbers.shape, 8)
    shuffled = np.ascontiguousarray(numbers, dtype="<f8").view(np.uint8).reshape(shape).swapaxes(1, 2)
    return [zlib.compress(row.tobytes(), level=1) for row in shuffled]


def from_bytes(contents: Sequence[bytes], n: int) -> NDArray[np.float64]:
    """Return numbers of shape (n_inputs, n), or raise a ValueError unless each row is in increasing order.

    Examples
    --------
    >>> from_bytes(to_bytes(np.array([[-1.5, 0.25, np.inf]])), 3)
    array([[-1.5 ,  0.25,   inf]])
    """
    try:
        # The limit keeps a damaged record from filling the memory.
        rows = [zlib.decompressobj().decompress(content, 8 * n + 1) for content in contents]
    except zlib.error as error:
        raise ValueError(f"numbers cannot be decompressed: {error}") from error
    if any(len(row) != 8 * n for row in rows):
        raise ValueError(f"there must be {n} numbers for each input")
    shuffled = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), 8, n)
    numbers = np.ascontiguousarray(shuffled.swapaxes(1, 2)).view("<f8").reshape(len(rows), n).astype(np.float64)
    if np.isnan(numbers).any() or (numbers[:, 1:] < numbers[:, :-1]).any():
        raise ValueError("numbers must be in increasing order")
    return numbers
