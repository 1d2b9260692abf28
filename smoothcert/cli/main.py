"""The command line: ``smoothcert certify``, and what follows from a store."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ..certify.binomial import BOUNDS, SCHEMES
from ..certify.names import STRATEGIES
from ..classifier import SmoothedClassifier
from ..results.certificates import Certificates
from ..results.metrics import certified_accuracy_score, check_one_kind
from ..runs.metadata import from_spec
from ..runs.recertify import recertified
from ..runs.store import StoredRun, read_store
from .loading import load_data, load_labels, load_model
from .reports import check_output, labels_of, plot, status_of, unfinished_part, write_table

NOISES = sorted(str(name) for name in STRATEGIES["noise"][1])
RADII = sorted(str(name) for name in STRATEGIES["radius"][1])

#: Options that are parameters of certification.
CERTIFICATION = ("radius", "scheme", "bound", "alpha", "n_selection", "n_samples", "rtol")

#: Errors whose text says what is wrong; before that of others stands what they are.
EXPECTED = (ValueError, TypeError, ImportError, OSError, RuntimeError, MemoryError)


class Group(click.Group):
    """Commands whose errors are one line on stderr, and exit status 1; 2 is wrong usage, 130 an interrupt."""

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
            click.echo("Interrupted. With --store, run again to go on.", err=True)
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
    """Show a warning as errors are shown, without the code that gave it."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def options(*decorators: Any) -> Callable[[Any], Any]:
    """Apply several of click's decorators, the first on top."""

    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


MODEL = options(
    click.argument("model"),
    click.argument("data"),
    click.option("--factory", metavar="MODULE:NAME", help="Function that returns the network of a .safetensors file."),
    click.option("--allow-pickle", is_flag=True, help="Load pickles, which executes what is in them."),
    click.option("--trust", multiple=True, metavar="TYPE", help="Type that a .skops file may hold; repeatable."),
    click.option("--key", help="Name of the inputs in a .npz file.  [default: X, or the only one]"),
    click.option("--target", help="Name of the labels in a .npz file or table."),
    click.option("--labels", type=click.Path(exists=True), help="File of true labels: .npy, or one per line."),
    click.option("--workers", type=int, default=None, metavar="N", help="Processes; -1 is one per core.  [default: 1]"),
    click.option("--device", help="Where torch models run: cpu, cuda, cuda:1. With several workers each gets a GPU."),
    click.option("--batch-size", type=int, help="Rows of one call of the model.  [default: chosen]"),
    click.option("--quiet", "-q", is_flag=True, help="No progress bar."),
)

SMOOTHING = options(
    click.option(
        "--noise", type=click.Choice(NOISES), help="Noise family.  [default: that of a SmoothedClassifier, or split]"
    ),
    click.option("--lam", type=float, help="Half-width of the noise, in units of the box.  [default: 1]"),
    click.option("--sigma", type=float, help="Its standard deviation, instead of --lam."),
    click.option("--levels", type=int, help="Steps of digital data, 255 for 8-bit images.  [default: real numbers]"),
    click.option("--bounds", help="LO,HI of the box, or a .npy of shape (2, ...).  [default: 0,1]"),
    click.option("--classes", help="Labels in the order of a network's logits, a,b,c; or how many there are."),
    click.option("--n-selection", type=int, help="Votes that choose the class.  [default: 256]"),
    click.option("--seed", type=int, help="Makes results reproducible.  [default: fresh, kept in the store]"),
)

RULE = options(
    click.option("--radius", type=click.Choice(["auto", *RADII]), help="Radius strategy."),
    click.option("--scheme", type=click.Choice(SCHEMES), help="How votes are turned into two probabilities."),
    click.option("--bound", type=click.Choice(BOUNDS), help="Confidence bound on a probability."),
    click.option("--alpha", type=float, help="Probability that a certificate is wrong."),
)


