"""The search of attacks: queries, distances of interest, and bad arguments."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import DeterministicSplitNoise, UniformNoise
from smoothcert.attacks import CoordinateAttack, GradientAttack, GreedyFaceAttack

from ..base_models import Rule, constant, steps
from .targets import smooth


@pytest.mark.parametrize(
    "attack", [GreedyFaceAttack(), CoordinateAttack(), GradientAttack(n_steps=4, n_restarts=1)], ids=str
)
def test_queries_are_the_rows_that_the_base_model_has_seen(attack):
    class Counting(nn.Linear):
        seen = 0

        def forward(self, rows):
            self.seen += len(rows) * (len(rows) > 1)
            return super().forward(rows)

    torch.manual_seed(0)
    net = Counting(3, 2).requires_grad_(False)
    net.weight[:], net.bias[:] = torch.tensor([[1.0, 2, 0], [-1, 0, 1]]), torch.tensor([-0.5, 0.5])
    clf = smooth(net, UniformNoise(0.5), n_selection=16)
    attack.set_params(n_votes=50, max_queries=20_000, random_state=0)
    found = attack.minimal(clf, np.array([[0.8, 0.6, 0.1]]), [0])
    # Rows that answer alone, to see whether the answer depends on the batch, are no part of the attack.
    assert 1000 < net.seen <= found.n_queries[0] <= min(net.seen + 20, 20_000)


def test_verification_must_leave_queries_for_the_search():
    clf = smooth(n_selection=40)
    attack, x = GreedyFaceAttack(n_votes=1, random_state=0), np.array([[0.5]])
    for n, search, call in ((4, "minimal", {}), (2, "run", {"radius": 0.5})):
        reserve = n * (40 + 500)
        attack.set_params(max_queries=reserve)
        with pytest.raises(ValueError, match=f"max_queries must exceed {reserve}, the cost of verification, got"):
            getattr(attack, search)(clf, x, **call)
        getattr(attack.set_params(max_queries=reserve + 1), search)(clf, x, **call)


def test_inputs_beyond_the_distance_of_interest_are_not_sought():
    clf = smooth(Rule(steps([0.501])).fit(None, None), DeterministicSplitNoise(0.5, levels=20))
    x = np.full((3, 1), 0.25)
    truth = GreedyFaceAttack(random_state=0).minimal(clf, x[:1]).distance[0]
    assert 0 < truth < 0.5
    found = GreedyFaceAttack(random_state=0).minimal(clf, x, radius=[truth - 0.05, truth, 0.5])
    np.testing.assert_array_equal(found.success, [False, True, True])
    np.testing.assert_allclose(found.distance[1:], truth)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (GradientAttack(n_steps=0), "n_steps must be"),
        (GradientAttack(n_copies=0), "n_copies must be"),
        (GradientAttack(n_restarts=0), "n_restarts must be"),
        (GradientAttack(loss="hinge"), "loss must be one of 'probability', 'margin'"),
        (CoordinateAttack(n_candidates=0), "n_candidates must be"),
        (CoordinateAttack(n_samples=0), "n_samples must be"),
        (CoordinateAttack(max_queries=0), "max_queries must be"),
    ],
)
def test_bad_parameters(attack, message):
    with pytest.raises(ValueError, match=message):
        attack.minimal(smooth(nn.Linear(1, 2)), np.array([[0.5]]))


def test_bad_arguments():
    attack, clf, x = GreedyFaceAttack(), smooth(), np.array([[0.5]])
    with pytest.raises(ValueError, match="clf must be a SmoothedClassifier, got a Rule"):
        attack.minimal(Rule(constant), x)
    with pytest.raises(ValueError, match="y must hold one label for each of 1 inputs"):
        attack.minimal(clf, x, [0, 1])
    with pytest.raises(ValueError, match="radius must be"):
        attack.run(clf, x, radius=-1.0)
