"""Records of arrays in npz and parquet files. Nothing is pickled, and a damaged or foreign file is refused."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional

#: Name of the header: an entry of the npz archive, or a key of the parquet file's metadata.
HEADER = "smoothcert"

#: Version of the layout; files of a later one are refused.
LAYOUT = 1


class Record(NamedTuple):
    """What a file holds.

    Parameters
    ----------
    kind : str
        Name of the class whose record this is.
    arrays : dict of str to ndarray
        One row per input each.
    scalars : dict
        Everything else, as JSON has it.
    """

    kind: str
    arrays: dict[str, NDArray[Any]]
    scalars: dict[str, Any]


def save_record(path: str | os.PathLike[str], record: Record) -> None:
    """Write a record; the suffix of ``path``, .npz or .parquet, chooses the format.

    Raises
    ------
    ValueError
        If the suffix is another, or an array holds objects other than strings.
    ImportError
        If parquet is asked for and pyarrow is missing.
    """
    target = Path(path)
    write = {".npz": _write_npz, ".parquet": _write_parquet}[_suffix(target)]
    stored = {name: _storable(name, array) for name, array in record.arrays.items()}
    header = {
        "kind": record.kind,
        "layout": LAYOUT,
        "version": version("smoothcert"),
        "scalars": record.scalars,
        "arrays": {name: [array.dtype.str, record.arrays[name].dtype.kind in "OT"] for name, array in stored.items()},
        "n_columns": {name: array.shape[1] for name, array in stored.items() if array.ndim == 2},
    }
    header["digest"] = _digest(header, stored)
    with replacing(target) as part:
        write(part, stored, json.dumps(header))


def load_record(path: str | os.PathLike[str], kind: str) -> Record:
    """Read a record of a kind that `save_record` has written.

    Raises
    ------
    ValueError
        If the file is damaged, incomplete or changed, comes from elsewhere or from a later version, or holds a record
        of another kind; the message names the file.
    OSError
        If the file cannot be read at all.
    """
    source = Path(path)
    read = {".npz": _read_npz, ".parquet": _read_parquet}[_suffix(source)]
    with source.open("rb"):
        pass
    try:
        text, read_arrays = read(source)
    except _ForeignError as error:
        raise ValueError(f"{source} was not written by smoothcert: {error}.") from error
    except ImportError:
        raise
    except Exception as error:  # Each reader has its own errors for the many ways in which a file can be damaged.
        raise ValueError(f"{source} is damaged or no {source.suffix} file: {error}") from error
    header = _parse(source, text, kind)
    try:
        digest = header.pop("digest")
        stored = {name: _shaped(read_arrays[name], header, name) for name in header["arrays"]}
        intact = digest == _digest(header, stored)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} is damaged: its header does not fit its content ({error!r}).") from error
    if not intact:
        raise ValueError(f"{source} is damaged or was changed: its content does not match its digest.")
    arrays = {
        name: stored[name].astype(object) if was_object else stored[name]
        for name, (_, was_object) in header["arrays"].items()
    }
    return Record(kind, arrays, header["scalars"])


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a file beside ``target`` that takes its place once it is complete."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _ForeignError(ValueError):
    """The file is in order, but somebody else's."""


def _parse(source: Path, text: str, kind: str) -> dict[str, Any]:
    """Return the header, or raise a ValueError if it is of another kind or a later version."""
    try:
        header: dict[str, Any] = json.loads(text)
        layout, version, found = int(header["layout"]), header["version"], header["kind"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} is damaged: its header cannot be read ({error!r}).") from error
    if layout > LAYOUT:
        raise ValueError(
            f"{source} was written by smoothcert {version}, in a layout that this version does not know. Update it."
        )
    if found != kind:
        raise ValueError(f"{source} holds {found}, not {kind}: use {found}.load.")
    return header


def _suffix(path: Path) -> str:
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"path must end in .npz or .parquet, got {str(path)!r}.")
    return path.suffix


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return strings that came as objects in an array of their own kind, everything else as it is."""
    if array.dtype.kind in "biufUM":
        return np.ascontiguousarray(array)
    values = array.tolist()
    strings = np.array(values, dtype=np.str_) if all(isinstance(value, str) for value in values) else None
    # Arrays of strings drop trailing NUL characters.
    if strings is None or strings.tolist() != values:
        raise ValueError(f"{name} must hold numbers or plain strings to be saved, got {array[:3]!r}.")
    return strings


def _digest(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    """Hash of header and content. It tells damage, not forgery."""
    content = blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        content.update(np.ascontiguousarray(arrays[name]).data if arrays[name].size else b"")
    return content.hexdigest()


def _shaped(array: NDArray[Any], header: dict[str, Any], name: str) -> NDArray[Any]:
    """Return an array as the header says it was."""
    n_columns = header["n_columns"].get(name)
    shaped = array if n_columns is None else array.reshape(-1, n_columns)
    return shaped.astype(header["arrays"][name][0], copy=False)


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]], header: str) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{HEADER: np.array(header)}, **arrays)


def _read_npz(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive, or was cut off.")
    with np.load(path, allow_pickle=False) as archive:
        if HEADER not in archive:
            raise _ForeignError(f"it holds {', '.join(archive.files) or 'nothing'}, and no header")
        return str(archive[HEADER]), {name: archive[name] for name in archive.files if name != HEADER}


def _write_parquet(path: Path, arrays: dict[str, NDArray[Any]], header: str) -> None:
    pyarrow, parquet = optional("pyarrow", "tables"), optional("pyarrow.parquet", "tables")
    columns = {}
    for name, array in arrays.items():
        column = pyarrow.array(array.ravel())
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(column, array.shape[1]) if array.ndim == 2 else column
    table = pyarrow.table(columns).replace_schema_metadata({HEADER: header})
    parquet.write_table(table, path, compression="zstd")


def _read_parquet(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    parquet = optional("pyarrow.parquet", "tables")
    table = parquet.read_table(path, partitioning=None)
    metadata = table.schema.metadata or {}
    if HEADER.encode() not in metadata:
        raise _ForeignError(f"it has the columns {', '.join(table.column_names) or 'none'}, and no header")
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if "list" in str(column.type):
            column = column.flatten()
        arrays[name] = column.to_numpy(zero_copy_only=False)
    return metadata[HEADER.encode()].decode(), arrays
