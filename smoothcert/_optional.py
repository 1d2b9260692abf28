"""Packages that only some users need, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def optional(module: str, extra: str) -> Any:
    """Import a module, or raise an ImportError that says how to install it: pip install "smoothcert[extra]"."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'This needs {package}. Install it with: pip install "smoothcert[{extra}]"') from error
