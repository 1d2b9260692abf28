"""Training on tables: the base model gets columns, and hidden categories as it accepts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from ..models.base import is_torch
from ..models.columns import Columns, NamedColumns
from ..noise.mechanism import NoiseMechanism
from .strategies import Training


def train_on_columns(
    training: Training,
    estimator: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    mechanism: NoiseMechanism,
    columns: Columns | None,
    any_way: bool,
    **options: Any,
) -> tuple[Any, str, Columns | None]:
    """Fit a copy of a base model on the user's columns.

    Parameters
    ----------
    training : Training
    estimator : estimator, torch module or skorch net
    X, y, mechanism
        As in `Training.train`.
    columns : Columns or None
        What the base model sees; torch models see codes.
    any_way : bool
        Whether categories may be hidden behind other categories if the base model refuses the mask.
    **options
        Further parameters of `Training.train`.

    Returns
    -------
    fitted : estimator or skorch net
    hidden : {"mask", "uniform"}
        What replaces hidden categories.
    columns : Columns or None
        What the fitted model sees.
    """

    def train(hidden: str) -> tuple[Any, str, Columns | None]:
        shown = None if columns is None else columns.shown(hidden)
        model = estimator if shown is None or is_torch(estimator) else NamedColumns(estimator, shown)
        features = replace(mechanism.features, hidden=hidden)
        fitted = training.train(model, X, y, mechanism=replace(mechanism, features=features), **options)
        return fitted.estimator if isinstance(fitted, NamedColumns) else fitted, hidden, shown

    hidden = mechanism.features.hidden
    try:
        return train(hidden)
    except (TypeError, ValueError):
        if not any_way or hidden == "uniform" or not mechanism.features.categorical.any():
            raise
        try:
            return train("uniform")
        except (TypeError, ValueError):
            pass
        raise
