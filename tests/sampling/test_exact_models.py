"""Exact probabilities of models and steps of other kinds, and of models that do not vote as they read."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from smoothcert import SmoothedClassifier
from smoothcert.models.adapt import make_voter
from smoothcert.models.columns import Columns
from smoothcert.models.timeout import TimedVoter
from smoothcert.noise import SplitNoise, UniformNoise
from smoothcert.sampling import exact
from smoothcert.sampling._outcome_sums import LeafSum, ScoreSum
from smoothcert.sampling._trees import read
from smoothcert.sampling.exact import ExactVotes, NotExactError, exact_votes

from .test_exact import (
    BOXES,
    NUMBERS,
    assert_exact,
    assert_inside,
    enumerated,
    fitted,
    labeled_inputs,
    lattice_inputs,
    mechanism_of,
)


def xgboost_model(**params):
    module = pytest.importorskip("xgboost")
    return module.XGBClassifier(**{"n_estimators": 20, "max_depth": 1, "n_jobs": 1} | params)


def lightgbm_model(**params):
    module = pytest.importorskip("lightgbm")
    return module.LGBMClassifier(
        **{"n_estimators": 20, "max_depth": 1, "min_child_samples": 2, "verbose": -1, "n_jobs": 1} | params
    )


BOOSTED = {"xgboost": xgboost_model, "lightgbm": lightgbm_model}


def trained(model, mechanism, n_classes=2, n=120, **params):
    """A model of another library that has met noisy inputs, and inputs to certify."""
    X, y = labeled_inputs(mechanism, n_classes, n)
    noisy = mechanism.noisy(np.repeat(X, 5, axis=0), np.random.default_rng(1))
    return model.fit(noisy, np.repeat(y, 5), **params), lattice_inputs(mechanism, 5, seed=1)


@pytest.mark.parametrize("box", BOXES, ids=["unit", "raw"])
@pytest.mark.parametrize("noise", [UniformNoise(0.7, levels=4), SplitNoise(0.5, levels=4)], ids=repr)
@pytest.mark.parametrize("name", BOOSTED)
def test_boosted_trees_of_other_libraries(name, noise, box):
    mechanism = mechanism_of(noise, box)
    model, X = trained(BOOSTED[name](), mechanism)
    truth = assert_exact(model, mechanism, X, [0, 1])
    assert (np.min(truth, axis=1) > 0).any()


@pytest.mark.parametrize("name", BOOSTED)
def test_labels_of_any_type(name):
    """XGBoost takes class indices alone, so that `fit` keeps the labels."""
    clf = SmoothedClassifier(BOOSTED[name](), UniformNoise(0.7, levels=4), estimation="exact", random_state=0)
    X, y = labeled_inputs(mechanism_of(clf.noise, BOXES[0]))
    expected = clf.fit(X, y).certify(X[:20])
    found = clf.fit(X, np.array(["no", "yes"])[y]).certify(X[:20])
    np.testing.assert_array_equal(found.labels, np.array(["no", "yes"])[expected.labels])
    np.testing.assert_array_equal(found.radii, expected.radii)


@pytest.mark.parametrize("name", BOOSTED)
def test_three_classes_of_other_libraries(name):
    mechanism = mechanism_of(SplitNoise(0.75, levels=4), BOXES[1], d=2)
    model, X = trained(BOOSTED[name](n_estimators=5, max_depth=2), mechanism, n_classes=3)
    truth = assert_exact(model, mechanism, X, [0, 1, 2])
    assert (truth.max(axis=0) > 0.05).all()


@pytest.mark.parametrize("name", BOOSTED)
def test_other_libraries_on_a_grid(name, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(UniformNoise(0.7, levels=4), BOXES[1])
    model, X = trained(BOOSTED[name](), mechanism)
    votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
    assert isinstance(votes.outcome_sum, ScoreSum)
    lower, upper = votes.bounds(X)
    assert_inside(enumerated(model, mechanism, X, [0, 1]), lower, upper)
    assert np.max(upper - lower) < 0.01


@pytest.mark.parametrize("name", BOOSTED)
def test_the_error_covers_the_sums_of_other_libraries(name, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(SplitNoise(0.5, levels=4), BOXES[1])
    model, X = trained(BOOSTED[name](n_estimators=200), mechanism)
    votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
    arrays, rows = read(model, *NUMBERS), X.astype(votes.model.real)
    scores = np.full(len(X), arrays.constant)
    for tree in arrays.trees:
        left = rows[:, tree.feature[0]] <= tree.threshold[0]
        scores += np.where(left, tree.value[tree.left[0]], tree.value[tree.right[0]])
    margins = model.predict(X, output_margin=True) if name == "xgboost" else model.predict(X, raw_score=True)
    assert np.abs(scores - margins).max() < votes.outcome_sum.slack < 1e-3


def test_thresholds_of_xgboost_that_noisy_values_meet():
    """XGBoost compares float32 by <, and its thresholds are values that it has met in training."""
    mechanism = mechanism_of(UniformNoise(0.7, levels=4), BOXES[1])
    model, X = trained(xgboost_model(), mechanism)
    met = {
        (int(tree.feature[0]), float(np.nextafter(np.float32(tree.threshold[0]), np.float32(np.inf))))
        for tree in read(model, *NUMBERS).trees
    }
    noisy = mechanism.noisy(np.repeat(X, 500, axis=0), np.random.default_rng(2)).astype(np.float32)
    assert sum(threshold in noisy[:, feature].astype(float) for feature, threshold in met) > 5
    assert_exact(model, mechanism, X, [0, 1])


def test_xgboost_that_has_met_one_class_is_sampled():
    X = np.random.default_rng(0).random((20, 2))
    clf = SmoothedClassifier(xgboost_model(), n_samples=100, random_state=0)
    clf.fit(X, np.zeros(20, dtype=int))
    assert clf.certify(X[:2]).labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"base_score between 0 and 1, got 0\. Use estimation='sample'"):
        clf.set_params(estimation="exact").certify(X[:2])


def test_early_stopping_of_other_libraries():
    xgboost, lightgbm = (
        xgboost_model(n_estimators=300, early_stopping_rounds=3, learning_rate=1.0),
        lightgbm_model(n_estimators=300, learning_rate=1.0),
    )
    stopping = pytest.importorskip("lightgbm").early_stopping(3, verbose=False)
    mechanism = mechanism_of(UniformNoise(0.7, levels=4), BOXES[1])
    X = lattice_inputs(mechanism, 60, seed=5)
    validation = [(X, np.arange(60) % 2)]
    for model, params in ((xgboost, {"verbose": False}), (lightgbm, {"callbacks": [stopping]})):
        model, chosen = trained(model, mechanism, eval_set=validation, **params)
        assert len(read(model, *NUMBERS).trees) < 300
        assert_exact(model, mechanism, chosen, [0, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: xgboost_model(booster="dart"), "gbtree"),
        (lambda: xgboost_model(missing=0.0), "missing"),
        (lambda: lightgbm_model(linear_tree=True), "linear_tree"),
        (lambda: lightgbm_model(zero_as_missing=True), "zero_as_missing"),
        (lambda: lightgbm_model(pred_early_stop=True), "pred_early_stop"),
        (lambda: xgboost_model(max_depth=3, n_estimators=50), "depth 1"),
        (lambda: xgboost_model(objective="binary:logitraw", n_estimators=50), "depth 1"),
    ],
)
def test_what_other_libraries_have_no_exact_probabilities_for(make, words, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 100)
    mechanism = mechanism_of(UniformNoise(0.7), BOXES[1])
    model, X = trained(make(), mechanism)
    with pytest.raises(NotExactError, match=words):
        exact_votes(model, mechanism, X, [0, 1])


def test_categories_of_other_libraries():
    pandas = pytest.importorskip("pandas")
    mechanism = mechanism_of(UniformNoise(0.7, levels=4), BOXES[0])
    X = lattice_inputs(mechanism, 60)
    frame = pandas.DataFrame(np.rint(X * 4).astype(int), columns=["a", "b", "c"]).astype("category")
    y = (X[:, 0] * 4 % 2 < 1).astype(int)
    for model in (
        xgboost_model(enable_categorical=True, tree_method="hist"),
        lightgbm_model(min_data_per_group=1, cat_smooth=0.0),
    ):
        voter = make_voter(model.fit(frame, y), np.array([0, 1]))
        with pytest.raises(NotExactError, match="without categories"):
            ExactVotes(voter, mechanism)


# Steps

STEPS = {
    "bins": lambda: KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "binary": lambda: Binarizer(threshold=0.3),
    "columns": lambda: ColumnTransformer(
        [("last", StandardScaler(), [2]), ("both", make_pipeline(MinMaxScaler(), "passthrough"), slice(0, 3, 2))],
        remainder="passthrough",
    ),
    "mask": lambda: ColumnTransformer([("some", "drop", [True, False, False]), ("rest", "passthrough", [2, 1])]),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_that_treat_each_column_separately(name):
    certain = []
    for box in BOXES:
        mechanism = mechanism_of(SplitNoise(0.5, levels=4), box)
        for model in (DecisionTreeClassifier(random_state=0), GradientBoostingClassifier(n_estimators=9, max_depth=1)):
            model, X = trained(make_pipeline(STEPS[name](), model), mechanism)
            truth = assert_exact(model, mechanism, X, [0, 1])
            certain += (np.min(truth, axis=1) == 0).tolist()
    assert not all(certain)


def test_columns_by_name():
    pandas = pytest.importorskip("pandas")
    mechanism = mechanism_of(SplitNoise(0.5, levels=4), BOXES[1])
    X = lattice_inputs(mechanism, 60)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    y = (X[:, 2] > X[:, 2].mean()).astype(int)
    steps = ColumnTransformer([("named", StandardScaler(), ["c", "a"])])
    model = make_pipeline(steps, DecisionTreeClassifier()).fit(frame, y)
    assert read(model, *NUMBERS).source.tolist() == [2, 0]
    bounds = ExactVotes(make_voter(model, np.array([0, 1]), columns=Columns.of(frame)), mechanism).bounds(X[:5])
    np.testing.assert_array_equal(bounds, exact_votes(DecisionTreeClassifier().fit(X, y), mechanism, X[:5], [0, 1]))


@pytest.mark.parametrize(
    "step",
    [
        KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
        QuantileTransformer(n_quantiles=20),
        ColumnTransformer([("mixed", PCA(2), [0, 1])]),
        ColumnTransformer([("own", FunctionTransformer(np.negative), [0, 1])]),
        ColumnTransformer([("inside", make_pipeline(StandardScaler(), PCA(1)), [0, 1])], remainder="passthrough"),
    ],
    ids=["one-hot", "quantiles", "part", "function", "inside"],
)
def test_steps_without_exact_probabilities(step):
    mechanism = mechanism_of(UniformNoise(0.7), BOXES[1])
    model, X = trained(make_pipeline(step, DecisionTreeClassifier()), mechanism)
    with pytest.raises(NotExactError, match="increasing function"):
        exact_votes(model, mechanism, X, [0, 1])


# Models that vote otherwise than was read of them


def in_float64(arrays):
    return arrays._replace(real=np.float64)


def strictly_below(arrays):
    trees = [tree._replace(threshold=np.nextafter(np.float32(tree.threshold), -np.inf)) for tree in arrays.trees]
    return arrays._replace(trees=trees)


def other_sign(arrays):
    trees = [tree._replace(value=1 - tree.value if arrays.votes else -tree.value) for tree in arrays.trees]
    return arrays._replace(trees=trees, constant=-arrays.constant)


@pytest.mark.parametrize("mistake", [in_float64, strictly_below, other_sign])
@pytest.mark.parametrize(("name", "kind"), [("tree", LeafSum), ("ada", ScoreSum), ("gradient", ScoreSum)])
def test_a_wrong_reading_is_noticed(name, kind, mistake, monkeypatch):
    """Thresholds of scikit-learn's trees equal float32 values that are noisy values here, rounded."""
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(UniformNoise(0.7, levels=4), BOXES[1])
    model = fitted(name, mechanism)
    values = mechanism.noisy(lattice_inputs(mechanism, 200), np.random.default_rng(0)).astype(np.float32)
    single = [model] if name == "tree" else model.estimators_.ravel() if name == "gradient" else model.estimators_
    for tree in (one.tree_ for one in single):
        for node in np.flatnonzero(tree.feature >= 0):
            column = values[:, tree.feature[node]]
            # The rounded value lies below the value itself: in float64 the value is above the threshold.
            tree.threshold[node] = column[np.abs(column - tree.threshold[node]).argmin()]
    voter = make_voter(model, np.array([0, 1]))
    assert isinstance(ExactVotes(voter, mechanism).outcome_sum, kind)
    monkeypatch.setattr(exact, "read", lambda estimator, *kinds: mistake(read(estimator, *kinds)))
    with pytest.raises(NotExactError, match="votes as its trees say"):
        ExactVotes(voter, mechanism)


def test_a_model_with_a_time_limit():
    mechanism = mechanism_of(UniformNoise(0.5, levels=4), BOXES[0])
    voter, X = make_voter(fitted("hist", mechanism), np.array([0, 1])), lattice_inputs(mechanism, 3)
    bounds = [ExactVotes(one, mechanism).bounds(X) for one in (voter, TimedVoter(voter, 10.0))]
    np.testing.assert_array_equal(*bounds)
