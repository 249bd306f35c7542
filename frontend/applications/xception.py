"""Xception, of residual blocks of separable convolutions.

Chollet 2017, "Xception: deep learning with depthwise separable convolutions", figure 5, with Keras's names of layers,
so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.applications.resnet import ended
from gnomon.models import Model
from gnomon.tensor import Tensor


def normalized(x: Tensor, name: str | None = None) -> Tensor:
    return layers.BatchNormalization(axis=common.channel_axis(), name=name)(x)


def separable(x: Tensor, filters: int, name: str) -> Tensor:
    x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return normalized(x, f"{name}_bn")


def relu(x: Tensor, name: str) -> Tensor:
    return layers.Activation("relu", name=f"{name}_act")(x)


def narrowing(x: Tensor, filters: tuple[int, int], k: int) -> Tensor:
    """Two separable convolutions and a maximum of 3 x 3 with strides of 2, and a convolution of 1 x 1 beside them."""
    beside = layers.Conv2D(filters[1], 1, strides=2, padding="same", use_bias=False)(x)
    beside = normalized(beside)
    for c, count in enumerate(filters, 1):
        if (k, c) != (2, 1):
            x = relu(x, f"block{k}_sepconv{c}")
        x = separable(x, count, f"block{k}_sepconv{c}")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"block{k}_pool")(x)
    return layers.add([x, beside])


def Xception(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "xception",
) -> Model:
    """Xception: 36 convolutions in 14 blocks, for images of 299 x 299, or at least 71 x 71 pixels.

    Arguments are as for `resnet.ResNet50`; images are prepared by this module's `preprocess_input`.
    """
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    image = common.image(common.shape_of_image(input_shape, 299, 71, include_top, weights), input_tensor)
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="block1_conv1")(image)
    x = relu(normalized(x, "block1_conv1_bn"), "block1_conv1")
    x = layers.Conv2D(64, 3, use_bias=False, name="block1_conv2")(x)
    x = relu(normalized(x, "block1_conv2_bn"), "block1_conv2")
    for k, filters in enumerate((128, 256, 728), 2):
        x = narrowing(x, (filters, filters), k)
    for k in range(5, 13):
        way = x
        for c in (1, 2, 3):
            way = separable(relu(way, f"block{k}_sepconv{c}"), 728, f"block{k}_sepconv{c}")
        x = layers.add([way, x])
    x = narrowing(x, (728, 1024), 13)
    for c, filters in ((1, 1536), (2, 2048)):
        x = relu(separable(x, filters, f"block14_sepconv{c}"), f"block14_sepconv{c}")
    x = ended(x, True, None, classes, classifier_activation) if include_top else common.pooled(x, pooling)
    suffix = "" if include_top else "_notop"
    return common.finished(image, x, name, weights, f"xception_weights_tf_dim_ordering_tf_kernels{suffix}.h5")


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as Xception wants them: between -1 and 1. An array or a tensor."""
    return common.preprocess(x, data_format, "tf")


__all__ = ["Xception", "decode_predictions", "preprocess_input"]
