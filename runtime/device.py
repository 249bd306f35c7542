"""What a device must do, and the devices by name.

A device runs Programs made for its target. Everything above it (the executable of a CPU, the CUDA graphs of a GPU)
is its own affair; a frontend only calls these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gnomon.compiler.errors import CompileError, DeviceError, nearest
from gnomon.compiler.program import Program
from gnomon.compiler.targets import Target
from gnomon.runtime.buffer import Buffer


@dataclass(frozen=True)
class Loaded:
    """A program in memory, ready to be entered.

    entry     address of its entry function
    symbols   address of every function its sources define, kernels among them
    events    what was done to get there, one per source
    """

    entry: int
    symbols: dict[str, int]
    events: tuple[LoadEvent, ...] = ()


@dataclass(frozen=True)
class LoadEvent:
    """How one source became machine code: 'compiled', read from the 'cache', or 'shared' with an earlier program."""

    source: str
    how: str
    seconds: float = field(default=0.0, compare=False)


class TextMissing(CompileError):
    """Machine code is not in the cache, and there is no text to make it of: the program must be compiled anew."""


class Executable(Protocol):
    """A loaded program with its variables: called with arrays, returns arrays."""

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]: ...

    def memory(self, sizes: dict[str, int]) -> int:
        """Bytes of temporary memory one call takes with these sizes."""
        ...


class Device(Protocol):
    """Where programs run."""

    name: str

    def target(self) -> Target:
        """What to generate code for."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        """Memory for a variable, zeroed."""
        ...

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy all of `source`, of equal shape and dtype, to `target`."""
        ...

    def load(self, program: Program) -> Loaded:
        """Machine code for `program`: from this process, from the cache, or compiled now. Raises CompileError."""
        ...

    def executable(self, program: Program, variables: Sequence[Buffer]) -> Executable:
        """`program` with the buffers of its variables, in the order of `program.variables`.

        Raises CompileError; TextMissing if the program has no texts and its code is not known."""
        ...

    def prepare(self) -> None:
        """Be told that a program is about to be made: whatever takes a while to start may start now."""
        ...

    def wait(self) -> None:
        """Return when all that was started has ended."""
        ...


def _cpu() -> Device:
    from gnomon.runtime.cpu import CPU

    return CPU()


def _cuda() -> Device:
    from importlib import import_module

    try:
        return import_module("gnomon.runtime.cuda").CUDA()
    except ImportError as error:
        raise DeviceError(
            f"The device 'cuda' needs CuPy ({error}). Install gnomon[cuda12] or gnomon[cuda13], or use device 'cpu'."
        ) from error


DEVICES: dict[str, Callable[[], Device]] = {"cpu": _cpu, "cuda": _cuda}
"""How each device is made, by name."""

_made: dict[str, Any] = {}


def device(name: str = "cpu") -> Device:
    """The device called `name`, the same object each time. Raises DeviceError if there is none."""
    if name not in _made:
        if name not in DEVICES:
            raise DeviceError(f"There is no device {name!r}.{nearest(name, DEVICES)}")
        _made[name] = DEVICES[name]()
    return _made[name]
