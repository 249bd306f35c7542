"""What nobody reads of a product is not computed."""

from __future__ import annotations

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.graph import TensorType, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.passes import simplify
from gnomon.compiler.passes.narrow import narrowed
from gnomon.compiler.sizes import symbol
from gnomon.inspecting import function_of

N, T = symbol("batch"), symbol("time")
X = fresh_input("x", TensorType("float32", (N, 8, 9, 4)))
W = fresh_input("w", TensorType("float32", (3, 3, 4, 4)))
V = fresh_input("v", TensorType("float32", (4, 6)))
B = fresh_input("b", TensorType("float32", (6,)))
S = fresh_input("s", TensorType("float32", (N, T, 4)))
SHAPES = {X: (8, 9, 4), W: (3, 3, 4, 4), V: (4, 6), B: (6,)}


def convolved(x, strides=(1, 1)):
    p = build.patches(build.pad(x, (0, 1, 1, 0), (0, 1, 1, 0)), 1, (3, 3), strides)
    return build.contract(p, W, (0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))


def dense(x):
    last = x.rank - 1
    y = build.contract(x, V, tuple(range(x.rank)), (last, x.rank), (*range(last), x.rank))
    return build.relu(build.add(y, build.broadcast(B, y.shape, (last,))))


def every(x, step, start=0):
    """Every `step`-th place along the axes between the first and the last."""
    starts = [0, *[start] * (x.rank - 2), 0]
    steps = [1, *[step] * (x.rank - 2), 1]
    size = [(d - a + s - 1) // s if isinstance(d, int) else d for d, a, s in zip(x.shape, starts, steps, strict=True)]
    return build.slice(x, starts, size, steps)


def last(x):
    return build.slice(x, (0, T - 1, 0), (N, 1, x.shape[2]))


def products(roots):
    return [n.shape[1:] for n in walk(roots) if isinstance(n.op, Contract)]


def checked(outputs):
    """What the pass makes of `outputs`, after it is seen to compute the same; the rows and columns of its products."""
    made = narrowed(outputs)
    assert [r.type for r in made] == [r.type for r in outputs]
    rng = np.random.default_rng(0)
    for rows, time in ((1, 5), (3, 1)):
        of = lambda *shape: rng.standard_normal(shape).astype("float32")
        values = {X: of(rows, 8, 9, 4), S: of(rows, time, 4), W: of(3, 3, 4, 4), V: of(4, 6), B: of(6)}
        sizes = {"batch": rows, "time": time}
        for a, b in zip(*(evaluate_graph(roots, values, sizes) for roots in (outputs, made)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert narrowed(made) == made
    return products(made)


def test_steps_go_through_what_looks_at_each_place_by_itself():
    assert checked([every(dense(build.relu(convolved(X))), 2)]) == [(4, 5, 4), (4, 5, 6)]


@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_windows_move_by_more(start, strides):
    made = checked([every(convolved(X, strides), 3, start)])
    assert made == [every(convolved(X, strides), 3, start).shape[1:]]


def test_a_row_beside_what_all_is_read_of():
    """The other operand of an addition is sliced where it is, and computed for whoever reads all of it."""
    kept = build.tanh(X)
    y = build.add(dense(build.relu(convolved(X))), dense(kept))
    assert sorted(checked([every(y, 2), kept])) == [(4, 5, 4), (4, 5, 6), (4, 5, 6)]
    shared = dense(kept)
    both = [every(build.add(dense(X), shared), 2), build.reduce("sum", shared, (1, 2))]
    assert sorted(checked(both)) == [(4, 5, 6), (8, 9, 6)]


def test_the_last_place_of_a_sequence():
    assert checked([last(dense(S))]) == [(1, 6)]


def test_columns_ask_for_columns_of_weights():
    y = dense(X)
    assert checked([build.slice(y, (0, 0, 0, 1), (N, 8, 9, 2))]) == [(8, 9, 2)]


def test_what_is_transposed():
    y = build.transpose(dense(X), (3, 1, 0, 2))
    part = build.slice(y, (2, 0, 0, 0), (1, 4, N, 9), (1, 2, 1, 1))
    assert checked([part]) == [(4, 9, 1)]


@pytest.mark.parametrize(
    "outputs",
    [
        lambda: [every(convolved(X), 2), every(convolved(X), 2, 1)],  # different parts
        lambda: [every(convolved(X), 2), convolved(X)],  # the caller wants all
        lambda: [every(build.exp(X), 2)],  # no product
        lambda: [build.slice(convolved(X), (0, 1, 0, 0), (N, 7, 9, 4))],  # nearly all
        lambda: [build.flip(convolved(X), [1])],
        lambda: [build.slice(convolved(X), (0, 3, 0, 0), (N, 0, 9, 4))],  # nothing
    ],
)
def test_the_rest_stays(outputs):
    outputs = outputs()
    assert narrowed(outputs) == outputs


def test_the_pass_runs():
    assert products(simplify([every(dense(X), 2)])) == [(4, 5, 6)]


def residual(x, filters, stride, trainable):
    def conv(x, filters, kernel, stride=1):
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same")(x)
        return layers.BatchNormalization(trainable=trainable)(x)

    kept = conv(x, filters, 1, stride) if stride > 1 else x
    y = layers.ReLU()(conv(x, filters // 2, 1, stride))
    y = layers.ReLU()(conv(y, filters // 2, 3))
    return layers.ReLU()(layers.Add()([kept, conv(y, filters, 1)]))


def test_a_residual_network():
    """The block before the one that moves by two computes a quarter, unless somebody wants to see all of it."""
    inputs = layers.Input((8, 8, 16))
    first = residual(inputs, 16, 1, False)
    outputs = layers.GlobalAveragePooling2D()(residual(first, 32, 2, False))
    model, seen = gnomon.Model(inputs, outputs), gnomon.Model(inputs, [outputs, first])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.0, w.shape).astype("float32") / w.size**0.3 for w in model.get_weights()])
    x = rng.standard_normal((3, 8, 8, 16)).astype("float32")
    got, (want, _) = model.predict(x, verbose=0), seen.predict(x, verbose=0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    whole = [[s[0] for s in products(function_of(m, "predict").stages.simplified)].count(8) for m in (model, seen)]
    assert whole == [1, 3]


def test_gradients_of_what_is_narrowed():
    x = gnomon.Input((8, 9, 4))
    w = gnomon.Variable(np.random.default_rng(0).standard_normal((1, 1, 4, 6)).astype("float32"))
    y = gnomon.ops.conv(gnomon.ops.tanh(x), w, strides=1)
    loss = gnomon.ops.sum(gnomon.ops.square(y[:, ::2, ::3]))
    grad = gnomon.function([x], gnomon.grad(loss, w))
    a = np.random.default_rng(1).standard_normal((2, 8, 9, 4)).astype("float32")
    rows = np.tanh(a[:, ::2, ::3].astype("float64"))
    want = 2 * np.einsum("nhwc,nhwf->cf", rows, rows @ w.numpy()[0, 0].astype("float64"))
    np.testing.assert_allclose(grad(a)[0, 0], want, rtol=1e-4, atol=1e-4)
