"""Functions as base models."""

import functools
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression

from smoothcert import SmoothedClassifier, TorchInference, UniformNoise
from smoothcert.models.function import FunctionVoter

from ..base_models import Rule, steps
from ..processes import run_python

PARAMS = {"noise": UniformNoise(0.5), "n_samples": 300, "random_state": 0}
X = np.random.default_rng(0).random((20, 3))


def thirds(batch):
    """Answer with labels."""
    return np.searchsorted([0.3, 0.7], batch[:, 0])


def scores(batch):
    """Answer with scores whose largest is at the same class."""
    return -np.abs(batch[:, :1] - [0.1, 0.5, 0.9])


def smoothed(function, classes=(0, 1, 2), **params):
    return SmoothedClassifier.from_pretrained(function, classes, **(PARAMS | params))


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


@pytest.fixture(scope="module")
def expected():
    """The certificates of the same rule as an estimator."""
    rule = Rule(steps([0.3, 0.7]), (0, 1, 2)).fit(None, None)
    return SmoothedClassifier.from_pretrained(rule, [0, 1, 2], **PARAMS).certify(X)


@pytest.mark.parametrize(
    "function",
    [
        thirds,
        scores,
        lambda batch: thirds(batch).tolist(),
        lambda batch: thirds(batch).astype(float),
        lambda batch: scores(batch).astype(np.float32) * 1000,
        lambda batch: torch.from_numpy(scores(batch)),
        lambda batch: (100 * scores(batch)).tolist(),
        lambda batch: np.eye(3, dtype=int)[thirds(batch)],
        Rule(thirds, (0, 1, 2)).predict,
        functools.partial(lambda k, batch: k(batch), thirds),
    ],
)
def test_the_number_of_dimensions_tells_labels_from_scores(function, expected):
    clf = smoothed(function)
    assert_same(clf.certify(X), expected)
    np.testing.assert_array_equal(clf.predict(X), expected.labels)


def test_classes_name_the_columns_of_scores(expected):
    names = np.array(["low", "middle", "high"])
    found = smoothed(scores, names).certify(X)
    np.testing.assert_array_equal(found.labels, names[expected.labels])
    np.testing.assert_array_equal(found.radii, expected.radii)
    words = smoothed(lambda batch: names[thirds(batch)], sorted(names)).certify(X)
    np.testing.assert_array_equal(words.labels, names[expected.labels])


def test_inputs_may_have_any_shape():
    images = np.random.default_rng(0).random((4, 3, 8, 8))
    shapes = set()

    def bright(batch):
        shapes.add((batch.shape[1:], batch.dtype))
        return batch.mean(axis=(1, 2, 3)) > 0.5

    found = smoothed(bright, [False, True]).certify(images)
    flat = smoothed(lambda batch: batch.mean(axis=1) > 0.5, [False, True]).certify(images.reshape(4, -1))
    assert shapes == {((3, 8, 8), np.dtype("float64"))}
    assert_same(found, flat)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: np.zeros(len(batch) - 1), r"return one label per row, shape \(\d+,\), or .* shape \(\d+,\)"),
        (lambda batch: np.zeros((len(batch), 1)), r"numbers of shape \(\d+, 3\), but returned shape \(\d+, 1\)"),
        (lambda batch: np.zeros((len(batch), 4)), r"returned shape \(\d+, 4\) of float64"),
        (lambda batch: np.zeros((len(batch), 3, 1)), r"returned shape \(\d+, 3, 1\)"),
        (lambda batch: np.full((len(batch), 3), "a"), r"returned shape \(\d+, 3\) of <U1"),
        (lambda batch: None, r"returned shape \(\) of object"),
        (lambda batch: np.full((len(batch), 3), np.nan), "returned NaN scores"),
        (lambda batch: np.where(np.arange(len(batch)) == 7, 3, 0), "returned the label .*3.*, which is not among"),
        (lambda batch: np.full(len(batch), 0.5), r"returned the label .*0\.5"),
        (lambda batch: np.full(len(batch), np.nan), "returned the label .*nan"),
        (lambda batch: np.full(len(batch), "cat"), "returned the label .*cat"),
        (lambda batch: torch.zeros(len(batch), 3, requires_grad=True), "return an array, but returned a Tensor"),
        (lambda batch: [[0, 1, 2], [0]], "return an array, but returned a list"),
    ],
)
def test_wrong_answers_name_the_function(answer, message):
    answer.__name__ = "my_model"
    with pytest.raises(ValueError, match=f"The base model my_model .*{message}.*Nothing was certified"):
        smoothed(answer).certify([[0.5, 0.5, 0.5]])


def test_errors_of_the_function_come_through():
    def unreachable(batch):
        raise ConnectionError("no route to host")

    with pytest.raises(ConnectionError, match="no route to host"):
        smoothed(unreachable).certify(X)


def test_functions_can_be_frozen_but_not_trained():
    with pytest.raises(ValueError, match=r"A function cannot be trained: use SmoothedClassifier\.from_pretrained"):
        SmoothedClassifier(thirds).fit(X, thirds(X))
    frozen = SmoothedClassifier(FrozenEstimator(thirds), **PARAMS).fit(X, thirds(X))
    assert_same(frozen.certify(X), smoothed(thirds).certify(X))
    with pytest.raises(ValueError, match=r"got LinearRegression.*It is a regressor: use SmoothedRegressor"):
        SmoothedClassifier.from_pretrained(LinearRegression(), [0, 1])
    with pytest.raises(ValueError, match=r"Pass an instance: LogisticRegression\(\)"):
        SmoothedClassifier.from_pretrained(LogisticRegression, [0, 1])
    with pytest.raises(ValueError, match="is for torch models"):
        smoothed(thirds, inference=TorchInference())


