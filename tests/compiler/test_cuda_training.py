"""A model's own train step, as `fit` compiles it, for CUDA on the emulator: what the CPU makes of the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon.compiler.program import Program, Repeat
from gnomon.models.steps import Step
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Emulated, for_cuda, kernels, state_of, text

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")

MOST_KERNELS = 10
"""Launches of the article's train step: each costs some microseconds, and there is little to do in one."""


def article() -> Any:
    """The Keras article's model, its loss and its optimizer."""
    model = gnomon.Sequential()
    model.add(gnomon.layers.Input(shape=(784,)))
    model.add(gnomon.layers.Dense(32, activation="relu"))
    model.add(gnomon.layers.Dense(10, activation="softmax"))
    model.compile(optimizer=gnomon.optimizers.RMSprop(learning_rate=0.001), loss="mse", metrics=["accuracy"])
    return model


def forgetful() -> Any:
    """Dropout, whose random stream is a variable of the program; integer labels; clipped gradients."""
    model = gnomon.Sequential(
        [
            gnomon.layers.Input(shape=(20,)),
            gnomon.layers.Dense(16, activation="tanh"),
            gnomon.layers.Dropout(0.4, seed=5),
            gnomon.layers.Dense(4),
        ]
    )
    loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=gnomon.optimizers.Adam(0.01, global_clipnorm=0.5), loss=loss, metrics=["accuracy"])
    return model


def data(inputs: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(inputs)
    return rng.random((40, inputs), dtype=np.float32), rng.integers(0, classes, 40)


def train(program: Program, step: Step, tables: Sequence[np.ndarray], arrays: list[np.ndarray], order: int) -> None:
    """Train on both from the same weights, and compare logs and all variables after each table of rows."""
    emulated, state = Emulated(program), state_of(step.function, program)
    for rows in tables:
        logs = emulated([rows, *arrays], state, order)
        wanted = step.run(rows, arrays)
        np.testing.assert_allclose([float(v) for v in logs], list(wanted.values()), rtol=1e-5)
        for (slot, _), got, want in zip(program.variables, state, state_of(step.function, program), strict=True):
            # where a gradient is a difference that nearly vanishes, RMSprop and Adam make much of its rounding
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6, err_msg=program.slots[slot].name)


@pytest.mark.parametrize("order", [0, 9])
def test_three_steps_of_the_articles_model(order: int) -> None:
    gnomon.utils.set_random_seed(1)
    x, labels = data(784, 10)
    y = np.eye(10, dtype=np.float32)[labels]
    step = article()._step_program("train", (x, y, None))
    program = for_cuda(step.function)
    assert isinstance(program.steps[0], Repeat)
    assert len(kernels(program)) <= MOST_KERNELS
    rows = np.random.default_rng(order).permutation(36).reshape(3, 12)
    train(program, step, [rows, np.array([[38]])], [x, y], order)  # and one step of a single row


def test_three_steps_with_dropout_and_integer_labels() -> None:
    gnomon.utils.set_random_seed(2)
    x, labels = data(20, 4)
    y = labels.astype(np.int32)
    step = forgetful()._step_program("train", (x, y, None))
    rows = np.arange(39).reshape(3, 13)
    train(for_cuda(step.function), step, [rows], [x, y], 2)


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_train_step_compiles_to_cubin_without_spills(arch: str) -> None:
    x, labels = data(784, 10)
    step = article()._step_program("train", (x, np.eye(10, dtype=np.float32)[labels], None))
    program = for_cuda(step.function)
    usage = nvrtc.compile(text([program]), arch)
    assert usage.keys() == set(kernels(program))
    assert not {name: used for name, used in usage.items() if used.spilled or used.stack}
