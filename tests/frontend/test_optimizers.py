"""Optimizers change weights as Keras's do, step by step, and write the same configurations."""

import warnings

import numpy as np
import pytest

from gnomon import Tensor, Variable, constraints, function, naming, optimizers
from gnomon.compiler.errors import ArgumentError, GraphError, StateError
from gnomon.optimizers import schedules
from gnomon.tensor import new_input
from gnomon.variable import collecting_updates
from tests.recorded.load import load

RECORDED = load("optimizers")
FORGIVEN = {"Muon": 2e-3}  # five products of matrices near rounding; Keras's own backends differ by as much


def make(case):
    arguments = dict(case["arguments"])
    rate = arguments.get("learning_rate")
    if isinstance(rate, dict):
        arguments["learning_rate"] = schedules.deserialize(rate)
    if case["class"] == "LossScaleOptimizer":
        arguments["inner_optimizer"] = optimizers.SGD(0.05, momentum=0.9, name="inner")
    made = getattr(optimizers, case["class"])(**arguments)
    if "exclude_from_weight_decay" in case:
        made.exclude_from_weight_decay(**case["exclude_from_weight_decay"])
    return made


def start(case):
    variables = {name: Variable(value, name=name) for name, value in RECORDED["start"].items()}
    for name, text in case.get("constraints", {}).items():
        variables[name].constraint = {"MaxNorm(0.9)": constraints.MaxNorm(0.9), "NonNeg()": constraints.NonNeg()}[text]
    return variables


def own(optimizer):
    """The optimizer's variables by their paths without its name."""
    names = []
    for v in optimizer.variables:
        name = v.path.removeprefix(optimizer.name + "/")
        names.append(f"{name} (second)" if name in names else name)
    return dict(zip(names, optimizer.variables, strict=True))


def near(actual, wanted, tolerance, message):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * 1e-1, err_msg=message)


def steps_of(case):
    return case.get("gradients") or RECORDED["gradients"]


@pytest.mark.filterwarnings("ignore:there are no gradients for the variables bias")
@pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero) encountered")
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_steps_are_keras(name):
    case = RECORDED["cases"][name]
    optimizer, variables = make(case), start(case)
    optimizer.build(list(variables.values()))
    slots = own(optimizer)
    # Nadam's product of betas has no name of its own in Keras
    recorded = ["u_product" if slot.startswith("variable") else slot for slot in case["slots"]]
    assert list(slots) == recorded
    slots = dict(zip(case["slots"], slots.values(), strict=True))
    tolerance = FORGIVEN.get(case["class"], 2e-5)
    for slot, value in case["slots at start"].items():
        near(slots[slot].numpy(), value, tolerance, f"{slot} at start")
    for step, gradients in enumerate(steps_of(case)):
        if name == "Adam, learning rate set to 0.01 before step 3" and step == 3:
            optimizer.learning_rate = 0.01
        optimizer.apply([gradients[v] for v in variables], list(variables.values()))
        for key, v in variables.items():
            near(v.numpy(), case["variables"][key][step], tolerance, f"{key} after step {step}")
        for key, v in slots.items():
            near(v.numpy(), case["slots"][key][step], tolerance, f"{key} after step {step}")
    optimizer.finalize_variable_values(list(variables.values()))
    for key, v in variables.items():
        near(v.numpy(), case["finalized"][key], tolerance, f"{key} finalized")


@pytest.mark.parametrize("name", ["SGD, nesterov", "RMSprop, centered", "Adam, accumulation 2, use_ema", "Nadam"])
def test_compiled_steps_are_keras(name):
    case = RECORDED["cases"][name]
    optimizer, variables = make(case), start(case)
    inputs = {k: Tensor(new_input(k, "float32", v.buffer.shape)) for k, v in variables.items()}
    optimizer.build(list(variables.values()))
    with collecting_updates() as updates:
        optimizer.apply(list(inputs.values()), list(variables.values()))
    step = function(list(inputs.values()), updates={v: Tensor(node) for v, node in updates.items()})
    for k, gradients in enumerate(steps_of(case)):
        step(*(gradients[v] for v in variables))
        for key, v in variables.items():
            near(v.numpy(), case["variables"][key][k], 2e-5, f"{key} after step {k}")


