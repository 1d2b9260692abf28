"""Columns as numbers: the codes of categories and of fixed values, and the way back to the user's values."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import series

FloatArray = NDArray[np.float64]

#: Number of bits of a code: floats hold such integers exactly.
CODE_BITS = 52

#: Number of categories that messages list.
SHOWN = 8

#: How to deal with missing categories.
MISSING = ("error", "category")


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of numbers that the adversary can change. It gets noise, so the base model sees floats."""

    name: str
    n_categories = 0

    def encode(self, column: Any) -> FloatArray:
        """Return finite numbers, or raise a ValueError that names the column."""
        found = _numbers(self.name, column)
        if not np.isfinite(found).all():
            kind = "NaN" if np.isnan(found).any() else "infinity"
            raise ValueError(
                f"X contains {kind} in {self.name}. Smoothing needs a finite number everywhere: impute or drop before "
                f"this step, or make it a fixed column, of cost 'fixed'."
            )
        return found

    def decode(self, column: FloatArray) -> Any:
        """Return the numbers as they are."""
        return column


class Typed:
    """A column of a type; see `series.packed_type` for what files hold of it."""

    dtype: Any
    library: str

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that files hold."""
        return vars(self) | {"dtype": series.packed_type(self.dtype, self.library)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"dtype": series.unpacked_type(state["dtype"], state["library"])})


@dataclass(frozen=True, eq=False)
class FixedNumbers(Typed):
    """A column of numbers or booleans that the adversary cannot change. Its values and its type stay as they are."""

    name: str
    dtype: Any
    library: str
    n_categories = 0

    def encode(self, column: Any) -> FloatArray:
        """Return the numbers; missing ones are NaN."""
        return _numbers(self.name, column)

    def decode(self, column: FloatArray) -> Any:
        """Return the numbers in their type."""
        return series.cast(column, self.dtype, self.library)


@dataclass(frozen=True, eq=False)
class Categories:
    """A column of categories, the codes 0 to K - 1.

    Parameters
    ----------
    name : str
        Words for the column in messages.
    known : tuple
        The K categories; None stands for a missing value.
    column : Series or array
        The categories, and the mask if there is one, in the type that the base model sees.
    fixed : bool
        Whether the adversary cannot change the column.
    """

    name: str
    known: tuple[Any, ...]
    column: Any
    fixed: bool = False

    @classmethod
    def learn(cls, name: str, column: Any, library: str, *, missing: str, fixed: bool = False) -> Self:
        """Return the categories of a column of training data, in their order."""
        found = _hashable(name, series.values(column))
        known = series.declared_categories(column)
        if known is None:
            known = _in_order([value for value in set(found) if value is not None])
        known += [None] * (fixed or (None in found and missing == "category"))
        return cls(name, tuple(known), series.filled(known, column.dtype, library), fixed)

    def __getstate__(self) -> dict[str, Any]:
        """Return what files hold; see `series.packed`."""
        return vars(self) | {"column": series.packed(self.column)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"column": series.unpacked(state["column"])})

    def masked(self, library: str) -> Self:
        """Return the same categories with a mask, of code K."""
        declared = [value for value in self.known if value is not None]
        mask = _mask(declared)
        if mask is None:
            raise ValueError(
                f"hidden='mask' needs categories that are all strings, all numbers or all booleans, but {self.name} "
                f"holds {declared[:SHOWN]!r}. Convert the column to strings, or use hidden='uniform'."
            )
        dtype = series.with_category(self.column, declared, mask, library)
        return replace(self, column=series.filled([*self.known, mask], dtype, library))

    @property
    def n_categories(self) -> int:
        """Number K of categories that the adversary can choose."""
        return 0 if self.fixed else len(self.known)

    def encode(self, column: Any) -> FloatArray:
        """Return codes, or raise a ValueError for a category that is missing or unknown."""
        code_of = {value: code for code, value in enumerate(self.known)}
        found = _hashable(self.name, series.values(column))
        codes = np.fromiter((code_of.get(value, -1) for value in found), np.float64, len(found))
        if (codes < 0).any():
            raise self._unknown(found[int(np.argmax(codes < 0))])
        return codes

    def _unknown(self, value: Any) -> ValueError:
        if value is None:
            return ValueError(
                f"X has a missing value in {self.name}. Fill it in, or declare missing values a category, "
                f"missing='category', and fit on data that hold some."
            )
        known = ", ".join(map(repr, self.known[:SHOWN])) + ", ..." * (len(self.known) > SHOWN)
        return ValueError(
            f"X holds the unknown category {value!r} in {self.name}: known are {known}. Fit on data that hold all "
            f"categories, declare them by the type of the column (Categorical of pandas, Enum of polars), or replace "
            f"rare ones by one of their own, in fit and here."
        )

    def decode(self, column: FloatArray) -> Any:
        """Return the categories that codes stand for."""
        return series.taken(self.column, column.astype(np.intp))


class FixedValues(Typed):
    """A column of anything that the adversary cannot change: strings, dates, missing values.

    A code is a hash of the type and the value, so it does not depend on what else is in the data. The values that were
    encoded are remembered, here and in every copy.

    Parameters
    ----------
    name : str
        Words for the column in messages.
    dtype : object
    library : {"pandas", "polars", "numpy"}
    """

    n_categories = 0

    def __init__(self, name: str, dtype: Any, library: str) -> None:
        self.name, self.dtype, self.library = name, dtype, library
        self.known: dict[int, Any] = {}
        self.sorted: tuple[FloatArray, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that files hold. The sorted values are computed again."""
        return super().__getstate__() | {"sorted": None}

    def encode(self, column: Any) -> FloatArray:
        """Return the codes of values, which are remembered."""
        found = [(type(value), value) for value in _hashable(self.name, series.values(column))]
        code_of = {key: self._code(*key) for key in set(found)}
        for (kind, value), code in code_of.items():
            same = self.known.setdefault(code, value)
            if (type(same), same) != (kind, value):
                raise ValueError(f"X holds {value!r} and {same!r} in {self.name}, which have one hash. Rename one.")
        self.sorted = None
        return np.array([code_of[key] for key in found], dtype=np.float64)

    def _code(self, kind: type, value: Any) -> int:
        if kind.__repr__ is object.__repr__:
            raise ValueError(
                f"X holds {value!r} in {self.name}, whose text does not show its value. Convert it to text."
            )
        content = f"{kind.__module__}.{kind.__qualname__} {value!r}".encode()
        return int.from_bytes(blake2b(content, digest_size=8).digest(), "big") >> (64 - CODE_BITS)

    def decode(self, column: FloatArray) -> Any:
        """Return the values that codes stand for."""
        codes, values = self.sorted or self._sort()
        place = np.searchsorted(codes[1:], column, side="right")
        if not np.isin(column, codes).all():
            raise ValueError(f"The values of {self.name} are not known here: give X as a DataFrame or an array.")
        return series.taken(values, place)

    def _sort(self) -> tuple[FloatArray, Any]:
        """Return the known codes in order, and their values."""
        pairs = sorted(self.known.copy().items(), key=lambda pair: pair[0])
        values = series.filled([value for _, value in pairs], self.dtype, self.library)
        self.sorted = np.array([code for code, _ in pairs], dtype=np.float64), values
        return self.sorted


