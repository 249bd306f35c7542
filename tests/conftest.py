"""`pytest --device emulator tests/frontend/layers` runs tests as they are on another device: the emulator or a card."""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--device", help="where functions and models of the tests run: 'emulator', 'gpu', 'cpu'")


def pytest_configure(config: Any) -> None:
    name = config.getoption("--device", default=None)
    if name is None:
        return
    from gnomon.placement import set_device
    from gnomon.runtime import device as devices

    if name == "emulator":
        from gnomon.runtime.gpu import Gpu
        from tests.emulator.driver import Emulator

        gpu = Gpu("emulator", Emulator(), poison=True)
        devices.KINDS["emulator"] = lambda index: gpu
    set_device(name)
