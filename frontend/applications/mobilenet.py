"""MobileNet, of convolutions of each channel by itself followed by convolutions of 1 x 1.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam 2017, "MobileNets: efficient convolutional neural
networks for mobile vision applications", table 1, with Keras's names of layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import config, layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.compiler.errors import ArgumentError
from gnomon.models import Model
from gnomon.tensor import Tensor

SIZES = (128, 160, 192, 224)
ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Filters at alpha 1, and strides."""


def activated(x: Tensor, name: str) -> Tensor:
    """min(6, relu(normalized x))"""
    x = layers.BatchNormalization(axis=common.channel_axis(), name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def block(x: Tensor, filters: int, multiplier: int, stride: int, k: int) -> Tensor:
    if stride > 1:
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"conv_pad_{k}")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(
        3, strides=stride, padding=padding, depth_multiplier=multiplier, use_bias=False, name=f"conv_dw_{k}"
    )(x)
    x = activated(x, f"conv_dw_{k}")
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=f"conv_pw_{k}")(x)
    return activated(x, f"conv_pw_{k}")


def own_size(input_shape: Sequence[int | None] | None, sizes: Sequence[int]) -> int:
    """The width of the images whose weights are meant: that of square images if there are such weights, else 224."""
    if input_shape is None or len(input_shape) != 3:
        return 224
    rows, columns = input_shape[1:] if config.image_data_format() == "channels_first" else input_shape[:2]
    return rows if rows is not None and rows == columns and rows in sizes else 224


def MobileNet(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    dropout: float = 0.001,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Model:
    """MobileNet: 13 pairs of a depthwise convolution and one of 1 x 1.

    alpha              the share of the filters that there are
    depth_multiplier   filters of each channel in the depthwise convolutions
    dropout            before the classifier

    The other arguments are as for `resnet.ResNet50`; images are prepared by this module's `preprocess_input`.
    There are weights of ImageNet for alpha 0.25, 0.5, 0.75 and 1, images of 128, 160, 192 and 224 pixels.
    """
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    size = own_size(input_shape, SIZES)
    shape = common.shape_of_image(input_shape, size, 32, include_top, weights)
    if weights == "imagenet" and (depth_multiplier != 1 or alpha not in ALPHAS):
        raise ArgumentError(
            "there are weights of ImageNet for depth_multiplier=1 and alpha 0.25, 0.5, 0.75 or 1, got "
            f"depth_multiplier={depth_multiplier} and alpha={alpha}"
        )
    image = common.image(shape, input_tensor)
    x = layers.Conv2D(int(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="conv1")(image)
    x = activated(x, "conv1")
    for k, (filters, stride) in enumerate(BLOCKS, 1):
        x = block(x, int(filters * alpha), depth_multiplier, stride, k)
    if include_top:
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Conv2D(classes, 1, padding="same", name="conv_preds")(x)
        x = layers.Reshape((classes,), name="reshape_2")(x)
        x = layers.Activation(classifier_activation, name="predictions")(x)
    else:
        x = common.pooled(x, pooling)
    rows = size if weights == "imagenet" else shape[1 if config.image_data_format() == "channels_first" else 0]
    file = f"mobilenet_{ALPHAS.get(alpha)}_{size}_tf{'' if include_top else '_no_top'}.h5"
    return common.finished(image, x, name or f"mobilenet_{alpha:0.2f}_{rows}", weights, file)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as MobileNet wants them: between -1 and 1. An array or a tensor."""
    return common.preprocess(x, data_format, "tf")


__all__ = ["MobileNet", "decode_predictions", "preprocess_input"]
