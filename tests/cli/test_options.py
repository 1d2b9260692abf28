"""What the texts of options mean."""

from __future__ import annotations

from collections import defaultdict

import click
import numpy as np
import pandas as pd
import pytest

from smoothcert import BoxRadius, GaussianNoise, GreedyRadius, LaplaceNoise, LipschitzRadius, UniformMixtureNoise
from smoothcert.cli import options


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("3", [0, 1, 2]),
        ("0,1,7", [0, 1, 7]),
        ("-1,1", [-1, 1]),
        ("7,3", [7, 3]),
        ("a,b", ["a", "b"]),
        ("1,b", ["1", "b"]),
        ("cat", ["cat"]),
        ("\N{SUPERSCRIPT TWO}", ["\N{SUPERSCRIPT TWO}"]),
        ("--1,2", ["--1", "2"]),
    ],
)
def test_classes(text, classes):
    assert options.parse_classes(text) == classes


def test_a_number_of_classes_is_at_least_1():
    for wrong in ("0", "-1"):
        with pytest.raises(click.UsageError, match=f"--classes must be labels a,b,c, or .* got '{wrong}'"):
            options.parse_classes(wrong)


def test_numbers_and_bounds(tmp_path):
    assert options.parse_numbers("0,0.5,1e1,inf") == [0, 0.5, 10, np.inf]
    assert options.parse_bounds("-1,2.5") == (-1, 2.5)
    np.save(tmp_path / "ends.npy", np.array([[0.0, 1.0], [2.0, 3.0]]))
    lo, hi = options.parse_bounds(str(tmp_path / "ends.npy"))
    assert (lo.tolist(), hi.tolist()) == ([0, 1], [2, 3])
    for wrong in ("1", "1,2,3", "a,b", ""):
        with pytest.raises(click.UsageError, match=r"--bounds must be LO,HI or a .npy file"):
            options.parse_bounds(wrong)


def test_costs():
    columns = ["age", "a=b", "2"]
    found = options.parse_costs(("a=b=0.5", "2=fixed"), columns)
    assert found.tolist() == [1, 0.5, np.inf]
    assert options.parse_costs(("2=4", "age=inf"), columns).tolist() == [np.inf, 1, 4]
    assert options.parse_costs((), columns).tolist() == [1, 1, 1]


def test_levels():
    X = pd.DataFrame({"age": [1], "pay": [2], 7: [3]})
    assert options.parse_levels((), X) == ()
    assert options.parse_levels(("255",), X) == 255
    assert options.parse_levels(("pay=4", "7=9"), X) == ("auto", 4, 9)
    assert options.parse_levels(("1=8",), np.zeros((5, 2))) == ("auto", 8)
    for wrong in (
        ("1.5",),
        ("home=3",),
        ("pay=4", "pay=5"),
        ("255", "pay=4"),
        ("pay=4", "255"),
        ("pay=-4",),
        ("pay=",),
    ):
        with pytest.raises(click.UsageError, match="--levels must be a whole number, or COLUMN=N once"):
            options.parse_levels(wrong, X)


def test_positions_of_columns_with_names_are_refused():
    X, hint = pd.DataFrame({"age": [1], "pay": [2], 7: [3]}), r"got '1(=2)?'\. Columns that have names go by"
    given = {"categorical": ("1",), "categorical_features": None}
    for read in (
        lambda: options.parse_levels(("1=2",), X),
        lambda: options.parse_costs(("1=2",), options.columns_of(X)),
        lambda: options.mixed(None, given, X, {}),
    ):
        with pytest.raises(click.UsageError, match=hint):
            read()
    for text, columns in (("home=2", X), ("5=2", np.zeros((4, 2)))):
        with pytest.raises(click.UsageError, match=f"got '{text}'\\.$"):
            options.parse_levels((text,), columns)


def test_shards_and_columns():
    assert options.parse_shard("3/64") == (3, 64)
    assert options.columns_of(np.zeros((4, 2, 3))) == ["0", "1", "2", "3", "4", "5"]
    assert options.columns_of(pd.DataFrame({"a": [1], 5: [2]})) == ["a", "5"]


def given(**values):
    return defaultdict(lambda: None, values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"radius": "box"}, "box"),
        ({"radius": "auto"}, "auto"),
        ({"norm": "inf"}, LipschitzRadius(norm=np.inf)),
        ({"norm": "1", "radius": "auto"}, LipschitzRadius(norm=1.0)),
        ({"max_features": 2, "max_change": 0.0}, GreedyRadius(max_features=2, max_change=0.0)),
        ({"max_change": 0.5, "radius": "auto"}, GreedyRadius(max_change=0.5)),
    ],
)
def test_radii(values, expected):
    found = options.make_radius(given(**values))
    assert repr(found) == repr(expected)
    assert type(found) is type(expected)


def test_limits_of_another_radius_are_refused():
    for values, message in (
        ({"radius": "box", "max_features": 2}, "--radius box does not go with --max-features"),
        ({"radius": "greedy", "norm": "2"}, "--radius greedy does not go with --norm"),
        ({"norm": "2", "max_change": 0.5}, "--radius lipschitz does not go with --max-change"),
    ):
        with pytest.raises(click.UsageError, match=message):
            options.make_radius(given(**values))
    assert BoxRadius().norm == 1


def test_noise_keeps_what_is_not_given():
    own = UniformMixtureNoise((0.5, 1.0), (0.25, 0.75))
    assert options.make_noise(given(weights=[0.5, 0.5]), own).get_params()["lams"] == (0.5, 1.0)
    assert options.make_noise(given(sigma=0.4), GaussianNoise(0.2, levels=8)).get_params() == {
        "levels": 8,
        "sigma": 0.4,
    }
    found = options.make_noise(given(sigma=0.4), LaplaceNoise(0.9))
    assert found.get_params() == LaplaceNoise.from_sigma(0.4).get_params()
    assert str(options.make_noise(given(noise="gaussian"), GaussianNoise(0.2))) == str(GaussianNoise())
    with pytest.raises(click.UsageError, match="UniformMixtureNoise has no --lam: it has --lams, --weights"):
        options.make_noise(given(lam=0.5), own)
