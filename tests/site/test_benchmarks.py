"""The benchmarks of early stopping, at sizes at which their figures mean little."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from smoothcert import SmoothedClassifier, SplitNoise

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import selection
import sequential


@pytest.fixture
def shown(monkeypatch):
    """The tables that a benchmark prints, by title."""
    found = {}
    for module in (selection, sequential):
        monkeypatch.setattr(module, "show", found.__setitem__)
    return found


@pytest.mark.parametrize(("p0", "p", "published"), sequential.PUBLISHED[1:])
def test_the_published_sequence_takes_about_as_many_votes_as_its_author_says(p0, p, published):
    """His figures are means of samples."""
    assert sequential.published_votes(p0, p) == pytest.approx(published, rel=0.04)


def test_the_published_sequence_is_a_mixture_of_likelihoods():
    """Here by integration: the least of 20 successes for which the mixture is 500 times as likely as p0."""
    q = (1 + np.cos(np.pi * (np.arange(10_000) + 0.5) / 10_000)) / 2
    for p0 in (0.25, 0.6):
        ratios = [np.mean((q / p0) ** k * ((1 - q) / (1 - p0)) ** (20 - k)) for k in range(21)]
        least = next(k for k in range(21) if k >= 20 * p0 and ratios[k] > 500)
        assert sequential.least_successes(p0, 20)[-1] == least


def test_sequential(shown, monkeypatch):
    monkeypatch.setattr(sequential, "PUBLISHED", ((0.75, 0.9, 118), (0.75, 1.0, 30)))
    monkeypatch.setattr(sequential, "REFUSALS", ((0.75, [0.6, 0.4]), (0.75, [0.75, 0.25])))
    monkeypatch.setattr(sequential, "THRESHOLDS", sequential.THRESHOLDS[:2])
    sequential.against_published(40)
    sequential.at_the_threshold(60)
    monkeypatch.setattr(sequential, "SmoothedClassifier", partial(SmoothedClassifier, n_samples=500))
    sequential.on_tables(10)
    certified, refused, false, tables = shown.values()
    assert [row["certified"] for row in certified] == [1, 1]
    assert certified[1]["certify_at"] == 28
    assert all(16 <= row["other votes drawn"] <= 256 for row in certified)
    assert [row["certified"] for row in refused] == [0, 0]
    assert ["betting sequence" in row for row in refused] == [True, False]
    assert all(row["false"] <= float(row["target"].removeprefix("<= ")) for row in false)
    assert len(tables) == 9
    assert all(16 <= row["mean votes"] <= 500 for row in tables)


def test_selection(shown, monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    X = minmax_scale(X)
    clf = SmoothedClassifier(LogisticRegression(), SplitNoise(1.0), random_state=0).fit(X[::2], y[::2])
    monkeypatch.setattr(selection, "classifiers", lambda quick: [("breast_cancer", clf, X[1:41:2], (0.5,))])
    selection.run(quick=True)
    (predicted,), (decided,) = shown.values()
    assert 16 <= predicted["median"] <= predicted["before"] == 256
    assert 16 < predicted["after"] < 256
    assert predicted["labels differ"] < 0.01
    assert decided["after"] < decided["before"]
    assert decided["robust after"] == pytest.approx(decided["robust before"], abs=0.051)


def test_simulated_selection_differs_only_where_votes_are_close():
    rng = np.random.default_rng(0)
    assert not selection.simulate(np.tile([0.9, 0.1], (2000, 1)), 256, rng).any()
    assert 0 < selection.simulate(np.tile([0.5, 0.5], (20_000, 1)), 256, rng).mean() < 0.004
