"""Compare noise-free training, noise augmentation and stability training, and our loop with a plain one.

For MNIST (a convolutional network), digits (a linear pipeline and a small network) and breast_cancer (a linear
pipeline), under uniform and splitting noise of several widths: accuracy of the base model on clean inputs, accuracy of
the smoothed classifier, certified accuracies, and the mean certified radius, in which wrong labels and abstentions
are 0. Then the same network is trained with the same recipe by a plain PyTorch loop with noise from torch, by skorch
and Lightning (if it is installed) with a `NoisyModule`, and by `fit`. From one seed, skorch and Lightning draw the same
batches and the same noise, so their networks are equal to the last bit. At last, the plain loop and `fit` are compared
in time per epoch, in pairs within one process.
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import load_mnist, mnist_network, split_mnist
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring, LRScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smoothcert import SmoothedClassifier, SplitNoise, UniformNoise, certified_accuracy_score
from smoothcert.training import NoisyModule, make_net, noisy_statistics

RADII = [0.0, 0.5, 1.0, 2.0, 3.0]


def data_sets() -> dict[str, tuple[Any, Any, Any, list[float]]]:
    """Return inputs, labels, base model and widths of noise by name."""
    images, image_labels = load_mnist()
    digits, digit_labels = load_digits(return_X_y=True)
    digits = (digits / 16).astype(np.float32)
    table, table_labels = load_breast_cancer(return_X_y=True)
    table = (table - table.min(axis=0)) / (table.max(axis=0) - table.min(axis=0))
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    small = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return {
        "MNIST": (images, image_labels, mnist_network(), [1.0, 3.5, 6.06]),
        "digits, network": (digits, digit_labels, small, [0.5, 1.0, 2.0]),
        "digits, linear": (digits, digit_labels, linear, [0.5, 1.0, 2.0]),
        "breast_cancer": (table, table_labels, linear, [0.5, 1.0, 2.0]),
    }


def evaluate(clf: SmoothedClassifier, X: Any, y: Any) -> dict[str, float]:
    """Return the benchmark's columns for a fitted classifier."""
    labels, radii = certificates = clf.certify(X)
    base = clf.estimator_.predict(X)
    return {
        "clean": float((base == y).mean()),
        "smoothed": float((labels == y).mean()),
        **{f"at {radius:g}": certified_accuracy_score(y, certificates, radius) for radius in RADII},
        "mean radius": float(np.where(labels == y, np.nan_to_num(radii, posinf=np.nan), 0.0).mean()),
    }


def compare_trainings(arguments: argparse.Namespace) -> None:
    """Print one table per data set."""
    for name, (X, y, base, widths) in data_sets().items():
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
        X_test, y_test = X_test[: arguments.inputs], y_test[: arguments.inputs]
        is_network = isinstance(base, nn.Module)
        rows = []
        for noise_type in (UniformNoise, SplitNoise):
            for lam in widths:
                for training in (None, "augment", "stability") if is_network else (None, "augment"):
                    torch.manual_seed(0)
                    estimator = make_net(base, lr=0.05, max_epochs=arguments.epochs) if is_network else base
                    clf = SmoothedClassifier(
                        estimator, noise_type(lam), training=training, n_samples=arguments.samples, random_state=0
                    )
                    clf.fit(X_train, y_train)
                    key = {"noise": noise_type.__name__, "lam": lam, "training": str(training)}
                    rows.append(key | evaluate(clf, X_test, y_test))
        print(f"\n{name}: {len(X_train)} training inputs, {len(X_test)} certified with {arguments.samples} votes\n")
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format), flush=True)


def recipe(network: nn.Module, epochs: int) -> tuple[Any, Any]:
    """Return the optimizer and the learning-rate schedule of the paper's recipe."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


def loader_of(X: Any, y: Any, batch_size: int = 64) -> DataLoader:
    """Return shuffled batches."""
    return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), batch_size=batch_size, shuffle=True)


class Standardize(nn.Module):
    """Subtract and divide."""

    def __init__(self, center: Any, scale: Any) -> None:
        super().__init__()
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return standardized inputs."""
        return (X - self.center) / self.scale


def plain_loop(X: Any, y: Any, noise: SplitNoise, epochs: int) -> nn.Module:
    """Train the network for MNIST as research code does."""
    return train_plainly(mnist_network(), loader_of(X, y), noise, epochs, noisy_statistics(X, noise, seed=0))


