"""The time of count_votes against that of the bare model where the model is small: breast_cancer, 30 features.

With so little work in the model, what is shown is the price of noise, batches and counting. `raw` is the data as it
comes, with ``bounds="minmax"``; `scaled` is the data in [0, 1]. The bare model runs on one fixed batch at its best
batch size.
"""

from __future__ import annotations

import numpy as np
import torch
from common import bare_estimator, bare_network, best_batch, powers, ratio, show
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.training import make_net


def small_network() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def run(quick: bool) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    n, repeats, results = (500, 3, []) if quick else (10_000, 7, [])
    for data, X_used, bounds in (("raw", X, "minmax"), ("scaled", minmax_scale(X), (0.0, 1.0))):
        torch.manual_seed(0)
        models = {
            "LogisticRegression": LogisticRegression(max_iter=10_000),
            "network": make_net(small_network(), max_epochs=5),
        }
        for name, model in models.items():
            clf = SmoothedClassifier(
                model,
                SplitNoise(lam=1.0),
                training=None if name == "LogisticRegression" else "augment",
                bounds=bounds,
                n_selection=1,
                n_samples=n,
                random_state=0,
            ).fit(X_used, y)
            noisy = X_used[np.arange(2**17) % len(X)]
            if name == "network":
                bare = bare_network(clf.estimator_.module_.eval(), torch.from_numpy(noisy).float())
            else:
                bare = bare_estimator(clf.estimator_, noisy)
            rows = len(X) * (n + 1)
            best = best_batch(bare, powers(256, 2**17), rows=2**17)
            results.append(
                {
                    "model": name,
                    "data": data,
                    "rows": rows,
                    "best batch": best,
                    "ratio": ratio(
                        lambda clf=clf, X=X_used: clf.count_votes(X),
                        lambda bare=bare, rows=rows, best=best: bare(rows, best),
                        repeats,
                    ),
                    "target": "<= 1.5",
                }
            )
    show("Time of count_votes / time of the bare model at its best batch size", results)
