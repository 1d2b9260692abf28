"""The command line, as a user types it."""

from __future__ import annotations

import contextlib
import csv
import json
import pickle
import re
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import click
import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from smoothcert import (
    Certificates,
    GaussianNoise,
    GreedyRadius,
    Intervals,
    LaplaceNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SmoothedConformalClassifier,
    SmoothedRegressor,
    SplitNoise,
    TorchInference,
    UniformMixtureNoise,
    UniformNoise,
    certified_accuracy_score,
)
from smoothcert.cli.loading import call_factory
from smoothcert.cli.main import cli
from smoothcert.cli.options import smoothed
from smoothcert.results.tables import rounded_down
from smoothcert.runs.store import read_store

NETS = """
import torch
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))

def noisy():
    from smoothcert import UniformNoise
    from smoothcert.training import NoisyModule
    return torch.nn.Sequential(NoisyModule(small(), UniformNoise(0.3), bounds=(0, 2), costs=[1.0, 2.0, 3.0, 4.0]))

def broken():
    raise KeyError("weights")

def forgetful():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
"""


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with models and data."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.random((30, 5))
    y = (X[:, 0] > 0.5).astype(int)
    model = LogisticRegression(C=100).fit(X, y)
    joblib.dump(model, "model.joblib")
    np.savez("test.npz", X=X, y=y)
    np.save("test.npy", X)
    np.save("labels.npy", y)
    np.save("images.npy", rng.integers(0, 256, (12, 1, 4, 4)).astype(np.float32) / 255)
    Path("nets.py").write_text(NETS)
    return tmp_path


