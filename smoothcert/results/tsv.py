"""The tab-separated table of certified predictions that research code writes: `Certificates.to_tsv`, `from_tsv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.checks import check_count, unmasked
from .files import replacing
from .records import no_label
from .tables import rounded_down

COLUMNS = ["idx", "label", "predict", "radius", "correct", "time"]

#: The significant decimal digits that tell all floats apart, even when the rest is cut off.
EXACT = 18

#: The largest whole number of int64.
LARGEST = 2**63 - 1


class TsvResults(NamedTuple):
    """The result of `smoothcert.Certificates.from_tsv`.

    Parameters
    ----------
    certificates : Certificates
    y : ndarray of shape (n_inputs,)
        True labels.
    idx : ndarray of int64, shape (n_inputs,)
        The number of each input in its data set.
    """

    certificates: Any
    y: NDArray[Any]
    idx: NDArray[np.int64]


def write_tsv(path: Any, certificates: Any, y: Any, classes: Any, idx: Any, times: Any, digits: int) -> None:
    """Write certificates and true labels; see `smoothcert.Certificates.to_tsv`."""
    n, abstained = len(certificates), certificates.abstained
    numbers = np.asarray(range(n) if idx is None else idx)
    seconds = np.zeros(n) if times is None else np.asarray(times, dtype=np.float64)
    for name, column in (("y", np.asarray(unmasked("y", y))), ("idx", numbers), ("times", seconds)):
        if column.shape != (n,):
            raise ValueError(f"{name} must hold one entry for each of the {n} certificates, got shape {column.shape}.")
    if numbers.dtype.kind not in "iu" or not _fit(numbers) or len(np.unique(numbers)) < n:
        raise ValueError(f"idx must hold whole numbers of at least 0, all of them different, got {idx!r}.")
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise ValueError(f"times must hold seconds, finite and at least 0, got {times!r}.")
    check_count("digits", digits)
    label, predict = _indices("y", y, classes), np.full(n, -1)
    predict[~abstained] = _indices("labels", certificates.labels[~abstained], classes)
    radii = [rounded_down(radius, digits) for radius in np.where(abstained, 0.0, certificates.radii)]
    shown = [""] * n if times is None else [timedelta(seconds=one) for one in seconds.tolist()]
    columns = (numbers, label, predict, radii, label == predict, shown)
    with replacing(Path(path)) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerow(COLUMNS)
        writer.writerows((i, a, b, r, int(right), t) for i, a, b, r, right, t in zip(*columns, strict=True))


def read_tsv(path: Any, classes: Any) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[np.int64]]:
    """Return labels, radii and abstentions, the true labels, and the numbers of the inputs."""
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source} is not a table separated by tabs: {error}") from error
    header = lines[0] if lines else []
    if header not in (COLUMNS, COLUMNS[:-1]):
        raise ValueError(f"{source} must begin with the line {' '.join(COLUMNS)!r}, got {' '.join(header)[:100]!r}.")
    found, line_of = [], dict[int, int]()
    for i, line in enumerate(lines[1:], start=2):
        if line:
            found.append(_parse(f"{source}, line {i}", line, len(header)))
            if (first := line_of.setdefault(found[-1][0], i)) < i:
                raise ValueError(
                    f"{source}, line {i} must hold a new input, but line {first} has its idx={line[0]} too."
                )
    idx, truth, predict = (np.array([entry[k] for entry in found], dtype=np.int64) for k in range(3))
    abstained = predict == -1
    radii = np.where(abstained, np.nan, np.array([entry[3] for entry in found], dtype=np.float64))
    labels, y = _labels(source, predict, classes), _labels(source, truth, classes)
    return {"labels": labels, "radii": radii, "abstained": abstained}, y, idx


def _parse(where: str, line: list[str], n_columns: int) -> tuple[int, int, int, float]:
    """Return idx, label, predict and radius of a line, or raise a ValueError that says what is wrong with it."""
    if len(line) != n_columns:
        raise ValueError(f"{where} must hold {n_columns} columns, got {len(line)}: the file is damaged or cut off.")
    try:
        if "_" in "".join(line[:5]):
            raise ValueError("Python reads 1_0 as 10, and no other program does.")
        idx, label, predict, radius, correct = int(line[0]), int(line[1]), int(line[2]), float(line[3]), int(line[4])
    except ValueError as error:
        raise ValueError(f"{where} must hold numbers, got {line[:5]}.") from error
    if idx < 0 or label < 0 or predict < -1 or not radius >= 0 or (predict == -1 and radius > 0):
        raise ValueError(
            f"{where} must hold an idx and a label of at least 0, a prediction of at least -1 and a radius of at least "
            f"0, which is 0 where the prediction is -1, got {line[:4]}."
        )
    if max(idx, label, predict) > LARGEST:
        raise ValueError(f"{where} must hold whole numbers below 2**63, got {line[:3]}.")
    if correct != (label == predict):
        raise ValueError(f"{where} says correct={correct}, but label={label} and predict={predict}.")
    return idx, label, predict, radius


def _fit(numbers: NDArray[Any]) -> bool:
    """Tell whether all whole numbers lie from 0 to `LARGEST`."""
    return bool(((numbers >= 0) & (numbers <= LARGEST)).all())


def _indices(name: str, labels: ArrayLike, classes: Sequence[Any] | None) -> NDArray[np.int64]:
    """Return class indices: the labels themselves where they are whole numbers, or their positions in ``classes``."""
    given = np.asarray(labels)
    if classes is None:
        if given.dtype.kind not in "iu" or not _fit(given):
            raise ValueError(
                f"{name} must hold whole numbers from 0 to 2**63 - 1, got {given[:3]!r}. For other labels give "
                f"classes=clf.classes_: their positions there are written."
            )
        return given.astype(np.int64)
    known = np.asarray(classes).tolist()
    positions = {label: position for position, label in enumerate(known)}
    if len(positions) != len(known):
        raise ValueError(f"classes must be distinct labels, got {classes!r}.")
    if missing := [label for label in given.tolist() if label not in positions]:
        raise ValueError(f"{name} holds {missing[0]!r}, which classes={known!r} lacks. Append it to classes.")
    return np.array([positions[label] for label in given.tolist()], dtype=np.int64)


def _labels(source: Path, indices: NDArray[np.int64], classes: Sequence[Any] | None) -> NDArray[Any]:
    """Return the labels of class indices; -1, the abstention, becomes a label that no class has."""
    if classes is None:
        return indices
    known = np.asarray(classes)
    if known.ndim != 1 or not len(known) or (indices >= len(known)).any():
        raise ValueError(f"{source} holds class {indices.max(initial=0)}, but classes are {known.tolist()!r}.")
    if known.dtype.kind not in "iu" and not all(isinstance(label, str) and label for label in known.tolist()):
        raise ValueError(f"classes must be whole numbers or strings that are not empty, got {classes!r}.")
    return np.append(known, no_label(known))[indices]
