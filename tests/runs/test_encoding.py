"""How votes and numbers lie in a store."""

import numpy as np

from smoothcert.runs.encoding import from_bytes, to_bytes


def packed(numbers):
    return to_bytes(np.asarray(numbers, dtype=np.float64)[None])[0]


def test_numbers_are_kept_to_the_last_bit():
    rng = np.random.default_rng(0)
    numbers = np.sort(np.vstack([rng.normal(size=50), rng.integers(0, 3, 50), np.full(50, -0.0), 1e-320 * np.ones(50)]))
    numbers[0, :2], numbers[0, -1] = -np.inf, np.inf
    np.testing.assert_array_equal(from_bytes(to_bytes(numbers), 50).view(np.int64), numbers.view(np.int64))
    assert from_bytes([], 7).shape == (0, 7)
    assert len(packed(np.repeat([1.5, 2.5], 5000))) < 500
