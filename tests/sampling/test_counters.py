"""Vote counters: the same counts on hosts and accelerators, whose way is tried on CPU tensors."""

import sys
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import smoothcert.noise
from smoothcert import GaussianNoise, SplitNoise, UniformNoise
from smoothcert.models.base import Voter
from smoothcert.models.function import FunctionVoter
from smoothcert.models.torch import TorchVoter
from smoothcert.noise import _cpu, seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.sampling import counters
from smoothcert.sampling.counters import (
    CudaBatches,
    NoisyBatches,
    VoteCounter,
    memory_errors,
    noisy_batches,
    single_rows,
    total_counts,
)
from smoothcert.sampling.sampler import Sampler

from ..base_models import fail_as_torch

X = np.random.default_rng(0).random((5, 6))
SEGMENTS = [[[0, 0, 30], [2, 5, 1], [1, 0, 9]], [[0, 30, 100]], [[3, 0, 40], [4, 7, 60]], [[1, 9, 3]], [[2, 6, 90]]]


class Tied(nn.Module):
    """A network of three classes, two of which nearly tie for many rows; memory may not suffice for large batches."""

    def __init__(self, most=10**9):
        super().__init__()
        torch.manual_seed(0)
        self.direction, other = nn.Parameter(torch.randn(6)), 1e-6 * torch.randn(6)
        self.close = nn.Parameter(self.direction.detach() + other)
        self.most = most

    def forward(self, rows):
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        first, second = (rows - 0.5) @ self.direction, (rows - 0.5) @ self.close
        return torch.stack([first, second, -first], dim=1)


