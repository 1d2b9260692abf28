from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sklearn.pipeline
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC

from smoothcert import (
    CertifiedAccuracyDisplay,
    GreedyBudgetDisplay,
    GreedyRadius,
    ProbabilityDisplay,
    RowChanges,
    SmoothedClassifier,
    SmoothedConformalClassifier,
    SmoothedRegressor,
    SplitNoise,
    UniformNoise,
    VotesDisplay,
    baselines,
    make_certified_scorer,
    verify,
    verify_store,
)
from smoothcert.attacks import GreedyFaceAttack
from smoothcert.pipeline import Pipeline, make_pipeline

from .base_models import Rule, steps


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return train_test_split(X, y, test_size=60, random_state=0)


@pytest.fixture(scope="module")
def fitted(cancer):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(GaussianNB(), SplitNoise(lam=0.8), n_samples=300, random_state=0)
    return make_pipeline(MinMaxScaler(), clf).fit(X, y)


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.radii, b.radii)


def test_a_pipeline_inside_the_classifier_is_certified_in_raw_units(cancer):
    X, X_test, y, y_test = cancer
    base = sklearn.pipeline.make_pipeline(StandardScaler(), SVC())
    clf = SmoothedClassifier(base, UniformNoise(0.2), bounds="minmax", n_samples=100, random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.box_.width, X.max(axis=0) - X.min(axis=0))
    labels, radii = clf.certify(X_test)
    assert (labels == y_test).mean() > 0.85
    assert (radii > 0).any()


def test_certification_passes_through_the_transformers(fitted, cancer):
    X_test = cancer[1]
    scaler, last = fitted[0], fitted[-1]
    Z = scaler.transform(X_test)
    assert_same(fitted.certify(X_test), last.certify(Z))
    np.testing.assert_array_equal(fitted.predict(X_test), fitted.certify(X_test).labels)
    found, expected = fitted.certify_at(X_test, 0.2), last.certify_at(Z, 0.2)
    np.testing.assert_array_equal(found.robust, expected.robust)
    np.testing.assert_array_equal(found.n_samples, expected.n_samples)


