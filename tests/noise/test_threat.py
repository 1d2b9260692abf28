"""Costs and categories of features: what is read, what is said of them, and what tells them apart."""

import json

import numpy as np
import pandas as pd
import pytest

from smoothcert.noise.threat import Features

NAMES = ("age", "job", "wage", "sex")


def features(costs=(1.0, 2.0, 0.5, np.inf), n_categories=(0, 3, 0, 2), hidden="uniform", names=NAMES):
    return Features(np.array(costs), np.array(n_categories), hidden, names)


def test_kinds_of_features():
    found = features()
    assert found.numeric.tolist() == [True, False, True, False]
    assert found.categorical.tolist() == [False, True, False, False]
    assert found.fixed.tolist() == [False, False, False, True]
    assert not found.is_plain
    assert Features().is_plain
    assert Features(np.ones(3), np.zeros(3)).is_plain
    assert not Features(np.ones(3), np.array([0, 2, 0])).is_plain
    assert not Features(np.array(2.0)).is_plain


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (2, 2.0),
        ("fixed", np.inf),
        ([1, "fixed", 0.5], [1, np.inf, 0.5]),
        ((1, "fixed", 0.5), [1, np.inf, 0.5]),
        (np.array(["fixed", "fixed"]), [np.inf, np.inf]),
        (np.array([3, "fixed"], dtype=object), [3, np.inf]),
        ([[1, "fixed"], [2, 3]], [[1, np.inf], [2, 3]]),
        ({"b": 3}, [1, 3, 1]),
        (pd.Series({"a": 0.5, "c": "fixed"}), [0.5, 1, np.inf]),
    ],
    ids=lambda value: " ".join(str(value).split()),
)
def test_costs_are_read(costs, expected):
    names = ["a", "b", "c"] if isinstance(costs, (dict, pd.Series)) else None
    np.testing.assert_array_equal(Features.from_costs(costs, names=names).costs, expected)


def test_costs_broadcast_to_the_shape_of_an_input():
    per_channel = np.array([1.0, 2.0]).reshape(2, 1, 1)
    expected = [1.0] * 6 + [2.0] * 6
    assert Features.from_costs(per_channel, shape=(2, 3, 2)).costs.tolist() == expected
    assert Features.from_costs(per_channel).for_shape((2, 3, 2)).costs.tolist() == expected
    flat = np.arange(1.0, 13.0)
    assert Features.from_costs(flat, shape=(2, 3, 2)).costs.tolist() == flat.tolist()
    assert Features.from_costs(3.0, shape=(2, 3, 2)).costs.shape == ()
    found = Features(np.array(2.0), np.array([0, 3])).for_shape((2,))
    assert (found.costs.tolist(), found.n_categories.tolist()) == ([2, 2], [0, 3])
    with pytest.raises(ValueError, match=r"costs must be one number, .* inputs of shape \(5,\), got shape \(2,\)"):
        Features(np.ones(2)).for_shape((5,))
    with pytest.raises(ValueError, match=r"that broadcast to inputs of shape \(5,\), got \[1, 2\]"):
        Features.from_costs([1, 2], shape=(5,))


@pytest.mark.parametrize("costs", ["fixe", [1, "free"], [[1, 2], ["fixed", "x"]]])
def test_other_words_are_no_costs(costs):
    with pytest.raises(ValueError, match='costs must be numbers above 0, or "fixed"'):
        Features.from_costs(costs)


def test_the_first_wrong_cost_is_named():
    with pytest.raises(ValueError, match=r'costs must be above 0, or "fixed" .* got -2'):
        Features.from_costs([3, -2, 0])


def test_what_replaces_a_category_is_a_known_way():
    with pytest.raises(ValueError, match="hidden must be one of 'mask', 'uniform', got 'mean'"):
        Features.from_costs(1.0, hidden="mean")


def test_other_costs_keep_everything_else():
    found = features().at_costs({"job": 5, "wage": "fixed"}, (4,))
    assert found.costs.tolist() == [1, 5, np.inf, 1]
    assert (found.n_categories.tolist(), found.hidden, found.names) == ([0, 3, 0, 2], "uniform", NAMES)


