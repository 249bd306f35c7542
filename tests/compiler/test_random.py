"""Random bits: the same words whether an element computes its own, a kernel stores all of them, or NumPy does."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.compiler.graph import Env, Node
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.random import FEW, RandomBits
from gnomon.compiler.sizes import Dim, symbol
from gnomon.functions import function
from gnomon.tensor import Tensor
from tests.emulator import compiler
from tests.emulator.programs import Batch

n = symbol("n")
STATE = np.array([0xDEADBEEF, 7, 0xFFFFFFFF, 3], np.uint32)
SHAPES: list[tuple[Dim, ...]] = [(), (1,), (FEW,), (FEW + 1,), (4096,), (5, 16, 16), (n,), (n, 3, 7)]


def drawn(shape: tuple[Dim, ...], sizes: dict[str, int]) -> np.ndarray:
    return RandomBits(shape).numpy(Env(sizes), STATE)


def graph(shape: tuple[Dim, ...]) -> tuple[Node, Node, Node]:
    """A state, something that has the size, bits."""
    state, like = Input(5_300_000, "state", "uint32", (4,))(), Input(5_300_001, "like", "float32", (n,))()
    return state, like, RandomBits(shape)(state)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_bits_are_numpys(shape: tuple[Dim, ...]) -> None:
    state, like, bits = graph(shape)
    fn = function([Tensor(state), Tensor(like)], Tensor(bits), on_unused_input="ignore")
    for size in (0, 1, 63, 64, 65, 1000):
        np.testing.assert_array_equal(fn(STATE, np.zeros(size, np.float32)), drawn(shape, {"n": size}))


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
def test_a_gpu_draws_the_same() -> None:
    batch = Batch()
    for k, shape in enumerate(SHAPES):
        batch.add(str(k), graph(shape)[:2], [graph(shape)[2]])
    for k, shape in enumerate(SHAPES):
        for size in (1, 64, 65):
            (got,) = batch.run(str(k), [STATE, np.zeros(size, np.float32)])
            np.testing.assert_array_equal(got, drawn(shape, {"n": size}))


def test_the_first_elements_of_a_longer_draw_are_those_of_a_shorter_one() -> None:
    long = drawn((1000,), {})
    for size in (1, 17, 64, 999):
        np.testing.assert_array_equal(drawn((size,), {}), long[:size])


def test_bits_are_even() -> None:
    """Each of 32 bits is set in half of 65536 words, within five deviations; neighbours and words are not alike."""
    bits = drawn((65536,), {})
    for k in range(32):
        assert abs(int((bits >> np.uint32(k) & 1).sum()) - 32768) < 5 * 128
    assert len(np.unique(bits)) > 65000
