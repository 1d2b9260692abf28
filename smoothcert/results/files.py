"""Arrays and scalars in npz and parquet files. Nothing is pickled; damaged and foreign files are refused."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional

Arrays = dict[str, NDArray[Any]]

#: The name of the header: an entry of the npz archive, or a key of the parquet file's metadata.
HEADER = "smoothcert"

#: The version of the layout; files of a later one are refused.
LAYOUT = 1


def save_content(path: str | os.PathLike[str], kind: str, arrays: Arrays, scalars: dict[str, Any]) -> None:
    """Write a file; the suffix of ``path``, .npz or .parquet, chooses the format.

    Parameters
    ----------
    path : str or path
    kind : str
        The name of the class that is saved.
    arrays : dict of str to ndarray
        Arrays with one entry for each input.
    scalars : dict
        Everything else, as JSON can hold it.

    Raises
    ------
    ValueError
        If the suffix is another one, or an array holds objects other than strings.
    ImportError
        If parquet is asked for and pyarrow is missing.
    """
    target = Path(path)
    _, write = _format(target)
    stored = {name: _storable(name, array) for name, array in arrays.items()}
    header = {
        "kind": kind,
        "layout": LAYOUT,
        "version": version("smoothcert"),
        "scalars": scalars,
        "arrays": {name: [array.dtype.str, arrays[name].dtype.kind in "OT"] for name, array in stored.items()},
        "n_columns": {name: array.shape[1] for name, array in stored.items() if array.ndim == 2},
    }
    header["digest"] = _digest(header, stored)
    with replacing(target) as part:
        write(part, stored, json.dumps(header))


def load_content(path: str | os.PathLike[str], kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Read a file that `save_content` has written.

    Parameters
    ----------
    path : str or path
    kind : str
        The name of the class that the file must hold.

    Returns
    -------
    arrays, scalars : dict

    Raises
    ------
    ValueError
        If the file is damaged, incomplete or changed, if another program or a later version wrote it, or if it holds
        another class; the message names the file.
    OSError
        If the file cannot be read at all.
    """
    source = Path(path)
    read, _ = _format(source)
    with source.open("rb"):
        pass
    try:
        text, found = read(source)
    except ImportError:
        raise
    except Exception as error:  # Each reader has its own errors for the many ways in which a file can be damaged.
        raise ValueError(f"{source} is damaged or not a {source.suffix} file: {error}") from error
    if text is None:
        names = ", ".join(found) or "nothing"
        raise ValueError(f"{source} was not written by smoothcert: it holds {names}, and no header.")
    header = _parse(source, text, kind)
    try:
        digest = header.pop("digest")
        stored = {name: _shaped(found[name], header, name) for name in header["arrays"]}
        intact = digest == _digest(header, stored)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} is damaged: its header does not fit its content ({error!r}).") from error
    if not intact:
        raise ValueError(f"{source} is damaged or was changed: its content does not match its digest.")
    objects = {name for name, (_, was_object) in header["arrays"].items() if was_object}
    arrays = {name: array.astype(object) if name in objects else array for name, array in stored.items()}
    return arrays, header["scalars"]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield the path of a file beside ``target`` that takes its place once the block ends without an error."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _parse(source: Path, text: str, kind: str) -> dict[str, Any]:
    """Return the header, or raise a ValueError if it is of another class or a later version."""
    try:
        header: dict[str, Any] = json.loads(text)
        layout, version, found = int(header["layout"]), header["version"], header["kind"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} is damaged: its header cannot be read ({error!r}).") from error
    if layout > LAYOUT:
        raise ValueError(f"{source} was written by smoothcert {version}, in a layout that is unknown here. Update it.")
    if found != kind:
        raise ValueError(f"{source} holds {found}, not {kind}: use {found}.load.")
    return header


def _format(path: Path) -> Any:
    """Return the functions that read and write files with this suffix."""
    if path.suffix not in FORMATS:
        raise ValueError(f"path must end in .npz or .parquet, got {str(path)!r}.")
    return FORMATS[path.suffix]


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return strings that came as objects in an array of a string type, everything else as it is."""
    if array.dtype.kind in "biufUM":
        return np.ascontiguousarray(array)
    values = array.tolist()
    strings = np.array(values, dtype=np.str_) if all(isinstance(value, str) for value in values) else None
    # Arrays of strings drop trailing NUL characters.
    if strings is None or strings.tolist() != values:
        raise ValueError(f"{name} must hold numbers or plain strings to be saved, got {array[:3]!r}.")
    return strings


def _digest(header: dict[str, Any], arrays: Arrays) -> str:
    """Return a hash of header and content: zip has checksums, but parquet leaves its metadata unprotected."""
    content = blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        content.update(np.ascontiguousarray(arrays[name]).data if arrays[name].size else b"")
    return content.hexdigest()


def _shaped(array: NDArray[Any], header: dict[str, Any], name: str) -> NDArray[Any]:
    """Return an array with the shape and type that the header names."""
    n_columns = header["n_columns"].get(name)
    shaped = array if n_columns is None else array.reshape(-1, n_columns)
    return shaped.astype(header["arrays"][name][0], copy=False)


def _write_npz(path: Path, arrays: Arrays, header: str) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{HEADER: np.array(header)}, **arrays)


def _read_npz(path: Path) -> tuple[str | None, Arrays]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive, or was cut off.")
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    header = arrays.pop(HEADER, None)
    return None if header is None else str(header), arrays


def _write_parquet(path: Path, arrays: Arrays, header: str) -> None:
    pyarrow, parquet = optional("pyarrow", "tables"), optional("pyarrow.parquet", "tables")
    columns = {}
    for name, array in arrays.items():
        column = pyarrow.array(array.ravel())
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(column, array.shape[1]) if array.ndim == 2 else column
    table = pyarrow.table(columns).replace_schema_metadata({HEADER: header})
    parquet.write_table(table, path, compression="zstd")


def _read_parquet(path: Path) -> tuple[str | None, Arrays]:
    table = optional("pyarrow.parquet", "tables").read_table(path, partitioning=None)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    flat = {name: column.flatten() if "list" in str(column.type) else column for name, column in columns.items()}
    header = (table.schema.metadata or {}).get(HEADER.encode())
    arrays = {name: column.to_numpy(zero_copy_only=False) for name, column in flat.items()}
    return None if header is None else header.decode(), arrays


#: How to read and write files, by suffix.
FORMATS = {".npz": (_read_npz, _write_npz), ".parquet": (_read_parquet, _write_parquet)}
