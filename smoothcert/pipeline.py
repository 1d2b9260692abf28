"""A scikit-learn pipeline that certifies, and converts radii to the units of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import sklearn.pipeline
from numpy.typing import NDArray
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_bool
from .certify.strategy import EVERY, lattice_under
from .conventions import kept_on_error
from .results.certificates import Certificates, FloatArray
from .results.decisions import Decisions
from .results.intervals import ToleranceRadii
from .results.votes import VoteCounts


def _last_step_has(name: str) -> Callable[[Pipeline], bool]:
    """Return a function that tells whether the last step has a method."""
    return lambda pipeline: hasattr(pipeline.steps[-1][1], name)


class Pipeline(sklearn.pipeline.Pipeline):
    """The pipeline of scikit-learn, with what a smoothed estimator as its last step does beyond `predict`.

    Noise is added after the transformers, so radii are in the unit box of *transformed* values. `to_raw_units` converts
    them to distances between raw inputs, if the transformers scale each feature. For noise and radii in raw units, and
    for any transformer, put the pipeline inside: ``SmoothedClassifier(make_pipeline(StandardScaler(), SVC()))``.

    Parameters
    ----------
    steps : list of (name, estimator)
    transform_input : list of str, default=None
    memory : str or joblib.Memory, default=None
    verbose : bool, default=False
        As in `sklearn.pipeline.Pipeline`.

    See Also
    --------
    make_pipeline : Build a pipeline without naming its steps.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(GaussianNB(), n_samples=500, random_state=0)
    >>> pipeline = make_pipeline(MinMaxScaler(), clf).fit(X, y)
    >>> certificates = pipeline.certify(X[::50])
    >>> print(certificates.radii.round(2))
    [0.28  nan 0.02]
    >>> print(pipeline.to_raw_units(certificates, X[::50]).radii.round(2))
    [0.68  nan 0.05]
    """

    @kept_on_error
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit all steps, or none: after an error the pipeline and its steps are as they were.

        Parameters
        ----------
        X, y, **params
            As in `sklearn.pipeline.Pipeline.fit`.

        Returns
        -------
        self : Pipeline
        """
        return super().fit(X, y, **params)

    @available_if(_last_step_has("certify"))
    def certify(self, X: Any, **params: Any) -> Any:
        """Transform the inputs, and certify with the last step.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            Inputs of the first step.
        **params
            Parameters of ``certify`` of the last step, such as ``votes``.

        Returns
        -------
        certificates : Certificates or Intervals
            What the last step returns, with radii in the unit box of transformed values.

        See Also
        --------
        SmoothedClassifier.certify, SmoothedRegressor.certify : The method of the last step.
        to_raw_units : Convert the radii.
        """
        return self.steps[-1][1].certify(self._transformed(X), **params)

    @available_if(_last_step_has("certify_at"))
    def certify_at(self, X: Any, radius: Any, **params: Any) -> Decisions:
        """Transform the inputs, and decide with the last step.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            Inputs of the first step.
        radius : float or array-like
            As in `SmoothedClassifier.certify_at`, in the unit box of transformed values.
        **params
            Parameters of ``certify_at`` of the last step.

        Returns
        -------
        decisions : Decisions

        See Also
        --------
        SmoothedClassifier.certify_at : The method of the last step.
        """
        return self.steps[-1][1].certify_at(self._transformed(X), radius, **params)

    @available_if(_last_step_has("count_votes"))
    def count_votes(self, X: Any, **params: Any) -> VoteCounts:
        """Transform the inputs, and draw votes with the last step.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            Inputs of the first step.
        **params
            Parameters of ``count_votes`` of the last step.

        Returns
        -------
        votes : VoteCounts
            Votes for ``certify(X, votes=votes)`` of this pipeline, or of its last step with transformed inputs.

        See Also
        --------
        SmoothedClassifier.count_votes : The method of the last step.
        """
        return self.steps[-1][1].count_votes(self._transformed(X), **params)

    @available_if(_last_step_has("certify_within"))
    def certify_within(self, X: Any, tolerance: Any, **params: Any) -> ToleranceRadii:
        """Transform the inputs, and find radii with the last step.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            Inputs of the first step.
        tolerance : float or array-like of shape (n_inputs,)
            In units of the predictions.
        **params
            Parameters of ``certify_within`` of the last step.

        Returns
        -------
        radii : ToleranceRadii

        See Also
        --------
        SmoothedRegressor.certify_within : The method of the last step.
        """
        return self.steps[-1][1].certify_within(self._transformed(X), tolerance, **params)

    @available_if(_last_step_has("conformalize"))
    def conformalize(self, X_calib: Any, y_calib: Any) -> Self:
        """Transform calibration inputs, and find the threshold of the last step.

        Parameters
        ----------
        X_calib : array-like of shape (n_calibration, n_features)
            Inputs of the first step.
        y_calib : array-like of shape (n_calibration,)
            True labels.

        Returns
        -------
        self : Pipeline

        See Also
        --------
        SmoothedConformalClassifier.conformalize : The method of the last step.
        """
        self.steps[-1][1].conformalize(self._transformed(X_calib), y_calib)
        return self

    @available_if(_last_step_has("predict_set"))
    def predict_set(self, X: Any) -> NDArray[np.bool_]:
        """Transform the inputs, and return the sets of the last step.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            Inputs of the first step.

        Returns
        -------
        sets : ndarray of bool, shape (n_inputs, n_classes)

        See Also
        --------
        SmoothedConformalClassifier.predict_set : The method of the last step.
        """
        return self.steps[-1][1].predict_set(self._transformed(X))

    def raw_weights(self) -> FloatArray:
        """Return the length in the unit box of one raw unit of each feature, times its cost.

        Certified radii are distances in the l1 norm with these weights: an input whose raw features differ by delta is
        within radius r if ``sum(weights * abs(delta)) <= r``.

        Returns
        -------
        weights : ndarray of shape (n_features,)
            The scale of the transformers over the width of the classifier's box, or 0 for features that cannot move.
            They are rounded up by a few parts in 10**15.

        Raises
        ------
        ValueError
            If a step is not a StandardScaler, a MaxAbsScaler, a MinMaxScaler without clip or "passthrough", if the last
            step is not a fitted SmoothedClassifier, or if some features are fixed or categories.

        See Also
        --------
        to_raw_units : Convert radii with these weights.
        """
        weights, _ = self._weights_and_errors(np.dtype(np.float64), None)
        return weights

    def to_raw_units(self, certificates: Certificates, X: Any, *, weighted: bool = False) -> Certificates:
        """Convert certified radii to distances between the raw inputs of the pipeline.

        Parameters
        ----------
        certificates : Certificates
            The certificates of X.
        X : array-like of shape (n_inputs, n_features)
            The raw inputs. Their floating-point type determines the rounding errors of the transformers.
        weighted : bool, default=False
            Whether to measure distances with the weights of `raw_weights`, which gives the same ball in other units.
            Without weights, the result is the largest unweighted ball inside it. The feature with the largest weight
            limits that ball, so noise in raw units could certify more if weights differ.

        Returns
        -------
        certificates : Certificates
            Certificates with radii in raw units, rounded down, in the same norm.

        Raises
        ------
        ValueError
            If a step does more than scale and shift each feature, or if the radii hold only for limited perturbations,
            are already converted, or are not of X.

        See Also
        --------
        raw_weights : The weights.
        """
        check_is_fitted(self)
        check_bool("weighted", weighted)
        if not isinstance(certificates, Certificates):
            raise ValueError(f"certificates must be what certify returns, got a {type(certificates).__name__}.")
        last = self.steps[-1][1]
        lattice = lattice_under(last.noise_, last.features_) if hasattr(last, "noise_") else ""
        if certificates.threat not in (EVERY, f"perturbations {lattice}"):
            raise ValueError(
                f"certificates must be against every perturbation in the unit box, got radii against "
                f"{certificates.threat}, which are limits that cannot be converted. Certify without limits."
            )
        n_inputs = X.shape[0] if hasattr(X, "shape") else len(X)
        if n_inputs != len(certificates):
            raise ValueError(f"X must hold the {len(certificates)} inputs of certificates, got {n_inputs}.")
        example = np.asarray(self._transformed(X[:1]))
        weights, errors = self._weights_and_errors(example.dtype, example.shape[1:])
        rounding = np.linalg.norm(2 * errors.ravel(), ord=certificates.norm)
        radii = np.maximum(certificates.radii - rounding, 0.0)
        if not weighted:
            largest = weights.max()
            radii = radii / largest if largest > 0 else np.where(np.isnan(radii), np.nan, np.inf)
        # The factor exceeds the rounding errors of these lines.
        radii = radii * (1 - 8 * np.finfo(np.float64).eps)
        return replace(certificates, radii=radii, threat=f"{certificates.threat}, in {'weighted ' * weighted}raw units")

    def _transformed(self, X: Any) -> Any:
        """Return the inputs of the last step."""
        check_is_fitted(self)
        return self[:-1].transform(X) if len(self.steps) > 1 else X

    def _weights_and_errors(self, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> tuple[FloatArray, FloatArray]:
        """Return the weight and the maximum rounding error of each feature, both in the unit box.

        The transformers compute in ``dtype``. The error is bounded for transformed values inside the box. Other inputs
        have no larger error, because every rounded operation is monotone and the box clips.
        """
        check_is_fitted(self)
        last = self.steps[-1][1]
        if not hasattr(last, "box_"):
            raise ValueError(f"The last step must be a SmoothedClassifier, got {last!r}: it has no certified radii.")
        maps = [_affine(name, step) for name, step in self.steps[:-1] if step is not None and step != "passthrough"]
        box, shape = last.box_, shape or (last.n_features_in_,)
        features = last.features_.for_shape(shape)
        if not features.numeric.all():
            raise ValueError(
                "costs must be finite, and features numbers, for radii in raw units: fixed features and categories "
                "have no weight there. Put the transformers inside: SmoothedClassifier(make_pipeline(...))."
            )
        eps = np.finfo(dtype).eps if dtype.kind == "f" else np.finfo(np.float64).eps
        # Backward from the box: the scale and the sum of errors of the steps so far, and the largest value before.
        scale, errors = np.ones(shape), np.zeros(shape)
        values = np.broadcast_to(np.maximum(np.abs(box.lo), np.abs(box.hi)), shape)
        for factor, shift in reversed(maps):
            # The two coefficients and the two operations each have a rounding error of eps/2 of one of these terms.
            errors = errors + scale * 4 * eps * (values + np.abs(shift))
            scale = scale * factor
            values = (values + np.abs(shift)) / factor
        if maps:
            errors = errors + scale * eps * values
        width = np.broadcast_to(box.width, shape)
        costs = features.costs if not features.costs.ndim else features.costs.reshape(shape)
        per_unit = np.divide(costs, width, out=np.zeros(shape), where=width > 0)
        slack = 1 + 4 * np.finfo(np.float64).eps * (len(maps) + 1)
        return scale * per_unit * slack, errors * per_unit * slack


def _affine(name: str, step: Any) -> tuple[FloatArray, FloatArray]:
    """Return the scale and shift of each feature by a fitted transformer, or raise a ValueError if it does more."""
    zero, one = np.zeros(()), np.ones(())
    if type(step) is StandardScaler:
        scale = one if step.scale_ is None else 1 / step.scale_
        return scale, -step.mean_ * scale if step.with_mean else zero
    if type(step) is MaxAbsScaler and not getattr(step, "clip", False):
        # The scale of float32 data is float32, and its reciprocal would be too.
        return 1 / step.scale_.astype(np.float64), zero
    if type(step) is MinMaxScaler and not step.clip:
        return step.scale_, step.min_
    raise ValueError(
        f"Step {name!r} must scale each feature by itself for radii in raw units: a StandardScaler, a MaxAbsScaler "
        f"or a MinMaxScaler, without clip, got {step!r}. Put the transformers inside the classifier, "
        f"SmoothedClassifier(make_pipeline(...)), to certify in raw units."
    )


def make_pipeline(
    *steps: Any, memory: Any = None, transform_input: list[str] | None = None, verbose: bool = False
) -> Pipeline:
    """Build a `Pipeline` whose steps are named after their types, as `sklearn.pipeline.make_pipeline` does.

    Parameters
    ----------
    *steps : estimator
        Transformers, followed by a smoothed estimator.
    memory : str or joblib.Memory, default=None
    transform_input : list of str, default=None
    verbose : bool, default=False
        As in `sklearn.pipeline.make_pipeline`.

    Returns
    -------
    pipeline : Pipeline

    See Also
    --------
    Pipeline : The class.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> list(make_pipeline(MinMaxScaler(), SmoothedClassifier(LogisticRegression())).named_steps)
    ['minmaxscaler', 'smoothedclassifier']
    """
    named = sklearn.pipeline.make_pipeline(*steps).steps
    return Pipeline(named, memory=memory, transform_input=transform_input, verbose=verbose)
