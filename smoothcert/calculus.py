"""The certificate calculus: how far an adversary gets who pays for every feature that is moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Relative rounding error that one step of a walk can make, generously.
STEP_ERROR = 8 * np.finfo(np.float64).eps


def walk(
    cost: Callable[[Any], Any], inverse_cost: Callable[[Any], Any], budget: FloatArray, reach: FloatArray
) -> FloatArray:
    """Return the l1 distance that an adversary can cover before the budget is spent (Theorem 2.8).

    A convex separable cost under a sum constraint is largest where the largest reaches are filled first. So the walk
    pays for full reaches in decreasing order while the budget lasts, and spends the rest on part of the next.

    Parameters
    ----------
    cost, inverse_cost : callable
        Cost of moving one feature by so much, and its inverse.
    budget : ndarray of shape (n_inputs,)
        Positive.
    reach : ndarray of shape (n_inputs, n_features)
        How far each feature can move.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        Rounded down; +inf where the budget pays for everything.
    """
    if not len(budget):
        return np.empty(0)
    n_steps = affordable(cost, budget, reach)
    reach = largest(reach, int(n_steps.max()) + 2)
    # Costs are taken a little too high and the budget a little too low: rounding errors only ever shrink a radius.
    slack = STEP_ERROR * (n_steps + 4)
    budget = budget * (1 - slack)
    paid = np.cumsum(cost(reach) * (1 + slack[:, None]), axis=1)
    full = paid < budget[:, None]

    spent = np.max(paid, axis=1, where=full, initial=0.0)
    covered = np.max(np.cumsum(reach, axis=1), axis=1, where=full, initial=0.0)
    radii = (covered + inverse_cost(budget - spent)) * (1 - slack)
    return np.where(full.all(axis=1), np.inf, radii)


def affordable(cost: Callable[[Any], Any], budget: FloatArray, reach: FloatArray) -> FloatArray:
    """Return a bound on the number of full reaches that each input's budget can pay for."""
    smallest = np.min(reach, axis=1, where=reach > 0, initial=np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = budget / cost(smallest)
    return np.fmin(paid, (reach > 0).sum(axis=1))


def largest(reach: FloatArray, k: int) -> FloatArray:
    """Return the ``k`` largest entries of each row, in decreasing order; all of them if there are fewer."""
    d = reach.shape[1]
    if k < d:
        reach = np.partition(reach, d - k, axis=1)[:, d - k :]
    return -np.sort(-reach, axis=1)
