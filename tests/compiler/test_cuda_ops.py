"""Graphs lowered for CUDA, their kernels' text run on the emulator, against the oracle; several sizes, 1 among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count

import numpy as np
import pytest

from gnomon.compiler import dtypes
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Env, Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.kernel import For, statements
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.sizes import Dim, product, symbol
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Batch, kernels

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")

b, m = symbol("b"), symbol("m")
SIZES = [{"b": 1, "m": 1}, {"b": 3, "m": 65}, {"b": 40, "m": 5}]
_keys = count(10_000)


def given(*shape: Dim, dtype: str = "float32") -> Node:
    """An input."""
    key = next(_keys)
    return Input(key, f"x{key}", dtype, tuple(shape))()


def softmax(x: Node) -> Node:
    e = build.exp(build.subtract(x, build.max(x, -1, keepdims=True)))
    return build.divide(e, build.sum(e, -1, keepdims=True))


def layer_normalize(x: Node) -> Node:
    centred = build.subtract(x, build.mean(x, -1, keepdims=True))
    variance = build.mean(build.square(centred), -1, keepdims=True)
    return build.multiply(centred, build.rsqrt(build.add(variance, 1e-3)))


def cross_entropy(x: Node, labels: Node) -> list[Node]:
    """The mean loss of logits, and its gradient."""
    top = build.max(x, -1, keepdims=True)
    e = build.exp(build.subtract(x, top))
    total = build.sum(e, -1, keepdims=True)
    chosen = build.equal(build.iota(x.shape, 1, labels.dtype), build.reshape(labels, (b, 1)))
    picked = build.sum(build.where(chosen, build.subtract(x, top), 0.0), -1, keepdims=True)
    loss = build.subtract(build.log(total), picked)
    gradient = build.subtract(build.divide(e, total), build.cast(chosen, "float32"))
    return [build.mean(loss), build.divide(gradient, build.size(b))]


def dense(x: Node, w: Node, c: Node) -> Node:
    return build.relu(build.add(build.matmul(x, w), c))


def transposed(x: Node) -> Node:
    return build.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


def attention(q: Node, k: Node, v: Node) -> Node:
    return build.matmul(softmax(build.matmul(q, transposed(k))), v)


def training_step(x: Node, labels: Node, *parameters: Node) -> list[Node]:
    """The loss of two dense layers, and what plain gradient descent makes of their parameters."""
    w1, c1, w2, c2 = parameters
    loss = cross_entropy(build.add(build.matmul(dense(x, w1, c1), w2), c2), labels)[0]
    gradients = grad(loss, parameters)
    return [loss, *(build.subtract(p, build.multiply(g, 0.1)) for p, g in zip(parameters, gradients, strict=True))]


def gradient_of(function: Callable[..., Node]) -> Callable[..., list[Node]]:
    """Gradients of a weighted sum of a function's result with respect to its float inputs."""

    def gradients(*inputs: Node) -> list[Node]:
        out = function(*inputs)
        weights = build.cos(build.cast(build.iota((product(out.shape),)), "float32"))
        cost = build.sum(build.multiply(out, build.reshape(weights, out.shape)))
        return grad(cost, [x for x in inputs if dtypes.is_float(x.dtype)])

    return gradients


Case = tuple[Callable, tuple[Node, ...]]
CASES: dict[str, Case] = {
    "elementwise": (lambda x, y: build.tanh(build.add(build.multiply(x, y), 1.0)), (given(b, m), given(m))),
    "scalar": (lambda x: build.exp(x), (given(),)),
    "double": (lambda x: build.log1p(build.square(x)), (given(b, m, dtype="float64"),)),
    "half": (lambda x: [build.exp(x), build.sum(x, 1)], (given(b, m, dtype="float16"),)),
    "bfloat16": (lambda x: [build.exp(x), build.sum(x, 1)], (given(b, m, dtype="bfloat16"),)),
    "dense_in_bfloat16": (dense, tuple(given(*s, dtype="bfloat16") for s in ((b, m), (m, 20), (20,)))),
    "row_sum": (lambda x: build.sum(x, 1), (given(b, m),)),
    "column_sum": (lambda x: build.sum(x, 0), (given(b, m),)),
    "whole_sum": (lambda x: [build.sum(x), build.max(x), build.min(x)], (given(b, m),)),
    "middle_axis": (lambda x: build.max(x, 1), (given(b, m, 3),)),
    "outer_and_inner_axes": (lambda x: build.prod(build.add(x, 2.0), (0, 2)), (given(b, 5, m),)),
    "argmax": (lambda x: build.argmax(x, 1), (given(b, m),)),
    "softmax": (softmax, (given(b, m),)),
    "softmax_of_static_rows": (softmax, (given(b, 33),)),
    "softmax_of_long_rows": (softmax, (given(b, 700),)),
    "layer_normalize": (layer_normalize, (given(b, m),)),
    "cross_entropy": (cross_entropy, (given(b, 10), given(b, dtype="int32"))),
    "matmul": (build.matmul, (given(b, m), given(m, 37))),
    "matmul_left_transposed": (lambda x, y: build.matmul(transposed(x), y), (given(m, b), given(m, 9))),
    "matmul_right_transposed": (lambda x, y: build.matmul(x, transposed(y)), (given(b, m), given(70, m))),
    "matmul_of_batches": (build.matmul, (given(4, b, m), given(4, m, 17))),
    "matmul_of_symbolic_batches": (build.matmul, (given(b, m, 8), given(b, 8, m))),
    "matrix_vector": (build.matmul, (given(b, m), given(m))),
    "vector_matrix": (build.matmul, (given(m), given(m, 40))),
    "dense": (dense, (given(b, m), given(m, 20), given(20))),
    "gathered_rows_times_matrix": (
        lambda x, i, w: build.matmul(build.gather(x, i), w), (given(9, m), given(b, dtype="int32"), given(m, 17))),
    "attention": (attention, (given(2, b, 8), given(2, m, 8), given(2, m, 8))),
    "training_step": (
        training_step,
        (given(b, m), given(b, dtype="int32"), given(m, 20), given(20), given(20, 10), given(10))),
    "gradient_of_softmax": (gradient_of(softmax), (given(b, m),)),
    "gradient_of_layer_normalize": (gradient_of(layer_normalize), (given(b, m),)),
    "gradient_of_dense": (gradient_of(dense), (given(b, m), given(m, 20), given(20))),
    "gradient_of_attention": (gradient_of(attention), (given(2, b, 8), given(2, m, 8), given(2, m, 8))),
    "reshape_of_transpose": (lambda x: build.exp(build.reshape(transposed(x), (b, m))), (given(b, m),)),
}  # fmt: skip


