"""VGG of 16 layers.

Simonyan, Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", table 1, column D, with
Keras's names of layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.models import Model


def vgg(
    convolutions: Sequence[int],
    include_top: bool,
    weights: Any,
    input_tensor: Any,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    name: str,
    file: str,
) -> Model:
    """A network with so many convolutions before each of the five poolings."""
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    image = common.image(common.shape_of_image(input_shape, 224, 32, include_top, weights), input_tensor)
    x = image
    for k, (count, filters) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True), 1):
        for c in range(1, count + 1):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"block{k}_conv{c}")(x)
        x = layers.MaxPooling2D(2, name=f"block{k}_pool")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(4096, activation="relu", name="fc1")(x)
        x = layers.Dense(4096, activation="relu", name="fc2")(x)
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    else:
        x = common.pooled(x, pooling)
    suffix = "" if include_top else "_notop"
    return common.finished(image, x, name, weights, f"{file}_weights_tf_dim_ordering_tf_kernels{suffix}.h5")


def VGG16(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg16",
) -> Model:
    """VGG-16: 13 convolutions and 3 Dense layers; arguments as for `resnet.ResNet50`."""
    blocks = (2, 2, 3, 3, 3)
    return vgg(
        blocks, include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, "vgg16"
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as VGG wants them: blue, green, red, each less its mean over ImageNet.

    x: [..., height, width, 3], or [..., 3, height, width] with data_format "channels_first"; an array or a tensor
    """
    return common.preprocess(x, data_format, "caffe")


__all__ = ["VGG16", "decode_predictions", "preprocess_input"]
