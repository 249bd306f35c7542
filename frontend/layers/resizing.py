"""Layers that prepare images: Resizing and CenterCrop."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim, floordiv
from gnomon.layers.layer import Layer
from gnomon.ops.convolution import as_format
from gnomon.ops.image import INTERPOLATIONS, Layout, cropped_to_ratio
from gnomon.ops.shaping import expanded
from gnomon.tensor import Tensor, node_of


class ImageLayer(Layer):
    """Base of layers for images: [rows, columns, channels], a batch of them, or a dictionary that has "images".

    A dictionary may hold "labels" and "segmentation_masks" too, which are transformed along with the images. A subclass
    writes `transform_images`, and the others of these methods where there is more to do. They get batches; what
    `get_random_transformation` draws is handed to all of them.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_format = as_format(data_format)
        self.built = True

    def call(self, data, training=True):
        """The images transformed; of a dictionary a copy, with what there is transformed."""
        given = data if isinstance(data, dict) else {"images": data}
        unknown = set(given) - {"images", "labels", "segmentation_masks"}
        if "images" not in given or unknown:
            raise ArgumentError(
                f"{type(self).__name__} takes images, or a dictionary of 'images' and perhaps 'labels' and "
                f"'segmentation_masks'; got one of {sorted(given)}"
            )
        images = given["images"]
        self.layout(images.node)
        alone = images.ndim == 3
        found = {name: Tensor(expanded(x.node, 0)) if alone else x for name, x in given.items()}
        drawn = self.get_random_transformation(found["images"], training=training)
        for name, transform in (
            ("images", self.transform_images),
            ("labels", self.transform_labels),
            ("segmentation_masks", self.transform_segmentation_masks),
        ):
            if name in found:
                x = node_of(transform(found[name], drawn, training=training))
                found[name] = Tensor(build.reshape(x, x.shape[1:]) if alone else x)
        return found if isinstance(data, dict) else found["images"]

    def get_random_transformation(self, data: Any, training: Any = True, seed: Any = None) -> Any:
        """What is drawn for a batch of images, None where there is nothing to draw."""
        return None

    def transform_images(self, images: Any, transformation: Any = None, training: Any = True) -> Any:
        raise NotImplementedError

    def transform_labels(self, labels: Any, transformation: Any = None, training: Any = True) -> Any:
        return labels

    def transform_segmentation_masks(self, segmentation_masks: Any, transformation: Any = None, training: Any = True):
        return segmentation_masks

    def layout(self, x: Node) -> Layout:
        """Where rows, columns and channels are. Raises ShapeError unless x has 3 or 4 axes."""
        return Layout.of(x, self.data_format)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}


def checked_size(layer: str, height: Any, width: Any) -> tuple[int, int]:
    """Raises ArgumentError unless both are positive integers."""
    if any(isinstance(v, bool) or not isinstance(v, int) or v <= 0 for v in (height, width)):
        raise ArgumentError(f"{layer}(height, width) are positive integers, got height={height!r}, width={width!r}")
    return height, width


class Resizing(ImageLayer):
    """Images of `height` rows and `width` columns, of the same dtype.   x: [batch, rows, columns, channels]

    interpolation   'nearest', 'bilinear', 'bicubic', 'lanczos3', 'lanczos5'; masks are always resized by 'nearest'
    crop_to_aspect_ratio, pad_to_aspect_ratio, fill_value, antialias   as for `gnomon.ops.image.resize`

    Raises ArgumentError for sizes, interpolations and combinations that are not allowed.
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(data_format, **kwargs)
        self.height, self.width = checked_size("Resizing", height, width)
        if interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                f"interpolation must be one of {', '.join(map(repr, INTERPOLATIONS))}, got {interpolation!r}"
            )
        if crop_to_aspect_ratio and pad_to_aspect_ratio:
            raise ArgumentError("Only one of `pad_to_aspect_ratio` & `crop_to_aspect_ratio` can be `True`.")
        if fill_mode != "constant":
            raise ArgumentError(f"fill_mode must be 'constant', got {fill_mode!r}")
        self.interpolation, self.antialias = interpolation, bool(antialias)
        self.crop_to_aspect_ratio, self.pad_to_aspect_ratio = crop_to_aspect_ratio, pad_to_aspect_ratio
        self.fill_mode, self.fill_value = fill_mode, fill_value

    def transform_images(self, images, transformation=None, training=True):
        return self._resized(images, self.interpolation)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self._resized(segmentation_masks, "nearest")

    def _resized(self, x: Tensor, interpolation: str) -> Tensor:
        return ops.image.resize(
            x, (self.height, self.width), interpolation, self.antialias, self.crop_to_aspect_ratio,
            self.pad_to_aspect_ratio, self.fill_mode, self.fill_value, self.data_format,
        )  # fmt: skip

    def compute_output_shape(self, input_shape):
        return resized_shape(self, input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "interpolation": self.interpolation,
            "crop_to_aspect_ratio": self.crop_to_aspect_ratio,
            "pad_to_aspect_ratio": self.pad_to_aspect_ratio,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "antialias": self.antialias,
        }


def resized_shape(layer: Any, shape: Any) -> tuple:
    """`shape` with the layer's height and width. Raises ShapeError unless it is that of images."""
    if len(shape) not in (3, 4):
        raise ShapeError(f"{type(layer).__name__} takes images of 3 or 4 axes, got an input of shape {tuple(shape)}")
    found = list(shape)
    rows = len(shape) - (2 if layer.data_format == "channels_first" else 3)
    found[rows : rows + 2] = [layer.height, layer.width]
    return tuple(found)


class CenterCrop(ImageLayer):
    """The middle `height` rows and `width` columns of images, in the layer's dtype.

    Images of known size with fewer rows or columns are first cut to the proportions of the result, then resized to it.
    Raises ArgumentError unless the sizes are positive integers.
    """

    def __init__(self, height: int, width: int, data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.height, self.width = checked_size("CenterCrop", height, width)

    def transform_images(self, images, transformation=None, training=True):
        x = build.cast(node_of(images), self.compute_dtype)
        return Tensor(self._cropped(x, self.layout(x)))

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.transform_images(segmentation_masks)

    def _cropped(self, x: Node, layout: Layout) -> Node:
        missing = [x.shape[layout.rows] - self.height, x.shape[layout.columns] - self.width]
        if any(isinstance(d, int) and d < 0 for d in missing):
            cut = Tensor(cropped_to_ratio(x, layout, self.height, self.width))
            return node_of(ops.image.resize(cut, (self.height, self.width), data_format=self.data_format))
        start: list[Dim] = [0] * x.rank
        size = list(x.shape)
        start[layout.rows], start[layout.columns] = (floordiv(d, 2) for d in missing)
        size[layout.rows], size[layout.columns] = self.height, self.width
        return build.slice(x, start, size)

    def compute_output_shape(self, input_shape):
        return resized_shape(self, input_shape)

    def get_config(self):
        return {**super().get_config(), "height": self.height, "width": self.width}
