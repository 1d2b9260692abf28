"""Training strategies: how the base model meets the noise before it is certified under it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_sample_weight

from .._utils.checks import check_bool, check_count, check_not_negative, shape_of
from .._utils.warn import warn
from ..models.base import is_torch
from ..models.columns import Columns, NamedColumns
from ..models.validation import INPUTS, LABELS, PAIRS, converted
from ..noise.mechanism import NoiseMechanism
from .folds import fit_copies, predicts_numbers
from .labels import indexed


class Training(BaseEstimator, ABC):
    """A way to fit the base model.

    Bare torch modules are trained with the recipe of `make_net`, and skorch nets with settings of their own.

    Parameters
    ----------
    standardize : bool, default=True
        Center and scale what a torch model sees, per channel of images and per feature of tables, by the mean and
        standard deviation of noisy training data. Without it, networks under wide splitting noise hardly learn.

    See Also
    --------
    NoiseAugmentation, StabilityTraining, CleanTraining : The ways to fit.
    """

    #: Noisy copies of each batch that a torch model is trained on; 0 is clean data.
    copies_per_batch: int

    #: Weight of the stability term in the loss of a torch model; None leaves the loss alone.
    stability_weight: float | None = None

    def __init__(self, *, standardize: bool = True) -> None:
        self.standardize = standardize

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        check_bool("standardize", self.standardize)

    def train(
        self,
        estimator: Any,
        X: NDArray[Any],
        y: NDArray[Any],
        *,
        mechanism: NoiseMechanism,
        seed: int,
        device: Any = None,
        output: Callable[[Any], Any] | None = None,
        verbose: int = 0,
        dataset: Any = None,
        regression: bool = False,
        fit_params: dict[str, Any] | None = None,
    ) -> Any:
        """Fit a copy of a base model.

        Parameters
        ----------
        estimator : estimator, torch module or skorch net
            Never changed.
        X : ndarray of shape (n_inputs, *shape)
            Raw inputs inside the box.
        y : ndarray of shape (n_inputs,)
            Labels, or numbers for regression. Torch models are trained on the indices among the sorted labels.
        mechanism : NoiseMechanism
            The noise that certification will use.
        seed : int
            All randomness of the training follows from it, except where the base model has a seed of its own.
        device : str, torch.device or None, default=None
            Where torch models are trained; None leaves that to them.
        output : callable, optional
            Finds the logits in the answer of a torch model; see `TorchInference`.
        verbose : int, default=0
            Above 0, skorch prints a line for each epoch of a torch model.
        dataset : torch.utils.data.Dataset, optional
            What ``X`` and ``y`` were read from. Torch models are trained on it, so that its transforms run again
            in each epoch.
        regression : bool, default=False
            Whether the base model predicts numbers.
        fit_params : dict, optional
            Passed to the base model's ``fit``.

        Returns
        -------
        fitted : estimator or skorch net

        Raises
        ------
        ValueError
            If the strategy cannot train such a model, or a torch model does not return one logit per class, or its
            loss becomes NaN.
        """
        params = dict(fit_params or {})
        weights = params.pop("sample_weight", None)
        if weights is not None:
            params[_weight_name(estimator)] = _check_sample_weight(weights, X)
        if is_torch(estimator):
            from .torch_training import fit_net

            options = {"device": device, "verbose": 1 if verbose else None}
            return fit_net(self, estimator, options, output, X, y, dataset, mechanism, seed, params, regression)

        params = self._with_validation(estimator, params, mechanism, seed)

        def fit(model: Any) -> Any:
            rng = np.random.default_rng(seed)
            return self.fit_estimator(model, X, y, lambda: mechanism.noisy(X, rng), params)

        try:
            return fit(seeded(estimator, seed))
        except (TypeError, ValueError):
            if regression or np.array_equal(np.unique(y), np.arange(len(np.unique(y)))):
                raise
            # The estimator may take class indices alone, as XGBoost does.
            with suppress(Exception):
                return fit(indexed(seeded(estimator, seed)))
            raise

    def _with_validation(
        self, estimator: Any, params: dict[str, Any], mechanism: NoiseMechanism, seed: int
    ) -> dict[str, Any]:
        """Return the parameters of ``fit`` with checked validation data: one noisy copy of it, if there is noise."""
        columns = estimator.columns if isinstance(estimator, NamedColumns) else None
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])

        def prepare(X: Any) -> Any:
            given, shape = Columns.of(X), shape_of(X)
            if shape[1:] != mechanism.shape or (given and columns and given.names != columns.names):
                raise ValueError(
                    f"Validation data (eval_set, X_val) must have the features of X, in their order, got shape "
                    f"{shape}{f' and the columns {list(given.names or ())}' if given else ''}."
                )
            array = columns.encode(X) if columns and columns.codecs else np.asarray(X, dtype=np.float64)
            mechanism.box.check(mechanism.bounded(array))
            return mechanism.noisy(array, rng) if self.copies_per_batch else array

        inner = [name for name in params if "__" in name and name.rpartition("__")[2] in (PAIRS, INPUTS)]
        if inner and self.copies_per_batch:
            warn(
                f"{', '.join(inner)} is used without noise: the steps before have transformed it. Early stopping then "
                f"looks at other data than those that the model is trained on.",
            )
        return converted(params, inputs=prepare)

    @abstractmethod
    def fit_estimator(self, estimator: Any, X: Any, y: Any, noisy: Callable[[], Any], params: dict[str, Any]) -> Any:
        """Fit a seeded clone of an estimator that is no torch model, and return it.

        Parameters
        ----------
        estimator : estimator
        X, y : ndarray
            Clean inputs, and labels.
        noisy : callable
            Draws a noisy copy of ``X``.
        params : dict
            Parameters of ``fit``.
        """


class CleanTraining(Training):
    """Training on the data as it is, without noise (``training=None``).

    Parameters
    ----------
    standardize : bool, default=True
        Not used: there are no noisy data.

    See Also
    --------
    NoiseAugmentation : Training on noisy data.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> SmoothedClassifier(LogisticRegression(), training=CleanTraining()).training
    CleanTraining()
    """

    copies_per_batch = 0

    def fit_estimator(self, estimator: Any, X: Any, y: Any, noisy: Callable[[], Any], params: dict[str, Any]) -> Any:
        """Fit on clean data."""
        return estimator.fit(X, y, **params)


class NoiseAugmentation(Training):
    """Cross-entropy on noisy inputs.

    Torch models meet fresh noise in every batch. Other estimators are fitted on several noisy copies of the data. Each
    copy has fresh noise and the labels of the clean data. Validation data for early stopping, the parameters
    ``eval_set`` or ``X_val`` of ``fit``, become noisy too. Where the estimator makes folds of its own, as GridSearchCV
    and StackingClassifier do, all copies of an input stay on the same side of a split. Early stopping that holds back
    random rows warns, since it has no such folds.

    Parameters
    ----------
    n_copies : int, default=10
        Noisy copies of each input, for estimators that are not torch models.
    stream : bool, default=False
        Hand the copies to ``partial_fit`` one after the other, so that memory does not grow with their number. An
        estimator then makes one pass over each copy.
    standardize : bool, default=True
        Center and scale what a torch model sees, by the statistics of noisy training data.

    See Also
    --------
    StabilityTraining : Adds a stability term to the loss.
    smoothcert.training.make_net : The recipe of bare torch modules, and how to change it.

    References
    ----------
    Cohen, Rosenfeld and Kolter (2019), "Certified adversarial robustness via randomized smoothing"; section 3.1 of the
    paper.

    Examples
    --------
    >>> from sklearn.linear_model import SGDClassifier
    >>> from smoothcert import SmoothedClassifier
    >>> SmoothedClassifier(SGDClassifier(), training=NoiseAugmentation(n_copies=5, stream=True)).training
    NoiseAugmentation(n_copies=5, stream=True)
    """

    copies_per_batch = 1

    def __init__(self, n_copies: int = 10, *, stream: bool = False, standardize: bool = True) -> None:
        self.n_copies = n_copies
        self.stream = stream
        super().__init__(standardize=standardize)

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        super().check()
        check_count("n_copies", self.n_copies)
        check_bool("stream", self.stream)

    def fit_estimator(self, estimator: Any, X: Any, y: Any, noisy: Callable[[], Any], params: dict[str, Any]) -> Any:
        """Fit on noisy copies, all at once or one after the other."""
        if not self.stream:
            copies = np.concatenate([noisy() for _ in range(self.n_copies)])
            repeated = {
                name: value if name in (PAIRS, INPUTS, LABELS) else _repeat_rows(value, len(X), self.n_copies)
                for name, value in params.items()
            }
            return fit_copies(estimator, copies, np.tile(y, self.n_copies), self.n_copies, repeated)
        if not hasattr(estimator, "partial_fit"):
            raise ValueError(
                f"stream=True needs an estimator with partial_fit, and {type(estimator).__name__} has none. Use "
                f"stream=False."
            )
        for _ in range(self.n_copies):
            classes = {} if predicts_numbers(estimator) else {"classes": np.unique(y)}
            estimator.partial_fit(noisy(), y, **classes, **params)
        return estimator


class StabilityTraining(Training):
    """Cross-entropy on one noisy copy, and agreement with another.

    The loss is ``-log f(x + d1)_y + weight * KL(f(x + d1) || f(x + d2))``, at about twice the cost of
    `NoiseAugmentation`. It needs gradients: only torch models can be trained with it.

    Parameters
    ----------
    weight : float, default=6.0
        The paper's C; 0 is noise augmentation.
    standardize : bool, default=True
        Center and scale what a torch model sees, by the statistics of noisy training data.

    See Also
    --------
    NoiseAugmentation : Training without the stability term.
    smoothcert.training.StabilityLoss : The loss, for a training loop of your own.

    References
    ----------
    Li, Chen, Wang and Carin (2019), "Certified adversarial robustness with additive noise"; section 3.1 of the paper.

    Examples
    --------
    >>> StabilityTraining(weight=2.0)
    StabilityTraining(weight=2.0)
    """

    copies_per_batch = 2

    def __init__(self, weight: float = 6.0, *, standardize: bool = True) -> None:
        self.weight = weight
        super().__init__(standardize=standardize)

    @property
    def stability_weight(self) -> float:  # type: ignore[override]
        """Weight of the stability term."""
        return self.weight

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        super().check()
        check_not_negative("weight", self.weight)

    def fit_estimator(self, estimator: Any, X: Any, y: Any, noisy: Callable[[], Any], params: dict[str, Any]) -> Any:
        """Refuse: there are no gradients to train with."""
        raise ValueError(
            f"StabilityTraining needs the gradients of a torch.nn.Module or skorch net, got a "
            f"{type(estimator).__name__}. Use training='augment' for it."
        )


def seeded(estimator: Any, seed: int) -> Any:
    """Clone an estimator, and seed each of its ``random_state`` parameters that is None."""
    copy = clone(estimator)
    open_states = sorted(
        name
        for name, value in copy.get_params(deep=True).items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    )
    seeds = np.random.SeedSequence(seed).generate_state(len(open_states))
    return copy.set_params(**dict(zip(open_states, map(int, seeds), strict=True)))


def _weight_name(estimator: Any) -> str:
    """Return what ``fit`` calls the weights of inputs: a Pipeline passes those of its last step on by name."""
    if isinstance(estimator, NamedColumns):
        return _weight_name(estimator.estimator)
    if isinstance(estimator, Pipeline) and not get_config()["enable_metadata_routing"]:
        name, last = estimator.steps[-1]
        return f"{name}__{_weight_name(last)}"
    return "sample_weight"


def _repeat_rows(value: Any, n_inputs: int, n_copies: int) -> Any:
    """Repeat a fit parameter that has one entry per input, such as sample_weight, along with the inputs."""
    per_input = hasattr(value, "__len__") and not isinstance(value, (str, dict)) and len(value) == n_inputs
    return np.concatenate([np.asarray(value)] * n_copies) if per_input else value
