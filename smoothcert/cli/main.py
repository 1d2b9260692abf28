"""The commands of ``smoothcert``: certify the inputs of a file, and report on the store of a run."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import click
import numpy as np

from ..certify.algorithm import ESTIMATIONS
from ..classifier import SmoothedClassifier
from ..results.certificates import Certificates
from ..results.metrics import certified_accuracy_score, check_one_kind
from ..runs.metadata import from_spec
from ..runs.recertify import recertified
from ..runs.store import read_store
from . import options
from .loading import load_data, load_labels
from .reports import check_output, labels_of, plot, status_of, write_table

#: Errors whose message is clear by itself; other errors are shown with the name of their class.
EXPECTED = (ValueError, TypeError, ImportError, OSError, RuntimeError, MemoryError)


class Group(click.Group):
    """Commands that show errors on one line of stderr. Exit status: 1 error, 2 wrong usage, 130 interrupt."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        debug = ctx.params.get("debug")
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.showwarning = show_warning  # type: ignore[assignment]
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted. With --store, the same command resumes the run.", err=True)
            ctx.exit(130)
        except Exception as error:
            if debug:
                raise
            name = "" if isinstance(error, EXPECTED) and str(error) else f"{type(error).__name__}: "
            click.echo(f"Error: {name}{one_line(error)}", err=True)
            ctx.exit(1)


def one_line(message: Any) -> str:
    """Return a message without line breaks."""
    return " ".join(str(message).split())


def show_warning(message: Any, *where: Any) -> None:
    """Show a warning on one line, without its source."""
    click.echo(f"Warning: {one_line(message)}", err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(package_name="smoothcert")
def cli(debug: bool) -> None:
    """Certified l1 robustness by randomized smoothing.

    Certify the inputs of a file, interrupt and resume the run at any time, and show its results:

    \b
      smoothcert certify model.skops test.npz --store run.sqlite --workers 2
      smoothcert status run.sqlite
      smoothcert curve run.sqlite --png curve.png
      smoothcert recertify run.sqlite --alpha 0.01 --radius lipschitz
      smoothcert export run.sqlite results.csv

    MODEL is a file (.skops; .safetensors with --factory; pickles with --allow-pickle) or module:function, a function
    that returns a fitted scikit-learn classifier, a torch network or a fitted SmoothedClassifier. DATA is a .npy, .npz,
    .parquet or .csv file.
    """  # noqa: D301
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")


@cli.command()
@options.MODEL
@options.SMOOTHING
@options.RULE
@click.option("--n", "n_samples", type=int, help="Votes that bound the probability of the class.  [default: 10000]")
@click.option("--estimation", type=click.Choice(ESTIMATIONS), help="Compute probabilities, or sample.  [default: auto]")
@click.option("--rtol", type=float, help="Stop sampling once a radius is this close to the largest possible one.")
@click.option("--store", type=click.Path(), help="File that records the run; the same command resumes it.")
@options.OUTPUT
def certify(store: str | None, output: str | None, **given: Any) -> None:
    """Certify the inputs of a file.

    \b
      smoothcert certify model.skops test.npz --noise split --lam 1.0 --store run.sqlite
      smoothcert certify nets:cifar test.npy --classes 10 --levels 255 --n 100000 --device cuda -o radii.csv

    The box, --bounds, is the unit of radii: 1.0 is one feature moved across its whole range. A SmoothedClassifier
    supplies the parameters that are not given. For other models the defaults are those of SmoothedClassifier (alpha
    0.001, the strategy with the largest radii).
    """  # noqa: D301
    X, y = options.read_data(given)
    check_output(output, y)
    certify_and_report(options.smoothed(given), X, y, store, output)


@cli.command()
@options.STORE
@options.MODEL
@options.OUTPUT
def resume(store: str, output: str | None, **given: Any) -> None:
    """Resume a run with the parameters in its store.

    \b
      smoothcert resume run.sqlite model.skops test.npz

    The model and the data must be the same as before. The command asks for them because a store names no files, so that
    nobody can make it load other ones.
    """  # noqa: D301
    X, y = options.read_data(given)
    check_output(output, y)
    run, model = read_store(store).run, options.load(given)
    parameters = options.resources(given) | run.parameters | {"radius": from_spec("radius", run.parameters["radius"])}
    base = model.estimator_ if isinstance(model, SmoothedClassifier) else model
    noise, bounds = from_spec("noise", run.noise), (run.box.lo, run.box.hi)
    if run.features.categorical.any():
        raise click.UsageError("The command line resumes no runs with categories. Use clf.certify(X, store=path).")
    costs = run.features.costs
    clf = SmoothedClassifier.from_pretrained(base, run.classes, noise, bounds=bounds, costs=costs, **parameters)
    certify_and_report(clf, X, y, store, output)


@cli.command()
@options.STORES
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(stores: tuple[str, ...], as_json: bool) -> None:
    """Show the progress of runs, also while they are being written.

    \b
      smoothcert status run.sqlite
    """  # noqa: D301
    found = [status_of(store) for store in stores]
    if as_json:
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=2))
        return
    for one in found:
        for name, value in one.items():
            click.echo(f"{name + ':':<20} {value}")


