"""Computing in 16 bits against values recorded from Keras.

Both libraries add up in float32, but Keras stores each operation's result in 16 bits, where gnomon rounds what is
stored. So values are a few roundings apart: `UNITS` of the dtype, of the largest number that is summed up.
"""

import numpy as np
import pytest

import gnomon
from gnomon import config, layers, losses, ops
from gnomon.calculus import grad
from gnomon.compiler import dtypes
from gnomon.eager import evaluate_all
from gnomon.tensor import node_of
from gnomon.utils import clear_session
from gnomon.variable import collecting_updates
from tests.recorded.load import load
from tests.recorded.playback import play

RECORDED = load("mixed")
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
UNITS = 8


@pytest.fixture(autouse=True)
def _policy_of_the_session():
    yield
    config.set_dtype_policy(None)


def assert_near(found, wanted, half: str, size: float = 1) -> None:
    wanted = np.asarray(wanted, "float64")
    size = max(size, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(np.asarray(found, "float64"), wanted, rtol=0, atol=UNITS * UNIT[half] * size)


@pytest.mark.parametrize("name", list(RECORDED["cases"]))
def test_layers(name):
    case = RECORDED["cases"][name]
    clear_session()
    layer = getattr(layers, case["class"])(**case["arguments"])
    half = case["output dtype"]
    inputs = [layers.Input(x.shape[1:], dtype=x.dtype.name) for x in case["inputs"]]
    with collecting_updates() as updates:
        output = layer(*inputs, **case["options"])
    assert output.dtype == half
    assert {w.path: w.dtype for w in layer.weights} == case["weight dtypes"]
    for weight in layer.weights:
        weight.assign(case["weights"][weight.path])
    values = {t.node: x for t, x in zip(inputs, case["inputs"], strict=True)}
    cost = (ops.cast(output, "float32") * case["factors"]).sum()
    floats = [t for t in inputs if dtypes.is_float(t.dtype)]
    slopes = grad(cost, [*layer.trainable_weights, *floats])
    of_weights = [case["weight gradients"][w.path] for w in layer.trainable_weights]
    # some are 0 but for rounding, because what they sum up cancels; and these pass two chains of operations
    size = 2 * max([1, *(float(np.abs(g).max()) for g in (*of_weights, *case["input gradients"]))])
    for slope, wanted in zip(slopes, [*of_weights, *case["input gradients"]], strict=True):
        assert_near(evaluate_all([node_of(slope)], values)[0], wanted, half, size)
    for variable, node in updates.items():
        np.testing.assert_allclose(evaluate_all([node], values)[0], case["moved"][variable.path], rtol=1e-5, atol=1e-6)
    assert_near(layer(*case["inputs"], **case["options"]), case["output"], half)
    compiled = gnomon.function(inputs, [output, *slopes[: len(of_weights)]])
    for found, wanted in zip(compiled(*case["inputs"]), [case["output"], *of_weights], strict=True):
        assert_near(found, wanted, half, size)


@pytest.mark.parametrize("name", list(RECORDED["losses"]))
def test_losses_compute_in_float32(name):
    case = RECORDED["losses"][name]
    predicted = ops.cast(case["y_pred"], case["dtype"])
    value = getattr(losses, case["class"])()(case["y_true"], predicted)
    assert ops.dtype(value) == case["value dtype"] == "float32"
    np.testing.assert_allclose(value, case["value"], rtol=2e-5 if ops.dtype(predicted) == case["dtype"] else 1e-2)


def test_promotion():
    python = {"int": 1, "float": 1.5}
    for pair, wanted in RECORDED["promotion"].items():
        a, b = pair.split()
        x = gnomon.tensor_type(a, (2,))("x")
        y = python[b] if b in python else gnomon.tensor_type(b, (2,))("y")
        assert ops.add(x, y).dtype == wanted, pair


@pytest.mark.parametrize("name", list(RECORDED["fit"]))
def test_training(name):
    case = RECORDED["fit"][name]
    found, wanted = play(case, gnomon)["result"], case["result"]
    half = "bfloat16" if "bfloat16" in name else "float16"
    for key in ("optimizer", "state", "epoch"):
        assert found[key] == wanted[key]
    assert found["history"].keys() == wanted["history"].keys()
    for key, values in wanted["history"].items():
        np.testing.assert_allclose(found["history"][key], values, rtol=2 * UNITS * UNIT[half])
    np.testing.assert_allclose(found["evaluate"], wanted["evaluate"], rtol=2 * UNITS * UNIT[half])
    assert_near(found["predict"], wanted["predict"], half)
    for a, b in zip(found["weights"], wanted["weights"], strict=True):
        assert a.dtype == b.dtype == np.float32
        assert_near(a, b, half)
