"""What the results of attacks say."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from smoothcert import UniformNoise
from smoothcert.attacks import GreedyFaceAttack

from ..base_models import Rule, steps
from .targets import adversarials, smooth


def test_what_results_say():
    found = adversarials([0.25, 0.5, 0.75], [True, True, False])
    words = "3 inputs, 2 successes at median l1 distance 0.375, 100 queries each on average, alpha=0.01"
    assert repr(found) == f"Adversarials({words})"
    assert "median l1 distance 0.3335," in repr(replace(found, distance=np.full(3, 0.33341)))
    assert "0 successes at median l1 distance nan" in repr(found[2:])
    assert found.upper_bounds.tolist() == [0.25, 0.5, np.inf]
    # An adversarial input at exactly the radius counts.
    at = [0.0, 0.25, np.nextafter(0.25, 0), 0.5, 9.0]
    np.testing.assert_array_equal(found.robust_accuracy(at), [1, 2 / 3, 1, 1 / 3, 1 / 3])
    assert isinstance(found.robust_accuracy(0.25), float)


def test_results_are_sliced_pickled_and_shown():
    clf = smooth(Rule(steps([0.8])).fit(None, None), noise=UniformNoise(1.0), n_samples=500, random_state=0)
    found = GreedyFaceAttack(random_state=0).minimal(clf, np.array([[0.2], [0.5], [0.7]]))
    assert len(found[1:]) == 2
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).distance, found.distance)
    assert "3 inputs" in repr(found)
    with pytest.raises(ValueError, match="radius must hold numbers of at least 0"):
        found.robust_accuracy(-1)
    with pytest.raises(ValueError, match="read-only"):
        found.distance[0] = 1
