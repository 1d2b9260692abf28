"""Worst cases with costs, lattices of columns, fixed columns and categories, from the definition of the noise alone."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from smoothcert import SmoothedClassifier, SplitNoise, UniformNoise

from .problems import FINE, Known


@cache
def number_outcomes(kind: str, q: int, n_offsets: int, x: int) -> dict[int, int]:
    """Return how many offsets lead to each noisy value of a number, in units of 1/(4q)."""
    counts: dict[int, int] = {}
    for j in range(n_offsets):
        if kind == "uniform":
            value = 4 * (x + j) + 2 - 2 * n_offsets
        else:
            low = (2 * x - 2 * j - 2) // (2 * n_offsets) * 2 * n_offsets + 2 * j + 1
            value = max(low, 0) + min(low + 2 * n_offsets, 2 * q)
        counts[value] = counts.get(value, 0) + 1
    return counts


def rounded(outcomes: dict[int, int]) -> dict[int, int]:
    """Return outcomes in quarter steps as whole steps: the nearest one, the larger one of two."""
    counts: dict[int, int] = {}
    for value, count in outcomes.items():
        counts[(value + 2) // 4] = counts.get((value + 2) // 4, 0) + count
    return counts


def category_outcomes(hidden: str, n_shown: int, n_offsets: int, n_categories: int, code: int) -> dict[int, int]:
    """Return how many offsets lead to each category that the model sees."""
    n_hidden = n_offsets - n_shown
    # The offsets from n_shown on show (j - n_shown) mod K, or the mask.
    counts = {value: len(range(value, n_hidden, n_categories)) for value in range(n_categories)}
    counts = {n_categories: n_hidden} if hidden == "mask" else counts
    counts[code] = counts.get(code, 0) + n_shown
    return {value: count for value, count in counts.items() if count}


@dataclass(frozen=True)
class Mix:
    """Two numbers, some categories, and a fixed column at the end.

    Parameters
    ----------
    kind : {"uniform", "split"}
    q : int
    lam : Fraction
    costs : tuple of Fraction
        Of the numbers, then of the categories.
    n_categories : tuple of int
    hidden : {"mask", "uniform"}
    levels : tuple of int, optional
        Steps of the numbers where both have lattices of their own: whole numbers from 0 to q, whose noisy values are
        whole numbers too. Categories then have the offsets of real numbers.
    """

    kind: str
    q: int
    lam: Fraction
    costs: tuple[Fraction, ...]
    n_categories: tuple[int, ...]
    hidden: str
    levels: tuple[int, int] | None = None

    @property
    def steps(self) -> tuple[int, int]:
        """Lattice steps of the two numbers."""
        return self.levels or (self.q, self.q)

    @property
    def parts(self) -> tuple[int, int]:
        """Numbers by which noisy values are multiplied to become the keys of outcomes."""
        return (1, 1) if self.levels else (4 * self.q, 4 * self.q)

    def outcomes(self, i: int, value: int) -> dict[int, int]:
        """Return the outcomes of feature i at a value."""
        if i < 2:
            q = self.steps[i]
            found = number_outcomes(self.kind, q, int(2 * self.lam * q / self.costs[i]), value)
            return rounded(found) if self.levels else found
        q = FINE if self.levels else self.q
        n_offsets, n_shown = int(2 * self.lam * q), int(self.costs[i] * q)
        return category_outcomes(self.hidden, min(n_shown, n_offsets), n_offsets, self.n_categories[i - 2], value)

    def overlap(self, i: int, x: int, y: int) -> Fraction:
        """Return the overlap of two values of feature i, by counting."""
        at_x, at_y = self.outcomes(i, x), self.outcomes(i, y)
        return Fraction(sum(min(n, at_y.get(value, 0)) for value, n in at_x.items()), sum(at_x.values()))

    def price(self, i: int, x: int, y: int) -> Fraction:
        """Return what the adversary pays for the way from x to y of feature i."""
        return self.costs[i] * (Fraction(abs(x - y), self.steps[i]) if i < 2 else x != y)

    def ways(self, x: Any) -> Ways:
        """Return the ways from x to every y: the prices of all features added, and their overlaps multiplied."""
        unit = math.lcm(*(cost.denominator for cost in self.costs)) * math.lcm(*self.steps)
        lengths, kept, total = np.zeros((), dtype=int), np.ones((), dtype=object), 1
        sizes = [*(q + 1 for q in self.steps), *self.n_categories]
        for i, size in enumerate(sizes):
            n = sum(self.outcomes(i, x[i]).values())
            prices, overlaps = zip(
                *((self.price(i, x[i], y), self.overlap(i, x[i], y)) for y in range(size)), strict=True
            )
            lengths = np.add.outer(lengths, [int(price * unit) for price in prices])
            kept = np.multiply.outer(kept, np.array([int(overlap * n) for overlap in overlaps], dtype=object))
            total *= n
        ends = np.indices(sizes).reshape(len(sizes), -1).T
        return Ways(ends, lengths.ravel(), kept.ravel(), unit, total)


@dataclass(frozen=True)
class Ways:
    """Ways from x, in whole numbers.

    Parameters
    ----------
    ends : ndarray of shape (n_ways, n_features)
    lengths : ndarray of int
        What the adversary pays for each, as multiples of 1/unit.
    kept : ndarray of int
        The outcomes of x, out of a total, that an end has too.
    unit, total : int
    """

    ends: np.ndarray
    lengths: np.ndarray
    kept: np.ndarray
    unit: int
    total: int

    def within(self, share: Fraction) -> np.ndarray:
        """Tell which ends keep no more than a share of the outcomes."""
        return (self.kept <= math.floor(share * self.total)).astype(bool)

    def nearest(self, share: Fraction) -> Fraction | None:
        """Return the distance of the nearest end that keeps no more than a share of the outcomes, if any does."""
        lengths = self.lengths[self.within(share)]
        return Fraction(int(lengths.min()), self.unit) if len(lengths) else None


class Worst(Known):
    """The likelihood-ratio test between x and y, as far as it leaves class A no more than half of y's outcomes."""

    def __init__(self, mix: Mix, x: Any, y: Any) -> None:
        self.mix, self.x, self.y, self.classes_ = mix, x, y, np.array([0, 1])
        at_x, at_y = np.ones((), dtype=object), np.ones((), dtype=object)
        self.values_ = []
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            of_x, of_y = mix.outcomes(i, a), mix.outcomes(i, b)
            values = sorted(of_x.keys() | of_y.keys())
            self.values_.append(np.array(values))
            at_x = np.multiply.outer(at_x, np.array([of_x.get(value, 0) for value in values], dtype=object))
            at_y = np.multiply.outer(at_y, np.array([of_y.get(value, 0) for value in values], dtype=object))
        flat_x, flat_y, total = at_x.ravel(), at_y.ravel(), at_x.sum()
        # Whole numbers in the order of the ratios, of which different ones differ by at least 1/scale.
        scale, first = max(flat_y) ** 2, max(flat_x) + 1
        ratios = [scale * a // b if b else scale * first * bool(a) for a, b in zip(flat_x, flat_y, strict=True)]
        chosen, mass = np.zeros(len(flat_x), dtype=bool), 0
        for place in sorted(range(len(ratios)), key=lambda place: -ratios[place]):
            if flat_x[place] and 2 * (mass + flat_y[place]) <= total:
                chosen[place], mass = True, mass + flat_y[place]
        self.table_ = np.where(chosen, 0, 1).reshape(at_x.shape)
        self.p_a = Fraction(int(flat_x[chosen].sum()), int(total))

    def __sklearn_clone__(self) -> Worst:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        places = []
        inside = np.ones(len(X), dtype=bool)
        for i, values in enumerate(self.values_):
            keys = X[:, i] * (self.mix.parts[i] if i < 2 else 1)
            keys = keys if i < 2 and self.mix.levels else np.rint(keys)
            place = np.minimum(np.searchsorted(values, keys), len(values) - 1)
            inside &= values[place] == keys
            places.append(place)
        # Fixed columns hold multiples of 8, and a noisy one would cost A its votes.
        inside &= X[:, -1] % 8 == 0 if X.shape[1] > len(self.values_) else True
        return np.where(inside, self.table_[tuple(places)], 1)


@dataclass(frozen=True)
class MixedProblem:
    """A worst case of mixed features; see `Problem`."""

    mix: Mix
    strategy: Any
    model: Worst
    reached: Fraction
    label: int = 0
    tight: bool = True

    @property
    def q(self) -> int:
        return min(self.mix.steps)

    @property
    def p_a(self) -> Fraction:
        return self.model.p_a

    @property
    def p_b(self) -> Fraction:
        return 1 - self.model.p_a

    def distance(self) -> Fraction:
        return self.reached

    def input(self) -> np.ndarray:
        return self.inputs(1, np.random.default_rng(0))

    def inputs(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return n inputs that are x to the model: a fixed column gives each noise of its own."""
        widths = (1, 1) if self.mix.levels else self.mix.steps
        x = np.array(self.model.x, dtype=float) / (*widths, *[1] * len(self.mix.n_categories))
        return np.hstack([np.tile(x, (n, 1)), 8.0 * rng.integers(2**40, size=(n, 1))])

    def classifier(self, **params: Any) -> SmoothedClassifier:
        others = len(self.mix.n_categories) + 1
        levels = [*self.mix.levels, *["auto"] * others] if self.mix.levels else self.q
        bounds = (0.0, np.array([*(self.mix.levels or (1, 1)), *[1] * others], dtype=float))
        noise = (UniformNoise if self.mix.kind == "uniform" else SplitNoise)(float(self.mix.lam), levels)
        costs = [*map(float, self.mix.costs), np.inf]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "levels=.* are coarse")
            clf = SmoothedClassifier.from_pretrained(
                self.model, self.model.classes_, noise, radius=self.strategy, bounds=bounds, costs=costs, **params
            )
        n_categories = np.array([0, 0, *self.mix.n_categories, 0])
        clf.features_ = replace(clf.features_, n_categories=n_categories, hidden=self.mix.hidden)
        return clf


def mixed_problem(
    kind, strategy, rng, *, n_categories=(3,), hidden="mask", whole_lattice=True, dear=False, by_column=False
):
    """Return a worst case: the nearest y whose overlap with a random x falls below a random share.

    Parameters
    ----------
    whole_lattice : bool
        Whether all costs are such that the half-widths of all features are equal, so that certificates are tight.
    dear : bool
        Whether numbers cost little and categories much. The adversary then needs categories to come far.
    by_column : bool
        Whether both numbers have lattices of their own.
    """
    q, levels = 12, None
    while True:
        lam = Fraction(int(rng.integers(6, 13)), 12)
        steps = [c for c in (6, 12, 24) if (2 * lam * q * 12) % c == 0] if whole_lattice else [5, 7, 12, 17, 29]
        costs = tuple(Fraction(int(rng.choice(steps)), 12) for _ in range(2 + len(n_categories)))
        if dear:
            costs = (Fraction(steps[0], 12),) * 2 + (Fraction(steps[-1], 12),) * len(n_categories)
        if by_column:
            levels = tuple(rng.choice([12, 24, 36] if whole_lattice else [5, 7, 11, 13], size=2).tolist())
        mix = Mix(kind, q, lam, costs, n_categories, hidden, levels)
        x = (*(int(rng.integers(n + 1)) for n in mix.steps), *(int(rng.integers(n)) for n in n_categories))
        share = Fraction(rng.uniform(0.52, 0.95))
        ways = mix.ways(x)
        reached = np.flatnonzero(ways.within(share))
        if not len(reached):
            continue
        nearest = min(reached, key=lambda place: (ways.lengths[place], ways.kept[place]))
        distance, model = (
            Fraction(int(ways.lengths[nearest]), ways.unit),
            Worst(mix, x, tuple(ways.ends[nearest].tolist())),
        )
        if model.p_a > Fraction(51, 100):
            # The certificate of the true p_a ends at the nearest y that its budget does not pay for.
            ends = ways.nearest(Fraction(3, 2) - model.p_a)
            # Rounding to whole steps makes some noisy values of splitting noise equal, so that overlaps are larger.
            tight = whole_lattice and hidden == "mask" and ends == distance and not (by_column and kind == "split")
            tight = tight and type(strategy).__name__ == "GreedyRadius"
            return MixedProblem(mix, strategy, model, distance, tight=tight)
