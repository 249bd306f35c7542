"""NVIDIA GPUs through CuPy, which is imported in functions only: the driver of a `Gpu`.

CuPy gives memory (its pool), NVRTC, streams and graphs. What it wraps of cuBLAS refuses to run while a graph is
captured, so none of that is used. Kernels are compiled to machine code for the card at hand and kept on disk.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gnomon.compiler.errors import CompileError, DeviceError, OutOfMemoryError
from gnomon.runtime import cache as disk
from gnomon.runtime import cublas, cudnn
from gnomon.runtime.cublas import find
from gnomon.runtime.gpu import DeviceArray, Gpu, Maker, Span

OLDEST_CUPY = 13
OLDEST_ARCHITECTURE = 75
"""Turing: what NVRTC 13 still compiles for."""

OPTIONS = ("-std=c++17", "--fmad=false")
"""Products and sums are fused where the text says so and nowhere else: else a value that two kernels compute would
depend on what else each of them computes, and error-free sums would not be."""

MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: to be set where what a launch asks for and what the kernel declares
are more than 48 KiB together."""

TO_DEVICE, TO_HOST, WITHIN = 1, 2, 3
"""Kinds of cudaMemcpy."""

LIBRARIES: dict[str, tuple[str, Mapping[str, Any], Callable[..., Any]]] = {
    "cublaslt": ("cublasLt", cublas.SIGNATURES, cublas.CublasLt),
    "cudnn": ("cudnn", cudnn.SIGNATURES, cudnn.Cudnn),
}
"""Libraries by the name that steps begin with: the file's name, its functions, and what makes routines."""


def problem() -> str:
    """Why the GPUs of this machine cannot be used, '' if they can. CuPy is installed (`device.gpu_problem` looks)."""
    if not _has_driver():
        return "there is no NVIDIA driver here (libcuda is missing)"
    try:
        import cupy
    except Exception as error:
        return f"CuPy cannot be imported: {error}"
    if _number(cupy.__version__) < OLDEST_CUPY:
        return f"CuPy {cupy.__version__} is too old: version {OLDEST_CUPY} or newer is needed (pip install -U)"
    runtime = cupy.cuda.runtime
    try:
        driver, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if not driver:
            return "there is no NVIDIA driver here"
        if driver // 1000 < wanted // 1000:
            return (
                f"the NVIDIA driver is for CUDA {_spelled(driver)}, and CuPy for CUDA {_spelled(wanted)}: update the "
                f"driver, or install gnomon[cuda{driver // 1000}]"
            )
        if not runtime.getDeviceCount():
            return "the NVIDIA driver finds no device"
        capability = int(cupy.cuda.Device(0).compute_capability)
        _nvrtc().getVersion()
    except CompileError as error:
        return str(error)
    except Exception as error:  # of CuPy's own family, which cannot be named without importing it
        return f"CUDA says: {error}"
    if capability < OLDEST_ARCHITECTURE:
        return f"the GPU is of compute capability {capability / 10}, and at least {OLDEST_ARCHITECTURE / 10} is needed"
    return ""


def _nvrtc() -> Any:
    """CuPy's NVRTC, which compiles kernels. Raises CompileError if the library is not there."""
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:
        raise CompileError(
            f"CuPy does not find NVRTC, which compiles kernels ({type(error).__name__}): pip install nvidia-cuda-nvrtc "
            "for CUDA 13, nvidia-cuda-nvrtc-cu12 for CUDA 12"
        ) from None
    return nvrtc


def _has_driver() -> bool:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            continue
    return False


