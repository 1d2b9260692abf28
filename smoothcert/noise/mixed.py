"""Noise for features of different costs: each cost has noise of its own width, categories are hidden or shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import seeding
from .base import FloatArray, Noise, draw_blocks
from .categories import CategoryNoise
from .mixture import UniformMixtureNoise
from .threat import Features


class Group(NamedTuple):
    """Features with noise of one width.

    Attributes
    ----------
    columns : ndarray of int
    cost : float
        What the adversary pays for the whole range of one of them.
    noise : Noise
        The noise of these features in the unit box.
    """

    columns: NDArray[np.intp]
    cost: float
    noise: Noise


class MixedNoise:
    """Noise of one family for features of different costs, for categories and for features that are fixed.

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
        self.noise, self.features = noise, features
        costs = np.broadcast_to(features.costs, n_features)
        n_categories = np.broadcast_to(features.n_categories, n_features)
        fixed, categorical = np.isinf(costs), (n_categories > 0) & np.isfinite(costs)
        if not noise.uses_box:
            noise.for_cost(np.max(costs, where=costs != 1, initial=0.0))
        numeric = ~fixed & ~categorical
        self.fixed = np.flatnonzero(fixed)
        self.groups = [
            Group(np.flatnonzero(numeric & (costs == cost)), cost, _scaled(noise, cost))
            for cost in np.unique(costs[numeric]).tolist()
        ]
        self.categories = None
        if categorical.any():
            columns = np.flatnonzero(categorical)
            self.categories = CategoryNoise(noise, columns, costs[columns], n_categories[columns], features.hidden)
        #: For a mixture, the noise of each part: the width of a sample is drawn once, for all groups.
        self.parts = [
            MixedNoise(part, features, n_features)
            for part in (noise.parts if isinstance(noise, UniformMixtureNoise) else [])
        ]

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
        for columns, _, noise in self.groups:
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
        for columns, noise, kind, _ in self._kinds():
            drawn = np.empty((len(out), len(columns)), dtype=out.dtype)
            noise.draw(points[:, columns].astype(kind), rng, drawn)
            out[:, columns] = drawn
        out[:, self.fixed] = points[:, self.fixed]

    def sample(
        self, points: FloatArray, keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples; see `Noise.sample`. The noise of each group and the categories has keys of its own."""
        if self.parts:
            draw_blocks(self.draw, points, keys, segments, out)
            return
        owners, counts = segments[:, 0], segments[:, 2]
        keys, points = keys[owners], points[owners]
        segments = np.column_stack([np.arange(len(owners)), segments[:, 1:]])
        for columns, noise, kind, label in self._kinds():
            drawn = np.empty((len(out), len(columns)), dtype=out.dtype)
            own = seeding.derived_keys(keys, label) if label else keys
            noise.sample(points[:, columns].astype(kind), own, segments, drawn)
            out[:, columns] = drawn
        out[:, self.fixed] = np.repeat(points[:, self.fixed], counts, axis=0)

    def _kinds(self) -> Iterator[tuple[NDArray[np.intp], Any, Any, bytes]]:
        """Yield columns, their noise, the type of its points, and what tells its keys from those of other columns."""
        for columns, cost, noise in self.groups:
            kind = noise.to_points(np.zeros((1, 1))).dtype
            yield columns, noise, kind, b"" if cost == 1 else f"cost {cost!r}".encode()
        if self.categories is not None:
            yield self.categories.columns, self.categories, np.int64, b"categories"


def _scaled(noise: Noise, cost: float) -> Noise:
    """Return the noise of features of one cost, or raise a ValueError that explains what is wrong with the cost."""
    scaled = noise.for_cost(cost)
    try:
        scaled.check()
    except ValueError as error:
        raise ValueError(f"costs must leave the noise a valid width: at cost {cost:g}, {error}") from error
    return scaled
