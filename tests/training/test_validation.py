"""Validation inside a base model's ``fit``: noisy evaluation sets, and folds that keep copies together."""

import re
import warnings
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV, SGDClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, HalvingGridSearchCV, KFold, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from smoothcert import NoiseAugmentation, SmoothedClassifier, UniformNoise
from smoothcert.training.folds import _random_splits

RNG = np.random.default_rng(0)
X = RNG.random((60, 3))
Y = np.array(["no", "yes"])[(X[:, 0] > 0.5).astype(int)]
EVAL, EVAL_Y = RNG.random((25, 3)), np.array(["yes", "no"] * 12 + ["yes"])


def smooth(base, noise=UniformNoise(0.4), n_copies=10, **params):  # noqa: B008
    training = NoiseAugmentation(n_copies=n_copies) if n_copies else None
    return SmoothedClassifier(base, noise, training=training, random_state=0, **params)


class Boosted(ClassifierMixin, BaseEstimator):
    """A classifier with the parameters of boosted trees; it remembers what ``fit`` was given."""

    def __init__(self, indices=False):
        self.indices = indices

    def fit(self, X, y, eval_set=None, X_val=None, y_val=None, verbose=True, seed=None, device=None, dataset=None):
        if self.indices and not np.array_equal(np.unique(y), [0, 1]):
            raise ValueError("Expected labels 0 and 1.")
        self.classes_ = np.unique(y)
        self.seen_ = {"X": X, "y": y} | {name: value for name, value in locals().items() if name not in ("self", "X")}
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_names_of_fit_parameters_do_not_collide():
    given = {"verbose": False, "seed": 7, "device": "gpu", "dataset": "mine"}
    seen = smooth(Boosted()).fit(X, Y, **given).estimator_.seen_
    assert {name: seen[name] for name in given} == given


@pytest.mark.parametrize(
    ("base", "warns"),
    [
        (HistGradientBoostingClassifier(max_iter=2, early_stopping=True), True),
        (HistGradientBoostingClassifier(max_iter=2), False),
        (HistGradientBoostingClassifier(max_iter=2, early_stopping=True, validation_fraction=None), False),
        (MLPClassifier(2, max_iter=2, early_stopping=True, n_iter_no_change=1), True),
        (make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=2, n_iter_no_change=1)), True),
        (GradientBoostingClassifier(n_estimators=2), False),
        (SGDClassifier(early_stopping=True), True),
        (SGDClassifier(), False),
    ],
)
def test_early_stopping_on_random_rows_warns(base, warns):
    """Copies of one input would be on both sides of the split."""
    message = r"Early stopping of the base model holds back random rows.* off \((early_stopping=False|.*change=None)\)"
    for n_copies, expected in ((10, warns), (1, False)):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            smooth(base, n_copies=n_copies).fit(X, Y)
        assert sum(bool(re.match(message, str(one.message))) for one in found) == expected


def test_early_stopping_on_the_default_of_boosted_trees_warns_from_10_000_rows_on():
    base = HistGradientBoostingClassifier(max_iter=2)
    given = base.get_params()
    assert not list(_random_splits(given, 10_000, {}))
    assert list(_random_splits(given, 10_001, {})) == ["early_stopping=False"]
    assert not list(_random_splits(given, 10_001, {"X_val": EVAL}))
    assert not list(_random_splits(given | {"validation_fraction": None}, 10_001, {}))


@pytest.mark.parametrize("frame", [False, True])
def test_evaluation_sets_are_noisy(frame):
    columns = ["a", "b", "c"]
    given, held_out = (pd.DataFrame(data, columns=columns) if frame else data for data in (X, EVAL))
    before = EVAL.copy()
    clf = smooth(Boosted()).fit(given, Y, eval_set=[(held_out, EVAL_Y), (given, Y)], X_val=held_out, y_val=EVAL_Y)
    seen = clf.estimator_.seen_
    for found, clean in [(seen["eval_set"][0][0], EVAL), (seen["X_val"], EVAL), (seen["eval_set"][1][0], X)]:
        assert not frame or list(found.columns) == columns
        offsets = np.asarray(found) - clean
        assert np.abs(offsets).max() <= 0.4
        # Uniform noise has this standard deviation.
        assert np.std(offsets) == pytest.approx(0.4 / np.sqrt(3), rel=0.15)
    np.testing.assert_array_equal(seen["eval_set"][0][1], EVAL_Y)
    np.testing.assert_array_equal(seen["y_val"], EVAL_Y)
    assert not np.array_equal(seen["eval_set"][0][0], seen["X_val"])
    np.testing.assert_array_equal(EVAL, before)
    # The training data are the same with and without an evaluation set.
    np.testing.assert_array_equal(seen["X"], smooth(Boosted()).fit(given, Y).estimator_.seen_["X"])


