# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Convolution and pooling layers: outputs, gradients, weights, shapes, configs, masks, errors; a convnet's file."""

from itertools import product
from pathlib import Path
from textwrap import dedent
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from . import layers as recording
from .layers import add, normal
from .snippets import error
from .store import plain, random_of

FIRST = {"data_format": "channels_first"}
FOLDER = Path(__file__).parent.parent / "saving"


def record() -> dict[str, Any]:
    recording.CASES.clear()
    _convolution()
    _transposed()
    _depthwise()
    _pooling()
    _all_places()
    _adaptive()
    return {"cases": dict(recording.CASES), "masks": _masks(), "shapes": _shapes(),
            "errors": {name: error(name, code) for name, code in ERRORS.items()}, "network": _network()}  # fmt: skip


def _convolution() -> None:
    x = normal("conv 1", 2, 7, 2)
    add("Conv1D", "Conv1D", x, filters=3, kernel_size=3)
    for padding, stride, dilation in product(("valid", "same", "causal"), (1, 2), (1, 2)):
        if (stride, dilation) != (2, 2):
            add(f"Conv1D, {padding}, stride {stride}, dilation {dilation}", "Conv1D", x, filters=2, kernel_size=2,
                padding=padding, strides=stride, dilation_rate=dilation)  # fmt: skip
    add("Conv1D, one row", "Conv1D", x[:1], filters=3, kernel_size=1, use_bias=False)
    add("Conv1D, channels_first, causal", "Conv1D", normal("conv 1 first", 2, 3, 6), filters=2, kernel_size=3,
        padding="causal", **FIRST)  # fmt: skip
    add("Conv1D, groups", "Conv1D", normal("conv 1 wide", 2, 5, 6), filters=3, kernel_size=2, groups=3)
    x = normal("conv 2", 2, 5, 6, 2)
    add("Conv2D", "Conv2D", x, filters=3, kernel_size=3, activation="relu")
    for padding, strides in product(("valid", "same"), ((1, 1), (2, 1), (2, 3))):
        add(f"Conv2D, {padding}, strides {strides}", "Conv2D", x, filters=2, kernel_size=(3, 2), padding=padding,
            strides=strides)  # fmt: skip
    for padding in ("valid", "same"):
        add(f"Conv2D, {padding}, dilated", "Conv2D", x, filters=2, kernel_size=2, padding=padding,
            dilation_rate=(2, 3))  # fmt: skip
    add("Conv2D, strides beyond the windows", "Conv2D", normal("conv 2 long", 1, 8, 7, 1), filters=2, kernel_size=2,
        strides=3, padding="same")  # fmt: skip
    first = normal("conv 2 first", 2, 4, 5, 4)
    add("Conv2D, channels_first", "Conv2D", first, filters=2, kernel_size=2, activation="tanh", **FIRST)
    add("Conv2D, channels_first, same, groups", "Conv2D", first, filters=4, kernel_size=3, padding="same", strides=2,
        groups=2, **FIRST)  # fmt: skip
    add("Conv2D, groups", "Conv2D", normal("conv 2 wide", 2, 4, 3, 4), filters=6, kernel_size=2, groups=2)
    add("Conv2D, everything", "Conv2D", x, filters=3, kernel_size=[2, 2], strides=1, padding="SAME", dilation_rate=2,
        activation="elu", kernel_initializer="he_normal", bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer="l1", activity_regularizer="l2",
        kernel_constraint="max_norm", bias_constraint="non_neg", name="every", trainable=False)  # fmt: skip
    x = normal("conv 3", 1, 4, 3, 5, 2)
    add("Conv3D", "Conv3D", x, filters=2, kernel_size=2)
    add("Conv3D, same, strides", "Conv3D", x, filters=2, kernel_size=(2, 3, 1), strides=(2, 1, 2), padding="same")
    add("Conv3D, dilated, channels_first", "Conv3D", normal("conv 3 first", 1, 2, 4, 3, 3), filters=2,
        kernel_size=(2, 1, 2), dilation_rate=(2, 1, 1), groups=2, **FIRST)  # fmt: skip


