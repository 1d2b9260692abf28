"""Vote counters: the noise mechanism writes into one reused batch, the base model votes, the votes are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.base import Voter
from ..models.threads import side_by_side
from ..models.torch_outputs import is_too_large
from ..noise._philox import OffsetRecipe
from ..noise.mechanism import NoiseMechanism
from .batch_dependence import check_alone, check_numbers_alone, is_due

#: Batches whose votes may not have been read yet: an accelerator has work meanwhile, and memory stays bounded.
PENDING = 2


def total_counts(counters: list[VoteCounter]) -> NDArray[np.int64]:
    """Return the votes for each input that any of the counters has counted, shape (n_inputs, n_classes)."""
    counts = side_by_side(lambda counter: counter.counts(), counters, len(counters), counters[0].voter.n_cores)
    total: NDArray[np.int64] = np.sum(counts, axis=0)
    return total


class VoteCounter:
    """Counts the votes of a base model on noisy copies of some inputs.

    Near ties are not counted at first: their rows are drawn again later, some of them together, and settled by the
    voter.

    Parameters
    ----------
    voter : Voter
    mechanism : NoiseMechanism
    points : ndarray of shape (n_inputs, d)
        Points of the noise, one for each input.
    keys : ndarray of uint32, shape (n_inputs, 4)
        Keys of the noise, one for each input.
    """

    def __init__(self, voter: Voter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]) -> None:
        self.voter = voter
        self.batches = noisy_batches(voter, mechanism, points, keys)
        self.total = np.zeros((len(points), voter.n_classes), dtype=np.int64)
        self.pending: deque[tuple[NDArray[np.int64], Callable[[], NDArray[np.intp]]]] = deque()
        # One segment for each row; a list of rows would take milliseconds, in which a GPU waits.
        self.near_ties = np.empty((0, 3), dtype=np.int64)
        self.together = voter.most_together

    def count_batch(self, segments: NDArray[np.int64]) -> None:
        """Take the votes of one batch.

        Parameters
        ----------
        segments : ndarray of shape (n_segments, 3)
            Input, first sample and number of samples of consecutive rows. Each input has one segment.

        Raises
        ------
        MemoryError
            If memory does not suffice for the batch. None of its votes is counted then.
        """
        with memory_errors():
            while len(self.pending) > PENDING:
                self._read()
            while len(self.near_ties) >= self.together:
                self._settle()
            # This comes last: a batch that fails is not pending.
            self.pending.append((segments, self.voter.vote(self.batches.draw(segments))))

    def count_apart(self, segments: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take the votes of one batch without near ties, and return those of parts of it.

        They are not added to the votes so far.

        Parameters
        ----------
        segments : ndarray of shape (n_segments, 3)
            As in `count_batch`.
        sizes : ndarray of shape (n_parts,)
            Number of consecutive rows of each part.

        Returns
        -------
        counts : ndarray of shape (n_parts, n_classes)
        """
        from ._compiled_counts import count_votes

        with memory_errors():
            wait = self.voter.vote(self.batches.draw(segments))
            counts, near_ties = count_votes(self._answers(segments, wait), sizes, self.total.shape[1])
        assert not near_ties.size
        return counts

    def counts(self) -> NDArray[np.int64]:
        """Settle all near ties, and return the votes for each input so far, shape (n_inputs, n_classes)."""
        with memory_errors():
            while self.pending:
                self._read()
            while len(self.near_ties):
                self._settle()
        return self.total

    def _read(self) -> None:
        """Count the votes of the oldest batch."""
        # numba takes as long to import as scikit-learn.
        from ._compiled_counts import count_votes

        segments, wait = self.pending[0]
        votes, near_ties = count_votes(self._answers(segments, wait), segments[:, 2], self.total.shape[1])
        if near_ties.size:
            self.near_ties = np.concatenate([self.near_ties, single_rows(segments, near_ties)])
        self.total[segments[:, 0]] += votes
        self.pending.popleft()

    def _answers(self, segments: NDArray[np.int64], wait: Callable[[], NDArray[np.intp]]) -> NDArray[np.intp]:
        """Wait for the votes of a batch, and ask about some of its rows alone where that is due."""
        cast = wait()
        if is_due(self.voter):
            # If memory does not suffice for it now, later batches are checked.
            with suppress(MemoryError):
                check_alone(self.voter, cast, partial(self.batches.draw_rows, segments))
        return cast

    def _settle(self) -> None:
        """Count some of the near ties, or take fewer of them the next time if memory does not suffice."""
        # The memory that batches have had suffices for fewer rows.
        size = max(1, min(self.together, len(self.batches.buffer)))
        segments = self.near_ties[:size]
        try:
            with memory_errors():
                votes = self.voter.settle(self.batches.draw(segments))
        except MemoryError:
            if len(segments) == 1:
                raise
            self.together = len(segments) // 2
            return
        np.add.at(self.total, (segments[:, 0], votes), 1)
        self.near_ties = self.near_ties[size:]


