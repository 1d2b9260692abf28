"""Noises and points on which kernels are compared with the reference, and processes that run them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from smoothcert import SplitNoise, UniformNoise

from . import reference

KEY = np.array([1, 2, 3, 4], dtype=np.uint32)
NOISES = [
    UniformNoise(3.5),
    UniformNoise(0.3),
    UniformNoise(127.0),
    UniformNoise(1.0, levels=3),
    UniformNoise(8e6, levels=255),
    SplitNoise(3.5),
    SplitNoise(0.5),
    SplitNoise(0.3),
    SplitNoise(127.0),
    SplitNoise(3.5, levels=255),
    SplitNoise(8.03, levels=255),
    SplitNoise(8.04, levels=255),
    SplitNoise(0.4, levels=255),
    UniformNoise(3.5, levels=255),
    SplitNoise(0.2, levels=7),
    SplitNoise(0.5, levels=1),
]
SEGMENTS = np.array([[2, 0, 5], [0, 2**33 + 7, 140], [1, 3, 1], [2, 17, 64]])


def case(noise, d, dtype):
    """Return random points and keys, and what the reference makes of them."""
    rng = np.random.default_rng(d)
    points = rng.integers(0, noise.q + 1, size=(3, d)).astype(np.uint32)
    points[0, 0], points[1, 0] = 0, noise.q
    keys = rng.integers(2**32, size=(3, 4), dtype=np.uint32)
    expected = np.empty((SEGMENTS[:, 2].sum(), d), dtype=dtype)
    reference.sample(noise.recipe, points, keys, SEGMENTS, expected)
    return points, keys, expected


def run_python(code, **environment):
    """Run code in a process of its own, from the project's root."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
