"""A scikit-learn pipeline that passes certification on, and radii in the units of what goes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.pipeline
from numpy.typing import NDArray
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_bool
from .results.certificates import Certificates, Decisions
from .results.votes import VoteCounts

FloatArray = NDArray[np.float64]

#: What `Certificates.threat` says of radii against an adversary without limits.
UNLIMITED = "every perturbation"


def _last_step_has(name: str) -> Callable[[Pipeline], bool]:
    """Return the check whether the last step has a method."""
    return lambda pipeline: hasattr(pipeline.steps[-1][1], name)


class Pipeline(sklearn.pipeline.Pipeline):
    """scikit-learn's pipeline, with `SmoothedClassifier` as the last step: transformers, then noise.

    It has all that scikit-learn's has, and passes `certify`, `certify_at` and `count_votes` on. Noise is added to what
    comes out of the transformers, so that radii are in the unit box of *transformed* values. `to_raw_units` turns them
    into distances between raw inputs, for transformers that scale each feature. To have noise and radii in raw units
    from the start, and with any transformer, put the pipeline inside:
    ``SmoothedClassifier(make_pipeline(StandardScaler(), SVC()))``.

    Parameters
    ----------
    steps : list of (name, estimator)
    transform_input : list of str, default=None
    memory : str or joblib.Memory, default=None
    verbose : bool, default=False
        All as in `sklearn.pipeline.Pipeline`.

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

    @available_if(_last_step_has("certify"))
    def certify(self, X: Any, **params: Any) -> Certificates:
        """Transform the data, and certify with the last step; see `SmoothedClassifier.certify`.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            What the first step takes.
        **params
            Passed to the last step's ``certify``, such as ``votes``; transformers get none of them.

        Returns
        -------
        certificates : Certificates
            Radii are in the unit box of transformed values.
        """
        transformed = self._transformed(X)
        certificates: Certificates = self.steps[-1][1].certify(transformed, **params)
        return certificates

    @available_if(_last_step_has("certify_at"))
    def certify_at(self, X: Any, radius: Any, **params: Any) -> Decisions:
        """Transform the data, and decide with the last step; see `SmoothedClassifier.certify_at`.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            What the first step takes.
        radius : float or array-like of shape (n_inputs,)
            In the unit box of transformed values.
        **params
            Passed to the last step's ``certify_at``.

        Returns
        -------
        decisions : Decisions
        """
        transformed = self._transformed(X)
        decisions: Decisions = self.steps[-1][1].certify_at(transformed, radius, **params)
        return decisions

    @available_if(_last_step_has("count_votes"))
    def count_votes(self, X: Any, **params: Any) -> VoteCounts:
        """Transform the data, and draw the last step's votes; see `SmoothedClassifier.count_votes`.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features)
            What the first step takes.
        **params
            Passed to the last step's ``count_votes``.

        Returns
        -------
        votes : VoteCounts
            For ``certify(X, votes=votes)`` of this pipeline, or of its last step with transformed data.
        """
        transformed = self._transformed(X)
        votes: VoteCounts = self.steps[-1][1].count_votes(transformed, **params)
        return votes

    def raw_weights(self) -> FloatArray:
        """Return how much of the unit box one raw unit of each feature is.

        Certified radii are distances in the l1 norm with these weights: an input whose raw features differ by delta is
        within radius r if ``sum(weights * abs(delta)) <= r``.

        Returns
        -------
        weights : ndarray of shape (n_features,)
            Scale of the transformers over the width of the classifier's box; 0 for features that cannot move. Rounded
            up, by a few parts in 10**15.

        Raises
        ------
        ValueError
            If a step is anything but a StandardScaler, MaxAbsScaler, MinMaxScaler without clip or "passthrough", or the
            last one is no fitted SmoothedClassifier.
        """
        weights, _ = self._weights_and_errors(np.dtype(np.float64), None)
        return weights

    def to_raw_units(self, certificates: Certificates, X: Any, *, weighted: bool = False) -> Certificates:
        """Convert certified radii to distances between raw inputs, as they go into the pipeline.

        Parameters
        ----------
        certificates : Certificates
            What `certify` has returned for X.
        X : array-like of shape (n_inputs, n_features)
            The raw inputs. Their floating-point type decides how far the transformers' rounding can move them.
        weighted : bool, default=False
            Measure distances with the weights of `raw_weights`: this is exact, the same ball in other units. Without
            weights the radius is that of the largest plain ball inside it, which the feature of largest weight decides:
            it is smaller than what could be certified in raw units by the factor in which the weights differ.

        Returns
        -------
        certificates : Certificates
            With radii in raw units, rounded down, and in the same norm.

        Raises
        ------
        ValueError
            If a step does more than scale and shift each feature, which it names; if the radii are against limited
            perturbations only, have been converted before, or are not of X.
        """
        check_is_fitted(self)
        check_bool("weighted", weighted)
        if not isinstance(certificates, Certificates):
            raise ValueError(f"certificates must be what certify returns, got a {type(certificates).__name__}.")
        if certificates.threat != UNLIMITED:
            raise ValueError(
                f"certificates must be against every perturbation in the unit box, got radii against "
                f"{certificates.threat}, which are limits in units that do not carry over. Certify without limits."
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
        # Down by more than the few roundings of these lines.
        radii = radii * (1 - 8 * np.finfo(np.float64).eps)
        distance = "weighted raw units" if weighted else "raw units"
        return replace(certificates, radii=radii, threat=f"{UNLIMITED}, in {distance}")

    def _transformed(self, X: Any) -> Any:
        """Return what the last step gets."""
        check_is_fitted(self)
        for _, transformer in self.steps[:-1]:
            if transformer is not None and transformer != "passthrough":
                X = transformer.transform(X)
        return X

    def _weights_and_errors(self, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> tuple[FloatArray, FloatArray]:
        """Return the weight of each feature, and by how much rounding can move it, both in the unit box.

        The transformers compute in ``dtype``. An error is bounded for transformed values inside the box; since every
        rounded operation is monotone and the box clips, no input outside of it is moved farther.
        """
        check_is_fitted(self)
        last = self.steps[-1][1]
        if not hasattr(last, "box_"):
            raise ValueError(f"The last step must be a SmoothedClassifier, got {last!r}: it has no certified radii.")
        maps = [_affine(name, step) for name, step in self.steps[:-1] if step is not None and step != "passthrough"]
        box, shape = last.box_, shape or (last.n_features_in_,)
        eps = np.finfo(dtype).eps if dtype.kind == "f" else np.finfo(np.float64).eps
        # Backwards from the box: the scale of what has been passed, the largest value there, the errors summed.
        scale, errors = np.ones(shape), np.zeros(shape)
        values = np.broadcast_to(np.maximum(np.abs(box.lo), np.abs(box.hi)), shape)
        for factor, shift in reversed(maps):
            # Both coefficients and both operations are rounded, each by eps/2 of one of these terms.
            errors = errors + scale * 4 * eps * (values + np.abs(shift))
            scale = scale * factor
            values = (values + np.abs(shift)) / factor
        if maps:
            errors = errors + scale * eps * values
        width = np.broadcast_to(box.width, shape)
        per_unit = np.where(width > 0, 1 / np.where(width > 0, width, 1.0), 0.0)
        slack = 1 + 4 * np.finfo(np.float64).eps * (len(maps) + 1)
        return scale * per_unit * slack, errors * per_unit * slack


def _affine(name: str, step: Any) -> tuple[FloatArray, FloatArray]:
    """Return scale and shift of each feature, for a fitted transformer that does nothing else."""
    zero, one = np.zeros(()), np.ones(())
    if type(step) is StandardScaler:
        scale = one if step.scale_ is None else 1 / step.scale_
        return scale, -step.mean_ * scale if step.with_mean else zero
    if type(step) is MaxAbsScaler and not getattr(step, "clip", False):
        # The scale of float32 data is float32, and so its reciprocal would be.
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
        Transformers, then a SmoothedClassifier.
    memory : str or joblib.Memory, default=None
    transform_input : list of str, default=None
    verbose : bool, default=False
        All as in `sklearn.pipeline.make_pipeline`.

    Returns
    -------
    pipeline : Pipeline

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> list(make_pipeline(MinMaxScaler(), SmoothedClassifier(LogisticRegression())).named_steps)
    ['minmaxscaler', 'smoothedclassifier']
    """
    named = sklearn.pipeline.make_pipeline(*steps).steps
    return Pipeline(named, memory=memory, transform_input=transform_input, verbose=verbose)
