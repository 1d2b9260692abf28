"""Votes: the noise of many inputs goes through the base model in batches, and is counted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from tqdm.auto import tqdm

from . import stream
from ._checks import check_count
from .channel import NoisyChannel
from .polls import counts, open_polls
from .voters import Voter
from .workers import side_by_side

#: Batches that one task should fill at least, so that few of them are cut short by its end.
BATCHES_PER_TASK = 16

#: Values of a batch at most: kernels count them in 32 bits.
LARGEST_BATCH = 2**31 - 1

#: Values whose points are computed at once.
POINT_VALUES = 2**20


class StoppingRule(Protocol):
    """Decides after how many votes an input has enough of them."""

    @property
    def looks(self) -> NDArray[np.int64]:
        """Numbers of votes, increasing, after which the rule is asked: whatever the batches and the other inputs."""

    def __getitem__(self, rows: Any) -> StoppingRule:
        """Return the rule for some of the inputs."""

    def enough(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each input whether it needs no more votes; all of them have had equally many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Draws votes for some inputs (Algorithm 1, SampleUnderNoise).

    Parameters
    ----------
    voter : Voter
    channel : NoisyChannel
    X : ndarray of shape (n_inputs, *shape)
        In raw units.
    seed : int
        Keys the noise, together with the input and the stage: neither the batch size, nor the other inputs, nor the
        worker matters.
    batch_size : "auto" or int
        Rows of one call of the model; rows of several inputs share a batch. Memory is bounded by it. Where memory does
        not suffice, batches are halved.
    n_jobs : int or None
        Workers, through joblib.
    verbose : int
        Above 0, show a progress bar.
    """

    voter: Voter
    channel: NoisyChannel
    X: NDArray[Any]
    seed: int
    batch_size: int | str = "auto"
    n_jobs: int | None = None
    verbose: int = 0

    @cached_property
    def inputs(self) -> NDArray[np.uint8]:
        """Fingerprint of each input, shape (n_inputs, 16)."""
        return fingerprints(self.channel, self.X)

    def draw(self, stage: int, n: int, rule: StoppingRule | None = None) -> NDArray[np.int64]:
        """Count the base model's votes on noisy copies of each input.

        Parameters
        ----------
        stage : int
            Of Algorithm 1.
        n : int
            Votes per input, at most.
        rule : StoppingRule, optional
            Inputs that have enough votes leave, and the batches are filled with the others.

        Returns
        -------
        counts : ndarray of int64, shape (n_inputs, n_classes)
        """
        batch_size = self.batch_size
        if batch_size == "auto":
            batch_size = max(64, self.voter.batch_values // self.channel.n_features)
        rows = min(check_count("batch_size", batch_size), max(1, LARGEST_BATCH // self.channel.n_features))
        # A rule leaves few votes to some inputs: many of them then share a task.
        filling = rows if rule is not None else -(-BATCHES_PER_TASK * rows // n)
        fair = -(-len(self.X) // effective_n_jobs(self.n_jobs))
        tasks = list(gen_batches(len(self.X), max(1, min(filling, fair))))
        keys = stream.keys(self.seed, self.inputs, stage)
        counts = np.empty((len(self.X), self.voter.n_classes), dtype=np.int64)
        with (
            self.voter.ready(),
            tqdm(total=len(self.X), disable=not self.verbose, desc=f"{n} votes each", unit="input") as progress,
        ):
            parts = Parallel(n_jobs=self.n_jobs, return_as="generator")(
                delayed(_count)(
                    self.voter, self.channel, self.X[task], keys[task], n, None if rule is None else rule[task], rows
                )
                for task in tasks
            )
            for task, part in zip(tasks, parts, strict=True):
                counts[task] = part
                progress.update(len(part))
        return counts


def fingerprints(channel: NoisyChannel, X: NDArray[Any]) -> NDArray[np.uint8]:
    """Fingerprint of each input as the noise sees it, shape (n_inputs, 16)."""
    size = max(1, POINT_VALUES // channel.n_features)
    return np.concatenate([stream.digests(channel.points(X[part])) for part in gen_batches(len(X), size)])


def _count(
    voter: Voter,
    channel: NoisyChannel,
    X: NDArray[Any],
    keys: NDArray[np.uint32],
    n: int,
    rule: StoppingRule | None,
    rows: int,
) -> NDArray[np.int64]:
    """Count the votes of one task's inputs."""
    polls = open_polls(voter, channel, channel.points(X), keys)
    undecided, drawn = np.arange(len(X)), 0
    for look in [n] if rule is None else rule.looks:
        rows = _cast(polls, undecided, drawn, int(look), rows)
        drawn = look
        if rule is not None and look < n:
            undecided = undecided[~rule[undecided].enough(counts(polls)[undecided])]
            if not len(undecided):
                break
    return counts(polls)


def _cast(polls: list[Any], inputs: NDArray[np.intp], first: int, end: int, rows: int) -> int:
    """Cast the votes ``first`` to ``end`` of some inputs; return the batch size that memory sufficed for."""
    votes_each = end - first
    total = votes_each * len(inputs)
    # Several polls get equally many batches of equal size: none waits long for the last.
    rounds = -(-total // (len(polls) * rows))
    step = rows if len(polls) == 1 else -(-total // (len(polls) * rounds))
    starts = iter(range(0, total, step))

    def cast(poll: Any, start: int, stop: int) -> None:
        nonlocal rows
        half = -(-(stop - start) // 2)
        if stop - start <= rows:
            share = np.arange(start // votes_each, -(-stop // votes_each))
            begin = np.maximum(start - share * votes_each, 0)
            count = np.minimum(stop - share * votes_each, votes_each) - begin
            try:
                poll.cast(np.column_stack([inputs[share], first + begin, count]))
            except MemoryError:
                if stop - start == 1:
                    raise
                rows = min(rows, half)
            else:
                return
        cast(poll, start, start + half)
        cast(poll, start + half, stop)

    def work(poll: Any) -> None:
        # Whoever is free takes the next batch. Should one fail, nobody takes another.
        try:
            for start in starts:
                cast(poll, start, min(start + step, total))
        finally:
            deque(starts, maxlen=0)

    side_by_side(work, polls)
    return rows
