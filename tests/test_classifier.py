import pickle
import subprocess
import sys
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from smoothcert import (
    BoxRadius,
    GreedyRadius,
    LipschitzRadius,
    NoiseAugmentation,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
    certified_accuracy_score,
)
from smoothcert.models.sklearn import SklearnVoter

from .base_models import MeanOfFirst, Rule, constant, steps
from .processes import run_python

SMALL = {"bounds": "minmax", "n_selection": 32, "n_samples": 50}
NARROW = UniformNoise(lam=0.1)


@parametrize_with_checks(
    [
        SmoothedClassifier(LogisticRegression(), NARROW, **SMALL),
        SmoothedClassifier(RandomForestClassifier(n_estimators=5), NARROW, training=NoiseAugmentation(3), **SMALL),
        SmoothedClassifier(make_pipeline(StandardScaler(), LogisticRegression()), SplitNoise(lam=0.3), **SMALL),
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "other rows have other noise, so that another model is fitted"
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    return train_test_split(X, y, test_size=100, random_state=0)


@pytest.fixture(scope="module")
def fitted(cancer):
    X, _, y, _ = cancer
    base = make_pipeline(StandardScaler(), LogisticRegression())
    return SmoothedClassifier(base, SplitNoise(lam=1.5), n_samples=500, random_state=0).fit(X, y)


def rule(function, classes=(0, 1), **params):
    """Smooth a rule that needs no training."""
    base = Rule(function, classes).fit(None, None)
    return SmoothedClassifier.from_pretrained(base, classes, **({"random_state": 0, "n_samples": 200} | params))


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


# Certifying real data


@pytest.mark.parametrize(
    "base", [make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(30), GaussianNB()]
)
@pytest.mark.parametrize("noise", ["split", "uniform"])
def test_breast_cancer_is_certified(cancer, base, noise):
    X, X_test, y, y_test = cancer
    clf = SmoothedClassifier(base, noise, n_samples=1000, random_state=0).fit(X, y)
    labels, radii = certificates = clf.certify(X_test)
    assert (labels == y_test).mean() > 0.85
    assert certified_accuracy_score(y_test, certificates, 0.3) > 0.6
    assert clf.score(X_test, y_test) == (labels == y_test).mean()
    assert radii[~certificates.abstained].min() >= 0


def test_noise_in_training_pays(cancer):
    X, X_test, y, y_test = cancer
    scores = {}
    for training in ("augment", None):
        base = make_pipeline(StandardScaler(), LogisticRegression())
        clf = SmoothedClassifier(base, SplitNoise(lam=2.0), training=training, n_samples=300, random_state=0)
        scores[training] = certified_accuracy_score(y_test, clf.fit(X, y).certify(X_test), 0.5)
    assert scores["augment"] > scores[None] + 0.1


def test_raw_units_do_not_matter():
    """Radii are in the unit box: the same data in other units gives the same certificates."""
    X, y = load_digits(return_X_y=True)
    # Exact probabilities would show that thresholds in other units are rounded otherwise.
    tree = DecisionTreeClassifier(max_depth=5)
    clf = SmoothedClassifier(tree, "uniform", n_samples=100, estimation="sample", random_state=0)
    a = clone(clf).set_params(bounds=(0, 16)).fit(X[:300], y[:300]).certify(X[300:320])
    b = clone(clf).set_params(bounds=(-8, 0)).fit(X[:300] / 2 - 8, y[:300]).certify(X[300:320] / 2 - 8)
    assert_same(a, b)


# The promises of the design: same votes whatever the circumstances


def test_labels_of_certify_are_predict(fitted, cancer):
    X_test = cancer[1]
    np.testing.assert_array_equal(fitted.certify(X_test).labels, fitted.predict(X_test))
    np.testing.assert_array_equal(fitted.classes_[fitted.predict_proba(X_test).argmax(axis=1)], fitted.predict(X_test))


def test_slices_and_permutations_of_x_give_slices_and_permutations(fitted, cancer):
    X_test = cancer[1]
    whole = fitted.certify(X_test)
    order = np.random.default_rng(0).permutation(len(X_test))
    assert_same(fitted.certify(X_test[order]), whole[order])
    assert_same(fitted.certify(X_test[7:9]), whole[7:9])
    assert_same(fitted.certify(X_test[5:6]), whole[5])


@pytest.mark.parametrize("batch_size", [1, 100, 128, 1000, 10**6])
def test_batch_size_does_not_matter(fitted, cancer, batch_size):
    X_test = cancer[1][:5]
    whole = fitted.count_votes(X_test)
    votes = clone_fitted(fitted).set_params(batch_size=batch_size).count_votes(X_test)
    np.testing.assert_array_equal(votes.selection, whole.selection)
    np.testing.assert_array_equal(votes.estimation, whole.estimation)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_do_not_matter(fitted, cancer, backend):
    X_test = cancer[1][:20]
    with joblib.parallel_config(backend=backend):
        assert_same(clone_fitted(fitted).set_params(n_jobs=2).certify(X_test), fitted.certify(X_test))


def test_pickling_keeps_the_certificates(fitted, cancer):
    X_test = cancer[1][:20]
    assert_same(pickle.loads(pickle.dumps(fitted)).certify(X_test), fitted.certify(X_test))


def test_training_is_reproducible_from_random_state(cancer):
    X, X_test, y, _ = cancer
    clf = SmoothedClassifier(RandomForestClassifier(5), n_samples=50, random_state=3)
    assert_same(clone(clf).fit(X, y).certify(X_test), clone(clf).fit(X, y).certify(X_test))


def test_random_state_none_draws_fresh_noise_for_every_call(fitted, cancer):
    clf = clone_fitted(fitted).set_params(random_state=None)
    first, second = (clf.count_votes(cancer[1][:30]).estimation for _ in range(2))
    assert (first != second).any()


def test_a_random_state_object_gives_one_seed_when_fitting(cancer):
    X, X_test, y, _ = cancer
    state = np.random.RandomState(0)
    clf = SmoothedClassifier(GaussianNB(), n_samples=100, random_state=state).fit(X, y)
    before = state.get_state()[2]
    assert_same(clf.certify(X_test), clf.certify(X_test))
    assert state.get_state()[2] == before


def test_memory_is_bounded_by_the_batch():
    """No batch is larger than asked for, whatever n_samples and the number of inputs."""
    sizes = []

    def watch(X):
        sizes.append(X.shape)
        return constant(X)

    rule(watch, batch_size=64, n_samples=1000).certify(np.full((7, 3), 0.5))
    assert max(rows for rows, _ in sizes) <= 64
    together = [rows for rows, _ in sizes if rows > 1]
    assert sum(together) == 7 * (1000 + 16), "a constant class is clear after 16 votes"


def test_memory_is_bounded_by_the_batch_even_for_large_inputs():
    X = np.full((3, 50_000), 0.5, dtype=np.float32)
    clf = rule(constant, n_selection=2, n_samples=200, batch_size=1)
    tracemalloc.start()
    clf.count_votes(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * X.astype(np.float64).nbytes


def test_estimation_draws_fresh_votes():
    """Class and margin come from separate noise: the proof rests on it."""
    seen = []

    def watch(X):
        seen.append(X.copy())
        return constant(X)

    rule(watch, noise=UniformNoise(), n_selection=100, n_samples=100, batch_size=100).certify(np.full((1, 4), 0.5))
    selection, estimation = [batch for batch in seen if len(batch) > 1]
    assert not set(map(bytes, selection)) & set(map(bytes, estimation))


def test_rows_of_several_inputs_share_a_batch():
    sizes = []

    def watch(X):
        sizes.append(len(X))
        return constant(X)

    rule(watch, n_selection=10, n_samples=20).certify(np.random.default_rng(0).random((50, 3)))
    assert [size for size in sizes if size > 1] == [500, 1000]


def clone_fitted(clf):
    """Copy a fitted classifier, so that set_params leaves the original alone."""
    return pickle.loads(pickle.dumps(clf))


# Base models


def test_nothing_the_caller_owns_is_changed(cancer):
    X, X_test, y, _ = cancer
    base, noise, training, radius = LogisticRegression(), SplitNoise(2.0), NoiseAugmentation(2), BoxRadius()
    clf = SmoothedClassifier(base, noise, training=training, radius=radius, n_samples=50)
    before = str(clf.get_params())
    raw = X.copy()
    clf.fit(X, y).certify(X_test)
    assert str(clf.get_params()) == before
    assert clf.estimator is base
    assert not hasattr(base, "coef_")
    assert clf.noise is noise
    np.testing.assert_array_equal(X, raw)


def test_frozen_estimator_is_not_refitted(cancer):
    X, X_test, y, _ = cancer
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
    clf = SmoothedClassifier(FrozenEstimator(tree), n_samples=50, random_state=0).fit(X[:20], y[:20])
    assert clf.estimator_.estimator is tree
    pretrained = SmoothedClassifier.from_pretrained(tree, tree.classes_, n_samples=50, random_state=0)
    assert_same(clf.certify(X_test), pretrained.certify(X_test))


def test_frozen_estimator_knows_classes_that_y_lacks():
    X, y = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    clf = SmoothedClassifier(FrozenEstimator(tree), UniformNoise(0.02), bounds=(0, 8), random_state=0)
    clf.fit(X[:100], y[:100])
    np.testing.assert_array_equal(clf.classes_, [0, 1, 2])
    assert (clf.predict(X) == 2).any()


@pytest.mark.parametrize(
    "names",
    [
        ["setosa", "versicolor", "virginica"],
        np.array(["setosa", "versicolor", "virginica"], dtype=object),
        [-5, 0, 100],
        [-1.0, 2.0, 7.0],
        [False, True, True],
    ],
)
def test_labels_come_back_as_they_went_in(names):
    X, y = load_iris(return_X_y=True)
    labels = np.asarray(names)[y]
    clf = SmoothedClassifier(GaussianNB(), UniformNoise(0.1), bounds="minmax", n_samples=50, random_state=0)
    found = clf.fit(X, labels).certify(X).labels
    assert found.dtype == labels.dtype
    assert (found == labels).mean() > 0.8


class TwoLogits(torch.nn.Module):
    """A network whose first logit is large where the first feature is small."""

    def forward(self, X):
        return torch.stack([1 - X[:, 0], X[:, 0]], dim=1)


@pytest.mark.parametrize("classes", [["a", "b"], ["b", "a"], [7, -2]])
@pytest.mark.parametrize(
    "model",
    [TwoLogits(), lambda X: np.column_stack([1 - X[:, 0], X[:, 0]])],
    ids=["network", "function"],
)
def test_labels_of_a_pretrained_model_are_in_the_order_of_its_logits(model, classes):
    clf = SmoothedClassifier.from_pretrained(model, classes, UniformNoise(0.3), n_samples=100, alpha=0.01)
    X = np.array([[0.02, 0.5], [0.98, 0.5]])
    assert clf.predict(X).tolist() == classes
    np.testing.assert_array_equal(clf.classes_[clf.predict_proba(X).argmax(axis=1)], classes)
    certificates = clf.certify(X)
    assert certificates.labels.tolist() == classes
    assert not certificates.abstained.any()
    assert clf.certify(X, votes=clf.count_votes(X)).labels.tolist() == classes
    assert clf.certify_at(X, 0.1).labels.tolist() == classes
    assert clf.score(X, classes) == 1


@pytest.mark.parametrize("classes", [["low", "high"], ["high", "low"]])
def test_labels_that_a_pretrained_model_answers_with_are_its_own(classes):
    """The order of ``classes`` does not matter to a base model that returns labels."""
    X, expected = np.array([[0.02, 0.5], [0.98, 0.5]]), ["low", "high"]
    table = np.random.default_rng(0).random((200, 2))
    y = np.where(table[:, 0] > 0.5, "high", "low")
    function = lambda rows: np.where(rows[:, 0] > 0.5, "high", "low")  # noqa: E731
    for model in (function, LogisticRegression(C=1e3).fit(table, y)):
        clf = SmoothedClassifier.from_pretrained(model, classes, UniformNoise(0.3), n_samples=100, alpha=0.01)
        assert clf.predict(X).tolist() == expected
        assert clf.certify(X).labels.tolist() == expected


def test_sample_weight_follows_the_noisy_copies(cancer):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(GaussianNB(), random_state=0)
    weighted = clone(clf).fit(X, y, sample_weight=(y == 1).astype(float))
    assert weighted.estimator_.class_prior_[1] == 1
    assert clone(clf).fit(X, y).estimator_.class_prior_[1] < 0.8


def test_each_noisy_copy_has_noise_of_its_own(cancer):
    X, _, y, _ = cancer
    seen = []

    class Watch(DummyClassifier):
        def fit(self, X, y):
            seen.append(X)
            return super().fit(X, y)

    SmoothedClassifier(Watch(), training=NoiseAugmentation(n_copies=4)).fit(X, y)
    (copies,) = seen
    assert len(np.unique(copies[:, 0])) > 0.2 * len(copies)
    assert copies.shape == (4 * len(X), X.shape[1])
    assert not np.array_equal(copies[: len(X)], copies[len(X) : 2 * len(X)])


def test_pipelines_with_lambdas_can_be_certified(cancer):
    X, X_test, y, _ = cancer
    base = make_pipeline(FunctionTransformer(lambda X: X**2), GaussianNB())
    clf = SmoothedClassifier(base, n_samples=50, random_state=0).fit(X, y)
    assert_same(clf.certify(X_test), clf.certify(X_test, votes=clf.count_votes(X_test)))


def test_grid_search_over_nested_parameters(cancer):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(LogisticRegression(), UniformNoise(), n_selection=16, random_state=0)
    search = GridSearchCV(clf, {"noise__lam": [0.2, 50.0], "estimator__C": [1.0]}, cv=2).fit(X, y)
    assert search.best_params_["noise__lam"] == 0.2


def test_dataframes(cancer):
    X, X_test, y, _ = cancer
    names = [f"f{i}" for i in range(X.shape[1])]
    clf = SmoothedClassifier(GaussianNB(), n_samples=50, random_state=0)
    frame = clone(clf).fit(pd.DataFrame(X, columns=names), y)
    assert list(frame.feature_names_in_) == names
    assert_same(frame.certify(pd.DataFrame(X_test, columns=names)), clone(clf).fit(X, y).certify(X_test))


# Votes once, certificates many


def test_certificates_from_stored_votes_draw_nothing(fitted, cancer, monkeypatch):
    X_test = cancer[1]
    clf = clone_fitted(fitted)
    votes = clf.count_votes(X_test)
    monkeypatch.setattr(SklearnVoter, "__call__", None)
    found = {
        name: clf.set_params(radius=name).certify(X_test, votes=votes).radii for name in ("lipschitz", "box", "greedy")
    }
    kept = ~np.isnan(found["lipschitz"])
    assert (found["lipschitz"][kept] <= found["box"][kept]).all()
    assert (found["box"][kept] <= found["greedy"][kept]).all()
    assert (found["greedy"][kept] > found["lipschitz"][kept]).any()


def test_stored_votes_serve_other_levels_schemes_and_bounds(fitted, cancer):
    X_test = cancer[1]
    clf = clone_fitted(fitted)
    votes = clf.count_votes(X_test)
    assert_same(clf.certify(X_test, votes=votes), clf.certify(X_test))
    strict = clf.set_params(alpha=1e-6).certify(X_test, votes=votes)
    loose = clf.set_params(alpha=0.1).certify(X_test, votes=votes)
    hoeffding = clf.set_params(bound="hoeffding").certify(X_test, votes=votes)
    kept = ~(strict.abstained | hoeffding.abstained)
    assert (strict.radii[kept] < loose.radii[kept]).all()
    assert (hoeffding.radii[kept] < loose.radii[kept]).all()


def test_votes_of_something_else_are_refused(fitted, cancer):
    X, X_test, y, _ = cancer
    X_test = X_test[:5]
    votes = fitted.count_votes(X_test)
    message = "votes were drawn with a different {}.*Draw new"

    with pytest.raises(ValueError, match=message.format("X")):
        fitted.certify(X_test[::-1], votes=votes)
    with pytest.raises(ValueError, match=message.format("X")):
        fitted.certify(X_test[:4], votes=votes)
    with pytest.raises(ValueError, match=message.format("seed")):
        clone_fitted(fitted).set_params(random_state=1).certify(X_test, votes=votes)
    with pytest.raises(ValueError, match=message.format("noise")):
        clone(fitted).set_params(noise__lam=2.0).fit(X, y).certify(X_test, votes=votes)
    with pytest.raises(ValueError, match=message.format("box")):
        clone(fitted).set_params(bounds=(-1, 2)).fit(X, y).certify(X_test, votes=votes)
    other = clone_fitted(fitted)
    other.estimator_[-1].coef_ *= 1.001
    with pytest.raises(ValueError, match=message.format("model")):
        other.certify(X_test, votes=votes)


def test_votes_of_an_equal_classifier_are_taken(fitted, cancer):
    X_test = cancer[1][:5]
    votes = pickle.loads(pickle.dumps(fitted.count_votes(X_test)))
    assert_same(clone_fitted(fitted).certify(X_test, votes=votes), fitted.certify(X_test))
    fresh = clone_fitted(fitted).set_params(random_state=None)
    fresh.certify(X_test, votes=fresh.count_votes(X_test))


SAVED = """
import pickle, sys
import numpy as np
clf, X, votes, radii = pickle.load(open(sys.argv[1], "rb"))
assert np.array_equal(clf.certify(X, votes=votes).radii, radii, equal_nan=True)
"""


@pytest.mark.parametrize(
    "base",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        GradientBoostingClassifier(n_estimators=5),
        HistGradientBoostingClassifier(max_iter=5),
        KNeighborsClassifier(),
    ],
)
def test_saved_votes_are_taken_in_another_process(cancer, base, tmp_path):
    X, X_test, y, _ = cancer
    clf = SmoothedClassifier(base, n_samples=50, random_state=0).fit(X, y)
    votes = clf.count_votes(X_test[:3])
    path = tmp_path / "votes.pickle"
    path.write_bytes(pickle.dumps((clf, X_test[:3], votes, clf.certify(X_test[:3], votes=votes).radii)))
    run_python(SAVED, path)


def test_votes_for_inputs_of_another_shape_are_refused():
    """Equal numbers in another shape are another input."""
    module = MeanOfFirst()
    clf = SmoothedClassifier.from_pretrained(module, range(2), n_samples=50, random_state=0)
    X = np.linspace(0, 1, 6, dtype=np.float32)
    votes = clf.count_votes(X.reshape(1, 3, 2))
    with pytest.raises(ValueError, match="votes were drawn with a different shape"):
        clf.certify(X.reshape(1, 1, 6), votes=votes)


def test_a_fit_that_fails_leaves_the_classifier_as_it_was(cancer):
    X, X_test, y, _ = cancer
    clf = SmoothedClassifier(GaussianNB(), n_samples=50, random_state=0).fit(X, np.where(y, "b", "a"))
    before = clf.certify(X_test)
    with pytest.raises(TypeError):
        clf.fit(X, np.where(y, "a", "b"), nonsense=1)
    assert_same(clf.certify(X_test), before)
    fresh = SmoothedClassifier(GaussianNB(), random_state=0)
    with pytest.raises(TypeError):
        fresh.fit(X, y, nonsense=1)
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_the_base_models_classes_must_be_among_the_classes(cancer):
    X, _, y, _ = cancer
    tree = DecisionTreeClassifier(max_depth=2).fit(X, y)
    with pytest.raises(
        ValueError, match=r"DecisionTreeClassifier has the classes \[0, 1\]. classes must hold all of them"
    ):
        SmoothedClassifier.from_pretrained(tree, [0])

    class Speechless(ClassifierMixin, BaseEstimator):
        def __sklearn_is_fitted__(self):
            return True

        def predict(self, X):
            return constant(X)

    with pytest.raises(ValueError, match=r"Speechless has no classes_, .* classes must hold at least two labels"):
        SmoothedClassifier.from_pretrained(Speechless(), [0])
    assert SmoothedClassifier.from_pretrained(Speechless(), [0, 1]).predict([[0.5]]) == [0]


def test_printing_options_do_not_matter(cancer):
    X, X_test, y, _ = cancer
    bounds = (np.zeros(30), np.full(30, 1.23456))
    clf = SmoothedClassifier(GaussianNB(), bounds=bounds, random_state=0).fit(X, y)
    with np.printoptions(precision=2, threshold=5):
        clf.predict(X_test)
    with pytest.raises(ValueError, match="bounds has changed"):
        clf.set_params(bounds=(np.zeros(30), np.full(30, 1.23457))).predict(X_test)


@pytest.mark.parametrize("votes", [1000, np.ones((3, 2))])
def test_votes_must_be_vote_counts(fitted, cancer, votes):
    with pytest.raises(ValueError, match=r"votes must be what count_votes returns, got a (int|ndarray)"):
        fitted.certify(cancer[1][:3], votes=votes)


@pytest.mark.parametrize("change", [{"noise": UniformNoise(2.0)}, {"noise__lam": 0.7}, {"bounds": (0, 2)}])
def test_noise_and_box_cannot_change_after_fitting(fitted, cancer, change):
    clf = clone_fitted(fitted).set_params(**change)
    with pytest.raises(ValueError, match=r"(noise|bounds) has changed to .* after fit\. Call fit again"):
        clf.certify(cancer[1])


def test_the_range_of_the_data_is_no_other_box():
    X, y = np.array([[0.25], [0.5], [0.75]] * 10), [0, 0, 1] * 10
    clf = SmoothedClassifier(GaussianNB(), n_samples=100, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"bounds has changed to 'minmax' after fit\. Call fit again"):
        clf.set_params(bounds="minmax").certify(X)
    labels = clf.fit(X, y).certify(X).labels
    older = pickle.loads(pickle.dumps(clf))
    del older._declared["bounds"]
    np.testing.assert_array_equal(older.certify(X).labels, labels)
    np.testing.assert_array_equal(clf.set_params(bounds=([0.25], [0.75])).certify(X).labels, labels)


# The edges


@pytest.mark.parametrize(
    "noise",
    [
        UniformNoise(1e-4),
        UniformNoise(1e2),
        SplitNoise(1e-4),
        SplitNoise(0.3),
        SplitNoise(1e2),
    ],
)
@pytest.mark.parametrize("radius", ["lipschitz", "box", "greedy"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1)])
def test_extremes_are_right_and_raise_no_warnings(noise, radius, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels, radii = rule(constant, noise=noise, radius=radius).certify(np.full(shape, 0.25))
    margin = 2 * 0.001 ** (1 / 200) - 1
    assert (labels == 0).all()
    if noise.lam > 1 and radius != "lipschitz":
        assert (radii == np.inf).all()
    else:
        np.testing.assert_allclose(radii, noise.lam * margin, atol=6e-7, rtol=1e-3)


def test_constant_features_cannot_be_attacked():
    X = np.column_stack([np.linspace(0, 1, 50), np.full(50, 7.0)])
    y = (X[:, 0] > 0.5).astype(int)
    clf = SmoothedClassifier(GaussianNB(), UniformNoise(1.0), bounds="minmax", n_samples=500, random_state=0).fit(X, y)
    radii = clf.certify([[1.0, 7.0]]).radii
    assert 0 < radii[0] < np.inf
    np.testing.assert_array_equal(clf.certify([[1.0, 9.0]]).radii, radii)
    frozen = SmoothedClassifier(DummyClassifier(), bounds=([0, 7], [0, 7]), n_samples=500, random_state=0)
    assert frozen.fit(X * [0, 1], np.arange(50) > 20).certify([[0.0, 7.0]]).radii[0] == np.inf


def test_one_class_is_certified_everywhere():
    X = np.random.default_rng(0).random((20, 3))
    clf = SmoothedClassifier(DummyClassifier(), n_samples=1, random_state=0).fit(X, ["only"] * 20)
    labels, radii = clf.certify(X)
    assert (labels == "only").all()
    assert (radii == np.inf).all()


def test_a_thousand_classes():
    """The paper's example: 40 % for one class is enough if every other class is rare."""

    X = np.full((1, 1), 0.5)
    noise = UniformNoise(lam=1.0)
    params = {"classes": range(1000), "noise": noise, "n_samples": 5000}
    wide = rule(lambda X: np.where(X[:, 0] < 0.3, 0, 1 + (X[:, 0] * 1e6).astype(int) % 999), **params)
    labels, radii = wide.certify(X)
    assert labels[0] == 0
    assert radii[0] == pytest.approx(0.4 - 0.03, abs=0.03)
    assert wide.set_params(scheme="binary").certify(X).abstained.all()


def test_abstains_when_no_class_leads():
    certificates = rule(steps([0.5]), noise=UniformNoise(lam=1.0)).certify(np.full((20, 2), 0.5))
    assert certificates.abstained.all()
    assert np.isnan(certificates.radii).all()
    assert not (certificates.radii >= 0).any()
    assert (certificates.margin <= 0).all()


def test_import_is_light():
    code = "import smoothcert, sys; print([m for m in ('torch', 'matplotlib', 'dask', 'ray') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Bad input: one test for each row of the design's table


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: np.where(X > 0.9, np.nan, X), "Input X contains NaN. .* impute"),
        (lambda X: np.where(X > 0.9, np.inf, X), "Input X contains infinity.* impute"),
        (lambda X: X[:, :3], "X has 3 features, but SmoothedClassifier is expecting 30 features"),
        (lambda X: X[0], "Expected 2D array, got 1D array instead"),
        (lambda X: X[:, :, None], r"Found array with dim 3: .* Use X.reshape\(len\(X\), -1\)"),
        (lambda X: np.full(X.shape, "red"), "X must hold numbers, but column 0 holds .*'red'.*. Encode it first"),
        (lambda X: np.full(X.shape, "red", dtype=object), "X must hold numbers, but column 0 holds 'red'. Encode it"),
        (lambda X: pd.DataFrame(X).assign(**{"4": "red"}).set_axis(range(31), axis=1), "column 30 holds 'red'"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "certify", "count_votes"])
