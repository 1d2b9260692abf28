"""Philox 4x32-10 and unbiased lattice offsets in plain NumPy: the reference that the fused kernels are tested against.

Philox (Salmon et al. 2011) is a counter-based generator: four random words are a pure function of a counter of four
words and a key of two. The noise of one input and stage is one long sequence of values, feature after feature, sample
after sample. Value v belongs to group v // 64; within a group, the 16 counters of the group give 16 first words, then
16 second words, and so on. That order lets a compiler work on 16 counters at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10

#: Multipliers of a round, and what is added to the key after it.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

#: Counters that are worked on at once, and the values that they give.
LANES = 16
GROUP = 4 * LANES

#: Offsets lie below this, so that it can mark a rejected draw.
REJECTED = 2**32 - 1

Words = NDArray[np.uint64]


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

    A random word w gives j = floor(w n_offsets / 2^32). Words of which some j would get one more than others are
    rejected and drawn again (Lemire 2019), so every j is exactly equally likely.

    Parameters
    ----------
    key : ndarray of shape (4,)
        The key of the input's stream; the first two words key the generator, the third is part of its counter.
    first, count : int
        The samples.
    n_features : int
    n_offsets : int
        Below 2**32.

    Returns
    -------
    offsets : ndarray of shape (count, n_features)
    """
    value = np.arange(first * n_features, (first + count) * n_features, dtype=np.uint64)
    group, within = value // np.uint64(GROUP), value % np.uint64(GROUP)
    counter = group * np.uint64(LANES) + within % np.uint64(LANES)
    word = (within // np.uint64(LANES)).astype(np.intp)
    rejected_below = np.uint64(2**32 % n_offsets)
    drawn = np.empty(value.shape, dtype=np.uint32)
    pending = np.arange(len(value))
    attempt = 0
    while len(pending):
        low, high = counter[pending] & np.uint64(0xFFFFFFFF), counter[pending] >> np.uint64(32)
        words = np.stack(philox((low, high, attempt, key[2]), (key[0], key[1])))
        product = words[word[pending], np.arange(len(pending))] * np.uint64(n_offsets)
        drawn[pending] = product >> np.uint64(32)
        pending = pending[(product & np.uint64(0xFFFFFFFF)) < rejected_below]
        attempt += 1
    return drawn.reshape(count, n_features)
