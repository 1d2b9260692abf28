"""One adapter for each kind of base model: how it is chosen, what it asks, and what it says of itself."""

import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from smoothcert import TorchInference
from smoothcert.models import base
from smoothcert.models.adapt import check_base_model, check_has_probabilities, make_voter
from smoothcert.models.base import LabelTable, Voter, checked_probabilities, checked_values
from smoothcert.models.columns import Columns
from smoothcert.models.function import FunctionVoter
from smoothcert.models.sklearn import SklearnVoter
from smoothcert.models.timeout import TimedVoter
from smoothcert.models.torch import TorchVoter

RNG = np.random.default_rng(0)
X = RNG.random((60, 3))
Y = (3 * X[:, 0]).astype(int)


def thirds(rows):
    return (3 * rows[:, 0]).astype(int)


# Which models


class Late(BaseEstimator):
    """A classifier whose tags tell what it is before it can predict."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        return tags


def test_regressors_and_classifiers_are_told_apart():
    nets = NeuralNetRegressor(nn.Linear(3, 1)), NeuralNetClassifier(nn.Linear(3, 2)), nn.Linear(3, 1)
    for kind, good, bad in (
        ("regressor", LinearRegression(), [GaussianNB(), FrozenEstimator(GaussianNB()), Late()]),
        ("classifier", GaussianNB(), [LinearRegression(), FrozenEstimator(LinearRegression())]),
    ):
        for model in (good, FrozenEstimator(good), make_pipeline(StandardScaler(), good), *nets):
            check_base_model(model, kind)
        check_base_model(FrozenEstimator(thirds), kind)
        for model in bad:
            remedy = "Pass a model" if isinstance(model, Late) else f"It must be a {kind}. Pass its predict method"
            with pytest.raises(
                ValueError, match=rf"^estimator must be a scikit-learn {kind}, a torch.* got .*{remedy}"
            ):
                check_base_model(model, kind)
        with pytest.raises(ValueError, match=rf"use Smoothed{kind.title()}\.from_pretrained"):
            check_base_model(thirds, kind)
    check_base_model(Late())
    with pytest.raises(ValueError, match="Load the model first"):
        check_base_model(b"model")


def test_models_without_probabilities():
    for model in (GaussianNB(), FrozenEstimator(GaussianNB()), thirds, nn.Linear(3, 2), NeuralNetClassifier(nn.ReLU)):
        check_has_probabilities(model)
    for model in (LinearSVC(), FrozenEstimator(LinearSVC()), SVC(probability=False)):
        with pytest.raises(ValueError, match=r"^estimator=(LinearSVC|SVC)\(.*\) has no probabilities, which scores of"):
            check_has_probabilities(model)


def test_kinds_of_models():
    module, net, model = nn.ReLU(), NeuralNetClassifier(nn.ReLU), GaussianNB()
    asked = [
        module,
        FrozenEstimator(module),
        net,
        FrozenEstimator(net),
        thirds,
        FrozenEstimator(thirds),
        model,
        nn.ReLU,
    ]
    answers = {
        "is_module": [1, 1, 0, 0, 0, 0, 0, 0],
        "is_net": [0, 0, 1, 1, 0, 0, 0, 0],
        "is_torch": [1, 1, 1, 1, 0, 0, 0, 0],
        "is_function": [0, 0, 0, 0, 1, 1, 0, 0],
        "takes_any_shape": [1, 1, 1, 1, 1, 1, 0, 0],
    }
    for name, expected in answers.items():
        assert [getattr(base, name)(one) for one in asked] == expected, name
    assert base.unwrap(FrozenEstimator(FrozenEstimator(model))) is model


def test_the_adapter_that_fits():
    module, device = nn.Linear(3, 2), torch.device("cpu", 0)
    inference = TorchInference(channels_last=True)
    voter = make_voter(FrozenEstimator(module), np.arange(2), device, inference)
    assert (type(voter), voter.n_classes, voter.device, voter.inference) == (TorchVoter, 2, device, inference)
    assert make_voter(module, None).n_classes == 1
    columns = Columns(("a", "b", "c"), "pandas")
    fitted = GaussianNB().fit(X, Y)
    voter = make_voter(fitted, np.arange(3), columns=columns, finite=False)
    assert (type(voter), voter.estimator, voter.columns) == (SklearnVoter, fitted, columns)
    assert "assume_finite" in voter.config
    assert not voter.config["assume_finite"]
    assert make_voter(fitted, np.arange(3)).config["assume_finite"]
    assert make_voter(LinearRegression().fit(X, Y), None).n_classes == 1
    assert type(make_voter(thirds, np.arange(3))) is FunctionVoter
    with pytest.raises(ValueError, match=r"is for torch models, got a GaussianNB\. Use inference=None"):
        make_voter(fitted, np.arange(3), inference=inference)


class Told(BaseEstimator):
    """A model of another library that knows whether it is fitted."""

    def __init__(self, fitted=False):
        self.fitted = fitted

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def __sklearn_is_fitted__(self):
        return self.fitted


def test_fitted_models():
    assert make_voter(Told(True), np.arange(2)).n_classes == 2
    for model, classes in ((Told(), np.arange(2)), (LinearRegression(), None), (NeuralNetClassifier(nn.ReLU), None)):
        with pytest.raises(NotFittedError):
            make_voter(model, classes)


def test_nets_decide_by_their_threshold_and_hook():
    net = NeuralNetBinaryClassifier(nn.Linear(3, 1), threshold=0.75).initialize()
    assert make_voter(net, np.arange(2)).decision.threshold == pytest.approx(np.log(3))
    probabilities = NeuralNetBinaryClassifier(nn.Linear(3, 1), criterion=nn.BCELoss, threshold=0.75).initialize()
    assert make_voter(probabilities, np.arange(2)).decision.threshold == 0.75
    # What the hook returns are logits for every loss.
    hook = TorchInference(output=torch.logit)
    assert make_voter(probabilities, np.arange(2), inference=hook).decision.threshold == pytest.approx(np.log(3))
    assert make_voter(NeuralNetRegressor(nn.Linear(3, 1)).initialize(), None).decision.threshold is None


# Labels and numbers


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (np.arange(3), np.array([2, 0, 1]), [2, 0, 1]),
        (np.arange(3), np.array([2.0, 0.0]), [2, 0]),
        (np.arange(3), np.array([2, 0], dtype=np.int8), [2, 0]),
        (np.arange(2), np.array([True, False]), [1, 0]),
        (np.array([7, -1, 3]), np.array([3, 7, -1, 7]), [2, 0, 1, 0]),
        (np.array(["no", "a", "yes"]), np.array(["yes", "a", "no"]), [2, 1, 0]),
        (np.array(["b", "a"], dtype=object), np.array(["a", "b"]), [1, 0]),
        (np.array([0.5, 0.25]), np.array([0.25, 0.5]), [1, 0]),
    ],
)
def test_indices_of_labels(classes, labels, expected):
    assert LabelTable(classes).indices(labels, "Model").tolist() == expected


@pytest.mark.parametrize(
    ("classes", "labels", "first"),
    [
        (np.arange(3), np.array([0, -1, 5]), "-1"),
        (np.arange(3), np.array([0, 3, -1]), "3"),
        (np.arange(3), np.array([0.5]), "0.5"),
        (np.array([7, 3]), np.array([3, 8]), "8"),
        (np.array([7, 3]), np.array([3, 2]), "2"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "'c'"),
        (np.array(["a", "b"], dtype=object), np.array([1, 2]), "1"),
    ],
)
def test_unknown_labels_are_named(classes, labels, first):
    message = rf"^The base model Model returned the label .*{first}.*, which is not among the classes \[.*Nothing was"
    with pytest.raises(ValueError, match=message):
        LabelTable(classes).indices(labels, "Model")


def test_one_number_for_each_row():
    for values in ([1, 2], [[1.0], [2.0]], np.array([True, False]), np.array([1, 2], np.uint8), [np.inf, -np.inf]):
        found = checked_values(values, 2, "Model")
        assert (found.shape, found.dtype) == ((2,), np.float64)
        assert found.tolist() == np.ravel(values).tolist()
    for values, what in (
        ([1.0], r"shape \(1,\) of float64"),
        ([[1.0, 2.0]], r"shape \(1, 2\) of float64"),
        (["a", "b"], r"shape \(2,\) of <U1"),
        ([1j, 2], r"shape \(2,\) of complex128"),
        ([1.0, np.nan], "NaN"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"^The base model Model must return one number per row, shape \(2,\), but returned {what}\. Nothing",
        ):
            checked_values(values, 2, "Model")


def test_one_probability_for_each_class():
    assert checked_probabilities([[1, 0]], 1, 2, "Model").tolist() == [[1.0, 0.0]]
    for values, what in (
        ([[1.0]], r"shape \(1, 1\)"),
        ([[0.5, np.inf]], "values that are not finite"),
        ([0.5, 0.5], r"shape \(2,\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"one finite probability per class, shape \(1, 2\), but returned {what}\. No set"
        ):
            checked_probabilities(values, 1, 2, "Model")


class Plain(Voter):
    """What a voter is unless it says otherwise."""

    def __init__(self):
        self.answer = np.zeros(2, dtype=int)

    def __call__(self, batch):
        self.answer[:] = batch[:, 0]
        return self.answer

    def content(self):
        return "Plain ?"


def test_a_plain_voter():
    voter = Plain()
    kept = ("most_rows", "free_rows", "most_together", "n_batches", "most_changed", "coarse_step", "content_decides")
    assert [getattr(voter, name) for name in kept] == [2**15, 1, 64, 0, 1, 0.0, False]
    assert voter.for_threads() == [voter]
    first = voter.vote(np.ones((2, 1)))
    voter.vote(np.zeros((2, 1)))
    assert first().tolist() == [1, 1]
    assert voter.settle(np.ones((2, 1))).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"^The base model Plain has no probabilities"):
        voter.probabilities(np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"^The base model Plain predicts no numbers\.$"):
        voter.values(np.ones((2, 1)))
    for context in (voter.ready(), voter.voting()):
        with context:
            pass


# Functions


def test_functions_answer_with_probabilities_and_numbers():
    voter = FunctionVoter(lambda rows: np.tile([0.25, 0.75], (len(rows), 1)), np.array(["a", "b"]))
    assert (voter.n_classes, voter.dtype, voter.batch_values) == (2, np.float64, 2**20)
    assert voter.probabilities(X[:2]).tolist() == [[0.25, 0.75]] * 2
    assert FunctionVoter(lambda rows: rows[:, 1], None).values(X).tolist() == X[:, 1].tolist()
    assert FunctionVoter(lambda rows: rows[:, 1], None).n_classes == 1
    assert (voter.content(), FunctionVoter(thirds, None).content()) == ("<lambda> ?", "thirds ?")


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


# Estimators


def test_what_is_known_of_estimators():
    own, net = SklearnVoter(GaussianNB().fit(X, Y), np.arange(3)), make_pipeline(StandardScaler(), GaussianNB())
    assert (own.dtype, own.batch_values, own.free_rows, own.n_classes) == (np.float64, 2**20, 2**12, 3)
    # Rows of scikit-learn's own code are independent, and its content decides.
    assert (own.most_changed, own.content_decides, own.votes_alone) == (None, True, False)
    other = SklearnVoter(make_pipeline(FunctionTransformer(abs), GaussianNB()).fit(X, Y), np.arange(3))
    assert (other.most_changed, other.content_decides, other.votes_alone) == (1, False, True)
    dummy = SklearnVoter(DummyClassifier(strategy="stratified").fit(X, Y), np.arange(3))
    assert (dummy.most_changed, dummy.content_decides, dummy.votes_alone) == (1, False, False)
    assert not SklearnVoter(net.fit(X, Y), np.arange(3)).config["assume_finite"]
    assert own.content().startswith("GaussianNB ")
    assert own.content() != SklearnVoter(GaussianNB().fit(X[1:], Y[1:]), np.arange(3)).content()


def test_probabilities_stand_at_the_classes_that_the_model_knows():
    model = GaussianNB().fit(X, np.array(["c", "a", "d"])[Y])
    voter = SklearnVoter(model, np.array(["d", "b", "a", "c"]))
    found, known = voter.probabilities(X[:5]), model.predict_proba(X[:5])
    np.testing.assert_array_equal(found, np.column_stack([known[:, 2], np.zeros(5), known[:, 0], known[:, 1]]))
    with pytest.raises(ValueError, match=r"^The base model RidgeClassifier has no probabilities"):
        SklearnVoter(RidgeClassifier().fit(X, Y), np.arange(3)).probabilities(X)
    regressor = SklearnVoter(LinearRegression().fit(X, Y), None)
    np.testing.assert_array_equal(regressor.values(X), LinearRegression().fit(X, Y).predict(X))


def test_classes_hold_all_that_a_model_may_answer():
    model = GaussianNB().fit(X, Y)
    with pytest.raises(
        ValueError, match=r"GaussianNB has the classes \[0, 1, 2\]\. classes must hold all of them, got \[0, 1\]"
    ):
        SklearnVoter(model, np.arange(2))
    with pytest.raises(
        ValueError, match=r"Told has no classes_, so it may return other labels than .*4.* at least two"
    ):
        SklearnVoter(Told(True), np.array([4]))
    assert SklearnVoter(GaussianNB().fit(X, 0 * Y), np.array([0])).n_classes == 1


def test_estimators_get_tables_and_the_settings_of_the_caller():
    seen = []

    class Seeing(Told):
        def predict(self, X):
            seen.append((X, sklearn.get_config()["transform_output"]))
            return np.zeros((len(X), 1))

    with sklearn.config_context(transform_output="pandas"):
        voter = SklearnVoter(Seeing(), np.arange(2), Columns(("a", "b", "c"), "pandas"))
    assert voter(X).tolist() == [0] * len(X)
    assert (list(seen[0][0].columns), seen[0][1]) == (["a", "b", "c"], "pandas")
    assert isinstance(seen[0][0], pd.DataFrame)


# Models that may hang


@contextmanager
def noted(notes):
    notes.append("in")
    yield
    notes.append("out")


def test_a_time_limit_changes_nothing_else():
    inner, notes = FunctionVoter(thirds, np.arange(3)), []
    inner.batch_values, inner.most_rows, inner.free_rows, inner.most_changed = 5, 6, 7, 8
    inner.content_decides, inner.ready = True, lambda: noted(notes)
    voter = TimedVoter(inner, 30.0)
    names = "batch_values", "most_rows", "free_rows", "most_changed", "content_decides", "dtype", "n_classes"
    assert [getattr(voter, name) for name in names] == [5, 6, 7, 8, True, np.float64, 3]
    assert voter.content() == inner.content()
    np.testing.assert_array_equal(voter(X), thirds(X))
    with voter.ready():
        assert notes == ["in"]
    assert notes == ["in", "out"]
    numbers = TimedVoter(FunctionVoter(lambda rows: rows[:, 0], None), 30.0)
    np.testing.assert_array_equal(numbers.values(X), X[:, 0])
    scores = TimedVoter(FunctionVoter(lambda rows: np.tile([0.25, 0.75], (len(rows), 1)), np.arange(2)), 30.0)
    assert scores.probabilities(X[:1]).tolist() == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="one label per row"):
        TimedVoter(FunctionVoter(lambda rows: np.zeros(1), np.arange(2)), 30.0)(X)


def test_a_late_answer_is_an_error():
    voter = TimedVoter(FunctionVoter(lambda rows: time.sleep(2), np.arange(2)), 0.01)
    for ask in (voter, voter.values, voter.probabilities):
        with pytest.raises(
            TimeoutError, match=r"^The base model <lambda> did not answer 60 rows within timeout=0\.01 s"
        ):
            ask(X)
