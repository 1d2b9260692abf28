"""The options of the commands, and the classifier that they describe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from copy import copy
from functools import reduce
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from ..certify.binomial import BOUNDS, SCHEMES
from ..certify.names import STRATEGIES
from ..classifier import SmoothedClassifier
from ..estimator import SmoothedEstimator
from ..models.adapt import check_base_model
from ..models.base import is_torch, number_of_columns, unwrap
from ..stored import with_features_of
from .loading import load_data, load_labels, load_model

NOISES, RADII = (sorted(map(str, STRATEGIES[kind][1])) for kind in ("noise", "radius"))

#: The options that are parameters of certification.
CERTIFICATION = ("scheme", "bound", "alpha", "n_selection", "n_samples", "estimation", "rtol", "random_state")

#: The options that affect only the speed.
RESOURCES = ("n_jobs", "device", "batch_size", "timeout")

#: The options that are parameters of the noise mechanism and of the classes.
MECHANISM = ("bounds", "classes", "costs", "categorical", "categorical_features")

#: The options that are parameters of some noises.
NOISE_PARAMETERS = ("lam", "lams", "weights", "levels")


def parse_classes(text: str) -> list[Any]:
    """Return the labels in a list a,b,c, or 0, 1, 2, ... for their number."""
    labels = text.split(",")
    numbers = [int(label) for label in labels if label.removeprefix("-").isdecimal()]
    if len(numbers) < len(labels):
        return labels
    if len(numbers) == 1 and numbers[0] < 1:
        raise click.UsageError(f"--classes must be labels a,b,c, or their number of at least 1, got {text!r}.")
    return numbers if len(numbers) > 1 else list(range(numbers[0]))


def parse_numbers(text: str) -> list[float]:
    """Return the numbers in a list 0,0.5,1."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = [np.nan]
    if not all(number >= 0 for number in numbers):
        raise click.BadParameter(f"must be numbers of at least 0, such as 0,0.5,1, got {text!r}.")
    return numbers


def parse_radii(text: str) -> list[float]:
    """Return the numbers in a list 0,0.5,1, all of them different."""
    radii = parse_numbers(text)
    if len(set(radii)) < len(radii):
        raise click.BadParameter(f"must hold each radius once, got {text!r}.")
    return radii


def parse_bounds(text: str) -> tuple[Any, Any]:
    """Return the two ends of the box, from numbers LO,HI or a .npy file."""
    try:
        lo, hi = np.load(text, allow_pickle=False) if text.endswith(".npy") else map(float, text.split(","))
    except ValueError:
        raise click.UsageError(f"--bounds must be LO,HI or a .npy file of shape (2, ...), got {text!r}.") from None
    return lo, hi


def parse_by_column(texts: Any, columns: list[str], read: Callable[[str], Any], expected: str) -> dict[str, Any]:
    """Return values by column, from texts COLUMN=VALUE; ``read`` returns None for what is no value."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        number = read(value)
        if name not in columns or name in found or number is None:
            hint = by_name(name, columns)
            raise click.UsageError(f"{expected} once for some of the columns {columns}, got {text!r}.{hint}")
        found[name] = number
    return found


def parse_costs(texts: tuple[str, ...], columns: list[str]) -> NDArray[np.float64]:
    """Return one cost for each column, from texts COLUMN=VALUE."""

    def read(text: str) -> float | None:
        try:
            return np.inf if text == "fixed" else float(text)
        except ValueError:
            return None

    costs = parse_by_column(texts, columns, read, "--cost must be COLUMN=VALUE, with a number, inf or fixed,")
    return np.array([costs.get(name, 1.0) for name in columns])


def parse_levels(texts: Any, X: Any) -> Any:
    """Return a number of levels, or one for each column of X, from texts N or COLUMN=N."""
    if not isinstance(texts, tuple) or not texts:
        return texts
    if len(texts) == 1 and texts[0].isdecimal():
        return int(texts[0])

    def read(text: str) -> int | None:
        return int(text) if text.isdecimal() else None

    columns = columns_of(X)
    levels = parse_by_column(texts, columns, read, "--levels must be a whole number, or COLUMN=N")
    return tuple(levels.get(name, "auto") for name in columns)


def parse_shard(text: str) -> tuple[int, int]:
    """Return the part I/N of the inputs."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise click.UsageError(f"--shard must be I/N, such as 3/64 for the third of 64 parts, got {text!r}.")
    return int(number), int(count)


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
    click.option("--workers", "n_jobs", type=int, metavar="N", help="Processes; -1 is one per core.  [default: 1]"),
    click.option("--device", help="Device of torch models: cpu, cuda, cuda:1. With several workers, each gets a GPU."),
    click.option("--batch-size", type=int, help="Noisy inputs in one call of the model.  [default: automatic]"),
    click.option("--timeout", type=float, help="Seconds to wait for an answer of the model.  [default: forever]"),
    click.option("--quiet", "-q", is_flag=True, help="No progress bar."),
)

