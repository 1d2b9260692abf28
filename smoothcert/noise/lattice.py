"""Uniform and splitting noise: integer arithmetic on a lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.by_column import in_order, is_by_column
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

#: What is said where noise with lattices of columns is asked for numbers before the columns are known.
UNKNOWN_COLUMNS = (
    "levels by column need inputs with columns, which are not known here, got {!r}. Give one number for all features, "
    "or let a SmoothedClassifier draw the noise."
)


class LatticeNoise(KeyedNoise):
    """Noise that is integer arithmetic on a lattice with ``q`` steps per unit.

    Float noise added to a float leaks the input through its rounding, and a base model that reads the leak breaks the
    certificate. Here the base model sees a function of integers alone, and two lattice inputs overlap by exactly
    ``prod_i (1 - |dx_i| / (2 lam))`` (Proposition 2.1, Theorem 2.11).

    Parameters
    ----------
    lam : float, default=1.0
        Half-width of the noise (the paper's lambda), in units of the unit box.
    levels : "auto", int, array-like, dict or pandas Series, default="auto"
        The kind of inputs. "auto" is for real numbers: they are rounded to a lattice of 16,776,960 steps, and radii
        shrink by one step per feature, so that they hold against every real-valued perturbation. An int q up to 65,536
        is for digital data, such as 8-bit images at q=255: inputs off the lattice are refused, and a certificate covers
        perturbations on the lattice. Inputs may be off the lattice by 2**-22, for the rounding of float32. A radius
        shrinks only where this matters, just below the distance of the next lattice points.

        One "auto" or int for each column, in order or by column name, gives columns lattices of their own; columns that
        are not named are "auto". The noisy values of a column with q steps are rounded to its lattice: whole numbers
        stay whole numbers if the bounds are whole numbers and q is their difference. Fixed columns and categories
        have no lattice, whatever ``levels`` says.

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

    def __init__(self, lam: float = 1.0, levels: Any = "auto") -> None:
        self.lam = lam
        self.levels = levels

    @classmethod
    def from_sigma(cls, sigma: float, levels: Any = "auto") -> Self:
        """Build the noise whose standard deviation is ``sigma``, as the literature reports it: lam = sqrt(3) sigma."""
        return cls(lam=math.sqrt(3) * check_positive("sigma", sigma), levels=levels)

    @property
    def sigma(self) -> float:
        """Standard deviation of uniform noise of this half-width: lam / sqrt(3)."""
        return self.lam / math.sqrt(3)

    @property
    def q(self) -> int:
        """Lattice steps per unit, the same for all features."""
        if not has_one_lattice(self.levels):
            raise ValueError(UNKNOWN_COLUMNS.format(self.levels))
        return FINE_LEVELS if isinstance(self.levels, str) else int(self.levels)

    @property
    def n_offsets(self) -> int:
        """Number of equally likely offsets of a feature, L = floor(2 lam q)."""
        return math.floor(2 * float(self.lam) * self.q)

    @property
    def effective_lam(self) -> float:
        """The half-width after rounding to the lattice, L / (2q), which certificates use.

        A feature of cost kappa has L kappa / (2q), with the L and q of its own noise; the smallest of all is used.
        """
        if not (has_one_lattice(self.levels) or "_groups" in vars(self)):
            raise ValueError(UNKNOWN_COLUMNS.format(self.levels))
        return min(self.lam_of(*group) for group in self._groups)

    def lam_of(self, cost: float, steps: int) -> float:
        """Return the half-width after rounding of the features of one group; see `Noise.with_groups`."""
        noise = self.for_group(cost, steps)
        return noise.n_offsets * cost / (2 * noise.q)

    def whole_lam(self, cost: float, steps: int) -> float:
        """Return the lam nearest to this one at which rounding takes almost nothing from any group of features.

        Where there is none up to twice this one, only the features of this cost and lattice keep almost everything.
        """
        half_step = cost / (2 * steps)
        exact = sorted(half_step * np.arange(1, 2 * self.lam / half_step + 1), key=lambda lam: abs(lam - self.lam))
        # In four digits, so that the number can be shown, and rounded up if rounding to nearest goes below.
        found = [self._changed(lam=float(f"{lam * up:.4g}")) for lam in exact for up in (1, 1.001)]
        for kept in (self._groups, ((cost, steps),)):
            for noise in found:
                if min(noise.lam_of(*group) for group in kept) >= 0.99 * noise.lam:
                    return noise.lam
        return self.lam

    @property
    def column_steps(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Lattice steps of each column, 0 for real numbers; None for one lattice, and before `for_columns`."""
        levels = self.levels
        return tuple(0 if one == "auto" else one for one in levels) if isinstance(levels, tuple) else None

    def for_columns(self, names: Sequence[str] | None) -> Self:
        """Return the noise with its levels in the order of the columns; see `Noise.for_columns`.

        Raises
        ------
        ValueError
            If ``levels`` names an unknown column, or the columns have no names.
        """
        if has_one_lattice(self.levels):
            return self
        named = is_by_column(self.levels)
        values = in_order("levels", self.levels, names, default="auto") if named else list(self.levels)
        return self._changed(levels=tuple(one if isinstance(one, str) else int(one) for one in values))

    def for_group(self, cost: float, steps: int) -> LatticeNoise:
        """Return the noise of features of a cost, on a lattice of ``steps`` if their column has one of its own."""
        return (self if has_one_lattice(self.levels) else self._changed(levels=steps or "auto")).for_cost(cost)

    def for_cost(self, cost: float) -> LatticeNoise:
        """Return the noise of a feature of this cost, of half-width lam / cost; see `Noise.for_cost`."""
        return self if cost == 1 else self._changed(lam=self.lam / cost, _groups=((1.0, 0),))

    def check(self) -> None:
        """Raise a ValueError if ``lam`` or ``levels`` is out of range."""
        lam = check_positive("lam", self.lam)
        check_levels(self.levels, by_column=True)
        if not has_one_lattice(self.levels):
            return
        # The largest sum of point and offset has to fit 32 bits.
        least, most = 0.5 / self.q, 2.0**31 / self.q - 1
        if not least <= lam <= most or self.n_offsets < 1:
            wider = " A coarser lattice, such as levels=255 for 8-bit data, has room for wider noise." * (lam > most)
            raise ValueError(
                f"lam must lie between {least:g} (half a lattice step) and {most:g} at levels={self.levels!r}, got "
                f"{self.lam!r}.{wider}"
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

    @property
    def digital_levels(self) -> int | None:  # type: ignore[override]
        """Lattice steps per unit of digital inputs; None for real-valued ones."""
        return None if isinstance(self.levels, str) or not has_one_lattice(self.levels) else self.q

    @property
    def resolution(self) -> Any:  # type: ignore[override]
        """Half a step, or for digital inputs the rounding that is let through, for each of the two inputs compared.

        An array with one number for each column where columns have lattices of their own.
        """
        if self.column_steps is not None:
            return np.where(np.array(self.column_steps) > 0, 2 * ON_LATTICE, 1 / FINE_LEVELS)
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
    levels : "auto", int, array-like, dict or pandas Series, default="auto"
        "auto" for real-valued inputs, or the number of steps of digital data, such as 255 for 8-bit images; for tables
        also one for each column, or ``{"age": 73}`` by column name. See `LatticeNoise`.

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
    levels : "auto", int, array-like, dict or pandas Series, default="auto"
        "auto" for real-valued inputs, or the number of steps of digital data, such as 255 for 8-bit images; for tables
        also one for each column, or ``{"age": 73}`` by column name. See `LatticeNoise`.

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


def has_one_lattice(levels: Any) -> bool:
    """Tell whether all features share one lattice: ``levels`` do not differ by column."""
    return not (np.ndim(levels) or is_by_column(levels))


def check_levels(levels: Any, *, by_column: bool = False) -> None:
    """Raise a ValueError unless ``levels`` is "auto" or a valid number of steps for digital data.

    ``by_column`` says whether levels may differ by column, and each is checked.
    """
    if not has_one_lattice(levels) and by_column:
        if np.ndim(levels) > 1:
            raise ValueError(
                f"levels by column must be flat, one number or 'auto' for each feature, got shape {np.shape(levels)}."
            )
        for name, one in levels.items() if is_by_column(levels) else enumerate(levels):
            try:
                check_levels(one)
            except ValueError as error:
                mixed = " NumPy and pandas turn mixed values into text or fractions: give a list or a dict."
                hint = mixed * isinstance(one, (str, float))
                raise ValueError(f"levels of column {name!r}: {error}{hint}") from error
        return
    if isinstance(levels, str) and levels == "auto":
        return
    try:
        valid = check_count("levels", levels) <= DIGITAL_LEVELS
    except ValueError:
        valid = False
    if not valid:
        remedy = "" if has_one_lattice(levels) else " Only uniform, splitting and mixture noise take levels by column."
        raise ValueError(
            f'levels must be "auto" for real-valued inputs, or a whole number from 1 to {DIGITAL_LEVELS} for digital '
            f"ones, got {levels!r}.{remedy}"
        )


def nearest_points(unit: FloatArray, levels: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the nearest lattice points of digital inputs, as floats, and which inputs lie off the lattice."""
    points = np.rint(unit * levels)
    return points, np.abs(unit - points / levels) > ON_LATTICE


def digital_points(unit: FloatArray, levels: int) -> FloatArray:
    """Return the lattice points of digital inputs, as floats.

    Raises
    ------
    ValueError
        If an input lies off the lattice.
    """
    points, off = nearest_points(unit, levels)
    if off.any():
        raise ValueError(
            f"X must lie on the lattice of levels={levels} steps per unit of the box, but holds {unit[off][0]:.9g} of "
            f"the box's width. Round X to the lattice, or use noise with levels='auto', which takes real numbers."
        )
    return points
