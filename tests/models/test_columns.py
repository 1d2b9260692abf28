"""DataFrames in, names checked, and base models that see the columns they were fitted on."""

import datetime as dt
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

import smoothcert.pipeline
from smoothcert import Box, NoiseAugmentation, SmoothedClassifier, SplitNoise
from smoothcert.models.codes import Categories, Numbers
from smoothcert.models.columns import Columns, NamedColumns, categorical_columns, hidden_by

FRAMES = [pd.DataFrame, pl.DataFrame]


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    X, X_test, y, y_test = train_test_split(X[:, :6], y, test_size=40, random_state=0)
    names = ["a", "b", "c", "d", "e", "f"]
    return dict(zip(names, X.T, strict=True)), dict(zip(names, X_test.T, strict=True)), y, y_test


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Some of the models below are constant.
        warnings.filterwarnings("ignore", message="The smoothed classifier predicts")
        yield


def smoothed(base, **params):
    return SmoothedClassifier(
        base, SplitNoise(1.0), **({"n_samples": 60, "n_selection": 20, "random_state": 0} | params)
    )


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


def array(columns):
    return np.column_stack(list(columns.values()))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("training", ["augment", None, NoiseAugmentation(3, stream=True)])
def test_frames_and_arrays_give_the_same_certificates(cancer, frame, training):
    X, X_test, y, _ = cancer
    clf = smoothed(SGDClassifier(random_state=0), training=training)
    framed, plain = clone(clf).fit(frame(X), y), clone(clf).fit(array(X), y)
    assert list(framed.feature_names_in_) == list(framed.estimator_.feature_names_in_) == list(X)
    assert type(framed.estimator_) is SGDClassifier
    assert_same(framed.certify(frame(X_test)), plain.certify(array(X_test)))
    assert not hasattr(plain.estimator_, "feature_names_in_")


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_selected_by_name_reach_the_base_model(cancer, frame):
    X, X_test, y, _ = cancer
    select = ColumnTransformer([("some", StandardScaler(), ["b", "d"])])
    by_name = smoothed(make_pipeline(select, GaussianNB())).fit(frame(X), y)
    by_place = smoothed(
        make_pipeline(clone(select).set_params(transformers=[("some", StandardScaler(), [1, 3])]), GaussianNB())
    )
    assert_same(by_name.certify(frame(X_test)), by_place.fit(array(X), y).certify(array(X_test)))
    assert_same(pickle.loads(pickle.dumps(by_name)).certify(frame(X_test)), by_name.certify(frame(X_test)))
    votes = by_name.count_votes(frame(X_test))
    assert_same(by_name.certify(frame(X_test), votes=votes), by_name.certify(frame(X_test)))


class Frames(ClassifierMixin, BaseEstimator):
    """A base model that records what kind of table it gets, and has no feature_names_in_."""

    def fit(self, X, y):
        self.kinds_ = [type(X)]
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        self.kinds_.append(type(X))
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize("frame", [*FRAMES, array])
def test_the_base_model_votes_on_the_kind_of_table_it_was_fitted_on(cancer, frame):
    X, X_test, y, _ = cancer
    clf = smoothed(Frames()).fit(frame(X), y)
    clf.predict(frame(X_test))
    assert set(clf.estimator_.kinds_) == {np.ndarray if frame is array else frame}


@pytest.mark.parametrize("frame", FRAMES)
def test_frozen_models_get_the_columns_that_they_were_fitted_on(cancer, frame):
    X, X_test, y, _ = cancer
    model = make_pipeline(make_column_transformer((MinMaxScaler(), ["f", "a"])), GaussianNB()).fit(frame(X), y)
    pretrained = SmoothedClassifier.from_pretrained(model, [0, 1], SplitNoise(1.0), n_samples=60, random_state=0)
    assert list(pretrained.feature_names_in_) == list(X)
    frozen = smoothed(FrozenEstimator(model), n_selection=256).fit(frame(X), y)
    assert_same(pretrained.certify(frame(X_test)), frozen.certify(frame(X_test)))
    with pytest.raises(ValueError, match="feature names should match"):
        pretrained.certify(frame(dict(reversed(X_test.items()))))
    with pytest.raises(
        ValueError, match=r"X must have the columns that the base model Pipeline was fitted on, .*'a', 'b'"
    ):
        smoothed(FrozenEstimator(model)).fit(frame(dict(reversed(X.items()))), y)
    # A classifier that is fitted on an array takes the names from its model.
    assert smoothed(FrozenEstimator(model)).fit(array(X), y).predict(array(X_test)).shape == (40,)


