"""Models of scikit-learn that vote in several threads: results are those of one thread, and settings are restored."""

import time
import warnings
from threading import Barrier, Lock, get_ident

import numpy as np
import pytest
import sklearn
from numba import config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators
from sklearn.utils._testing import ignore_warnings
from sklearn.utils.parallel import delayed
from threadpoolctl import threadpool_info

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.models.sklearn import SklearnVoter, sklearn_parts
from smoothcert.models.threads import process_settings, side_by_side

RNG = np.random.default_rng(0)
X = RNG.random((90, 4))
Y = (3 * X[:, 0] + 0.3 * RNG.normal(size=90)).astype(int).clip(0, 2)

#: Classifiers that need another classifier; None for those that take several labels per input.
META = {
    "FixedThresholdClassifier": lambda kind: kind(LogisticRegression()),
    "SelfTrainingClassifier": lambda kind: kind(LogisticRegression()),
    "TunedThresholdClassifierCV": lambda kind: kind(LogisticRegression()),
    "StackingClassifier": lambda kind: kind([("a", GaussianNB()), ("b", DecisionTreeClassifier())], cv=2),
    "VotingClassifier": lambda kind: kind([("a", GaussianNB()), ("b", LogisticRegression())]),
    "ClassifierChain": None,
    "MultiOutputClassifier": None,
}


def make(name, kind):
    if name in META:
        return None if META[name] is None else META[name](kind)
    try:
        return kind()
    except TypeError:
        return kind(LogisticRegression())


CLASSIFIERS = {name: make(name, kind) for name, kind in all_estimators(type_filter="classifier")}


def count(model, **parameters):
    settings = {"n_selection": 40, "n_samples": 1500, "random_state": 0, "batch_size": 256} | parameters
    return SmoothedClassifier.from_pretrained(model, np.unique(Y), SplitNoise(0.7), **settings).count_votes(X[:4])


@pytest.fixture
def cores(monkeypatch):
    """Set how many cores votes may use."""
    return lambda n: monkeypatch.setattr(config, "NUMBA_NUM_THREADS", n)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, model in CLASSIFIERS.items() if model is not None])
@ignore_warnings
def test_every_classifier_votes_in_threads_as_it_does_alone(name, cores):
    y = (Y > 0).astype(int) if "Threshold" in name else Y
    model = CLASSIFIERS[name].fit(X, y)
    assert sklearn_parts(model)
    found = []
    for n in (1, 3):
        cores(n)
        found.append(count(model).estimation)
    assert found[0].sum() == 4 * 1500
    np.testing.assert_array_equal(*found)


class Own(ClassifierMixin, BaseEstimator):
    """A classifier outside of scikit-learn that records the threads in which it is called."""

    def __init__(self):
        self.classes_ = np.arange(3)
        self.threads = set()

    def fit(self, X, y):
        return self

    def predict(self, X):
        self.threads.add(get_ident())
        return (2.9 * X[:, 0]).astype(int)


