"""A GPU: what programs made of CUDA kernels run on, through a small driver.

A `Driver` is all that is asked of CUDA: memory, copies, launches, captured graphs. There is one on CuPy
(`gnomon.runtime.cuda`); tests have one that runs the very text on the CPU. How a program runs is told in `gpu_run`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import OutOfMemoryError
from gnomon.compiler.program import Library, Program
from gnomon.compiler.targets import CUDA, Target
from gnomon.runtime.binding import Shape, bytes_of
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.device import PRECISIONS, Loaded, LoadEvent, TextMissing, matmul_precision

if TYPE_CHECKING:
    from gnomon.runtime.gpu_run import GpuExecutable

OWN = """
extern "C" __global__ void __launch_bounds__(32) gn_set_counter(long long *counter, long long value) {
    if (threadIdx.x == 0) *counter = value;
}
extern "C" __global__ void __launch_bounds__(32) gn_move_counter(long long *counter, long long by) {
    if (threadIdx.x == 0) *counter += by;
}
"""
"""Kernels of the runtime itself: what counts the rounds of a loop in the device's memory."""


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a device's memory: an argument of a kernel, and an operand of a library's routine."""

    address: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Operand:
    """A slot as a library's routine gets it."""

    address: int
    shape: Shape
    dtype: str


class Routine(Protocol):
    """A library's routine for one step with given shapes: what it needs (workspace, a choice of algorithm) it has got,
    and calling it starts the work in the driver's stream. It is called while a graph is captured, too."""

    def __call__(self) -> None: ...


Maker = Callable[[Library, Sequence[Operand], Sequence[Operand], Mapping[str, int]], Routine]
"""Makes the routine of a step with its inputs, with all that it writes (its workspace last), and for given sizes."""


class Driver(Protocol):
    """What is asked of CUDA. All that is started is done in the order in which it was started.

    arch   the architecture to compile for ('sm_90')
    """

    name: str
    arch: str

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of what `library` has routines of ('cublaslt', 'cudnn'), sorted."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What it raises when a kernel fails, or the device does."""
        ...

    def enter(self) -> None:
        """The thread that calls is about to use the driver."""
        ...

    def leave(self) -> None: ...

    def allocate(self, size: int) -> int:
        """The address of so many bytes. Raises OutOfMemoryError."""
        ...

    def free(self, address: int) -> None: ...

    def memory(self) -> tuple[int, int]:
        """Bytes that can be had, and bytes there are."""
        ...

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device; it may change afterwards."""
        ...

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy from the device into a contiguous array, which is complete on return."""
        ...

    def copy(self, to: int, source: int, size: int) -> None: ...

    def fill(self, address: int, byte: int, size: int) -> None: ...

    def load(self, text: str, key: str) -> Any:
        """A module: `text` compiled, or what is kept under its `key`. None if there is neither text nor code."""
        ...

    def launch(
        self,
        module: Any,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared: int,
        arguments: Sequence[Span | np.generic],
        cooperative: bool = False,
    ) -> None:
        """Start a kernel; `cooperative`: all its blocks run at once, and may wait for each other."""
        ...

    def begin_capture(self) -> None:
        """From now on launches, copies and fills are noted and not done."""
        ...

    def end_capture(self) -> Any:
        """The graph of what was noted."""
        ...

    def replay(self, graph: Any, times: int = 1) -> None:
        """Start a graph so many times, one after the other."""
        ...

    def wait(self) -> None:
        """Return when all that was started has ended."""
        ...

    def library(self, name: str) -> Maker | None:
        """What makes routines of a name; None: the host's is used."""
        ...

    def foreign(self, value: Any) -> tuple[int, Shape, str, Any] | None:
        """Address, shape, dtype and owner of another library's array, if it is contiguous and on this device."""
        ...

    def dlpack(self, array: DeviceArray, **options: Any) -> Any:
        """A DLPack capsule of an array of ours, and what device it says it is on."""
        ...

    def dlpack_device(self) -> tuple[int, int]: ...


# ---- memory


class Memory:
    """Some of a device's memory, freed when nobody has it any more."""

    def __init__(self, driver: Driver, size: int):
        self.driver, self.bytes = driver, size
        self.address = driver.allocate(size) if size else 0

    def __del__(self) -> None:
        address, self.address = getattr(self, "address", 0), 0
        if address:
            self.driver.free(address)  # what was started before and still uses it is done before it is used again


