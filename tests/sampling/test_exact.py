"""Exact probabilities: against all outcomes of small lattices, and against votes."""

import math

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from smoothcert.models.adapt import make_voter
from smoothcert.noise import (
    Box,
    DeterministicSplitNoise,
    GaussianNoise,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
    seeding,
)
from smoothcert.noise._philox import SPLIT, UNIFORM, OffsetRecipe, apply_offsets
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling import exact
from smoothcert.sampling._axis_cells import count_up_to
from smoothcert.sampling._outcome_sums import LeafSum, ScoreSum, VoteTable, _center
from smoothcert.sampling._trees import Tree, read
from smoothcert.sampling.exact import ExactVotes, NotExactError, exact_votes
from smoothcert.sampling.sampler import count
from tests.base_models import all_offsets

SMALL_NOISES = [
    UniformNoise(0.5, levels=4),
    UniformNoise(0.7, levels=4),
    SplitNoise(1.0, levels=4),
    SplitNoise(0.5, levels=4),
    SplitNoise(0.4, levels=4),
    UniformMixtureNoise([0.25, 0.7], [0.3, 0.7], levels=4),
]

MODELS = {
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "shallow": lambda: DecisionTreeClassifier(max_depth=2),
    "ada": lambda: AdaBoostClassifier(n_estimators=20, random_state=0),
    "gradient": lambda: GradientBoostingClassifier(n_estimators=20, max_depth=1, random_state=0),
    "exponential": lambda: GradientBoostingClassifier(
        n_estimators=20, max_depth=1, loss="exponential", init="zero", random_state=0
    ),
    "hist": lambda: HistGradientBoostingClassifier(max_iter=20, max_depth=1, min_samples_leaf=5),
    "standard": lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)),
    "chain": lambda: make_pipeline(
        MinMaxScaler((-3, 0.1)), "passthrough", RobustScaler(), MaxAbsScaler(), AdaBoostClassifier(n_estimators=20)
    ),
}

#: All features are numbers, none is a category.
NUMBERS = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)

#: Raw boxes in which float32 and float64 differ, and the unit box.
BOXES = [Box.from_bounds((0, 1)), Box(np.array([-0.1, 100.0, 1e-3]), np.array([0.2, 100.7, 7.0]))]


def mechanism_of(noise, box, d=3):
    if box.lo.ndim:
        box = Box(box.lo[:d], box.hi[:d])
    return NoiseMechanism(box, noise, (d,))


def lattice_inputs(mechanism, n, seed=0):
    rng, noise = np.random.default_rng(seed), mechanism.noise
    return mechanism.box.lo + mechanism.box.width * rng.integers(0, noise.q + 1, (n, mechanism.n_features)) / noise.q


def labeled_inputs(mechanism, n_classes=2, n=120, seed=0):
    """Inputs with labels that depend on all features."""
    X = lattice_inputs(mechanism, n, seed)
    unit = (X - mechanism.box.lo) / mechanism.box.width
    order = np.argsort(unit @ np.arange(2, X.shape[1] + 2) + np.arange(n) % 3 / 3)
    y = np.empty(n, dtype=int)
    y[order] = (np.arange(n) / n) ** 1.3 * n_classes
    return X, y


def fitted(name, mechanism, n_classes=2, n=120, seed=0):
    """A model that is fitted to noisy inputs."""
    X, y = labeled_inputs(mechanism, n_classes, n, seed)
    return MODELS[name]().fit(mechanism.noisy(X, np.random.default_rng(seed)), y)


def raw_outcomes(mechanism, recipe, x):
    """Every noisy value of an input as the base model gets it, one row for each offset of all features."""
    offsets = np.stack(np.meshgrid(*[np.arange(recipe.n_offsets)] * len(x), indexing="ij"), axis=-1).reshape(-1, len(x))
    out = np.empty(offsets.shape)
    apply_offsets(recipe, mechanism.points(x[None])[0], offsets, out)
    mechanism.box.to_raw_inplace(out)
    return out


def enumerated(model, mechanism, X, classes):
    """The probabilities of the classes, by asking the model about every outcome."""
    result = np.zeros((len(X), len(classes)))
    for weight, [(_, recipe)], _ in exact.noise_parts(mechanism):
        for i, x in enumerate(X):
            votes = model.predict(raw_outcomes(mechanism, recipe, x))
            result[i] += weight * np.array([np.mean(votes == label) for label in classes])
    return result


