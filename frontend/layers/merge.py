"""Layers that make one tensor of several, and their forms as functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.layers.layer import Layer
from gnomon.ops.nn import normalize
from gnomon.tensor import Tensor


class Merge(Layer):
    """Base of the elementwise ones. Inputs of fewer axes get axes of 1 after the batch; axes of 1 repeat."""

    exactly: int | None = None

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        shapes = self.checked(input_shape)
        batches = {s[0] for s in shapes if s} - {None}
        if len(batches) > 1:
            raise ShapeError(f"Cannot merge tensors with different batch sizes. Received tensors with shapes {shapes}")
        rank = max(map(len, shapes))
        for axis in range(1, rank):
            sizes = {s[axis - rank] for s in shapes if len(s) >= rank - axis + 1} - {None, 1}
            if len(sizes) > 1:
                raise ShapeError(
                    f"Inputs have incompatible shapes. Received shapes {' and '.join(map(str, shapes))}: "
                    f"axis {axis - rank} has {' and '.join(map(str, sorted(sizes)))} elements"
                )

    def checked(self, input_shape: Any) -> list[tuple]:
        """The shapes of the inputs. Raises ArgumentError for something else than a list of them."""
        name = type(self).__name__
        if (
            not isinstance(input_shape, (list, tuple))
            or not input_shape
            or not isinstance(input_shape[0], (list, tuple))
        ):
            raise ArgumentError(
                f"A `{name}` layer should be called on a list of inputs. Received: input_shape={input_shape}"
            )
        if self.exactly is not None and len(input_shape) != self.exactly:
            raise ArgumentError(
                f"A `{name}` layer should be called on exactly {self.exactly} inputs, got {len(input_shape)}"
            )
        return [tuple(s) for s in input_shape]

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)):
            raise ArgumentError(f"A `{type(self).__name__}` layer should be called on a list of inputs, got {inputs!r}")
        rank = max(x.ndim for x in inputs)
        return self.merge([_with_axes(x, rank) for x in inputs])

    def merge(self, inputs: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, inputs, mask=None):
        if mask is None or any(m is None for m in mask):
            return None
        return reduce(lambda a, b: a | b, mask)


def _with_axes(x: Tensor, rank: int) -> Tensor:
    """x with axes of 1 after the batch axis, up to `rank` axes; the mask stays."""
    if x.ndim == rank:
        return x
    shape = x.node.shape
    made = Tensor(build.reshape(x.node, (*shape[:1], *(1,) * (rank - x.ndim), *shape[1:])))
    made.mask = x.mask
    return made


class Add(Merge):
    """The sum of the inputs."""

    def merge(self, inputs):
        return reduce(lambda a, b: a + b, inputs)


class Subtract(Merge):
    """The first input less the second."""

    exactly = 2

    def merge(self, inputs):
        return inputs[0] - inputs[1]


class Average(Merge):
    """The mean of the inputs."""

    def merge(self, inputs):
        return reduce(lambda a, b: a + b, inputs) / len(inputs)


class Multiply(Merge):
    """The product of the inputs; masked elements count as 1, and as 0 where all are masked."""

    def merge(self, inputs):
        masks = [_mask_like(x) for x in inputs]
        factors = [x if m is None else _where(m, x, 1) for x, m in zip(inputs, masks, strict=True)]
        product = reduce(lambda a, b: a * b, factors)
        if any(m is None for m in masks):
            return product
        kept: Any = reduce(build.logical_or, masks)
        result = _where(kept, product, 0)
        result.mask = Tensor(build.any(kept, -1))
        return result


class Extreme(Merge):
    """Base of Maximum and Minimum: masked elements are passed over."""

    function = ""

    def merge(self, inputs):
        best, kept = inputs[0], _mask_like(inputs[0])
        for x in inputs[1:]:
            mask = _mask_like(x)
            if mask is not None:
                x = _where(mask, x, best)
            if kept is not None:
                best = _where(kept, best, x)
            kept = build.logical_or(kept, mask) if kept is not None and mask is not None else None
            best = Tensor(build.apply(self.function, best.node, x.node))
        if kept is not None:
            best.mask = Tensor(build.any(kept, -1))
        return best


class Maximum(Extreme):
    """The largest of the inputs, element by element."""

    function = "maximum"


class Minimum(Extreme):
    """The smallest of the inputs, element by element."""

    function = "minimum"


def _mask_like(x: Tensor) -> Node | None:
    """The mask of x with x's shape."""
    if x.mask is None:
        return None
    mask = x.mask.node
    return build.broadcast_to(build.reshape(mask, (*mask.shape, 1)), x.node.shape)


def _where(condition: Node, a: Any, b: Any) -> Tensor:
    node = lambda v: v.node if isinstance(v, Tensor) else v
    return Tensor(build.apply("where", condition, node(a), node(b)))


