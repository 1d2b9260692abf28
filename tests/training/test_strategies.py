"""Single functions of training strategies: seeds, weights, copies and streams, with values by hand."""

import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from smoothcert import CleanTraining, NoiseAugmentation, StabilityTraining
from smoothcert.models.columns import NamedColumns
from smoothcert.training import strategies
from smoothcert.training.labels import IndexedLabels
from smoothcert.training.strategies import seeded

from .problems import MECHANISM, Seen, X, Y, smooth, train


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


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0)), y


def test_streaming_sees_the_same_copies(cancer):
    X, y = cancer
    seen = []

    class Watch(GaussianNB):
        def partial_fit(self, X, y, classes=None, sample_weight=None):
            seen.append((X, y))
            return super().partial_fit(X, y, classes=classes, sample_weight=sample_weight)

    streamed = smooth(Watch(), training=NoiseAugmentation(5, stream=True)).fit(X, y)
    at_once = smooth(GaussianNB(), training=NoiseAugmentation(5)).fit(X, y)
    assert [len(rows) for rows, _ in seen] == [len(X)] * 5
    assert all((labels == y).all() for _, labels in seen)
    np.testing.assert_allclose(streamed.estimator_.theta_, at_once.estimator_.theta_)


def test_streaming_takes_sample_weights(cancer):
    X, y = cancer
    clf = smooth(SGDClassifier(loss="log_loss", random_state=0), training=NoiseAugmentation(20, stream=True))
    assert (clone(clf).fit(X, y, sample_weight=(y == 1) + 1e-9).predict(X) == 1).mean() > 0.95
    assert clone(clf).fit(X, y).score(X, y) > 0.7


def test_streaming_needs_partial_fit(cancer):
    with pytest.raises(
        ValueError, match="stream=True needs an estimator with partial_fit, and LogisticRegression has none"
    ):
        smooth(LogisticRegression(), training=NoiseAugmentation(stream=True)).fit(*cancer)


def test_stability_training_needs_gradients(cancer):
    with pytest.raises(
        ValueError, match=r"needs the gradients of a torch.nn.Module .* LogisticRegression.*Use training='augment'"
    ):
        smooth(LogisticRegression(), training="stability").fit(*cancer)
