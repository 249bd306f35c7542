"""DenseNet of 121, 169 and 201 layers: each layer sees the outputs of all before it in its block.

Huang, Liu, van der Maaten, Weinberger 2017, "Densely connected convolutional networks", table 1, with Keras's names of
layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import config, layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.applications.resnet import ended, normalized
from gnomon.compiler.errors import ArgumentError
from gnomon.models import Model
from gnomon.tensor import Tensor

GROWTH = 32


def activated(x: Tensor, name: str) -> Tensor:
    return layers.Activation("relu", name=f"{name}_relu")(normalized(x, f"{name}_bn"))


def layer(x: Tensor, name: str) -> Tensor:
    """x, and behind its channels what convolutions of 1 and 3 make of it."""
    way = layers.Conv2D(4 * GROWTH, 1, use_bias=False, name=f"{name}_1_conv")(activated(x, f"{name}_0"))
    way = layers.Conv2D(GROWTH, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(activated(way, f"{name}_1"))
    return layers.Concatenate(axis=3, name=f"{name}_concat")([x, way])


def densenet(
    blocks: Sequence[int],
    include_top: bool,
    weights: Any,
    input_tensor: Any,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    name: str,
) -> Model:
    """A network with so many layers in each of the four blocks."""
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    if config.image_data_format() == "channels_first":
        raise ArgumentError("DenseNet, as in Keras, is for images whose channels come last")
    image = common.image(common.shape_of_image(input_shape, 224, 32, include_top, weights), input_tensor)
    x = layers.ZeroPadding2D(3)(image)
    x = activated(layers.Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x), "conv1")
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(layers.ZeroPadding2D(1)(x))
    for k, count in enumerate(blocks, 2):
        for b in range(1, count + 1):
            x = layer(x, f"conv{k}_block{b}")
        if k < len(blocks) + 1:  # half the channels, a quarter of the places
            x = activated(x, f"pool{k}")
            x = layers.Conv2D(common.channels(x) // 2, 1, use_bias=False, name=f"pool{k}_conv")(x)
            x = layers.AveragePooling2D(2, name=f"pool{k}_pool")(x)
    x = layers.Activation("relu", name="relu")(normalized(x, "bn"))
    x = ended(x, include_top, pooling, classes, classifier_activation)
    suffix = "" if include_top else "_notop"
    file = f"densenet{2 * sum(blocks) + 5}_weights_tf_dim_ordering_tf_kernels{suffix}.h5"
    return common.finished(image, x, name, weights, file)


def DenseNet121(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "densenet121",
) -> Model:
    """DenseNet-121; arguments as for `resnet.ResNet50`, images prepared by this module's `preprocess_input`."""
    return densenet(
        (6, 12, 24, 16), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def DenseNet169(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "densenet169",
) -> Model:
    """DenseNet-169; arguments as for `resnet.ResNet50`."""
    return densenet(
        (6, 12, 32, 32), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def DenseNet201(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "densenet201",
) -> Model:
    """DenseNet-201; arguments as for `resnet.ResNet50`."""
    return densenet(
        (6, 12, 48, 32), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as DenseNet wants them.

    They are put between 0 and 1, then each channel less its mean over ImageNet is divided by its deviation.
    x: [..., height, width, 3], or [..., 3, height, width] with data_format "channels_first"; an array or a tensor
    """
    return common.preprocess(x, data_format, "torch")


__all__ = ["DenseNet121", "DenseNet169", "DenseNet201", "decode_predictions", "preprocess_input"]
