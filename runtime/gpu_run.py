"""A program on a GPU.

A call binds sizes from shapes as on the CPU (`Binding`). What shapes and addresses decide is a `Frame`: where each slot
lies, and the parts that the program's steps fall into. A `Segment` is a run of steps in which the host decides nothing:
it is launched step by step the first time, captured as a graph the second, and replayed from then on. A `Repeat` of
steps that find their own number in memory is such a segment replayed again and again, its counter moved on by a kernel:
a training loop costs the host one replay a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.compiler.program import (
    Branch,
    Changed,
    Clear,
    Copy,
    Launch,
    Library,
    Prepare,
    Program,
    Repeat,
    Step,
    all_steps,
    own,
)
from gnomon.compiler.sizes import evaluate, symbols
from gnomon.runtime import arena, library
from gnomon.runtime.binding import Binding, Shape, bytes_of, described, type_of
from gnomon.runtime.buffer import CLOCK, Buffer, changed, shown, stored
from gnomon.runtime.device import Loaded
from gnomon.runtime.gpu import DeviceArray, DeviceBuffer, Gpu, Memory, Operand, Routine, Span

FRAMES = 64
"""How many sets of shapes and addresses an executable remembers; with more, the earliest is forgotten."""

UNROLLED = 20_000
"""Launches that a loop may be written out to in a graph; one of more is launched by the host."""

ALIGNMENT = 256
"""Bytes: what CUDA's own allocations begin on a multiple of."""


@dataclass(frozen=True)
class Move:
    """A step that the runtime adds at the end of a round: a counter in the device's memory goes on."""

    counter: int
    by: int


@dataclass(eq=False)
class Segment:
    """Steps in which the host decides nothing, and their graph once there is one."""

    steps: tuple[Any, ...]
    runs: int = 0
    graph: Any = None