NOISE_HELP = "Noise family.  [default: that of a SmoothedClassifier, or split]"
SMOOTHING = options(
    click.option("--noise", type=click.Choice(NOISES), help=NOISE_HELP),
    click.option("--lam", type=float, help="Half-width of the noise, in units of the box.  [default: 1]"),
    click.option("--sigma", type=float, help="Standard deviation of the noise, instead of --lam."),
    click.option("--lams", type=parse_numbers, metavar="L,L,...", help="Half-widths of uniform-mixture noise."),
    click.option("--weights", type=parse_numbers, metavar="W,W,...", help="Weights of uniform-mixture noise."),
    click.option(
        "--levels",
        multiple=True,
        metavar="N or COLUMN=N",
        help="Steps of digital data, 255 for 8-bit images; for single columns by name, or by position if they have "
        "none; repeatable.  [default: real numbers]",
    ),
    click.option("--bounds", type=parse_bounds, metavar="LO,HI", help="Box, or a .npy of its ends.  [default: 0,1]"),
    click.option(
        "--cost",
        "costs",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Cost of a column, or fixed if it cannot change; by name, or by position if columns have none; "
        "repeatable.  [default: 1]",
    ),
    click.option("--categorical", multiple=True, metavar="COLUMN", help="Column that holds categories; repeatable."),
    click.option(
        "--categorical-features", type=click.Choice(["from_dtype"]), help="Columns that hold categories, by their type."
    ),
    click.option(
        "--classes", type=parse_classes, metavar="A,B,C", help="Labels in the order of the logits, or their number."
    ),
    click.option("--n-selection", type=int, help="Largest number of votes that choose the class.  [default: 256]"),
    click.option("--n", "n_samples", type=int, help="Votes that bound the probability of the class.  [default: 10000]"),
    click.option(
        "--seed", "random_state", type=int, help="Makes results reproducible.  [default: new, and kept in the store]"
    ),
)

RULE = options(
    click.option("--radius", type=click.Choice(["auto", *RADII]), help="Radius strategy."),
    click.option("--norm", type=click.Choice(["1", "2", "inf"]), help="Norm of the Lipschitz radius.  [default: 1]"),
    click.option("--max-change", type=float, help="Largest move of one feature, as a share of its range (greedy)."),
    click.option("--max-features", type=int, help="Largest number of features that move (greedy)."),
    click.option("--scheme", type=click.Choice(SCHEMES), help="Scheme of the two confidence bounds."),
    click.option("--bound", type=click.Choice(BOUNDS), help="Confidence bound on a probability."),
    click.option("--alpha", type=float, help="Probability that a certificate is wrong."),
)

FORCE = click.option("--force", is_flag=True, help="Replace an existing file.")
LABELS = click.option(
    "--labels", type=click.Path(exists=True), help="True labels of all inputs: .npy, or one per line."
)
PARTIAL = click.option("--partial", is_flag=True, help="Take the finished inputs of an unfinished run.")
OUTPUT = options(
    click.option("--output", "-o", type=click.Path(), help="Table of the results: .tsv, .csv or .parquet."), FORCE
)
STORE = click.argument("store", type=click.Path(exists=True))
STORES = click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True))

RESUMING = options(
    click.option(
        "--on-error",
        type=click.Choice(["raise", "skip"]),
        default="raise",
        help="Skip an input that fails, and finish the others.  [default: raise]",
    ),
    click.option("--same-model", is_flag=True, help="Vouch that the votes in the store are this model's."),
    click.option("--scan", is_flag=True, help="Check all inputs before the first vote."),
)
RECORDING = options(
    click.option("--store", type=click.Path(), help="File that records the run; the same command resumes it."),
    click.option("--shard", type=parse_shard, metavar="I/N", help="Certify part I of N. It needs --seed and --store."),
    RESUMING,
)


