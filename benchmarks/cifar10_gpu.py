"""Networks for CIFAR-10 on a GPU: training and certification, in two commands of less than 9 minutes each.

    python benchmarks/cifar10_gpu.py train --data FOLDER --output OUT
    python benchmarks/cifar10_gpu.py certify --data FOLDER --output OUT

FOLDER holds CIFAR-10's binary files; nothing is downloaded. ``train`` fits the paper's WideResNet-40-2 under splitting
noise of sigma = 1.75 in bfloat16, with channels last, for as many epochs as 5 minutes allow, and saves it. ``certify``
certifies test images with 10,000 votes each, compares votes per second with those of the bare network, and decides
about the same images at the radii 1, 2, 3 and 4 with as few votes as that takes. Both print JSON and save it beside the
weights, in files that are named after the noise and the training. When ``certify`` is stopped, the next call resumes
from its store. ``train --training stability --stability-weight 2 --lr 0.05 --seconds 60`` with ``--start-from
OUT/split-1.75-augment.pt`` then continues with the stability loss, and ``certify --training stability`` certifies it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from skorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from cifar10 import (
    NOISES,
    TEST_FILES,
    TRAIN_FILES,
    Network,
    TrainingImages,
    certificates_of,
    device_option,
    load_weights,
    read_images,
    wide_resnet,
)
from common import as_it_votes, bare_network, rows_per_second

from smoothcert import SmoothedClassifier, TorchInference, VoteCounts, certified_accuracy_score
from smoothcert.training import NoisyModule, StabilityLoss, make_net, noisy_statistics

RADII = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]

#: Batches before the clock starts: compilation and the choice of algorithms happen in them.
PREPARATION = 10

#: Share of the time over which the learning rate rises to its full value.
RISE = 0.04


class TimedSchedule(Callback):
    """A learning rate that rises, falls along half a cosine, and is 0 when the time is over: the training ends then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start counting batches."""
        self.batches_, self.start_, self.rows_ = 0, time.perf_counter(), 0

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Set the rate, or end the training."""
        self.batches_ += 1
        if self.batches_ == PREPARATION:
            self.start_, self.rows_ = time.perf_counter(), 0
        done = (time.perf_counter() - self.start_) / self.seconds if self.batches_ > PREPARATION else 0.0
        if done >= 1:
            raise KeyboardInterrupt  # skorch's way to end a training
        rate = net.lr * min(1.0, max(done, 0.001) / RISE) * (1 + math.cos(math.pi * done)) / 2
        for group in net.optimizer_.param_groups:
            group["lr"] = rate
        self.rows_ += len(batch[1])


def network_of(options: dict[str, Any], precision: str) -> Network:
    network = wide_resnet(options["depth"], options["width"], options["patch"], getattr(torch, precision))
    return network.to(options["device"], memory_format=torch.channels_last)


def report(path: Path, found: dict[str, Any]) -> None:
    """Print results and save them."""
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    path.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1), flush=True)


def options(command: Any) -> Any:
    for option in reversed([
        click.option("--data", type=click.Path(path_type=Path, exists=True), required=True),
        click.option("--output", type=click.Path(path_type=Path), required=True),
        click.option("--records", type=click.IntRange(1), default=10_000, show_default=True, help="Images in a file."),
        click.option("--noise", "family", type=click.Choice(list(NOISES)), default="split", show_default=True),
        click.option("--sigma", default=1.75, show_default=True),
        click.option("--training", type=click.Choice(["augment", "stability"]), default="augment", show_default=True),
        click.option("--depth", default=40, show_default=True),
        click.option("--width", default=2, show_default=True),
        click.option("--patch", default=1, show_default=True),
        click.option("--compile", "compiled", is_flag=True, help="Compile the network: about a minute, then faster."),
        device_option,
    ]):  # fmt: skip
        command = option(command)
    return command


def noise_and_name(options: dict[str, Any]) -> tuple[Any, str]:
    """Return the noise, and what files are named after."""
    family, sigma = options["family"], options["sigma"]
    return NOISES[family].from_sigma(sigma, levels=255), f"{family}-{sigma:g}-{options['training']}"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command(help="Train for some minutes.")