def test_learning_rate_is_read_anew_by_a_compiled_step():
    optimizer, w = optimizers.SGD(0.5), Variable(np.zeros(2, "float32"), name="w")
    g = Tensor(new_input("g", "float32", (2,)))
    with collecting_updates() as updates:
        optimizer.apply([g], [w])
    step = function([g], updates={v: Tensor(node) for v, node in updates.items()})
    step(np.ones(2, "float32"))
    optimizer.learning_rate = 0.25
    step(np.ones(2, "float32"))
    np.testing.assert_allclose(w.numpy(), [-0.75, -0.75])
    assert float(optimizer.learning_rate) == 0.25
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("name", RECORDED["configs"])
def test_configuration_is_keras(name):
    recorded = RECORDED["configs"][name]
    naming.reset_names()
    if "sgd_1" in str(recorded):
        naming.auto_name("SGD")
    again = optimizers.deserialize(recorded["serialize"])
    assert again.get_config() == recorded["get_config"]
    assert optimizers.serialize(again) == recorded["serialize"]
    if name == recorded["serialize"]["class_name"] and name != "LossScaleOptimizer":
        naming.reset_names()
        assert getattr(optimizers, name)().get_config() == recorded["get_config"]
        assert type(optimizers.get(name.upper())) is type(again)


def test_string_names_are_keras():
    for name, wanted in load("signatures")["string names"]["optimizers"].items():
        if wanted not in ("MultiOptimizer", "OptimizerMap"):
            assert optimizers.registry.find(name).__name__ == wanted


def test_float64_stays_float64():
    w = Variable(np.ones(3), dtype="float64")
    optimizer = optimizers.Adam(0.1)
    g, m, v, x = np.array([0.1, -0.2, 3.0]), np.zeros(3), np.zeros(3), np.ones(3)
    rate = float(np.float32(0.1))
    for t in range(1, 4):
        optimizer.apply([g], [w])
        m, v = m + (g - m) * (1 - 0.9), v + (g * g - v) * (1 - 0.999)
        x = x - m * (rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)) / (np.sqrt(v) + 1e-7)
    assert w.numpy().dtype == np.float64
    np.testing.assert_allclose(w.numpy(), x, rtol=1e-12)


