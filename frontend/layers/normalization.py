"""Layers that give each sample, or groups of its channels, mean 0 and deviation 1, or length 1."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gnomon import constraints, initializers, ops, regularizers
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.layers.activation import Elementwise
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.tensor import Tensor, node_of
from gnomon.variable import Variable


class Normalized(Layer):
    """Base of layers that scale by `gamma` (if `scale`) and shift by `beta` (if `center`) what they have normalized."""

    axis: Any

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.gamma: Variable | None = None
        self.beta: Variable | None = None
        self.supports_masking = True

    def add_scale_and_shift(self, shape: Sequence[int], scale: bool, center: bool) -> None:
        """Make `gamma` and `beta`, those that are wanted. They keep their dtype where the layer computes in halves."""
        if scale:
            self.gamma = self.add_weight(
                shape, self.gamma_initializer, name="gamma", regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint, autocast=False,
            )  # fmt: skip
        if center:
            self.beta = self.add_weight(
                shape, self.beta_initializer, name="beta", regularizer=self.beta_regularizer,
                constraint=self.beta_constraint, autocast=False,
            )  # fmt: skip

    def compute_output_shape(self, input_shape):
        checked_axes(self, self.axis, input_shape)
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
        }


def checked_axis(layer: str, axis: Any) -> Any:
    """One axis, or a list of them, as `axis` of a layer. Raises DTypeError for anything else."""
    several = isinstance(axis, (list, tuple))
    if any(isinstance(a, bool) or not isinstance(a, int) for a in (axis if several else (axis,))):
        raise DTypeError(f"{layer}(axis) is an int or a list/tuple of ints, got {axis!r}")
    return list(axis) if several else axis


def checked_axes(layer: Layer, axis: int | list[int], shape: Sequence[Any]) -> list[int]:
    """`axis` counted from the front. Raises ShapeError if the input has no such axis."""
    given = [axis] if isinstance(axis, int) else axis
    for a in given:
        if not -len(shape) <= a < len(shape):
            raise ShapeError(
                f"{type(layer).__name__}(axis={axis}): axis {a} is out of bounds for an input of shape {tuple(shape)}"
            )
    return [a % len(shape) for a in given]


def wide(x: Any) -> Node:
    """x in float32 at least: sums and squares of halves overflow, and integers have no fractions."""
    node = node_of(x)
    return build.cast(node, dtypes.promote(node.dtype, "float32"))


@dataclass(frozen=True)
class Shifted:
    """x and its moments over some axes, counted from k, the first of the elements that are averaged.

    values     x - k
    first      k; as the others below without the axes averaged over
    offset     the mean minus k
    variance   of the population

    Both sums, of x - k and of its squares, are taken in one pass. Nothing depends on k but for rounding: while the mean
    is at most some deviations away from k, nothing is cancelled, however far both are from 0.
    Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", the algorithm of shifted data.
    """

    values: Node
    first: Node
    offset: Node
    variance: Node

    @classmethod
    def of(cls, x: Node, axes: Sequence[int]) -> Shifted:
        """Raises ShapeError where x is known to be empty."""
        shape, kept = x.shape, [k for k in range(x.rank) if k not in axes]
        first = build.slice(x, [0] * x.rank, [d if k in kept else 1 for k, d in enumerate(shape)])
        first = build.stop_gradient(build.reshape(first, [shape[k] for k in kept]))
        values = build.subtract(x, build.broadcast(first, shape, kept))
        offset = build.mean(values, axes)
        spread = build.subtract(build.mean(build.square(values), axes), build.square(offset))
        # not a maximum, which would halve the gradient where the variance is 0
        return cls(values, first, offset, build.where(build.less(spread, 0.0), 0.0, spread))


class LayerNormalization(Normalized):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with the mean and variance of each sample over `axis`.

    x: float[..., d...]   gamma, beta: float[d...], the sizes of `axis`   result: as x
    axis          the axes that are normalized together, by default the last
    rms_scaling   what Keras once called so: x / sqrt(variance + epsilon) * gamma

    Raises ShapeError if the input lacks an axis, or its size is open.
    Ba, Kiros, Hinton 2016, "Layer normalization", equation 4, with epsilon added to the variance.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ):
        rms_scaling = kwargs.pop("rms_scaling", False)
        if rms_scaling:
            warnings.warn(
                "LayerNormalization(rms_scaling=True) divides by the deviation, not by the root mean square, and is "
                "deprecated: use RMSNormalization",
                stacklevel=2,
            )
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.axis = checked_axis("LayerNormalization", axis)
        self.rms_scaling = rms_scaling
        self.autocast = False

    def build(self, input_shape):
        checked_axes(self, self.axis, input_shape)
        self.axis = [self.axis] if isinstance(self.axis, int) else sorted(self.axis)
        shape = tuple(input_shape[a] for a in self.axis)
        self.add_scale_and_shift(shape, self.scale or self.rms_scaling, self.center and not self.rms_scaling)

    def call(self, inputs):
        outputs = ops.layer_normalization(
            inputs, self.gamma, self.beta, self.axis, self.epsilon, rms_scaling=self.rms_scaling
        )
        return outputs.astype(self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "rms_scaling": self.rms_scaling}


class GroupNormalization(Normalized):
    """Groups of channels of each sample with mean 0 and variance 1, times gamma, plus beta.

    x: float[batch, ..., channels]   gamma, beta: float[channels]   result: as x
    groups   how many; one makes it a layer normalization, -1 (as many as channels) an instance normalization
    axis     that of the channels

    Raises ArgumentError for a number of groups that does not divide the channels, ShapeError for an open number of
    channels. Wu, He 2018, "Group normalization", equations 1 to 3 and 7.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ):
        if isinstance(groups, bool) or not isinstance(groups, int) or (groups <= 0 and groups != -1):
            raise ArgumentError(
                "Received an invalid value for argument `groups`, expected a positive integer (or `-1` for instance "
                f"normalization). Received: groups={groups!r}"
            )
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise DTypeError(f"GroupNormalization(axis) is an int, got {axis!r}")
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.groups, self.axis = groups, axis
        self.autocast = False

    def build(self, input_shape):
        (axis,) = checked_axes(self, self.axis, input_shape)
        if axis == 0:
            raise ShapeError(f"GroupNormalization(axis={self.axis}): axis 0 is that of the samples, not of channels")
        channels = input_shape[axis]
        if channels is None:
            raise ShapeError(
                f"GroupNormalization(axis={self.axis}) needs a known number of channels, got the input shape "
                f"{tuple(input_shape)}: give that axis a size instead of None"
            )
        if self.groups == -1:
            self.groups = channels
        if channels < self.groups:
            raise ArgumentError(
                f"Number of groups ({self.groups}) cannot be more than the number of channels ({channels})."
            )
        if channels % self.groups:
            raise ArgumentError(
                f"The number of channels ({channels}) must be a multiple of the number of groups ({self.groups})."
            )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})
        self.add_scale_and_shift((channels,), self.scale, self.center)

    def call(self, inputs):
        x = wide(inputs)
        axis = self.axis % x.rank
        within = (self.groups, x.shape[axis] // self.groups)
        shape = (*x.shape[:axis], *within, *x.shape[axis + 1 :])
        grouped = build.reshape(x, shape)
        found = Shifted.of(grouped, [k for k in range(1, len(shape)) if k != axis])

        def of_groups(v: Any) -> Any:
            return build.broadcast(v, shape, [0, axis])

        def of_channels(v: Any) -> Any:
            return build.broadcast(build.reshape(build.cast(node_of(v), x.dtype), within), shape, [axis, axis + 1])

        factor = of_groups(build.rsqrt(build.add(found.variance, self.epsilon)))
        if self.gamma is not None:
            factor = build.multiply(factor, of_channels(self.gamma))
        outputs = build.multiply(build.subtract(found.values, of_groups(found.offset)), factor)
        if self.beta is not None:
            outputs = build.add(outputs, of_channels(self.beta))
        return Tensor(build.cast(build.reshape(outputs, x.shape), self.compute_dtype))

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


class RMSNormalization(Layer):
    """x / sqrt(mean of squares over `axis` + epsilon) * scale.

    x: float[..., d...]   scale: float[d...], the sizes of `axis`   result: as x

    Raises ShapeError if the input lacks an axis, or its size is open.
    Zhang, Sennrich 2019, "Root mean square layer normalization", equation 4, with epsilon inside the root.
    """

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = checked_axis("RMSNormalization", axis)
        self.epsilon = epsilon

    def build(self, input_shape):
        checked_axes(self, self.axis, input_shape)
        self.axis = [self.axis] if isinstance(self.axis, int) else sorted(self.axis)
        self.scale = self.add_weight(tuple(input_shape[a] for a in self.axis), "ones", name="scale")

    def call(self, inputs):
        return ops.rms_normalization(inputs, self.scale, self.axis, self.epsilon)

    def compute_output_shape(self, input_shape):
        checked_axes(self, self.axis, input_shape)
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


class UnitNormalization(Elementwise):
    """x divided by its Euclidean length over `axis`; lengths below 1e-12 count as that. result: as x"""

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = checked_axis("UnitNormalization", axis)

    def call(self, inputs):
        return ops.normalize(inputs, axis=self.axis, order=2, epsilon=1e-12)

    def compute_output_shape(self, input_shape):
        checked_axes(self, self.axis, input_shape)
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}
