"""The kernel of CUDA against the reference, bit for bit, in an interpreter and a compiler."""

import pytest

from .cases import run_python

CUDA_KERNEL = """
from itertools import product
import numpy as np, torch
from smoothcert.noise import _cuda as cuda
from tests.noise.cases import NOISES, SEGMENTS, case

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
