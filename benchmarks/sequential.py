"""How many votes stopping early saves, beside the best published sequential test and beside a fixed number of votes.

The first table has base models of known vote probabilities, two classes. It compares the mean number of votes until
`certify_at` decides with that of the betting confidence sequence of Voracek (2024, "Treatment of statistical estimation
problems in randomized smoothing for adversarial robustness", NeurIPS). The sequence is implemented here on its own, and
its mean is exact: it looks after every vote and has no selection votes. `published` are the figures measured with the
author's code, and `ratio` refers to them. The second table has inputs that cannot be certified, which the published
sequence refuses by its upper bound. The third table has inputs whose true margin is just too small: every certificate
is false, and their share must stay below alpha, apart from chance.

Then ``rtol=.05`` stops on tables of three columns, where radii are small. At last, the network of
``examples/mnist.py`` certifies held-out images with 10,000 votes each. `certify_at` decides several radii, with the
same cap and with ten times as many votes, and ``rtol=.05`` stops once a radius is nearly as large as it can become.
Wrong labels and abstentions count as radius 0. The unit of cost is a vote, so no times are measured.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from common import show, split_mnist, trained_mnist
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_iris, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from smoothcert import Certificates, SmoothedClassifier, SplitNoise, UniformNoise, certified_accuracy_score

RADII = (0.5, 1.0, 2.0, 3.0, 3.5)

ALPHA = 0.001

#: Required probability, true probability, and mean votes to a decision with the author's code.
PUBLISHED = (
    (0.6, 0.65, 1812),
    (0.6, 0.8, 92),
    (0.75, 0.8, 1344),
    (0.75, 0.9, 118),
    (0.75, 1.0, 30),
    (0.9, 0.95, 546),
    (0.9, 0.99, 120),
)

#: Required probability, and true probabilities of the classes, that do not certify it.
REFUSALS = (
    (0.75, [0.7, 0.3]),
    (0.75, [0.6, 0.4]),
    (0.9, [0.85, 0.15]),
    (0.75, [0.75, 0.25]),
    (0.75, [0.55, *[0.05] * 9]),
)


def least_successes(p0: float, n_votes: int) -> NDArray[np.int64]:
    """Return the successes among 1, 2, ..., ``n_votes`` votes at which the published sequence exceeds ``p0``.

    It bets by the estimator of Krichevsky and Trofimov: after k successes among n votes, wealth is the likelihood ratio
    between a mixture of all probabilities by the arcsine law and ``p0``. It has a bound on either side, so each needs a
    wealth of 1 / (2 alpha), and the lower one at least the expected number of successes.
    """
    least, k = np.empty(n_votes, dtype=np.int64), 0
    for n in range(1, n_votes + 1):
        while k <= n and (k < p0 * n or betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5) <= likelihood_needed(p0, k, n)):
            k += 1
        least[n - 1] = k
    return least


def likelihood_needed(p0: float, k: int, n: int) -> float:
    """Return the logarithm of the likelihood that a mixture must exceed."""
    return k * np.log(p0) + (n - k) * np.log1p(-p0) - np.log(2 * ALPHA)


def published_votes(p0: float, p: float) -> float:
    """Return the mean number of votes until the published sequence excludes ``p0``, exactly, up to a late end."""
    n_votes = 15 * round(-np.log(ALPHA) / (2 * (p - p0) ** 2)) + 100
    going, mean = np.array([1.0]), 0.0
    for least in least_successes(p0, n_votes):
        mean += going.sum()
        going = np.append(going * (1 - p), 0.0) + np.append(0.0, going * p)
        going[least:] = 0
    return float(mean)


class KnownShares(ClassifierMixin, BaseEstimator):
    """A base model that votes for each class with a given probability under uniform noise of lam = 1."""

    def __init__(self, thresholds: list[float]) -> None:
        self.thresholds = thresholds

    def fit(self, X: object, y: object) -> KnownShares:
        """Learn nothing."""
        self.classes_ = np.arange(len(self.thresholds) + 1)
        return self

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.intp]:
        """Answer with the interval between thresholds that the first feature falls in."""
        KnownShares.rows += len(X)
        return np.searchsorted(self.thresholds, X[:, 0])

    #: Rows of all batches so far.
    rows = 0


#: Required probability and true probabilities, at the threshold.
THRESHOLDS = (
    (0.75, [0.75, 0.25]),
    (0.95, [0.95, 0.05]),
    (0.75, [0.55, *[0.05] * 9]),
    (0.625, [0.6, 0.35, 0.05]),
)


def decisions_of(p0: float, shares: list[float], size: int, n_samples: int = 100_000, alpha: float = ALPHA):
    """Return decisions at the radius that needs slightly less than ``p0``, and all votes that were drawn for them."""
    noise = UniformNoise(1.0, levels=1000)
    thresholds = 0.5 - noise.effective_lam + np.cumsum(shares)[:-1] * 2 * noise.effective_lam
    model = KnownShares(thresholds.tolist()).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(
        model, model.classes_, noise, radius="lipschitz", alpha=alpha, n_samples=n_samples, random_state=0
    )
    # The base model looks at the first feature; the others make the inputs different, and their noise independent.
    X = np.column_stack([np.full(size, 0.5), np.arange(size) % 1000 / 1000, np.arange(size) // 1000 / 1000])
    before = KnownShares.rows
    decisions = clf.certify_at(X, noise.effective_lam * (2 * p0 - 1) * (1 - 1e-9))
    return decisions, KnownShares.rows - before


def against_published(size: int) -> None:
    """Compare mean votes to a decision with the published sequence."""
    rows = []
    for p0, p, published in PUBLISHED:
        decisions, drawn = decisions_of(p0, [p, 1 - p], size)
        ours = decisions.n_samples.mean()
        rows.append(
            {
                "required": p0,
                "p": p,
                "published": published,
                "betting sequence": published_votes(p0, p),
                "certify_at": ours,
                "error": decisions.n_samples.std() / size**0.5,
                "ratio": ours / published,
                "target": 1.0,
                "other votes drawn": drawn / size - ours,
                "certified": decisions.robust.mean(),
            }
        )
    show(f"Mean votes until {size} inputs are certified, alpha={ALPHA:g}", rows)
    rows = []
    for p0, shares in REFUSALS:
        decisions, _ = decisions_of(p0, shares, max(20, size // 10))
        row = {"required": p0, "p": shares[0], "rivals": len(shares) - 1, "certify_at": decisions.n_samples.mean()}
        if len(shares) == 2 and shares[0] < p0:
            row["betting sequence"] = published_votes(1 - p0, 1 - shares[0])
        rows.append(row | {"certified": decisions.robust.mean()})
    show("Mean votes until inputs are refused", rows)


def at_the_threshold(size: int, alpha: float = 0.05, n_samples: int = 2000) -> None:
    """Count false certificates, which are most likely at the threshold, at a level that shows them."""
    rows = []
    for p0, shares in THRESHOLDS:
        # A little more than the true margin is required, so that every certificate is false.
        decisions, _ = decisions_of(p0 + 1e-8, shares, size, n_samples, alpha)
        row = {"required": p0, "p": shares[0], "rivals": len(shares) - 1, "false": decisions.robust.mean()}
        rows.append(row | {"target": f"<= {binom.ppf(0.99, size, alpha) / size:.4g}"})
    show(f"False certificates at the threshold, alpha={alpha:g}, {size} inputs", rows)


def run(quick: bool, images: int = 1000) -> None:
    against_published(50 if quick else 1000)
    at_the_threshold(200 if quick else 4000)
    on_tables(10 if quick else 100)
    on_mnist(quick, images)


def on_tables(size: int) -> None:
    """Compare ``rtol`` with a fixed number of votes where each input has three features."""
    cancer, iris = load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)
    tables = {
        "iris": (iris[0][:, 1:], iris[1]),
        "breast_cancer": (cancer[0][:, [0, 1, 4]], cancer[1]),
        "made up": make_classification(600, 3, n_informative=3, n_redundant=0, random_state=0),
    }
    rows = []
    for (name, (X, y)), lam in product(tables.items(), (0.25, 0.5, 1.0)):
        X, kept = minmax_scale(X), np.linspace(0, len(X) - 1, size).astype(int)
        clf = SmoothedClassifier(LogisticRegression(C=100), SplitNoise(lam), alpha=ALPHA, random_state=0).fit(X, y)
        fixed, early = clf.certify(X[kept]), clf.set_params(rtol=0.05).certify(X[kept])
        row = {
            "data": name,
            "lam": lam,
            "mean votes": early.n_samples.mean(),
            "median votes": np.median(early.n_samples),
        }
        row["mean radius / fixed"] = mean_radius(early, y[kept]) / mean_radius(fixed, y[kept])
        rows.append(row | {"abstained": early.abstained.mean(), "abstained, fixed": fixed.abstained.mean()})
    show("Tables of three columns, rtol=.05, 10,000 votes", rows)


def mean_radius(certificates: Certificates, y: NDArray[np.int64]) -> float:
    """Return the mean certified radius; wrong labels and abstentions count as 0."""
    return float(np.where(certificates.labels == y, np.nan_to_num(certificates.radii), 0.0).mean())


def on_mnist(quick: bool, images: int) -> None:
    """Compare with a fixed number of votes, on images."""
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

    rows = []
    for cap in (n, 10 * n):
        early = clf.set_params(n_samples=cap, rtol=0.05).certify(X)
        rows.append(
            {
                "cap": cap,
                "mean votes": early.n_samples.mean(),
                "median votes": np.median(early.n_samples),
                f"votes / {n}": early.n_samples.mean() / n,
                "mean radius": mean_radius(early, y),
                "mean radius / fixed": mean_radius(early, y) / mean_radius(fixed, y),
            }
        )
    show("Certified radii with rtol=.05", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="held-out images to certify, at most 1000")
    run(quick=False, images=parser.parse_args().images)
