"""Columns of every type become a matrix of floats, and come back as they were."""

import copy
import datetime as dt
import decimal
import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

from smoothcert.models import codes
from smoothcert.models.codes import Categories, FixedNumbers, FixedValues, Numbers
from smoothcert.models.columns import Columns, categorical_columns

N = 60
RNG = np.random.default_rng(0)
DAYS = [dt.datetime(2020, 1, 1) + dt.timedelta(days=int(i)) for i in RNG.integers(0, 9, N)]
DATA = {
    "age": RNG.uniform(0, 90, N),
    "job": RNG.choice(["clerk", "cook", "pilot"], N).tolist(),
    "flag": RNG.random(N) < 0.3,
    "kind": RNG.choice(["x", "y"], N).tolist(),
    "town": [None if i % 7 == 0 else "PQ"[i % 2] for i in range(N)],
    "day": DAYS,
    "count": RNG.integers(0, 9, N),
    "score": np.where(RNG.random(N) < 0.2, np.nan, RNG.random(N)),
    "yes": RNG.random(N) < 0.5,
}
FIXED = np.isin(list(DATA), ["town", "day", "count", "score", "yes"])
PANDAS = pd.DataFrame(DATA).astype({"kind": "category"})
POLARS = pl.DataFrame(DATA, strict=False).with_columns(pl.col("kind").cast(pl.Categorical))
FRAMES = [PANDAS, POLARS, POLARS.with_columns(pl.col("kind").cast(pl.Enum(["y", "x", "never seen"])))]


def learn(X, fixed=FIXED, categorical="from_dtype", missing="error"):
    n = np.shape(X)[1]
    fixed = np.broadcast_to(fixed, n)
    return Columns.learn(X, fixed=fixed, categorical=categorical_columns(categorical, X, n), missing=missing)


