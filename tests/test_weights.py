"""Classifiers that are saved certify as before, here, in another process, and without the device they were on."""

import copy
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import skops.io
import torch
from safetensors import safe_open
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch import NeuralNetBinaryClassifier
from torch import nn

import smoothcert.pipeline
from smoothcert import (
    GreedyRadius,
    NoiseAugmentation,
    SmoothedClassifier,
    SmoothedConformalClassifier,
    SmoothedRegressor,
    StabilityTraining,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert import weights as persistence
from smoothcert.models import portable
from smoothcert.training import NoisyModule, make_net

from .processes import run_python

PARAMS = {"n_samples": 60, "n_selection": 20, "random_state": 0}


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return X, y


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:300] / 16).astype(np.float32), np.array([f"digit {i}" for i in y[:300]])


def network():
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


SAVED = """
import sys, joblib, numpy as np
for clf, X, radii in joblib.load(sys.argv[1]):
    assert np.array_equal(clf.certify(X).radii, radii, equal_nan=True)
"""


def test_joblib_files_are_self_contained(cancer, digits, tmp_path):
    saved = []
    for (X, y), clf in (
        (cancer, SmoothedClassifier(RandomForestClassifier(3), bounds="minmax", **PARAMS)),
        (digits, SmoothedClassifier(make_net(network(), max_epochs=1), **PARAMS)),
    ):
        clf.fit(X, y)
        saved.append((clf, X[:5], clf.certify(X[:5]).radii))
    joblib.dump(saved, tmp_path / "saved.joblib", compress=3)
    run_python(SAVED, tmp_path / "saved.joblib")


# skops


@pytest.mark.parametrize(
    "clf",
    [
        SmoothedClassifier(make_pipeline(StandardScaler(), LogisticRegression()), bounds="minmax", **PARAMS),
        SmoothedClassifier(
            LogisticRegression(),
            UniformMixtureNoise(),
            radius=GreedyRadius(max_features=3),
            training=NoiseAugmentation(2),
            bounds="minmax",
            **PARAMS,
        ),
        smoothcert.pipeline.make_pipeline(MinMaxScaler(), SmoothedClassifier(LogisticRegression(), **PARAMS)),
    ],
)
@pytest.mark.parametrize("framed", [False, True])
def test_skops_needs_no_trust_beyond_the_librarys_own_types(cancer, clf, framed, tmp_path):
    X, y = cancer
    X = pd.DataFrame(X, columns=[f"f{i}" for i in range(30)]) if framed else X
    clf = clone(clf).fit(X, y)
    skops.io.dump(clf, tmp_path / "clf.skops")
    assert set(skops.io.get_untrusted_types(file=tmp_path / "clf.skops")) <= set(persistence.trusted_types())
    loaded = skops.io.load(tmp_path / "clf.skops", trusted=persistence.trusted_types())
    assert_same(loaded.certify(X[:5]), clf.certify(X[:5]))
    np.testing.assert_array_equal(loaded.certify_at(X[:5], 0.1).robust, clf.certify_at(X[:5], 0.1).robust)


def test_regressors_and_conformal_classifiers_need_no_trust_either(cancer, tmp_path):
    X, y = cancer[0][:, :3], cancer[1]
    reg = SmoothedRegressor(LinearRegression(), bounds="minmax", **PARAMS).fit(X, X[:, 0])
    sets = SmoothedConformalClassifier(LogisticRegression(max_iter=1000), radius=0.01, bounds="minmax", **PARAMS)
    sets.fit(X[:300], y[:300]).conformalize(X[300:], y[300:])
    for one, result in ((reg, lambda reg: reg.predict(X[:5])), (sets, lambda sets: sets.predict_set(X[:5]))):
        skops.io.dump(one, tmp_path / "one.skops")
        assert set(skops.io.get_untrusted_types(file=tmp_path / "one.skops")) <= set(persistence.trusted_types())
        loaded = skops.io.load(tmp_path / "one.skops", trusted=persistence.trusted_types())
        np.testing.assert_array_equal(result(loaded), result(one))


def test_every_strategy_is_among_the_trusted_types():
    trusted = persistence.trusted_types()
    for kind in (UniformNoise, GreedyRadius, StabilityTraining, SmoothedClassifier):
        assert f"{kind.__module__}.{kind.__name__}" in trusted
    assert trusted == sorted(trusted)
    assert all(name.startswith("smoothcert.") for name in trusted)
    assert "smoothcert.models.portable.Portable" not in trusted


# safetensors


