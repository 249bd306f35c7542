"""Embedding: a vector for each token."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gnomon import constraints, initializers, ops, regularizers
from gnomon.compiler.errors import ArgumentError, DTypeError, NotBuiltError, ShapeError
from gnomon.compiler.ops import build
from gnomon.guards import TokenIds
from gnomon.layers.layer import Layer
from gnomon.tensor import Tensor
from gnomon.variable import Variable


class Embedding(Layer):
    """Row `id` of the weight `embeddings` for each token id.

    input_dim    how many ids there are: 0 to input_dim - 1
    output_dim   length of the vectors
    mask_zero    id 0 is padding: the result has a mask that leaves it out
    weights      the first values of `embeddings`
    ids: int[batch, ...]   embeddings: float[input_dim, output_dim]   result: float[batch, ..., output_dim]

    The gradient of a large table is a list of rows: optimizers that leave the others as they are, SGD without momentum,
    Adagrad, LazyAdam, touch these alone.

    Raises ArgumentError unless both sizes are positive integers, DTypeError for ids that are no numbers, and when it
    is run DataError for an id that is none of the vocabulary.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ):
        for name, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ArgumentError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r} (of type {type(value).__name__})."
                )
        if lora_rank is not None or lora_alpha is not None:
            raise ArgumentError("Embedding(lora_rank, lora_alpha): low-rank adaptation does not exist in gnomon")
        if kwargs.pop("input_length", None) is not None:
            warnings.warn("Argument `input_length` is deprecated. Just remove it.", UserWarning, stacklevel=2)
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        self.autocast = False  # ids are whole numbers, beyond what float16 can hold
        if weights is not None:
            given = weights[0] if isinstance(weights, list) and len(weights) == 1 else weights
            if np.shape(given) != (input_dim, output_dim):
                raise ShapeError(
                    f"Embedding(weights) has the shape {(input_dim, output_dim)}, as input_dim and output_dim say; got "
                    f"an array of shape {np.shape(given)}"
                )
            self.build()
            self.set_weights([given])

    @property
    def embeddings(self) -> Variable:
        """The weight. Raises NotBuiltError before there is one."""
        if not self.built:
            raise NotBuiltError(f"layer {self.name!r} is not built, so it has no `embeddings` yet: call it, or build()")
        return self._embeddings

    def build(self, input_shape=None):
        if self.built:
            return
        self._embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            name="embeddings",
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )

    def call(self, inputs):
        if inputs.dtype == "bool":
            raise DTypeError(f"layer {self.name!r} takes token ids, whole numbers from 0; got {inputs.node.type}")
        ids = TokenIds(self.input_dim, self.name)(inputs.node)
        ids = ids if inputs.dtype in ("int32", "int64") else build.cast(ids, "int32")
        return ops.cast(Tensor(build.gather(self.embeddings.node, ids, 0)), self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.output_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": regularizers.serialize(self.embeddings_regularizer),
            "embeddings_constraint": constraints.serialize(self.embeddings_constraint),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "mask_zero": self.mask_zero,
        }
