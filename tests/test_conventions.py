"""What all smoothed estimators share: tags, failures, seeds, targets, and what is told while they run."""

import logging
import warnings
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pyarrow
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils import get_tags

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SmoothedConformalClassifier,
    SmoothedRegressor,
    UniformNoise,
)
from smoothcert.conventions import kept_on_error

from .base_models import MeanOfFirst, Rule, constant, steps

X = np.random.default_rng(0).random((30, 3))
Y = (X[:, 0] > 0.5).astype(int)
NOISE = UniformNoise(lam=0.5)
SMALL = {"n_samples": 60, "n_selection": 16, "random_state": 0}


def classifier(noise=NOISE, **params):
    rule = Rule(steps([0.5])).fit(None, None)
    return SmoothedClassifier.from_pretrained(rule, [0, 1], noise, **SMALL | params)


def regressor(**params):
    return SmoothedRegressor.from_pretrained(lambda rows: rows[:, 0], NOISE, **SMALL | params)


def conformal(**params):
    def probabilities(rows):
        p = np.clip(rows[:, 0], 0, 1)
        return np.column_stack([1 - p, p])

    params = SMALL | {"radius": 0.0, "confidence_level": 0.8} | params
    return SmoothedConformalClassifier.from_pretrained(probabilities, [0, 1], NOISE, **params)


# Tags


class Odd(ClassifierMixin, BaseEstimator):
    """A base model with unusual tags."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class, tags.classifier_tags.poor_score = False, True
        tags.classifier_tags.multi_label = True
        tags.input_tags.two_d_array, tags.input_tags.sparse, tags.input_tags.allow_nan = False, True, True
        return tags


@pytest.mark.parametrize("kind", [SmoothedClassifier, SmoothedConformalClassifier])
def test_tags_follow_the_base_model_where_smoothing_does_not_decide(kind):
    radius = {} if kind is SmoothedClassifier else {"radius": 0.1}
    odd, plain = (get_tags(kind(base, **radius)) for base in (Odd(), LogisticRegression()))
    shown = [
        (t.classifier_tags.multi_class, t.classifier_tags.poor_score, t.input_tags.two_d_array) for t in (odd, plain)
    ]
    assert shown == [(False, True, False), (True, False, True)]
    for tags in (odd, plain, get_tags(kind(HistGradientBoostingClassifier(), **radius))):
        assert (tags.input_tags.sparse, tags.input_tags.allow_nan) == (False, False)
        assert not tags.classifier_tags.multi_label
    assert get_tags(SmoothedRegressor(LinearRegression())).classifier_tags is None


# Failures


class Fragile(BaseEstimator):
    """An estimator whose fit changes everything it can, and fails."""

    def __init__(self, error=ValueError):
        self.error = error
        self.steps = [("first", DummyClassifier()), ("second", None)]
        self.kept_ = 1

    @kept_on_error
    def fit(self, fails):
        self.steps.pop()
        self.steps[0][1].strategy = "uniform"
        self.kept_, self.new_ = 2, 3
        if fails:
            raise self.error("broken")
        return self

    def get_params(self, deep=True):
        return {"first": self.steps[0][1], "error": self.error}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_fit_that_fails_leaves_lists_and_steps_as_they_were(error):
    fragile = Fragile(error)
    inner = fragile.steps[0][1]
    with pytest.raises(error, match="broken"):
        fragile.fit(True)
    assert ([name for name, _ in fragile.steps], fragile.kept_, hasattr(fragile, "new_")) == (
        ["first", "second"],
        1,
        False,
    )
    assert fragile.steps[0][1] is inner
    assert inner.strategy == "prior"
    assert fragile.fit(False) is fragile
    assert (len(fragile.steps), fragile.kept_, fragile.new_, inner.strategy) == (1, 2, 3, "uniform")
    assert Fragile.fit.__name__ == "fit"


# Inputs


class Rows:
    """Sized inputs that are no array, so that they are read in parts."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_inputs_beyond_the_box_are_named_once_for_all_parts():
    clf = classifier(batch_size=32)
    with pytest.warns(UserWarning, match=r"outside bounds=\(0, 1\)") as found:
        clf.predict(Rows(np.full((6, 3), 1.5)))
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(Rows(X))