PARTIAL = click.option("--partial", is_flag=True, help="What there is of a run that has not ended.")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(package_name="smoothcert")
def cli(debug: bool) -> None:
    """Certified l1 robustness by randomized smoothing.

    Certify the inputs of a file, interrupt it as you like, and look at what was found:

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
@MODEL
@SMOOTHING
@RULE
@click.option("--n", "n_samples", type=int, help="Votes that bound the class's probability.  [default: 10000]")
@click.option("--rtol", type=float, help="Stop drawing once a radius is this close to the largest possible one.")
@click.option("--store", type=click.Path(), help="File that records the run; the same command goes on where it ended.")
@click.option("--output", "-o", type=click.Path(), help="Table of the results: .tsv, .csv or .parquet.")
def certify(store: str | None, output: str | None, **given: Any) -> None:
    """Certify the inputs of a file.

    \b
      smoothcert certify model.skops test.npz --noise split --lam 1.0 --store run.sqlite
      smoothcert certify nets:cifar test.npy --classes 10 --levels 255 --n 100000 --device cuda -o radii.csv

    The box, --bounds, is what radii are measured in: 1.0 is one feature moved across its whole range. What is left open
    is as in SmoothedClassifier (alpha 0.001, the strategy with the largest radii), or the model's own where it is a
    SmoothedClassifier.
    """  # noqa: D301
    X, y = read_data(given)
    check_output(output, y)
    clf = smoothed(given)
    report(clf.certify(as_fitted(clf, X), store=store, y=y), y, clf.classes_, store, output)


@cli.command()
@click.argument("store", type=click.Path(exists=True))
@MODEL
@click.option("--output", "-o", type=click.Path(), help="Table of the results: .tsv, .csv or .parquet.")
def resume(store: str, output: str | None, **given: Any) -> None:
    """Go on with a run: all parameters are those of the store.

    \b
      smoothcert resume run.sqlite model.skops test.npz

    The model and the data are asked for, and must be the same: a store names no files, so that nobody can make it load
    something else.
    """  # noqa: D301
    X, y = read_data(given)
    check_output(output, y)
    run = read_store(store).run
    parameters = run.parameters | {"radius": from_spec("radius", run.parameters["radius"])}
    model = load(given)
    clf = SmoothedClassifier.from_pretrained(
        model.estimator_ if isinstance(model, SmoothedClassifier) else model,
        run.classes,
        from_spec("noise", run.noise),
        bounds=(run.box.lo, run.box.hi),
        **machine(given),
        **parameters,
    )
    report(clf.certify(as_fitted(clf, X), store=store, y=y), y, clf.classes_, store, output)


@cli.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(stores: tuple[str, ...], as_json: bool) -> None:
    """Show how far runs are, also while they are being written.

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
@click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--radii", help="Radii of the table, 0,0.5,1.  [default: 13 up to the largest]")
@click.option("--labels", type=click.Path(exists=True), help="True labels, where the stores hold none.")
@click.option("--png", type=click.Path(), help="Draw the curves into this file.")
def curve(stores: tuple[str, ...], radii: str | None, labels: str | None, png: str | None) -> None:
    """Show certified accuracy at each radius.

    A table, and with --png a plot, of one or more runs.

    \b
      smoothcert curve narrow.sqlite wide.sqlite --radii 0,0.5,1,2 --png curve.png
    """  # noqa: D301
    stored = {store: read_store(store) for store in stores}
    for store, run in stored.items():
        if unfinished := unfinished_part(store, run):
            click.echo(f"Note: {unfinished}.", err=True)
    results = {store: recertified(run, partial=True) for store, run in stored.items()}
    check_one_kind(results)
    given = load_labels(labels) if labels else None
    truths = {store: labels_of(run, given) for store, run in stored.items()}
    finite = [r for c in results.values() for r in c.radii[np.isfinite(c.radii)]]
    at = parse_radii(radii) if radii else np.linspace(0, max(finite, default=1.0), 13)
    accuracies = {store: certified_accuracy_score(truths[store], results[store], at) for store in stores}
    click.echo("\t".join(["radius", *stores]))
    for i, radius in enumerate(at):
        click.echo("\t".join([f"{radius:.4g}", *(f"{accuracies[store][i]:.4f}" for store in stores)]))
    if png:
        plot(png, results, truths)


