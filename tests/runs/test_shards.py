"""Shards: parts of one run on independent machines, whose stores and certificates are put together."""

from __future__ import annotations

import sqlite3
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from smoothcert import Certificates, Decisions, SmoothedClassifier, VoteCounts, merge_stores
from smoothcert.runs import merge
from smoothcert.runs.database import StoreError
from smoothcert.runs.inputs import shard_positions
from smoothcert.runs.store import read_store
from smoothcert.runs.verify_store import verify_store

from .test_verify_store import forge

X = np.round(np.random.default_rng(0).random((30, 5)) * 255) / 255
Y = (X[:, 0] > 0.5).astype(int)
BASE = LogisticRegression(C=100).fit(X, Y)
FIELDS = ("labels", "radii", "abstained", "p_a", "p_b", "n_samples", "failed")


def smoothed(**params):
    return SmoothedClassifier.from_pretrained(
        BASE, [0, 1], **{"n_samples": 300, "alpha": 0.01, "random_state": 2**100 + 7, "batch_size": 256} | params
    )


def assert_equal(found, expected):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.alpha, found.norm, found.threat) == (expected.alpha, expected.norm, expected.threat)


def in_shards(folder, n, order=None, **given):
    """Certify in shards, each with a store of its own, and return the stores and certificates."""
    stores = [folder / f"{i}.sqlite" for i in range(1, n + 1)]
    for i in order or range(n):
        smoothed(**given).certify(X, store=stores[i], shard=(i + 1, n), y=Y)
    return stores, [smoothed(**given).certify(X, shard=(i + 1, n)) for i in range(n)]


def test_shards_of_votes_that_are_given():
    clf = smoothed()
    votes, whole = clf.count_votes(X), clf.certify(X)
    assert_equal(Certificates.concatenate([clf.certify(X, votes=votes, shard=(i, 4)) for i in (1, 2, 3, 4)]), whole)
    for part in (votes[:15], votes[15:]):
        with pytest.raises(ValueError, match=f"with a different X: they are those of {len(part)} inputs, and X has 30"):
            clf.certify(X, votes=part, shard=(2, 2))


@pytest.mark.parametrize("rtol", [None, 0.1])
def test_a_run_in_eight_shards_is_the_run_in_one(tmp_path, rtol):
    whole = smoothed(rtol=rtol).certify(X, store=tmp_path / "whole.sqlite", y=Y)
    stores, parts = in_shards(tmp_path, 8, order=[5, 0, 7, 1, 2, 6, 4, 3], rtol=rtol)
    assert [len(part) for part in parts] == [3, 4, 4, 4, 3, 4, 4, 4]
    merge_stores(tmp_path / "merged.sqlite", stores[::-1])
    assert_equal(Certificates.from_store(tmp_path / "merged.sqlite"), whole)
    assert_equal(Certificates.from_store(tmp_path / "merged.sqlite", X=X), whole)
    assert_equal(Certificates.concatenate(parts), whole)
    assert_equal(Certificates.concatenate([Certificates.from_store(store) for store in stores]), whole)
    one, merged = (read_store(tmp_path / f"{name}.sqlite") for name in ("whole", "merged"))
    for name in ("selection", "estimation", "inputs", "seed"):
        np.testing.assert_array_equal(getattr(one.votes, name), getattr(merged.votes, name))
    np.testing.assert_array_equal(one.reach, merged.reach)
    assert one.labels == merged.labels == Y.tolist()
    assert one.run.differences(merged.run) == []
    # Nothing is left to draw, and the merged store is one of a run like any other.
    assert_equal(smoothed(rtol=rtol).certify(X, store=tmp_path / "merged.sqlite"), whole)


def test_parts_are_all_inputs_once():
    for n, count in ((30, 8), (7, 7), (64, 5), (1, 1)):
        parts = [shard_positions(n, (i, count)) for i in range(1, count + 1)]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shard", [(0, 8), (9, 8), (1, 31), (1.0, 2), 3, "3/8", (1, 2, 3)])
