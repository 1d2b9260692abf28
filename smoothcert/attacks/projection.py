"""Projection onto the intersection of an l1 ball and a box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_radii

FloatArray = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)

#: Points are clipped to this magnitude, since differences of larger ones overflow.
HUGE = 1e300

#: Smaller radii count as 0, since smaller numbers lose precision.
TINY = float(np.finfo(np.float64).tiny)


def project_l1_box(points: Any, center: Any, radius: Any, lo: Any = 0.0, hi: Any = 1.0) -> FloatArray:
    """Project points onto the intersection of an l1 ball and a box that contains the center of the ball.

    The nearest point of the intersection moves feature i from the center toward the point by
    ``min(max(|points_i - center_i| - mu, 0), room_i)``, with one multiplier mu >= 0 for all features. The sum of the
    moves falls with mu, and is linear between the values of mu at which a feature starts to move or hits its face.
    Bisection finds the two values that enclose the radius, and interpolation finds mu, so the result does not depend on
    scales.

    Parameters
    ----------
    points : array-like of shape (n, d)
        Finite numbers.
    center : array-like that broadcasts to (n, d)
        Inside the box.
    radius : float or array-like of shape (n,)
        The radius of the ball, at least 0. An infinite radius leaves only the box as a constraint; a radius below
        2.3e-308 counts as 0.
    lo : array-like that broadcasts to (n, d), default=0.0
    hi : array-like that broadcasts to (n, d), default=1.0
        The box.

    Returns
    -------
    projected : ndarray of float64, shape (n, d)
        Points in the box, at a distance of at most ``radius`` from the center in exact arithmetic. Projecting them
        again changes nothing.

    Raises
    ------
    ValueError
        If an argument is not finite, a radius is negative, shapes do not fit, or the center lies outside the box.

    See Also
    --------
    GradientAttack : The attack that uses it.

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
        raise ValueError(f"center, lo and hi must broadcast to the shape of points, {raw.shape}: {error}.") from error
    limit = check_radii(radius, len(raw))
    limit = np.where(limit < TINY, 0.0, limit)
    if not all(np.isfinite(array).all() for array in (raw, origin, low, high)):
        raise ValueError("points, center, lo and hi must hold finite numbers.")
    if not ((low <= origin) & (origin <= high)).all():
        raise ValueError("center must lie in the box between lo and hi. Clip it first.")

    raw = np.clip(raw, -HUGE, HUGE)
    wanted = np.abs(raw - origin)
    room = np.where(raw > origin, high - origin, origin - low)
    # A sum of d terms has a relative error of at most d EPS. Points inside by that margin stay. Others move inside
    # by more than it, so that they stay the next time.
    slack = (raw.shape[1] + 4) * EPS
    outside = np.minimum(wanted, room).sum(axis=1) > limit * (1 - 2 * slack)
    projected: FloatArray = np.clip(raw, low, high)
    if outside.any():
        target = limit[outside] * (1 - 4 * slack)
        moves = _moves(wanted[outside], room[outside], target)
        base, toward = origin[outside], np.sign(raw[outside] - origin[outside])
        moved = base + toward * moves
        # Where the sum was rounded away from the center, take the next float toward it.
        moved = np.where(np.abs(moved - base) > moves, np.nextafter(moved, base), moved)
        projected[outside] = np.clip(moved, low[outside], high[outside])
    return projected


def _moves(wanted: FloatArray, room: FloatArray, target: FloatArray) -> FloatArray:
    """Return the moves of the features. Those of a point add up to its target."""
    n, d = wanted.shape

    def at(mu: FloatArray) -> FloatArray:
        return np.minimum(np.maximum(wanted - mu[:, None], 0.0), room)

    breaks = np.sort(np.concatenate([np.zeros((n, 1)), wanted, np.maximum(wanted - room, 0.0)], axis=1), axis=1)
    rows = np.arange(n)
    # The moves exceed the target at the first break, 0, and are 0 at the last one.
    first, last = np.zeros(n, dtype=np.intp), np.full(n, 2 * d)
    for _ in range(int(2 * d + 1).bit_length()):
        middle = (first + last) // 2
        above = at(breaks[rows, middle]).sum(axis=1) > target
        first, last = np.where(above, middle, first), np.where(above, last, np.maximum(middle, first + 1))
    more, less = at(breaks[rows, first]), at(breaks[rows, last])
    excess, lack = more.sum(axis=1), less.sum(axis=1)
    # The shares come first: the rest may be so small that a share of it loses precision.
    shares = (more - less) / np.where(excess > lack, excess - lack, 1.0)[:, None]
    return less + np.clip(target - lack, 0.0, excess - lack)[:, None] * shares
