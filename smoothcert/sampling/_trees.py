"""Trees, and ensembles of them, as plain arrays.

Models are recognized by the names of their classes, so that no library is imported here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ..models.base import name_of, unwrap

#: Steps that map each column by a nondecreasing function of its own, in floating point as well.
SCALERS = {
    f"sklearn.{name}"
    for name in ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Binarizer", "KBinsDiscretizer")
}


class NotExactError(ValueError):
    """The smoothed probabilities of this base model and noise can only be estimated."""


class Tree(NamedTuple):
    """A binary tree: a value that is at most the threshold goes left, and at some nodes a missing value does.

    Attributes
    ----------
    left, right : ndarray of shape (n_nodes,)
        Children of each node; negative for leaves.
    feature, threshold : ndarray of shape (n_nodes,)
    missing_left : ndarray of bool, shape (n_nodes,)
    value : ndarray of shape (n_nodes,)
        What a leaf adds to the score, or the index of its class in a single decision tree.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
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
    classes : ndarray
        Labels of the model.
    votes : bool
        Whether the model is one decision tree, whose leaves vote.
    scored : bool
        Whether the model is for two classes, and the sign of the sum of all leaf values and ``constant`` decides.
    constant : float
    error : float
        How far from 0 the sum can be and the model still decide against its sign, apart from rounding in float64.
    real : type
        The type to which the model converts its input.
    steps : list of estimators
        Steps before the model.
    source : ndarray of shape (n_columns,)
        The feature of the input that each column of the model depends on; -1 for fixed ones.
    """

    trees: list[Tree]
    classes: NDArray[Any]
    votes: bool = False
    scored: bool = False
    constant: float = 0.0
    error: float = 0.0
    real: type[np.floating] = np.float32
    steps: list[Any] = []  # noqa: RUF012
    source: NDArray[np.intp] = np.zeros(0, dtype=np.intp)

    def compared(self, rows: Any) -> NDArray[np.floating]:
        """Return rows as the trees compare them."""
        for step in self.steps:
            rows = step.transform(rows)
        return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows).astype(self.real)


def read(estimator: Any, numeric: NDArray[np.bool_], categorical: NDArray[np.bool_]) -> StepModel:
    """Return the trees of a fitted classifier, alone or behind steps that treat each column separately.

    Parameters
    ----------
    estimator : estimator
    numeric, categorical : ndarray of bool, shape (n_features,)
        Features that are numbers with noise, and categories with noise. The others are fixed: steps may do with them as
        they please.

    Raises
    ------
    NotExactError
        If this is another kind of model. Subclasses are: they may predict by rules of their own.
    """
    model = unwrap(estimator)
    if _kind(model) == "smoothcert.IndexedLabels":
        inside = read(model.estimator, numeric, categorical)
        return inside._replace(classes=model.classes_[inside.classes])
    steps = []
    if _kind(model) == "sklearn.Pipeline":
        *steps, model = [unwrap(step) for _, step in model.steps if step is not None and step != "passthrough"]
    source = np.where(numeric | categorical, np.arange(len(numeric)), -1)
    for step in steps:
        source = _sources(step, source, numeric)
    reader = READERS.get(_kind(model))
    if reader is None:
        _refuse("a decision tree, or boosted trees of scikit-learn, XGBoost or LightGBM", model)
    check_is_fitted(model)
    found = reader(model)
    if not found.trees:
        _refuse("a model with trees", f"a {name_of(model)} that has none")
    return found._replace(steps=steps, source=source)


def _kind(model: Any) -> str:
    """Return the library and the class of a model; subclasses elsewhere have another library."""
    return f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"


def _refuse(needed: str, got: Any) -> NoReturn:
    got = got if isinstance(got, str) else name_of(got)
    raise NotExactError(f"Exact probabilities need {needed}, got {got}. Use estimation='sample'.")


def _sources(step: Any, source: NDArray[np.intp], numeric: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the feature that each column of a step's output depends on, by a nondecreasing function of numbers.

    Parameters
    ----------
    step : estimator
    source : ndarray of shape (n_columns,)
        The same for the columns of its input; -1 for fixed features.
    numeric : ndarray of bool, shape (n_features,)
        Features that are numbers with noise.
    """
    kind = _kind(step)
    if step is None or step == "passthrough" or (kind == "sklearn.FunctionTransformer" and not step.func):
        return source
    if kind == "sklearn.Pipeline":
        for _, inside in step.steps:
            source = _sources(inside, source, numeric)
        return source
    if kind == "sklearn.ColumnTransformer":
        found = np.full(max(part.stop for part in step.output_indices_.values()), -1, dtype=np.intp)
        for name, inside, _ in step.transformers_:
            known = source[np.asarray(step._transformer_to_input_indices[name], dtype=np.intp)]
            if inside != "drop" and (known >= 0).any():
                found[step.output_indices_[name]] = _sources(inside, known, numeric)
        return found
    if kind in ("sklearn.OneHotEncoder", "sklearn.OrdinalEncoder") and not numeric[source[source >= 0]].any():
        return np.repeat(source, step._n_features_outs) if kind == "sklearn.OneHotEncoder" else source
    if kind not in SCALERS or getattr(step, "encode", "ordinal") != "ordinal":
        _refuse("steps that map each noisy column by an increasing function, such as StandardScaler", step)
    return source