def test_shards_that_there_are_not_are_refused(shard):
    with pytest.raises(ValueError, match=r"shard must be a pair \(i, n\) with 1 <= i <= n"):
        smoothed().certify(X, shard=shard)


def test_shards_need_a_seed(tmp_path):
    with pytest.raises(ValueError, match=r"random_state must be set, the same for all parts"):
        smoothed(random_state=None).certify(X, shard=(1, 2))
    with pytest.raises(ValueError, match=r"random_state must be set, the same for all parts"):
        smoothed(random_state=None).certify_at(X, 0.1, shard=(1, 2))
    smoothed(random_state=None, noise="deterministic-split").certify(X, shard=(1, 2))


def test_a_store_is_of_its_shard(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed().certify(X, store=path, shard=(2, 3))
    for other in ((1, 3), (2, 4), None):
        with pytest.raises(StoreError, match=r"shard: \(2, 3\), "):
            smoothed().certify(X, store=path, shard=other)
    assert len(Certificates.from_store(path)) == len(VoteCounts.from_store(path)) == 10
    np.testing.assert_array_equal(read_store(path).index, np.arange(10, 20))


def test_only_one_run_is_merged(tmp_path):
    stores, _ = in_shards(tmp_path, 3)
    new = tmp_path / "new.sqlite"
    for name, clf in (
        ("alpha", smoothed(alpha=0.02)),
        ("random_state", smoothed(random_state=1)),
        ("noise", smoothed(noise="uniform")),
    ):
        clf.certify(X, store=tmp_path / f"{name}.sqlite", shard=(2, 3))
        with pytest.raises(StoreError, match=f"are not of one run: {name}: "):
            merge_stores(new, [stores[0], tmp_path / f"{name}.sqlite"])
    other = LogisticRegression(C=1).fit(X, Y)
    clf = SmoothedClassifier.from_pretrained(other, [0, 1], n_samples=300, alpha=0.01, random_state=2**100 + 7)
    clf.certify(X, store=tmp_path / "other.sqlite", shard=(2, 3))
    with pytest.raises(StoreError, match="are not of one run: model: "):
        merge_stores(new, [stores[0], tmp_path / "other.sqlite"])
    smoothed().certify(X, store=tmp_path / "four.sqlite", shard=(4, 4))
    with pytest.raises(StoreError, match="number of shards: 3, 4"):
        merge_stores(new, [stores[0], tmp_path / "four.sqlite"])
    smoothed().certify(X, store=tmp_path / "labels.sqlite", shard=(2, 3), y=1 - Y)
    with pytest.raises(StoreError, match="hold different true labels"):
        merge_stores(new, [stores[0], tmp_path / "labels.sqlite"])
    with pytest.raises(StoreError, match=r"holds X\[0\], which another store holds as well"):
        merge_stores(new, [stores[0], stores[1], stores[0]])
    with pytest.raises(StoreError, match="exists already"):
        merge_stores(stores[0], stores)
    with pytest.raises(StoreError, match="at least one store"):
        merge_stores(new, [])
    connection = sqlite3.connect(stores[1])
    connection.execute("UPDATE results SET n_samples = 299 WHERE input = 12")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="is damaged"):
        merge_stores(new, stores)
    assert not list(tmp_path.glob("*new*"))


def first(batch):
    return batch[:, 0] > 0.5


def second(batch):
    return batch[:, 1] > 0.5


