"""Decision trees whose probabilities are computed, against all outcomes of the noise, which the trees predict."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from smoothcert import SmoothedClassifier, SplitNoise, UniformNoise

from .mixed import number_outcomes, rounded


@dataclass(frozen=True)
class TreeProblem:
    """A decision tree on two numbers, and its probabilities of class 1 at all points of the lattice.

    The numbers are so large that float32, in which the tree compares them, takes neighbors for equal.

    Parameters
    ----------
    clf : SmoothedClassifier
    points : ndarray of int, shape (n_points, 2)
        In lattice steps.
    steps : ndarray of int, shape (2,)
    raw : ndarray of float, shape (n_points, 2)
    shares : list of Fraction
    """

    clf: SmoothedClassifier
    points: np.ndarray
    steps: np.ndarray
    raw: np.ndarray
    shares: list[Fraction]

    @classmethod
    def new(cls, kind: str, strategy: Any, rng: np.random.Generator) -> TreeProblem:
        """Return a random problem; in half of them, columns have lattices of their own."""
        by_column = bool(rng.integers(2))
        steps = rng.choice([4, 5, 6, 7], size=2) if by_column else np.repeat(rng.choice([4, 5, 6]), 2)
        lam = float(rng.choice([0.25, 0.5, 0.75, 1.0]))
        lo = rng.choice([0.0, 2.0**21, 2.0**24], size=2)
        width = steps.astype(float) if by_column else rng.choice([0.7, 1.0, 3.0], size=2)
        points = np.array(list(itertools.product(*(range(q + 1) for q in steps))))
        raw = lo + points * width / steps
        X = np.repeat(raw, 3, axis=0) + rng.normal(size=(3 * len(raw), 2)) * width / 3
        y = (rng.random(len(X)) < 0.3) ^ (((X - lo) / width).sum(axis=1) > 1)
        tree = DecisionTreeClassifier(max_leaf_nodes=int(rng.integers(2, 9)), random_state=0).fit(X, y.astype(int))
        noise = (UniformNoise if kind == "uniform" else SplitNoise)(lam, steps if by_column else int(steps[0]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "levels=.* are coarse")
            clf = SmoothedClassifier.from_pretrained(
                tree, [0, 1], noise, radius=strategy, bounds=(lo, lo + width), estimation="exact"
            )
        each = []
        for i, q in enumerate(steps.tolist()):
            # The sampler computes raw values in float64, by these operations.
            outcomes = [number_outcomes(kind, q, int(2 * lam * q), x) for x in range(q + 1)]
            outcomes = [rounded(one) if by_column else one for one in outcomes]
            values = np.array(sorted({value for one in outcomes for value in one}), dtype=float)
            places = values * width[i] / q + lo[i] if by_column else values * (0.25 / q) * width[i] + lo[i]
            each.append(([[one.get(int(value), 0) for value in values] for one in outcomes], places))
        (of_x, first), (of_y, second) = each
        grid = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
        votes = tree.predict(grid).reshape(len(first), len(second)).astype(object)
        shares = [
            Fraction(int(np.array(of_x[a], dtype=object) @ votes @ np.array(of_y[b], dtype=object)))
            / (sum(of_x[a]) * sum(of_y[b]))
            for a, b in points.tolist()
        ]
        return cls(clf, points, steps, raw, shares)

    def try_all(self, row: Any) -> None:
        """Certify every point of the lattice, and compare it with all others and with its probabilities."""
        found = self.clf.certify(self.raw)
        ahead = np.array([(share > Fraction(1, 2)) - (share < Fraction(1, 2)) for share in self.shares])
        # A tie belongs to neither label.
        right = ahead[:, None] == np.where(found.labels == 1, 1, -1)
        distance = (np.abs(self.points[:, None] - self.points[None]) / self.steps).sum(axis=-1)
        claimed = ~found.abstained
        radii = np.where(claimed, found.radii, -1.0)
        false = (~right & (distance <= radii[None])).any(axis=0)
        true = [share if label == 1 else 1 - share for share, label in zip(self.shares, found.labels, strict=True)]
        high = [Fraction(float(p_a)) > p * (1 + Fraction(1, 10**14)) for p_a, p in zip(found.p_a, true, strict=True)]
        row.add(len(claimed), claimed, claimed & false, claimed & np.array(high))