def assert_inside(truth, lower, upper):
    # The mean of many ones and zeros is rounded too.
    assert (lower <= truth + 1e-16).all()
    assert (truth - 1e-16 <= upper).all()


def assert_exact(model, mechanism, X, classes):
    lower, upper = exact_votes(model, mechanism, X, classes)
    truth = enumerated(model, mechanism, X, classes)
    assert_inside(truth, lower, upper)
    np.testing.assert_allclose(lower, truth, rtol=0, atol=1e-14)
    np.testing.assert_allclose(upper, truth, rtol=0, atol=1e-14)
    return truth


@pytest.mark.parametrize(
    ("noise", "box"), [*((noise, BOXES[1]) for noise in SMALL_NOISES), (SMALL_NOISES[0], BOXES[0])], ids=repr
)
@pytest.mark.parametrize("name", MODELS)
def test_all_outcomes_of_a_small_lattice(name, noise, box):
    mechanism = mechanism_of(noise, box)
    model = fitted(name, mechanism)
    truth = assert_exact(model, mechanism, lattice_inputs(mechanism, 5, seed=1), [0, 1])
    assert (np.min(truth, axis=1) > 0).any()


@pytest.mark.parametrize("name", ["tree", "ada", "gradient", "hist"])
def test_more_than_two_classes(name):
    mechanism = mechanism_of(SplitNoise(0.75, levels=4), BOXES[1], d=2)
    model = fitted(name, mechanism, n_classes=4)
    truth = assert_exact(model, mechanism, lattice_inputs(mechanism, 8), [0, 1, 2, 3])
    assert (truth.max(axis=0) > 0.1).sum() >= 3


@pytest.mark.parametrize("offset", [0, 2, 5])
@pytest.mark.parametrize("noise", SMALL_NOISES, ids=repr)
@pytest.mark.parametrize("name", ["shallow", "hist", "standard"])
def test_thresholds_that_noisy_values_meet(name, noise, offset):
    """Thresholds equal noisy values, as rounded by the model, or lie between a noisy value and its rounded one."""
    mechanism = mechanism_of(noise, BOXES[1])
    model, X = fitted(name, mechanism), lattice_inputs(mechanism, 3, seed=2)
    last = model[-1] if name == "standard" else model
    if name == "hist":
        root = last._predictors[0][0].nodes[:1]
        feature, threshold = root["feature_idx"][0], root["num_threshold"]
    else:
        feature, threshold = last.tree_.feature[0], last.tree_.threshold
    for _, [(_, recipe)], _ in exact.noise_parts(mechanism):
        values = raw_outcomes(mechanism, recipe, X[0])
        values = np.unique((model[0].transform(values) if name == "standard" else values)[:, feature])
        value = values[offset % len(values)]
        for met in (value, np.float32(value)):
            threshold[0] = met
            assert read(model, *NUMBERS).trees[0].threshold[0] == met
            assert_exact(model, mechanism, X, [0, 1])


@pytest.mark.parametrize("kind", [UNIFORM, SPLIT])
@pytest.mark.parametrize("n_offsets", [1, 2, 3, 4, 5, 7, 8, 13])
def test_counts_of_offsets(kind, n_offsets):
    q = 5
    recipe, offsets = OffsetRecipe(kind, n_offsets, q), np.arange(n_offsets)
    for x in range(q + 1):
        noisy = np.empty(n_offsets)
        apply_offsets(recipe, np.array(x), offsets, noisy)
        limits = np.concatenate([noisy, np.nextafter(noisy, -9), np.nextafter(noisy, 9), [-9.0, 9.0]])
        counts = count_up_to(recipe, np.full((1, len(limits)), x), limits)
        np.testing.assert_array_equal(counts[0], (noisy <= limits[:, None]).sum(axis=1))