def test_bad_x(fitted, cancer, spoil, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(fitted, method)(spoil(cancer[1]))


def test_bad_x_in_fit(cancer):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(GaussianNB())
    with pytest.raises(ValueError, match=r"ranges from 0 to 255\. Scale X into the box, or set bounds .*minmax"):
        clf.fit(X * 255, y)
    with pytest.raises(ValueError, match="column 'color' holds 'red'"):
        clf.fit(pd.DataFrame({"size": [0.1, 0.2], "color": ["red", "blue"]}), [0, 1])
    frame = pd.DataFrame({"size": [0.1, 0.2], "color": pd.Categorical(["red", "blue"])})
    with pytest.raises(ValueError, match="column 'color' holds 'red'"):
        clf.fit(frame, [0, 1])
    with pytest.raises(ValueError, match="column 'day' holds Timestamp"):
        clf.fit(pd.DataFrame({"size": [0.1, 0.2], "day": pd.to_datetime(["2020-01-01"] * 2)}), [0, 1])
    with pytest.raises(ValueError, match=r"contains NaN.* impute"):
        clf.fit(pd.DataFrame({"size": [0.1, None]}, dtype=object), [0, 1])
    with pytest.raises(ValueError, match="y must hold labels of one type"):
        clf.fit(X[:2], np.array(["a", 1], dtype=object))
    with pytest.raises(ValueError, match="X must lie on the lattice of levels=255"):
        clone(clf).set_params(training=None, noise=SplitNoise(levels=255)).fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(X, y[:-1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"noise": SplitNoise(lam=0)}, "lam must be a finite number above 0, got 0"),
        ({"noise": SplitNoise(levels=0)}, 'levels must be "auto" .* whole number'),
        ({"noise": "laplacian"}, "noise must be one of 'split', .*'uniform', .* or a Noise object, got 'laplacian'"),
        ({"noise": BoxRadius()}, "noise must be one of .* got BoxRadius()"),
        (
            {"training": "adversarial"},
            "training must be one of 'augment', 'stability', None, or a Training object, got 'adversarial'",
        ),
        ({"training": NoiseAugmentation(n_copies=0)}, "n_copies must be a whole number of at least 1, got 0"),
        ({"training": NoiseAugmentation(standardize="yes")}, "standardize must be True or False, got 'yes'"),
        ({"bounds": (1, 0)}, "bounds must be a pair"),
        ({"random_state": "dice"}, "random_state must be None, an int .* got 'dice'"),
        ({"estimator": LinearRegression()}, "estimator must be a scikit-learn classifier, .* got LinearRegression()"),
        ({"estimator": LogisticRegression}, r"estimator must be .* Pass an instance: LogisticRegression\(\)"),
        ({"estimator": None}, "estimator must be .* got None. Pass a model"),
        ({"estimator": "model.pt"}, "estimator must be .* got 'model.pt'. Load the model first"),
        ({"alpha": 5}, "alpha must lie strictly between 0 and 1, got 5"),
        ({"n_samples": 3}, "n_samples=3 cannot certify"),
        ({"radius": "gredy"}, "radius must be one of"),
        ({"batch_size": True}, "batch_size must be a whole number"),
    ],
)
def test_bad_parameters_of_fit(cancer, params, message):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(GaussianNB()).set_params(**params)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0}, "alpha must lie strictly between 0 and 1, got 0"),
        ({"alpha": 1}, "alpha must lie strictly between 0 and 1, got 1"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
        ({"n_samples": 1e4}, "n_samples must be a whole number of at least 1, got 10000.0"),
        ({"n_samples": 9}, "n_samples=9 cannot certify even a unanimous vote .* at least 10"),
        ({"n_selection": 0}, "n_selection must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": "big"}, "batch_size must be a whole number of at least 1, got 'big'"),
        ({"n_jobs": "2"}, "n_jobs must be None or an int other than 0, got '2'"),
        ({"n_jobs": 0}, "n_jobs must be None or an int other than 0, got 0"),
        ({"n_jobs": 2.0}, "n_jobs must be None or an int other than 0, got 2.0"),
        ({"scheme": "one-vs-one"}, "scheme must be one of 'multiclass', 'binary'"),
        ({"bound": "normal"}, "bound must be one of 'clopper-pearson'"),
        ({"radius": "lip"}, "radius must be one of 'auto', 'lipschitz', 'box', 'greedy', or a RadiusStrategy object"),
        ({"radius": LipschitzRadius(norm=2)}, r"LipschitzRadius\(norm=2\) has no certificate for SplitNoise"),
        ({"radius": BoxRadius(closed_form=1)}, "closed_form must be True or False, got 1"),
    ],
)
def test_bad_parameters_of_certify(fitted, cancer, params, message):
    clf = clone_fitted(fitted).set_params(**params)
    with pytest.raises(ValueError, match=message):
        clf.certify(cancer[1])


