"""Compare the time of greedy radii with that of a plain Python walk, and their memory with that of the inputs.

The walk in Python does what the theorem says: for each input it sorts the reaches in decreasing order and pays for one
after the other. It is timed on a part of the inputs, and the time is scaled; Python sorts the numbers of a list faster
than those of an array. Both run alternately in one process, and the median ratio is shown: absolute times on a shared
machine mean little.
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from smoothcert import GreedyRadius, SplitNoise
from smoothcert.certify.reach import certified_radii
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

NOISE = SplitNoise(lam=3.5)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def python_radius(reaches: Iterable[float], p_a: float) -> float:
    rest, covered, width = -math.log1p(0.5 - p_a), 0.0, 2 * NOISE.effective_lam
    for reach in sorted(reaches, reverse=True):
        cost = -math.log1p(-reach / width)
        if cost >= rest:
            return covered - width * math.expm1(-rest)
        covered += reach
        rest -= cost
    return math.inf


def python_radii(X: np.ndarray, p_a: np.ndarray, *, lists: bool) -> list[float]:
    reaches = np.maximum(X, 1 - X)
    return [python_radius(row.tolist() if lists else row, p) for row, p in zip(reaches, p_a, strict=True)]


def greedy_radii(X: np.ndarray, p_a: np.ndarray) -> np.ndarray:
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), NOISE, X.shape[1:])
    return certified_radii(GreedyRadius(), mechanism, X, p_a, 1 - p_a)


def peak_memory(X: np.ndarray, p_a: np.ndarray) -> int:
    tracemalloc.start()
    try:
        greedy_radii(X, p_a)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def run(quick: bool) -> None:
    compare(inputs=1000, python_inputs=50, repeats=3) if quick else compare()


def compare(inputs: int = 10_000, python_inputs: int = 500, repeats: int = 5) -> None:
    rng = np.random.default_rng(0)
    p_a = rng.uniform(0.5, 1, inputs)
    part = slice(python_inputs)
    results = []
    for d in (784, 3072):
        random = rng.random((inputs, d), dtype=np.float32)
        for images, X in {"random": random, "8-bit": np.rint(255 * random) / np.float32(255)}.items():
            for lists in (True, False):

                def peer(X: np.ndarray = X[part], lists: bool = lists) -> list[float]:
                    return python_radii(X, p_a[part], lists=lists)

                np.testing.assert_allclose(greedy_radii(X[part], p_a[part]), peer(), atol=1e-3)
                ratios = [
                    seconds(peer) / python_inputs / seconds(lambda X=X: greedy_radii(X, p_a)) * len(X)
                    for _ in range(repeats)
                ]
                results.append(
                    {"d": d, "images": images, "sorts": "lists" if lists else "arrays", "ratio": np.median(ratios)}
                )
    table = pd.DataFrame(results).pivot(index="d", columns=["images", "sorts"], values="ratio")
    print(f"Time of a Python walk ({python_inputs} inputs, scaled) / time of greedy radii, ", end="")
    print(f"{inputs} inputs:\n")
    print(table.to_string(float_format="{:.1f}".format))

    results = []
    for n_inputs in (16, 64):
        for dtype in (np.float32, np.float64):
            X = rng.random((n_inputs, 3, 224, 224), dtype=dtype)
            results.append(
                {"inputs": n_inputs, "dtype": X.dtype.name, "peak": peak_memory(X, p_a[:n_inputs]) / X.nbytes}
            )
    table = pd.DataFrame(results).pivot(index="inputs", columns="dtype", values="peak")
    print("\nPeak memory of greedy radii / size of the inputs, d=150,528:\n")
    print(table.to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--python-inputs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    compare(**vars(parser.parse_args()))
