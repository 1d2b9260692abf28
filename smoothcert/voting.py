"""The votes of a smoothed estimator: drawn, read from a store, or given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_choice
from .certify.algorithm import Algorithm
from .estimator import SmoothedEstimator
from .results.votes import VoteCounts
from .runs.inputs import Inputs
from .runs.metadata import RunMetadata, origin_of
from .runs.progress import Progress, followed
from .runs.replay import check_given, stored_votes
from .runs.run import Part, Parts, sample_votes


class SmoothedVoting(SmoothedEstimator):
    """Votes of the base model under noise; see `SmoothedClassifier`."""

    def count_votes(self, X: Any) -> VoteCounts:
        """Draw the votes of both stages, from which `certify` makes certificates as often as asked.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        votes : VoteCounts
        """
        check_is_fitted(self, "estimator_")
        inputs = self.open_inputs(X)
        sampler = self.algorithm(inputs.shape).sampler(self._call_seed())
        origin, parts = origin_of(sampler, self.classes_), sample_votes(sampler, inputs, self.n_jobs)

        def counts(part: Part) -> VoteCounts:
            return VoteCounts(part.votes.selection, part.votes.estimation, part.votes.inputs, origin)

        votes = followed(parts, len(inputs), "counting votes", self.verbose, counts)
        self._checked_votes[votes] = votes.origin.model
        return votes

    def _open_run(self, X: Any, shard: tuple[int, int] | None, on_error: str) -> Inputs:
        """Return the inputs of a run, or of a part of one."""
        check_choice("on_error", on_error, ("raise", "skip"))
        if shard is not None and self.random_state is None and self.noise_.n_outcomes is None:
            raise ValueError(
                f"random_state must be set, the same for all parts, where shard={shard!r} asks for one of them, got "
                f"None, with which each part would get other noise."
            )
        return self.open_inputs(X, shard=shard, skip=on_error == "skip")

    def _selection_votes(self, X: Any, *, all_selection: bool = False) -> NDArray[np.float64]:
        """Return what chooses the class: selection votes, or exact probabilities."""
        check_is_fitted(self, "estimator_")
        inputs = self.open_inputs(X)
        source = self.algorithm(inputs.shape).source(self._call_seed(), n_samples=0, all_selection=all_selection)
        parts, found = sample_votes(source, inputs, self.n_jobs), np.empty((len(inputs), len(self.classes_)))
        with Progress(len(inputs), "predicting", self.verbose) as progress:
            for part in parts:
                found[part.index] = part.votes.selection
                progress.update(part)
        return found

    def _votes(
        self,
        inputs: Inputs,
        algorithm: Algorithm,
        rule: Any,
        *,
        store: Any,
        y: Any,
        vouched: bool,
        decided_at: Any = None,
        **drawing: Any,
    ) -> Parts:
        """Return the votes of all inputs in parts: those that are stored, and those drawn (or computed) now."""
        source = algorithm.source(self._call_seed(), rule)
        if store is None:
            return sample_votes(source, inputs, self.n_jobs, **drawing)
        fixed_seed = self.random_state is not None or algorithm.certain
        run = RunMetadata.of(inputs, algorithm, source, fixed_seed=fixed_seed, decided_at=decided_at)
        return stored_votes(store, run, source, inputs, self.n_jobs, y=y, vouched=vouched, **drawing)

    def _algorithm_of_votes(self, votes: Any, store: Any, inputs: Inputs, same_model: bool) -> Algorithm:
        """Return Algorithm 1 for votes that are given, which a classifier like this one must have drawn for X."""
        if store is not None:
            raise ValueError("votes are drawn already: a store has nothing to record. Give one of votes and store.")
        if not isinstance(votes, VoteCounts):
            raise ValueError(f"votes must be what count_votes returns, got a {type(votes).__name__}.")
        # The fewest votes must suffice to certify anything.
        algorithm = self.algorithm(inputs.shape, n_samples=votes.n_samples, rtol=None)
        elsewhere = votes.origin.elsewhere
        seed = votes.origin.seed if self.random_state is None or elsewhere else self._call_seed()
        sampler = algorithm.sampler(seed)
        origin = origin_of(sampler, self.classes_)
        check_given(votes, sampler, inputs, origin, vouched=same_model, known=self._checked_votes.get(votes))
        self._checked_votes[votes] = origin.model
        return algorithm
