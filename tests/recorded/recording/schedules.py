# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Every learning-rate schedule: its values at chosen steps, its config."""

from typing import Any

import numpy as np
from keras.optimizers import schedules

from .store import plain

STEPS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 15, 19, 20, 21, 25, 30, 31, 40, 99, 100, 101, 1000, 123456])

CASES: list[tuple[str, dict[str, Any]]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [5, 20], "values": [0.1, 0.05, 0.01]}),
    ("PiecewiseConstantDecay", {"boundaries": [5.5, 20.0], "values": [1, 2, 3]}),
    ("PiecewiseConstantDecay", {"boundaries": [10], "values": [0.1, 0.2]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "end_learning_rate": 0.01, "power": 0.5}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "end_learning_rate": 0.01, "power": 2.0,
                         "cycle": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 20, "warmup_target": 0.1, "warmup_steps": 5}),
    ("CosineDecay", {"initial_learning_rate": 0.02, "decay_steps": 20, "alpha": 0.1, "warmup_target": 0.1,
                     "warmup_steps": 10}),
    ("CosineDecay", {"initial_learning_rate": 0.02, "decay_steps": 20, "warmup_steps": 10}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5, "t_mul": 1.0, "m_mul": 0.9,
                             "alpha": 0.1}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 3.0, "m_mul": 0.5}),
]  # fmt: skip


def record() -> dict[str, Any]:
    cases = {}
    for name, arguments in CASES:
        made = getattr(schedules, name)(**arguments)
        label = name + "".join(f", {key}={value}" for key, value in arguments.items())
        cases[label] = {
            "class": name, "arguments": arguments, "steps": STEPS,
            "values": np.array([float(np.asarray(made(int(step)))) for step in STEPS], "float32"),
            "get_config": plain(made.get_config()), "serialize": plain(schedules.serialize(made)),
        }  # fmt: skip
    return {"cases": cases}
