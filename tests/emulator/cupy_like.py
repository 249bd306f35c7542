"""A module that looks like CuPy to gnomon's driver, on the emulator: so each line of the driver runs where no GPU is.

Only what `gnomon.runtime.cuda` uses is there, under CuPy's names and with its arguments. It does not know how large
buffers are, so nothing is seen of accesses beside them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from gnomon.runtime.buffer import address_of

from . import EmulatorError, Module


class NVRTCError(RuntimeError):
    pass


class CUDAOutOfMemory(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class World:
    """What the module finds: versions, devices, memory; and what it was asked to do.

    log   calls by name
    """

    def __init__(self, driver: int = 13000, runtime: int = 13000, devices: int = 1, capability: str = "90"):
        self.driver, self.runtime, self.devices, self.capability = driver, runtime, devices, capability
        self.version = "14.2.0"
        self.has_nvrtc = True
        self.limit, self.used, self.current = 1 << 30, 0, 0
        self.log: list[tuple[Any, ...]] = []
        self.noted: list[Any] | None = None

    def do(self, action: Any) -> None:
        if self.noted is None:
            action()
        else:
            self.noted.append(action)


class Pointer:
    def __init__(self, world: World, size: int):
        if world.used + size > world.limit:
            raise CUDAOutOfMemory(f"{size} bytes")
        self.world, self.size = world, size
        self.memory = np.full(size + 256, 0x7F, np.uint8)
        self.ptr = -(-address_of(self.memory) // 256) * 256
        world.used += size

    def __del__(self) -> None:
        if hasattr(self, "ptr"):
            self.world.used -= self.size


class Stream:
    def __init__(self, world: World):
        self.world, self.ptr = world, 77

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def synchronize(self) -> None:
        if self.world.noted is not None:
            raise EmulatorError("synchronized while a graph is captured")

    def begin_capture(self) -> None:
        self.world.noted = []

    def end_capture(self) -> Graph:
        noted, self.world.noted = self.world.noted, None
        return Graph(self.world, noted or [])

    def record(self) -> str:
        return "event"

    def wait_event(self, event: str) -> None:
        self.world.log.append(("wait_event", event))


class Graph:
    def __init__(self, world: World, actions: list[Any]):
        self.world, self.actions = world, actions

    def launch(self, stream: Stream) -> None:
        self.world.log.append(("graph", len(self.actions)))
        for action in self.actions:
            action()


class Function:
    def __init__(self, world: World, module: Module, name: str):
        self.world, self.module, self.name, self.ptr = world, module, name, 99

    def __call__(
        self, grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None, enable_cooperative_groups=False
    ) -> None:
        assert all(isinstance(a, np.generic) for a in args), args
        more = (True,) if enable_cooperative_groups else ()
        self.world.log.append(("launch", self.name, grid))
        self.world.do(lambda: self.module.launch(self.name, grid, block, list(args), shared_mem, 0, *more))


class Array:
    """A contiguous array of CuPy's."""

    def __init__(self, world: World, array: np.ndarray, device: int = 0):
        self.memory = Pointer(world, array.nbytes)
        ctypes.memmove(self.memory.ptr, array.ctypes.data, array.nbytes)
        self.shape, self.dtype, self.data, self.device = array.shape, array.dtype, self.memory, Named(id=device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False), "version": 3}


class Named:
    def __init__(self, **names: Any):
        vars(self).update(names)


def install(monkeypatch: Any, world: World) -> ModuleType:
    """Let `import cupy` find it."""
    from gnomon.runtime import cuda

    cupy, inner, compiler, functions = (ModuleType(n) for n in ("cupy", "cupy.cuda", "cupy.cuda.nvrtc", "f"))
    cupy.__spec__ = ModuleSpec("cupy", None)
    cupy.__version__ = world.version  # type: ignore[attr-defined]  # a module's names are its own

    def memcpy(to: int, source: int, size: int, kind: int, stream: int) -> None:
        assert kind in (1, 2, 3)
        assert kind == 3 or world.noted is None, "a copy to or from the host while a graph is captured"
        world.do(lambda: ctypes.memmove(to, source, size))

    def set_device(index: int) -> None:
        world.current = index

    runtime = Named(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: world.driver,
        runtimeGetVersion=lambda: world.runtime,
        getDeviceCount=lambda: world.devices,
        getDevice=lambda: world.current,
        setDevice=set_device,
        getDeviceProperties=lambda index: {"name": b"Emulated"},
        memGetInfo=lambda: (world.limit - world.used, world.limit),
        memcpyAsync=memcpy,
        memsetAsync=lambda to, byte, size, stream: world.do(lambda: ctypes.memset(to, byte, size)),
    )

    def version() -> tuple[int, int]:
        if not world.has_nvrtc:
            raise OSError("libnvrtc.so.13")
        return 13, 0

    class Program:
        def __init__(self, text: str):
            self.text, self.log = text, ""

    def compile_program(program: Program, options: tuple[str, ...]) -> None:
        world.log.append(("compile", options))
        if "__global__" not in program.text:
            program.log = "error: there is no kernel"
            raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")

    vars(compiler).update(
        NVRTCError=NVRTCError,
        getVersion=version,
        createProgram=lambda text, name, headers, names: Program(text),
        compileProgram=compile_program,
        getProgramLog=lambda program: program.log,
        getCUBIN=lambda program: program.text.encode(),
        destroyProgram=lambda program: None,
    )

    class Loaded:
        def load(self, cubin: bytes) -> None:
            self.module = Module(cubin.decode())

        def get_function(self, name: str) -> Function:
            return Function(world, self.module, name)

    functions.Module = Loaded  # type: ignore[attr-defined]
    vars(inner).update(
        runtime=runtime,
        nvrtc=compiler,
        function=functions,
        Stream=lambda non_blocking: Stream(world),
        MemoryPool=lambda: Named(malloc=partial(Pointer, world), free_all_blocks=lambda: None, free_bytes=lambda: 0),
        memory=Named(OutOfMemoryError=CUDAOutOfMemory),
        Device=lambda index: Named(compute_capability=world.capability, attributes={"MultiProcessorCount": 2}),
        driver=Named(
            CUDADriverError=CUDADriverError,
            funcSetAttribute=lambda f, which, value: world.log.append(("attribute", which, value)),
            occupancyMaxActiveBlocksPerMultiprocessor=lambda f, threads, shared: 2,
        ),
        get_current_stream=lambda: Stream(world),
        UnownedMemory=lambda address, size, owner, device: (address, size, owner, device),
        MemoryPointer=lambda memory, offset: memory,
    )

    class Exported:
        def __init__(self, shape: tuple[int, ...], dtype: np.dtype, memory: Any):
            place = (ctypes.c_char * memory[1]).from_address(memory[0])
            self.array = np.frombuffer(place, dtype).reshape(shape)

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

    vars(cupy).update(
        cuda=inner, ndarray=Exported, asarray=lambda x: x, from_dlpack=lambda x: x, ascontiguousarray=lambda x: x
    )
    for name, module in (("cupy", cupy), ("cupy.cuda", inner)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda, "_has_driver", lambda: True)
    return cupy
