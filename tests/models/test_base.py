"""Kinds of base models, what a voter is unless it says otherwise, and checks of what models answer."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert.models import base
from smoothcert.models.base import LabelTable, Voter, checked_probabilities, checked_values

from .problems import thirds


def test_kinds_of_models():
    module, net, model = nn.ReLU(), NeuralNetClassifier(nn.ReLU), GaussianNB()
    asked = [
        module,
        FrozenEstimator(module),
        net,
        FrozenEstimator(net),
        thirds,
        FrozenEstimator(thirds),
        model,
        nn.ReLU,
    ]
    answers = {
        "is_module": [1, 1, 0, 0, 0, 0, 0, 0],
        "is_net": [0, 0, 1, 1, 0, 0, 0, 0],
        "is_torch": [1, 1, 1, 1, 0, 0, 0, 0],
        "is_function": [0, 0, 0, 0, 1, 1, 0, 0],
        "takes_any_shape": [1, 1, 1, 1, 1, 1, 0, 0],
    }
    for name, expected in answers.items():
        assert [getattr(base, name)(one) for one in asked] == expected, name
    assert base.unwrap(FrozenEstimator(FrozenEstimator(model))) is model


# Labels and numbers


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (np.arange(3), np.array([2, 0, 1]), [2, 0, 1]),
        (np.arange(3), np.array([2.0, 0.0]), [2, 0]),
        (np.arange(3), np.array([2, 0], dtype=np.int8), [2, 0]),
        (np.arange(2), np.array([True, False]), [1, 0]),
        (np.array([7, -1, 3]), np.array([3, 7, -1, 7]), [2, 0, 1, 0]),
        (np.array(["no", "a", "yes"]), np.array(["yes", "a", "no"]), [2, 1, 0]),
        (np.array(["b", "a"], dtype=object), np.array(["a", "b"]), [1, 0]),
        (np.array([0.5, 0.25]), np.array([0.25, 0.5]), [1, 0]),
    ],
)
def test_indices_of_labels(classes, labels, expected):
    assert LabelTable(classes).indices(labels, "Model").tolist() == expected


@pytest.mark.parametrize(
    ("classes", "labels", "first"),
    [
        (np.arange(3), np.array([0, -1, 5]), "-1"),
        (np.arange(3), np.array([0, 3, -1]), "3"),
        (np.arange(3), np.array([0.5]), "0.5"),
        (np.array([7, 3]), np.array([3, 8]), "8"),
        (np.array([7, 3]), np.array([3, 2]), "2"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "'c'"),
        (np.array(["a", "b"], dtype=object), np.array([1, 2]), "1"),
    ],
)
def test_unknown_labels_are_named(classes, labels, first):
    message = rf"^The base model Model returned the label .*{first}.*, which is not among the classes \[.*Nothing was"
    with pytest.raises(ValueError, match=message):
        LabelTable(classes).indices(labels, "Model")


def test_one_number_for_each_row():
    for values in ([1, 2], [[1.0], [2.0]], np.array([True, False]), np.array([1, 2], np.uint8), [np.inf, -np.inf]):
        found = checked_values(values, 2, "Model")
        assert (found.shape, found.dtype) == ((2,), np.float64)
        assert found.tolist() == np.ravel(values).tolist()
    for values, what in (
        ([1.0], r"shape \(1,\) of float64"),
        ([[1.0, 2.0]], r"shape \(1, 2\) of float64"),
        (["a", "b"], r"shape \(2,\) of <U1"),
        ([1j, 2], r"shape \(2,\) of complex128"),
        ([1.0, np.nan], "NaN"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"^The base model Model must return one number per row, shape \(2,\), but returned {what}\. Nothing",
        ):
            checked_values(values, 2, "Model")


def test_one_probability_for_each_class():
    assert checked_probabilities([[1, 0]], 1, 2, "Model").tolist() == [[1.0, 0.0]]
    for values, what in (
        ([[1.0]], r"shape \(1, 1\)"),
        ([[0.5, np.inf]], "values that are not finite"),
        ([0.5, 0.5], r"shape \(2,\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"one finite probability per class, shape \(1, 2\), but returned {what}\. No set"
        ):
            checked_probabilities(values, 1, 2, "Model")


class Plain(Voter):
    """What a voter is unless it says otherwise."""

    def __init__(self):
        self.answer = np.zeros(2, dtype=int)

    def __call__(self, batch):
        self.answer[:] = batch[:, 0]
        return self.answer

    def content(self):
        return "Plain ?"


def test_a_plain_voter():
    voter = Plain()
    kept = ("most_rows", "free_rows", "task_factor", "most_together", "n_batches", "most_changed", "coarse_step")
    assert [getattr(voter, name) for name in kept] == [2**15, 1, 1, 64, 0, 1, 0.0]
    assert not voter.content_decides
    assert voter.for_threads() == [voter]
    first = voter.vote(np.ones((2, 1)))
    voter.vote(np.zeros((2, 1)))
    assert first().tolist() == [1, 1]
    assert voter.settle(np.ones((2, 1))).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"^The base model Plain has no probabilities"):
        voter.probabilities(np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"^The base model Plain predicts no numbers\.$"):
        voter.values(np.ones((2, 1)))
    for context in (voter.ready(), voter.voting()):
        with context:
            pass
