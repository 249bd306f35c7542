"""MobileNet, version 2: narrow residual blocks that are wide inside.

Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: inverted residuals and linear bottlenecks", table 2, with
Keras's names of layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import config, layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.applications.mobilenet import own_size, preprocess_input
from gnomon.compiler.errors import ArgumentError
from gnomon.models import Model
from gnomon.tensor import Tensor

SIZES = (96, 128, 160, 192, 224)
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
GROUPS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels at alpha 1, blocks, and the strides of the first of them."""


def rounded(channels: float, to: int = 8) -> int:
    """The nearest multiple of 8, or the one above if that is more than a tenth less."""
    found = max(to, int(channels + to / 2) // to * to)
    return found + to if found < 0.9 * channels else found


def normalized(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(axis=common.channel_axis(), epsilon=1e-3, momentum=0.999, name=name)(x)


def padding_of(x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """What makes windows of 3 with strides of 2 end at the last pixel: one less before an even number of them."""
    sides = x.shape[2:] if config.image_data_format() == "channels_first" else x.shape[1:3]
    down, right = (0 if side is None else side % 2 for side in sides)
    return (down, 1), (right, 1)


def block(x: Tensor, filters: int, stride: int, expansion: int, k: int) -> Tensor:
    begin, have, name = x, common.channels(x), f"block_{k}_" if k else "expanded_conv_"
    if k:
        x = layers.Conv2D(expansion * have, 1, padding="same", use_bias=False, name=f"{name}expand")(x)
        x = layers.ReLU(6.0, name=f"{name}expand_relu")(normalized(x, f"{name}expand_BN"))
    if stride == 2:
        x = layers.ZeroPadding2D(padding_of(x), name=f"{name}pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(3, strides=stride, padding=padding, use_bias=False, name=f"{name}depthwise")(x)
    x = layers.ReLU(6.0, name=f"{name}depthwise_relu")(normalized(x, f"{name}depthwise_BN"))
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=f"{name}project")(x)
    x = normalized(x, f"{name}project_BN")
    return layers.Add(name=f"{name}add")([begin, x]) if have == filters and stride == 1 else x


def MobileNetV2(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Model:
    """MobileNetV2: 17 blocks of a convolution of 1 x 1, a depthwise one and one of 1 x 1.

    alpha   the share of the filters that there are

    The other arguments are as for `resnet.ResNet50`; images are prepared by this module's `preprocess_input`.
    There are weights of ImageNet for alpha 0.35, 0.5, 0.75, 1, 1.3 and 1.4, images of 96, 128, 160, 192 and 224 pixels.
    """
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    size = own_size(input_shape, SIZES)
    shape = common.shape_of_image(input_shape, size, 32, include_top, weights)
    if weights == "imagenet" and alpha not in ALPHAS:
        raise ArgumentError(f"there are weights of ImageNet for alpha {', '.join(map(str, ALPHAS))}, got alpha={alpha}")
    image = common.image(shape, input_tensor)
    x = layers.Conv2D(rounded(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="Conv1")(image)
    x = layers.ReLU(6.0, name="Conv1_relu")(normalized(x, "bn_Conv1"))
    k = 0
    for channels, count, stride in GROUPS:
        for b in range(count):
            x = block(x, rounded(int(channels * alpha)), stride if b == 0 else 1, 6, k)
            k += 1
    x = layers.Conv2D(rounded(1280 * alpha) if alpha > 1 else 1280, 1, use_bias=False, name="Conv_1")(x)
    x = layers.ReLU(6.0, name="out_relu")(normalized(x, "Conv_1_bn"))
    x = common.pooled(x, "avg" if include_top else pooling)
    if include_top:
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    rows = size if weights == "imagenet" else shape[1 if config.image_data_format() == "channels_first" else 0]
    suffix = "" if include_top else "_no_top"
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{size}{suffix}.h5"
    return common.finished(image, x, name or f"mobilenetv2_{alpha:0.2f}_{rows}", weights, file)


__all__ = ["MobileNetV2", "decode_predictions", "preprocess_input"]
