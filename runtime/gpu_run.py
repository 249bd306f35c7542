"""A program on a GPU.

A call binds sizes from shapes as on the CPU (`Binding`). What shapes and addresses decide is a `Frame`: where each slot
lies, and the parts that the program's steps fall into. A `Segment` is a run of steps in which the host decides nothing:
it is launched step by step the first time, captured as a graph the second, and replayed from then on. A `Repeat` of
steps that find their own number in memory is such a segment replayed again and again, its counter moved on by a kernel:
a training loop costs the host one replay a step, and where steps are brief and many, one for several.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError, DeviceError
from gnomon.compiler.program import NARROW, Prepare, Program
from gnomon.compiler.sizes import evaluate
from gnomon.runtime import arena
from gnomon.runtime.binding import Binding, bytes_of, described, type_of
from gnomon.runtime.buffer import Buffer, shown, stored
from gnomon.runtime.device import Loaded
from gnomon.runtime.gpu import DeviceArray, DeviceBuffer, Gpu, Memory, Span
from gnomon.runtime.gpu_parts import Division, Frame, Plan
from gnomon.runtime.gpu_steps import Run

NOWHERE: Mapping[int, int] = MappingProxyType({})

KNOWN = 1000
"""How many sets of shapes an executable knows the sizes of."""

FRAMES = 64
"""How many sets of shapes and addresses an executable remembers; with more, the earliest is forgotten."""

IN_PLACE = 1 << 22
"""Bytes of a result from which on programs write it where it stays on the device: a copy of it takes longer than a
kernel's launch. Smaller ones are copied there, so that one graph does for all calls."""

ALIGNMENT = 256
"""Bytes: what CUDA's own allocations begin on a multiple of."""


