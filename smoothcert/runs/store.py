"""A run on disk: one SQLite file with everything that its certificates depend on, and the votes of finished inputs.

Nothing in it is ever executed: it holds numbers, text and JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..sampling.sampler import Votes
from ..sampling.shares import Shares
from .metadata import RunMetadata

#: "SmCe": tells the file from other SQLite files.
APPLICATION_ID = 0x536D4365

#: Of the tables. Files with a larger one were written by a later release.
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created TEXT NOT NULL,
    n_inputs INTEGER NOT NULL,
    seed TEXT NOT NULL,
    model TEXT NOT NULL,
    noise TEXT NOT NULL,
    box TEXT NOT NULL,
    classes TEXT NOT NULL,
    shape TEXT NOT NULL,
    parameters TEXT NOT NULL,
    versions TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE results (
    input INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    selection TEXT NOT NULL,
    estimation TEXT NOT NULL,
    n_samples INTEGER NOT NULL,
    seconds REAL NOT NULL,
    reach BLOB NOT NULL,
    label TEXT,
    checksum BLOB NOT NULL
);
"""

#: What the columns ``selection`` and ``estimation`` hold, by the way in which probabilities were found.
RECORDED: dict[str, tuple[Any, tuple[str, str], type[np.number]]] = {
    "sample": (Votes, ("selection", "estimation"), np.int64),
    "exact": (Shares.of, ("lower", "upper"), np.float64),
}

#: What users meet: the rest is for `certify` and `Certificates.from_store`.
__all__ = ["StoreError"]

#: Errors of SQLite that are not the file's fault.
OUTSIDE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_READONLY")


class StoreError(ValueError):
    """A store cannot be used as it was asked for; the message says why.

    See Also
    --------
    SmoothedClassifier.certify : Its parameter ``store`` names the file.
    """


