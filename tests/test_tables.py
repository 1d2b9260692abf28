"""Mixed tables from end to end: the base model sees the user's columns, and certificates speak of their changes."""

import datetime as dt
import pickle
import re
import warnings
from importlib.util import find_spec

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from smoothcert import (
    Certificates,
    CleanTraining,
    RowChanges,
    SmoothedClassifier,
    UniformMixtureNoise,
    UniformNoise,
    baselines,
)
from smoothcert.attacks import CoordinateAttack
from smoothcert.results import make_certified_scorer, summarize
from smoothcert.weights import save_weights, trusted_types

from .processes import run_python

N, TEST = 300, 24
RNG = np.random.default_rng(0)
DATA = {
    "age": RNG.uniform(0, 90, N),
    "job": RNG.choice(["clerk", "cook", "pilot"], N).tolist(),
    "rooms": RNG.integers(1, 9, N),
    "flag": RNG.random(N) < 0.3,
    "kind": RNG.choice(["x", "y"], N).tolist(),
    "town": [None if i % 7 == 0 else "PQ"[i % 2] for i in range(N)],
    "day": [dt.datetime(2020, 1, 1) + dt.timedelta(days=int(i)) for i in RNG.integers(0, 9, N)],
    "score": np.where(RNG.random(N) < 0.2, np.nan, RNG.random(N)),
}
PANDAS = pd.DataFrame(DATA, index=[f"r{i}" for i in range(N)]).astype({"kind": "category"})
POLARS = pl.DataFrame(DATA).with_columns(pl.col("kind").cast(pl.Categorical))
FRAMES = {"pandas": PANDAS, "polars": POLARS}
SCORE = DATA["age"] / 90 + 0.6 * (np.array(DATA["job"]) == "cook") + 0.2 * (np.array(DATA["kind"]) == "x")
Y = np.where(SCORE > 0.7, "good", "bad")
BOUNDS = {"age": (0, 90), "rooms": (1, 8)}
COSTS = {"town": "fixed", "day": "fixed", "score": "fixed", "rooms": 2.0}


class Recorder(ClassifierMixin, BaseEstimator):
    """A base model by one column that checks what it gets against the user's columns."""

    def __init__(self, column="age"):
        self.column = column

    def fit(self, X, y):
        self.classes_, self.columns_ = np.unique(y), list(X.columns)
        self.seen_ = [X]
        return self

    def predict(self, X):
        assert list(X.columns) == self.columns_
        self.seen_.append(X)
        return self.classes_[(np.asarray(X[self.column]) > 45).astype(int)]


def one_hot():
    return make_column_transformer(
        (OneHotEncoder(), ["job", "kind", "town"]),
        (StandardScaler(), ["age", "rooms"]),
        ("passthrough", ["flag"]),
    )


def smoothed(model=None, noise=None, **params):
    model = make_pipeline(one_hot(), LogisticRegression()) if model is None else model
    given = {"bounds": BOUNDS, "costs": COSTS, "categorical_features": "from_dtype", "n_samples": 200}
    return SmoothedClassifier(model, noise or UniformNoise(1.5), **(given | {"random_state": 0} | params))


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


@pytest.mark.parametrize("library", FRAMES)
def test_tables_are_read_row_by_row_where_rows_may_be_skipped(library):
    X = FRAMES[library]
    clf = smoothed(Recorder(), n_selection=20).fit(X, Y)
    assert_same(clf.certify(X[:TEST], on_error="skip"), clf.certify(X[:TEST]))


