# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Every metric: the result after each of three updates, its variables, its config; which accuracy a string becomes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import metrics

from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}
ROWS = (5, 3, 1)
WEIGHTS = [np.array([0.5, 2.0, 0.0, 1.5, 1.0], "float32"), np.array([1, 0, 3], "float32"), np.array([0.25], "float32")]


def record() -> dict[str, Any]:
    CASES.clear()
    _means()
    _errors()
    _accuracies()
    _crossentropies()
    _counts()
    _curves()
    _scores()
    _intersections()
    _shapes_and_masks()
    return {"cases": CASES, "functions": _functions(), "resolved": _resolved(), "losses resolved": _losses_resolved(),
            "configs": _configs()}  # fmt: skip


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def uniform(name: str, *shape: int) -> np.ndarray:
    return random_of(name).uniform(0.02, 0.98, shape).astype("float32")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype("float32")


def add(name: str, metric: str, updates: Sequence[tuple[Any, ...]], /, weights: Any = None, **arguments: Any) -> None:
    """Record a metric after each update; `updates` are the positional arguments of `update_state`."""
    made = getattr(metrics, metric)(**arguments)
    steps = []
    for index, update in enumerate(updates):
        given = {} if weights is None else {"sample_weight": weights[index]}
        made.update_state(*update, **given)
        steps.append({"update": list(update), **given, "result": np.asarray(made.result())})
    variables = {v.name: np.asarray(v) for v in made.variables} if metric != "AUC" else {}
    made.reset_state()
    assert name not in CASES, name
    CASES[name] = {"class": metric, "arguments": arguments, "steps": steps, "variables": variables,
                   "after reset": np.asarray(made.result())}  # fmt: skip


def both(name: str, metric: str, updates: Sequence[tuple[Any, ...]], /, **arguments: Any) -> None:
    add(name, metric, updates, **arguments)
    add(f"{name}, weighted", metric, updates, weights=WEIGHTS, **arguments)


def pairs(name: str, true: Any, predicted: Any) -> list[tuple[Any, Any]]:
    """Three updates of 5, 3 and 1 rows."""
    return [(true(f"{name} true {n}", n), predicted(f"{name} predicted {n}", n)) for n in ROWS]


def _means() -> None:
    values = [(normal(f"mean {n}", n),) for n in ROWS]
    matrices = [(normal(f"mean matrix {n}", n, 4),) for n in ROWS]
    scalars = [(np.float32(value),) for value in (1.5, -2.0, 4.0)]
    for name in ("Mean", "Sum"):
        both(name, name, values)
        both(f"{name} of matrices", name, matrices)
        add(f"{name} of numbers", name, scalars)
        add(f"{name} of numbers, weighted", name, scalars, weights=[np.float32(w) for w in (1.0, 0.5, 2.0)])
        add(f"{name}, weight of every element", name, matrices, weights=[uniform(f"mean w {n}", n, 4) for n in ROWS])
        add(f"{name}, not finite", name, [(np.array([1, np.nan, np.inf], "float32"),)])
    real = pairs("wrapper", lambda n, r: normal(n, r, 2), lambda n, r: normal(n, r, 2))
    both("MeanMetricWrapper", "MeanMetricWrapper", real, fn=_fourth_power)
    for name in ("MeanMetricWrapper", "MeanMetricWrapper, weighted"):
        CASES[name]["arguments"] = {"fn": "lambda y_true, y_pred: mean((y_true - y_pred) ** 4, axis=-1)"}