def run(*arguments, code=0):
    """Run a command, and return what it prints; errors are one line without a traceback."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    if code == 1:
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
    return result.stdout if code == 0 else result.stderr


def table(name):
    """Return the rows of a table."""
    with open(name) as file:
        return list(csv.DictReader(file, delimiter="\t" if name.endswith(".tsv") else ","))


FAST = ("--n", "300", "--alpha", "0.01", "--quiet")


@pytest.fixture
def skops_model(folder):
    io = pytest.importorskip("skops.io")
    io.dump(joblib.load("model.joblib"), "model.skops")
    return "model.skops"


def test_a_run_from_beginning_to_end(skops_model, folder):
    started = time.time()
    shown = run("certify", skops_model, "test.npz", "--lam", "0.5", "--seed", "3", "--store", "run.sqlite", *FAST)
    assert "30 inputs" in shown
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], SplitNoise(0.5), n_samples=300, alpha=0.01, random_state=3
    )
    with np.load("test.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    stored = Certificates.from_store("run.sqlite")
    np.testing.assert_array_equal(stored.radii, clf.certify(X).radii)
    assert read_store("run.sqlite").run.noise["text"] == "SplitNoise(lam=0.5, levels='auto')"
    assert stored.alpha == 0.01

    state = json.loads(run("status", "run.sqlite", "--json"))
    assert (state["finished"], state["failed"], state["n_inputs"]) == (30, 0, 30)
    assert state["being_written"] is False
    assert 0 <= state["seconds_since_last"] <= time.time() - started + 0.05, "rounded to tenths"
    assert state["seed"] == str(read_store("run.sqlite").run.seed)
    with contextlib.closing(sqlite3.connect("run.sqlite")) as connection:
        texts = connection.execute("SELECT selection, estimation FROM results").fetchall()
    selection, estimation = (
        sum(sum(json.loads(text).values()) for text in column) for column in zip(*texts, strict=True)
    )
    assert state["votes"] == selection + estimation
    assert estimation == 30 * 300
    assert 0 < selection <= 30 * 256
    shown = run("status", "run.sqlite")
    assert "noise:               SplitNoise(lam=0.5" in shown
    assert "finished:            30 of 30 inputs (100.0%)" in shown
    assert "being written:       no" in shown
    assert state["digest"] in shown

    lines = run("curve", "run.sqlite", "--radii", "0,0.2,9", "--png", "curve.png").splitlines()
    correct = [np.mean((stored.labels == y) & (stored.radii >= radius)) for radius in (0, 0.2, 9)]
    assert lines[0] == "radius\trun.sqlite"
    assert [float(line.split("\t")[1]) for line in lines[1:]] == pytest.approx(correct, abs=5e-5)
    assert Path("curve.png").read_bytes()[:4] == b"\x89PNG"

    run("export", "run.sqlite", "out.csv")
    rows = table("out.csv")
    assert [float(row["radius"]) for row in rows] == pytest.approx(stored.radii, rel=0, abs=0, nan_ok=True)
    run("export", "run.sqlite", "out.tsv")
    rows = table("out.tsv")
    assert list(rows[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    assert [int(row["label"]) for row in rows] == y.tolist()
    assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(correct[0])
    read, truth, _ = Certificates.from_tsv("out.tsv", alpha=0.01, norm=1)
    np.testing.assert_array_equal(read.radii, stored.radii)
    np.testing.assert_array_equal(truth, y)
    pandas = pytest.importorskip("pandas")
    run("export", "run.sqlite", "out.parquet")
    np.testing.assert_array_equal(pandas.read_parquet("out.parquet")["radius"], stored.radii)

    shown = run("recertify", "run.sqlite", "--alpha", "0.05", "--radius", "lipschitz", "-o", "again.csv")
    assert "alpha=0.05" in shown
    again = Certificates.from_store("run.sqlite", alpha=0.05, radius="lipschitz")
    rows = table("again.csv")
    assert [float(row["radius"]) for row in rows] == pytest.approx(again.radii, rel=0, abs=0, nan_ok=True)


def test_summaries_show_the_accuracy_at_each_radius(folder):
    arguments = ("model.joblib", "test.npz", "--allow-pickle", "--seed", "3", "--store", "run.sqlite", *FAST)
    shown = run("certify", *arguments, "--lam", "2", "--bounds=-1,2")
    stored = Certificates.from_store("run.sqlite")
    radii = [0, 0.5, 1, 2]
    accuracy = certified_accuracy_score(np.load("labels.npy"), stored, radii)
    texts = [f"{share:.4f} at {radius}" for share, radius in zip(accuracy, radii, strict=True)]
    assert len(set(accuracy[1:])) == 3
    assert shown.splitlines()[1] == f"Certified accuracy {', '.join(texts)}"
    state = json.loads(run("status", "run.sqlite", "--json", "--results"))
    assert state["certified_accuracy"] == dict(zip(map(str, radii), accuracy.tolist(), strict=True))
    assert state["abstained"] == stored.abstained.sum()


def test_what_is_left_of_a_run_is_in_its_status(folder):
    run("certify", "model.joblib", "test.npy", "--allow-pickle", *FAST, "--store", "run.sqlite")
    with contextlib.closing(sqlite3.connect("run.sqlite")) as connection, connection:
        connection.execute("DELETE FROM results WHERE input < 12")
        # An input every two seconds.
        connection.execute("UPDATE results SET written = 1000 + 2 * input, seconds = 1.5")
    state = json.loads(run("status", "run.sqlite", "--json"))
    assert (state["finished"], state["inputs_per_second"], state["seconds_left"]) == (18, 0.5, 24)
    assert state["seconds_of_work"] == 27


def test_labels_of_a_part_of_a_run_are_those_of_its_inputs(folder):
    run("certify", "model.joblib", "test.npy", "--allow-pickle", *FAST, "--store", "run.sqlite")
    with contextlib.closing(sqlite3.connect("run.sqlite")) as connection, connection:
        connection.execute("DELETE FROM results WHERE input < 12")
    stored, y = Certificates.from_store("run.sqlite", partial=True), np.load("labels.npy")
    expected = certified_accuracy_score(y[12:], stored, 0.1)
    assert expected != certified_accuracy_score(y[:18], stored, 0.1)
    lines = run("curve", "run.sqlite", "--radii", "0.1", "--labels", "labels.npy").splitlines()
    assert lines[1] == f"0.1\t{expected:.4f}"
    run("export", "run.sqlite", "part.csv", "--labels", "labels.npy", "--partial")
    assert [(int(row["input"]), int(row["label"])) for row in table("part.csv")] == [*enumerate(y)][12:]
    run("label", "run.sqlite", "labels.npy")
    state = json.loads(run("status", "run.sqlite", "--json", "--results"))
    assert state["certified_accuracy"]["0"] == certified_accuracy_score(y[12:], stored, 0.0)


def test_resume(skops_model, folder):
    run("certify", skops_model, "test.npz", "--lam", "0.5", "--store", "run.sqlite", *FAST)
    whole = Certificates.from_store("run.sqlite")
    connection = sqlite3.connect("run.sqlite")
    connection.execute("DELETE FROM results WHERE input % 3 = 0")
    connection.commit()
    connection.close()
    state = json.loads(run("status", "run.sqlite", "--json"))
    assert (state["finished"], state["n_inputs"]) == (20, 30)
    assert "the run has not ended" in run("export", "run.sqlite", "out.csv", code=1)
    assert "with --partial" in run("recertify", "run.sqlite", "--alpha", "0.05", code=1)
    assert run("recertify", "run.sqlite", "--alpha", "0.05", "--partial").startswith("Certificates(20 inputs")
    np.save("other_labels.npy", np.arange(30) % 3 % 2)
    noted = CliRunner().invoke(cli, ["curve", "run.sqlite", "--radii", "0", "--labels", "other_labels.npy"])
    assert noted.stderr == "Note: run.sqlite holds 20 of 30 inputs: the run has not ended.\n"
    part = np.arange(30) % 3 > 0
    expected = certified_accuracy_score((np.arange(30) % 3 % 2)[part], whole[part], 0)
    assert noted.stdout.splitlines()[1] == f"0\t{expected:.4f}"
    assert expected != certified_accuracy_score((np.arange(30) % 3 % 2)[:20], whole[part], 0)
    run("export", "run.sqlite", "out.csv", "--partial")
    assert len(Path("out.csv").read_text().splitlines()) == 21
    run("resume", "run.sqlite", skops_model, "test.npz", "--quiet")
    np.testing.assert_array_equal(Certificates.from_store("run.sqlite").radii, whole.radii)
    message = run("certify", skops_model, "test.npz", "--lam", "0.6", "--store", "run.sqlite", *FAST, code=1)
    assert "belongs to another run" in message
    np.save("other.npy", np.zeros((30, 5)))
    assert "on other data" in run("resume", "run.sqlite", skops_model, "other.npy", "--quiet", code=1)


def test_resume_follows_the_options_for_speed(folder, monkeypatch):
    arguments = ("model.joblib", "test.npz", "--allow-pickle")
    run("certify", *arguments, "--lam", "0.5", "--seed", "6", "--store", "run.sqlite", *FAST)
    made = []
    monkeypatch.setattr("smoothcert.cli.runs.run_and_report", lambda clf, *rest: made.append(clf))
    run("resume", "run.sqlite", *arguments, "--workers", "2", "--batch-size", "7", "--quiet")
    (clf,) = made
    assert (clf.n_jobs, clf.batch_size, clf.verbose) == (2, 7, 0)
    assert (clf.n_samples, clf.alpha, str(clf.noise_)) == (300, 0.01, "SplitNoise(lam=0.5)")


@pytest.mark.parametrize("command", ["certify", "certify-at", "resume"])
def test_options_that_change_no_radius_reach_the_run(folder, monkeypatch, command):
    arguments, seen = ("model.joblib", "test.npz", "--allow-pickle"), {}
    if command == "resume":
        run(
            "certify",
            *arguments,
            "--shard",
            "2/3",
            "--seed",
            "6",
            "--store",
            "run.sqlite",
            "--n",
            "50",
            "--alpha",
            "0.1",
        )
        arguments = ("run.sqlite", *arguments)
    else:
        arguments += ("--shard", "2/3", "--seed", "6", "--store", "run.sqlite", "--n", "50", "--alpha", "0.1")

    def spy(self, X, *radius, **recording):
        seen.update(self.get_params(deep=False) | recording | {"asked": [np.asarray(one).tolist() for one in radius]})
        raise ValueError("seen")

    monkeypatch.setattr(SmoothedClassifier, "certify_at" if command == "certify-at" else "certify", spy)
    flags = ["--timeout", "30", "--workers", "2", "--batch-size", "7", "--on-error", "skip"]
    flags += ["--same-model", "--quiet", "--scan"]
    flags += {"certify": ["--estimation", "sample"], "certify-at": ["--radii", "0.5,1"], "resume": []}[command]
    assert run(command, *arguments, *flags, code=1) == "Error: seen\n"
    expected = {"timeout": 30, "n_jobs": 2, "batch_size": 7, "on_error": "skip", "same_model": True, "verbose": 0}
    expected |= {"shard": (2, 3), "random_state": 6, "store": "run.sqlite", "n_samples": 50, "alpha": 0.1}
    expected |= {"estimation": {"certify": "sample", "certify-at": "auto", "resume": "sample"}[command]}
    assert seen["asked"] == ([[[0.5, 1.0]]] if command == "certify-at" else [])
    assert {name: seen[name] for name in expected} == expected


def test_options_of_an_audit_reach_it(folder, monkeypatch):
    model, seen = ("model.joblib", "test.npz", "--allow-pickle", "--quiet"), {}
    run("certify", *model, "--store", "run.sqlite", "--n", "50", "--alpha", "0.1")

    def spy(path, clf, X, **asked):
        seen.update(asked | {"timeout": clf.timeout, "n_inputs": len(X)})
        raise ValueError("seen")

    monkeypatch.setattr("smoothcert.cli.runs.verify_store", spy)
    run("verify", "run.sqlite", *model, "--fraction", "0.5", "--fresh", "--level", "0.02", "--timeout", "30", code=1)
    assert seen == {"fraction": 0.5, "fresh": True, "level": 0.02, "timeout": 30, "n_inputs": 30}
    run("verify", "run.sqlite", *model, code=1)
    assert seen == {"fraction": 1.0, "fresh": False, "level": 0.001, "timeout": None, "n_inputs": 30}


def test_no_option_is_left_untested():
    written = Path(__file__).read_text()
    parameters = [one for command in cli.commands.values() for one in command.params if isinstance(one, click.Option)]
    assert [one.opts[0] for one in parameters if not any(name in written for name in one.opts)] == []


def test_pickles_are_not_loaded_unless_asked(folder):
    for name in ("bomb.pkl", "bomb.joblib", "bomb.pt"):
        Path(name).write_bytes(pickle.dumps(Bomb(str(folder / "exploded"))))
        assert "add --allow-pickle" in run("certify", name, "test.npy", code=1)
    np.save("objects.npy", np.array([Bomb(str(folder / "exploded"))], dtype=object), allow_pickle=True)
    np.savez("objects.npz", X=np.array([Bomb(str(folder / "exploded"))], dtype=object))
    for name in ("objects.npy", "objects.npz"):
        assert "bject" in run("certify", "nets:small", name, "--classes", "3", code=1)
    assert not (folder / "exploded").exists()
    run("certify", "model.joblib", "test.npz", "--allow-pickle", *FAST)
    run("certify", "bomb.pkl", "test.npy", "--allow-pickle", "--classes", "2", code=1)
    assert (folder / "exploded").exists()


def test_unknown_types_in_skops_files_are_named(folder):
    io = pytest.importorskip("skops.io")
    from sklearn.ensemble import RandomForestClassifier

    with np.load("test.npz") as arrays:
        io.dump(RandomForestClassifier(2).fit(arrays["X"], arrays["y"]), "forest.skops")
    message = run("certify", "forest.skops", "test.npz", *FAST, code=1)
    assert "--trust sklearn.tree._tree.Tree" in message
    run("certify", "forest.skops", "test.npz", "--trust", "sklearn.tree._tree.Tree", *FAST)


def test_functions_of_the_library_in_skops_files_are_not_trusted(folder):
    io = pytest.importorskip("skops.io")
    with np.load("test.npz") as arrays:
        model = make_pipeline(FunctionTransformer(call_factory), LogisticRegression()).set_params(
            functiontransformer__func=None
        )
        model.fit(arrays["X"], arrays["y"]).set_params(functiontransformer__func=call_factory)
    io.dump(model, "call.skops")
    assert "--trust smoothcert.cli.loading.call_factory" in run("certify", "call.skops", "test.npz", *FAST, code=1)


def test_columns_in_another_order_are_refused(folder):
    pandas = pytest.importorskip("pandas")
    with np.load("test.npz") as arrays:
        frame, y = pandas.DataFrame(arrays["X"], columns=list("abcde")), arrays["y"]
    joblib.dump(LogisticRegression(C=100).fit(frame, y), "named.joblib")
    frame.to_csv("same.csv", index=False)
    frame[list("edcba")].to_csv("other.csv", index=False)
    options = ("--allow-pickle", "--seed", "0", *FAST)
    run("certify", "named.joblib", "same.csv", *options)
    for command in ("certify", "predict"):
        some = options if command == "certify" else ("--allow-pickle", "--seed", "0")
        assert "same order" in run(command, "named.joblib", "other.csv", *some, code=1)


def test_smoothed_classifiers_bring_their_parameters(folder):
    io = pytest.importorskip("skops.io")
    with np.load("test.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    clf = SmoothedClassifier(LogisticRegression(), UniformNoise(0.7), alpha=0.02, n_samples=250, random_state=1)
    io.dump(clf.fit(X, y), "smoothed.skops")
    expected = clf.certify(X)
    run("certify", "smoothed.skops", "test.npz", "--quiet", "--store", "own.sqlite")
    np.testing.assert_array_equal(Certificates.from_store("own.sqlite").radii, expected.radii)
    run(
        "certify", "smoothed.skops", "test.npz", "--quiet", "--store", "other.sqlite", "--alpha", "0.03", "--lam", "0.2"
    )
    run_record = read_store("other.sqlite").run
    assert run_record.parameters["alpha"] == 0.03
    assert run_record.noise["text"] == "UniformNoise(lam=0.2, levels='auto')"
    run("certify", "smoothed.skops", "test.npz", "--quiet", "--store", "split.sqlite", "--noise", "split", "--lam", "2")
    assert read_store("split.sqlite").run.noise["text"] == "SplitNoise(lam=2.0, levels='auto')"
    run("certify", "smoothed.skops", "test.npz", "--quiet", "--store", "seed.sqlite", "--seed", "2")
    again = clf.set_params(random_state=2).certify(X)
    np.testing.assert_array_equal(Certificates.from_store("seed.sqlite").radii, again.radii)


def test_a_smoothed_classifier_supplies_all_that_is_not_given(folder, monkeypatch):
    chosen = {"radius": "box", "scheme": "binary", "bound": "hoeffding", "alpha": 0.02, "n_selection": 9}
    chosen |= {"n_samples": 500, "rtol": 0.2, "random_state": 7, "inference": TorchInference(channels_last=True)}
    net = pytest.importorskip("torch").nn.Linear(5, 2)
    clf = SmoothedClassifier.from_pretrained(net, [0, 1], UniformNoise(0.7, levels=64), bounds=(-1, 3), **chosen)
    monkeypatch.setattr("smoothcert.cli.options.load", lambda given: clf)
    given = defaultdict(lambda: None, quiet=True, n_jobs=2, device="cpu", batch_size=7)
    made = smoothed(given)
    for name, value in chosen.items():
        assert getattr(made, name) is value
    assert (made.noise_.get_params(), made.box_.fingerprint()) == (clf.noise_.get_params(), clf.box_.fingerprint())
    assert made.classes_.tolist() == [0, 1]
    assert (made.n_jobs, made.device, made.batch_size, made.verbose) == (2, "cpu", 7, 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    made = smoothed(
        given | {"lam": 0.2, "alpha": 0.3, "random_state": 8, "bounds": (0, 1), "quiet": False, "batch_size": None}
    )
    assert made.noise_.get_params() == {"lam": 0.2, "levels": 64}
    assert smoothed(given | {"levels": 32}).noise_.get_params() == {"lam": 0.7, "levels": 32}
    lam = UniformNoise.from_sigma(0.5).lam
    assert smoothed(given | {"sigma": 0.5}).noise_.get_params() == {"lam": lam, "levels": 64}
    assert str(smoothed(given | {"noise": "split"}).noise_) == "SplitNoise()"
    assert (made.alpha, made.random_state, made.verbose, made.batch_size) == (0.3, 8, 1, "auto")
    assert made.box_.hi == 1


def test_networks_from_factories_and_weights(folder, monkeypatch):
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("nets", None)
    arguments = (
        "images.npy",
        "--classes",
        "cat,dog,eel",
        "--levels",
        "255",
        "--n",
        "300",
        "--alpha",
        "0.01",
        "--seed",
        "0",
    )
    shown = run("certify", "nets:small", *arguments, "--quiet", "--device", "cpu", "-o", "net.csv", "--workers", "1")
    assert "12 inputs" in shown
    import nets

    classes = ["cat", "dog", "eel"]
    clf = SmoothedClassifier.from_pretrained(
        nets.small(), classes, SplitNoise(levels=255), n_samples=300, alpha=0.01, random_state=0
    )
    expected = clf.certify(np.load("images.npy"))
    assert [row["predicted"] for row in table("net.csv")] == expected.labels.tolist()
    assert [float(row["radius"]) for row in table("net.csv")] == pytest.approx(expected.radii, abs=0, nan_ok=True)
    safetensors.save_model(nets.small(), "net.safetensors")
    run("certify", "net.safetensors", *arguments, "--factory", "nets:forgetful", "-o", "weights.csv", "--quiet")
    assert Path("net.csv").read_text() == Path("weights.csv").read_text()
    labels = run(
        "predict", "nets:small", "images.npy", "--classes", "cat,dog,eel", "--seed", "0", "--quiet", "--levels", "255"
    )
    rows = table("net.csv")
    assert labels.split() == [row["predicted"] for row in rows]
    assert "name the network's function" in run("predict", "net.safetensors", "images.npy", code=1)
    assert "give --classes" in run("certify", "nets:small", "images.npy", code=2)
    assert "must name a function" in run("certify", "nets:none", "images.npy", code=1)
    assert run("certify", "nets:broken", "images.npy", code=1) == "Error: KeyError: 'weights'\n"


def test_a_noisy_module_supplies_what_is_not_given(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("nets", None)
    given = ("nets:noisy", "images.npy", "--classes", "3", "--seed", "0", *FAST)
    run("certify", *given, "-o", "net.csv")
    import nets

    clf = SmoothedClassifier.from_pretrained(nets.noisy(), range(3), n_samples=300, alpha=0.01, random_state=0)
    assert (clf.noise_.lam, clf.box_.hi, clf.costs) == (0.3, 2, [1.0, 2.0, 3.0, 4.0])
    expected = clf.certify(np.load("images.npy"))
    assert [float(row["radius"]) for row in table("net.csv")] == pytest.approx(expected.radii, abs=0, nan_ok=True)
    run("certify", *given, "--noise", "uniform", "--lam", "0.3", "--bounds", "0,2", "-o", "same.csv")
    assert Path("same.csv").read_text() == Path("net.csv").read_text()
    run("certify", *given, "--store", "run.sqlite", "-o", "stored.csv")
    run("resume", "run.sqlite", "nets:noisy", "images.npy", "--quiet", "-o", "resumed.csv")
    assert [row["radius"] for row in table("resumed.csv")] == [row["radius"] for row in table("net.csv")]
    assert "noise must be that of the NoisyModule, UniformNoise(lam=0.3" in run(
        "predict", *given[:6], "--lam", "1", code=1
    )
    assert "bounds must be those of the NoisyModule" in run("predict", *given[:6], "--bounds", "0,1", code=1)


def test_tables(folder):
    pandas = pytest.importorskip("pandas")
    with np.load("test.npz") as arrays:
        frame = pandas.DataFrame(arrays["X"]).rename(columns=str).assign(animal=arrays["y"])
    frame.to_csv("test.csv", index=False)
    frame.to_parquet("test.parquet")
    model = ("model.joblib", "--allow-pickle", *FAST, "--seed", "0")
    for name in ("test.csv", "test.parquet"):
        run("certify", model[0], name, *model[1:], "--target", "animal", "-o", f"{name}.out.csv")
    assert Path("test.csv.out.csv").read_text() == Path("test.parquet.out.csv").read_text()
    assert "has no column 'plant'; it has '0'" in run(
        "certify", model[0], "test.csv", *model[1:], "--target", "plant", code=1
    )
    message = f"test.csv has {frame.shape[1]} columns, and the model takes {frame.shape[1] - 1}: name the labels with"
    assert message in run("certify", model[0], "test.csv", *model[1:], code=2)
    assert "Give --target or --labels, not both" in run(
        "certify", model[0], "test.csv", *model[1:], "--target", "animal", "--labels", "labels.npy", code=2
    )


NOISES = [
    (["--lam", "0.3"], SplitNoise(0.3)),
    (["--sigma", "0.3"], SplitNoise.from_sigma(0.3)),
    (["--levels", "64"], SplitNoise(1.0, levels=64)),
    (["--noise", "uniform", "--lam", "0.7", "--levels", "64"], UniformNoise(0.7, levels=64)),
    (["--noise", "uniform", "--sigma", "0.7"], UniformNoise.from_sigma(0.7)),
    (["--noise", "gaussian", "--sigma", "0.4"], GaussianNoise(0.4)),
    (["--noise", "laplace", "--sigma", "0.4"], LaplaceNoise.from_sigma(0.4)),
]


@pytest.mark.parametrize(
    ("flags", "noise"), NOISES, ids=lambda value: " ".join(value) if isinstance(value, list) else type(value).__name__
)
def test_the_noise_is_that_of_the_options(folder, flags, noise):
    X = np.random.default_rng(0).integers(65, size=(8, 5)) / 64
    np.save("lattice.npy", X)
    fast = ("--allow-pickle", "--seed", "4", "--quiet")
    run("certify", "model.joblib", "lattice.npy", *fast, "--n", "300", "--store", "run.sqlite", *flags)
    clf = SmoothedClassifier.from_pretrained(joblib.load("model.joblib"), [0, 1], noise, n_samples=300, random_state=4)
    expected = clf.certify(X)
    found = Certificates.from_store("run.sqlite")
    np.testing.assert_array_equal(found.radii, expected.radii)
    np.testing.assert_array_equal(found.p_a, expected.p_a)
    assert len(set(expected.radii)) > 3
    labels = run("predict", "model.joblib", "lattice.npy", *fast, *flags)
    assert labels.split() == [str(label) for label in clf.predict(X)]


def test_parameters_are_those_of_the_options(folder):
    flags = "--bounds=-1,2 --n-selection 20 --radius lipschitz --scheme binary --bound hoeffding --alpha 0.02 --n 250"
    model = ("model.joblib", "test.npz", "--allow-pickle", "--seed", "5", "--quiet")
    run("certify", *model, *flags.split(), "--rtol", "0.3", "--classes", "0,1,7", "--store", "run.sqlite")
    parameters = {"n_selection": 20, "radius": "lipschitz", "scheme": "binary", "bound": "hoeffding", "alpha": 0.02}
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1, 7], bounds=(-1, 2), n_samples=250, rtol=0.3, random_state=5, **parameters
    )
    with np.load("test.npz") as arrays:
        expected = clf.certify(arrays["X"])
    found = Certificates.from_store("run.sqlite")
    for name in ("labels", "radii", "p_a", "n_samples"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert set(found.labels) == {0, 1}
    lo_hi = np.array([np.full(5, -1.0), np.full(5, 2.0)])
    np.save("bounds.npy", lo_hi)
    flags = flags.replace("-1,2", "bounds.npy")
    run("certify", *model, *flags.split(), "--rtol", "0.3", "--classes", "0,1,7", "--store", "ends.sqlite")
    np.testing.assert_array_equal(Certificates.from_store("ends.sqlite").radii, expected.radii)


def test_columns_of_tables_are_those_of_the_certificates(folder):
    pandas = pytest.importorskip("pandas")
    model = ("model.joblib", "test.npz", "--allow-pickle", "--seed", "5", *FAST)
    run("certify", *model, "-o", "direct.csv")
    run("certify", *model, "--store", "run.sqlite", "-o", "stored.csv")
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], n_samples=300, alpha=0.01, random_state=5
    )
    with np.load("test.npz") as arrays:
        expected, y = clf.certify(arrays["X"]), arrays["y"]
    names = ["input", "label", "predicted", "radius", "abstained", "p_a", "p_b", "n_samples"]
    values = [np.arange(30), y, expected.labels, expected.radii, expected.abstained, expected.p_a, expected.p_b]
    direct, stored = pandas.read_csv("direct.csv"), pandas.read_csv("stored.csv")
    assert list(direct) == names
    assert list(stored) == [*names, "seconds"]
    for frame in (direct, stored):
        for name, value in zip(names, [*values, np.full(30, 300)], strict=True):
            np.testing.assert_array_equal(frame[name], value)
    np.testing.assert_allclose(stored["seconds"], read_store("run.sqlite").seconds)


def test_models_that_know_their_columns_check_them(folder):
    pandas = pytest.importorskip("pandas")
    with np.load("test.npz") as arrays:
        X, y = pandas.DataFrame(arrays["X"], columns=list("abcde")), arrays["y"]
    X.to_csv("table.csv", index=False)
    X[list("edcba")].to_csv("reversed.csv", index=False)
    clf = SmoothedClassifier(LogisticRegression(), alpha=0.01, n_samples=300, random_state=0).fit(X, y)
    joblib.dump(clf, "knows.joblib")
    model = ("knows.joblib", "--allow-pickle", "--quiet")
    run("certify", model[0], "table.csv", *model[1:], "-o", "out.csv", "--store", "run.sqlite")
    radii = [float(row["radius"]) for row in table("out.csv")]
    np.testing.assert_array_equal(radii, clf.certify(X).radii)
    run("resume", "run.sqlite", model[0], "table.csv", *model[1:])
    run("recertify", "run.sqlite", "--alpha", "0.02", "--data", "table.csv")
    for command in (("certify",), ("predict",), ("resume", "run.sqlite")):
        message = run(*command, model[0], "reversed.csv", *model[1:], code=1)
        assert "must be in the same order as they were in fit" in message


def test_mistakes_are_explained(folder, skops_model):
    assert "There is no file 'missing.skops'" in run("certify", "missing.skops", "test.npy", code=1)
    assert "There is no file 'missing.npy'" in run("certify", skops_model, "missing.npy", code=1)
    assert "lam must be a finite number above 0" in run("certify", skops_model, "test.npy", "--lam", "-1", code=1)
    assert "Give --lam or --sigma" in run("certify", skops_model, "test.npy", "--lam", "1", "--sigma", "1", code=2)
    assert "--bounds must be LO,HI" in run("certify", skops_model, "test.npy", "--bounds", "1", code=2)
    assert "is not a smoothcert store" in run("status", "test.npy", code=1)
    assert "must end in .tsv" in run("certify", skops_model, "test.npy", *FAST, "-o", "table.doc", code=1)
    run("certify", skops_model, "test.npy", *FAST, "--store", "run.sqlite")
    assert "votes, as smoothcert recertify run.sqlite does in a shell." in run(
        "certify", skops_model, "test.npy", *FAST, "--alpha", "0.2", "--store", "run.sqlite", code=1
    )
    assert "holds no true labels" in run("curve", "run.sqlite", code=1)
    assert run("curve", "run.sqlite", "--labels", "labels.npy", "--radii", "0").startswith("radius\trun.sqlite\n0\t")
    np.savez("three.npz", a=np.zeros(1), b=np.zeros(1))
    assert "name the inputs with --key" in run("certify", skops_model, "three.npz", code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("status nothere.sqlite", "Path 'nothere.sqlite' does not exist. See smoothcert status --help."),
        ("certify", "Missing argument 'MODEL'. See smoothcert certify --help."),
        ("curve run.sqlite --nonsense", "No such option '--nonsense'"),
        ("nonsense", "No such command 'nonsense'. See smoothcert --help."),
    ],
)
def test_wrong_usage_is_one_line(folder, arguments, message):
    (folder / "run.sqlite").touch()
    result = CliRunner().invoke(cli, arguments.split(), prog_name="smoothcert")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


def test_warnings_are_one_line(folder):
    with np.load("test.npz") as arrays:
        np.save("far.npy", 1000 * arrays["X"])
    result = CliRunner().invoke(cli, ["certify", "model.joblib", "far.npy", "--allow-pickle", *FAST])
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: X ranges from")
    assert result.stderr.count("\n") == 1


def test_true_labels_that_are_no_class(folder):
    np.save("strange.npy", np.array([7] * 5 + [0] * 25))
    arguments = ("model.joblib", "test.npy", "--allow-pickle", "--labels", "strange.npy", *FAST)
    run("certify", *arguments, "-o", "strange.tsv")
    read, truth, _ = Certificates.from_tsv("strange.tsv", alpha=0.01, norm=1)
    assert truth.tolist() == [2] * 5 + [0] * 25
    assert len(read) == 30
    Path("words.txt").write_text("yes\n" * 30)
    message = run("certify", "model.joblib", "test.npy", "--allow-pickle", "--labels", "words.txt", *FAST, code=1)
    assert "y must hold labels like the classes, [0, 1], got ['yes', 'yes', 'yes']" in message


def test_curves_of_several_runs(folder):
    certify = ("certify", "model.joblib", "test.npz", "--allow-pickle", *FAST)
    for path in ("a/run.sqlite", "b/run.sqlite"):
        Path(path).parent.mkdir()
        run(*certify, "--store", path)
    run(*certify, "--lam", "0.2", "--store", "b/narrow.sqlite")
    shown = run("curve", "a/run.sqlite", "b/run.sqlite", "b/narrow.sqlite", "--radii", "0.15,0,0.3", "--png", "all.png")
    header, *lines = [line.split("\t") for line in shown.splitlines()]
    assert header == ["radius", "a/run.sqlite", "b/run.sqlite", "b/narrow.sqlite"]
    assert [line[0] for line in lines] == ["0.15", "0", "0.3"]
    for i, store in enumerate(header[1:], start=1):
        expected = certified_accuracy_score(np.load("labels.npy"), Certificates.from_store(store), [0.15, 0, 0.3])
        assert [line[i] for line in lines] == [f"{accuracy:.4f}" for accuracy in expected]
    assert len({tuple(line[2:]) for line in lines}) > 1
    radii = [line.split("\t")[0] for line in run("curve", "a/run.sqlite").splitlines()[1:]]
    largest = np.nanmax(Certificates.from_store("a/run.sqlite").radii)
    # The accuracy is that at the radius that is shown, which is no larger than the largest.
    assert radii == [rounded_down(radius) for radius in np.linspace(0, largest, 13)]
    assert float(run("curve", "a/run.sqlite").splitlines()[-1].split("\t")[1]) > 0
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], "gaussian", radius=LipschitzRadius(norm=2), n_samples=300, alpha=0.01
    )
    with np.load("test.npz") as arrays:
        clf.certify(arrays["X"], y=arrays["y"], store="l2.sqlite")
    assert "their radii cannot be compared" in run("curve", "a/run.sqlite", "l2.sqlite", code=1)
    for wrong in ("a", "-1", "nan", "0,"):
        assert "'--radii': must be numbers of at least 0" in run("curve", "a/run.sqlite", "--radii", wrong, code=2)
    assert "must hold each radius once, got '0,0.2,0.20'" in run(
        "curve", "a/run.sqlite", "--radii", "0,0.2,0.20", code=2
    )


def test_shards_are_merged(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle", *FAST)
    run("certify", *model, "--seed", "3", "--store", "whole.sqlite")
    for i in (1, 2, 3):
        run("certify", *model, "--seed", "3", "--shard", f"{i}/3", "--store", f"part-{i}.sqlite", "-o", f"{i}.csv")
    assert [int(row["input"]) for row in table("2.csv")] == list(range(10, 20))
    assert [int(row["label"]) for row in table("2.csv")] == np.load("labels.npy")[10:20].tolist()
    shown = run("merge", "run.sqlite", "part-3.sqlite", "part-1.sqlite", "part-2.sqlite")
    assert "30 of 30 inputs (100.0%)" in shown
    run("export", "whole.sqlite", "whole.csv")
    run("export", "run.sqlite", "run.csv")
    for one, other in zip(table("whole.csv"), table("run.csv"), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}
    assert "exists already" in run("merge", "run.sqlite", "part-1.sqlite", code=1)
    assert "random_state must be set" in run("certify", *model, "--shard", "1/3", code=1)
    for wrong in ("1", "a/3", "1/", "-1/3"):
        assert "--shard must be I/N" in run("certify", *model, f"--shard={wrong}", code=2)
    assert "(i, n) with 1 <= i <= n" in run("certify", *model, "--seed", "3", "--shard", "4/3", code=1)
    run("resume", "part-2.sqlite", "model.joblib", "test.npz", "--allow-pickle", "--quiet")


def test_decisions(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle", "--seed", "3", *FAST)
    shown = run("certify-at", *model, "--radii", "0.1,0.3", "--store", "run.sqlite", "-o", "direct.csv")
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], n_samples=300, alpha=0.01, random_state=3
    )
    with np.load("test.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    expected = clf.certify_at(X, [[0.1, 0.3]])
    right = ((expected.labels == y)[:, None] & expected.robust).mean(axis=0)
    assert shown.splitlines()[1] == f"Certified accuracy {right[0]:.4f} at 0.1, {right[1]:.4f} at 0.3"
    run("export", "run.sqlite", "stored.csv")
    for name in ("direct.csv", "stored.csv"):
        rows = table(name)
        for i, radius in enumerate(("0.1", "0.3")):
            assert [row[f"robust at {radius}"] == "True" for row in rows] == expected.robust[:, i].tolist()
        assert [int(row["n_samples"]) for row in rows] == expected.n_samples.tolist()
    run("resume", "run.sqlite", "model.joblib", "test.npz", "--allow-pickle", "--quiet")
    run("certify-at", *model, "--radii", "0.1", "-o", "one.csv")
    assert [row["robust at 0.1"] == "True" for row in table("one.csv")] == clf.certify_at(X, 0.1).robust.tolist()
    assert json.loads(run("status", "run.sqlite", "--json"))["decided_at"] == [0.1, 0.3]
    assert "Use Decisions.from_store" in run("recertify", "run.sqlite", code=1)
    assert "holds radii, and not decisions" in run("export", "run.sqlite", "out.tsv", code=1)


def test_labels_are_added_checked_and_given(folder):
    model = ("model.joblib", "test.npy", "--allow-pickle", "--seed", "3", *FAST)
    run("certify", *model, "--store", "run.sqlite")
    y, other = np.load("labels.npy"), 1 - np.load("labels.npy")
    np.save("other.npy", other)
    run("export", "run.sqlite", "given.tsv", "--labels", "labels.npy")
    assert [int(row["label"]) for row in table("given.tsv")] == y.tolist()
    stored = Certificates.from_store("run.sqlite")
    wrong = certified_accuracy_score(other, stored, 0)
    assert f"Certified accuracy {wrong:.4f} at 0" in run("recertify", "run.sqlite", "--labels", "other.npy")
    assert "Certified accuracy" not in run("recertify", "run.sqlite")
    run("label", "run.sqlite", "labels.npy")
    assert f"Certified accuracy {certified_accuracy_score(y, stored, 0):.4f} at 0" in run("recertify", "run.sqlite")
    for command in (
        ("label", "run.sqlite", "other.npy"),
        ("certify", *model, "--store", "run.sqlite", "--labels", "other.npy"),
    ):
        assert "30 of 30 differ" in run(*command, code=1)
    # A resumed run without labels shows the accuracy of those in the store.
    assert "Certified accuracy" in run("certify", *model, "--store", "run.sqlite")


def test_inputs_that_fail_are_skipped(folder):
    X = np.load("test.npy")
    X[4, 1] = np.nan
    np.save("spoiled.npy", X)
    model = ("model.joblib", "spoiled.npy", "--allow-pickle", "--seed", "3", *FAST, "--labels", "labels.npy")
    assert "X[4]: " in run("certify", *model, "--store", "run.sqlite", "--scan", code=1)
    assert not Path("run.sqlite").exists()
    result = CliRunner().invoke(
        cli, ["certify", *model, "--store", "run.sqlite", "--on-error", "skip", "-o", "out.csv"]
    )
    assert result.exit_code == 4
    assert result.stderr.startswith("Warning: 1 of 30 inputs failed: X[4] (")
    for name in ("out.csv", "again.csv"):
        rows = table(name)
        assert [row["failed"] for row in rows] == ["True" if i == 4 else "False" for i in range(30)]
        assert np.isnan(float(rows[4]["radius"]))
        run("export", "run.sqlite", "again.csv", "--force")
    run("export", "run.sqlite", "out.tsv")
    assert table("out.tsv")[4]["correct"] == "0"
    state = json.loads(run("status", "run.sqlite", "--json"))
    assert (state["finished"], state["failed"], state["n_inputs"]) == (29, 1, 30)


def test_stores_are_verified(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle")
    run("certify", *model, *FAST, "--store", "run.sqlite")
    assert run("verify", "run.sqlite", *model, "--quiet", "--fresh", "--level", "1e-9").startswith(
        "StoreAudit(consistent: of 30 recorded"
    )
    with np.load("test.npz") as arrays:
        np.save("swapped.npy", arrays["X"][[1, 0, *range(2, 30)]])
    result = CliRunner().invoke(cli, ["verify", "run.sqlite", "model.joblib", "swapped.npy", "--allow-pickle", "-q"])
    assert result.exit_code == 3
    assert result.stdout.startswith("StoreAudit(NOT consistent: of 30 recorded inputs, 2 are not those of X;")
    assert "|       0 | X holds another input there |" in result.stdout


def test_files_are_replaced_only_if_asked(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle", "--seed", "3", *FAST)
    Path("out.csv").write_text("precious")
    run("certify", *model, "--store", "run.sqlite")
    commands = [("certify", *model, "-o"), ("recertify", "run.sqlite", "-o"), ("export", "run.sqlite")]
    commands += [("curve", "run.sqlite", "--png"), ("predict", *model[:5], "-q", "-o")]
    for command in commands:
        assert "out.csv exists. Name another file, or replace it with --force" in run(*command, "out.csv", code=1)
        assert "must be in an existing directory" in run(*command, "missing/out.csv", code=1)
    np.savetxt("test.csv", np.load("test.npy"), delimiter=",", header="a,b,c,d,e", comments="")
    for command in (
        ("predict", *model[:5], "-q", "-o", "test.npz"),
        ("predict", *model[:5], "-q", "-o", "model.joblib"),
        ("curve", "run.sqlite", "--png", "run.sqlite"),
        ("certify", "model.joblib", "test.csv", *model[2:], "-o", "test.csv"),
        ("export", "run.sqlite", "--labels", "out.csv", "out.csv"),
    ):
        assert "is a file that this command reads" in run(*command, "--force", code=1)
    assert Path("out.csv").read_text() == "precious"
    run("export", "run.sqlite", "out.csv", "--force")
    assert len(table("out.csv")) == 30
    assert not list(Path().glob(".*.part"))


def test_mistakes_in_options_are_explained_in_our_words(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle", *FAST)
    assert "batch_size must be a whole number of at least 1, got 0" in run(
        "certify", *model, "--batch-size", "0", code=1
    )
    assert "--workers must be a number of processes" in run("certify", *model, "--workers", "0", code=2)
    assert "--device is for torch models, and model.joblib is a LogisticRegression" in run(
        "certify", *model, "--device", "cuda", code=2
    )
    assert "GaussianNoise has no --lam: it has --levels, --sigma" in run(
        "certify", *model, "--noise", "gaussian", "--lam", "1", code=2
    )
    assert "--radius box does not go with --max-change" in run(
        "certify", *model, "--radius", "box", "--max-change", "0.5", code=2
    )
    assert "'--lams': must be numbers of at least 0" in run("certify", *model, "--lams", "a", code=2)
    joblib.dump({"weight": np.arange(10**5), "bias": [0.0] * 10**5}, "state.joblib")
    message = run("certify", "state.joblib", "test.npz", "--allow-pickle", "--classes", "2", *FAST, code=1)
    assert "state.joblib holds a dict of 2 entries, and no model" in message
    assert len(message) < 300


PARAMETERS = [
    (
        ["--noise", "uniform-mixture", "--lams", "0.3,1", "--weights", "0.4,0.6"],
        UniformMixtureNoise((0.3, 1.0), (0.4, 0.6)),
        "greedy",
    ),
    (["--noise", "gaussian", "--sigma", "0.4", "--norm", "2"], GaussianNoise(0.4), LipschitzRadius(norm=2)),
    (["--max-change", "0.25"], SplitNoise(), GreedyRadius(max_change=0.25)),
    (["--radius", "greedy", "--max-features", "2"], SplitNoise(), GreedyRadius(max_features=2)),
]


@pytest.mark.parametrize(
    ("flags", "noise", "radius"), PARAMETERS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_noise_and_radius_have_all_their_parameters(folder, flags, noise, radius):
    run("certify", "model.joblib", "test.npz", "--allow-pickle", "--seed", "4", *FAST, "-o", "out.csv", *flags)
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], noise, radius=radius, n_samples=300, alpha=0.01, random_state=4
    )
    with np.load("test.npz") as arrays:
        expected = clf.certify(arrays["X"])
    assert [float(row["radius"]) for row in table("out.csv")] == pytest.approx(expected.radii, abs=0, nan_ok=True)


def test_a_smoothed_classifier_keeps_its_settings_and_checks(folder, monkeypatch):
    with np.load("test.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    clf = SmoothedClassifier(LogisticRegression(), SplitNoise(0.5), timeout=7.0, n_jobs=1, batch_size=99).fit(X, y)
    monkeypatch.setattr("smoothcert.cli.options.load", lambda given: clf)
    given = defaultdict(lambda: None, quiet=True)
    for more in ({}, {"lam": 0.7}, {"bounds": (0, 2)}):
        made = smoothed(given | more)
        assert (made.timeout, made.n_jobs, made.batch_size, made.feature_shape_) == (7.0, 1, 99, (5,))
        with pytest.raises(ValueError, match="features"):
            made.predict(X[:, :4])
    assert smoothed(given | {"timeout": 3.0}).timeout == 3.0
    assert clf.timeout == 7.0


def test_the_log_of_a_run_that_is_no_terminal(folder):
    model = ("model.joblib", "test.npz", "--allow-pickle", "--n", "300", "--alpha", "0.01")
    result = CliRunner().invoke(cli, ["--log", "run.log", "certify", *model])
    assert result.exit_code == 0
    for text in (result.stderr, Path("run.log").read_text()):
        assert "\r" not in text
        assert "certifying: 30 inputs" in text
        assert "certifying: ended, 30 of 30 inputs" in text
    # The handler is gone with the command.
    assert CliRunner().invoke(cli, ["certify", *model, "--quiet"]).stderr == ""


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help_shows_an_example(command):
    shown = run(command, "--help")
    assert f"  smoothcert {command} " in shown


def test_python_m():
    done = subprocess.run([sys.executable, "-m", "smoothcert", "--version"], capture_output=True, text=True)
    if "is not installed" in done.stderr:
        pytest.skip("smoothcert is not installed")
    assert done.stdout.startswith("smoothcert, version")


@pytest.fixture
def mixed(folder):
    """A table of mixed columns, and models that were fitted on it."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame({"age": rng.random(80), "job": rng.choice(["cook", "pilot"], 80), "town": ["P", "Q"] * 40})
    y = np.where(X["age"] + 0.6 * (X["job"] == "cook") > 0.8, "yes", "no")
    X[:20].assign(label=y[:20]).to_csv("mixed.csv", index=False)
    X[:20].assign(label=y[:20]).to_parquet("mixed.parquet")
    encode = make_column_transformer((OneHotEncoder(), ["job", "town"]), remainder="passthrough")
    base = make_pipeline(encode, DecisionTreeClassifier(max_depth=3))
    joblib.dump(make_pipeline(encode, DecisionTreeClassifier(max_depth=3)).fit(X, y), "plain.joblib")
    settings = {"costs": {"town": "fixed", "job": 0.5}, "categorical_features": ["job"], "random_state": 0}
    joblib.dump(SmoothedClassifier(base, UniformNoise(1.0), **settings).fit(X, y), "smoothed.joblib")
    return X[:20], settings