def _tree(tree: Any, value: Any) -> Tree:
    """Return a tree of `sklearn.tree` with these values of its nodes."""
    missing_left = tree.missing_go_to_left.astype(bool)
    return Tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, missing_left, value)


def _read_decision_tree(model: Any) -> StepModel:
    """Leaves vote for their most frequent class, the first of several."""
    if model.n_outputs_ != 1:
        _refuse("a decision tree with one output", f"{model.n_outputs_} outputs")
    votes = model.tree_.value[:, 0].argmax(axis=1)
    return StepModel([_tree(model.tree_, votes)], model.classes_, votes=True)


def _read_ada_boost(model: Any) -> StepModel:
    """Trees vote with their weights, and the second class wins with a positive sum."""
    if any(_kind(tree) != "sklearn.DecisionTreeClassifier" for tree in model.estimators_):
        _refuse("AdaBoost with decision trees", model.estimators_[0])
    trees = []
    for tree, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        votes = tree.classes_[tree.tree_.value[:, 0].argmax(axis=1)]
        trees.append(_tree(tree.tree_, np.where(votes == model.classes_[-1], weight, -weight)))
    return StepModel(trees, model.classes_, scored=len(model.classes_) == 2)


def _read_gradient_boosting(model: Any) -> StepModel:
    """Trees add to a constant. The second class wins with a sum of at least 0."""
    prior = _kind(model.init_) == "sklearn.DummyClassifier" and model.init_.strategy == "prior"
    if not prior and not (isinstance(model.init_, str) and model.init_ == "zero"):
        _refuse("GradientBoosting with init=None or 'zero'", f"init={model.init!r}")
    trees = [_tree(tree.tree_, model.learning_rate * tree.tree_.value[:, 0, 0]) for tree in model.estimators_.flat]
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    return StepModel(trees, model.classes_, scored=len(model.classes_) == 2, constant=float(start[0, 0]))


def _read_hist_gradient_boosting(model: Any) -> StepModel:
    """Trees add to a constant. The second class wins with a positive sum."""
    if model.is_categorical_ is not None:
        _refuse("HistGradientBoosting without categories", f"categorical_features={model.categorical_features!r}")
    trees = []
    for tree in (tree for trees_of_iteration in model._predictors for tree in trees_of_iteration):
        nodes = tree.nodes
        left, right = (np.where(nodes["is_leaf"], -1, nodes[side].astype(np.intp)) for side in ("left", "right"))
        feature = nodes["feature_idx"].astype(np.intp)
        missing_left = nodes["missing_go_to_left"].astype(bool)
        trees.append(Tree(left, right, feature, nodes["num_threshold"], missing_left, nodes["value"]))
    start, scored = float(model._baseline_prediction.flat[0]), len(model.classes_) == 2
    return StepModel(trees, model.classes_, scored=scored, constant=start, real=np.float64)


