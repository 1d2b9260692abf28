"""Voters: one small adapter per kind of base model. Noisy batch in, class indices out."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from .hashing import content_hash
from .inference import TorchInference
from .workers import limit_blas, n_threads


def unwrap(estimator: Any) -> Any:
    """Return the model inside a FrozenEstimator, or the estimator itself."""
    return unwrap(estimator.estimator) if isinstance(estimator, FrozenEstimator) else estimator


def is_module(estimator: Any) -> bool:
    """Tell whether this is a torch module, without importing torch for anything else."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(unwrap(estimator), torch.nn.Module)


def is_net(estimator: Any) -> bool:
    """Tell whether this is a skorch net, without importing skorch for anything else."""
    skorch = sys.modules.get("skorch")
    return skorch is not None and isinstance(unwrap(estimator), skorch.NeuralNet)


def is_torch(estimator: Any) -> bool:
    """Tell whether torch runs this model: it then takes inputs of any shape, as float32."""
    return is_module(estimator) or is_net(estimator)


def is_function(estimator: Any) -> bool:
    """Tell whether this is a function from a batch to answers, and no model with methods."""
    model = unwrap(estimator)
    return callable(model) and not (isinstance(model, type) or is_torch(model) or hasattr(model, "predict"))


def takes_any_shape(estimator: Any) -> bool:
    """Tell whether inputs may have more than one dimension; scikit-learn's estimators take tables."""
    return is_torch(estimator) or is_function(estimator)


def check_base_model(estimator: Any) -> None:
    """Raise a ValueError unless this can be a base model."""
    model, remedy = unwrap(estimator), "Pass a model."
    if isinstance(model, type):
        remedy = f"Pass an instance: {model.__name__}()."
    elif is_torch(model):
        return
    elif hasattr(model, "predict"):
        if is_classifier(model):
            return
        remedy = "It must be a classifier. Its predict method alone can be one, in from_pretrained."
    elif is_function(model):
        if isinstance(estimator, FrozenEstimator):
            return
        remedy = "A function cannot be trained: use SmoothedClassifier.from_pretrained."
    elif isinstance(model, (str, bytes)):
        remedy = "Load the model first."
    raise ValueError(
        f"estimator must be a scikit-learn classifier, a torch.nn.Module or a skorch net, got {model!r}. {remedy}"
    )


def make_voter(
    estimator: Any,
    classes: NDArray[Any],
    device: Any = None,
    inference: TorchInference | None = None,
    columns: Any = None,
) -> Voter:
    """Build the voter for a fitted base model whose labels are ``classes``, which gets ``columns`` if they are named.

    Raises
    ------
    NotFittedError
        If the base model is not fitted.
    ValueError
        If it cannot vote as certificates need it.
    """
    model = unwrap(estimator)
    if is_torch(model):
        from .networks import TorchVoter

    if is_module(model):
        return TorchVoter(model, len(classes), device, inference)
    if is_net(model):
        check_is_fitted(model, "module_")
        return TorchVoter(model.module_, len(classes), device, inference)
    if inference is not None:
        raise ValueError(f"inference={inference!r} is for torch models, got a {name_of(model)}. Use inference=None.")
    if is_function(model):
        from .callables import FunctionVoter

        return FunctionVoter(model, classes)
    if hasattr(model, "fit"):
        check_is_fitted(model)
    return SklearnVoter(model, classes, columns)


class Voter(ABC):
    """A base model as the voting engine sees it."""

    #: Type of the noisy batches.
    dtype: type[np.floating]

    #: Number of votes that are worth one call of the model, in values of the batch; and rows at most.
    batch_values: int
    most_rows: int = 2**15

    n_classes: int

    @property
    def n_cores(self) -> int:
        """Number of cores that voting may use."""
        from numba import config

        return int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]

    def team(self) -> Sequence[Voter]:
        """Return voters that can vote at the same time, each in a thread, and share the cores."""
        return [self]

    @abstractmethod
    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return the class index of each row of a noisy batch of shape (n, *shape).

        Raises
        ------
        ValueError
            If the base model's answer is not one valid class per row.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of what the model computes, to tell votes of one model from those of another."""

    def ready(self) -> AbstractContextManager[Any]:
        """Hold the model in the state in which it votes, during a run."""
        return nullcontext()

    def voting(self) -> AbstractContextManager[Any]:
        """Hold the model in that state during one task: a thread may outlive a run that an error has ended."""
        return nullcontext()


