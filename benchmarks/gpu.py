"""Whether a GPU computes what a CPU does, and how fast: in a few minutes, without data or internet.

    python benchmarks/gpu.py                      on a CUDA device
    python benchmarks/gpu.py --device cpu --tiny  the same steps at small sizes, to see that they work

The networks are untrained. It needs torch with CUDA, Triton and what ``pip install smoothcert`` installs. Results are
printed, and written to ``gpu.json`` and ``gpu.md``, row by row. A ratio is the median over repeats in which both
sides run alternately.
"""

from __future__ import annotations

import copy
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import nn

ROOT = Path(__file__).parents[1]
# Before site-packages, where others may have a package named tests.
sys.path[1:1] = [str(ROOT), str(ROOT / "examples")]

from cifar10 import wide_resnet  # noqa: E402
from common import (  # noqa: E402
    OUTPUT,
    alternate,
    as_it_votes,
    bare_network,
    best_batch,
    mnist_network,
    powers,
    ratio,
    rows_per_second,
    seconds,
)
from imagenet import resnet_50  # noqa: E402
from training import loader_of, train_plainly  # noqa: E402

from smoothcert import SmoothedClassifier, SplitNoise, TorchInference, UniformNoise  # noqa: E402
from smoothcert.noise.lattice import LatticeNoise  # noqa: E402
from smoothcert.sampling.counters import NoisyBatches, noisy_batches  # noqa: E402
from smoothcert.training import make_net, noisy_statistics  # noqa: E402
from tests.noise import reference  # noqa: E402

#: Time of our votes over that of the bare network that is aimed at.
GOAL = 1.05

RADII = [0.5, 1.0, 2.0, 3.0]

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """Where to measure, and how much."""

    device: str
    tiny: bool

    def smooth(self, network: nn.Module, n_classes: int, noise: LatticeNoise, **params: Any) -> SmoothedClassifier:
        """Return a smoothed network on the device."""
        params = {"device": self.device, "n_selection": 1, "random_state": 0} | params
        return SmoothedClassifier.from_pretrained(network, range(n_classes), noise, **params)

    def networks(self) -> dict[str, tuple[nn.Module, tuple[int, ...], int, TorchInference, list[int]]]:
        """Return by name: a network, the shape of its inputs, its classes, how it runs, and batch sizes to try."""
        torch.manual_seed(0)
        tiny = self.tiny
        bf16, fp16 = (TorchInference(autocast=half, channels_last=True) for half in ("bfloat16", "float16"))
        wide, side = wide_resnet(10, 1, patch=4) if tiny else wide_resnet(40, 2), 32 if tiny else 224
        resnet = resnet_50(1000, depths=(1, 1, 1, 1) if tiny else (3, 4, 6, 3))
        compiled = TorchInference(autocast="bfloat16", channels_last=True, compile=not tiny)
        found = {
            "MNIST network": (mnist_network(), (1, 28, 28), 10, TorchInference(), powers(2**15, 2**18)),
            "WideResNet-40-2, fp32": (wide, (3, 32, 32), 10, TorchInference(), powers(2048, 8192)),
            "WideResNet-40-2, bf16": (wide, (3, 32, 32), 10, bf16, powers(2048, 8192)),
            "WideResNet-40-2, fp16": (wide, (3, 32, 32), 10, fp16, powers(2048, 8192)),
            "ResNet-50, bf16, compiled": (resnet, (3, side, side), 1000, compiled, [256]),
        }
        for network, *_ in found.values():
            network.to(self.device).eval()
        for head in (found["MNIST network"][0][-1], wide.head, resnet.head):
            # Larger logits keep rows away from ties, as training would.
            head.weight.data *= 10
        return {name: (*given, [32] if tiny else sizes) for name, (*given, sizes) in found.items()}


def row(measured: str, value: float, unit: str, against: str = "", ratio: float | None = None, goal: str = "") -> Any:
    return {"measured": measured, "value": value, "unit": unit, "against": against, "ratio": ratio, "goal": goal}


