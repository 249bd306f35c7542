# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Layers that change spatial axes, and the functions of `keras.ops.image`: outputs, gradients, configurations."""

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from . import layers
from .store import plain, random_of

FUNCTIONS: dict[str, dict[str, Any]] = {}


def record() -> dict[str, Any]:
    layers.CASES.clear()
    FUNCTIONS.clear()
    _padding()
    _cropping()
    _up_sampling()
    _resizing()
    _resize()
    _colours()
    _borders()
    _patches()
    _reading()
    _windows()
    dropout = _spatial_dropout()
    return {"layers": dict(layers.CASES), "functions": dict(FUNCTIONS), "spatial dropout": dropout}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


# ---- layers


def _padding() -> None:
    line, image, volume = normal("line", 2, 3, 4), normal("image", 2, 3, 5, 2), normal("volume", 2, 2, 3, 2, 3)
    add = layers.add
    add("ZeroPadding1D", "ZeroPadding1D", line)
    add("ZeroPadding1D, (0, 2)", "ZeroPadding1D", line, padding=(0, 2))
    add("ZeroPadding1D, channels_first", "ZeroPadding1D", line, padding=3, data_format="channels_first")
    add("ZeroPadding2D", "ZeroPadding2D", image)
    add("ZeroPadding2D, 2", "ZeroPadding2D", image, padding=2)
    add("ZeroPadding2D, pairs", "ZeroPadding2D", image, padding=((1, 0), (2, 3)))
    add("ZeroPadding2D, channels_first", "ZeroPadding2D", image, padding=(1, 2), data_format="channels_first")
    add("ZeroPadding3D", "ZeroPadding3D", volume)
    add("ZeroPadding3D, pairs", "ZeroPadding3D", volume, padding=((1, 0), (2, 3), (0, 0)))
    add("ZeroPadding3D, channels_first", "ZeroPadding3D", volume, padding=(1, 0, 2), data_format="channels_first")


def _cropping() -> None:
    line, image, volume = normal("long", 2, 6, 4), normal("big", 2, 5, 6, 5), normal("deep", 1, 4, 5, 4, 5)
    add = layers.add
    add("Cropping1D", "Cropping1D", line)
    add("Cropping1D, (0, 2)", "Cropping1D", line, cropping=(0, 2))
    add("Cropping1D, 2", "Cropping1D", line, cropping=2)
    add("Cropping2D", "Cropping2D", image)
    add("Cropping2D, 1", "Cropping2D", image, cropping=1)
    add("Cropping2D, pairs", "Cropping2D", image, cropping=((1, 0), (2, 3)))
    add("Cropping2D, channels_first", "Cropping2D", image, cropping=(1, 2), data_format="channels_first")
    add("Cropping3D", "Cropping3D", volume)
    add("Cropping3D, pairs", "Cropping3D", volume, cropping=((1, 0), (2, 0), (0, 0)))
    add("Cropping3D, channels_first", "Cropping3D", volume, cropping=(1, 0, 2), data_format="channels_first")


def _up_sampling() -> None:
    image = normal("image", 2, 3, 5, 2)
    add = layers.add
    add("UpSampling1D", "UpSampling1D", normal("line", 2, 3, 4))
    add("UpSampling1D, 3", "UpSampling1D", normal("line", 2, 3, 4), size=3)
    add("UpSampling2D", "UpSampling2D", image)
    add("UpSampling2D, (3, 1)", "UpSampling2D", image, size=(3, 1))
    add("UpSampling2D, channels_first", "UpSampling2D", image, size=(1, 2), data_format="channels_first")
    for interpolation in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
        add(f"UpSampling2D, {interpolation}", "UpSampling2D", image, interpolation=interpolation)
        add(f"UpSampling2D, {interpolation}, channels_first", "UpSampling2D", normal("image first", 1, 2, 4, 3),
            size=(3, 2), interpolation=interpolation, data_format="channels_first")  # fmt: skip
    add("UpSampling3D", "UpSampling3D", normal("volume", 2, 2, 3, 2, 3))
    add("UpSampling3D, channels_first", "UpSampling3D", normal("volume", 2, 2, 3, 2, 3), size=(2, 1, 3),
        data_format="channels_first")  # fmt: skip


