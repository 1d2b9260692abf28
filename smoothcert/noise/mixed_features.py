"""Noise for features of different costs and lattices, and for categories, which are hidden or shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import seeding
from .base import FloatArray, Noise, draw_blocks
from .categories import CategoryNoise
from .lattice import nearest_points
from .mixture import UniformMixtureNoise
from .threat import Features


class Group(NamedTuple):
    """Features with noise of one width on one lattice.

    Attributes
    ----------
    columns : ndarray of int
    cost : float
        What the adversary pays for the whole range of one of them.
    noise : Noise
        The noise of these features in the unit box.
    steps : int
        Number of steps of the lattice that these columns have of their own, 0 for others. Noisy values are then whole
        numbers of steps.
    """

    columns: NDArray[np.intp]
    cost: float
    noise: Noise
    steps: int


class MixedNoise:
    """Noise of one family for features of different costs or lattices, for categories and for features that are fixed.

    A number of cost kappa that lives in [0, kappa] under noise of half-width lam is a number in [0, 1] under noise of
    half-width lam / kappa, whose moves count kappa times. So all numbers of one cost share the kernels of ordinary
    noise. Fixed features are copied.

    Parameters
    ----------
    noise : Noise
        For features of cost 1.
    features : Features
    n_features : int

    Raises
    ------
    ValueError
        If there is no such noise for a cost, or none for categories.

    Examples
    --------
    >>> from smoothcert import UniformNoise
    >>> mixed = MixedNoise(UniformNoise(lam=1.0), Features(np.array([1.0, 2.0, np.inf])), n_features=3)
    >>> [(group.columns.tolist(), group.noise.lam) for group in mixed.groups]
    [([0], 1.0), ([1], 0.5)]
    """

    def __init__(self, noise: Noise, features: Features, n_features: int) -> None:
        self.noise, self.features, self.n_features = noise, features, n_features
        costs = np.broadcast_to(features.costs, n_features)
        n_categories = np.broadcast_to(features.n_categories, n_features)
        kinds = features.fixed, features.categorical, features.numeric
        fixed, categorical, numeric = (np.broadcast_to(kind, n_features) for kind in kinds)
        if not noise.uses_box:
            noise.for_cost(np.max(costs, where=costs != 1, initial=0.0))
        self.fixed = np.flatnonzero(fixed)
        steps = np.broadcast_to(noise.column_steps or 0, n_features)
        self.groups = [
            self._group(np.flatnonzero(numeric & (costs == cost) & (steps == q)), cost, q)
            for cost, q in sorted(set(zip(costs[numeric].tolist(), steps[numeric].tolist(), strict=True)))
        ]
        self.categories = None
        if categorical.any():
            columns = np.flatnonzero(categorical)
            shared = noise.for_group(1.0, 0) if noise.allows_categories else noise
            self.categories = CategoryNoise(shared, columns, costs[columns], n_categories[columns], features.hidden)
        #: For a mixture, the noise of each part: the width of a sample is drawn once, for all groups.
        self.parts = [
            MixedNoise(part, features, n_features)
            for part in (noise.parts if isinstance(noise, UniformMixtureNoise) else [])
        ]

    def _group(self, columns: NDArray[np.intp], cost: float, steps: int) -> Group:
        """Return a group, or raise a ValueError that explains why it has no noise of a valid width."""
        noise = self.noise.for_group(cost, steps)
        try:
            noise.check()
        except ValueError as error:
            if not steps:
                raise ValueError(f"costs must leave the noise a valid width: at cost {cost:g}, {error}") from error
            raise ValueError(
                f"levels must leave the noise a valid width: at cost {cost:g} in {self._named(columns)}, {error} Noise "
                f"narrower than a step needs real numbers: leave the column out of levels, or make it a category."
            ) from error
        return Group(columns, cost, noise, steps)

    def snap(self, unit: FloatArray) -> FloatArray:
        """Return inputs in the unit box with numbers where `to_points` puts them."""
        snapped = unit.copy()
        for group in self.groups:
            snapped[:, group.columns] = group.noise.snap(unit[:, group.columns])
        return snapped

    def to_points(self, unit: FloatArray, raw: FloatArray) -> FloatArray:
        """Return points: lattice points of numbers, codes of categories, values of fixed features.

        Parameters
        ----------
        unit : ndarray of shape (n, n_features)
            Inputs in the unit box.
        raw : ndarray of shape (n, n_features)
            The same inputs in raw units.
        """
        points = raw.astype(np.float64)
        for columns, _, noise, steps in self.groups:
            if steps:
                self._check_lattice(columns, unit[:, columns], raw[:, columns], steps)
            points[:, columns] = noise.to_points(unit[:, columns])
        if self.categories is not None:
            self.categories.check_codes(points[:, self.categories.columns])
        return points

    def draw(self, points: FloatArray, rng: np.random.Generator, out: NDArray[np.floating]) -> None:
        """Write noisy copies of points; see `Noise.draw`."""
        points = np.atleast_2d(points)
        if isinstance(self.noise, UniformMixtureNoise):
            self.noise.draw_parts([part.draw for part in self.parts], points, rng, out)
            return
        for columns, noise, kind, _, steps in self._kinds():
            drawn = np.empty((len(out), len(columns)), dtype=np.float64 if steps else out.dtype)
            noise.draw(points[:, columns].astype(kind), rng, drawn)
            out[:, columns] = whole_steps(drawn, steps) if steps else drawn
        out[:, self.fixed] = points[:, self.fixed]

    def sample(
        self, points: FloatArray, keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples; see `Noise.sample`. The noise of each group and the categories has keys of its own.

        Noisy numbers are in the unit box; those of a column with a lattice of its own are whole numbers of steps.
        """
        if self.parts:
            draw_blocks(self.draw, points, keys, segments, out)
            return
        owners, counts = segments[:, 0], segments[:, 2]
        keys, points = keys[owners], points[owners]
        segments = np.column_stack([np.arange(len(owners)), segments[:, 1:]])
        for columns, noise, kind, label, steps in self._kinds():
            drawn = np.empty((len(out), len(columns)), dtype=np.float64 if steps else out.dtype)
            own = seeding.derived_keys(keys, label) if label else keys
            noise.sample(points[:, columns].astype(kind), own, segments, drawn)
            out[:, columns] = whole_steps(drawn, steps) if steps else drawn
        out[:, self.fixed] = np.repeat(points[:, self.fixed], counts, axis=0)

    def _kinds(self) -> Iterator[tuple[NDArray[np.intp], Any, Any, bytes, int]]:
        """Yield columns, their noise, the type of its points, what tells its keys from those of others, and steps."""
        for columns, cost, noise, steps in self.groups:
            label = f"cost {cost!r}" if cost != 1 or steps else ""
            kind = noise.to_points(np.zeros((1, 1))).dtype
            yield columns, noise, kind, (label + f" levels {steps}" * bool(steps)).encode(), steps
        if self.categories is not None:
            yield self.categories.columns, self.categories, np.int64, b"categories", 0

    def _check_lattice(self, columns: NDArray[np.intp], unit: FloatArray, raw: FloatArray, steps: int) -> None:
        """Raise a ValueError that names the column of the first number that lies off its lattice."""
        off = nearest_points(unit, steps)[1]
        if off.any():
            row, place = np.argwhere(off)[0]
            raise ValueError(
                f"X must lie on the lattice of levels={steps} steps between the bounds in "
                f"{self._named(columns[place])}, got {raw[row, place]:.9g}. Round the column, let levels and "
                f"bounds fit (levels = hi - lo for whole numbers), or leave it out of levels if it holds real numbers."
            )

    def _named(self, columns: Any) -> str:
        return self.features.named(np.isin(np.arange(self.n_features), columns))


def whole_steps(noisy: FloatArray, steps: int) -> FloatArray:
    """Return noisy values of the unit box as whole numbers of steps: the nearest one, the larger one of two.

    They are a function of the noisy values alone, so that two inputs overlap by no less than before.

    Examples
    --------
    >>> print(whole_steps(np.array([0.25, 0.5, 0.75, 1.25]) / 4, 4))
    [0. 1. 1. 1.]
    """
    # Noisy values are whole numbers of quarter steps, up to rounding errors.
    return np.floor(noisy * steps + 0.625)
