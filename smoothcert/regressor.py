"""`SmoothedRegressor`: certified intervals of what a regression model predicts under noise."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from ._utils.checks import check_path, check_radii
from .certify.quantiles import QuantileAlgorithm
from .conventions import CheckedScore
from .estimator import SmoothedEstimator
from .models.base import Voter
from .noise.mechanism import NoiseMechanism
from .results.intervals import Intervals, ToleranceRadii
from .runs.inputs import Inputs
from .runs.model_check import votes_of_run
from .runs.progress import Progress, followed
from .runs.run import Part, sample_votes


@dataclass(eq=False, repr=False, kw_only=True)
class SmoothedRegressor(CheckedScore, RegressorMixin, SmoothedEstimator):
    """Randomized smoothing of any regressor, with certified intervals.

    The smoothed regressor returns a quantile of what the base model predicts under noise, the median by default.
    `predict` estimates it. `certify` bounds it at every input within an l1 radius, and `certify_within` gives the
    radius within which it provably stays near the prediction. Both hold with probability at least 1 - alpha for each
    input. Radii and the box are those of `SmoothedClassifier`.

    Parameters
    ----------
    estimator : estimator, torch.nn.Module or skorch.NeuralNetRegressor
        The base model: a scikit-learn regressor or pipeline; a torch module that returns one number per row (see the
        notes); a skorch net with settings of its own; or a fitted one inside `sklearn.frozen.FrozenEstimator`, which is
        used as it is.
    noise : str or Noise, default="split"
        "split", "uniform" or "uniform-mixture": noise whose certificates rest on overlaps.
    quantile : float, default=0.5
        The order of the quantile, between 0 and 1.
    radius : {"auto", "lipschitz", "box", "greedy"} or RadiusStrategy, default="auto"
        What the adversary is granted; "auto" is greedy, the tightest.
    training : {"augment", None} or Training, default="augment"
        How the base model is fitted: on noisy data or on clean data.
    bounds, costs, categorical_features, hidden, missing
        The box, costs and categories, as in `SmoothedClassifier`.
    alpha : float, default=0.001
        Probability, for each input, that its certificate is wrong.
    n_selection : int, default=256
        Number of votes that `predict` takes the quantile of.
    n_samples : int, default=10_000
        Number of fresh votes that bound quantiles.
    batch_size, timeout, n_jobs, device, inference, random_state, verbose
        How the base model is asked, as in `SmoothedClassifier`.

    Attributes
    ----------
    estimator_ : estimator or skorch net
        The fitted base model.
    noise_ : Noise
    box_ : Box
    features_ : Features
        Costs of the features, and which of them are categories.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where X was a DataFrame, or the trained model knows them.
    feature_shape_ : tuple of int
        Shape of one input.

    See Also
    --------
    SmoothedClassifier : The same for labels.
    IntervalDisplay : A picture of intervals against the radius.
    make_interval_scorer : A score for model selection.

    Notes
    -----
    A bare torch module is trained with Adam on the mean squared error, with targets and inputs standardized: its
    outputs are scaled to the mean and standard deviation of the targets.

    Certificates are about the numbers that the base model returns. Where the last bits of them depend on the batch, as
    for torch models, a bound is as precise as these numbers are.

    References
    ----------
    .. [1] Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, "Detection as Regression: Certified Object
       Detection with Median Smoothing", NeurIPS 2020: percentile smoothing, for Gaussian noise.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Theorem 2.8.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SmoothedRegressor(RandomForestRegressor(20), bounds="minmax", n_samples=1000, random_state=0)
    >>> lower, upper = reg.fit(X[::2], y[::2]).certify(X[1:4:2], radius=0.1)
    >>> print((lower <= reg.predict(X[1:4:2])) & (reg.predict(X[1:4:2]) <= upper))
    [ True  True]
    """

    kind = "regressor"

    quantile: float = 0.5

    @classmethod
    def from_pretrained(cls, estimator: Any, noise: Any = None, **params: Any) -> Self:
        """Smooth a trained model as it is.

        Parameters
        ----------
        estimator : torch.nn.Module, skorch net, fitted regressor or function
            Nothing is trained or copied. It should have met noise in its own training. A function takes a batch,
            float64 of shape (n, *shape), and returns numbers, shape (n,). It and any service behind it must be
            deterministic, and answer each row independently of the rest of the batch.
        noise : str or Noise, optional
            By default the noise and box of a `smoothcert.training.NoisyModule`, and "split" for other models.
        **params
            Other parameters of `SmoothedRegressor`.

        Returns
        -------
        regressor : SmoothedRegressor
            Fitted.

        Raises
        ------
        ValueError
            If ``bounds`` is "minmax" or ``categorical_features`` is set, since both need data, or if another parameter
            is invalid.

        Examples
        --------
        >>> from smoothcert import SmoothedRegressor
        >>> reg = SmoothedRegressor.from_pretrained(lambda batch: batch.mean(axis=1), random_state=0)
        >>> reg.certify([[0.1, 0.2, 0.1]], radius=0.2).lower.round(1)
        array([0.4])
        """
        return cls._from_model(estimator, noise, None, params)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the quantile of the selection votes.

        These are the predictions of `certify` and `certify_within` if ``random_state`` is set.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        predictions : ndarray of shape (n_inputs,)
            Each is one of the numbers that the base model returned.
        """
        inputs = self.open_inputs(X)
        algorithm = self.algorithm(inputs.shape)
        parts = sample_votes(algorithm.sampler(self._call_seed(), n_samples=0), inputs, self.n_jobs)
        progress = Progress(len(inputs), "predicting", self.verbose)
        return followed(parts, progress, lambda part: algorithm.predictions(part.votes))

    def certify(
        self,
        X: Any,
        radius: Any,
        *,
        store: Any = None,
        same_model: bool = False,
        shard: tuple[int, int] | None = None,
        on_error: str = "raise",
    ) -> Intervals:
        """Bound the smoothed quantile at every input within a radius: ``lower, upper = reg.certify(X, 0.5)``.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        radius : float or array-like of shape (n_inputs,), (1, n_radii) or (n_inputs, n_radii)
            At least 0, in units of the unit box and in the norm of the radius strategy. Two dimensions are several
            radii for each input, ``[[0.0, 0.5, 1.0]]`` for instance, on the same votes.
        store : str or path-like, optional
            File that records the votes, input by input, so that a run that was stopped can be resumed. Votes depend on
            neither radii nor tolerances, so any calls of `certify` and `certify_within` may share a store. Inputs that
            are finished in it are not drawn again; see `Intervals.from_store`.
        same_model, shard, on_error
            As in `SmoothedClassifier.certify`. `Intervals.concatenate` joins the intervals of shards.

        Returns
        -------
        intervals : Intervals
            For each input and radius, with probability at least 1 - alpha over the sampling, the smoothed quantile at
            every input within the radius lies in the interval. A bound is infinite where the noise of two inputs within
            the radius overlaps too little, or the votes are too few.

        Raises
        ------
        ValueError
            If X, ``radius`` or a parameter is invalid, the votes are too few to bound anything, the store belongs to
            another run, or the base model returns anything but one number per row.
        """
        inputs = self._open_run(X, shard, on_error)
        radii = check_radii(radius, len(inputs), several=True)
        found: Intervals = self._followed(inputs, store, same_model, on_error, radius=radii)
        return found

    def certify_within(
        self,
        X: Any,
        tolerance: Any,
        *,
        store: Any = None,
        same_model: bool = False,
        shard: tuple[int, int] | None = None,
        on_error: str = "raise",
    ) -> ToleranceRadii:
        """Return radii within which the smoothed quantile stays within a tolerance of the prediction.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        tolerance : float or array-like of shape (n_inputs,)
            At least 0, in units of the predictions.
        store, same_model, shard, on_error
            As in `certify`; see `ToleranceRadii.from_store`.

        Returns
        -------
        radii : ToleranceRadii
            Iterates as ``(predictions, radii)``. For each input that is not abstained on, with probability at least
            1 - alpha over the sampling, the smoothed quantile at every input within the radius differs from the
            prediction by no more than the tolerance.

        Raises
        ------
        ValueError
            If X, ``tolerance`` or a parameter is invalid, or as in `certify`.

        Notes
        -----
        The predictions come from the selection votes alone and the bounds from the estimation votes alone. Taking both
        from one draw would break the proof.
        """
        inputs = self._open_run(X, shard, on_error)
        tolerances = check_radii(tolerance, len(inputs), name="tolerance")
        found: ToleranceRadii = self._followed(inputs, store, same_model, on_error, tolerance=tolerances)
        return found

    def _followed(
        self, inputs: Inputs, store: Any, same_model: bool, on_error: str, **asked: NDArray[np.float64]
    ) -> Any:
        """Return the results of all parts of a run; only the votes of one part are in memory at a time."""
        algorithm, ((name, values),) = self.algorithm(inputs.shape), asked.items()
        certify = algorithm.certify if name == "radius" else algorithm.certify_within

        def result(part: Part) -> Any:
            at = values[part.index]
            return algorithm.failed(**{name: at}) if part.failed else certify(part.votes, part.X, at)

        options: dict[str, Any] = {
            "store": check_path("store", store),
            "vouched": same_model,
            "skip": on_error == "skip",
        }
        options |= {"fixed_seed": self.random_state is not None}
        parts = votes_of_run(algorithm, algorithm.sampler(self._call_seed()), inputs, self.n_jobs, **options)
        return followed(parts, Progress(len(inputs.positions), "certifying", self.verbose), result)

    def _read_targets(self, y: NDArray[Any]) -> tuple[NDArray[Any], None]:
        if y.dtype.kind not in "biuf" and not all(isinstance(value, Real) for value in y.tolist()):
            raise ValueError(f"y must hold numbers, got {y.dtype}, such as {y[0]!r}. SmoothedClassifier takes labels.")
        return y if y.dtype.kind in "iuf" else y.astype(np.float64), None

    def _algorithm(
        self, mechanism: NoiseMechanism, classes: Any, voter: Voter | None, **choices: Any
    ) -> QuantileAlgorithm:
        return self._with_parameters(QuantileAlgorithm, mechanism, voter, **choices)