class LabelTable:
    """Class indices of labels.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        In the order of the indices.
    """

    def __init__(self, classes: NDArray[Any]) -> None:
        self.classes = classes
        self.order = np.argsort(classes, kind="stable")
        self.sorted = classes[self.order]
        self.are_indices = classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))

    def places(self, labels: NDArray[Any], name: str) -> NDArray[np.intp]:
        """Return the index of each label, or raise a ValueError that names the base model for one that is none."""
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


class SklearnVoter(Voter):
    """Votes of anything with ``predict`` that returns labels."""

    dtype = np.float64
    batch_values = 2**20

    def __init__(self, estimator: Any, classes: NDArray[Any], columns: Any = None) -> None:
        known = np.asarray(getattr(estimator, "classes_", classes))
        if not np.isin(known, classes).all():
            raise ValueError(
                f"The base model {name_of(estimator)} has the classes {known.tolist()!r}: classes must hold them all, "
                f"got {classes.tolist()!r}."
            )
        if len(classes) == 1 and not hasattr(estimator, "classes_"):
            raise ValueError(
                f"The base model {name_of(estimator)} has no classes_, so it cannot be relied on to return nothing but "
                f"{classes[0]!r}: classes must hold at least two labels."
            )
        self.estimator = estimator
        self.columns = columns
        self.labels = LabelTable(classes)
        self.n_classes = len(classes)
        parts = sklearn_parts(estimator)
        self.alone = not parts
        self.config = get_config()
        if len(parts) == 1:
            # It is given noisy rows, which are finite: linear models take longer to check that than to answer.
            self.config["assume_finite"] = True

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        rows = batch if self.columns is None else self.columns.frame(batch)
        # scikit-learn keeps its configuration for each thread.
        with config_context(**self.config):
            labels = np.asarray(self.estimator.predict(rows))
        if labels.shape != (len(batch),):
            raise ValueError(
                f"The base model {name_of(self.estimator)} must return one label per row, shape ({len(batch)},), but "
                f"returned shape {labels.shape}. Nothing was certified."
            )
        return self.labels.places(labels, name_of(self.estimator))

    def fingerprint(self) -> str:
        """Hash the fitted estimator."""
        return f"{name_of(self.estimator)} {content_hash(self.estimator)}"

    def team(self) -> list[SklearnVoter]:
        """Return this voter several times if scikit-learn's own code is all that runs: threads may call it."""
        return [self] * (1 if self.alone else n_threads(self.n_cores))

    def voting(self) -> AbstractContextManager[Any]:
        """Leave each thread its share of the cores, for BLAS too."""
        n_members = len(self.team())
        return limit_blas(max(1, self.n_cores // n_members)) if n_members > 1 else nullcontext()


def sklearn_parts(estimator: Any) -> list[BaseEstimator]:
    """Return an estimator and those that it is made of, if all of their code is scikit-learn's own; else none."""
    parts = list(_parts(estimator))
    known = all(_is_own(part) or _is_plain(part) for part in parts)
    return [part for part in parts if _is_own(part)] if known else []


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and what it is made of: its parameters, where it is an estimator of scikit-learn's own."""
    yield value
    inside: Any = ()
    if isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, dict):
        inside = value.values()
    elif _is_own(value):
        inside = value.get_params(deep=False).values()
    for part in inside:
        yield from _parts(part)


def _is_plain(value: Any) -> bool:
    """Tell whether a parameter runs no code: it is a value, or holds what is looked at on its own."""
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, type):
        return issubclass(value, np.generic)
    return value is None or isinstance(value, (bool, int, float, str, slice, np.generic, list, tuple, dict))


def _is_own(value: Any) -> bool:
    return isinstance(value, BaseEstimator) and type(value).__module__.startswith("sklearn.")


def name_of(model: Any) -> str:
    """Return how messages call a model."""
    return type(model).__name__
