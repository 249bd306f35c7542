"""Whole programs for CUDA on the emulator: memory plan, order of arguments, launch geometry and loops."""

import numpy as np
import pytest

from gnomon.compiler.compile import Request, compile
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.program import Program
from gnomon.compiler.sizes import symbol
from gnomon.compiler.targets import CUDA
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Emulated

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")

b = symbol("b")
x = Input(1, "x", "float32", (b, 30))()
y = Input(2, "y", "float32", (b, 10))()
counter = Input(3, "counter", "int64", ())()
w, c, v, d = (Parameter(k, f"p{k}", "float32", s)() for k, s in enumerate([(30, 20), (20,), (20, 10), (10,)], 10))
momenta = [Parameter(20 + k, f"m{k}", "float32", p.shape)() for k, p in enumerate((w, c, v, d))]


def step(inputs: Node) -> tuple[Node, list[tuple[Node, Node]]]:
    """The loss of two dense layers, and the updates of gradient descent with momentum."""
    hidden = build.relu(build.add(build.matmul(inputs, w), c))
    loss = build.mean(build.square(build.subtract(build.add(build.matmul(hidden, v), d), y)))
    updates = []
    for p, g, m in zip((w, c, v, d), grad(loss, [w, c, v, d]), momenta, strict=True):
        new = build.add(build.multiply(m, 0.9), g)
        updates += [(m, new), (p, build.subtract(p, build.multiply(new, 0.1)))]
    return loss, updates


def start(rows: int) -> dict[Node, np.ndarray]:
    rng = np.random.default_rng(rows)
    values = {p: (rng.standard_normal(p.shape) / 4).astype(np.float32) for p in (w, c, v, d, *momenta)}
    return values | {n: rng.standard_normal((rows, n.shape[1])).astype(np.float32) for n in (x, y)}


def run(program: Program, values: dict[Node, np.ndarray], order: int) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    state = {n.op.key: a.copy() for n, a in values.items() if isinstance(n.op, Parameter)}
    outputs = Emulated(program)([values[x], values[y]], [state[key] for _, key in program.variables], order)
    return outputs, state


@pytest.mark.parametrize("order", [0, 5])
@pytest.mark.parametrize("rows", [1, 7, 70])
def test_training_step(rows: int, order: int) -> None:
    loss, updates = step(x)
    program = compile(Request("step", [x, y], [loss], updates), CUDA)
    values = start(rows)
    want = evaluate_graph([loss, *(new for _, new in updates)], values)
    (got,), state = run(program, values, order)
    np.testing.assert_allclose(got, want[0], rtol=1e-5)
    for (p, _), new in zip(updates, want[1:], strict=True):
        np.testing.assert_allclose(state[p.op.key], new, rtol=1e-4, atol=1e-6)


def test_loop_inside_the_program() -> None:
    """Three steps in one call, the inputs scaled by the counter."""
    scaled = build.multiply(x, build.add(build.cast(counter, "float32"), 1.0))
    loss, updates = step(scaled)
    program = compile(Request("steps", [x, y], [loss], updates, (counter, 3)), CUDA)
    values = start(9)
    (got,), state = run(program, values, 1)
    for k in range(3):
        now = values | {counter: np.array(k)}
        want, *news = evaluate_graph([loss, *(new for _, new in updates)], now)
        values |= {p: new for (p, _), new in zip(updates, news, strict=True)}
    np.testing.assert_allclose(got, want, rtol=1e-4)
    for p, _ in updates:
        np.testing.assert_allclose(state[p.op.key], values[p], rtol=1e-3, atol=1e-5)


def test_program_is_text_that_a_gpu_takes() -> None:
    loss, updates = step(x)
    program = compile(Request("step", [x, y], [loss], updates), CUDA)
    assert program.target == "cuda"
    assert program.entry == ""
    kernels = {s.kernel for s in program.steps if hasattr(s, "kernel")}
    assert kernels == {name for source in program.sources for name in source.defines}
    if nvrtc.library():
        assert nvrtc.compile("\n".join(s.text for s in program.sources), "sm_80").keys() == kernels
