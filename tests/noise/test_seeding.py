import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from scipy.stats import chi2_contingency, chisquare, kstest

from smoothcert import Box, GaussianNoise, LaplaceNoise, SplitNoise, UniformNoise
from smoothcert.noise import _cpu as kernel
from smoothcert.noise import _philox as philox
from smoothcert.noise import seeding
from smoothcert.noise.mechanism import NoiseMechanism

from . import reference


def draw(seed=7, point=(1, 2, 3), stage=1, block=5):
    key = seeding.keys(seed, seeding.digests(np.array([point])), stage)[0]
    return reference.offsets(key, 100 * block, 7, 3, 2**31), seeding.generator(key, block).integers(2**32, size=20)


def test_noise_is_a_pure_function_of_its_key():
    for first, second in zip(draw(), draw(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("change", [{"seed": 8}, {"point": (1, 2, 4)}, {"stage": 0}, {"block": 6}])
def test_every_part_of_the_key_matters(change):
    for first, second in zip(draw(), draw(**change), strict=True):
        assert not np.any(first == second)


def test_digests_see_values_not_types():
    points = np.array([[1, 2], [3, 4]])
    np.testing.assert_array_equal(seeding.digests(points), seeding.digests(points.astype(np.uint32)))
    np.testing.assert_array_equal(seeding.digests(points)[1:], seeding.digests(points[1:]))


def test_numbers_of_randomized_bounds_have_a_stage_of_their_own():
    """They are drawn from none of the keys of votes, of either stage."""
    inputs = np.arange(32, dtype=np.uint8).reshape(2, 16)
    found = seeding.auxiliary(3, inputs)
    np.testing.assert_allclose(found, [[0.59733515, 0.07767004], [0.00079847, 0.26413853]], atol=1e-8)
    for stage in (seeding.SELECTION, seeding.ESTIMATION):
        of_votes = [seeding.generator(key, 0).random(2) for key in seeding.keys(3, inputs, stage)]
        assert (found != of_votes).all()


def test_derived_keys_differ_by_key_and_label():
    keys = seeding.keys(0, np.eye(3, 16, dtype=np.uint8), 0)
    found = np.concatenate([keys, *(seeding.derived_keys(keys, label) for label in (b"", b"a", b"b"))])
    assert found.dtype == np.uint32
    assert len(np.unique(found)) == found.size


def test_blocks_hold_a_bounded_number_of_values():
    assert [seeding.block_size(d) for d in (1, 512, 513, 784, 3072, 150_528)] == [128, 128, 64, 64, 16, 1]


def test_seeds():
    assert seeding.resolve_seed(3) == 3
    for seed in (0, 2**32 - 1, 2**32, 2**64 - 1, 2**128 - 1, np.int64(5)):
        assert seeding.resolve_seed(seed) == seed
    assert seeding.resolve_seed(None) != seeding.resolve_seed(None)
    state = np.random.RandomState(0)
    assert [seeding.resolve_seed(state), seeding.resolve_seed(state)] == [209652396, 398764591]
    for wrong in ("seed", -1, 2**128, 1.5, np.random, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=r"random_state must be None, an int .* got "):
            seeding.resolve_seed(wrong)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, words):
    """The answers published with Random123, by the authors of the generator."""
    assert tuple(int(word) for word in reference.philox(counter, key)) == words


KEY = np.array([1, 2, 3, 4], dtype=np.uint32)


@pytest.mark.parametrize("n_offsets", [1, 2, 3, 5, 7, 64, 100, 255, 1000, 1785, 4095, 4097, 5000])
def test_offsets_are_uniform(n_offsets):
    """Chi-square over the cells, and over pairs of values that are neighbors in any direction."""
    j = reference.offsets(KEY, 0, 3000, 101, n_offsets).astype(np.int64)
    assert j.min() == 0
    assert j.max() == n_offsets - 1
    if n_offsets == 1:
        return
    assert chisquare(np.bincount(j.ravel(), minlength=n_offsets)).pvalue > 1e-4
    coarse = j * min(n_offsets, 5) // n_offsets
    pairs = {
        "features": (coarse[:, :-1], coarse[:, 1:]),
        "samples": (coarse[:-1], coarse[1:]),
        "lanes": (coarse.ravel()[:-16], coarse.ravel()[16:]),
        "halves": (coarse.ravel()[:-32], coarse.ravel()[32:]),
        "groups": (coarse.ravel()[:-64], coarse.ravel()[64:]),
        "groups of halves": (coarse.ravel()[:-128], coarse.ravel()[128:]),
    }
    for first, second in pairs.values():
        table = np.bincount((first * 5 + second).ravel(), minlength=25).reshape(5, 5)
        table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
        assert chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("n_offsets", [3 * 2**30, 2**31 + 1, 2**32 - 2**25])
def test_there_is_no_modulo_bias(n_offsets):
    """Large moduli are where a plain modulo or product favors some values, by up to a factor of two."""
    j = reference.offsets(KEY, 0, 2000, 101, n_offsets).astype(np.int64)
    for buckets in (2, 3, 64):
        expected = np.diff(-(-np.arange(buckets + 1) * n_offsets // buckets))
        found = np.bincount((j * buckets // n_offsets).ravel(), minlength=buckets)
        assert chisquare(found, found.sum() * expected / n_offsets).pvalue > 1e-4
    last_bits = np.bincount((j % 3).ravel(), minlength=3)
    share = np.array([len(range(r, n_offsets, 3)) for r in range(3)]) / n_offsets
    assert chisquare(last_bits, last_bits.sum() * share).pvalue > 1e-4


@pytest.mark.parametrize("n_offsets", [philox.FEW_OFFSETS, 3900, 3])
def test_half_words_are_drawn_exactly(n_offsets):
    """By the definition, one value at a time; the lower half first."""
    d = 70
    drawn = reference.offsets(KEY, 30, 20, d, n_offsets).ravel()
    rejected = 0
    for value, found in zip(range(30 * d, 50 * d), drawn, strict=True):
        group, within = divmod(value // 2, 64)
        word, lane = divmod(within, 16)
        for attempt in range(100):
            words = reference.philox((16 * group + lane, 0, attempt, 3), (1, 2))
            product = (int(words[word]) >> 16 * (value % 2)) % 2**16 * n_offsets
            if product % 2**16 >= 2**16 % n_offsets:
                break
            rejected += 1
        assert product >> 16 == found
    assert (rejected > 30) == (n_offsets == 3900)


def test_rejected_words_are_drawn_again_exactly():
    """By the definition, one value at a time, where a third of all words is rejected."""
    n_offsets, d = 2**32 // 3 * 2 + 5, 70
    drawn = reference.offsets(KEY, 3, 2, d, n_offsets).ravel()
    rejected = 0
    for value, found in zip(range(3 * d, 5 * d), drawn, strict=True):
        group, within = divmod(value, 64)
        word, lane = divmod(within, 16)
        for attempt in range(100):
            product = int(reference.philox((16 * group + lane, 0, attempt, 3), (1, 2))[word]) * n_offsets
            if product % 2**32 >= 2**32 % n_offsets:
                break
            rejected += 1
        assert product >> 32 == found
    assert rejected > 30


NOISES = [
    UniformNoise(3.5),
    UniformNoise(0.3),
    UniformNoise(127.0),
    UniformNoise(1.0, levels=3),
    UniformNoise(8e6, levels=255),
    SplitNoise(3.5),
    SplitNoise(0.5),
    SplitNoise(0.3),
    SplitNoise(127.0),
    SplitNoise(3.5, levels=255),
    SplitNoise(8.03, levels=255),
    SplitNoise(8.04, levels=255),
    SplitNoise(0.4, levels=255),
    UniformNoise(3.5, levels=255),
    SplitNoise(0.2, levels=7),
    SplitNoise(0.5, levels=1),
]
SEGMENTS = np.array([[2, 0, 5], [0, 2**33 + 7, 140], [1, 3, 1], [2, 17, 64]])


def case(noise, d, dtype):
    """Return random points and keys, and what the reference makes of them."""
    rng = np.random.default_rng(d)
    points = rng.integers(0, noise.q + 1, size=(3, d)).astype(np.uint32)
    points[0, 0], points[1, 0] = 0, noise.q
    keys = rng.integers(2**32, size=(3, 4), dtype=np.uint32)
    expected = np.empty((SEGMENTS[:, 2].sum(), d), dtype=dtype)
    reference.sample(noise.recipe, points, keys, SEGMENTS, expected)
    return points, keys, expected


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("d", [1, 4, 30, 64, 77, 784, 3072])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
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
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [(0, 1), (-1, 2)])
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


@pytest.mark.parametrize(
    ("draw", "law"), [(reference.normals, scipy.stats.norm), (reference.laplacians, scipy.stats.laplace)]
)
def test_added_noise_has_its_law(draw, law):
    """Kolmogorov-Smirnov, far tails by their frequency, and no dependence between neighbors in any direction."""
    drawn = draw(KEY, 0, 3000, 101)
    flat = drawn.ravel()
    assert scipy.stats.kstest(flat, law.cdf).pvalue > 1e-4
    for tail in (1e-3, 1e-4):
        for beyond in (flat < law.ppf(tail), flat > law.isf(tail)):
            assert scipy.stats.binomtest(int(beyond.sum()), flat.size, tail).pvalue > 1e-4
    cells = np.minimum((law.cdf(drawn) * 5).astype(int), 4)
    pairs = [(cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])]
    pairs += [(cells.ravel()[:-step], cells.ravel()[step:]) for step in (16, 32, 48, 64)]
    for first, second in pairs:
        assert chi2_contingency(np.bincount((first * 5 + second).ravel(), minlength=25).reshape(5, 5)).pvalue > 1e-4


def test_normals_are_those_of_the_formula():
    """Box and Muller's radius from one word; the angle by its share of the circle."""
    drawn = reference.normals(KEY, 0, 400, 64).reshape(400, 2, 2, 16)
    words = np.stack([reference.philox((16 * g + np.arange(16), 0, 0, 3), (1, 2)) for g in range(400)])
    radius = np.sqrt(-2 * np.log((words[:, ::2] + 0.5) / 2**32))
    np.testing.assert_allclose(np.hypot(drawn[:, :, 0], drawn[:, :, 1]), radius, rtol=1e-12)
    turns = np.arctan2(drawn[:, :, 1], drawn[:, :, 0]) / (2 * np.pi) % 1
    assert kstest(turns.ravel(), "uniform").pvalue > 1e-4
    rest = (words[:, 1::2] % 2**30 + 0.5) / 2**32
    within = (turns + 1 / 8) % (1 / 4)
    assert (np.minimum(np.abs(within - rest), np.abs(within + rest - 1 / 4)) < 1e-12).all()


def test_steps_look_at_64_bits():
    """Thresholds that differ in the lower half only, met as often as the words say."""
    words = reference.steps(KEY, 0, 10, 64, np.arange(1, 2**12, dtype=np.uint64) << np.uint64(52))
    first, second = (
        np.stack([reference.philox((16 * g + np.arange(16), 0, attempt, 3), (1, 2)) for g in range(10)]).reshape(10, 64)
        for attempt in (0, 1)
    )
    np.testing.assert_array_equal(words, (first >> 20).astype(int) - (2**12 - 1) // 2)
    chosen = first[3, 5] << np.uint64(32)
    thresholds = np.sort(chosen + np.array([0, second[3, 5], second[3, 5] + 1, 2**32 - 1], dtype=np.uint64))
    assert reference.steps(KEY, 0, 10, 64, thresholds)[3, 5] == 2 - 2
    out = np.empty((10, 64))
    recipe = philox.SumRecipe(philox.STEPS, 1.0, 1.0, thresholds)
    kernel.sample(recipe, np.zeros((1, 64)), KEY[None], np.array([[0, 0, 10]]), out)
    np.testing.assert_array_equal(out, reference.steps(KEY, 0, 10, 64, thresholds))


CUDA_KERNEL = """
from itertools import product
import numpy as np, torch
from smoothcert.noise import _cuda as cuda
from tests.noise.test_seeding import NOISES, SEGMENTS, case

# The interpreter takes the longer, the more stretches a segment has: only two kinds of noise have several.
several = [NOISES[0], NOISES[9]]
cases = [*product(NOISES, [(1, np.float64), (5, np.float32)]), *product(several, [(30, np.float32)])]
for noise, (d, dtype) in cases:
    points, keys, expected = case(noise, d, dtype)
    out = torch.full(expected.shape, torch.nan, dtype=torch.from_numpy(expected).dtype)
    words = (torch.from_numpy(array.view(np.int32)) for array in (points, keys))
    cuda.sample(noise.recipe, *words, SEGMENTS, out)
    np.testing.assert_array_equal(out.numpy(), expected, err_msg=f"{noise} {d} {dtype}")
"""


@pytest.mark.slow
def test_cuda_kernel_is_the_reference_bit_for_bit():
    """In Triton's interpreter, which needs no GPU; it is switched on before Triton is imported."""
    pytest.importorskip("triton")
    run_python(CUDA_KERNEL, TRITON_INTERPRET="1")


CUDA_CODE = """
from itertools import product
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from smoothcert.noise import _cuda as cuda

types = dict(points="*i32", keys="*i32", table="*i64", stretches="i32", d="i32", rejected_below="i32")
formulas = [(True, True), (False, True), (False, False)]
for (uniform, wide), (bits, short), n_offsets in product(formulas, [(16, True), (32, False)], ["i32", "i64"]):
    constants = dict(
        BITS=bits, UNIFORM=uniform, Q=16776960, HALF=0.5, SCALE=1e-8, WIDE=wide, SHORT=short, LANES=16,
        COUNTERS=cuda.COUNTERS,
    )
    names = cuda._write_stretch.arg_names
    signature = {"out": "*fp32", **types, "n_offsets": n_offsets, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        fn=cuda._write_stretch,
        signature={name: signature[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    assert "mul.hi.u32" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""


@pytest.mark.slow
def test_cuda_kernel_compiles():
    """Triton's compiler needs no GPU either."""
    pytest.importorskip("triton")
    run_python(CUDA_CODE)


def run_python(code, **environment):
    """Run code in a process of its own, from the project's root."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
