"""
Draw the paper's figures from the stores of the CIFAR-10 and ImageNet scripts
=============================================================================

Figures 1 and 4 to 15 show CIFAR-10, 16 and 17 ImageNet, and 2 a formula. The script draws no votes and needs no
network: each curve comes from the votes of a store, by one radius strategy and scheme. It finds stores by their
names, such as ``split-1.75-stability.sqlite``. If a store is missing, the script says so and draws the rest of the
figure::

    python examples/cifar10_figures.py --cifar10 examples/output/cifar10 1 5 6
"""

# sphinx_gallery_thumbnail_path = "_static/cifar10.png"
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from smoothcert import (
    BoxRadius,
    Certificates,
    CertifiedAccuracyDisplay,
    LipschitzRadius,
    SplitNoise,
    UniformNoise,
    VoteCounts,
    certified_accuracy_curve,
)
from smoothcert.results.display import Curve
from smoothcert.runs.store import read_store

#: The paper's noise levels sigma (section 3), three in each of Figures 7 to 15, and those of Figures 16 and 17.
CIFAR10_SIGMAS = [0.15, *np.arange(0.25, 3.51, 0.25).tolist(), *np.arange(4, 8.1, 0.5).tolist(), 9.0, 10.0, 12.0]
IMAGENET_SIGMAS = [0.5, 1.25, 2.0, 2.75, 3.5, 4.5, 5.5]
PANELS = {7 + k: CIFAR10_SIGMAS[3 * k : 3 * k + 3] for k in range(9)}
PANELS |= {16: IMAGENET_SIGMAS[:4], 17: IMAGENET_SIGMAS[4:]}

#: Name of a curve: noise, radius strategy, color (Okabe and Ito 2008) and line style.
CURVES = {
    "uniform": ("uniform", "lipschitz", "#D55E00", "--"),
    "uniform++": ("uniform", "greedy", "#D55E00", "-"),
    "split": ("split", "lipschitz", "#0072B2", "--"),
    "split++": ("split", "greedy", "#0072B2", "-"),
    "deterministic": ("deterministic-split", "lipschitz", "#009E73", ":"),
}
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000"]

#: Share of inputs with the same predicted label from which on a classifier counts as constant.
CONSTANT = 0.99


# Stores


@dataclass(frozen=True)
class Result:
    """What a store holds: the votes of one network for the test images, and their labels."""

    path: Path
    noise: str
    sigma: float
    training: str

    @cached_property
    def y(self) -> NDArray[np.int64]:
        """Labels of the finished images."""
        return np.array(read_store(self.path).labels or [], dtype=np.int64)

    def certificates(self, radius: Any, scheme: str = "multiclass") -> Certificates:
        """Certify by a strategy and a scheme, from the votes of the images that are finished."""
        return Certificates.from_store(self.path, radius=radius, scheme=scheme, partial=True)

    @property
    def constant(self) -> bool:
        """Whether the smoothed classifier answers with one class, as uniform noise trained in vain does."""
        labels = self.certificates("lipschitz").labels
        return bool(np.unique(labels, return_counts=True)[1].max() >= CONSTANT * len(labels))


def find_results(folders: Iterable[Path]) -> list[Result]:
    """Return the stores in some folders, by their names."""
    pattern = re.compile(r"(uniform|split|deterministic-split)-([\d.]+)-(augment|stability)\.sqlite")
    paths = [path for folder in folders for path in sorted(folder.glob("*.sqlite"))]
    named = [(path, pattern.fullmatch(path.name)) for path in paths]
    found = [Result(path, match[1], float(match[2]), match[3]) for path, match in named if match]
    return [result for result in found if len(result.y)]


def select(results: list[Result], **wanted: Any) -> list[Result]:
    """Return the results with some attributes."""
    return [one for one in results if all(getattr(one, name) == value for name, value in wanted.items())]


# Curves


def envelope(results: list[Result], radius: Any, scheme: str = "multiclass") -> Curve:
    """Return the best certified accuracy of several networks at each radius."""
    found = [(one.y, one.certificates(radius, scheme)) for one in results]
    return Curve.envelope(Curve(*certified_accuracy_curve(y, certificates)) for y, certificates in found)


def draw(ax: Any, label: str, curve: Curve, **style: Any) -> None:
    CertifiedAccuracyDisplay({label: curve}, norm=1).plot(ax, linewidth=1.6, **style)


def draw_best(ax: Any, results: list[Result]) -> str:
    """Draw the five curves of Figures 1 and 5, and return what is missing."""
    missing = []
    for name, (noise, radius, color, style) in CURVES.items():
        useful = [one for one in select(results, noise=noise) if not one.constant]
        if useful:
            draw(ax, name, envelope(useful, radius), color=color, linestyle=style)
        else:
            missing.append(name)
    return f"without {', '.join(missing)}" if missing else ""


