"""The re-check finds what is wrong with certificates, and nothing where nothing is."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import smoothcert.audit
from smoothcert import (
    Audit,
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)
from smoothcert.audit import _p_values, _unexplained, verify
from smoothcert.certify.duel import Duel

from .base_models import Rule, steps

NOISE = UniformNoise(1.0, levels=100)


def duel(counts):
    """Return the votes for the first class and its strongest rival."""
    return Duel.of(counts, np.zeros(len(counts), int), strongest_rival=True)


def make(thresholds=(0.5,), n=80, model=None, **params):
    """Return a classifier, inputs over the whole range, and certificates."""
    classes = range(len(thresholds) + 1)
    base = model or Rule(steps(list(thresholds)), classes).fit(None, None)
    params = {"noise": NOISE, "n_samples": 1000, "n_selection": 100, "alpha": 0.01, "random_state": 0} | params
    clf = SmoothedClassifier.from_pretrained(base, classes, **params)
    X = np.column_stack([np.arange(n) % 101, np.arange(n) // 101, np.arange(n) % 7]) / 100
    return clf, X, clf.certify(X)


SETTINGS = [
    {},
    {"thresholds": (0.3, 0.7)},
    {"thresholds": (0.3, 0.7), "rtol": 0.1},
    {"scheme": "binary", "bound": "hoeffding"},
    {"noise": GaussianNoise(0.5), "radius": "lipschitz"},
    {"noise": SplitNoise(0.6)},
    {"noise": DeterministicSplitNoise(1.0, levels=100)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_true_certificates_are_consistent(settings):
    clf, X, certificates = make(**settings)
    audit = certificates.verify(clf, X, fraction=1.0, random_state=1)
    assert audit.consistent, audit
    assert set(audit.rows) == set(np.flatnonzero(~certificates.abstained))
    assert not audit.too_large.any()
    assert repr(audit).startswith("Audit(consistent: of")
    assert clf.random_state == 0


def test_false_alarms_are_as_rare_as_the_level():
    """Certificates at a large alpha, many of which are false, and a level at which alarms could be seen."""
    clf, X, _ = make(n=60, n_samples=100, alpha=0.2)
    alarms = sum(
        not clf.set_params(random_state=2 * seed)
        .certify(X)
        .verify(clf, X, fraction=1.0, level=0.1, random_state=2 * seed + 1)
        .consistent
        for seed in range(60)
    )
    assert alarms <= binom.isf(1e-4, 60, 0.1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_inflated_radii_are_found(settings):
    clf, X, certificates = make(**settings)
    inflated = replace(certificates, radii=certificates.radii + 1e-6)
    audit = inflated.verify(clf, X, fraction=0.5, random_state=1)
    assert not audit.consistent
    assert audit.too_large.all()
    assert audit.table().count("too large") == len(audit.rows)


@pytest.mark.parametrize("forged", [{"p_a": 1.5}, {"p_b": -0.5}, {"p_b": np.nan}], ids=str)
@pytest.mark.parametrize("n_samples", [True, False])
def test_claims_that_are_no_probabilities_are_found(forged, n_samples):
    clf, X, certificates = make(noise=UniformNoise(0.25, levels=100))
    # Fresh votes do not contradict a bound on a rival that gets none.
    some = np.flatnonzero(clf.count_votes(X).estimation.min(axis=1) == 0)
    claim = replace(certificates[some], **{name: np.full(len(some), value) for name, value in forged.items()})
    possible = clf.algorithm(X.shape[1:]).radii(claim.p_a, claim.p_b, X[some])
    claim = replace(claim, radii=np.nan_to_num(possible, nan=0.5), n_samples=claim.n_samples if n_samples else None)
    audit = claim.verify(clf, X[some], fraction=1.0, random_state=1)
    assert audit.too_large.all()
    assert not audit.consistent


def test_radii_of_abstentions_are_claims_too():
    clf, X, certificates = make()
    assert certificates.abstained.any()
    radii = np.where(certificates.abstained, 0.25, certificates.radii)
    audit = replace(certificates, radii=radii).verify(clf, X, fraction=1.0, random_state=1)
    assert audit.rows[audit.too_large].tolist() == np.flatnonzero(certificates.abstained).tolist()
    everything = np.ones(len(X), dtype=bool)
    audit = replace(certificates, radii=np.full(len(X), np.inf), abstained=everything).verify(clf, X, fraction=1.0)
    assert audit.too_large.all()
    assert not audit.consistent
    with pytest.raises(ValueError, match="certificates hold the label 9, which is not among the classes"):
        replace(certificates, radii=radii, labels=np.where(certificates.abstained, 9, 0)).verify(clf, X)


def test_a_claim_that_alpha_cannot_explain_is_a_finding_of_its_own():
    clf, X, certificates = make()
    row = np.flatnonzero(~certificates.abstained)[np.argmin(certificates.p_a[~certificates.abstained])]
    p_a = certificates.p_a.copy()
    p_a[row] = 0.995
    radii = clf.algorithm(X.shape[1:]).radii(p_a, 1 - p_a, X)
    audit = replace(certificates, p_a=p_a, p_b=1 - p_a, radii=radii).verify(clf, X, fraction=1.0, random_state=1)
    assert audit.rows[audit.contradicted].tolist() == [row]
    assert not audit.too_large.any()
    # Chance explains that one of these certificates is false, but not how false it is.
    assert audit.p_value > 0.1
    assert audit.rows[audit.unexplained].tolist() == [row]
    assert not audit.consistent
    assert "1 beyond what alpha explains" in repr(audit)


def test_a_claim_about_the_margin_that_alpha_cannot_explain_is_a_finding_too():
    clf, X, certificates = make(thresholds=(0.3, 0.7), rtol=0.1)
    row = np.flatnonzero(~certificates.abstained)[np.argmin(certificates.margin[~certificates.abstained])]
    found = []
    for forged in (0.9, certificates.p_a[row] + 0.02):
        p_a = certificates.p_a.copy()
        p_a[row] = forged
        radii = clf.algorithm(X.shape[1:]).radii(p_a, 1 - p_a, X)
        audit = replace(certificates, p_a=p_a, p_b=1 - p_a, radii=radii).verify(clf, X, fraction=1.0, random_state=1)
        found.append(audit.rows[audit.unexplained].tolist())
        assert audit.consistent == (not found[-1])
    # A small lie could be one of the errors that alpha allows.
    assert found == [[row], []]


@pytest.mark.parametrize("rtol", [None, 0.1])
def test_no_true_claim_is_beyond_what_alpha_explains(rtol):
    """Claims at a large alpha, many of which are false, and a level at which alarms could be seen."""
    clf, X, _ = make(n=60, n_samples=200, alpha=0.2, rtol=rtol)
    alarms = 0
    for seed in range(40):
        certificates = clf.set_params(random_state=2 * seed).certify(X)
        audit = certificates.verify(clf, X, fraction=1.0, level=0.1, random_state=2 * seed + 1)
        alarms += bool(audit.unexplained.any())
    assert alarms <= binom.isf(1e-4, 40, 0.1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_permuted_labels_are_found(settings):
    clf, X, certificates = make(**settings)
    for labels in (certificates.labels[::-1], np.roll(certificates.labels, 20)):
        audit = replace(certificates, labels=labels).verify(clf, X, fraction=1.0, random_state=1)
        assert not audit.consistent
        assert audit.contradicted.any()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_certificates_of_another_model_are_found(settings):
    clf, X, _ = make(**settings)
    far = tuple(threshold - 0.25 for threshold in settings.get("thresholds", (0.5,)))
    _, _, other = make(**{**settings, "thresholds": far})
    assert not other.verify(clf, X, fraction=1.0, random_state=1).consistent


def test_raised_probabilities_are_found():
    clf, X, certificates = make()
    p_a = np.minimum(certificates.p_a + 0.1, certificates.p_a.max())
    raised = replace(certificates, p_a=p_a, p_b=1 - p_a)
    audit = raised.verify(clf, X, fraction=1.0, random_state=1)
    assert not audit.consistent
    assert not audit.too_large.any()


@pytest.mark.parametrize("told", [True, False], ids=["n_samples", "None"])
@pytest.mark.parametrize("settings", [{}, {"rtol": 0.2}, {"scheme": "multiclass"}, {"bound": "hoeffding"}], ids=str)
def test_probabilities_that_no_votes_give_are_found(settings, told):
    """Fresh votes that all agree contradict no p_a."""
    clf, X, _ = make(thresholds=(-1.0,), **settings)
    certificates = clf.certify(X)
    n_samples = certificates.n_samples if told else None
    most = certificates.alpha ** (1 / (certificates.n_samples if told else np.full(len(X), clf.n_samples)))
    for p_a, fine in ((certificates.p_a, True), ((1 + most) / 2, False)):
        claim = replace(certificates, p_a=p_a, p_b=1 - p_a, n_samples=n_samples)
        claim = replace(claim, radii=clf.algorithm(X.shape[1:]).radii(claim.p_a, claim.p_b, X))
        audit = claim.verify(clf, X, fraction=1.0, random_state=1)
        assert audit.consistent == fine
        assert audit.too_large.any() != fine
        assert not audit.contradicted.any()


def test_known_probabilities_can_be_checked_by_votes():
    X = np.random.default_rng(0).random((40, 2)).round(2)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, X[:, 0] > 0.5)
    exact, sampled = (
        SmoothedClassifier.from_pretrained(tree, [False, True], NOISE, n_samples=500, estimation=estimation)
        for estimation in ("auto", "sample")
    )
    certificates = exact.certify(X)
    assert certificates.alpha == 0
    assert certificates.verify(sampled, X, fraction=1.0, random_state=1).consistent
    false = replace(certificates, labels=~certificates.labels)
    assert not false.verify(sampled, X, fraction=1.0, random_state=1).consistent


def test_a_wrong_label_from_few_votes_is_found():
    """Of p_a = .9999, which fewer votes would not give."""
    clf, X, certificates = make()
    row = np.flatnonzero(~certificates.abstained)[0]
    forged = {name: getattr(certificates, name).copy() for name in ("labels", "p_a", "p_b")}
    forged["labels"][row], forged["p_a"][row], forged["p_b"][row] = 1 - forged["labels"][row], 0.9999, 0.0001
    for n_samples in (None, np.full(len(X), 10), np.full(len(X), 100_000)):
        claim = replace(certificates, **forged, n_samples=n_samples)
        claim = replace(claim, radii=np.where(np.arange(len(X)) == row, 0.0, claim.radii))
        assert not claim.verify(clf, X, fraction=1.0, random_state=1).consistent


def test_inputs_in_another_order_are_found():
    clf, X, certificates = make()
    assert not certificates.verify(clf, X[::-1], fraction=1.0, random_state=1).consistent


def test_votes_are_fresh_and_the_part_is_random():
    clf, X, certificates = make()
    audits = [certificates.verify(clf, X, fraction=0.3) for _ in range(3)]
    assert len({tuple(audit.rows) for audit in audits}) == 3
    same = [certificates.verify(clf, X, fraction=0.3, random_state=5) for _ in range(2)]
    np.testing.assert_array_equal(same[0].p_values, same[1].p_values)
    assert len(same[0].rows) == np.ceil(0.3 * (~certificates.abstained).sum())


def test_nothing_claimed_is_nothing_to_contradict():
    clf, X, certificates = make()
    nothing = certificates[certificates.abstained]
    assert len(nothing)
    audit = nothing.verify(clf.set_params(alpha=0.2), X[certificates.abstained], level=0.03)
    assert audit.consistent
    assert not len(audit.rows)
    assert (audit.p_value, audit.repeatable, audit.alpha, audit.level) == (1.0, True, 0.01, 0.03)


def test_a_single_class_cannot_be_contradicted():
    clf, X, certificates = make(thresholds=(), n=5)
    audit = certificates.verify(clf, X, fraction=1.0)
    assert audit.rows.tolist() == [0, 1, 2, 3, 4]
    assert (audit.p_values.tolist(), audit.consistent) == ([1.0] * 5, True)


@pytest.mark.parametrize("fraction", [0, 1.5, True, "all", np.nan])
def test_bad_fraction(fraction):
    clf, X, certificates = make(n=5)
    with pytest.raises(ValueError, match="fraction must lie above 0 and be at most 1"):
        certificates.verify(clf, X, fraction=fraction)


def test_other_bad_arguments():
    clf, X, certificates = make(n=5)
    for level in (0, 1, "high"):
        with pytest.raises(ValueError, match="level must"):
            certificates.verify(clf, X, level=level)
    for n_samples in (0, -3, 2.5):
        with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
            certificates.verify(clf, X, n_samples=n_samples, fraction=1.0)
    with pytest.raises(NotFittedError):
        certificates.verify(SmoothedClassifier(LogisticRegression()), X)


def test_certificates_of_something_else():
    clf, X, certificates = make(n=20)
    with pytest.raises(ValueError, match="X must hold the 20 inputs that were certified, got 19"):
        certificates.verify(clf, X[1:])
    with pytest.raises(ValueError, match=r"certificates are in l1 .* but clf has radius=LipschitzRadius\(norm=inf\)"):
        certificates.verify(clf.set_params(radius=LipschitzRadius(norm=np.inf)), X)
    with pytest.raises(
        ValueError, match=r"certificates are in l1 against perturbations on the .* but clf has radius=Greedy"
    ):
        certificates.verify(clf.set_params(radius=GreedyRadius(max_features=2)), X)
    clf.set_params(radius="auto")
    with pytest.raises(ValueError, match="certificates hold the label 7, which is not among the classes"):
        verify(replace(certificates, labels=certificates.labels + 7), clf, X)
    without = np.full(20, np.nan)
    with pytest.raises(ValueError, match="certificates must hold probabilities, but p_a is NaN"):
        verify(replace(certificates, p_a=without, p_b=without), clf, X)


def test_inputs_that_were_skipped_are_left_out():
    clf, X, _ = make(n=20)
    X[3] = np.nan
    certificates = clf.certify(X, on_error="skip")
    audit = certificates.verify(clf, X, fraction=1.0, random_state=1)
    assert audit.consistent, audit
    assert audit.rows.tolist() == np.flatnonzero(~certificates.abstained).tolist()
    assert 3 not in audit.rows


def test_a_model_with_a_random_generator_of_its_own_is_told():
    rng, drawn = np.random.default_rng(0), {}

    def answer(rows):
        """Answer at random, but the same for a row that is asked about again soon: no single batch tells."""
        if len(rows) > 1:
            drawn.clear()
        return np.array([drawn.setdefault(row.tobytes(), int(rng.random() < 0.1)) for row in rows])

    clf, X, certificates = make(model=Rule(answer).fit(None, None), n=10)
    audit = certificates.verify(clf, X, fraction=1.0)
    assert not audit.repeatable
    assert audit.consistent
    assert repr(audit).endswith("; the base model answers the same batch in two ways)")
    clf, X, certificates = make(n=10)
    assert certificates.verify(clf, X, fraction=1.0).repeatable


def tail(n, k, p):
    """P(Bin(n, p) >= k), summed in exact arithmetic."""
    p = Fraction(p)
    return float(sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)))


def claims(p_a, p_b):
    n = len(p_a)
    return Certificates(
        np.zeros(n, int), np.ones(n), np.zeros(n, bool), np.array(p_a), np.array(p_b), alpha=0.01, norm=1
    )


def test_p_values_are_the_binomial_tails():
    """The first claims are contradicted by the label's votes, the others by those of the strongest rival."""
    counts = np.array([[10, 6, 4], [12, 3, 5], [11, 8, 1], [13, 0, 7], [20, 0, 0]])
    p_a, p_b = [0.875, 0.75, 0.5, 0.5, 0.9], [0.5, 0.5, 0.125, 0.0625, 0.0]
    expected = [
        2 * (1 - tail(20, 11, 0.875)),
        2 * (1 - tail(20, 13, 0.75)),
        2 * 2 * tail(20, 8, 0.125),
        2 * 2 * tail(20, 7, 0.0625),
        1.0,
    ]
    found = _p_values(duel(counts), 2, claims(p_a, p_b), by_margin=False)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert max(expected[:4]) < 0.25


