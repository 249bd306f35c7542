"""Adding at computed positions: the order of additions, positions out of range, and that it costs what it touches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import Function, function
from gnomon.tensor import Tensor
from tests.emulator import compiler
from tests.emulator.programs import Batch

n, m, k = symbol("n"), symbol("m"), symbol("k")
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


def leaf(key: int, *shape: Dim, dtype: str = "float32") -> Node:
    return Input(5_100_000 + key, f"x{key}", dtype, shape)()


def compiled(inputs: list[Node], output: Node) -> Function:
    return function([Tensor(x) for x in inputs], Tensor(output), on_unused_input="ignore")


def launches(fn: Function) -> list[Launch]:
    return [s for s in fn.program.steps if isinstance(s, Launch)]


def rows_added(at: np.ndarray, updates: np.ndarray, size: int) -> np.ndarray:
    """One after the other, as float32 rounds it."""
    total = np.zeros((size, *updates.shape[1:]), updates.dtype)
    for place, row in zip(np.clip(at, 0, size - 1), updates, strict=True):
        total[place] += row
    return total


@pytest.mark.parametrize("width", [1, 3, 16, 64, 100, m])
@pytest.mark.parametrize("count", [0, 1, 700])
def test_rows_add_up_in_the_order_they_come_in(width: Dim, count: int) -> None:
    """Exactly: the same for any number of threads, on every device."""
    at, updates = leaf(0, n, dtype="int64"), leaf(1, n, width)
    fn = compiled([at, updates], build.scatter_add(at, updates, 37))
    rng = np.random.default_rng(7)
    wide = evaluate(width, {"m": 70})
    places = rng.integers(-5, 45, count)  # some outside: they mean the nearest row
    values = rng.standard_normal((count, wide)).astype(np.float32) * 10.0 ** rng.integers(-3, 4, (count, 1))
    values = values.astype(np.float32)
    np.testing.assert_array_equal(fn(places, values), rows_added(places, values, 37))


def test_a_large_scatter_that_threads_share_is_exact_too() -> None:
    at, updates = leaf(0, n, dtype="int32"), leaf(1, n, 128)
    fn = compiled([at, updates], build.scatter_add(at, updates, 3000))
    rng = np.random.default_rng(8)
    places = rng.integers(0, 3000, 20_000).astype(np.int32)
    values = rng.standard_normal((20_000, 128)).astype(np.float32)
    np.testing.assert_array_equal(fn(places, values), rows_added(places, values, 3000))


def test_positions_of_several_axes_between_others() -> None:
    at, updates = leaf(0, 3, n, dtype="int32"), leaf(1, 2, 3, n, 5)
    fn = compiled([at, updates], build.scatter_add(at, updates, 4, axis=1))
    rng = np.random.default_rng(9)
    places, values = rng.integers(0, 4, (3, 6)).astype(np.int32), rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    moved = np.moveaxis(values, 0, 2).reshape(18, 10)
    want = rows_added(places.reshape(18), moved, 4).reshape(4, 2, 5).swapaxes(0, 1)
    np.testing.assert_array_equal(fn(places, values), want)


def test_an_empty_result_is_safe() -> None:
    at, updates, like = leaf(0, n, dtype="int32"), leaf(1, n, 4), leaf(2, k)
    fn = compiled([at, updates, like], build.scatter_add(at, updates, k))
    places, values = np.array([0, 3, -1], np.int32), np.ones((3, 4), np.float32)
    assert fn(places, values, np.zeros(0, np.float32)).shape == (0, 4)
    assert fn(places, values, np.zeros(2, np.float32)).tolist() == [[2.0] * 4, [1.0] * 4]


def test_the_gradient_of_an_embedding_costs_zeroing_and_the_rows_touched() -> None:
    """Arithmetic of the launches grows with the updates, not with updates times rows."""
    at, updates = leaf(0, n, dtype="int32"), leaf(1, n, 128)
    flops = {}
    for size in (100, 100_000):
        fn = compiled([at, updates], build.scatter_add(at, updates, size))
        assert [s.label for s in launches(fn)] == ["scatter_add_zeros", "scatter_add"]
        flops[size] = sum(evaluate(s.flops, {"n": 4000}) for s in launches(fn))
    assert flops[100] == flops[100_000]


@pytest.mark.parametrize("shape", [(3, 50), (40, n), (n, m)])
@pytest.mark.parametrize("axis", [0, 1])
def test_elements_along_an_axis_add_up_in_order(shape: tuple[Dim, Dim], axis: int) -> None:
    at, updates = leaf(0, *shape, dtype="int32"), leaf(1, *shape)
    fn = compiled([at, updates], build.scatter_along(at, updates, 20, axis))
    rng = np.random.default_rng(10)
    real = tuple(evaluate(d, {"n": 70, "m": 19}) for d in shape)
    places = rng.integers(-3, 23, real).astype(np.int32)
    values = rng.standard_normal(real).astype(np.float32)
    turned = np.moveaxis(values, axis, 0), np.moveaxis(np.clip(places, 0, 19), axis, 0)
    want = np.zeros((20, turned[0].shape[1]), np.float32)
    for row, where in zip(*turned, strict=True):
        want[where, np.arange(len(where))] += row
    np.testing.assert_array_equal(fn(places, values), np.moveaxis(want, 0, axis))


def scatters() -> dict[str, tuple[list[Node], Node, Callable[[np.random.Generator], list[np.ndarray]]]]:
    at, updates = leaf(0, n, dtype="int32"), leaf(1, n, 5)
    along = leaf(2, n, m, dtype="int32"), leaf(3, n, m)

    def rows(rng: np.random.Generator) -> list[np.ndarray]:
        return [rng.integers(-9, 400, 900).astype(np.int32), rng.standard_normal((900, 5)).astype(np.float32)]

    def elements(rng: np.random.Generator) -> list[np.ndarray]:
        return [rng.integers(-9, 40, (9, 200)).astype(np.int32), rng.standard_normal((9, 200)).astype(np.float32)]

    return {
        "rows": ([at, updates], build.scatter_add(at, updates, 300), rows),
        "along": (list(along), build.scatter_along(*along, 30, 1), elements),
    }


@needs_compiler
@pytest.mark.parametrize("name", ["rows", "along"])
def test_a_gpu_gives_exactly_what_a_cpu_does(name: str) -> None:
    inputs, output, draw = scatters()[name]
    batch = Batch()
    batch.add(name, inputs, [output])
    arrays = draw(np.random.default_rng(11))
    want = compiled(inputs, output)(*arrays)
    for order in (0, 3):
        np.testing.assert_array_equal(batch.run(name, arrays, order)[0], want)
