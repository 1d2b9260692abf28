"""The commands that draw votes: `certify`, `certify-at`, `resume`, `verify` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ..certify.algorithm import ESTIMATIONS
from ..regressor import SmoothedRegressor
from ..results.certificates import Certificates
from ..results.files import replacing
from ..results.metrics import certified_accuracy_score
from ..results.tables import unrounded
from ..runs.inputs import check_shard, shard_positions
from ..runs.store import read_metadata, read_store
from ..runs.verify_store import verify_store
from ..stored import stored_estimator
from . import options
from .reports import check_output, show_status, shown_labels, status_of, write_table

#: The exit statuses for false claims, and for inputs that were skipped.
FALSE, SKIPPED = 3, 4


@click.command()
@options.MODEL
@options.SMOOTHING
@options.RULE
@click.option("--estimation", type=click.Choice(ESTIMATIONS), help="Compute probabilities, or sample.  [default: auto]")
@click.option("--rtol", type=float, help="Stop sampling once a radius is within this share of the largest possible.")
@options.RECORDING
@options.OUTPUT
def certify(**given: Any) -> None:
    """Certify the inputs of a file.

    \b
      smoothcert certify model.skops test.npz --noise split --lam 1.0 --store run.sqlite
      smoothcert certify nets:cifar test.npy --classes 10 --levels 255 --n 100000 --device cuda -o radii.csv

    The box, --bounds, is the unit of radii: 1.0 is one feature moved across its whole range. A SmoothedClassifier
    supplies the parameters that are not given. For other models the defaults are those of SmoothedClassifier (alpha
    0.001, the strategy with the largest radii).
    """  # noqa: D301
    X, y = read(given)
    run_and_report(options.smoothed(given, X), X, y, given)


@click.command()
@options.MODEL
@options.SMOOTHING
@options.RULE
@click.option(
    "--radii", type=options.parse_radii, metavar="R,R,...", required=True, help="One or more radii to decide about."
)
@options.RECORDING
@options.OUTPUT
def certify_at(radii: Any, **given: Any) -> None:
    """Decide whether inputs are certified at given radii, with as few votes as that takes.

    \b
      smoothcert certify-at model.skops test.npz --radii 0.5,1 --store run.sqlite -o robust.csv
    """  # noqa: D301
    X, y = read(given)
    run_and_report(options.smoothed(given, X), X, y, given, radii[0] if len(radii) == 1 else radii)


@click.command()
@options.STORE
@options.MODEL
@options.RESUMING
@options.OUTPUT
def resume(**given: Any) -> None:
    """Resume a run with the parameters in its store.

    \b
      smoothcert resume run.sqlite model.skops test.npz

    The model and the data must be the same as before. The command asks for them because a store names no files, so that
    nobody can make it load other ones. For a regressor, it draws the missing votes and shows the status: results at any
    radius come from the store, in Python.
    """  # noqa: D301
    run = read_metadata(given["store"])
    if given["output"] or given["labels"]:
        run.check_holds("labels", given["store"])
    X, y = read(given)
    clf = stored_estimator(given["store"], options.load(given), **options.resources(given))
    run_and_report(clf, X, y, given | {"shard": run.shard}, run.decided_at)


@click.command()
@options.STORE
@options.MODEL
@click.option("--fraction", type=float, default=1.0, show_default=True, help="Share of the inputs to check.")
@click.option("--fresh", is_flag=True, help="Draw fresh votes as well, for those who do not trust the seed.")
@click.option("--level", type=float, default=0.001, show_default=True, help="Probability of a false alarm.")
def verify(store: str, fraction: float, fresh: bool, level: float, **given: Any) -> None:
    """Check the records of a run: draw its votes again, and compare.

    \b
      smoothcert verify run.sqlite model.skops test.npz --fraction 0.1 --fresh

    Exit status 3 says that a record is false.
    """  # noqa: D301
    X, _ = options.read_data(given)
    clf = stored_estimator(store, options.load(given), **options.resources(given))
    audit = verify_store(store, clf, options.as_fitted(clf, X, given), fraction=fraction, fresh=fresh, level=level)
    click.echo(repr(audit))
    if not audit.consistent:
        click.echo(audit.table())
        click.get_current_context().exit(FALSE)


@click.command()
@options.MODEL
@options.SMOOTHING
@options.FORCE
@click.option("--output", "-o", type=click.Path(), help="One label per line.  [default: stdout]")
def predict(output: str | None, force: bool, **given: Any) -> None:
    """Predict labels, without certificates.

    The label is the class with most votes under noise.

    \b
      smoothcert predict model.skops test.npz --lam 1.0 > labels.txt
    """  # noqa: D301
    if output is not None:
        check_output(output, force=force, inputs=options.files(given))
    X, _ = options.read_data(given)
    clf = options.smoothed(given, X)
    text = "".join(f"{label}\n" for label in clf.predict(options.as_fitted(clf, X, given)))
    if output is None:
        click.echo(text, nl=False)
        return
    with replacing(Path(output)) as part:
        part.write_text(text)


COMMANDS = (certify, certify_at, resume, verify, predict)


def read(given: dict[str, Any]) -> tuple[Any, Any]:
    """Load inputs and labels, after a check that the table can be written."""
    X, y = options.read_data(given)
    if given["output"] is not None:
        files = [*options.files(given), given["store"]]
        check_output(given["output"], force=given["force"], inputs=files, has_labels=y is not None, table=True)
    return X, y


def run_and_report(clf: Any, X: Any, y: Any, given: dict[str, Any], radii: Any = None) -> None:
    """Certify inputs, or decide about them at radii, show a summary, and write the table if one is asked for."""
    X, store, shard = options.as_fitted(clf, X, given), given["store"], given["shard"]
    if given["scan"]:
        for _ in clf.open_inputs(X, shard=shard).chunks():
            pass
    recording = {"store": store, "shard": shard, "on_error": given["on_error"], "same_model": given["same_model"]}
    if isinstance(clf, SmoothedRegressor):
        # Its votes serve all radii.
        found: Any = clf.certify(X, 0.0, **recording)
        click.echo(show_status(status_of(store), only=("store", "finished", "failed", "n_inputs", "digest")))
    else:
        at = () if radii is None else ([radii] if np.ndim(radii) else radii,)
        found = (clf.certify_at if at else clf.certify)(X, *at, y=y, **recording)
        report(found, X, y, given, clf.classes_)
    if found.failed.any():
        click.get_current_context().exit(SKIPPED)


def report(found: Any, X: Any, y: Any, given: dict[str, Any], classes: Any) -> None:
    """Show a summary of certificates or decisions, and write the table if one is asked for."""
    store, shard = given["store"], given["shard"]
    stored = read_store(store) if store else None
    index = shard_positions(len(X), check_shard(shard, len(X))) if stored is None else stored.recorded
    truth: Any = None
    if y is not None:
        truth = np.asarray(y)[index]
    elif stored is not None:
        truth = shown_labels(stored, None)
    click.echo(summary(found, truth))
    if given["output"]:
        write_table(given["output"], found, index, truth, classes, None if stored is None else stored.times)


def summary(found: Any, y: Any) -> str:
    """Describe certificates or decisions in one or two lines."""
    if y is None:
        return repr(found)
    if isinstance(found, Certificates):
        radii = [0.0, 0.5, 1.0, 2.0]
        shares = certified_accuracy_score(y, found, radii)
    else:
        radii = np.atleast_1d(found.radius[0]).tolist()
        right = (found.labels == y)[:, None] & found.robust.reshape(len(found), -1)
        shares = right.mean(axis=0)
    texts = (f"{one:.4f} at {unrounded(radius)}" for one, radius in zip(shares, radii, strict=True))
    return f"{found!r}\nCertified accuracy {', '.join(texts)}"