@options
@click.option("--precision", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--seconds", default=300.0, show_default=True, help="Time of training after the preparation.")
@click.option("--batch-size", default=512, show_default=True)
@click.option("--lr", default=0.4, show_default=True)
@click.option("--workers", default=8, show_default=True, help="Processes that load images.")
@click.option("--stability-weight", default=6.0, show_default=True, help="C of the stability loss.")
@click.option("--start-from", type=click.Path(exists=True, dir_okay=False), help="Weights of an earlier training.")
def train(
    data: Path, output: Path, precision: str, seconds: float, batch_size: int, lr: float, workers: int,
    stability_weight: float, start_from: str | None, **given: Any,
) -> None:  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    # Training batches have one shape, so that trying algorithms pays.
    torch.backends.cudnn.benchmark = True
    images = TrainingImages(*read_images(data, TRAIN_FILES, given["records"]))
    noise, name = noise_and_name(given)
    center, scale = noisy_statistics(
        np.stack([images[i][0].numpy() for i in range(min(500, len(images)))]), noise, seed=0
    )
    network = network_of(given, precision)
    if given["compiled"]:
        network.compile()
    stability = given["training"] == "stability"
    model = NoisyModule(network, noise, center=center, scale=scale, n_copies=2 if stability else 1, seed=0)
    if start_from is not None:
        load_weights(model, start_from)
    loss = {"criterion": StabilityLoss, "criterion__stability_weight": stability_weight} if stability else {}
    schedule, start = TimedSchedule(seconds), time.perf_counter()
    net = make_net(
        model, max_epochs=10_000, batch_size=batch_size, lr=lr, device=given["device"], callbacks=[schedule], verbose=1,
        iterator_train__num_workers=workers, iterator_train__drop_last=True, iterator_train__pin_memory=workers > 0,
        iterator_train__persistent_workers=workers > 0, **loss,
    )  # fmt: skip
    net.fit(images, None)
    torch.save(model.state_dict(), output / f"{name}.pt")
    trained = time.perf_counter() - schedule.start_
    found = {"epochs": schedule.rows_ / len(images), "images per second": schedule.rows_ / trained}
    report(output / f"{name}.train.json", found | {"seconds": trained, "seconds in all": time.perf_counter() - start})


@main.command(help="Certify test images, and decide about them at radii.")
@options
@click.option("--precision", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16",
              show_default=True, help="Of most votes; they are those of float32.")  # fmt: skip
@click.option("--images", default=500, show_default=True)
@click.option("--samples", default=10_000, show_default=True)
@click.option("--batch-size", default=4096, show_default=True)
@click.option("--measure", default=5.0, show_default=True, help="Seconds for the rate of the bare network.")
@click.option("--at", multiple=True, default=[1.0, 2.0, 3.0, 4.0], show_default=True, help="Radii to decide about.")
def certify(
    data: Path, output: Path, precision: str, images: int, samples: int, batch_size: int, measure: float, at: Any,
    **given: Any,
) -> None:  # fmt: skip
    X, y = read_images(data, TEST_FILES, given["records"])
    rows = np.linspace(0, len(X) - 1, min(images, len(X))).round().astype(int)
    X, y = X[rows] / np.float32(255), y[rows]
    noise, name = noise_and_name(given)
    model = NoisyModule(network_of(given, "float32"), noise, center=np.zeros((3, 1, 1)), scale=np.ones((3, 1, 1)))
    load_weights(model, output / f"{name}.pt")
    model.eval()
    autocast = None if precision == "float32" else precision
    inference = TorchInference(autocast, channels_last=True, compile=given["compiled"])
    clf = SmoothedClassifier.from_pretrained(
        model, range(10), noise, n_samples=samples, device=given["device"], inference=inference, batch_size=batch_size,
        random_state=0, verbose=1,
    )  # fmt: skip
    device = given["device"]
    run = as_it_votes(model.to(device), inference, device)
    speed = rows_per_second(bare_network(run, torch.rand(batch_size, 3, 32, 32, device=device)), batch_size, measure)
    clf.predict(X[:2])  # prepares the device
    store = output / f"{name}.sqlite"
    resumed, start = store.exists(), time.perf_counter()
    clf.certify(X, store=store, y=y)
    seconds = time.perf_counter() - start
    votes = VoteCounts.from_store(store)
    n_votes = int(votes.selection.sum() + votes.estimation.sum())
    found: dict[str, Any] = {
        "images": len(X),
        "seconds": seconds,
        # Of a run that was resumed, this call has drawn a part of the votes only.
        "votes per second": None if resumed else n_votes / seconds,
        "bare network per second": speed,
        "certified accuracy at": RADII,
    }
    for title, stored in certificates_of(store, noise).items():
        found[title] = certified_accuracy_score(y, stored, RADII).round(4).tolist()
    report(output / f"{name}.certify.json", found)
    for radius in at:
        start = time.perf_counter()
        decisions = clf.certify_at(X, radius)
        found[f"certify_at {radius:g}"] = {
            "seconds": time.perf_counter() - start,
            "certified accuracy": float(((decisions.labels == y) & decisions.robust).mean()),
            "votes per image": float(decisions.n_samples.mean()),
        }
        report(output / f"{name}.certify.json", found)


if __name__ == "__main__":
    main()
