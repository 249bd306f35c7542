"""ResNet50 under the name of its own module that Keras has."""

from gnomon.applications.resnet import ResNet50, decode_predictions, preprocess_input

__all__ = ["ResNet50", "decode_predictions", "preprocess_input"]
