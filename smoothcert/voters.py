"""Voters: one small adapter per kind of base model. Noisy batch in, class indices out."""

from __future__ import annotations

import hashlib
import pickle
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator


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


def make_voter(estimator: Any, classes: NDArray[Any], device: Any = None) -> Voter:
    """Build the voter for a fitted base model whose labels are ``classes``."""
    model = unwrap(estimator)
    if is_module(model):
        return TorchVoter(model, len(classes), device)
    if is_net(model):
        return TorchVoter(model.module_, len(classes), device)
    return SklearnVoter(model, classes)


class Voter(ABC):
    """A base model as the voting engine sees it."""

    #: Type of the noisy batches.
    dtype: type[np.floating]

    #: Number of votes that are worth one call of the model, in values of the batch.
    batch_values: int

    n_classes: int

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
        """Hold the model in the state in which it votes."""
        return nullcontext()


class SklearnVoter(Voter):
    """Votes of anything with ``predict`` that returns labels."""

    dtype = np.float64
    batch_values = 2**22

    def __init__(self, estimator: Any, classes: NDArray[Any]) -> None:
        self.estimator = estimator
        self.classes = classes
        self.n_classes = len(classes)
        self.order = np.argsort(classes, kind="stable")

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        labels = np.asarray(self.estimator.predict(batch))
        if labels.shape != (len(batch),):
            raise ValueError(
                f"The base model {_name(self.estimator)} must return one label per row, shape ({len(batch)},), but "
                f"returned shape {labels.shape}. Nothing was certified."
            )
        unseen = ~np.isin(labels, self.classes)
        if unseen.any():
            raise ValueError(
                f"The base model {_name(self.estimator)} returned the label {labels[unseen][0]!r}, which is not among "
                f"the classes {self.classes.tolist()!r}. Nothing was certified."
            )
        return self.order[np.searchsorted(self.classes, labels, sorter=self.order)]

    def fingerprint(self) -> str:
        """Hash the fitted estimator, after a round trip that makes its pickle a function of its content.

        What cannot be pickled gets a fingerprint of its own each time: it cannot be told from a changed one.
        """
        try:
            content = cloudpickle.dumps(cloudpickle.loads(cloudpickle.dumps(self.estimator)))
        except (AttributeError, TypeError, pickle.PicklingError):
            content = secrets.token_bytes()
        return f"{_name(self.estimator)} {hashlib.blake2b(content, digest_size=16).hexdigest()}"


#: Lead of the first logit over the second, relative to its size, below which a vote is taken again on its own.
NEAR_TIE = 2.0**-13


class TorchVoter(Voter):
    """Votes of a torch module that returns one logit per class: the index of the largest.

    The last bits of logits depend on the size of the batch. Rows whose two largest logits nearly tie are therefore
    voted on again, each alone, so that no vote depends on the batch it came in.
    """

    dtype = np.float32
    batch_values = 2**19

    def __init__(self, module: Any, n_classes: int, device: Any = None) -> None:
        import torch

        tensors = [*module.parameters(), *module.buffers()]
        self.module = module
        self.n_classes = n_classes
        self.device = torch.device(device) if device is not None else (tensors[0].device if tensors else "cpu")
        self.precision = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        import torch

        with torch.inference_mode():
            rows = torch.from_numpy(batch).to(self.device, self.precision)
            logits = self._logits(rows)
            votes = logits.argmax(dim=1)
            if self.n_classes > 1:
                first, second = logits.topk(2, dim=1).values.unbind(dim=1)
                near = first - second <= NEAR_TIE * (1 + first.abs())
                for row in near.nonzero().flatten().tolist():
                    votes[row] = self._logits(rows[row : row + 1]).argmax()
            return votes.cpu().numpy()

    def _logits(self, rows: Any) -> Any:
        """Return the module's logits, one row of finite-or-infinite numbers per input."""
        logits = self.module(rows)
        if isinstance(logits, tuple):
            logits = logits[0]
        if tuple(logits.shape) != (len(rows), self.n_classes):
            raise ValueError(
                f"The base model {_name(self.module)} must return one logit per class, shape ({len(rows)}, "
                f"{self.n_classes}), but returned shape {tuple(logits.shape)}. Nothing was certified."
            )
        if logits.isnan().any():
            raise ValueError(f"The base model {_name(self.module)} returned NaN logits. Nothing was certified.")
        return logits

    def fingerprint(self) -> str:
        """Hash the module's structure, parameters and buffers."""
        import torch

        content = hashlib.blake2b(repr(self.module).encode(), digest_size=16)
        for name, value in self.module.state_dict().items():
            content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return f"{_name(self.module)} {content.hexdigest()}"

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the module on its device and in evaluation mode, and leave its mode as found."""
        modes = {module: module.training for module in self.module.modules()}
        self.module.to(self.device)
        self.module.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


def _name(model: Any) -> str:
    return type(model).__name__
