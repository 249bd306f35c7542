"""Activation functions as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import activations, constraints, initializers, regularizers
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.tensor import Tensor


class Elementwise(Layer):
    """Base of layers that change each element, or each row, and keep the shape."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


class Activation(Elementwise):
    """An activation function, given by name or as a function of a tensor."""

    def __init__(self, activation: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs):
        return self.activation(inputs)

    def get_config(self):
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class ReLU(Elementwise):
    """min(max_value, x) where x >= threshold, negative_slope * (x - threshold) elsewhere."""

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        for name, value in {"max_value": max_value, "negative_slope": negative_slope, "threshold": threshold}.items():
            if (value is None and name != "max_value") or (value is not None and value < 0):
                raise ArgumentError(
                    f"{name} of a ReLU layer cannot be a negative value or None. Received: {name}={value}"
                )
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def call(self, inputs):
        return activations.relu(
            inputs, negative_slope=self.negative_slope, max_value=self.max_value, threshold=self.threshold
        )

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value, "negative_slope": self.negative_slope,
                "threshold": self.threshold}  # fmt: skip


class LeakyReLU(Elementwise):
    """x where x >= 0, negative_slope * x elsewhere."""

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        negative_slope = kwargs.pop("alpha", negative_slope)  # Keras 2's name
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            raise ArgumentError(
                "The negative_slope value of a Leaky ReLU layer cannot be None or negative value. "
                f"Expected a float. Received: negative_slope={negative_slope}"
            )
        self.negative_slope = negative_slope

    def call(self, inputs):
        return activations.leaky_relu(inputs, negative_slope=self.negative_slope)

    def get_config(self):
        return {**super().get_config(), "negative_slope": self.negative_slope}


class ELU(Elementwise):
    """x where x >= 0, alpha * (exp(x) - 1) elsewhere (Clevert, Unterthiner, Hochreiter 2015, equation 9)."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs):
        return activations.elu(inputs, alpha=self.alpha)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


class PReLU(Layer):
    """x where x >= 0, alpha * x elsewhere, with a learned alpha (He, Zhang, Ren, Sun 2015, equation 1).

    alpha: float[inputs without batch, 1 in shared_axes]
    """

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else list(shared_axes) if shared_axes else None

    def build(self, input_shape):
        shared = self.shared_axes or []
        self.alpha = self.add_weight(
            [1 if k in shared else d for k, d in enumerate(input_shape)][1:],
            self.alpha_initializer,
            name="alpha",
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )
        own = {k: d for k, d in enumerate(input_shape) if k and k not in shared} if shared else {}
        self.input_spec = InputSpec(ndim=len(input_shape), axes=own)

    def call(self, inputs):
        return activations.relu(inputs) - self.alpha * activations.relu(-inputs)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "alpha_initializer": initializers.serialize(self.alpha_initializer),
            "alpha_regularizer": regularizers.serialize(self.alpha_regularizer),
            "alpha_constraint": constraints.serialize(self.alpha_constraint),
            "shared_axes": self.shared_axes,
        }


class Softmax(Elementwise):
    """exp(x), divided by its sum over `axis` (one axis or several). Elements outside `mask` get 0."""

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs, mask=None):
        x = inputs.node
        axes = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        kept = None
        if mask is not None:
            kept = mask.node if mask.dtype == "bool" else build.greater(mask.node, 0.5)
            x = build.where(kept, x, -3e4 if inputs.dtype == "float16" else -1e9)
        e = build.apply("exp", build.subtract(x, build.max(x, axes, keepdims=True)))
        y = build.divide(e, build.sum(e, axes, keepdims=True))
        return Tensor(y if kept is None else build.where(kept, y, 0.0))  # 0 also where all of a row is masked

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}
