"""Columns of tables: a base model that is fitted on named columns, of any type, votes on such columns.

Between tables lies a matrix of floats, to which noise is added: numbers, and codes of all other values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metaestimators import available_if

from . import series
from .base import is_torch, unwrap
from .codes import Categories, FixedNumbers, FixedValues, Numbers
from .validation import converted


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table.

    Parameters
    ----------
    names : tuple of str, or None
        None for arrays.
    library : {"pandas", "polars", "numpy"}
        The library that makes the tables.
    codecs : tuple, optional
        How each column becomes numbers, and numbers become the column; without them all columns are floats.
    unmasked : tuple, optional
        The codecs of the user's own columns, where ``codecs`` are those of columns with masks.
    """

    names: tuple[str, ...] | None
    library: str
    codecs: tuple[Any, ...] | None = None
    unmasked: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """Return the columns of a DataFrame, or None for other data and for names that are not strings."""
        library = series.library_of(X)
        names = () if library == "numpy" else tuple(X.columns)
        return cls(names, library) if names and all(isinstance(name, str) for name in names) else None

    @classmethod
    def of_model(cls, model: Any, given: Columns | None = None) -> Columns | None:
        """Return the columns that a model was fitted on, or None if it was fitted on an array.

        Raises
        ------
        ValueError
            If the columns of the data differ from those of the model.
        """
        names = getattr(unwrap(model), "feature_names_in_", None)
        if names is None:
            return given if given is not None and given.codecs is not None else None
        names = tuple(map(str, names))
        if given is not None and given.names is not None and given.names != names:
            raise ValueError(
                f"X must have the columns that the base model {type(unwrap(model)).__name__} was fitted on, "
                f"{list(names)}, in this order, got {list(given.names)}."
            )
        if given is not None:
            return given
        found = next((library for library in ("pandas", "polars") if find_spec(library)), None)
        return None if found is None else cls(names, found)

    @classmethod
    def learn(cls, X: Any, *, fixed: Any, categorical: Any, missing: str) -> Self | None:
        """Return the columns of training data, with codecs if a column is fixed or holds categories.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_inputs, n_features)
        fixed : ndarray of bool, shape (n_features,)
            Columns that the adversary cannot change.
        categorical : ndarray of bool, shape (n_features,)
            Columns that hold categories. Those that are fixed as well stay as they are.
        missing : {"error", "category"}
            Whether missing values, where there are some, are a category.

        Raises
        ------
        ValueError
            If a column cannot be encoded, or columns have one name.
        """
        plain = cls.of(X)
        if not (fixed.any() or categorical.any()):
            return plain
        library, names = series.library_of(X), None if plain is None else plain.names
        if library == "numpy" and not categorical.any() and np.asarray(X).dtype.kind in "biuf":
            return None
        series.check_names(X)
        if library != "numpy" and names is None:
            raise ValueError(f"The names of the columns of X must be strings, got {list(X.columns)}.")

        def codec(i: int, column: Any) -> Any:
            name = f"feature {i}" if names is None else f"column {names[i]!r}"
            if not fixed[i] and not categorical[i]:
                return Numbers(name)
            if fixed[i] and series.is_number(column):
                return FixedNumbers(name, column.dtype, library)
            if fixed[i] and series.declared_categories(column) is None:
                return FixedValues(name, column.dtype, library)
            return Categories.learn(name, column, library, missing=missing, fixed=bool(fixed[i]))

        return cls(names, library, tuple(codec(i, column) for i, column in enumerate(series.columns_of(X))))

    def shown(self, hidden: str) -> Self:
        """Return the columns as the base model sees them: with a mask, of code K, where that hides categories.

        Raises
        ------
        ValueError
            If there is no value for the mask.
        """
        if hidden != "mask" or self.codecs is None:
            return self
        codecs = [codec.masked(self.library) if codec.n_categories else codec for codec in self.codecs]
        return replace(self, codecs=tuple(codecs), unmasked=self.codecs)

    def check_model(self, model: Any) -> None:
        """Raise a ValueError if a torch model, which sees numbers and codes of categories, cannot see a column."""
        hashed = [codec.name for codec in self.codecs or () if isinstance(codec, FixedValues)]
        if hashed and is_torch(model):
            raise ValueError(
                f"A torch model sees numbers and the codes of categories, but {hashed[0]} is fixed and holds neither. "
                f"Encode it as numbers, or drop it."
            )

    @property
    def n_categories(self) -> NDArray[np.int64]:
        """Number of categories that the adversary can choose in each column, 0 for others; shape () without codecs."""
        return np.array(0 if self.codecs is None else [codec.n_categories for codec in self.codecs], dtype=np.int64)

    def encode(self, X: Any) -> NDArray[np.float64]:
        """Return a table with these columns as a matrix.

        Raises
        ------
        ValueError
            If a category is unknown or missing, or a number is missing; the message names the column.
        """
        pairs = zip(self.codecs or (), series.columns_of(X), strict=True)
        return np.column_stack([codec.encode(column) for codec, column in pairs])

    def frame(self, array: NDArray[Any]) -> Any:
        """Return a matrix of shape (n, n_features) as a table. In pandas it shares the memory of floats."""
        if self.codecs is not None:
            columns = [codec.decode(column) for codec, column in zip(self.codecs, array.T, strict=True)]
            return series.frame(columns, self.names, self.library)
        module = import_module(self.library)
        if self.library == "pandas":
            return module.DataFrame(array, columns=list(self.names or ()), copy=False)
        return module.from_numpy(array, schema=list(self.names or ()), orient="row")

    def like(self, array: NDArray[Any], X: Any) -> Any:
        """Return a matrix as a table of the user's own values, if X is one, with the index of X if that fits."""
        if self.codecs is None and series.library_of(X) == "numpy":
            return array
        table = replace(self, codecs=self.unmasked or self.codecs).frame(array)
        if series.library_of(X) == self.library == "pandas" and len(X) == len(table):
            table.index = X.index
        return table


