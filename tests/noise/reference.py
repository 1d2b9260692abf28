"""The keyed noise in plain NumPy, by its definition: the reference for the kernels of `smoothcert.noise`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.noise._philox import (
    GROUP,
    LANES,
    LAPLACE,
    MULTIPLIERS,
    NORMAL,
    ROOT_HALF,
    ROUNDS,
    STEPS,
    WEYL,
    OffsetRecipe,
    Recipe,
    Words,
    apply_offsets,
    logarithm,
    offset_bits,
    sine_cosine,
)


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
