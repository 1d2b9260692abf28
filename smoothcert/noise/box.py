"""The box that inputs live in, and its map to the unit box in which all radii are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.by_column import in_order, is_by_column
from .._utils.warn import warn

FloatArray = NDArray[np.float64]

#: Share of a feature's width by which training data may leave the box: scalers overshoot by a rounding error.
TOLERANCE = 1e-6

#: Share of values outside the box from which on inputs seem to have other units.
CLIPPED_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Box:
    """The product of the intervals [lo, hi], one per feature.

    Parameters
    ----------
    lo, hi : ndarray of float64
        Ends of the intervals in raw units. Anything that broadcasts against one input: a scalar, one value per
        feature, or one per channel of shape (c, 1, 1). A feature with ``lo == hi`` is constant: it cannot move.

    See Also
    --------
    SmoothedClassifier : Its parameter ``bounds`` becomes a box.

    Examples
    --------
    >>> box = Box.from_bounds((0, 255))
    >>> box.to_unit([[0.0, 51.0, 300.0]])
    array([[0. , 0.2, 1. ]])
    """

    lo: FloatArray
    hi: FloatArray

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            if not np.isfinite(self.width).all():
                raise ValueError(f"bounds must be less than 1e308 apart, got {_span(self.lo)} and {_span(self.hi)}.")

    @classmethod
    def from_bounds(
        cls, bounds: Any, X: Any = None, names: Sequence[str] | None = None, unbounded: NDArray[np.bool_] | None = None
    ) -> Box:
        """Build the box from ``bounds``.

        Parameters
        ----------
        bounds : (lo, hi), dict, pandas Series or "minmax"
            A pair, each end a number, an array, or numbers by column name; (lo, hi) by column name; or "minmax" for the
            range of each feature in ``X``.
        X : array-like, optional
        names : sequence of str, optional
            The columns.
        unbounded : ndarray of bool, shape (n_features,), optional
            Features that need no bounds: those that are fixed or categories. Bounds by name may leave them out.

        Raises
        ------
        ValueError
            If ``bounds`` is none of these, is not finite, or is not ordered; if "minmax" comes without data; if bounds
            by name lack a column, name an unknown one, or X has no column names.
        """
        if isinstance(bounds, str) and bounds == "minmax":
            if X is None:
                raise ValueError('bounds="minmax" needs training data: call fit, or give bounds=(lo, hi).')
            data = np.asarray(X, dtype=np.float64)
            if unbounded is not None and unbounded.any():
                data = np.where(np.broadcast_to(unbounded, data[0].size).reshape(data.shape[1:]), 0.0, data)
            return cls(data.min(axis=0), data.max(axis=0))
        expected = 'bounds must be a pair (lo, hi) of finite numbers or arrays with lo < hi, or "minmax"'
        required: list[str] = []
        if names is not None:
            free = np.broadcast_to(False if unbounded is None else unbounded, len(names))
            required = [name for name, is_free in zip(names, free, strict=True) if not is_free]
        ends = _by_position(bounds, names, required)
        try:
            lo, hi = (np.array(end, dtype=np.float64) for end in ends)
            ordered = hi >= lo if np.broadcast(lo, hi).ndim else hi > lo
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected}, got {bounds!r}.") from error
        wrong = ~(np.isfinite(lo) & np.isfinite(hi) & ordered)
        if wrong.any():
            feature = _first(wrong)
            pair = f"({np.broadcast_to(lo, wrong.shape)[feature]:g}, {np.broadcast_to(hi, wrong.shape)[feature]:g})"
            raise ValueError(f"{expected}, got {pair}{_named(feature, names)}.")
        return cls(lo, hi)

    @property
    def width(self) -> FloatArray:
        """Length of each interval, in raw units."""
        return self.hi - self.lo

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless the box fits inputs of this shape."""
        for end in (self.lo, self.hi):
            try:
                np.broadcast_to(end, shape)
            except ValueError as error:
                raise ValueError(
                    f"bounds must be scalars or fit inputs of shape {shape}, but one has shape {end.shape}. Give one "
                    f"value per feature, or for images one per channel in shape (c, 1, 1)."
                ) from error

    def check(self, X: Any, names: Sequence[str] | None = None) -> None:
        """Raise a ValueError if training data lies outside the box: that is a mistake in the units."""
        self.check_shape(np.shape(X)[1:])
        slack = TOLERANCE * self.width
        # A comparison with NaN is false.
        outside = ~((np.asarray(X) >= self.lo - slack) & (np.asarray(X) <= self.hi + slack))
        if outside.any():
            feature = _first(outside.any(axis=0)) if self.width.ndim else ()
            lo, hi = (np.broadcast_to(end, outside.shape[1:])[feature] for end in (self.lo, self.hi))
            values = np.moveaxis(np.asarray(X), 0, -1)[feature]
            raise ValueError(
                f"X must lie inside bounds=({_span(lo)}, {_span(hi)}), but ranges from {np.min(values):g} to "
                f"{np.max(values):g}{_named(feature, names)}. Scale X into the box, or set bounds to the range of the "
                f'data (fit also takes "minmax").'
            )

    def warn_clipped(self, X: Any) -> bool:
        """Warn if inputs look as if they had other units: many values are clipped, or one by more than the box is wide.

        Returns
        -------
        warned : bool
        """
        share, far = (
            float((((X < self.lo - part * self.width) | (X > self.hi + part * self.width)) & (self.width > 0)).mean())
            for part in (TOLERANCE, 1.0)
        )
        suspicious = share > CLIPPED_SHARE or far > 0
        if suspicious:
            warn(
                f"X ranges from {np.min(X):g} to {np.max(X):g}, outside bounds=({_span(self.lo)}, {_span(self.hi)}), "
                f"and was clipped ({share:.2%} of its values): labels and radii are those of the clipped inputs. Check "
                f"that X has the units of the training data.",
            )
        return suspicious

    def to_unit(self, X: Any) -> FloatArray:
        """Clip ``X`` into the box and map it to [0, 1]; a constant feature maps to 0.

        Projection onto a box is 1-Lipschitz in l1, so a certificate of the clipped input holds against every
        perturbation of the raw one.
        """
        unit: FloatArray = np.array(X, dtype=np.float64)
        np.clip(unit, self.lo, self.hi, out=unit)
        unit -= self.lo
        unit /= np.where(self.width > 0, self.width, 1.0)
        return unit

    @property
    def is_unit(self) -> bool:
        """Whether this is the unit box."""
        return not (self.lo.any() or (self.hi != 1).any())

    def to_raw_inplace(self, unit: NDArray[np.floating]) -> None:
        """Map unit-box values back to raw units, in place; they may lie outside [0, 1], as noise does."""
        if not self.is_unit:
            unit *= self.width.astype(unit.dtype)
            unit += self.lo.astype(unit.dtype)

    def room(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how far each feature can move down and up in the unit box; 0 where it is constant."""
        return np.where(self.width > 0, unit, 0.0), np.where(self.width > 0, 1 - unit, 0.0)

    def rounding(self, shape: tuple[int, ...]) -> FloatArray:
        """Bound on the error of `to_unit`, and of its product with a number of steps, for each feature of an input.

        Each operation has a relative error of at most eps/2: the difference x - lo, the width, their quotient, and its
        product with the steps. So the error of a number in [0, 1] is below 4 (eps/2), whatever the size of lo and hi:
        the subtraction of floats rounds their difference, not their size.
        """
        return np.full(shape, 4 * np.finfo(np.float64).eps)

    def movable(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Tell for each feature of an input of this shape whether the box lets it move."""
        return np.broadcast_to(self.width > 0, shape)

    def without(self, features: NDArray[np.bool_]) -> Box:
        """Return the box in which some features of an input have no extent, so that they cannot move."""
        return Box(*(np.where(features, 0.0, end) for end in (self.lo, self.hi))) if features.any() else self

    def fingerprint(self) -> str:
        """Hash of the box."""
        content = f"{self.lo.shape} {self.hi.shape}".encode() + self.lo.tobytes() + self.hi.tobytes()
        return blake2b(content, digest_size=16).hexdigest()


def _by_position(bounds: Any, names: Sequence[str] | None, required: Sequence[str]) -> Any:
    """Return bounds, those by column name in the order of the columns, with (0, 0) for columns that need none."""
    if is_by_column(bounds):
        pairs = in_order("bounds", bounds, names, default=(0.0, 0.0), required=required)
        if any(np.shape(pair) != (2,) for pair in pairs):
            raise ValueError(f"bounds by column name must hold a pair (lo, hi) for each column, got {bounds!r}.")
        return tuple(zip(*map(tuple, pairs), strict=True))
    if isinstance(bounds, (tuple, list)):
        return tuple(
            in_order("bounds", end, names, default=0.0, required=required) if is_by_column(end) else end
            for end in bounds
        )
    return bounds


def _first(flags: Any) -> tuple[int, ...]:
    """Return the position of the first flag that is set."""
    return tuple(int(i) for i in np.argwhere(flags)[0])


def _named(feature: tuple[int, ...], names: Sequence[str] | None) -> str:
    """Return words that name a feature; empty if the bounds are the same for all features."""
    if not feature:
        return ""
    if names is not None and len(feature) == 1:
        return f" in column {names[feature[0]]!r}"
    return f" in feature {feature[0] if len(feature) == 1 else feature}"


def _span(ends: FloatArray) -> str:
    """Return one end of the box as text: a number, or a range if features differ."""
    low, high = ends.min(), ends.max()
    return f"{low:g}" if low == high else f"[{low:g} .. {high:g}]"