@pytest.mark.parametrize("training", ["augment", "stability"])
@pytest.mark.parametrize("noise", [UniformNoise(0.5), UniformMixtureNoise()])
def test_weights_make_the_same_classifier(digits, training, noise, tmp_path):
    X, y = digits
    clf = SmoothedClassifier(
        make_net(network(), max_epochs=1), noise, training=training, bounds=(-0.5, 1.25), **PARAMS
    ).fit(X, y)
    persistence.save_weights(clf, tmp_path / "weights.safetensors")
    fresh = network()
    before = [parameter.clone() for parameter in fresh.parameters()]
    loaded = persistence.load_weights(tmp_path / "weights.safetensors", fresh, **PARAMS)
    assert_same(loaded.certify(X[:5]), clf.certify(X[:5]))
    assert_same(loaded.certify(X[:5], votes=clf.count_votes(X[:5])), clf.certify(X[:5]))
    for old, new in zip(before, fresh.parameters(), strict=True):
        assert torch.equal(old, new)


def test_weights_of_a_bare_module_and_bounds_per_feature(digits, tmp_path):
    X, _ = digits
    module = network()
    bounds = (np.linspace(-1, 0, 64), np.linspace(1, 1.1, 64))
    clf = SmoothedClassifier.from_pretrained(module, range(10), UniformNoise(0.3), bounds=bounds, **PARAMS)
    persistence.save_weights(clf, tmp_path / "weights.safetensors")
    loaded = persistence.load_weights(tmp_path / "weights.safetensors", network(), **PARAMS)
    assert loaded.box_.fingerprint() == clf.box_.fingerprint()
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert_same(loaded.certify(X[:5]), clf.certify(X[:5]))


def test_the_type_of_the_labels_is_kept(tmp_path):
    classes = np.array([3, 1, 2], dtype=np.int8)
    clf = SmoothedClassifier.from_pretrained(nn.Linear(4, 3), classes, **PARAMS)
    persistence.save_weights(clf, tmp_path / "weights.safetensors")
    loaded = persistence.load_weights(tmp_path / "weights.safetensors", nn.Linear(4, 3), **PARAMS)
    assert (loaded.classes_.dtype, loaded.classes_.tolist()) == (np.int8, [3, 1, 2])


@pytest.mark.parametrize(
    ("wrap", "fresh"),
    [
        (nn.Sequential, lambda: nn.Sequential(network())),
        (lambda module: torch.compile(module, backend="eager"), network),
        (
            lambda module: nn.Sequential(NoisyModule(module, UniformNoise(0.5), center=0.2, scale=3.0)),
            lambda: nn.Sequential(NoisyModule(network(), UniformNoise(0.5))),
        ),
    ],
    ids=["inside", "compiled", "noisy"],
)
def test_the_input_scaling_is_kept_wherever_it_is(digits, wrap, fresh, tmp_path):
    X, y = digits
    trained = SmoothedClassifier(make_net(network(), max_epochs=2), UniformNoise(0.5), **PARAMS).fit(X, y)
    wrapped = wrap(trained.estimator_.module_)
    clf = SmoothedClassifier.from_pretrained(wrapped, trained.classes_, UniformNoise(0.5), **PARAMS)
    persistence.save_weights(clf, tmp_path / "weights.safetensors")
    loaded = persistence.load_weights(tmp_path / "weights.safetensors", fresh(), **PARAMS)
    np.testing.assert_array_equal(loaded.count_votes(X[:9]).estimation, clf.count_votes(X[:9]).estimation)
    if fresh is not network:
        with pytest.raises(ValueError, match="module must have the architecture of the network"):
            persistence.load_weights(tmp_path / "weights.safetensors", network(), **PARAMS)


def test_wrong_files_and_networks(cancer, tmp_path):
    path = tmp_path / "weights.safetensors"
    persistence.save_weights(SmoothedClassifier.from_pretrained(network(), range(10), **PARAMS), path)
    with pytest.raises(ValueError, match="module must have the architecture of the network"):
        persistence.load_weights(path, nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"module must be a torch\.nn\.Module"):
        persistence.load_weights(path, network)
    for content in (
        path.read_bytes()[:-100],
        pickle.dumps("attack"),
        b"",
        path.read_bytes().replace(b"smoothcert", b"something!"),
    ):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ValueError, match="path must be a file made by save_weights"):
            persistence.load_weights(tmp_path / "broken", network())
    with pytest.raises(FileNotFoundError):
        persistence.load_weights(tmp_path / "nowhere", network())
    # Weights without a record, as others save them.
    safetensors.torch.save_model(network(), str(path))
    with pytest.raises(ValueError, match=r"path must be a file made by save_weights, but .* is not: 'smoothcert'"):
        persistence.load_weights(path, network())
    tabular = SmoothedClassifier(DummyClassifier(), bounds="minmax", **PARAMS).fit(*cancer)
    with pytest.raises(ValueError, match=r"classifier must have a torch base model, got a DummyClassifier\. Use skops"):
        persistence.save_weights(tabular, path)


@pytest.mark.parametrize(
    "params", [{"threshold": 0.7}, {"predict_nonlinearity": torch.sigmoid}], ids=["threshold", "sigmoid"]
)
def test_nets_that_decide_in_a_way_of_their_own_are_refused(params, tmp_path):
    net = NeuralNetBinaryClassifier(nn.Linear(4, 1), **params).initialize()
    clf = SmoothedClassifier.from_pretrained(net, [0, 1], **PARAMS)
    with pytest.raises(ValueError, match="must not have a net with a threshold or predict_nonlinearity of its own"):
        persistence.save_weights(clf, tmp_path / "weights.safetensors")


