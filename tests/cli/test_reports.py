"""Reports of the command line, and its log."""

import dataclasses
import json
import logging
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner

from smoothcert import Certificates, Decisions, GreedyRadius, LipschitzRadius, SmoothedClassifier
from smoothcert.cli import reports
from smoothcert.cli.main import cli
from smoothcert.cli.reports import being_written, check_output, plot, show_status, write_table
from smoothcert.runs.store import write_lock

X = np.random.default_rng(0).random((12, 3))
Y = (X[:, 0] > 0.4).astype(int)


def rule(rows):
    return (rows[:, 0] > 0.5).astype(int)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], "uniform", n_samples=100, alpha=0.05, random_state=0)
    clf.certify(X, store="run.sqlite", y=Y)
    return tmp_path


def test_debugging_shows_the_log(folder, monkeypatch):
    monkeypatch.setattr(
        "smoothcert.cli.stores.add_labels", lambda *given: logging.getLogger("smoothcert").info("noted")
    )
    np.save("labels.npy", Y)
    assert CliRunner().invoke(cli, ["--debug", "label", "run.sqlite", "labels.npy"]).stderr.endswith(" noted\n")
    assert CliRunner().invoke(cli, ["label", "run.sqlite", "labels.npy"]).stderr == ""


def test_status_as_text():
    status = {
        "store": "a", "finished": 3, "n_inputs": 8, "being_written": True, "shard": None, "work_left": 1.5,
        "certified": {"0": 0.5, "1": 0.12345}, "versions": {"numpy": "2"}, "on": False,
    }  # fmt: skip
    assert show_status(status).splitlines() == [
        "store:               a",
        "finished:            3 of 8 inputs (37.5%)",
        "n inputs:            8",
        "being written:       yes",
        "work left:           1.5",
        "certified:           0 0.5000, 1 0.1235",
        "versions:            numpy 2",
        "on:                  no",
    ]
    assert show_status(status, only=("finished", "on")).splitlines() == [
        "finished:            3 of 8 inputs (37.5%)",
        "on:                  no",
    ]


def test_a_run_that_is_being_written_is_told(folder):
    Path("other.sqlite").touch()
    assert not being_written("other.sqlite")
    assert not Path("other.sqlite.lock").exists()
    with write_lock(Path("run.sqlite")):
        assert being_written("run.sqlite")
        assert reports.status_of("run.sqlite")["being_written"]
    assert not being_written("run.sqlite")


def test_inputs_that_failed_are_not_left(folder, monkeypatch):
    known = reports.read_status("run.sqlite")
    for finished, failed, seconds in ((6, 0, 12), (6, 2, 8), (10, 2, None), (12, 0, None)):
        status = dataclasses.replace(known, finished=finished, failed=failed, rate=0.5)
        monkeypatch.setattr(reports, "read_status", lambda _, status=status: status)
        assert reports.status_of("run.sqlite").get("seconds_left") == seconds


def test_status_of_one_and_several(folder):
    def shown(*arguments):
        return CliRunner().invoke(cli, ["status", *arguments]).stdout

    one = json.loads(shown("run.sqlite", "--json"))
    assert one["n_classes"] == 2
    assert one["radius"].startswith("GreedyRadius(")
    assert one["versions"]["numpy"] == np.__version__
    assert "certified_accuracy" not in one
    both = json.loads(shown("run.sqlite", "run.sqlite", "--json"))
    assert [each["digest"] for each in both] == [one["digest"]] * 2
    assert shown("run.sqlite", "run.sqlite").count("finished:            12 of 12") == 2


def test_files_are_checked_before_the_work(tmp_path):
    def check(name, **given):
        check_output(str(tmp_path / name), **({"force": False, "inputs": []} | given))

    check("table.csv", table=True)
    check("table.TSV", table=True, has_labels=True)
    check("table.parquet", table=True)
    check("anything")
    for name, given, message in (
        ("table.txt", {"table": True}, "must end in .tsv, .csv or .parquet"),
        ("table.tsv", {"table": True}, "A .tsv table needs true labels"),
        ("none/table.csv", {}, "must be in an existing directory"),
    ):
        with pytest.raises(ValueError, match=message):
            check(name, **given)
    (tmp_path / "there.csv").write_text("x")
    with pytest.raises(ValueError, match=r"there.csv exists"):
        check("there.csv")
    check("there.csv", force=True, inputs=[None, str(tmp_path / "missing")])
    with pytest.raises(ValueError, match="is a file that this command reads"):
        check("there.csv", force=True, inputs=[None, str(tmp_path / "there.csv")])
    assert (tmp_path / "there.csv").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_labels_of_a_table_are_positions_among_the_classes(folder):
    found = Certificates.from_store("run.sqlite")[:4]
    write_table("out.tsv", found, np.array([3, 5, 6, 9]), np.array([7, 0, 5, 1]), np.array([1, 0]), None)
    read, truth, _ = Certificates.from_tsv("out.tsv", alpha=0.05, norm=1)
    # The classes 1 and 0 come first, and then 5 and 7.
    assert truth.tolist() == [3, 1, 2, 0]
    assert 0 < found.abstained.sum() < 4
    assert read.labels.tolist() == np.where(found.abstained, -1, 1 - found.labels).tolist()
    write_table("out.csv", found, np.array([3, 5, 6, 9]), None, np.array([1, 0]), None)
    lines = Path("out.csv").read_text().splitlines()
    assert lines[0] == "input,predicted,radius,abstained,p_a,p_b,n_samples"
    assert [line.split(",")[0] for line in lines[1:]] == ["3", "5", "6", "9"]


