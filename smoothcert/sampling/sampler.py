"""Votes of a few inputs: noisy copies go through the base model in batches, and its answers are counted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from .._utils.checks import check_count
from .._utils.memory import keep_freed
from ..models.base import Voter
from ..models.threads import side_by_side
from ..noise import seeding
from ..noise.mechanism import NoiseMechanism
from .counters import VoteCounter, total_counts
from .selection import SelectionRule

#: Maximum number of batches in a task, times the voter's ``task_factor``: a crash costs them.
BATCHES_PER_TASK = 16

#: Minimum number, likewise, if there are enough inputs: a smaller task is not worth its start.
FEW_BATCHES = 8

#: Number of tasks of a run, if there are enough inputs: every worker gets some, and all end at about the same time.
TASKS = 64

#: Number of tasks that matters more than full batches.
FEW_TASKS = 10

#: The minimum number of votes before a stopping rule may end sampling for an input.
FEW_VOTES = 64

#: Maximum number of values in a batch: kernels count them in 32 bits.
LARGEST_BATCH = 2**31 - 1

#: Number of values whose points are computed at once.
POINT_VALUES = 2**20


class StoppingRule(Protocol):
    """Decides after how many votes an input has enough of them."""

    @property
    def checkpoints(self) -> NDArray[np.int64]:
        """Increasing numbers of votes after which the rule is asked, independent of batches and other inputs."""

    def known(self, selection: NDArray[np.int64], X: NDArray[Any], target: Any) -> dict[str, NDArray[Any]]:
        """Return what the rule needs to know about each input, as arrays with one row per input."""

    @property
    def enough(self) -> Callable[..., NDArray[np.bool_]]:
        """Tell for each input whether its votes are enough: called with the counts, and with what is known by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """Votes of some inputs.

    Parameters
    ----------
    selection, estimation : ndarray of int64, shape (n_inputs, n_classes)
        Votes of the two stages of Algorithm 1.
    inputs : ndarray of uint8, shape (n_inputs, 16)
        Fingerprint of each input.
    seed : int
        Seed of the noise.
    seconds : float
        Time that all of them took together.
    """

    selection: NDArray[Any]
    estimation: NDArray[Any]
    inputs: NDArray[np.uint8]
    seed: int
    seconds: float = 0.0

    @property
    def drawn(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of votes of each input, for both stages."""
        return self.selection.sum(axis=1), self.estimation.sum(axis=1)

    @property
    def n_votes(self) -> int:
        """All votes of both stages."""
        return sum(int(stage.sum()) for stage in self.drawn)

    @property
    def unanimity(self) -> NDArray[np.float64]:
        """Share of the selection votes of each input that go to the leading class."""
        share: NDArray[np.float64] = self.selection.max(axis=1) / self.selection.sum(axis=1)
        return share

    @property
    def recorded(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """What a store keeps of each input."""
        return self.selection, self.estimation


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Draws votes for some inputs (Algorithm 1, SampleUnderNoise).

    Parameters
    ----------
    voter : Voter
    mechanism : NoiseMechanism
    seed : int
        Keys the noise together with the input and the stage. Noise depends neither on the batch size, nor on other
        inputs, nor on the worker.
    n_selection : int
        Largest number of votes that choose the class. Fewer are drawn for inputs on which the class is clear.
    n_samples : int
        Maximum number of fresh votes that bound the probability of the class; 0 draws none. Noise that is not sampled
        needs none: the selection votes hold all of its outcomes, so they choose the class and also prove it.
    rule : StoppingRule, optional
        Inputs that have enough votes leave; batches are filled with the others.
    batch_size : "auto" or int
        Number of rows in one call of the model. Rows of several inputs share a batch. It bounds the memory; batches are
        halved if memory does not suffice.
    all_selection : bool
        Whether all ``n_selection`` votes are drawn for every input. Noise that is not sampled needs all of them.
    """

    voter: Voter
    mechanism: NoiseMechanism
    seed: int
    n_selection: int
    n_samples: int
    rule: StoppingRule | None = None
    batch_size: int | str = "auto"
    all_selection: bool = False

    #: What `draw` returns.
    kind: ClassVar[type[Votes]] = Votes

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        batch_size = self.batch_size
        if batch_size == "auto":
            batch_size = min(max(32, self.voter.batch_values // self.mechanism.n_features), self.voter.most_rows)
        return min(check_count("batch_size", batch_size), max(1, LARGEST_BATCH // self.mechanism.n_features))

    def chunk_size(self, n_inputs: int) -> int:
        """Return how many inputs make a task, independently of workers and speed, so that batches are repeatable.

        A task fills a few batches, and there are about `TASKS` tasks. It fills only ``task_factor`` batches if there
        would be fewer than `FEW_TASKS`.
        """
        each = FEW_VOTES if self.rule is not None else self.n_samples or self.n_selection
        rows = self.rows * self.voter.task_factor
        least = -(-FEW_BATCHES * rows // each)
        size = min(max(-(-n_inputs // TASKS), least), max(least, BATCHES_PER_TASK * rows // each))
        return min(size, max(-(-n_inputs // FEW_TASKS), -(-rows // each)))

    def draw(self, X: NDArray[Any], target: Any = None) -> Votes:
        """Draw the votes of a few inputs.

        Parameters
        ----------
        X : ndarray of shape (n_inputs, *shape)
            In raw units.
        target : ndarray of shape (n_inputs,), optional
            What the rule is asked about each.
        """
        started = time.perf_counter()
        keep_freed()
        # For an image of 224 x 224 pixels this takes milliseconds, in which an accelerator waits.
        points = self.mechanism.points(X)
        inputs = seeding.digests(points)
        with self.voter.voting():
            selection, estimation = self.stages(X, points, inputs, target)
        seconds = time.perf_counter() - started
        return self.kind(selection=selection, estimation=estimation, inputs=inputs, seed=self.seed, seconds=seconds)

    def stages(
        self, X: NDArray[Any], points: NDArray[Any], inputs: NDArray[np.uint8], target: Any
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw the votes of both stages for inputs, their points and their fingerprints; see `draw`."""

        def stage(number: int, n: int, rule: Any, known: Any = None) -> NDArray[np.int64]:
            keys = seeding.keys(self.seed, inputs, number)
            return count(self.voter, self.mechanism, points, keys, n, self.rows, rule, known)

        needs_all = self.all_selection or self.mechanism.noise.n_outcomes is not None
        selection = stage(seeding.SELECTION, self.n_selection, None if needs_all else SelectionRule(self.n_selection))
        if not self.n_samples:
            return selection, selection
        known = {} if self.rule is None else self.rule.known(selection, X, target)
        return selection, stage(seeding.ESTIMATION, self.n_samples, self.rule, known)


def fingerprints(mechanism: NoiseMechanism, X: NDArray[Any]) -> NDArray[np.uint8]:
    """Fingerprint of each input as the noise sees it, shape (n_inputs, 16)."""
    size = max(1, POINT_VALUES // mechanism.n_features)
    return np.concatenate([seeding.digests(mechanism.points(X[part])) for part in gen_batches(len(X), size)])


def count(
    voter: Voter,
    mechanism: NoiseMechanism,
    points: NDArray[Any],
    keys: NDArray[np.uint32],
    n: int,
    rows: int,
    rule: Any = None,
    known: dict[str, NDArray[Any]] | None = None,
) -> NDArray[np.int64]:
    """Count the votes of a few inputs, given by the noise's points, in batches of ``rows`` rows.

    Each input gets ``n`` votes, or fewer if a rule finds them enough; for ``known`` see `StoppingRule.known`.
    """
    counters = [VoteCounter(one, mechanism, points, keys) for one in voter.for_threads()]
    undecided, drawn, free_rows = np.arange(len(points)), 0, min(rows, voter.free_rows)
    waiting = deque([n] if rule is None else rule.checkpoints.tolist())
    while waiting and len(undecided):
        ends, ahead = [waiting.popleft()], None
        # A few more votes take no time, and no more votes are drawn in vain than are needed.
        while waiting and waiting[0] <= 2 * drawn and len(undecided) * (waiting[0] - drawn) <= free_rows:
            ends.append(waiting.popleft())
        if len(ends) == 1:
            rows = draw_votes(counters, undecided, drawn, ends[0], rows)
        else:
            try:
                ahead = _votes_ahead(counters, undecided, [drawn, *ends])
            except MemoryError:
                waiting.extendleft(reversed(ends))
                ends, free_rows = [], 0
        for place, drawn in enumerate(ends):
            if ahead is not None:
                counters[0].total[undecided] += ahead[undecided, place]
            if rule is not None and drawn < n:
                rows_of = {name: values[undecided] for name, values in (known or {}).items()}
                undecided = undecided[~rule.enough(total_counts(counters)[undecided], **rows_of)]
    return total_counts(counters)


def _votes_ahead(counters: list[Any], inputs: NDArray[np.intp], drawn: list[int]) -> NDArray[np.int64]:
    """Return the votes of all inputs between successive numbers of votes, (n_inputs, n_intervals, n_classes).

    Votes are drawn for some inputs in one batch. A rule that stops in between leaves the others out.
    """
    sizes, (_, n_classes) = np.diff(drawn), counters[0].total.shape
    segments = np.stack([inputs, np.full_like(inputs, drawn[0]), np.full_like(inputs, sizes.sum())], axis=1)
    parts = np.tile(sizes, len(inputs))
    count_apart, n_cores = counters[0].count_apart, counters[0].voter.n_cores
    [counts] = side_by_side(lambda segments: count_apart(segments, parts), [segments], len(counters), n_cores)
    found = np.zeros((len(counters[0].total), len(sizes), n_classes), dtype=np.int64)
    found[inputs] = counts.reshape(len(inputs), len(sizes), n_classes)
    return found


def draw_votes(counters: list[Any], inputs: NDArray[np.intp], first: int, end: int, rows: int) -> int:
    """Draw the votes ``first`` to ``end`` of some inputs, and return the batch size for which memory sufficed.

    ``counters`` share the work, each in a thread of its own. They have a ``count_batch`` and a ``voter``.
    """
    votes_each = end - first
    total = votes_each * len(inputs)
    # Several counters get the same number of batches of the same size, so that none waits long for the last.
    rounds = -(-total // (len(counters) * rows))
    step = rows if len(counters) == 1 else -(-total // (len(counters) * rounds))
    batches = range(0, total, step)
    starts = iter(batches)

    def count_rows(counter: Any, start: int, stop: int) -> None:
        nonlocal rows
        half = -(-(stop - start) // 2)
        if stop - start <= rows:
            skipped, share = start % votes_each, inputs[start // votes_each : -(-stop // votes_each)]
            segments = np.empty((len(share), 3), dtype=np.int64)
            segments[:, 0], segments[:, 1], segments[:, 2] = share, first, votes_each
            segments[0, 1:] += skipped, -skipped
            segments[-1, 2] -= -stop % votes_each
            try:
                counter.count_batch(segments)
            except MemoryError:
                if stop - start == 1:
                    raise
                rows = min(rows, half)
            else:
                return
        count_rows(counter, start, start + half)
        count_rows(counter, start + half, stop)

    def work(counter: Any) -> None:
        # A free thread takes the next batch. After a failure, no thread takes another.
        try:
            for start in starts:
                count_rows(counter, start, min(start + step, total))
        finally:
            stop()

    def stop() -> None:
        deque(starts, maxlen=0)

    side_by_side(work, counters[: len(batches)], len(counters), counters[0].voter.n_cores, stop)
    return rows
