"""Give stability training a fair trial on MNIST: what its weight, its loss, its schedule and its cost change.

All trials train the same network on the same 4,000 images with the recipe of section 3.1, and certify the same held-out
images. Cost counts images that the network is trained on: a step of stability training takes two noisy copies of each.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import load_mnist
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from torch import nn

from smoothcert import (
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
    average_certified_radius,
    certified_accuracy_score,
)
from smoothcert.training import CosineSchedule, NoisyModule, StabilityLoss, make_net, noisy_statistics

RADII = [0.0, 1.0, 2.0, 3.0]

#: Settings that differ from those of the paper: weight C = 6 from the first epoch on, cross-entropy of one copy.
TRIALS: dict[str, dict[str, Any]] = {
    "augmentation": {"weight": None},
    "augmentation, twice the epochs": {"weight": None, "epochs": 2.0},
    "stability, C=6": {},
    "stability, C=6, twice the epochs": {"epochs": 2.0},
    "stability, C=6, cross-entropy of both copies": {"both": True},
    "stability, C=6, warm-up": {"warm_up": True},
    "stability, C=6, warm-up, both": {"warm_up": True, "both": True},
    "stability, C=6, a third of the rate": {"rate": 1 / 3},
    "stability, C=2": {"weight": 2.0},
    "stability, C=1, both": {"weight": 1.0, "both": True},
    "augmentation, batch norm": {"weight": None, "norm": True},
    "stability, C=6, batch norm": {"norm": True},
    "stability, C=6, batch norm, warm-up, both": {"norm": True, "warm_up": True, "both": True},
    "augmentation, 8 times the epochs": {"weight": None, "epochs": 8.0},
    "stability, C=6, 4 times the epochs": {"epochs": 4.0},
    "stability, C=6, warm-up, 4 times the epochs": {"epochs": 4.0, "warm_up": True},
}


class BothCopies(StabilityLoss):
    """The mean cross-entropy of both copies in place of that of the first."""

    def forward(self, input: Any, target: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Return the loss of a pair of logits, or of a single one."""
        if not isinstance(input, tuple):
            return super().forward(input, target)
        first, second = super().forward(input, target), nn.functional.cross_entropy(input[1], target)
        return first + (second - nn.functional.cross_entropy(input[0], target)) / 2


class WarmUp(Callback):
    """Raise the weight of the stability term from 0 over the first half of the epochs."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Set the weight of the epoch."""
        done = (len(net.history) - 1) / net.max_epochs
        net.criterion_.stability_weight = self.weight_ * min(1.0, 2 * done)

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Take the criterion's weight as the last one."""
        self.weight_ = net.criterion_.stability_weight


def network(norm: bool) -> nn.Module:
    """Return the network of the other benchmarks, with batch normalization after each layer or without."""

    def after(layer: nn.Module, normalize: nn.Module) -> list[nn.Module]:
        return [layer, *([normalize] if norm else []), nn.ReLU()]

    return nn.Sequential(
        *after(nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=2), nn.BatchNorm2d(16)),
        *after(nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(32)),
        nn.Flatten(),
        *after(nn.Linear(32 * 7 * 7, 64), nn.BatchNorm1d(64)),
        nn.Linear(64, 10),
    )


def train(X: Any, y: Any, noise: Any, seed: int, *, max_epochs: int, lr: float, trial: dict[str, Any]) -> nn.Module:
    torch.manual_seed(seed)
    weight = trial.get("weight", 6.0)
    center, scale = noisy_statistics(X, noise, seed=seed)
    copies = 1 if weight is None else 2
    model = NoisyModule(
        network(trial.get("norm", False)), noise, center=center, scale=scale, n_copies=copies, seed=seed
    )
    callbacks: list[Any] = [CosineSchedule()] + ([WarmUp()] if trial.get("warm_up") else [])
    loss: dict[str, Any] = {}
    if weight is not None:
        loss = {
            "criterion": BothCopies if trial.get("both") else StabilityLoss,
            "criterion__stability_weight": weight,
        }
    epochs = round(max_epochs * trial.get("epochs", 1.0))
    net = make_net(model, max_epochs=epochs, lr=lr * trial.get("rate", 1.0), callbacks=callbacks, **loss)
    net.fit(X, y)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", choices=["uniform", "split"], default="uniform")
    parser.add_argument("--lam", type=float, default=3.5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--inputs", type=int, default=300, help="inputs to certify")
    parser.add_argument("--samples", type=int, default=1000, help="votes per input")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trials", type=int, nargs="*", help="their numbers, from 0; all by default")
    arguments = parser.parse_args()
    X, y = load_mnist()
    X, X_test, y, y_test = train_test_split(X, y, test_size=1000, stratify=y, random_state=0)
    X_test, y_test = X_test[: arguments.inputs], y_test[: arguments.inputs]
    noise = (UniformNoise if arguments.noise == "uniform" else SplitNoise)(arguments.lam)
    names, rows = list(TRIALS), []
    for seed in range(arguments.seeds):
        for name in names if arguments.trials is None else [names[i] for i in arguments.trials]:
            trial, start = TRIALS[name], time.process_time()
            model = train(X, y, noise, seed, max_epochs=arguments.epochs, lr=arguments.lr, trial=trial)
            seconds = time.process_time() - start
            clf = SmoothedClassifier.from_pretrained(
                model, range(10), noise, n_samples=arguments.samples, random_state=0
            )
            certificates = clf.certify(X_test)
            row = {
                "trial": name,
                "seed": seed,
                "cost": trial.get("epochs", 1.0) * (1 + (trial.get("weight", 6) is not None)),
            }
            row |= {f"at {r:g}": certified_accuracy_score(y_test, certificates, r) for r in RADII}
            row["mean radius"] = average_certified_radius(y_test, certificates, max_radius=X[0].size)
            rows.append(row | {"cpu s": seconds})
            print(row, flush=True)
    table = pd.DataFrame(rows).groupby("trial", sort=False).mean().drop(columns="seed")
    print(f"\n{noise}, {len(X)} images, {arguments.epochs} epochs, means over {arguments.seeds} seeds\n")
    print(table.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
