"""Conformal sets: how calibration scores become a threshold, and how often a label must reach it under noise.

Draw m noisy copies of an input. A label fits if the scores of ``rank`` copies or more reach the threshold. Couple the
copies of an input and of a moved one: each pair differs with probability ``1 - overlap``. So the move costs a label
more than ``lost`` copies with a probability of at most ``eta``, the upper tail of a binomial distribution, and a label
that fits before the move has ``rank - lost`` copies or more after it. One sample is the case m = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.base import clone

from .._utils.checks import check_choice, check_count, check_not_negative, check_number, check_open_unit
from ..noise.greedy import bisect
from ..noise.mechanism import NoiseMechanism
from ..results.tables import rounded_down
from .binomial import TAIL_ERROR
from .radius import BoxRadius, GreedyRadius, LipschitzRadius
from .reach import smallest_overlap
from .strategy import RadiusStrategy

FloatArray = NDArray[np.float64]

#: How sets are protected against changes of inputs.
METHODS = ("binarized", "one-sample")


@dataclass(frozen=True, kw_only=True)
class SetRule:
    """How sets are calibrated and made.

    Parameters
    ----------
    level : Fraction
        The conformal level: what ``eta`` leaves of the probability that a set may miss the true label.
    n_samples : int
        Number of noisy copies of each input.
    rank : int
        The rank of the score that calibration keeps of each input, 1 being the smallest.
    eta : float
        Probability that a move costs a label more copies than `lost` says.
    draw_error : float
        Bound on the total variation between a noisy copy that is drawn and the ideal one.
    """

    level: Fraction
    n_samples: int
    rank: int
    eta: float
    draw_error: float

    def threshold(self, scores: FloatArray) -> float:
        """Return the score of rank ``ceil((n + 1) (1 - level))`` among those that calibration has kept.

        The scores that n calibration inputs and an input that nobody has moved keep are exchangeable. So the last one
        is no larger than the threshold with probability ``1 - level``, or more where there are ties.

        Raises
        ------
        ValueError
            If there are fewer scores than the rank.
        """
        n = len(scores)
        rank = math.ceil((n + 1) * (1 - self.level))
        if rank > n:
            raise ValueError(
                f"X_calib must hold at least {math.ceil(1 / self.level) - 1} inputs for a conformal level of "
                f"{float(self.level):.3g}, got {n}. Give more inputs, or lower confidence_level."
            )
        return float(np.partition(scores, rank - 1)[rank - 1])

    def holds(self, counts: NDArray[np.int64], overlap: FloatArray) -> NDArray[np.bool_]:
        """Tell which labels the sets hold.

        Parameters
        ----------
        counts : ndarray of shape (n_inputs, n_classes)
            How many noisy copies reach the threshold.
        overlap : ndarray of shape (n_inputs,)
            The smallest overlap of the noise of each input and of any input that it may have been moved from.

        Returns
        -------
        sets : ndarray of bool, shape (n_inputs, n_classes)
        """
        lost = copies_lost(overlap, self.n_samples, self.eta, self.draw_error)
        return counts >= self.rank - lost[:, None]


def copies_lost(overlap: Any, n_samples: int, eta: float, draw_error: float = 0.0) -> NDArray[np.int64]:
    """Return how many of ``n_samples`` pairs of coupled copies differ, exceeded with probability ``eta`` at most.

    Examples
    --------
    >>> copies_lost(np.array([1.0, 0.9, 0.5]), n_samples=100, eta=0.01)
    array([ 0, 18, 62])
    """
    apart = np.clip(1 - np.asarray(overlap) + 2 * draw_error, 0.0, 1.0)
    found = np.where(apart > 0, np.maximum(binom.isf(eta, n_samples, apart), 0), 0)
    # SciPy rounds where the tail is eta.
    found += (binom.sf(found, n_samples, apart) * (1 + TAIL_ERROR) > eta) & (apart > 0)
    return found.astype(np.int64)


def set_rule(
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    *,
    radius: float,
    confidence_level: float,
    method: str,
    p: Any,
    alpha: float,
    n_samples: int,
) -> SetRule:
    """Return the rule for sets; parameters are those of `SmoothedConformalClassifier`.

    Raises
    ------
    ValueError
        If a parameter is invalid, the strategy is none of the method's, or the radius is so large that sets hold all
        labels.
    """
    radius, miss = check_not_negative("radius", radius), 1 - _rational("confidence_level", confidence_level)
    if check_choice("method", method, METHODS) == "one-sample":
        if strategy.needs_inputs:
            raise ValueError(
                f"strategy must be 'lipschitz' or 'box' with method='one-sample', got {strategy!r}. Its overlap "
                f"depends on the input, so the level would too, and sets would miss more labels than promised. Use "
                f"method='binarized'."
            )
        most, n_samples, p = float(miss), 1, "auto"
    else:
        expected = f"lie between 0 and 1 - confidence_level = {float(miss):g}, of which it is a part"
        most = check_number("alpha", alpha, lambda x: 0 < x < miss, expected)
        n_samples = check_count("n_samples", n_samples)
        p = p if p == "auto" else _rational("p", p)
    # The rank must be the same for all inputs: scores of different ranks are not exchangeable.
    common = BoxRadius() if strategy.needs_inputs else strategy

    draw_error = mechanism.draw_error

    def rule(radius: float) -> tuple[SetRule, bool]:
        """Return the rule for a radius, and whether sets leave any labels out."""
        overlap = smallest_overlap(common, mechanism, None, np.array([radius]))
        apart = min(1 - float(overlap[0]) + 2 * draw_error, 1.0)
        lost = int(copies_lost(overlap, n_samples, most, draw_error)[0])
        rank = (n_samples + lost) // 2 + 1 if p == "auto" else math.ceil(p * n_samples)
        eta = float(binom.sf(lost, n_samples, apart)) * (1 + 4 * TAIL_ERROR)
        decides = lost < rank <= n_samples and eta < miss
        level = miss - Fraction(eta)
        return SetRule(level=level, n_samples=n_samples, rank=rank, eta=eta, draw_error=draw_error), decides

    found, decides = rule(radius)
    # A rank of the user's own may serve inputs with a larger overlap.
    if not decides and (p == "auto" or common is strategy):
        _raise_too_large(radius, lambda radius: rule(radius)[1])
    return found


def _rational(name: str, value: Any) -> Fraction:
    """Return a number strictly between 0 and 1 as it is written, without the error of its binary digits."""
    return Fraction(repr(check_open_unit(name, value)))


def way_back(strategy: RadiusStrategy) -> RadiusStrategy:
    """Return the strategy whose adversary leads from a moved input to those that it may have been moved from.

    Raises
    ------
    ValueError
        If that is not known: the strategy is not one of the library.

    Examples
    --------
    >>> way_back(GreedyRadius(max_change=(0.0, 0.5)))
    GreedyRadius(max_change=(0.5, 0.0))
    """
    if type(strategy) not in (LipschitzRadius, BoxRadius, GreedyRadius):
        raise ValueError(
            f"strategy must be 'lipschitz', 'box' or 'greedy', got {strategy!r}. Sets need to know where an input may "
            f"have been moved from, which a strategy of your own does not say."
        )
    limits = getattr(strategy, "max_change", None)
    # What could only be increased can only have been smaller.
    return clone(strategy).set_params(max_change=limits[::-1]) if isinstance(limits, tuple) else strategy


def _raise_too_large(radius: float, decides: Callable[[float], bool]) -> None:
    """Raise a ValueError that names the largest radius at which sets can leave labels out."""

    def holds(middle: FloatArray) -> NDArray[np.bool_]:
        return np.array([decides(float(middle[0]))])

    largest = float(bisect(holds, np.zeros(1), np.array([radius]), 40)[0])
    raise ValueError(
        f"radius must be at most {rounded_down(largest)} with this noise, method and confidence_level, got {radius!r}: "
        f"beyond it, sets would have to hold all labels. Ask for a smaller radius, or widen the noise."
    )
