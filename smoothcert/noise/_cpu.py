"""The noise kernel for CPUs: it draws random numbers and makes noisy values of them in one pass over the batch.

Its results equal those of `_philox.sample` to the last bit. Random words are kept in the lower halves of 64-bit
integers, and their upper halves are ignored: vector units multiply them in that form.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Any

import numpy as np
from numba import config, njit
from numba import float64 as f64
from numba import int32 as i32
from numba import uint16 as u16
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from ._philox import (
    GROUP,
    LANES,
    LAPLACE,
    MULTIPLIERS,
    NORMAL,
    ROOT_HALF,
    ROUNDS,
    UNIFORM,
    WEYL,
    OffsetRecipe,
    Recipe,
    logarithm,
    offset_bits,
    sine_cosine,
)

#: Number of values in a tile, which are drawn before they are written: few enough for the cache, enough for long loops.
TILE = 4096

#: Approximate number of values that are mapped to raw units with the same factors.
SPAN = 1024

#: Number of values in a part, the share of a thread: enough to be worth waking one.
PART = 2**17

MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLY_0, MULTIPLY_1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
WEYL_0, WEYL_1 = (np.uint64(step) for step in WEYL)
ROOT_HALF_BITS = int(np.float64(ROOT_HALF).view(np.int64))

#: The highest byte of its product with 256**k is k.
PLACES = np.uint64(0x0001020304050607)

#: Number of first bits of a word that select the range of thresholds to search.
GUIDE_BITS = 12

#: Empty scales or shifts, for values that stay in the unit box.
_NOTHING = {real: np.zeros(0, dtype=real) for real in (np.float32, np.float64)}

_logarithm, _sine_cosine = (
    njit(inline="always", error_model="numpy")(function) for function in (logarithm, sine_cosine)
)


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
    scale: NDArray[np.floating] | None = None,
    shift: NDArray[np.floating] | None = None,
    part: int = PART,
) -> None:
    """Write keyed samples, multiply each feature by ``scale`` and add ``shift``.

    Parameters
    ----------
    recipe : OffsetRecipe or SumRecipe
    points, keys, segments
        See `Noise.sample`.
    out : ndarray of float32 or float64, shape (n_rows, n_features)
        C-contiguous.
    scale, shift : ndarray of the dtype of ``out``, shape (n_features,), optional
    part : int
        Number of values that a thread draws at a time; it affects speed only.
    """
    if isinstance(recipe, OffsetRecipe):
        points = points.astype(np.uint32, copy=False)
        # Offsets are drawn from words of the type of the limit.
        limit, q = np.array([recipe.n_offsets], dtype=f"uint{offset_bits(recipe.n_offsets)}"), recipe.q
        sum_noise = None
    else:
        limit, q = np.zeros(1, dtype=np.uint32), 1
        points = points.astype(np.float64, copy=False)
        buckets = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
        guide = np.append(np.searchsorted(recipe.thresholds, buckets, side="right"), len(recipe.thresholds))
        sum_noise = (recipe.size, recipe.step, recipe.thresholds, guide)
    if scale is None:
        scale = shift = _NOTHING[out.dtype.type]
    ends = segments[:, 2].cumsum() * points.shape[1]
    arguments = (recipe.kind, points, keys, segments, ends, limit, q, sum_noise, scale, shift, out.reshape(-1))
    _share(arguments, out.size, part)


def _share(arguments: tuple[Any, ...], size: int, part: int) -> None:
    """Share the parts of a batch among threads."""
    most: int = getattr(_limits, "n_threads", None) or config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_helpers = min(most, -(-size // part)) - 1
    if n_helpers <= 0:
        _write_part(*arguments, 0, size)
        return
    starts = iter(range(0, size, part))

    def work() -> None:
        # A free thread takes the next part: some threads may share their core, with those of the model for example.
        for start in starts:
            _write_part(*arguments, start, min(start + part, size))

    helpers = [_pool(n_helpers).submit(work) for _ in range(n_helpers)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@njit(nogil=True, cache=True)
def _write_part(
    kind: Any,
    points: Any,
    keys: Any,
    segments: Any,
    ends: Any,
    limit: Any,
    q: Any,
    sum_noise: Any,
    scale: Any,
    shift: Any,
    out: Any,
    start: Any,
    stop: Any,
) -> None:
    """Write the values ``start`` to ``stop`` of the batch, tile by tile.

    Without ``sum_noise``, it is offset noise. The type of an argument decides, so only one branch is compiled.
    """
    d = points.shape[1]
    # Repeated, so that a tile may start at any feature and cross rows.
    point = np.empty(d + TILE, dtype=points.dtype)
    scales, shifts = np.empty(d + TILE, dtype=out.dtype), np.empty(d + TILE, dtype=out.dtype)
    if scale.size:
        _repeat(scale, scales, 0, d + TILE)
        _repeat(shift, shifts, 0, d + TILE)
    scratch = _scratch(limit)
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
                _write_offset_noise(kind, x, keys[owner], value, limit, q, scratch, tile)
            else:
                _write_sum_noise(kind, x, keys[owner], value, sum_noise, scratch, tile)
            if scale.size:
                _to_raw(tile, scales[phase : phase + tile.size], shifts[phase : phase + tile.size], d)
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
        np.empty(most // 8 + 1, dtype=np.int64),
        np.empty(most + 1, dtype=np.uint64),
        np.empty(most, dtype=np.uint64),
    )


@njit(nogil=True, cache=True)
def _write_offset_noise(kind: Any, x: Any, key: Any, value: Any, limit: Any, q: Any, scratch: Any, out: Any) -> None:
    """Write the values from number ``value`` on, for an `OffsetRecipe`."""
    drawn, in_group = scratch[0], GROUP * 4 // limit.itemsize
    skipped = value % in_group
    _draw(key, u64(value // in_group), (skipped + out.size + in_group - 1) // in_group, u64(limit[0]), scratch)
    _apply_offsets(kind, x, drawn[skipped : skipped + out.size], u64(limit[0]), q, out)


@njit(nogil=True, cache=True)
def _write_sum_noise(kind: Any, x: Any, key: Any, value: Any, noise: Any, scratch: Any, out: Any) -> None:
    """Write the values from number ``value`` on, for a `SumRecipe`."""
    size, step, thresholds, guide = noise
    words, numbers = scratch[0], scratch[-1].view(np.float64)
    group, skipped = u64(value // GROUP), value % GROUP
    n_groups = (skipped + out.size + GROUP - 1) // GROUP
    _fill_words(key, group, n_groups, words)
    if kind == NORMAL:
        _normals(words, numbers, n_groups)
    elif kind == LAPLACE:
        _laplacians(words, numbers, n_groups)
    else:
        _steps(key, group, words, numbers, skipped, skipped + out.size, thresholds, guide)
    _add(x, numbers[skipped : skipped + out.size], size, step, out)


@njit(nogil=True, cache=True)
def _add(point: Any, numbers: Any, size: Any, step: Any, out: Any) -> None:
    """Add numbers to a point."""
    for i in range(out.size):
        out[i] = (point[i] + size * numbers[i]) * step


@njit(nogil=True, cache=True)
def _fill_words(key: Any, group: Any, n_groups: Any, words: Any) -> None:
    """Draw the words of some groups of values."""
    k0, k1, tag = u64(key[0]), u64(key[1]), u64(key[2])
    for g in range(n_groups):
        first = (group + u64(g)) * u64(LANES)
        high = first >> HALF
        at = g * GROUP
        for lane in range(LANES):
            w0, w1, w2, w3 = _philox(first + u64(lane), high, u64(0), tag, k0, k1)
            words[at + lane] = u32(w0)
            words[at + LANES + lane] = u32(w1)
            words[at + 2 * LANES + lane] = u32(w2)
            words[at + 3 * LANES + lane] = u32(w3)


@njit(nogil=True, cache=True, error_model="numpy")
def _normals(words: Any, numbers: Any, n_groups: Any) -> None:
    """Turn pairs of words into pairs of normal numbers; see `_philox.normals`."""
    bits = numbers.view(np.int64)
    for pair in range(2 * n_groups):
        at = pair * 2 * LANES
        for i in range(at, at + LANES):
            numbers[i] = (f64(words[i]) + 0.5) * 2.0**-32
        for i in range(at, at + LANES):
            exponent = (bits[i] - ROOT_HALF_BITS) >> 52
            bits[i] -= exponent << 52
            numbers[i + LANES] = f64(exponent)
        for i in range(at, at + LANES):
            angle = words[i + LANES]
            radius = math.sqrt(-2.0 * _logarithm(numbers[i], numbers[i + LANES]))
            sine, cosine = _sine_cosine((f64(angle & u32(2**30 - 1)) + 0.5) * 2.0**-30 - 0.5)
            quarter = angle >> u32(30)
            first = sine if quarter & u32(1) else cosine
            second = cosine if quarter & u32(1) else sine
            numbers[i] = radius * (-first if quarter & u32(2) else first)
            numbers[i + LANES] = radius * (-second if (quarter + u32(2)) & u32(2) else second)


@njit(nogil=True, cache=True, error_model="numpy")
def _laplacians(words: Any, numbers: Any, n_groups: Any) -> None:
    """Turn words into Laplace numbers; see `_philox.laplacians`."""
    bits = numbers.view(np.int64)
    for i in range(n_groups * GROUP):
        numbers[i] = (f64(words[i] & u32(2**31 - 1)) + 0.5) * 2.0**-31
    for i in range(n_groups * GROUP):
        exponent = (bits[i] - ROOT_HALF_BITS) >> 52
        bits[i] -= exponent << 52
        log = _logarithm(numbers[i], f64(exponent))
        numbers[i] = log if words[i] >> u32(31) else -log


@njit(nogil=True, cache=True)
def _steps(key: Any, group: Any, words: Any, numbers: Any, start: Any, stop: Any, thresholds: Any, guide: Any) -> None:
    """Count the thresholds that words reach; see `_philox.steps`. Only few words need the lower half of their bits."""
    for i in range(start, stop):
        bits = u64(words[i]) << HALF
        bucket = words[i] >> u32(32 - GUIDE_BITS)
        low, high = guide[bucket], guide[bucket + 1]
        while low < high:
            middle = (low + high) // 2
            if thresholds[middle] <= bits:
                low = middle + 1
            else:
                high = middle
        if low < thresholds.size and thresholds[low] >> HALF == u64(words[i]):
            bits |= _word(group * u64(LANES), u64(i), u64(1), u64(key[2]), u64(key[0]), u64(key[1])) & MASK
            while low < thresholds.size and thresholds[low] <= bits:
                low += 1
        numbers[i] = low - thresholds.size // 2


@njit(nogil=True, cache=True)
def _repeat(values: Any, repeated: Any, start: Any, stop: Any) -> None:
    """Write one value for each feature, again and again, into places ``start`` to ``stop``."""
    for first in range(start - start % values.size, stop, values.size):
        row = repeated[first : min(stop, first + values.size)]
        for i in range(row.size):
            row[i] = values[i]


@njit(nogil=True, cache=True)
def _to_raw(out: Any, scale: Any, shift: Any, d: Any) -> None:
    """Multiply, then add. Factors repeat after ``d`` values, so only the first are read: the cache holds them."""
    span = d * max(1, SPAN // d)
    for start in range(0, out.size, span):
        part = out[start : start + span]
        for i in range(part.size):
            part[i] = part[i] * scale[i] + shift[i]


@njit(nogil=True, cache=True, inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return four words in the lower halves of 64-bit integers; see `_philox.philox`."""
    for _ in range(ROUNDS):
        product_0 = MULTIPLY_0 * (c0 & MASK)
        product_1 = MULTIPLY_1 * (c2 & MASK)
        c0 = (product_1 >> HALF) ^ c1 ^ k0
        c2 = (product_0 >> HALF) ^ c3 ^ k1
        c1 = product_1
        c3 = product_0
        k0 = k0 + WEYL_0
        k1 = k1 + WEYL_1
    return c0, c1, c2, c3


