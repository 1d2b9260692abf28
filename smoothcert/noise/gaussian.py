"""Gaussian noise, the standard choice for l2, and Laplace noise, the historical choice for l1."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from .._utils.checks import check_positive
from ._philox import LAPLACE, NORMAL, STEPS, SumRecipe
from .base import FloatArray, KeyedNoise
from .lattice import ON_LATTICE, check_levels, digital_points

#: Standard deviations beyond which the discretized normal is cut off; the mass there is below 1e-18.
TAIL = 9.0


class GaussianNoise(KeyedNoise):
    """Independent Gaussian noise (Cohen et al. 2019).

    Certifies l2 with radius sigma/2 (Phi^-1(p_a) - Phi^-1(p_b)), l-inf with that over sqrt(d), and l1: the l2 radius
    is an l1 radius too, and inside the box a much larger one, since an l1 move of c that is spread over features of
    reach 1 has l2 length sqrt(c) only.

    With ``levels="auto"`` noise is added in floating point, and certificates are about real numbers: strictly, a base
    model could read the input from the rounding of the sum. With digital inputs, ``levels=255`` for example, noise is
    a discretized normal on the lattice of the inputs: round(x + sigma Z) is a function of x + sigma Z, so its
    certificates are those of Gaussian noise. It is drawn by comparing 64 random bits with integer thresholds. What the
    thresholds and the cut tails get wrong is bounded by `draw_error` for each number drawn, and taken from alpha.

    Parameters
    ----------
    sigma : float, default=1.0
        Standard deviation, in units of the unit box.
    levels : "auto" or int, default="auto"
        "auto" for floating point, or the number of steps of digital inputs.

    See Also
    --------
    SplitNoise : Noise with larger l1 radii.
    LipschitzRadius : Radii in l1, l2 and l-inf.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, Theorem
       1.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import BoxRadius, LipschitzRadius
    >>> p_a, p_b, faces = np.array([0.99]), np.array([0.01]), np.full((1, 99), 0.5)
    >>> LipschitzRadius(norm=2).radii(GaussianNoise(sigma=1.0), p_a, p_b, faces, faces).round(6)
    array([2.326348])
    >>> BoxRadius().radii(GaussianNoise(sigma=1.0), p_a, p_b, faces, faces).round(6)
    array([5.64179])
    """

    norms = (1, 2, math.inf)

    def __init__(self, sigma: float = 1.0, levels: int | str = "auto") -> None:
        self.sigma = sigma
        self.levels = levels

    @classmethod
    def from_sigma(cls, sigma: float, levels: int | str = "auto") -> Self:
        """Build the noise of this standard deviation, as for the other families."""
        return cls(sigma=check_positive("sigma", sigma), levels=levels)

    def check(self) -> None:
        """Raise a ValueError if ``sigma`` or ``levels`` is out of range."""
        sigma = check_positive("sigma", self.sigma)
        check_levels(self.levels)
        if not isinstance(self.levels, str) and not 0.1 <= sigma * self.levels <= 1e5:
            raise ValueError(
                f"sigma must lie between {0.1 / self.levels:g} and {1e5 / self.levels:g} at levels={self.levels}, got "
                f"{self.sigma!r}."
            )

    def for_cost(self, cost: float) -> GaussianNoise:
        """Return the noise of a feature of this cost, of standard deviation sigma / cost; see `Noise.for_cost`."""
        return GaussianNoise(self.sigma / cost, self.levels)

    def to_points(self, unit: FloatArray) -> NDArray[Any]:
        """Return inputs as they are, or digital ones as lattice points."""
        return unit if isinstance(self.levels, str) else digital_points(unit, self.levels).astype(np.int64)

    def to_unit(self, points: NDArray[Any]) -> FloatArray:
        """Return points as unit-box values."""
        return points if isinstance(self.levels, str) else points / self.levels

    @property
    def digital_levels(self) -> int | None:  # type: ignore[override]
        """Lattice steps per unit of digital inputs; None for real-valued ones."""
        return None if isinstance(self.levels, str) else int(self.levels)

    @property
    def resolution(self) -> float:  # type: ignore[override]
        """The rounding of digital inputs that is let through, for each of the two inputs compared."""
        return 0.0 if self.digital_levels is None else 2 * ON_LATTICE

    @property
    def draw_error(self) -> float:  # type: ignore[override]
        """Bound on the total variation between one number drawn and the ideal one."""
        if isinstance(self.levels, str):
            return 0.0
        thresholds = _thresholds(self.sigma * self.levels)
        return len(thresholds) * 2.0**-51 + 1e-18

    @property
    def recipe(self) -> SumRecipe | None:  # type: ignore[override]
        """Normal numbers, or discretized ones in lattice steps."""
        if isinstance(self.levels, str):
            return SumRecipe(NORMAL, float(self.sigma), 1.0)
        return SumRecipe(STEPS, 1.0, 1 / self.levels, _thresholds(self.sigma * self.levels))

    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return (sigma/2 (Phi^-1(p_a) - Phi^-1(p_b)))^2, the square of the l2 radius."""
        upper, lower = ndtri(p_a), ndtri(p_b)
        finite = np.isfinite(upper) & np.isfinite(lower)
        lead = np.where(finite, _lead(upper, lower), np.inf)
        return (self.sigma / 2 * lead) ** 2

    def cost(self, z: Any) -> Any:
        """Return z^2: the cost of a perturbation is its squared l2 norm."""
        return np.square(z)

    def inverse_cost(self, spent: Any) -> Any:
        """Return the square root."""
        return np.sqrt(spent)


