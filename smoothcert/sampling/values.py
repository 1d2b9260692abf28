"""Numbers that a regression model predicts under noise, sorted for each input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.base import Voter
from ..noise import seeding
from ..noise.mechanism import NoiseMechanism
from .counters import ask_numbers, noisy_batches
from .sampler import Sampler, Votes, draw_votes

FloatArray = NDArray[np.float64]


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

    kind = Values

    def stages(
        self, X: NDArray[Any], points: NDArray[Any], inputs: NDArray[np.uint8], target: Any
    ) -> tuple[FloatArray, FloatArray]:
        """Draw the numbers of both stages; see `Sampler.stages`."""

        def stage(number: int, n: int) -> FloatArray:
            found = np.empty((len(X), n))
            if n:
                keys = seeding.keys(self.seed, inputs, number)
                counters = [ValueCounter(one, self.mechanism, points, keys, found) for one in self.voter.for_threads()]
                draw_votes(counters, np.arange(len(X)), 0, n, self.rows)
                found.sort(axis=1)
            return found

        return stage(seeding.SELECTION, self.n_selection), stage(seeding.ESTIMATION, self.n_samples)


def scale_of(values: FloatArray) -> FloatArray:
    """Return what rounding is compared with: the size of each number and the usual size, or 0 for infinite ones.

    The usual size is the median. A few large numbers must not hide that the others differ, so that the range counts by
    a thousandth only: the rounding of float32 is a few parts in ten million of it.
    """
    finite = np.isfinite(values)
    usual = np.median(np.abs(values[finite])) + np.ptp(values[finite]) / 1000 if finite.any() else 0.0
    return np.where(finite, np.abs(values) + usual, 0.0)


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
        values = ask_numbers(self.voter, self.voter.values, self.batches, segments, scale_of)
        start = 0
        for owner, first, count in segments.tolist():
            self.found[owner, first : first + count] = values[start : start + count]
            start += count
