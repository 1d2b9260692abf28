"""Validation data among the parameters of ``fit``, by which boosted trees stop early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

#: Parameters of ``fit`` that hold pairs (X, y), the inputs of such pairs, or their labels.
PAIRS, INPUTS, LABELS = "eval_set", "X_val", "y_val"


def converted(
    params: dict[str, Any], inputs: Callable[[Any], Any] = lambda X: X, labels: Callable[[Any], Any] = lambda y: y
) -> dict[str, Any]:
    """Return parameters of ``fit`` whose validation data went through functions.

    Parameters
    ----------
    params : dict
    inputs, labels : callable, optional

    Raises
    ------
    ValueError
        If ``eval_set`` is neither a pair (X, y) nor a list of pairs.

    Examples
    --------
    >>> converted({"eval_set": [([1], [0])], "verbose": False}, inputs=lambda X: [10 * x for x in X])
    {'eval_set': [([10], [0])], 'verbose': False}
    """
    found = dict(params)
    if found.get(PAIRS) is not None:
        pairs = [(inputs(X), labels(y)) for X, y in _pairs(found[PAIRS])]
        found[PAIRS] = pairs[0] if _is_pair(found[PAIRS]) else pairs
    for name, function in ((INPUTS, inputs), (LABELS, labels)):
        if found.get(name) is not None:
            found[name] = function(found[name])
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and not all(isinstance(part, tuple) for part in value)


def _pairs(value: Any) -> Iterator[Any]:
    """Yield the pairs in ``eval_set``."""
    for pair in [value] if _is_pair(value) else value if isinstance(value, (list, tuple)) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"eval_set must be a list of pairs (X, y), got a {type(value).__name__}.")
        yield pair
