"""The generator Philox and what is made of its words: offsets, normals and steps."""

import numpy as np
import pytest
import scipy.stats
from scipy.stats import chi2_contingency, chisquare, kstest

from smoothcert.noise import _cpu as kernel
from smoothcert.noise import _philox as philox

from . import reference
from .cases import KEY


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
