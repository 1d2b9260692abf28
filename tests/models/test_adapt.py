"""Which models can be base models, and which cannot."""

import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import smoothcert.pipeline
from smoothcert import SmoothedClassifier, SmoothedConformalClassifier, SplitNoise
from smoothcert.models.adapt import check_base_model, make_voter

RNG = np.random.default_rng(0)
X = RNG.random((80, 3))
Y = np.array(["no", "yes"])[(X[:, 0] > 0.5).astype(int)]


class Wrapper(ClassifierMixin, BaseEstimator):
    """A classifier that keeps nothing but its parameters."""

    def __init__(self, model=None):
        self.model = model

    def fit(self, X, y):
        self.model.fit(X, y)
        return self

    def predict(self, X):
        return self.model.predict(X)


class Column(Wrapper):
    """A classifier that returns labels in a column, as some boosting libraries do."""

    def predict(self, X):
        return self.model.predict(X)[:, None]


class Duck:
    """A classifier that knows nothing of scikit-learn's base classes."""

    def __init__(self):
        self.model = GaussianNB()

    def get_params(self, deep=False):
        return {}

    def set_params(self):
        return self

    fit, predict = Wrapper.fit, Wrapper.predict


class Answering:
    """A fitted model that has been told how to predict, and nothing else."""

    def __init__(self, model):
        self.model = model
        self.predict = model.predict


@pytest.mark.parametrize("make", [lambda: Wrapper(GaussianNB()), lambda: Column(GaussianNB()), Duck])
def test_other_classifiers_vote_as_their_model_does(make):
    settings = {"noise": SplitNoise(1.0), "n_samples": 100, "random_state": 0}
    expected, found = (
        SmoothedClassifier(model, **settings).fit(X, Y).certify(X[:9]) for model in (GaussianNB(), make())
    )
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.radii, expected.radii)
    assert (found.radii > 0).any()
    trained = SmoothedClassifier.from_pretrained(make().fit(X, Y), ["no", "yes"], **settings)
    plain = SmoothedClassifier.from_pretrained(GaussianNB().fit(X, Y), ["no", "yes"], **settings)
    np.testing.assert_array_equal(trained.certify(X[:9]).radii, plain.certify(X[:9]).radii)


def test_stacking_with_its_default_final_estimator():
    stack = StackingClassifier([("a", GaussianNB())], cv=2)
    found = SmoothedClassifier(stack, SplitNoise(1.0), n_samples=100, random_state=0).fit(X, Y)
    assert found.score(X, Y) >= 0.7
    assert len(make_voter(found.estimator_, found.classes_).for_threads()) >= 1


def test_models_that_are_not_fitted():
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(NotFittedError):
            make_voter(model, np.array([0, 1]))


SMOOTHED = SmoothedClassifier(GaussianNB(), SplitNoise(1.0))


@pytest.mark.parametrize(
    "model",
    [
        SMOOTHED,
        FrozenEstimator(SMOOTHED),
        make_pipeline(StandardScaler(), SMOOTHED),
        smoothcert.pipeline.make_pipeline(StandardScaler(), SMOOTHED),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), FrozenEstimator(SMOOTHED))),
        SmoothedConformalClassifier(GaussianNB(), radius=0.1),
        GridSearchCV(SMOOTHED, {"alpha": [0.1]}),
        BaggingClassifier(SMOOTHED),
        CalibratedClassifierCV(FrozenEstimator(SMOOTHED)),
        VotingClassifier([("a", GaussianNB()), ("b", make_pipeline(StandardScaler(), SMOOTHED))]),
        StackingClassifier([("a", GaussianNB())], final_estimator=SMOOTHED),
        OneVsRestClassifier(GridSearchCV(BaggingClassifier(SMOOTHED), {})),
        make_pipeline(StandardScaler(), BaggingClassifier(SMOOTHED)),
        Wrapper(SMOOTHED),
        Answering(SMOOTHED),
    ],
    ids=lambda model: type(model).__name__,
)
def test_smoothed_classifiers_are_not_smoothed_again(model):
    with pytest.raises(ValueError, match=r"It is smoothed already\. Pass its base model"):
        check_base_model(model)
    with pytest.raises(ValueError, match="It is smoothed already"):
        SmoothedClassifier(model).fit(X, Y)
    with pytest.raises(ValueError, match="It is smoothed already"):
        SmoothedClassifier.from_pretrained(model, ["no", "yes"])


def test_methods_of_smoothed_classifiers_are_not_smoothed_again():
    fitted = SmoothedClassifier(GaussianNB(), n_samples=100).fit(X, Y)
    for method in (fitted.predict, make_pipeline(StandardScaler(), fitted).predict):
        with pytest.raises(ValueError, match="It is smoothed already"):
            SmoothedClassifier.from_pretrained(method, ["no", "yes"])


def test_models_that_hold_themselves_are_base_models():
    model = Answering(GaussianNB())
    model.me = [model]
    check_base_model(model)
    check_base_model(BaggingClassifier(VotingClassifier([("a", GaussianNB())])).fit(X, Y))


class Denying(Duck):
    _estimator_type = "regressor"


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (LinearRegression(), "It must be a classifier"),
        (Denying(), "It must be a classifier"),
        (StandardScaler(), "Pass a model"),
        (make_pipeline(StandardScaler(), LinearRegression()), "It must be a classifier"),
        (LogisticRegression, "Pass an instance: LogisticRegression()"),
        (SmoothedClassifier, "Pass an instance: SmoothedClassifier()"),
        ("model.pt", "Load the model first"),
        (None, "Pass a model"),
        (3, "Pass a model"),
    ],
)
def test_what_is_no_base_model(model, remedy):
    with pytest.raises(ValueError, match=f"(?s)estimator must be a scikit-learn classifier.*{re.escape(remedy)}"):
        check_base_model(model)


UNCACHED = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
"""
VOTES = """
import numpy as np
from smoothcert import SmoothedClassifier, SplitNoise
import torch
torch.manual_seed(0)
clf = SmoothedClassifier.from_pretrained(torch.nn.Linear(3, 2), [0, 1], SplitNoise(1.0), n_samples=50, random_state=0)
print(clf.count_votes(np.full((2, 3), 0.3)).estimation.tolist())
"""


@pytest.mark.slow
def test_compiled_code_runs_without_a_cache_directory(capsys):
    command = [sys.executable, "-c", UNCACHED + VOTES]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exec(VOTES, {})
    assert shown == capsys.readouterr().out != ""
