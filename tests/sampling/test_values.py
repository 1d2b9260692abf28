"""Numbers under noise: each sample alone, by the keys of its stage, and sorted."""

import numpy as np
import pytest

from smoothcert import UniformNoise
from smoothcert.models.function import FunctionVoter
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.values import Values, ValueSampler, scale_of

X = np.random.default_rng(0).uniform(-3, 5, (4, 2))
MECHANISM = NoiseMechanism(Box.from_bounds((-3, 5)), UniformNoise(0.5), (2,))


def slope(rows):
    return 2 * rows[:, 0] - rows[:, 1]


class Twins(FunctionVoter):
    """Votes in two threads."""

    def for_threads(self):
        return [self, FunctionVoter(self.function, None)]


def sampler(function=slope, kind=FunctionVoter, **params):
    given = {"mechanism": MECHANISM, "seed": 7, "n_selection": 20, "n_samples": 33, "batch_size": 9}
    return ValueSampler(voter=kind(function, None), **given | params)


def numbers_one_by_one(stage, n):
    points, found, row = MECHANISM.points(X), np.empty((len(X), n)), np.empty((1, 2))
    keys = seeding.keys(7, seeding.digests(points), stage)
    for i, sample in np.ndindex(found.shape):
        MECHANISM.sample(points, keys, np.array([[i, sample, 1]]), row)
        found[i, sample] = slope(row)[0]
    return np.sort(found, axis=1)


@pytest.mark.parametrize("kind", [FunctionVoter, Twins])
@pytest.mark.parametrize("batch_size", [9, 1000])
def test_numbers_are_those_of_single_rows_in_order(kind, batch_size):
    found = sampler(kind=kind, batch_size=batch_size).draw(X)
    np.testing.assert_allclose(found.selection, numbers_one_by_one(seeding.SELECTION, 20), rtol=1e-12)
    np.testing.assert_allclose(found.estimation, numbers_one_by_one(seeding.ESTIMATION, 33), rtol=1e-12)
    assert [stage.tolist() for stage in found.drawn] == [[20] * 4, [33] * 4]
    assert (found.n_votes, found.seed, found.seconds > 0) == (4 * 53, 7, True)
    np.testing.assert_array_equal(found.inputs, seeding.digests(MECHANISM.points(X)))


def test_a_stage_may_be_empty():
    found = sampler(n_selection=0).draw(X)
    assert found.selection.shape == (4, 0)
    np.testing.assert_allclose(found.estimation, numbers_one_by_one(seeding.ESTIMATION, 33), rtol=1e-12)


def test_unanimity_is_the_share_of_numbers_that_equal_their_neighbor():
    selection = np.array([[1.0, 1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5])
    values = Values(selection=selection, estimation=selection, inputs=np.zeros((3, 16), np.uint8), seed=0)
    assert values.unanimity.tolist() == [0.4, 0.0, 0.8]


def test_rounding_is_judged_by_each_number_and_by_the_usual_size():
    values = np.array([-1.0, 2.0, -3.0, 4.0, 1000.0])
    # The median size is 3, and a thousandth of the range 1.003.
    np.testing.assert_allclose(scale_of(values), np.array([1.0, 2.0, 3.0, 4.0, 1000.0]) + 3 + 1.003)
    infinite = np.array([np.inf, 1.0, -np.inf, -5.0])
    np.testing.assert_allclose(scale_of(infinite), [0.0, 1 + 3.006, 0.0, 5 + 3.006])
    assert scale_of(np.array([np.inf, -np.inf])).tolist() == [0.0, 0.0]


def by_place(change):
    """A model that answers otherwise to the first row of a larger batch."""

    def function(rows):
        found = np.ones(len(rows))
        found[0] += change if len(rows) > 1 else 0
        return found

    return function


@pytest.mark.parametrize(("change", "raises"), [(1.5e-4, False), (3e-4, True), (np.inf, True)])
def test_numbers_that_depend_on_the_batch_are_refused(change, raises):
    """A change of the only number of its size is compared with twice this size: less than 2e-4 is rounding."""
    asked = sampler(by_place(change), batch_size=50)
    asked.voter.most_changed = 0
    if raises:
        with pytest.raises(ValueError, match=r"depends on the batch or is random: 1 of 40 noisy rows"):
            asked.draw(X)
    else:
        assert asked.draw(X).estimation.shape == (4, 33)
