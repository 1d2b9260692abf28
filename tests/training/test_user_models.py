"""The user's net, data and names: nothing that training adds may get in their way, and nothing is ignored silently."""

import copy
import os
import pickle
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.validation import has_fit_parameter
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, Freezer, TrainEndCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from smoothcert import NoiseAugmentation, SmoothedClassifier, SplitNoise, TorchInference, UniformNoise
from smoothcert.training import make_net
from smoothcert.training.torch_noise import InputScaling


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:600] / 16).astype(np.float32), y[:600]


class Mlp(nn.Sequential):
    def __init__(self, width=32, n_features=64):
        super().__init__(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, 10))


def net(module=None, **params):
    settings = {"optimizer": torch.optim.Adam, "lr": 0.01, "max_epochs": 3}
    return make_net(Mlp if module is None else module, **(settings | params))


def smooth(estimator, noise=None, **params):
    return SmoothedClassifier(estimator, noise or UniformNoise(0.5), **({"random_state": 0, "n_samples": 50} | params))


# Names


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_parameters_keep_their_names(digits, training):
    torch.manual_seed(0)
    module = Mlp()
    groups = [("0.*", {"lr": 0.0}), ("2.bias", {"weight_decay": 0.5})]
    user = net(module, optimizer__param_groups=groups, callbacks=[("freeze", Freezer("2.weight"))])
    fitted = smooth(user, training=training).fit(*digits).estimator_
    assert type(fitted.module_) is Mlp
    state, before = fitted.module_.state_dict(), module.state_dict()
    assert list(state) == list(before)
    assert {name for name in state if torch.equal(state[name], before[name])} == {"0.weight", "0.bias", "2.weight"}
    assert [group["weight_decay"] for group in fitted.optimizer_.param_groups] == [0, 0.5, 0]
    assert [name for name, _ in fitted.callbacks] == ["freeze"]
    assert fitted.criterion is nn.CrossEntropyLoss


def test_checkpoints_are_those_of_the_users_module(digits, tmp_path):
    X, y = digits
    saved = Checkpoint(monitor=None, dirname=str(tmp_path), f_params="weights.pt", f_pickle="net.pkl")
    clf = smooth(net(callbacks=[("save", saved)]), UniformNoise(4.0)).fit(X, y)
    plain = Mlp()
    plain.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    scaling = InputScaling.of(clf.estimator_.module_)
    rows = torch.from_numpy(X)
    with torch.no_grad():
        expected = clf.estimator_.module_(rows)
        torch.testing.assert_close(plain((rows - scaling.center) / scaling.scale), expected)
        # A net that was pickled in the middle of training adds no noise of its own.
        loaded = pickle.loads((tmp_path / "net.pkl").read_bytes())
        torch.testing.assert_close(loaded.module_.eval()(rows), expected)


