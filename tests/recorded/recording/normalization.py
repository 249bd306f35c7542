# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Normalizing layers: outputs, gradients, what their statistics become, configurations; training with them."""

from typing import Any

import jax
import keras
import numpy as np
from keras import layers

from .snippets import train
from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}


def record() -> dict[str, Any]:
    CASES.clear()
    _batch()
    _batch_renormalization()
    _layer()
    _group()
    _others()
    _spectral()
    return {"cases": CASES, "fit": _fit()}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def add(name: str, layer: str, x: np.ndarray, /, training: bool | None = None, mask: Any = None, **given: Any) -> None:
    """Record a layer on an array; weights are normal, drawn by their name and shape, those of variances positive."""
    keras.utils.clear_session()
    made = getattr(layers, layer)(**given)
    symbolic = made(keras.Input(x.shape[1:], dtype=x.dtype.name))
    weights = {v.name: normal(f"normalization {v.name} {tuple(v.shape)}", *v.shape) for v in made.weights}
    for variable in made.weights:
        if "var" in variable.name or "stddev" in variable.name:
            weights[variable.name] = np.abs(weights[variable.name]) + np.float32(0.5)
        variable.assign(weights[variable.name])
    options = {k: v for k, v in {"training": training, "mask": mask}.items() if v is not None}
    fixed = [v.value for v in made.non_trainable_variables]
    weight = normal(f"normalization weight {symbolic.shape} {len(x)}", *x.shape[:1], *symbolic.shape[1:])

    def run(trainable: list[Any], x: Any) -> Any:
        x = x.astype(made.compute_dtype) if made.autocast else x  # which stateless_call leaves to others
        return made.stateless_call(trainable, fixed, x, **options)

    def total(trainable: list[Any], x: Any) -> Any:
        values, _ = run(trainable, x)
        return (values.astype("float32") * weight).sum()

    values = [v.value for v in made.trainable_variables]
    output, moved = run(values, x)
    of_weights, of_input = jax.grad(total, argnums=(0, 1))(values, x)
    assert name not in CASES, name
    CASES[name] = {
        "class": layer, "arguments": plain(given), "x": x, "options": options, "weights": weights,
        "output": np.asarray(output), "weight": weight, "input gradient": np.asarray(of_input),
        "weight gradients": {v.name: np.asarray(g) for v, g in zip(made.trainable_variables, of_weights, strict=True)},
        "moved": {v.name: np.asarray(m) for v, m in zip(made.non_trainable_variables, moved, strict=True)},
        "weight names": [v.name for v in made.weights], "parameters": made.count_params(),
        "losses": [float(value) for value in made.losses], "supports_masking": made.supports_masking,
        "config": plain(made.get_config()), "build config": plain(made.get_build_config()),
    }  # fmt: skip


def _batch() -> None:
    x = 2 * normal("batch norm", 5, 4) + 1
    image = 2 * normal("batch norm image", 2, 3, 3, 4) - 1
    for training in (False, True):
        label = "training" if training else "inference"
        add(f"BatchNormalization, {label}", "BatchNormalization", x, training)
        add(f"BatchNormalization of images, {label}", "BatchNormalization", image, training)
        add(f"BatchNormalization, axis 1, {label}", "BatchNormalization", image, training, axis=1)
        add(f"BatchNormalization, axis -2, {label}", "BatchNormalization", image, training, axis=-2, momentum=0.7)
        add(f"BatchNormalization, not trainable, {label}", "BatchNormalization", x, training, trainable=False)
    add("BatchNormalization by default", "BatchNormalization", x)
    add("BatchNormalization, no scale", "BatchNormalization", x, True, scale=False)
    add("BatchNormalization, no center", "BatchNormalization", x, True, center=False)
    add("BatchNormalization, neither", "BatchNormalization", x, True, center=False, scale=False, epsilon=0.1)
    add("BatchNormalization of one row", "BatchNormalization", x[:1], True)
    add("BatchNormalization far from 0", "BatchNormalization", normal("batch norm", 5, 4) + 100, True)
    add("BatchNormalization, float16", "BatchNormalization", x.astype("float16"), True, dtype="float16")
    add("BatchNormalization, mixed", "BatchNormalization", x, True, dtype="mixed_float16")
    add("BatchNormalization, everything", "BatchNormalization", x, True, momentum=0.5, epsilon=0.01,
        beta_initializer="ones", gamma_initializer="he_normal", moving_mean_initializer="ones",
        moving_variance_initializer="zeros", beta_regularizer="l1", gamma_regularizer="l2", beta_constraint="non_neg",
        gamma_constraint="max_norm", name="every")  # fmt: skip
    steps = normal("batch norm steps", 3, 5, 4)
    mask = random_of("batch norm mask").uniform(size=(3, 5)) > 0.4
    for label, m in (("", mask), (", of nothing", np.zeros((3, 5), bool)), (", of all", np.ones((3, 5), bool))):
        add(f"BatchNormalization, masked{label}", "BatchNormalization", steps, True, m)
    add("BatchNormalization, masked, inference", "BatchNormalization", steps, False, mask)


