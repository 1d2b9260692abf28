"""Deterministic splitting noise against every input within the certified radius."""

import itertools

import numpy as np
import pytest

from smoothcert import BoxRadius, DeterministicSplitNoise, SmoothedClassifier
from smoothcert.certify.binomial import exact_probabilities

from ..base_models import Rule, constant, steps, to_keys


def outcomes(noise, point):
    out = np.empty((noise.n_outcomes, len(point)))
    segments = np.array([[0, 0, noise.n_outcomes]])
    noise.sample(np.asarray(point)[None], np.zeros((1, 4), np.uint32), segments, out)
    return to_keys(noise, out)


class Coloring(Rule):
    """A base model that gives each outcome a class of its own choosing: any function can be one."""

    def __init__(self, noise, color, n_classes):
        self.noise = noise
        self.color = color
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def predict(self, X):
        return np.array([self.color(row.tobytes()) % self.n_classes for row in to_keys(self.noise, X)])


def certify_all(base, noise, levels, d):
    points = np.array(list(itertools.product(range(levels + 1), repeat=d)))
    clf = SmoothedClassifier.from_pretrained(base, base.classes_, noise)
    return points, clf.certify(points / levels)


@pytest.mark.parametrize(("lam", "levels", "d"), [(1.0, 6, 2), (0.3, 10, 2), (1.5, 4, 3), (2.0, 9, 1)])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_input_within_the_radius_has_another_label(lam, levels, d, n_classes, seed):
    """Every pair of inputs of the lattice, for base models that favor a class as randomly as can be."""
    noise = DeterministicSplitNoise(lam, levels, seed=seed)
    rng = np.random.default_rng(seed)
    bias = rng.uniform(0.5, 0.95)
    colors: dict[bytes, int] = {}

    def color(key):
        return colors.setdefault(key, 0 if rng.random() < bias else int(rng.integers(n_classes)))

    points, (labels, radii) = certify_all(Coloring(noise, color, n_classes), noise, levels, d)
    distances = np.abs(points[:, None] - points[None]).sum(axis=-1)
    within = distances <= np.rint(radii * levels)[:, None]
    assert (labels[:, None] == labels[None])[within].all()
    assert within.sum() > len(points)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("rival", [0, 1])
def test_radius_is_tight_for_the_worst_base_model(n_classes, rival):
    """What an input loses on its way votes A, what it wins votes B: the label flips one step beyond the radius."""
    levels, n_steps = 12, 7
    noise = DeterministicSplitNoise(lam=1.0, levels=levels, seed=2)
    path = [np.array([2 + k, 5, 8]) for k in range(n_steps + 1)]
    keys = [[row.tobytes() for row in outcomes(noise, point)] for point in path]
    kept = set.intersection(*map(set, keys))
    for_b = [key for key in kept if keys[0].count(key) == 1][:8]
    gained = set().union(*keys) - set(keys[0])
    base = Coloring(noise, lambda key: rival if key in gained or key in for_b else 1 - rival, n_classes)
    clf = SmoothedClassifier.from_pretrained(base, base.classes_, noise)
    labels, radii = clf.certify(np.array(path) / levels)
    assert len(for_b) == 8
    assert labels[0] == 1 - rival
    assert radii[0] * levels == (24 - 16 - (rival == 0)) // 2
    assert np.argmax(labels == rival) == radii[0] * levels + 1


def test_one_step_changes_one_outcome():
    for lam in (0.2, 0.5, 1.7):
        noise = DeterministicSplitNoise(lam, levels=10)
        for x in range(10):
            before, after = outcomes(noise, [x, 4]), outcomes(noise, [x + 1, 4])
            assert (before != after).any(axis=1).sum() == 1