def test_shards_of_functions_are_merged_with_a_warning(tmp_path):
    """Nothing tells one function from another, except its name."""
    second_as_first = partial(second)
    second_as_first.__name__ = "first"
    for i, model in enumerate((first, first, second, second_as_first), start=1):
        clf = SmoothedClassifier.from_pretrained(model, [False, True], n_samples=200, random_state=3)
        clf.certify(X, store=tmp_path / f"{i}.sqlite", shard=(min(i, 2), 2))
    stores = [tmp_path / f"{i}.sqlite" for i in range(1, 5)]
    with pytest.raises(StoreError, match=r"are not of one run: model: first \?, second \?"):
        merge_stores(tmp_path / "other.sqlite", [stores[0], stores[2]])
    warned = r"content of the model first is not known.*same one has voted in all shards\. verify_store"
    for name, part in {"same": stores[1], "namesake": stores[3]}.items():
        with pytest.warns(UserWarning, match=warned):
            merge_stores(tmp_path / f"{name}.sqlite", [stores[0], part])
        clf = SmoothedClassifier.from_pretrained(first, [False, True], n_samples=200, random_state=3)
        assert verify_store(tmp_path / f"{name}.sqlite", clf, X).consistent == (name == "same")


def test_what_is_missing_is_drawn_into_the_merged_store(tmp_path):
    whole = smoothed().certify(X)
    stores, _ = in_shards(tmp_path, 3)
    merge_stores(tmp_path / "two.sqlite", stores[:2])
    with pytest.raises(ValueError, match="holds 20 of 30 inputs: the run has not ended"):
        Certificates.from_store(tmp_path / "two.sqlite")
    assert_equal(smoothed().certify(X, store=tmp_path / "two.sqlite"), whole)


