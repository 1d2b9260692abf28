"""Certificates of quantiles by hand, from votes that are given."""

import numpy as np
import pytest
from scipy.stats import beta

from smoothcert import Box, BoxRadius, GaussianNoise, GreedyRadius, LipschitzRadius, SplitNoise, UniformNoise
from smoothcert.certify.quantiles import QuantileAlgorithm
from smoothcert.certify.reach import reaches_to_keep
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.sampling.values import Values


def algorithm(quantile=0.5, noise=None, strategy=None, d=2, **choices):
    features = Features(np.array([2.0] * d), names=tuple("abcd"[:d]))
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise or UniformNoise(2.0, levels=8), (d,), features)
    choices = {"alpha": 0.01, "n_selection": 9, "n_samples": 100} | choices
    return QuantileAlgorithm(mechanism=mechanism, strategy=strategy or LipschitzRadius(), quantile=quantile, **choices)


def votes_of(estimation, selection=None):
    estimation = np.sort(np.array(estimation, dtype=float), axis=1)
    selection = estimation if selection is None else np.sort(np.array(selection, dtype=float), axis=1)
    return Values(selection=selection, estimation=estimation, inputs=np.zeros((len(estimation), 16), np.uint8), seed=0)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.75, 0.9])
def test_the_fewest_votes_bound_the_quantile_on_one_side(quantile):
    """All n votes lie on one side of it with probability max(q, 1 - q)^n or less."""
    least = next(n for n in range(1, 100) if min(quantile, 1 - quantile) ** n <= 0.01 / 2)
    found = algorithm(quantile, n_samples=least)
    (lower,), (upper,) = found.certify(votes_of([np.arange(least)]), np.full((1, 2), 0.5), np.zeros(1))
    assert np.isfinite(lower) or np.isfinite(upper)
    with pytest.raises(
        ValueError, match=rf"n_samples={least - 1} cannot .*{quantile:g}-quantile .* at least {least}\."
    ):
        algorithm(quantile, n_samples=least - 1)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quantile": 0.0}, "quantile must lie strictly between 0 and 1, got 0"),
        ({"alpha": 1.0}, "alpha must lie strictly between 0 and 1, got 1"),
        ({"n_selection": 0}, "n_selection must be a whole number of at least 1, got 0"),
        ({"n_samples": 50.0}, r"n_samples must be a whole number of at least 1, got 50\.0"),
        ({"noise": GaussianNoise()}, "noise must be uniform, splitting or mixture noise"),
    ],
)
def test_choices_are_checked(choices, message):
    with pytest.raises(ValueError, match=message):
        algorithm(**choices)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.7])
