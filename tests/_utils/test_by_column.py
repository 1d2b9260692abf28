"""Values by column name: told from values in order, and put in the order of the columns."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from smoothcert._utils.by_column import in_order, is_by_column


def test_values_by_column_are_told_from_values_in_order():
    series, frame = pd.Series([1.0], index=["a"]), pd.DataFrame({"a": [1.0]})
    for values in ({"a": 1.0}, {}, series, frame):
        assert is_by_column(values)
    for values in ([1.0], np.ones(2), pd.Series([1.0, 2.0]), pd.DataFrame([[1.0]]), pl.Series("a", [1.0]), 1.0, None):
        assert not is_by_column(values)


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_values_by_column_follow_the_order_of_the_columns(kind):
    values, names = kind({"c": 3, "a": 1, "b": 2}), ["a", "b", "c"]
    assert in_order("costs", values, names, default=0, required=names) == [1, 2, 3]
    assert in_order("costs", values, [*names, "d"], default=0) == [1, 2, 3, 0]
    assert in_order("costs", values, ["d", *names], default=0, required=names) == [0, 1, 2, 3]
    # None is a default like any other.
    assert in_order("costs", kind({"c": 3}), names, default=None) == [None, None, 3]


@pytest.mark.parametrize(
    ("values", "required", "words"),
    [
        (
            {"a": 1},
            "abc",
            r"bounds must name each column of X once: missing \['b', 'c'\], unknown \[\]\. The columns are",
        ),
        (
            {"a": 1, "x": 2},
            "ac",
            r"missing \['c'\], unknown \['x'\]\. The columns are \['a', 'b', 'c'\]",
        ),
        ({"x": 2}, "", r"bounds must name columns of X, each once: missing \[\], unknown \['x'\]"),
        (pd.Series([1, 2], index=["a", "a"]), "", r"each once: missing \[\], unknown \[\]"),
    ],
)
def test_bad_names_are_listed(values, required, words):
    with pytest.raises(ValueError, match=words):
        in_order("bounds", values, ["a", "b", "c"], default=1, required=list(required))
    with pytest.raises(ValueError, match=r"^bounds by column name need columns with names, and there are none"):
        in_order("bounds", values, None, default=1, required=list(required))