def _batch_renormalization() -> None:
    x = 2 * normal("batch norm", 5, 4) + 1
    clipping = {"rmin": 0.8, "rmax": 1.1, "dmax": 0.2}
    add("BatchNormalization, renorm", "BatchNormalization", x, True, renorm=True)
    add("BatchNormalization, renorm, inference", "BatchNormalization", x, False, renorm=True)
    add("BatchNormalization, renorm, clipped", "BatchNormalization", x, True, renorm=True, renorm_clipping=clipping,
        renorm_momentum=0.6, momentum=0.8)  # fmt: skip
    add("BatchNormalization, renorm, neither", "BatchNormalization", x, True, renorm=True, center=False, scale=False,
        renorm_clipping={"dmax": 0.5})  # fmt: skip


def _layer() -> None:
    x, deep = 2 * normal("layer norm", 5, 4) + 1, 2 * normal("layer norm deep", 2, 3, 5, 4) - 1
    add("LayerNormalization", "LayerNormalization", x)
    add("LayerNormalization on 4 axes", "LayerNormalization", deep)
    add("LayerNormalization, axis 1", "LayerNormalization", deep, axis=1)
    add("LayerNormalization, axes 2 and 3", "LayerNormalization", deep, axis=(2, 3))
    add("LayerNormalization, axes 3 and 1", "LayerNormalization", deep, axis=[3, 1], epsilon=0.1)
    add("LayerNormalization, axes -1 and 1", "LayerNormalization", deep, axis=[-1, 1])
    add("LayerNormalization, no scale", "LayerNormalization", x, scale=False)
    add("LayerNormalization, no center", "LayerNormalization", x, center=False)
    add("LayerNormalization, neither", "LayerNormalization", x, center=False, scale=False)
    add("LayerNormalization, rms_scaling", "LayerNormalization", deep, rms_scaling=True)
    add("LayerNormalization, rms_scaling, no scale", "LayerNormalization", deep, rms_scaling=True, scale=False, axis=2)
    add("LayerNormalization, mixed", "LayerNormalization", x, dtype="mixed_float16")
    add("LayerNormalization, float16", "LayerNormalization", x.astype("float16"), dtype="float16")
    add("LayerNormalization, everything", "LayerNormalization", x, epsilon=1e-5, beta_initializer="ones",
        gamma_initializer="zeros", beta_regularizer="l1", gamma_regularizer="l2", beta_constraint="non_neg",
        gamma_constraint="max_norm", name="every")  # fmt: skip


