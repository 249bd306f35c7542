"""The emulator as a driver of a `Gpu`: what a card would be given, run by the CPU under all of the emulator's checks.

    gpu = Gpu("emulator", Emulator(), poison=True)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import OutOfMemoryError
from gnomon.runtime.buffer import ALIGNMENT, address_of
from gnomon.runtime.gpu import Span

from . import RESIDENT, EmulatorError, Module

Action = Callable[[], None]


class Emulator:
    """A driver. `order` is that of threads and blocks; `module`, if given, has all kernels already; `limit` is the
    memory there is.

    launches   kernels started so far, those in graphs among them
    replays    graphs started so far
    """

    name = "the emulator"
    arch = "sm_80"
    libraries: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = ()  # its own are for the tests to see

    def __init__(self, order: int = 0, module: Module | None = None, limit: int = 1 << 30):
        self.order, self.module, self.limit = order, module, limit
        self.launches = self.replays = 0
        self.used = 0
        self._blocks: dict[int, np.ndarray] = {}
        self._noted: list[Action] | None = None

    def enter(self) -> None:
        return

    def leave(self) -> None:
        return

    # ---- memory

    def allocate(self, size: int) -> int:
        self._refuse("allocate")
        if self.used + size > self.limit:
            raise OutOfMemoryError(f"{size} bytes")
        memory = np.full(size + 4 * ALIGNMENT, 0x7F, np.uint8)
        skip = -address_of(memory) % (4 * ALIGNMENT)
        block = memory[skip : skip + size]
        self._blocks[address_of(block)] = block
        self.used += size
        return address_of(block)

    def free(self, address: int) -> None:
        self.used -= self._blocks.pop(address).nbytes

    def memory(self) -> tuple[int, int]:
        return self.limit - self.used, self.limit

    def at(self, address: int, size: int) -> np.ndarray:
        """The memory there, which must be inside of one block."""
        if not size:
            return np.empty(0, np.uint8)
        for begin, block in self._blocks.items():
            if begin <= address and address + size <= begin + block.nbytes:
                return block[address - begin : address - begin + size]
        raise EmulatorError(f"{size} bytes at {address:#x} are in no block of the device's memory")

    def upload(self, address: int, array: np.ndarray) -> None:
        self._refuse("upload")
        self.at(address, array.nbytes)[:] = _raw(array)

    def download(self, address: int, array: np.ndarray) -> None:
        self._refuse("download")
        _raw(array)[:] = self.at(address, array.nbytes)

    def copy(self, to: int, source: int, size: int) -> None:
        def action() -> None:
            self.at(to, size)[:] = self.at(source, size)

        self._do(action)

    def fill(self, address: int, byte: int, size: int) -> None:
        def action() -> None:
            self.at(address, size)[:] = byte

        self._do(action)

    # ---- kernels

    def load(self, text: str, key: str) -> Module | None:
        if self.module is not None and "gn_set_counter" not in text:
            return self.module if text else None
        return Module(text) if text else None

    def launch(
        self,
        module: Module,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared: int,
        arguments: Sequence[Span | np.generic],
        cooperative: bool = False,
    ) -> None:
        def action() -> None:
            self.launches += 1
            given = [self.at(a.address, a.bytes) if isinstance(a, Span) else a for a in arguments]
            resident = (min(grid[0], RESIDENT), *grid[1:]) if cooperative else grid
            module.launch(kernel, resident, block, given, shared, self.order, cooperative)

        self._do(action)

    def begin_capture(self) -> None:
        self._refuse("begin_capture")
        self._noted = []

    def end_capture(self) -> list[Action]:
        assert self._noted is not None, "nothing is being captured"
        graph, self._noted = self._noted, None
        return graph

    def replay(self, graph: list[Action], times: int = 1) -> None:
        self._refuse("replay")
        for _ in range(times):
            self.replays += 1
            for action in graph:
                action()

    def wait(self) -> None:
        self._refuse("wait")

    def _do(self, action: Action) -> None:
        if self._noted is None:
            action()
        else:
            self._noted.append(action)

    def _refuse(self, what: str) -> None:
        if self._noted is not None:
            raise EmulatorError(f"{what} while a graph is captured")

    # ---- others

    def library(self, name: str) -> None:
        return None

    def foreign(self, value: Any) -> tuple[int, tuple[int, ...], str, Any] | None:
        """Arrays of NumPy that pretend to be another library's on this device (`Foreign`)."""
        if not isinstance(value, Foreign):
            return None
        return value.address, value.shape, value.dtype.name, value

    def dlpack(self, array: Any, **options: Any) -> Any:
        place = (ctypes.c_char * array.nbytes).from_address(array.address)
        return np.frombuffer(place, array.dtype).reshape(array.shape).__dlpack__(**options)

    def dlpack_device(self) -> tuple[int, int]:
        return 1, 0


class Foreign:
    """An array in the emulator's memory that is not one of gnomon's."""

    def __init__(self, driver: Emulator, array: np.ndarray):
        self.driver, self.shape, self.dtype = driver, array.shape, array.dtype
        self.address = driver.allocate(array.nbytes)
        driver.upload(self.address, array)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}


def _raw(array: np.ndarray) -> np.ndarray:
    assert array.flags.c_contiguous, "only contiguous arrays are copied"
    return array.reshape(-1).view(np.uint8)
