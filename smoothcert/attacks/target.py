"""One input under attack: the points around it, their distances and their votes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..certify.algorithm import Algorithm
from ..certify.radius import GreedyRadius
from ..noise.mechanism import NoiseMechanism
from ..results.certificates import FloatArray
from ..sampling.sampler import count
from .projection import EPS

#: The largest part of the queries that may be spent to choose among categories.
CATEGORY_SHARE = 0.2


class QueriesSpentError(Exception):
    """Raised when the search has no queries left."""


@dataclass(frozen=True, eq=False)
class Path:
    """A path from the input to a distant point that moves one feature after the other.

    Parameters
    ----------
    features : ndarray of int, shape (n_moves,)
        The features in the order of their moves, without repetition.
    targets : ndarray of float64, shape (n_moves,)
        The values after the moves, in the unit box.

    Examples
    --------
    >>> Path.to(np.array([0.5, 0.5, 0.5]), np.array([0.6, 0.5, 0.0])).features
    array([2, 0])
    """

    features: NDArray[np.intp]
    targets: FloatArray

    @classmethod
    def to(cls, start: FloatArray, end: FloatArray) -> Path:
        """Return the path that makes the largest moves first, like the worst case of Theorem 2.8."""
        moves = np.abs(end - start)
        features = np.argsort(-moves, kind="stable")[: np.count_nonzero(moves)]
        return cls(features, end[features])


class CategoryChoice:
    """The categories of one input that can change, and what they become.

    Parameters
    ----------
    mechanism : NoiseMechanism
    x : ndarray
        The raw input, flat.

    Attributes
    ----------
    columns, costs, other : ndarray
        The places of the categories, what a change costs, and the code that each becomes: at first the next one.
    """

    def __init__(self, mechanism: NoiseMechanism, x: FloatArray) -> None:
        found = mechanism.categories
        self.columns = np.empty(0, dtype=np.intp) if found is None else found.columns
        self.costs = np.empty(0) if found is None else found.costs
        self.n = np.empty(0, dtype=np.int64) if found is None else found.n_categories
        self.other = (x[self.columns] + 1) % np.maximum(self.n, 1)


@dataclass(eq=False)
class Target:
    """One input under attack; points are flat and in units of what is paid: shares of the range, times costs.

    Parameters
    ----------
    algorithm : Algorithm
        Algorithm 1 of the classifier. The attack respects the limits of its radius strategy on the adversary.
    x : ndarray
        The raw input.
    label : int
        The index of the class to change; -1 for a label that is not among the classes.
    rng : numpy.random.Generator
        The random generator of the search.
    max_queries : int
        The number of noisy inputs that the search may spend.
    n_samples : int
        The number of votes that decide whether the label has changed at a point.
    clear : float
        The lead of a rival at which the label counts as changed.
    """

    algorithm: Algorithm
    x: NDArray[Any]
    label: int
    rng: np.random.Generator
    max_queries: int
    n_samples: int
    clear: float
    n_queries: int = field(init=False, default=0)
    best: FloatArray = field(init=False)
    closest: float = field(init=False, default=np.inf)
    path: Path | None = field(init=False, default=None)
    votes: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.voter: Any = self.algorithm.voter
        self.mechanism = mechanism = self.algorithm.mechanism
        self.lo, self.hi = (
            np.broadcast_to(end, mechanism.shape).ravel() for end in (mechanism.box.lo, mechanism.box.hi)
        )
        self.width = self.hi - self.lo
        self.numeric = mechanism.per_feature(mechanism.features.numeric)
        raw = np.asarray(self.x, dtype=np.float64).ravel()
        self.x = np.where(self.numeric, np.clip(raw, self.lo, self.hi), raw)
        self.categories = CategoryChoice(mechanism, self.x)
        #: What one unit of each feature costs: points are in units of what is paid.
        self.scale = np.where(mechanism.costs > 0, mechanism.costs, 1.0)
        self.scale[self.categories.columns] = self.categories.costs
        #: Features of digital data, and the lattice steps in one unit of what is paid.
        self.digital = mechanism.steps > 0
        self.each = np.where(self.digital, mechanism.steps, 1) / self.scale
        self.start = self._paid(self.x)
        self.low, self.high = self._faces()
        limit = getattr(self.algorithm.strategy, "max_features", None)
        self.max_features = len(self.start) if limit is None else min(limit, len(self.start))
        self.best = self.start
        self.exact = mechanism.noise.n_outcomes is not None

    def _paid(self, raw: FloatArray) -> FloatArray:
        """Map a raw point to units of what is paid, and digital data to the lattice; a category starts at 0."""
        inputs = raw.reshape(1, *self.mechanism.shape)
        unit, snapped = self.mechanism.box.to_unit(self.mechanism.bounded(inputs)), self.mechanism.snapped(inputs)
        return np.where(self.digital, snapped.ravel(), unit.ravel()) * self.scale

    def _faces(self) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and highest value of each feature: its faces, or the limits of the radius strategy."""
        share = (self.start / self.scale).reshape(1, *self.mechanism.shape)
        down, up = (self.mechanism.with_categories(side.reshape(1, -1))[0] for side in self.mechanism.box.room(share))
        strategy = self.algorithm.strategy
        # Its limits may differ between the directions, which a reach does not tell.
        if isinstance(strategy, GreedyRadius):
            down, up = map(np.minimum, (down, up), strategy._limits())
        if strategy.uses_box:
            reach = strategy.reach(self.mechanism.noise, down[None], up[None])[0]
            down, up = np.minimum(down, reach), np.minimum(up, reach)
        # A category changes wholly, and starts at 0.
        changes = np.maximum(down, up)[self.categories.columns] >= 1
        down[self.categories.columns], up[self.categories.columns] = 0.0, changes
        low, high = self.start - down * self.scale, self.start + up * self.scale
        first, last = np.ceil(low * self.each - 1e-9) / self.each, np.floor(high * self.each + 1e-9) / self.each
        low, high = np.maximum(low, 0.0), np.minimum(high, self.scale)
        return np.where(self.digital, first, low), np.where(self.digital, last, high)

    @property
    def finest(self) -> float:
        """The smallest step of digital data, or 0 if some features are real numbers."""
        return float((1 / self.each).min()) if self.digital.all() else 0.0

    def onward(self, path: Path) -> Path:
        """Return the path that continues each move to the face in its direction, where the worst case lies."""
        up = path.targets > self.start[path.features]
        faces = np.where(up, self.high[path.features], self.low[path.features])
        order = np.argsort(-np.abs(faces - self.start[path.features]), kind="stable")
        return Path(path.features[order], faces[order])

    @property
    def reach(self) -> FloatArray:
        """The reach of each feature."""
        return np.maximum(self.start - self.low, self.high - self.start)

    def budget(self, radius: float) -> float:
        """Return the largest distance of a point whose published distance cannot exceed the radius."""
        if self.mechanism.mixed is not None:
            return radius
        levels = self.mechanism.noise.digital_levels
        if levels is None or np.isinf(radius):
            return radius * (1 - 4 * (len(self.start) + 8) * EPS)
        steps = np.floor(radius * levels)
        return float(steps + 1 if (steps + 1) / levels <= radius else steps) / levels

    def snap(self, points: FloatArray) -> FloatArray:
        """Move points of digital data to the lattice, toward the input."""
        steps = (points - self.start) * self.each
        snapped = self.start + np.trunc(steps + np.copysign(1e-6, steps)) / self.each
        return np.where(self.digital, snapped, points)

    def raw(self, points: FloatArray) -> FloatArray:
        """Map points, shape (n, d), to raw inputs, shape (n, *shape), which are no farther away than the points."""
        moves = (points - self.start) * (self.width / self.scale)
        if self.mechanism.mixed is not None:
            # Numbers leave room for the rounding of their sum, so that the budget may hold whole categories exactly.
            moves *= 1 - 4 * (len(self.start) + 8) * EPS
        whole = np.rint(points * self.each) * self.width / np.maximum(self.mechanism.steps, 1)
        moved = np.where(self.digital, self.lo + whole, self.x + moves)
        raw = np.where((points == self.start) | ~self.numeric, self.x, np.clip(moved, self.lo, self.hi))
        beyond = ~self.digital & (np.abs(raw - self.x) > np.abs(moves))
        raw = np.where(beyond, np.nextafter(raw, self.x), raw)
        columns = self.categories.columns
        changed = points[:, columns] >= self.categories.costs * (1 - 1e-9)
        raw[:, columns] = np.where(changed, self.categories.other, raw[:, columns])
        return raw.reshape(-1, *self.mechanism.shape)

    def distance(self, raw: FloatArray) -> float:
        """Return what the adversary pays for a raw input, shape (*shape): its l1 distance, with costs."""
        columns = self.categories.columns
        paid = float(self.categories.costs[raw.ravel()[columns] != self.x[columns]].sum())
        digital, real = self.digital & self.numeric, ~self.digital & self.numeric
        for levels in np.unique(self.mechanism.steps[digital]):
            same = digital & (self.mechanism.steps == levels)
            ends = [self.mechanism.points(one.reshape(1, *self.mechanism.shape))[0, same] for one in (raw, self.x)]
            steps = np.abs(ends[0].astype(np.int64) - ends[1].astype(np.int64))
            paid += float((steps * self.scale[same]).sum() / levels)
        moves = np.abs(raw.ravel() - self.x)[real]
        width = np.where(self.width > 0, self.width, 1.0)[real]
        # Each operation and sum has a relative error of EPS / 2; the factor exceeds all of them together.
        slack = 1 + (len(self.start) + 8) * EPS
        return paid + float((moves / width * self.scale[real]).sum() * slack)

    def walk(self, path: Path, distances: Any) -> FloatArray:
        """Return the points at the given distances along a path, shape (n, d)."""
        path = Path(path.features[: self.max_features], path.targets[: self.max_features])
        moves = path.targets - self.start[path.features]
        before = np.cumsum(np.abs(moves)) - np.abs(moves)
        share = (np.asarray(distances)[:, None] - before) / np.where(moves == 0, 1.0, np.abs(moves))
        points = np.tile(self.start, (len(share), 1))
        # A whole move ends exactly at its target.
        points[:, path.features] = np.where(
            share >= 1, path.targets, self.start[path.features] + moves * np.clip(share, 0.0, 1.0)
        )
        return self.snap(points)

    def length(self, path: Path) -> float:
        """Return the length of a path."""
        features = path.features[: self.max_features]
        return float(np.abs(path.targets[: self.max_features] - self.start[features]).sum())

    def spend(self, n: int) -> None:
        """Count queries, or raise an error if too few are left."""
        if n > self.n_left:
            raise QueriesSpentError
        self.n_queries += n

    @property
    def rivals(self) -> NDArray[np.intp]:
        """The other classes, in decreasing order of their votes at the input."""
        order = np.argsort(-self.votes, kind="stable")
        return order[order != self.label]

    @property
    def n_left(self) -> int:
        """The number of queries left."""
        return self.max_queries - self.n_queries

    def cost(self, n: int) -> int:
        """Return the number of queries for ``n`` votes at one point, or the number of outcomes if all are counted."""
        return self.mechanism.noise.n_outcomes or n

    def choose_categories(self, n_votes: int) -> None:
        """Measure all changes of single categories, and let each category become the one that helps most.

        Where the queries would take too large a part of those that are left, each becomes the next one.
        """
        found = self.categories
        trials = [
            (place, code)
            for place, column in enumerate(found.columns)
            for code in range(found.n[place])
            if code != self.x[column] and self.high[column] > 0
        ]
        if not trials or len(trials) * self.cost(n_votes) > CATEGORY_SHARE * self.n_left:
            return
        key, leads = self.new_key(), np.full((len(found.columns), int(found.n.max())), -np.inf)
        for place, code in trials:
            found.other[place] = code
            point = self.start.copy()
            point[found.columns[place]] = self.high[found.columns[place]]
            leads[place, code] = self.leads(point[None], n_votes, key)[0]
        tried = np.isfinite(leads).any(axis=1)
        found.other[tried] = leads[tried].argmax(axis=1)

    def new_key(self) -> NDArray[np.uint32]:
        """Return a new key of noise."""
        return self.rng.integers(2**32, size=(1, 4), dtype=np.uint32)

    def leads(self, points: FloatArray, n: int, key: NDArray[np.uint32] | None = None) -> FloatArray:
        """Return the lead of the strongest rival over the label at each point, as a share of votes.

        The lead is above 0 exactly where the rival wins; ties go to the lower index. All points get the same noise,
        which makes their differences less noisy. It follows from ``key``, a new one by default. Noise with few outcomes
        is counted in full for all ``n``.
        """
        n = self.cost(n)
        self.spend(n * len(points))
        keys = np.repeat(self.new_key() if key is None else key, len(points), axis=0)
        rows = max(64, self.voter.batch_values // self.mechanism.n_features)
        counts = count(self.voter, self.mechanism, self.mechanism.points(self.raw(points)), keys, n, rows)
        if self.votes is None:
            self.votes = counts[0]
        return lead(counts, self.label)

    def found(self, path: Path, distance: float) -> None:
        """Keep a point at which the label has changed; points farther away no longer matter."""
        self.best, self.closest, self.path = self.walk(path, [distance])[0], distance, path


def lead(counts: NDArray[np.int64], label: int) -> FloatArray:
    """Return the lead of the strongest rival over a class, where lower indices get half a vote extra."""
    n = counts.sum(axis=1)
    if label < 0:
        return np.ones(len(counts))
    rivals = counts + 0.5 * (np.arange(counts.shape[1]) < label)
    rivals[:, label] = -1
    return (rivals.max(axis=1) - counts[:, label]) / n


def far_faces(target: Target) -> Path:
    """Return the path to the far faces in decreasing order of reach, the worst case of Theorem 2.8."""
    up = target.high - target.start >= target.start - target.low
    return Path.to(target.start, np.where(up, target.high, target.low))
