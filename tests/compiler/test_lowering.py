"""Graphs on the CPU: how many kernels they become, and that these give the oracle's values, whatever the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnomon.agreement import expected
from gnomon.compiler import lower
from gnomon.compiler.errors import DataError
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import bind_sizes
from gnomon.compiler.kernel import Apply, Buffer, Const, Kernel, Store
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.program import Copy, Launch
from gnomon.compiler.render import llvm
from gnomon.compiler.sizes import Dim, symbol
from gnomon.compiler.targets import Target
from gnomon.functions import Function, function
from gnomon.tensor import Tensor, new_input
from gnomon.variable import Variable
from tests.compiler import graphs

n, m = symbol("n"), symbol("m")
SIZES = ({"n": 1, "m": 1}, {"n": 2, "m": 7}, {"n": 13, "m": 64}, {"n": 33, "m": 3})


def leaf(key: int, *shape: Dim, dtype: str = "float32") -> Node:
    return Input(2_000_000 + key, f"x{key}", dtype, shape)()


def variable(*shape: int, name: str = "w", dtype: str = "float32", seed: int = 0) -> Variable:
    value = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return Variable(value, name=name, dtype=dtype)


def compiled(
    inputs: Sequence[Node], outputs: Sequence[Node], updates: Mapping[Variable, Node] | None = None
) -> Function:
    new = {v: Tensor(node) for v, node in (updates or {}).items()}
    return function(list(map(Tensor, inputs)), list(map(Tensor, outputs)), new, on_unused_input="ignore")


def check(fn: Function, sizes: Mapping[str, int], seed: int = 0) -> list[np.ndarray]:
    """Call with random arrays; outputs and updated variables must be what NumPy makes of the graph as it was given."""
    rng = np.random.default_rng(seed)
    arrays = [graphs.value(leaf, sizes, rng) for leaf in fn.graph.inputs]
    values: dict[Node, np.ndarray] = dict(zip(fn.graph.inputs, arrays, strict=True))
    values |= {v.node: v.numpy() for v in fn.graph.variables}
    bound = bind_sizes([x.type for x in fn.graph.inputs], [a.shape for a in arrays])
    wanted = expected([*fn.graph.outputs, *fn.graph.updates.values()], values, bound)
    got = [*fn(*arrays), *(v.numpy() for v in fn.graph.updates)]
    for right, value in zip(wanted, got, strict=True):
        wrong = right.difference(value)
        assert wrong is None, f"{right.node!r} with {dict(sizes)}: {wrong}"
    return got


def check_all(inputs: Sequence[Node], *outputs: Node, sizes=SIZES) -> Function:
    fn = compiled(inputs, outputs)
    for given_sizes in sizes:
        check(fn, given_sizes)
    return fn


def launches(fn: Function) -> list[Launch]:
    return [s for s in fn.program.steps if isinstance(s, Launch)]


def softmax(x: Node, axis: int = -1) -> Node:
    axis %= x.rank
    e = build.exp(build.subtract(x, build.max(x, axis, True)))
    return build.divide(e, build.sum(e, axis, True))


# ---- row programs


@pytest.mark.parametrize("width", [1, 10, 100, 1000, m])
def test_softmax_is_one_kernel(width):
    x = leaf(1, n, width)
    fn = check_all([x, leaf(2, m)], softmax(x))
    assert len(launches(fn)) == 1


def test_log_softmax_and_what_follows_in_its_row_are_one_kernel():
    x, y = leaf(1, n, 10), leaf(2, n, 10)
    loss = build.negative(build.sum(build.multiply(y, build.log(softmax(x))), 1))
    assert len(launches(check_all([x, y], loss))) == 1


def test_crossentropy_and_its_gradient_are_one_kernel():
    """The loss of each row and the gradient of their sum; the sum itself is the one thing left for another kernel."""
    x, y = leaf(1, n, 10), leaf(2, n, 10)
    shifted = build.subtract(x, build.stop_gradient(build.max(x, 1, True)))
    log_share = build.subtract(shifted, build.log(build.sum(build.exp(shifted), 1, True)))
    rows = build.negative(build.sum(build.multiply(y, log_share), 1))
    (g,) = grad(build.sum(rows), [x])
    assert g is not None
    assert len(launches(check_all([x, y], rows, g))) == 1
    assert len(launches(check_all([x, y], build.mean(rows), g))) == 2


def test_layer_normalization_is_one_kernel():
    x, scale, shift = leaf(1, n, 48), leaf(2, 48), leaf(3, 48)
    centred = build.subtract(x, build.mean(x, 1, True))
    root = build.sqrt(build.add(build.mean(build.square(centred), 1, True), 1e-5))
    y = build.add(build.multiply(build.divide(centred, root), scale), shift)
    assert len(launches(check_all([x, scale, shift], y))) == 1


def test_equal_row_programs_are_lowered_once(monkeypatch):
    made = []
    schedule = lower._scheduled
    monkeypatch.setattr(lower, "_scheduled", lambda *given: made.append(given) or schedule(*given))

    def tower(keys: list[int]) -> Function:
        x, y = (leaf(k, n, 24) for k in keys)
        return compiled([x, y], [build.multiply(softmax(x), build.add(softmax(y), 0.1875))])

    first, second = tower([301, 302]), tower([303, 304])
    assert [s.kernel for s in launches(first)] == [s.kernel for s in launches(second)]
    assert len(made) == len(launches(first))


def test_layers_that_are_alike_add_a_call_each_to_the_entry():
    """LLVM takes more than twice as long for a function that is twice as long: it must not hold each launch."""
    x, w = leaf(1, n, 16), leaf(2, 16, 16)
    lines = {}
    for depth in (20, 40):
        y = x
        for _ in range(depth):
            y = build.relu(build.matmul(y, w))
        fn = check_all([x, w], y, sizes=SIZES[:2])
        lines[depth] = len(fn.program.sources[-1].text.splitlines())
    count = len(launches(fn)) // 40
    assert lines[40] - lines[20] <= 20 * count * 2  # a table of slots and a call
    assert fn.program.sources[-1].text.count("define internal") <= 3 * count


def test_sibling_reductions_share_one_pass():
    x = leaf(1, n, 40)
    fn = check_all([x], build.sum(x, 1), build.sum(build.square(x), 1), build.max(x, 1), build.min(x, 1))
    assert len(launches(fn)) == 1
    (rows,) = [r for _, r in fn.stages.rows]
    assert len([s for s in rows.stages if s.folds]) == 1


def test_elementwise_chains_melt():
    x, y = leaf(1, n, m), leaf(2, m)
    z = build.tanh(build.add(build.multiply(x, 2.0), y))
    z = build.where(build.greater(z, 0.0), z, build.exp(z))
    assert len(launches(check_all([x, y], build.subtract(build.square(z), 1.0)))) == 1


def test_moves_cost_no_kernel():
    x, y = leaf(1, n, 6), leaf(2, 3, n)
    moved = build.slice(build.transpose(x, [1, 0]), [0, 0], [3, n], [2, 1])
    assert len(launches(check_all([x, y], build.add(moved, build.flip(y, [1]))))) == 1


# ---- products


def test_bias_and_activation_are_in_the_epilogue():
    x, w, b = leaf(1, n, 60), leaf(2, 60, 50), leaf(3, 50)
    fn = check_all([x, w, b], build.relu(build.add(build.matmul(x, w), b)))
    assert all("relu" in s.label for s in launches(fn) if "pack" not in s.label)


@pytest.mark.parametrize(
    "shape", [(n, 784, 32), (n, 20, 20), (n, 1, 9), (n, 9, 1), (1, 40, 50), (37, n, 41), (8, 64, 128)]
)
def test_products_of_any_shape(shape):
    rows, depth, width = shape
    x, w = leaf(1, rows, depth), leaf(2, depth, width)
    extra = [leaf(3, n)]
    check_all([x, w, *extra], build.matmul(x, w))
    x, w = leaf(1, depth, rows), leaf(2, width, depth)
    turned = build.matmul(build.transpose(x, [1, 0]), build.transpose(w, [1, 0]))
    check_all([x, w, *extra], turned)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int32", "int64"])
def test_products_of_any_dtype(dtype):
    x, w = leaf(1, n, 17, dtype=dtype), leaf(2, 17, 24, dtype=dtype)
    check_all([x, w], build.matmul(x, w))


def test_batched_products():
    x, w = leaf(1, n, 5, 16), leaf(2, n, 16, m)
    check_all([x, w], build.matmul(x, w))
    scores = softmax(build.matmul(x, build.transpose(leaf(3, n, m, 16), [0, 2, 1])))
    check_all([x, leaf(3, n, m, 16), w], build.matmul(scores, leaf(3, n, m, 16)))


def test_vectors_and_scalars_in_products():
    x, v = leaf(1, n, 30), leaf(2, 30)
    check_all([x, v], build.matmul(x, v), build.matmul(v, v), build.multiply(build.matmul(v, v), 2.0))
    check_all([x, leaf(3, n)], build.matmul(leaf(3, n), x))


# ---- updates


def step_of(loss: Node, parameters: Sequence[Variable], momenta: Sequence[Variable]) -> dict[Variable, Node]:
    updates = {}
    for p, v, g in zip(parameters, momenta, grad(loss, [p.node for p in parameters]), strict=True):
        new = build.add(build.multiply(v.node, 0.9), g)
        updates[v] = new
        updates[p] = build.subtract(p.node, build.multiply(new, 0.1))
    return updates


def two_layers() -> tuple[list[Node], Node, dict[Variable, Node]]:
    x, y = leaf(1, n, 20), leaf(2, n, 4)
    shapes = [(20, 16), (16,), (16, 4), (4,)]
    parameters = [variable(*s, name=f"p{k}", seed=k) for k, s in enumerate(shapes)]
    momenta = [variable(*s, name=f"v{k}", seed=10 + k) for k, s in enumerate(shapes)]
    w, b, u, c = (p.node for p in parameters)
    hidden = build.relu(build.add(build.matmul(x, w), b))
    loss = build.mean(build.square(build.subtract(build.add(build.matmul(hidden, u), c), y)))
    return [x, y], loss, step_of(loss, parameters, momenta)


def test_updates_are_in_place():
    inputs, loss, updates = two_layers()
    fn = compiled(inputs, [loss], updates)
    assert not [s for s in fn.program.steps if isinstance(s, Copy)]
    state = {slot for slot, _ in fn.program.variables}
    written = [s for launch in launches(fn) for s in launch.buffers if s in state]
    assert set(written) == state
    for sizes in SIZES:
        check(fn, sizes)


def test_weight_gradients_and_updates_are_one_kernel():
    """No gradient of a weight is ever stored: the optimizer's update is the epilogue of the product."""
    inputs, loss, updates = two_layers()
    fn = compiled(inputs, [loss], updates)
    temporary = [s.shape for s in fn.program.slots if s.kind == "temporary"]
    assert (20, 16) not in temporary
    assert (16, 4) not in temporary


