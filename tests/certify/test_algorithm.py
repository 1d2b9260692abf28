"""Algorithm 1 with its choices made: which rival and level, what rules and samplers get, and what results claim."""

import itertools
import warnings

import numpy as np
import pytest
from scipy.stats import beta, norm

from smoothcert import (
    Box,
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)
from smoothcert.certify.algorithm import Algorithm, level_of_votes
from smoothcert.certify.betting import anytime_lower_bound
from smoothcert.certify.reach import reaches_to_keep
from smoothcert.certify.stopping import RadiusPrecision, RadiusTest
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.results.records import no_label
from smoothcert.sampling.exact import NotExactError
from smoothcert.sampling.sampler import Votes

from ..base_models import Rule, constant


def algorithm(noise=None, n_classes=3, d=2, strategy=None, **choices):
    mechanism = NoiseMechanism(
        Box.from_bounds((0, 1)), noise or SplitNoise(1.0), (d,), Features(names=tuple("abcdefgh"[:d]))
    )
    choices = {
        "scheme": "multiclass",
        "bound": "clopper-pearson",
        "alpha": 0.01,
        "n_selection": 40,
        "n_samples": 1000,
    } | choices
    return Algorithm(
        mechanism=mechanism, strategy=strategy or LipschitzRadius(), classes=np.arange(n_classes) * 10, **choices
    )


def votes_of(estimation, selection=None):
    estimation = np.array(estimation)
    selection = estimation if selection is None else np.array(selection)
    return Votes(selection=selection, estimation=estimation, inputs=np.eye(len(estimation), 16, dtype=np.uint8), seed=3)


@pytest.mark.parametrize("scheme", ["multiclass", "binary"])
@pytest.mark.parametrize("n_classes", [1, 2, 3])
@pytest.mark.parametrize(
    ("noise", "by_margin"), [(UniformNoise(), True), (GaussianNoise(), False), (LaplaceNoise(), False)]
)
def test_which_votes_are_rivals_and_when_drawing_may_stop(scheme, n_classes, noise, by_margin):
    for rtol in (None, 0.0, 0.1):
        one = algorithm(noise, n_classes, scheme=scheme, rtol=rtol)
        assert one.strongest_rival == (by_margin and scheme == "multiclass" and n_classes == 3)
        assert one.may_stop == (n_classes > 1)
        assert one.stops == (n_classes > 1 and rtol is not None)
        rules = one.precision_rule(), one.radius_rule()
        assert isinstance(rules[0], RadiusPrecision) == one.stops
        assert isinstance(rules[1], RadiusTest) == one.may_stop
        for rule in filter(None, rules):
            known = rule.strategy, rule.mechanism, rule.alpha, rule.strongest_rival, rule.cap
            assert known == (one.strategy, one.mechanism, 0.01, one.strongest_rival, 1000)
        if rules[0]:
            assert rules[0].rtol == rtol
    assert not algorithm(noise).exact


def test_enumerated_outcomes_neither_stop_nor_need_samples():
    one = algorithm(DeterministicSplitNoise(1.0, levels=3), rtol=0.1, n_samples=1, alpha=1e-9)
    assert one.exact
    assert one.certain
    assert not one.may_stop
    assert (one.precision_rule(), one.radius_rule()) == (None, None)
    with pytest.raises(ValueError, match="n_samples=1 cannot certify even a unanimous vote"):
        algorithm(n_samples=1)


@pytest.mark.parametrize("noise", [SplitNoise(1.0), DeterministicSplitNoise(1.0, levels=3)])
def test_samplers_get_what_was_chosen(noise):
    clf = SmoothedClassifier.from_pretrained(
        Rule(constant, classes=range(3)).fit(None, None), range(3), noise, n_selection=40, n_samples=1000, batch_size=7
    )
    one = clf.algorithm((2,))
    rule = one.radius_rule()
    for sampler in (one.sampler(5, rule), one.source(5, rule)):
        assert (sampler.seed, sampler.rule, sampler.batch_size) == (5, rule, 7)
        assert (sampler.n_selection, sampler.n_samples) == ((6, 0) if one.exact else (40, 1000))
        assert sampler.mechanism is one.mechanism
        assert sampler.voter is one.voter
    assert one.source(5, n_samples=30, batch_size=9).n_samples == 30
    assert one.source(5, batch_size=9).batch_size == 9


