"""How torch models are trained: hooks add the noise, and the user's skorch net runs as the user made it."""

from __future__ import annotations

import copy
import dis
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import _check_sample_weight
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import Dataset

from ..models.torch import explained
from ..noise.mechanism import NoiseMechanism
from .torch_layers import NoisyModule, StabilityLoss, make_net, noisy_statistics
from .torch_noise import InputScaling, NoiseHooks

#: Accuracies on noisy batches that the history records, and whether they are those of training.
SCORES = {"train_noisy_accuracy": True, "valid_noisy_accuracy": False}


@dataclass
class Items(Dataset[Any]):
    """Inputs, class indices and weights, as skorch's loaders read them.

    Parameters
    ----------
    inputs : ndarray of shape (n, *shape) or Dataset of pairs
    indices : ndarray of int64, shape (n,)
    weights : ndarray of float32, shape (n,), or None
        An input with a weight is a list of both; see `NoiseHooks`.
    """

    inputs: Any
    indices: NDArray[np.int64]
    weights: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        x = self.inputs[row]
        x = np.asarray(x[0], dtype=np.float32) if isinstance(self.inputs, Dataset) else x
        return x if self.weights is None else [x, self.weights[row]], self.indices[row]


@dataclass(frozen=True)
class TorchTraining:
    """Training of a torch module or skorch net under noise.

    Parameters
    ----------
    mechanism : NoiseMechanism
    n_copies : int
        Noisy copies of each batch; 0 is clean data.
    standardize : bool
    stability_weight : float or None
    seed : int
    device : str, torch.device or None
    verbose : int
    """

    mechanism: NoiseMechanism
    n_copies: int
    standardize: bool
    stability_weight: float | None
    seed: int
    device: Any
    verbose: int

    def fit(
        self, estimator: Any, X: NDArray[Any], y: NDArray[Any], dataset: Any, fit_params: dict[str, Any]
    ) -> NeuralNetClassifier:
        """Fit a copy; torch's randomness follows from the seed, and its global generators are left as found."""
        classes, indices = np.unique(y, return_inverse=True)
        X, indices = X.astype(np.float32), indices.astype(np.int64)
        weights = fit_params.pop("sample_weight", None)
        if weights is not None:
            weights = _check_sample_weight(weights, X, dtype=np.float32, ensure_non_negative=True)
            weights = weights / weights.mean()
        noise_seed, statistics_seed, torch_seed = map(int, np.random.SeedSequence(self.seed).generate_state(3))
        noise, box = self.mechanism.noise, self.mechanism.box
        center, scale = 0.0, 1.0
        if self.n_copies and self.standardize:
            center, scale = noisy_statistics(X, noise, box, seed=statistics_seed)
        net = self._net(estimator)
        data = X if dataset is None and weights is None else Items(X if dataset is None else dataset, indices, weights)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(torch_seed)
            net.initialize()
            net.notify("on_train_begin", X=data, y=indices)
            InputScaling(center, scale).attach(net.module_)
            with NoiseHooks(noise, box, self.n_copies, noise_seed).attached(net.module_):
                _check_answer(net, X[:2], len(classes))
                _run(net, data, indices, fit_params)
        net.module_.eval()
        return net

    def _net(self, estimator: Any) -> NeuralNetClassifier:
        """Return a copy of the user's net, with what this training adds to its parameters."""
        if isinstance(estimator, nn.Module):
            inner = estimator.module if isinstance(estimator, NoisyModule) else estimator
            net = clone(make_net(inner))
        else:
            net = _fresh(estimator)
        given: dict[str, Any] = {} if self.device is None else {"device": self.device}
        if self.verbose and not net.verbose:
            given["verbose"] = 1
        if net.callbacks != "disable":
            scores = [
                (name, EpochScoring("accuracy", lower_is_better=False, on_train=on_train, name=name))
                for name, on_train in SCORES.items()
            ]
            given["callbacks"] = [*scores, *(net.callbacks or [])]
        net.set_params(**given)
        if self.stability_weight is not None:
            _use_stability_loss(net, self.stability_weight)
        return net


def _run(net: NeuralNetClassifier, data: Any, indices: NDArray[np.int64], fit_params: dict[str, Any]) -> None:
    """Run the epochs. The loss is weighted and checked on the way; Ctrl-C ends the training with an error."""
    criterion = net.criterion_
    reduction = getattr(criterion, "reduction", None)
    weighted = isinstance(data, Items) and data.weights is not None
    if weighted and reduction not in ("mean", "sum"):
        raise ValueError(
            f"sample_weight needs a criterion whose reduction is 'mean' or 'sum', got {criterion!r}. Change the "
            f"criterion, or leave sample_weight out."
        )
    if weighted:
        criterion.reduction = "none"
    net.get_loss = partial(_checked_loss, net, net.get_loss, reduction)
    try:
        net.fit_loop(data, indices, **fit_params)
    except KeyboardInterrupt as interrupt:
        if not _is_early_stop(interrupt):
            raise
    finally:
        del net.get_loss
        if weighted:
            criterion.reduction = reduction
    net.notify("on_train_end", X=data, y=indices)


