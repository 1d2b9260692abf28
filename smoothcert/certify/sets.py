"""Conformal sets: from scores of calibration data to a threshold, and from counts of scores below it to sets."""

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

from ..noise.greedy import bisect
from ..noise.mechanism import NoiseMechanism
from ..results.tables import rounded_down
from .binomial import TAIL_ERROR
from .radius import BoxRadius, GreedyRadius, LipschitzRadius
from .reach import smallest_overlap
from .strategy import RadiusStrategy

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SetRule:
    """How sets are calibrated and made, and what is left of the level for conformal prediction.

    Both methods draw ``n_samples`` noisy copies of each calibration input, and keep the score of a fixed rank among
    those of its own label. The kept scores of calibration inputs and of an input that nobody has moved are
    exchangeable, so that the threshold that `threshold` finds is at least the last one with probability 1 - ``level``.

    Parameters
    ----------
    level : Fraction
        The conformal level.
    n_samples : int
        Number of noisy copies of each input.
    rank : int
        Rank of the score that is kept, 1 being the smallest.
    eta : float, default=0
        Probability that the scores drawn of one input mislead, in calibration and again afterwards. 0 is the one-sample
        method: the score of the single noisy copy decides.
    p : float, default=1
        The share of an input's noise that must reach the threshold, where nobody has moved the input.
    """

    level: Fraction
    n_samples: int = 1
    rank: int = 1
    eta: float = 0.0
    p: float = 1.0

    def threshold(self, scores: FloatArray) -> float:
        """Return the smallest threshold that the scores of enough calibration inputs reach.

        It is the score of rank ``ceil((n + 1) (1 - level))`` among n. Ties only enlarge sets.

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
            The smallest overlap of the noise of each input and of any input that it may have been moved from. The
            one-sample method has spent it in the level.

        Returns
        -------
        sets : ndarray of bool, shape (n_inputs, n_classes)
        """
        if not self.eta:
            return counts > 0
        # A test at level eta of whether the share may be that large, which is whether Clopper and Pearson's upper bound
        # reaches it.
        least = np.clip(self.p - (1 - overlap) * (1 + TAIL_ERROR), 0.0, 1.0)
        held: NDArray[np.bool_] = binom.cdf(counts, self.n_samples, least[:, None]) * (1 + TAIL_ERROR) > self.eta
        return held


def one_sample(strategy: RadiusStrategy, mechanism: NoiseMechanism, radius: float, alpha: Fraction) -> SetRule:
    """Return the rule that spends what an adversary can gain in the conformal level: alpha less ``1 - overlap``.

    Parameters
    ----------
    strategy : RadiusStrategy
        With the same overlap for all inputs.
    mechanism : NoiseMechanism
    radius : float
    alpha : Fraction
        Probability that a set may miss the true label.

    Raises
    ------
    ValueError
        If the overlap depends on the input, or the radius leaves nothing of alpha.
    """
    if strategy.needs_inputs:
        raise ValueError(
            f"strategy must be 'lipschitz' or 'box' with method='one-sample', got {strategy!r}, whose overlap depends "
            f"on the input: so would the level, and sets would miss more labels than promised. Use method='binarized'."
        )
    drawing = 2 * Fraction(mechanism.draw_error)

    def left(overlap: float) -> Fraction:
        return alpha - (1 - Fraction(overlap)) - drawing

    level = left(_overlap(strategy, mechanism, radius))
    if level <= 0:
        _raise_too_large(strategy, mechanism, radius, lambda overlap: left(overlap) > 0)
    return SetRule(level=level)


def binarized(
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    radius: float,
    alpha: Fraction,
    *,
    error: float,
    n_samples: int,
    p: Any = "auto",
) -> SetRule:
    """Return the rule that lowers the share of the noise that must reach the threshold: p less ``1 - overlap``.

    Parameters
    ----------
    strategy, mechanism, radius, alpha
        As in `one_sample`.
    error : float
        The part of alpha that drawing noisy copies may spend, half of it in calibration.
    n_samples : int
    p : float or "auto"
        "auto" is 1/2 plus half of what an adversary gains. So p is as far from 1 as ``p - (1 - overlap)`` is from 0.

    Raises
    ------
    ValueError
        If alpha is not above ``error``, the radius leaves nothing of p, or the samples are too few.
    """
    drawing = 2 * n_samples * mechanism.draw_error
    level, eta = alpha - Fraction(repr(error)), (error - drawing) / 2
    if level <= 0 or eta <= 0:
        raise ValueError(
            f"alpha must lie between {drawing:g}, the error of drawing, and 1 - confidence_level = {float(alpha):.4g}, "
            f"of which it is a part, got {error!r}."
        )
    fixed = None if p == "auto" else float(p)
    middle = fixed or 0.5
    least_samples = math.ceil(math.log(eta) / math.log(max(middle, 1 - middle)))
    if n_samples < least_samples:
        raise ValueError(
            f"n_samples must be at least {least_samples} for alpha={error:g}{'' if fixed is None else f' and p={p:g}'}, "
            f"got {n_samples}."
        )
    if fixed is None or not strategy.needs_inputs:
        common = BoxRadius() if strategy.needs_inputs else strategy
        overlap = _overlap(common, mechanism, radius)
        # Less, and sets hold labels that none of the samples supports.
        certain = eta ** (1 / n_samples) * (1 - TAIL_ERROR)
        least = 2 * (1 - certain) if fixed is None else 2 - fixed - certain
        if overlap < least:
            _raise_too_large(common, mechanism, radius, lambda overlap: overlap >= least)
    share = 1 - overlap / 2 if fixed is None else fixed
    rank = int(binom.isf(eta * (1 - 2 * TAIL_ERROR), n_samples, share)) + 1
    return SetRule(level=level, n_samples=n_samples, rank=rank, eta=eta, p=share)


def way_back(strategy: RadiusStrategy) -> RadiusStrategy:
    """Return the strategy whose adversary leads from a moved input to those that it may have been moved from.

    Raises
    ------
    ValueError
        If that is not known: the strategy is not one of the library.
    """
    if type(strategy) not in (LipschitzRadius, BoxRadius, GreedyRadius):
        raise ValueError(
            f"strategy must be 'lipschitz', 'box' or 'greedy', got {strategy!r}. Sets need to know where an input may "
            f"have been moved from, which a strategy of your own does not say."
        )
    limits = getattr(strategy, "max_change", None)
    # What could only be increased can only have been smaller.
    return clone(strategy).set_params(max_change=limits[::-1]) if isinstance(limits, tuple) else strategy


def _overlap(strategy: RadiusStrategy, mechanism: NoiseMechanism, radius: float) -> float:
    """Return the smallest overlap of the noise of any input and of any other within the radius."""
    return float(smallest_overlap(strategy, mechanism, None, np.array([radius]))[0])


def _raise_too_large(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, radius: float, is_enough: Callable[[float], bool]
) -> None:
    """Raise a ValueError that names the largest radius whose overlap is enough."""

    def holds(middle: FloatArray) -> NDArray[np.bool_]:
        return np.array([is_enough(_overlap(strategy, mechanism, float(middle[0])))])

    largest = bisect(holds, np.zeros(1), np.array([radius]), 40)[0]
    raise ValueError(
        f"radius must be at most {rounded_down(float(largest))} with this noise, method and confidence_level, got "
        f"{radius!r}: beyond it, sets would have to hold all labels. Ask for a smaller radius, or widen the noise."
    )
