"""`pytest --device emulator tests/frontend/layers` runs tests as they are on another device: the emulator or a card.

With `--device gpu`, programs of tests/compiler that the emulator runs otherwise run on the card, too.
"""

from __future__ import annotations

from typing import Any

import pytest


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--device", help="where functions and models of the tests run: 'emulator', 'gpu', 'cpu'")


def pytest_configure(config: Any) -> None:
    name = config.getoption("--device", default=None)
    if name is None:
        return
    from gnomon.compiler.errors import DeviceError
    from gnomon.placement import set_device
    from gnomon.runtime import device as devices
    from tests.emulator import programs

    if name == "emulator":
        from gnomon.runtime.gpu import Gpu
        from tests.emulator.driver import Emulator

        gpu = Gpu("emulator", Emulator(), poison=True)
        devices.KINDS["emulator"] = lambda index: gpu
    try:
        set_device(name)
    except DeviceError as error:
        raise pytest.UsageError(str(error)) from None
    if devices.canonical(name).startswith("gpu"):
        programs.CARD = devices.canonical(name)
