"""Checks of single arguments: what passes comes back in its type, and the message names argument, need and value."""

import datetime as dt
import math
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from smoothcert._utils import checks

NAN, INF = math.nan, math.inf
POSITIVE, NOT_NEGATIVE = "be a finite number above 0", "be 0 or a finite number above 0"
OPEN_UNIT, FRACTION = "lie strictly between 0 and 1", "lie above 0 and be at most 1"
COUNT = "be a whole number of at least 1"


@pytest.mark.parametrize(
    ("check", "good", "bad", "need"),
    [
        (checks.check_positive, [5e-324, 1, np.float32(2), Fraction(1, 2)], [0, -1e-9, INF, NAN, True, "1"], POSITIVE),
        (checks.check_not_negative, [0, 0.0, 5e-324, np.int64(3)], [-5e-324, INF, NAN, False, None], NOT_NEGATIVE),
        (checks.check_open_unit, [5e-324, 1 - 2**-53], [0, 1, 0.0, 1.0, NAN, True, [0.5]], OPEN_UNIT),
        (checks.check_count, [1, np.int32(7), 10**12], [0, -1, 1.0, True, "1", None], COUNT),
    ],
)
def test_numbers(check, good, bad, need):
    for value in good:
        found = check("alpha", value)
        assert found == value
        assert type(found) is (int if check is checks.check_count else float)
    for value in bad:
        with pytest.raises(ValueError, match=f"^alpha must {need}, got {re.escape(repr(value))}\\.$"):
            check("alpha", value)


def test_fractions_booleans_and_choices():
    assert (checks.check_fraction(1), checks.check_fraction(1e-9)) == (1.0, 1e-9)
    for value in (0, 1 + 1e-9, NAN, True):
        with pytest.raises(ValueError, match=f"^fraction must {FRACTION}, got {value!r}"):
            checks.check_fraction(value)
    for value in (True, np.True_):
        assert checks.check_bool("stream", value) is True
    assert checks.check_bool("stream", np.False_) is False
    for value in (1, 0, None, "yes"):
        with pytest.raises(ValueError, match=f"^stream must be True or False, got {value!r}"):
            checks.check_bool("stream", value)
    known = (None, "low", True)
    for value in known:
        assert checks.check_choice("mode", value, known) is value
    for value in ("Low", 1, False, np.array(["low"])):
        with pytest.raises(ValueError, match=r"^mode must be one of None, 'low', True, got "):
            checks.check_choice("mode", value, known)


@pytest.mark.parametrize(
    ("radius", "several", "expected"),
    [
        (0, False, [0.0] * 3),
        (INF, False, [INF] * 3),
        ([1, 2, 3], False, [1.0, 2.0, 3.0]),
        ([1, 2, 3], True, [1.0, 2.0, 3.0]),
        ([[0.5, 2]], True, [[0.5, 2.0]] * 3),
        ([[1, 2], [3, 4], [5, 6]], True, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        ([Fraction(1, 2), 1, 0.25], False, [0.5, 1.0, 0.25]),
    ],
)
def test_radii(radius, several, expected):
    found = checks.check_radii(radius, 3, several=several)
    assert found.dtype == np.float64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "radius",
    [-1e-9, NAN, [1, 2], [[1], [2]], True, [np.True_] * 3, "1", None, 1j, Decimal(1), [[1], [2, 3]]],
)
@pytest.mark.parametrize("several", [False, True])
def test_bad_radii(radius, several):
    needed = r"a number of at least 0, or one for each of 3 inputs"
    rows = r", or rows of several radii of shape \(1, n_radii\) or \(n_inputs, n_radii\)" if several else ""
    remedy = r"\. Write \[\[1\.0, 2\.0\]\] to ask for all of these radii at each input\." if several else r"\."
    end = remedy if radius == [1, 2] else r"\."
    with pytest.raises(ValueError, match=f"^tolerance must be {needed}{rows}, got {re.escape(repr(radius))}{end}$"):
        checks.check_radii(radius, 3, several=several, name="tolerance")


def test_rows_of_radii_are_refused_where_one_is_meant():
    for radius, several in (([[1.0, 2.0]], False), ([[]], True), ([[[1.0]]], True)):
        with pytest.raises(ValueError, match=r"^radius must be a number of at least 0"):
            checks.check_radii(radius, 2, several=several)