@pytest.mark.parametrize(
    ("counts", "top", "steps_certified"),
    [
        ([7, 3], 0, 2),
        ([3, 7], 1, 1),
        ([5, 5], 0, 0),
        ([4, 2, 4], 0, 0),
        ([1, 8, 1], 1, 3),
        ([0, 10], 1, 4),
        ([10, 0], 0, 5),
    ],
)
def test_ties_go_to_the_lower_index(counts, top, steps_certified):
    """floor((c_A - c_B - [B < A]) / 2)"""
    noise = DeterministicSplitNoise(lam=1.0, levels=5)
    p_a, p_b = exact_probabilities(np.array([counts]), np.array([top]))
    rivals = [counts[top] - c - (b < top) for b, c in enumerate(counts) if b != top]
    assert min(rivals) // 2 == steps_certified
    assert noise.inverse_cost(noise.budget(p_a, p_b))[0] == steps_certified / 5


def test_nothing_is_sampled():
    noise = DeterministicSplitNoise(lam=0.8, levels=255)
    base = Rule(steps([0.4, 0.6]), classes=range(3)).fit(None, None)
    X = np.random.default_rng(0).integers(256, size=(4, 7)) / 255
    clf = SmoothedClassifier.from_pretrained(base, range(3), noise)
    votes = clf.count_votes(X)
    assert votes.estimation.sum(axis=1).tolist() == [408] * 4
    np.testing.assert_array_equal(votes.selection, votes.estimation)
    certificates = clf.certify(X)
    assert certificates.alpha == 0
    assert "alpha=0)" in repr(certificates)
    assert not certificates.abstained.any()
    for change in ({"batch_size": 1}, {"batch_size": 100}, {"random_state": 7}, {"n_samples": 20}):
        again = clf.set_params(**change).certify(X, votes=votes)
        np.testing.assert_array_equal(clf.count_votes(X).estimation, votes.estimation)
        np.testing.assert_array_equal(again.radii, certificates.radii)
    np.testing.assert_array_equal(clf.predict(X), certificates.labels)
    assert (certificates.radii * 255 == np.rint(certificates.radii * 255)).all()


def test_a_unanimous_vote_certifies_lam_in_whole_steps():
    clf = SmoothedClassifier.from_pretrained(Rule(constant).fit(None, None), [0, 1], DeterministicSplitNoise(lam=1.5))
    labels, radii = clf.certify([[0.2, 0.4]])
    assert labels[0] == 0
    assert radii[0] == 382 / 255  # L = 765 outcomes


