"""Models, data and labels from files."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_model
from sklearn.naive_bayes import GaussianNB

from smoothcert import SmoothedClassifier, UniformNoise
from smoothcert.cli.loading import call_factory, load_data, load_labels, load_model
from smoothcert.weights import save_weights

FACTORIES = """
import torch

def linear():
    return torch.nn.Linear(3, 2)

def wide():
    return torch.nn.Linear(4, 2)

def none():
    return None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with a module, which nothing imports from elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    Path("factories.py").write_text(FACTORIES)
    yield tmp_path
    sys.modules.pop("factories", None)


def test_modules_of_the_working_directory_are_found(folder):
    assert isinstance(call_factory("factories:linear"), torch.nn.Linear)
    assert sys.path.count(str(folder)) == 1
    call_factory("factories:wide")
    assert sys.path.count(str(folder)) == 1
    for wrong in ("factories:other", "nowhere:linear", "factories.linear:"):
        with pytest.raises(ValueError, match=f"'{wrong}' must name a function in a module"):
            call_factory(wrong)


@pytest.mark.parametrize("name", ["net.pt", "net.PTH", "net.joblib", "net.pkl", "net.pickle"])
def test_pickles_of_every_kind(name):
    net = torch.nn.Linear(3, 2)
    torch.save(net, name) if name.lower().endswith(("pt", "pth")) else joblib.dump(net, name)
    with pytest.raises(ValueError, match=f"Loading {name} would execute code that it holds"):
        load_model(name)
    assert torch.equal(load_model(name, allow_pickle=True).weight, net.weight)
    torch.save(net.state_dict(), name) if name.lower().endswith(("pt", "pth")) else joblib.dump({"w": 1}, name)
    with pytest.raises(ValueError, match=r"holds a \w*[dD]ict of [12] entries, and no model"):
        load_model(name, allow_pickle=True)


def test_what_is_no_model():
    Path("model.txt").write_text("text")
    with pytest.raises(ValueError, match=r"model.txt must end in .skops, .safetensors or, with --allow-pickle, .*\.pt"):
        load_model("model.txt", allow_pickle=True)
    for missing in ("model.skops", "."):
        with pytest.raises(ValueError, match=r"There is no file .* Give a function as module:function"):
            load_model(missing)
    # A file may have a colon in its name.
    joblib.dump(GaussianNB(), "a:b.joblib")
    assert isinstance(load_model("a:b.joblib", allow_pickle=True), GaussianNB)


def test_weights_need_their_network():
    net = torch.nn.Linear(3, 2)
    save_model(net, "plain.safetensors")
    clf = SmoothedClassifier.from_pretrained(net, ["a", "b"], UniformNoise(0.3), bounds=(0, 2))
    save_weights(clf, "smoothed.safetensors")
    found = load_model("plain.safetensors", factory="factories:linear")
    assert isinstance(found, torch.nn.Linear)
    assert torch.equal(found.weight, net.weight)
    found = load_model("smoothed.safetensors", factory="factories:linear")
    assert (found.classes_.tolist(), found.noise_.lam, found.box_.hi) == (["a", "b"], 0.3, 2)
    with pytest.raises(ValueError, match=r"must return a torch.nn.Module, got a NoneType"):
        load_model("plain.safetensors", factory="factories:none")
    with pytest.raises(ValueError, match=r"plain.safetensors does not fit what factories:wide returns"):
        load_model("plain.safetensors", factory="factories:wide")
    with pytest.raises(ValueError, match="name the network's function"):
        load_model("plain.safetensors")


def test_arrays_of_a_file_are_taken_by_name():
    a, b, y = np.zeros((2, 3)), np.ones((2, 3)), np.array([5, 6])
    np.savez("several.npz", X=a, b=b, y=y, z=y + 1)
    for given, X, labels in (
        ({}, a, y),
        ({"key": "b"}, b, y),
        ({"target": "z"}, a, y + 1),
        ({"key": "b", "target": "z"}, b, y + 1),
    ):
        found = load_data("several.npz", **given)
        np.testing.assert_array_equal(found[0], X)
        np.testing.assert_array_equal(found[1], labels)
    np.savez("one.npz", inputs=b)
    X, labels = load_data("one.npz")
    np.testing.assert_array_equal(X, b)
    assert labels is None
    np.savez("two.npz", inputs=b, y=y)
    np.testing.assert_array_equal(load_data("two.npz")[0], b)
    np.savez("unnamed.npz", a=a, b=b)
    with pytest.raises(ValueError, match=r"unnamed\.npz holds the arrays a, b: name the inputs with --key"):
        load_data("unnamed.npz")
    with pytest.raises(ValueError, match=r"several.npz holds the arrays X, b, y, z: name the inputs with --key"):
        load_data("several.npz", key="nothing")
    with pytest.raises(ValueError, match=r"several.npz has no array 'nothing' for --target; it has X, b, y, z"):
        load_data("several.npz", target="nothing")


def test_options_that_do_not_apply_are_refused():
    np.save("inputs.npy", np.eye(3))
    pd.DataFrame({"a": [1.0]}).to_csv("table.csv")
    with pytest.raises(ValueError, match=r"--target needs a \.npz file or a table, got inputs\.npy"):
        load_data("inputs.npy", target="a")
    for name in ("inputs.npy", "table.csv"):
        with pytest.raises(ValueError, match=rf"--key names an array of a \.npz file, got {name}"):
            load_data(name, key="a")
    for name in ("model.skops", "factories:linear"):
        with pytest.raises(ValueError, match=rf"--factory is for the weights in a \.safetensors file, got {name}"):
            load_model(name, factory="factories:wide")


def test_tables_and_maps():
    np.save("map.npy", np.eye(3))
    X, y = load_data("map.npy")
    assert isinstance(X, np.memmap)
    assert y is None
    table = pd.DataFrame({"a": [1.0, 2.0], "label": ["x", "y"], "b": [3.0, 4.0]})
    table.to_csv("table.CSV", index=False)
    table.to_parquet("table.parquet")
    for name in ("table.CSV", "table.parquet"):
        X, y = load_data(name, target="label")
        assert (list(X.columns), y.tolist()) == (["a", "b"], ["x", "y"])
        X, y = load_data(name)
        assert (list(X.columns), y) == (["a", "label", "b"], None)
    Path("table.txt").write_text("1")
    with pytest.raises(ValueError, match=r"table.txt must end in .npy, .npz, .parquet or .csv"):
        load_data("table.txt")


def test_labels():
    np.save("labels.npy", np.array([3, 1]))
    assert load_labels("labels.npy").tolist() == [3, 1]
    np.savez("labels.npz", y=[3, 1])
    with pytest.raises(ValueError, match=r"labels.npz must be a .npy file, or a text file with one label in each line"):
        load_labels("labels.npz")
    for text, expected in (
        ("3\n\n 1 \n", [3, 1]),
        ("3\nx\n", ["3", "x"]),
        ("1.5\n2\n", ["1.5", "2"]),
        ("-1\n0", [-1, 0]),
    ):
        Path("labels.txt").write_text(text)
        assert load_labels("labels.txt").tolist() == expected
