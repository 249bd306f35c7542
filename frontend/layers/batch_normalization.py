"""BatchNormalization: each channel with mean 0 and deviation 1 over the batch, remembered for inference."""

from __future__ import annotations

from typing import Any

from gnomon import config, initializers, ops
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.normalization import Normalized, Shifted, checked_axes, wide
from gnomon.tensor import Tensor, node_of


class BatchNormalization(Normalized):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, one mean and variance per channel.

    x: float[batch, ..., channels]   all weights: float[channels]   result: as x
    axis      that of the channels; all others are averaged over
    momentum  moving_mean becomes momentum * moving_mean + (1 - momentum) * mean at each training step, and
              moving_variance likewise, within the program of the step
    renorm    correct the statistics of the batch towards moving ones (`renorm_mean`, `renorm_stddev`, which move with
              `renorm_momentum`), by r and d clipped to `renorm_clipping`'s rmin, rmax and dmax
    synchronized  accepted: there is one device

    While training the statistics are those of the batch, of its elements where `mask` holds; otherwise, and always
    while `trainable` is False, the moving ones. The variance is of the population (divide by the count) in both.

    Raises ShapeError for an open number of channels, or another than at first, or a mask of another rank.
    Ioffe, Szegedy 2015, "Batch normalization", algorithm 1, but for the variance that is remembered.
    Ioffe 2017, "Batch renormalization", algorithm 1; there too variances are a population's, and the moving mean and
    deviation of inference are kept apart from those of the correction.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise DTypeError(f"BatchNormalization(axis) is an int, got {axis!r}")
        super().__init__(
            float(epsilon), center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.axis, self.momentum, self.synchronized = axis, float(momentum), synchronized
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.renorm, self.renorm_momentum = renorm, renorm_momentum
        self.renorm_clipping = _checked_clipping(renorm_clipping or {}) if renorm else renorm_clipping

    def build(self, input_shape):
        (axis,) = checked_axes(self, self.axis, input_shape)
        shape = (input_shape[axis],)
        self.add_scale_and_shift(shape, self.scale, self.center)

        def statistic(name: str, initializer: Any) -> Any:
            return self.add_weight(shape, initializer, name=name, trainable=False, autocast=False)

        def deviation(shape: Any, dtype: Any = None) -> Any:
            return ops.sqrt(self.moving_variance_initializer(shape, dtype=dtype))

        self.moving_mean = statistic("moving_mean", self.moving_mean_initializer)
        self.moving_variance = statistic("moving_variance", self.moving_variance_initializer)
        if self.renorm:
            self.moving_stddev = statistic("moving_stddev", deviation)
            self.renorm_mean = statistic("renorm_mean", self.moving_mean_initializer)
            self.renorm_stddev = statistic("renorm_stddev", deviation)
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: shape[0]})

    def call(self, inputs, training=None, mask=None):
        x = Tensor(wide(inputs))
        gamma, beta = (None if v is None else Tensor(wide(v)) for v in (self.gamma, self.beta))
        if training and self.trainable:
            x, mean, centre, variance = self._moments(x.node, None if mask is None else node_of(mask))
            if self.renorm:
                gamma, beta = self._corrected(mean, variance, gamma, beta)
                self._remember_deviation(mean, variance)
            else:
                _move(self.moving_mean, mean, self.momentum)
                _move(self.moving_variance, variance, self.momentum)
            factor = ops.rsqrt(variance + self.epsilon)
            factor = factor if gamma is None else factor * gamma
            # in this form the gradient sums over the batch are two: of g, and of g * x
            shift = -centre * factor if beta is None else beta - centre * factor
            outputs = x * self._spread(factor, x) + self._spread(shift, x)
        else:
            outputs = ops.batch_normalization(
                x, self.moving_mean, self.moving_variance, self.axis, beta, gamma, self.epsilon
            )
        return outputs.astype(self.compute_dtype)

    def _spread(self, v: Tensor, like: Tensor) -> Tensor:
        """One value per channel at each place."""
        return Tensor(build.broadcast(v.node, like.node.shape, [self.axis % like.ndim]))

    def _moments(self, x: Node, mask: Node | None) -> tuple[Tensor, ...]:
        """x counted from somewhere near; then by channel: its mean, this counted from there, and the variance."""
        if mask is None:
            found = Shifted.of(x, [k for k in range(x.rank) if k != self.axis % x.rank])
            mean = build.add(found.first, found.offset)
            return tuple(Tensor(v) for v in (found.values, mean, found.offset, found.variance))
        mean, variance = self._masked_moments(x, mask)
        values = build.subtract(x, build.broadcast(mean, x.shape, [self.axis % x.rank]))
        return Tensor(values), Tensor(mean), Tensor(build.full_like(mean, 0)), Tensor(variance)

    def _masked_moments(self, x: Node, mask: Node) -> tuple[Node, Node]:
        """Of the elements where the mask holds. The mean is taken first: the first element may be one that is not."""
        if mask.rank != x.rank - 1:
            raise ShapeError(
                f"The mask of {self.name!r} should have one axis less than the inputs, which have "
                f"{x.rank}; got a mask {mask.type}"
            )
        axes = [k for k in range(x.rank) if k != self.axis % x.rank]
        kept = build.broadcast_to(build.cast(build.reshape(mask, (*mask.shape, 1)), "bool"), x.shape)
        count = build.add(build.sum(build.cast(kept, x.dtype), axes), config.epsilon())

        def mean_of(v: Node) -> Node:
            return build.divide(build.sum(build.where(kept, v, 0.0), axes), count)

        mean = mean_of(x)
        centred = build.subtract(x, build.broadcast(mean, x.shape, [self.axis % x.rank]))
        return mean, mean_of(build.square(centred))

    def _corrected(self, mean: Tensor, variance: Tensor, gamma: Any, beta: Any) -> tuple[Any, Any]:
        """r * gamma and d * gamma + beta, where x * r + d is normalized as if by the moving statistics."""
        moving = ops.maximum(Tensor(wide(self.renorm_stddev)), self.epsilon**0.5)
        r = ops.sqrt(variance + self.epsilon) / moving
        d = (mean - Tensor(wide(self.renorm_mean))) / moving
        clipping = self.renorm_clipping or {}
        if clipping.get("rmin") is not None:
            r = ops.maximum(r, clipping["rmin"])
        if clipping.get("rmax") is not None:
            r = ops.minimum(r, clipping["rmax"])
        if clipping.get("dmax") is not None:
            d = ops.clip(d, -clipping["dmax"], clipping["dmax"])
        r, d = ops.stop_gradient(r), ops.stop_gradient(d)
        if gamma is not None:
            r, d = r * gamma, d * gamma
        return r, d if beta is None else d + beta

    def _remember_deviation(self, mean: Tensor, variance: Tensor) -> None:
        deviation = ops.sqrt(variance + self.epsilon)
        _move(self.renorm_mean, mean, self.renorm_momentum)
        _move(self.renorm_stddev, deviation, self.renorm_momentum)
        _move(self.moving_mean, mean, self.momentum)
        _move(self.moving_stddev, deviation, self.momentum)
        self.moving_variance.assign(ops.relu(ops.square(self.moving_stddev.value) - self.epsilon))

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "synchronized": self.synchronized,
            "renorm": self.renorm,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }


def _move(variable: Any, value: Tensor, momentum: float) -> None:
    variable.assign(variable.value.astype(value.dtype) * momentum + value * (1.0 - momentum))


def _checked_clipping(clipping: dict[str, float]) -> dict[str, float]:
    unknown = set(clipping) - {"rmax", "rmin", "dmax"}
    if unknown:
        raise ArgumentError(
            "Received invalid keys for `renorm_clipping` argument: "
            f"{sorted(unknown)}. Supported values: 'rmax', 'rmin', 'dmax'."
        )
    rmin, rmax, dmax = (clipping.get(name) for name in ("rmin", "rmax", "dmax"))
    if rmax is not None and rmin is not None and rmax < rmin:
        raise ArgumentError(f"rmax should be at least rmin in `renorm_clipping`. Received: rmax={rmax}, rmin={rmin}.")
    if dmax is not None and dmax < 0:
        raise ArgumentError(f"dmax should be non-negative in `renorm_clipping`. Received: dmax={dmax}.")
    return clipping
