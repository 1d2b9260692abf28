"""The display of intervals."""

import numpy as np
import pandas as pd
import pytest

from smoothcert import IntervalDisplay

from .examples import some_intervals


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


def test_pictures_that_cannot_be_drawn(linear):
    reg, X = linear
    with pytest.raises(ValueError, match="1 to 6 inputs at several radii"):
        IntervalDisplay.from_estimator(reg, X[:7], radius=0.1)
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        IntervalDisplay(reg.certify(X[:2], 0.1), ["a", "b"]).plot()
