"""Radius strategies: from probabilities to certified radii. They differ only in the reach they grant the adversary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._utils.checks import check_bool, check_count
from .._utils.memory import keep_freed
from .._utils.text import exact
from ..noise.base import Noise
from ..noise.greedy import STEP_ERROR, bisect, covering, largest, moves, walk_largest
from ..noise.mechanism import NoiseMechanism

FloatArray = NDArray[np.float64]

#: Values of the room to move that are held at once.
ROOM_VALUES = 2**19

#: Parts of the inputs that are not worth starting threads for.
FEW_PARTS = 8

#: Threads at most that compute radii: each holds as much.
MOST_THREADS = 4


class RadiusStrategy(BaseEstimator, ABC):
    """A way to turn bounds on probabilities into a certified radius."""

    #: Norm in which the radius is measured; strategies with a choice take it as a parameter.
    norm: float = 1

    #: Whether the strategy relies on the box; not every noise has a certificate that does.
    uses_box: bool = True

    @property
    def threat(self) -> str:
        """The perturbations that a radius speaks of."""
        return "every perturbation"

    def check(self, noise: Noise) -> None:
        """Raise a ValueError if a parameter is invalid, or there is no certificate for this noise."""
        norms = [norm for norm in noise.norms if norm == 1 or not self.uses_box]
        if (self.uses_box and not noise.uses_box) or not any(self.norm == norm for norm in norms):
            valid = [f"LipschitzRadius(norm={norm:g})" for norm in noise.norms]
            valid += ["BoxRadius()", "GreedyRadius()"] if noise.uses_box else []
            raise ValueError(f"radius={self!r} has no certificate for {noise!r}. Valid are {', '.join(valid)}.")

    def radii(self, noise: Noise, p_a: FloatArray, p_b: FloatArray, down: FloatArray, up: FloatArray) -> FloatArray:
        """Compute certified radii in the unit box.

        Parameters
        ----------
        noise : Noise
            The noise that the votes were drawn with.
        p_a, p_b : ndarray of shape (n_inputs,)
            Lower bound on the probability of the predicted class, upper bound on that of every other; p_a > p_b.
        down, up : ndarray of shape (n_inputs, n_features)
            How far each feature can move down and up inside the box; both 0 where it cannot.

        Returns
        -------
        radii : ndarray of shape (n_inputs,)
            Rounded down; +inf where the whole box is certified.
        """
        return self.within(noise, noise.budget(p_a, p_b), self.reach(noise, down, up))

    def reach(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return how far each feature can move, shape (n_inputs, n_features): to its far face."""
        return np.maximum(down, up)

    def check_box(self, mechanism: NoiseMechanism) -> None:
        """Raise a ValueError if inputs cannot be told apart well enough in this box."""

    def decisive(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return a part of each row of ``reach`` that decides alone about radii up to ``distance``."""
        return reach

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "radii" in vars(cls):
            raise TypeError(f"{cls.__name__} must not define radii, which certification does not ask for, but within.")

    @abstractmethod
    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Compute radii from what the adversary may spend, shape (n_inputs,), and how far each feature can move."""


class LipschitzRadius(RadiusStrategy):
    """Radius for inputs in R^d, from the noise alone (Corollaries 2.4 and 2.13; Cohen et al. 2019 for Gaussian noise).

    Parameters
    ----------
    norm : {1, 2, inf}, default=1
        Norm of the radius. All noises certify l1, Gaussian noise l2 as well. In l-inf every feature moves, and shares
        the budget: uniform and splitting noise certify 2 lam (1 - t^(1/d)) with t = 1 - (p_a - p_b)/2, Gaussian noise
        the l2 radius over sqrt(d).

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import UniformNoise
    >>> p_a, p_b, faces = np.array([0.88]), np.array([0.12]), np.full((1, 2), 0.5)
    >>> LipschitzRadius().radii(UniformNoise(lam=1.0), p_a, p_b, faces, faces).round(6)
    array([0.76])
    """

    uses_box = False

    def __init__(self, norm: float = 1) -> None:
        self.norm = norm

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Spend the budget on one feature, or in l-inf in equal parts on all that can move."""
        n_moved = np.count_nonzero(reach, axis=1) if self.norm == np.inf else np.ones(len(reach))
        error = STEP_ERROR if noise.n_outcomes is None else 0.0
        share = budget * (1 - error) / np.maximum(n_moved, 1)
        return np.where(n_moved > 0, noise.inverse_cost(share) * (1 - error), np.inf)


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
    >>> p_a, p_b, faces = np.array([0.75]), np.array([0.25]), np.full((1, 9), 0.5)
    >>> BoxRadius().radii(UniformNoise.from_sigma(3.5), p_a, p_b, faces, faces).round(6)
    array([3.351784])
    """

    def __init__(self, closed_form: bool = False) -> None:
        self.closed_form = closed_form

    def check(self, noise: Noise) -> None:
        """Raise a ValueError also if the closed form is asked for where it does not exist."""
        super().check(noise)
        if check_bool("closed_form", self.closed_form) and not noise.allows_closed_form:
            raise ValueError(f"BoxRadius(closed_form=True) needs lam > 1/2, got {noise!r}. Use BoxRadius().")

    def decisive(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return the largest reaches; see `RadiusStrategy.decisive`."""
        return covering(reach, distance)

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the features that can move, with reach 1 each."""
        if self.closed_form:
            return budget / noise.cost(1.0) * (1 - STEP_ERROR)
        # Mathematically the walk is never shorter. The maximum keeps the strategies in order to the last bit.
        lipschitz = LipschitzRadius().within(noise, budget, reach)
        return np.maximum(walk_largest(noise.walk, budget, np.ceil(reach)), lipschitz)


class GreedyRadius(RadiusStrategy):
    """Radius for this input in the box, each feature moving at most to its far face (Theorem 2.8).

    The tightest of the three: the worst perturbation of this very input decides. Limits on what the adversary can
    change make it larger: the radius then holds for perturbations that respect them.

    Parameters
    ----------
    max_change : float, array-like of shape (n_features,), or tuple (down, up) of such, optional
        How far a feature can move, in units of the box; 0 is a feature that cannot change. A tuple limits both
        directions separately: ``(0.0, np.inf)`` is an adversary who can only increase features.
    max_features : int, optional
        How many features can change at most.

    Examples
    --------
    Example 2.9 of the paper, where the Lipschitz radius is .76:

    >>> import numpy as np
    >>> from smoothcert import UniformNoise
    >>> p_a, p_b, x = np.array([0.88]), np.array([0.12]), np.array([[0.4, 0.6]])
    >>> GreedyRadius().radii(UniformNoise(lam=1.0), p_a, p_b, x, 1 - x).round(6)
    array([0.828571])

    An adversary who can change one feature only never gets far enough:

    >>> GreedyRadius(max_features=1).radii(UniformNoise(lam=1.0), p_a, p_b, x, 1 - x)
    array([inf])
    """

    def __init__(self, max_change: Any = None, max_features: int | None = None) -> None:
        self.max_change = max_change
        self.max_features = max_features

    def check(self, noise: Noise) -> None:
        """Raise a ValueError also if a limit is invalid."""
        super().check(noise)
        if self.max_features is not None:
            check_count("max_features", self.max_features)
        self._limits()

    @property
    def threat(self) -> str:
        """The perturbations that a radius speaks of: those that respect the limits."""
        limits = {"max_change": self.max_change, "max_features": self.max_features}
        given = ", ".join(f"{name}={exact(limit)}" for name, limit in limits.items() if limit is not None)
        return f"perturbations with {given}" if given else super().threat

    def _limits(self) -> list[FloatArray]:
        """Return the limits downwards and upwards, as numbers or flat arrays."""
        limits = self.max_change if isinstance(self.max_change, tuple) else (self.max_change, self.max_change)
        expected = "max_change must be a number or array of numbers of at least 0, or a tuple (down, up) of two such"
        try:
            flat = [np.ravel(np.asarray(np.inf if limit is None else limit, dtype=np.float64)) for limit in limits]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected}, got {self.max_change!r}.") from error
        if len(flat) != 2 or not all((limit >= 0).all() for limit in flat):
            raise ValueError(f"{expected}, got {self.max_change!r}.")
        return flat

    def reach(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return how far each feature can move within the limits: to its far face at most."""
        reach = super().reach(noise, *self.room(noise, down, up))
        return reach if self.max_features is None else largest(reach, self.max_features)

    def room(self, noise: Noise, down: FloatArray, up: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how far each feature can move down and up within ``max_change``."""
        if self.max_change is None:
            return down, up
        below, above = self._limits()
        return self._limited(noise, down, below), self._limited(noise, up, above)

    def check_box(self, mechanism: NoiseMechanism) -> None:
        """Raise a ValueError if the map to the unit box is too coarse for limits; see `RadiusStrategy.check_box`."""
        coarse = mechanism.box.rounding(mechanism.shape).max() > mechanism.noise.resolution / 2 > 0
        if self.max_change is not None and coarse:
            raise ValueError(
                "max_change needs bounds whose ends are less than 3e7 times as large as their distance: else moving a "
                "feature by the limit may round to more. Subtract an offset from X."
            )

    def _limited(self, noise: Noise, room: FloatArray, limit: FloatArray) -> FloatArray:
        """Return the room in one direction within its limit."""
        if limit.size not in (1, room.shape[1]):
            raise ValueError(
                f"max_change must hold one number, or one for each of {room.shape[1]} features, got {limit.size}."
            )
        # What may move at all may move one step farther on the lattice, by rounding, and less than another by the map
        # to the unit box: see check_box.
        return np.minimum(room, np.where(limit > 0, limit + 2 * noise.resolution, 0.0))

    def decisive(self, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return the largest reaches; see `RadiusStrategy.decisive`."""
        return covering(reach, distance)

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the reaches, or as in the box, should rounding make that longer."""

        def walk(budget: FloatArray, reach: FloatArray) -> FloatArray:
            return np.maximum(noise.walk(budget, reach), BoxRadius().within(noise, budget, reach))

        return walk_largest(walk, budget, reach)


def certified_radii(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, X: NDArray[Any], p_a: FloatArray, p_b: FloatArray
) -> FloatArray:
    """Return the radii of raw inputs: those of their points, less what rounding may add to a distance.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs.
    p_a, p_b : ndarray of shape (n_inputs,)
        As in `RadiusStrategy.radii`.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        At least 0.
    """
    budget = mechanism.noise.budget(p_a, p_b)

    def compute(rows: slice, reach: FloatArray) -> FloatArray:
        return strategy.within(mechanism.noise, budget[rows], reach)

    radii = over_reaches(compute, strategy, mechanism, X)
    return np.maximum(radii - mechanism.rounding(strategy.norm), 0.0)


def required_probability(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, X: NDArray[Any], radius: Any
) -> FloatArray:
    """Return how likely the predicted class must be for a radius: the inverse of `certified_radii`.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
        With noise that is sampled.
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs.
    radius : float or ndarray of shape (n_inputs,)
        Radius asked for.

    Returns
    -------
    p_a : ndarray of shape (n_inputs,)
        The smallest probability, to within 1e-12 above it, at which ``certified_radii`` with ``p_b = 1 - p_a`` is at
        least ``radius``; 1/2 for radius 0, +inf where even certainty is not enough.
    """
    radius = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(X))
    rounding = mechanism.rounding(strategy.norm)

    def compute(rows: slice, reach: FloatArray) -> FloatArray:
        return _required(strategy, mechanism.noise, reach, radius[rows], rounding)

    return over_reaches(compute, strategy, mechanism, X)


def _required(
    strategy: RadiusStrategy, noise: Noise, reach: FloatArray, radius: FloatArray, rounding: float
) -> FloatArray:
    """Return the required probabilities of a few inputs."""
    # Reaches beyond the radius, and some to spare, decide nothing.
    reach = strategy.decisive(reach, 2 * (radius + rounding) + 1)

    def certifies(p_b: FloatArray) -> NDArray[np.bool_]:
        return strategy.within(noise, noise.budget(1 - p_b, p_b), reach) - rounding >= radius

    p_b = bisect(certifies, np.zeros(len(radius)), np.full(len(radius), 0.5), steps=40)
    return np.where(radius <= 0, 0.5, np.where(certifies(p_b), 1 - p_b, np.inf))


def over_reaches(
    compute: Callable[[slice, FloatArray], FloatArray],
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    X: NDArray[Any],
) -> FloatArray:
    """Return what is computed from how far features can move: for a few raw inputs at a time, in threads if many."""
    keep_freed()
    strategy.check_box(mechanism)
    size = max(1, ROOM_VALUES // mechanism.n_features)
    parts = [slice(start, start + size) for start in range(0, max(1, len(X)), size)]

    def work(rows: slice) -> FloatArray:
        return compute(rows, strategy.reach(mechanism.noise, *mechanism.room(X[rows])))

    if len(parts) < FEW_PARTS:
        return np.concatenate([work(rows) for rows in parts])
    threads = Parallel(n_jobs=min(MOST_THREADS, cpu_count()), require="sharedmem")
    return np.concatenate(threads(delayed(work)(rows) for rows in parts))


class WorstPerturbations(NamedTuple):
    """What the greedy adversary does to some inputs; each array has shape (n_inputs, *shape).

    Attributes
    ----------
    reach : ndarray
        How far each feature can move, in the unit box.
    moves : ndarray
        How far each feature is moved, signed; absolute values add up to the distance spent.
    perturbed : ndarray
        The perturbed inputs in raw units.
    """

    reach: FloatArray
    moves: FloatArray
    perturbed: FloatArray


def worst_perturbations(
    strategy: GreedyRadius, mechanism: NoiseMechanism, X: NDArray[Any], distance: FloatArray
) -> WorstPerturbations:
    """Fill the largest reaches of raw inputs first, until ``distance``, shape (n_inputs,), is spent (Theorem 2.8)."""
    down, up = strategy.room(mechanism.noise, *mechanism.room(X))
    reach = np.maximum(down, up)
    signed = np.where(up >= down, 1.0, -1.0) * moves(reach, distance, strategy.max_features)
    perturbed = np.clip(mechanism.noise.to_unit(mechanism.points(X)) + signed, 0.0, 1.0).reshape(X.shape)
    mechanism.box.to_raw_inplace(perturbed)
    return WorstPerturbations(reach.reshape(X.shape), signed.reshape(X.shape), perturbed)