def test_exact_probabilities_are_required_where_they_are_asked_for():
    base = Rule(constant).fit(None, None)
    known = {
        "scheme": "multiclass",
        "n_classes": 2,
        "voter": SmoothedClassifier.from_pretrained(base, [0, 1]).algorithm((2,)).voter,
    }
    assert algorithm(**known).exact_sampler is None
    with pytest.raises(NotExactError):
        _ = algorithm(**known, estimation="exact").exact_sampler
    assert algorithm(**known, estimation="sample").exact_sampler is None
    with pytest.raises(ValueError, match="estimation must be one of 'auto', 'sample', 'exact', got 'both'"):
        algorithm(estimation="both")


@pytest.mark.parametrize("name", ["n_selection", "n_samples"])
@pytest.mark.parametrize("value", [0, 2.5, True])
def test_numbers_of_votes_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value}"):
        algorithm(**{name: value})


def test_certificates_by_hand():
    """Bounds at alpha/2 each, the radius 2 lam (p_a - p_b)/2, abstention where the selected class is not ahead."""
    votes = votes_of([[900, 80, 20], [350, 330, 320], [10, 980, 10]], selection=[[9, 1, 0], [5, 4, 1], [9, 1, 0]])
    found = algorithm(SplitNoise(1.0, levels=10)).certify(votes, np.full((3, 2), 0.5))
    p_a = beta.ppf(0.005, [900, 350, 10], [101, 651, 991])
    p_b = np.minimum(beta.ppf(0.995, [81, 331, 981], [920, 670, 20]), 1 - p_a)
    np.testing.assert_allclose([found.p_a, found.p_b], [p_a, p_b], rtol=1e-9)
    np.testing.assert_array_equal(found.labels, [0, 0, 0])
    np.testing.assert_array_equal(found.abstained, [False, True, True])
    np.testing.assert_allclose(found.radii, [p_a[0] - p_b[0], np.nan, np.nan], rtol=1e-9)
    assert found.n_samples.tolist() == [1000] * 3
    assert (found.alpha, found.norm, found.threat) == (0.01, 1, "perturbations on the lattice of 10 levels")
    assert found.failed is None or not found.failed.any()
    linf = algorithm(strategy=LipschitzRadius(norm=np.inf)).certify(votes, np.full((3, 2), 0.5))
    assert (linf.norm, linf.threat) == (np.inf, "every perturbation")
    np.testing.assert_allclose(linf.radii[0], 2 * (1 - np.sqrt(1 - (p_a[0] - p_b[0]) / 2)), atol=1e-6)


def test_known_reaches_stand_for_the_inputs_of_votes():
    votes, X = votes_of([[990, 8, 2], [900, 80, 20]]), np.array([[0.1, 0.2], [0.5, 0.4]])
    one = algorithm(UniformNoise(3.0), strategy=GreedyRadius())
    found = one.certify(votes, None, reaches_to_keep(one.mechanism, X, 0.49))
    np.testing.assert_array_equal(found.radii, one.certify(votes, X).radii)
    assert (found.radii > 0.9).all()


def test_votes_for_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"2 classes|shape"):
        algorithm(n_classes=2).certify(votes_of([[900, 80, 20]]), np.full((1, 2), 0.5))


def test_randomized_bounds_use_a_number_of_their_own_for_each_side():
    """At u = 1 a bound is that of Clopper and Pearson, and it grows as u falls."""
    from smoothcert.noise.seeding import auxiliary

    votes = votes_of([[900, 80, 20], [900, 80, 20]])
    u = auxiliary(3, votes.inputs)
    found = algorithm(bound="randomized-clopper-pearson").probabilities(votes)
    for p, k, column in ((found[0], 900, u[:, 0]), (1 - found[1], 920, u[:, 1])):
        tail = (1 - column) * beta.cdf(p, k + 1, 1000 - k) + column * beta.cdf(p, k, 1001 - k)
        np.testing.assert_allclose(tail, 0.005, rtol=1e-6)


def test_enumerated_votes_are_counted_and_ties_go_to_the_selected_class():
    one = algorithm(DeterministicSplitNoise(1.0, levels=3))
    found = one.certify(votes_of([[3, 3, 0], [4, 1, 1]]), np.full((2, 2), 1 / 3))
    assert not found.abstained.any()
    np.testing.assert_allclose(found.radii, [0, 1 / 3])
    assert (found.alpha, found.n_samples.tolist()) == (0, [6, 6])
    with pytest.raises(ValueError, match=r"estimation must hold the votes of all 6 outcomes of .* input, got 5\."):
        one.certify(votes_of([[4, 1, 1], [3, 2, 0]]), np.full((2, 2), 1 / 3))
    with pytest.raises(ValueError, match="selection must choose the class that most outcomes vote for"):
        one.certify(votes_of([[3, 3, 0]], selection=[[0, 6, 0]]), np.full((1, 2), 1 / 3))