def _numbers(name: str, column: Any) -> FloatArray:
    """Return a column as floats, or raise a ValueError for its first value that is not a number."""
    dated = series.is_dated(column)
    found = None
    with suppress(TypeError, ValueError):
        found = None if dated else series.numbers(column)
    if found is None:
        items = series.values(column)
        wrong = [value for value in items if value is not None and (dated or not _is_number(value))]
        if wrong:
            raise ValueError(
                f"X must hold numbers, but {name} holds {wrong[0]!r}. Encode it first, for example with "
                f"sklearn.preprocessing.OneHotEncoder, or declare it: categorical_features='from_dtype' for "
                f"categories, cost 'fixed' for a column that an adversary cannot change."
            )
        found = np.array([np.nan if value is None else float(value) for value in items])
    series.check_whole_column(column, found, f" in {name}")
    return found


def _is_number(value: Any) -> bool:
    try:
        return isinstance(float(value), float)
    except (TypeError, ValueError):
        return False


def _hashable(name: str, found: list[Any]) -> list[Any]:
    """Return values, or raise a ValueError if one has no hash."""
    try:
        set(found)
    except TypeError as error:
        value = next(value for value in found if type(value).__hash__ is None)
        raise ValueError(f"X must hold single values, but {name} holds {value!r}.") from error
    return found


def _in_order(categories: list[Any]) -> list[Any]:
    """Return categories in an order that does not depend on the rows."""
    try:
        return sorted(categories)
    except TypeError:
        return sorted(categories, key=lambda value: (type(value).__name__, repr(value)))


def _mask(categories: list[Any]) -> Any:
    """Return a value like the categories that is none of them; None if there is no such value."""
    if all(isinstance(value, bool) for value in categories):
        return 2
    if all(isinstance(value, (int, float)) for value in categories):
        return max(categories) + 1
    if not all(isinstance(value, str) for value in categories):
        return None
    mask = "hidden"
    while mask in categories:
        mask += "_"
    return mask