class Scratch:
    """A transformer that is not a BaseEstimator and keeps its output, which other threads must not overwrite."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        self.notes = 2 * X
        time.sleep(1e-3)
        return self.notes


def twice(X):
    return 2 * X


def test_only_code_of_scikit_learn_votes_in_threads():
    own = LogisticRegression(), make_pipeline(StandardScaler(), SVC()), OneVsRestClassifier(FrozenEstimator(SVC()))
    own += VotingClassifier([("a", GaussianNB())]), GridSearchCV(SVC(), {"C": [1.0, 2.0]})
    own += (OneHotEncoder(dtype=np.float32), GaussianNB(priors=np.full(3, 1 / 3)))
    own += (make_pipeline(FunctionTransformer(), SVC()), KNeighborsClassifier(metric_params={"p": 3}))
    for model in own:
        assert sklearn_parts(model)[0] is model
    others = Own(), make_pipeline(StandardScaler(), Own()), VotingClassifier([("a", Own())]), SVC(kernel=np.dot)
    others += make_pipeline(FunctionTransformer(twice), SVC()), OneHotEncoder(dtype=list)
    others += make_pipeline(Scratch(), SVC()), KNeighborsClassifier(metric_params={"key": object()})
    others += GridSearchCV(Own(), {}), KNeighborsClassifier(metric_params={"func": twice}), twice
    for model in others:
        assert sklearn_parts(model) == []


def test_a_pipeline_with_other_code_votes_as_it_does_alone(cores):
    model, found = make_pipeline(Scratch(), LogisticRegression()).fit(X, Y), []
    for n in (1, 2):
        cores(n)
        found.append(count(model).estimation)
    np.testing.assert_array_equal(*found)


def test_other_classifiers_vote_in_the_thread_of_the_caller(cores):
    cores(3)
    model = Own()
    count(FrozenEstimator(model))
    assert model.threads == {get_ident()}


def test_threads_have_the_configuration_of_the_caller(cores, monkeypatch):
    cores(2)
    seen = []

    def predict(self, X):
        seen.append((get_ident(), sklearn.get_config()["transform_output"], sklearn.get_config()["assume_finite"]))
        return np.zeros(len(X), dtype=int)

    monkeypatch.setattr(LogisticRegression, "predict", predict)
    with sklearn.config_context(transform_output="pandas"):
        count(LogisticRegression().fit(X, Y))
    # Votes come from several threads. A single model does not check noisy rows again.
    assert len({thread for thread, _, _ in seen}) > 1
    assert {which for _, which, _ in seen} == {"pandas"}
    assert all(assumed for _, _, assumed in seen)
    assert sklearn.get_config()["transform_output"] == "default"
    seen.clear()
    count(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y))
    assert not any(assumed for _, _, assumed in seen)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_is_limited_until_the_last_user_ends():
    before = blas_threads()
    first, second = process_settings(1), process_settings(1)
    with first:
        assert set(blas_threads()) == {1}
        second.__enter__()
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_votes_leave_blas_as_it_was(cores, monkeypatch):
    cores(2)
    before, seen = blas_threads(), []
    predict = LogisticRegression.predict

    def watched(self, X):
        seen.append(max(blas_threads()))
        return predict(self, X)

    monkeypatch.setattr(LogisticRegression, "predict", watched)
    count(LogisticRegression().fit(X, Y))
    assert set(seen) == {1}
    assert blas_threads() == before
    assert process_settings._n_users == 0


def test_votes_leave_the_filters_of_warnings_as_they_were(cores, monkeypatch):
    """Steps of scikit-learn change them while they run; two that overlap leave those of the other behind."""
    cores(2)
    meeting, lock, n_calls = Barrier(2), Lock(), [0]

    def predict(self, X):
        with lock:
            n_calls[0] += len(X) > 200
            place = n_calls[0] if len(X) > 200 else 3
        if place == 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                meeting.wait(10)
                meeting.wait(10)
            meeting.wait(10)
        elif place == 2:
            meeting.wait(10)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                meeting.wait(10)
                meeting.wait(10)
        return np.zeros(len(X), dtype=int)

    # Libraries that are imported at first use have filters of their own.
    count(GaussianNB().fit(X, Y))
    before = list(warnings.filters)
    monkeypatch.setattr(LogisticRegression, "predict", predict)
    count(LogisticRegression().fit(X, Y))
    assert n_calls[0] > 2
    assert warnings.filters == before


def test_a_warning_of_scikit_learn_that_comes_from_the_filters_of_another_thread_is_not_shown():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with process_settings(1):
            warnings.resetwarnings()
            delayed(sum)([1])[0]([1])
            warnings.warn("another one", stacklevel=1)
    assert [str(one.message) for one in found] == ["another one"]


def test_openmp_has_one_core_in_each_thread():
    # This import loads scikit-learn's own OpenMP library.
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: F401
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

    assert side_by_side(lambda _: _openmp_effective_n_threads(), [0, 1], 2, 2) == [1, 1]


def test_a_forest_with_jobs_of_its_own_votes_in_threads(cores):
    cores(2)
    forest = RandomForestClassifier(5, random_state=0, n_jobs=2).fit(X, Y)
    expected = count(forest).estimation
    np.testing.assert_array_equal(count(forest.set_params(n_jobs=None)).estimation, expected)


def test_models_of_scikit_learn_get_a_voter_per_core_and_no_more_than_8(cores):
    voter = SklearnVoter(LogisticRegression().fit(X, Y), np.unique(Y))
    for n, expected in ((1, 1), (3, 3), (99, 8)):
        cores(n)
        assert len(voter.for_threads()) == expected
