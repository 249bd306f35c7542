"""Products of 16-bit floats on the CPU: widened where they are read or packed, summed in float32, rounded once."""

from collections.abc import Sequence

import numpy as np
import pytest

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.kernel import Cast, Load, Store, statements
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import Function, function
from gnomon.tensor import Tensor, new_input
from gnomon.variable import Variable

n = symbol("n")
DTYPES = ("bfloat16", "float16")


def compiled(inputs: Sequence[Node], outputs: Sequence[Node]) -> Function:
    return function([Tensor(x) for x in inputs], [Tensor(y) for y in outputs])


def check(inputs: Sequence[Node], *outputs: Node, sizes: Sequence[int] = (1, 5, 33), length: int = 1) -> Function:
    """Within one rounding of the dtype, and what float32 sums of `length` products of numbers of size 1 may differ."""
    fn = compiled(inputs, outputs)
    for size in sizes:
        rng = np.random.default_rng(size)
        shapes = [tuple(evaluate(d, {"n": size}) for d in x.shape) for x in inputs]
        arrays = [dtypes.rounded(x.dtype, rng.standard_normal(s)) for x, s in zip(inputs, shapes, strict=True)]
        wanted = evaluate_graph(outputs, dict(zip(inputs, arrays, strict=True)), {"n": size})
        for node, found, right in zip(outputs, fn(*arrays), wanted, strict=True):
            unit = dtypes.limits(node.dtype).eps
            near = {"rtol": unit, "atol": unit * 1e-2 + 4e-7 * length}
            np.testing.assert_allclose(np.asarray(found, "float64"), np.asarray(right, "float64"), **near)
    return fn


def leaf(dtype: str, *shape: Dim) -> Node:
    return new_input("x", dtype, shape)


def transposed(x: Node) -> Node:
    return build.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [5, 64, 200])
def test_matrix_products(dtype: str, width: int) -> None:
    x, w, turned, c, g = (leaf(dtype, *s) for s in ((n, 70), (70, width), (width, 70), (width,), (n, width)))
    check([x, w], build.matmul(x, w), length=70)
    check([x, turned], build.matmul(x, transposed(turned)), length=70)
    check([x, g], build.matmul(transposed(x), g), length=33)
    check([x, w, c], build.relu(build.add(build.matmul(x, w), c)), length=70)
    few = leaf(dtype, 3, 70)
    check([few, w, x], build.matmul(few, w), build.sum(x, 0), length=70)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_products(dtype: str) -> None:
    q, k = leaf(dtype, n, 4, 17, 8), leaf(dtype, n, 4, 20, 8)
    check([q, k], build.matmul(q, transposed(k)), length=8)
    a, b = leaf(dtype, 4, n, 16), leaf(dtype, 4, 16, 40)
    check([a, b], build.matmul(a, b), length=16)
    long, other = leaf(dtype, 4500, 24), leaf(dtype, 4500, 40)  # sums gone through in chunks
    check([long, other], build.matmul(transposed(long), other), sizes=(1,), length=4500)
    image, kernel = leaf(dtype, n, 9, 9, 16), leaf(dtype, 3, 3, 16, 24)
    windows = build.patches(image, 1, (3, 3), (1, 1))
    check([image, kernel], Contract((0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))(windows, kernel), length=144)


def test_a_dense_layer_is_a_product_that_widens_what_it_reads() -> None:
    """Its weights, rounded from float32, are packed as float32; in the tile there is no conversion of the lanes."""
    x, w = leaf("bfloat16", n, 256), Variable(np.ones((256, 512)), dtype="float32")
    fn = compiled([x], [build.relu(build.matmul(x, build.cast(w.node, "bfloat16")))])
    kernels = fn.stages.kernels
    pack, product = (next(k for name, k in kernels.items() if name.startswith(s)) for s in ("pack", "contract"))
    (store,) = (s for s in statements(pack.body) if isinstance(s, Store))
    assert isinstance(store.value, Cast)
    assert isinstance(store.value.x, Load)
    assert (store.value.x.dtype, store.buffer.dtype) == ("bfloat16", "float32")
    reads = {b.name: b.dtype for b in product.reads}
    assert reads.pop("lanes") == "float32"
    assert set(reads.values()) == {"bfloat16"}
    assert "fma(float32(" in product.text()
    np.testing.assert_array_equal(np.asarray(fn(np.ones((3, 256), "float32"))[0], "float32"), np.full((3, 512), 256.0))
