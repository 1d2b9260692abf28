"""Voters: one small adapter for each kind of base model, from a noisy batch to class indices."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import getattr_static
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator


def unwrap(estimator: Any) -> Any:
    """Return the model inside a FrozenEstimator, or the estimator itself."""
    return unwrap(estimator.estimator) if isinstance(estimator, FrozenEstimator) else estimator


def uncompiled(module: Any) -> Any:
    """Return the torch module inside the wrapper of ``torch.compile``, or the module itself."""
    return getattr(module, "_orig_mod", module)


def is_module(estimator: Any) -> bool:
    """Tell whether this is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(unwrap(estimator), torch.nn.Module)


def is_net(estimator: Any) -> bool:
    """Tell whether this is a skorch net, without importing skorch."""
    skorch = sys.modules.get("skorch")
    return skorch is not None and isinstance(unwrap(estimator), skorch.NeuralNet)


def is_torch(estimator: Any) -> bool:
    """Tell whether this is a model of torch, which takes inputs of any shape."""
    return is_module(estimator) or is_net(estimator)


def is_function(estimator: Any) -> bool:
    """Tell whether this is a function of a batch, rather than a model with methods."""
    model = unwrap(estimator)
    return callable(model) and not (isinstance(model, type) or is_torch(model) or hasattr(model, "predict"))


def takes_any_shape(estimator: Any) -> bool:
    """Tell whether inputs may have more than one dimension; estimators of scikit-learn take tables."""
    return is_torch(estimator) or is_function(estimator)


def number_of_columns(estimator: Any) -> int | None:
    """Return how many columns a trained model of tables takes, or None if it does not say.

    An attribute that ``__getattr__`` of a wrapper finds belongs to the model inside, which may take other columns.
    """
    model = unwrap(estimator)
    says = getattr_static(model, "n_features_in_", None) is not None and not takes_any_shape(estimator)
    return getattr(model, "n_features_in_", None) if says else None


class Voter(ABC):
    """A base model as the sampler sees it."""

    #: Type of the noisy batches.
    dtype: type[np.floating]

    #: Number of values in a batch of the default size, and its largest number of rows.
    batch_values: int
    most_rows: int = 2**15

    #: Number of rows up to which a batch takes about as long as a single row.
    free_rows: int = 1

    #: Factor of the number of batches in a task: an accelerator waits for the host while few rows of a task are left.
    task_factor: int = 1

    #: Largest number of near ties that are settled together.
    most_together: int = 2**6

    n_classes: int

    #: Number of batches that were counted.
    n_batches: int = 0

    #: Votes that rounding may change when 40 rows of a batch are asked alone; None if rows are known to be independent.
    most_changed: int | None = 1

    #: Relative distance of neighboring numbers where a model computes with fewer digits than float32.
    coarse_step: float = 0.0

    #: Whether equal content, where it is known, means equal votes: no code or attribute of the model is left out.
    content_decides: bool = False

    @property
    def name(self) -> str:
        """Name of the model in messages."""
        return self.content().split()[0]

    @property
    def n_cores(self) -> int:
        """Number of cores that voting may use."""
        from numba import config

        return int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]

    def for_threads(self) -> Sequence[Voter]:
        """Return voters that can vote at the same time, each in a thread, and share the cores."""
        return [self]

    @abstractmethod
    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return the class index of each row of a noisy batch of shape (n, *shape).

        Raises
        ------
        ValueError
            If the base model does not return one valid class per row.
        """

    def vote(self, batch: Any) -> Callable[[], NDArray[np.intp]]:
        """Ask about a noisy batch without waiting for an accelerator.

        Returns
        -------
        wait : callable
            Waits for the class index of each row and returns it, -1 for near ties, which `settle` decides.
        """
        # A copy: models may answer in a buffer of their own, which the next batch overwrites.
        votes = np.array(self(batch))
        return lambda: votes

    def settle(self, batch: Any) -> NDArray[np.intp]:
        """Return the class index of each row of a batch of near ties."""
        return self(batch)

    def probabilities(self, batch: Any) -> NDArray[np.float64]:
        """Return the probability that the base model gives each class for each row, shape (n, n_classes).

        Raises
        ------
        ValueError
            If the base model has no probabilities, or returns anything but finite numbers.
        """
        raise ValueError(no_probabilities(f"The base model {self.name}"))

    def values(self, batch: Any) -> NDArray[np.float64]:
        """Return the number that the base model predicts for each row, shape (n,).

        Raises
        ------
        ValueError
            If the base model returns anything but one number per row.
        """
        raise ValueError(f"The base model {self.name} predicts no numbers.")

    @abstractmethod
    def content(self) -> str:
        """Return the model's name, its content or "?" (see `identity`), and how it is run where that is a choice."""

    def ready(self) -> AbstractContextManager[Any]:
        """Keep the model in the state in which it votes, during a run."""
        return nullcontext()

    def voting(self) -> AbstractContextManager[Any]:
        """Keep the model in that state during a task: its thread may outlive a run that ends with an error."""
        return nullcontext()


