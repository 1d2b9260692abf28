"""Single columns of every library and type, and the tables that are made of them."""

import datetime as dt
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from torch import nn

from smoothcert.models import codes, series
from smoothcert.models.codes import Categories, FixedNumbers, FixedValues, Numbers
from smoothcert.models.columns import Columns, NamedColumns, categorical_columns, hidden_by

DAY = dt.datetime(2020, 1, 1)
KINDS = {
    # number, boolean, whole, dated, and what a column of this type holds
    "number": (1, 0, 0, 0),
    "whole": (1, 0, 1, 0),
    "boolean": (1, 1, 0, 0),
    "dated": (0, 0, 0, 1),
    "words": (0, 0, 0, 0),
}
COLUMNS = [
    ("number", np.array([0.5])),
    ("whole", np.array([1], dtype=np.uint8)),
    ("boolean", np.array([True])),
    ("dated", np.array([DAY], dtype="datetime64[s]")),
    ("words", np.array(["a"])),
    ("words", np.array([1], dtype=object)),
    ("number", pd.Series([0.5], dtype="float32")),
    ("number", pd.Series([0.5], dtype="Float64")),
    ("whole", pd.Series([1], dtype="Int8")),
    ("boolean", pd.Series([True])),
    ("boolean", pd.Series([True], dtype="boolean")),
    ("boolean", pd.Series([True], dtype="bool[pyarrow]")),
    ("dated", pd.Series([DAY])),
    ("dated", pd.Series([dt.timedelta(1)])),
    ("words", pd.Series(["a"], dtype="category")),
    ("words", pd.Series([1], dtype="category")),
    ("words", pd.Series(["a"], dtype="string")),
    ("number", pl.Series([0.5])),
    ("whole", pl.Series([1], dtype=pl.UInt8)),
    ("boolean", pl.Series([True])),
    ("dated", pl.Series([DAY])),
    ("dated", pl.Series([dt.time(1)])),
    ("dated", pl.Series([dt.timedelta(1)])),
    ("words", pl.Series(["a"])),
    ("words", pl.Series([1], dtype=pl.Decimal(10, 2))),
    ("words", pl.Series(["a"], dtype=pl.Categorical)),
]


@pytest.mark.parametrize(("kind", "column"), COLUMNS, ids=lambda one: str(getattr(one, "dtype", one)))
def test_types_of_columns(kind, column):
    asked = series.is_number, series.is_boolean, series.is_whole, series.is_dated
    assert tuple(bool(ask(column)) for ask in asked) == KINDS[kind]


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, pl.DataFrame, list])
def test_columns_of_a_table(kind):
    names = ["a", "b"]
    X = {np.array: np.array([[1, 2], [3, 4]]), list: [[1, 2], [3, 4]]}.get(kind)
    X = kind({name: [1 + i, 3 + i] for i, name in enumerate(names)}) if X is None else X
    assert series.library_of(X) == {pd.DataFrame: "pandas", pl.DataFrame: "polars"}.get(kind, "numpy")
    assert [series.values(column) for column in series.columns_of(X)] == [[1, 3], [2, 4]]


def test_missing_values():
    for value in (None, np.nan, np.float64("nan"), pd.NA, pd.NaT):
        assert series.is_missing(value)
    for value in (0, "", False, np.inf, "nan"):
        assert not series.is_missing(value)
    for column in (pd.Series(["a", None]), pl.Series(["a", None]), np.array(["a", np.nan], dtype=object)):
        assert series.values(column) == ["a", None]
    assert series.values(pd.Series([1, None], dtype="Int64")) == [1, None]


def test_declared_categories_keep_their_order():
    assert series.declared_categories(pd.Series(["b"], dtype=pd.CategoricalDtype(["b", "a"]))) == ["b", "a"]
    assert series.declared_categories(pl.Series(["b"], dtype=pl.Enum(["b", "a"]))) == ["b", "a"]
    for column in (pl.Series(["b"], dtype=pl.Categorical), pd.Series(["b"]), np.array(["b"]), pl.Series(["b"])):
        assert series.declared_categories(column) is None


