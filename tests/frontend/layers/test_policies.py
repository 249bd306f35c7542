"""Layers of mixed policies compute in 16 bits and keep float32 weights, each by its own policy."""

import numpy as np
import pytest

import gnomon
from gnomon import config, dtype_policies, layers, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, DTypeError
from gnomon.optimizers import LossScaleOptimizer
from tests.frontend.layers.check import evaluate

try:
    import ml_dtypes as ML_DTYPES  # gives NumPy its bfloat16
except ImportError:
    ML_DTYPES = None

X = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")


@pytest.fixture(autouse=True)
def _policy_of_the_session():
    yield
    config.set_dtype_policy(None)


HALVES = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}
"""Policies, and the largest error that one rounding makes."""


@pytest.mark.parametrize("policy", HALVES)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda p: layers.Dense(3, dtype=p), (4,)),
        (lambda p: layers.Conv2D(3, 2, dtype=p), (4, 5, 2)),
        (lambda p: layers.EinsumDense("ab,bc->ac", 3, bias_axes="c", dtype=p), (4,)),
        (lambda p: layers.PReLU(dtype=p), (4,)),
        (lambda p: layers.LSTM(3, dtype=p), (5, 4)),
        (lambda p: layers.BatchNormalization(dtype=p), (4,)),
        (lambda p: layers.LayerNormalization(dtype=p), (4,)),
        (lambda p: layers.GroupNormalization(2, dtype=p), (4,)),
        (lambda p: layers.RMSNormalization(dtype=p), (4,)),
        (lambda p: layers.SpectralNormalization(layers.Dense(3, dtype=p), dtype=p), (4,)),
    ],
)
def test_output_in_halves_and_weights_in_float32(make, shape, policy):
    layer, unit = make(policy), HALVES[policy]
    half = policy.removeprefix("mixed_")
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    given = layers.Input(shape)
    output = layer(given)
    assert output.dtype == half
    assert layer.compute_output_spec(given).dtype == half
    found = layer(x)
    assert ops.dtype(found) == half or (policy == "mixed_bfloat16" and ML_DTYPES is None)
    assert all(w.dtype == "float32" for w in layer.weights)
    plain = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    if isinstance(layer, layers.SpectralNormalization):
        plain.layer = layers.Dense(3)
    plain.build((2, *shape))
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(np.asarray(found, "float32"), plain(x), rtol=10 * unit, atol=10 * unit)
    slope = grad(ops.cast(output, "float32").sum(), layer.trainable_weights)
    assert all(g.dtype == "float32" for g in slope)
    reference = grad(plain(given).sum(), plain.trainable_weights)
    for a, b in zip(slope, reference, strict=True):
        wanted = evaluate(b, [given], [x])
        far = 40 * unit * max(1, abs(wanted).max())
        np.testing.assert_allclose(evaluate(a, [given], [x]), wanted, rtol=40 * unit, atol=far)


@pytest.mark.parametrize("policy", HALVES)
def test_numbers_of_a_layer_do_not_widen_what_it_gives(policy):
    given = layers.Input((4, 4, 3))
    for layer in (layers.Rescaling(1 / 255, [0.1, 0.2, 0.3], dtype=policy), layers.GaussianNoise(0.1, dtype=policy),
                  layers.Dropout(0.5, dtype=policy), layers.UnitNormalization(dtype=policy)):  # fmt: skip
        assert layer(given).dtype == policy.removeprefix("mixed_")


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


@pytest.mark.parametrize("policy", HALVES)
def test_training_in_halves(policy):
    config.set_dtype_policy(policy)
    gnomon.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.standard_normal((256, 4)).astype("float32")
    y = (x @ random.standard_normal((4, 1)) + 0.5).astype("float32")
    model = gnomon.Sequential([
        layers.Input((4,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(),
        layers.Dense(1, dtype="float32"),
    ])  # fmt: skip
    model.compile(optimizer=gnomon.optimizers.Adam(0.02), loss="mse")
    assert isinstance(model.optimizer, LossScaleOptimizer) == (policy == "mixed_float16")
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


def test_the_names_of_old():
    mixed_precision = gnomon.mixed_precision
    mixed_precision.set_global_policy("mixed_bfloat16")
    assert mixed_precision.global_policy() == mixed_precision.Policy("mixed_bfloat16") == config.dtype_policy()
    assert (layers.Dense(1).compute_dtype, layers.Dense(1).dtype) == ("bfloat16", "float32")


def test_policies_of_names():
    policy = dtype_policies.get("mixed_float16")
    assert dtype_policies.deserialize(dtype_policies.serialize(policy)) == policy
    assert dtype_policies.get("float64").variable_dtype == "float64"
    assert isinstance(policy, dtype_policies.FloatDTypePolicy)
    with pytest.raises(DTypeError, match="mixed_float8"):
        layers.Dense(1, dtype="mixed_float8")
    quantized = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}
    with pytest.raises(ArgumentError, match="QuantizedDTypePolicy"):
        layers.Dense(1, dtype=quantized)
    with pytest.raises(ArgumentError, match="half"):
        config.set_dtype_policy("half-ish")
