"""Published architectures, with Keras's names of layers and arguments: weights are exchanged with it."""

from gnomon.applications import (
    densenet,
    mobilenet,
    mobilenet_v2,
    resnet,
    resnet50,
    resnet_v2,
    vgg16,
    vgg19,
    xception,
)
from gnomon.applications.densenet import DenseNet121, DenseNet169, DenseNet201
from gnomon.applications.mobilenet import MobileNet
from gnomon.applications.mobilenet_v2 import MobileNetV2
from gnomon.applications.resnet import ResNet50, ResNet101, ResNet152
from gnomon.applications.resnet_v2 import ResNet50V2, ResNet101V2, ResNet152V2
from gnomon.applications.vgg16 import VGG16
from gnomon.applications.vgg19 import VGG19
from gnomon.applications.xception import Xception

__all__ = [
    "DenseNet121", "DenseNet169", "DenseNet201", "MobileNet", "MobileNetV2", "ResNet101", "ResNet101V2", "ResNet152",
    "ResNet152V2", "ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception", "densenet", "mobilenet", "mobilenet_v2",
    "resnet", "resnet50", "resnet_v2", "vgg16", "vgg19", "xception",
]  # fmt: skip