SCHEDULES = load("schedules")["cases"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_keras(name):
    case = SCHEDULES[name]
    schedule = getattr(schedules, case["class"])(**case["arguments"])
    values = [schedule(int(step)) for step in case["steps"]]
    # cosines of a large argument, and the logarithm that finds the restart, lose digits in float32
    np.testing.assert_allclose(values, case["values"], rtol=2e-5, atol=2e-7)
    assert schedule.get_config() == case["get_config"]
    assert schedules.serialize(schedule) == case["serialize"]
    again = schedules.deserialize(case["serialize"])
    assert type(again) is type(schedule)
    step = Tensor(new_input("step", "int64", ()))
    compiled = function([step], schedule(step))
    np.testing.assert_allclose([compiled(t) for t in case["steps"]], case["values"], rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize(
    "schedule, wanted",
    [
        (schedules.ExponentialDecay(0.1, 10, 0.5), lambda t: 0.1 * 0.5 ** (t / 10)),
        (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), lambda t: 0.1 * 0.5 ** (t // 10)),
        (schedules.InverseTimeDecay(0.1, 10, 0.5), lambda t: 0.1 / (1 + 0.5 * t / 10)),
        (schedules.InverseTimeDecay(0.1, 10, 0.5, staircase=True), lambda t: 0.1 / (1 + 0.5 * (t // 10))),
        (schedules.PolynomialDecay(0.1, 10, 0.01, power=2.0), lambda t: 0.09 * (1 - min(t, 10) / 10) ** 2 + 0.01),
        (
            schedules.PolynomialDecay(0.1, 10, 0.01, cycle=True),
            lambda t: 0.09 * (1 - t / (10 * max(1, np.ceil(t / 10)))) + 0.01,
        ),
        (schedules.PiecewiseConstantDecay([5, 12], [3.0, 2.0, 1.0]), lambda t: 3 if t <= 5 else 2 if t <= 12 else 1),
        (schedules.CosineDecay(0.1, 10, 0.2), lambda t: 0.1 * (0.8 * (1 + np.cos(np.pi * min(t, 10) / 10)) / 2 + 0.2)),
        (
            schedules.CosineDecay(0.1, 10, warmup_target=0.5, warmup_steps=4),
            lambda t: 0.1 + 0.4 * t / 4 if t < 4 else 0.5 * (1 + np.cos(np.pi * min(t - 4, 10) / 10)) / 2,
        ),
        (schedules.CosineDecayRestarts(0.1, 5, t_mul=1.0), lambda t: 0.1 * (1 + np.cos(np.pi * (t % 5) / 5)) / 2),
        (
            schedules.CosineDecayRestarts(0.1, 5, m_mul=0.5),
            lambda t: 0.1 * (1 + np.cos(np.pi * t / 5)) / 2 if t < 5
            else 0.05 * (1 + np.cos(np.pi * (t - 5) / 10)) / 2 if t < 15
            else 0.025 * (1 + np.cos(np.pi * (t - 15) / 20)) / 2,
        ),
    ],
    ids=lambda v: v.name if isinstance(v, schedules.LearningRateSchedule) else "",
)  # fmt: skip
def test_schedules(schedule, wanted):
    steps = [0, 1, 3, 4, 6, 9, 11, 13, 18, 25]
    np.testing.assert_allclose([schedule(t) for t in steps], [wanted(t) for t in steps], rtol=2e-5, atol=2e-7)
    again = schedules.deserialize(schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()
    optimizer, w = optimizers.SGD(schedule), Variable(0.0)
    optimizer.apply([np.float32(1)], [w])
    np.testing.assert_allclose(w.numpy(), -wanted(0), rtol=1e-5)
    np.testing.assert_allclose(optimizer.learning_rate, wanted(1), rtol=1e-5)


def test_own_optimizer():
    class Mine(optimizers.Optimizer):
        def build(self, variables):
            super().build(variables)
            self.totals = self.add_optimizer_variables(variables, "total")

        def update_step(self, gradient, variable, learning_rate):
            total = self.totals[self._get_variable_index(variable)]
            self.assign_add(total, gradient)
            self.assign_sub(variable, learning_rate * total)

    w = Variable(np.zeros(2, "float32"), name="w")
    mine = Mine(learning_rate=0.5)
    mine.apply_gradients([(np.ones(2, "float32"), w)])
    mine.apply_gradients([(np.ones(2, "float32"), w)])
    np.testing.assert_allclose(w.numpy(), [-1.5, -1.5])
    store: dict = {}
    mine.save_own_variables(store)
    assert list(store) == ["0", "1", "2"]


def test_old_and_wrong_arguments():
    with pytest.warns(UserWarning, match="learning_rate=0.01") as caught:
        made = optimizers.RMSprop(lr=0.01)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_allclose(float(made.learning_rate), 0.01, rtol=1e-6)
    with pytest.raises(ArgumentError, match="decay= is no longer there"):
        optimizers.SGD(0.1, decay=1e-6)
    with pytest.raises(ArgumentError, match="Adam has no argument 'beta1'. Did you mean 'beta_1'"):
        optimizers.Adam(beta1=0.5)
    with pytest.raises(ArgumentError, match="Unknown optimizer 'adm'. Did you mean '.*[aA]dam"):
        optimizers.get("adm")
    with pytest.raises(ArgumentError, match="clipnorm and clipvalue"):
        optimizers.SGD(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ArgumentError, match="learning_rate is a number"):
        optimizers.SGD("fast")
    with pytest.raises(StateError, match="cannot be set"):
        optimizers.SGD(schedules.CosineDecay(0.1, 4)).learning_rate = 0.1
    optimizer = optimizers.SGD()
    optimizer.build([Variable(0.0)])
    with pytest.raises(GraphError, match="new optimizer"):
        optimizer.apply([np.float32(1)], [Variable(0.0)])
    with pytest.raises(GraphError, match="no gradients"):
        optimizer.apply([None])


def test_signature_shows_all_arguments():
    import inspect

    known = load("signatures")["keras.optimizers"]
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Ftrl", "Muon"):
        wanted = known[name].split(": ", 1)[1].strip("()").split(", ")
        own = inspect.signature(getattr(optimizers, name)).parameters
        assert {w.split("=")[0] for w in wanted} - {"**kwargs"} == set(own)


def test_warning_names_variables_without_gradient():
    w, b = Variable(0.0, name="w"), Variable(0.0, name="b")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizers.SGD().apply([np.float32(1), None], [w, b])
    assert ["b" in str(c.message) for c in caught] == [True]