class DeviceArray:
    """An array in a device's memory. NumPy takes it by `np.asarray` (a copy), CuPy, PyTorch and JAX without one, by
    DLPack or the CUDA array interface.

    source   the array of the host that it is a copy of, if it is
    """

    def __init__(self, gpu: Gpu, address: int, shape: Shape, dtype: str, owner: Any, source: Any = None):
        self.gpu, self.address, self.shape, self.dtype_name = gpu, address, shape, dtype
        self.owner, self.source = owner, source

    @property
    def dtype(self) -> np.dtype:
        return dtypes.named(self.dtype_name).memory

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return bytes_of(self.shape, self.dtype_name)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some rows that follow each other, where they are. Raises TypeError for anything else."""
        first, last, step = rows.indices(len(self)) if isinstance(rows, slice) else (0, 0, 0)
        if step != 1:
            raise TypeError(f"of an array on {self.gpu.name} rows can be taken as [first:last]; or by np.asarray")
        shape = (max(0, last - first), *self.shape[1:])
        at = self.address + bytes_of((first, *self.shape[1:]), self.dtype_name)
        return DeviceArray(self.gpu, at, shape, self.dtype_name, self.owner)

    def __int__(self) -> int:
        return int(self.numpy())

    def numpy(self) -> np.ndarray:
        """A copy in the host's memory."""
        array = np.empty(self.shape, self.dtype)
        with self.gpu.lock:
            self.gpu.driver.download(self.address, array)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("what is on a device can only be had by a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.gpu.wait()  # whoever reads it does so in a stream of his own
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "strides": None,
            "version": 3, "stream": None,
        }  # fmt: skip

    def __dlpack__(self, **options: Any) -> Any:
        self.gpu.wait()
        return self.gpu.driver.dlpack(self, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.gpu.driver.dlpack_device()

    def __repr__(self) -> str:
        return f"<{self.dtype_name}[{', '.join(map(str, self.shape))}] on {self.gpu.name}>"


class DeviceBuffer:
    """A variable's values on a device: the mirror of a `Buffer`."""

    def __init__(self, gpu: Gpu, buffer: Buffer):
        self.gpu, self.bytes = gpu, buffer.nbytes
        self.memory = gpu.allocate_memory(self.bytes, "a variable")
        self.valid = False

    @property
    def address(self) -> int:
        return self.memory.address

    def upload(self, array: np.ndarray) -> None:
        if self.bytes:
            self.gpu.driver.upload(self.address, array)

    def download(self, array: np.ndarray) -> None:
        if self.bytes:
            with self.gpu.lock:
                self.gpu.driver.download(self.address, array)

    def clear(self) -> None:
        if self.bytes:
            with self.gpu.lock:
                self.gpu.driver.fill(self.address, 0, self.bytes)


# ---- the device


class _Turn:
    """One thread at a time has the driver; while it has it, the device is the current one."""

    def __init__(self, driver: Driver):
        self.driver, self.lock, self.depth = driver, threading.RLock(), 0

    def __enter__(self) -> None:
        self.lock.acquire()
        try:
            if not self.depth:
                self.driver.enter()
            self.depth += 1
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        self.depth -= 1
        try:
            if not self.depth:
                self.driver.leave()
        finally:
            self.lock.release()


class Gpu:
    """A GPU as a device.

    name       'gpu:0'
    captures   whether graphs are captured (GNOMON_CAPTURE=0: every kernel is launched by the host)
    poison     whether temporaries begin as NaN (all bits set) in each call, so that reading what was never written
               shows
    """

    apart = True

    def __init__(self, name: str, driver: Driver, poison: bool = False):
        self.name, self.driver, self.poison = name, driver, poison
        self.captures = os.environ.get("GNOMON_CAPTURE", "1").strip() != "0"
        self.lock = _Turn(driver)
        self._modules: dict[str, Any] = {}
        self._own: Any = None

    def target(self) -> Target:
        return replace(
            CUDA, cpu=self.driver.arch, libraries=self.driver.libraries, matrix=PRECISIONS[matmul_precision()]
        )

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        return Buffer(shape, dtype)  # it gets memory here when a program first uses it

    def copy(self, source: Buffer, target: Buffer) -> None:
        target.set(source.numpy())

    def load(self, program: Program) -> Loaded:
        self.module(program)
        return Loaded(0, {}, (LoadEvent(program.name, "shared"),))

    def module(self, program: Program, wide: bool = False) -> tuple[Any, LoadEvent]:
        """The kernels of a program in memory; `wide`: those that compute indices in 64 bits.

        Raises CompileError; TextMissing if there is no text and no code.
        """
        sources = {s.name: s for s in program.sources}
        if not sources:
            return None, LoadEvent(program.name, "shared")
        first = "#define GN_WIDE" if wide else ""
        parts = [self.driver.arch, first, *(s.key for s in sources.values())]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        with self.lock:
            if key in self._modules:
                return self._modules[key], LoadEvent(program.name, "shared")
            complete = all(s.text for s in sources.values())
            text = "\n".join([first, *(s.text for s in sources.values())]) if complete else ""
            began = time.perf_counter()
            kept = self.driver.load("", key)
            module = kept if kept is not None or not text else self.driver.load(text, key)
            if module is None:
                raise TextMissing(f"The machine code of {program.name!r} for {self.name} is not in the cache any more.")
            self._modules[key] = module
            how = "compiled" if kept is None else "cache"
            return module, LoadEvent(program.name, how, time.perf_counter() - began)

    def own(self) -> Any:
        """The module of the runtime's own kernels."""
        if self._own is None:
            key = hashlib.sha256(f"{self.driver.arch}\n{OWN}".encode()).hexdigest()
            kept = self.driver.load("", key)
            self._own = self.driver.load(OWN, key) if kept is None else kept
        return self._own

    def executable(self, program: Program, variables: Sequence[Buffer]) -> GpuExecutable:
        from gnomon.runtime.gpu_run import GpuExecutable

        return GpuExecutable(self, program, variables)

    def prepare(self) -> None:
        return

    def wait(self) -> None:
        with self.lock:
            self.driver.wait()

    def array(self, value: np.ndarray) -> DeviceArray:
        """A copy of an array on this device. Raises OutOfMemoryError."""
        given = np.ascontiguousarray(value).reshape(value.shape)
        name = dtypes.canonical(value.dtype)
        memory = self.allocate_memory(given.nbytes, "an array")
        if given.nbytes:
            with self.lock:
                self.driver.upload(memory.address, given)
        return DeviceArray(self, memory.address, given.shape, name, memory, value)

    def room(self) -> int:
        """Half of what is free: the rest is for the program."""
        with self.lock:
            return self.driver.memory()[0] // 2

    def adopt(self, value: Any) -> DeviceArray | None:
        """An array that is on this device already, without a copy: ours or another library's."""
        if isinstance(value, DeviceArray):
            return value if value.gpu is self else None
        if isinstance(value, np.ndarray) or not (
            hasattr(value, "__cuda_array_interface__") or hasattr(value, "__dlpack__")
        ):
            return None
        with self.lock:
            found = self.driver.foreign(value)
        return None if found is None else DeviceArray(self, *found)

    def aligned(self, array: DeviceArray) -> DeviceArray:
        """The same, or a copy if it does not begin at a multiple of 16 bytes (a slice of another library's array may
        not): kernels read so many as one. Raises OutOfMemoryError."""
        size = int(np.prod(array.shape)) * array.dtype.itemsize
        if array.address % 16 == 0 or not size:
            return array
        memory = self.allocate_memory(size, "an array")
        with self.lock:
            self.driver.copy(memory.address, array.address, size)
        return DeviceArray(self, memory.address, array.shape, array.dtype_name, memory)

    def allocate_memory(self, size: int, what: str) -> Memory:
        """Raises OutOfMemoryError, which says what it was for and how much there is."""
        try:
            with self.lock:
                return Memory(self.driver, size)
        except OutOfMemoryError:
            free, total = self.driver.memory()
            raise OutOfMemoryError(
                f"{what} needs {size:,} bytes on {self.name}, which has {free:,} free of {total:,}. Take a smaller "
                "batch_size, or let gnomon.checkpoint compute parts of the model again instead of keeping them."
            ) from None

    def __repr__(self) -> str:
        return f"<device {self.name}: {self.driver.name}>"


__all__ = ["DeviceArray", "DeviceBuffer", "Driver", "Gpu", "Memory", "Operand", "Routine", "Span"]
