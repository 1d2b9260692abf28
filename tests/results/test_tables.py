"""Numbers that are shown on the safe side."""

import numpy as np
import pytest

from smoothcert.results.tables import Summary, rounded_down, rounded_up


@pytest.mark.parametrize(
    ("value", "down", "up"),
    [(2 / 3, "0.666", "0.667"), (-2 / 3, "-0.667", "-0.666"), (0.5, "0.5", "0.5"), (1e7 + 1, "10000000", "10100000")],
)
def test_shown_numbers_are_on_the_safe_side(value, down, up):
    assert (rounded_down(value, 3), rounded_up(value, 3)) == (down, up)


def test_tables_show_radii_exactly():
    shown = Summary(np.array([1.00499999, 0.29, 2.0]), {"a": np.array([2 / 3, 0.29, 1.0])}, "l1", "").cells[1:]
    assert shown == [["1.00499999", "0.667"], ["0.29", "0.290"], ["2", "1.000"]]
