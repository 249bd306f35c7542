# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Computing in 16 bits: layers of mixed policies with their gradients, losses, training, what dtypes promote to."""

from typing import Any

import jax
import keras
import numpy as np
from keras import layers

from .snippets import train
from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}
POLICIES = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def record() -> dict[str, Any]:
    CASES.clear()
    for policy in POLICIES:
        _layers(policy)
    return {"cases": CASES, "losses": _losses(), "promotion": _promotion(), "fit": _fit()}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def add(policy: str, layer: str, *inputs: np.ndarray, training: bool | None = None, **given: Any) -> None:
    """Record a layer called on arrays one by one, and gradients of a weighted sum of its float32 output."""
    keras.utils.clear_session()
    made = getattr(layers, layer)(**given, dtype=policy)
    made(*(keras.Input(x.shape[1:], dtype=x.dtype.name) for x in inputs))
    weights = {v.path: normal(f"mixed {v.name} {tuple(v.shape)}", *v.shape) / 2 for v in made.weights}
    for variable in made.weights:
        if "variance" in variable.name:
            weights[variable.path] = np.abs(weights[variable.path]) + np.float32(0.5)
        variable.assign(weights[variable.path])
    options = {} if training is None else {"training": training}
    floats = [k for k, x in enumerate(inputs) if x.dtype.kind == "f"]

    def run(trainable: list[Any], chosen: list[Any]) -> Any:
        given = list(inputs)
        for k, x in zip(floats, chosen, strict=True):
            given[k] = x
        mapping = list(zip(made.trainable_variables, trainable, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:  # `stateless_call` casts nothing
            output = made(*map(jax.numpy.asarray, given), **options)
        found = [scope.get_current_value(v) for v in made.non_trainable_variables]
        return output, [v.value if f is None else f for v, f in zip(made.non_trainable_variables, found, strict=True)]

    values, chosen = [v.value for v in made.trainable_variables], [inputs[k] for k in floats]
    output, moved = run(values, chosen)
    factors = normal(f"mixed factors {output.shape}", *output.shape)

    def total(trainable: list[Any], chosen: list[Any]) -> Any:
        return (run(trainable, chosen)[0].astype("float32") * factors).sum()

    of_weights, of_inputs = jax.grad(total, argnums=(0, 1))(values, chosen)
    wide = lambda x: np.asarray(x.astype("float32"))
    CASES[f"{layer}, {policy}"] = {
        "class": layer, "arguments": {**plain(given), "dtype": policy}, "inputs": list(inputs), "options": options,
        "weights": weights, "weight dtypes": {v.path: v.dtype for v in made.weights},
        "output": wide(output), "output dtype": output.dtype.name, "factors": factors,
        "weight gradients": {v.path: wide(g) for v, g in zip(made.trainable_variables, of_weights, strict=True)},
        "input gradients": [wide(g) for g in of_inputs],
        "moved": {v.path: wide(m) for v, m in zip(made.non_trainable_variables, moved, strict=True)},
    }  # fmt: skip


def _layers(policy: str) -> None:
    rows, image, words = normal("mixed rows", 5, 6), normal("mixed image", 2, 5, 5, 3), normal("mixed words", 2, 4, 6)
    add(policy, "Dense", rows, units=4, activation="tanh")
    add(policy, "Conv2D", image, filters=4, kernel_size=3, activation="relu")
    if policy.startswith("mixed"):  # JAX draws no orthogonal matrices of 16 bits
        add(policy, "LSTM", words, units=3, return_sequences=True)
        add(policy, "GRU", words, units=3)
    add(policy, "BatchNormalization", rows, training=True)
    add(policy, "LayerNormalization", 3 * rows + 1)
    add(policy, "MultiHeadAttention", words, normal("mixed keys", 2, 5, 6), num_heads=2, key_dim=3)
    add(policy, "Softmax", rows)
    add(policy, "GlobalAveragePooling2D", image)
    add(policy, "PReLU", rows)
    add(policy, "Embedding", np.array([[0, 3, 3], [1, 2, 0]], "int32"), input_dim=5, output_dim=4)


def _losses() -> dict[str, Any]:
    """What losses make of predictions of 16 bits: they compute in float32, whatever they are given."""
    y, p = normal("mixed loss y", 6, 3), normal("mixed loss p", 6, 3)
    likely, classes = 1 / (1 + np.exp(-p)), np.eye(3, dtype="float32")[[0, 1, 2, 1, 0, 2]]
    kinds = {
        "MeanSquaredError": (y, p), "Huber": (y, p), "CosineSimilarity": (y, p),
        "BinaryCrossentropy": ((y > 0).astype("float32"), likely),
        "CategoricalCrossentropy": (classes, _shares(p)), "KLDivergence": (classes, _shares(p)),
    }  # fmt: skip
    found = {}
    for dtype in ("float16", "bfloat16"):
        for name, (true, predicted) in kinds.items():
            value = getattr(keras.losses, name)()(true, keras.ops.cast(predicted, dtype))
            found[f"{name}, {dtype}"] = {
                "class": name, "dtype": dtype, "y_true": true, "y_pred": predicted.astype("float32"),
                "value": float(value), "value dtype": keras.backend.standardize_dtype(value.dtype),
            }  # fmt: skip
    return found


def _shares(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return (e / e.sum(1, keepdims=True)).astype("float32")


def _promotion() -> dict[str, str]:
    """Which dtype a float of 16 bits and another meet in, or one of Python's numbers. JAX has no float64 by default."""
    names = ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "bfloat16", "float16", "float32"]
    pairs = {}
    for half in ("float16", "bfloat16"):
        pairs |= {f"{half} {other}": keras.backend.result_type(half, other) for other in names}
        pairs |= {f"{half} {kind.__name__}": keras.backend.result_type(half, kind) for kind in (int, float)}
    return pairs


BUILD = """
    keras.config.set_dtype_policy("{0}")
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(8, activation="relu"), layers.LayerNormalization(), layers.Dense(1),
    ])
    keras.config.set_dtype_policy("float32")
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.5), loss="mse", metrics=["mae"])
"""
RUN = """
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, validation_data=(x[:9], y[:9]))
    result["evaluate"] = model.evaluate(x, y, batch_size=16, verbose=0)
    result["predict"] = np.asarray(model.predict(x[:7], verbose=0), "float32")
    result["optimizer"] = type(model.optimizer).__name__
    state = {v.name: float(np.asarray(v)) for v in model.optimizer.variables if not v.shape}
    result["state"] = {name: state[name] for name in ("dynamic_scale", "step_counter") if name in state}
"""


def _fit() -> dict[str, Any]:
    """In `overflow` gradients times the first scale are beyond float16: steps are left out until it is small enough."""
    x = normal("mixed fit x", 40, 6)
    y = x[:, :1] - 0.5 * x[:, 1:2] + 0.1 * normal("mixed fit y", 40, 1)
    return {
        "mixed_float16": train("mixed_float16", BUILD.format("mixed_float16"), RUN, x=x, y=y),
        "mixed_bfloat16": train("mixed_bfloat16", BUILD.format("mixed_bfloat16"), RUN, x=x, y=y),
        "overflow": train("overflow", BUILD.format("mixed_float16").replace("0.05", "1e-6"), RUN, x=x, y=300 * y),
    }
