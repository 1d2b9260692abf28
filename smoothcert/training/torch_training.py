"""How torch models are trained: hooks add the noise, and the user's skorch net runs as the user made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_non_negative
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import Dataset

from .._utils.warn import warn
from ..models.base import name_of, uncompiled
from ..models.torch_outputs import explained, find_logits, raising_frame, read_logits, read_numbers
from ..noise.mechanism import NoiseMechanism
from .carried_noise import carried, noisy_modules
from .torch_layers import NoisyModule, divergence, make_net, regression_net, statistics
from .torch_noise import InputScaling, NoiseHooks, OutputScaling

#: Losses of probabilities, not of logits.
PROBABILITY_LOSSES = (nn.NLLLoss, nn.BCELoss)

#: Accuracies on noisy batches that the history records, and whether they are those of training.
SCORES = {"train_noisy_accuracy": True, "valid_noisy_accuracy": False}


@dataclass
class Items(Dataset[Any]):
    """Inputs, class indices and weights, as skorch's loaders read them.

    Parameters
    ----------
    inputs : ndarray of shape (n, *shape) or Dataset of pairs
        A Dataset may return another pair at each call; its label comes with the input.
    classes : ndarray of shape (n_classes,), or None
        None stands for numbers in place of labels.
    indices : ndarray of int64, or float32 for numbers, shape (n,)
    weights : ndarray of float32, shape (n,), or None
        An input with a weight is a list of both; see `NoiseHooks`.
    """

    inputs: Any
    classes: NDArray[Any] | None
    indices: NDArray[Any]
    weights: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        x, index = self.inputs[row], self.indices[row]
        if isinstance(self.inputs, Dataset):
            x, index = np.asarray(x[0], dtype=np.float32), self._index(row, x[1])
        return x if self.weights is None else [x, self.weights[row]], index

    def _index(self, row: int, label: Any) -> Any:
        """Return the class index, or number, that an item brings along, which may be another one in each epoch."""
        if self.classes is None:
            return np.float32(label)
        label, index = np.asarray(label).reshape(()), self.indices[row]
        if label == self.classes[index]:
            return index
        found = np.flatnonzero(self.classes == label)
        if not len(found) or self.weights is not None:
            problem = "to which sample_weight does not belong" if len(found) else "which is a new class"
            raise ValueError(
                f"Item {row} of the Dataset had the label {self.classes.tolist()[index]!r} when it was read first, and "
                f"now has {label.tolist()!r}, {problem}. A Dataset must keep its labels, or draw items of the same "
                f"classes without weights."
            )
        return np.int64(found[0])


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
        Finds the logits in the module's answer; see `_loss_input`.
    X, y, dataset, mechanism, seed, params, regression
        See `Training.train`. All of torch's randomness follows from the seed, and its global generators are left as
        found.
    """
    estimator = _without_noise(estimator, mechanism)
    classes, indices = (None, y) if regression else np.unique(y, return_inverse=True)
    X, indices = X.astype(np.float32), indices.astype(np.float32 if regression else np.int64)
    weights = params.pop("sample_weight", None)
    if weights is not None:
        check_non_negative(weights, "sample_weight")
        weights = (weights / weights.mean()).astype(np.float32)
    given: Any = X if dataset is None else dataset
    given = Items(given, classes, indices, weights) if given is not X or weights is not None else X
    noise_seed, statistics_seed, torch_seed = map(int, np.random.SeedSequence(seed).generate_state(3))
    n_copies = training.copies_per_batch
    scaling: Any = statistics(X, mechanism, statistics_seed) if n_copies and training.standardize else (0.0, 1.0)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(torch_seed)
        net = _initialized(estimator, options, regression)
        net.notify("on_train_begin", X=given, y=indices)
        InputScaling(*scaling).attach(net.module_)
        if regression and isinstance(estimator, nn.Module):
            OutputScaling(float(y.mean()), float(y.std()) or 1.0).attach(net.module_)
        found = _loss_input(net, output)
        with NoiseHooks(mechanism, n_copies, noise_seed, found).attached(net.module_):
            _check_net(net, training, weights)
            _leave_unscored(net, _check_answer(net, X[:2], classes, output if found is None else None))
            _run(net, given, indices, training.stability_weight, params)
        net.notify("on_train_end", X=given, y=indices)
    net.module_.eval()
    return net


def _without_noise(estimator: Any, mechanism: NoiseMechanism) -> Any:
    """Return the module inside of a `NoisyModule`, or raise a ValueError unless its noise is that of training."""
    if not isinstance(estimator, NoisyModule):
        return estimator
    carried(estimator, mechanism.noise, mechanism.box, mechanism.features, mechanism.shape)
    return estimator.module


