"""The noise kernel for CPUs: it draws random numbers and makes noisy values of them in one pass over the batch.

The tests compare its results with an implementation in NumPy, to the last bit.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Any

import numpy as np
from numba import config
from numba import uint64 as u64
from numpy.typing import NDArray

from .._utils.compiled import njit
from ._cpu_numbers import GUIDE_BITS, apply_offsets, draw_offsets, fill_words, laplacians, normals, steps
from ._philox import GROUP, LAPLACE, NORMAL, OffsetRecipe, Recipe, offset_bits

#: Number of values in a tile, which are drawn before they are written: few enough for the cache, enough for long loops.
TILE = 4096

#: Number of values in a part, the share of a thread: enough to be worth waking one.
PART = 2**17

#: The limits of `limit_threads`, for each thread.
_limits = local()


def limit_threads(n_threads: int) -> None:
    """Set the number of threads that draw noise for the calling thread; the default is numba's number of threads.

    Numba's own setting does not serve here: reading it starts numba's threads, which changes torch's.
    """
    _limits.n_threads = n_threads


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Return the threads that share the work. Numba's own threads spin while they wait and slow the base model down."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="smoothcert")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def sample(
    recipe: Recipe,
    points: NDArray[Any],
    keys: NDArray[np.uint32],
    segments: NDArray[np.int64],
    out: NDArray[np.floating],
    part: int = PART,
) -> None:
    """Write keyed samples.

    Parameters
    ----------
    recipe : OffsetRecipe or SumRecipe
    points, keys, segments
        See `Noise.sample`.
    out : ndarray of shape (n_rows, n_features)
    part : int
        Number of values that a thread draws at a time; it affects speed only.
    """
    if out.dtype not in (np.float32, np.float64) or not out.flags.c_contiguous:
        drawn = np.empty(out.shape)
        sample(recipe, points, keys, segments, drawn, part)
        out[...] = drawn
        return
    if isinstance(recipe, OffsetRecipe):
        points = points.astype(np.uint32, copy=False)
        # Offsets are drawn from words of the type of their limit.
        limit = np.array([recipe.n_offsets], dtype=f"uint{offset_bits(recipe.n_offsets)}")
        offset_noise, sum_noise = (recipe.kind, limit, recipe.q), None
    else:
        points = points.astype(np.float64, copy=False)
        buckets = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
        guide = np.append(np.searchsorted(recipe.thresholds, buckets, side="right"), len(recipe.thresholds))
        offset_noise, sum_noise = (0, np.zeros(1, dtype=np.uint32), 1), (*recipe, guide)
    batch = points, keys, segments, segments[:, 2].cumsum() * points.shape[1]
    _share((batch, offset_noise, sum_noise, out.reshape(-1)), out.size, part)


def _share(arguments: Any, size: int, part: int) -> None:
    """Share the parts of a batch among threads."""
    write: Any = _write_part
    most: int = getattr(_limits, "n_threads", None) or config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if most == 1 or size <= part:
        write(*arguments, 0, size)
        return
    # A free thread takes the next part: some threads may share their core, with those of the model for example.
    for _ in _pool(most).map(lambda start: write(*arguments, start, min(start + part, size)), range(0, size, part)):
        pass


@njit(nogil=True, cache=True)
def _write_part(batch: Any, offset_noise: Any, sum_noise: Any, out: Any, start: Any, stop: Any) -> None:
    """Write the values ``start`` to ``stop`` of the batch, tile by tile.

    Noise is offset noise if ``sum_noise`` is None. The type of the argument decides, so only one branch is compiled.
    """
    points, keys, segments, ends = batch
    d = points.shape[1]
    # Repeated, so that a tile may start at any feature and cross rows.
    point = np.empty(d + TILE, dtype=points.dtype)
    scratch = _scratch(offset_noise[1])
    segment, owner, n_repeated = np.searchsorted(ends, start, side="right"), -1, 0
    while start < stop:
        end = min(stop, ends[segment])
        value = (segments[segment, 1] + segments[segment, 2]) * d - (ends[segment] - start)
        if segments[segment, 0] != owner:
            owner, n_repeated = segments[segment, 0], 0
        needed = min(d + TILE, value % d + end - start)
        _repeat(points[owner], point, n_repeated, needed)
        n_repeated = max(n_repeated, needed)
        for at in range(start, end, TILE):
            tile, phase = out[at : min(at + TILE, end)], value % d
            x = point[phase : phase + tile.size]
            if sum_noise is None:
                _write_offset_noise(x, keys[owner], value, offset_noise, scratch, tile)
            else:
                _write_sum_noise(x, keys[owner], value, sum_noise, scratch, tile)
            value += tile.size
        start = end
        segment += 1


@njit(nogil=True, cache=True)
def _scratch(limit: Any) -> Any:
    """Return the working memory of a part."""
    most = TILE + 2 * GROUP * 4 // limit.itemsize
    return (
        np.empty(most, dtype=limit.dtype),
        np.empty(most, dtype=np.uint8),
        np.empty(most + 1, dtype=np.uint64),
        np.empty(most, dtype=np.uint64),
    )


@njit(nogil=True, cache=True)
def _write_offset_noise(x: Any, key: Any, value: Any, noise: Any, scratch: Any, out: Any) -> None:
    """Write the values from number ``value`` on, for an `OffsetRecipe`."""
    kind, limit, q = noise
    drawn, in_group = scratch[0], GROUP * 4 // limit.itemsize
    skipped = value % in_group
    draw_offsets(key, u64(value // in_group), (skipped + out.size + in_group - 1) // in_group, u64(limit[0]), scratch)
    apply_offsets(kind, x, drawn[skipped : skipped + out.size], u64(limit[0]), q, out)


@njit(nogil=True, cache=True)
def _write_sum_noise(x: Any, key: Any, value: Any, noise: Any, scratch: Any, out: Any) -> None:
    """Write the values from number ``value`` on, for a `SumRecipe`."""
    kind, size, step, thresholds, guide = noise
    words, numbers = scratch[0], scratch[-1].view(np.float64)
    group, skipped = u64(value // GROUP), value % GROUP
    n_groups = (skipped + out.size + GROUP - 1) // GROUP
    fill_words(key, group, n_groups, words)
    if kind == NORMAL:
        normals(words, numbers, n_groups)
    elif kind == LAPLACE:
        laplacians(words, numbers, n_groups)
    else:
        steps(key, group, words, numbers, skipped, skipped + out.size, thresholds, guide)
    numbers = numbers[skipped:]
    for i in range(out.size):
        out[i] = (x[i] + size * numbers[i]) * step


@njit(nogil=True, cache=True)
def _repeat(values: Any, repeated: Any, start: Any, stop: Any) -> None:
    """Write one value for each feature, again and again, into places ``start`` to ``stop``."""
    for first in range(start - start % values.size, stop, values.size):
        row = repeated[first : min(stop, first + values.size)]
        for i in range(row.size):
            row[i] = values[i]