def test_numbers_keep_their_type_where_it_can_hold_them():
    fine, broken, missing = np.array([1.0, 3.0]), np.array([1.0, 2.5]), np.array([1.0, np.nan])
    for dtype, library in (("int8", "pandas"), ("Int8", "pandas"), (pl.Int8, "polars"), ("int8", "numpy")):
        dtype = {"pandas": pd.api.types.pandas_dtype, "numpy": np.dtype}.get(library, lambda one: one)(dtype)
        found = series.cast(fine, dtype, library)
        assert str(found.dtype).lower() == "int8"
        assert list(found) == [1, 3]
        for column in (broken, np.array([1.0, 300.0])):
            kept = series.cast(column, dtype, library)
            assert np.asarray(kept, dtype=float).tolist() == column.tolist()
    assert series.cast(missing, pl.Int8(), "polars").to_list() == [1, None]
    assert series.cast(missing, np.dtype("int8"), "pandas") is missing
    assert series.cast(missing, pl.Float32(), "polars").dtype == pl.Float32
    assert series.cast(np.array([0.0, 1.0]), np.dtype(bool), "numpy").tolist() == [False, True]


@pytest.mark.parametrize(
    ("column", "category", "expected"),
    [
        (np.array([True]), 2, "int8"),
        (np.array(["a"]), "hidden", "object"),
        (np.array([127], dtype=np.int8), 128, "int16"),
        (np.array([5], dtype=np.int8), 6, "int16"),
        (np.array([0.5], dtype=np.float32), 1.5, "float32"),
        (pd.Series([True], dtype="boolean").array, 2, "Int8"),
        (pd.Series([1], dtype="Int8").array, 2, "Int8"),
        (pl.Series([True]), 2, "Int64"),
        (pl.Series([1], dtype=pl.Int8), 128, "Int64"),
        (pl.Series(["a"]), "hidden", "String"),
        (pl.Series([0.5]), 1.5, "Float64"),
    ],
    ids=str,
)
def test_the_type_with_one_category_more(column, category, expected):
    library = "polars" if isinstance(column, pl.Series) else "numpy" if isinstance(column, np.ndarray) else "pandas"
    found = series.with_category(column, [], category, library)
    if expected == "int16":
        # At least as wide as the category needs.
        assert np.can_cast(np.min_scalar_type(category), found)
        assert np.can_cast(column.dtype, found)
    else:
        assert np.dtype(found).name == expected if library == "numpy" else str(found) == expected


def test_declared_types_with_one_category_more():
    column = pd.Series(["b"], dtype=pd.CategoricalDtype(["b", "a"], ordered=True)).array
    found = series.with_category(column, ["b", "a"], "hidden", "pandas")
    assert (list(found.categories), found.ordered) == (["b", "a", "hidden"], True)
    found = series.with_category(pl.Series(["b"], dtype=pl.Enum(["b", "a"])), ["b", "a"], "hidden", "polars")
    assert found == pl.Enum(["b", "a", "hidden"])


@pytest.mark.parametrize("dtype", ["string", "Int64", "category", object, "float32"])
def test_columns_in_files(dtype):
    column = series.filled([1, 2, 3] if dtype in ("Int64", "float32") else ["b", "a", "c"], dtype, "pandas")
    packed = series.packed(column)
    back = series.unpacked(packed)
    pd.testing.assert_series_equal(pd.Series(back), pd.Series(column))
    assert isinstance(packed, tuple) == (dtype in ("string", "Int64", "category"))
    ordered = pd.Series(["b"], dtype=pd.CategoricalDtype(["b", "a"], ordered=True)).array
    assert series.unpacked(series.packed(ordered)).dtype == ordered.dtype
    assert list(series.taken(back, np.array([2, 0, 2]))) == [column[2], column[0], column[2]]


# Codes


