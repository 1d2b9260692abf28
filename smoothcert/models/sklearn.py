"""Scikit-learn classifiers, and anything else with ``predict``, as base models that vote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator

from .base import LabelTable, Voter, name_of
from .identity import content_of
from .threads import limit_blas, n_threads


class SklearnVoter(Voter):
    """Votes of anything with ``predict`` that returns labels."""

    dtype = np.float64
    batch_values = 2**20

    def __init__(self, estimator: Any, classes: NDArray[Any], columns: Any = None) -> None:
        known = np.asarray(getattr(estimator, "classes_", classes))
        if not np.isin(known, classes).all():
            raise ValueError(
                f"The base model {name_of(estimator)} has the classes {known.tolist()!r}: classes must hold them all, "
                f"got {classes.tolist()!r}."
            )
        if len(classes) == 1 and not hasattr(estimator, "classes_"):
            raise ValueError(
                f"The base model {name_of(estimator)} has no classes_, so it cannot be relied on to return nothing but "
                f"{classes[0]!r}: classes must hold at least two labels."
            )
        self.estimator = estimator
        self.columns = columns
        self.labels = LabelTable(classes)
        self.n_classes = len(classes)
        parts = sklearn_parts(estimator)
        self.alone = not parts
        self.config = get_config()
        if len(parts) == 1:
            # It is given noisy rows, which are finite: linear models take longer to check that than to answer.
            self.config["assume_finite"] = True

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        rows = batch if self.columns is None else self.columns.frame(batch)
        # scikit-learn keeps its configuration for each thread.
        with config_context(**self.config):
            labels = np.asarray(self.estimator.predict(rows))
        if labels.shape != (len(batch),):
            raise ValueError(
                f"The base model {name_of(self.estimator)} must return one label per row, shape ({len(batch)},), but "
                f"returned shape {labels.shape}. Nothing was certified."
            )
        return self.labels.places(labels, name_of(self.estimator))

    def content(self) -> str:
        """Return the content of the fitted estimator; see `Voter.content`."""
        return f"{name_of(self.estimator)} {content_of(self.estimator)}"

    def team(self) -> list[SklearnVoter]:
        """Return this voter several times if scikit-learn's own code is all that runs: threads may call it."""
        return [self] * (1 if self.alone else n_threads(self.n_cores))

    def voting(self) -> AbstractContextManager[Any]:
        """Leave each thread its share of the cores, for BLAS too."""
        n_members = len(self.team())
        return limit_blas(max(1, self.n_cores // n_members)) if n_members > 1 else nullcontext()


def sklearn_parts(estimator: Any) -> list[BaseEstimator]:
    """Return an estimator and those that it is made of, if all of their code is scikit-learn's own; else none."""
    parts = list(_parts(estimator))
    known = all(_is_own(part) or _is_plain(part) for part in parts)
    return [part for part in parts if _is_own(part)] if known else []


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and what it is made of: its parameters, where it is an estimator of scikit-learn's own."""
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
    """Tell whether a parameter runs no code: it is a value, or holds what is looked at on its own."""
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, type):
        return issubclass(value, np.generic)
    return value is None or isinstance(value, (bool, int, float, str, slice, np.generic, list, tuple, dict))


def _is_own(value: Any) -> bool:
    return isinstance(value, BaseEstimator) and type(value).__module__.startswith("sklearn.")
