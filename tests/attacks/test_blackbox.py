"""Which moves black-box attacks try, and in which order."""

from types import SimpleNamespace

import numpy as np

from smoothcert.attacks import CoordinateAttack, GreedyFaceAttack
from smoothcert.attacks.blackbox import face_moves

from .targets import attacked


def test_moves_to_faces_leave_out_faces_where_the_input_is():
    target = attacked([0.0, 0.25, 1.0])
    features, faces = face_moves(target, np.array([2, 1, 0]))
    assert sorted(zip(features.tolist(), faces.tolist(), strict=True)) == [(0, 1.0), (1, 0.0), (1, 1.0), (2, 0.0)]


def linear(start, slopes, n_left=10**6, **given):
    """A target whose lead grows with the features, at some slopes."""
    start = np.array(start)
    found = SimpleNamespace(start=start, high=np.ones(len(start)), low=np.zeros(len(start)), n_left=n_left, **given)
    found.reach, found.max_features = np.maximum(start, 1 - start), len(start)
    found.cost, found.leads = (lambda n: n), (lambda points, n: (points - start) @ np.array(slopes))
    found.rng, found.snap, found.onward = np.random.default_rng(0), (lambda points: points), (lambda path: path)
    return found


def test_orders_of_moves():
    target = linear([0.2, 0.5, 0.6], [0.1, 0.3, -0.2])
    reach, effect = ([0, 2, 1], [1.0, 0.0, 1.0]), ([1, 2, 0], [1.0, 0.0, 1.0])
    for order, expected in (("reach", [reach]), ("effect", [effect]), ("both", [reach, effect])):
        paths = GreedyFaceAttack(order=order)._paths(target, np.inf, True)
        assert [(path.features.tolist(), path.targets.tolist()) for path in paths] == expected


def test_of_many_features_those_with_the_largest_reach_are_measured():
    target = linear([0.2, 0.5, 0.6], [0.1, 0.3, -0.2], n_left=1000)
    for n_votes, expected in ((125, [2, 0]), (126, [0]), (10_000, [0]), (83, [1, 2, 0])):
        assert GreedyFaceAttack(n_votes=n_votes)._by_effect(target).features.tolist() == expected


def test_the_coordinate_attack_makes_the_best_move_per_distance_until_budget_or_lead_are_reached():
    """The moves to the best faces have lengths .8, .5 and .6; the fourth feature does nothing."""
    slopes = (0.25, 0.3, -0.2, 0.0)
    target = linear([0.2, 0.5, 0.6, 0.5], slopes)

    def moves(budget, slopes=slopes, **params):
        target.leads = lambda points, n: (points - target.start) @ np.array(slopes)
        path = next(CoordinateAttack(n_votes=10, **params)._paths(target, budget, True))
        return path.features.tolist(), path.targets.tolist()

    assert moves(1.9) == ([1, 0, 2], [1, 1, 0])
    assert moves(1.0) == ([1, 0], [1, 1])
    assert moves(0.5) == ([1], [1])
    # A lead above one half ends the path.
    assert moves(9.0, (0.25, 1.1, -0.2, 0.0)) == ([1], [1])
    assert moves(9.0, (0.25, 1.0, -0.2, 0.0))[0][:2] == [1, 0]
    target.max_features = 1
    assert moves(9.0) == ([1], [1])
    # 9 points of 10 votes must leave half of the queries.
    target.max_features, target.n_left = 4, 170
    assert moves(9.0) == ([], [])
    target.n_left = 180
    assert len(moves(9.0)[0]) == 4
    # With fewer candidates, there are fewer points at a time.
    target.n_left = 100
    assert len(moves(9.0, n_candidates=2)[0]) == 4


def test_effects_are_compared_per_distance():
    """The first feature changes the lead by 1 over a distance of .5, the second by 1.35 over .9."""
    start = np.array([0.5, 0.9])
    target = SimpleNamespace(start=start, high=np.ones(2), low=np.zeros(2), reach=np.array([0.5, 0.9]), n_left=10**6)
    target.cost = lambda n: n
    target.leads = lambda points, n: np.clip(points - start, 0, 1) @ [2, 0] + np.clip(start - points, 0, 1) @ [0, 1.5]
    path = GreedyFaceAttack()._by_effect(target)
    assert (path.features.tolist(), path.targets.tolist()) == ([0, 1], [1.0, 0.0])
