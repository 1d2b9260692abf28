"""Warnings that point at the line of the caller."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """Warn at the line that called the library, however deep inside the reason is found."""
    modules: list[str] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        modules.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    own = [depth for depth, module in enumerate(modules) if module.partition(".")[0] == PACKAGE]
    warnings.warn(message, stacklevel=own[-1] + 2)
