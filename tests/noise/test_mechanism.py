"""Box and noise together: what inputs become, how far they move, and what rounding and drawing take."""

import warnings

import numpy as np
import pytest

from smoothcert import Box, DeterministicSplitNoise, GaussianNoise, SplitNoise, UniformMixtureNoise, UniformNoise
from smoothcert.noise import seeding
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features

FINE = 256 * 65_535

#: Numbers of two costs, a category of three and one of a single code, a fixed column, a constant one.
COSTS = np.array([1.0, 0.5, 2.0, 2.0, np.inf, 1.0])
N_CATEGORIES = np.array([0, 0, 3, 1, 0, 0])
BOUNDS = (np.array([-1.0, 0, 0, 0, 0, 4]), np.array([3.0, 0.5, 1, 1, 1, 4]))


def table(noise=None, names=("a", "b", "c", "d", "e", "f"), hidden="mask"):
    features = Features(COSTS, N_CATEGORIES, hidden, names)
    return NoiseMechanism(Box.from_bounds(BOUNDS), noise or UniformNoise(2.5), (6,), features)


def test_errors_of_drawing_add_up_over_the_numbers_that_get_noise():
    """A number has 2 * ceil(9 sigma q) thresholds, with the sigma of its cost; a fixed one has none."""
    noise, box = GaussianNoise(0.5, levels=10), Box.from_bounds((0, 1))
    each = [2 * np.ceil(9 * 5.0 / cost) * 2.0**-51 + 1e-18 for cost in (1, 2)]
    assert NoiseMechanism(box, noise, (2, 3)).draw_error == pytest.approx(6 * each[0], rel=1e-12, abs=0)
    mixed = NoiseMechanism(box, noise, (4,), Features(np.array([1, 2, np.inf, 1])))
    assert mixed.draw_error == pytest.approx(2 * each[0] + each[1], rel=1e-12, abs=0)
    assert NoiseMechanism(box, SplitNoise(), (4,)).draw_error == 0


@pytest.mark.parametrize("bounds", [(0, 1), (-3.0, 40.0)])
def test_rounding_counts_the_numbers_that_can_move_at_their_costs(bounds):
    box = Box.from_bounds((np.full(4, bounds[0]), np.array([bounds[1]] * 3 + [bounds[0]])))
    noise, step = UniformNoise(0.5), 1 / FINE + 8 * np.finfo(float).eps
    plain, mixed = (
        NoiseMechanism(box, noise, (4,), features) for features in (Features(), Features(COSTS[[1, 2, 4, 0]]))
    )
    for norm, n, paid in ((1, 3, 2.5), (np.inf, 1, 2.0)):
        assert plain.rounding(norm) == pytest.approx(n * step, rel=1e-12, abs=0)
        assert mixed.rounding(norm) == pytest.approx(paid * step, rel=1e-12, abs=0)
    assert NoiseMechanism(box, GaussianNoise(), (4,)).rounding() == 0
    assert NoiseMechanism(box, GaussianNoise(levels=9), (4,)).rounding(2) == pytest.approx(
        np.sqrt(3) * 2.0**-21, rel=1e-6
    )
    assert (plain.least_cost, mixed.least_cost) == (1, 0.5)
    assert NoiseMechanism(box, noise, (4,), Features(np.array([3.0, 2.0, 5.0, 0.1]))).least_cost == 2
    assert NoiseMechanism(box, noise, (4,), Features(np.full(4, np.inf))).least_cost == 1