def _transposed() -> None:
    x = normal("transposed 1", 2, 4, 2)
    for padding, stride, size in product(("valid", "same"), (1, 2, 3), (1, 2, 3)):
        add(f"Conv1DTranspose, {padding}, stride {stride}, size {size}", "Conv1DTranspose", x, filters=2,
            kernel_size=size, padding=padding, strides=stride)  # fmt: skip
    for padding, extra in product(("valid", "same"), (0, 1)):
        add(f"Conv1DTranspose, {padding}, output_padding {extra}", "Conv1DTranspose", x, filters=2, kernel_size=3,
            padding=padding, strides=2, output_padding=extra)  # fmt: skip
        add(f"Conv1DTranspose, {padding}, even size, output_padding {extra}", "Conv1DTranspose", x, filters=2,
            kernel_size=4, padding=padding, strides=3, output_padding=extra)  # fmt: skip
        add(f"Conv1DTranspose, {padding}, dilated {extra}", "Conv1DTranspose", x, filters=2, kernel_size=2,
            padding=padding, dilation_rate=2 + extra)  # fmt: skip
    x = normal("transposed 2", 2, 3, 4, 2)
    add("Conv2DTranspose", "Conv2DTranspose", x, filters=3, kernel_size=3, activation="relu")
    add("Conv2DTranspose, same", "Conv2DTranspose", x, filters=2, kernel_size=(3, 2), strides=(2, 1), padding="same")
    add("Conv2DTranspose, output_padding", "Conv2DTranspose", x, filters=2, kernel_size=3, strides=(2, 3),
        padding="same", output_padding=(1, 2))  # fmt: skip
    add("Conv2DTranspose, channels_first", "Conv2DTranspose", normal("transposed 2 first", 1, 2, 3, 3), filters=2,
        kernel_size=2, strides=2, use_bias=False, **FIRST)  # fmt: skip
    add("Conv2DTranspose, everything", "Conv2DTranspose", x, filters=2, kernel_size=[2, 2], strides=[2, 2],
        padding="Same", output_padding=1, activation="tanh", kernel_initializer="he_normal", bias_initializer="ones",
        kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2", kernel_constraint="unit_norm",
        bias_constraint="non_neg", name="every")  # fmt: skip
    x = normal("transposed 3", 1, 2, 3, 2, 2)
    add("Conv3DTranspose", "Conv3DTranspose", x, filters=2, kernel_size=2, strides=(1, 2, 1))
    add("Conv3DTranspose, same", "Conv3DTranspose", x, filters=1, kernel_size=(3, 2, 1), strides=2, padding="same",
        output_padding=1)  # fmt: skip


def _depthwise() -> None:
    x = normal("depthwise 1", 2, 7, 3)
    add("DepthwiseConv1D", "DepthwiseConv1D", x, kernel_size=3)
    add("DepthwiseConv1D, same", "DepthwiseConv1D", x, kernel_size=2, padding="same", strides=2, depth_multiplier=2)
    add("DepthwiseConv1D, channels_first", "DepthwiseConv1D", normal("depthwise 1 first", 2, 2, 6), kernel_size=2,
        depth_multiplier=3, dilation_rate=2, **FIRST)  # fmt: skip
    add("SeparableConv1D", "SeparableConv1D", x, filters=2, kernel_size=3, depth_multiplier=2)
    add("SeparableConv1D, same", "SeparableConv1D", x, filters=2, kernel_size=2, padding="same", strides=2)
    add("SeparableConv1D, channels_first", "SeparableConv1D", normal("depthwise 1 first", 2, 2, 6), filters=3,
        kernel_size=2, dilation_rate=2, use_bias=False, **FIRST)  # fmt: skip
    x = normal("depthwise 2", 2, 4, 5, 2)
    add("DepthwiseConv2D", "DepthwiseConv2D", x, kernel_size=3, activation="relu")
    add("DepthwiseConv2D, same", "DepthwiseConv2D", x, kernel_size=(3, 2), strides=2, padding="same",
        depth_multiplier=2)  # fmt: skip
    add("DepthwiseConv2D, channels_first", "DepthwiseConv2D", normal("depthwise 2 first", 1, 3, 4, 4), kernel_size=2,
        dilation_rate=(2, 1), use_bias=False, **FIRST)  # fmt: skip
    add("DepthwiseConv2D, everything", "DepthwiseConv2D", x, kernel_size=[2, 2], strides=[1, 1], padding="same",
        depth_multiplier=2, dilation_rate=2, activation="tanh", depthwise_initializer="he_normal",
        bias_initializer="ones", depthwise_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2",
        depthwise_constraint="max_norm", bias_constraint="non_neg", name="every")  # fmt: skip
    add("SeparableConv2D", "SeparableConv2D", x, filters=3, kernel_size=(2, 3), depth_multiplier=2)
    add("SeparableConv2D, same", "SeparableConv2D", x, filters=2, kernel_size=3, strides=2, padding="same")
    add("SeparableConv2D, channels_first", "SeparableConv2D", normal("depthwise 2 first", 1, 3, 4, 4), filters=2,
        kernel_size=2, **FIRST)  # fmt: skip
    add("SeparableConv2D, everything", "SeparableConv2D", x, filters=3, kernel_size=[2, 2], padding="same",
        depth_multiplier=2, dilation_rate=2, activation="tanh", depthwise_initializer="he_normal",
        pointwise_initializer="he_uniform", bias_initializer="ones", depthwise_regularizer="l2",
        pointwise_regularizer="l1", bias_regularizer="l1", activity_regularizer="l2", depthwise_constraint="max_norm",
        pointwise_constraint="unit_norm", bias_constraint="non_neg", name="every")  # fmt: skip


