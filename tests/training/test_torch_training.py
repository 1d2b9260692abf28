"""Training of networks by noise augmentation and stability training: what it does, and what it refuses."""

import io
import pickle
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, LRScheduler
from torch import nn

from smoothcert import CleanTraining, NoiseAugmentation, SmoothedClassifier, SplitNoise, StabilityTraining, UniformNoise
from smoothcert.training import torch_training
from smoothcert.training.torch_layers import NoisyModule, StabilityLoss, make_net, noisy_statistics, regression_net
from smoothcert.training.torch_noise import InputScaling
from smoothcert.training.torch_training import Items

from .problems import Pairs, X, Y, smooth, train


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:600] / 16).astype(np.float32), y[:600]


class Mlp(nn.Sequential):
    def __init__(self, width=32):
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def user_net(**params):
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 4,
        "verbose": 0,
    }
    return NeuralNetClassifier(Mlp, **(settings | params))


def weights(clf):
    return torch.cat([value.flatten() for value in clf.estimator_.module_.state_dict().values()])


def test_weight_0_is_augmentation_on_the_first_of_two_copies(digits):
    """With no stability term, the gradients are those of cross-entropy on one noisy copy."""
    X, y = digits
    torch.manual_seed(0)
    module = NoisyModule(Mlp(), UniformNoise(0.5), n_copies=2, seed=0)
    logits = module(torch.from_numpy(X[:64]))
    target = torch.from_numpy(y[:64])
    stable, plain = StabilityLoss(0.0)(logits, target), nn.CrossEntropyLoss()(logits[0], target)
    for a, b in zip(
        *(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) for loss in (stable, plain)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_weight_0_trains_as_well_as_augmentation(digits):
    X, y = digits
    scores = [
        smooth(user_net(max_epochs=15), training=training).fit(X[:500], y[:500]).score(X[500:], y[500:])
        for training in (StabilityTraining(weight=0), "augment")
    ]
    assert abs(scores[0] - scores[1]) < 0.08


def test_stability_makes_noisy_answers_agree(digits):
    X, y = digits
    divergence = {}
    for training in ("augment", "stability"):
        net = smooth(user_net(max_epochs=15), UniformNoise(1.0), training=training).fit(X, y).estimator_
        pair = NoisyModule(nn.Identity(), UniformNoise(1.0), n_copies=2, seed=0)(torch.from_numpy(X))
        with torch.no_grad():
            first, second = (net.module_(copy).log_softmax(dim=1) for copy in pair)
        divergence[training] = (first.exp() * (first - second)).sum(dim=1).mean()
    assert divergence["stability"] < divergence["augment"] / 3


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_training_twice_with_one_seed_gives_identical_weights(digits, training):
    X, y = digits
    clf = smooth(user_net(), training=training)
    a, b, other = (weights(clone(clf).set_params(random_state=seed).fit(X, y)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_a_module_instance_is_never_changed(digits, training):
    X, y = digits
    module = Mlp()
    before = pickle.dumps(module.state_dict())
    clf = smooth(module, training=training).fit(X[:64], y[:64])
    assert pickle.dumps(module.state_dict()) == before
    assert len(clf.estimator_.history) == 40
    net = make_net(module, max_epochs=1)
    smooth(net, training=training).fit(X, y)
    assert pickle.dumps(module.state_dict()) == before


def test_the_recipe_of_bare_modules_can_be_searched(digits):
    X, y = digits
    clf = smooth(make_net(Mlp(), max_epochs=2), n_selection=16)
    grid = {"estimator__lr": [1e-6, 0.1], "estimator__max_epochs": [3], "estimator__optimizer__momentum": [0.5, 0.9]}
    search = GridSearchCV(clf, grid, cv=2).fit(X, y)
    assert search.best_params_["estimator__lr"] == 0.1
    net = search.best_estimator_.estimator_
    assert net.max_epochs == 3
    settings = {"optimizer__weight_decay": 0.5, "batch_size": 50, "optimizer__momentum": 0.5}
    best = smooth(make_net(Mlp(), max_epochs=2, **settings)).fit(X, y)
    optimizer = best.estimator_.optimizer_.param_groups[0]
    assert (optimizer["weight_decay"], optimizer["momentum"], optimizer["nesterov"]) == (0.5, 0.5, True)
    assert len(best.estimator_.history[-1]["batches"]) == 12


@pytest.fixture(scope="module")
def knower(digits):
    """A network that knows the clean digits, and is lost under noise."""
    torch.manual_seed(0)
    return smooth(make_net(Mlp(), max_epochs=20), training=None).fit(*digits).estimator_.module_


@pytest.mark.parametrize("training", ["augment", "stability"])
def test_training_and_validation_are_scored_on_noisy_inputs(digits, knower, training):
    """The network hardly learns: its accuracies are those of a network that is right wherever noise is missing."""
    X, y = digits
    net = user_net(max_epochs=2, lr=1e-9)
    net = make_net(knower, max_epochs=2, lr=1e-9, train_split=net.train_split)
    strategy = {"augment": NoiseAugmentation, "stability": StabilityTraining}[training](standardize=False)
    fitted = smooth(net, UniformNoise(4.0), training=strategy).fit(X, y).estimator_
    assert (fitted.predict(X) == y).mean() > 0.95
    for row in fitted.history:
        assert 0.1 < row["train_noisy_accuracy"] < 0.5
        assert 0.1 < row["valid_noisy_accuracy"] < 0.5
        assert row["valid_acc"] == row["valid_noisy_accuracy"]
    clean = smooth(net, UniformNoise(4.0), training=None).fit(X, y).estimator_
    assert min(clean.history[:, "train_noisy_accuracy"]) > 0.95
    assert min(clean.history[:, "valid_noisy_accuracy"]) > 0.9


@pytest.mark.parametrize("training", ["augment", "stability"])
def test_the_users_callbacks_keep_working(digits, training, tmp_path):
    X, y = digits
    net = user_net(
        max_epochs=60,
        callbacks=[
            ("schedule", LRScheduler("StepLR", step_size=2, gamma=0.5)),
            ("stop", EarlyStopping(monitor="valid_noisy_accuracy", lower_is_better=False, patience=3)),
            ("best", Checkpoint(monitor="valid_noisy_accuracy_best", dirname=str(tmp_path), load_best=True)),
        ],
    )
    net.set_params(callbacks__best__monitor="valid_loss_best")
    clf = smooth(net, training=training).fit(X, y)
    assert len(clf.estimator_.history) < 60
    assert (tmp_path / "params.pt").exists()
    assert clf.estimator_.optimizer_.param_groups[0]["lr"] < 0.01
    assert clf.score(X, y) > 0.5
    assert pickle.loads(pickle.dumps(clf)).predict(X[:5]).tolist() == clf.predict(X[:5]).tolist()


def test_disabled_callbacks_stay_disabled(digits):
    X, y = digits
    net = smooth(user_net(callbacks="disable")).fit(X, y).estimator_
    assert "valid_noisy_accuracy" not in net.history[-1]


def test_the_users_loader_and_criterion_keep_working(digits):
    X, y = digits
    net = user_net(
        criterion=nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.ones(10)),
        iterator_train__shuffle=True,
        iterator_train__drop_last=True,
        batch_size=50,
        train_split=None,
    )
    for training in ("augment", "stability"):
        fitted = smooth(net, training=training).fit(X[:530], y[:530]).estimator_
        assert len(fitted.history[-1]["batches"]) == 10
        assert fitted.criterion_.label_smoothing == 0.1
        assert type(fitted.criterion_) is nn.CrossEntropyLoss
        assert fitted.criterion_.reduction == "mean"


@pytest.mark.parametrize("training", ["augment", "stability"])
def test_compiled_networks_can_be_trained(digits, training):
    X, y = digits
    net = user_net(compile=True, compile__backend="eager", max_epochs=2)
    clf = smooth(net, training=training).fit(X, y)
    plain = smooth(user_net(max_epochs=2), training=training).fit(X, y)
    torch.testing.assert_close(weights(clf), weights(plain))
    assert clf.certify(X[:3]).radii.shape == (3,)


def test_mixed_precision_in_the_module_keeps_working(digits):
    class Autocast(Mlp):
        def forward(self, X):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(X).float()

    X, y = digits
    net = user_net(max_epochs=15)
    net.set_params(module=Autocast)
    assert smooth(net, UniformNoise(0.2), training="stability").fit(X, y).score(X, y) > 0.8


def test_progress_is_shown_when_asked_for(digits):
    X, y = digits
    shown = {}
    for verbose in (0, 1):
        with redirect_stdout(io.StringIO()) as stdout:
            smooth(user_net(max_epochs=2), verbose=verbose).fit(X, y)
        shown[verbose] = stdout.getvalue().splitlines()
    assert shown[0] == []
    header, _, *epochs = shown[1]
    assert {"epoch", "train_loss", "train_noisy_accuracy", "valid_noisy_accuracy"} <= set(header.split())
    assert [int(epoch.split()[0]) for epoch in epochs] == [1, 2]


# Fine-tuning


def test_a_module_instance_is_where_training_starts(digits):
    X, y = digits
    trained = smooth(make_net(Mlp(), max_epochs=15), UniformNoise(0.2)).fit(X, y)
    module = trained.estimator_.module_
    net = make_net(module, max_epochs=1, lr=1e-9)
    tuned = smooth(net, training=NoiseAugmentation(standardize=False)).fit(X, y)
    torch.testing.assert_close(tuned.estimator_.module_[0].weight, module[0].weight)


def test_warm_start_continues_from_the_weights_of_a_net(digits):
    X, y = digits
    first = smooth(user_net(module__width=48, max_epochs=15), UniformNoise(0.2)).fit(X, y).estimator_
    before = pickle.dumps(first.module_.state_dict())
    cold = smooth(first.set_params(lr=1e-9, max_epochs=1), SplitNoise(0.5)).fit(X, y).estimator_
    warm = smooth(first.set_params(warm_start=True), SplitNoise(0.5), training="stability").fit(X, y).estimator_
    again = smooth(warm, SplitNoise(0.5)).fit(X, y).estimator_
    trained = first.module_[0].weight
    torch.testing.assert_close(warm.module_[0].weight, trained)
    assert (cold.module_[0].weight - trained).abs().max() > 0.01
    torch.testing.assert_close(again.module_[0].weight, trained)
    assert again.criterion is nn.CrossEntropyLoss
    assert type(warm.module_) is type(cold.module_) is Mlp
    assert pickle.dumps(first.module_.state_dict()) == before


# Bad input


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (NoiseAugmentation(n_copies=0), "n_copies must be a whole number of at least 1, got 0"),
        (NoiseAugmentation(stream=1), "stream must be True or False, got 1"),
        (StabilityTraining(standardize=1), "standardize must be True or False, got 1"),
        (StabilityTraining(weight=-6), "weight must be 0 or a finite number above 0, got -6"),
        (CleanTraining(standardize="no"), "standardize must be True or False, got 'no'"),
    ],
)
def test_bad_parameters(digits, training, message):
    with pytest.raises(ValueError, match=message):
        smooth(Mlp(), training=training).fit(*digits)


