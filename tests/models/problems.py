"""Inputs, labels, and two models: a function, and an estimator that knows whether it is fitted."""

import numpy as np
from sklearn.base import BaseEstimator

RNG = np.random.default_rng(0)
X = RNG.random((60, 3))
Y = (3 * X[:, 0]).astype(int)


def thirds(rows):
    return (3 * rows[:, 0]).astype(int)


class Told(BaseEstimator):
    """A model of another library that knows whether it is fitted."""

    def __init__(self, fitted=False):
        self.fitted = fitted

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def __sklearn_is_fitted__(self):
        return self.fitted