def test_all_that_matters_tells_features_apart():
    """Names matter to messages alone; costs, categories and what replaces them decide about noise."""
    others = [
        features(),
        features(costs=(1.0, 2.0, 0.25, np.inf)),
        features(n_categories=(0, 4, 0, 2)),
        features(hidden="mask"),
        features(costs=(1.0, 2.0, 0.5, 1.0)),
        Features(np.array(2.0)),
        Features(np.full(1, 2.0)),
    ]
    found = [one.fingerprint() for one in others]
    assert len(set(found)) == len(found)
    assert all(len(one) == 32 for one in found)
    assert features(names=None).fingerprint() == found[0]
    assert Features().fingerprint() == Features(np.ones(4), np.zeros(4, dtype=int)).fingerprint() == ""


@pytest.mark.parametrize(
    "one", [features(), features(hidden="mask", names=None), Features(), Features(np.array(np.inf))]
)
def test_features_survive_json(one):
    again = Features.from_json(json.loads(json.dumps(one.to_json())))
    np.testing.assert_array_equal(again.costs, one.costs)
    np.testing.assert_array_equal(again.n_categories, one.n_categories)
    assert (again.hidden, again.names, again.fingerprint()) == (one.hidden, one.names, one.fingerprint())
    assert again.n_categories.dtype == np.int64


def test_no_content_is_plain():
    assert Features.from_json(None).is_plain


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Features(), ""),
        (Features(np.array(3.0)), "at a cost of 3 for each feature"),
        (Features(np.full(4, 0.5)), "at a cost of 0.5 for each feature"),
        (Features(np.array(np.inf)), "that leave every feature as they are"),
        (Features(np.array([1, np.inf, 1])), "that leave feature 1 as it is"),
        (Features(np.array([np.inf, 1, np.inf])), "that leave features 0, 2 as they are"),
        (
            Features(np.array([2.0, 0.5, 1, 4, 0.5, 1])),
            "at costs of 4 for feature 3, 2 for feature 0, 0.5 for features 1, 4 and 1 for the others",
        ),
        # Without a cost of 1, the most frequent one is that of the others.
        (Features(np.array([2.0, 3.0, 3.0])), "at costs of 2 for feature 0 and 3 for the others"),
        (
            features(),
            "that leave column 'sex' as it is, with changed categories of column 'job', at costs of 2 for column "
            "'job', 0.5 for column 'wage' and 1 for the others",
        ),
        (Features(np.repeat([np.inf, 1], [8, 9])), "that leave features 0, 1, 2, 3, 4, 5, 6, 7 as they are"),
    ],
)
def test_words(one, words):
    # One number for all features stands for one feature or many.
    assert one.describe() == words.replace("every feature as they are", "every feature as it is")


def test_many_features_are_counted_and_told_apart():
    found = [Features(np.where(places, np.inf, 1.0)).describe() for places in (np.arange(12) < 9, np.arange(12) > 2)]
    assert all(one.startswith("that leave 9 features (") for one in found)
    assert found[0] != found[1]


def test_lattices_are_those_of_numbers_that_can_change():
    steps = (8, 3, 8, 5)
    assert features().lattices(steps) == "on the lattice of 8 levels in columns 'age', 'wage'"
    three = Features(names=("a", "b", "c")).lattices((3, 9, 4))
    assert three == "on the lattice of 9 levels in column 'b', of 4 levels in column 'c' and of 3 levels in column 'a'"
    assert features().lattices((0, 3, 0, 5)) == ""


def test_fixed_features_become_zeros():
    X = np.arange(1.0, 9.0).reshape(2, 4)
    np.testing.assert_array_equal(features().without_fixed(X), [[1, 2, 3, 0], [5, 6, 7, 0]])
    images = Features(np.array([[np.inf], [1.0]])).without_fixed(np.ones((3, 2, 2)))
    np.testing.assert_array_equal(images, [[[0, 0], [1, 1]]] * 3)
    assert (X > 0).all()