def ask_numbers(
    voter: Voter,
    ask: Callable[[Any], NDArray[np.float64]],
    batches: NoisyBatches,
    segments: NDArray[np.int64],
    scale: Callable[[NDArray[np.float64]], Any] = np.ones_like,
) -> NDArray[np.float64]:
    """Return what ``ask`` answers about a batch; some of its rows are asked alone where that is due.

    ``scale`` returns what the rounding of each number is compared with; see `check_numbers_alone`.
    """
    with memory_errors():
        numbers = ask(batches.draw(segments))
        if is_due(voter):
            check_numbers_alone(voter, ask, numbers, partial(batches.draw_rows, segments), scale(numbers))
    return numbers


def single_rows(segments: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return segments that consist of one row of a batch each, shape (n_rows, 3)."""
    ends = segments[:, 2].cumsum()
    owner = np.searchsorted(ends, rows, side="right")
    sample = segments[owner, 1] + segments[owner, 2] + rows - ends[owner]
    return np.column_stack([segments[owner, 0], sample, np.ones_like(sample)])


class NoisyBatches:
    """Noisy rows for a voter, in one reused array; for the parameters see `VoteCounter`."""

    def __init__(self, voter: Voter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]) -> None:
        self.mechanism, self.points, self.keys = mechanism, points, keys
        self.buffer: Any = np.empty((0, *mechanism.shape), dtype=voter.dtype)

    def draw(self, segments: NDArray[np.int64]) -> Any:
        """Draw noisy rows, which the next batch overwrites; for ``segments`` see `VoteCounter.count_batch`."""
        n_rows = int(segments[:, 2].sum())
        if n_rows > len(self.buffer):
            self.buffer = self._empty(n_rows)
        batch = self.buffer[:n_rows]
        self._fill(segments, batch)
        return batch

    def draw_rows(self, segments: NDArray[np.int64], rows: NDArray[np.intp]) -> Any:
        """Draw some rows of a batch again, by their numbers."""
        return self.draw(single_rows(segments, rows))

    def _empty(self, n_rows: int) -> Any:
        return np.empty((n_rows, *self.mechanism.shape), dtype=self.buffer.dtype)

    def _fill(self, segments: NDArray[np.int64], batch: Any) -> None:
        self.mechanism.sample(self.points, self.keys, segments, batch)


class CudaBatches(NoisyBatches):
    """Noisy rows that are drawn on a CUDA device, for noise that its kernel knows."""

    def __init__(self, voter: Any, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]) -> None:
        import torch

        self.mechanism = mechanism
        self.points, self.keys = (upload(words.view(np.int32), voter.device) for words in (points, keys))
        dtype = torch.float64 if voter.dtype == np.float64 else torch.float32
        self.buffer = torch.empty((0, *mechanism.shape), dtype=dtype, device=voter.device)
        ends = () if mechanism.box.is_unit else mechanism.scale_and_shift(voter.dtype)
        self.to_raw = [upload(end, voter.device) for end in ends]
        self.recipe: Any = mechanism.noise.recipe

    def _empty(self, n_rows: int) -> Any:
        return self.buffer.new_empty((n_rows, *self.mechanism.shape))

    def _fill(self, segments: NDArray[np.int64], batch: Any) -> None:
        import torch

        from ..noise import _cuda as cuda

        # Triton starts kernels on the current device, which need not be that of the batch.
        with torch.cuda.device(batch.device):
            cuda.sample(self.recipe, self.points, self.keys, segments, batch)
        if self.to_raw:
            scale, shift = self.to_raw
            batch.view(len(batch), -1).mul_(scale).add_(shift)


def noisy_batches(
    voter: Any, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]
) -> NoisyBatches:
    """Return noisy batches that are drawn where the base model computes, or on the host if that is not possible."""
    known = mechanism.mixed is None and isinstance(mechanism.noise.recipe, OffsetRecipe)
    known = known and find_spec("triton") is not None
    on_cuda = getattr(voter, "device_type", None) == "cuda"
    return (CudaBatches if known and on_cuda else NoisyBatches)(voter, mechanism, points, keys)


def upload(array: NDArray[Any], device: Any) -> Any:
    """Send an array to a device, without waiting for it where that is possible."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's errors for batches that are too large into Python's for exhausted memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_too_large(error):
            raise
        raise MemoryError(str(error)) from error