def test_a_frozen_model_of_arrays_gets_arrays(cancer):
    X, X_test, y, _ = cancer
    model = GaussianNB().fit(array(X), y)
    clf = smoothed(FrozenEstimator(model)).fit(pd.DataFrame(X), y)
    assert list(clf.feature_names_in_) == list(X)
    clf.certify(pd.DataFrame(X_test))


@pytest.mark.parametrize("frame", FRAMES)
def test_names_are_checked(cancer, frame):
    X, X_test, y, _ = cancer
    clf = smoothed(GaussianNB()).fit(frame(X), y)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.certify(frame(X_test | {"new": X_test["a"]}))
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame(dict(reversed(X_test.items()))))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but SmoothedClassifier"):
        clf.predict(array(X_test))


def test_columns_of_one_name_are_refused():
    X = np.random.default_rng(0).random((20, 2))
    y = (X[:, 0] > 0.5).astype(int)
    clf = SmoothedClassifier(LogisticRegression(), n_samples=20, alpha=0.1).fit(X, y)
    for table in (pd.DataFrame(X, columns=["a", "a"]), pyarrow.table([*X.T], names=["a", "a"])):
        for call in (lambda table=table: clone(clf).fit(table, y), lambda table=table: clf.certify(table)):
            with pytest.raises(ValueError, match=r"The columns of X must have distinct names, got \['a', 'a'\]"):
                call()


def test_names_that_are_not_strings_are_ignored(cancer):
    X, X_test, y, _ = cancer
    clf = smoothed(GaussianNB()).fit(pd.DataFrame(array(X)), y)
    assert not hasattr(clf, "feature_names_in_")
    assert_same(
        clf.certify(pd.DataFrame(array(X_test))), smoothed(GaussianNB()).fit(array(X), y).certify(array(X_test))
    )


# Bounds by column name


LO, HI = {"a": 0.0, "b": -1.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 4.0}
PAIRS = {name: (LO[name], HI[name]) for name in ("c", "a", "b")}


@pytest.mark.parametrize(
    "bounds",
    [
        PAIRS,
        pd.Series(PAIRS),
        pd.DataFrame(PAIRS),
        {name: list(pair) for name, pair in PAIRS.items()},
        (LO, HI),
        (pd.Series(LO)[["b", "c", "a"]], pd.Series(HI)),
        [np.array([0, -1, 0]), pd.Series(HI)[["c", "b", "a"]]],
    ],
)
@pytest.mark.parametrize("names", [["a", "b", "c"], ["b", "c", "a"]])
def test_bounds_by_name_follow_the_columns(bounds, names):
    if isinstance(bounds, list) and names[0] != "a":
        pytest.skip("one end is by position")
    box = Box.from_bounds(bounds, names=names)
    np.testing.assert_array_equal(box.lo, [LO[name] for name in names])
    np.testing.assert_array_equal(box.hi, [HI[name] for name in names])


