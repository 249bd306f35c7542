"""SpectralNormalization: the kernel of a layer divided by its largest singular value."""

from __future__ import annotations

from typing import Any

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.layers.wrapper import Wrapper
from gnomon.surroundings import autocasting
from gnomon.tensor import Tensor


class SpectralNormalization(Wrapper):
    """`layer`, whose `kernel` (or `embeddings`) is divided by an estimate of its spectral norm at each training step.

    The estimate is vᵀWu, W the kernel as a matrix with its last axis as columns, after `power_iterations` of
    v = Wu / |Wu|, u = Wᵀv / |Wᵀv|; u is kept in the weight `vector_u`, float[1, columns]. The divided kernel takes the
    place of the kernel, as in Keras, and the gradient with respect to the kernel goes through the division, u and v
    taken as constants. A kernel of zeros is left as it is.

    Raises ArgumentError if `power_iterations` is not positive or the layer has no kernel.
    Miyato, Kataoka, Koyama, Yoshida 2018, "Spectral normalization for generative adversarial networks", algorithm 1,
    equation 12 for the gradient; there the undivided kernel is kept.
    """

    def __init__(self, layer: Layer, power_iterations: int = 1, **kwargs: Any):
        super().__init__(layer, **kwargs)
        if isinstance(power_iterations, bool) or not isinstance(power_iterations, int) or power_iterations <= 0:
            raise ArgumentError(
                "`power_iterations` should be an integer greater than zero. Received: "
                f"`power_iterations={power_iterations!r}`"
            )
        self.power_iterations = power_iterations

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = InputSpec(min_ndim=1, axes={-1: input_shape[-1]})
        found = [getattr(self.layer, name) for name in ("kernel", "embeddings") if hasattr(self.layer, name)]
        if not found:
            raise ArgumentError(
                f"SpectralNormalization needs a layer with a `kernel` or `embeddings`: {type(self.layer).__name__} "
                f"{self.layer.name!r} has neither"
            )
        self.kernel = found[0]
        self.vector_u = self.add_weight(
            (1, self.kernel.shape[-1]), initializers.TruncatedNormal(stddev=0.02), self.kernel.dtype, trainable=False,
            name="vector_u",
        )  # fmt: skip

    def call(self, inputs, training=False):
        if training:
            vector_u, kernel = self.normalized_weights()
            self.vector_u.assign(vector_u)
            self.kernel.assign(kernel)
        return self.layer(inputs).astype(inputs.dtype)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def normalized_weights(self) -> tuple[Tensor, Tensor]:
        """The next values of `vector_u` and of the kernel, in their own dtype whatever the layer computes in."""
        with autocasting(None):
            kernel, before = self.kernel.value, self.vector_u.value
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        u = before
        for _ in range(self.power_iterations):
            v = ops.normalize(u @ matrix.T)
            u = ops.normalize(v @ matrix)
        u, v = ops.stop_gradient(u), ops.stop_gradient(v)
        empty = ops.all(ops.equal(kernel, 0))
        norm = ops.where(empty, 1.0, ops.reshape(v @ matrix @ u.T, ()))
        return ops.where(empty, before, u), kernel / norm

    def get_config(self):
        return {**super().get_config(), "power_iterations": self.power_iterations}