class Concatenate(Merge):
    """The inputs one after another along `axis`; all other axes are equal."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def build(self, input_shape):
        shapes = self.checked(input_shape)
        rank = len(shapes[0])
        if not -rank <= self.axis < rank:
            raise ShapeError(f"Concatenate(axis={self.axis}) is out of range for inputs of {rank} axes: {shapes}")
        at = self.axis % rank
        same = all(len(s) == rank for s in shapes)
        if same:
            rest = [[s[k] for s in shapes if s[k] is not None] for k in range(rank) if k != at]
            same = all(len(set(sizes)) <= 1 for sizes in rest)
        if not same:
            raise ShapeError(
                "A `Concatenate` layer requires inputs with matching shapes except for the concatenation axis. "
                f"Received: input_shape={list(shapes)} with axis={self.axis}"
            )

    def call(self, inputs):
        dtype = build.promote(*(x.node for x in inputs))
        return Tensor(build.concat([build.cast(x.node, dtype) for x in inputs], self.axis % inputs[0].ndim))

    def compute_mask(self, inputs, mask=None):
        if mask is None or all(m is None for m in mask):
            return None
        parts = []
        for x, m in zip(inputs, mask, strict=True):
            if m is None:
                part = build.full(x.node.shape, True, "bool")
            elif m.ndim < x.ndim:
                part = build.broadcast_to(build.reshape(m.node, (*m.node.shape, 1)), x.node.shape)
            else:
                part = m.node
            parts.append(part)
        return Tensor(build.any(build.concat(parts, self.axis % parts[0].rank), -1))

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


class Dot(Merge):
    """Products of two inputs summed over one axis of each, sample by sample.

    axes        the axis of both, or a pair; the batch axis cannot be one
    normalize   scale each to length 1 along its axis before: the cosine of the angle
    x: [batch, ..., n, ...]   y: [batch, ..., n, ...]   result: [batch, other axes of x, other axes of y], or [batch, 1]
    """

    exactly = 2

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(axes, int) and (
            not isinstance(axes, (list, tuple)) or len(axes) != 2 or not all(isinstance(a, int) for a in axes)
        ):
            raise ArgumentError(f"Dot(axes) is an integer or two, got {axes!r}")
        self.axes, self.normalize = axes, normalize

    def build(self, input_shape):
        first, second = self.checked(input_shape)
        a, b = self.axes_for(len(first), len(second))
        if None not in (first[a], second[b]) and first[a] != second[b]:
            raise ShapeError(
                f"Incompatible input shapes: axis values {first[a]} (at axis {a}) != {second[b]} (at axis {b}). "
                f"Full input shapes: {first}, {second}"
            )

    def axes_for(self, first: int, second: int) -> tuple[int, int]:
        """The axis of each input, for inputs of these numbers of axes."""
        a, b = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        if not (-first <= a < first and -second <= b < second):
            raise ShapeError(f"Dot(axes={self.axes}) is out of range for inputs of {first} and {second} axes")
        if a % first == 0 or b % second == 0:
            raise ArgumentError(f"Dot(axes={self.axes}) cannot sum over the batch axis 0")
        return a % first, b % second

    def call(self, inputs):
        a, b = self.axes_for(inputs[0].ndim, inputs[1].ndim)
        if self.normalize:
            inputs = [normalize(inputs[0], axis=a), normalize(inputs[1], axis=b)]
        x, y = inputs[0].node, inputs[1].node
        wanted = list(y.shape)
        wanted[0], wanted[b] = x.shape[0], x.shape[a]
        y = build.equate(y, wanted)
        own = range(x.rank, x.rank + y.rank)  # labels of the axes that only y has
        labels = [0 if k == 0 else a if k == b else own[k] for k in range(y.rank)]
        out = [k for k in range(x.rank) if k != a] + [k for k in labels if k in own]
        result = build.contract(x, y, range(x.rank), labels, out)
        return Tensor(result if result.rank > 1 else build.reshape(result, (*result.shape, 1)))

    def compute_mask(self, inputs, mask=None):
        return None

    def get_config(self):
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def add(inputs, **kwargs):
    """The sum of a list of tensors, through an Add layer."""
    return Add(**kwargs)(inputs)


def subtract(inputs, **kwargs):
    """The first of two tensors less the second."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs, **kwargs):
    """The product of a list of tensors."""
    return Multiply(**kwargs)(inputs)


def average(inputs, **kwargs):
    """The mean of a list of tensors."""
    return Average(**kwargs)(inputs)


def maximum(inputs, **kwargs):
    """The largest of a list of tensors, element by element."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs, **kwargs):
    """The smallest of a list of tensors, element by element."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs, axis=-1, **kwargs):
    """A list of tensors one after another along `axis`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs, axes=-1, **kwargs):
    """Products of two tensors summed over one axis of each."""
    return Dot(axes=axes, **kwargs)(inputs)
