"""Baselines are as certain as certificates can be, and see nothing but what is fixed."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from smoothcert import SmoothedClassifier, UniformNoise, baselines
from smoothcert.training.strategies import CleanTraining

X = np.random.default_rng(0).random((60, 3)) * [1, 1, 10]
Y = np.array(["b", "a", "c"])[(X[:, 2] > 4).astype(int) + (X[:, 2] > 7)]


def smoothed(base=None, costs=(1.0, 2.0, "fixed"), **params):
    params = {"noise": UniformNoise(0.8), "n_samples": 100, "alpha": 0.05, "random_state": 4} | params
    return SmoothedClassifier(base or DecisionTreeClassifier(), bounds=(0, [1, 1, 10]), costs=list(costs), **params)


@pytest.mark.parametrize("rtol", [None, 0.3])
def test_baselines_are_certain_of_every_input(rtol):
    clf = smoothed(rtol=rtol).fit(X, Y)
    certificates = clf.certify(X[::2])
    found = baselines(certificates, clf, X, Y, X[::2])
    assert list(found) == ["majority class", "fixed columns"]
    for one in found.values():
        assert len(one) == 30
        assert np.isposinf(one.radii).all()
        assert not one.abstained.any()
        assert (one.p_a == 1).all()
        assert (one.p_b == 0).all()
        assert (one.alpha, one.n_samples) == (0, None)
        assert (one.norm, one.threat) == (certificates.norm, certificates.threat)
    labels, counts = np.unique(Y, return_counts=True)
    assert len(set(counts)) == 3
    assert set(found["majority class"].labels) == {labels[counts.argmax()]}
    np.testing.assert_array_equal(found["fixed columns"].labels, Y[::2])


def test_the_first_of_two_majorities_is_taken():
    y = np.array(["c", "a"] * 30)
    clf = smoothed().fit(X, y)
    assert set(baselines(clf.certify(X[:4]), clf, X, y, X[:4])["majority class"].labels) == {"a"}


def test_a_baseline_is_trained_as_the_classifier_is(monkeypatch):
    seen, train = {}, CleanTraining.train
    monkeypatch.setattr(
        CleanTraining, "train", lambda self, *a, **given: seen.update(given) or train(self, *a, **given)
    )
    clf = smoothed(device="cpu").fit(X, Y)
    baselines(clf.certify(X[:4]), clf, X, Y, X[:4])
    assert (seen["seed"], seen["device"]) == (4, "cpu")


def test_votes_on_fixed_columns_are_in_the_order_of_the_inputs(monkeypatch):
    from smoothcert.models.sklearn import SklearnVoter

    clf = smoothed().fit(X, Y)
    certificates, sizes, call = clf.certify(X), [], SklearnVoter.__call__
    monkeypatch.setattr(SklearnVoter, "most_rows", 7)
    monkeypatch.setattr(SklearnVoter, "__call__", lambda self, rows: sizes.append(len(rows)) or call(self, rows))
    np.testing.assert_array_equal(baselines(certificates, clf, X, Y, X)["fixed columns"].labels, Y)
    assert sizes == [7] * 8 + [4]


def test_a_model_that_is_used_as_it_is_has_no_second_baseline():
    clf = smoothed(FrozenEstimator(DecisionTreeClassifier().fit(X, Y))).fit(X, Y)
    assert list(baselines(clf.certify(X[:4]), clf, X, Y, X[:4])) == ["majority class"]


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_the_second_baseline_sees_the_columns_by_name(timeout):
    table = pd.DataFrame({"age": X[:, 0], "job": np.where(X[:, 2] > 4, "cook", "pilot")})
    base = make_pipeline(make_column_transformer((OneHotEncoder(), ["job"])), DecisionTreeClassifier())
    params = {"n_samples": 100, "alpha": 0.05, "random_state": 0, "timeout": timeout}
    clf = SmoothedClassifier(base, UniformNoise(0.8), costs={"job": "fixed"}, **params).fit(table, table["job"])
    found = baselines(clf.certify(table[:5]), clf, table, table["job"], table[:5])["fixed columns"]
    assert found.labels.tolist() == table["job"][:5].tolist()


def test_inputs_that_were_skipped_are_predicted_too():
    clf, wrong = smoothed(costs=(1.0, 2.0, 1.0)).fit(X, Y), X[:6].copy()
    wrong[2, 0] = np.nan
    certificates = clf.certify(wrong, on_error="skip")
    assert certificates.failed.tolist() == [False, False, True, False, False, False]
    found = baselines(certificates, clf, X, Y, wrong)["majority class"]
    assert not (found.failed | found.abstained).any()
    assert np.isposinf(found.radii).all()


def test_fixed_columns_of_inputs_that_were_skipped_are_not_read():
    y, wrong = np.where(Y, "a long label", "b"), X[:6].copy()
    clf = smoothed().fit(X, y)
    expected = baselines(clf.certify(wrong), clf, X, y, wrong)["fixed columns"]
    wrong[2, 0] = np.nan
    certificates = clf.certify(wrong, on_error="skip")
    found = baselines(certificates, clf, X, y, wrong)["fixed columns"]
    assert found.failed.tolist() == found.abstained.tolist() == [False, False, True, False, False, False]
    assert np.isnan(found.radii).tolist() == found.failed.tolist()
    assert found.labels.tolist() == [*expected.labels[:2], "", *expected.labels[3:]]


def test_inputs_that_do_not_fit_are_refused():
    clf = smoothed().fit(X, Y)
    certificates = clf.certify(X[:4])
    with pytest.raises(ValueError, match="X must hold the 4 inputs of certificates, got 5"):
        baselines(certificates, clf, X, Y, X[:5])
    with pytest.raises(ValueError, match="y must hold labels like the classes"):
        baselines(certificates, clf, X, np.zeros(60), X[:4])
    with pytest.raises(ValueError, match="y must hold one label for each of 60 inputs, got shape"):
        baselines(certificates, clf, X, Y[:50], X[:4])
