"""Masking: which steps of a sequence count."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError
from gnomon.layers.layer import Layer
from gnomon.registry import deserialize_object


class Masking(Layer):
    """Masks the steps at which all features are `mask_value`, and sets them to 0.

    inputs: [batch, steps, ..., features]   result: as the inputs, with the mask bool[batch, steps, ...]

    Raises ArgumentError unless `mask_value` is a number.
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(mask_value, dict):
            mask_value = deserialize_object(mask_value)
        if isinstance(mask_value, (bool, str)) or mask_value is None:
            raise ArgumentError(f"Masking(mask_value) is a number, got {mask_value!r}")
        self.mask_value = mask_value
        self.supports_masking = True
        self.built = True

    def call(self, inputs):
        counts = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        outputs = ops.where(counts, inputs, 0)
        outputs.mask = ops.squeeze(counts, axis=-1)
        return outputs

    def compute_mask(self, inputs, mask=None):
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "mask_value": self.mask_value}
