import math

import mpmath
import numpy as np
import pytest
from scipy.stats import beta, binom, kstest

from smoothcert.certify.binomial import (
    BOUNDS,
    check_statistics,
    class_probabilities,
    clopper_pearson,
    hoeffding,
    randomized_clopper_pearson,
    upper_bound,
)
from smoothcert.noise.seeding import auxiliary


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4, 0.7])
@pytest.mark.parametrize("n", [1, 10, 257, 10_000])
def test_clopper_pearson_solves_its_equation(n, alpha):
    """The lower bound is the p at which k or more successes have probability alpha."""
    k = np.unique(np.linspace(1, n, 7).astype(int))
    lower = clopper_pearson(k, n, alpha)
    np.testing.assert_allclose(binom.sf(k - 1, n, lower), alpha, rtol=1e-7)
    assert (lower <= beta.ppf(alpha, k, n - k + 1)).all()
    np.testing.assert_allclose(lower, beta.ppf(alpha, k, n - k + 1), rtol=1e-8)
    assert clopper_pearson(0, n, alpha) == 0


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_coverage_is_exact(bound, alpha):
    """Sum over all outcomes: the bound exceeds p with probability at most alpha."""
    n = 40
    k = np.arange(n + 1)
    lower = BOUNDS[bound](k, n, alpha)
    upper = upper_bound(BOUNDS[bound], k, n, alpha)
    failures = []
    for p in np.linspace(0.01, 0.99, 197):
        mass = binom.pmf(k, n, p)
        failures.append(mass[lower > p].sum())
        assert mass[lower > p].sum() <= alpha + 1e-12
        assert mass[upper < p].sum() <= alpha + 1e-12
    if bound == "clopper-pearson":
        assert max(failures) > 0.9 * alpha


@pytest.mark.parametrize(
    "bound", [clopper_pearson, hoeffding, lambda k, n, alpha: randomized_clopper_pearson(k, n, alpha, 0.5)]
)
@pytest.mark.parametrize(
    ("k", "n", "alpha", "message"),
    [
        (-1, 10, 0.05, "k must hold whole numbers from 0 to n, got -1"),
        ([3, 11], 10, 0.05, "k must hold whole numbers from 0 to n, got 11"),
        (np.nan, 10, 0.05, "k must hold whole numbers from 0 to n, got nan"),
        (2.5, 10, 0.05, r"k must hold whole numbers from 0 to n, got 2\.5"),
        (0, 0, 0.05, "n must hold whole numbers of at least 1, got 0"),
        (0, [5, np.nan], 0.05, "n must hold whole numbers of at least 1, got nan"),
        (1, np.inf, 0.05, "n must hold whole numbers of at least 1, got inf"),
        (1, 10, np.nan, "alpha must lie strictly between 0 and 1, got nan"),
        (1, 10, 1.0, r"alpha must lie strictly between 0 and 1, got 1\.0"),
    ],
)
def test_bad_counts_and_levels(bound, k, n, alpha, message):
    with pytest.raises(ValueError, match=message):
        bound(k, n, alpha)


@pytest.mark.parametrize("u", [-0.1, 1.1, np.nan])
def test_bad_uniforms(u):
    with pytest.raises(ValueError, match=f"uniforms must hold numbers from 0 to 1, got {u}"):
        randomized_clopper_pearson(1, 10, 0.05, [0.5, u])


def test_randomized_bounds_lie_between_the_plain_bounds_of_neighboring_counts():
    k, u = np.arange(60)[:, None], np.array([0.0, 0.01, 0.5, 1.0])
    lower = randomized_clopper_pearson(k, 60, 0.05, u)
    assert (lower >= clopper_pearson(k, 60, 0.05)).all()
    assert (lower <= clopper_pearson(k + 1, 60, 0.05) + 1e-9).all()
    assert (np.diff(lower, axis=0) >= -1e-12).all()
    assert (np.diff(lower, axis=1)[1:-1] < 0).all()


def test_filters_of_warnings_are_left_alone_at_usual_levels(monkeypatch):
    """All threads share them."""
    monkeypatch.setattr("warnings.catch_warnings", None)
    assert clopper_pearson(9_990, 10_000, 1e-40) > 0.98
    with pytest.raises(TypeError):
        clopper_pearson(9_990, 10_000, 1e-60)


def test_hoeffding_is_the_papers_width():
    assert hoeffding(9_000, 10_000, 0.001) == pytest.approx(0.9 - math.sqrt(math.log(0.001) / (-2 * 10_000)))
    assert hoeffding(1, 10_000, 0.001) == 0


@pytest.mark.parametrize("alpha", [1e-100, 1e-6, 0.001, 0.3])
def test_hoeffding_is_rounded_down(alpha):
    for n in (10, 257, 10_000, 10**9):
        counts = np.unique(np.linspace(1, n, 50).astype(np.int64))
        for k, bound in zip(counts.tolist(), hoeffding(counts, n, alpha).tolist(), strict=True):
            with mpmath.workdps(40):
                exact = mpmath.mpf(k) / n - mpmath.sqrt(-mpmath.log(alpha) / (2 * n))
                assert bound <= max(exact, 0)
                assert bound >= exact - mpmath.mpf(2) ** -49 * (1 - mpmath.log(alpha))