def test_old_values_are_read_before_they_are_overwritten():
    a, b = variable(7, 9, name="a"), variable(7, 9, name="b", seed=1)
    fn = compiled([leaf(1, n)], [build.sum(a.node)], {a: build.exp(b.node), b: build.sin(a.node)})
    check(fn, {"n": 2})
    check(fn, {"n": 2})
    w = variable(12, 12)
    turned = build.add(w.node, build.transpose(w.node, [1, 0]))
    check(compiled([leaf(1, n)], [w.node], {w: turned}), {"n": 2})
    v = variable(20)
    check(compiled([leaf(1, n)], [], {v: build.subtract(v.node, build.flip(v.node, [0]))}), {"n": 2})
    check(compiled([leaf(1, n)], [], {v: build.divide(v.node, build.sum(build.square(v.node)))}), {"n": 2})
    check(compiled([leaf(1, n)], [], {w: build.matmul(w.node, w.node)}), {"n": 2})


def test_a_variable_given_its_own_or_anothers_value():
    a, b = variable(5, name="a"), variable(5, name="b", seed=1)
    fn = compiled([leaf(1, n)], [a.node, b.node], {a: b.node, b: a.node})
    before = a.numpy(), b.numpy()
    check(fn, {"n": 1})
    np.testing.assert_array_equal(a.numpy(), before[1])
    np.testing.assert_array_equal(b.numpy(), before[0])


