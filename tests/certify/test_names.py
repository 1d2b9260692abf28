"""What strings stand for, against a table of its own."""

import numpy as np
import pytest

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify.names import resolve, resolve_radius
from smoothcert.sampling.scores import APSScore, LACScore
from smoothcert.training.strategies import CleanTraining, NoiseAugmentation, StabilityTraining

KINDS = {
    "noise": {
        "split": SplitNoise,
        "deterministic-split": DeterministicSplitNoise,
        "uniform": UniformNoise,
        "gaussian": GaussianNoise,
        "laplace": LaplaceNoise,
        "uniform-mixture": UniformMixtureNoise,
    },
    "radius": {"lipschitz": LipschitzRadius, "box": BoxRadius, "greedy": GreedyRadius, "auto": GreedyRadius},
    "strategy": {"lipschitz": LipschitzRadius, "box": BoxRadius, "greedy": GreedyRadius, "auto": GreedyRadius},
    "conformity_score": {"lac": LACScore, "aps": APSScore},
    "training": {"augment": NoiseAugmentation, "stability": StabilityTraining, None: CleanTraining},
}


@pytest.mark.parametrize(("argument", "name"), [(argument, name) for argument in KINDS for name in KINDS[argument]])
def test_names_stand_for_fresh_objects_with_default_parameters(argument, name):
    found, kind = resolve(argument, name), KINDS[argument][name]
    assert type(found) is kind
    assert found.get_params() == kind().get_params()
    assert resolve(argument, name) is not found


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("noise", SplitNoise(2.0, levels=9)),
        ("radius", GreedyRadius([0.1, 0.2], 3)),
        ("conformity_score", APSScore(False)),
    ],
)
def test_objects_are_cloned(argument, value):
    found = resolve(argument, value)
    assert found is not value
    assert repr(found) == repr(value)


@pytest.mark.parametrize("argument", KINDS)
@pytest.mark.parametrize("value", ["best", 1.0, SplitNoise, ["split"], object()])
def test_what_is_no_strategy_is_refused_with_all_names(argument, value):
    names = ", ".join(map(repr, KINDS[argument])) if argument not in ("radius", "strategy") else "'auto', 'lipschitz'"
    with pytest.raises(ValueError, match=rf"^{argument} must be one of {names}.*, or an? \w+ object, got "):
        resolve(argument, value)


def test_a_class_in_place_of_an_instance_is_named():
    for argument, kind in (("noise", SplitNoise), ("radius", GreedyRadius)):
        with pytest.raises(ValueError, match=rf"Pass an instance: {kind.__name__}\(\)\.$"):
            resolve(argument, kind)


def test_only_training_can_be_none():
    for argument in set(KINDS) - {"training"}:
        with pytest.raises(ValueError, match="got None"):
            resolve(argument, None)
    with pytest.raises(ValueError, match=r"noise must be .* got GreedyRadius\(\)"):
        resolve("noise", GreedyRadius())


def test_auto_is_the_tightest_strategy_that_is_valid():
    for noise in (SplitNoise(), UniformNoise(), GaussianNoise(), UniformMixtureNoise()):
        assert type(resolve_radius("auto", noise)) is GreedyRadius
    for noise in (LaplaceNoise(), DeterministicSplitNoise()):
        assert type(resolve_radius("auto", noise)) is LipschitzRadius
        for value in ("greedy", "box", GreedyRadius(), BoxRadius()):
            with pytest.raises(ValueError, match="has no certificate for"):
                resolve_radius(value, noise)
    with pytest.raises(ValueError, match="has no certificate for SplitNoise"):
        resolve_radius(LipschitzRadius(norm=2), SplitNoise())


def test_limits_by_name_follow_the_columns():
    """Columns that are left out have no limit, in either direction."""
    names, noise = ["a", "b", "c"], SplitNoise()
    own = GreedyRadius({"c": 0.5, "a": 0.1}, max_features=2)
    found = resolve_radius(own, noise, names)
    np.testing.assert_array_equal(found.max_change, [0.1, np.inf, 0.5])
    assert (found.max_features, own.max_change) == (2, {"c": 0.5, "a": 0.1})
    down, up = resolve_radius(GreedyRadius(({"b": 0.2}, 0.7)), noise, names).max_change
    np.testing.assert_array_equal(down, [np.inf, 0.2, np.inf])
    assert up == 0.7
    with pytest.raises(ValueError, match=r"max_change must name columns of X.*unknown \['d'\]"):
        resolve_radius(GreedyRadius({"d": 0.5}), noise, names)
    with pytest.raises(ValueError, match="max_change by column name need columns with names"):
        resolve_radius(own, noise)
    with pytest.raises(ValueError, match="max_change by column name needs the columns, which are not known here"):
        own.check(noise)
