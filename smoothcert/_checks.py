"""Checks of single arguments, with errors that name the argument, the expectation and what came."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")
    return float(value)


def check_not_negative(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it is 0 or a finite number above it."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be 0 or a finite number above 0, got {value!r}.")
    return float(value)


def check_open_unit(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it lies strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}.")
    return float(value)


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a ValueError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def check_choice(name: str, value: Any, known: Any) -> Any:
    """Return ``value``, or raise a ValueError that lists ``known`` unless it is one of them."""
    if not any(value is choice or (isinstance(value, type(choice)) and value == choice) for choice in known):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}.")
    return value


def non_numeric(X: Any) -> ValueError | None:
    """Return the error for the first column of a table that holds something other than numbers, if there is one."""
    table = np.asarray(X)
    if table.ndim != 2 or table.dtype.kind not in "OSU":
        return None
    names = getattr(X, "columns", range(table.shape[1]))
    for name, column in zip(names, table.T, strict=True):
        for value in column:
            try:
                float(value)
            except (TypeError, ValueError):
                return ValueError(
                    f"X must hold numbers, but column {name!r} holds {value!r}. Encode it first, for example with "
                    f"sklearn.preprocessing.OneHotEncoder."
                )
    return None