@dataclass(eq=False)
class Plan:
    """What the shapes of a call decide.

    sizes      value of each symbolic size
    shapes     of every slot
    launches   what is known of each launch, by its identity: grid, block, shared bytes, values of size arguments
    """

    sizes: dict[str, int]
    shapes: tuple[Shape, ...]
    launches: dict[int, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(eq=False)
class Frame:
    """What shapes, and the addresses of arrays that are on the device already, decide.

    table     an address for each slot that has memory of its own
    offsets   of temporaries and of what is uploaded, in an arena of `bytes` bytes; outputs are at `results`
    parts     the parts of each sequence of steps, by its identity
    routines  of libraries, by the identity of their step
    arena     number of the arena that `table` is filled in for
    """

    plan: Plan
    table: list[int]
    offsets: dict[int, int]
    results: tuple[int, int]
    bytes: int
    parts: dict[int, list[Any]] = field(default_factory=dict)
    routines: dict[int, Routine] = field(default_factory=dict)
    arena: int = 0


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
        self._module, event = gpu.module(program)
        self.loaded = Loaded(0, {}, (event,))
        self.binding = Binding(program)
        self._check_variables()
        self._dtypes = [dtypes.named(program.slots[s].dtype).memory for s in program.inputs]
        self._baked = self._sizes_of_frames()
        self._read = {s for step in all_steps(program.steps) for s in _operands(step)} | set(program.outputs)
        self._bodies: dict[int, tuple[Any, ...]] = {}
        self._seen: dict[int, int] = {}  # when what is kept was made
        self._fixed, self._owned = self._place_fixed()
        self._frames: dict[Any, Frame] = {}
        self._arena: Memory | None = None
        self._arenas = 0  # how many there have been
        self.graphs = 0  # how many were captured

    def __call__(self, *arrays: Any) -> list[np.ndarray]:
        """Run on `arrays`, one per input, of exactly the inputs' dtypes: NumPy's, or arrays on this device, which are
        read where they are. Returns the outputs, fresh arrays.

        Raises DataError if an array does not fit, naming the input; OutOfMemoryError before anything runs.
        """
        with self.gpu.lock:
            run = self._run(arrays)
            return self._downloaded(run)

    def on_device(self, *arrays: Any) -> list[DeviceArray]:
        """As a call, but the outputs stay on the device: it returns when all is started."""
        with self.gpu.lock:
            run = self._run(arrays)
            results = []
            for slot in self.program.outputs:
                shape, dtype = run.frame.plan.shapes[slot], self.program.slots[slot].dtype
                size = bytes_of(shape, dtype)
                memory = self.gpu.allocate_memory(size, f"a result of {self.program.name!r}")
                if size:
                    self.gpu.driver.copy(memory.address, run.address(slot), size)
                results.append(DeviceArray(self.gpu, memory.address, shape, dtype, memory))
            return results

    def fitting(self, arrays: Sequence[Any]) -> dict[str, int]:
        """The values of the symbolic sizes in a call with `arrays`. Raises DataError if an array does not fit."""
        return self._sizes(self._given(arrays))

    def memory(self, sizes: dict[str, int]) -> int:
        """Bytes of temporary memory that a call takes with these values of the symbolic sizes."""
        return self.binding.temporary_bytes(sizes)

    def run_stepwise(self, arrays: Sequence[Any], observer: Any) -> list[np.ndarray]:
        """Run as `__call__` does, but waiting for each step and telling `observer` of it; it gets copies of slots.

        Temporaries begin as NaN (all bits set), so that reading what was never written shows.
        """
        with self.gpu.lock:
            run = self._run(arrays, observer)
            return self._downloaded(run)

    # ---- a call

    def _run(self, arrays: Sequence[Any], observer: Any = None) -> _Run:
        given = self._given(arrays)
        sizes = self._sizes(given)
        frame = self._frame(given, sizes)
        driver = self.gpu.driver
        for (number, _), buffer in zip(self.program.variables, self.variables, strict=True):
            frame.table[number] = buffer.on(self.gpu, self._mirror).address
        for slot, array in zip(self.program.inputs, given, strict=True):
            if isinstance(array, np.ndarray) and array.nbytes:
                driver.upload(frame.table[slot], array)
        run = _Run(self, frame, sizes, observer)
        if observer is not None or self.gpu.poison:
            run.poison()
        try:
            run.go(self.program.steps)
        finally:
            for k in self.updated:
                buffer = self.variables[k]
                buffer.written_on(buffer.mirrors[self.gpu])
        return run

    def _downloaded(self, run: _Run) -> list[np.ndarray]:
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
            given.append(array)
        return given

    def _sizes(self, given: Sequence[Any]) -> dict[str, int]:
        return self.binding.sizes(
            [tuple(a.shape) for a in given], [int(np.asarray(given[number])) for number in self.binding.measures]
        )

    # ---- at the first call with some shapes

    def _sizes_of_frames(self) -> list[str]:
        """The sizes that decide addresses and launches: all but those that only say how often the steps run."""
        program = self.program
        used = {s for slot in program.slots for d in slot.shape for s in symbols(d)}
        replayed = [s for s in program.steps if isinstance(s, Repeat)]
        loops = {id(s) for s in replayed if not self._rows_of(s.steps) & {s.counter, s.round}}
        for step in all_steps(program.steps):
            if isinstance(step, Launch):
                dims = [*step.sizes, *step.grid, step.shared]
            elif isinstance(step, Repeat) and id(step) not in loops and step.count is not None:
                dims = [step.count]
            else:
                continue
            used |= {s for d in dims for s in symbols(d)}
        for slot in program.slots:
            if slot.row is not None:
                rows = [] if slot.row.rows is None else [slot.row.rows]
                used |= {s for d in (slot.row.shift, *rows) for s in symbols(d)}
        return [name for name in program.sizes if name in used]

    def _frame(self, given: Sequence[Any], sizes: dict[str, int]) -> Frame:
        """The frame of a call, its arena at hand."""
        resident = tuple([a.address if isinstance(a, DeviceArray) else -1 for a in given])
        key = tuple([sizes[name] for name in self._baked]), resident
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = self._make_frame(given, sizes)
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

    def _make_frame(self, given: Sequence[Any], sizes: dict[str, int]) -> Frame:
        program, binding = self.program, self.binding
        shapes = binding.shapes(sizes)
        end = max((s.last for s in program.slots), default=0) + 1
        blocks = [(s, binding.bytes(s, shapes), life) for s, life in binding.lifetimes.items()]
        table = list(self._fixed)
        for slot, array in zip(program.inputs, given, strict=True):
            if isinstance(array, np.ndarray):
                blocks.append((slot, array.nbytes, (0, end)))
            else:
                table[slot] = array.address
        written = [s for s in dict.fromkeys(program.outputs) if program.slots[s].kind == "output"]
        inside, size = {}, 0
        for slot in written:
            inside[slot] = size
            size += _rounded(binding.bytes(slot, shapes))
        layout = [*((_rounded(n), life) for _, n, life in blocks), (size, (0, end))]
        places, total = arena.layout([n for n, _ in layout], [life for _, life in layout])
        offsets = {slot: at for (slot, _, _), at in zip(blocks, places[:-1], strict=True)}
        offsets |= {slot: places[-1] + at for slot, at in inside.items()}
        return Frame(Plan(sizes, shapes), table, offsets, (places[-1], size), total)

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

    def rows_of_slot(self, slot: int) -> Iterator[int]:
        """The counters that tell where a slot is."""
        s = self.program.slots[slot]
        if s.alias >= 0:
            yield from self.rows_of_slot(s.alias)
        if s.row is not None:
            yield s.row.counter
            if s.row.edge >= 0:
                yield from self.rows_of_slot(s.row.edge)

    def _rows_of(self, steps: Sequence[Any]) -> set[int]:
        """The counters that tell where the operands of steps are."""
        return {
            c
            for step in all_steps(steps)
            for slot in _operands(step)
            for c in self.rows_of_slot(slot)
        }

    def body(self, step: Repeat) -> tuple[Any, ...]:
        """The steps of a round, and those that move on the counters that kernels read."""
        if id(step) not in self._bodies:
            moves = [Move(step.counter, -1 if step.reverse else 1)] if step.counter in self._read else []
            moves += [Move(step.round, 1)] if step.round in self._read else []
            self._bodies[id(step)] = (*step.steps, *moves)
        return self._bodies[id(step)]

    def is_read(self, slot: int) -> bool:
        """Whether anything but the loop itself reads a slot from memory."""
        return slot in self._read

    # ---- parts

    def divided(self, steps: tuple[Any, ...], sizes: dict[str, int]) -> list[Any]:
        """Steps as segments and, in between, those in which the host has a say."""
        parts: list[Any] = []
        segment: list[Any] = []
        inside: set[int] = set()  # counters that the segment itself counts

        def close() -> None:
            if segment:
                parts.append(Segment(tuple(segment)))
            segment.clear()
            inside.clear()

        for step in steps:
            counted = {c for s in all_steps([step]) if isinstance(s, Repeat) for c in (s.counter, s.round)}
            if self._is_plain(step, sizes) and self._rows_of([step]) <= inside | counted:
                segment.append(step)
                inside |= counted
            else:
                close()
                parts.append(step)
        close()
        return parts

    def _is_plain(self, step: Any, sizes: dict[str, int]) -> bool:
        """Whether the host decides nothing in a step: what may be in a graph."""
        match step:
            case Launch() | Copy() | Clear() | Move():
                return True
            case Library():
                return self.gpu.driver.library(step.name) is not None
            case Repeat():
                if step.count is None or step.until >= 0 or step.limit >= 0:
                    return False
                if not self._rows_of(step.steps) & {step.counter, step.round}:
                    return False  # replayed, rather than written out
                plain = all(self._is_plain(s, sizes) or self._is_small(s, sizes) for s in step.steps)
                return plain and _count(step, sizes) <= UNROLLED
        return False

    def _is_small(self, step: Any, sizes: dict[str, int]) -> bool:
        """Whether a loop may be written out inside another that is."""
        return (
            isinstance(step, Repeat)
            and step.count is not None
            and step.until < 0
            and step.limit < 0
            and all(self._is_plain(s, sizes) or self._is_small(s, sizes) for s in step.steps)
        )


class _Run:
    """One call under way.

    known   the values of counters of loops that the host counts
    """

    def __init__(self, executable: GpuExecutable, frame: Frame, sizes: dict[str, int], observer: Any):
        self.executable, self.frame, self.sizes, self.observer = executable, frame, sizes, observer
        self.program, self.gpu = executable.program, executable.gpu
        self.driver = executable.gpu.driver
        self.slots, self.shapes = executable.program.slots, frame.plan.shapes
        self.known: dict[int, int] = {}

    def __getitem__(self, slot: int) -> np.ndarray:
        """A copy of a slot as it is now, for observers."""
        return self.read(slot)

    def poison(self) -> None:
        """Let temporaries and outputs be NaN."""
        for slot in (*self.executable.binding.lifetimes, *self.program.outputs):
            if self._bytes(slot) and self.slots[slot].kind in ("temporary", "output"):
                self.driver.fill(self.frame.table[slot], 0xFF, self._bytes(slot))

    # ---- slots

    def address(self, slot: int) -> int:
        """Where a slot is now."""
        s = self.slots[slot]
        if s.row is None:
            return self.frame.table[slot] if s.alias < 0 else self.address(s.alias)
        row = s.row
        number = self._value(row.counter) + evaluate(row.shift, self.sizes)
        if row.edge >= 0 and (number < 0 or row.rows is not None and number >= evaluate(row.rows, self.sizes)):
            return self.address(row.edge)
        return self.address(s.alias) + self._bytes(slot) * (number % row.ring if row.ring else number)

    def _value(self, counter: int) -> int:
        known = self.known.get(counter)
        return int(self.read(counter)) if known is None else known

    def _bytes(self, slot: int) -> int:
        return self.executable.binding.bytes(slot, self.shapes)

    def read(self, slot: int) -> np.ndarray:
        """What a slot holds, when all that was started has ended."""
        array = np.empty(self.shapes[slot], dtypes.named(self.slots[slot].dtype).memory)
        if slot in self.known:
            array[...] = self.known[slot]
        elif self.slots[slot].kind == "clock":
            array[...] = CLOCK
        elif array.nbytes:
            self.driver.download(self.address(slot), array)
        return array

    def span(self, slot: int) -> Span:
        return Span(self.address(slot), self._bytes(slot))

    # ---- steps

    def go(self, steps: tuple[Any, ...]) -> None:
        """Run steps, by graphs where there are any."""
        if self.observer is not None:
            self._flat(steps)
            return
        parts = self.frame.parts.get(id(steps))
        if parts is None:
            parts = self.frame.parts[id(steps)] = self.executable.divided(steps, self.sizes)
        for part in parts:
            if isinstance(part, Segment):
                self._segment(part)
            else:
                self._step(part, self.go)

    def _segment(self, segment: Segment) -> None:
        if segment.graph is not None:
            self.driver.replay(segment.graph)
            self._count_through(segment.steps)
            return
        segment.runs += 1
        if segment.runs == 1 or not self.gpu.captures:
            self._flat(segment.steps)
            return
        self.driver.begin_capture()
        try:
            self._flat(segment.steps)
        finally:
            graph = self.driver.end_capture()
        segment.graph = graph
        self.executable.graphs += 1
        self.driver.replay(graph)

    def _flat(self, steps: tuple[Any, ...]) -> None:
        for step in steps:
            self._step(step, self._flat)

    def _count_through(self, steps: tuple[Any, ...]) -> None:
        """Know what loops inside a graph have counted to, as if they had been run."""
        for step in all_steps(steps):
            if isinstance(step, Repeat):
                assert step.count is not None, step
                count = max(0, evaluate(step.count, self.sizes))
                self.known[step.counter] = -1 if step.reverse else count
                if step.round >= 0:
                    self.known[step.round] = count

    def _step(self, step: Any, go: Callable[[tuple[Any, ...]], None]) -> None:
        match step:
            case Repeat():
                self._repeat(step, go)
            case Branch():
                go(step.then if self.read(step.condition) else step.orelse)
            case Prepare():
                now = int(CLOCK)
                if now < 0 or now != self.executable._seen.get(step.seen):
                    go(step.steps)
                    self.executable._seen[step.seen] = now
            case Changed():
                changed()
            case Move():
                self._counter("gn_move_counter", step.counter, step.by)
            case _:
                if self.observer is None:
                    self._act(step)
                    return
                self.observer.before(step, self)
                began = time.perf_counter_ns()
                self._act(step)
                self.driver.wait()
                self.observer.after(step, self, time.perf_counter_ns() - began)

    def _act(self, step: Any) -> None:
        match step:
            case Launch():
                grid, block, shared, values = self._geometry(step)
                if all(grid):
                    arguments = [*map(self.span, step.buffers), *values]
                    cooperative = getattr(step, "cooperative", False)
                    self.driver.launch(
                        self.executable._module, step.kernel, grid, block, shared, arguments, cooperative
                    )
            case Copy():
                size = self._bytes(step.source)
                if size:
                    self.driver.copy(self.address(step.target), self.address(step.source), size)
            case Clear():
                size = self._bytes(step.target)
                if size:
                    self.driver.fill(self.address(step.target), 0, size)
            case Library():
                self._call(step)
            case _:
                raise AssertionError(step)

    def _geometry(self, step: Launch) -> tuple[Any, ...]:
        found = self.frame.plan.launches.get(id(step))
        if found is None:
            found = self.frame.plan.launches[id(step)] = (
                tuple(evaluate(g, self.sizes) for g in step.grid),
                step.block,
                evaluate(step.shared, self.sizes),
                [np.int64(evaluate(d, self.sizes)) for d in step.sizes],
            )
        return found

    def _repeat(self, step: Repeat, go: Callable[[tuple[Any, ...]], None]) -> None:
        counts = [] if step.count is None else [evaluate(step.count, self.sizes)]
        counts += [] if step.limit < 0 else [max(0, int(self.read(step.limit)))]
        most = max(0, min(counts)) if counts else None
        body = self.executable.body(step)
        self._begin(step.counter, most - 1 if step.reverse and most is not None else 0)
        if step.round >= 0:
            self._begin(step.round, 0)
        done, ended = 0, False
        while not ended and (most is None or done < most):
            go(body)
            done += 1
            self.known[step.counter] += -1 if step.reverse else 1
            if step.round >= 0:
                self.known[step.round] += 1
            ended = step.until >= 0 and bool(self.read(step.until))

    def _begin(self, counter: int, value: int) -> None:
        self.known[counter] = value
        if self.executable.is_read(counter):
            self._counter("gn_set_counter", counter, value)

    def _counter(self, kernel: str, counter: int, value: int) -> None:
        place = Span(self.address(counter), 8)
        self.driver.launch(self.gpu.own(), kernel, (1, 1, 1), (32, 1, 1), 0, [place, np.int64(value)])

    def _call(self, step: Library) -> None:
        make = self.driver.library(step.name)
        if make is None:  # the host's routine
            inputs = [self.read(s) for s in step.inputs]
            outputs = [np.empty(self.shapes[s], dtypes.named(self.slots[s].dtype).memory) for s in step.outputs]
            library.call(step.name, inputs, outputs)
            for slot, array in zip(step.outputs, outputs, strict=True):
                if array.nbytes:
                    self.driver.upload(self.address(slot), array)
            return
        routine = self.frame.routines.get(id(step))
        if routine is None or self.executable._rows_of([step]):
            read, written = (
                [Operand(self.address(s), self.shapes[s], self.slots[s].dtype) for s in slots]
                for slots in (step.inputs, step.written)
            )
            routine = self.frame.routines[id(step)] = make(step, read, written, self.sizes)
        routine()


def _operands(step: Step) -> Iterator[int]:
    """The slots that a step itself reads or writes in the device's memory."""
    if isinstance(step, (Launch, Copy, Clear, Library)):
        yield from own(step)


def _count(step: Any, sizes: dict[str, int]) -> int:
    """How many launches a loop is when it is written out."""
    if not isinstance(step, Repeat):
        return 1
    assert step.count is not None, step
    return max(0, evaluate(step.count, sizes)) * sum(_count(s, sizes) for s in step.steps)


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


__all__ = ["GpuExecutable", "Segment"]