@njit(nogil=True, cache=True, inline="always")
def _word(start: Any, i: Any, attempt: Any, tag: Any, k0: Any, k1: Any) -> Any:
    """Return the word of value ``i`` after the start of a group, where the counter is ``start``."""
    counter = start + i // u64(GROUP) * u64(LANES) + i % u64(LANES)
    w0, w1, w2, w3 = _philox(counter, counter >> HALF, attempt, tag, k0, k1)
    odd, late = i & u64(LANES), i & u64(2 * LANES)
    early_word = w1 if odd else w0
    late_word = w3 if odd else w2
    return late_word if late else early_word


@njit(nogil=True, cache=True)
def _draw(key: Any, group: Any, n_groups: Any, n_offsets: Any, scratch: Any) -> None:
    """Draw the offsets of some groups of values, each from as many bits as its type has; see `_philox.offsets`."""
    drawn, flags, eights, rejected, words = scratch
    n = n_groups * GROUP * 4 // drawn.itemsize
    bits = u64(8 * drawn.itemsize)
    mask = (u64(1) << bits) - u64(1)
    rejected_below = (mask + u64(1)) % n_offsets
    _fill_words(key, group, n_groups, drawn.view(np.uint32))
    if drawn.itemsize == 2:
        _halves_to_offsets(drawn, n, u16(n_offsets), u16(rejected_below), flags)
    else:
        _words_to_offsets(drawn, n, u32(n_offsets), u32(rejected_below), flags)
    n_rejected = _find(flags, n, eights, rejected)
    attempt = u64(0)
    while n_rejected:
        attempt += u64(1)
        _fill_again(key, group, rejected, n_rejected, attempt, drawn.itemsize, words)
        n_left = 0
        for r in range(n_rejected):
            i = rejected[r]
            product = (words[r] & mask) * n_offsets
            drawn[i] = product >> bits
            rejected[n_left] = i
            n_left += (product & mask) < rejected_below
        n_rejected = n_left