def test_decisions_by_hand():
    """Fixed votes of enumerated outcomes decide by the radius, which may equal the one asked for.

    The rival of the third input wins ties, so that it lacks one vote and not none.
    """
    one = algorithm(DeterministicSplitNoise(1.0, levels=3))
    votes, X = votes_of([[3, 2, 1], [4, 1, 1], [0, 6, 0]]), np.full((3, 2), 1 / 3)
    found = one.decisions(votes, X, np.array([1 / 3, 1 / 3, 2 / 3]))
    assert found.robust.tolist() == [False, True, True]
    assert found.labels.tolist() == [0, 0, 10]
    assert found.n_samples.tolist() == [6] * 3
    assert (found.alpha, found.norm, found.threat) == (0, 1, "perturbations on the lattice of 3 levels")
    several = one.decisions(votes, X, np.array([[0.0, 1 / 3, 2 / 3]] * 3))
    assert several.robust.tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def spent_half(**choices):
    """Return a choice of alpha half of which drawing 1000 votes takes, and the level that is left."""
    noise = GaussianNoise(1.0, levels=255)
    drawing = 8 * noise.draw_error * 1000
    one = algorithm(noise, d=8, alpha=2 * drawing, strategy=LipschitzRadius(norm=2), **choices)
    assert one.level(1000) == pytest.approx(drawing, rel=1e-9, abs=0)
    return one, drawing


def test_decisions_about_drawn_votes_by_hand():
    """Unanimous votes certify p = (level / 10)^(1 / n) at the cap, and radius sigma times its normal quantile.

    The selection votes are tied, so that bets win less.
    """
    one, level = spent_half()
    votes = votes_of([[1000, 0, 0], [1000, 0, 0], [999, 0, 0], [0, 1000, 0]], selection=[[20, 20, 0]] * 4)
    most, X = norm.ppf((level / 10) ** (1 / 1000)), np.full((4, 8), 1 / 255)
    radius = np.array([most - 0.003, most + 0.003, most - 0.003, 0.0])
    found = one.decisions(votes, X, radius)
    assert found.robust.tolist() == [True, False, False, False]
    assert found.labels.tolist() == [0] * 4
    assert (found.alpha, found.norm, found.n_samples.tolist()) == (one.alpha, 2, [1000, 1000, 999, 1000])
    required = norm.cdf(radius + 1e-5)
    assert one.decisions(votes, None, radius, required[:, None]).robust.tolist() == found.robust.tolist()
    several = np.column_stack([radius, radius[[1, 0, 3, 2]]])
    assert one.decisions(votes, X, several).robust[:2].tolist() == [[True, False], [False, True]]


def test_bounds_that_hold_at_all_numbers_of_votes_start_from_the_selection():
    one, level = spent_half(rtol=0.1)
    votes = votes_of([[900, 80, 20], [300, 30, 10]], selection=[[30, 8, 2], [36, 2, 2]])
    p_a, p_b = one.probabilities(votes)
    np.testing.assert_array_equal(p_b, 1 - p_a)
    expected = anytime_lower_bound([900, 300], [1000, 340], level, [30.5, 36.5], [10.5, 4.5])
    np.testing.assert_allclose(p_a, expected, rtol=1e-12)
    # Against the strongest rival, other votes count half.
    found = algorithm(rtol=0.1).probabilities(votes)[0]
    expected = anytime_lower_bound([910, 305], [1000, 340], 0.01, [31.5, 37.5], [9.5, 3.5])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_classes_are_ahead_or_selected_from_all_outcomes():
    p_a, p_b = np.array([0.6, 0.5, 0.3]), np.array([0.4, 0.5, 0.5])
    assert algorithm().ahead(p_a, p_b).tolist() == [True, False, False]
    assert algorithm(DeterministicSplitNoise(1.0, levels=3)).ahead(p_a, p_b).tolist() == [True] * 3


