"""Voters of estimators: what they know of them, what they ask, and in which settings."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numba import config
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from smoothcert.models.columns import Columns
from smoothcert.models.sklearn import SklearnVoter
from smoothcert.models.threads import side_by_side

from .problems import Told, X, Y


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


def test_cores_of_each_thread(monkeypatch):
    limits = []

    def limited(n_cores):
        limits.append(n_cores)
        return nullcontext()

    monkeypatch.setattr("smoothcert.models.sklearn.process_settings", limited)
    voter = SklearnVoter(GaussianNB().fit(X, Y), np.arange(3))
    for n in (1, 2, 3, 8, 9, 23):
        monkeypatch.setattr(config, "NUMBA_NUM_THREADS", n)
        with voter.voting():
            pass
    # One core needs no limit; 8 threads share 23 cores.
    assert limits == [1, 1, 1, 1, 2]
    assert side_by_side(lambda part: (part, torch.get_num_threads()), [3, 1, 2], 2, 5) == [(3, 2), (1, 2), (2, 2)]
    assert side_by_side(lambda part: side_by_side(lambda inner: -inner, [part], 2, 5), [4], 2, 5) == [[-4]]
