# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Every loss: its value for each reduction, the gradient of its default reduction, its function form, its config."""

from typing import Any

import jax
import keras
import numpy as np
from keras import losses

from .store import random_of

REDUCTIONS = ("none", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight")
CASES: list[dict[str, Any]] = []


def record() -> dict[str, Any]:
    CASES.clear()
    _regression()
    _hinges()
    _binary()
    _categorical()
    _sparse()
    _overlap()
    _embedding_and_sequence()
    _shapes_weights_masks()
    _dtypes()
    return {"cases": {case.pop("name"): case for case in CASES}, "functions": _functions(), "configs": _configs()}


def add(name: str, loss: str, y_true: Any, y_pred: Any, weight: Any = None, mask: Any = None, **arguments: Any) -> None:
    """Record one case; `y_pred` is what the gradient is taken of."""
    assert name not in {case["name"] for case in CASES}, name
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    make = getattr(losses, loss)

    def value(pred: Any, reduction: str) -> Any:
        if mask is not None:
            pred = keras.ops.convert_to_tensor(pred)
            keras.src.backend.set_keras_mask(pred, keras.ops.convert_to_tensor(mask))
        return make(reduction=reduction, **arguments)(y_true, pred, sample_weight=weight)

    entry = {
        "name": name, "class": loss, "arguments": arguments, "y_true": y_true, "y_pred": y_pred,
        "sample_weight": weight, "mask": mask,
        "values": {reduction: np.asarray(value(y_pred, reduction)) for reduction in REDUCTIONS},
    }  # fmt: skip
    if y_pred.dtype.kind == "f":
        # the mask is an attribute of the array, which a traced array has as well
        entry["gradient"] = np.asarray(jax.grad(lambda pred: value(pred, "sum_over_batch_size"))(y_pred))
    CASES.append(entry)


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def uniform(name: str, *shape: int, low: float = 0.05, high: float = 0.95) -> np.ndarray:
    return random_of(name).uniform(low, high, shape).astype("float32")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype("float32")


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype="float32")[labels]


WEIGHT = np.array([0.5, 2.0, 0.0, 1.5, 1.0, 3.0], "float32")
MASK = np.array([True, False, True, True, False, True])


def _with_weight_and_mask(name: str, loss: str, y_true: Any, y_pred: Any, **arguments: Any) -> None:
    add(name, loss, y_true, y_pred, **arguments)
    add(f"{name}, weighted", loss, y_true, y_pred, WEIGHT, **arguments)
    add(f"{name}, masked", loss, y_true, y_pred, None, MASK, **arguments)
    add(f"{name}, weighted and masked", loss, y_true, y_pred, WEIGHT, MASK, **arguments)


