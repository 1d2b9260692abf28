"""Threads that vote side by side, each on its own core, so that all cores are busy.

In networks of moderate size the threads of one layer spend much time waiting for each other, and most models of
scikit-learn use one core only. Here the noise of one thread is drawn while the model works in another.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import Barrier, Lock, RLock, local
from typing import Any
from weakref import WeakKeyDictionary

from threadpoolctl import ThreadpoolController

#: Largest number of threads: between the operations of a model, Python runs one of them at a time.
MOST = 8

#: How scikit-learn's warning begins where a thread finds no filters of warnings.
NO_FILTERS = "`sklearn.utils.parallel.delayed` should be used with"

_lock = Lock()

#: Remembers whether the calling thread is one of those that vote.
_thread = local()


def n_threads(n_cores: int) -> int:
    """Return how many threads share the cores."""
    return min(n_cores, MOST)


def side_by_side(
    work: Callable[[Any], Any], parts: list[Any], n_threads: int, n_cores: int, stop: Callable[[], Any] = bool
) -> list[Any]:
    """Return the results of ``work`` for each part, computed in threads that share the cores.

    If ``n_threads`` is 1, or the caller is such a thread itself, the caller does the work. Otherwise even a single part
    goes to the threads: in the caller's thread OpenMP would use all cores, and block them for milliseconds afterward.

    All threads have finished when this returns or raises. If waiting is interrupted, ``stop`` is called to end the work
    soon.
    """
    if n_threads == 1 or getattr(_thread, "votes", False):
        return [work(part) for part in parts]
    with _lock:
        pool = _pool(n_threads, max(1, n_cores // n_threads), "torch" in sys.modules)
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
    """Return threads in which OpenMP, the noise kernel and torch use ``cores_each`` cores."""
    from ..noise._cpu import limit_threads

    pool, all_there = ThreadPoolExecutor(n_threads, thread_name_prefix="smoothcert-votes"), Barrier(n_threads)

    def start(_: int) -> None:
        _controller().limit(limits=cores_each, user_api="openmp")
        if with_torch:
            import torch

            # A thread takes over the process's number when it is first asked, and keeps its own afterward.
            torch.get_num_threads()
            torch.set_num_threads(cores_each)
        limit_threads(cores_each)
        _thread.votes = True
        all_there.wait()

    with _torch_unchanged() if with_torch else nullcontext():
        list(pool.map(start, range(n_threads)))
    return pool


@contextmanager
def _torch_unchanged() -> Iterator[None]:
    """Restore the number of cores that torch uses: there is one for each thread and one for new threads."""
    import torch

    n_cores = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_cores)


@cache
def _controller() -> ThreadpoolController:
    """Return the controller of the threads of native libraries."""
    return ThreadpoolController()


class SharedContext:
    """A context that its first user enters and its last user leaves, possibly in different threads.

    Parameters
    ----------
    enter : callable
        Returns the context from the arguments of the first user.
    """

    def __init__(self, enter: Callable[..., AbstractContextManager[Any]]) -> None:
        self._enter = enter
        self.forget()

    def forget(self) -> None:
        """Forget all users: a child process has none of its parent's threads."""
        self._lock, self._n_users = Lock(), 0
        self._context: AbstractContextManager[Any] = nullcontext()

    @contextmanager
    def __call__(self, *args: Any) -> Iterator[None]:
        """Use the context."""
        with self._lock:
            if not self._n_users:
                self._context = self._enter(*args)
                self._context.__enter__()
            self._n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if not self._n_users:
                    self._context.__exit__(None, None, None)


@contextmanager
def _process_settings(n_cores: int) -> Iterator[None]:
    """Limit the cores of BLAS libraries, and keep the filters of warnings.

    Steps of scikit-learn change the filters while they run, and threads that do so at the same time lose some of them.
    A thread that finds no filters at all raises a warning without a cause, which is ignored.
    """
    with warnings.catch_warnings(), _controller().limit(limits=n_cores, user_api="blas"):
        warnings.filterwarnings("ignore", message=NO_FILTERS)
        show = warnings.showwarning

        def show_others(message: Any, *where: Any, **more: Any) -> None:
            if not str(message).startswith(NO_FILTERS):
                show(message, *where, **more)

        warnings.showwarning = show_others
        yield


#: Settings of the whole process while threads vote: the number of cores of BLAS libraries, and filters of warnings.
process_settings = SharedContext(_process_settings)


def _forget() -> None:
    """Forget threads and their users, in a child process."""
    global _lock
    _lock = Lock()
    _pool.cache_clear()
    process_settings.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class ModuleLock:
    """State that all users of one module share; see `module_lock`.

    Attributes
    ----------
    lock : RLock
        Held while the module computes, because it may keep notes in its attributes.
    evaluating : callable
        Returns a context in which the module is in evaluation mode. The last user restores the mode.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.evaluating = SharedContext(_evaluation_mode)


@contextmanager
def _evaluation_mode(module: Any) -> Iterator[None]:
    """Put a module in evaluation mode, and restore the mode of each of its parts at the end."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        check_evaluation_mode(module)
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def check_evaluation_mode(module: Any) -> None:
    """Raise a ValueError if a part of a module that shall vote is in training mode, or adds noise of its own."""
    for name, part in module.named_modules():
        where = f"The base model {type(module).__name__}" + (f", in its part {name!r}," if name else "")
        if part.training:
            raise ValueError(
                f"{where} is in training mode after eval(): its answers may be random, or depend on the rest of the "
                f"batch. Nothing was certified. Let the train method of {type(part).__name__} pass its mode on, and "
                f"make no parts in forward."
            )
        if getattr(part, "noisy_evaluation", False):
            raise ValueError(
                f"{where} adds noise in evaluation mode too, but votes are drawn on inputs that are noisy already. "
                f"Nothing was certified. Set its attribute noisy_evaluation to False."
            )


_module_locks: WeakKeyDictionary[Any, ModuleLock] = WeakKeyDictionary()


def module_lock(module: Any) -> ModuleLock:
    """Return what all users of a module share, even through different voters."""
    with _lock:
        if module not in _module_locks:
            _module_locks[module] = ModuleLock()
        return _module_locks[module]