def _resizing() -> None:
    image = normal("resizing", 2, 5, 7, 3)
    add = layers.add
    add("Resizing", "Resizing", image, height=4, width=9)
    add("Resizing, nearest", "Resizing", image, height=4, width=9, interpolation="nearest")
    add("Resizing, antialias", "Resizing", image, height=2, width=3, interpolation="bicubic", antialias=True)
    add("Resizing, crop", "Resizing", image, height=4, width=4, crop_to_aspect_ratio=True)
    add("Resizing, pad", "Resizing", image, height=4, width=4, pad_to_aspect_ratio=True, fill_value=0.5)
    add("Resizing, channels_first", "Resizing", normal("resizing first", 2, 3, 5, 4), height=3, width=6,
        data_format="channels_first")  # fmt: skip
    add("CenterCrop", "CenterCrop", image, height=3, width=4)
    add("CenterCrop, of all", "CenterCrop", image, height=5, width=7)
    add("CenterCrop, larger", "CenterCrop", image, height=8, width=4)
    add("CenterCrop, channels_first", "CenterCrop", normal("resizing first", 2, 3, 5, 4), height=3, width=3,
        data_format="channels_first")  # fmt: skip


def _spatial_dropout() -> dict[str, Any]:
    """What values occur, which axes share their fate, and configurations."""
    found = {}
    for layer, shape, given in (
        ("SpatialDropout1D", (40, 3, 20), {}), ("SpatialDropout2D", (40, 2, 3, 20), {}),
        ("SpatialDropout2D", (40, 20, 3, 2), {"data_format": "channels_first"}),
        ("SpatialDropout3D", (40, 2, 3, 2, 20), {}),
        ("SpatialDropout3D", (40, 20, 3, 2, 2), {"data_format": "channels_first", "seed": 3}),
    ):  # fmt: skip
        keras.utils.clear_session()
        made = getattr(keras.layers, layer)(0.25, **given)
        y = np.asarray(made(np.ones(shape, "float32"), training=True))
        shared = [k for k in range(1, y.ndim) if (y == y.take([0], k)).all()]
        found[f"{layer} {given}"] = {
            "class": layer, "arguments": {"rate": 0.25, **given}, "shape": list(shape), "shared": shared,
            "values": sorted({float(v) for v in np.unique(y)}), "config": plain(made.get_config()),
        }  # fmt: skip
    return found


# ---- functions


