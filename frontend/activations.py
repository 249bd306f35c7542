"""Activation functions: Keras's names, arguments and numbers.

x is float[...] (integers are taken as float32 where the result is not whole), the result has its shape and dtype,
unless said otherwise. Given arrays they compute at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.registry import Registry, serialize_object
from gnomon.tensor import is_symbolic, op


def _public(fn: Callable[..., Node]) -> Callable[..., Any]:
    """A function of a node as one of anything tensor-like."""
    on_nodes = op(fn)

    @functools.wraps(fn)
    def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_symbolic(x) and not isinstance(x, (np.ndarray, np.generic, Node)):
            x = np.asarray(x)
            if x.dtype.kind not in "biuf":
                raise DataError(f"{fn.__name__} cannot take {x!r:.80}: numbers are needed")
            x = x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int32)
        return on_nodes(x, *args, **kwargs)

    return activation


def _float(x: Node) -> Node:
    return x if dtypes.is_float(x.dtype) else build.cast(x, "float32")


@_public
def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    """max(x, 0). Arguments: `negative_slope * (x - threshold)` up to the threshold, x above, at most `max_value`."""
    if negative_slope == 0 and threshold == 0:
        result = build.apply("relu", x)
    elif threshold == 0 and max_value is None:
        return _leaky(x, negative_slope)
    else:
        above = build.apply("where", build.apply("greater", x, threshold), x, 0)
        result = above if threshold else build.apply("relu", x)
    if max_value is not None:
        result = _clip(result, 0.0, max_value)
    if negative_slope:
        below = build.apply("relu", build.apply("subtract", threshold, x))
        result = build.apply("subtract", result, build.apply("multiply", below, negative_slope))
    return result


def _clip(x: Node, low: Any, high: Any) -> Node:
    return build.apply("minimum", build.apply("maximum", x, low), high)


def _leaky(x: Node, slope: float) -> Node:
    x = _float(x)
    return build.apply("where", build.apply("greater_equal", x, 0), x, build.apply("multiply", x, slope))


@_public
def leaky_relu(x, negative_slope=0.2):
    """x where x >= 0, `negative_slope * x` below.

    Maas, Hannun, Ng 2013, "Rectifier nonlinearities improve neural network acoustic models".
    """
    return _leaky(x, negative_slope)


@_public
def relu6(x):
    """min(max(x, 0), 6)."""
    return _clip(x, 0, 6)


def _expm1_below(x: Node, scale: float, alpha: float) -> Node:
    """x where x > 0, else alpha * (exp(x / scale) - 1). The exponential of what is not used must not overflow."""
    positive = build.apply("greater", x, 0)
    low = build.apply("where", positive, 0, x)
    low = build.apply("expm1", low if scale == 1 else build.apply("divide", low, scale))
    return build.apply("where", positive, x, low if alpha == 1 else build.apply("multiply", low, alpha))


@_public
def elu(x, alpha=1.0):
    """x where x > 0, `alpha * (exp(x) - 1)` below.

    Clevert, Unterthiner, Hochreiter 2016, "Fast and accurate deep network learning by exponential linear units (ELUs)".
    """
    return _expm1_below(_float(x), 1, alpha)


@_public
def selu(x):
    """The ELU scaled so that activations of mean 0 and variance 1 keep both.

    Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks", constants of appendix A1.
    """
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return build.apply("multiply", _expm1_below(_float(x), 1, alpha), scale)


@_public
def celu(x, alpha=1.0):
    """x where x > 0, `alpha * (exp(x / alpha) - 1)` below.

    Barron 2017, "Continuously differentiable exponential linear units".
    """
    return _expm1_below(_float(x), alpha, alpha)


@_public
def gelu(x, approximate=False):
    """x times the normal distribution function at x; `approximate` by a tanh.

    Hendrycks, Gimpel 2016, "Gaussian error linear units (GELUs)", section 2.
    """
    x = _float(x)
    if approximate:
        cube = build.apply("multiply", x, build.apply("square", x))
        inner = build.apply("add", x, build.apply("multiply", cube, 0.044715))
        phi = build.apply("add", build.apply("tanh", build.apply("multiply", inner, math.sqrt(2 / math.pi))), 1)
    else:
        phi = build.apply("erfc", build.apply("multiply", x, -math.sqrt(0.5)))
    return build.apply("multiply", build.apply("multiply", x, 0.5), phi)


@_public
def silu(x):
    """x * sigmoid(x), also called swish.

    Ramachandran, Zoph, Le 2017, "Searching for activation functions".
    """
    return build.apply("multiply", x, build.apply("sigmoid", x))


@_public
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return build.apply("sigmoid", x)


@_public
def log_sigmoid(x):
    """log(sigmoid(x)), exact where sigmoid(x) would be 0."""
    return build.apply("log_sigmoid", x)


@_public
def hard_sigmoid(x):
    """relu6(x + 3) / 6."""
    return _hard_sigmoid(x)


def _hard_sigmoid(x: Node) -> Node:
    return build.apply("divide", _clip(build.apply("add", x, 3), 0, 6), 6.0)


@_public
def hard_silu(x):
    """x * hard_sigmoid(x), also called hard_swish.

    Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """
    return build.apply("multiply", x, _hard_sigmoid(x))


@_public
def tanh(x):
    """Hyperbolic tangent."""
    return build.apply("tanh", x)


@_public
def tanh_shrink(x):
    """x - tanh(x)."""
    return build.apply("subtract", x, build.apply("tanh", x))


@_public
def hard_tanh(x):
    """x kept between -1 and 1."""
    inside = build.apply("where", build.apply("less", x, -1), -1, x)
    return build.apply("where", build.apply("greater", x, 1), 1, inside)


@_public
def hard_shrink(x, threshold=0.5):
    """x where |x| > threshold, else 0."""
    return build.apply("where", build.apply("greater", build.apply("abs", x), threshold), x, 0)


@_public
def soft_shrink(x, threshold=0.5):
    """x moved towards 0 by `threshold`, 0 if it is nearer than that."""
    low = build.apply("where", build.apply("less", x, -threshold), build.apply("add", x, threshold), 0.0)
    return build.apply("where", build.apply("greater", x, threshold), build.apply("subtract", x, threshold), low)


@_public
def threshold(x, threshold, default_value):
    """x where x > threshold, else `default_value`."""
    return build.apply("where", build.apply("greater", x, threshold), x, default_value)


@_public
def softplus(x):
    """log(1 + exp(x)).

    Glorot, Bordes, Bengio 2011, "Deep sparse rectifier neural networks".
    """
    return build.apply("softplus", x)


@_public
def squareplus(x, b=4):
    """(x + sqrt(x² + b)) / 2.

    Barron 2021, "Squareplus: a softplus-like algebraic rectifier".
    """
    x = _float(x)
    root = build.apply("sqrt", build.apply("add", build.apply("square", x), b))
    return build.apply("multiply", build.apply("add", x, root), 0.5)


@_public
def sparse_plus(x):
    """0 up to -1, (x + 1)² / 4 between, x from 1 on: a softplus that reaches 0 and x.

    Blondel, Roulet 2024, "The elements of differentiable programming", section 4.4.
    """
    x = _float(x)
    middle = build.apply("multiply", build.apply("square", build.apply("add", x, 1)), 0.25)
    upper = build.apply("where", build.apply("greater_equal", x, 1), x, middle)
    return build.apply("where", build.apply("less_equal", x, -1), 0, upper)


@_public
def sparse_sigmoid(x):
    """min(max((x + 1) / 2, 0), 1), the derivative of `sparse_plus`."""
    return build.apply("multiply", _clip(build.apply("add", x, 1), 0, 2), 0.5)


@_public
def softsign(x):
    """x / (1 + |x|)."""
    return build.apply("divide", x, build.apply("add", build.apply("abs", x), 1))


@_public
def exponential(x):
    """exp(x)."""
    return build.apply("exp", x)


@_public
def mish(x):
    """x * tanh(softplus(x)).

    Misra 2019, "Mish: a self regularized non-monotonic activation function".
    """
    return build.apply("multiply", x, build.apply("tanh", build.apply("softplus", x)))


@_public
def linear(x):
    """x itself."""
    return x


@_public
def glu(x, axis=-1):
    """The first half of `axis` times the sigmoid of the second. Raises ShapeError if the axis has an odd size.

    Dauphin, Fan, Auli, Grangier 2017, "Language modeling with gated convolutional networks", equation 1.
    """
    axis = _axis(x, axis)
    extent = x.shape[axis]
    if isinstance(extent, int) and extent % 2:
        raise ShapeError(f"glu halves axis {axis} of {x.type}, whose size is odd")
    half = extent // 2
    zero, size = [0] * x.rank, [*x.shape]
    size[axis] = half
    first = build.slice(x, zero, size)
    second = build.slice(x, [half if k == axis else 0 for k in range(x.rank)], size)
    return build.apply("multiply", first, build.apply("sigmoid", second))


def _axis(x: Node, axis: int) -> int:
    if not -x.rank <= axis < x.rank:
        raise ShapeError(f"axis {axis} is out of range for {x.type}, which has {x.rank} axes")
    return axis % x.rank


def _below_largest(x: Node, axis: Any) -> Node:
    """x minus its largest along `axis`: the exponential cannot overflow. The largest has no gradient of its own,
    for softmax does not depend on it."""
    return build.apply("subtract", x, build.stop_gradient(build.max(x, axis, keepdims=True)))


@_public
def softmax(x, axis=-1):
    """exp(x) divided by its sum along `axis` (or several)."""
    x = _float(x)
    power = build.apply("exp", _below_largest(x, axis))
    return build.apply("divide", power, build.sum(power, axis, keepdims=True))


@_public
def log_softmax(x, axis=-1):
    """log(softmax(x)), exact where softmax(x) would be 0."""
    low = _below_largest(_float(x), axis)
    return build.apply("subtract", low, build.apply("log", build.sum(build.apply("exp", low), axis, keepdims=True)))


@_public
def sparsemax(x, axis=-1):
    """The point of the probability simplex nearest to x, along `axis`.

    Martins, Astudillo 2016, "From softmax to sparsemax", algorithm 1. Whether an element is in the support is found by
    comparing it with all the others: n² comparisons and no sorting. Keras 3.15 differs where two or more elements are
    in the support: its results do not add up to 1.
    """
    x = _float(x)
    axis = _axis(x, axis)
    order = [*(k for k in range(x.rank) if k != axis), axis]
    z = build.transpose(x, order)
    n = z.shape[-1]
    wide = (*z.shape, n)
    one = build.broadcast(z, wide, range(z.rank))
    other = build.broadcast(z, wide, [*range(z.rank - 1), z.rank])
    above = build.apply("greater_equal", other, one)
    count = build.sum(build.cast(above, z.dtype), -1)
    total = build.sum(build.apply("where", above, other, 0), -1)
    support = build.apply("greater", build.apply("add", build.apply("multiply", count, z), 1), total)
    inside = build.sum(build.apply("where", support, z, 0), -1, keepdims=True)
    members = build.sum(build.cast(support, z.dtype), -1, keepdims=True)
    tau = build.apply("divide", build.apply("subtract", inside, 1), members)
    result = build.apply("relu", build.apply("subtract", z, tau))
    return build.transpose(result, [order.index(k) for k in range(x.rank)])


swish = silu
hard_swish = hard_silu

registry = Registry(
    "activation",
    [
        relu, leaky_relu, relu6, softmax, celu, elu, selu, softplus, softsign, squareplus, soft_shrink, sparse_plus,
        silu, gelu, glu, tanh, tanh_shrink, threshold, sigmoid, sparse_sigmoid, exponential, hard_sigmoid, hard_silu,
        hard_tanh, hard_shrink, linear, mish, log_softmax, log_sigmoid, sparsemax,
    ],
    names={"swish": silu, "hard_swish": hard_silu},
    default=linear,
)  # fmt: skip


def get(identifier: Any) -> Callable:
    """An activation by name, configuration or as it is; None is `linear`. Raises ArgumentError if it is unknown."""
    return registry.get(identifier)


def serialize(activation: Callable) -> Any:
    """A name for our own functions, Keras's dictionary for others."""
    config = serialize_object(activation)
    if isinstance(config, dict) and registry.objects.get(config.get("config")) is activation:
        return config["config"]
    return config


def deserialize(config: Any, custom_objects: dict | None = None) -> Callable:
    return registry.deserialize(config, custom_objects)
