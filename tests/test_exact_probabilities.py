"""Certificates of exact probabilities: labels, radii and stores without votes."""

import itertools
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from smoothcert import (
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
    VoteCounts,
)
from smoothcert.noise import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.runs.database import StoreError
from smoothcert.runs.metadata import RunMetadata
from smoothcert.sampling import exact
from smoothcert.sampling.exact import NotExactError

from .sampling.test_exact import enumerated, fitted

TINY = [
    UniformNoise(0.75, levels=4),
    SplitNoise(0.5, levels=4),
    SplitNoise(1.0, levels=4),
    UniformMixtureNoise([0.5, 1.0], [0.3, 0.7], levels=4),
]


def tiny(noise, name="tree", n_classes=2, **params):
    """A smoothed classifier on a lattice of 25 points, and all of them."""
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,))
    model = fitted(name, mechanism, n_classes=n_classes, n=200)
    clf = SmoothedClassifier.from_pretrained(model, range(n_classes), noise, random_state=0, **params)
    return clf, np.array(list(itertools.product(np.arange(5) / 4, repeat=2))), mechanism


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    clf = SmoothedClassifier(
        AdaBoostClassifier(n_estimators=30, random_state=0), SplitNoise(0.8), bounds="minmax", random_state=0
    )
    return clf.fit(X[::2], y[::2]), X[1::2], y[1::2]


