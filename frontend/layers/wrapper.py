"""Wrapper: a layer around another one."""

from __future__ import annotations

from typing import Any

from gnomon.compiler.errors import ArgumentError
from gnomon.layers.layer import Layer
from gnomon.registry import deserialize_object, serialize_object


class Wrapper(Layer):
    """Base of layers that add something to what `layer` does; builds it with its own input's shape.

    Raises ArgumentError if `layer` is none.
    """

    def __init__(self, layer: Layer, **kwargs: Any):
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"Layer {layer!r:.80} supplied to {type(self).__name__} isn't a supported layer type: wrap an object "
                "of a subclass of gnomon.layers.Layer"
            )
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape=None):
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True

    def get_config(self):
        return {**super().get_config(), "layer": serialize_object(self.layer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config({**config, "layer": deserialize_object(config["layer"], custom_objects)})
