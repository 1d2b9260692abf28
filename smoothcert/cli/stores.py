"""The commands that read stores, and need no model: `status`, `curve`, `export`, `recertify`, `merge` and `label`."""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from ..results.metrics import certified_accuracy_score, check_one_kind
from ..results.tables import rounded_down, unrounded
from ..runs.merge import merge_stores
from ..runs.recertify import decided, recertified
from ..runs.store import StoredRun, add_labels, read_store
from . import options
from .loading import load_data, load_labels
from .reports import check_output, plot, show_status, shown_labels, status_of, write_table
from .runs import summary


@click.command()
@options.STORES
@click.option("--results", is_flag=True, help="Also show abstentions and certified accuracy, which takes longer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(stores: tuple[str, ...], results: bool, as_json: bool) -> None:
    """Show the progress of runs, even while they are being written.

    \b
      smoothcert status run.sqlite
    """  # noqa: D301
    found = [status_of(store, results=results) for store in stores]
    if as_json:
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=2))
        return
    for one in found:
        click.echo(show_status(one))


@click.command()
@options.STORES
@click.option("--radii", type=options.parse_radii, metavar="R,R,...", help="Radii of the table.  [default: 13 of them]")
@click.option("--labels", type=click.Path(exists=True), help="True labels, if the stores hold none.")
@click.option("--png", type=click.Path(), help="Draw the curves into this file.")
@options.FORCE
def curve(stores: tuple[str, ...], radii: Any, labels: str | None, png: str | None, force: bool) -> None:
    """Show certified accuracy at each radius.

    The command prints a table of one or more runs, and with --png also draws a plot.

    \b
      smoothcert curve narrow.sqlite wide.sqlite --radii 0,0.5,1,2 --png curve.png
    """  # noqa: D301
    if png is not None:
        check_output(png, force=force, inputs=[*stores, labels])
    stored = {store: read_store(store) for store in stores}
    for store, run in stored.items():
        if len(run.recorded) < len(run.run.positions):
            note = f"Note: {store} holds {len(run.recorded)} of {len(run.run.positions)} inputs: the run has not ended."
            click.echo(note, err=True)
    results = {store: recertified(run, partial=True) for store, run in stored.items()}
    check_one_kind(results)
    given = load_labels(labels) if labels else None
    truths = {store: shown_labels(run, given, required=True) for store, run in stored.items()}
    finite = [r for c in results.values() for r in c.radii[np.isfinite(c.radii)]]
    evenly = np.linspace(0, max(finite, default=1.0), 13)
    at = [float(rounded_down(radius)) for radius in evenly] if radii is None else radii
    accuracies = [certified_accuracy_score(truths[store], results[store], at) for store in stores]
    click.echo("\t".join(["radius", *stores]))
    for radius, *row in zip(at, *accuracies, strict=True):
        click.echo("\t".join([unrounded(radius), *(f"{accuracy:.4f}" for accuracy in row)]))
    if png:
        plot(png, results, truths)


@click.command()
@options.STORE
@click.argument("output", type=click.Path())
@options.LABELS
@options.PARTIAL
@options.FORCE
def export(store: str, output: str, labels: str | None, partial: bool, force: bool) -> None:
    """Write the results of a run as a table.

    A .csv or .parquet file has one row for each input. A .tsv file has the columns of research code, with the positions
    of labels among the classes.

    \b
      smoothcert export run.sqlite results.parquet
    """  # noqa: D301
    stored = read_store(store)
    has_labels = labels is not None or stored.all_labels is not None
    check_output(output, force=force, inputs=[store, labels], has_labels=has_labels, table=True)
    y = shown_labels(stored, load_labels(labels) if labels else None)
    found = recertified(stored, partial=partial) if stored.run.decided_at is None else decided(stored, partial=partial)
    write_stored(output, found, stored, y)


@click.command()
@options.STORE
@options.RULE
@click.option("--data", type=click.Path(exists=True), help="The inputs of the run, if the strategy needs them.")
@options.LABELS
@options.PARTIAL
@options.OUTPUT
def recertify(store: str, data: str | None, output: str | None, **given: Any) -> None:
    """Certify again from the votes of a run.

    This needs no model and draws no votes. Parameters that are not given are those of the run.

    \b
      smoothcert recertify run.sqlite --alpha 0.01 --radius lipschitz -o lipschitz.csv
    """  # noqa: D301
    stored = read_store(store)
    labels = given["labels"]
    if output is not None:
        has_labels = labels is not None or stored.all_labels is not None
        check_output(output, force=given["force"], inputs=[store, data, labels], has_labels=has_labels, table=True)
    y = shown_labels(stored, load_labels(labels) if labels else None)
    X = None if data is None else np.asarray(load_data(data)[0])
    rule = {name: given[name] for name in ("scheme", "bound", "alpha")} | {"radius": options.make_radius(given)}
    certificates = recertified(stored, X=X, partial=given["partial"], **rule)
    click.echo(summary(certificates, y))
    if output is not None:
        write_stored(output, certificates, stored, y)


@click.command()
@click.argument("output", type=click.Path())
@options.STORES
def merge(output: str, stores: tuple[str, ...]) -> None:
    """Join the stores of the shards of a run into a new one.

    \b
      smoothcert merge run.sqlite part-*.sqlite
    """  # noqa: D301
    merge_stores(output, stores)
    click.echo(show_status(status_of(output), only=("store", "finished", "failed", "n_inputs", "digest")))


@click.command()
@options.STORE
@click.argument("labels", type=click.Path(exists=True))
def label(store: str, labels: str) -> None:
    """Write true labels into the store of a run.

    \b
      smoothcert label run.sqlite labels.npy
    """  # noqa: D301
    add_labels(store, load_labels(labels))


def write_stored(output: str, found: Any, stored: StoredRun, y: Any) -> None:
    """Write the results of a store as a table."""
    write_table(output, found, stored.recorded, y, stored.run.classes, stored.times)


COMMANDS = (status, curve, export, recertify, merge, label)