def assert_same(a, b):
    for name in ("labels", "radii", "abstained", "p_a", "p_b", "n_samples"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("noise", TINY, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_certificates_of_a_tiny_lattice_are_true(noise, n_classes):
    """All outcomes are enumerated at all inputs, so that H is known everywhere."""
    clf, X, mechanism = tiny(noise, n_classes=n_classes)
    truth = enumerated(clf.estimator_, mechanism, X, range(n_classes))
    found = clf.certify(X)
    assert (found.alpha, found.n_samples.any()) == (0.0, False)
    np.testing.assert_array_equal(found.labels, truth.argmax(axis=1))
    np.testing.assert_array_equal(clf.predict(X), found.labels)
    np.testing.assert_allclose(clf.predict_proba(X), truth, atol=1e-14)
    ordered = np.sort(truth, axis=1)
    np.testing.assert_allclose(found.p_a, ordered[:, -1], atol=1e-14)
    np.testing.assert_allclose(found.p_b, ordered[:, -2], atol=1e-14)
    assert (found.p_a <= ordered[:, -1] + 1e-16).all()
    assert (found.p_b >= ordered[:, -2] - 1e-16).all()
    distance = np.abs(X[:, None] - X[None]).sum(axis=2)
    same = found.labels[:, None] == found.labels[None]
    assert same[(distance <= found.radii[:, None]) & ~found.abstained[:, None]].all()
    assert len(set(found.labels)) > 1
    assert (found.radii > 0.25).any()


@pytest.mark.parametrize("radius", ["lipschitz", "box", GreedyRadius(max_features=1)])
def test_all_strategies_and_both_schemes(radius):
    clf, X, mechanism = tiny(SplitNoise(0.5, levels=4), n_classes=3)
    truth = enumerated(clf.estimator_, mechanism, X, range(3))
    for scheme in ("binary", "multiclass"):
        found = clf.set_params(radius=radius, scheme=scheme).certify(X)
        p_a = truth.max(axis=1)
        p_b = 1 - p_a if scheme == "binary" else np.sort(truth, axis=1)[:, -2]
        algorithm = clf.algorithm((2,))
        np.testing.assert_allclose(found.radii, algorithm.radii(p_a, p_b, X), atol=1e-9)
        np.testing.assert_array_equal(found.abstained, p_a <= p_b + 1e-15)


def test_a_grid_certifies_no_more_than_the_truth(monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    monkeypatch.setattr(exact, "GRID_CELLS", 4)
    monkeypatch.setattr(exact, "FINE_GRID_CELLS", 6)
    clf, X, mechanism = tiny(UniformNoise(0.75, levels=4), "gradient")
    truth, found = enumerated(clf.estimator_, mechanism, X, range(2)), clf.certify(X)
    right = found.labels == truth.argmax(axis=1)
    assert right[~found.abstained].all()
    assert 0 < found.abstained.sum() < len(X)
    possible = clf.algorithm((2,)).radii(truth.max(axis=1), truth.min(axis=1), X)
    assert (found.radii <= possible)[~found.abstained].all()
    assert (found.margin < np.ptp(truth, axis=1) - 1e-4).any()


def test_ties_abstain():
    half = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    clf = SmoothedClassifier.from_pretrained(half, [0, 1], UniformNoise(1.0, levels=4))
    found = clf.certify([[0.5], [0.25]])
    assert found.abstained.tolist() == [True, False]
    assert np.isnan(found.radii[0])
    assert clf.certify_at([[0.5]], 0.0).robust.tolist() == [False]


def test_estimation_is_a_choice(cancer):
    clf, X, _ = cancer
    clf, X = clone(clf).set_params(n_samples=200).fit(X, cancer[2]), X[:20]
    sampled = clf.set_params(estimation="sample").certify(X)
    assert (sampled.alpha, sampled.n_samples.min()) == (0.001, 200)
    computed = clf.set_params(estimation="auto").certify(X)
    assert_same(computed, clf.set_params(estimation="exact").certify(X))
    assert (computed.p_a > sampled.p_a).mean() > 0.9
    with pytest.raises(ValueError, match=r"estimation must be one of 'auto', 'sample', 'exact', got 'always'"):
        clf.set_params(estimation="always").certify(X)


@pytest.mark.parametrize(
    ("model", "noise", "words"),
    [
        (LogisticRegression(), "split", "got LogisticRegression"),
        (GradientBoostingClassifier(max_depth=3), "split", "depth 1"),
        (DecisionTreeClassifier(), GaussianNoise(0.3), "GaussianNoise"),
    ],
)
def test_what_is_not_exact_is_sampled_or_refused(model, noise, words):
    X, y = load_iris(return_X_y=True)
    clf = SmoothedClassifier(model, noise, bounds=(0, 8), n_samples=100, random_state=0).fit(X, y)
    assert_same(clf.certify(X[:3]), clone(clf).set_params(estimation="sample").fit(X, y).certify(X[:3]))
    clf.set_params(estimation="exact")
    for ask in (clf.predict, clf.predict_proba, clf.certify, lambda X: clf.certify_at(X, 0.1)):
        with pytest.raises(NotExactError, match=words):
            ask(X[:3])


def test_enumerated_noise_is_exact_already():
    X, y = load_iris(return_X_y=True)
    clf = SmoothedClassifier(LogisticRegression(), DeterministicSplitNoise(0.5, levels=10), bounds=(0, 8))
    X = np.rint(X / 0.8) * 0.8
    found = clf.set_params(estimation="exact").fit(X, y).certify(X[:9])
    assert found.alpha == 0
    assert_same(found, clf.set_params(estimation="auto").certify(X[:9]))


def test_given_votes_are_used(cancer):
    clf, X, _ = cancer
    votes = clf.count_votes(X[:10])
    assert votes.n_samples == 10_000
    for estimation in ("auto", "exact"):
        found = clone(clf).set_params(estimation=estimation).fit(X, cancer[2])
        found = clf.certify(X[:10], votes=votes)
        assert (found.alpha, found.n_samples.min()) == (0.001, 10_000)


def test_certify_at_compares_radii(cancer):
    clf, X, _ = cancer
    radii = clf.certify(X).radii
    decided = clf.certify_at(X, [[0.1, 0.3, 0.6]])
    np.testing.assert_array_equal(decided.robust, radii[:, None] >= np.array([0.1, 0.3, 0.6]))
    assert (decided.alpha, decided.n_samples.any()) == (0.0, False)
    np.testing.assert_array_equal(decided.labels, clf.predict(X))
    with pytest.warns(UserWarning, match="radius is out of reach for every input.*or raise the width of the noise"):
        clf.certify_at(X[:3], 50.0)


def test_seeds_workers_and_pickles_do_not_matter(cancer):
    clf, X, _ = cancer
    expected = clf.certify(X[:150])
    copied = pickle.loads(pickle.dumps(clf)).set_params(random_state=7, n_jobs=2)
    with joblib.parallel_config(backend="loky"):
        assert_same(copied.certify(X[:150]), expected)
    assert_same(clf.certify(X[7:9]), expected[7:9])
    assert_same(clf.set_params(timeout=10.0).certify(X[:3]), expected[:3])
    clf.set_params(timeout=None)


def test_one_class():
    X = np.linspace(0, 1, 10)[:, None]
    clf = SmoothedClassifier(DecisionTreeClassifier()).fit(X, np.ones(10))
    found = clf.certify(X)
    assert np.isposinf(found.radii).all()
    assert found.alpha == 0


def test_labels_follow_the_classes_of_the_caller():
    clf, X, _ = tiny(SplitNoise(0.5, levels=4))
    other = SmoothedClassifier.from_pretrained(clf.estimator_, [7, 1, 0], clf.noise)
    np.testing.assert_array_equal(other.predict_proba(X)[:, [2, 1]], clf.predict_proba(X))
    found, expected = other.certify(X), clf.certify(X)
    np.testing.assert_array_equal(found.radii, expected.radii)
    # Ties, which have no certificate, go to the first class.
    np.testing.assert_array_equal(found.labels[~found.abstained], expected.labels[~found.abstained])
    assert 0 < found.abstained.sum() < 5


@pytest.mark.parametrize("hidden", ["mask", "uniform"])
@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_leaf_nodes=30, random_state=0),
        GradientBoostingClassifier(max_depth=1, n_estimators=40, random_state=0),
    ],
    ids=["tree", "stumps"],
)
def test_tables_with_costs_categories_and_fixed_columns(model, hidden, tmp_path):
    """Votes of the same classifier agree with the exact probabilities."""
    rng, n = np.random.default_rng(0), 300
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "job": rng.choice(list("abcd"), n),
            "wage": rng.random(n) * 100,
            "town": rng.choice(["x", "y", "z"], n),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 999, n), unit="D"),
        }
    )
    score = table["age"] / 80 + table["wage"] / 100 + (table["job"] == "a") + 0.5 * (table["town"] == "x")
    steps = ColumnTransformer(
        [
            ("codes", OneHotEncoder(handle_unknown="ignore"), ["job", "town"]),
            ("numbers", StandardScaler(), ["age", "wage"]),
        ]
    )
    clf = SmoothedClassifier(
        make_pipeline(steps, model),
        bounds={"age": (18, 80), "wage": (0, 100)},
        costs={"town": "fixed", "since": "fixed", "age": 0.5, "job": 0.6},
        categorical_features=["job"],
        hidden=hidden,
        estimation="exact",
        random_state=0,
    ).fit(table, (score > score.median()).to_numpy().astype(int))
    found = clf.certify(table[:40], store=tmp_path / "run")
    assert found.alpha == 0
    assert "'town'" in found.threat
    assert_same(Certificates.from_store(tmp_path / "run"), found)
    votes = clf.set_params(n_samples=4000).count_votes(table[:40])
    counts = votes.estimation[np.arange(40), np.searchsorted(clf.classes_, found.labels)]
    assert (binom.sf(counts - 1, 4000, 1 - found.p_b) > 1e-7).all()
    assert (binom.cdf(counts, 4000, found.p_a) > 1e-7).all()
    assert (found.p_a < 0.9).any()


