"""Changes of categories: the adversary changes some wholly, and moves numbers with the rest of the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..noise.base import FloatArray, Noise
from ..noise.greedy import STEP_ERROR, bisect
from ..noise.mechanism import NoiseMechanism
from ..noise.mixture import UniformMixtureNoise
from .strategy import RadiusStrategy, overlap_at

#: Maximum number of sets of changed categories that are tried. Beyond it, categories of the least costs count as
#: numbers, which can change in part: that only shrinks radii.
MOST_SETS = 512

#: Bound on the rounding errors of a likelihood-ratio test, and the least share of outcomes that it tells apart.
SLACK, LEAST_SHARE = 1e-12, 1e-6

#: A set whose changes leave a larger overlap o is payable: the test of `ChangeSet.total` then has a share of o - 1/2 or
#: more, which exceeds the least share.
DECIDED = 0.5 + 2 * LEAST_SHARE


class ChangeSet(NamedTuple):
    """A set of categories that change together.

    Attributes
    ----------
    counts : ndarray of int64, shape (n_kinds,)
        Number of changed categories of each kind.
    distance : float
        What the changes cost the adversary, rounded down.
    spent : float
        What the changes take from the budget, rounded up.
    noise : Noise
        The noise under which numbers move afterward; see `Noise.after`.
    curve : tuple of two ndarrays, optional
        The likelihood-ratio test of the changes; see `Changes`. Increasing shares of outcomes of the input, and the
        largest shares of outcomes of the changed input that they can have.
    """

    counts: NDArray[np.int64]
    distance: float
    spent: float
    noise: Noise
    curve: tuple[FloatArray, FloatArray] | None = None

    @property
    def size(self) -> int:
        """Number of changed categories."""
        return int(self.counts.sum())

    def total(self, numbers: FloatArray) -> FloatArray:
        """Return what the changes take from the budget together with moves of numbers, which cost ``numbers``."""
        if self.curve is None:
            return self.spent + numbers
        overlap = np.exp(-numbers)
        shares, largest = self.curve
        left = np.interp(1 - 0.5 / np.maximum(overlap, 0.5), largest, shares) * overlap * (1 - SLACK) - SLACK
        # Smaller shares could be rounding errors, and no number of votes proves them.
        return np.where((overlap > 0.5) & (left > LEAST_SHARE), -np.log(0.5 + left), np.inf)

    def shared(self, numbers: FloatArray) -> FloatArray:
        """Return -ln of the overlap that changes leave together with moves of numbers, which cost ``numbers``."""
        if self.curve is None:
            return self.spent + numbers
        before, after = (np.diff(shares) for shares in self.curve)
        return numbers - np.log(np.minimum(before, after).sum() * (1 - SLACK))

    def rest(self, budget: FloatArray) -> FloatArray:
        """Return what numbers may cost besides the changes; below 0 where the changes alone take too much."""
        if self.curve is None:
            return budget * (1 - STEP_ERROR) - self.spent
        payable = self.total(np.zeros(len(budget))) < budget
        found = bisect(lambda numbers: self.total(numbers) < budget, np.zeros(len(budget)), budget, 60)
        return np.where(payable, found, -1.0)


class Reaches(NamedTuple):
    """How far the adversary can get with some inputs, in units of what is paid.

    Attributes
    ----------
    numbers : ndarray of shape (n_inputs, k)
        How far each number can move.
    available : ndarray of int64, shape (n_inputs, n_kinds)
        How many categories of each kind can change.
    """

    numbers: FloatArray
    available: NDArray[np.int64]


class Changes:
    """All sets of categories that the adversary may change, by their number of each kind.

    A category changes wholly or not at all. So the radius is the minimum, over the sets S of changed categories, of the
    cost of S and the greedy walk of the numbers within what is left of the budget. Where S takes more than the budget,
    the radius lies below the cost of S.

    Where a category replaces a hidden one, the views of an input and of a changed one overlap outcome by outcome. If
    the moves of numbers leave an overlap o, and a share t of the outcomes of S has at most the share G(t) after the
    changes, then the label stands while (1 - o) + o G((1 - p) / o) < 1/2, with p = (1 + p_a - p_b) / 2: outside the
    overlap the base model may change its vote, and inside it the likelihood-ratio test is worst (Neyman and Pearson).

    Parameters
    ----------
    mechanism : NoiseMechanism
    partly : bool, default=False
        Whether all categories count as numbers, which can change in part: that only shrinks radii and overlaps.
    curved : bool, default=True
        Whether the likelihood-ratio test, which knows that a label needs a probability of 1/2, is used where it helps.

    Examples
    --------
    The budget pays for one change of a category of cost 1/2, and not for two. So the radius lies just below 1:

    >>> from smoothcert import Box, GreedyRadius, UniformNoise
    >>> from smoothcert.noise.threat import Features
    >>> noise, features = UniformNoise(lam=1.0), Features(np.full(3, 0.5), np.array([3, 3, 3]))
    >>> changes = Changes(NoiseMechanism(Box.from_bounds((0, 1)), noise, (3,), features))
    >>> reaches = changes.reaches(GreedyRadius(), np.ones((1, 3)))
    >>> print(changes.within(GreedyRadius(), noise.cost(np.array([0.8])), reaches).round(3))
    [1.]
    """

    def __init__(self, mechanism: NoiseMechanism, *, partly: bool = False, curved: bool = True) -> None:
        self.mechanism, categories = mechanism, mechanism.categories
        self.costs = None if mechanism.mixed is None else mechanism.costs
        columns = np.empty(0, dtype=np.intp) if categories is None else categories.columns
        each = np.empty((0, 4))
        if categories is not None:
            each = np.column_stack([categories.costs, categories.moves, categories.pairs])
        #: Categories of one cost are of one kind.
        kinds, kind_of = np.unique(each, axis=0, return_inverse=True)
        kind_of = kind_of.ravel()
        counts, first = np.bincount(kind_of, minlength=len(kinds)), len(kinds) if partly else 0
        while (sets := _sets(mechanism.prices, kinds[first:], counts[first:], curved)) is None:
            first += 1
        self.sets = sets
        self.whole = [columns[kind_of == kind] for kind in range(first, len(kinds))]
        self.columns, self.category_costs, self.is_partial = columns, each[:, 0], kind_of < first

    def reaches(self, strategy: RadiusStrategy, reach: FloatArray) -> Reaches:
        """Return reaches as shares of the ranges, shape (n_inputs, n_features), in units of what is paid."""
        if self.costs is None:
            return Reaches(reach, np.zeros((len(reach), 0), dtype=np.int64))
        numbers, partial = reach * self.costs, self.is_partial | (not strategy.uses_box)
        columns = self.columns[partial]
        numbers[:, columns] = np.where(reach[:, columns] >= 1, self.category_costs[partial], 0.0)
        available = [np.count_nonzero(reach[:, columns] >= 1, axis=1) for columns in self.whole]
        return Reaches(numbers, np.array(available, dtype=np.int64).reshape(len(self.whole), len(reach)).T)

    def within(self, strategy: RadiusStrategy, budget: FloatArray, reaches: Reaches) -> FloatArray:
        """Return the radii for what the adversary may spend, shape (n_inputs,)."""
        radii = np.full(len(budget), np.inf)
        for _, (one, rows) in self._possible(strategy, reaches):
            rest = one.rest(budget[rows]) if one.size else budget[rows]
            numbers = strategy.limited(reaches.numbers[rows], one.size)
            walked = _walked(strategy, one.noise, np.maximum(rest, 0.0), numbers)
            if not one.size:
                radii[rows] = walked
                continue
            beyond = one.distance * (1 - STEP_ERROR)
            radii[rows] = np.minimum(radii[rows], np.where(rest > 0, one.distance + walked, beyond))
        return radii

    def price(self, strategy: RadiusStrategy, reaches: Reaches, distance: FloatArray) -> FloatArray:
        """Return what the adversary must spend to cover distances, shape (n_inputs,): the inverse of `within`."""
        return self.costliest(strategy, reaches, distance)[1]

    def overlap(self, strategy: RadiusStrategy, reaches: Reaches, distance: FloatArray) -> FloatArray:
        """Return the smallest overlap with the noise of any input within distances, shape (n_inputs,).

        Only overlaps above `DECIDED` are sure to be the smallest: `sets` ends with those that no budget pays for.
        """
        price = self.costliest(strategy, reaches, distance, ChangeSet.shared)[1]
        return overlap_at(price, distance, reaches.numbers.shape[1])

    def costliest(
        self,
        strategy: RadiusStrategy,
        reaches: Reaches,
        distance: FloatArray,
        total: Callable[[ChangeSet, FloatArray], FloatArray] = ChangeSet.total,
    ) -> tuple[NDArray[np.intp], FloatArray]:
        """Return the place of the set whose changes cost the adversary most within a distance, and what that is."""
        chosen, price = np.zeros(len(distance), dtype=np.intp), np.full(len(distance), -np.inf)
        for place, (one, rows) in self._possible(strategy, reaches):
            left = distance[rows] - one.distance
            numbers = strategy.limited(reaches.numbers[rows], one.size)
            spent = total(one, strategy.price(one.noise, numbers, np.maximum(left, 0.0)))
            more = (left >= -2 * STEP_ERROR * one.distance) & (spent > price[rows])
            chosen[rows], price[rows] = np.where(more, place, chosen[rows]), np.where(more, spent, price[rows])
        return chosen, price

    def mark(self, sets: NDArray[np.intp], share: FloatArray, reach: FloatArray, moves: FloatArray) -> None:
        """Write the reaches of categories, and the moves of those that the chosen sets change, into arrays."""
        for kind, columns in enumerate(self.whole):
            changeable = share[:, columns] >= 1
            n_changed = np.array([one.counts[kind] for one in self.sets])[sets]
            cost = self.category_costs[np.isin(self.columns, columns)]
            reach[:, columns] = np.where(changeable, cost, 0.0)
            moves[:, columns] = np.where(changeable & (changeable.cumsum(axis=1) <= n_changed[:, None]), cost, 0.0)

    def _possible(self, strategy: RadiusStrategy, reaches: Reaches) -> Iterator[tuple[int, tuple[ChangeSet, Any]]]:
        """Yield the sets of changes that some inputs allow, with their places, and these inputs."""
        most = getattr(strategy, "max_features", None)
        for place, one in enumerate(self.sets if strategy.uses_box else self.sets[:1]):
            if not one.size:
                yield place, (one, slice(None))
            elif most is None or one.size <= most:
                rows = (one.counts <= reaches.available).all(axis=1)
                if rows.any():
                    yield place, (one, rows)


@lru_cache(maxsize=8)
def changes_of(mechanism: NoiseMechanism, **choices: bool) -> Changes:
    """Return the sets of changes under a mechanism; they are made once."""
    return Changes(mechanism, **choices)


def _walked(strategy: RadiusStrategy, noise: Noise, budget: FloatArray, numbers: FloatArray) -> FloatArray:
    """Return the radii of a strategy, or raise a ValueError unless it returns one distance for each input."""
    radii = strategy.within(noise, budget, numbers)
    if np.shape(radii) != budget.shape or not (np.asarray(radii) >= 0).all():
        raise ValueError(
            f"{type(strategy).__name__}.within must return one radius of at least 0 for each of {len(budget)} inputs, "
            f"shape ({len(budget)},), but returned {radii!r}. Nothing was certified."
        )
    return radii


def _sets(noise: Noise, kinds: FloatArray, counts: NDArray[np.int64], curved: bool) -> list[ChangeSet] | None:
    """Return the sets that some budget pays for, and the least sets that none pays for; None if they are too many."""
    costs, moves, pairs = kinds[:, 0], kinds[:, 1], kinds[:, 2:]
    # Each part of a mixture has offsets of its own, so the test of a single noise does not apply.
    curved = curved and bool(pairs[:, 1].any()) and not isinstance(noise, UniformMixtureNoise)
    most = float(noise.budget(1.0, 0.0))
    found: list[ChangeSet] = []
    waiting = [(np.zeros(len(kinds), dtype=np.int64), 0)]
    while waiting:
        if len(found) == MOST_SETS:
            return None
        chosen, first = waiting.pop(0)
        slack = STEP_ERROR * (chosen.sum() + 4) if chosen.any() else 0.0
        after, spent = noise.after(np.repeat(moves, chosen)) if chosen.any() else (noise, 0.0)
        curve = _curve(pairs, chosen) if curved and chosen.any() else None
        found.append(ChangeSet(chosen, float(costs @ chosen) * (1 - slack), spent * (1 + slack), after, curve))
        if found[-1].total(np.zeros(1))[0] < most:
            steps = np.eye(len(kinds), dtype=np.int64)
            waiting += [(chosen + steps[j], j) for j in range(first, len(kinds)) if chosen[j] < counts[j]]
    return found


def _curve(pairs: FloatArray, chosen: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the likelihood-ratio test between an input and one with changed categories; see `ChangeSet`."""
    before, after = np.ones(1), np.ones(1)
    for (seen, changed), count in zip(pairs, chosen, strict=True):
        # Shares by how many more of the categories are seen as they were than as what they are changed to.
        shares = np.ones(1)
        for _ in range(count):
            shares = np.convolve(shares, [changed, 1 - seen - changed, seen])
        before, after = np.outer(before, shares).ravel(), np.outer(after, shares[::-1]).ravel()
    order = np.argsort(-after / np.maximum(before + after, 1e-300), kind="stable")
    return np.append(0.0, np.cumsum(before[order])), np.append(0.0, np.cumsum(after[order]))
