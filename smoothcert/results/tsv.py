"""The field's table of certified predictions: ``idx label predict radius correct time``, separated by tabs."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .files import replacing
from .tables import rounded_down

COLUMNS = ["idx", "label", "predict", "radius", "correct", "time"]

#: Significant decimal digits that tell all floats apart, also when they are cut off.
EXACT = 18


class TsvResults(NamedTuple):
    """What `smoothcert.Certificates.from_tsv` returns.

    Parameters
    ----------
    certificates : Certificates
    y : ndarray of shape (n_inputs,)
        True labels.
    idx : ndarray of int64, shape (n_inputs,)
        Numbers of the inputs in their data set.
    """

    certificates: Any
    y: NDArray[Any]
    idx: NDArray[np.int64]


def write_tsv(
    path: str | os.PathLike[str],
    certificates: Any,
    y: ArrayLike,
    *,
    classes: Sequence[Any] | None = None,
    idx: ArrayLike | None = None,
    times: ArrayLike | None = None,
    digits: int = EXACT,
) -> None:
    """Write certificates and true labels; see `smoothcert.Certificates.to_tsv`."""
    n = len(certificates)
    truth, predicted = np.asarray(y), certificates.labels
    numbers = np.arange(n) if idx is None else np.asarray(idx)
    seconds = None if times is None else np.asarray(times, dtype=np.float64)
    for name, column in (("y", truth), ("idx", numbers), ("times", seconds)):
        if column is not None and column.shape != (n,):
            raise ValueError(f"{name} must hold one entry for each of the {n} certificates, got shape {column.shape}.")
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"idx must hold whole numbers, got dtype {numbers.dtype}.")
    if seconds is not None and not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise ValueError("times must hold seconds of at least 0.")
    if isinstance(digits, bool) or not isinstance(digits, int) or digits < 1:
        raise ValueError(f"digits must be a whole number of at least 1, got {digits!r}.")
    label, predict = (_indices(name, column, classes) for name, column in (("y", truth), ("labels", predicted)))
    with replacing(Path(path)) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for i in range(n):
            abstained = bool(certificates.abstained[i])
            row = [
                int(numbers[i]),
                label[i],
                -1 if abstained else predict[i],
                "0" if abstained else rounded_down(certificates.radii[i], digits),
                int(not abstained and label[i] == predict[i]),
                "" if seconds is None else timedelta(seconds=float(seconds[i])),
            ]
            file.write("\t".join(map(str, row)) + "\n")


def read_tsv(
    path: str | os.PathLike[str], *, classes: Sequence[Any] | None = None
) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[np.int64]]:
    """Return labels, radii and abstentions, the true labels, and the numbers of the inputs."""
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source} is no table separated by tabs: {error}") from error
    if not lines or lines[0] not in (COLUMNS, COLUMNS[:-1]):
        first = " ".join(lines[0]) if lines else ""
        raise ValueError(f"{source} must begin with the line {' '.join(COLUMNS)!r}, got {first[:100]!r}.")
    rows = [_row(source, number, line, len(lines[0])) for number, line in enumerate(lines[1:], start=2) if line]
    idx, truth, predict = (np.array([row[k] for row in rows], dtype=np.int64) for k in range(3))
    radii = np.array([row[3] for row in rows], dtype=np.float64)
    abstained = predict == -1
    labels, y = _labels(source, predict, classes), _labels(source, truth, classes)
    return {"labels": labels, "radii": np.where(abstained, np.nan, radii), "abstained": abstained}, y, idx


def _row(source: Path, number: int, line: list[str], n_columns: int) -> tuple[int, int, int, float]:
    """Return one row's idx, label, predict and radius, or raise a ValueError that says what is wrong with it."""
    where = f"{source}, line {number}"
    if len(line) != n_columns:
        raise ValueError(f"{where} must hold {n_columns} columns, got {len(line)}: the file is damaged or cut off.")
    try:
        idx, label, predict, radius, correct = int(line[0]), int(line[1]), int(line[2]), float(line[3]), int(line[4])
    except ValueError as error:
        raise ValueError(f"{where} must hold numbers, got {line[:5]}.") from error
    if label < 0 or predict < -1 or not radius >= 0 or (predict == -1 and radius > 0):
        raise ValueError(
            f"{where} must hold a label of at least 0, a prediction of at least -1 and a radius of at least 0, which "
            f"is 0 where the prediction is -1, got {line[1:4]}."
        )
    if correct != (label == predict):
        raise ValueError(f"{where} says correct={correct}, but label={label} and predict={predict}.")
    return idx, label, predict, radius


def _indices(name: str, labels: NDArray[Any], classes: Sequence[Any] | None) -> list[int]:
    """Return class indices: the labels themselves where they are whole numbers, or their positions in ``classes``."""
    if classes is None:
        if labels.dtype.kind not in "iu" or (labels < 0).any():
            raise ValueError(
                f"{name} must hold whole numbers of at least 0, got {labels[:3]!r}. For other labels give "
                f"classes=clf.classes_: their positions there are written."
            )
        return [int(label) for label in labels]
    known = np.asarray(classes).tolist()
    positions = {label: position for position, label in enumerate(known)}
    if len(positions) != len(known):
        raise ValueError(f"classes must be distinct labels, got {classes!r}.")
    missing = next((label for label in labels.tolist() if label not in positions), None)
    if missing is not None:
        raise ValueError(f"{name} holds {missing!r}, which classes={known!r} lacks. Append it to classes.")
    return [positions[label] for label in labels.tolist()]


def _labels(source: Path, indices: NDArray[np.int64], classes: Sequence[Any] | None) -> NDArray[Any]:
    """Return labels for class indices; -1, the abstention, becomes a label that no class has."""
    if classes is None:
        return indices
    known = np.asarray(classes)
    if known.ndim != 1 or not len(known) or (indices >= len(known)).any():
        raise ValueError(f"{source} holds class {indices.max(initial=0)}, but classes are {known.tolist()!r}.")
    if known.dtype.kind in "iu":
        known = known.astype(np.int64)
        nobody: Any = min(-1, int(known.min()) - 1)
    elif all(isinstance(label, str) and label for label in known.tolist()):
        nobody = ""
    else:
        raise ValueError(f"classes must be whole numbers or strings that are not empty, got {classes!r}.")
    return np.append(known, np.array([nobody], dtype=known.dtype))[indices]
