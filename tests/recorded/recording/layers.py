# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""The core, activation, reshaping and merging layers: outputs, gradients, weights, shapes, configs."""

from typing import Any

import jax
import keras
import numpy as np
from keras import layers, ops

from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}


def record() -> dict[str, Any]:
    CASES.clear()
    _dense()
    _activations()
    _shaping()
    _merging()
    _dot()
    return {"cases": CASES, "masks": _masks(), "dropout": _dropout(), "shapes": _shapes(), "functional": _functional()}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def add(name: str, layer: str, inputs: Any, /, **arguments: Any) -> None:
    """Record a layer on an array or a list of arrays; each weight is normal, drawn by its name and shape."""
    keras.utils.clear_session()
    made = getattr(layers, layer)(**arguments)
    symbolic = made(_like(inputs))
    weights = {v.name: normal(f"weight {v.name} {tuple(v.shape)}", *v.shape) for v in made.weights}
    for variable in made.weights:
        variable.assign(weights[variable.name])
    output = np.asarray(made(inputs))
    weight = normal(f"layer weight {output.shape}", *output.shape)

    def total(trainable: list[Any], x: Any) -> Any:
        values, _ = made.stateless_call(trainable, [v.value for v in made.non_trainable_variables], x)
        return (values * weight).sum()

    values = [v.value for v in made.trainable_variables]
    of_weights, of_inputs = jax.grad(total, argnums=(0, 1))(values, inputs)
    assert name not in CASES, name
    CASES[name] = {
        "class": layer, "arguments": plain(arguments), "inputs": inputs, "weights": weights, "output": output,
        "weight": weight, "input gradients": jax.tree.map(np.asarray, of_inputs),
        "weight gradients": {v.name: np.asarray(g) for v, g in zip(made.trainable_variables, of_weights, strict=True)},
        "losses": [float(value) for value in made.losses],
        "symbolic output": list(symbolic.shape), "weight paths": [v.path for v in made.weights],
        "parameters": made.count_params(), "config": plain(made.get_config()),
        "build config": plain(made.get_build_config()),
    }  # fmt: skip


def _like(inputs: Any) -> Any:
    """Symbolic inputs with any batch size."""
    if isinstance(inputs, list):
        return [_like(x) for x in inputs]
    return keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)


def _dense() -> None:
    x = normal("dense x", 5, 4)
    add("Dense", "Dense", x, units=3)
    add("Dense, no bias", "Dense", x, units=3, use_bias=False)
    for activation in ("relu", "softmax", "tanh", "sigmoid", "gelu"):
        add(f"Dense, {activation}", "Dense", x, units=3, activation=activation)
    add("Dense on 3 axes", "Dense", normal("dense 3", 2, 5, 4), units=3, activation="relu")
    add("Dense on 4 axes", "Dense", normal("dense 4", 2, 3, 2, 4), units=3)
    add("Dense, one unit, one row", "Dense", x[:1], units=1)
    add("Dense, regularized", "Dense", x, units=3, kernel_regularizer="l2", bias_regularizer="l1")
    add("Dense, activity regularized", "Dense", x, units=3, activity_regularizer=keras.regularizers.L1L2(0.01, 0.02))
    add("Dense, everything", "Dense", x, units=3, activation="elu", kernel_initializer="he_normal",
        bias_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.1), kernel_constraint="max_norm",
        bias_constraint="non_neg", name="every", trainable=False)  # fmt: skip
    add("EinsumDense", "EinsumDense", normal("dense 3", 2, 5, 4), equation="abc,cd->abd", output_shape=(None, 3),
        bias_axes="d")  # fmt: skip


def _activations() -> None:
    x = 3 * normal("activation layers", 4, 6)
    for name in ("relu", "softmax", "tanh", "linear"):
        add(f"Activation, {name}", "Activation", x, activation=name)
    add("ReLU", "ReLU", x)
    add("ReLU, everything", "ReLU", x, max_value=2.0, negative_slope=0.1, threshold=0.5)
    add("LeakyReLU", "LeakyReLU", x)
    add("LeakyReLU, 0.1", "LeakyReLU", x, negative_slope=0.1)
    add("ELU", "ELU", x)
    add("ELU, 0.5", "ELU", x, alpha=0.5)
    add("PReLU", "PReLU", x)
    add("PReLU, shared", "PReLU", normal("prelu", 2, 3, 4), shared_axes=[1])
    add("Softmax", "Softmax", x)
    add("Softmax, axis 1", "Softmax", normal("softmax 3", 2, 3, 4), axis=1)
    add("Softmax, two axes", "Softmax", normal("softmax 3", 2, 3, 4), axis=(1, 2))
    add("Identity", "Identity", x)
    add("ActivityRegularization", "ActivityRegularization", x, l1=0.01, l2=0.02)
    add("UnitNormalization", "UnitNormalization", x)
    add("Rescaling", "Rescaling", x, scale=0.5, offset=1.0)


