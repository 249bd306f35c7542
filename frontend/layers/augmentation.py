"""Layers that move pixels at random while training, each image in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gnomon import ops, random
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.ops import build
from gnomon.layers.resizing import ImageLayer, checked_size, resized_shape
from gnomon.ops.warping import FILL_MODES, ORDERS, displaced
from gnomon.tensor import Tensor, node_of

Range = tuple[float, float]
Factor = float | Sequence[float]


def as_range(layer: str, name: str, value: Any, bounds: Range, mirrored: bool = True, loose: bool = False) -> Range:
    """(lower, upper) from a pair, or from a number, which with `mirrored` stands for (-number, number).

    loose   a pair need only overlap with the bounds, and a number's lower end is kept within them
    Raises ArgumentError for what is outside the bounds.
    """
    low, high = bounds
    pair = list(value) if isinstance(value, (list, tuple)) else [value]
    good = len(pair) in (1, 2) and (len(pair) == 2 or not isinstance(value, (list, tuple)))
    good = good and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pair)
    if good and loose and len(pair) == 2:
        good = pair[0] <= high and pair[1] >= low
    elif good:
        good = all(low <= v <= high for v in pair)
    if not good:
        raise ArgumentError(
            f"The `{name}` argument of {layer} should be a number (or a list of two numbers) in the range "
            f"[{low}, {high}]. Received: {name}={value!r}"
        )
    if len(pair) == 2:
        return min(pair), max(pair)
    if not mirrored:
        return 0, pair[0]
    lower = -abs(pair[0])
    return max(lower, low) if loose else lower, abs(pair[0])


class RandomLayer(ImageLayer):
    """Base: draws while training with a stream of random numbers of its own, and passes on what it gets otherwise."""

    bounds: Range = (-1.0, 1.0)

    def __init__(self, seed: int | None = None, data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.seed = seed
        self.generator = random.SeedGenerator(seed)

    def get_random_transformation(self, data, training=True, seed=None):
        if not training:
            return None
        images = data["images"] if isinstance(data, dict) else data
        return self.draw(node_of(images).shape, self.generator if seed is None else seed)

    def draw(self, shape: Any, seed: Any) -> Any:
        """What is drawn for images of this shape, a batch."""
        raise NotImplementedError

    def transform_images(self, images, transformation=None, training=True):
        images = ops.cast(images, self.compute_dtype)
        return self.change(images, transformation) if training and transformation is not None else images

    def change(self, images: Any, drawn: Any) -> Any:
        """Images with what was drawn done to them."""
        raise NotImplementedError

    def uniform(self, shape: Any, limits: Range, seed: Any) -> Any:
        return random.uniform(shape, limits[0], limits[1], self.compute_dtype, seed)

    def factor_of(self, value: Any, name: str = "factor") -> Range:
        return as_range(type(self).__name__, name, value, self.bounds, loose=True)

    def extents(self, shape: Any) -> tuple[Any, Any]:
        """Rows and columns, as numbers of the layer's dtype (or Tensors of them where they are open)."""
        rows = 2 if self.data_format == "channels_first" else 1
        height, width = (
            float(d) if isinstance(d, int) else Tensor(build.size(d, self.compute_dtype))
            for d in shape[rows : rows + 2]
        )
        return height, width

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


