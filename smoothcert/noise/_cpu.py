"""The fused noise kernel for CPUs: generator, lattice draw and perturbation in one pass over the batch.

It computes what the functions of `philox` and the noise's ``displace`` compute, to the last bit. Random words are kept
in the lower halves of 64-bit integers, whose upper halves are whatever the last multiplication left there: that is what
vector units multiply without moving anything.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Any

import numpy as np
from numba import config
from numba import float64 as f64
from numba import int32 as i32
from numba import uint16 as u16
from numba import uint32 as u32
from numba import uint64 as u64
from numpy.typing import NDArray

from .._utils.compiled import njit
from ._philox import (
    GROUP,
    LANES,
    LAPLACE,
    MULTIPLIERS,
    NORMAL,
    ROOT_HALF,
    ROUNDS,
    WEYL,
    logarithm,
    offset_bits,
    sine_cosine,
)

#: Values that are drawn before they are written out: few enough for the cache, many enough for long loops.
TILE = 4096

#: Values, about, that are mapped to raw units with the same factors.
SPAN = 1024

#: Values that are worth waking a thread for.
PART = 2**17

#: The formulas that `fill` knows, by number.
UNIFORM, SPLIT = 0, 1

MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLY_0, MULTIPLY_1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
WEYL_0, WEYL_1 = (np.uint64(step) for step in WEYL)
ROOT_HALF_BITS = int(np.float64(ROOT_HALF).view(np.int64))

#: The highest byte of its product with 256**k is k.
PLACES = np.uint64(0x0001020304050607)

#: First bits of a word that tell between which thresholds to search.
GUIDE_BITS = 12

#: Stands for a scale or shift that is not there.
_NOTHING = {real: np.zeros(0, dtype=real) for real in (np.float32, np.float64)}

_logarithm, _sine_cosine = (
    njit(inline="always", error_model="numpy")(function) for function in (logarithm, sine_cosine)
)


#: What `limit_threads` has set, thread by thread.
_limits = local()


def limit_threads(n_threads: int) -> None:
    """Let noise that the calling thread asks for be drawn by so many threads; by default by as many as numba would use.

    Numba's own setting is not for this: to look at it starts numba's threads, which changes what torch uses.
    """
    _limits.n_threads = n_threads


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Return the threads that share the work. Numba's own spin where they wait, in the way of the model's."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="smoothcert")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def fill(
    kind: int,
    points: NDArray[np.uint32],
    keys: NDArray[np.uint32],
    segments: NDArray[np.int64],
    n_offsets: int,
    q: int,
    out: NDArray[np.floating],
    scale: NDArray[np.floating] | None = None,
    shift: NDArray[np.floating] | None = None,
    part: int = PART,
) -> None:
    """Write noisy copies of lattice points.

    Parameters
    ----------
    kind : int
        `UNIFORM` or `SPLIT`.
    points : ndarray of shape (n_inputs, n_features)
    keys : ndarray of shape (n_inputs, 4)
    segments : ndarray of shape (n_segments, 3)
        Input, first sample and number of samples of consecutive rows.
    n_offsets, q : int
        Of the noise.
    out : ndarray of float32 or float64, shape (n_rows, n_features)
        C-contiguous.
    scale, shift : ndarray of the dtype of ``out``, shape (n_features,), optional
        What noisy values are multiplied with, and what is added to them then.
    part : int
        Values that a thread draws at a time; they change nothing but the speed.
    """
    # The type of offsets is that of what they are drawn from.
    limit = np.array([n_offsets], dtype=f"uint{offset_bits(n_offsets)}")
    _share(_fill_part, kind, points, keys, segments, (limit, q), out, scale, shift, part)


def add(
    kind: int,
    points: NDArray[np.float64],
    keys: NDArray[np.uint32],
    segments: NDArray[np.int64],
    size: float,
    step: float,
    thresholds: NDArray[np.uint64],
    out: NDArray[np.floating],
    scale: NDArray[np.floating] | None = None,
    shift: NDArray[np.floating] | None = None,
    part: int = PART,
) -> None:
    """Write (point + size times a random number) times step; see `fill`.

    Parameters
    ----------
    kind : int
        `philox.NORMAL`, `philox.LAPLACE` or `philox.STEPS`.
    size, step : float
    thresholds : ndarray
        Of `philox.steps`; else empty.
    """
    buckets = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
    guide = np.append(np.searchsorted(thresholds, buckets, side="right"), len(thresholds))
    _share(_add_part, kind, points, keys, segments, (size, step, thresholds, guide), out, scale, shift, part)


def _share(
    fill_part: Any,
    kind: int,
    points: Any,
    keys: Any,
    segments: Any,
    noise: tuple[Any, ...],
    out: Any,
    scale: Any,
    shift: Any,
    part: int,
) -> None:
    """Share the parts of a batch among threads."""
    if scale is None:
        scale = shift = _NOTHING[out.dtype.type]
    ends = segments[:, 2].cumsum() * points.shape[1]
    arguments = (kind, points, keys, segments, ends, *noise, scale, shift, out.reshape(-1))
    most: int = getattr(_limits, "n_threads", None) or config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_helpers = min(most, -(-out.size // part)) - 1
    if n_helpers <= 0:
        fill_part(*arguments, 0, out.size)
        return
    starts = iter(range(0, out.size, part))

    def work() -> None:
        # Whoever is free takes the next part: a thread may have to share its core, with those of the model for one.
        for start in starts:
            fill_part(*arguments, start, min(start + part, out.size))

    helpers = [_pool(n_helpers).submit(work) for _ in range(n_helpers)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@njit(nogil=True, cache=True)
def _fill_part(
    kind: Any,
    points: Any,
    keys: Any,
    segments: Any,
    ends: Any,
    limit: Any,
    q: Any,
    scale: Any,
    shift: Any,
    out: Any,
    start: Any,
    stop: Any,
) -> None:
    """Write the values ``start`` to ``stop`` of the batch."""
    d, n_offsets = points.shape[1], u64(limit[0])
    in_group = GROUP * 4 // limit.itemsize
    most = TILE + 2 * in_group
    drawn = np.empty(most, dtype=limit.dtype)
    scratch = (
        np.empty(most, dtype=np.uint8),
        np.empty(most // 8 + 1, dtype=np.int64),
        np.empty(most + 1, dtype=np.uint64),
        np.empty(most, dtype=np.uint64),
    )
    point = np.empty(d + TILE, dtype=np.uint32)
    scales, shifts = _repeat(scale), _repeat(shift)
    run = np.searchsorted(ends, start, side="right")
    while start < stop:
        owner = segments[run, 0]
        end = min(stop, ends[run])
        value = (segments[run, 1] + segments[run, 2]) * d - (ends[run] - start)
        # The point is repeated, so that a tile may cross rows.
        needed = min(d + TILE, value % d + end - start)
        for i in range(min(d, needed)):
            point[i] = points[owner, i]
        for i in range(d, needed):
            point[i] = point[i - d]
        while start < end:
            n = min(end - start, TILE)
            group = value // in_group
            skipped = value - group * in_group
            _draw(keys[owner], u64(group), (skipped + n + in_group - 1) // in_group, n_offsets, scratch, drawn)
            phase = value % d
            _displace(
                kind, point[phase : phase + n], drawn[skipped : skipped + n], n_offsets, q, out[start : start + n]
            )
            if scales.size:
                _to_raw(out[start : start + n], scales[phase : phase + n], shifts[phase : phase + n], d)
            start += n
            value += n
        run += 1


@njit(nogil=True, cache=True)
def _add_part(
    kind: Any,
    points: Any,
    keys: Any,
    segments: Any,
    ends: Any,
    size: Any,
    step: Any,
    thresholds: Any,
    guide: Any,
    scale: Any,
    shift: Any,
    out: Any,
    start: Any,
    stop: Any,
) -> None:
    """Write the values ``start`` to ``stop`` of the batch."""
    d = points.shape[1]
    words = np.empty(TILE + 2 * GROUP, dtype=np.uint32)
    numbers = np.empty(TILE + 2 * GROUP, dtype=np.float64)
    scales, shifts = _repeat(scale), _repeat(shift)
    run = np.searchsorted(ends, start, side="right")
    owner, point = -1, points[0]
    while start < stop:
        if segments[run, 0] != owner:
            owner = segments[run, 0]
            point = _repeat(points[owner])
        end = min(stop, ends[run])
        value = (segments[run, 1] + segments[run, 2]) * d - (ends[run] - start)
        while start < end:
            n = min(end - start, TILE)
            group = value // GROUP
            skipped = value - group * GROUP
            n_groups = (skipped + n + GROUP - 1) // GROUP
            _fill_words(keys[owner], u64(group), n_groups, words)
            if kind == NORMAL:
                _normals(words, numbers, n_groups)
            elif kind == LAPLACE:
                _laplacians(words, numbers, n_groups)
            else:
                _steps(keys[owner], u64(group), words, numbers, skipped, skipped + n, thresholds, guide)
            phase = value % d
            _add(point[phase : phase + n], numbers[skipped : skipped + n], size, step, out[start : start + n])
            if scales.size:
                _to_raw(out[start : start + n], scales[phase : phase + n], shifts[phase : phase + n], d)
            start += n
            value += n
        run += 1


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
    """Turn pairs of words into pairs of normal numbers; see `philox.normals`."""
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
    """Turn words into Laplace numbers; see `philox.laplacians`."""
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
    """Count the thresholds that words reach; see `philox.steps`. Few words need the lower half to tell."""
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
def _repeat(values: Any) -> Any:
    """Return one value per feature often enough for a tile that starts anywhere."""
    if not values.size:
        return values
    repeated = np.empty(values.size + TILE, dtype=values.dtype)
    for i in range(repeated.size):
        repeated[i] = values[i] if i < values.size else repeated[i - values.size]
    return repeated


@njit(nogil=True, cache=True)
def _to_raw(out: Any, scale: Any, shift: Any, d: Any) -> None:
    """Multiply, then add. Of factors that repeat after ``d`` values, few are read, so that caches hold them."""
    span = d * max(1, SPAN // d)
    for start in range(0, out.size, span):
        part = out[start : start + span]
        for i in range(part.size):
            part[i] = part[i] * scale[i] + shift[i]


@njit(nogil=True, cache=True, inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return four words in the lower halves of 64-bit integers; see `philox.philox`."""
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
def _draw(key: Any, group: Any, n_groups: Any, n_offsets: Any, scratch: Any, drawn: Any) -> None:
    """Draw the offsets of some groups of values, each from as many bits as it has room for; see `philox.offsets`."""
    flags, eights, rejected, words = scratch
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
    """Turn halves of words into offsets: vector units multiply 16 bits at once, with both halves of the product."""
    for i in range(n):
        low = u16(u16(drawn[i]) * n_offsets)
        drawn[i] = (u32(u16(drawn[i])) * u32(n_offsets)) >> u32(16)
        flags[i] = low < rejected_below


