"""Reports on runs: their status, tables and curves."""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional
from ..results.certificates import Certificates
from ..results.decisions import Decisions
from ..results.display import CertifiedAccuracyDisplay, note_of
from ..results.files import replacing
from ..results.metrics import certified_accuracy_curve, certified_accuracy_score, check_one_kind
from ..results.plotting import Curve
from ..results.tables import unrounded
from ..runs.database import StoreError
from ..runs.recertify import recertified
from ..runs.store import StoredRun, read_status, read_store, write_lock


def shown_labels(stored: StoredRun, y: Any, *, required: bool = False) -> Any:
    """Return the true labels of the recorded inputs, from labels for all inputs or from the store; None without."""
    if y is not None:
        return np.array(stored.run.check_labels(y))[stored.recorded]
    if stored.labels is None and required:
        raise ValueError(f"{stored.path} holds no true labels: give --labels, or certify with labels.")
    return None if stored.labels is None else np.array(stored.labels)


def status_of(path: str, *, results: bool = False) -> dict[str, Any]:
    """Return the progress, speed and parameters of a run as numbers, strings and booleans.

    Parameters
    ----------
    path : str
    results : bool, default=False
        Whether to certify what is finished.
    """
    found = read_status(path)
    run, left = found.run, len(found.run.positions) - found.finished - found.failed
    shown: dict[str, Any] = {
        "store": path,
        "finished": found.finished,
        "failed": found.failed,
        "n_inputs": len(run.positions),
        "being_written": being_written(path),
        "votes": found.votes,
        "seconds_of_work": round(found.work, 1),
    }
    if found.last is not None:
        shown["seconds_since_last"] = round(time.time() - found.last, 1)
    if found.rate is not None and left:
        shown |= {"inputs_per_second": float(f"{found.rate:.4g}"), "seconds_left": round(left / found.rate)}
    if results and found.finished and run.decided_at is None:
        stored = read_store(path)
        certificates, y = recertified(stored, partial=True), shown_labels(stored, None)
        shown["abstained"] = int(certificates.abstained.sum())
        if y is not None:
            radii = [0.0, 0.5, 1.0, 2.0]
            shares = certified_accuracy_score(y, certificates, radii).tolist()
            shown["certified_accuracy"] = {unrounded(r): accuracy for r, accuracy in zip(radii, shares, strict=True)}
    # Programs that read JSON round numbers of 128 bits.
    seed = None if run.seed is None else str(run.seed)
    shown |= {"created": run.created, "model": run.model, "noise": run.noise["text"], "seed": seed}
    shown |= {"n_classes": len(run.classes) or None, "shard": run.shard, "decided_at": run.decided_at}
    shown |= {name: value["text"] if isinstance(value, dict) else value for name, value in run.parameters.items()}
    return shown | {"versions": run.versions, "digest": found.digest}


def show_status(status: dict[str, Any], only: tuple[str, ...] | None = None) -> str:
    """Return the status of a run as lines of text."""
    lines = []
    for name, value in status.items():
        if value is None or (only is not None and name not in only):
            continue
        if isinstance(value, dict):
            value = ", ".join(
                f"{key} {one:.4f}" if isinstance(one, float) else f"{key} {one}" for key, one in value.items()
            )
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif name == "finished":
            value = f"{value} of {status['n_inputs']} inputs ({value / status['n_inputs']:.1%})"
        lines.append(f"{name.replace('_', ' ') + ':':<20} {value}")
    return "\n".join(lines)


def being_written(path: str) -> bool:
    """Tell whether a process is writing to a store."""
    if not Path(f"{path}.lock").exists():
        return False
    try:
        with write_lock(Path(path)):
            return False
    except StoreError:
        return True
    except OSError:
        return False


