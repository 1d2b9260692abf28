"""The votes of all inputs: drawn by workers, read from a store, or given; and results in the order of the inputs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from tqdm.auto import tqdm

from .._utils.warn import warn
from ..certify.reach import LARGEST_ALPHA, LEAST_OVERLAP, reaches_to_keep
from ..results.records import Records
from ..results.votes import VoteCounts
from ..sampling.exact_sampler import ExactSampler, Shares, Source
from ..sampling.sampler import Votes, fingerprints
from ..sampling.values import ValueSampler
from .database import StoreError
from .inputs import Inputs
from .store import Store
from .workers import Read, draw_all

#: The number of failed inputs that a warning names.
FEW_NAMED = 5

Result = TypeVar("Result", bound=Records | NDArray[Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some inputs of a run and their votes.

    Parameters
    ----------
    index : ndarray of shape (n,)
        Positions in X.
    X : ndarray of shape (n, *shape)
    votes : Votes
    stored : bool
        Whether the votes come from a store.
    failed : bool
        Whether the inputs failed and were skipped. They have no votes, and X is not known.
    """

    index: NDArray[np.intp]
    X: NDArray[Any]
    votes: Votes
    stored: bool = False
    failed: bool = False


#: What a run is made of, as it is finished.
Parts = Generator[Part, None, None]


def sample_votes(
    sampler: Source,
    inputs: Inputs,
    n_jobs: int | None,
    *,
    store: Store | None = None,
    target: NDArray[Any] | None = None,
    skip: bool = False,
) -> Parts:
    """Yield the votes of all inputs, in parts: those in the store first, the others as workers finish them.

    Parameters
    ----------
    sampler : Sampler
    inputs : Inputs
    n_jobs : int or None
    store : Store, optional
        Inputs that are finished in it are not drawn again, and others are written to it.
    target : ndarray of shape (n_inputs,), optional
        What the sampler's rule is asked about each input.
    skip : bool, default=False
        Whether an input that fails is skipped. Those that the store records as failed are not tried again then.

    Raises
    ------
    ValueError
        If all inputs failed.
    """
    positions, finished = inputs.positions, np.zeros(len(inputs), dtype=bool)
    chunks = chunks_of(positions, sampler)
    failures: dict[int, str] = {}
    if store is not None:
        finished[store.finished()] = True
        for chunk in chunks:
            if finished[chunk].any():
                yield stored_part(store, sampler, inputs, chunk[finished[chunk]])
        failures = store.failures() if skip else {}
        finished[[*failures]] = True
        chunks = [chunk[~finished[chunk]] for chunk in chunks if not finished[chunk].all()]

    for index, X, votes in draw_all(sampler, chunks, _reader(inputs, target), n_jobs, skip=skip):
        if isinstance(votes, Votes):
            if store is not None:
                store.append(index, votes, kept_values(sampler, X, votes, target, index))
            yield Part(index=index, X=X, votes=votes)
        else:
            failures[int(index[0])] = votes
            if store is not None:
                store.fail({int(index[0]): votes})
    if failures:
        yield failed_part(sampler, failures, len(positions))


def chunks_of(positions: NDArray[np.intp], sampler: Any) -> list[NDArray[np.intp]]:
    """Return the positions of inputs in the parts in which they are drawn; there may be none."""
    n = len(positions)
    return [positions[part] for part in gen_batches(n, sampler.chunk_size(n))] if n else []


def draw_inputs(
    sampler: Any, inputs: Inputs, n_jobs: int | None, *, target: NDArray[Any] | None = None, verbose: int = 0
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any], Any]]:
    """Yield positions, inputs and what a sampler of its own kind draws for them, as workers finish; nothing is stored.

    Parameters
    ----------
    sampler : Sampler
        Its ``draw`` may return anything.
    inputs : Inputs
    n_jobs : int or None
    target : ndarray of shape (n_inputs, ...), optional
        Handed to the sampler with each input.
    verbose : int, default=0
        Above 0, show a bar.
    """
    chunks = chunks_of(inputs.positions, sampler)
    with tqdm(total=len(inputs), disable=not verbose, desc="drawing", unit="input") as bar:
        for index, X, found in draw_all(sampler, chunks, _reader(inputs, target), n_jobs):
            yield index, X, found
            bar.update(len(index))


