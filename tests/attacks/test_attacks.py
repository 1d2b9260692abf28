"""Attacks: budgets and boxes are kept, worst cases are found, and no valid certificate is beaten."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from smoothcert import (
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)
from smoothcert.attacks import CoordinateAttack, GradientAttack, GreedyFaceAttack
from smoothcert.attacks.target import Target
from smoothcert.attacks.verification import Verifier
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism

from ..base_models import MeanOfFirst, Rule, WorstCase, constant

BLACK_BOX = [GreedyFaceAttack(random_state=0), CoordinateAttack(random_state=0)]
GRADIENT = [GradientAttack(random_state=0), GradientAttack(loss="margin", random_state=0)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Let torch work alone: threads cost more than they save on models as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth(base, classes=(0, 1), **params):
    return SmoothedClassifier.from_pretrained(base, list(classes), **params)


class HalfSpace(nn.Module):
    """Votes 1 where one feature exceeds a threshold: the tight case of Proposition 2.1 in one feature."""

    def __init__(self, feature, threshold):
        super().__init__()
        self.feature, self.threshold = feature, threshold

    def forward(self, X):
        lead = 20 * (X[:, self.feature] - self.threshold)
        return torch.stack([-lead, lead], dim=1)


class UniformWorstCase(nn.Module):
    """The worst case of Proposition 2.1 for uniform noise, as a network.

    All features but the last move up from x to y. Votes 1 where x's noise does not land, and in a share of what both
    noises reach, which the last feature decides wherever it is, without a gradient; 0 everywhere else.
    """

    def __init__(self, x, y, lam, share):
        super().__init__()
        self.x, self.y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
        self.lam, self.share = lam, share

    def forward(self, X):
        of_x = (self.x + self.lam - X[:, :-1]).amin(dim=1)
        of_y = (X[:, :-1] - self.y + self.lam).amin(dim=1)
        coin = torch.where((X[:, -1] * 8 / (2 * self.lam)) % 1 < self.share, 1.0, -1.0)
        lead = torch.maximum(-of_x, torch.minimum(of_y, coin))
        return torch.stack([-lead, lead], dim=1) * 20


class SplitWorstCase(nn.Module):
    """The worst case of Theorem 2.11 for splitting noise, as `UniformWorstCase`; the last feature starts at 1/2.

    x and y lead to different cells where a split falls between them: then y is in the upper one, in whose middle the
    network sees more than (1 + x)/2, and x in the lower one, where it sees y/2 at most, and 1/2 or more otherwise.
    """

    def __init__(self, x, y, lam, share):
        super().__init__()
        self.x, self.y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
        self.threshold = 0.25 + lam * share

    def forward(self, X):
        beyond_x = (X[:, :-1] - (1 + self.x) / 2).amax(dim=1)
        short_of_y = ((X[:, :-1] > self.x / 2) & (X[:, :-1] <= self.y / 2) & (X[:, :-1] < 0.5)).any(dim=1)
        lead = torch.where((X[:, -1] < self.threshold) & ~short_of_y, 0.5, -0.5)
        lead = torch.maximum(beyond_x, lead)
        return torch.stack([-lead, lead], dim=1) * 20


#: Enough votes to show a lead of half a per cent, with the confidence that is the default.
MANY = {"n_samples": 1_000_000, "max_queries": 200_000_000, "n_votes": 5000}
QUICK = {"n_steps": 10, "n_restarts": 1}


def many(attack):
    return clone(attack).set_params(**MANY | (QUICK if isinstance(attack, GradientAttack) else {}))


@pytest.mark.parametrize("attack", [*BLACK_BOX, *GRADIENT], ids=str)
def test_half_space_is_broken_within_1_percent_of_the_tight_radius(attack):
    """Uniform noise changes P(z_0 > t) at rate 1/(2 lam): h_1(x) = .05 reaches 1/2 after .9."""
    x = np.array([[0.05, 0.5, 0.3, 0.9]])
    clf = smooth(HalfSpace(0, 0.95), noise=UniformNoise(lam=1.0), random_state=0)
    found = many(attack).minimal(clf, x)
    assert found.success.all()
    assert 0.9 < found.distance[0] <= 0.9 * 1.01
    assert found.labels[0] == 1
    assert found.original[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "noise_type", "lam", "x"),
    [
        (BLACK_BOX[0], UniformNoise, 1.5, [0.3, 0.4, 0.35]),
        (BLACK_BOX[0], SplitNoise, 0.75, [0.4, 0.45]),
        (BLACK_BOX[1], UniformNoise, 0.75, [0.4, 0.45]),
        (BLACK_BOX[1], SplitNoise, 1.5, [0.3, 0.4, 0.35]),
        (GRADIENT[1], UniformNoise, 1.5, [0.3, 0.4, 0.35]),
        (GRADIENT[1], SplitNoise, 0.75, [0.4, 0.45]),
    ],
)
def test_worst_case_in_several_features_is_broken_within_1_percent_of_the_tight_radius(attack, noise_type, lam, x):
    """Features move to their upper faces one after the other, the last of them until p_1 is .503 at y."""
    share, x = 0.05, np.array(x)
    overlap = (1 - 0.503) / (1 - share)
    y = np.ones(len(x))
    last = x.argmax()
    others = np.prod(np.delete(1 - (y - x) / (2 * lam), last))
    y[last] = x[last] + 2 * lam * (1 - overlap / others)
    noise = noise_type(lam)
    net = (UniformWorstCase if noise_type is UniformNoise else SplitWorstCase)(x, y, lam, share)
    point = np.append(x, 0.5)[None]
    p_a = np.array([1 - share * overlap])
    tight = GreedyRadius().radii(noise, p_a, 1 - p_a, point, 1 - point)[0]
    assert np.abs(y - x).sum() == pytest.approx(tight, rel=0.01)
    clf = smooth(net, noise=noise, n_samples=100_000, random_state=0)
    assert clf.count_votes(point).estimation[0, 0] / clf.n_samples == pytest.approx(p_a[0], abs=0.002)
    found = many(attack).minimal(clf, point)
    assert found.success.all()
    assert tight < found.distance[0] <= 1.01 * tight


class Window(nn.Module):
    """Votes 1 in a box event around y with probability ``share``, which the last feature decides wherever it is."""

    def __init__(self, y, lam, share):
        super().__init__()
        self.y, self.lam, self.share = y, lam, share

    def forward(self, X):
        inside = self.lam - (X[:, 0] - self.y).abs()
        coin = torch.where((X[:, -1] * 8 / (2 * self.lam)) % 1 < self.share, 1.0, -1.0)
        lead = torch.minimum(inside, coin)
        return torch.stack([-lead, lead], dim=1) * 20


@pytest.mark.parametrize("attack", [*BLACK_BOX, GRADIENT[1]], ids=str)
def test_a_window_that_looks_step_over_is_found(attack):
    """Between .7 - .0385 and .7 + .0385 alone the label is another one; paths go on for several units."""
    lam, share, y = 0.5, 0.52, 0.7
    clf = smooth(Window(y, lam, share), noise=UniformNoise(lam), random_state=0)
    x = np.array([[0.1, 0.5, 0.5, 0.5, 0.5, 0.5]])
    tight = y - 2 * lam * (1 - 0.5 / share) - x[0, 0]
    found = many(attack).minimal(clf, x)
    assert found.success.all()
    assert tight < found.distance[0] <= 1.01 * tight
    near = many(attack).run(clf, x, radius=2.0)
    assert near.success.all()
    assert abs(near.inputs[0, 0] - y) < 2 * lam * (1 - 0.5 / share)


def test_leads_that_few_votes_cannot_show_get_more_of_them():
    """A lead of .02 takes 30,000 votes; each attempt asks for 1000 at least."""
    clf = smooth(Window(0.7, 0.5, 0.51), noise=UniformNoise(0.5), n_samples=1000, random_state=0)
    raw, x = np.array([[0.7, 0.5]]), np.array([0.7, 0.5])
    steps = clf.algorithm((2,))
    few, more = [
        Verifier(clf, (2,), None, None, 4, np.random.SeedSequence(0)).verify(
            raw, Target(steps, x, 0, np.random.default_rng(0), 10**7, n_samples=n, clear=0.0), n
        )
        for n in (1000, 64_000)
    ]
    assert not few[1]
    assert more == (1, True, True)


@pytest.mark.parametrize("noise_type", [UniformNoise, SplitNoise])
@pytest.mark.parametrize("attack", BLACK_BOX, ids=str)
def test_worst_cases_on_the_lattice_are_broken_at_the_first_step_beyond_the_radius(noise_type, attack):
    """The base model of `WorstCase` for the point that the greedy certificate fears most, one step too far."""
    levels, x = 8, np.array([3, 8])
    noise = noise_type(lam=0.75, levels=levels)
    y = np.array([3, 5])
    base = WorstCase(noise, x, y, mass=int(0.7 * noise.n_offsets**2))
    p_a = np.array([base.share(x)])
    room = NoiseMechanism(smooth(base).box_, noise, (2,)).room(x[None] / levels)
    tight = GreedyRadius().radii(noise, p_a, 1 - p_a, *room)[0]
    clf = smooth(base, noise=noise, n_samples=4000, random_state=0)
    found = clone(attack).set_params(n_votes=2000).minimal(clf, x[None] / levels)
    assert found.success.all()
    assert tight < found.distance[0] <= np.floor(tight * levels + 1) / levels
    np.testing.assert_array_equal(np.rint(found.inputs * levels), found.inputs * levels)


def random_rule(seed, d):
    """Return a base model of three classes that depends on all features."""
    weights = np.random.default_rng(seed).normal(size=(d, 3))
    return Rule(lambda X: ((X - 0.5) @ weights).argmax(axis=1), classes=(0, 1, 2)).fit(None, None)


@pytest.mark.parametrize("attack", BLACK_BOX, ids=str)
@pytest.mark.parametrize("levels", [4, 17])
def test_deterministic_certificates_are_never_beaten(attack, levels):
    rng = np.random.default_rng(levels)
    X = rng.integers(levels + 1, size=(30, 4)) / levels
    for seed in range(2):
        clf = smooth(random_rule(seed, 4), (0, 1, 2), noise=DeterministicSplitNoise(0.8, levels))
        certificates = clf.certify(X)
        found = attack.minimal(clf, X)
        assert found.alpha == 0
        assert (found.upper_bounds > certificates.radii).all()
        assert (clf.predict(found.inputs) != certificates.labels)[found.success].all()
        assert found.success.sum() > 10
        steps_moved = found.distance * levels
        np.testing.assert_allclose(steps_moved, np.rint(steps_moved), atol=1e-9)


@pytest.mark.parametrize("attack", [*BLACK_BOX, GRADIENT[1]], ids=str)
def test_deterministic_half_space_is_broken_at_the_first_step_beyond_the_radius(attack):
    levels = 10
    noise = DeterministicSplitNoise(0.5, levels)
    clf = smooth(HalfSpace(0, 0.501), noise=noise)
    X = np.array([[i / levels, 0.5] for i in range(levels + 1)])
    radii = clf.certify(X).radii
    found = (
        clone(attack)
        .set_params(**QUICK if isinstance(attack, GradientAttack) else {}, max_queries=20_000)
        .minimal(clf, X)
    )
    truth = []
    labels = clf.predict(X)
    for i in range(levels + 1):
        others = [abs(j - i) for j in range(levels + 1) if labels[j] != labels[i]]
        truth.append(min(others, default=np.inf) / levels)
    np.testing.assert_allclose(found.upper_bounds, truth)
    assert (found.upper_bounds > radii).all()
    assert np.isfinite(truth).any()


@pytest.mark.parametrize(
    ("noise", "attack"),
    [
        (UniformNoise(1.0), BLACK_BOX[0]),
        (SplitNoise(0.8, levels=16), BLACK_BOX[0]),
        (SplitNoise(0.8, levels=16), BLACK_BOX[1]),
        (GaussianNoise(0.5), BLACK_BOX[1]),
    ],
    ids=str,
)
def test_sampled_certificates_are_beaten_no_more_often_than_alpha(noise, attack):
    alpha = 0.05
    X = np.random.default_rng(0).integers(17, size=(40, 3)) / 16
    clf = smooth(random_rule(1, 3), (0, 1, 2), noise=noise, alpha=alpha, n_samples=1000, random_state=0)
    certificates = clf.certify(X)
    found = clone(attack).set_params(n_votes=200).minimal(clf, X, certificates.labels)
    beaten = found.success & (found.distance <= certificates.radii)
    assert beaten.sum() <= binom.ppf(1 - 1e-4, len(X), 2 * alpha)
    assert found.success.sum() > 10


def test_success_is_claimed_no_more_often_than_alpha_where_there_is_none():
    """Classes that tie exactly everywhere: no label can be shown wrong."""
    parity = Rule(lambda X: np.floor(X[:, 0] * 1024).astype(int) % 2).fit(None, None)
    clf = smooth(parity, noise=UniformNoise(1.0, levels=2**16), n_samples=300, alpha=0.2, random_state=0)
    X = np.random.default_rng(0).integers(2**16, size=(100, 2)) / 2**16
    found = GreedyFaceAttack(order="reach", n_votes=50, max_queries=20_000, random_state=1).minimal(clf, X)
    assert found.success.sum() <= binom.ppf(1 - 1e-4, len(X), 0.2)


BOXES = [(0.0, 1.0), (-3.0, 1e6), (1e6, 1e6 + 1), (np.array([0.0, 5.0, -1.0]), np.array([255.0, 5.0, 1.0]))]


@pytest.mark.parametrize("bounds", BOXES, ids=str)
@pytest.mark.parametrize("attack", [BLACK_BOX[0], BLACK_BOX[1], GRADIENT[0]], ids=str)
@pytest.mark.parametrize("levels", ["auto", 10])
def test_budget_and_box_are_kept_in_raw_units(bounds, attack, levels):
    lo, hi = (np.broadcast_to(end, 3) for end in bounds)
    rng = np.random.default_rng(0)
    unit = rng.integers(11, size=(4, 3)) / 10
    X = lo + unit * (hi - lo)
    torch.manual_seed(0)
    clf = smooth(
        nn.Linear(3, 3).double(),
        (0, 1, 2),
        noise=UniformNoise(0.6, levels),
        bounds=bounds,
        n_samples=500,
        random_state=0,
    )
    radius = np.array([0.0, 0.05, 0.35, 2.0])
    attack = clone(attack).set_params(n_votes=100, **QUICK if isinstance(attack, GradientAttack) else {})
    found = attack.run(clf, X, radius=radius)
    assert ((found.inputs >= lo) & (found.inputs <= hi)).all()
    assert (found.distance <= radius).all()
    for x, adversarial, distance in zip(X, found.inputs, found.distance, strict=True):
        exact = sum(
            abs(Fraction(a) - Fraction(b)) / Fraction(w)
            for a, b, w in zip(adversarial.tolist(), x.tolist(), (hi - lo).tolist(), strict=True)
            if w > 0
        )
        assert float(exact) <= distance + (1e-9 if levels == 10 else 0)
    clf.predict(found.inputs)


def test_constant_features_and_limits_of_the_radius_strategy_are_respected():
    clf = smooth(
        random_rule(0, 4),
        (0, 1, 2),
        noise=UniformNoise(0.8),
        bounds=([0, 0, 2, 0], [1, 1, 2, 1]),
        radius=GreedyRadius(max_change=([0.1, 0.0, 1.0, 1.0], [0.2, 0.5, 1.0, 0.3]), max_features=2),
        n_samples=500,
        random_state=0,
    )
    X = np.array([[0.4, 0.5, 2.0, 0.6]] * 3)
    for attack in BLACK_BOX:
        moves = clone(attack).set_params(n_votes=100).run(clf, X, radius=5.0).inputs - X
        assert (moves >= np.array([-0.1, 0.0, 0.0, -1.0]) - 1e-12).all()
        assert (moves <= np.array([0.2, 0.5, 0.0, 0.3]) + 1e-12).all()
        assert (np.count_nonzero(moves, axis=1) <= 2).all()
        assert np.count_nonzero(moves)


def test_wrong_labels_are_broken_at_distance_0():
    clf = smooth(Rule(constant).fit(None, None), noise=UniformNoise(1.0), n_samples=500, random_state=0)
    X = np.array([[0.2], [0.7], [0.4]])
    found = GreedyFaceAttack(random_state=0).minimal(clf, X, [0, 1, 7])
    np.testing.assert_array_equal(found.success, [False, True, True])
    np.testing.assert_array_equal(found.upper_bounds, [np.inf, 0.0, 0.0])
    np.testing.assert_array_equal(found.robust_accuracy([0.0, 1.0]), [1 / 3, 1 / 3])


@pytest.mark.parametrize("attack", [BLACK_BOX[0], BLACK_BOX[1], GRADIENT[0]], ids=str)
def test_images_and_queries(attack):
    attack = clone(attack).set_params(**QUICK if isinstance(attack, GradientAttack) else {})
    clf = smooth(MeanOfFirst(), (5, 6), noise=SplitNoise(0.5), n_samples=300, random_state=0)
    X = np.random.default_rng(0).random((3, 2, 3, 4), dtype=np.float32)
    before = X.copy()
    for most in (5000, 50_000):
        attack = clone(attack).set_params(n_votes=50, max_queries=most)
        found = attack.minimal(clf, X)
        assert found.inputs.shape == X.shape
        assert (found.n_queries <= most).all()
        assert (found.n_queries > 0).all()
    np.testing.assert_array_equal(X, before)
    assert found.success.any()
    again = attack.minimal(clf, X)
    np.testing.assert_array_equal(again.inputs, found.inputs)


@pytest.fixture(scope="module")
def digits():
    """Return a network for digits of shape (1, 8, 8), trained under splitting noise in a second, and test data."""
    X, y = load_digits(return_X_y=True)
    X, noise = (X / 16).reshape(-1, 1, 8, 8), SplitNoise(1.0, levels=16)
    mechanism, rng = NoiseMechanism(Box(np.zeros(()), np.ones(())), noise, (1, 8, 8)), np.random.default_rng(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(20):
        order = rng.permutation(1500)
        for rows in np.split(order, 15):
            noisy = torch.from_numpy(mechanism.noisy(X[rows], rng, np.float32))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(noisy), torch.from_numpy(y[rows])).backward()
            optimizer.step()
    return net.eval(), noise, X[1500:1504], y[1500:1504]


def test_images_of_a_trained_network_are_broken_beyond_their_radii(digits):
    net, noise, X, y = digits
    clf = smooth(net, range(10), noise=noise, n_samples=1000, random_state=0)
    certificates = clf.certify(X)
    attack = GradientAttack(
        n_steps=10, n_copies=32, n_restarts=1, loss="margin", n_votes=100, max_queries=100_000, random_state=0
    )
    found = attack.minimal(clf, X, certificates.labels)
    assert (certificates.labels == y).mean() > 0.7
    assert found.inputs.shape == X.shape
    assert found.success.all()
    assert (found.distance > np.where(certificates.abstained, 0.0, certificates.radii)).all()
    np.testing.assert_array_equal(np.rint(found.inputs * 16), found.inputs * 16)
    # The gradient knows more than the faces do.
    faces = GreedyFaceAttack(order="reach", n_votes=100, random_state=0).minimal(clf, X, certificates.labels)
    assert np.median(found.upper_bounds) < np.median(faces.upper_bounds)


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits: {"logits": logits, "hidden": -logits},
        lambda logits: (logits, -logits),
        lambda logits: logits[:, 1] - logits[:, 0],
    ],
)
def test_gradients_come_from_the_logits_that_vote(pack):
    """One logit for two classes has the same softmax as two."""

    class Packed(nn.Linear):
        def forward(self, rows):
            return self.pack(super().forward(rows))

    module = Packed(3, 2).requires_grad_(False)
    module.weight[:], module.bias[:] = torch.tensor([[1.0, 2, 0], [-1, 0, 1]]), torch.tensor([-0.5, 0.5])
    attack, x = GradientAttack(random_state=0, **QUICK), np.array([[0.8, 0.6, 0.1]])
    found = []
    for module.pack in (lambda logits: logits, pack):
        clf = smooth(module, noise=UniformNoise(0.5), n_samples=500, random_state=0)
        found.append(attack.minimal(clf, x))
    assert found[0].success.all()
    np.testing.assert_allclose(found[1].inputs, found[0].inputs, atol=1e-6)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (GreedyFaceAttack(order="up"), "order must be one of"),
        (GreedyFaceAttack(n_votes=0), "n_votes must be"),
        (GreedyFaceAttack(max_queries=10), "max_queries must exceed"),
        (CoordinateAttack(alpha=2), "alpha must lie"),
        (GradientAttack(), "GradientAttack needs a torch model"),
    ],
)
def test_bad_parameters(attack, message):
    clf = smooth(Rule(constant).fit(None, None), noise=UniformNoise(1.0), n_samples=500)
    with pytest.raises(ValueError, match=message):
        attack.minimal(clf, np.array([[0.5]]))
    clone(attack)


def test_every_pair_of_faces_can_be_reached():
    """Whichever single feature and direction matters, both black-box attacks find it."""
    for feature, up in itertools.product(range(3), (True, False)):
        sign = 1 if up else -1
        rule = Rule(lambda X, f=feature, s=sign: (s * (X[:, f] - 0.5) > 0.1).astype(int)).fit(None, None)
        clf = smooth(rule, noise=DeterministicSplitNoise(0.5, levels=10))
        for attack in BLACK_BOX:
            found = attack.minimal(clf, np.full((1, 3), 0.5))
            moved = np.flatnonzero(found.inputs[0] != 0.5)
            assert found.success[0]
            assert moved.tolist() == [feature]
            assert (found.inputs[0, feature] > 0.5) == up