# ---- sizes and shapes at the edge


@pytest.mark.parametrize("sizes", [{"n": 0, "m": 5}, {"n": 5, "m": 0}, {"n": 0, "m": 0}])
def test_empty_arrays(sizes):
    x, y = leaf(1, n, m), leaf(2, m, 6)
    outputs = [
        build.exp(x), build.sum(x), build.sum(x, 0), build.max(x, 1), softmax(x), build.matmul(x, y),
        build.concat([x, x], 0), build.transpose(x, [1, 0]), build.all(build.greater(x, 0.0)), build.prod(x),
    ]  # fmt: skip
    for output in outputs:
        check_all([x, y], output, sizes=[sizes])


def test_reading_at_positions_of_an_empty_axis_is_an_error():
    x, i = leaf(1, n, 3), leaf(2, m, dtype="int32")
    fn = compiled([x, i], [build.gather(x, i)])
    check(fn, {"n": 2, "m": 0})
    check(fn, {"n": 0, "m": 0})
    with pytest.raises(DataError, match="an axis of n elements must not be empty: Gather"):
        check(fn, {"n": 0, "m": 2})


def test_rank_0():
    x, y = leaf(1), leaf(2, n)
    check_all([x, y], build.exp(x), build.add(x, y), build.multiply(x, build.sum(y)), build.reshape(x, [1, 1]))


