"""Tasks for many workers: chunks of inputs go out when a worker has room, votes come back in any order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, cast

import numpy as np
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from numpy.typing import NDArray

from ..sampling.sampler import Sampler, Votes
from .sharing import SharedSampler, on_dask, on_ray

logger = logging.getLogger("smoothcert")

#: How often in a row workers may die without anything having been finished in between.
PATIENCE = 5

#: Tasks per worker that are out at a time: one at work, one waiting.
AHEAD = 2

#: Errors, by name, that say that a worker was lost and not that a task is wrong.
LOST = {"KilledWorker", "ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"}

Read = Callable[[NDArray[np.intp]], tuple[NDArray[Any], Any]]
Results = Generator[tuple[int, Votes], None, None]
Done = tuple[NDArray[np.intp], NDArray[Any], Votes]


def draw_all(sampler: Sampler, chunks: list[NDArray[np.intp]], read: Read, n_jobs: int | None) -> Iterator[Done]:
    """Draw the votes of chunks of inputs on the workers of joblib's backend.

    Parameters
    ----------
    sampler : Sampler
    chunks : list of ndarray
        Positions of the inputs of each task.
    read : callable
        Returns the inputs at some positions and what the sampler's rule is asked about them; called when their turn
        comes.
    n_jobs : int or None
        Workers.

    Yields
    ------
    positions, inputs, votes
        As chunks are finished. Only those that are out with workers are held in memory.

    Raises
    ------
    RuntimeError
        If workers keep dying: a worker's death costs the chunks that were out, which are drawn again.
    """
    missing, failures = dict(enumerate(chunks)), 0
    with SharedSampler(sampler) as shared, _backend(shared, n_jobs) as results_of:
        while missing:
            tasks = _Tasks(missing, read)
            results = results_of(tasks)
            try:
                with closing(results):
                    for number, votes in results:
                        index = missing.pop(number)
                        failures = 0
                        yield index, tasks.out.pop(number), votes
                if tasks.error is not None:
                    raise tasks.error
            except Exception as error:
                if not isinstance(error, BrokenProcessPool) and type(error).__name__ not in LOST:
                    raise
                failures += 1
                if failures > PATIENCE:
                    raise RuntimeError(
                        f"Workers died {failures} times in a row, at last over one of the inputs "
                        f"{_positions(tasks.out, missing)} ({type(error).__name__}). They may have too little "
                        f"memory: use fewer workers (n_jobs) or a smaller batch_size."
                    ) from error
                logger.warning("A worker died (%s); its inputs are drawn again.", type(error).__name__)


class _Tasks:
    """Tasks that are read when they are asked for, and remembered until their votes are there.

    Backends ask for them in threads of their own, in which an error would be lost: it ends the tasks, and is kept.
    """

    def __init__(self, missing: dict[int, NDArray[np.intp]], read: Read) -> None:
        self.missing = list(missing.items())
        self.read = read
        self.out: dict[int, NDArray[Any]] = {}
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any], Any]]:
        for number, index in self.missing:
            try:
                X, target = self.read(index)
            except Exception as error:
                self.error = error
                return
            self.out[number] = X
            yield number, X, target


def _positions(out: dict[int, NDArray[Any]], missing: dict[int, NDArray[np.intp]]) -> str:
    return ", ".join(f"{missing[number][0]}-{missing[number][-1]}" for number in sorted(out))


@contextmanager
def _backend(shared: SharedSampler, n_jobs: int | None) -> Iterator[Callable[[_Tasks], Results]]:
    """Deliver the shared to the workers of joblib's active backend, and yield what runs tasks there."""
    backend, limit = get_active_backend()
    client = getattr(backend, "client", None)
    if client is not None:
        with on_dask(shared, client):
            yield lambda tasks: _by_dask(shared, tasks, client)
    elif type(backend).__name__ == "RayBackend":
        with on_ray(shared):
            workers = backend.effective_n_jobs(limit if n_jobs is None else n_jobs)
            yield lambda tasks: _by_ray(shared, tasks, workers)
    else:
        yield lambda tasks: _by_joblib(shared, tasks, n_jobs)


def _by_joblib(shared: SharedSampler, tasks: _Tasks, n_jobs: int | None) -> Results:
    """Run tasks on joblib's backend: loky, threads."""
    parallel = Parallel(
        n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=f"{AHEAD}*n_jobs", max_nbytes=None
    )
    return cast(Results, parallel(delayed(work)(shared, task) for task in tasks))


def _by_dask(shared: SharedSampler, tasks: _Tasks, client: Any) -> Results:
    """Run tasks on a dask cluster, which repeats those of a lost worker by itself.

    Not through joblib, which reads tasks in the thread that talks to the scheduler: a dask array among them would wait
    for itself.
    """
    from distributed import as_completed

    results = as_completed()
    waiting = iter(tasks)

    def send(n: int) -> int:
        """Send up to ``n`` tasks, and return how many there were."""
        sent = [client.submit(work, shared, task, pure=False) for task in islice(waiting, n)]
        results.update(sent)
        return len(sent)

    try:
        out = send(AHEAD * max(1, sum(client.ncores().values())))
        while out:
            done = next(results)
            yield done.result()
            done.release()
            out += send(1) - 1
    finally:
        for future in list(results.futures):
            future.cancel()


def _by_ray(shared: SharedSampler, tasks: _Tasks, n_workers: int) -> Results:
    """Run tasks on a ray cluster, which repeats those of a lost worker; its joblib backend knows no generators."""
    import ray

    remote = ray.remote(work)
    waiting = iter(tasks)
    out = [remote.remote(shared, task) for task in islice(waiting, AHEAD * n_workers)]
    try:
        while out:
            done, out = ray.wait(out, num_returns=1)
            yield ray.get(done[0])
            out += [remote.remote(shared, task) for task in islice(waiting, 1)]
    finally:
        for task in out:
            ray.cancel(task)


def work(shared: SharedSampler, task: tuple[int, NDArray[Any], Any]) -> tuple[int, Votes]:
    """Do one task in a worker."""
    number, X, target = task
    return number, shared.open().draw(X, target)
