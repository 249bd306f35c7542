"""ResNet of 50, 101 and 152 layers.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", table 1, with the strides in the first
convolution of a block, and Keras's names of layers, so that weights are exchanged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import layers
from gnomon.applications import common
from gnomon.applications.common import decode_predictions
from gnomon.models import Model
from gnomon.tensor import Tensor

EPSILON = 1.001e-5


def normalized(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(axis=common.channel_axis() % 4, epsilon=EPSILON, name=name)(x)


def block(x: Tensor, filters: int, stride: int, widen: bool, name: str) -> Tensor:
    """relu(x + what convolutions of 1, 3 and 1 make of x); `widen`: x goes through a convolution too."""
    short = x
    if widen:
        short = normalized(layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(x), f"{name}_0_bn")
    x = normalized(layers.Conv2D(filters, 1, strides=stride, name=f"{name}_1_conv")(x), f"{name}_1_bn")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = normalized(layers.Conv2D(filters, 3, padding="same", name=f"{name}_2_conv")(x), f"{name}_2_bn")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = normalized(layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x), f"{name}_3_bn")
    x = layers.Add(name=f"{name}_add")([short, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def begun(x: Tensor, normalize: bool) -> Tensor:
    """A convolution of 7 x 7 and a maximum of 3 x 3, each with strides of 2."""
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    if normalize:
        x = layers.Activation("relu", name="conv1_relu")(normalized(x, "conv1_bn"))
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def ended(x: Tensor, include_top: bool, pooling: str | None, classes: int, activation: Any) -> Tensor:
    x = common.pooled(x, "avg" if include_top else pooling, ("avg_pool", "max_pool"))
    return layers.Dense(classes, activation=activation, name="predictions")(x) if include_top else x


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
    x = begun(image, normalize=True)
    for k, count in enumerate(blocks):
        for b in range(1, count + 1):
            x = block(x, 64 << k, 2 if b == 1 and k else 1, b == 1, f"conv{k + 2}_block{b}")
    x = ended(x, include_top, pooling, classes, classifier_activation)
    suffix = "" if include_top else "_notop"
    return common.finished(
        image, x, name, weights, f"resnet{3 * sum(blocks) + 2}_weights_tf_dim_ordering_tf_kernels{suffix}.h5"
    )


def ResNet50(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet50",
) -> Model:
    """ResNet-50: 16 blocks of three convolutions.

    include_top    whether to end in a Dense layer of `classes`; if not, in features (see `pooling`)
    weights        None (random numbers), 'imagenet' (a file of Keras's that is on this machine: nothing is downloaded),
                   or the path of a weights file
    input_tensor   what to begin with instead of a new input
    input_shape    of one image: (224, 224, 3), or at least 32 x 32 pixels; may be open without the top
    pooling        without the top: None (float[batch, h, w, 2048]), 'avg' or 'max' (float[batch, 2048])

    images: float[batch, height, width, 3], prepared by `preprocess_input`
    Raises ArgumentError for arguments that do not go together, MissingFileError if there are no weights of ImageNet.
    """
    return resnet(
        (3, 4, 6, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def ResNet101(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet101",
) -> Model:
    """ResNet-101: 33 blocks of three convolutions; arguments as for `ResNet50`."""
    return resnet(
        (3, 4, 23, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def ResNet152(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet152",
) -> Model:
    """ResNet-152: 50 blocks of three convolutions; arguments as for `ResNet50`."""
    return resnet(
        (3, 8, 36, 3), include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pictures of 0 to 255 (red, green, blue) as ResNet wants them: blue, green, red, each less its mean over ImageNet.

    x: [..., height, width, 3], or [..., 3, height, width] with data_format "channels_first"; an array or a tensor
    """
    return common.preprocess(x, data_format, "caffe")


__all__ = ["ResNet50", "ResNet101", "ResNet152", "decode_predictions", "preprocess_input"]