def _initialized(estimator: Any, options: dict[str, Any], regression: bool) -> Any:
    """Return an initialized net, which records accuracies; a fitted net with ``warm_start`` hands on its weights."""
    make = regression_net if regression else make_net
    net = clone(make(estimator) if isinstance(estimator, nn.Module) else estimator)
    net.set_params(**{name: value for name, value in options.items() if value is not None}).initialize()
    if getattr(estimator, "warm_start", False) and estimator.initialized_:
        net.module_.load_state_dict(estimator.module_.state_dict())
    if net.callbacks != "disable" and is_classifier(net):
        net.callbacks_[:0] = [
            (name, EpochScoring("accuracy", lower_is_better=False, on_train=on_train, name=name).initialize())
            for name, on_train in SCORES.items()
        ]
    return net


def _leave_unscored(net: Any, answer: Any) -> None:
    """Take the accuracies off a net whose answers skorch cannot score."""
    if not isinstance(answer, (torch.Tensor, tuple)):
        net.callbacks_ = [callback for callback in net.callbacks_ if callback[0] not in SCORES]


def _loss_input(net: NeuralNetClassifier, output: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Return what turns the module's answer into the input of the net's loss; None leaves the answer as it is.

    A loss of torch gets the logits that votes compare, or the probabilities in their place. A loss of the user's own,
    or a ``get_loss``, may need the whole answer, such as auxiliary heads.
    """
    criterion = uncompiled(net.criterion_)
    if not isinstance(criterion, nn.modules.loss._Loss):
        return None
    if output is not None and not isinstance(criterion, PROBABILITY_LOSSES):
        return output
    has_own_loss = not type(net).get_loss.__module__.startswith("skorch.")
    return None if has_own_loss else partial(find_logits, name=name_of(net.module_))


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
    net: Any, get_loss: Any, stability_weight: Any, reduction: Any, answer: Any, y: Any, X: Any, **mode: Any
) -> Any:
    """Return the loss of a batch: the net's own, with the stability term and the weights of the inputs.

    Raises
    ------
    ValueError
        If it is not a number.
    """
    criterion = uncompiled(net.criterion_)
    if isinstance(criterion, (nn.BCELoss, nn.BCEWithLogitsLoss)):
        y = y.to(answer.dtype if isinstance(answer, torch.Tensor) else torch.float32)
    if y.is_floating_point() and isinstance(answer, torch.Tensor) and answer.numel() == len(y):
        y = y.reshape(answer.shape)
    pair = answer if stability_weight is not None and isinstance(answer, tuple) else None
    try:
        loss = get_loss(answer if pair is None else pair[0], y, X=X, **mode)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The loss {name_of(criterion)} failed on what it got from the base model, a {name_of(answer)}: "
            f"{error}. A loss of torch gets the logits: set TorchInference(output=...) to a function that finds them. "
            f"A loss of your own gets the whole answer, and class indices."
        ) from error
    if pair is not None:
        loss = loss + stability_weight * divergence(pair, criterion.reduction)
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
    frame = raising_frame(interrupt)
    return frame is not None and isinstance(frame.f_locals.get("self"), Callback)


def _check_net(net: NeuralNetClassifier, training: Any, weights: Any) -> None:
    """Raise a ValueError before any epoch if the net cannot be trained in this way."""
    criterion = uncompiled(net.criterion_)
    if noisy_modules(net.module_):
        raise ValueError(
            f"The base model {name_of(net.module_)} holds a NoisyModule, but fit adds the noise itself. Use the "
            f"network inside it, NoisyModule.module, or certify it as it is: SmoothedClassifier.from_pretrained."
        )
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


def _check_answer(net: Any, X: NDArray[np.float32], classes: Any, output: Any) -> Any:
    """Return the answer to X; a ValueError before any training if it holds no logits or numbers, as votes need."""
    try:
        answer = next(iter(net.forward_iter(X)))
    except RuntimeError as error:
        raise explained(error, net.module_, X.shape) from error
    name = name_of(net.module_)
    found = find_logits(answer, name, output)
    if classes is None:
        read_numbers(found, len(X), name)
        return answer
    logits = read_logits(found, len(X), len(classes), name)
    if found.shape != logits.shape and isinstance(net.criterion_, (nn.CrossEntropyLoss, nn.NLLLoss)):
        raise ValueError(
            f"The base model {name} returns one logit per input, which {name_of(net.criterion_)} cannot be trained on. "
            f"Return one logit for each of the two classes, or use a skorch.NeuralNetBinaryClassifier."
        )
    if isinstance(net.criterion_, nn.NLLLoss) and output is None and bool((logits < 0).any()):
        warn(
            "The net's criterion is NLLLoss, skorch's default, for which the module must return probabilities, but it "
            "returned negative numbers. If it returns logits, use criterion=torch.nn.CrossEntropyLoss.",
        )
    is_distribution = bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-4).all())
    if isinstance(uncompiled(net.criterion_), nn.CrossEntropyLoss) and is_distribution:
        warn(
            f"CrossEntropyLoss wants logits, but the base model {name} returned probabilities, on which it learns "
            f"slowly. Remove the softmax from the network, or train a skorch net with criterion=torch.nn.NLLLoss.",
        )
    return answer
