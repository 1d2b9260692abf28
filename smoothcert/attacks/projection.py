"""Projection onto an l1 ball inside a box, which never leaves either of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_radii

FloatArray = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)

#: Beyond this, points are clipped: differences of larger ones overflow.
HUGE = 1e300

#: Below this, radii count as 0: numbers lose their precision.
TINY = float(np.finfo(np.float64).tiny)


def project_l1_box(points: Any, center: Any, radius: Any, lo: Any = 0.0, hi: Any = 1.0) -> FloatArray:
    """Project points onto the l1 ball around a center, intersected with a box that holds the center.

    The nearest point of the intersection moves feature i from the center towards the point by
    ``min(max(|points_i - center_i| - mu, 0), room_i)``, with one multiplier mu >= 0 for all features. What is moved in
    total falls with mu and is linear between the numbers at which a feature starts to move or hits its face. The two
    of them that enclose the radius are found by bisection, and mu by interpolation, so nothing depends on scales.

    Parameters
    ----------
    points : array-like of shape (n, d)
        Finite numbers.
    center : array-like that broadcasts to (n, d)
        Inside the box.
    radius : float or array-like of shape (n,)
        Of the ball, at least 0; infinity leaves the box alone, and below 2.3e-308 the center alone is left.
    lo, hi : array-like that broadcast to (n, d)
        The box.

    Returns
    -------
    projected : ndarray of float64, shape (n, d)
        In the box, and at most ``radius`` from the center in exact arithmetic. Points that have been projected stay
        where they are.

    Raises
    ------
    ValueError
        If an argument is not finite, a radius is negative, shapes do not fit, or the center lies outside the box.

    Examples
    --------
    >>> project_l1_box([[0.9, 0.7, 0.5]], [[0.5, 0.5, 0.5]], 0.4)
    array([[0.8, 0.6, 0.5]])
    """
    raw = np.asarray(points, dtype=np.float64)
    if raw.ndim != 2:
        raise ValueError(f"points must have shape (n, d), got shape {raw.shape}.")
    try:
        origin, low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), raw.shape) for end in (center, lo, hi))
    except ValueError as error:
        raise ValueError(f"center, lo and hi must broadcast to the shape of points, {raw.shape}.") from error
    limit = check_radii(radius, len(raw))
    limit = np.where(limit < TINY, 0.0, limit)
    if not all(np.isfinite(array).all() for array in (raw, origin, low, high)):
        raise ValueError("points, center, lo and hi must hold finite numbers.")
    if not ((low <= origin) & (origin <= high)).all():
        raise ValueError("center must lie in the box between lo and hi. Clip it first.")

    raw = np.clip(raw, -HUGE, HUGE)
    wanted = np.abs(raw - origin)
    room = np.where(raw > origin, high - origin, origin - low)
    # Sums of d terms are wrong by a share of d EPS at most: what is inside within that share stays, and what is not is
    # brought inside by more than that, so that it stays the next time.
    slack = (raw.shape[1] + 4) * EPS
    outside = np.minimum(wanted, room).sum(axis=1) > limit * (1 - 2 * slack)
    projected: FloatArray = np.clip(raw, low, high)
    if outside.any():
        target = limit[outside] * (1 - 4 * slack)
        moves = _moves(wanted[outside], room[outside], target)
        base, towards = origin[outside], np.sign(raw[outside] - origin[outside])
        moved = base + towards * moves
        # Where the sum was rounded away from the center, take the next number on its side.
        moved = np.where(np.abs(moved - base) > moves, np.nextafter(moved, base), moved)
        projected[outside] = np.clip(moved, low[outside], high[outside])
    return projected


def _moves(wanted: FloatArray, room: FloatArray, target: FloatArray) -> FloatArray:
    """Return how far each feature moves so that a row adds up to its target, which is less than all would move."""
    n, d = wanted.shape

    def at(mu: FloatArray) -> FloatArray:
        return np.minimum(np.maximum(wanted - mu[:, None], 0.0), room)

    breaks = np.sort(np.concatenate([np.zeros((n, 1)), wanted, np.maximum(wanted - room, 0.0)], axis=1), axis=1)
    rows = np.arange(n)
    # At the first break, 0, more than the target is moved; at the last, nothing.
    first, last = np.zeros(n, dtype=np.intp), np.full(n, 2 * d)
    for _ in range(int(2 * d + 1).bit_length()):
        middle = (first + last) // 2
        above = at(breaks[rows, middle]).sum(axis=1) > target
        first, last = np.where(above, middle, first), np.where(above, last, np.maximum(middle, first + 1))
    more, less = at(breaks[rows, first]), at(breaks[rows, last])
    excess, lack = more.sum(axis=1), less.sum(axis=1)
    # Each feature's share of what is left comes first: what is left may be so small that a share of it loses precision.
    shares = (more - less) / np.where(excess > lack, excess - lack, 1.0)[:, None]
    return less + np.clip(target - lack, 0.0, excess - lack)[:, None] * shares
