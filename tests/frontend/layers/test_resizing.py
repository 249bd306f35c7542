"""Layers that prepare images take single ones, batches and dictionaries, and keep dtypes."""

import numpy as np
import pytest

from gnomon import layers, ops
from gnomon.compiler.errors import ArgumentError


def test_integers_stay_integers_when_resized():
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("uint8")
    y = layers.Resizing(9, 4)(x)
    assert y.dtype == "uint8"
    exact = ops.image.resize(x.astype("float64"), (9, 4))
    assert np.abs(y - exact).max() < 0.5 + 1e-4


def test_a_single_image():
    x = np.random.default_rng(0).uniform(size=(5, 7, 3)).astype("float32")
    for layer in (layers.Resizing(3, 9), layers.CenterCrop(3, 4)):
        y = layer(x)
        assert y.shape == (layer.height, layer.width, 3)
        np.testing.assert_allclose(y, layer(x[None])[0], rtol=1e-6)


def test_masks_and_labels_go_along():
    images = np.random.default_rng(0).uniform(size=(2, 6, 8, 3)).astype("float32")
    masks = np.random.default_rng(1).integers(0, 4, (2, 6, 8, 1)).astype("int32")
    labels = np.array([1, 2], "int32")
    layer = layers.Resizing(3, 4)
    y = layer({"images": images, "segmentation_masks": masks, "labels": labels})
    np.testing.assert_array_equal(y["images"], layer(images))
    np.testing.assert_array_equal(y["segmentation_masks"], masks[:, 1::2, 1::2])
    np.testing.assert_array_equal(y["labels"], labels)
    with pytest.raises(ArgumentError, match="'images'"):
        layer({"pictures": images})


def test_center_crop_computes_in_its_own_dtype():
    x = np.arange(60, dtype="uint8").reshape(1, 5, 4, 3)
    y = layers.CenterCrop(3, 2)(x)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, x[:, 1:4, 1:3])
