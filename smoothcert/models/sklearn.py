"""Scikit-learn classifiers, and any other model with ``predict``, as base models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier

from .base import LabelTable, Voter, checked_probabilities, checked_values, name_of, no_probabilities
from .identity import content_of
from .threads import n_threads, process_settings


class SklearnVoter(Voter):
    """Votes of a model whose ``predict`` returns one label or number per row, in shape (n,) or (n, 1).

    Without ``classes``, it predicts numbers.
    """

    dtype = np.float64
    batch_values = 2**20
    # Steps on columns take a few milliseconds, however few rows there are.
    free_rows = 2**12

    def __init__(
        self, estimator: Any, classes: NDArray[Any] | None, columns: Any = None, *, finite: bool = True
    ) -> None:
        if classes is not None:
            _check_known(estimator, classes)
            self.labels = LabelTable(classes)
        self.estimator = estimator
        self.columns = columns
        self.n_classes = 1 if classes is None else len(classes)
        parts = sklearn_parts(estimator)
        self.votes_alone = not parts
        # A dummy that draws labels at random answers by the place of a row in the batch.
        self.content_decides = bool(parts) and not any(isinstance(part, DummyClassifier) for part in parts)
        if self.content_decides:
            self.most_changed = None
        self.config = get_config()
        if len(parts) == 1 and finite:
            # Noisy rows are finite, and checking that takes linear models longer than the answer.
            self.config["assume_finite"] = True

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        labels = self._ask("predict", batch)
        if labels.shape not in ((len(batch),), (len(batch), 1)):
            raise ValueError(
                f"The base model {name_of(self.estimator)} must return one label per row, shape ({len(batch)},), but "
                f"returned shape {labels.shape}. Nothing was certified."
            )
        return self.labels.indices(labels.reshape(-1), name_of(self.estimator))

    def values(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return predicted numbers; see `Voter.values`."""
        return checked_values(self._ask("predict", batch), len(batch), name_of(self.estimator))

    def _ask(self, method: str, batch: NDArray[Any]) -> NDArray[Any]:
        """Return what a method of the estimator answers about a noisy batch."""
        rows = batch if self.columns is None else self.columns.frame(batch)
        # scikit-learn has one configuration per thread.
        with config_context(**self.config):
            return np.asarray(getattr(self.estimator, method)(rows))

    def probabilities(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return the base model's ``predict_proba``, 0 for classes that it does not know; see `Voter.probabilities`."""
        name = name_of(self.estimator)
        if not hasattr(self.estimator, "predict_proba"):
            raise ValueError(no_probabilities(f"The base model {name}"))
        answer = self._ask("predict_proba", batch)
        known = np.asarray(getattr(self.estimator, "classes_", self.labels.classes))
        found = np.zeros((len(batch), self.n_classes))
        found[:, self.labels.indices(known, name)] = checked_probabilities(answer, len(batch), len(known), name)
        return found

    def content(self) -> str:
        """Return the content of the fitted estimator; see `Voter.content`."""
        return f"{name_of(self.estimator)} {content_of(self.estimator)}"

    def for_threads(self) -> list[SklearnVoter]:
        """Return this voter once for each thread; once in all unless only scikit-learn's own code runs."""
        return [self] * (1 if self.votes_alone else n_threads(self.n_cores))

    def voting(self) -> AbstractContextManager[Any]:
        """Limit BLAS to each thread's share of the cores, and keep the filters of warnings."""
        n_voters = len(self.for_threads())
        return process_settings(max(1, self.n_cores // n_voters)) if n_voters > 1 else nullcontext()


def _check_known(estimator: Any, classes: NDArray[Any]) -> None:
    """Raise a ValueError if a model knows other classes, or may know some."""
    known = np.asarray(getattr(estimator, "classes_", classes))
    if not np.isin(known, classes).all():
        raise ValueError(
            f"The base model {name_of(estimator)} has the classes {known.tolist()!r}. classes must hold all of "
            f"them, got {classes.tolist()!r}."
        )
    if len(classes) == 1 and not hasattr(estimator, "classes_"):
        raise ValueError(
            f"The base model {name_of(estimator)} has no classes_, so it may return other labels than "
            f"{classes[0]!r}. classes must hold at least two labels."
        )


def sklearn_parts(estimator: Any) -> list[BaseEstimator]:
    """Return an estimator and the estimators inside it, or nothing if any code is not scikit-learn's own."""
    parts = list(_parts(estimator))
    known = all(_is_own(part) or _is_plain(part) for part in parts)
    return [part for part in parts if _is_own(part)] if known else []


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value, and the values inside it: items, or parameters of scikit-learn's own estimators."""
    yield value
    inside: Any = ()
    if isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, dict):
        inside = value.values()
    elif _is_own(value):
        inside = value.get_params(deep=False).values()
    for part in inside:
        yield from _parts(part)


def _is_plain(value: Any) -> bool:
    """Tell whether a parameter runs no code. Items of containers are checked separately."""
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, type):
        return issubclass(value, np.generic)
    return value is None or isinstance(value, (bool, int, float, str, slice, np.generic, list, tuple, dict))


def _is_own(value: Any) -> bool:
    return isinstance(value, BaseEstimator) and type(value).__module__.startswith("sklearn.")