@pytest.mark.parametrize("library", FRAMES)
def test_the_base_model_sees_the_users_columns(library):
    X = FRAMES[library]
    clf = smoothed(Recorder(), n_selection=20).fit(X, Y)
    clf.predict(X[:TEST])
    for seen in clf.estimator_.seen_:
        assert type(seen) is type(X)
        as_given = ["town", "day", "score"]
        assert [str(seen[name].dtype) for name in as_given] == [str(X[name].dtype) for name in as_given]
        assert str(seen["rooms"].dtype).lower() == str(seen["age"].dtype).lower() == "float64"
        assert str(seen["kind"].dtype).startswith(("category", "Categorical"))
    first = clf.estimator_.seen_[0]
    assert set(first["job"].to_list()) == {"clerk", "cook", "pilot", "hidden"}
    assert set(first["flag"].to_list()) == {0, 1, 2}
    for name in as_given:
        copies = first[name].to_list()
        assert pd.Series(copies).equals(pd.Series(X[name].to_list() * (len(copies) // N)))
    shown = np.array(first["job"].to_list()[:N])
    assert set(shown[shown != np.array(DATA["job"])]) == {"hidden"}
    # Shown with probability 1/3 at lam=1.5.
    assert abs(np.mean(np.array(first["job"].to_list()) != "hidden") - 1 / 3) < 0.03


@pytest.mark.parametrize("library", FRAMES)
def test_certificates_speak_of_columns(library):
    X = FRAMES[library]
    clf = smoothed().fit(X, Y)
    certificates = clf.certify(X[:TEST])
    assert (certificates.labels == Y[:TEST]).mean() > 0.7
    assert np.nanmax(certificates.radii) > 0.3
    for words in (
        "'town', 'day', 'score' as they are",
        "categories of columns 'job', 'flag', 'kind'",
        "2 for column 'rooms'",
    ):
        assert words in certificates.threat
    # The base model does not look at them: another day or score changes no vote, but a new key.
    assert clf.features_.fixed.tolist() == [False] * 5 + [True] * 3


def test_both_libraries_get_the_same_certificates():
    without = ["age", "job", "rooms", "flag", "kind", "town", "score"]
    X, Z = PANDAS[without], POLARS[without]
    costs = {name: cost for name, cost in COSTS.items() if name != "day"}
    found = [smoothed(costs=costs).fit(frame, Y).certify(frame[:TEST]) for frame in (X, Z)]
    assert_same(*found)


@pytest.mark.parametrize("noise", ["split", UniformMixtureNoise([0.5, 2.0], [0.5, 0.5])])
def test_other_noise(noise):
    clf = smoothed(DecisionTreeClassifier(max_depth=3), noise, training=None)
    clf = clf.set_params(estimator=make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=3)), training="augment")
    certificates = clf.fit(PANDAS, Y).certify(PANDAS[:TEST])
    assert np.nanmax(certificates.radii) > 0.1
    with pytest.raises(ValueError, match="categorical_features need uniform, splitting or mixture noise"):
        smoothed(noise="gaussian", costs={"town": "fixed", "day": "fixed", "score": "fixed"}).fit(PANDAS, Y)


@pytest.mark.parametrize("library", FRAMES)
def test_columns_selected_by_type(library):
    X, words = FRAMES[library], ["object", "category", "string"]
    numbers = make_column_selector(dtype_include="number")
    if library == "polars":
        from polars import selectors as cs

        by_type = [(OneHotEncoder(), lambda X: X.select(cs.string() | cs.categorical()).columns)]
        by_type += [(StandardScaler(), ["age", "rooms"])]
    else:
        by_type = [(OneHotEncoder(), make_column_selector(dtype_include=words)), (StandardScaler(), numbers)]
    model = make_pipeline(make_column_transformer(*by_type), LogisticRegression())
    names = [name for name in DATA if name not in ("score", "day")]
    clf = smoothed(model, costs={"town": "fixed"}).fit(X[names], Y)
    assert (clf.certify(X[names][:TEST]).labels == Y[:TEST]).mean() > 0.7


def test_native_categories_of_boosted_trees():
    X = PANDAS.drop(columns=["day", "flag"]).astype({"job": "category", "town": "category"})
    costs = {"town": "fixed", "score": "fixed"}
    boosted = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, min_samples_leaf=20)
    clf = smoothed(boosted, costs=costs, training=None, hidden="uniform").fit(X, Y)
    np.testing.assert_array_equal(clf.estimator_.is_categorical_, [False, True, False, True, True, False])
    labels = clf.certify(X[:TEST]).labels
    assert set(labels) == {"good", "bad"}
    assert (labels == Y[:TEST]).mean() > 0.6


