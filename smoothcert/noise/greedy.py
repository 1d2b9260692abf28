"""The greedy walk (Theorem 2.8): how far an adversary gets who pays for every feature that is moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Bound on the relative rounding error of one step of a walk, with room to spare.
STEP_ERROR = 8 * np.finfo(np.float64).eps

#: Number of largest reaches that a walk tries first; a walk that does not end among them tries more.
FIRST = 16


def walk(
    cost: Callable[[Any], Any], inverse_cost: Callable[[Any], Any], budget: FloatArray, reach: FloatArray
) -> FloatArray:
    """Return the l1 distance that an adversary can cover before the budget is spent (Theorem 2.8).

    A convex separable cost under a sum constraint is largest where the largest reaches are filled first. So the walk
    pays for full reaches in decreasing order while the budget lasts, and spends the rest on part of the next.

    Parameters
    ----------
    cost, inverse_cost : callable
        Cost of moving one feature by a distance, and its inverse.
    budget : ndarray of shape (n_inputs,)
        At least 0.
    reach : ndarray of shape (n_inputs, n_features)
        How far each feature can move.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        Rounded down; +inf where the budget pays for everything.
    """
    reach = largest(reach, reach.shape[1])
    # Costs are rounded up, the budget and distances down, so that rounding errors only shrink a radius. The slack grows
    # with the number of terms in a sum, so reaches beyond the end of the walk change nothing.
    slack = STEP_ERROR * np.arange(5, reach.shape[1] + 5)
    budget = budget * (1 - STEP_ERROR)
    paid = np.cumsum(cost(reach), axis=1) * (1 + slack)
    full = paid < budget[:, None]

    spent = np.max(paid, axis=1, where=full, initial=0.0)
    covered = np.max(np.cumsum(reach, axis=1) * (1 - slack), axis=1, where=full, initial=0.0)
    # Where rounding stops the walk before reach u is paid, the last step z may exceed u. That is safe: an adversary at
    # the distance covered + z pays at most spent + cost(u) + cost(z - u), and a convex cost with cost(0) = 0 is
    # superadditive, so this is at most spent + cost(z), which the budget covers.
    radii = covered + inverse_cost(budget - spent) * (1 - STEP_ERROR)
    return np.where((full | (reach == 0)).all(axis=1), np.inf, radii)


def walk_cost(cost: Callable[[Any], Any], reach: FloatArray, distance: FloatArray) -> FloatArray:
    """Return what the adversary pays to cover a distance, or all that can be covered: the inverse of `walk`.

    Parameters
    ----------
    cost : callable
        Maps moves of shape (n_inputs, k) to what each input's moves cost together, shape (n_inputs,).
    reach : ndarray of shape (n_inputs, n_features)
    distance : ndarray of shape (n_inputs,)
    """
    top = covering(reach, distance)
    before = np.cumsum(top, axis=1) - top
    return cost(np.clip(distance[:, None] - before, 0.0, top))


def walk_largest(
    walk: Callable[[FloatArray, FloatArray], FloatArray], budget: FloatArray, reach: FloatArray, k: int = FIRST
) -> FloatArray:
    """Return ``walk(budget, reach)`` by a walk over the ``k`` largest reaches, or more where it does not end there.

    The largest reaches are filled first, so a walk that ends among them never gets to the others. The budget of wide
    noise pays for about 2.8 lam features of reach 1/2 or more, whatever the number of features.
    """
    top = largest(reach, k)
    radii = walk(budget, top)
    if k < reach.shape[1]:
        endless = np.isinf(radii) & (top[:, -1] > 0)
        if endless.any():
            radii[endless] = walk_largest(walk, budget[endless], reach[endless], 8 * k)
    return radii


def moves(reach: FloatArray, distance: FloatArray, max_features: int | None = None) -> FloatArray:
    """Return how far each feature moves on a walk of a given distance: the worst perturbation (Theorem 2.8).

    Parameters
    ----------
    reach : ndarray of shape (n_inputs, n_features)
        How far each feature can move.
    distance : ndarray of shape (n_inputs,)
        Length of the walk; +inf moves every feature by its whole reach.
    max_features : int, optional
        Largest number of features that move.

    Returns
    -------
    moves : ndarray of shape (n_inputs, n_features)
        They add up to ``distance``, up to rounding, or to the sum of the reaches. Among equal reaches, the first is
        filled first.

    Examples
    --------
    >>> moves(np.array([[0.6, 1.0, 0.7]]), np.array([1.9]))
    array([[0.2, 1. , 0.7]])
    """
    order = np.argsort(-reach, axis=1, kind="stable")[:, :max_features]
    full = np.take_along_axis(reach, order, axis=1)
    before = np.cumsum(full, axis=1) - full
    found = np.zeros_like(reach)
    np.put_along_axis(found, order, np.clip(distance[:, None] - before, 0.0, full), axis=1)
    return found


def largest(reach: FloatArray, k: int) -> FloatArray:
    """Return the ``k`` largest entries of each row, in decreasing order; all of them if there are fewer."""
    n, d = reach.shape
    size = math.isqrt(d // max(k, 1))
    if size > 1:
        # The k largest entries lie in the k blocks with the largest maxima: any other entry is below k of these maxima.
        n_blocks = d // size
        blocks, others = np.split(reach, [size * n_blocks], axis=1)
        blocks = blocks.reshape(n, size, n_blocks)
        best = np.argpartition(blocks.max(axis=1), n_blocks - k, axis=1)[:, n_blocks - k :]
        picked = blocks[np.arange(n)[:, None], :, best].reshape(n, k * size)
        reach = np.concatenate([picked, others], axis=1)
    return np.sort(reach, axis=1)[:, : -k - 1 : -1]


def covering(reach: FloatArray, distance: FloatArray, k: int = FIRST) -> FloatArray:
    """Return the largest entries of each row: at least ``k``, and enough to add up to ``distance`` if possible."""
    top = largest(reach, k)
    if k >= reach.shape[1] or np.all((top.sum(axis=1) >= distance) | (top[:, -1] == 0)):
        return top
    return covering(reach, distance, 8 * k)


def bisect(
    holds: Callable[[FloatArray], NDArray[np.bool_]], low: FloatArray, high: FloatArray, steps: int
) -> FloatArray:
    """Return the largest values at which a condition holds; it holds at ``low`` and fails from some value on."""
    for _ in range(steps):
        middle = (low + high) / 2
        inside = holds(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low
