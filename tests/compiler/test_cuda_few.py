"""Products of few rows by large matrices: kernels of their own on CUDA, chosen by the sizes of a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler.lowering import cuda_deep
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import for_cuda, kernels, text
from tests.on_device import offer

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


def layer(deep: int, columns: int, **options: Any) -> tuple[Any, np.ndarray]:
    """A Dense layer with relu and a residual."""
    w = np.random.default_rng(1).standard_normal((deep, columns)).astype(np.float32)
    b = np.linspace(-1, 1, columns, dtype=np.float32)
    x, r = gnomon.Input((deep,), name="x"), gnomon.Input((columns,), name="r")
    kernel, bias = gnomon.Variable(w), gnomon.Variable(b)
    y = ops.relu(x @ kernel + bias) + r
    return gnomon.function([x, r], y, **options), np.concatenate([w, b[None]])


@emulated
@pytest.mark.parametrize("deep, columns", [(97, 131), (1033, 67)])  # the second in parts, and some launches joined
def test_a_call_with_few_rows_launches_their_kernels_alone(monkeypatch: Any, deep: int, columns: int) -> None:
    monkeypatch.setattr(cuda_deep, "HEAVY", 1 << 10)
    driver = offer(monkeypatch).driver
    launched: list[str] = []
    launch = driver.launch
    monkeypatch.setattr(driver, "launch", lambda module, kernel, *more: (launched.append(kernel),
                                                                         launch(module, kernel, *more)))  # fmt: skip
    f, weights = layer(deep, columns, device="emulator")
    of_few = {kernel for kernel in kernels(f.program) if "few" in kernel}
    assert 1 <= len(of_few) <= len(kernels(f.program)) / 2
    for rows in (1, 8, 9, 40, 3, 0, 130):
        x, r = (np.random.default_rng(rows).standard_normal((rows, n)).astype(np.float32) for n in (deep, columns))
        wanted = np.maximum(x.astype(np.float64) @ weights[:-1] + weights[-1], 0) + r
        for _ in range(3):  # launched, captured, replayed
            launched.clear()
            np.testing.assert_allclose(f(x, r), wanted, rtol=1e-4, atol=1e-4 * np.sqrt(deep))
            if deep < 1000 and launched:
                assert set(launched) == of_few if rows <= 8 else not set(launched) & of_few


def test_small_products_and_known_rows_have_one_kernel() -> None:
    assert not any("few" in kernel for kernel in kernels(for_cuda(layer(512, 512, device="cpu")[0])))
    x = gnomon.Input(batch_shape=(4, 2048), name="x")
    kernel = gnomon.Variable(np.zeros((2048, 2048), np.float32))
    known = gnomon.function([x], x @ kernel, device="cpu")
    assert not any("few" in kernel for kernel in kernels(for_cuda(known)))


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_kernels_of_few_rows_compile_to_cubin_without_spills(arch: str) -> None:
    program = for_cuda(layer(2048, 1024, device="cpu")[0])
    assert len([kernel for kernel in kernels(program) if "few" in kernel]) >= 1
    assert not {k: u for k, u in nvrtc.compile(text([program]), arch).items() if u.spilled or u.stack}