@njit(nogil=True, cache=True)
def _words_to_offsets(drawn: Any, n: Any, n_offsets: Any, rejected_below: Any, flags: Any) -> None:
    """Turn words into offsets, and flag those that are rejected."""
    for i in range(n):
        product = u64(drawn[i]) * u64(n_offsets)
        drawn[i] = product >> HALF
        flags[i] = u32(product) < rejected_below


@njit(nogil=True, cache=True)
def _halves_to_offsets(drawn: Any, n: Any, n_offsets: Any, rejected_below: Any, flags: Any) -> None:
    """Turn half words into offsets; vector units return both halves of a product of 16-bit numbers."""
    for i in range(n):
        low = u16(u16(drawn[i]) * n_offsets)
        drawn[i] = (u32(u16(drawn[i])) * u32(n_offsets)) >> u32(16)
        flags[i] = low < rejected_below


@njit(nogil=True, cache=True)
def _find(flags: Any, n: Any, eights: Any, found: Any) -> Any:
    """List the flags that are set, and return their number.

    Branch prediction fails here, so the first loop scans every group of eight flags without a branch. Integers start
    with their lowest byte on all machines that numba supports.
    """
    at_once, n_eights, n_found = flags.view(np.uint64), 0, 0
    for i in range(n // 8):
        eights[n_eights] = i
        n_eights += at_once[i] != u64(0)
    for e in range(n_eights):
        left = at_once[eights[e]]
        while left:
            lowest = left & (~left + u64(1))
            found[n_found] = u64(8 * eights[e]) + (lowest * PLACES >> u64(56))
            n_found += 1
            left ^= lowest
    return n_found


@njit(nogil=True, cache=True, inline="always")
def _fill_again(key: Any, group: Any, values: Any, n: Any, attempt: Any, itemsize: Any, words: Any) -> None:
    """Draw new words for some values of the groups; a value of two bytes gets its half word in the lowest bits."""
    start, tag, k0, k1 = group * u64(LANES), u64(key[2]), u64(key[0]), u64(key[1])
    halved = u64(itemsize == 2)
    for r in range(n):
        word = _word(start, values[r] >> halved, attempt, tag, k0, k1)
        words[r] = word >> ((values[r] & halved) * u64(16))


@njit(nogil=True, cache=True)
def _apply_offsets(kind: Any, point: Any, drawn: Any, n_offsets: Any, q: Any, out: Any) -> None:
    """Write the noisy values of a point; see `_philox.apply_offsets`."""
    real = out.dtype.type
    if kind == UNIFORM:
        center = u32(n_offsets // u64(2))
        half = real(0.5 if n_offsets % u64(2) == 0 else 0.0)
        scale = real(1 / q)
        for i in range(out.size):
            out[i] = (real(i32(point[i] + u32(drawn[i]) - center)) + half) * scale
        return
    scale = real(0.25 / q)
    whole = i32(2 * q)
    if n_offsets >= u64(q):
        last = drawn.dtype.type(q)
        for i in range(out.size):
            # All offsets from q on give the same result.
            j = i32(min(drawn[i], last))
            twice = min(i32(j + j + i32(1)), whole)
            out[i] = real(i32(twice + (whole if i32(point[i]) > j else i32(0)))) * scale
        return
    period = i32(n_offsets)
    for i in range(out.size):
        j, x = i32(drawn[i]), i32(point[i])
        low = 2 * j + 1 + 2 * ((x - j - 1) // period) * period
        out[i] = real(max(low, 0) + min(low + 2 * period, whole)) * scale
