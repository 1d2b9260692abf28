"""Numbers that a regression model predicts under noise, sorted for each input."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.memory import keep_freed
from ..models.base import Voter
from ..noise import seeding
from ..noise.mechanism import NoiseMechanism
from .alone import check_alone, is_due
from .counters import memory_errors, noisy_batches, single_rows
from .sampler import Sampler, Votes, draw_votes, fingerprints

FloatArray = NDArray[np.float64]

#: Largest difference, as a share of the spread of a batch and of the number, that is put down to rounding where a row
#: is asked alone; and in steps of reduced precision.
SAME, SAME_STEPS = 1e-4, 8


class Values(Votes):
    """Numbers that the base model predicts under noise, each row in increasing order; for parameters see `Votes`.

    ``selection`` and ``estimation`` have shapes (n_inputs, n_selection) and (n_inputs, n_samples).
    """

    @property
    def drawn(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many numbers each input has, for both stages."""
        selection, estimation = (np.full(len(stage), stage.shape[1]) for stage in (self.selection, self.estimation))
        return selection, estimation

    @property
    def unanimity(self) -> FloatArray:
        """Share of the selection votes of each input that equal their neighbor."""
        same = self.selection[:, 1:] == self.selection[:, :-1]
        share: FloatArray = same.sum(axis=1) / self.selection.shape[1]
        return share


class ValueSampler(Sampler):
    """Draws ``n_selection`` and ``n_samples`` numbers for each input; for parameters see `Sampler`."""

    def draw(self, X: NDArray[Any], target: Any = None) -> Values:
        """Draw the numbers of a few inputs; see `Sampler.draw`."""
        started = time.perf_counter()
        keep_freed()
        inputs, points = fingerprints(self.mechanism, X), self.mechanism.points(X)

        def stage(number: int, n: int) -> FloatArray:
            found = np.empty((len(X), n))
            if n:
                keys = seeding.keys(self.seed, inputs, number)
                counters = [ValueCounter(one, self.mechanism, points, keys, found) for one in self.voter.for_threads()]
                draw_votes(counters, np.arange(len(X)), 0, n, self.rows)
                found.sort(axis=1)
            return found

        with self.voter.voting():
            stages = stage(seeding.SELECTION, self.n_selection), stage(seeding.ESTIMATION, self.n_samples)
        seconds = time.perf_counter() - started
        return Values(selection=stages[0], estimation=stages[1], inputs=inputs, seed=self.seed, seconds=seconds)


class ValueCounter:
    """Collects the numbers that a base model predicts on noisy copies of some inputs.

    Parameters
    ----------
    voter, mechanism, points, keys
        As in `VoteCounter`.
    found : ndarray of shape (n_inputs, n)
        Where the numbers go. Several counters, each in a thread, share it.
    """

    def __init__(
        self,
        voter: Voter,
        mechanism: NoiseMechanism,
        points: NDArray[Any],
        keys: NDArray[np.uint32],
        found: FloatArray,
    ) -> None:
        self.voter, self.found = voter, found
        self.batches = noisy_batches(voter, mechanism, points, keys)

    def count_batch(self, segments: NDArray[np.int64]) -> None:
        """Take the numbers of one batch; see `VoteCounter.count_batch`."""
        with memory_errors():
            values = self.voter.values(self.batches.draw(segments))
            if is_due(self.voter):
                self._check_alone(segments, values)
        start = 0
        for owner, first, count in segments.tolist():
            self.found[owner, first : first + count] = values[start : start + count]
            start += count

    def _check_alone(self, segments: NDArray[np.int64], values: FloatArray) -> None:
        """Raise a ValueError if numbers change by more than rounding where rows are asked alone."""
        finite = values[np.isfinite(values)]
        spread = float(np.ptp(finite)) if len(finite) else 0.0
        same = max(SAME, SAME_STEPS * self.voter.coarse_step)

        def is_changed(alone: Any, row: int) -> bool:
            now, then = float(self.voter.values(alone)[0]), float(values[row])
            return now != then and not abs(now - then) <= same * (spread + abs(then))

        check_alone(
            self.voter,
            np.zeros(len(values), dtype=np.intp),
            lambda rows: self.batches.draw(single_rows(segments, rows)),
            is_changed,
        )
