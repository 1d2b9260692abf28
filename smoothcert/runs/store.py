"""The store of a run: everything that its certificates depend on, and the votes of finished inputs."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from .._utils.checks import check_path
from ..sampling.sampler import Votes
from .database import StoreError, connect, create, damaged, insert, is_empty, sound_rows
from .encoding import decoded, encoded
from .metadata import RunMetadata

#: The number of seconds over which the speed of a run is measured.
LATELY = 600.0

#: For users. The rest is for `certify` and `Certificates.from_store`.
__all__ = ["StoreError"]


class Store:
    """The store of a run, open for writing, by one process at a time; others can read it meanwhile.

    Parameters
    ----------
    path : str or path-like
        The file, which is made if it does not exist.
    run : RunMetadata
        What is about to be run. If its seed is None, that of the store is used, or a fresh one.

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
                opened.enter_context(write_lock(self.path))
                # SQLite reads more than a name into ":memory:" and "file:run.sqlite".
                file = self.path.absolute()
                if is_empty(file):
                    create(file, run.with_seed().to_row())
                self._connection = opened.enter_context(closing(connect(file, writing=True)))
            self.run = read_run(self._connection, self.path)
            if differences := self.run.differences(run):
                again = not self.run.holds_numbers and self.run.decided_at is None
                shell = f", as smoothcert recertify {self.path} does in a shell" if again else ""
                raise StoreError(
                    f"{self.path} belongs to another run. Different are (stored, now): {'; '.join(differences)}. Use "
                    f"another file. {self.run.reader} makes results of the recorded votes{shell}."
                )
            self._opened = opened.pop_all()

    @property
    def seed(self) -> int:
        """The seed of the run's noise."""
        return int(self.run.seed or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file and let others write to it."""
        self._opened.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the file system and the database into one that says what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be written: {error}. Is the disk full, or the directory read-only? What was "
                f"finished is kept: run again with the same store to continue."
            ) from error

    def finished(self) -> NDArray[np.intp]:
        """Return the positions of finished inputs, in order, after a check that the whole file is sound."""
        rows = sound_rows(self._connection, self.path, "results")
        return np.fromiter((row[0] for row in rows), dtype=np.intp)

    def failures(self) -> dict[int, str]:
        """Return the reasons why inputs failed, by position."""
        return read_failures(self._connection, self.path)

    def read(self, index: NDArray[np.intp]) -> Votes:
        """Return the votes of finished inputs at increasing positions."""
        wanted = set(index.tolist())
        rows = sound_rows(self._connection, self.path, "results", int(index[0]), int(index[-1]))
        return StoredRun(self.path, self.run, [row for row in rows if row[0] in wanted]).votes

    def append(self, index: NDArray[np.intp], votes: Votes, reach: NDArray[np.float64]) -> None:
        """Write the votes of finished inputs, all or none.

        Parameters
        ----------
        index : ndarray of shape (n,)
            Positions in X.
        votes : Votes
        reach : ndarray of shape (n, k)
            From `kept_values`.
        """
        each, now = votes.seconds / len(index), time.time()
        hashes, reaches = ([row.tobytes() for row in array] for array in (votes.inputs, reach.astype("<f8")))
        columns = (index.tolist(), hashes, *encoded(votes), reaches)
        rows = [(i, *row, n, each, kept, now) for i, *row, n, kept in zip(*columns, strict=True)]
        with self._explained(), self._connection:
            insert(self._connection, "results", rows)
            # An input that failed before may succeed now.
            self._connection.execute("DELETE FROM failures WHERE input IN (SELECT input FROM results)")

    def fail(self, reasons: dict[int, str]) -> None:
        """Write why inputs failed, by position."""
        with self._explained(), self._connection:
            self._connection.executemany("DELETE FROM failures WHERE input = ?", [(i,) for i in reasons])
            insert(self._connection, "failures", list(reasons.items()))

    def label(self, labels: list[Any]) -> None:
        """Write the true labels of all inputs, or raise a StoreError if the store holds others."""
        known = read_labels(self._connection, self.path)
        if known is None:
            with self._explained(), self._connection:
                insert(self._connection, "labels", [(1, json.dumps(labels))])
            return
        wrong = [i for i, (old, new) in enumerate(zip(known, labels, strict=True)) if old != new]
        if wrong:
            raise StoreError(
                f"{self.path} holds other labels: {known[wrong[0]]!r} for X[{wrong[0]}], not {labels[wrong[0]]!r}. "
                f"{len(wrong)} of {len(labels)} differ. Is this the right file of labels? Without labels, those in the "
                f"store are used."
            )


class StoredRun:
    """What a store holds about some inputs.

    Attributes
    ----------
    path : Path
    run : RunMetadata
    index : ndarray of shape (n,)
        The positions in X of finished inputs, increasing.
    votes : Votes
    reach : ndarray of shape (n, k)
        The largest distances by which each input's features can move, or in a run of `certify_at` the probabilities
        that its radii require; see `kept_values`.
    seconds : ndarray of shape (n,)
    failures : dict of int to str
        The reasons why other inputs failed, by position.
    all_labels : list of length n_inputs, or None
        The true labels of all inputs of the run.
    """

    def __init__(
        self,
        path: Path,
        run: RunMetadata,
        rows: list[Any],
        failures: dict[int, str] | None = None,
        labels: list[Any] | None = None,
    ) -> None:
        columns = zip(*rows, strict=True) if rows else [()] * 9
        index, inputs, *recorded, seconds, reach, _ = columns
        self.path, self.run, self.failures, self.all_labels = path, run, failures or {}, labels
        self.index = np.array(index, dtype=np.intp)
        self.seconds = np.array(seconds, dtype=np.float64)
        try:
            self.votes = decoded(
                run,
                recorded[:2],
                inputs=np.frombuffer(b"".join(inputs), dtype=np.uint8).reshape(-1, 16),
                seed=run.seed or 0,
                seconds=float(self.seconds.sum()),
            )
            self.reach = np.frombuffer(b"".join(reach), dtype="<f8").reshape(len(rows), -1 if rows else 0)
            wrong = (np.array(self.votes.drawn) != np.array(recorded[2:], dtype=np.int64)).any(axis=0)
            if wrong.any():
                raise ValueError(f"the votes of input {self.index[wrong][0]} do not add up")
            if not np.isin(self.recorded, run.positions).all():
                raise ValueError("it holds inputs that are not of this run")
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise damaged(path, error) from error

    def __len__(self) -> int:
        return len(self.index)

    @property
    def recorded(self) -> NDArray[np.intp]:
        """The positions of all recorded inputs, finished or failed, increasing."""
        return np.sort(np.append(self.index, [*self.failures]).astype(np.intp))

    @property
    def times(self) -> NDArray[np.float64]:
        """The seconds of the recorded inputs, 0 for those that failed."""
        times = np.zeros(self.run.n_inputs)
        times[self.index] = self.seconds
        return times[self.recorded]

    @property
    def labels(self) -> list[Any] | None:
        """The true labels of the recorded inputs."""
        return None if self.all_labels is None else [self.all_labels[i] for i in self.recorded]


def read_store(path: str | os.PathLike[str]) -> StoredRun:
    """Read the finished inputs of a store; it may be being written meanwhile.

    Raises
    ------
    StoreError
        If the file does not exist, is no store, was written by another release, or is damaged.
    """
    with _reading(path) as (path, connection):
        run, rows = read_run(connection, path), list(sound_rows(connection, path, "results"))
        failures = read_failures(connection, path)
        return StoredRun(path, run, rows, failures, read_labels(connection, path))


def read_metadata(path: str | os.PathLike[str]) -> RunMetadata:
    """Read what a store is the run of. Its results, which may be many, are not looked at."""
    with _reading(path, checked=False) as (path, connection):
        return read_run(connection, path)


@dataclass(frozen=True, kw_only=True)
class StoreStatus:
    """How far a run has come.

    Parameters
    ----------
    run : RunMetadata
    finished, failed : int
        The number of inputs.
    votes : int
    work : float
        The seconds of all workers together.
    rate : float or None
        Finished inputs per second, lately.
    last : float or None
        When the last input was finished, in seconds since 1970.
    digest : str
        A hash of all records.
    """

    run: RunMetadata
    finished: int
    failed: int
    votes: int
    work: float
    rate: float | None
    last: float | None
    digest: str


def read_parts(path: str | os.PathLike[str], n_votes: int) -> Generator[StoredRun, None, None]:
    """Read a store in parts: the failures first, and then finished inputs with up to ``n_votes`` votes together."""
    with _reading(path) as (path, connection):
        run, rows = read_run(connection, path), sound_rows(connection, path, "results")
        yield StoredRun(path, run, [], read_failures(connection, path))
        size = max(1, n_votes // (run.parameters["n_selection"] + run.parameters["n_samples"]))
        while part := list(islice(rows, size)):
            yield StoredRun(path, run, part)


@contextmanager
def _reading(path: str | os.PathLike[str], *, checked: bool = True) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """Open a store to read one state of it, whatever is written meanwhile; raise a StoreError if there is none."""
    file = check_path("path", path)
    if file is None or not file.exists():
        raise StoreError(f"{path} does not exist. Give the file that certify(X, store=...) has written.")
    with closing(connect(file, writing=False, checked=checked)) as connection:
        connection.execute("BEGIN")
        yield file, connection


def read_status(path: str | os.PathLike[str]) -> StoreStatus:
    """Read how far a run has come, even while it is being written. Results are counted, and not checked."""
    totals = "COUNT(*), TOTAL(n_selection + n_samples), TOTAL(seconds), MIN(written), MAX(written)"
    with _reading(path, checked=False) as (path, connection):
        run = read_run(connection, path)
        try:
            (failed,) = connection.execute("SELECT COUNT(*) FROM failures").fetchone()
            finished, votes, work, first, last = connection.execute(f"SELECT {totals} FROM results").fetchone()
            since = max(first, last - LATELY) if finished else 0.0
            (lately,) = connection.execute("SELECT COUNT(*) FROM results WHERE written > ?", (since,)).fetchone()
            digest = _digest(connection)
        except (sqlite3.DatabaseError, TypeError) as error:
            raise damaged(path, error) from error
    rate = lately / (last - since) if lately else None
    counted = {"finished": finished, "failed": failed, "votes": int(votes), "work": work}
    return StoreStatus(run=run, **counted, rate=rate, last=last, digest=digest)


def _digest(connection: sqlite3.Connection) -> str:
    """Hash the checksums of all records."""
    content = blake2b(digest_size=16)
    for table in ("run", "results", "failures", "labels"):
        for (checksum,) in connection.execute(f"SELECT checksum FROM {table} ORDER BY rowid"):
            content.update(checksum)
    return content.hexdigest()


def read_run(connection: sqlite3.Connection, path: Path) -> RunMetadata:
    """Read what was run, or raise a StoreError if it is damaged."""
    row = next(sound_rows(connection, path, "run"), None)
    if row is None:
        raise damaged(path, "it holds no run")
    try:
        return RunMetadata.from_row(row[1:])
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, error) from error


def read_failures(connection: sqlite3.Connection, path: Path) -> dict[int, str]:
    """Read why inputs failed, by position, or raise a StoreError if one of them is finished as well."""
    failures = dict(sound_rows(connection, path, "failures"))
    both = connection.execute("SELECT input FROM failures JOIN results USING (input) LIMIT 1").fetchone()
    if both is not None:
        raise damaged(path, f"X[{both[0]}] is finished and failed")
    return failures


def read_labels(connection: sqlite3.Connection, path: Path) -> list[Any] | None:
    """Read the true labels of all inputs, or None if the store holds none."""
    row = next(sound_rows(connection, path, "labels"), None)
    try:
        return None if row is None else list(json.loads(row[1]))
    except ValueError as error:
        raise damaged(path, error) from error


def add_labels(path: str | os.PathLike[str], labels: Any) -> None:
    """Write the true labels of all inputs into the store of a run, which may be finished.

    Parameters
    ----------
    path : str or path-like
    labels : array-like of shape (n_inputs,)

    Raises
    ------
    StoreError
        If the store holds other labels, or cannot be written.
    """
    run = read_store(path).run
    with Store(path, run) as store:
        store.label(run.check_labels(labels))


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the right to write to a store, or raise a StoreError if another process has it."""
    try:
        held = FileLock(f"{path}.lock", timeout=0).acquire()
    except Timeout:
        raise StoreError(f"{path} is being written by another process. Wait for it to end.") from None
    with held:
        yield
