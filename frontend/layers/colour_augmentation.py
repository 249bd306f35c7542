"""Layers that change the values of pixels at random while training, each image in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gnomon import config, ops, random
from gnomon.compiler.errors import ArgumentError
from gnomon.layers.augmentation import Factor, RandomLayer, Range, as_column, as_range, chosen
from gnomon.layers.resizing import ImageLayer
from gnomon.ops.image import weighted
from gnomon.tensor import Tensor, node_of, op


def checked_limits(layer: str, value_range: Any) -> list[float]:
    """The smallest and the largest value that pixels may have. Raises ArgumentError unless there are two."""
    if not isinstance(value_range, (tuple, list)) or len(value_range) != 2:
        raise ArgumentError(
            f"The `value_range` argument of {layer} should be a list of two numbers. Received: "
            f"value_range={value_range!r}"
        )
    return sorted(value_range)


def rescaled(x: Any, old: Sequence[float], new: Sequence[float]) -> Any:
    """x moved and stretched from one range to another."""
    if old[0] == new[0] and old[1] == new[1]:
        return x
    return (x - old[0]) / (old[1] - old[0]) * (new[1] - new[0]) + new[0]


class ColourLayer(RandomLayer):
    """Base of layers that change values and leave places as they are."""

    factor: Any
    value_range: Sequence[float]

    def __init__(
        self, factor: Any, value_range: Sequence[float], seed: int | None, data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(seed, data_format, **kwargs)
        self.value_range = checked_limits(type(self).__name__, value_range)
        self.factor = self.factor_of(factor)

    def each(self, shape: Any, limits: Range, seed: Any) -> Any:
        """A number for each image, [batch, 1, 1, 1]."""
        return self.uniform((shape[0], 1, 1, 1), limits, seed)

    def kept(self, images: Any) -> Any:
        """Values outside the range at its ends."""
        return ops.clip(images, *self.value_range)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "value_range": self.value_range}


class RandomBrightness(ColourLayer):
    """Images made lighter or darker: a part of the value range, drawn from `factor`, added to all values.

    factor   a part (both ways) or a pair of them, in [-1, 1]
    value_range   what values may be, and are kept in

    Raises ArgumentError for parts out of range.
    """

    def __init__(
        self, factor: Factor, value_range: Sequence[float] = (0, 255), seed: int | None = None, **kwargs: Any
    ):
        super().__init__(factor, value_range, seed, **kwargs)

    def draw(self, shape, seed):
        return {"rgb_delta": self.each(shape, self.factor, seed) * (self.value_range[1] - self.value_range[0])}

    def change(self, images, drawn):
        return self.kept(images + drawn["rgb_delta"])


class RandomContrast(ColourLayer):
    """Images with more or less contrast: distances from each channel's mean times a number near 1.

    factor   a part (both ways) or a pair (down, up), in [0, 1]: the number is drawn from [1 - down, 1 + up]
    value_range   what values may be, and are kept in

    Raises ArgumentError for parts out of range.
    """

    bounds = (0.0, 1.0)

    def __init__(
        self, factor: Factor, value_range: Sequence[float] = (0, 255), seed: int | None = None, **kwargs: Any
    ):
        super().__init__(factor, value_range, seed, **kwargs)

    def draw(self, shape, seed):
        return {"contrast_factor": self.each(shape, (1.0 - self.factor[0], 1.0 + self.factor[1]), seed)}

    def change(self, images, drawn):
        layout = self.layout(node_of(images))
        mean = ops.mean(images, (layout.rows, layout.columns), keepdims=True)
        return self.kept((images - mean) * drawn["contrast_factor"] + mean)


@op
def _with_channel(images, k, values, data_format):
    """`images` with channel k replaced by `values`, which has an axis of 1 there."""
    from gnomon.compiler.ops import build
    from gnomon.ops.image import Layout

    x = node_of(images)
    layout = Layout.of(x, data_format, (3,))
    planes = layout.planes(x)
    planes[k] = build.cast(node_of(values), x.dtype)
    return build.concat(planes, layout.channels)


class RandomSaturation(ColourLayer):
    """Colours made stronger or weaker: the saturation of each image times f / (1 - f), f drawn from `factor`.

    factor   a number or a pair of them, in [0, 1]: 0 makes images gray, 0.5 changes nothing, 1 saturates them

    Raises ArgumentError for factors out of range.
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
        factor = self.each(shape, self.factor, seed)
        return {"factor": factor / (1 - factor + config.epsilon())}

    def change(self, images, drawn):
        images = ops.image.rgb_to_hsv(images, self.data_format)
        saturation = self.kept(_channel(self, images, 1) * as_column(drawn["factor"]))
        return ops.image.hsv_to_rgb(_with_channel(images, 1, saturation, self.data_format), self.data_format)


