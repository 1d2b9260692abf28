"""Philox 4x32-10 and the recipes for noise, in plain NumPy: the reference for the backends `_cpu` and `_cuda`.

Philox (Salmon et al. 2011) is a counter-based generator: four random words are a pure function of a counter of four
words and a key of two. The noise of one input and stage is one long sequence of values, feature after feature, sample
after sample. Value v belongs to group v // 64. Within a group, 16 counters give 16 first words, then 16 second words,
and so on. That order lets a compiler work on 16 counters at once. Numbers that need only 16 bits take half a word each,
the lower half first: a group then has 128 values.
"""

from __future__ import annotations

import math
from functools import partial
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

    Attributes
    ----------
    kind : int
        `UNIFORM` or `SPLIT`.
    n_offsets : int
        Number of equally likely offsets, L.
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
        For `steps`; empty for the other kinds.
    """

    kind: int
    size: float
    step: float
    thresholds: Words = np.zeros(0, dtype=np.uint64)


Recipe = OffsetRecipe | SumRecipe


def sample(
    recipe: Recipe,
    points: NDArray[Any],
    keys: NDArray[np.uint32],
    segments: NDArray[np.int64],
    out: NDArray[np.floating],
) -> None:
    """Write keyed samples; see `Noise.sample`."""
    d, row = points.shape[1], 0
    for owner, first, count in segments.tolist():
        target = out[row : row + count]
        if isinstance(recipe, OffsetRecipe):
            apply_offsets(recipe, points[owner], offsets(keys[owner], first, count, d, recipe.n_offsets), target)
        else:
            draw: dict[int, Any] = {
                NORMAL: normals,
                LAPLACE: laplacians,
                STEPS: partial(steps, thresholds=recipe.thresholds),
            }
            numbers = draw[recipe.kind](keys[owner], first, count, d)
            target[...] = (points[owner] + recipe.size * numbers) * recipe.step
        row += count


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


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Words, Words, Words, Words]:
    """Return four random 32-bit words for each counter, as 64-bit integers.

    Parameters
    ----------
    counter, key : tuples of array-like
        Four and two 32-bit words that broadcast against each other.

    Examples
    --------
    >>> [hex(int(word)) for word in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = (np.asarray(word, dtype=np.uint64) for word in key)
    for _ in range(ROUNDS):
        product_0, product_1 = np.uint64(MULTIPLIERS[0]) * c0, np.uint64(MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = (
            (product_1 >> half) ^ c1 ^ k0,
            product_1 & mask,
            (product_0 >> half) ^ c3 ^ k1,
            product_0 & mask,
        )
        k0, k1 = (k0 + np.uint64(WEYL[0])) & mask, (k1 + np.uint64(WEYL[1])) & mask
    return c0, c1, c2, c3


def offsets(key: NDArray[np.uint32], first: int, count: int, n_features: int, n_offsets: int) -> NDArray[np.uint32]:
    """Return the lattice offsets j in {0 .. n_offsets - 1} of some samples of one input.

    A random word w gives j = floor(w n_offsets / 2^32). Where offsets are few, half a word gives
    j = floor(w n_offsets / 2^16). Words that would make some j more likely than others are rejected and drawn again
    (Lemire 2019), so every j is exactly equally likely.

    Parameters
    ----------
    key : ndarray of shape (4,)
        The key of the input; its first two words key the generator, the third is part of the counter.
    first, count : int
        The samples.
    n_features : int
    n_offsets : int
        Below 2**32.

    Returns
    -------
    offsets : ndarray of shape (count, n_features)
    """
    bits = offset_bits(n_offsets)
    values = np.arange(first * n_features, (first + count) * n_features, dtype=np.uint64)
    place = _place(values * np.uint64(bits) // np.uint64(32))
    shift = values * np.uint64(bits) % np.uint64(32)
    mask = np.uint64(2**bits - 1)
    drawn = np.empty(len(values), dtype=np.uint32)
    pending = np.arange(len(drawn))
    attempt = 0
    while len(pending):
        words = _words(key, place[:, pending], attempt) >> shift[pending] & mask
        product = words * np.uint64(n_offsets)
        drawn[pending] = product >> np.uint64(bits)
        pending = pending[(product & mask) < np.uint64(2**bits % n_offsets)]
        attempt += 1
    return drawn.reshape(count, n_features)


def offset_bits(n_offsets: int) -> int:
    """Return how many random bits an offset takes: 16 or 32."""
    return 16 if n_offsets <= FEW_OFFSETS else 32


def normals(key: NDArray[np.uint32], first: int, count: int, n_features: int) -> NDArray[np.float64]:
    """Return standard normal numbers by Box and Muller's formula: two numbers from two words; see `offsets`.

    All machines round the operations used here alike, so every machine gives the same bits.
    """
    counter, word = _places(first, count, n_features)
    radius = _words(key, (counter, word & np.uint64(2)), 0)
    angle = _words(key, (counter, word | np.uint64(1)), 0)
    mantissa, exponent = np.frexp((radius + 0.5) * 2.0**-32)
    low = mantissa < ROOT_HALF
    log = logarithm(np.where(low, 2 * mantissa, mantissa), exponent - low)
    sine, cosine = sine_cosine(((angle & np.uint64(2**30 - 1)) + 0.5) * 2.0**-30 - 0.5)
    quarter = (angle >> np.uint64(30)) + (word & np.uint64(1))
    side = np.where(quarter & np.uint64(1), sine, cosine)
    drawn = np.sqrt(-2.0 * log) * np.where((quarter + (word & np.uint64(1))) & np.uint64(2), -side, side)
    return drawn.reshape(count, n_features)


def laplacians(key: NDArray[np.uint32], first: int, count: int, n_features: int) -> NDArray[np.float64]:
    """Return Laplace numbers of scale 1, each from one word whose first bit is the sign; see `normals`."""
    words = _words(key, _places(first, count, n_features), 0)
    mantissa, exponent = np.frexp(((words & np.uint64(2**31 - 1)) + 0.5) * 2.0**-31)
    low = mantissa < ROOT_HALF
    log = logarithm(np.where(low, 2 * mantissa, mantissa), exponent - low)
    return np.where(words >> np.uint64(31), log, -log).reshape(count, n_features)


def steps(
    key: NDArray[np.uint32], first: int, count: int, n_features: int, thresholds: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return the number of thresholds that 64 random bits reach, less half the number of thresholds.

    The upper half of the bits is a word, the lower half is the word of the second attempt at the same place.
    """
    place = _places(first, count, n_features)
    bits = (_words(key, place, 0) << np.uint64(32)) | _words(key, place, 1)
    reached = np.searchsorted(thresholds, bits, side="right") - len(thresholds) // 2
    return reached.reshape(count, n_features)


def _places(first: int, count: int, n_features: int) -> Words:
    """Return the places of the words of values that take one word each; see `_place`."""
    return _place(np.arange(first * n_features, (first + count) * n_features, dtype=np.uint64))


def _place(word: Words) -> Words:
    """Return for each word of the sequence its counter and its number among the counter's four; shape (2, n_words)."""
    group, within = word // np.uint64(GROUP), word % np.uint64(GROUP)
    return np.stack([group * np.uint64(LANES) + within % np.uint64(LANES), within // np.uint64(LANES)])


def _words(key: NDArray[np.uint32], place: Any, attempt: int) -> Words:
    """Return the words at some places."""
    counter, word = place
    low, high = counter & np.uint64(0xFFFFFFFF), counter >> np.uint64(32)
    return np.choose(word.astype(np.intp), philox((low, high, attempt, key[2]), (key[0], key[1])))


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