def test_a_model_that_refuses_the_mask_gets_other_categories():
    known = [["clerk", "cook", "pilot"], ["x", "y"]]
    encode = make_column_transformer((OneHotEncoder(categories=known), ["job", "kind"]), ("passthrough", ["age"]))
    model = make_pipeline(encode, LogisticRegression(max_iter=1000))
    clf = smoothed(model).fit(PANDAS, Y)
    assert clf.features_.hidden == "uniform"
    assert_same(
        clf.certify(PANDAS[:TEST]), clone(clf).set_params(hidden="uniform").fit(PANDAS, Y).certify(PANDAS[:TEST])
    )
    with pytest.raises(ValueError, match=r"unknown categories \['hidden'\]"):
        clone(clf).set_params(hidden="mask").fit(PANDAS, Y)
    assert smoothed().fit(PANDAS, Y).features_.hidden == "mask"
    with pytest.raises(ValueError, match="hidden must be one of 'auto', 'mask', 'uniform', got 'yes'"):
        smoothed(hidden="yes").fit(PANDAS, Y)


def test_fitted_models_are_used_as_they_are():
    model = make_pipeline(one_hot(), LogisticRegression()).fit(PANDAS, Y)
    clf = smoothed(FrozenEstimator(model)).fit(PANDAS, Y)
    assert clf.features_.hidden == "uniform"
    assert clf.estimator_.estimator is model
    assert len(clf.certify(PANDAS[:TEST])) == TEST
    with pytest.raises(ValueError, match="columns that the base model Pipeline was fitted on"):
        smoothed(FrozenEstimator(model)).fit(PANDAS[PANDAS.columns[::-1]], Y)
    with pytest.raises(
        ValueError, match=r"needs data that hold the categories. Use SmoothedClassifier\(FrozenEstimator"
    ):
        SmoothedClassifier.from_pretrained(model, ["bad", "good"], categorical_features="from_dtype")


def test_arrays_of_mixed_values():
    X = np.column_stack([np.array(DATA[name], dtype=object) for name in ("age", "job", "town")])
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), [1, 2]), (StandardScaler(), [0])), LogisticRegression()
    )
    params = {"bounds": ([0, 0, 0], [90, 0, 0]), "costs": [1.0, 1.0, "fixed"], "categorical_features": [1]}
    clf = smoothed(model, **params).fit(X, Y)
    certificates = clf.certify(X[:TEST])
    assert (certificates.labels == Y[:TEST]).mean() > 0.7
    assert_same(clf.certify(X[:TEST].tolist()), certificates)
    names = ["age", "job", "town"]
    by_name = make_pipeline(
        make_column_transformer((OneHotEncoder(), names[1:]), (StandardScaler(), names[:1])), LogisticRegression()
    )
    framed = smoothed(by_name, bounds={"age": (0, 90)}, costs={"town": "fixed"}).fit(PANDAS[names], Y)
    np.testing.assert_allclose(framed.certify(PANDAS[names][:TEST]).radii, certificates.radii)


def test_numbers_as_categories_of_arrays():
    X = np.column_stack([DATA["age"] / 90, DATA["rooms"], DATA["score"]])
    clf = smoothed(DecisionTreeClassifier(max_depth=3), bounds=(0, 1), costs=[1, 2, np.inf], categorical_features=[1])
    clf.fit(X, Y)
    assert clf.features_.n_categories.tolist() == [0, 8, 0]
    assert (clf.certify(X[:TEST]).labels == Y[:TEST]).mean() > 0.5
    X[3, 1] = 70
    with pytest.raises(ValueError, match=r"unknown category 70.0 in feature 1"):
        clf.certify(X[:TEST])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"job": "sailor"}, "X holds the unknown category 'sailor' in column 'job'"),
        ({"job": None}, "X has a missing value in column 'job'"),
        ({"age": np.nan}, "X contains NaN in column 'age'"),
    ],
)
def test_bad_values_name_their_column(changed, message):
    clf = smoothed(DecisionTreeClassifier(), training=None)
    clf.set_params(estimator=make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=2)))
    clf.fit(PANDAS, Y)
    with pytest.raises(ValueError, match=message):
        clf.certify(PANDAS[:TEST].assign(**changed))
    with pytest.raises(ValueError, match="feature names should match"):
        clf.certify(PANDAS[PANDAS.columns[::-1]][:TEST])
    with pytest.raises(ValueError, match=r"The feature names should match|has 7 features, but"):
        clf.certify(PANDAS.drop(columns="age")[:TEST])