def read_data(given: dict[str, Any]) -> tuple[Any, Any]:
    """Load inputs and labels."""
    if given["target"] and given["labels"]:
        raise click.UsageError("Give --target or --labels, not both: each names labels.")
    X, y = load_data(given["data"], key=given["key"], target=given["target"])
    return X, load_labels(given["labels"]) if given["labels"] else y


def files(given: dict[str, Any]) -> list[Any]:
    """Return the files that a command reads."""
    return [given["model"], given["data"], given["labels"]]


def as_fitted(clf: SmoothedEstimator, X: Any, given: dict[str, Any]) -> Any:
    """Return a table without column names if the classifier has none, after a check that no labels are left in it."""
    expected = number_of_columns(clf) or number_of_columns(clf.estimator_)
    if hasattr(X, "columns") and not given["target"] and expected is not None and X.shape[1] > expected:
        raise click.UsageError(
            f"{given['data']} has {X.shape[1]} columns, and the model takes {expected}: name the labels with --target, "
            f"or leave out what is no feature, such as row numbers."
        )
    return X.to_numpy() if hasattr(X, "columns") and not hasattr(clf, "feature_names_in_") else X


def load(given: dict[str, Any]) -> Any:
    """Load the model."""
    source, factory = given["model"], given["factory"]
    model = load_model(source, factory=factory, allow_pickle=given["allow_pickle"], trusted=given["trust"])
    if is_smoothed := isinstance(model, SmoothedEstimator):
        check_is_fitted(model, "estimator_")
    base = unwrap(model.estimator_) if is_smoothed else model
    if given["device"] is not None and not is_torch(base):
        raise click.UsageError(f"--device is for torch models, and {source} is a {type(base).__name__}.")
    return model


def show_log(handler: logging.Handler) -> None:
    """Send the log of this library to a handler until the command ends."""
    logger = logging.getLogger("smoothcert")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    click.get_current_context().find_root().call_on_close(lambda: logger.removeHandler(handler))


