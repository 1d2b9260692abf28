"""Box and noise together: raw inputs in, noisy raw inputs out. Training and sampling use the same mechanism."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.warn import warn
from .base import FloatArray, Noise
from .box import Box
from .categories import CategoryNoise
from .checks import check_costs, check_foreign
from .greedy import STEP_ERROR
from .mixed_features import MixedNoise
from .threat import Features

#: Part of a lattice step by which a move may fall short of it and still count as a whole step.
ON_STEP = 1e-6

#: Share of lam below which rounding to the lattices of columns is worth a warning.
LARGE_LOSS = 0.95


@dataclass(frozen=True, eq=False)
class NoiseMechanism:
    """The noise that is added to inputs of one shape before the base model sees them.

    Parameters
    ----------
    box : Box
        Its bounds count for numbers alone: categories and fixed features have none.
    noise : Noise
    shape : tuple of int
        Shape of one input. Points are flat, shape (n, d); raw values keep the shape.
    features : Features
        Costs of the features, and which of them are categories.

    Raises
    ------
    ValueError
        If the box, the levels or the costs do not fit the shape, or the noise has no certificate for them.
    """

    box: Box
    noise: Noise
    shape: tuple[int, ...]
    features: Features = field(default_factory=Features)

    def __post_init__(self) -> None:
        self.box.check_shape(self.shape)
        object.__setattr__(self, "features", self.features.for_shape(self.shape))
        object.__setattr__(self, "noise", self.noise.for_columns(self.features.names))
        if len(self.noise.column_steps or ()) not in (0, self.n_features):
            raise ValueError(
                f"levels by column must hold one number for each of {self.n_features} features, got "
                f"{len(self.noise.column_steps or ())}: {self.noise!r}."
            )
        check_foreign(self.noise)
        if self.mixed is not None:
            object.__setattr__(self, "box", self.box.without(~self.numeric))
            check_costs(self.noise, self.prices, self.mixed.groups)

    @property
    def n_features(self) -> int:
        """Number of features d of one input."""
        return int(np.prod(self.shape))

    @cached_property
    def mixed(self) -> MixedNoise | None:
        """What draws noise for costs, lattices of columns, categories and fixed features; None where all are alike."""
        alike = self.features.is_plain and self.noise.column_steps is None
        return None if alike else MixedNoise(self.noise, self.features, self.n_features)

    @property
    def categories(self) -> CategoryNoise | None:
        """The noise of the categories that the adversary can change; None if there are none."""
        return None if self.mixed is None else self.mixed.categories

    @cached_property
    def numeric(self) -> NDArray[np.bool_]:
        """Numbers that the adversary can change, in the shape of an input."""
        return self.per_feature(self.features.numeric).reshape(self.shape)

    @cached_property
    def costs(self) -> FloatArray:
        """What the adversary pays for the whole range of each number, shape (d,); 0 for other features."""
        return np.where(self.numeric.ravel(), self.features.costs, 0.0)

    @cached_property
    def prices(self) -> Noise:
        """The noise whose cost function holds for all features, in units of what the adversary pays."""
        if self.mixed is None:
            return self.noise
        # The offsets of categories are those of real numbers of cost 1.
        groups = {(group.cost, group.steps) for group in self.mixed.groups}
        groups |= {(1.0, 0)} if self.categories is not None else set()
        return self.noise.with_groups(tuple(sorted(groups)) or ((1.0, 0),))

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Lattice steps across the range of each feature of digital inputs, shape (d,); 0 for real numbers."""
        found = np.zeros(self.n_features, dtype=np.int64) + (self.noise.column_steps or self.noise.digital_levels or 0)
        return found if self.noise.column_steps is None else found * self.numeric.ravel()

    def warn_dear_categories(self) -> None:
        """Warn if no number of votes can certify a change of some category: its cost is not below lam."""
        if self.categories is None:
            return
        dear = self.prices.cost(self.categories.moves) >= float(self.noise.budget(1.0, 0.0))
        if dear.any():
            columns = self.categories.columns[dear].tolist()
            names = columns if self.features.names is None else [self.features.names[column] for column in columns]
            most = self.categories.costs[dear].max()
            warn(
                f"Radii will not cover a change of {names}, which costs up to {most:g}: radii stay below such a cost "
                f"unless it is below the noise's lam. To cover it, widen the noise or lower the cost, or give columns "
                f"that the adversary cannot change the cost 'fixed'.",
            )

    def warn_single_categories(self) -> None:
        """Warn if a column of categories holds a single one: the adversary has no other to change it to."""
        single = self.features.categorical & (self.features.n_categories == 1)
        if single.any():
            warn(
                f"There is a single category in {self.features.named(single)}, so certificates cover no change of it. "
                f"Fit on data that hold every category that an adversary may choose, declare them by the type of the "
                f"column (Categorical of pandas, Enum of polars), or give the column the cost 'fixed'.",
            )

    def warn_coarse_levels(self) -> None:
        """Warn if the lattice of a column makes the half-width that all certificates use much smaller than lam."""
        if self.noise.column_steps is None:
            return
        for part in getattr(self.prices, "parts", [self.prices]):
            if part.effective_lam < LARGE_LOSS * part.lam:
                cost, steps = min(part._groups, key=lambda group: part.lam_of(*group))
                columns = self.features.named((self.steps == steps) & (self.costs == cost))
                warn(
                    f"levels={steps} in {columns} are coarse for lam={part.lam:g}: half-widths are whole numbers of "
                    f"half steps there, so certificates use {part.effective_lam:.4g} for all columns. Nothing is "
                    f"lost at lam={part.whole_lam(cost, steps):g}, or if levels leave {columns} out.",
                )

    @property
    def draw_error(self) -> float:
        """Bound on the total variation between one noisy copy that is drawn and the ideal one."""
        if self.mixed is None:
            return self.noise.draw_error * self.n_features
        return sum(group.noise.draw_error * len(group.columns) for group in self.mixed.groups)

    def per_feature(self, values: Any) -> NDArray[Any]:
        """Return one value for each feature, shape (d,), where `features` may hold one for all."""
        return np.broadcast_to(values, self.n_features)

    def bounded(self, X: Any) -> Any:
        """Return raw inputs with 0 in place of features that have no bounds."""
        return X if self.mixed is None else np.where(self.numeric, X, 0.0)

    def points(self, X: Any) -> NDArray[Any]:
        """Clip raw inputs, shape (n, *shape), and turn them into the noise's points, shape (n, d)."""
        unit = self.box.to_unit(self.bounded(X))
        if self.mixed is None:
            return self.noise.to_points(unit).reshape(len(X), self.n_features)
        flat = (len(X), self.n_features)
        return self.mixed.to_points(unit.reshape(flat), np.asarray(X, dtype=np.float64).reshape(flat))

    def sample(
        self, points: NDArray[Any], keys: NDArray[np.uint32], segments: NDArray[np.int64], out: NDArray[np.floating]
    ) -> None:
        """Write keyed samples, in raw units, into ``out`` of shape (n_rows, *shape); see `Noise.sample`."""
        (self.mixed or self.noise).sample(points, keys, segments, out.reshape(len(out), -1))
        self.to_raw_inplace(out)

    def to_raw_inplace(self, out: NDArray[np.floating]) -> None:
        """Map the numbers among noisy values to raw units, in place."""
        if self.mixed is None:
            self.box.to_raw_inplace(out)
            return
        flat = out.reshape(len(out), -1)
        for columns, _, _, steps in self.mixed.groups:
            # Whole numbers of steps become whole numbers in float64.
            real = np.float64 if steps else out.dtype
            scale, shift = (np.broadcast_to(end, self.shape).ravel()[columns] for end in (self.box.width, self.box.lo))
            flat[:, columns] = flat[:, columns].astype(real) * scale.astype(real) / (steps or 1) + shift.astype(real)

    def scale_and_shift(self, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the factors and summands that map the unit box to raw units, shape (d,) each."""
        scale, shift = (np.broadcast_to(end, self.shape).ravel().astype(dtype) for end in (self.box.width, self.box.lo))
        return scale, shift

    def noisy(self, X: Any, rng: np.random.Generator, dtype: type[np.floating] = np.float64) -> NDArray[Any]:
        """Return one noisy copy of each raw input, for training."""
        out = np.empty((len(X), *self.shape), dtype=dtype)
        (self.mixed or self.noise).draw(self.points(X), rng, out.reshape(len(out), -1))
        self.to_raw_inplace(out)
        return out

    def room(self, X: Any) -> tuple[FloatArray, FloatArray]:
        """Return how far the points can move down and up in the unit box, shape (n, d) each; 0 where they cannot."""
        down, up = self.box.room(self.snapped(X))
        return self.with_categories(down), self.with_categories(up)

    def snapped(self, X: Any) -> FloatArray:
        """Return the places of the points of raw inputs in the unit box, in the shape of X."""
        unit = self.box.to_unit(self.bounded(X))
        if self.mixed is None:
            return self.noise.snap(unit)
        return self.mixed.snap(unit.reshape(len(X), self.n_features)).reshape(unit.shape)

    def movable(self) -> NDArray[np.bool_]:
        """Tell for each feature, shape (d,), whether it can move or change."""
        return self.with_categories(self.box.movable(self.shape)[None])[0]

    def with_categories(self, room: NDArray[Any]) -> NDArray[Any]:
        """Return shares of the range by which features can move: categories change by 1, if there are several."""
        room = room.reshape(len(room), self.n_features)
        if self.categories is None:
            return room
        room = room.copy()
        room[:, self.categories.columns] = self.categories.n_categories > 1
        return room

    def moved(self, X: Any, moves: FloatArray) -> FloatArray:
        """Return raw inputs after moves, signed and in units of what is paid; a changed category becomes the next.

        Columns with lattices of their own move by the whole steps that the moves hold.
        """
        unit = self.snapped(X).reshape(moves.shape)
        moved = np.clip(unit + moves / np.where(self.costs > 0, self.costs, 1.0), 0.0, 1.0)
        if self.mixed is None:
            moved = moved.reshape(np.shape(X))
            self.box.to_raw_inplace(moved)
            return moved
        for columns, _, _, steps in self.mixed.groups:
            if steps:
                whole = np.rint(unit[:, columns] * steps)
                change = moved[:, columns] * steps - whole
                moved[:, columns] = whole + np.trunc(change + np.copysign(ON_STEP, change))
        self.to_raw_inplace(moved)
        moved = np.where(self.numeric, moved.reshape(np.shape(X)), X).reshape(moves.shape)
        if self.categories is not None:
            columns = self.categories.columns
            changed = moved[:, columns] + (moves[:, columns] != 0)
            moved[:, columns] = changed % self.categories.n_categories
        return moved.reshape(np.shape(X))

    @cached_property
    def least_cost(self) -> float:
        """The smallest cost of a number that can move; 1 if there is none."""
        return float(np.min(self.costs[self.box.movable(self.shape).ravel()], initial=np.max(self.costs))) or 1.0

    def rounding(self, norm: float = 1) -> float:
        """Bound on the distance that rounding adds between two raw inputs."""
        if not np.any(self.noise.resolution):
            return 0.0
        resolution = self.per_feature(self.noise.resolution).reshape(self.shape)
        per_feature = (resolution + 2 * self.box.rounding(self.shape)) * self.costs.reshape(self.shape)
        return float(np.linalg.norm(per_feature[self.box.movable(self.shape)], ord=norm))

    def raw_radius(self, radius: FloatArray, norm: float = 1) -> FloatArray:
        """Return the radius around a raw input that a certified radius around its point is worth; at least 0.

        Points of real-valued inputs are farther apart than the inputs by `rounding` or less, so radii shrink by it.

        Points of digital inputs lie on a lattice, so they differ by whole numbers of steps. If a point lies outside the
        certified ball, the powers of these numbers add up to S or more, where S is the first whole number beyond the
        radius. Its raw input may be closer, by what rounding changes in each feature that differs by a step or more. At
        a sum of S these are at most S features. At larger sums more features may be rounded, but each step outweighs
        its rounding. The radius shrinks only if a raw input at a sum of S would lie within it.
        """
        shrunk = np.maximum(radius - self.rounding(norm), 0.0)
        levels = self.noise.digital_levels
        if levels is None or self.mixed is not None:
            return shrunk
        # Radii of enumerated outcomes are whole steps. Others are rounded down by more than this.
        nudge = STEP_ERROR if self.noise.n_outcomes is not None else -STEP_ERROR
        power = 1 if norm == np.inf else norm
        beyond = np.floor((radius * levels) ** power * (1 + nudge)) + 1
        n_moved = np.minimum(beyond, np.count_nonzero(self.box.movable(self.shape)))
        distance = beyond ** (1 / power) / levels - self._feature_rounding() * n_moved ** (1 / norm)
        return np.maximum(shrunk, np.minimum(radius, distance * (1 - STEP_ERROR)))

    def point_radius(self, radius: FloatArray, norm: float = 1) -> FloatArray:
        """Return the smallest radius around a point that is worth ``radius`` around a raw input; see `raw_radius`."""
        levels, rounding = self.noise.digital_levels, self.rounding(norm)
        if levels is None or self.mixed is not None:
            return radius + rounding
        power = 1 if norm == np.inf else norm
        each, slack = self._feature_rounding(), 1 + 4 * STEP_ERROR
        # Two bounds on the largest sum of powers of steps that raw inputs within the radius can have. The first is
        # exact up to one step in each feature, the second beyond that.
        few = np.inf if norm == np.inf else (radius / (1 / levels - each)) ** power
        within = np.floor(np.minimum(few, ((radius + rounding) * levels) ** power) * slack)
        return np.minimum(radius + rounding, np.maximum(radius, within ** (1 / power) / levels * slack))

    def _feature_rounding(self) -> float:
        return self.noise.resolution + 2 * float(np.max(self.box.rounding(self.shape), initial=0.0))