@njit(nogil=True, cache=True)
def _find(flags: Any, n: Any, eights: Any, found: Any) -> Any:
    """List the flags that are set, and return how many are. Which eights have one, is too hard to foresee for a branch.

    Like halves of words, the bytes of an integer start with its lowest bits on all machines that numba knows.
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
    """Draw words for some values after the start of a group; values of two bytes get their half as the lowest bits."""
    start, tag, k0, k1 = group * u64(LANES), u64(key[2]), u64(key[0]), u64(key[1])
    halved = u64(itemsize == 2)
    for r in range(n):
        word = _word(start, values[r] >> halved, attempt, tag, k0, k1)
        words[r] = word >> ((values[r] & halved) * u64(16))


@njit(nogil=True, cache=True)
def _displace(kind: Any, point: Any, drawn: Any, n_offsets: Any, q: Any, out: Any) -> None:
    """Write what offsets make of a point: the ``displace`` of `UniformNoise` and `SplitNoise`."""
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
            # Beyond the last split that falls into [0, 1] all are alike.
            j = i32(min(drawn[i], last))
            twice = min(i32(j + j + i32(1)), whole)
            out[i] = real(i32(twice + (whole if i32(point[i]) > j else i32(0)))) * scale
        return
    period = i32(n_offsets)
    for i in range(out.size):
        j, x = i32(drawn[i]), i32(point[i])
        low = 2 * j + 1 + 2 * ((x - j - 1) // period) * period
        out[i] = real(max(low, 0) + min(low + 2 * period, whole)) * scale
