"""The file of a store: an SQLite database whose records have checksums, which bind them to their run.

Nothing in it is ever executed: it holds numbers, text and JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

#: "SmCe": tells the file from other SQLite files.
APPLICATION_ID = 0x536D4365

#: The version of the tables. Files with a larger one were written by a later release.
SCHEMA_VERSION = 3

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
    shard TEXT NOT NULL,
    decided_at TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE results (
    input INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    selection TEXT NOT NULL,
    estimation TEXT NOT NULL,
    n_selection INTEGER NOT NULL,
    n_samples INTEGER NOT NULL,
    seconds REAL NOT NULL,
    reach BLOB NOT NULL,
    written REAL NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE failures (
    input INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE labels (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    labels TEXT NOT NULL,
    checksum BLOB NOT NULL
);
"""

#: Network file systems, as Linux names them: those of clusters, and those of a single server.
CLUSTER = {"lustre", "gpfs", "beegfs", "ceph", "afs", "fuse.glusterfs"}
NETWORK = CLUSTER | {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}

#: Errors of SQLite that are not the file's fault.
OUTSIDE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_READONLY")


class StoreError(ValueError):
    """A store cannot be used as it was asked for; the message says why.

    See Also
    --------
    SmoothedClassifier.certify : Its parameter ``store`` names the file.
    """


def create(path: Path, run: tuple[Any, ...]) -> None:
    """Write the tables and the record of the run in one transaction: a file is a store, or empty."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION};"
        )
        insert(connection, "run", [(1, *run)])


def is_empty(path: Path) -> bool:
    """Tell whether a file is to become a store: it is new, or a process was killed before its transaction was over."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        # Reading undoes what a killed process has left behind.
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return bool(connection.execute("PRAGMA page_count").fetchone()[0] == 0)
    return False


def connect(path: Path, *, writing: bool, checked: bool = True) -> sqlite3.Connection:
    """Open a store, or raise a StoreError if the file is not a sound one.

    Parameters
    ----------
    path : Path
    writing : bool
    checked : bool, default=True
        Whether to check all pages of the file, which takes a second for a few hundred megabytes.
    """
    try:
        connection = sqlite3.connect(path, isolation_level="IMMEDIATE") if writing else _connect_to_read(path)
        _check_kind(connection, path)
        if writing:
            far = on_network(path)
            connection.execute(f"PRAGMA journal_mode = {'TRUNCATE' if far else 'WAL'}")
            connection.execute(f"PRAGMA synchronous = {'FULL' if far else 'NORMAL'}")
        connection.execute("PRAGMA busy_timeout = 30000")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0] if checked else "ok"
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


def on_network(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Tell whether a file lies on a network file system, where write-ahead logs do not work; known on Linux alone."""
    folder = path.absolute().parent.resolve()
    try:
        lines = [line.split(" - ", 1) for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    points = [(Path(left.split()[4].replace("\\040", " ")), right.split()[0]) for left, right in lines]
    kinds = {len(point.parts): kind for point, kind in points if folder.is_relative_to(point)}
    return bool(kinds) and kinds[max(kinds)] in NETWORK


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
            f"{path} has schema version {version}; this release reads {SCHEMA_VERSION}. Use the release that wrote it."
        )


def damaged(path: Path, what: Any) -> StoreError:
    """Return the error for a store that cannot be trusted."""
    return StoreError(f"{path} is damaged ({what}). Nothing was read from it: restore a copy, or start a new store.")


def sound_rows(
    connection: sqlite3.Connection, path: Path, table: str, first: int = -(2**63), last: int = 2**63 - 1
) -> Iterator[Any]:
    """Yield the rows of a table without their checksums, or raise a StoreError where one is damaged."""
    key = "id" if table in ("run", "labels") else "input"
    rows = f"SELECT * FROM {table} WHERE {key} BETWEEN ? AND ? ORDER BY {key}"
    try:
        run = run_key(connection, table)
        for row in connection.execute(rows, (first, last)):
            if checksum(row[:-1], run) != row[-1]:
                raise damaged(path, f"the checksum of {key} {row[0]} in {table} does not match")
            yield row[:-1]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def insert(connection: sqlite3.Connection, table: str, rows: list[Any]) -> None:
    """Insert rows that have a value for each column of a table but the last, their checksum."""
    if not rows:
        return
    marks, run = ", ".join("?" * (len(rows[0]) + 1)), run_key(connection, table)
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", [(*row, checksum(row, run)) for row in rows])


def run_key(connection: sqlite3.Connection, table: str) -> bytes:
    """Return what binds the records of a table to their run, the checksum of the run; nothing for the run itself."""
    run = None if table == "run" else connection.execute("SELECT checksum FROM run").fetchone()
    return b"" if run is None else bytes(run[0])


def checksum(row: tuple[Any, ...], run: bytes) -> bytes:
    """Hash the values of a row of a run: numbers, strings, bytes and None, which their text tells apart."""
    return blake2b(repr(row).encode(), digest_size=16, key=run).digest()
