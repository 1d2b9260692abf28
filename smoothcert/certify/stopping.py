"""Stopping rules: how many votes an input needs, decided while they are drawn, at fixed numbers of votes.

Inference by betting is anytime-valid (Ville's inequality): it holds at every number of votes at once, so a rule may
stop whenever it likes. What a rule looks at to decide that votes suffice is a matter of cost, not of validity.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from ..noise.mechanism import NoiseMechanism
from .betting import anytime_lower_bound, log_e_margin, log_e_value
from .binomial import class_probabilities, clopper_pearson, upper_bound
from .radius import RadiusStrategy, certified_radii

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Quantile of a class's share, given the votes so far, that is taken for the best that it may turn out to be.
HOPE = 0.7

#: How much smaller alpha would be in Clopper and Pearson's bound for it to be about the anytime-valid one.
CAUTION = 16

#: Share of alpha that `RadiusTest` bets, to stop early; the rest is for the last look, and certifies most of what is
#: left. Votes saved and certificates lost change little between .1 and .5.
BET = 0.2

#: Standard deviations by which votes to come may turn out better than expected, when it is decided whether to go on.
LUCK = 2.8

#: More than rounding adds to the difference of two probabilities.
ROUNDING = 1e-15


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What stopping rules share.

    Parameters
    ----------
    selection : ndarray of shape (n_inputs, n_classes)
        The votes that chose the class; they are the bets' prior, and independent of the votes that are bet on.
    top : ndarray of shape (n_inputs,)
        The class of each input.
    rivals_apart : bool
        Whether the class is compared with its strongest rival, which needs a certificate that depends on p_a - p_b
        alone: what has to be shown is that the mean of (1 + [A] - [B])/2 exceeds some p. For the rival of largest
        probability the mean is smallest, and for the one with most votes so is the evidence, so that looking at the
        latter errs no more often than a test of the former. Otherwise all rivals count as one: p_b = 1 - p_a.
    alpha : float
    checkpoints : ndarray
        Numbers of votes after which a rule is asked.
    """

    selection: Counts
    top: NDArray[np.intp]
    rivals_apart: bool
    alpha: float
    checkpoints: NDArray[np.int64]

    def __getitem__(self, rows: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "checkpoints"}
        return replace(self, **{name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)})

    def split(self, counts: Counts) -> tuple[Counts, Counts, Counts]:
        """Return the votes for the class, for its strongest rival or all rivals as one, and all of them."""
        rows, n = np.arange(len(counts)), counts.sum(axis=1)
        k_a = counts[rows, self.top]
        if not self.rivals_apart:
            return k_a, n - k_a, n
        rivals = counts.copy()
        rivals[rows, self.top] = -1
        return k_a, rivals.max(axis=1), n

    def prior(self) -> tuple[FloatArray, FloatArray]:
        """Return the parameters of a Beta distribution of the mean of (1 + [A] - [B])/2."""
        s_a, s_b, s_n = self.split(self.selection)
        return (s_n + s_a - s_b) / 2 + 0.5, (s_n - s_a + s_b) / 2 + 0.5

    def probabilities(self, counts: Counts) -> tuple[FloatArray, FloatArray]:
        """Return p_a and p_b = 1 - p_a, whose difference is a lower bound of the margin at all looks at once.

        It bounds the mean of (1 + [A] - [B])/2; a vote for neither counts half, as in `RadiusTest`.
        """
        k_a, k_b, n = self.split(counts)
        p_a = anytime_lower_bound((n + k_a - k_b) / 2, n, self.alpha, *self.prior())
        return p_a, 1 - p_a

    def verdict(self, counts: Counts) -> NDArray[np.bool_] | None:
        """Return what all votes decide: nothing."""
        return None


