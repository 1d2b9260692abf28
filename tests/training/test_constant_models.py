"""A warning of base models that answer one class."""

import warnings

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB

from smoothcert import UniformNoise
from smoothcert.models.adapt import make_voter
from smoothcert.models.function import FunctionVoter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.training.constant_models import warn_constant

from .problems import X


class Scripted(GaussianNB):
    """Answers by a function."""

    answer = None

    def predict(self, X):
        return self.answer(X)


Scripted.__module__ = "sklearn.scripted"


def warned(answer, counts, classes=(3, 5, 9), **given):
    y = np.repeat(classes[: len(counts)], counts)
    rows = np.column_stack([np.arange(len(y)) / len(y), y / 10])
    model = Scripted().fit(rows, y)
    model.answer = answer
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1e-6), (2,))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_constant(given.get("voter") or make_voter(model, np.unique(y)), mechanism, rows, y, 0)
    return [str(one.message) for one in found]


def test_a_model_that_answers_one_class_is_named():
    def always(value):
        return lambda rows: np.full(len(rows), value)

    [message] = warned(always(5), [40, 32, 50])
    assert message.startswith("The smoothed classifier predicts 5 for all of 96 training inputs of 3 classes: large")
    # Classes of fewer than 32 inputs are left out, and one class tells nothing.
    assert "64 training inputs of 2 classes" in warned(always(3), [40, 31, 32])[0]
    assert not warned(always(3), [31, 31, 400])
    # One input of another class suffices, but a few votes of it do not.
    assert not warned(lambda rows: np.where(rows[:, 1].round(4) >= 0.9, 9, 3), [40, 40, 40])
    calls = iter(range(10**6))

    def first_copy_of_every_other(rows):
        numbers = np.array([next(calls) for _ in rows])
        return np.where((numbers % 16 == 0) & (numbers // 16 % 2 == 1), 5, 3)

    assert warned(first_copy_of_every_other, [40, 40])
    assert not warned(lambda rows: 1 / 0, [40, 40])
    assert not warned(None, [40, 40], voter=FunctionVoter(always(3), np.array([3, 5])))
    assert not warned(None, [40, 40], voter=make_voter(LinearRegression().fit(X, X[:, 0]), None))
    many = warned(always(0), [32] * 12, classes=range(12))
    assert "320 training inputs of 10 classes" in many[0]
