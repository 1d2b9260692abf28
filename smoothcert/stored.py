"""The estimator of a stored run, from the store and its base model."""

from __future__ import annotations

from copy import copy
from typing import Any

from .classifier import SmoothedClassifier
from .regressor import SmoothedRegressor
from .runs.metadata import from_spec
from .runs.store import read_metadata


def stored_classifier(path: Any, model: Any, **params: Any) -> SmoothedClassifier:
    """Return the classifier of a stored run, for `verify_store` or to resume it.

    Parameters
    ----------
    path : str or path-like
        A store, written by ``certify`` or ``certify_at``.
    model : fitted model or SmoothedClassifier
        The base model of the run, or a classifier with this base model.
    **params
        Parameters that change no result, such as ``n_jobs`` and ``device``.

    Returns
    -------
    clf : SmoothedClassifier

    Raises
    ------
    ValueError
        If the file is no store of a classifier, the noise or the radius strategy is not one of this library, or the run
        has categories and ``model`` is not the fitted classifier itself.

    See Also
    --------
    verify_store : Check the records of a run.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=500).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     certificates = clf.certify(X[::25], store=f"{folder}/run.sqlite")
    ...     again = stored_classifier(f"{folder}/run.sqlite", clf.estimator_).certify(X[::25])
    >>> print((again.p_a == certificates.p_a).all())
    True
    """
    return stored_estimator(path, model, "labels", **params)


def stored_estimator(path: Any, model: Any, holds: str | None = None, /, **params: Any) -> Any:
    """Return the classifier or the regressor of a stored run; ``holds`` may name the kind of run it must be."""
    run = read_metadata(path)
    if holds is not None:
        run.check_holds(holds, path)
    kind: Any = SmoothedRegressor if run.holds_numbers else SmoothedClassifier
    own = model if isinstance(model, kind) else None
    noise, radius = from_spec("noise", run.noise), from_spec("radius", run.parameters["radius"])
    params = {"random_state": run.seed} | params | run.parameters | {"radius": radius}
    if run.holds_numbers:
        del params["estimation"]
    if own is not None and not run.features.numeric.all():
        # It knows what the codes of its columns stand for.
        return copy(own).set_params(**params)
    if run.features.categorical.any():
        raise ValueError(f"{path} holds a run with categories, which need the fitted {kind.kind} itself.")
    costs = run.features.costs.reshape(run.shape) if run.features.costs.ndim else run.features.costs
    params |= {"noise": noise, "bounds": (run.box.lo, run.box.hi), "costs": costs}
    params |= {} if run.holds_numbers else {"classes": run.classes}
    found = kind.from_pretrained(model if own is None else own.estimator_, **params)
    return found if own is None else with_features_of(own, found)


def with_features_of(own: Any, clf: Any) -> Any:
    """Let an estimator with the same base model check inputs as the fitted one does."""
    names = ("n_features_in_", "feature_names_in_", "feature_shape_")
    vars(clf).update({name: value for name, value in vars(own).items() if name in names})
    if "feature_shape_" in vars(own):
        clf.features_ = clf.features_.for_shape(own.feature_shape_)
    return clf
