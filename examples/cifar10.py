"""
Train a smoothed network on CIFAR-10 by the paper's recipe, and certify test images
===================================================================================

The script follows section 3 of the paper: a WideResNet-40-2, 120 epochs of SGD on noisy images, and 2,000 test images.
For each image, up to 256 votes choose the class and 10,000 votes bound its probability. The votes go into a store,
which gives the certificates of all radius strategies and of both schemes. If a run is interrupted, the same command
resumes it.

The paper's network needs a GPU. For a small one on a laptop::

    python examples/cifar10.py --data FOLDER --depth 10 --width 2 --patch 2 --epochs 20 --batch-size 128 --images 100
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset

from smoothcert import (
    BoxRadius,
    Certificates,
    DeterministicSplitNoise,
    LatticeNoise,
    SmoothedClassifier,
    SplitNoise,
    TorchInference,
    UniformNoise,
)
from smoothcert.results import summarize
from smoothcert.training import NoisyModule, StabilityLoss, make_net, noisy_statistics

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"
TRAIN_FILES = [f"data_batch_{number}.bin" for number in range(1, 6)]
TEST_FILES = ["test_batch.bin"]

#: A record is one byte with the label, and 3,072 with the red, green and blue planes.
SHAPE, RECORD_BYTES = (3, 32, 32), 3073

NOISES: dict[str, type[LatticeNoise]] = {
    "uniform": UniformNoise,
    "split": SplitNoise,
    "deterministic-split": DeterministicSplitNoise,
}
STRATEGIES: dict[str, Any] = {
    "Lipschitz": "lipschitz",
    "closed form": BoxRadius(closed_form=True),
    "box": "box",
    "greedy": "greedy",
}
RADII = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]


# Data


def read_images(folder: Path, names: list[str], records: int = 10_000) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read files of CIFAR-10's binary version: images of shape (n, 3, 32, 32) and their labels."""
    parts = []
    for path in (folder / name for name in names):
        expected = records * RECORD_BYTES
        found = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
        if found != f"{expected:,} bytes":
            raise click.ClickException(
                f"{path}: expected a file of {expected:,} bytes, which are {records:,} images of CIFAR-10's binary "
                f"version, found {found}. Download cifar-10-binary.tar.gz from {ADDRESS}, unpack it, and name its "
                f"folder with --data. (Files that were cut down on purpose need --records.)"
            )
        parts.append(np.fromfile(path, dtype=np.uint8).reshape(records, RECORD_BYTES))
        if parts[-1][:, 0].max() > 9:
            raise click.ClickException(
                f"{path}: expected labels from 0 to 9, found {parts[-1][:, 0].max()}. This is not CIFAR-10's binary "
                f"version, which is at {ADDRESS}."
            )
    data = np.concatenate(parts)
    return data[:, 1:].reshape(-1, *SHAPE), data[:, 0].astype(np.int64)


class TrainingImages(Dataset):
    """Images in [0, 1] with their labels, each moved by up to 4 pixels and mirrored at random."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.images = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        down, right, mirrored = torch.randint(18, (3,)).tolist()
        image = nn.functional.pad(self.images[i], (4, 4, 4, 4))
        image = image[:, down // 2 : down // 2 + 32, right // 2 : right // 2 + 32]
        return (image.flip(-1) if mirrored % 2 else image) / 255, self.labels[i]


# Network


class Block(nn.Module):
    """Two convolutions, each after batch normalization and a ReLU, beside a short cut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        self.convolution_1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.convolution_2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.short_cut = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if n_in != n_out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = torch.relu(self.norm_1(x))
        x = x if self.short_cut is None else self.short_cut(active)
        return x + self.convolution_2(torch.relu(self.norm_2(self.convolution_1(active))))