def resources(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that affect only the speed and what is shown.

    A terminal shows a bar. Elsewhere, carriage returns would fill a file, and the log takes its place.
    """
    if given["n_jobs"] == 0:
        raise click.UsageError("--workers must be a number of processes, or -1 for one per core, got 0.")
    shows_bar = sys.stderr.isatty() and not given["quiet"]
    if not (shows_bar or given["quiet"]):
        show_log(logging.StreamHandler())
    return {name: given[name] for name in RESOURCES if given[name] is not None} | {"verbose": int(shows_bar)}


def smoothed(given: dict[str, Any], X: Any = None) -> SmoothedClassifier:
    """Return the classifier that the options describe; a loaded SmoothedClassifier supplies everything else.

    The options by column speak of the columns of ``X``.
    """
    model, radius, given = load(given), make_radius(given), given | {"levels": parse_levels(given["levels"], X)}
    chosen = {name: given[name] for name in CERTIFICATION if given.get(name) is not None}
    chosen |= resources(given) | ({} if radius is None else {"radius": radius})
    own = model if isinstance(model, SmoothedClassifier) else None
    if own is None:
        check_base_model(FrozenEstimator(model))
    changed = [name for name in (*MECHANISM, *NOISE_PARAMETERS, "noise", "sigma") if given[name] not in (None, ())]
    if own is not None and not changed:
        return copy(own).set_params(**chosen)
    classes = getattr(model, "classes_", None) if given["classes"] is None else given["classes"]
    if classes is None:
        raise click.UsageError("This model does not know its classes: give --classes, their number or a,b,c.")
    noise = make_noise(given, None if own is None else own.noise_) if {*changed} - {*MECHANISM} else None
    if given["costs"]:
        chosen["costs"] = parse_costs(given["costs"], columns_of(X))
    if own is None:
        # A NoisyModule supplies what is not given.
        chosen |= {} if given["bounds"] is None else {"bounds": given["bounds"]}
        return mixed(model, given, X, chosen | {"noise": noise or "split"}) or SmoothedClassifier.from_pretrained(
            model, classes, noise, **chosen
        )
    kept = {name: value for name, value in own.get_params(deep=False).items() if name not in ("estimator", "noise")}
    if own.features_.categorical.any() or given["categorical"] or given["categorical_features"]:
        raise click.UsageError("The noise, box, costs and classes of a classifier with categories cannot be changed.")
    kept |= {"bounds": given["bounds"] or (own.box_.lo, own.box_.hi), "costs": own.features_.costs}
    clf = SmoothedClassifier.from_pretrained(own.estimator_, classes, noise or own.noise_, **kept | chosen)
    return with_features_of(own, clf)


def mixed(model: Any, given: dict[str, Any], X: Any, chosen: dict[str, Any]) -> SmoothedClassifier | None:
    """Return a trained model, smoothed, whose categories and fixed values are those in the data; None without any."""
    columns = columns_of(X)
    if unknown := [name for name in given["categorical"] if name not in columns]:
        raise click.UsageError(
            f"--categorical must be one of the columns {columns}, got {unknown[0]!r}.{by_name(unknown[0], columns)}"
        )
    categorical = given["categorical_features"] or [columns.index(name) for name in given["categorical"]]
    if not categorical and not np.isinf(chosen.get("costs", 1.0)).any():
        return None
    if given["classes"] is not None or not hasattr(model, "classes_"):
        raise click.UsageError("Categories and fixed columns need a model that knows its classes, and no --classes.")
    clf = SmoothedClassifier(FrozenEstimator(model), **chosen, categorical_features=categorical or None)
    X = X if hasattr(unwrap(model), "feature_names_in_") else np.asarray(X)
    # Nothing is trained: fit only reads the columns.
    return clf.fit(X, np.resize(model.classes_, len(X)))


def columns_of(X: Any) -> list[str]:
    """Return the names of the columns of a table, or their positions, as text."""
    return [str(name) for name in getattr(X, "columns", range(int(np.prod(X.shape[1:]))))]


def by_name(name: str, columns: list[str]) -> str:
    """Return the end of an error about a position that is given although columns have names; else an empty text."""
    is_position = name.isdecimal() and not all(column.isdecimal() for column in columns)
    return " Columns that have names go by their names, not by position." if is_position else ""


def make_noise(given: dict[str, Any], own: Any) -> Any:
    """Return the noise that the options describe; the noise of a loaded classifier supplies the other parameters."""
    if given["lam"] is not None and given["sigma"] is not None:
        raise click.UsageError("Give --lam or --sigma, not both.")
    keep = own is not None and given["noise"] is None
    kind = type(own) if keep else STRATEGIES["noise"][1][given["noise"] or "split"]
    parameters = own.get_params() if keep else {}
    known = [name for name in NOISE_PARAMETERS if name in kind().get_params()]
    known += ["sigma"] if hasattr(kind, "from_sigma") else []
    chosen = [name for name in (*NOISE_PARAMETERS, "sigma") if given[name] not in (None, ())]
    if unknown := [name for name in chosen if name not in known]:
        raise click.UsageError(f"{kind.__name__} has no --{unknown[0]}: it has --{', --'.join(known)}.")
    if given["sigma"] is not None:
        scale = kind.from_sigma(given["sigma"]).get_params()
        parameters |= {name: scale[name] for name in ("lam", "sigma", "b") if name in scale}
    return kind(**parameters | {name: given[name] for name in chosen if name != "sigma"})


def make_radius(given: dict[str, Any]) -> Any:
    """Return the radius strategy that the options describe, or its name; None where no option is given."""
    limits = {name: given[name] for name in ("max_change", "max_features") if given.get(name) is not None}
    limits |= {"norm": float(given["norm"])} if given.get("norm") is not None else {}
    if not limits:
        return given.get("radius")
    name = given["radius"] if given["radius"] not in (None, "auto") else "lipschitz" if "norm" in limits else "greedy"
    kind = STRATEGIES["radius"][1][name]
    if unknown := [limit for limit in limits if limit not in kind().get_params()]:
        raise click.UsageError(f"--radius {name} does not go with --{unknown[0].replace('_', '-')}.")
    return kind(**limits)
