"""Layers that mix images of a batch, or apply several random layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gnomon import ops, random
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.layers.augmentation import (
    Factor,
    RandomLayer,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    as_column,
    as_range,
)
from gnomon.layers.colour_augmentation import RandomBrightness, RandomColorDegeneration, RandomContrast
from gnomon.layers.layer import Layer
from gnomon.layers.value_augmentation import (
    AutoContrast,
    Equalization,
    RandomPosterization,
    RandomSharpness,
    Solarization,
    rectangle,
)
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor


def _order(batch: Any, seed: Any) -> Any:
    """The numbers of the images of a batch in random order."""
    return random.shuffle(Tensor(build.iota((batch,), 0, "int32")), seed=seed)


def _labels_mixed(labels: Any, drawn: Any) -> Any:
    """Labels [batch, classes] mixed as the images are."""
    weight = ops.reshape(drawn["mix_weight"], (-1, 1))
    return weight * labels + (1.0 - weight) * ops.take(labels, drawn["permutation_order"], 0)


class MixUp(RandomLayer):
    """Each image mixed with another of the batch, and its label likewise.

    alpha   weights are drawn from the beta distribution of (alpha, alpha): the larger, the nearer to a half

    Labels are float[batch, classes]. Raises ArgumentError unless alpha is positive.
    Zhang, Cisse, Dauphin, Lopez-Paz 2018, "mixup: beyond empirical risk minimization", equations 1 and 2.
    """

    def __init__(self, alpha: float = 0.2, data_format: str | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, data_format, **kwargs)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha <= 0:
            raise ArgumentError(f"MixUp(alpha) is a positive number, got {alpha!r}")
        self.alpha = alpha

    def draw(self, shape, seed):
        weight = random.beta((shape[0],), self.alpha, self.alpha, self.compute_dtype, seed)
        return {"mix_weight": weight, "permutation_order": _order(shape[0], seed)}

    def change(self, images, drawn):
        weight = as_column(drawn["mix_weight"])
        return weight * images + (1.0 - weight) * ops.take(images, drawn["permutation_order"], 0)

    def transform_labels(self, labels, transformation=None, training=True):
        return _labels_mixed(labels, transformation) if training else labels

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.change(segmentation_masks, transformation) if training else segmentation_masks

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


class CutMix(RandomLayer):
    """In each image a rectangle from another of the batch, and its label by the part of the area.

    factor   the parameter of the beta distribution of the parts: a number or a pair that it is drawn from, in [0, 1]

    Labels are float[batch, classes]. Raises ArgumentError for factors out of range.
    Yun, Han, Oh, Chun, Choe, Yoo 2019, "CutMix", equations 1 and 2; the rectangles here lie within the image.
    """

    bounds = (0.0, 1.0)

    def __init__(self, factor: Factor = 1.0, seed: int | None = None, data_format: str | None = None, **kwargs: Any):
        super().__init__(seed, data_format, **kwargs)
        self.factor = self.factor_of(factor)

    def draw(self, shape, seed):
        alpha = self.uniform((), self.factor, seed) + 1e-6
        kept = random.beta((shape[0], 1, 1, 1), alpha, alpha, self.compute_dtype, seed)
        side = ops.sqrt(1.0 - kept)
        inside, share = rectangle(self, shape, (side, side), seed)
        return {"permutation_order": _order(shape[0], seed), "batch_masks": inside, "mix_weight": 1.0 - share}

    def change(self, images, drawn):
        return ops.where(drawn["batch_masks"], ops.take(images, drawn["permutation_order"], 0), images)

    def transform_labels(self, labels, transformation=None, training=True):
        return _labels_mixed(labels, transformation) if training else labels

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        return self.change(segmentation_masks, transformation) if training else segmentation_masks

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Several(RandomLayer):
    """Base of layers that choose among others. `made()` gives them by name; all draw from this layer's stream."""

    bounds = (0.0, 1.0)

    def __init__(
        self, value_range: Sequence[float], factor: Factor, interpolation: str, seed: int | None,
        data_format: str | None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(seed, data_format, **kwargs)
        self.value_range, self.interpolation = value_range, interpolation
        self.factor = self.factor_of(factor)

    def made(self, names: Sequence[str]) -> dict[str, Any]:
        f = self.factor
        values: dict[str, Any] = {"value_range": self.value_range}
        places: dict[str, Any] = {"interpolation": self.interpolation}
        share = as_range(type(self).__name__, "factor", f, self.bounds)
        makers: dict[str, Callable[..., Any]] = {
            "random_shear": lambda **own: RandomShear(share, share, **places, **own),
            "random_translation": lambda **own: RandomTranslation(f, f, **places, **own),
            "random_rotation": lambda **own: RandomRotation(f, **places, **own),
            "random_brightness": lambda **own: RandomBrightness(f, **values, **own),
            "random_color_degeneration": lambda **own: RandomColorDegeneration(f, **values, **own),
            "random_contrast": lambda **own: RandomContrast(f, **values, **own),
            "random_sharpness": lambda **own: RandomSharpness(f, **values, **own),
            "random_posterization": lambda **own: RandomPosterization(max(1, int(8 * f[1])), **values, **own),
            "solarization": lambda **own: Solarization(f, f, **values, **own),
            "auto_contrast": lambda **own: AutoContrast(self.value_range, **own),
            "equalization": lambda **own: Equalization(self.value_range, **own),
        }
        return {name: makers[name](data_format=self.data_format, dtype=self.dtype_policy) for name in names}

    def get_config(self):
        return {
            **super().get_config(),
            "value_range": self.value_range,
            "factor": self.factor,
            "interpolation": self.interpolation,
        }


EVERY = (
    "random_shear random_translation random_rotation random_brightness random_color_degeneration random_contrast "
    "random_sharpness random_posterization solarization auto_contrast equalization"
).split()
PLAIN = "random_shear random_translation random_rotation random_posterization solarization auto_contrast equalization"


class RandAugment(Several):
    """`num_ops` of eleven random layers, chosen for each batch, one after the other; only those chosen are computed.

    factor   how strong they are, in [0, 1]
    value_range   what values may be
    interpolation   of those that move pixels

    Raises ArgumentError for factors out of range.
    Cubuk, Zoph, Shlens, Le 2020, "RandAugment: practical automated data augmentation with a reduced search space".
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        num_ops: int = 2,
        factor: Factor = 0.5,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(value_range, factor, interpolation, seed, data_format, **kwargs)
        self.num_ops = num_ops
        self.layers = self.made(EVERY)

    def draw(self, shape, seed):
        chosen = random.randint((self.num_ops,), 0, len(self.layers), "int32", seed)
        transforms = {
            name: layer.draw(shape, seed) if isinstance(layer, RandomLayer) else None
            for name, layer in self.layers.items()
        }
        return {"layer_idxes": chosen, "transforms": transforms}

    def _one_after_the_other(self, x: Any, drawn: Any, method: str) -> Any:
        for k in range(self.num_ops):
            branches = [
                lambda x, layer=layer, own=drawn["transforms"][name]: getattr(layer, method)(x, own, training=True)
                for name, layer in self.layers.items()
            ]
            x = ops.switch(drawn["layer_idxes"][k], branches, x)
        return x

    def change(self, images, drawn):
        return self._one_after_the_other(images, drawn, "transform_images")

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        if not training:
            return segmentation_masks
        return self._one_after_the_other(segmentation_masks, transformation, "transform_segmentation_masks")

    def get_config(self):
        return {**super().get_config(), "num_ops": self.num_ops}


class AugMix(Several):
    """Images mixed with a mixture of themselves, each part changed by a chain of random layers.

    num_chains, chain_depth   how many parts, and how many layers for each, chosen for each batch (none among them)
    factor   how strong they are, in [0, 1]
    alpha    of the Dirichlet distribution of the parts' weights and the beta distribution of the mixture's
    all_ops  whether brightness, colour, contrast and sharpness are among the layers
    value_range   what values may be, and are kept in

    Raises ArgumentError for factors out of range.
    Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan 2020, "AugMix", algorithm 1.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        num_chains: int = 3,
        chain_depth: int = 3,
        factor: Factor = 0.3,
        alpha: float = 1.0,
        all_ops: bool = True,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(value_range, factor, interpolation, seed, data_format, **kwargs)
        self.num_chains, self.chain_depth, self.alpha, self.all_ops = num_chains, chain_depth, alpha, all_ops
        self.layers = self.made(EVERY if all_ops else PLAIN.split())

    def draw(self, shape, seed):
        parts = random.gamma((self.num_chains,), self.alpha, self.compute_dtype, seed)
        size = (self.num_chains, self.chain_depth)
        return {
            "chain_mixing_weights": parts / ops.sum(parts),
            "weight_sample": random.beta((), self.alpha, self.alpha, self.compute_dtype, seed),
            "layer_idxes": random.randint(size, 0, len(self.layers) + 1, "int32", seed),
            "transforms": [
                {n: layer.draw(shape, seed) if isinstance(layer, RandomLayer) else None
                 for n, layer in self.layers.items()}
                for _ in range(self.num_chains * self.chain_depth)
            ],
        }  # fmt: skip

    def _mixed(self, x: Any, drawn: Any, method: str) -> Any:
        total: Any = 0.0
        for chain in range(self.num_chains):
            y = x
            for step in range(self.chain_depth):
                own = drawn["transforms"][chain * self.chain_depth + step]
                branches = [
                    lambda y, layer=layer, own=own[name]: getattr(layer, method)(y, own, training=True)
                    for name, layer in self.layers.items()
                ]
                y = ops.switch(drawn["layer_idxes"][chain, step], [*branches, lambda y: y], y)
            total = total + y * drawn["chain_mixing_weights"][chain]
        weight = drawn["weight_sample"]
        return weight * x + (1.0 - weight) * total

    def change(self, images, drawn):
        return ops.clip(self._mixed(images, drawn, "transform_images"), *self.value_range)

    def transform_segmentation_masks(self, segmentation_masks, transformation=None, training=True):
        if not training:
            return segmentation_masks
        return self._mixed(segmentation_masks, transformation, "transform_segmentation_masks")

    def get_config(self):
        return {
            **super().get_config(),
            "num_chains": self.num_chains,
            "chain_depth": self.chain_depth,
            "alpha": self.alpha,
            "all_ops": self.all_ops,
        }


class Pipeline(Layer):
    """Layers one after the other, without being a model.

    Raises ArgumentError unless `layers` is a list of layers.
    """

    def __init__(self, layers: Sequence[Layer], name: str | None = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        if not isinstance(layers, (list, tuple)) or not all(isinstance(layer, Layer) for layer in layers):
            raise ArgumentError(f"Pipeline takes a list of layers, got {layers!r:.80}")
        self.layers = list(layers)
        self.supports_masking = True

    def call(self, inputs, training=True):
        for layer in self.layers:
            inputs = layer(inputs, training=training)
        return inputs

    def get_config(self):
        return {"name": self.name, "layers": [serialize_object(layer) for layer in self.layers]}

    @classmethod
    def from_config(cls, config):
        if not isinstance(config.get("layers"), (list, tuple)):
            raise ArgumentError(
                f"the configuration of a Pipeline has a list of layers under 'layers', got {config.get('layers')!r:.80}"
            )
        return cls(**{**config, "layers": [deserialize_object(layer) for layer in config["layers"]]})
