"""Imports of optional packages, and late imports of modules."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def optional(module: str, extra: str) -> Any:
    """Import a module, or raise an ImportError that names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'This needs {package}. Install it with: pip install "smoothcert[{extra}]"') from error


def attribute(package: str, name: str, modules: dict[str, str]) -> Any:
    """Return an attribute of a package from the module that holds it, which is imported on first access.

    Parameters
    ----------
    package : str
    name : str
    modules : dict of str to str
        The module of each name, relative to the package.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(modules[name], package), name)