def test_copies_keep_the_scaling(digits):
    X, y = digits
    clf = smooth(net(), SplitNoise(3.0)).fit(X, y)
    expected = clf.certify(X[:5])
    for made in (copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(made.certify(X[:5]).radii, expected.radii)
        assert (InputScaling.of(made.estimator_.module_).scale != 1).any()
    again = smooth(clf.estimator_, UniformNoise(0.2)).fit(X, y)
    assert len(again.estimator_.module_._forward_pre_hooks) == 1
    assert len(clf.estimator_.module_._forward_hooks) == 0


def test_hooks_of_the_user_see_what_the_module_sees(digits):
    X, y = digits
    seen = []
    module = Mlp()
    module.register_forward_pre_hook(Watch(seen))
    smooth(net(module, max_epochs=1), SplitNoise(3.0)).fit(X, y)
    batches = torch.cat(seen)
    assert batches.mean().abs() < 0.1
    assert batches.std() == pytest.approx(1, abs=0.2)


class Watch:
    """A hook that keeps inputs, in a list that all of its copies share."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, module, args):
        self.seen.append(args[0].detach())

    def __deepcopy__(self, memo):
        return Watch(self.seen)


def test_callbacks_may_shape_the_module(digits):
    """As skorch's documentation has it: the module is built anew when the data are known."""

    class Shape(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            net.set_params(module__n_features=X.shape[1])

    X, y = digits
    user = net(module__n_features=7, callbacks=[("shape", Shape())], max_epochs=15)
    fitted = smooth(user, UniformNoise(0.2)).fit(X, y)
    assert fitted.estimator_.module_[0].in_features == 64
    assert InputScaling.of(fitted.estimator_.module_) is not None
    assert fitted.score(X, y) > 0.8


@pytest.mark.parametrize("training", ["augment", "stability", None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_any_precision_train(digits, dtype, training):
    X, y = digits
    torch.manual_seed(0)
    user = NeuralNetClassifier(
        Mlp().to(dtype), criterion=nn.CrossEntropyLoss, lr=0.05, max_epochs=8, verbose=0, optimizer__momentum=0.9
    )
    clf = smooth(user, UniformNoise(0.2), training=training).fit(X, y)
    assert {parameter.dtype for parameter in clf.estimator_.module_.parameters()} == {dtype}
    assert clf.score(X[:200], y[:200]) > 0.6
    assert clf.estimator_.history[-1, "valid_acc"] > 0.5


# Interrupts


def press():
    os.kill(os.getpid(), signal.SIGINT)


class Pressed(Mlp):
    """Ctrl-C is pressed while the network is asked for the 20th time."""

    calls = 0

    def forward(self, X):
        self.calls += 1
        if self.calls == 20:
            press()
        return super().forward(X)


class PressedCallback(Callback):
    def on_batch_end(self, net, **kwargs):
        press()


class Raised(Mlp):
    def forward(self, X):
        if self.training:
            raise KeyboardInterrupt
        return super().forward(X)


@pytest.mark.parametrize(
    "user",
    [net(Pressed), net(callbacks=[("press", PressedCallback())]), net(Raised)],
    ids=["forward", "callback", "raise"],
)
def test_ctrl_c_ends_fit_with_an_error(digits, user):
    clf = smooth(user)
    # A shell starts background processes with the signal ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*digits)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not hasattr(clf, "estimator_")


class StopAfterOne(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_callbacks_may_end_the_training(digits, tmp_path):
    saved = TrainEndCheckpoint(dirname=str(tmp_path))
    fitted = smooth(net(callbacks=[("stop", StopAfterOne()), ("save", saved)])).fit(*digits).estimator_
    assert len(fitted.history) == 1
    assert (tmp_path / "train_end_params.pt").exists()
    early = EarlyStopping(monitor="train_loss", patience=1, threshold=10)
    assert len(smooth(net(max_epochs=9, callbacks=[("stop", early)])).fit(*digits).estimator_.history) == 2


# Datasets


class Flipped(Dataset):
    """Rows of which each epoch sees a random half set to 0, with labels of any type."""

    def __init__(self, X, y):
        self.X, self.y, self.given = X, y, []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        row = self.X[i] * (torch.rand(64) < 0.5).numpy()
        self.given.append(row)
        return row, self.y[i]


def test_transforms_of_a_dataset_run_in_each_epoch_anew(digits):
    X, y = digits
    names = np.array([f"digit {i}" for i in y])
    data = Flipped(X, names)
    clf = smooth(net(max_epochs=20), UniformNoise(0.2)).fit(data)
    # The estimator is cloned, the data are not.
    assert len(data.given) == 21 * len(X)
    assert len(np.unique(np.stack(data.given), axis=0)) > 20 * len(X)
    assert clf.classes_.tolist() == [f"digit {i}" for i in range(10)]
    assert clf.score(X, names) > 0.8


def test_a_dataset_trains_as_its_arrays_do(digits):
    X, y = digits
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    a, b = (smooth(net()).fit(*given).estimator_.module_.state_dict() for given in ((X, y), (data,)))
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name])
    by_split = NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    assert "valid_acc" in smooth(by_split).fit(data).estimator_.history[-1]
    tree = smooth(LogisticRegression(max_iter=200)).fit(DataLoader(data).dataset)
    np.testing.assert_array_equal(
        tree.predict(X[:20]), smooth(LogisticRegression(max_iter=200)).fit(X, y).predict(X[:20])
    )


class Drawn(Dataset):
    """Draws a pair at random, whatever item it is asked for, as datasets of samples and of mixtures do."""

    def __init__(self, X, y):
        self.X, self.y, self.rng = X, y, np.random.default_rng(0)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        i = self.rng.integers(len(self.X))
        return self.X[i], self.y[i]


def test_labels_come_with_their_inputs(digits):
    X, y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    clf = smooth(net(max_epochs=15), UniformNoise(0.2)).fit(Drawn(X, names[y]))
    assert clf.score(X, names[y]) > 0.8
    assert clf.estimator_.history[-1, "train_noisy_accuracy"] > 0.8
    with pytest.raises(
        ValueError, match=r"Item \d+ of the Dataset had the label .* to which sample_weight does not belong"
    ):
        smooth(net()).fit(Drawn(X, names[y]), sample_weight=np.ones(600))


def test_labels_that_come_later_are_refused(digits):
    X, y = digits

    class Later(Flipped):
        def __getitem__(self, i):
            return self.X[i], self.y[i] if len(self.given) < 600 and not self.given.append(i) else 99

    with pytest.raises(
        ValueError, match=r"Item \d+ of the Dataset had the label .* and now has 99, which is a new class"
    ):
        smooth(net()).fit(Later(X, y))


def test_labels_of_a_dataset_may_be_columns(digits):
    X, y = digits
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y)[:, None])
    a, b = (smooth(net()).fit(*given).estimator_.module_.state_dict() for given in ((X, y), (data,)))
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name])


