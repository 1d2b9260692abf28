"""A model whose vote on a row depends on the rest of the batch is caught as it runs."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise, TorchInference, UniformNoise
from smoothcert.models.base import Voter
from smoothcert.sampling.batch_dependence import FEW, MANY, check_alone, check_numbers_alone, is_due, telling_rows
from smoothcert.training.torch_layers import NoisyModule

RNG = np.random.default_rng(0)
X = RNG.random((12, 4))
Y = (X[:, 0] > 0.5).astype(int)


def smooth(base, classes=(0, 1), noise=UniformNoise(0.5), **params):  # noqa: B008
    params = {"n_samples": 300, "random_state": 0} | params
    return SmoothedClassifier.from_pretrained(base, list(classes), noise, **params)


class Net(nn.Module):
    """A linear network whose logits, or inputs, go through a function."""

    def __init__(self, function=lambda z: z, before=lambda x: x, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.function = before, function
        self.linear = nn.Linear(width, 2)

    def forward(self, rows):
        return self.function(self.linear(self.before(rows - 0.5)))


class Ranks(ClassifierMixin, BaseEstimator):
    """Answers with the upper half of a batch."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return (X[:, 0].argsort().argsort() >= len(X) / 2).astype(int)


class Centered(Ranks):
    def predict(self, X):
        return (X[:, 0] > X[:, 0].mean()).astype(int)


class InTraining(nn.BatchNorm1d):
    """Has the statistics of the batch, whatever is asked of it."""

    def forward(self, rows):
        return nn.functional.batch_norm(rows, torch.full((4,), 0.2), torch.ones(4), training=len(rows) > 1)


def standardized(rows):
    return ((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)).sum(axis=1) > 0.1


def grouped(rows):
    """Sees pairs of rows."""
    return rows[:, 0] + np.roll(rows, 1, axis=0)[:, 0] > 1


DEPENDENT = {
    "softmax over the batch": lambda: Net(lambda z: (5 * z).softmax(dim=0)),
    "centered by the batch": lambda: Net(before=lambda x: x - x.mean(dim=0)),
    "a little of the batch": lambda: Net(before=lambda x: x - 0.3 * x.mean(dim=0) + 0.1),
    "batch norm": lambda: nn.Sequential(InTraining(4), Net()),
    "random": lambda: Net(before=lambda x: nn.functional.dropout(x, training=True)),
    "function": lambda: standardized,
    "scores": lambda: lambda rows: rows[:, :2] - rows[:, :2].mean(axis=0),
    "neighbors": lambda: grouped,
    "ranks": lambda: Ranks().fit(X, Y),
    "mean": lambda: Centered().fit(X, Y),
    "a function in a pipeline": lambda: make_pipeline(
        FunctionTransformer(lambda rows: rows - rows.mean(axis=0)), KNeighborsClassifier(3)
    ).fit(X, Y),
}


@pytest.mark.parametrize("call", ["certify", "predict"])
@pytest.mark.parametrize("name", DEPENDENT)
def test_a_model_that_depends_on_its_batch_certifies_nothing(name, call):
    base = DEPENDENT[name]()
    with pytest.raises(
        ValueError, match=r"The base model \S+ depends on the batch or is random: .*Nothing was certified"
    ):
        getattr(smooth(base), call)(X)


@pytest.mark.parametrize("name", ["softmax over the batch", "function", "ranks"])
def test_every_way_to_run_a_model_finds_it(name):
    base, timeout = DEPENDENT[name](), None if name.startswith("softmax") else 60
    with pytest.raises(ValueError, match="depends on the batch"):
        smooth(base, timeout=timeout).certify_at(X, 0.1)
    # An error ends all worker processes, so that each model in processes costs the start of new ones.
    backend = "loky" if name == "ranks" else "threading"
    with joblib.parallel_config(backend=backend), pytest.raises(ValueError, match="depends on the batch"):
        smooth(base, n_jobs=2, timeout=timeout).count_votes(X)
    with pytest.raises(ValueError, match="depends on the batch"):
        smooth(base, noise=SplitNoise(0.6), batch_size=24).certify(X[:1])
    # Each row by itself is a function of the row, though perhaps no useful one.
    smooth(base, batch_size=1, n_samples=60, alpha=0.1).certify(X[:2])