def test_p_values_are_uniform_for_claims_that_are_just_true():
    """With two classes and p_b = 1 - p_a, P(p-value <= u) never exceeds u, and is close to u at the attained values."""
    n, p = 40, 0.75
    k = np.arange(n + 1)
    found = _p_values(duel(np.column_stack([k, n - k])), 1, claims([p] * (n + 1), [1 - p] * (n + 1)), False)
    mass = binom.pmf(k, n, p)
    for level in (0.001, 0.01, 0.05, 0.2):
        assert 0.1 * level < mass[found <= level].sum() <= level


def test_p_values_of_a_margin_are_chernoff_bounds():
    counts = np.array([[55, 40, 5], [70, 20, 10]])
    p_a, p_b = np.array([0.75, 0.75]), np.array([0.25, 0.25])
    found = _p_values(duel(counts), 2, claims(p_a, p_b), by_margin=True)
    mean, least = (1 + 0.15) / 2, 0.75
    divergence = mean * math.log(mean / least) + (1 - mean) * math.log((1 - mean) / (1 - least))
    np.testing.assert_allclose(found, [2 * math.exp(-100 * divergence), 1.0], rtol=1e-12)


def test_the_verdict_is_a_binomial_test_of_the_contradictions():
    clf, X, certificates = make()
    wrong = certificates.labels.copy()
    claimed = np.flatnonzero(~certificates.abstained)
    sure = claimed[np.argsort(-certificates.p_a[claimed])[:3]]
    wrong[sure] = 1 - wrong[sure]
    audit = replace(certificates, labels=wrong).verify(clf, X, fraction=1.0, level=0.002, random_state=1)
    assert audit.rows[audit.contradicted].tolist() == sorted(sure)
    assert audit.p_value == pytest.approx(tail(len(claimed), 3, 0.01 + 0.002), rel=1e-9)