def _pooling() -> None:
    x = {1: normal("pool 1", 2, 7, 2), 2: normal("pool 2", 2, 5, 6, 2), 3: normal("pool 3", 1, 4, 3, 5, 2)}
    for kind, rank in product(("Max", "Average"), (1, 2, 3)):
        name = f"{kind}Pooling{rank}D"
        add(name, name, x[rank], pool_size=2)
        add(f"{name}, same", name, x[rank], pool_size=3, strides=2, padding="same")
        add(f"{name}, strides 1", name, x[rank], pool_size=(2, 3, 2)[:rank], strides=1)
        add(f"{name}, same, strides beyond the windows", name, x[rank], pool_size=2, strides=3, padding="same")
        add(f"{name}, channels_first", name, np.moveaxis(x[rank], -1, 1).copy(), pool_size=2, strides=(1, 2, 1)[:rank],
            padding="same", **FIRST)  # fmt: skip
        if kind == "Max":
            add(f"{name}, as it comes", name, x[rank])
    ties = np.round(normal("pool ties", 2, 6, 5, 1)).astype("float32")
    add("MaxPooling2D, equal elements", "MaxPooling2D", ties, pool_size=2, strides=1)


def _all_places() -> None:
    x = {1: normal("pool 1", 2, 7, 2), 2: normal("pool 2", 2, 5, 6, 2), 3: normal("pool 3", 1, 4, 3, 5, 2)}
    for kind, rank in product(("Max", "Average"), (1, 2, 3)):
        name = f"Global{kind}Pooling{rank}D"
        add(name, name, x[rank])
        add(f"{name}, keepdims", name, x[rank], keepdims=True)
        add(f"{name}, channels_first", name, x[rank], **FIRST)
        add(f"{name}, channels_first, keepdims", name, x[rank], keepdims=True, **FIRST)


def _adaptive() -> None:
    x = {1: normal("pool 1", 2, 7, 2), 2: normal("pool 2", 2, 5, 6, 2), 3: normal("pool 3", 1, 4, 3, 5, 2)}
    for kind, rank in product(("Max", "Average"), (1, 2, 3)):
        name = f"Adaptive{kind}Pooling{rank}D"
        add(name, name, x[rank], output_size=2)
        add(f"{name}, other sizes", name, x[rank], output_size=(3, 4, 1)[:rank])
        add(f"{name}, channels_first", name, np.moveaxis(x[rank], -1, 1).copy(), output_size=(2, 3, 5)[:rank], **FIRST)


