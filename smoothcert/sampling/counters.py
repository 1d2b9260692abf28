"""Polls: noise is drawn into one reused batch, the base model votes on it, and the votes of each input are counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.base import Voter
from ..models.threads import side_by_side
from ..models.torch import NEAR_TIE, TorchVoter
from ..noise._philox import OffsetRecipe
from ..noise.mechanism import NoiseMechanism

#: Batches whose doubtful votes may wait to be looked at: an accelerator has work meanwhile, and memory stays bounded.
PENDING = 2

#: Doubtful votes that are taken together on CPUs.
TOGETHER = 64


def open_polls(voter: Voter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]) -> list[Any]:
    """Return polls of some inputs that can go on at the same time and share the work; see `workers`."""
    kind: Any = ArrayPoll
    if isinstance(voter, TorchVoter):
        kind = TorchPoll if voter.device.type == "cpu" else DevicePoll
    return [kind(member, mechanism, points, keys) for member in voter.team()]


def counts(polls: list[Any]) -> NDArray[np.int64]:
    """Return the votes of each input so far, shape (n_inputs, n_classes)."""
    side_by_side(
        lambda poll: poll.settle(), [poll for poll in polls if poll.doubtful], len(polls), polls[0].voter.n_cores
    )
    total: NDArray[np.int64] = np.sum([poll.counts() for poll in polls], axis=0)
    return total


class Poll(ABC):
    """Votes that are counted on the host.

    Parameters
    ----------
    voter : Voter
    mechanism : NoiseMechanism
    points : ndarray of shape (n_inputs, d)
        The noise's points.
    keys : ndarray of uint32, shape (n_inputs, 4)
        Of the inputs' streams.
    """

    def __init__(self, voter: Any, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]) -> None:
        self.voter = voter
        self.mechanism = mechanism
        self.points = points
        self.keys = keys
        self.buffer = np.empty((0, *mechanism.shape), dtype=voter.dtype)
        self.tally = np.zeros((len(points), voter.n_classes), dtype=np.int64)
        #: Votes that are not in the tally yet.
        self.doubtful: list[Any] = []

    def cast(self, segments: NDArray[np.int64]) -> None:
        """Take the votes of one batch.

        Parameters
        ----------
        segments : ndarray of shape (n_segments, 3)
            Input, first sample and number of samples of consecutive rows; an input has one run at most.

        Raises
        ------
        MemoryError
            If there is no memory for so many rows; nothing is counted then.
        """
        votes, doubtful = self.votes(segments)
        total = self.tally[segments[:, 0]] + votes
        # Should memory run out above, nothing has changed.
        self.tally[segments[:, 0]] = total
        self.doubtful += doubtful

    @abstractmethod
    def votes(self, segments: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Any]]:
        """Return the votes of each segment, shape (n_segments, n_classes), and the places of those still doubtful."""

    def draw(self, segments: NDArray[np.int64]) -> NDArray[np.floating]:
        """Draw noisy rows into the reused batch."""
        n_rows = int(segments[:, 2].sum())
        if n_rows > len(self.buffer):
            self.buffer = np.empty((n_rows, *self.mechanism.shape), dtype=self.voter.dtype)
        batch = self.buffer[:n_rows]
        self.mechanism.sample(self.points, self.keys, segments, batch)
        return batch

    def counts(self) -> NDArray[np.int64]:
        """Return the votes of each input that this poll has counted, shape (n_inputs, n_classes)."""
        return self.tally


class ArrayPoll(Poll):
    """Votes of a model that takes and returns arrays."""

    def votes(self, segments: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Any]]:
        """Return the votes of each run; see `Poll.votes`."""
        # Imported when needed: numba takes as long to import as scikit-learn.
        from ._counting import count_indices

        return count_indices(self.voter(self.draw(segments)), segments[:, 2], self.voter.n_classes), []


class TorchPoll(Poll):
    """Votes of a torch module on a CPU.

    Rows whose votes are doubtful are drawn again later, some of them together, and the module is asked about each
    alone.
    """

    def votes(self, segments: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Any]]:
        """Return the votes of each run; see `Poll.votes`."""
        from ._counting import count_logits

        if len(self.doubtful) >= TOGETHER:
            self.settle()
        logits = self.voter.logits(self.rows(segments))
        if logits.dtype.itemsize < 4:
            logits = logits.float()
        votes, doubtful = count_logits(logits.contiguous().numpy(), segments[:, 2], NEAR_TIE)
        return votes, list(places(segments, doubtful)) if doubtful.size else []

    def settle(self) -> None:
        """Take the votes that are still doubtful."""
        # No more rows than a batch has had, whose size bounds memory.
        together = min(TOGETHER, len(self.buffer))
        while self.doubtful:
            segments = np.array(self.doubtful[:together])
            votes = [self.voter.vote_alone(row) for row in self.rows(segments).split(1)]
            # Should memory run out above, nothing has changed.
            np.add.at(self.tally, (segments[:, 0], votes), 1)
            del self.doubtful[:together]

    def rows(self, segments: NDArray[np.int64]) -> Any:
        """Draw noisy rows as a tensor; the module may change it in place."""
        import torch

        return torch.from_numpy(self.draw(segments))


class DevicePoll:
    """Votes of a torch module, counted on its device, which never waits for the host; see `Poll`.

    On CUDA devices noise on a lattice is drawn there. Doubtful votes are looked at a few batches later: their rows are
    then drawn again, and the module is asked about each alone.
    """

    def __init__(
        self, voter: TorchVoter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]
    ) -> None:
        import torch

        self.voter = voter
        fused = voter.device.type == "cuda" and isinstance(mechanism.noise.recipe, OffsetRecipe)
        self.feed = (CudaFeed if fused and find_spec("triton") is not None else Feed)(voter, mechanism, points, keys)
        self.tally = torch.zeros((len(points), voter.n_classes), dtype=torch.int64, device=voter.device)
        self.doubtful: deque[Any] = deque()

    def cast(self, segments: NDArray[np.int64]) -> None:
        """Take the votes of one batch; see `Poll.cast`."""
        import torch

        with on_device(self.voter.device), memory_errors():
            while len(self.doubtful) > PENDING:
                self.settle_batch()
            votes, doubtful = self.voter.vote(self.feed.draw(segments))
            cells = upload(np.repeat(segments[:, 0] * self.tally.shape[1], segments[:, 2]), self.voter.device) + votes
            batch = (segments, votes, *download(doubtful))
            self.tally.view(-1).index_add_(0, cells, torch.ones_like(cells))
            self.doubtful.append(batch)

    def settle(self) -> None:
        """Take the votes that are still doubtful."""
        with on_device(self.voter.device), memory_errors():
            while self.doubtful:
                self.settle_batch()

    def settle_batch(self) -> None:
        """Take the doubtful votes of the oldest batch again, each row alone."""
        segments, votes, doubtful, arrived = self.doubtful[0]
        if arrived is not None:
            arrived.synchronize()
        rows = doubtful.numpy().nonzero()[0]
        corrections = [
            (place[0], int(votes[row]), self.voter.vote_alone(self.feed.draw(place[None])))
            for row, place in zip(rows, places(segments, rows), strict=True)
        ]
        # Should memory run out above, nothing has changed.
        for owner, before, alone in corrections:
            self.tally[owner, before] -= 1
            self.tally[owner, alone] += 1
        self.doubtful.popleft()

    def counts(self) -> NDArray[np.int64]:
        """Return the votes of each input that this poll has counted, shape (n_inputs, n_classes)."""
        return self.tally.cpu().numpy()


def places(segments: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return for some rows of a batch the run that consists of the row alone, shape (n_rows, 3)."""
    ends = segments[:, 2].cumsum()
    run = np.searchsorted(ends, rows, side="right")
    sample = segments[run, 1] + segments[run, 2] + rows - ends[run]
    return np.column_stack([segments[run, 0], sample, np.ones_like(sample)])