def test_closed_form_for_narrow_noise():
    with pytest.raises(ValueError, match="needs lam > 1/2, times the largest cost, got SplitNoise"):
        rule(constant, noise=SplitNoise(0.4), radius=BoxRadius(closed_form=True))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda X: np.zeros(len(X) - 1),
            r"base model Rule must return one label per row, shape \(16,\), but .*\(15,\)",
        ),
        (lambda X: np.zeros((len(X), 2)), "base model Rule must return one label per row"),
        (lambda X: np.full(len(X), 7), "base model Rule returned the label .*7.*, which is not among the classes"),
        (lambda X: np.full(len(X), -7), "base model Rule returned the label .*-7"),
        (lambda X: np.full(len(X), np.nan), "base model Rule returned the label .*nan"),
        (lambda X: np.full(len(X), "zero"), "base model Rule returned the label .*zero"),
        (lambda X: np.full(len(X), None), "base model Rule returned the label .*None"),
    ],
)
def test_base_models_that_answer_wrongly(answer, message):
    with pytest.raises(ValueError, match=message + ".*Nothing was certified"):
        rule(answer).certify([[0.5]])


def test_not_fitted(cancer):
    for method in ("predict", "predict_proba", "certify", "count_votes"):
        with pytest.raises(NotFittedError):
            getattr(SmoothedClassifier(GaussianNB()), method)(cancer[1])
    with pytest.raises(NotFittedError):
        SmoothedClassifier(FrozenEstimator(GaussianNB())).fit(cancer[0], cancer[2])


