"""Scores of labels under noise, against loops over single samples."""

import numpy as np
import pytest

from smoothcert import UniformNoise
from smoothcert.models.function import FunctionVoter
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.scores import APSScore, ConformityScore, LACScore, ScoreSampler, copies_before

X = np.random.default_rng(0).random((4, 2))[[0, 1, 2, 1]]
MECHANISM = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(0.5), (2,))
N = 23


def probabilities(rows):
    odds = np.exp(np.column_stack([rows[:, 0], rows[:, 1], 0.3 + 0 * rows[:, 0]]))
    return odds / odds.sum(axis=1, keepdims=True)


class Twins(FunctionVoter):
    """Votes in two threads."""

    def for_threads(self):
        return [self, FunctionVoter(self.function, np.arange(3))]


def sampler(score, function=probabilities, kind=FunctionVoter, coarse_step=0.0, **params):
    voter = kind(function, np.arange(3))
    voter.coarse_step = coarse_step
    given = {"mechanism": MECHANISM, "seed": 7, "n_selection": 0, "n_samples": N, "batch_size": 9, "rank": 1}
    return ScoreSampler(voter=voter, score=score, **given | params)


def aps(p, u):
    """The probability of all labels before each in order, the first of equal ones first, and a share of its own."""
    order = sorted(range(len(p)), key=lambda label: -p[label])
    return [sum(p[other] for other in order[: order.index(label)]) + u * p[label] for label in range(len(p))]


def scores_one_by_one(name, stage, copies):
    points = MECHANISM.points(X)
    keys = seeding.keys(7, seeding.digests(points), stage)
    own, found, row = seeding.derived_keys(keys, b"score"), np.empty((len(X), N, 3)), np.empty((1, 2))
    for i, sample in np.ndindex(len(X), N):
        MECHANISM.sample(points, keys, np.array([[i, copies[i] * N + sample, 1]]), row)
        p = probabilities(row)[0].tolist()
        u = seeding.generator(own[i], copies[i]).random(N)[sample] if name == "randomized" else 1.0
        found[i, sample] = [1 - one for one in p] if name == "lac" else aps(p, u)
    return found


SCORES = {"lac": LACScore(), "aps": APSScore(randomized=False), "randomized": APSScore()}


@pytest.mark.parametrize("kind", [FunctionVoter, Twins])
@pytest.mark.parametrize("batch_size", [9, 1000])
@pytest.mark.parametrize("name", SCORES)
def test_calibration_returns_a_rank_among_the_scores_of_the_label(name, batch_size, kind):
    labels, copies = np.array([2, 0, 1, 0]), np.array([0, 0, 0, 1])
    expected = np.sort(
        np.take_along_axis(scores_one_by_one(name, seeding.SELECTION, copies), labels[:, None, None], axis=2)[:, :, 0]
    )
    for rank in (1, 8, N):
        asked = sampler(SCORES[name], rank=rank, batch_size=batch_size, kind=kind)
        found = asked.draw(X, np.column_stack([labels, copies]))
        np.testing.assert_allclose(found, expected[:, rank - 1], rtol=1e-12)
    # The second of two equal inputs has noise of its own.
    assert found[1] != found[3]


@pytest.mark.parametrize("kind", [FunctionVoter, Twins])
@pytest.mark.parametrize("batch_size", [9, 1000])
@pytest.mark.parametrize("name", SCORES)
def test_later_inputs_have_counts_below_the_threshold(name, batch_size, kind):
    expected = scores_one_by_one(name, seeding.ESTIMATION, [0] * 4)
    threshold = float(np.median(expected))
    found = sampler(SCORES[name], threshold=threshold, batch_size=batch_size, kind=kind).draw(X)
    # No score lies within rounding of the median, apart from itself.
    np.testing.assert_array_equal(found, (expected <= threshold + 2**-15).sum(axis=1))
    np.testing.assert_array_equal(found[1], found[3])
    assert 0 < np.median(found) < N


