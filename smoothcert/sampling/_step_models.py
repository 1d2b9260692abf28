"""Scikit-learn's trees, and ensembles of them, as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.validation import check_is_fitted

from ..models.base import name_of, unwrap

#: Steps that map each column by a nondecreasing function of its own, in floating point as well.
SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)


class NotExactError(ValueError):
    """The smoothed probabilities of this base model and noise can be estimated only."""


class Tree(NamedTuple):
    """A binary tree: a value that is at most the threshold goes left.

    Attributes
    ----------
    left, right : ndarray of shape (n_nodes,)
        Children of each node; negative for leaves.
    feature, threshold : ndarray of shape (n_nodes,)
    value : ndarray of shape (n_nodes,)
        What a leaf adds to the score, or the index of its class in a single decision tree.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    value: NDArray[Any]

    @property
    def inner(self) -> NDArray[np.intp]:
        """The nodes that are not leaves."""
        return np.flatnonzero(self.left >= 0)


class StepModel(NamedTuple):
    """A base model that is constant between the thresholds of its trees.

    Attributes
    ----------
    trees : list of Tree
    votes : bool
        Whether the model is one decision tree, whose leaves vote.
    scored : bool
        Whether the model is for two classes, and the sign of the sum of all leaf values and ``constant`` decides.
    constant : float
    real : type
        The type to which the model converts its input.
    classes : ndarray
        Labels of the model.
    scalers : list of estimators
        Steps before the model.
    """

    trees: list[Tree]
    votes: bool
    scored: bool
    constant: float
    real: type[np.floating]
    classes: NDArray[Any]
    scalers: list[Any]

    def scale(self, rows: Any) -> NDArray[np.floating]:
        """Return rows as the trees compare them."""
        for scaler in self.scalers:
            rows = scaler.transform(rows)
        return np.asarray(rows).astype(self.real)


def read(estimator: Any) -> StepModel:
    """Return the trees of a fitted scikit-learn classifier, alone or behind scalers in a pipeline.

    Raises
    ------
    NotExactError
        If this is another kind of model. Subclasses are: they may predict by rules of their own.
    """
    model = unwrap(estimator)
    steps = [unwrap(step) for _, step in model.steps] if type(model) is Pipeline else [model]
    scalers = [step for step in steps[:-1] if step is not None and step != "passthrough"]
    for scaler in scalers:
        if type(scaler) not in SCALERS:
            raise NotExactError(
                f"Exact probabilities need steps that scale each column, such as StandardScaler, got "
                f"{name_of(scaler)}. Use estimation='sample'."
            )
    model = steps[-1]
    reader = READERS.get(type(model))
    if reader is None:
        raise NotExactError(
            f"Exact probabilities need a decision tree, AdaBoost, GradientBoosting or HistGradientBoosting classifier "
            f"of scikit-learn as base model, got {name_of(model)}. Use estimation='sample'."
        )
    check_is_fitted(model)
    return reader(model)._replace(scalers=scalers)


def _tree(tree: Any, value: Any) -> Tree:
    """Return a tree of `sklearn.tree` with these values of its nodes."""
    return Tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, value)


def _read_decision_tree(model: Any) -> StepModel:
    """Leaves vote for their most frequent class, the first of several."""
    if model.n_outputs_ != 1:
        raise NotExactError("Exact probabilities need a decision tree with one output. Use estimation='sample'.")
    votes = model.tree_.value[:, 0].argmax(axis=1)
    return StepModel([_tree(model.tree_, votes)], True, False, 0.0, np.float32, model.classes_, [])


def _read_ada_boost(model: Any) -> StepModel:
    """Trees vote with their weights, and the second class wins with a positive sum."""
    if any(type(tree) is not DecisionTreeClassifier for tree in model.estimators_):
        raise NotExactError("Exact probabilities need AdaBoost with decision trees. Use estimation='sample'.")
    trees = []
    for tree, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        votes = tree.classes_[tree.tree_.value[:, 0].argmax(axis=1)]
        trees.append(_tree(tree.tree_, np.where(votes == model.classes_[-1], weight, -weight)))
    return StepModel(trees, False, len(model.classes_) == 2, 0.0, np.float32, model.classes_, [])


def _read_gradient_boosting(model: Any) -> StepModel:
    """Trees add to a constant. The second class wins with a sum of at least 0."""
    prior = type(model.init_) is DummyClassifier and model.init_.strategy == "prior"
    if not prior and not (isinstance(model.init_, str) and model.init_ == "zero"):
        raise NotExactError(f"Exact probabilities need GradientBoosting with init=None or 'zero', got {model.init!r}.")
    trees = [_tree(tree.tree_, model.learning_rate * tree.tree_.value[:, 0, 0]) for tree in model.estimators_.flat]
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    return StepModel(trees, False, len(model.classes_) == 2, float(start[0, 0]), np.float32, model.classes_, [])


def _read_hist_gradient_boosting(model: Any) -> StepModel:
    """Trees add to a constant. The second class wins with a positive sum."""
    if model.is_categorical_ is not None:
        raise NotExactError(
            "Exact probabilities need HistGradientBoosting without categories. Use estimation='sample'."
        )
    trees = []
    for tree in (tree for trees_of_iteration in model._predictors for tree in trees_of_iteration):
        nodes = tree.nodes
        left, right = (np.where(nodes["is_leaf"], -1, nodes[side].astype(np.intp)) for side in ("left", "right"))
        feature = nodes["feature_idx"].astype(np.intp)
        trees.append(Tree(left, right, feature, nodes["num_threshold"], nodes["value"]))
    start = float(model._baseline_prediction.flat[0])
    return StepModel(trees, False, len(model.classes_) == 2, start, np.float64, model.classes_, [])


READERS: dict[type, Callable[[Any], StepModel]] = {
    DecisionTreeClassifier: _read_decision_tree,
    ExtraTreeClassifier: _read_decision_tree,
    AdaBoostClassifier: _read_ada_boost,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}
