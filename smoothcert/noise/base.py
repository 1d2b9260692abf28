"""What a noise family is: how inputs are perturbed, and what a perturbation costs the adversary.

All of it happens in the unit box. An adversary who moves feature i by delta_i pays ``sum_i cost(delta_i)``, and the
smoothed label stands while the sum stays within ``budget(p_a, p_b)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from . import seeding
from .greedy import walk, walk_cost

FloatArray = NDArray[np.float64]


class Noise(BaseEstimator, ABC):
    """What the pipeline asks of a noise family; all arrays are in units of the unit box."""

    #: Norms in which `LipschitzRadius` has a certificate.
    norms: tuple[float, ...] = (1,)

    #: Whether the budget depends on the margin p_a - p_b alone.
    by_margin: bool = False

    #: Whether certificates can rely on the box: features are perturbed independently, and cost more the farther.
    uses_box: bool = True

    @abstractmethod
    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""

    @abstractmethod
    def to_points(self, unit: FloatArray) -> NDArray[Any]:
        """Turn inputs in the unit box into the points whose noise is drawn."""

    @abstractmethod
    def to_unit(self, points: NDArray[Any]) -> FloatArray:
        """Return where `to_points` has put the inputs in the unit box."""

    def snap(self, unit: FloatArray) -> FloatArray:
        """Return where `to_points` puts inputs in the unit box; ``unit`` may be overwritten."""
        return self.to_unit(self.to_points(unit))

    @property
    @abstractmethod
    def resolution(self) -> float:
        """How far two real inputs can drift apart, per feature, on the way to their points."""

    @property
    def allows_closed_form(self) -> bool:
        """Whether part of a full move costs no more than that part of its price: cost is convex and finite up to 1."""
        return True

    @property
    def n_outcomes(self) -> int | None:
        """Number of outcomes that are all evaluated, or None for noise that is sampled."""
        return None

    def enumerate(self, point: NDArray[Any], first: int, out: NDArray[np.floating]) -> None:
        """Write the outcomes ``first`` and following of one point, for noise that is not sampled."""
        raise NotImplementedError(f"{type(self).__name__} is sampled.")

    @property
    def draw_error(self) -> float:
        """Bound on the total variation between one number drawn and the ideal one; it is taken from alpha."""
        return 0.0

    @property
    def fused(self) -> int | None:
        """The fused kernel's number for this noise, which then has a ``fill_raw``; None for noise it does not know."""
        return None

    @abstractmethod
    def perturb(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy copies of ``points``, shape (d,) or like ``out``, into ``out``, shape (n, d)."""

    def perturb_keyed(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Do what `perturb` does by `fill`, each point with a key of its own."""
        points = np.atleast_2d(points)
        keys = rng.integers(2**32, size=(len(points), 4), dtype=np.uint32)
        copies = len(out) // len(points)
        segments = np.array([[owner, 0, copies] for owner in range(len(points))], dtype=np.int64)
        self.fill(points, keys, segments, out)

    def fill(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples: what a row holds is a function of its input's key and the sample's number.

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
        Samples are drawn in blocks, each with a generator of its own, by `perturb`.
        """
        d, row = points.shape[1], 0
        size = seeding.block_size(d)
        for owner, first, count in segments.tolist():
            for block in range(first // size, -(-(first + count) // size)):
                wanted = slice(max(first - block * size, 0), min(first + count - block * size, size))
                target = out[row : row + wanted.stop - wanted.start]
                drawn = target if len(target) == size else np.empty((size, d), dtype=out.dtype)
                self.perturb(points[owner], seeding.generator(keys[owner], block), drawn)
                if drawn is not target:
                    target[...] = drawn[wanted]
                row += len(target)

    @abstractmethod
    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return the total cost up to which class A at p_a stays ahead of every class at p_b."""

    @abstractmethod
    def cost(self, z: Any) -> Any:
        """Return the cost of moving one feature by ``z``; convex, 0 at 0."""

    @abstractmethod
    def inverse_cost(self, spent: Any) -> Any:
        """Return how far one feature moves at this cost."""

    def walk(self, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Return how far the adversary gets, moving each feature by its reach at most; see `calculus.walk`."""
        return walk(self.cost, self.inverse_cost, budget, reach)

    def walk_cost(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return what the adversary pays to cover ``distance`` within ``reach``; see `greedy.walk_cost`."""
        return walk_cost(lambda moves: self.cost(moves).sum(axis=1), reach, distance)


class FusedNoise(Noise):
    """Noise whose keyed samples a fused kernel writes where it knows the formula, and `fill_plainly` elsewhere."""

    @property
    @abstractmethod
    def formula(self) -> int | None:
        """The fused kernels' number for what this class draws, or None if they do not know it."""

    @property
    def fused(self) -> int | None:
        """The fused kernels' number, or None where a subclass has noise of its own."""
        own = type(self).fill is not FusedNoise.fill or type(self).perturb is not FusedNoise.perturb
        return None if own else self.formula

    def perturb(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy copies of ``points`` into ``out``, each point with a key of its own."""
        self.perturb_keyed(points, rng, out)

    def fill(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples; see `Noise.fill`."""
        if type(self).perturb is not FusedNoise.perturb:
            super().fill(points, keys, segments, out)
        else:
            self.fill_raw(points, keys, segments, out)

    def fill_raw(
        self,
        points: NDArray[Any],
        keys: NDArray[np.uint32],
        segments: NDArray[np.int64],
        out: NDArray[np.floating],
        scale: NDArray[np.floating] | None = None,
        shift: NDArray[np.floating] | None = None,
    ) -> None:
        """Write keyed samples, multiply each feature by ``scale`` and add ``shift``."""
        if self.fused is not None and out.dtype in (np.float32, np.float64) and out.flags.c_contiguous:
            self.fill_fused(points, keys, segments, out, scale, shift)
            return
        self.fill_plainly(points, keys, segments, out)
        if scale is not None and shift is not None:
            out *= scale
            out += shift

    @abstractmethod
    def fill_fused(
        self,
        points: NDArray[Any],
        keys: NDArray[np.uint32],
        segments: NDArray[np.int64],
        out: NDArray[np.floating],
        scale: NDArray[np.floating] | None,
        shift: NDArray[np.floating] | None,
    ) -> None:
        """Do by the fused kernel for CPUs what `fill_raw` does."""

    @abstractmethod
    def fill_plainly(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Do in NumPy what `fill` does: the reference."""
