"""Saved results: they come back bit by bit, or not at all."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from smoothcert import Certificates, Decisions, SmoothedClassifier, VoteCounts
from smoothcert.results.files import LAYOUT, load_content, save_content
from smoothcert.results.votes import Origin

from ..base_models import Rule, steps

FORMATS = ["npz", "parquet"]


def certificates(labels=("a", "b<i>", "日本", "c"), dtype=None, **changes):
    arrays = {
        "labels": np.array(labels, dtype=dtype),
        "radii": np.array([0.1 + 0.2, np.nan, np.inf, 5e-324]),
        "abstained": np.array([False, True, False, False]),
        "p_a": np.array([0.7, 0.4, 0.99, 0.9]),
        "p_b": np.array([0.3, 0.6, 0.01, 0.05]),
        "n_samples": np.array([10, 20, 30, 2**40]),
    }
    return Certificates(**(arrays | {"alpha": 1e-3 / 3, "norm": 1, "threat": "perturbations with µ|π=2"} | changes))


def assert_same(one, other):
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if isinstance(before, np.ndarray):
            assert (before.dtype, before.shape) == (after.dtype, after.shape)
            np.testing.assert_array_equal(before, after)
            assert not after.flags.writeable
        else:
            assert (before, type(before)) == (after, type(after))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": object},
        {"labels": [3, 1, 2, -7]},
        {"labels": [True, False, True, True]},
        {"labels": [0.5, 1.5, 2.5, 3.5], "dtype": np.float32},
        {"norm": np.inf},
        {"norm": 2.0, "n_samples": None, "alpha": 0.0},
        {"alpha": np.float64(0.01)},
        {"failed": np.array([False, True, False, False])},
    ],
)
def test_certificates_come_back_as_they_were(tmp_path, suffix, changes):
    before = certificates(**changes)
    before.save(tmp_path / f"certificates.{suffix}")
    after = Certificates.load(str(tmp_path / f"certificates.{suffix}"))
    assert_same(dataclasses.replace(before, alpha=float(before.alpha)), after)
    none = before[:0]
    none.save(tmp_path / f"none.{suffix}")
    assert_same(dataclasses.replace(none, alpha=float(none.alpha)), Certificates.load(tmp_path / f"none.{suffix}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"certificates.{suffix}", f"none.{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_decisions_come_back_as_they_were(tmp_path, suffix):
    decisions = Decisions(np.array(["a", "b"]), np.array([True, False]), np.array([4, 8]), np.array([0.5, 1]), 0.1, 1)
    decisions.save(tmp_path / f"decisions.{suffix}")
    assert_same(decisions, Decisions.load(tmp_path / f"decisions.{suffix}"))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("classes", [["left", "right"], [-1, 1]])
def test_saved_votes_certify_as_fresh_ones_do(tmp_path, suffix, classes):
    X = np.linspace(0, 1, 12).reshape(6, 2)
    rule = Rule(lambda X: np.asarray(classes)[steps([0.5])(X)], classes=classes).fit(X, None)
    clf = SmoothedClassifier.from_pretrained(rule, classes, "uniform", n_samples=200, random_state=None)
    votes = clf.count_votes(X)
    assert votes.origin.seed > 2**64
    votes.save(tmp_path / f"votes.{suffix}")
    loaded = VoteCounts.load(tmp_path / f"votes.{suffix}")
    assert_same(votes, loaded)
    assert_same(clf.certify(X, votes=votes), clf.certify(X, votes=loaded))
    with pytest.raises(ValueError, match="drawn with a different X"):
        clf.certify(X[::-1], votes=loaded)


def test_parquet_is_a_table_for_other_tools(tmp_path):
    pandas = pytest.importorskip("pandas")
    certificates().save(tmp_path / "certificates.parquet")
    frame = pandas.read_parquet(tmp_path / "certificates.parquet")
    assert frame["labels"].tolist() == ["a", "b<i>", "日本", "c"]
    np.testing.assert_array_equal(frame["radii"], [0.1 + 0.2, np.nan, np.inf, 5e-324])


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_damage_goes_unnoticed(tmp_path, suffix):
    path, before = tmp_path / f"certificates.{suffix}", certificates()
    before.save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(len(content), size=40).tolist():
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"certificates.{suffix} (is damaged|was not written)"):
            Certificates.load(path)
    messages = []
    for position in rng.integers(len(content), size=300).tolist():
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            after = Certificates.load(path)
        except ValueError as error:
            messages.append(str(error))
        else:  # Some bytes hold nothing, such as time stamps.
            assert_same(before, after)
    assert len(messages) > 100
    assert all(f"certificates.{suffix}" in message for message in messages)


@pytest.mark.parametrize("suffix", FORMATS)
def test_foreign_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"foreign.{suffix}"
    for content in (b"", b"PK\x03\x04", b"PAR1PAR1", b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"foreign.{suffix} is damaged or not a .{suffix} file"):
            Certificates.load(path)
    if suffix == "npz":
        np.savez(path, labels=np.arange(3))
    else:
        pytest.importorskip("pandas").DataFrame({"labels": range(3)}).to_parquet(path)
    with pytest.raises(ValueError, match=f"foreign.{suffix} was not written by smoothcert: .*labels"):
        Certificates.load(path)
    with pytest.raises(FileNotFoundError):
        Certificates.load(tmp_path / f"nothing.{suffix}")


def test_pickled_arrays_are_refused(tmp_path):
    class Dangerous:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "pickled.npz"
    np.savez(path, smoothcert=np.array([Dangerous()], dtype=object))
    with pytest.raises(ValueError, match=r"pickled\.npz is damaged"):
        Certificates.load(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_kinds_and_later_versions_are_refused(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"certificates.{suffix}"
    certificates().save(path)
    with pytest.raises(ValueError, match=r"holds Certificates, not VoteCounts: use Certificates\.load"):
        VoteCounts.load(path)
    monkeypatch.setattr("smoothcert.results.files.LAYOUT", LAYOUT + 1)
    certificates().save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="in a layout that is unknown here"):
        Certificates.load(path)
    save_content(path, "Certificates", {"labels": np.arange(2)}, {"norm": 1})
    with pytest.raises(ValueError, match=r"does not hold the fields of Certificates: .*missing"):
        Certificates.load(path)


def test_the_format_stays_that_of_earlier_versions(tmp_path, monkeypatch):
    """Files with the header of version 0.1.0, digest included, load, and new files have the same header."""
    header = {
        "kind": "Decisions",
        "layout": 1,
        "version": "0.1.0",
        "scalars": {"alpha": 0.1, "norm": "inf", "threat": "every perturbation"},
        "arrays": {
            "labels": ["<U1", True],
            "robust": ["|b1", False],
            "n_samples": ["<i8", False],
            "radius": ["<f8", False],
        },
        "n_columns": {},
        "digest": "5a7e7e9f227af64559cd9865cdb5978d",
    }
    arrays = {"labels": np.array(["a", "b"]), "robust": np.array([True, False])}
    arrays |= {"n_samples": np.array([4, 8]), "radius": np.array([0.5, 1])}
    np.savez(tmp_path / "old.npz", smoothcert=np.array(json.dumps(header)), **arrays)
    labels = np.array(["a", "b"], dtype=object)
    decisions = Decisions(labels, *list(arrays.values())[1:], alpha=0.1, norm=np.inf)
    assert_same(decisions, Decisions.load(tmp_path / "old.npz"))
    monkeypatch.setattr("smoothcert.results.files.version", lambda name: "0.1.0")
    decisions.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as archive:
        assert json.loads(str(archive["smoothcert"])) == header
        assert set(archive.files) == {"smoothcert", *arrays}


def test_the_library_version_is_kept(tmp_path):
    certificates().save(tmp_path / "certificates.npz")
    with np.load(tmp_path / "certificates.npz") as archive:
        assert '"version": "' in str(archive["smoothcert"])


@pytest.mark.parametrize("labels", [[1, "a", "b", "c"], ["a\0", "b", "c", "d"], [None, "a", "b", "c"]])
def test_labels_that_no_file_can_hold_are_refused(tmp_path, labels):
    with pytest.raises(ValueError, match="labels must hold numbers or plain strings"):
        certificates(labels, dtype=object).save(tmp_path / "certificates.npz")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "certificates.npz"
    certificates().save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="disk full"):
        certificates(labels=[1, 2, 3, 4]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in .npz or .parquet, got .*csv"):
        certificates().save(tmp_path / "certificates.csv")
    with pytest.raises(ValueError, match=r"path must end in .npz or .parquet"):
        load_content(tmp_path / "certificates", "Certificates")


def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch):
    certificates().save(tmp_path / "certificates.parquet")
    for module in ("pandas", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    calls = [
        certificates().to_frame,
        lambda: certificates().save(tmp_path / "new.parquet"),
        lambda: Certificates.load(tmp_path / "certificates.parquet"),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=r'pip install "smoothcert\[tables\]"'):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["certificates.parquet"]


def test_origin_survives(tmp_path):
    origin = Origin("SplitNoise()", "box", 2**127 + 1, "model", "['a']", (3, 28, 28))
    votes = VoteCounts(np.array([[3, 1]]), np.array([[5, 2]]), np.zeros((1, 16), np.uint8), origin)
    votes.save(tmp_path / "votes.npz")
    assert VoteCounts.load(tmp_path / "votes.npz").origin == origin
