"""Threads that vote side by side, with one core each: the noise of one overlaps with the forward pass of another.

Networks of moderate size lose much time where the threads of one layer wait for each other. Here they never do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier, Lock
from typing import Any

#: Threads at most: Python itself lets one of them run at a time between the operations of a model.
MOST = 8

_lock = Lock()


def n_workers() -> int:
    """Return how many threads share the cores that torch may use."""
    import torch

    return min(torch.get_num_threads(), MOST)


def side_by_side(work: Callable[[Any], Any], parts: list[Any], stop: Callable[[], Any] = bool) -> list[Any]:
    """Return what ``work`` makes of each part, in threads of their own where there are several.

    All of them have ended when this returns or raises. Should waiting be interrupted, ``stop`` is called to end them
    soon.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    import torch

    with _lock:
        pool = _pool(len(parts), max(1, torch.get_num_threads() // len(parts)))
    futures = [pool.submit(work, part) for part in parts]
    try:
        wait(futures)
    except BaseException:
        stop()
        wait(futures)
        raise
    return [future.result() for future in futures]


@cache
def _pool(n_threads: int, cores_each: int) -> ThreadPoolExecutor:
    """Return threads in which torch and the noise kernel use so many cores each.

    Torch keeps the number for each thread, and once more for threads to come: that one is put back.
    """
    import torch

    from .kernel import limit_threads

    n_cores = torch.get_num_threads()
    pool, all_there = ThreadPoolExecutor(n_threads, thread_name_prefix="smoothcert-votes"), Barrier(n_threads)

    def start(_: int) -> None:
        # Asked first, a thread takes over the number for threads to come, once and for all.
        torch.get_num_threads()
        torch.set_num_threads(cores_each)
        limit_threads(cores_each)
        all_there.wait()

    try:
        list(pool.map(start, range(n_threads)))
    finally:
        torch.set_num_threads(n_cores)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
