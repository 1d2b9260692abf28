"""Uniform and splitting noise: integer arithmetic on a lattice."""

from __future__ import annotations

import math
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.by_column import is_by_column
from .._utils.checks import check_count, check_positive
from ._philox import SPLIT, UNIFORM, OffsetRecipe
from .base import FloatArray, KeyedNoise

#: Steps of the lattice for real-valued inputs: a multiple of 255 and of 65,535, so that it holds 8-bit and 16-bit data
#: exactly, and just below 2**24, so that float32 tells its points apart.
FINE_LEVELS = 256 * 65_535

#: Largest distance of digital data from its lattice point, in units of the box: 8 times the rounding of float32.
ON_LATTICE = 2.0**-22

#: Largest number of steps of digital data: `ON_LATTICE` is a small part of such a step.
DIGITAL_LEVELS = 2**16


class LatticeNoise(KeyedNoise):
    """Noise that is integer arithmetic on a lattice with ``q`` steps per unit.

    Float noise added to a float leaks the input through its rounding, and a base model that reads the leak breaks the
    certificate. Here the base model sees a function of integers alone, and two lattice inputs overlap by exactly
    ``prod_i (1 - |dx_i| / (2 lam))`` (Proposition 2.1, Theorem 2.11).

    Parameters
    ----------
    lam : float, default=1.0
        Half-width of the noise (the paper's lambda), in units of the unit box.
    levels : "auto" or int, default="auto"
        The kind of inputs. "auto" is for real numbers: they are rounded to a lattice of 16,776,960 steps, and radii
        shrink by one step per feature, so that they hold against every real-valued perturbation. An int q up to 65,536
        is for digital data, such as 8-bit images at q=255: inputs off the lattice are refused, and a certificate covers
        perturbations on the lattice. Inputs may be off the lattice by 2**-22, for the rounding of float32. A radius
        shrinks only where this matters, just below the distance of the next lattice points.

    See Also
    --------
    UniformNoise, SplitNoise, UniformMixtureNoise, DeterministicSplitNoise : The families.

    References
    ----------
    .. [1] Voracek and Hein, "Sound Randomized Smoothing in Floating-Point Arithmetics", arXiv:2207.07209.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Proposition 2.1 and Theorem 2.11.
    """

    norms: tuple[float, ...] = (1, math.inf)
    allows_categories = True

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
    def effective_lam(self) -> float:
        """The half-width after rounding to the lattice, L / (2q), which certificates use.

        A feature of cost kappa has L kappa / (2q), with the L of its own noise; the smallest among all costs is used.
        """
        return min(self.for_cost(cost).n_offsets * cost for cost in self._costs) / (2 * self.q)

    def for_cost(self, cost: float) -> LatticeNoise:
        """Return the noise of a feature of this cost, of half-width lam / cost; see `Noise.for_cost`."""
        if cost == 1:
            return self
        noise = copy(self)
        noise.lam, noise._costs = self.lam / cost, (1.0,)
        return noise

    def check(self) -> None:
        """Raise a ValueError if ``lam`` or ``levels`` is out of range."""
        lam = check_positive("lam", self.lam)
        check_levels(self.levels)
        # The largest sum of point and offset has to fit 32 bits.
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
    def digital_levels(self) -> int | None:  # type: ignore[override]
        """Lattice steps per unit of digital inputs; None for real-valued ones."""
        return None if isinstance(self.levels, str) else self.q

    @property
    def resolution(self) -> float:  # type: ignore[override]
        """Half a step, or for digital inputs the rounding that is let through, for each of the two inputs compared."""
        return 1 / self.q if self.digital_levels is None else 2 * ON_LATTICE

    @property
    def by_margin(self) -> bool:  # type: ignore[override]
        """Whether the budget depends on the margin p_a - p_b alone: it does unless a subclass has its own."""
        return type(self).budget is LatticeNoise.budget

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
        "auto" for real-valued inputs, or the number of steps of digital data, such as 255 for 8-bit images; see
        `LatticeNoise`.

    See Also
    --------
    SplitNoise : The same certificates; usually more accurate.
    UniformMixtureNoise : Uniform noise of random width.

    References
    ----------
    .. [1] Yang, Duan, Hu, Salman, Razenshteyn and Li, "Randomized Smoothing of All Shapes and Sizes", ICML 2020.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Proposition 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> noise = UniformNoise(lam=1.0, levels=4)
    >>> out = np.empty((1000, 1))
    >>> noise.draw(np.array([1]), np.random.default_rng(0), out)
    >>> print(np.unique(out))
    [-0.625 -0.375 -0.125  0.125  0.375  0.625  0.875  1.125]
    """

    @property
    def recipe(self) -> OffsetRecipe | None:  # type: ignore[override]
        """Uniform offsets from the input; see `_philox.apply_offsets`."""
        return OffsetRecipe(UNIFORM, self.n_offsets, self.q)


class SplitNoise(LatticeNoise):
    """Independent splitting noise (Levine & Feizi 2021; Theorem 2.11 of the paper).

    A feature is compared with a random split point s, uniform on [0, 2 lam], and the base model learns the cell of
    [0, 1] that the split leaves it in, as the cell's midpoint. For lam < 1/2 the splits repeat every 2 lam.

    Parameters
    ----------
    lam : float, default=1.0
        Half the range of the split points, in units of the unit box.
    levels : "auto" or int, default="auto"
        "auto" for real-valued inputs, or the number of steps of digital data, such as 255 for 8-bit images; see
        `LatticeNoise`.

    See Also
    --------
    UniformNoise : The same certificates, with additive noise.
    DeterministicSplitNoise : Exact certificates, without the box.

    References
    ----------
    .. [1] Levine and Feizi, "Improved, Deterministic Smoothing for L1 Certified Robustness", ICML 2021.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Theorem 2.11.

    Examples
    --------
    >>> import numpy as np
    >>> noise = SplitNoise(lam=1.0, levels=4)
    >>> out = np.empty((1000, 1))
    >>> noise.draw(np.array([2]), np.random.default_rng(0), out)
    >>> print(np.unique(out))
    [0.3125 0.4375 0.5    0.5625 0.6875]
    """

    @property
    def recipe(self) -> OffsetRecipe | None:  # type: ignore[override]
        """The midpoint of the cell between split points; see `_philox.apply_offsets`."""
        return OffsetRecipe(SPLIT, self.n_offsets, self.q)


def check_levels(levels: Any) -> None:
    """Raise a ValueError unless ``levels`` is "auto" or a valid number of steps for digital data."""
    if isinstance(levels, str) and levels == "auto":
        return
    try:
        valid = check_count("levels", levels) <= DIGITAL_LEVELS
    except ValueError:
        valid = False
    if not valid:
        by_column = np.ndim(levels) or is_by_column(levels)
        remedy = ' One number holds for all columns. Use "auto" for tables of whole numbers.' * bool(by_column)
        raise ValueError(
            f'levels must be "auto" for real-valued inputs, or a whole number from 1 to {DIGITAL_LEVELS} for digital '
            f"ones, got {levels!r}.{remedy}"
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