def test_columns_are_named_by_radii_that_are_not_rounded(folder):
    radii = np.array([[0.25, 0.25000001, 0.9999999]])
    found = Decisions(np.zeros(1), np.array([[True, False, False]]), np.ones(1, int), radii, alpha=0.1, norm=1)
    write_table("out.csv", found, np.zeros(1, int), None, np.array([0]), None)
    header, row = Path("out.csv").read_text().splitlines()
    assert header == "input,predicted,robust at 0.25,robust at 0.25000001,robust at 0.9999999,n_samples"
    assert row.endswith("True,False,False,1")


def test_curves_are_named_by_files_and_drawn_as_the_suffix_says(folder, monkeypatch):
    seen, init = [], reports.CertifiedAccuracyDisplay.__init__

    def spy(self, curves, **given):
        seen.append((list(curves), given["norm"], given["threat"], curves))
        init(self, curves, **given)

    monkeypatch.setattr(reports.CertifiedAccuracyDisplay, "__init__", spy)
    found = Certificates.from_store("run.sqlite")
    other = found[::-1]
    plot("a.png", {"x/run.sqlite": found, "y/two.sqlite": other}, {"x/run.sqlite": Y, "y/two.sqlite": Y[::-1]})
    plot("b.svg", {"x/run.sqlite": found, "y/run.sqlite": other}, {"x/run.sqlite": Y, "y/run.sqlite": Y[::-1]})
    plot("c", {"x/run.sqlite": found}, {"x/run.sqlite": Y})
    assert [names for names, *_ in seen] == [["run", "two"], ["x/run.sqlite", "y/run.sqlite"], ["run"]]
    assert seen[0][1:3] == (1, "every perturbation")
    first, second = seen[0][3].values()
    np.testing.assert_array_equal(first[1], second[1])
    assert matplotlib.image.imread("a.png").shape[:2] == (630, 960)
    assert b"<svg" in Path("b.svg").read_bytes()
    assert Path("c").read_bytes()[:4] == b"\x89PNG"


def test_votes_are_certified_again_by_every_rule(folder):
    def shown(*arguments, code=0):
        result = CliRunner().invoke(cli, ["recertify", "run.sqlite", "-o", "out.csv", "--force", *arguments])
        assert result.exit_code == code, result.output
        return [float(line.split(",")[3]) for line in Path("out.csv").read_text().splitlines()[1:]]

    plain = shown()
    np.testing.assert_array_equal(plain, Certificates.from_store("run.sqlite").radii)
    np.save("data.npy", X)
    limit = ["--max-change", "0.1", "--max-features", "2"]
    for arguments, rule in (
        (["--bound", "hoeffding"], {"bound": "hoeffding"}),
        (["--scheme", "binary"], {"scheme": "binary"}),
        (["--alpha", "0.2"], {"alpha": 0.2}),
        (["--norm", "inf"], {"radius": LipschitzRadius(norm=np.inf)}),
        ([*limit, "--data", "data.npy"], {"radius": GreedyRadius(max_change=0.1, max_features=2), "X": X}),
    ):
        found = shown(*arguments)
        np.testing.assert_array_equal(found, Certificates.from_store("run.sqlite", **rule).radii)
        assert arguments == ["--scheme", "binary"] or not np.array_equal(found, plain, equal_nan=True)
    np.save("data.npy", 1 - X)
    shown(*limit, "--data", "data.npy", code=1)


def test_predictions_go_to_a_file(folder):
    Path("rules.py").write_text("def make():\n    return lambda rows: (rows[:, 0] > 0.5).astype(int)\n")
    np.save("data.npy", X)
    arguments = ["predict", "rules:make", "data.npy", "--classes", "2", "--seed", "0", "-q"]
    shown = CliRunner().invoke(cli, arguments)
    written = CliRunner().invoke(cli, [*arguments, "-o", "labels.txt"])
    assert (written.exit_code, written.output) == (0, "")
    assert Path("labels.txt").read_text() == shown.stdout
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], random_state=0)
    assert shown.stdout.split() == [str(label) for label in clf.predict(X)]
