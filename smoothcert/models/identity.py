"""The content of a model: a digest of the numbers that it has learned, where those are plain to see.

Nothing is pickled, executed or changed to find it. Whether two models vote alike is answered by their votes; see
`smoothcert.runs.model_check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

#: Stands for content that is not well defined.
UNKNOWN = "?"

#: What a tree of scikit-learn decides by.
TREE_ARRAYS = ("children_left", "children_right", "feature", "threshold", "value")


def content_of(model: Any) -> str:
    """Return a digest of an estimator's parameters and fitted attributes, or "?" where one of them is opaque.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> first, second = (LogisticRegression().fit([[0], [1]], [0, 1]) for _ in range(2))
    >>> content_of(first) == content_of(second)
    True
    >>> content_of(lambda rows: rows)
    '?'
    """
    digest = blake2b(digest_size=16)
    try:
        for part in _parts(model):
            digest.update(part)
    except (_OpaqueError, RecursionError):
        return UNKNOWN
    return digest.hexdigest()


def content_of_tensors(tensors: list[Any]) -> str:
    """Return a digest of torch tensors without their names; "?" if there are none, or one has no plain bytes."""
    import torch

    digest = blake2b(digest_size=16)
    try:
        for tensor in tensors:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    except (RuntimeError, NotImplementedError):
        return UNKNOWN
    return digest.hexdigest() if tensors else UNKNOWN


class _OpaqueError(Exception):
    """There is an object whose content is not plain to see."""


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the bytes that a value consists of."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype.str} {value.shape} ".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, (list, tuple, np.ndarray)):
        yield f"{len(value)} items ".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, dict):
        yield from _parts([part for name in sorted(value, key=repr) for part in (name, value[name])])
    elif isinstance(value, BaseEstimator):
        yield type(value).__qualname__.encode()
        yield from _parts(dict(vars(value)))
    elif type(value).__name__ == "Tree" and type(value).__module__ == "sklearn.tree._tree":
        yield from _parts([getattr(value, name) for name in TREE_ARRAYS])
    elif value is None or isinstance(value, (bool, int, float, str, bytes, np.generic, type)):
        yield f"{value!r} ".encode()
    else:
        raise _OpaqueError
