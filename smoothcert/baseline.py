"""What certificates must beat: the majority class, and a model that sees nothing that an adversary can change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils import gen_batches

from ._utils.checks import check_labels
from ._utils.pipelines import last_step
from .models.adapt import make_voter
from .models.base import is_torch
from .models.columns import NamedColumns
from .noise.seeding import resolve_seed
from .results.certificates import Certificates
from .results.records import no_label
from .runs.inputs import Inputs
from .training.strategies import CleanTraining


def baselines(
    certificates: Certificates, clf: Any, X_train: Any, y_train: ArrayLike, X: Any
) -> dict[str, Certificates]:
    """Return the certificates of classifiers that no allowed change of an input can move. Their radii are infinite.

    The majority class is predicted for every input. Where columns are fixed (cost "fixed"), the base model is also
    trained without noise on them alone: all other columns get one value, in training and in prediction.

    Parameters
    ----------
    certificates : Certificates
        Certificates of X.
    clf : SmoothedClassifier, or Pipeline that ends in one
        The fitted classifier that has made them.
    X_train : array-like of shape (n_train, ...)
        Training data.
    y_train : array-like of shape (n_train,)
        Labels, read by position.
    X : array-like of shape (n_inputs, ...)
        The certified inputs.

    Returns
    -------
    baselines : dict of str to Certificates
        "majority class" and, where there are fixed columns, "fixed columns", which abstains on inputs that the run has
        skipped. The curves and tables of the library show them beside other certificates.

    Raises
    ------
    ValueError
        If the inputs do not fit.

    See Also
    --------
    smoothcert.results.summarize : A table of several classifiers.
    CertifiedAccuracyDisplay.from_certificates : Their curves.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from smoothcert import SmoothedClassifier, UniformNoise
    >>> from smoothcert.results import summarize
    >>> X = np.random.default_rng(0).random((200, 2))
    >>> y = X[:, 0] + X[:, 1] > 0.9
    >>> clf = SmoothedClassifier(GaussianNB(), UniformNoise(0.4), n_samples=500, random_state=0).fit(X, y)
    >>> certificates = clf.certify(X[:50])
    >>> summarize({"smoothed": certificates} | baselines(certificates, clf, X, y, X[:50]), y[:50], radii=[0, 0.2])
    l1 radius  smoothed  majority class
            0     0.820           0.680
          0.2     0.560           0.680
    50 inputs, 0 to 5 abstained, against every perturbation, alpha=0 or 0.001
    """
    clf, X_train, X = last_step(clf, X_train, X)
    opened, inputs = clf.open_inputs(X_train), clf.open_inputs(X, skip=bool(np.any(certificates.failed)))
    if len(inputs) != len(certificates):
        raise ValueError(f"X must hold the {len(certificates)} inputs of certificates, got {len(inputs)}.")
    truth = check_labels(y_train, len(opened), clf.classes_)
    classes, counts = np.unique(truth, return_counts=True)
    majority = np.repeat(classes[counts.argmax() : counts.argmax() + 1], len(certificates))
    none = np.zeros(len(certificates), dtype=bool)
    found = {"majority class": _unmovable(certificates, majority, none)}
    # Inputs that were skipped may not be readable.
    skipped = none if certificates.failed is None else certificates.failed
    labels = _labels_of_fixed(clf, opened, truth, inputs.only(np.flatnonzero(~skipped)))
    if labels is not None:
        # The last of them is for skipped inputs.
        places = np.where(skipped, -1, np.cumsum(~skipped) - 1)
        every = np.append(labels, no_label(clf.classes_))[places]
        found["fixed columns"] = _unmovable(certificates, every, skipped)
    return found


def _labels_of_fixed(clf: Any, opened: Inputs, y_train: NDArray[Any], inputs: Inputs) -> NDArray[Any] | None:
    """Return labels by the fixed columns alone, or None if there are none or the base model is used as it is."""
    algorithm = clf.algorithm(opened.shape)
    mechanism, columns = algorithm.mechanism, getattr(algorithm.voter, "columns", None)
    fixed = mechanism.per_feature(mechanism.features.fixed).reshape(mechanism.shape)
    if not fixed.any() or isinstance(clf.estimator, FrozenEstimator):
        return None
    category = mechanism.per_feature(mechanism.features.categorical).reshape(mechanism.shape)
    neutral = np.where(category, 0.0, (mechanism.box.lo + mechanism.box.hi) / 2)
    train, test = (np.where(fixed, data.read(data.positions), neutral) for data in (opened, inputs))
    model = clf.estimator if columns is None or is_torch(clf.estimator) else NamedColumns(clf.estimator, columns)
    seed = resolve_seed(clf.random_state)
    fitted = CleanTraining().train(model, train, y_train, mechanism=mechanism, seed=seed, device=clf.device)
    fitted = fitted.estimator if isinstance(fitted, NamedColumns) else fitted
    voter = make_voter(fitted, clf.classes_, clf.device, clf.inference, columns, finite=False)
    with voter.ready():
        votes = [voter(test[part].astype(voter.dtype)) for part in gen_batches(len(test), voter.most_rows)]
    return np.asarray(clf.classes_[np.concatenate(votes)])


def _unmovable(certificates: Certificates, labels: NDArray[Any], skipped: NDArray[np.bool_]) -> Certificates:
    """Return certificates of these labels that hold against every change that is allowed, except skipped ones."""
    return replace(
        certificates,
        labels=labels,
        radii=np.where(skipped, np.nan, np.inf),
        abstained=skipped,
        p_a=np.where(skipped, 0.0, 1.0),
        p_b=np.zeros(len(labels)),
        alpha=0.0,
        n_samples=None,
        failed=skipped if skipped.any() else None,
    )