def on_cuda(voter, monkeypatch):
    """Let a voter on the CPU take the way of a CUDA device; events and the kernel are replaced.

    Both belong to the current device, which at first is another one.
    """

    class Event:
        def record(self):
            assert current[-1:] == [voter.device]
            self.recorded = True

        def synchronize(self):
            assert self.recorded

    @contextmanager
    def device(made_current):
        current.append(made_current)
        yield
        current.pop()

    def sample(recipe, points, keys, segments, out):
        assert current[-1:] == [out.device]
        words = (tensor.numpy().view(np.uint32) for tensor in (points, keys))
        _cpu.sample(recipe, *words, segments, out.view(len(out), -1).numpy())
        drawn.append(len(out))

    current, drawn, kernel = [], [], ModuleType("smoothcert.noise._cuda")
    kernel.sample = sample
    monkeypatch.setitem(sys.modules, kernel.__name__, kernel)
    monkeypatch.setattr(smoothcert.noise, "_cuda", kernel, raising=False)
    monkeypatch.setattr(counters, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", device)
    voter.device_type = "cuda"
    return drawn


def mechanism(noise=SplitNoise(1.0), bounds=(0, 1)):  # noqa: B008
    return NoiseMechanism(Box.from_bounds(bounds), noise, (6,))


def counted(voter, mechanism, segments=SEGMENTS):
    points = mechanism.points(X)
    keys = seeding.keys(0, seeding.digests(points), 0)
    found = [VoteCounter(one, mechanism, points, keys) for one in voter.for_threads()]
    for i, batch in enumerate(segments):
        found[i % len(found)].count_batch(np.array(batch))
    return total_counts(found)


def reference(voter, mechanism):
    """Votes that are counted one by one."""
    points = mechanism.points(X)
    keys, counts = seeding.keys(0, seeding.digests(points), 0), np.zeros((5, voter.n_classes), dtype=int)
    for owner, first, n in np.concatenate(SEGMENTS):
        for sample in range(first, first + n):
            row = np.empty((1, 6), dtype=voter.dtype)
            mechanism.sample(points, keys, np.array([[owner, sample, 1]]), row)
            counts[owner, voter(row)[0]] += 1
    return counts


@cache
def expected_counts(noise, bounds, dtype):
    return reference(TorchVoter(Tied().to(dtype), 3), mechanism(noise, bounds))


@pytest.mark.parametrize("device_type", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("bounds", [(0, 1), (-3, 5)])
@pytest.mark.parametrize("noise", [SplitNoise(1.0), UniformNoise(0.5), GaussianNoise(0.5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_those_of_rows_that_vote_alone(device_type, bounds, noise, dtype, monkeypatch):
    voter = TorchVoter(Tied().to(dtype), 3)
    expected = expected_counts(noise, bounds, dtype)
    assert (expected.sum(axis=1) == [130, 12, 91, 40, 60]).all()
    assert (expected.sum(axis=0) > 0).all()
    drawn = on_cuda(voter, monkeypatch) if device_type == "cuda" else []
    voter.device_type = device_type
    np.testing.assert_array_equal(counted(voter, mechanism(noise, bounds)), expected)
    # Only noise on a lattice has a kernel for CUDA devices.
    assert bool(drawn) == (device_type == "cuda" and not isinstance(noise, GaussianNoise))


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_votes_of_a_whole_task(device_type, monkeypatch):
    voter = TorchVoter(Tied(), 3)
    settings = {"mechanism": mechanism(), "seed": 3, "n_selection": 64, "n_samples": 500, "batch_size": 100}
    expected = Sampler(voter=voter, **settings).draw(X)
    other = TorchVoter(Tied(most=70), 3)
    if device_type == "cuda":
        on_cuda(other, monkeypatch)
    found = Sampler(voter=other, **settings).draw(X)
    np.testing.assert_array_equal(found.estimation, expected.estimation)
    np.testing.assert_array_equal(found.selection, expected.selection)
    assert (found.estimation.sum(axis=1) == 500).all()


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_a_batch_that_fails_is_not_counted(device_type, monkeypatch):
    voter = TorchVoter(Tied(most=50), 3)
    if device_type == "cuda":
        on_cuda(voter, monkeypatch)
    points = mechanism().points(X)
    counter = VoteCounter(voter, mechanism(), points, seeding.keys(0, seeding.digests(points), 0))
    for _ in range(4):
        counter.count_batch(np.array([[0, 0, 40]]))
        with pytest.raises(MemoryError, match="out of memory"):
            counter.count_batch(np.array([[1, 0, 60]]))
    assert counter.counts().sum(axis=1).tolist() == [160, 0, 0, 0, 0]


def test_batches_wait_for_accelerators(monkeypatch):
    voter = TorchVoter(Tied(), 3)
    on_cuda(voter, monkeypatch)
    points = mechanism().points(X)
    counter = VoteCounter(voter, mechanism(), points, seeding.keys(0, seeding.digests(points), 0))
    assert isinstance(counter.batches, CudaBatches)
    for i in range(6):
        counter.count_batch(np.array([[0, 10 * i, 10]]))
        assert len(counter.pending) == min(i + 1, 3)
    assert counter.counts().sum() == 60
    assert not counter.pending


def test_single_rows_of_a_batch():
    segments = np.array([[4, 10, 3], [0, 7, 1], [2, 0, 5]])
    found = single_rows(segments, np.array([0, 2, 3, 4, 8]))
    assert found.tolist() == [[4, 10, 1], [4, 12, 1], [0, 7, 1], [2, 0, 1], [2, 4, 1]]


class AllTied(Voter):
    """Nearly ties on every row, and settles no more than some of them together."""

    dtype, n_classes, most_together, most_changed = np.float32, 3, 20, None

    def __init__(self, most=10**9):
        self.most, self.settled = most, []

    def __call__(self, batch):
        return np.full(len(batch), -1)

    def settle(self, batch):
        self.settled.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("full")
        return np.full(len(batch), 2)

    def content(self):
        return "AllTied ?"


def counter_of(voter):
    points = mechanism().points(X)
    return VoteCounter(voter, mechanism(), points, seeding.keys(0, seeding.digests(points), 0))


def test_near_ties_are_settled_in_parts_that_fit():
    counter = counter_of(AllTied())
    counter.count_batch(np.array([[0, 0, 6], [3, 4, 4]]))
    counter.count_batch(np.array([[1, 0, 7]]))
    assert counter.counts().tolist() == [[0, 0, 6], [0, 0, 7], [0, 0, 0], [0, 0, 4], [0, 0, 0]]
    # A batch of 10 rows was the largest, so no more are settled together.
    assert counter.voter.settled == [10, 7]
    counter = counter_of(AllTied())
    for first in range(0, 500, 50):
        counter.count_batch(np.array([[2, first, 50]]))
        # Near ties of batches that are not pending are settled as they come.
        assert len(counter.near_ties) < 20 + 50
    assert counter.counts().tolist()[2] == [0, 0, 500]
    assert set(counter.voter.settled) == {20}


def test_fewer_near_ties_are_settled_where_memory_does_not_suffice():
    counter = counter_of(AllTied(most=6))
    counter.count_batch(np.array([[0, 0, 32]]))
    assert counter.counts()[0].tolist() == [0, 0, 32]
    assert counter.voter.settled == [20, 10, *[5] * 6, 2]
    counter = counter_of(AllTied(most=1))
    counter.count_batch(np.array([[0, 0, 2]]))
    assert (counter.counts()[0].tolist(), counter.voter.settled) == ([0, 0, 2], [2, 1, 1])
    counter = counter_of(AllTied(most=0))
    counter.count_batch(np.array([[0, 0, 3]]))
    with pytest.raises(MemoryError, match="full"):
        counter.counts()
    assert counter.voter.settled == [3, 1]


def test_votes_of_parts_are_not_added():
    voter = FunctionVoter(lambda rows: (3 * rows[:, 0]).astype(int).clip(0, 2), np.arange(3))
    counter = counter_of(voter)
    found = counter.count_apart(np.array([[0, 0, 9], [4, 5, 6]]), np.array([4, 5, 6]))
    assert found.sum(axis=1).tolist() == [4, 5, 6]
    assert not counter.counts().any()
    for segment, expected in zip([[0, 0, 4], [0, 4, 5], [4, 5, 6]], found, strict=True):
        one = counter_of(voter)
        one.count_batch(np.array([segment]))
        np.testing.assert_array_equal(one.counts()[segment[0]], expected)


def test_batches_have_the_type_of_the_voter_and_share_memory():
    voter = AllTied()
    batches = counter_of(voter).batches
    assert batches.draw(np.array([[0, 0, 5]])).dtype == np.float32
    large = batches.draw(np.array([[0, 0, 9], [1, 3, 2]])).copy()
    assert (len(batches.buffer), large.shape) == (11, (11, 6))
    again = batches.draw_rows(np.array([[0, 0, 9], [1, 3, 2]]), np.array([1, 10]))
    assert np.shares_memory(again, batches.buffer)
    np.testing.assert_array_equal(again, large[[1, 10]])


def test_a_check_that_finds_no_memory_is_left_to_later_batches():
    class Full(AllTied):
        most_changed = 0

        def __call__(self, batch):
            if len(batch) == 1:
                raise MemoryError
            return np.zeros(len(batch), dtype=int)

    counter = counter_of(Full())
    counter.count_batch(np.array([[0, 0, 30]]))
    assert counter.counts()[0].tolist() == [30, 0, 0]


def test_errors_of_memory():
    with pytest.raises(MemoryError, match=r"^out of it$"), memory_errors():
        raise torch.OutOfMemoryError("out of it")
    with pytest.raises(MemoryError, match=r"^MPS backend out of memory"), memory_errors():
        fail_as_torch(RuntimeError("MPS backend out of memory"))
    for message in ("else", "the user's cache is out of memory"):
        with pytest.raises(RuntimeError, match=f"^{message}$") as caught, memory_errors():
            raise RuntimeError(message)
        assert type(caught.value) is RuntimeError


def test_noise_at_costs_is_drawn_on_the_host(monkeypatch):
    monkeypatch.setattr(counters, "find_spec", lambda name: True)
    costs = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (6,), Features.from_costs([1, 2, 1, 1, 1, 1]))
    voter = TorchVoter(Tied(), 3)
    points = mechanism().points(X)
    keys = seeding.keys(0, seeding.digests(points), 0)
    assert type(noisy_batches(voter, mechanism(), points, keys)) is NoisyBatches
    voter.device_type = "cuda"
    assert type(noisy_batches(voter, mechanism(), points, keys)) is CudaBatches
    assert type(noisy_batches(voter, costs, costs.points(X), keys)) is NoisyBatches
    monkeypatch.setattr(counters, "find_spec", lambda name: None)
    assert type(noisy_batches(voter, mechanism(), points, keys)) is NoisyBatches
