"""Base models that travel to workers, which import this module: nothing heavy belongs here."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Traveller(ClassifierMixin, BaseEstimator):
    """Leaves a line in a file wherever it arrives."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> Traveller:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return (X[:, 0] > 0.5).astype(int)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")


class Deadly(ClassifierMixin, BaseEstimator):
    """Kills its process at a certain input."""

    def __init__(self, driver: int) -> None:
        self.driver = driver
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> Deadly:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        if X.mean() > 0.9 and os.getpid() != self.driver:
            os.kill(os.getpid(), 9)
        return np.zeros(len(X), dtype=int)


class Fragile(ClassifierMixin, BaseEstimator):
    """A rule that fails on inputs whose first feature is large; noise is narrow, so that only these inputs do."""

    def __init__(self, how: str, driver: int = 0) -> None:
        self.how = how
        self.driver = driver
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> Fragile:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        if (X[:, 0] > 0.9).any():
            if self.how == "raises":
                raise KeyError("no such price")
            if self.how == "hangs":
                time.sleep(60)
            if self.how == "kills" and os.getpid() != self.driver:
                os.kill(os.getpid(), 9)
        return (X[:, 1] > 0.5).astype(int)