def test_images_of_another_shape_are_refused():
    clf = SmoothedClassifier(FrozenEstimator(MeanOfFirst()), NOISE, **SMALL)
    clf.fit(np.zeros((4, 2, 3), dtype=np.float32), [0, 1, 0, 1])
    assert clf.feature_shape_ == (2, 3)
    assert len(clf.predict(np.zeros((2, 2, 3)))) == 2
    for shape in ((2, 3, 2), (2, 6), (2, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"X must have shape \(n, 2, 3\), as in fit, got shape"):
            clf.predict(np.zeros(shape))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_masked_values_are_refused(on_error):
    masked = np.ma.array(X[:3], mask=False)
    clf = classifier()
    np.testing.assert_array_equal(clf.certify(masked, on_error=on_error).radii, clf.certify(X[:3]).radii)
    masked[1:, 1] = np.ma.masked
    if on_error == "skip":
        with pytest.warns(UserWarning, match=r"2 of 3 inputs failed: X\[1\] \(X holds masked values"):
            assert clf.certify(masked, on_error="skip").failed.tolist() == [False, True, True]
        return
    with pytest.raises(ValueError, match=r"X holds masked values\. .*X\.filled"):
        clf.certify(list(masked))
    for call in (clf.predict, clf.certify, lambda rows: clf.fit(rows, [0, 1, 0])):
        with pytest.raises(ValueError, match=r"X holds masked values\. .*X\.filled"):
            call(masked)


START = 2**60


def large_numbers(d):
    return SmoothedClassifier.from_pretrained(
        lambda batch: (batch[:, 0] > START + 128) * 1, [0, 1], UniformNoise(1.0, levels=255),
        bounds=([START, 0][:d], [START + 255, 255][:d]), n_samples=20, alpha=0.1, random_state=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        np.array,
        list,
        lambda rows: [[*row, 0.5] for row in rows],
        partial(np.array, dtype=object),
        partial(np.array, dtype=np.uint64),
        pd.DataFrame,
        partial(pd.DataFrame, dtype=object),
        lambda rows: pd.DataFrame(rows, columns=["a"]).assign(b=0.5),
        lambda rows: pd.DataFrame(rows, columns=["a"], dtype="Int64").assign(b=0.5),
        lambda rows: pyarrow.table({"a": np.ravel(rows), "b": [0.5, 0.5]}),
    ],
)
def test_whole_numbers_that_floats_round_are_refused(make):
    """A step from 2**60 + 128 to 2**60 + 129 would become one across the whole box."""
    rows = make([[START + 128], [START + 129]])
    with pytest.raises(ValueError, match=r"X holds whole numbers of 2\*\*53 or more, which floats cannot represent"):
        large_numbers(np.shape(rows)[1]).certify(rows)


@pytest.mark.parametrize("make", [np.array, list, pd.DataFrame, partial(pd.DataFrame, dtype=object)])
def test_large_floats_are_what_they_are(make):
    assert large_numbers(1).certify(make([[float(START)], [float(START)]])).labels.tolist() == [0, 0]


def test_large_whole_numbers_among_objects_are_refused():
    rows = np.array([[0.5, 2**53 + 1, "a"]] * 4, dtype=object)
    clf = SmoothedClassifier(Rule(steps([0.5])), costs=[1.0, 1.0, "fixed"], **SMALL)
    with pytest.raises(ValueError, match=r"X holds whole numbers of 2\*\*53 or more in feature 1"):
        clf.fit(rows, [0, 1, 0, 1])


@pytest.mark.parametrize("categorical", [[0], np.array([5]), np.eye(1, 6, dtype=bool)[0]], ids=repr)
def test_only_tables_have_categories(categorical):
    images, clf = np.zeros((4, 2, 3), dtype=np.float32), SmoothedClassifier(FrozenEstimator(MeanOfFirst()), **SMALL)
    with pytest.raises(ValueError, match=r"needs a table, X of shape .*, got inputs of shape \(2, 3\)\."):
        clf.set_params(categorical_features=categorical).fit(images, [0, 1, 0, 1])
    assert len(clf.set_params(categorical_features="from_dtype").fit(images, [0, 1, 0, 1]).classes_) == 2


def test_only_fixed_columns_may_hold_anything():
    rows = np.where(np.eye(3)[np.arange(30) % 3] > 0, np.nan, X)
    rows[:, [0, 2]] = X[:, [0, 2]]
    clf = SmoothedClassifier(HistGradientBoostingClassifier(max_iter=2), NOISE, costs=[1, np.inf, 1], **SMALL).fit(
        rows, Y
    )
    assert len(clf.predict(rows)) == 30
    for value, word in ((np.nan, "NaN"), (np.inf, "infinity")):
        wrong = rows.copy()
        wrong[7, 2] = value
        for call in (clf.predict, clf.certify, lambda X: clf.fit(X, Y)):
            with pytest.raises(ValueError, match=f"contains {word}"):
                call(wrong)


def test_what_is_fitted_is_told():
    clf = SmoothedClassifier(LogisticRegression(), NOISE, **SMALL).fit(X, Y)
    assert (clf.feature_shape_, clf.n_features_in_, clf.classes_.tolist()) == ((3,), 3, [0, 1])
    assert clf.noise_ == NOISE or repr(clf.noise_) == repr(NOISE)
    reg = SmoothedRegressor(LinearRegression(), NOISE, **SMALL).fit(X, X[:, 0])
    assert (reg.feature_shape_, hasattr(reg, "classes_")) == ((3,), False)


