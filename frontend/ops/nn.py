"""Functions of neural networks: activations, probabilities and their losses, normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gnomon import activations
from gnomon.activations import (
    celu,
    elu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swish,
    tanh_shrink,
    threshold,
)  # fmt: skip
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.ops.arguments import as_axes, as_axis, floating
from gnomon.ops.attention import dot_product_attention
from gnomon.ops.elementwise import tanh
from gnomon.ops.positions import in_top_k, multi_hot, one_hot
from gnomon.ops.reductions import variance
from gnomon.tensor import node_of, op, operand


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return activations.relu(x)


def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution function at x, by default approximated by a tanh.

    Hendrycks, Gimpel 2016, "Gaussian error linear units (GELUs)", section 2.
    """
    return activations.gelu(x, approximate)


# ---- crossentropy


def _epsilon() -> float:
    from gnomon.config import epsilon

    return epsilon()


def _alike(name: str, target: Any, output: Any) -> tuple[Node, Node]:
    x = floating(node_of(output))
    t = build.cast(node_of(target), x.dtype)
    if t.rank != x.rank:
        raise ShapeError(f"{name} needs target and output of one shape, got {t.type} and {x.type}")
    return build.equate(t, x.shape), x


def log_probabilities(x: Node, from_logits: bool, axis: int) -> Node:
    """Logarithms of class probabilities; given probabilities are made to sum to 1 and kept off 0 and 1 by epsilon."""
    if from_logits:
        top = build.stop_gradient(build.max(x, axis, True))
        low = build.subtract(x, top)
        return build.subtract(low, build.log(build.sum(build.exp(low), axis, True)))
    p = build.divide(x, build.sum(x, axis, True))
    return build.log(build.minimum(build.maximum(p, _epsilon()), 1.0 - _epsilon()))


@op
def categorical_crossentropy(target, output, from_logits=False, axis=-1):
    """-sum(target * log(output)) over the classes along `axis`.

    target, output: float[..., classes]   result: float[...]
    Probabilities are made to sum to 1 and kept off 0 and 1 by `config.epsilon()`; with `from_logits`, output is
    log-probabilities up to a constant.
    """
    t, x = _alike("categorical_crossentropy", target, output)
    if not x.rank:
        raise ShapeError(f"categorical_crossentropy needs an axis of classes, got {x.type}")
    axis = as_axis(x, axis)
    return build.negative(build.sum(build.multiply(t, log_probabilities(x, from_logits, axis)), axis))


@op
def sparse_categorical_crossentropy(target, output, from_logits=False, axis=-1):
    """-log(output[target]) along the axis of classes; 0 where the target is out of range.

    target: int[...] (a last axis of size 1 is dropped)   output: float[..., classes]   result: float[...]
    """
    x, t = floating(node_of(output)), node_of(target)
    if not x.rank:
        raise ShapeError(f"sparse_categorical_crossentropy needs an axis of classes, got {x.type}")
    axis = as_axis(x, axis)
    if t.rank == x.rank and t.shape[-1] == 1:
        t = build.reshape(t, t.shape[:-1])
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    if t.rank != len(rest):
        raise ShapeError(
            f"sparse_categorical_crossentropy needs one class number per row, got target {t.type} for output {x.type}"
        )
    t = build.equate(t if dtypes.is_integer(t.dtype) else build.cast(t, "int32"), rest)
    shape = x.shape
    own = build.broadcast(t, shape, [k for k in range(x.rank) if k != axis])
    chosen = build.equal(own, build.iota(shape, axis, t.dtype))
    return build.negative(build.sum(build.where(chosen, log_probabilities(x, from_logits, axis), 0.0), axis))


@op
def binary_crossentropy(target, output, from_logits=False):
    """-(target * log(output) + (1 - target) * log(1 - output)), elementwise.

    With `from_logits`, output is log(p / (1 - p)).
    """
    t, x = _alike("binary_crossentropy", target, output)
    if from_logits:
        yes, no = build.log_sigmoid(x), build.log_sigmoid(build.negative(x))
    else:
        p = build.minimum(build.maximum(x, _epsilon()), 1.0 - _epsilon())
        yes, no = build.log(p), build.log(build.subtract(1.0, p))
    return build.negative(build.add(build.multiply(t, yes), build.multiply(build.subtract(1.0, t), no)))


# ---- statistics and normalization


@op
def moments(x, axes, keepdims=False, synchronized=False):
    """(mean, variance) over `axes`; 16-bit floats are summed in float32."""
    x = floating(node_of(x))
    wide = build.cast(x, dtypes.named(x.dtype).compute)
    mean, spread = build.mean(wide, axes, keepdims), variance(wide, axes, keepdims)
    return build.cast(mean, x.dtype), build.cast(spread, x.dtype)


