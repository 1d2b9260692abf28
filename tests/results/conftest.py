"""Figures are drawn without a screen; estimators that several displays draw."""

import matplotlib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from smoothcert import SmoothedClassifier, SmoothedRegressor, UniformNoise

from ..base_models import Rule

matplotlib.use("Agg")


@pytest.fixture
def smoothed():
    classes = ["left", "right", "up"]
    rule = Rule(lambda X: np.array(classes)[np.searchsorted([0.4, 0.7], X.mean(axis=1))], classes=classes).fit(0, 0)
    return SmoothedClassifier.from_pretrained(rule, classes, UniformNoise(0.5), n_samples=300, random_state=0)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    reg = SmoothedRegressor(LinearRegression(), UniformNoise(lam=0.5), n_samples=400, random_state=0)
    return reg.fit(X, X[:, 0]), X
