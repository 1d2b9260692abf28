"""What a noise family is: how it draws noisy copies of inputs, and what a move costs the adversary.

All of it happens in the unit box. An adversary who moves feature i by delta_i pays ``sum_i cost(delta_i)``. The
smoothed label stands while the sum stays within ``budget(p_a, p_b)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from . import seeding
from ._philox import Recipe
from .greedy import walk, walk_cost

FloatArray = NDArray[np.float64]


class Noise(BaseEstimator, ABC):
    """Base class of noise families; all arrays are in units of the unit box.

    A family of your own defines `draw`, `cost`, `inverse_cost` and `budget`. The defaults of everything else are those
    of noise that is independent for each feature and drawn in floating point. Certificates then hold for the
    real-valued noise: strictly, a base model could read the input from the rounding of a floating-point sum.

    See Also
    --------
    LatticeNoise : Noise in integer arithmetic.
    RadiusStrategy : What turns its cost and budget into radii.

    Notes
    -----
    `smoothcert.noise.checks.check_noise` tests a family of your own before its first use.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Theorem 2.8: separable costs and the greedy walk.
    """

    #: Norms in which `LipschitzRadius` has a certificate.
    norms: tuple[float, ...] = (1,)

    #: Whether the budget depends on the margin p_a - p_b alone.
    by_margin: bool = False

    #: Whether certificates can rely on the box: noise is independent for each feature, and the cost is convex.
    uses_box: bool = True

    #: Bound on the distance that `to_points` adds between two inputs, per feature.
    resolution: float = 0.0

    #: Number of lattice steps per unit of digital inputs; None for real-valued ones. Two digital inputs differ by whole
    #: steps in each feature, and a certificate covers perturbations on the lattice.
    digital_levels: int | None = None

    #: Bound on the total variation between one number drawn and the ideal one; it is taken from alpha.
    draw_error: float = 0.0

    #: Number of outcomes that are all evaluated, each as the sample of its number; None for noise that is sampled.
    n_outcomes: int | None = None

    #: Whether numbers and categories can share a budget: noise is independent for each feature and pays by its overlap.
    allows_categories: bool = False

    #: What the fast backends draw; None for noise that `draw` or `sample` defines.
    recipe: Recipe | None = None

    #: Number of lattice steps of each column, 0 for real numbers, where columns have lattices of their own.
    column_steps: tuple[int, ...] | None = None

    #: Costs and lattice steps of the features that `cost` speaks of; see `with_groups`.
    _groups: tuple[tuple[float, int], ...] = ((1.0, 0),)

    @abstractmethod
    def draw(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy copies of points into ``out``, with random numbers from ``rng`` alone.

        Parameters
        ----------
        points : ndarray of shape (d,) or (n, d)
            One point for all copies, or one for each.
        rng : numpy.random.Generator
        out : ndarray of shape (n, d)
            Each row gets noise that is independent of the other rows.
        """

    @abstractmethod
    def cost(self, z: Any) -> Any:
        """Return the cost of moving one feature by ``z``: 0 at 0, increasing and convex."""

    @abstractmethod
    def inverse_cost(self, spent: Any) -> Any:
        """Return how far one feature moves at this cost."""

    @abstractmethod
    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return the total cost up to which class A at p_a stays ahead of every class at p_b."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the fast backends away from a subclass that draws noise of its own."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "recipe" not in own and ("draw" in own or "sample" in own):
            cls.recipe = None

    def sample(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples: a row is a function of its input's point and key and of the sample's number.

        Parameters
        ----------
        points : ndarray of shape (n_inputs, d)
        keys : ndarray of uint32, shape (n_inputs, 4)
            From `seeding.keys`.
        segments : ndarray of int64, shape (n_segments, 3)
            Input, first sample and number of samples of consecutive rows.
        out : ndarray of shape (n_rows, d)

        Notes
        -----
        The fast backends draw the family's recipe. Without one, `draw` writes samples in blocks, each block with a
        generator of its own.
        """
        if self.recipe is not None:
            # Imported when needed: numba takes as long to import as scikit-learn.
            from . import _cpu

            _cpu.sample(self.recipe, points, keys, segments, out)
            return
        draw_blocks(self.draw, points, keys, segments, out)

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range; by default nothing is checked."""

    def to_points(self, unit: FloatArray) -> NDArray[Any]:
        """Turn inputs in the unit box into the points that get noise; by default they stay as they are."""
        return unit

    def to_unit(self, points: NDArray[Any]) -> FloatArray:
        """Return the places of points in the unit box."""
        return points

    def snap(self, unit: FloatArray) -> FloatArray:
        """Return where `to_points` puts inputs in the unit box."""
        return self.to_unit(self.to_points(unit))

    def point_distance(self, limit: FloatArray) -> FloatArray:
        """Bound the distance of points in one feature, for inputs whose distance there is at most ``limit``."""
        # The map to the unit box rounds far less than the resolution, which is counted twice.
        distance = limit + 2 * self.resolution
        steps = np.array(self.column_steps or self.digital_levels or 0)
        if not steps.any():
            return distance
        whole = np.maximum(limit, np.floor(distance * steps) / np.maximum(steps, 1))
        return np.where(steps > 0, whole, distance)

    @property
    def allows_closed_form(self) -> bool:
        """Whether `BoxRadius` has a closed form: the whole range of every feature has a finite cost."""
        return bool(np.isfinite(self.cost(max(cost for cost, _ in self._groups))))

    def for_cost(self, cost: float) -> Noise:
        """Return the noise of a feature for whose whole range the adversary pays ``cost``: ``1 / cost`` as wide.

        Raises
        ------
        ValueError
            If the family has no certificate for costs other than 1.
        """
        if cost == 1:
            return self
        reason = "it defines no for_cost"
        if not self.uses_box:
            reason = "its certificates bound the distance of all features together, and know nothing of single ones"
        raise ValueError(
            f"costs must be 1 for all features under {self!r}, since {reason}, got "
            f"{'fixed' if np.isinf(cost) else format(cost, 'g')}. Use uniform, splitting, mixture or Gaussian noise."
        )

    def for_columns(self, names: Sequence[str] | None) -> Self:
        """Return the noise whose parameters are in the order of the columns, where they go by column name."""
        return self

    def for_group(self, cost: float, steps: int) -> Noise:
        """Return the noise of features of a cost, on a lattice of ``steps`` if their column has one of its own."""
        return self.for_cost(cost)

    def with_groups(self, groups: tuple[tuple[float, int], ...]) -> Self:
        """Return noise whose ``cost`` is an upper bound for features of several groups.

        A group is the cost of its features and the number of steps of their own lattice, or 0. A move is measured in
        what the adversary pays for it: its share of the range, times the cost of the feature.
        """
        return self._changed(_groups=groups)

    def _changed(self, **attributes: Any) -> Self:
        """Return a copy with other values of some attributes."""
        changed = copy(self)
        changed.__dict__.update(attributes)
        return changed

    def after(self, moves: FloatArray) -> tuple[Noise, float]:
        """Return what certain moves cost, and the noise whose ``walk`` continues after them."""
        return self, float(np.sum(self.cost(moves)))

    def walk(self, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Return how far the adversary gets, moving no feature beyond its reach; see `greedy.walk`."""
        return walk(self.cost, self.inverse_cost, budget, reach)

    def walk_cost(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return what the adversary pays to cover ``distance`` within ``reach``; see `greedy.walk_cost`."""
        return walk_cost(lambda moves: self.cost(moves).sum(axis=1), reach, distance)


def draw_blocks(
    draw: Callable[..., None],
    points: NDArray[Any],
    keys: NDArray[np.uint32],
    segments: NDArray[np.int64],
    out: NDArray[np.floating],
) -> None:
    """Write keyed samples by ``draw``, in blocks that have a generator each; see `Noise.draw` and `Noise.sample`."""
    size, row = seeding.block_size(points.shape[1]), 0
    drawn = np.empty((size, out.shape[1]), dtype=out.dtype)
    for owner, first, count in segments.tolist():
        for block in range(first // size, -(-(first + count) // size)):
            draw(points[owner], seeding.generator(keys[owner], block), drawn)
            wanted = drawn[max(first - block * size, 0) : first + count - block * size]
            out[row : row + len(wanted)] = wanted
            row += len(wanted)


class KeyedNoise(Noise):
    """Noise that is drawn by its keyed samples: `draw` gives each point a fresh key."""

    def draw(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy copies of points into ``out``; see `Noise.draw`."""
        points = np.atleast_2d(points)
        keys = rng.integers(2**32, size=(len(points), 4), dtype=np.uint32)
        copies = len(out) // len(points)
        segments = np.array([[owner, 0, copies] for owner in range(len(points))], dtype=np.int64)
        self.sample(points, keys, segments, out)
