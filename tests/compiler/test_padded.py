"""What a convolution has padded is read there by others: the same numbers, and one copy of each activation."""

import numpy as np
import pytest

from gnomon.compiler.graph import TensorType, users, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.remat import After
from gnomon.compiler.ops.shape import Pad, Slice
from gnomon.compiler.passes import simplify
from gnomon.compiler.passes.padded import read_padded
from gnomon.compiler.sizes import symbol
from gnomon.functions import function
from gnomon.tensor import Tensor

N = symbol("batch")
X = fresh_input("x", TensorType("float32", (N, 6, 6, 4)))
W = fresh_input("w", TensorType("float32", (3, 3, 4, 4)))


def padded(x):
    return build.pad(x, (0, 1, 1, 0), (0, 1, 1, 0))


def convolved(p, w=W):
    return build.contract(build.patches(p, 1, (3, 3), (1, 1)), w, (0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))


def activation():
    return build.relu(convolved(padded(X)))


def checked(outputs):
    """What the pass makes of `outputs`, after it is seen to compute the same."""
    made = read_padded(outputs)
    rng = np.random.default_rng(0)
    for rows in (1, 3):
        values = {X: rng.standard_normal((rows, 6, 6, 4)).astype("float32"),
                  W: rng.standard_normal((3, 3, 4, 4)).astype("float32")}  # fmt: skip
        for a, b in zip(*(evaluate_graph(roots, values, {"batch": rows}) for roots in (outputs, made)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    return made


def test_elements_are_read_where_they_were_padded():
    a = activation()
    made = checked([convolved(padded(a)), build.multiply(a, 2.0), build.reduce("sum", a, (1, 2))])
    readers = users(walk(made))
    assert [type(n.op) for n in readers[a]] == [Pad]
    assert sum(isinstance(n.op, Slice) for n in walk(made)) == 1
    assert read_padded(made) == made


def test_values_that_are_asked_for_keep_their_memory():
    a = activation()
    outputs = [convolved(padded(a)), a, build.exp(a)]
    assert checked(outputs) == outputs


ONE = build.slice(W, (0, 0, 0, 0), (1, 1, 4, 4))


@pytest.mark.parametrize(
    "other",
    [
        lambda a: build.contract(a, ONE, (0, 1, 2, 3), (4, 5, 3, 6), (0, 1, 2, 6)),
        lambda a: convolved(a),
        lambda a: build.matmul(build.reshape(a, (N, 36, 4)), build.reshape(ONE, (4, 4))),
    ],
)
def test_products_keep_their_rows(other):
    a = activation()
    outputs = [convolved(padded(a)), other(a)]
    assert checked(outputs) == outputs


def test_without_other_readers_nothing_changes():
    outputs = [convolved(padded(activation()))]
    assert checked(outputs) == outputs
    outputs = [build.exp(padded(activation())), build.sin(activation())]  # no product
    assert checked(outputs) == outputs
    outputs = [convolved(padded(X)), build.exp(X)]  # there anyway
    assert checked(outputs) == outputs


def test_another_padding_of_the_same():
    a = activation()
    wide = build.pad(a, (0, 2, 2, 0), (0, 2, 2, 0))
    made = checked([convolved(padded(a)), convolved(wide), build.exp(a)])
    assert len(users(walk(made))[a]) == 1


def test_what_is_computed_again_is_not_padded_again():
    a = activation()
    later = After()(a, build.reduce("sum", a, (1, 2)))
    made = checked([convolved(padded(a)), convolved(padded(later), build.multiply(W, 2.0)), build.exp(later)])
    pads = [n for n in walk(made) if isinstance(n.op, Pad) and n.inputs[0] is not X]
    assert len(pads) == 1


def test_a_convolutional_training_step_keeps_activations_once():
    from gnomon.compiler.grad import grad

    weights = [fresh_input(f"w{k}", TensorType("float32", (3, 3, 4, 4))) for k in range(6)]
    y = X
    for w in weights:
        y = build.relu(convolved(padded(y), w))
    found = grad(build.reduce("sum", build.multiply(y, y), (0, 1, 2, 3)), weights)
    roots = simplify(found)
    activations = [n for n in walk(roots) if getattr(n.op, "name", "") == "relu"]
    readers = users(walk(roots))
    assert len(activations) == 6
    for a in activations[:-1]:
        assert [type(n.op) for n in set(readers[a])] == [Pad]
    fn = function([Tensor(X), *map(Tensor, weights)], [Tensor(g) for g in found])
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((5, 6, 6, 4)), *(0.4 * rng.standard_normal((3, 3, 4, 4)) for _ in weights)]
    arrays = [x.astype("float32") for x in arrays]
    for a, b in zip(fn(*arrays), fn.interpret(*arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())
