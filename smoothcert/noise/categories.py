"""Categories under noise: a category is shown with a probability that its cost decides, or else hidden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray
from .lattice import UniformNoise


class CategoryNoise:
    """Noise of categories: they are shown or hidden by the offset j in {0 .. L-1} that numbers of cost 1 get.

    A category of cost kappa is shown if j < R with R = floor(kappa q), and hidden otherwise. What replaces a hidden
    category does not depend on it. So two categories differ with probability R/L, which is at most kappa / (2 lam): a
    change costs no more than a number's move by kappa.

    Parameters
    ----------
    noise : LatticeNoise
        The noise of numbers of cost 1: uniform or splitting noise, or a mixture, whose parts are then drawn.
    columns : ndarray of int, shape (n,)
    costs : ndarray of float64, shape (n,)
    n_categories : ndarray of int64, shape (n,)
    hidden : {"mask", "uniform"}
        What replaces a hidden category: the code K, or the code (j - R) mod K.

    Raises
    ------
    ValueError
        If the noise has no certificate for categories.

    Examples
    --------
    >>> noise = CategoryNoise(
    ...     UniformNoise(lam=1.0, levels=4), np.array([0]), costs=np.array([0.5]), n_categories=np.array([3]),
    ...     hidden="mask")
    >>> noise.at_offsets(np.full(8, 2), np.arange(8))
    array([2, 2, 3, 3, 3, 3, 3, 3])
    """

    def __init__(
        self, noise: Any, columns: NDArray[np.intp], costs: FloatArray, n_categories: NDArray[np.int64], hidden: str
    ) -> None:
        if not noise.allows_categories or not type(noise).__module__.startswith(f"{__package__}."):
            raise ValueError(
                f"categorical_features need uniform, splitting or mixture noise, whose overlaps numbers and categories "
                f"share, got {noise!r}. Use one of these, or give the categories the cost 'fixed'."
            )
        self.columns, self.costs, self.n_categories, self.hidden = columns, costs, n_categories, hidden
        self.q, self.n_offsets = noise.q, noise.n_offsets
        self.n_shown = np.array([min(math.floor(cost * self.q), self.n_offsets) for cost in costs.tolist()])
        #: Noise at 0 whose values are j, less a constant: L/2 steps of a lattice with one step per unit.
        self.offsets = UniformNoise(self.n_offsets / 2, levels=1)

    @property
    def moves(self) -> FloatArray:
        """The moves of numbers that cost what the changes of these categories cost: R/q."""
        return self.n_shown / self.q

    @property
    def pairs(self) -> FloatArray:
        """Probabilities that the model sees the input's own category, and that it sees another one, shape (n, 2).

        A change of the category swaps the two, and leaves the probability of everything else that the model can see as
        it is. With a mask, the second is 0.
        """
        repeats = (self.n_offsets - self.n_shown) // np.maximum(self.n_categories, 2) * (self.hidden == "uniform")
        return np.column_stack([self.n_shown + repeats, repeats]) / self.n_offsets

    def check_codes(self, codes: FloatArray) -> None:
        """Raise a ValueError unless codes are whole numbers from 0 to K - 1."""
        wrong = ~((codes >= 0) & (codes < self.n_categories) & (codes == np.floor(codes)))
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise ValueError(
                f"X must hold the categories that were seen in fit, as codes from 0 to {self.n_categories[place] - 1} "
                f"in feature {self.columns[place]}, got {codes[row, place]:g}. Fit on all categories, or replace it."
            )

    def draw(self, points: NDArray[np.int64], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy categories; see `Noise.draw`."""
        drawn = np.empty(out.shape)
        self.offsets.draw(np.zeros_like(points), rng, drawn)
        out[...] = self._noisy(np.repeat(points, len(out) // len(points), axis=0), drawn)

    def sample(
        self,
        points: NDArray[np.int64],
        keys: NDArray[np.uint32],
        segments: NDArray[np.int64],
        out: NDArray[np.floating],
    ) -> None:
        """Write keyed samples; see `Noise.sample`."""
        drawn = np.empty(out.shape)
        self.offsets.sample(np.zeros_like(points), keys, segments, drawn)
        out[...] = self._noisy(np.repeat(points[segments[:, 0]], segments[:, 2], axis=0), drawn)

    def _noisy(self, codes: NDArray[np.int64], drawn: FloatArray) -> NDArray[np.int64]:
        """Return what the model sees instead of categories."""
        # Uniform noise at 0 is j - (L - 1)/2, a multiple of 1/2 without rounding errors.
        return self.at_offsets(codes, (drawn + (self.n_offsets - 1) / 2).astype(np.int64))

    def at_offsets(self, codes: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the model sees instead of categories at some offsets."""
        replaced = self.n_categories if self.hidden == "mask" else (offsets - self.n_shown) % self.n_categories
        return np.where(offsets < self.n_shown, codes, replaced)