@dataclass(frozen=True, kw_only=True)
class RadiusTest(Rule):
    """Test whether each input is certified at a given radius.

    Parameters
    ----------
    required : ndarray of shape (n_inputs,)
        Probability p at which p_a = p and p_b = 1 - p certify the radius; inf where nothing does.
    """

    required: FloatArray

    def evidence(self, k_a: Any, k_b: Any, n: Any) -> FloatArray:
        """Return the logarithm of the e-value against "not certified"."""
        required = np.minimum(self.required, 1.0)
        if self.rivals_apart:
            found = log_e_margin(k_a, k_b, n, required, *self.split(self.selection))
        else:
            found = log_e_value(k_a, n, required, *self.prior())
        return np.where(self.required <= 1, found, -np.inf)

    def verdict(self, counts: Counts) -> NDArray[np.bool_]:
        """Tell for each input whether it is certified.

        A part of alpha is bet: where an input is not certified, evidence ever reaches 1/part at most that often. The
        rest is for the bounds of Algorithm 1, once all votes are there: those ask for less than bets that had to be
        good at every look.
        """
        k_a, k_b, n = self.split(counts)
        certified = self.evidence(k_a, k_b, n) >= -np.log(BET * self.alpha)
        last = n == self.checkpoints[-1]
        if last.any():
            scheme = "multiclass" if self.rivals_apart else "binary"
            p_a, p_b = class_probabilities(
                counts[last], self.top[last], scheme=scheme, bound="clopper-pearson", alpha=(1 - BET) * self.alpha
            )
            certified[last] |= p_a - p_b >= 2 * self.required[last] - 1 + ROUNDING
        return certified

    def enough(self, counts: Counts) -> NDArray[np.bool_]:
        """Tell for each input whether it is certified, or is most unlikely to be in the end."""
        return self.verdict(counts) | self.hopeless(*self.split(counts))

    def hopeless(self, k_a: Any, k_b: Any, n: Any) -> NDArray[np.bool_]:
        """Tell for each input whether even good luck will not certify it with the last vote.

        Giving up too early costs robust inputs, and no validity.
        """
        last = self.checkpoints[-1]
        alpha = (1 - BET) * self.alpha / (2 if self.rivals_apart else 1)
        best_a = np.ceil(lucky(k_a, n, last, LUCK))
        best_b = np.floor(lucky(k_b, n, last, -LUCK))
        p_a = clopper_pearson(best_a, last, alpha)
        p_b = np.minimum(upper_bound(clopper_pearson, best_b, last, alpha), 1 - p_a)
        return (p_a - p_b < 2 * self.required - 1) | (self.required > 1)


def lucky(k: Any, n: Any, last: Any, luck: float) -> FloatArray:
    """Return how many votes a class may get in the end, with so many standard deviations of luck."""
    left, share = last - n, (k + 0.5) / (n + 1)
    # What is known of the share from n votes is as uncertain as the share of n more.
    spread = np.sqrt(left * np.maximum(share * (1 - share), 0.25 / n) * (1 + left / n))
    return np.clip(k + left * share + luck * spread, k, k + left)


@dataclass(frozen=True, kw_only=True)
class RadiusPrecision(Rule):
    """Draw until the certified radius is within a share ``rtol`` of the largest that it could still reach.

    That is the radius that the last look would certify if the class had the 70 % quantile of what its votes so far
    suggest. To compare the two, a quick bound takes the place of the anytime-valid one, which `probabilities` gives.

    Parameters
    ----------
    rtol : float
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs.
    """

    rtol: float
    strategy: RadiusStrategy
    mechanism: NoiseMechanism
    X: NDArray[Any]

    def expected_radii(self, score: FloatArray, n: Any) -> FloatArray:
        """Return about the radii that so many votes certify, 0 for abstentions."""
        p_a = betaincinv(score, n - score + 1, self.alpha / CAUTION)
        certified = p_a > 0.5
        radii = np.zeros(len(p_a))
        p_a = p_a[certified]
        radii[certified] = certified_radii(self.strategy, self.mechanism, self.X[certified], p_a, 1 - p_a)
        return radii

    def enough(self, counts: Counts) -> NDArray[np.bool_]:
        """Tell for each input whether its radius is close to the largest that it could still reach."""
        k_a, k_b, n = self.split(counts)
        score, last = (n + k_a - k_b) / 2, self.checkpoints[-1]
        hoped_for = last * betaincinv(score + 0.5, n - score + 0.5, HOPE)
        return self.expected_radii(score, n) >= (1 - self.rtol) * self.expected_radii(hoped_for, last)