def test_mixed_columns_of_a_smoothed_classifier(mixed):
    X, _ = mixed
    files, expected = ("--allow-pickle", "--target", "label", "--quiet"), joblib.load("smoothed.joblib").certify(X)
    for data in ("mixed.csv", "mixed.parquet"):
        run("certify", "smoothed.joblib", data, *files, "-o", "out.csv", "--force", "--store", f"{data}.sqlite")
        np.testing.assert_array_equal([float(row["radius"]) for row in table("out.csv")], expected.radii)
        shown = run("verify", f"{data}.sqlite", "smoothed.joblib", data, *files)
        assert shown.startswith("StoreAudit(consistent: of 20 recorded inputs, 0 are not those of X; of 20 checked")
        assert "20 inputs" in run("resume", f"{data}.sqlite", "smoothed.joblib", data, *files)
    message = "noise, box, costs and classes of a classifier with categories cannot be changed"
    assert message in run("certify", "smoothed.joblib", "mixed.csv", *files, "--cost", "age=2", code=2)
    assert "need the fitted classifier itself" in run(
        "verify", "mixed.csv.sqlite", "plain.joblib", "mixed.csv", *files, code=1
    )


def test_costs_and_categories_of_a_plain_model(mixed):
    X, settings = mixed
    y = np.array(["no", "yes"] * 10)
    command = ("certify", "plain.joblib", "mixed.csv", "--allow-pickle", "--target", "label", "--quiet", "--seed", "0")
    noise = ("--noise", "uniform", "--cost", "job=0.5")
    base = FrozenEstimator(joblib.load("plain.joblib"))
    expected = SmoothedClassifier(base, UniformNoise(1.0), **settings).fit(X, y).certify(X)
    assert np.nanmax(expected.radii) > 0.1
    for kind in (["--cost", "town=fixed", "--categorical", "job"], ["--cost", "town=inf", "--categorical", "job"]):
        run(*command, *noise, *kind, "-o", "out.csv", "--force")
        np.testing.assert_array_equal([float(row["radius"]) for row in table("out.csv")], expected.radii)
    by_type = SmoothedClassifier(base, UniformNoise(1.0), **settings | {"categorical_features": "from_dtype"}).fit(X, y)
    run(*command, *noise, "--cost", "town=fixed", "--categorical-features", "from_dtype", "-o", "out.csv", "--force")
    np.testing.assert_array_equal([float(row["radius"]) for row in table("out.csv")], by_type.certify(X).radii)
    for *given, wrong in (["home=2"], ["age"], ["age=much"], ["age=2", "age=3"]):
        options = [text for cost in (*given, wrong) for text in ("--cost", cost)]
        assert re.search(f"--cost must be COLUMN=VALUE, .* once for .*got '{wrong}'", run(*command, *options, code=2))
    assert "--categorical must be one of the columns ['age'" in run(*command, "--categorical", "home", code=2)


