"""What a radius strategy is: it grants the adversary a reach, and turns probabilities into radii."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._utils.checks import check_radii
from .._utils.text import qualified_name
from ..noise.base import Noise
from ..noise.greedy import STEP_ERROR, bisect
from ..noise.threat import Features

FloatArray = NDArray[np.float64]

#: What a radius without limits covers.
EVERY = "every perturbation"


class RadiusStrategy(BaseEstimator, ABC):
    """A way to turn bounds on probabilities into a certified radius.

    See Also
    --------
    GreedyRadius, BoxRadius, LipschitzRadius : The strategies of the paper.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, section 2.
    """

    #: Norm in which the radius is measured; strategies with a choice take it as a parameter.
    norm: float = 1

    #: Whether the strategy relies on the box; not every noise has a certificate that does.
    uses_box: bool = True

    @property
    def threat(self) -> str:
        """The perturbations that a radius covers. A strategy of your own states them here; by default it is named."""
        return self._named(EVERY)

    def _named(self, perturbations: str) -> str:
        """Name the class beside the perturbations that the library proves, if the class is not from the library."""
        own = type(self).__module__.startswith("smoothcert.")
        return perturbations if own else f"{perturbations} that {qualified_name(self)} covers"

    def threat_under(self, noise: Noise, features: Features | None = None) -> str:
        """Return the perturbations that a radius covers: lattice, costs and fixed features included."""
        threat, features = self.threat, features or Features()
        limits = [lattice_under(noise, features), features.describe()]
        for limit in filter(None, reversed(limits)):
            threat = f"perturbations {limit}" if threat == EVERY else f"{threat}, {limit}"
        return threat

    def check(self, noise: Noise) -> None:
        """Raise a ValueError if a parameter is invalid, or there is no certificate for this noise."""
        norms = [norm for norm in noise.norms if norm == 1 or not self.uses_box]
        if (self.uses_box and not noise.uses_box) or not any(self.norm == norm for norm in norms):
            valid = [f"LipschitzRadius(norm={norm:g})" for norm in noise.norms]
            valid += ["BoxRadius()", "GreedyRadius()"] if noise.uses_box else []
            raise ValueError(
                f"The radius strategy {self!r} has no certificate for {noise!r}. Valid are {', '.join(valid)}."
            )

    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, down: FloatArray, up: FloatArray) -> FloatArray:
        """Compute certified radii in the unit box.

        Parameters
        ----------
        noise : Noise
            The noise that the votes were drawn with.
        p_a, p_b : array-like of shape (n_inputs,)
            Lower bound on the probability of the predicted class, upper bound on that of every other; p_a > p_b.
        down, up : array-like of shape (n_inputs, n_features)
            How far each feature can move down and up inside the box; both 0 where it cannot. All arguments are
            broadcast: one row stands for all inputs.

        Returns
        -------
        radii : ndarray of shape (n_inputs,)
            Rounded down; +inf where the whole box is certified.

        Raises
        ------
        ValueError
            If probabilities are not numbers from 0 to 1 with p_a > p_b.
        """
        p_a, p_b = (np.atleast_1d(np.asarray(p, dtype=np.float64)) for p in (p_a, p_b))
        if not ((p_b >= 0) & (p_a > p_b) & (p_a <= 1)).all():
            raise ValueError(f"p_a and p_b must be probabilities from 0 to 1 with p_a > p_b, got {p_a!r} and {p_b!r}.")
        reach = self._reach_of_room(noise, down, up)
        n_inputs = np.broadcast_shapes(p_a.shape, p_b.shape, reach.shape[:1])
        budget = np.broadcast_to(noise.budget(p_a, p_b), n_inputs)
        return self.within(noise, budget, np.broadcast_to(reach, (*n_inputs, reach.shape[1])))

    def overlap(self, noise: Noise, radius: Any, down: FloatArray, up: FloatArray) -> FloatArray:
        """Compute the smallest overlap between the noise of an input and that of any input within a radius.

        The overlap of two noises is the mass that they share: 1 minus their total variation distance. No event is more
        than 1 minus the overlap more or less likely under one noise than under the other.

        Parameters
        ----------
        noise : Noise
            Uniform, splitting or mixture noise.
        radius : float or array-like of shape (n_inputs,)
            Distance in the unit box, of at least 0.
        down, up : array-like of shape (n_inputs, n_features)
            As in `radii`.

        Returns
        -------
        overlap : ndarray of shape (n_inputs,)
            From 0 to 1, rounded down.

        Raises
        ------
        ValueError
            If the radius is no distance, or the noise does not charge moves by their overlap.

        Notes
        -----
        It is the inverse of `radii`: the overlap at the radius of ``p_a`` and ``p_b`` is ``1 - (p_a - p_b) / 2``. A
        strategy of your own that defines no ``price`` has overlap 0 beyond the radius of ``p_a = 1``.

        Examples
        --------
        >>> import numpy as np
        >>> from smoothcert import GreedyRadius, LipschitzRadius, UniformNoise
        >>> noise, x = UniformNoise(lam=1.0), np.array([[0.4, 0.6]])
        >>> LipschitzRadius().overlap(noise, [0.5, 1.0], x, 1 - x).round(4)
        array([0.75, 0.5 ])
        >>> GreedyRadius().overlap(noise, [0.5, 1.0], x, 1 - x).round(4)
        array([0.75, 0.56])
        """
        check_pays_by_overlap(noise)
        reach = self._reach_of_room(noise, down, up)
        distance = np.atleast_1d(check_radii(radius, max(len(reach), np.size(radius))))
        reach = np.broadcast_to(reach, (len(distance), reach.shape[1]))
        return overlap_at(self.price(noise, reach, distance), distance, reach.shape[1])

    def _reach_of_room(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return the reaches that decide, shape (n_inputs, k), by how far features can move down and up."""
        room = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (down, up))
        return self.limited(self.reach(noise, *room))

    def reach(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return how far each feature can move, shape (n_inputs, n_features): to its far face."""
        return np.maximum(down, up)

    def limited(self, reach: FloatArray, n_changed: int = 0) -> FloatArray:
        """Return the reaches that are left to an adversary who has changed a number of categories."""
        return reach

    @property
    def needs_inputs(self) -> bool:
        """Whether radii depend on the places of inputs in the box."""
        return self.uses_box

    @property
    def needs_every_feature(self) -> bool:
        """Whether radii depend on which feature has which reach, so that the largest reaches alone do not decide."""
        return self.uses_box

    def price(self, noise: Noise, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return what the adversary must spend to cover ``distance``, shape (n_inputs,): the inverse of `within`.

        It is +inf where no budget pays for the distance.
        """
        most = np.full(len(distance), float(noise.budget(1.0, 0.0)))
        found = bisect(lambda budget: self.within(noise, budget, reach) < distance, np.zeros(len(distance)), most, 60)
        return np.where(self.within(noise, most, reach) < distance, np.inf, found)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "radii" in vars(cls):
            raise TypeError(f"{cls.__name__} must not define radii, which certification does not ask for, but within.")

    @abstractmethod
    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Compute radii from what the adversary may spend, shape (n_inputs,), and how far each feature can move."""


def lattice_under(noise: Noise, features: Features) -> str:
    """Return the lattice that perturbations stay on, as the end of a sentence about them; empty if there is none."""
    if noise.column_steps is not None:
        return features.lattices(noise.column_steps)
    return "" if noise.digital_levels is None else f"on the lattice of {noise.digital_levels} levels"


def overlap_at(price: FloatArray, distance: FloatArray, n_features: int) -> FloatArray:
    """Return the overlap of noises at distances whose cost is ``price``, less than a walk can lose to rounding."""
    slack = STEP_ERROR * (64 + 4 * n_features)
    return np.where(distance > 0, np.maximum(np.exp(-price * (1 + slack)) - slack, 0.0), 1.0)


def check_pays_by_overlap(noise: Noise) -> None:
    """Raise a ValueError unless the cost of a move is the negative logarithm of the overlap that it leaves."""
    if not noise.allows_categories:
        raise ValueError(
            f"noise must be uniform, splitting or mixture noise, whose costs are logarithms of overlaps, got {noise!r}."
        )