@pytest.mark.parametrize("kind", [Pipeline, sklearn.pipeline.Pipeline])
def test_whatever_takes_a_classifier_takes_its_pipeline(fitted, cancer, kind, tmp_path):
    X, X_test, y, y_test = cancer
    X_test, y_test = X_test[:12], y_test[:12]
    pipeline, last = kind(fitted.steps), fitted[-1]
    Z = fitted[0].transform(X_test)
    expected = last.certify(Z)
    for display in (CertifiedAccuracyDisplay, ProbabilityDisplay):
        lines = [display.from_estimator(*given, y_test).ax_.lines for given in ((pipeline, X_test), (last, Z))]
        for one, other in zip(*lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert_same(VotesDisplay.from_estimator(pipeline, X_test).certificates, expected)
    row = int(np.nanargmax(expected.radii))
    pictures = [
        GreedyBudgetDisplay.from_estimator(clf, rows[row], image_shape=(5, 6))
        for clf, rows in ((pipeline, X_test), (last, Z))
    ]
    np.testing.assert_array_equal(pictures[0].perturbed, pictures[1].perturbed)
    assert repr(RowChanges.from_estimator(pipeline, X_test[row])) == repr(RowChanges.from_estimator(last, Z[row]))
    found = baselines(expected, pipeline, X, y, X_test)
    assert_same(found["majority class"], baselines(expected, last, fitted[0].transform(X), y, Z)["majority class"])
    scorer = make_certified_scorer(0.2)
    assert scorer(pipeline, X_test, y_test) == scorer(last, Z, y_test) > 0.5
    assert verify(expected, pipeline, X_test, random_state=0).consistent
    last.certify(Z, store=tmp_path / "run.sqlite")
    assert verify_store(tmp_path / "run.sqlite", pipeline, X_test).consistent
    attack = GreedyFaceAttack(max_queries=3000, n_samples=100, random_state=0)
    attacked = [attack.run(clf, rows[:2], radius=2.0).inputs for clf, rows in ((pipeline, X_test), (last, Z))]
    np.testing.assert_array_equal(*attacked)


def states(estimator):
    """Return what all estimators inside one have learnt."""
    parts = [estimator, *(part for part in estimator.get_params().values() if hasattr(part, "fit"))]
    return [{name: value for name, value in vars(part).items() if name.endswith("_")} for part in parts]


class Failing(GaussianNB):
    """Fits three classes, and then fails."""

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        if len(self.classes_) > 3:
            raise KeyError("too many classes")
        return self


@pytest.mark.parametrize(
    "scalers",
    [
        [MinMaxScaler()],
        [StandardScaler(), MinMaxScaler()],
        [sklearn.pipeline.make_pipeline(StandardScaler(), MinMaxScaler())],
        [sklearn.pipeline.FeatureUnion([("one", StandardScaler()), ("two", MinMaxScaler())]), MinMaxScaler()],
    ],
    ids=["scaler", "two", "pipeline", "union"],
)
@pytest.mark.parametrize("error", ["labels", "missing", "model", "interrupt"])
def test_a_pipeline_is_fitted_as_a_whole_or_not_at_all(scalers, error, tmp_path, monkeypatch):
    X, y = load_iris(return_X_y=True)
    other, labels = 9 * X + 1, y
    if error == "labels":
        labels = np.zeros((150, 2))
    if error == "missing":
        other[3, 2] = np.nan
    if error == "model":
        labels = np.arange(150) % 4
    clf = SmoothedClassifier(Failing(), UniformNoise(0.5), n_samples=200, random_state=0)
    for memory in (None, str(tmp_path)) if error == "model" else (None,):
        pipeline = make_pipeline(*map(clone, scalers), clone(clf), memory=memory)
        for fitted in (False, True):
            expected = pipeline.fit(X, y).certify(X[::20]) if fitted else None
            before = states(pipeline)
            with monkeypatch.context() as context:
                if error == "interrupt":
                    context.setattr(Failing, "fit", _interrupt)
                with pytest.raises((ValueError, KeyError, KeyboardInterrupt)):
                    pipeline.fit(other, labels)
            assert [state.keys() for state in states(pipeline)] == [state.keys() for state in before]
            for now, then in zip(states(pipeline), before, strict=True):
                assert all(now[name] is then[name] or type(then[name]) is list for name in then)
            if fitted:
                assert_same(pipeline.certify(X[::20]), expected)


class Listing(MinMaxScaler):
    """Changes a list of its own in place."""

    def fit(self, X, y=None):
        self.ranges = getattr(self, "ranges", [])
        self.ranges.append(np.ptp(X))
        return super().fit(X, y)


def test_lists_that_change_in_place_come_back_after_an_error():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(Listing(), SmoothedClassifier(Failing(), UniformNoise(0.5), n_samples=200)).fit(X, y)
    with pytest.raises(KeyError, match="too many classes"):
        pipeline.fit(X, np.arange(150) % 4)
    assert len(pipeline[0].ranges) == 1


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_votes_are_drawn_once_and_certified_often(fitted, cancer):
    X_test = cancer[1]
    votes = fitted.count_votes(X_test)
    assert_same(fitted.certify(X_test, votes=votes), fitted.certify(X_test))
    with pytest.raises(ValueError, match="votes were drawn with a different X"):
        fitted.certify(X_test[::-1], votes=votes)
    with pytest.raises(TypeError, match="nonsense"):
        fitted.certify(X_test, nonsense=1)


def test_only_what_the_last_step_has_is_passed_on():
    other = Pipeline([("scale", MinMaxScaler()), ("bayes", GaussianNB())])
    for name in ("certify", "certify_at", "count_votes"):
        assert not hasattr(other, name)
        assert hasattr(make_pipeline(MinMaxScaler(), SmoothedClassifier(GaussianNB())), name)
        # Sets are not made of votes.
        assert not hasattr(make_pipeline(MinMaxScaler(), SmoothedConformalClassifier(GaussianNB(), radius=0.1)), name)
    assert not hasattr(Pipeline([("scale", MinMaxScaler()), ("last", "passthrough")]), "certify")


def test_regressors_and_conformal_classifiers_get_transformed_inputs(cancer):
    X, X_test, y, _ = cancer
    scaler = MinMaxScaler().fit(X)
    reg = SmoothedRegressor(LinearRegression(), SplitNoise(0.8), n_samples=300, alpha=0.01, random_state=0)
    pipeline, alone = make_pipeline(MinMaxScaler(), reg).fit(X, y), clone(reg).fit(scaler.transform(X), y)
    inputs = scaler.transform(X_test)
    np.testing.assert_array_equal(pipeline.certify(X_test, radius=0.1).lower, alone.certify(inputs, 0.1).lower)
    tolerance = np.linspace(0.2, 1, len(X_test))
    radii = pipeline.certify_within(X_test, tolerance, on_error="skip").radii
    np.testing.assert_array_equal(radii, alone.certify_within(inputs, tolerance).radii)
    assert (radii > 0).any()
    clf = SmoothedConformalClassifier(GaussianNB(), SplitNoise(0.8), radius=0.1, n_samples=100, random_state=0)
    pipeline, alone = make_pipeline(MinMaxScaler(), clf).fit(X[::2], y[::2]), clone(clf)
    alone.fit(scaler.fit(X[::2]).transform(X[::2]), y[::2]).conformalize(scaler.transform(X[1::2]), y[1::2])
    assert pipeline.conformalize(X[1::2], y[1::2]) is pipeline
    assert pipeline[-1].threshold_ == alone.threshold_
    np.testing.assert_array_equal(pipeline.predict_set(X_test), alone.predict_set(scaler.transform(X_test)))
    assert not hasattr(pipeline, "certify")


def test_the_pipeline_is_one_of_scikit_learn(fitted):
    assert isinstance(fitted, sklearn.pipeline.Pipeline)
    assert list(fitted.named_steps) == ["minmaxscaler", "smoothedclassifier"]
    copy = clone(fitted).set_params(smoothedclassifier__noise__lam=0.3)
    assert copy[-1].noise.lam == 0.3
    assert type(fitted[:1]) is Pipeline
    np.testing.assert_array_equal(fitted.classes_, [0, 1])
    parts = make_pipeline(None, "passthrough", SmoothedClassifier(GaussianNB()), memory="cache", verbose=True)
    assert (parts.memory, parts.verbose, parts.transform_input) == ("cache", True, None)
    assert make_pipeline(SmoothedClassifier(GaussianNB()), transform_input=["X"]).transform_input == ["X"]


def test_an_unfitted_pipeline_says_so(cancer):
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make_pipeline(MinMaxScaler(), SmoothedClassifier(GaussianNB())).certify(cancer[1])


# Raw units


#: Older versions of scikit-learn have no such parameter.
CLIPPED = MaxAbsScaler(**{"clip": True} if "clip" in MaxAbsScaler().get_params() else {"copy": False})

CHAINS = [
    [],
    ["passthrough"],
    [MinMaxScaler()],
    [MinMaxScaler(feature_range=(-2, 3))],
    [StandardScaler()],
    [StandardScaler(with_mean=False)],
    [StandardScaler(with_std=False), None],
    [MaxAbsScaler()],
    [StandardScaler(), MaxAbsScaler(), MinMaxScaler(feature_range=(0, 5))],
]


def chain(scalers, X, y, **params):
    """Fit scalers before a classifier whose box is the range of the scaled data."""
    clf = SmoothedClassifier(GaussianNB(), bounds="minmax", n_samples=100, n_selection=32, random_state=0, **params)
    named = [(f"step{i}", scaler) for i, scaler in enumerate([*scalers, clf])]
    return Pipeline(named).fit(X, y)


def table(dtype):
    """Features in very different units, one of them constant."""
    rng = np.random.default_rng(0)
    scales, shifts = np.array([1e-3, 1.0, 250.0, 1e4, 1.0]), np.array([5.0, -3.0, 0.0, 1e5, 7.0])
    X = rng.normal(size=(80, 5)) * scales + shifts
    X[:, 4] = 7.0
    return X.astype(dtype), rng.integers(0, 2, 80)


@pytest.mark.parametrize("scalers", CHAINS, ids=lambda scalers: "-".join(map(str, scalers)) or "none")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_perturbation_within_the_raw_radius_leaves_the_certified_ball(scalers, dtype, weighted):
    """Whatever is within the converted radius is, as the classifier gets it, within the certified one."""
    X, y = table(dtype)
    pipeline = chain([clone(scaler) if hasattr(scaler, "fit") else scaler for scaler in scalers], X, y)
    certificates = pipeline.certify(X)
    certificates = certificates[~certificates.abstained & (certificates.radii > 0) & np.isfinite(certificates.radii)]
    n, box = len(certificates), pipeline[-1].box_
    X = X[:n]
    raw = pipeline.to_raw_units(certificates, X, weighted=weighted)
    weights = pipeline.raw_weights() if weighted else np.ones(5)
    rng = np.random.default_rng(1)
    moves = [np.eye(5)[i] for i in range(4)] + [rng.dirichlet(np.full(5, 0.3)) for _ in range(20)]
    assert (raw.radii > 0).any()
    for shares in moves:
        direction = shares * rng.choice([-1, 1], 5)
        length = np.abs(direction) @ weights
        Y64 = X.astype(np.float64) + (raw.radii / length)[:, None] * direction
        Y = Y64.astype(dtype)
        # Distances of what the machine really holds; those that its rounding put outside do not count.
        inside = np.abs(Y.astype(np.float64) - X) @ weights <= raw.radii
        # Digits beyond those of float64 keep the rounding of this test out of the comparison.
        lo, hi = box.lo.astype(np.longdouble), box.hi.astype(np.longdouble)
        near, far = (np.clip(np.asarray(_before_last(pipeline, Z)), lo, hi) for Z in (X, Y))
        moved = np.abs(near - far) / np.where(hi > lo, hi - lo, 1)
        assert (moved.sum(axis=1) <= certificates.radii)[inside].all()


def _before_last(pipeline, X):
    for _, step in pipeline.steps[:-1]:
        if hasattr(step, "transform"):
            X = step.transform(X)
    return X


@pytest.mark.parametrize("scalers", CHAINS, ids=lambda scalers: "-".join(map(str, scalers)) or "none")
def test_weights_are_the_slopes_of_the_map_and_the_radii_lose_nothing_but_rounding(scalers):
    X, y = table(np.float64)
    pipeline = chain([clone(scaler) if hasattr(scaler, "fit") else scaler for scaler in scalers], X, y)
    middle = (X.min(axis=0) + X.max(axis=0)) / 2
    step = (X.max(axis=0) - X.min(axis=0)) / 4
    box, slopes = pipeline[-1].box_, np.zeros(5)
    for i in range(4):
        ends = np.stack([middle - step * np.eye(5)[i], middle + step * np.eye(5)[i]])
        unit = box.to_unit(_before_last(pipeline, ends))
        slopes[i] = (unit[1, i] - unit[0, i]) / (2 * step[i])
    np.testing.assert_allclose(pipeline.raw_weights(), slopes, rtol=1e-7)
    certificates = pipeline.certify(X)
    plain, weighted = (pipeline.to_raw_units(certificates, X, weighted=flag).radii for flag in (False, True))
    np.testing.assert_allclose(weighted, certificates.radii, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(plain, certificates.radii / slopes.max(), rtol=1e-9, atol=1e-8 / slopes.max())
    kept = certificates.radii > 0
    assert (weighted < certificates.radii)[kept & np.isfinite(certificates.radii)].all()


def test_the_raw_radius_ends_before_the_smoothed_classifier_changes():
    """By brute force: H of a threshold on the scaled feature is known, and so is the raw distance to its border."""
    X = np.array([[0.0, 0.0], [200.0, 10.0], [20.0, 5.0], [60.0, 5.0], [160.0, 1.0]])
    scaler = MinMaxScaler().fit(X)
    base = Rule(steps([0.5])).fit(None, None)
    clf = SmoothedClassifier(FrozenEstimator(base), UniformNoise(1.0), n_samples=20_000, random_state=0)
    pipeline = make_pipeline(FrozenEstimator(scaler), clf).fit(X, [0, 1, 0, 0, 1])
    certificates = Pipeline([("scale", scaler), ("clf", pipeline[-1])]).certify(X)
    raw = Pipeline([("scale", scaler), ("clf", pipeline[-1])]).to_raw_units(certificates, X, weighted=True)
    # H is 1 where more than half of the noise lies above 1/2: where the first raw feature exceeds 100.
    to_border = np.abs(X[:, 0] - 100) / 200
    assert (raw.radii <= to_border).all()
    assert (raw.radii > to_border - 0.03).all()
    plain = Pipeline([("scale", scaler), ("clf", pipeline[-1])]).to_raw_units(certificates, X).radii
    # A unit of the second feature is the larger step in the box.
    np.testing.assert_allclose(plain, raw.radii * 10, rtol=1e-12)


def test_what_is_certified_against_everything_is_so_in_raw_units(cancer):
    X, _, y, _ = cancer
    clf = SmoothedClassifier(DummyClassifier(), bounds="minmax", n_samples=100, random_state=0)
    for data in (X, np.full_like(X, 3.0)):
        pipeline = make_pipeline(StandardScaler(), clone(clf).set_params(noise="gaussian" if data is X else "split"))
        certificates = pipeline.fit(data, y).certify(data[:5])
        assert np.isinf(certificates.radii).all() == (data is not X)
        expected = np.isinf(certificates.radii)
        np.testing.assert_array_equal(np.isinf(pipeline.to_raw_units(certificates, data[:5]).radii), expected)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_the_rounding_of_the_transformers_is_taken_off(norm):
    """By hand, for two steps in float32 whose errors show: each factor and term is off by eps/2, and so is each sum."""
    X = np.array([[0.0, -4.0], [8.0, 4.0], [2.0, 3.0], [4.0, -1.0]], dtype=np.float32)
    scalers = [MinMaxScaler(), MinMaxScaler(feature_range=(-1, 1))]
    costs = np.array([1.0, 0.5])
    clf = SmoothedClassifier(GaussianNB(), bounds=(-1, [3, 4]), costs=costs, n_samples=100, random_state=0)
    pipeline = make_pipeline(*scalers, clf).fit(X, [0, 1, 0, 1])
    eps = np.finfo(np.float32).eps
    # x/8 + (0, 1/2), then 2 x - 1, into boxes of width 4 and 5, so values after the second step are at most 3 and 4.
    ends, shifts = np.array([3.0, 4.0]), np.array([0.0, 0.5])
    before = (ends + 1) / 2
    first = (before + shifts) * 8
    errors = 4 * eps * (ends + 1) + 2 * 4 * eps * (before + shifts) + 2 / 8 * eps * first
    weights = 2 / 8 / np.array([4, 5]) * costs
    radii = np.array([0.5, 0.25, np.nan, 1e-7])
    certificates = replace(pipeline.certify(X), radii=radii, norm=norm, threat="every perturbation")
    lost = np.linalg.norm(2 * errors / [4, 5] * costs, ord=norm)
    np.testing.assert_allclose(pipeline.raw_weights(), weights, rtol=1e-14)
    assert (pipeline.raw_weights() >= weights).all()
    for weighted, factor in ((True, 1.0), (False, weights.max())):
        raw = pipeline.to_raw_units(certificates, X, weighted=weighted)
        np.testing.assert_allclose(raw.radii, np.maximum(certificates.radii - lost, 0) / factor, rtol=1e-10)
        assert raw.threat == f"every perturbation, in {'weighted ' if weighted else ''}raw units"
        assert raw.norm == norm


def test_digital_data_and_tables_are_converted_too():
    X = np.random.default_rng(0).integers(0, 11, (40, 2))
    X[0], X[1] = 0, 10
    clf = SmoothedClassifier(GaussianNB(), UniformNoise(0.5, levels=10), n_samples=100, random_state=0)
    pipeline = make_pipeline(MinMaxScaler(), clf).fit(X, X[:, 0] > 5)
    certificates = pipeline.certify(X)
    assert "lattice" in certificates.threat
    raw = pipeline.to_raw_units(certificates, X.tolist())
    np.testing.assert_allclose(raw.radii, certificates.radii * 10, rtol=1e-9)
    assert raw.threat == f"{certificates.threat}, in raw units"
    # Whole numbers that no step transforms have no rounding.
    alone = Pipeline([("clf", clone(clf).set_params(noise=UniformNoise(0.5), bounds=(0, 10)))]).fit(X, X[:, 0] > 5)
    certificates = alone.certify(X)
    np.testing.assert_allclose(alone.to_raw_units(certificates, X).radii, certificates.radii * 10, rtol=1e-14)


def test_arguments_reach_the_steps():
    class Spy(GaussianNB):
        def __getattr__(self, name):
            if name not in ("certify", "certify_at", "count_votes", "certify_within", "predict_set"):
                raise AttributeError(name)
            return lambda *given, **params: (name, *[np.asarray(one).tolist() for one in given], params)

        def fit(self, X, y, sample_weight=None):
            self.weights = sample_weight
            return super().fit(X, y)

    X = np.array([[2.0], [4.0], [3.0]])
    pipeline = Pipeline([("scale", MinMaxScaler()), ("spy", Spy())]).fit(X, [0, 1, 1], spy__sample_weight=[1, 2, 3])
    assert pipeline[-1].weights == [1, 2, 3]
    Z = [[0.0], [1.0], [0.5]]
    assert pipeline.certify(X, votes=3, y=4) == ("certify", Z, {"votes": 3, "y": 4})
    assert pipeline.certify_at(X, 0.7, store=5) == ("certify_at", Z, 0.7, {"store": 5})
    assert pipeline.count_votes(X, shard=6) == ("count_votes", Z, {"shard": 6})
    assert pipeline.certify_within(X, 0.8, y=7) == ("certify_within", Z, 0.8, {"y": 7})
    assert pipeline.predict_set(X) == ("predict_set", Z, {})


def test_what_is_not_fitted_or_fixed_has_no_raw_units(cancer, fitted):
    X, X_test, y, _ = cancer
    new = clone(fitted)
    for call in (new.raw_weights, lambda: new.to_raw_units(fitted.certify(X_test), X_test)):
        with pytest.raises(sklearn.exceptions.NotFittedError):
            call()
    costs = [*np.ones(29), "fixed"]
    fixed = clone(fitted).set_params(smoothedclassifier__costs=costs).fit(X, y)
    with pytest.raises(ValueError, match="costs must be finite, and features numbers, for radii in raw units"):
        fixed.raw_weights()


def test_abstentions_stay_abstentions(cancer):
    X, y = load_iris(return_X_y=True)
    pipeline = chain([StandardScaler()], X, y)
    certificates = pipeline.certify(X)
    assert certificates.abstained.any()
    raw = pipeline.to_raw_units(certificates, X)
    np.testing.assert_array_equal(np.isnan(raw.radii), certificates.abstained)
    np.testing.assert_array_equal(raw.labels, certificates.labels)


@pytest.mark.parametrize(
    "step", [RobustScaler(), PCA(), MinMaxScaler(clip=True), CLIPPED, FrozenEstimator(StandardScaler())]
)
def test_other_transformers_are_named(cancer, step):
    X, _, y, _ = cancer
    if isinstance(step, FrozenEstimator):
        step.estimator.fit(X)
    pipeline = chain([StandardScaler(), step], X, y)
    with pytest.raises(
        ValueError, match=r"Step 'step1' must scale each feature by itself .*Put the transformers inside"
    ):
        pipeline.to_raw_units(pipeline.certify(X[:2]), X[:2])


def test_what_cannot_be_converted(cancer, fitted):
    X, X_test, y, _ = cancer
    certificates = fitted.certify(X_test)
    with pytest.raises(ValueError, match=r"X must hold the 60 inputs of certificates, got 59"):
        fitted.to_raw_units(certificates, X_test[1:])
    with pytest.raises(ValueError, match=r"certificates must be what certify returns, got a tuple"):
        fitted.to_raw_units(tuple(certificates), X_test)
    with pytest.raises(ValueError, match=r"every perturbation, in raw units, which are limits"):
        fitted.to_raw_units(fitted.to_raw_units(certificates, X_test), X_test)
    limited = clone(fitted).set_params(smoothedclassifier__radius=GreedyRadius(max_features=2)).fit(X, y)
    with pytest.raises(ValueError, match="of any two features, which are limits"):
        limited.to_raw_units(limited.certify(X_test), X_test)
    with pytest.raises(ValueError, match="weighted must be True or False"):
        fitted.to_raw_units(certificates, X_test, weighted=1)
    bayes = make_pipeline(MinMaxScaler(), GaussianNB()).fit(X, y)
    with pytest.raises(ValueError, match="last step must be a SmoothedClassifier, got GaussianNB"):
        bayes.raw_weights()


def test_weights_of_a_scaler_of_float32_data_are_not_below_the_exact_ones():
    rng = np.random.default_rng(0)
    X = (rng.random((50, 40)) * 100).astype(np.float32)
    y = np.arange(50) % 2
    clf = SmoothedClassifier(GaussianNB(), n_samples=100, random_state=0)
    pipeline = Pipeline([("scale", MaxAbsScaler()), ("clf", clf)]).fit(X, y)
    assert pipeline[0].scale_.dtype == np.float32
    exact = [1 / Fraction(float(scale)) for scale in pipeline[0].scale_]
    assert all(Fraction(float(weight)) >= one for weight, one in zip(pipeline.raw_weights(), exact, strict=True))