class Steps(ConformityScore):
    """A quarter, and some multiples of a step above it."""

    def __init__(self, step=1.0):
        self.step = step

    def scores(self, probabilities, uniforms):
        return np.tile(0.25 + self.step * np.array([0.0, 1.0, 1.5]), (len(probabilities), 1))


@pytest.mark.parametrize(("coarse_step", "rounding"), [(0.0, 2**-16), (2**-7, 2**-6), (2**-20, 2**-16)])
def test_scores_reach_the_threshold_in_spite_of_rounding(coarse_step, rounding):
    """Twice the rounding of a score is added to the threshold, which is a score itself."""
    found = sampler(Steps(2 * rounding), threshold=0.25, coarse_step=coarse_step).draw(X)
    assert found.tolist() == [[N, N, 0]] * 4


class Answering(ConformityScore):
    def __init__(self, function=None):
        self.function = function

    def scores(self, probabilities, uniforms):
        assert uniforms.shape == (len(probabilities), 1)
        assert (uniforms == 1).all(), "the score is not randomized"
        return self.function(probabilities)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p: p[:, :2], r"Answering\.scores must return one number for each label, shape \(9, 3\), but returned"),
        (lambda p: p * [1, 1, np.nan], r"(?s)one number for each label.*No set was made"),
        (
            lambda p: p - p.mean(axis=0),
            r"Answering\.scores must score each row by itself, .* than among 9\. No set was",
        ),
        (lambda p: p * (1 + 1e-5 * len(p)), "must score each row by itself"),
    ],
)
def test_scores_of_ones_own_are_checked(function, message):
    with pytest.raises(ValueError, match=message):
        sampler(Answering(function)).draw(X)
    assert sampler(Answering(lambda p: p * (1 + 1e-8 * len(p)))).draw(X).shape == (4, 3)


class InPlace(ConformityScore):
    randomized = True

    def scores(self, probabilities, uniforms):
        probabilities *= -1
        probabilities += 1
        uniforms *= 1e-3
        probabilities += uniforms - 1e-3
        return probabilities


@pytest.mark.parametrize("batch_size", [1, 9])
def test_scores_may_be_computed_in_place(batch_size):
    params = {"threshold": 0.7, "batch_size": batch_size}
    found = [sampler(score, **params).draw(X) for score in (InPlace(), LACScore())]
    np.testing.assert_array_equal(*found)
    assert 0 < np.median(found) < N


@pytest.mark.parametrize(("change", "raises"), [(5e-5, False), (3e-4, True)])
def test_probabilities_that_depend_on_the_batch_are_refused(change, raises):
    def function(rows):
        found = np.tile([0.25, 0.5, 0.25], (len(rows), 1))
        if len(rows) > 1:
            found[0] += [change, -change, 0]
        return found

    asked = sampler(LACScore(), function, batch_size=1000)
    asked.voter.most_changed = 0
    if raises:
        with pytest.raises(ValueError, match=r"depends on the batch or is random: 1 of 40 noisy rows"):
            asked.draw(X)
    else:
        assert asked.draw(X).shape == (4, 3)
    assert sampler(LACScore(), function, batch_size=1000, coarse_step=2**-13).draw(X).shape == (4, 3)


def test_parameters_of_scores():
    assert APSScore().randomized is True
    LACScore().check()
    APSScore(randomized=False).check()
    with pytest.raises(ValueError, match="randomized must be True or False, got 1"):
        APSScore(randomized=1).check()
    # Of equal probabilities the first label comes first.
    assert APSScore().scores(np.array([[0.25, 0.5, 0.25]]), np.array([[0.5]])).tolist() == [[0.625, 0.25, 0.875]]


def test_equal_inputs_are_told_by_all_of_their_digest():
    digests = np.array([[7, 1], [7, 2], [8, 1], [7, 1], [8, 2], [7, 2], [7, 1]], dtype=np.uint8)
    assert copies_before(digests).tolist() == [0, 0, 0, 1, 0, 1, 2]
    assert copies_before(digests[:1]).tolist() == [0]