def test_repr_and_parameters():
    clf = smoothed(thirds)
    assert "thirds" in repr(clf)
    assert "thirds" in clf._repr_html_()
    assert clf.get_params()["estimator__estimator"] is thirds


# Votes belong to what a function computes


def test_votes_belong_to_one_function():
    votes = smoothed(thirds).count_votes(X)
    for same in (thirds, scores):
        assert_same(smoothed(same).certify(X, votes=votes), smoothed(thirds).certify(X))
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        smoothed(lambda batch: np.searchsorted([0.3, 0.8], batch[:, 0])).certify(X, votes=votes)


def at(threshold):
    return lambda batch: batch[:, 0] > threshold


class At:
    def __init__(self, threshold):
        self.threshold = threshold

    def __call__(self, batch):
        return batch[:, 0] > self.threshold

    def method(self, batch):
        return batch[:, 0] > self.threshold


@pytest.mark.parametrize(
    "make", [at, At, lambda t: At(t).method, lambda t: functools.partial(At.method, At(t)), lambda t: At(t).__call__]
)
def test_votes_depend_on_the_values_that_a_function_holds(make):
    votes = smoothed(make(0.5), [False, True]).count_votes(X)
    smoothed(make(0.5), [False, True]).certify(X, votes=votes)
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        smoothed(make(0.6), [False, True]).certify(X, votes=votes)


SAVED = """
import pickle, sys
import numpy as np
for clf, X, votes, radii in pickle.load(open(sys.argv[1], "rb")):
    assert np.array_equal(clf.certify(X, votes=votes).radii, radii, equal_nan=True)
"""


def test_saved_votes_are_accepted_in_another_process(tmp_path):
    saved = []
    for clf in (smoothed(thirds), smoothed(functools.partial(At.method, At(0.5)))):
        votes = clf.count_votes(X[:3])
        saved.append((clf, X[:3], votes, clf.certify(X[:3], votes=votes).radii))
    path = tmp_path / "votes.pickle"
    path.write_bytes(pickle.dumps(saved))
    run_python(SAVED, path)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_give_the_same_certificates(backend):
    clf = smoothed(at(0.5))
    expected = clf.certify(X)
    with joblib.parallel_config(backend=backend):
        assert_same(clf.set_params(n_jobs=2).certify(X), expected)


def test_an_answer_in_a_reused_buffer_is_copied():
    buffer = np.empty(10_000, dtype=np.int64)

    def model(batch):
        answer = buffer[: len(batch)]
        answer[:] = batch[:, 0] > 0.7
        return answer

    rows = np.array([[0.1], [0.6], [0.95]])
    params = {"n_samples": 4000, "batch_size": 1000, "random_state": 0}
    found = SmoothedClassifier.from_pretrained(model, [0, 1], UniformNoise(0.5), **params).count_votes(rows)
    fresh = SmoothedClassifier.from_pretrained(lambda b: (b[:, 0] > 0.7) * 1, [0, 1], UniformNoise(0.5), **params)
    np.testing.assert_array_equal(found.estimation, fresh.count_votes(rows).estimation)
    assert (found.estimation[1] > 500).all()


def test_functions_answer_with_probabilities_and_numbers():
    voter = FunctionVoter(lambda rows: np.tile([0.25, 0.75], (len(rows), 1)), np.array(["a", "b"]))
    assert (voter.n_classes, voter.dtype, voter.batch_values) == (2, np.float64, 2**20)
    assert voter.probabilities(X[:2]).tolist() == [[0.25, 0.75]] * 2
    assert FunctionVoter(lambda rows: rows[:, 1], None).values(X).tolist() == X[:, 1].tolist()
    assert FunctionVoter(lambda rows: rows[:, 1], None).n_classes == 1
    assert (voter.content(), FunctionVoter(thirds, None).content()) == ("<lambda> ?", "thirds ?")


def test_probabilities_are_kept_where_a_function_answers_in_a_buffer_of_its_own():
    answer = np.empty((8, 2))

    def function(rows):
        answer[: len(rows), 0], answer[: len(rows), 1] = rows[:, 0], 1 - rows[:, 0]
        return answer[: len(rows)]

    voter = FunctionVoter(function, np.arange(2))
    first = voter.probabilities(X[:4])
    voter.probabilities(1 - X[:1])
    assert first[:, 0].tolist() == X[:4, 0].tolist()


def test_a_function_that_returns_labels_may_return_more_than_one():
    with pytest.raises(ValueError, match=r"<lambda> returns labels, and may return others than \['a'\]"):
        SmoothedClassifier.from_pretrained(lambda rows: np.full(len(rows), "a"), ["a"]).certify(X[:1])
    alone = SmoothedClassifier.from_pretrained(lambda rows: np.zeros((len(rows), 1)), ["a"], random_state=0)
    assert alone.certify(X[:1]).radii.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.5012], r"got the row \[0\.5, 0\.5012\]\. No set was made\. Turn logits into probabilities by scipy"),
        ([1.25, -0.25], r"must return probabilities, at least 0 and with sum 1"),
        ([0.5, np.nan], "values that are not finite"),
    ],
)
def test_probabilities_of_functions_are_checked(row, message):
    def function(rows):
        return np.array([[0.5, 0.5], row, [0.5, 0.5]])

    with pytest.raises(ValueError, match=rf"^The base model function .*{message}"):
        FunctionVoter(function, np.arange(2)).probabilities(X[:3])
    assert FunctionVoter(lambda rows: np.array([[0.5, 0.5009]]), np.arange(2)).probabilities(X[:1]).shape == (1, 2)
