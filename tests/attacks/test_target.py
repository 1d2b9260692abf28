"""Paths, points, distances and votes of one input under attack, against numbers found by hand."""

from fractions import Fraction

import numpy as np
import pytest

from smoothcert import GreedyRadius, RadiusStrategy, UniformNoise
from smoothcert.attacks.target import Path, QueriesSpentError, far_faces, lead

from ..base_models import Rule, steps
from .targets import attacked, smooth


def test_paths_make_the_largest_moves_first():
    path = Path.to(np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.75, 0.5, 0.0, 0.25]))
    assert (path.features.tolist(), path.targets.tolist()) == ([2, 0, 3], [0.0, 0.75, 0.25])


def test_points_on_a_path():
    """Moves of .5, .25 and .125, of which two features at most may move."""
    target = attacked([0.5, 0.25, 0.5], radius=GreedyRadius(max_features=2))
    path = Path(np.array([2, 1, 0]), np.array([1.0, 0.0, 0.625]))
    assert target.length(path) == 0.75
    found = target.walk(path, [0.0, 0.25, 0.5, 0.625, 2.0])
    expected = [[0.5, 0.25, 0.5], [0.5, 0.25, 0.75], [0.5, 0.25, 1], [0.5, 0.125, 1], [0.5, 0, 1]]
    np.testing.assert_array_equal(found, expected)
    assert attacked([0.5, 0.25, 0.5]).length(path) == 0.875


def test_far_faces_and_the_way_on_to_faces():
    """The room is .3 and .7, 0 and .1, .5 and .5, .9 and 0."""
    target = attacked([0.3, 0.4, 0.5, 0.9], radius=GreedyRadius(max_change=([1, 0, 1, 1], [1, 0.1, 1, 0])))
    np.testing.assert_allclose(target.reach, [0.7, 0.1, 0.5, 0.9])
    faces = far_faces(target)
    assert faces.features.tolist() == [3, 0, 2, 1]
    np.testing.assert_allclose(faces.targets, [0, 1, 1, 0.5])
    onward = target.onward(Path(np.array([2, 0, 1]), np.array([0.4, 0.1, 0.45])))
    assert onward.features.tolist() == [2, 0, 1]
    np.testing.assert_allclose(onward.targets, [0, 0, 0.5])
    up = target.onward(Path(np.array([2, 0]), np.array([0.4, 0.4])))
    assert up.features.tolist() == [0, 2]
    np.testing.assert_allclose(up.targets, [1, 0])


class Halved(RadiusStrategy):
    """Lets the first feature move half of its way, and the last not at all."""

    def reach(self, noise, down, up):
        return np.maximum(down, up) * [0.5, 1.0, 0.0]

    def within(self, noise, budget, reach):
        return noise.walk(budget, reach)


@pytest.mark.parametrize("costs", [None, [1.0, 4.0, 1.0]])
def test_the_reaches_of_a_strategy_of_ones_own_limit_the_attack(costs):
    target = attacked([0.25, 0.25, 0.25], radius=Halved(), costs=costs)
    scale = np.ones(3) if costs is None else np.array(costs)
    np.testing.assert_allclose(target.high / scale, [0.625, 1.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(target.low / scale, [0.0, 0.0, 0.25], atol=1e-6)


def test_inputs_outside_the_box_are_attacked_from_its_face():
    for levels in ("auto", 4):
        target = attacked([-3.0, 2.5], noise=UniformNoise(1.0, levels), bounds=([-1, 0], [1, 2]))
        assert target.start.tolist() == [0, 1]
        assert target.distance(np.array([-1.0, 2.0])) == 0
        assert target.distance(np.array([0.0, 0.5])) == pytest.approx(0.5 + 0.75)


def test_budgets_of_lattices_are_whole_steps():
    """In floats, .29 times 100 lies below 29."""
    target = attacked([0.5], noise=UniformNoise(1.0, levels=100))
    assert [target.budget(r) for r in (0.29, 0.299, np.nextafter(0.29, 0), 0.0)] == [0.29, 0.29, 0.28, 0.0]
    real = attacked([0.5])
    assert 0.29 * (1 - 1e-13) < real.budget(0.29) < 0.29
    assert real.budget(np.inf) == target.budget(np.inf) == np.inf


def test_points_of_lattices_are_moved_toward_the_input():
    target = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=10))
    found = target.snap(np.array([[0.69, 0.31], [0.7, 0.3], [0.55, 0.5]]))
    np.testing.assert_allclose(found, [[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    assert target.finest == pytest.approx(0.1)
    np.testing.assert_array_equal(attacked([0.5, 0.5]).snap(np.array([[0.69, 0.31]])), [[0.69, 0.31]])
    assert attacked([0.5, 0.5]).finest == 0
    mixed = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=[10, "auto"]))
    np.testing.assert_allclose(mixed.snap(np.array([[0.69, 0.31]])), [[0.6, 0.31]])
    assert mixed.finest == 0
    several = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=[10, 4]), costs=[0.5, 1.0])
    assert several.finest == pytest.approx(0.05)
    np.testing.assert_allclose(several.distance(np.array([0.3, 0.75])), 0.1 + 0.25)


def test_queries_may_be_spent_to_the_last():
    target = attacked([0.5], max_queries=10)
    target.spend(4)
    target.spend(6)
    assert (target.n_queries, target.n_left) == (10, 0)
    with pytest.raises(QueriesSpentError):
        target.spend(1)
    assert target.n_queries == 10


def test_rivals_are_in_the_order_of_their_votes_at_the_input():
    target = attacked([0.5], label=2)
    target.votes = np.array([5, 9, 70, 16])
    assert target.rivals.tolist() == [3, 1, 0]
    other = attacked([0.0], smooth(Rule(steps([0.5])).fit(None, None)))
    other.leads(other.start[None], 50)
    before = other.votes.copy()
    assert before[0] > before[1]
    other.leads(np.array([[1.0]]), 50)
    np.testing.assert_array_equal(other.votes, before)


def test_distances_are_never_below_the_exact_ones():
    rng, bounds = np.random.default_rng(0), ([-0.3, 0.0, 7.0], [1.1, 1e-3, 7e5])
    lo, hi = map(np.array, bounds)
    target = attacked(lo + 0.3 * (hi - lo), bounds=bounds, costs=[0.7, 1.3, 2.1])
    costs = [Fraction(cost) for cost in (0.7, 1.3, 2.1)]
    for raw in lo + rng.random((100, 3)) * (hi - lo):
        ends = zip(raw.tolist(), target.x.tolist(), lo.tolist(), hi.tolist(), costs, strict=True)
        exact = sum(
            abs(Fraction(a) - Fraction(b)) / (Fraction(h) - Fraction(low)) * cost for a, b, low, h, cost in ends
        )
        assert exact <= Fraction(target.distance(raw)) <= exact * (1 + Fraction(1, 10**13))


def test_ties_go_to_the_lower_index():
    """As in the vote itself: a rival with as many votes wins if its index is lower."""
    counts = np.array([[5, 5, 0], [4, 5, 1], [0, 6, 4]])
    np.testing.assert_allclose(lead(counts, 0), [0.0, 0.1, 0.6])
    np.testing.assert_allclose(lead(counts, 1), [0.05, -0.05, -0.2])
    np.testing.assert_allclose(lead(counts, 2), [0.55, 0.45, 0.25])
    np.testing.assert_array_equal(lead(counts, -1), 1.0)
