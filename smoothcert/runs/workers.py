"""Workers: chunks of inputs go to a worker when it has room, and votes come back in any order."""

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
from ..sampling.shares import ExactSampler
from .sharing import SharedSampler, on_dask, on_ray

logger = logging.getLogger("smoothcert")

#: Number of times in a row that workers may die before anything is finished.
PATIENCE = 5

#: Number of tasks per worker that are sent at a time: one at work, one waiting.
AHEAD = 2

#: Names of errors that say that a worker was lost, and not that a task is wrong.
LOST = {"KilledWorker", "ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"}

Read = Callable[[NDArray[np.intp]], tuple[NDArray[Any], Any]]
Results = Generator[tuple[int, Votes], None, None]
Done = tuple[NDArray[np.intp], NDArray[Any], Votes]


def draw_all(
    sampler: Sampler | ExactSampler, chunks: list[NDArray[np.intp]], read: Read, n_jobs: int | None
) -> Iterator[Done]:
    """Draw the votes of chunks of inputs on the workers of joblib's backend.

    Parameters
    ----------
    sampler : Sampler
    chunks : list of ndarray
        Positions of the inputs of each task.
    read : callable
        Returns the inputs at some positions and what the sampler's rule is asked about them. It is called when a worker
        has room for them.
    n_jobs : int or None
        Number of workers.

    Yields
    ------
    positions, inputs, votes
        In the order in which chunks are finished. Only the inputs of unfinished tasks are held in memory.

    Raises
    ------
    RuntimeError
        If workers keep dying. The death of one costs its unfinished chunks, which are drawn again.
    """
    missing, failures = dict(enumerate(chunks)), 0
    with SharedSampler(sampler) as shared, _backend(shared, n_jobs) as results_of:
        while missing:
            tasks, before = _Tasks(missing, read), len(missing)
            try:
                yield from tasks.finished(results_of(tasks))
            except Exception as error:
                failures = failures + 1 if len(missing) == before else 1
                _check_lost(error, failures, tasks)


def _check_lost(error: Exception, failures: int, tasks: _Tasks) -> None:
    """Raise an error again unless it says that a worker was lost, and not too often in a row."""
    kind = type(error).__name__
    if not isinstance(error, BrokenProcessPool) and kind not in LOST:
        raise error
    if failures > PATIENCE:
        raise RuntimeError(
            f"Workers died {failures} times in a row, the last time while one of the inputs {tasks.positions()} was "
            f"drawn ({kind}). They may have too little memory: use fewer workers (n_jobs) or a smaller batch_size."
        ) from error
    logger.warning("A worker died (%s); its inputs are drawn again.", kind)


class _Tasks:
    """Tasks that are read when they are asked for, and remembered until their votes arrive.

    Backends ask for tasks in threads of their own, where an error would be lost. So an error of reading ends the tasks
    and is raised by `finished`.
    """

    def __init__(self, missing: dict[int, NDArray[np.intp]], read: Read) -> None:
        self.missing = missing
        self.read = read
        self.unfinished: dict[int, NDArray[Any]] = {}
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any], Any]]:
        for number, index in list(self.missing.items()):
            try:
                X, target = self.read(index)
            except Exception as error:
                self.error = error
                return
            self.unfinished[number] = X
            yield number, X, target

    def finished(self, results: Results) -> Iterator[Done]:
        """Yield positions, inputs and votes of finished tasks, which are then no longer missing."""
        with closing(results):
            for number, votes in results:
                yield self.missing.pop(number), self.unfinished.pop(number), votes
        if self.error is not None:
            raise self.error

    def positions(self) -> str:
        """Return the positions of the inputs of unfinished tasks as text."""
        return ", ".join(f"{self.missing[number][0]}-{self.missing[number][-1]}" for number in sorted(self.unfinished))


@contextmanager
def _backend(shared: SharedSampler, n_jobs: int | None) -> Iterator[Callable[[_Tasks], Results]]:
    """Share the sampler with the workers of joblib's active backend, and yield what runs tasks there.

    Inside a task of dask, as in a cross-validation on the cluster, the tasks run in its own thread: the cluster is busy
    already, and a task that waits for others of the same cluster may wait forever.
    """
    backend, limit = get_active_backend()
    client = getattr(backend, "client", None)
    if client is not None and _is_dask_task():
        yield lambda tasks: (work(shared, task) for task in tasks)
    elif client is not None:
        with on_dask(shared, client):
            yield lambda tasks: _by_dask(shared, tasks, client)
    elif type(backend).__name__ == "RayBackend":
        with on_ray(shared):
            workers = backend.effective_n_jobs(limit if n_jobs is None else n_jobs)
            yield lambda tasks: _by_ray(shared, tasks, workers)
    else:
        yield lambda tasks: _by_joblib(shared, tasks, n_jobs)


def _is_dask_task() -> bool:
    """Tell whether the caller is a task of a dask cluster."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _by_joblib(shared: SharedSampler, tasks: _Tasks, n_jobs: int | None) -> Results:
    """Run tasks on joblib's backend: loky, threads."""
    parallel = Parallel(
        n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=f"{AHEAD}*n_jobs", max_nbytes=None
    )
    return cast(Results, parallel(delayed(work)(shared, task) for task in tasks))


def _by_dask(shared: SharedSampler, tasks: _Tasks, client: Any) -> Results:
    """Run tasks on a dask cluster, which repeats those of a lost worker by itself.

    joblib is not used here: it reads tasks in the thread that talks to the scheduler, where a dask array would wait for
    itself.
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
    """Run tasks on a ray cluster, which repeats those of a lost worker.

    joblib is not used here: its ray backend does not support generators.
    """
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
