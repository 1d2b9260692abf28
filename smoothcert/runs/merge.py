"""The stores of the shards of one run become one store."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.warn import warn
from ..results.files import replacing
from .database import StoreError, connect, create, insert, sound_rows
from .metadata import RunMetadata
from .model_check import is_known, same_content
from .store import read_labels, read_run

#: Number of records that are in memory at once.
FEW_ROWS = 1000


def merge_stores(path: str | os.PathLike[str], stores: Iterable[str | os.PathLike[str]]) -> None:
    """Join the stores of the shards of a run into one store.

    The new store is that of the whole run: `Certificates.from_store` reads it, and ``clf.certify(X, store=path)``
    finishes what is missing.

    Parameters
    ----------
    path : str or path-like
        The new file. An existing one is not replaced.
    stores : iterable of path-like
        The stores that ``clf.certify(X, store=..., shard=(i, n))`` has written, finished or not.

    Raises
    ------
    StoreError
        If a file is no sound store, the stores do not belong to one run, or an input is in two of them.

    Warns
    -----
    UserWarning
        If the model's content is not known, as that of a function: two models of one name cannot be told apart.

    See Also
    --------
    Certificates.concatenate : Join the certificates of shards.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import Certificates, SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=500, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = [f"{folder}/{i}.sqlite" for i in (1, 2)]
    ...     for i, part in enumerate(parts, start=1):
    ...         _ = clf.certify(X[::25], store=part, shard=(i, 2))
    ...     merge_stores(f"{folder}/run.sqlite", parts)
    ...     print(len(Certificates.from_store(f"{folder}/run.sqlite")))
    6
    """
    target, sources = Path(path), [Path(store) for store in stores]
    # SQLite would take what a killed process left beside a file of this name for a part of the new one.
    if left := [name for end in ("", "-wal", "-shm", "-journal") if Path(name := f"{target}{end}").exists()]:
        raise StoreError(f"{left[0]} exists already. Merge into a new file.")
    if not sources:
        raise StoreError("stores must name at least one store, got none.")
    runs, labels_of_each = zip(*map(_read, sources), strict=True)
    _check_one_run(runs, sources)
    run = replace(runs[0], shard=None, created=min(run.created for run in runs))
    labels = _same_labels(labels_of_each, sources)
    try:
        with replacing(target) as made:
            create(made, run.to_row())
            _write(made, sources, labels, run.n_inputs)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{target} cannot be written: {error}. Is the disk full, or the directory read-only?"
        ) from error


def _read(path: Path) -> tuple[RunMetadata, Any]:
    """Read the run and the labels of a store."""
    with closing(connect(path, writing=False)) as connection:
        return read_run(connection, path), read_labels(connection, path)


def _check_one_run(runs: Sequence[RunMetadata], sources: list[Path]) -> None:
    """Raise a StoreError unless stores are shards of one run."""
    first = replace(runs[0], shard=None)
    for run, source in zip(runs, sources, strict=True):
        differences = first.differences(replace(run, shard=None))
        is_told = is_known(first.model) and is_known(run.model)
        same_name = first.model.split()[0] == run.model.split()[0]
        if not (same_content(first.model, run.model) and (is_told or same_name)):
            differences.append(f"model: {first.model}, {run.model}")
        if run.shard is not None and runs[0].shard is not None and run.shard[1] != runs[0].shard[1]:
            differences.append(f"number of shards: {runs[0].shard[1]}, {run.shard[1]}")
        if differences:
            raise StoreError(
                f"{source} and {sources[0]} are not of one run: {'; '.join(differences)} (in {sources[0]} first)."
            )
    if len(runs) > 1 and not all(is_known(run.model) for run in runs):
        warn(
            f"The content of the model {first.model.split()[0]} is not known, so nothing shows that the same one has "
            f"voted in all shards. verify_store draws the votes again."
        )


def _same_labels(found: Sequence[Any], sources: list[Path]) -> Any:
    """Return the labels of the run, or raise a StoreError if stores hold different ones."""
    known = [(labels, source) for labels, source in zip(found, sources, strict=True) if labels is not None]
    for labels, source in known:
        if labels != known[0][0]:
            raise StoreError(f"{source} and {known[0][1]} hold different true labels.")
    return known[0][0] if known else None


def _write(made: Path, sources: list[Path], labels: Any, n_inputs: int) -> None:
    """Write the results and failures of all sources, and the labels, into a new store."""
    seen = np.zeros(n_inputs, dtype=bool)
    with closing(sqlite3.connect(made)) as connection, connection:
        for source, table, rows in chain.from_iterable(map(_records, sources)):
            index = [row[0] for row in rows]
            if seen[index].any():
                twice = index[int(np.argmax(seen[index]))]
                raise StoreError(f"{source} holds X[{twice}], which another store holds as well. Give each shard once.")
            seen[index] = True
            insert(connection, table, rows)
        if labels is not None:
            insert(connection, "labels", [(1, json.dumps(labels))])


def _records(source: Path) -> Iterator[tuple[Path, str, list[Any]]]:
    """Yield the results and failures of a store, a few at a time, with its path and the name of their table."""
    with closing(connect(source, writing=False, checked=False)) as connection:
        for table in ("results", "failures"):
            rows = sound_rows(connection, source, table)
            while few := list(islice(rows, FEW_ROWS)):
                yield source, table, few
