"""The options of the commands, and the classifier that they describe."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ..certify.binomial import BOUNDS, SCHEMES
from ..certify.names import STRATEGIES
from ..classifier import SmoothedClassifier
from .loading import load_data, load_labels, load_model

NOISES, RADII = (sorted(map(str, STRATEGIES[kind][1])) for kind in ("noise", "radius"))

#: The options that are parameters of certification.
CERTIFICATION = ("radius", "scheme", "bound", "alpha", "n_selection", "n_samples", "estimation", "rtol")


def parse_classes(text: str) -> list[Any]:
    """Return the labels in a list a,b,c, or 0, 1, 2, ... for their number."""
    labels = text.split(",")
    numbers = [int(label) for label in labels if label.lstrip("-").isdigit()]
    if len(numbers) < len(labels):
        return labels
    return numbers if len(numbers) > 1 else list(range(numbers[0]))


def parse_radii(text: str) -> NDArray[np.float64]:
    """Return the radii in a list 0,0.5,1."""
    try:
        radii = np.array([float(radius) for radius in text.split(",")])
    except ValueError:
        radii = np.array([np.nan])
    if not (radii >= 0).all():
        raise click.UsageError(f"--radii must be numbers of at least 0, such as 0,0.5,1, got {text!r}.")
    return radii


def parse_bounds(text: str) -> tuple[Any, Any]:
    """Return the two ends of the box, from numbers LO,HI or a .npy file."""
    try:
        lo, hi = np.load(text, allow_pickle=False) if text.endswith(".npy") else map(float, text.split(","))
    except ValueError:
        raise click.UsageError(f"--bounds must be LO,HI or a .npy file of shape (2, ...), got {text!r}.") from None
    return lo, hi


def options(*decorators: Any) -> Callable[[Any], Any]:
    """Apply several decorators of click, the first on top."""
    return lambda command: reduce(lambda decorated, decorator: decorator(decorated), reversed(decorators), command)


MODEL = options(
    click.argument("model"),
    click.argument("data"),
    click.option("--factory", metavar="MODULE:NAME", help="Function that returns the network of a .safetensors file."),
    click.option("--allow-pickle", is_flag=True, help="Load pickles, which executes code that they hold."),
    click.option("--trust", multiple=True, metavar="TYPE", help="Type that a .skops file may hold; repeatable."),
    click.option("--key", help="Name of the inputs in a .npz file.  [default: X, or the only one]"),
    click.option("--target", help="Name of the labels in a .npz file or table."),
    click.option("--labels", type=click.Path(exists=True), help="File of true labels: .npy, or one per line."),
    click.option("--workers", type=int, default=None, metavar="N", help="Processes; -1 is one per core.  [default: 1]"),
    click.option("--device", help="Device of torch models: cpu, cuda, cuda:1. With several workers, each gets a GPU."),
    click.option("--batch-size", type=int, help="Noisy inputs in one call of the model.  [default: automatic]"),
    click.option("--quiet", "-q", is_flag=True, help="No progress bar."),
)

NOISE_HELP = "Noise family.  [default: that of a SmoothedClassifier, or split]"
SMOOTHING = options(
    click.option("--noise", type=click.Choice(NOISES), help=NOISE_HELP),
    click.option("--lam", type=float, help="Half-width of the noise, in units of the box.  [default: 1]"),
    click.option("--sigma", type=float, help="Standard deviation of the noise, instead of --lam."),
    click.option("--levels", type=int, help="Steps of digital data, 255 for 8-bit images.  [default: real numbers]"),
    click.option("--bounds", type=parse_bounds, metavar="LO,HI", help="Box, or a .npy of its ends.  [default: 0,1]"),
    click.option(
        "--classes", type=parse_classes, metavar="A,B,C", help="Labels in the order of the logits, or their number."
    ),
    click.option("--n-selection", type=int, help="Votes that choose the class.  [default: 256]"),
    click.option("--seed", type=int, help="Makes results reproducible.  [default: new, and kept in the store]"),
)

RULE = options(
    click.option("--radius", type=click.Choice(["auto", *RADII]), help="Radius strategy."),
    click.option("--scheme", type=click.Choice(SCHEMES), help="Scheme of the two confidence bounds."),
    click.option("--bound", type=click.Choice(BOUNDS), help="Confidence bound on a probability."),
    click.option("--alpha", type=float, help="Probability that a certificate is wrong."),
)

PARTIAL = click.option("--partial", is_flag=True, help="Take the finished inputs of an unfinished run.")
OUTPUT = click.option("--output", "-o", type=click.Path(), help="Table of the results: .tsv, .csv or .parquet.")
STORE = click.argument("store", type=click.Path(exists=True))
STORES = click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True))


def read_data(given: dict[str, Any]) -> tuple[Any, Any]:
    """Load inputs and labels."""
    X, y = load_data(given["data"], key=given["key"], target=given["target"])
    return X, load_labels(given["labels"]) if given["labels"] else y


def as_fitted(clf: SmoothedClassifier, X: Any) -> Any:
    """Return a table without column names if the classifier has none."""
    return X.to_numpy() if hasattr(X, "columns") and not hasattr(clf, "feature_names_in_") else X


def load(given: dict[str, Any]) -> Any:
    """Load the model."""
    source, factory = given["model"], given["factory"]
    return load_model(source, factory=factory, allow_pickle=given["allow_pickle"], trusted=given["trust"])


def resources(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that affect only the speed and the progress bar."""
    batch_size, verbose = given["batch_size"] or "auto", 0 if given["quiet"] else 1
    return {"n_jobs": given["workers"], "device": given["device"], "batch_size": batch_size, "verbose": verbose}


