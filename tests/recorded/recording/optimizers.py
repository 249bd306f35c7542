# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Every optimizer: the variables and its own variables after each of six steps from the same gradients."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import optimizers

from .store import plain, random_of

STEPS = 6
SHAPES = {"kernel": (4, 3), "bias": (3,), "scale": ()}
CASES: dict[str, dict[str, Any]] = {}


def record() -> dict[str, Any]:
    CASES.clear()
    _plain()
    _own_arguments()
    _shared_arguments()
    _rates()
    _special()
    return {"start": START, "gradients": GRADIENTS, "cases": CASES, "configs": _configs()}


def _gradients() -> list[dict[str, np.ndarray]]:
    """Gradients of very different sizes, with a row that is never touched and one that only one step touches."""
    random, steps = random_of("gradients"), []
    for step in range(STEPS):
        kernel = random.standard_normal((4, 3)) * 10.0 ** random.integers(-3, 2, (4, 1))
        kernel[1] = 0
        kernel[2] *= step == 2
        bias, scale = random.standard_normal(3) * 0.1, random.standard_normal() + 1
        gradients = {"kernel": kernel, "bias": bias, "scale": np.asarray(scale)}
        steps.append({name: value.astype("float32") for name, value in gradients.items()})
    return steps


START = {name: random_of(f"start {name}").standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
GRADIENTS = _gradients()


def add(name: str, optimizer: str, **arguments: Any) -> None:
    """Record the trajectory of one optimizer."""
    schedules = optimizers.schedules
    shown = {
        key: schedules.serialize(value) if isinstance(value, schedules.LearningRateSchedule) else value
        for key, value in arguments.items()
    }
    CASES[name] = {"class": optimizer, "arguments": shown, **run(getattr(optimizers, optimizer)(**arguments))}


def run(
    optimizer: Any,
    variables: list[Any] | None = None,
    gradients: list[dict[str, Any]] = GRADIENTS,
    between: dict[int, Any] | None = None,
) -> dict[str, Any]:
    """Apply `gradients`; `between[step]` is called with the optimizer before that step."""
    variables = variables or [keras.Variable(value, name=name) for name, value in START.items()]
    optimizer.build(variables)
    names = _own_names(optimizer)
    first = [np.array(variable) for variable in optimizer.variables]
    trajectory: list[list[np.ndarray]] = [[] for _ in variables]
    slots: list[list[np.ndarray]] = [[] for _ in names]
    for step, gradient in enumerate(gradients):
        if between and step in between:
            between[step](optimizer)
        _apply(optimizer, [None if g is None else keras.ops.convert_to_tensor(g) for g in gradient.values()], variables)
        for variable, values in zip([*variables, *optimizer.variables], [*trajectory, *slots], strict=True):
            values.append(np.array(variable))
    optimizer.finalize_variable_values(variables)
    return {
        "variables": {v.name: np.stack(values) for v, values in zip(variables, trajectory, strict=True)},
        "finalized": {v.name: np.array(v) for v in variables},
        "slots": {name: np.stack(values) for name, values in zip(names, slots, strict=True)},
        "slots at start": dict(zip(names, first, strict=True)),
    }


def _apply(optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
    if not isinstance(optimizer, optimizers.LossScaleOptimizer):
        return optimizer.apply(gradients, variables)
    # its stateful form does not run on JAX
    values = [v.value for v in variables]
    values, own = optimizer.stateless_apply([v.value for v in optimizer.variables], gradients, values)
    for variable, value in zip([*variables, *optimizer.variables], [*values, *own], strict=True):
        variable.assign(value)


def _own_names(optimizer: Any) -> list[str]:
    """The paths without the optimizer's name (`kernel_momentum`); Adafactor gives both its factors one name."""
    names: list[str] = []
    for variable in optimizer.variables:
        name = variable.path.removeprefix(optimizer.name + "/")
        names.append(f"{name} (second)" if name in names else name)
    assert len(set(names)) == len(names), names
    return names


NAMES = ["SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam", "Ftrl", "Lion",
         "Lamb", "Muon", "ScheduleFreeAdamW"]  # fmt: skip


def _plain() -> None:
    for name in NAMES:
        add(name, name)
        add(f"{name}, learning rate 0.1", name, learning_rate=0.1)


def _own_arguments() -> None:
    add("SGD, momentum", "SGD", learning_rate=0.05, momentum=0.9)
    add("SGD, nesterov", "SGD", learning_rate=0.05, momentum=0.9, nesterov=True)
    add("SGD, nesterov without momentum", "SGD", learning_rate=0.05, nesterov=True)
    add("RMSprop, rho", "RMSprop", learning_rate=0.05, rho=0.5, epsilon=1e-3)
    add("RMSprop, momentum", "RMSprop", learning_rate=0.05, momentum=0.9)
    add("RMSprop, centered", "RMSprop", learning_rate=0.05, centered=True)
    add("RMSprop, momentum and centered", "RMSprop", learning_rate=0.05, momentum=0.8, centered=True, rho=0.8)
    add("Adam, betas and epsilon", "Adam", learning_rate=0.05, beta_1=0.5, beta_2=0.9, epsilon=1e-2)
    add("Adam, amsgrad", "Adam", learning_rate=0.05, amsgrad=True, beta_2=0.5)
    add("AdamW, weight_decay 0.1", "AdamW", learning_rate=0.05, weight_decay=0.1)
    add("AdamW, amsgrad", "AdamW", learning_rate=0.05, amsgrad=True, beta_2=0.5)
    add("Adagrad, initial accumulator", "Adagrad", learning_rate=0.05, initial_accumulator_value=0.5, epsilon=1e-2)
    add("Adadelta, rho", "Adadelta", learning_rate=1.0, rho=0.5, epsilon=1e-3)
    add("Adamax, betas", "Adamax", learning_rate=0.05, beta_1=0.5, beta_2=0.6)
    add("Nadam, betas", "Nadam", learning_rate=0.05, beta_1=0.5, beta_2=0.6)
    add("Ftrl, l1 and l2", "Ftrl", learning_rate=0.1, l1_regularization_strength=0.05, l2_regularization_strength=0.1)
    add("Ftrl, shrinkage and beta", "Ftrl", learning_rate=0.1, l2_shrinkage_regularization_strength=0.1, beta=0.2)
    add("Ftrl, power and accumulator", "Ftrl", learning_rate=0.1, learning_rate_power=-0.7,
        initial_accumulator_value=0.2)  # fmt: skip
    add("Lion, betas", "Lion", learning_rate=0.05, beta_1=0.5, beta_2=0.6)
    add("Lamb, betas", "Lamb", learning_rate=0.05, beta_1=0.5, beta_2=0.6)
    add("Adafactor, no relative step", "Adafactor", learning_rate=0.05, relative_step=False, clip_threshold=0.5)
    add("Muon, plain momentum", "Muon", learning_rate=0.05, nesterov=False, ns_steps=3, momentum=0.8)
    add("ScheduleFreeAdamW, warmup", "ScheduleFreeAdamW", learning_rate=0.05, warmup_steps=3)


def _shared_arguments() -> None:
    for name in ("SGD", "Adam", "RMSprop"):
        add(f"{name}, clipnorm", name, learning_rate=0.05, clipnorm=0.5)
        add(f"{name}, clipvalue", name, learning_rate=0.05, clipvalue=0.1)
        add(f"{name}, global_clipnorm", name, learning_rate=0.05, global_clipnorm=0.5)
        add(f"{name}, weight_decay", name, learning_rate=0.05, weight_decay=0.1)
        add(f"{name}, use_ema", name, learning_rate=0.05, use_ema=True, ema_momentum=0.8)
        add(f"{name}, use_ema, overwrite 3", name, learning_rate=0.05, use_ema=True, ema_momentum=0.8,
            ema_overwrite_frequency=3)  # fmt: skip
        add(f"{name}, accumulation 2", name, learning_rate=0.05, gradient_accumulation_steps=2)
        add(f"{name}, accumulation 3, clipnorm, decay", name, learning_rate=0.05, gradient_accumulation_steps=3,
            clipnorm=0.5, weight_decay=0.1)  # fmt: skip
        add(f"{name}, accumulation 2, use_ema", name, learning_rate=0.05, gradient_accumulation_steps=2, use_ema=True,
            ema_momentum=0.8)  # fmt: skip
        add(f"{name}, loss_scale_factor", name, learning_rate=0.05, loss_scale_factor=8.0)
    for name in ("Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion", "Lamb", "Adafactor"):
        add(f"{name}, weight_decay", name, learning_rate=0.05, weight_decay=0.1)
        add(f"{name}, clipnorm", name, learning_rate=0.05, clipnorm=0.5)
    add("SGD, clipnorm above every norm", "SGD", learning_rate=0.05, clipnorm=1e6)
    add("SGD, global_clipnorm above the norm", "SGD", learning_rate=0.05, global_clipnorm=1e6)


def _rates() -> None:
    schedules = optimizers.schedules
    add("SGD, exponential decay", "SGD", learning_rate=schedules.ExponentialDecay(0.1, 2, 0.5))
    add("Adam, piecewise", "Adam", learning_rate=schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.05, 0.01]))
    add("Adam, cosine, accumulation 2", "Adam", learning_rate=schedules.CosineDecay(0.1, 4),
        gradient_accumulation_steps=2)  # fmt: skip

    def set_rate(optimizer: Any) -> None:
        optimizer.learning_rate = 0.01

    CASES["Adam, learning rate set to 0.01 before step 3"] = {
        "class": "Adam", "arguments": {"learning_rate": 0.1},
        **run(optimizers.Adam(0.1), between={3: set_rate}),
    }  # fmt: skip


