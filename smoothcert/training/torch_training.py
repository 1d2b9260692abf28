"""How torch models are trained: noise goes into the user's skorch net without subclassing it."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from tqdm.auto import tqdm

from ..models.outputs import explained
from ..noise.base import Noise
from ..noise.box import Box
from .torch_layers import NoisyModule, StabilityLoss, make_net, noisy_statistics


@dataclass
class NoisyFactory:
    """What skorch calls to build the module: the user's own, behind the noise.

    Parameters
    ----------
    module : torch.nn.Module or its class
        As the user gave it to the net. An instance is copied.
    noise : Noise
    box : Box
    n_copies : int
    statistics : tuple of two arrays
    seed : int
    """

    module: Any
    noise: Noise
    box: Box
    n_copies: int
    statistics: tuple[Any, Any]
    seed: int

    def __call__(self, **kwargs: Any) -> NoisyModule:
        """Build the module; keyword arguments are those of the user's."""
        if isinstance(self.module, nn.Module):
            module = type(self.module)(**kwargs) if kwargs else copy.deepcopy(self.module)
        else:
            module = self.module(**kwargs)
        center, scale = self.statistics
        return NoisyModule(
            module, self.noise, self.box, center=center, scale=scale, n_copies=self.n_copies, seed=self.seed
        )


class NoisyScores(Callback):
    """Record accuracy on the noisy batches of training and validation, stop at NaN, and show progress.

    Parameters
    ----------
    verbose : int, default=0
        Above 0, show a bar of epochs with loss and accuracy on noisy inputs.
    """

    def __init__(self, verbose: int = 0) -> None:
        self.verbose = verbose

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the progress bar."""
        self.progress_ = tqdm(total=net.max_epochs, disable=not self.verbose, desc="training", unit="epoch")

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Start counting."""
        self.right_ = {True: 0, False: 0}
        self.rows_ = {True: 0, False: 0}
        self.loss_ = 0.0

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Count right answers; a loss that is not a number ends the training with an error."""
        loss = kwargs["loss"].item()
        if np.isnan(loss):
            self.progress_.close()
            raise ValueError(
                f"The loss of the base model became NaN in epoch {len(net.history)}. Lower the learning rate (lr is "
                f"{net.lr:g}), or look for NaN in what the network computes."
            )
        answer = kwargs["y_pred"]
        logits = answer[0] if isinstance(answer, tuple) else answer
        y = batch[1].to(logits.device)
        self.right_[training] += int((logits.detach().argmax(dim=1) == y).sum())
        self.rows_[training] += len(y)
        self.loss_ += loss * len(y) * training

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record the accuracies in the net's history."""
        shown = {"loss": self.loss_ / max(self.rows_[True], 1)}
        for training, name in ((True, "train_noisy_accuracy"), (False, "valid_noisy_accuracy")):
            if self.rows_[training]:
                shown[name] = self.right_[training] / self.rows_[training]
                net.history.record(name, shown[name])
        self.progress_.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
        self.progress_.update()

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Close the progress bar."""
        self.progress_.close()
        del self.progress_


def fit_net(
    estimator: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    n_copies: int,
    noise: Noise,
    box: Box,
    standardize: bool,
    stability_weight: float | None,
    recipe: dict[str, Any],
    seed: int,
    device: Any,
    verbose: int,
    fit_params: dict[str, Any],
) -> NeuralNetClassifier:
    """Fit a copy of a torch module or skorch net on noisy copies of each batch; with ``n_copies=0``, on clean data.

    All of torch's randomness follows from ``seed``, and its global generators are left as found.
    """
    classes, indices = np.unique(y, return_inverse=True)
    X = X.astype(np.float32)
    noise_seed, statistics_seed, torch_seed = map(int, np.random.SeedSequence(seed).generate_state(3))
    net = clone(make_net(estimator, **recipe)) if isinstance(estimator, nn.Module) else _fresh(estimator)
    if device is not None:
        net.set_params(device=device)
    if n_copies:
        statistics = noisy_statistics(X, noise, box, seed=statistics_seed) if standardize else (0.0, 1.0)
        net.set_params(module=NoisyFactory(net.module, noise, box, n_copies, statistics, noise_seed))
    if stability_weight is not None:
        _use_stability_loss(net, stability_weight)
    if net.callbacks != "disable":
        net.set_params(callbacks=[("noisy_scores", NoisyScores(verbose)), *(net.callbacks or [])])
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(torch_seed)
        net.initialize()
        _check_answer(net, X[:2], len(classes))
        net.module_.noisy_evaluation = True
        try:
            net.partial_fit(X, indices.astype(np.int64), **fit_params)
        finally:
            net.module_.noisy_evaluation = False
    net.module_.eval()
    return net


def _fresh(estimator: NeuralNetClassifier) -> NeuralNetClassifier:
    """Clone a net, without what an earlier training has put in; ``warm_start`` keeps its weights."""
    net = clone(estimator)
    if isinstance(net.module, NoisyFactory):
        net.set_params(module=_builder(net.module.module))
    if net.criterion is StabilityLoss:
        delattr(net, "criterion__stability_weight")
        net.set_params(criterion=nn.CrossEntropyLoss)
    if isinstance(net.callbacks, list):
        net.set_params(callbacks=[callback for callback in net.callbacks if not _is_ours(callback)])
    if estimator.warm_start and estimator.initialized_:
        trained = estimator.module_
        for argument in [name for name in net.get_params(deep=False) if name.startswith("module__")]:
            delattr(net, argument)
        net.set_params(module=_builder(trained.module if isinstance(trained, NoisyModule) else trained))
    return net


def _builder(module: Any) -> Any:
    """Return a callable that builds the module: skorch accepts an instance only when the net is made."""
    return partial(copy.deepcopy, copy.deepcopy(module)) if isinstance(module, nn.Module) else module


def _is_ours(callback: Any) -> bool:
    return isinstance(callback, tuple) and isinstance(callback[1], NoisyScores)


def _use_stability_loss(net: NeuralNetClassifier, stability_weight: float) -> None:
    """Put the stability criterion in the place of cross-entropy, with the user's parameters of it."""
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
    try:
        answer = next(iter(net.forward_iter(X)))
    except RuntimeError as error:
        raise explained(error, net.module, X.shape) from error
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