def test_one_end_may_be_a_number():
    box = Box.from_bounds((-2, HI), names=["c", "a", "b"])
    np.testing.assert_array_equal(box.width, [6, 3, 3])
    plain = Box.from_bounds((pd.Series([0, 1]), pd.Series([1, 5])))
    np.testing.assert_array_equal(plain.hi, [1, 5])


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"a": (0, 1), "b": (0, 1)}, "missing ['c'], unknown []. The columns are ['a', 'b', 'c']"),
        (PAIRS | {"z": (0, 1)}, "missing [], unknown ['z']"),
        ((LO, pd.Series({"a": 1, "b": 1, "d": 1})), "missing ['c'], unknown ['d']"),
        (pd.Series([(0, 1)] * 4, index=["a", "b", "c", "c"]), "must name each column of X once"),
        ({"a": 0, "b": 0, "c": 0}, "bounds by column name must hold a pair (lo, hi) for each column, got {'a'"),
        (PAIRS | {"b": (1, 0)}, "arrays with lo < hi, or \"minmax\", got (1, 0) in column 'b'."),
        (PAIRS | {"b": ("x", 0)}, "bounds must be a pair (lo, hi) of finite numbers or arrays with lo < hi"),
    ],
)
def test_bad_bounds_by_name(bounds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Box.from_bounds(bounds, names=["a", "b", "c"])


@pytest.mark.parametrize("frame", FRAMES)
def test_bounds_by_name_in_a_classifier(cancer, frame):
    X, X_test, y, _ = cancer
    lo, hi = {name: -0.1 * i for i, name in enumerate(X)}, {name: 1 + 0.1 * i for i, name in enumerate(X)}
    pairs = {name: (lo[name], hi[name]) for name in reversed(X)}
    by_name = smoothed(GaussianNB(), bounds=pairs).fit(frame(X), y)
    by_place = smoothed(GaussianNB(), bounds=(list(lo.values()), list(hi.values()))).fit(array(X), y)
    assert_same(by_name.certify(frame(X_test)), by_place.certify(array(X_test)))
    series = smoothed(GaussianNB(), bounds=pd.Series(pairs)).fit(frame(X), y)
    assert_same(clone(series).fit(frame(X), y).certify(frame(X_test)), by_name.certify(frame(X_test)))
    with pytest.raises(ValueError, match=r"bounds must name each column of X once: missing \['f'\]"):
        clone(by_name).set_params(bounds=dict.fromkeys("abcde", (0, 1))).fit(frame(X), y)
    with pytest.raises(ValueError, match="bounds by column name need columns with names, and there are none"):
        clone(by_name).fit(array(X), y)
    with pytest.raises(ValueError, match="bounds has changed"):
        by_name.set_params(bounds=pairs | {"a": (0, 2)}).predict(frame(X_test))


def test_bounds_by_name_of_a_trained_model(cancer):
    X, X_test, y, _ = cancer
    params = {"classes": [0, 1], "bounds": dict.fromkeys(reversed(X), (0, 1)), "n_samples": 50}
    model = GaussianNB().fit(pd.DataFrame(X), y)
    clf = SmoothedClassifier.from_pretrained(model, **params)
    assert len(clf.certify(pd.DataFrame(X_test))) == 40
    with pytest.raises(ValueError, match="bounds by column name need columns with names"):
        SmoothedClassifier.from_pretrained(GaussianNB().fit(array(X), y), **params)


# Columns without numbers


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"size": [0.1, 0.2], "color": ["red", "blue"]}),
        pl.DataFrame({"size": [0.1, 0.2], "color": pl.Series(["red", "blue"], dtype=pl.Categorical)}),
        pd.DataFrame({"size": [0.1, 0.2], "color": ["red", "blue"]}),
        pd.DataFrame({"size": [0.1, 0.2], "color": pd.Categorical(["red", "blue"])}),
    ],
)
def test_a_column_of_words_is_named_with_the_remedy(frame):
    with pytest.raises(ValueError, match=r"column 'color' holds 'red'\. Encode it first, .*OneHotEncoder, or declare"):
        smoothed(GaussianNB()).fit(frame, [0, 1])


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("others", [{"size": [0.1, 0.2]}, {}])
def test_a_column_of_dates_is_named(frame, others):
    days = pd.to_datetime(["2020-01-01", "2020-01-02"])
    with pytest.raises(ValueError, match=r"column 'day' holds .*(2020|Datetime)"):
        smoothed(GaussianNB()).fit(frame(others | {"day": list(days.to_pydatetime())}), [0, 1])


@pytest.mark.parametrize("frame", FRAMES)
def test_missing_values_are_named_as_such(frame):
    with pytest.raises(ValueError, match=r"NaN.* impute"):
        smoothed(GaussianNB()).fit(frame({"size": [0.1, None], "b": [0.1, 0.5]}), [0, 1])


