"""Certification that stops early: validity on base models of known probabilities, and independence of batches."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from scipy.stats import beta, binom
from sklearn.linear_model import LogisticRegression
from torch import nn

from smoothcert import (
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    TorchInference,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.certify.binomial import class_probabilities
from smoothcert.certify.duel import Duel
from smoothcert.certify.evidence import BET, certified_at, rejected
from smoothcert.certify.futility import is_futile
from smoothcert.certify.reach import certified_radii, required_probability
from smoothcert.certify.stopping import RadiusPrecision, RadiusTest, expected_votes
from smoothcert.models.sklearn import SklearnVoter
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.sampler import Votes

from ..base_models import Rule, constant, fail_as_torch

LEVELS = 1000
ALPHA = 0.05


def inputs(n):
    """Return inputs that differ in the second feature, which the base models below do not look at."""
    return np.column_stack([np.full(n, 0.5), np.arange(n) / LEVELS % 1, np.arange(n) // LEVELS / LEVELS])


def smooth(shares, noise=None, n_classes=None, **params):
    """Return a classifier whose base model answers class k with probability ``shares[k]``, and those probabilities.

    Under uniform noise on a lattice the first feature is equally likely to be each of L numbers, and thresholds between
    them cut off exact shares.
    """
    noise = UniformNoise(1.0, levels=LEVELS) if noise is None else noise
    size = noise.n_offsets
    ends = np.rint(np.cumsum(shares) * size).astype(int)
    thresholds = 0.5 - noise.effective_lam + ends[:-1] / noise.q
    model = Rule(lambda X: np.searchsorted(thresholds, X[:, 0]), range(n_classes or len(shares))).fit(None, None)
    params = {"alpha": ALPHA, "n_samples": 2000, "n_selection": 32, "random_state": 0} | params
    clf = SmoothedClassifier.from_pretrained(model, model.classes_, noise, **params)
    return clf, np.diff([0, *ends]) / size


def rarely(wrong, tried, alpha=ALPHA):
    """Tell whether so many errors are compatible with probability ``alpha`` each."""
    return wrong <= binom.ppf(1 - 1e-4, tried, alpha)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.54, 0.46], [0.4, 0.35, 0.25]])
def test_labels_of_close_inputs_are_those_of_predict(shares):
    """Selection takes other numbers of votes for some of them, and not always the most probable class."""
    X = inputs(100)
    clf, _ = smooth(shares, n_selection=256, n_samples=200)
    labels = clf.predict(X)
    assert len(set(labels)) > 1
    for found in (clf.certify_at(X, 0.1), clf.certify_at(X, [[0.1, 0.2]]), clf.certify(X)):
        np.testing.assert_array_equal(found.labels, labels)
    drawn = clf.algorithm((3,)).sampler(0).draw(X).selection
    np.testing.assert_array_equal(drawn.argmax(axis=1), labels)
    assert len(set(drawn.sum(axis=1))) > 1


def test_predict_proba_draws_all_selection_votes():
    clf, _ = smooth([0.9, 0.1], n_selection=256)
    model, X = clf.estimator_.estimator, inputs(40)
    asked, answer = [], model.function
    model.function = lambda rows: asked.append(len(rows)) or answer(rows)
    votes = 256 * clf.predict_proba(X)
    # Some rows are asked alone too, at most 40 of a batch.
    assert 256 * len(X) <= sum(asked) < 256 * len(X) + 200
    np.testing.assert_allclose(votes, votes.round(), atol=1e-10)
    assert (votes.round().astype(int) % 16).any()
    asked.clear()
    clf.predict(X)
    assert sum(asked) < 64 * len(X)


SHARES = [
    pytest.param([0.7, 0.3], id="two classes"),
    pytest.param([0.97, 0.03], id="two classes, near 1"),
    pytest.param([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], id="weak rivals"),
    pytest.param([0.55, 0.2, 0.2, 0.05], id="rivals that tie"),
    pytest.param([0.6, 0.35, 0.05], id="one strong rival"),
]


@pytest.mark.parametrize("scheme", ["multiclass", "binary"])
@pytest.mark.parametrize("shares", SHARES)
def test_a_radius_at_the_threshold_is_rarely_certified(shares, scheme):
    """The radius is the least that is not certified by the true probabilities: every certification is false."""
    clf, p = smooth(shares, scheme=scheme)
    margin = p[0] - (p[1:].max() if scheme == "multiclass" else 1 - p[0])
    # Rivals that tie make false certificates rarer.
    X, radius = inputs(1500 if scheme == "multiclass" and len(shares) == 4 else 500), 1e-12
    if margin > 0:
        exact = LipschitzRadius().radii(clf.noise_, np.array([margin]), np.zeros(1), np.ones((1, 1)), np.ones((1, 1)))
        radius += float(exact[0]) * (1 + 1e-9)
    decisions = clf.set_params(radius="lipschitz").certify_at(X, radius)
    selected = decisions.labels == 0
    wrong = int((decisions.robust & selected).sum())
    assert rarely(wrong, selected.sum())
    if shares[0] > 0.5:
        assert wrong > 0, "a test of no power would pass as well"


class AtRadius:
    """What votes say about a radius that needs a given probability, all inputs having the same selection votes."""

    def __init__(self, required, checkpoints, n_classes=2, alpha=ALPHA, selection=(28, 4)):
        missing = n_classes - np.shape(selection)[-1]
        self.selection = np.pad(np.atleast_2d(selection), ((0, 0), (0, missing)))
        self.required, self.checkpoints = required, checkpoints
        self.rule = {"alpha": alpha, "strongest_rival": n_classes > 2, "cap": int(checkpoints[-1])}

    def known(self, counts):
        selection = np.broadcast_to(self.selection, counts.shape)
        return {"selection": selection, "required": np.full(len(counts), self.required)}

    def certified(self, counts):
        known = self.known(counts)
        return certified_at(known["selection"], counts, known["required"], **self.rule)

    def enough(self, counts):
        return RadiusTest(strategy=None, mechanism=None, **self.rule).enough(counts, **self.known(counts))

    def rejected(self, counts):
        apart, known = self.rule["strongest_rival"], self.known(counts)
        top = np.zeros(len(counts), dtype=int)
        duels = [Duel.of(votes, top, strongest_rival=apart) for votes in (known["selection"], counts)]
        return rejected(*duels, known["required"], BET * self.rule["alpha"], strongest_rival=apart)


@pytest.mark.parametrize("checkpoints", [np.arange(1, 301), np.array([16, 32, 100, 300]), np.array([300])])
@pytest.mark.parametrize("required", [0.5, 0.7, 0.95, 0.999])
def test_the_exact_probability_of_a_false_certificate(required, checkpoints):
    """Of two classes, at the threshold, by summing over all ways that the votes can come; whenever one stops."""
    rule, last = AtRadius(required, checkpoints), checkpoints[-1]
    # The distribution of the votes for the class, where nothing has been certified yet.
    alive, n, false = np.array([1.0]), 0, 0.0
    for look in checkpoints:
        alive, n = np.convolve(alive, binom.pmf(np.arange(look - n + 1), look - n, required)), look
        counts = np.column_stack([np.arange(n + 1), n - np.arange(n + 1)])
        certified = rule.certified(counts)
        false += alive[certified].sum()
        alive[certified] = 0
    assert false <= ALPHA
    if required**last < ALPHA / 10:
        assert false > ALPHA / 50, "a test of no power would pass as well"


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("required", [0.6, 0.9])
def test_the_last_look_certifies_what_algorithm_1_does_at_the_rest_of_alpha(required, n_classes):
    n, rng = 3000, np.random.default_rng(0)
    counts = np.array([rng.multinomial(n, rng.dirichlet([9, 1, 1][:n_classes])) for _ in range(500)])
    rule = AtRadius(required, np.array([n]), n_classes)
    p_a, p_b = class_probabilities(
        counts, np.zeros(500, dtype=int), scheme="multiclass", bound="clopper-pearson", alpha=(1 - BET) * ALPHA
    )
    ordinary = p_a - p_b >= 2 * required - 1
    by_bets = rule.rejected(counts)
    np.testing.assert_array_equal(rule.certified(counts), ordinary | by_bets)
    assert (ordinary & ~by_bets).any()
    assert not ordinary.all()
    # Before the last look, only bets count.
    earlier = AtRadius(required, np.array([n, 2 * n]), n_classes)
    assert (rule.certified(counts) & ~earlier.certified(counts)).any()


@pytest.mark.parametrize("share", [0.72, 0.75, 0.8])
def test_giving_up_costs_few_certificates(share):
    """Against a rule that never gives up, on the same votes."""
    checkpoints, rng = np.array([16, 32, 64, 128, 256, 512, 1024]), np.random.default_rng(0)
    rule = AtRadius(0.7, checkpoints, alpha=0.001)
    hits, certified, given_up, n = np.zeros(4000, dtype=int), np.zeros(4000, bool), np.zeros(4000, bool), 0
    for look in checkpoints:
        hits, n = hits + rng.binomial(look - n, share, size=4000), look
        counts = np.column_stack([hits, n - hits])
        certified |= rule.certified(counts)
        given_up |= rule.enough(counts) & ~certified
    assert (certified & given_up).mean() < 0.01
    assert given_up.mean() > 0.5 * (~certified).mean()


@pytest.mark.parametrize(("p_a", "p_b", "n_rivals"), [(0.3, 0.005, 140), (0.35, 0.05, 13), (0.5, 0.03, 16)])
def test_giving_up_costs_few_certificates_of_many_classes(p_a, p_b, n_rivals):
    """Where most votes are for neither the class nor its rival, at the radius of which half would be certified."""
    checkpoints, rng, size = np.array([100, 1000, 3000, 9000, 9900, 10_000]), np.random.default_rng(0), 500
    shares = np.array([p_a, *[p_b] * n_rivals])
    shares = np.append(shares, max(0.0, 1 - shares.sum()))
    counts = np.cumsum([rng.multinomial(step, shares, size=size) for step in np.diff(checkpoints, prepend=0)], axis=0)
    top = np.zeros(size, dtype=int)
    p_a, p_b = class_probabilities(counts[-1], top, scheme="multiclass", bound="clopper-pearson", alpha=0.001)
    selection, required = rng.multinomial(256, shares, size=size), (1 + np.quantile(p_a - p_b, 0.3)) / 2
    rule = AtRadius(required, checkpoints, len(shares), alpha=0.001, selection=selection)
    certified, given_up = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for count in counts:
        certified |= rule.certified(count)
        given_up |= rule.enough(count) & ~certified
    assert certified.mean() > 0.4
    assert (certified & given_up).mean() < 0.02


def test_what_unanimous_votes_would_not_certify_is_given_up_at_once():
    checkpoints = np.array([16, 32, 10_000])
    for required, hopeless in ((0.9993, False), (0.99932, True)):
        assert AtRadius(required, checkpoints, alpha=0.001).enough(np.array([[16, 0]])) == hopeless


def test_giving_up_knows_small_alpha():
    rule = AtRadius(0.5, np.array([16, 3000]), alpha=1e-100)
    assert not rule.enough(np.array([[14, 2]]))


@pytest.mark.parametrize("scheme", ["multiclass", "binary"])
@pytest.mark.parametrize("shares", SHARES)
def test_precise_radii_are_rarely_too_large(shares, scheme):
    clf, p = smooth(shares, scheme=scheme, rtol=0.1)
    certificates = clf.set_params(radius="lipschitz").certify(inputs(300))
    margin = p[0] - p[1:].max()
    exact = LipschitzRadius().radii(clf.noise_, np.array([margin]), np.zeros(1), np.ones((1, 1)), np.ones((1, 1)))
    selected = certificates.labels == 0
    wrong = (np.nan_to_num(certificates.radii, nan=0.0) > exact[0] + 1e-9) & selected
    assert rarely(wrong.sum(), selected.sum())
    certified = (certificates.margin[selected] > 0).sum()
    if margin > 0.1 and (scheme == "multiclass" or shares[0] > 0.5):
        assert certified
    else:
        assert rarely(certified, selected.sum())


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_decisions_are_right_away_from_the_threshold(shares, factor):
    """With votes enough, what is certified is what the true probabilities certify."""
    clf, p = smooth(shares, n_samples=200_000, n_selection=256, alpha=0.001, radius="lipschitz")
    margin = p[0] - p[1:].max()
    exact = 2 * clf.noise_.effective_lam * margin / 2
    decisions = clf.certify_at(inputs(40), exact * factor)
    assert (decisions.labels == 0).all()
    assert decisions.robust.all() == (factor < 1)
    assert decisions.robust.any() == (factor < 1)
    assert decisions.n_samples.max() < 200_000, "neither side needs all votes"


def test_easy_and_hopeless_inputs_need_few_votes():
    clf, _ = smooth([1.0, 0.0], n_samples=100_000, alpha=0.001)
    X = inputs(5)
    assert (clf.certify_at(X, 0.1).n_samples <= 32).all()
    unreachable = clf.certify_at(X, 2.5)
    assert not unreachable.robust.any()
    assert (unreachable.n_samples <= 16).all()
    hopeless, _ = smooth([0.55, 0.45], n_samples=100_000, alpha=0.001)
    assert not hopeless.certify_at(X, 0.8).robust.any()
    assert (hopeless.certify_at(X, 0.8).n_samples < 1000).all()


def test_radius_0_asks_for_a_majority():
    clf, _ = smooth([0.7, 0.3])
    decisions = clf.certify_at(inputs(20), 0)
    assert decisions.robust.all()
    assert not smooth([0.5, 0.5])[0].certify_at(inputs(20), 0.0).robust.all()


def test_each_input_can_have_a_radius_of_its_own():
    clf, _ = smooth([0.9, 0.1], n_samples=10_000)
    X, radii = inputs(4), np.array([0.1, 1.5, 0.5, 0.79])
    together = clf.certify_at(X, radii)
    assert together.robust.tolist() == [True, False, True, False]
    for i in range(4):
        alone = clf.certify_at(X[i : i + 1], radii[i])
        assert (alone.robust[0], alone.n_samples[0]) == (together.robust[i], together.n_samples[i])


def test_precise_radii_stop_early_and_lose_little():
    clf, _ = smooth([0.96, 0.03, 0.01], n_samples=20_000, n_selection=256, alpha=0.001)
    X = inputs(100)
    fixed = clf.certify(X)
    assert (fixed.n_samples == 20_000).all()
    early = clf.set_params(rtol=0.05).certify(X)
    assert early.n_samples.mean() < 20_000 / 4
    assert early.radii.mean() > 0.94 * fixed.radii.mean()
    finer = clf.set_params(rtol=0.01).certify(X)
    assert finer.n_samples.mean() > early.n_samples.mean()
    assert finer.radii.mean() > early.radii.mean()
    np.testing.assert_array_equal(early.labels, clf.predict(X))


def test_votes_that_are_given_are_all_used():
    clf, _ = smooth([0.9, 0.1])
    X = inputs(10)
    votes = clf.count_votes(X)
    fixed = clf.certify(X, votes=votes)
    np.testing.assert_array_equal(clf.set_params(rtol=0.1).certify(X, votes=votes).radii, fixed.radii)


def random_models():
    """Return a scikit-learn model and a network, whose votes on random inputs range from clear to tied."""
    rng = np.random.default_rng(0)
    X, y = rng.random((200, 4)), rng.integers(3, size=200)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    return {"linear": LogisticRegression().fit(X + y[:, None] / 5, y), "network": network}


@pytest.mark.parametrize("model", ["linear", "network"])
@pytest.mark.parametrize("mode", ["certify_at", "rtol"])
def test_neither_batches_nor_company_nor_workers_matter(model, mode):
    X = np.random.default_rng(1).random((12, 4))

    def run(rows=slice(None), backend="threading", **params):
        clf = SmoothedClassifier.from_pretrained(
            random_models()[model], range(3), SplitNoise(1.0), n_samples=600, n_selection=64, random_state=0, **params
        )
        with joblib.parallel_config(backend=backend):
            if mode == "certify_at":
                result = clf.certify_at(X[rows], 0.3)
                return np.column_stack([result.labels, result.robust, result.n_samples])
            result = clf.set_params(rtol=0.1).certify(X[rows])
        return np.column_stack([result.labels, result.radii, result.n_samples])

    whole = run()
    assert len(np.unique(whole[:, 2])) > 2
    np.testing.assert_array_equal(run(rows=slice(3), batch_size=1), whole[:3])
    for size in (7, 333):
        np.testing.assert_array_equal(run(batch_size=size), whole)
    np.testing.assert_array_equal(run(rows=slice(None, None, -1)), whole[::-1])
    np.testing.assert_array_equal(run(rows=[5]), whole[[5]])
    backend = "loky" if (mode, model) in (("certify_at", "linear"), ("rtol", "network")) else "threading"
    np.testing.assert_array_equal(run(n_jobs=2, backend=backend), whole)


@pytest.mark.parametrize("noise", [SplitNoise(1.0), GaussianNoise(0.5)], ids=["split", "gaussian"])
@pytest.mark.parametrize("mode", ["certify_at", "rtol"])
def test_votes_that_are_drawn_ahead_change_nothing(mode, noise, monkeypatch):
    """Few rows more cost no time, so that votes for several checkpoints share a batch."""
    X, n_calls = np.random.default_rng(1).random((12, 4)), []

    class Counting(LogisticRegression):
        def predict(self, X):
            n_calls[-1] += 1
            return super().predict(X)

    def run(free_rows):
        monkeypatch.setattr(SklearnVoter, "free_rows", free_rows)
        n_calls.append(0)
        model = random_models()["linear"]
        model.__class__ = Counting
        clf = SmoothedClassifier.from_pretrained(model, range(3), noise, n_samples=2000, random_state=0)
        if mode == "certify_at":
            found = clf.certify_at(X, [[0.2, 0.3]])
            return np.column_stack([found.labels, found.n_samples, found.robust])
        found = clf.set_params(rtol=0.1).certify(X)
        return np.column_stack([found.labels, found.n_samples, found.radii])

    whole = run(1)
    assert len(np.unique(whole[:, 1])) > 2
    for free_rows in (300, 4000, 10**6):
        np.testing.assert_array_equal(run(free_rows), whole)
    assert n_calls[0] > 1.3 * n_calls[-1], n_calls


@pytest.mark.parametrize(
    ("noise", "radius"),
    [
        (SplitNoise(1.0), "auto"),
        (SplitNoise(0.3), "auto"),
        (UniformMixtureNoise(), "auto"),
        (GaussianNoise(0.5), "auto"),
        (GaussianNoise(0.5), LipschitzRadius(norm=2)),
        (GaussianNoise(0.5, levels=8), "box"),
        (UniformNoise(1.0), LipschitzRadius(norm=np.inf)),
        (UniformNoise(1.0), GreedyRadius(max_features=2)),
        (LaplaceNoise(0.5), "auto"),
    ],
)
def test_a_decision_is_a_certificate_at_the_required_probability(noise, radius):
    """All noises and strategies: robust inputs have a radius of that size at the probability that was tested."""
    X = np.random.default_rng(1).integers(9, size=(6, 4)) / 8
    clf = SmoothedClassifier.from_pretrained(
        random_models()["linear"], range(3), noise, radius=radius, n_samples=50_000, alpha=1e-6, random_state=0
    )
    fixed = clf.certify(X)
    clf.set_params(n_samples=3000, alpha=0.001)
    for target in (0.0, 0.1, 0.4):
        decisions = clf.certify_at(X, target)
        assert decisions.robust.any() or (fixed.radii[~fixed.abstained] < target + 0.2).all()
        far_below = fixed.abstained | (fixed.radii < 0.8 * target - 0.05)
        assert not (decisions.robust & far_below).any()
        if not isinstance(clf.radius, str):
            mechanism = NoiseMechanism(clf.box_, clf.noise_, (4,))
            p = required_probability(clf.radius, mechanism, X, target)
            reachable = p <= 1
            found = certified_radii(clf.radius, mechanism, X[reachable], p[reachable], 1 - p[reachable])
            assert (found >= target).all()


def test_noise_without_sampling_decides_exactly():
    noise = DeterministicSplitNoise(1.0, levels=4)
    clf = SmoothedClassifier.from_pretrained(Rule(constant).fit(None, None), [0, 1], noise)
    decisions = clf.certify_at([[0.25, 0.5]], [0.75])
    assert decisions.robust.all()
    assert decisions.alpha == 0
    assert decisions.n_samples.tolist() == [8]
    assert not clf.certify_at([[0.25, 0.5]], 1.5).robust.any()
    assert clf.set_params(rtol=0.1).certify([[0.25, 0.5]]).n_samples.tolist() == [8]


def test_a_single_class_is_certain():
    clf = SmoothedClassifier.from_pretrained(nn.Linear(2, 1), [7], n_selection=1, n_samples=1)
    assert clf.certify_at([[0.1, 0.2]], 100.0).robust.all()


def test_memory_that_does_not_suffice_changes_nothing():
    """A model that fails on large batches gets smaller ones, and no vote is lost or counted twice."""
    whole, _ = smooth([0.7, 0.2, 0.1])
    X = inputs(30)
    expected = whole.count_votes(X)
    known = whole.estimator_.estimator.function

    def frugal(rows):
        if len(rows) > 70:
            raise MemoryError
        return known(rows)

    model = Rule(frugal, range(3)).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(model, range(3), whole.noise, **whole_params(whole))
    np.testing.assert_array_equal(clf.count_votes(X).estimation, expected.estimation)
    decisions, known_decisions = clf.certify_at(X, 0.4), whole.certify_at(X, 0.4)
    np.testing.assert_array_equal(decisions.n_samples, known_decisions.n_samples)

    def never(rows):
        raise MemoryError("no room for a single row")

    clf = SmoothedClassifier.from_pretrained(Rule(never).fit(None, None), range(2))
    with pytest.raises(MemoryError, match="no room for a single row"):
        clf.predict(X)


def whole_params(clf):
    return {name: getattr(clf, name) for name in ("alpha", "n_samples", "n_selection", "random_state")}


class Scarce(nn.Module):
    """A network that runs out of memory, in the words of the device, on large batches."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.linear = nn.Linear(3, 2)

    def forward(self, X):
        if len(X) > 50:
            fail_as_torch(self.error)
        return self.linear(X)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB)."),
        RuntimeError("CUDA error: invalid configuration argument"),
    ],
)
def test_networks_that_run_out_of_memory_get_smaller_batches(error):
    torch.manual_seed(0)
    model = Scarce(error)
    counts = []
    for module in (model, model.linear):
        clf = SmoothedClassifier.from_pretrained(module, range(2), n_samples=500, random_state=0)
        counts.append(clf.count_votes(inputs(7)).estimation)
    np.testing.assert_array_equal(*counts)


