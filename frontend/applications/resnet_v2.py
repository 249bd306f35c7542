"""ResNet of 50, 101 and 152 layers that normalizes before it convolves.

He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks", figure 1b, with the strides in the last block
of each width, and Keras's names of layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.applications.resnet import begun, ended, normalized
from gnomon.models import Model
from gnomon.tensor import Tensor


def block(x: Tensor, filters: int, stride: int, widen: bool, name: str) -> Tensor:
    """x + what convolutions of 1, 3 and 1 make of relu(normalized x); `widen`: that goes through a convolution too."""
    ready = layers.Activation("relu", name=f"{name}_preact_relu")(normalized(x, f"{name}_preact_bn"))
    if widen:
        x = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(ready)
    elif stride > 1:
        x = layers.MaxPooling2D(1, strides=stride)(x)
    way = normalized(layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_1_conv")(ready), f"{name}_1_bn")
    way = layers.Activation("relu", name=f"{name}_1_relu")(way)
    way = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(way)
    way = layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_2_conv")(way)
    way = layers.Activation("relu", name=f"{name}_2_relu")(normalized(way, f"{name}_2_bn"))
    way = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(way)
    return layers.Add(name=f"{name}_out")([x, way])


def resnet(
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
    """A network with so many blocks of each of the four widths."""
    common.check_arguments(weights, include_top, classes, classifier_activation, pooling)
    image = common.image(common.shape_of_image(input_shape, 224, 32, include_top, weights), input_tensor)
    x = begun(image, normalize=False)
    for k, count in enumerate(blocks):
        for b in range(1, count + 1):
            x = block(x, 64 << k, 2 if b == count and k < 3 else 1, b == 1, f"conv{k + 2}_block{b}")
    x = layers.Activation("relu", name="post_relu")(normalized(x, "post_bn"))
    x = ended(x, include_top, pooling, classes, classifier_activation)
    suffix = "" if include_top else "_notop"
    return common.finished(
        image, x, name, weights, f"resnet{3 * sum(blocks) + 2}v2_weights_tf_dim_ordering_tf_kernels{suffix}.h5"
    )


def ResNet50V2(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet50v2",
) -> Model:
    """ResNet-50, version 2; arguments as for `resnet.ResNet50`, images prepared by this module's `preprocess_input`."""
    return resnet(
        (3, 4, 6, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def ResNet101V2(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet101v2",
) -> Model:
    """ResNet-101, version 2; arguments as for `resnet.ResNet50`."""
    return resnet(
        (3, 4, 23, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def ResNet152V2(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet152v2",
) -> Model:
    """ResNet-152, version 2; arguments as for `resnet.ResNet50`."""
    return resnet(
        (3, 8, 36, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as version 2 wants them: between -1 and 1. An array or a tensor."""
    return common.preprocess(x, data_format, "tf")


__all__ = ["ResNet50V2", "ResNet101V2", "ResNet152V2", "decode_predictions", "preprocess_input"]
