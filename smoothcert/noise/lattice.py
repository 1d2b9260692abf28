"""Uniform and splitting noise: integer arithmetic on a lattice."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_count, check_positive
from . import _philox as philox
from .base import FloatArray, FusedNoise

#: Steps of the lattice for real-valued inputs. A multiple of 255 and of 65,535, so that 8-bit and 16-bit data sit on
#: it exactly, and just below 2**24, so that float32 tells its points apart.
FINE_LEVELS = 256 * 65_535

#: How far, in units of x, digital data may lie from its lattice point: float32 rounding.
ON_LATTICE = 2.0**-22

#: Steps of digital data at most, so that `ON_LATTICE` is a small part of a step.
DIGITAL_LEVELS = 2**16


class LatticeNoise(FusedNoise):
    """Noise that is integer arithmetic on a lattice with ``q`` steps per unit.

    Float noise added to a float leaks the input through its rounding, and a base model that reads the leak breaks the
    certificate. Here the base model sees a function of integers alone, and two lattice inputs overlap by exactly
    ``prod_i (1 - |dx_i| / (2 lam))`` (Proposition 2.1, Theorem 2.11).

    Parameters
    ----------
    lam : float, default=1.0
        Half-width of the noise (the paper's lambda), in units of the unit box.
    levels : "auto" or int, default="auto"
        What inputs are. "auto": real numbers. They are rounded to a lattice of 16,776,960 steps, and radii shrink by
        one step per feature, so that they hold against every real-valued perturbation. An int q up to 65,536: digital
        data, such as 8-bit images at q=255. Nothing is rounded and no radius shrinks, inputs off the lattice are
        refused, and a certificate speaks of perturbations on the lattice.
    """

    norms: tuple[float, ...] = (1, math.inf)

    def __init__(self, lam: float = 1.0, levels: int | str = "auto") -> None:
        self.lam = lam
        self.levels = levels

    @classmethod
    def from_sigma(cls, sigma: float, levels: int | str = "auto") -> Self:
        """Build the noise whose standard deviation is ``sigma``, as the literature reports it: lam = sqrt(3) sigma."""
        return cls(lam=math.sqrt(3) * check_positive("sigma", sigma), levels=levels)

    @property
    def sigma(self) -> float:
        """Standard deviation of uniform noise of this half-width: lam / sqrt(3)."""
        return self.lam / math.sqrt(3)

    @property
    def q(self) -> int:
        """Lattice steps per unit."""
        return FINE_LEVELS if isinstance(self.levels, str) else int(self.levels)

    @property
    def n_offsets(self) -> int:
        """Number of equally likely offsets of a feature, L = floor(2 lam q)."""
        return math.floor(2 * float(self.lam) * self.q)

    @property
    def allows_closed_form(self) -> bool:
        """Whether lam > 1/2 (Proposition 2.5)."""
        return self.effective_lam > 0.5

    @property
    def effective_lam(self) -> float:
        """The half-width after rounding to the lattice, L / (2q): the one that certificates use."""
        return self.n_offsets / (2 * self.q)

    def check(self) -> None:
        """Raise a ValueError if ``lam`` or ``levels`` is out of range."""
        lam = check_positive("lam", self.lam)
        check_levels(self.levels)
        least, most = 0.5 / self.q, 2.0**31 / self.q - 1
        if not least <= lam <= most or self.n_offsets < 1:
            raise ValueError(
                f"lam must lie between {least:g} (half a lattice step) and {most:g} at levels={self.levels!r}, got "
                f"{self.lam!r}. A coarser lattice, such as levels=255 for 8-bit data, has room for wider noise."
            )

    def to_points(self, unit: FloatArray) -> NDArray[Any]:
        """Round inputs to the lattice; digital inputs must lie on it already.

        Raises
        ------
        ValueError
            If ``levels`` is an int and an input lies off the lattice.
        """
        if not isinstance(self.levels, str):
            return digital_points(unit, self.q).astype(np.uint32)
        points = unit * self.q
        return np.rint(points, out=points).astype(np.uint32)

    def to_unit(self, points: NDArray[Any]) -> FloatArray:
        """Return lattice points as unit-box values."""
        return points / self.q

    def snap(self, unit: FloatArray) -> FloatArray:
        """Round inputs to the lattice; see `to_points`."""
        if not isinstance(self.levels, str):
            return super().snap(unit)
        unit *= self.q
        np.rint(unit, out=unit)
        unit /= self.q
        return unit

    @property
    def resolution(self) -> float:
        """One step for real inputs, half for each of the two that are compared; 0 for digital ones."""
        return 1 / self.q if isinstance(self.levels, str) else 0.0

    @property
    def by_margin(self) -> bool:  # type: ignore[override]
        """Whether the budget depends on the margin p_a - p_b alone: it does unless a subclass has its own."""
        return type(self).budget is LatticeNoise.budget

    @property
    def formula(self) -> int | None:
        """The fused kernels' number for ``displace``, or None where a subclass has its own."""
        return FUSED.get(type(self).displace)

    def fill_fused(
        self,
        points: NDArray[Any],
        keys: NDArray[np.uint32],
        segments: NDArray[np.int64],
        out: NDArray[np.floating],
        scale: NDArray[np.floating] | None,
        shift: NDArray[np.floating] | None,
    ) -> None:
        """Draw unbiased offsets j in {0 .. L-1} and displace points by them, in one pass."""
        # Imported when needed: numba takes as long to import as scikit-learn.
        from . import _cpu as kernel

        kernel.fill(FUSED[type(self).displace], points, keys, segments, self.n_offsets, self.q, out, scale, shift)

    def fill_plainly(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Do in NumPy what `fill` does: the reference, and the path of families with a ``displace`` of their own."""
        row = 0
        for owner, first, count in segments.tolist():
            offsets = philox.offsets(keys[owner], first, count, points.shape[1], self.n_offsets)
            self.displace(points[owner], offsets, out[row : row + count])
            row += count

    @abstractmethod
    def displace(self, points: NDArray[Any], offsets: NDArray[Any], out: NDArray[np.floating]) -> None:
        """Write the noisy copies that given offsets make: a function of integers, elementwise."""

    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return -ln(1 - (p_a - p_b)/2): the overlap may fall to 1 - (p_a - p_b)/2 (Proposition 2.12)."""
        return -np.log1p(-(p_a - p_b) / 2)

    def cost(self, z: Any) -> Any:
        """Return -ln(1 - z/(2 lam)), infinite from 2 lam on (equation 3 of the paper)."""
        with np.errstate(divide="ignore"):
            return -np.log1p(-np.minimum(z / (2 * self.effective_lam), 1.0))

    def inverse_cost(self, spent: Any) -> Any:
        """Return 2 lam (1 - exp(-spent))."""
        return -2 * self.effective_lam * np.expm1(-spent)


class UniformNoise(LatticeNoise):
    """Independent uniform noise on [-lam, lam] for each feature (Yang et al. 2020; Proposition 2.1).

    Parameters
    ----------
    lam : float, default=1.0
        Half-width of the noise, in units of the unit box.
    levels : "auto" or int, default="auto"
        What inputs are: "auto" for real numbers, or the number of steps of digital data, such as 255 for 8-bit images;
        see `LatticeNoise` for what follows from it.

    Examples
    --------
    >>> import numpy as np
    >>> noise = UniformNoise(lam=1.0, levels=4)
    >>> out = np.empty((1, 8))
    >>> noise.displace(np.array([1]), np.arange(8)[None], out)
    >>> print(out)
    [[-0.625 -0.375 -0.125  0.125  0.375  0.625  0.875  1.125]]
    """

    def displace(self, points: NDArray[Any], offsets: NDArray[Any], out: NDArray[np.floating]) -> None:
        """Write (x_int + j + 1/2)/q - lam, the half-integers in two steps that float32 rounds the same everywhere."""
        real = out.dtype.type
        out[...] = points + offsets.astype(np.int64) - self.n_offsets // 2
        out += real(0.5 if self.n_offsets % 2 == 0 else 0.0)
        out *= real(1 / self.q)


class SplitNoise(LatticeNoise):
    """Independent splitting noise (Levine & Feizi 2021; Theorem 2.11 of the paper).

    A feature is compared with a random split point s, uniform on [0, 2 lam], and the base model learns the cell of
    [0, 1] that the split leaves it in, as the cell's midpoint. For lam < 1/2 the splits repeat every 2 lam.

    Parameters
    ----------
    lam : float, default=1.0
        Half the range of the split points, in units of the unit box.
    levels : "auto" or int, default="auto"
        What inputs are: "auto" for real numbers, or the number of steps of digital data, such as 255 for 8-bit images;
        see `LatticeNoise` for what follows from it.

    Examples
    --------
    >>> import numpy as np
    >>> noise = SplitNoise(lam=1.0, levels=4)
    >>> out = np.empty((1, 8))
    >>> noise.displace(np.array([2]), np.arange(8)[None], out)
    >>> print(out)
    [[0.5625 0.6875 0.3125 0.4375 0.5    0.5    0.5    0.5   ]]
    """

    def displace(self, points: NDArray[Any], offsets: NDArray[Any], out: NDArray[np.floating]) -> None:
        """Write the midpoint of the input's cell; for lam >= 1/2 that is (min(s, 1) + [x > s])/2, Theorem 2.10."""
        q, n_offsets = self.q, self.n_offsets
        split = 2 * offsets.astype(np.int64) + 1
        if n_offsets >= q:
            out[...] = np.minimum(split, 2 * q) + np.where(points > offsets, 2 * q, 0)
        else:
            below = (points.astype(np.int64) - offsets - 1) // n_offsets
            low = np.maximum(split + 2 * below * n_offsets, 0)
            high = np.minimum(split + 2 * (below + 1) * n_offsets, 2 * q)
            out[...] = low + high
        out *= out.dtype.type(0.25 / q)


#: Formulas that the fused kernel knows, with its numbers for them.
FUSED = {UniformNoise.displace: 0, SplitNoise.displace: 1}


def check_levels(levels: Any) -> None:
    """Raise a ValueError unless ``levels`` is "auto" or a number of steps that digital data can have."""
    if isinstance(levels, str) and levels == "auto":
        return
    try:
        valid = check_count("levels", levels) <= DIGITAL_LEVELS
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            f'levels must be "auto" for real-valued inputs, or a whole number from 1 to {DIGITAL_LEVELS} for digital '
            f"ones, got {levels!r}."
        )


def digital_points(unit: FloatArray, levels: int) -> FloatArray:
    """Return the lattice points of digital inputs, as floats.

    Raises
    ------
    ValueError
        If an input lies off the lattice.
    """
    points = np.rint(unit * levels)
    off = np.abs(unit - points / levels) > ON_LATTICE
    if off.any():
        raise ValueError(
            f"X must lie on the lattice of levels={levels} steps per unit of the box, but holds {unit[off][0]:.9g} of "
            f"the box's width. Round X to the lattice, or use levels='auto' for real-valued inputs."
        )
    return points
