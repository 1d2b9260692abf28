import time
from threading import Lock, Thread

import numpy as np
import pytest
import torch

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.voters import TorchVoter
from smoothcert.workers import side_by_side

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


def votes(module, **parameters):
    settings = {"n_selection": 50, "n_samples": 700, "random_state": 0, "batch_size": 32} | parameters
    return SmoothedClassifier.from_pretrained(module, range(3), SplitNoise(1.0), **settings).count_votes(X)


def test_votes_do_not_depend_on_threads(threads):
    counts = []
    for n in (1, 2, 3):
        threads(n)
        counts.append(votes(Notes()).estimation)
    assert len(np.unique(counts[0])) > 3
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])


def test_members_share_tensors_and_nothing_else(threads):
    threads(3)
    voter = TorchVoter(Notes(), 3)
    members = voter.team()
    assert members[0] is voter
    assert len({id(member.module) for member in members}) == 3
    for member in members:
        assert member.module.linear.weight is voter.module.linear.weight
    assert voter.team() is members


def test_some_models_vote_alone(threads):
    """Those with hooks, which may share what they know; those that cannot be copied; and under autocast."""
    threads(2)
    hooked, stuck = Notes(), Notes()
    hooked.linear.register_forward_hook(lambda *_: None)
    stuck.lock = Lock()
    for module in (hooked, stuck):
        assert len(TorchVoter(module, 3).team()) == 1
    with torch.autocast("cpu"):
        assert len(TorchVoter(Notes(), 3).team()) == 1


def test_the_caller_keeps_its_threads(threads):
    threads(2)
    votes(Notes())
    assert torch.get_num_threads() == 2
    seen = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_workers_have_one_core_each(threads):
    threads(2)
    assert side_by_side(lambda _: torch.get_num_threads(), [0, 1]) == [1, 1]


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

    with pytest.raises(ValueError, match=r"failed on a batch of shape .*broken"):
        votes(Failing(), n_samples=7000)
    assert len(calls) < 10
