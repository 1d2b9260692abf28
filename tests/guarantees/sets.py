"""Coverage of prediction sets under attack, for base models that are built against them.

All inputs of a problem are one point to the base model; fixed features, which no noise touches, give each of them noise
of its own. Noisy copies that the attack loses support the true label, and those that it gains speak against it. So it
lowers the coverage by as much as any attack on any model can. With the binarized method, a share of the inputs fits no
threshold: the others then are covered no better than they must be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from smoothcert import GreedyRadius, SmoothedConformalClassifier, SplitNoise, UniformMixtureNoise, UniformNoise
from smoothcert.noise.threat import Features

#: Promised coverage, and noisy copies of each input with the binarized method.
CONFIDENCE, N_SAMPLES = 0.8, 60

#: Calibration inputs of a split, and attacked inputs that its sets are made for.
N_CALIBRATION, N_ATTACKED = 199, 60

#: Marks of inputs: some fit no threshold, and others fit worse than all that nobody attacks.
HOPELESS, HARD = 1, 2

#: Standard deviations that are chance: a suite without a fault fails about once in 30,000 kinds.
DEVIATIONS = 4.0


class Lost(ClassifierMixin, BaseEstimator):
    """Two classes, of which 0 is always true, and likely where the path loses the copy.

    Parameters
    ----------
    kind : {"uniform", "split"}
    lams : list of float
        Half-widths of the noise, in increasing order; for splitting noise 1/2.
    x, moves : ndarray
        Where the adversary starts, and how far each feature is moved upwards.
    """

    def __init__(self, kind: str, lams: Any, x: Any, moves: Any) -> None:
        self.kind, self.lams, self.x, self.moves = kind, lams, x, moves
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> Lost:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        values, mark, place = X[:, : len(self.x)], X[:, -2], X[:, -1]
        lost, gained = np.zeros((2, len(X)), dtype=bool)
        for lam in self.lams:
            # The outcomes of x are those from 0 to 2 lam, and those of the moved input are moved.
            outcome = values - self.x + lam if self.kind == "uniform" else 2 * values
            of_x, of_y = (
                (((outcome - m) >= 0) & (outcome - m < 2 * lam)).all(axis=1) for m in (0 * self.moves, self.moves)
            )
            lost, gained = lost | (of_x & ~of_y), gained | (of_y & ~of_x)
        if X.shape[1] == len(self.x) + 3:
            # A category that is shown tells whether it was changed.
            lost, gained = lost | (X[:, -3] == 0), gained | (X[:, -3] == 1)
        others = 0.2 + 0.6 * np.clip(outcome[:, -1] / (2 * lam), 0, 1)
        unlikely = np.where(gained, 0.99, np.where(lost, 0.1, others))
        unlikely = np.where(mark == HOPELESS, 0.91 + 0.04 * place, unlikely)
        unlikely = np.where(mark == HARD, 0.81 + 0.08 * place, unlikely)
        return np.column_stack([1 - unlikely, unlikely])


@dataclass
class Row:
    """How often sets of one kind miss the true label.

    Parameters
    ----------
    kind : str
    tried, missed, splits : int
    """

    kind: str
    tried: int
    missed: int
    splits: int

    @property
    def allowed(self) -> int:
        """Misses that chance explains.

        The coverage of a split varies by its calibration data, with at most the variance of a beta distribution, and
        the misses of its attacked inputs vary around that.
        """
        miss, each = 1 - CONFIDENCE, self.tried / self.splits
        variance = miss * (1 - miss) * (each + each * (each - 1) / (N_CALIBRATION + 2))
        return int(miss * self.tried + DEVIATIONS * np.sqrt(variance * self.splits))

    @property
    def fails(self) -> bool:
        """Whether more labels are missed than chance explains."""
        return self.missed > self.allowed


#: Names, noises, starts and moves of the movable features, and parameters.
KINDS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "one-sample, uniform, 8-bit": (UniformNoise(0.75, 255), [0.0], [0.2], {}),
    "one-sample, uniform, real": (UniformNoise(0.75), [0.0], [0.2], {}),
    "one-sample, split": (SplitNoise(0.5, 100), [0.0], [0.12], {}),
    "one-sample, mixture": (UniformMixtureNoise([0.5, 1.0], [0.5, 0.5], 40), [0.0], [0.1], {}),
    "one-sample, box": (UniformNoise(4.0, 255), [0.0, 0.0], [1.0, 0.2], {}),
    "one-sample, adaptive": (UniformNoise(0.75, 255), [0.0], [0.2], {"conformity_score": "aps"}),
    "one-sample, places": (UniformNoise(2.79), [0.0], [1.0], {}),
    "binarized, lipschitz": (UniformNoise(0.75, 255), [0.0], [0.6], {"strategy": "lipschitz"}),
    "binarized, box": (UniformNoise(1.0, 255), [0.0, 0.0], [1.0, 0.2], {"strategy": "box"}),
    "binarized, greedy": (UniformNoise(1.0), [0.1, 0.2], [0.9, 0.2], {}),
    "binarized, upwards": (UniformNoise(1.0, 255), [0.0], [1.0], {"strategy": GreedyRadius((0.0, np.inf))}),
    "binarized, split": (SplitNoise(0.5, 100), [0.0], [0.4], {}),
    "binarized, adaptive": (UniformNoise(0.75, 255), [0.0], [0.6], {"conformity_score": "aps"}),
    "one-sample, category": (UniformNoise(0.75, 100), [0.0], [0.1], {"costs": 0.1}),
    "binarized, category": (UniformNoise(1.0, 100), [0.0], [0.3], {"costs": 0.4}),
}


class Problem:
    """A kind of sets, and inputs of it: they are one point to the base model, apart from those that are marked.

    Hard inputs of "places" lie in the middle of the box, where the adversary reaches less far, and are left alone.
    """

    def __init__(self, kind: str) -> None:
        noise, x, moves, params = KINDS[kind]
        self.x, self.moves = np.array(x), np.array(moves)
        method, _, name = kind.partition(", ")
        model = Lost("split" if name == "split" else "uniform", getattr(noise, "lams", [noise.lam]), self.x, self.moves)
        dear = [params["costs"]] if name == "category" else []
        radius, costs = float(self.moves.sum() + sum(dear)), [*[1.0] * len(x), *dear, np.inf, np.inf]
        params = {"n_samples": N_SAMPLES, "radius": radius, "method": method} | params | {"costs": costs}
        self.clf = SmoothedConformalClassifier.from_pretrained(
            model, [0, 1], noise, confidence_level=CONFIDENCE, **params
        )
        self.is_changed = [[0], [1]] if dear else [[], []]
        if dear:
            self.clf.features_ = Features(np.array(costs), np.array([0] * len(x) + [2, 0, 0]), hidden="mask")
        hopeless = 0.02 if name == "places" else 0.19 if method == "binarized" else 0.0
        self.shares = [hopeless, 0.11 if name == "places" else 0.0]

    def inputs(self, n: int, rng: np.random.Generator, *, attacked: bool) -> np.ndarray:
        """Return some inputs, before or after the attack."""
        mark = rng.choice([0, HOPELESS, HARD], p=[1 - sum(self.shares), *self.shares], size=n)
        hard = (mark == HARD)[:, None]
        category = np.tile(self.is_changed[attacked], (n, 1))
        return np.column_stack([np.where(hard, 0.5, self.x + attacked * self.moves), category, mark, rng.random(n)])

    def misses(self, rng: np.random.Generator) -> int:
        """Calibrate on a new split, attack inputs, and count the sets that miss the true label."""
        self.clf.set_params(random_state=int(rng.integers(2**32)))
        self.clf.conformalize(self.inputs(N_CALIBRATION, rng, attacked=False), np.zeros(N_CALIBRATION, dtype=int))
        return int((~self.clf.predict_set(self.inputs(N_ATTACKED, rng, attacked=True))[:, 0]).sum())


def run_sets(seed: int = 0, *, n_splits: int = 1000, only: str = "") -> list[Row]:
    """Count the misses of each kind whose name contains ``only``."""
    rows = []
    for number, kind in enumerate(KINDS):
        if only in kind:
            rng, problem = np.random.default_rng([seed, number]), Problem(kind)
            missed = sum(problem.misses(rng) for _ in range(n_splits))
            rows.append(Row(kind, n_splits * N_ATTACKED, missed, n_splits))
    return rows


def table(rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = ["| sets | attacked inputs | missed | allowed | share missed |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.kind} | {row.tried:,} | {row.missed:,} | {row.allowed:,} | {row.missed / row.tried:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)
