# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""The public names of Keras with their signatures as text, class methods too, and the string names that get() knows."""

import inspect
from typing import Any

import keras

MODULES = (
    "layers losses optimizers optimizers.schedules metrics callbacks initializers activations regularizers constraints "
    "ops ops.image ops.linalg ops.nn ops.numpy random models saving utils backend config tree distribution datasets "
    "dtype_policies"
).split()
METHODS_OF = (
    keras.Model, keras.Sequential, keras.layers.Layer, keras.callbacks.Callback, keras.callbacks.CallbackList,
    keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer, keras.Variable, keras.KerasTensor,
    keras.initializers.Initializer, keras.optimizers.schedules.LearningRateSchedule, keras.random.SeedGenerator,
)  # fmt: skip


def record() -> dict[str, Any]:
    result: dict[str, Any] = {"keras": _names(keras)}
    for name in MODULES:
        module: Any = keras
        for part in name.split("."):
            module = getattr(module, part, None)
        if module is not None:
            result[f"keras.{name}"] = _names(module)
    for cls in METHODS_OF:
        result[f"methods of {cls.__name__}"] = {
            name: _kind(value)
            for name in dir(cls)
            if not name.startswith("_") and (value := inspect.getattr_static(cls, name)) is not None
        }
    result["string names"] = {
        "losses": _strings("losses"),
        "metrics": _strings("metrics"),
        "optimizers": _strings("optimizers"),
        "initializers": _strings("initializers"),
        "activations": _strings("activations"),
        "regularizers": _strings("regularizers"),
        "constraints": _strings("constraints"),
    }
    return result


def _names(module: Any) -> dict[str, str]:
    return {
        name: _kind(value)
        for name in dir(module)
        if not name.startswith("_") and not inspect.ismodule(value := getattr(module, name))
    }


def _kind(value: Any) -> str:
    if isinstance(value, property):
        return "property" + (" with setter" if value.fset else "")
    if isinstance(value, staticmethod | classmethod):
        return f"{type(value).__name__} {_kind(value.__func__)}"
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        return f"class {value.__name__}({bases}): {_signature(value)}"
    if callable(value):
        return _signature(value)
    return f"value {value!r}"


def _signature(value: Any) -> str:
    try:
        return str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"


def _strings(family: str) -> dict[str, str]:
    """Each string that `keras.<family>.get` accepts, and what it stands for."""
    import importlib

    module = importlib.import_module(f"keras.src.{family}")
    table = dict(getattr(module, "ALL_OBJECTS_DICT", {}))
    if not table:
        table = {item.__name__: item for item in getattr(module, "ALL_OBJECTS", ())}
    return {name: getattr(item, "__name__", repr(item)) for name, item in sorted(table.items())}
