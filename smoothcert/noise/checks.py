"""Checks of a noise family of one's own: sampler, cost, inverse and budget have to fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray, Noise

#: Number of copies of a point, half of them to choose a base model and half to estimate its probabilities.
COPIES = 40_000

#: Error of a probability estimated from half of the copies, which is exceeded with probability below 1e-9 (Hoeffding).
ERROR = math.sqrt(math.log(2e9) / COPIES)

#: Number of bins that the base model distinguishes.
BINS = 64

#: What to do about an error in a method.
REMEDIES = {
    "cost": "Derive it from the overlap of the noise at two points, such as -ln of the overlap.",
    "inverse_cost": "Solve spent = cost(z) for z.",
    "budget": "Return the cost at which the overlap allows class B to catch up with class A.",
    "draw": "Fill out by methods of rng, with random numbers of the shape of out.",
    "sample": "Leave sample to the base class and define draw, with rng as the only source of random numbers.",
}

_checked: set[tuple[type[Noise], str]] = set()


def check_noise(noise: Noise) -> None:
    """Raise an error if the parts of a noise family contradict each other.

    Every family that is not the library's own is checked before its first use, once for each class and parameters.
    A family that passes may still be wrong: the check sees errors that matter for moves within the unit box.

    Parameters
    ----------
    noise : Noise

    Raises
    ------
    TypeError
        If ``draw`` returns an array, or a method returns something of another shape.
    ValueError
        If ``cost`` is not 0 at 0, falls, or is not convex; if ``inverse_cost`` is not its inverse; if ``budget`` is
        negative or falls in p_a; if noise depends on other rows, on anything but the generator or key, or on another
        feature; or if a base model changes its label within a distance that cost and budget certify.

    Notes
    -----
    The last check is a test of the certificate itself. The base model is the likelihood-ratio test between copies of
    two points, the worst case of Proposition 2.1. It is chosen by one half of the copies, and its probabilities are
    estimated from the other half (Hoeffding), so that a correct family fails with probability below 1e-7.

    Examples
    --------
    >>> from smoothcert import GaussianNoise
    >>> check_noise(GaussianNoise())
    """
    _check_cost(noise)
    if noise.n_outcomes is None:
        _check_draw(noise)
        _check_sample(noise)
        _check_certificate(noise)


def check_foreign(noise: Noise) -> None:
    """Run `check_noise` once for each class and parameters, for families that the library does not define."""
    if type(noise).__module__.startswith(f"{__package__}."):
        return
    entry = type(noise), repr(sorted(noise.get_params().items()))
    if entry not in _checked:
        check_noise(noise)
        _checked.add(entry)


def check_costs(noise: Noise, prices: Noise, groups: Sequence[Any]) -> None:
    """Raise a ValueError if a family of one's own asks less for a move of a costly feature than its noise allows.

    A move of z in the unit box, under the noise ``for_cost(cost)``, must spend a share of the budget that is no larger
    than the share for a move of cost times z under ``prices``.
    """
    if type(noise).__module__.startswith(f"{__package__}."):
        return
    moves = np.linspace(0, 1, 65)[1:]
    for _, cost, scaled, _ in groups:
        check_noise(scaled)
        for p_a in (0.6, 0.9, 0.99):
            allowed = prices.cost(cost * moves) / prices.budget(p_a, 1 - p_a)
            if (scaled.cost(moves) / scaled.budget(p_a, 1 - p_a) > allowed * (1 + 1e-9)).any():
                raise ValueError(
                    f"costs need noise that narrows with the cost, but {type(noise).__name__}.for_cost({cost:g}) "
                    f"returned {scaled!r}, under which a move costs more. Scale all widths by 1 / cost."
                )


def _check_cost(noise: Noise) -> None:
    """Check cost, inverse_cost and budget on a grid."""
    z = np.linspace(0, 1, 65)
    cost = _values(noise, "cost", z)
    found = f"{_shown(cost)} at 0, .25, .5, .75, 1"
    _require(noise, "cost", cost[0] == 0, "be 0 at 0", found)
    _require(noise, "cost", cost[-1] > 0, "be positive", found)
    finite = np.isfinite(cost)
    _require(noise, "cost", (cost[1:] >= cost[:-1]).all(), "increase with z", found)
    bends = np.diff(cost[finite], 2)
    if type(noise).walk is Noise.walk:
        convex = (bends >= -1e-9 * cost[finite].max()).all()
        _require(noise, "cost", convex, "be convex, or the greedy walk is wrong", found)
    back = _values(noise, "inverse_cost", cost[finite])
    # Enumerated outcomes allow whole steps only, so their inverse may jump.
    wrong = ~(np.abs(back - z[finite]) <= (1e-6 if noise.n_outcomes is None else 1.0))
    where = np.argmax(wrong)
    found = f"inverse_cost(cost({z[where]:g})) = {back[where]:g}"
    _require(noise, "inverse_cost", not wrong.any(), "undo cost", found)

    p = np.linspace(0.5, 1, 65)[:-1]
    budget = _values(noise, "budget", p, 1 - p)
    valid = (budget >= -1e-12).all() and (np.diff(budget) >= -1e-12).all()
    found = f"{_shown(budget)} at p_a = .5, .625, .75, .875"
    _require(noise, "budget", valid, "be at least 0 and increase with p_a", found)
    _require(noise, "budget", budget[0] <= 1e-9, "be 0 where p_a equals p_b", f"{budget[0]:g}")


def _check_draw(noise: Noise) -> None:
    """Check that draw writes finite values, from the generator alone."""
    for points in (_points(noise, [0.0, 1.0]), np.tile(_points(noise, [0.0, 1.0]), (2000, 1))):
        before, outs = points.copy(), np.full((2, 2000, 2), np.nan)
        for out in outs:
            returned = noise.draw(points, np.random.default_rng(0), out)
            if returned is not None:
                raise TypeError(
                    f"{type(noise).__name__}.draw must write noisy copies into out and return None, got "
                    f"{type(returned).__name__}. Write out[...] = copies in place of return copies."
                )
            wrong = out[~np.isfinite(out)]
            found = f"{wrong[:1]} in {wrong.size} of {out.size} places"
            _require(noise, "draw", not wrong.size, "write a finite number into every place of out", found)
        found = f"points changed from {before.flat[:2]} to {points.flat[:2]}"
        _require(noise, "draw", np.array_equal(points, before), "leave points as they are", found)
        same, found = np.array_equal(*outs), f"{outs[0].flat[:2]} and {outs[1].flat[:2]} from equal generators"
        _require(noise, "draw", same, "take random numbers from rng alone", found)


def _check_sample(noise: Noise) -> None:
    """Check that a keyed sample is the same in whatever batch it is drawn, and that keys differ."""
    points = np.stack([_points(noise, [0.0, 1.0, 0.0])] * 2)
    keys = np.arange(1, 9, dtype=np.uint32).reshape(2, 4)
    whole, parts = np.full((600, 3), np.nan), np.full((19, 3), np.nan)
    noise.sample(points, keys, np.array([[0, 0, 300], [1, 0, 300]]), whole)
    noise.sample(points, keys, np.array([[1, 125, 7], [0, 0, 1], [0, 289, 11]]), parts)
    same = np.array_equal(parts, np.concatenate([whole[425:432], whole[:1], whole[289:300]]))
    found = "another sample of the same number in another batch"
    _require(noise, "sample", same, "be a function of point, key and number of the sample", found)
    differs, found = not np.array_equal(whole[:300], whole[300:]), f"the same noise for the keys {keys.tolist()}"
    _require(noise, "sample", differs, "draw other noise for another key", found)


def _check_certificate(noise: Noise) -> None:
    """Check that rows are independent, and that no base model changes its label within a certified distance."""
    still, again = _copies(noise, [0.0, 0.0], seed=1), _copies(noise, [0.0, 0.0], seed=3)
    high = still[:, 0] > np.median(still[:, 0])
    alike, share = np.mean(high[::2] == high[1::2]), high.mean()
    independent = abs(alike - share**2 - (1 - share) ** 2) <= 2 * ERROR
    found = f"{alike:.0%} of neighbors on the same side of the median"
    _require(noise, "draw", independent, "draw independent noise for each row", found)
    same_law = _probability(still[:, 0], again[:, 0]) <= 0.5
    found = "copies of one point whose distribution depends on the seed of rng"
    _require(noise, "draw", same_law, "draw independent noise for each row", found)

    for z in (0.125, 0.25, 0.5, 1.0):
        try:
            moved = _copies(noise, [z, 0.0], seed=2)
        except ValueError:
            continue  # The family refuses inputs off its lattice.
        spent = float(np.asarray(noise.cost(z)))
        for view, weights in (("one feature", np.array([1, 0])), ("two features", np.array([1, -1]))):
            p_a = _probability(still @ weights, moved @ weights)
            certified = p_a > 0.5 and float(np.asarray(noise.budget(p_a, 1 - p_a))) > spent * (1 + 1e-9)
            found = f"{spent:g}, which the budget allows at p_a={p_a:.3f}, where a label changes"
            expected = f"be large enough for a move by {z:g} that a base model sees in {view}"
            _require(noise, "cost", not certified, expected, found)


def _probability(still: FloatArray, moved: FloatArray) -> float:
    """Return a lower bound on the probability of class A before a move, for a base model that loses A by the move.

    The base model votes A in the bins that are likelier before the move than after it, with a randomized last bin. Its
    probability of A after the move is below 1/2; otherwise the bound is 0.
    """
    half = COPIES // 2
    seen = np.concatenate([still[:half], moved[:half]])
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, BINS + 1)[1:-1]))
    before, after = (
        [np.bincount(np.searchsorted(edges, part, side="right"), minlength=len(edges) + 1) / half for part in halves]
        for halves in (np.split(still, 2), np.split(moved, 2))
    )
    order = np.argsort(-(before[0] + 1e-9) / (after[0] + 1e-9), kind="stable")
    mass = after[0][order]
    room = np.clip(0.5 - 2 * ERROR - (np.cumsum(mass) - mass), 0.0, mass)
    votes = np.ones(len(order))
    votes[order] = np.divide(room, mass, out=np.ones(len(order)), where=mass > 0)
    return float(votes @ before[1] - ERROR) if votes @ after[1] + ERROR < 0.5 else 0.0


def _copies(noise: Noise, unit: list[float], seed: int) -> FloatArray:
    """Return noisy copies of a point of the unit box."""
    out = np.empty((COPIES, len(unit)))
    noise.draw(_points(noise, unit), np.random.default_rng(seed), out)
    return out


def _points(noise: Noise, unit: list[float]) -> NDArray[Any]:
    """Return the noise's point for a point of the unit box, shape (d,)."""
    return noise.to_points(np.array([unit]))[0]


def _values(noise: Noise, method: str, *arguments: FloatArray) -> FloatArray:
    """Return what a method computes for an array, checked to be numbers of its shape."""
    values = np.asarray(getattr(noise, method)(*arguments), dtype=np.float64)
    if values.shape != arguments[0].shape:
        raise TypeError(
            f"{type(noise).__name__}.{method} must return one number for each of an array, here of shape "
            f"{arguments[0].shape}, got shape {values.shape}. Use NumPy functions of the array."
        )
    _require(noise, method, not np.isnan(values).any(), "return numbers", "NaN")
    return values


def _require(noise: Noise, method: str, holds: Any, expected: str, found: str) -> None:
    """Raise a ValueError unless a condition holds."""
    if not holds:
        raise ValueError(f"{type(noise).__name__}.{method} must {expected}, got {found}. {REMEDIES[method]}")


def _shown(values: FloatArray) -> str:
    """Show a few of the values on a grid."""
    return "[" + ", ".join(f"{value:.4g}" for value in values[::16]) + "]"
