"""How the steps of a program run on a GPU: one call under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.program import Branch, Changed, Clear, Copy, Launch, Library, Prepare, Repeat
from gnomon.compiler.sizes import evaluate
from gnomon.runtime import library
from gnomon.runtime.buffer import CLOCK, changed
from gnomon.runtime.gpu import Operand, Span
from gnomon.runtime.gpu_parts import AT_ONCE, WORTH, Frame, Move, Segment

if TYPE_CHECKING:
    from gnomon.runtime.gpu_run import GpuExecutable


class Run:
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
        for part in self._parts(steps):
            if isinstance(part, Segment):
                self._segment(part)
            else:
                self._step(part, self.go)

    def _parts(self, steps: tuple[Any, ...]) -> list[Any]:
        parts = self.frame.parts.get(id(steps))
        if parts is None:
            parts = self.frame.parts[id(steps)] = self.executable.division.divided(steps, self.sizes)
        return parts

    def _segment(self, segment: Segment) -> None:
        if segment.graph is not None:
            self.driver.replay(segment.graph)
            self._count_through(segment)
            return
        segment.runs += 1
        if segment.runs == 1 or not self.gpu.captures:
            self._flat(segment.steps)
            return
        segment.graph = self._captured(segment.steps)
        self.driver.replay(segment.graph)

    def _captured(self, steps: tuple[Any, ...]) -> Any:
        self.driver.begin_capture()
        try:
            self._flat(steps)
        finally:
            graph = self.driver.end_capture()
        self.executable.graphs += 1
        return graph

    def _flat(self, steps: tuple[Any, ...]) -> None:
        for step in steps:
            self._step(step, self._flat)

    def _count_through(self, segment: Segment) -> None:
        """Know what loops inside a graph have counted to, as if they had been run."""
        for step in segment.loops:
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
                if now < 0 or now != self.executable.seen.get(step.seen):
                    go(step.steps)
                    self.executable.seen[step.seen] = now
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
                    plan = self.frame.plan
                    if plan.module is None:
                        plan.module = self.executable.module_for(self.sizes)
                    self.driver.launch(plan.module, step.kernel, grid, block, shared, arguments, cooperative)
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
        body = self.executable.division.body(step)
        self._begin(step.counter, most - 1 if step.reverse and most is not None else 0)
        if step.round >= 0:
            self._begin(step.round, 0)
        done, ended = 0, False
        while not ended and (most is None or done < most):
            rounds = 0
            if most is not None and step.until < 0 and go == self.go:
                rounds = self._replayed(body, most - done)
            if not rounds:
                go(body)
                rounds = 1
            done += rounds
            self.known[step.counter] += -rounds if step.reverse else rounds
            if step.round >= 0:
                self.known[step.round] += rounds
            ended = step.until >= 0 and bool(self.read(step.until))

    def _replayed(self, body: tuple[Any, ...], rounds: int) -> int:
        """Run so many rounds at once, if a round is one graph. Returns how many were run."""
        parts = self.frame.parts.get(id(body), ())
        if len(parts) != 1 or not isinstance(parts[0], Segment) or parts[0].graph is None:
            return 0
        segment, several = parts[0], rounds // AT_ONCE
        if segment.several is None and rounds >= WORTH and segment.is_brief(self.sizes):
            segment.several = self._captured(segment.steps * AT_ONCE)
        if segment.several is None:
            several = 0
        if several:
            self.driver.replay(segment.several, several)
        self.driver.replay(segment.graph, rounds - several * AT_ONCE)
        self._count_through(segment)
        return rounds

    def _begin(self, counter: int, value: int) -> None:
        self.known[counter] = value
        if self.executable.division.is_read(counter):
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
        if routine is None or self.executable.division.rows_of([step]):
            read, written = (
                [Operand(self.address(s), self.shapes[s], self.slots[s].dtype) for s in slots]
                for slots in (step.inputs, step.written)
            )
            routine = self.frame.routines[id(step)] = make(step, read, written, self.sizes)
        routine()


__all__ = ["Run"]
