"""Properties that hold whatever comes: of radii, of whole classifiers, and of what reads outside data."""

import itertools
import pickle
from functools import partial

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify.binomial import BOUNDS, class_probabilities
from smoothcert.certify.reach import certified_radii, required_probability
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

from ..base_models import Rule

settings.register_profile(
    "smoothcert", deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck)
)
settings.load_profile("smoothcert")

#: 0, 1, and whatever floats there are next to them and between.
UNIT = st.one_of(st.sampled_from([0.0, 5e-324, 1e-300, 1e-16, 0.5, 1 - 2**-53, 1.0]), st.floats(0, 1))
LAM = st.one_of(st.sampled_from([1e-7, 0.25, 0.5, 0.5 + 1e-7, 1.0, 100.0]), st.floats(1e-6, 120))


@st.composite
def noises(draw):
    kind = draw(st.sampled_from([UniformNoise, SplitNoise, GaussianNoise, LaplaceNoise, UniformMixtureNoise]))
    if kind is UniformMixtureNoise:
        lams = draw(st.lists(LAM, min_size=1, max_size=4))
        weights = np.array(draw(st.lists(st.floats(1e-6, 1), min_size=len(lams), max_size=len(lams))))
        return kind(lams, (weights / weights.sum()).tolist())
    return kind(draw(LAM))


@st.composite
def situations(draw):
    """Noise, probabilities and room to move, of several inputs."""
    n, d = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    share = draw(hnp.arrays(float, n, elements=UNIT))
    p_a = 0.5 + share / 2
    p_b = (1 - p_a) * draw(hnp.arrays(float, n, elements=UNIT))
    assume((p_a > p_b).all())
    x = draw(hnp.arrays(float, (n, d), elements=UNIT))
    return draw(noises()), p_a, p_b, x


def radii_of(strategy, noise, p_a, p_b, x):
    return strategy.radii(noise, p_a, p_b, x, 1 - x)


def valid(noise):
    return [LipschitzRadius(), *([BoxRadius(), GreedyRadius()] if noise.uses_box else [])]


@given(situations())
def test_radii_are_in_order_and_never_negative(situation):
    noise, p_a, p_b, x = situation
    noise.check()
    found = [radii_of(strategy, noise, p_a, p_b, x) for strategy in valid(noise)]
    for radii in found:
        assert (radii >= 0).all()
    for smaller, larger in itertools.pairwise(found):
        assert (smaller <= larger).all()


@given(situations(), UNIT)
def test_radii_grow_with_the_margin(situation, share):
    noise, p_a, p_b, x = situation
    higher, lower = p_a + (1 - p_a) * share, p_b * (1 - share)
    for strategy in valid(noise):
        before, after = radii_of(strategy, noise, p_a, p_b, x), radii_of(strategy, noise, higher, lower, x)
        assert ((after >= before * (1 - 1e-12)) | (higher == p_a)).all()


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_features_and_inputs_does_not_matter(situation, random):
    noise, p_a, p_b, x = situation
    features, inputs = list(range(x.shape[1])), list(range(len(x)))
    random.shuffle(features)
    random.shuffle(inputs)
    for strategy in valid(noise):
        expected = radii_of(strategy, noise, p_a, p_b, x)
        np.testing.assert_array_equal(radii_of(strategy, noise, p_a, p_b, x[:, features]), expected)
        np.testing.assert_array_equal(radii_of(strategy, noise, p_a[inputs], p_b[inputs], x[inputs]), expected[inputs])


@given(situations(), UNIT, st.integers(1, 40))
def test_limits_on_the_adversary_never_shrink_a_radius(situation, cap, k):
    noise, p_a, p_b, x = situation
    assume(noise.uses_box)
    free = radii_of(GreedyRadius(), noise, p_a, p_b, x)
    limited = radii_of(GreedyRadius(max_change=cap), noise, p_a, p_b, x)
    assert (limited >= free * (1 - 1e-12)).all()
    assert (radii_of(GreedyRadius(max_features=k), noise, p_a, p_b, x) >= free * (1 - 1e-12)).all()


@given(situations(), st.floats(0, 5))
def test_the_required_probability_suffices(situation, goal):
    noise, _, _, x = situation
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, x.shape[1:])
    for strategy in valid(noise):
        p = required_probability(strategy, mechanism, x, goal)
        able = (p > 0.5) & np.isfinite(p)
        assert (certified_radii(strategy, mechanism, x[able], p[able], 1 - p[able]) >= goal).all()


@st.composite
def votes(draw):
    n_classes, n_inputs = draw(st.integers(2, 6)), draw(st.integers(1, 6))
    counts = draw(hnp.arrays(np.int64, (n_inputs, n_classes), elements=st.integers(0, 2000)))
    counts[:, 0] += 1
    return counts, draw(hnp.arrays(np.intp, n_inputs, elements=st.integers(0, n_classes - 1)))


