"""Voters: one small adapter per kind of base model. Noisy batch in, class indices out."""

from __future__ import annotations

import copy
import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from .hashing import class_code, code_text, content_hash
from .inference import TorchInference
from .turns import turns_of
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
    if is_module(model):
        return TorchVoter(model, len(classes), device, inference)
    if is_net(model):
        check_is_fitted(model, "module_")
        return TorchVoter(model.module_, len(classes), device, inference)
    if inference is not None:
        raise ValueError(f"inference={inference!r} is for torch models, got a {_name(model)}. Use inference=None.")
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
                f"The base model {_name(estimator)} has the classes {known.tolist()!r}: classes must hold them all, "
                f"got {classes.tolist()!r}."
            )
        if len(classes) == 1 and not hasattr(estimator, "classes_"):
            raise ValueError(
                f"The base model {_name(estimator)} has no classes_, so it cannot be relied on to return nothing but "
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
                f"The base model {_name(self.estimator)} must return one label per row, shape ({len(batch)},), but "
                f"returned shape {labels.shape}. Nothing was certified."
            )
        return self.labels.places(labels, _name(self.estimator))

    def fingerprint(self) -> str:
        """Hash the fitted estimator."""
        return f"{_name(self.estimator)} {content_hash(self.estimator)}"

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
    estimators = [part for part in parts if isinstance(part, BaseEstimator)]
    foreign = (not _is_own(part) if isinstance(part, BaseEstimator) else callable(part) for part in parts)
    return [] if any(foreign) else estimators


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


def _is_own(value: Any) -> bool:
    return isinstance(value, BaseEstimator) and type(value).__module__.startswith("sklearn.")


#: Attributes of a torch module that do not decide its answers, or are hashed one by one.
MODULE_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training", "rng"}
MODULE_STATE |= {"_flat_weights", "_flat_weight_refs"}

#: Lead of the first logit over the second, relative to its size, below which a vote is taken again on its own.
NEAR_TIE = 2.0**-13


#: Parameters below which a network on a CPU gets larger batches: so fast is it that what surrounds it takes time too.
#: The activations of others are large, and fit into caches in small batches only.
SMALL_NETWORK = 2**20