def finish(ax: Any, title: str, *, xlabel: str = r"$\ell_1$ radius", ylabel: str = "certified accuracy") -> None:
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize="medium")
    ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ax.grid(True, alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small")
    else:
        ax.text(0.5, 0.5, "no store", transform=ax.transAxes, ha="center")


def one_panel() -> tuple[Any, Any]:
    return plt.subplots(figsize=(6.4, 4.4), layout="constrained")


# Figures: each returns a matplotlib figure, and what is missing


def figure_1(cifar10: list[Result], imagenet: list[Result]) -> tuple[Any, str]:
    """Pointwise maxima over noise levels and ways of training."""
    fig, ax = one_panel()
    missing = draw_best(ax, cifar10)
    sigmas = sorted({one.sigma for one in cifar10})
    finish(ax, f"Figure 1: CIFAR-10, best of sigma = {', '.join(f'{sigma:g}' for sigma in sigmas)}")
    return fig, missing


def figure_2(cifar10: list[Result], imagenet: list[Result]) -> tuple[Any, str]:
    """Radii by Corollary 2.4, and by Corollary 2.7, for a few lam."""
    fig, ax = one_panel()
    p_a = np.linspace(0.5, 1, 501)[1:-1]
    room = np.ones((len(p_a), 40))
    for color, lam in zip(COLORS, (1.0, 2.0, 4.0, 8.0), strict=False):
        for strategy, style, name in (
            (LipschitzRadius(), "--", "Corollary 2.4"),
            (BoxRadius(closed_form=True), "-", "Corollary 2.7"),
        ):
            radii = strategy.radii(UniformNoise(lam), p_a, 1 - p_a, room, room)
            ax.plot(p_a, radii, color=color, linestyle=style, label=f"lam={lam:g}, {name}")
    finish(ax, "Figure 2: from probability to radius", xlabel="probability of the top class", ylabel=r"$\ell_1$ radius")
    ax.set_xlim(0.5, 1)
    return fig, ""


def figure_4(cifar10: list[Result], imagenet: list[Result]) -> tuple[Any, str]:
    """Effect of alpha and of the number of votes at lam = 6.92, by Corollary 2.7: closed form, binary scheme."""
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained", sharey=True)
    found = [one for one in cifar10 if one.noise == "split" and abs(one.sigma - 4) < 0.01]
    if not found:
        for ax in axes:
            finish(ax, "Figure 4: lam = 6.92")
        return fig, "needs a store of split noise, sigma=4"
    result, rng = found[0], np.random.default_rng(0)
    radii = result.certificates("greedy").radii
    at = np.linspace(0, 1.05 * np.max(radii, where=np.isfinite(radii), initial=0.5), 601)
    for color, alpha in zip(COLORS, (0.1, 0.01, 0.001, 1e-4, 1e-6), strict=False):
        axes[0].plot(at, closed_form_curve(result, at, alpha, None, rng), color=color, label=rf"$\alpha$ = {alpha:g}")
    most = VoteCounts.from_store(result.path).n_samples
    for color, n in zip(COLORS, (100, 1000, 10_000, 100_000), strict=False):
        if n <= most:
            axes[1].plot(at, closed_form_curve(result, at, 0.001, n, rng), color=color, label=f"n = {n:,}")
    finish(axes[0], f"Figure 4: lam = 6.92, n = {most:,}")
    finish(axes[1], r"$\alpha$ = 0.001", ylabel="")
    return fig, ""


def closed_form_curve(
    result: Result, at: NDArray[np.float64], alpha: float, n: int | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Certified accuracy by Corollary 2.7, from n of the votes: a random part of them is what n fresh ones are."""
    votes, noise = VoteCounts.from_store(result.path), SplitNoise.from_sigma(result.sigma, levels=255)
    selected = votes.selection.argmax(axis=1)
    right, total = votes.estimation[np.arange(len(votes)), selected], votes.estimation.sum(axis=1)
    if n is not None:
        right, total = rng.hypergeometric(right, total - right, n), np.full(len(votes), n)
    # Central intervals: each tail has half of their alpha.
    p_a = proportion_confint(right, total, alpha=2 * alpha, method="beta")[0]
    correct = (result.certificates("lipschitz").labels == result.y) & (p_a > 0.5)
    room, radii = np.ones((correct.sum(), 40)), np.full(len(votes), np.nan)
    radii[correct] = BoxRadius(closed_form=True).radii(noise, p_a[correct], 1 - p_a[correct], room, room)
    return np.array([(correct & (radii >= radius)).mean() for radius in at])


def figure_5(cifar10: list[Result], imagenet: list[Result]) -> tuple[Any, str]:
    """Deterministic and independent splitting noise, for networks of stability training."""
    fig, axes = plt.subplots(2, 1, figsize=(6.4, 7.6), layout="constrained")
    missing = []
    for ax, name, results in zip(axes, ("ImageNet", "CIFAR-10"), (imagenet, cifar10), strict=True):
        stable = [one for one in select(results, training="stability") if one.noise != "uniform"]
        for label, (noise, radius, color, style) in CURVES.items():
            useful = select(stable, noise=noise)
            if useful:
                draw(ax, label, envelope(useful, radius), color=color, linestyle=style)
            elif noise != "uniform":
                missing.append(f"{name} {label}")
        finish(ax, f"Figure 5: {name}, stability training, best of sigma at each radius")
    return fig, f"without {', '.join(missing)}" if missing else ""


def figure_6(cifar10: list[Result], imagenet: list[Result]) -> tuple[Any, str]:
    """Both schemes on the same votes: sigma = 2.5, noise augmentation."""
    fig, ax = one_panel()
    found = [one for one in select(cifar10, sigma=2.5, training="augment") if one.noise != "deterministic-split"]
    for result in found:
        for scheme, style in (("multiclass", "-"), ("binary", "--")):
            curve = envelope([result], "greedy", scheme)
            draw(ax, f"{result.noise}, {scheme}", curve, color=CURVES[result.noise][2], linestyle=style)
    finish(ax, "Figure 6: certification schemes, CIFAR-10, sigma = 2.5")
    return fig, "" if found else "needs stores of sigma=2.5, augment"


def panels(number: int, results: list[Result]) -> tuple[Any, str]:
    """One row for each noise level, one column for each way of training."""
    sigmas = PANELS[number]
    size = 9.6, 3 * len(sigmas)
    fig, axes = plt.subplots(len(sigmas), 2, figsize=size, layout="constrained", sharex="row", sharey=True)
    missing = []
    for row, sigma in zip(axes, sigmas, strict=True):
        for ax, training in zip(row, ("augment", "stability"), strict=True):
            found = [one for one in select(results, training=training) if abs(one.sigma - sigma) < 0.01]
            for name, (noise, radius, color, style) in CURVES.items():
                for one in select(found, noise=noise):
                    faint = {"alpha": 0.4} if one.constant else {}
                    label = f"{name}, a constant classifier" if one.constant else name
                    draw(ax, label, envelope([one], radius), color=color, linestyle=style, **faint)
            finish(ax, f"$\\sigma$ = {sigma:g}, {training}")
            if not found:
                missing.append(f"sigma={sigma:g} {training}")
    fig.suptitle(f"Figure {number}: {'ImageNet' if number > 15 else 'CIFAR-10'}")
    return fig, f"without {', '.join(missing)}" if missing else ""


FIGURES: dict[int, Callable[[list[Result], list[Result]], tuple[Any, str]]] = {
    1: figure_1,
    2: figure_2,
    4: figure_4,
    5: figure_5,
    6: figure_6,
    **{n: lambda cifar10, imagenet, n=n: panels(n, imagenet if n > 15 else cifar10) for n in PANELS},
}


@click.command(help=(__doc__ or "").split("=\n", 1)[-1])
@click.argument("figures", nargs=-1, type=click.Choice([str(number) for number in FIGURES]))
@click.option("--cifar10", multiple=True, type=click.Path(path_type=Path, exists=True), help="Folder of stores.")
@click.option("--imagenet", multiple=True, type=click.Path(path_type=Path, exists=True), help="Folder of stores.")
@click.option("--output", type=click.Path(path_type=Path), default="examples/output", show_default=True)
def main(figures: tuple[str, ...], cifar10: tuple[Path, ...], imagenet: tuple[Path, ...], output: Path) -> None:
    stores = find_results(cifar10), find_results(imagenet)
    output.mkdir(parents=True, exist_ok=True)
    for number in map(int, figures or FIGURES):
        fig, missing = FIGURES[number](*stores)
        path = output / f"paper_figure_{number}.png"
        fig.savefig(path, dpi=130)
        plt.close(fig)
        print(f"{path}{f': {missing}' if missing else ''}", flush=True)
    for one in [one for results in stores for one in results if one.constant]:
        print(f"{one.path} holds a classifier that is constant: it has learned nothing, and is left out of envelopes.")


if __name__ == "__main__":
    main()
