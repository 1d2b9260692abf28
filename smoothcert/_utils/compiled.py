"""Functions that numba compiles, cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate like ``numba.njit``; without the cache where numba finds no directory to write it to."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=cache, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate
