"""The votes of all inputs: drawn by workers, read from a store, or given; and results in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from ..certify.reach import reaches_to_keep
from ..results.records import Records
from ..results.votes import VoteCounts
from ..sampling.sampler import Sampler, Votes, fingerprints
from ..sampling.shares import ExactSampler
from .inputs import Inputs
from .store import Store, StoreError
from .workers import draw_all

Result = TypeVar("Result", bound=Records)


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
    """

    index: NDArray[np.intp]
    X: NDArray[Any]
    votes: Votes
    stored: bool = False


def sample_votes(
    sampler: Sampler | ExactSampler,
    inputs: Inputs,
    n_jobs: int | None,
    *,
    store: Store | None = None,
    y: NDArray[Any] | None = None,
    target: NDArray[Any] | None = None,
) -> Iterator[Part]:
    """Yield the votes of all inputs, in parts: those in the store first, the others as workers finish them.

    Parameters
    ----------
    sampler : Sampler
    inputs : Inputs
    n_jobs : int or None
    store : Store, optional
        Inputs that are finished in it are not drawn again, and others are written to it.
    y : ndarray of shape (n_inputs,), optional
        True labels, for the store.
    target : ndarray of shape (n_inputs,), optional
        What the sampler's rule is asked about each input.
    """
    n = len(inputs)
    chunks = [np.arange(chunk.start, chunk.stop) for chunk in gen_batches(n, sampler.chunk_size(n))]
    if store is not None:
        finished = np.zeros(n, dtype=bool)
        finished[store.finished()] = True
        for chunk in chunks:
            if finished[chunk].any():
                yield stored_part(store, sampler, inputs, chunk[finished[chunk]])
        chunks = [chunk[~finished[chunk]] for chunk in chunks if not finished[chunk].all()]

    def read(index: NDArray[np.intp]) -> tuple[NDArray[Any], Any]:
        return inputs.read(index), None if target is None else target[index]

    for index, X, votes in draw_all(sampler, chunks, read, n_jobs):
        if store is not None:
            reaches = reaches_to_keep(sampler.mechanism, X, sampler.n_samples)
            store.append(index, votes, reaches, None if y is None else y[index].tolist())
        yield Part(index=index, X=X, votes=votes)


def stored_part(store: Store, sampler: Sampler | ExactSampler, inputs: Inputs, index: NDArray[np.intp]) -> Part:
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


def given_votes(votes: VoteCounts, inputs: Inputs) -> Iterator[Part]:
    """Yield all inputs in parts, with votes that have been drawn before."""
    for index, X in inputs.chunks():
        yield Part(index=index, X=X, votes=drawn_before(votes[index]))


def drawn_before(votes: VoteCounts) -> Votes:
    """Return vote counts as the votes of a run."""
    seed = votes.origin.seed
    return Votes(selection=votes.selection, estimation=votes.estimation, inputs=votes.inputs, seed=seed)


def in_order(results: Iterable[tuple[NDArray[np.intp], Result]]) -> Result:
    """Join the results of all parts in the order of the inputs."""
    index, parts = zip(*results, strict=True)
    order = np.argsort(np.concatenate(index))
    arrays = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in parts[0]._arrays()}
    return replace(parts[0], **arrays)
