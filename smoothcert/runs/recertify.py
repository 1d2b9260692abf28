"""Certificates from a store: other levels, bounds and radius strategies for the votes of a run, without its inputs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from ..certify.algorithm import Procedure
from ..certify.binomial import check_statistics
from ..certify.names import resolve_radius
from ..certify.radius import BoxRadius, GreedyRadius, RadiusStrategy, certified_radii, over_reaches
from ..noise.base import Noise
from ..noise.greedy import largest
from ..noise.mechanism import NoiseMechanism
from ..results.certificates import Certificates
from ..results.votes import VoteCounts
from ..sampling.sampler import fingerprints
from .inputs import Inputs
from .metadata import from_spec
from .store import StoredRun, read_store

FloatArray = NDArray[np.float64]

#: Reaches that are kept beyond those that a walk needs.
SPARE = 17

#: Radii are computed for levels down to this one with the reaches that are kept.
LEAST_LEVEL = 1e-6


def n_reaches(noise: Noise, n_samples: int) -> int:
    """Return how many of the largest reaches decide about every radius: about 2.8 lam for noise on a lattice.

    A feature that can move at all can move by 1/2 at least, so it is the walk over features that move by 1/2.
    """
    if not noise.uses_box:
        return 0
    p_a = np.array([LEAST_LEVEL ** (1 / n_samples)])
    budget, k = noise.budget(p_a, 1 - p_a), 64
    while np.isinf(found := noise.walk(budget, np.full((1, k), 0.5))) and k < 2**20:
        k *= 4
    return SPARE + (k if np.isinf(found) else int(np.ceil(2 * found[0])))


def largest_reaches(mechanism: NoiseMechanism, X: NDArray[Any], k: int) -> FloatArray:
    """Return the ``k`` largest distances by which features can move, shape (n_inputs, min(k, d)), decreasing."""
    k = min(k, mechanism.n_features)
    if k == 0:
        return np.empty((len(X), 0))
    return over_reaches(lambda _, reach: largest(reach, k), GreedyRadius(), mechanism, X)


def certificates_from_store(
    path: str | os.PathLike[str],
    *,
    radius: Any = None,
    scheme: str | None = None,
    bound: str | None = None,
    alpha: float | None = None,
    X: Any = None,
    partial: bool = False,
) -> Certificates:
    """Make certificates from a store; see `Certificates.from_store`."""
    return recertified(read_store(path), radius=radius, scheme=scheme, bound=bound, alpha=alpha, X=X, partial=partial)


def recertified(
    stored: StoredRun,
    *,
    radius: Any = None,
    scheme: str | None = None,
    bound: str | None = None,
    alpha: float | None = None,
    X: Any = None,
    partial: bool = False,
) -> Certificates:
    """Make certificates from what was read of a store; see `Certificates.from_store`."""
    run = stored.run
    if not partial and len(stored) < run.n_inputs:
        raise ValueError(
            f"The store holds {len(stored)} of {run.n_inputs} inputs: the run has not ended. Resume it, or take what "
            f"there is with partial=True."
        )
    if len(stored) == 0:
        raise ValueError("The store holds no finished input yet.")
    noise = from_spec("noise", run.noise)
    mechanism = NoiseMechanism(run.box, noise, run.shape)
    given = {"scheme": scheme, "bound": bound, "alpha": alpha}
    rule: dict[str, Any] = {name: run.parameters[name] if value is None else value for name, value in given.items()}
    strategy = resolve_radius(from_spec("radius", run.parameters["radius"]) if radius is None else radius, noise)
    procedure = Procedure(
        noise=noise,
        strategy=strategy,
        classes=run.classes,
        n_features=mechanism.n_features,
        n_samples=run.parameters["n_samples"],
        rtol=run.parameters["rtol"],
        seed=int(run.seed or 0),
        **rule,
    )
    n_classes = 1 if procedure.exact else len(run.classes)
    check_statistics(procedure.n_samples, n_classes, **rule)

    def radii(certified: NDArray[np.bool_], p_a: FloatArray, p_b: FloatArray) -> FloatArray:
        if X is not None:
            return _radii_of_inputs(strategy, mechanism, X, stored, certified, p_a, p_b)
        return radii_from_largest(strategy, mechanism, stored.reach[certified], p_a, p_b)

    return procedure.certify(stored.votes, radii)


def votes_from_store(path: str | os.PathLike[str]) -> VoteCounts:
    """Return the votes of a finished run; see `VoteCounts.from_store`."""
    stored = read_store(path)
    run = stored.run
    if len(stored) < run.n_inputs:
        raise ValueError(f"{path} holds {len(stored)} of {run.n_inputs} inputs: the run has not ended. Resume it.")
    if run.parameters["rtol"] is not None:
        raise ValueError(
            f"{path} holds votes whose drawing stopped early (rtol={run.parameters['rtol']}): bounds for a fixed "
            f"number of votes would be wrong. Use Certificates.from_store(path), which knows."
        )
    votes = stored.votes
    return VoteCounts(selection=votes.selection, estimation=votes.estimation, inputs=votes.inputs, origin=run.origin())


def radii_from_largest(
    strategy: RadiusStrategy, mechanism: NoiseMechanism, reach: FloatArray, p_a: FloatArray, p_b: FloatArray
) -> FloatArray:
    """Return the radii of inputs of which the largest reaches are known: those of `certified_radii`.

    Raises
    ------
    ValueError
        If these do not decide: the strategy limits single features, or its walk does not end among them.
    """
    movable = int(mechanism.box.movable(mechanism.shape).sum())
    budget = mechanism.noise.budget(p_a, p_b)
    if not strategy.uses_box:
        every = mechanism.box.movable(mechanism.shape).reshape(1, -1).astype(np.float64)
        radii = np.broadcast_to(strategy.within(mechanism.noise, budget, every), budget.shape)
    else:
        if not _needs_only_largest(strategy):
            raise ValueError(
                f"radius={strategy!r} looks at each feature of each input, which a store does not hold. Give X=, the "
                f"inputs of the run."
            )
        strategy.check_box(mechanism)
        n_kept = reach.shape[1]
        reach = strategy.reach(mechanism.noise, reach, reach)
        radii = strategy.within(mechanism.noise, budget, reach)
        enough = n_kept >= movable or (getattr(strategy, "max_features", None) or np.inf) <= n_kept
        open_ended = np.isinf(radii) & np.isfinite(budget) & (reach[:, -1] > 0)
        if not enough and open_ended.any():
            raise ValueError(
                f"radius={strategy!r} needs more than the {n_kept} largest reaches of each input that the store "
                f"holds. Give X=, the inputs of the run."
            )
    return np.maximum(radii - mechanism.rounding(strategy.norm), 0.0)


def _needs_only_largest(strategy: RadiusStrategy) -> bool:
    """Tell whether a strategy treats all features alike, and both directions."""
    if type(strategy) is GreedyRadius:
        return not isinstance(strategy.max_change, tuple) and np.size(strategy.max_change) == 1
    return type(strategy) is BoxRadius


def _radii_of_inputs(
    strategy: RadiusStrategy,
    mechanism: NoiseMechanism,
    X: Any,
    stored: StoredRun,
    certified: NDArray[np.bool_],
    p_a: FloatArray,
    p_b: FloatArray,
) -> FloatArray:
    """Return the radii of the certified inputs, from all of the inputs of the run."""
    inputs = Inputs(X, lambda part: check_array(part, allow_nd=True, ensure_2d=False, dtype="numeric"))
    if (len(inputs), *inputs.shape) != (stored.run.n_inputs, *stored.run.shape):
        raise ValueError(
            f"X must be the inputs of the run, of shape {(stored.run.n_inputs, *stored.run.shape)}, got shape "
            f"{(len(inputs), *inputs.shape)}."
        )
    radii, bounds = np.empty(len(certified)), np.full((2, len(certified)), np.nan)
    bounds[:, certified] = p_a, p_b
    for index, part in inputs.chunks():
        rows = np.flatnonzero(np.isin(stored.index, index))
        part = part[np.isin(index, stored.index)]
        if not len(part):
            continue
        if not np.array_equal(fingerprints(mechanism, part), stored.votes.inputs[rows]):
            raise ValueError(f"X must be the inputs of the run: some of {index[0]} to {index[-1]} differ from those.")
        ask = certified[rows]
        radii[rows[ask]] = certified_radii(strategy, mechanism, part[ask], *bounds[:, rows[ask]])
    return radii[certified]
