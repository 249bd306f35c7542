"""Helpers that programs for Keras begin and end with."""

import numpy as np
import pytest

import gnomon
from gnomon.compiler.errors import DataError
from gnomon.utils import normalize, to_categorical


def test_to_categorical():
    np.testing.assert_array_equal(to_categorical([0, 2, 1]), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(to_categorical([[0], [2]], 4), [[1, 0, 0, 0], [0, 0, 1, 0]])
    assert to_categorical([[0, 1], [2, 0]]).shape == (2, 2, 3)
    assert to_categorical([0, 2, 1]).dtype == np.float64
    assert to_categorical([], 3).shape == (0, 3)


@pytest.mark.parametrize("x, message", [
    ([0, 5], r"class numbers 0 to 2, got 5 at position \(1,\) of shape \(2,\)"),
    ([-1], "got -1"), ([0.5], "got 0.5"), (["a"], "got an array of dtype <U1"),
])  # fmt: skip
def test_what_is_no_class_is_named(x, message):
    with pytest.raises(DataError, match=message):
        to_categorical(x, 3)


def test_normalize():
    np.testing.assert_allclose(normalize(np.array([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(normalize([[1.0, 3.0]], order=1), [[0.25, 0.75]])
    np.testing.assert_allclose(normalize([[3.0], [4.0]], axis=0), [[0.6], [0.8]])


def test_names_of_elsewhere():
    assert gnomon.utils.register_keras_serializable is gnomon.saving.register_keras_serializable
    assert all(hasattr(gnomon.utils, name) for name in gnomon.utils.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gnomon.utils.nothing  # noqa: B018
