"""Radius strategies: from probabilities to certified radii. They differ only in the reach they grant the adversary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from ._checks import check_bool
from .channel import NoisyChannel
from .noise import Noise

FloatArray = NDArray[np.float64]

#: Values of the reach that are held at once.
REACH_VALUES = 2**22


def walk(noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
    """Return the l1 distance that an adversary can cover before the budget is spent (Theorem 2.8).

    A convex separable cost under a sum constraint is largest where the largest reaches are filled first. So the walk
    pays for full reaches in decreasing order while the budget lasts, and spends the rest on part of the next.

    Parameters
    ----------
    noise : Noise
        Supplies ``cost`` and ``inverse_cost``.
    budget : ndarray of shape (n_inputs,)
        Positive.
    reach : ndarray of shape (n_inputs, n_features) or (1, n_features)
        How far each feature can move: 0, or 1/2 and more.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        Rounded down; +inf where the budget pays for everything.
    """
    if not len(budget):
        return np.empty(0)
    affordable = budget / noise.cost(0.5)
    reach = largest(reach, int(affordable.max()) + 2)
    # Costs are taken a little too high and the budget a little too low: rounding errors only ever shrink a radius.
    slack = 8 * np.finfo(np.float64).eps * (affordable + 4)
    budget = budget * (1 - slack)
    paid = np.cumsum(noise.cost(reach) * (1 + slack[:, None]), axis=1)
    full = paid < budget[:, None]

    spent = np.max(paid, axis=1, where=full, initial=0.0)
    covered = np.max(np.cumsum(np.broadcast_to(reach, paid.shape), axis=1), axis=1, where=full, initial=0.0)
    radii = (covered + noise.inverse_cost(budget - spent)) * (1 - slack)
    return np.where(full.all(axis=1), np.inf, radii)


def tightest(noise: Noise, budget: FloatArray, *reaches: FloatArray) -> FloatArray:
    """Return the largest radius over several reaches, each of which bounds the adversary's.

    In exact arithmetic the smallest reach gives it. Taking the maximum keeps the strategies in order to the last bit.
    """
    return np.max([walk(noise, budget, reach) for reach in reaches], axis=0)


def largest(reach: FloatArray, k: int) -> FloatArray:
    """Return the ``k`` largest entries of each row, in decreasing order; all of them if there are fewer."""
    d = reach.shape[1]
    if k < d:
        reach = np.partition(reach, d - k, axis=1)[:, d - k :]
    return -np.sort(-reach, axis=1)


#: The reach of inputs in R^d: one feature takes any move.
UNBOUNDED = np.full((1, 1), np.inf)


class RadiusStrategy(BaseEstimator, ABC):
    """A way to turn bounds on probabilities into a certified radius."""

    #: Norm in which the radius is measured; strategies with a choice take it as a parameter.
    norm: float = 1

    def check(self, noise: Noise) -> None:
        """Raise a ValueError if the strategy has no certificate for this noise."""
        name = type(self).__name__
        if not any(self.norm == norm for norm in noise.norms):
            valid = ", ".join(f"norm={norm:g}" for norm in noise.norms)
            raise ValueError(f"{name} with {type(noise).__name__} is valid for {valid}, got norm={self.norm!r}.")

    @abstractmethod
    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, reach: FloatArray) -> FloatArray:
        """Compute certified radii in the unit box.

        Parameters
        ----------
        noise : Noise
            The noise that the votes were drawn with.
        p_a, p_b : ndarray of shape (n_inputs,)
            Lower bound on the probability of the predicted class, upper bound on that of every other; p_a > p_b.
        reach : ndarray of shape (n_inputs, n_features)
            How far each feature can move inside the box, 0 where it cannot.

        Returns
        -------
        radii : ndarray of shape (n_inputs,)
            Rounded down; +inf where the whole box is certified.
        """


class LipschitzRadius(RadiusStrategy):
    """Radius from the Lipschitz constant alone, for inputs in R^d (Corollaries 2.4 and 2.13).

    Parameters
    ----------
    norm : {1}, default=1
        Norm of the radius. Uniform and splitting noise certify l1.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import UniformNoise
    >>> p_a, p_b = np.array([0.88]), np.array([0.12])
    >>> LipschitzRadius().radii(UniformNoise(lam=1.0), p_a, p_b, reach=np.ones((1, 2))).round(6)
    array([0.76])
    """

    def __init__(self, norm: float = 1) -> None:
        self.norm = norm

    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk with one feature of infinite reach; see `RadiusStrategy.radii`."""
        return tightest(noise, noise.budget(p_a, p_b), UNBOUNDED)


class BoxRadius(RadiusStrategy):
    """Radius for inputs in the box, each feature moving by at most 1 (Proposition 2.5, inverted exactly).

    Parameters
    ----------
    closed_form : bool, default=False
        Use the paper's closed form (Corollaries 2.7 and 2.14), which is never larger and may fall below
        `LipschitzRadius` for radii under 1. It exists to reproduce the paper and needs lam > 1/2.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import UniformNoise
    >>> p_a, p_b = np.array([0.75]), np.array([0.25])
    >>> BoxRadius().radii(UniformNoise.from_sigma(3.5), p_a, p_b, reach=np.ones((1, 9))).round(6)
    array([3.351784])
    """

    def __init__(self, closed_form: bool = False) -> None:
        self.closed_form = closed_form

    def check(self, noise: Noise) -> None:
        """Raise a ValueError if the closed form is asked for where it does not exist."""
        super().check(noise)
        check_bool("closed_form", self.closed_form)
        if self.closed_form and not np.isfinite(noise.cost(1.0)):
            raise ValueError(f"BoxRadius(closed_form=True) needs lam > 1/2, got {noise!r}. Use BoxRadius().")

    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the movable features with reach 1 each; see `RadiusStrategy.radii`."""
        budget = noise.budget(p_a, p_b)
        if self.closed_form:
            return budget / noise.cost(1.0) * (1 - 2.0**-50)
        return tightest(noise, budget, UNBOUNDED, np.ceil(reach))


class GreedyRadius(RadiusStrategy):
    """Radius for this input in the box, each feature moving at most to its far face (Theorem 2.8).

    The tightest of the three: the worst perturbation of this very input decides.

    Examples
    --------
    Example 2.9 of the paper, where the Lipschitz radius is .76:

    >>> import numpy as np
    >>> from smoothcert import UniformNoise
    >>> p_a, p_b = np.array([0.88]), np.array([0.12])
    >>> GreedyRadius().radii(UniformNoise(lam=1.0), p_a, p_b, reach=np.array([[0.6, 0.6]])).round(6)
    array([0.828571])
    """

    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the far faces; see `RadiusStrategy.radii`."""
        return tightest(noise, noise.budget(p_a, p_b), UNBOUNDED, np.ceil(reach), reach)


def certified_radii(
    strategy: RadiusStrategy, channel: NoisyChannel, X: NDArray[Any], p_a: FloatArray, p_b: FloatArray
) -> FloatArray:
    """Return the radii of raw inputs: those of their points, less what rounding may add to a distance.

    Parameters
    ----------
    strategy : RadiusStrategy
    channel : NoisyChannel
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs; the reach of a few is computed at a time.
    p_a, p_b : ndarray of shape (n_inputs,)
        As in `RadiusStrategy.radii`.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        At least 0.
    """
    radii = np.empty(len(X))
    size = max(1, REACH_VALUES // channel.n_features)
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        radii[rows] = strategy.radii(channel.noise, p_a[rows], p_b[rows], channel.reach(X[rows]))
    return np.maximum(radii - channel.rounding(), 0.0)
