"""Tests of the estimators of stored runs."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from smoothcert import SmoothedClassifier, UniformNoise, stored_classifier


def test_the_classifier_of_a_store_has_the_box_the_costs_and_the_checks_of_its_run(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "run.sqlite"
    X, costs = rng.random((40, 2, 3)), np.array([[1.0, 2.0, 0.5], [1.0, 1.0, 4.0]])
    bounds = (np.full((2, 3), -1.0), np.linspace(1, 2, 6).reshape(2, 3))
    params = {"bounds": bounds, "costs": costs, "n_samples": 200, "alpha": 0.05, "random_state": 3, "radius": "box"}

    def first(rows):
        return (rows[:, 0, 0] > 0.5).astype(int)

    own = SmoothedClassifier.from_pretrained(first, [0, 1], UniformNoise(0.3), **params)
    expected = own.certify(X, store=path)
    trained = SmoothedClassifier(FrozenEstimator(first), UniformNoise(0.3), **params).fit(X, first(X))
    for model in (first, own, trained):
        clf = stored_classifier(path, model, batch_size=64)
        np.testing.assert_array_equal(clf.certify(X).radii, expected.radii)
        np.testing.assert_array_equal(clf.certify(X, store=path).radii, expected.radii)
        np.testing.assert_array_equal(np.broadcast_to(clf.costs, (2, 3)), costs)
        assert (clf.batch_size, clf.alpha, clf.n_samples, str(clf.radius)) == (64, 0.05, 200, "BoxRadius()")
    assert stored_classifier(path, first, random_state=9).random_state == 9

    table, y = rng.random((40, 3)), np.arange(40) % 2
    fitted = SmoothedClassifier(LogisticRegression(), n_samples=200).fit(table, y)
    fitted.certify(table, store=tmp_path / "fitted.sqlite")
    clf = stored_classifier(tmp_path / "fitted.sqlite", fitted)
    assert (clf.n_features_in_, clf.feature_shape_) == (3, (3,))
    with pytest.raises(ValueError, match="2 features"):
        clf.certify(table[:, :2])


def test_the_classifier_of_a_store_leaves_the_users_classifier_alone(tmp_path):
    table, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    own = SmoothedClassifier(LogisticRegression(), costs=[1, np.inf, 1], n_samples=200, random_state=3).fit(table, y)
    expected, before = own.certify(table, store=tmp_path / "run.sqlite"), own.get_params(deep=False)
    own.set_params(n_samples=300, random_state=4)
    clf = stored_classifier(tmp_path / "run.sqlite", own, batch_size=64)
    assert own.get_params(deep=False) == before | {"n_samples": 300, "random_state": 4}
    assert (clf.n_samples, clf.random_state, clf.batch_size) == (200, 3, 64)
    np.testing.assert_array_equal(clf.certify(table).radii, expected.radii)