def test_words_without_a_declaration_are_refused_with_the_remedies():
    with pytest.raises(ValueError, match=r"column 'job' holds .*categorical_features='from_dtype'.*'fixed'"):
        smoothed(categorical_features=["kind", "flag"]).fit(PANDAS, Y)


def test_a_base_model_that_cannot_read_words_is_refused_with_the_remedy():
    X = PANDAS[["age", "job"]]
    trees = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype")
    clf = smoothed(trees, costs=1.0, bounds={"age": (0, 90)})
    with pytest.raises(ValueError, match="could not convert string to float") as found:
        clf.fit(X, Y)
    assert "OneHotEncoder" in found.value.__notes__[0]
    assert "give it the dtype 'category'" in found.value.__notes__[0]
    assert clf.fit(X.astype({"job": "category"}), Y).features_.hidden == "mask"


def test_a_category_whose_change_no_radius_covers_is_named():
    X = PANDAS[["age", "job", "kind"]]
    encode = make_column_transformer((OneHotEncoder(), ["job", "kind"]), remainder="passthrough")
    clf = smoothed(make_pipeline(encode, DecisionTreeClassifier(max_depth=3)), UniformNoise(0.6))
    clf.set_params(costs={"job": 0.6, "kind": 0.5}, bounds={"age": (0, 90)})
    with pytest.warns(UserWarning, match=r"Radii will not cover a change of \['job'\], which costs up to 0.6"):
        clf.fit(X, Y)
    certificates = clf.certify(X[:TEST])
    assert 0 < np.nanmax(certificates.radii) <= 0.6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.set_params(costs={"job": 0.59, "kind": 0.5}).fit(X, Y)


def test_a_category_with_one_value_can_not_change():
    X, rows = PANDAS[["age", "job"]].assign(job="clerk"), PANDAS[:TEST][["age", "job"]].assign(job="clerk")
    for model in (DecisionTreeClassifier(max_depth=3), LogisticRegression()):
        encode = make_column_transformer((OneHotEncoder(), ["job"]), remainder="passthrough")
        clf = smoothed(make_pipeline(encode, model), UniformNoise(1.2), hidden="uniform", costs=1.0)
        with pytest.warns(UserWarning, match="a single category in column 'job', so certificates cover"):
            clf.set_params(bounds={"age": (0, 90)}).fit(X, Y)
        certificates = clf.certify(rows)
        assert (certificates.labels == Y[:TEST]).mean() > 0.6
        row = int(np.nanargmax(certificates.radii))
        assert RowChanges.from_estimator(clf, rows.iloc[[row]]).columns["feature"] == ["age"]
        found = CoordinateAttack(n_samples=50, max_queries=2000, random_state=0).run(clf, rows[:1], radius=1.0)
        assert len(found) == 1


