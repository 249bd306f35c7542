"""What must hold of every layer: `check_layer`."""

import json
from typing import Any

import numpy as np

import gnomon
from gnomon import layers
from gnomon.calculus import grad
from gnomon.eager import evaluate_all
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree
from gnomon.variable import collecting_updates


def check_layer(cls: type, *shapes: tuple, training: bool | None = None, exact: bool = True, **arguments: Any) -> Any:
    """Check a layer made with `arguments`, called on inputs of `shapes` (without batch; several are given as a list).

    Building, batches of several sizes (1 among them), one program for all of them, both float types, gradients of
    weights and inputs by finite differences, configurations. `exact`: calls repeat (no random numbers in them).
    Returns the layer.
    """
    layer = cls(**arguments)
    symbolic = [layers.Input(shape) for shape in shapes]
    options = {} if training is None else {"training": training}
    output = layer(_structure(symbolic), **options)
    assert layer.built
    assert _shapes(output) == layer.compute_output_shape(_structure([t.shape for t in symbolic]))
    if exact:
        compiled = gnomon.function(symbolic, tree.flatten(output))
        for batch in (1, 3, 7):
            x = _data(shapes, batch)
            at_once = tree.flatten(layer(_structure(x), **options))
            for a, b, t in zip(at_once, compiled(*x), tree.flatten(output), strict=True):
                assert a.dtype == b.dtype == t.dtype
                assert a.shape == tuple(n if d is not None else batch for n, d in zip(a.shape, t.shape, strict=True))
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
        _check_gradients(cls(**{**arguments, "dtype": "float64"}), shapes, options)
    _check_config(layer, shapes, options, exact)
    return layer


def _structure(parts: list) -> Any:
    return parts[0] if len(parts) == 1 else list(parts)


def _shapes(structure: Any) -> Any:
    return tree.map_structure(lambda t: t.shape, structure)


def _data(shapes: tuple, batch: int, dtype: str = "float32") -> list[np.ndarray]:
    return [np.random.default_rng(k).standard_normal((batch, *shape)).astype(dtype) for k, shape in enumerate(shapes)]


def _check_gradients(layer: Any, shapes: tuple, options: dict) -> None:
    """In float64, at points where random inputs meet no kink."""
    x = _data(shapes, 3, "float64")
    inputs = [layers.Input(shape, dtype="float64") for shape in shapes]
    with collecting_updates():
        outputs = tree.flatten(layer(_structure(inputs), **options))
    assert all(t.dtype == "float64" for t in outputs)
    weights = np.random.default_rng(9)
    cost = sum((t * weights.standard_normal(evaluate(t, inputs, x).shape)).sum() for t in outputs)
    cost = cost + sum(layer.losses)
    wrt = [*layer.trainable_weights, *inputs]
    gradients = grad(cost, wrt, disconnected_inputs="zero")
    for target, gradient in zip(wrt, gradients, strict=True):
        found = evaluate(gradient, inputs, x)
        for _ in range(3):
            place = tuple(weights.integers(0, n) for n in found.shape)
            numeric = _slope(cost, target, place, inputs, x)
            np.testing.assert_allclose(found[place], numeric, rtol=1e-5, atol=1e-7)


def evaluate(t: Any, inputs: list[Tensor], x: list[np.ndarray]) -> np.ndarray:
    return evaluate_all([node_of(t)], dict(zip((i.node for i in inputs), x, strict=True)))[0]


def _slope(
    cost: Tensor, target: Tensor, place: tuple, inputs: list[Tensor], x: list[np.ndarray], h: float = 1e-6
) -> float:
    values = []
    for sign in (1, -1):
        moved = [a.copy() for a in x]
        if isinstance(target, gnomon.Variable):
            old = target.numpy()
            new = old.copy()
            new[place] += sign * h
            target.assign(new)
            values.append(evaluate(cost, inputs, moved))
            target.assign(old)
        else:
            moved[next(k for k, t in enumerate(inputs) if t is target)][place] += sign * h
            values.append(evaluate(cost, inputs, moved))
    return float(values[0] - values[1]) / (2 * h)


def _check_config(layer: Any, shapes: tuple, options: dict, exact: bool) -> None:
    config = json.loads(json.dumps(layer.get_config()))
    assert config["name"] == layer.name
    again = type(layer).from_config(config)
    assert type(again) is type(layer)
    assert json.loads(json.dumps(again.get_config())) == config
    again.build_from_config(json.loads(json.dumps(layer.get_build_config() or {})))
    x = _structure(_data(shapes, 2))
    again(x, **options)
    again.set_weights(layer.get_weights())
    if exact:
        for a, b in zip(tree.flatten(layer(x, **options)), tree.flatten(again(x, **options)), strict=True):
            np.testing.assert_array_equal(a, b)
