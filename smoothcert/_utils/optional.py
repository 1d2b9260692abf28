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


def attribute(package: str, name: str, modules: dict[str, str]) -> Any:
    """Return a name that a package takes from one of its modules when it is first asked for.

    Parameters
    ----------
    package : str
    name : str
    modules : dict of str to str
        The module of each such name, relative to the package.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(modules[name], package), name)
