"""Reaches of many kinds: random, tied, tiny and zero."""

import numpy as np

REACHES = {
    "random": lambda rng, d: rng.random(d),
    "far faces": lambda rng, d: np.maximum(x := rng.random(d), 1 - x),
    "ties": lambda rng, d: rng.integers(1, 5, d) / 4,
    "many zeros": lambda rng, d: rng.random(d) * (rng.random(d) < 0.1),
    "mostly tiny": lambda rng, d: np.where(rng.random(d) < 0.01, rng.random(d), 1e-7 * rng.random(d)),
    "all tiny": lambda rng, d: 1e-9 * rng.random(d),
    "ones": lambda rng, d: np.ones(d),
    "zeros": lambda rng, d: np.zeros(d),
}