def _regression() -> None:
    y, p = normal("regression true", 6, 4), normal("regression predicted", 6, 4)
    for loss in ("MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "LogCosh"):
        _with_weight_and_mask(loss, loss, y, p)
    _with_weight_and_mask("MeanSquaredLogarithmicError", "MeanSquaredLogarithmicError", np.abs(y), np.abs(p))
    add("MeanSquaredLogarithmicError, negative", "MeanSquaredLogarithmicError", y, p)
    zeros = np.zeros((2, 2), "float32")
    add("MeanAbsolutePercentageError, zero label", "MeanAbsolutePercentageError", zeros, p[:2, :2])
    add("MeanAbsoluteError, equal", "MeanAbsoluteError", y[:2], y[:2])
    add("LogCosh, large", "LogCosh", np.zeros((1, 4), "float32"), np.array([[-300, -20, 20, 300]], "float32"))
    _with_weight_and_mask("Huber", "Huber", y, p)
    add("Huber, delta 0.3", "Huber", y, p, delta=0.3)
    add("Huber, at delta", "Huber", np.zeros((1, 4), "float32"), np.array([[-1, 1, 0, 1.0001]], "float32"))
    _with_weight_and_mask("CosineSimilarity", "CosineSimilarity", y, p)
    add("CosineSimilarity, axis 0", "CosineSimilarity", y, p, axis=0)
    add("CosineSimilarity, axis -2", "CosineSimilarity", y.reshape(2, 3, 4), p.reshape(2, 3, 4), axis=-2)
    add("CosineSimilarity, zero vector", "CosineSimilarity", y[:2], np.zeros((2, 4), "float32"))
    _with_weight_and_mask("Poisson", "Poisson", np.floor(np.abs(y) * 3), np.exp(p))
    add("Poisson, zero", "Poisson", np.ones((2, 2), "float32"), np.zeros((2, 2), "float32"))
    _with_weight_and_mask("KLDivergence", "KLDivergence", softmax(y), softmax(p))
    add("KLDivergence, zeros and ones", "KLDivergence", np.eye(3, dtype="float32"), np.eye(3, dtype="float32")[::-1])


def _hinges() -> None:
    signs = np.sign(normal("hinge true", 6, 4))
    p = normal("hinge predicted", 6, 4)
    for loss in ("Hinge", "SquaredHinge"):
        _with_weight_and_mask(loss, loss, signs, p)
        add(f"{loss}, labels 0 and 1", loss, (signs + 1) / 2, p)
        add(f"{loss}, labels neither", loss, normal("hinge other", 6, 4), p)
        add(f"{loss}, integer labels", loss, signs.astype("int32"), p)
    labels = one_hot(random_of("hinge labels").integers(0, 4, 6), 4)
    _with_weight_and_mask("CategoricalHinge", "CategoricalHinge", labels, p)


def _binary() -> None:
    y = (uniform("binary true", 6, 3, low=0, high=1) > 0.5).astype("float32")
    p, logits = uniform("binary predicted", 6, 3), 3 * normal("binary logits", 6, 3)
    edges, edge_labels = np.array([[0, 1, 0, 1, 1e-9, 0.5]], "float32").T, np.array([[0, 1, 1, 0, 1, 1]], "float32").T
    large = np.array([[-100, 100, -100, 100, 0, 1e-3]], "float32").T
    for loss in ("BinaryCrossentropy", "BinaryFocalCrossentropy"):
        _with_weight_and_mask(loss, loss, y, p)
        add(f"{loss}, logits", loss, y, logits, from_logits=True)
        add(f"{loss}, smoothed", loss, y, p, label_smoothing=0.2)
        add(f"{loss}, logits smoothed", loss, y, logits, from_logits=True, label_smoothing=0.1)
        add(f"{loss}, probabilities 0 and 1", loss, edge_labels, edges)
        add(f"{loss}, large logits", loss, edge_labels, large, from_logits=True)
        add(f"{loss}, soft labels", loss, uniform("binary soft", 6, 3), p)
        add(f"{loss}, axis 1 of 3", loss, np.stack([y, y], -1), np.stack([p, 1 - p], -1), axis=1)
        add(f"{loss}, integer labels of rank 1", loss, y[:, 0].astype("int32"), p[:, :1])
    add("BinaryFocalCrossentropy, balanced", "BinaryFocalCrossentropy", y, p, apply_class_balancing=True)
    add("BinaryFocalCrossentropy, alpha and gamma", "BinaryFocalCrossentropy", y, logits, apply_class_balancing=True,
        alpha=0.4, gamma=1.5, from_logits=True)  # fmt: skip


def _categorical() -> None:
    labels = one_hot(random_of("categorical labels").integers(0, 5, 6), 5)
    logits = 2 * normal("categorical logits", 6, 5)
    p, soft = softmax(logits), softmax(normal("categorical soft", 6, 5))
    for loss in ("CategoricalCrossentropy", "CategoricalFocalCrossentropy"):
        _with_weight_and_mask(loss, loss, labels, p)
        _with_weight_and_mask(f"{loss}, logits", loss, labels, logits, from_logits=True)
        add(f"{loss}, smoothed", loss, labels, p, label_smoothing=0.2)
        add(f"{loss}, logits smoothed", loss, labels, logits, from_logits=True, label_smoothing=0.1)
        add(f"{loss}, soft labels", loss, soft, p)
        add(f"{loss}, soft labels, logits", loss, soft, logits, from_logits=True)
        add(f"{loss}, not normalized", loss, labels, 3 * p)
        add(f"{loss}, probabilities 0 and 1", loss, np.eye(3, dtype="float32"),
            np.array([[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]], "float32"))  # fmt: skip
        add(f"{loss}, large logits", loss, np.eye(3, dtype="float32"),
            np.array([[100, 0, 0], [0, -100, 100], [-200, 0, 200]], "float32"), from_logits=True)  # fmt: skip
        shape = (2, 3, 5)
        add(f"{loss}, three axes", loss, labels.reshape(shape), p.reshape(shape))
        first = [np.moveaxis(array.reshape(shape), -1, 1) for array in (labels, p, logits)]
        add(f"{loss}, axis 1", loss, first[0], first[1], axis=1)
        add(f"{loss}, axis 1, logits", loss, first[0], first[2], axis=1, from_logits=True)
    focal = "CategoricalFocalCrossentropy"
    add(f"{focal}, alpha and gamma", focal, labels, p, alpha=0.4, gamma=1.5)
    add("CategoricalGeneralizedCrossEntropy", "CategoricalGeneralizedCrossEntropy", labels.argmax(-1), p)
    add("CategoricalGeneralizedCrossEntropy, q 0.8", "CategoricalGeneralizedCrossEntropy", labels.argmax(-1), p, q=0.8)


def _sparse() -> None:
    labels = random_of("sparse labels").integers(0, 5, 6)
    logits = 2 * normal("categorical logits", 6, 5)
    p, loss = softmax(logits), "SparseCategoricalCrossentropy"
    _with_weight_and_mask(loss, loss, labels, p)
    _with_weight_and_mask(f"{loss}, logits", loss, labels, logits, from_logits=True)
    add(f"{loss}, column of labels", loss, labels[:, None], p)
    add(f"{loss}, float labels", loss, labels.astype("float32"), p)
    add(f"{loss}, not normalized", loss, labels, 3 * p)
    add(f"{loss}, probability 0", loss, np.array([0, 1]), np.array([[0, 1.0], [0.0, 1.0]], "float32"))
    ignored = np.array([0, 2, 1, 2, 4, 3])
    _with_weight_and_mask(f"{loss}, ignore_class 2", loss, ignored, p, ignore_class=2)
    add(f"{loss}, ignore_class 2, logits", loss, ignored, logits, from_logits=True, ignore_class=2)
    add(f"{loss}, ignore_class -1", loss, np.array([0, -1, 1, -1, 4, 3]), p, ignore_class=-1)
    add(f"{loss}, ignore_class 255, logits", loss, np.array([0, 255, 1, 2, 4, 255]), logits, from_logits=True,
        ignore_class=255)  # fmt: skip
    add(f"{loss}, all ignored", loss, np.full(6, 2), p, ignore_class=2)
    pixels = labels.reshape(2, 3)
    add(f"{loss}, sequence", loss, pixels, p.reshape(2, 3, 5))
    add(f"{loss}, sequence with last axis 1", loss, pixels[..., None], p.reshape(2, 3, 5))
    add(f"{loss}, sequence, weight a step", loss, pixels, p.reshape(2, 3, 5), WEIGHT.reshape(2, 3))
    add(f"{loss}, sequence, weight a row", loss, pixels, p.reshape(2, 3, 5), np.array([[0.5], [2.0]], "float32"))
    add(f"{loss}, sequence, mask a step", loss, pixels, p.reshape(2, 3, 5), None, MASK.reshape(2, 3))
    add(f"{loss}, sequence, ignore_class 1, logits", loss, pixels, logits.reshape(2, 3, 5), from_logits=True,
        ignore_class=1)  # fmt: skip


def _overlap() -> None:
    y = (uniform("overlap true", 2, 3, 3, 1, low=0, high=1) > 0.5).astype("float32")
    p = uniform("overlap predicted", 2, 3, 3, 1)
    for loss in ("Dice", "Tversky"):
        add(loss, loss, y, p)
        add(f"{loss}, axis", loss, y, p, axis=(1, 2, 3))
        add(f"{loss}, axis, weighted", loss, y, p, np.array([0.5, 2.0], "float32"), axis=(1, 2, 3))
        add(f"{loss}, both empty", loss, np.zeros_like(y), np.zeros_like(p))
    add("Tversky, alpha and beta", "Tversky", y, p, alpha=0.3, beta=0.7)


def _embedding_and_sequence() -> None:
    x = normal("circle", 6, 4)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    labels = np.array([0, 1, 0, 2, 1, 2])
    add("Circle", "Circle", labels, x)
    add("Circle, weighted", "Circle", labels, x, WEIGHT)
    add("Circle, gamma and margin", "Circle", labels, x, gamma=16.0, margin=0.25)
    add("Circle, diagonal kept", "Circle", labels, x, remove_diagonal=False)
    logits = normal("ctc", 3, 8, 5)
    targets = np.array([[1, 2, 3], [2, 2, 0], [4, 0, 0]], "int32")
    add("CTC", "CTC", targets, logits)
    add("CTC, weighted", "CTC", targets, logits, np.array([0.5, 1, 2], "float32"))


def _shapes_weights_masks() -> None:
    mse = "MeanSquaredError"
    y, p = normal("shapes true", 6, 1), normal("shapes predicted", 6, 1)
    add("rank 1 labels, rank 2 predictions", mse, y[:, 0], p)
    add("rank 2 labels, rank 1 predictions", mse, y, p[:, 0])
    add("rank 1 both", mse, y[:, 0], p[:, 0])
    add("integer labels", mse, np.arange(6).reshape(6, 1), p)
    add("boolean labels", mse, np.array([[True], [False]] * 3), p)
    add("weight a column", mse, y, p, WEIGHT[:, None])
    add("weight a scalar", mse, y, p, np.float32(2.0))
    add("weights all zero", mse, y, p, np.zeros(6, "float32"))
    add("mask all false", mse, y, p, None, np.zeros(6, bool))
    add("one row", mse, y[:1], p[:1])
    y3, p3 = normal("sequence true", 2, 3, 4), normal("sequence predicted", 2, 3, 4)
    add("three axes", mse, y3, p3)
    add("three axes, weight a step", mse, y3, p3, WEIGHT.reshape(2, 3))
    add("three axes, weight a row", mse, y3, p3, np.array([[0.5], [2.0]], "float32"))
    add("three axes, mask a step", mse, y3, p3, None, MASK.reshape(2, 3))
    add("three axes, weight and mask a step", mse, y3, p3, WEIGHT.reshape(2, 3), MASK.reshape(2, 3))
    add("labels broadcast", mse, y3[:, :1], p3)


def _dtypes() -> None:
    y, p = normal("regression true", 6, 4), normal("regression predicted", 6, 4)
    labels = random_of("sparse labels").integers(0, 4, 6)
    add("predictions float16, loss float32", "MeanSquaredError", y, p.astype("float16"))
    add("loss float16", "MeanSquaredError", y, p, dtype="float16")
    sparse = "SparseCategoricalCrossentropy"
    add("sparse, predictions float16 logits", sparse, labels, p.astype("float16"), from_logits=True)


def _functions() -> dict[str, Any]:
    """Each function of `keras.losses`, unreduced, with arguments that its class does not show."""
    found: dict[str, Any] = {}

    def add_function(name: str, y_true: Any, y_pred: Any, label: str = "", **arguments: Any) -> None:
        value = np.asarray(getattr(losses, name)(y_true, y_pred, **arguments))
        inputs = {"y_true": y_true, "y_pred": y_pred}
        found[name + label] = {"function": name, "arguments": arguments, **inputs, "value": value}

    y, p = normal("regression true", 6, 4), normal("regression predicted", 6, 4)
    for name in ("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "log_cosh", "huber",
                 "cosine_similarity"):  # fmt: skip
        add_function(name, y, p)
    add_function("mean_squared_logarithmic_error", np.abs(y), np.abs(p))
    add_function("huber", y, p, ", delta", delta=0.5)
    add_function("cosine_similarity", y, p, ", axis", axis=0)
    add_function("poisson", np.floor(np.abs(y) * 3), np.exp(p))
    add_function("kl_divergence", softmax(y), softmax(p))
    signs = np.sign(y)
    for name in ("hinge", "squared_hinge"):
        add_function(name, signs, p)
    labels = random_of("sparse labels").integers(0, 4, 6)
    add_function("categorical_hinge", one_hot(labels, 4), p)
    for name in ("binary_crossentropy", "binary_focal_crossentropy"):
        add_function(name, (signs + 1) / 2, softmax(p))
        add_function(name, (signs + 1) / 2, p, ", logits", from_logits=True, label_smoothing=0.1)
    for name in ("categorical_crossentropy", "categorical_focal_crossentropy"):
        add_function(name, one_hot(labels, 4), softmax(p))
        add_function(name, one_hot(labels, 4), p, ", logits", from_logits=True, label_smoothing=0.1)
    add_function("sparse_categorical_crossentropy", labels, softmax(p))
    add_function("sparse_categorical_crossentropy", labels, p, ", logits", from_logits=True)
    add_function("sparse_categorical_crossentropy", labels, p, ", ignore_class", from_logits=True, ignore_class=1)
    add_function("categorical_generalized_cross_entropy", labels, softmax(p), q=0.5)
    add_function("dice", (signs + 1) / 2, softmax(p))
    add_function("tversky", (signs + 1) / 2, softmax(p), alpha=0.3, beta=0.7)
    unit = p / np.linalg.norm(p, axis=-1, keepdims=True)
    add_function("circle", np.array([0, 1, 0, 2, 1, 2]), unit)
    add_function("ctc", np.array([[1, 2, 3], [2, 2, 0]], "int32"), normal("ctc", 3, 8, 5)[:2])
    return found


def _configs() -> dict[str, Any]:
    configs = {}
    for name in sorted(dir(losses)):
        cls = getattr(losses, name)
        if isinstance(cls, type) and issubclass(cls, losses.Loss) and cls is not losses.Loss:
            configs[name] = {"get_config": cls().get_config(), "serialize": losses.serialize(cls())}
    configs["mean_squared_error"] = {"serialize": losses.serialize(losses.mean_squared_error)}
    return configs
