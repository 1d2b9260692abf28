"""
Train under noise in a PyTorch loop of your own, then certify the network as it is
==================================================================================

`NoisyModule` adds fresh noise to every batch in training mode, and centers and scales inputs in every mode.
`StabilityLoss` is the loss of stability training. Both are ordinary torch modules and fit any training framework.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smoothcert import SmoothedClassifier, SplitNoise, certified_accuracy_score
from smoothcert.training import NoisyModule, StabilityLoss, noisy_statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2000, help="votes per image")
    arguments = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=200, stratify=y, random_state=0)
    noise = SplitNoise(lam=1.0)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    center, scale = noisy_statistics(X_train, noise, seed=0)
    model = NoisyModule(network, noise, center=center, scale=scale, n_copies=2, seed=0)

    loader = DataLoader(TensorDataset(torch.from_numpy(X_train), torch.from_numpy(y_train)), 64, shuffle=True)
    criterion = StabilityLoss(stability_weight=6.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=arguments.epochs)
    model.train()
    for _ in range(arguments.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        schedule.step()
    print(f"loss of the last batch: {loss.item():.3f}")

    clf = SmoothedClassifier.from_pretrained(
        model, classes=range(10), noise=noise, n_samples=arguments.samples, random_state=0
    )
    certificates = clf.certify(X_test)
    for radius in (0.0, 0.25, 0.5):
        print(f"certified accuracy at l1 radius {radius}: {certified_accuracy_score(y_test, certificates, radius):.3f}")


if __name__ == "__main__":
    main()
