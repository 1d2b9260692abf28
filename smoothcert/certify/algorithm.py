"""Algorithm 1: from votes to bounds on probabilities, and from these to radii."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_choice, check_count
from .._utils.warn import warn
from ..models.base import Voter
from ..noise.mechanism import NoiseMechanism
from ..noise.seeding import auxiliary
from ..results.certificates import Certificates
from ..results.decisions import Decisions
from ..results.records import no_label
from ..results.tables import rounded_down
from ..results.votes import check_counts
from ..sampling.exact import ExactVotes, NotExactError
from ..sampling.exact_sampler import ExactSampler, Shares, Source
from ..sampling.sampler import Sampler, StoppingRule, Votes
from ..sampling.selection import selection_steps
from .binomial import check_statistics, class_probabilities, exact_probabilities
from .evidence import anytime_probabilities, certified_at, largest_certified
from .reach import certified_radii, required_probability
from .stopping import RadiusPrecision, RadiusTest
from .strategy import RadiusStrategy

FloatArray = NDArray[np.float64]

#: Whether the probabilities of base models are exact: where they are known, never, or always.
ESTIMATIONS = ("auto", "sample", "exact")


@dataclass(frozen=True, kw_only=True, eq=False)
class Algorithm:
    """Algorithm 1 with all of its choices made; parameters are those of `SmoothedClassifier`.

    Parameters
    ----------
    mechanism : NoiseMechanism
    strategy : RadiusStrategy
    classes : ndarray of shape (n_classes,)
    alpha : float
    n_selection, n_samples : int
    scheme, bound : str
    rtol : float, optional
    estimation : {"auto", "sample", "exact"}
    voter : Voter, optional
        The base model. Certificates of existing votes need none.
    batch_size : "auto" or int

    Raises
    ------
    ValueError
        If a parameter is invalid, or the votes are too few to certify anything.
    """

    mechanism: NoiseMechanism
    strategy: RadiusStrategy
    classes: NDArray[Any]
    alpha: float
    n_selection: int
    n_samples: int
    scheme: str = "multiclass"
    bound: str = "clopper-pearson"
    rtol: float | None = None
    estimation: str = "auto"
    voter: Voter | None = None
    batch_size: int | str = "auto"

    def __post_init__(self) -> None:
        check_choice("estimation", self.estimation, ESTIMATIONS)
        check_count("n_selection", self.n_selection)
        check_statistics(
            check_count("n_samples", self.n_samples),
            1 if self.exact else len(self.classes),
            scheme=self.scheme,
            bound=self.bound,
            alpha=self.alpha,
        )

    @property
    def exact(self) -> bool:
        """Whether all outcomes of the noise are evaluated."""
        return self.mechanism.noise.n_outcomes is not None

    @cached_property
    def exact_sampler(self) -> ExactSampler | None:
        """Takes the place of a sampler if the probabilities of the base model are known.

        Raises
        ------
        NotExactError
            If ``estimation="exact"`` asks for them, and they are not.
        """
        if self.estimation == "sample" or self.voter is None or self.exact:
            return None
        try:
            return ExactSampler(ExactVotes(self.voter, self.mechanism))
        except NotExactError:
            if self.estimation == "exact":
                raise
            return None

    @property
    def certain(self) -> bool:
        """Whether nothing is sampled: all outcomes are evaluated, or probabilities are known."""
        return self.exact or self.exact_sampler is not None

    @property
    def may_stop(self) -> bool:
        """Whether drawing can stop early: votes are sampled, for one of several classes."""
        return not self.exact and len(self.classes) > 1

    @property
    def stops(self) -> bool:
        """Whether drawing for certificates stops early. No bound for a fixed number of votes holds then."""
        return bool(self.rtol is not None and self.may_stop)

    @property
    def strongest_rival(self) -> bool:
        """Whether class A is compared with its strongest rival; all rivals count as one otherwise."""
        return self.scheme == "multiclass" and len(self.classes) > 2 and self.mechanism.noise.by_margin

    @property
    def joins_rivals(self) -> bool:
        """Whether drawing that stops early takes all rivals for one, although other certificates do not.

        No bet is known where radii do not follow from the margin.
        """
        return self.may_stop and self.scheme == "multiclass" and len(self.classes) > 2 and not self.strongest_rival

    def level(self, n_samples: int) -> float:
        """Return alpha without the error of drawing ``n_samples`` votes."""
        return level_of_votes(self.alpha, self.mechanism, n_samples)

    def sampler(self, seed: int, rule: StoppingRule | None = None) -> Sampler:
        """Return the sampler of the votes of both stages."""
        assert self.voter is not None
        return Sampler(
            voter=self.voter,
            mechanism=self.mechanism,
            seed=seed,
            n_selection=self.mechanism.noise.n_outcomes or self.n_selection,
            n_samples=0 if self.exact else self.n_samples,
            rule=rule,
            batch_size=self.batch_size,
        )

    def source(self, seed: int, rule: StoppingRule | None = None, **choices: Any) -> Source:
        """Return where certificates come from: exact probabilities if they are known, or else the sampler of votes.

        Parameters
        ----------
        seed : int
        rule : StoppingRule, optional
        **choices
            Parameters in place of the sampler's.
        """
        return self.exact_sampler or replace(self.sampler(seed, rule), **choices)

    def precision_rule(self) -> RadiusPrecision | None:
        """Return the rule that stops once radii are precise to ``rtol``, if they are asked to be."""
        return RadiusPrecision(**self._rule_parameters(), rtol=float(self.rtol or 0)) if self.stops else None

    def radius_rule(self) -> RadiusTest | None:
        """Return the rule that stops once it is decided whether inputs are certified at a radius."""
        return RadiusTest(**self._rule_parameters()) if self.may_stop else None

    def _rule_parameters(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "mechanism": self.mechanism,
            "alpha": self.level(self.n_samples),
            "strongest_rival": self.strongest_rival,
            "cap": self.n_samples,
        }

    def certify(self, votes: Votes, X: NDArray[Any] | None, largest_reaches: FloatArray | None = None) -> Certificates:
        """Make certificates of votes: bound probabilities, turn them into radii; parameters as in `radii`."""
        p_a, p_b = self.probabilities(votes)
        radii = self.radii(p_a, p_b, X, largest_reaches)
        return Certificates(
            labels=self.classes[votes.selection.argmax(axis=1)],
            radii=radii,
            abstained=~self.ahead(p_a, p_b),
            p_a=p_a,
            p_b=p_b,
            n_samples=votes.estimation.sum(axis=1),
            **self._claim(votes),
        )

    def failed(self, n_inputs: int, votes: Votes) -> Certificates:
        """Return the certificates of inputs that have no votes: abstentions, with a label that is no class.

        ``votes`` are those of other inputs, or of none, and say whether probabilities are exact.
        """
        nothing, everything = np.zeros(n_inputs), np.ones(n_inputs, dtype=bool)
        return Certificates(
            labels=no_label(self.classes).repeat(n_inputs),
            radii=np.full(n_inputs, np.nan),
            abstained=everything,
            p_a=nothing,
            p_b=nothing + 1,
            n_samples=nothing.astype(np.int64),
            failed=everything,
            **self._claim(votes),
        )

    def failed_decisions(self, radius: FloatArray, votes: Votes) -> Decisions:
        """Return the decisions about inputs that have no votes: none is certified at its radius; see `failed`."""
        return Decisions(
            labels=no_label(self.classes).repeat(len(radius)),
            robust=np.zeros(radius.shape, dtype=bool),
            n_samples=np.zeros(len(radius), dtype=np.int64),
            radius=radius,
            failed=np.ones(len(radius), dtype=bool),
            **self._claim(votes),
        )

    def probabilities(self, votes: Votes) -> tuple[FloatArray, FloatArray]:
        """Bound the probability of the selected class from below, and that of its strongest rival from above."""
        if isinstance(votes, Shares):
            return votes.probabilities(self.scheme)
        self._check_counts(votes)
        if self.stops:
            level, rival = self.level(self.n_samples), self.strongest_rival
            return anytime_probabilities(votes.selection, votes.estimation, level, strongest_rival=rival)
        top = votes.selection.argmax(axis=1)
        if self.exact:
            return exact_probabilities(votes.estimation, top)
        return class_probabilities(
            votes.estimation,
            top,
            scheme=self.scheme,
            bound=self.bound,
            alpha=self.level(int(votes.estimation.sum(axis=1).max())),
            uniforms=auxiliary(votes.seed, votes.inputs) if self.bound.startswith("randomized") else None,
        )

    def _check_counts(self, votes: Votes) -> None:
        """Raise a ValueError unless counts are possible: impossible ones could enlarge a radius."""
        estimation = check_counts(votes.selection, votes.estimation, len(self.classes))["estimation"]
        if not self.exact:
            return
        n_outcomes = self.mechanism.noise.n_outcomes
        wrong = estimation.sum(axis=1) != n_outcomes
        if wrong.any():
            raise ValueError(
                f"estimation must hold the votes of all {n_outcomes} outcomes of {self.mechanism.noise!r} for each "
                f"input, got {estimation[wrong][0].sum()}."
            )
        if (votes.selection.argmax(axis=1) != estimation.argmax(axis=1)).any():
            raise ValueError("selection must choose the class that most outcomes vote for, ties to the lower index.")

    def radii(
        self, p_a: FloatArray, p_b: FloatArray, X: NDArray[Any] | None, largest_reaches: FloatArray | None = None
    ) -> FloatArray:
        """Turn bounds on probabilities into radii; NaN where class A is not ahead.

        Parameters
        ----------
        p_a, p_b : ndarray of shape (n_inputs,)
        X : ndarray of shape (n_inputs, *shape) or None
        largest_reaches : ndarray of shape (n_inputs, k), optional
            Needed where ``X`` is None; see `certified_radii`.
        """
        certified = self.ahead(p_a, p_b)
        radii = np.full(len(p_a), np.nan)
        if len(self.classes) == 1:
            radii[:] = np.inf
        else:
            inputs, reaches = (None if rows is None else rows[certified] for rows in (X, largest_reaches))
            radii[certified] = certified_radii(
                self.strategy, self.mechanism, inputs, p_a[certified], p_b[certified], largest_reaches=reaches
            )
        return radii

    def ahead(self, p_a: FloatArray, p_b: FloatArray) -> NDArray[np.bool_]:
        """Tell where class A is ahead. If all outcomes are evaluated, the selected class wins ties too."""
        return (p_a > p_b) | self.exact

    def decisions(self, votes: Votes, X: Any, radius: FloatArray, kept: FloatArray | None = None) -> Decisions:
        """Decide whether inputs are certified at radii.

        Parameters
        ----------
        votes : Votes
        X : ndarray of shape (n_inputs, *shape) or None
        radius : ndarray of shape (n_inputs,) or (n_inputs, n_radii)
        kept : ndarray of shape (n_inputs, k), optional
            Needed where ``X`` is None: the probabilities that radii require, or the largest reaches if drawing cannot
            stop early.
        """
        if self.may_stop and not isinstance(votes, Shares):
            if kept is None:
                required = required_probability(self.strategy, self.mechanism, X, radius)
            else:
                required = kept.reshape(radius.shape)
            bets: Any = {"alpha": self.level(self.n_samples), "strongest_rival": self.strongest_rival}
            robust = certified_at(votes.selection, votes.estimation, required, **bets, cap=self.n_samples)
        else:
            robust = (self.radii(*self.probabilities(votes), X, kept) >= radius.T).T
        return Decisions(
            labels=self.classes[votes.selection.argmax(axis=1)],
            robust=robust,
            n_samples=votes.estimation.sum(axis=1),
            radius=radius,
            **self._claim(votes),
        )

    def warn_joined_rivals(self) -> None:
        """Warn if stopping early gives up radii; see `joins_rivals`."""
        if self.joins_rivals:
            warn(
                f"Under {self.mechanism.noise}, drawing that stops early (rtol, certify_at) takes all rivals for one, "
                f"as scheme='binary' does: nothing is certified where class A has no majority. certify without rtol "
                f"compares it with the strongest rival."
            )

    def warn_out_of_reach(self, inputs: Iterable[tuple[NDArray[np.intp], NDArray[Any]]], radius: FloatArray) -> None:
        """Warn if even unanimous votes certify no input at a radius asked for; see `decisions`.

        Unanimous votes certify most.
        """
        p_a, largest = 1.0, 0.0
        if not self.certain:
            n_votes = int(selection_steps(self.n_selection)[0]), self.n_samples
            p_a = largest_certified(len(self.classes), *n_votes, self.level(self.n_samples), self.strongest_rival)
        for index, X in inputs:
            reachable = self.radii(np.full(len(X), p_a), np.full(len(X), 1 - p_a), X)
            largest = max(largest, float(np.nanmax(reachable, initial=0.0)))
            if (radius[index].T <= reachable).any():
                return
        warn(
            f"radius is out of reach for every input: it is at least {radius.min():g}, but even unanimous votes "
            f"certify no more than {rounded_down(largest)}. Ask for a smaller radius, or raise "
            f"{'' if self.certain else f'n_samples={self.n_samples} or '}the width of the noise."
        )

    def _claim(self, votes: Votes) -> dict[str, Any]:
        alpha = 0.0 if self.exact or isinstance(votes, Shares) else self.alpha
        return {
            "alpha": alpha,
            "norm": self.strategy.norm,
            "threat": self.strategy.threat_under(self.mechanism.noise, self.mechanism.features),
        }


def level_of_votes(alpha: float, mechanism: NoiseMechanism, n_samples: int) -> float:
    """Return alpha without the error of drawing ``n_samples`` votes, or raise a ValueError if nothing is left."""
    drawing = mechanism.draw_error * n_samples
    if drawing >= alpha:
        raise ValueError(
            f"alpha={alpha:g} must exceed {drawing:.3g}, the error of drawing {n_samples} votes of {mechanism.noise} "
            f"for {mechanism.n_features} features."
        )
    return float(alpha - drawing)