def train_plainly(
    network: nn.Module, loader: DataLoader, noise: SplitNoise, epochs: int, scaling: Any, device: str = "cpu"
) -> nn.Module:
    """Train a network with splitting noise from torch."""
    standardize, network = Standardize(*scaling).to(device), network.to(device)
    optimizer, schedule = recipe(network, epochs)
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            split = torch.rand_like(images) * 2 * noise.lam
            noisy = (split.clamp(max=1) + (images > split)) / 2
            loss = nn.functional.cross_entropy(network(standardize(noisy)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return nn.Sequential(standardize, network).eval()


def noisy_module(X: Any, noise: SplitNoise) -> NoisyModule:
    """Return the network behind the noise."""
    center, scale = noisy_statistics(X, noise, seed=0)
    return NoisyModule(mnist_network(), noise, center=center, scale=scale, seed=torch.initial_seed())


def skorch_loop(X: Any, y: Any, noise: SplitNoise, epochs: int) -> nn.Module:
    """Train a `NoisyModule` by skorch, with callbacks."""
    callbacks = [
        ("schedule", LRScheduler("CosineAnnealingLR", T_max=epochs)),
        ("accuracy", EpochScoring("accuracy", lower_is_better=False, on_train=True, name="accuracy")),
    ]
    net = make_net(noisy_module(X, noise), lr=0.05, max_epochs=epochs, callbacks=callbacks)
    return net.fit(X, y).module_


def lightning_loop(X: Any, y: Any, noise: SplitNoise, epochs: int) -> nn.Module:
    """Train a `NoisyModule` by Lightning."""
    import pytorch_lightning as lightning

    class Task(lightning.LightningModule):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.module(images), labels)

        def configure_optimizers(self) -> Any:
            optimizer, schedule = recipe(self.module, epochs)
            return [optimizer], [schedule]

    task, quiet = Task(noisy_module(X, noise)), ("logger", "enable_checkpointing", "enable_model_summary")
    options = dict.fromkeys((*quiet, "enable_progress_bar"), False)
    lightning.Trainer(max_epochs=epochs, accelerator="cpu", **options).fit(task, loader_of(X, y))
    return task.module


def fit(X: Any, y: Any, noise: SplitNoise, epochs: int) -> nn.Module:
    """Train by `SmoothedClassifier.fit`."""
    net = make_net(mnist_network(), lr=0.05, max_epochs=epochs)
    return SmoothedClassifier(net, noise, random_state=torch.initial_seed() % 2**32).fit(X, y).estimator_.module_


LOOPS = {"plain loop": plain_loop, "skorch": skorch_loop, "Lightning": lightning_loop, "fit": fit}


def compare_loops(arguments: argparse.Namespace) -> None:
    """Print the accuracy of the same network after each training loop, over several seeds."""
    X_train, X_test, y_train, y_test = split_mnist()
    noise, rows = SplitNoise(3.5), []
    loops = LOOPS if find_spec("pytorch_lightning") else {k: v for k, v in LOOPS.items() if k != "Lightning"}
    for seed in range(arguments.seeds):
        for name, loop in loops.items():
            torch.manual_seed(seed)
            module = loop(X_train, y_train, noise, arguments.epochs)
            clf = SmoothedClassifier.from_pretrained(
                module, range(10), noise, n_samples=arguments.samples, random_state=0
            )
            certificates = clf.certify(X_test[: arguments.inputs])
            scores = {f"at {r:g}": certified_accuracy_score(y_test[: arguments.inputs], certificates, r) for r in RADII}
            rows.append({"loop": name, "smoothed": clf.score(X_test, y_test)} | scores)
    found = pd.DataFrame(rows).groupby("loop", sort=False)
    title = f"MNIST, splitting noise, lam=3.5, {arguments.epochs} epochs, {arguments.seeds} seeds"
    for name, table in (("means", found.mean()), ("standard deviations", found.std())):
        print(f"\n{title}: {name}\n\n{table.to_string(float_format='{:.3f}'.format)}", flush=True)


def compare_times(arguments: argparse.Namespace) -> None:
    """Print how much longer an epoch of `fit` takes than one of the plain loop: CPU time of one thread, in pairs."""
    X, _, y, _ = split_mnist()
    torch.set_num_threads(1)

    def seconds(loop: Any) -> float:
        start = time.process_time()
        loop(X, y, SplitNoise(3.5), 4)
        return (time.process_time() - start) / 4

    seconds(fit)
    pairs = np.array([[seconds(plain_loop), seconds(fit)] for _ in range(arguments.pairs)])
    ratios = pairs[:, 1] / pairs[:, 0]
    print(f"\nCPU seconds per epoch, plain loop and fit, fastest of {len(pairs)}: {pairs.min(axis=0).round(3)}")
    print(f"fit / plain loop: median {np.median(ratios):.2f} of {np.sort(ratios).round(2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--inputs", type=int, default=300, help="inputs to certify")
    parser.add_argument("--samples", type=int, default=1000, help="votes per input")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each training loop")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of trainings that are timed")
    comparisons = {"trainings": compare_trainings, "loops": compare_loops, "times": compare_times}
    parser.add_argument("--only", choices=comparisons, help="one of the three comparisons")
    arguments = parser.parse_args()
    for name, compare in comparisons.items():
        if arguments.only in (None, name):
            compare(arguments)


if __name__ == "__main__":
    main()
