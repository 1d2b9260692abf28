"""The radius strategies of the paper. They differ only in the reach they grant the adversary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from .._utils.by_column import in_order, is_by_column
from .._utils.checks import check_bool, check_count
from .._utils.text import exact, in_words
from ..noise.base import Noise
from ..noise.greedy import STEP_ERROR, largest, walk_largest
from .strategy import FloatArray, RadiusStrategy


class LipschitzRadius(RadiusStrategy):
    """Radius for inputs in R^d, from the noise alone (Corollaries 2.4 and 2.13; Cohen et al. 2019 for Gaussian noise).

    Parameters
    ----------
    norm : {1, 2, inf}, default=1
        Norm of the radius. All noises certify l1, Gaussian noise l2 as well. In l-inf every feature moves, and shares
        the budget: uniform and splitting noise certify 2 lam (1 - t^(1/d)) with t = 1 - (p_a - p_b)/2, Gaussian noise
        the l2 radius over sqrt(d).

    See Also
    --------
    BoxRadius, GreedyRadius : Larger radii for inputs in a box.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Corollaries 2.4 and 2.13.
    .. [2] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, Theorem
       1.

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

    def _n_moved(self, reach: FloatArray) -> NDArray[Any]:
        """Return how many features the worst perturbation moves, each equally far: one, or in l-inf all that can."""
        return np.count_nonzero(reach, axis=1) if self.norm == np.inf else np.ones(len(reach))

    def price(self, noise: Noise, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return the cost of a move by ``distance``: of one feature or, in l-inf, of every feature that can move."""
        n_moved = self._n_moved(reach)
        return n_moved * noise.cost(np.where(n_moved > 0, distance, 0.0))

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Spend the budget on one feature, or in l-inf in equal parts on all that can move."""
        n_moved = self._n_moved(reach)
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

    See Also
    --------
    GreedyRadius : Radii that are at least as large, for one input.
    LipschitzRadius : Radii without the box.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Proposition 2.5, Corollaries 2.7 and 2.14.

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
            raise ValueError(
                f"BoxRadius(closed_form=True) needs lam > 1/2, times the largest cost, got {noise!r}. Use BoxRadius()."
            )

    @property
    def needs_inputs(self) -> bool:
        """Whether a subclass has reaches of its own: those of the box are the same for all inputs."""
        return type(self).reach is not BoxRadius.reach

    needs_every_feature = needs_inputs

    def reach(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return how far each feature can move, shape (n_inputs, n_features): over the whole box."""
        return np.ceil(np.maximum(down, up))

    def price(self, noise: Noise, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return the cost of moving features over the whole box until ``distance`` is covered."""
        if self.closed_form:
            largest_move = _largest_move(reach)
            return distance / largest_move * noise.cost(largest_move)
        return noise.walk_cost(reach, distance)

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the features that can move."""
        if self.closed_form:
            largest_move = _largest_move(reach)
            return budget / noise.cost(largest_move) * largest_move * (1 - STEP_ERROR)
        # Mathematically the walk is never shorter. The maximum keeps the strategies in order to the last bit.
        lipschitz = LipschitzRadius().within(noise, budget, reach)
        return np.maximum(walk_largest(noise.walk, budget, reach), lipschitz)


def _largest_move(reach: FloatArray) -> FloatArray:
    """Return the largest reach of each input; 1 where nothing can move."""
    largest_move = reach.max(axis=1)
    return np.where(largest_move > 0, largest_move, 1.0)


class GreedyRadius(RadiusStrategy):
    """Radius for this input in the box, each feature moving at most to its far face (Theorem 2.8).

    The tightest of the three: the worst perturbation of this very input decides. Limits on what the adversary can
    change make it larger: the radius then holds for perturbations that respect them.

    Parameters
    ----------
    max_change : float, array-like of shape (n_features,), dict, pandas Series, or tuple (down, up) of such, optional
        How far a feature can move, in units of the box; 0 is a feature that cannot change. A dict or Series goes by
        column name, and columns that it leaves out have no limit. A tuple limits both directions separately:
        ``(0.0, np.inf)`` is an adversary who can only increase features.
    max_features : int, optional
        Maximum number of features that can change.

    See Also
    --------
    BoxRadius : One radius for all inputs with the same probabilities.
    GreedyBudgetDisplay : A picture of the worst perturbation.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023, Theorem 2.8.

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

    def for_columns(self, names: Sequence[str] | None) -> Self:
        """Return a copy whose limits are in the order of the columns, where they go by column name.

        Raises
        ------
        ValueError
            If a limit names an unknown column, or the columns have no names.
        """

        def ordered(limit: Any) -> Any:
            return np.array(in_order("max_change", limit, names, default=np.inf)) if is_by_column(limit) else limit

        limits = (
            tuple(map(ordered, self.max_change)) if isinstance(self.max_change, tuple) else ordered(self.max_change)
        )
        return clone(self).set_params(max_change=limits)

    def check(self, noise: Noise) -> None:
        """Raise a ValueError also if a limit is invalid."""
        super().check(noise)
        if self.max_features is not None:
            check_count("max_features", self.max_features)
        self._limits()

    @property
    def threat(self) -> str:
        """The perturbations that a radius covers: those within the limits."""
        most = self.max_features
        number = "" if most is None else f" of any {in_words(most)} feature{'s' * (most > 1)}"
        size = "" if self.max_change is None else f" with max_change={exact(self.max_change)}"
        return self._named(f"perturbations{number}{size}") if number or size else super().threat

    def _limits(self) -> list[FloatArray]:
        """Return the limits downward and upward, as numbers or flat arrays."""
        limits = self.max_change if isinstance(self.max_change, tuple) else (self.max_change, self.max_change)
        expected = "max_change must be a number or array of numbers of at least 0, or a tuple (down, up) of two such"
        if any(map(is_by_column, limits)):
            raise ValueError(
                f"max_change by column name needs the columns, which are not known here, got {self.max_change!r}. Give "
                f"one limit per feature in order."
            )
        try:
            flat = [np.ravel(np.asarray(np.inf if limit is None else limit, dtype=np.float64)) for limit in limits]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected}, got {self.max_change!r}.") from error
        if len(flat) != 2 or not all((limit >= 0).all() for limit in flat):
            raise ValueError(f"{expected}, got {self.max_change!r}.")
        return flat

    def reach(self, noise: Noise, down: FloatArray, up: FloatArray) -> FloatArray:
        """Return how far each feature can move within the limits and within the box."""
        return super().reach(noise, *self.room(noise, down, up))

    def limited(self, reach: FloatArray, n_changed: int = 0) -> FloatArray:
        """Return the largest reaches: those of the features that can move besides the categories that are changed."""
        if self.max_features is None:
            return reach
        n_left = self.max_features - n_changed
        return largest(reach, n_left) if n_left > 0 else np.zeros((len(reach), 1))

    def room(self, noise: Noise, down: FloatArray, up: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how far each feature can move down and up within ``max_change``."""
        if self.max_change is None:
            return down, up
        below, above = self._limits()
        return self._limited(noise, down, below), self._limited(noise, up, above)

    def _limited(self, noise: Noise, room: FloatArray, limit: FloatArray) -> FloatArray:
        """Return the room in one direction within its limit."""
        if limit.size not in (1, room.shape[1]):
            raise ValueError(
                f"max_change must hold one number, or one for each of {room.shape[1]} features, got {limit.size}."
            )
        # A feature that can move can move farther on the lattice, by rounding.
        return np.minimum(room, np.where(limit > 0, noise.point_distance(limit), 0.0))

    @property
    def needs_every_feature(self) -> bool:
        """Whether limits differ between features or directions, or a subclass has reaches of its own."""
        kind = type(self)
        overridden = kind.reach is not GreedyRadius.reach or kind.room is not GreedyRadius.room
        return overridden or isinstance(self.max_change, tuple) or np.size(self.max_change) > 1

    def price(self, noise: Noise, reach: FloatArray, distance: FloatArray) -> FloatArray:
        """Return the cost of filling the largest reaches until ``distance`` is covered."""
        return noise.walk_cost(reach, distance)

    def within(self, noise: Noise, budget: FloatArray, reach: FloatArray) -> FloatArray:
        """Walk over the reaches; rounding must not make the radius smaller than that of `BoxRadius`."""

        def walk(budget: FloatArray, reach: FloatArray) -> FloatArray:
            return np.maximum(noise.walk(budget, reach), BoxRadius().within(noise, budget, np.ceil(reach)))

        return walk_largest(walk, budget, reach)
