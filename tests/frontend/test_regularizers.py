"""Regularizers and constraints give Keras's values, gradients and configurations."""

import numpy as np
import pytest

from gnomon import Tensor, constraints, regularizers
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.grad import grad
from gnomon.compiler.interpret import evaluate_graph
from gnomon.tensor import new_input
from tests.recorded.load import load

RECORDED = load("regularizers")


@pytest.mark.parametrize("kind, name", [(k, n) for k in ("regularizers", "constraints") for n in RECORDED[k]])
def test_values_and_configuration_are_keras(kind, name):
    case, module = RECORDED[kind][name], {"regularizers": regularizers, "constraints": constraints}[kind]
    made = getattr(module, case["class"])(**case["arguments"])
    x = Tensor(new_input("x", "float32", case["x"].shape))
    y = made(x)
    (value,) = evaluate_graph([y.node], {x.node: case["x"]})
    np.testing.assert_allclose(value, case["value"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(made(case["x"]), case["value"], rtol=1e-5, atol=1e-7)
    if "gradient" in case and (case["gradient"] != 0).any():
        (gradient,) = evaluate_graph(grad(y.node, [x.node]), {x.node: case["x"]})
        smooth = case["x"] != 0  # at 0 the slope of |x| is 0 here, 1 in Keras on JAX
        np.testing.assert_allclose(gradient[smooth], case["gradient"][smooth], rtol=1e-5, atol=1e-6)
    assert made.get_config() == case["get_config"]
    assert module.serialize(made) == case["serialize"]
    assert module.deserialize(case["serialize"]).get_config() == case["get_config"]


def test_strings_are_keras():
    for name, wanted in RECORDED["strings"].items():
        module = regularizers if name in regularizers.registry.objects else constraints
        if "error" in wanted:
            with pytest.raises(ArgumentError, match="Unknown"):
                module.get(name)
        else:
            found = module.get(name)
            assert (type(found).__name__, found.get_config()) == (wanted["class"], wanted["config"])


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="L1: l1 is a finite number from 0 on, got -1.0"):
        regularizers.L1(-1.0)
    with pytest.raises(ArgumentError, match="Unknown regularizer 'l3'"):
        regularizers.get("l3")
    with pytest.raises(ArgumentError, match="Unknown constraint 'max'"):
        constraints.get("max")
    with pytest.raises(ShapeError, match="matrices"):
        regularizers.OrthogonalRegularizer()(np.ones(3, "float32"))
    with pytest.raises(ArgumentError, match="'rows' or 'columns'"):
        regularizers.OrthogonalRegularizer(mode="diagonal")
