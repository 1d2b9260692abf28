"""Threads that vote side by side, with one core each: the noise of one overlaps with the model's work in another.

Networks of moderate size lose much time where the threads of one layer wait for each other, and most models of
scikit-learn use one core only. Here all cores are busy, and never wait for each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Barrier, Lock, RLock, local
from typing import Any
from weakref import WeakKeyDictionary

from threadpoolctl import ThreadpoolController

#: Threads at most: Python itself lets one of them run at a time between the operations of a model.
MOST = 8

_lock = Lock()

#: Whether the calling thread is one of a team.
_own = local()


def n_threads(n_cores: int) -> int:
    """Return how many threads share so many cores."""
    return min(n_cores, MOST)


def side_by_side(
    work: Callable[[Any], Any], parts: list[Any], team: int, n_cores: int, stop: Callable[[], Any] = bool
) -> list[Any]:
    """Return what ``work`` makes of each part, in threads of a team that shares the cores.

    A team of one is the caller's thread, as is one that a team's thread asks for. Others do the work even of a single
    part: in the caller's thread, OpenMP would use all cores for it, and keep them from the team for some milliseconds
    after.

    All threads have ended their work when this returns or raises. Should waiting be interrupted, ``stop`` is called to
    end it soon.
    """
    if team == 1 or getattr(_own, "is_of_team", False):
        return [work(part) for part in parts]
    with _lock:
        pool = _pool(team, max(1, n_cores // team), "torch" in sys.modules)
    futures = [pool.submit(work, part) for part in parts]
    try:
        wait(futures)
    except BaseException:
        stop()
        wait(futures)
        raise
    return [future.result() for future in futures]


@cache
def _pool(n_threads: int, cores_each: int, with_torch: bool) -> ThreadPoolExecutor:
    """Return threads in which OpenMP, the noise kernel and torch use so many cores each."""
    from ..noise._cpu import limit_threads

    pool, all_there = ThreadPoolExecutor(n_threads, thread_name_prefix="smoothcert-votes"), Barrier(n_threads)

    def start(_: int) -> None:
        _controller().limit(limits=cores_each, user_api="openmp")
        if with_torch:
            _limit_torch(cores_each)
        limit_threads(cores_each)
        _own.is_of_team = True
        all_there.wait()

    with _torch_unchanged() if with_torch else nullcontext():
        list(pool.map(start, range(n_threads)))
    return pool


def _limit_torch(n_cores: int) -> None:
    """Let torch use so many cores in this thread."""
    import torch

    # Asked first, a thread takes over the number for threads to come, once and for all.
    torch.get_num_threads()
    torch.set_num_threads(n_cores)


@contextmanager
def _torch_unchanged() -> Iterator[None]:
    """Put back how many cores torch uses: it keeps the number for each thread, and once more for threads to come."""
    import torch

    n_cores = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_cores)


@cache
def _controller() -> ThreadpoolController:
    """Return what sets the threads of native libraries."""
    return ThreadpoolController()


class BlasLimit:
    """Limit of the threads of BLAS libraries, which have one setting for the whole process."""

    def __init__(self) -> None:
        self.forget()
        self._limit: Any = None

    def forget(self) -> None:
        """Forget all users: a child process has none of its parent's threads."""
        self._lock, self._n_users = Lock(), 0

    @contextmanager
    def __call__(self, n_cores: int) -> Iterator[None]:
        """Let BLAS libraries use so many cores until its last user is done; the first decides."""
        with self._lock:
            if not self._n_users:
                self._limit = _controller().limit(limits=n_cores, user_api="blas")
            self._n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if not self._n_users:
                    self._limit.restore_original_limits()


limit_blas = BlasLimit()


def _forget() -> None:
    """Forget threads and who uses them, in a child process."""
    global _lock
    _lock = Lock()
    _pool.cache_clear()
    limit_blas.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class ModuleLock:
    """What all users of one module share; see `module_lock`.

    Attributes
    ----------
    lock : RLock
        Held while the module computes: it may keep notes in its attributes.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._door, self._n_users = Lock(), 0
        self._modes: dict[Any, bool] = {}

    @contextmanager
    def evaluating(self, module: Any) -> Iterator[None]:
        """Keep the module in evaluation mode until its last user is done; then it is left as the first found it."""
        with self._door:
            if not self._n_users:
                self._modes = {part: part.training for part in module.modules()}
            self._n_users += 1
            module.eval()
        try:
            yield
        finally:
            with self._door:
                self._n_users -= 1
                if not self._n_users:
                    for part, training in self._modes.items():
                        part.training = training
                    self._modes = {}


_turns: WeakKeyDictionary[Any, ModuleLock] = WeakKeyDictionary()


def module_lock(module: Any) -> ModuleLock:
    """Return what all users of a module share, whatever voters they use it through."""
    with _lock:
        found = _turns.get(module)
        if found is None:
            found = _turns[module] = ModuleLock()
        return found
