"""gnomon: Keras 3's API on a whole-program compiler in the Theano tradition.

Names are loaded when they are first used, so that `import gnomon` costs little.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "activations applications callbacks compiler config constraints datasets dtype_policies initializers layers "
    "losses metrics mixed_precision models ops optimizers preprocessing random regularizers runtime saving utils"
).split()

_NAMES = {
    "Tensor": "tensor",
    "Variable": "variable",
    "shared": "variable",
    "function": "functions",
    "Input": "layers",
    "InputSpec": "layers",
    "Layer": "layers",
    "Model": "models",
    "Sequential": "models",
    "Function": "functions",
    "Loss": "losses",
    "Metric": "metrics",
    "Optimizer": "optimizers",
    "Initializer": "initializers",
    "Regularizer": "regularizers",
    "grad": "calculus",
    "jvp": "calculus",
    "vjp": "calculus",
    "Rop": "calculus",
    "Lop": "calculus",
    "jacobian": "calculus",
    "hessian": "calculus",
    "hessian_vector_product": "calculus",
    "value_and_grad": "calculus",
    "stop_gradient": "calculus",
    "zero_grad": "calculus",
    "disconnected_grad": "calculus",
    "vectorized_map": "calculus",
    "RandomStream": "random",
    "tensor_type": "theano",
    "cond": "control",
    "scan": "loops",
    "until": "loops",
    "map": "loops",
    "reduce": "loops",
    "foldl": "loops",
    "foldr": "loops",
    "ifelse": "control",
    "RematScope": "checkpointing",
    "remat": "checkpointing",
    "checkpoint": "checkpointing",
    "compile_events": "events",
    "device": "placement",
    "set_device": "placement",
    "current_device": "placement",
    "devices": "placement",
}
_KINDS = "scalar vector matrix row col tensor3 tensor4 tensor5".split()
_NAMES |= {letter + kind: "theano" for letter in ("", *"bwilfd") for kind in _KINDS}
_NAMES |= dict.fromkeys("scalars vectors matrices rows cols".split(), "theano")

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"gnomon.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"gnomon.{name}")
    else:
        raise AttributeError(f"module 'gnomon' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