def images(n: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return images of random pixels, all of them 8-bit numbers."""
    return np.random.default_rng(0).integers(256, size=(n, *shape)).astype(np.float32) / np.float32(255)


def batches_on(setting: Setting, noise: LatticeNoise, X: NDArray[Any], dtype: torch.dtype) -> NoisyBatches:
    """Return batches of noisy copies, drawn where a network on the device would get them."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(X[0].size, 2)).to(setting.device, dtype)
    sampler = setting.smooth(network, 2, noise).algorithm(X.shape[1:]).sampler(0)
    keys = np.random.default_rng(1).integers(2**32, size=(len(X), 4), dtype=np.uint32)
    return noisy_batches(sampler.voter, sampler.mechanism, sampler.mechanism.points(X), keys)


def kernel_integers(setting: Setting) -> Rows:
    """Compare noise with its definition in NumPy, bit by bit."""
    wrong = compared = 0
    segments = np.array([[0, 0, 5], [1, 3, 70], [2, 1000, 1]])
    families, levels, sizes = (
        (UniformNoise, SplitNoise),
        (1, 255, 2**16, "auto"),
        (1, 30) if setting.tiny else (1, 30, 3072),
    )
    for family, lam, q, d, dtype in product(families, (0.3, 1.0, 6.06), levels, sizes, (torch.float32, torch.float64)):
        if q == 1 and lam < 0.5:
            continue  # less than one offset
        noise, X = family(lam, levels=q), np.random.default_rng(0).integers(2, size=(3, d)).astype(np.float64)
        batches = batches_on(setting, noise, X, dtype)
        drawn = torch.as_tensor(batches.draw(segments)).cpu().numpy()
        keys = np.random.default_rng(1).integers(2**32, size=(3, 4), dtype=np.uint32)
        expected = np.empty_like(drawn)
        reference.sample(noise.recipe, noise.to_points(X), keys, segments, expected)
        wrong, compared = wrong + int((drawn != expected).sum()), compared + drawn.size
    yield row("values of noise that differ from NumPy's", wrong, f"of {compared:,}", goal="0")


def counts_as_on_the_cpu(setting: Setting) -> Rows:
    """Compare vote counts, without TF32, for each family and kind of levels."""
    network, shape, n_classes, *_ = setting.networks()["MNIST network"]
    X, n_samples = images(4, shape), 100 if setting.tiny else 10_000
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        for noise in (UniformNoise(1.0), UniformNoise(1.0, levels=255), SplitNoise(3.5), SplitNoise(3.5, levels=255)):
            counts = [
                setting.smooth(network, n_classes, noise, n_samples=n_samples, device=device).count_votes(X).estimation
                for device in (setting.device, "cpu")
            ]
            different = int(np.abs(counts[0] - counts[1]).sum()) // 2
            yield row(f"votes that differ from the CPU's, {noise}", different, f"of {counts[1].sum():,}", goal="0")
    finally:
        # The other parts measure with TF32, also after an error here.
        torch.backends.cudnn.allow_tf32 = before


def votes_of(setting: Setting, beginning: str) -> Rows:
    """Compare count_votes with the bare forward loop, at its best batch size, for some of the networks."""
    for name, given in setting.networks().items():
        if name.startswith(beginning):
            yield row(name, *speed_of(setting, *given), f"<= {GOAL:g}")


def votes_of_mnist(setting: Setting) -> Rows:
    return votes_of(setting, "MNIST")


def votes_of_wide_resnet(setting: Setting) -> Rows:
    return votes_of(setting, "WideResNet")


def votes_of_resnet_50(setting: Setting) -> Rows:
    return votes_of(setting, "ResNet-50")


def speed_of(
    setting: Setting,
    network: nn.Module,
    shape: tuple[int, ...],
    n_classes: int,
    inference: TorchInference,
    sizes: list[int],
) -> tuple[float, str, str, float]:
    """Return votes per second in runs of a few seconds, what the bare network does, and the ratio of the times.

    A run begins with checks of the model, which the ratio for further votes leaves out.
    """
    least, run = 0.05 if setting.tiny else 2.0, as_it_votes(network, inference, setting.device)
    bare = bare_network(run, torch.rand(max(sizes), *shape, device=setting.device))
    best = best_batch(bare, sizes, rows=2 * max(sizes))
    speed = rows_per_second(bare, best, least / 4)
    X = images(8, shape)
    n_samples = max(16, -(-int(speed * least / len(X)) // best) * best)
    clf = setting.smooth(
        network, n_classes, SplitNoise(1.0, levels=255), n_samples=n_samples, inference=inference, alpha=0.1,
        batch_size=best if inference.compile else "auto",
    )  # fmt: skip
    few, rows = copy.copy(clf).set_params(n_samples=max(8, n_samples // 4)), len(X) * (n_samples + 1)
    run_all = {"few": lambda: few.count_votes(X), "all": lambda: clf.count_votes(X), "bare": lambda: bare(rows, best)}
    times: dict[str, float] = alternate(run_all, repeats=1 if setting.tiny else 2).median().to_dict()
    further = (times["all"] - times["few"]) / (len(X) * (n_samples - few.n_samples)) / (times["bare"] / rows)
    against = f"bare loop, {rows / times['bare']:.4g} rows/s; {further:.2f} for further votes"
    return rows / times["all"], "votes/s", against, times["all"] / times["bare"]


def noise_alone(setting: Setting) -> Rows:
    """Compare the speed of writing noise with that of writing a constant."""
    for d, levels in product((784, 3072) if setting.tiny else (784, 3072, 150_528), (255, "auto")):
        yield row(f"splitting noise, d={d}, levels={levels}", *noise_speed(setting, d, levels))


def noise_speed(setting: Setting, d: int, levels: Any) -> tuple[float, str, str, float]:
    """Return gigabytes of noise per second, and the speed of the memory."""
    X, repeats = images(16, (d,)), 1 if setting.tiny else 20
    batches = batches_on(setting, SplitNoise(3.5, levels), X, torch.float32)
    n = (2**20 if setting.tiny else 2**28) // (16 * d)
    segments = np.column_stack([np.arange(16), np.zeros(16, dtype=np.int64), np.full(16, n)])
    batch = torch.as_tensor(batches.draw(segments))

    def draw() -> None:
        for _ in range(repeats):
            batches.draw(segments)
        synchronize(setting)

    def fill() -> None:
        for _ in range(repeats):
            batch.fill_(0.5)
        synchronize(setting)

    gigabytes = repeats * batch.numel() * batch.element_size() / 1e9
    found = ratio(draw, fill, repeats=1 if setting.tiny else 5)
    return gigabytes / seconds(draw), "GB/s", f"memory, {gigabytes / seconds(fill):.4g} GB/s", found


def synchronize(setting: Setting) -> None:
    if setting.device != "cpu":
        torch.cuda.synchronize()


def training_epoch(setting: Setting) -> Rows:
    """Compare an epoch of fit with a plain loop; the first of each, which prepares the device, is not counted."""
    n, batch_size, epochs = (64, 16, 1) if setting.tiny else (20_000, 512, 2)
    network, shape, *_ = setting.networks()["WideResNet-40-2, fp32"]
    X, y, taken = images(n, shape), np.arange(n) % 10, {}
    scaling = noisy_statistics(X, SplitNoise(1.0), seed=0)
    for _ in range(2):
        plain = copy.deepcopy(network), loader_of(X, y, batch_size), SplitNoise(1.0), epochs, scaling, setting.device
        taken["plain"] = seconds(lambda plain=plain: (train_plainly(*plain), synchronize(setting))) / epochs
        net = make_net(network, lr=0.05, max_epochs=epochs, batch_size=batch_size)
        clf = SmoothedClassifier(net, SplitNoise(1.0), device=setting.device, random_state=0)
        taken["ours"] = seconds(lambda clf=clf: clf.fit(X, y)) / epochs
    yield row(
        "training WideResNet-40-2, an epoch of fit", n / taken["ours"], "images/s",
        f"plain loop, {n / taken['plain']:.4g} images/s", taken["ours"] / taken["plain"],
    )  # fmt: skip


def two_workers(setting: Setting) -> Rows:
    """Compare two processes on one device with one."""
    network, shape, n_classes, *_ = setting.networks()["WideResNet-40-2, fp32"]
    X = images(16 if setting.tiny else 128, shape)
    clf = setting.smooth(network, n_classes, SplitNoise(1.0), n_samples=50 if setting.tiny else 2000, alpha=0.1)
    clf.certify(X[:8])
    one = seconds(lambda: clf.certify(X))
    clf.set_params(n_jobs=2).certify(X)  # starts the workers
    two = seconds(lambda: clf.certify(X))
    n_votes = len(X) * (clf.n_samples + 1)
    yield row("two workers", n_votes / two, "votes/s", f"one worker, {n_votes / one:.4g} votes/s", two / one)


def decisions_at_radii(setting: Setting) -> Rows:
    """Decide about images like ImageNet's at four radii, each up to 1,000 votes."""
    network, shape, n_classes, inference, _ = setting.networks()["ResNet-50, bf16, compiled"]
    X = images(2 if setting.tiny else 500, shape)
    n_samples = 50 if setting.tiny else 1000
    clf = setting.smooth(
        network, n_classes, SplitNoise(3.5, levels=255), n_samples=n_samples, n_selection=256, inference=inference,
        alpha=0.01,
    )  # fmt: skip
    clf.count_votes(X[:9])  # enough batches to compile for
    start = time.perf_counter()
    for radius in RADII:
        decisions = clf.certify_at(X, radius)
        start, taken = time.perf_counter(), time.perf_counter() - start
        yield row(
            f"certify_at radius {radius:g}, {len(X)} images of {shape}", taken, "s",
            f"{decisions.n_samples.mean():.0f} votes per image, {decisions.robust.mean():.0%} robust",
        )  # fmt: skip


PARTS = (
    kernel_integers,
    counts_as_on_the_cpu,
    noise_alone,
    votes_of_mnist,
    votes_of_wide_resnet,
    votes_of_resnet_50,
    training_epoch,
    two_workers,
    decisions_at_radii,
)


def release_memory(setting: Setting) -> None:
    """Give back what earlier parts have left on the device: two workers need memory of their own."""
    gc.collect()
    if setting.device != "cpu":
        torch.cuda.empty_cache()


def table_of(found: list[dict[str, Any]]) -> str:
    return tabulate(found, headers="keys", tablefmt="github", floatfmt=".4g", missingval="")


def write(output: Path, card: str, found: list[dict[str, Any]], failed: list[str], taken: float) -> None:
    """Write what was found so far: the next part may be cut off."""
    head = f"{card}, torch {torch.__version__}, {taken:.0f} seconds"
    (output / "gpu.md").write_text(f"{head}\n\n{table_of(found)}\n")
    record = {"device": card, "torch": torch.__version__, "failed": failed, "rows": found}
    (output / "gpu.json").write_text(json.dumps(record, indent=1))


@click.command(help=__doc__)
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Small sizes; the figures mean nothing.")
@click.option("--part", "names", multiple=True, type=click.Choice([part.__name__ for part in PARTS]),
              help="Only this part; may be repeated. [default: all]")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, show_default=True)
def main(device: str, tiny: bool, names: tuple[str, ...], output: Path) -> None:
    if device != "cpu" and not torch.cuda.is_available():
        raise click.ClickException(f"--device {device}: torch finds no CUDA device. Use --device cpu --tiny.")
    output.mkdir(parents=True, exist_ok=True)
    setting, found, failed, start = Setting(device, tiny), [], [], time.perf_counter()
    card = "CPU" if device == "cpu" else torch.cuda.get_device_name()
    for part in PARTS:
        if names and part.__name__ not in names:
            continue
        try:
            release_memory(setting)
            for measured in part(setting):
                found.append(measured)
                print(f"{time.perf_counter() - start:6.0f} s  {measured}", flush=True)
                write(output, card, found, failed, time.perf_counter() - start)
        except Exception:
            # The time of a GPU is short: the other parts run.
            failed.append(part.__name__)
            traceback.print_exc()
            write(output, card, found, failed, time.perf_counter() - start)
    print(f"\n{table_of(found)}")
    if failed:
        raise click.ClickException(f"These parts failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
