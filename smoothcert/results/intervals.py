"""Certified intervals of smoothed quantiles, and radii within which a smoothed quantile stays near a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_numbers
from .records import TableRecords
from .tables import rounded_down

FloatArray = NDArray[np.float64]


class Regressions(TableRecords):
    """What `Intervals` and `ToleranceRadii` share: the predictions, which are judged by the true values."""

    predictions: FloatArray

    def _judged(self, y: Any) -> dict[str, NDArray[Any]]:
        truth = check_numbers("y", y, len(self))
        return {"truth": truth, "error": np.abs(truth - self.predictions)}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Intervals(Regressions):
    """Certified intervals of a `SmoothedRegressor`.

    Iterates as ``(lower, upper)``.

    Parameters
    ----------
    predictions : ndarray of float64, shape (n_inputs,)
        Those of `SmoothedRegressor.predict`.
    lower, upper : ndarray of float64, shape (n_inputs,) or (n_inputs, n_radii)
        Bounds of the smoothed quantile at every input within the radius; -inf and +inf where there is no bound.
    radius : ndarray of float64, of the shape of ``lower``
        The given radii, in the unit box.
    quantile : float
        The smoothed quantile is that of this order.
    alpha : float
        The probability, for each input and radius, that the interval is wrong.
    norm : float
        The norm of the radius.
    threat : str, default="every perturbation"
        The perturbations that the radii cover; see `Certificates`.
    failed : ndarray of bool, shape (n_inputs,), optional
        Inputs that could not be certified and were skipped; none by default.

    See Also
    --------
    SmoothedRegressor.certify : Make intervals.
    IntervalDisplay : A picture of them.

    References
    ----------
    .. [1] Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, "Detection as Regression: Certified Object
       Detection with Median Smoothing", NeurIPS 2020.

    Examples
    --------
    >>> intervals = Intervals(
    ...     predictions=np.array([3.0, 5.0]), lower=np.array([2.5, 1.0]), upper=np.array([3.5, np.inf]),
    ...     radius=np.array([0.5, 0.5]), quantile=0.5, alpha=0.001, norm=1)
    >>> lower, upper = intervals
    >>> print(upper - lower)
    [ 1. inf]
    """

    predictions: FloatArray
    lower: FloatArray
    upper: FloatArray
    radius: FloatArray
    quantile: float
    alpha: float
    norm: float
    threat: str = "every perturbation"
    failed: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        n_bounded = ", ".join(map(str, np.atleast_1d(np.isfinite(self.upper - self.lower).sum(axis=0))))
        return (
            f"Intervals({len(self)} inputs, {n_bounded} bounded on both sides in l{self.norm:g} against {self.threat}, "
            f"quantile={self.quantile:g}, alpha={self.alpha:g})"
        )

    def __iter__(self) -> Iterator[FloatArray]:
        return iter((self.lower, self.upper))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ToleranceRadii(Regressions):
    """Radii within which the smoothed quantile of a `SmoothedRegressor` stays within a tolerance of its prediction.

    Iterates as ``(predictions, radii)``.

    Parameters
    ----------
    predictions : ndarray of float64, shape (n_inputs,)
        Those of `SmoothedRegressor.predict`.
    radii : ndarray of float64, shape (n_inputs,)
        In the unit box; NaN where the votes do not show that the smoothed quantile of the input itself is as near.
    abstained : ndarray of bool, shape (n_inputs,)
    tolerance : ndarray of float64, shape (n_inputs,)
        The given tolerances, in units of the predictions.
    quantile, alpha, norm, threat, failed
        As in `Intervals`.

    See Also
    --------
    SmoothedRegressor.certify_within : Make them.

    References
    ----------
    .. [1] Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, "Detection as Regression: Certified Object
       Detection with Median Smoothing", NeurIPS 2020.

    Examples
    --------
    >>> found = ToleranceRadii(
    ...     predictions=np.array([3.0, 5.0]), radii=np.array([0.4, np.nan]), abstained=np.array([False, True]),
    ...     tolerance=np.array([1.0, 1.0]), quantile=0.5, alpha=0.001, norm=1)
    >>> print(found)
    ToleranceRadii(2 inputs, 1 abstained, median radius 0.4 in l1 against every perturbation, quantile=0.5, alpha=0.001)
    """

    predictions: FloatArray
    radii: FloatArray
    abstained: NDArray[np.bool_]
    tolerance: FloatArray
    quantile: float
    alpha: float
    norm: float
    threat: str = "every perturbation"
    failed: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        certified = self.radii[~self.abstained]
        median = f", median radius {rounded_down(float(np.median(certified)))}" if len(certified) else ""
        return (
            f"ToleranceRadii({len(self)} inputs, {self.abstained.sum()} abstained{median} in l{self.norm:g} against "
            f"{self.threat}, quantile={self.quantile:g}, alpha={self.alpha:g})"
        )

    def __iter__(self) -> Iterator[FloatArray]:
        return iter((self.predictions, self.radii))