def _shaping() -> None:
    x = normal("shaping", 2, 3, 4, 5)
    add("Flatten", "Flatten", x)
    add("Flatten, channels_first", "Flatten", x, data_format="channels_first")
    add("Flatten of vectors", "Flatten", normal("shaping 2", 3, 4))
    add("Flatten of numbers", "Flatten", normal("shaping 1", 3))
    add("Reshape", "Reshape", x, target_shape=(12, 5))
    add("Reshape, -1", "Reshape", x, target_shape=(5, -1, 2))
    add("Reshape, only -1", "Reshape", x, target_shape=(-1,))
    add("Reshape to numbers", "Reshape", normal("shaping one", 3, 1), target_shape=())
    add("Permute", "Permute", x, dims=(3, 1, 2))
    add("RepeatVector", "RepeatVector", normal("shaping 2", 3, 4), n=3)
    add("Dropout, not training", "Dropout", x, rate=0.5)


def _merging() -> None:
    a, b, c = (normal(f"merge {name}", 3, 4) for name in "abc")
    for layer in ("Add", "Multiply", "Average", "Maximum", "Minimum"):
        add(f"{layer} of 2", layer, [a, b])
        add(f"{layer} of 3", layer, [a, b, c])
        add(f"{layer} of a tensor with itself", layer, [a, a])
        add(f"{layer}, broadcast in axis 1", layer, [normal("merge 3", 2, 3, 4), normal("merge 3 row", 2, 1, 4)])
        add(f"{layer}, both broadcast", layer, [normal("merge column", 2, 3, 1), normal("merge 3 row", 2, 1, 4)])
        add(f"{layer}, ranks 3 and 2", layer, [normal("merge 3", 2, 3, 4), normal("merge 2", 2, 4)])
        add(f"{layer}, ranks 2 and 4", layer, [normal("merge 2", 2, 4), normal("merge 4", 2, 3, 5, 4)])
    add("Subtract", "Subtract", [a, b])
    add("Subtract, broadcast", "Subtract", [normal("merge 3", 2, 3, 4), normal("merge 2", 2, 4)])
    add("Concatenate", "Concatenate", [a, normal("merge wide", 3, 2)])
    add("Concatenate of 3", "Concatenate", [a, b, c])
    add("Concatenate, axis 1", "Concatenate", [normal("merge 3", 2, 3, 4), normal("merge 3 more", 2, 2, 4)], axis=1)
    add("Concatenate, axis 0", "Concatenate", [a, b], axis=0)


def _dot() -> None:
    a, b = normal("dot a", 3, 4), normal("dot b", 3, 4)
    add("Dot, axes 1", "Dot", [a, b], axes=1)
    add("Dot, axes -1", "Dot", [a, b], axes=-1)
    add("Dot, normalized", "Dot", [a, b], axes=1, normalize=True)
    s, t = normal("dot s", 2, 3, 4), normal("dot t", 2, 5, 4)
    add("Dot, axes 2 of 3", "Dot", [s, t], axes=2)
    add("Dot, axes 2 of 3, normalized", "Dot", [s, t], axes=2, normalize=True)
    add("Dot, axes (1, 2)", "Dot", [s, normal("dot u", 2, 5, 3)], axes=(1, 2))
    add("Dot, axes (2, 1)", "Dot", [s, normal("dot v", 2, 4, 5)], axes=(2, 1))
    add("Dot, ranks 3 and 2", "Dot", [s, normal("dot w", 2, 4)], axes=(2, 1))
    add("Dot, ranks 2 and 3", "Dot", [normal("dot w", 2, 4), s], axes=(1, 2))
    add("Dot, ranks 4 and 3", "Dot", [normal("dot 4", 2, 3, 5, 4), t], axes=(3, 2))


def _masks() -> dict[str, Any]:
    """How masks pass through layers: `masks` in, `mask` out."""
    x = normal("mask x", 2, 3, 4)
    first, second = np.array([[1, 1, 0], [1, 0, 0]], bool), np.array([[0, 1, 0], [1, 1, 0]], bool)
    zeros = x.copy()
    zeros[0, 1] = zeros[1, 2] = 0
    made = layers.Masking()
    found = {"Masking": {"class": "Masking", "arguments": {}, "inputs": zeros, "output": made(zeros),
                         "mask": made.compute_mask(zeros)}}  # fmt: skip
    lists = ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Concatenate, axis 1")
    for name in lists:
        for label, masks in (("both", [first, second]), ("first", [first, None]), ("none", [None, None])):
            layer, arguments = name.split(",")[0], {"axis": 1} if "axis 1" in name else {}
            pair = [ops.convert_to_tensor(x), ops.convert_to_tensor(2 - x)]
            for tensor, mask in zip(pair, masks, strict=True):
                if mask is not None:
                    keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(mask))
            output = getattr(layers, layer)(**arguments)(pair)
            found[f"{name}, masks: {label}"] = {
                "class": layer, "arguments": arguments, "inputs": [x, 2 - x], "masks": masks,
                "output": np.asarray(output), "mask": _mask_of(output),
            }  # fmt: skip
    single: list[tuple[str, dict[str, Any]]] = [
        ("Dense", {"units": 2}), ("Activation", {"activation": "relu"}), ("Dropout", {"rate": 0.5}),
        ("Permute", {"dims": (2, 1)}), ("Identity", {}),
    ]  # fmt: skip
    for layer, arguments in single:
        tensor = ops.convert_to_tensor(x)
        keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(first))
        made = getattr(layers, layer)(**arguments)
        found[layer] = {"class": layer, "arguments": plain(arguments), "masks": first, "mask": _mask_of(made(tensor)),
                        "supports_masking": made.supports_masking}  # fmt: skip
    masked = layers.Softmax()(x, mask=np.broadcast_to(first[..., None], x.shape))
    found["Softmax, argument"] = {"class": "Softmax", "arguments": {}, "inputs": x,
                                  "argument": np.broadcast_to(first[..., None], x.shape), "output": masked}  # fmt: skip
    return found