class Warp(RandomLayer):
    """Base of layers that read each pixel at another place, chosen by numbers for each image."""

    def __init__(
        self, fill_mode: str, interpolation: str, seed: int | None, fill_value: float, data_format: str | None,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(seed, data_format, **kwargs)
        for name, value, allowed in (
            ("fill_mode", fill_mode, FILL_MODES), ("interpolation", interpolation, tuple(ORDERS))
        ):  # fmt: skip
            if value not in allowed:
                raise ArgumentError(f"Unknown `{name}` {value!r} of {type(self).__name__}: expected one of {allowed}")
        self.fill_mode, self.interpolation, self.fill_value = fill_mode, interpolation, fill_value

    def change(self, images, drawn):
        return self.warped(images, drawn, self.interpolation)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        if not training or transformation is None:
            return segmentation_masks
        return self.warped(segmentation_masks, transformation, "nearest")

    def warped(self, images: Any, drawn: Any, interpolation: str) -> Any:
        return ops.image.affine_transform(
            images, self.matrix(images, drawn), interpolation, self.fill_mode, self.fill_value, self.data_format
        )

    def matrix(self, images: Any, drawn: Any) -> Any:
        """The eight numbers of each image's `affine_transform`, [batch, 8]."""
        raise NotImplementedError

    def get_config(self):
        return {
            **super().get_config(),
            "fill_mode": self.fill_mode,
            "interpolation": self.interpolation,
            "fill_value": self.fill_value,
        }


def affine(like: Any, a0: Any, a1: Any, a2: Any, b0: Any, b1: Any, b2: Any) -> Any:
    """Columns [batch, 1] (or numbers) side by side, with the two zeros that complete a transform."""
    zero = ops.zeros_like(like)
    return ops.concatenate([zero + v for v in (a0, a1, a2, b0, b1, b2, 0.0, 0.0)], axis=1)


class RandomFlip(RandomLayer):
    """Half of the images, chosen at random, mirrored.

    mode   'horizontal' (left and right exchanged), 'vertical', or 'horizontal_and_vertical' (both at once, or none)

    Raises ArgumentError for another mode.
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, data_format, **kwargs)
        modes = ("horizontal", "vertical", "horizontal_and_vertical")
        if mode not in modes:
            raise ArgumentError(f"mode must be one of {', '.join(map(repr, modes))}, got {mode!r}")
        self.mode = mode

    def draw(self, shape, seed):
        return {"flips": random.uniform((shape[0], 1, 1, 1), seed=seed) <= 0.5}

    def change(self, images, drawn):
        layout = self.layout(node_of(images))
        axes = [layout.columns] * ("horizontal" in self.mode) + [layout.rows] * ("vertical" in self.mode)
        return ops.where(drawn["flips"], ops.flip(images, tuple(axes)), images)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.change(segmentation_masks, transformation) if training else segmentation_masks

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


class RandomTranslation(Warp):
    """Images moved by parts of their height and width.

    height_factor, width_factor   a part (both ways) or a pair of them, in [-1, 1]; positive: down, to the right
    fill_mode, fill_value   what comes in, as for `gnomon.ops.image.affine_transform`
    interpolation   'bilinear' or 'nearest'; masks always use 'nearest'

    Raises ArgumentError for parts out of range, unknown modes and interpolations.
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._heights = as_range("RandomTranslation", "height_factor", height_factor, self.bounds)
        self._widths = as_range("RandomTranslation", "width_factor", width_factor, self.bounds)

    def draw(self, shape, seed):
        rows, columns = self.extents(shape)
        down = self.uniform((shape[0], 1), self._heights, seed) * rows
        right = self.uniform((shape[0], 1), self._widths, seed) * columns
        return {"translations": ops.concatenate([right, down], axis=1)}

    def matrix(self, images, drawn):
        right, down = drawn["translations"][:, 0:1], drawn["translations"][:, 1:2]
        return affine(right, 1.0, 0.0, -right, 0.0, 1.0, -down)

    def get_config(self):
        return {**super().get_config(), "height_factor": self.height_factor, "width_factor": self.width_factor}


class RandomRotation(Warp):
    """Images turned about their middle.

    factor   a part of a full turn (both ways) or a pair of them, in [-1, 1]; positive: against the clock
    fill_mode, interpolation, fill_value   as for `RandomTranslation`

    Raises ArgumentError for parts out of range, unknown modes and interpolations.
    """

    def __init__(
        self,
        factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = self.factor_of(factor)

    def draw(self, shape, seed):
        angle = self.uniform((shape[0], 1), self.factor, seed) * (2 * np.pi)
        cosine, sine = ops.cos(angle), ops.sin(angle)
        x, y = (0.5 * (d - 1) for d in reversed(self.extents(shape)))
        return {
            "rotation_matrix": affine(
                angle, cosine, -sine, x - x * cosine + y * sine, sine, cosine, y - x * sine - y * cosine
            )
        }

    def matrix(self, images, drawn):
        return drawn["rotation_matrix"]

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class RandomZoom(Warp):
    """Images enlarged or made smaller about their middle.

    height_factor   a part (both ways) or a pair of them, in (-1, 1]: -0.2 shows the middle 80 % enlarged
    width_factor    likewise; None keeps the proportions
    fill_mode, interpolation, fill_value   as for `RandomTranslation`

    Raises ArgumentError for parts out of range, unknown modes and interpolations.
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._heights = self._zooms("height_factor", height_factor)
        self._widths = None if width_factor is None else self._zooms("width_factor", width_factor)

    def _zooms(self, name: str, value: Any) -> Range:
        limits = as_range("RandomZoom", name, value, (-1.0, 1.0))
        if isinstance(value, (list, tuple)) and limits[0] == -1:
            raise ArgumentError(f"RandomZoom({name}) must be greater than -1, where nothing is left; got {value!r}")
        return 1.0 + limits[0], 1.0 + limits[1]

    def draw(self, shape, seed):
        height = self.uniform((shape[0], 1), self._heights, seed)
        width = height if self._widths is None else self.uniform((shape[0], 1), self._widths, seed)
        return {"height_zoom": height, "width_zoom": width}

    def matrix(self, images, drawn):
        down, right = drawn["height_zoom"], drawn["width_zoom"]
        rows, columns = self.extents(node_of(images).shape)
        return affine(
            right, right, 0.0, (columns - 1) / 2 * (1.0 - right), 0.0, down, (rows - 1) / 2 * (1.0 - down)
        )

    def get_config(self):
        return {**super().get_config(), "height_factor": self.height_factor, "width_factor": self.width_factor}


class RandomShear(Warp):
    """Images slanted: columns moved by a part of their row's number, rows by a part of their column's.

    x_factor, y_factor   a part (both ways) in [0, 1], or a pair in [-1, 1]; then, at random, the other way round
    fill_mode, interpolation, fill_value   as for `RandomTranslation`

    Raises ArgumentError for parts out of range, unknown modes and interpolations.
    """

    def __init__(
        self,
        x_factor: Factor = 0.0,
        y_factor: Factor = 0.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.x_factor, self.y_factor = (
            as_range("RandomShear", name, value, (-1.0, 1.0) if isinstance(value, (list, tuple)) else (0.0, 1.0))
            for name, value in (("x_factor", x_factor), ("y_factor", y_factor))
        )

    def draw(self, shape, seed):
        sign = ops.where(self.uniform((shape[0], 1), (0.0, 1.0), seed) > 0.5, -1.0, 1.0)
        y, x = (self.uniform((shape[0], 1), limits, seed) for limits in (self.y_factor, self.x_factor))
        return {"shear_factor": ops.concatenate([x, y], axis=1) * ops.cast(sign, self.compute_dtype)}

    def matrix(self, images, drawn):
        x, y = drawn["shear_factor"][:, 0:1], drawn["shear_factor"][:, 1:2]
        return affine(x, 1.0, x, 0.0, y, 1.0, 0.0)

    def get_config(self):
        return {**super().get_config(), "x_factor": self.x_factor, "y_factor": self.y_factor}


def chosen(share: Range, batch: Any, draw: Any) -> Any:
    """For each image whether something is done to it, with a probability that is drawn from `share` itself."""
    probability = draw((batch, 1, 1, 1), share)
    return draw((batch, 1, 1, 1), (0.0, 1.0)) < probability


class RandomPerspective(Warp):
    """Some of the images drawn as if seen from elsewhere: their corners moved, each by itself.

    factor   the probability, or a pair that it is drawn from
    scale    how far corners move at most, as a part of twice the height and width
    interpolation, fill_value   as for `RandomTranslation`

    Raises ArgumentError for parts out of range and unknown interpolations.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: float = 1.0,
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__("constant", interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = self.factor_of(factor)
        self.scale = as_range("RandomPerspective", "scale", scale, self.bounds)[1]

    def draw(self, shape, seed):
        batch = shape[0]
        apply = chosen(self.factor, batch, partial(self.uniform, seed=seed))
        away = self.uniform((batch, 4, 2), (-0.5 * self.scale, 0.5 * self.scale), seed)
        bottom, right = (d - 1 for d in self.extents(shape))
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], self.compute_dtype)
        start = ops.stack([corners[:, 0] * right, corners[:, 1] * bottom], axis=-1)
        start = ops.zeros_like(away) + start
        return {"apply_perspective": apply, "start_points": start, "end_points": start + start * away}

    def warped(self, images, drawn, interpolation):
        moved = ops.image.perspective_transform(
            images, drawn["start_points"], drawn["end_points"], interpolation, self.fill_value, self.data_format
        )
        return ops.where(as_column(drawn["apply_perspective"]), moved, images)

    def get_config(self):
        config = {**super().get_config(), "factor": self.factor, "scale": self.scale}
        config.pop("fill_mode")
        return config


def as_column(x: Any) -> Any:
    """One value for each image, as [batch, 1, 1, 1]."""
    return ops.reshape(x, (-1, 1, 1, 1))


class RandomElasticTransform(Warp):
    """Some of the images distorted as by `gnomon.ops.image.elastic_transform`.

    factor   the probability, or a pair that it is drawn from
    scale    how strong, in [0, 1], or a pair that it is drawn from: pixels move by up to about a tenth of the size
    fill_mode, interpolation, fill_value   as for `RandomTranslation`
    value_range   what the values are kept in

    The blur has as many pixels as the strongest distortion needs, whatever is drawn. Raises ArgumentError for parts
    out of range, unknown modes and interpolations; ShapeError for images of open size.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: Factor = 1.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor, self.scale = self.factor_of(factor), self.factor_of(scale, "scale")
        self.value_range = value_range

    def draw(self, shape, seed):
        batch, (rows, columns) = shape[0], self.extents(shape)
        if not isinstance(rows, float) or not isinstance(columns, float):
            raise ShapeError(f"RandomElasticTransform needs images of known size, got [{', '.join(map(str, shape))}]")
        if self.scale[1] == 0 or self.factor[1] == 0:
            return None
        apply = chosen(self.factor, batch, partial(self.uniform, seed=seed))
        strength = self.uniform((), self.scale, seed)
        sigma, alpha = strength * (0.05 * min(rows, columns)), strength * (0.1 * max(rows, columns))
        width = int(6 * 0.05 * min(rows, columns) * self.scale[1]) | 1
        noise = (random.normal((batch, int(rows), int(columns), 1), 0.0, 1.0, self.compute_dtype, seed) for _ in "xy")
        dx, dy = (
            ops.image.gaussian_blur(v * sigma, (width, width), (sigma, sigma), "channels_last")[..., 0] * alpha
            for v in noise
        )
        return {"apply_transform": apply, "dx": dx, "dy": dy}

    def warped(self, images, drawn, interpolation):
        moved = displaced(
            images, drawn["dx"], drawn["dy"], interpolation, self.fill_mode, self.fill_value, self.data_format
        )
        return ops.where(as_column(drawn["apply_transform"]), moved, images)

    def change(self, images, drawn):
        return ops.clip(super().change(images, drawn), *self.value_range)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "scale": self.scale, "value_range": self.value_range}


class RandomCrop(RandomLayer):
    """`height` rows and `width` columns of images, at one random place for the whole batch.

    Where there is nothing to choose, images having no more rows or no more columns, and when not training: the largest
    middle part of the right proportions, resized. (So says Keras's documentation; its code does less.)

    Raises ArgumentError unless the sizes are positive integers, ShapeError for images of open size.
    """

    def __init__(
        self, height: int, width: int, seed: int | None = None, data_format: str | None = None, name: str | None = None,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(seed, data_format, name=name, **kwargs)
        self.height, self.width = checked_size("RandomCrop", height, width)

    def draw(self, shape, seed):
        rows, columns = self.extents(shape)
        if not isinstance(rows, float) or not isinstance(columns, float):
            raise ShapeError(f"RandomCrop needs images of known size, got [{', '.join(map(str, shape))}]")
        spare = rows - self.height, columns - self.width
        if min(spare) <= 0:
            return None
        return tuple(ops.cast(random.uniform((), 0.0, d + 1, seed=seed), "int32") for d in spare)

    def transform_images(self, images, transformation=None, training=True):
        return self._cropped(ops.cast(images, self.compute_dtype), transformation, "bilinear")

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._cropped(segmentation_masks, transformation, "nearest")

    def _cropped(self, images: Any, place: Any, interpolation: str) -> Any:
        layout = self.layout(node_of(images))
        if place is None:
            return ops.image.resize(
                images, (self.height, self.width), interpolation, crop_to_aspect_ratio=True,
                data_format=self.data_format,
            )  # fmt: skip
        for axis, size, start in ((layout.rows, self.height, place[0]), (layout.columns, self.width, place[1])):
            images = ops.take(images, ops.arange(size, dtype="int32") + start, axis)
        return images

    def compute_output_shape(self, input_shape):
        return resized_shape(self, input_shape)

    def get_config(self):
        return {**super().get_config(), "height": self.height, "width": self.width}
