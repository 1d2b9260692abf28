"""Which models can be base models, and which cannot."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
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
from sklearn.svm import SVC, LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

import smoothcert.pipeline
from smoothcert import SmoothedClassifier, SmoothedConformalClassifier, SmoothedRegressor, SplitNoise, TorchInference
from smoothcert.models.adapt import check_base_model, check_has_probabilities, make_voter
from smoothcert.models.columns import Columns
from smoothcert.models.function import FunctionVoter
from smoothcert.models.sklearn import SklearnVoter
from smoothcert.models.torch import TorchVoter

from . import problems
from .problems import Told, thirds

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


def test_smoothed_estimators_of_another_kind_are_not_called_usable():
    for kind, other in (("classifier", SmoothedRegressor(LinearRegression())), ("regressor", SMOOTHED)):
        with pytest.raises(ValueError, match=rf"(?s)must be a scikit-learn {kind},.* It must be a {kind}\.$"):
            check_base_model(FrozenEstimator(other), kind)


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
        (LinearRegression(), "It is a regressor: use SmoothedRegressor."),
        (Denying(), "It must be a classifier"),
        (StandardScaler(), "Pass a model"),
        (make_pipeline(StandardScaler(), LinearRegression()), "use SmoothedRegressor"),
        (LogisticRegression, "Pass an instance: LogisticRegression()"),
        (SmoothedClassifier, "Pass an instance: SmoothedClassifier()"),
        ("model.pt", "Load the model first"),
        (None, "Pass a model"),
        (3, "Pass a model"),
        (nn.Linear(3, 2).state_dict(), "If it holds weights, load them into their network"),
    ],
)
def test_what_is_no_base_model(model, remedy):
    with pytest.raises(ValueError, match=f"(?s)estimator must be a scikit-learn classifier.*{re.escape(remedy)}"):
        check_base_model(model)


def test_long_texts_are_left_out():
    weights = nn.Linear(100, 100).state_dict()
    with pytest.raises(ValueError, match=r"got a OrderedDict\. If it holds weights") as error:
        check_base_model(weights)
    assert len(str(error.value)) < 250


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
        other = "classifier" if kind == "regressor" else "regressor"
        for model in bad:
            remedy = rf"It is a {other}: use Smoothed{other.title()}\."
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


def test_the_adapter_that_fits():
    module, device = nn.Linear(3, 2), torch.device("cpu", 0)
    inference = TorchInference(channels_last=True)
    voter = make_voter(FrozenEstimator(module), np.arange(2), device, inference)
    assert (type(voter), voter.n_classes, voter.device, voter.inference) == (TorchVoter, 2, device, inference)
    assert make_voter(module, None).n_classes == 1
    columns = Columns(("a", "b", "c"), "pandas")
    fitted = GaussianNB().fit(problems.X, problems.Y)
    voter = make_voter(fitted, np.arange(3), columns=columns, finite=False)
    assert (type(voter), voter.estimator, voter.columns) == (SklearnVoter, fitted, columns)
    assert "assume_finite" in voter.config
    assert not voter.config["assume_finite"]
    assert make_voter(fitted, np.arange(3)).config["assume_finite"]
    assert make_voter(LinearRegression().fit(problems.X, problems.Y), None).n_classes == 1
    assert type(make_voter(thirds, np.arange(3))) is FunctionVoter
    with pytest.raises(ValueError, match=r"is for torch models, got a GaussianNB\. Use inference=None"):
        make_voter(fitted, np.arange(3), inference=inference)


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
