"""The kernel of the CPU against the reference, bit for bit."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from smoothcert import Box, GaussianNoise, LaplaceNoise, SplitNoise, UniformNoise
from smoothcert.noise import _cpu as kernel
from smoothcert.noise import _philox as philox
from smoothcert.noise.mechanism import NoiseMechanism

from ..processes import run_python
from . import reference
from .cases import NOISES, SEGMENTS, case


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("d", "dtype"),
    [
        *((d, np.float32) for d in (1, 30, 77, 3072)),
        *((d, np.float64) for d in (4, 64, 77, 784)),
    ],
)
def test_fused_kernel_is_the_reference_bit_for_bit(noise, d, dtype):
    points, keys, expected = case(noise, d, dtype)
    out = np.full_like(expected, np.nan)
    noise.sample(points, keys, SEGMENTS, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("part", [1, 64, 999, 10**6])
def test_fused_kernel_does_not_depend_on_its_threads(part):
    noise = SplitNoise(3.5)
    points, keys, expected = case(noise, 100, np.float32)
    out = np.full_like(expected, np.nan)
    kernel.sample(noise.recipe, points, keys, SEGMENTS, out, part=part)
    np.testing.assert_array_equal(out, expected)


def test_threads_are_limited_for_the_calling_thread(monkeypatch):
    """One thread, and a batch of one part, ask for no pool; numba's number is that of threads without a limit."""
    noise, asked = SplitNoise(3.5), []
    points, keys, expected = case(noise, 10, np.float32)
    monkeypatch.setattr(kernel, "_pool", lambda n_threads: asked.append(n_threads) or SimpleNamespace(map=map))
    monkeypatch.setattr(kernel.config, "NUMBA_NUM_THREADS", 5)

    def drawn(n_threads, part):
        if n_threads:
            kernel.limit_threads(n_threads)
        out = np.full_like(expected, np.nan)
        kernel.sample(noise.recipe, points, keys, SEGMENTS, out, part=part)
        return out

    size = expected.size
    for n_threads, part in ((3, 100), (None, 100), (1, 100), (3, size), (3, size - 1)):
        with ThreadPoolExecutor(1) as own:
            np.testing.assert_array_equal(own.submit(drawn, n_threads, part).result(), expected)
    assert asked == [3, 5, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", [SplitNoise(1.0), UniformNoise(1.0)])
@pytest.mark.parametrize("bounds", [(-1, 2), ([0.0, 5.0, -3.0], [0.1, 5.0, 1e6])])
def test_raw_units_are_fused_bit_for_bit(noise, dtype, bounds):
    mechanism = NoiseMechanism(Box.from_bounds(bounds), noise, (3,))
    points, keys, expected = case(noise, 3, dtype)
    mechanism.box.to_raw_inplace(expected)
    out = np.full_like(expected, np.nan)
    mechanism.sample(points, keys, SEGMENTS, out)
    np.testing.assert_array_equal(out, expected)


def test_forked_processes_draw_noise():
    """A child has none of its parent's threads."""
    code = """
import os
import numpy as np
from smoothcert.noise import _cpu as kernel
from smoothcert.noise._philox import UNIFORM, OffsetRecipe

recipe = OffsetRecipe(UNIFORM, 100, 10)

def draw():
    out = np.empty((100, 10))
    runs = np.array([[0, 0, 100]])
    kernel.sample(recipe, np.zeros((1, 10), np.uint32), np.zeros((1, 4), np.uint32), runs, out, part=64)
    return out

parent = draw()
child = os.fork()
if not child:
    os._exit(0 if (draw() == parent).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code)


def test_outputs_with_gaps_get_the_same_noise():
    points, keys, expected = case(SplitNoise(1.0), 5, np.float64)
    wide = np.zeros((len(expected), 10))
    SplitNoise(1.0).sample(points, keys, SEGMENTS, wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], expected)
    assert (wide[:, 1::2] == 0).all()
    half = np.zeros(expected.shape, dtype=np.float16)
    SplitNoise(1.0).sample(points, keys, SEGMENTS, half)
    np.testing.assert_array_equal(half, expected.astype(np.float16))


ADDED = [
    GaussianNoise(0.7),
    LaplaceNoise(0.3),
    GaussianNoise(0.5, levels=255),
    GaussianNoise(0.1, levels=1),
    GaussianNoise(50.0, levels=2000),
]


@pytest.mark.parametrize("noise", ADDED)
@pytest.mark.parametrize("d", [1, 30, 64, 784, 3072])
@pytest.mark.parametrize(("dtype", "bounds"), [(np.float32, (0, 1)), (np.float64, (-1, 2))])
def test_added_noise_is_the_reference_bit_for_bit(noise, d, dtype, bounds):
    rng = np.random.default_rng(d)
    X = np.rint(rng.random((3, d)) * 2) / 2 if noise.recipe.kind != philox.STEPS else rng.integers(0, 2, size=(3, d))
    keys = rng.integers(2**32, size=(3, 4), dtype=np.uint32)
    mechanism = NoiseMechanism(Box.from_bounds(bounds), noise, (d,))
    points = noise.to_points(X.astype(float))
    expected, out = np.empty((2, SEGMENTS[:, 2].sum(), d), dtype=dtype)
    reference.sample(noise.recipe, points, keys, SEGMENTS, expected)
    mechanism.box.to_raw_inplace(expected)
    mechanism.sample(points, keys, SEGMENTS, out)
    np.testing.assert_array_equal(out, expected)


def test_a_subclass_that_draws_its_own_noise_is_not_replaced_by_a_recipe(monkeypatch):
    """In `sample`, in training, and through the box; and a subclass that changes nothing keeps the recipe."""
    # The constants below are no valid noise, which the check would refuse.
    monkeypatch.setattr("smoothcert.noise.mechanism.check_foreign", lambda noise: None)

    class Renamed(SplitNoise):
        pass

    class Silent(SplitNoise):
        def draw(self, points, rng, out):
            out[...] = 0.25

    class Numbered(SplitNoise):
        def sample(self, points, keys, segments, out):
            out[...] = 0.75

    points, keys, expected = case(SplitNoise(1.0), 5, np.float64)
    out = np.empty_like(expected)
    Renamed(1.0).sample(points, keys, SEGMENTS, out)
    np.testing.assert_array_equal(out, expected)
    for noise, value in ((Silent(1.0), 0.25), (Numbered(1.0), 0.75)):
        assert noise.recipe is None
        mechanism = NoiseMechanism(Box.from_bounds((0, 2)), noise, (5,))
        noise.sample(points, keys, SEGMENTS, out)
        assert (out == value).all()
        mechanism.sample(points, keys, SEGMENTS, out)
        assert (out == 2 * value).all()
        assert (mechanism.noisy(np.ones((3, 5)), np.random.default_rng(0)) == 2 * value).all()
