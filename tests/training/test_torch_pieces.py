"""Single functions of training for torch: datasets, what modules carry, statistics, scalings and hooks."""

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert import CleanTraining, NoiseAugmentation, SplitNoise, UniformNoise
from smoothcert.training import torch_layers, torch_training
from smoothcert.training.carried_noise import box_of, carried
from smoothcert.training.torch_datasets import check_no_loader, read_dataset
from smoothcert.training.torch_layers import (
    CosineSchedule,
    NoisyModule,
    StabilityLoss,
    make_net,
    noisy_statistics,
    regression_net,
)
from smoothcert.training.torch_noise import InputScaling, NoiseHooks, OutputScaling, split_copies
from smoothcert.training.torch_training import Items

from .test_pieces import BOX, MECHANISM, X, Y, train

# Datasets


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_datasets_are_read_once():
    data = Pairs([(torch.ones(2), torch.tensor([3])), [np.zeros(2), 4], ([5.0, 6.0], np.int64(1))])
    found, labels, dataset = read_dataset(data, None)
    assert (found.tolist(), labels.tolist(), dataset) == ([[1, 1], [0, 0], [5, 6]], [3, 4, 1], data)
    assert read_dataset(X, Y) == (X, Y, None)
    with pytest.raises(ValueError, match=r"^y should be a 1d array of labels, got None\. Give y, or a torch Dataset"):
        read_dataset(X, None)
    with pytest.raises(ValueError, match=r"^y must be None where X is a torch Dataset"):
        read_dataset(data, Y)
    for X_given in (torch.utils.data.DataLoader(data), iter([1]), (one for one in [1])):
        with pytest.raises(ValueError, match=rf"with a length, got a {type(X_given).__name__}\. Give the Dataset"):
            check_no_loader(X_given)
    for items, words in (
        ([{"image": 1, "label": 2}], r"an item is a dict with the keys \['image', 'label'\]\. Wrap the Dataset"),
        ([np.ones(2)], r"an item is a ndarray\. Wrap"),
        ([(1, 2, 3)], "too many values"),
        ([(np.ones(2), 0), (np.ones(3), 0)], "same shape"),
        ([(np.ones(2), [0, 1])], "reshape"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)^X must be a torch Dataset of pairs \(input, label\), .*{words}"):
            read_dataset(Pairs(items), None)


def test_items_of_a_dataset():
    classes, weights = np.array(["a", "b", "c"]), np.array([1, 2], dtype=np.float32)
    later = Pairs([([1, 2], "b"), ([3, 4], "c")])
    x, index = Items(later, classes, np.array([1, 0]), None)[1]
    assert (x.tolist(), x.dtype, index, type(index)) == ([3.0, 4.0], np.float32, 2, np.int64)
    given = Items(Pairs([([1, 2], np.array(["b"]))]), classes, np.array([1]), weights)
    assert (len(given), given[0][0][1], given[0][1]) == (1, 1.0, 1)
    [x, weight], index = Items(X, classes, np.array([1, 2]), weights)[1]
    assert (x.tolist(), weight, index) == (X[1].tolist(), 2.0, 2)
    numbers = Items(Pairs([([1, 2], 0.5)]), None, np.array([0.25], np.float32), None)[0][1]
    assert (numbers, type(numbers)) == (0.5, np.float32)
    for data, kept, problem in (
        (later, weights, "to which sample_weight does not belong"),
        (Pairs([(0, "z")] * 2), None, "which is a new class"),
    ):
        with pytest.raises(
            ValueError, match=rf"^Item 1 of the Dataset had the label 'a' when .* now has '[cz]', {problem}\."
        ):
            _ = Items(data, classes, np.array([1, 0]), kept)[1]


# What trained modules carry


def test_what_modules_carry():
    noise, costs = UniformNoise(0.5), [1.0, 2.0]
    module = NoisyModule(nn.Linear(2, 2), noise, (-3, 5), costs=costs)
    net = NeuralNetClassifier(nn.Sequential(module)).initialize()
    for model in (module, nn.Sequential(nn.ReLU(), module), net):
        found = carried(model, None, None)
        assert found[0] is noise
        assert [float(end) for end in found[1]] == [-3, 5]
        assert found[2] is costs
    assert carried(module, UniformNoise(0.5), ([-3, -3], [5, 5]), np.array(costs))[0] is noise
    assert carried(module, None, BOX)[0] is noise
    for bounds in ((-3, 6), (-4, 5), ([-3, -3], [5, 6])):
        with pytest.raises(ValueError, match=r"^bounds must be those of the NoisyModule"):
            carried(module, None, bounds)
    with pytest.raises(
        ValueError, match=r"^costs must be those of the NoisyModule, \[1\.0, 2\.0\], got \[2\.0, 1\.0\]"
    ):
        carried(module, None, None, [2.0, 1.0])
    given = UniformNoise(2.0), (0, 1), 3.0
    for model in (nn.Linear(2, 2), GaussianNB()):
        assert carried(model, *given) == given
    assert box_of(BOX) is BOX
    assert box_of((0, 7)).hi == 7
    # A cost for each pixel is one for each feature of the shape.
    image = NoisyModule(nn.Flatten(), noise, (-3, 5), costs=[[[2.0]], [[3.0]]])
    assert carried(image, None, None, np.repeat([2.0, 3.0], 4), shape=(2, 2, 2))[2] == [[[2.0]], [[3.0]]]


# Torch


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
    for params in ({"costs": -1.0}, {"noise": UniformNoise(-1.0)}):
        with pytest.raises(ValueError, match=r"costs|lam"):
            NoisyModule(nn.Identity(), **({"noise": SplitNoise()} | params))


class Gained(nn.Module):
    def forward(self, rows, gain=1.0):
        return gain * rows


def test_copies_of_answers():
    answer = torch.arange(6.0).reshape(6, 1)
    assert split_copies(nn.ReLU(), answer, 1) is answer
    assert [part.flatten().tolist() for part in split_copies(nn.ReLU(), answer, 3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(
        ValueError, match=r"^The module ReLU must return a tensor of logits to be trained, but returned a tuple"
    ):
        split_copies(nn.ReLU(), (answer,), 2)
    assert split_copies(nn.ReLU(), (answer,), 1) == (answer,)


def test_hooks_of_training():
    rows = torch.from_numpy(X).float()
    module = nn.Identity()
    for n_copies, parts in ((0, 1), (1, 1), (2, 2)):
        with NoiseHooks(MECHANISM, n_copies, 3, None).attached(module):
            module.train()
            answer = module([rows, torch.ones(12)])
            answer = answer if isinstance(answer, tuple) else (answer,)
            assert len(answer) == parts
            assert torch.equal(answer[0], rows) == (n_copies == 0)
            module.eval()
            assert torch.equal(module(rows), rows) == (n_copies == 0)
        assert module(rows) is rows
    half = nn.Identity()
    with NoiseHooks(MECHANISM, 0, 3, lambda answer: answer["a"]).attached(half):
        assert half({"a": rows.half()}).dtype == torch.float32
        with pytest.raises(ValueError, match="must return a tensor of logits"):
            half({"a": [rows]})
    state = NoiseHooks(MECHANISM, 2, 3, abs).__getstate__()
    assert (state["n_copies"], state["output"]) == (0, None)


def test_scalings_of_a_module():
    module, rows = nn.Identity(), torch.from_numpy(X)
    order = []
    module.register_forward_pre_hook(lambda *_: order.append("own"))
    for center in (9.0, 1.0):
        InputScaling([center, 2.0], [2.0, 4.0]).attach(module)
        OutputScaling(center, 3.0).attach(module)
    found = module(rows)
    assert found.dtype == torch.float32
    expected = (rows.float() - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(found, 3 * expected + 1)
    assert next(iter(module._forward_pre_hooks.values())) is InputScaling.of(module)
    assert InputScaling.of(nn.ReLU()) is None
    assert OutputScaling(1.0, 2.0)(module, (), "text") == "text"
    double = nn.Linear(2, 2).double()
    InputScaling(1.0, 2.0).attach(double)
    assert double(rows.float()).dtype == torch.float64
    assert (InputScaling.is_pure, OutputScaling.is_pure) == (True, True)


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


@pytest.mark.parametrize("y", [np.full(12, 7.0), 3 * X[:, 0] - 1])
def test_outputs_are_scaled_to_the_numbers(y, monkeypatch):
    """Outputs of 0 and of 1 stand for the mean, and for one standard deviation above it."""
    monkeypatch.setattr(torch_training, "_run", lambda *_: None)
    net = regression_net(nn.Linear(2, 1)).set_params(max_epochs=1)
    bare = train(NoiseAugmentation(), nn.Linear(2, 1), y=y, regression=True).module_
    [scaling] = bare._forward_hooks.values()
    assert scaling.center == pytest.approx(y.mean())
    assert scaling.scale == pytest.approx(np.std(y) if np.ptp(y) else 1.0)
    assert not train(NoiseAugmentation(), net, y=y, regression=True).module_._forward_hooks
    centers = [
        InputScaling.of(train(strategy, nn.Linear(2, 1), y=y, regression=True).module_).center.abs().max() > 0
        for strategy in (NoiseAugmentation(), NoiseAugmentation(standardize=False), CleanTraining())
    ]
    assert centers == [True, False, False]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_count_in_the_reduction_of_the_criterion(reduction):
    module, weights = nn.Linear(2, 3), np.linspace(0, 2, 12)
    settings = {"criterion__reduction": reduction, "optimizer": torch.optim.SGD, "lr": 0.25, "max_epochs": 1}
    found = train(CleanTraining(), make_net(module, batch_size=12, **settings), fit_params={"sample_weight": weights})
    rows = torch.from_numpy(X).float()
    indices = torch.from_numpy(np.unique(Y, return_inverse=True)[1])
    losses = nn.functional.cross_entropy(module(rows), indices, reduction="none")
    loss = (losses * torch.from_numpy(weights / weights.mean())).sum() / (12 if reduction == "mean" else 1)
    gradient = torch.autograd.grad(loss, module.weight)[0]
    torch.testing.assert_close(found.module_.weight, (module.weight - 0.25 * gradient).detach(), check_dtype=False)
    assert found.criterion_.reduction == reduction


def test_the_stability_term_counts_by_its_weight():
    first, second, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    p, q = np.exp([2.0, 0]) / np.exp([2.0, 0]).sum(), np.exp([0, 1.0]) / np.exp([0, 1.0]).sum()
    kl = (p * np.log(p / q)).sum()
    for loss, weight in ((StabilityLoss(), 6.0), (StabilityLoss(1.5), 1.5)):
        assert loss((first, second), y).item() == pytest.approx(-np.log(p[0]) + weight * kl, rel=1e-6)
        assert loss((second, first), y).item() != pytest.approx(-np.log(q[0]) + weight * kl, rel=1e-3)
    assert StabilityLoss(label_smoothing=0.1).label_smoothing == 0.1
