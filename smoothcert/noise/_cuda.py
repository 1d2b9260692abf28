"""The noise kernel for CUDA devices, in Triton: it draws an `OffsetRecipe` on the device of the base model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from ._philox import GROUP, LANES, UNIFORM, OffsetRecipe, offset_bits

#: Number of counters in one program; each gives four words.
COUNTERS = 256


def sample(recipe: OffsetRecipe, points: Any, keys: Any, segments: NDArray[np.int64], out: Any) -> None:
    """Write keyed samples, the same as `_cpu.sample` to the last bit.

    Parameters
    ----------
    recipe : OffsetRecipe
    points, keys : tensor of int32
        The bits of unsigned integers, on the device.
    segments : ndarray of int64, shape (n_segments, 3)
        On the host; see `Noise.sample`.
    out : tensor of float32 or float64
        On the device; contiguous, with one row per sample.
    """
    kind, n_offsets, q = recipe
    d, bits = points.shape[1], offset_bits(n_offsets)
    n_values, per_word = segments[:, 2] * d, 32 // bits
    before = segments[:, 1] * d % (GROUP * per_word)
    table = torch.from_numpy(np.column_stack([segments, np.cumsum(n_values) - n_values]))
    if out.is_cuda:
        table = table.pin_memory().to(out.device, non_blocking=True)
    stretches = triton.cdiv(int((before + n_values).max()), 4 * COUNTERS * per_word)
    _write_stretch[(len(segments) * stretches,)](
        out,
        points,
        keys,
        table,
        stretches,
        d,
        n_offsets,
        2**bits % n_offsets,
        BITS=bits,
        UNIFORM=kind == UNIFORM,
        Q=q,
        HALF=0.5 if n_offsets % 2 == 0 else 0.0,
        SCALE=1 / q if kind == UNIFORM else 0.25 / q,
        WIDE=n_offsets >= q,
        SHORT=2 * n_offsets + 4 * q < 2**31,
        LANES=LANES,
        COUNTERS=COUNTERS,
    )


@triton.jit
def _offset(word, half, n_offsets, rejected_below, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the offset of a word or half word, and whether it is rejected; see `OffsetRecipe`."""
    if BITS == 16:
        small = ((word >> 16 * half) & 0xFFFF) * n_offsets.to(tl.uint32)
        return small >> 16, (small & 0xFFFF) < rejected_below.to(tl.uint32)
    product = word.to(tl.uint64) * n_offsets
    return (product >> 32).to(tl.uint32), (product & 0xFFFFFFFF) < rejected_below


@triton.jit
def _apply_offset(x, j, n_offsets, UNIFORM, Q, HALF, SCALE, WIDE, real, integer):  # type: ignore[no-untyped-def]
    """Return the noisy values of features; see `_philox.apply_offsets`."""
    x, j, n = x.to(integer), j.to(integer), n_offsets.to(integer)
    if UNIFORM:
        return ((x + j - n // 2).to(real) + tl.full((1,), HALF, real)) * tl.full((1,), SCALE, real)
    split = 2 * j + 1
    if WIDE:
        twice = tl.minimum(split, 2 * Q) + tl.where(x > j, 2 * Q, 0)
    else:
        # Division rounds toward zero, so its argument must not be negative.
        below = (x - j - 1 + n) // n - 1
        twice = tl.maximum(split + 2 * below * n, 0) + tl.minimum(split + 2 * (below + 1) * n, 2 * Q)
    return twice.to(real) * tl.full((1,), SCALE, real)


@triton.jit
def _load_key(key, COUNTERS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the three words of a key, for each counter."""
    zero = tl.zeros((COUNTERS,), tl.uint32)
    k0 = zero + tl.load(key).to(tl.uint32, bitcast=True)
    k1 = zero + tl.load(key + 1).to(tl.uint32, bitcast=True)
    return k0, k1, zero + tl.load(key + 2).to(tl.uint32, bitcast=True)


@triton.jit
def _draw_offsets(counter, key, half, n_offsets, rejected_below, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return four offsets for each counter; words that are rejected are drawn again."""
    k0, k1, tag = key
    low, high, attempt = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32), tl.zeros_like(k0)
    w0, w1, w2, w3 = tl.philox_impl(low, high, attempt, tag, k0, k1)
    j0, r0 = _offset(w0, half, n_offsets, rejected_below, BITS)
    j1, r1 = _offset(w1, half, n_offsets, rejected_below, BITS)
    j2, r2 = _offset(w2, half, n_offsets, rejected_below, BITS)
    j3, r3 = _offset(w3, half, n_offsets, rejected_below, BITS)
    while tl.max((r0 | r1 | r2 | r3).to(tl.int32), axis=0) > 0:
        attempt += 1
        w0, w1, w2, w3 = tl.philox_impl(low, high, attempt, tag, k0, k1)
        i0, again0 = _offset(w0, half, n_offsets, rejected_below, BITS)
        i1, again1 = _offset(w1, half, n_offsets, rejected_below, BITS)
        i2, again2 = _offset(w2, half, n_offsets, rejected_below, BITS)
        i3, again3 = _offset(w3, half, n_offsets, rejected_below, BITS)
        j0, j1, j2, j3 = tl.where(r0, i0, j0), tl.where(r1, i1, j1), tl.where(r2, i2, j2), tl.where(r3, i3, j3)
        r0, r1, r2, r3 = r0 & again0, r1 & again1, r2 & again2, r3 & again3
    return j0, j1, j2, j3


@triton.jit(do_not_specialize=["stretches", "d", "n_offsets", "rejected_below"])
def _write_stretch(  # type: ignore[no-untyped-def]
    out,
    points,
    keys,
    table,
    stretches,
    d,
    n_offsets,
    rejected_below,
    BITS: tl.constexpr,
    UNIFORM: tl.constexpr,
    Q: tl.constexpr,
    HALF: tl.constexpr,
    SCALE: tl.constexpr,
    WIDE: tl.constexpr,
    SHORT: tl.constexpr,
    LANES: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    """Write one stretch of one segment: an offset for each word, or half word, of some counters."""
    PER_WORD: tl.constexpr = 32 // BITS
    row = table + 4 * (tl.program_id(0) // stretches)
    stretch = tl.program_id(0) % stretches
    owner, first, count, start = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    integer: tl.constexpr = tl.int32 if SHORT else tl.int64
    n_offsets, rejected_below = n_offsets.to(tl.uint64), rejected_below.to(tl.uint64)
    first_value = first * d
    lane = tl.arange(0, COUNTERS).to(tl.int64)
    counter = first_value // (4 * LANES * PER_WORD) * LANES + stretch.to(tl.int64) * COUNTERS + lane
    value = (counter // LANES * (4 * LANES) + counter % LANES) * PER_WORD - first_value
    key = _load_key(keys + 4 * owner, COUNTERS)
    for half in tl.static_range(PER_WORD):
        j0, j1, j2, j3 = _draw_offsets(counter, key, half, n_offsets, rejected_below, BITS)
        for word in tl.static_range(4):
            j = j0 if word == 0 else (j1 if word == 1 else (j2 if word == 2 else j3))
            at = value + word * LANES * PER_WORD + half
            inside = (at >= 0) & (at < count * d)
            x = tl.load(points + owner * d + at.to(tl.int32) % d, mask=inside, other=0).to(tl.uint32, bitcast=True)
            noisy = _apply_offset(x, j, n_offsets, UNIFORM, Q, HALF, SCALE, WIDE, out.dtype.element_ty, integer)
            tl.store(out + start + at, noisy, mask=inside)
