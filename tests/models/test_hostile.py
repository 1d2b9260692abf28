"""Hostile conditions: base models that misbehave, unusual arrays, and numbers of votes that exceed the memory."""

import tracemalloc
from threading import Event

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from smoothcert import DeterministicSplitNoise, SmoothedClassifier, SplitNoise, UniformNoise
from smoothcert.certify.betting import anytime_lower_bound, checkpoints
from smoothcert.certify.binomial import (
    check_statistics,
    clopper_pearson,
    hoeffding,
    randomized_clopper_pearson,
    upper_bound,
)

from ..base_models import Rule, constant, steps

X = np.random.default_rng(0).integers(256, size=(6, 4)) / 255


def smooth(function, classes=(0, 1), **params):
    base = Rule(function, classes).fit(None, None)
    params = {"noise": SplitNoise(1.0), "n_samples": 200, "n_selection": 50, "random_state": 0} | params
    return SmoothedClassifier.from_pretrained(base, classes, **params)


def raises(rows):
    raise KeyError("a bug in the model")


@pytest.mark.parametrize(
    ("call", "n_jobs"), [("certify", None), ("predict", None), ("count_votes", None), ("certify", 2)]
)
def test_errors_of_a_model_are_raised(call, n_jobs):
    with pytest.raises(KeyError, match="a bug in the model"):
        getattr(smooth(raises, n_jobs=n_jobs), call)(X)


def test_a_model_that_hangs_ends_with_a_timeout():
    released = Event()
    clf = smooth(lambda rows: released.wait(60), timeout=0.2)
    for call in (clf.certify, clf.predict, clf.count_votes):
        with pytest.raises(TimeoutError, match=r"Rule did not answer \d+ rows within timeout=0.2 seconds"):
            call(X)
    released.set()


def test_an_abandoned_call_keeps_its_batch():
    seen = []
    clf = smooth(lambda rows: seen.append(rows) or np.zeros(len(rows), dtype=int), timeout=60)
    voter, batch = clf.algorithm((4,)).voter, np.zeros((3, 4))
    voter(batch)
    batch += 1
    assert (seen[0] == 0).all()


def test_a_timeout_does_not_change_results(tmp_path):
    plain, timed = smooth(steps([0.5])), smooth(steps([0.5]), timeout=60)
    np.testing.assert_array_equal(plain.certify(X).radii, timed.certify(X).radii)
    votes = plain.count_votes(X)
    np.testing.assert_array_equal(timed.certify(X, votes=votes).radii, plain.certify(X).radii)
    with pytest.raises(KeyError, match="a bug in the model"):
        smooth(raises, timeout=60).certify(X)


def test_a_timeout_is_refused_for_torch_models():
    clf = SmoothedClassifier.from_pretrained(torch.nn.Linear(4, 2), [0, 1], timeout=1.0)
    with pytest.raises(ValueError, match="timeout is for base models outside of torch"):
        clf.certify(X)
    with pytest.raises(ValueError, match="timeout must be a finite number above 0, got 0"):
        smooth(steps([0.5]), timeout=0)


def garbage(value):
    """Return a rule that answers with garbage in a single row of many."""

    def rule(rows):
        labels = np.zeros(len(rows), dtype=object)
        labels[len(rows) // 2] = value
        return labels

    return rule


@pytest.mark.parametrize("value", [2, -1, np.nan, None, "0", 0.5, np.inf, 10**30], ids=repr)
def test_a_single_garbage_answer_certifies_nothing(value):
    with pytest.raises(ValueError, match=r"base model Rule returned the label .* Nothing was certified"):
        smooth(garbage(value)).certify(X)


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: np.zeros(len(rows) - 1, dtype=int),
        lambda rows: np.zeros((len(rows), 2)),
        lambda rows: 0,
        lambda rows: None,
        lambda rows: np.zeros((1, len(rows)), dtype=int),
        lambda rows: [],
    ],
)
def test_answers_of_the_wrong_shape_certify_nothing(answer):
    with pytest.raises(ValueError, match="must return one label per row"):
        smooth(answer).certify(X)


@pytest.mark.parametrize("n_bad", [1, 50])
def test_nan_logits_in_some_rows_certify_nothing(n_bad):
    class Broken(torch.nn.Module):
        def forward(self, rows):
            logits = torch.stack([rows[:, 0], -rows[:, 0]], dim=1)
            logits[:n_bad] = torch.nan
            return logits

    clf = SmoothedClassifier.from_pretrained(Broken(), [0, 1], n_samples=200, random_state=0)
    with pytest.raises(ValueError, match="returned NaN logits"):
        clf.certify(X)


def vandal(rows):
    labels = (rows[:, 0] > 0.5).astype(int)
    rows[...] = np.nan
    return labels


def test_a_model_that_overwrites_its_input_changes_nothing():
    honest = smooth(lambda rows: (rows[:, 0] > 0.5).astype(int))
    expected, before = honest.certify(X), X.copy()
    for batch_size in ("auto", 7):
        found = smooth(vandal, batch_size=batch_size).certify(X)
        np.testing.assert_array_equal(found.radii, expected.radii)
    np.testing.assert_array_equal(X, before)


