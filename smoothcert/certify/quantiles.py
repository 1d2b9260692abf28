"""Quantiles of what a regression model predicts under noise: bounds that hold at every input within a radius."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_count, check_open_unit
from ..models.base import Voter
from ..noise.mechanism import NoiseMechanism
from ..results.intervals import Intervals, ToleranceRadii
from ..sampling.sampler import Votes
from ..sampling.values import ValueSampler
from .algorithm import level_of_votes
from .binomial import clopper_pearson, upper_bound
from .reach import certified_radii, smallest_overlap
from .strategy import RadiusStrategy, check_pays_by_overlap

FloatArray = NDArray[np.float64]


def upper_bounds(n: int, alpha: float) -> FloatArray:
    """Return the upper Clopper-Pearson bounds of 0, 1, ..., n - 1 successes in ``n`` trials, which increase.

    Examples
    --------
    >>> upper_bounds(4, 0.05).round(3)
    array([0.527, 0.751, 0.902, 0.987])
    """
    # Rounding must not leave an earlier bound above a later one.
    return np.maximum.accumulate(upper_bound(clopper_pearson, np.arange(n), n, alpha))


def lower_rank(p: FloatArray, bounds: FloatArray) -> NDArray[np.intp]:
    """Return the rank of the largest order statistic that is a lower confidence bound on the ``p``-quantile.

    With fewer than ``k`` of ``n`` values at or below the quantile, the ``k``-th exceeds it. This has at most the
    probability of fewer than ``k`` successes of probability ``p``, which is at most alpha where the upper bound of
    ``k - 1`` successes is at most ``p``.

    Parameters
    ----------
    p : ndarray
    bounds : ndarray of shape (n,)
        From `upper_bounds`, which has the level.

    Returns
    -------
    rank : ndarray of int
        From 1 to ``n``; 0 where there is none.

    Examples
    --------
    >>> bounds = upper_bounds(100, 0.05)
    >>> lower_rank(np.array([0.0, 0.5, 0.9]), bounds)
    array([ 0, 42, 85])
    """
    return np.searchsorted(bounds, p, side="right")


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantileAlgorithm:
    """What certifies smoothed quantiles, with all choices made; parameters are those of `SmoothedRegressor`.

    Two noises whose overlap is 1 - t give every event probabilities that differ by t or less. So the smoothed
    q-quantile at any input within a radius lies between the quantiles q - t and q + t at the given one. These are
    bounded by order statistics of the estimation votes, with alpha / 2 for each side.

    Parameters
    ----------
    mechanism : NoiseMechanism
    strategy : RadiusStrategy
    quantile, alpha : float
    n_selection, n_samples : int
    voter : Voter, optional
    batch_size : "auto" or int

    Raises
    ------
    ValueError
        If a parameter is invalid, the noise does not charge moves by their overlap, or the votes are too few to bound
        anything.
    """

    mechanism: NoiseMechanism
    strategy: RadiusStrategy
    quantile: float
    alpha: float
    n_selection: int
    n_samples: int
    voter: Voter | None = None
    batch_size: int | str = "auto"

    def __post_init__(self) -> None:
        check_pays_by_overlap(self.mechanism.noise)
        q, alpha = check_open_unit("quantile", self.quantile), check_open_unit("alpha", self.alpha)
        check_count("n_selection", self.n_selection)
        # The first order statistic bounds the p-quantile if all values exceed it with probability alpha / 2 or less.
        least = int(np.ceil(np.log(alpha / 2) / np.log1p(-max(q, 1 - q))))
        if check_count("n_samples", self.n_samples) < least:
            raise ValueError(
                f"n_samples={self.n_samples} cannot bound the {q:g}-quantile at alpha={alpha:g}, even for the input "
                f"itself: n_samples must be at least {least}."
            )

    @cached_property
    def bounds(self) -> FloatArray:
        """The upper bounds of all numbers of successes, at the level of each side."""
        return upper_bounds(self.n_samples, level_of_votes(self.alpha, self.mechanism, self.n_samples) / 2)

    def sampler(self, seed: int, *, n_samples: int | None = None) -> ValueSampler:
        """Return the sampler of both stages, or with ``n_samples=0`` of the selection votes alone."""
        assert self.voter is not None
        return ValueSampler(
            voter=self.voter,
            mechanism=self.mechanism,
            seed=seed,
            n_selection=self.n_selection,
            n_samples=self.n_samples if n_samples is None else n_samples,
            batch_size=self.batch_size,
        )

    def predictions(self, votes: Votes) -> FloatArray:
        """Return the quantile of the selection votes: the smallest vote that a share of q does not exceed."""
        found: FloatArray = np.quantile(votes.selection, self.quantile, axis=1, method="inverted_cdf")
        return found

    def certify(
        self, votes: Votes, X: NDArray[Any] | None, radius: FloatArray, reaches: FloatArray | None = None
    ) -> Intervals:
        """Bound the smoothed quantile at all inputs within radii, shape (n_inputs,) or (n_inputs, n_radii).

        Where ``X`` is None, ``reaches`` are the largest of each input; see `certified_radii`.
        """
        lost = 1 - smallest_overlap(self.strategy, self.mechanism, X, radius, largest_reaches=reaches)
        below, above = (np.nextafter(p - lost, -1) for p in (self.quantile, 1 - self.quantile))
        # A sentinel at each end: rank 0 stands for no bound.
        ends = np.full((len(radius), 1), np.inf)
        ordered = np.hstack([-ends, votes.estimation, ends])
        ranks = lower_rank(below, self.bounds), self.n_samples + 1 - lower_rank(above, self.bounds)
        lower, upper = (
            np.take_along_axis(ordered, rank.reshape(len(radius), -1), axis=1).reshape(radius.shape) for rank in ranks
        )
        return Intervals(
            predictions=self.predictions(votes), lower=lower, upper=upper, radius=radius.copy(), **self._claim()
        )

    def certify_within(
        self, votes: Votes, X: NDArray[Any] | None, tolerance: FloatArray, reaches: FloatArray | None = None
    ) -> ToleranceRadii:
        """Return the radii within which the smoothed quantile stays within tolerances, shape (n_inputs,).

        For ``X`` and ``reaches`` see `certify`.
        """
        predictions = self.predictions(votes)
        low, high = (predictions - tolerance)[:, None], (predictions + tolerance)[:, None]
        below, above = (np.count_nonzero(far, axis=1) for far in (votes.estimation < low, votes.estimation > high))
        bounds = np.append(self.bounds, 1.0)
        # What the quantile can lose on each side before it leaves the tolerance.
        lost = np.minimum(self.quantile - bounds[below], (1 - self.quantile) - bounds[above])
        near, radii = lost > 0, np.full(len(tolerance), np.nan)
        lost = np.nextafter(lost[near], 0)
        known = {"X": None if X is None else X[near], "largest_reaches": None if reaches is None else reaches[near]}
        radii[near] = certified_radii(
            self.strategy, self.mechanism, p_a=0.5 + lost, p_b=0.5 - lost, by_overlap=True, **known
        )
        return ToleranceRadii(
            predictions=predictions, radii=radii, abstained=~near, tolerance=tolerance.copy(), **self._claim()
        )

    def failed(self, *, radius: FloatArray | None = None, tolerance: Any = None) -> Any:
        """Return intervals at radii, or radii within tolerances, of inputs that have no votes: nothing is certified."""
        n_inputs = len(tolerance if radius is None else radius)
        nothing, everything = np.full(n_inputs, np.nan), np.ones(n_inputs, dtype=bool)
        claim = self._claim() | {"predictions": nothing, "failed": everything}
        if radius is not None:
            endless = np.full(radius.shape, np.inf)
            return Intervals(lower=-endless, upper=endless, radius=radius.copy(), **claim)
        return ToleranceRadii(radii=nothing, abstained=everything, tolerance=tolerance.copy(), **claim)

    def _claim(self) -> dict[str, Any]:
        return {
            "quantile": float(self.quantile),
            "alpha": float(self.alpha),
            "norm": self.strategy.norm,
            "threat": self.strategy.threat_under(self.mechanism.noise, self.mechanism.features),
        }
