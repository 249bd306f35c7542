"""Pooling: every layer by `check_layer`, Keras's numbers, second gradients, masks, mistakes."""

import pytest

from gnomon import layers
from tests.frontend.layers.check import check_layer

FIRST = {"data_format": "channels_first"}
CASES = [
    (layers.MaxPooling1D, (7, 2), {}),
    (layers.MaxPooling1D, (2, 7), {"pool_size": 3, "strides": 2, "padding": "same", **FIRST}),
    (layers.MaxPooling2D, (5, 6, 2), {"pool_size": (2, 3), "strides": 1}),
    (layers.MaxPooling2D, (5, 7, 1), {"padding": "same"}),
    (layers.MaxPooling3D, (3, 4, 3, 2), {"pool_size": 2, "strides": (1, 2, 1)}),
    (layers.AveragePooling1D, (7, 2), {"pool_size": 3, "strides": 2, "padding": "same"}),
    (layers.AveragePooling2D, (2, 5, 6), {"pool_size": (2, 3), **FIRST}),
    (layers.AveragePooling3D, (3, 4, 3, 2), {"pool_size": 2, "padding": "same"}),
    (layers.GlobalMaxPooling1D, (5, 3), {"keepdims": True}),
    (layers.GlobalMaxPooling2D, (3, 4, 5), FIRST),
    (layers.GlobalMaxPooling3D, (3, 2, 2, 3), {}),
    (layers.GlobalAveragePooling1D, (5, 3), {}),
    (layers.GlobalAveragePooling2D, (3, 4, 5), {"keepdims": True, **FIRST}),
    (layers.GlobalAveragePooling3D, (3, 2, 2, 3), {}),
    (layers.AdaptiveAveragePooling1D, (7, 2), {"output_size": 3}),
    (layers.AdaptiveAveragePooling2D, (2, 6, 5), {"output_size": (3, 2), **FIRST}),
    (layers.AdaptiveAveragePooling3D, (4, 3, 5, 2), {"output_size": 2}),
    (layers.AdaptiveMaxPooling1D, (2, 7), {"output_size": 3, **FIRST}),
    (layers.AdaptiveMaxPooling2D, (6, 4, 2), {"output_size": (3, 2)}),
    (layers.AdaptiveMaxPooling3D, (4, 3, 5, 2), {"output_size": (2, 3, 1)}),
]


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=lambda c: c.__name__ if isinstance(c, type) else "")
def test_layer(cls, shape, arguments):
    check_layer(cls, shape, **arguments)
