"""
Draw the figures of the paper, with MNIST instead of CIFAR-10
=============================================================

1  certified accuracy, the best of several lam at each radius, for three noise families and both kinds of certificates
2  from the probability of the top class to the radius, for three radius strategies and several lam
3  Example 2.9: the smallest overlap of two noises, with and without the box
4  the influence of alpha and of the number of votes
5  deterministic splitting noise and independent splitting noise with box certificates
6  the binary and the multiclass scheme
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from mnist import load_mnist, make_network
from sklearn.model_selection import train_test_split

from smoothcert import (
    BoxRadius,
    Certificates,
    CertifiedAccuracyDisplay,
    DeterministicSplitNoise,
    GreedyRadius,
    LipschitzRadius,
    Noise,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)
from smoothcert.training import make_net

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
L1_RADIUS = "l1 radius (1 = one pixel from black to white)"


class Mnist:
    """Networks trained on MNIST under any noise, and images held out for certification."""

    def __init__(self, n_images: int, n_samples: int, epochs: int) -> None:
        images, labels = load_mnist()
        self.X_train, X_test, self.y_train, y_test = train_test_split(
            images, labels, test_size=1000, stratify=labels, random_state=0
        )
        self.X, self.y = X_test[:n_images], y_test[:n_images]
        self.n_samples = n_samples
        self.epochs = epochs

    def fit(self, noise: Noise, **params: Any) -> SmoothedClassifier:
        """Train a small convolutional network under the noise."""
        torch.manual_seed(0)
        net = make_net(make_network(), lr=0.05, max_epochs=self.epochs)
        params = {"n_samples": self.n_samples, "random_state": 0} | params
        print(f"training under {noise}", flush=True)
        return SmoothedClassifier(net, noise, **params).fit(self.X_train, self.y_train)


def curve(ax: Any, y: np.ndarray, certificates: Certificates | list[Certificates], *, label: str, **style: Any) -> None:
    """Draw certified accuracy against the radius; a list is drawn as its envelope."""
    style = {"linestyle": "-", "linewidth": 1.6} | style
    CertifiedAccuracyDisplay.from_certificates({label: certificates}, y, ax=ax, **style)


def finish(ax: Any, title: str, *, xlabel: str = L1_RADIUS, ylabel: str = "certified accuracy") -> None:
    """Label the axes."""
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ax.grid(True, alpha=0.3)
    if ax.get_legend() is None:
        ax.legend(fontsize="small")


def figure_1(ax: Any, mnist: Mnist) -> None:
    """Pointwise maxima over noise magnitudes, with the Lipschitz and with the greedy certificate."""
    families: list[tuple[str, Callable[[float], Noise], bool]] = [
        ("uniform", UniformNoise, True),
        ("split", SplitNoise, True),
        ("deterministic split", DeterministicSplitNoise, False),
    ]
    for color, (name, family, has_box) in zip(COLORS, families, strict=False):
        found: dict[str, list[Certificates]] = {"lipschitz": [], "greedy": []}
        for lam in (1.0, 2.0, 4.0):
            clf = mnist.fit(family(lam))
            votes = clf.count_votes(mnist.X)
            for radius in ("lipschitz", "greedy") if has_box else ("lipschitz",):
                found[radius].append(clf.set_params(radius=radius).certify(mnist.X, votes=votes))
        for radius, style, suffix in (("lipschitz", "--", ""), ("greedy", "-", "++")):
            if found[radius]:
                curve(ax, mnist.y, found[radius], color=color, linestyle=style, label=f"{name}{suffix}")
    finish(ax, "Figure 1: best of lam = 1, 2, 4 at each radius")


def figure_2(ax: Any, mnist: Mnist) -> None:
    """Radii of an input in a corner of the box, and of one in its middle."""
    p_a = np.linspace(0.5001, 0.9999, 500)
    corner, middle = np.zeros((500, 20)), np.full((500, 20), 0.5)
    for color, lam in zip(COLORS, (1.0, 2.0, 4.0), strict=False):
        noise = UniformNoise(lam)
        draws = [
            (LipschitzRadius(), corner, "--", f"lam={lam:g}, Lipschitz"),
            (BoxRadius(), corner, "-", f"lam={lam:g}, box"),
            (GreedyRadius(), middle, ":", f"lam={lam:g}, greedy at x = 1/2"),
        ]
        for strategy, x, style, label in draws:
            radii = strategy.radii(noise, p_a, 1 - p_a, x, 1 - x)
            ax.plot(p_a, radii, color=color, linestyle=style, label=label)
    finish(ax, "Figure 2: from probability to radius", xlabel="probability of the top class", ylabel="l1 radius")
    ax.set_xlim(0.5, 1)


def figure_3(ax: Any, mnist: Mnist) -> None:
    """Show Example 2.9: the least overlap at l1 distance .8 from (.4, .6), for lam = 1."""
    x = np.array([0.4, 0.6])
    inside, outside = np.array([1.0, 0.4]), np.array([1.2, 0.6])
    for center, color, label in (
        (x, COLORS[2], "x = (.4, .6)"),
        (inside, COLORS[1], "worst y inside the box: overlap .63"),
        (outside, COLORS[0], "worst y anywhere: overlap .60"),
    ):
        ax.add_patch(Rectangle(center - 1, 2, 2, facecolor=color, alpha=0.2, edgecolor=color))
        ax.plot(*center, "o", color=color, label=label)
    ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, linewidth=2, label="the box"))
    ax.set(xlim=(-0.8, 2.4), ylim=(-1.6, 1.9), aspect="equal", xlabel="feature 1", ylabel="feature 2")
    ax.set_title("Figure 3: supports of uniform noise, lam = 1")
    ax.legend(fontsize="small", loc="lower right")
    p_a, p_b = np.array([0.88]), np.array([0.12])
    for strategy in (LipschitzRadius(), GreedyRadius()):
        found = strategy.radii(UniformNoise(1.0), p_a, p_b, x[None], 1 - x[None])[0]
        print(f"Example 2.9, h(x) = .88: {strategy} certifies {found:.4f}")


def figure_4(ax: Any, mnist: Mnist) -> None:
    """One network, many alpha from the same votes, and several numbers of votes."""
    clf = mnist.fit(SplitNoise(4.0), radius=BoxRadius(closed_form=True))
    votes = clf.count_votes(mnist.X)
    for color, alpha in zip(COLORS, (0.1, 0.001, 1e-6), strict=False):
        certificates = clf.set_params(alpha=alpha).certify(mnist.X, votes=votes)
        curve(ax, mnist.y, certificates, color=color, label=f"alpha={alpha:g}, n={mnist.n_samples}")
    clf.set_params(alpha=0.001)
    for color, n_samples in zip(COLORS[3:], (100, 500), strict=False):
        certificates = clf.set_params(n_samples=n_samples).certify(mnist.X)
        curve(ax, mnist.y, certificates, color=color, linestyle="--", label=f"alpha=0.001, n={n_samples}")
    finish(ax, "Figure 4: alpha and the number of votes (lam=4)")


def figure_5(ax: Any, mnist: Mnist) -> None:
    """Compare noise of one magnitude, deterministic and independent."""
    for color, lam in zip(COLORS, (1.5, 4.0), strict=False):
        exact = mnist.fit(DeterministicSplitNoise(lam))
        curve(ax, mnist.y, exact.certify(mnist.X), color=color, linestyle="--", label=f"deterministic, lam={lam:g}")
        sampled = mnist.fit(SplitNoise(lam))
        curve(ax, mnist.y, sampled.certify(mnist.X), color=color, label=f"independent, greedy, lam={lam:g}")
    finish(ax, "Figure 5: deterministic and independent splitting noise")


def figure_6(ax: Any, mnist: Mnist) -> None:
    """Both schemes on the same votes."""
    for color, family in zip(COLORS, (UniformNoise, SplitNoise), strict=False):
        clf = mnist.fit(family.from_sigma(2.5))
        votes = clf.count_votes(mnist.X)
        for scheme, style in (("multiclass", "-"), ("binary", "--")):
            certificates = clf.set_params(scheme=scheme).certify(mnist.X, votes=votes)
            curve(ax, mnist.y, certificates, color=color, linestyle=style, label=f"{family.__name__}, {scheme}")
    finish(ax, "Figure 6: certification schemes (sigma=2.5)")


FIGURES = {1: figure_1, 2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5, 6: figure_6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=int, nargs="*", choices=sorted(FIGURES), help="figures to draw (default: all)")
    parser.add_argument("--images", type=int, default=200, help="held-out images to certify")
    parser.add_argument("--samples", type=int, default=2000, help="votes per image")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("examples/output"))
    arguments = parser.parse_args()

    mnist = Mnist(arguments.images, arguments.samples, arguments.epochs)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for number in arguments.figures or sorted(FIGURES):
        fig, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        FIGURES[number](ax, mnist)
        path = arguments.output / f"figure_{number}.png"
        fig.savefig(path, dpi=130)
        plt.close(fig)
        print(path, flush=True)


if __name__ == "__main__":
    main()