class Tied(nn.Module):
    """A network of logits that always nearly tie, and that runs out of memory when a row is asked about alone."""

    def __init__(self, failures):
        super().__init__()
        self.failures = failures
        self.rng = {"left": failures}

    def forward(self, X):
        if len(X) == 1 and self.rng["left"]:
            self.rng["left"] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        z = X.sum(dim=1)
        return torch.stack([z, z + 1e-6 * torch.sign(z - z.round())], dim=1)


@pytest.mark.parametrize("failures", [1, 3])
def test_no_vote_is_lost_where_memory_runs_out_over_a_near_tie(failures, monkeypatch):
    # Of several threads each would have failures of its own.
    monkeypatch.setattr("smoothcert.models.torch.n_threads", lambda n_cores: 1)
    counts = []
    for module in (Tied(0), Tied(failures)):
        clf = SmoothedClassifier.from_pretrained(module, range(2), n_samples=600, batch_size=64, random_state=0)
        counts.append(clf.count_votes(inputs(2)).estimation)
    assert (counts[0].sum(axis=1) == 600).all()
    assert (counts[0] > 0).all()
    np.testing.assert_array_equal(*counts)


def test_a_batch_is_no_larger_than_its_votes():
    clf, _ = smooth([0.9, 0.1], batch_size=10**12)
    np.testing.assert_array_equal(clf.predict(inputs(2)), [0, 0])


