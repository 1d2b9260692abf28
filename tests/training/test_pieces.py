"""Single functions of training: seeds, weights, folds, datasets, statistics and scalings, with values by hand."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegressionCV, Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert import CleanTraining, NoiseAugmentation, SplitNoise, StabilityTraining, UniformNoise
from smoothcert.models.adapt import make_voter
from smoothcert.models.columns import Columns, NamedColumns
from smoothcert.models.function import FunctionVoter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.training import strategies, torch_layers, torch_training
from smoothcert.training.carried import box_of, carried
from smoothcert.training.constant import warn_constant
from smoothcert.training.datasets import check_no_loader, read_dataset
from smoothcert.training.folds import FoldsOfCopies, _own_folds, _random_splits, predicts_numbers
from smoothcert.training.labels import IndexedLabels, indexed
from smoothcert.training.strategies import seeded
from smoothcert.training.tables import train_on_columns
from smoothcert.training.torch_layers import (
    CosineSchedule,
    NoisyModule,
    StabilityLoss,
    make_net,
    noisy_statistics,
    regression_net,
)
from smoothcert.training.torch_noise import InputScaling, NoiseHooks, OutputScaling, split_copies
from smoothcert.training.torch_training import Items

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


# Datasets


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_datasets_are_read_once():
    data = Pairs([(torch.ones(2), torch.tensor([3])), [np.zeros(2), 4], ([5.0, 6.0], np.int64(1))])
    found, labels, dataset = read_dataset(data, None)
    assert (found.tolist(), labels.tolist(), dataset) == ([[1, 1], [0, 0], [5, 6]], [3, 4, 1], data)
    assert read_dataset(X, Y) == (X, Y, None)
    with pytest.raises(ValueError, match=r"^y should be a 1d array of labels, got None\. Give y, or a torch Dataset"):
        read_dataset(X, None)
    with pytest.raises(ValueError, match=r"^y must be None where X is a torch Dataset"):
        read_dataset(data, Y)
    for X_given in (torch.utils.data.DataLoader(data), iter([1]), (one for one in [1])):
        with pytest.raises(ValueError, match=rf"with a length, got a {type(X_given).__name__}\. Give the Dataset"):
            check_no_loader(X_given)
    for items, words in (
        ([{"image": 1, "label": 2}], r"an item is a dict with the keys \['image', 'label'\]\. Wrap the Dataset"),
        ([np.ones(2)], r"an item is a ndarray\. Wrap"),
        ([(1, 2, 3)], "too many values"),
        ([(np.ones(2), 0), (np.ones(3), 0)], "same shape"),
        ([(np.ones(2), [0, 1])], "reshape"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)^X must be a torch Dataset of pairs \(input, label\), .*{words}"):
            read_dataset(Pairs(items), None)


def test_items_of_a_dataset():
    classes, weights = np.array(["a", "b", "c"]), np.array([1, 2], dtype=np.float32)
    later = Pairs([([1, 2], "b"), ([3, 4], "c")])
    x, index = Items(later, classes, np.array([1, 0]), None)[1]
    assert (x.tolist(), x.dtype, index, type(index)) == ([3.0, 4.0], np.float32, 2, np.int64)
    given = Items(Pairs([([1, 2], np.array(["b"]))]), classes, np.array([1]), weights)
    assert (len(given), given[0][0][1], given[0][1]) == (1, 1.0, 1)
    [x, weight], index = Items(X, classes, np.array([1, 2]), weights)[1]
    assert (x.tolist(), weight, index) == (X[1].tolist(), 2.0, 2)
    numbers = Items(Pairs([([1, 2], 0.5)]), None, np.array([0.25], np.float32), None)[0][1]
    assert (numbers, type(numbers)) == (0.5, np.float32)
    for data, kept, problem in (
        (later, weights, "to which sample_weight does not belong"),
        (Pairs([(0, "z")] * 2), None, "which is a new class"),
    ):
        with pytest.raises(
            ValueError, match=rf"^Item 1 of the Dataset had the label 'a' when .* now has '[cz]', {problem}\."
        ):
            _ = Items(data, classes, np.array([1, 0]), kept)[1]


# What trained modules carry


def test_what_modules_carry():
    noise, costs = UniformNoise(0.5), [1.0, 2.0]
    module = NoisyModule(nn.Linear(2, 2), noise, (-3, 5), costs=costs)
    net = NeuralNetClassifier(nn.Sequential(module)).initialize()
    for model in (module, nn.Sequential(nn.ReLU(), module), net):
        found = carried(model, None, None)
        assert found[0] is noise
        assert [float(end) for end in found[1]] == [-3, 5]
        assert found[2] is costs
    assert carried(module, UniformNoise(0.5), ([-3, -3], [5, 5]), np.array(costs))[0] is noise
    assert carried(module, None, BOX)[0] is noise
    for bounds in ((-3, 6), (-4, 5), ([-3, -3], [5, 6])):
        with pytest.raises(ValueError, match=r"^bounds must be those of the NoisyModule"):
            carried(module, None, bounds)
    with pytest.raises(
        ValueError, match=r"^costs must be those of the NoisyModule, \[1\.0, 2\.0\], got \[2\.0, 1\.0\]"
    ):
        carried(module, None, None, [2.0, 1.0])
    given = UniformNoise(2.0), (0, 1), 3.0
    for model in (nn.Linear(2, 2), GaussianNB()):
        assert carried(model, *given) == given
    assert box_of(BOX) is BOX
    assert box_of((0, 7)).hi == 7
    # A cost for each pixel is one for each feature of the shape.
    image = NoisyModule(nn.Flatten(), noise, (-3, 5), costs=[[[2.0]], [[3.0]]])
    assert carried(image, None, None, np.repeat([2.0, 3.0], 4), shape=(2, 2, 2))[2] == [[[2.0]], [[3.0]]]


# Torch


def test_statistics_are_those_of_noisy_inputs(monkeypatch):
    images = np.random.default_rng(0).random((50, 3, 2, 4)) * np.array([1, 0.5, 0])[:, None, None]
    center, scale = noisy_statistics(images, UniformNoise(0.25), costs=[[[np.inf]]], seed=4)
    np.testing.assert_allclose(center.ravel(), images.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(scale.ravel(), [*images.std(axis=(0, 2, 3))[:2], 1.0])
    assert center.shape == scale.shape == (3, 1, 1)
    rng = np.random.default_rng(4)
    rows = rng.permutation(12)
    noisy = MECHANISM.noisy(X[rows], rng)
    found = noisy_statistics(X, UniformNoise(0.5), (-3, 5), seed=4)
    np.testing.assert_allclose(found, [noisy.mean(axis=0), noisy.std(axis=0)])
    # The first 1000 inputs of a random order, or as many as hold 2**20 values.
    monkeypatch.setattr(torch_layers, "STATISTICS_INPUTS", 5)
    for values, n in ((2, 5), (14, 7), (10**6, 12)):
        monkeypatch.setattr(torch_layers, "STATISTICS_VALUES", values)
        rng = np.random.default_rng(4)
        noisy = MECHANISM.noisy(X[rng.permutation(12)[:n]], rng)
        np.testing.assert_allclose(noisy_statistics(X, UniformNoise(0.5), (-3, 5), seed=4)[0], noisy.mean(axis=0))


def test_a_noisy_module_adds_noise_where_it_should():
    rows = torch.from_numpy(X).float()
    module = NoisyModule(nn.Identity(), UniformNoise(0.5), (-3, 5), center=[1.0, 2.0], scale=[2.0, 4.0], seed=3)
    noisy = torch.from_numpy(MECHANISM.noisy(rows.numpy(), np.random.default_rng(3), np.float32))
    scaled = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
    torch.testing.assert_close(module(rows), (noisy - scaled[0]) / scaled[1])
    module.eval()
    torch.testing.assert_close(module(rows), (rows - scaled[0]) / scaled[1])
    several = NoisyModule(nn.Identity(), UniformNoise(0.5), (-3, 5), n_copies=3, seed=3)
    copies = several(rows)
    torch.testing.assert_close(copies[0], noisy)
    assert (len(copies), copies[1].shape) == (3, rows.shape)
    several.eval().noisy_evaluation = True
    answer = several(rows)
    assert answer.shape == rows.shape
    assert 0 < (answer - rows).abs().max() <= 4
    # Further arguments reach the network.
    scaling = NoisyModule(Gained(), UniformNoise(0.5), (-3, 5)).eval()
    torch.testing.assert_close(scaling(rows, 3.0), 3 * rows)
    torch.testing.assert_close(scaling(rows, gain=4.0), 4 * rows)
    for params in ({"costs": -1.0}, {"noise": UniformNoise(-1.0)}):
        with pytest.raises(ValueError, match=r"costs|lam"):
            NoisyModule(nn.Identity(), **({"noise": SplitNoise()} | params))


class Gained(nn.Module):
    def forward(self, rows, gain=1.0):
        return gain * rows


def test_copies_of_answers():
    answer = torch.arange(6.0).reshape(6, 1)
    assert split_copies(nn.ReLU(), answer, 1) is answer
    assert [part.flatten().tolist() for part in split_copies(nn.ReLU(), answer, 3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(
        ValueError, match=r"^The module ReLU must return a tensor of logits to be trained, but returned a tuple"
    ):
        split_copies(nn.ReLU(), (answer,), 2)
    assert split_copies(nn.ReLU(), (answer,), 1) == (answer,)


def test_hooks_of_training():
    rows = torch.from_numpy(X).float()
    module = nn.Identity()
    for n_copies, parts in ((0, 1), (1, 1), (2, 2)):
        with NoiseHooks(MECHANISM, n_copies, 3, None).attached(module):
            module.train()
            answer = module([rows, torch.ones(12)])
            answer = answer if isinstance(answer, tuple) else (answer,)
            assert len(answer) == parts
            assert torch.equal(answer[0], rows) == (n_copies == 0)
            module.eval()
            assert torch.equal(module(rows), rows) == (n_copies == 0)
        assert module(rows) is rows
    half = nn.Identity()
    with NoiseHooks(MECHANISM, 0, 3, lambda answer: answer["a"]).attached(half):
        assert half({"a": rows.half()}).dtype == torch.float32
        with pytest.raises(ValueError, match="must return a tensor of logits"):
            half({"a": [rows]})
    state = NoiseHooks(MECHANISM, 2, 3, abs).__getstate__()
    assert (state["n_copies"], state["output"]) == (0, None)


def test_scalings_of_a_module():
    module, rows = nn.Identity(), torch.from_numpy(X)
    order = []
    module.register_forward_pre_hook(lambda *_: order.append("own"))
    for center in (9.0, 1.0):
        InputScaling([center, 2.0], [2.0, 4.0]).attach(module)
        OutputScaling(center, 3.0).attach(module)
    found = module(rows)
    assert found.dtype == torch.float32
    expected = (rows.float() - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(found, 3 * expected + 1)
    assert next(iter(module._forward_pre_hooks.values())) is InputScaling.of(module)
    assert InputScaling.of(nn.ReLU()) is None
    assert OutputScaling(1.0, 2.0)(module, (), "text") == "text"
    double = nn.Linear(2, 2).double()
    InputScaling(1.0, 2.0).attach(double)
    assert double(rows.float()).dtype == torch.float64
    assert (InputScaling.is_pure, OutputScaling.is_pure) == (True, True)


def test_nets_of_bare_modules():
    net = make_net(nn.Linear(2, 2))
    recipe = {
        "lr": 0.1,
        "batch_size": 64,
        "max_epochs": 40,
        "train_split": None,
        "verbose": 0,
        "optimizer": torch.optim.SGD,
    }
    recipe |= {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 1e-4}
    recipe |= {
        "criterion": nn.CrossEntropyLoss,
        "iterator_train__shuffle": True,
        "callbacks": [("schedule", CosineSchedule)],
    }
    assert {name: net.get_params()[name] for name in recipe} == recipe
    other = make_net(nn.Linear(2, 2), optimizer=torch.optim.Adam, lr=0.5)
    assert (other.lr, other.batch_size) == (0.5, 64)
    assert not [name for name in other.get_params() if name.startswith("optimizer__")]
    numbers = regression_net(nn.Linear(2, 1))
    recipe = {"lr": 0.01, "optimizer": torch.optim.Adam, "criterion": nn.MSELoss} | {
        name: recipe[name]
        for name in ("batch_size", "max_epochs", "train_split", "verbose", "iterator_train__shuffle", "callbacks")
    }
    assert {name: numbers.get_params()[name] for name in recipe} == recipe


@pytest.mark.parametrize("y", [np.full(12, 7.0), 3 * X[:, 0] - 1])
def test_outputs_are_scaled_to_the_numbers(y, monkeypatch):
    """Outputs of 0 and of 1 stand for the mean, and for one standard deviation above it."""
    monkeypatch.setattr(torch_training, "_run", lambda *_: None)
    net = regression_net(nn.Linear(2, 1)).set_params(max_epochs=1)
    bare = train(NoiseAugmentation(), nn.Linear(2, 1), y=y, regression=True).module_
    [scaling] = bare._forward_hooks.values()
    assert scaling.center == pytest.approx(y.mean())
    assert scaling.scale == pytest.approx(np.std(y) if np.ptp(y) else 1.0)
    assert not train(NoiseAugmentation(), net, y=y, regression=True).module_._forward_hooks
    centers = [
        InputScaling.of(train(strategy, nn.Linear(2, 1), y=y, regression=True).module_).center.abs().max() > 0
        for strategy in (NoiseAugmentation(), NoiseAugmentation(standardize=False), CleanTraining())
    ]
    assert centers == [True, False, False]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_count_in_the_reduction_of_the_criterion(reduction):
    module, weights = nn.Linear(2, 3), np.linspace(0, 2, 12)
    settings = {"criterion__reduction": reduction, "optimizer": torch.optim.SGD, "lr": 0.25, "max_epochs": 1}
    found = train(CleanTraining(), make_net(module, batch_size=12, **settings), fit_params={"sample_weight": weights})
    rows = torch.from_numpy(X).float()
    indices = torch.from_numpy(np.unique(Y, return_inverse=True)[1])
    losses = nn.functional.cross_entropy(module(rows), indices, reduction="none")
    loss = (losses * torch.from_numpy(weights / weights.mean())).sum() / (12 if reduction == "mean" else 1)
    gradient = torch.autograd.grad(loss, module.weight)[0]
    torch.testing.assert_close(found.module_.weight, (module.weight - 0.25 * gradient).detach(), check_dtype=False)
    assert found.criterion_.reduction == reduction


def test_the_stability_term_counts_by_its_weight():
    first, second, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    p, q = np.exp([2.0, 0]) / np.exp([2.0, 0]).sum(), np.exp([0, 1.0]) / np.exp([0, 1.0]).sum()
    kl = (p * np.log(p / q)).sum()
    for loss, weight in ((StabilityLoss(), 6.0), (StabilityLoss(1.5), 1.5)):
        assert loss((first, second), y).item() == pytest.approx(-np.log(p[0]) + weight * kl, rel=1e-6)
        assert loss((second, first), y).item() != pytest.approx(-np.log(q[0]) + weight * kl, rel=1e-3)
    assert StabilityLoss(label_smoothing=0.1).label_smoothing == 0.1
