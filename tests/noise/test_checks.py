"""The check of a family of one's own: right ones pass, wrong ones get an error that names the method."""

import numpy as np
import pytest
from scipy import stats

from smoothcert import (
    DeterministicSplitNoise,
    GaussianNoise,
    LaplaceNoise,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.noise.base import Noise
from smoothcert.noise.box import Box
from smoothcert.noise.checks import check_noise
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features

from ..base_models import Rule, steps


class Triangular(Noise):
    """Triangular noise on [-width, width]; the overlap after a move of z is 1 - TV."""

    def __init__(self, width=1.0):
        self.width = width

    def draw(self, points, rng, out):
        out[...] = points + rng.triangular(-self.width, 0, self.width, size=out.shape)

    def lost(self, z):
        """Total variation after a move of z: 1 - 2 F(-z/2)."""
        half = np.minimum(np.asarray(z, dtype=float) / (2 * self.width), 1.0)
        return 1 - (1 - half) ** 2

    def cost(self, z):
        with np.errstate(divide="ignore"):
            return -np.log1p(-self.lost(z))

    def inverse_cost(self, spent):
        return 2 * self.width * (1 - np.sqrt(np.exp(-np.asarray(spent))))

    def budget(self, p_a, p_b):
        return -np.log1p(-(p_a - p_b) / 2)


FAMILIES = [
    Triangular(0.3),
    Triangular(1.0),
    Triangular(5.0),
    UniformNoise(0.2),
    UniformNoise(0.7),
    UniformNoise(1.0, levels=255),
    SplitNoise(0.3),
    SplitNoise(1.0),
    SplitNoise(1.0, levels=3),
    GaussianNoise(0.1),
    GaussianNoise(0.5),
    GaussianNoise(0.5, levels=4),
    LaplaceNoise(0.05),
    LaplaceNoise(0.5),
    UniformMixtureNoise([0.3, 1.0], [0.5, 0.5]),
    DeterministicSplitNoise(1.0),
]


@pytest.mark.parametrize("noise", FAMILIES, ids=repr)
def test_right_families_pass(noise):
    check_noise(noise)


def replaced(**methods):
    return type("Wrong", (Triangular,), methods)()


def returning(self, points, rng, out):
    return points + rng.triangular(-1, 0, 1, size=out.shape)


def one_row_for_all(self, points, rng, out):
    out[...] = points + rng.triangular(-1, 0, 1, size=out.shape[1])


def one_number_for_all_features(self, points, rng, out):
    out[...] = points + rng.triangular(-1, 0, 1, size=(len(out), 1))


def global_generator(self, points, rng, out):
    out[...] = points + np.random.default_rng().triangular(-1, 0, 1, size=out.shape)


def half_written(self, points, rng, out):
    out[: len(out) // 2] = points[: len(out) // 2] + rng.triangular(-1, 0, 1, size=(len(out) // 2, out.shape[1]))


def one_point_only(self, points, rng, out):
    out[...] = rng.triangular(-1, 0, 1, size=out.shape)
    out[:, 0] += points[0] if points.ndim == 1 else np.nan


def inputs_changed(self, points, rng, out):
    points += 0.1
    out[...] = points + rng.triangular(-1, 0, 1, size=out.shape)


def pairs_of_rows(self, points, rng, out):
    out[...] = points + np.repeat(rng.triangular(-1, 0, 1, size=(len(out) // 2, out.shape[1])), 2, axis=0)


def narrower(self, points, rng, out):
    out[...] = points + rng.triangular(-0.5, 0, 0.5, size=out.shape)


def batch(self, points, keys, segments, out):
    out[...] = np.random.default_rng(keys[0]).random(out.shape)


def no_key(self, points, keys, segments, out):
    for row, (_, first, count) in zip(np.cumsum(segments[:, 2]) - segments[:, 2], segments, strict=True):
        for i in range(count):
            out[row + i] = np.random.default_rng(first + i).random(out.shape[1])


#: The method that is wrong, the family, what is expected and what is found.
WRONG = [
    ("cost", {"cost": lambda self, z: -Triangular.cost(self, z)}, "be positive, got .* at 0, .25"),
    ("cost", {"cost": lambda self, z: 1 + Triangular.cost(self, z)}, r"be 0 at 0, got \[1, "),
    ("cost", {"cost": lambda self, z: np.sin(3 * z)}, r"increase with z, got \[0, 0.68"),
    ("cost", {"cost": lambda self, z: np.sqrt(z)}, "be convex, or the greedy walk is wrong"),
    (
        "cost",
        {"cost": lambda self, z: np.where(z < 0.6, np.sqrt(z), np.inf), "inverse_cost": lambda self, spent: spent**2},
        "be convex, or the greedy walk is wrong",
    ),
    ("cost", {"cost": lambda self, z: np.full_like(z, np.nan)}, "return numbers, got NaN"),
    (
        "cost",
        {
            "cost": lambda self, z: Triangular.cost(self, z) / 2,
            "inverse_cost": lambda self, spent: Triangular.inverse_cost(self, 2 * spent),
        },
        "be large enough for a move by .* sees in one feature, got .* which the budget allows at p_a=",
    ),
    ("cost", {"draw": narrower}, "be large enough for a move by .* one feature"),
    ("cost", {"draw": one_number_for_all_features}, "be large enough for a move by .* two features"),
    (
        "cost",
        {
            # Right for a move over the whole box, and too small for shorter ones.
            "cost": lambda self, z: Triangular.cost(self, 1.0) * np.square(z),
            "inverse_cost": lambda self, spent: np.sqrt(spent / Triangular.cost(self, 1.0)),
        },
        r"be large enough for a move by 0\.\d+ that a base model sees in one feature",
    ),
    ("cost", {"budget": lambda self, p_a, p_b: -np.log1p(-(p_a - p_b))}, "be large enough"),
    (
        "inverse_cost",
        {"inverse_cost": lambda self, spent: 2 * self.width * spent},
        r"undo cost, got inverse_cost\(cost",
    ),
    ("inverse_cost", {"inverse_cost": lambda self, spent: 0 * spent}, r"undo cost, got .*= 0\. Solve spent"),
    ("budget", {"budget": lambda self, p_a, p_b: np.log1p(-(p_a - p_b) / 2)}, "be at least 0 and increase with p_a"),
    ("budget", {"budget": lambda self, p_a, p_b: p_a}, "be 0 where p_a equals p_b, got 0.5"),
    (
        "draw",
        {"draw": one_row_for_all},
        "draw independent noise for each row, got copies of one point whose distribution depends on the seed",
    ),
    ("draw", {"draw": pairs_of_rows}, "draw independent noise for each row, got 100% of neighbors on the same side"),
    ("draw", {"draw": global_generator}, "take random numbers from rng alone"),
    ("draw", {"draw": half_written}, "write a finite number into every place of out"),
    ("draw", {"draw": one_point_only}, "write a finite number into every place of out, got .* in 2000 of 4000 places"),
    ("draw", {"draw": inputs_changed}, "leave points as they are"),
    ("sample", {"sample": batch}, "be a function of point, key and number of the sample"),
    ("sample", {"sample": no_key}, "draw other noise for another key"),
]


@pytest.mark.parametrize(("method", "methods", "message"), WRONG)
def test_wrong_families_get_an_error_that_names_the_method(method, methods, message):
    with pytest.raises(ValueError, match=rf"^Wrong\.{method} must {message}"):
        check_noise(replaced(**methods))


def test_what_is_returned_is_named():
    with pytest.raises(TypeError, match=r"Wrong.draw must write .* got ndarray\. Write out\[\.\.\.\] = copies"):
        check_noise(replaced(draw=returning))
    with pytest.raises(TypeError, match=r"Wrong.cost must return one number for each of an array.*got shape \(\)"):
        check_noise(replaced(cost=lambda self, z: 0.0))


def test_a_mechanism_checks_foreign_families_once_for_each_parameter():
    calls = []

    class Counted(Triangular):
        def budget(self, p_a, p_b):
            calls.append(self.width)
            return super().budget(p_a, p_b)

    box = Box.from_bounds((0, 1))
    for width in (1.0, 1.0, 2.0, 1.0):
        NoiseMechanism(box, Counted(width), (3,))
    assert set(calls) == {1.0, 2.0}
    counted = len(calls)
    NoiseMechanism(box, Counted(2.0), (5,))
    assert len(calls) == counted
    # A package may have a name that begins like that of the library.
    wrong = replaced(draw=one_row_for_all, __module__="smoothcert.noise_of_my_own")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^Wrong\.draw must"):
            NoiseMechanism(box, wrong, (3,))


def test_a_family_with_a_walk_of_its_own_needs_no_convex_cost():
    concave = {"cost": lambda self, z: np.sqrt(z), "inverse_cost": lambda self, spent: np.square(spent)}
    concave["budget"] = lambda self, p_a, p_b: -np.log1p(-(p_a - p_b) / 2) / 9
    check_noise(replaced(walk=lambda self, budget, reach: 0 * budget, **concave))
    with pytest.raises(ValueError, match=r"^Wrong\.cost must be convex"):
        check_noise(replaced(**concave))


def test_an_inverse_is_off_by_hardly_anything():
    wrong = replaced(inverse_cost=lambda self, spent: Triangular.inverse_cost(self, spent) * (1 - 1e-5))
    with pytest.raises(ValueError, match=r"^Wrong\.inverse_cost must undo cost"):
        check_noise(wrong)


def test_moves_that_the_lattice_of_a_family_refuses_are_left_out():
    def quarters(self, unit):
        if (unit * 4 % 1).any():
            raise ValueError("off the lattice")
        return unit

    check_noise(replaced(to_points=quarters))
    with pytest.raises(ValueError, match=r"^Wrong\.cost must be large enough for a move by 0\.25 "):
        check_noise(replaced(to_points=quarters, draw=narrower))


def test_noise_of_every_cost_is_checked(monkeypatch):
    class Priced(Triangular):
        def for_cost(self, cost):
            return type(self)(self.width / cost)

    class Late(Priced):
        def for_cost(self, cost):
            return self if cost == 0.75 else Priced.for_cost(self, cost)

    def mechanism(noise):
        return NoiseMechanism(Box.from_bounds((0, 1)), noise, (4,), Features(np.array([0.75, 0.5, 2.0, 0.5])))

    checked = []
    monkeypatch.setattr("smoothcert.noise.checks.check_noise", lambda noise: checked.append(noise.width))
    assert mechanism(Priced(1.0)).mixed is not None
    assert checked == [1, 2, 4 / 3, 0.5]
    with pytest.raises(ValueError, match=r"Late\.for_cost\(0\.75\) returned Late.* Scale all widths by 1 / cost"):
        mechanism(Late(1.0))
    with pytest.raises(
        ValueError, match=r"^costs must be 1 for all .* since it defines no for_cost, got 0\.5\. Use uniform"
    ):
        mechanism(Triangular(3.0))
    for cost, shown in ((2.5, r"2\.5"), (np.inf, "fixed")):
        with pytest.raises(ValueError, match=rf"its certificates bound the distance .* single ones, got {shown}\. Use"):
            LaplaceNoise().for_cost(cost)


@pytest.mark.parametrize(("digital", "expected"), [(None, [0.02, 0.32, 0.315]), (10, [0.0, 0.3, 0.3])])
def test_points_are_farther_apart_than_inputs_by_the_resolution_of_both(digital, expected):
    noise = type("Coarse", (Triangular,), {"resolution": 0.01, "digital_levels": digital})()
    np.testing.assert_allclose(noise.point_distance(np.array([0.0, 0.3, 0.295])), expected, rtol=1e-12)


@pytest.mark.parametrize("radius", ["lipschitz", "box", "greedy"])
def test_a_family_of_ones_own_certifies_the_true_radius(radius):
    """A threshold on one feature, whose smoothed label changes at a known distance."""
    noise, x, threshold = Triangular(1.0), 0.4, 0.7
    clf = SmoothedClassifier.from_pretrained(
        Rule(steps([threshold])).fit(None, None), [0, 1], noise, radius=radius, n_samples=20_000, random_state=0
    )
    labels, radii = clf.certify([[x, 0.5]])
    p_a = stats.triang(0.5, loc=-1, scale=2).cdf(threshold - x)
    ideal = noise.inverse_cost(noise.budget(p_a, 1 - p_a))
    assert labels[0] == 0
    assert 0.9 * ideal < radii[0] <= threshold - x
    assert noise.allows_closed_form
    assert not Triangular(0.4).allows_closed_form
