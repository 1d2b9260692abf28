"""The time of exact probabilities, and the gap between their bounds, against 10,000 votes of the same model.

The stumps are 100 boosted ones on 30 features, the trees have about 1,000 leaves. Times are those of one core, for one
input. The width of the votes' interval is that of Clopper and Pearson at alpha = .001.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import show
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.proportion import proportion_confint

from smoothcert.models.adapt import make_voter
from smoothcert.noise import Box, SplitNoise, UniformMixtureNoise, UniformNoise, seeding
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.exact import ExactVotes
from smoothcert.sampling.sampler import count

MODELS = {
    "AdaBoost": AdaBoostClassifier(n_estimators=100),
    "GradientBoosting": make_pipeline(StandardScaler(), GradientBoostingClassifier(max_depth=1)),
    "HistGradientBoosting": HistGradientBoostingClassifier(max_depth=1, max_iter=100),
    "tree": DecisionTreeClassifier(max_leaf_nodes=1000, random_state=0),
}


def milliseconds(function: Callable[[], Any], n_inputs: int) -> float:
    """Return the processor time of a call for each input, in milliseconds."""
    function()
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start) / n_inputs


def run(quick: bool) -> None:
    X, y = make_classification(1000, 30, n_informative=20, n_redundant=0, flip_y=0.1, random_state=0)
    n_inputs, n_votes, results = (5, 1000, []) if quick else (200, 10_000, [])
    noises = UniformNoise(0.5), SplitNoise(1.0), UniformMixtureNoise([0.25, 0.75], [0.5, 0.5])
    for noise in noises:
        mechanism = NoiseMechanism(Box.from_bounds("minmax", X), noise, (30,))
        noisy, labels = mechanism.noisy(np.repeat(X, 10, axis=0), np.random.default_rng(0)), np.repeat(y, 10)
        for name, model in MODELS.items():
            voter = make_voter(model.fit(noisy, labels), np.array([0, 1]))
            votes, chosen = ExactVotes(voter, mechanism), X[:n_inputs]
            lower, upper = votes.bounds(chosen)
            few = chosen[:5]
            keys = seeding.keys(0, np.zeros((len(few), 16), dtype=np.uint8), seeding.ESTIMATION)
            low, high = proportion_confint(np.rint(lower * n_votes), n_votes, 0.002, method="beta")
            results.append(
                {
                    "noise": type(noise).__name__,
                    "model": name,
                    "ms an input": milliseconds(lambda votes=votes, X=chosen: votes.bounds(X), n_inputs),
                    "target": "<= 5",
                    "median gap": float(np.median(upper - lower)),
                    "largest gap": float(np.max(upper - lower)),
                    "target gap": "<= 0.005",
                    "ms of votes": milliseconds(
                        lambda voter=voter, X=few, keys=keys, mechanism=mechanism: count(
                            voter, mechanism, X, keys, n_votes, 2**15
                        ),
                        len(few),
                    ),
                    "gap of votes": float(np.median(high - low)),
                }
            )
    show("Exact probabilities of 30 features", results)
