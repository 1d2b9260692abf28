"""Voters with a time limit."""

import time
from contextlib import contextmanager

import numpy as np
import pytest

from smoothcert.models.function import FunctionVoter
from smoothcert.models.timeout import TimedVoter

from .problems import X, thirds


@contextmanager
def noted(notes):
    notes.append("in")
    yield
    notes.append("out")


def test_a_time_limit_changes_nothing_else():
    inner, notes = FunctionVoter(thirds, np.arange(3)), []
    inner.batch_values, inner.most_rows, inner.free_rows, inner.most_changed = 5, 6, 7, 8
    inner.content_decides, inner.ready = True, lambda: noted(notes)
    voter = TimedVoter(inner, 30.0)
    names = "batch_values", "most_rows", "free_rows", "most_changed", "content_decides", "dtype", "n_classes"
    assert [getattr(voter, name) for name in names] == [5, 6, 7, 8, True, np.float64, 3]
    assert voter.content() == inner.content()
    np.testing.assert_array_equal(voter(X), thirds(X))
    with voter.ready():
        assert notes == ["in"]
    assert notes == ["in", "out"]
    numbers = TimedVoter(FunctionVoter(lambda rows: rows[:, 0], None), 30.0)
    np.testing.assert_array_equal(numbers.values(X), X[:, 0])
    scores = TimedVoter(FunctionVoter(lambda rows: np.tile([0.25, 0.75], (len(rows), 1)), np.arange(2)), 30.0)
    assert scores.probabilities(X[:1]).tolist() == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="one label per row"):
        TimedVoter(FunctionVoter(lambda rows: np.zeros(1), np.arange(2)), 30.0)(X)


def test_a_late_answer_is_an_error():
    voter = TimedVoter(FunctionVoter(lambda rows: time.sleep(2), np.arange(2)), 0.01)
    for ask in (voter, voter.values, voter.probabilities):
        with pytest.raises(
            TimeoutError, match=r"^The base model <lambda> did not answer 60 rows within timeout=0\.01 s"
        ):
            ask(X)