def test_evaluation_sets_without_noise_and_of_other_form():
    seen = smooth(Boosted(), n_copies=0).fit(X, Y, eval_set=(EVAL, EVAL_Y)).estimator_.seen_
    np.testing.assert_array_equal(seen["eval_set"][0], EVAL)
    # Labels of validation data become indices along with the others.
    indexed = smooth(Boosted(indices=True)).fit(X, Y, eval_set=[(EVAL, EVAL_Y)])
    assert set(indexed.classes_) == {"no", "yes"}
    np.testing.assert_array_equal(indexed.estimator_.estimator.seen_["eval_set"][0][1], EVAL_Y == "yes")
    # As many rows as the training data: they are not repeated with the copies.
    assert len(smooth(Boosted()).fit(X, Y, X_val=X, y_val=Y).estimator_.seen_["y_val"]) == 60


def test_bad_evaluation_sets():
    with pytest.raises(ValueError, match=r"eval_set must be a list of pairs \(X, y\), got a dict"):
        smooth(Boosted()).fit(X, Y, eval_set={"a": 1})
    with pytest.raises(ValueError, match=r"must have the features of X, in their order, got shape \(25, 2\)"):
        smooth(Boosted()).fit(X, Y, eval_set=[(EVAL[:, :2], EVAL_Y)])
    with pytest.raises(ValueError, match="box"):
        smooth(Boosted()).fit(X, Y, eval_set=[(7 * EVAL, EVAL_Y)])
    frame, other = pd.DataFrame(X, columns=list("abc")), pd.DataFrame(EVAL, columns=list("bac"))
    with pytest.raises(ValueError, match=r"and the columns \['b', 'a', 'c'\]"):
        smooth(Boosted()).fit(frame, Y, eval_set=[(other, EVAL_Y)])
    with pytest.warns(UserWarning, match="boosted__eval_set is used without noise"):
        smooth(make_pipeline(StandardScaler(), Boosted())).fit(X, Y, boosted__eval_set=[(EVAL, EVAL_Y)])


def test_early_stopping_of_scikit_learn_takes_validation_data():
    base = HistGradientBoostingClassifier(early_stopping=True, max_iter=5, random_state=0)
    clf = smooth(base, n_samples=100).fit(X, Y, X_val=EVAL, y_val=EVAL_Y)
    assert clf.certify(X[:3]).labels.shape == (3,)


# Folds

SPREAD = np.stack([np.linspace(0.02, 0.98, 24)] * 3, axis=1)
LABELS = np.array(["no", "yes"] * 12)
GRID = {"var_smoothing": [1e-9, 1e-2]}


class Recorder(GaussianNB):
    """Counts the copies of each input that it is fitted on: the noise is far smaller than the inputs' distances."""

    counts: ClassVar[list] = []

    def fit(self, X, y, sample_weight=None):
        distances = np.abs(np.asarray(X)[:, None] - SPREAD).sum(axis=2)
        Recorder.counts.append(np.bincount(distances.argmin(axis=1), minlength=len(SPREAD)))
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GridSearchCV(Recorder(), GRID, cv=KFold(3)),
        lambda: make_pipeline(FunctionTransformer(), GridSearchCV(Recorder(), GRID, cv=3)),
        lambda: CalibratedClassifierCV(Recorder(), cv=KFold(3)),
        lambda: StackingClassifier([("a", Recorder())]),
        lambda: TunedThresholdClassifierCV(Recorder(), cv=KFold(3)),
    ],
)
@pytest.mark.parametrize("frame", [False, True])
def test_copies_of_an_input_stay_on_one_side(make, frame):
    Recorder.counts.clear()
    data = pd.DataFrame(SPREAD, columns=list("abc")) if frame else SPREAD
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = smooth(make(), UniformNoise(0.002), n_copies=4).fit(data, LABELS)
    counts = np.array(Recorder.counts)
    assert set(np.unique(counts)) == {0, 4}
    # The user's parameters come back.
    cv = [name for name in clf.estimator_.get_params() if name.endswith("cv")]
    assert [repr(clf.estimator_.get_params()[name]) for name in cv] == [repr(make().get_params()[name]) for name in cv]