def _mask_of(tensor: Any) -> np.ndarray | None:
    mask = keras.src.backend.get_keras_mask(tensor)
    return None if mask is None else np.asarray(mask)


def _dropout() -> dict[str, Any]:
    """What must hold of dropout while training (the bits themselves are each library's own)."""
    keras.utils.clear_session()
    x = np.ones((200, 300), "float32")
    found = {}
    for rate in (0.0, 0.2, 0.5, 0.9):
        y = np.asarray(layers.Dropout(rate, seed=1)(x, training=True))
        found[f"rate {rate}"] = {"rate": rate, "values": sorted({float(value) for value in np.unique(y)}),
                                 "kept": float((y != 0).mean())}  # fmt: skip
    y = np.asarray(layers.Dropout(0.5, noise_shape=(None, 1), seed=1)(x, training=True))
    found["noise_shape (None, 1)"] = {"rows equal": bool((y == y[:, :1]).all()), "kept": float((y != 0).mean())}
    made = layers.Dropout(0.5, seed=3, name="drop")
    made(x, training=True)
    found["variables"] = {"names": [v.path for v in made.variables], "dtypes": [v.dtype for v in made.variables],
                          "shapes": [list(v.shape) for v in made.variables], "weights": [v.path for v in made.weights]}
    found["configs"] = {
        "plain": plain(layers.Dropout(0.5, name="drop").get_config()),
        "everything": plain(layers.Dropout(0.25, noise_shape=(None, 1), seed=7, name="drop").get_config()),
    }
    return found


SHAPES: list[tuple[str, dict[str, Any], Any]] = [
    ("Dense", {"units": 3}, (None, 4)), ("Dense", {"units": 3}, (None, None, 4)), ("Flatten", {}, (None, 2, 3)),
    ("Flatten", {}, (None, None, 3)), ("Flatten", {}, (None,)), ("Reshape", {"target_shape": (6,)}, (None, 2, 3)),
    ("Reshape", {"target_shape": (-1, 2)}, (None, 2, 3)), ("Reshape", {"target_shape": (-1, 2)}, (None, None, 4)),
    ("Reshape", {"target_shape": (-1,)}, (None, None)), ("Permute", {"dims": (2, 1)}, (None, None, 4)),
    ("RepeatVector", {"n": 3}, (None, 4)), ("Activation", {"activation": "relu"}, (None, None)),
    ("Add", {}, [(None, 4), (None, 4)]), ("Add", {}, [(None, None, 4), (None, 1, 4)]),
    ("Add", {}, [(None, 3, 4), (None, 4)]), ("Add", {}, [(None, None), (None, 4)]), ("Add", {}, [(2, 4), (None, 4)]),
    ("Concatenate", {}, [(None, 4), (None, 2)]), ("Concatenate", {"axis": 1}, [(None, None, 4), (None, 2, 4)]),
    ("Concatenate", {}, [(None, 4), (None, None)]), ("Dot", {"axes": 1}, [(None, 4), (None, 4)]),
    ("Dot", {"axes": (2, 1)}, [(None, None, 4), (None, 4, 5)]), ("Dropout", {"rate": 0.5}, (None, 4)),
]  # fmt: skip


def _shapes() -> list[dict[str, Any]]:
    """Output shapes of symbolic inputs, by calling and by `compute_output_shape`."""
    found = []
    for layer, arguments, shape in SHAPES:
        several = isinstance(shape, list)
        inputs = [keras.Input(batch_shape=s) for s in shape] if several else keras.Input(batch_shape=shape)
        computed = getattr(layers, layer)(**arguments).compute_output_shape(shape)
        called = getattr(layers, layer)(**arguments)(inputs).shape
        found.append({"class": layer, "arguments": plain(arguments), "input": plain(shape), "called": plain(called),
                      "compute_output_shape": plain(computed)})  # fmt: skip
    return found


def _functional() -> dict[str, Any]:
    """The lower-case functions `layers.add`... that merge at once."""
    a, b = normal("merge a", 3, 4), normal("merge b", 3, 4)
    names = ("add", "subtract", "multiply", "average", "maximum", "minimum", "concatenate")
    found: dict[str, Any] = {name: {"inputs": [a, b], "output": getattr(layers, name)([a, b])} for name in names}
    found["dot"] = {"inputs": [a, b], "arguments": {"axes": -1}, "output": layers.dot([a, b], axes=-1)}
    return found