def test_radii_of_a_store_and_thresholds():
    assert checks.check_same_radii(0.5, np.full(3, 0.5)) == 0.5
    assert checks.check_same_radii([[0.5, 1]], np.tile([0.5, 1.0], (3, 1))) == [0.5, 1.0]
    for radii in (np.array([0.5, 0.5, 0.6]), np.array([[0.5, 1.0], [0.5, 2.0]])):
        with pytest.raises(ValueError, match=r"^radius must be the same for all inputs .* got 'given'\."):
            checks.check_same_radii("given", radii)
    found = checks.check_thresholds([0, 2])
    assert (found.tolist(), found.dtype) == ([0.0, 2.0], np.float64)
    assert checks.check_thresholds(0.5).shape == ()
    for value in (-0.5, [1, NAN], "0.5", True):
        with pytest.raises(ValueError, match=f"^radius must hold numbers of at least 0, got {re.escape(repr(value))}"):
            checks.check_thresholds(value)


def test_classes_and_labels():
    assert checks.check_classes(["b", "a"]).tolist() == ["b", "a"]
    for value in ([], [1, 1], [[1, 2]], 3):
        with pytest.raises(
            ValueError, match=f"^classes must be a list of distinct labels, got {re.escape(repr(value))}"
        ):
            checks.check_classes(value)
    with pytest.raises(ValueError, match=r"^classes must hold labels of one type, got "):
        checks.check_classes(np.array([1, "a"], dtype=object))
    assert checks.sorted_unique("y", [3, 1, 3]).tolist() == [1, 3]
    words, numbers = np.array(["a", "b", "c", "d"]), np.arange(5)
    assert checks.check_labels(None, 2, words) is None
    assert checks.check_labels(["d", "x"], 2, words).tolist() == ["d", "x"]
    assert checks.check_labels([1.0, 7.0], 2, numbers).tolist() == [1, 7]
    for y, shape in ((["a"], r"\(1,\)"), ([["a", "b"]], r"\(1, 2\)"), ("a", r"\(\)")):
        with pytest.raises(ValueError, match=f"^y must hold one label for each of 2 inputs, got shape {shape}"):
            checks.check_labels(y, 2, words)
    with pytest.raises(
        ValueError, match=r"^truth must hold labels like the classes, \['a', 'b', 'c'\], got \[1, 2, 3\]"
    ):
        checks.check_labels([1, 2, 3, 4], 4, words, "truth")
    with pytest.raises(ValueError, match=r"^y must hold labels like the classes, \[0, 1, 2\], got \['a', 'b'\]"):
        checks.check_labels(["a", "b"], 2, numbers)


def test_one_number_for_each_input():
    found = checks.check_numbers("y", [1, 2], 2)
    assert (found.tolist(), found.dtype) == ([1.0, 2.0], np.float64)
    for values in ([1.0], [[1.0, 2.0]], [1.0, NAN], [1.0, -INF], ["a", "b"], None):
        with pytest.raises(
            ValueError, match=f"^weight must hold one finite number for each of 2 inputs, got {re.escape(repr(values))}"
        ):
            checks.check_numbers("weight", values, 2)


# Inputs


def test_shapes():
    assert checks.shape_of([[1, 2, 3]]) == checks.shape_of(pd.DataFrame(np.ones((1, 3)))) == (1, 3)
    for X in (np.ones((4, 2)), np.ones(4)):
        checks.check_shape(X, (7,), any_shape=False)
    with pytest.raises(
        ValueError, match=r"^Found array with dim 3: X must be a table .* got shape \(4, 2, 1\)\. Use X"
    ):
        checks.check_shape(np.ones((4, 2, 1)), None, any_shape=False)
    checks.check_shape(np.ones((4, 2, 1)), None, any_shape=True)
    checks.check_shape(np.ones((4, 2, 1)), (2, 1), any_shape=True)
    for fitted, words in (((1, 2), "n, 1, 2"), ((2,), "n, 2"), ((), "n")):
        with pytest.raises(ValueError, match=rf"^X must have shape \({words}\), as in fit, got shape \(4, 2, 1\)"):
            checks.check_shape(np.ones((4, 2, 1)), fitted, any_shape=True)


def test_dates():
    checks.check_no_dates(pl.DataFrame({"a": [1.0], "b": ["x"]}))
    checks.check_no_dates(np.ones((2, 2)))
    for value in (dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.timedelta(1)):
        with pytest.raises(ValueError, match=r"^X must hold numbers, but column 'b' holds .*Convert it to meaningful"):
            checks.check_no_dates(pl.DataFrame({"a": [1.0], "b": [value]}))