def test_categories_and_fixed_columns_have_no_bounds():
    mechanism = table()
    X = np.array([[1.0, 0.125, 2.0, 0.0, 77.0, 4.0], [3.0, 0.5, 1.0, 0.0, -5.0, 4.0]])
    before = X.copy()
    np.testing.assert_array_equal(mechanism.box.lo, [-1, 0, 0, 0, 0, 4])
    np.testing.assert_array_equal(mechanism.box.hi, [3, 0.5, 0, 0, 0, 4])
    half, quarter = round(FINE / 2), round(FINE / 4)
    np.testing.assert_array_equal(mechanism.points(X), [[half, quarter, 2, 0, 77, 0], [FINE, FINE, 1, 0, -5, 0]])
    down, up = mechanism.room(X)
    np.testing.assert_array_equal(down, [[0.5, 0.25, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(up, [[0.5, 0.75, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(mechanism.movable(), [True, True, True, False, False, False])
    np.testing.assert_array_equal(mechanism.costs, [1, 0.5, 0, 0, 0, 1])
    room = np.zeros((1, 6))
    mechanism.with_categories(room)
    assert not room.any()
    np.testing.assert_array_equal(X, before)


def test_inputs_after_moves():
    """Moves are paid at the cost of the column, end at the faces, and turn a category into the next one."""
    X = np.array([[1.0, 0.125, 2.0, 0.0, 77.0, 4.0], [2.8, 0.5, 1.0, 0.0, -5.0, 4.0]])
    moves = np.array([[0.25, -0.0625, 2.0, 0, 0, 0], [0.75, -0.25, 0, 0, 0, 0]])
    expected = [[2.0, 0.0625, 0.0, 0, 77, 4], [3.0, 0.25, 1.0, 0, -5, 4]]
    np.testing.assert_allclose(table().moved(X, moves), expected, atol=1e-6)
    plain = NoiseMechanism(Box.from_bounds((-1, 3)), SplitNoise(), (1, 2))
    found = plain.moved(np.array([[[0.0, 1.0]]]), np.array([[0.125, -0.75]]))
    np.testing.assert_allclose(found, [[[0.5, -1.0]]], atol=1e-6)


def test_steps_of_columns_and_of_all_features():
    assert table(UniformNoise(2.5, [4, "auto", 3, 3, 7, 9])).steps.tolist() == [4, 0, 0, 0, 0, 9]
    assert table(UniformNoise(2.5, 16)).steps.tolist() == [16] * 6
    assert table().steps.tolist() == [0] * 6


@pytest.mark.parametrize(("lam", "warned"), [(1.999, ["c"]), (2.0, ["c"]), (2.001, [])])
@pytest.mark.parametrize("named", [True, False])
def test_categories_are_too_dear_from_lam_on(lam, warned, named):
    """At a cost of lam half of the overlap is left, which no probability of a label below 1 allows."""
    mechanism = table(SplitNoise(lam), *([] if named else [None]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mechanism.warn_dear_categories()
    names = "['c', 'd']" if named else "[2, 3]"
    assert len(caught) == bool(warned)
    for warning in caught:
        assert str(warning.message).startswith(f"Radii will not cover a change of {names}, which costs up to 2: ")


def test_only_columns_of_the_lattice_and_cost_are_called_coarse():
    features = Features(np.array([1.0, 2.0, 1.0]), names=("a", "b", "c"))
    box = Box.from_bounds((0, 1))
    mechanism = NoiseMechanism(box, SplitNoise(0.6, [8, 8, "auto"]), (3,), features)
    # Half-widths are 9/16 at cost 1, and 4 * 2/16 at cost 2.
    assert [mechanism.prices.lam_of(cost, 8) for cost in (1.0, 2.0)] == [0.5625, 0.5]
    with pytest.warns(UserWarning, match=r"^levels=8 in column 'b' are coarse for lam=0.6: .* use 0.5 for all columns"):
        mechanism.warn_coarse_levels()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NoiseMechanism(box, SplitNoise(0.5, [8, 8, "auto"]), (3,), features).warn_coarse_levels()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_and_summands_of_raw_units(dtype):
    def of(bounds, shape=(2, 2)):
        return NoiseMechanism(Box.from_bounds(bounds), SplitNoise(), shape).scale_and_shift(dtype)

    for bounds, scale, shift in (
        ((0, 1), [1] * 4, [0] * 4),
        ((0, 3), [3] * 4, [0] * 4),
        ((-1, 0), [1] * 4, [-1] * 4),
        ((np.array([[0], [5]]), np.array([[1], [7]])), [1, 1, 2, 2], [0, 0, 5, 5]),
    ):
        found = of(bounds)
        assert {part.dtype for part in found} == {np.dtype(dtype)}
        np.testing.assert_array_equal(found, [scale, shift])


def test_the_offsets_of_categories_count_in_the_price():
    """Categories have the offsets of numbers of cost 1, also where all numbers have a lattice that loses less."""
    box, features = Box.from_bounds((0, 1)), Features(np.array([0.5, 0.5]), np.array([0, 3]))
    prices = NoiseMechanism(box, UniformNoise(0.6, 4), (2,), features).prices
    # L = floor(2 * 0.6 * 4) = 4 at cost 1, and floor(2 * 1.2 * 4) = 9 at cost 1/2.
    assert prices.effective_lam == 4 / 8
    assert NoiseMechanism(box, UniformNoise(0.6, 4), (1,), Features(np.array([0.5]))).prices.effective_lam == 9 / 16


def test_prices_leave_the_noise_as_it_is():
    for noise in (UniformNoise(0.6, 4), UniformMixtureNoise([0.6, 0.8], levels=4), GaussianNoise(0.6)):
        before = noise.cost(0.25)
        mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,), Features(np.array([0.5, 2.0])))
        assert mechanism.prices is not noise
        assert mechanism.prices.cost(0.25) is not None
        assert "_groups" not in vars(noise)
        assert noise.cost(0.25) == before


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (
            UniformNoise(1.0, [4, "auto", 1, 1, 1, 2]),
            [[4, 1.10331659, 1, 0, -5, 4], [0, -0.72382894, 2, 0, 77, 4], [3, 0.66375537, 2, 0, 77, 4]],
        ),
        (SplitNoise(1.0), [[1, 0.25, 1, 0, -5, 4], [1, 0.11952559, 2, 0, 77, 4], [1, 0.25, 2, 0, 77, 4]]),
        (
            UniformMixtureNoise([0.5, 1.5], [0.25, 0.75]),
            [
                [7.41364502, 1.11087082, 2, 0, -5, 4],
                [0.11790825, 0.18138788, 2, 0, 77, 4],
                [0.82185843, -0.07919666, 2, 0, 77, 4],
            ],
        ),
    ],
    ids=["levels", "costs", "mixture"],
)
def test_mixed_noise_is_the_same_in_every_version(noise, expected):
    """Votes that are stored were drawn with this noise, and more are drawn later."""
    mechanism = table(noise, hidden="uniform")
    points = mechanism.points([[1.0, 0.125, 2.0, 0.0, 77.0, 4.0], [3.0, 0.5, 1.0, 0.0, -5.0, 4.0]])
    keys = seeding.keys(7, seeding.digests(points), seeding.ESTIMATION)
    out = np.empty((3, 6))
    mechanism.sample(points, keys, np.array([[1, 130, 1], [0, 3, 2]]), out)
    np.testing.assert_allclose(out, expected, atol=1e-7)


def test_categories_are_the_same_in_every_version():
    """The code is 2, and a hidden category is shown as one of three."""
    mechanism, out = table(UniformNoise(2.5), hidden="uniform"), np.empty((24, 6))
    points = mechanism.points([[1.0, 0.125, 2.0, 0.0, 77.0, 4.0]])
    keys = seeding.keys(7, seeding.digests(points), seeding.ESTIMATION)
    mechanism.sample(points, keys, np.array([[0, 0, 24]]), out)
    assert "".join(map(str, out[:, 2].astype(int))) == "212221210221112222202012"


def test_whole_steps_of_enumerated_outcomes_stay_where_reals_of_the_same_size_shrink():
    box, third = Box.from_bounds((0, 1)), np.array([1 / 3])
    assert NoiseMechanism(box, DeterministicSplitNoise(1.0, 3), (5,)).raw_radius(third) == third
    assert NoiseMechanism(box, SplitNoise(1.0, 3), (5,)).raw_radius(third) < third


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("costs", [1.0, [[1, 2, 1], [2, "fixed", 1]]], ids=["plain", "costs"])
def test_hardly_any_noise_leaves_images_as_they_are(costs, dtype):
    """Each value in its place and in its own units, in training, in samples, and in the room that is left."""
    box = Box.from_bounds((np.array([[-1.0], [0.0]]), np.array([[3.0], [1000.0]])))
    mechanism = NoiseMechanism(box, UniformNoise(1e-5), (2, 3), Features.from_costs(costs, shape=(2, 3)))
    X = np.array([[[-1.0, 0.5, 3.0], [0.0, 250.0, 800.0]], [[1.0, 2.0, 0.0], [1000.0, 7.0, 1.0]]])
    near, width = {"atol": 1e-5, "rtol": 1e-5}, box.width
    drawn = mechanism.noisy(X, np.random.default_rng(0), dtype)
    assert (drawn.dtype, drawn.shape) == (dtype, X.shape)
    np.testing.assert_allclose(drawn / width, X / width, **near)
    assert mechanism.noisy(X, np.random.default_rng(0)).dtype == np.float64
    points, out = mechanism.points(X), np.empty((4, 2, 3), dtype=dtype)
    keys = seeding.keys(0, seeding.digests(points), 0)
    mechanism.sample(points, keys, np.array([[1, 3, 1], [0, 0, 2], [1, 9, 1]]), out)
    np.testing.assert_allclose(out / width, X[[1, 0, 0, 1]] / width, **near)
    assert costs == 1.0 or (out[1:3, 1, 1] == 250).all()
    free = np.ones((2, 3), dtype=bool) if costs == 1.0 else ~np.isinf(mechanism.features.costs).reshape(2, 3)
    down, up = mechanism.room(X)
    unit = np.array([[[0, 0.375, 1], [0, 0.25, 0.8]], [[0.5, 0.75, 0.25], [1, 0.007, 0.001]]])
    np.testing.assert_allclose(down, (unit * free).reshape(2, 6), atol=1e-7)
    np.testing.assert_allclose(up, ((1 - unit) * free).reshape(2, 6), atol=1e-7)
    assert mechanism.movable().tolist() == free.ravel().tolist()
    np.testing.assert_allclose(mechanism.snapped(X), unit * free, atol=1e-7)


def test_only_features_that_can_move_round_a_digital_input():
    """Just below two steps of 1/4, inputs of lattice points at that distance may be nearer by what both are off."""
    for n_movable, n_off in ((1, 1), (2, 2), (5, 2)):
        box = Box.from_bounds((np.zeros(5), (np.arange(5) < n_movable).astype(float)))
        found = NoiseMechanism(box, UniformNoise(1.0, 4), (5,)).raw_radius(np.array([0.5 - 1e-9]))
        assert found == pytest.approx(0.5 - n_off * 2.0**-21, abs=1e-12)
        assert found <= 0.5 - n_off * (2.0**-21 + 8 * np.finfo(float).eps)
