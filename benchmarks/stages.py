"""Where the time of count_votes goes: the noise, the model, and the rest, in one thread.

The rest is counting, near ties that are voted on again, batches, and what a run costs before its first vote. `bare` is
the model alone on one fixed batch, at its best batch size. Nanoseconds per vote.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from common import bare_estimator, bare_network, best_batch, powers, seconds, show, split_mnist, trained_network
from numba import config
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale
from small import small_network

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.noise.mechanism import NoiseMechanism


@contextmanager
def timed(owner: type, name: str) -> Iterator[list[float]]:
    """Collect the seconds of a method's calls, of the outermost where it calls itself."""
    method, taken, depth = getattr(owner, name), [], 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            depth -= 1
            if not depth:
                taken.append(time.perf_counter() - start)

    setattr(owner, name, wrapper)
    try:
        yield taken
    finally:
        setattr(owner, name, method)


def stages(
    name: str,
    clf: SmoothedClassifier,
    X: np.ndarray,
    model: tuple[type, str],
    bare: Callable[[int, int], None],
    largest: int,
    repeats: int,
) -> dict[str, Any]:
    """Return the medians; ``largest`` is the largest batch that the bare model has rows for."""
    rows = len(X) * (clf.n_samples + clf.n_selection)
    best = best_batch(bare, powers(64, largest), rows=min(rows, largest))
    results = []
    for _ in range(repeats):
        with timed(NoiseMechanism, "sample") as noise, timed(*model) as answers:
            total = seconds(lambda: clf.count_votes(X))
        parts = {"noise": sum(noise), "model": sum(answers)}
        parts["rest"] = total - sum(parts.values())
        results.append([*parts.values(), total, seconds(lambda: bare(rows, best))])
    found = np.median(results, axis=0) / rows * 1e9
    return {"base model": name} | dict(zip([*parts, "total", "bare"], found, strict=True))


def run(quick: bool) -> None:
    n_threads, n_cores = torch.get_num_threads(), config.NUMBA_NUM_THREADS
    torch.set_num_threads(1)
    config.NUMBA_NUM_THREADS = 1
    try:
        show("Nanoseconds per vote, in one thread", measure(quick))
    finally:
        torch.set_num_threads(n_threads)
        config.NUMBA_NUM_THREADS = n_cores


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return a row for each base model."""
    repeats, n = (1, 500) if quick else (7, 10_000)
    settings = {"n_selection": 1, "n_samples": n, "random_state": 0}
    images = split_mnist()[1][:2]
    network = trained_network(quick)
    bare = bare_network(network, torch.from_numpy(np.repeat(images[:1], 2**11, axis=0)))
    clf = SmoothedClassifier.from_pretrained(network, range(10), SplitNoise(3.5), **settings)
    forward = (torch.nn.Module, "__call__")
    rows = [stages("MNIST network", clf, images, forward, bare, 2**11, repeats)]

    X, y = load_breast_cancer(return_X_y=True)
    X = minmax_scale(X)
    table = np.tile(X, (2**16 // len(X) + 1, 1))[: 2**16]
    torch.manual_seed(0)
    small = small_network().eval()
    # Larger logits keep rows away from ties, as training would.
    small[-1].weight.data *= 10
    clf = SmoothedClassifier.from_pretrained(small, range(2), SplitNoise(1.0), **settings)
    bare = bare_network(small, torch.from_numpy(table).float())
    rows.append(stages("network, 30 features", clf, X, forward, bare, 2**16, repeats))
    linear = LogisticRegression(max_iter=10_000).fit(X, y)
    clf = SmoothedClassifier.from_pretrained(linear, range(2), SplitNoise(1.0), **settings)
    predict, bare = (LogisticRegression, "predict"), bare_estimator(linear, table)
    rows.append(stages("LogisticRegression", clf, X, predict, bare, 2**16, repeats))
    return rows
