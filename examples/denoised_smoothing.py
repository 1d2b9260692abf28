"""
Denoised smoothing: put a denoiser in front of a classifier that never met noise, and certify the two together
==============================================================================================================

The classifier is trained on clean digits and then frozen. The denoiser is trained in front of it, under noise, on the
classifier's own loss (the "stability" variant of Salman et al., Denoised Smoothing, NeurIPS 2020). smoothcert treats
the two as one network.
"""

from __future__ import annotations

import argparse
from typing import Self

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise, certified_accuracy_score
from smoothcert.training import make_net


class Frozen(nn.Module):
    """A network that is not trained: its weights stay, and it is always in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.network(X)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def make_denoiser() -> nn.Module:
    """Return a small convolutional network from images to images."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 1, 3, padding=1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=1000, help="votes per image")
    arguments = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=200, stratify=y, random_state=0)
    settings = {"noise": SplitNoise(lam=0.75), "n_samples": arguments.samples, "random_state": 0}

    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    clean = make_net(classifier, lr=0.05, max_epochs=arguments.epochs).fit(X_train, y_train)
    trained = clean.module_.eval()
    print(f"accuracy of the classifier on clean digits: {(clean.predict(X_test) == y_test).mean():.3f}")

    alone = SmoothedClassifier.from_pretrained(trained, range(10), **settings)
    net = make_net(nn.Sequential(make_denoiser(), Frozen(trained)), lr=0.02, max_epochs=arguments.epochs)
    denoised = SmoothedClassifier(net, **settings).fit(X_train, y_train)
    for name, clf in (("without denoiser", alone), ("with denoiser", denoised)):
        scores = certified_accuracy_score(y_test, clf.certify(X_test), [0.0, 0.25, 0.5])
        print(f"{name:17} certified accuracy at l1 radius 0, .25, .5: {np.round(scores, 3)}")

    frozen = denoised.estimator_.module_[1].network
    same = all(torch.equal(a, b) for a, b in zip(trained.parameters(), frozen.parameters(), strict=True))
    print(f"weights of the classifier unchanged: {same}")


if __name__ == "__main__":
    main()
