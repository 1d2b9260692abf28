"""Scores for the model selection of scikit-learn: certified accuracy, and its counterpart for regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED

from .._utils.checks import check_choice, check_not_negative, check_numbers
from .._utils.pipelines import last_step
from .metrics import AVERAGES, check_sample_weight, check_truth, rows_of_classes


class CertifiedScorer(BaseEstimator):
    """A scorer that returns the certified accuracy; see `make_certified_scorer`.

    Parameters
    ----------
    radius : float
    norm : float, default=1
    average : {"micro", "macro"}, default="micro"

    See Also
    --------
    make_certified_scorer : Make a scorer, with an example.
    """

    # Only sample_weight is metadata; the estimator is the first argument of every scorer.
    __metadata_request__score = {"estimator": UNUSED}  # noqa: RUF012

    def __init__(self, radius: float, *, norm: float = 1, average: str = "micro") -> None:
        self.radius = radius
        self.norm = norm
        self.average = average

    def score(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the certified accuracy of a fitted classifier.

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True labels.
        sample_weight : array-like of shape (n_inputs,), optional

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If the estimator cannot certify, or certifies in another norm.
        """
        estimator, X = last_step(estimator, X)
        if not hasattr(estimator, "certify_at"):
            raise ValueError(
                f"estimator must be a SmoothedClassifier, or a Pipeline that ends in one, to have a certified "
                f"accuracy, got a {type(estimator).__name__}."
            )
        decisions = estimator.certify_at(X, self.radius)
        if decisions.norm != self.norm:
            raise ValueError(
                f"norm={self.norm:g} is the norm of the scorer, but the classifier's radii are in l{decisions.norm:g}. "
                f"Use make_certified_scorer({self.radius!r}, norm={decisions.norm:g}), and one norm for all candidates."
            )
        labels, robust = decisions
        truth, weight = check_truth(y, labels), check_sample_weight(sample_weight, len(labels))
        right = (truth == labels) & robust
        rows = rows_of_classes(truth, weight) if self.average == "macro" else [slice(None)]
        return float(np.mean([np.average(right[part], weights=weight[part]) for part in rows]))

    __call__ = score


def make_certified_scorer(radius: float, *, norm: float = 1, average: str = "micro") -> CertifiedScorer:
    """Make a scorer of certified accuracy, for the ``scoring`` of GridSearchCV, cross_val_score and others.

    The score is the share of inputs that are classified right and certified at the radius; abstentions count as wrong.
    `SmoothedClassifier.certify_at` decides for each input, and stops sampling as soon as the answer is clear. Each
    positive decision is wrong with probability at most alpha, like a radius of `certify`. The two methods draw
    different numbers of votes, so they may differ for inputs whose radius is close to the given one.

    Radii are in the unit box of each candidate, so all candidates must share one box. Give ``bounds`` as numbers:
    "minmax" follows the training part of each fold. Keep the bounds and the transformers before the classifier out of
    the grid. Strategies that limit the adversary, such as ``GreedyRadius(max_features=1)``, are comparable only with
    strategies that have the same limits.

    Parameters
    ----------
    radius : float
        The radius in the unit box, at least 0.
    norm : float, default=1
        The norm of the radius.
    average : {"micro", "macro"}, default="micro"
        "macro" is certified balanced accuracy, the mean over classes. With rare classes, accuracy favors wide noise
        under which a constant classifier is left; balanced accuracy does not.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``. With metadata routing enabled,
        ``scorer.set_score_request(sample_weight=True)`` asks for weights.

    Raises
    ------
    ValueError
        If ``radius`` is negative or not a number, or ``average`` is unknown.

    See Also
    --------
    certified_accuracy_score : The score of given certificates.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, section
       4: certified accuracy.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedClassifier, SplitNoise
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SmoothedClassifier(GaussianNB(), SplitNoise(), n_samples=200, random_state=0)
    >>> search = GridSearchCV(clf, {"noise__lam": [0.02, 1.0]}, scoring=make_certified_scorer(radius=0.2), cv=2)
    >>> search.fit(minmax_scale(X), y).best_params_
    {'noise__lam': 1.0}
    """
    check_not_negative("radius", radius)
    check_choice("average", average, AVERAGES[:2])
    return CertifiedScorer(radius, norm=norm, average=average)


class IntervalScorer(BaseEstimator):
    """A scorer of certified regression; see `make_interval_scorer`.

    Parameters
    ----------
    radius, tolerance : float

    See Also
    --------
    make_interval_scorer : Make a scorer, with an example.
    """

    __metadata_request__score = {"estimator": UNUSED}  # noqa: RUF012

    def __init__(self, radius: float, tolerance: float) -> None:
        self.radius = radius
        self.tolerance = tolerance

    def score(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of inputs at which the smoothed quantile provably stays within the tolerance.

        Parameters
        ----------
        estimator : SmoothedRegressor, or Pipeline that ends in one
            The fitted regressor.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True values.
        sample_weight : array-like of shape (n_inputs,), optional

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If the estimator has no intervals.
        """
        if not hasattr(estimator, "certify") or hasattr(estimator, "certify_at"):
            raise ValueError(
                f"estimator must be a SmoothedRegressor, or a smoothcert.pipeline.Pipeline that ends in one, to have "
                f"intervals, got a {type(estimator).__name__}. For classifiers, use make_certified_scorer."
            )
        lower, upper = estimator.certify(X, radius=self.radius)
        truth, weight = check_numbers("y", y, len(lower)), check_sample_weight(sample_weight, len(lower))
        near = (lower >= truth - self.tolerance) & (upper <= truth + self.tolerance)
        return float(np.average(near, weights=weight))

    __call__ = score


def make_interval_scorer(radius: float, tolerance: float) -> IntervalScorer:
    """Make a scorer of certified regression, for the ``scoring`` of GridSearchCV, cross_val_score and others.

    The score is the share of inputs for which the smoothed quantile stays within a tolerance of the true value at every
    input within the radius, by the interval of `SmoothedRegressor.certify`. At radius 0 and with many votes, it is the
    share of predictions within the tolerance.

    Radii are in the unit box of each candidate, so all candidates must share one box, as for `make_certified_scorer`.

    Parameters
    ----------
    radius : float
        The radius in the unit box, at least 0.
    tolerance : float
        In units of the targets, at least 0.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``.

    Raises
    ------
    ValueError
        If an argument is negative or not a number.

    See Also
    --------
    make_certified_scorer : The score of classifiers.

    References
    ----------
    .. [1] Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, "Detection as Regression: Certified Object
       Detection with Median Smoothing", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedRegressor, SplitNoise
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SmoothedRegressor(LinearRegression(), SplitNoise(), n_samples=200, random_state=0)
    >>> scorer = make_interval_scorer(radius=0.1, tolerance=100)
    >>> search = GridSearchCV(reg, {"noise__lam": [0.02, 1.0]}, scoring=scorer, cv=2)
    >>> search.fit(minmax_scale(X), y).best_params_
    {'noise__lam': 1.0}
    """
    return IntervalScorer(check_not_negative("radius", radius), check_not_negative("tolerance", tolerance))