@cli.command()
@click.argument("store", type=click.Path(exists=True))
@click.argument("output", type=click.Path())
@PARTIAL
def export(store: str, output: str, partial: bool) -> None:
    """Write the results of a run as a table.

    A .csv or .parquet has a row for each input; a .tsv has the field's columns, labels being positions among the
    classes.

    \b
      smoothcert export run.sqlite results.parquet
    """  # noqa: D301
    stored = read_store(store)
    check_ended(store, stored, partial)
    write_table(output, recertified(stored, partial=partial), stored)


@cli.command()
@click.argument("store", type=click.Path(exists=True))
@RULE
@click.option("--data", type=click.Path(exists=True), help="The inputs of the run, where a strategy needs them.")
@PARTIAL
@click.option("--output", "-o", type=click.Path(), help="Table of the results: .tsv, .csv or .parquet.")
def recertify(store: str, data: str | None, output: str | None, partial: bool, **rule: Any) -> None:
    """Certify again from the votes of a run.

    No model is needed, and nothing is drawn. What is left open is as in the run.

    \b
      smoothcert recertify run.sqlite --alpha 0.01 --radius lipschitz -o lipschitz.csv
    """  # noqa: D301
    X = None if data is None else np.asarray(load_data(data)[0])
    stored = read_store(store)
    check_ended(store, stored, partial)
    certificates = recertified(stored, X=X, partial=partial, **rule)
    click.echo(summary(certificates, labels_of(stored, None, required=False)))
    if output:
        write_table(output, certificates, stored)


@cli.command()
@MODEL
@SMOOTHING
@click.option("--output", "-o", type=click.File("w"), default="-", help="One label per line.  [default: stdout]")
def predict(output: Any, **given: Any) -> None:
    """Predict labels, without certificates.

    The class that most votes under noise choose.

    \b
      smoothcert predict model.skops test.npz --lam 1.0 > labels.txt
    """  # noqa: D301
    X, _ = read_data(given)
    clf = smoothed(given)
    for label in clf.predict(as_fitted(clf, X)):
        click.echo(label, file=output)


def read_data(given: dict[str, Any]) -> tuple[Any, Any]:
    """Load inputs and labels."""
    X, y = load_data(given["data"], key=given["key"], target=given["target"])
    return X, load_labels(given["labels"]) if given["labels"] else y


def as_fitted(clf: SmoothedClassifier, X: Any) -> Any:
    """Return a table without the names of its columns, where the classifier knows none."""
    return X.to_numpy() if hasattr(X, "columns") and not hasattr(clf, "feature_names_in_") else X


def load(given: dict[str, Any]) -> Any:
    """Load the model."""
    return load_model(
        given["model"], factory=given["factory"], allow_pickle=given["allow_pickle"], trusted=given["trust"]
    )