def _masks() -> dict[str, Any]:
    """The mean of the steps that a mask leaves."""
    x, mask = normal("pool mask", 2, 4, 3), np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    found = {}
    for name, arguments in (("plain", {}), ("keepdims", {"keepdims": True})):
        made = layers.GlobalAveragePooling1D(**arguments)
        found[name] = {"arguments": arguments, "inputs": x, "mask": mask, "output": np.asarray(made(x, mask=mask))}
    first = np.moveaxis(x, 1, 2).copy()
    made = layers.GlobalAveragePooling1D(**FIRST)
    found["channels_first"] = {"arguments": FIRST, "inputs": first, "mask": mask,
                               "output": np.asarray(made(first, mask=mask))}  # fmt: skip
    tensor = ops.convert_to_tensor(x)
    keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(mask))
    made = layers.GlobalAveragePooling1D()
    output = made(tensor)
    found["attached"] = {"arguments": {}, "inputs": x, "mask": mask, "output": np.asarray(output)}
    assert keras.src.backend.get_keras_mask(output) is None
    return found


SHAPES: list[tuple[str, dict[str, Any], Any]] = [
    ("Conv1D", {"filters": 3, "kernel_size": 2, "strides": 2}, (None, None, 2)),
    ("Conv1D", {"filters": 3, "kernel_size": 2, "padding": "causal"}, (None, 1, 2)),
    ("Conv2D", {"filters": 3, "kernel_size": 3}, (None, None, 7, 2)),
    ("Conv2D", {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2}, (4, 9, 8, 2)),
    ("Conv2D", {"filters": 3, "kernel_size": 3, **FIRST}, (None, 2, None, 5)),
    ("Conv3D", {"filters": 3, "kernel_size": 2, "dilation_rate": 2}, (None, 5, 6, None, 1)),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2}, (None, None, 7, 2)),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
     (None, 4, None, 2)),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, (None, None, 7, 2)),
    ("SeparableConv2D", {"filters": 5, "kernel_size": 3}, (None, None, 7, 2)),
    ("MaxPooling2D", {}, (None, None, 7, 2)), ("MaxPooling2D", {"padding": "same"}, (None, 5, 7, None)),
    ("AveragePooling1D", {"pool_size": 3, "strides": 1}, (None, None, None)),
    ("GlobalMaxPooling2D", {}, (None, None, None, 3)),
    ("GlobalAveragePooling2D", {"keepdims": True, **FIRST}, (None, 3, None, None)),
    ("AdaptiveAveragePooling2D", {"output_size": (2, 3)}, (None, None, 7, 3)),
    ("AdaptiveMaxPooling1D", {"output_size": 2, **FIRST}, (None, 3, None)),
]  # fmt: skip


def _shapes() -> list[dict[str, Any]]:
    """Output shapes of symbolic inputs, by calling and by `compute_output_shape`."""
    found = []
    for layer, arguments, shape in SHAPES:
        computed = getattr(layers, layer)(**arguments).compute_output_shape(shape)
        called = getattr(layers, layer)(**arguments)(keras.Input(batch_shape=shape)).shape
        found.append({"class": layer, "arguments": plain(arguments), "input": plain(shape), "called": plain(called),
                      "compute_output_shape": plain(computed)})  # fmt: skip
    return found


