"""Whole programs for CUDA on the emulator: memory plan, order of arguments, launch geometry, loops and conditions."""

import numpy as np
import pytest

from gnomon import random
from gnomon.compiler.compile import Request, compile
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter, key_of
from gnomon.compiler.program import Branch, Program, Repeat
from gnomon.compiler.sizes import evaluate, symbol
from gnomon.compiler.targets import CUDA
from gnomon.control import ifelse
from gnomon.functions import function
from gnomon.tensor import Tensor, as_dims, new_input
from gnomon.variable import Variable
from tests.compiler.test_updates import CASES as UPDATES
from tests.emulator import Module, compiler, nvrtc
from tests.emulator.programs import Emulated, for_cuda, kernels, state_of, text

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
    shapes = {p: [evaluate(k, {}) for k in p.shape] for p in (w, c, v, d, *momenta)}
    values = {p: (rng.standard_normal(shape) / 4).astype(np.float32) for p, shape in shapes.items()}
    return values | {n: rng.standard_normal((rows, evaluate(n.shape[1], {}))).astype(np.float32) for n in (x, y)}


def run(program: Program, values: dict[Node, np.ndarray], order: int) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    state = {key_of(n): a.copy() for n, a in values.items() if isinstance(n.op, Parameter)}
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
        np.testing.assert_allclose(state[key_of(p)], new, rtol=1e-4, atol=1e-6)


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
        np.testing.assert_allclose(state[key_of(p)], values[p], rtol=1e-3, atol=1e-5)


def test_program_is_text_that_a_gpu_takes() -> None:
    loss, updates = step(x)
    program = compile(Request("step", [x, y], [loss], updates), CUDA)
    assert program.target == "cuda"
    assert program.entry == ""
    assert set(kernels(program)) == {name for source in program.sources for name in source.defines}
    if nvrtc.library():
        assert nvrtc.compile(text([program]), "sm_80").keys() == set(kernels(program))


# ---- what `gnomon.function` compiles, beside the CPU's values


def tensor(name: str, *shape: int | None, dtype: str = "float32") -> Tensor:
    return Tensor(new_input(name, dtype, as_dims(shape, name)))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kernels in the order in which the emulator runs them."""
    names: list[str] = []
    launch = Module.launch

    def note(module, name, *arguments, **options):
        names.append(name)
        return launch(module, name, *arguments, **options)

    monkeypatch.setattr(Module, "launch", note)
    return names


def test_only_one_side_of_a_condition_runs(launched: list[str]) -> None:
    above, u, k = tensor("above"), tensor("u", None, 5), Variable(np.arange(5, dtype="float32"))
    inner = lambda v: ifelse(above > 2.0, v.sum(axis=1) + 1.0, v.max(axis=1) * [2.0])
    f = function([above, u], ifelse(above > 0.0, [inner(u * k), u * 2], [u.sum(axis=1), u + k]))
    program = for_cuda(f)
    assert any(isinstance(s, Branch) for s in program.steps)
    emulated, ran = Emulated(program), []
    for value in (-1, 1, 3):
        launched.clear()
        arrays = [np.array(value, "float32"), np.random.default_rng(value + 1).normal(size=(7, 5)).astype("float32")]
        for got, want in zip(emulated(arrays, state_of(f, program)), f.run(arrays), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
        ran.append(set(launched))
    assert ran[0] != ran[1] != ran[2]
    assert max(map(len, ran)) < len(set(kernels(program)))


def test_a_condition_inside_a_loop_changes_variables() -> None:
    """Rounds alternate; what one leaves the next finds."""
    u, counter = tensor("u", None, 3), Tensor(new_input("counter", "int64", ()))
    count = as_dims((None,), "rounds")[0]
    rounds = tensor("rounds", None)
    a, total = Variable(np.ones(3, "float32")), Variable(np.zeros((), "float32"))
    even = ifelse(counter % 2 < 1, u.sum(axis=0) + a, a * 0.5)
    f = function(
        [u, rounds], [even.sum(), a + rounds[0]], {a: even, total: total + even.sum()}, repeat=(counter, count)
    )
    program = for_cuda(f)
    assert isinstance(program.steps[0], Repeat)
    arrays = [np.linspace(0, 1, 12, dtype="float32").reshape(4, 3), np.zeros(5, "float32")]
    state = state_of(f, program)
    got = Emulated(program)(arrays, state, order=3)
    for x, want in zip(got, f.run(arrays), strict=True):
        np.testing.assert_allclose(x, want, rtol=1e-6)
    for x, want in zip(state, state_of(f, program), strict=True):  # the CPU's, now changed
        np.testing.assert_allclose(x, want, rtol=1e-6)


def number_that_all_threads_read():
    """Every thread works out the new count from the old one; none may find the new one in its place."""
    count, weights = Variable(np.float32(3)), [Variable(np.ones(s, "float32")) for s in ((20, 16), (16,))]
    new = count + 1.0
    return {count: new, **{w: w - 0.1 * w / new for w in weights}}, []


@pytest.mark.parametrize("case", [*UPDATES, number_that_all_threads_read], ids=lambda c: c.__name__)
def test_updates_are_computed_from_old_values(case) -> None:
    u = tensor("u", None, 5)
    takes = case.__code__.co_argcount == 1
    updates, outputs = case(u) if takes else case()
    f = function([u] if takes else [], outputs, updates=updates)
    program = for_cuda(f)
    arrays = [np.linspace(-1, 1, 35, dtype="float32").reshape(7, 5)] if takes else []
    emulated, before = Emulated(program), state_of(f, program)
    wanted = f.run(arrays)
    for order in (0, 1, 4):
        state = [a.copy() for a in before]
        for got, want in zip(emulated(arrays, state, order), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        for got, want in zip(state, state_of(f, program), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_random_numbers_are_the_cpus_bit_for_bit() -> None:
    """Bits, and what is made of them by exact arithmetic (a product and a sum may be rounded together or apart)."""
    n = as_dims((None,), "u")[0]
    u, stream = tensor("u", None), random.SeedGenerator(7)
    drawn = [
        random.uniform((n, 9), seed=stream),
        random.uniform((n, 3), dtype="float64", seed=stream),
        random.randint((n,), -5, 1000, seed=stream),
        random.dropout(Tensor(build.full((n, 11), 1.0, "float32")), 0.3, seed=stream),
        random.shuffle(u, seed=stream),
    ]
    f = function([u], drawn)
    program = for_cuda(f)
    emulated, state = Emulated(program), state_of(f, program)
    for rows in (1, 70):
        arrays = [np.arange(rows, dtype="float32")]
        for got, want in zip(emulated(arrays, state, order=2), f.run(arrays), strict=True):
            assert got.tobytes() == np.asarray(want).tobytes()
        for got, want in zip(state, state_of(f, program), strict=True):
            assert got.tobytes() == want.tobytes()
