"""Colors of drawings."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from smoothcert import CertifiedAccuracyDisplay
from smoothcert.results.plotting import COLORS

from .examples import certificates


def luminance(color):
    channels = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(("style", "background"), [("default", "light"), ("dark_background", "dark")])
def test_colors_stand_out_from_the_background(style, background):
    with plt.style.context(style):
        _, ax = plt.subplots()
        ax.set_facecolor("none")
        display = CertifiedAccuracyDisplay.from_certificates({str(i): certificates([1]) for i in range(6)}, [0], ax=ax)
    assert [line.get_color() for line in display.lines_] == COLORS[background]
    ground = {"light": 1.0, "dark": 0.0}[background]
    for color in COLORS[background]:
        low, high = sorted([luminance(color), ground])
        assert (high + 0.05) / (low + 0.05) > 2
