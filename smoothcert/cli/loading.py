"""Models and data from files. Code in a file is executed only if the user allows it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional
from ..models.base import is_module
from ..weights import RECORD, load_weights, trusted_types

#: The suffixes of files whose loading executes code that they hold.
PICKLES = {".joblib", ".pkl", ".pickle", ".pt", ".pth"}


def load_model(
    source: str, *, factory: str | None = None, allow_pickle: bool = False, trusted: tuple[str, ...] = ()
) -> Any:
    """Load a model from a file or a function.

    Parameters
    ----------
    source : str
        ``module:function``, a function that returns the model; or a file: ``.skops``; ``.safetensors``, with the
        weights of the network that ``factory`` returns; or with ``allow_pickle`` a file of joblib, pickle or torch.
    factory : str, optional
        ``module:function`` that returns the network for a file of weights.
    allow_pickle : bool, default=False
    trusted : tuple of str, optional
        The types of other libraries that a skops file may hold.

    Returns
    -------
    model : object

    Raises
    ------
    ValueError
        If there is no such model, or loading it would execute code.
    """
    path = Path(source)
    kind = path.suffix.lower()
    if factory is not None and kind != ".safetensors":
        raise ValueError(f"--factory is for the weights in a .safetensors file, got {source}. Leave it out.")
    if not path.exists() and ":" in source:
        return call_factory(source)
    if not path.is_file():
        raise ValueError(f"There is no file {source!r}. Give a function as module:function.")
    if kind == ".skops":
        return _load_skops(path, trusted)
    if kind == ".safetensors":
        return _load_weights(path, factory)
    if kind not in PICKLES:
        raise ValueError(f"{source} must end in .skops, .safetensors or, with --allow-pickle, {', '.join(PICKLES)}.")
    if not allow_pickle:
        raise ValueError(
            f"Loading {source} would execute code that it holds. If you trust it like a program, add --allow-pickle. "
            f"Files of skops and safetensors execute nothing."
        )
    if kind in (".pt", ".pth"):
        model = importlib.import_module("torch").load(path, weights_only=False)
    else:
        model = joblib.load(path)
    if isinstance(model, Mapping):
        raise ValueError(
            f"{source} holds a {type(model).__name__} of {len(model)} entries, and no model. If these are weights, "
            f"save them as .safetensors and name the network's function, --factory MODULE:NAME."
        )
    return model


def call_factory(source: str) -> Any:
    """Call a function given as ``module:function``; modules in the working directory are found too."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = resolve_name(source)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{source!r} must name a function in a module that can be imported: {error}.") from error
    return function()


def _load_skops(path: Path, trusted: tuple[str, ...]) -> Any:
    skops = optional("skops.io", "files")
    found = skops.get_untrusted_types(file=path)
    if unknown := sorted({*found} - {*trusted_types(), *trusted}):
        flags = " ".join(f"--trust {name}" for name in unknown)
        raise ValueError(f"{path} holds types that may be harmful. If you trust them, add {flags}")
    return skops.load(path, trusted=found)


def _load_weights(path: Path, factory: str | None) -> Any:
    if factory is None:
        raise ValueError(f"{path} holds only weights: name the network's function, --factory MODULE:NAME.")
    module = call_factory(factory)
    if not is_module(module):
        raise ValueError(f"--factory must return a torch.nn.Module, got a {type(module).__name__}.")
    with optional("safetensors", "files").safe_open(str(path), framework="pt") as file:
        of_classifier = RECORD in (file.metadata() or {})
    if of_classifier:
        return load_weights(path, module)
    try:
        optional("safetensors.torch", "files").load_model(module, str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit what {factory} returns: {error}") from error
    return module


def load_data(source: str, *, key: str | None = None, target: str | None = None) -> tuple[Any, Any]:
    """Load inputs and, where they are in the same file, their labels.

    Parameters
    ----------
    source : str
        A ``.npy`` file, which is read in parts; or a ``.npz``, ``.parquet`` or ``.csv`` file.
    key : str, optional
        The name of the inputs in a ``.npz`` file; "X" or the only array by default.
    target : str, optional
        The name of the labels: an array of a ``.npz`` file, "y" by default, or a column of a table.

    Returns
    -------
    X : array or DataFrame
        Tables keep the names of their columns; models that know them refuse other names and another order.
    y : ndarray or None

    Raises
    ------
    ValueError
        If there is no such file, or no array or column of that name.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"There is no file {source!r}.")
    kind = path.suffix.lower()
    if key is not None and kind != ".npz":
        raise ValueError(f"--key names an array of a .npz file, got {source}. Leave it out.")
    if kind == ".npy":
        if target is not None:
            raise ValueError(f"--target needs a .npz file or a table, got {source}. Give labels with --labels.")
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    if kind == ".npz":
        return _from_npz(path, key, target)
    if kind not in (".parquet", ".csv"):
        raise ValueError(f"{source} must end in .npy, .npz, .parquet or .csv.")
    pd = optional("pandas", "tables")
    table = pd.read_csv(path) if kind == ".csv" else pd.read_parquet(path)
    if target is None:
        return table, None
    if target not in table:
        raise ValueError(f"{source} has no column {target!r}; it has {', '.join(map(repr, table.columns))}.")
    return table.drop(columns=target), table[target].to_numpy()


def _from_npz(path: Path, key: str | None, target: str | None) -> tuple[Any, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        target = target or ("y" if "y" in arrays else None)
        others = [name for name in arrays if name != target]
        key = key or ("X" if "X" in others else others[0] if len(others) == 1 else None)
        if target is not None and target not in arrays:
            raise ValueError(f"{path} has no array {target!r} for --target; it has {', '.join(arrays)}.")
        if key not in arrays:
            raise ValueError(f"{path} holds the arrays {', '.join(arrays)}: name the inputs with --key.")
        return arrays[str(key)], arrays[target] if target else None


def load_labels(source: str) -> NDArray[Any]:
    """Load one label for each input from a ``.npy`` file, or from a text file with one label in each line."""
    if source.endswith(".npy"):
        return np.load(source, allow_pickle=False)
    try:
        lines = [line.strip() for line in Path(source).read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} must be a .npy file, or a text file with one label in each line.") from error
    try:
        return np.array([int(line) for line in lines])
    except ValueError:
        return np.array(lines)