def test_broadcasting_along_every_axis():
    shapes: list[tuple[Dim, ...]] = [(), (1,), (m,), (1, m), (4, 1), (4, m), (n, 1, 1), (n, 4, 1), (n, 1, m), (1, 4, m)]
    whole = leaf(0, n, 4, m)
    others = [leaf(k, *shape) for k, shape in enumerate(shapes, 1)]
    for other in others:
        check_all([whole, other], build.subtract(whole, build.multiply(other, whole)), sizes=SIZES[1:3])
    check_all([whole, others[6], others[2]], build.add(others[6], others[2]))


def test_transposed_operands():
    x = leaf(1, n, 6, m)
    orders = ([0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1])
    turned = [build.transpose(x, order) for order in orders]
    for t in turned:
        check_all([x], build.exp(t), build.sum(t, [0, 2]), build.max(t, 1), sizes=SIZES[:3])
    back = build.transpose(build.tanh(turned[3]), [2, 0, 1])
    assert back.shape == x.shape
    check_all([x], build.add(back, x))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"])
def test_other_dtypes(dtype):
    x, y = leaf(1, n, m, dtype=dtype), leaf(2, m, dtype=dtype)
    if dtype == "bool":
        outputs = [build.logical_xor(x, y), build.any(x, 1), build.all(x), build.sum(x, 0), build.cast(x, "float32")]
    else:
        outputs = [
            build.add(x, build.multiply(x, y)),
            build.maximum(x, y),
            build.sum(x, 1),
            build.max(x),
            build.less(x, y),
        ]
    for output in outputs:
        check_all([x, y], output)


