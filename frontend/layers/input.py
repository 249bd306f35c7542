"""Input: a symbolic tensor that a model is built from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import config
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.layers.calls import Call
from gnomon.layers.layer import Layer
from gnomon.tensor import Tensor, as_dims, new_input


class InputLayer(Layer):
    """The layer that an `Input` is the output of."""

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Sequence[int | None] | None = None,
        input_tensor: Tensor | None = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ):
        if "batch_input_shape" in kwargs:
            batch_shape = kwargs.pop("batch_input_shape")
        super().__init__(name=name, **kwargs)
        if sparse or ragged:
            raise ArgumentError("sparse and ragged inputs do not exist in gnomon: pass dense arrays")
        if input_tensor is not None:
            batch_shape, dtype = input_tensor.shape, input_tensor.dtype
        elif (shape is None) == (batch_shape is None):
            raise ArgumentError(
                "Input needs `shape` (without the batch axis) or `batch_shape` (with it), one of the two"
            )
        if batch_size is not None and batch_shape is not None:
            raise ArgumentError("Input takes `batch_size` with `shape`; `batch_shape` holds it already")
        if batch_shape is None:
            batch_shape = (batch_size, *_as_shape(shape, "shape"))
        self.batch_shape = _as_shape(batch_shape, "batch_shape")
        if dtype in ("string", str, bytes):
            raise DTypeError(
                f"Input(dtype={dtype!r}): text is no input of a compiled program. Apply TextVectorization, "
                "StringLookup "
                "or Hashing to the data first, and begin the model with an Input of what they give, dtype='int64'"
            )
        self._dtype = dtypes.canonical(dtype or config.floatx())
        self.optional = optional
        if input_tensor is None:
            dims = as_dims(self.batch_shape, self.name, batch=True)
            input_tensor = Tensor(new_input(self.name, self._dtype, dims), self.name)
        Call(self, (), {}, Tensor(input_tensor.node, self.name))
        self.built = True

    @property
    def dtype(self) -> str:
        return self._dtype

    def call(self) -> None:
        raise ArgumentError(f"the input layer {self.name!r} is not called: its tensor is `layer.output`")

    def get_config(self) -> dict[str, Any]:
        return {"batch_shape": self.batch_shape, "dtype": self.dtype, "sparse": False, "ragged": False,
                "name": self.name, "optional": self.optional}  # fmt: skip


def Input(  # Keras's name
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: Tensor | None = None,
    optional: bool = False,
) -> Tensor:
    """A symbolic tensor to call layers on.

    shape        without the batch axis; None for sizes that a call decides
    batch_size   None for any
    dtype        `config.floatx()` if left out
    name         of the input: the key where inputs are given as a dictionary

    Raises ArgumentError or ShapeError for a shape that is none.
    """
    layer = InputLayer(shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name)
    return layer.output


def _as_shape(shape: Any, what: str) -> tuple[int | None, ...]:
    if isinstance(shape, int):
        raise ShapeError(f"{what} is a tuple of sizes; for vectors of {shape} elements write {what}=({shape},)")
    try:
        sizes = tuple(None if d is None else int(d) for d in shape)
    except (TypeError, ValueError):
        raise ShapeError(f"{what} is a tuple of sizes and None, got {shape!r}") from None
    if any(d is not None and d < 0 for d in sizes):
        raise ShapeError(f"{what} holds sizes >= 0 and None for an open one, got {shape!r}")
    return sizes
