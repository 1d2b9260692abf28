"""Certified accuracy in model selection, and metadata routing."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import smoothcert.pipeline
from smoothcert import (
    GaussianNoise,
    LipschitzRadius,
    NoiseAugmentation,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
    certified_accuracy_score,
    make_certified_scorer,
    make_interval_scorer,
)
from smoothcert.results import Intervals

from .examples import some_intervals


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    return train_test_split(X, y, test_size=60, random_state=0)


def smoothed(base=None, noise=None, **params):
    base = GaussianNB() if base is None else base
    noise = SplitNoise(1.0) if noise is None else noise
    return SmoothedClassifier(base, noise, **({"n_samples": 300, "n_selection": 32, "random_state": 0} | params))


# The scorer


def test_the_score_is_the_certified_accuracy(cancer):
    X, X_test, y, y_test = cancer
    clf = smoothed(n_samples=1000).fit(X, y)
    labels, robust = clf.certify_at(X_test, 0.4)
    weight = np.arange(60.0)
    scorer = make_certified_scorer(0.4)
    assert scorer(clf, X_test, y_test) == np.mean((labels == y_test) & robust)
    assert scorer(clf, X_test, y_test, sample_weight=weight) == np.average((labels == y_test) & robust, weights=weight)
    assert scorer(clf, X_test, y_test) == pytest.approx(
        certified_accuracy_score(y_test, clf.certify(X_test), 0.4), abs=0.05
    )
    assert clf.certify_at(X_test, 0.4).n_samples.mean() < 500
    assert pickle.loads(pickle.dumps(scorer))(clf, X_test, y_test) == scorer(clf, X_test, y_test)
    assert clone(scorer).radius == 0.4


def test_grid_search_over_lam_takes_seconds(cancer):
    X, X_test, y, y_test = cancer
    base = make_pipeline(StandardScaler(), LogisticRegression())
    clf = smoothed(base, n_samples=2000, n_selection=64, training=NoiseAugmentation(5))
    grid = {"noise__lam": [0.05, 0.5, 1.0, 2.0]}
    search = GridSearchCV(clf, grid, scoring=make_certified_scorer(radius=0.5), cv=3).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    # Noise of lam = .05 certifies nothing at radius 1/2: 2 lam is as far as it reaches, but for the box.
    assert scores[0] < 0.1
    assert search.best_params_["noise__lam"] in (1.0, 2.0)
    assert search.score(X_test, y_test) > 0.6


def test_grid_search_over_strategies_training_and_nested_parameters(cancer):
    X, _, y, _ = cancer
    grid = {
        "radius": ["lipschitz", "greedy"],
        "training": ["augment", None],
        "estimator__max_depth": [1, 4],
        "noise": [SplitNoise(1.0), UniformNoise(0.5)],
    }
    clf = smoothed(DecisionTreeClassifier(random_state=0), n_samples=100)
    search = GridSearchCV(clf, grid, scoring=make_certified_scorer(0.3), cv=2).fit(X[:150], y[:150])
    scores, tried = search.cv_results_["mean_test_score"], search.cv_results_["params"]
    assert np.isfinite(scores).all()
    by = {str(sorted(p.items(), key=str)): s for p, s in zip(tried, scores, strict=True)}
    for params, score in zip(tried, scores, strict=True):
        if params["radius"] == "greedy":
            assert score >= by[str(sorted((params | {"radius": "lipschitz"}).items(), key=str))]


def test_selection_through_a_pipeline(cancer):
    X, _, y, _ = cancer
    pipeline = smoothcert.pipeline.make_pipeline(MinMaxScaler(), smoothed())
    grid = {"smoothedclassifier__noise__lam": [0.05, 1.0], "smoothedclassifier__estimator__var_smoothing": [1e-9, 1e-2]}
    search = GridSearchCV(pipeline, grid, scoring=make_certified_scorer(0.4), cv=2).fit(X, y)
    assert search.best_params_["smoothedclassifier__noise__lam"] == 1.0
    many = cross_validate(pipeline, X, y, scoring={"clean": "accuracy", "robust": make_certified_scorer(0.4)}, cv=2)
    assert (many["test_robust"] <= many["test_clean"]).all()
    assert (many["test_robust"] > 0.3).all()


def test_pipelines_must_end_in_a_smoothed_classifier(cancer):
    X, X_test, y, y_test = cancer
    own = make_pipeline(MinMaxScaler(), smoothed()).fit(X, y)
    expected = make_certified_scorer(0.4)(own[-1], own[0].transform(X_test), y_test)
    assert make_certified_scorer(0.4)(own, X_test, y_test) == expected > 0
    plain = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match=r"or a Pipeline that ends in one, .* got a LogisticRegression"):
        make_certified_scorer(0.4)(plain, X, y)


def test_radii_in_another_norm_are_refused(cancer):
    X, X_test, y, y_test = cancer
    clf = smoothed(noise=GaussianNoise(0.5), radius=LipschitzRadius(norm=2)).fit(X, y)
    with pytest.raises(ValueError, match=r"norm=1 is the norm of the scorer, but .* in l2"):
        make_certified_scorer(0.4)(clf, X_test, y_test)
    assert make_certified_scorer(0.1, norm=2)(clf, X_test, y_test) > 0.5


@pytest.mark.parametrize("radius", [-1, np.nan, "big", True])
def test_bad_radius(radius):
    with pytest.raises(ValueError, match="radius must be 0 or a finite number above 0"):
        make_certified_scorer(radius)


def test_bad_truth(cancer):
    X, X_test, y, y_test = cancer
    clf = smoothed().fit(X, y)
    with pytest.raises(ValueError, match="y must hold one label for each of 60 inputs"):
        make_certified_scorer(0.1)(clf, X_test, y_test[1:])
    with pytest.raises(ValueError, match="y must hold labels like the classes"):
        make_certified_scorer(0.1)(clf, X_test, y_test.astype(str))


# Metadata routing


class Weighed(ClassifierMixin, BaseEstimator):
    """A base model that records the weights that it is fitted with."""

    def fit(self, X, y, sample_weight=None, note=None):
        self.weight_, self.note_ = sample_weight, note
        self.classes_ = np.unique(y)
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        self.weight_, self.classes_ = sample_weight, classes
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_without_routing_all_goes_to_the_base_model(cancer):
    X, _, y, _ = cancer
    clf = smoothed(Weighed(), training=NoiseAugmentation(2)).fit(X, y, sample_weight=y + 1.0, note="hi")
    np.testing.assert_array_equal(clf.estimator_.weight_, np.tile(y + 1.0, 2))
    assert clf.estimator_.note_ == "hi"


@pytest.mark.usefixtures("routing")
def test_with_routing_the_base_model_gets_what_it_requests(cancer):
    X, _, y, _ = cancer
    base = Weighed().set_fit_request(sample_weight=True, note=False)
    clf = smoothed(base, training=NoiseAugmentation(2))
    found = clone(clf).fit(X, y, sample_weight=y + 1.0)
    np.testing.assert_array_equal(found.estimator_.weight_, np.tile(y + 1.0, 2))
    assert clone(clf).fit(X, y).estimator_.weight_ is None
    alias = clone(clf).set_params(estimator=Weighed().set_fit_request(sample_weight="importance", note=False))
    np.testing.assert_array_equal(alias.fit(X, y, importance=y + 2.0).estimator_.weight_, np.tile(y + 2.0, 2))
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        clone(clf).set_params(estimator=Weighed()).fit(X, y, sample_weight=y + 1.0)
    with pytest.raises(TypeError, match="nonsense"):
        clone(clf).fit(X, y, nonsense=1)


@pytest.mark.usefixtures("routing")
def test_streams_of_copies_ask_for_partial_fit(cancer):
    X, _, y, _ = cancer
    base = Weighed().set_partial_fit_request(sample_weight=True, classes=False)
    clf = smoothed(base, training=NoiseAugmentation(2, stream=True)).fit(X, y, sample_weight=y + 1.0)
    np.testing.assert_array_equal(clf.estimator_.weight_, y + 1.0)


@pytest.mark.usefixtures("routing")
def test_weights_go_through_pipeline_grid_search_and_scorer(cancer):
    X, _, y, _ = cancer
    weight = np.where(y == 1, 1.0, 1e-6)
    base = GaussianNB().set_fit_request(sample_weight=True)
    pipeline = smoothcert.pipeline.make_pipeline(MinMaxScaler(), smoothed(base).set_score_request(sample_weight=False))
    scorer = make_certified_scorer(0.3).set_score_request(sample_weight=True)
    found = cross_validate(
        pipeline, X, y, scoring=scorer, cv=2, params={"sample_weight": weight}, return_estimator=True
    )
    for fitted in found["estimator"]:
        assert fitted[-1].estimator_.class_prior_[1] > 0.999
    # Inputs of class 1 are all that counts in training and score; without weights a share of .6 is the best.
    assert (found["test_score"] > 0.95).all()
    search = GridSearchCV(pipeline, {"smoothedclassifier__noise__lam": [0.5, 1.0]}, scoring=scorer, cv=2)
    search.fit(X, y, sample_weight=weight)
    assert search.best_score_ > 0.95
    assert search.best_estimator_[-1].estimator_.class_prior_[1] > 0.999


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_about_are_an_error(cancer):
    X, _, y, _ = cancer
    base = GaussianNB().set_fit_request(sample_weight=True)
    with pytest.raises(UnsetMetadataPassedError):
        cross_val_score(
            smoothed(base), X, y, scoring=make_certified_scorer(0.3), params={"sample_weight": y + 1.0}, cv=2
        )


@pytest.mark.usefixtures("routing")
def test_the_accuracy_takes_weights_as_before(cancer):
    X, X_test, y, y_test = cancer
    clf = smoothed().set_score_request(sample_weight=True).fit(X, y)
    weight = np.where(clf.predict(X_test) == y_test, 1.0, 0.0)
    assert clf.score(X_test, y_test, sample_weight=weight) == 1
    assert cross_val_score(smoothed(), X, y, cv=2).min() > 0.8


def test_scores_are_the_share_of_intervals_near_the_truth(linear):
    reg, X = linear
    scorer, y = make_interval_scorer(radius=0.1, tolerance=0.25), X[:, 0]
    lower, upper = reg.certify(X, 0.1)
    near = (lower >= y - 0.25) & (upper <= y + 0.25)
    assert 0.2 < near.mean() < 1
    assert scorer(reg, X, y) == near.mean()
    weight = np.arange(60.0)
    assert scorer(reg, X, y, sample_weight=weight) == pytest.approx(np.average(near, weights=weight))
    assert pickle.loads(pickle.dumps(scorer))(reg, X, y) == near.mean()
    search = GridSearchCV(clone(reg), {"noise__lam": [0.05, 0.5]}, scoring=scorer, cv=2).fit(X, y)
    assert search.best_params_ == {"noise__lam": 0.5}
    with pytest.raises(ValueError, match="y must hold one finite number for each of 60 inputs"):
        scorer(reg, X, y[:3])
    with pytest.raises(ValueError, match="must be a SmoothedRegressor"):
        scorer(LinearRegression().fit(X, y), X, y)
    with pytest.raises(ValueError, match=r"got a SmoothedClassifier\. For classifiers, use make_certified_scorer"):
        scorer(SmoothedClassifier.from_pretrained(lambda rows: rows[:, 0] > 0.5, [False, True]), X, y > 0.5)
    pipeline = smoothcert.pipeline.make_pipeline(MinMaxScaler(), clone(reg)).fit(X, y)
    assert 0.2 < scorer(pipeline, X, y) < 1
    for wrong in ({"radius": -1, "tolerance": 1}, {"radius": 1, "tolerance": "much"}):
        with pytest.raises(ValueError, match="must be"):
            make_interval_scorer(**wrong)


def test_scores_ask_for_both_ends_within_the_tolerance():
    """The intervals are from 1 to 11, from 2 to 12, and from 3 to 13."""

    class Regressor:
        def certify(self, X, radius):
            assert radius == 0.25
            found = some_intervals(3, [radius])
            return Intervals(
                **vars(found) | {name: getattr(found, name)[:, 0] for name in ("lower", "upper", "radius")}
            )

    for y, tolerance, expected in [
        ([6, 7, 8], 5, 1),
        ([6, 7, 8], 4.9, 0),
        ([6, 9, 8], 5, 2 / 3),
        ([6, 7, 6], 5, 2 / 3),
    ]:
        assert make_interval_scorer(0.25, tolerance)(Regressor(), np.zeros((3, 1)), y) == pytest.approx(expected)