def hidden_by(hidden: str, columns: Columns | None, model: Any) -> str:
    """Return how categories are hidden. "auto" is the mask if there is one, and the model can still learn it."""
    if hidden != "auto" or columns is None or not columns.n_categories.any():
        return "mask" if hidden == "auto" else hidden
    try:
        columns.shown("mask")
    except ValueError:
        return "uniform"
    return "uniform" if is_torch(model) or isinstance(model, FrozenEstimator) else "mask"


def categorical_columns(categorical_features: Any, X: Any, n_features: int) -> NDArray[np.bool_]:
    """Return which columns hold categories.

    Parameters
    ----------
    categorical_features : None, "from_dtype", or array-like of names, indices or booleans
        "from_dtype" takes the columns of a DataFrame that hold strings, objects, booleans or categories by their type.
    X : DataFrame or array-like of shape (n_inputs, n_features)
    n_features : int

    Raises
    ------
    ValueError
        If a column is unknown.
    """
    found = np.zeros(n_features, dtype=bool)
    if categorical_features is None:
        return found
    if isinstance(categorical_features, str) and categorical_features == "from_dtype":
        if series.library_of(X) != "numpy":
            found[:] = [_holds_categories(column) for column in series.columns_of(X)]
        return found
    given = np.asarray(categorical_features, dtype=object).ravel().tolist()
    columns = Columns.of(X)
    if given and all(isinstance(item, (bool, np.bool_)) for item in given) and len(given) == n_features:
        found[:] = given
    elif columns is not None and set(given) <= set(columns.names or ()):
        found[[(columns.names or ()).index(item) for item in given]] = True
    elif all(
        isinstance(item, Integral) and not isinstance(item, bool) and 0 <= int(item) < n_features for item in given
    ):
        found[given] = True
    else:
        known = f"column names among {list(columns.names or ())}, " if columns is not None else ""
        raise ValueError(
            f"categorical_features must be None, 'from_dtype', {known}positions below {n_features}, or one boolean for "
            f"each of {n_features} columns, got {categorical_features!r}."
        )
    return found


def _holds_categories(column: Any) -> bool:
    return series.is_boolean(column) or not (series.is_number(column) or series.is_dated(column))


class NamedColumns(BaseEstimator):
    """An estimator that takes matrices and passes them to another one as tables.

    Parameters
    ----------
    estimator : estimator
    columns : Columns
    """

    def __init__(self, estimator: Any, columns: Columns) -> None:
        self.estimator = estimator
        self.columns = columns

    def fit(self, X: NDArray[Any], y: Any, **params: Any) -> Self:
        """Fit the estimator."""
        self.estimator.fit(self.columns.frame(X), y, **converted(params, inputs=self.columns.frame))
        return self

    @available_if(lambda self: hasattr(self.estimator, "partial_fit"))
    def partial_fit(self, X: NDArray[Any], y: Any, **params: Any) -> Self:
        """Fit the estimator on some more data."""
        self.estimator.partial_fit(self.columns.frame(X), y, **params)
        return self