def test_decisions_can_be_sliced_and_stored():
    clf, _ = smooth([0.9, 0.1])
    decisions = clf.certify_at(inputs(5), 0.2)
    assert len(decisions[1:3]) == 2
    labels, robust = pickle.loads(pickle.dumps(decisions))
    np.testing.assert_array_equal(labels, decisions.labels)
    np.testing.assert_array_equal(robust, decisions.robust)
    assert repr(decisions).startswith(
        "Decisions(5 inputs, 5 robust in l1 against perturbations on the lattice of 1000 levels, "
    )
    with pytest.raises(ValueError, match="read-only"):
        decisions.robust[0] = False


@pytest.mark.parametrize(
    "radius", [-0.1, np.nan, [0.1, 0.2], "far", None, True, [[0.1, -0.2]], [[0.1], [0.2]], [[]], [[[0.1]]]]
)
def test_bad_radii(radius):
    clf, _ = smooth([0.9, 0.1])
    with pytest.raises(
        ValueError, match=r"radius must be a number of at least 0, or one for each of 3 inputs, or rows of"
    ):
        clf.certify_at(inputs(3), radius)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rtol": -0.1}, "rtol must be 0 or a finite number above 0, got -0.1"),
        ({"rtol": 1.0}, "rtol must lie below 1, got 1.0"),
        ({"rtol": "fine"}, "rtol must be .* got 'fine'"),
        ({"inference": TorchInference(autocast="int8")}, "autocast must be one of None, 'bfloat16', 'float16', got 'i"),
        ({"inference": TorchInference(compile=1)}, "compile must be True or False, got 1"),
        ({"inference": "fast"}, "inference must be a TorchInference or None, got 'fast'"),
        (
            {"inference": TorchInference(compile=True)},
            "inference=.* is for torch models, got a Rule. Use inference=None",
        ),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        smooth([0.9, 0.1], **params)


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.9, 0.06, 0.04]])
def test_votes_are_foreseen_from_vote_shares(shares):
    clf, _ = smooth(shares, n_samples=10_000, n_selection=64, alpha=0.001)
    X, radii = inputs(60), np.full(60, 0.5)
    algorithm = clf.algorithm(X.shape[1:])
    votes = algorithm.sampler(0).draw(X)
    test = clf.certify_at(X, radii).n_samples.mean()
    assert expected_votes(algorithm.radius_rule(), votes, X, radii).mean() == pytest.approx(test, rel=0.25)
    precise = clf.set_params(rtol=0.05).certify(X).n_samples.mean()
    rule = clf.algorithm(X.shape[1:]).precision_rule()
    assert expected_votes(rule, votes, X).mean() == pytest.approx(precise, rel=0.25)


