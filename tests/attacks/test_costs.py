"""Attacks with costs, fixed features and categories."""

from dataclasses import replace

import numpy as np
import pytest

from smoothcert import GreedyRadius, SmoothedClassifier, SplitNoise, UniformNoise
from smoothcert.attacks import CoordinateAttack, GradientAttack, GreedyFaceAttack
from smoothcert.attacks.target import Target

from ..base_models import Rule


def smoothed(function, costs, n_categories, **params):
    """Smooth a rule whose features may be categories."""
    params = {"noise": UniformNoise(1.0), "n_samples": 4000, "random_state": 0} | params
    clf = SmoothedClassifier.from_pretrained(Rule(function).fit(None, None), [0, 1], costs=costs, **params)
    clf.features_ = replace(clf.features_, n_categories=np.array(n_categories))
    return clf


def paid(clf, X, inputs):
    """What the adversary pays, in exact terms of the definition."""
    costs, categorical = clf.features_.costs, clf.features_.n_categories > 0
    moved = np.where(categorical, inputs != X, np.abs(inputs - X))
    return np.sum(np.where(np.isfinite(costs), costs, 0.0) * np.where(np.isfinite(costs), moved, 0.0), axis=1)


@pytest.mark.parametrize("attack", [GreedyFaceAttack, CoordinateAttack])
@pytest.mark.parametrize("levels", ["auto", 8])
def test_attacks_pay_costs_change_categories_and_leave_fixed_features(attack, levels):
    def rule(X):
        # The second category is shown with probability 1/4, and only code 2 of it speaks for class 1.
        return (X[:, 0] / 2 + X[:, 1] + 0.8 * (X[:, 2] == 2) - 0.5 * (X[:, 3] < 1e6) > 0.35).astype(int)

    clf = smoothed(rule, [2.0, 0.5, 0.5, np.inf], [0, 0, 4, 0], noise=UniformNoise(1.0, levels))
    X = np.array([[0.125, 0.25, 0, 5.0], [0.25, 0.125, 1, -3.0]])
    found = attack(n_votes=1000, random_state=1).minimal(clf, X)
    assert found.success.all()
    np.testing.assert_allclose(found.distance, paid(clf, X, found.inputs), rtol=1e-9)
    assert (found.inputs[:, 3] == X[:, 3]).all()
    assert set(found.inputs[:, 2]) <= {0, 1, 2, 3}
    assert (clf.certify(X).radii < found.upper_bounds).all()


def test_a_whole_category_fits_into_a_budget_of_its_cost():
    clf = smoothed(lambda X: (X[:, 1] != 0).astype(int), [1.0, 0.75], [0, 3], noise=SplitNoise(0.5), n_selection=100)
    X = np.array([[0.5, 0.0]])
    for budget, flips in ((0.75, True), (0.74, False)):
        found = GreedyFaceAttack(n_votes=500, random_state=0).run(clf, X, radius=budget)
        assert (found.inputs[0, 1] != 0) == flips
        assert found.distance[0] <= budget


def test_limits_keep_categories():
    clf = smoothed(
        lambda X: (X[:, 1] != 0).astype(int),
        [1.0, 0.75],
        [0, 3],
        noise=SplitNoise(0.5),
        n_selection=100,
        radius=GreedyRadius(max_change=[1.0, 0.5]),
    )
    found = GreedyFaceAttack(n_votes=500, random_state=0).minimal(clf, np.array([[0.5, 0.0]]))
    assert not found.success.any()
    assert found.inputs[0, 1] == 0


def test_gradients_count_costs():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    with torch.no_grad():
        net.weight[:] = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
        net.bias[:] = torch.tensor([2.4, 0.0])
    clf = SmoothedClassifier.from_pretrained(
        net, [0, 1], UniformNoise(0.5), costs=[0.5, 2.0, np.inf], n_samples=2000, random_state=0
    )
    x = np.array([[0.3, 0.3, 0.2]])
    found = GradientAttack(n_votes=500, random_state=0).minimal(clf, x)
    assert found.success.all()
    assert found.inputs[0, 2] == pytest.approx(0.2, abs=0)
    # The cheap feature moves, the dear one hardly does.
    moves = np.abs(found.inputs - x)[0]
    assert moves[0] > 10 * moves[1]
    np.testing.assert_allclose(found.distance, 0.5 * moves[0] + 2 * moves[1], rtol=1e-6)
    assert (clf.certify(x).radii < found.upper_bounds).all()


def test_categories_become_those_that_help_most():
    """Code 2 alone speaks for class 1; three trials of 500 votes may take a fifth of the queries."""
    clf = smoothed(lambda X: (X[:, 1] == 2).astype(int), [1.0, 0.75], [0, 4])
    for code in (0, 1, 3):
        for queries, other in ((7500, 2), (7499, (code + 1) % 4)):
            x, rng = np.array([0.5, code]), np.random.default_rng(0)
            target = Target(clf.algorithm((2,)), x, 0, rng, queries, n_samples=500, clear=0.1)
            target.choose_categories(500)
            assert target.categories.other.tolist() == [other]
