"""The fused noise kernel for CUDA devices, in Triton: what `kernel.fill` does, where the base model is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from ._philox import GROUP, LANES, offset_bits

#: Counters that one program draws from: four words each.
COUNTERS = 256


def fill(kind: int, points: Any, keys: Any, segments: NDArray[np.int64], n_offsets: int, q: int, out: Any) -> None:
    """Write noisy copies of lattice points; see `kernel.fill`.

    Parameters
    ----------
    kind : int
        `kernel.UNIFORM` or `kernel.SPLIT`.
    points, keys : tensor of int32
        The bits of unsigned integers, on the device.
    segments : ndarray of int64, shape (n_segments, 3)
        On the host.
    n_offsets, q : int
        Of the noise.
    out : tensor of float32 or float64
        On the device; contiguous, with one row per sample.
    """
    d, bits = points.shape[1], offset_bits(n_offsets)
    n_values, per_word = segments[:, 2] * d, 32 // bits
    before = segments[:, 1] * d % (GROUP * per_word)
    table = torch.from_numpy(np.column_stack([segments, np.cumsum(n_values) - n_values]))
    if out.is_cuda:
        table = table.pin_memory().to(out.device, non_blocking=True)
    stretches = triton.cdiv(int((before + n_values).max()), 4 * COUNTERS * per_word)
    _fill[(len(segments) * stretches,)](
        out,
        points,
        keys,
        table,
        stretches,
        d,
        n_offsets,
        2**bits % n_offsets,
        BITS=bits,
        UNIFORM=kind == 0,
        Q=q,
        HALF=0.5 if n_offsets % 2 == 0 else 0.0,
        SCALE=1 / q if kind == 0 else 0.25 / q,
        WIDE=n_offsets >= q,
        LANES=LANES,
        COUNTERS=COUNTERS,
    )


@triton.jit
def _offset(word, half, n_offsets, rejected_below, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the offset that a word or its half gives, and whether that is rejected; see `philox.offsets`."""
    number = (word >> 16 * half) & 0xFFFF if BITS == 16 else word
    product = number.to(tl.uint64) * n_offsets
    return (product >> BITS).to(tl.uint32), (product & ((1 << BITS) - 1)) < rejected_below


@triton.jit
def _displace(x, j, n_offsets, UNIFORM, Q, HALF, SCALE, WIDE, real):  # type: ignore[no-untyped-def]
    """Return what offsets make of features: the ``displace`` of `UniformNoise` and `SplitNoise`."""
    x, j, n = x.to(tl.int64), j.to(tl.int64), n_offsets.to(tl.int64)
    if UNIFORM:
        return ((x + j - n // 2).to(real) + tl.full((1,), HALF, real)) * tl.full((1,), SCALE, real)
    split = 2 * j + 1
    if WIDE:
        twice = tl.minimum(split, 2 * Q) + tl.where(x > j, 2 * Q, 0)
    else:
        # Division rounds towards zero, so that its argument is kept from being negative.
        below = (x - j - 1 + n) // n - 1
        twice = tl.maximum(split + 2 * below * n, 0) + tl.minimum(split + 2 * (below + 1) * n, 2 * Q)
    return twice.to(real) * tl.full((1,), SCALE, real)


@triton.jit(do_not_specialize=["stretches", "d", "n_offsets", "rejected_below"])
def _fill(  # type: ignore[no-untyped-def]
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
    LANES: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    """Draw one stretch of one run: four words for each counter, and an offset for each word or half."""
    PER_WORD: tl.constexpr = 32 // BITS
    row = table + 4 * (tl.program_id(0) // stretches)
    stretch = tl.program_id(0) % stretches
    owner, first, count, start = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    n_offsets, rejected_below = n_offsets.to(tl.uint64), rejected_below.to(tl.uint64)
    lane = tl.arange(0, COUNTERS).to(tl.int64)
    first_value = first * d
    counter = first_value // (4 * LANES * PER_WORD) * LANES + stretch.to(tl.int64) * COUNTERS + lane
    value = (counter // LANES * (4 * LANES) + counter % LANES) * PER_WORD - first_value

    k0 = tl.load(keys + 4 * owner).to(tl.uint32, bitcast=True)
    k1 = tl.load(keys + 4 * owner + 1).to(tl.uint32, bitcast=True)
    tag = tl.load(keys + 4 * owner + 2).to(tl.uint32, bitcast=True)
    low, high = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32)
    zero = tl.zeros((COUNTERS,), tl.uint32)
    w0, w1, w2, w3 = tl.philox_impl(low, high, zero, zero + tag, zero + k0, zero + k1)
    real = out.dtype.element_ty
    for half in tl.static_range(PER_WORD):
        j0, r0 = _offset(w0, half, n_offsets, rejected_below, BITS)
        j1, r1 = _offset(w1, half, n_offsets, rejected_below, BITS)
        j2, r2 = _offset(w2, half, n_offsets, rejected_below, BITS)
        j3, r3 = _offset(w3, half, n_offsets, rejected_below, BITS)
        attempt = zero
        while tl.max((r0 | r1 | r2 | r3).to(tl.int32), axis=0) > 0:
            attempt += 1
            a0, a1, a2, a3 = tl.philox_impl(low, high, attempt, zero + tag, zero + k0, zero + k1)
            i0, again0 = _offset(a0, half, n_offsets, rejected_below, BITS)
            i1, again1 = _offset(a1, half, n_offsets, rejected_below, BITS)
            i2, again2 = _offset(a2, half, n_offsets, rejected_below, BITS)
            i3, again3 = _offset(a3, half, n_offsets, rejected_below, BITS)
            j0, j1, j2, j3 = tl.where(r0, i0, j0), tl.where(r1, i1, j1), tl.where(r2, i2, j2), tl.where(r3, i3, j3)
            r0, r1, r2, r3 = r0 & again0, r1 & again1, r2 & again2, r3 & again3
        for word in tl.static_range(4):
            j = j0 if word == 0 else (j1 if word == 1 else (j2 if word == 2 else j3))
            at = value + word * LANES * PER_WORD + half
            inside = (at >= 0) & (at < count * d)
            x = tl.load(points + owner * d + at.to(tl.int32) % d, mask=inside, other=0).to(tl.uint32, bitcast=True)
            noisy = _displace(x, j, n_offsets, UNIFORM, Q, HALF, SCALE, WIDE, real)
            tl.store(out + start + at, noisy, mask=inside)
