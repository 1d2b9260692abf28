"""Attacks that need only votes, so they work on every base model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..results.certificates import FloatArray
from .search import Attack
from .target import Path, Target, far_faces

#: The share of the queries that a search for good moves may spend; bisection needs the rest.
SHARE = 0.5

#: The lead of a rival at which a path ends.
ENOUGH = 0.5


def face_moves(target: Target, features: NDArray[np.intp]) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the features and targets of all moves of the given features to a face, except moves of length 0."""
    both = np.concatenate([features, features])
    faces = np.concatenate([target.high[features], target.low[features]])
    real = faces != target.start[both]
    return both[real], faces[real]


@dataclass(eq=False, repr=False)
class GreedyFaceAttack(Attack):
    """Move features to their faces one after the other, like the worst case of the greedy certificate [1]_.

    Where ``max_queries`` does not suffice to measure all features, those with the largest reach are measured.

    Parameters
    ----------
    order : {"both", "reach", "effect"}, default="both"
        "reach" moves features to their far faces in decreasing order of reach. "effect" first measures how each single
        move to a face changes the votes, and then moves in decreasing order of the change per distance. "both" tries
        the two orders.
    n_votes : int, default=500
    n_samples : int, optional
    alpha : float, optional
    max_queries : int, default=1_000_000
    random_state : int, RandomState or None, default=None
        As in `Attack`.

    See Also
    --------
    CoordinateAttack : Measure again after each move.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box
       Constraints", ICML 2023, Theorem 2.8.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), n_samples=1000, random_state=0).fit(minmax_scale(X), y)
    >>> inputs = minmax_scale(X)[:2]
    >>> found = GreedyFaceAttack(n_votes=100, random_state=0).minimal(clf, inputs)
    >>> print((clf.certify(inputs).radii < found.upper_bounds).all())
    True
    """

    order: str = "both"

    _choices: ClassVar = {"order": ("both", "reach", "effect")}

    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        if self.order != "effect":
            yield far_faces(target)
        if self.order != "reach":
            yield self._by_effect(target)

    def _by_effect(self, target: Target) -> Path:
        """Measure each move alone, and return the moves in decreasing order of their effect per distance."""
        most = int(SHARE * target.n_left / (2 * target.cost(self.n_votes)))
        order = np.argsort(-target.reach, kind="stable")[: max(1, most)]
        features, targets = face_moves(target, order)
        points = np.tile(target.start, (len(features) + 1, 1))
        points[np.arange(len(features)), features] = targets
        leads = target.leads(points, self.n_votes)
        distances = np.abs(targets - target.start[features])
        # Of equal effects the farther move goes first: the cost is convex, so it is the worst one.
        ranks = np.lexsort([-distances, -((leads[:-1] - leads[-1]) / distances).round(9)])
        _, first = np.unique(features[ranks], return_index=True)
        ranks = ranks[np.sort(first)]
        return Path(features[ranks], targets[ranks])


@dataclass(eq=False, repr=False)
class CoordinateAttack(Attack):
    """Search coordinate by coordinate: measure moves from the current point, and make the best one.

    This is slower than `GreedyFaceAttack`, and better where the effect of a feature depends on the others.

    Parameters
    ----------
    n_candidates : int, default=64
        The number of features to try for each move: those with the largest effect before, then random ones.
    n_votes : int, default=500
    n_samples : int, optional
    alpha : float, optional
    max_queries : int, default=1_000_000
    random_state : int, RandomState or None, default=None
        As in `Attack`.

    See Also
    --------
    GreedyFaceAttack : Measure all moves once.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), n_samples=1000, random_state=0).fit(minmax_scale(X), y)
    >>> inputs = minmax_scale(X)[:1]
    >>> found = CoordinateAttack(n_candidates=8, n_votes=100, random_state=0).minimal(clf, inputs)
    >>> print((clf.certify(inputs).radii < found.upper_bounds).all())
    True
    """

    n_candidates: int = 64

    _counts: ClassVar = (*Attack._counts, "n_candidates")

    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        rest = (1 - SHARE) * target.n_left
        point, covered = target.start.copy(), 0.0
        promise = np.where(target.reach > 0, np.inf, -np.inf)
        features: list[int] = []
        while len(features) < target.max_features and covered < budget and (promise > -np.inf).any():
            # Untried features promise most; chance breaks ties.
            shuffled = target.rng.permutation(len(promise))
            tried = shuffled[np.argsort(-promise[shuffled], kind="stable")][: self.n_candidates]
            moved, faces = face_moves(target, tried[promise[tried] > -np.inf])
            # The budget may suffice only for part of the last move.
            steps = np.clip(faces - point[moved], covered - budget, budget - covered)
            points = np.tile(point, (len(moved) + 1, 1))
            points[np.arange(len(moved)), moved] += steps
            if target.n_left - target.cost(self.n_votes) * len(points) < rest:
                break
            leads = target.leads(target.snap(points), self.n_votes)
            gains = (leads[:-1] - leads[-1]) / np.abs(steps)
            promise[moved] = -1e9
            np.maximum.at(promise, moved, gains)
            best = np.lexsort([-np.abs(steps), -gains.round(9)])[0]
            point[moved[best]] = faces[best]
            covered += abs(steps[best])
            features.append(int(moved[best]))
            promise[moved[best]] = -np.inf
            if leads[best] > ENOUGH:
                break
        moves = np.array(features, dtype=np.intp)
        path = Path(moves, point[moves])
        yield path
        # Of moves with equal effects per distance, those with the largest reach come first in the worst case.
        yield target.onward(path)