@pytest.mark.parametrize("frame", FRAMES)
def test_whole_numbers_reals_and_flags_are_accepted(frame):
    table = frame({"whole": [0, 1, 1, 0], "real": [0.5, 0.2, 1.0, 0.0], "flag": [True, False, True, False]})
    clf = smoothed(GaussianNB(), bounds="minmax").fit(table, [0, 1, 1, 0])
    np.testing.assert_array_equal(clf.box_.hi, [1, 1, 1])


# Pipelines and scikit-learn's output setting


@pytest.mark.parametrize("output", ["pandas", "polars", "default"])
def test_transform_output(cancer, output):
    X, X_test, y, _ = cancer
    clf = smoothed(make_pipeline(StandardScaler(), GaussianNB()))
    plain = smoothcert.pipeline.make_pipeline(MinMaxScaler(), clone(clf)).fit(array(X), y)
    expected, inside = plain.certify(array(X_test)), clone(clf).fit(array(X), y).certify(array(X_test))
    with sklearn.config_context(transform_output=output):
        outer = smoothcert.pipeline.make_pipeline(MinMaxScaler(), clone(clf)).fit(pd.DataFrame(X), y)
        found = outer.certify(pd.DataFrame(X_test))
        assert_same(found, expected)
        assert hasattr(outer[-1], "feature_names_in_") == (output != "default")
        raw = outer.to_raw_units(found, pd.DataFrame(X_test))
        np.testing.assert_array_equal(raw.radii, plain.to_raw_units(expected, array(X_test)).radii)
        assert_same(clone(clf).fit(pd.DataFrame(X), y).certify(pd.DataFrame(X_test)), inside)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_get_frames_too(cancer, backend):
    import joblib

    X, X_test, y, _ = cancer
    clf = smoothed(LogisticRegression()).fit(pl.DataFrame(X), y)
    expected = clf.certify(pl.DataFrame(X_test))
    with joblib.parallel_config(backend=backend):
        assert_same(clf.set_params(n_jobs=2).certify(pl.DataFrame(X_test)), expected)


DAY = dt.datetime(2020, 1, 1)


class Named(BaseEstimator):
    def __init__(self, *names):
        self.feature_names_in_ = np.array(names, dtype=object)


def test_the_columns_of_a_model():
    given = Columns(("a", "b"), "polars")
    assert Columns.of_model(Named("a", "b"), given) is given
    assert Columns.of_model(FrozenEstimator(Named("a", "b"))) is not None
    found = Columns.of_model(Named("b", "a"))
    assert (found.names, found.library, found.codecs) == (("b", "a"), "pandas", None)
    assert Columns.of_model(GaussianNB(), given) is None
    coded = Columns(("a", "b"), "polars", (Numbers("a"), Numbers("b")))
    assert Columns.of_model(GaussianNB(), coded) is coded
    unnamed = Columns(None, "numpy", (Numbers("a"), Numbers("b")))
    assert Columns.of_model(Named("a", "b"), unnamed) is unnamed
    with pytest.raises(
        ValueError, match=r"base model Named was fitted on, \['b', 'a'\], in this order, got \['a', 'b'\]"
    ):
        Columns.of_model(FrozenEstimator(Named("b", "a")), given)


def mixed():
    X = pd.DataFrame({"n": [0.5, 1.5], "c": ["x", "y"], "f": ["p", "q"]}, index=[7, 9])
    kinds = {"fixed": np.array([False, False, True]), "categorical": np.array([False, True, True])}
    return X, Columns.learn(X, missing="error", **kinds)


def test_tables_like_those_of_the_user():
    X, columns = mixed()
    matrix = columns.encode(X)
    shown = columns.shown("mask")
    found = shown.like(matrix, X)
    pd.testing.assert_frame_equal(found, X)
    # Without the mask, whose type differs, and without an index that does not fit.
    assert shown.like(matrix[:1], X).index.tolist() == [0]
    assert type(shown.like(matrix, matrix)) is pd.DataFrame
    plain = Columns(("a", "b"), "pandas")
    rows = np.ones((2, 2))
    assert plain.like(rows, rows) is rows
    assert plain.like(rows, pd.DataFrame(rows, index=[3, 4])).index.tolist() == [3, 4]
    assert np.shares_memory(plain.frame(rows).to_numpy(), rows)
    polars = Columns(("a", "b"), "polars").frame(np.array([[1.0, 2.0]]))
    assert polars.to_dict(as_series=False) == {"a": [1.0], "b": [2.0]}


