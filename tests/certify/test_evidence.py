"""What votes prove: bets, the last checkpoint, and the share of alpha that each gets."""

import itertools

import numpy as np
import pytest
from scipy.stats import beta

from smoothcert.certify.betting import log_e_margin, log_e_value
from smoothcert.certify.binomial import class_probabilities
from smoothcert.certify.evidence import BET, certified_at, with_all_smaller


@pytest.mark.parametrize(("selection", "counts"), [([30, 2], [900, 100]), ([32, 0], [980, 20])])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_rounding_decides_against_a_certificate(selection, counts, alpha):
    """A margin that equals the one required, as computed in floats, may be the smaller of the two."""
    selection, counts = np.array([selection]), np.array([counts])
    p_a, p_b = class_probabilities(
        counts, np.zeros(1, dtype=int), scheme="binary", bound="clopper-pearson", alpha=(1 - BET) * alpha
    )
    required = (1 + (p_a - p_b)) / 2
    assert 2 * required - 1 == p_a - p_b
    rule = {"alpha": alpha, "strongest_rival": False, "cap": 1000}
    assert not certified_at(selection, counts, required, **rule)[0]
    assert certified_at(selection, counts, required - 2e-15, **rule)[0]
    assert not certified_at(selection, counts, required - 2e-15, **(rule | {"cap": 1001}))[0], "only bets count"


def test_a_tenth_of_alpha_is_left_for_the_last_look():
    """A unanimous vote of n certifies p = (alpha/10)^(1/n) there, and hardly more by bets."""
    alpha, n = 0.01, 500
    votes = np.array([[8, 8]]), np.array([[n, 0]])
    most = (alpha / 10) ** (1 / n)
    required = np.array([[most - 1e-9, most + 1e-6]])
    found = certified_at(*votes, required, alpha=alpha, strongest_rival=False, cap=n)
    assert found.tolist() == [[True, False]]
    assert not certified_at(*votes, required, alpha=alpha, strongest_rival=False, cap=n + 1).any()


def test_the_last_look_takes_no_certificate_back():
    """Selection votes that foresee the share make bets that prove more than the last look does."""
    votes, nulls = (np.array([[6000, 4000]]), np.array([[600, 400]])), np.linspace(0.5, 0.6, 1001)[None]
    before, last = (
        certified_at(*votes, nulls, alpha=0.01, strongest_rival=False, cap=cap).ravel() for cap in (2000, 1000)
    )
    assert last[before].all()
    assert nulls.ravel()[before].max() > beta.ppf(0.001, 600, 401)


def test_all_rivals_as_one_leave_the_whole_level_to_class_a():
    """Also of three classes: at the last look, p_b is 1 - p_a and not the bound of the strongest rival."""
    votes, alpha = (np.array([[20, 8, 4]]), np.array([[400, 60, 40]])), 0.01
    p_a = beta.ppf(alpha / 10, 400, 101)
    found = certified_at(*votes, np.array([[p_a - 1e-9, p_a + 1e-6]]), alpha=alpha, strongest_rival=False, cap=500)
    assert found.tolist() == [[True, False]]


@pytest.mark.parametrize("selection", [[20, 8, 4], [32, 0, 0]])
def test_nine_tenths_of_alpha_are_bet(selection):
    """Before the last look a probability is certified where the e-value of its null reaches 1 / (0.9 alpha)."""
    selection, alpha, nulls = np.array([selection]), 0.01, np.linspace(0.5, 0.9, 4001)
    prior_a, prior_b = (selection[0, 0] + 0.5, 32 - selection[0, 0] + 0.5)
    log_e = log_e_value(400, 500, nulls, prior_a, prior_b)
    known = {"alpha": alpha, "strongest_rival": False, "cap": 501}
    found = certified_at(selection, np.array([[400, 60, 40]]), nulls[None], **known)[0]
    np.testing.assert_array_equal(found, log_e >= -np.log(0.9 * alpha))
    assert (found != (log_e >= -np.log(alpha))).any()
    log_e = log_e_margin((400, 60, 500), nulls, (int(selection[0, 0]), int(selection[0, 1]), 32))
    found = certified_at(selection, np.array([[400, 60, 40]]), nulls[None], **(known | {"strongest_rival": True}))[0]
    assert nulls[found].max() == pytest.approx(nulls[log_e >= -np.log(0.9 * alpha)].max(), abs=2e-3)


def test_a_null_is_rejected_with_all_smaller_ones_only():
    for rejected in itertools.product([False, True], repeat=4):
        for nulls in ([0.5, 0.6, 0.7, 0.8], [0.9, 0.5, np.inf, 0.7]):
            kept = with_all_smaller(np.array([rejected]), np.array([nulls]))[0]
            expected = [all(r for r, p in zip(rejected, nulls, strict=True) if p <= null) for null in nulls]
            assert kept.tolist() == expected