def assert_equal(found, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        assert found.schema == expected.schema
        assert found.fill_nan(None).equals(expected.fill_nan(None))


@pytest.mark.parametrize("X", FRAMES)
def test_values_types_and_names_come_back(X):
    columns = learn(X)
    matrix = columns.encode(X)
    assert matrix.dtype == np.float64
    assert_equal(columns.frame(matrix), X)
    assert_equal(pickle.loads(pickle.dumps(columns)).frame(matrix[::-1].copy()), reindexed(X[::-1]))


@pytest.mark.parametrize("X", FRAMES)
def test_categories_have_codes_and_fixed_values_have_none(X):
    columns = learn(X)
    enum = isinstance(X, pl.DataFrame) and isinstance(X.schema["kind"], pl.Enum)
    assert columns.n_categories.tolist() == [0, 3, 2, 3 if enum else 2, 0, 0, 0, 0, 0]
    matrix = columns.encode(X)
    assert [sorted(set(column)) for column in matrix[:, [1, 2]].T] == [[0, 1, 2], [0, 1]]
    order = ["y", "x"] if enum else ["x", "y"]
    assert matrix[:, 3].tolist() == [order.index(value) for value in DATA["kind"]]


@pytest.mark.parametrize("X", FRAMES)
def test_the_mask_is_one_category_more(X):
    columns = learn(X)
    matrix = columns.encode(X)
    choice = columns.n_categories > 0
    matrix[0, choice] = columns.n_categories[choice]
    shown = columns.shown("mask").frame(matrix)
    assert list(np.asarray(shown[:1])[0, [1, 2, 3]]) == ["hidden", 2, "hidden"]
    others = ["job", "kind", "town"]
    assert np.asarray(shown[1:][others]).tolist() == np.asarray(columns.frame(matrix[1:])[others]).tolist()
    assert str(shown["flag"].dtype) in ("int8", "Int64")
    assert str(shown["kind"].dtype).startswith(str(X["kind"].dtype)[:4])


def test_ordered_categories_stay_ordered_behind_the_mask():
    kind = pd.CategoricalDtype(["small", "large"], ordered=True)
    columns = learn(pd.DataFrame({"size": pd.Series(["large", "small"], dtype=kind)}), False, ["size"])
    for shown, known in ((columns, ["small", "large"]), (columns.shown("mask"), ["small", "large", "hidden"])):
        dtype = shown.frame(np.array([[1.0], [0.0]]))["size"].dtype
        assert (list(dtype.categories), dtype.ordered) == (known, True)


def reindexed(X):
    return X.reset_index(drop=True) if isinstance(X, pd.DataFrame) else X


def test_the_mask_is_never_one_of_the_categories():
    X = pd.DataFrame({"a": ["hidden", "hidden_", "b"], "n": [5, 7, 127], "r": [0.5, 2.5, 1.0]}).astype({"n": "int8"})
    columns = learn(X, False, ["a", "n", "r"]).shown("mask")
    shown = columns.frame(np.array([[3.0, 3.0, 3.0], [2.0, 2.0, 2.0]]))
    assert shown.iloc[0].tolist() == ["hidden__", 128, 3.5]
    assert shown.iloc[1].tolist() == ["hidden_", 127, 2.5]
    X = pd.DataFrame({"day": DAYS})
    with pytest.raises(ValueError, match=r"hidden='mask' needs .* column 'day' holds .* use hidden='uniform'"):
        learn(X, False, ["day"]).shown("mask")


def test_codes_of_fixed_values_depend_on_the_value_alone():
    first, other = learn(PANDAS), learn(PANDAS[::-1][:20])
    np.testing.assert_array_equal(first.encode(PANDAS)[:, 4:6], other.encode(PANDAS)[:, 4:6])
    np.testing.assert_array_equal(first.encode(PANDAS)[:, 4], learn(POLARS).encode(POLARS)[:, 4])
    # Known by its hash: codes are the same in every process.
    assert learn(pd.DataFrame({"a": ["x"]}), True).encode(pd.DataFrame({"a": ["x"]})) == [[2165889286381552.0]]


def test_values_that_fit_has_not_seen_stay_as_they_are():
    columns = learn(PANDAS)
    new = PANDAS.head(3).assign(town=["new", None, "Q"], day=pd.Timestamp("1999-01-01"), count=[1, 2, 70])
    new["count"] = new["count"].astype(float)
    new.loc[0, "count"] = np.nan
    found = columns.frame(columns.encode(new))
    assert_equal(found.drop(columns="day"), new.drop(columns="day"))
    assert (found["day"] == pd.Timestamp("1999-01-01")).all()
    with pytest.raises(ValueError, match="values of column 'town' are not known here"):
        learn(PANDAS).frame(columns.encode(new))
    half = PANDAS.head(1).assign(count=0.5)
    assert columns.frame(columns.encode(half))["count"].tolist() == [0.5]


def test_words_of_arrays_may_be_longer_than_in_fit():
    columns = learn(np.array([["1", "ab"], ["2", "cd"]]), [False, True], categorical=None)
    longer = np.array([["3", "abcdef"], ["4", "ab"]])
    assert columns.frame(columns.encode(longer)).tolist() == [[3.0, "abcdef"], [4.0, "ab"]]


def test_values_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("smoothcert.models.codes.CODE_BITS", 1)
    with pytest.raises(ValueError, match="which have one hash"):
        learn(PANDAS).encode(PANDAS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"job": "sailor"},
            "unknown category 'sailor' in column 'job': known are 'clerk', 'cook', 'pilot'. Fit on data",
        ),
        ({"kind": "z"}, "unknown category 'z' in column 'kind'"),
        ({"job": None}, "missing value in column 'job'. Fill it in, or declare missing values a category, missing="),
        ({"flag": None}, "missing value in column 'flag'"),
        ({"age": None}, "NaN in column 'age'. Smoothing needs a finite number everywhere: impute or drop"),
        ({"age": np.inf}, "infinity in column 'age'"),
        ({"age": "old"}, "X must hold numbers, but column 'age' holds 'old'. Encode it first"),
        ({"count": "many"}, "X must hold numbers, but column 'count' holds 'many'"),
        ({"town": [1, 2]}, "X must hold single values, but column 'town' holds [1, 2]"),
    ],
)
def test_bad_values_are_named_with_column_and_remedy(changed, message):
    ((name, value),) = changed.items()
    X = PANDAS.astype({name: object})
    X[name] = pd.Series([*X[name][:5], value, *X[name][6:]], dtype=object)
    with pytest.raises(ValueError, match=re.escape(message)):
        learn(PANDAS).encode(X)


def test_missing_values_may_be_a_category():
    for X in (pd.DataFrame({"job": ["a", None, "b"]}), pl.DataFrame({"job": ["a", None, "b"]})):
        columns = learn(X, False, ["job"], missing="category")
        assert columns.n_categories.tolist() == [3]
        assert columns.encode(X)[:, 0].tolist() == [0, 2, 1]
        assert_equal(columns.frame(columns.encode(X)), X)
        shown = columns.shown("mask").frame(np.array([[2.0], [3.0]]))
        assert shown["job"].to_list()[1] == "hidden"
        assert pd.isna(shown["job"].to_list()[0])
        with pytest.raises(ValueError, match="missing value in column 'job'"):
            learn(X, False, ["job"]).encode(X)
    full = pd.DataFrame({"job": ["a", "b"]})
    assert learn(full, False, ["job"], missing="category").n_categories.tolist() == [2]


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "string", "category", "int32", "float32", object])
def test_fixed_columns_keep_pandas_types(dtype):
    values = {"boolean": [True, False], "string": ["a", "b"], "category": ["a", "b"], object: [decimal.Decimal(1), "b"]}
    items = values.get(dtype, [1, 2])
    nullable = str(dtype)[0].isupper() or dtype in ("boolean", "string", "category")
    X = pd.DataFrame({"a": pd.Series([*items, *[None] * nullable], dtype=dtype)})
    columns = learn(X, True)
    assert_equal(columns.frame(columns.encode(X)), X)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Boolean, pl.Float32, pl.String, pl.Date, pl.Decimal(10, 2)])