def _fourth_power(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean((y_true - y_pred) ** 4, axis=-1)


def _errors() -> None:
    real = pairs("regression", lambda n, r: normal(n, r, 4), lambda n, r: normal(n, r, 4))
    for name in ("MeanSquaredError", "RootMeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
                 "LogCoshError", "CosineSimilarity"):  # fmt: skip
        both(name, name, real)
    positive = [(np.abs(t), np.abs(p)) for t, p in real]
    both("MeanSquaredLogarithmicError", "MeanSquaredLogarithmicError", positive)
    both("Poisson", "Poisson", positive)
    both("KLDivergence", "KLDivergence", [(softmax(t), softmax(p)) for t, p in real])
    add("CosineSimilarity, axis 0", "CosineSimilarity", real[:1], axis=0)
    signs = [(np.sign(t), p) for t, p in real]
    both("Hinge", "Hinge", signs)
    both("SquaredHinge", "SquaredHinge", signs)
    add("Hinge, labels 0 and 1", "Hinge", [((t + 1) / 2, p) for t, p in signs])
    both("CategoricalHinge", "CategoricalHinge", [(np.eye(4, dtype="float32")[t.argmax(-1)], p) for t, p in real])
    both("PearsonCorrelation", "PearsonCorrelation", real)
    both("ConcordanceCorrelation", "ConcordanceCorrelation", real)
    both("R2Score", "R2Score", real)
    for aggregation in (None, "variance_weighted_average"):
        add(f"R2Score, {aggregation}", "R2Score", real, class_aggregation=aggregation)
    add("R2Score, num_regressors", "R2Score", real, num_regressors=2)


def labels_and_logits(name: str, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(random_of(f"{name} labels {n}").integers(0, classes, n), 2 * normal(f"{name} logits {n}", n, classes))
            for n in ROWS]  # fmt: skip


def _accuracies() -> None:
    sparse = [(y, softmax(logits)) for y, logits in labels_and_logits("accuracy", 4)]
    one_hot = [(np.eye(4, dtype="float32")[y], p) for y, p in sparse]
    binary = pairs("binary", lambda n, r: (uniform(n, r, 1) > 0.5).astype("float32"), lambda n, r: uniform(n, r, 1))
    both("Accuracy", "Accuracy", [(y[:, None], p.argmax(-1)[:, None]) for y, p in sparse])
    both("Accuracy, rank 1", "Accuracy", [(y, p.argmax(-1)) for y, p in sparse])
    both("BinaryAccuracy", "BinaryAccuracy", binary)
    both("BinaryAccuracy, threshold", "BinaryAccuracy", binary, threshold=0.7)
    both("BinaryAccuracy, several columns", "BinaryAccuracy", one_hot)
    add("BinaryAccuracy, rank 1 labels", "BinaryAccuracy", [(y[:, 0], p) for y, p in binary])
    both("CategoricalAccuracy", "CategoricalAccuracy", one_hot)
    both("SparseCategoricalAccuracy", "SparseCategoricalAccuracy", sparse)
    both("SparseCategoricalAccuracy, column", "SparseCategoricalAccuracy", [(y[:, None], p) for y, p in sparse])
    both("TopKCategoricalAccuracy", "TopKCategoricalAccuracy", one_hot, k=2)
    both("SparseTopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy", sparse, k=2)
    add("SparseTopKCategoricalAccuracy, sorted ids", "SparseTopKCategoricalAccuracy",
        [(y, np.argsort(-p).astype("float32")) for y, p in sparse], k=2, from_sorted_ids=True)  # fmt: skip
    ties = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1], [0, 0, 0, 0]], "float32")
    units = np.eye(4, dtype="float32")
    add("CategoricalAccuracy, ties", "CategoricalAccuracy", [(units[[0, 2, 1]], ties)])
    add("TopKCategoricalAccuracy, ties", "TopKCategoricalAccuracy", [(units[[1, 2, 3]], ties)], k=2)
    sequence = [(random_of("sequence labels").integers(0, 4, (2, 3)), softmax(normal("sequence logits", 2, 3, 4)))]
    add("SparseCategoricalAccuracy, sequence", "SparseCategoricalAccuracy", sequence)
    add("SparseCategoricalAccuracy, sequence, weight a row", "SparseCategoricalAccuracy", sequence,
        weights=[np.array([0.5, 2.0], "float32")])  # fmt: skip
    add("SparseCategoricalAccuracy, sequence, weight a step", "SparseCategoricalAccuracy", sequence,
        weights=[np.arange(6, dtype="float32").reshape(2, 3)])  # fmt: skip


