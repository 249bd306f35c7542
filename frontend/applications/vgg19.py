"""VGG of 19 layers (Simonyan, Zisserman 2015, table 1, column E); see `vgg16`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.applications.common import decode_predictions
from gnomon.applications.vgg16 import preprocess_input, vgg
from gnomon.models import Model


def VGG19(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg19",
) -> Model:
    """VGG-19: 16 convolutions and 3 Dense layers; arguments as for `resnet.ResNet50`."""
    blocks = (2, 2, 4, 4, 4)
    return vgg(
        blocks, include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, "vgg19"
    )


__all__ = ["VGG19", "decode_predictions", "preprocess_input"]