@cache
def batch() -> Batch:
    """All graphs, compiled once."""
    graphs = Batch()
    for name, (function, inputs) in CASES.items():
        outputs = function(*inputs)
        graphs.add(name, inputs, outputs if isinstance(outputs, list) else [outputs])
    return graphs


def values_of(inputs: Sequence[Node], sizes: dict[str, int]) -> dict[Node, np.ndarray]:
    rng, env = np.random.default_rng(0), Env(sizes)
    found = {}
    for x in inputs:
        shape = env.shape(x.shape)
        if dtypes.is_float(x.dtype):
            found[x] = dtypes.rounded(x.dtype, rng.standard_normal(shape))
        else:
            found[x] = rng.integers(0, 2 if x.dtype == "bool" else 7, shape).astype(x.dtype)
    return found


def check(name: str, sizes: dict[str, int], order: int) -> None:
    values = values_of(CASES[name][1], sizes)
    outputs = batch().stages[name].graph
    want = evaluate_graph(outputs, values, sizes)
    got = batch().run(name, list(values.values()), order)
    for node, a, w in zip(outputs, got, want, strict=True):
        other = {"bfloat16": 3e-2, "float16": 4e-3, "float64": 1e-12}
        tolerance = 0 if not dtypes.is_float(node.dtype) else other.get(node.dtype, 2e-5)
        np.testing.assert_allclose(a, w, rtol=tolerance, atol=tolerance, err_msg=repr(node))


@pytest.mark.parametrize("name", CASES)
def test_cuda_agrees_with_the_oracle(name: str) -> None:
    for sizes in SIZES:
        for order in (0, 7):
            check(name, sizes, order)


@pytest.mark.parametrize("name", ["row_sum", "column_sum", "whole_sum", "matmul", "softmax", "elementwise"])
def test_nothing_to_do(name: str) -> None:
    """Empty rows and no rows: sums are 0, and nothing is launched where there is no output."""
    for sizes in ({"b": 0, "m": 3}, {"b": 3, "m": 0}):
        check(name, sizes, 0)


def kinds(name: str) -> set[str]:
    found = batch().stages[name].kernels.values()
    return {s.kind for kernel in found for s in statements(kernel.body) if isinstance(s, For)}


def test_policy() -> None:
    """Elementwise work is a thread for four elements, a row a team of threads, a product a tile for each block."""
    assert kinds("elementwise") == {"parallel"}
    assert kinds("double") == {"parallel", "vector", "serial"}
    assert kinds("column_sum") == {"block", "thread", "serial"}
    assert kinds("row_sum") == {"block", "thread", "serial"}
    assert kinds("softmax_of_static_rows") == {"block", "thread", "unroll"}
    assert {"block", "thread"} <= kinds("dense")
    assert len(kernels(batch().programs["dense"])) == 1
    assert len(kernels(batch().programs["softmax_of_static_rows"])) == 1


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch, names", [("sm_90", list(CASES)), ("sm_80", ["softmax", "training_step"])])
def test_kernels_compile_to_cubin_without_spills(arch: str, names: list[str]) -> None:
    usage = nvrtc.compile(batch().text(names), arch)
    assert usage.keys() == {kernel for name in names for kernel in kernels(batch().programs[name])}
    # a few bytes are kept around calls of division, sine and the like; accumulators must be in registers
    assert not {name: used for name, used in usage.items() if used.spilled > 16 or used.stack > 32}
    assert max(used.registers for used in usage.values()) <= 128
