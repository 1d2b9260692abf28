"""Box and noise together: raw inputs in, noisy raw inputs out. Training and sampling use the same mechanism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Noise
from .box import Box
from .checks import check_foreign


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

    def room(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far the points can move down and up, shape (n, d) each; 0 where the box holds a feature fixed."""
        down, up = self.box.room(self.noise.snap(self.box.to_unit(X)))
        return down.reshape(len(X), self.n_features), up.reshape(len(X), self.n_features)

    def rounding(self, norm: float = 1) -> float:
        """Bound on the distance that rounding adds between two raw inputs; radii shrink by it."""
        if self.noise.resolution == 0:
            return 0.0
        per_feature = self.noise.resolution + 2 * self.box.rounding(self.shape)
        return float(np.linalg.norm(per_feature[self.box.movable(self.shape)], ord=norm))
