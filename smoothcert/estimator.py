"""What smoothed estimators share: parameters, the fit of the base model, and inputs that are checked."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, fields, replace
from numbers import Integral
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_choice, check_count, check_number, check_positive, on_host, shape_of, unmasked
from ._utils.text import describe, exact
from .certify.names import resolve, resolve_radius
from .conventions import Conventions, kept_on_error
from .models.adapt import check_base_model, make_voter
from .models.base import Voter, is_torch, number_of_columns, unwrap
from .models.codes import MISSING
from .models.columns import Columns, categorical_columns, hidden_by
from .models.timeout import TimedVoter
from .models.torch_inference import TorchInference, torch_device
from .noise import Box, Noise
from .noise.mechanism import NoiseMechanism
from .noise.seeding import resolve_seed
from .noise.threat import HIDDEN, Features
from .runs.inputs import Inputs
from .training.carried_noise import carried
from .training.constant_models import warn_constant
from .training.tables import train_on_columns
from .training.torch_datasets import read_dataset


@dataclass(eq=False, repr=False)
class SmoothedEstimator(Conventions):
    """The parameters that smoothed estimators share, their fit, and checked inputs; see `SmoothedClassifier`."""

    #: ``fit`` hands weights on: where metadata are routed, the base model requests them.
    __metadata_request__fit: ClassVar = {"sample_weight": UNUSED}

    #: What the base model is: "classifier" or "regressor".
    kind: ClassVar[str]

    estimator: Any
    noise: Any = "split"
    _: KW_ONLY
    radius: Any = "auto"
    training: Any = "augment"
    bounds: Any = (0.0, 1.0)
    costs: Any = 1.0
    categorical_features: Any = None
    hidden: str = "auto"
    missing: str = "error"
    alpha: float = 0.001
    n_selection: int = 256
    n_samples: int = 10_000
    batch_size: int | str = "auto"
    timeout: float | None = None
    n_jobs: int | None = None
    device: Any = None
    inference: TorchInference | None = None
    random_state: Any = None
    verbose: int = 0

    @classmethod
    def _from_model(cls, estimator: Any, noise: Any, classes: Any, params: dict[str, Any]) -> Self:
        """Smooth a trained model as it is; see ``from_pretrained``."""
        frozen = estimator if isinstance(estimator, FrozenEstimator) else FrozenEstimator(estimator)
        check_base_model(frozen, cls.kind)
        given = None if noise is None else resolve("noise", noise)
        own, *found = carried(unwrap(frozen), given, params.pop("bounds", None), params.pop("costs", None))
        noise = noise or own or "split"
        params |= {name: v for name, v in zip(("bounds", "costs"), found, strict=True) if v is not None}
        smoothed = cls(frozen, noise, **params)
        if smoothed.categorical_features is not None:
            raise ValueError(
                f"categorical_features={smoothed.categorical_features!r} needs data that hold the categories. Use "
                f"{cls.__name__}(FrozenEstimator(estimator), ...).fit(X, y), which trains nothing."
            )
        columns = Columns.of_model(frozen)
        names = columns.names if columns else None
        features, noise = Features.from_costs(smoothed.costs, names=names), smoothed._new_noise().for_columns(names)
        n_features = number_of_columns(frozen) if names is None else len(names)
        if n_features is not None:
            features.for_shape((n_features,))
        box = Box.from_bounds(smoothed.bounds, names=names, unbounded=~features.numeric)
        for name in ("feature_names_in_", "n_features_in_") if columns else ():
            setattr(smoothed, name, getattr(unwrap(frozen), name))
        if n_features is None:
            # Costs and levels alone tell the shape of inputs, which other parameters must fit later.
            shape, known_box = features.costs.shape or np.shape(noise.column_steps or 0), Box.from_bounds((0, 1))
        else:
            shape, known_box = (n_features,), box
        mechanism = NoiseMechanism(known_box, noise, shape, features)
        mechanism.warn_coarse_levels()
        smoothed._check_algorithm(mechanism, classes, by_feature=n_features is not None)
        smoothed._settle(frozen, classes, box, noise, features, columns)
        return smoothed

    @kept_on_error
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Fit the base model, by default on noisy data.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features), or (n_inputs, ...) for torch models, or torch Dataset
            Finite numbers inside the box. Columns that are declared as categories or fixed may hold anything, and the
            base model gets the columns of a DataFrame with their names and types. A Dataset holds pairs (input, label).
            Torch models are trained on it, so that its transforms run in each epoch anew, before the noise; other
            models are fitted on one pass over it.
        y : array-like of shape (n_inputs,), or None for a Dataset
            Labels of any type, or numbers where the base model is a regressor, read by position.
        sample_weight : array-like of shape (n_inputs,), optional
            Weights of the inputs in the loss.
        **fit_params
            Passed to the base model's ``fit``. Parameters with one entry per input are repeated along with the noisy
            copies. Validation data for early stopping, ``eval_set=[(X, y)]`` or ``X_val``, become noisy too.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, X lies outside the box, a category is missing, or the base model is of another
            kind.
        """
        check_base_model(self.estimator, self.kind)
        training = resolve("training", self.training)
        training.check()
        weights = {} if sample_weight is None else {"sample_weight": unmasked("sample_weight", sample_weight)}
        fit_params = self._requested(fit_params | weights)
        X, y, dataset = read_dataset(on_host(X), unmasked("y", y))
        features, columns = self._read_features(X)
        X, y = self._validate(X, features, columns, y=y)
        y, classes = self._read_targets(y)
        noise, box = self._new_noise(), Box.from_bounds(self.bounds, X, features.names, ~features.numeric)
        mechanism = NoiseMechanism(box, noise, X.shape[1:], features)
        noise = mechanism.noise
        self._check_data(mechanism, X, classes)
        if isinstance(self.estimator, FrozenEstimator):
            carried(unwrap(self.estimator), noise, box, features, X.shape[1:])
            fitted, hidden = self.estimator, features.hidden
            columns = Columns.of_model(fitted, columns.shown(hidden) if columns else None)
            classes = _own_classes(fitted, classes)
        else:
            fitted, hidden, columns = train_on_columns(
                training,
                self.estimator,
                X,
                y,
                mechanism=mechanism,
                columns=columns,
                any_way=self.hidden == "auto",
                seed=resolve_seed(self.random_state),
                device=self.device,
                output=None if self.inference is None else self.inference.output,
                verbose=self.verbose,
                dataset=dataset,
                regression=classes is None,
                fit_params=fit_params,
            )
        self._settle(fitted, classes, box, noise, replace(features, hidden=hidden), columns)
        self.feature_shape_ = X.shape[1:]
        warn_constant(self._voter(), self._mechanism(X.shape[1:]), X, y, self._seed)
        return self

    def _check_algorithm(self, mechanism: NoiseMechanism, classes: Any, *, by_feature: bool = True) -> None:
        """Check the parameters of certification, including those by feature if the shape of inputs is known."""
        strategy = self._algorithm(mechanism, classes, None).strategy
        if by_feature and strategy.uses_box:
            # The lowest corner of the box stands for inputs: strategies of users may expect real ones.
            up = mechanism.movable()[None].astype(np.float64)
            strategy.reach(mechanism.noise, np.zeros_like(up), up)

    def _check_data(self, mechanism: NoiseMechanism, X: NDArray[Any], classes: Any) -> None:
        """Check training inputs, and all parameters that do not concern training, before anything is trained."""
        mechanism.box.check(mechanism.bounded(X), mechanism.features.names)
        self._check_algorithm(mechanism, classes)
        mechanism.warn_dear_categories()
        mechanism.warn_single_categories()
        mechanism.warn_coarse_levels()
        mechanism.points(X)

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

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        """
        check_is_fitted(self, "estimator_")
        warned = False

        def validate(part: Any) -> Any:
            nonlocal warned
            checked = self._validate(part, self.features_, self._columns)
            mechanism = self._mechanism(checked.shape[1:])
            warned = warned or mechanism.box.warn_clipped(mechanism.bounded(checked))
            return checked

        return Inputs(X, validate, **options)

    def _open_run(self, X: Any, shard: tuple[int, int] | None, on_error: str) -> Inputs:
        """Return the inputs of a run, or of a part of one."""
        check_choice("on_error", on_error, ("raise", "skip"))
        inputs = self.open_inputs(X, shard=shard, skip=on_error == "skip")
        if shard is not None and self.random_state is None and self.noise_.n_outcomes is None:
            raise ValueError(
                f"random_state must be set, the same for all parts, with shard={shard!r}, got None: each part would "
                f"get noise from another seed."
            )
        return inputs

    def to_table(self, array: Any, X: Any) -> Any:
        """Return a matrix, such as the inputs that an attack finds, as a table with the user's columns and categories.

        Parameters
        ----------
        array : ndarray of shape (n_inputs, ...)
            Raw numbers, and codes of categories and of other values.
        X : array-like
            Inputs as they were given. If they are a DataFrame, so is the result, with their index if that fits.

        Returns
        -------
        table : DataFrame or ndarray
        """
        return array if self._columns is None else self._columns.like(array, X)

    def algorithm(self, shape: tuple[int, ...], **choices: Any) -> Any:
        """Return what draws votes and certifies, as this estimator does it: Algorithm 1, for a classifier.

        Parameters
        ----------
        shape : tuple of int
            Shape of one input.
        **choices
            Parameters in place of the estimator's: ``n_samples`` and ``rtol`` of a classifier.

        Returns
        -------
        algorithm : Algorithm or QuantileAlgorithm

        Raises
        ------
        ValueError
            If a parameter is invalid, or what the fitted estimator depends on has changed since.
        """
        self._check_unchanged()
        return self._algorithm(self._mechanism(shape), getattr(self, "classes_", None), self._voter(), **choices)

    def _mechanism(self, shape: tuple[int, ...]) -> NoiseMechanism:
        """Return the noise mechanism for inputs of a shape."""
        return NoiseMechanism(self.box_, self.noise_, shape, self.features_)

    @abstractmethod
    def _read_targets(self, y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return the targets of training data, and the classes among them; None if they are numbers."""

    @abstractmethod
    def _algorithm(self, mechanism: NoiseMechanism, classes: Any, voter: Voter | None, **choices: Any) -> Any:
        """Check the parameters of certification, and return what certifies with them."""

    def _with_parameters(self, algorithm: type, mechanism: NoiseMechanism, voter: Voter | None, **choices: Any) -> Any:
        """Check the parameters that estimators share, and return an algorithm with those that it takes."""
        if self.batch_size != "auto":
            check_count("batch_size", self.batch_size)
        if self.timeout is not None:
            check_positive("timeout", self.timeout)
        if self.device is not None and is_torch(self.estimator):
            torch_device(self.device)
        if self.n_jobs is not None:
            check_number(
                "n_jobs",
                self.n_jobs,
                lambda n: n != 0 and isinstance(self.n_jobs, Integral),
                "be None or an int other than 0",
            )
        if self.inference is not None:
            if not isinstance(self.inference, TorchInference):
                raise ValueError(f"inference must be a TorchInference or None, got {self.inference!r}.")
            self.inference.check()
        strategy = resolve_radius(self._strategy, mechanism.prices, getattr(self, "feature_names_in_", None))
        names = {field.name for field in fields(self)} & {field.name for field in fields(algorithm)}
        parameters = {name: getattr(self, name) for name in names}
        return algorithm(**parameters | {"mechanism": mechanism, "strategy": strategy, "voter": voter} | choices)

    def _voter(self) -> Voter:
        """Return the fitted base model as the sampler sees it."""
        finite = not self.features_.fixed.any()
        classes = getattr(self, "classes_", None)
        voter = make_voter(self.estimator_, classes, self.device, self.inference, self._columns, finite=finite)
        return voter if self.timeout is None else TimedVoter(voter, self.timeout)

    def _read_features(self, X: Any) -> tuple[Features, Columns | None]:
        """Return what the adversary can change in training data, and their columns."""
        hidden = check_choice("hidden", self.hidden, ("auto", *HIDDEN))
        missing = check_choice("missing", self.missing, MISSING)
        columns, shape = Columns.of(X), shape_of(X)[1:]
        features = Features.from_costs(self.costs, names=columns.names if columns else None, shape=shape)
        categorical = categorical_columns(self.categorical_features, X, int(np.prod(shape)))
        if len(shape) == 1:
            fixed = np.broadcast_to(features.fixed, shape)
            columns = Columns.learn(X, fixed=fixed, categorical=categorical, missing=missing)
            if columns is not None:
                columns.check_model(self.estimator)
                features = replace(features, n_categories=columns.n_categories)
        elif categorical.any():
            raise ValueError(
                f"categorical_features={self.categorical_features!r} needs a table, X of shape (n_inputs, n_features), "
                f"got inputs of shape {shape}."
            )
        return replace(features, hidden=hidden_by(hidden, columns, self.estimator)), columns

    def _new_noise(self) -> Noise:
        """Resolve and check the noise."""
        noise: Noise = resolve("noise", self.noise)
        noise.check()
        return noise

    def _settle(
        self, fitted: Any, classes: Any, box: Box, noise: Noise, features: Features, columns: Columns | None
    ) -> None:
        """Set what a fitted estimator consists of; nothing is set if the base model does not fit the classes."""
        make_voter(fitted, classes, self.device, self.inference, columns)
        self.estimator_ = fitted
        if classes is not None:
            self.classes_ = classes
        self.box_ = box
        self.noise_ = noise
        self.features_ = features
        #: Parameters that decide how columns are read and what the box is, as text.
        self._declared = self._declarations() | {"bounds": exact(self.bounds)}
        self._columns = columns
        #: Votes that were found to be this model's, and the content that it had then.
        self._checked_votes: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._seed = resolve_seed(self.random_state)

    def _check_unchanged(self) -> None:
        """Raise a ValueError if a parameter that the fitted estimator depends on has changed."""
        features, bounds = self.features_, self.bounds
        if isinstance(bounds, str):
            # "minmax" stands for the box that was found in the data, if it was given to fit. Older files do not say.
            declared = self._declared.get("bounds", exact(bounds))
            bounds = self.box_.fingerprint() if exact(bounds) == declared else bounds
        else:
            bounds = Box.from_bounds(bounds, names=features.names, unbounded=~features.numeric).fingerprint()
        costs = features.at_costs(self.costs, getattr(self, "feature_shape_", None)).fingerprint()
        changes = {
            "noise": (describe(resolve("noise", self.noise).for_columns(features.names)), describe(self.noise_)),
            "bounds": (bounds, self.box_.fingerprint()),
            "costs": (costs, features.fingerprint()),
        }
        changes |= {name: (text, self._declared[name]) for name, text in self._declarations().items()}
        for name, (now, fitted) in changes.items():
            if now != fitted:
                raise ValueError(
                    f"{name} has changed to {getattr(self, name)!r} after fit. Call fit again, or for a model that is "
                    f"used as it is, {type(self).__name__}.from_pretrained."
                )

    def _declarations(self) -> dict[str, str]:
        return {name: exact(getattr(self, name)) for name in ("categorical_features", "hidden", "missing")}

    def _call_seed(self) -> int:
        """Seed of one call; a RandomState has given one seed for all calls when fitting."""
        if self.noise_.n_outcomes is not None:
            return 0
        return self._seed if isinstance(self.random_state, np.random.RandomState) else resolve_seed(self.random_state)


def _own_classes(fitted: Any, classes: Any) -> Any:
    """Return the classes of a frozen model in its own order, or those of the labels where it has none."""
    if classes is None or is_torch(fitted):
        return classes
    return np.asarray(getattr(unwrap(fitted), "classes_", classes))
