"""Projections onto budget and box, against optimizers and exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from smoothcert.attacks import project_l1_box


def exact_distance(point, center):
    return sum(abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(point, center, strict=True))


class TestProjection:
    @pytest.mark.parametrize("seed", range(6))
    def test_is_the_solution_of_the_quadratic_programme(self, seed):
        rng = np.random.default_rng(seed)
        d, radius = 5, rng.uniform(0.05, 2)
        center, point = rng.random(d), rng.normal(0.5, 1.0, d)
        found = project_l1_box(point[None], center, radius)[0]
        # In terms of moves up and down, both at least 0, the constraints are linear.
        solution = minimize(
            lambda uv: 0.5 * np.sum((center + uv[:d] - uv[d:] - point) ** 2),
            np.zeros(2 * d),
            jac=lambda uv: np.tile(center + uv[:d] - uv[d:] - point, 2) * np.repeat([1, -1], d),
            bounds=[(0, room) for room in np.concatenate([1 - center, center])],
            constraints=[{"type": "ineq", "fun": lambda uv: radius - uv.sum(), "jac": lambda uv: -np.ones(2 * d)}],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert solution.success
        np.testing.assert_allclose(found, center + solution.x[:d] - solution.x[d:], atol=1e-6)

    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_never_leaves_ball_or_box(self, data):
        d = data.draw(st.integers(1, 6))
        finite = st.floats(allow_nan=False, allow_infinity=False)
        point = data.draw(st.lists(finite, min_size=d, max_size=d))
        ends = [sorted(data.draw(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3))) for _ in range(d)]
        lo, center, hi = np.array(ends).T
        radius = data.draw(st.floats(0, 1e12) | st.just(np.inf) | st.floats(0, 1e-300))
        found = project_l1_box([point], center, radius, lo, hi)
        assert ((lo <= found[0]) & (found[0] <= hi)).all()
        if np.isfinite(radius):
            assert exact_distance(found[0], center) <= Fraction(radius)
        np.testing.assert_array_equal(project_l1_box(found, center, radius, lo, hi), found)

    def test_huge_and_small_numbers_share_as_they_should(self):
        points = [[1e300, 1.0], [1e300, 1e300], [1e-300, 2e-300]]
        found = project_l1_box(points, 0.0, [1.5, 1.0, 1e-300])
        np.testing.assert_allclose(found, [[1.0, 0.5], [0.5, 0.5], [0.0, 1e-300]], rtol=1e-12)

    def test_points_inside_stay(self):
        X = np.random.default_rng(0).random((20, 7))
        np.testing.assert_array_equal(project_l1_box(X, 0.5, 7.0), X)
        np.testing.assert_array_equal(project_l1_box(X, 0.5, 0.0), np.full_like(X, 0.5))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([0.5], 0.5, 1.0), "points must have shape"),
            (([[np.nan]], 0.5, 1.0), "finite"),
            (([[0.5]], 1.5, 1.0), "center must lie in the box"),
            (([[0.5]], 0.5, -1.0), "radius must be"),
            (([[0.5]], [0.5, 0.5], 1.0), "broadcast"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            project_l1_box(*arguments)
