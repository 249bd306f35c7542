"""Metrics give Keras's results after each update, and write the same configurations."""

import numpy as np
import pytest

from gnomon import Tensor, function, losses, metrics, naming, ops
from gnomon.compiler.errors import ArgumentError, StateError
from gnomon.tensor import as_dims, new_input
from gnomon.variable import collecting_updates
from tests.recorded.load import load

RECORDED = load("metrics")


def fourth_power(y_true, y_pred):
    return ops.mean((y_true - y_pred) ** 4, axis=-1)


def make(case):
    arguments = dict(case["arguments"])
    if "fn" in arguments:
        arguments["fn"] = fourth_power
    return getattr(metrics, case["class"])(**arguments)


def near(actual, wanted, message):
    np.testing.assert_allclose(actual, wanted, rtol=3e-5, atol=3e-6, err_msg=message)


@pytest.mark.filterwarnings("ignore:metric .* counts in int32")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_results_are_keras(name):
    case = RECORDED["cases"][name]
    metric = make(case)
    for k, step in enumerate(case["steps"]):
        given = {} if step.get("sample_weight") is None else {"sample_weight": step["sample_weight"]}
        if step.get("mask") is not None:
            masked(metric, step, given)
        else:
            metric.update_state(*step["update"], **given)
        near(metric.result(), step["result"], f"after update {k}")
    for variable in metric.variables:
        if variable.name in case.get("variables", {}):
            near(variable.numpy(), case["variables"][variable.name], variable.name)
    if "after reset" in case:
        metric.reset_state()
        near(metric.result(), case["after reset"], "after reset")


def masked(metric, step, given):
    """Update in a compiled program, whose prediction carries a mask."""
    inputs = [Tensor(new_input(f"x{k}", a.dtype.name, a.shape)) for k, a in enumerate([*step["update"], step["mask"]])]
    inputs[1].mask = inputs[2]
    with collecting_updates() as updates:
        metric.update_state(*inputs[:2], **given)
    function(inputs, updates={v: Tensor(n) for v, n in updates.items()})(*step["update"], step["mask"])


@pytest.mark.parametrize("name", RECORDED["functions"])
def test_functions_are_keras(name):
    case = RECORDED["functions"][name]
    near(getattr(metrics, case["function"])(case["y_true"], case["y_pred"], **case["arguments"]), case["value"], name)


@pytest.mark.parametrize("name", RECORDED["configs"])
def test_configuration_is_keras(name):
    recorded = RECORDED["configs"][name]
    naming.reset_names()
    metric = metrics.deserialize(recorded["serialize"])
    assert metric.get_config() == recorded["get_config"]
    assert metrics.serialize(metric) == recorded["serialize"]
    assert [v.name for v in metric.variables] == recorded["variables"]
    required = {"num_classes", "target_class_ids", "specificity", "sensitivity", "recall", "precision"}
    naming.reset_names()
    fresh = getattr(metrics, name)(
        **{k: v for k, v in recorded["get_config"].items() if k in required and name != "BinaryIoU"}
    )
    assert fresh.get_config() == recorded["get_config"]


def test_strings_are_resolved_as_in_keras():
    for name, wanted in load("signatures")["string names"]["metrics"].items():
        assert metrics.registry.find(name).__name__ == wanted
    for case in RECORDED["resolved"]:
        if "y_true" in case:
            found = metrics.accuracy_for(tuple(case["y_true"]), tuple(case["y_pred"]))
        elif "class" in case:
            found = metrics.get(case["string"])
        else:
            with pytest.raises(ArgumentError, match=f"Unknown metric '{case['string']}'"):
                metrics.get(case["string"])
            continue
        assert type(found).__name__ == case["class"]
    for case in RECORDED["losses resolved"]:
        if "y_true" in case:
            found = losses.crossentropy_for(tuple(case["y_true"]), tuple(case["y_pred"]))
            assert found.__name__ == case["function"]
        elif "error" in case:
            with pytest.raises(ArgumentError, match="Unknown loss"):
                losses.get(case["string"])


@pytest.mark.parametrize("name", ["SparseCategoricalAccuracy", "AUC", "F1Score", "MeanIoU", "TopKCategoricalAccuracy"])
def test_compiled_updates_are_the_same(name):
    rng = np.random.default_rng(3)
    made = {"MeanIoU": {"num_classes": 3}, "TopKCategoricalAccuracy": {"k": 2}}.get(name, {})
    inside, outside = (getattr(metrics, name)(**made) for _ in range(2))
    p = rng.random((7, 3), np.float32)
    labels = rng.integers(0, 3, 7)
    y, p = {
        "SparseCategoricalAccuracy": (labels, p),
        "MeanIoU": (labels, p.argmax(-1)),
        "AUC": (labels % 2, p[:, 0]),
    }.get(name, (np.eye(3, dtype="float32")[labels], p))
    inputs = [Tensor(new_input(n, a.dtype.name, as_dims(("batch", *a.shape[1:]), n))) for n, a in (("y", y), ("p", p))]
    with collecting_updates() as updates:
        inside.update_state(*inputs)
        result = inside.result()
    step = function(inputs, result, updates={v: Tensor(n) for v, n in updates.items()})
    for rows in (slice(0, 4), slice(4, 7), slice(0, 1)):
        compiled = step(y[rows], p[rows])
        near(compiled, outside(y[rows], p[rows]), name)
    near(inside.result(), outside.result(), name)


def test_own_metric():
    class Largest(metrics.Metric):
        def __init__(self, name="largest"):
            super().__init__(name=name)
            self.most = self.add_weight(name="most")
            self.mean = metrics.Mean()

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.most.assign(ops.maximum(self.most, ops.max(ops.abs(y_true - y_pred))))
            self.mean.update_state(y_pred)

        def result(self):
            return {"most": self.most, "mean": self.mean.result() + 1}

    metric = Largest()
    metric.update_state(np.zeros(3, "float32"), np.array([1, -4, 2], "float32"))
    result = metric.result()
    metric.reset_state()
    assert result["most"] == 4
    assert isinstance(result["most"], np.ndarray)
    np.testing.assert_allclose(result["mean"], 1 - 1 / 3, rtol=1e-6)
    assert [v.path for v in metric.variables] == ["largest/most", "mean/total", "mean/count"]
    assert metric.result()["most"] == 0


def test_lists_and_numbers_are_taken():
    metric = metrics.Mean()
    metric.update_state([1.0, 3.0, 5.0], sample_weight=[1, 1, 0])
    assert metric.result() == 2
    assert metric.result().numpy() == 2
    metric.update_state(8)
    assert metric.result() == 4
    assert metrics.BinaryAccuracy()([1, 1, 0, 0], [0.98, 1, 0, 0.6]) == 0.75
    assert metrics.Mean(dtype="float64")(np.array([0.1, 0.3])).dtype == np.float64


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="Unknown metric 'acuracy'. Did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(ArgumentError, match="thresholds are between 0 and 1"):
        metrics.Precision(thresholds=[0.5, 2])
    with pytest.raises(ArgumentError, match="curve is 'ROC'"):
        metrics.AUC(curve="ROCK")
    with pytest.raises(StateError, match="first update_state"):
        metrics.F1Score().result()