@lru_cache(maxsize=8)
def _thresholds(scale: float) -> NDArray[np.uint64]:
    """Return the thresholds of 64 random bits between the integers of a normal of this scale.

    Above the median they are mirrored from below, where the distribution function is accurate.
    """
    last = math.ceil(TAIL * scale)
    below = (ndtr((np.arange(-last, 0) + 0.5) / scale) * 2.0**64).astype(np.uint64)
    above = np.where(below > 0, ~below + np.uint64(1), np.uint64(2**64 - 1))[::-1]
    return np.concatenate([below, above])


class LaplaceNoise(KeyedNoise):
    """Independent Laplace noise, the first l1 certificate (Lecuyer et al. 2019; Teng et al. 2020).

    The probabilities at distance r are within a factor exp(r/b), so class A stays ahead up to
    r = -b ln(1 - p_a + p_b), which is -b ln(2(1 - p_a)) against all other classes as one, or up to b/2 ln(p_a/p_b).
    The box adds nothing: the cost of a perturbation is its l1 norm. Noise is added in floating point.

    Parameters
    ----------
    b : float, default=1.0
        Scale, in units of the unit box; the standard deviation is sqrt(2) b.

    See Also
    --------
    UniformNoise : Noise with larger l1 radii.

    References
    ----------
    .. [1] Lecuyer, Atlidakis, Geambasu, Hsu and Jana, "Certified Robustness to Adversarial Examples with Differential
       Privacy", IEEE S&P 2019.
    .. [2] Teng, Lee and Yuan, "l1 Adversarial Robustness Certificates: a Randomized Smoothing Approach", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import LipschitzRadius
    >>> p_a, p_b, faces = np.array([0.9]), np.array([0.1]), np.full((1, 9), 0.5)
    >>> LipschitzRadius().radii(LaplaceNoise(b=1.0), p_a, p_b, faces, faces).round(6)
    array([1.609438])
    """

    uses_box = False

    def __init__(self, b: float = 1.0) -> None:
        self.b = b

    @classmethod
    def from_sigma(cls, sigma: float) -> Self:
        """Build the noise whose standard deviation is ``sigma``."""
        return cls(b=check_positive("sigma", sigma) / math.sqrt(2))

    @property
    def sigma(self) -> float:
        """Standard deviation."""
        return math.sqrt(2) * self.b

    def check(self) -> None:
        """Raise a ValueError if ``b`` is out of range."""
        check_positive("b", self.b)

    @property
    def recipe(self) -> SumRecipe | None:  # type: ignore[override]
        """Laplace numbers."""
        return SumRecipe(LAPLACE, float(self.b), 1.0)

    def budget(self, p_a: Any, p_b: Any) -> Any:
        """Return the larger of two bounds on r/b.

        At distance r = t b probabilities change by a factor of at most exp(t). So p_b becomes at most p_b exp(t). Of
        p_a at least p_a exp(-t) remains, and at least 1 - (1 - p_a) exp(t), since the complement of A grows by at most
        exp(t). A stays ahead of B while p_a exp(-t) > p_b exp(t), which is t < ln(p_a/p_b)/2, and while
        1 - (1 - p_a) exp(t) > p_b exp(t), which is t < -ln(1 - p_a + p_b).
        """
        with np.errstate(divide="ignore"):
            upper, lower = np.log(p_a), np.log(p_b)
            half = np.where(np.isfinite(lower), _lead(upper, lower) / 2, np.inf)
            # For margins near 1, 1 - p_a + p_b is accurate and the margin is not; for margins near 0, the reverse.
            whole = np.where(p_a - p_b < 0.5, -np.log1p(-(p_a - p_b)), -np.log((1 - p_a) + p_b))
            return np.maximum(whole, half)

    def cost(self, z: Any) -> Any:
        """Return z/b."""
        return np.asarray(z) / self.b

    def inverse_cost(self, spent: Any) -> Any:
        """Return b times the cost."""
        return self.b * np.asarray(spent)


def _lead(upper: Any, lower: Any) -> Any:
    """Return the difference of two quantiles or logarithms, less a bound on its rounding error."""
    with np.errstate(invalid="ignore"):
        error = 8 * np.finfo(np.float64).eps * (np.abs(upper) + np.abs(lower))
        return np.maximum(upper - lower - error, 0.0)