@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.MultiMarginLoss])
def test_criterion_that_cannot_take_noisy_copies(digits, criterion):
    with pytest.raises(
        ValueError, match=r"criterion is torch.nn.CrossEntropyLoss on logits, got .* or use training='augment'"
    ):
        smooth(user_net(criterion=criterion), training="stability").fit(*digits)


def test_a_noisy_module_that_returns_more_than_logits_cannot_take_noisy_copies(digits):
    class Pair(Mlp):
        def forward(self, X):
            return super().forward(X), X

    module = NoisyModule(Pair(), UniformNoise(0.2), n_copies=2)
    with pytest.raises(ValueError, match=r"module Pair must return a tensor of logits .* but returned a tuple"):
        module(torch.from_numpy(digits[0]))


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_width_must_be_the_number_of_classes(digits, training):
    X, y = digits
    with pytest.raises(ValueError, match=r"one logit per class, shape \(2, 3\), but returned shape \(2, 10\)"):
        smooth(make_net(Mlp), training=training).fit(X[y < 3], y[y < 3])


def test_training_takes_the_outputs_that_votes_take(digits):
    X, y = digits
    X, y = X[y < 2], y[y < 2]

    class Single(nn.Linear):
        def __init__(self):
            super().__init__(64, 1)

        def forward(self, X):
            return super().forward(X)[:, 0]

    class Named(Mlp):
        def forward(self, X):
            return {"logits": super().forward(X), "hidden": X}

    class NamedNet(NeuralNetClassifier):
        def get_loss(self, answer, y, **mode):
            return super().get_loss(answer["logits"], y, **mode)

    binary = NeuralNetBinaryClassifier(Single, max_epochs=10, lr=0.1, train_split=None, verbose=0)
    assert smooth(binary, training="augment").fit(X, y).score(X, y) > 0.9
    with pytest.raises(ValueError, match=r"Single returns one logit per input, which CrossEntropyLoss cannot"):
        smooth(Single()).fit(X, y)
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 10, "lr": 0.1, "train_split": None, "verbose": 0}
    named = NamedNet(Named, module__width=2, callbacks="disable", **settings)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but returned shape \(2, 10\)"):
        smooth(named).fit(X, y)


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_nan_loss_stops_the_training_at_once(digits, training):
    with pytest.raises(ValueError, match=r"became NaN in epoch 1. Lower the learning rate \(lr is 1e\+30\)"):
        smooth(make_net(Mlp, lr=1e30), training=training).fit(*digits)


# The pieces, in a loop of one's own


def test_pieces_work_in_a_plain_loop(digits):
    X, y = digits
    noise = UniformNoise(0.5)
    center, scale = noisy_statistics(X, noise, seed=0)
    torch.manual_seed(0)
    module = NoisyModule(Mlp(), noise, center=center, scale=scale, n_copies=2, seed=0)
    optimizer, criterion = torch.optim.Adam(module.parameters(), lr=0.01), StabilityLoss()
    for _ in range(30):
        for rows in torch.randperm(500).split(100):
            optimizer.zero_grad()
            criterion(module(torch.from_numpy(X)[rows]), torch.from_numpy(y)[rows]).backward()
            optimizer.step()
    clf = SmoothedClassifier.from_pretrained(module, range(10), noise, random_state=0)
    assert clf.score(X[500:], y[500:]) > 0.75
    clone(clf)


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