# Seeds and votes


@pytest.mark.parametrize("random_state", [None, 5])
def test_noise_with_few_outcomes_has_one_seed(random_state):
    clf = classifier(DeterministicSplitNoise(0.5, levels=4), random_state=random_state)
    assert clf.count_votes(np.array([[0.25, 0.5, 1.0]])).origin.seed == 0


def test_votes_are_given_or_stored_but_not_both(tmp_path):
    clf = classifier()
    votes = clf.count_votes(X[:3])
    with pytest.raises(ValueError, match=r"votes are drawn already, so a store has nothing to record\."):
        clf.certify(X[:3], votes=votes, store=tmp_path / "run.sqlite")
    assert not list(tmp_path.iterdir())


def test_a_store_records_one_radius_for_all_inputs(tmp_path):
    with pytest.raises(ValueError, match=r"radius must be the same for all inputs .*, got \[0\.1, 0\.2\]"):
        classifier().certify_at(X[:2], [0.1, 0.2], store=tmp_path / "run.sqlite")
    assert not list(tmp_path.iterdir())


def test_the_precision_of_a_run_has_no_effect_on_given_votes():
    clf = classifier()
    votes = clf.count_votes(X[:5])
    plain = clf.certify(X[:5], votes=votes)
    early = clf.set_params(rtol=0.2, n_samples=10_000).certify(X[:5], votes=votes)
    np.testing.assert_array_equal(early.radii, plain.radii)
    np.testing.assert_array_equal(early.p_b, plain.p_b)
    assert early.n_samples.tolist() == [60] * 5
    # Nor has a number of votes that would be too few, but for those that are given.
    np.testing.assert_array_equal(clf.set_params(rtol=None, n_samples=3).certify(X[:5], votes=votes).radii, plain.radii)
    few = replace(votes, estimation=np.tile([5, 0], (5, 1)))
    with pytest.raises(ValueError, match="n_samples=5 cannot certify"):
        clf.set_params(n_samples=60).certify(X[:5], votes=few)


def test_conformal_classifiers_predict_what_classifiers_do():
    sets = conformal(random_state=3, radius=0.1)
    plain = SmoothedClassifier.from_pretrained(sets.estimator_, [0, 1], NOISE, **SMALL | {"random_state": 3})
    inputs = np.column_stack([np.linspace(0.4, 0.6, 40), np.zeros(40)])
    np.testing.assert_array_equal(sets.predict(inputs), plain.predict(inputs))
    assert set(sets.predict(inputs)) == {0, 1}


@pytest.mark.parametrize("method", ["binarized", "one-sample"])
def test_equal_calibration_inputs_have_noise_of_their_own_and_equal_inputs_equal_sets(method):
    clf = conformal(method=method).conformalize(np.full((30, 2), 0.5), np.zeros(30, dtype=int))
    assert len(np.unique(clf.calibration_scores_)) == 30
    sets = clf.predict_set(np.full((4, 2), 0.5))
    assert (sets == sets[0]).all()


@pytest.mark.parametrize(
    ("method", "strategy", "expected"),
    [
        ("binarized", "auto", GreedyRadius),
        ("one-sample", "auto", BoxRadius),
        ("binarized", "box", BoxRadius),
        ("one-sample", "lipschitz", LipschitzRadius),
    ],
)
def test_sets_are_protected_by_the_tightest_strategy_of_their_method(method, strategy, expected):
    assert type(conformal(method=method, strategy=strategy).algorithm((2,)).strategy) is expected


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        ("conformal", "draw_inputs", lambda: conformal(n_jobs=3).conformalize(X, Y)),
        ("voting", "sample_votes", lambda: classifier(n_jobs=3).predict(X)),
        ("classifier", "sample_votes", lambda: classifier(n_jobs=3).count_votes(X)),
        ("voting", "votes_of_run", lambda: classifier(n_jobs=3).certify(X)),
        ("regressor", "sample_votes", lambda: regressor(n_jobs=3).predict(X)),
        ("regressor", "votes_of_run", lambda: regressor(n_jobs=3).certify(X, 0.1)),
    ],
)
def test_the_number_of_workers_is_handed_on(module, function, call, monkeypatch):
    seen = []

    def stop(*given, **options):
        seen.extend(value for value in given if type(value) is int)
        raise InterruptedError

    monkeypatch.setattr(f"smoothcert.{module}.{function}", stop)
    with pytest.raises(InterruptedError):
        call()
    assert seen == [3]


# Targets


