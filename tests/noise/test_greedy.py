"""The greedy walk over the largest reaches, against loops and exact arithmetic."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from smoothcert import GreedyRadius, SplitNoise, UniformMixtureNoise, UniformNoise
from smoothcert.noise.greedy import covering, largest, moves, walk, walk_largest

from .reaches import REACHES

getcontext().prec = 60


@pytest.mark.parametrize("d", [1, 2, 30, 64, 65, 500, 3072])
@pytest.mark.parametrize("kind", ["random", "ties", "ones", "tiny", "zeros"])
def test_largest_selects_without_losing_any(d, kind):
    values = {
        "random": rng_values(d),
        "ties": np.rint(4 * rng_values(d)) / 4,
        "ones": np.ceil(rng_values(d) - 0.9),
        "tiny": rng_values(d) ** 99,
        "zeros": np.zeros((20, d)),
    }[kind]
    expected = -np.sort(-values, axis=1)
    before = values.copy()
    for k in (1, 5, 16, 30, 99, 128, 5000):
        np.testing.assert_array_equal(largest(values, k), expected[:, :k])
        assert largest(values[:0], k).shape == (0, min(k, d))
    np.testing.assert_array_equal(values, before)


def rng_values(d):
    return np.random.default_rng(d).random((20, d))


def test_covering_selects_enough():
    values = rng_values(3000)
    assert covering(values, np.full(20, 3.0)).shape == (20, 16)
    assert (covering(values, np.full(20, 99.0)).sum(axis=1) >= 99).all()
    assert covering(values, np.full(20, np.inf)).shape == values.shape
    few = np.where(np.arange(3000) < 10, values, 0)
    np.testing.assert_allclose(covering(few, np.full(20, np.inf)).sum(axis=1), few.sum(axis=1))


def exact_walk(budget, reach):
    """Pay the squares of the reaches in decreasing order, in 60 digits; None where the budget pays for all."""
    rest, covered = Decimal(budget), Decimal(0)
    for r in sorted(map(Decimal, reach), reverse=True):
        if r > 0 and r * r >= rest:
            return covered + rest.sqrt()
        rest -= r * r
        covered += r
    return None


@pytest.mark.parametrize("d", [1, 7, 40, 900])
@pytest.mark.parametrize("kind", REACHES)
def test_walk_is_that_of_a_loop_over_sorted_reaches(d, kind):
    rng = np.random.default_rng(d)
    budgets = np.array([1e-300, 1e-12, 1e-4, 0.1, 0.5, 1.3, 4.7, 21.1, 130.3, np.inf])
    reach = np.array([REACHES[kind](rng, d) for _ in budgets])

    def pay(budget, reach):
        return walk(np.square, np.sqrt, budget, reach)

    found = walk_largest(pay, budgets, reach)
    np.testing.assert_array_equal(found, pay(budgets, reach))
    for i, (budget, row) in enumerate(zip(budgets, reach, strict=True)):
        assert walk_largest(pay, budgets[i : i + 1], reach[i : i + 1])[0] == found[i]
        exact = exact_walk(budget, row)
        if exact is None:
            assert found[i] == np.inf
        else:
            assert Decimal(found[i]) <= exact
            assert found[i] == pytest.approx(float(exact), rel=1e-7)
    nothing = pay(np.zeros(len(reach)), reach)
    np.testing.assert_array_equal(nothing, np.where(reach.any(axis=1), 0, np.inf))


def test_moves_fill_the_largest_reaches_first():
    reach = np.array([[0.5, 0.5, 1.0, 0.2], [0.4, 0.9, 0.0, 0.6]])
    np.testing.assert_allclose(moves(reach, np.array([1.2, 1.7])), [[0.2, 0, 1, 0], [0.2, 0.9, 0, 0.6]])
    for most, expected in ((1, [[0, 0, 1, 0], [0, 0.9, 0, 0]]), (2, [[0.5, 0, 1, 0], [0, 0.9, 0, 0.6]])):
        np.testing.assert_array_equal(moves(reach, np.full(2, np.inf), most), expected)
    np.testing.assert_array_equal(moves(reach, np.full(2, np.inf)), reach)
    # The first ones of equal reaches.
    equal = np.tile([0.5, 0.25], 50)[None]
    assert np.flatnonzero(moves(equal, np.array([1.5]))).tolist() == [0, 2, 4]


@pytest.mark.parametrize("noise", [UniformNoise(2.0), SplitNoise(1.5), UniformMixtureNoise((0.7, 2.0), (0.3, 0.7))])
def test_moves_add_up_to_the_radius_and_cost_the_budget(noise):

    def paid(moved):
        inside = np.minimum(moved, 1.0)
        return -np.log(noise.overlap(inside)) if hasattr(noise, "overlap") else noise.cost(inside).sum(axis=1)

    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 0.2, 0.5, 0.9, 1.0], size=(50, 30))
    p_a = rng.uniform(0.51, 0.97, 50)
    radii = GreedyRadius().radii(noise, p_a, 1 - p_a, x, 1 - x)
    reach = np.maximum(x, 1 - x)
    found = moves(reach, radii)
    np.testing.assert_allclose(found.sum(axis=1), radii, rtol=1e-12)
    assert ((found >= 0) & (found <= reach)).all()
    # One feature at most is moved in part, and no other reach is larger than one that is moved in full.
    assert (((found > 0) & (found < reach)).sum(axis=1) <= 1).all()
    spent = paid(found)
    np.testing.assert_allclose(spent, noise.budget(p_a, 1 - p_a), rtol=1e-9)
    for _ in range(20):  # Nobody who goes as far pays more: the drawn perturbation is a worst one.
        other = rng.dirichlet(np.full(30, 0.1), size=50) * radii[:, None]
        inside = (other <= reach).all(axis=1)
        assert (paid(other)[inside] <= spent[inside] * (1 + 1e-9)).all()


def test_moves_of_the_whole_way_and_of_few_features():
    reach = np.array([[0.5, 1.0, 0.7, 1.0]])
    np.testing.assert_array_equal(moves(reach, np.array([np.inf])), reach)
    np.testing.assert_array_equal(moves(reach, np.array([np.inf]), 2), [[0, 1, 0, 1]])
    np.testing.assert_array_equal(moves(reach, np.array([1.5]), 2), [[0, 1, 0, 0.5]])
    np.testing.assert_array_equal(moves(reach, np.array([0.0])), [[0, 0, 0, 0]])
