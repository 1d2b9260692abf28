"""Random words and the numbers made of them, compiled for CPUs; their order is that of `_philox`.

Random words are kept in the lower halves of 64-bit integers, and their upper halves are ignored: vector units multiply
them in that form.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float64 as f64
from numba import int32 as i32
from numba import uint16 as u16
from numba import uint32 as u32
from numba import uint64 as u64

from .._utils.compiled import njit
from ._philox import GROUP, LANES, MULTIPLIERS, ROOT_HALF, ROUNDS, UNIFORM, WEYL, logarithm, sine_cosine

MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLY_0, MULTIPLY_1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
WEYL_0, WEYL_1 = (np.uint64(step) for step in WEYL)
ROOT_HALF_BITS = int(np.float64(ROOT_HALF).view(np.int64))

#: Number of first bits of a word that select the range of thresholds to search.
GUIDE_BITS = 12

_logarithm, _sine_cosine = (
    njit(inline="always", error_model="numpy")(function) for function in (logarithm, sine_cosine)
)


@njit(nogil=True, cache=True)
def fill_words(key: Any, group: Any, n_groups: Any, words: Any) -> None:
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
def normals(words: Any, numbers: Any, n_groups: Any) -> None:
    """Turn pairs of words into pairs of normal numbers by Box and Muller's formula.

    All machines round the operations used here alike, so every machine gives the same bits.
    """
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
def laplacians(words: Any, numbers: Any, n_groups: Any) -> None:
    """Turn words into Laplace numbers of scale 1; the first bit of a word is the sign."""
    bits = numbers.view(np.int64)
    for i in range(n_groups * GROUP):
        numbers[i] = (f64(words[i] & u32(2**31 - 1)) + 0.5) * 2.0**-31
    for i in range(n_groups * GROUP):
        exponent = (bits[i] - ROOT_HALF_BITS) >> 52
        bits[i] -= exponent << 52
        log = _logarithm(numbers[i], f64(exponent))
        numbers[i] = log if words[i] >> u32(31) else -log


@njit(nogil=True, cache=True)
def steps(key: Any, group: Any, words: Any, numbers: Any, start: Any, stop: Any, thresholds: Any, guide: Any) -> None:
    """Count the thresholds that words reach; see `SumRecipe`. Only few words need the lower half of their bits."""
    for i in range(start, stop):
        bits = u64(words[i]) << HALF
        bucket = words[i] >> u32(32 - GUIDE_BITS)
        low = guide[bucket]
        low += np.searchsorted(thresholds[low : guide[bucket + 1]], bits, side="right")
        if low < thresholds.size and thresholds[low] >> HALF == u64(words[i]):
            bits |= _word(group * u64(LANES), u64(i), u64(1), u64(key[2]), u64(key[0]), u64(key[1])) & MASK
            while low < thresholds.size and thresholds[low] <= bits:
                low += 1
        numbers[i] = low - thresholds.size // 2


@njit(nogil=True, cache=True, inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return four words in the lower halves of 64-bit integers; the counter is c, and the key is k."""
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
def draw_offsets(key: Any, group: Any, n_groups: Any, n_offsets: Any, scratch: Any) -> None:
    """Draw the offsets of some groups of values, each from as many bits as its type has; see `OffsetRecipe`."""
    drawn, flags, rejected, words = scratch
    n = n_groups * GROUP * 4 // drawn.itemsize
    bits = u64(8 * drawn.itemsize)
    mask = (u64(1) << bits) - u64(1)
    rejected_below = (mask + u64(1)) % n_offsets
    fill_words(key, group, n_groups, drawn.view(np.uint32))
    if drawn.itemsize == 2:
        _halves_to_offsets(drawn, n, u16(n_offsets), u16(rejected_below), flags)
    else:
        _words_to_offsets(drawn, n, u32(n_offsets), u32(rejected_below), flags)
    n_rejected = _find(flags, n, rejected)
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
def _find(flags: Any, n: Any, found: Any) -> Any:
    """List the flags that are set, and return their number; eight flags are looked at together."""
    eights, n_found = flags.view(np.uint64), 0
    for e in range(n // 8):
        if eights[e]:
            for i in range(8 * e, 8 * e + 8):
                found[n_found] = i
                n_found += flags[i]
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
def apply_offsets(kind: Any, point: Any, drawn: Any, n_offsets: Any, q: Any, out: Any) -> None:
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
