"""Operations on single columns of pandas, polars and NumPy, with one name for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Whole numbers from here on round to other floats: 2**53 may have been 2**53 + 1.
ROUNDED = 2**53


def library_of(X: Any) -> str:
    """Return the library that a table belongs to: "pandas", "polars", or "numpy" for arrays and lists."""
    for library in ("pandas", "polars"):
        module = sys.modules.get(library)
        if module is not None and isinstance(X, module.DataFrame):
            return library
    return "numpy"


def is_arrow(X: Any) -> bool:
    """Tell whether X is a table of pyarrow, which is used as an array of one type."""
    return all(hasattr(X, name) for name in ("columns", "take", "to_pandas"))


def check_names(X: Any) -> None:
    """Raise a ValueError if two columns of a table have one name."""
    if library_of(X) == "numpy" and not is_arrow(X):
        return
    names = list(getattr(X, "column_names", X.columns))
    if len(set(names)) < len(names):
        raise ValueError(f"The columns of X must have distinct names, got {names}. Rename or drop some.")


def columns_of(X: Any) -> list[Any]:
    """Return the columns of a table: Series, or arrays of shape (n,)."""
    library = library_of(X)
    if library == "pandas":
        return [X.iloc[:, i] for i in range(X.shape[1])]
    if library == "polars":
        return list(X.get_columns())
    return list((np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object)).T)


def is_number(column: Any) -> bool:
    """Tell whether a column holds real numbers or booleans by its type."""
    if hasattr(column.dtype, "is_numeric"):
        return bool(column.dtype.is_numeric() and not column.dtype.is_decimal()) or str(column.dtype) == "Boolean"
    return getattr(column.dtype, "kind", "O") in "biuf" and not hasattr(column.dtype, "categories")


def is_boolean(column: Any) -> bool:
    """Tell whether a column holds booleans by its type."""
    return str(column.dtype) in ("bool", "boolean", "Boolean", "bool[pyarrow]")


def is_whole(column: Any) -> bool:
    """Tell whether a column holds whole numbers by its type."""
    if hasattr(column.dtype, "is_integer"):
        return bool(column.dtype.is_integer())
    return getattr(column.dtype, "kind", "O") in "iu"


def is_dated(column: Any) -> bool:
    """Tell whether a column holds dates, times or durations by its type."""
    if hasattr(column.dtype, "is_temporal"):
        return bool(column.dtype.is_temporal())
    return getattr(column.dtype, "kind", "O") in "mM"


def numbers(column: Any) -> FloatArray:
    """Return a column of numbers as floats; missing values are NaN.

    Raises
    ------
    TypeError, ValueError
        If a value is no number.
    """
    if hasattr(column.dtype, "is_numeric"):
        return np.array(column.cast(float).to_numpy(), dtype=np.float64)
    if hasattr(column, "array") and not isinstance(column.dtype, np.dtype):
        return np.array(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.array(column, dtype=np.float64)


def check_whole_numbers(X: Any, found: NDArray[Any]) -> None:
    """Raise a ValueError if inputs of any kind hold whole numbers that floats round; ``found`` is X as an array."""
    is_table = library_of(X) != "numpy"
    if ("float" in str(getattr(X, "dtype", "")) and not is_table) or not _are_large(found):
        return
    if is_table:
        for column, part in zip(columns_of(X), found.T, strict=True):
            check_whole_column(column, part)
    elif is_arrow(X):
        check_whole_numbers(X.to_pandas(), found)
    else:
        check_whole_column(np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object), found)


def check_whole_column(column: Any, found: NDArray[Any], where: str = "") -> None:
    """Raise a ValueError if a column, or an array of any shape, holds whole numbers that floats round.

    ``found`` holds the same numbers as an array.
    """
    if is_number(column) and not is_whole(column):
        return
    # Columns of objects may hold floats too.
    if _are_large(found) and (is_number(column) or any(map(_is_rounded, np.ravel(column).tolist()))):
        raise ValueError(
            f"X holds whole numbers of 2**53 or more{where}, which floats cannot represent. Subtract what is common to "
            f"all of them, or convert a column that cannot change to strings."
        )


def _is_rounded(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and abs(int(value)) >= ROUNDED


def _are_large(found: NDArray[Any]) -> bool:
    """Tell whether an array of numbers holds some of 2**53 or more. Infinity may stand for one, and NaN is none."""
    if found.dtype.kind not in "iuf" or found.dtype.itemsize < 8:
        return False
    ends = (reduce(found, axis=None, initial=0) for reduce in (np.fmax.reduce, np.fmin.reduce))
    return any(abs(float(end)) >= ROUNDED for end in ends)


def values(column: Any) -> list[Any]:
    """Return the values of a column as Python objects; missing ones are None."""
    items = column.to_list() if hasattr(column, "to_list") else column.tolist()
    return [None if is_missing(value) else value for value in items]


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for a missing one: None, NaN, pandas' NA and NaT."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def declared_categories(column: Any) -> list[Any] | None:
    """Return the categories that the type of a column declares, or None."""
    if str(column.dtype) == "Categorical":
        return None
    categories = getattr(column.dtype, "categories", None)
    return None if categories is None else list(categories)


def filled(items: Sequence[Any], dtype: Any, library: str) -> Any:
    """Return a column of the given type from which `taken` takes values."""
    if library == "numpy":
        # The longest item decides about the length of strings.
        kind = np.dtype(dtype).kind
        return np.array(items, dtype=kind if kind in "SU" else dtype)
    if library == "polars":
        return import_module("polars").Series(items, dtype=dtype)
    column = import_module("pandas").Series(items, dtype=dtype)
    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def taken(column: Any, index: NDArray[np.intp]) -> Any:
    """Return the values at some positions of a `filled` column, in its type."""
    return column.gather(index) if hasattr(column, "gather") else column.take(index)


def packed(column: Any) -> Any:
    """Return a `filled` column as files hold it: Series and arrays of pandas as lists and their type, for skops."""
    library = type(column).__module__.split(".")[0]
    if library == "numpy":
        return column
    return values(column), packed_type(column.dtype, library), library


def unpacked(content: Any) -> Any:
    """Return the column that `packed` was given."""
    if not isinstance(content, tuple):
        return content
    items, dtype, library = content
    return filled(items, unpacked_type(dtype, library), library)


def packed_type(dtype: Any, library: str) -> Any:
    """Return a type as files hold it: its categories or its name; the type itself where they do not tell it."""
    categories = getattr(dtype, "categories", None)
    if categories is not None and library == "pandas":
        return categories.tolist(), packed_type(categories.dtype, library), bool(dtype.ordered)
    if categories is not None and str(dtype) != "Categorical":
        return (list(categories),)
    name = dtype.str if isinstance(dtype, np.dtype) else str(dtype)
    try:
        return name if unpacked_type(name, library) == dtype else dtype
    except (AttributeError, ImportError, NotImplementedError, TypeError, ValueError):
        return dtype


def unpacked_type(content: Any, library: str) -> Any:
    """Return the type that `packed_type` was given."""
    module = import_module(library)
    if isinstance(content, tuple) and library == "pandas":
        items, dtype, ordered = content
        return module.CategoricalDtype(module.Index(items, dtype=unpacked_type(dtype, library)), ordered)
    if isinstance(content, tuple):
        return module.Enum(content[0])
    if not isinstance(content, str):
        return content
    if library == "polars":
        return getattr(module, content)
    return module.api.types.pandas_dtype(content) if library == "pandas" else np.dtype(content)


def cast(column: FloatArray, dtype: Any, library: str) -> Any:
    """Return floats in another type of numbers, or as they are where it cannot hold one of them."""
    if library == "polars":
        series = import_module("polars").Series(column)
        if dtype.is_float():
            return series.cast(dtype)
        series = series.fill_nan(None)
        found = series.cast(dtype, strict=False)
        return found if found.cast(float).equals(series) else series
    if library == "pandas" and not isinstance(dtype, np.dtype):
        try:
            return import_module("pandas").Series(column).astype(dtype).array
        except (TypeError, ValueError):
            return column
    with np.errstate(invalid="ignore"):
        found = column.astype(dtype)
    return found if np.array_equal(found, column, equal_nan=True) else column


def frame(columns: Sequence[Any], names: Sequence[str] | None, library: str) -> Any:
    """Return columns as a DataFrame, or as an array."""
    if library == "polars":
        polars = import_module("polars")
        return polars.DataFrame(
            [polars.Series(name, column) for name, column in zip(names or (), columns, strict=True)]
        )
    if library == "pandas":
        pandas = import_module("pandas")
        # Without a type, pandas looks at each object of an array to find one.
        typed = [pandas.Series(column, dtype=column.dtype, copy=False) for column in columns]
        return pandas.DataFrame(dict(zip(names or (), typed, strict=True)), copy=False)
    dtype = np.result_type(*(column.dtype if column.dtype.kind in "biuf" else object for column in columns))
    return np.stack([column.astype(dtype) for column in columns], axis=1)


def with_category(column: Any, categories: Sequence[Any], category: Any, library: str) -> Any:
    """Return the type of a column that can hold one category more: booleans become whole numbers."""
    dtype = column.dtype
    if declared_categories(column) is not None:
        items = [*categories, category]
        if library == "polars":
            return import_module("polars").Enum(items)
        return import_module("pandas").CategoricalDtype(items, ordered=dtype.ordered)
    if hasattr(dtype, "is_numeric"):
        return import_module("polars").Int64 if dtype.is_integer() or is_boolean(column) else dtype
    if is_boolean(column):
        return "int8" if isinstance(dtype, np.dtype) else "Int8"
    if library == "numpy" and dtype.kind in "OU":
        return object
    return (
        np.promote_types(dtype, np.min_scalar_type(category))
        if dtype.kind in "iu" and not hasattr(dtype, "na_value")
        else dtype
    )
