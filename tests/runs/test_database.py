"""The file of a store: its settings, and damage that only a look at the whole file shows."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from smoothcert import Certificates, SmoothedClassifier, SplitNoise, StoreError, merge_stores
from smoothcert.runs import database
from smoothcert.runs.database import checksum, connect, is_empty
from smoothcert.runs.store import Store, read_status, read_store, write_lock

X = np.random.default_rng(0).random((8, 3))


def smoothed(**params):
    return SmoothedClassifier.from_pretrained(
        lambda rows: (rows[:, 0] > 0.5).astype(int), [0, 1], n_samples=100, alpha=0.05, random_state=0, **params
    )


@pytest.fixture
def path(tmp_path):
    smoothed().certify(X, store=tmp_path / "run.sqlite", y=np.arange(8) % 2)
    return tmp_path / "run.sqlite"


@pytest.mark.parametrize(("far", "journal", "synchronous"), [(False, "wal", 1), (True, "truncate", 2)])
def test_settings_of_a_store(path, monkeypatch, far, journal, synchronous):
    monkeypatch.setattr(database, "on_network", lambda path: far)
    with closing(connect(path, writing=True)) as connection:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert found == [journal, synchronous]
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30000,)
        assert connection.isolation_level == "IMMEDIATE"
    with closing(connect(path, writing=False)) as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30000,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM results")


def test_kinds_of_file_systems(tmp_path):
    far, near = [
        "nfs nfs4 cifs smb3 9p lustre gpfs beegfs ceph afs fuse.sshfs fuse.glusterfs",
        "ext4 xfs tmpfs overlay",
    ]
    for kind in f"{far} {near}".split():
        (tmp_path / "mounts").write_text(f"21 20 0:5 / {tmp_path} rw shared:1 - {kind} host:/x rw\n")
        assert database.on_network(tmp_path / "run", tmp_path / "mounts") == (kind in far.split()), kind


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE labels SET labels = '[1, 1, 1, 1, 1, 1, 1, 1]'",
        "INSERT INTO failures VALUES (3, 'no reason', x'00')",
        "UPDATE results SET written = 1 WHERE input = 7",
    ],
)
def test_every_table_has_checksums(path, change):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with pytest.raises(StoreError, match="does not match"):
        read_store(path)


def test_the_whole_file_is_checked_and_its_status_is_not(path):
    """Pages that hold nothing, but whose list is broken: no record is wrong."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE large AS SELECT zeroblob(100000) AS x")
        connection.execute("DROP TABLE large")
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[32:36], "big")
    assert first
    content[32:36] = (first + 1).to_bytes(4, "big")
    path.write_bytes(content)
    assert read_status(path).finished == 8
    for read in (read_store, lambda path: smoothed().certify(X, store=path)):
        with pytest.raises(StoreError, match=r"(?s)is damaged \(.*Nothing was read from it: restore a copy"):
            read(path)


def test_what_cannot_be_opened_is_not_called_damaged(tmp_path, path):
    with pytest.raises(StoreError, match="cannot be read: "):
        read_store(tmp_path)
    with pytest.raises(StoreError, match="cannot be written: unable to open"):
        connect(tmp_path, writing=True)
    assert "SQLITE_BUSY" in database.OUTSIDE


def test_an_empty_file_becomes_a_store(tmp_path, path):
    empty = tmp_path / "empty.sqlite"
    assert is_empty(empty)
    empty.touch()
    assert is_empty(empty)
    assert not is_empty(path)
    smoothed().certify(X, store=empty)
    assert len(read_store(empty)) == 8
    (tmp_path / "text").write_text("a text that is certainly longer than the head of a database file, of 100 bytes" * 3)
    assert not is_empty(tmp_path / "text")


def test_checksums_tell_types_apart():
    rows = [(1, "1"), ("1", 1), (1.0, "1"), (1, b"1"), (1, None), (1, "None"), (11, "")]
    assert len({checksum(row, b"") for row in rows}) == len(rows)
    assert len(checksum((1,), b"")) == 16
    assert len({checksum((1,), run) for run in (b"", b"one", b"another")}) == 3


def test_records_of_another_run_are_damage(path, tmp_path):
    """As after a copy of a store over one whose log a killed process has left."""
    smoothed(noise=SplitNoise(9.0)).certify(X, store=tmp_path / "wide.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ATTACH ? AS wide", (str(tmp_path / "wide.sqlite"),))
        with connection:
            connection.execute("REPLACE INTO results SELECT * FROM wide.results WHERE input >= 4")
    with pytest.raises(StoreError, match="the checksum of input 4 in results does not match"):
        Certificates.from_store(path)


@pytest.mark.parametrize("left", ["-wal", "-shm", "-journal"])
def test_stores_are_not_merged_beside_what_a_killed_process_has_left(path, tmp_path, left):
    beside = tmp_path / f"whole.sqlite{left}"
    beside.touch()
    with pytest.raises(StoreError, match=rf"whole.sqlite{left} exists already"):
        merge_stores(tmp_path / "whole.sqlite", [path])
    beside.unlink()
    merge_stores(tmp_path / "whole.sqlite", [path])


def test_one_process_writes_at_a_time(path):
    run = read_store(path).run
    with write_lock(path), pytest.raises(StoreError, match="is being written by another process"):
        Store(path, run)
    with Store(path, run) as store, pytest.raises(StoreError, match="is being written by another process"):
        Store(path, run)
    assert store.seed == 0
    with Store(path, run):
        pass


def test_records_are_read_by_position(path):
    with Store(path, read_store(path).run) as store:
        whole = store.read(np.arange(8)).inputs
        np.testing.assert_array_equal(store.read(np.array([1, 4, 6])).inputs, whole[[1, 4, 6]])
        assert len(np.unique(whole, axis=0)) == 8
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM results WHERE input IN (2, 5)")
    with Store(path, read_store(path).run) as store:
        store.fail({2: "first", 5: "other"})
        store.fail({2: "second"})
        assert store.failures() == {2: "second", 5: "other"}


def test_times_and_labels_are_those_of_the_recorded_inputs(path):
    from .test_verify_store import forge

    forge(path, lambda rows: [row.update(seconds=row["input"] + 0.5) for row in rows] and rows)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM results WHERE input IN (0, 3, 4)")
    with Store(path, read_store(path).run) as store:
        store.fail({3: "why"})
    stored = read_store(path)
    assert stored.recorded.tolist() == [1, 2, 3, 5, 6, 7]
    assert stored.times.tolist() == [1.5, 2.5, 0, 5.5, 6.5, 7.5]
    assert stored.labels == [1, 0, 1, 1, 0, 1]
    assert stored.index.tolist() == [1, 2, 5, 6, 7]


def test_the_speed_is_that_of_the_last_ten_minutes(path):
    def written(times):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                "UPDATE results SET written = ? WHERE input = ?", [(t, i) for i, t in enumerate(times)]
            )
        found = read_status(path)
        return found.rate, found.last

    assert written([0, 1, 2, 5000, 5400, 5700, 5800, 6000]) == (3 / 600, 6000)
    assert written([0, 0, 0, 0, 100, 200, 300, 400]) == (4 / 400, 400)
    # All at once have no speed.
    assert written([7] * 8) == (None, 7)


@pytest.mark.parametrize(
    "change", ["UPDATE failures SET checksum = x'01'", "DELETE FROM labels", "DELETE FROM failures"]
)
def test_the_digest_covers_failures_and_labels(path, change):
    with Store(path, read_store(path).run) as store:
        store.fail({3: "why"})
    before = read_status(path).digest
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    assert read_status(path).digest != before