@op
def normalize(x, axis=-1, order=2, epsilon=None):
    """x divided by its norm of `order` along `axis` (None: all), norms below epsilon taken as epsilon."""
    x = floating(node_of(x))
    small = _epsilon() if epsilon is None else epsilon
    axes = as_axes(x, axis)
    if order == 2:
        wide = dtypes.named(x.dtype).compute  # in float16 the square of a small epsilon is 0
        return build.cast(_to_length_1(build.cast(x, wide), axes, small), x.dtype)
        squares = build.sum(build.square(x), axes, True)
        return build.multiply(x, build.rsqrt(build.maximum(squares, small * small)))
    size = build.abs(x)
    if order == math.inf:
        norm = build.max(size, axes, True)
    elif order == 1:
        norm = build.sum(size, axes, True)
    else:
        norm = build.power(build.sum(build.power(size, float(order)), axes, True), 1.0 / order)
    return build.divide(x, build.maximum(norm, small))


def _to_length_1(x: Node, axes: Sequence[int], small: float) -> Node:
    squares = build.sum(build.square(x), axes, True)
    return build.multiply(x, build.rsqrt(build.maximum(squares, small * small)))


@op
def batch_normalization(x, mean, variance, axis, offset=None, scale=None, epsilon=1e-3):
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, all but x of one element per position of `axis`.

    Ioffe, Szegedy 2015, "Batch normalization", algorithm 1.
    """
    x = floating(node_of(x))
    axes = as_axes(x, axis)
    shape = [d if k in axes else 1 for k, d in enumerate(x.shape)]

    def along(v: Any) -> Node:
        return build.reshape(build.cast(node_of(v), x.dtype), shape)

    factor = build.rsqrt(build.add(along(variance), epsilon))
    if scale is not None:
        factor = build.multiply(factor, along(scale))
    result = build.multiply(build.subtract(x, along(mean)), factor)
    return result if offset is None else build.add(result, along(offset))


@op
def layer_normalization(x, gamma=None, beta=None, axis=-1, epsilon=None, **kwargs):
    """x with mean 0 and variance 1 over `axis`, times gamma, plus beta.

    gamma, beta: of the shape of `axis`. The variance is a population's; epsilon (default `config.epsilon()`) is inside
    the root. Ba, Kiros, Hinton 2016, "Layer normalization", equation 4.
    With `rms_scaling=True` neither the mean is taken away nor beta added: what Keras once called so.
    """
    rms_scaling = kwargs.pop("rms_scaling", False)
    if kwargs:
        raise ArgumentError(f"layer_normalization does not take {', '.join(kwargs)}")
    x = floating(node_of(x))
    axes = as_axes(x, axis)
    small = _epsilon() if epsilon is None else epsilon
    wide = build.cast(x, dtypes.named(x.dtype).compute)
    centred = build.subtract(wide, build.mean(wide, axes, True))
    factor = build.rsqrt(build.add(build.mean(build.square(centred), axes, True), small))
    shape = [d if k in axes else 1 for k, d in enumerate(x.shape)]
    def along(v):
        return build.reshape(build.cast(node_of(v), wide.dtype), shape)
    if gamma is not None:
        factor = build.multiply(factor, along(gamma))
    result = build.multiply(wide if rms_scaling else centred, factor)
    return build.cast(result if beta is None or rms_scaling else build.add(result, along(beta)), x.dtype)


@op
def rms_normalization(x, scale=None, axis=-1, epsilon=None):
    """x divided by the root of the mean of its squares over `axis`, times scale.

    Zhang, Sennrich 2019, "Root mean square layer normalization", equation 4, with epsilon inside the root.
    """
    x = floating(node_of(x))
    small = _epsilon() if epsilon is None else epsilon
    wide = build.cast(x, dtypes.named(x.dtype).compute)
    result = build.multiply(wide, build.rsqrt(build.add(build.mean(build.square(wide), axis, True), small)))
    if scale is not None:
        axes = as_axes(x, axis)
        weights = build.cast(node_of(scale), wide.dtype)
        result = build.multiply(result, build.reshape(weights, [d if k in axes else 1 for k, d in enumerate(x.shape)]))
    return build.cast(result, x.dtype)


@op
def psnr(x1, x2, max_val):
    """The peak signal-to-noise ratio in decibels: 10 log10(max_val² / mean squared difference)."""
    x, y = floating(node_of(x1)), node_of(x2)
    error = build.mean(build.square(build.subtract(x, y)))
    peak = build.square(build.cast(operand(max_val), x.dtype))
    return build.multiply(build.log10(build.divide(peak, error)), 10.0)


__all__ = [
    "batch_normalization", "binary_crossentropy", "categorical_crossentropy", "celu", "dot_product_attention", "elu",
    "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "in_top_k",
    "layer_normalization", "leaky_relu", "log_sigmoid", "log_softmax", "moments", "multi_hot", "normalize", "one_hot",
    "psnr", "relu", "relu6", "rms_normalization", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus",
    "softsign", "sparse_categorical_crossentropy", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "swish",
    "tanh", "tanh_shrink", "threshold",
]  # fmt: skip
