"""Workers: chunks of inputs go to a worker when it has room, and votes come back in any order."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from numpy.typing import NDArray

from .._utils.warn import warn
from ..sampling.exact_sampler import Source
from ..sampling.sampler import Votes
from .sharing import SharedSampler, on_dask, on_ray
from .signals import ends_on_termination

logger = logging.getLogger("smoothcert")

#: Number of times in a row that workers may die before anything is finished.
PATIENCE = 5

#: The same where inputs may be skipped: finding an input that kills its worker takes some deaths.
PATIENCE_TO_SKIP = 40

#: Number of tasks per worker that are sent at a time: one at work, one waiting.
AHEAD = 2

#: Names of errors that say that a worker was lost, and not that a task is wrong.
LOST = {"KilledWorker", "ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"}

#: The number of seconds between looks at a cluster.
TICK = 1.0

#: The number of seconds without workers after which a warning appears.
WARN = 30.0

#: The number of seconds without workers after which a run ends, and the environment variable that changes it.
LIMIT, LIMIT_NAME = 3600.0, "SMOOTHCERT_WORKER_TIMEOUT"

#: The number of times that a single input may kill a worker of its own before it is taken to be the cause.
DEATHS = 2

Read = Callable[[NDArray[np.intp]], tuple[NDArray[Any], Any]]
Task = tuple[int, NDArray[np.intp], Any, Any]
Results = Generator[tuple[int, Any], None, None]
Done = tuple[NDArray[np.intp], Any, Any]


def draw_all(
    sampler: Source, chunks: list[NDArray[np.intp]], read: Read, n_jobs: int | None, *, skip: bool = False
) -> Iterator[Done]:
    """Draw the votes of chunks of inputs on the workers of joblib's backend.

    Parameters
    ----------
    sampler : Sampler
    chunks : list of ndarray
        The positions of the inputs of each task.
    read : callable
        Returns the inputs at some positions and what the sampler's rule is asked about them. It is called when a worker
        has room for them.
    n_jobs : int or None
        The number of workers.
    skip : bool, default=False
        Whether an input that fails is skipped: it cannot be read, the base model raises an error, or it kills its
        worker. A task that fails is split in halves until the input is found.

    Yields
    ------
    positions, inputs, votes
        In the order in which chunks are finished. Only the inputs of unfinished tasks are held in memory. For an input
        that is skipped, the reason as a string takes the place of the votes.

    Raises
    ------
    RuntimeError
        If workers keep dying. The death of one costs its unfinished chunks, which are drawn again.
    """
    tasks = _Tasks(chunks, read, skip)
    with ends_on_termination(), SharedSampler(sampler) as shared, _backend(shared, n_jobs) as results_of:
        while tasks.missing:
            try:
                yield from tasks.finished(results_of(tasks))
            except Exception as error:
                yield from tasks.lost(error)


class _Tasks:
    """Tasks that are read when they are asked for, and remembered until their votes arrive.

    Backends ask for tasks in threads of their own, where an error would be lost. So an error of reading ends the tasks
    and is raised by `finished`.
    """

    def __init__(self, chunks: list[NDArray[np.intp]], read: Read, skip: bool) -> None:
        self.missing = dict(enumerate(chunks))
        self.n_made = len(chunks)
        self.read = read
        self.skip = skip
        self.unfinished: dict[int, Any] = {}
        #: Tasks that may have killed a worker, and run alone. The first is the one that runs.
        self.suspects: list[int] = []
        self.deaths: Counter[int] = Counter()
        self.failures = 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Task]:
        self.unfinished.clear()
        self.error = None
        for number in self.suspects[:1] or list(self.missing):
            index, X = self.missing[number], None
            try:
                X, target = self.read(index)
            except Exception as error:
                if not self.skip:
                    self.error = error
                    return
                target = reason(error).removeprefix(f"X[{index[0]}]: ")
            self.unfinished[number] = X
            yield number, index, X, target

    def finished(self, results: Results) -> Iterator[Done]:
        """Yield positions, inputs and votes of finished tasks, which are then no longer missing."""
        with closing(results):
            for number, votes in results:
                self.failures = 0
                index, X = self.missing.pop(number), self.unfinished.pop(number)
                self.suspects = [suspect for suspect in self.suspects if suspect != number]
                if isinstance(votes, str) and len(index) > 1:
                    self._split(index)
                else:
                    yield index, X, votes
        if self.error is not None:
            raise self.error

    def _split(self, index: NDArray[np.intp]) -> list[int]:
        """Make two tasks of one, and return their numbers."""
        numbers = [self.n_made, self.n_made + 1]
        self.missing |= zip(numbers, np.array_split(index, 2), strict=True)
        self.n_made += 2
        return numbers

    def lost(self, error: Exception) -> Iterator[Done]:
        """Raise an error again unless it says that a worker was lost, and not too often in a row.

        Where inputs may be skipped, yield the one that kills every worker, once it is found.
        """
        kind = type(error).__name__
        if not isinstance(error, BrokenProcessPool) and kind not in LOST:
            raise error
        self.failures += 1
        if self.failures > (PATIENCE_TO_SKIP if self.skip else PATIENCE):
            raise RuntimeError(
                f"Workers died {self.failures} times in a row, the last time while one of the inputs "
                f"{self._positions()} was drawn ({kind}). They may have too little memory: use fewer workers (n_jobs) "
                f'or a smaller batch_size. With on_error="skip", an input that kills its worker is skipped.'
            ) from error
        logger.warning("A worker died (%s); its inputs are drawn again.", kind)
        if self.skip:
            yield from self._suspect(kind)

    def _suspect(self, kind: str) -> Iterator[Done]:
        """Let the tasks that may have killed a worker run alone, and split the one that does so again."""
        if not self.suspects:
            self.suspects = sorted(self.unfinished)
            return
        number = self.suspects[0]
        index = self.missing[number]
        self.deaths[number] += 1
        if len(index) > 1:
            del self.missing[number]
            self.suspects[:1] = self._split(index)
        elif self.deaths[number] == DEATHS:
            del self.missing[number], self.suspects[0]
            yield index, None, f"it killed its worker {DEATHS} times ({kind})"

    def _positions(self) -> str:
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
        yield lambda tasks: (work(shared, task, tasks.skip) for task in tasks)
    elif client is not None:
        with on_dask(shared, client):
            yield lambda tasks: _by_dask(shared, tasks, client, backend.submit_kwargs)
    elif type(backend).__name__ == "RayBackend":
        with on_ray(shared):
            yield lambda tasks: _by_ray(shared, tasks, limit if n_jobs is None else n_jobs, backend.ray_remote_args)
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
    return cast(Results, parallel(delayed(work)(shared, task, tasks.skip) for task in tasks))


def _by_dask(shared: SharedSampler, tasks: _Tasks, client: Any, options: dict[str, Any]) -> Results:
    """Run tasks on a dask cluster, which repeats those of a lost worker by itself.

    joblib would read tasks in the thread that talks to the scheduler, where a dask array would wait for itself.
    ``options`` are those of ``client.submit``, such as ``resources``.
    """
    from distributed import wait

    needs = options.get("resources") or {}

    def slots() -> int:
        if not needs:
            return sum(client.ncores().values())
        workers = client.scheduler_info()["workers"].values()
        return sum(min(worker["nthreads"], n_at_once(needs, worker["resources"])) for worker in workers)

    def finished(out: list[Any]) -> tuple[list[Any], list[Any]]:
        try:
            done, not_done = wait(out, timeout=TICK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return [], out
        return list(done), list(not_done)

    def submit(task: Task) -> Any:
        return client.submit(work, shared, task, tasks.skip, **{"pure": False} | options)

    out: list[Any] = []
    try:
        for future in _under_way(tasks, out, slots=slots, submit=submit, finished=finished):
            yield future.result()
            future.release()
    finally:
        client.cancel(out)


def _by_ray(shared: SharedSampler, tasks: _Tasks, n_jobs: int | None, options: dict[str, Any] | None) -> Results:
    """Run tasks on a ray cluster, which repeats those of a lost worker.

    joblib's ray backend does not support generators. ``options`` are those of ``ray.remote``, such as ``num_gpus``.
    """
    import ray

    # A worker is kept for further tasks, also on a GPU.
    options = {"num_cpus": 1, "max_calls": 0} | (options or {})
    needs = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0)} | options.get("resources", {})
    remote = ray.remote(**options)(work)
    finished = partial(ray.wait, num_returns=1, timeout=TICK)

    def slots() -> int:
        return n_jobs if n_jobs is not None and n_jobs > 0 else n_at_once(needs, ray.cluster_resources())

    def submit(task: Task) -> Any:
        return remote.remote(shared, task, tasks.skip)

    out: list[Any] = []
    try:
        for task in _under_way(tasks, out, slots=slots, submit=submit, finished=finished):
            yield ray.get(task)
    finally:
        for task in out:
            ray.cancel(task)


def n_at_once(needs: dict[str, float], there: dict[str, float]) -> int:
    """Return how many tasks with some needs of resources can run at once.

    Examples
    --------
    >>> n_at_once({"CPU": 1, "GPU": 0.5}, {"CPU": 16, "GPU": 2})
    4
    """
    return min(int(there.get(name, 0) / need) for name, need in needs.items() if need)


def _under_way(
    tasks: _Tasks,
    out: list[Any],
    *,
    slots: Callable[[], int],
    submit: Callable[[Task], Any],
    finished: Callable[[list[Any]], tuple[list[Any], list[Any]]],
) -> Iterator[Any]:
    """Keep a cluster busy while its workers come and go, and yield what is finished.

    Parameters
    ----------
    tasks : _Tasks
    out : list
        The futures of tasks that are under way, which this function updates.
    slots : callable
        Returns how many tasks the cluster can work on now. It is asked about once per second.
    submit : callable
        Sends a task, and returns its future.
    finished : callable
        Waits up to a second, and returns the futures that are finished and those that are not.
    """
    waiting, is_more, n_slots, asked, watch = iter(tasks), True, 0, -TICK, _Watch()
    while is_more or out:
        if time.monotonic() - asked >= TICK:
            n_slots, asked = slots(), time.monotonic()
            watch.check(n_slots)
        while is_more and len(out) < AHEAD * n_slots:
            task = next(waiting, None)
            is_more = task is not None
            if task is not None:
                out.append(submit(task))
        if out:
            done, out[:] = finished(out)
            yield from done
        elif is_more:
            time.sleep(TICK)


class _Watch:
    """Warns where a cluster has no workers for some time, and gives up after a longer time."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.warned = False
        self.limit = float(os.environ.get(LIMIT_NAME, LIMIT))

    def check(self, n_slots: int) -> None:
        """Take note of the number of tasks that the cluster can work on now."""
        now = time.monotonic()
        self.since = None if n_slots else self.since or now
        if self.since is None:
            self.warned = False
            return
        seconds = now - self.since
        if seconds >= self.limit:
            raise RuntimeError(
                f"The cluster has had no workers for {seconds:.0f} seconds. What was finished is kept in the store. "
                f"Start workers and run again, or set {LIMIT_NAME} to wait for more than {self.limit:g} seconds."
            )
        if seconds >= WARN and not self.warned:
            self.warned = True
            warn(f"The cluster has no workers. The run waits for them, {self.limit:g} seconds in all ({LIMIT_NAME}).")


def work(shared: SharedSampler, task: Task, skip: bool) -> tuple[int, Votes | str]:
    """Do one task in a worker. Where errors are skipped, return the reason of one in place of the votes."""
    number, index, X, target = task
    if X is None:
        return number, str(target)
    sampler = shared.open()
    try:
        return number, sampler.draw(X, target)
    except Exception as error:
        if skip:
            return number, reason(error)
        error.add_note(f"This happened while the votes of X[{index[0]}:{index[-1] + 1}] were drawn.")
        raise


def reason(error: Exception) -> str:
    """Describe an error on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
