"""Certified intervals of smoothed quantiles, and radii within which a smoothed quantile stays near a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_numbers
from .records import TableRecords, made_anew
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
    Intervals.from_store : Make them from the votes of a run.
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
        n_bounded = ", ".join(map(str, np.atleast_1d((np.isfinite(self.lower) & np.isfinite(self.upper)).sum(axis=0))))
        return (
            f"Intervals({len(self)} inputs, {n_bounded} bounded on both sides in l{self.norm:g} against {self.threat}, "
            f"quantile={self.quantile:g}, alpha={self.alpha:g})"
        )

    @classmethod
    def from_store(
        cls,
        path: Any,
        radius: Any,
        *,
        strategy: Any = None,
        quantile: float | None = None,
        alpha: float | None = None,
        X: Any = None,
        partial: bool = False,
    ) -> Intervals:
        """Make intervals from the votes of a run. This draws no votes and needs no model.

        Parameters
        ----------
        path : str or path-like
            A store, written by ``certify`` or ``certify_within`` of a `SmoothedRegressor`.
        radius : float or array-like
            As in `SmoothedRegressor.certify`, for all inputs of the run.
        strategy : str or RadiusStrategy, optional
            What the adversary is granted: the parameter ``radius`` of `SmoothedRegressor`.
        quantile, alpha : float, optional
            As in `SmoothedRegressor`. None keeps the parameter of the run, here and for the strategy.
        X : array-like or sequence, optional
            The inputs of the run. Limits on single features (``max_change``) need them, and so do limits that involve
            more features than the store keeps. Without them, bounds on quantiles beyond 0.001 and 0.999 may be
            infinite although the votes allow finite ones.
        partial : bool, default=False
            Whether to take the finished inputs of an unfinished run, in the order of their positions.

        Returns
        -------
        intervals : Intervals
            They are those that `SmoothedRegressor.certify` returns with these parameters and the seed of the run.

        Raises
        ------
        ValueError
            If the file is not a sound store of a regressor, the run is unfinished, a parameter is invalid, or X is
            needed.

        See Also
        --------
        ToleranceRadii.from_store : Radii of tolerances, from the same votes.

        Examples
        --------
        >>> import tempfile
        >>> from smoothcert import SmoothedRegressor
        >>> reg = SmoothedRegressor.from_pretrained(lambda batch: batch.mean(axis=1), random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     intervals = reg.certify([[0.1, 0.2, 0.1]], 0.2, store=f"{folder}/run.sqlite")
        ...     wider = Intervals.from_store(f"{folder}/run.sqlite", 0.3, quantile=0.6)
        >>> print(wider.upper > intervals.upper)
        [ True]
        """
        choices = {"strategy": strategy, "quantile": quantile, "alpha": alpha, "X": X, "partial": partial}
        return made_anew("quantiles_from_store", path, "radius", radius, **choices)

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

    @classmethod
    def from_store(
        cls,
        path: Any,
        tolerance: Any,
        *,
        strategy: Any = None,
        quantile: float | None = None,
        alpha: float | None = None,
        X: Any = None,
        partial: bool = False,
    ) -> ToleranceRadii:
        """Make radii of tolerances from the votes of a run. This draws no votes and needs no model.

        Parameters
        ----------
        path : str or path-like
            As in `Intervals.from_store`.
        tolerance : float or array-like of shape (n_inputs,)
            As in `SmoothedRegressor.certify_within`, for all inputs of the run.
        strategy, quantile, alpha, X : optional
        partial : bool, default=False
            As in `Intervals.from_store`.

        Returns
        -------
        radii : ToleranceRadii
            They are those that `SmoothedRegressor.certify_within` returns with these parameters and the seed of the
            run.

        Raises
        ------
        ValueError
            As in `Intervals.from_store`.

        See Also
        --------
        Intervals.from_store : Intervals at radii, with an example.
        """
        choices = {"strategy": strategy, "quantile": quantile, "alpha": alpha, "X": X, "partial": partial}
        return made_anew("quantiles_from_store", path, "tolerance", tolerance, **choices)

    def __iter__(self) -> Iterator[FloatArray]:
        return iter((self.predictions, self.radii))
