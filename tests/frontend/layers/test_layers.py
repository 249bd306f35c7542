"""Every layer by `check_layer`."""

import numpy as np
import pytest

from gnomon import layers
from gnomon.registry import register_keras_serializable
from tests.frontend.layers.check import check_layer


@register_keras_serializable()
def double(x):
    return 2 * x


CASES = [
    (layers.Dense, [(4,)], {"units": 3, "activation": "tanh"}),
    (layers.Dense, [(2, 5)], {"units": 1, "use_bias": False, "kernel_regularizer": "l2"}),
    (layers.Dense, [(4,)], {"units": 3, "activity_regularizer": "l1"}),
    (layers.Activation, [(4,)], {"activation": "softplus"}),
    (layers.ReLU, [(4,)], {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}),
    (layers.LeakyReLU, [(4,)], {"negative_slope": 0.2}),
    (layers.ELU, [(4,)], {"alpha": 0.7}),
    (layers.PReLU, [(3, 4)], {"alpha_initializer": "ones", "shared_axes": 1}),
    (layers.Softmax, [(3, 4)], {"axis": (1, 2)}),
    (layers.Flatten, [(3, 1, 2)], {"data_format": "channels_first"}),
    (layers.Reshape, [(3, 4)], {"target_shape": (2, -1)}),
    (layers.Permute, [(3, 4)], {"dims": (2, 1)}),
    (layers.RepeatVector, [(3,)], {"n": 4}),
    (layers.Identity, [(3,)], {}),
    (layers.Rescaling, [(3,)], {"scale": 0.5, "offset": 2.0}),
    (layers.ActivityRegularization, [(3,)], {"l1": 0.1, "l2": 0.2}),
    (layers.Dropout, [(3,)], {"rate": 0.5}),
    (layers.GaussianNoise, [(3,)], {"stddev": 0.5}),
    (layers.GaussianDropout, [(3,)], {"rate": 0.5}),
    (layers.AlphaDropout, [(3,)], {"rate": 0.5}),
    (layers.Add, [(3,), (3,), (1,)], {}),
    (layers.Subtract, [(2, 3), (3,)], {}),
    (layers.Multiply, [(3,), (3,)], {}),
    (layers.Average, [(3,), (3,)], {}),
    (layers.Maximum, [(3,), (3,)], {}),
    (layers.Minimum, [(3,), (3,)], {}),
    (layers.Concatenate, [(2, 3), (2, 1)], {}),
    (layers.Concatenate, [(2, 3), (1, 3)], {"axis": 1}),
    (layers.Dot, [(2, 3), (4, 3)], {"axes": 2, "normalize": True}),
    (layers.Dot, [(3,), (3,)], {"axes": 1}),
    (layers.Lambda, [(3,)], {"function": double}),
]


@pytest.mark.parametrize(("cls", "shapes", "arguments"), CASES, ids=lambda c: c.__name__ if isinstance(c, type) else "")
def test_layer(cls, shapes, arguments):
    check_layer(cls, *shapes, **arguments)


@pytest.mark.parametrize("cls", [layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout])
def test_noise_while_training(cls):
    layer = check_layer(
        cls, (40,), training=True, exact=False, **{"stddev" if cls is layers.GaussianNoise else "rate": 0.25}
    )
    x = np.random.default_rng(0).standard_normal((500, 40)).astype("float32")
    a, b = layer(x, training=True), layer(x, training=True)
    assert (a != b).mean() > 0.2
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_allclose(a.mean(), x.mean(), atol=0.02)
    expected = {layers.Dropout: 1 / 0.75, layers.GaussianNoise: 1 + 0.25**2, layers.GaussianDropout: 1 + 1 / 3}
    np.testing.assert_allclose(a.var(), expected.get(cls, 1), rtol=0.05)
    assert [v.shape for v in layer.variables] == [(2,)]
    assert layer.weights == []
