# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Every activation function: value and gradient on a line of numbers, or on rows where an axis matters."""

from typing import Any

import jax
import numpy as np
from keras import activations

from .store import random_of

# the corners of every piecewise function are among them, and numbers large enough to overflow exp in float32
LINE = np.array(
    [-1e4, -100, -89, -50, -20, -10, -6, -4, -3.0001, -3, -2.5, -2, -1.5, -1.0001, -1, -0.9, -0.5, -0.4, -0.25, -0.1,
     -1e-3, -1e-6, -0.0, 0.0, 1e-6, 1e-3, 0.1, 0.25, 0.4, 0.5, 0.6, 0.9, 1, 1.0001, 1.5, 2, 2.5, 3, 3.0001, 4, 5.9, 6,
     6.1, 10, 20, 50, 88, 100, 1e4],
    "float32",
)  # fmt: skip
SPECIAL = np.array([np.nan, np.inf, -np.inf], "float32")
ROWS = (2 * random_of("activation rows").standard_normal((5, 6))).astype("float32")
ROWS[1], ROWS[2] = 0, [50, -50, 100, 0, 1, 99]
BLOCK = random_of("activation block").standard_normal((2, 4, 6)).astype("float32")
WITH_AXIS = {"softmax", "log_softmax", "sparsemax", "glu"}

ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "relu": [{"negative_slope": 0.1}, {"max_value": 2.0}, {"threshold": 1.0},
             {"negative_slope": 0.1, "max_value": 2.0, "threshold": 0.5}],
    "leaky_relu": [{"negative_slope": 0.01}],
    "elu": [{"alpha": 0.5}],
    "celu": [{"alpha": 0.5}, {"alpha": 2.0}],
    "gelu": [{"approximate": True}],
    "soft_shrink": [{"threshold": 1.0}],
    "hard_shrink": [{"threshold": 1.0}],
    "squareplus": [{"b": 1.0}],
    "threshold": [{"threshold": 1.0, "default_value": 0.25}],
}  # fmt: skip


def record() -> dict[str, Any]:
    names = sorted(set(dir(activations)) - {"get", "serialize", "deserialize"})
    names = [name for name in names if not name.startswith("_") and callable(getattr(activations, name))]
    cases: dict[str, Any] = {}
    for name in names:
        default: list[dict[str, Any]] = [] if name == "threshold" else [{}]
        for arguments in default + ARGUMENTS.get(name, []):
            label = name + "".join(f", {key}={value}" for key, value in arguments.items())
            if name not in WITH_AXIS:
                cases[label] = _case(name, arguments, LINE)
                cases[f"{label}, not finite"] = _case(name, arguments, SPECIAL)
            else:
                cases[label] = _case(name, arguments, ROWS)
                for axis in (0, 1, -1):
                    cases[f"{label}, axis={axis} of 3"] = _case(name, {**arguments, "axis": axis}, BLOCK)
    for axes in ((0, 1), (1, 2), (0, 2), (0, 1, 2)):
        label = "softmax, axes " + " ".join(map(str, axes)) + " of 3"
        cases[label] = _case("softmax", {"axis": axes}, BLOCK)
    return {"cases": cases, "serialized": {name: activations.serialize(getattr(activations, name)) for name in names}}


def _case(name: str, arguments: dict[str, Any], x: np.ndarray) -> dict[str, Any]:
    """The gradient is of the sum of the elements of `value` times `weight`."""
    value = np.asarray(getattr(activations, name)(x, **arguments))
    weight = np.ones_like(value)
    if name in WITH_AXIS:
        weight = random_of(f"activation weight {value.shape}").standard_normal(value.shape).astype("float32")
    gradient = jax.grad(lambda x: (getattr(activations, name)(x, **arguments) * weight).sum())(x)
    return {
        "function": name, "arguments": arguments, "x": x, "value": value, "weight": weight,
        "gradient": np.asarray(gradient),
    }  # fmt: skip
