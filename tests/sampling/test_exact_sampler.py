"""Exact probabilities in place of votes, written out by hand."""

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from smoothcert import UniformNoise
from smoothcert.models.adapt import make_voter
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.exact import ExactVotes
from smoothcert.sampling.exact_sampler import ExactSampler, Shares

LOWER = np.array([[0.1, 0.6, 0.2], [0.5, 0.25, 0.125], [0.2, 0.2, 0.55]])
UPPER = np.array([[0.15, 0.7, 0.25], [0.55, 0.375, 0.25], [0.3, 0.5, 0.55]])
INPUTS = np.arange(48, dtype=np.uint8).reshape(3, 16)


def test_bounds_on_the_first_class_and_its_rival():
    shares = Shares.of(LOWER, UPPER, INPUTS, seed=5, seconds=2.0)
    upper = UPPER.copy()
    p_a, p_b = shares.probabilities("multiclass")
    assert p_a.tolist() == [0.6, 0.5, 0.55]
    # The rival's own upper bound, or what the first class leaves, whichever is smaller.
    np.testing.assert_allclose(p_b, [0.25, 0.375, 0.45], rtol=1e-15)
    p_a, p_b = shares.probabilities("binary")
    assert p_a.tolist() == [0.6, 0.5, 0.55]
    np.testing.assert_array_equal(p_b, [1 - 0.6, 0.5, 1 - 0.55])
    np.testing.assert_array_equal(shares.upper, upper)


def test_the_mean_of_the_bounds_chooses_the_class():
    lower, upper = np.array([[0.4, 0.3]]), np.array([[0.45, 0.7]])
    shares = Shares.of(lower, upper, INPUTS[:1])
    assert shares.selection.tolist() == [[pytest.approx(0.425), 0.5]]
    p_a, p_b = shares.probabilities("multiclass")
    assert (p_a.tolist(), p_b.tolist()) == ([0.3], [0.45])


def test_no_votes_are_drawn():
    shares = Shares.of(LOWER, UPPER, INPUTS, seed=5, seconds=2.0)
    assert (shares.seed, shares.seconds, shares.n_votes) == (5, 2.0, 0)
    assert [stage.tolist() for stage in shares.drawn] == [[0, 0, 0]] * 2
    assert (shares.estimation.shape, shares.estimation.any()) == ((3, 3), False)
    assert shares.recorded[0] is LOWER
    assert shares.recorded[1] is UPPER
    assert shares.inputs is INPUTS


def test_the_sampler_of_exact_probabilities():
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(lam=1.0), (1,))
    exact = ExactVotes(make_voter(tree, np.array([0, 1])), mechanism)
    sampler = ExactSampler(exact, seed=9)
    assert sampler.voter is exact.voter
    assert sampler.mechanism is mechanism
    assert (sampler.n_selection, sampler.n_samples) == (0, 0)
    assert [sampler.chunk_size(n) for n in (1, 63, 64, 65, 10**6)] == [1, 63, 64, 64, 64]
    X = np.array([[0.25], [1.0]])
    found = sampler.draw(X)
    np.testing.assert_allclose(found.lower, [[0.625, 0.375], [0.25, 0.75]], atol=1e-6)
    assert (found.lower <= found.upper).all()
    assert (found.seed, found.seconds > 0) == (9, True)
    np.testing.assert_array_equal(found.inputs, seeding.digests(mechanism.points(X)))
