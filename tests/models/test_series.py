"""Single columns of every library and type."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from smoothcert.models import series

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


@pytest.mark.parametrize("value", ["ab", "a much longer text", None])
def test_only_numbers_are_checked_for_their_size(value):
    """What is no number is refused elsewhere, in words of its own."""
    array = np.array([value])
    series.check_whole_numbers(array, array)


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


@pytest.mark.parametrize(
    ("library", "dtype"),
    [
        *(
            ("pandas", pd.Series([], dtype=kind).dtype)
            for kind in ("str", "string", "Int64", "boolean", "<M8[ns]", "i2")
        ),
        ("pandas", pd.CategoricalDtype(["b", "a"], ordered=True)),
        *(("polars", kind) for kind in (pl.String(), pl.Boolean(), pl.Int8(), pl.Enum(["b", "a"]), pl.Categorical())),
        *(("numpy", np.dtype(kind)) for kind in ("<U3", "O", "?", "<f4")),
    ],
)
def test_types_in_files(library, dtype):
    packed = series.packed_type(dtype, library)
    assert isinstance(packed, (str, tuple))
    assert series.unpacked_type(packed, library) == dtype


def test_types_whose_name_does_not_tell_them_stay_in_files():
    for library, dtype in (("polars", pl.Datetime("us", "UTC")), ("numpy", np.dtype([("a", "f4")]))):
        assert series.packed_type(dtype, library) is dtype
        assert series.unpacked_type(dtype, library) is dtype


@pytest.mark.parametrize("kind", ["int8", "int32", "float32", "Int64", "string", "object", "bool", "M8[ns]"])
@pytest.mark.parametrize("ordered", [True, False])
def test_types_of_categories_are_read_back(kind, ordered):
    items = {"string": ["b", "a"], "object": ["b", "a"], "bool": [True, False], "M8[ns]": [DAY]}.get(kind, [2, 1])
    dtype = pd.CategoricalDtype(pd.Index(items, dtype=kind), ordered)
    packed = series.packed_type(dtype, "pandas")
    assert type(packed) is tuple
    assert series.unpacked_type(packed, "pandas") == dtype
    column = pd.Series(items, dtype=dtype).array
    assert series.unpacked(series.packed(column)).dtype == dtype