def _group() -> None:
    x = 2 * normal("group norm", 2, 3, 3, 6) + 1
    add("GroupNormalization", "GroupNormalization", x, groups=3)
    add("GroupNormalization of one group", "GroupNormalization", x, groups=1, epsilon=0.1)
    add("GroupNormalization, each channel", "GroupNormalization", x, groups=-1)
    add("GroupNormalization, axis 1", "GroupNormalization", normal("group norm first", 2, 4, 3, 3), groups=2, axis=1)
    add("GroupNormalization, axis -2", "GroupNormalization", normal("group norm first", 2, 3, 4, 3), groups=2, axis=-2)
    add("GroupNormalization of rows", "GroupNormalization", normal("group norm rows", 3, 6), groups=2)
    add("GroupNormalization, neither", "GroupNormalization", x, groups=2, center=False, scale=False)
    add("GroupNormalization, everything", "GroupNormalization", x, groups=2, epsilon=1e-5, beta_initializer="ones",
        gamma_initializer="zeros", beta_regularizer="l1", gamma_regularizer="l2", beta_constraint="non_neg",
        gamma_constraint="max_norm", name="every")  # fmt: skip


def _others() -> None:
    x, deep = 2 * normal("layer norm", 5, 4) + 1, 2 * normal("layer norm deep", 2, 3, 5, 4) - 1
    add("RMSNormalization", "RMSNormalization", x)
    add("RMSNormalization, axes 2 and 3", "RMSNormalization", deep, axis=(2, 3), epsilon=0.1)
    add("RMSNormalization, mixed", "RMSNormalization", x, dtype="mixed_float16")
    add("UnitNormalization", "UnitNormalization", x)
    add("UnitNormalization, axes 1 and 2", "UnitNormalization", deep, axis=(1, 2))
    add("UnitNormalization of all", "UnitNormalization", deep, axis=[1, 2, 3], name="unit")


def _spectral() -> None:
    """The kernel itself is replaced while training, so nothing here has gradients through the norm."""
    x = normal("spectral", 3, 4)
    for name, iterations, training in (("inference", 1, False), ("training", 1, True), ("three", 3, True)):
        keras.utils.clear_session()
        made = layers.SpectralNormalization(layers.Dense(5), power_iterations=iterations)
        made.build(x.shape)
        weights = {v.path: normal(f"normalization {v.name} {tuple(v.shape)}", *v.shape) for v in made.weights}
        for variable in made.weights:
            variable.assign(weights[variable.path])
        CASES[f"SpectralNormalization, {name}"] = {
            "class": "SpectralNormalization", "x": x, "options": {"training": training}, "iterations": iterations,
            "weights": weights, "output": np.asarray(made(x, training=training)),
            "after": {v.path: np.asarray(v) for v in made.weights}, "config": plain(made.get_config()),
            "trainable": [v.path for v in made.trainable_weights],
        }  # fmt: skip


IMAGES = """
    model = keras.Sequential([
        keras.Input((3, 3, 2)), layers.BatchNormalization(momentum=0.8), layers.Activation("tanh"), layers.Flatten(),
        layers.Dense(6), layers.{0}, layers.Activation("relu"), layers.Dense(1),
    ])
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse", metrics=["mae"])
"""
RUN = """
    for layer in model.layers:
        for weight in layer.non_trainable_weights if isinstance(layer, layers.BatchNormalization) else ():
            if weight.name not in ("gamma", "beta"):
                weight.assign(np.zeros(weight.shape) if "mean" in weight.name else np.ones(weight.shape))
    history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, validation_data=(x[:7], y[:7]))
    result["evaluate"] = model.evaluate(x, y, verbose=0)
    result["predict"] = model.predict(x[:5], verbose=0)
"""


def _fit() -> dict[str, Any]:
    """Batches of 8, 8 and 4 images; statistics move within the steps, and are used for validation."""
    given = {"x": 3 * normal("normalization fit x", 20, 3, 3, 2) + 2, "y": normal("normalization fit y", 20, 1)}
    kinds = {
        "BatchNormalization": "BatchNormalization()", "frozen": "BatchNormalization(trainable=False)",
        "LayerNormalization": "LayerNormalization()", "GroupNormalization": "GroupNormalization(2)",
        "renorm": "BatchNormalization(renorm=True, renorm_momentum=0.5)",
    }  # fmt: skip
    return {name: train(name, IMAGES.format(layer), RUN, **given) for name, layer in kinds.items()}
