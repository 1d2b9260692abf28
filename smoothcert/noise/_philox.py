"""The recipes for noise, and what the backends `_cpu` and `_cuda` share: constants, formulas, the order of the words.

Philox (Salmon et al. 2011) is a counter-based generator: four random words are a pure function of a counter of four
words and a key of two. The noise of one input and stage is one long sequence of values, feature after feature, sample
after sample. Value v belongs to group v // 64. Within a group, 16 counters give 16 first words, then 16 second words,
and so on. That order lets a compiler work on 16 counters at once. Numbers that need only 16 bits take half a word each,
the lower half first: a group then has 128 values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10

#: Multipliers of a round, and what is added to the key after it.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

#: Counters that are worked on at once, and the values that they give.
LANES = 16
GROUP = 4 * LANES

#: Up to this number, offsets are drawn from half a word each: few half words are rejected.
FEW_OFFSETS = 2**12

#: Kinds of recipes: the first two of `OffsetRecipe`, the others of `SumRecipe`.
UNIFORM, SPLIT, NORMAL, LAPLACE, STEPS = range(5)

ROOT_HALF, LN_2, QUARTER_TURN = math.sqrt(0.5), math.log(2), math.pi / 2

Words = NDArray[np.uint64]


class OffsetRecipe(NamedTuple):
    """Uniform or splitting noise: a function of lattice points and offsets j in {0 .. n_offsets - 1}.

    A random word w gives j = floor(w n_offsets / 2^32). Where offsets are few, half a word gives
    j = floor(w n_offsets / 2^16). Words that would make some j more likely than others are rejected and drawn again
    (Lemire 2019), so every j is exactly equally likely.

    Attributes
    ----------
    kind : int
        `UNIFORM` or `SPLIT`.
    n_offsets : int
        Number of equally likely offsets, L; below 2**32.
    q : int
        Lattice steps per unit.
    """

    kind: int
    n_offsets: int
    q: int


class SumRecipe(NamedTuple):
    """Noise that is added: (point + size times a random number) times step.

    Attributes
    ----------
    kind : int
        `NORMAL`, `LAPLACE` or `STEPS`.
    size, step : float
    thresholds : ndarray of uint64
        For `STEPS`. The number drawn is the count of thresholds that 64 random bits reach, less half the number of
        thresholds. The upper half of the bits is a word, the lower half is the word of the second attempt at the same
        place.
    """

    kind: int
    size: float
    step: float
    thresholds: Words = np.zeros(0, dtype=np.uint64)


Recipe = OffsetRecipe | SumRecipe


def apply_offsets(recipe: OffsetRecipe, points: NDArray[Any], offsets: NDArray[Any], out: NDArray[np.floating]) -> None:
    """Write the noisy values of lattice points at some offsets.

    Uniform noise is (x + j + 1/2)/q - lam. Its half-integers are made in two steps that float32 rounds the same
    everywhere. Splitting noise is the midpoint of the input's cell between split points; for lam >= 1/2 that is
    (min(s, 1) + [x > s])/2 with s = (j + 1/2)/q (Theorem 2.10).
    """
    kind, n_offsets, q = recipe
    real, j = out.dtype.type, offsets.astype(np.int64)
    if kind == UNIFORM:
        out[...] = points + j - n_offsets // 2
        out += real(0.5 if n_offsets % 2 == 0 else 0.0)
        out *= real(1 / q)
        return
    split = 2 * j + 1
    if n_offsets >= q:
        out[...] = np.minimum(split, 2 * q) + np.where(points > j, 2 * q, 0)
    else:
        below = (points.astype(np.int64) - j - 1) // n_offsets
        low = np.maximum(split + 2 * below * n_offsets, 0)
        out[...] = low + np.minimum(split + 2 * (below + 1) * n_offsets, 2 * q)
    out *= real(0.25 / q)


def offset_bits(n_offsets: int) -> int:
    """Return how many random bits an offset takes: 16 or 32."""
    return 16 if n_offsets <= FEW_OFFSETS else 32


def logarithm(mantissa: Any, exponent: Any) -> Any:
    """Return the natural logarithm of mantissa 2^exponent, where sqrt(1/2) <= mantissa <= sqrt(2), to about 1e-13."""
    f = (mantissa - 1.0) / (mantissa + 1.0)
    s = f * f
    odd = 1 / 9 + s * (1 / 11 + s * (1 / 13 + s * (1 / 15)))
    return exponent * LN_2 + 2.0 * f * (1.0 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * odd))))


def sine_cosine(quarters: Any) -> Any:
    """Return sine and cosine of at most half a quarter turn, in quarter turns, to about 1e-13: Taylor's series."""
    x = quarters * QUARTER_TURN
    s = x * x
    sine = 1.0 - s * (1 / 6) * (
        1.0 - s * (1 / 20) * (1.0 - s * (1 / 42) * (1.0 - s * (1 / 72) * (1.0 - s * (1 / 110) * (1.0 - s * (1 / 156)))))
    )
    cosine = 1.0 - s * (1 / 30) * (
        1.0 - s * (1 / 56) * (1.0 - s * (1 / 90) * (1.0 - s * (1 / 132) * (1.0 - s * (1 / 182))))
    )
    return x * sine, 1.0 - s * (1 / 2) * (1.0 - s * (1 / 12) * cosine)