class Feed:
    """Noisy rows that the host draws, as tensors on the voter's device."""

    def __init__(
        self, voter: TorchVoter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]
    ) -> None:
        self.poll = TorchPoll(voter, mechanism, points, keys)

    def draw(self, segments: NDArray[np.int64]) -> Any:
        """Draw noisy rows."""
        return self.poll.rows(segments).to(self.poll.voter.device)


class CudaFeed:
    """Noisy rows that are drawn on a CUDA device, for noise that its kernel knows."""

    def __init__(
        self, voter: TorchVoter, mechanism: NoiseMechanism, points: NDArray[Any], keys: NDArray[np.uint32]
    ) -> None:
        import torch

        self.recipe: Any = mechanism.noise.recipe
        self.points = upload(points.view(np.int32), voter.device)
        self.keys = upload(keys.view(np.int32), voter.device)
        dtype = torch.float64 if voter.dtype == np.float64 else torch.float32
        self.buffer = torch.empty((0, *mechanism.shape), dtype=dtype, device=voter.device)
        self.to_raw = [
            None if end is None else upload(end, voter.device) for end in mechanism.scale_and_shift(voter.dtype)
        ]

    def draw(self, segments: NDArray[np.int64]) -> Any:
        """Draw noisy rows into the reused batch."""
        from ..noise import _cuda as cuda

        n_rows = int(segments[:, 2].sum())
        if n_rows > len(self.buffer):
            self.buffer = self.buffer.new_empty((n_rows, *self.buffer.shape[1:]))
        batch = self.buffer[:n_rows]
        cuda.sample(self.recipe, self.points, self.keys, segments, batch)
        scale, shift = self.to_raw
        if scale is not None and shift is not None:
            batch.view(len(batch), -1).mul_(scale).add_(shift)
        return batch


def on_device(device: Any) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one: that is where kernels start and events are recorded."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's error for exhausted memory into Python's."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def upload(array: NDArray[Any], device: Any) -> Any:
    """Send an array to a device, without waiting for it where that is possible."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def download(tensor: Any) -> tuple[Any, Any]:
    """Send a tensor to the host; return it with the event to wait for before it is read, if there is one."""
    import torch

    if tensor.device.type != "cuda":
        return tensor.cpu(), None
    arrived = torch.cuda.Event()
    landed = tensor.to("cpu", non_blocking=True)
    arrived.record()
    return landed, arrived