class Network(nn.Module):
    """Features in the precision that is asked for, or the caller's, and a linear layer on top in full precision."""

    def __init__(self, features: nn.Module, n_features: int, n_classes: int, precision: torch.dtype) -> None:
        super().__init__()
        self.features, self.head, self.precision = features, nn.Linear(n_features, n_classes), precision
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if reduced else nullcontext():
            features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(features.to(self.head.weight.dtype))


def wide_resnet(depth: int = 40, width: int = 2, patch: int = 1, precision: torch.dtype = torch.float32) -> Network:
    """Return a WideResNet-depth-width (Zagoruyko and Komodakis 2016): three groups of (depth - 4) / 6 blocks.

    With a patch above 1, the pixels of each patch become channels first: a smaller and faster network.
    """
    sizes = [16, 16 * width, 32 * width, 64 * width]
    blocks = [
        Block(sizes[group] if first else sizes[group + 1], sizes[group + 1], 2 if first and group else 1)
        for group in range(3)
        for first in [True] + [False] * ((depth - 4) // 6 - 1)
    ]
    features = nn.Sequential(
        nn.PixelUnshuffle(patch),
        nn.Conv2d(3 * patch**2, sizes[0], 3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(sizes[3]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Network(features, sizes[3], 10, precision)


# Training


class Checkpoints(Callback):
    """Anneal the learning rate along half a cosine, save every epoch, and continue from the last one that was saved."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path = path
        self.recipe = recipe

    def on_train_begin(self, net: Any, X: Any = None, **kwargs: Any) -> None:
        self.epoch_, self.n_batches_ = 0, max(1, len(X) // net.batch_size)
        if self.path.exists():
            saved = torch.load(self.path, map_location=net.device, weights_only=True)
            differing = [name for name, value in self.recipe.items() if saved["recipe"].get(name) != value]
            if differing:
                raise click.ClickException(
                    f"{self.path} was trained with other settings ({', '.join(differing)}). Use another --output."
                )
            net.module_.load_state_dict(saved["module"])
            net.optimizer_.load_state_dict(saved["optimizer"])
            self.epoch_ = saved["epoch"]

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.batch_ = 0
        # An epoch draws the same order, crops and noise whether the training was interrupted before it or not.
        torch.manual_seed(self.recipe["seed"] + 2**32 * self.epoch_)
        net.module_.rng = np.random.default_rng([self.recipe["seed"], self.epoch_])
        if self.epoch_ >= net.max_epochs:
            raise KeyboardInterrupt  # skorch's way to end a training

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        done = (self.epoch_ + self.batch_ / self.n_batches_) / net.max_epochs
        for group in net.optimizer_.param_groups:
            group["lr"] = net.lr * (1 + math.cos(math.pi * done)) / 2
        self.batch_ += 1

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.epoch_ += 1
        saved = {"recipe": self.recipe, "epoch": self.epoch_, "module": net.module_.state_dict()}
        partial = self.path.with_suffix(".partial")
        torch.save(saved | {"optimizer": net.optimizer_.state_dict()}, partial)
        partial.replace(self.path)


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load the weights of an earlier training."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved.get("module", saved))
    except FileNotFoundError as error:
        raise click.ClickException(f"{path}: there are no weights. Train the network first.") from error
    except (AttributeError, EOFError, UnpicklingError, RuntimeError) as error:
        raise click.ClickException(f"{path}: expected weights of this network, found other content.") from error


def train(
    network: nn.Module, images: Dataset, noise: LatticeNoise, path: Path, recipe: dict[str, Any], **settings: Any
) -> NoisyModule:
    """Train a network on noisy images (section 3.1), and return it as it is to vote: in evaluation mode."""
    torch.manual_seed(recipe["seed"])
    sample = np.stack([images[i][0].numpy() for i in torch.randperm(len(images))[:500].tolist()])  # type: ignore[arg-type]
    center, scale = noisy_statistics(sample, noise, seed=recipe["seed"])
    stability = recipe["training"] == "stability"
    model = NoisyModule(network, noise, center=center, scale=scale, n_copies=2 if stability else 1, seed=recipe["seed"])
    checkpoints = Checkpoints(path, recipe)
    if "start_from" in recipe:
        load_weights(model, recipe["start_from"])
    if stability:
        settings |= {"criterion": StabilityLoss, "criterion__stability_weight": recipe.get("stability_weight", 6.0)}
    net = make_net(
        model,
        max_epochs=recipe["epochs"],
        batch_size=recipe["batch_size"],
        lr=recipe["lr"],
        callbacks=[checkpoints],
        iterator_train__drop_last=len(images) > recipe["batch_size"],  # type: ignore[arg-type]
        verbose=1,
        **settings,
    )
    net.fit(images, None)
    if checkpoints.epoch_ < recipe["epochs"]:
        raise click.ClickException(
            f"Stopped after epoch {checkpoints.epoch_} of {recipe['epochs']}. Run again to continue."
        )
    model = copy.deepcopy(model).eval()  # a copy is not compiled: the compiler sees evaluation mode afresh
    model.module.precision = torch.float32  # votes may take less, and are asked again where it does not tell
    return model


# Certification


def certificates_of(store: Path, noise: LatticeNoise) -> dict[str, Certificates]:
    """Return the certificates of all strategies and schemes from one drawing of votes."""
    return {
        f"{title}, {scheme}": Certificates.from_store(store, radius=radius, scheme=scheme)
        for scheme in ("multiclass", "binary")
        for title, radius in STRATEGIES.items()
        if noise.allows_closed_form or title != "closed form"
    }


def certify(
    model: nn.Module, X: Any, y: NDArray[np.int64], noise: LatticeNoise, store: Path, n_classes: int, **settings: Any
) -> None:
    """Draw votes into a store, and print the certified accuracies of all strategies and schemes."""
    clf = SmoothedClassifier.from_pretrained(model, range(n_classes), noise, alpha=0.001, **settings)
    try:
        found = clf.certify(X, store=store, y=y)
    except KeyboardInterrupt as stop:
        raise click.ClickException(f"Stopped. {store} keeps the votes so far; run again to continue.") from stop
    except ValueError as error:
        if not store.exists():
            raise
        raise click.ClickException(f"{error} To draw all votes anew, delete {store}; the weights stay.") from error
    named = {"deterministic": found} if noise.n_outcomes else certificates_of(store, noise)
    print(f"\nCertified accuracy, {noise} (sigma={noise.sigma:.4g}), votes in {store}:\n")
    print(summarize(named, y, RADII))


POSITIVE = click.FloatRange(0, min_open=True)


def check_device(context: Any, option: Any, device: str) -> str:
    """Return the name of a device that torch can use, or say that it cannot."""
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise click.BadParameter(f"torch cannot use {device!r} here: {reason} Use --device cpu.") from error
    return device


device_option = click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True,
                             callback=check_device, help="cuda where torch finds one.")  # fmt: skip


def common_options(command: Any) -> Any:
    """Add the options that every script of the paper's experiments has."""
    for option in reversed([
        click.option("--noise", type=click.Choice(list(NOISES)), default="split", show_default=True),
        click.option("--sigma", type=POSITIVE, default=1.75, show_default=True,
                     help="Noise level; lam = sqrt(3) sigma."),
        click.option("--training", type=click.Choice(["augment", "stability"]), default="augment", show_default=True),
        click.option("--stability-weight", type=click.FloatRange(0), help="C of the stability loss.  [default: 6]"),
        click.option("--start-from", type=click.Path(exists=True, dir_okay=False),
                     help="Weights of an earlier training of the same network, to start from.  [default: none]"),
        click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True),
        click.option("--lr", type=POSITIVE, help="Learning rate. [default: 0.1 for each 64 images of a batch]"),
        click.option("--train-size", type=click.IntRange(1), help="Train on this many images. [default: all]"),
        click.option("--samples", type=click.IntRange(1), default=10_000, show_default=True, help="Votes per image."),
        click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32",
                     show_default=True, help="Of training. Votes are those of float32."),
        click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile."),
        click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
                     help="Processes that load training images."),
        device_option,
        click.option("--seed", type=int, default=0, show_default=True),
    ]):  # fmt: skip
        command = option(command)
    return command


def run_experiment(network: nn.Module, images: Dataset, X: Any, y: Any, n_classes: int, output: Path, **given: Any):
    """Train, unless that is done already, and certify."""
    if given["stability_weight"] is not None and given["training"] != "stability":
        raise click.BadParameter("needs --training stability.", param_hint="--stability-weight")
    output.mkdir(parents=True, exist_ok=True)
    name = f"{given['noise']}-{given['sigma']:g}-{given['training']}"
    noise = NOISES[given["noise"]].from_sigma(given["sigma"], levels=255)
    recipe = {key: given[key] for key in ("epochs", "batch_size", "training", "train_size", "precision", "seed")}
    recipe |= {key: given[key] for key in ("start_from", "stability_weight") if given[key] is not None}
    recipe |= {"lr": given["lr"] or 0.1 * given["batch_size"] / 64, "noise": str(noise)}
    recipe["parameters of the network"] = sum(parameter.numel() for parameter in network.parameters())
    network.to(given["device"], memory_format=torch.channels_last)
    if given["compiled"]:
        network.compile()
    settings = {"device": given["device"], "iterator_train__num_workers": given["workers"]}
    model = train(network, images, noise, output / f"{name}.pt", recipe, **settings)
    settings = {"n_samples": given["samples"], "random_state": given["seed"], "verbose": 1}
    # The errors of float16 are an eighth of those of bfloat16, which CPUs are faster in.
    half = "float16" if torch.device(given["device"]).type == "cuda" else "bfloat16"
    autocast = half if given["precision"] == "bfloat16" else None
    settings["inference"] = TorchInference(autocast, channels_last=True, compile=given["compiled"])
    certify(model, X, y, noise, output / f"{name}.sqlite", n_classes, **settings)


@click.command(help=(__doc__ or "").split("=\n", 1)[-1])
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CIFAR-10's binary files.")
@click.option("--output", type=click.Path(path_type=Path), default="examples/output/cifar10", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=120, show_default=True)
@click.option("--depth", type=int, default=40, show_default=True, help="Layers of the network, 6 n + 4.")
@click.option("--width", type=click.IntRange(1), default=2, show_default=True, help="Its channels, in units of 16.")
@click.option("--patch", type=click.Choice(["1", "2", "4"]), default="1", show_default=True,
              help="Pixels a side that it sees as one.")  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=2000, show_default=True, help="Test images to certify.")
@click.option("--records", type=click.IntRange(1), default=10_000, show_default=True,
              help="Images in each file, if it was cut down.")  # fmt: skip
@common_options
def main(data: Path, depth: int, width: int, patch: str, images: int, records: int, **given: Any) -> None:
    if depth < 10 or depth % 6 != 4:
        raise click.BadParameter(f"must be 10, 16, 22, 28, 34, 40, ..., got {depth}.", param_hint="--depth")
    train_images, train_labels = read_images(data, TRAIN_FILES, records)
    test_images, test_labels = read_images(data, TEST_FILES, records)
    part = slice(given["train_size"])
    # Evenly spaced, whatever the order of the file.
    rows = np.linspace(0, records - 1, min(images, records)).round().astype(int)
    torch.manual_seed(given["seed"])
    network = wide_resnet(depth, width, int(patch), getattr(torch, given["precision"]))
    training = TrainingImages(train_images[part], train_labels[part])
    run_experiment(network, training, test_images[rows] / np.float32(255), test_labels[rows], 10, **given)


if __name__ == "__main__":
    main()
