"""Categories that change together with numbers."""

import numpy as np
import pytest

from smoothcert import GreedyRadius, UniformMixtureNoise, UniformNoise
from smoothcert.certify.changes import changes_of
from smoothcert.certify.reach import worst_perturbations
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features


def test_changed_categories_count_among_the_features_that_change():
    features = Features(np.array([0.1, 0.5, 0.1, 0.1]), np.array([0, 3, 0, 0]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(1.0), (4,), features)
    X = np.array([[0.5, 2.0, 0.0, 0.25]])
    found = [
        worst_perturbations(GreedyRadius(max_features=most), mechanism, X, np.array([0.7])) for most in (1, 2, 3, None)
    ]
    expected = [[0, 0.5, 0, 0], [0, 0.5, 0.1, 0], [0, 0.5, 0.1, 0.075], [0.025, 0.5, 0.1, 0.075]]
    for one, moved in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.moves, [moved], atol=1e-6)
    np.testing.assert_allclose(found[2].perturbed, [[0.5, 0, 1, 1]], atol=1e-5)


def test_a_radius_just_below_the_cost_of_a_change_does_not_change_it():
    """The budget pays for all numbers, of cost 1/4 each, and not for a category of cost 1."""
    features = Features(np.array([0.25, 1.0, 0.25]), np.array([0, 2, 0]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(3.0), (3,), features)
    X, strategy = np.zeros((1, 3)), GreedyRadius()
    changes = changes_of(mechanism)
    reaches = changes.reaches(strategy, np.maximum(*mechanism.room(X)))
    most = changes.within(strategy, mechanism.noise.budget(np.array([0.66]), np.array([0.34])), reaches)
    assert most[0] == pytest.approx(1, abs=1e-12)
    assert most[0] < 1
    for distance, changed in ((most, 0), (np.ones(1), 1)):
        assert worst_perturbations(strategy, mechanism, X, distance).moves[0, 1] == changed


def test_mixtures_count_hidden_categories_by_their_overlap():
    """Whether they are masked or drawn: the parts of a mixture have offsets of their own."""
    for noise, curved in ((UniformMixtureNoise([1.0, 2.0]), False), (UniformNoise(2.0), True)):
        features = Features(np.array([1.0, 0.5]), np.array([0, 3]), "uniform")
        sets = changes_of(NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,), features)).sets
        assert [one.curve is not None for one in sets] == [False, *[curved] * (len(sets) - 1)]
        assert len(sets) > 1
