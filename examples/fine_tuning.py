"""
Fine-tune a network for wider noise, starting from its own weights
==================================================================

A skorch net with ``warm_start=True`` keeps its weights when it is trained again. A bare torch module always starts from
its own weights. The example compares a few epochs of fine-tuning with the same number of epochs from scratch.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from smoothcert import SmoothedClassifier, SplitNoise, certified_accuracy_score
from smoothcert.training import make_net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of the first training")
    parser.add_argument("--more-epochs", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--samples", type=int, default=2000, help="votes per image")
    arguments = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=200, stratify=y, random_state=0)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    settings = {"n_samples": arguments.samples, "random_state": 0}
    narrow, wide = SplitNoise(lam=0.75), SplitNoise(lam=1.5)

    first = SmoothedClassifier(make_net(network, max_epochs=arguments.epochs), narrow, **settings).fit(X_train, y_train)
    trained = first.estimator_.set_params(warm_start=True, max_epochs=arguments.more_epochs)
    fine_tuned = SmoothedClassifier(trained, wide, **settings).fit(X_train, y_train)
    scratch = make_net(network, max_epochs=arguments.more_epochs)
    from_scratch = SmoothedClassifier(scratch, wide, **settings).fit(X_train, y_train)

    for name, clf in (("narrow noise", first), ("fine-tuned", fine_tuned), ("from scratch", from_scratch)):
        scores = certified_accuracy_score(y_test, clf.certify(X_test), [0.0, 0.5, 1.0])
        print(f"{name:13} {clf.noise}: certified accuracy at l1 radius 0, .5, 1: {np.round(scores, 3)}")


if __name__ == "__main__":
    main()