class OfItems(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Packed(Mlp):
    """A network whose logits are found by name alone."""

    def forward(self, X):
        logits = super().forward(X)
        return {"hidden": -logits, "scores": logits}


def scores(answer):
    return answer["scores"]


@pytest.mark.parametrize("training", ["augment", "stability"])
def test_the_output_hook_is_used_in_training(digits, training):
    X, y = digits
    inference = TorchInference(output=scores)
    plain, packed = (smooth(net(kind, max_epochs=2), training=training) for kind in (Mlp, Packed))
    with pytest.raises(ValueError, match=r"returned a dict with the keys \['hidden', 'scores'\]"):
        packed.fit(X, y)
    plain.fit(X, y)
    packed.set_params(inference=inference).fit(X, y)
    for name, tensor in plain.estimator_.module_.state_dict().items():
        torch.testing.assert_close(packed.estimator_.module_.state_dict()[name], tensor)
    assert "train_noisy_accuracy" in packed.estimator_.history[-1]
    np.testing.assert_array_equal(packed.predict(X[:20]), plain.predict(X[:20]))
    assert set(packed.estimator_.module_(torch.from_numpy(X[:2]))) == {"hidden", "scores"}


def test_a_loss_of_probabilities_gets_them_in_spite_of_a_hook_for_votes(digits):
    class Probabilities(Mlp):
        def forward(self, X):
            return super().forward(X).softmax(dim=1)

    X, y = digits
    base = net(Probabilities, criterion=nn.NLLLoss, max_epochs=2)
    plain, hooked = (smooth(base, inference=hook).fit(X, y) for hook in (None, TorchInference(output=torch.log)))
    for name, tensor in plain.estimator_.module_.state_dict().items():
        torch.testing.assert_close(hooked.estimator_.module_.state_dict()[name], tensor)


def test_what_is_no_dataset_names_the_remedy(digits):
    X, y = digits
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    for given, message in (
        ((DataLoader(data),), r"got a DataLoader\. .*loader\.dataset"),
        ((iter(DataLoader(data)),), r"loader\.dataset"),
        ((((x, label) for x, label in data),), r"got a generator\. .*loader\.dataset"),
        ((data, y), r"y must be None where X is a torch Dataset"),
        ((X,), r"y should be a 1d array of labels, got None"),
        ((TensorDataset(torch.from_numpy(X)),), r"Dataset of pairs \(input, label\)"),
        ((OfItems({"pixels": X[0], "label": 1}),), r"a dict with the keys \['pixels', 'label'\]\. Wrap .* are pairs"),
        ((OfItems(X[0], X[1]),), r"Dataset of pairs .* an item is a ndarray\. Wrap"),
        ((OfItems((X[0], np.ones(10))),), r"Dataset of pairs"),
        ((OfItems((X[0], 1), (X[0, :9], 0)),), r"Dataset of pairs .* inputs of one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            smooth(net()).fit(*given)
    outside = TensorDataset(torch.from_numpy(X * 255), torch.from_numpy(y))
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        smooth(net()).fit(outside)


# Sample weights


@pytest.mark.parametrize("training", ["augment", "stability", None])
def test_sample_weight_weights_the_loss(digits, training):
    X, y = digits
    user = net(optimizer=torch.optim.SGD, lr=0.1)
    clf = smooth(user, training=training)
    plain, ones, twos = (clone(clf).fit(X, y, sample_weight=w) for w in (None, np.ones(600), np.full(600, 2.0)))
    for a, b, c in zip(*(part.estimator_.module_.parameters() for part in (plain, ones, twos)), strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
    even = clone(clf).set_params(estimator__max_epochs=15).fit(X, y, sample_weight=(y % 2 == 0).astype(float))
    assert set(even.predict(X)) == {0, 2, 4, 6, 8}
    assert even.estimator_.criterion_.reduction == "mean"
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    same = clone(clf).set_params(estimator__max_epochs=15).fit(data, sample_weight=(y % 2 == 0).astype(float))
    for a, b in zip(even.estimator_.module_.parameters(), same.estimator_.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_weighted_loss_is_the_written_one(digits):
    X, y = digits
    weights = np.random.default_rng(0).random(600).astype(np.float32)
    torch.manual_seed(0)
    module = Mlp()
    user = make_net(module, optimizer=torch.optim.SGD, lr=0.5, max_epochs=1, batch_size=600)
    found = smooth(user, training=None).fit(X, y, sample_weight=weights).estimator_.module_
    losses = nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y), reduction="none")
    loss = (losses * torch.from_numpy(weights)).sum() / weights.sum()
    gradient = torch.autograd.grad(loss, module[0].weight)[0]
    torch.testing.assert_close(found[0].weight, module[0].weight - 0.5 * gradient)


def test_bad_sample_weights(digits):
    X, y = digits
    for weights, message in ((np.ones(3), r"sample_weight"), (-np.ones(600), "[Nn]egative values")):
        with pytest.raises(ValueError, match=message):
            smooth(net()).fit(X, y, sample_weight=weights)

    class OwnLoss(nn.Module):
        def forward(self, logits, target):
            return nn.functional.cross_entropy(logits, target)

    with pytest.raises(ValueError, match="sample_weight needs a criterion whose reduction"):
        smooth(net(criterion=OwnLoss)).fit(X, y, sample_weight=np.ones(600))


def test_meta_estimators_see_sample_weight(digits):
    X, y = digits
    base = smooth(GaussianNB(), training=NoiseAugmentation(2), n_selection=8)
    assert has_fit_parameter(base, "sample_weight")
    assert AdaBoostClassifier(base, n_estimators=2).fit(X, y).score(X, y) > 0.3


@pytest.mark.parametrize("framed", [False, True])
def test_sample_weight_reaches_the_last_step_of_a_pipeline(digits, framed):
    X, y = digits
    given = pd.DataFrame(X, columns=[f"f{i}" for i in range(64)]) if framed else X
    base = make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), GaussianNB()))
    clf = smooth(base, training=NoiseAugmentation(2)).fit(given, y, sample_weight=list((y < 2) + 1e-9))
    assert (np.bincount(clf.predict(given), minlength=10)[:2].sum()) > 500


