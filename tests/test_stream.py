import numpy as np
import pytest

from smoothcert import stream


def test_noise_is_a_pure_function_of_its_key():
    point = stream.digest(np.array([1, 2, 3], dtype=np.uint32))
    first = stream.generator(7, point, 1, 5).integers(2**32, size=20)
    np.testing.assert_array_equal(stream.generator(7, point, 1, 5).integers(2**32, size=20), first)


@pytest.mark.parametrize("change", ["seed", "input", "stage", "block"])
def test_every_part_of_the_key_matters(change):
    key = {"seed": 7, "input": [1, 2, 3], "stage": 1, "block": 5}
    other = key | {change: [1, 2, 4] if change == "input" else 6}
    draws = [
        stream.generator(k["seed"], stream.digest(np.array(k["input"])), k["stage"], k["block"]).integers(
            2**32, size=20
        )
        for k in (key, other)
    ]
    assert not np.any(draws[0] == draws[1])


def test_rows_do_not_depend_on_how_many_are_drawn_at_once():
    """A block that is cut short is the beginning of the whole one."""
    point = stream.digest(np.array([4]))
    whole = stream.generator(1, point, 0, 0).integers(1785, size=(stream.BLOCK, 3), dtype=np.uint32)
    part = stream.generator(1, point, 0, 0).integers(1785, size=(7, 3), dtype=np.uint32)
    np.testing.assert_array_equal(part, whole[:7])


def test_digest_sees_values_not_types():
    assert stream.digest(np.array([1, 2], dtype=np.uint32)) == stream.digest(np.array([1, 2], dtype=np.int64))


def test_seeds():
    assert stream.resolve_seed(3) == 3
    assert stream.resolve_seed(None) != stream.resolve_seed(None)
    assert stream.resolve_seed(np.random.RandomState(0)) == stream.resolve_seed(np.random.RandomState(0))
    for wrong in ("seed", -1, 2**32, 1.5, np.random, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=r"random_state must be None, an int .* got "):
            stream.resolve_seed(wrong)
