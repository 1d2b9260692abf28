import itertools
import math

import numpy as np
import pytest
from scipy.stats import chisquare
from sklearn.base import clone

from smoothcert import DeterministicSplitNoise, GaussianNoise, SplitNoise, UniformMixtureNoise, UniformNoise
from smoothcert.noise._philox import apply_offsets
from smoothcert.noise.lattice import FINE_LEVELS, digital_points

from ..base_models import all_offsets, outcomes

NOISES = [UniformNoise, SplitNoise]


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize(("lam", "levels"), [(1.0, 4), (0.5, 4), (0.4, 5), (0.1, 10), (1.7, 3), (3.0, 2)])
def test_overlap_is_exact_in_integers(noise_type, lam, levels):
    """Mass of outcomes that two inputs share = L^d prod(1 - |dx|/L), by enumerating all of them."""
    noise = noise_type(lam=lam, levels=levels)
    size = noise.n_offsets
    points = list(itertools.product(range(levels + 1), repeat=2))
    counts = {x: np.unique(outcomes(noise, np.array(x)), axis=0, return_counts=True) for x in points}
    tables = {x: {row.tobytes(): int(n) for row, n in zip(*counts[x], strict=True)} for x in points}
    for x, y in itertools.combinations(points, 2):
        shared = sum(min(n, tables[y].get(row, 0)) for row, n in tables[x].items())
        expected = math.prod(max(size - abs(a - b), 0) for a, b in zip(x, y, strict=True))
        assert shared == expected


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize("lam", [0.05, 0.3, 0.5, 1.0, 2.5])
def test_cost_is_the_logarithm_of_the_overlap(noise_type, lam):
    noise = noise_type(lam=lam, levels=20)
    z = np.arange(21) / 20
    overlap = np.maximum(1 - z / (2 * lam), 0)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(noise.cost(z), -np.log(overlap), rtol=1e-12)
    affordable = z[z < 2 * lam - 1e-9]
    np.testing.assert_allclose(noise.inverse_cost(noise.cost(affordable)), affordable, atol=1e-12)


@pytest.mark.parametrize("lam", [0.5, 0.75, 1.0, 3.5])
def test_split_noise_is_the_papers_formula(lam):
    """Theorem 2.10, halved: (min(s, 1) + [x > s])/2."""
    noise = SplitNoise(lam=lam, levels=8)
    offsets = all_offsets(noise, 1)
    for x in range(9):
        out = np.empty(offsets.shape)
        apply_offsets(noise.recipe, np.array([x]), offsets, out)
        s = (offsets + 0.5) / 8
        np.testing.assert_array_equal(out, (np.minimum(s, 1) + (x / 8 > s)) / 2)