def test_costs_by_position(folder):
    command = ("certify", "model.joblib", "test.npz", "--allow-pickle", "--seed", "0", *FAST)
    run(*command, "--cost", "1=2", "--cost", "3=0.5", "-o", "out.csv")
    clf = SmoothedClassifier.from_pretrained(
        joblib.load("model.joblib"), [0, 1], costs=[1, 2, 1, 0.5, 1], n_samples=300, alpha=0.01, random_state=0
    )
    with np.load("test.npz") as arrays:
        np.testing.assert_array_equal(
            [float(row["radius"]) for row in table("out.csv")], clf.certify(arrays["X"]).radii
        )


def test_runs_of_a_regressor_are_resumed_and_verified(folder):
    X, y = np.load("test.npy"), np.load("test.npy").sum(axis=1)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0)
    reg = SmoothedRegressor(tree, SplitNoise(0.5), costs=[1, 2, 1, 1, np.inf], quantile=0.6, n_samples=100).fit(X, y)
    joblib.dump(reg, "reg.joblib")
    joblib.dump(reg.estimator_, "base.joblib")
    joblib.dump(SmoothedConformalClassifier(LogisticRegression(), radius=0.1).fit(X, y > 2), "sets.joblib")
    whole = reg.certify(X, 0.2, store="run.sqlite")
    for model in ("reg.joblib", "base.joblib"):
        shown = run("verify", "run.sqlite", model, "test.npz", "--allow-pickle", "-q", "--fresh", "--level", "1e-9")
        assert shown.startswith("StoreAudit(consistent: of 30 recorded inputs, 0 are not those of X; of 30 checked, 0 ")
        with contextlib.closing(sqlite3.connect("run.sqlite")) as connection:
            connection.execute("DELETE FROM results WHERE input % 3 = 0")
            connection.commit()
        shown = run("resume", "run.sqlite", model, "test.npz", "--allow-pickle", "-q")
        assert re.search(r"finished: +30 of 30 inputs", shown)
        np.testing.assert_array_equal(Intervals.from_store("run.sqlite", 0.2).upper, whole.upper)
    shown = run("status", "run.sqlite")
    assert ("n samples:" in shown, "n classes:" in shown) == (True, False)
    np.save("moved.npy", np.where(np.arange(30)[:, None] == 4, 0.5, X))
    result = CliRunner().invoke(cli, ["verify", "run.sqlite", "reg.joblib", "moved.npy", "--allow-pickle", "-q"])
    assert (result.exit_code, "|       4 | X holds another input there |" in result.stdout) == (3, True)
    for more in (["-o", "out.csv"], ["--labels", "labels.npy"]):
        command = ("resume", "run.sqlite", "reg.joblib", "test.npy", "--allow-pickle", *more)
        assert "Use Intervals.from_store(path, radius) or" in run(*command, code=1)
    np.save("broken.npy", np.where(np.arange(30)[:, None] == 4, np.nan, X))
    with pytest.warns(UserWarning, match="1 of 30 inputs failed"):
        reg.certify(np.load("broken.npy"), 0.2, store="skips.sqlite", on_error="skip")
    command = ("resume", "skips.sqlite", "reg.joblib", "broken.npy", "--allow-pickle", "-q", "--on-error", "skip")
    skipped = CliRunner().invoke(cli, command)
    assert (skipped.exit_code, re.findall(r"failed: +(\d)", skipped.stdout)) == (4, ["1"])
    for model in ("reg.joblib", "base.joblib", "sets.joblib"):
        assert "must be a scikit-learn classifier" in run("certify", model, "test.npy", "--allow-pickle", code=1)
    joblib.dump(SmoothedRegressor(tree), "new.joblib")
    assert "is not fitted yet" in run("verify", "run.sqlite", "new.joblib", "test.npy", "--allow-pickle", code=1)