def test_the_table_lists_doubtful_inputs_worst_first():
    contradicted, too_large = np.array([True, False, True, False, True]), np.array([False, True, False, False, True])
    p_values = np.array([1e-4, 0.5, 1e-9, 0.3, 2e-5])
    audit = Audit(np.array([2, 3, 5, 7, 8]), p_values, contradicted, too_large, 0.5, True, 0.01, 0.001)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in audit.table().splitlines()]
    assert lines[0] == ["input", "p-value of the claim", "radius"]
    assert lines[2:] == [
        ["5", "1e-09", "as claimed"],
        ["8", "2e-05", "too large"],
        ["2", "0.0001", "as claimed"],
        ["3", "0.5", "too large"],
    ]


def test_radii_may_exceed_by_rounding_and_no_more():
    clf, X, certificates = make()
    for factor, fine in ((1 + 1e-10, True), (1 + 1e-7, False)):
        audit = replace(certificates, radii=certificates.radii * factor).verify(clf, X, fraction=1.0, random_state=1)
        assert audit.too_large.any() != fine
        assert audit.consistent == fine


def test_the_number_of_fresh_votes_is_that_asked_for():
    """A p-value of n unanimous rivals is P(no vote for the label) doubled: it tells n."""
    clf, X, certificates = make(model=Rule(lambda rows: np.zeros(len(rows), dtype=int)).fit(None, None))
    other = replace(certificates, labels=np.ones_like(certificates.labels))
    for n, expected in ((None, 1000), (7, 7)):
        audit = other.verify(clf, X, fraction=0.1, n_samples=n, random_state=1)
        miss = np.exp(expected * np.log1p(-certificates.p_a[audit.rows]))
        np.testing.assert_allclose(audit.p_values, 2 * np.minimum(miss, certificates.p_b[audit.rows] ** expected))