def _channel(layer: ImageLayer, images: Any, k: int) -> Any:
    """Channel k, with an axis of 1."""
    axis = layer.layout(node_of(images)).channels
    return images[tuple(slice(k, k + 1) if a == axis else slice(None) for a in range(4))]


class RandomHue(ColourLayer):
    """Colours moved round the circle, by up to half of it.

    factor   a part or a pair of them, in [0, 1], either way round; 1 is half a turn
    value_range   what values may be

    Raises ArgumentError for parts out of range.
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
        self.value_range = value_range

    def draw(self, shape, seed):
        sign = ops.where(self.each(shape, (0.0, 1.0), seed) > 0.5, -0.5, 0.5)
        return {"factor": ops.cast(sign, self.compute_dtype) * self.each(shape, self.factor, seed)}

    def change(self, images, drawn):
        images = ops.image.rgb_to_hsv(rescaled(images, self.value_range, (0, 1)), self.data_format)
        hue = _channel(self, images, 0) + as_column(drawn["factor"])
        hue = ops.where(hue > 1.0, hue - 1.0, hue)
        hue = ops.where(hue < 0.0, hue + 1.0, hue)
        images = ops.image.hsv_to_rgb(_with_channel(images, 0, hue, self.data_format), self.data_format)
        return rescaled(ops.clip(images, 0.0, 1.0), (0, 1), self.value_range)


class RandomColorDegeneration(ColourLayer):
    """Colours mixed with the gray of the same image, whose share is drawn from `factor`, in [0, 1].

    Raises ArgumentError for shares out of range.
    """

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
        gray = ops.image.rgb_to_grayscale(images, self.data_format)
        return self.kept(images + drawn["factor"] * (gray - images))


@op
def _smoothed(images, data_format):
    """Each pixel averaged with its eight neighbours, itself counted five times; zeros are outside."""
    from gnomon.compiler.ops import build
    from gnomon.ops.image import Layout

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


class RandomGrayscale(RandomLayer):
    """Images made gray with the probability `factor`, in [0, 1].

    Raises ArgumentError for a probability out of range, ShapeError unless there are three channels, or one.
    """

    def __init__(
        self, factor: float = 0.5, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(seed, data_format, **kwargs)
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor <= 1:
            raise ArgumentError(f"`factor` should be between 0 and 1. Received: factor={factor!r}")
        self.factor = factor

    def draw(self, shape, seed):
        return self.uniform((shape[0], 1, 1, 1), (0.0, 1.0), seed) < self.factor

    def change(self, images, drawn):
        return ops.where(drawn, ops.image.rgb_to_grayscale(images, self.data_format), images)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


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
        inside: Any = None
        rows = 2 if self.data_format == "channels_first" else 1
        for axis, extent, side in zip((rows + 1, rows), reversed(self.extents(shape)), (0, 1), strict=True):
            length = as_column(sides[:, side]) * extent
            start = draw((shape[0], 1, 1, 1), (0.0, 1.0)) * (extent - length)
            place = _places(shape, axis, self.compute_dtype)
            within = ops.logical_and(place >= start, place < start + length)
            inside = within if inside is None else ops.logical_and(inside, within)
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


def _places(shape: Any, axis: int, dtype: str) -> Tensor:
    """0, 1, 2 … along an axis, the others being 1."""
    from gnomon.compiler.ops import build

    return Tensor(build.iota([d if k == axis else 1 for k, d in enumerate(shape)], axis, dtype))


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