@cli.command()
@options.STORES
@click.option("--radii", type=options.parse_radii, metavar="R,R,...", help="Radii of the table.  [default: 13 of them]")
@click.option("--labels", type=click.Path(exists=True), help="True labels, if the stores hold none.")
@click.option("--png", type=click.Path(), help="Draw the curves into this file.")
def curve(stores: tuple[str, ...], radii: Any, labels: str | None, png: str | None) -> None:
    """Show certified accuracy at each radius.

    The command prints a table of one or more runs, and with --png also draws a plot.

    \b
      smoothcert curve narrow.sqlite wide.sqlite --radii 0,0.5,1,2 --png curve.png
    """  # noqa: D301
    stored = {store: read_store(store) for store in stores}
    for store, run in stored.items():
        if len(run) < run.run.n_inputs:
            note = f"Note: {store} holds {len(run)} of {run.run.n_inputs} inputs: the run has not ended."
            click.echo(note, err=True)
    results = {store: recertified(run, partial=True) for store, run in stored.items()}
    check_one_kind(results)
    given = load_labels(labels) if labels else None
    truths = {store: labels_of(run, given) for store, run in stored.items()}
    finite = [r for c in results.values() for r in c.radii[np.isfinite(c.radii)]]
    at = np.linspace(0, max(finite, default=1.0), 13) if radii is None else radii
    accuracies = [certified_accuracy_score(truths[store], results[store], at) for store in stores]
    click.echo("\t".join(["radius", *stores]))
    for radius, *row in zip(at, *accuracies, strict=True):
        click.echo("\t".join([f"{radius:.4g}", *(f"{accuracy:.4f}" for accuracy in row)]))
    if png:
        plot(png, results, truths)


@cli.command()
@options.STORE
@click.argument("output", type=click.Path())
@options.PARTIAL
def export(store: str, output: str, partial: bool) -> None:
    """Write the results of a run as a table.

    A .csv or .parquet file has one row for each input. A .tsv file has the columns of research code, with the positions
    of labels among the classes.

    \b
      smoothcert export run.sqlite results.parquet
    """  # noqa: D301
    stored = read_store(store)
    write_table(output, recertified(stored, partial=partial), stored)


@cli.command()
@options.STORE
@options.RULE
@click.option("--data", type=click.Path(exists=True), help="The inputs of the run, if the strategy needs them.")
@options.PARTIAL
@options.OUTPUT
def recertify(store: str, data: str | None, output: str | None, partial: bool, **rule: Any) -> None:
    """Certify again from the votes of a run.

    This needs no model and draws no votes. Parameters that are not given are those of the run.

    \b
      smoothcert recertify run.sqlite --alpha 0.01 --radius lipschitz -o lipschitz.csv
    """  # noqa: D301
    X = None if data is None else np.asarray(load_data(data)[0])
    stored = read_store(store)
    certificates = recertified(stored, X=X, partial=partial, **rule)
    click.echo(summary(certificates, labels_of(stored, None, required=False)))
    if output:
        write_table(output, certificates, stored)


@cli.command()
@options.MODEL
@options.SMOOTHING
@click.option("--output", "-o", type=click.File("w"), default="-", help="One label per line.  [default: stdout]")
def predict(output: Any, **given: Any) -> None:
    """Predict labels, without certificates.

    The label is the class with most votes under noise.

    \b
      smoothcert predict model.skops test.npz --lam 1.0 > labels.txt
    """  # noqa: D301
    X, _ = options.read_data(given)
    clf = options.smoothed(given)
    for label in clf.predict(options.as_fitted(clf, X)):
        click.echo(label, file=output)


def certify_and_report(clf: SmoothedClassifier, X: Any, y: Any, store: str | None, output: str | None) -> None:
    """Certify inputs, show a summary, and write the table if one is asked for."""
    certificates = clf.certify(options.as_fitted(clf, X), store=store, y=y)
    click.echo(summary(certificates, y))
    if output:
        write_table(output, certificates, read_store(store) if store else None, y=y, classes=clf.classes_)


def summary(certificates: Certificates, y: Any) -> str:
    """Describe certificates in one or two lines."""
    if y is None:
        return repr(certificates)
    radii = [0.0, 0.5, 1.0, 2.0]
    shares = zip(certified_accuracy_score(y, certificates, radii), radii, strict=True)
    return f"{certificates!r}\nCertified accuracy {', '.join(f'{share:.4f} at {radius:g}' for share, radius in shares)}"


def main() -> None:
    """Run the command line."""
    cli(prog_name="smoothcert")
