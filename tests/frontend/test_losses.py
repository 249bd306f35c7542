"""Losses give Keras's numbers, gradients and configurations."""

import numpy as np
import pytest

from gnomon import Tensor, losses
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.grad import grad
from gnomon.compiler.interpret import evaluate_graph
from gnomon.tensor import as_dims, new_input
from tests.recorded.load import load

RECORDED = load("losses")
REDUCTIONS = ("none", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight")


def symbolic(array, name):
    """An input of the array's type, its first axis open."""
    shape = ("n", *array.shape[1:]) if array.ndim else ()
    return Tensor(new_input(name, array.dtype.name, as_dims(shape, name)))


def check(actual, wanted, case=""):
    """Tolerances: float32 sums of a few dozen terms; `large` cases have values near 1e2 and cancellation in both."""
    wanted = np.asarray(wanted)
    tolerance = 4e-3 if wanted.dtype == np.float16 else 2e-5
    scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)))
    assert actual.shape == wanted.shape, case
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=case)


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_value_and_gradient_are_keras(name):
    case = RECORDED["cases"][name]
    y_true, y_pred = symbolic(case["y_true"], "y_true"), symbolic(case["y_pred"], "y_pred")
    if case["mask"] is not None:
        y_pred.mask = Tensor(new_input("mask", "bool", as_dims(("n", *case["mask"].shape[1:]), "mask")))
    values = {y_true.node: case["y_true"], y_pred.node: case["y_pred"]}
    if case["mask"] is not None:
        values[y_pred.mask.node] = case["mask"]
    sizes = {"n": len(case["y_true"])}
    make = getattr(losses, case["class"])
    found = [make(reduction=r, **case["arguments"])(y_true, y_pred, case["sample_weight"]) for r in REDUCTIONS]
    for reduction, value in zip(REDUCTIONS, evaluate_graph([t.node for t in found], values, sizes), strict=True):
        check(value, case["values"][reduction], f"{name}, {reduction}")
    if "gradient" in case:
        (gradient,) = grad(found[2].node, [y_pred.node])
        (value,) = evaluate_graph([gradient], values, sizes)
        if name in ("CosineSimilarity, zero vector", "MeanAbsoluteError, equal"):
            # Keras on JAX: NaN for a zero vector, slope 1 of |x| at 0; here the gradients are finite, and 0 at 0
            assert np.isfinite(value).all()
        else:
            check(value, case["gradient"], name)


@pytest.mark.parametrize("name", RECORDED["functions"])
def test_functions_of_arrays_are_keras(name):
    case = RECORDED["functions"][name]
    check(getattr(losses, case["function"])(case["y_true"], case["y_pred"], **case["arguments"]), case["value"], name)


@pytest.mark.parametrize("name", RECORDED["configs"])
def test_configuration_is_keras(name):
    recorded = RECORDED["configs"][name]
    made = losses.get(name) if name == "mean_squared_error" else getattr(losses, name)()
    assert losses.serialize(made) == recorded["serialize"]
    again = losses.deserialize(recorded["serialize"])
    if "get_config" in recorded:
        assert made.get_config() == recorded["get_config"]
        assert type(again) is type(made)
    else:
        assert again is made


def test_string_names_are_keras():
    names = load("signatures")["string names"]["losses"]
    for name, wanted in names.items():
        found = losses.registry.find(name)
        assert found.__name__ == wanted


def test_arrays_are_computed_at_once_and_float64_stays():
    rng = np.random.default_rng(0)
    y, p = rng.random((5, 3)), rng.random((5, 3))
    value = losses.mean_squared_error(y, p)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, ((y - p) ** 2).mean(-1), rtol=1e-14)
    loss = losses.MeanSquaredError(dtype="float64")(y, p)
    np.testing.assert_allclose(loss, ((y - p) ** 2).mean(), rtol=1e-14)
    assert losses.mean_absolute_error([0.0, 1.0], [1.0, 1.0]).numpy() == 0.5


def test_custom_function_and_class():
    def twice(y_true, y_pred):
        return 2 * (y_pred - y_true).sum(-1)

    wrapped = losses.LossFunctionWrapper(twice, reduction="sum")
    assert wrapped(np.zeros((2, 3)), np.ones((2, 3))) == 12

    class Mine(losses.Loss):
        def call(self, y_true, y_pred):
            return abs(y_pred - y_true).mean(-1)

    assert Mine()(np.zeros((2, 3)), np.full((2, 3), 3.0), sample_weight=np.array([1.0, 0.0])) == 1.5
    assert Mine().name.startswith("mine")


def test_arguments_beyond_keras_configuration_survive():
    assert losses.deserialize(losses.serialize(losses.Huber(delta=0.3))).delta == 0.3


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="Unknown loss 'mze'.*'mse'"):
        losses.get("mze")
    with pytest.raises(ShapeError, match=r"y_true \w+\[4\] and y_pred float32\[4, 3\].*'sparse_categorical_c"):
        losses.categorical_crossentropy(np.arange(4), np.ones((4, 3), "float32"))
    with pytest.raises(ShapeError, match="categorical_crossentropy'"):
        losses.sparse_categorical_crossentropy(np.eye(3), np.ones((3, 3), "float32"))
    with pytest.raises(ArgumentError, match="Unknown reduction 'avg'"):
        losses.MeanSquaredError(reduction="avg")
    with pytest.raises(ShapeError, match=r"mean_squared_error': y_true .*\[4, 3\].* y_pred .*\[4, 2\].*has 3 and 2"):
        losses.MeanSquaredError()(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ShapeError, match="sample_weight"):
        losses.MeanSquaredError()(np.ones((4, 2)), np.ones((4, 2)), sample_weight=np.ones(3))
