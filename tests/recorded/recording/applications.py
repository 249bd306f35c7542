# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Published architectures: their layers, and what they compute with weights that anyone can make again."""

import inspect
import json
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import applications

from .store import plain, random_of

SMALL = {"weights": None, "include_top": False, "pooling": "avg"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet50": ("ResNet50", {"weights": None}),
    "ResNet50, features": ("ResNet50", {**SMALL, "input_shape": (33, 40, 3)}),
    "ResNet50, open": ("ResNet50", {"weights": None, "include_top": False}),
    "ResNet50, gray, 7 classes": ("ResNet50", {"weights": None, "input_shape": (32, 32, 1), "classes": 7,
                                               "classifier_activation": None, "name": "gray"}),
    "ResNet101, features": ("ResNet101", {**SMALL, "pooling": "max", "input_shape": (32, 32, 3)}),
    "ResNet152, features": ("ResNet152", {**SMALL, "input_shape": (32, 32, 3)}),
    "ResNet50V2": ("ResNet50V2", {"weights": None}),
    "ResNet50V2, features": ("ResNet50V2", {**SMALL, "input_shape": (45, 32, 3)}),
    "ResNet101V2, features": ("ResNet101V2", {**SMALL, "input_shape": (32, 32, 3)}),
    "VGG16, 32 pixels": ("VGG16", {"weights": None, "input_shape": (32, 32, 3), "classes": 5}),
    "VGG16, features": ("VGG16", {**SMALL, "input_shape": (35, 32, 3)}),
    "VGG19, features": ("VGG19", {**SMALL, "pooling": "max", "input_shape": (32, 32, 3)}),
    "MobileNet": ("MobileNet", {"weights": None}),
    "MobileNet, narrow": ("MobileNet", {**SMALL, "alpha": 0.25, "depth_multiplier": 2, "input_shape": (40, 33, 3)}),
    "MobileNet, 160 pixels": ("MobileNet", {"weights": None, "alpha": 0.5, "input_shape": (160, 160, 3),
                                            "classes": 3, "dropout": 0.2}),
    "MobileNetV2": ("MobileNetV2", {"weights": None}),
    "MobileNetV2, wide": ("MobileNetV2", {**SMALL, "alpha": 1.3, "input_shape": (35, 32, 3)}),
    "MobileNetV2, narrow": ("MobileNetV2", {**SMALL, "alpha": 0.35, "input_shape": (96, 96, 3)}),
    "DenseNet121": ("DenseNet121", {"weights": None}),
    "DenseNet121, features": ("DenseNet121", {**SMALL, "input_shape": (40, 33, 3)}),
    "DenseNet169, features": ("DenseNet169", {**SMALL, "pooling": "max", "input_shape": (32, 32, 3)}),
    "DenseNet201, features": ("DenseNet201", {**SMALL, "input_shape": (32, 32, 3)}),
    "Xception": ("Xception", {"weights": None}),
    "Xception, features": ("Xception", {**SMALL, "input_shape": (71, 80, 3)}),
}  # fmt: skip
LISTED = ["ResNet50", "ResNet50V2, features", "VGG16, 32 pixels", "MobileNet, 160 pixels", "MobileNetV2, narrow",
          "DenseNet121, features", "Xception, features"]  # fmt: skip
COMPUTED = ["ResNet50, features", "ResNet50V2, features", "VGG16, features", "MobileNet, narrow", "MobileNetV2, wide",
            "DenseNet121, features", "Xception, features"]  # fmt: skip


def record() -> dict[str, Any]:
    return {
        "models": {name: _model(name, *case) for name, case in MODELS.items()},
        "preprocessed": _preprocessed(),
        "decoded": _decoded(),
        "signatures": _signatures(),
        "older file": _older_file(),
    }


def _model(name: str, architecture: str, arguments: dict[str, Any]) -> dict[str, Any]:
    keras.utils.clear_session()
    model = getattr(applications, architecture)(**arguments)
    config = {layer["name"]: layer for layer in plain(model.get_config())["layers"]}
    layers = []
    for layer in model.layers:
        before = [tensor["config"]["keras_history"][0] for tensor in _tensors(config[layer.name]["inbound_nodes"])]
        layers.append([layer.name, type(layer).__name__, before, list(layer.output.shape)])
    found = {"class": architecture, "arguments": plain(arguments), "name": model.name, "count": len(layers),
             "check": zlib.crc32(json.dumps(layers).encode()), "parameters": model.count_params(),
             "output shape": list(model.output_shape)}  # fmt: skip
    if name in LISTED:
        found["layers"] = [[*known, _special(layer)] for known, layer in zip(layers, model.layers, strict=True)]
    if name in COMPUTED:
        for weight in model.weights:
            weight.assign(made_again(weight.path, weight.shape))
        found["images"] = random_of(f"images {name}").integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
        output = model(found["images"].astype("float32") / 127.5 - 1, training=False)
        found["output"] = np.asarray(output)[:, :64]
    return found