def test_a_torch_model_that_overwrites_its_input_changes_nothing():
    class Vandal(torch.nn.Module):
        def forward(self, rows):
            logits = torch.stack([0.5 - rows[:, 0], rows[:, 0] - 0.5], dim=1).clone()
            if self.spoil:
                rows.fill_(torch.nan)
            return logits

    found = []
    for spoil in (False, True):
        module = Vandal()
        module.spoil = spoil
        clf = SmoothedClassifier.from_pretrained(module, [0, 1], n_samples=200, batch_size=9, random_state=0)
        found.append(clf.certify(X).radii)
    np.testing.assert_array_equal(*found)


def test_votes_of_a_model_that_has_changed_are_refused():
    base = LogisticRegression().fit(X, np.arange(6) % 2)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], random_state=0)
    votes = clf.count_votes(X)
    clf.certify(X, votes=votes)
    base.coef_ = base.coef_ + 1e-9
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        clf.certify(X, votes=votes)


def test_an_audit_finds_a_model_that_has_changed():
    """Its answers depend on the time of the call, so that later votes contradict earlier certificates."""

    class Moody(Rule):
        mood = 0

        def predict(self, rows):
            return np.full(len(rows), self.mood)

    base = Moody(constant).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], noise=SplitNoise(1.0), random_state=0)
    certificates = clf.certify(X)
    assert certificates.verify(clf, X, fraction=1.0).consistent
    base.mood = 1
    assert not certificates.verify(clf, X, fraction=1.0).consistent


@pytest.mark.parametrize("part", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4)], ids=repr)
def test_training_mode_does_not_reach_the_votes(part):
    torch.manual_seed(0)
    module = torch.nn.Sequential(part, torch.nn.Linear(4, 2)).train()
    clf = SmoothedClassifier.from_pretrained(module, [0, 1], n_samples=300, random_state=0)
    first = clf.certify(X)
    assert module.training
    assert part.training
    np.testing.assert_array_equal(clf.certify(X[::-1]).radii[::-1], first.radii)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    clf.certify(X)
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())


ARRAYS = {
    "read-only": lambda X: _frozen(X),
    "fortran": np.asfortranarray,
    "negative strides": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "big-endian": lambda X: X.astype(">f8"),
    "lists": lambda X: X.tolist(),
    "objects": lambda X: X.astype(object),
    "masked": lambda X: np.ma.masked_array(X),
    "memory map": lambda X: X.view(np.memmap),
}


def _frozen(X):
    frozen = X.copy()
    frozen.flags.writeable = False
    return frozen


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("noise", ["split", "gaussian", DeterministicSplitNoise(0.6)], ids=str)
def test_certificates_do_not_depend_on_the_memory_layout(kind, noise):
    clf = smooth(steps([0.4]), noise=noise)
    expected, found = clf.certify(X), clf.certify(ARRAYS[kind](X))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.radii, expected.radii)
    np.testing.assert_array_equal(clf.predict(ARRAYS[kind](X)), expected.labels)


@pytest.mark.parametrize("dtype", [np.float16, ">f2", np.float32, ">f4", np.longdouble, np.int8, bool, np.uint16])
def test_certificates_are_those_of_the_values_in_every_dtype(dtype):
    """The certificate is that of the same numbers in float64."""
    rounded = (X if np.dtype(dtype).kind == "f" else X > 0.5).astype(dtype)
    clf = smooth(steps([0.4]))
    np.testing.assert_array_equal(clf.certify(rounded).radii, clf.certify(rounded.astype(np.float64)).radii)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e400])
def test_values_that_are_not_finite_are_refused(value):
    bad = X.copy()
    bad[3, 2] = value
    with pytest.raises(ValueError, match=r"Smoothing needs a finite number everywhere"):
        smooth(constant).certify(bad)


def test_float16_inputs_off_the_digital_lattice_are_refused():
    with pytest.raises(ValueError, match="X must lie on the lattice of levels=255"):
        smooth(constant, noise=SplitNoise(1.0, levels=255)).certify(X.astype(np.float16))


def test_bounds_of_a_billion_votes():
    n = 10**9
    for k in (0, 1, n // 2, n - 1, n):
        lower = clopper_pearson(k, n, 0.001)
        assert 0 <= lower <= k / n
        assert randomized_clopper_pearson(k, n, 0.001, 0.5) >= lower
        assert hoeffding(k, n, 0.001) <= k / n
        assert 1 >= upper_bound(clopper_pearson, k, n, 0.001) >= k / n
    assert clopper_pearson(n, n, 0.001) > 1 - 1e-8
    assert anytime_lower_bound(n // 2, n, 0.001, 0.5, 0.5) < 0.5


def test_planning_a_billion_votes_takes_little_memory():
    tracemalloc.start()
    try:
        check_statistics(10**9, 10, scheme="multiclass", bound="clopper-pearson", alpha=0.001)
        assert checkpoints(10**9)[-1] == 10**9
        assert len(checkpoints(10**9)) < 300
        clf = smooth(steps([-9.0]), noise=UniformNoise(1.0), n_samples=10**9)
        decisions = clf.certify_at(X, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decisions.robust.all()
    assert decisions.n_samples.max() < 100
    assert peak < 2**25


def test_a_model_that_raises_midway_leaves_the_classifier_usable():
    calls = []

    def rule(rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise TimeoutError("the model's server is down")
        return np.zeros(len(rows), dtype=int)

    clf = smooth(rule, batch_size=64)
    with pytest.raises(TimeoutError, match="server is down"):
        clf.certify(X)
    assert (clf.certify(X).labels == 0).all()