# Stores


def test_a_store_holds_exact_probabilities(cancer, tmp_path):
    clf, X, y = cancer
    path, expected = tmp_path / "run", clf.certify(X)
    calls = []

    bounds = exact.ExactVotes.bounds

    def counted(self, inputs):
        calls.append(len(inputs))
        if sum(calls) > 120:
            raise KeyboardInterrupt
        return bounds(self, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact.ExactVotes, "bounds", counted)
        with pytest.raises(KeyboardInterrupt):
            clf.certify(X, store=path, y=y)
    partial = Certificates.from_store(path, partial=True)
    assert 0 < len(partial) < len(X)
    assert_same(partial, expected[: len(partial)])
    assert_same(clf.certify(X, store=path), expected)
    calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact.ExactVotes, "bounds", lambda self, X: calls.append(len(X)) or bounds(self, X))
        assert_same(clf.certify(X, store=path), expected)
    assert sum(calls) <= 128
    stored = Certificates.from_store(path)
    assert_same(stored, expected)
    assert (stored.alpha, stored.threat) == (0.0, expected.threat)
    for radius in ("lipschitz", "box"):
        certified = clone(clf).set_params(radius=radius).fit(X, y)
        certified.estimator_, certified.box_ = clf.estimator_, clf.box_
        assert_same(Certificates.from_store(path, radius=radius), certified.certify(X))
    assert_same(Certificates.from_store(path, scheme="binary", X=X), expected)
    with pytest.raises(ValueError, match="exact probabilities and no votes"):
        VoteCounts.from_store(path)


