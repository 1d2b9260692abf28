"""Exact probabilities in place of votes: a sampler that draws nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.base import Voter
from ..noise.mechanism import NoiseMechanism
from .exact import ExactVotes
from .sampler import Sampler, Votes, fingerprints

FloatArray = NDArray[np.float64]

#: Maximum number of inputs in a task.
TASK_INPUTS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares(Votes):
    """Bounds on the share of all noisy copies of an input that get a vote for each class. No votes are drawn.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_inputs, n_classes)
        ``selection`` is their mean, which chooses the class. ``estimation`` holds no votes.
    """

    lower: FloatArray
    upper: FloatArray

    @classmethod
    def of(
        cls, lower: FloatArray, upper: FloatArray, inputs: NDArray[np.uint8], *, seed: int = 0, seconds: float = 0.0
    ) -> Shares:
        """Return what takes the place of the votes of some inputs."""
        return cls(
            selection=(lower + upper) / 2,
            estimation=np.zeros(lower.shape, dtype=np.int64),
            lower=lower,
            upper=upper,
            inputs=inputs,
            seed=seed,
            seconds=seconds,
        )

    @property
    def drawn(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """No votes are drawn."""
        none = np.zeros(len(self.inputs), dtype=np.int64)
        return none, none

    @property
    def recorded(self) -> tuple[FloatArray, FloatArray]:
        """What a store keeps of each input."""
        return self.lower, self.upper

    def probabilities(self, scheme: str) -> tuple[FloatArray, FloatArray]:
        """Return a lower bound on the probability of the most probable class, and an upper one on that of its rival.

        Parameters
        ----------
        scheme : {"multiclass", "binary"}
            Whether the rival is the strongest other class, or all other classes.
        """
        rows, top = np.arange(len(self.lower)), self.selection.argmax(axis=1)
        p_a, rivals = self.lower[rows, top], self.upper.copy()
        rivals[rows, top] = 0
        # The complement is exact where it matters: for every p_a of 1/2 or more.
        return p_a, 1 - p_a if scheme == "binary" else np.minimum(1 - p_a, rivals.max(axis=1))


@dataclass(frozen=True, eq=False)
class ExactSampler:
    """Takes the place of a `Sampler` where probabilities are exact.

    Parameters
    ----------
    exact : ExactVotes
    seed : int
        It has no effect. Stores record it.
    """

    exact: ExactVotes
    seed: int = 0
    n_selection = n_samples = 0

    @property
    def voter(self) -> Voter:
        """The base model."""
        return self.exact.voter

    @property
    def mechanism(self) -> NoiseMechanism:
        """Box and noise."""
        return self.exact.mechanism

    def chunk_size(self, n_inputs: int) -> int:
        """Return the number of inputs in a task."""
        return min(TASK_INPUTS, n_inputs)

    def draw(self, X: NDArray[Any], target: Any = None) -> Shares:
        """Return the shares of a few inputs; see `Sampler.draw`."""
        started = time.perf_counter()
        lower, upper = self.exact.bounds(X)
        inputs = fingerprints(self.mechanism, X)
        return Shares.of(lower, upper, inputs, seed=self.seed, seconds=time.perf_counter() - started)


#: Where the votes of inputs, or their exact probabilities, come from.
Source = Sampler | ExactSampler
