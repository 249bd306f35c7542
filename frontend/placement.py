"""Which device functions and models run on: `gnomon.device`, `gnomon.set_device`, GNOMON_DEVICE.

Unless told, programs run on the first GPU if there is one that can be used, else on the CPU. Variables need no thought:
they are wherever a program used them last, and come where they are read.
"""

from __future__ import annotations

import os
from contextvars import ContextVar, Token
from typing import Any

from gnomon.compiler.errors import DeviceError
from gnomon.runtime.device import Device, canonical, gpu_problem, usual
from gnomon.runtime.device import device as runtime_device

_inside: ContextVar[str | None] = ContextVar("device", default=None)
_session: str | None = None

chosen = _inside.get
"""The name of the device that a `with gnomon.device(...)` around has chosen: a part of keys under which programs are
found at once, and so no function of ours."""


class device:
    """A context in which functions and models are made for, and models run on, another device: 'cpu', 'gpu', 'gpu:1'.

        with gnomon.device("cpu"):
            model.predict(x)

    Raises DeviceError at once if there is no such device, and why.
    """

    def __init__(self, name: str):
        self.name = runtime_device(name).name
        self._tokens: list[Token[str | None]] = []

    def __enter__(self) -> device:
        self._tokens.append(_inside.set(self.name))
        return self

    def __exit__(self, *error: object) -> None:
        _inside.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"device({self.name!r})"


def set_device(name: str | None) -> None:
    """Let programs run on this device from now on, where no `with gnomon.device(...)` says otherwise. None: as usual.

    Raises DeviceError if there is no such device, and why.
    """
    from gnomon.layers.tracking import note_change

    global _session
    _session = None if name is None else runtime_device(name).name
    note_change()


def current_device() -> str:
    """The name of the device that a program made now would run on."""
    return chosen_device(None).name


def devices() -> list[str]:
    """The names of all devices that can be used here, the one that is used unless told first."""
    if gpu_problem():
        return ["cpu"]
    from gnomon.runtime import cuda

    return [*(f"gpu:{k}" for k in range(cuda.count())), "cpu"]


def chosen_device(name: str | None) -> Device:
    """The device called `name`; if that is None, the one chosen. Raises DeviceError if there is none."""
    if name is not None:
        return runtime_device(name)
    wanted = _inside.get() or _session
    if wanted is None:
        told = os.environ.get("GNOMON_DEVICE", "").strip()
        try:
            return runtime_device(told or usual())
        except DeviceError as error:
            raise DeviceError(f"GNOMON_DEVICE is {told!r}. {error}") from None
    return runtime_device(wanted)


def checked(name: Any) -> str | None:
    """A `device=` argument. Raises DeviceError at once if it is of no device."""
    return None if name is None else runtime_device(canonical(name)).name


__all__ = ["chosen", "chosen_device", "current_device", "device", "devices", "set_device"]
