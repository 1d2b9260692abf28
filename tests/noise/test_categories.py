"""Categories are shown or hidden by offsets, at all offsets by hand."""

import numpy as np
import pytest

from smoothcert import GaussianNoise, SplitNoise, UniformNoise
from smoothcert.noise.categories import CategoryNoise


def categories(costs=(1.0, 0.3), n_categories=(3, 5), hidden="mask", noise=None, columns=(4, 7)):
    noise = noise or UniformNoise(1.0, levels=4)
    return CategoryNoise(noise, np.array(columns), np.array(costs), np.array(n_categories), hidden)


@pytest.mark.parametrize("hidden", ["mask", "uniform"])
def test_views_at_all_offsets(hidden):
    """A category of cost kappa is shown at R = floor(kappa q) of L = 2 lam q offsets."""
    noise, offsets = categories(hidden=hidden), np.repeat(np.arange(8)[:, None], 2, axis=1)
    seen = noise.at_offsets(np.array([[2, 4]] * 8), offsets)
    replaced = [[3] * 4, [5] * 7] if hidden == "mask" else [[0, 1, 2, 0], [0, 1, 2, 3, 4, 0, 1]]
    assert seen[:, 0].tolist() == [2] * 4 + replaced[0]
    assert seen[:, 1].tolist() == [4] + replaced[1]
    np.testing.assert_allclose(noise.moves, [1, 0.25])
    for place, (shown, k) in enumerate(((4, 3), (1, 5))):
        views = [noise.at_offsets(np.full((8, 2), code), offsets)[:, place].tolist() for code in (0, k - 1)]
        shares = noise.pairs[place] * 8
        assert shares.tolist() == [
            shown + (8 - shown) // k * (hidden == "uniform"),
            (8 - shown) // k * (hidden == "uniform"),
        ]
        assert shares[0] <= views[0].count(0)
        assert shares[1] <= views[0].count(k - 1)


def test_categories_that_cost_more_than_the_noise_is_wide_are_always_shown():
    noise = categories(costs=(9.0, 2.0))
    assert noise.n_shown.tolist() == [8, 8]
    assert noise.moves.tolist() == [2, 2]
    assert noise.pairs.tolist() == [[1, 0], [1, 0]]
    out = np.empty((6, 2))
    points = np.array([[0, 4], [1, 3], [2, 0]])
    noise.draw(points, np.random.default_rng(0), out)
    assert out.tolist() == [[0, 4], [0, 4], [1, 3], [1, 3], [2, 0], [2, 0]]
    noise.sample(points, np.ones((3, 4), np.uint32), np.array([[2, 0, 1], [0, 5, 3], [1, 2, 2]]), out)
    assert out.tolist() == [[2, 0]] + [[0, 4]] * 3 + [[1, 3]] * 2


def test_a_category_of_one_code_has_nothing_to_be_changed_to():
    assert categories(n_categories=(1, 2), hidden="uniform").pairs.tolist() == [[0.75, 0.25], [0.5, 0.375]]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[2, 4], [3, 0]], "from 0 to 2 in feature 4, got 3"),
        ([[2, 4], [0, 5]], "from 0 to 4 in feature 7, got 5"),
        ([[2, 4], [0, -1]], "from 0 to 4 in feature 7, got -1"),
        ([[0.5, 4], [0, 0]], r"from 0 to 2 in feature 4, got 0\.5"),
        ([[0, 0], [0, np.nan]], "from 0 to 4 in feature 7, got nan"),
    ],
)
def test_codes_are_those_seen_in_fit(codes, message):
    categories().check_codes(np.array([[2, 4], [0, 0]], dtype=float))
    with pytest.raises(
        ValueError, match=rf"X must hold the categories that were seen in fit, as codes {message}\. Fit"
    ):
        categories().check_codes(np.array(codes, dtype=float))


def test_only_noise_of_the_library_that_pays_by_overlap_has_categories():
    for noise in (GaussianNoise(), type("Own", (SplitNoise,), {})()):
        with pytest.raises(ValueError, match="categorical_features need uniform, splitting or mixture noise"):
            categories(noise=noise)
