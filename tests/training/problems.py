"""Inputs, labels and noise of a few numbers, and an estimator that keeps what it was fitted on."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from smoothcert import SmoothedClassifier, UniformNoise
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

RNG = np.random.default_rng(0)
X = RNG.uniform(-3, 5, (12, 2))
Y = np.array(["no", "yes", "maybe"] * 4)
BOX = Box.from_bounds((-3, 5))
MECHANISM = NoiseMechanism(BOX, UniformNoise(0.5), (2,))


class Seen(ClassifierMixin, BaseEstimator):
    """Keeps what it was fitted on."""

    def __init__(self, error=None, only=None, random_state=None):
        self.error, self.only, self.random_state = error, only, random_state

    def fit(self, X, y, **params):
        if self.error is not None and not np.issubdtype(np.asarray(y).dtype, np.number):
            raise self.error
        self.X_, self.y_, self.params_, self.classes_ = X, y, params, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[-1])


def train(training, estimator, y=Y, X=X, mechanism=MECHANISM, seed=3, **options):
    return training.train(estimator, X, y, mechanism=mechanism, seed=seed, **options)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def smooth(estimator, noise=None, **params):
    return SmoothedClassifier(estimator, noise or UniformNoise(0.5), **({"random_state": 0, "n_samples": 50} | params))
