"""Certificates from the votes of a run: other levels, bounds and radius strategies, without the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from ..certify.algorithm import Algorithm
from ..certify.names import resolve_radius
from ..noise.mechanism import NoiseMechanism
from ..results.certificates import Certificates
from ..results.votes import VoteCounts
from ..sampling.sampler import Votes, fingerprints
from .inputs import Inputs
from .metadata import RunMetadata, from_spec
from .run import in_order
from .store import StoredRun, read_store

FloatArray = NDArray[np.float64]


def certificates_from_store(path: str | os.PathLike[str], *, partial: bool = False, **choices: Any) -> Certificates:
    """Make certificates from a store; see `Certificates.from_store`."""
    return recertified(read_store(path), partial=partial, **choices)


def recertified(stored: StoredRun, *, X: Any = None, partial: bool = False, **choices: Any) -> Certificates:
    """Make certificates from what was read of a store; see `Certificates.from_store`."""
    run = stored.run
    if not partial and len(stored) < run.n_inputs:
        raise ValueError(
            f"The store holds {len(stored)} of {run.n_inputs} inputs: the run has not ended. Resume it, or take the "
            f"finished inputs with --partial (in Python: partial=True)."
        )
    if len(stored) == 0:
        raise ValueError("The store holds no finished input yet.")
    algorithm = stored_algorithm(run, **choices)
    if X is None:
        return algorithm.certify(stored.votes, None, stored.reach)
    parts = _stored_inputs(algorithm, stored, X)
    return in_order((rows, algorithm.certify(_some(stored.votes, rows), part)) for rows, part in parts)


def stored_algorithm(run: RunMetadata, *, radius: Any = None, **choices: Any) -> Algorithm:
    """Return Algorithm 1 with the choices of a run, but those that are given: radius, scheme, bound and alpha."""
    noise = from_spec("noise", run.noise)
    stated = {name: run.parameters[name] for name in ("scheme", "bound", "alpha", "n_selection", "n_samples", "rtol")}
    return Algorithm(
        mechanism=NoiseMechanism(run.box, noise, run.shape),
        strategy=resolve_radius(from_spec("radius", run.parameters["radius"]) if radius is None else radius, noise),
        classes=run.classes,
        **stated | {name: value for name, value in choices.items() if value is not None},
    )


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


def _stored_inputs(algorithm: Algorithm, stored: StoredRun, X: Any) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Yield rows of the store and their inputs, after a check that X are the inputs of the run."""
    inputs = Inputs(X, lambda part: check_array(part, allow_nd=True, ensure_2d=False, dtype="numeric"))
    if (len(inputs), *inputs.shape) != (stored.run.n_inputs, *stored.run.shape):
        raise ValueError(
            f"X must be the inputs of the run, of shape {(stored.run.n_inputs, *stored.run.shape)}, got shape "
            f"{(len(inputs), *inputs.shape)}."
        )
    for index, part in inputs.chunks():
        rows, part = np.flatnonzero(np.isin(stored.index, index)), part[np.isin(index, stored.index)]
        if len(part) and not np.array_equal(fingerprints(algorithm.mechanism, part), stored.votes.inputs[rows]):
            raise ValueError(f"X must be the inputs of the run: some of {index[0]} to {index[-1]} differ from those.")
        if len(part):
            yield rows, part


def _some(votes: Votes, rows: NDArray[np.intp]) -> Votes:
    """Return the votes of some rows."""
    return replace(votes, selection=votes.selection[rows], estimation=votes.estimation[rows], inputs=votes.inputs[rows])