def _crossentropies() -> None:
    sparse = labels_and_logits("crossentropy", 4)
    probable = [(y, softmax(logits)) for y, logits in sparse]
    both("SparseCategoricalCrossentropy", "SparseCategoricalCrossentropy", probable)
    both("SparseCategoricalCrossentropy, logits", "SparseCategoricalCrossentropy", sparse, from_logits=True)
    both("SparseCategoricalCrossentropy, ignore_class", "SparseCategoricalCrossentropy", probable, ignore_class=1)
    one_hot = [(np.eye(4, dtype="float32")[y], logits) for y, logits in sparse]
    both("CategoricalCrossentropy", "CategoricalCrossentropy", [(y, softmax(logits)) for y, logits in one_hot])
    both("CategoricalCrossentropy, logits", "CategoricalCrossentropy", one_hot, from_logits=True, label_smoothing=0.1)
    both("BinaryCrossentropy", "BinaryCrossentropy", [(y, softmax(logits)) for y, logits in one_hot])
    both("BinaryCrossentropy, logits", "BinaryCrossentropy", one_hot, from_logits=True, label_smoothing=0.1)


def _counts() -> None:
    binary = pairs("counts", lambda n, r: (uniform(n, r, 1) > 0.5).astype("float32"), lambda n, r: uniform(n, r, 1))
    for name in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives", "Precision", "Recall"):
        both(name, name, binary)
        both(f"{name}, thresholds", name, binary, thresholds=[0.2, 0.5, 0.8])
    many = [(np.eye(4, dtype="float32")[y], softmax(logits)) for y, logits in labels_and_logits("counts", 4)]
    for name in ("Precision", "Recall"):
        both(f"{name}, several columns", name, many)
        add(f"{name}, class_id", name, many, class_id=1)
        add(f"{name}, top_k", name, many, top_k=2)
        add(f"{name}, top_k and class_id", name, many, top_k=2, class_id=1)
        add(f"{name}, threshold", name, many, thresholds=0.3)


def _curves() -> None:
    binary = pairs("curves", lambda n, r: (uniform(n, 8 * r) > 0.5).astype("float32"), lambda n, r: uniform(n, 8 * r))
    weights = [uniform(f"curves weight {n}", 8 * n) for n in ROWS]
    for curve in ("ROC", "PR"):
        for method in ("interpolation", "minoring", "majoring"):
            add(f"AUC, {curve}, {method}", "AUC", binary, curve=curve, summation_method=method)
    add("AUC, weighted", "AUC", binary, weights=weights)
    add("AUC, few thresholds", "AUC", binary, num_thresholds=5)
    add("AUC, thresholds", "AUC", binary, thresholds=[0.3, 0.4, 0.9])
    add("AUC, logits", "AUC", [(y, np.log(p / (1 - p))) for y, p in binary], from_logits=True)
    many = [(np.eye(4, dtype="float32")[y], softmax(logits)) for y, logits in labels_and_logits("curves", 4)]
    add("AUC, multi_label", "AUC", many[:2], multi_label=True, num_labels=4)
    add("AUC, label_weights", "AUC", many[:2], multi_label=True, num_labels=4, label_weights=[0.1, 0.2, 0.3, 0.4])
    for name, argument in (("SensitivityAtSpecificity", "specificity"), ("SpecificityAtSensitivity", "sensitivity"),
                           ("PrecisionAtRecall", "recall"), ("RecallAtPrecision", "precision")):  # fmt: skip
        for value in (0.3, 0.6):
            add(f"{name}, {value}", name, binary, **{argument: value})
            add(f"{name}, {value}, weighted", name, binary, weights=weights, **{argument: value}, num_thresholds=20)


