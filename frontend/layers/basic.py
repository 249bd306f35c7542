"""Identity, Lambda, Rescaling, ActivityRegularization."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from gnomon import regularizers
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.config import image_data_format
from gnomon.layers.activation import Elementwise
from gnomon.layers.layer import Layer
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor
from gnomon.utils import tree


class Identity(Elementwise):
    """The input as it is."""

    def call(self, inputs):
        return inputs


class ActivityRegularization(Elementwise):
    """The input as it is; l1 * sum(|x|) + l2 * sum(x^2), over the batch size, is added to the loss."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any):
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1, self.l2 = l1, l2

    def call(self, inputs):
        return inputs

    def get_config(self):
        config = {**super().get_config(), "l1": self.l1, "l2": self.l2}
        config.pop("activity_regularizer", None)
        return config


class Rescaling(Elementwise):
    """scale * x + offset, in the layer's dtype.

    scale, offset   numbers, or arrays that broadcast with x; those of one axis belong to the channels, which with
                    `config.image_data_format()` "channels_first" are before the rows and columns of images
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset
        self.built = False

    def call(self, inputs):
        return inputs.astype(self.compute_dtype) * self._of_channels(self.scale) + self._of_channels(self.offset)

    def _of_channels(self, value: Any) -> Tensor:
        array = np.asarray(value)
        if 0 < array.ndim < 3 and image_data_format() == "channels_first":
            array = array.reshape(array.shape + (1,) * (3 - array.ndim))
        return Tensor(build.constant(array, self.compute_dtype))

    def get_config(self):
        return {**super().get_config(), "scale": serialize_object(self.scale), "offset": serialize_object(self.offset)}

    @classmethod
    def from_config(cls, config):
        return cls(
            **{**config, "scale": deserialize_object(config["scale"]), "offset": deserialize_object(config["offset"])}
        )


class Lambda(Layer):
    """A function of tensors as a layer: `Lambda(lambda x: ops.square(x))`.

    function       called with the input, and with `mask` and `training` if it has parameters of those names
    output_shape   accepted for Keras's sake; the shape follows from the function
    mask           the mask of the output, or a function of (inputs, mask)
    arguments      further keyword arguments of the function

    A function defined with `def` can be written to a file by its name; a lambda cannot.
    """

    def __init__(
        self,
        function: Callable,
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not callable(function):
            raise ArgumentError(f"Lambda takes a function of a tensor, got {function!r}")
        self.function, self.arguments, self.mask = function, dict(arguments or {}), mask
        self._output_shape = output_shape
        self.supports_masking = mask is not None
        self._takes = set(inspect.signature(function).parameters) if not isinstance(function, type) else set()

    def call(self, inputs, mask=None, training=None):
        offered = {"mask": mask, "training": training}
        return self.function(inputs, **self.arguments, **{k: v for k, v in offered.items() if k in self._takes})

    def compute_mask(self, inputs, mask=None):
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def compute_output_shape(self, input_shape):
        if self._output_shape is None:
            return super().compute_output_shape(input_shape)
        if callable(self._output_shape):
            return self._output_shape(input_shape)
        batch = tree.flatten(input_shape)[0]
        return tree.map_shape_structure(lambda shape: (batch, *shape), self._output_shape)

    def get_config(self):
        config = {**super().get_config(), "function": _written(self.function)}
        if self._output_shape is not None:
            config["output_shape"] = (
                _written(self._output_shape) if callable(self._output_shape) else self._output_shape
            )
        if self.mask is not None:
            config["mask"] = _written(self.mask) if callable(self.mask) else serialize_object(self.mask)
        return {**config, "arguments": serialize_object(self.arguments)}

    @classmethod
    def from_config(cls, config):
        read = {k: deserialize_object(config[k]) for k in ("function", "mask", "arguments") if k in config}
        if "output_shape" in config:
            shape = deserialize_object(config["output_shape"])
            read["output_shape"] = tuple(shape) if isinstance(shape, list) and tree.is_shape(shape) else shape
        return cls(**{**config, **read})


def _written(function: Callable) -> Any:
    if isinstance(function, types.FunctionType) and function.__name__ == "<lambda>":
        raise ArgumentError(
            "a Lambda layer with a lambda cannot be written to a configuration: define the function with def"
        )
    return serialize_object(function)
