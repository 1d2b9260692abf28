"""Keyed random numbers: what is drawn for a vote is a pure function of (seed, input, stage, sample)."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

#: Samples that share one counter block; the unit in which votes are drawn.
BLOCK = 128

#: The stages of Algorithm 1: votes that choose the class, and fresh votes that bound its probability.
SELECTION, ESTIMATION = 0, 1

#: Neither: numbers that a randomised bound draws.
AUXILIARY = 2


def resolve_seed(random_state: Any) -> int:
    """Turn scikit-learn's ``random_state`` into a seed: None is fresh entropy, an int is itself.

    Raises
    ------
    ValueError
        If ``random_state`` is neither None, nor a seed of 0 to 2**32 - 1, nor a RandomState.
    """
    if random_state is None:
        return secrets.randbits(128)
    try:
        check_random_state(random_state)
        if isinstance(random_state, np.random.RandomState):
            return int(random_state.randint(np.iinfo(np.int32).max))
        return int(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be None, an int from 0 to 2**32 - 1 or a numpy RandomState, got {random_state!r}."
        ) from error


def digest(point: NDArray[Any]) -> bytes:
    """Fingerprint of one point, the same whatever integer type it comes in."""
    plain = np.ascontiguousarray(point, dtype="<f8" if point.dtype.kind == "f" else "<i8")
    return blake2b(plain.tobytes(), digest_size=16).digest()


def generator(seed: int, point_digest: bytes, stage: int, block: int) -> np.random.Generator:
    """Return the generator of the noise of samples ``block * BLOCK`` and on, for one input and stage.

    Philox is counter-based: the key hashes (seed, input, stage), the counter holds the block. The block sits in the
    counter's second word, so that 2**64 draws fit between two blocks.
    """
    word = seed.to_bytes(16, "little") + point_digest + stage.to_bytes(2, "little")
    key = np.frombuffer(blake2b(word, digest_size=16).digest(), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key, counter=[0, block, 0, 0]))


def auxiliary(seed: int, inputs: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return two uniform numbers for each input's fingerprint, independent of its votes; shape (n_inputs, 2)."""
    return np.array([generator(seed, row.tobytes(), AUXILIARY, 0).random(2) for row in inputs])
