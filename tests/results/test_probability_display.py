"""The display of lower bounds on probabilities."""

import dataclasses

import numpy as np
import pytest

from smoothcert import ProbabilityDisplay

from .examples import certificates, value_at


def test_probabilities_are_drawn_for_right_labels_whether_certified_or_not():
    certified = dataclasses.replace(
        certificates([2.0, np.nan, 1.0, 0.5], labels=[0, 1, 1, 0]), p_a=np.array([0.9, 0.45, 0.8, 0.6])
    )
    display = ProbabilityDisplay.from_certificates({"one": certified}, [0, 1, 0, 0])
    (line,) = display.lines_
    heights = [value_at(line, p) for p in (0, 0.45, 0.46, 0.6, 0.7, 0.8, 0.9, 0.91)]
    assert heights == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0]
    assert display.ax_.get_xlim() == (0, 1)
    (half,) = [line for line in display.ax_.lines if line.get_label() == "p_a = 1/2"]
    assert set(half.get_xdata()) == {0.5}
    assert "4 inputs, alpha = 0.001" in display.ax_.get_legend().get_title().get_text()
    again = ProbabilityDisplay.from_certificates({"two": certified}, [0, 1, 0, 0], ax=display.ax_, color="red")
    assert again.lines_[0].get_color() == "red"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["one", "two", "p_a = 1/2"]
    for p_a in (np.full(4, np.nan), np.array([0.9, np.nan, 0.8, 0.6])):
        nothing = dataclasses.replace(certified, p_a=p_a)
        with pytest.raises(ValueError, match="certificates must hold probabilities, but p_a of 'x' is NaN"):
            ProbabilityDisplay.from_certificates({"x": nothing}, [0, 1, 0, 0])