@given(votes(), st.sampled_from(list(BOUNDS)), st.sampled_from(["binary", "multiclass"]), st.floats(1e-90, 0.99))
def test_bounds_are_probabilities_on_the_right_side_of_the_frequencies(drawn, bound, scheme, alpha):
    counts, top = drawn
    uniforms = np.random.default_rng(0).random((len(counts), 2))
    p_a, p_b = class_probabilities(counts, top, scheme=scheme, bound=bound, alpha=alpha, uniforms=uniforms)
    assert ((0 <= p_a) & (p_a <= 1) & (0 <= p_b) & (p_b <= 1)).all()
    frequency = counts[np.arange(len(counts)), top] / counts.sum(axis=1)
    if alpha < 0.4 and bound != "randomized-clopper-pearson":
        assert (p_a <= frequency).all()
    tighter = class_probabilities(counts, top, scheme=scheme, bound=bound, alpha=alpha / 2, uniforms=uniforms)
    assert (tighter[0] <= p_a + 1e-12).all()
    assert (tighter[1] >= p_b - 1e-12).all()


@st.composite
def data(draw):
    """Inputs of some type in some box, and a classifier for them."""
    lo = draw(st.sampled_from([0.0, -1.0, 1e6]))
    width = draw(st.sampled_from([1.0, 255.0, 1e-3]))
    n, d = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64, *([np.float16] if lo < 1e3 else [])]))
    unit = draw(hnp.arrays(float, (n, d), elements=UNIT))
    n_classes = draw(st.integers(2, 4))
    X = np.clip((lo + width * unit).astype(dtype).astype(float), lo, lo + width)
    noise = draw(st.sampled_from([UniformNoise(0.8), SplitNoise(0.3), GaussianNoise(0.5), SplitNoise(2.0)]))
    threshold = lo + width * draw(st.floats(0.1, 0.9))
    base = Rule(lambda rows: (rows > threshold).sum(axis=1) % n_classes, range(n_classes)).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(
        base,
        range(n_classes),
        noise,
        bounds=(lo, lo + width),
        alpha=draw(st.floats(1e-3, 0.5)),
        n_selection=draw(st.integers(1, 40)),
        n_samples=draw(st.integers(30, 90)),
        batch_size=draw(st.integers(1, 500)),
        random_state=draw(st.integers(0, 2**32 - 1)),
        scheme=draw(st.sampled_from(["binary", "multiclass"])),
    )
    return clf, X


@settings(max_examples=40)
@given(data(), st.randoms(use_true_random=False))
def test_certificates_are_those_of_each_input_alone(drawn, random):
    clf, X = drawn
    certificates = clf.certify(X)
    assert (certificates.abstained == np.isnan(certificates.radii)).all()
    assert (certificates.radii[~certificates.abstained] >= 0).all()
    np.testing.assert_array_equal(certificates.abstained, certificates.p_a <= certificates.p_b)
    order = list(range(len(X)))
    random.shuffle(order)
    for rows in (order, [order[0]], slice(None, None, -1), slice(0, 1)):
        again, part = clf.certify(X[rows]), certificates[rows]
        for name in ("labels", "radii", "abstained", "p_a", "p_b", "n_samples"):
            np.testing.assert_array_equal(getattr(again, name), getattr(part, name))
    loaded = pickle.loads(pickle.dumps(certificates))
    np.testing.assert_array_equal(loaded.radii, certificates.radii)
    assert clone(clf).get_params()["alpha"] == clf.alpha
    np.testing.assert_array_equal(clf.certify(X, votes=clf.count_votes(X)).radii, certificates.radii)


@given(hnp.arrays(np.int64, (4, 3), elements=st.integers(0, 6)), st.floats(0.1, 1.5), st.integers(1, 12))
def test_deterministic_radii_are_whole_steps(points, lam, levels):
    noise = DeterministicSplitNoise(lam, levels)
    assume(2 * lam * levels >= 1)
    base = Rule(lambda rows: (rows.sum(axis=1) * 4 * levels).astype(int) % 3, range(3)).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, range(3), noise)
    radii = clf.certify(np.minimum(points, levels) / levels).radii
    np.testing.assert_array_equal(np.rint(radii * levels) / levels, radii)


@given(st.text(max_size=20) | st.floats() | st.integers() | st.none() | st.lists(st.floats(), max_size=3))
def test_parameters_that_are_anything_are_valid_or_an_error_that_names_them(value):
    base = Rule(lambda rows: np.zeros(len(rows), dtype=int)).fit(None, None)
    for name in ("alpha", "n_samples", "n_selection", "bound", "scheme", "radius", "batch_size", "rtol"):
        smooth = partial(SmoothedClassifier.from_pretrained, base, [0, 1], **{name: value})
        message = error_of(smooth)
        assert message is None or name in message
    message = error_of(lambda: Box.from_bounds(value))
    assert message is None or "bounds" in message
    for noise in (SplitNoise(value), GaussianNoise(value), SplitNoise(levels=value), UniformMixtureNoise([value], [1])):
        message = error_of(noise.check)
        assert message is None or any(part in message for part in ("lam", "sigma", "levels"))


def error_of(check):
    """Return the message of the ValueError that a check raises, or None."""
    try:
        check()
    except ValueError as error:
        return str(error)
    return None
