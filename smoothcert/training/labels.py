"""Labels of any type for base models that can only be fitted on class indices."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if

from ..models.columns import NamedColumns
from ..models.validation import converted


class IndexedLabels(ClassifierMixin, BaseEstimator):
    """A classifier that is fitted on class indices and answers with labels.

    Parameters
    ----------
    estimator : estimator
        Takes labels 0, 1, ... only, as XGBoost does.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, **params: Any) -> Self:
        """Fit the estimator on the indices of the labels."""
        self.classes_, indices = np.unique(y, return_inverse=True)
        indexed = converted(params, labels=lambda labels: np.searchsorted(self.classes_, labels))
        self.estimator.fit(X, indices, **indexed)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return labels."""
        labels: NDArray[Any] = self.classes_[np.asarray(self.estimator.predict(X)).astype(np.intp)]
        return labels

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the estimator's probabilities, whose columns are in the order of the labels."""
        return np.asarray(self.estimator.predict_proba(X))


def indexed(estimator: Any) -> Any:
    """Wrap an estimator in `IndexedLabels`, below the names of its columns if it has them."""
    if isinstance(estimator, NamedColumns):
        return NamedColumns(IndexedLabels(estimator.estimator), estimator.columns)
    return IndexedLabels(estimator)
