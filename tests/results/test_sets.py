"""Scores and curves of prediction sets."""

import numpy as np
import pytest

from smoothcert import PredictionSetDisplay, mean_set_size_score, set_coverage_score


def test_scores_of_sets():
    sets = np.array([[True, False, True], [False, False, False], [False, True, False]])
    assert mean_set_size_score(sets) == 1
    assert set_coverage_score(["a", "b", "b"], sets, ["a", "b", "c"]) == pytest.approx(2 / 3)
    assert set_coverage_score(["c", "d", "d"], sets, ["a", "b", "c"]) == pytest.approx(1 / 3)
    for wrong in (sets.astype(int), sets[0], sets[:0]):
        with pytest.raises(ValueError, match="sets must be booleans of shape"):
            mean_set_size_score(wrong)
    with pytest.raises(ValueError, match="classes must hold one label for each of 3 columns, got 2"):
        set_coverage_score(["a", "b", "b"], sets, ["a", "b"])
    with pytest.raises(ValueError, match="y_true must hold one label for each of 3 inputs"):
        set_coverage_score(["a", "b"], sets, ["a", "b", "c"])


def test_curves_of_sets_and_what_they_promise():
    radii, sizes, coverage = np.array([0.0, 0.5]), np.array([1.1, 2.3]), np.array([0.91, 1.0])
    display = PredictionSetDisplay(radii, sizes, coverage, confidence_level=0.8, name="one").plot()
    PredictionSetDisplay(radii, sizes / 2, coverage, confidence_level=0.8, name="two").plot(display.axes_, color="red")
    for ax, values in zip(display.axes_, (sizes, coverage), strict=True):
        first, second = (line for line in ax.lines if line.get_gid() == "curve")
        np.testing.assert_array_equal(first.get_xydata(), np.column_stack([radii, values]))
        assert second.get_color() == "red"
        assert ax.get_xlabel() == "l1 radius (1 = one feature across its range)"
    size, shown = display.axes_
    assert size.get_ylim() == (0, pytest.approx(1.05 * 2.3))
    assert shown.get_ylim()[1] == 1.005
    (promise,) = (line for line in shown.lines if line.get_gid() == "promise")
    assert set(promise.get_ydata()) == {0.8}
    assert [text.get_text() for text in shown.get_legend().get_texts()] == ["one", "two", "promised under attack"]
    other = PredictionSetDisplay(radii, sizes, coverage, confidence_level=0.8, norm=np.inf).plot()
    assert {ax.get_xlabel() for ax in other.axes_} == {"l-inf radius (1 = all features across their range)"}
