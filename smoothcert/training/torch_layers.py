"""Torch networks under noise: the module that adds it, the stability loss, and the paper's recipe for skorch.

These pieces fit any training loop. `SmoothedClassifier.fit` trains with the same noise, loss and recipe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from .._utils.checks import check_count
from ..noise.base import Noise
from ..noise.mechanism import NoiseMechanism
from ..noise.threat import Features
from .carried_noise import box_of, noisy_modules
from .torch_noise import noisy_copies, split_copies

__all__ = ["CosineSchedule", "NoisyModule", "StabilityLoss", "make_net", "noisy_statistics"]

#: Settings of the nets that train bare modules: all inputs are used, and none are held back for validation.
RECIPE: dict[str, Any] = {
    "batch_size": 64,
    "max_epochs": 40,
    "iterator_train__shuffle": True,
    "train_split": None,
    "verbose": 0,
}

#: Statistics are estimated from this many noisy values, and from at least this many inputs.
STATISTICS_VALUES, STATISTICS_INPUTS = 2**20, 1000


class NoisyModule(nn.Module):
    """A network behind the noise, for a training loop of your own.

    Training mode adds fresh noise to every batch. Every mode centers and scales inputs. In evaluation mode inputs are
    noisy already, as they are when votes are drawn, unless ``noisy_evaluation`` is set.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It returns one logit per class. A NoisyModule is replaced by the network inside it.
    noise : Noise
    bounds : (lo, hi) or Box, default=(0.0, 1.0)
        The box that inputs live in, in raw units.
    costs : float, "fixed" or array-like, default=1.0
        The costs of the features, as in `smoothcert.SmoothedClassifier`.
    center : array-like, default=0.0
    scale : array-like, default=1.0
        Noisy inputs become ``(X - center) / scale``; see `noisy_statistics`. ``load_state_dict`` sets both.
    n_copies : int, default=1
        Noisy copies of each batch in training mode. With more than one, the module returns a tuple of logits, one
        tensor per copy.
    seed : int, optional
        Seed of the noise; None draws fresh entropy.

    Attributes
    ----------
    noisy_evaluation : bool
        Whether evaluation mode adds noise as well, for validation scores. It must be False when votes are drawn.

    See Also
    --------
    StabilityLoss : The loss of a pair of noisy copies.
    smoothcert.SmoothedClassifier.from_pretrained : Certifies the trained network.

    Notes
    -----
    Noise is drawn on the device of the batch. Gradients pass through it to the inputs, as adversarial training needs
    them: exactly where noise is added, and as if it were for splitting noise.

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

    #: How `noisy_modules` finds it.
    carries_noise = True

    def __init__(
        self,
        module: nn.Module,
        noise: Noise,
        bounds: Any = (0.0, 1.0),
        *,
        costs: Any = 1.0,
        center: Any = 0.0,
        scale: Any = 1.0,
        n_copies: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        _check_noise_object(noise)
        check_count("n_copies", n_copies)
        self.module: nn.Module = module.module if isinstance(module, NoisyModule) else module
        if noisy_modules(self.module):
            raise ValueError(
                f"module must hold no NoisyModule below the top, where noise would be added twice, got a "
                f"{type(module).__name__} that does. Use the network inside it."
            )
        self.noise = noise
        self.box = box_of(bounds)
        self.costs = costs
        Features.from_costs(costs)
        self.n_copies = n_copies
        self.noisy_evaluation = False
        self.rng = np.random.default_rng(seed)
        self.center: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        if not (torch.as_tensor(scale, device="cpu") > 0).all():
            raise ValueError(f"scale must be above 0, got {scale!r}. Use what noisy_statistics returns.")

    def forward(self, X: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the network's answer to noisy, centered and scaled inputs.

        Parameters
        ----------
        X : torch.Tensor of shape (n, *shape)
            Raw inputs inside the box; in evaluation mode noisy ones.
        *args, **kwargs
            Passed to the network.

        Raises
        ------
        ValueError
            If noise is added, and X lies outside the box.
        """
        copies = self.n_copies if self.training else 1
        if self.training or self.noisy_evaluation:
            shape = tuple(X.shape[1:])
            mechanism = NoiseMechanism(self.box, self.noise, shape, Features.from_costs(self.costs, shape=shape))
            self._check_box(X, mechanism)
            X = noisy_copies(X, mechanism, self.rng, copies)
        return split_copies(self.module, self.module((X - self.center) / self.scale, *args, **kwargs), copies)

    @torch.compiler.disable
    def _check_box(self, X: torch.Tensor, mechanism: NoiseMechanism) -> None:
        """Let the box check the smallest and the largest value of each feature."""
        ends = torch.stack(X.detach().aminmax(dim=0)).float().cpu().numpy()
        mechanism.box.check(mechanism.bounded(ends))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take the statistics of a checkpoint, which may have another shape than those here."""
        for name in ("center", "scale"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_noise_object(noise: Any) -> None:
    """Raise a ValueError unless this is noise whose parameters are in range."""
    if not isinstance(noise, Noise):
        raise ValueError(f"noise must be a Noise object, such as SplitNoise(lam=1.0), got {noise!r}.")
    noise.check()


def noisy_statistics(
    X: NDArray[Any], noise: Noise, bounds: Any = (0.0, 1.0), *, costs: Any = 1.0, seed: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of noisy inputs: per channel of images, per feature of tables.

    Wide splitting noise sets most features to exactly 1/2. Statistics of clean data would leave a network with almost
    no signal, so inputs are centered and scaled by those of noisy data.

    Parameters
    ----------
    X : ndarray of shape (n_inputs, n_features) or (n_inputs, n_channels, ...)
        Clean inputs inside the box. A random part is used if there are many.
    noise : Noise
    bounds : (lo, hi) or Box, default=(0.0, 1.0)
    costs : float, "fixed" or array-like, default=1.0
    seed : int, optional

    Returns
    -------
    center, scale : ndarray
        Of a shape that broadcasts against one input. The scale of a constant is 1.

    Raises
    ------
    ValueError
        If X lies outside the box.

    See Also
    --------
    NoisyModule : The module that uses them.

    Examples
    --------
    >>> from smoothcert import SplitNoise
    >>> center, scale = noisy_statistics(np.zeros((1000, 1)), SplitNoise(lam=5.0), seed=0)
    >>> print(center.round(1), scale.round(1))
    [0.5] [0.1]
    """
    X = np.asarray(X)
    _check_noise_object(noise)
    mechanism = NoiseMechanism(box_of(bounds), noise, X.shape[1:], Features.from_costs(costs, shape=X.shape[1:]))
    mechanism.box.check(mechanism.bounded(X))
    return statistics(X, mechanism, seed)


def statistics(
    X: NDArray[Any], mechanism: NoiseMechanism, seed: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of noisy inputs inside the box; see `noisy_statistics`."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[: max(STATISTICS_INPUTS, STATISTICS_VALUES // max(X[0].size, 1))]
    noisy = mechanism.noisy(X[rows], rng)
    axes = (0, *range(2, noisy.ndim))
    center = noisy.mean(axis=axes, keepdims=True)[0]
    scale = noisy.std(axis=axes, keepdims=True)[0]
    return center, np.where(scale > 0, scale, 1.0)


class StabilityLoss(nn.CrossEntropyLoss):
    """Cross-entropy on one noisy copy, plus the divergence between the answers to two.

    The loss of a row is ``-log f(x + d1)_y + stability_weight * KL(f(x + d1) || f(x + d2))``, where f is the softmax
    of the logits. The loss of a single copy, as in evaluation, is the cross-entropy.

    Parameters
    ----------
    stability_weight : float, default=6.0
        The paper's C.
    **kwargs
        Arguments of `torch.nn.CrossEntropyLoss`. They apply to the cross-entropy.

    See Also
    --------
    NoisyModule : Returns such pairs, with ``n_copies=2``.

    References
    ----------
    Li, Chen, Wang and Carin (2019), "Certified adversarial robustness with additive noise"; section 3.1 of the paper.

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
        return super().forward(input[0], target) + self.stability_weight * divergence(input, self.reduction)


def divergence(pair: tuple[torch.Tensor, torch.Tensor], reduction: str) -> torch.Tensor:
    """Return KL(p || q) of the softmax of two answers, reduced over the batch as losses of torch are."""
    first, second = (logits.log_softmax(dim=1) for logits in pair)
    rows = (first.exp() * (first - second)).sum(dim=1)
    return rows if reduction == "none" else rows.mean() if reduction == "mean" else rows.sum()


class CosineSchedule(Callback):
    """Anneal the learning rate from its initial value to 0 along half a cosine over the ``max_epochs`` of the net.

    skorch's ``LRScheduler`` takes the number of epochs when it is made, and would miss a later change of
    ``max_epochs``, by ``set_params`` or in a search.

    See Also
    --------
    make_net : The net that uses it.

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start a schedule over the epochs that this training will run."""
        self.schedule_ = torch.optim.lr_scheduler.CosineAnnealingLR(net.optimizer_, T_max=net.max_epochs)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Take one step of the schedule."""
        self.schedule_.step()


def make_net(module: Any, **params: Any) -> NeuralNetClassifier:
    """Wrap a torch module in a skorch net with the paper's training recipe (section 3.1).

    The recipe is SGD with Nesterov momentum .9, weight decay 1e-4, a learning rate of .1 with cosine annealing, batches
    of 64, 40 epochs, and cross-entropy on logits. All inputs are used for training: none are held back for validation.

    Parameters
    ----------
    module : torch.nn.Module or its class
        Returns one logit per class.
    **params
        Parameters of `skorch.NeuralNetClassifier` that replace or extend those of the recipe, such as ``max_epochs``.
        Another ``optimizer`` comes without the settings of SGD.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Not yet fitted.

    See Also
    --------
    smoothcert.SmoothedClassifier : Trains such a net under noise, and bare modules with the recipe as it is.

    References
    ----------
    Voracek and Hein (2023), "Improving l1-certified robustness via randomized smoothing by leveraging box constraints",
    section 3.1.

    Examples
    --------
    >>> from torch import nn
    >>> make_net(nn.Linear(4, 2), max_epochs=5).max_epochs
    5
    """
    sgd = {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 1e-4}
    recipe = RECIPE | {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": 0.1,
        "callbacks": [("schedule", CosineSchedule)],
    }
    return NeuralNetClassifier(module, **(recipe | ({} if "optimizer" in params else sgd) | params))


def regression_net(module: Any) -> NeuralNetRegressor:
    """Wrap a torch module in a skorch net for regression: Adam with cosine annealing, 40 epochs on all inputs."""
    schedule = ("schedule", CosineSchedule)
    return NeuralNetRegressor(module, optimizer=torch.optim.Adam, lr=0.01, callbacks=[schedule], **RECIPE)
