"""The training steps of the examples' models for CUDA: NVIDIA's compiler takes every kernel, and nothing is spilled."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon import layers
from gnomon.compiler.compile import all_steps
from gnomon.compiler.lowering.cuda_shares import room
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import evaluate
from gnomon.inspecting import function_of
from tests.emulator import nvrtc
from tests.emulator.programs import for_cuda, kernels, text

FOLDER = Path(__file__).parents[2] / "examples"
SPARSE = "sparse_categorical_crossentropy"

EXAMPLES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "character_model": (lambda example: example.make(40, 64, 8), SPARSE),
    "forecasting": (lambda example: example.make(9, 32), "mae"),
    "functional": (lambda example: example.make(), ""),
    "memory_network": (lambda example: example.make(3), ""),
    "mnist_convnet": (lambda example: example.make(), SPARSE),
    "neural_turing_machine": (lambda example: example.make(), "binary_crossentropy"),
    "residual": (lambda example: example.make(), SPARSE),
    "sentiment": (lambda example: example.make(layers.Bidirectional(layers.GRU(16)), "both"), ""),
    "siamese": (lambda example: example.make()[0], ""),
    "sign_digits": (lambda example: example.make(), SPARSE),
    "transformer_text": (lambda example: example.make(40, 32), ""),
    "video": (lambda example: example.make(8), "binary_crossentropy"),
    "visual_question_answering": (lambda example: example.make(30), ""),
}
"""How an example's file makes its model, and the loss where that is not said there."""


def model_of(name: str) -> Any:
    make, loss = EXAMPLES[name]
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # where classes that are registered for saving look for themselves
    spec.loader.exec_module(example)
    model = make(example)
    if loss:
        model.compile("adam", loss)
    return model


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("name", EXAMPLES)
def test_training_steps_compile_to_cubin_without_spills(name: str) -> None:
    program = for_cuda(function_of(model_of(name), "train"))
    launches = [s for s in all_steps(program.steps) if isinstance(s, Launch)]
    sizes = dict.fromkeys(program.sizes, 64)
    for arch in ("sm_80", "sm_90"):
        usage = nvrtc.compile(text([program]), arch)
        assert usage.keys() == set(kernels(program))
        # some numbers are set aside around calls of division, or where another block can run then (stores and loads
        # are counted: 64 bytes are 8 numbers); a tile's sums, 32 numbers and more, must be in registers
        assert not {k: used for k, used in usage.items() if used.spilled > 64 or used.stack > 32}
        for launch in launches:
            used, threads = usage[launch.kernel], int(np.prod(launch.block))
            assert used.registers <= 128, launch.label
            assert -(-used.registers // 8) * 8 * threads <= 1 << 16, launch.label  # a multiprocessor has so many
            assert used.shared <= 48 << 10, launch.label
            assert used.shared + evaluate(launch.shared, sizes) <= room(arch), launch.label