@pytest.mark.parametrize("kind", [GridSearchCV, HalvingGridSearchCV])
def test_a_search_is_not_deceived_by_copies(kind):
    """The nearest neighbor of a copy is another copy of the same input, unless these are held out with it."""
    labels = np.random.default_rng(1).permutation(LABELS)
    search = kind(KNeighborsClassifier(), {"n_neighbors": [1]}, cv=4)
    assert smooth(search, UniformNoise(0.002)).fit(SPREAD, labels).estimator_.best_score_ < 0.8


@pytest.mark.parametrize("base", [LogisticRegressionCV, RidgeClassifierCV])
def test_the_users_splitter_sees_the_inputs(base):
    sizes = []

    class Splitter(GroupKFold):
        def split(self, X, y=None, groups=None):
            sizes.append(len(X))
            return KFold(3).split(X)

    smooth(base(cv=Splitter(3)), UniformNoise(0.002)).fit(SPREAD, LABELS)
    assert set(sizes) == {24}


def test_groups_are_those_of_the_inputs():
    groups = np.repeat(np.arange(6), 4)
    search = GridSearchCV(Recorder(), GRID, cv=GroupKFold(3))
    Recorder.counts.clear()
    smooth(search, UniformNoise(0.002), n_copies=4).fit(SPREAD, LABELS, groups=groups)
    for counts in Recorder.counts:
        assert set(np.unique(counts.reshape(6, 4).sum(axis=1))) <= {0, 16}


def test_hidden_folds_are_named():
    hidden = VotingClassifier([("a", CalibratedClassifierCV(GaussianNB(), cv=2)), ("b", GaussianNB())])
    with pytest.warns(UserWarning, match=r"folds of its own \(a__cv\).*Put the search outside"):
        smooth(hidden).fit(X, Y)
    with pytest.warns(UserWarning, match=r"folds of its own \(estimator__cv\)"):
        smooth(GridSearchCV(CalibratedClassifierCV(GaussianNB(), cv=2), {"method": ["sigmoid"]}, cv=2)).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smooth(hidden, n_copies=0).fit(X, Y)
        smooth(hidden, n_copies=1).fit(X, Y)


@pytest.mark.parametrize("wrap", [lambda base: base, lambda base: make_pipeline(StandardScaler(), base)])
def test_stored_results_of_leaving_one_out_are_those_of_copies(wrap):
    """RidgeClassifierCV refuses folds where it stores the results of each row."""
    stored = wrap(RidgeClassifierCV(store_cv_results=True))
    with pytest.warns(UserWarning, match=r"folds of its own \((ridgeclassifiercv__)?cv\).* its scores are too good"):
        clf = smooth(stored, n_copies=4).fit(X, Y)
    fitted = clf.estimator_[-1] if hasattr(clf.estimator_, "steps") else clf.estimator_
    assert len(fitted.cv_results_) == 4 * len(X)
    assert fitted.cv is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smooth(stored, n_copies=1).fit(X, Y)


@pytest.mark.parametrize("forest", [RandomForestClassifier, ExtraTreesClassifier, BaggingClassifier])
def test_scores_of_rows_out_of_the_bag_warn(forest):
    params = {"n_estimators": 30, "oob_score": True, "bootstrap": True}
    with pytest.warns(UserWarning, match=r"folds of its own \(oob_score\).* its scores are too good"):
        clf = smooth(forest(**params), UniformNoise(0.002), n_copies=4).fit(SPREAD, np.tile([0, 1, 1, 0], 6))
    assert clf.estimator_.oob_score_ > 0.95


def test_a_failed_second_fit_on_other_columns_changes_nothing():
    clf = smooth(GaussianNB(), n_samples=100).fit(X, Y)
    before = clf.certify(X[:4])
    with pytest.raises(TypeError):
        clf.fit(X[:, :2], Y, nonsense=1)
    np.testing.assert_array_equal(clf.certify(X[:4]).p_a, before.p_a)
    with pytest.raises(ValueError, match="box"):
        clf.fit(pd.DataFrame(9 * X, columns=list("abc")), Y)
    np.testing.assert_array_equal(clf.certify(X[:4]).p_a, before.p_a)
