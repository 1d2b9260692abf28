"""Seeds and keys: the noise of a vote is a pure function of (seed, input, stage, number of the sample)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

#: Largest numbers of samples and of values that share one generator.
BLOCK, BLOCK_VALUES = 128, 2**16

#: The stages of Algorithm 1: selection votes choose the class, fresh estimation votes bound its probability.
SELECTION, ESTIMATION = 0, 1

#: A stage for the numbers that a randomized bound draws.
AUXILIARY = 2


def resolve_seed(random_state: Any) -> int:
    """Turn scikit-learn's ``random_state`` into a seed: None is fresh entropy, an int is itself.

    Raises
    ------
    ValueError
        If ``random_state`` is neither None, nor a seed of 0 to 2**128 - 1, nor a RandomState.
    """
    if random_state is None:
        return secrets.randbits(128)
    if isinstance(random_state, int) and 2**32 <= random_state < 2**128:
        return int(random_state)
    try:
        check_random_state(random_state)
        if isinstance(random_state, np.random.RandomState):
            return int(random_state.randint(np.iinfo(np.int32).max))
        return int(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be None, an int from 0 to 2**128 - 1 or a numpy RandomState, got {random_state!r}."
        ) from error


def digests(points: NDArray[Any]) -> NDArray[np.uint8]:
    """Return fingerprints of points, which do not depend on the integer type; shape (n_inputs, 16)."""
    plain = np.ascontiguousarray(points, dtype="<f8" if points.dtype.kind == "f" else "<i8")
    return _hashes(plain)


def keys(seed: int, digests: NDArray[np.uint8], stage: int) -> NDArray[np.uint32]:
    """Return the key of each input, a hash of (seed, input, stage); shape (n_inputs, 4)."""
    start, end = seed.to_bytes(16, "little"), stage.to_bytes(2, "little")
    return _hashes(start + row.tobytes() + end for row in digests).view("<u4").astype(np.uint32)


def derived_keys(keys: NDArray[np.uint32], label: bytes) -> NDArray[np.uint32]:
    """Return keys for another part of the noise of the same samples, as independent of ``keys`` as hashes are."""
    return _hashes(key.tobytes() + label for key in keys).view("<u4").astype(np.uint32)


def _hashes(parts: Iterable[Any]) -> NDArray[np.uint8]:
    """Return a hash of 16 bytes for each part, shape (n_parts, 16)."""
    hashes = b"".join(blake2b(part, digest_size=16).digest() for part in parts)
    return np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 16)


def block_size(n_features: int) -> int:
    """Return the number of samples that `Noise.sample` draws together, a power of two."""
    return int(min(BLOCK, 2 ** max(0, (BLOCK_VALUES // n_features).bit_length() - 1)))


def generator(key: NDArray[np.uint32], block: int) -> np.random.Generator:
    """Return NumPy's Philox for one block of samples: the block sits in the counter's second word, of 64 bits."""
    return np.random.Generator(np.random.Philox(key=key.view(np.uint64), counter=[0, block, 0, 0]))


def auxiliary(seed: int, digests: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return two uniform numbers for each input's fingerprint, independent of its votes; shape (n_inputs, 2)."""
    return np.array([generator(key, 0).random(2) for key in keys(seed, digests, AUXILIARY)])
