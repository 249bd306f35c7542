"""What a program on a GPU falls into: segments that can be captured as graphs, and steps where the host has a say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gnomon.compiler.program import Clear, Copy, Launch, Library, Program, Repeat, Step, all_steps, own
from gnomon.compiler.sizes import evaluate, symbols
from gnomon.runtime.binding import Shape
from gnomon.runtime.gpu import Routine

UNROLLED = 20_000
"""Launches that a loop may be written out to in a graph; one of more is launched by the host."""

AT_ONCE = 8
"""Rounds of a loop that are one graph where there are as many to do: the host starts it in about the time of one."""

WORTH = 32
"""Rounds to do from which on such a graph is captured."""

MANY = 2_000
"""Launches that such a graph may have; a round of more keeps the device busy until the host has started the next."""


@dataclass(frozen=True)
class Move:
    """A step that the runtime adds at the end of a round: a counter in the device's memory goes on."""

    counter: int
    by: int


@dataclass(eq=False)
class Segment:
    """Steps in which the host decides nothing, the loops among them, and their graph once there is one.

    several   a graph of AT_ONCE rounds of them, once there is one
    """

    steps: tuple[Any, ...]
    loops: tuple[Repeat, ...]
    runs: int = 0
    graph: Any = None
    several: Any = None

    def is_brief(self, sizes: dict[str, int]) -> bool:
        """Whether several rounds may be one graph."""
        return AT_ONCE * sum(_count(step, sizes) for step in self.steps) <= MANY


@dataclass(eq=False)
class Plan:
    """What the shapes of a call decide.

    sizes      value of each symbolic size
    shapes     of every slot
    launches   what is known of each launch, by its identity: grid, block, shared bytes, values of size arguments
    module     the kernels, once one was launched
    """

    sizes: dict[str, int]
    shapes: tuple[Shape, ...]
    launches: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    module: Any = None


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


class Division:
    """How a program's steps are divided.

    has_routine   whether the device has a library's routine of a name
    """

    def __init__(self, program: Program, has_routine: Callable[[str], bool]):
        self.program, self.has_routine = program, has_routine
        self._read = {s for step in all_steps(program.steps) for s in _operands(step)} | set(program.outputs)
        self._bodies: dict[int, tuple[Any, ...]] = {}

    def deciding_sizes(self) -> list[str]:
        """The sizes that decide addresses and launches: all but those that only say how often the steps run."""
        program = self.program
        used = {s for slot in program.slots for d in slot.shape for s in symbols(d)}
        replayed = [s for s in program.steps if isinstance(s, Repeat)]
        loops = {id(s) for s in replayed if not self.rows_of(s.steps) & {s.counter, s.round}}
        for step in all_steps(program.steps):
            if isinstance(step, Launch):
                dims = [*step.sizes, *step.grid, step.shared]
            elif isinstance(step, Library):
                dims = [value for _, value in step.parameters if not isinstance(value, str)]
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

    def _counters_of(self, slot: int) -> Iterator[int]:
        """The counters that tell where a slot is."""
        s = self.program.slots[slot]
        if s.alias >= 0:
            yield from self._counters_of(s.alias)
        if s.row is not None:
            yield s.row.counter
            if s.row.edge >= 0:
                yield from self._counters_of(s.row.edge)

    def rows_of(self, steps: Sequence[Any]) -> set[int]:
        """The counters that tell where the operands of steps are."""
        slots = {slot for step in all_steps(steps) for slot in _operands(step)}
        return {counter for slot in slots for counter in self._counters_of(slot)}

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

    def divided(self, steps: tuple[Any, ...], sizes: dict[str, int]) -> list[Any]:
        """Steps as segments and, in between, those in which the host has a say."""
        parts: list[Any] = []
        segment: list[Any] = []
        inside: set[int] = set()  # counters that the segment itself counts

        def close() -> None:
            if segment:
                loops = tuple(s for s in all_steps(segment) if isinstance(s, Repeat))
                parts.append(Segment(tuple(segment), loops))
            segment.clear()
            inside.clear()

        for step in steps:
            counted = {c for s in all_steps([step]) if isinstance(s, Repeat) for c in (s.counter, s.round)}
            if self._is_plain(step, sizes) and self.rows_of([step]) <= inside | counted:
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
                return self.has_routine(step.name)
            case Repeat():
                if step.count is None or step.until >= 0 or step.limit >= 0:
                    return False
                if not self.rows_of(step.steps) & {step.counter, step.round}:
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


__all__ = ["AT_ONCE", "WORTH", "Division", "Frame", "Move", "Plan", "Segment"]
