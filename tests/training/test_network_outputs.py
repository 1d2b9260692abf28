"""Networks that return more than logits, or probabilities: training and votes read their answers in the same way."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from smoothcert import SmoothedClassifier, TorchInference, UniformNoise
from smoothcert.models.adapt import make_voter
from smoothcert.training import make_net
from smoothcert.weights import save_weights

RNG = np.random.default_rng(0)
X = RNG.random((200, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 1).astype(int)


class Packed(nn.Sequential):
    """A network that packs its logits, and what an auxiliary head says, into an answer of any kind."""

    def __init__(self, pack, n_outputs=2):
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_outputs))
        self.pack = pack

    def forward(self, rows):
        logits = super().forward(rows)
        return self.pack(logits, 0 * logits)


def plain(logits, auxiliary):
    return logits


def settings(**params):
    return {"optimizer": torch.optim.Adam, "lr": 0.05, "max_epochs": 3, "train_split": None, "verbose": 0} | params


def smooth(net, **params):
    return SmoothedClassifier(net, UniformNoise(0.2), **({"random_state": 0, "n_samples": 100} | params))


def weights(clf):
    return torch.cat([value.flatten() for value in clf.estimator_.module_.state_dict().values()])


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits, auxiliary: (logits, auxiliary),
        lambda logits, auxiliary: [logits, auxiliary],
        lambda logits, auxiliary: {"auxiliary": auxiliary, "logits": logits},
        lambda logits, auxiliary: {"out": logits},
        lambda logits, auxiliary: SimpleNamespace(auxiliary=auxiliary, logits=logits),
    ],
)
@pytest.mark.parametrize("training", ["augment", "stability"])
def test_training_finds_the_logits_that_vote(pack, training):
    nets = [make_net(Packed(each), **settings()) for each in (plain, pack)]
    expected, found = (smooth(net, training=training).fit(X, Y) for net in nets)
    assert torch.equal(weights(found), weights(expected))
    assert (
        found.estimator_.history[-1, "train_noisy_accuracy"] == expected.estimator_.history[-1, "train_noisy_accuracy"]
    )
    np.testing.assert_array_equal(found.predict(X[:50]), expected.predict(X[:50]))


def test_auxiliary_heads_of_training_mode_alone():
    """As torchvision's Inception and GoogLeNet have them."""

    class Heads(Packed):
        def forward(self, rows):
            answer = super().forward(rows)
            return answer if self.training else answer[0]

    heads = make_net(Heads(lambda logits, auxiliary: (logits, auxiliary)), **settings())
    assert torch.equal(
        weights(smooth(heads).fit(X, Y)), weights(smooth(make_net(Packed(plain), **settings())).fit(X, Y))
    )


@pytest.mark.parametrize("wrapped", [False, True], ids=["criterion", "get_loss"])
def test_a_loss_of_the_users_own_gets_the_whole_answer(wrapped):
    seen = []

    def loss(answer, target):
        seen.append(sorted(answer))
        return nn.functional.cross_entropy(answer["logits"], target)

    class Loss(nn.Module):
        def forward(self, answer, target):
            return loss(answer, target)

    class Net(NeuralNetClassifier):
        def get_loss(self, answer, target, **mode):
            return loss(answer, target)

    module = Packed(lambda logits, auxiliary: {"auxiliary": auxiliary, "logits": logits})
    kind, criterion = (Net, nn.CrossEntropyLoss) if wrapped else (NeuralNetClassifier, Loss)
    found = smooth(kind(module, criterion=criterion, **settings())).fit(X, Y)
    assert seen
    assert all(keys == ["auxiliary", "logits"] for keys in seen)
    assert "train_noisy_accuracy" not in found.estimator_.history[-1]
    expected = NeuralNetClassifier(Packed(plain), criterion=nn.CrossEntropyLoss, **settings())
    assert torch.equal(weights(found), weights(smooth(expected).fit(X, Y)))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            make_net(Packed(lambda logits, auxiliary: {"a": logits, "b": auxiliary}), **settings()),
            r"returned a dict with the keys \['a', 'b'\].* In training, a loss of logits uses it too, and",
        ),
        (
            make_net(Packed(lambda logits, auxiliary: None), **settings()),
            "must return a tensor of logits to be trained, but returned a NoneType.* set TorchInference",
        ),
        (
            NeuralNetClassifier(Packed(plain), criterion=nn.BCELoss, **settings()),
            r"The loss BCELoss failed on what it got from the base model, a Tensor: .*set TorchInference",
        ),
    ],
)
def test_what_cannot_be_trained_names_the_remedy(net, message):
    with pytest.raises(ValueError, match=message):
        smooth(net).fit(X, Y)


# Binary networks


