"""A run: all inputs go through workers, a store and a progress bar, and their results are put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from ..certify.algorithm import Procedure
from ..certify.radius import certified_radii
from ..results.certificates import Certificates
from ..results.records import Records
from ..results.votes import VoteCounts
from ..sampling.sampler import Sampler, Votes, fingerprints
from .inputs import Inputs
from .progress import Progress
from .recertify import largest_reaches, n_reaches
from .store import Store, StoreError
from .workers import draw_all

Record = TypeVar("Record", bound=Records)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Votes for all inputs.

    Parameters
    ----------
    sampler : Sampler
    inputs : Inputs
    n_jobs : int or None
    verbose : int
    task : str
        What is done, for the progress bar and the log.
    store : Store, optional
        Inputs that are finished in it are not drawn again, and others are written to it.
    y : ndarray of shape (n_inputs,), optional
        True labels, to show certified accuracy.
    target : ndarray of shape (n_inputs,), optional
        What the sampler's rule is asked about each input.
    """

    sampler: Sampler
    inputs: Inputs
    n_jobs: int | None
    verbose: int
    task: str
    store: Store | None = None
    y: NDArray[Any] | None = None
    target: NDArray[Any] | None = None

    def collect(self, results: Callable[[Part], Record]) -> Record:
        """Return what ``results`` makes of all parts, in the order of the inputs."""
        found = []
        with Progress(len(self.inputs), self.task, self.verbose) as progress:
            for part in self.parts():
                result = results(part)
                found.append((part.index, result))
                correct = None
                if self.y is not None and isinstance(result, Certificates):
                    correct = np.where(result.labels == self.y[part.index], result.radii, np.nan)
                progress.update(len(part.index), part.votes.n_votes, stored=part.stored, correct_radii=correct)
        return in_order(found)

    def parts(self) -> Iterator[Part]:
        """Yield all inputs in parts: those in the store first, others as they are finished."""
        n = len(self.inputs)
        chunks = [np.arange(part.start, part.stop) for part in gen_batches(n, self.sampler.chunk_size(n))]
        if self.store is None:
            yield from self._drawn(chunks)
            return
        finished = np.zeros(n, dtype=bool)
        finished[self.store.finished()] = True
        for chunk in chunks:
            if finished[chunk].any():
                yield self._stored(self.store, chunk[finished[chunk]])
        mechanism, k = self.sampler.mechanism, n_reaches(self.sampler.mechanism.noise, max(1, self.sampler.n_samples))
        for part in self._drawn([chunk[~finished[chunk]] for chunk in chunks if not finished[chunk].all()]):
            labels = None if self.y is None else self.y[part.index].tolist()
            self.store.append(part.index, part.votes, largest_reaches(mechanism, part.X, k), labels)
            yield part

    def _drawn(self, chunks: list[NDArray[np.intp]]) -> Iterator[Part]:
        def read(index: NDArray[np.intp]) -> tuple[NDArray[Any], Any]:
            return self.inputs.read(index), None if self.target is None else self.target[index]

        for index, X, votes in draw_all(self.sampler, chunks, read, self.n_jobs):
            yield Part(index=index, X=X, votes=votes)

    def _stored(self, store: Store, index: NDArray[np.intp]) -> Part:
        """Return finished inputs, after a look whether they are those of the store."""
        X, votes = self.inputs.read(index), store.read(index)
        wrong = (fingerprints(self.sampler.mechanism, X) != votes.inputs).any(axis=1)
        if wrong.any():
            raise StoreError(
                f"{store.path} belongs to a run on other data: X[{index[wrong][0]}] is not the input that it holds "
                f"there. Use another file."
            )
        return Part(index=index, X=X, votes=votes, stored=True)


def from_votes(inputs: Inputs, votes: VoteCounts) -> Iterator[Part]:
    """Yield all inputs in parts, with votes that have been drawn."""
    for index, X in inputs.chunks():
        some = votes[index]
        yield Part(
            index=index,
            X=X,
            votes=Votes(selection=some.selection, estimation=some.estimation, inputs=some.inputs, seconds=0.0),
        )


def certificates(procedure: Procedure, mechanism: Any) -> Callable[[Part], Certificates]:
    """Return what makes certificates of a part."""

    def make(part: Part) -> Certificates:
        def radii(certified: Any, p_a: Any, p_b: Any) -> Any:
            return certified_radii(procedure.strategy, mechanism, part.X[certified], p_a, p_b)

        return procedure.certify(part.votes, radii)

    return make


def in_order(found: list[tuple[NDArray[np.intp], Record]]) -> Record:
    """Return the results of all parts as one, in the order of the inputs."""
    order = np.argsort(np.concatenate([index for index, _ in found]))
    first = found[0][1]
    arrays = {name: np.concatenate([getattr(rows, name) for _, rows in found])[order] for name in first._arrays()}
    return replace(first, **arrays)  # type: ignore[type-var]
