"""A program on the CPU with its variables: called with arrays, returns arrays.

What depends only on the shapes of the inputs (the values of sizes, the shapes of outputs, where temporaries lie) is
worked out at the first call with these shapes and remembered as a `Plan`. A later call fills in the addresses of inputs
and fresh outputs and enters the program, without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError, DeviceError
from gnomon.compiler.program import Branch, Launch, Prepare, Program, Repeat, Slot, Step
from gnomon.compiler.sizes import evaluate
from gnomon.runtime import arena, cpu, gate, library, pool, stepwise
from gnomon.runtime.binding import Binding, described, type_of
from gnomon.runtime.buffer import CLOCK, MIRRORS, Buffer, address_of, aligned, shown, stored
from gnomon.runtime.stepwise import Arrays, Observer

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_WAKEN = ctypes.CFUNCTYPE(None)

PLANS = 1000
"""How many sets of shapes an executable remembers; with more, the earliest is forgotten."""


@dataclass(eq=False)
class Plan:
    """What one set of input shapes decides.

    sizes      value of each symbolic size
    shapes     of every slot
    values     the sizes as the program reads them
    table      an address per slot; those of inputs and outputs are filled in at each call
    offsets    where each temporary lies in the arena of `bytes` bytes
    waken      address of what wakes the threads, if the program does enough for that; else 0
    arena      the number of the arena in which `table` has the temporaries: no reference, or arenas that were outgrown
               would live as long as plans that are called no more
    """

    sizes: dict[str, int]
    shapes: tuple[tuple[int, ...], ...]
    values: Any
    table: Any
    offsets: dict[int, int]
    bytes: int
    waken: int
    arena: int = 0


class Executable:
    """A compiled function on the CPU.

    program     what to run
    variables   buffers in the order of `program.variables`
    loaded      its machine code, and how it came into memory
    Raises ArgumentError if a buffer is not of its slot's shape and dtype, CompileError if the code cannot be had.
    """

    def __init__(self, program: Program, variables: Sequence[Buffer] = ()):
        self.program, self.variables = program, list(variables)
        self.loaded = cpu.load(program)
        self._enter = _ENTRY(self.loaded.entry)
        self._parallel = cpu.parallel()
        self._arena = np.empty(0, np.uint8)
        self._arenas = 1  # how many there have been
        self._plans: dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], Plan] = {}
        self.updated: Sequence[int] = range(len(self.variables))  # numbers of the variables that it may change
        self._binding = Binding(program)
        self._measures = self._binding.measures
        self._dtypes = [dtypes.named(program.slots[s].dtype).memory for s in program.inputs]
        ends = [program.slots[s].dtype for s in (*program.inputs, *program.outputs)]
        self._opaque = any(dtypes.named(d).memory is not dtypes.named(d).numpy for d in ends)  # to who calls it
        self._owners, self._lifetimes = self._binding.owners, self._binding.lifetimes
        self._fixed = self._fixed_addresses()
        self._layouts: list[tuple[np.ndarray, list[int], int]] = []  # sizes that fit, offsets, bytes of all
        seen: set[int] = set()
        self._fresh: list[bool] = []  # per output: the program writes it into memory that is the caller's from then on
        for slot in program.outputs:
            self._fresh.append(program.slots[slot].kind == "output" and self._owners[slot] == slot and slot not in seen)
            seen.add(slot)
        self._gate = self._make_gate()
        self._quick: Callable[..., Any] = self._gate.call if self._gate else lambda *arrays: None
        lock = threading.Lock()
        self._seize = self._gate.seize if self._gate else lambda: lock.acquire(blocking=False)
        self._free = self._gate.free if self._gate else lock.release

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Run on `arrays`, one per input, of exactly the inputs' dtypes. Returns the outputs, fresh arrays.

        Of bfloat16, which NumPy does not have, come and go the arrays that `buffer.stored` and `buffer.shown` tell of.
        Raises DataError if an array does not fit, naming the input.
        """
        if MIRRORS:
            self._come_home()
        if self._opaque:
            arrays = tuple(map(self._stored, self.program.inputs, arrays)) + arrays[len(self.program.inputs) :]
        done = self._quick(*arrays)
        if type(done) is list:
            return self._shown(done) if self._opaque else done
        if done is not None:
            raise self._failure(done)
        given, plan = self._plan(arrays)
        if not self._seize():  # another thread is in here: take other memory than it has
            return self._run(plan, given, aligned((plan.bytes,), "uint8", zero=False))
        try:
            if plan.arena != self._arenas:
                self._adopt(plan)
            return self._run(plan, given, self._arena)
        finally:
            self._free()

    def fitting(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The values of the symbolic sizes in a call with `arrays`. Raises DataError if an array does not fit."""
        return dict(self._plan(arrays)[1].sizes)

    def memory(self, sizes: dict[str, int]) -> int:
        """Bytes of temporary memory that a call takes with these values of the symbolic sizes."""
        return self._binding.temporary_bytes(sizes)

    def run_stepwise(self, arrays: Sequence[np.ndarray], observer: Observer) -> list[np.ndarray]:
        """Run as `__call__` does, but step by step from Python, telling `observer` of each step.

        Temporaries begin as NaN (all bits set), so that reading what was never written shows.
        """
        self._come_home()
        given, plan = self._plan(arrays)
        memory = aligned((plan.bytes,), "uint8", zero=False)
        memory.fill(0xFF)
        table, results = self._bind(plan, given, memory)
        slots = Arrays(self.program, plan.sizes, plan.shapes, table, (memory, given, results))
        stepwise.run(self.program, self.loaded, slots, observer)
        return self._shown(self._results(results, slots))

    # ---- at every call

    def _come_home(self) -> None:
        """Have the present values of variables here, and let other devices know of those that will change."""
        for number, buffer in enumerate(self.variables):
            buffer.fetch()
            if number in self.updated:
                buffer.written()

    def _stored(self, slot: int, array: Any) -> Any:
        return stored(self.program.slots[slot].dtype, array)

    def _shown(self, results: list[np.ndarray]) -> list[np.ndarray]:
        if not self._opaque:
            return results
        slots = self.program.slots
        return [shown(slots[s].dtype, result) for s, result in zip(self.program.outputs, results, strict=True)]

    def _run(self, plan: Plan, given: Sequence[np.ndarray], memory: np.ndarray) -> list[np.ndarray]:
        table, results = self._bind(plan, given, memory)
        if plan.waken:
            _WAKEN(plan.waken)()
        status = self._enter(table, plan.values, self._parallel)
        if status:
            raise self._failure(status)
        return self._shown(self._results(results, Arrays(self.program, plan.sizes, plan.shapes, table)))

    def _bind(self, plan: Plan, given: Sequence[np.ndarray], memory: np.ndarray) -> tuple[Any, list[np.ndarray | None]]:
        """The addresses of all slots for one call, and its fresh outputs."""
        table = type(plan.table).from_buffer_copy(plan.table)
        if memory is not self._arena and plan.offsets:
            self._place(plan, table, memory)
        for slot, array in zip(self.program.inputs, given, strict=True):
            table[slot] = address_of(array)
        results: list[np.ndarray | None] = []
        for slot, fresh in zip(self.program.outputs, self._fresh, strict=True):
            result = None
            if fresh:
                result = np.empty(plan.shapes[slot], dtypes.named(self.program.slots[slot].dtype).memory)
                table[slot] = address_of(result)
            results.append(result)
        for slot, owner in enumerate(self._owners):
            if owner != slot:
                table[slot] = table[owner]
        return table, results

    def _results(self, results: list[np.ndarray | None], slots: Arrays) -> list[np.ndarray]:
        """The outputs: those in memory that is not the caller's (variables, inputs) are copied."""
        return [
            slots[slot].copy() if result is None else result
            for slot, result in zip(self.program.outputs, results, strict=True)
        ]

    def _failure(self, status: int) -> BaseException:
        """What to raise when the entry returned `status`."""
        return library.failure() or DeviceError(f"The program {self.program.name!r} ended with status {status}.")

    # ---- at the first call with some shapes

    def _plan(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], Plan]:
        """The arrays, made contiguous, and what their shapes decide."""
        program = self.program
        if len(arrays) != len(program.inputs):
            names = ", ".join(program.slots[s].name for s in program.inputs)
            raise DataError(
                f"{program.name!r} takes {len(program.inputs)} arrays ({names}), but {len(arrays)} were given."
            )
        given = []
        for slot, array, dtype in zip(program.inputs, arrays, self._dtypes, strict=True):
            if self._opaque:
                array = self._stored(slot, array)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise DataError(
                    f"Input {program.slots[slot].name!r} of {program.name!r} needs {type_of(program.slots[slot])}, "
                    f"but {described(array)} was given."
                )
            if not (array.flags.c_contiguous and array.flags.aligned):
                array = array.copy(order="C")
            given.append(array)
        shapes = tuple([a.shape for a in given])
        values = tuple([int(given[number]) for number in self._measures])
        plan = self._plans.get((shapes, values))
        if plan is None:
            plan = self._plans.setdefault((shapes, values), self._make_plan(shapes, values))
            while len(self._plans) > PLANS:
                self._plans.pop(next(iter(self._plans)), None)
        return given, plan

    def _make_plan(self, given: tuple[tuple[int, ...], ...], values_given: tuple[int, ...]) -> Plan:
        sizes = self._binding.sizes(given, values_given)
        shapes = self._binding.shapes(sizes)
        offsets, size = self._lay_out(shapes)
        values = (ctypes.c_int64 * max(1, len(sizes)))(*(sizes[name] for name in self.program.sizes))
        table = (ctypes.c_void_p * max(1, len(shapes)))(*self._fixed)
        waken = cpu.waken() if _work(self.program.steps, sizes) >= pool.BEFOREHAND else 0
        return Plan(sizes, shapes, values, table, offsets, size, waken)

    def _adopt(self, plan: Plan) -> None:
        """Give `plan` a place in the arena, which the caller has seized, and let calls like it through the gate."""
        if plan.bytes > self._arena.nbytes:
            self._arenas += 1  # before anything can fail: the other plans follow when they are next called
            if self._gate:
                self._gate.clear()
            self._arena = np.empty(0, np.uint8)  # the old one goes before the new one comes
            self._arena = aligned((plan.bytes,), "uint8", zero=False)
        self._place(plan, plan.table, self._arena)
        plan.arena = self._arenas
        if self._gate:
            shapes = [plan.shapes[slot] for slot in (*self.program.inputs, *self.program.outputs)]
            self._gate.add(ctypes.addressof(plan.values), ctypes.addressof(plan.table), plan.waken, shapes, plan)

    def _place(self, plan: Plan, table: Any, memory: np.ndarray) -> None:
        """Put the temporaries into `memory`."""
        base = address_of(memory)
        for slot, offset in plan.offsets.items():
            table[slot] = base + offset

    def _lay_out(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[dict[int, int], int]:
        """Offsets of the temporaries in the arena, and its bytes."""
        sizes = [self._binding.bytes(s, shapes) for s in self._lifetimes]
        for most, offsets, total in self._layouts:
            if total <= self._arena.nbytes and (most >= sizes).all():  # where more fits, less does: no work, no memory
                return dict(zip(self._lifetimes, offsets, strict=True)), total
        offsets, total = arena.layout(sizes, list(self._lifetimes.values()))
        self._layouts = [(np.array(sizes, np.int64), offsets, total), *self._layouts[:15]]
        return dict(zip(self._lifetimes, offsets, strict=True)), total

    # ---- once

    def _make_gate(self) -> gate.Gate | None:
        """The quick way in, if there is one here and every output is the caller's own."""
        if self._measures or not (all(self._fresh) and gate.supported()):
            return None  # it knows calls by their shapes
        slots = self.program.slots
        inputs, outputs = (
            [(s, slots[s].dtype, len(slots[s].shape)) for s in ends]
            for ends in (self.program.inputs, self.program.outputs)
        )
        aliases = [(slot, owner) for slot, owner in enumerate(self._owners) if owner != slot]
        return gate.Gate(self.loaded.entry, self._parallel, len(slots), inputs, outputs, aliases)

    def _fixed_addresses(self) -> list[int | None]:
        """Addresses of variables, constants and what is kept, which stay; None for other slots."""
        program = self.program
        if len(self.variables) != len(program.variables):
            raise ArgumentError(
                f"{program.name!r} has {len(program.variables)} variables, but {len(self.variables)} buffers came."
            )
        fixed: list[int | None] = [None] * len(program.slots)
        for (number, _), buffer in zip(program.variables, self.variables, strict=True):
            slot = program.slots[number]
            if (buffer.shape, buffer.dtype) != (slot.shape, slot.dtype):
                raise ArgumentError(f"The variable {slot.name!r} needs {type_of(slot)}, but its buffer is {buffer!r}.")
            fixed[number] = buffer.address
        self._constants = []
        for number, data in program.constants:
            slot = program.slots[number]
            constant = aligned(tuple(evaluate(d, {}) for d in slot.shape), slot.dtype, zero=False)
            constant.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
            self._constants.append(constant)
            fixed[number] = address_of(constant)
        for number, slot in enumerate(program.slots):
            if slot.kind == "clock":
                fixed[number] = address_of(CLOCK)
            elif slot.kind == "kept":
                kept = aligned(tuple(evaluate(d, {}) for d in slot.shape), slot.dtype)
                self._constants.append(kept)
                fixed[number] = address_of(kept)
        return fixed


def accept(array: Any, slot: Slot) -> np.ndarray:
    """Anything array-like as an input for `slot`: its dtype is changed if no value can be lost by it in kind.

    Raises DataError if it would lose more than precision: text, complex numbers, floats for an integer input.
    """
    given = np.asarray(array)
    wanted = dtypes.named(slot.dtype).numpy
    if given.dtype in (wanted, dtypes.named(slot.dtype).memory):
        return given
    if not np.can_cast(given.dtype, wanted, "same_kind"):
        raise DataError(
            f"Input {slot.name!r} needs {type_of(slot)}, but {described(given)} was given, "
            f"which cannot become {slot.dtype} without losing values: convert it with .astype({slot.dtype!r})."
        )
    return given.astype(wanted)


def _work(steps: tuple[Step, ...], sizes: dict[str, int]) -> int:
    """About how many nanoseconds of one core the launches in `steps` take."""
    total = 0
    for step in steps:
        match step:
            case Launch():
                total += evaluate(step.work, sizes)
            case Repeat():
                rounds = 1 if step.count is None else max(0, evaluate(step.count, sizes))
                total += rounds * _work(step.steps, sizes)
            case Prepare():
                total += _work(step.steps, sizes)
            case Branch():
                total += max(_work(step.then, sizes), _work(step.orelse, sizes))
    return total
