"""Layers of mixed policies compute in halves and keep float32 weights, each by its own policy."""

import numpy as np
import pytest

import gnomon
from gnomon import config, dtype_policies, layers, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, DTypeError
from gnomon.optimizers import LossScaleOptimizer
from tests.frontend.layers.check import evaluate

X = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")


@pytest.fixture(autouse=True)
def _policy_of_the_session():
    yield
    config.set_dtype_policy(None)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(3, dtype="mixed_float16"), (4,)),
        (layers.Conv2D(3, 2, dtype="mixed_float16"), (4, 5, 2)),
        (layers.EinsumDense("ab,bc->ac", 3, bias_axes="c", dtype="mixed_float16"), (4,)),
        (layers.PReLU(dtype="mixed_float16"), (4,)),
        (layers.LSTM(3, dtype="mixed_float16"), (5, 4)),
        (layers.BatchNormalization(dtype="mixed_float16"), (4,)),
        (layers.LayerNormalization(dtype="mixed_float16"), (4,)),
        (layers.GroupNormalization(2, dtype="mixed_float16"), (4,)),
        (layers.RMSNormalization(dtype="mixed_float16"), (4,)),
        (layers.SpectralNormalization(layers.Dense(3, dtype="mixed_float16"), dtype="mixed_float16"), (4,)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_output_in_halves_and_weights_in_float32(layer, shape):
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    given = layers.Input(shape)
    output = layer(given)
    assert output.dtype == "float16"
    assert layer(x).dtype == "float16"
    assert layer.compute_output_spec(given).dtype == "float16"
    assert all(w.dtype == "float32" for w in layer.weights)
    plain = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    if isinstance(layer, layers.SpectralNormalization):
        plain.layer = layers.Dense(3)
    plain.build((2, *shape))
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), plain(x), rtol=5e-3, atol=5e-3)
    slope = grad(ops.cast(output, "float32").sum(), layer.trainable_weights)
    assert all(g.dtype == "float32" for g in slope)
    reference = grad(plain(given).sum(), plain.trainable_weights)
    for a, b in zip(slope, reference, strict=True):
        np.testing.assert_allclose(evaluate(a, [given], [x]), evaluate(b, [given], [x]), rtol=2e-2, atol=2e-2)


def test_a_layer_of_another_policy_inside():
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(2, dtype="float32")
            self.outer = layers.Dense(2)

        def call(self, x):
            assert ops.matmul(x, self.w).dtype == "float16"
            y = self.inner(x)
            assert y.dtype == "float32"
            assert self.outer(y).dtype == "float16"
            assert ops.matmul(x, self.w).dtype == "float16"
            return self.outer(y)

        def build(self, input_shape):
            self.w = self.add_weight((4, 2))
            self.kept = self.add_weight((2,), autocast=False)

    config.set_dtype_policy("mixed_float16")
    assert Block()(X).dtype == "float16"
    model = gnomon.Sequential([layers.Input((4,)), Block(), layers.Dense(1, dtype="float32")])
    assert model.output.dtype == "float32"
    assert model(X).dtype == "float32"


def test_training_in_halves():
    config.set_dtype_policy("mixed_float16")
    random = np.random.default_rng(0)
    x = random.standard_normal((256, 4)).astype("float32")
    y = (x @ random.standard_normal((4, 1)) + 0.5).astype("float32")
    model = gnomon.Sequential([
        layers.Input((4,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(),
        layers.Dense(1, dtype="float32"),
    ])  # fmt: skip
    model.compile(optimizer=gnomon.optimizers.Adam(0.02), loss="mse")
    assert isinstance(model.optimizer, LossScaleOptimizer)
    losses = model.fit(x, y, epochs=12, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    assert all(w.dtype == "float32" for w in model.weights)


def test_the_policy_of_the_session():
    assert config.dtype_policy().name == "float32"
    config.set_dtype_policy("mixed_float16")
    assert layers.Dense(1).dtype_policy == layers.DTypePolicy("mixed_float16")
    assert (layers.Dense(1).compute_dtype, layers.Dense(1).dtype) == ("float16", "float32")
    config.set_dtype_policy(None)
    assert layers.Dense(1).compute_dtype == "float32"


def test_policies_of_names():
    policy = dtype_policies.get("mixed_float16")
    assert dtype_policies.deserialize(dtype_policies.serialize(policy)) == policy
    assert dtype_policies.get("float64").variable_dtype == "float64"
    assert isinstance(policy, dtype_policies.FloatDTypePolicy)
    with pytest.raises(DTypeError, match="no bfloat16"):
        layers.Dense(1, dtype="mixed_bfloat16")
    with pytest.raises(ArgumentError, match="half"):
        config.set_dtype_policy("half-ish")
