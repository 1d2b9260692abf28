"""Cross-validation inside a base model's ``fit``: all noisy copies of an input stay on the same side of a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import MetadataRequest

from .._utils.warn import warn
from ..models.columns import NamedColumns
from ..models.validation import INPUTS
from .labels import IndexedLabels


@dataclass
class FoldsOfCopies:
    """A splitter of noisy copies, which come one copy of all inputs after the other.

    Parameters
    ----------
    folds : splitter
        Splits the inputs.
    n_copies : int
    """

    folds: Any
    n_copies: int

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits."""
        return int(self.folds.get_n_splits(*self._inputs(X, y, groups)))

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield the rows of the copies on both sides."""
        shifts = np.arange(self.n_copies)[:, None] * (len(X) // self.n_copies)
        for train, test in self.folds.split(*self._inputs(X, y, groups)):
            yield (shifts + train).ravel(), (shifts + test).ravel()

    def get_metadata_routing(self) -> MetadataRequest:
        """Return what the splitter of the inputs requests."""
        return self.folds.get_metadata_routing()

    def _inputs(self, *parts: Any) -> list[Any]:
        """Return the first copy of all inputs, and their labels and groups."""
        return [None if part is None else _safe_indexing(part, slice(len(part) // self.n_copies)) for part in parts]


def fit_copies(estimator: Any, X: Any, y: Any, n_copies: int, params: dict[str, Any]) -> Any:
    """Fit an estimator on noisy copies, and return it; its folds, if it makes some, are those of the inputs.

    Warns
    -----
    UserWarning
        If a part of the estimator makes folds that see some of its rows only, or stops early by a random split.
    """
    model = estimator
    while isinstance(model, (NamedColumns, IndexedLabels)):
        model = model.estimator
    given = model.get_params(deep=True) if n_copies > 1 and hasattr(model, "get_params") else {}
    stopping = list(_random_splits(given, len(X), params))
    hidden = [name for name, value in given.items() if name.rpartition("__")[2] == "oob_score" and value]
    outer, folds = set(_own_folds(model)), {}
    for name, value in given.items():
        if name.rpartition("__")[2] != "cv" or isinstance(value, str):
            continue
        # RidgeClassifierCV leaves one row out at a time, and takes no folds where it stores the results.
        alone = value is None and given.get(f"{name.removesuffix('cv')}store_cv_results")
        if name in outer and not alone and not isinstance(value, float):
            folds[name] = FoldsOfCopies(check_cv(value, y, classifier=not predicts_numbers(model)), n_copies)
        else:
            hidden.append(name)
    if folds:
        model.set_params(**folds)
    fitted = estimator.fit(X, y, **params)
    if folds:
        model.set_params(**{name: given[name] for name in folds})
    # Warnings come after fit, which may fail and be tried in another way.
    if stopping:
        warn(
            f"Early stopping of the base model holds back random rows, so noisy copies of one input are on both sides "
            f"of its split, and training may stop too late. Switch it off ({', '.join(stopping)}), or give validation "
            f"data of its own to fit where it takes them, such as X_val and y_val.",
        )
    if hidden:
        warn(
            f"The base model makes folds of its own ({', '.join(sorted(hidden))}), which put noisy copies of one input "
            f"on both sides of a split: its scores are too good, and what it chooses by them may overfit. Put the "
            f"search outside: GridSearchCV(SmoothedClassifier(...), ...).",
        )
    return fitted


def predicts_numbers(estimator: Any) -> bool:
    """Tell whether an estimator, which may take matrices instead of tables, is a regressor."""
    model = estimator.estimator if isinstance(estimator, NamedColumns) else estimator
    return hasattr(model, "__sklearn_tags__") and bool(is_regressor(model))


def _random_splits(given: dict[str, Any], n_rows: int, params: dict[str, Any]) -> Iterator[str]:
    """Yield how to switch early stopping off, for each part of an estimator that holds back a share of random rows."""
    for name, share in given.items():
        prefix = name.removesuffix("validation_fraction")
        if prefix == name or not share or INPUTS in params:
            continue
        switch = "early_stopping" if f"{prefix}early_stopping" in given else "n_iter_no_change"
        stops, off = given.get(f"{prefix}{switch}"), False if switch == "early_stopping" else None
        # "auto": HistGradientBoostingClassifier stops early above this number of rows.
        if n_rows > 10_000 if stops == "auto" else stops:
            yield f"{prefix}{switch}={off}"


def _own_folds(model: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of parameters that make folds of all rows of ``fit``."""
    if isinstance(model, Pipeline):
        for name, step in model.steps:
            yield from _own_folds(step, f"{prefix}{name}__")
    elif type(model).__module__.startswith("sklearn.") and "cv" in getattr(model, "get_params", dict)():
        yield f"{prefix}cv"