def test_which_values_numbers_name():
    column = np.array([1.0, np.inf, np.nan])
    with pytest.raises(ValueError, match=r"^X contains NaN in feature 2\. Smoothing needs"):
        Numbers("feature 2").encode(column)
    with pytest.raises(ValueError, match=r"^X contains infinity in feature 2\."):
        Numbers("feature 2").encode(column[:2])
    with pytest.raises(ValueError, match=r"^X must hold numbers, but feature 2 holds 'b'\. Encode it first"):
        Numbers("feature 2").encode(np.array([1, None, "b", "c"], dtype=object))
    with pytest.raises(ValueError, match=r"but feature 2 holds Timestamp\('2020-01-01 00:00:00'\)"):
        Numbers("feature 2").encode(pd.Series([None, DAY]))
    assert Numbers("a").encode(np.array([1, "2.5"], dtype=object)).tolist() == [1.0, 2.5]


def test_the_largest_whole_numbers():
    for sign in (1, -1):
        fine = np.array([0, sign * (2**53 - 1)])
        assert FixedNumbers("a", fine.dtype, "numpy").encode(fine).tolist() == [0, sign * (2**53 - 1)]
        for value in (2**53, 2**53 + 1, 2**53 + 2):
            with pytest.raises(ValueError, match=r"of 2\*\*53 or more in a, which floats cannot"):
                FixedNumbers("a", fine.dtype, "numpy").encode(np.array([0, sign * value]))
    real = np.array([1e300])
    assert FixedNumbers("a", real.dtype, "numpy").encode(real) == [1e300]


def learnt(column, **options):
    return Categories.learn("a", np.array(column, dtype=object), "numpy", **({"missing": "error"} | options))


def test_categories_are_in_an_order_of_their_own():
    assert learnt(["b", "c", "a", "b"]).known == ("a", "b", "c")
    # Of several types: by the name of the type, and then as text.
    assert learnt(["b", 10, 9, "a"]).known == (10, 9, "a", "b")
    found = learnt(["b", None, "a"], missing="category")
    assert (found.known, found.n_categories, found.fixed) == (("a", "b", None), 3, False)
    assert learnt(["b", "a"], missing="category").known == ("a", "b")
    fixed = learnt(["b", "a"], fixed=True)
    assert (fixed.known, fixed.n_categories) == (("a", "b", None), 0)
    assert fixed.encode(np.array([None, "b"], dtype=object)).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"^X has a missing value in a\. Fill it in"):
        learnt(["b", None]).encode(np.array([None], dtype=object))


def test_eight_known_categories_are_listed():
    for n, end in ((8, r"'h'\. Fit on data"), (9, r"'h', \.\.\.\. Fit on data")):
        with pytest.raises(ValueError, match=rf"^X holds the unknown category 'z' in a: known are 'a', .*{end}"):
            learnt(list("abcdefghi"[:n])).encode(np.array(["a", "z", "y"], dtype=object))


@pytest.mark.parametrize(
    ("categories", "mask"),
    [
        ([True, False], 2),
        ([1, 7, 3], 8),
        ([0.5, 2], 3),
        ([-3], -2),
        (["a", "hidden"], "hidden_"),
        ([], 2),
        (["a", 1], None),
        ([DAY], None),
    ],
)
def test_masks(categories, mask):
    assert codes._mask(categories) == mask


def test_values_of_other_types_have_other_codes():
    def codec():
        return FixedValues("a", np.dtype(object), "numpy")

    given = np.array([1, True, 1.0, "1", None, b"1", DAY], dtype=object)
    one = codec()
    found = one.encode(given)
    assert len(set(found)) == len(given)
    assert (found == np.floor(found)).all()
    assert (found < 2**52).all()
    assert list(map(repr, one.decode(found[::-1]))) == list(map(repr, given[::-1]))
    # Later values do not move the earlier ones, and copies know them all.
    later = np.array(["new", "other"], dtype=object)
    assert one.decode(one.encode(later)).tolist() == ["new", "other"]
    assert list(map(repr, one.decode(found))) == list(map(repr, given))
    copied = pickle.loads(pickle.dumps(one))
    assert (copied.sorted, copied.known == one.known) == (None, True)
    assert list(map(repr, copied.decode(found))) == list(map(repr, given))
    other = codec()
    other.encode(given[:1])
    with pytest.raises(ValueError, match=r"^The values of a are not known here"):
        other.decode(found)


# Tables


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