def _special() -> None:
    excluded = optimizers.AdamW(0.05, weight_decay=0.1)
    excluded.exclude_from_weight_decay(var_names=["bias"])
    CASES["AdamW, bias excluded from decay"] = {
        "class": "AdamW", "arguments": {"learning_rate": 0.05, "weight_decay": 0.1},
        "exclude_from_weight_decay": {"var_names": ["bias"]}, **run(excluded),
    }  # fmt: skip

    variables = [keras.Variable(value, name=name) for name, value in START.items()]
    variables[0].constraint = keras.constraints.MaxNorm(0.9)
    variables[1].constraint = keras.constraints.NonNeg()
    CASES["SGD, constraints"] = {
        "class": "SGD", "arguments": {"learning_rate": 0.05},
        "constraints": {"kernel": "MaxNorm(0.9)", "bias": "NonNeg()"}, **run(optimizers.SGD(0.05), variables),
    }  # fmt: skip

    missing = [{**gradient, "bias": None} for gradient in GRADIENTS]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(optimizers.Adam(0.05), gradients=missing)
    CASES["Adam, bias without gradient"] = {
        "class": "Adam", "arguments": {"learning_rate": 0.05}, "gradients": missing,
        "warning": str(caught[0].message), **result,
    }  # fmt: skip

    infinite = [
        {name: np.full_like(g, np.inf) if step == 2 else g for name, g in gradient.items()}
        for step, gradient in enumerate(GRADIENTS)
    ]
    inner = optimizers.SGD(0.05, momentum=0.9, name="inner")
    scaled = optimizers.LossScaleOptimizer(inner, initial_scale=4.0, dynamic_growth_steps=2)
    CASES["LossScaleOptimizer, infinite gradient in step 2"] = {
        "class": "LossScaleOptimizer",
        "arguments": {"inner_optimizer": "SGD(0.05, momentum=0.9)", "initial_scale": 4.0, "dynamic_growth_steps": 2},
        "gradients": infinite,
        **run(scaled, gradients=infinite),
    }  # fmt: skip


def _configs() -> dict[str, Any]:
    keras.utils.clear_session()
    made = {name: getattr(optimizers, name)() for name in NAMES}
    keras.utils.clear_session()
    made["SGD, schedule"] = optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9)
    made["Adam, everything"] = optimizers.Adam(
        0.002, clipnorm=1.0, weight_decay=0.01, use_ema=True, ema_overwrite_frequency=5, gradient_accumulation_steps=2,
        amsgrad=True, name="mine",
    )  # fmt: skip
    made["LossScaleOptimizer"] = optimizers.LossScaleOptimizer(optimizers.SGD(0.05))
    return {
        name: {"get_config": plain(optimizer.get_config()), "serialize": plain(optimizers.serialize(optimizer))}
        for name, optimizer in made.items()
    }