@pytest.mark.parametrize("exact", [False, True])
def test_inputs_without_votes_have_no_certificate(exact):
    one = algorithm(DeterministicSplitNoise(1.0, levels=3) if exact else None, strategy=LipschitzRadius(norm=1))
    others = votes_of(np.zeros((0, 3), dtype=int))
    found, alpha = one.failed(2, others), 0 if exact else 0.01
    assert found.labels.tolist() == [-1, -1]
    assert np.isnan(found.radii).all()
    assert (found.abstained.tolist(), found.failed.tolist()) == ([True] * 2, [True] * 2)
    assert (found.p_a.tolist(), found.p_b.tolist(), found.n_samples.tolist()) == ([0, 0], [1, 1], [0, 0])
    assert (found.alpha, found.norm) == (alpha, 1)
    for radius in (np.array([0.1, 0.2]), np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])):
        decided = one.failed_decisions(radius, others)
        assert decided.labels.tolist() == [-1, -1]
        assert (decided.robust.shape, decided.robust.dtype) == (radius.shape, bool)
        assert not decided.robust.any()
        assert (decided.n_samples.tolist(), decided.failed.tolist()) == ([0, 0], [True, True])
        np.testing.assert_array_equal(decided.radius, radius)
        assert (decided.alpha, decided.threat) == (alpha, found.threat)


@pytest.mark.parametrize(
    ("classes", "label"),
    [
        ([3, 7], -1),
        ([-5, 7], -6),
        ([-1, 0], -2),
        (np.array([0, 1], dtype=np.uint8), -1),
        (np.array([0, 1, 3, 2**60], dtype=np.uint64), 2),
        (np.array([2**64 - 1], dtype=np.uint64), 0),
        ([True, False], -1),
        (["a", "b"], ""),
        (["", "?", "b"], "??"),
    ],
)
def test_the_label_of_no_class(classes, label):
    for dtype in (None, object) if isinstance(label, str) else (None,):
        found = no_label(np.array(classes, dtype=dtype))
        assert found.tolist() == [label]
        assert np.append(classes, found).tolist() == [*classes, label]
        assert dtype is None or found.dtype == object
    assert np.isnan(no_label(np.array([0.5, -2.0]))).tolist() == [True]


def test_drawing_errors_leave_a_level_or_are_named():
    noise = GaussianNoise(1.0, levels=255)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (40,))
    per_vote = 40 * noise.draw_error
    assert level_of_votes(0.001, mechanism, 1000) == pytest.approx(0.001 - 1000 * per_vote, rel=1e-12)
    for alpha in (1000 * per_vote, 500 * per_vote):
        with pytest.raises(
            ValueError, match=r"alpha=.* must exceed .*, the error of drawing 1000 votes .* for 40 features"
        ):
            level_of_votes(alpha, mechanism, 1000)
    assert algorithm(noise, d=8).level(50) == 0.01 - 8 * noise.draw_error * 50


@pytest.mark.parametrize(
    ("exact", "n_classes", "scheme"), [*itertools.product([False, True], [2, 3], ["multiclass", "binary"])]
)
def test_what_is_out_of_reach_is_found_over_all_parts_of_the_inputs(exact, n_classes, scheme):
    """Of two parts, the one with more room is named, whichever comes first."""
    noise = DeterministicSplitNoise(1.0, levels=4) if exact else SplitNoise(1.0, levels=4)
    one = algorithm(noise, n_classes, strategy=LipschitzRadius() if exact else BoxRadius(), scheme=scheme)
    X = np.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]])
    parts = [(np.array([0, 1]), X[:2]), (np.array([2]), X[2:])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.warn_out_of_reach(parts, np.array([1.25, 1.25, 0.5]))
        one.warn_out_of_reach(parts, np.array([[0.5, 1.25]] * 3))
    with pytest.warns(
        UserWarning, match=r"^radius is out of reach for every input: it is at least 1\.25, but even"
    ) as found:
        one.warn_out_of_reach(parts, np.array([1.5, 1.25, 1.75]))
    message = str(found[0].message)
    if exact:
        assert "certify no more than 1. Ask" in message
        assert "or raise the width of the noise" in message
    else:
        assert "or raise n_samples=1000 or the width of the noise" in message
        assert 0.9 < float(message.split("certify no more than ")[1].split(". Ask")[0]) < 1.25


def test_a_single_class_certifies_everything():
    one = algorithm(n_classes=1)
    found = one.certify(votes_of([[1000], [1000]]), np.full((2, 2), 0.5))
    assert found.radii.tolist() == [np.inf] * 2
    assert found.labels.tolist() == [0, 0]