def test_errors_of_scikit_learn_name_the_value():
    frame = pd.DataFrame({"a": [1.0, None], "b": [2, "x"]}, dtype=object)
    for X, column in ((frame, "'b'"), (frame.to_numpy(), "1")):
        found = checks.explain_invalid(X, ValueError("could not convert"))
        assert str(found).startswith(f"X must hold numbers, but column {column} holds 'x'. Encode it first")
    for missing in ("NaN", "infinity"):
        found = checks.explain_invalid(frame, ValueError(f"Input contains {missing}.\nMore words"))
        assert str(found).startswith(f"Input contains {missing}. Smoothing needs a finite number everywhere")
    for error in (ValueError("else"), TypeError("else")):
        assert checks.explain_invalid([[1.0, None, pd.NA, pd.NaT, 1j]], error) is error
        assert checks.explain_invalid([[[1.0]]], error) is error
    # A TypeError of an array has a cause of its own; one of a table is often a value of another type.
    error = TypeError("else")
    assert checks.explain_invalid([["x"]], error) is error
    assert "holds 'x'" in str(checks.explain_invalid(frame, error))


def test_shapes_of_what_holds_no_data():
    with pytest.raises(
        ValueError, match=r"X must hold data, got a LazyFrame, which is a query\. Pass what X\.collect\(\)"
    ):
        checks.shape_of(pl.LazyFrame({"a": [1.0]}))
    for empty in (pd.DataFrame(index=range(3)), np.empty((3, 0)), np.empty((3, 4, 0))):
        with pytest.raises(
            ValueError, match=r"0 feature\(s\) \(shape=\(3, .*0\)\) while a minimum of 1 is required in X"
        ):
            checks.check_shape(empty, None, any_shape=True)


def test_what_can_be_collected_may_hold_data():
    class Rows(list):
        def collect(self):
            return self

    assert checks.shape_of(Rows([[1.0, 2.0]])) == (1, 2)


def test_labels_that_say_nothing_about_predictions():
    words, numbers = np.array(["a", "b"]), np.arange(2)
    for y, classes in [
        (np.array([b"a", b"b"]), words),
        (np.array([b"a", b"b"], dtype=object), words),
        (np.array(["2020-01-01"] * 2, dtype="M8[D]"), numbers),
        (np.array([1, 0], dtype="m8[s]"), numbers),
    ]:
        with pytest.raises(ValueError, match="y must hold labels like the classes"):
            checks.check_labels(y, 2, classes)
    assert checks.check_labels([b"a", b"b"], 2, np.array([b"a"])).tolist() == [b"a", b"b"]
    assert checks.check_labels(np.array([1, True], dtype=object), 2, numbers).tolist() == [1, True]
    for missing, classes in [(NAN, numbers), (None, words), (pd.NA, words), (pd.NaT, words)]:
        y = np.array([classes[0], missing], dtype=object if classes is words else float)
        with pytest.raises(ValueError, match=f"y must hold a label for each input, got {missing}.* at position 1"):
            checks.check_labels(y, 2, classes)
    masked = np.ma.array([1.0, 0.0], mask=[False, True])
    for check in (lambda y: checks.check_labels(y, 2, numbers), lambda y: checks.check_numbers("y", y, 2)):
        with pytest.raises(ValueError, match=r"y holds masked values.*by y\.filled\(value\)"):
            check(masked)
        with pytest.raises(ValueError, match=r"y must hold data, got a LazyFrame.*Pass what y\.collect\(\)"):
            check(pl.LazyFrame({"y": [1, 0]}))


def test_tensors_without_plain_numbers():
    x = torch.tensor([[0.5, 0.25]])
    for tensor, kind in [
        (x.to("meta"), "meta"),
        (torch.quantize_per_tensor(x, 0.01, 0, torch.quint8), "quantized"),
        (torch.nested.nested_tensor([x[0], x[0, :1]]), "nested"),
    ]:
        for given in (tensor, [tensor]):
            with pytest.raises(ValueError, match=f"y must be a tensor of plain numbers, got a {kind} one"):
                checks.on_host(given, "y")
    assert checks.on_host(torch._neg_view(x)).tolist() == [[-0.5, -0.25]]
    assert checks.on_host(torch.conj(x * 1j)).tolist() == [[-0.5j, -0.25j]]


def test_paths():
    assert checks.check_path("store", None) is None
    assert checks.check_path("store", "a.sqlite") == checks.check_path("store", Path("a.sqlite")) == Path("a.sqlite")
    for wrong in (b"a.sqlite", 5, True):
        with pytest.raises(ValueError, match=f"store must be a str or a path of a file, got {wrong!r}"):
            checks.check_path("store", wrong)
