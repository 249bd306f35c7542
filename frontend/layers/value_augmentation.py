"""Layers that change single values, or blur and fill parts of images, at random while training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gnomon import ops, random
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.layers.augmentation import Factor, RandomLayer, as_column, as_range, chosen
from gnomon.layers.colour_augmentation import ColourLayer, checked_limits, rescaled
from gnomon.layers.resizing import ImageLayer
from gnomon.ops.image import Layout, weighted
from gnomon.tensor import Tensor, node_of, op


@op
def _smoothed(images, data_format):
    """Each pixel averaged with its eight neighbours, itself counted five times; zeros are outside."""
    x = node_of(images)
    layout = Layout.of(x, data_format)
    ones = build.full((3,), 1.0, x.dtype)
    around = weighted(weighted(x, layout.rows, ones, "same"), layout.columns, ones, "same")
    return build.multiply(build.add(around, build.multiply(x, 4.0)), 1.0 / 13.0)


class RandomSharpness(ColourLayer):
    """Images made sharper or softer: distances from a smoothed copy times 2 f, f drawn from `factor`, in [0, 1].

    0 gives the smoothed copy, 0.5 the image, 1 twice the distance. Raises ArgumentError for factors out of range.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(factor, value_range, seed, data_format, **kwargs)

    def draw(self, shape, seed):
        return {"factor": self.each(shape, self.factor, seed)}

    def change(self, images, drawn):
        share = 1.0 - 2.0 * as_column(drawn["factor"])
        return self.kept(images + share * (_smoothed(images, self.data_format) - images))


class RandomPosterization(ColourLayer):
    """Images with fewer different values: of 8 bits the first ones only, how many is drawn from `factor`.

    factor   how many bits stay, in [1, 8], or a pair: from the first on, below the second
    value_range   what values may be

    Raises ArgumentError for numbers out of range.
    """

    bounds = (1, 8)

    def __init__(
        self,
        factor: Any,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(factor, value_range, seed, data_format, **kwargs)

    def draw(self, shape, seed):
        low, high = self.factor
        size = (shape[0], 1, 1, 1)
        bits = random.randint(size, low, high, "int32", seed) if low != high else ops.full(size, low, "int32")
        return {"shift_factor": 8 - bits}

    def change(self, images, drawn):
        shift = ops.cast(as_column(drawn["shift_factor"]), "int32")
        values = ops.cast(ops.cast(rescaled(images, self.value_range, (0, 255)), "uint8"), "int32")
        values = ops.bitwise_left_shift(ops.bitwise_right_shift(values, shift), shift)
        return rescaled(ops.cast(values, self.compute_dtype), (0, 255), self.value_range)


class RandomInvert(ColourLayer):
    """Some of the images as negatives: the largest value minus each.

    factor   the probability, or a pair that it is drawn from, in [0, 1]

    Raises ArgumentError for probabilities out of range.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor = 1.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(factor, value_range, seed, data_format, **kwargs)
        self.value_range = value_range

    def draw(self, shape, seed):
        apply = chosen(self.factor, shape[0], partial(self.uniform, seed=seed))
        return {"apply_inversion": apply}

    def change(self, images, drawn):
        return ops.where(as_column(drawn["apply_inversion"]), self.value_range[1] - images, images)


class RandomGaussianBlur(ColourLayer):
    """Some of the images blurred by a normal density; its deviation is one for the whole batch.

    factor   the probability, or a pair that it is drawn from, in [0, 1]
    kernel_size   an odd number of pixels, or two of them
    sigma    the deviation in pixels is drawn from (0, sigma], or from a pair in [0, 1]
    value_range   what values may be, and are kept in

    Raises ArgumentError for even sizes and numbers out of range.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor = 1.0,
        kernel_size: Any = 3,
        sigma: Factor = 1.0,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(factor, value_range, seed, data_format, **kwargs)
        self.value_range = value_range
        sizes = tuple(kernel_size) if isinstance(kernel_size, (list, tuple)) else (kernel_size,) * 2
        if len(sizes) != 2 or any(not isinstance(n, int) or n <= 0 or n % 2 == 0 for n in sizes):
            raise ArgumentError(f"kernel_size must be an odd number, or two of them. Received: {kernel_size!r}")
        self.kernel_size, self.sigma = sizes, self.factor_of(sigma, "sigma")

    def draw(self, shape, seed):
        apply = chosen(self.factor, shape[0], partial(self.uniform, seed=seed))
        return {"should_apply_blur": apply, "blur_factor": self.uniform((2,), self.sigma, seed) + 1e-6}

    def change(self, images, drawn):
        sigma = drawn["blur_factor"]
        blurred = ops.image.gaussian_blur(images, self.kernel_size, (sigma[0], sigma[1]), self.data_format)
        return self.kept(ops.where(as_column(drawn["should_apply_blur"]), blurred, images))

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size, "sigma": self.sigma}