def test_dependence_that_sets_in_later_is_found():
    """As of a model that keeps statistics, and uses them after a while."""

    class Late(Ranks):
        def predict(self, X):
            self.n_calls = getattr(self, "n_calls", 0) + 1
            return super().predict(X) if self.n_calls > 30 else (X[:, 0] > 0.5).astype(int)

    with pytest.raises(ValueError, match="depends on the batch"):
        smooth(Late().fit(X, Y), batch_size=64, n_samples=2000).certify(X)


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (lambda: Net(lambda z: z.squeeze()), "must return one logit per class"),
        (lambda: Net(before=lambda x: nn.functional.batch_norm(x, None, None, training=True)), "1 value"),
        (lambda: lambda rows: np.zeros(max(len(rows), 2)), "one label per row"),
    ],
)
def test_a_model_that_fails_on_a_row_alone(base, reason):
    with pytest.raises(ValueError, match=f"fails on a row alone: .*{reason}.*Nothing was certified") as caught:
        smooth(base(), batch_size=30).certify(X)
    assert "certified. Nothing" not in str(caught.value)


# Ordinary models


class RareTies(Ranks):
    """A tie for one row in a hundred, which rounding decides otherwise in batches."""

    def predict(self, X):
        votes = (X[:, 0] > 0.5).astype(int)
        tie = np.floor(1e6 * X[:, 1]) % 100 == 7
        return np.where(tie, len(X) > 1, votes)


def quiet(layer):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), layer, nn.ReLU(), nn.Linear(16, 2))
    for _ in range(20):
        module.train()(torch.rand(64, 4))
    return module


ORDINARY = {
    "dropout": lambda: quiet(nn.Dropout(0.5)),
    "batch norm with statistics": lambda: quiet(nn.BatchNorm1d(16)),
    "layer norm": lambda: quiet(nn.LayerNorm(16)),
    "tiny logits": lambda: Net(lambda z: 1e-7 * z),
    "rounded logits": lambda: Net(lambda z: (4 * z).round()),
    "constant": lambda: Net(lambda z: 0 * z),
    "large logits": lambda: Net(lambda z: 1e4 + z),
    "half": lambda: quiet(nn.Identity()).half(),
    "bfloat16": lambda: quiet(nn.Identity()).bfloat16(),
    "float64": lambda: quiet(nn.Identity()).double(),
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X, Y),
    "neighbors on a lattice": lambda: KNeighborsClassifier(2).fit(X.round(1), Y),
    "scores": lambda: lambda rows: rows[:, :2],
    "rare ties": lambda: RareTies().fit(X, Y),
}


@pytest.mark.parametrize("noise", [UniformNoise(0.5), SplitNoise(1.0)], ids=str)
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_are_left_alone(name, noise):
    # Where all votes are near ties, each is settled by itself.
    n_samples = 400 if name in ("constant", "rounded logits", "large logits") else 2000
    certificates = smooth(ORDINARY[name](), noise=noise, n_samples=n_samples).certify(X)
    assert len(certificates.labels) == 12


def test_coarse_precision_may_change_a_few_votes():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    clf = smooth(module, range(10), inference=TorchInference(autocast="bfloat16"))
    assert clf.certify(X).labels.shape == (12,)
    with pytest.raises(ValueError, match="depends on the batch"):
        smooth(DEPENDENT["softmax over the batch"](), inference=TorchInference(autocast="bfloat16")).certify(X)


def test_few_rows_are_asked_alone():
    alone, n_rows = [0], [0]

    def count(rows):
        alone[0] += len(rows) == 1
        n_rows[0] += len(rows)
        return rows[:, 0] > 0.5

    smooth(count, [False, True], batch_size=128, n_samples=2000).count_votes(X)
    n_batches = n_rows[0] // 128
    assert FEW <= alone[0] <= FEW * (1 + np.log2(n_batches))