def test_a_constant_classifier_is_named_in_fit():
    rare = np.where(np.arange(N) < 40, "good", "bad")
    model = make_pipeline(one_hot(), LogisticRegression())
    with pytest.warns(UserWarning, match=r"predicts 'bad' for all of 64 training inputs of 2 classes.*class_weight"):
        smoothed(model, UniformNoise(3.0)).fit(PANDAS, rare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It learned something, or has too few inputs to tell.
        smoothed(model, UniformNoise(1.5)).fit(PANDAS, Y)
        smoothed(model, UniformNoise(3.0)).fit(PANDAS[20:], rare[20:])
        # Without noise in training, this model cannot vote on what it never saw: certification says so.
        smoothed(model, UniformNoise(3.0), training=None).fit(PANDAS, rare)


def test_a_base_model_that_cannot_vote_yet_is_fitted_without_the_warning():
    class Offline(DummyClassifier):
        def predict(self, X):
            raise RuntimeError("offline")

    clf = smoothed(make_pipeline(one_hot(), Offline()), UniformNoise(1.5)).fit(PANDAS, Y)
    with pytest.raises(RuntimeError, match="offline"):
        clf.certify(PANDAS[:TEST])


def test_missing_as_a_category():
    X = PANDAS[["age", "town"]]
    encode = make_column_transformer((OneHotEncoder(), ["town"]), ("passthrough", ["age"]))
    clf = smoothed(make_pipeline(encode, DecisionTreeClassifier(max_depth=3)), costs=1.0, bounds={"age": (0, 90)})
    with pytest.raises(ValueError, match=r"missing value in column 'town'\. Fill it in, or declare"):
        clf.fit(X, Y)
    clf.set_params(missing="category").fit(X, Y)
    assert clf.features_.n_categories.tolist() == [0, 3]
    assert len(clf.certify(X[:TEST])) == TEST


def test_parameters_that_decide_about_columns_must_not_change_after_fit():
    clf = smoothed(make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=2))).fit(PANDAS, Y)
    for change in ({"categorical_features": None}, {"hidden": "uniform"}, {"missing": "category"}):
        name = next(iter(change))
        before = clf.get_params()[name]
        with pytest.raises(ValueError, match=f"{name} has changed to"):
            clf.set_params(**change).predict(PANDAS[:2])
        clf.set_params(**{name: before})
    assert len(clf.predict(PANDAS[:2])) == 2


@pytest.mark.parametrize("library", FRAMES)
def test_pickles_clones_workers_and_given_votes(library):
    X = FRAMES[library]
    clf = smoothed(make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=3))).fit(X, Y)
    expected = clf.certify(X[:TEST])
    assert_same(pickle.loads(pickle.dumps(clf)).certify(X[:TEST]), expected)
    assert_same(clone(clf).fit(X, Y).certify(X[:TEST]), expected)
    with joblib.parallel_config(backend="loky"):
        assert_same(clone(clf).set_params(n_jobs=2).fit(X, Y).certify(X[:TEST]), expected)
    clf.set_params(estimation="sample")
    assert_same(clf.certify(X[:TEST], votes=clf.count_votes(X[:TEST])), clf.certify(X[:TEST]))


RESUME = """
import pickle, sys
import numpy as np
clf, X = pickle.load(open(sys.argv[1], "rb"))
np.save(sys.argv[3], clf.certify(X, store=sys.argv[2]).radii)
"""


@pytest.mark.parametrize("library", FRAMES)
def test_files_of_skops_hold_columns(library, tmp_path):
    io = pytest.importorskip("skops.io")
    names = ["age", "job", "town", "score"] + ["kind"] * (library == "pandas")
    encode = make_column_transformer((OneHotEncoder(), ["job", "town"]), ("passthrough", ["age"]))
    X, model = FRAMES[library][names], make_pipeline(encode, DecisionTreeClassifier(max_depth=3))
    clf = smoothed(model, bounds={"age": (0, 90)}, costs={"town": "fixed", "score": "fixed"}).fit(X, Y)
    io.dump(clf, tmp_path / "clf.skops")
    unknown = io.get_untrusted_types(file=tmp_path / "clf.skops")
    assert {*unknown} - {*trusted_types()} <= {"sklearn.tree._tree.Tree"}
    loaded = io.load(tmp_path / "clf.skops", trusted=unknown)
    assert_same(loaded.certify(X[:TEST]), clf.certify(X[:TEST]))


def test_a_store_is_resumed_in_another_process(tmp_path):
    clf = smoothed(make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=3))).fit(PANDAS, Y)
    X, store = PANDAS[:TEST], tmp_path / "run.sqlite"
    expected = clf.certify(X)
    (tmp_path / "clf.pkl").write_bytes(pickle.dumps((clf, X)))
    files = [tmp_path / "clf.pkl", store, tmp_path / "radii.npy"]
    assert_same(clf.certify(X, store=store), expected)
    run_python(RESUME, *files)
    np.testing.assert_array_equal(np.load(files[2]), expected.radii)
    assert_same(Certificates.from_store(store, X=None), expected)


