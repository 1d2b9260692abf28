"""Single functions of training: seeds, weights, copies, folds and labels, with values by hand."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegressionCV, Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from smoothcert import CleanTraining, NoiseAugmentation, StabilityTraining, UniformNoise
from smoothcert.models.adapt import make_voter
from smoothcert.models.columns import Columns, NamedColumns
from smoothcert.models.function import FunctionVoter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.training import strategies
from smoothcert.training.constant_models import warn_constant
from smoothcert.training.folds import FoldsOfCopies, _own_folds, _random_splits, predicts_numbers
from smoothcert.training.labels import IndexedLabels, indexed
from smoothcert.training.strategies import seeded
from smoothcert.training.tables import train_on_columns

RNG = np.random.default_rng(0)
X = RNG.uniform(-3, 5, (12, 2))
Y = np.array(["no", "yes", "maybe"] * 4)
BOX = Box.from_bounds((-3, 5))
MECHANISM = NoiseMechanism(BOX, UniformNoise(0.5), (2,))


class Seen(ClassifierMixin, BaseEstimator):
    """Keeps what it was fitted on."""

    def __init__(self, error=None, only=None, random_state=None):
        self.error, self.only, self.random_state = error, only, random_state

    def fit(self, X, y, **params):
        if self.error is not None and not np.issubdtype(np.asarray(y).dtype, np.number):
            raise self.error
        self.X_, self.y_, self.params_, self.classes_ = X, y, params, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[-1])


def train(training, estimator, y=Y, X=X, mechanism=MECHANISM, seed=3, **options):
    return training.train(estimator, X, y, mechanism=mechanism, seed=seed, **options)


# Strategies


def test_copies_are_drawn_one_after_the_other_by_the_seed():
    rng = np.random.default_rng(3)
    expected = np.concatenate([MECHANISM.noisy(X, rng) for _ in range(4)])
    weights, notes = np.arange(1.0, 13), [1, 2, 3]
    params = {
        "sample_weight": weights,
        "names": list("abcdefghijkl"),
        "notes": notes,
        "text": "twelve marks",
        "map": {},
    }
    seen = train(NoiseAugmentation(4), Seen(), fit_params=params)
    np.testing.assert_array_equal(seen.X_, expected)
    assert seen.y_.tolist() == Y.tolist() * 4
    np.testing.assert_array_equal(seen.params_["sample_weight"], np.tile(weights, 4))
    assert seen.params_["names"].tolist() == list("abcdefghijkl") * 4
    assert (seen.params_["notes"], seen.params_["text"], seen.params_["map"]) == (notes, "twelve marks", {})
    clean = train(CleanTraining(), Seen(), fit_params={"names": params["names"]})
    assert clean.X_ is X
    assert clean.params_ == {"names": params["names"]}
    with pytest.raises(ValueError, match="sample_weight"):
        train(NoiseAugmentation(4), Seen(), fit_params={"sample_weight": weights[:3]})


def test_an_estimator_that_takes_indices_alone():
    """Its error arrives as it is where indices help nothing, or where labels are indices already."""
    for error in (TypeError("numbers only"), ValueError("numbers only")):
        fitted = train(NoiseAugmentation(2), Seen(error))
        assert type(fitted) is IndexedLabels
        assert fitted.classes_.tolist() == ["maybe", "no", "yes"]
        assert fitted.estimator.y_.tolist() == [1, 2, 0] * 8
        assert fitted.predict(X).tolist() == ["yes"] * 12
        # The noise is the same as in the first try.
        np.testing.assert_array_equal(fitted.estimator.X_, train(NoiseAugmentation(2), Seen()).X_)
    with pytest.raises(KeyError):
        train(NoiseAugmentation(2), Seen(KeyError("other")))

    class Failing(Seen):
        def fit(self, X, y):
            raise ValueError(f"no {np.asarray(y).dtype.kind}")

    for y, kind in ((Y, "U"), (np.arange(12) % 3, "i")):
        with pytest.raises(ValueError, match=f"^no {kind}$"):
            train(NoiseAugmentation(2), Failing(), y=y)
    with pytest.raises(ValueError, match=r"^no f$"):
        train(NoiseAugmentation(2), Failing(), y=X[:, 0], regression=True)


def test_seeds_of_parts_that_have_none():
    model = make_pipeline(BaggingClassifier(RandomForestClassifier()), SGDClassifier(random_state=7))
    copy = seeded(model, 5)
    found = {name: value for name, value in copy.get_params().items() if name.endswith("random_state")}
    first, second = map(int, np.random.SeedSequence(5).generate_state(2))
    assert found == {
        "baggingclassifier__estimator__random_state": first,
        "baggingclassifier__random_state": second,
        "sgdclassifier__random_state": 7,
    }
    assert model.get_params()["baggingclassifier__random_state"] is None
    assert seeded(RandomForestClassifier(), 5).random_state == int(np.random.SeedSequence(5).generate_state(1)[0])
    assert "random_state" not in seeded(GaussianNB(), 5).get_params()
    # By their names, and not by the order of steps.
    steps = seeded(Pipeline([("z", PCA()), ("a", RandomForestClassifier())]), 5).get_params()
    assert (steps["a__random_state"], steps["z__random_state"]) == (first, second)


def test_weights_of_inputs_reach_the_last_step():
    inner = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), Seen()))
    name = strategies._weight_name
    assert name(inner) == "pipeline__seen__sample_weight"
    assert name(NamedColumns(inner, None)) == "pipeline__seen__sample_weight"
    assert name(Seen()) == "sample_weight"
    with config_context(enable_metadata_routing=True):
        assert name(inner) == "sample_weight"


def test_streams_of_regressors_have_no_classes():
    asked = []

    class Watch(RegressorMixin, BaseEstimator):
        def partial_fit(self, X, y, **params):
            asked.append((X, params))
            return self

    class WatchLabels(ClassifierMixin, Watch):
        pass

    stream = NoiseAugmentation(2, stream=True)
    train(stream, Watch(), y=X[:, 0], regression=True, fit_params={"sample_weight": np.ones(12)})
    assert [list(params) for _, params in asked] == [["sample_weight"]] * 2
    assert not np.array_equal(asked[0][0], asked[1][0])
    asked.clear()
    train(stream, WatchLabels())
    assert [params["classes"].tolist() for _, params in asked] == [["maybe", "no", "yes"]] * 2


def test_parameters_of_strategies():
    assert [kind.copies_per_batch for kind in (CleanTraining, NoiseAugmentation, StabilityTraining)] == [0, 1, 2]
    assert (CleanTraining().stability_weight, NoiseAugmentation().stability_weight) == (None, None)
    assert (StabilityTraining().stability_weight, StabilityTraining(2.0).stability_weight) == (6.0, 2.0)
    assert NoiseAugmentation().get_params() == {"n_copies": 10, "stream": False, "standardize": True}
    assert StabilityTraining().get_params() == {"weight": 6.0, "standardize": True}
    for strategy, name in (
        (NoiseAugmentation(0), "n_copies"),
        (NoiseAugmentation(stream=1), "stream"),
        (NoiseAugmentation(standardize=1), "standardize"),
        (StabilityTraining(-1.0), "weight"),
        (StabilityTraining(standardize=None), "standardize"),
        (CleanTraining(standardize=0), "standardize"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            strategy.check()
    StabilityTraining(0).check()


def test_validation_data_have_noise_of_their_own_seed():
    held_out = X[:5]
    seen = train(NoiseAugmentation(2), Seen(), fit_params={"X_val": held_out, "y_val": Y[:5]})
    rng = np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0])
    np.testing.assert_array_equal(seen.params_["X_val"], MECHANISM.noisy(held_out, rng))
    clean = train(CleanTraining(), Seen(), fit_params={"X_val": held_out})
    np.testing.assert_array_equal(clean.params_["X_val"], held_out)
    with pytest.raises(ValueError, match=r"^X must lie inside bounds"):
        train(CleanTraining(), Seen(), fit_params={"X_val": 9 * held_out})
    inner = {"seen__X_val": held_out}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(CleanTraining(), make_pipeline(StandardScaler(), Seen()), fit_params=inner)
    with pytest.warns(UserWarning, match=r"^seen__X_val is used without noise: the steps before have transformed it"):
        train(NoiseAugmentation(2), make_pipeline(StandardScaler(), Seen()), fit_params=inner)


# Folds and labels


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


def test_labels_by_index():
    columns = Columns(("a", "b"), "pandas")
    wrapped = indexed(NamedColumns(Seen(), columns))
    assert (type(wrapped), type(wrapped.estimator), wrapped.columns) == (NamedColumns, IndexedLabels, columns)
    assert type(indexed(Seen())) is IndexedLabels
    fitted = IndexedLabels(Seen()).fit(X, Y, eval_set=[(X, Y[:3])], y_val=["yes"], weight=[4])
    assert fitted.estimator.params_["eval_set"][0][1].tolist() == [1, 2, 0]
    assert fitted.estimator.params_["eval_set"][0][0] is X
    assert fitted.estimator.params_["y_val"].tolist() == [2]
    assert fitted.estimator.params_["weight"] == [4]
    fitted.estimator.predict = lambda X: np.array([2.0, 0.0])
    assert fitted.predict(X).tolist() == ["yes", "maybe"]


# Tables


def test_the_mask_is_given_up_where_the_model_refuses_it():
    table = pd.DataFrame({"a": X[:, 0], "b": ["x", "y"] * 6})
    columns = Columns.learn(table, fixed=np.zeros(2, dtype=bool), categorical=np.array([False, True]), missing="error")
    features = Features(n_categories=columns.n_categories, hidden="mask")
    mechanism = NoiseMechanism(BOX, UniformNoise(1.5), (2,), features)
    given = {"mechanism": mechanism, "columns": columns, "seed": 0}
    matrix = columns.encode(table)

    class Refusing(Seen):
        def fit(self, X, y):
            if "hidden" in set(X["b"]):
                raise ValueError("could not convert 'hidden'")
            return super().fit(X, y)

    fitted, hidden, shown = train_on_columns(NoiseAugmentation(3), Seen(), matrix, Y, any_way=True, **given)
    assert (type(fitted), hidden, set(fitted.X_["b"])) == (Seen, "mask", {"x", "y", "hidden"})
    assert shown.unmasked is columns.codecs
    fitted, hidden, shown = train_on_columns(NoiseAugmentation(3), Refusing(), matrix, Y, any_way=True, **given)
    assert (type(fitted), hidden, set(fitted.X_["b"])) == (Refusing, "uniform", {"x", "y"})
    assert shown is columns
    with pytest.raises(ValueError, match=r"^could not convert 'hidden'") as caught:
        train_on_columns(NoiseAugmentation(3), Refusing(), matrix, Y, any_way=False, **given)
    assert "Encode it inside the base model" in caught.value.__notes__[0]
    with pytest.raises(KeyError):
        train_on_columns(NoiseAugmentation(3), Seen(KeyError(1)), matrix, Y, any_way=True, **given)
    # Torch models and arrays see the matrix.
    plain = {"mechanism": MECHANISM, "columns": None, "seed": 3, "any_way": True}
    fitted, hidden, shown = train_on_columns(CleanTraining(), Seen(), X, Y, **plain)
    assert (fitted.X_ is X, hidden, shown) == (True, "mask", None)

    class Stubborn(Seen):
        def fit(self, X, y):
            raise ValueError("could not convert it")

    with pytest.raises(ValueError, match=r"^could not convert it$") as caught:
        train_on_columns(CleanTraining(), Stubborn(), X, Y, **plain)
    assert not hasattr(caught.value, "__notes__")
    # Columns of numbers alone need no advice, and what hides categories already is tried once.
    numbers = plain | {"columns": Columns(("a", "b"), "pandas")}
    with pytest.raises(ValueError, match=r"^could not convert it$") as caught:
        train_on_columns(CleanTraining(), Stubborn(), X, Y, **numbers)
    assert not hasattr(caught.value, "__notes__")
    tries = []

    class Counting(Seen):
        def fit(self, X, y):
            tries.append(y)
            raise ValueError("never")

    uniform = given | {"mechanism": replace(mechanism, features=replace(features, hidden="uniform"))}
    with pytest.raises(ValueError, match="never"):
        train_on_columns(CleanTraining(), Counting(), matrix, np.arange(12) % 2, any_way=True, **uniform)
    assert len(tries) == 1


# Models that have learned nothing


class Scripted(GaussianNB):
    """Answers by a function."""

    answer = None

    def predict(self, X):
        return self.answer(X)


Scripted.__module__ = "sklearn.scripted"


def warned(answer, counts, classes=(3, 5, 9), **given):
    y = np.repeat(classes[: len(counts)], counts)
    rows = np.column_stack([np.arange(len(y)) / len(y), y / 10])
    model = Scripted().fit(rows, y)
    model.answer = answer
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1e-6), (2,))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_constant(given.get("voter") or make_voter(model, np.unique(y)), mechanism, rows, y, 0)
    return [str(one.message) for one in found]


def test_a_model_that_answers_one_class_is_named():
    def always(value):
        return lambda rows: np.full(len(rows), value)

    [message] = warned(always(5), [40, 32, 50])
    assert message.startswith("The smoothed classifier predicts 5 for all of 96 training inputs of 3 classes: large")
    # Classes of fewer than 32 inputs are left out, and one class tells nothing.
    assert "64 training inputs of 2 classes" in warned(always(3), [40, 31, 32])[0]
    assert not warned(always(3), [31, 31, 400])
    # One input of another class suffices, but a few votes of it do not.
    assert not warned(lambda rows: np.where(rows[:, 1].round(4) >= 0.9, 9, 3), [40, 40, 40])
    calls = iter(range(10**6))

    def first_copy_of_every_other(rows):
        numbers = np.array([next(calls) for _ in rows])
        return np.where((numbers % 16 == 0) & (numbers // 16 % 2 == 1), 5, 3)

    assert warned(first_copy_of_every_other, [40, 40])
    assert not warned(lambda rows: 1 / 0, [40, 40])
    assert not warned(None, [40, 40], voter=FunctionVoter(always(3), np.array([3, 5])))
    assert not warned(None, [40, 40], voter=make_voter(LinearRegression().fit(X, X[:, 0]), None))
    many = warned(always(0), [32] * 12, classes=range(12))
    assert "320 training inputs of 10 classes" in many[0]
