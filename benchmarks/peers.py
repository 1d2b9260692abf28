"""Certification with smoothcert against the Adversarial Robustness Toolbox and against the loop of research code.

All certify the same images with the same network, 100 votes to choose the class and n to bound its probability.
The toolbox knows Gaussian noise only, and is shown at its default batch size and at a larger one. The research loop
follows Cohen et al. (2019): per image, batches of 400 copies, noise from torch, counts on the host, Clopper-Pearson;
for splitting noise as well. `ratio` is the peer's time over ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from common import alternate, show, split_mnist, trained_network
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from smoothcert import GaussianNoise, SmoothedClassifier, SplitNoise

N_SELECTION, ALPHA, SIGMA, LAM = 100, 0.001, 0.5, 3.5
Draw = Callable[[torch.Tensor], torch.Tensor]


def gaussian(batch: torch.Tensor) -> torch.Tensor:
    return batch + SIGMA * torch.randn_like(batch)


def splitting(batch: torch.Tensor) -> torch.Tensor:
    split = 2 * LAM * torch.rand_like(batch)
    return (split.clamp(max=1) + (batch > split)) / 2


def gaussian_radius(p: float) -> float:
    return SIGMA * norm.ppf(p)


def splitting_radius(p: float) -> float:
    return LAM * (2 * p - 1)


def count(network: torch.nn.Module, x: torch.Tensor, n: int, draw: Draw, batch_size: int = 400) -> np.ndarray:
    """Count the votes on one image."""
    counts = np.zeros(10, dtype=int)
    with torch.no_grad():
        while n > 0:
            size = min(batch_size, n)
            n -= size
            votes = network(draw(x.repeat((size, 1, 1, 1)))).argmax(1)
            counts += np.bincount(votes.cpu().numpy(), minlength=10)
    return counts


def research_loop(
    network: torch.nn.Module, X: np.ndarray, n: int, draw: Draw, radius: Callable[[float], float]
) -> list[tuple[int, float]]:
    """Certify images one after the other; -1 is an abstention."""
    certificates = []
    for x in torch.from_numpy(X):
        top = count(network, x, N_SELECTION, draw).argmax()
        votes = count(network, x, n, draw)[top]
        p_a = proportion_confint(votes, n, alpha=2 * ALPHA, method="beta")[0]
        certificates.append((-1, 0.0) if p_a < 0.5 else (top, radius(p_a)))
    return certificates


def run(quick: bool) -> None:
    network, X = trained_network(quick), split_mnist()[1][: 2 if quick else 8]
    n = 1000 if quick else 10_000
    toolbox = PyTorchRandomizedSmoothing(
        network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=X.shape[1:],
        nb_classes=10,
        device_type="cpu",
        sample_size=N_SELECTION,
        scale=SIGMA,
        alpha=ALPHA,
    )
    settings = {"n_selection": N_SELECTION, "n_samples": n, "alpha": ALPHA, "random_state": 0}
    ours = {
        kind: SmoothedClassifier.from_pretrained(network, range(10), noise, radius="lipschitz", **settings)
        for kind, noise in {"Gaussian": GaussianNoise(SIGMA), "splitting": SplitNoise(LAM)}.items()
    }
    functions = {
        "toolbox, batches of 32": lambda: toolbox.certify(X, n),
        "toolbox, batches of 512": lambda: toolbox.certify(X, n, batch_size=512),
        "Gaussian loop": lambda: research_loop(network, X, n, gaussian, gaussian_radius),
        "splitting loop": lambda: research_loop(network, X, n, splitting, splitting_radius),
        "Gaussian": lambda: ours["Gaussian"].certify(X),
        "splitting": lambda: ours["splitting"].certify(X),
    }
    times = alternate(functions, repeats=3 if quick else 9)
    pairs = [(peer, kind) for peer in list(functions)[:2] for kind in ours]
    pairs += [(f"{kind} loop", kind) for kind in ours]
    rows = [
        {
            "peer": peer,
            "smoothcert": kind,
            "ratio": (times[peer] / times[kind]).median(),
            "target": ">= 3" if peer.startswith("toolbox") else ">= 1.2",
        }
        for peer, kind in pairs
    ]
    show(f"Time of a peer / time of smoothcert, {len(X)} images, n={n:,}", rows)
