"""The display of intervals, and the scorer of certified regression."""

import pickle

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import MinMaxScaler

from smoothcert import IntervalDisplay, SmoothedRegressor, UniformNoise, make_interval_scorer
from smoothcert.pipeline import make_pipeline

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    reg = SmoothedRegressor(LinearRegression(), UniformNoise(lam=0.5), n_samples=400, random_state=0)
    return reg.fit(X, X[:, 0]), X


def test_bands_are_the_intervals_where_both_ends_are_bounded(linear):
    reg, X = linear
    frame = pd.DataFrame(X[:2], index=["first", "second"])
    radius = np.linspace(0, 0.8, 9)
    display = IntervalDisplay.from_estimator(reg, frame.to_numpy(), [0.2, 0.9], radius=radius, alpha=0.5)
    lower, upper = reg.certify(X[:2], radius[None])
    assert np.isinf(upper[:, -1]).all()
    for i, band in enumerate(display.bands_):
        (path,) = band.get_paths()
        bounded = np.isfinite(lower[i]) & np.isfinite(upper[i])
        for x, ends in zip(radius[bounded], np.column_stack([lower[i], upper[i]])[bounded], strict=True):
            heights = path.vertices[np.isclose(path.vertices[:, 0], x), 1]
            np.testing.assert_allclose([heights.min(), heights.max()], ends)
        assert band.get_alpha() == 0.5
        assert path.vertices[:, 0].max() == pytest.approx(radius[bounded].max())
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert names == ["X[0]", "X[1]", "true value"]
    title = display.ax_.get_legend().get_title().get_text()
    assert title == "median under noise\nat each radius, a band holds with probability 0.999"
    dots = [line for line in display.ax_.lines if line.get_marker() == "o"]
    assert [float(line.get_ydata()[0]) for line in dots] == [0.2, 0.9]
    named = IntervalDisplay(display.intervals, frame.index).plot()
    assert [text.get_text() for text in named.ax_.get_legend().get_texts()] == ["first", "second"]


def test_pictures_that_cannot_be_drawn(linear):
    reg, X = linear
    with pytest.raises(ValueError, match="1 to 6 inputs at several radii"):
        IntervalDisplay.from_estimator(reg, X[:7], radius=0.1)
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        IntervalDisplay(reg.certify(X[:2], 0.1), ["a", "b"]).plot()


def test_scores_are_the_share_of_intervals_near_the_truth(linear):
    reg, X = linear
    scorer, y = make_interval_scorer(radius=0.1, tolerance=0.25), X[:, 0]
    lower, upper = reg.certify(X, 0.1)
    near = (lower >= y - 0.25) & (upper <= y + 0.25)
    assert 0.2 < near.mean() < 1
    assert scorer(reg, X, y) == near.mean()
    weight = np.arange(60.0)
    assert scorer(reg, X, y, sample_weight=weight) == pytest.approx(np.average(near, weights=weight))
    assert pickle.loads(pickle.dumps(scorer))(reg, X, y) == near.mean()
    search = GridSearchCV(clone(reg), {"noise__lam": [0.05, 0.5]}, scoring=scorer, cv=2).fit(X, y)
    assert search.best_params_ == {"noise__lam": 0.5}
    with pytest.raises(ValueError, match="y must hold one finite number for each of 60 inputs"):
        scorer(reg, X, y[:3])
    with pytest.raises(ValueError, match="must be a SmoothedRegressor"):
        scorer(LinearRegression().fit(X, y), X, y)
    pipeline = make_pipeline(MinMaxScaler(), clone(reg)).fit(X, y)
    assert 0.2 < scorer(pipeline, X, y) < 1
    for wrong in ({"radius": -1, "tolerance": 1}, {"radius": 1, "tolerance": "much"}):
        with pytest.raises(ValueError, match="must be"):
            make_interval_scorer(**wrong)
