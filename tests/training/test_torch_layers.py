"""The parts of torch training, one by one: statistics, noisy modules, nets, the schedule and the stability loss."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from smoothcert import SplitNoise, UniformNoise
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.training import torch_layers
from smoothcert.training.torch_layers import (
    CosineSchedule,
    NoisyModule,
    StabilityLoss,
    make_net,
    noisy_statistics,
    regression_net,
)

from .problems import MECHANISM, X


def test_statistics_are_those_of_noisy_inputs(monkeypatch):
    images = np.random.default_rng(0).random((50, 3, 2, 4)) * np.array([1, 0.5, 0])[:, None, None]
    center, scale = noisy_statistics(images, UniformNoise(0.25), costs=[[[np.inf]]], seed=4)
    np.testing.assert_allclose(center.ravel(), images.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(scale.ravel(), [*images.std(axis=(0, 2, 3))[:2], 1.0])
    assert center.shape == scale.shape == (3, 1, 1)
    rng = np.random.default_rng(4)
    rows = rng.permutation(12)
    noisy = MECHANISM.noisy(X[rows], rng)
    found = noisy_statistics(X, UniformNoise(0.5), (-3, 5), seed=4)
    np.testing.assert_allclose(found, [noisy.mean(axis=0), noisy.std(axis=0)])
    # The first 1000 inputs of a random order, or as many as hold 2**20 values.
    monkeypatch.setattr(torch_layers, "STATISTICS_INPUTS", 5)
    for values, n in ((2, 5), (14, 7), (10**6, 12)):
        monkeypatch.setattr(torch_layers, "STATISTICS_VALUES", values)
        rng = np.random.default_rng(4)
        noisy = MECHANISM.noisy(X[rng.permutation(12)[:n]], rng)
        np.testing.assert_allclose(noisy_statistics(X, UniformNoise(0.5), (-3, 5), seed=4)[0], noisy.mean(axis=0))


def test_a_noisy_module_adds_noise_where_it_should():
    rows = torch.from_numpy(X).float()
    module = NoisyModule(nn.Identity(), UniformNoise(0.5), (-3, 5), center=[1.0, 2.0], scale=[2.0, 4.0], seed=3)
    noisy = torch.from_numpy(MECHANISM.noisy(rows.numpy(), np.random.default_rng(3), np.float32))
    scaled = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
    torch.testing.assert_close(module(rows), (noisy - scaled[0]) / scaled[1])
    module.eval()
    torch.testing.assert_close(module(rows), (rows - scaled[0]) / scaled[1])
    several = NoisyModule(nn.Identity(), UniformNoise(0.5), (-3, 5), n_copies=3, seed=3)
    copies = several(rows)
    torch.testing.assert_close(copies[0], noisy)
    assert (len(copies), copies[1].shape) == (3, rows.shape)
    several.eval().noisy_evaluation = True
    answer = several(rows)
    assert answer.shape == rows.shape
    assert 0 < (answer - rows).abs().max() <= 4
    # Further arguments reach the network.
    scaling = NoisyModule(Gained(), UniformNoise(0.5), (-3, 5)).eval()
    torch.testing.assert_close(scaling(rows, 3.0), 3 * rows)
    torch.testing.assert_close(scaling(rows, gain=4.0), 4 * rows)
    for name, params in {
        "costs": {"costs": -1.0},
        "lam": {"noise": UniformNoise(-1.0)},
        r"noise must be a Noise object, such as SplitNoise\(lam=1.0\), got 'split'": {"noise": "split"},
        "n_copies": {"n_copies": 0},
        "scale must be above 0": {"scale": [1.0, 0.0]},
    }.items():
        with pytest.raises(ValueError, match=name):
            NoisyModule(nn.Identity(), **({"noise": SplitNoise()} | params))
    with pytest.raises(ValueError, match="noise must be a Noise object"):
        noisy_statistics(X, "split", (-3, 5))


class Gained(nn.Module):
    def forward(self, rows, gain=1.0):
        return gain * rows


def test_nets_of_bare_modules():
    net = make_net(nn.Linear(2, 2))
    recipe = {
        "lr": 0.1,
        "batch_size": 64,
        "max_epochs": 40,
        "train_split": None,
        "verbose": 0,
        "optimizer": torch.optim.SGD,
    }
    recipe |= {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 1e-4}
    recipe |= {
        "criterion": nn.CrossEntropyLoss,
        "iterator_train__shuffle": True,
        "callbacks": [("schedule", CosineSchedule)],
    }
    assert {name: net.get_params()[name] for name in recipe} == recipe
    other = make_net(nn.Linear(2, 2), optimizer=torch.optim.Adam, lr=0.5)
    assert (other.lr, other.batch_size) == (0.5, 64)
    assert not [name for name in other.get_params() if name.startswith("optimizer__")]
    numbers = regression_net(nn.Linear(2, 1))
    recipe = {"lr": 0.01, "optimizer": torch.optim.Adam, "criterion": nn.MSELoss} | {
        name: recipe[name]
        for name in ("batch_size", "max_epochs", "train_split", "verbose", "iterator_train__shuffle", "callbacks")
    }
    assert {name: numbers.get_params()[name] for name in recipe} == recipe


def test_the_stability_term_counts_by_its_weight():
    first, second, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    p, q = np.exp([2.0, 0]) / np.exp([2.0, 0]).sum(), np.exp([0, 1.0]) / np.exp([0, 1.0]).sum()
    kl = (p * np.log(p / q)).sum()
    for loss, weight in ((StabilityLoss(), 6.0), (StabilityLoss(1.5), 1.5)):
        assert loss((first, second), y).item() == pytest.approx(-np.log(p[0]) + weight * kl, rel=1e-6)
        assert loss((second, first), y).item() != pytest.approx(-np.log(q[0]) + weight * kl, rel=1e-3)
    assert StabilityLoss(label_smoothing=0.1).label_smoothing == 0.1


def test_learning_rate_follows_half_a_cosine():
    rates = []

    class Watch(Callback):
        def on_epoch_begin(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    net = make_net(nn.Linear(2, 2), max_epochs=4, callbacks=[("schedule", CosineSchedule), ("watch", Watch)])
    net.fit(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)


def test_noise_of_training_mode_is_the_channels():
    """In distribution: the module's noise is what certification draws."""
    mechanism = NoiseMechanism(Box.from_bounds((0, 2)), SplitNoise(lam=1.0), (1,))
    module = NoisyModule(nn.Identity(), mechanism.noise, mechanism.box, seed=0).train()
    seen = module(torch.full((20_000, 1), 1.2)).numpy().ravel()
    expected = mechanism.noisy(np.full((20_000, 1), 1.2), np.random.default_rng(1)).ravel()
    np.testing.assert_allclose(
        np.quantile(seen, [0.1, 0.3, 0.6, 0.9]), np.quantile(expected, [0.1, 0.3, 0.6, 0.9]), atol=0.05
    )
    assert (seen == 1.0).mean() == pytest.approx(0.5, abs=0.02)


