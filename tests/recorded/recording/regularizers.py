# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Every regularizer (value and gradient) and every constraint (the constrained value), with configs."""

from typing import Any

import jax
import numpy as np
from keras import constraints, regularizers

from .store import plain, random_of

X = random_of("regularizers").standard_normal((4, 3)).astype("float32")
X[1, 1] = 0
BLOCK = (2 * random_of("constraints").standard_normal((3, 3, 2, 4))).astype("float32")

REGULARIZERS: list[tuple[str, dict[str, Any]]] = [
    ("L1", {}), ("L1", {"l1": 0.3}), ("L2", {}), ("L2", {"l2": 0.3}), ("L1L2", {}), ("L1L2", {"l1": 0.1}),
    ("L1L2", {"l1": 0.1, "l2": 0.2}), ("OrthogonalRegularizer", {}),
    ("OrthogonalRegularizer", {"factor": 0.1, "mode": "columns"}),
]  # fmt: skip
CONSTRAINTS: list[tuple[str, dict[str, Any]]] = [
    ("MaxNorm", {}), ("MaxNorm", {"max_value": 0.5}), ("MaxNorm", {"max_value": 0.5, "axis": 1}), ("NonNeg", {}),
    ("UnitNorm", {}), ("UnitNorm", {"axis": 1}), ("MinMaxNorm", {}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 0.8, "rate": 0.5, "axis": 1}),
]  # fmt: skip


def record() -> dict[str, Any]:
    return {"regularizers": _regularizers(), "constraints": _constraints(), "strings": _strings()}


def _label(name: str, arguments: dict[str, Any]) -> str:
    return name + "".join(f", {key}={value}" for key, value in arguments.items())


def _regularizers() -> dict[str, Any]:
    found = {}
    for name, arguments in REGULARIZERS:
        made = getattr(regularizers, name)(**arguments)
        found[_label(name, arguments)] = {
            "class": name, "arguments": arguments, "x": X, "value": np.asarray(made(jax.numpy.asarray(X))),
            "gradient": np.asarray(jax.grad(made)(X)), "get_config": plain(made.get_config()),
            "serialize": plain(regularizers.serialize(made)),
        }  # fmt: skip
    return found


def _constraints() -> dict[str, Any]:
    found = {}
    cases = [(name, arguments, X) for name, arguments in CONSTRAINTS]
    cases += [(name, {"axis": [0, 1, 2]}, BLOCK) for name in ("MaxNorm", "UnitNorm", "MinMaxNorm")]
    cases += [(name, {}, np.zeros((2, 2), "float32")) for name in ("MaxNorm", "UnitNorm", "MinMaxNorm")]
    for name, arguments, x in cases:
        made = getattr(constraints, name)(**arguments)
        found[f"{_label(name, arguments)}, on {x.shape}"] = {
            "class": name, "arguments": arguments, "x": x, "value": np.asarray(made(x)),
            "get_config": plain(made.get_config()), "serialize": plain(constraints.serialize(made)),
        }  # fmt: skip
    return found


def _strings() -> dict[str, Any]:
    """What the names that users write stand for."""
    found: dict[str, Any] = {}
    for module, names in ((regularizers, ("l1", "l2", "l1_l2", "l1l2", "L1L2", "orthogonal_regularizer")),
                          (constraints, ("max_norm", "non_neg", "unit_norm", "min_max_norm", "MaxNorm", "nonneg"))):
        for name in names:
            try:
                made = module.get(name)
            except ValueError as error:
                found[name] = {"error": str(error)}
            else:
                found[name] = {"class": type(made).__name__, "config": plain(made.get_config())}
    return found