def test_greedy_radii_of_a_store_without_inputs(tmp_path):
    """Probabilities of 1 have the largest budget: the store keeps the reaches that it needs."""
    rng = np.random.default_rng(0)
    X = rng.random((40, 60))
    clf = SmoothedClassifier(DecisionTreeClassifier(), SplitNoise(8.0)).fit(X, np.arange(40) % 2)
    clf.estimator_.tree_.value[:, :, 0], clf.estimator_.tree_.value[:, :, 1] = 1.0, 0.0
    found = clf.certify(X, store=tmp_path / "run")
    assert (found.p_a > 1 - 1e-12).all()
    assert np.isfinite(found.radii).all()
    assert_same(Certificates.from_store(tmp_path / "run"), found)


def test_stores_of_another_kind_are_refused(cancer, tmp_path):
    clf, X, y = cancer
    X = X[:5]
    clf.set_params(n_samples=100)
    clf.certify(X, store=tmp_path / "exact")
    with pytest.raises(StoreError, match="estimation: 'exact', 'sample'"):
        clf.set_params(estimation="sample").certify(X, store=tmp_path / "exact")
    clf.certify(X, store=tmp_path / "sample")
    with pytest.raises(StoreError, match="estimation: 'sample', 'exact'"):
        clf.set_params(estimation="auto").certify(X, store=tmp_path / "sample")
    clf.set_params(n_samples=10_000)
    other = AdaBoostClassifier(n_estimators=3, random_state=1).fit(cancer[1], y)
    changed = SmoothedClassifier.from_pretrained(
        other, [0, 1], SplitNoise(0.8), bounds=(clf.box_.lo, clf.box_.hi), n_samples=100
    )
    with pytest.raises(ValueError, match="different model"):
        changed.certify(X, store=tmp_path / "exact")


def test_stores_of_earlier_versions_hold_votes():
    clf, X, _ = tiny(SplitNoise(0.5, levels=4), estimation="sample")
    algorithm = clf.algorithm((2,))
    run = RunMetadata.of(clf.open_inputs(X), algorithm, algorithm.sampler(0), fixed_seed=True)
    del run.parameters["estimation"]
    assert RunMetadata.from_row(run.to_row()).parameters["estimation"] == "sample"


# What is done with certificates


def test_results_without_votes(cancer, tmp_path):
    clf, X, y = cancer
    found = clf.certify(X)
    assert "alpha=0)" in repr(found)
    assert "0 votes each on average, alpha=0)" in repr(clf.certify_at(X, 0.2))
    assert repr(found.summary(y, [0, 0.5])).endswith("against every perturbation, alpha=0")
    assert (found.to_frame()["n_samples"] == 0).all()
    found.save(tmp_path / "found.npz")
    assert_same(Certificates.load(tmp_path / "found.npz"), found)
    audit = found.verify(clf, X, fraction=0.1, n_samples=2000, random_state=1)
    assert audit.consistent
    assert audit.alpha == 0


def test_an_audit_contradicts_false_probabilities(cancer):
    clf, X, _ = cancer
    found = clf.certify(X)
    liar = Certificates(
        **{name: getattr(found, name) for name in ("labels", "abstained", "norm", "n_samples")},
        radii=found.radii,
        p_a=np.minimum(found.p_a + 0.1, 1),
        p_b=np.maximum(found.p_b - 0.1, 0),
        alpha=0.0,
    )
    assert not liar.verify(clf, X, fraction=0.2, n_samples=2000, random_state=1).consistent


def test_votes_certify_more_than_the_truth_as_rarely_as_alpha_says():
    X, y = load_breast_cancer(return_X_y=True)
    base = DecisionTreeClassifier(max_leaf_nodes=20, random_state=0)
    clf = SmoothedClassifier(base, SplitNoise(0.8), bounds="minmax", alpha=0.05, random_state=0).fit(X[::2], y[::2])
    truth, drawn = clf.certify(X[1::2]), clf.set_params(estimation="sample").certify(X[1::2])
    assert truth.n_samples.sum() == 0
    assert drawn.n_samples.min() == 10_000
    false = np.nan_to_num(drawn.radii, nan=-1) > np.nan_to_num(truth.radii, nan=-1)
    assert false.sum() <= binom.isf(1e-6, len(false), clf.alpha)
    assert np.nanmedian(truth.radii - drawn.radii) > 0.001
