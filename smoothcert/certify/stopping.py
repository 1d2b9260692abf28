"""Stopping rules: when an input has enough votes. They decide on the cost; `evidence` decides on certificates.

A rule looks at the votes of one input at fixed numbers of votes, the checkpoints, so its answer depends neither on
batches nor on other inputs. Stopping too early loses radius or certificates, but never validity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from ..noise.mechanism import NoiseMechanism
from .betting import checkpoints
from .binomial import clopper_pearson, upper_bound
from .evidence import BET, Counts, Duel, FloatArray, certified_at
from .radius import RadiusStrategy
from .reach import certified_radii, required_probability

#: Quantile of a class's share, given the votes so far, that counts as the best possible share.
HOPE = 0.7

#: How much smaller alpha would be in Clopper and Pearson's bound for it to be about the anytime-valid one.
CAUTION = 16

#: Number of standard deviations by which future votes may be better than expected before a rule gives up.
LUCK = 2.8


@dataclass(frozen=True, kw_only=True, eq=False)
class VoteRule:
    """Base class of stopping rules.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
    alpha : float
        The level, without the error of drawing noise.
    strongest_rival : bool
        Whether class A is compared with its strongest rival or with all rivals as one.
    cap : int
        Number of votes at which drawing ends.
    """

    strategy: RadiusStrategy
    mechanism: NoiseMechanism
    alpha: float
    strongest_rival: bool
    cap: int


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusTest(VoteRule):
    """Stop once each radius asked for is certified or hopeless."""

    @property
    def checkpoints(self) -> NDArray[np.int64]:
        """Numbers of votes at which the rule is applied."""
        return checkpoints(self.cap)

    def known(self, selection: Counts, X: NDArray[Any], target: Any) -> dict[str, NDArray[Any]]:
        """Return what the rule needs to know about each input: its selection votes and the probability required."""
        required = required_probability(self.strategy, self.mechanism, X, target)
        return {"selection": selection, "required": required}

    def enough(self, counts: Counts, *, selection: Counts, required: FloatArray) -> NDArray[np.bool_]:
        """Tell for each input whether each of its radii is certified, or most unlikely to be in the end."""
        certified = certified_at(
            selection,
            counts,
            required,
            alpha=self.alpha,
            strongest_rival=self.strongest_rival,
            cap=self.cap,
        )
        duel = Duel.of(counts, selection.argmax(axis=1), strongest_rival=self.strongest_rival)
        hopeless = self.hopeless(duel, required.T).T
        decided: NDArray[np.bool_] = certified | hopeless
        return decided if required.ndim == 1 else np.all(decided, axis=1)

    def hopeless(self, duel: Duel, required: FloatArray) -> NDArray[np.bool_]:
        """Tell whether even good luck will not certify an input with the last vote; the last axis is that of inputs."""
        alpha = (1 - BET) * self.alpha / (2 if self.strongest_rival else 1)
        best_a = np.ceil(lucky(duel.k_a, duel.n, self.cap, LUCK))
        best_b = np.floor(lucky(duel.k_b, duel.n, self.cap, -LUCK))
        p_a = clopper_pearson(best_a, self.cap, alpha)
        p_b = np.minimum(upper_bound(clopper_pearson, best_b, self.cap, alpha), 1 - p_a)
        return (p_a - p_b < 2 * required - 1) | (required > 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusPrecision(VoteRule):
    """Stop once the certified radius is within a share ``rtol`` of the largest that it could still reach.

    The largest is the radius that the last vote would certify if class A had the 70 % quantile of what its votes so far
    suggest. To compare the two, a quick bound takes the place of the anytime-valid one.

    Parameters
    ----------
    rtol : float
    """

    rtol: float

    @property
    def checkpoints(self) -> NDArray[np.int64]:
        """Numbers of votes at which the rule is applied."""
        return checkpoints(self.cap, growth=1.15, step=64)

    def known(self, selection: Counts, X: NDArray[Any], target: Any) -> dict[str, NDArray[Any]]:
        """Return what the rule needs to know about each input: its selection votes and the input itself."""
        return {"selection": selection, "X": X}

    def enough(self, counts: Counts, *, selection: Counts, X: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for each input whether its radius is close to the largest that it could still reach."""
        duel = Duel.of(counts, selection.argmax(axis=1), strongest_rival=self.strongest_rival)
        hoped_for = self.cap * betaincinv(duel.score + 0.5, duel.n - duel.score + 0.5, HOPE)
        reachable = self.expected_radii(hoped_for, self.cap, X)
        return self.expected_radii(duel.score, duel.n, X) >= (1 - self.rtol) * reachable

    def expected_radii(self, score: FloatArray, n: Any, X: NDArray[Any]) -> FloatArray:
        """Estimate the radii that ``n`` votes would certify; 0 for abstentions."""
        p_a = betaincinv(score, n - score + 1, self.alpha / CAUTION)
        certified = p_a > 0.5
        radii = np.zeros(len(p_a))
        p_a = p_a[certified]
        radii[certified] = certified_radii(self.strategy, self.mechanism, X[certified], p_a, 1 - p_a)
        return radii


def lucky(k: Any, n: Any, last: Any, luck: float) -> FloatArray:
    """Return how many of ``last`` votes a class may get with ``luck`` standard deviations of good fortune."""
    left, share = last - n, (k + 0.5) / (n + 1)
    # The share estimated from n votes is as uncertain as the share among n further votes.
    spread = np.sqrt(left * np.maximum(share * (1 - share), 0.25 / n) * (1 + left / n))
    return np.clip(k + left * share + luck * spread, k, k + left)
