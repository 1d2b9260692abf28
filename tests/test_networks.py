"""Networks from training to certificates: what training and votes see, what is kept, and what is refused."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert import NoiseAugmentation, SmoothedClassifier, SplitNoise, UniformNoise
from smoothcert.models.torch import TorchVoter
from smoothcert.training.torch_layers import make_net
from smoothcert.training.torch_noise import InputScaling


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return X[:1000], X[1000:1100], y[:1000], y[1000:1100]


class SmallNet(nn.Sequential):
    """A convolution with batch norm and dropout, whose modes of training and evaluation differ."""

    def __init__(self, channels=8):
        super().__init__(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(channels * 64, 10),
        )


class Recorder(nn.Module):
    """A linear network that keeps the batches it has seen."""

    def __init__(self, n_features=64, n_classes=10):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)
        self.seen = []

    def forward(self, X):
        self.seen.append((self.training, X.detach().clone()))
        return self.linear(X.flatten(1))


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


def train(X, y, module=None, noise=None, **params):
    torch.manual_seed(0)
    net = make_net(module or nn.Sequential(*SmallNet()), max_epochs=params.pop("max_epochs", 3), lr=0.05)
    clf = SmoothedClassifier(net, noise or SplitNoise(lam=0.5), **({"n_samples": 200, "random_state": 0} | params))
    return clf.fit(X, y)


@pytest.fixture(scope="module")
def fitted(digits):
    X, _, y, _ = digits
    return train(X, y, max_epochs=8)


def test_images_are_certified(fitted, digits):
    _, X_test, _, y_test = digits
    labels, radii = fitted.certify(X_test)
    assert (labels == y_test).mean() > 0.8
    assert (radii > 0.05).mean() > 0.6
    np.testing.assert_array_equal(labels, fitted.predict(X_test))


def test_a_bare_module_gets_the_papers_recipe(digits):
    X, _, y, _ = digits
    module = SmallNet()
    before = pickle.dumps(module.state_dict())
    net = make_net(module)
    assert (net.lr, net.batch_size, net.optimizer) == (0.1, 64, torch.optim.SGD)
    optimizer = {name: value for name, value in net.get_params().items() if name.startswith("optimizer__")}
    assert optimizer == {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 1e-4}
    fitted = SmoothedClassifier(module, UniformNoise(0.2), n_samples=50).fit(X[:64], y[:64])
    assert fitted.estimator_.history[-1]["epoch"] == 40
    assert pickle.dumps(module.state_dict()) == before


def test_every_batch_has_fresh_noise_and_is_standardized(digits):
    X = digits[0]
    clf = train(np.repeat(X[:1], 128, axis=0), np.arange(128) % 10, module=Recorder(), max_epochs=2)
    base = clf.estimator_.module_
    batches = torch.cat([batch for training, batch in base.seen if training])
    assert len(batches) == 256
    assert len(batches.flatten(1).unique(dim=0)) == 256
    assert batches.mean().abs() < 0.05
    assert batches.std() == pytest.approx(1, abs=0.05)


def test_standardization_is_per_channel_or_feature(digits):
    rng = np.random.default_rng(0)
    X = (rng.random((500, 3, 4, 4)) * np.array([1, 0.2, 0.01]).reshape(3, 1, 1)).astype(np.float32)
    y = np.arange(500) % 2
    clf = train(X, y, module=Recorder(48, 2), noise=UniformNoise(1e-3))
    scaling = InputScaling.of(clf.estimator_.module_)
    np.testing.assert_allclose(scaling.center.flatten(), [0.5, 0.1, 0.005], rtol=0.05)
    np.testing.assert_allclose(scaling.scale.flatten(), np.array([1, 0.2, 0.01]) / 12**0.5, rtol=0.05)
    table = train(X.reshape(500, 48), y, module=Recorder(48, 2), noise=UniformNoise(1e-3))
    assert InputScaling.of(table.estimator_.module_).center.shape == (48,)
    raw = InputScaling.of(
        train(X, y, module=Recorder(48, 2), training=NoiseAugmentation(standardize=False)).estimator_.module_
    )
    assert (raw.center, raw.scale) == (0, 1)


def test_certification_sees_what_training_saw(fitted, digits):
    """Evaluation adds no noise of its own and standardizes the same way."""
    module = fitted.estimator_.module_
    assert not module.training
    X = torch.from_numpy(digits[1])
    with torch.inference_mode():
        scaling = InputScaling.of(module)
        torch.testing.assert_close(module(X), module.forward((X - scaling.center) / scaling.scale))


def test_without_noise_in_training_the_network_sees_clean_data(digits):
    X, _, y, _ = digits
    clf = train(X, y, module=Recorder(), training=None, max_epochs=1)
    batches = torch.cat([batch for training, batch in clf.estimator_.module_.seen if training])
    assert len(batches) == len(X)
    assert set(batches.unique().tolist()) <= set(np.unique(X).tolist())


def test_training_is_reproducible_and_leaves_the_global_generators_alone(digits):
    X, _, y, _ = digits
    torch.manual_seed(5)
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.mtrand._rand.get_state()
    weights = [train_with_class(X, y).estimator_.module_.state_dict() for _ in range(2)]
    for a, b in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], numpy_state[1])


def train_with_class(X, y):
    """Train a net whose module is a class: its weights are drawn in fit."""
    net = make_net(SmallNet, max_epochs=1)
    return SmoothedClassifier(net, UniformNoise(0.2), n_samples=50, random_state=0).fit(X, y)


def test_a_net_keeps_the_users_settings(digits):
    X, X_test, y, _ = digits
    net = NeuralNetClassifier(
        SmallNet,
        module__channels=4,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.002,
        batch_size=50,
        max_epochs=2,
        verbose=0,
    )
    clf = SmoothedClassifier(net, UniformNoise(0.2), n_samples=50, random_state=0).fit(X, y)
    assert isinstance(clf.estimator_.optimizer_, torch.optim.Adam)
    assert clf.estimator_.module_[0].out_channels == 4
    assert "valid_loss" in clf.estimator_.history[-1]
    assert net.module is SmallNet
    assert not hasattr(net, "module_")
    assert clf.predict(X_test).shape == (100,)
    tuned = clone(clf).set_params(estimator__module__channels=2).fit(X, y)
    assert tuned.estimator_.module_[0].out_channels == 2


@pytest.mark.parametrize(
    "names", [[f"digit {i}" for i in range(10)], [i * 10 - 50 for i in range(10)], np.arange(10.0)]
)
def test_labels_come_back_as_they_went_in(digits, names):
    X, X_test, y, y_test = digits
    labels = np.asarray(names)
    clf = train(X, labels[y], noise=UniformNoise(0.1), max_epochs=2)
    found = clf.certify(X_test).labels
    assert found.dtype == labels.dtype
    assert (found == labels[y_test]).mean() > 0.7


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_and_batches_do_not_matter(fitted, digits, backend):
    X_test = digits[1][:8]
    whole = fitted.certify(X_test)
    copy = pickle.loads(pickle.dumps(fitted)).set_params(n_jobs=2, batch_size=100)
    with joblib.parallel_config(backend=backend):
        assert_same(copy.certify(X_test), whole)
    assert_same(fitted.certify(X_test[::-1]), whole[::-1])
    assert_same(fitted.certify(X_test[3:4]), whole[3])


def test_votes_do_not_depend_on_the_batch_even_where_logits_nearly_tie():
    """Last bits of logits depend on the batch size; rows within rounding of a tie must not."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 2)).eval()
    with torch.no_grad():
        net[2].weight[1] = net[2].weight[0] * (1 + 1e-7 * torch.randn(256))
        net[2].bias[1] = net[2].bias[0]
    X = torch.rand(512, 784)

    def in_batches(size, vote):
        with torch.inference_mode():
            return np.concatenate([np.asarray(vote(X[i : i + size])) for i in range(0, len(X), size)])

    voter = TorchVoter(net, 2)
    sizes = (1, 7, 512)
    plain = [in_batches(size, lambda rows: net(rows).argmax(dim=1)) for size in sizes]
    votes = [in_batches(size, lambda rows: voter(rows.numpy())) for size in sizes]
    assert any((plain[0] != other).any() for other in plain[1:])
    assert all((votes[0] == other).all() for other in votes[1:])


