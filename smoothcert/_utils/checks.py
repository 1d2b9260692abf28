"""Checks of single arguments; each error names the argument, the expected values and the given one."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np


def check_number(name: str, value: Any, valid: Callable[[float], bool], expected: str) -> float:
    """Return ``value`` as a float, or raise a ValueError with the expectation unless it is a valid number.

    Examples
    --------
    >>> check_number("fraction", 0.5, lambda x: 0 < x <= 1, "lie above 0 and be at most 1")
    0.5
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not valid(float(value)):
        raise ValueError(f"{name} must {expected}, got {value!r}.")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it is a finite number above 0."""
    return check_number(name, value, lambda x: 0 < x < math.inf, "be a finite number above 0")


def check_not_negative(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it is 0 or a finite number above it."""
    return check_number(name, value, lambda x: 0 <= x < math.inf, "be 0 or a finite number above 0")


def check_open_unit(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError unless it lies strictly between 0 and 1."""
    return check_number(name, value, lambda x: 0 < x < 1, "lie strictly between 0 and 1")


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a ValueError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def check_radii(radius: Any, n_inputs: int, *, several: bool = False, name: str = "radius") -> Any:
    """Return one radius for each input, or a row of several; raise a ValueError unless they are numbers from 0 on.

    ``name`` is that of the argument, which may be another distance.
    """
    expected = f"a number of at least 0, or one for each of {n_inputs} inputs"
    if several:
        expected += ", or rows of several radii of shape (1, n_radii) or (n_inputs, n_radii)"
    radii, remedy = _radii(radius), ""
    if radii is not None:
        n_radii = radii.shape[1:] if several and radii.ndim == 2 and radii.shape[1] else ()
        try:
            return np.broadcast_to(radii, (n_inputs, *n_radii))
        except ValueError:
            flat = several and radii.ndim == 1
            remedy = f" Write [{radii.tolist()}] to ask for all of these radii at each input." if flat else ""
    raise ValueError(f"{name} must be {expected}, got {radius!r}.{remedy}")


def _radii(radius: Any) -> Any:
    """Return radii as an array of floats, or None unless they are numbers from 0 on."""
    try:
        radii = np.asarray(radius)
        if radii.dtype.kind not in "iuf" and not all(
            type(one) is not bool and isinstance(one, Real) for one in radii.flat
        ):
            return None
        radii = radii.astype(np.float64)
    except (TypeError, ValueError):
        return None
    return radii if (radii >= 0).all() else None


def check_same_radii(radius: Any, radii: Any) -> Any:
    """Return ``radius`` as a float or a list, or raise a ValueError unless ``radii`` are the same for all inputs."""
    if (radii != radii[:1]).any():
        raise ValueError(
            f"radius must be the same for all inputs where a store records the run, such as 0.5, or [[0.5, 1.0]] for "
            f"several, got {radius!r}."
        )
    return radii[0].tolist()


def check_thresholds(radius: Any) -> Any:
    """Return a radius, or an array of radii, as floats, or raise a ValueError unless all are numbers of at least 0."""
    radii = _radii(radius)
    if radii is None:
        raise ValueError(f"radius must hold numbers of at least 0, got {radius!r}.")
    return radii


def check_classes(classes: Any) -> Any:
    """Return classes as a new array, or raise a ValueError unless they are a list of distinct labels."""
    labels = np.array(classes)
    if labels.ndim != 1 or not len(labels) or len(sorted_unique("classes", labels)) != len(labels):
        raise ValueError(f"classes must be a list of distinct labels, got {classes!r}.")
    return labels


def check_labels(y: Any, n_inputs: int, classes: Any, name: str = "y") -> Any:
    """Return labels as an array, or None, or raise a ValueError unless there is one fitting label for each input."""
    if y is None:
        return None
    labels = np.asarray(unmasked(name, y))
    if labels.shape != (n_inputs,):
        raise ValueError(f"{name} must hold one label for each of {n_inputs} inputs, got shape {labels.shape}.")
    for i, label in enumerate(labels.tolist() if labels.dtype.kind in "OfmM" else []):
        if is_missing(label):
            raise ValueError(f"{name} must hold a label for each input, got {label!r} at position {i}. Leave it out.")
    if _kind(labels) != _kind(classes):
        raise ValueError(
            f"{name} must hold labels like the classes, {classes.tolist()[:3]!r}, got {labels.tolist()[:3]!r}."
        )
    return labels


def _kind(labels: Any) -> str:
    """Return "f" for all numbers, "U" for text and other objects, and the kind of the dtype for bytes and the rest."""
    kind = labels.dtype.kind
    if kind == "O":
        kinds = {type(label) for label in labels.tolist()}
        kind = "S" if bytes in kinds else "f" if all(issubclass(one, Real) for one in kinds) else "U"
    return "f" if kind in "biuf" else str(kind)


def check_numbers(name: str, values: Any, n_inputs: int) -> Any:
    """Return values as an array of floats, or raise a ValueError unless they are one finite number for each input."""
    given = unmasked(name, values)
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (n_inputs,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must hold one finite number for each of {n_inputs} inputs, got {values!r}.")
    return numbers


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` as a bool, or raise a ValueError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_path(name: str, path: Any) -> Path | None:
    """Return a path, or None for None, or raise a ValueError if this is something else."""
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"{name} must be a str or a path of a file, got {path!r}.")
    return None if path is None else Path(path)


def check_fraction(fraction: Any) -> float:
    """Return the share of inputs to check, or raise a ValueError unless it lies above 0 and is at most 1."""
    return check_number("fraction", fraction, lambda share: 0 < share <= 1, "lie above 0 and be at most 1")


def check_choice(name: str, value: Any, known: Any) -> Any:
    """Return ``value``, or raise a ValueError that lists ``known`` unless it is one of them."""
    if not any(value is choice or (isinstance(value, type(choice)) and value == choice) for choice in known):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}.")
    return value


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of an array, a DataFrame or anything that converts to an array."""
    _check_collected("X", X)
    return tuple(X.shape if hasattr(X, "shape") else np.asarray(X).shape)


def _check_collected(name: str, X: Any) -> None:
    """Raise a ValueError for a lazy table, which holds no data yet."""
    if hasattr(X, "collect") and not any(hasattr(X, attribute) for attribute in ("shape", "__array__", "__len__")):
        raise ValueError(
            f"{name} must hold data, got a {type(X).__name__}, which is a query. Pass what {name}.collect() returns."
        )


def on_host(X: Any, name: str = "X") -> Any:
    """Return a torch tensor, or a list of them, as arrays, wherever they are; and anything else that holds data."""
    _check_collected(name, X)
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(X, (list, tuple)) and any(isinstance(one, torch.Tensor) for one in X):
        return [on_host(one, name) for one in X]
    if torch is None or not isinstance(X, torch.Tensor):
        return X
    kinds = {"meta": X.is_meta, "quantized": X.is_quantized, "nested": X.is_nested}
    if kind := next((kind for kind, found in kinds.items() if found), None):
        raise ValueError(f"{name} must be a tensor of plain numbers, got a {kind} one. Convert it to a dense tensor.")
    dense = X.detach().to_dense().resolve_conj().resolve_neg().cpu()
    # NumPy does not know the other types of floats, which float32 holds exactly.
    known = not dense.is_floating_point() or dense.dtype in (torch.float16, torch.float32, torch.float64)
    return (dense if known else dense.float()).numpy()


def unmasked(name: str, values: Any) -> Any:
    """Return labels or numbers off their device, or raise a ValueError if they are a query or hold masked ones."""
    found = on_host(values, name)
    check_unmasked(name, found)
    return found


def check_unmasked(name: str, array: Any) -> None:
    """Raise a ValueError if an array, or one in a list of arrays, holds masked values: arrays forget their masks."""
    parts = array if isinstance(array, (list, tuple)) else [array]
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise ValueError(f"{name} holds masked values. Leave them out, or fill them in, as by {name}.filled(value).")


def check_shape(X: Any, fitted: tuple[int, ...] | None, *, any_shape: bool) -> None:
    """Raise a ValueError if the base model does not take inputs of the shape of X."""
    shape = shape_of(X)
    if not all(shape[1:]):
        raise ValueError(f"Found array with 0 feature(s) (shape={shape}) while a minimum of 1 is required in X.")
    if not any_shape and len(shape) > 2:
        raise ValueError(
            f"Found array with dim {len(shape)}: X must be a table of shape (n_inputs, n_features) for a scikit-learn "
            f"base model, got shape {shape}. Use X.reshape(len(X), -1)."
        )
    if any_shape and fitted is not None and shape[1:] != fitted:
        expected = ", ".join(map(str, ("n", *fitted)))
        raise ValueError(f"X must have shape ({expected}), as in fit, got shape {shape}. Reshape X.")


def check_no_dates(X: Any) -> None:
    """Raise a ValueError if a column of a polars DataFrame holds dates, which would become numbers silently."""
    schema: Any = getattr(X, "schema", None)
    for name, kind in schema.items() if hasattr(schema, "items") else ():
        if getattr(kind, "is_temporal", bool)():
            raise ValueError(
                f"X must hold numbers, but column {name!r} holds {kind!r}. Convert it to meaningful numbers first, "
                f"such as the days since a date."
            )


def explain_invalid(X: Any, error: Exception) -> Exception:
    """Return an error that names the value in X behind an error of scikit-learn."""
    if isinstance(error, TypeError) and not hasattr(X, "columns"):
        return error
    message = str(error).split("\n")[0]
    if "contains NaN" in message or "contains infinity" in message:
        return ValueError(f"{message} Smoothing needs a finite number everywhere: impute or drop before this step.")
    return non_numeric(X) or error


def non_numeric(X: Any) -> ValueError | None:
    """Return the error for the first value of a table that is not a number, if there is one."""
    if getattr(getattr(X, "dtype", None), "kind", "O") in "biuf":
        return None
    table = np.asarray(X, dtype=object)
    if table.ndim != 2:
        return None
    names = getattr(X, "columns", range(table.shape[1]))
    for name, value in ((name, value) for name, column in zip(names, table.T, strict=True) for value in column):
        if is_missing(value) or isinstance(value, complex):
            continue
        try:
            float(value)
        except (TypeError, ValueError):
            return ValueError(
                f"X must hold numbers, but column {name!r} holds {value!r}. Encode it first, for example with "
                f"sklearn.preprocessing.OneHotEncoder, or declare the column: categorical_features, or cost 'fixed'."
            )
    return None


def is_missing(value: Any) -> bool:
    """Tell whether a value is None, NaN, NaT or NA."""
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def sorted_unique(name: str, labels: Any) -> Any:
    """Return the distinct labels in order, or raise a ValueError if they cannot be ordered."""
    try:
        return np.unique(labels)
    except TypeError as error:
        raise ValueError(f"{name} must hold labels of one type, got {labels!r}.") from error
