"""A store and votes belong to the model that draws the same votes again; its classes and globals stay as they are."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from smoothcert import SmoothedClassifier, TorchInference, UniformNoise, VoteCounts, merge_stores
from smoothcert.models.sklearn import SklearnVoter
from smoothcert.models.torch import TorchVoter
from smoothcert.runs import model_check
from smoothcert.runs.model_check import Recorded, same_content, selection_votes, some_of
from smoothcert.runs.run import drawn_before
from smoothcert.runs.store import read_store

from ..processes import run_python

X, Y = load_iris(return_X_y=True)
X = ((X - X.min(axis=0)) / np.ptp(X, axis=0))[::5]
Y = Y[::5]
FAST = {"n_selection": 40, "n_samples": 60, "alpha": 0.1, "random_state": 0}


def smooth(model, **params):
    return SmoothedClassifier.from_pretrained(model, range(3), **FAST | params)


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()


class Holder(torch.nn.Module):
    """A network with a tensor that is a plain attribute."""

    def __init__(self):
        super().__init__()
        self.net, self.table = network(), torch.ones(3)

    def forward(self, rows):
        return self.net(rows) * self.table


def use_of(clf, votes, store, **kwargs):
    """Use votes and a store with another classifier."""
    return clf.certify(X, votes=votes, **kwargs).radii, clf.certify(X, store=store, **kwargs).radii


def closure(net):
    return lambda rows: net(torch.tensor(rows).float()).detach().numpy()


UNCHANGED = {
    "another instance": lambda: (network(), network()),
    "tensor attribute": lambda: (Holder(), Holder()),
    "scripted": lambda: (network(), torch.jit.trace(network(), torch.zeros(1, 4))),
    "deepcopy": lambda: (network(), copy.deepcopy(network())),
    "closure": lambda: tuple(
        (lambda net: lambda rows: net(torch.tensor(rows).float()).detach().numpy())(network()) for _ in "ab"
    ),
    "kd-tree": lambda: tuple(KNeighborsClassifier(algorithm="kd_tree").fit(X, Y) for _ in "ab"),
    "forest": lambda: tuple(RandomForestClassifier(3, random_state=0).fit(X, Y) for _ in "ab"),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_an_unchanged_model_is_known_again(kind, tmp_path):
    first, second = UNCHANGED[kind]()
    store = tmp_path / "run.sqlite"
    clf = smooth(first)
    votes, expected = clf.count_votes(X), clf.certify(X, store=store).radii
    for found in use_of(smooth(second), votes, store):
        np.testing.assert_array_equal(found, expected)


def flipped():
    net = network()
    with torch.no_grad():
        net[2].weight.neg_()
    return net


def with_table(value):
    module = Holder()
    module.table = torch.full((3,), value)
    return module


SCALE = np.ones(3)


def scaled(rows):
    return network()(torch.tensor(rows).float()).detach().numpy() * SCALE


CHANGED = {
    "weights": lambda: (network(), flipped()),
    "tensor attribute": lambda: (with_table(1.0), with_table(-1.0)),
    "other estimator": lambda: (GaussianLike(0), GaussianLike(1)),
    "other fit": lambda: tuple(LogisticRegression().fit(X[i::2], np.roll(Y, 11 * i)[i::2]) for i in (0, 1)),
}


class GaussianLike:
    """An estimator whose class attribute decides."""

    classes_ = np.arange(3)

    def __init__(self, shift):
        self.shift = shift

    def predict(self, rows):
        return (np.floor(rows[:, 0] * 3).astype(int) + self.shift) % 3


@pytest.mark.parametrize("kind", CHANGED)
def test_a_changed_model_is_refused(kind, tmp_path):
    first, second = CHANGED[kind]()
    store = tmp_path / "run.sqlite"
    votes = smooth(first).count_votes(X)
    smooth(first).certify(X, store=store)
    # Where the content is the same as well, the caller may vouch for the model.
    for same_model in (False,) if kind in ("tensor attribute", "other estimator") else (False, True):
        with pytest.raises(
            ValueError, match=r"votes were drawn with a different model: X\[\d+\] gets the selection votes"
        ):
            smooth(second).certify(X, votes=votes, same_model=same_model)
        with pytest.raises(ValueError, match=r"run.sqlite were drawn with a different model"):
            smooth(second).certify(X, store=store, same_model=same_model)


def test_a_module_level_array_that_changes_is_seen(monkeypatch):
    votes = smooth(scaled).count_votes(X)
    smooth(scaled).certify(X, votes=votes)
    monkeypatch.setitem(globals(), "SCALE", np.array([1.0, -3.0, 2.0]))
    with pytest.raises(ValueError, match="different model"):
        smooth(scaled).certify(X, votes=votes)


def test_content_that_differs_where_votes_agree_is_for_the_caller_to_judge():
    net, same = network(), network()
    votes = smooth(net).count_votes(X)
    with torch.no_grad():
        same[2].bias[0] += 1e-7
    with pytest.raises(ValueError, match=r"30 inputs get the same votes, but .* content is .* same_model=True"):
        smooth(same).certify(X, votes=votes)
    with pytest.warns(UserWarning, match="content is .* They are used, since same_model=True"):
        found = smooth(same).certify(X, votes=votes, same_model=True)
    np.testing.assert_array_equal(found.radii, smooth(net).certify(X, votes=votes).radii)


def test_equal_content_with_other_votes_names_the_reason():
    clf = smooth(network())
    votes = clf.count_votes(X)
    wrong = votes.selection.copy()
    wrong[0] = np.roll(wrong[0], 1)
    object.__setattr__(votes, "selection", wrong)
    other = smooth(network())
    with pytest.raises(ValueError, match="Its content is the same, but precision, library versions or hardware may"):
        other.certify(X, votes=votes)
    with pytest.warns(UserWarning, match="They are used"):
        other.certify(X, votes=votes, same_model=True)


def test_the_way_a_module_is_run_is_part_of_its_content():
    votes = smooth(network()).count_votes(X)
    assert "TorchInference" not in votes.origin.model
    with pytest.raises(ValueError, match="different model"):
        smooth(network(), inference=TorchInference(channels_last=True)).certify(X, votes=votes)


def test_votes_are_replayed_once_where_content_decides(monkeypatch):
    model = LogisticRegression().fit(X, Y)
    votes, clf = smooth(model).count_votes(X), smooth(model)
    clf.certify(X, votes=votes)
    monkeypatch.setattr(SklearnVoter, "__call__", None)
    clf.set_params(radius="lipschitz").certify(X, votes=votes)
    model.coef_[0, 0] += 1e-9
    with pytest.raises(TypeError, match="not callable"):
        clf.certify(X, votes=votes)


@pytest.mark.parametrize("model", [KNeighborsClassifier(3), MLPClassifier((4,), max_iter=5, random_state=0)])
def test_votes_of_models_whose_content_is_unknown_are_replayed_each_time(model):
    model.fit(X, Y)
    clf = smooth(model)
    votes = clf.count_votes(X)
    clf.certify(X, votes=votes)
    model.fit(X, (Y + 1) % 3)
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        clf.certify(X, votes=votes)


class Threshold:
    def __init__(self, at):
        self.at = at

    def __call__(self, rows):
        return (rows[:, 0] > self.at).astype(int)


def test_a_function_that_changes_in_place_is_noticed():
    model = Threshold(0.5)
    clf = smooth(model)
    votes = clf.count_votes(X)
    clf.certify(X, votes=votes)
    model.at = 0.3
    with pytest.raises(ValueError, match="different model"):
        clf.certify(X, votes=votes)


def test_the_least_unanimous_inputs_are_replayed():
    """A model that differs only where votes are close is noticed, though most inputs are clear."""
    rows = np.zeros((3000, 4))
    rows[1234, 0] = 0.5
    first, second = (Threshold(0.9 - shift) for shift in (0.0, 0.2))
    votes = smooth(first, n_samples=60, noise=UniformNoise(0.5)).count_votes(rows)
    assert (votes.selection.max(axis=1) < votes.selection.sum(axis=1)).sum() == 1
    recorded = Recorded.some(np.arange(3000), drawn_before(votes), "model ?")
    assert 1234 in recorded.positions
    assert len(recorded.positions) == pytest.approx(2048 / 16, abs=6)
    with pytest.raises(ValueError, match=r"X\[1234\] gets the selection votes"):
        smooth(second, n_samples=60, noise=UniformNoise(0.5)).certify(rows, votes=votes)


def test_unanimous_votes_of_another_model_are_noticed(tmp_path):
    """They come from another shard, or were put behind the right ones."""
    rows = np.random.default_rng(0).random((100, 4))
    clf, constant = (smooth(Threshold(at)) for at in (0.5, 9.0))
    votes = VoteCounts.concatenate([clf.count_votes(rows[:50]), constant.count_votes(rows[50:])])
    with pytest.raises(ValueError, match="drawn with a different model"):
        clf.certify(rows, votes=votes)
    parts = [tmp_path / "1.sqlite", tmp_path / "2.sqlite"]
    for i, (model, part) in enumerate(zip((network(), other_activation()), parts, strict=True), start=1):
        smooth(model).certify(rows, store=part, shard=(i, 2))
    merge_stores(tmp_path / "whole.sqlite", parts)
    for model in (network(), other_activation()):
        with pytest.raises(ValueError, match="drawn with a different model"):
            smooth(model).certify(rows, store=tmp_path / "whole.sqlite")


def other_activation():
    """A network with the same parameters."""
    first, _, last = network()
    return torch.nn.Sequential(first, torch.nn.Tanh(), last)


def test_a_store_without_finished_inputs_belongs_to_the_model_that_began_it(tmp_path):
    store, models = tmp_path / "run.sqlite", [LogisticRegression(C=c).fit(X, Y) for c in (1.0, 0.1)]

    class Interrupted:
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            if store.exists():
                raise KeyboardInterrupt
            return X[i]

    with pytest.raises(KeyboardInterrupt):
        smooth(models[0]).certify(Interrupted(), store=store)
    assert len(read_store(store)) == 0
    with pytest.raises(ValueError, match="was begun with a different model"):
        smooth(models[1]).certify(X, store=store)
    smooth(models[0]).certify(X, store=store)


def test_a_network_is_copied_once_for_the_check_that_it_repeats_itself(tmp_path, monkeypatch):
    made, make = [], TorchVoter._make_precise
    monkeypatch.setattr(TorchVoter, "_make_precise", lambda self: made.append(self) or make(self))
    smooth(network(), inference=TorchInference(autocast="bfloat16")).certify(X, store=tmp_path / "run.sqlite")
    # Once more for the run, and each time for the float64 copy, if near ties need it.
    assert len(made) <= 4


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("random", "depends on the batch"),
        ("batch", "depends on the batch"),
        ("time", "does not repeat itself: the same"),
    ],
)
def test_a_store_is_refused_before_it_is_made_where_the_model_does_not_repeat_itself(kind, message, tmp_path):
    rng, calls = np.random.default_rng(0), []

    def model(rows):
        calls.append(len(rows))
        shifts = {"random": rng.integers(3, size=len(rows)), "batch": len(rows), "time": len(calls) > 40}
        shift = shifts[kind]
        return (np.floor(rows[:, 0] * 3).clip(0, 2).astype(int) + shift) % 3

    with pytest.raises(ValueError, match=f"The base model model {message}"):
        smooth(model).certify(X, store=tmp_path / "run.sqlite")
    assert not list(tmp_path.iterdir())


SCRIPT = """
import numpy as np
from smoothcert import SmoothedClassifier