def _checked_loss(
    net: NeuralNetClassifier, get_loss: Any, reduction: str | None, y_pred: Any, y_true: Any, X: Any = None, **mode: Any
) -> Any:
    """Return the loss of a batch, with the weights that come with its inputs; refuse one that is not a number."""
    loss = get_loss(y_pred, y_true, X=X, **mode)
    if isinstance(X, list):
        rows = loss * X[1].to(loss)
        loss = rows.mean() if reduction == "mean" else rows.sum()
    if torch.isnan(loss).any():
        raise ValueError(
            f"The loss of the base model became NaN in epoch {len(net.history)}. Lower the learning rate (lr is "
            f"{net.lr:g}), or look for NaN in what the network computes."
        )
    return loss


def _is_early_stop(interrupt: KeyboardInterrupt) -> bool:
    """Tell whether a callback has raised this by a ``raise`` statement, as skorch's EarlyStopping ends a training."""
    trace: Any = interrupt.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    raised = frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and isinstance(frame.f_locals.get("self"), Callback)


def _fresh(estimator: NeuralNetClassifier) -> NeuralNetClassifier:
    """Clone a net, without what an earlier training has put in; ``warm_start`` keeps its weights."""
    net = clone(estimator)
    if net.criterion is StabilityLoss:
        delattr(net, "criterion__stability_weight")
        net.set_params(criterion=nn.CrossEntropyLoss)
    if isinstance(net.callbacks, list):
        net.set_params(callbacks=[part for part in net.callbacks if not _is_ours(part)])
    start = estimator.module_ if estimator.warm_start and estimator.initialized_ else net.module
    if isinstance(start, NoisyModule):
        start = start.module
    if start is not net.module:
        for argument in [name for name in net.get_params(deep=False) if name.startswith("module__")]:
            delattr(net, argument)
        # skorch takes an instance only when the net is made.
        net.set_params(module=partial(copy.deepcopy, copy.deepcopy(start)))
    return net


def _is_ours(callback: Any) -> bool:
    return isinstance(callback, tuple) and callback[0] in SCORES


def _use_stability_loss(net: NeuralNetClassifier, stability_weight: float) -> None:
    """Put the stability loss in the place of cross-entropy, with the user's parameters of it."""
    criterion = net.criterion
    if isinstance(criterion, nn.CrossEntropyLoss):
        kept = {name: getattr(criterion, name) for name in ("weight", "ignore_index", "reduction", "label_smoothing")}
        net.set_params(**{f"criterion__{name}": value for name, value in kept.items()})
        criterion = type(criterion)
    if criterion is not nn.CrossEntropyLoss:
        raise ValueError(
            f"StabilityTraining needs a net whose criterion is torch.nn.CrossEntropyLoss on logits, got "
            f"{criterion!r}. Change the net's criterion, or use training='augment'."
        )
    net.set_params(criterion=StabilityLoss, criterion__stability_weight=stability_weight)


def _check_answer(net: NeuralNetClassifier, X: NDArray[np.float32], n_classes: int) -> None:
    """Raise a ValueError before any training if the module fails on X or does not return one logit per class."""
    if isinstance(net.module_, NoisyModule):
        raise ValueError("The net must build the bare module: fit adds the noise. Use net.set_params(module=...).")
    try:
        answer = next(iter(net.forward_iter(X)))
    except RuntimeError as error:
        raise explained(error, net.module_, X.shape) from error
    logits = answer[0] if isinstance(answer, tuple) else answer
    if tuple(logits.shape) != (len(X), n_classes):
        raise ValueError(
            f"The base model must return one logit for each of the {n_classes} classes of y, shape ({len(X)}, "
            f"{n_classes}) for {len(X)} inputs, but returned shape {tuple(logits.shape)}."
        )
    if isinstance(net.criterion_, nn.NLLLoss) and bool((logits < 0).any()):
        warnings.warn(
            "The net's criterion is NLLLoss, skorch's default, for which the module must return probabilities, but it "
            "returned negative numbers. If it returns logits, use criterion=torch.nn.CrossEntropyLoss.",
            stacklevel=2,
        )
