"""Training on tables: the base model gets columns, and hidden categories as it accepts them."""

from __future__ import annotations

from contextlib import suppress
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
    except (TypeError, ValueError) as error:
        if any_way and hidden != "uniform" and mechanism.features.categorical.any():
            with suppress(TypeError, ValueError):
                return train("uniform")
        if columns is not None and columns.codecs is not None and "could not convert" in str(error):
            error.add_note(
                "The base model got the columns of X as they are, and cannot read one that holds no numbers. Encode it "
                "inside the base model, with make_column_transformer((OneHotEncoder(), [...]), ...) for instance, or "
                "give it the dtype 'category' if the base model has categories of its own, as "
                "HistGradientBoostingClassifier(categorical_features='from_dtype') does."
            )
        raise