def test_it_trains_and_certifies():
    from sklearn.datasets import load_digits
    from sklearn.naive_bayes import GaussianNB

    X, y = load_digits(return_X_y=True)
    noise = DeterministicSplitNoise(lam=1.0, levels=16)
    clf = SmoothedClassifier(GaussianNB(), noise, bounds=(0, 16), random_state=0).fit(X[:1000], y[:1000])
    labels, radii = clf.certify(X[1000:1100])
    assert (labels == y[1000:1100]).mean() > 0.6
    assert (radii >= 0).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": "auto"}, "levels must be a whole number from 1 to 65536 for deterministic noise, got 'auto'"),
        ({"levels": 0}, "levels must be .* got 0"),
        ({"lam": 0}, "lam must be a finite number above 0"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        DeterministicSplitNoise(**params).check()


def test_the_box_cannot_be_used():
    base = Rule(constant).fit(None, None)
    with pytest.raises(
        ValueError, match=r"BoxRadius\(\) has no certificate for DeterministicSplitNoise.*Valid are Lipsch"
    ):
        SmoothedClassifier.from_pretrained(base, [0, 1], "deterministic-split", radius=BoxRadius())


def test_inputs_off_the_lattice_are_refused():
    clf = SmoothedClassifier.from_pretrained(Rule(constant).fit(None, None), [0, 1], "deterministic-split")
    with pytest.raises(ValueError, match="X must lie on the lattice of levels=255"):
        clf.predict([[0.1234]])


def test_a_template_sets_the_offsets_of_features():
    seeded = DeterministicSplitNoise(1.0, levels=4, seed=3)
    template = np.random.Generator(np.random.Philox(key=3)).integers(8, size=5)
    point = np.array([0, 1, 2, 3, 4])
    given = DeterministicSplitNoise(1.0, levels=4, template=template.tolist())
    np.testing.assert_array_equal(outcomes(given, point), outcomes(seeded, point))
    shifted = DeterministicSplitNoise(1.0, levels=4, template=(template + np.eye(5, dtype=int)[4]) % 8)
    assert not np.array_equal(outcomes(shifted, point), outcomes(seeded, point))


def test_the_template_of_a_seed_is_the_same_everywhere():
    assert DeterministicSplitNoise(1.0, 255, seed=3)._offsets(5).tolist() == [439, 476, 137, 40, 256]
    offsets = [DeterministicSplitNoise(1.0, 255, seed)._offsets(5).tolist() for seed in (0, 1, 3)]
    assert len(set(map(tuple, offsets))) == 3
    with pytest.raises(ValueError, match="seed must be a whole number of at least 1, got -1"):
        DeterministicSplitNoise(seed=-1).check()


def test_outcomes_are_numbered_and_training_draws_one_for_each_row():
    """With s = (j + template + 1/2)/q, the value is the midpoint of the cell of [0, 1] that s leaves the input in."""
    noise = DeterministicSplitNoise(1.0, levels=3, template=[0, 2])
    points = noise.to_points(np.array([[1 / 3, 1.0]]))
    every, some = np.empty((6, 2)), np.empty((3, 2))
    noise.sample(points, np.zeros((1, 4), np.uint32), np.array([[0, 0, 6]]), every)
    split = (np.array([[0, 2]]) + np.arange(6)[:, None]) % 6 + 0.5
    np.testing.assert_allclose(every, (np.minimum(split / 3, 1) + (np.array([1, 3]) > split)) / 2, atol=1e-12)
    noise.sample(points, np.zeros((1, 4), np.uint32), np.array([[0, 4, 2], [0, 1, 1]]), some)
    np.testing.assert_array_equal(some, every[[4, 5, 1]])
    drawn = np.empty((60, 2))
    noise.draw(points, np.random.default_rng(0), drawn)
    assert {tuple(row) for row in drawn} == {tuple(row) for row in every}


def test_a_move_costs_its_share_of_the_outcomes():
    """Of L = floor(2 lam q) = 4 outcomes, a whole range of 3 steps changes 3."""
    noise = DeterministicSplitNoise(0.8, levels=3)
    np.testing.assert_allclose(noise.cost([0.0, 1 / 3, 1.0]), [0, 0.25, 0.75], rtol=1e-12)


def test_images_take_a_template_of_all_pixels():
    noise = DeterministicSplitNoise(1.0, levels=4, template=np.arange(8).reshape(2, 2, 2))
    assert noise.to_points(np.full((3, 2, 2, 2), 0.5)).shape == (3, 2, 2, 2)
    with pytest.raises(ValueError, match=r"template must hold 12 offsets, one for each feature of X, got 8"):
        noise.to_points(np.full((3, 2, 2, 3), 0.5))


@pytest.mark.parametrize("template", [[0.5, 1.0], [-1, 2], [0, 8], ["a", "b"]])
def test_bad_templates_are_refused(template):
    with pytest.raises(ValueError, match="template must hold whole numbers from 0 to 7, the offsets"):
        DeterministicSplitNoise(1.0, levels=4, template=template).check()


def test_a_template_must_fit_the_inputs():
    noise = DeterministicSplitNoise(1.0, levels=4, template=[0, 1, 2])
    clf = SmoothedClassifier.from_pretrained(Rule(constant).fit(None, None), [0, 1], noise)
    assert clf.certify([[0.25, 0.5, 0.0]]).radii == [1.0]
    with pytest.raises(ValueError, match="template must hold 2 offsets, one for each feature of X, got 3"):
        clf.certify([[0.25, 0.5]])
