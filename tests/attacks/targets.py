"""A smoothed classifier, an input under attack and results, of a size to be checked by hand."""

import numpy as np

from smoothcert import SmoothedClassifier, UniformNoise
from smoothcert.attacks import Adversarials
from smoothcert.attacks.target import Target

from ..base_models import Rule, constant


def smooth(base=None, noise=None, **params):
    base, noise = base or Rule(constant).fit(None, None), noise or UniformNoise(1.0)
    return SmoothedClassifier.from_pretrained(base, [0, 1], noise, **{"n_samples": 500, "random_state": 0} | params)


def attacked(x, clf=None, label=0, max_queries=1000, **params):
    clf = clf or smooth(**params)
    x = np.asarray(x, dtype=np.float64)
    return Target(clf.algorithm(x.shape), x, label, np.random.default_rng(0), max_queries, n_samples=100, clear=0.1)


def adversarials(distance, success, original=(0, 1, 0), **changes):
    n = len(distance)
    given = {"inputs": np.zeros((n, 2)), "distance": np.array(distance), "original": np.array(original[:n])}
    given |= {"labels": np.ones(n, dtype=int), "success": np.array(success), "n_queries": np.arange(n) * 100}
    return Adversarials(**given | {"alpha": 0.01} | changes)
