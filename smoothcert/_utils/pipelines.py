"""Pipelines that end in a smoothed classifier."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline


def last_step(estimator: Any, *inputs: Any) -> tuple[Any, ...]:
    """Return the last step of a fitted pipeline, and the inputs as it gets them.

    Parameters
    ----------
    estimator : estimator
        If it is no pipeline, everything is returned as it is.
    *inputs : array-like

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> pipeline = Pipeline([("double", FunctionTransformer(lambda X: [2 * x for x in X])), ("last", GaussianNB())])
    >>> last_step(pipeline, [1, 2])
    (GaussianNB(), [2, 4])
    """
    while isinstance(estimator, Pipeline):
        if len(estimator.steps) > 1:
            inputs = tuple(estimator[:-1].transform(X) for X in inputs)
        estimator = estimator.steps[-1][1]
    return (estimator, *inputs)