@pytest.mark.parametrize("source", ["float32", "float64", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_mixed_dtypes_in_one_kernel(source):
    x = leaf(1, n, m, dtype=source)
    outputs = [build.cast(x, target) for target in ("float32", "float64", "int64", "bool", "int8") if target != source]
    check_all([x], *outputs)
    check_all([x], build.sum(build.cast(build.cast(x, "float64"), "float32"), 1))


def test_outputs_that_are_inputs_variables_or_twice_the_same():
    x, v = leaf(1, n, 3), variable(4)
    y = build.exp(x)
    fn = compiled([x], [x, v.node, y, y, build.constant(np.arange(3.0)), build.constant(2.0)])
    got = check(fn, {"n": 2})
    assert len({id(a) for a in got}) == 6
    got[0][...] = 0
    got[1][...] = 0
    check(fn, {"n": 2})


def test_inputs_may_have_any_layout():
    x, y = leaf(1, n, m), leaf(2, m)
    fn = compiled([x, y], [build.add(build.exp(x), y)])
    data = np.random.default_rng(0).standard_normal((6, 8)).astype("float32")
    for array in (data.T, data[::2], data[:, ::-1], np.asfortranarray(data), np.broadcast_to(data[0], (5, 8))):
        row = np.ones(array.shape[1], "float32")
        np.testing.assert_allclose(fn(array, row)[0], np.exp(array) + 1, rtol=1e-5)


def test_long_reductions_are_split_and_still_right():
    x = leaf(1, 200_000)
    data = np.random.default_rng(0).standard_normal(200_000).astype("float32")
    fn = compiled([x], [build.sum(x), build.max(x), build.min(x)])
    total, top, low = fn(data)
    np.testing.assert_allclose(total, data.sum(dtype=np.float64), rtol=1e-4, atol=1e-2)
    assert (top, low) == (data.max(), data.min())


# ---- whatever there is


@pytest.fixture
def checked(monkeypatch):
    """Each rewrite, each pass, each launch, each access is looked at."""
    monkeypatch.setenv("GNOMON_CHECK", "1")


EXAMPLES = settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@EXAMPLES
@given(st.data())
def test_random_graphs_agree_with_the_oracle(checked, data):
    made = graphs.make(lambda k: data.draw(st.integers(0, k - 1)))
    inputs, outputs = list(map(Tensor, made.inputs)), list(map(Tensor, made.outputs))
    run_twice(function(inputs, outputs, made.updates, on_unused_input="ignore"), made, graphs.SIZES)


@EXAMPLES
@given(st.data())
def test_gradients_of_random_graphs_agree_with_the_oracle(checked, data):
    made = graphs.make(lambda k: data.draw(st.integers(0, k - 1)), steps=6)
    floats = [o for o in made.outputs if o.dtype in ("float32", "float64")]
    if not floats:
        return
    cost = build.sum(build.cast(build.sin(floats[0]), "float32"))
    wrt = [x for x in made.inputs if x.dtype in ("float32", "float64")]
    outputs = [Tensor(g) for g in grad(cost, wrt, disconnected="zero") if g is not None]
    run_twice(function(list(map(Tensor, made.inputs)), outputs, on_unused_input="ignore"), made, graphs.SIZES[:3])


def run_twice(fn: Function, made: graphs.Made, sizes: Sequence[Mapping[str, int]]) -> None:
    """Step by step, each step checked; then as a whole, with the same result."""
    for k, given_sizes in enumerate(sizes):
        arrays = graphs.arrays(made, given_sizes, np.random.default_rng(k))
        before = [v.numpy() for v in fn.graph.variables]
        stepwise = fn(*arrays)
        after = [v.numpy() for v in fn.graph.variables]
        for v, value in zip(fn.graph.variables, before, strict=True):
            v.set_value(value)
        for a, b in zip(stepwise, fn.executable.executable(*arrays), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, v in zip(after, fn.graph.variables, strict=True):
            np.testing.assert_array_equal(a, v.numpy())


def test_a_value_computed_again_is_the_same_value():
    """Fused with the subtraction, the second square would differ from the first by its rounding error."""
    x = new_input("x", "float32", (symbol("n"), 300))
    square = build.square(x)
    shifted = build.subtract(square, build.max(square, 1, True))
    e = build.exp(shifted)
    share = build.divide(e, build.sum(e, 1, True))
    f = function([Tensor(x)], [Tensor(build.max(shifted, 1)), Tensor(share)])
    values = (np.random.default_rng(0).standard_normal((20, 300)) * 1e10).astype("float32")
    largest, shares = f(values)
    assert not largest.any()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("larger", [0.75, np.inf])
def test_fractions_are_no_sizes(larger):
    """A comparison of two numbers that are known is made as they are, not as integers."""
    less = Apply(scalar("less"), (Const("float32", 0.25), Const("float32", larger)))
    out = Buffer("out", "float32", (1,))
    chosen = Apply(scalar("where"), (less, Const("float32", 3), Const("float32", 4)))
    target = Target("cpu", "x86_64-unknown-linux-gnu", "x86-64", "", 16, 16, False)
    text = llvm.render(Kernel((), (out,), (Store(out, (0,), chosen),)), "chosen", target)
    assert re.search(r"(%\w+) = fcmp olt float .*\n.* = select i1 \1, float 0x4008000000000000", text)
