"""Folds that keep the copies of an input together, with values by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import RegressorMixin
from sklearn.linear_model import LinearRegression, LogisticRegressionCV, Ridge, SGDRegressor
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smoothcert import NoiseAugmentation
from smoothcert.models.columns import NamedColumns
from smoothcert.training.folds import FoldsOfCopies, _own_folds, _random_splits, predicts_numbers

from .problems import Seen, train


def test_folds_of_copies():
    folds = FoldsOfCopies(GroupKFold(2), 3)
    data, labels, groups = np.zeros((12, 1)), np.tile([0, 1, 0, 1], 3), np.tile([5, 5, 6, 7], 3)
    found = [tuple(map(list, pair)) for pair in folds.split(data, labels, groups)]
    for train_rows, test_rows in found:
        assert sorted(train_rows + test_rows) == list(range(12))
        assert {row % 4 for row in train_rows}.isdisjoint(row % 4 for row in test_rows)
        assert {row % 4 in (0, 1) for row in test_rows if row % 4 < 2} <= {True}
    assert sorted(len(test) for _, test in found) == [6, 6]
    assert FoldsOfCopies(KFold(4), 3).get_n_splits(data) == 4
    by_groups = SimpleNamespace(
        get_n_splits=lambda X, y, groups: len(X) + len(groups), get_metadata_routing=lambda: "r"
    )
    assert FoldsOfCopies(by_groups, 3).get_n_splits(data, labels, groups) == 8
    assert FoldsOfCopies(by_groups, 3).get_metadata_routing() == "r"
    frame = pd.DataFrame({"a": np.zeros(12)}, index=range(20, 32))
    [(kept, _), *_] = FoldsOfCopies(KFold(2), 3).split(frame)
    assert kept.tolist() == [2, 3, 6, 7, 10, 11]


def test_folds_that_an_estimator_makes():
    assert list(_own_folds(GridSearchCV(GaussianNB(), {}))) == ["cv"]
    nested = make_pipeline(StandardScaler(), make_pipeline(LogisticRegressionCV()))
    assert list(_own_folds(nested)) == ["pipeline__logisticregressioncv__cv"]
    assert list(_own_folds(GaussianNB())) == []

    class Own(Seen):
        def __init__(self, cv=3):
            self.cv = cv

    assert list(_own_folds(Own())) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"validation_fraction": 0.1, "early_stopping": True}, ["early_stopping=False"]),
        ({"a__validation_fraction": 0.1, "a__early_stopping": True}, ["a__early_stopping=False"]),
        ({"a__validation_fraction": 0.1, "a__n_iter_no_change": 5}, ["a__n_iter_no_change=None"]),
        ({"validation_fraction": 0.1, "early_stopping": False, "n_iter_no_change": 5}, []),
        ({"validation_fraction": 0.1, "n_iter_no_change": None}, []),
        ({"validation_fraction": None, "early_stopping": True}, []),
        ({"early_stopping": True}, []),
    ],
)
def test_early_stopping_by_random_rows(given, expected):
    assert list(_random_splits(given, 50, {})) == expected
    assert list(_random_splits(given, 50, {"y_val": 1})) == expected
    assert list(_random_splits(given, 50, {"X_val": 1})) == []


def test_folds_follow_the_labels_of_classifiers_alone():
    """Two classes of six inputs each: stratified folds hold both, plain ones of sorted labels do not."""

    class Kept(Seen):
        seen: list = []  # noqa: RUF012

        def fit(self, X, y, **params):
            Kept.seen.append(np.asarray(y))
            return super().fit(X, y, **params)

    class KeptNumbers(RegressorMixin, Kept):
        pass

    y = np.repeat([0, 1], 6)
    for kind, n_classes in ((Kept, 2), (KeptNumbers, 1)):
        Kept.seen.clear()
        search = GridSearchCV(kind(), {"only": [1]}, cv=2, scoring=lambda *_: 0.0)
        fitted = train(NoiseAugmentation(3), search, y=y, regression=kind is KeptNumbers)
        assert [len(np.unique(labels)) for labels in Kept.seen[:2]] == [n_classes] * 2
        assert [len(labels) for labels in Kept.seen] == [18, 18, 36]
        assert fitted.cv == 2


def test_what_predicts_numbers():
    named = NamedColumns(LinearRegression(), None)
    for model, expected in (
        (Ridge(), True),
        (named, True),
        (GaussianNB(), False),
        (object(), False),
        (SGDRegressor(), True),
    ):
        assert predicts_numbers(model) is expected
