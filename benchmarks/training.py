"""Compare noise-free training, noise augmentation and stability training, and our loop with a plain one.

For MNIST (a convolutional network), digits (a linear pipeline and a small network) and breast_cancer (a linear
pipeline), under uniform and splitting noise of several widths: accuracy of the base model on clean inputs, accuracy of
the smoothed classifier, certified accuracies, and the mean certified radius, in which wrong labels and abstentions
count 0. Then the same network is trained by a plain PyTorch loop of the paper's recipe, with noise from torch, and both
are compared in accuracy and in time per epoch, alternating in one process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import load_mnist, mnist_network
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise, UniformNoise, certified_accuracy_score
from smoothcert.training import make_net, noisy_statistics

RADII = [0.0, 0.5, 1.0, 2.0, 3.0]


def data_sets() -> dict[str, tuple[Any, Any, Any, list[float]]]:
    """Return inputs, labels, base model and widths of noise by name."""
    images, image_labels = load_mnist()
    digits, digit_labels = load_digits(return_X_y=True)
    digits = (digits / 16).astype(np.float32)
    table, table_labels = load_breast_cancer(return_X_y=True)
    table = (table - table.min(axis=0)) / (table.max(axis=0) - table.min(axis=0))
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    small = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return {
        "MNIST": (images, image_labels, mnist_network(), [1.0, 3.5, 6.06]),
        "digits, network": (digits, digit_labels, small, [0.5, 1.0, 2.0]),
        "digits, linear": (digits, digit_labels, linear, [0.5, 1.0, 2.0]),
        "breast_cancer": (table, table_labels, linear, [0.5, 1.0, 2.0]),
    }


def evaluate(clf: SmoothedClassifier, X: Any, y: Any) -> dict[str, float]:
    """Return the benchmark's columns for a fitted classifier."""
    labels, radii = certificates = clf.certify(X)
    base = clf.estimator_.predict(X)
    return {
        "clean": float((base == y).mean()),
        "smoothed": float((labels == y).mean()),
        **{f"at {radius:g}": certified_accuracy_score(y, certificates, radius) for radius in RADII},
        "mean radius": float(np.where(labels == y, np.nan_to_num(radii, posinf=np.nan), 0.0).mean()),
    }


def compare_trainings(arguments: argparse.Namespace) -> None:
    """Print one table per data set."""
    for name, (X, y, base, widths) in data_sets().items():
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
        X_test, y_test = X_test[: arguments.inputs], y_test[: arguments.inputs]
        is_network = isinstance(base, nn.Module)
        rows = []
        for noise_type in (UniformNoise, SplitNoise):
            for lam in widths:
                for training in (None, "augment", "stability") if is_network else (None, "augment"):
                    torch.manual_seed(0)
                    estimator = make_net(base, lr=0.05, max_epochs=arguments.epochs) if is_network else base
                    clf = SmoothedClassifier(
                        estimator, noise_type(lam), training=training, n_samples=arguments.samples, random_state=0
                    )
                    clf.fit(X_train, y_train)
                    key = {"noise": noise_type.__name__, "lam": lam, "training": str(training)}
                    rows.append(key | evaluate(clf, X_test, y_test))
        print(f"\n{name}: {len(X_train)} training inputs, {len(X_test)} certified with {arguments.samples} votes\n")
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format), flush=True)


def plain_loop(X: Any, y: Any, lam: float, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """Train as research code does, with splitting noise from torch; return the network and seconds per epoch."""
    torch.manual_seed(seed)
    network = mnist_network()
    center, scale = (
        torch.as_tensor(value, dtype=torch.float32) for value in noisy_statistics(X, SplitNoise(lam), seed=0)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    network.train()
    start = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            split = torch.rand_like(images) * 2 * lam
            noisy = (split.clamp(max=1) + (images > split)) / 2
            loss = nn.functional.cross_entropy(network((noisy - center) / scale), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    seconds = (time.perf_counter() - start) / epochs
    return nn.Sequential(Standardize(center, scale), network).eval(), seconds


class Standardize(nn.Module):
    """Subtract and divide."""

    def __init__(self, center: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.center, self.scale = center, scale

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return standardized inputs."""
        return (X - self.center) / self.scale


def compare_loops(arguments: argparse.Namespace) -> None:
    """Print both loops side by side, over several seeds."""
    X, y = load_mnist()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1000, stratify=y, random_state=0)
    noise, rows, ratios = SplitNoise(3.5), [], []
    for seed in range(arguments.seeds):
        network, plain_seconds = plain_loop(X_train, y_train, noise.lam, arguments.epochs, seed)
        plain = SmoothedClassifier.from_pretrained(
            network, range(10), noise, n_samples=arguments.samples, random_state=0
        )
        torch.manual_seed(seed)
        net = make_net(mnist_network(), lr=0.05, max_epochs=arguments.epochs)
        start = time.perf_counter()
        ours = SmoothedClassifier(net, noise, n_samples=arguments.samples, random_state=seed).fit(X_train, y_train)
        our_seconds = (time.perf_counter() - start) / arguments.epochs
        ratios.append(our_seconds / plain_seconds)
        for name, clf in (("plain loop", plain), ("smoothcert", ours)):
            certificates = clf.certify(X_test[: arguments.inputs])
            scores = {f"at {r:g}": certified_accuracy_score(y_test[: arguments.inputs], certificates, r) for r in RADII}
            rows.append({"loop": name, "smoothed": clf.score(X_test, y_test)} | scores)
    print(f"\nMNIST, splitting noise, lam=3.5, {arguments.epochs} epochs, means over {arguments.seeds} seeds\n")
    print(pd.DataFrame(rows).groupby("loop").mean().to_string(float_format="{:.3f}".format))
    print(f"\ntime per epoch, smoothcert / plain loop: median {np.median(ratios):.2f} of {np.round(ratios, 2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--inputs", type=int, default=300, help="inputs to certify")
    parser.add_argument("--samples", type=int, default=1000, help="votes per input")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the comparison with a plain loop")
    parser.add_argument("--only", choices=["trainings", "loops"], help="one of the two comparisons")
    arguments = parser.parse_args()
    if arguments.only != "loops":
        compare_trainings(arguments)
    if arguments.only != "trainings":
        compare_loops(arguments)


if __name__ == "__main__":
    main()
