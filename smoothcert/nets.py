"""Torch networks under noise: the paper's training recipe through skorch, and the module that adds the noise."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from .channel import NoisyChannel

#: Inputs from which the statistics of noisy data are estimated at most.
STATISTICS_INPUTS = 10_000


class CosineSchedule(Callback):
    """Anneal the learning rate from its initial value to 0 along half a cosine over the net's ``max_epochs``."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start a schedule over the epochs that this training will run."""
        self.schedule_ = torch.optim.lr_scheduler.CosineAnnealingLR(net.optimizer_, T_max=net.max_epochs)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Take one step of the schedule."""
        self.schedule_.step()


def make_net(module: Any, **params: Any) -> NeuralNetClassifier:
    """Wrap a torch module in a skorch net with the paper's training recipe (section 3.1).

    SGD with Nesterov momentum .9, weight decay 1e-4, learning rate .1 with cosine annealing, batches of 64,
    cross-entropy on logits. Every input is used for training: no part is held back for validation.

    Parameters
    ----------
    module : torch.nn.Module or its class
        Returns one logit per class.
    **params
        Parameters of `skorch.NeuralNetClassifier` that replace or extend the recipe's, such as ``max_epochs``
        (default 40).

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Not yet fitted.

    Examples
    --------
    >>> from torch import nn
    >>> make_net(nn.Linear(4, 2), max_epochs=5).max_epochs
    5
    """
    recipe = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__nesterov": True,
        "optimizer__weight_decay": 1e-4,
        "lr": 0.1,
        "batch_size": 64,
        "max_epochs": 40,
        "iterator_train__shuffle": True,
        "train_split": None,
        "callbacks": [("schedule", CosineSchedule)],
        "verbose": 0,
    }
    return NeuralNetClassifier(module, **(recipe | params))


class NoisyModule(nn.Module):
    """A network behind the noise: training mode adds fresh noise, and every mode standardises.

    Parameters
    ----------
    base_module : torch.nn.Module or its class
        The network; an instance is copied.
    base_channel : NoisyChannel
        Noise of training mode. In evaluation mode inputs are taken as noisy already.
    base_statistics : tuple of two ndarrays
        What is subtracted from the network's inputs, and what they are divided by.
    base_classes : int
        Number of logits that the network must return.
    base_seed : int
        Seed of the noise.
    **kwargs
        Arguments of ``base_module`` where it is a class.
    """

    def __init__(
        self,
        base_module: Any,
        base_channel: NoisyChannel,
        base_statistics: tuple[NDArray[Any], NDArray[Any]],
        base_classes: int,
        base_seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if isinstance(base_module, nn.Module) and not kwargs:
            self.base = copy.deepcopy(base_module)
        else:
            factory = type(base_module) if isinstance(base_module, nn.Module) else base_module
            self.base = factory(**kwargs)
        self.channel = base_channel
        self.n_classes = base_classes
        self.center: torch.Tensor
        self.scale: torch.Tensor
        self.rng = np.random.default_rng(base_seed)
        for name, value in zip(("center", "scale"), base_statistics, strict=True):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(self, X: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the network's answer to noisy and standardised inputs."""
        if self.training:
            X = torch.from_numpy(self.channel.noisy(X.cpu().numpy(), self.rng, np.float32)).to(X.device)
        answer = self.base((X - self.center) / self.scale, *args, **kwargs)
        logits = answer[0] if isinstance(answer, tuple) else answer
        if logits.ndim != 2 or logits.shape[1] != self.n_classes:
            raise ValueError(
                f"The base model {type(self.base).__name__} must return one logit for each of the {self.n_classes} "
                f"classes of y, but returned shape {tuple(logits.shape)}."
            )
        return answer


def fit_net(
    estimator: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    channel: NoisyChannel | None = None,
    standardize: bool = False,
    seed: int,
    device: Any = None,
    verbose: int = 0,
    **fit_params: Any,
) -> NeuralNetClassifier:
    """Fit a copy of a torch module or skorch net, behind a `NoisyModule` where there is a channel.

    All of torch's randomness follows from ``seed``; its global generators are left as found.
    """
    net = make_net(estimator, verbose=verbose) if isinstance(estimator, nn.Module) else clone(estimator)
    if device is not None:
        net.set_params(device=device)
    classes, indices = np.unique(y, return_inverse=True)
    X = X.astype(np.float32)
    noise_seed, statistics_seed, torch_seed = map(int, np.random.SeedSequence(seed).generate_state(3))
    if channel is not None:
        net.set_params(
            module=NoisyModule,
            module__base_module=net.module,
            module__base_channel=channel,
            module__base_statistics=_statistics(X, channel, standardize, statistics_seed),
            module__base_classes=len(classes),
            module__base_seed=noise_seed,
        )
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed)
        net.fit(X, indices.astype(np.int64), **fit_params)
    net.module_.eval()
    return net


def _statistics(
    X: NDArray[np.float32], channel: NoisyChannel, standardize: bool, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation of noisy inputs: per channel of images, per feature of tables."""
    if not standardize:
        return np.zeros(1), np.ones(1)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:STATISTICS_INPUTS]
    noisy = channel.noisy(X[rows], rng)
    axes = (0, *range(2, noisy.ndim))
    center = noisy.mean(axis=axes, keepdims=True)[0]
    scale = noisy.std(axis=axes, keepdims=True)[0]
    return center, np.where(scale > 0, scale, 1.0)
