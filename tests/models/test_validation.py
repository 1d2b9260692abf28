"""Validation data among the parameters of fit."""

import pytest

from smoothcert.models.validation import converted


def test_validation_data_among_parameters():
    def double(value):
        return [2 * one for one in value]

    def names(value):
        return [f"y{one}" for one in value]

    pair, other = ([1], [0]), ([3], [1])
    params = {"eval_set": [pair, list(other)], "X_val": [5], "y_val": [7], "verbose": [9]}
    assert converted(params, double, names) == {
        "eval_set": [([2], ["y0"]), ([6], ["y1"])],
        "X_val": [10],
        "y_val": ["y7"],
        "verbose": [9],
    }
    assert params["X_val"] == [5]
    assert converted({"eval_set": pair}, labels=names) == {"eval_set": ([1], ["y0"])}
    assert converted({"eval_set": (pair, other)}, inputs=double) == {"eval_set": [([2], [0]), ([6], [1])]}
    assert converted({"eval_set": None, "X_val": None}, double, names) == {"eval_set": None, "X_val": None}
    for value, kind in ({"a": 1}, "dict"), ([pair, [1]], "list"), ([3], "list"), ("ab", "str"):
        with pytest.raises(ValueError, match=rf"^eval_set must be a list of pairs \(X, y\), got a {kind}"):
            converted({"eval_set": value}, double)