def test_networks_that_change_their_input_vote_as_others_do():
    """The first layer may work in place; near ties must be asked about the input as it was."""

    class Halved(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            self.inplace = inplace

        def forward(self, X):
            X = X.mul_(4).sub_(2) if self.inplace else X * 4 - 2
            mean = X.mean(dim=1)
            return 1e-4 * torch.stack([mean, -mean], dim=1)

    batch = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    votes = [TorchVoter(Halved(inplace), 2)(batch.copy()) for inplace in (False, True)]
    np.testing.assert_array_equal(*votes)


def test_batch_norm_without_statistics_is_refused():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ValueError, match=r"BatchNorm1d without running statistics: .* Use track_running_stats=True"):
        SmoothedClassifier.from_pretrained(module, range(2))


class Signed(nn.Module):
    """A network that keeps what decides its answers out of its state_dict."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.register_buffer("offset", torch.tensor([float(sign)]), persistent=False)

    def forward(self, X):
        return torch.stack([self.sign * X[:, 0], self.offset * X[:, 0] * 0], dim=1)


def test_votes_of_a_network_with_another_attribute_are_refused():
    X = np.full((2, 3), 0.7)
    plus, minus = (SmoothedClassifier.from_pretrained(Signed(s), [0, 1], n_samples=50, random_state=0) for s in (1, -1))
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        minus.certify(X, votes=plus.count_votes(X))
    hidden = Signed(1)
    hidden.offset *= -1
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        SmoothedClassifier.from_pretrained(hidden, [0, 1], random_state=0).certify(X, votes=plus.count_votes(X))


def test_votes_of_a_saved_network_are_taken(fitted, digits):
    X_test = digits[1][:3]
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_same(loaded.certify(X_test, votes=fitted.count_votes(X_test)), fitted.certify(X_test))


def test_pretrained_network_is_used_as_it_is(fitted, digits):
    X_test = digits[1][:20]
    module = fitted.estimator_.module_
    names = np.array([f"class {i}" for i in range(10)])
    clf = SmoothedClassifier.from_pretrained(module, names, SplitNoise(lam=0.5), n_samples=200, random_state=0)
    assert clf.estimator_.estimator is module
    labels, radii = clf.certify(X_test)
    reference = fitted.certify(X_test)
    np.testing.assert_array_equal(labels, names[reference.labels])
    np.testing.assert_array_equal(radii, reference.radii)
    net = SmoothedClassifier.from_pretrained(fitted.estimator_, range(10), SplitNoise(lam=0.5), random_state=0)
    np.testing.assert_array_equal(net.predict(X_test), reference.labels)


def test_frozen_network_takes_the_classes_of_y(fitted, digits):
    X, X_test, y, _ = digits
    clf = SmoothedClassifier(FrozenEstimator(fitted.estimator_), SplitNoise(lam=0.5), n_samples=200, random_state=0)
    names = np.array(list("abcdefghij"))
    found = clf.fit(X, names[y]).certify(X_test[:20])
    np.testing.assert_array_equal(found.labels, names[fitted.certify(X_test[:20]).labels])


def test_precision_is_the_networks(fitted, digits):
    X_test = digits[1][:3]
    double = clone_module(fitted).double()
    clf = SmoothedClassifier.from_pretrained(double, range(10), SplitNoise(lam=0.5), n_samples=100, random_state=0)
    np.testing.assert_array_equal(clf.predict(X_test), fitted.predict(X_test))


def clone_module(clf):
    """Copy the trained network of a classifier."""
    return pickle.loads(pickle.dumps(clf.estimator_.module_))


def test_net_that_was_never_fitted_is_refused(digits):
    net = make_net(SmallNet)
    with pytest.raises(NotFittedError):
        SmoothedClassifier.from_pretrained(net, range(10))
    with pytest.raises(NotFittedError):
        SmoothedClassifier(FrozenEstimator(net)).fit(digits[0], digits[2])


def test_mode_of_a_pretrained_network_is_left_as_found(digits):
    X_test = digits[1][:5]
    module = SmallNet().train()
    module[1].eval()
    modes = [part.training for part in module.modules()]
    clf = SmoothedClassifier.from_pretrained(module, range(10), n_samples=100, random_state=0)
    first = clf.certify(X_test)
    assert [part.training for part in module.modules()] == modes
    assert_same(clf.certify(X_test), first)  # dropout would have made them differ


def test_votes_of_a_network_whose_weights_changed_are_refused(digits):
    X_test = digits[1][:3]
    module = SmallNet().eval()
    clf = SmoothedClassifier.from_pretrained(module, range(10), n_samples=100, random_state=0)
    votes = clf.count_votes(X_test)
    clf.certify(X_test, votes=votes)
    with torch.no_grad():
        module[5].bias[0] += 1e-3
    with pytest.raises(ValueError, match="votes were drawn with a different model"):
        clf.certify(X_test, votes=votes)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X: torch.zeros(len(X), 3), r"one logit per class, shape \(\d+, 10\), but returned shape \(\d+, 3\)"),
        (lambda X: torch.zeros(len(X) - 1, 10), r"but returned shape \(\d+, 10\)"),
        (lambda X: torch.zeros(len(X)), r"but returned shape \(\d+,\)"),
        (lambda X: torch.full((len(X), 10), torch.nan), "returned NaN logits"),
        (lambda X: {"logits": torch.zeros(len(X), 9)}, r"but returned shape \(\d+, 9\)"),
        (lambda X: dict.fromkeys("ab", torch.zeros(len(X), 10)), "returned a dict with the keys"),
    ],
)
def test_networks_that_answer_wrongly(digits, answer, message):
    class Wrong(nn.Module):
        def forward(self, X):
            return answer(X)

    clf = SmoothedClassifier.from_pretrained(Wrong(), range(10))
    with pytest.raises(ValueError, match=f"base model Wrong .*{message}.*Nothing was certified"):
        clf.certify(digits[1][:1])


def test_width_that_does_not_fit_y_is_noticed_before_training(digits):
    X, _, y, _ = digits
    with pytest.raises(ValueError, match=r"one logit per class, shape \(2, 10\), but returned shape \(2, 12\)"):
        train(X, y, module=Recorder(64, 12))


def test_shape_that_the_network_does_not_take(fitted, digits):
    X, X_test, y, _ = digits
    message = r"base model SmallNet|base model Sequential failed on a batch of shape .* inputs of shape \(8, 8\)"
    clf = SmoothedClassifier.from_pretrained(fitted.estimator_.module_, range(10))
    with pytest.raises(ValueError, match=message):
        clf.certify(X_test[:1, 0])
    with pytest.raises(ValueError, match=r"failed on a batch of shape .* Give X the shape that the network takes"):
        train(X[:, 0], y, module=SmallNet())


def test_another_optimizer_comes_without_the_settings_of_sgd(digits):
    X, _, y, _ = digits
    net = make_net(SmallNet, optimizer=torch.optim.Adam, max_epochs=1)
    assert (
        SmoothedClassifier(net, random_state=0).fit(X[:100], y[:100]).estimator_.optimizer_.__class__
        is torch.optim.Adam
    )


def test_criterion_for_probabilities_on_logits_is_noticed(digits):
    X, _, y, _ = digits
    net = NeuralNetClassifier(SmallNet, max_epochs=1, verbose=0)
    warned = pytest.warns(UserWarning, match=r"criterion is NLLLoss, .* use criterion=torch.nn.CrossEntropyLoss")
    with warned, pytest.raises(ValueError, match="NaN"):
        SmoothedClassifier(net, random_state=0).fit(X[:100], y[:100])


def test_shape_of_inputs_must_stay(fitted, digits):
    X_test = digits[1]
    with pytest.raises(ValueError, match=r"X must have shape \(n, 1, 8, 8\), as in fit, got shape \(100, 1, 4, 16\)"):
        fitted.certify(X_test.reshape(-1, 1, 4, 16))


def batch_normalized():
    return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(batch_normalized()),
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 3)), {nn.Linear}),
    ],
    ids=["scripted", "quantized"],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_look_at_the_rest_of_the_batch_are_refused(make):
    with pytest.raises(ValueError, match=r"batch.* so nothing can be certified"):
        SmoothedClassifier.from_pretrained(make(), range(3))


@pytest.mark.filterwarnings("ignore")
def test_scripted_and_recurrent_models_vote():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 3, batch_first=True)

        def forward(self, rows):
            return self.lstm(rows[:, None])[0][:, 0]

    X = np.random.default_rng(0).random((3, 6))
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).eval()
    smoothed = [
        SmoothedClassifier.from_pretrained(module, range(3), n_samples=200, random_state=0)
        for module in (plain, torch.jit.script(plain), Last())
    ]
    expected, scripted, recurrent = (clf.count_votes(X) for clf in smoothed)
    np.testing.assert_array_equal(scripted.estimation, expected.estimation)
    assert smoothed[2].certify(X, votes=recurrent).labels.shape == (3,)
