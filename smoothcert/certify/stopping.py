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
from ..sampling.sampler import Votes
from .betting import checkpoints
from .duel import Counts, Duel, FloatArray
from .evidence import certified_at
from .futility import is_futile
from .reach import certified_radii, required_probability
from .strategy import RadiusStrategy

#: Quantile of a class's share, given the votes so far, that counts as the best possible share.
HOPE = 0.7

#: At alpha divided by this number, Clopper and Pearson's bound is about as large as the anytime-valid one at alpha.
CAUTION = 16


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
            selection, counts, required, alpha=self.alpha, strongest_rival=self.strongest_rival, cap=self.cap
        )
        duel = Duel.of(counts, selection.argmax(axis=1), strongest_rival=self.strongest_rival)
        # Bets may still succeed with the last votes, so futility assumes the fixed-n bound at all of alpha.
        nulls = required[:, None] if required.ndim == 1 else required
        k_a, k_b, n = (votes[:, None] for votes in duel)
        hopeless = is_futile(k_a, k_b, n, self.cap, nulls, alpha=self.alpha, rivals_apart=self.strongest_rival)
        return np.all(certified.reshape(nulls.shape) | hopeless, axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusPrecision(VoteRule):
    """Stop once the certified radius is within a share ``rtol`` of the largest that it could still reach.

    The largest is the radius that the last vote would certify if class A had the 70 % quantile of what its votes so far
    suggest. To compare the two, a quick bound takes the place of the anytime-valid one. Without a radius so far, an
    input is given up if the votes to come are futile.

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
        radii = self.expected_radii(duel.score, duel.n, X)
        hopeless = is_futile(*duel, self.cap, 0.5, alpha=self.alpha / CAUTION, rivals_apart=self.strongest_rival)
        return np.where(radii > 0, radii >= (1 - self.rtol) * reachable, hopeless)

    def expected_radii(self, score: FloatArray, n: Any, X: NDArray[Any]) -> FloatArray:
        """Estimate the radii that ``n`` votes would certify; 0 for abstentions."""
        p_a = betaincinv(score, n - score + 1, self.alpha / CAUTION)
        certified = p_a > 0.5
        radii = np.zeros(len(p_a))
        p_a = p_a[certified]
        radii[certified] = certified_radii(self.strategy, self.mechanism, X[certified], p_a, 1 - p_a)
        return radii


def expected_votes(rule: RadiusTest | RadiusPrecision, votes: Votes, X: NDArray[Any], target: Any = None) -> Counts:
    """Estimate how many votes inputs would take under a rule if their vote shares stay what they are.

    Parameters
    ----------
    rule : RadiusTest or RadiusPrecision
    votes : Votes
        Drawn without the rule.
    X : ndarray of shape (n_inputs, *shape)
    target : ndarray of shape (n_inputs,), optional
        The radii that a `RadiusTest` decides about.

    Returns
    -------
    n_votes : ndarray of shape (n_inputs,)
    """
    known, n_votes = rule.known(votes.selection, X, target), np.full(len(X), rule.cap)
    shares = votes.estimation.cumsum(axis=1) / votes.estimation.sum(axis=1, keepdims=True)
    undecided = np.arange(len(X))
    for n in rule.checkpoints:
        counts = np.diff(np.rint(n * shares[undecided]).astype(np.int64), axis=1, prepend=0)
        enough = rule.enough(counts, **{name: values[undecided] for name, values in known.items()})
        n_votes[undecided[enough]] = n
        undecided = undecided[~enough]
        if not len(undecided):
            break
    return n_votes