@pytest.mark.parametrize(
    "y",
    [
        np.arange(30) % 2 == 0,
        np.array([Fraction(i, 2) for i in range(30)], dtype=object),
        np.arange(30, dtype=np.uint8),
        np.arange(30, dtype=np.float32),
    ],
    ids=lambda y: str(y.dtype),
)
def test_numbers_of_all_kinds_are_targets(y):
    """Some base models read numbers of their own types, but none reads objects or truth values as numbers."""
    seen = []

    class Watch(LinearRegression):
        def fit(self, X, y):
            seen.append(y)
            return super().fit(X, y)

    SmoothedRegressor(Watch(), NOISE, training=None, **SMALL).fit(X, y)
    assert seen[0].dtype == (y.dtype if y.dtype.kind in "iuf" else np.float64)
    np.testing.assert_array_equal(seen[0], y.astype(np.float64))


@pytest.mark.parametrize("value", ["3", None, 1j])
def test_targets_that_are_no_numbers_are_refused(value):
    y = np.array([*range(29), value], dtype=object)
    with pytest.raises(ValueError, match=r"y must hold numbers, got object|NaN|[Cc]omplex|could not convert"):
        SmoothedRegressor(LinearRegression(), NOISE, **SMALL).fit(X, y)


def test_classes_of_a_regression_target_are_refused():
    with pytest.raises(ValueError, match="Unknown label type"):
        SmoothedClassifier(LogisticRegression(), NOISE, **SMALL).fit(X, X[:, 0])


# What is told while they run


@pytest.mark.parametrize(
    ("call", "task"),
    [
        (lambda: classifier(verbose=1).count_votes(X), "counting votes"),
        (lambda: classifier(verbose=1).predict(X), "predicting"),
        (lambda: classifier(verbose=1).certify(X), "certifying"),
        (lambda: classifier(verbose=1).certify_at(X, 0.1), "deciding"),
        (lambda: regressor(verbose=1).predict(X), "predicting"),
        (lambda: regressor(verbose=1).certify(X, 0.1), "certifying"),
        (lambda: regressor(verbose=1).certify_within(X, 0.1), "certifying"),
        (lambda: conformal(verbose=1).predict(X), "predicting"),
    ],
)
def test_bars_and_logs_name_the_task(call, task, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        call()
    assert f"{task}: 100%" in capsys.readouterr().err
    assert f"{task}: 30 inputs" in caplog.messages


def test_logs_of_parts_count_their_inputs(caplog):
    for call, given, task in (
        (classifier().certify, [X], "certifying"),
        (classifier().certify_at, [X, 0.1], "deciding"),
        (regressor().certify, [X, 0.1], "certifying"),
        (regressor().certify_within, [X, 0.1], "certifying"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="smoothcert"):
            call(*given, shard=(2, 3))
        assert f"{task}: 10 inputs" in caplog.messages


def test_bars_are_shown_only_if_asked(capsys):
    for call in (classifier().predict, classifier().certify, regressor().predict, conformal().predict):
        call(X)
    conformal().conformalize(X, Y).predict_set(X)
    assert capsys.readouterr().err == ""
    conformal(verbose=1).conformalize(X, Y).predict_set(X)
    assert "30/30" in capsys.readouterr().err


# Labels and radii that belong to inputs


def test_labels_of_the_part_are_compared_in_a_part():
    """The first half holds class 0 alone, and the second half 40 inputs of class 0 and 10 of class 1."""
    rule = Rule(constant).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], NOISE, **SMALL)
    y = np.repeat([0, 1], [90, 10])
    with pytest.warns(UserWarning, match=r"never predicts some labels of y, 1 \(10 of 50\)"):
        found = clf.certify(np.zeros((100, 1)), y=y, shard=(2, 2))
    assert len(found) == 50
    for call in (clf.certify, lambda X, y: clf.certify_at(X, 0.1, y=y)):
        with pytest.raises(ValueError, match="y must hold one label for each of 100 inputs"):
            call(np.zeros((100, 1)), y=y[:50])


def test_each_input_has_a_distance_to_spend():
    clf = classifier(radius="greedy")
    found = clf.worst_perturbations(np.array([[0.5, 0.25], [0.5, 0.25], [0.5, 0.25]]), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(np.abs(found.moves).sum(axis=1), [0, 0.5, 1.0])
    np.testing.assert_allclose(found.perturbed, [[0.5, 0.25], [0.5, 0.75], [0.75, 1.0]], atol=1e-6)
    with pytest.raises(ValueError, match="radius must"):
        clf.worst_perturbations(X, [0.1, 0.2])


def test_a_wrong_rtol_is_an_error_where_votes_are_given_too():
    X, y = np.random.default_rng(0).random((20, 2)), np.arange(20) % 2
    clf = SmoothedClassifier(LogisticRegression(), n_samples=50, random_state=0).fit(X, y)
    votes = clf.count_votes(X)
    with pytest.raises(ValueError, match=r"^rtol must lie below 1, got 2\.$"):
        clf.set_params(rtol=2).certify(X, votes=votes)
