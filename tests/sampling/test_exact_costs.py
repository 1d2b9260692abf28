"""Exact probabilities where features have different costs, and some are fixed."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from smoothcert import Certificates, SmoothedClassifier
from smoothcert.models.adapt import make_voter
from smoothcert.models.columns import Columns
from smoothcert.noise import Box, GaussianNoise, SplitNoise, UniformMixtureNoise, UniformNoise, seeding
from smoothcert.noise._philox import apply_offsets
from smoothcert.noise.categories import CategoryNoise
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.sampling import _axis_cells, _trees, exact
from smoothcert.sampling._axis_cells import code_counts
from smoothcert.sampling._outcome_sums import LeafSum, ScoreSum
from smoothcert.sampling.exact import ExactVotes, NotExactError
from smoothcert.sampling.sampler import count

from .test_exact import assert_inside

#: The second feature is fixed, and its bounds do not count.
COSTS = [2.0, "fixed", 0.5, 1.0]
BOX = Box(np.array([-0.1, 5.0, 1e-3, 0.0]), np.array([0.2, 6.0, 7.0, 1.0]))

NOISES = [
    UniformNoise(0.75, levels=4),
    SplitNoise(0.5, levels=4),
    SplitNoise(1.0, levels=4),
    UniformMixtureNoise([0.5, 0.75], [0.3, 0.7], levels=4),
]

#: What steps do to fixed columns does not matter.
ENCODED = ColumnTransformer(
    [
        ("one-hot", OneHotEncoder(handle_unknown="ignore"), [1]),
        ("mixed", PCA(1), [1, 1]),
        ("numbers", StandardScaler(), [3, 0]),
        ("bins", KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"), [2]),
    ],
    sparse_threshold=1.0,
)

MODELS = {
    "tree": (DecisionTreeClassifier(max_leaf_nodes=12, random_state=0), LeafSum),
    "ada": (AdaBoostClassifier(n_estimators=15, random_state=0), ScoreSum),
    "gradient": (GradientBoostingClassifier(n_estimators=15, max_depth=1, learning_rate=0.5, random_state=0), ScoreSum),
    "hist": (HistGradientBoostingClassifier(max_iter=15, max_depth=1, learning_rate=0.5, min_samples_leaf=5), ScoreSum),
    "encoded": (make_pipeline(ENCODED, DecisionTreeClassifier(max_leaf_nodes=12, random_state=0)), LeafSum),
}


def problem(noise, n=200, seed=0):
    """A mechanism, and labeled inputs that depend on all features."""
    rng = np.random.default_rng(seed)
    mechanism = NoiseMechanism(BOX, noise, (4,), Features.from_costs(COSTS))
    q = min(getattr(noise, "q", 4), 4)
    X = BOX.lo + BOX.width * rng.integers(0, q + 1, (n, 4)) / q
    X[:, 1] = rng.integers(-3, 3, n)
    score = ((X - BOX.lo) / BOX.width)[:, [0, 2, 3]] @ [1.5, 1, 1] + X[:, 1] / 5
    return mechanism, X, (score + 0.1 * rng.normal(size=n) > np.median(score)).astype(int)


def trained(model, mechanism, X, y):
    return model.fit(mechanism.noisy(np.repeat(X, 3, axis=0), np.random.default_rng(1)), np.repeat(y, 3))


def enumerated(model, mechanism, x):
    """The probability of class 1: all offsets of the noisy features, by the noise of each."""
    total, costs = 0.0, [cost for cost in COSTS if cost != "fixed"]
    noise = mechanism.noise
    mixture = isinstance(noise, UniformMixtureNoise)
    for weight, part in zip(noise.weights, noise.parts, strict=True) if mixture else [(1.0, noise)]:
        recipes = [part.for_cost(cost).recipe for cost in costs]
        offsets = np.array(list(itertools.product(*[range(recipe.n_offsets) for recipe in recipes])))
        rows = np.empty((len(offsets), 4))
        rows[:, 1] = x[1]
        for column, recipe, place in zip((0, 2, 3), recipes, offsets.T, strict=True):
            point = np.rint((x[column] - BOX.lo[column]) / BOX.width[column] * recipe.q).astype(np.int64)
            noisy = np.empty(len(place))
            apply_offsets(recipe, point, place, noisy)
            rows[:, column] = noisy * BOX.width[column] + BOX.lo[column]
        total += weight * np.mean(model.predict(rows))
    return total


@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("name", MODELS)
def test_all_outcomes_at_costs(name, noise):
    model, kernel = MODELS[name]
    mechanism, X, y = problem(noise)
    model = trained(model, mechanism, X, y)
    votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
    assert isinstance(votes.outcome_sum, kernel)
    X = X[:25]
    lower, upper = votes.bounds(X)
    truth = np.array([enumerated(model, mechanism, x) for x in X])
    assert_inside(np.stack([1 - truth, truth], axis=1), lower, upper)
    assert np.max(upper - lower) < (1e-14 if kernel is LeafSum else 1e-3)
    assert ((truth > 0) & (truth < 1)).any()
    # The fixed feature decides too.
    changed = X.copy()
    changed[:, 1] = np.where(X[:, 1] > 0, -3.0, 2.0)
    assert (np.abs(votes.bounds(changed)[0] - lower) > 0.01).any()


@pytest.mark.parametrize("name", ["tree", "gradient", "encoded"])
def test_votes_at_costs_agree(name):
    mechanism, X, y = problem(SplitNoise(0.6))
    voter, n = make_voter(trained(MODELS[name][0], mechanism, X, y), np.array([0, 1])), 20_000
    lower, upper = ExactVotes(voter, mechanism).bounds(X[:8])
    keys = seeding.keys(1, np.arange(128, dtype=np.uint8).reshape(8, 16), seeding.ESTIMATION)
    counts = count(voter, mechanism, mechanism.points(X[:8]), keys, n, 2**13)
    low = np.where(counts == 0, 0.0, beta.ppf(5e-7, counts, n - counts + 1))
    high = np.where(counts == n, 1.0, beta.ppf(1 - 5e-7, counts + 1, n - counts))
    assert (low <= upper).all()
    assert (lower <= high).all()
    assert (lower.max(axis=1) < 0.999).any()


def test_one_cost_for_all_features():
    """Noise of cost 2 is noise of half the width."""
    _, X, y = problem(SplitNoise(1.0))
    X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    voter, box = make_voter(DecisionTreeClassifier().fit(X, y), np.array([0, 1])), Box.from_bounds((0, 1))
    at_costs = NoiseMechanism(box, SplitNoise(1.0), (4,), Features.from_costs(2.0))
    narrow = NoiseMechanism(box, SplitNoise(0.5), (4,))
    bounds = [ExactVotes(voter, mechanism).bounds(X[:9]) for mechanism in (at_costs, narrow)]
    np.testing.assert_array_equal(*bounds)


def test_everything_is_fixed():
    _, X, y = problem(SplitNoise(1.0))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (4,), Features.from_costs("fixed"))
    model = DecisionTreeClassifier().fit(X, y)
    lower, upper = ExactVotes(make_voter(model, np.array([0, 1])), mechanism).bounds(X)
    np.testing.assert_allclose(lower, np.eye(2)[model.predict(X)], atol=1e-14)
    np.testing.assert_allclose(upper, lower, atol=1e-14)


def takes_missing_values(name):
    """A model of a library that may not be installed."""
    if name in ("tree", "hist"):
        return clone(MODELS[name][0])
    kind = {"lightgbm": "LGBMClassifier", "xgboost": "XGBClassifier"}[name]
    return getattr(pytest.importorskip(name), kind)(max_depth=1, n_estimators=15, learning_rate=0.5, n_jobs=1)


@pytest.mark.parametrize("seen", [True, False], ids=["seen in training", "not seen"])
@pytest.mark.parametrize("low", [True, False], ids=["like low values", "like high values"])
@pytest.mark.parametrize("name", ["tree", "hist", "lightgbm", "xgboost"])
def test_missing_values_of_fixed_columns_go_the_way_that_each_split_has_learned(name, low, seen):
    mechanism, X, y = problem(SplitNoise(1.0, levels=4))
    missing = (X[:, 1] < -1) if low else X[:, 1] > 0
    missing &= np.arange(len(X)) % 2 == 0
    given = X.copy()
    given[missing, 1] = np.nan
    model = trained(takes_missing_values(name), mechanism, given if seen else X, y)
    if not seen and name == "tree":
        pytest.skip("This tree refuses missing values.")
    votes = ExactVotes(make_voter(model, np.array([0, 1]), finite=False), mechanism)
    chosen = given[np.append(np.flatnonzero(missing)[:8], np.flatnonzero(~missing)[:8])]
    lower, upper = votes.bounds(chosen)
    truth = np.array([enumerated(model, mechanism, x) for x in chosen])
    assert_inside(np.stack([1 - truth, truth], axis=1), lower, upper)
    assert np.max(upper - lower) < 1e-3
    assert len(np.unique(truth)) > 4


def test_a_wrong_way_of_missing_values_is_noticed(monkeypatch):
    mechanism, X, y = problem(SplitNoise(1.0, levels=4))
    X[(X[:, 1] < -1), 1] = np.nan
    model = trained(takes_missing_values("tree"), mechanism, X, y)

    def mistaken(tree, value):
        return right(tree, value)._replace(missing_left=np.zeros(tree.node_count, dtype=bool))

    right = _trees._tree
    monkeypatch.setattr(_trees, "_tree", mistaken)
    votes = ExactVotes(make_voter(model, np.array([0, 1]), finite=False), mechanism)
    with pytest.raises(NotExactError, match="that votes as its trees say"):
        votes.bounds(X[np.isnan(X[:, 1])][:1])


def test_scalers_that_write_into_their_input_change_no_inputs():
    mechanism, X, y = problem(SplitNoise(1.0))
    model = trained(make_pipeline(StandardScaler(copy=False), MODELS["tree"][0]), mechanism, X, y)
    before = X.copy()
    ExactVotes(make_voter(model, np.array([0, 1])), mechanism).bounds(X)
    np.testing.assert_array_equal(X, before)


# Categories: the second feature has three of them, and the fourth has two

N_CATEGORIES = np.array([0, 3, 0, 2])

CATEGORICAL = {
    "codes": DecisionTreeClassifier(max_leaf_nodes=25, random_state=0),
    "one-hot": make_pipeline(
        ColumnTransformer([("one-hot", OneHotEncoder(), [3, 1]), ("numbers", StandardScaler(), [2, 0])]),
        DecisionTreeClassifier(max_leaf_nodes=25, random_state=0),
    ),
    "stumps": make_pipeline(
        ColumnTransformer(
            [("one-hot", OneHotEncoder(drop="first"), [1, 3])], remainder="passthrough", sparse_threshold=1.0
        ),
        GradientBoostingClassifier(n_estimators=30, max_depth=1, learning_rate=0.5, random_state=0),
    ),
    "ordinal": make_pipeline(
        ColumnTransformer([("codes", OrdinalEncoder(categories=[[0, 1, 2, 3], [0, 1, 2]]), [1, 3])]),
        AdaBoostClassifier(n_estimators=20, random_state=0),
    ),
}


def categorical_problem(noise, hidden, n=300):
    """A mechanism with categories, and labeled inputs that depend on all features."""
    rng = np.random.default_rng(0)
    features = Features.from_costs([2.0, 0.75, 1.0, 0.5], n_categories=N_CATEGORIES, hidden=hidden)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (4,), features)
    X = rng.integers(0, 5, (n, 4)) / 4
    X[:, 1], X[:, 3] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    score = X[:, 0] + X[:, 2] + np.array([0.0, 1.0, 0.3])[X[:, 1].astype(int)] + 0.7 * X[:, 3]
    return mechanism, X, (score + 0.1 * rng.normal(size=n) > np.median(score)).astype(int)


def enumerated_with_categories(model, mechanism, x):
    """The probability of class 1: all offsets of all features."""
    total, noise = 0.0, mechanism.noise
    mixture = isinstance(noise, UniformMixtureNoise)
    for weight, part in zip(noise.weights, noise.parts, strict=True) if mixture else [(1.0, noise)]:
        axes = []
        for i, cost in enumerate(mechanism.features.costs.tolist()):
            recipe, n = part.for_cost(1.0 if N_CATEGORIES[i] else cost).recipe, N_CATEGORIES[i]
            if n:
                shown = min(math.floor(cost * part.q), recipe.n_offsets)
                hidden = [
                    n if mechanism.features.hidden == "mask" else (j - shown) % n for j in range(recipe.n_offsets)
                ]
                axes.append([x[i] if j < shown else hidden[j] for j in range(recipe.n_offsets)])
                continue
            noisy = np.empty(recipe.n_offsets)
            apply_offsets(recipe, np.int64(round(x[i] * part.q)), np.arange(recipe.n_offsets), noisy)
            axes.append(noisy.tolist())
        total += weight * np.mean(model.predict(np.array(list(itertools.product(*axes)), dtype=float)))
    return total


@pytest.mark.parametrize("hidden", ["mask", "uniform"])
@pytest.mark.parametrize("noise", [*NOISES[2:], UniformNoise(0.8, levels=4)], ids=repr)
@pytest.mark.parametrize("name", CATEGORICAL)
def test_all_outcomes_of_categories(name, noise, hidden):
    mechanism, X, y = categorical_problem(noise, hidden)
    model = trained(CATEGORICAL[name], mechanism, X, y)
    votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
    X = X[:12]
    lower, upper = votes.bounds(X)
    truth = np.array([enumerated_with_categories(model, mechanism, x) for x in X])
    assert_inside(np.stack([1 - truth, truth], axis=1), lower, upper)
    assert np.max(upper - lower) < (1e-3 if isinstance(votes.outcome_sum, ScoreSum) else 1e-14)
    assert ((truth > 0) & (truth < 1)).any()
    changed = X.copy()
    changed[:, 1] = (X[:, 1] + 1) % 3
    assert (np.abs(votes.bounds(changed)[0] - lower) > 0.01).any()


def test_encoded_categories_that_are_missing_for_the_tree():
    """A tree sends missing values to either side, which its thresholds do not tell."""
    mechanism, X, y = categorical_problem(SplitNoise(1.0, levels=4), "uniform")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, categories=[[0, 1], [0, 1]])
    steps = ColumnTransformer([("codes", encoder, [1, 3])], remainder="passthrough")
    model = trained(make_pipeline(steps, DecisionTreeClassifier(max_leaf_nodes=25, random_state=0)), mechanism, X, y)
    with pytest.raises(NotExactError, match="categories that the steps encode as numbers"):
        ExactVotes(make_voter(model, np.array([0, 1])), mechanism)


@pytest.mark.parametrize("name", ["one-hot", "stumps"])
def test_categories_that_are_never_hidden(name):
    """The mask, which the encoder has not met, is not asked about."""
    mechanism, X, y = categorical_problem(UniformNoise(0.3, levels=4), "mask")
    model = trained(CATEGORICAL[name], mechanism, X, y)
    lower, upper = ExactVotes(make_voter(model, np.array([0, 1])), mechanism).bounds(X[:12])
    truth = np.array([enumerated_with_categories(model, mechanism, x) for x in X[:12]])
    assert_inside(np.stack([1 - truth, truth], axis=1), lower, upper)
    np.testing.assert_allclose(lower, upper, atol=1e-3)


def test_the_codes_that_the_model_sees():
    """Counts of codes are those of all offsets."""
    for hidden, noise in itertools.product(
        ["mask", "uniform"], [UniformNoise(0.8, levels=4), UniformNoise(2, levels=5)]
    ):
        one = CategoryNoise(noise, np.array([0]), np.array([0.75]), np.array([3]), hidden)
        seen = one.at_offsets(
            np.repeat(np.arange(3), one.n_offsets)[:, None], np.tile(np.arange(one.n_offsets), 3)[:, None]
        )
        expected = [np.bincount(codes, minlength=3 + (hidden == "mask")) for codes in seen.reshape(3, -1)]
        np.testing.assert_array_equal(code_counts(one, 0, np.arange(3)), expected)


def test_a_tree_with_too_many_parts(monkeypatch):
    monkeypatch.setattr(_axis_cells, "MOST_LEAVES", 20)
    mechanism, X, y = categorical_problem(NOISES[2], "mask")
    model = trained(CATEGORICAL["one-hot"], mechanism, X, y)
    with pytest.raises(NotExactError, match="fewer than 20 parts"):
        ExactVotes(make_voter(model, np.array([0, 1])), mechanism)


@pytest.mark.parametrize(
    "step",
    [
        ColumnTransformer([("one-hot", OneHotEncoder(), [0])], remainder="passthrough"),
        ColumnTransformer([("both", PCA(1), [1, 2])], remainder="passthrough"),
        PCA(2),
    ],
    ids=["one-hot", "both", "all"],
)
def test_steps_on_noisy_columns(step):
    mechanism, X, y = problem(UniformNoise(0.75, levels=4))
    model = trained(make_pipeline(step, DecisionTreeClassifier()), mechanism, X, y)
    with pytest.raises(NotExactError, match="each noisy column by an increasing function"):
        ExactVotes(make_voter(model, np.array([0, 1])), mechanism)


def test_gaussian_noise_at_costs():
    mechanism, X, y = problem(GaussianNoise(0.5))
    with pytest.raises(NotExactError, match="GaussianNoise"):
        ExactVotes(make_voter(trained(DecisionTreeClassifier(), mechanism, X, y), np.array([0, 1])), mechanism)


def test_fixed_columns_of_any_type():
    """Fixed strings reach the base model as they are."""
    mechanism, X, y = problem(SplitNoise(1.0, levels=4))
    words = np.array(["a", "b", "c", "d", "e", "f"])
    table = pd.DataFrame({"x": X[:, 0], "word": words[X[:, 1].astype(int) + 3], "y": X[:, 2], "z": X[:, 3]})
    fixed = np.array([False, True, False, False])
    columns = Columns.learn(table, fixed=fixed, categorical=np.zeros(4, dtype=bool), missing="error")
    steps = ColumnTransformer([("word", OneHotEncoder(), ["word"]), ("rest", StandardScaler(), ["z", "x", "y"])])
    model = make_pipeline(steps, DecisionTreeClassifier(max_leaf_nodes=12, random_state=0)).fit(table, y)
    coded = columns.encode(table)
    lower, upper = ExactVotes(make_voter(model, np.array([0, 1]), columns=columns), mechanism).bounds(coded[:8])
    noisy = mechanism.noisy(np.repeat(coded[:8], 4000, axis=0), np.random.default_rng(0))
    shares = model.predict(columns.frame(noisy)).reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(lower[:, 1], shares, atol=5 * 0.5 / math.sqrt(4000))
    np.testing.assert_allclose(lower, upper, atol=1e-14)
    assert ((lower[:, 1] > 0.05) & (lower[:, 1] < 0.95)).any()


def test_certificates_at_costs(tmp_path):
    _, X, y = problem(SplitNoise(1.0))
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    bounds = dict(zip("acd", zip(BOX.lo[[0, 2, 3]], BOX.hi[[0, 2, 3]], strict=True), strict=True))
    clf = SmoothedClassifier(
        DecisionTreeClassifier(max_leaf_nodes=12, random_state=0),
        SplitNoise(1.0),
        bounds=bounds,
        costs={"a": 2.0, "b": "fixed", "c": 0.5},
        estimation="exact",
        n_samples=2000,
        random_state=0,
    ).fit(table, y)
    found = clf.certify(table[:40], store=tmp_path / "run")
    assert found.alpha == 0
    assert "'b'" in found.threat
    np.testing.assert_array_equal(Certificates.from_store(tmp_path / "run").radii, found.radii)
    sampled = clf.set_params(estimation="sample").certify(table[:40])
    assert sampled.threat == found.threat
    assert (sampled.p_a <= found.p_a + 1e-9).mean() > 0.95
    assert np.abs(sampled.p_a - found.p_a).max() < 0.15
    assert (found.radii > 0.3).any()


def test_a_forgotten_cost_is_noticed(monkeypatch):
    """The probability at costs is not that of noise of one width for all features."""
    mechanism, X, y = problem(UniformNoise(0.75, levels=4))
    model = trained(MODELS["tree"][0], mechanism, X, y)
    voter, groups = make_voter(model, np.array([0, 1])), exact._groups

    def forgotten(noise, mechanism):
        return [(columns, mechanism.noise.recipe) for columns, _ in groups(noise, mechanism)]

    right = ExactVotes(voter, mechanism).bounds(X[:8])[0]
    monkeypatch.setattr(exact, "_groups", forgotten)
    assert np.abs(ExactVotes(voter, mechanism).bounds(X[:8])[0] - right).max() > 0.01
