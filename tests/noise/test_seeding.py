"""Keys and digests: noise is a function of seed, input, stage and block."""

from hashlib import blake2b

import numpy as np
import pytest

from smoothcert.noise import seeding

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


def test_digests_and_derived_keys_are_those_of_earlier_stores():
    """Stores name their inputs by these hashes, and the seed of a run repeats its noise."""
    points = np.array([[1, 2], [3, 4]])
    for rows, dtype in ((points, "<i8"), (points / 2, "<f8")):
        expected = [blake2b(row.astype(dtype).tobytes(), digest_size=16).digest() for row in rows]
        assert [digest.tobytes() for digest in seeding.digests(rows)] == expected
    keys = np.arange(8, dtype=np.uint32).reshape(2, 4)
    expected = [blake2b(key.tobytes() + b"part", digest_size=16).digest() for key in keys]
    found = seeding.derived_keys(keys, b"part")
    assert (found.shape, [key.tobytes() for key in found]) == ((2, 4), expected)


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
