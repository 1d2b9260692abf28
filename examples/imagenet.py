"""
Train a smoothed ResNet-50 on ImageNet by the paper's recipe, and certify 500 validation images
===============================================================================================

The script follows section 3 of the paper: 30 epochs of SGD on noisy images, then certificates for every hundredth
validation image, the 500 images of the literature. The folder of the data holds ``train`` and ``val``, each with one
folder of images for each class. Everything else is as in ``cifar10.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from cifar10 import Network, common_options, run_experiment
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

ADDRESS = "https://image-net.org/challenges/LSVRC/2012/"
SUFFIXES = {".jpeg", ".jpg", ".png"}


# Data


def class_names(folder: Path) -> list[str]:
    """Return the sorted names of the folders of classes."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def find_images(folder: Path) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the images below the folders of classes, and the number of the class of each, both in sorted order."""
    classes = class_names(folder)
    found = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found or {number for _, number in found} != set(range(len(classes))):
        raise click.ClickException(
            f"{folder}: expected one folder for each class with images in it ({', '.join(sorted(SUFFIXES))}), found "
            f"{len(classes)} folders with {len(found)} images. ImageNet (ILSVRC 2012) is at {ADDRESS}."
        )
    paths, labels = zip(*found, strict=True)
    return list(paths), np.array(labels, dtype=np.int64)


class Images(Dataset):
    """Images in [0, 1] with their labels, size x size pixels: a random part when training, else the center."""

    def __init__(self, paths: list[Path], labels: NDArray[np.int64], size: int, training: bool) -> None:
        self.paths, self.labels, self.size, self.training = paths, labels, size, training

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.paths[i]) as image:
            part = random_part(*image.size) if self.training else center_part(*image.size, self.size)
            image = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR, box=part)
        if self.training and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255)), int(self.labels[i])


def random_part(width: int, height: int) -> tuple[float, float, float, float]:
    """Return a box of 8 to 100 % of the image's area, and of an aspect ratio between 3/4 and 4/3."""
    area = width * height * float(torch.empty(()).uniform_(0.08, 1))
    aspect = float(torch.empty(()).uniform_(np.log(3 / 4), np.log(4 / 3)).exp())
    w, h = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = (torch.rand(2) * torch.tensor([width - w, height - h])).tolist()
    return left, top, left + w, top + h


def center_part(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Return the central square of 7/8 of the shorter side: 224 of 256 pixels."""
    side = min(width, height) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


# Network


class Bottleneck(nn.Module):
    """Three convolutions, the middle one at a quarter of the channels, beside a short cut."""

    def __init__(self, n_in: int, n_inner: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * n_inner
        self.path = nn.Sequential(
            nn.Conv2d(n_in, n_inner, 1, bias=False), nn.BatchNorm2d(n_inner), nn.ReLU(),
            nn.Conv2d(n_inner, n_inner, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_inner), nn.ReLU(),
            nn.Conv2d(n_inner, n_out, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        self.short_cut = (
            nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
            if stride > 1 or n_in != n_out
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + self.short_cut(x))


def resnet_50(n_classes: int = 1000, precision: torch.dtype = torch.float32, depths: Any = (3, 4, 6, 3)) -> Network:
    """Return a ResNet-50 (He et al. 2016), with strides in the 3 x 3 convolutions."""
    blocks, n_in = [], 64
    for group, depth in enumerate(depths):
        for position in range(depth):
            blocks.append(Bottleneck(n_in, 64 << group, 2 if group and not position else 1))
            n_in = 4 * (64 << group)
    features = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Network(features, n_in, n_classes, precision)


@click.command(help=(__doc__ or "").split("=\n", 1)[-1])
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with train and val.")
@click.option("--output", type=click.Path(path_type=Path), default="examples/output/imagenet", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--size", type=click.IntRange(8), default=224, show_default=True, help="Pixels a side.")
@click.option("--every", type=click.IntRange(1), default=100, show_default=True, help="Certify every N-th image.")
@common_options
def main(data: Path, size: int, every: int, **given: Any) -> None:
    paths, labels = find_images(data / "train")
    val_paths, val_labels = find_images(data / "val")
    classes = class_names(data / "train")
    if differing := sorted({*classes} ^ {*class_names(data / "val")}):
        raise click.ClickException(
            f"{data}: train and val must have the same folders of classes, but only one of them has "
            f"{', '.join(differing[:5])}{', ...' if len(differing) > 5 else ''}."
        )
    n_classes = len(classes)
    torch.manual_seed(given["seed"])
    part = torch.randperm(len(paths))[: given["train_size"]].tolist()
    training = Images([paths[i] for i in part], labels[part], size, training=True)
    chosen = Images(val_paths[::every], val_labels[::every], size, training=False)
    network = resnet_50(n_classes, getattr(torch, given["precision"]))
    run_experiment(network, training, chosen, chosen.labels, n_classes, **given)


if __name__ == "__main__":
    main()