def smoothed(given: dict[str, Any]) -> SmoothedClassifier:
    """Return the classifier that the options describe; a loaded SmoothedClassifier supplies the other parameters."""
    model = load(given)
    classes, noise, bounds = getattr(model, "classes_", None), None, (0.0, 1.0)
    chosen: dict[str, Any] = {}
    if isinstance(model, SmoothedClassifier):
        chosen = {name: getattr(model, name) for name in (*CERTIFICATION, "random_state", "inference")}
        if model.features_.categorical.any():
            raise click.UsageError("The command line certifies no categories yet. Use clf.certify of the library.")
        chosen["costs"] = model.features_.costs
        model, noise, bounds = model.estimator_, model.noise_, (model.box_.lo, model.box_.hi)
    names = {name: name for name in CERTIFICATION} | {"seed": "random_state"}
    chosen |= {name: given[option] for option, name in names.items() if given.get(option) is not None}
    classes = classes if given["classes"] is None else given["classes"]
    if classes is None:
        raise click.UsageError("This model does not know its classes: give --classes, their number or a,b,c.")
    if noise is None or any(given[name] is not None for name in ("noise", "lam", "sigma", "levels")):
        noise = make_noise(given, noise)
    bounds = given["bounds"] or bounds
    return SmoothedClassifier.from_pretrained(model, classes, noise, bounds=bounds, **resources(given), **chosen)


def make_noise(given: dict[str, Any], own: Any) -> Any:
    """Return the noise that the options describe; the noise of a loaded classifier supplies the other parameters."""
    if given["lam"] is not None and given["sigma"] is not None:
        raise click.UsageError("Give --lam or --sigma, not both.")
    keep = own is not None and given["noise"] is None
    kind = type(own) if keep else STRATEGIES["noise"][1][given["noise"] or "split"]
    parameters = own.get_params() if keep else {}
    if given["sigma"] is not None:
        scale = kind.from_sigma(given["sigma"]).get_params()
        parameters |= {name: scale[name] for name in ("lam", "sigma", "b") if name in scale}
    return kind(**parameters | {name: given[name] for name in ("lam", "levels") if given[name] is not None})