def written_formula(first, second, y, weight):
    """The paper's loss, term by term."""
    p, q = first.softmax(dim=1), second.softmax(dim=1)
    kl = (p * (p / q).log()).sum(dim=1)
    return (-p[torch.arange(len(y)), y].log() + weight * kl).mean()


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.0])
def test_stability_loss_and_its_gradient_are_the_written_formula(weight):
    torch.manual_seed(0)
    first, second = (torch.randn(7, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    found, expected = StabilityLoss(weight)((first, second), y), written_formula(first, second, y, weight)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda a, b: StabilityLoss(weight)((a, b), y), (first, second))


def test_stability_loss_of_one_copy_is_cross_entropy():
    logits, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(StabilityLoss(6.0)(logits, y), nn.CrossEntropyLoss()(logits, y))
    torch.testing.assert_close(StabilityLoss(6.0)((logits, logits), y), nn.CrossEntropyLoss()(logits, y))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_stability_loss_reduces_as_cross_entropy_does(reduction):
    first, second, y = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    rows = torch.stack([written_formula(first[i : i + 1], second[i : i + 1], y[i : i + 1], 6.0) for i in range(5)])
    found = StabilityLoss(6.0, reduction=reduction)((first, second), y)
    torch.testing.assert_close(found, rows.sum() if reduction == "sum" else rows)


def test_stability_loss_is_finite_for_confident_networks():
    first = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = StabilityLoss()((first, torch.tensor([[0.0, 1000.0]])), torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(first.grad).all()


def test_the_second_copy_has_noise_of_its_own():
    module = NoisyModule(nn.Flatten(), SplitNoise(1.0), n_copies=2, seed=0)
    first, second = module(torch.full((50, 8), 0.5))
    assert not torch.equal(first, second)
    assert len(torch.cat([first, second]).unique(dim=0)) == 100
