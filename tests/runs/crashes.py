"""Runs that can be killed: a base model that counts its votes, and a process that certifies with it."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import nullcontext
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

import smoothcert.noise._cpu  # noqa: F401  (takes a second, which processes forked from here need not wait)
from smoothcert import Certificates, SmoothedClassifier, SmoothedRegressor
from smoothcert.results import Intervals

SELECTION, ESTIMATION, INPUTS = 16, 112, 100
EACH = SELECTION + ESTIMATION
NEEDED = INPUTS * EACH


class Counted(ClassifierMixin, BaseEstimator):
    """Look at two features, and write the number of votes to a file.

    While the file's gate is closed, whoever votes after most of the run's votes are cast waits: the run cannot end.
    """

    def __init__(self, log: str) -> None:
        self.log = log
        self.classes_ = np.array([0, 1, 2])

    def fit(self, X: Any, y: Any) -> Counted:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        if self.log:
            time.sleep(1e-3)
            file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{len(X)}\n".encode())
            os.close(file)
            while os.path.exists(gate(self.log)) and votes_cast(self.log) > 0.6 * NEEDED:
                time.sleep(1e-2)
        return (X[:, 0] > 0.5).astype(int) + (X[:, 1] > 0.7)


def gate(log: str) -> str:
    """Return the path of the file that keeps a run from its end."""
    return log + ".gate"


def votes_cast(log: str) -> int:
    """Return the number of votes that the base model has cast."""
    if not os.path.exists(log):
        return 0
    with open(log) as lines:
        return sum(map(int, lines))


def data() -> np.ndarray:
    return np.random.default_rng(0).random((INPUTS, 2))


def certify(log: str, store: str | None, backend: str | None, n_jobs: int | None) -> Certificates:
    """Certify the data; the log is a part of the model, but not of what it computes."""
    clf = SmoothedClassifier.from_pretrained(
        Counted(log),
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


def bound_numbers(store: Any, pause: float = 2e-3, random_state: Any = None) -> Intervals:
    """Certify the data with a regressor that takes its time."""

    def number(batch: np.ndarray) -> np.ndarray:
        time.sleep(pause)
        return np.round(batch[:, 0] * 2**20) / 2**20

    reg = SmoothedRegressor.from_pretrained(
        number, n_selection=SELECTION, n_samples=ESTIMATION, batch_size=16, random_state=random_state
    )
    return reg.certify(data(), 0.2, store=store)


def run(log: str, store: str, backend: str | None, n_jobs: int | None, address: str | None) -> None:
    """Certify in a process of its own, whose temporary files lie beside the log."""
    os.environ["TMPDIR"] = os.path.dirname(log)
    tempfile.tempdir = None
    if address is None:
        certify(log, store, backend, n_jobs)
        # A child process does not end before its workers do, which would wait for more work.
        if backend == "loky":
            joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
        return
    from distributed import Client

    with Client(address):
        certify(log, store, "dask", None)