def _scores() -> None:
    many = [(np.eye(4, dtype="float32")[y], softmax(logits)) for y, logits in labels_and_logits("scores", 4)]
    for average in (None, "micro", "macro", "weighted"):
        both(f"F1Score, {average}", "F1Score", many, average=average)
        add(f"FBetaScore, {average}", "FBetaScore", many, average=average, beta=2.0, threshold=0.3)


def _intersections() -> None:
    sparse = [(y, softmax(logits)) for y, logits in labels_and_logits("iou", 4)]
    ids = [(y, p.argmax(-1)) for y, p in sparse]
    one_hot = [(np.eye(4, dtype="float32")[y], p) for y, p in sparse]
    both("IoU", "IoU", ids, num_classes=4, target_class_ids=[0, 2])
    both("MeanIoU", "MeanIoU", ids, num_classes=4)
    both("MeanIoU, ignore_class", "MeanIoU", ids, num_classes=4, ignore_class=1)
    both("OneHotIoU", "OneHotIoU", one_hot, num_classes=4, target_class_ids=[0, 2])
    both("OneHotMeanIoU", "OneHotMeanIoU", one_hot, num_classes=4)
    binary = pairs("iou", lambda n, r: (uniform(n, r, 1) > 0.5).astype("int32"), lambda n, r: uniform(n, r, 1))
    both("BinaryIoU", "BinaryIoU", binary)
    add("BinaryIoU, class 1", "BinaryIoU", binary, target_class_ids=[1], threshold=0.3)


def _shapes_and_masks() -> None:
    y, p = normal("metric shapes true", 4, 1), normal("metric shapes predicted", 4, 1)
    add("MeanSquaredError, rank 1 labels", "MeanSquaredError", [(y[:, 0], p)])
    add("MeanSquaredError, integer labels", "MeanSquaredError", [(np.arange(4)[:, None], p)])
    add("MeanSquaredError, column of weights", "MeanSquaredError", [(y, p)], weights=[np.array([[1], [0], [2], [3.0]])])
    add("MeanSquaredError, scalar weight", "MeanSquaredError", [(y, p)], weights=[np.float32(2)])
    mask = np.array([True, False, True, True])
    for name in ("MeanSquaredError", "BinaryAccuracy"):
        for label, weight in (("masked", None), ("masked and weighted", np.array([1, 2, 0, 3], "float32"))):
            made = getattr(metrics, name)()
            predicted = keras.ops.convert_to_tensor(p)
            keras.src.backend.set_keras_mask(predicted, keras.ops.convert_to_tensor(mask))
            made.update_state(y, predicted, sample_weight=weight)
            step = {"update": [y, p], "mask": mask, "sample_weight": weight, "result": np.asarray(made.result())}
            CASES[f"{name}, {label}"] = {"class": name, "arguments": {}, "steps": [step]}


def _functions() -> dict[str, Any]:
    """The lower-case functions that are metrics only."""
    y, logits = labels_and_logits("metric functions", 4)[0]
    p, one_hot = softmax(logits), np.eye(4, dtype="float32")[y]
    calls: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("binary_accuracy", one_hot, p, {}), ("binary_accuracy", one_hot, p, {"threshold": 0.3}),
        ("categorical_accuracy", one_hot, p, {}), ("sparse_categorical_accuracy", y, p, {}),
        ("top_k_categorical_accuracy", one_hot, p, {"k": 2}), ("sparse_top_k_categorical_accuracy", y, p, {"k": 2}),
        ("pearson_correlation", one_hot, p, {}), ("concordance_correlation", one_hot, p, {}),
        ("pearson_correlation", one_hot, p, {"axis": 0}), ("concordance_correlation", one_hot, p, {"axis": 0}),
    ]  # fmt: skip
    return {
        name + "".join(f", {key}={value}" for key, value in arguments.items()): {
            "function": name, "arguments": arguments, "y_true": true, "y_pred": predicted,
            "value": np.asarray(getattr(metrics, name)(true, predicted, **arguments)),
        }
        for name, true, predicted, arguments in calls
    }  # fmt: skip