# What rules decide, by hand


def rule_of(kind, n_classes=2, **choices):
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0, levels=1000), (2,))
    known = {"strategy": LipschitzRadius(), "mechanism": mechanism, "alpha": 0.01, "cap": 2000}
    return kind(**known, strongest_rival=n_classes > 2, **choices)


def test_rules_look_at_their_own_numbers_of_votes():
    test, precision = rule_of(RadiusTest).checkpoints, rule_of(RadiusPrecision, rtol=0.1).checkpoints
    assert test[:4].tolist() == [4, 8, 12, 16]
    assert precision[:5].tolist() == [64, 128, 192, 256, 320]
    for looks, step, growth in ((test, 4, 1.0625), (precision, 64, 1.15)):
        assert looks[-1] == 2000
        assert (looks[:-1] % step == 0).all()
        late = looks[:-1][looks[:-1] > 600]
        assert np.exp(np.diff(np.log(late)).mean()) == pytest.approx(growth, abs=0.02)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("rtol", [0.0, 0.1, 0.3])
def test_precision_compares_the_radius_with_the_largest_that_is_hoped_for(rtol, n_classes):
    """Radii are 2 p - 1 at lam 1; a quick bound p at alpha/16 stands for that of bets, with a 70 % quantile of luck."""
    rule, rng = rule_of(RadiusPrecision, n_classes, rtol=rtol), np.random.default_rng(0)
    n = rng.choice([64, 256, 960, 1856, 2000], size=300)
    share = rng.uniform(0.5, 1, size=300)
    counts = np.column_stack([np.rint(n * share), n - np.rint(n * share), 0 * n, 0 * n]).astype(int)
    counts[:, 2] = counts[:, 1] // 3
    counts[:, 1] -= counts[:, 2]
    counts = counts[:, :3] if n_classes == 3 else np.column_stack([counts[:, 0], n - counts[:, 0]])
    score = (n + counts[:, 0] - counts[:, 1]) / 2
    hoped_for = 2000 * beta.ppf(0.7, score + 0.5, n - score + 0.5)
    now, then = (
        np.maximum(2 * beta.ppf(0.01 / 16, k, m - k + 1) - 1, 0)
        for k, m in ((score, n), (hoped_for, np.full(300, 2000)))
    )
    k_b = counts[:, 1] if n_classes == 3 else n - counts[:, 0]
    hopeless = is_futile(counts[:, 0], k_b, n, 2000, 0.5, alpha=0.01 / 16, rivals_apart=n_classes == 3)
    enough = rule.enough(
        counts, selection=np.eye(1, n_classes, dtype=int).repeat(300, axis=0), X=np.full((300, 2), 0.5)
    )
    clear = (np.abs(now - (1 - rtol) * then) > 1e-6) & ((now > 1e-6) | (now == 0))
    np.testing.assert_array_equal(enough[clear], np.where(now > 0, now >= (1 - rtol) * then, hopeless)[clear])
    assert not enough.all()
    assert enough.any() or rtol == 0
    assert (now == 0).any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_radius_is_decided_once_it_is_certified_or_hopeless(n_classes):
    rule, rng = rule_of(RadiusTest, n_classes), np.random.default_rng(0)
    n = rng.choice([16, 64, 256, 1000], size=300)
    counts = np.array([rng.multinomial(m, rng.dirichlet([6, 1, 1][:n_classes])) for m in n])
    selection = rng.permuted(np.array([[30, 2, 0][:n_classes]] * 300), axis=1)
    required = rng.uniform(0.5, 1.05, size=300)
    top = selection.argmax(axis=1)
    k_a = counts[np.arange(300), top]
    k_b = np.where(np.eye(n_classes, dtype=bool)[top], -1, counts).max(axis=1) if n_classes == 3 else n - k_a
    apart = {"strongest_rival": n_classes == 3}
    certified = certified_at(selection, counts, required, alpha=0.01, cap=2000, **apart)
    hopeless = is_futile(k_a, k_b, n, 2000, required, alpha=0.01, rivals_apart=n_classes == 3)
    np.testing.assert_array_equal(rule.enough(counts, selection=selection, required=required), certified | hopeless)
    assert certified.any()
    assert hopeless.any()
    assert not (certified | hopeless).all()