def made_again(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value for a weight that depends on its name and shape alone, and keeps signals of a deep network alive."""
    value = random_of(f"{path} {tuple(shape)}").uniform(-1, 1, shape).astype("float32")
    kind = path.rpartition("/")[2]
    if kind in ("gamma", "moving_variance"):
        return 1 + 0.2 * value
    if len(shape) == 1:
        return 0.1 * value
    by_channel = "depthwise" in path or "_dw" in path
    fan = int(np.prod(shape[:2] if by_channel else shape[:-1]))
    return (value * (6 / fan) ** 0.5).astype("float32")


def _tensors(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] if value.get("class_name") == "__keras_tensor__" else _tensors(list(value.values()))
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list) else []


REQUIRED: dict[str, dict[str, Any]] = {
    "Conv2D": {"filters": 1, "kernel_size": 1}, "DepthwiseConv2D": {"kernel_size": 1}, "Dense": {"units": 1},
    "SeparableConv2D": {"filters": 1, "kernel_size": 1}, "Reshape": {"target_shape": (1,)}, "Dropout": {"rate": 0.5},
    "Activation": {"activation": "linear"}, "InputLayer": {"batch_shape": (None, 1)},
    "AveragePooling2D": {"pool_size": 1}, "MaxPooling2D": {"pool_size": 1},
}  # fmt: skip


def _special(layer: Any) -> dict[str, Any]:
    """What of its configuration is not as a layer of this class has it that is made with nothing but what it needs."""
    usual = _usual(type(layer))
    needed = REQUIRED.get(type(layer).__name__, {})
    return {
        key: value
        for key, value in plain(layer.get_config()).items()
        if key != "name" and (key in needed or usual.get(key) != value)
    }


@cache
def _usual(kind: type) -> dict[str, Any]:
    return plain(kind(**REQUIRED.get(kind.__name__, {})).get_config())


def _signatures() -> dict[str, Any]:
    """The arguments of each architecture, with their defaults."""
    names = sorted({architecture for architecture, _ in MODELS.values()} | {"ResNet152V2"})
    found = {name: inspect.signature(getattr(applications, name)).parameters.values() for name in names}
    return {name: {p.name: p.default for p in parameters} for name, parameters in found.items()}


def _preprocessed() -> dict[str, Any]:
    found = {}
    x = random_of("pictures").integers(0, 256, (2, 2, 3, 3)).astype("uint8")
    for module in ("resnet", "resnet_v2", "resnet50", "vgg16", "vgg19", "mobilenet", "mobilenet_v2", "densenet",
                   "xception"):  # fmt: skip
        for data_format in ("channels_last", "channels_first"):
            given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1).copy()
            result = getattr(applications, module).preprocess_input(given.copy(), data_format=data_format)
            found[f"{module}, {data_format}"] = {"module": module, "data_format": data_format, "x": given,
                                                 "result": np.asarray(result)}  # fmt: skip
    return found


def _decoded() -> dict[str, Any]:
    """With a list of classes made for the purpose."""
    names = {str(k): [f"n{k:08d}", f"thing {k}"] for k in range(1000)}
    preds = random_of("predictions").dirichlet(np.full(1000, 0.1), 2).astype("float32")
    from keras.src.applications import imagenet_utils

    imagenet_utils.CLASS_INDEX = names
    found = applications.resnet.decode_predictions(preds, top=3)
    imagenet_utils.CLASS_INDEX = None
    return {"preds": preds, "top 3": [[list(map(_value, row)) for row in rows] for rows in found]}


def _value(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _older_file() -> dict[str, Any]:
    """The bytes of a weights file in the form of Keras 1 and 2, in which the weights of ImageNet are published."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.clear_session()
    code = (
        "model = keras.Sequential([keras.Input((5, 5, 2)), layers.Conv2D(2, 3, name='eye'), "
        "layers.BatchNormalization(name='norm'), layers.Flatten(), layers.Dense(2)])"
    )
    names: dict[str, Any] = {"keras": keras, "layers": keras.layers}
    exec(code, names)
    model = names["model"]
    for weight in model.weights:
        weight.assign(made_again(weight.path, weight.shape))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "older.h5"
        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)
        content = np.frombuffer(path.read_bytes(), "uint8")
    return {"code": code, "file": content, "weights": model.get_weights()}
