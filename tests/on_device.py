"""Tests on devices other than the CPU: on the emulator everywhere, on the card where there is one (`pytest -m gpu`)."""

from __future__ import annotations

from typing import Any

import pytest

from gnomon.runtime import device as devices
from gnomon.runtime.gpu import Gpu
from tests.emulator import compiler
from tests.emulator.driver import Emulator

DEVICES = [
    pytest.param(
        "emulator", marks=pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
    ),
    pytest.param(
        "gpu:0", marks=[pytest.mark.gpu, pytest.mark.skipif(bool(devices.gpu_problem()), reason="no GPU to be used")]
    ),
]


@pytest.fixture(params=DEVICES)
def where(request: Any, monkeypatch: Any) -> str:
    """The name of a device. The emulator is one for as long as the test runs."""
    if request.param == "emulator":
        offer(monkeypatch)
    return request.param


def offer(monkeypatch: Any, **options: Any) -> Gpu:
    """Let there be a device 'emulator', and nothing be taken from the programs of earlier tests."""
    gpu = Gpu("emulator", Emulator(**options), poison=True)
    monkeypatch.setitem(devices.KINDS, "emulator", lambda index: gpu)
    monkeypatch.setitem(devices._made, "emulator", gpu)
    return gpu
