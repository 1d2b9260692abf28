"""Values as exact text: NumPy and pandas round numbers and leave out the middle of arrays."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

#: The size up to which all numbers of an array are shown; larger arrays show their shape, their ends and a hash.
SHOWN = 16


def exact(value: Any) -> str:
    """Return a text that is equal for two values only if the values are equal.

    Examples
    --------
    >>> exact(np.array([0.1, 0.100000000001])), exact((0.0, np.array([1, 2])))
    ('array([0.1, 0.100000000001])', '(0.0, array([1, 2]))')
    """
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(exact, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, BaseEstimator):
        # The text of scikit-learn leaves out default values, and the middle of long ones.
        return describe(value)
    if not hasattr(value, "__array__"):
        return repr(value)
    array = np.asarray(value)
    if array.size <= SHOWN:
        return f"array({array.tolist()!r})"
    flat = array.ravel()
    content = repr(flat.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(flat).tobytes()
    digest = blake2b(f"{array.dtype.str} ".encode() + content, digest_size=8).hexdigest()
    return f"array([{flat[0]}, ..., {flat[-1]}], shape={array.shape}, hash={digest})"


def describe(strategy: BaseEstimator) -> str:
    """Return a text that is equal for two strategies only if all their parameters are equal.

    Examples
    --------
    >>> from smoothcert import SplitNoise
    >>> describe(SplitNoise(lam=2.0))
    "SplitNoise(lam=2.0, levels='auto')"
    """
    parameters = ", ".join(f"{name}={exact(value)}" for name, value in strategy.get_params().items())
    return f"{qualified_name(strategy)}({parameters})"


def qualified_name(strategy: BaseEstimator) -> str:
    """Return the name of a strategy's class, with its module if the class is not from this library."""
    kind = type(strategy)
    return kind.__name__ if kind.__module__.startswith("smoothcert.") else f"{kind.__module__}.{kind.__qualname__}"


def in_words(n: int) -> str:
    """Return a small number in words, and a larger one in digits.

    Examples
    --------
    >>> in_words(2), in_words(12)
    ('two', '12')
    """
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[n] if n < len(words) else str(n)
