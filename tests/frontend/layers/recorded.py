"""A layer against what Keras recorded of it: `check_recorded`."""

from typing import Any

import numpy as np

from gnomon import layers
from gnomon.calculus import grad
from gnomon.utils import clear_session, tree
from tests.frontend.layers.check import evaluate

CLOSE = {"rtol": 2e-5, "atol": 2e-6}  # float32 sums of at most 20 terms


def plain(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "quantization_config"}  # gnomon does not quantize
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def made(case: dict[str, Any]) -> Any:
    """The layer, as the case's arguments make it (those recorded as objects are read from the configuration)."""
    clear_session()
    cls = getattr(layers, case["class"])
    arguments = {k: case["config"].get(k, v) if isinstance(v, (dict, str)) else v for k, v in case["arguments"].items()}
    return cls(**arguments)


def check_recorded(case: dict[str, Any], close: dict[str, float] = CLOSE) -> None:
    """Compare shapes, weights, output, losses, configurations and gradients with those of a case."""
    layer = made(case)
    given = case["inputs"]
    arrays = tree.flatten(given)
    inputs = [layers.Input(a.shape[1:], dtype=a.dtype.name) for a in arrays]
    output = layer(list(inputs) if isinstance(given, list) else inputs[0])
    check_shape(output.shape, case["symbolic output"])
    assert [w.path for w in layer.weights] == case["weight paths"]
    assert layer.count_params() == case["parameters"]
    layer.set_weights([case["weights"][w.name] for w in layer.weights])
    np.testing.assert_allclose(layer(given), case["output"], **close)
    np.testing.assert_allclose([float(loss) for loss in layer.losses], case["losses"], rtol=1e-5)
    assert plain(layer.get_config()) == plain(case["config"])
    assert plain(layer.get_build_config()) == plain(case["build config"])
    cost = (output * case["weight"]).sum()
    targets = [*layer.trainable_weights, *inputs]
    gradients = [evaluate(g, inputs, arrays) for g in grad(cost, targets, disconnected_inputs="zero")]
    wanted = [case["weight gradients"][w.name] for w in layer.trainable_weights]
    wanted += tree.flatten(case["input gradients"])
    for g, w in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(g, w, rtol=5e-5, atol=5e-6)


def check_shape(ours: Any, keras: Any) -> None:
    """A size that Keras leaves open may be known: an open size added to 4 elements must be 4 (1 is not guessed)."""
    assert len(ours) == len(keras)
    assert all(a == b or b is None for a, b in zip(ours, keras, strict=True)), (ours, keras)
