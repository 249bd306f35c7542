"""Layers that change colours at random while training, each image in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import config, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.layers.augmentation import Factor, RandomLayer, Range, as_column
from gnomon.layers.resizing import ImageLayer
from gnomon.ops.image import Layout
from gnomon.tensor import node_of, op


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


class RandomColorJitter(RandomLayer):
    """RandomBrightness, RandomContrast, RandomSaturation and RandomHue, those that are given a factor, in this order.

    brightness_factor, contrast_factor, saturation_factor, hue_factor   as of those layers, or None
    value_range   what values may be

    Raises ArgumentError for factors out of range.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        brightness_factor: Factor | None = None,
        contrast_factor: Factor | None = None,
        saturation_factor: Factor | None = None,
        hue_factor: Factor | None = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, data_format, **kwargs)
        self.value_range = value_range
        self.factors = {
            "brightness_factor": brightness_factor, "contrast_factor": contrast_factor,
            "saturation_factor": saturation_factor, "hue_factor": hue_factor,
        }  # fmt: skip
        kinds = (RandomBrightness, RandomContrast, RandomSaturation, RandomHue)
        options = {"value_range": value_range, "seed": seed, "data_format": data_format, "dtype": self.dtype_policy}
        self.steps = [
            kind(factor, **options) for kind, factor in zip(kinds, self.factors.values(), strict=True)
            if factor is not None
        ]  # fmt: skip

    def draw(self, shape, seed):
        return [step.draw(shape, seed) for step in self.steps]

    def change(self, images, drawn):
        for step, own in zip(self.steps, drawn, strict=True):
            images = step.change(images, own)
        return images

    def get_config(self):
        return {**super().get_config(), "value_range": self.value_range, **self.factors}
