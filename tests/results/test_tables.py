"""Numbers that are shown on the safe side."""

import pytest

from smoothcert.results.tables import rounded_down, rounded_up


@pytest.mark.parametrize(
    ("value", "down", "up"),
    [(2 / 3, "0.666", "0.667"), (-2 / 3, "-0.667", "-0.666"), (0.5, "0.5", "0.5"), (1e7 + 1, "10000000", "10100000")],
)
def test_shown_numbers_are_on_the_safe_side(value, down, up):
    assert (rounded_down(value, 3), rounded_up(value, 3)) == (down, up)