@pytest.mark.filterwarnings("ignore:No change of the categories")
def test_inside_cross_validation_and_grid_search():
    clf = smoothed(noise=UniformNoise(0.7), n_samples=100)
    scores = cross_val_score(clf, PANDAS, pd.Series(Y, index=range(N, 0, -1)), cv=2)
    assert scores.min() > 0.7
    search = GridSearchCV(clf, {"noise__lam": [0.7, 30.0]}, cv=2, scoring=make_certified_scorer(0.05, average="macro"))
    assert search.fit(PANDAS, Y).best_params_ == {"noise__lam": 0.7}


def test_labels_with_an_index_are_read_by_position(tmp_path):
    shuffled = pd.Series(Y, index=np.random.default_rng(1).permutation(N))
    model = make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=3))
    clf, plain = smoothed(model).fit(PANDAS, shuffled), smoothed(model).fit(PANDAS, Y)
    certificates = clf.certify(PANDAS[:TEST], y=shuffled[:TEST], store=tmp_path / "run.sqlite")
    assert_same(certificates, plain.certify(PANDAS[:TEST]))
    truth, labels = shuffled[:TEST], certificates.labels
    assert certificates.summary(truth, [0.1]).accuracy == certificates.summary(Y[:TEST], [0.1]).accuracy
    frame = certificates.to_frame(y=truth, index=PANDAS[:TEST])
    assert frame.index.tolist() == PANDAS.index[:TEST].tolist()
    assert frame["truth"].tolist() == Y[:TEST].tolist()
    assert frame["correct"].tolist() == (labels == Y[:TEST]).tolist()
    assert clf.score(PANDAS[:TEST], truth) == np.mean(labels == Y[:TEST])


def test_limits_by_column_name_follow_the_columns():
    from smoothcert import GreedyRadius

    X = PANDAS[["age", "rooms"]]
    by_place = smoothed(DecisionTreeClassifier(max_depth=3), costs=1.0, bounds="minmax", categorical_features=None)
    by_place.set_params(radius=GreedyRadius(max_change=np.array([0.25, np.inf]))).fit(X, Y)
    expected = by_place.certify(X[:TEST])
    for limit in ({"age": 0.25}, pd.Series({"rooms": np.inf, "age": 0.25})):
        found = clone(by_place).set_params(radius=GreedyRadius(max_change=limit)).fit(X, Y).certify(X[:TEST])
        assert_same(found, expected)
        assert found.threat == expected.threat
    both = by_place.set_params(radius=GreedyRadius(max_change=({"rooms": 0.1}, pd.Series({"age": 0.2}))))
    given = clone(by_place).set_params(radius=GreedyRadius(max_change=([np.inf, 0.1], [0.2, np.inf]))).fit(X, Y)
    assert_same(both.certify(X[:TEST]), given.certify(X[:TEST]))
    with pytest.raises(
        ValueError, match=re.escape("max_change must name columns of X, each once: missing [], unknown")
    ):
        by_place.set_params(radius=GreedyRadius(max_change={"wage": 0.1})).certify(X[:TEST])
    with pytest.raises(ValueError, match="max_change by column name need columns with names"):
        clone(by_place).set_params(radius=GreedyRadius(max_change={"age": 0.1})).fit(X.to_numpy(), Y)
    with pytest.raises(ValueError, match="max_change by column name needs the columns, which are not known here"):
        GreedyRadius(max_change={"age": 0.1}).check(UniformNoise())


def test_validation_data_of_tables():
    class Early(Recorder):
        def fit(self, X, y, X_val=None, y_val=None):
            self.val_ = X_val
            return super().fit(X, y)

    clf = smoothed(Early(), n_selection=20).fit(PANDAS, Y, X_val=PANDAS[:50], y_val=Y[:50])
    seen = clf.estimator_.val_
    pd.testing.assert_series_equal(seen["town"], PANDAS["town"][:50].reset_index(drop=True))
    assert set(seen["job"]) == {"clerk", "cook", "pilot", "hidden"}
    assert seen["score"].equals(PANDAS["score"][:50].reset_index(drop=True))


