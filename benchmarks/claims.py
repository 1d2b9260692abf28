"""Measure the paper's claims on MNIST: one network for each noise, all certificates from one drawing of votes each.

Prints certified accuracies for each noise, sigma and way of training: Lipschitz, closed form, box and greedy in both
schemes, and what fewer votes and other alphas certify. ``docs/reproduced.md`` shows its numbers.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import load_mnist, mnist_network
from sklearn.model_selection import train_test_split

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
    certified_accuracy_score,
)
from smoothcert.training import make_net

RADII = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
NOISES = {"uniform": UniformNoise, "split": SplitNoise, "deterministic-split": DeterministicSplitNoise}


def scores(clf: SmoothedClassifier, X: Any, y: Any, votes: Any, **params: Any) -> dict[str, float]:
    """Return certified accuracies with other parameters for the same votes, and put the parameters back."""
    before = {name: getattr(clf, name) for name in params}
    certificates = clf.set_params(**params).certify(X, votes=votes)
    clf.set_params(**before)
    return {f"{radius:g}": certified_accuracy_score(y, certificates, radius) for radius in RADII}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[1.0, 2.0, 3.5])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--inputs", type=int, default=400, help="inputs to certify")
    parser.add_argument("--samples", type=int, default=10_000, help="votes per input")
    parser.add_argument("--trainings", nargs="+", default=["augment"], choices=["augment", "stability"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    X, y = load_mnist()
    X, X_test, y, y_test = train_test_split(X, y, test_size=1000, stratify=y, random_state=0)
    X_test, y_test = X_test[: arguments.inputs], y_test[: arguments.inputs]
    rows, start = [], time.process_time()
    for name, family in NOISES.items():
        for sigma in arguments.sigmas:
            for training in arguments.trainings:
                torch.manual_seed(arguments.seed)
                net = make_net(mnist_network(), lr=0.05, max_epochs=arguments.epochs)
                clf = SmoothedClassifier(
                    net, family.from_sigma(sigma, levels=255), training=training, n_samples=arguments.samples,
                    random_state=arguments.seed,
                ).fit(X, y)  # fmt: skip
                votes, kind = clf.count_votes(X_test), {"noise": name, "sigma": sigma, "training": training}
                ways: dict[str, dict[str, Any]] = {"Lipschitz": {"radius": "lipschitz"}}
                if family is not DeterministicSplitNoise:
                    ways |= {
                        "closed form": {"radius": BoxRadius(closed_form=True)},
                        "box": {"radius": "box"},
                        "greedy": {"radius": "greedy"},
                        "box, binary": {"radius": "box", "scheme": "binary"},
                        "box, alpha=0.1": {"radius": "box", "alpha": 0.1},
                        "box, alpha=1e-6": {"radius": "box", "alpha": 1e-6},
                    }
                for way, params in ways.items():
                    rows.append(kind | {"certificate": way} | scores(clf, X_test, y_test, votes, **params))
                if family is SplitNoise:
                    for n in (100, 1000):
                        fewer = clf.set_params(n_samples=n, radius="box").certify(X_test)
                        at = {f"{radius:g}": certified_accuracy_score(y_test, fewer, radius) for radius in RADII}
                        rows.append(kind | {"certificate": f"box, n={n}"} | at)
                    clf.set_params(n_samples=arguments.samples, radius="auto")
                print(kind, f"{time.process_time() - start:.0f} cpu s", flush=True)
    table = pd.DataFrame(rows)
    print(f"\nMNIST, {len(X)} training images, {len(X_test)} certified with {arguments.samples:,} votes\n")
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