def check_output(output: str, *, force: bool, inputs: list[Any], has_labels: bool = False, table: bool = False) -> None:
    """Raise an error unless this file can be written; called before any work is done.

    Parameters
    ----------
    output : str
    force : bool
        Whether the file may replace another one.
    inputs : list of str or None
        The files that the command reads, which are never replaced.
    has_labels : bool, default=False
    table : bool, default=False
        Whether the file must have the suffix of a table.
    """
    path = Path(output)
    kind = path.suffix.lower()
    if table and kind not in (".tsv", ".csv", ".parquet"):
        raise ValueError(f"{output} must end in .tsv, .csv or .parquet.")
    if table and kind == ".tsv" and not has_labels:
        raise ValueError("A .tsv table needs true labels; .csv and .parquet do not.")
    if kind == ".parquet":
        for package in ("pandas", "pyarrow"):
            optional(package, "tables")
    if path.exists() and any(source and Path(source).exists() and path.samefile(source) for source in inputs):
        raise ValueError(f"{output} is a file that this command reads. Name another one.")
    if path.exists() and not force:
        raise ValueError(f"{output} exists. Name another file, or replace it with --force.")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise ValueError(f"{output} must be in an existing directory that can be written: {error}.") from error


def write_table(
    output: str, found: Certificates | Decisions, index: NDArray[np.intp], y: Any, classes: Any, seconds: Any
) -> None:
    """Write results to a .csv or .parquet file, or to a .tsv file with `Certificates.to_tsv`.

    A .tsv file holds the positions of labels in ``classes``; other true labels have positions after them.

    Parameters
    ----------
    output : str
    found : Certificates or Decisions
    index : ndarray of shape (n_inputs,)
        The positions of the inputs in X.
    y : ndarray of shape (n_inputs,) or None
    classes : array-like
    seconds : ndarray of shape (n_inputs,) or None
    """
    kind = Path(output).suffix.lower()
    if kind == ".tsv":
        if not isinstance(found, Certificates):
            raise ValueError(
                "A .tsv table holds radii, and not decisions at given radii. Name a .csv or .parquet file."
            )
        known, truth = np.asarray(classes).tolist(), np.asarray(y).tolist()
        others = sorted(set(truth) - set(known))
        found.to_tsv(output, truth, classes=known + others, idx=index, times=seconds)
        return
    columns = {"input": index, "label": y} | _columns(found) | {"seconds": seconds}
    columns = {name: np.asarray(column) for name, column in columns.items() if column is not None}
    with replacing(Path(output)) as part:
        if kind == ".parquet":
            optional("pandas", "tables").DataFrame(columns).to_parquet(part, index=False)
            return
        with part.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _columns(found: Certificates | Decisions) -> dict[str, Any]:
    """Return the columns of results by name."""
    if isinstance(found, Certificates):
        names = ("abstained", "p_a", "p_b", "n_samples")
        columns = {"predicted": found.labels, "radius": found.radii} | {name: getattr(found, name) for name in names}
    else:
        robust = found.robust.reshape(len(found), -1)
        radii = np.atleast_1d(found.radius[0]).tolist()
        columns = {"predicted": found.labels} | {f"robust at {unrounded(r)}": robust[:, i] for i, r in enumerate(radii)}
        columns["n_samples"] = found.n_samples
    return columns | ({"failed": found.failed} if np.any(found.failed) else {})


def plot(path: str, results: dict[str, Certificates], truths: dict[str, NDArray[Any]]) -> None:
    """Draw curves of certified accuracy into an image file."""
    figure = optional("matplotlib.figure", "plots").Figure(figsize=(6.4, 4.2), layout="constrained")
    first = check_one_kind(results)
    stems = [Path(path).stem for path in results]
    names = stems if len(set(stems)) == len(stems) else results
    drawn = (Curve(*certified_accuracy_curve(truths[store], found)) for store, found in results.items())
    curves = dict(zip(names, drawn, strict=True))
    note = note_of(list(results.values()))
    CertifiedAccuracyDisplay(curves, norm=first.norm, threat=first.threat, note=note).plot(figure.add_subplot())
    with replacing(Path(path)) as part:
        figure.savefig(part, dpi=150, format=Path(path).suffix.lstrip(".").lower() or "png")