def _number(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def _spelled(version: int) -> str:
    """12080 as 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}"


def count() -> int:
    """How many GPUs there are, if they can be used."""
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


def gpu(index: int = 0) -> Gpu:
    """A GPU by its number. Raises DeviceError if it cannot be used, and why."""
    from gnomon.runtime.device import gpu_problem

    wrong = gpu_problem()
    if wrong:
        raise DeviceError(f"The device 'gpu:{index}' cannot be used: {wrong}. Or use the device 'cpu'.")
    if index >= count():
        raise DeviceError(f"There is no device 'gpu:{index}': there are {count()}, and the first is 'gpu:0'.")
    return Gpu(f"gpu:{index}", CupyDriver(index))


class CupyDriver:
    """A CUDA device by CuPy. All its work is in one stream of its own."""

    def __init__(self, index: int):
        import cupy

        self.index, self._cuda, self._runtime = index, cupy.cuda, cupy.cuda.runtime
        self._outer = index
        self._blocks: dict[int, Any] = {}
        self._functions: dict[tuple[int, str], Any] = {}
        self._made: dict[str, dict[str, Maker]] = {}
        self.errors = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
        self.enter()
        try:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.pool = cupy.cuda.MemoryPool()
            self.arch = f"sm_{cupy.cuda.Device(index).compute_capability}"
            self.name = self._runtime.getDeviceProperties(index)["name"].decode()
            self.multiprocessors = int(cupy.cuda.Device(index).attributes["MultiProcessorCount"])
        finally:
            self.leave()

    def enter(self) -> None:
        self._outer = self._runtime.getDevice()
        if self._outer != self.index:
            self._runtime.setDevice(self.index)

    def leave(self) -> None:
        if self._outer != self.index:
            self._runtime.setDevice(self._outer)

    # ---- memory

    def allocate(self, size: int) -> int:
        with self.stream:  # the pool gives what was freed again to the stream that used it
            try:
                block = self.pool.malloc(size)
            except self._cuda.memory.OutOfMemoryError:
                self.pool.free_all_blocks()
                try:
                    block = self.pool.malloc(size)
                except self._cuda.memory.OutOfMemoryError as error:
                    raise OutOfMemoryError(str(error)) from None
        self._blocks[block.ptr] = block
        return block.ptr

    def free(self, address: int) -> None:
        self._blocks.pop(address, None)

    def memory(self) -> tuple[int, int]:
        free, total = self._runtime.memGetInfo()
        return free + self.pool.free_bytes(), total

    def upload(self, address: int, array: np.ndarray) -> None:
        # from memory that is not pinned it returns when the array is read, though perhaps not yet there
        self._runtime.memcpyAsync(address, array.ctypes.data, array.nbytes, TO_DEVICE, self.stream.ptr)

    def download(self, address: int, array: np.ndarray) -> None:
        self._runtime.memcpyAsync(array.ctypes.data, address, array.nbytes, TO_HOST, self.stream.ptr)
        self.stream.synchronize()

    def copy(self, to: int, source: int, size: int) -> None:
        self._runtime.memcpyAsync(to, source, size, WITHIN, self.stream.ptr)

    def fill(self, address: int, byte: int, size: int) -> None:
        self._runtime.memsetAsync(address, byte, size, self.stream.ptr)

    # ---- kernels

    def load(self, text: str, key: str) -> Any:
        from cupy.cuda import function

        options = (f"--gpu-architecture={self.arch}", *OPTIONS)
        version = ".".join(map(str, _nvrtc().getVersion()))
        place = disk.key("cubin 1", key, version, *options)
        cubin = disk.get(place)
        if cubin is None:
            if not text:
                return None
            cubin = self._compile(text, options)
            disk.put(place, f"kernels for {self.arch}", cubin)
        module = function.Module()
        module.load(cubin)
        return module

    def _compile(self, text: str, options: tuple[str, ...]) -> bytes:
        nvrtc = _nvrtc()
        program = nvrtc.createProgram(text, "kernels.cu", (), ())
        try:
            try:
                nvrtc.compileProgram(program, options)
            except nvrtc.NVRTCError as error:
                raise CompileError(
                    f"NVRTC cannot compile the kernels for {self.arch}: {error}\n{nvrtc.getProgramLog(program)}\n"
                    "This is a mistake of gnomon's, not of your model; use the device 'cpu' until it is corrected."
                ) from None
            return nvrtc.getCUBIN(program)
        finally:
            nvrtc.destroyProgram(program)

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
        function = self._functions.get((id(module), kernel))
        if function is None:  # modules are kept for as long as the device is: their ids stay theirs
            function = self._functions[id(module), kernel] = module.get_function(kernel)
        if shared > 0:  # what the kernel declares itself is not known here
            self._cuda.driver.funcSetAttribute(function.ptr, MAX_DYNAMIC_SHARED, shared)
        if cooperative:
            threads = block[0] * block[1] * block[2]
            fitting = self._cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(function.ptr, threads, shared)
            grid = (max(1, min(grid[0], fitting * self.multiprocessors)), *grid[1:])
        given = tuple([np.uintp(a.address) if isinstance(a, Span) else a for a in arguments])
        function(tuple(grid), tuple(block), given, shared, self.stream, enable_cooperative_groups=cooperative)

    def begin_capture(self) -> None:
        self.stream.begin_capture()

    def end_capture(self) -> Any:
        return self.stream.end_capture()

    def replay(self, graph: Any, times: int = 1) -> None:
        launch, stream = graph.launch, self.stream
        for _ in range(times):
            launch(stream)

    def wait(self) -> None:
        self.stream.synchronize()

    # ---- others

    @cached_property
    def libraries(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._wanted if name.partition(".")[0] in self._found))

    @cached_property
    def _wanted(self) -> set[str]:
        """What GNOMON_LIBRARIES names: cublaslt and cudnn by default; cublaslt.relu makes 0 of NaN."""
        named = os.environ.get("GNOMON_LIBRARIES", "cublaslt,cudnn").replace(" ", "").split(",")
        return {name for name in named if name in (*LIBRARIES, "cublaslt.relu")}

    @cached_property
    def _found(self) -> dict[str, ctypes.CDLL]:
        """The libraries that there are, of those that are wanted."""
        major = self._runtime.runtimeGetVersion() // 1000
        found = {k: find(name, major, s) for k, (name, s, _) in LIBRARIES.items() if k in self._wanted}
        return {name: library for name, library in found.items() if library is not None}

    def library(self, name: str) -> Maker | None:
        first = name.partition(".")[0]
        if first not in self._found:
            return None
        if first not in self._made:  # what a library needs of the device is taken when it is first used
            self._made[first] = LIBRARIES[first][2](self._found[first], self.stream.ptr, self.fill).makers()
        return self._made[first].get(name)

    def foreign(self, value: Any) -> tuple[int, tuple[int, ...], str, Any] | None:
        import cupy

        given = self._cuda.get_current_stream()
        if isinstance(value, cupy.ndarray):
            array = value
        elif hasattr(value, "__cuda_array_interface__"):
            array = cupy.asarray(value)
        elif hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] == 2:  # kDLCUDA
            array = cupy.from_dlpack(value)
        else:
            return None
        if array.device.id != self.index:
            return None
        array = cupy.ascontiguousarray(array)
        self.stream.wait_event(given.record())  # what is still being written to it
        return array.data.ptr, array.shape, array.dtype.name, array

    def dlpack(self, array: DeviceArray, **options: Any) -> Any:
        import cupy

        memory = self._cuda.UnownedMemory(array.address, array.nbytes, array, self.index)
        return cupy.ndarray(array.shape, array.dtype, self._cuda.MemoryPointer(memory, 0)).__dlpack__(**options)

    def dlpack_device(self) -> tuple[int, int]:
        return 2, self.index


__all__ = ["CupyDriver", "count", "gpu", "problem"]
