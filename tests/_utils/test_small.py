"""Values by column, late imports, pipelines and words."""

import numba
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from smoothcert import GreedyRadius, SplitNoise
from smoothcert._utils.by_column import in_order, is_by_column
from smoothcert._utils.compiled import njit
from smoothcert._utils.optional import attribute, optional
from smoothcert._utils.pipelines import last_step
from smoothcert._utils.text import describe, exact, in_words, name_of


def test_values_by_column_are_told_from_values_in_order():
    series, frame = pd.Series([1.0], index=["a"]), pd.DataFrame({"a": [1.0]})
    for values in ({"a": 1.0}, {}, series, frame):
        assert is_by_column(values)
    for values in ([1.0], np.ones(2), pd.Series([1.0, 2.0]), pd.DataFrame([[1.0]]), pl.Series("a", [1.0]), 1.0, None):
        assert not is_by_column(values)


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_values_by_column_follow_the_order_of_the_columns(kind):
    values, names = kind({"c": 3, "a": 1, "b": 2}), ["a", "b", "c"]
    assert in_order("costs", values, names) == [1, 2, 3]
    assert in_order("costs", values, [*names, "d"], default=0) == [1, 2, 3, 0]
    assert in_order("costs", values, ["d", *names], optional={"d"}) == [None, 1, 2, 3]
    # None is a default like any other.
    assert in_order("costs", kind({"c": 3}), names, default=None) == [None, None, 3]


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ({"a": 1}, {}, r"bounds must name each column of X once: missing \['b', 'c'\], unknown \[\]\. The columns are"),
        (
            {"a": 1, "x": 2},
            {"optional": ("b",)},
            r"missing \['c'\], unknown \['x'\]\. The columns are \['a', 'b', 'c'\]",
        ),
        ({"x": 2}, {"default": 1}, r"bounds must name columns of X, each once: missing \[\], unknown \['x'\]"),
        (pd.Series([1, 2], index=["a", "a"]), {"default": 1}, r"each once: missing \[\], unknown \[\]"),
    ],
)
def test_bad_names_are_listed(values, options, words):
    with pytest.raises(ValueError, match=words):
        in_order("bounds", values, ["a", "b", "c"], **options)
    with pytest.raises(ValueError, match=r"^bounds by column name need columns with names, and there are none"):
        in_order("bounds", values, None, **options)


def test_late_imports():
    assert optional("numpy.linalg", "extra") is np.linalg
    with pytest.raises(ImportError, match=r'^This needs nothere\. Install it with: pip install "smoothcert\[plots\]"'):
        optional("nothere.inside", "plots")
    modules = {"SplitNoise": ".noise.lattice"}
    assert attribute("smoothcert", "SplitNoise", modules) is SplitNoise
    with pytest.raises(AttributeError, match=r"^module 'smoothcert' has no attribute 'Other'$"):
        attribute("smoothcert", "Other", modules)


def test_the_last_step_of_a_pipeline_and_its_inputs():
    double, shift = FunctionTransformer(lambda X: 2 * X), FunctionTransformer(lambda X: X + 1)
    last = GaussianNB()
    one, two = np.ones(2), np.zeros(2)
    found = last_step(make_pipeline(double, make_pipeline(shift, last)), one, two)
    assert found[0] is last
    assert [list(X) for X in found[1:]] == [[3, 3], [1, 1]]
    assert last_step(Pipeline([("a", last)]), one)[1] is one
    assert last_step(last, one) == (last, one)


def test_compiled_functions_fall_back_to_no_cache(monkeypatch):
    asked = []

    def without_a_directory(cache=False, **options):
        asked.append((cache, options))
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(numba, "njit", without_a_directory)
    assert njit(cache=True, nogil=True)(abs) == (abs, {"nogil": True})
    assert njit(parallel=True)(abs) == (abs, {"parallel": True})
    assert asked == [(True, {"nogil": True}), (False, {"nogil": True}), (False, {"parallel": True})]


# Text


def test_texts_of_small_values():
    assert exact([1, (2.5,), ()]) == "[1, (2.5,), ()]"
    assert exact((1, [])) == "(1, [])"
    assert exact(np.float64(0.1)) == "0.1"
    assert exact(np.array(["a", None], dtype=object)) == "array(['a', None])"
    assert exact(np.zeros(16)).startswith("array([0.0, 0.0")
    assert exact(np.arange(17)).startswith("array([0, ..., 16], shape=(17,), hash=")
    # Objects are told apart by what they are, and not by where they lie.
    words = [np.array([text, *"bcdefghijklmnopqrs"], dtype=object) for text in ("a" * 20, "".join(["a"] * 20), "x")]
    assert exact(words[0]) == exact(words[1]) != exact(words[2])
    assert exact(np.arange(34)[::2]) == exact(np.arange(0, 34, 2))
    assert "SplitNoise(lam=2.0" in exact([SplitNoise(2.0)])


def test_strategies_are_described_by_all_parameters():
    assert describe(GreedyRadius(max_features=2)).startswith("GreedyRadius(")
    assert "max_features=2" in describe(GreedyRadius(max_features=2))
    assert describe(Ridge(alpha=2.0)).startswith("sklearn.linear_model._ridge.Ridge(alpha=2.0, ")
    assert (name_of(SplitNoise()), name_of(PCA())) == ("SplitNoise", "sklearn.decomposition._pca.PCA")

    class Own(SplitNoise):
        pass

    assert name_of(Own()).endswith("test_strategies_are_described_by_all_parameters.<locals>.Own")


def test_numbers_in_words():
    assert [in_words(n) for n in (0, 1, 3, 10, 11)] == ["no", "one", "three", "ten", "11"]