def test_predictions_are_votes_of_the_selection(quantile):
    selection = np.array([[5.0, 1, 4, 2, 3, 10, 7, 6, 8, 9], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
    found = algorithm(quantile).predictions(votes_of(np.full((2, 100), 99.0), selection))
    assert found.tolist() == [round(10 * quantile), float(quantile > 0.5)]


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_intervals_by_hand(quantile):
    """The order statistics whose Clopper-Pearson bounds allow for the overlap lost, 1/8 of radius 1/2 at lam 2."""
    votes, X = votes_of([np.arange(1.0, 101)] * 2), np.full((2, 2), 0.5)
    radius = np.array([[0.0, 0.5, 3.9]] * 2)
    found = algorithm(quantile).certify(votes, X, radius)
    for j, lost in enumerate((0, 0.125, 0.975)):
        # Fewer than k of 100 votes lie at or below the p-quantile with probability alpha/2 at most.
        ranks = [
            max((k for k in range(1, 101) if beta.ppf(0.995, k, 101 - k) <= p - lost - 1e-9), default=0)
            for p in (quantile, 1 - quantile)
        ]
        assert found.lower[0, j] == (ranks[0] or -np.inf)
        assert found.upper[0, j] == (101 - ranks[1] if ranks[1] else np.inf)
    np.testing.assert_array_equal(found.lower[0], found.lower[1])
    np.testing.assert_array_equal(found.radius, radius)
    one = algorithm(quantile).certify(votes, X, radius[:, 1])
    assert one.lower.tolist() == found.lower[:, 1].tolist()
    assert one.predictions.tolist() == [round(100 * quantile)] * 2


def test_a_rank_whose_bound_is_the_quantile_itself_is_not_used():
    """The difference of the quantile and what is lost may have been rounded up."""
    quantile = float(algorithm().bounds[29])
    (lower,), _ = algorithm(quantile).certify(votes_of([np.arange(1.0, 101)]), np.full((1, 2), 0.5), np.zeros(1))
    assert lower == 29
    (lower,), _ = algorithm(quantile + 1e-12).certify(
        votes_of([np.arange(1.0, 101)]), np.full((1, 2), 0.5), np.zeros(1)
    )
    assert lower == 30


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_radii_within_tolerances_by_hand(quantile):
    """Votes at the ends of the tolerance are inside; those beyond it, on each side, shorten the radius."""
    selection = [[10.0]] * 4
    rows = [[7] * 100, [8] * 3 + [10] * 90 + [12] * 7, [7] * 3 + [10] * 95 + [12] * 2, [8] * 3 + [10] * 90 + [13] * 7]
    found = algorithm(quantile).certify_within(votes_of(rows, selection), np.full((4, 2), 0.5), np.full(4, 2.0))
    assert found.abstained.tolist() == [True, False, False, False]
    assert np.isnan(found.radii[0])
    for radius, (below, above) in zip(found.radii[1:], ((0, 0), (3, 0), (0, 7)), strict=True):
        bounds = [beta.ppf(0.995, k + 1, 100 - k) for k in (below, above)]
        lost = min(quantile - bounds[0], 1 - quantile - bounds[1])
        # Uniform noise loses r / (2 lam) of the overlap at radius r.
        assert radius == pytest.approx(4 * lost, abs=1e-5)
        assert radius <= 4 * lost
    np.testing.assert_array_equal(found.predictions, 10)
    np.testing.assert_array_equal(found.tolerance, 2)


def test_results_claim_what_was_chosen_and_share_no_arrays_with_their_arguments():
    one = algorithm(0.3, noise=SplitNoise(2.0, levels=8), strategy=LipschitzRadius(norm=np.inf))
    votes, X, at = votes_of([[1.0] * 100]), np.full((1, 2), 0.5), np.array([0.25])
    threat = "perturbations at a cost of 2 for each feature, on the lattice of 8 levels"
    results = one.certify(votes, X, at), one.certify_within(votes, X, at)
    for found in (*results, one.failed(radius=at), one.failed(tolerance=at)):
        assert (found.quantile, found.alpha, found.norm, found.threat) == (0.3, 0.01, np.inf, threat)
        kept = found.tolerance if hasattr(found, "tolerance") else found.radius
        assert kept.tolist() == [0.25]
        assert not np.shares_memory(kept, at)


def test_inputs_without_votes_are_certified_nowhere():
    for radius in (np.array([0.1, 0.2]), np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])):
        found = algorithm().failed(radius=radius)
        assert np.isnan(found.predictions).all()
        assert (found.lower == -np.inf).all()
        assert (found.upper == np.inf).all()
        assert found.lower.shape == found.upper.shape == radius.shape
        assert found.failed.tolist() == [True, True]
        assert found.failed.dtype == bool
    found = algorithm().failed(tolerance=np.array([1.0, 2.0]))
    assert np.isnan(found.radii).all()
    assert np.isnan(found.predictions).all()
    assert (found.abstained.tolist(), found.failed.tolist()) == ([True] * 2, [True] * 2)
    assert found.failed.dtype == bool


def test_samplers_get_what_was_chosen():
    one = algorithm(voter=object(), batch_size=7)
    sampler = one.sampler(3)
    assert (sampler.seed, sampler.n_selection, sampler.n_samples, sampler.batch_size) == (3, 9, 100, 7)
    assert (sampler.voter, sampler.mechanism) == (one.voter, one.mechanism)
    assert one.sampler(3, n_samples=0).n_samples == 0


@pytest.mark.parametrize("strategy", [LipschitzRadius(), BoxRadius(), GreedyRadius()])
def test_largest_reaches_stand_for_inputs(strategy):
    """Also where some inputs abstain, and the others have other reaches."""
    one = algorithm(strategy=strategy, d=4)
    X = np.array([[0, 0.25, 0.5, 1], [0.5] * 4, [0.25, 0.5, 0.5, 0.5], [1, 1, 0, 0]])
    votes = votes_of([[10] * 100, [10 * i for i in range(100)], [10] * 97 + [20] * 3, [10] * 93 + [20] * 7])
    kept = reaches_to_keep(one.mechanism, X, 0.499)
    tolerance, radius = np.full(4, 5.0), np.array([0.1, 0.3, 0.5, 0.9])
    by_inputs, by_reaches = (
        one.certify_within(votes, *known, *rest) for known, rest in (((X, tolerance), ()), ((None, tolerance), (kept,)))
    )
    assert by_inputs.abstained.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(by_reaches.radii, by_inputs.radii)
    assert len(set(by_inputs.radii[[0, 2, 3]])) == 3
    intervals = one.certify(votes, X, radius), one.certify(votes, None, radius, kept)
    np.testing.assert_array_equal(intervals[0].lower, intervals[1].lower)
    np.testing.assert_array_equal(intervals[0].upper, intervals[1].upper)
