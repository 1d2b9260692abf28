"""How many votes adaptive selection saves, and how often it selects another class than all selection votes would.

`before` is the mean number of votes per input if all 256 selection votes are drawn, and `after` the mean number that
is drawn. For `certify_at` both include the estimation votes. `labels differ` is simulated: the vote shares of each
input are estimated, and its selection is repeated with votes drawn from these shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from common import show, split_mnist, trained_mnist
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, minmax_scale

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.sampling.selection import is_decisive, selection_steps


def classifiers(quick: bool) -> Iterator[tuple[str, SmoothedClassifier, NDArray[Any], tuple[float, ...]]]:
    """Yield names, fitted classifiers, held-out inputs, and radii to decide about."""
    tables = {"breast_cancer": load_breast_cancer(return_X_y=True), "digits": load_digits(return_X_y=True)}
    for name, (X, y) in tables.items():
        X_train, X_test, y_train, _ = train_test_split(minmax_scale(X), y, stratify=y, random_state=0)
        base = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        for lam in (1.0,) if quick else (0.5, 1.0, 3.0):
            yield (
                name,
                SmoothedClassifier(base, SplitNoise(lam), random_state=0).fit(X_train, y_train),
                X_test,
                (0.5, 1),
            )
    clf = trained_mnist(2 if quick else 25)
    yield "MNIST", clf, split_mnist()[1][: 10 if quick else None], (0.5, 2.0)


def simulate(shares: NDArray[np.float64], n_selection: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Select once for each row of shares, and tell where all votes would have selected another class."""
    counts, n = np.zeros(shares.shape, dtype=np.int64), 0
    labels = np.full(len(shares), -1)
    for step in selection_steps(n_selection):
        counts, n = counts + rng.multinomial(step - n, shares), step
        decided = is_decisive(counts, n_selection) & (labels < 0)
        labels[decided] = counts[decided].argmax(axis=1)
    return labels != counts.argmax(axis=1)


def run(quick: bool) -> None:
    repeats, n_samples = (20, 500) if quick else (500, 2000)
    rng, predicted, decided = np.random.default_rng(0), [], []
    for name, clf, X, radii in classifiers(quick):
        key = {"data": name, "lam": clf.noise_.lam, "inputs": len(X)}
        algorithm = clf.set_params(n_samples=n_samples).algorithm(X.shape[1:])
        votes = algorithm.sampler(0).draw(X)
        shares = votes.estimation / n_samples
        # Nothing differs where one class gets almost all votes.
        close = shares[np.partition(shares, -2, axis=1)[:, -2] > 0.05]
        differ = np.mean([simulate(close, clf.n_selection, rng).sum() for _ in range(repeats)]) / len(X)
        drawn = votes.selection.sum(axis=1)
        predicted.append(
            key
            | {
                "before": clf.n_selection,
                "after": drawn.mean(),
                "median": np.median(drawn),
                "ratio": drawn.mean() / clf.n_selection,
                "labels differ": differ,
                "target": "<= 1e-4",
            }
        )
        algorithm = clf.set_params(n_samples=10_000).algorithm(X.shape[1:])
        for radius in radii:
            sampler, goals = algorithm.sampler(0, rule=algorithm.radius_rule()), np.full(len(X), float(radius))
            after = sampler.draw(X, goals)
            before = replace(sampler, all_selection=True).draw(X, goals)
            decided.append(
                key
                | {
                    "radius": radius,
                    "before": before.n_votes / len(X),
                    "after": after.n_votes / len(X),
                    "ratio": after.n_votes / before.n_votes,
                    "robust before": algorithm.decisions(before, X, goals).robust.mean(),
                    "robust after": algorithm.decisions(after, X, goals).robust.mean(),
                }
            )
    show("Votes per input of predict", predicted)
    show("Votes per input of certify_at, at most 10,000 estimation votes", decided)


if __name__ == "__main__":
    run(quick=False)
