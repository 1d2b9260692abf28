"""Losses, gradients and steps of the gradient attack, against numbers found by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import DeterministicSplitNoise, GreedyRadius, SplitNoise, UniformNoise
from smoothcert.attacks import GradientAttack
from smoothcert.attacks.gradient import end_share
from smoothcert.noise._philox import apply_offsets

from ..base_models import all_offsets
from .targets import attacked, smooth


def test_losses():
    logits = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, -1.0]], dtype=torch.float64)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    label, rival = np.log(shares.sum(axis=0))[[1, 2]]
    others = np.log(np.exp(logits.numpy()[:, [0, 2]]).sum(axis=1))
    for loss, toward, expected in (
        ("probability", None, label),
        ("probability", 2, label - rival),
        ("margin", None, np.mean([3 - others[0], 0 - others[1]])),
        ("margin", 2, np.mean([3 - 0.5, 0 + 1])),
    ):
        assert GradientAttack(loss=loss)._loss(logits, 1, toward).item() == pytest.approx(expected)


@pytest.mark.parametrize(("noise", "share"), [(UniformNoise(0.5), 1.0), (SplitNoise(0.25), None)])
def test_gradients_are_per_unit_of_what_is_paid(noise, share):
    net = nn.Linear(2, 2).requires_grad_(False)
    net.weight[:], net.bias[:] = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0.0, 0.0])
    clf = smooth(net, noise, bounds=([0, -1], [2, 3]), costs=[0.5, 2.0])
    target = attacked([1.0, 0.0], clf)
    attack, key = GradientAttack(loss="margin", n_copies=200), target.new_key()
    loss, slope = attack._gradient(target, target.start, key, None)
    assert target.n_queries == 200
    # The margin is 2 x + 1.5 y, over ranges of 2 and 4; a whole range costs 1/2 and 2.
    expected = np.array([2 * 2 / 0.5, 1.5 * 4 / 2])
    if share is None:
        assert (slope <= expected).all()
        assert (slope >= expected / 2).all()
    else:
        np.testing.assert_allclose(slope, expected, rtol=1e-6)
    assert loss == pytest.approx(2.0, abs=0.7)


def test_gradients_of_noise_with_few_outcomes_count_each_once():
    net = nn.Linear(2, 2).requires_grad_(False)
    target = attacked([0.5, 0.25], smooth(net, DeterministicSplitNoise(0.5, levels=4)))
    total = target.mechanism.noise.n_outcomes
    GradientAttack(n_copies=1000)._gradient(target, target.start, target.new_key(), None)
    GradientAttack(n_copies=3)._gradient(target, target.start, target.new_key(), None)
    assert target.n_queries == total + 3


def test_steps_move_the_largest_gradients_that_can_move():
    target = attacked([0.0, 0.5, 0.5, 1.0, 0.5])
    slope = np.array([9.0, -2.0, 1.0, -9.0, 0.5])
    attack = GradientAttack()
    # The first feature cannot fall, and the fourth cannot rise.
    for k, expected in ((1, [0.0, 0.9, 0.5, 1.0, 0.5]), (2, [0.0, 0.7, 0.3, 1.0, 0.5])):
        np.testing.assert_allclose(attack._move(target, target.start, slope, 0.4, k), expected)
    np.testing.assert_array_equal(attack._move(target, target.start, 0 * slope, 0.4, 2), target.start)


def test_projections_keep_the_features_that_move_most():
    target = attacked([0.5, 0.5, 0.5], radius=GreedyRadius(max_features=2))
    found = GradientAttack()._project(target, np.array([0.6, 0.2, 0.9]), 9.0)
    np.testing.assert_allclose(found, [0.5, 0.2, 0.9])
    found = GradientAttack()._project(target, np.array([0.6, 0.2, 0.9]), 0.3)
    np.testing.assert_allclose(found, [0.5, 0.4, 0.7])
    free = GradientAttack()._project(attacked([0.5, 0.5, 0.5]), np.array([0.6, 0.2, 2.0]), 9.0)
    np.testing.assert_allclose(free, [0.6, 0.2, 1.0])


@pytest.mark.parametrize(
    "noise",
    [UniformNoise(0.75, 24), SplitNoise(0.75, 24), SplitNoise(0.5, 24), SplitNoise(0.3, 40), SplitNoise(0.1, 40)],
    ids=str,
)
def test_gradients_are_those_of_the_smoothed_model(noise):
    """Against central differences of the mean probability over all outcomes of the noise, at inner lattice points."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    with torch.no_grad():
        net[0].weight *= 3
    q, offsets = noise.q, all_offsets(noise, 2)

    def seen(point):
        rows = np.empty((len(offsets), 2))
        apply_offsets(noise.recipe, np.asarray(point), offsets, rows)
        return torch.from_numpy(rows).requires_grad_()

    def mean(point):
        return net(seen(point)).softmax(dim=1)[:, 0].mean().item()

    for point in ([5, 8], [12, 3], [20, 17]):
        rows = seen(point)
        (slopes,) = torch.autograd.grad(net(rows).softmax(dim=1)[:, 0].sum(), rows)
        gradient = (slopes.numpy() * end_share(noise, rows.detach().numpy())).mean(axis=0)
        steps = np.eye(2, dtype=int)
        truth = [(mean(np.add(point, step)) - mean(np.subtract(point, step))) * q / 2 for step in steps]
        # Noise and differences on a lattice are off by a step at most.
        np.testing.assert_allclose(gradient, truth, rtol=0.1, atol=0.01)
