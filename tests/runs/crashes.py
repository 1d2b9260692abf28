"""Runs that can be killed: a slow base model that counts its votes, and a process that certifies with it."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

import smoothcert.noise._cpu  # noqa: F401  (takes a second, which processes forked from here need not wait)
from smoothcert import Certificates, SmoothedClassifier

SELECTION, ESTIMATION, INPUTS = 16, 112, 100


class Slow(ClassifierMixin, BaseEstimator):
    """Looks at two features, takes its time, and writes how many votes it has cast to a file."""

    def __init__(self, log: str, seconds: float) -> None:
        self.log = log
        self.seconds = seconds
        self.classes_ = np.array([0, 1, 2])

    def fit(self, X: Any, y: Any) -> Slow:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        if self.log:
            file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{len(X)}\n".encode())
            os.close(file)
        return (X[:, 0] > 0.5).astype(int) + (X[:, 1] > 0.7)


def votes_cast(log: str) -> int:
    """Return how many votes the base model has cast."""
    if not os.path.exists(log):
        return 0
    with open(log) as lines:
        return sum(map(int, lines))


def data() -> np.ndarray:
    return np.random.default_rng(0).random((INPUTS, 2))


def certify(log: str, seconds: float, store: str | None, backend: str | None, n_jobs: int | None) -> Certificates:
    """Certify the data; the log is a part of the model, but not of what it computes."""
    clf = SmoothedClassifier.from_pretrained(
        Slow(log, seconds),
        [0, 1, 2],
        n_selection=SELECTION,
        n_samples=ESTIMATION,
        batch_size=16,
        alpha=0.01,
        n_jobs=n_jobs,
        random_state=None if store else 0,
    )
    with nullcontext() if backend is None else joblib.parallel_config(backend=backend):
        return clf.certify(data(), store=store)


def run(log: str, seconds: float, store: str, backend: str | None, n_jobs: int | None, address: str | None) -> None:
    """Certify in a process of its own."""
    if address is None:
        certify(log, seconds, store, backend, n_jobs)
        # A child process does not end before its workers do, which would wait for more work.
        if backend == "loky":
            joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
        return
    from distributed import Client

    with Client(address):
        certify(log, seconds, store, "dask", None)
