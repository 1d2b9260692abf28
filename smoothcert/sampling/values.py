"""Numbers that a regression model predicts under noise, sorted for each input."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.memory import keep_freed
from ..models.base import Voter
from ..noise import seeding
from ..noise.mechanism import NoiseMechanism
from .alone import check_numbers_alone, is_due
from .counters import memory_errors, noisy_batches
from .sampler import Sampler, Votes, draw_votes, fingerprints

FloatArray = NDArray[np.float64]


class Values(Votes):
    """Numbers that the base model predicts under noise, each row in increasing order; for parameters see `Votes`.

    ``selection`` and ``estimation`` have shapes (n_inputs, n_selection) and (n_inputs, n_samples).
    """

    @property
    def n_votes(self) -> int:
        """Numbers of both stages."""
        return int(self.selection.size + self.estimation.size)


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
        self, voter: Voter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32], found: FloatArray
    ) -> None:
        self.voter, self.found = voter, found
        self.batches = noisy_batches(voter, mechanism, points, keys)

    def count_batch(self, segments: NDArray[np.int64]) -> None:
        """Take the numbers of one batch; see `VoteCounter.count_batch`."""
        with memory_errors():
            values = self.voter.values(self.batches.draw(segments))
            if is_due(self.voter):
                finite = values[np.isfinite(values)]
                scale = np.abs(values) + (np.ptp(finite) if len(finite) else 0.0)
                draw = partial(self.batches.draw_rows, segments)
                check_numbers_alone(self.voter, self.voter.values, values, draw, scale)
        start = 0
        for owner, first, count in segments.tolist():
            self.found[owner, first : first + count] = values[start : start + count]
            start += count