def test_tables_like_those_of_the_user_hold_no_numbers_for_booleans():
    """A mask makes whole numbers of booleans, which the base model sees and the user does not."""
    X = pd.DataFrame({"b": [True, False]})
    columns = Columns.learn(X, fixed=np.zeros(1, bool), categorical=np.ones(1, bool), missing="error").shown("mask")
    assert str(columns.frame(columns.encode(X))["b"].dtype) == "int8"
    pd.testing.assert_frame_equal(columns.like(columns.encode(X), X), X)


def test_columns_behind_a_mask():
    X, columns = mixed()
    assert columns.shown("uniform") is columns
    shown = columns.shown("mask")
    assert shown.unmasked is columns.codecs
    assert (shown.n_categories.tolist(), columns.n_categories.tolist()) == ([0, 2, 0], [0, 2, 0])
    assert shown.frame(np.array([[0.5, 2.0, columns.encode(X)[0, 2]]])).iloc[0].tolist() == [0.5, "hidden", "p"]
    plain = Columns(("a",), "pandas")
    assert plain.shown("mask") is plain
    assert plain.n_categories.shape == ()
    columns.check_model(GaussianNB())
    with pytest.raises(ValueError, match=r"^A torch model sees numbers .* but column 'f' is fixed and holds neither"):
        columns.check_model(nn.Linear(3, 2))
    Columns(None, "numpy", columns.codecs[:2]).check_model(nn.Linear(3, 2))


def test_how_categories_are_hidden():
    _, columns = mixed()
    model, plain = GaussianNB(), Columns(("a",), "pandas")
    days = Columns(None, "numpy", (Categories.learn("a", np.array([DAY]), "numpy", missing="error"),))
    assert [hidden_by("auto", one, model) for one in (columns, days, plain, None)] == [
        "mask",
        "uniform",
        "mask",
        "mask",
    ]
    assert [hidden_by("auto", columns, one) for one in (nn.ReLU(), FrozenEstimator(model))] == ["uniform"] * 2
    for hidden in ("mask", "uniform"):
        assert [hidden_by(hidden, one, nn.ReLU()) for one in (columns, days, None)] == [hidden] * 3


def test_columns_with_categories_by_type():
    X = pd.DataFrame({"a": [1.0], "b": [True], "c": [DAY], "d": ["x"], "e": pd.Series([1], dtype="category")})
    assert categorical_columns("from_dtype", X, 5).tolist() == [False, True, False, True, True]
    assert categorical_columns("from_dtype", X.to_numpy(), 5).tolist() == [False] * 5
    for given in ([True, False], [5], [-1], ["z"], [0.0], ["a", 1]):
        with pytest.raises(
            ValueError, match=r"column names among \['a', .*\], positions below 5, or one boolean for each of 5"
        ):
            categorical_columns(given, X, 5)
    with pytest.raises(
        ValueError, match=r"'from_dtype', positions below 2, or one boolean for each of 2 columns, got \['a'\]"
    ):
        categorical_columns(["a"], np.ones((1, 2)), 2)


def test_estimators_behind_columns():
    seen = []

    class Streaming(BaseEstimator):
        def fit(self, X, y, X_val=None, weight=None):
            seen.append((X, y, X_val, weight))

        def partial_fit(self, X, y, classes=None):
            seen.append((X, y, classes))

    X, y = np.ones((2, 2)), [0, 1]
    named = NamedColumns(Streaming(), Columns(("a", "b"), "pandas"))
    assert named.fit(X, y, X_val=2 * X, weight=3) is named
    assert named.partial_fit(X, y, classes=[0, 1]) is named
    assert all(list(table.columns) == ["a", "b"] for table in (seen[0][0], seen[0][2], seen[1][0]))
    assert (seen[0][1], seen[0][3], seen[1][1:]) == (y, 3, (y, [0, 1]))
    assert seen[0][2].to_numpy().tolist() == (2 * X).tolist()
    assert not hasattr(NamedColumns(Named("a"), named.columns), "partial_fit")
