"""Functions as base models: from a batch to labels or scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import LabelTable, Voter, checked_probabilities, checked_values, no_probabilities
from .identity import UNKNOWN

#: Largest distance from 1 of the sum of probabilities that a function returns.
SUM_ERROR = 1e-3


class FunctionVoter(Voter):
    """Votes of a function that takes a noisy batch, float64 of shape (n, *shape), and returns one answer per row.

    An answer of shape (n,) holds labels, or numbers without ``classes``. An answer of shape (n, n_classes) holds
    scores, logits or probabilities, and the vote is the class of the largest. The answer to a row must not depend on
    the rest of the batch or on earlier calls. Joblib's threads call the function at the same time, so it must be
    thread-safe there.
    """

    dtype = np.float64
    batch_values = 2**20

    def __init__(self, function: Callable[[NDArray[Any]], Any], classes: NDArray[Any] | None) -> None:
        self.function = function
        self.labels = LabelTable(np.arange(1) if classes is None else classes)
        self.n_classes = len(self.labels.classes)

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        answer = self.function(batch)
        name, n = _name(self.function), len(batch)
        try:
            array = np.asarray(answer)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"The base model {name} must return an array, but returned a {type(answer).__name__} that cannot be "
                f"converted to one: {error}. Nothing was certified."
            ) from error
        if array.shape == (n,):
            if self.n_classes == 1:
                raise ValueError(
                    f"The base model {name} returns labels, and may return others than {self.labels.classes.tolist()}. "
                    f"classes must hold at least two labels. Nothing was certified."
                )
            return self.labels.indices(array, name)
        if array.shape != (n, self.n_classes) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"The base model {name} must return one label per row, shape ({n},), or one score per class, numbers "
                f"of shape ({n}, {self.n_classes}), but returned shape {array.shape} of {array.dtype}. Nothing was "
                f"certified."
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(f"The base model {name} returned NaN scores. Nothing was certified.")
        return array.argmax(axis=1)

    def probabilities(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return the function's answer, whose rows must sum to 1; see `Voter.probabilities`."""
        # A copy: functions may answer in a buffer of their own, or in the batch, which the next batch overwrites.
        answer, name = np.array(self.function(batch)), _name(self.function)
        if answer.shape == (len(batch),):
            raise ValueError(no_probabilities(f"The base model {name}"))
        found = checked_probabilities(answer, len(batch), self.n_classes, name)
        if (found < 0).any() or (np.abs(found.sum(axis=1) - 1) > SUM_ERROR).any():
            raise ValueError(
                f"The base model {name} must return probabilities, at least 0 and with sum 1 in each row, got the row "
                f"{found[np.abs(found.sum(axis=1) - 1).argmax()].tolist()!r}. No set was made. Turn logits into "
                f"probabilities by scipy.special.softmax(logits, axis=1)."
            )
        return found

    def values(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return the function's answer; see `Voter.values`."""
        return checked_values(self.function(batch), len(batch), _name(self.function))

    def content(self) -> str:
        """Return the function's name; its content is not known. See `Voter.content`."""
        return f"{_name(self.function)} {UNKNOWN}"


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
