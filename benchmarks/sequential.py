"""What stopping early saves: votes of certify_at and of rtol, next to certificates of a fixed number of votes.

The network of ``examples/mnist.py``, trained once and kept, certifies held-out images with 10,000 votes each. Then
certify_at decides several radii, with at most as many votes and with ten times as many; and ``rtol=.05`` stops once a
radius is nearly as large as it can become. Wrong labels and abstentions count as radius 0. No times are taken: votes
are what costs.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import show, split_mnist, trained_mnist

from smoothcert import certified_accuracy_score

RADII = (0.5, 1.0, 2.0, 3.0, 3.5)


def run(quick: bool, images: int = 1000) -> None:
    clf = trained_mnist(epochs=2 if quick else 25)
    images, n = (20, 1000) if quick else (images, 10_000)
    _, X, _, y = split_mnist()
    X, y = X[:images], y[:images]
    fixed = clf.set_params(n_samples=n).certify(X)

    rows = []
    for cap in (n, 10 * n):
        clf.set_params(n_samples=cap)
        for radius in RADII:
            labels, robust = decisions = clf.certify_at(X, radius)
            rows.append(
                {
                    "radius": radius,
                    "cap": cap,
                    f"fixed {n}": certified_accuracy_score(y, fixed, radius),
                    "certify_at": (robust & (labels == y)).mean(),
                    "mean votes": decisions.n_samples.mean(),
                    "median votes": np.median(decisions.n_samples),
                }
            )
    show(f"Certified accuracy of {len(X)} images", rows)

    def mean_radius(certificates) -> float:
        return np.where(certificates.labels == y, np.nan_to_num(certificates.radii), 0.0).mean()

    rows = []
    for cap in (n, 10 * n):
        early = clf.set_params(n_samples=cap, rtol=0.05).certify(X)
        rows.append(
            {
                "cap": cap,
                "mean votes": early.n_samples.mean(),
                "median votes": np.median(early.n_samples),
                f"votes / {n}": early.n_samples.mean() / n,
                "mean radius": mean_radius(early),
                "mean radius / fixed": mean_radius(early) / mean_radius(fixed),
            }
        )
    show("Certified radii with rtol=.05", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="held-out images to certify, 1000 at most")
    run(quick=False, images=parser.parse_args().images)
