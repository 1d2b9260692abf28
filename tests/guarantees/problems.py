"""Base models of known class probabilities, each with a point at which its smoothed label is known to change.

The models are worst cases: a certificate that knew the true probabilities would end just before that point. So every
radius that reaches it is false, and a sampled radius reaches it about as often as its confidence bound fails. All
probabilities are computed here from the definition of the noise; nothing of the library's arithmetic is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.stats import laplace, norm
from sklearn.base import BaseEstimator, ClassifierMixin

from smoothcert import (
    DeterministicSplitNoise,
    GaussianNoise,
    LaplaceNoise,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)

#: Features that no model looks at. They give each input noise of its own, and reach less far than the others.
N_IDLE = 3

FINE = 256 * 65_535


class Known(ClassifierMixin, BaseEstimator):
    """A classifier that needs no training, for inputs in a box [lo, lo + width]."""

    lo: float = 0.0
    width: float = 1.0

    def fit(self, X: Any, y: Any) -> Known:
        return self

    def unit(self, X: np.ndarray) -> np.ndarray:
        """Return the features that the model looks at, in the unit box."""
        return (X[:, : len(self.x)] - self.lo) / self.width

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.ranks(self.unit(X))]


class FirstLost(Known):
    """The worst case of uniform and splitting noise: what the adversary's path loses first votes for the class.

    On its way from x to y the adversary moves one feature after the other, upwards. Each outcome of x's noise is lost
    at some step, or never. Those that are lost on the way vote A, what y has gained instead votes B, and the rest is
    shared out by the outcome of the last feature.

    Parameters
    ----------
    kind : {"uniform", "split"}
    q, n_offsets : int
        Of the lattice.
    x, moves : ndarray of int
        Where the adversary starts, and how far each feature is moved.
    for_a, for_c : list of (start, end)
        Of what is not lost: ranks of the last feature that vote A, and those that vote C; others vote B.
    classes : ndarray
        Labels of A, B and C.
    """

    def __init__(self, kind, q, n_offsets, x, moves, for_a, for_c, classes, lo=0.0, width=1.0):
        self.kind, self.q, self.n_offsets, self.x, self.moves = kind, q, n_offsets, x, moves
        self.for_a, self.for_c, self.classes_, self.lo, self.width = for_a, for_c, classes, lo, width

    def ranks(self, unit):
        rank, gained = (self._uniform if self.kind == "uniform" else self._split)(np.rint(4 * self.q * unit))
        lost = (rank < self.moves).any(axis=1)
        last = rank[:, -1]
        shared = np.where(_within(last, self.for_a), 0, np.where(_within(last, self.for_c), 2, 1))
        return np.where(gained.any(axis=1), 1, np.where(lost, 0, shared))

    def _uniform(self, value):
        """Return the steps up that each feature's outcome survives, and where x's noise does not have it."""
        offset = np.floor(value / 4) - self.x + self.n_offsets // 2
        return offset, (offset < 0) | (offset >= self.n_offsets)

    def _split(self, value):
        """The same for splits: what survives all steps to the upper face comes last, and is one if it looks one."""
        q, n = self.q, self.n_offsets
        if n >= q:
            above = value > 2 * q
            split = np.where(above, value - 2 * q - 1, value - 1) / 2
            rank = np.where(split >= self.x, split - self.x, split + q - self.x)
            # Whoever sees no split at all cannot tell the offsets q .. n - 1 apart.
            rank = np.where(value == 2 * q, q, rank)
            return rank, above & (split >= self.x)
        low = np.where(value < 2 * n, 0, np.where(value > 4 * q - 2 * n, value - 2 * q, value / 2 - n))
        high = np.where(value < 2 * n, value, np.where(value > 4 * q - 2 * n, 2 * q, value / 2 + n))
        end = np.where(high == 2 * q, low + 2 * n, high)
        return (end - 1) / 2 - self.x, low > 2 * self.x


def _within(rank, parts):
    """Tell whether ranks lie in one of the half-open intervals."""
    return np.any([(rank >= start) & (rank < end) for start, end in parts] or [rank < -np.inf], axis=0)


class Table(Known):
    """A model that looks its answer up by the lattice cell of its noisy input."""

    def __init__(self, q, x, first, table, classes, lo=0.0, width=1.0):
        self.q, self.x, self.first, self.table, self.classes_ = q, x, first, table, classes
        self.lo, self.width = lo, width

    def ranks(self, unit):
        cells = np.floor(np.rint(4 * self.q * unit) / 4).astype(int) - self.first
        inside = ((cells >= 0) & (cells < self.table.shape[0])).all(axis=1)
        cells = np.clip(cells, 0, self.table.shape[0] - 1)
        return np.where(inside, self.table[tuple(cells.T)], 1)


class Slab(Known):
    """The worst case of Gaussian and Laplace noise: A below a plane, B above another one, C between."""

    def __init__(self, x, direction, ends, classes, lo=0.0, width=1.0):
        self.x, self.direction, self.ends, self.classes_ = x, direction, ends, classes
        self.lo, self.width = lo, width

    def ranks(self, unit):
        place = unit @ self.direction
        return np.where(place < self.ends[0], 0, np.where(place >= self.ends[1], 1, 2))


@dataclass(frozen=True)
class Problem:
    """A base model, the point x, and what is true of them.

    Parameters
    ----------
    p_a, p_b : Fraction or float
        True probabilities at x of the class A and of its strongest rival.
    steps, q : ndarray of int, int
        How the features move to where A is no longer ahead, in steps of 1/q.
    tight : bool
        Whether the strategy's certificate for the true probabilities ends just there.
    """

    noise: Any
    strategy: Any
    model: Known
    label: int
    p_a: Any
    p_b: Any
    steps: np.ndarray
    q: int
    tight: bool

    def distance(self) -> Fraction:
        """Distance of the point where the label changes, in the strategy's norm; exact but for l2."""
        if self.strategy.norm == 2:
            return Fraction(float(np.linalg.norm(self.steps / self.q)))
        return Fraction(int(self.steps.sum() if self.strategy.norm == 1 else self.steps.max()), self.q)

    def input(self) -> np.ndarray:
        """Return x alone, of shape (1, n_active): in l-inf idle features would share the budget."""
        return np.asarray(self.x, dtype=float)[None] * self.model.width + self.model.lo

    def inputs(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return n inputs that are x to the model, each with noise of its own."""
        side = min(int(0.1 * self.q) + 1, 1000)
        idle = np.array(np.unravel_index(rng.choice(side**N_IDLE, size=n, replace=False), [side] * N_IDLE)).T
        idle = (idle + int(np.ceil(0.45 * self.q))) / self.q
        unit = np.hstack([np.tile(np.asarray(self.x, dtype=float), (n, 1)), idle])
        return unit * self.model.width + self.model.lo

    @property
    def x(self) -> np.ndarray:
        """The point in the unit box."""
        x = np.asarray(self.model.x)
        return x if x.dtype.kind == "f" else x / self.model.q

    def classifier(self, **params: Any) -> SmoothedClassifier:
        """Return the smoothed classifier."""
        bounds = (self.model.lo, self.model.lo + self.model.width)
        classes = np.sort(self.model.classes_) if self.n_classes == 3 else np.sort(self.model.classes_[:2])
        return SmoothedClassifier.from_pretrained(
            self.model, classes, self.noise, radius=self.strategy, bounds=bounds, **params
        )

    @property
    def n_classes(self) -> int:
        """Number of classes that the model can answer with."""
        return len(self.model.classes_)


def lattice_problem(kind, lam, levels, strategy, rng, n_classes, *, n_active=2, reach=None, tie=False):
    """Return a worst case of uniform or splitting noise.

    Parameters
    ----------
    reach : float, optional
        How far a feature can move at most, where the strategy limits it.
    tie : bool
        Whether A and B tie at x itself.
    """
    noise = (UniformNoise if kind == "uniform" else SplitNoise)(lam, levels)
    q = FINE if levels == "auto" else levels
    n_offsets = noise.n_offsets
    corner = type(strategy).__name__ == "BoxRadius"
    for _ in range(1000):
        x = np.zeros(n_active, dtype=int) if corner else np.sort(rng.integers(int(0.38 * q), size=n_active))
        far = np.minimum(q - x, int((1.0 if reach is None else reach) * q))
        far = np.minimum(far, n_offsets - 1)
        if not strategy.uses_box and strategy.norm == 1:
            far[1:] = 0
        total = q if getattr(strategy, "closed_form", False) else int(rng.uniform(0.15, 1) * far.sum())
        moves = _filled(far, 0 if tie else total)
        if strategy.norm == np.inf:
            # In l-inf all features move, equally far: that loses the most.
            moves[:] = int(rng.uniform(0.15, 1) * far.min())
        kept = Fraction(1)
        for move in moves.tolist():
            kept *= 1 - Fraction(move, n_offsets)
        lost = 1 - kept
        # Of what is kept, the last feature's rank decides: C gets up to a third, A as much as ends in a tie.
        start, n_kept = int(moves[-1]), n_offsets - int(moves[-1])
        fine_end = n_offsets if kind == "uniform" or n_offsets < q else q
        atom = n_offsets - fine_end
        for_c = int(rng.uniform(0.1, 0.4) * (fine_end - start)) if n_classes == 3 else 0
        most = int((n_kept - for_c + lost / kept * n_kept) / 2)
        options = [(min(most - extra, fine_end - start - for_c), extra) for extra in (0, atom) if extra <= most]
        take, extra = max(options, key=sum)
        a, c = Fraction(take + extra, n_kept), Fraction(for_c, n_kept)
        p_a, p_b, p_c = lost + kept * a, kept * (1 - a - c), kept * c
        assert kept * a <= lost + kept * (1 - a - c), "A is still ahead where it should not be"
        if kept > Fraction(101, 200) and p_a >= max(p_b, p_c):
            break
    else:
        raise RuntimeError(f"no worst case found for {noise} and {strategy}")
    for_a = [(start, start + take)] + ([(fine_end, n_offsets)] if extra else [])
    for_c = [(start + take, start + take + for_c)]
    model = FirstLost(kind, q, n_offsets, x, moves, for_a, for_c, _labels(rng, n_classes))
    rival = max(p_b, p_c)
    worst = np.count_nonzero(moves) <= 1 or strategy.uses_box or strategy.norm == np.inf
    tight = rival == p_b and abs((p_a - p_b) / 2 - lost) * n_offsets <= 4 and worst
    return _placed(noise, strategy, model, p_a, rival, moves, q, tight, rng)


def _filled(far, total):
    """Return moves that fill the features in turn, as far as each can move."""
    moves = np.zeros(len(far), dtype=int)
    for i, most in enumerate(far):
        moves[i] = min(most, total - moves.sum())
    return moves


def mixture_problem(lams, weights, levels, strategy, rng, n_classes, n_active=2):
    """Return a worst case of a mixture of uniforms: A has what is likelier at x, B what is likelier at y."""
    noise = UniformMixtureNoise(lams, [float(weight) for weight in weights], levels)
    q, sizes = levels, [part.n_offsets for part in noise.parts]
    assert all(size % 2 == 0 for size in sizes), "outcomes are then half-integers for all parts"
    corner = type(strategy).__name__ == "BoxRadius"
    x = np.zeros(n_active, dtype=int) if corner else np.sort(rng.integers(int(0.38 * q), size=n_active))
    far = q - x
    if not strategy.uses_box:
        far[1:] = 0
    moves = _filled(far, int(rng.uniform(0.1, 0.6) * far.sum()))
    first, width = -max(sizes) // 2, q + max(sizes)
    cells = np.arange(first, first + width)
    # Weights of outcomes are integers over a common denominator.
    scale = (
        int(np.lcm.reduce([Fraction(w).denominator for w in weights])) * int(np.prod(sizes, dtype=object)) ** n_active
    )
    at_x, at_y = (
        sum(
            _product([(cells >= p - size // 2) & (cells < p + size // 2) for p in point.tolist()])
            * int(Fraction(weight) * scale / size**n_active)
            for size, weight in zip(sizes, weights, strict=True)
        )
        for point in (x, x + moves)
    )
    table = np.where(at_x > at_y, 0, 1)
    open_cells = np.flatnonzero(((at_x == at_y) & (at_x > 0)).ravel())
    mass = at_x.ravel()[open_cells]
    n_c = int(rng.uniform(0.05, 0.3) * len(open_cells)) if n_classes == 3 else 0
    spare = mass[n_c:].sum()
    ahead = at_y[table == 0].sum() - (at_y[(table == 1) & (at_x != at_y)].sum())
    n_a = int(np.searchsorted(2 * np.cumsum(mass[n_c:]), spare - ahead, side="right"))
    flat = table.ravel()
    flat[open_cells[:n_c]] = 2
    flat[open_cells[n_c : n_c + n_a]] = 0
    p_a, p_b, p_c = (Fraction(int(at_x[table == k].sum()), scale) for k in range(3))
    assert at_y[table == 0].sum() <= at_y[table == 1].sum(), "A is still ahead where it should not be"
    if not p_a > max(p_b, p_c):
        return mixture_problem(lams, weights, levels, strategy, rng, n_classes, n_active)
    model = Table(q, x, first, table, _labels(rng, n_classes))
    variation = Fraction(int(np.maximum(at_x - at_y, 0).sum()), scale)
    tight = p_b >= p_c and abs((p_a - p_b) / 2 - variation) < Fraction(1, 1000)
    return _placed(noise, strategy, model, p_a, max(p_b, p_c), moves, q, tight, rng)


def _product(sides):
    product = np.ones((), dtype=object)
    for side in sides:
        product = np.multiply.outer(product, side.astype(object))
    return product


def slab_problem(family, scale, levels, strategy, rng, n_classes):
    """Return a worst case of Gaussian or Laplace noise."""
    noise = GaussianNoise(scale, levels) if family == "gaussian" else LaplaceNoise(scale)
    law = norm if family == "gaussian" else laplace
    corner = type(strategy).__name__ == "BoxRadius"
    n_active = 1 if levels != "auto" or family == "laplace" else 2
    q = 2**20 if levels == "auto" else levels
    while True:
        x = np.zeros(n_active, dtype=int) if corner else np.sort(rng.integers(int(0.38 * q), size=n_active))
        moves = _filled(q - x, int(rng.uniform(0.2, 1) * (q - x).sum()))
        if strategy.norm != 1:
            moves[:] = rng.integers(int(0.3 * q), q // 2, size=1 if strategy.norm == np.inf else n_active)
        if not strategy.uses_box and strategy.norm == 1:
            moves[1:] = 0
        length = np.linalg.norm(moves / q)
        # Cells of the lattice end at half-integers.
        gap = (int(rng.uniform(0, 0.4) * length * q) + 0.5) / q if n_classes == 3 or levels != "auto" else 0.0
        p_a, p_b = law.cdf((length - gap) / scale), law.sf((length + gap) / scale)
        p_c = 1 - p_a - p_b
        if p_a > max(p_b, p_c):
            break
    direction = moves / q / length
    place = (x + moves) / q @ direction
    if n_classes == 2 and gap:
        # No class between: it goes to B, whose share grows, so that A falls behind the sooner.
        ends = (place - gap, place - gap)
        p_b, tight = 1 - p_a, False
    else:
        ends, tight = (
            (place - gap, place + gap),
            p_b >= p_c and (family == "gaussian" or not gap),
        )
    model = Slab(x / q, direction, ends, _labels(rng, n_classes))
    return _placed(noise, strategy, model, p_a, max(p_b, p_c) if n_classes == 3 else 1 - p_a, moves, q, tight, rng)


def _labels(rng, n_classes):
    """Return the labels of A, B and C in random order."""
    return rng.permutation(n_classes) + 5


def _placed(noise, strategy, model, p_a, p_b, steps, q, tight, rng):
    """Return the problem in a box of one's choice, whose map to the unit box is exact."""
    model.lo, model.width = ((0.0, 1.0), (-2.0, 8.0))[int(rng.integers(2))]
    return Problem(noise, strategy, model, int(model.classes_[0]), p_a, p_b, steps, q, bool(tight))


class Coloring(Known):
    """A model that favors a class, but otherwise gives each outcome a class as randomly as can be."""

    def __init__(self, levels, seed, bias, n_classes):
        self.levels, self.seed, self.bias, self.n_classes = levels, seed, bias, n_classes
        self.classes_ = np.arange(n_classes)

    def predict(self, X):
        keys = np.rint(X * 4 * self.levels).astype(np.uint64)
        mixed = np.full(len(X), self.seed + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            for column in keys.T:
                mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
                mixed ^= mixed >> np.uint64(29)
        share = (mixed >> np.uint64(11)) / 2.0**53
        return np.where(share < self.bias, 0, 1 + (share * 1e6).astype(int) % (self.n_classes - 1))


def deterministic_problem(lam, levels, rng):
    """Return noise whose outcomes are all evaluated, a model, and the number of features: all labels can be computed.

    Half of the models are as random as can be, in two features; half are worst cases in one, near or at a tie.
    """
    noise = DeterministicSplitNoise(lam, levels, seed=int(rng.integers(1, 1000)))
    if rng.random() < 0.5:
        return noise, Coloring(levels, int(rng.integers(2**31)), rng.uniform(0.5, 0.9), int(rng.integers(2, 5))), 2
    n = noise.n_offsets
    x = int(rng.integers(levels // 2))
    moved = int(rng.integers(1, min(levels - x, n // 2)))
    n_classes = int(rng.integers(2, 4))
    for_c = int(rng.integers(n // 8 + 1)) if n_classes == 3 else 0
    fine_end = min(n, levels)
    wanted = max(0, n // 2 - for_c // 2 + int(rng.integers(-2, 3)) - (n - fine_end) * (n > fine_end))
    take = min(wanted, fine_end - moved - for_c)
    for_a = [(moved, moved + take)] + ([(fine_end, n)] if n > fine_end else [])
    for_c = [(moved + take, moved + take + for_c)]
    model = FirstLost("split", levels, n, np.array([x]), np.array([moved]), for_a, for_c, rng.permutation(n_classes))
    return noise, model, 1
