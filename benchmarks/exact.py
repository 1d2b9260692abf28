"""The time of exact probabilities, and the gap between their bounds, against 10,000 votes of the same model.

The stumps are 100 boosted ones on 30 features, the trees have about 1,000 leaves. Times are those of one core, for one
input. The width of the votes' interval is that of Clopper and Pearson at alpha = .001.

The second table is about random models, noises and inputs: how often votes contradict the exact bounds at a level of
1e-6, by intervals of Clopper and Pearson.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from common import show
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.proportion import proportion_confint

from smoothcert.models.adapt import make_voter
from smoothcert.noise import Box, SplitNoise, UniformMixtureNoise, UniformNoise, seeding
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.sampling.exact import ExactVotes
from smoothcert.sampling.sampler import count

LIBRARIES: list[tuple[Any, dict[str, Any]]] = []
with suppress(ImportError):
    LIBRARIES.append((importlib.import_module("lightgbm").LGBMClassifier, {"verbose": -1}))
with suppress(ImportError):
    LIBRARIES.append((importlib.import_module("xgboost").XGBClassifier, {}))

MODELS = {
    "AdaBoost": AdaBoostClassifier(n_estimators=100),
    "GradientBoosting": make_pipeline(StandardScaler(), GradientBoostingClassifier(max_depth=1)),
    "HistGradientBoosting": HistGradientBoostingClassifier(max_depth=1, max_iter=100),
    "tree": DecisionTreeClassifier(max_leaf_nodes=1000, random_state=0),
} | {make.__name__: make(max_depth=1, n_jobs=1, **more) for make, more in LIBRARIES}


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
    show("Random models against votes", [agreement(20, 10_000) if quick else agreement(1000, 10**6)])


def agreement(n_models: int, n_votes: int) -> dict[str, Any]:
    """Compare the exact bounds of random models, of the seeds 0, 1, 2, ..., with intervals from votes."""
    contradicted, gaps, inner = [], [], 0
    for seed in range(n_models):
        rng = np.random.default_rng(seed)
        mechanism, voter, x = random_problem(rng)
        lower, upper = ExactVotes(voter, mechanism).bounds(x)
        keys = rng.integers(2**32, size=(1, 4), dtype=np.uint32)
        votes = count(voter, mechanism, x, keys, n_votes, 2**15)
        low, high = proportion_confint(votes, n_votes, 1e-6, method="beta")
        if ((low > upper) | (high < lower)).any():
            contradicted.append(seed)
            print(f"Seed {seed}: {votes} votes contradict {lower} to {upper}.", flush=True)
        gaps.append(np.max(upper - lower))
        inner += bool(0.001 < lower.max() < 0.999)
        if (seed + 1) % 100 == 0:
            print(f"{seed + 1} models: {len(contradicted)} contradicted.", flush=True)
    found = {"models": n_models, "votes": n_votes, "undecided models": inner, "largest gap": float(np.max(gaps))}
    return found | {"contradicted": len(contradicted), "target": 0}


def random_problem(rng: np.random.Generator) -> tuple[NoiseMechanism, Any, Any]:
    """Return random noise, costs and lattices, a random model that has met the noise, and an input.

    Fixed columns hold missing values where the model accepts them.
    """
    d, n_classes = int(rng.integers(2, 12)), int(rng.integers(2, 4))
    models = [DecisionTreeClassifier(max_leaf_nodes=int(rng.integers(2, 40)), random_state=0)]
    if n_classes == 2:
        n_trees = int(rng.integers(2, 60))
        models += [
            AdaBoostClassifier(n_estimators=n_trees, random_state=0),
            make_pipeline(
                StandardScaler(), GradientBoostingClassifier(max_depth=1, n_estimators=n_trees, random_state=0)
            ),
            HistGradientBoostingClassifier(max_depth=1, max_iter=n_trees),
            *(make(max_depth=1, n_estimators=n_trees, n_jobs=1, **more) for make, more in LIBRARIES),
        ]
    lo = rng.normal(size=d) * 10.0 ** rng.integers(-3, 4)
    X = lo + 10.0 ** rng.integers(-3, 4, size=d) * rng.random((400, d))
    costs = np.ones(()) if rng.random() < 0.5 else np.append(rng.choice([0.5, 1.0, 2.0, np.inf], size=d - 1), 1.0)
    box = Box.from_bounds("minmax", X)
    # Lattices of columns have 20 steps or more, the fewest that the narrowest noise and the highest cost allow.
    steps = np.where(rng.random(d) < 0.5, rng.integers(20, 100, size=d), 0) * (rng.random() < 0.3)
    whole = np.maximum(steps, 1)
    X = np.where(steps > 0, box.lo + np.rint(box.to_unit(X) * whole) * box.width / whole, X)
    mechanism = NoiseMechanism(box, random_noise(rng, steps), (d,), Features(costs))
    score = box.to_unit(X) @ rng.normal(size=d) + 0.3 * rng.normal(size=len(X))
    y = np.searchsorted(np.sort(score)[:: -(-len(X) // n_classes)][1:], score)
    model = models[int(rng.integers(len(models)))]
    if not isinstance(model, (AdaBoostClassifier, Pipeline)):
        X[np.isinf(costs) & (rng.random(X.shape) < 0.3)] = np.nan
    return mechanism, make_voter(model.fit(mechanism.noisy(X, rng), y), np.arange(n_classes), finite=False), X[:1]


def random_noise(rng: np.random.Generator, steps: Any) -> UniformNoise | SplitNoise | UniformMixtureNoise:
    """Return noise of random width, for real numbers and for columns with lattices of some steps."""
    kind, lams = int(rng.integers(3)), rng.uniform(0.05, 1.5, size=2)
    levels = [int(one) or "auto" for one in steps] if steps.any() else "auto"
    if kind == 2:
        return UniformMixtureNoise(lams.tolist(), [0.5, 0.5], levels)
    return (UniformNoise, SplitNoise)[kind](float(lams[0]), levels)