def test_what_a_merged_store_takes_from_its_parts(tmp_path, monkeypatch):
    stores, dates = [], ["2020-03-01T00:00:00+00:00", "2020-01-01T00:00:00+00:00", "2020-02-01T00:00:00+00:00"]
    for i, date in enumerate(dates, start=1):
        stores.append(tmp_path / f"{i}.sqlite")
        smoothed().certify(X, store=stores[-1], shard=(i, 3), y=Y if i == 2 else None)
        forge(stores[-1], lambda rows, date=date: rows[0].update(created=date), table="run")
    merge_stores(tmp_path / "merged.sqlite", stores)
    merged = read_store(tmp_path / "merged.sqlite")
    assert (merged.run.created, merged.run.shard, merged.labels) == (dates[1], None, Y.tolist())
    with pytest.raises(StoreError, match=r"cannot be written: .* Is the disk full, or the directory read-only"):
        merge_stores(tmp_path / "missing" / "merged.sqlite", stores)
    with monkeypatch.context() as patched:
        patched.setattr(merge, "create", lambda *given: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(StoreError, match=r"cannot be written: no space\. Is the disk"):
            merge_stores(tmp_path / "full.sqlite", stores)
    # A whole run is one of its parts, whatever their number.
    merge_stores(tmp_path / "again.sqlite", [tmp_path / "merged.sqlite"])
    assert read_store(tmp_path / "again.sqlite").votes.estimation.tolist() == merged.votes.estimation.tolist()
    smoothed().certify(X, store=tmp_path / "whole.sqlite")
    with pytest.raises(StoreError, match=r"1.sqlite holds X\[0\]"):
        merge_stores(tmp_path / "twice.sqlite", [tmp_path / "whole.sqlite", stores[0]])


def test_one_store_of_a_function_needs_no_warning(tmp_path, recwarn):
    clf = SmoothedClassifier.from_pretrained(first, [False, True], n_samples=200, random_state=3)
    clf.certify(X[:4], store=tmp_path / "1.sqlite", shard=(1, 2))
    merge_stores(tmp_path / "merged.sqlite", [tmp_path / "1.sqlite"])
    assert not recwarn.list


@pytest.mark.parametrize("fraction", [1.0, 0.51])
def test_an_auditor_checks_the_inputs_of_a_shard(tmp_path, fraction):
    path = tmp_path / "run.sqlite"
    smoothed().certify(X, store=path, shard=(2, 3))
    forge(path, lambda rows: [rows[i].update(reach=bytes(len(rows[i]["reach"]))) for i in (3, 8)] and rows)
    audit = verify_store(path, smoothed(), X, fraction=fraction, fresh=True, random_state=3)
    assert audit.recorded.tolist() == list(range(10, 20))
    assert len(audit.rows) == (10 if fraction == 1 else 6)
    assert audit.rows[audit.other_votes].tolist() == [i for i in (13, 18) if i in audit.rows]
    assert audit.other_votes.any()
    assert (audit.level, audit.same_model, audit.other_input.any()) == (0.001, True, False)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM results WHERE input IN (11, 14)")
    audit = verify_store(path, smoothed(), X)
    assert audit.rows.tolist() == audit.recorded.tolist() == [10, 12, 13, *range(15, 20)]
    assert audit.rows[audit.other_votes].tolist() == [13, 18]
    other = [tuple(verify_store(path, smoothed(), X, fraction=0.5).rows) for _ in range(3)]
    assert len(set(other)) > 1
    with pytest.raises(NotFittedError):
        verify_store(path, SmoothedClassifier(LogisticRegression()), X)


def test_certificates_of_different_runs_are_not_concatenated():
    part = smoothed().certify(X, shard=(1, 2))
    for other in (smoothed(alpha=0.02), smoothed(noise="uniform", radius="greedy").set_params(alpha=0.03)):
        with pytest.raises(ValueError, match="parts must belong to one run, but part 1 has alpha="):
            Certificates.concatenate([part, other.certify(X, shard=(2, 2))])
    with pytest.raises(ValueError, match="parts must be one or more Certificates, got none"):
        Certificates.concatenate([])
    with pytest.raises(ValueError, match="parts must be one or more Certificates, got Decisions"):
        Certificates.concatenate([part, smoothed().certify_at(X, 0.1)])


@pytest.mark.parametrize("radius", [0.2, [[0.1, 0.4, 9.0]]])
def test_decisions_in_shards(tmp_path, radius):
    whole = smoothed().certify_at(X, radius, store=tmp_path / "whole.sqlite")
    assert 0 < whole.robust.sum() < whole.robust.size
    stores = [tmp_path / f"{i}.sqlite" for i in (1, 2, 3)]
    parts = [smoothed().certify_at(X, radius, store=store, shard=(i, 3)) for i, store in enumerate(stores, start=1)]
    merge_stores(tmp_path / "merged.sqlite", stores)
    again = smoothed().certify_at(X, radius, store=tmp_path / "whole.sqlite")
    merged = Decisions.from_store(tmp_path / "merged.sqlite")
    for found in (again, merged, Decisions.concatenate(parts), smoothed().certify_at(X, radius)):
        for name in ("labels", "robust", "n_samples", "radius"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
        assert repr(found) == repr(whole)


def test_stores_of_decisions_say_what_they_are(tmp_path):
    path, plain = tmp_path / "run.sqlite", tmp_path / "plain.sqlite"
    smoothed().certify_at(X, 0.2, store=path)
    smoothed().certify(X, store=plain)
    with pytest.raises(ValueError, match=r"decisions at the radius 0.2, .* Use Decisions.from_store"):
        Certificates.from_store(path)
    with pytest.raises(ValueError, match=r"stopped early \(radius=0.2\)"):
        VoteCounts.from_store(path)
    with pytest.raises(ValueError, match=r"a run of certify, not of certify_at"):
        Decisions.from_store(plain)
    with pytest.raises(StoreError, match=r"radius of certify_at: 0.2, 0.3"):
        smoothed().certify_at(X, 0.3, store=path)
    with pytest.raises(StoreError, match=r"radius of certify_at: 0.2, None"):
        smoothed().certify(X, store=path)
    with pytest.raises(ValueError, match="radius must be the same for all inputs where a store records"):
        smoothed().certify_at(X, np.linspace(0, 1, 30), store=tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


@pytest.mark.parametrize("noise", ["deterministic-split", "gaussian"])
def test_decisions_under_other_noises_come_back_from_a_store(tmp_path, noise):
    clf = smoothed(noise=noise)
    drawn = clf.certify_at(X, 0.1, store=tmp_path / "run.sqlite")
    found = Decisions.from_store(tmp_path / "run.sqlite")
    np.testing.assert_array_equal(found.robust, drawn.robust)
    assert 0 < drawn.robust.sum()