@pytest.mark.parametrize("noise", [UniformNoise(0.7), UniformNoise(1.3, levels=255), SplitNoise(0.3), SplitNoise(2.1)])
def test_noisy_values_are_rounded_quarter_steps(noise):
    """Thresholds are moved to such values."""
    points, noisy = np.arange(50)[:, None] * (noise.q // 50), np.empty((50, 400))
    apply_offsets(noise.recipe, points, np.random.default_rng(0).integers(noise.n_offsets, size=noisy.shape), noisy)
    np.testing.assert_array_equal(noisy, np.rint(noisy * 4 * noise.q) * (0.25 / noise.q))


@pytest.mark.parametrize("noise", [UniformNoise(0.5, levels=4), SplitNoise(0.75, levels=4), SMALL_NOISES[-1]], ids=repr)
@pytest.mark.parametrize("name", ["ada", "gradient", "exponential", "hist"])
def test_sums_on_a_grid(name, noise, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(noise, BOXES[1])
    model, X = fitted(name, mechanism), lattice_inputs(mechanism, 4, seed=1)
    truth = enumerated(model, mechanism, X, [0, 1])
    for n_cells in (3, 10, 30, 100, 1000, 10**5):
        monkeypatch.setattr(exact, "GRID_CELLS", n_cells)
        monkeypatch.setattr(exact, "FINE_GRID_CELLS", n_cells)
        votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
        assert isinstance(votes.outcome_sum, ScoreSum)
        lower, upper = votes.bounds(X)
        assert_inside(truth, lower, upper)
    assert np.max(upper - lower) < 1e-3
    assert 0.1 < truth[:, 0].mean() < 0.9


@pytest.mark.parametrize("seed", range(5))
def test_sums_on_coarse_grids(seed):
    """Bounds hold where rounding to the grid is most of the score, and bounds on its errors are needed."""
    rng = np.random.default_rng(seed)
    wide = 0
    for _ in range(100):
        sizes = rng.integers(2, 5, size=3)
        scores = [rng.normal(size=size) for size in sizes]
        constant = rng.normal()
        edges = [np.concatenate([[0], np.sort(rng.integers(0, 9, size - 1)), [8]]) for size in sizes]
        shares = math.prod(np.ix_(*[np.diff(edge) / 8 for edge in edges]))
        truth = np.sum(shares[constant + sum(np.ix_(*scores)) > 0])
        total = ScoreSum(scores, constant, 1e-12, np.array([0, 1]), 2, int(rng.integers(2, 30)))
        lower, upper = total.bounds(np.concatenate(edges))
        assert_inside(np.array([1 - truth, truth]), lower, upper)
        wide += upper[0] - lower[0] > 0.01
    assert 10 < wide < 90


def test_rounding_errors_of_one_sign_leave_no_gap():
    """The step is 1, so .9 is rounded; the errors of .9 and of whole numbers differ by .1 and no more."""
    numbers, edges = np.array([0.0, 0.9, 2.0]), np.array([0, 1, 2, 4] * 2)
    for sign in (1, -1):
        total = ScoreSum([sign * numbers] * 2, -sign * 1.3, 1e-12, np.array([0, 1]), 2, 4)
        lower, upper = total.bounds(edges)
        np.testing.assert_allclose(lower, upper, atol=1e-9)
        np.testing.assert_allclose(lower[::sign], [3 / 16, 13 / 16], atol=1e-9)


def test_rounding_errors_have_the_smallest_spread():
    rng = np.random.default_rng(0)

    def spread(numbers, center):
        return np.ptp(numbers - np.rint(numbers - center))

    for size in (1, 2, 3, 5):
        numbers = rng.normal(size=size) * 10
        least = min(spread(numbers, center) for center in np.linspace(0, 1, 500))
        assert spread(numbers, _center(numbers)) <= least + 1e-12


@pytest.mark.parametrize("name", ["gradient", "exponential", "hist"])
def test_the_slack_covers_the_summation_of_the_model(name, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(SplitNoise(0.5, levels=4), BOXES[1])
    model, X = fitted(name, mechanism), lattice_inputs(mechanism, 100)
    arrays = read(model, *NUMBERS)
    rows, terms = X.astype(arrays.real), [np.full(len(X), arrays.constant)]
    for tree in arrays.trees:
        left = rows[:, tree.feature[0]] <= tree.threshold[0]
        terms.append(np.where(left, tree.value[tree.left[0]], tree.value[tree.right[0]]))
    scores = np.array([math.fsum(column) for column in np.transpose(terms)])
    errors = np.abs(model.decision_function(X) - scores)
    slack = ExactVotes(make_voter(model, np.array([0, 1])), mechanism).outcome_sum.slack
    assert 0 < errors.max() < slack < 1e-12


def test_ties_of_a_grid_are_open():
    """Two stumps of equal weight tie on half of the outcomes: rounding cannot tell on which side of 0."""
    tied = ScoreSum([np.array([-0.3, 0.3])] * 2, 0.0, 1e-12, np.array([1, 0]), 2, 2**10)
    lower, upper = tied.bounds(np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_allclose([lower, upper], [[0.25, 0.25], [0.75, 0.75]], atol=1e-9)
    lower, upper = tied.bounds(np.array([0, 0, 2, 0, 1, 2]))
    np.testing.assert_allclose([lower, upper], [[0.5, 0], [1, 0.5]], atol=1e-9)
    nearly = ScoreSum([np.array([-0.3, 0.3]), np.array([-0.3, 0.3 + 1e-15])], 0.0, 1e-12, np.array([1, 0]), 2, 2**10)
    lower, upper = nearly.bounds(np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_allclose([lower, upper], [[0.25, 0.25], [0.75, 0.75]], atol=1e-9)


@pytest.mark.parametrize("constant", [-1e6, -1.0, 0.0, 1e6])
def test_a_constant_that_is_much_larger_than_the_steps(constant):
    numbers = np.array([1.0, 1 + 1e-13, 1 + 3e-13])
    steps = ScoreSum([numbers, numbers], constant, 1e-14, np.array([0, 1]), 2, 2**16)
    lower, upper = steps.bounds(np.array([0, 1, 2, 4, 0, 1, 2, 4]))
    np.testing.assert_allclose(lower, upper, atol=1e-9)
    np.testing.assert_allclose(lower, [1, 0] if constant == -1e6 else [0, 1], atol=1e-9)


@pytest.mark.parametrize("wide", [1.0, 0.1])
def test_some_inputs_get_a_finer_grid(wide, monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    monkeypatch.setattr(exact, "GRID_CELLS", 6)
    monkeypatch.setattr(exact, "WIDE_GAP", wide)
    mechanism = mechanism_of(UniformNoise(0.5, levels=4), BOXES[0])
    model, X = fitted("gradient", mechanism), lattice_inputs(mechanism, 50, seed=1)
    votes = ExactVotes(make_voter(model, np.array([0, 1])), mechanism)
    coarse = votes._bounds(mechanism.points(X), votes._below(X), votes.outcome_sum)
    gap = (coarse[1] - coarse[0]).max(axis=1)
    finer = (coarse[0].max(axis=1) <= 0.5) | (gap > wide)
    assert set(finer) == {False, True}
    assert (finer & (coarse[0].max(axis=1) > 0.5)).any() == (wide < 1)
    bounds = np.array(votes.bounds(X))
    np.testing.assert_array_equal(bounds[:, ~finer], np.array(coarse)[:, ~finer])
    assert (bounds[1] - bounds[0])[finer].max() < 1e-3


def problem(d=12, seed=0):
    X, y = make_classification(300, d, n_informative=d // 2, n_redundant=0, flip_y=0.05, random_state=seed)
    return X, y


LARGE = {
    "tree": (DecisionTreeClassifier(random_state=0), LeafSum),
    "ada": (AdaBoostClassifier(n_estimators=60), ScoreSum),
    "gradient": (make_pipeline(StandardScaler(), GradientBoostingClassifier(max_depth=1)), ScoreSum),
    "hist": (HistGradientBoostingClassifier(max_depth=1, max_iter=60), ScoreSum),
    "table": (AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=2, random_state=0), VoteTable),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("noise", [UniformNoise(0.4), SplitNoise(0.3), UniformMixtureNoise([0.1, 0.6])], ids=repr)
def test_votes_agree(noise, name, monkeypatch):
    """Intervals for the probability, from many votes at a level of 1e-6, meet the exact bounds."""
    X, y = problem(4 if name == "table" else 12)
    mechanism = NoiseMechanism(Box.from_bounds("minmax", X), noise, X.shape[1:])
    model, kernel = LARGE[name]
    monkeypatch.setattr(exact, "TABLE_CELLS", 100 if kernel is ScoreSum else 10_000)
    model = model.fit(mechanism.noisy(X, np.random.default_rng(0)), y)
    voter, chosen, n = make_voter(model, np.array([0, 1])), X[:3], 20_000
    votes = ExactVotes(voter, mechanism)
    assert isinstance(votes.outcome_sum, kernel)
    lower, upper = votes.bounds(chosen)
    assert np.max(upper - lower) < 0.005
    keys = seeding.keys(1, np.arange(48, dtype=np.uint8).reshape(3, 16), seeding.ESTIMATION)
    counts = count(voter, mechanism, mechanism.points(chosen), keys, n, 2**13)
    low = np.where(counts == 0, 0.0, beta.ppf(5e-7, counts, n - counts + 1))
    high = np.where(counts == n, 1.0, beta.ppf(1 - 5e-7, counts + 1, n - counts))
    assert (low <= upper).all()
    assert (lower <= high).all()
    assert (lower.max(axis=1) < 1).any()


@pytest.mark.parametrize("name", LARGE)
def test_an_input_does_not_depend_on_the_others(name, monkeypatch):
    X, y = problem(4 if name == "table" else 12)
    mechanism = NoiseMechanism(Box.from_bounds("minmax", X), SplitNoise(0.5), X.shape[1:])
    votes = ExactVotes(make_voter(LARGE[name][0].fit(X, y), np.array([0, 1])), mechanism)
    together = votes.bounds(X[:25])
    alone = [votes.bounds(X[i : i + 1]) for i in range(25)]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))
    monkeypatch.setattr(exact, "VALUES", 3 * 2 * len(votes.cells.feature))
    np.testing.assert_array_equal(together, votes.bounds(X[:25]))
    assert np.all(together[0] <= together[1])


@pytest.mark.parametrize("name", ["tree", "ada"])
def test_labels_in_the_order_of_the_caller(name):
    mechanism = mechanism_of(UniformNoise(0.5, levels=4), BOXES[0])
    X = lattice_inputs(mechanism, 99)
    y = fitted(name, mechanism).predict(X)
    lower, _ = exact_votes(MODELS[name]().fit(X, y), mechanism, X[:9], [0, 1])
    words = MODELS[name]().fit(X, np.array(["no", "yes"])[y])
    reordered, _ = exact_votes(words, mechanism, X[:9], ["yes", "maybe", "no"])
    np.testing.assert_array_equal(reordered[:, [2, 0]], lower)
    assert (reordered[:, 1] == 0).all()


@pytest.mark.parametrize("name", ["ada", "gradient", "hist"])
def test_labels_of_a_grid_in_the_order_of_the_caller(name, monkeypatch):
    mechanism = mechanism_of(UniformNoise(0.5, levels=4), BOXES[0])
    model, X = fitted(name, mechanism), lattice_inputs(mechanism, 5)
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    lower, upper = exact_votes(model, mechanism, X, [1, 2, 0])
    truth = enumerated(model, mechanism, X, [1, 2, 0])
    assert_inside(truth, lower, upper)
    np.testing.assert_allclose(upper, truth, atol=1e-3)


@pytest.mark.parametrize("name", ["tree", "ada", "hist"])
def test_a_model_without_splits(name):
    mechanism = mechanism_of(SplitNoise(1.0), BOXES[0])
    X = np.random.default_rng(0).random((30, 3))
    model = MODELS[name]().fit(np.zeros((30, 3)), np.arange(30) % 3 // 2)
    lower, upper = exact_votes(model, mechanism, X, [0, 1])
    np.testing.assert_allclose([lower, upper], [[[1, 0]] * 30] * 2, atol=1e-14)


def test_trees_without_splits_add_to_the_score(monkeypatch):
    monkeypatch.setattr(exact, "TABLE_CELLS", 0)
    mechanism = mechanism_of(UniformNoise(0.5, levels=4), BOXES[0])
    model, X = fitted("gradient", mechanism), lattice_inputs(mechanism, 5)
    none = np.array([-1])
    leaf = Tree(none, none, none, np.array([-2.0]), none < 0, np.array([0.7]))

    def read_with_leaf(estimator, *kinds):
        arrays = read(estimator, *kinds)
        return arrays._replace(trees=[leaf, *arrays.trees], constant=arrays.constant - 0.7)

    expected = exact_votes(model, mechanism, X, [0, 1])
    monkeypatch.setattr(exact, "read", read_with_leaf)
    np.testing.assert_allclose(exact_votes(model, mechanism, X, [0, 1]), expected, atol=1e-3)


def test_a_constant_feature_keeps_to_its_side():
    box = Box(np.array([0.0, 3.0, 0.0]), np.array([1.0, 3.0, 1.0]))
    mechanism = NoiseMechanism(box, UniformNoise(0.5), (3,))
    X = np.array([[0.0, 2, 0], [0, 4, 0], [1, 2, 0], [1, 4, 1]])
    model = DecisionTreeClassifier(random_state=0).fit(X, [0, 1, 1, 0])
    given = np.array([[0.0, 3, 0.5], [1, 3, 0.25]])
    lower, _ = exact_votes(model, mechanism, given, [0, 1])
    votes = model.predict(mechanism.noisy(np.repeat(given, 20_000, axis=0), np.random.default_rng(0)))
    np.testing.assert_allclose(lower[:, 1], votes.reshape(2, -1).mean(axis=1), atol=0.02)


def test_named_columns():
    pandas = pytest.importorskip("pandas")
    from smoothcert.models.columns import Columns

    mechanism = mechanism_of(SplitNoise(0.5, levels=4), BOXES[1])
    X = lattice_inputs(mechanism, 60)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    for model in (MODELS["standard"](), MODELS["chain"]()):
        y = (X[:, 0] > X[:, 0].mean()).astype(int)
        by_name = model.fit(frame, y)
        votes = ExactVotes(make_voter(by_name, np.array([0, 1]), columns=Columns.of(frame)), mechanism)
        bounds = votes.bounds(X[:4])
        np.testing.assert_array_equal(bounds, exact_votes(model.fit(X, y), mechanism, X[:4], [0, 1]))


class Renamed(DecisionTreeClassifier):
    """A subclass, which may vote by rules of its own."""


class Contrary(UniformNoise):
    """Noise that is drawn by rules of its own."""

    def draw(self, points, rng, out):
        out[...] = points / self.q + rng.normal(size=out.shape)


@pytest.mark.parametrize(
    ("model", "noise", "words"),
    [
        (LogisticRegression(), UniformNoise(), "decision tree"),
        (RandomForestClassifier(2), UniformNoise(), "RandomForestClassifier"),
        (Renamed(), UniformNoise(), "Renamed"),
        (make_pipeline(PolynomialFeatures(), DecisionTreeClassifier()), UniformNoise(), "PolynomialFeatures"),
        (GradientBoostingClassifier(init=LogisticRegression()), UniformNoise(), "init"),
        (AdaBoostClassifier(LogisticRegression()), UniformNoise(), "AdaBoost"),
        (HistGradientBoostingClassifier(categorical_features=[0]), UniformNoise(), "categories"),
        (GradientBoostingClassifier(max_depth=3), UniformNoise(), "depth 1"),
        (DecisionTreeClassifier(), GaussianNoise(), "GaussianNoise"),
        (DecisionTreeClassifier(), DeterministicSplitNoise(), "DeterministicSplitNoise"),
        (DecisionTreeClassifier(), Contrary(), "Contrary"),
    ],
)
def test_what_has_no_exact_probabilities(model, noise, words):
    X, y = problem()
    X[:, 0] = X[:, 0] > 0
    mechanism = NoiseMechanism(Box.from_bounds("minmax", X), noise, X.shape[1:])
    with pytest.raises(NotExactError, match=words):
        exact_votes(model.fit(X, y), mechanism, X, [0, 1])


def test_networks_have_no_exact_probabilities():
    mechanism = mechanism_of(UniformNoise(), BOXES[0])
    with pytest.raises(NotExactError, match="scikit-learn"):
        exact_votes(lambda batch: np.zeros(len(batch), dtype=int), mechanism, np.zeros((1, 3)), [0, 1])


def test_outcomes_are_those_of_the_sampler():
    """What the tests enumerate is what the sampler draws."""
    mechanism = mechanism_of(SplitNoise(0.4, levels=4), BOXES[1])
    x = lattice_inputs(mechanism, 1)
    out = np.empty((3000, 3))
    mechanism.sample(mechanism.points(x), np.zeros((1, 4), np.uint32), np.array([[0, 0, 3000]]), out)
    recipe = mechanism.noise.recipe
    expected = raw_outcomes(mechanism, recipe, x[0])
    assert len(expected) == len(all_offsets(mechanism.noise, 3))
    np.testing.assert_array_equal(np.unique(out, axis=0), np.unique(expected, axis=0))