def _reader(inputs: Inputs, target: NDArray[Any] | None) -> Read:
    """Return a function of positions that reads the inputs there, and what the sampler is asked about them."""
    return lambda index: (inputs.read(index), None if target is None else target[index])


def kept_values(sampler: Source, X: NDArray[Any], votes: Votes, target: Any, index: NDArray[np.intp]) -> NDArray[Any]:
    """Return what a store keeps of inputs: their largest reaches, or the probabilities that given radii require."""
    rule = None if isinstance(sampler, ExactSampler) else sampler.rule
    if isinstance(sampler, ValueSampler):
        return reaches_to_keep(sampler.mechanism, X, 1 - LEAST_OVERLAP)
    if target is None or rule is None:
        # The bound of a unanimous vote. Without votes, probabilities are known, and may be 1.
        lost = (1.0 if sampler.n_samples == 0 else LARGEST_ALPHA ** (1 / sampler.n_samples)) - 0.5
        return reaches_to_keep(sampler.mechanism, X, lost)
    return rule.known(votes.selection, X, target[index])["required"].reshape(len(index), -1)


def failed_part(sampler: Source, failures: dict[int, str], n_inputs: int) -> Part:
    """Return the inputs that failed, or raise a ValueError if these are all inputs."""
    index = np.array(sorted(failures), dtype=np.intp)
    named = ", ".join(f"X[{i}] ({failures[i]})" for i in index[:FEW_NAMED].tolist())
    message = f"{len(index)} of {n_inputs} inputs failed: {named}{', ...' if len(index) > FEW_NAMED else ''}"
    if len(index) == n_inputs:
        raise ValueError(message)
    warn(f"{message}. They are skipped, and count as not certified.")
    none = np.zeros((len(index), sampler.voter.n_classes), dtype=np.int64)
    hashes = np.zeros((len(index), 16), dtype=np.uint8)
    if isinstance(sampler, ExactSampler):
        votes: Votes = Shares.of(none.astype(float), none.astype(float), hashes)
    else:
        votes = Votes(selection=none, estimation=none, inputs=hashes, seed=sampler.seed)
    return Part(index=index, X=none, votes=votes, stored=True, failed=True)


def stored_part(store: Store, sampler: Source, inputs: Inputs, index: NDArray[np.intp]) -> Part:
    """Return finished inputs, after a check that they are those of the store."""
    X, votes = inputs.read(index), store.read(index)
    wrong = (fingerprints(sampler.mechanism, X) != votes.inputs).any(axis=1)
    if wrong.any():
        inputs.check_repeatable(index[wrong])
        raise StoreError(
            f"{store.path} belongs to a run on other data: X[{index[wrong][0]}] is not the input that it holds there. "
            f"Use another file."
        )
    return Part(index=index, X=X, votes=votes, stored=True)


def given_votes(votes: VoteCounts, inputs: Inputs) -> Parts:
    """Yield all inputs in parts, with votes that have been drawn before."""
    for index, X in inputs.chunks():
        yield Part(index=index, X=X, votes=drawn_before(votes[index]))


def drawn_before(votes: VoteCounts) -> Votes:
    """Return vote counts as the votes of a run."""
    seed = votes.origin.seed
    return Votes(selection=votes.selection, estimation=votes.estimation, inputs=votes.inputs, seed=seed)


def some_votes(votes: Votes, rows: Any) -> Votes:
    """Return the votes of some inputs."""
    arrays: dict[str, Any] = {name: value for name, value in vars(votes).items() if isinstance(value, np.ndarray)}
    return replace(votes, **{name: array[rows] for name, array in arrays.items()})


def in_order(results: Iterable[tuple[NDArray[np.intp], Result]]) -> Result:
    """Join the results of all parts, records or arrays, in the order of the inputs; parts without inputs are left out.

    An empty part may have labels of another type.
    """
    index, parts = zip(*(part for part in results if len(part[0])), strict=True)
    joined: Any = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0].concatenate(parts)
    found: Result = joined[np.argsort(np.concatenate(index))]
    return found