class LabelTable:
    """Finds the class indices of labels.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels in the order of the indices.
    """

    def __init__(self, classes: NDArray[Any]) -> None:
        self.classes = classes
        self.order = np.argsort(classes, kind="stable")
        self.sorted = classes[self.order]
        self.are_indices = classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))

    def indices(self, labels: NDArray[Any], name: str) -> NDArray[np.intp]:
        """Return the class index of each label; an unknown label is a ValueError that names the base model."""
        if self.are_indices and labels.dtype == np.int64 and (labels.view(np.uint64) < len(self.classes)).all():
            return labels
        try:
            place = np.minimum(np.searchsorted(self.sorted, labels), len(self.classes) - 1)
            unseen = self.sorted[place] != labels
        except TypeError:
            unseen = ~np.isin(labels, self.classes)
        if unseen.any():
            raise ValueError(
                f"The base model {name} returned the label {labels[unseen][0]!r}, which is not among the classes "
                f"{self.classes.tolist()!r}. Nothing was certified."
            )
        return self.order[place]


def no_probabilities(model: str) -> str:
    """Return the message for a base model that can only answer labels."""
    return (
        f"{model} has no probabilities, which scores of labels need. Use a classifier with predict_proba, such as "
        f"sklearn.calibration.CalibratedClassifierCV around it, a torch module, or a function that returns the "
        f"probabilities of all classes."
    )


def checked_probabilities(values: Any, n_rows: int, n_classes: int, name: str) -> NDArray[np.float64]:
    """Return probabilities as an array, or raise a ValueError unless they are finite numbers in the right shape."""
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (n_rows, n_classes) or not np.isfinite(found).all():
        what = "values that are not finite" if found.shape == (n_rows, n_classes) else f"shape {found.shape}"
        raise ValueError(
            f"The base model {name} must return one finite probability per class, shape {(n_rows, n_classes)}, but "
            f"returned {what}. No set was made."
        )
    return found


def checked_values(values: Any, n_rows: int, name: str) -> NDArray[np.float64]:
    """Return predicted numbers as an array, or raise a ValueError unless there is one for each row."""
    array = np.asarray(values)
    if array.shape not in ((n_rows,), (n_rows, 1)) or array.dtype.kind not in "biuf" or np.isnan(array).any():
        is_nan = array.dtype.kind == "f" and np.isnan(array).any()
        what = "NaN" if is_nan else f"shape {array.shape} of {array.dtype}"
        raise ValueError(
            f"The base model {name} must return one number per row, shape ({n_rows},), but returned {what}. Nothing "
            f"was certified."
        )
    return array.reshape(-1).astype(np.float64)


def name_of(model: Any) -> str:
    """Return the name of a model in messages."""
    return type(model).__name__