def test_votes_that_are_foreseen_are_those_of_the_first_checkpoint_that_suffices():
    rule = rule_of(RadiusTest)
    estimation = np.array([[2000, 0], [1000, 1000], [1500, 500]])
    votes = Votes(selection=np.array([[32, 0]] * 3), estimation=estimation, inputs=np.zeros((3, 16), np.uint8), seed=0)
    X, at = np.full((3, 2), 0.5), np.array([0.2, 0.6, 0.4])
    required = required_probability(rule.strategy, rule.mechanism, X, at)
    found = expected_votes(rule, votes, X, at)
    for i, (share, _) in enumerate(estimation / 2000):
        for n in rule.checkpoints:
            counts = np.array([[np.rint(n * share), n - np.rint(n * share)]], dtype=int)
            if rule.enough(counts, selection=votes.selection[[i]], required=required[[i]])[0]:
                break
        assert found[i] == n
    assert len(set(found)) == 3


@pytest.mark.parametrize("noise", [GaussianNoise(0.5), LaplaceNoise(0.5)], ids=str)
@pytest.mark.parametrize("scheme", ["multiclass", "binary"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_stopping_early_says_where_it_takes_all_rivals_for_one(recwarn, noise, scheme, n_classes):
    rule = Rule(lambda X: np.digitize(X[:, 0], [0.5, 1.0][: n_classes - 1]), range(n_classes)).fit(None, None)
    params = {"noise": noise, "scheme": scheme, "n_samples": 200, "n_selection": 16, "random_state": 0}
    clf = SmoothedClassifier.from_pretrained(rule, rule.classes_, **params)
    joins = scheme == "multiclass" and n_classes == 3
    X = inputs(3)
    for use in (lambda: clf.certify_at(X, 0.01), lambda: clf.set_params(rtol=0.1).certify(X)):
        recwarn.clear()
        use()
        assert any("takes all rivals for one" in str(one.message) for one in recwarn) == joins
    recwarn.clear()
    clf.set_params(rtol=None).certify(X)
    assert not any("takes all rivals for one" in str(one.message) for one in recwarn)