ERRORS = {
    "filters 0": "layers.Conv2D(0, 3)",
    "filters negative": "layers.Conv1D(-2, 3)",
    "filters of the transpose 0": "layers.Conv2DTranspose(0, 3)",
    "kernel_size 0": "layers.Conv2D(2, 0)",
    "kernel_size too long": "layers.Conv2D(2, (3, 3, 3))",
    "kernel_size missing": "layers.Conv2D(2)",
    "kernel_size text": 'layers.Conv2D(2, "33")',
    "strides 0": "layers.Conv2D(2, 3, strides=0)",
    "strides and dilation": "layers.Conv2D(2, 3, strides=2, dilation_rate=2)",
    "strides and dilation of the transpose": "layers.Conv1DTranspose(2, 3, strides=2, dilation_rate=2)",
    "padding unknown": 'layers.Conv2D(2, 3, padding="full")',
    "padding causal in two dimensions": 'layers.Conv2D(2, 3, padding="causal")',
    "padding causal of the depthwise": 'layers.DepthwiseConv1D(3, padding="causal")',
    "data_format unknown": 'layers.Conv2D(2, 3, data_format="last")',
    "groups 0": "layers.Conv2D(2, 3, groups=0)",
    "groups that do not divide filters": "layers.Conv2D(3, 3, groups=2)",
    "groups that do not divide channels": "layers.Conv2D(4, 3, groups=2)(keras.Input((8, 8, 3)))",
    "depth_multiplier 0": "layers.DepthwiseConv2D(3, depth_multiplier=0)",
    "output_padding as strides": "layers.Conv2DTranspose(2, 3, strides=2, output_padding=2)",
    "input of too few axes": "layers.Conv2D(2, 3)(keras.Input((8, 8)))",
    "input of too many axes": "layers.Conv2D(2, 3)(keras.Input((2, 8, 8, 3)))",
    "input smaller than the window": "layers.Conv2D(2, 3)(keras.Input((2, 8, 3)))",
    "array smaller than the window": """
layer = layers.Conv1D(2, 3)
layer.build((None, None, 1))
layer(np.ones((1, 2, 1), "float32"))
""",
    "other channels than at first": """
layer = layers.Conv2D(2, 3)
layer(keras.Input((8, 8, 3)))
layer(keras.Input((8, 8, 4)))
""",
    "channels unknown": "layers.Conv2D(2, 3)(keras.Input((8, 8, None)))",
    "flattened too early": """
keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Conv2D(2, 3)])
""",
    "pool_size 0": "layers.MaxPooling2D(0)",
    "pool_size missing": "layers.AveragePooling2D()",
    "pool_size too long": "layers.MaxPooling1D((2, 2))",
    "pooling padding unknown": 'layers.MaxPooling2D(2, padding="full")(keras.Input((8, 8, 3)))',
    "pooling of too few axes": "layers.MaxPooling2D()(keras.Input((8, 8)))",
    "pooling of too small an input": "layers.MaxPooling2D(3)(keras.Input((2, 8, 3)))",
    "global pooling of too few axes": "layers.GlobalAveragePooling2D()(keras.Input((8, 3)))",
    "output_size missing": "layers.AdaptiveAveragePooling2D()",
    "output_size text": 'layers.AdaptiveAveragePooling2D("2")',
    "output_size too long": "layers.AdaptiveMaxPooling1D((2, 3))",
}

NETWORK = """
model = keras.Sequential([
    keras.Input((6, 5, 2)), layers.Conv2D(3, 3, padding="same", activation="relu", name="first"),
    layers.MaxPooling2D(2), layers.DepthwiseConv2D(2, padding="same", depth_multiplier=2),
    layers.SeparableConv2D(4, 2, padding="same", activation="relu"), layers.Conv2DTranspose(2, 2, strides=2),
    layers.AveragePooling2D(3, strides=2, padding="same"), layers.GlobalAveragePooling2D(), layers.Dense(2),
], name="convnet")
model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
"""


def _network() -> dict[str, Any]:
    """A convnet that Keras trains and saves; whoever reads the file has to go on as it did."""
    random = random_of("convnet")
    x = random.normal(size=(12, 6, 5, 2)).astype("float32")
    y = random.normal(size=(12, 2)).astype("float32")
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    names: dict[str, Any] = {"keras": keras, "layers": layers, "np": np}
    exec(dedent(NETWORK), names)
    model = names["model"]
    initial = model.get_weights()
    first = model.fit(x, y, epochs=2, batch_size=5, shuffle=False, verbose=0).history
    model.save(FOLDER / "convnet.keras")
    found = {
        "code": dedent(NETWORK).strip(), "file": "convnet.keras", "inputs": x, "y": y, "initial weights": initial,
        "history": first, "weights": model.get_weights(),
        "optimizer": [np.asarray(v) for v in model.optimizer.variables],
        "predict": model.predict(x, verbose=0), "evaluate": model.evaluate(x, y, verbose=0, return_dict=True),
    }  # fmt: skip
    found["goes on"] = model.fit(x, y, epochs=2, batch_size=5, shuffle=False, verbose=0).history
    return found
