"""What a run says about itself: speed, time left, and how it ended."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from smoothcert.runs import progress
from smoothcert.runs.progress import Progress, followed, written
from smoothcert.runs.run import Part

from .test_inputs import part_of


def test_speed_and_time_left_are_those_of_the_inputs_that_were_drawn(monkeypatch):
    shown = Progress(100, "certifying")
    now = shown.started
    shown.update(part_of(10, 7, stored=True))
    assert shown.summary() == "10 of 100 inputs, 10 of them stored, votes 7.00"
    shown.update(part_of(20, 5))
    monkeypatch.setattr(time, "monotonic", lambda: now + 40)
    assert shown.summary() == "30 of 100 inputs, 10 of them stored, 0.5 inputs/s, 140 s left, votes 12.0"
    shown.update(part_of(70, 0), np.r_[np.full(7, 1.0), np.full(63, 0.99)])
    assert shown.summary() == (
        "100 of 100 inputs, 10 of them stored, 2.25 inputs/s, votes 12.0, certified at 0 1.000, certified at 1 0.100"
    )


def test_a_bar_begins_at_what_is_stored(capsys):
    with Progress(100, "certifying", verbose=1) as shown:
        shown.update(part_of(10, 7, stored=True))
        assert (shown.bar.initial, shown.bar.n) == (10, 10)
        shown.update(part_of(20, 5))
        assert (shown.bar.initial, shown.bar.n, shown.bar.total) == (10, 30, 100)
    assert "certifying:" in capsys.readouterr().err


def parts(n=3, error=None):
    """Yield parts of two inputs, the last first, and perhaps an error at the end."""
    try:
        for i in reversed(range(n)):
            part = part_of(2, 10 * i + 1)
            yield Part(index=np.array([2 * i, 2 * i + 1]), X=part.X, votes=part.votes)
        if error is not None:
            raise error
    finally:
        closed.append(True)


closed: list[bool] = []


def test_results_are_in_the_order_of_the_inputs(caplog):
    class Result:
        def __init__(self, values):
            self.values = values

        def radii_if_right(self, y):
            return np.where(y == 1, self.values, np.nan)

        def concatenate(self, found):
            return np.concatenate([one.values for one in found])

    y = np.array([1, 0, 1, 1, 0, 1])
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        found = followed(parts(), 6, "testing", 0, lambda part: Result(part.index * 0.3), y=y)
    np.testing.assert_allclose(found, np.arange(6) * 0.3)
    # Right are 0, 2, 3 and 5, at radii 0, 0.6, 0.9 and 1.5.
    assert caplog.records[-1].getMessage().endswith("votes 33.0, certified at 0 0.667, certified at 1 0.167")
    rows = written(parts(), np.zeros((6, 2)), "testing", 0, lambda votes: votes.estimation)
    np.testing.assert_array_equal(rows[:, 0], [1, 0, 11, 0, 21, 0])


def test_what_is_open_is_closed_after_an_error(caplog):
    """An error of the reader, whose traceback keeps the parts alive, and one of the parts."""
    for follow, done in (
        (lambda: followed(parts(), 6, "testing", 0, lambda part: {}["why"]), 0),
        (lambda: written(parts(), np.zeros((6, 2)), "testing", 0, lambda votes: {}["why"]), 0),
        (lambda: followed(parts(error=KeyError("why")), 6, "testing", 0, lambda part: None), 6),
        (lambda: written(parts(error=KeyError("why")), np.zeros((6, 2)), "testing", 0, lambda votes: 0), 6),
    ):
        closed.clear()
        with caplog.at_level(logging.INFO, logger="smoothcert"), pytest.raises(KeyError) as caught:
            follow()
        assert closed == [True]
        assert caught.value.args == ("why",)
        assert caplog.records[-1].getMessage().startswith(f"testing: stopped, {done} of 6 inputs")
    assert (progress.LOG_SECONDS, progress.LONG_RUN, progress.RADII) == (30, 600, (0, 1))
