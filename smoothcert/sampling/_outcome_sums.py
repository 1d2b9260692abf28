"""Sums over the outcomes of independent noise: from the counts of each feature's offsets to bounds on probabilities.

All sums have nonnegative terms, so their relative rounding error is at most the number of operations times the unit
roundoff. Four more operations cover what is of second order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: The unit roundoff, and more than what underflow takes from a sum of products.
ROUNDOFF, TINY = float(np.finfo(np.float64).eps) / 2, 1e-300


class OutcomeSum(ABC):
    """A sum over all outcomes of one input."""

    @abstractmethod
    def bounds(self, edges: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of the classes.

        Parameters
        ----------
        edges : ndarray of shape (n_edges,)
            For one feature after the other: 0, the number of offsets up to the end of each cell but the last, and the
            number of all offsets.

        Returns
        -------
        lower, upper : ndarray of shape (n_classes,)
        """

    @abstractmethod
    def votes(self, places: list[IntArray]) -> IntArray:
        """Return the class index in some combinations of cells, or -1 where rounding decides.

        Parameters
        ----------
        places : list of ndarray of shape (n,)
            The cell of each feature.
        """


class LeafSum(OutcomeSum):
    """The leaves of a tree: the probability of a leaf is a product over the features on its path.

    Parameters
    ----------
    low, high, end : ndarray of shape (n_factors,)
        The edges between which a feature keeps to a leaf, and the last edge of the feature, leaf after leaf.
    starts : ndarray of shape (n_leaves,)
        First factor of each leaf.
    sizes : list of int
        Number of cells of each feature.
    labels : ndarray of shape (n_leaves,)
        Class index of each leaf.
    n_classes : int
    """

    def __init__(
        self,
        low: IntArray,
        high: IntArray,
        end: IntArray,
        starts: IntArray,
        sizes: list[int],
        labels: IntArray,
        n_classes: int,
    ) -> None:
        self.low, self.high, self.end, self.starts, self.sizes = low, high, end, starts, sizes
        self.of_class = [np.flatnonzero(labels == label) for label in range(n_classes)]
        self.n_operations = 2 * int(np.diff(starts, append=len(low)).max()) + 1

    def bounds(self, edges: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of the classes; see `OutcomeSum.bounds`."""
        factors = np.maximum(edges[self.high] - edges[self.low], 0) / edges[self.end]
        leaves: FloatArray = np.multiply.reduceat(factors, self.starts)
        return outward(np.array([math.fsum(leaves[places]) for places in self.of_class]), self.n_operations)

    def votes(self, places: list[IntArray]) -> IntArray:
        """Return the class index in some combinations of cells; see `OutcomeSum.votes`."""
        edges = [np.arange(size + 1) > place[:, None] for place, size in zip(places, self.sizes, strict=True)]
        return np.array([self.bounds(row)[0].argmax() for row in np.concatenate(edges, axis=1, dtype=np.int64)])


class VoteTable(OutcomeSum):
    """The model's vote in every cell.

    Parameters
    ----------
    table : ndarray of shape sizes
        Class index in each cell.
    n_classes : int
    """

    def __init__(self, table: IntArray, n_classes: int) -> None:
        self.table, self.sizes = table, table.shape
        self.shares = np.moveaxis(np.eye(n_classes)[table], -1, 0)

    def bounds(self, edges: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of the classes; see `OutcomeSum.bounds`."""
        sums: Any = self.shares
        for share in cell_shares(edges, self.sizes)[::-1]:
            # Unlike @, this starts no threads.
            sums = np.einsum("...k,k->...", sums, share)
        return outward(sums, sum(self.sizes) + len(self.sizes))

    def votes(self, places: list[IntArray]) -> IntArray:
        """Return the class index in some combinations of cells; see `OutcomeSum.votes`."""
        found: IntArray = self.table[tuple(places)]
        return found


class ScoreSum(OutcomeSum):
    """A score that is a sum of one number for each feature; the second class wins with a positive score.

    The numbers of a feature are rounded to multiples of a step, up to a common shift of the feature that makes the
    errors small. The score then is the step times a whole number, plus a constant, plus errors between known bounds.
    The whole number's distribution is computed for two halves of the features.

    Parameters
    ----------
    scores : list of ndarray
        For each feature, the numbers of its cells.
    constant : float
        Part of the score.
    slack : float
        Scores closer to 0 than this may have either sign in the model's arithmetic, and in this one.
    labels : ndarray of shape (2,)
        Class index of the first and of the second class of the model.
    n_classes : int
    n_cells : int
        Number of steps between the smallest and the largest score.
    """

    def __init__(
        self, scores: list[FloatArray], constant: float, slack: float, labels: IntArray, n_classes: int, n_cells: int
    ) -> None:
        self.scores, self.constant, self.slack = scores, constant, slack
        self.labels, self.n_classes = labels, n_classes
        self.sizes = [len(numbers) for numbers in scores]
        constant += sum(float(numbers.min()) for numbers in scores)
        scores = [numbers - numbers.min() for numbers in scores]
        step = sum(float(numbers.max()) for numbers in scores) / n_cells or 1.0
        rounded = [np.rint(numbers / step - _center(numbers / step)) for numbers in scores]
        errors = [numbers - step * whole for numbers, whole in zip(scores, rounded, strict=True)]
        low, high = (constant + sum(float(end(error)) for error in errors) for end in (np.min, np.max))
        least = sum(int(whole.min()) for whole in rounded)
        self.steps = [(whole - whole.min()).astype(np.int64) for whole in rounded]
        most = sum(int(steps.max()) for steps in self.steps)
        #: From the first on the score is surely positive; below the second it is surely negative.
        self.positive = min(max(math.floor((slack - low) / step) + 1 - least, 0), most + 1)
        self.negative = min(max(math.ceil((-slack - high) / step) - least, 0), most + 1)
        order = sorted(range(len(scores)), key=lambda i: int(self.steps[i].max()))
        self.halves = order[::2], order[1::2]

    def on_grid(self, n_cells: int) -> ScoreSum:
        """Return the same sum on another grid."""
        return ScoreSum(self.scores, self.constant, self.slack, self.labels, self.n_classes, n_cells)

    def bounds(self, edges: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of the classes; see `OutcomeSum.bounds`."""
        shares = cell_shares(edges, self.sizes)
        first, second = (self._distribution(shares, half) for half in self.halves)
        places = np.arange(len(first))
        below = np.append(0.0, np.cumsum(second))
        above = np.append(0.0, np.cumsum(second[::-1]))[::-1]
        sure = [
            np.sum(first * below[np.clip(self.negative - places, 0, len(second))]),
            np.sum(first * above[np.clip(self.positive - places, 0, len(second))]),
        ]
        low, _ = outward(np.array(sure), len(first) + len(second) + sum(self.sizes) + len(self.sizes))
        lower, upper = np.zeros((2, self.n_classes))
        lower[self.labels] = low
        upper[self.labels] = np.minimum((1 - low[::-1]) * (1 + 2 * ROUNDOFF), 1.0)
        return lower, upper

    def votes(self, places: list[IntArray]) -> IntArray:
        """Return the class index in some combinations of cells; see `OutcomeSum.votes`."""
        scores = np.sum([numbers[place] for numbers, place in zip(self.scores, places, strict=True)], axis=0)
        scores += self.constant
        return np.where(np.abs(scores) > self.slack, self.labels[(scores > 0).astype(int)], -1)

    def _distribution(self, shares: list[FloatArray], half: list[int]) -> FloatArray:
        """Return the distribution of the whole number that some features add up to."""
        total = np.ones(1)
        for i in half:
            longer = np.zeros(len(total) + self.steps[i].max())
            for probability, step in zip(shares[i].tolist(), self.steps[i].tolist(), strict=True):
                if probability:
                    longer[step : step + len(total)] += probability * total
            total = longer
        return total


def cell_shares(edges: IntArray, sizes: Sequence[int]) -> list[FloatArray]:
    """Return the probabilities of each feature's cells."""
    shares, start = [], 0
    for size in sizes:
        shares.append(np.diff(edges[start : start + size + 1]) / edges[start + size])
        start += size + 1
    return shares


def outward(sums: FloatArray, n_operations: int) -> tuple[FloatArray, FloatArray]:
    """Return bounds on probabilities from sums of nonnegative terms that took this many operations."""
    error = ROUNDOFF * (n_operations + 4)
    return np.maximum(sums * (1 - error) - TINY, 0.0), np.minimum(sums * (1 + error) + TINY, 1.0)


def _center(numbers: FloatArray) -> float:
    """Return the shift that minimizes the spread of the errors of rounding numbers to whole ones.

    It is the center of the shortest arc that holds all fractional parts, on a circle of circumference 1.
    """
    parts = np.sort(numbers - np.floor(numbers))
    gaps = np.diff(parts, append=parts[0] + 1)
    widest = int(gaps.argmax())
    return float(parts[(widest + 1) % len(parts)] + (1 - gaps[widest]) / 2)