@pytest.mark.parametrize("base", [lambda: lambda rows: rows[:, 0] > 0.5, Net])
def test_batches_of_a_few_rows_are_checked_too(base):
    votes = [smooth(base(), batch_size=size, n_samples=60, alpha=0.1).count_votes(X[:2]).estimation for size in (3, 60)]
    np.testing.assert_array_equal(*votes)


# The rule


class Fixed(Voter):
    """Settles rows, which are their numbers, to given votes."""

    def __init__(self, alone, most_changed):
        self.alone, self.most_changed = alone, most_changed

    def __call__(self, batch):
        return self.alone[batch]

    def content(self):
        return "Fixed ?"


@pytest.mark.parametrize(("most", "changed", "raises"), [(0, 0, False), (0, 1, True), (1, 1, False), (1, 2, True)])
def test_changed_votes_are_counted(most, changed, raises):
    votes = np.arange(60) % 3
    alone, rows = votes.copy(), telling_rows(votes)
    alone[rows[:changed]] += 1
    voter = Fixed(alone, most)
    if raises:
        with pytest.raises(ValueError, match=f"{changed} of {MANY} noisy rows"):
            check_alone(voter, votes, lambda rows: rows)
    else:
        check_alone(voter, votes, lambda rows: rows)


def test_batches_are_checked_ever_more_rarely():
    voter = Fixed(None, 1)
    assert [i for i in range(1, 100) if is_due(voter)] == [1, 2, 4, 8, 16, 32, 64]
    assert not any(is_due(Fixed(None, None)) for _ in range(3))


def test_telling_rows_hold_rare_votes_and_no_near_ties():
    votes = np.zeros(1000, dtype=int)
    votes[778], votes[::7] = 2, -1
    rows = telling_rows(votes)
    assert 778 in rows[:FEW]
    assert len(rows) == len(set(rows)) == MANY
    assert (votes[rows] >= 0).all()
    assert max(rows[:FEW]) - min(rows[:FEW]) > 500
    assert telling_rows(np.full(9, -1)).tolist() == []
    assert sorted(telling_rows(np.array([0, 1, -1]))) == [0, 1]


def test_rows_are_first_votes_and_then_evenly_spread():
    even = list(range(0, 80, 10))
    assert telling_rows(np.zeros(80, dtype=int)).tolist()[:FEW] == even
    assert sorted(telling_rows(np.zeros(80, dtype=int))) == list(range(0, 80, 2))
    # No more than half of the few rows are the first of their votes.
    assert telling_rows(np.arange(80) % 6).tolist()[:FEW] == [0, 1, 2, 3, *even[1:5]]
    assert telling_rows(np.array([-1, 3, -1, 0, 3])).tolist() == [3, 1, 4]


class Asked(Fixed):
    """Remembers which rows are drawn, and which are settled."""

    def __init__(self, alone, most_changed=0):
        super().__init__(alone, most_changed)
        self.drawn, self.settled = [], []

    def draw(self, rows):
        self.drawn.append(rows.tolist())
        return rows

    def settle(self, rows):
        self.settled.append(rows.tolist())
        return self.alone[rows]


@pytest.mark.parametrize("changed", [0, 1])
def test_more_rows_are_asked_once_a_vote_has_changed(changed):
    votes = np.zeros(80, dtype=int)
    rows = telling_rows(votes).tolist()
    alone = votes.copy()
    alone[rows[FEW - 1]] += changed
    voter = Asked(alone, most_changed=1)
    check_alone(voter, votes, voter.draw)
    assert voter.drawn == [rows[:FEW]] + [rows[FEW:]] * changed


