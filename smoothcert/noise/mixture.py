"""Mixtures of uniform noises: the densities with cubic level sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_positive
from .base import FloatArray
from .greedy import STEP_ERROR, bisect, largest, walk_cost
from .lattice import LatticeNoise, UniformNoise

#: Number of bisection steps that find a zero to the last bit of a float.
BISECTIONS = 64


class UniformMixtureNoise(LatticeNoise):
    """Uniform noise with a random width, which is drawn once for all features of a sample.

    Every density whose level sets are cubes is such a mixture (the paper, section 2.1, after Yang et al. 2020). Two
    inputs overlap by at least ``sum_k w_k prod_i (1 - |dx_i| / (2 lam_k))_+``. Each summand is smallest if the largest
    reaches are filled first (Proposition A.4).

    Parameters
    ----------
    lams : array-like of float, default=(0.5, 1.0)
        Half-widths, in units of the unit box.
    weights : array-like of float, default=(0.5, 0.5)
        Probabilities of the half-widths.
    levels : "auto", int, array-like, dict or pandas Series, default="auto"
        "auto" for real-valued inputs, or the number of steps of digital data, for tables also by column; see
        `LatticeNoise`.

    See Also
    --------
    UniformNoise : A single width.

    References
    ----------
    .. [1] Yang, Duan, Hu, Salman, Razenshteyn and Li, "Randomized Smoothing of All Shapes and Sizes", ICML 2020.
    .. [2] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Propositions 2.2 and A.4.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import LipschitzRadius
    >>> noise = UniformMixtureNoise(lams=[0.5, 2.0], weights=[0.5, 0.5])
    >>> p_a, p_b, faces = np.array([0.9]), np.array([0.1]), np.full((1, 9), 0.5)
    >>> LipschitzRadius().radii(noise, p_a, p_b, faces, faces).round(6)
    array([0.64])
    """

    norms: tuple[float, ...] = (1,)

    def __init__(self, lams: Any = (0.5, 1.0), weights: Any = (0.5, 0.5), levels: Any = "auto") -> None:
        self.lams = lams
        self.weights = weights
        self.levels = levels

    @property
    def parts(self) -> list[UniformNoise]:
        """The uniform noises that are mixed."""
        parts = [UniformNoise(lam, self.levels) for lam in self.lams]
        return [part.with_groups(self._groups) for part in parts] if "_groups" in vars(self) else parts

    def for_cost(self, cost: float) -> UniformMixtureNoise:
        """Return the mixture of the parts' noises of a feature of this cost; see `Noise.for_cost`."""
        return UniformMixtureNoise([lam / cost for lam in self.lams], self.weights, self.levels)

    def after(self, moves: FloatArray) -> tuple[UniformMixtureNoise, float]:
        """Return the mixture whose weights are the shares of the overlap that is left; see `Noise.after`."""
        left = np.prod(self._kept(moves), axis=0) * self._shares
        if not left.sum():
            return self, np.inf
        return self._changed(weights=(left / left.sum()).tolist()), float(-np.log(left.sum()))

    @property
    def allows_closed_form(self) -> bool:
        """Whether lam > 1/2 for every part.

        The closed form holds if the overlap at distance c is at least A^c, where A = sum_k w_k a_k is the overlap after
        a full move and a_k = 1 - 1/(2 lam_k) >= 0. For c <= 1 the overlap is 1 - c (1 - A), and A^c is convex in c with
        the same ends. For c > 1 each part keeps at least a_k^c (Proposition 2.5), and sum_k w_k a_k^c >= A^c by
        Jensen's inequality, since t^c is convex in t.
        """
        return all(part.allows_closed_form for part in self.parts)

    def _edges(self) -> FloatArray:
        """Return the cumulative probabilities of the parts, rounded to the 53 bits that choose one of them."""
        inner = np.minimum(np.cumsum(np.asarray(self.weights, dtype=np.float64))[:-1], 1.0)
        return np.concatenate([[0.0], np.rint(inner * 2.0**53) / 2.0**53, [1.0]])

    @property
    def _shares(self) -> FloatArray:
        """The probabilities of the parts, as they are drawn."""
        return np.diff(self._edges())

    @property
    def _widths(self) -> FloatArray:
        """The widths 2 lam of the parts, after rounding to the lattice."""
        return 2 * np.array([part.effective_lam for part in self.parts])

    def _kept(self, moves: FloatArray) -> FloatArray:
        """Return what each part keeps of its overlap after each move, in one more dimension at the end."""
        return np.maximum(1 - moves[..., None] / self._widths, 0.0)

    @property
    def lam(self) -> float:  # type: ignore[override]
        """The largest half-width."""
        return float(max(self.lams))

    @classmethod
    def from_sigma(cls, sigma: float, levels: Any = "auto") -> Self:
        """Refuse: one number does not determine a mixture."""
        raise ValueError("UniformMixtureNoise needs lams and weights: its sigma does not determine them.")

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise of one feature."""
        return float(np.sqrt(np.dot(self.weights, np.square(self.lams)) / 3))

    def check(self) -> None:
        """Raise a ValueError if a parameter is out of range."""
        for name, values in (("lams", self.lams), ("weights", self.weights)):
            if np.ndim(values) != 1 or not len(values):
                raise ValueError(f"{name} must be a list of numbers, got {values!r}.")
            for value in values:
                check_positive(f"each of {name}", value)
        if len(self.lams) != len(self.weights) or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights must hold one number for each of lams and sum to 1, got {self.weights!r}.")
        for part in self.parts:
            part.check()

    def draw(self, points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Draw the width of each row, then all rows of one width together; see `Noise.draw`."""
        self.draw_parts([part.draw for part in self.parts], points, rng, out)

    def draw_parts(
        self, draws: Sequence[Any], points: NDArray[Any], rng: np.random.Generator, out: NDArray[np.floating]
    ) -> None:
        """Draw the part of each row, then all rows of one part together by its function among ``draws``."""
        chosen = np.searchsorted(self._edges()[1:-1], rng.random(len(out)), side="right")
        points = np.broadcast_to(points, out.shape)
        for k, draw in enumerate(draws):
            rows = chosen == k
            if rows.any():
                drawn = np.empty((np.count_nonzero(rows), out.shape[1]), dtype=out.dtype)
                draw(points[rows], rng, drawn)
                out[rows] = drawn

    def overlap(self, moves: FloatArray) -> FloatArray:
        """Return the overlap after moving features by ``moves``, shape (..., n_features)."""
        return np.sum(np.prod(self._kept(moves), axis=-2) * self._shares, axis=-1)

    def cost(self, z: Any) -> Any:
        """Return -ln of the overlap after moving one feature by ``z``."""
        # For a small move 1 - overlap is accurate, and an overlap near 1 is not.
        each = np.minimum(np.asarray(z, dtype=np.float64)[..., None] / self._widths, 1.0)
        lost = np.sum(each * self._shares, axis=-1)
        with np.errstate(divide="ignore"):
            return -np.log1p(-np.minimum(lost, 1.0))

    def inverse_cost(self, spent: Any) -> Any:
        """Return how far one feature moves at this cost, by bisection."""
        spent = np.asarray(spent, dtype=np.float64)
        return bisect(
            lambda z: self.cost(z) < spent, np.zeros_like(spent), np.full_like(spent, 2 * self.lam), BISECTIONS
        )

    def walk(self, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Return how far the adversary gets. Costs do not add up here, so the walk follows the overlap itself."""
        slack = STEP_ERROR * (reach.shape[1] + 4)
        least = np.exp(-budget) * (1 + slack) + slack
        reach = largest(reach, reach.shape[1])
        kept = np.cumprod(self._kept(reach), axis=1)
        widths, shares = self._widths, self._shares
        full = np.sum(kept * shares, axis=-1) > least[:, None]

        covered = np.sum(reach, axis=1, where=full)
        n_full = full.sum(axis=1)
        start = np.ones((len(budget), len(shares)))
        started = n_full > 0
        start[started] = kept[started, n_full[started] - 1]
        end = np.where(full.all(axis=1), 0.0, reach[np.arange(len(reach)), np.minimum(n_full, reach.shape[1] - 1)])

        def affordable(z: FloatArray) -> NDArray[np.bool_]:
            return np.sum(start * np.maximum(1 - z[:, None] / widths, 0.0) * shares, axis=-1) > least

        rest = bisect(affordable, np.zeros(len(budget)), end, BISECTIONS)
        return np.where(full.all(axis=1), np.inf, (covered + rest) * (1 - slack))

    def walk_cost(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return -ln of the overlap that is left when ``distance`` is covered, less what rounding takes in `walk`."""

        def cost(moves: FloatArray) -> FloatArray:
            slack = 2 * STEP_ERROR * (moves.shape[1] + 8)
            with np.errstate(divide="ignore"):
                return -np.log(np.maximum(self.overlap(moves * (1 + slack)) * (1 - slack) - slack, 0.0))

        return walk_cost(cost, reach, distance)
