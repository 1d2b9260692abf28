"""Torch networks under noise: the module that adds it, the stability criterion, and the paper's recipe for skorch.

These are the pieces that training through `SmoothedClassifier` is made of, for use in any training loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from ..noise.base import Noise
from ..noise.box import Box
from ..noise.mechanism import NoiseMechanism

__all__ = ["CosineSchedule", "NoisyModule", "StabilityLoss", "make_net", "noisy_statistics"]

#: Values of noisy data, but at least as many inputs as in the second number, that statistics are estimated from.
STATISTICS_VALUES, STATISTICS_INPUTS = 2**20, 1000


class NoisyModule(nn.Module):
    """A network behind the noise: training mode adds fresh noise to every batch, and every mode standardises.

    In evaluation mode inputs are taken as noisy already, as they are while votes are drawn, unless
    ``noisy_evaluation`` is set.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It returns one logit per class.
    noise : Noise
    bounds : (lo, hi) or Box, default=(0.0, 1.0)
        The box that inputs live in, in raw units.
    center, scale : array-like, default=0.0 and 1.0
        Subtracted from noisy inputs, which are then divided; see `noisy_statistics`.
    n_copies : int, default=1
        Noisy copies of each batch in training mode. With more than one, the answer is a tuple of as many logits.
    seed : int, optional
        Seed of the noise; None draws fresh entropy.

    Attributes
    ----------
    noisy_evaluation : bool
        Whether evaluation mode adds noise as well, for validation scores. False at first.

    Examples
    --------
    >>> import torch
    >>> from smoothcert import SplitNoise
    >>> module = NoisyModule(torch.nn.Linear(4, 2), SplitNoise(lam=1.0), n_copies=2)
    >>> [tuple(logits.shape) for logits in module(torch.rand(8, 4))]
    [(8, 2), (8, 2)]
    >>> tuple(module.eval()(torch.rand(8, 4)).shape)
    (8, 2)
    """

    def __init__(
        self,
        module: nn.Module,
        noise: Noise,
        bounds: Any = (0.0, 1.0),
        *,
        center: Any = 0.0,
        scale: Any = 1.0,
        n_copies: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        noise.check()
        self.module = module
        self.noise = noise
        self.box = bounds if isinstance(bounds, Box) else Box.from_bounds(bounds)
        self.n_copies = n_copies
        self.noisy_evaluation = False
        self.rng = np.random.default_rng(seed)
        self.center: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, X: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the network's answer to noisy and standardised inputs, shape (n, *shape)."""
        copies = self.n_copies if self.training else 1
        if self.training or self.noisy_evaluation:
            X = self._noisy(X) if copies == 1 else torch.cat([self._noisy(X) for _ in range(copies)])
        answer = self.module((X - self.center) / self.scale, *args, **kwargs)
        if copies == 1:
            return answer
        if not isinstance(answer, torch.Tensor):
            raise ValueError(
                f"The module {type(self.module).__name__} must return a tensor of logits to be asked about "
                f"{copies} noisy copies at once, but returned a {type(answer).__name__}."
            )
        return answer.chunk(copies)

    @torch.compiler.disable
    def _noisy(self, X: torch.Tensor) -> torch.Tensor:
        mechanism = NoiseMechanism(self.box, self.noise, tuple(X.shape[1:]))
        noisy = mechanism.noisy(X.detach().cpu().numpy(), self.rng, np.float32)
        return torch.from_numpy(noisy).to(X.device, X.dtype)


def noisy_statistics(
    X: NDArray[Any], noise: Noise, bounds: Any = (0.0, 1.0), *, seed: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of noisy inputs: per channel of images, per feature of tables.

    Wide splitting noise sets most features to exactly 1/2. What a network sees must be centred and scaled by the
    statistics of such data: those of clean data would leave it with almost no signal.

    Parameters
    ----------
    X : ndarray of shape (n_inputs, n_features) or (n_inputs, n_channels, ...)
        Clean inputs; of many, a random part is used.
    noise : Noise
    bounds : (lo, hi) or Box, default=(0.0, 1.0)
    seed : int, optional

    Returns
    -------
    center, scale : ndarray
        Of a shape that broadcasts against one input. The scale of a constant is 1.

    Examples
    --------
    >>> from smoothcert import SplitNoise
    >>> center, scale = noisy_statistics(np.zeros((1000, 1)), SplitNoise(lam=5.0), seed=0)
    >>> print(center.round(1), scale.round(1))
    [0.5] [0.1]
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[: max(STATISTICS_INPUTS, STATISTICS_VALUES // max(X[0].size, 1))]
    box = bounds if isinstance(bounds, Box) else Box.from_bounds(bounds)
    noisy = NoiseMechanism(box, noise, X.shape[1:]).noisy(X[rows], rng)
    axes = (0, *range(2, noisy.ndim))
    center = noisy.mean(axis=axes, keepdims=True)[0]
    scale = noisy.std(axis=axes, keepdims=True)[0]
    return center, np.where(scale > 0, scale, 1.0)


class StabilityLoss(nn.CrossEntropyLoss):
    """Cross-entropy on one noisy copy, plus the divergence between the answers to two (Li et al. 2019; section 3.1).

    The loss of a row is ``-log f(x + d1)_y + stability_weight * KL(f(x + d1) || f(x + d2))``, where f is the softmax
    of the logits. Of a single copy, as in evaluation, it is the cross-entropy.

    Parameters
    ----------
    stability_weight : float, default=6.0
        The paper's C.
    **kwargs
        Arguments of `torch.nn.CrossEntropyLoss`; they apply to its part.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> print(f"{StabilityLoss()((logits, logits), torch.tensor([0])).item():.4f}")
    0.1269
    """

    def __init__(self, stability_weight: float = 6.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stability_weight = stability_weight

    def forward(self, input: Any, target: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Return the loss of a pair of logits of shape (n, n_classes) each, or of a single one."""
        if not isinstance(input, tuple):
            return super().forward(input, target)
        first, second = (logits.log_softmax(dim=1) for logits in input)
        divergence = (first.exp() * (first - second)).sum(dim=1)
        if self.reduction != "none":
            divergence = divergence.mean() if self.reduction == "mean" else divergence.sum()
        return super().forward(input[0], target) + self.stability_weight * divergence


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
        (default 40). Another ``optimizer`` comes without the settings of SGD.

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
    if "optimizer" in params:
        recipe = {name: value for name, value in recipe.items() if not name.startswith("optimizer__")}
    return NeuralNetClassifier(module, **(recipe | params))
