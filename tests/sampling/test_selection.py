import math

import numpy as np
import pytest

from smoothcert.sampling.selection import SelectionRule, is_decisive, selection_steps

CAP = 256


def select(rng, shares, cap=CAP):
    """Labels by steps and by all votes, and the votes that the steps took, for one input in each row."""
    counts, n = np.zeros(shares.shape, dtype=int), 0
    labels, votes = np.full(len(shares), -1), np.zeros(len(shares), dtype=int)
    for step in selection_steps(cap):
        counts, n = counts + rng.multinomial(step - n, shares), step
        now = is_decisive(counts, cap) & (labels < 0)
        labels[now], votes[now] = counts[now].argmax(axis=1), step
    assert (labels >= 0).all(), "the last step decides"
    return labels, counts.argmax(axis=1), votes


def images(rng, size, n_classes=10):
    """Vote shares like those of a trained network: most inputs are clear, and one in 20 is a near tie."""
    p_a = np.where(rng.random(size) < 0.7, rng.beta(30, 0.7, size), rng.uniform(0.6, 1, size))
    p_a = np.where(rng.random(size) < 0.05, rng.uniform(0.4, 0.6, size), p_a)
    rivals = rng.dirichlet([0.3] * (n_classes - 1), size)
    return np.column_stack([p_a, (1 - p_a)[:, None] * rivals])


@pytest.mark.parametrize("n_classes", [2, 10])
def test_labels_are_those_of_all_votes_and_a_fifth_is_enough(n_classes):
    rng = np.random.default_rng(0)
    early, late, votes = select(rng, images(rng, 40_000, n_classes))
    assert (early != late).mean() < 1e-4
    assert votes.mean() < CAP / 5
    assert np.median(votes) == 16


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.52, 0.48], [0.55, 0.45], [0.6, 0.4], [0.4, 0.4, 0.2], [0.1] * 10])
def test_no_input_is_bad_even_near_ties(shares):
    rng = np.random.default_rng(1)
    early, late, _ = select(rng, np.tile(shares, (20_000, 1)))
    assert (early != late).mean() < 4e-3


def test_a_larger_cap_makes_other_classes_rarer():
    """With 3.5 deviations at all caps, a share of .55 would be lost on 6 and 4 in 100,000 inputs."""
    rng, shares = np.random.default_rng(4), np.tile([0.55, 0.45], (200_000, 1))
    lost = [(select(rng, shares, cap)[0] != 0).mean() for cap in (2**12, 2**16)]
    assert lost[0] < 2e-5
    assert lost[1] == 0


def test_the_hardest_inputs_take_most_votes():
    rng = np.random.default_rng(2)
    mean = [select(rng, np.tile([p, 1 - p], (4000, 1)))[2].mean() for p in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert mean[0] > 230
    assert (np.diff(mean) < 0).all()
    assert mean[-1] == 16


def test_decisions_depend_on_the_counts_of_one_input_alone():
    rng = np.random.default_rng(3)
    counts = rng.multinomial(32, [0.6, 0.3, 0.1], size=200)
    together = is_decisive(counts, CAP)
    assert together.any()
    assert not together.all()
    np.testing.assert_array_equal([is_decisive(row[None], CAP)[0] for row in counts], together)
    np.testing.assert_array_equal(is_decisive(counts[:, ::-1], CAP), together)


def test_the_cap_decides():
    for counts in ([[128, 128]], [[0, 128, 128]], [[85, 85, 86]]):
        assert is_decisive(np.array(counts), CAP) == [True]
    assert is_decisive(np.array([[64, 64]]), CAP) == [False]
    assert is_decisive(np.array([[1]]), CAP) == [True], "a single class has no rival"


@pytest.mark.parametrize(
    ("n_selection", "steps"),
    [(1, [1]), (16, [16]), (17, [16, 17]), (100, [16, 32, 64, 100]), (256, [16, 32, 64, 128, 256])],
)
def test_steps(n_selection, steps):
    assert selection_steps(n_selection).tolist() == steps


@pytest.mark.parametrize("others", [0, 4])
def test_the_smallest_decisive_count_is_that_of_the_formula(others):
    """3.5 standard deviations of the final lead, computed here from the moments of single votes, 16 of them tied."""
    for n in (16, 32, 64, 128):
        for k in range((n - others + 1) // 2, n - others + 1):
            counts = [k, n - others - k, others]
            second, first = sorted(counts)[1:]
            lead, second_moment = first - second, (first + second + 1) / (n + 1)
            variance = second_moment - (lead / (n + 16)) ** 2
            # The votes to come, and the share so far that is known from n votes alone.
            deviation = math.sqrt(variance * (CAP - n) * (1 + (CAP - n) / n))
            assert is_decisive(np.array([counts]), CAP)[0] == (CAP * lead / n >= 3.5 * deviation), counts


@pytest.mark.parametrize(
    ("cap", "counts"),
    [
        (256, [52, 30, 30, 16]),
        (1024, [43, 16, 5]),
        (1024, [58, 26, 26, 18]),
        (10**5, [21, *[1] * 11]),
        (10**5, [38, 8, 8, 8, 2]),
    ],
)
def test_counts_at_the_edge_of_the_formula(cap, counts):
    """Caps above 256 need more deviations; the moment of a vote has one more vote for the first two classes."""
    rule = SelectionRule(cap)
    assert rule.checkpoints.tolist() == selection_steps(cap).tolist()
    for change in (-1, 0, 1):
        changed = np.array([counts])
        changed[0, 0] += change
        second, first = (int(one) for one in np.sort(changed[0])[-2:])
        n, lead = int(changed.sum()), first - second
        variance = (first + second + 1) / (n + 1) - (lead / (n + 16)) ** 2
        deviations = math.sqrt(3.5**2 + 2 * math.log(cap / 256))
        expected = lead >= deviations * math.sqrt(variance * n * (1 - n / cap))
        assert rule.enough(changed).tolist() == [expected], changed
