"""Box and noise together: raw inputs in, noisy raw inputs out. Training and sampling use the same mechanism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray, Noise
from .box import Box
from .checks import check_foreign
from .greedy import STEP_ERROR


@dataclass(frozen=True, eq=False)
class NoiseMechanism:
    """The noise that is added to inputs of one shape before the base model sees them.

    Parameters
    ----------
    box : Box
    noise : Noise
    shape : tuple of int
        Shape of one input. Points are flat, shape (n, d); raw values keep the shape.
    """

    box: Box
    noise: Noise
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.box.check_shape(self.shape)
        check_foreign(self.noise)

    @property
    def n_features(self) -> int:
        """Number of features d of one input."""
        return int(np.prod(self.shape))

    def points(self, X: Any) -> NDArray[Any]:
        """Clip raw inputs, shape (n, *shape), and turn them into the noise's points, shape (n, d)."""
        return self.noise.to_points(self.box.to_unit(X)).reshape(len(X), self.n_features)

    def sample(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples, in raw units, into ``out`` of shape (n_rows, *shape); see `Noise.sample`."""
        self.noise.sample(points, keys, segments, out.reshape(len(out), -1))
        self.box.to_raw_inplace(out)

    def scale_and_shift(self, dtype: Any) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return the factors and summands that map the unit box to raw units; None if the box is the unit box."""
        if self.box.is_unit:
            return None, None
        scale, shift = (np.broadcast_to(end, self.shape).ravel().astype(dtype) for end in (self.box.width, self.box.lo))
        return scale, shift

    def noisy(self, X: Any, rng: np.random.Generator, dtype: type[np.floating] = np.float64) -> NDArray[Any]:
        """Return one noisy copy of each raw input, for training."""
        out = np.empty((len(X), *self.shape), dtype=dtype)
        self.noise.draw(self.points(X), rng, out.reshape(len(out), -1))
        self.box.to_raw_inplace(out)
        return out

    def room(self, X: Any) -> tuple[FloatArray, FloatArray]:
        """Return how far the points can move down and up, shape (n, d) each; 0 where the box holds a feature fixed."""
        down, up = self.box.room(self.noise.snap(self.box.to_unit(X)))
        return down.reshape(len(X), self.n_features), up.reshape(len(X), self.n_features)

    def rounding(self, norm: float = 1) -> float:
        """Bound on the distance that rounding adds between two raw inputs."""
        if self.noise.resolution == 0:
            return 0.0
        per_feature = self.noise.resolution + 2 * self.box.rounding(self.shape)
        return float(np.linalg.norm(per_feature[self.box.movable(self.shape)], ord=norm))

    def raw_radius(self, radius: FloatArray, norm: float = 1) -> FloatArray:
        """Return the radius around a raw input that a certified radius around its point is worth; at least 0.

        Points of real-valued inputs are farther apart than the inputs by `rounding` or less, so radii shrink by it.

        Points of digital inputs lie on a lattice. What is not certified differs from the input by whole steps whose
        powers sum to S, the next number beyond the radius, or more. Rounding changes at most S features, and only
        features that differ in a step or more. So raw inputs at that distance are rarely within the radius, and the
        radius shrinks only if they are.
        """
        shrunk = np.maximum(radius - self.rounding(norm), 0.0)
        levels = self.noise.digital_levels
        if levels is None:
            return shrunk
        # Radii of enumerated outcomes are whole steps. Others are rounded down by more than this.
        nudge = STEP_ERROR if self.noise.n_outcomes is not None else -STEP_ERROR
        power = 1 if norm == np.inf else norm
        beyond = np.floor((radius * levels) ** power * (1 + nudge)) + 1
        distance = beyond ** (1 / power) / levels - self._feature_rounding() * self._moved(beyond) ** (1 / norm)
        return np.maximum(shrunk, np.minimum(radius, distance * (1 - STEP_ERROR)))

    def point_radius(self, radius: FloatArray, norm: float = 1) -> FloatArray:
        """Return the smallest radius around a point that is worth ``radius`` around a raw input; see `raw_radius`."""
        levels, rounding = self.noise.digital_levels, self.rounding(norm)
        if levels is None:
            return radius + rounding
        power = 1 if norm == np.inf else norm
        each, slack = self._feature_rounding(), 1 + 4 * STEP_ERROR
        # Two bounds on the largest sum of powers of steps that raw inputs within the radius can have. The first is
        # exact up to one step in each feature, the second beyond that.
        few = np.inf if norm == np.inf else (radius / (1 / levels - each)) ** power
        within = np.floor(np.minimum(few, ((radius + rounding) * levels) ** power) * slack)
        return np.minimum(radius + rounding, np.maximum(radius, within ** (1 / power) / levels * slack))

    def _feature_rounding(self) -> float:
        return self.noise.resolution + 2 * float(np.max(self.box.rounding(self.shape), initial=0.0))

    def _moved(self, steps: FloatArray) -> FloatArray:
        """Return how many features differ at most between points that differ by this number of steps."""
        return np.minimum(steps, np.count_nonzero(self.box.movable(self.shape)))