def test_baselines():
    X = PANDAS.drop(columns=["score", "day"])
    truth = np.where((X["town"] == "P") ^ (RNG.random(N) < 0.05), "in", "out")
    clf = smoothed(make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=3)), costs={"town": "fixed"})
    certificates = clf.fit(X, truth).certify(X[:60])
    found = baselines(certificates, clf, X, pd.Series(truth, index=X.index), X[:60])
    assert list(found) == ["majority class", "fixed columns"]
    majority, fixed = found.values()
    assert np.isinf(fixed.radii).all()
    assert (fixed.labels == truth[:60]).mean() > 0.85
    assert (majority.labels == "out").all()
    table = summarize({"smoothed": certificates} | found, truth[:60], [0.0, 5.0], average="macro")
    assert table.accuracy["majority class"].tolist() == [0.5, 0.5]
    assert table.accuracy["fixed columns"][1] > 0.85
    other = X[:60].assign(age=3.0, job="cook", flag=True, kind="y")
    assert (baselines(certificates, clf, X, truth, other)["fixed columns"].labels == fixed.labels).all()
    plain = smoothed(DecisionTreeClassifier(), costs=1.0, categorical_features=None).fit(X[["age", "rooms"]], truth)
    only = baselines(
        plain.certify(X[["age", "rooms"]][:60]), plain, X[["age", "rooms"]], truth, X[["age", "rooms"]][:60]
    )
    assert list(only) == ["majority class"]


def rare(n=1500):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.random(n), "b": rng.random(n)})
    return X, np.where((X["a"] > 0.9) & (X["b"] > 0.7), "yes", "no")


def test_the_balanced_scorer_does_not_choose_a_constant_classifier():
    X, y = rare()
    assert 0.02 < np.mean(y == "yes") < 0.04
    clf = SmoothedClassifier(
        DecisionTreeClassifier(max_depth=4, class_weight="balanced"), UniformNoise(), n_samples=200, random_state=0
    )
    grid, chosen = {"noise__lam": [0.1, 3.0]}, {}
    for average in ("micro", "macro"):
        scorer = make_certified_scorer(0.05, average=average)
        chosen[average] = GridSearchCV(clf, grid, cv=2, scoring=scorer).fit(X, y)
    best = chosen["macro"].best_estimator_
    assert set(best.predict(X)) == {"yes", "no"}
    recall = best.certify(X[y == "yes"]).summary(y[y == "yes"], [0.05]).accuracy["certified accuracy"]
    assert recall > 0.5


def test_thresholds_and_class_weights_work_inside_each_vote():
    X, y = rare()
    plain = LogisticRegression()
    recalls = []
    for model in (plain, LogisticRegression(class_weight="balanced"), TunedThresholdClassifierCV(plain, cv=3)):
        clf = SmoothedClassifier(model, UniformNoise(0.1), n_samples=200, random_state=0).fit(X, y)
        recalls.append(np.mean(clf.predict(X[y == "yes"]) == "yes"))
    assert recalls[0] + 0.3 < min(recalls[1:])


def test_torch_models_see_codes(tmp_path):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.job = torch.nn.Embedding(3, 4)
            self.last = torch.nn.Linear(5, 2)

        def forward(self, x):
            return self.last(torch.cat([x[:, :1], self.job(x[:, 1].long())], dim=1))

    from smoothcert.training import make_net

    X = PANDAS[["age", "job"]].assign(age=DATA["age"] / 90)
    clf = smoothed(
        make_net(Net, max_epochs=3), costs=1.0, bounds={"age": (0, 1)}, training=CleanTraining(standardize=False)
    )
    clf.fit(X, Y)
    assert clf.features_.hidden == "uniform"
    assert len(clf.certify(X[:TEST])) == TEST
    if find_spec("safetensors"):
        with pytest.raises(ValueError, match="must not have categories, whose codes the file would not hold"):
            save_weights(clf, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="A torch model sees numbers and the codes of categories, but column 'job'"):
        clone(clf).set_params(costs={"job": "fixed"}).fit(X, Y)