@pytest.mark.parametrize("lam", [0.07, 0.2, 0.45])
def test_narrow_split_noise_returns_the_midpoint_of_the_inputs_cell(lam):
    """The cell between consecutive points of s + 2 lam Z around x, cut to [0, 1]."""
    noise = SplitNoise(lam=lam, levels=100)
    period = noise.n_offsets / 100
    for j, x in itertools.product(range(noise.n_offsets), range(0, 101, 7)):
        out = np.empty((1, 1))
        apply_offsets(noise.recipe, np.array([x], dtype=np.uint32), np.array([[j]], dtype=np.uint32), out)
        splits = (j + 0.5) / 100 + period * np.arange(-2, 200)
        low = max(splits[splits < x / 100].max(), 0)
        high = min(splits[splits > x / 100].min(), 1)
        assert out[0, 0] == pytest.approx((low + high) / 2, abs=1e-12)


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize("lam", [0.3, 3.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_of_two_inputs_is_the_same_function_of_integers(noise_type, lam, dtype):
    """What differs between x and y must differ in the lattice integers: floating point adds nothing."""
    noise = noise_type(lam=lam)
    rng = np.random.default_rng(0)
    x = rng.integers(FINE_LEVELS, size=(1, 500), dtype=np.uint32)
    j = rng.integers(noise.n_offsets, size=(1, 500), dtype=np.uint32)
    shift = np.minimum(j, 12345).astype(np.uint32)
    out, moved = np.empty((1, 500), dtype), np.empty((1, 500), dtype)
    apply_offsets(noise.recipe, x, j, out)
    if noise_type is UniformNoise:
        apply_offsets(noise.recipe, x + shift, j - shift, moved)
        np.testing.assert_array_equal(out, moved)
    else:
        y = np.minimum(x + 12345, FINE_LEVELS).astype(np.uint32)
        apply_offsets(noise.recipe, y, j, moved)
        crossed = (
            (j >= x) & (j < y) if lam >= 0.5 else (y - j - 1.0) // noise.n_offsets != (x - j - 1.0) // noise.n_offsets
        )
        np.testing.assert_array_equal(out == moved, ~crossed)


@pytest.mark.parametrize(("lam", "levels"), [(1.5, 7), (0.5, 255), (41.3, 3), (3.5, 85)])
def test_offsets_are_uniform(lam, levels):
    """Chi-square over the cells and over neighboring pairs of uniform noise."""
    noise = UniformNoise(lam=lam, levels=levels)
    size = noise.n_offsets
    out = np.empty((40_000, 2))
    noise.draw(np.zeros(2, dtype=np.uint32), np.random.default_rng(1), out)
    offsets = np.rint(out * levels + (size - 1) / 2).astype(int)
    assert offsets.min() >= 0
    assert offsets.max() < size
    assert chisquare(np.bincount(offsets.ravel(), minlength=size)).pvalue > 1e-4
    coarse = offsets * 4 // size
    share = np.bincount(np.arange(size) * 4 // size, minlength=4) / size
    pairs = np.bincount(coarse[:, 0] * 4 + coarse[:, 1], minlength=16)
    assert chisquare(pairs, 40_000 * np.outer(share, share).ravel()).pvalue > 1e-4


@pytest.mark.parametrize("noise_type", NOISES)
@pytest.mark.parametrize(("lam", "levels"), [(127.0, "auto"), (32_767.0, 2**16), (8e6, 4)])
def test_the_widest_noise_fits_32_bits(noise_type, lam, levels):
    noise = noise_type(lam=lam, levels=levels)
    noise.check()
    assert noise.n_offsets + 2 * noise.q <= 2**32
    out = np.empty((2000, 3))
    noise.draw(noise.to_points(np.array([0.0, 0.5, 1.0])), np.random.default_rng(0), out)
    if noise_type is UniformNoise:
        assert np.abs(out).max() <= lam + 1
        assert out.std() == pytest.approx(noise.sigma, rel=0.05)
    else:
        assert (out == 0.5).mean() > 0.99


def test_fine_lattice_holds_8_and_16_bit_data_and_float32_tells_it_apart():
    noise = UniformNoise()
    for steps in (255, 65_535):
        expected = np.arange(steps + 1) * (FINE_LEVELS // steps)
        np.testing.assert_array_equal(noise.to_points(np.arange(steps + 1) / steps), expected)
    in_float32 = (np.arange(256) / np.float32(255)).astype(float)
    np.testing.assert_allclose(noise.to_points(in_float32), np.arange(256) * (FINE_LEVELS // 255), atol=1)
    assert FINE_LEVELS < 2**24


def test_digital_inputs_must_lie_on_the_lattice():
    noise = SplitNoise(levels=255)
    np.testing.assert_array_equal(noise.to_points(np.float32([3 / 255, 1]).astype(float)), [3, 255])
    with pytest.raises(ValueError, match=r"X must lie on the lattice of levels=255 steps.*Round X.*levels='auto'"):
        noise.to_points(np.array([0.5]))


def test_sigma_is_the_standard_deviation_of_uniform_noise():
    noise = UniformNoise.from_sigma(3.5)
    assert noise.lam == pytest.approx(6.062177826)
    assert noise.sigma == pytest.approx(3.5)
    assert noise.effective_lam == pytest.approx(noise.lam, abs=1e-7)
    assert clone(noise).get_params() == noise.get_params()
    with pytest.raises(ValueError, match="sigma must be a finite number above 0, got -1"):
        UniformNoise.from_sigma(-1)


@pytest.mark.parametrize("family", [UniformNoise, SplitNoise, GaussianNoise, DeterministicSplitNoise])
def test_noise_of_a_sigma_has_the_levels_that_are_asked_for(family):
    noise = family.from_sigma(0.5, levels=9)
    assert (noise.levels, noise.sigma) == (9, pytest.approx(0.5))
    assert family.from_sigma(0.5).levels == family().levels


@pytest.mark.parametrize(
    "noise", [UniformNoise(0.6, 9), SplitNoise(0.6), UniformMixtureNoise([0.6], [1.0], 9), GaussianNoise(0.6, 9)]
)
def test_noise_of_a_cost_is_as_much_narrower_on_the_same_lattice(noise):
    before = noise.get_params()
    priced = noise.with_groups(((0.5, 0), (2.0, 0)))
    for one in (noise, priced):
        narrow = one.for_cost(2.0)
        width = {"sigma": 0.3, "lam": 0.3, "lams": [0.3]}
        assert narrow.get_params() == before | {name: width[name] for name in before if name in width}
        # Its own moves are those of one group of cost 1.
        assert narrow.cost(0.25) == type(narrow)(**narrow.get_params()).cost(0.25)
    assert noise.get_params() == before


def test_off_the_lattice_starts_beyond_the_rounding_of_float32():
    at = 0.25 + np.array([-1, 1]) * 2.0**-22
    assert digital_points(at, 4).tolist() == [1, 1]
    for wrong in (0.25 - 2.0**-21, 0.25 + 2.0**-21):
        with pytest.raises(ValueError, match=rf"levels=4 steps per unit .* holds {wrong:.9g} of"):
            digital_points(np.array([0.5, wrong, 0.3]), 4)


def test_a_coarser_lattice_is_offered_to_wide_noise_alone():
    for lam, offered in ((1e3, True), (1e-9, False)):
        with pytest.raises(ValueError, match="lam must lie between") as error:
            UniformNoise(lam).check()
        assert ("A coarser lattice" in str(error.value)) == offered


def test_lists_are_offered_where_arrays_have_changed_the_levels():
    for wrong, offered in ((0, False), (2.5, True), ("73", True), (None, False)):
        with pytest.raises(ValueError, match="levels of column 'age': levels must be") as error:
            SplitNoise(levels={"age": wrong}).check()
        assert str(error.value).endswith("give a list or a dict.") == offered


@pytest.mark.parametrize("levels", ["fine", 0, 2**16 + 1, 2.5, True, None])
@pytest.mark.parametrize("family", [UniformNoise, GaussianNoise])
def test_levels_are_auto_or_whole_numbers(family, levels):
    with pytest.raises(ValueError, match=r'levels must be "auto" .* from 1 to 65536 .* got .*\.$'):
        family(1.0, levels).check()


def test_snapped_inputs_are_the_nearest_points():
    unit = (np.array([[0.0, 0.4, 0.6, 7.49, 7.51]]) + 3) / FINE_LEVELS
    noise = SplitNoise(1.0)
    np.testing.assert_array_equal(noise.snap(unit.copy()) * FINE_LEVELS, [[3, 3, 4, 10, 11]])
    np.testing.assert_array_equal(noise.to_points(unit.copy()), [[3, 3, 4, 10, 11]])
    np.testing.assert_array_equal(SplitNoise(1.0, 4).snap(np.array([[0.25 + 1e-8, 0.5]])), [[0.25, 0.5]])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lam": 0}, "lam must be a finite number above 0, got 0"),
        ({"lam": -1.0}, "lam must be a finite number above 0, got -1.0"),
        ({"lam": float("nan")}, "lam must be a finite number above 0, got nan"),
        ({"lam": "1"}, "lam must be a finite number above 0, got '1'"),
        ({"levels": 0}, 'levels must be "auto" .* or a whole number from 1 to 65536 .*, got 0'),
        ({"levels": 2**21}, 'levels must be "auto" .*, got 2097152'),
        ({"lam": 1e305}, r"lam must lie between .* got 1e\+305"),
        ({"lam": 128.0}, r"lam must lie between .* and 127.002 .* got 128.0. A coarser lattice, such as levels=255"),
        ({"levels": {"age": 90.5}}, 'levels must be "auto" .*, got 90.5'),
        ({"levels": [90, 0]}, 'levels must be "auto" .*, got 0'),
        ({"levels": "fine"}, "levels must be .auto. .* got 'fine'"),
        ({"lam": 1e-9}, "lam must lie between 2.98028e-08"),
        ({"lam": 0.1, "levels": 4}, "lam must lie between 0.125"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        SplitNoise(**params).check()
