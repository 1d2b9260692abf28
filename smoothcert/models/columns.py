"""Columns of pandas and polars DataFrames: a base model that is fitted on named columns votes on named columns."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if

from .base import unwrap
from .validation import converted


@dataclass(frozen=True)
class Columns:
    """Column names of arrays.

    Parameters
    ----------
    names : tuple of str
    library : {"pandas", "polars"}
        The library that makes the DataFrames.
    """

    names: tuple[str, ...]
    library: str

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """Return the columns of a DataFrame, or None for other data and for names that are not strings."""
        for library in ("pandas", "polars"):
            module = sys.modules.get(library)
            if module is not None and isinstance(X, module.DataFrame):
                names = tuple(X.columns)
                return cls(names, library) if all(isinstance(name, str) for name in names) else None
        return None

    @classmethod
    def of_model(cls, model: Any, given: Columns | None = None) -> Self | None:
        """Return the columns that a model was fitted on, or None if it was fitted on an array.

        Raises
        ------
        ValueError
            If the columns of the data differ from those of the model.
        """
        names = getattr(unwrap(model), "feature_names_in_", None)
        if names is None:
            return None
        names = tuple(map(str, names))
        if given is not None and given.names != names:
            raise ValueError(
                f"X must have the columns that the base model {type(unwrap(model)).__name__} was fitted on, "
                f"{list(names)}, in this order, got {list(given.names)}."
            )
        libraries = [given.library] if given is not None else ["pandas", "polars"]
        found = next((library for library in libraries if find_spec(library)), None)
        return None if found is None else cls(names, found)

    def frame(self, array: NDArray[Any]) -> Any:
        """Return an array of shape (n, n_features) as a DataFrame. In pandas it shares the memory of the array."""
        module = import_module(self.library)
        if self.library == "pandas":
            return module.DataFrame(array, columns=list(self.names), copy=False)
        return module.from_numpy(array, schema=list(self.names), orient="row")


class NamedColumns(BaseEstimator):
    """An estimator that takes arrays and passes them to another one as DataFrames.

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