class GpuExecutable:
    """A program on a GPU with its variables: called with arrays, returns arrays.

    program     what to run
    variables   buffers in the order of `program.variables`
    updated     numbers of those that it changes
    Raises ArgumentError if a buffer is not of its slot's shape and dtype, CompileError if the code cannot be had.
    """

    def __init__(self, gpu: Gpu, program: Program, variables: Sequence[Buffer] = ()):
        if program.target != "cuda":
            raise ArgumentError(f"{program.name!r} was made for {program.target!r}, and not for {gpu.name!r}.")
        self.gpu, self.program, self.variables = gpu, program, list(variables)
        self.updated: Sequence[int] = range(len(self.variables))
        self.module, event = gpu.module(program)
        self._wide: Any = None  # the same for arrays so large that indices need 64 bits
        self._reach = tuple(dict.fromkeys(d for s in program.sources for d in s.reach))
        self.loaded = Loaded(0, {}, (event,))
        self.binding = Binding(program)
        self._check_variables()
        self._dtypes = [dtypes.named(program.slots[s].dtype).memory for s in program.inputs]
        self.division = Division(program, lambda name: gpu.driver.library(name) is not None)
        self._deciding = self.division.deciding_sizes()
        self.seen: dict[int, int] = {}  # when what is kept was made
        self._fixed, self._owned = self._place_fixed()
        self._frames: dict[Any, Frame] = {}
        self._layouts: dict[Any, tuple[Plan, dict[int, int], tuple[int, int], int]] = {}
        self._known: dict[Any, dict[str, int]] = {}  # the sizes by shapes and values
        self._large: dict[Any, dict[int, int]] = {}  # bytes of results that are written where they stay, by sizes
        self._arena: Memory | None = None
        self._arenas = 0  # how many there have been
        self.graphs = 0  # how many were captured

    def module_for(self, sizes: Mapping[str, int]) -> Any:
        """The kernels that do for arrays of these sizes."""
        if all(evaluate(d, sizes) < NARROW for d in self._reach):
            return self.module
        if self._wide is None:
            self._wide, _ = self.gpu.module(self.program, wide=True)
        return self._wide

    def __call__(self, *arrays: Any) -> list[np.ndarray]:
        """Run on `arrays`, one per input, of exactly the inputs' dtypes: NumPy's, or arrays on this device, which are
        read where they are. Returns the outputs, fresh arrays.

        Raises DataError if an array does not fit, naming the input; OutOfMemoryError before anything runs.
        """
        with self.gpu.lock, self._named():
            given = self._given(arrays)
            return self._downloaded(self._run(given, self._sizes(given)))

    def on_device(self, *arrays: Any) -> list[DeviceArray]:
        """As a call, but the outputs stay on the device: it returns when all is started."""
        with self.gpu.lock, self._named():
            given = self._given(arrays)
            sizes = self._sizes(given)
            own = {slot: self._result_memory(size) for slot, size in self._large_results(sizes).items()}
            run = self._run(given, sizes, {slot: memory.address for slot, memory in own.items()})
            results = []
            for slot in self.program.outputs:
                shape, dtype = run.frame.plan.shapes[slot], self.program.slots[slot].dtype
                size = bytes_of(shape, dtype)
                memory = own.pop(slot, None) or self._result_memory(size)
                if size and memory.address != run.address(slot):
                    self.gpu.driver.copy(memory.address, run.address(slot), size)
                results.append(DeviceArray(self.gpu, memory.address, shape, dtype, memory))
            return results

    def _result_memory(self, size: int) -> Memory:
        return self.gpu.allocate_memory(size, f"a result of {self.program.name!r}")

    def _large_results(self, sizes: dict[str, int]) -> dict[int, int]:
        """Bytes of the outputs that the program is to write where they stay."""
        key = tuple([sizes[name] for name in self._deciding])
        if key not in self._large:
            if len(self._large) >= KNOWN:
                self._large.clear()
            slots, shapes = self.program.slots, self.binding.shapes(sizes)
            own = [s for s in self.program.outputs if slots[s].kind == "output" and self.binding.owners[s] == s]
            found = {s: self.binding.bytes(s, shapes) for s in own}
            self._large[key] = {s: size for s, size in found.items() if size >= IN_PLACE}
        return self._large[key]

    def fitting(self, arrays: Sequence[Any]) -> dict[str, int]:
        """The values of the symbolic sizes in a call with `arrays`. Raises DataError if an array does not fit."""
        return dict(self._sizes(self._given(arrays)))

    def memory(self, sizes: dict[str, int]) -> int:
        """Bytes of temporary memory that a call takes with these values of the symbolic sizes."""
        return self.binding.temporary_bytes(sizes)

    def run_stepwise(self, arrays: Sequence[Any], observer: Any) -> list[np.ndarray]:
        """Run as `__call__` does, but waiting for each step and telling `observer` of it; it gets copies of slots.

        Temporaries begin as NaN (all bits set), so that reading what was never written shows.
        """
        with self.gpu.lock, self._named():
            given = self._given(arrays)
            return self._downloaded(self._run(given, self._sizes(given), observer=observer))

    def empty_launch(self) -> int:
        """Nanoseconds that a stepwise run takes to launch a kernel that does nothing, and to wait for it."""
        with self.gpu.lock, self._named():
            driver, scratch = self.gpu.driver, self.gpu.allocate_memory(8, "a counter")
            driver.fill(scratch.address, 0, 8)
            arguments: list[Span | np.generic] = [Span(scratch.address, 8), np.int64(0)]
            best = 1 << 30
            for _ in range(20):
                driver.wait()
                began = time.perf_counter_ns()
                driver.launch(self.gpu.own(), "gn_move_counter", (1, 1, 1), (32, 1, 1), 0, arguments)
                driver.wait()
                best = min(best, time.perf_counter_ns() - began)
            return best

    # ---- a call

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What goes wrong on the device is told as an error of ours."""
        try:
            yield
        except self.gpu.driver.errors as error:
            raise DeviceError(
                f"{self.program.name!r} failed on {self.gpu.name}: {error}. What the device holds may be lost: save "
                "what the host has, and start again. GNOMON_CHECK=1 compares each kernel with NumPy; the device 'cpu' "
                "does without it."
            ) from error

    def _run(
        self, given: Sequence[Any], sizes: dict[str, int], own: Mapping[int, int] = NOWHERE, observer: Any = None
    ) -> Run:
        """Run on arguments that fit; `own` are addresses of outputs that are to be elsewhere than in the arena."""
        frame = self._frame(given, sizes, own)
        driver = self.gpu.driver
        for (number, _), buffer in zip(self.program.variables, self.variables, strict=True):
            frame.table[number] = buffer.on(self.gpu, self._mirror).address
        for slot, array in zip(self.program.inputs, given, strict=True):
            if isinstance(array, np.ndarray) and array.nbytes:
                driver.upload(frame.table[slot], array)
        run = Run(self, frame, sizes, observer)
        if observer is not None or self.gpu.poison:
            run.poison()
        try:
            run.go(self.program.steps)
        finally:
            for k in self.updated:
                buffer = self.variables[k]
                buffer.written_on(buffer.mirrors[self.gpu])
        return run

    def _downloaded(self, run: Run) -> list[np.ndarray]:
        """The outputs: all that the program wrote for the caller come in one copy."""
        slots, shapes = self.program.slots, run.frame.plan.shapes
        begin, size = run.frame.results
        whole = np.empty(size, np.uint8)
        base = self._arena.address + begin if self._arena is not None else 0
        if size:
            self.gpu.driver.download(base, whole)
        results = []
        for slot in self.program.outputs:
            dtype = dtypes.named(slots[slot].dtype).memory
            count = self.binding.bytes(slot, shapes)
            if slots[slot].kind == "output" and self.binding.owners[slot] == slot:
                at = run.address(slot) - base if count else 0
                array = whole[at : at + count].view(dtype).reshape(shapes[slot])
                array = array.copy() if len(self.program.outputs) > 1 else array
            else:
                array = np.empty(shapes[slot], dtype)
                if count:
                    self.gpu.driver.download(run.address(slot), array)
            results.append(shown(slots[slot].dtype, array))
        return results

    def _mirror(self, buffer: Buffer) -> DeviceBuffer:
        return DeviceBuffer(self.gpu, buffer)

    def _given(self, arrays: Sequence[Any]) -> list[Any]:
        """The arguments: contiguous arrays of NumPy, or arrays on this device. Raises DataError."""
        program = self.program
        if len(arrays) != len(program.inputs):
            names = ", ".join(program.slots[s].name for s in program.inputs)
            raise DataError(
                f"{program.name!r} takes {len(program.inputs)} arrays ({names}), but {len(arrays)} were given."
            )
        given: list[Any] = []
        for slot, value, dtype in zip(program.inputs, arrays, self._dtypes, strict=True):
            array = stored(program.slots[slot].dtype, value) if isinstance(value, np.ndarray) else self.gpu.adopt(value)
            if array is None and isinstance(value, DeviceArray):
                array = value.numpy()  # of another device
            if array is None or array.dtype != dtype:
                raise DataError(
                    f"Input {program.slots[slot].name!r} of {program.name!r} needs {type_of(program.slots[slot])}, "
                    f"but {described(value)} was given."
                )
            if isinstance(array, np.ndarray) and not (array.flags.c_contiguous and array.flags.aligned):
                array = array.copy(order="C")
            given.append(self.gpu.aligned(array) if isinstance(array, DeviceArray) else array)
        return given

    def _sizes(self, given: Sequence[Any]) -> dict[str, int]:
        shapes = tuple([tuple(a.shape) for a in given])
        values = tuple([int(np.asarray(given[number])) for number in self.binding.measures])
        sizes = self._known.get((shapes, values))
        if sizes is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            sizes = self._known[shapes, values] = self.binding.sizes(shapes, values)
        return sizes

    # ---- at the first call with some shapes

    def _frame(self, given: Sequence[Any], sizes: dict[str, int], own: Mapping[int, int]) -> Frame:
        """The frame of a call, its arena at hand."""
        resident = tuple([a.address if isinstance(a, DeviceArray) else -1 for a in given])
        key = tuple([sizes[name] for name in self._deciding]), resident, tuple(own.items())
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = self._make_frame(given, sizes, own)
            while len(self._frames) > FRAMES:
                self._frames.pop(next(iter(self._frames)))
        if frame.bytes > (self._arena.bytes if self._arena is not None else 0):
            self._grow(frame.bytes)
        if frame.arena != self._arenas:
            base = self._arena.address if self._arena is not None else 0
            for slot, offset in frame.offsets.items():
                frame.table[slot] = base + offset
            frame.arena = self._arenas
            frame.parts, frame.routines = {}, {}
        return frame

    def _grow(self, size: int) -> None:
        """Take a larger arena. Graphs captured for the old one are gone with it. Raises OutOfMemoryError."""
        self._arenas += 1  # before anything can fail: whatever was made for the old one is made anew
        for frame in self._frames.values():
            frame.parts, frame.routines = {}, {}
        self.gpu.driver.wait()
        self._arena = None  # the old one goes before the new one comes
        self._arena = self.gpu.allocate_memory(size, f"A call of {self.program.name!r}")

    def _make_frame(self, given: Sequence[Any], sizes: dict[str, int], own: Mapping[int, int]) -> Frame:
        uploaded = tuple([s for s, a in zip(self.program.inputs, given, strict=True) if isinstance(a, np.ndarray)])
        key = tuple([sizes[name] for name in self._deciding]), uploaded, tuple(own)
        if key not in self._layouts:
            if len(self._layouts) >= FRAMES:
                self._layouts.clear()
            self._layouts[key] = self._lay_out(sizes, uploaded, own)
        table = list(self._fixed)
        for slot, address in own.items():
            table[slot] = address
        for slot, array in zip(self.program.inputs, given, strict=True):
            if slot not in uploaded:
                table[slot] = array.address
        return Frame(self._layouts[key][0], table, *self._layouts[key][1:])

    def _lay_out(
        self, sizes: dict[str, int], uploaded: Sequence[int], own: Container[int]
    ) -> tuple[Plan, dict[int, int], tuple[int, int], int]:
        """The plan for these sizes, offsets in the arena, where in it outputs are that are not `own`, and its bytes."""
        program, binding = self.program, self.binding
        shapes = binding.shapes(sizes)
        end = max((s.last for s in program.slots), default=0) + 1
        blocks = [(s, binding.bytes(s, shapes), life) for s, life in binding.lifetimes.items()]
        blocks += [(s, binding.bytes(s, shapes), (0, end)) for s in uploaded]
        outputs = [s for s in dict.fromkeys(program.outputs) if program.slots[s].kind == "output"]
        written = [s for s in outputs if s not in own]
        inside, size = {}, 0
        for slot in written:
            inside[slot] = size
            size += _rounded(binding.bytes(slot, shapes))
        layout = [*((_rounded(n), life) for _, n, life in blocks), (size, (0, end))]
        places, total = arena.layout([n for n, _ in layout], [life for _, life in layout])
        offsets = {slot: at for (slot, _, _), at in zip(blocks, places[:-1], strict=True)}
        offsets |= {slot: places[-1] + at for slot, at in inside.items()}
        return Plan(sizes, shapes), offsets, (places[-1], size), total

    # ---- once

    def _check_variables(self) -> None:
        program = self.program
        if len(self.variables) != len(program.variables):
            raise ArgumentError(
                f"{program.name!r} has {len(program.variables)} variables, but {len(self.variables)} buffers came."
            )
        for (number, _), buffer in zip(program.variables, self.variables, strict=True):
            slot = program.slots[number]
            if (buffer.shape, buffer.dtype) != (slot.shape, slot.dtype):
                raise ArgumentError(f"The variable {slot.name!r} needs {type_of(slot)}, but its buffer is {buffer!r}.")

    def _place_fixed(self) -> tuple[list[int], Memory]:
        """Addresses of constants, which are uploaded, and of what is kept, zeroed; 0 for other slots."""
        program = self.program
        data = dict(program.constants)
        noted = {s.seen for s in program.steps if isinstance(s, Prepare)}
        slots = [k for k, s in enumerate(program.slots) if s.kind in ("constant", "kept") and k not in noted]
        shapes = [tuple(evaluate(d, {}) for d in program.slots[k].shape) for k in slots]
        sizes = [bytes_of(shape, program.slots[k].dtype) for k, shape in zip(slots, shapes, strict=True)]
        memory = self.gpu.allocate_memory(sum(map(_rounded, sizes)), f"What {program.name!r} keeps")
        table, at = [0] * len(program.slots), memory.address
        for slot, size in zip(slots, sizes, strict=True):
            table[slot] = at
            if size and slot in data:
                self.gpu.driver.upload(at, np.frombuffer(data[slot], np.uint8))
            elif size:
                self.gpu.driver.fill(at, 0, size)
            at += _rounded(size)
        return table, memory


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


__all__ = ["GpuExecutable"]