@pytest.mark.parametrize("noise", [NOISE, DeterministicSplitNoise(1.0, levels=100)], ids=str)
def test_the_order_in_which_workers_finish_does_not_matter(noise, monkeypatch):
    clf, X, certificates = make(thresholds=(0.3, 0.7), n=90, noise=noise, n_samples=100, batch_size=256, n_jobs=1)
    labels = np.where(np.arange(90) % 3 == 0, (certificates.labels + 1) % 3, certificates.labels)
    certificates = replace(certificates, labels=labels)
    expected = certificates.verify(clf, X, fraction=1.0, random_state=1)
    seen, draw = [], smoothcert.audit.sample_votes

    def backwards(sampler, inputs, n_jobs):
        parts = list(draw(sampler, inputs, n_jobs))
        seen.append((n_jobs, len(parts)))
        yield from parts[::-1]

    monkeypatch.setattr(smoothcert.audit, "sample_votes", backwards)
    found = certificates.verify(clf, X, fraction=1.0, random_state=1)
    ((n_jobs, n_parts),) = seen
    assert (n_jobs, n_parts > 3, found.repeatable) == (1, True, True)
    assert 0 < expected.contradicted.sum() < len(X)
    for name in ("rows", "p_values", "too_large", "p_value"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_first_eight_inputs_are_drawn_twice():
    asked = []
    rule = Rule(lambda rows: asked.append(len(rows)) or np.zeros(len(rows), dtype=int)).fit(None, None)
    clf, X, certificates = make(model=rule, n=20)
    asked.clear()
    certificates.verify(clf, X, fraction=1.0)
    # Single rows show whether answers depend on the batch.
    assert sum(n for n in asked if n > 1) == (20 + 8) * (16 + 1000)


@pytest.mark.parametrize("rtol", [None, 0.1])
def test_the_p_value_covers_every_rival(rtol):
    """All ten votes are for the first of three classes, and the claim is about the second."""
    rule = Rule(lambda rows: np.zeros(len(rows), dtype=int), range(3)).fit(None, None)
    clf, X, certificates = make((0.3, 0.7), model=rule, n=4, rtol=rtol)
    ones = np.ones(4)
    claim = replace(certificates, labels=ones.astype(int), p_a=0.5 * ones, p_b=0.25 * ones)
    audit = claim.verify(clf, X, fraction=1.0, n_samples=10)
    # Two rivals; twice for the two tails. Chernoff's bound says P(no success) = (1 - 0.625)**10 for a mean of 0.625.
    expected = 2 * 2 * 0.25**10 if rtol is None else 2 * 0.375**10
    np.testing.assert_allclose(audit.p_values, expected, rtol=1e-9)


def test_a_single_false_count_is_enough_where_nothing_is_random():
    clf, X, certificates = make(noise=DeterministicSplitNoise(1.0, levels=100))
    labels = certificates.labels.copy()
    row = np.flatnonzero(~certificates.abstained)[3]
    labels[row] = 1 - labels[row]
    audit = replace(certificates, labels=labels).verify(clf, X, fraction=1.0, random_state=1)
    assert audit.rows[audit.contradicted].tolist() == [row]
    assert (audit.p_value, audit.alpha, audit.consistent) == (0.0, 0.0, False)
    # No alpha explains it.
    audit = replace(certificates, labels=labels, alpha=0.5).verify(clf, X, fraction=1.0, random_state=1)
    assert (audit.p_value, audit.alpha, audit.consistent) == (0.0, 0.5, False)


@pytest.mark.parametrize(("name", "change"), [("p_a", 0.01), ("p_a", 1.0), ("p_b", -0.01), ("p_b", -1.0)])
def test_a_single_false_probability_is_enough_where_nothing_is_random(name, change):
    clf, X, certificates = make(noise=DeterministicSplitNoise(1.0, levels=100))
    row = np.flatnonzero((certificates.p_a < 0.9) & ~certificates.abstained)[3]
    values = getattr(certificates, name).copy()
    values[row] += change
    audit = replace(certificates, **{name: values}).verify(clf, X, fraction=1.0, random_state=1)
    assert audit.rows[audit.contradicted].tolist() == [row]
    assert audit.rows[audit.too_large].tolist() == ([row] if abs(change) == 1 else [])
    assert not audit.consistent


def test_alpha_and_level_are_those_of_the_certificates_and_the_call():
    clf, X, certificates = make()
    clf.set_params(alpha=0.2)
    audit = certificates.verify(clf, X, random_state=1)
    assert (audit.alpha, audit.level) == (0.01, 0.001)
    assert len(audit.rows) == math.ceil(0.1 * (~certificates.abstained).sum())
    # A level and an alpha whose sum exceeds 1 contradict all, which proves nothing.
    audit = certificates.verify(clf, X, random_state=1, level=0.999)
    assert (audit.p_value, audit.level) == (1.0, 0.999)


def supremum(claim, fresh):
    """Return the largest product of two probabilities over all p, on a fine grid."""
    p = np.linspace(1e-6, 1 - 1e-6, 40_001)
    return (claim(p) * fresh(p)).max()


def divergence(q, p):
    return (q * np.log(q / p) if q else 0.0) + ((1 - q) * np.log((1 - q) / (1 - p)) if q < 1 else 0.0)


@pytest.mark.parametrize(
    ("looks", "counts", "p_a", "p_b"),
    [
        (None, [[258, 104, 38], [251, 113, 36], [348, 28, 24]], [0.69, 0.63, 0.9], [0.25, 0.23, 0.06]),
        (7, [[255, 125, 20], [230, 130, 40], [320, 45, 35]], [0.71, 0.65, 0.91], [0.24, 0.19, 0.03]),
    ],
)
def test_what_alpha_cannot_explain_is_a_bound_over_all_probabilities(looks, counts, p_a, p_b):
    """The level at which a claim is found, from a search of the worst probability for each claim and each count."""
    alpha, recorded, counts, p_a, p_b = 0.01, 600, np.array(counts), np.array(p_a), np.array(p_b)
    n, expected = 400, []
    for (k_a, k_b, _), a, b in zip(counts, p_a, p_b, strict=True):
        if looks is None:
            needed = [np.argmax(binom.sf(np.arange(recorded) - 1, recorded, p) <= alpha) for p in (a, 1 - b)]
            one, other = (
                supremum(lambda p, k=k: binom.sf(k - 1, recorded, p), lambda p, few=few: binom.cdf(few, n, p))
                for k, few in zip(needed, (k_a, n - k_b), strict=True)
            )
            product = 2 * min(one, 2 * other)
        else:
            mean, least = (1 + (k_a - k_b) / n) / 2, (1 + a - b) / 2
            product = (
                looks
                * 2
                * supremum(
                    lambda p, q=least: np.exp(-recorded * np.where(p < q, divergence(q, p), 0)),
                    lambda p, q=mean: np.exp(-n * np.where(p > q, divergence(q, p), 0)),
                )
            )
        expected.append(min(1.0, product * (1 - np.log(product)) if product < 1 else 1.0))
    claimed = replace(claims(p_a, p_b), n_samples=np.full(3, recorded))
    assert min(expected) < 0.2
    for i, at in enumerate(expected):
        # Neighbors on the grid of the code are a little apart, and level is shared by three inputs.
        found = [_unexplained(duel(counts), 2, claimed, 3 * at * factor, looks)[i] for factor in (0.95, 1.6)]
        assert found == [False, True]
    for unknown in (
        replace(claimed, n_samples=None),
        replace(claimed, n_samples=np.array([600, 0, 600])),
        replace(claimed, alpha=0.0),
    ):
        assert not _unexplained(duel(counts), 2, unknown, 0.5, looks).any()


def given(p_value=0.5, unexplained=None, too_large=(False, False, False), repeatable=True):
    """Return an audit of three claims at the level 0.001, of which the first is contradicted."""
    marks = [np.array(one) if one is not None else None for one in ((True, False, False), too_large, unexplained)]
    return Audit(np.array([4, 7, 9]), np.ones(3), *marks[:2], p_value, repeatable, 0.05, 0.001, marks[2])


def test_both_tests_share_the_level_where_there_are_two():
    none, one = (False, False, False), (False, True, True)
    assert [given(p).consistent for p in (0.0009, 0.001, 0.0011)] == [False, False, True]
    assert [given(p, none).consistent for p in (0.0004, 0.0005, 0.0006)] == [False, False, True]
    assert not given(0.5, one).consistent
    assert not given(0.5, none, one).consistent
    assert repr(given(0.0123, one, (True, True, True), repeatable=False)) == (
        "Audit(NOT consistent: of 3 claims, 1 contradicted by fresh votes (p-value 0.0123 at alpha=0.05), 2 beyond "
        "what alpha explains, 3 radii too large; the base model answers the same batch in two ways)"
    )
    assert "), 0 beyond what alpha explains, 0 radii too large)" in repr(given())


def test_equal_inputs_count_once():
    """One false certificate of an input that occurs often is one error, not many."""
    clf, X, _ = make(n=40, n_samples=100, alpha=0.2)
    X = np.repeat(X[30:34], 15, axis=0)
    alarms = 0
    for seed in range(60):
        certificates = clf.set_params(random_state=2 * seed).certify(X)
        audit = certificates.verify(clf, X, fraction=1.0, level=0.05, random_state=2 * seed + 1)
        alarms += not audit.consistent
        if audit.contradicted.any():
            n_inputs = len(np.unique(X[audit.rows], axis=0))
            n_wrong = len(np.unique(X[audit.rows[audit.contradicted]], axis=0))
            assert audit.p_value == pytest.approx(binom.sf(n_wrong - 1, n_inputs, 0.25))
    assert alarms <= binom.isf(1e-4, 60, 0.05)


def test_one_false_certificate_among_equal_inputs_counts():
    clf, X, _ = make()
    X = np.repeat(X[20:50], 2, axis=0)
    certificates = clf.certify(X)
    forged = certificates.p_a.copy()
    forged[::2] = 1.0
    audit = replace(certificates, p_a=forged).verify(clf, X, fraction=1.0, random_state=1)
    assert audit.contradicted.sum() < len(X)
    assert not audit.consistent
