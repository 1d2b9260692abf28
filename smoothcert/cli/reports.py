"""Reports on the store of a run: its status, tables and curves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from .._utils.optional import optional
from ..results.certificates import Certificates
from ..results.display import CertifiedAccuracyDisplay, Curve
from ..results.metrics import certified_accuracy_curve, certified_accuracy_score, check_one_kind
from ..runs.recertify import recertified
from ..runs.store import StoredRun, read_store


def labels_of(stored: StoredRun, y: Any, *, required: bool = True) -> Any:
    """Return the true labels of the finished inputs, from the store or from labels for all inputs."""
    if y is not None:
        if len(y) != stored.run.n_inputs:
            raise ValueError(f"--labels must hold one label for each of {stored.run.n_inputs} inputs, got {len(y)}.")
        return np.asarray(y)[stored.recorded]
    if stored.labels is None:
        if required:
            raise ValueError("The store holds no true labels: give --labels, or certify with labels.")
        return None
    return np.array(stored.labels)


def status_of(path: str) -> dict[str, Any]:
    """Return the progress, speed and parameters of a run."""
    stored = read_store(path)
    run, done = stored.run, len(stored)
    seconds, left = float(stored.seconds.sum()), run.n_inputs - done
    shown: dict[str, Any] = {
        "store": path,
        "finished": f"{done} of {run.n_inputs} inputs ({done / run.n_inputs:.1%})",
        "being written": "yes" if being_written(path) else "no",
        "votes": stored.votes.n_votes,
        "seconds of work": round(seconds, 1),
    }
    if done and left:
        shown["seconds left"] = f"about {seconds / done * left:.0f}, divided by the number of workers"
    if done:
        found, y = recertified(stored, partial=True), labels_of(stored, None, required=False)
        shown["abstained"] = int(found.abstained.sum())
        if y is not None:
            shares = certified_accuracy_score(y, found, [0.0, 0.5, 1.0])
            shown["certified accuracy"] = "{:.4f} at 0, {:.4f} at 0.5, {:.4f} at 1".format(*shares)
    shown |= {"created": run.created, "model": run.model, "noise": run.noise["text"], "seed": str(run.seed)}
    shown["classes"] = len(run.classes)
    shown |= {name: value["text"] if isinstance(value, dict) else value for name, value in run.parameters.items()}
    shown["versions"] = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return shown


def being_written(path: str) -> bool:
    """Return whether a process is writing to a store."""
    if not Path(f"{path}.lock").exists():
        return False
    try:
        with FileLock(f"{path}.lock", timeout=0):
            return False
    except OSError as error:
        return isinstance(error, Timeout)


def check_output(output: str | None, y: Any) -> None:
    """Raise an error unless a table can be written to this file; called before the run starts."""
    if output is None:
        return
    kind = Path(output).suffix.lower()
    if kind not in (".tsv", ".csv", ".parquet"):
        raise ValueError(f"{output} must end in .tsv, .csv or .parquet.")
    if kind == ".tsv" and y is None:
        raise ValueError("A .tsv table needs true labels; .csv and .parquet do not.")
    if kind == ".parquet":
        for package in ("pandas", "pyarrow"):
            optional(package, "tables")
    if not Path(output).absolute().parent.is_dir():
        raise ValueError(f"{output} must be in an existing directory.")


def write_table(
    output: str, certificates: Certificates, stored: StoredRun | None, *, y: Any = None, classes: Any = None
) -> None:
    """Write the results to a .csv or .parquet file, or to a .tsv file with `Certificates.to_tsv`.

    A .tsv file holds the positions of labels in ``classes``; other true labels have positions after them.
    """
    index, seconds = np.arange(len(certificates)), None
    if stored is not None:
        index, seconds = stored.index, stored.seconds
        y, classes = labels_of(stored, y, required=False), stored.run.classes
    check_output(output, y)
    kind = Path(output).suffix.lower()
    if kind == ".tsv":
        known, truth = np.asarray(classes).tolist(), np.asarray(y).tolist()
        others = sorted(set(truth) - set(known))
        certificates.to_tsv(output, truth, classes=known + others, idx=index, times=seconds)
        return
    given: dict[str, Any] = {"input": index, "label": y, "predicted": certificates.labels, "radius": certificates.radii}
    given |= {name: getattr(certificates, name) for name in ("abstained", "p_a", "p_b", "n_samples")}
    given["seconds"] = seconds
    columns = {name: np.asarray(column) for name, column in given.items() if column is not None}
    if kind == ".parquet":
        optional("pandas", "tables").DataFrame(columns).to_parquet(output, index=False)
        return
    with open(output, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def plot(path: str, results: dict[str, Certificates], truths: dict[str, NDArray[Any]]) -> None:
    """Draw curves of certified accuracy into an image file."""
    figure = optional("matplotlib.figure", "plots").Figure(figsize=(6.4, 4.2), layout="constrained")
    first = check_one_kind(results)
    stems = [Path(path).stem for path in results]
    names = stems if len(set(stems)) == len(stems) else results
    drawn = (Curve(*certified_accuracy_curve(truths[store], found)) for store, found in results.items())
    curves = dict(zip(names, drawn, strict=True))
    CertifiedAccuracyDisplay(curves, norm=first.norm, threat=first.threat).plot(figure.add_subplot())
    figure.savefig(path, dpi=150)
