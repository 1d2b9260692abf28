"""The verification of adversarial inputs: fresh votes, and levels that add up to alpha."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from smoothcert import DeterministicSplitNoise, GaussianNoise, UniformNoise
from smoothcert.attacks import GreedyFaceAttack, search
from smoothcert.attacks.verification import Verifier, shown_different

from ..base_models import Rule, constant, steps
from .targets import attacked, smooth


@pytest.mark.parametrize("label", [0, 2])
def test_the_rival_is_chosen_by_selection_votes_and_tested_by_estimation_votes(label):
    selection = np.roll([9, 5, 7], label)
    rival, other = (label + 2) % 3, (label + 1) % 3

    def shown(alpha, for_label, for_rival, for_other=0):
        estimation = np.zeros(3, dtype=int)
        estimation[[label, rival, other]] = for_label, for_rival, for_other
        return shown_different(selection, estimation, label, alpha)

    level = binomtest(60, 100, alternative="greater").pvalue
    assert shown(level * 1.001, 40, 60)
    assert not shown(level * 0.999, 40, 60)
    assert shown(level * 1.001, 40, 60, for_other=500)
    # Votes for a third class prove nothing, nor do no votes.
    assert not shown(0.05, 40, 40, for_other=500)
    assert not shown(0.05, 0, 0, for_other=500)
    # A bound of exactly one half is none above it.
    assert not shown(0.5, 0, 1)
    assert shown_different(selection, np.array([100, 0, 0]), -1, 0.001)


def test_votes_of_verifications_are_fresh_each_time():
    clf, seeds = smooth(n_selection=40, alpha=0.02), []
    verifier = Verifier(clf, (1,), None, None, 4, np.random.SeedSequence(3))
    sampler = verifier.algorithm.sampler
    verifier.algorithm = SimpleNamespace(
        sampler=lambda seed: seeds.append(seed) or sampler(seed), n_selection=40, exact=False
    )
    target = attacked([0.5], clf)
    for _ in range(3):
        assert verifier.verify(np.array([0.5]), target, 100) == (0, False, False)
    assert len(set(seeds)) == 3
    assert min(seeds) > 2**64
    assert (verifier.n_samples, verifier.alpha) == (500, 0.02)
    assert (verifier.queries(100), verifier.reserve) == (140, 4 * 540)
    assert verifier.clear_lead(500) == pytest.approx((norm.isf(0.02 / 4) + 1) / np.sqrt(500), rel=1e-6)
    given = Verifier(clf, (1,), 300, 0.04, 2, np.random.SeedSequence(3))
    assert (given.n_samples, given.alpha, given.level(300)) == (300, 0.04, pytest.approx(0.02, rel=1e-6))


def test_noise_with_few_outcomes_is_verified_once_and_for_certain():
    clf = smooth(Rule(steps([0.5])).fit(None, None), DeterministicSplitNoise(0.5, levels=4))
    verifier = Verifier(clf, (1,), None, None, 4, np.random.SeedSequence(3))
    assert (verifier.attempts, verifier.alpha, verifier.clear_lead(9)) == (1, 0.0, 0.0)
    assert verifier.queries(500) == verifier.reserve == clf.noise_.n_outcomes
    for x, winner in ((0.0, 0), (1.0, 1)):
        for label in (0, 1):
            found = verifier.verify(np.array([x]), attacked([0.5], clf, label=label), 500)
            assert found == (winner, winner != label, winner != label)


def test_alpha_must_exceed_the_error_of_drawing():
    """Each number of digital Gaussian noise has an error, which a million votes add up."""
    clf = smooth(noise=GaussianNoise(0.5, levels=255))
    error = clf.algorithm((1,)).mechanism.draw_error * 10**6
    for alpha, attempts in ((1.9 * error, 2), (3.9 * error, 4)):
        with pytest.raises(ValueError, match=r"alpha must exceed .*, the error of drawing, got"):
            Verifier(clf, (1,), 10**6, alpha, attempts, np.random.SeedSequence(0))
        Verifier(clf, (1,), 10**6, alpha + 0.2 * error, attempts, np.random.SeedSequence(0))


def test_no_attempt_spends_more_than_its_share_of_alpha():
    clf = smooth(Rule(constant).fit(None, None), noise=GaussianNoise(0.5, levels=255))
    verifier = Verifier(clf, (3,), 1000, 0.01, 4, None)
    for n in (1000, 64_000):
        drawing = verifier.mechanism.noise.draw_error * n * 3
        assert drawing > 0
        assert verifier.level(n) == pytest.approx(0.01 / 4 - drawing, abs=drawing * 1e-3)


def test_alpha_is_shared_by_four_attempts_of_minimal_and_two_of_run(monkeypatch):
    made = []
    monkeypatch.setattr(search, "Verifier", lambda *arguments: made.append(Verifier(*arguments)) or made[-1])
    clf = smooth(Rule(steps([0.8])).fit(None, None), noise=UniformNoise(1.0), n_samples=500, random_state=0)
    attack, X = GreedyFaceAttack(n_votes=50, alpha=0.01, random_state=0), np.array([[0.5]])
    attack.minimal(clf, X)
    attack.run(clf, X, radius=0.5)
    assert [verifier.attempts for verifier in made] == [4, 2]
    for verifier in made:
        assert verifier.level(500) == pytest.approx(0.01 / verifier.attempts, rel=1e-6)
