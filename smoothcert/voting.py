"""Votes: the noise of many inputs goes through the base model in batches, and is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from tqdm.auto import tqdm

from . import stream
from ._checks import check_count
from .channel import NoisyChannel
from .voters import Voter

#: Batches that one task should fill at least, so that few of them are cut short by its end.
BATCHES_PER_TASK = 16


def sample_under_noise(
    voter: Voter,
    channel: NoisyChannel,
    X: NDArray[Any],
    *,
    seed: int,
    stage: int,
    n: int,
    batch_size: int | str = "auto",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> NDArray[np.int64]:
    """Count the base model's votes on noisy copies of each input (Algorithm 1, SampleUnderNoise).

    Parameters
    ----------
    voter : Voter
    channel : NoisyChannel
    X : ndarray of shape (n_inputs, *shape)
        In raw units.
    seed, stage : int
        Key the noise, together with the input: neither the batch size, nor the other inputs, nor the worker matters.
    n : int
        Votes per input.
    batch_size : "auto" or int
        Rows of one call of the model; rows of several inputs share a batch. Memory is bounded by it.
    n_jobs : int or None
        Workers, through joblib.
    verbose : int
        Above 0, show a progress bar.

    Returns
    -------
    counts : ndarray of int64, shape (n_inputs, n_classes)
    """
    if batch_size == "auto":
        batch_size = max(64, voter.batch_values // channel.n_features)
    rows = check_count("batch_size", batch_size)
    tasks = list(gen_batches(len(X), _inputs_per_task(len(X), n, rows, effective_n_jobs(n_jobs))))
    counts = np.empty((len(X), voter.n_classes), dtype=np.int64)
    with (
        voter.ready(),
        tqdm(total=len(X), disable=not verbose, desc=f"{n} votes each", unit="input") as progress,
    ):
        parts = Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_count)(voter, channel, X[task], seed, stage, n, rows) for task in tasks
        )
        for task, part in zip(tasks, parts, strict=True):
            counts[task] = part
            progress.update(len(part))
    return counts


def fingerprints(channel: NoisyChannel, X: NDArray[Any]) -> NDArray[np.uint8]:
    """Fingerprint of each input as the noise sees it, shape (n_inputs, 16)."""
    digests = b"".join(stream.digest(channel.points(X[i : i + 1])) for i in range(len(X)))
    return np.frombuffer(digests, dtype=np.uint8).reshape(len(X), -1)


def _inputs_per_task(n_inputs: int, n: int, rows: int, n_workers: int) -> int:
    """Split the inputs so that every worker gets several tasks, each of which fills its batches."""
    filling = -(-BATCHES_PER_TASK * rows // n)
    fair = -(-n_inputs // n_workers)
    return max(1, min(filling, fair))


def _count(
    voter: Voter, channel: NoisyChannel, X: NDArray[Any], seed: int, stage: int, n: int, rows: int
) -> NDArray[np.int64]:
    """Count the votes of one task's inputs."""
    counts = np.zeros((len(X), voter.n_classes), dtype=np.int64)
    for owners, batch in _batches(channel, X, seed, stage, n, rows, voter.dtype):
        np.add.at(counts, (owners, voter(batch)), 1)
    return counts


def _batches(
    channel: NoisyChannel, X: NDArray[Any], seed: int, stage: int, n: int, rows: int, dtype: type[np.floating]
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Yield batches of at most ``rows`` noisy rows with the input that each belongs to, in one reused buffer."""
    buffer = np.empty((rows, *channel.shape), dtype=dtype)
    owners = np.empty(rows, dtype=np.intp)
    filled = 0
    for owner, point in enumerate(channel.points(X)):
        digest = stream.digest(point)
        for block in range(-(-n // stream.BLOCK)):
            rng = stream.generator(seed, digest, stage, block)
            position, end = block * stream.BLOCK, min(n, (block + 1) * stream.BLOCK)
            while position < end:
                drawn = slice(filled, min(filled + end - position, rows))
                if channel.noise.n_outcomes is None:
                    channel.draw(point, rng, buffer[drawn])
                else:
                    channel.enumerate(point, position, buffer[drawn])
                owners[drawn] = owner
                position += drawn.stop - drawn.start
                filled = drawn.stop % rows
                if not filled:
                    yield owners, buffer
    if filled:
        yield owners[:filled], buffer[:filled]