# Labels


class IndicesOnly(ClassifierMixin, BaseEstimator):
    """Takes class indices alone, as XGBoost does."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if not np.array_equal(self.classes_, np.arange(len(self.classes_))):
            raise ValueError(f"Invalid classes: {self.classes_}")
        self.model_ = GaussianNB().fit(X, y)
        return self

    def predict(self, X):
        return self.model_.predict(X)


@pytest.mark.parametrize("names", [[f"digit {i}" for i in range(10)][::-1], [i * 10 - 50 for i in range(10)]])
def test_labels_of_any_type_for_any_base_model(digits, names):
    X, y = digits
    labels = np.asarray(names)[y]
    clf = smooth(IndicesOnly(), training=NoiseAugmentation(2)).fit(X, labels)
    expected = smooth(GaussianNB(), training=NoiseAugmentation(2)).fit(X, labels)
    np.testing.assert_array_equal(clf.predict(X[:50]), expected.predict(X[:50]))
    assert clf.score(X[:50], labels[:50]) > 0.6
    assert pickle.loads(pickle.dumps(clf)).score(X[:50], labels[:50]) > 0.6


def test_errors_of_the_base_model_arrive_as_they_are(digits):
    X, y = digits
    with pytest.raises(ValueError, match="The 'C' parameter"):
        smooth(LogisticRegression(C=-1)).fit(X, np.array(list("abcdefghij"))[y])
