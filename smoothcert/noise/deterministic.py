"""Deterministic splitting noise: every outcome is evaluated, and nothing is sampled at random."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_count
from ._philox import SPLIT, OffsetRecipe, apply_offsets
from .base import FloatArray, Noise
from .lattice import DIGITAL_LEVELS, SplitNoise, has_one_lattice


class DeterministicSplitNoise(SplitNoise):
    """Splitting noise whose offsets move together (Levine & Feizi 2021; section 2.3.1 of the paper).

    Feature i gets the offset (template_i + j) mod L, with one template for all inputs and samples. The smoothed
    classifier is the majority over all L = floor(2 lam q) values of j. It is evaluated exactly, with L calls of the
    base model for each input. A move of one lattice step in one feature changes the outcome for one j, so the label
    stands for floor((c_A - c_B - [B < A]) / 2) steps. Certificates are never wrong: alpha is 0. The noise is not
    independent for each feature, so the box cannot be used.

    Parameters
    ----------
    lam : float, default=1.0
        Half the range of the split points, in units of the unit box.
    levels : int, default=255
        Number of steps q of the digital inputs.
    seed : int, default=0
        Seed of the template. It may be known to everyone.
    template : array-like of int with n_features numbers, optional
        Offset of each feature, from 0 to L - 1, for networks that were trained with a template of their own. By default
        it is drawn from ``seed``.

    See Also
    --------
    SplitNoise : Independent splitting noise, which can use the box.
    LipschitzRadius : The only radius strategy for this noise.

    References
    ----------
    .. [1] Levine and Feizi, "Improved, Deterministic Smoothing for L1 Certified Robustness", ICML 2021, Theorem 2.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Theorem 2.10.

    Examples
    --------
    >>> import numpy as np
    >>> noise = DeterministicSplitNoise(lam=1.0, levels=2)
    >>> out = np.empty((4, 1))
    >>> noise.sample(np.array([[1]]), np.zeros((1, 4), np.uint32), np.array([[0, 0, 4]]), out)
    >>> print(np.sort(out.ravel()))
    [0.375 0.5   0.5   0.625]
    """

    uses_box = False
    norms: tuple[float, ...] = (1,)
    allows_categories = False
    for_cost = Noise.for_cost

    def __init__(self, lam: float = 1.0, levels: int = 255, seed: int = 0, template: Any = None) -> None:
        self.lam = lam
        self.levels = levels
        self.seed = seed
        self.template = template

    @classmethod
    def from_sigma(cls, sigma: float, levels: int | str = 255) -> Self:
        """Build the noise whose split points have this standard deviation: lam = sqrt(3) sigma."""
        return super().from_sigma(sigma, levels)

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        if isinstance(self.levels, str) or not has_one_lattice(self.levels):
            reason = "every outcome is evaluated" if isinstance(self.levels, str) else "all features move together"
            raise ValueError(
                f"levels must be a whole number from 1 to {DIGITAL_LEVELS} for deterministic noise, got "
                f"{self.levels!r}: {reason}."
            )
        super().check()
        if self.seed != 0:
            check_count("seed", self.seed)
        if self.template is None:
            return
        offsets = np.asarray(self.template)
        if offsets.dtype.kind not in "iu" or not ((offsets >= 0) & (offsets < self.n_offsets)).all():
            raise ValueError(
                f"template must hold whole numbers from 0 to {self.n_offsets - 1}, the offsets of the features, got "
                f"{self.template!r}."
            )

    @property
    def n_outcomes(self) -> int:  # type: ignore[override]
        """Number of outcomes, L = floor(2 lam q)."""
        return self.n_offsets

    def sample(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write outcomes: the number of a sample is the number j of its outcome, whatever the key."""
        row = 0
        for owner, first, count in segments.tolist():
            self._write(points[owner], np.arange(first, first + count), out[row : row + count])
            row += count

    def draw(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write a random outcome into each row, for training."""
        self._write(points, rng.integers(self.n_offsets, size=len(out)), out)

    def _write(self, points: NDArray[Any], outcomes: NDArray[np.int64], out: NDArray[np.floating]) -> None:
        """Write one outcome into each row."""
        offsets = (self._offsets(out.shape[1]) + outcomes[:, None]) % self.n_offsets
        apply_offsets(OffsetRecipe(SPLIT, self.n_offsets, self.q), points, offsets, out)

    def to_points(self, unit: FloatArray) -> NDArray[Any]:
        """Return the lattice points of inputs, which the template must fit; see `LatticeNoise.to_points`."""
        self._offsets(int(np.prod(unit.shape[1:])))
        return super().to_points(unit)

    def _offsets(self, n_features: int) -> NDArray[np.int64]:
        """Return the template as a flat array."""
        if self.template is None:
            return _template(self.seed, self.n_offsets, n_features)
        offsets = np.ravel(self.template).astype(np.int64)
        if len(offsets) != n_features:
            raise ValueError(f"template must hold {n_features} offsets, one for each feature of X, got {len(offsets)}.")
        return offsets

    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return half the lead."""
        return (p_a - p_b) / 2

    def cost(self, z: Any) -> Any:
        """Return z/(2 lam), the share of outcomes that a move of ``z`` changes."""
        return np.asarray(z) / (2 * self.effective_lam)

    def inverse_cost(self, spent: Any) -> Any:
        """Return the whole lattice steps that half a lead of this share of outcomes allows."""
        # A lead in outcomes is a whole number. Its half ends in .0 or .5, so adding .25 guards against rounding errors.
        return np.floor(np.asarray(spent) * self.n_offsets + 0.25) / self.q


@lru_cache(maxsize=8)
def _template(seed: int, n_offsets: int, n_features: int) -> NDArray[np.int64]:
    """Return the offsets of the features, the same in every process."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(n_offsets, size=n_features)
