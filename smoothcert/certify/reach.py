"""Radii of raw inputs: how far their features can move decides what a bound on probabilities is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray

from .._utils.memory import keep_freed
from ..noise.greedy import STEP_ERROR, bisect, largest, moves
from ..noise.mechanism import NoiseMechanism
from .changes import DECIDED, Changes, Reaches, changes_of
from .radius import GreedyRadius
from .strategy import RadiusStrategy, check_pays_by_overlap

FloatArray = NDArray[np.float64]

#: Number of reaches that are computed at once.
REACH_VALUES = 2**19

#: Threads are not worth their start for fewer blocks of inputs than this.
FEW_BLOCKS = 8

#: Maximum number of threads that compute radii: each holds one block.
MOST_THREADS = 4

#: Number of reaches that a store keeps beyond those that a walk needs.
SPARE = 17

#: The reaches that a store keeps decide radii at every alpha up to the first number, and overlaps above the second.
LARGEST_ALPHA, LEAST_OVERLAP = 0.5, 1e-3


def certified_radii(
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    X: NDArray[Any] | None,
    p_a: FloatArray,
    p_b: FloatArray,
    *,
    largest_reaches: FloatArray | None = None,
    by_overlap: bool = False,
) -> FloatArray:
    """Return the radii of raw inputs: those of their points, less what rounding takes.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
    X : ndarray of shape (n_inputs, *shape) or None
        Raw inputs. None where only their largest reaches are known.
    p_a, p_b : ndarray of shape (n_inputs,)
        As in `RadiusStrategy.radii`.
    largest_reaches : ndarray of shape (n_inputs, k), optional
        What `reaches_to_keep` returned for the inputs, where ``X`` is None.
    by_overlap : bool, default=False
        Whether nothing but the overlap counts, so that the radii hold for any event whose probability may change by
        ``(p_a - p_b) / 2``, and not only for the label of a classifier.

    Returns
    -------
    radii : ndarray of shape (n_inputs,)
        At least 0.

    Raises
    ------
    ValueError
        If ``X`` is None and the largest reaches do not decide: the strategy limits single features, or its walk does
        not end among the reaches that are known.
    """
    budget = mechanism.noise.budget(p_a, p_b)
    changes = changes_of(mechanism, curved=False) if by_overlap else changes_of(mechanism)

    def within(rows: slice, reaches: Reaches) -> FloatArray:
        return changes.within(strategy, budget[rows], reaches)

    if X is None and strategy.needs_inputs:
        radii = _radii_of_largest(strategy, changes, largest_reaches, budget)
    else:
        radii = _over_reaches(within, strategy, changes, X, len(budget))
    return mechanism.raw_radius(radii, strategy.norm)


def required_probability(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, X: NDArray[Any], radius: Any
) -> FloatArray:
    """Return how probable the predicted class must be for a radius: the inverse of `certified_radii`.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
        With noise that is sampled.
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs.
    radius : float or ndarray of shape (n_inputs,) or (n_inputs, n_radii)

    Returns
    -------
    p_a : ndarray of shape (n_inputs,) or (n_inputs, n_radii)
        The smallest probability, to within 1e-12 above it (1e-4 for digital inputs), at which ``certified_radii`` with
        ``p_b = 1 - p_a`` is at least ``radius``; 1/2 for radius 0, +inf where even certainty is not enough.
    """
    noise, goals = mechanism.noise, np.asarray(radius, dtype=np.float64)
    changes = changes_of(mechanism)
    goals = np.broadcast_to(goals, goals.shape if goals.ndim == 2 else len(X))

    def required(reaches: Reaches, goal: FloatArray) -> FloatArray:
        # The price of the distance is the budget that p_a must give, plus more than a walk can lose to rounding.
        slack = STEP_ERROR * (64 + 4 * np.minimum(goal / mechanism.least_cost, mechanism.n_features))
        price = changes.price(strategy, reaches, mechanism.point_radius(goal, strategy.norm)) * (1 + slack)
        half = np.full(len(goal), 0.5)
        p_b = bisect(lambda p_b: noise.budget(1 - p_b, p_b) >= price, np.zeros(len(goal)), half, 60)
        found = np.full(len(goal), np.inf)
        # A few units of rounding above: the difference of p_a and p_b is no more precise than that.
        for p_a in (np.ones(len(goal)), np.minimum(1 - p_b + 2.0**-50, 1.0)):
            radii = changes.within(strategy, noise.budget(p_a, 1 - p_a), reaches)
            radii = mechanism.raw_radius(radii, strategy.norm)
            found = np.where(radii >= goal, p_a, found)
        return np.where(goal <= 0, 0.5, found)

    return _over_reaches(_each_radius(required, goals), strategy, changes, X, len(X))


def smallest_overlap(
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    X: NDArray[Any] | None,
    radius: FloatArray,
    *,
    largest_reaches: FloatArray | None = None,
) -> FloatArray:
    """Return the smallest overlap of the noise of raw inputs with that of any input within radii, in raw units.

    Parameters
    ----------
    strategy : RadiusStrategy
    mechanism : NoiseMechanism
        With noise whose cost is the negative logarithm of the overlap: uniform, splitting or mixture noise.
    X : ndarray of shape (n_inputs, *shape) or None
        Raw inputs. None asks for an overlap that holds for all inputs, or those whose largest reaches are known.
    radius : ndarray of shape (n_inputs,) or (n_inputs, n_radii)
        The maximum cost of a perturbation.
    largest_reaches : ndarray of shape (n_inputs, k), optional
        As in `certified_radii`. An overlap below 0.001 that they do not decide is 0.

    Returns
    -------
    overlap : ndarray
        In the shape of ``radius``, from 0 to 1, rounded down; exactly 1 for radius 0. It is sharp, except that below
        about 1/2 it is that of an adversary who can change categories in part, which is smaller.

    Raises
    ------
    ValueError
        If the noise has no such cost, or ``X`` is None and the overlap depends on more of the input than is known.
    """
    check_pays_by_overlap(mechanism.noise)
    if X is None and strategy.needs_inputs and largest_reaches is None:
        raise ValueError(
            f"The radius strategy must be 'lipschitz' or 'box', under which all inputs have the same overlap, got "
            f"{strategy!r}."
        )

    def least(changes: Changes, rows: Any) -> FloatArray:
        known, complete = None, True
        if X is None and strategy.needs_inputs and largest_reaches is not None:
            known, complete = _largest(strategy, changes, largest_reaches[rows])

        def overlap(reaches: Reaches, goal: FloatArray) -> FloatArray:
            distance = mechanism.point_radius(goal, strategy.norm)
            found = np.where(goal > 0, changes.overlap(strategy, reaches, distance), 1.0)
            numbers = strategy.limited(reaches.numbers)
            ends = complete | (numbers.sum(axis=1) >= distance) | (numbers[:, -1] == 0)
            if (found > LEAST_OVERLAP)[~ends].any():
                raise ValueError(needs_more(strategy, reaches))
            return np.where(ends, found, 0.0)

        compute, inputs = _each_radius(overlap, radius[rows]), None if X is None else X[rows]
        if known is not None:
            return compute(slice(None), known)
        return _over_reaches(compute, strategy, changes, inputs, len(radius[rows]))

    found = least(changes_of(mechanism), slice(None))
    rows = (found <= DECIDED).reshape(len(found), -1).any(axis=1)
    if mechanism.categories is None or not rows.any():
        return found
    partly = least(changes_of(mechanism, partly=True), rows)
    found[rows] = np.where(found[rows] <= DECIDED, np.minimum(found[rows], partly), found[rows])
    return found


def _each_radius(
    compute: Callable[[Reaches, FloatArray], FloatArray], radius: FloatArray
) -> Callable[[slice, Reaches], FloatArray]:
    """Return a function of rows and their reaches that computes something for one radius, or for several, each."""

    def each(rows: slice, reaches: Reaches) -> FloatArray:
        if radius.ndim == 1:
            return compute(reaches, radius[rows])
        return np.stack([compute(reaches, one) for one in radius[rows].T], axis=1)

    return each


def reaches_to_keep(mechanism: NoiseMechanism, X: NDArray[Any], lost: float) -> FloatArray:
    """Return the largest reaches of the numbers of each input, in decreasing order: those that decide about any radius.

    With ``lost`` 1/2, they are about 2.8 lam for noise on a lattice at cost 1. A feature that can move at all can move
    over half of its range, so their number is that of the walk over features that move by half of the least cost.

    Parameters
    ----------
    mechanism : NoiseMechanism
    X : ndarray of shape (n_inputs, *shape)
        Raw inputs.
    lost : float
        The largest probability that a move may take from any event: half of the largest margin of labels.

    Returns
    -------
    reaches : ndarray of shape (n_inputs, k)
    """
    if not mechanism.noise.uses_box:
        return np.empty((len(X), 0))
    most, k = np.array([lost]), 64
    budget = mechanism.noise.budget(0.5 + most, 0.5 - most)
    changes = changes_of(mechanism)
    half = min(mechanism.least_cost / 2, np.min(changes.category_costs, initial=np.inf))
    while np.isinf(walked := mechanism.prices.walk(budget, np.full((1, k), half))) and k < 2**20:
        k *= 4
    n_kept = min(SPARE + (k if np.isinf(walked) else int(np.ceil(walked[0] / half))), mechanism.n_features)
    return _over_reaches(lambda _, reaches: largest(reaches.numbers, n_kept), GreedyRadius(), changes, X, len(X))


class WorstPerturbations(NamedTuple):
    """What the greedy adversary does to some inputs; each array has shape (n_inputs, *shape).

    Attributes
    ----------
    reach : ndarray
        How far each feature can move: the share of its range, times its cost. A category can change, for its cost.
    moves : ndarray
        How far each feature is moved, signed, in the same units; absolute values add up to the distance spent.
    perturbed : ndarray
        The perturbed inputs in raw units; a table where the inputs are one.
    """

    reach: FloatArray
    moves: FloatArray
    perturbed: Any


def worst_perturbations(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, X: NDArray[Any], distance: FloatArray
) -> WorstPerturbations:
    """Fill the largest reaches of raw inputs first, until ``distance``, shape (n_inputs,), is spent (Theorem 2.8).

    Before that, the categories change that cost the adversary most, always the first ones of those with equal costs.
    It raises a ValueError if the strategy is not greedy.
    """
    if not isinstance(strategy, GreedyRadius):
        raise ValueError(f'radius must be "greedy" to find worst perturbations, got {strategy!r}.')
    down, up = strategy.room(mechanism.noise, *mechanism.room(X))
    changes = changes_of(mechanism)
    reaches = changes.reaches(strategy, np.maximum(down, up))
    # A radius that ends just below the cost of some changes does not cover them.
    sets, _ = changes.costliest(strategy, reaches, distance * (1 - 3 * STEP_ERROR))
    reach, found = reaches.numbers.copy(), np.empty_like(reaches.numbers)
    for place in np.unique(sets):
        rows, one = sets == place, changes.sets[place]
        limit = None if strategy.max_features is None else strategy.max_features - one.size
        found[rows] = moves(reach[rows], distance[rows] - one.distance, limit)
    changes.mark(sets, np.maximum(down, up), reach, found)
    signed = np.where(up >= down, 1.0, -1.0) * found
    return WorstPerturbations(reach.reshape(X.shape), signed.reshape(X.shape), mechanism.moved(X, signed))


def _radii_of_largest(
    strategy: RadiusStrategy, changes: Changes, reaches: FloatArray | None, budget: FloatArray
) -> FloatArray:
    """Return the radii of points of which the largest reaches are known."""
    known, complete = _largest(strategy, changes, reaches)
    radii = changes.within(strategy, budget, known)
    endless = np.isinf(strategy.within(changes.mechanism.prices, budget, strategy.limited(known.numbers)))
    if not complete and (endless & np.isfinite(budget) & (known.numbers[:, -1] > 0)).any():
        raise ValueError(needs_more(strategy, known))
    return radii


def needs_more(strategy: RadiusStrategy, reaches: Reaches) -> str:
    """Return the message for inputs whose known reaches do not decide."""
    return (
        f"The radius strategy {strategy!r} needs more than the {reaches.numbers.shape[1]} largest reaches of each "
        f"input that the store holds. Give X=, the inputs of the run."
    )


def _largest(strategy: RadiusStrategy, changes: Changes, reaches: FloatArray | None) -> tuple[Reaches, bool]:
    """Return the reaches of points of which the largest are known, and whether these are all that can matter."""
    mechanism = changes.mechanism
    # The limits are shares of ranges, and reaches with costs are not.
    unknown = mechanism.mixed is not None and getattr(strategy, "max_change", None) is not None
    kept_as_numbers = changes_of(mechanism).is_partial
    unknown = unknown or bool((kept_as_numbers & ~changes.is_partial).any())
    if strategy.needs_every_feature or unknown or reaches is None or not reaches.shape[1]:
        raise ValueError(
            f"The radius strategy {strategy!r} looks at the features of each input, which are not known here. Give X=, "
            f"the inputs that were voted on, or use the strategy 'box'."
        )
    all_features = changes.reaches(strategy, mechanism.movable()[None].astype(np.float64))
    reach = strategy.reach(mechanism.noise, reaches, reaches)
    # Categories that count as numbers here, and did not when the largest reaches were kept.
    added = all_features.numbers[:, changes.columns[changes.is_partial & ~kept_as_numbers]]
    numbers = np.hstack([np.repeat(added, len(reach), axis=0), reach])
    available = np.broadcast_to(all_features.available, (len(reach), all_features.available.shape[1]))
    n_movable = np.count_nonzero(all_features.numbers) - np.count_nonzero(added)
    complete = reaches.shape[1] >= min(n_movable, getattr(strategy, "max_features", None) or n_movable)
    return Reaches(numbers, available), complete


def _over_reaches(
    compute: Callable[[slice, Reaches], FloatArray],
    strategy: RadiusStrategy,
    changes: Changes,
    X: NDArray[Any] | None,
    n_inputs: int,
) -> FloatArray:
    """Return what is computed from the reaches of raw inputs, block by block; in threads where blocks are many."""
    keep_freed()
    mechanism = changes.mechanism
    size = max(1, REACH_VALUES // mechanism.n_features)
    blocks = [slice(start, min(start + size, n_inputs)) for start in range(0, max(1, n_inputs), size)]

    def work(rows: slice) -> FloatArray:
        if X is None or not strategy.uses_box:
            movable = mechanism.movable().astype(np.float64)
            movable = np.broadcast_to(movable, (rows.stop - rows.start, mechanism.n_features))
            return compute(rows, changes.reaches(strategy, movable))
        reach = strategy.reach(mechanism.noise, *mechanism.room(X[rows]))
        shape = (rows.stop - rows.start, mechanism.n_features)
        if np.shape(reach) != shape or not np.min(reach, initial=0.0) >= 0:
            raise ValueError(
                f"{type(strategy).__name__}.reach must return how far each feature can move, at least 0, in shape "
                f"(n_inputs, n_features) = {shape}, but returned {reach!r}. Nothing was certified."
            )
        return np.atleast_1d(compute(rows, changes.reaches(strategy, reach)))

    if len(blocks) < FEW_BLOCKS:
        return np.concatenate([work(rows) for rows in blocks])
    threads = Parallel(n_jobs=min(MOST_THREADS, cpu_count()), require="sharedmem")
    return np.concatenate(threads(delayed(work)(rows) for rows in blocks))
