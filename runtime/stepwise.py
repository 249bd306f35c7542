"""Runs a program from Python, step by step: what profiles and the debug modes watch.

The same kernels run on the same memory in the same order as in a call of the entry; only who launches them differs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np

from gnomon.compiler.dtypes import named
from gnomon.compiler.errors import DeviceError
from gnomon.compiler.program import Branch, Changed, Clear, Copy, Launch, Library, Prepare, Program, Repeat, Step
from gnomon.compiler.sizes import evaluate
from gnomon.runtime import cpu, image, library
from gnomon.runtime.device import Loaded

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Observer:
    """What a stepwise run tells about each step that does something; the parts of a loop one by one."""

    def before(self, step: Step, arrays: Arrays) -> None:
        """`step` will run next."""

    def after(self, step: Step, arrays: Arrays, nanoseconds: int) -> None:
        """`step` has run, and took so long."""


class Arrays:
    """The slots of one call as arrays, made when asked for: `arrays[slot]` is the memory itself.

    sizes    value of each symbolic size
    shapes   of every slot
    keep     whatever owns the memory, kept for as long as this object is
    """

    def __init__(
        self,
        program: Program,
        sizes: dict[str, int],
        shapes: tuple[tuple[int, ...], ...],
        table: Any,
        keep: tuple[Any, ...] = (),
    ):
        self.sizes, self.shapes, self._keep = sizes, shapes, keep
        self._slots, self._table = program.slots, table
        self._made: dict[int, np.ndarray] = {}

    def __getitem__(self, slot: int) -> np.ndarray:
        if self._slots[slot].row is not None:  # a view is elsewhere each time
            return library.view(self.address(slot), self.shapes[slot], self._slots[slot].dtype)
        if slot not in self._made:
            self._made[slot] = library.view(self.address(slot), self.shapes[slot], self._slots[slot].dtype)
        return self._made[slot]

    def address(self, slot: int) -> int:
        row = self._slots[slot].row
        if row is None:
            return self._table[slot] or 0
        number = int(self[row.counter]) + evaluate(row.shift, self.sizes)
        if row.edge >= 0 and (number < 0 or row.rows is not None and number >= evaluate(row.rows, self.sizes)):
            return self.address(row.edge)
        size = prod(self.shapes[slot]) * named(self._slots[slot].dtype).bytes
        return self.address(self._slots[slot].alias) + size * (number % row.ring if row.ring else number)


def run(program: Program, loaded: Loaded, arrays: Arrays, observer: Observer) -> None:
    """Run all steps of `program` on `arrays`. Raises DeviceError if a kernel is not among what was loaded."""

    def repeat(step: Repeat) -> None:
        counts = [] if step.count is None else [evaluate(step.count, arrays.sizes)]
        counts += [] if step.limit < 0 else [max(0, int(arrays[step.limit]))]
        done, ended = 0, False
        while True:
            arrays[step.counter][...] = min(counts) - 1 - done if step.reverse else done
            if step.round >= 0:
                arrays[step.round][...] = done
            if ended or (counts and done >= min(counts)):
                return
            go(step.steps)
            done += 1
            ended = step.until >= 0 and bool(arrays[step.until])

    def go(steps: tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Repeat():
                    repeat(step)
                case Branch():
                    go(step.then if arrays[step.condition] else step.orelse)
                case Prepare():
                    now = int(arrays[step.clock])
                    if now < 0 or now != arrays[step.seen]:
                        go(step.steps)
                        arrays[step.seen][...] = now
                case Changed():
                    arrays[step.clock][...] += 1
                case _:
                    action = _action(program, loaded, step, arrays)
                    observer.before(step, arrays)
                    began = time.perf_counter_ns()
                    action()
                    observer.after(step, arrays, time.perf_counter_ns() - began)

    go(program.steps)


def _action(program: Program, loaded: Loaded, step: Step, arrays: Arrays) -> Callable[[], Any]:
    """What runs one step, with all that can be prepared done."""
    match step:
        case Launch():
            if step.kernel not in loaded.symbols:
                raise DeviceError(f"The kernel {step.kernel!r} of {program.name!r} is not in its sources.")
            buffers = (ctypes.c_void_p * max(1, len(step.buffers)))(*map(arrays.address, step.buffers))
            values = (ctypes.c_int64 * max(1, len(step.sizes)))(*(evaluate(d, arrays.sizes) for d in step.sizes))
            extent, work = evaluate(step.extent, arrays.sizes), evaluate(step.work, arrays.sizes)
            return _launch(loaded.symbols[step.kernel], buffers, values, extent, work)
        case Copy():
            target, source = arrays.address(step.target), arrays.address(step.source)
            count = arrays[step.source].nbytes
            return lambda: ctypes.memmove(target, source, count)
        case Clear():
            place, size = arrays.address(step.target), arrays[step.target].nbytes
            return lambda: ctypes.memset(place, 0, size)
        case Library():
            inputs, outputs = [arrays[i] for i in step.inputs], [arrays[i] for i in step.outputs]
            return lambda: library.call(step.name, inputs, outputs)
    raise AssertionError(step)


def _launch(kernel: int, buffers: Any, values: Any, extent: int, work: int) -> Callable[[], Any]:
    """A launch as the entry does it: shared among threads if that pays."""
    parallel = cpu.parallel()
    if parallel:
        share = _PARALLEL(parallel)
        return lambda: share(kernel, buffers, values, extent, work)
    alone = _KERNEL(kernel)
    return lambda: alone(buffers, values, 0, extent)


@cache
def empty_launch() -> int:
    """Nanoseconds that a stepwise run takes to launch a kernel that does nothing."""
    kernel = image.process_symbol("abs")
    if kernel is None:
        return 0
    values = (ctypes.c_int64 * 1)()
    action = _launch(kernel, values, values, 1, 1)
    best = 1 << 30
    for _ in range(100):
        began = time.perf_counter_ns()
        action()
        best = min(best, time.perf_counter_ns() - began)
    return best