def test_fixed_columns_keep_polars_types(dtype):
    values = {pl.Boolean: [True, None], pl.String: ["a", None], pl.Date: [dt.date(2020, 1, 1), None]}
    X = pl.DataFrame({"a": pl.Series(values.get(dtype, [1, 0]), dtype=dtype)})
    columns = learn(X, True)
    assert_equal(columns.frame(columns.encode(X)), X)


def test_missing_numbers_of_every_kind_are_nan():
    mixed = pd.DataFrame({"a": pd.Series([1, pd.NA, None, np.nan, 2.5], dtype=object), "b": list("abcde")})
    columns = Columns.learn(mixed[::4], fixed=np.array([False, True]), categorical=np.zeros(2, bool), missing="error")
    assert columns.encode(mixed[::4])[:, 0].tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match="NaN in column 'a'"):
        columns.encode(mixed)


def test_whole_numbers_that_floats_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"of 2\*\*53 or more in column 'a'"):
        learn(pd.DataFrame({"a": [1, 2**60]}), True).encode(pd.DataFrame({"a": [1, 2**60]}))


class Opaque:
    pass


def test_values_without_a_text_of_their_own_are_refused():
    X = pd.DataFrame({"a": [Opaque()]})
    with pytest.raises(ValueError, match="in column 'a', whose text does not show its value"):
        learn(X, True).encode(X)


def test_arrays_have_columns_too():
    X = np.array([[1.5, "a", True], [2.5, "b", False]], dtype=object)
    columns = learn(X, [False, False, True], [1])
    shown = columns.shown("mask").frame(columns.encode(X) + np.array([[0, 2, 0], [0, 0, 0]]))
    assert shown.tolist() == [[1.5, "hidden", True], [2.5, "b", False]]
    assert learn(X.tolist(), [False, False, True], [1]).encode(X.tolist()).tolist() == columns.encode(X).tolist()
    X = np.array([[1.5, 0, 3], [2.5, 4, 4]])
    columns = learn(X, [False, False, True], [False, True, False]).shown("mask")
    assert columns.encode(X)[:, 1].tolist() == [0, 1]
    shown = columns.frame(np.array([[1.0, 2.0, 3.0]]))
    assert shown.dtype == np.float64
    assert shown.tolist() == [[1.0, 5.0, 3.0]]


def test_plain_tables_need_no_codes():
    assert learn(np.ones((2, 2)), [True, False], None) is None
    assert learn(pd.DataFrame(np.ones((2, 2)), columns=["a", "b"]), False, None).codecs is None
    for X in (pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]), pd.DataFrame(np.ones((2, 2)))):
        with pytest.raises(ValueError, match=r"must have distinct names|must be strings"):
            learn(X, [True, False], None)


@pytest.mark.parametrize("X", FRAMES[:2])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("from_dtype", [1, 2, 3, 4, 8]),
        (["kind", "job"], [1, 3]),
        (np.array(["kind"]), [3]),
        ([3, np.int64(1)], [1, 3]),
        ([False, True] + [False] * 7, [1]),
        (np.arange(9) == 2, [2]),
        ([], []),
    ],
)
def test_categorical_features(X, given, expected):
    assert np.flatnonzero(categorical_columns(given, X, 9)).tolist() == expected


@pytest.mark.parametrize("given", ["from_type", ["jobs"], [9], [-1], [True, False], [1, "job"], [None], 1.5])
def test_unknown_categorical_features(given):
    with pytest.raises(ValueError, match=r"categorical_features must be None, 'from_dtype', column names among .*got"):
        categorical_columns(given, PANDAS, 9)


def test_copies_share_nothing():
    columns = learn(PANDAS)
    twin = copy.deepcopy(columns)
    matrix = twin.encode(PANDAS.assign(town="other"))
    with pytest.raises(ValueError, match="not known here"):
        columns.frame(matrix)


DAY = dt.datetime(2020, 1, 1)


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
