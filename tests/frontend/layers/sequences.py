"""Cases of the recorded topic `recurrent`: layers on sequences, with states and masks."""

from typing import Any

import numpy as np

import gnomon
from gnomon import layers
from gnomon.calculus import grad
from gnomon.eager import evaluate_all
from gnomon.tensor import node_of
from gnomon.utils import clear_session, tree

CLOSE = {"rtol": 5e-5, "atol": 5e-6}  # float32, some steps one after the other


def make(code: str) -> Any:
    """The layer that a case's code makes."""
    clear_session()
    return eval(code, {"layers": layers, "keras": gnomon})


def plain(value: Any) -> Any:
    """As JSON would give it back, without what gnomon does not have."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("quantization_config", "shared_object_id")}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _told(config: Any) -> Any:
    """A configuration without what Keras forgets to write of SimpleRNN."""
    simple = isinstance(config, dict) and "units" in config and "recurrent_activation" not in config
    left_out = {"seed", "activity_regularizer"} if simple else set()
    return {k: _told(v) for k, v in config.items() if k not in left_out} if isinstance(config, dict) else config


def check_case(case: dict[str, Any], compiled: bool = True) -> None:
    """The layer gives Keras's outputs, states, gradients, shapes, weight paths and configuration.

    compiled   not with NumPy alone, but with a compiled program too
    """
    layer = make(case["code"])
    x, state, mask = case["inputs"], case.get("state"), case.get("mask")
    stateful = getattr(layer, "stateful", False)
    shape = {"batch_shape": x.shape} if stateful else {"shape": x.shape[1:]}
    symbol = layers.Input(**shape, dtype=x.dtype.name)
    symbols = [symbol]
    given: dict[str, Any] = {}
    if state is not None:
        symbols += [layers.Input(a.shape[1:]) for a in state]
        given["initial_state"] = symbols[1:]
    arrays = [x, *(state or [])]
    options = {} if mask is None else {"mask": mask}
    output = layer(symbol, **given, **options)
    assert [list(t.shape) for t in tree.flatten(output)] == case["symbolic"]
    assert [w.path for w in layer.weights] == case["weight paths"]
    assert layer.count_params() == case["parameters"]
    own = layer.trainable_weights
    for variable, value in zip(own, case["weights"], strict=True):
        variable.assign(value)
    if "config" in case:
        assert _told(plain(layer.get_config())) == _told(plain(case["config"]))
    assert plain(layer.get_build_config()) == plain(case["build config"])
    computed = layer.compute_output_shape((None, *x.shape[1:]))
    assert plain(computed) == plain(case["computed shape"])
    outputs = tree.flatten(output)
    cost = sum((t * f).sum() for t, f in zip(outputs, case["factors"], strict=True))
    others = symbols if x.dtype.kind == "f" else symbols[1:]
    gradients = grad(cost, [*own, *others], disconnected_inputs="zero")
    values = dict(zip((t.node for t in symbols), arrays, strict=True))
    found = evaluate_all([node_of(t) for t in (*outputs, *gradients)], values)
    wanted = [*case["outputs"], *case["weight gradients"], *case["other gradients"]]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    if compiled:
        function = gnomon.function(symbols, [*outputs, *gradients])
        for a, b in zip(function(*arrays), wanted, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    if stateful:  # the same call again goes on from where the first ended
        named = {} if state is None else {"initial_state": state}
        for call in case["calls"]:
            for a, b in zip(tree.flatten(layer(x, **named, **options)), call, strict=True):
                np.testing.assert_allclose(a, b, **CLOSE)