class TorchVoter(Voter):
    """Votes of a torch module that returns one logit per class: the index of the largest.

    The last bits of logits depend on the size of the batch. Rows whose two largest logits nearly tie are therefore
    voted on again, each alone, so that votes do not depend on the batch they came in, as long as rounding changes a
    logit by less than 2**-14 of its size.
    """

    def __init__(self, module: Any, n_classes: int, device: Any = None, inference: Any = None) -> None:
        import torch

        for part in module.modules():
            kind = getattr(torch.nn, str(getattr(part, "original_name", "")), type(part))
            normalizes = isinstance(kind, type) and issubclass(kind, torch.nn.modules.batchnorm._BatchNorm)
            if normalizes and getattr(part, "running_mean", None) is None:
                raise ValueError(
                    f"The base model {_name(module)} has a {kind.__name__} without running statistics: its answer to "
                    f"an input depends on the rest of the batch, so nothing can be certified. Use "
                    f"track_running_stats=True."
                )
            if ".quantized.dynamic." in type(part).__module__:
                raise ValueError(
                    f"The base model {_name(module)} has a dynamically quantized {_name(part)}: it rounds an input as "
                    f"the rest of the batch has it, so nothing can be certified. Quantize statically."
                )
        tensors = [*module.parameters(), *module.buffers()]
        self.module = module
        self.n_classes = n_classes
        self.device = torch.device(device if device is not None else tensors[0].device if tensors else "cpu")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={str(self.device)!r} is not there: torch finds no CUDA device. Use set_params(device='cpu')."
            )
        self.precision = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
        self.dtype = np.float64 if self.precision == torch.float64 else np.float32
        small = sum(tensor.numel() for tensor in tensors) < SMALL_NETWORK
        self.batch_values = 2**19 if small else 2**17
        if self.device.type != "cpu":
            self.batch_values = self.most_rows = 2**24
        self.inference = inference or TorchInference()
        self.turns = turns_of(module)
        self.forward: Any = None
        self.members: list[TorchVoter] = []

    @property
    def n_cores(self) -> int:
        """Number of cores that torch may use."""
        import torch

        return torch.get_num_threads()

    def team(self) -> list[TorchVoter]:
        """Return voters that can vote at the same time, each in a thread: on CPUs this one, and copies of it.

        Copies share parameters, and nothing else: a module may keep notes in its attributes and buffers. Where a copy
        might answer differently, or cannot be made, this voter stays alone.
        """
        import torch

        parts = list(self.module.modules())
        alone = (
            self.device.type != "cpu"
            or self.inference.compile
            or torch.is_autocast_enabled("cpu")
            # A hook may share what it knows with the hooks of other copies, and so may a forward of the instance's own.
            or any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts)
        )
        with self.turns.lock:
            if not self.members:
                shared = {id(tensor): tensor for tensor in self.module.parameters()}
                try:
                    copies = [
                        copy.deepcopy(self.module, dict(shared))
                        for _ in range(0 if alone else n_threads(self.n_cores) - 1)
                    ]
                except Exception:
                    copies = []
                self.members = [
                    self,
                    *(TorchVoter(module, self.n_classes, self.device, self.inference) for module in copies),
                ]
            return self.members

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        import torch

        rows = torch.from_numpy(batch)
        with torch.inference_mode():
            votes, doubtful = self.vote(rows.clone().to(self.device))
            for row in doubtful.nonzero().flatten().tolist():
                votes[row] = self.vote_alone(rows[row : row + 1].clone().to(self.device))
            return votes.cpu().numpy()

    def vote(self, rows: Any) -> tuple[Any, Any]:
        """Return the class index of each row, and which of them must be asked for again, alone.

        Nothing here waits for an accelerator. The module may change ``rows`` in place.
        """
        import torch

        with torch.inference_mode():
            logits = self.logits(rows)
            if self.n_classes == 1:
                return torch.zeros(len(logits), dtype=torch.int64, device=self.device), logits[:, 0].isnan()
            (first, second), votes = (part.unbind(dim=1) for part in logits.topk(2, dim=1))
            # Written such that NaN is doubtful.
            return votes[0], ~(first - second > NEAR_TIE * (1 + first.abs()))

    def vote_alone(self, row: Any) -> int:
        """Return the class index of one row.

        Raises
        ------
        ValueError
            If a logit is NaN.
        """
        logits = self.logits(row).double().cpu().numpy()
        if np.isnan(logits).any():
            raise ValueError(f"The base model {_name(self.module)} returned NaN logits. Nothing was certified.")
        return int(logits.argmax())

    def logits(self, rows: Any) -> Any:
        """Return the module's logits, one row per input. The module may change ``rows`` in place."""
        import torch

        try:
            with torch.inference_mode(), self.turns.lock, self.inference.context(self.device):
                if self.forward is None:
                    self.forward = self.inference.prepare(self.module)
                logits = self.forward(rows.to(self.precision))
        except RuntimeError as error:
            raise explained(error, self.module, tuple(rows.shape)) from error
        if isinstance(logits, tuple):
            logits = logits[0]
        expected = (rows.shape[0], self.n_classes)
        if getattr(logits, "shape", None) != expected:
            returned = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else f"a {_name(logits)}"
            raise ValueError(
                f"The base model {_name(self.module)} must return one logit per class, shape {expected}, but returned "
                f"{returned}. Nothing was certified."
            )
        return logits

    def fingerprint(self) -> str:
        """Hash the code, attributes, parameters and buffers of every part of the module."""
        import torch

        content = hashlib.blake2b(digest_size=16)
        for name, part in self.module.named_modules():
            tensors = {**part._parameters, **part._buffers}
            plain = {key: value for key, value in vars(part).items() if key not in MODULE_STATE}
            code = getattr(getattr(type(part), "forward", None), "__code__", None)
            content.update(f"{name} {type(part).__qualname__} {content_hash(plain)}".encode())
            content.update(f"{class_code(type(part))} {code_text(code) if code else ''}".encode())
            for key, value in tensors.items():
                if value is not None:
                    content.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                    content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        way = "" if repr(self.inference) == repr(TorchInference()) else f" {self.inference}"
        return f"{_name(self.module)} {content.hexdigest()}{way}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"turns": None, "forward": None, "members": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, turns=turns_of(state["module"]))

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the module on its device and in evaluation mode, and leave its mode as found."""
        self.module.to(self.device)
        self.members = []
        try:
            with self.turns.evaluating(self.module):
                yield
        finally:
            self.members = []

    def voting(self) -> AbstractContextManager[Any]:
        """Keep the module in evaluation mode."""
        return self.turns.evaluating(self.module)


def explained(error: RuntimeError, module: Any, shape: tuple[int, ...]) -> Exception:
    """Return what to raise for a torch module's own error: it says what the module was given."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return MemoryError(str(error))
    return ValueError(
        f"The base model {_name(module)} failed on a batch of shape {shape}, the rows being noisy copies of inputs of "
        f"shape {shape[1:]}: {error}. Give X the shape that the network takes, such as (n, channels, height, width) "
        f"for images."
    )


def describe_model(function: Any) -> str:
    """Return how messages call a function."""
    return str(getattr(function, "__name__", type(function).__name__))


def _name(model: Any) -> str:
    return type(model).__name__