OFFSET = 0


class Rule:
    classes_ = np.array([0, 1])

    def predict(self, X):
        return (X[:, 0] + OFFSET > 0.5).astype(int)


rule = Rule()
clf = SmoothedClassifier.from_pretrained(rule, [0, 1], n_selection=20, n_samples=50, alpha=0.1, random_state=0)
votes = clf.count_votes(np.full((1, 2), 0.2))
OFFSET = 5
assert rule.predict(np.zeros((1, 2))) == [1], "the method no longer sees its module's globals"
print(clf.certify(np.full((1, 2), 0.2)).labels)
"""


def test_classes_of_the_main_script_stay_as_they_are():
    assert run_python(SCRIPT) == "[1]\n"


def test_contents_are_compared_as_far_as_they_are_known():
    assert same_content("Net abc", "Other abc")
    assert same_content("f ?", "f abc")
    assert not same_content("Net abc", "Net abd")
    assert not same_content("Net abc", "Net abc TorchInference(compile=True)")
    assert not same_content("f ?", "f ? TorchInference(compile=True)")


def test_some_positions_are_evenly_spread():
    assert some_of(np.arange(10, 20), 3).tolist() == [10, 14, 19]
    assert some_of(np.array([3, 5, 8]), 3).tolist() == some_of(np.array([3, 5, 8]), 9).tolist() == [3, 5, 8]
    assert some_of(np.array([], dtype=int), 4).tolist() == []


def test_as_many_selection_votes_are_drawn_again_as_were_drawn():
    """Inputs differ in the number of their votes, and in their order."""
    sampler = smooth(network()).algorithm((4,)).sampler(7)
    n = np.array([40, 16, 40, 23, 16])
    found = selection_votes(sampler, X[:5], n)
    assert found.sum(axis=1).tolist() == n.tolist()
    for i in range(5):
        np.testing.assert_array_equal(selection_votes(sampler, X[i : i + 1], n[i : i + 1])[0], found[i])
    assert len(np.unique(found, axis=0)) > 3
    # Drawing does not stop where votes are unanimous.
    sure = smooth(Threshold(-9.0)).algorithm((4,)).sampler(7)
    assert selection_votes(sure, X[:2], np.array([40, 17])).tolist() == [[0, 40, 0], [0, 17, 0]]


def test_what_is_replayed_is_limited(monkeypatch):
    votes = drawn_before(smooth(network()).count_votes(X))
    order = np.argsort(votes.unanimity, kind="stable")
    for most, replayed, n in ((6, 10**6, 3), (200, 1, 1), (200, 10**6, len(X))):
        monkeypatch.setattr(model_check, "MOST_INPUTS", most)
        monkeypatch.setattr(model_check, "REPLAYED", replayed)
        recorded = Recorded.some(np.arange(len(X)) + 5, votes, "content")
        assert set(order[:n] + 5) <= set(recorded.positions)
        assert len(recorded.positions) <= min(2 * n, len(X))
        np.testing.assert_array_equal(recorded.selection, votes.selection[recorded.positions - 5])