def machine(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that change nothing but the speed."""
    return {
        "n_jobs": given["workers"],
        "device": given["device"],
        "batch_size": given["batch_size"] or "auto",
        "verbose": 0 if given["quiet"] else 1,
    }


def smoothed(given: dict[str, Any]) -> SmoothedClassifier:
    """Build the smoothed classifier that the options describe; what they leave open is a loaded one's own."""
    model = load(given)
    classes, noise, bounds = getattr(model, "classes_", None), None, (0.0, 1.0)
    chosen: dict[str, Any] = {}
    if isinstance(model, SmoothedClassifier):
        chosen = {name: getattr(model, name) for name in (*CERTIFICATION, "random_state", "inference")}
        model, noise, bounds = model.estimator_, model.noise_, (model.box_.lo, model.box_.hi)
    chosen |= {name: given[name] for name in CERTIFICATION if given.get(name) is not None}
    if given["seed"] is not None:
        chosen["random_state"] = given["seed"]
    if given["classes"] is not None:
        classes = parse_classes(given["classes"])
    if classes is None:
        raise click.UsageError("This model does not know its classes: give --classes, their number or a,b,c.")
    if noise is None or any(given[name] is not None for name in ("noise", "lam", "sigma", "levels")):
        noise = parse_noise(given, noise)
    if given["bounds"] is not None:
        bounds = parse_bounds(given["bounds"])
    return SmoothedClassifier.from_pretrained(model, classes, noise, bounds=bounds, **machine(given), **chosen)


def parse_classes(text: str) -> list[Any]:
    """Return labels: so many, or those that are listed."""
    labels = text.split(",")
    numbers = [int(label) for label in labels if label.lstrip("-").isdigit()]
    if len(numbers) < len(labels):
        return labels
    return numbers if len(numbers) > 1 else list(range(numbers[0]))


def parse_noise(given: dict[str, Any], own: Any = None) -> Any:
    """Return the noise that the options describe; what they leave open is that of a loaded classifier."""
    if given["lam"] is not None and given["sigma"] is not None:
        raise click.UsageError("Give --lam or --sigma, not both.")
    keep = own is not None and given["noise"] is None
    kind = type(own) if keep else STRATEGIES["noise"][1][given["noise"] or "split"]
    parameters = own.get_params() if keep else {}
    if given["sigma"] is not None:
        scale = kind.from_sigma(given["sigma"]).get_params()
        parameters |= {name: scale[name] for name in ("lam", "sigma", "b") if name in scale}
    parameters |= {name: given[name] for name in ("lam", "levels") if given[name] is not None}
    return kind(**parameters)


def parse_radii(text: str) -> NDArray[np.float64]:
    """Return radii, from 0 up."""
    try:
        radii = np.array([float(radius) for radius in text.split(",")])
    except ValueError:
        radii = np.array([np.nan])
    if not (radii >= 0).all():
        raise click.UsageError(f"--radii must be numbers of at least 0, 0,0.5,1, got {text!r}.")
    return radii


def parse_bounds(text: str) -> tuple[Any, Any]:
    """Return the ends of the box."""
    if text.endswith(".npy"):
        lo, hi = np.load(text, allow_pickle=False)
        return lo, hi
    return _pair(text)


def _pair(text: str) -> tuple[float, float]:
    try:
        lo, hi = map(float, text.split(","))
    except ValueError:
        raise click.UsageError(f"--bounds must be LO,HI or a .npy file, got {text!r}.") from None
    return lo, hi


def check_ended(store: str, stored: StoredRun, partial: bool) -> None:
    """Raise an error if a run has not ended, unless what there is will do."""
    unfinished = unfinished_part(store, stored)
    if unfinished and not partial:
        raise click.ClickException(f"{unfinished}. Resume it, or take what there is with --partial.")


def report(certificates: Certificates, y: Any, classes: Any, store: str | None, output: str | None) -> None:
    """Show a summary, and write the table if it is asked for."""
    click.echo(summary(certificates, y))
    if output:
        write_table(output, certificates, read_store(store) if store else None, y=y, classes=classes)


def summary(certificates: Certificates, y: Any) -> str:
    """Describe certificates in a line or two."""
    if y is None:
        return repr(certificates)
    radii = np.array([0.0, 0.5, 1.0, 2.0])
    shares = certified_accuracy_score(y, certificates, radii)
    at = ", ".join(f"{share:.4f} at {radius:g}" for radius, share in zip(radii, shares, strict=True))
    return f"{certificates!r}\nCertified accuracy {at}"


def main() -> None:
    """Run the command line."""
    cli(prog_name="smoothcert")
