"""Certificates against the truth: worst cases, coverage, and floating point."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert import BoxRadius, GreedyRadius, LipschitzRadius, SmoothedClassifier, SplitNoise, UniformNoise
from smoothcert.noise._philox import apply_offsets
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

from ..base_models import Rule, WorstCase, all_offsets, constant, steps
from .suite import MODES, failures, run, summary

NOISES = [UniformNoise, SplitNoise]


def smooth(base, **params):
    """Smooth a rule that needs no training."""
    return SmoothedClassifier.from_pretrained(base, base.classes_, **params)


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize(("lam", "levels", "d"), [(1.0, 5, 2), (0.3, 10, 2), (0.75, 4, 3), (2.0, 3, 3)])
def test_no_input_within_the_radius_flips_the_worst_base_model(noise_type, lam, levels, d):
    """For every y of the lattice, against the base model that is worst for that y, in exact counts."""
    rng = np.random.default_rng(levels)
    noise = noise_type(lam=lam, levels=levels)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (d,))
    total = noise.n_offsets**d
    X, p_a, distances = [], [], []
    for mass in rng.integers(total // 2 + 1, total + 1, size=4):
        x = rng.integers(levels + 1, size=d)
        for y in itertools.product(range(levels + 1), repeat=d):
            base = WorstCase(noise, x, np.array(y), mass)
            if base.share(np.array(y)) <= 0.5:
                X.append(x / levels)
                p_a.append(base.share(x))
                distances.append(np.abs(np.array(y) - x).sum() / levels)
    p_a, room = np.array(p_a), mechanism.room(np.array(X))
    for strategy in (LipschitzRadius(), BoxRadius(), GreedyRadius()):
        beyond = distances - strategy.radii(noise, p_a, 1 - p_a, *room)
        assert beyond.min() > 0
    # The greedy certificate, the last of them, misses no more than a step.
    assert beyond.min() <= 1 / levels


@pytest.mark.parametrize("noise_type", NOISES)
def test_label_flips_just_outside_the_radius_and_not_inside(noise_type):
    """The same through the public API, with sampled votes."""
    levels, x = 8, np.array([3, 8])
    noise = noise_type(lam=0.75, levels=levels)
    room = NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,)).room(x[None] / levels)
    for y, label in (([3, 6], 0), ([3, 5], 1)):
        base = WorstCase(noise, x, np.array(y), mass=int(0.7 * noise.n_offsets**2))
        p_a = np.array([base.share(x)])
        true_radius = GreedyRadius().radii(noise, p_a, 1 - p_a, *room)[0]
        assert (np.abs(y - x).sum() / levels <= true_radius) == (label == 0)

        clf = smooth(base, noise=noise, n_selection=20_000, n_samples=20_000, random_state=0)
        labels, radii = clf.certify(x[None] / levels)
        assert labels[0] == 0
        assert true_radius - 0.05 < radii[0] <= true_radius
        assert clf.predict(np.array([y]) / levels)[0] == label


def violations(scheme, bound, thresholds, x, seed, *, alpha, n_samples, repetitions):
    """Certify the same x many times with fresh noise, and count the radii that exceed the true one, and all of them.

    The base model looks at the first feature alone; the second gives each repetition noise of its own. With uniform
    noise the class probabilities change at the Lipschitz rate, so the true radius is 2 lam x margin / 2.
    """
    lam = 1.0
    edges = np.concatenate([[x - lam], thresholds, [x + lam]])
    h = np.diff(edges) / (2 * lam)
    runner_up = np.sort(h)[-2] if scheme == "multiclass" else 1 - h[0]
    true_radius = lam * (h[0] - runner_up)
    base = Rule(steps(thresholds), classes=range(len(h))).fit(None, None)
    clf = smooth(
        base,
        noise=UniformNoise(lam=lam),
        radius="lipschitz",
        scheme=scheme,
        bound=bound,
        alpha=alpha,
        n_selection=100,
        n_samples=n_samples,
        random_state=seed,
    )
    X = np.column_stack([np.full(repetitions, x), np.linspace(0, 1, repetitions)])
    labels, radii = clf.certify(X)
    return (radii[labels == 0] > true_radius).sum(), (labels == 0).sum()


@pytest.mark.parametrize("bound", ["clopper-pearson", "randomized-clopper-pearson", "hoeffding"])
@pytest.mark.parametrize(
    ("scheme", "thresholds"),
    [
        ("binary", [0.9]),
        ("multiclass", [0.9]),
        ("multiclass", [0.8, 0.95]),
        ("binary", [0.7, 0.9]),
        ("multiclass", [0.7, 0.9, 1.1]),
    ],
)
def test_radii_exceed_the_true_one_no_more_often_than_alpha(scheme, bound, thresholds):
    alpha, repetitions = 0.05, 600
    wrong, tried = violations(
        scheme, bound, thresholds, x=0.5, seed=1, alpha=alpha, n_samples=500, repetitions=repetitions
    )
    assert tried > 0.9 * repetitions
    assert wrong <= binom.ppf(1 - 1e-4, tried, alpha)
    if scheme == "binary" and bound == "clopper-pearson":
        assert wrong >= binom.ppf(1e-4, tried, 0.6 * alpha)


def test_two_classes_spend_all_of_alpha():
    wrong, tried = violations(
        "multiclass", "clopper-pearson", [0.8], x=0.4, seed=5, alpha=0.2, n_samples=2000, repetitions=600
    )
    assert binom.ppf(1e-4, tried, 0.15) <= wrong <= binom.ppf(1 - 1e-4, tried, 0.2)


def float_lattices(lam):
    """Rules that vote 0 on values which the float32 sums x + u of naive noise take for x = 0, and others seldom."""
    return {
        "multiples of 2**-22": lambda X: np.where((X[:, 0] * 2.0**22) % 1 == 0, 0, 1),
        "multiples of 2**-23": lambda X: np.where((X[:, 0] * 2.0**23) % 1 == 0, 0, 1),
        "in float32": lambda X: np.where(X[:, 0].astype(np.float32) == X[:, 0], 0, 1),
        "(v + lam) exact": lambda X: np.where(
            (np.float32(X[:, 0]) + np.float32(lam)) - np.float32(lam) == np.float32(X[:, 0]), 0, 1
        ),
    }


def test_naive_noise_leaks_the_input_through_its_rounding():
    """The attack that lattice noise is there to stop does work without it."""
    u = (np.random.default_rng(0).integers(2**23, size=(20_000, 1)) / 2**22 - 1).astype(np.float32)
    rule = float_lattices(1.0)["multiples of 2**-22"]
    at_0 = (rule(np.float32(0) + u) == 0).mean()
    at_y = (rule(np.float32(1 / 255) + u) == 0).mean()
    assert at_0 - at_y > 0.9


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize("levels", ["auto", 255])
@pytest.mark.parametrize("rule", float_lattices(1.0))
def test_a_base_model_that_reads_floats_is_not_certified_beyond_the_truth(noise_type, levels, rule):
    base = Rule(float_lattices(1.0)[rule]).fit(None, None)
    clf = smooth(base, noise=noise_type(lam=1.0, levels=levels), n_samples=20_000, random_state=0)
    x, y = np.array([[0.0]]), np.array([[1 / 255]])
    at_x, at_y = (clf.count_votes(point).estimation[0, 0] / 20_000 for point in (x, y))
    assert abs(at_x - at_y) <= 1 / (2 * 255) + 0.02
    labels, radii = clf.certify(x)
    if radii[0] >= 1 / 255:
        assert clf.predict(y)[0] == labels[0]


@pytest.mark.parametrize("noise_type", NOISES)
def test_every_outcome_of_0_except_the_last_is_one_of_its_neighbor(noise_type):
    """Exact membership in the lattice of x = 0 tells y = 1/255 from it only where the noise ranges differ."""
    noise = noise_type(lam=1.0, levels=255)
    offsets = all_offsets(noise, 1)
    for dtype in (np.float32, np.float64):
        at_0, at_y = np.empty(offsets.shape, dtype), np.empty(offsets.shape, dtype)
        apply_offsets(noise.recipe, np.array([0]), offsets, at_0)
        apply_offsets(noise.recipe, np.array([1]), offsets, at_y)
        assert len(set(at_y.ravel()) - set(at_0.ravel())) == 1


def test_inputs_outside_the_box_are_clipped():
    """A radius holds against perturbations that leave the box: they are projected back."""
    base = Rule(steps([0.8])).fit(None, None)
    clf = smooth(base, noise=UniformNoise(lam=0.5), random_state=0)
    inside, outside = np.array([[1.0, 0.0]]), np.array([[7.0, -3.0]])
    with pytest.warns(UserWarning, match=r"X ranges from -3 to 7, outside bounds=\(0, 1\), and was clipped"):
        beyond = clf.certify(outside)
    np.testing.assert_array_equal(clf.certify(inside).radii, beyond.radii)


def test_real_inputs_lose_a_lattice_step_per_feature_and_digital_ones_nothing():
    base = Rule(constant).fit(None, None)
    X = np.full((1, 51), 0.2)
    real, digital = (
        smooth(base, noise=SplitNoise(lam=1.5, levels=levels), random_state=0).certify(X).radii[0]
        for levels in ("auto", 255)
    )
    assert real == pytest.approx(digital - 51 / SplitNoise().q, abs=2e-7)


def test_radius_never_falls_below_zero():
    base = Rule(steps([0.5 + 1e-9])).fit(None, None)
    clf = smooth(base, noise=UniformNoise(lam=1e-7), random_state=0)
    labels, radii = clf.certify(np.full((1, 30), 0.5))
    assert labels[0] == 0
    assert radii[0] == 0


SCHEMES = ("binary", "multiclass")
BOUNDS = ("clopper-pearson", "randomized-clopper-pearson", "hoeffding")

#: Kinds that the short version tries. Radii follow from probabilities in the same way whatever bounds them, and votes
#: are drawn, stored and read in the same way whatever the strategy.
SHORT = [
    {"mode": ("exact", "deterministic", "regression", "tree")},
    {"mode": "fixed", "bound": "clopper-pearson"},
    {"mode": "fixed", "bound": BOUNDS[1:], "strategy": "greedy"},
    {"mode": "stored", "bound": "clopper-pearson", "scheme": "multiclass"},
    {"mode": "store", "scheme": "multiclass", "strategy": ("lipschitz", "greedy")},
    {"mode": "parallel", "scheme": "binary", "strategy": "greedy"},
    {"mode": "rtol", "scheme": "binary"},
    {"mode": "rtol", "scheme": "multiclass", "strategy": "greedy"},
    {"mode": "certify_at", "scheme": "multiclass"},
    {"mode": "certify_at", "scheme": "binary", "strategy": "greedy"},
]


def test_no_kind_of_certificate_is_false_more_often_than_alpha():
    """The short version of ``python -m tests.guarantees``; test_mutations.py tells what it can see."""
    rows = [row for kinds in SHORT for row in run(1, n_inputs=30, **kinds)]
    assert not failures(rows)
    assert sum(row.tried for row in rows) > 20_000
    assert {row.mode for row in rows} == set(MODES)
    assert {(row.scheme, row.bound) for row in rows if row.mode == "fixed"} == set(itertools.product(SCHEMES, BOUNDS))
    assert summary(rows, "noise").count("| 0 |") >= len({row.noise for row in rows})


def test_nothing_is_counted_as_false_where_nothing_is_claimed_and_all_counts_add_up():
    for row in run(2, n_inputs=30, noise="uniform, 8-bit", mode=("fixed", "certify_at")):
        assert 0 <= row.false <= row.claimed <= row.tried == 30
