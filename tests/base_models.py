"""Base models whose behavior under noise is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from smoothcert.noise._philox import apply_offsets
from smoothcert.noise.lattice import LatticeNoise


class Rule(ClassifierMixin, BaseEstimator):
    """A classifier that is a fixed function from a batch to class labels."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], classes: Any = (0, 1)) -> None:
        self.function = function
        self.classes = classes

    def fit(self, X: Any, y: Any) -> Rule:
        self.classes_ = np.asarray(self.classes)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.function(X)


def steps(thresholds: list[float]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rule that answers with the interval between thresholds that the first feature falls in."""
    return lambda X: np.searchsorted(thresholds, X[:, 0], side="right")


def constant(X: np.ndarray) -> np.ndarray:
    """Answer 0 whatever comes."""
    return np.zeros(len(X), dtype=int)


def all_offsets(noise: LatticeNoise, d: int) -> np.ndarray:
    """Return every offset vector of the noise in d dimensions, shape (L**d, d)."""
    grid = np.meshgrid(*[np.arange(noise.n_offsets)] * d, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, d)


def outcomes(noise: LatticeNoise, point: np.ndarray) -> np.ndarray:
    """Return what the base model sees for every offset, as one integer key per outcome and feature."""
    offsets = all_offsets(noise, len(point))
    out = np.empty(offsets.shape)
    apply_offsets(noise.recipe, np.asarray(point), offsets, out)
    return to_keys(noise, out)


def to_keys(noise: LatticeNoise, values: np.ndarray) -> np.ndarray:
    """Return noisy values as integers: all of them are multiples of 1/(4q)."""
    keys = np.rint(values * 4 * noise.q)
    assert np.allclose(keys, values * 4 * noise.q, atol=1e-6)
    return keys.astype(np.int64)


class WorstCase(Rule):
    """The base model of Proposition 2.1's worst case: it votes 0 where x's noise lands and y's cannot, first of all.

    Of the ``L**d`` outcomes of x, ``mass`` get label 0: those that y's noise cannot reach, and then as many of the
    others as are left to fill. Everything else gets label 1.
    """

    def __init__(self, noise: LatticeNoise, x: np.ndarray, y: np.ndarray, mass: int) -> None:
        self.noise = noise
        self.x = x
        self.y = y
        self.mass = mass
        of_x = self.places(outcomes(noise, x))
        reachable = np.isin(of_x, self.places(outcomes(noise, y)))
        self.chosen_ = of_x[np.argsort(reachable, kind="stable")[:mass]]
        self.classes_ = np.array([0, 1])

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Return one integer for each row of at most three keys."""
        assert keys.shape[1] <= 3
        assert np.abs(keys).max() < 2**15
        return (keys + 2**15) @ 2 ** (16 * np.arange(keys.shape[1]))

    def votes_0(self, keys: np.ndarray) -> np.ndarray:
        return np.isin(self.places(keys), self.chosen_)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.where(self.votes_0(to_keys(self.noise, X)), 0, 1)

    def share(self, point: np.ndarray) -> float:
        """Return h_0(point), exactly."""
        return float(np.mean(self.votes_0(outcomes(self.noise, point))))


class MeanOfFirst(torch.nn.Module):
    """A network whose answer depends on the shape of its inputs: it looks at what comes first in each."""

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        mean = X[:, 0].flatten(1).mean(dim=1)
        return torch.stack([mean, 1 - mean], dim=1)


def fail_as_torch(error: Exception) -> None:
    """Raise an error as torch's compiled functions do: by no ``raise`` statement."""
    (one for one in ()).throw(error)
