"""What smoothed estimators share: parameters, the fit of the base model, and inputs that are checked."""

from __future__ import annotations

from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ._utils.checks import (
    check_classes,
    check_count,
    check_no_dates,
    check_not_negative,
    check_positive,
    check_shape,
    explain_invalid,
    sorted_unique,
)
from ._utils.text import describe
from .certify.algorithm import Algorithm
from .certify.names import resolve, resolve_radius
from .conventions import Conventions, kept_on_error
from .models.adapt import check_base_model, make_voter
from .models.base import Voter, is_torch, takes_any_shape, unwrap
from .models.columns import Columns, NamedColumns
from .models.inference import TorchInference
from .models.timeout import TimedVoter
from .noise import Box, Noise
from .noise.mechanism import NoiseMechanism
from .noise.seeding import resolve_seed
from .runs.inputs import Inputs
from .training.datasets import read_dataset


class SmoothedEstimator(Conventions):
    """Parameters, fit and checked inputs of a smoothed estimator; see `SmoothedClassifier`."""

    def __init__(
        self,
        estimator: Any,
        noise: Any = "split",
        *,
        radius: Any = "auto",
        training: Any = "augment",
        bounds: Any = (0.0, 1.0),
        scheme: str = "multiclass",
        bound: str = "clopper-pearson",
        alpha: float = 0.001,
        n_selection: int = 256,
        n_samples: int = 10_000,
        rtol: float | None = None,
        batch_size: int | str = "auto",
        timeout: float | None = None,
        n_jobs: int | None = None,
        device: Any = None,
        inference: TorchInference | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.noise = noise
        self.radius = radius
        self.training = training
        self.bounds = bounds
        self.scheme = scheme
        self.bound = bound
        self.alpha = alpha
        self.n_selection = n_selection
        self.n_samples = n_samples
        self.rtol = rtol
        self.batch_size = batch_size
        self.timeout = timeout
        self.n_jobs = n_jobs
        self.device = device
        self.inference = inference
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_pretrained(cls, estimator: Any, classes: Any, noise: Any = None, **params: Any) -> Self:
        """Smooth a trained model as it is.

        Parameters
        ----------
        estimator : torch.nn.Module, skorch net, fitted classifier or function
            Nothing is trained or copied. It should have met noise in its own training. A function takes a batch,
            float64 of shape (n, *shape), and returns labels, shape (n,), or scores or logits, shape (n, n_classes). It
            and any service behind it must be deterministic, and answer each row independently of the rest of the batch.
        classes : array-like of shape (n_classes,)
            Labels: for torch models and functions in the order of the logits.
        noise : str or Noise, optional
            By default the noise and box of a `smoothcert.training.NoisyModule`, and "split" for other models.
        **params
            Other parameters of `SmoothedClassifier`.

        Returns
        -------
        classifier : SmoothedClassifier
            Fitted.

        Raises
        ------
        ValueError
            If ``bounds`` is "minmax", since there is no data to take it from, or ``classes`` holds duplicates.

        Examples
        --------
        >>> from smoothcert import SmoothedClassifier
        >>> def brightness(batch):
        ...     return batch.mean(axis=1) > 0.5
        >>> clf = SmoothedClassifier.from_pretrained(brightness, classes=[False, True], random_state=0)
        >>> print(clf.certify([[0.1, 0.2, 0.1]]).labels)
        [False]
        """
        frozen = estimator if isinstance(estimator, FrozenEstimator) else FrozenEstimator(estimator)
        check_base_model(frozen)
        model = unwrap(frozen)
        if is_torch(model):
            from .training.torch_layers import carried

            given = None if noise is None else resolve("noise", noise)
            noise, bounds = carried(getattr(model, "module_", model), given, params.pop("bounds", None))
            params |= {} if bounds is None else {"bounds": bounds}
        noise = "split" if noise is None else noise
        classifier = cls(frozen, noise, **params)
        labels, noise = check_classes(classes), classifier._new_noise()
        columns = Columns.of_model(frozen)
        box = Box.from_bounds(classifier.bounds, names=columns.names if columns else None)
        # The shape of inputs is not known yet, and no parameter depends on it.
        classifier._algorithm(NoiseMechanism(box, noise, box.width.shape), labels, None)
        classifier._settle(frozen, labels, box, noise, columns)
        for name in ("feature_names_in_", "n_features_in_") if columns else ():
            setattr(classifier, name, getattr(unwrap(frozen), name))
        return classifier

    @kept_on_error
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Fit the base model, by default on noisy data.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features), or (n_inputs, ...) for torch models, or torch Dataset
            Finite numbers inside the box. A Dataset holds pairs (input, label). Torch models are trained on it, so that
            its transforms run in each epoch anew, before the noise; other models are fitted on one pass over it.
        y : array-like of shape (n_inputs,), or None for a Dataset
            Labels of any type.
        sample_weight : array-like of shape (n_inputs,), optional
            Weights of the inputs in the loss.
        **fit_params
            Passed to the base model's ``fit``. Parameters with one entry per input are repeated along with the noisy
            copies. Validation data for early stopping, ``eval_set=[(X, y)]`` or ``X_val``, become noisy too.

        Returns
        -------
        self : SmoothedClassifier

        Raises
        ------
        ValueError
            If a parameter is invalid, X lies outside the box, or the base model is no classifier.
        """
        check_base_model(self.estimator)
        training = resolve("training", self.training)
        training.check()
        if sample_weight is not None:
            fit_params["sample_weight"] = sample_weight
        fit_params = self._requested(fit_params)
        X, y, dataset = read_dataset(X, y)
        columns = Columns.of(X)
        X, y = self._validate(X, y=y)
        classes = sorted_unique("y", y)
        check_classification_targets(y)
        box, noise = Box.from_bounds(self.bounds, X, columns.names if columns else None), self._new_noise()
        box.check(X, columns.names if columns else None)
        mechanism = NoiseMechanism(box, noise, X.shape[1:])
        self._algorithm(mechanism, classes, None)
        mechanism.points(X)
        if isinstance(self.estimator, FrozenEstimator):
            fitted = self.estimator
            columns = Columns.of_model(fitted, columns)
            classes = np.asarray(getattr(unwrap(fitted), "classes_", classes)) if not is_torch(fitted) else classes
        else:
            model = self.estimator
            if columns is not None and not is_torch(model):
                model = NamedColumns(model, columns)
            fitted = training.train(
                model,
                X,
                y,
                mechanism=mechanism,
                seed=resolve_seed(self.random_state),
                device=self.device,
                verbose=self.verbose,
                dataset=dataset,
                fit_params=fit_params,
            )
            fitted = fitted.estimator if isinstance(fitted, NamedColumns) else fitted
        self._settle(fitted, classes, box, noise, columns)
        self.feature_shape_ = X.shape[1:]
        return self

    def open_inputs(self, X: Any, **options: Any) -> Inputs:
        """Return checked inputs: checked at once, or where they are not in memory as they are read.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...) or sized sequence
        **options
            ``shard`` and ``skip`` of `Inputs`.

        Returns
        -------
        inputs : Inputs
        """
        warned = False

        def validate(part: Any) -> Any:
            nonlocal warned
            checked = self._validate(part)
            warned = warned or self.box_.warn_clipped(checked)
            return checked

        return Inputs(X, validate, **options)

    def algorithm(self, shape: tuple[int, ...], **choices: Any) -> Algorithm:
        """Return Algorithm 1 as this estimator runs it: what draws votes, bounds probabilities and computes radii.

        Parameters
        ----------
        shape : tuple of int
            Shape of one input.
        **choices
            ``n_samples`` and ``rtol`` in place of the estimator's.

        Returns
        -------
        algorithm : Algorithm

        Raises
        ------
        ValueError
            If a parameter is invalid, or what the fitted estimator depends on has changed since.
        """
        self._check_unchanged()
        return self._algorithm(NoiseMechanism(self.box_, self.noise_, shape), self.classes_, self._voter(), **choices)

    def _algorithm(
        self, mechanism: NoiseMechanism, classes: NDArray[Any], voter: Voter | None, **choices: Any
    ) -> Algorithm:
        """Check the parameters of certification, and return Algorithm 1 with them."""
        if self.batch_size != "auto":
            check_count("batch_size", self.batch_size)
        if self.timeout is not None:
            check_positive("timeout", self.timeout)
        if self.rtol is not None and check_not_negative("rtol", self.rtol) >= 1:
            raise ValueError(f"rtol must lie below 1, got {self.rtol!r}.")
        if self.inference is not None:
            if not isinstance(self.inference, TorchInference):
                raise ValueError(f"inference must be a TorchInference or None, got {self.inference!r}.")
            self.inference.check()
        names = ("scheme", "bound", "alpha", "n_selection", "n_samples", "rtol", "batch_size")
        return Algorithm(
            mechanism=mechanism,
            strategy=resolve_radius(self.radius, mechanism.noise),
            classes=classes,
            voter=voter,
            **{name: getattr(self, name) for name in names} | choices,
        )

    def _voter(self) -> Voter:
        """Return the fitted base model as the sampler sees it."""
        voter = make_voter(self.estimator_, self.classes_, self.device, self.inference, self._columns)
        return voter if self.timeout is None else TimedVoter(voter, self.timeout)

    def _validate(self, X: Any, **targets: Any) -> Any:
        """Check X, and y when fitting, and return arrays; torch models take inputs of any shape."""
        any_shape = takes_any_shape(self.estimator)
        check_no_dates(X)
        check_shape(X, None if targets else getattr(self, "feature_shape_", None), any_shape=any_shape)
        try:
            checked = validate_data(self, X, **targets, reset=bool(targets), allow_nd=any_shape)
            data = checked[0] if targets else checked
            if data.dtype.kind not in "biuf":
                raise ValueError(f"X must hold numbers, got dtype {data.dtype}.")
        except (TypeError, ValueError) as error:
            raise explain_invalid(X, error) from error
        return checked

    def _new_noise(self) -> Noise:
        """Resolve and check the noise."""
        noise: Noise = resolve("noise", self.noise)
        noise.check()
        return noise

    def _settle(self, fitted: Any, classes: NDArray[Any], box: Box, noise: Noise, columns: Columns | None) -> None:
        """Set what a fitted classifier consists of; nothing is set if the base model does not fit the classes."""
        make_voter(fitted, classes, self.device, self.inference, columns)
        self.estimator_ = fitted
        self.classes_ = classes
        self.box_ = box
        self.noise_ = noise
        self._columns = columns
        #: Votes that were found to be this model's, and the content that it had then.
        self._checked_votes: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._seed = resolve_seed(self.random_state)

    def _check_unchanged(self) -> None:
        """Raise a ValueError if a parameter that the fitted classifier depends on has changed."""
        changes = {
            "noise": (describe(resolve("noise", self.noise)), describe(self.noise_)),
            "bounds": (
                self.bounds if isinstance(self.bounds, str) else self._named_box().fingerprint(),
                self.box_.fingerprint(),
            ),
        }
        for name, (now, fitted) in changes.items():
            if now not in (fitted, "minmax"):
                raise ValueError(
                    f"{name} has changed to {getattr(self, name)!r} after fit. Call fit again, or for a model that is "
                    f"used as it is, SmoothedClassifier.from_pretrained."
                )

    def _named_box(self) -> Box:
        """Build the box anew, for the columns that fit has seen."""
        return Box.from_bounds(self.bounds, names=getattr(self, "feature_names_in_", None))

    def _call_seed(self) -> int:
        """Seed of one call; a RandomState has given one seed for all calls when fitting."""
        if self.noise_.n_outcomes is not None:
            return 0
        return self._seed if isinstance(self.random_state, np.random.RandomState) else resolve_seed(self.random_state)
