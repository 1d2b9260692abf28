"""Regression models whose smoothed quantiles are known, and intervals and radii that must not claim more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from smoothcert import SmoothedRegressor, UniformNoise

#: Votes of both stages.
VOTES = {"n_selection": 24, "n_samples": 160}


class OtherClass(RegressorMixin, BaseEstimator):
    """A number in place of a vote: 0 for the label of a problem, and ``other`` for all other classes."""

    def __init__(self, model: Any, label: Any, other: float) -> None:
        self.model, self.label, self.other = model, label, other

    def fit(self, X: Any, y: Any) -> OtherClass:
        return self

    def __sklearn_clone__(self) -> OtherClass:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.where(self.model.predict(X) == self.label, 0.0, self.other)


def try_problem(row: Any, problem: Any, rng: np.random.Generator, n_inputs: int, alpha: float) -> None:
    """Certify the median of a problem with two classes: at the given distance, it is that of the other class."""
    other = float(rng.choice([-1.0, 1.0]))
    clf = problem.classifier()
    model = OtherClass(problem.model, problem.label, other)
    reg = SmoothedRegressor.from_pretrained(
        model, clf.noise, radius=clf.radius, bounds=clf.bounds, costs=clf.costs, alpha=alpha, **VOTES
    ).set_params(random_state=int(rng.integers(2**32)))
    reg.features_ = clf.features_
    X, distance = problem.inputs(n_inputs, rng), float(problem.distance())
    if rng.integers(2):
        lower, upper = reg.certify(X, distance)
        claimed = np.isfinite(lower) | np.isfinite(upper)
        row.add(n_inputs, claimed, (lower > min(other, 0)) | (upper < max(other, 0)))
    else:
        predictions, radii = reg.certify_within(X, 0.5)
        claimed = ~np.isnan(radii)
        row.add(n_inputs, claimed, claimed & ((predictions != 0) | (np.nan_to_num(radii) >= distance)))


class FirstFeature(RegressorMixin, BaseEstimator):
    """The first feature, or the step of a stair that it is on."""

    def __init__(self, n_steps: int | None) -> None:
        self.n_steps = n_steps

    def fit(self, X: Any, y: Any) -> FirstFeature:
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0] if self.n_steps is None else np.floor(X[:, 0] * self.n_steps) / self.n_steps


@dataclass(frozen=True)
class LinearProblem:
    """The first feature under uniform noise: a move in either direction shifts all quantiles, and nothing does more.

    So both ends of an interval are wrong as often as their order statistics are.
    """

    lam: float
    levels: int
    place: int
    n_steps: int | None
    quantile: float
    strategy: Any

    def true_quantile(self, place: int) -> float:
        """Return the smoothed quantile at a lattice point, from all of its outcomes."""
        n_offsets = int(2 * self.lam * self.levels)
        values = (place + np.arange(n_offsets) + 0.5) / self.levels - self.lam
        numbers = np.sort(FirstFeature(self.n_steps).predict(values[:, None]))
        return float(numbers[int(np.ceil(self.quantile * n_offsets - 1e-9)) - 1])

    def regressor(self, **params: Any) -> SmoothedRegressor:
        """Return the smoothed regressor."""
        noise = UniformNoise(self.lam, self.levels)
        return SmoothedRegressor.from_pretrained(
            FirstFeature(self.n_steps), noise, quantile=self.quantile, radius=self.strategy, **params
        )

    def inputs(self, n_inputs: int, rng: np.random.Generator) -> np.ndarray:
        """Return inputs that are the same to the model; idle features give each noise of its own."""
        idle = rng.integers(self.levels // 2 - 1, self.levels // 2 + 2, size=(n_inputs, 4))
        return np.column_stack([np.full(n_inputs, self.place), idle]) / self.levels


def linear_problem(strategy: Any, rng: np.random.Generator) -> LinearProblem:
    """Return a problem at random, whose first feature reaches farther than idle ones."""
    levels = 64
    place = int(rng.choice([levels // 2 - 8, levels // 2 + 8]))
    n_steps = [None, 16][int(rng.integers(2))]
    return LinearProblem(
        float(rng.choice([1.0, 2.0])), levels, place, n_steps, float(rng.choice([0.3, 0.5, 0.8])), strategy
    )


def try_linear(row: Any, problem: LinearProblem, rng: np.random.Generator, n_inputs: int, alpha: float) -> None:
    """Certify inputs, and compare with the smoothed quantile at every lattice point of the first feature in the ball.

    Idle features are not searched: the model does not see them.
    """
    reg = problem.regressor(alpha=alpha, random_state=int(rng.integers(2**32)), **VOTES)
    X, intervals = problem.inputs(n_inputs, rng), bool(rng.integers(2))
    steps = int(rng.integers(0, 13)) if intervals else problem.levels - problem.place
    nearest = range(-min(steps, problem.place), steps + 1)
    reached = {step: problem.true_quantile(problem.place + step) for step in nearest}
    if intervals:
        lower, upper = reg.certify(X, steps / problem.levels)
        claimed = np.isfinite(lower) | np.isfinite(upper)
        row.add(n_inputs, claimed, (lower > min(reached.values())) | (upper < max(reached.values())))
    else:
        tolerance = float(rng.uniform(0.1, 0.5)) * problem.lam
        predictions, radii = reg.certify_within(X, tolerance)
        claimed = ~np.isnan(radii)
        far = np.zeros(n_inputs, dtype=bool)
        for step, quantile in reached.items():
            inside = np.nan_to_num(radii, nan=-1.0) >= abs(step) / problem.levels
            far |= inside & (np.abs(quantile - predictions) > tolerance + 1e-9)
        row.add(n_inputs, claimed, far)
