"""Compare the time of count_votes with that of the bare model on the same number of rows.

Prints, for a convolutional network on MNIST-sized images and for scikit-learn estimators on digits, how many times
the bare model's time a drawing of votes takes, at several batch sizes. Both run alternately in one process, and the
median ratio is shown: absolute times on a shared machine mean little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import mnist_network
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bare_network(module: nn.Module, rows: int, batch: int, shape: tuple[int, ...]) -> Callable[[], None]:
    noisy = torch.rand(batch, *shape)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(rows // batch):
                module(noisy).argmax(dim=1)

    return run


def bare_estimator(estimator: Any, rows: int, batch: int, n_features: int) -> Callable[[], None]:
    noisy = np.random.default_rng(0).random((batch, n_features))

    def run() -> None:
        for _ in range(rows // batch):
            estimator.predict(noisy)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    network = mnist_network().eval()
    X, y = load_digits(return_X_y=True)
    models = {
        "MNIST network": network,
        "LogisticRegression": LogisticRegression(max_iter=1000).fit(X / 16, y),
        "RandomForest(50)": RandomForestClassifier(50, random_state=0).fit(X / 16, y),
    }
    rows = arguments.inputs * arguments.samples
    results = []
    for name, model in models.items():
        shape = (1, 28, 28) if name == "MNIST network" else (64,)
        inputs = np.random.default_rng(0).random((arguments.inputs, *shape)).astype(np.float32)
        bare = bare_network if name == "MNIST network" else bare_estimator
        limit = bare(model, rows, 1024, shape if name == "MNIST network" else 64)
        for batch_size in (128, 256, 512, 1024, 2048, 8192, "auto"):
            clf = SmoothedClassifier.from_pretrained(
                model,
                range(10),
                SplitNoise(lam=3.5),
                n_selection=1,
                n_samples=arguments.samples,
                batch_size=batch_size,
                random_state=0,
            )
            ratios = [
                seconds(lambda clf=clf, inputs=inputs: clf.count_votes(inputs)) / seconds(limit)
                for _ in range(arguments.repeats)
            ]
            results.append({"model": name, "batch_size": batch_size, "ratio": np.median(ratios)})
    table = pd.DataFrame(results).pivot(index="batch_size", columns="model", values="ratio")
    print("Time of count_votes / time of the bare model at batches of 1024 (medians):\n")
    print(table.to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
