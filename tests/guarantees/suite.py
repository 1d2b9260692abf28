"""The suite: many problems, certificates by every route of the library, and a count of those that are false."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
from scipy.stats import binom

from smoothcert import BoxRadius, Certificates, GreedyRadius, LipschitzRadius, SmoothedClassifier
from smoothcert.certify.reach import certified_radii

from .mixed import mixed_problem
from .problems import Problem, deterministic_problem, lattice_problem, mixture_problem, slab_problem
from .regression import linear_problem, try_linear, try_problem
from .trees import TreeProblem

ALPHA = 0.1

#: Ways to votes and certificates. "exact" hands the true probabilities to the radius strategy, "stored" certifies from
#: votes that were drawn before, "store" from the file of a run. "regression" bounds a median in place of a label.
#: "tree" computes the probabilities of decision trees.
MODES = ("exact", "fixed", "stored", "store", "parallel", "rtol", "certify_at", "deterministic", "regression", "tree")

#: How unlikely the count of false certificates must be for a row to fail, if each is false with probability alpha.
SIGNIFICANCE = 1e-6

AXES = ("noise", "strategy", "scheme", "bound", "mode")


@dataclass
class Row:
    """Certificates of one kind.

    Parameters
    ----------
    tried, claimed : int
        Certificates, and those that are not abstentions.
    false : int
        Claims that are not true: the radius reaches a point where the label changes, or the label itself is wrong.
    misjudged : int
        Certificates whose p_a exceeds the true probability, or whose p_b is below the true one.
    loose : int
        Radii of "exact" that fall short of the distance where they should reach it.
    """

    noise: str
    strategy: str
    scheme: str
    bound: str
    mode: str
    tried: int = 0
    claimed: int = 0
    false: int = 0
    misjudged: int = 0
    loose: int = 0

    @property
    def allowed(self) -> int:
        """False certificates that alpha allows for; none where nothing is sampled."""
        if self.mode in ("exact", "deterministic", "tree"):
            return 0
        return int(binom.isf(SIGNIFICANCE, self.tried, ALPHA))

    @property
    def fails(self) -> bool:
        """Whether more of them are false than chance explains."""
        return max(self.false, self.misjudged, self.loose) > self.allowed

    def add(self, tried: int, claimed: Any, false: Any, misjudged: Any = 0, loose: Any = 0) -> None:
        """Count some more certificates."""
        self.tried += tried
        self.claimed += int(np.sum(claimed))
        self.false += int(np.sum(false))
        self.misjudged += int(np.sum(misjudged))
        self.loose += int(np.sum(loose))


def run(seed: int = 0, *, n_inputs: int = 100, n_problems: int = 1, **only: Any) -> list[Row]:
    """Certify ``n_inputs`` inputs for each problem and kind of certificate, and count.

    Parameters
    ----------
    only : str or collection of str
        Kinds to keep, by axis: ``mode="fixed"``, ``noise=("uniform", "split")``.
    """
    wanted = {axis: {value} if isinstance(value, str) else set(value) for axis, value in only.items()}
    rows = []
    for number, (noise, strategy, make) in enumerate(_sources()):
        if noise not in wanted.get("noise", {noise}) or strategy not in wanted.get("strategy", {strategy}):
            continue
        for kind in _kinds(noise):
            row = Row(noise, strategy, *kind)
            if any(getattr(row, axis) not in values for axis, values in wanted.items()):
                continue
            rng = np.random.default_rng([seed, number, *(value.encode()[0] for value in kind)])
            for _ in range(n_problems):
                _try(row, make, rng, n_inputs)
            rows.append(row)
    return rows


def _kinds(noise: str) -> Iterator[tuple[str, str, str]]:
    """Yield scheme, bound and mode."""
    if noise.startswith("deterministic"):
        yield "-", "-", "deterministic"
        return
    if noise == "linear":
        yield "-", "-", "regression"
        return
    if "tree" in noise:
        yield "-", "-", "tree"
        return
    yield "-", "-", "exact"
    if "dear" in noise:
        return
    if "levels" in noise:
        # They reach certificates as costs do: two ways to them are enough.
        yield "binary", "clopper-pearson", "fixed"
        yield "multiclass", "clopper-pearson", "store"
        return
    if not noise.startswith(("gaussian", "laplace", "uniform, tie", "uniform, three")):
        yield "-", "-", "regression"
    for scheme in ("binary", "multiclass"):
        for bound in ("clopper-pearson", "randomized-clopper-pearson", "hoeffding"):
            for mode in ("fixed", "stored"):
                yield scheme, bound, mode
        yield scheme, "clopper-pearson", "parallel"
        yield scheme, "clopper-pearson", "store"
        yield scheme, "betting", "rtol"
        yield scheme, "betting", "certify_at"


def _sources() -> Iterator[tuple[str, str, Any]]:
    """Yield names of noises and strategies, and what makes problems for them from a random generator."""
    capped = {"max_change": 0.3}
    strategies = {
        "lipschitz": (LipschitzRadius(), 2, None),
        "box": (BoxRadius(), 2, None),
        "box closed form": (BoxRadius(closed_form=True), 2, None),
        "greedy": (GreedyRadius(), 2, None),
        "greedy, max_change": (GreedyRadius(**capped), 2, 0.3),
        "greedy, upwards": (GreedyRadius(max_change=(0.0, np.inf)), 2, None),
        "greedy, max_features": (GreedyRadius(max_features=2), 2, None),
        "l-inf": (LipschitzRadius(norm=np.inf), 2, None),
    }
    lattices = {
        "uniform, 8-bit": ("uniform", (0.75, 1.0, 3.5), 255),
        "uniform, real": ("uniform", (0.75, 1.0, 3.5), "auto"),
        "split, 8-bit": ("split", (0.6, 0.75, 1.0, 1.05), 255),
        "split, real": ("split", (0.6, 0.75, 1.0, 1.05), "auto"),
    }
    for (name, (kind, lams, levels)), (label, (strategy, n_active, reach)) in itertools.product(
        lattices.items(), strategies.items()
    ):
        chosen = tuple(lam for lam in lams if lam > 1.01) if label == "box closed form" else lams

        def make(rng, kind=kind, lams=chosen, levels=levels, strategy=strategy, n_active=n_active, reach=reach):
            lam = float(rng.choice(lams))
            n_classes = int(rng.integers(2, 4))
            return lattice_problem(kind, lam, levels, strategy, rng, n_classes, n_active=n_active, reach=reach)

        yield name, label, make

    for name, kind, levels in (("split, narrow", "split", 255), ("uniform, narrow", "uniform", 255)):
        for label in ("lipschitz", "box", "greedy"):

            def make(rng, kind=kind, levels=levels, strategy=strategies[label][0]):
                lam = float(rng.choice([0.2, 0.3, 0.45]))
                return lattice_problem(kind, lam, levels, strategy, rng, int(rng.integers(2, 4)), n_active=1)

            yield name, label, make

    def tied(rng):
        return lattice_problem("uniform", 1.0, 255, GreedyRadius(), rng, 2, tie=True)

    yield "uniform, tie", "greedy", tied

    def three(rng):
        return lattice_problem("uniform", 1.0, 255, GreedyRadius(), rng, 3)

    yield "uniform, three classes", "greedy", three

    def wide(rng):
        return lattice_problem("uniform", 95.0, "auto", GreedyRadius(), rng, 2, n_active=1)

    yield "uniform, wide", "greedy", wide

    for label in ("lipschitz", "box", "greedy"):

        def make(rng, strategy=strategies[label][0], n_active=strategies[label][1]):
            lams, weights = [([0.5, 1.0], ["1/2", "1/2"]), ([0.5, 2.0], ["1/4", "3/4"])][int(rng.integers(2))]
            weights = [Fraction(weight) for weight in weights]
            return mixture_problem(lams, weights, 40, strategy, rng, int(rng.integers(2, 4)), n_active)

        yield "uniform-mixture", label, make

    for name, levels in (("gaussian, real", "auto"), ("gaussian, 8-bit", 255)):
        for label, strategy in (
            *((label, strategies[label][0]) for label in ("lipschitz", "box", "greedy", "l-inf")),
            ("l2", LipschitzRadius(norm=2)),
        ):

            def make(rng, levels=levels, strategy=strategy):
                return slab_problem(
                    "gaussian", float(rng.choice([0.5, 1.0])), levels, strategy, rng, rng.integers(2, 4)
                )

            yield name, label, make

    def double_exponential(rng):
        return slab_problem(
            "laplace", float(rng.choice([0.3, 1.0])), "auto", LipschitzRadius(), rng, rng.integers(2, 4)
        )

    yield "laplace", "lipschitz", double_exponential

    for label in ("lipschitz", "box", "greedy"):
        yield "linear", label, lambda rng, strategy=strategies[label][0]: linear_problem(strategy, rng)

    mixes = {
        "costs": {"n_categories": ()},
        "categories, masked": {"n_categories": (3, 2)},
        "categories, drawn": {"n_categories": (3,), "hidden": "uniform"},
        "costs off the lattice": {"n_categories": (2,), "whole_lattice": False},
        "levels by column": {"n_categories": (), "by_column": True},
        "levels off the lattice": {"n_categories": (2,), "by_column": True, "whole_lattice": False},
    }
    for (name, options), kind, label in itertools.product(
        mixes.items(), ("uniform", "split"), ("lipschitz", "box", "greedy")
    ):

        def mixed(rng, kind=kind, strategy=strategies[label][0], options=options):
            return mixed_problem(kind, strategy, rng, **options)

        yield f"{kind}, {name}", label, mixed

    for kind, label in itertools.product(("uniform", "split"), ("lipschitz", "box", "greedy")):
        yield (
            f"{kind}, tree",
            label,
            lambda rng, kind=kind, label=label: TreeProblem.new(kind, strategies[label][0], rng),
        )

    for name, lam in (("deterministic-split", 1.0), ("deterministic-split, narrow", 0.3)):
        yield name, "lipschitz", lambda rng, lam=lam: deterministic_problem(lam, 15, rng)

    for kind in ("uniform", "split"):

        def dear(rng, kind=kind):
            return mixed_problem(kind, GreedyRadius(), rng, n_categories=(3, 2), dear=True)

        yield f"{kind}, dear categories", "greedy", dear


def _try(row: Row, make: Any, rng: np.random.Generator, n_inputs: int) -> None:
    """Certify the inputs of one problem."""
    if row.mode == "deterministic":
        for _ in range(max(1, n_inputs // 25)):
            _try_deterministic(row, *make(rng))
        return
    if row.mode == "tree":
        for _ in range(max(1, n_inputs // 5)):
            make(rng).try_all(row)
        return
    if row.mode == "regression":
        problem = make(rng)
        while getattr(problem, "n_classes", 2) > 2:
            problem = make(rng)
        (try_linear if row.noise == "linear" else try_problem)(row, problem, rng, n_inputs, ALPHA)
        return
    if row.mode == "exact":
        # Each is a problem of its own: nothing is drawn, so that one input tells all.
        for _ in range(max(1, n_inputs // 4)):
            _try_exact(row, make(rng))
        return
    problem = make(rng)
    X = problem.inputs(n_inputs, rng)
    bound = "clopper-pearson" if row.bound == "betting" else row.bound
    clf = problem.classifier(
        scheme=row.scheme,
        bound=bound,
        alpha=ALPHA,
        n_selection=24,
        n_samples=160,
        rtol=0.2 if row.mode == "rtol" else None,
        random_state=int(rng.integers(2**32)),
    )
    if row.mode == "certify_at":
        decisions = clf.certify_at(X, float(problem.distance()))
        row.add(n_inputs, decisions.robust, decisions.robust)
        return
    if row.mode == "parallel":
        with joblib.parallel_config(backend="threading", n_jobs=2):
            certificates = clf.set_params(n_jobs=2).certify(X)
    elif row.mode == "store":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            clf.certify(X, store=path)
            certificates = Certificates.from_store(path, X=X)
    elif row.mode == "stored":
        votes = clf.set_params(radius="lipschitz").count_votes(X)
        certificates = clf.set_params(radius=problem.strategy).certify(X, votes=votes)
    else:
        certificates = clf.certify(X)
    _judge(row, problem, certificates)


def _judge(row: Row, problem: Problem, certificates: Any) -> None:
    claimed = ~certificates.abstained
    right = certificates.labels == problem.label
    reaches = np.nan_to_num(certificates.radii, nan=-1.0) >= float(problem.distance())
    misjudged = (certificates.margin > problem.p_a - problem.p_b) & right
    if row.mode != "rtol":
        misjudged |= right & ((certificates.p_a > problem.p_a) | (certificates.p_b < problem.p_b))
    row.add(len(right), claimed, claimed & (~right | reaches), misjudged)


def _try_exact(row: Row, problem: Problem) -> None:
    """Give the strategy the true probabilities, and compare its radius with the distance in rational numbers."""
    X = problem.input()
    p_a, p_b = _below(problem.p_a), 1 - _below(1 - problem.p_b)
    if p_a <= p_b:
        row.add(1, 0, 0)
        return
    clf: SmoothedClassifier = problem.classifier()
    radius = certified_radii(
        problem.strategy, clf.algorithm(X.shape[1:]).mechanism, X, np.array([p_a]), np.array([p_b])
    )[0]
    distance = problem.distance()
    reaches = np.isinf(radius) or Fraction(float(radius)) >= distance
    row.add(1, 1, reaches, 0, problem.tight and radius < float(distance) * 0.98 - 5 / problem.q)


def _below(p: Any) -> float:
    """Return the largest float that is not above a rational number."""
    found = float(p)
    return found if Fraction(found) <= p else float(np.nextafter(found, -np.inf))


def _try_deterministic(row: Row, noise: Any, model: Any, n_features: int) -> None:
    """Certify every input of the lattice, and compare each with all others within its radius."""
    q = noise.levels
    points = np.array(list(itertools.product(range(q + 1), repeat=n_features)))
    clf = SmoothedClassifier.from_pretrained(model, np.sort(model.classes_), noise)
    labels, radii = clf.certify(points / q)
    steps = np.rint(radii * q).astype(int)
    distance = np.abs(points[:, None] - points[None]).sum(axis=-1)
    other = labels[:, None] != labels[None]
    row.add(len(points), np.ones(len(points)), (other & (distance <= steps[:, None])).any(axis=1))


def failures(rows: list[Row]) -> list[Row]:
    """Return the rows with more false certificates than chance explains."""
    return [row for row in rows if row.fails]


def summary(rows: list[Row], *axes: str) -> str:
    """Return a Markdown table with one line for each combination of values along some axes."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, axis) for axis in axes), []).append(row)
    lines = [
        "| " + " | ".join(axes) + " | certificates | claims | false | allowed | kinds that fail |",
        "|" + "---|" * (len(axes) + 5),
    ]
    total = {(f"**all {len(rows)} kinds**", *[""] * (len(axes) - 1)): rows}
    for names, members in (*groups.items(), *total.items()):
        tried, claimed, false = (sum(getattr(row, name) for row in members) for name in ("tried", "claimed", "false"))
        sampled = sum(row.tried for row in members if row.allowed)
        allowed = int(binom.isf(SIGNIFICANCE, sampled, ALPHA)) if sampled else 0
        cells = (*names, f"{tried:,}", f"{claimed:,}", f"{false:,}", f"{allowed:,}", str(len(failures(members))))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
