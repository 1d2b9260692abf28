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

from smoothcert import IntervalDisplay, SmoothedClassifier, SmoothedRegressor, UniformNoise, make_interval_scorer
from smoothcert.pipeline import make_pipeline
from smoothcert.results import Intervals, ToleranceRadii

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


def some_intervals(n=2, radius=(0.25, 0.5, 2.0), **changes):
    shape = (n, len(radius))
    lower, upper = np.arange(1.0, 1 + n * len(radius)).reshape(shape), np.arange(11.0, 11 + n * len(radius))
    given = {"predictions": np.arange(5.0, 5 + n), "lower": lower, "upper": upper.reshape(shape)}
    given |= {"radius": np.tile(radius, (n, 1)), "quantile": 0.5, "alpha": 0.001, "norm": 1}
    return Intervals(**given | changes)


class Fixed:
    """A regressor that records the radii that it is asked for."""

    def certify(self, X, radius):
        self.radius = radius
        return some_intervals(len(X), radius[0])


def test_radii_and_names_that_are_not_given(linear):
    reg = Fixed()
    frame = pd.DataFrame({"x": [0.1, 0.2]}, index=["house", "hut"])
    display = IntervalDisplay.from_estimator(reg, frame)
    np.testing.assert_array_equal(reg.radius, [np.linspace(0, 1, 60)])
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["house", "hut"]
    IntervalDisplay.from_estimator(reg, [[0.1]], radius=3, ax=display.ax_)
    np.testing.assert_array_equal(reg.radius, [np.linspace(0, 3, 60)])


def test_lines_and_labels():
    lower = np.array([[1.0, 0.5, -np.inf], [3.0, 2.0, 1.0]])
    one = some_intervals(lower=lower, quantile=0.25, alpha=0.01, norm=2)
    ax = IntervalDisplay(one, ["a", "b"]).plot().ax_
    assert ax.get_xlim() == (0.25, 2)
    assert ax.get_xlabel() == "l2 radius of the adversary"
    title = ax.get_legend().get_title().get_text()
    assert title == "0.25-quantile under noise\nat each radius, a band holds with probability 0.99"
    lines = iter(ax.lines)
    for i in range(2):
        bounds = [next(lines).get_xydata().T for _ in range(2)]
        for (x, y), bound in zip(bounds, (np.where(lower[i] > -9, lower[i], np.nan), one.upper[i]), strict=True):
            np.testing.assert_array_equal([x, y], [one.radius[i], bound])
        np.testing.assert_array_equal(next(lines).get_xydata(), [[0.25, 5 + i], [2, 5 + i]])
    IntervalDisplay(some_intervals(6), "abcdef").plot()


def test_what_results_of_regressors_say():
    lower, upper = np.array([[-np.inf, 0, 0], [0, 0, 0]]), np.array([[1, 1, np.inf], [1, 1, np.inf]])
    one = some_intervals(norm=2, quantile=0.25, alpha=0.01, threat="any pixel", lower=lower, upper=upper)
    words = "2 inputs, 1, 2, 0 bounded on both sides in l2 against any pixel, quantile=0.25, alpha=0.01"
    assert repr(one) == f"Intervals({words})"
    assert one.to_frame(y=[4.0, 8.0])["error"].tolist() == [1, 2]
    radii = np.array([2 / 3, 2 / 3, 9.0, np.nan])
    found = ToleranceRadii(
        predictions=radii, radii=radii, abstained=np.isnan(radii), tolerance=radii, quantile=0.25, alpha=0.01, norm=2
    )
    words = "4 inputs, 1 abstained, median radius 0.6666 in l2 against every perturbation, quantile=0.25, alpha=0.01"
    assert repr(found) == f"ToleranceRadii({words})"
    assert "1 abstained in l2 against" in repr(found[3:])


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
    with pytest.raises(ValueError, match=r"got a SmoothedClassifier\. For classifiers, use make_certified_scorer"):
        scorer(SmoothedClassifier.from_pretrained(lambda rows: rows[:, 0] > 0.5, [False, True]), X, y > 0.5)
    pipeline = make_pipeline(MinMaxScaler(), clone(reg)).fit(X, y)
    assert 0.2 < scorer(pipeline, X, y) < 1
    for wrong in ({"radius": -1, "tolerance": 1}, {"radius": 1, "tolerance": "much"}):
        with pytest.raises(ValueError, match="must be"):
            make_interval_scorer(**wrong)


def test_scores_ask_for_both_ends_within_the_tolerance():
    """The intervals are from 1 to 11, from 2 to 12, and from 3 to 13."""

    class Regressor:
        def certify(self, X, radius):
            assert radius == 0.25
            found = some_intervals(3, [radius])
            return Intervals(
                **vars(found) | {name: getattr(found, name)[:, 0] for name in ("lower", "upper", "radius")}
            )

    for y, tolerance, expected in [
        ([6, 7, 8], 5, 1),
        ([6, 7, 8], 4.9, 0),
        ([6, 9, 8], 5, 2 / 3),
        ([6, 7, 6], 5, 2 / 3),
    ]:
        assert make_interval_scorer(0.25, tolerance)(Regressor(), np.zeros((3, 1)), y) == pytest.approx(expected)
