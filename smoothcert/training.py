"""Training strategies: how the base model meets the noise before it is certified under it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from ._checks import check_choice, check_count
from .channel import NoisyChannel
from .voters import is_torch


class Training(BaseEstimator, ABC):
    """A way to fit the base model."""

    @abstractmethod
    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""

    @abstractmethod
    def fit(
        self,
        estimator: Any,
        X: NDArray[Any],
        y: NDArray[Any],
        *,
        channel: NoisyChannel,
        seed: int,
        device: Any = None,
        verbose: int = 0,
        **fit_params: Any,
    ) -> Any:
        """Fit a copy of a base model.

        Parameters
        ----------
        estimator : estimator, torch module or skorch net
            Never changed.
        X : ndarray of shape (n_inputs, *shape)
            Raw inputs inside the box.
        y : ndarray of shape (n_inputs,)
            Labels; torch models are trained on their indices among the sorted labels.
        channel : NoisyChannel
            The noise that certification will use.
        seed : int
            All randomness of the training follows from it, except where the base model has a seed of its own.
        device : str, torch.device or None
            Where torch models are trained; None leaves that to them.
        verbose : int
        **fit_params
            Passed to the base model's ``fit``.

        Returns
        -------
        fitted : estimator or skorch net
        """


class CleanTraining(Training):
    """Training on the data as it is, without noise (``training=None``)."""

    def check(self) -> None:
        """Accept: there is nothing to set."""

    def fit(
        self,
        estimator: Any,
        X: NDArray[Any],
        y: NDArray[Any],
        *,
        channel: NoisyChannel,
        seed: int,
        device: Any = None,
        verbose: int = 0,
        **fit_params: Any,
    ) -> Any:
        """Fit on clean data; see `Training.fit`."""
        if is_torch(estimator):
            from .nets import fit_net

            return fit_net(estimator, X, y, seed=seed, device=device, verbose=verbose, **fit_params)
        return seeded(estimator, seed).fit(X, y, **fit_params)


class NoiseAugmentation(Training):
    """Cross-entropy on noisy inputs (Cohen et al. 2019; section 3.1 of the paper).

    Torch models meet fresh noise in every batch. Other estimators are fitted once on several noisy copies of the data.

    Parameters
    ----------
    n_copies : int, default=10
        Noisy copies of each input, with fresh noise each, for estimators that are not torch models.
    standardize : bool, default=True
        Centre and scale what a torch model sees, per channel of images and per feature of tables, by the mean and
        standard deviation of noisy training data. Without it, networks under wide splitting noise hardly learn.
    """

    def __init__(self, n_copies: int = 10, standardize: bool = True) -> None:
        self.n_copies = n_copies
        self.standardize = standardize

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        check_count("n_copies", self.n_copies)
        check_choice("standardize", self.standardize, (False, True))

    def fit(
        self,
        estimator: Any,
        X: NDArray[Any],
        y: NDArray[Any],
        *,
        channel: NoisyChannel,
        seed: int,
        device: Any = None,
        verbose: int = 0,
        **fit_params: Any,
    ) -> Any:
        """Fit on noisy data; see `Training.fit`."""
        if is_torch(estimator):
            from .nets import fit_net

            return fit_net(
                estimator,
                X,
                y,
                channel=channel,
                standardize=self.standardize,
                seed=seed,
                device=device,
                verbose=verbose,
                **fit_params,
            )
        rng = np.random.default_rng(seed)
        noisy = np.concatenate([channel.noisy(X, rng) for _ in range(self.n_copies)])
        copied = {name: _repeat_rows(value, len(X), self.n_copies) for name, value in fit_params.items()}
        return seeded(estimator, seed).fit(noisy, np.tile(y, self.n_copies), **copied)


def seeded(estimator: Any, seed: int) -> Any:
    """Clone an estimator, and seed each of its ``random_state`` parameters that is None."""
    copy = clone(estimator)
    open_states = sorted(
        name
        for name, value in copy.get_params(deep=True).items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    )
    seeds = np.random.SeedSequence(seed).generate_state(len(open_states))
    return copy.set_params(**dict(zip(open_states, map(int, seeds), strict=True)))


def _repeat_rows(value: Any, n_inputs: int, n_copies: int) -> Any:
    """Repeat a fit parameter that has one entry per input, such as sample_weight, along with the inputs."""
    per_input = hasattr(value, "__len__") and not isinstance(value, (str, dict)) and len(value) == n_inputs
    return np.concatenate([np.asarray(value)] * n_copies) if per_input else value
