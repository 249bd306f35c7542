"""What a device must do, and the devices by name: 'cpu', 'gpu:0'.

A device runs Programs made for its target. Everything above it (the executable of a CPU, the CUDA graphs of a GPU)
is its own affair; a frontend only calls these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gnomon.compiler.errors import ArgumentError, CompileError, DeviceError, nearest
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
    """Where programs run.

    apart   whether its memory is another than the host's: what a program reads again and again is then better copied
            there once (`array`), and variables are where a program last used them
    """

    name: str
    apart: bool

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

    def array(self, value: np.ndarray) -> Any:
        """An array as programs here read it quickest: itself, or a copy in the device's memory. Raises
        OutOfMemoryError."""
        ...

    def room(self) -> int:
        """Bytes that arrays which stay there may take."""
        ...

    def adopt(self, value: Any) -> Any | None:
        """Something that is not NumPy's as an array in this device's memory without a copy; None if it is not there."""
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


def _cpu(index: int) -> Device:
    from gnomon.runtime.cpu import CPU

    if index:
        raise DeviceError(f"There is no device 'cpu:{index}': all processors together are 'cpu'.")
    return CPU()


def _gpu(index: int) -> Device:
    from gnomon.runtime import cuda

    return cuda.gpu(index)


KINDS: dict[str, Callable[[int], Device]] = {"cpu": _cpu, "gpu": _gpu}
"""How a device is made, by its kind and number."""

ALIASES = {"cuda": "gpu"}

_made: dict[str, Any] = {}


def canonical(name: str) -> str:
    """The name of a device as it calls itself: 'gpu:0' for 'GPU' and 'cuda:0'. Raises DeviceError for what is none."""
    kind, colon, number = str(name).strip().lower().partition(":")
    kind = ALIASES.get(kind, kind)
    if kind not in KINDS or (colon and not number.isdecimal()):
        raise DeviceError(f"There is no device {name!r}.{nearest(kind, KINDS)}")
    return kind if kind != "gpu" and int(number or 0) == 0 else f"{kind}:{int(number or 0)}"


def device(name: str = "cpu") -> Device:
    """The device called `name`, the same object each time. Raises DeviceError if there is none, and why."""
    own = canonical(name)
    if own not in _made:
        kind, _, number = own.partition(":")
        _made[own] = KINDS[kind](int(number or 0))
    return _made[own]


def gpu_problem() -> str:
    """Why programs cannot run on a GPU here; '' if they can. Nothing is imported where CuPy is not installed."""
    from importlib.util import find_spec

    if find_spec("cupy") is None:
        return (
            "CuPy is not installed: pip install 'gnomon[cuda12]' or 'gnomon[cuda13]', as the NVIDIA driver has it "
            "(nvidia-smi tells)"
        )
    from gnomon.runtime import cuda

    return cuda.problem()


PRECISIONS = {"float32": "float32", "tensorfloat32": "tf32", "tf32": "tf32", "bfloat16": "bfloat16"}
"""What factors of float32 products may be rounded to on a GPU, and what `Target.matrix` calls it."""

_precision: str | None = None


def matmul_precision() -> str:
    """What is set; else what GNOMON_MATMUL_PRECISION says; else 'float32'. Raises ArgumentError if that is none."""
    return _precision or _known(os.environ.get("GNOMON_MATMUL_PRECISION", "").strip() or "float32")


def set_matmul_precision(name: str | None) -> None:
    """For programs that are made from now on; None: as the environment says. Raises ArgumentError for another name."""
    global _precision
    _precision = None if name is None else _known(name)


def _known(name: str) -> str:
    if name not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        near = nearest(name, PRECISIONS)
        raise ArgumentError(f"The precision of products must be one of {known}, got {name!r}.{near}")
    return name


def usual() -> str:
    """The name of the device to use unless told: the first GPU if it can be used."""
    global _usual
    if _usual is None:
        _usual = "cpu" if gpu_problem() else "gpu:0"
    return _usual


_usual: str | None = None
