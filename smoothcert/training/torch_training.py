"""How torch models are trained: hooks add the noise, and the user's skorch net runs as the user made it."""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_non_negative
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import Dataset

from ..models.base import name_of
from ..models.outputs import explained, find_logits, read_logits, read_numbers
from ..noise.mechanism import NoiseMechanism
from .torch_layers import NoisyModule, divergence, make_net, regression_net, statistics
from .torch_noise import InputScaling, NoiseHooks, OutputScaling

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


def fit_net(
    training: Any,
    estimator: Any,
    options: dict[str, Any],
    output: Callable[[Any], Any] | None,
    X: NDArray[Any],
    y: NDArray[Any],
    dataset: Any,
    mechanism: NoiseMechanism,
    seed: int,
    params: dict[str, Any],
    regression: bool = False,
) -> Any:
    """Fit a copy of a torch model under noise.

    Parameters
    ----------
    training : Training
    estimator : torch.nn.Module or skorch.NeuralNet
    options : dict
        Parameters of the net to change; None changes nothing.
    output : callable, optional
        Finds the logits in the module's answer, for losses of logits. Other losses get the answer as it is.
    X, y, dataset, mechanism, seed, params, regression
        See `Training.train`. All of torch's randomness follows from the seed, and its global generators are left as
        found.
    """
    classes, indices = (None, y) if regression else np.unique(y, return_inverse=True)
    X, indices = X.astype(np.float32), indices.astype(np.float32 if regression else np.int64)
    weights = params.pop("sample_weight", None)
    if weights is not None:
        check_non_negative(weights, "sample_weight")
        weights = (weights / weights.mean()).astype(np.float32)
    data = X if dataset is None and weights is None else Items(X if dataset is None else dataset, indices, weights)
    noise_seed, statistics_seed, torch_seed = map(int, np.random.SeedSequence(seed).generate_state(3))
    n_copies = training.copies_per_batch
    known = n_copies and training.standardize
    scaling: Any = statistics(X, mechanism, statistics_seed) if known else (0.0, 1.0)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(torch_seed)
        net = _initialized(estimator, options, regression)
        net.notify("on_train_begin", X=data, y=indices)
        InputScaling(*scaling).attach(net.module_)
        if regression and isinstance(estimator, nn.Module):
            OutputScaling(float(y.mean()), float(y.std()) or 1.0).attach(net.module_)
        found = output if isinstance(_criterion(net), (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)) else None
        with NoiseHooks(mechanism, n_copies, noise_seed, found).attached(net.module_):
            _check_net(net, training, weights)
            _check_answer(net, X[:2], classes, output if found is None else None)
            _run(net, data, indices, training.stability_weight, params)
        net.notify("on_train_end", X=data, y=indices)
    net.module_.eval()
    return net


def _initialized(estimator: Any, options: dict[str, Any], regression: bool) -> Any:
    """Return an initialized net, which records accuracies; a fitted net with ``warm_start`` hands on its weights."""
    if isinstance(estimator, NoisyModule):
        estimator = estimator.module
    make = regression_net if regression else make_net
    net = clone(make(estimator) if isinstance(estimator, nn.Module) else estimator)
    net.set_params(**{name: value for name, value in options.items() if value is not None}).initialize()
    if getattr(estimator, "warm_start", False) and estimator.initialized_:
        net.module_.load_state_dict(estimator.module_.state_dict())
    if net.callbacks != "disable" and not regression:
        net.callbacks_[:0] = [
            (name, EpochScoring("accuracy", lower_is_better=False, on_train=on_train, name=name).initialize())
            for name, on_train in SCORES.items()
        ]
    return net


def _run(net: NeuralNetClassifier, data: Any, indices: Any, stability_weight: float | None, params: Any) -> None:
    """Run the epochs with the loss of the training; Ctrl-C ends them with an error, which skorch would swallow."""
    criterion = net.criterion_
    reduction = getattr(criterion, "reduction", None)
    if isinstance(data, Items) and data.weights is not None:
        criterion.reduction = "none"
    net.get_loss = partial(_loss, net, net.get_loss, stability_weight, reduction)
    try:
        net.fit_loop(data, indices, **params)
    except KeyboardInterrupt as interrupt:
        if not _is_early_stop(interrupt):
            raise
    finally:
        del net.get_loss
        if reduction is not None:
            criterion.reduction = reduction


def _loss(
    net: Any, get_loss: Any, stability_weight: float | None, reduction: Any, answer: Any, y: Any, X: Any, **mode: Any
) -> Any:
    """Return the loss of a batch: the net's own, with the stability term and the weights of the inputs.

    Raises
    ------
    ValueError
        If it is not a number.
    """
    if isinstance(net.criterion_, nn.BCEWithLogitsLoss):
        y = y.to(answer.dtype)
    if y.is_floating_point() and isinstance(answer, torch.Tensor) and answer.numel() == len(y):
        y = y.reshape(answer.shape)
    if stability_weight is not None and isinstance(answer, tuple):
        loss = get_loss(answer[0], y, X=X, **mode)
        loss = loss + stability_weight * divergence(answer, net.criterion_.reduction)
    else:
        loss = get_loss(answer, y, X=X, **mode)
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


def _check_net(net: NeuralNetClassifier, training: Any, weights: Any) -> None:
    """Raise a ValueError before any epoch if the net cannot be trained in this way."""
    criterion = _criterion(net)
    if isinstance(net.module_, NoisyModule):
        raise ValueError("The net must build a bare module, since fit adds the noise, got a NoisyModule.")
    if training.stability_weight is not None and not isinstance(criterion, nn.CrossEntropyLoss):
        raise ValueError(
            f"StabilityTraining needs a net whose criterion is torch.nn.CrossEntropyLoss on logits, got "
            f"{criterion!r}. Change the net's criterion, or use training='augment'."
        )
    if weights is not None and getattr(criterion, "reduction", None) not in ("mean", "sum"):
        raise ValueError(
            f"sample_weight needs a criterion whose reduction is 'mean' or 'sum', got {criterion!r}. Change the "
            f"criterion, or leave sample_weight out."
        )


def _criterion(net: NeuralNetClassifier) -> Any:
    """Return the criterion of a net, without what ``torch.compile`` puts around it."""
    return getattr(net.criterion_, "_orig_mod", net.criterion_)


def _check_answer(net: Any, X: NDArray[np.float32], classes: Any, output: Any) -> None:
    """Raise a ValueError before any training if the module fails on X or returns no logits or numbers, for votes."""
    try:
        answer = next(iter(net.forward_iter(X)))
    except RuntimeError as error:
        raise explained(error, net.module_, X.shape) from error
    name = name_of(net.module_)
    found = find_logits(answer, name) if output is None else output(answer)
    if classes is None:
        read_numbers(found, len(X), name)
        return
    logits = read_logits(found, len(X), len(classes), name)
    if found.shape != logits.shape and isinstance(net.criterion_, (nn.CrossEntropyLoss, nn.NLLLoss)):
        raise ValueError(
            f"The base model {name} returns one logit per input, which {name_of(net.criterion_)} cannot be trained on. "
            f"Return one logit for each of the two classes, or use a skorch.NeuralNetBinaryClassifier."
        )
    if isinstance(net.criterion_, nn.NLLLoss) and output is None and bool((logits < 0).any()):
        warnings.warn(
            "The net's criterion is NLLLoss, skorch's default, for which the module must return probabilities, but it "
            "returned negative numbers. If it returns logits, use criterion=torch.nn.CrossEntropyLoss.",
            stacklevel=2,
        )