def test_a_noisy_module_keeps_its_copies_and_costs(tmp_path):
    noisy = NoisyModule(nn.Linear(4, 3), UniformNoise(0.5), costs=[1.0, 2.0, 0.5, 1.0], n_copies=5)
    clf = SmoothedClassifier.from_pretrained(noisy, range(3), **PARAMS)
    persistence.save_weights(clf, str(tmp_path / "weights.safetensors"))
    loaded = persistence.load_weights(str(tmp_path / "weights.safetensors"), nn.Linear(4, 3), alpha=0.2, **PARAMS)
    module = loaded.estimator_.estimator
    assert (type(module), module.n_copies, loaded.alpha, loaded.noise_.lam) == (NoisyModule, 5, 0.2, 0.5)
    np.testing.assert_array_equal(loaded.features_.costs, [1.0, 2.0, 0.5, 1.0])
    persistence.save_weights(SmoothedClassifier.from_pretrained(nn.Linear(4, 3), range(3)), tmp_path / "w.safetensors")
    plain = persistence.load_weights(tmp_path / "w.safetensors", nn.Linear(4, 3))
    assert type(plain.estimator_.estimator) is nn.Linear


def test_noise_of_ones_own_has_no_name_in_a_file(tmp_path):
    class Own(UniformNoise):
        pass

    clf = SmoothedClassifier.from_pretrained(nn.Linear(4, 3), range(3), Own(0.5))
    with pytest.raises(ValueError, match=r"noise must be one of .*'split'.*, got .*Own\(lam=0.5"):
        persistence.save_weights(clf, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_record_is_readable_by_others(digits, tmp_path):
    clf = SmoothedClassifier.from_pretrained(network(), ["a", *range(9)], UniformNoise(0.25), **PARAMS)
    persistence.save_weights(clf, tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        record = json.loads(file.metadata()["smoothcert"])
        assert sorted(file.keys()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert (record["noise"], record["noise_params"]["lam"], record["bounds"]) == ("uniform", 0.25, [0.0, 1.0])


# From a machine with a GPU to one without


def away(monkeypatch):
    """Make torch write files as if all tensors were on a CUDA device, and the library believe it."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    monkeypatch.setattr(portable, "on_accelerator", lambda module: True)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_classifier_from_a_gpu_is_loaded_to_the_cpu(digits, monkeypatch, tmp_path, frozen, how):
    X, y = digits
    if frozen:
        clf = SmoothedClassifier.from_pretrained(network(), range(10), **PARAMS)
    else:
        clf = SmoothedClassifier(make_net(network(), max_epochs=1), **PARAMS).fit(X, y)
    expected = clf.certify(X[:5])
    with monkeypatch.context() as patched:
        away(patched)
        bare = io_bytes(network())
        if how == "pickle":
            (tmp_path / "clf").write_bytes(pickle.dumps(clf))
        else:
            joblib.dump(clf, tmp_path / "clf")
    if torch.cuda.is_available():
        pytest.skip("the files are loaded to the GPU here")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(bare, weights_only=False)
    loaded = pickle.loads((tmp_path / "clf").read_bytes()) if how == "pickle" else joblib.load(tmp_path / "clf")
    assert_same(loaded.certify(X[:5]), expected)
    assert_same(loaded.certify(X[:5], votes=clf.count_votes(X[:5])), expected)
    assert isinstance(loaded.estimator, FrozenEstimator) == frozen


def io_bytes(module):
    import io

    content = io.BytesIO()
    torch.save(module, content)
    content.seek(0)
    return content


def test_copies_keep_the_device():
    module = network().to("meta")
    clf = SmoothedClassifier.from_pretrained(module, range(10), **PARAMS)
    for made in (copy.copy(clf), copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        found = made.estimator_.estimator
        assert isinstance(found, nn.Sequential)
        assert {parameter.device.type for parameter in found.parameters()} == {"meta"}
        assert made.estimator is made.estimator_
    assert copy.copy(clf).estimator_.estimator is module
    unfitted = SmoothedClassifier(module)
    assert isinstance(pickle.loads(pickle.dumps(unfitted)).estimator, nn.Sequential)


def test_pickles_of_models_on_the_cpu_are_plain():
    clf = SmoothedClassifier.from_pretrained(network(), range(10), **PARAMS)
    assert b"smoothcert.weights" not in pickle.dumps(clf)


def test_a_device_that_is_not_there_is_named(digits):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    X, _ = digits
    clf = SmoothedClassifier.from_pretrained(network(), range(10), **PARAMS).set_params(device="cuda")
    with pytest.raises(ValueError, match=r"device='cuda' is not there: .*set_params\(device='cpu'\)"):
        clf.certify(X[:2])
    for device in ("cpu", None):
        assert len(clf.set_params(device=device).certify(X[:2])) == 2
