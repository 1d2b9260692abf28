"""`SmoothedRegressor`: conventions of scikit-learn, order statistics, closed forms, and what it refuses."""

import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import ElasticNetCV, LinearRegression, LogisticRegression, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetRegressor
from torch import nn

from smoothcert import (
    BoxRadius,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    NoiseAugmentation,
    SmoothedClassifier,
    SmoothedRegressor,
    SplitNoise,
    StabilityTraining,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify.quantiles import QuantileAlgorithm, lower_rank, upper_bounds
from smoothcert.certify.reach import certified_radii, smallest_overlap
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.results import Intervals, ToleranceRadii
from smoothcert.sampling.values import Values, ValueSampler
from smoothcert.weights import save_weights

SMALL = {"bounds": "minmax", "n_selection": 32, "n_samples": 50}
NARROW = UniformNoise(lam=0.1)


@parametrize_with_checks(
    [
        SmoothedRegressor(LinearRegression(), NARROW, **SMALL),
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "other rows have other noise, so that another model is fitted"
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return (X - X.min(axis=0)) / np.ptp(X, axis=0), y


@pytest.fixture(scope="module")
def fitted(diabetes):
    X, y = diabetes
    base = make_pipeline(StandardScaler(), LinearRegression())
    return SmoothedRegressor(base, SplitNoise(lam=0.8), n_samples=500, random_state=0).fit(X[::2], y[::2])


def first(batch):
    return batch[:, 0]


def smooth(function=first, noise=None, **params):
    return SmoothedRegressor.from_pretrained(function, noise or UniformNoise(lam=1.0), **{"random_state": 0} | params)


@pytest.mark.parametrize("n", [11, 160, 1000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_ranks_are_the_largest_that_the_binomial_tail_allows(n, alpha):
    p = np.linspace(0, 1, 41)
    ranks = lower_rank(p, upper_bounds(n, alpha))
    assert (binom.cdf(ranks - 1, n, p)[ranks > 0] <= alpha).all()
    inside = ranks < n
    assert (binom.cdf(ranks, n, p)[inside] > alpha * (1 - 1e-6)).all()
    assert ranks[0] == 0


def test_intervals_are_order_statistics_of_the_estimation_votes(fitted, diabetes):
    X = diabetes[0][:5]
    radius = [[0.0, 0.1, 0.3, 5.0]]
    intervals = fitted.certify(X, radius)
    algorithm = fitted.algorithm(X.shape[1:])
    votes = algorithm.sampler(0).draw(X)
    assert votes.estimation.shape == (5, 500)
    assert (np.diff(votes.estimation) >= 0).all()
    lost = 1 - smallest_overlap(algorithm.strategy, algorithm.mechanism, X, np.tile(radius[0], (5, 1)))
    for i, j in np.ndindex(5, 4):
        k = int(np.sum(binom.cdf(np.arange(500), 500, 0.5 - lost[i, j]) <= 0.0005)) if lost[i, j] < 0.5 else 0
        lower, upper = (votes.estimation[i, k - 1], votes.estimation[i, 500 - k]) if k else (-np.inf, np.inf)
        assert (intervals.lower[i, j], intervals.upper[i, j]) == (lower, upper)
    np.testing.assert_array_equal(intervals.predictions, np.sort(votes.selection)[:, 127])
    assert np.isinf(intervals.lower[:, 3]).all()


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("strategy", [LipschitzRadius(), BoxRadius(), GreedyRadius()])
def test_a_linear_model_under_uniform_noise_has_its_closed_form(quantile, strategy):
    """Its q-quantile at x is x + (2q - 1) lam, and a move shifts it by as much as the bounds grow."""
    reg = smooth(quantile=quantile, radius=strategy, n_samples=5000, n_selection=1000)
    X, radius = np.full((1, 3), 0.5), 0.1
    center = 0.5 + (2 * quantile - 1)
    (lower,), (upper,) = reg.certify(X, radius)
    assert lower == pytest.approx(center - radius, abs=0.09)
    assert upper == pytest.approx(center + radius, abs=0.09)
    assert lower < center - radius < center + radius < upper
    predictions, radii = reg.certify_within(X, 0.15)
    assert predictions[0] == pytest.approx(center, abs=0.1)
    assert radii[0] == pytest.approx(0.15 - abs(predictions[0] - center), abs=0.09)
    # The probability beyond the quantile bounds how much can be lost.
    _, radii = reg.certify_within(X, 9.0)
    farthest = 2 * min(quantile, 1 - quantile)
    assert radii[0] == pytest.approx(farthest, abs=0.01) if farthest < 0.5 else radii[0] > farthest - 0.01


@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_both_questions_have_one_answer(fitted, diabetes, quantile):
    """Just inside the radius of a tolerance, the interval lies within the tolerance; just outside, it does not."""
    X, reg = diabetes[0][:30], clone(fitted).set_params(quantile=quantile).fit(*diabetes)
    found = reg.certify_within(X, 45.0)
    certain = np.flatnonzero(found.radii > 0.01)
    assert len(certain) > 10
    for factor, expected in ((1 - 1e-6, True), (1 + 1e-6, False)):
        lower, upper = reg.certify(X[certain], found.radii[certain] * factor)
        center = found.predictions[certain]
        inside = (lower >= center - 45.0) & (upper <= center + 45.0)
        assert (inside == expected).all()


def test_radii_of_hidden_categories_rest_on_the_overlap_alone():
    """The likelihood-ratio test of labels needs a probability of 1/2, which other quantiles do not have."""
    features = Features(np.full(6, 0.5), np.full(6, 2), "uniform")
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(lam=1.5), (6,), features)
    algorithm = QuantileAlgorithm(
        mechanism=mechanism, strategy=GreedyRadius(), quantile=0.65, alpha=0.001, n_selection=1, n_samples=2000
    )
    n_above = np.arange(0, 700, 20)
    X, inputs = np.zeros((len(n_above), 6)), np.zeros((len(n_above), 16), dtype=np.uint8)
    estimation = (np.arange(2000) >= 2000 - n_above[:, None]) * 9.0
    votes = Values(selection=np.zeros((len(n_above), 1)), estimation=estimation, inputs=inputs, seed=0)
    found = algorithm.certify_within(votes, X, np.ones(len(X)))
    lost = 0.35 - algorithm.bounds[n_above]
    np.testing.assert_array_equal(found.abstained, lost <= 0)
    certain = ~found.abstained
    radii = np.minimum(found.radii[certain], 9.0) * (1 - 1e-9)
    lost, X = lost[certain], X[certain]
    assert (smallest_overlap(GreedyRadius(), mechanism, X, radii) >= 1 - lost).all()
    of_labels = certified_radii(GreedyRadius(), mechanism, X, 0.5 + lost, 0.5 - lost)
    assert (smallest_overlap(GreedyRadius(), mechanism, X, of_labels * (1 - 1e-9)) < 1 - lost).any()


def test_results_do_not_depend_on_batches_order_or_workers(fitted, diabetes):
    X = diabetes[0][:40]
    whole = fitted.certify(X, [[0.1, 0.2]])
    other = clone(fitted).set_params(batch_size=97).fit(diabetes[0][::2], diabetes[1][::2])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        other.set_params(n_jobs=2)
        shards = [other.certify(X, [[0.1, 0.2]], shard=(i, 3)) for i in (1, 2, 3)]
    np.testing.assert_allclose(Intervals.concatenate(shards).lower, whole.lower, rtol=1e-12)
    np.testing.assert_allclose(fitted.certify(X[::-1], [[0.1, 0.2]])[::-1].upper, whole.upper, rtol=1e-12)
    np.testing.assert_array_equal(fitted.predict(X), whole.predictions)
    np.testing.assert_array_equal(fitted.certify_within(X, 5.0).predictions, whole.predictions)


def test_each_input_has_a_radius_or_tolerance_of_its_own(fitted, diabetes):
    X, at = diabetes[0][:40], np.linspace(0.3, 0.0, 40)
    reg = clone(fitted).set_params(batch_size=16, n_samples=100).fit(*diabetes)
    intervals, within = reg.certify(X, at), reg.certify_within(X, 100 * at)
    several = reg.certify(X, np.stack([at, 2 * at], axis=1), shard=(2, 3))
    np.testing.assert_array_equal(intervals.radius, at)
    np.testing.assert_array_equal(within.tolerance, 100 * at)
    np.testing.assert_array_equal(several.radius[:, 1], 2 * at[13:26])
    for i in (0, 13, 20, 39):
        alone = slice(i, i + 1)
        np.testing.assert_allclose(reg.certify(X[alone], at[i]).lower, intervals.lower[alone], rtol=1e-12)
        np.testing.assert_allclose(reg.certify_within(X[alone], 100 * at[i]).radii, within.radii[alone], rtol=1e-12)
    np.testing.assert_allclose(reg.certify(X[20:21], [[at[20], 2 * at[20]]]).upper, several.upper[7:8], rtol=1e-12)


def test_only_one_part_of_the_votes_is_in_memory_at_a_time(fitted, diabetes, monkeypatch):
    sizes, original = [], ValueSampler.draw

    def draw(self, X, target=None):
        sizes.append(len(X) * self.n_samples)
        return original(self, X, target)

    monkeypatch.setattr(ValueSampler, "draw", draw)
    reg = clone(fitted).set_params(batch_size=64, n_samples=100).fit(*diabetes)
    reg.certify(diabetes[0][:100], 0.1)
    assert len(sizes) > 5
    assert max(sizes) <= 16 * 100


def test_intervals_and_radii_are_records(fitted, diabetes, tmp_path):
    X, y = diabetes[0][:4], diabetes[1][:4]
    intervals, within = fitted.certify(X, [[0.1, 0.5]]), fitted.certify_within(X, 30)
    for found, kind in ((intervals, Intervals), (within, ToleranceRadii)):
        found.save(tmp_path / "found.npz")
        again = kind.load(tmp_path / "found.npz")
        assert repr(again) == repr(found)
        frame = again.to_frame(y=y)
        np.testing.assert_array_equal(frame["error"], np.abs(y - found.predictions))
        assert "quantile" in frame.attrs
    frame = intervals.to_frame()
    assert list(frame)[:4] == ["predictions", "radius 0", "lower 0", "upper 0"]
    np.testing.assert_array_equal(frame["upper 1"], intervals.upper[:, 1])
    assert list(fitted.certify(X, 0.1).to_frame()) == ["predictions", "lower", "upper", "radius"]
    assert "Intervals(4 inputs" in intervals._repr_html_()
    with pytest.raises(ValueError, match="y must hold one finite number for each of 4 inputs"):
        intervals.to_frame(y=["a"] * 4)


def test_costs_categories_and_names_of_columns(diabetes):
    X, y = diabetes
    frame = pd.DataFrame(X, columns=list("abcdefghij")).assign(b=np.where(X[:, 1] > 0.5, "m", "w"))
    base = HistGradientBoostingRegressor(max_iter=20, categorical_features="from_dtype")
    reg = SmoothedRegressor(
        base, SplitNoise(lam=1.1), costs={"a": "fixed", "c": 0.5}, categorical_features=["b"], hidden="uniform",
        n_samples=300, random_state=0,
    )  # fmt: skip
    frame["b"] = frame["b"].astype("category")
    reg.fit(frame, y)
    intervals = reg.certify(frame[:5], [[0.0, 0.2, 0.4]])
    assert (np.diff(intervals.lower, axis=1) <= 0).all()
    assert (np.diff(intervals.upper, axis=1) >= 0).all()
    assert (intervals.upper - intervals.lower)[:, 2].mean() > (intervals.upper - intervals.lower)[:, 0].mean()
    assert intervals.threat.startswith("perturbations that leave column 'a' as it is, with changed categories")
    assert pickle.loads(pickle.dumps(reg)).predict(frame[:3]).tolist() == reg.predict(frame[:3]).tolist()


def test_mixtures_have_intervals():
    reg = smooth(noise=UniformMixtureNoise([0.5, 2.0], [0.5, 0.5]), n_samples=4000)
    lower, upper = reg.certify([[0.5, 0.5]], [[0.0, 0.2]])
    # The overlap is 1 - (.5 / 1 + .5 / 4) r, and the densities of the mixture decide what that is worth.
    assert lower[0, 1] < lower[0, 0] < 0.5 < upper[0, 0] < upper[0, 1]


def test_notebooks_round_bounds_outward_and_radii_down():
    def cells(shown):
        return re.findall(r">\s*([^<>]*?)\s*</td>", shown._repr_html_())

    numbers = {name: np.array([2 / 3]) for name in ("predictions", "lower", "upper", "radius")}
    claim = {"quantile": 0.5, "alpha": 0.001, "norm": 1}
    assert cells(Intervals(**numbers, **claim)) == ["0.6666", "0.6666", "0.6667", "0.6666"]
    several = Intervals(**{n: v if n == "predictions" else v.reshape(1, 1) for n, v in numbers.items()}, **claim)
    assert cells(several) == ["0.6666", "0.6666", "0.6666", "0.6667"]
    within = dict.fromkeys(("predictions", "radii", "tolerance"), numbers["lower"])
    found = ToleranceRadii(**within, abstained=np.array([False]), **claim)
    assert cells(found) == ["0.6666", "0.6666", "False", "0.6667"]


@pytest.mark.parametrize("shape", ["flat", "column"])
def test_torch_modules_are_trained_on_numbers(diabetes, shape):
    X, y = diabetes
    last = [nn.Flatten(0)] if shape == "flat" else []
    module = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1), *last)
    reg = SmoothedRegressor(module, SplitNoise(lam=0.5), n_samples=50, random_state=0).fit(X[:150], y[:150])
    assert reg.score(X[:150], y[:150]) > 0.3
    again = SmoothedRegressor.from_pretrained(reg.estimator_.module_, SplitNoise(lam=0.5), n_samples=50, random_state=0)
    np.testing.assert_allclose(again.predict(X[:5]), reg.predict(X[:5]), rtol=1e-5)
    assert all(not parameter.grad_fn for parameter in module.parameters())


def test_skorch_nets_are_trained_as_they_are(diabetes):
    X, y = diabetes
    net = NeuralNetRegressor(
        nn.Linear(10, 1), optimizer=torch.optim.Adam, lr=3.0, max_epochs=25, train_split=None, verbose=0,
        criterion=nn.L1Loss,
    )  # fmt: skip
    reg = SmoothedRegressor(net, SplitNoise(lam=0.2), n_samples=50, random_state=0).fit(
        X, y, sample_weight=np.ones(442)
    )
    assert reg.score(X, y) > 0.2
    assert isinstance(reg.estimator_.criterion_, nn.L1Loss)


def test_training_of_regressors(diabetes):
    X, y = diabetes
    streamed = SmoothedRegressor(
        SGDRegressor(random_state=0), SplitNoise(0.5), training=NoiseAugmentation(3, stream=True), n_samples=50
    ).fit(X, np.round(y))
    assert np.isfinite(streamed.predict(X[:3])).all()
    folds = SmoothedRegressor(ElasticNetCV(cv=3), SplitNoise(0.5), n_samples=50).fit(X, np.round(y))
    assert folds.estimator_.cv == 3
    clean = SmoothedRegressor(LinearRegression(), training=None, random_state=0).fit(X, y)
    np.testing.assert_allclose(clean.estimator_.coef_, LinearRegression().fit(X, y).coef_)
    frozen = SmoothedRegressor(FrozenEstimator(LinearRegression().fit(X, y)), random_state=0).fit(X, y)
    np.testing.assert_array_equal(frozen.predict(X[:9]), clean.predict(X[:9]))
    with pytest.raises(ValueError, match="StabilityTraining"):
        SmoothedRegressor(LinearRegression(), training=StabilityTraining()).fit(X, y)


def test_grid_search_over_noise(diabetes):
    search = GridSearchCV(
        SmoothedRegressor(LinearRegression(), n_selection=32, n_samples=50, random_state=0),
        {"noise__lam": [0.1, 3.0]},
        cv=2,
    )
    assert search.set_params(estimator__noise=SplitNoise()).fit(*diabetes).best_params_ == {"noise__lam": 0.1}


def test_inputs_that_fail_are_skipped():
    def picky(batch):
        if (batch[:, 1] > 1.5).any():
            raise RuntimeError("too large")
        return batch[:, 0]

    reg = smooth(picky, UniformNoise(lam=0.6), n_samples=50, n_selection=16, batch_size=20)
    X = np.array([[0.5, 0.1], [0.5, 1.0], [0.2, 0.3]])
    with pytest.raises(RuntimeError, match="too large"):
        reg.certify(X, 0.1)
    with pytest.warns(UserWarning, match="1 of 3 inputs failed"):
        intervals = reg.certify(X, [[0.0, 0.1]], on_error="skip")
    assert intervals.failed.tolist() == [False, True, False]
    assert np.isinf(intervals.upper[1]).all()
    assert np.isnan(intervals.predictions[1])
    with pytest.warns(UserWarning, match="1 of 3 inputs failed"):
        within = reg.certify_within(X, 5.0, on_error="skip")
    assert within.abstained.tolist() == [False, True, False]


def test_what_is_refused(diabetes, fitted):
    X, y = diabetes
    with pytest.raises(ValueError, match=r"scikit-learn regressor.*It is a classifier: use SmoothedClassifier"):
        SmoothedRegressor(LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match=r"It is a regressor: use SmoothedRegressor"):
        SmoothedClassifier(LinearRegression()).fit(X, y > 100)
    with pytest.raises(ValueError, match="smoothed already"):
        SmoothedRegressor(fitted).fit(X, y)
    with pytest.raises(ValueError, match="noise must be uniform, splitting or mixture noise"):
        SmoothedRegressor(LinearRegression(), GaussianNoise()).fit(X, y)
    with pytest.raises(ValueError, match=r"quantile must lie strictly between 0 and 1"):
        SmoothedRegressor(LinearRegression(), quantile=1.0).fit(X, y)
    with pytest.raises(ValueError, match="n_samples must be at least 11"):
        SmoothedRegressor(LinearRegression(), n_samples=10).fit(X, y)
    with pytest.raises(ValueError, match=r"y must hold numbers, got <U1.*SmoothedClassifier takes labels"):
        SmoothedRegressor(LinearRegression()).fit(X, np.full(len(X), "a"))
    with pytest.raises(NotFittedError):
        SmoothedRegressor(LinearRegression()).certify(X, 0.5)
    with pytest.raises(ValueError, match="radius must be a number of at least 0"):
        fitted.certify(X, -1)
    for tolerance in (-1.0, [1.0] * (len(X) - 1) + [-1.0]):
        with pytest.raises(ValueError, match=r"tolerance must be"):
            fitted.certify_within(X, tolerance)
    with pytest.raises(ValueError, match="from_pretrained"):
        SmoothedRegressor(first).fit(X, y)
    with pytest.raises(ValueError, match="classifier must be a SmoothedClassifier, got a SmoothedRegressor"):
        save_weights(fitted, "weights")
    with pytest.raises(ValueError, match=r"noise has changed .* SmoothedRegressor.from_pretrained"):
        clone(fitted).fit(X, y).set_params(noise="uniform").predict(X)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: batch[:, :2], r"must return one number per row, shape \(\d+,\), but returned shape"),
        (lambda batch: np.full(len(batch), np.nan), "returned NaN"),
        (lambda batch: np.full(len(batch), "a"), "returned shape"),
        (lambda batch: batch[:, 0] - batch[:, 0].mean(), "depends on the batch or is random"),
        (lambda batch: np.random.default_rng().random(len(batch)), "depends on the batch or is random"),
    ],
)
def test_base_models_that_return_anything_but_one_number_per_row(function, message):
    with pytest.raises(ValueError, match=message):
        smooth(function, n_samples=500).certify([[0.5, 0.5]], 0.1)


def test_modules_that_return_several_numbers_are_refused(diabetes):
    with pytest.raises(ValueError, match="must return one number per row"):
        SmoothedRegressor(nn.Linear(10, 2), n_samples=50).fit(*diabetes)


@pytest.mark.parametrize("error", [2.0**-7, 0.5])
def test_rounding_of_reduced_precision_is_no_dependence_on_the_batch(error):
    class Rough(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))

        def forward(self, rows):
            return (rows @ self.weight + 1) * (1 + error * (len(rows) > 1))

    reg = SmoothedRegressor.from_pretrained(Rough(), n_samples=100, random_state=0)
    if error == 0.5:
        with pytest.raises(ValueError, match="depends on the batch"):
            reg.certify(np.full((1, 3), 0.5), 0.1)
    else:
        assert 2 < reg.certify(np.full((1, 3), 0.5), 0.1).lower[0] < 3
