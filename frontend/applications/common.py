"""What the published architectures share: their image, their top, their weights, and how pictures are given to them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon import activations, config, layers
from gnomon.applications.weights import read_weights
from gnomon.compiler.errors import ArgumentError, DataError, MissingFileError
from gnomon.models import Model
from gnomon.tensor import Tensor

IMAGENET_CLASSES = 1000
CAFFE_MEANS = (103.939, 116.779, 123.68)  # blue, green, red, of ImageNet's training pictures
TORCH_MEANS, TORCH_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue, between 0 and 1


def channel_axis() -> int:
    return 1 if config.image_data_format() == "channels_first" else -1


def channels(x: Tensor) -> int:
    """How many channels x has, which architectures know everywhere."""
    found = x.shape[channel_axis()]
    assert found is not None
    return found


# ---- building


def check_arguments(weights: Any, include_top: bool, classes: int, activation: Any, pooling: Any) -> None:
    """Raises ArgumentError for what does not go together, or cannot be loaded."""
    if weights is not None and weights != "imagenet" and not Path(weights).exists():
        raise ArgumentError(
            "weights is None (random numbers), 'imagenet' (those trained on ImageNet) or the path of a weights file; "
            f"there is no file {str(weights)!r}"
        )
    if weights == "imagenet" and include_top and classes != IMAGENET_CLASSES:
        raise ArgumentError(
            f"with weights='imagenet' and include_top=True there are {IMAGENET_CLASSES} classes, got classes={classes}"
        )
    if weights is not None and include_top and activations.get(activation) not in (
        activations.get("softmax"),
        activations.get(None),
    ):
        raise ArgumentError(
            f"with trained weights classifier_activation is None or 'softmax', got classifier_activation={activation!r}"
        )
    if pooling not in (None, "avg", "max"):
        raise ArgumentError(f"pooling is None, 'avg' or 'max', got {pooling!r}")


def shape_of_image(
    input_shape: Sequence[int | None] | None, size: int, least: int, include_top: bool, weights: Any
) -> tuple[int | None, ...]:
    """The shape of one image: the one given if it is right, else the architecture's own, open where it may be.

    Raises ArgumentError for a shape that the architecture or its weights cannot take.
    """
    first = config.image_data_format() == "channels_first"
    own: tuple[int | None, ...] = (3, size, size) if first else (size, size, 3)
    if input_shape is None:
        return own if include_top else (3, None, None) if first else (None, None, 3)
    shape = tuple(input_shape)
    if len(shape) != 3:
        raise ArgumentError(f"input_shape is that of one image, three sizes, got {shape}")
    sides, channels = (shape[1:], shape[0]) if first else (shape[:2], shape[2])
    if weights == "imagenet" and include_top and shape != own:
        raise ArgumentError(f"with weights='imagenet' and include_top=True input_shape is {own}, got {shape}")
    if weights == "imagenet" and channels != 3:
        raise ArgumentError(f"weights='imagenet' are for images of 3 channels, got input_shape={shape}")
    if any(side is not None and side < least for side in sides):
        raise ArgumentError(f"images must have at least {least} x {least} pixels, got input_shape={shape}")
    if include_top and None in shape:
        raise ArgumentError(f"with include_top=True input_shape must have no open sizes, got {shape}")
    return shape


def image(shape: Sequence[int | None], input_tensor: Any) -> Tensor:
    """What the architecture begins with: `input_tensor`, or a new input."""
    if input_tensor is None:
        return layers.Input(shape)
    if not isinstance(input_tensor, Tensor):
        raise ArgumentError(f"input_tensor is what gnomon.Input or a layer gave, got {type(input_tensor).__name__}")
    return input_tensor


def pooled(x: Tensor, pooling: str | None, names: tuple[str | None, str | None] = (None, None)) -> Tensor:
    """The features: x, or the mean or maximum of each channel. `names` are those of the two layers."""
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name=names[0])(x)
    return layers.GlobalMaxPooling2D(name=names[1])(x) if pooling == "max" else x


def finished(begin: Tensor, end: Tensor, name: str, weights: Any, file: str) -> Model:
    """The model from image to result, with its weights. `file` is what Keras calls those trained on ImageNet."""
    model = Model(_sources(begin), end, name=name)
    if weights is not None:
        read_weights(model, found_locally(file) if weights == "imagenet" else Path(weights))
    return model


def _sources(x: Tensor) -> Any:
    """The inputs that x is computed from."""
    found: dict[int, Tensor] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [x]
    while waiting:
        t = waiting.pop()
        if t.history is None:
            raise ArgumentError("input_tensor must be made by layers from gnomon.Input, and by nothing else")
        layer, call, _ = t.history
        if (id(layer), call) in seen:
            continue
        seen.add((id(layer), call))
        given = layer._layer_state.calls[call]
        inputs = [v for v in (*given.args, *given.kwargs.values()) if isinstance(v, Tensor)]
        if isinstance(layer, layers.InputLayer):
            found[id(layer)] = t
        waiting += inputs
    return next(iter(found.values())) if len(found) == 1 else list(found.values())


# ---- weights and names of ImageNet


def found_locally(file: str) -> Path:
    """A file where Keras keeps what it downloads. Raises MissingFileError, which says what to do, if there is none."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    if (folder / file).exists():
        return folder / file
    raise MissingFileError(
        f"gnomon downloads nothing, and {file} is not in {folder}. Put it there (Keras does so when it makes the same "
        "model with weights='imagenet'), or give the path of a weights file as weights=..., or weights=None for random "
        "numbers"
    )


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The `top` likeliest classes of each image: (WordNet's number, name, probability), the likeliest first.

    preds: float[batch, 1000]
    The names are in Keras's file imagenet_class_index.json. Raises MissingFileError if it is not where Keras keeps it,
    ArgumentError for another shape.
    """
    preds = np.asarray(preds)
    if preds.ndim != 2 or preds.shape[1] != IMAGENET_CLASSES:
        raise ArgumentError(f"decode_predictions needs the shape (batch, {IMAGENET_CLASSES}), got {preds.shape}")
    path = found_locally("imagenet_class_index.json")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return [[(*names[str(k)], float(row[k])) for k in np.argsort(-row, kind="stable")[:top]] for row in preds]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not Keras's list of classes: {error!r}") from None


# ---- pictures


def preprocess(x: Any, data_format: str | None, mode: str) -> Any:
    """Pictures of 0 to 255, red, green, blue, as an architecture was trained on them.

    x: [..., height, width, 3], or [..., 3, height, width] with data_format "channels_first"; an array or a tensor
    "caffe": blue, green, red, each less its mean over ImageNet; "tf": between -1 and 1; "torch": between 0 and 1, each
    channel less its mean and over its deviation. The result is float, and a new array.
    """
    first = (data_format or config.image_data_format()) == "channels_first"
    if not isinstance(x, Tensor):
        x = np.asarray(x)
        x = x.astype(config.floatx()) if not np.issubdtype(x.dtype, np.floating) else x
    elif not x.dtype.startswith(("float", "bfloat")):
        x = x.astype(config.floatx())
    if mode == "tf":
        return x / 127.5 - 1.0
    along = lambda values: np.asarray(values, x.dtype).reshape((3, 1, 1) if first else (3,))
    if mode == "torch":
        return (x / 255.0 - along(TORCH_MEANS)) / along(TORCH_DEVIATIONS)
    return (x[..., ::-1, :, :] if first else x[..., ::-1]) - along(CAFFE_MEANS)