def test_pretrained_estimator_must_be_fitted():
    with pytest.raises(NotFittedError):
        SmoothedClassifier.from_pretrained(GaussianNB(), [0, 1])


@pytest.mark.parametrize("classes", [[], [1, 1], [[1, 2]], 3])
def test_bad_classes_of_a_pretrained_model(classes):
    with pytest.raises(ValueError, match="classes must be a list of distinct labels"):
        SmoothedClassifier.from_pretrained(GaussianNB(), classes)


def test_pretrained_needs_bounds():
    with pytest.raises(ValueError, match='bounds="minmax" needs training data'):
        SmoothedClassifier.from_pretrained(GaussianNB(), [0, 1], bounds="minmax")


def test_strategies_may_be_objects(fitted, cancer):
    X_test = cancer[1][:20]
    by_name, by_object = (
        clone_fitted(fitted).set_params(radius=radius).certify(X_test) for radius in ("auto", GreedyRadius())
    )
    assert_same(by_name, by_object)


def test_masked_and_lazy_targets_are_refused():
    X = np.random.default_rng(0).random((20, 2))
    y = (X[:, 0] > 0.5).astype(int)
    clf = SmoothedClassifier(LogisticRegression(), NARROW, **SMALL).fit(X, y)
    for bad, message in [
        (np.ma.array(y, mask=y == 1), "holds masked values"),
        (pl.LazyFrame({"y": y}), "must hold data, got a LazyFrame"),
    ]:
        for call in (clone(clf).fit, clf.score):
            with pytest.raises(ValueError, match=f"^y {message}"):
                call(X, bad)
            with pytest.raises(ValueError, match=f"^sample_weight {message}"):
                call(X, y, sample_weight=bad)
        with pytest.raises(ValueError, match=f"^y {message}"):
            clf.certify(X, y=bad)
    assert clf.score(torch.tensor(X), torch.tensor(y)) == clf.score(X, y)
