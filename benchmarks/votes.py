"""The time of count_votes against that of the bare network on as many rows.

The bare network is ``torch.inference_mode()``, the network and argmax on one fixed noisy batch, at its best batch size,
which is searched first. smoothcert draws the noise, votes and counts, at its own batch size.
"""

from __future__ import annotations

import numpy as np
import torch
from cifar10 import wide_resnet
from common import bare_network, best_batch, powers, ratio, show, split_mnist, trained_network

from smoothcert import SmoothedClassifier, SplitNoise


def compare(name: str, network: torch.nn.Module, X: np.ndarray, n: int, sizes: list[int], repeats: int) -> dict:
    """Return one row of the table."""
    noise = SplitNoise(lam=3.5)
    clf = SmoothedClassifier.from_pretrained(network, range(10), noise, n_selection=1, n_samples=n, random_state=0)
    rows = len(X) * (n + 1)
    split = 2 * noise.lam * torch.rand(max(sizes), *X.shape[1:])
    noisy = (split.clamp(max=1) + (torch.from_numpy(X[0]) > split)) / 2
    bare = bare_network(network, noisy)
    best = best_batch(bare, sizes, rows=min(rows, 4096))
    return {
        "network": name,
        "rows": rows,
        "best batch": best,
        "ratio": ratio(lambda: clf.count_votes(X), lambda: bare(rows, best), repeats),
    }


def run(quick: bool) -> None:
    images = split_mnist()[1][: 1 if quick else 4]
    torch.manual_seed(0)
    resnet = wide_resnet(40, 2).eval()
    # Larger logits keep rows away from ties, as training would.
    resnet.head.weight.data *= 10
    colors = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    n, n_resnet = (2000, 63) if quick else (10_000, 511)
    mnist = compare(
        "MNIST network", trained_network(quick), images, n, powers(64, 2048), repeats=3 if quick else 15
    ) | {"target": "<= 1.15"}
    wide = compare("WideResNet-40-2", resnet, colors, n_resnet, powers(16, 64 if quick else 512), 1 if quick else 7)
    show("Time of count_votes / time of the bare network at its best batch size", [mnist, wide | {"target": "<= 1.03"}])
