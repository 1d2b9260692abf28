"""What a run says about itself: speed, time left, and how it ended."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from smoothcert import GaussianNoise, SmoothedClassifier, UniformNoise
from smoothcert.runs import progress
from smoothcert.runs.progress import Progress, followed, votes_with_stopping
from smoothcert.runs.run import Part
from smoothcert.sampling.sampler import Votes

from .images import IMAGES, network


def part_of(n, n_votes, stored=False):
    """Return finished inputs, of which the first has had all the votes."""
    counts = np.zeros((n, 2), dtype=np.int64)
    counts[0, 0] = n_votes
    votes = Votes(selection=0 * counts, estimation=counts, inputs=np.zeros((n, 16), np.uint8), seed=0)
    return Part(index=np.arange(n), X=np.zeros((n, 1)), votes=votes, stored=stored)


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
        found = followed(parts(), Progress(6, "testing"), lambda part: Result(part.index * 0.3), y=y)
    np.testing.assert_allclose(found, np.arange(6) * 0.3)
    # Right are 0, 2, 3 and 5, at radii 0, 0.6, 0.9 and 1.5.
    assert caplog.records[-1].getMessage().endswith("votes 33.0, certified at 0 0.667, certified at 1 0.167")
    rows = followed(parts(), Progress(6, "testing"), lambda part: part.votes.estimation)
    np.testing.assert_array_equal(rows[:, 0], [1, 0, 11, 0, 21, 0])


def test_what_is_open_is_closed_after_an_error(caplog):
    """An error of the reader, whose traceback keeps the parts alive, and one of the parts."""
    for follow, done in (
        (lambda: followed(parts(), Progress(6, "testing"), lambda part: {}["why"]), 0),
        (lambda: followed(parts(error=KeyError("why")), Progress(6, "testing"), lambda part: None), 6),
    ):
        closed.clear()
        with caplog.at_level(logging.INFO, logger="smoothcert"), pytest.raises(KeyError) as caught:
            follow()
        assert closed == [True]
        assert caught.value.args == ("why",)
        assert caplog.records[-1].getMessage().startswith(f"testing: stopped, {done} of 6 inputs")
    assert (progress.LOG_SECONDS, progress.LONG_RUN, progress.RADII) == (30, 600, (0, 1))


def test_progress_counts_inputs_votes_and_certified_accuracy(caplog, monkeypatch, capsys):
    monkeypatch.setattr("smoothcert.runs.progress.LOG_SECONDS", 0.01)
    with caplog.at_level(logging.INFO, logger="smoothcert"), Progress(4, "certifying") as progress:
        progress.update(part_of(1, 100, stored=True), np.array([np.nan]))
        progress.update(part_of(2, 50), np.array([0.5, 1.0]))
        # The record comes without another input.
        known = len(caplog.records)
        while len(caplog.records) < known + 2:
            time.sleep(0.01)
    assert progress.figures() == {"votes": "150", "certified at 0": "0.667", "certified at 1": "0.333"}
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "certifying: 4 inputs"
    assert messages[-2].startswith("certifying: 3 of 4 inputs, 1 of them stored, ")
    assert " s left, votes 150, certified at 0 0.667" in messages[-2]
    assert messages[-1].startswith("certifying: ended, 3 of 4")
    assert capsys.readouterr().err == ""


def test_log_records_are_few(caplog):
    with caplog.at_level(logging.INFO, logger="smoothcert"), Progress(1000, "certifying") as progress:
        for _ in range(1000):
            progress.update(part_of(1, 10))
    assert len(caplog.records) == 2


def bright(n_samples=5000):
    """Return a classifier and inputs whose margins differ."""
    clf = network(n_samples=n_samples, batch_size=100_000, noise=UniformNoise(1.0))
    return clf, IMAGES * np.float32(0.1) + np.linspace(0.55, 0.9, len(IMAGES), dtype=np.float32)[:, None, None, None]


@pytest.mark.parametrize("rtol", [None, 0.1])
def test_the_log_says_how_long_a_long_run_takes_and_what_takes_less(caplog, monkeypatch, rtol):
    monkeypatch.setattr("smoothcert.runs.progress.LONG_RUN", 0.0)
    clf, X = bright()
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        clf.set_params(rtol=rtol).certify(X)
    estimates = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert len(estimates) == 1
    assert re.search(r"certifying: \d+ inputs are left, about \d+ s", estimates[0])
    assert ("rtol=0.05 would take about" in estimates[0]) == (rtol is None)
    assert ("certify_at(X, " in estimates[0]) == (rtol is None)


@pytest.mark.parametrize(("n_jobs", "seconds"), [(None, 1960), (2, 980)])
def test_the_estimate_is_the_time_of_the_inputs_that_are_left(caplog, n_jobs, seconds):
    clf, X = bright()
    algorithm = clf.algorithm(X.shape[1:])
    # 20 inputs took a worker 40 seconds.
    part = Part(index=np.arange(20), X=X[:20], votes=replace(algorithm.sampler(0).draw(X[:20]), seconds=40.0))
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        for n_inputs in (1000, 300):
            with Progress(n_inputs, "certifying", algorithm=algorithm, n_jobs=n_jobs) as progress:
                progress.update(part)
                progress.update(part)
    (estimate,) = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert estimate.startswith(f"certifying: 980 inputs are left, about {seconds} s; rtol=0.05 would take about ")
    fewer = int(re.search(r"rtol=0.05 would take about (\d+) s", estimate).group(1))
    assert fewer < 0.8 * seconds


def test_exact_probabilities_have_no_votes_to_save(caplog, monkeypatch):
    monkeypatch.setattr("smoothcert.runs.progress.LONG_RUN", 0.0)
    X = np.random.default_rng(0).random((20, 3))
    clf = SmoothedClassifier(DecisionTreeClassifier(max_depth=3), random_state=0).fit(X, X[:, 0] > 0.5)
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        clf.certify(X)
    (estimate,) = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert "would take" not in estimate


@pytest.mark.parametrize("scheme", ["binary", "multiclass"])
def test_nothing_is_suggested_that_certifies_less(scheme):
    """Under Gaussian noise, stopping early takes all rivals for one."""
    X = np.random.default_rng(0).random((20, 3))
    clf = SmoothedClassifier(LogisticRegression(), GaussianNoise(0.1), scheme=scheme, n_samples=1000, random_state=0)
    clf.fit(X, np.arange(20) % 3)
    algorithm = clf.algorithm((3,))
    part = Part(index=np.arange(20), X=X, votes=algorithm.sampler(0).draw(X))
    assert bool(votes_with_stopping(algorithm, part)) == (scheme == "binary")


def test_stopping_early_takes_as_many_votes_as_the_log_says():
    clf, X = bright()
    algorithm = clf.algorithm(X.shape[1:])
    votes = algorithm.sampler(0).draw(X[:16])
    found = votes_with_stopping(algorithm, Part(index=np.arange(16), X=X[:16], votes=votes))
    selection = votes.selection.sum(axis=1).mean()
    early = clf.set_params(rtol=0.05).certify(X[:16])
    assert found["rtol=0.05"] == pytest.approx(early.n_samples.mean() + selection, rel=0.25)
    (name,) = set(found) - {"rtol=0.05"}
    radius = float(name.removeprefix("certify_at(X, ").removesuffix(")"))
    decided = clf.certify_at(X[:16], radius)
    assert found[name] == pytest.approx(decided.n_samples.mean() + selection, rel=0.4)
    assert found[name] < 5000


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_bar(capsys, n_jobs):
    y = np.arange(30) % 2
    clf = network(verbose=1).set_params(n_jobs=n_jobs)
    certificates = clf.certify(IMAGES, y=y)
    shown = capsys.readouterr().err
    votes = clf.set_params(verbose=0).count_votes(IMAGES)
    assert "30/30" in shown
    assert f"votes={(votes.selection.sum() + votes.estimation.sum()) / 1000:.2f}k" in shown
    correct = (certificates.labels == y) & (certificates.radii >= 0)
    assert f"certified at 0={correct.mean():.3f}" in shown
    clf.certify(IMAGES, y=y)
    assert capsys.readouterr().err == ""