def binary(pack=plain, criterion=nn.BCEWithLogitsLoss, **params):
    return NeuralNetBinaryClassifier(Packed(pack, 1), criterion=criterion, **settings(**params))


def sigmoid(logits, auxiliary):
    return logits.sigmoid()


@pytest.mark.parametrize(
    ("labels", "column"),
    [(Y, True), (Y.astype(float), False), (Y == 1, True), (np.array(["no", "yes"])[Y], False)],
    ids=["int", "float", "bool", "str"],
)
def test_networks_that_end_in_a_sigmoid(labels, column):
    def pack(logits, auxiliary):
        return logits.sigmoid() if column else logits[:, 0].sigmoid()

    probabilities = smooth(binary(pack, nn.BCELoss, max_epochs=12)).fit(X, labels)
    logits = smooth(binary(max_epochs=12)).fit(X, labels)
    torch.testing.assert_close(weights(probabilities), weights(logits), rtol=1e-3, atol=1e-3)
    assert probabilities.score(X, labels) > 0.85
    assert probabilities.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(probabilities.predict(X[:50]), logits.predict(X[:50]))


@pytest.mark.parametrize("net", [binary(), binary(sigmoid, nn.BCELoss)], ids=["logits", "probabilities"])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.7, 1.0])
def test_votes_follow_the_threshold_of_the_net(net, threshold):
    fitted = spread(net.initialize()).set_params(threshold=threshold)
    expected = fitted.predict(X)
    assert (0 < expected.mean() < 1) == (0 < threshold < 1)
    voter = make_voter(fitted, np.array([0, 1]))
    np.testing.assert_array_equal(voter(X), expected)
    np.testing.assert_array_equal(np.concatenate([voter(row[None]) for row in X]), expected)
    for copied in (copy.deepcopy(voter), pickle.loads(pickle.dumps(voter)), *voter.for_threads()):
        np.testing.assert_array_equal(copied(X), expected)
    assert voter.content() != make_voter(net.set_params(threshold=0.3), np.array([0, 1])).content()


def spread(net):
    """Let the logits of a net lie on both sides of 0."""
    with torch.no_grad():
        net.module_[2].weight *= 30
        pack, net.module_.pack = net.module_.pack, plain
        net.module_[2].bias -= net.module_(torch.from_numpy(X)).mean(dim=0)
        net.module_.pack = pack
    return net


def flipped(logits):
    return torch.stack([logits, -logits], dim=1).softmax(dim=1)


def test_votes_follow_the_nonlinearity_of_the_net():
    several = NeuralNetClassifier(Packed(plain), predict_nonlinearity=torch.neg, **settings())
    for net in (binary(predict_nonlinearity=flipped, threshold=0.4), several):
        spread(net.initialize())
        np.testing.assert_array_equal(make_voter(net, np.array([0, 1]))(X), net.predict(X))
        assert 0 < net.predict(X).mean() < 1


def test_a_threshold_is_not_lost_in_a_file(tmp_path):
    clf = smooth(binary(threshold=0.7)).fit(X, Y)
    with pytest.raises(ValueError, match=r"threshold or predict_nonlinearity of its own.* Use joblib"):
        save_weights(clf, tmp_path / "weights.safetensors")


def test_a_hook_finds_the_logits_of_a_binary_net_and_the_threshold_stays():
    packed = binary(lambda logits, auxiliary: {"a": auxiliary, "b": logits}, threshold=0.7)
    found = smooth(packed, inference=TorchInference(output=second)).fit(X, Y)
    expected = smooth(binary(threshold=0.7)).fit(X, Y)
    assert torch.equal(weights(found), weights(expected))
    np.testing.assert_array_equal(found.predict(X[:50]), expected.predict(X[:50]))


def second(answer):
    return answer["b"]


def test_nets_that_predict_no_labels_are_not_scored():
    net = NeuralNet(Packed(plain), criterion=nn.CrossEntropyLoss, **settings())
    found = smooth(net).fit(X, Y)
    assert "train_noisy_accuracy" not in found.estimator_.history[-1]
    expected = smooth(NeuralNetClassifier(Packed(plain), criterion=nn.CrossEntropyLoss, **settings())).fit(X, Y)
    assert torch.equal(weights(found), weights(expected))


def test_cross_entropy_on_probabilities_warns():
    probabilities = Packed(lambda logits, auxiliary: logits.softmax(dim=1))
    with pytest.warns(UserWarning, match="CrossEntropyLoss wants logits, but the base model Packed returned prob"):
        smooth(make_net(probabilities, max_epochs=1)).fit(X, Y)
    for net in (make_net(Packed(plain), max_epochs=1), NeuralNetClassifier(probabilities, **settings(max_epochs=1))):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="CrossEntropyLoss wants logits")
            smooth(net).fit(X, Y)
