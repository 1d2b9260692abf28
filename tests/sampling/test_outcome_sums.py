"""Sums over outcomes against fractions: bounds hold to the last bit, and are as close as their rounding error."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from smoothcert import UniformMixtureNoise
from smoothcert.models.adapt import make_voter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling._axis_cells import _runs
from smoothcert.sampling._outcome_sums import LeafSum, OutcomeSum, ScoreSum, VoteTable, cell_shares, outward
from smoothcert.sampling.exact import ExactVotes

EPS = 2.0**-53


def random_edges(rng, sizes):
    """Counts of offsets up to each edge, and the shares of the cells."""
    edges = []
    for size in sizes:
        n = int(rng.choice([7, 11, 13, 255]))
        edges.append([0, *np.sort(rng.integers(0, n + 1, size - 1)).tolist(), n])
    return edges, [[Fraction(b - a, one[-1]) for a, b in pairwise(one)] for one in edges]


def assert_bounds(found, truth, n_operations, size=None):
    for lower, upper, exact in zip(*found, truth, strict=True):
        assert Fraction(lower) <= exact <= Fraction(upper)
        assert upper - lower <= 4 * (n_operations + 6) * EPS * float(size or exact) + 3e-300


@pytest.mark.parametrize("seed", range(20))
def test_votes_in_a_table(seed):
    rng = np.random.default_rng(seed)
    sizes = (3, 2, 4)
    table = rng.integers(3, size=sizes)
    edges, shares = random_edges(rng, sizes)
    truth = [Fraction(0)] * 3
    for cell in product(*map(range, sizes)):
        truth[table[cell]] += shares[0][cell[0]] * shares[1][cell[1]] * shares[2][cell[2]]
    found = VoteTable(table, 3).bounds(np.concatenate(edges))
    assert_bounds(found, truth, 12)
    places = [rng.integers(size, size=9) for size in sizes]
    assert VoteTable(table, 3).votes(places).tolist() == [table[cell] for cell in zip(*places, strict=True)]


def leaves(n_classes=3):
    """A tree: the first feature at 2 cells, then the second, or the third twice."""
    # Leaves: [0:1 of a, 0:2 of b], [0:1 of a, 2:3 of b], [1:2 of a, 1:3 of c], [1:2 of a, 0:1 of c]
    low, high = np.array([0, 3, 0, 5, 1, 8, 1, 7]), np.array([1, 5, 1, 6, 2, 10, 2, 8])
    end, starts = np.array([2, 6, 2, 6, 2, 10, 2, 10]), np.array([0, 2, 4, 6])
    return LeafSum(low, high, end, starts, [2, 3, 3], np.array([2, 0, 0, 1]), n_classes)


@pytest.mark.parametrize("seed", range(20))
def test_leaves_of_a_tree(seed):
    edges, (a, b, c) = random_edges(np.random.default_rng(seed), (2, 3, 3))
    truth = [a[0] * b[2] + a[1] * (c[1] + c[2]), a[1] * c[0], a[0] * (b[0] + b[1])]
    tree = leaves()
    found = tree.bounds(np.concatenate(edges))
    assert_bounds(found, truth, 5)
    votes = tree.votes([np.array([0, 0, 1, 1]), np.array([1, 2, 0, 0]), np.array([0, 0, 2, 0])])
    assert votes.tolist() == [2, 0, 0, 1]
    assert tree.n_operations == 5


@pytest.mark.parametrize("seed", range(20))
def test_sums_of_scores(seed):
    rng = np.random.default_rng(seed)
    sizes = (3, 2, 4)
    scores = [rng.integers(-4, 5, size).astype(float) for size in sizes]
    for numbers in scores:
        numbers[:2] = -4, 4
    edges, shares = random_edges(rng, sizes)
    positive = sum(
        shares[0][i] * shares[1][j] * shares[2][k]
        for i, j, k in product(*map(range, sizes))
        if scores[0][i] + scores[1][j] + scores[2][k] > 0.5
    )
    total = ScoreSum(scores, -0.5, 1e-9, np.array([2, 0]), 3, 24)
    found = total.bounds(np.concatenate(edges))
    assert_bounds([[one[0], one[2]] for one in found], [positive, 1 - positive], 25, size=1)
    # A class that the model does not know.
    assert (found[0][1], found[1][1]) == (0, 0)
    places = [rng.integers(size, size=9) for size in sizes]
    expected = [
        0 if sum(s[p] for s, p in zip(scores, place, strict=True)) > 0.5 else 2 for place in zip(*places, strict=True)
    ]
    assert total.votes(places).tolist() == expected
    assert ScoreSum(scores, -0.5, 100.0, np.array([2, 0]), 3, 24).votes(places).tolist() == [-1] * 9
    finer = total.on_grid(48)
    assert (finer.constant, finer.slack, finer.n_classes, finer.labels.tolist()) == (-0.5, 1e-9, 3, [2, 0])


def test_bounds_are_rounded_outward_by_the_number_of_operations():
    lower, upper = outward(np.array([0.0, 0.5, 1.0]), 12)
    assert lower.tolist() == [0.0, 0.5 * (1 - 16 * EPS), 1 - 16 * EPS]
    assert upper.tolist() == [1e-300, 0.5 * (1 + 16 * EPS), 1.0]
    # All shares are exact here. Operations: 2 factors and an addition; sizes and features; halves, sizes and features.
    for total, edges, truth, n_operations in (
        (leaves(), [0, 1, 2, 0, 1, 2, 4, 0, 1, 2, 4], [0.625, 0.125, 0.25], 5),
        (VoteTable(np.array([[0, 1, 1], [1, 0, 2]]), 3), [0, 1, 2, 0, 1, 2, 4], [0.25, 0.5, 0.25], 7),
        (
            ScoreSum([np.array([0, 2.0]), np.array([0, 3.0])], -0.5, 1e-9, np.arange(2), 2, 5),
            [0, 1, 2] * 2,
            [0.25, 0.75],
            13,
        ),
    ):
        lower, upper = total.bounds(np.array(edges))
        error = (n_operations + 4) * EPS
        assert lower.tolist() == [p * (1 - error) for p in truth]
        if isinstance(total, ScoreSum):
            assert upper.tolist() == [(1 - p) * (1 + 2 * EPS) for p in lower[::-1]]
        else:
            assert upper.tolist() == [p * (1 + error) for p in truth]
    assert [share.tolist() for share in cell_shares(np.array([0, 1, 4, 0, 3, 3, 6]), [2, 3])] == [
        [0.25, 0.75],
        [0.5, 0, 0.5],
    ]


class Fixed(OutcomeSum):
    """The same bounds for every noise."""

    def bounds(self, edges):
        return np.array([0.1, 0.7]), np.array([0.2, 1.0])

    def votes(self, places):
        raise AssertionError


@pytest.mark.parametrize("weights", [[0.3, 0.7], [0.1, 0.2, 0.7]])
def test_bounds_of_mixtures_are_rounded_outward(weights):
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    noise = UniformMixtureNoise(np.arange(1, len(weights) + 1) / 2, weights, levels=4)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (1,))
    votes = ExactVotes(make_voter(tree, np.array([0, 1])), mechanism)
    votes.outcome_sum = Fixed()
    lower, upper = votes.bounds(np.array([[0.5]]))
    n = len(weights) + 1
    np.testing.assert_allclose(lower[0], np.array([0.1, 0.7]) * (1 - 2 * n * EPS), rtol=3 * EPS)
    np.testing.assert_allclose(upper[0, 0], 0.2 * (1 + 2 * n * EPS), rtol=3 * EPS)
    assert upper[0, 1] == 1


def test_runs_of_consecutive_numbers():
    assert _runs(np.array([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 6), (7, 9)]
    assert _runs(np.array([], dtype=np.int64)) == []
    assert _runs(np.array([4])) == [(4, 5)]
