"""A warning about base models that have learned nothing under the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.warn import warn
from ..models.sklearn import SklearnVoter
from ..noise.mechanism import NoiseMechanism

#: The most classes that are looked at, the training inputs of each, and noisy copies of each input.
N_CLASSES, N_INPUTS, N_COPIES = 10, 32, 16


def warn_constant(voter: Any, mechanism: NoiseMechanism, X: NDArray[Any], y: NDArray[Any], seed: int) -> None:
    """Warn if the smoothed classifier predicts one class for training inputs of several classes.

    Only models of scikit-learn's kind are asked: the votes of torch models and functions may be slow or expensive.

    Parameters
    ----------
    voter : Voter
        The fitted base model.
    mechanism : NoiseMechanism
    X : ndarray of shape (n_inputs, *shape)
        Training inputs.
    y : ndarray of shape (n_inputs,)
    seed : int
        Of the noise.
    """
    # The answers of regressors are no labels.
    if not isinstance(voter, SklearnVoter) or not hasattr(voter, "labels"):
        return
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    frequent = np.flatnonzero(counts >= N_INPUTS)[:N_CLASSES]
    if len(frequent) < 2:
        return
    rows = np.concatenate([np.flatnonzero(place == one)[:N_INPUTS] for one in frequent])
    noisy = mechanism.noisy(np.repeat(X[rows], N_COPIES, axis=0), np.random.default_rng(seed))
    try:
        with np.errstate(all="ignore"):
            cast = voter(noisy)
    except Exception:
        # Where the base model cannot vote, certification says so.
        return
    votes = np.eye(voter.n_classes, dtype=np.int64)[cast].reshape(len(rows), N_COPIES, voter.n_classes)
    predicted = votes.sum(axis=1).argmax(axis=1)
    if (predicted == predicted[0]).all():
        warn(
            f"The smoothed classifier predicts {voter.labels.classes.tolist()[predicted[0]]!r} for all of "
            f"{len(rows)} training inputs of {len(frequent)} classes: large radii say little then. Narrow the noise "
            f"(a smaller lam, or larger costs), or weight the classes in the base model (class_weight='balanced').",
        )