def test_multiclass_bounds_two_classes_at_half_alpha_each():
    counts = np.array([[700, 200, 100], [500, 20, 480]])
    p_a, p_b = class_probabilities(counts, np.array([0, 0]), scheme="multiclass", bound="clopper-pearson", alpha=0.01)
    np.testing.assert_allclose(p_a, beta.ppf(0.005, [700, 500], [301, 501]))
    np.testing.assert_allclose(p_b, beta.ppf(0.995, [201, 481], [800, 520]))


def test_the_runner_up_never_gets_more_than_the_winner_leaves():
    counts = np.array([[950, 50, 0, 0]])
    p_a, p_b = class_probabilities(counts, np.array([0]), scheme="multiclass", bound="hoeffding", alpha=0.01)
    np.testing.assert_allclose(p_b, 1 - p_a)


def test_the_class_may_lose_the_estimation():
    counts = np.array([[300, 700]])
    p_a, p_b = class_probabilities(counts, np.array([0]), scheme="binary", bound="clopper-pearson", alpha=0.01)
    assert p_a < 0.3 < 0.7 < p_b


def test_binary_scheme_spends_alpha_on_one_probability():
    counts = np.array([[700, 200, 100]])
    p_a, p_b = class_probabilities(counts, np.array([0]), scheme="binary", bound="clopper-pearson", alpha=0.01)
    np.testing.assert_allclose(p_a, beta.ppf(0.01, 700, 301))
    np.testing.assert_allclose(p_b, 1 - p_a)


def test_with_two_classes_the_schemes_are_one():
    counts, top = np.array([[700, 300], [20, 980]]), np.array([0, 1])
    binary, multiclass = (
        class_probabilities(counts, top, scheme=scheme, bound="clopper-pearson", alpha=0.01)
        for scheme in ("binary", "multiclass")
    )
    np.testing.assert_array_equal(binary, multiclass)


def test_a_single_class_has_no_rival():
    p_a, p_b = class_probabilities(
        np.array([[5]]), np.array([0]), scheme="multiclass", bound="clopper-pearson", alpha=0.01
    )
    assert (p_a, p_b) == (1, 0)


@pytest.mark.parametrize(("scheme", "level"), [("binary", 0.001), ("multiclass", 0.0005)])
def test_too_few_samples_names_the_smallest_number_that_can(scheme, level):
    smallest = math.floor(math.log(level) / math.log(0.5)) + 1
    rule = {"scheme": scheme, "bound": "clopper-pearson", "alpha": 0.001}
    with pytest.raises(ValueError, match=f"n_samples={smallest - 1} cannot certify.* at least {smallest}"):
        check_statistics(smallest - 1, 10, **rule)
    check_statistics(smallest, 10, **rule)


def test_too_few_samples_for_hoeffding():
    smallest = math.floor(2 * math.log(1 / 0.05)) + 1
    rule = {"scheme": "binary", "bound": "hoeffding", "alpha": 0.05}
    with pytest.raises(ValueError, match=f"at least {smallest}"):
        check_statistics(1, 10, **rule)
    check_statistics(smallest, 10, **rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"alpha": 0}, "alpha must lie strictly between 0 and 1, got 0"),
        ({"alpha": 1.0}, "alpha must lie strictly between 0 and 1, got 1.0"),
        ({"alpha": 5e-324}, "alpha must be at least 2e-100, got 5e-324"),
        ({"alpha": "x"}, "alpha must lie strictly between 0 and 1, got 'x'"),
        ({"scheme": "ternary"}, "scheme must be one of 'multiclass', 'binary', got 'ternary'"),
        ({"bound": "wald"}, "bound must be one of 'clopper-pearson', .* got 'wald'"),
    ],
)
def test_bad_parameters(rule, message):
    with pytest.raises(ValueError, match=message):
        check_statistics(1000, 3, **({"scheme": "binary", "bound": "hoeffding", "alpha": 0.05} | rule))


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_randomized_bound_is_wrong_with_probability_exactly_alpha(n, alpha):
    """For every p: average over counts by their probabilities, and over u by a fine grid."""
    k, u = np.meshgrid(np.arange(n + 1), (np.arange(2000) + 0.5) / 2000, indexing="ij")
    lower = randomized_clopper_pearson(k, n, alpha, u)
    for p in (0.03, 0.2, 0.5, 0.77, 0.95):
        wrong = ((lower > p).mean(axis=1) * binom.pmf(np.arange(n + 1), n, p)).sum()
        assert wrong == pytest.approx(alpha, abs=1.5e-3)


def test_randomized_bound_is_never_below_the_plain_one():
    k = np.arange(101)
    plain = clopper_pearson(k, 100, 0.01)
    np.testing.assert_allclose(randomized_clopper_pearson(k, 100, 0.01, 1.0), plain, atol=1e-12)
    assert (randomized_clopper_pearson(k, 100, 0.01, 0.5)[1:] > plain[1:]).all()
    assert randomized_clopper_pearson([100, 0], 100, 0.01, [1e-9, 1e-9]).max() == pytest.approx(1)


def test_randomized_bound_draws_its_numbers_from_the_keyed_stream():
    inputs = np.random.default_rng(0).integers(256, size=(500, 16), dtype=np.uint8)
    numbers = auxiliary(3, inputs)
    np.testing.assert_array_equal(auxiliary(3, inputs[::-1]), numbers[::-1])
    assert (auxiliary(4, inputs) != numbers).all()
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    with pytest.raises(ValueError, match="needs uniforms"):
        class_probabilities(
            np.array([[5, 1]]), np.array([0]), scheme="binary", bound="randomized-clopper-pearson", alpha=0.1
        )