def _read_xgboost(model: Any) -> StepModel:
    """Everything is float32. A value below the threshold goes left, and the second class wins with a positive sum."""
    booster = model.get_booster()
    best = getattr(model, "best_iteration", None)
    content = json.loads(bytes((booster if best is None else booster[: best + 1]).save_raw("json")))["learner"]
    boosting, objective = content["gradient_booster"], content["objective"]["name"]
    if boosting["name"] != "gbtree" or not np.isnan(model.missing):
        _refuse("XGBoost with booster='gbtree' and missing=nan", f"{boosting['name']} and {model.missing}")
    trees = []
    for tree in boosting["model"]["trees"]:
        if any(tree["split_type"]) or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            _refuse("XGBoost without categories and with one output for each tree", "other trees")
        left, right, feature = (
            np.array(tree[name], dtype=np.intp) for name in ("left_children", "right_children", "split_indices")
        )
        # At a leaf the condition is its value.
        condition = np.array(tree["split_conditions"], dtype=np.float32)
        below = np.nextafter(condition, np.float32(-np.inf))
        missing_left = np.array(tree["default_left"], dtype=bool)
        trees.append(Tree(left, right, feature, below.astype(np.float64), missing_left, condition.astype(np.float64)))
    if objective != "binary:logistic":
        return StepModel(trees, np.asarray(model.classes_))
    start = float(np.float32(str(content["learner_model_param"]["base_score"]).strip("[]")))
    if not 0 < start < 1:
        _refuse("XGBoost with base_score between 0 and 1", f"{start:g}")
    odds, eps = start / (1 - start), float(np.finfo(np.float32).eps)
    largest = [float(np.abs(tree.value[tree.left < 0]).max()) for tree in trees]
    # The sum, the logit of the start and the comparison of a probability with 1/2 are rounded.
    error = eps * ((len(trees) + 2) * (sum(largest) + abs(math.log(odds))) + odds + 1 / odds + 4)
    classes = np.asarray(model.classes_)
    return StepModel(trees, classes, scored=True, constant=math.log(odds), error=error)


def _read_lightgbm(model: Any) -> StepModel:
    """Trees hold the start. The second class wins if the logistic function of the sum exceeds 1/2."""
    if model.get_params().get("pred_early_stop"):
        _refuse("LightGBM that adds all trees", "pred_early_stop=True")
    content = model.booster_.dump_model()
    trees = [_read_lightgbm_tree(tree["tree_structure"]) for tree in content["tree_info"]]
    scored, eps = content["objective"].startswith("binary "), float(np.finfo(np.float64).eps)
    return StepModel(trees, np.asarray(model.classes_), scored=scored, error=16 * eps, real=np.float64)


def _read_lightgbm_tree(root: dict[str, Any]) -> Tree:
    """Return a tree of nested nodes."""
    rows: list[list[Any]] = []
    waiting: list[tuple[dict[str, Any], int, int]] = [(root, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if parent >= 0:
            rows[parent][side] = len(rows)
        if "leaf_value" in node:
            if "leaf_coeff" in node:
                _refuse("LightGBM with constant leaves", "linear_tree=True")
            rows.append([-1, -1, 0, 0.0, False, node["leaf_value"]])
            continue
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            _refuse("LightGBM without categories and zero_as_missing", "a split on categories or zeros")
        waiting += [(node["left_child"], len(rows), 0), (node["right_child"], len(rows), 1)]
        # Without missing values in training, they count as 0.
        missing_left = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
        rows.append([-1, -1, node["split_feature"], node["threshold"], missing_left, 0.0])
    left, right, feature = np.array([row[:3] for row in rows], dtype=np.intp).T
    threshold, missing_left, value = np.array([row[3:] for row in rows], dtype=np.float64).T
    return Tree(left, right, feature, threshold, missing_left > 0, value)


READERS: dict[str, Callable[[Any], StepModel]] = {
    "sklearn.DecisionTreeClassifier": _read_decision_tree,
    "sklearn.ExtraTreeClassifier": _read_decision_tree,
    "sklearn.AdaBoostClassifier": _read_ada_boost,
    "sklearn.GradientBoostingClassifier": _read_gradient_boosting,
    "sklearn.HistGradientBoostingClassifier": _read_hist_gradient_boosting,
    "xgboost.XGBClassifier": _read_xgboost,
    "lightgbm.LGBMClassifier": _read_lightgbm,
}