def add_function(name: str, *given: Any, **options: Any) -> None:
    """Record a function of `keras.ops.image`, and the gradients of sum(value * weight) for float arrays."""
    label = name + "".join(f", {k}={v}" for k, v in options.items() if not hasattr(v, "shape"))
    label += "".join(f", {x.dtype}{list(x.shape)}" for x in given if hasattr(x, "shape"))
    function: Callable[..., Any] = getattr(keras.ops.image, name)
    value = np.asarray(function(*given, **options))
    case = {"function": name, "given": list(given), "options": options, "value": value}
    places = [k for k, x in enumerate(given) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    if places and value.dtype == "float32":
        weight = case["weight"] = normal(f"spatial weight {value.shape}", *value.shape)

        def total(*arrays: Any) -> Any:
            x = list(given)
            for k, array in zip(places, arrays, strict=True):
                x[k] = array
            return (function(*x, **options) * weight).sum()

        found = jax.grad(total, argnums=tuple(range(len(places))))(*(given[k] for k in places))
        case["gradients"] = {str(k): np.asarray(g) for k, g in zip(places, found, strict=True)}
    assert label not in FUNCTIONS, label
    FUNCTIONS[label] = case


def bytes_of(name: str, *shape: int) -> np.ndarray:
    return random_of(name).integers(0, 256, shape).astype("uint8")


def _resize() -> None:
    image, first = normal("resize", 2, 5, 8, 2), normal("resize first", 2, 2, 5, 4)
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
        for size in ((3, 11), (10, 4), (5, 16)):
            for antialias in (False, True):
                add_function("resize", image, size=size, interpolation=interpolation, antialias=antialias)
        add_function("resize", first, size=(7, 3), interpolation=interpolation, data_format="channels_first")
        add_function("resize", bytes_of("resize", 6, 4, 3), size=(4, 5), interpolation=interpolation)
    add_function("resize", normal("resize one", 1, 1, 3, 1), size=(4, 4))
    add_function("resize", normal("resize alone", 4, 3, 2), size=(2, 2), antialias=True)
    for size in ((4, 4), (3, 8), (8, 3)):
        add_function("resize", image, size=size, crop_to_aspect_ratio=True)
        add_function("resize", image, size=size, pad_to_aspect_ratio=True, fill_value=0.25)
    add_function("resize", first, size=(4, 4), crop_to_aspect_ratio=True, data_format="channels_first")
    add_function("resize", first, size=(4, 4), pad_to_aspect_ratio=True, data_format="channels_first")


def _colours() -> None:
    colour = random_of("colours").uniform(size=(2, 4, 3, 3)).astype("float32")
    colour[0, 0] = [[0, 0, 0], [0.5, 0.5, 0.5], [1, 0, 0]]
    smooth = random_of("colours smooth").uniform(0.1, 0.9, (3, 4, 3)).astype("float32")
    add_function("rgb_to_grayscale", colour)
    add_function("rgb_to_grayscale", bytes_of("colours", 3, 4, 3))
    add_function("rgb_to_grayscale", np.moveaxis(colour, -1, 1), data_format="channels_first")
    add_function("rgb_to_grayscale", colour[..., :1])
    for name in ("rgb_to_hsv", "hsv_to_rgb"):
        add_function(name, smooth)
        add_function(name, np.moveaxis(smooth, -1, 0), data_format="channels_first")
    value = np.asarray(keras.ops.image.rgb_to_hsv(colour))
    FUNCTIONS["rgb_to_hsv of grays"] = {"function": "rgb_to_hsv", "given": [colour], "options": {}, "value": value}


def _borders() -> None:
    image, first = normal("borders", 2, 5, 6, 2), normal("borders first", 2, 5, 6)
    add_function("pad_images", image, top_padding=1, left_padding=2, target_height=8, target_width=9)
    add_function("pad_images", image, bottom_padding=1, right_padding=2, top_padding=0, left_padding=3)
    add_function("pad_images", first, bottom_padding=1, right_padding=2, target_height=8, target_width=9,
                 data_format="channels_first")  # fmt: skip
    add_function("crop_images", image, top_cropping=1, left_cropping=2, target_height=3, target_width=2)
    add_function("crop_images", image, bottom_cropping=1, right_cropping=2, top_cropping=0, left_cropping=3)
    add_function("crop_images", first, bottom_cropping=1, right_cropping=2, target_height=3, target_width=2,
                 data_format="channels_first")  # fmt: skip


def _patches() -> None:
    image, volume = normal("patches", 2, 7, 6, 2), normal("patches 3", 1, 5, 4, 4, 2)
    add_function("extract_patches", image, size=3)
    add_function("extract_patches", image, size=(2, 3), strides=(1, 2))
    add_function("extract_patches", image, size=3, strides=1, dilation_rate=2)
    add_function("extract_patches", image, size=(3, 2), strides=2, padding="same")
    add_function("extract_patches", image[0], size=3, strides=1)
    add_function("extract_patches", np.moveaxis(image, -1, 1), size=(2, 3), data_format="channels_first")
    add_function("extract_patches", volume, size=(2, 2, 2))
    add_function("extract_patches_3d", volume, size=2, strides=(1, 2, 1), padding="same")
    add_function("extract_patches_3d", np.moveaxis(volume[0], -1, 0), size=2, data_format="channels_first")


def _reading() -> None:
    plane = normal("reading", 4, 5)
    places = random_of("reading places").uniform(-4, 8, (2, 3, 6)).astype("float32")
    for mode in ("constant", "nearest", "wrap", "mirror", "reflect"):
        for order in (0, 1):
            add_function("map_coordinates", plane, places, order=order, fill_mode=mode, fill_value=0.5)
    add_function("map_coordinates", bytes_of("reading", 4, 5), places, order=1)
    add_function("map_coordinates", normal("reading 1", 6), places[:1, 0], order=1, fill_mode="reflect")
    add_function("map_coordinates", normal("reading 3", 3, 4, 2), np.concatenate([places, places[:1] / 3]), order=1)
    image = normal("affine", 2, 5, 6, 2)
    turn = np.array([[0.9, -0.2, 1.1, 0.3, 1.2, -0.7, 0, 0], [1.4, 0.1, -2.3, 0, 0.8, 1.6, 0, 0]], "float32")
    for mode in ("constant", "nearest", "wrap", "mirror", "reflect"):
        add_function("affine_transform", image, turn, fill_mode=mode, fill_value=0.5)
    add_function("affine_transform", image, turn, interpolation="nearest")
    add_function("affine_transform", image[0], turn[0], fill_mode="reflect")
    add_function("affine_transform", np.moveaxis(image, -1, 1), turn, data_format="channels_first")
    add_function("affine_transform", bytes_of("affine", 2, 5, 6, 3), turn, fill_mode="nearest")
    # no pixel is read at a whole place, where there are two derivatives
    start = np.array([[[0.1, 0.2], [0.3, 4.1], [5.2, 0.3], [5.1, 4.3]],
                      [[0.2, 0.3], [5, 0.1], [0.4, 4], [5, 4.2]]], "float32")
    end = np.array([[[1, 0.3], [0, 3], [4, 1], [5, 5]], [[0.3, 0.2], [4, 1], [1, 5], [6, 4]]], "float32")
    add_function("perspective_transform", image, start, end)
    add_function("perspective_transform", image, start, end, interpolation="nearest", fill_value=1.0)
    add_function("perspective_transform", image[0], start[0], end[0])
    add_function("perspective_transform", np.moveaxis(image, -1, 1), start, end, data_format="channels_first")
    add_function("scale_and_translate", image, output_shape=(2, 4, 9, 2), scale=np.array([0.7, 1.5], "float32"),
                 translation=np.array([0.4, -1.2], "float32"), spatial_dims=(1, 2), method="bilinear")  # fmt: skip
    add_function("scale_and_translate", image, output_shape=(2, 4, 9, 2), scale=np.array([0.7, 1.5], "float32"),
                 translation=np.array([0.4, 2.2], "float32"), spatial_dims=(1, 2), method="cubic",
                 antialias=False)  # fmt: skip


def _windows() -> None:
    image = normal("windows", 2, 6, 7, 2)
    add_function("gaussian_blur", image, data_format="channels_last")
    add_function("gaussian_blur", image, kernel_size=(3, 5), sigma=(0.8, 2.0), data_format="channels_last")
    add_function("gaussian_blur", np.moveaxis(image, -1, 1), kernel_size=(5, 5), data_format="channels_first")
    add_function("gaussian_blur", image[0], kernel_size=(4, 3), data_format="channels_last")
    add_function("sobel_edges", image)
    add_function("sobel_edges", np.moveaxis(image, -1, 1), data_format="channels_first")
    one, other = (random_of(f"ssim {k}").uniform(size=(2, 12, 13, 2)).astype("float32") for k in range(2))
    add_function("ssim", one, other)
    add_function("ssim", one, 0.9 * one + 0.1 * other, max_val=2.0, filter_size=7, filter_sigma=1.0, k1=0.02, k2=0.1)
    add_function("ssim", one[0], other[0])
    one, other = np.moveaxis(one, -1, 1), np.moveaxis(other, -1, 1)
    add_function("ssim", one, other, filter_size=5, data_format="channels_first")