def test_single_rows_and_independent_ones_are_not_asked():
    for votes, most in ((np.array([0]), 0), (np.array([0, 0]), None)):
        voter = Asked(votes + 1, most)
        check_alone(voter, votes, voter.draw)
        assert voter.drawn == []
    with pytest.raises(ValueError, match=r"base model Fixed depends on the batch or is random: 2 of 2 noisy rows got"):
        check_alone(Asked(np.array([1, 1])), np.array([0, 0]), lambda rows: rows)


@pytest.mark.parametrize("n_clear", [0, FEW - 1, FEW])
def test_near_ties_are_settled_together_where_few_rows_are_clear(n_clear):
    votes = np.full(100, -1)
    votes[50 : 50 + n_clear] = 1
    given = votes.copy()
    voter = Asked(np.ones(100, dtype=int))
    check_alone(voter, votes, voter.draw)
    tied = [row for row in range(100) if votes[row] < 0][:MANY]
    assert voter.settled == ([tied] if n_clear < FEW else [])
    asked = set(voter.drawn[-1])
    assert len(asked) == FEW
    assert asked <= ({*tied, *range(50, 50 + n_clear)} if n_clear < FEW else set(range(50, 50 + FEW)))
    np.testing.assert_array_equal(votes, given)


@pytest.mark.parametrize(
    ("row", "change", "coarse_step", "raises"),
    [
        (0, 0.9e-4, 0.0, False),
        (0, 1.1e-4, 0.0, True),
        (1, 0.9e-2, 0.0, False),
        (1, 1.1e-2, 0.0, True),
        (0, 0.9 / 32, 2**-8, False),
        (0, 1.1 / 32, 2**-8, True),
        (0, 0.9e-4, 2**-20, False),
        (0, 1.1e-4, 2**-20, True),
    ],
)
def test_numbers_may_change_by_a_share_of_their_scale(row, change, coarse_step, raises):
    """A ten-thousandth, or 8 steps of reduced precision; each number has its own scale."""
    answers, scale = np.zeros((3, 2)), np.array([[1.0], [100.0], [1.0]])
    alone = answers.copy()
    alone[row, 1] -= change
    voter = Asked(None, most_changed=0)
    voter.coarse_step = coarse_step
    if raises:
        with pytest.raises(ValueError, match=r"depends on the batch or is random: 1 of 3 noisy rows"):
            check_numbers_alone(voter, lambda rows: alone[rows], answers, voter.draw, scale)
    else:
        check_numbers_alone(voter, lambda rows: alone[rows], answers, voter.draw, scale)
    assert sorted(voter.drawn[0]) == [0, 1, 2]


# Training mode


class Pinned(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(True)


class Waking(nn.Module):
    """Puts a part back in training mode, the first time that it is asked."""

    def __init__(self):
        super().__init__()
        self.part, self.net = nn.Dropout(0.1), Net()

    def forward(self, rows):
        return self.net(self.part.train()(rows))


class PinnedWhole(Net):
    def train(self, mode=True):
        return super().train(True)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: nn.Sequential(Pinned(4), Net()), "Sequential, in its part '0',"),
        (lambda: nn.Sequential(Net(), nn.Sequential(nn.ReLU(), Pinned(2))), r"Sequential, in its part '1\.1',"),
        (Waking, "Waking, in its part 'part',"),
        (PinnedWhole, "PinnedWhole"),
    ],
)
def test_parts_that_stay_in_training_mode_are_named(make, where):
    module = make()
    modes = [part.training for part in module.modules()]
    with pytest.raises(ValueError, match=rf"The base model {where} is in training mode after eval.*Nothing was cert"):
        smooth(module).certify(X)
    assert [part.training for part in module.modules()] == modes


def test_noise_of_a_module_that_is_left_on_is_refused():
    module = NoisyModule(Net(), UniformNoise(0.5))
    clf = smooth(module, noise=None)
    clf.certify(X)
    module.noisy_evaluation = True
    with pytest.raises(ValueError, match=r"adds noise in evaluation mode too.* Set its attribute noisy_evaluation"):
        clf.certify(X)
    with pytest.raises(ValueError, match="in its part '0', adds noise"):
        smooth(nn.Sequential(module)).predict(X)
