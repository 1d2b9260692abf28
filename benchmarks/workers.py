"""Certification with two workers against one, and what scheduling and recording cost.

Throughput is that of a forest of 100 trees. Scheduling is measured with a model that costs nothing and one input per
task, the worst case: all of the time is sending, receiving and writing.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from common import ratio, show
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import minmax_scale

from smoothcert import SmoothedClassifier


class Free(ClassifierMixin, BaseEstimator):
    """Costs nothing."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])

    def fit(self, X: np.ndarray, y: np.ndarray) -> Free:  # noqa: D102
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.zeros(len(X), dtype=int)


class Rows:
    """Inputs that are nowhere before they are asked for."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> np.ndarray:
        return np.random.default_rng(i).random(1000)


def run(quick: bool) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = minmax_scale(X)
    forest = RandomForestClassifier(100, random_state=0).fit(X[::2], y[::2])
    n, repeats = (500, 1) if quick else (5_000, 3)

    def certify(n_jobs: int) -> None:
        clf = SmoothedClassifier.from_pretrained(forest, [0, 1], n_samples=n, random_state=0, n_jobs=n_jobs)
        clf.certify(X[1:200:2])

    certify(2)
    found = ratio(lambda: certify(1), lambda: certify(2), repeats)
    show("Time of certify with one worker / with two", [{"model": "forest", "ratio": found, "target": ">= 1.7"}])

    results = []
    for n_inputs in (200, 1000) if quick else (2_000, 20_000):
        for n_jobs in (1, 2):
            for recorded in (False, True):
                clf = SmoothedClassifier.from_pretrained(
                    Free(), [0, 1], n_selection=16, n_samples=16, alpha=0.1, batch_size=16, n_jobs=n_jobs
                )
                clf.certify(Rows(8))
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    clf.certify(Rows(n_inputs), store=Path(folder) / "run.sqlite" if recorded else None)
                    seconds = time.perf_counter() - started
                results.append(
                    {
                        "inputs": n_inputs,
                        "workers": n_jobs,
                        "store": recorded,
                        "ms per input": f"{1000 * seconds / n_inputs:.2f}",
                        "target": "< 5",
                        "driver MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                    }
                )
    show("Scheduling and recording, one input per task; the driver's peak memory so far", results)
