"""Rules of conformal sets by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert import Box, BoxRadius, GreedyRadius, LipschitzRadius, SplitNoise, UniformNoise
from smoothcert.certify.conformal_sets import SetRule, copies_lost, set_rule, way_back
from smoothcert.noise.mechanism import NoiseMechanism

#: A move of radius r keeps 1 - r/2 of the overlap, up to r = 1.
MECHANISM = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0, levels=8), (3,))
CHOICES = {"radius": 0.25, "confidence_level": 0.9, "method": "binarized", "p": "auto", "alpha": 0.01, "n_samples": 100}


def rule(strategy=None, **choices):
    return set_rule(strategy or LipschitzRadius(), MECHANISM, **(CHOICES | choices))


def tail(lost, n, apart):
    return float(binom.sf(lost, n, apart))


def test_thresholds_are_the_smallest_scores_of_a_sufficient_rank():
    """Of n + 1 exchangeable scores, the last is among the k smallest with probability k / (n + 1)."""
    for n, level in ((9, Fraction(1, 10)), (19, Fraction(1, 10)), (20, Fraction(1, 10)), (30, Fraction(3, 10))):
        one = SetRule(level=level, n_samples=1, rank=1, eta=0.0, draw_error=0.0)
        k = next(k for k in range(1, n + 1) if Fraction(k, n + 1) >= 1 - level)
        scores = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
        assert one.threshold(scores) == k
    with pytest.raises(ValueError, match=r"at least 9 inputs for a conformal level of 0\.1, got 8\. Give more inputs"):
        SetRule(level=Fraction(1, 10), n_samples=1, rank=1, eta=0.0, draw_error=0.0).threshold(np.arange(8.0))
    with pytest.raises(ValueError, match=r"at least 3 inputs for a conformal level of 0\.3, got 2\."):
        SetRule(level=Fraction(3, 10), n_samples=1, rank=1, eta=0.0, draw_error=0.0).threshold(np.arange(2.0))


def test_labels_that_reach_the_rank_less_the_copies_lost_are_held():
    one = SetRule(level=Fraction(1, 10), n_samples=100, rank=60, eta=0.01, draw_error=0.0)
    overlap = np.array([1.0, 0.9])
    lost = [next(k for k in range(101) if tail(k, 100, apart) <= 0.01) for apart in (0.0, 0.1)]
    assert lost[0] == 0 < lost[1]
    counts = np.array([[60, 59, 100], [60 - lost[1], 59 - lost[1], 0]])
    assert one.holds(counts, overlap).tolist() == [[True, False, True], [True, False, False]]
    drawn = SetRule(level=Fraction(1, 10), n_samples=100, rank=60, eta=0.01, draw_error=0.05)
    assert drawn.holds(counts[1:], np.ones(1)).tolist() == [[True, False, False]]


def test_copies_lost_of_extreme_overlaps_and_of_tails_that_are_eta():
    assert copies_lost(np.array([1.0, 0.0, 1.5, -0.5]), 7, 0.01).tolist() == [0, 7, 0, 7]
    # A tail of exactly eta is allowed, up to the error of its computation, which is not taken as a chance.
    for n, apart in ((1, 0.25), (3, 0.5), (10, 0.375)):
        for k in range(n):
            eta = tail(k, n, apart)
            found = copies_lost(np.array([1 - apart]), n, eta * (1 + 1e-9))
            assert found == k
            assert copies_lost(np.array([1 - apart]), n, eta * (1 - 1e-9)) == k + 1


def test_rule_of_one_sample():
    """One copy is kept or lost: eta is the overlap lost, exactly."""
    one = rule(method="one-sample", p=0.9, n_samples=100, radius=0.125)
    assert (one.n_samples, one.rank) == (1, 1)
    assert one.eta == pytest.approx(0.0625, rel=1e-8)
    assert one.eta >= 0.0625
    assert one.level == Fraction(1, 10) - Fraction(one.eta)
    assert rule(method="one-sample", radius=0.0).level == Fraction(1, 10)
    assert rule(method="one-sample", radius=0.0, confidence_level=0.7).level == Fraction(3, 10)
    with pytest.raises(ValueError, match=r"strategy must be 'lipschitz' or 'box' with method='one-sample', got Greedy"):
        rule(GreedyRadius(), method="one-sample")


@pytest.mark.parametrize("strategy", [LipschitzRadius(), BoxRadius(), GreedyRadius()])
@pytest.mark.parametrize("n_samples", [99, 100])
def test_rule_of_many_samples(strategy, n_samples):
    one, apart = rule(strategy, n_samples=n_samples), 0.125
    lost = next(k for k in range(101) if tail(k, n_samples, apart) <= 0.01)
    assert (one.n_samples, one.rank) == (n_samples, (n_samples + lost) // 2 + 1)
    assert one.eta == pytest.approx(tail(lost, n_samples, apart), rel=1e-8)
    assert one.eta >= tail(lost, n_samples, apart)
    assert one.level == Fraction(1, 10) - Fraction(one.eta)


@pytest.mark.parametrize(("p", "rank"), [(0.5, 50), (0.501, 51), (0.99, 99), (0.7, 70), (0.55, 55), (0.14, 14)])
def test_a_rank_of_ones_own_is_the_smallest_that_is_a_share_p(p, rank):
    """As p is written: 0.55 times 100 exceeds 55 in floating point."""
    assert rule(p=p, radius=0.0).rank == rank == math.ceil(Fraction(str(p)) * 100)


def test_a_rank_of_ones_own_may_serve_inputs_with_a_larger_overlap():
    """A box is half lost at radius 1, where 60 of 100 copies may be; the greedy walk knows better for some inputs."""
    for strategy in (LipschitzRadius(), BoxRadius()):
        with pytest.raises(ValueError, match="radius must be at most"):
            rule(strategy, p=0.55, radius=1.0)
    assert rule(GreedyRadius(), p=0.55, radius=1.0).rank == 55
    with pytest.raises(ValueError, match="radius must be at most"):
        rule(GreedyRadius(), radius=50.0, n_samples=5)


@pytest.mark.parametrize("method", ["binarized", "one-sample"])
def test_the_largest_radius_is_the_last_at_which_labels_are_left_out(method):
    with pytest.raises(ValueError, match="radius must be at most") as error:
        rule(method=method, radius=1.99)
    largest = float(str(error.value).split("at most ")[1].split()[0])
    last = rule(method=method, radius=largest)
    assert last.level > 0
    assert last.rank <= last.n_samples
    with pytest.raises(ValueError, match=rf"at most {largest:g} with this noise, method and confidence_level, got"):
        rule(method=method, radius=largest * 1.001)
    if method == "one-sample":
        assert largest == pytest.approx(0.2, abs=2e-4)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"alpha": 0.1}, r"alpha must lie between 0 and 1 - confidence_level = 0\.1, of which it is a part, got 0\.1"),
        ({"alpha": 0.0}, "alpha must lie between 0 and 1 - confidence_level"),
        ({"alpha": True}, "alpha must lie between 0 and 1 - confidence_level"),
        ({"p": "all"}, "p must lie strictly between 0 and 1, got 'all'"),
        ({"p": 1.0}, r"p must lie strictly between 0 and 1, got 1\.0"),
        ({"n_samples": 1.5}, "n_samples must be a whole number of at least 1"),
        ({"confidence_level": 1}, "confidence_level must lie strictly between 0 and 1, got 1"),
        ({"radius": np.inf}, "radius must be 0 or a finite number above 0, got inf"),
        ({"method": "both"}, "method must be one of 'binarized', 'one-sample', got 'both'"),
    ],
)
def test_choices_are_checked(choices, message):
    with pytest.raises(ValueError, match=message):
        rule(**choices)


def test_the_way_back_goes_in_the_opposite_direction():
    both = GreedyRadius((0.1, [0.2, 0.3]), max_features=2)
    found = way_back(both)
    assert (found.max_change, found.max_features) == (([0.2, 0.3], 0.1), 2)
    assert both.max_change == (0.1, [0.2, 0.3])
    for same in (LipschitzRadius(np.inf), BoxRadius(closed_form=True), GreedyRadius(0.3), GreedyRadius([0.1, 0.2])):
        assert repr(way_back(same)) == repr(same)
    with pytest.raises(ValueError, match="strategy must be 'lipschitz', 'box' or 'greedy', got Own"):
        way_back(type("Own", (GreedyRadius,), {})())


def test_noise_that_is_wider_loses_fewer_copies():
    wide = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(4.0), (3,))
    found = set_rule(LipschitzRadius(), wide, **CHOICES)
    assert found.rank < rule().rank
    assert found.draw_error == 0
