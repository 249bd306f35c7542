# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Random layers for images: what they draw, and what they make of images given what was drawn; configurations."""

from typing import Any

import keras
import numpy as np
from keras import layers

from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}


def record() -> dict[str, Any]:
    CASES.clear()
    for format in ("channels_last", "channels_first"):
        _moving(format)
        _colours(format)
        _several(format)
    return {"cases": dict(CASES)}


def add(layer: str, data_format: str, /, **given: Any) -> None:
    """Record a layer on a batch of three images of 5 rows and 6 columns, and on masks of them."""
    keras.utils.clear_session()
    random = random_of("augmentation")
    top = given.get("value_range", (0, 255))[1]
    images = (top * random.uniform(size=(3, 5, 6, 3))).astype("float32")
    masks = random.integers(0, 4, (3, 5, 6, 1)).astype("float32")
    if data_format == "channels_first":
        images, masks = np.moveaxis(images, -1, 1), np.moveaxis(masks, -1, 1)
    seed = {} if layer == "Equalization" else {"seed": 7}
    made = getattr(layers, layer)(data_format=data_format, **seed, **given)
    drawn = made.get_random_transformation(images)
    drawn = keras.tree.map_structure(lambda v: v if v is None or isinstance(v, int) else np.asarray(v), drawn)
    if isinstance(drawn, dict):
        for name in ("input_shape", "image_height", "image_width", "batch_size"):
            drawn.pop(name, None)
    name = f"{layer}, {data_format}" + "".join(f", {k}={v}" for k, v in given.items())
    assert name not in CASES, name
    labels = random.uniform(size=(3, 4)).astype("float32")
    CASES[name] = {
        "class": layer, "arguments": {"data_format": data_format, **given}, "images": images, "masks": masks,
        "drawn": drawn, "output": np.asarray(made.transform_images(images, drawn)),
        "labels": labels, "labels out": np.asarray(made.transform_labels(labels, drawn)),
        # of MixUp Keras takes others' masks without an axis
        "masks out": masks if layer == "MixUp" else np.asarray(made.transform_segmentation_masks(masks, drawn)),
        "shape": list(made(images, training=True).shape), "config": plain(made.get_config()),
    }  # fmt: skip


def _moving(format: str) -> None:
    for mode in ("horizontal", "vertical", "horizontal_and_vertical"):
        add("RandomFlip", format, mode=mode)
    add("RandomTranslation", format, height_factor=0.3, width_factor=(-0.2, 0.4))
    add("RandomTranslation", format, height_factor=(0.1, 0.1), width_factor=0.5, fill_mode="constant", fill_value=3.0,
        interpolation="nearest")  # fmt: skip
    add("RandomRotation", format, factor=0.2)
    add("RandomRotation", format, factor=(0.1, 0.15), fill_mode="nearest")
    add("RandomZoom", format, height_factor=0.3)
    add("RandomZoom", format, height_factor=(0.1, 0.4), width_factor=(-0.3, -0.2), fill_mode="wrap")
    add("RandomShear", format, x_factor=0.4)
    add("RandomShear", format, x_factor=(0.1, 0.3), y_factor=0.2, fill_mode="constant")
    add("RandomPerspective", format, factor=0.6, scale=0.5)
    add("RandomCrop", format, height=3, width=4)


def _colours(format: str) -> None:
    add("RandomBrightness", format, factor=0.4)
    add("RandomBrightness", format, factor=(-0.2, 0.1), value_range=(0, 1))
    add("RandomContrast", format, factor=0.5)
    add("RandomContrast", format, factor=(0.3, 0.9), value_range=(0, 1))
    add("RandomSaturation", format, factor=(0.2, 0.4), value_range=(0, 1))
    add("RandomHue", format, factor=0.5)
    add("RandomHue", format, factor=(0.1, 0.7), value_range=(0, 1))
    add("RandomColorDegeneration", format, factor=(0.2, 0.9))
    add("RandomSharpness", format, factor=(0.1, 0.9))
    add("RandomPosterization", format, factor=(2, 5))
    add("RandomPosterization", format, factor=3, value_range=(0, 1))
    add("RandomInvert", format, factor=0.5)
    add("RandomGaussianBlur", format, factor=0.7, kernel_size=3, sigma=(0.4, 0.9))
    add("RandomErasing", format, factor=0.8, scale=(0.2, 0.6), fill_value=9.0)
    add("RandomGrayscale", format, factor=0.5)
    add("Solarization", format, addition_factor=0.3, threshold_factor=(0.4, 0.9))


def _several(format: str) -> None:
    add("MixUp", format)
    add("CutMix", format, factor=0.7)
    add("Equalization", format)
    add("Equalization", format, value_range=(0, 1), bins=16)
    add("RandAugment", format)
    add("RandAugment", format, value_range=(0, 1), num_ops=3, factor=0.3)