def rectangle(layer: RandomLayer, shape: Any, sides: tuple[Any, Any], seed: Any) -> tuple[Any, Any]:
    """A rectangle at a random place in each image: whether each pixel is inside, and the part of the area that is.

    sides   its height and width, [batch, 1, 1, 1], as parts of those of the images
    """
    rows = 2 if layer.data_format == "channels_first" else 1
    height, width = layer.extents(shape)
    inside: Any = None
    share: Any = 1.0
    for axis, extent, side in ((rows + 1, width, sides[1]), (rows, height, sides[0])):
        length = side * extent
        start = layer.uniform((shape[0], 1, 1, 1), (0.0, 1.0), seed) * (extent - length)
        place = _places(shape, axis, layer.compute_dtype)
        within = ops.logical_and(place >= start, place < start + length)
        inside = within if inside is None else ops.logical_and(inside, within)
        share = share * side
    return inside, share


def _places(shape: Any, axis: int, dtype: str) -> Tensor:
    """0, 1, 2 … along an axis, the others being 1."""
    return Tensor(build.iota([d if k == axis else 1 for k, d in enumerate(shape)], axis, dtype))


class RandomErasing(ColourLayer):
    """Some of the images with a rectangle of them filled.

    factor   the probability, or a pair that it is drawn from, in [0, 1]
    scale    the part of the area is drawn from a pair in [0, 1] (height and width each from its root)
    fill_value   a number, or three for the channels; None: normal noise times the largest value
    value_range   what the filling is kept in

    Raises ArgumentError for numbers out of range.
    Zhong, Zheng, Kang, Li, Yang 2020, "Random erasing data augmentation", algorithm 1, with other proportions.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: Factor = (0.02, 0.33),
        fill_value: Any = None,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(factor, value_range, seed, data_format, **kwargs)
        self.value_range = value_range
        self.scale = self.factor_of(scale, "scale")
        several = isinstance(fill_value, (list, tuple))
        if fill_value is not None and not isinstance(fill_value, (int, float)) and not (
            several and len(fill_value) == 3
        ):  # fmt: skip
            raise ArgumentError(f"fill_value must be a number, three of them, or None; got {fill_value!r}")
        self.fill_value = fill_value

    def draw(self, shape, seed):
        draw = partial(self.uniform, seed=seed)
        sides = ops.sqrt(draw((shape[0], 2), self.scale))
        inside, _ = rectangle(self, shape, (as_column(sides[:, 1]), as_column(sides[:, 0])), seed)
        apply = chosen(self.factor, shape[0], draw)
        value = self.fill_value
        if value is None:
            value = random.normal(shape, 0.0, 1.0, self.compute_dtype, seed) * self.value_range[1]
        elif isinstance(value, (list, tuple)):
            channels = (1, 3, 1, 1) if self.data_format == "channels_first" else (1, 1, 1, 3)
            value = ops.reshape(ops.cast(ops.convert_to_tensor(list(value)), self.compute_dtype), channels)
        return {"apply_erasing": apply, "batch_masks": inside, "fill_value": ops.clip(value, *self.value_range)}

    def change(self, images, drawn):
        erased = ops.where(drawn["batch_masks"], drawn["fill_value"], images)
        return ops.cast(ops.where(as_column(drawn["apply_erasing"]), erased, images), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "fill_value": self.fill_value}


class Solarization(ColourLayer):
    """Images whose values, after something is added, are turned round where they are above a threshold.

    addition_factor, threshold_factor   of 255, drawn from [0, factor], or from a pair in [0, 1]
    value_range   what values may be

    Raises ArgumentError for factors out of range.
    """

    def __init__(
        self,
        addition_factor: Factor = 0.0,
        threshold_factor: Factor = 0.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(0.0, value_range, seed, **kwargs)
        self.addition_factor, self.threshold_factor = (
            as_range("Solarization", name, value, (0.0, 1.0), mirrored=False)
            for name, value in (("addition_factor", addition_factor), ("threshold_factor", threshold_factor))
        )

    def draw(self, shape, seed):
        # as Keras draws: the lower end is not a part of 255
        limits = [(low, high * 255) for low, high in (self.addition_factor, self.threshold_factor)]
        return {"additions": self.each(shape, limits[0], seed), "thresholds": self.each(shape, limits[1], seed)}

    def change(self, images, drawn):
        values = ops.clip(rescaled(images, self.value_range, (0, 255)) + drawn["additions"], 0.0, 255.0)
        values = ops.where(values < drawn["thresholds"], values, 255.0 - values)
        return rescaled(values, (0, 255), self.value_range)

    def get_config(self):
        config = {
            **super().get_config(),
            "addition_factor": self.addition_factor,
            "threshold_factor": self.threshold_factor,
        }
        config.pop("factor")
        return config


class AutoContrast(ImageLayer):
    """Each channel of each image stretched over the whole range of values, in inference too.

    value_range   what values may be

    A channel of one value stays as it is. Raises ArgumentError unless value_range has two numbers.
    """

    def __init__(self, value_range: Sequence[float] = (0, 255), **kwargs: Any):
        super().__init__(**kwargs)
        self.value_range = checked_limits("AutoContrast", value_range)

    def transform_images(self, images, transformation=None, training=True):
        images = ops.cast(images, self.compute_dtype)
        layout = self.layout(node_of(images))
        axes = (layout.rows, layout.columns)
        low, high = ops.min(images, axes, keepdims=True), ops.max(images, axes, keepdims=True)
        varies = high > low
        share = ops.clip((images - low) / ops.where(varies, high - low, 1.0), 0.0, 1.0)
        return ops.where(varies, rescaled(share, (0, 1), self.value_range), images)

    def get_config(self):
        return {**super().get_config(), "value_range": self.value_range}


@op
def _equalized(images, bins, value_range, data_format):
    """Values whose shares below them are even, by tables of `bins` steps, one for each channel of the batch."""
    x = node_of(images)
    axis = Layout.of(x, data_format).channels
    channels = x.shape[axis]
    low, high = value_range
    scaled = build.multiply(build.subtract(x, low), 255 / (high - low))
    steps = build.minimum(build.maximum(build.multiply(scaled, (bins - 1) / 255), 0.0), bins - 1.0)
    own = build.multiply(build.iota(x.shape, axis, "int64"), bins)
    place = build.add(build.cast(steps, "int64"), own)
    flat = build.reshape(place, (build.product(x.shape),))
    counts = build.scatter_add(flat, build.full(flat.shape, 1, "int32"), channels * bins, 0)
    counts = build.cast(build.reshape(counts, (channels, bins)), "float64")
    shape = (channels, bins, bins)
    upto = build.less_equal(build.iota(shape, 1), build.iota(shape, 2))
    below = build.sum(build.where(upto, build.broadcast(counts, shape, [0, 1]), 0.0), 1)  # those of lower steps, too
    least = build.min(build.where(build.greater(below, 0), below, float("inf")), 1, True)
    spread = build.subtract(build.max(below, 1, True), least)
    table = build.divide(build.multiply(build.subtract(below, least), 255.0), build.maximum(spread, 1.0))
    table = build.minimum(build.maximum(build.round(table), 0.0), 255.0)
    found = build.cast(build.gather(build.reshape(table, (channels * bins,)), place, 0), x.dtype)
    several = build.greater(build.sum(build.cast(build.greater(counts, 0), "int32"), 1), 1)
    found = build.where(build.broadcast(several, x.shape, [axis]), found, scaled)
    return build.add(build.multiply(found, (high - low) / 255), low)


class Equalization(ImageLayer):
    """While training, values changed so that all parts of the range are equally frequent.

    value_range   what values may be
    bins   how many values are told apart

    As in Keras the frequencies are those of each channel in the whole batch. A channel of one value stays as it is.
    Raises ArgumentError unless value_range has two numbers and bins is at least 2.
    """

    def __init__(
        self, value_range: Sequence[float] = (0, 255), bins: int = 256, data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(data_format, **kwargs)
        self.value_range = checked_limits("Equalization", value_range)
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
            raise ArgumentError(f"Equalization(bins) is an integer of at least 2, got {bins!r}")
        self.bins = bins

    def transform_images(self, images, transformation=None, training=True):
        images = ops.cast(images, self.compute_dtype)
        return _equalized(images, self.bins, tuple(self.value_range), self.data_format) if training else images

    def get_config(self):
        return {**super().get_config(), "value_range": self.value_range, "bins": self.bins}
