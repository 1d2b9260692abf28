"""Attacks that need nothing but votes: they work on every base model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_choice, check_count
from ..results.certificates import FloatArray
from .search import Attack
from .target import Path, Target, far_faces

#: Share of the queries that a search for good moves may spend; bisection needs the rest.
SHARE = 0.5

#: Lead of a rival beyond which a path need not go on.
ENOUGH = 0.5


def face_moves(target: Target, features: NDArray[np.intp]) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the moves of some features to either of their faces that are farther than nothing."""
    both = np.concatenate([features, features])
    faces = np.concatenate([target.high[features], target.low[features]])
    real = faces != target.start[both]
    return both[real], faces[real]


class GreedyFaceAttack(Attack):
    """Move features to their faces one after the other: the greedy certificate's own worst case (Theorem 2.8).

    Parameters
    ----------
    order : {"both", "reach", "effect"}, default="both"
        "reach" moves features to their far faces in decreasing order of reach, whatever the base model is. "effect"
        measures first how far each move to a face, alone, brings the votes, and makes the moves of the largest effect
        for their distance first. "both" tries the two.
    n_votes : int, default=500
        Votes at each point that guides the search.
    n_samples : int or None, default=None
        Votes at each point where the path is bisected, and fresh ones that verify a candidate, at least; None takes the
        classifier's ``n_samples``.
    alpha : float or None, default=None
        Probability, for each input, that a success is none; None takes the classifier's alpha.
    max_queries : int, default=1_000_000
        Noisy rows at most that the base model is asked about for each input. Where they do not suffice for all
        features, those with the largest reach are measured.
    random_state : int, RandomState or None, default=None
        Of the search and the verification.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), n_samples=1000, random_state=0).fit(minmax_scale(X), y)
    >>> rows = minmax_scale(X)[:2]
    >>> found = GreedyFaceAttack(n_votes=100, random_state=0).minimal(clf, rows)
    >>> print((clf.certify(rows).radii < found.upper_bounds).all())
    True
    """

    def __init__(
        self,
        order: str = "both",
        n_votes: int = 500,
        n_samples: int | None = None,
        alpha: float | None = None,
        max_queries: int = 1_000_000,
        random_state: Any = None,
    ) -> None:
        super().__init__(n_votes, n_samples, alpha, max_queries, random_state)
        self.order = order

    def _check(self, clf: Any) -> None:
        super()._check(clf)
        check_choice("order", self.order, ("both", "reach", "effect"))

    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        if self.order != "effect":
            yield far_faces(target)
        if self.order != "reach":
            yield self._by_effect(target)

    def _by_effect(self, target: Target) -> Path:
        """Measure the moves, each alone, and return them in the order of their effect for their distance."""
        most = int(SHARE * target.n_left / (2 * target.cost(self.n_votes)))
        order = np.argsort(-target.reach, kind="stable")[: max(1, most)]
        features, targets = face_moves(target, order)
        points = np.tile(target.start, (len(features) + 1, 1))
        points[np.arange(len(features)), features] = targets
        leads = target.leads(points, self.n_votes)
        distances = np.abs(targets - target.start[features])
        # Of equal effects the farther move goes first: it is the worst one of a convex cost.
        ranks = np.lexsort([-distances, -((leads[:-1] - leads[-1]) / distances).round(9)])
        _, first = np.unique(features[ranks], return_index=True)
        ranks = ranks[np.sort(first)]
        return Path(features[ranks], targets[ranks])


class CoordinateAttack(Attack):
    """Search coordinate by coordinate: measure moves at the point reached so far, and make the best one.

    Slower than `GreedyFaceAttack`, and better where the effect of a feature depends on the others.

    Parameters
    ----------
    n_candidates : int, default=64
        Features that are tried for each move, at random, but for those that promised most before.
    n_votes : int, default=500
        Votes at each point that guides the search.
    n_samples : int or None, default=None
        Votes at each point where the path is bisected, and fresh ones that verify a candidate, at least; None takes the
        classifier's ``n_samples``.
    alpha : float or None, default=None
        Probability, for each input, that a success is none; None takes the classifier's alpha.
    max_queries : int, default=1_000_000
        Noisy rows at most that the base model is asked about for each input.
    random_state : int, RandomState or None, default=None
        Of the search and the verification.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import minmax_scale
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), n_samples=1000, random_state=0).fit(minmax_scale(X), y)
    >>> rows = minmax_scale(X)[:1]
    >>> found = CoordinateAttack(n_candidates=8, n_votes=100, random_state=0).minimal(clf, rows)
    >>> print((clf.certify(rows).radii < found.upper_bounds).all())
    True
    """

    def __init__(
        self,
        n_candidates: int = 64,
        n_votes: int = 500,
        n_samples: int | None = None,
        alpha: float | None = None,
        max_queries: int = 1_000_000,
        random_state: Any = None,
    ) -> None:
        super().__init__(n_votes, n_samples, alpha, max_queries, random_state)
        self.n_candidates = n_candidates

    def _check(self, clf: Any) -> None:
        super()._check(clf)
        check_count("n_candidates", self.n_candidates)

    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        rest = (1 - SHARE) * target.n_left
        point, covered = target.start.copy(), 0.0
        promise = np.where(target.reach > 0, np.inf, -np.inf)
        features: list[int] = []
        targets: list[float] = []
        while len(features) < target.max_features and covered < budget and (promise > -np.inf).any():
            # Untried features promise most; among equals chance decides.
            shuffled = target.rng.permutation(len(promise))
            tried = shuffled[np.argsort(-promise[shuffled], kind="stable")][: self.n_candidates]
            moved, faces = face_moves(target, tried[promise[tried] > -np.inf])
            # Part of the last move is all that the budget may pay for.
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
            targets.append(float(faces[best]))
            promise[moved[best]] = -np.inf
            if leads[best] > ENOUGH:
                break
        path = Path(np.array(features, dtype=np.intp), np.array(targets))
        yield path
        # Moves of equal effect for their distance are worst in the order of their reach.
        yield target.onward(path)