class Store:
    """The store of a run, open for writing, by one process at a time; others can read it meanwhile.

    Parameters
    ----------
    path : str or path-like
        Made if it is not there.
    run : RunMetadata
        What is about to be run. Its seed may be None: that of the store is used then, or a fresh one.

    Raises
    ------
    StoreError
        If the file is no store, is damaged or belongs to another run (the message lists what differs), if another
        process is writing to it, or if it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], run: RunMetadata) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise StoreError(f"store={str(path)!r} must be a file in a directory that exists.")
        with ExitStack() as opened:
            with self._explained():
                try:
                    opened.enter_context(FileLock(f"{self.path}.lock", timeout=0))
                except Timeout:
                    raise StoreError(f"{self.path} is being written by another process. Wait for it to end.") from None
                if not self.path.exists() or self.path.stat().st_size == 0:
                    self._create(run)
                self._connection = opened.enter_context(closing(connect(self.path, writing=True)))
            self.run = read_run(self._connection, self.path)
            differences = self.run.differences(run)
            if differences:
                raise StoreError(
                    f"{self.path} belongs to another run. Different are (stored, now): {'; '.join(differences)}. Use "
                    f"another file, or Certificates.from_store(path, alpha=..., radius=...) to certify again from its "
                    f"votes."
                )
            self._opened = opened.pop_all()

    @property
    def seed(self) -> int:
        """Seed of the run's noise."""
        return int(self.run.seed or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file and let others write to it."""
        self._opened.close()

    def _create(self, run: RunMetadata) -> None:
        """Write the tables and the run in one transaction: a file is a store, or empty."""
        values = run.with_seed().to_row()
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )
            insert(connection, "run", [(1, *values, checksum(values))])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the file system and the database into one that says what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be written: {error}. Is the disk full, or the directory read-only? What was "
                f"finished is kept: run again with the same store to go on."
            ) from error

    def finished(self) -> NDArray[np.intp]:
        """Return the positions of finished inputs, in order, after a look whether all of the file is sound."""
        rows = sound_rows(self._connection, self.path, self.run)
        return np.fromiter((row[0] for row in rows), dtype=np.intp)

    def read(self, index: NDArray[np.intp]) -> Votes:
        """Return the votes of finished inputs at increasing positions."""
        wanted = set(index.tolist())
        rows = sound_rows(self._connection, self.path, self.run, int(index[0]), int(index[-1]))
        return StoredRun(self.run, [row for row in rows if row[0] in wanted]).votes

    def append(self, index: NDArray[np.intp], votes: Votes, reach: NDArray[np.float64], labels: Any = None) -> None:
        """Write the votes of finished inputs, all or none.

        Parameters
        ----------
        index : ndarray of shape (n,)
            Positions in X.
        votes : Votes
        reach : ndarray of shape (n, k)
            The largest distances by which each input's features can move, in decreasing order.
        labels : list of length n, optional
            True labels, where they are known.
        """
        seconds, (first, second) = votes.seconds / len(index), votes.recorded
        rows = []
        for i in range(len(index)):
            row = (
                int(index[i]),
                votes.inputs[i].tobytes(),
                to_text(first[i]),
                to_text(second[i]),
                int(votes.estimation[i].sum()),
                seconds,
                reach[i].astype("<f8").tobytes(),
                None if labels is None else json.dumps(labels[i]),
            )
            rows.append((*row, checksum(row)))
        with self._explained(), self._connection:
            insert(self._connection, "results", rows)


class StoredRun:
    """What a store holds about some inputs.

    Attributes
    ----------
    run : RunMetadata
    index : ndarray of shape (n,)
        Positions of the inputs in X, increasing.
    votes : Votes
    reach : ndarray of shape (n, k)
        The largest distances by which each input's features can move.
    labels : list of length n
        True labels, None where unknown.
    seconds : ndarray of shape (n,)
    """

    def __init__(self, run: RunMetadata, rows: list[Any]) -> None:
        index, inputs, selection, estimation, _, seconds, reach, labels = zip(*rows, strict=True) if rows else [()] * 8
        self.run = run
        self.index = np.array(index, dtype=np.intp)
        self.seconds = np.array(seconds, dtype=np.float64)
        make, (first, second), dtype = RECORDED[run.parameters["estimation"]]
        self.votes: Votes = make(
            **{first: from_text(selection, len(run.classes), dtype)},
            **{second: from_text(estimation, len(run.classes), dtype)},
            inputs=np.frombuffer(b"".join(inputs), dtype=np.uint8).reshape(-1, 16),
            seed=run.seed or 0,
            seconds=float(self.seconds.sum()),
        )
        self.reach = np.frombuffer(b"".join(reach), dtype="<f8").reshape(len(rows), -1 if rows else 0)
        self.labels = [None if label is None else json.loads(label) for label in labels]

    def __len__(self) -> int:
        return len(self.index)


def read_store(path: str | os.PathLike[str]) -> StoredRun:
    """Read the finished inputs of a store; it may be being written meanwhile.

    Raises
    ------
    StoreError
        If the file does not exist, is no store, was written by a later release, or is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path} does not exist. Give the file that clf.certify(X, store=...) has written.")
    with closing(connect(path, writing=False)) as connection:
        connection.execute("BEGIN")
        run = read_run(connection, path)
        return StoredRun(run, list(sound_rows(connection, path, run)))


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """Open a store, or raise a StoreError if the file is not a sound one."""
    try:
        connection = sqlite3.connect(path, isolation_level="IMMEDIATE") if writing else _connect_to_read(path)
        _check_kind(connection, path)
        if writing:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA busy_timeout = 30000")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_NOTADB":
            raise StoreError(f"{path} is not a smoothcert store.") from error
        if name.startswith(OUTSIDE):
            raise StoreError(f"{path} cannot be {'written' if writing else 'read'}: {error}.") from error
        raise damaged(path, error) from error
    except UnicodeDecodeError as error:
        # The text of SQLite's own error holds damaged bytes.
        raise damaged(path, error) from error
    if found != "ok":
        raise damaged(path, found)
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a store that may be being written, or that lies in a directory where nothing can be written."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        if Path(f"{path}-wal").exists():
            raise
        # SQLite cannot make its own files here, so nobody is writing to the store either.
        connection.close()
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    return connection


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    """Raise a StoreError unless this is a store of a known version."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path} is not a smoothcert store, but another SQLite file.")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}. Use the release that wrote it."
        )


def damaged(path: Path, what: Any) -> StoreError:
    """Return the error for a store that cannot be trusted."""
    return StoreError(f"{path} is damaged ({what}). Nothing was read from it: restore a copy, or start a new store.")


def read_run(connection: sqlite3.Connection, path: Path) -> RunMetadata:
    """Read what was run, or raise a StoreError if it is damaged."""
    try:
        row = connection.execute("SELECT * FROM run").fetchone()
        if row is None or checksum(row[1:-1]) != row[-1]:
            raise damaged(path, "the checksum of the run does not match")
        return RunMetadata.from_row(row[1:-1])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def sound_rows(
    connection: sqlite3.Connection, path: Path, run: RunMetadata, first: int = -(2**63), last: int = 2**63 - 1
) -> Iterator[Any]:
    """Yield results in the order of the inputs, or raise a StoreError where one is damaged."""
    rows = "SELECT * FROM results WHERE input BETWEEN ? AND ? ORDER BY input"
    try:
        for row in connection.execute(rows, (first, last)):
            if checksum(row[:-1]) != row[-1] or not 0 <= row[0] < run.n_inputs:
                raise damaged(path, f"the checksum of input {row[0]} does not match")
            yield row[:-1]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def insert(connection: sqlite3.Connection, table: str, rows: list[Any]) -> None:
    """Insert rows that have a value for each column of a table."""
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def checksum(row: Any) -> bytes:
    """Hash the values of a row."""
    content = blake2b(digest_size=8)
    for value in row:
        kind = "blob" if isinstance(value, bytes) else "other"
        data = value if isinstance(value, bytes) else repr(value).encode()
        content.update(f"{kind} {len(data)} ".encode() + data)
    return content.digest()


def to_text(counts: NDArray[Any]) -> str:
    """Return the votes of one input as JSON, from class index to number of votes; or bounds on probabilities.

    Examples
    --------
    >>> to_text(np.array([0, 250, 0, 6]))
    '{"1": 250, "3": 6}'
    """
    return json.dumps({str(i): counts[i].item() for i in np.flatnonzero(counts)})


def from_text(texts: Sequence[str], n_classes: int, dtype: type[np.number]) -> NDArray[Any]:
    """Return votes or bounds of shape (n_inputs, n_classes); see `to_text`."""
    counts = np.zeros((len(texts), n_classes), dtype=dtype)
    for row, text in zip(counts, texts, strict=True):
        for i, n in json.loads(text).items():
            row[int(i)] = n
    return counts