SHAPES = [((8, 1), (8, 1)), ((8,), (8, 1)), ((8, 4), (8, 4)), ((8,), (8, 4)), ((8, 1), (8, 4)), ((8, 3, 4), (8, 3, 4)),
          ((8, 3), (8, 3, 4)), ((8, 3, 1), (8, 3, 4)), ((8, 3), (8, 3, 1)), ((8,), (8,)), ((8, 2), (8, 2))]  # fmt: skip


def _resolved() -> list[dict[str, Any]]:
    """Which class `metrics=["accuracy"]` stands for, by the shapes of labels and predictions (never by the loss)."""
    from keras.src.trainers.compile_utils import get_metric

    found = []
    for true, predicted in SHAPES:
        for text in ("accuracy", "acc", "Accuracy"):
            made = get_metric(text, np.zeros(true), np.zeros(predicted))
            found.append({"string": text, "y_true": true, "y_pred": predicted, "class": type(made).__name__,
                          "name": made.name})  # fmt: skip
    names = """mse MSE mae bce binary_crossentropy categorical_crossentropy sparse_categorical_crossentropy
        cosine_similarity hinge kl_divergence top_k_categorical_accuracy binary_accuracy AUC auc Precision
        mean_squared_error MeanSquaredError RootMeanSquaredError huber log_cosh""".split()
    for text in names:
        try:
            made = get_metric(text, np.zeros((8, 4)), np.zeros((8, 4)))
        except ValueError as error:
            found.append({"string": text, "error": str(error)})
        else:
            found.append({"string": text, "class": type(made).__name__, "name": made.name})
    return found


def _losses_resolved() -> list[dict[str, Any]]:
    """Which function a loss's string stands for; "crossentropy" is decided by the shapes."""
    from keras.src.trainers.compile_utils import get_loss

    found = []
    for text in ("crossentropy", "ce"):
        for true, predicted in SHAPES:
            made = get_loss(text, np.zeros(true), np.zeros(predicted))
            found.append({"string": text, "y_true": true, "y_pred": predicted, "function": made.fn.__name__,
                          "name": made.name})  # fmt: skip
    names = """mse MSE mae mape msle bce BCE kld kl_divergence cosine_similarity huber huber_loss log_cosh logcosh hinge
        categorical_crossentropy MeanSquaredError mean_squared_error Poisson dice ctc""".split()
    for text in names:
        try:
            made = get_loss(text, np.zeros((8, 4)), np.zeros((8, 4)))
        except ValueError as error:
            found.append({"string": text, "error": str(error)})
        else:
            function = getattr(getattr(made, "fn", None), "__name__", None)
            found.append({"string": text, "class": type(made).__name__, "function": function, "name": made.name})
    return found


def _configs() -> dict[str, Any]:
    required: dict[str, dict[str, Any]] = {
        "SensitivityAtSpecificity": {"specificity": 0.5}, "SpecificityAtSensitivity": {"sensitivity": 0.5},
        "PrecisionAtRecall": {"recall": 0.5}, "RecallAtPrecision": {"precision": 0.5},
        "IoU": {"num_classes": 3, "target_class_ids": [0]}, "MeanIoU": {"num_classes": 3},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [0]}, "OneHotMeanIoU": {"num_classes": 3},
    }  # fmt: skip
    configs = {}
    for name in sorted(dir(metrics)):
        cls = getattr(metrics, name)
        if isinstance(cls, type) and name not in ("Metric", "MeanMetricWrapper"):
            keras.utils.clear_session()
            made = cls(**required.get(name, {}))
            configs[name] = {"get_config": plain(made.get_config()), "serialize": plain(metrics.serialize(made)),
                             "variables": [v.name for v in made.variables]}  # fmt: skip
    return configs
