"""Activations give Keras's values and gradients."""

import numpy as np
import pytest

from gnomon import Tensor, activations, function
from gnomon.calculus import grad
from gnomon.compiler import grad as node_grad
from gnomon.compiler.errors import ArgumentError, DataError, ShapeError
from gnomon.compiler.interpret import evaluate_graph
from gnomon.tensor import as_dims, new_input
from tests.recorded.load import load

RECORDED = load("activations")
# Keras on JAX gives these the slope at one side of a corner, or computes the limit at infinity as NaN
CORNERS = {
    "hard_sigmoid": [-3, 3], "hard_silu": [-3, 3], "hard_swish": [-3, 3], "relu6": [0, 6],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered")
@pytest.mark.parametrize("name", [n for n in RECORDED["cases"] if not n.startswith("sparsemax")])
def test_value_and_gradient_are_keras(name):
    case = RECORDED["cases"][name]
    array = case["x"]
    x = Tensor(new_input("x", "float32", as_dims(("n", *array.shape[1:]), "x")))
    y = getattr(activations, case["function"])(x, **case["arguments"])
    sizes = {"n": len(array)}
    (value,) = evaluate_graph([y.node], {x.node: array}, sizes)
    np.testing.assert_allclose(value, case["value"], rtol=2e-5, atol=2e-6, err_msg=name)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(getattr(activations, case["function"])(array, **case["arguments"]), value)
    if "not finite" in name:
        return
    (g,) = node_grad.grad((y * case["weight"]).sum().node, [x.node])
    (gradient,) = evaluate_graph([g], {x.node: array}, sizes)
    corner = np.isin(array, CORNERS.get(case["function"], []))
    np.testing.assert_allclose(gradient[~corner], case["gradient"][~corner], rtol=5e-5, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("name", ["relu", "gelu", "softmax", "log_softmax", "selu", "sparsemax"])
def test_float64_and_compiled(name):
    rng = np.random.default_rng(1)
    array = rng.standard_normal((4, 5))
    activation = getattr(activations, name)
    x = Tensor(new_input("x", "float64", as_dims(("n", 5), "x")))
    y = activation(x)
    value, gradient = function([x], [y, grad((y * y).sum(), x)])(array)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, activation(array), rtol=1e-12, atol=1e-13)
    step = 1e-6
    for k in range(3):
        moved = np.array(array)
        moved[1, k] += step
        slope = ((activation(moved) ** 2).sum() - (activation(array) ** 2).sum()) / step
        np.testing.assert_allclose(gradient[1, k], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sparsemax_is_the_nearest_point_of_the_simplex(axis):
    """By the algorithm of the paper, which sorts. Keras 3.15 adds up the cumulative sums instead."""
    z = load("activations")["cases"]["sparsemax, axis=0 of 3"]["x"].astype("float64")
    rows = np.moveaxis(z, axis, -1)
    wanted = np.empty_like(rows)
    for index in np.ndindex(rows.shape[:-1]):
        ordered = np.sort(rows[index])[::-1]
        k = np.arange(1, len(ordered) + 1)
        size = k[1 + k * ordered > ordered.cumsum()].max()
        wanted[index] = np.maximum(rows[index] - (ordered[:size].sum() - 1) / size, 0)
    np.testing.assert_allclose(activations.sparsemax(z, axis), np.moveaxis(wanted, -1, axis), atol=1e-14)


def test_names_are_keras():
    for name, wanted in load("signatures")["string names"]["activations"].items():
        assert activations.get(name).__name__ == wanted
    for name, wanted in RECORDED["serialized"].items():
        assert activations.serialize(getattr(activations, name)) == wanted
        assert activations.deserialize(wanted) is getattr(activations, name)
    assert activations.get(None) is activations.linear


def test_lists_and_integers_are_taken():
    np.testing.assert_array_equal(activations.relu([-1.0, 2.0]), [0, 2])
    assert activations.relu(np.array([-1, 2])).dtype == np.int64
    assert activations.softmax(np.array([1, 2])).dtype == np.float32
    np.testing.assert_allclose(activations.softmax([1.0, 1.0]).numpy(), [0.5, 0.5])


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="Unknown activation 'rellu'. Did you mean 'relu'"):
        activations.get("rellu")
    with pytest.raises(ArgumentError, match="cannot take 5 as activation: give a name"):
        activations.get(5)
    with pytest.raises(DataError, match="numbers are needed"):
        activations.gelu("x")
    with pytest.raises(ShapeError, match="odd"):
        activations.glu(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError, match="axis 4"):
        activations.softmax(np.ones((2, 3), "float32"), axis=4)
