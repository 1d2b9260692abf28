import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event, Lock, Thread, current_thread

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.models import threads as voting_threads
from smoothcert.models.threads import side_by_side
from smoothcert.models.torch import TorchVoter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.sampler import Sampler

X = np.random.default_rng(0).random((5, 6))


@pytest.fixture
def threads():
    """Set how many threads torch uses, and put back what was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Notes(torch.nn.Module):
    """A network that writes down its input, and reads it after a while: another thread must not write in between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(6, 3)

    def forward(self, rows):
        self.notes = rows.clone()
        time.sleep(1e-3)
        return self.linear(self.notes)


class Scratch(Notes):
    """A network whose notes are in a buffer, in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scratch", torch.zeros(256, 6))

    def forward(self, rows):
        mine = self.scratch[: len(rows)]
        mine.copy_(rows)
        time.sleep(1e-3)
        return self.linear(mine)


def votes(module, **parameters):
    settings = {"n_selection": 50, "n_samples": 700, "random_state": 0, "batch_size": 32} | parameters
    return SmoothedClassifier.from_pretrained(module, range(3), SplitNoise(1.0), **settings).count_votes(X)


@pytest.mark.parametrize("network", [Notes, Scratch])
def test_votes_do_not_depend_on_threads(threads, network):
    counts = []
    for n in (1, 2, 3):
        threads(n)
        counts.append(votes(network()).estimation)
    assert len(np.unique(counts[0])) > 3
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])


def test_copies_share_parameters_and_nothing_else(threads):
    threads(3)
    first = TorchVoter(Notes(), 3)
    voters = first.for_threads()
    assert voters[0] is first
    assert len({id(voter.module) for voter in voters}) == 3
    for voter in voters:
        assert voter.module.linear.weight is first.module.linear.weight
    assert first.for_threads() is voters


def test_some_models_vote_alone(threads):
    """Those with hooks, which may share what they know; those that cannot be copied; and under autocast."""
    threads(2)
    hooked, stuck = Notes(), Notes()
    hooked.linear.register_forward_hook(lambda *_: None)
    stuck.lock = Lock()
    for module in (hooked, stuck):
        assert len(TorchVoter(module, 3).for_threads()) == 1
    with torch.autocast("cpu"):
        assert len(TorchVoter(Notes(), 3).for_threads()) == 1


def test_the_caller_keeps_its_threads(threads):
    threads(2)
    votes(Notes())
    assert torch.get_num_threads() == 2
    seen = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_threads_have_one_core_each(threads):
    threads(2)
    assert side_by_side(lambda _: torch.get_num_threads(), [0, 1], 2, 2) == [1, 1]


def test_a_few_rows_are_voted_on_in_the_threads(threads):
    """Threads that OpenMP starts for the caller spin after their work, on cores that the voting threads then lack."""
    threads(2)
    seen = set()

    class Named(Notes):
        def forward(self, rows):
            seen.add(current_thread().name.rsplit("_", 1)[0])
            return super().forward(rows)

    votes(Named(), n_selection=1, n_samples=100)
    assert seen == {"smoothcert-votes"}


def test_voting_may_be_nested(threads):
    """A voting thread that waited for others of the same pool would wait forever."""
    threads(2)
    inner = LogisticRegression().fit(X, np.arange(5) % 3)
    smoothed = SmoothedClassifier.from_pretrained(inner, range(3), SplitNoise(1.0), n_selection=9, random_state=0)

    class Nested(torch.nn.Module):
        def forward(self, rows):
            return torch.from_numpy(smoothed.predict_proba(rows.clamp(0, 1).numpy()))

    assert votes(Nested(), n_selection=4, n_samples=20).estimation.sum() == 100


def test_logits_may_have_gradients():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([0.0, 2.0, 1.0]))

        def forward(self, rows):
            return self.bias.expand(len(rows), -1)

    assert (votes(Constant()).estimation[:, 1] == 700).all()


def test_an_error_ends_the_work(threads):
    """Of one batch in a hundred; the other thread stops too."""
    threads(2)
    calls = []

    class Failing(Notes):
        def forward(self, rows):
            calls.append(len(rows))
            if len(calls) >= 5:
                raise RuntimeError("broken")
            return super().forward(rows)

    with pytest.raises(RuntimeError, match=r"The base model Failing failed on a batch of shape \(\d+, 6\): broken\n"):
        votes(Failing(), n_samples=7000)
    assert len(calls) < 10


@pytest.mark.parametrize("n_threads", [1, 2])
def test_tasks_in_threads_share_a_module(threads, n_threads):
    """joblib's threads share one module, which keeps notes."""
    expected = votes(Notes()).estimation
    threads(n_threads)
    with joblib.parallel_backend("threading", n_jobs=2):
        found = votes(Notes(), n_jobs=2, batch_size=64).estimation
    np.testing.assert_array_equal(found, expected)


def test_runs_in_threads_share_a_module(threads):
    """A server may answer several requests with one classifier."""
    threads(2)
    module = Notes()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: votes(module).estimation, range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, votes(Notes()).estimation)


def test_the_last_run_puts_the_mode_back():
    module = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Dropout()).train()
    module[0].eval()
    with ExitStack() as outer:
        outer.enter_context(TorchVoter(module, 3).ready())
        with TorchVoter(module, 3).ready():
            outer.close()
            assert not module[1].training
    assert module.training
    assert module[1].training
    assert not module[0].training


def test_a_forward_of_the_instance_votes_alone(threads):
    """It may be a closure over the original, which copies would then share."""
    threads(2)
    module = Notes()
    plain = module.forward
    module.forward = lambda rows: plain(rows)
    assert len(TorchVoter(module, 3).for_threads()) == 1


def test_an_interrupt_waits_for_the_threads(threads, monkeypatch):
    threads(2)
    calls, waits = [], []

    class Counting(Notes):
        def forward(self, rows):
            calls.append(len(rows))
            return super().forward(rows)

    def interrupted(futures):
        waits.append(len(futures))
        if len(waits) == 1:
            raise KeyboardInterrupt
        return wait(futures)

    monkeypatch.setattr(voting_threads, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        votes(Counting(), n_selection=20_000)
    seen = len(calls)
    assert waits == [2, 2]
    assert seen < 50
    time.sleep(0.05)
    assert len(calls) == seen


def test_a_task_that_outlives_its_run_votes_in_evaluation_mode():
    """As threads of joblib do where another task has failed; statistics of a model in training mode would change."""
    seen, started, ended = [], Event(), Event()

    class Slow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)

        def forward(self, rows):
            started.set()
            assert ended.wait(10)
            seen.append(self.norm.training)
            return self.linear(self.norm(rows))

    module = Slow().train()
    before = module.norm.running_mean.clone()
    voter = TorchVoter(module, 3)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (6,))
    sampler = Sampler(voter=voter, mechanism=mechanism, seed=0, n_selection=100, n_samples=0)
    thread = Thread(target=sampler.draw, args=(X,))
    with voter.ready():
        thread.start()
        assert started.wait(10)
    ended.set()
    thread.join()
    assert seen
    assert not any(seen)
    assert torch.equal(module.norm.running_mean, before)
    assert module.norm.training
