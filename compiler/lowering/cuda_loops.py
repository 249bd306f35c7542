"""Loops of a program as single launches: a kernel whose blocks all run at once goes through the rounds by itself.

    persistent(steps, slots, kernels, uses, render, barrier)    the steps of a program, its loops launches

What the host did between launches, blocks do among themselves. Each kernel of a round is run by all blocks, which share
its iterations; where one reads what another wrote, the threads of all blocks meet first. Views of rows are addresses
that are worked out in each round, and the loop's counter, its early end and the conditions in it are looked at on the
device. So a loop costs one launch, and nothing in it waits for the host.

A recurrence over a batch needs less: where no row asks for another's, a block goes through all rounds with rows of its
own (`cuda_apart`), and only its threads wait for each other.

A loop stays one of the host if a round calls a library or has a kernel that keeps the device busy by itself: what a
launch costs is little there, and a kernel alone gets more registers than it would among others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gnomon.compiler.kernel import Kernel
from gnomon.compiler.lowering.cuda_apart import RowsOwned, apart_in
from gnomon.compiler.lowering.cuda_rounds import Body, HostsOwn, counters_of
from gnomon.compiler.lowering.cuda_together import MOST_ARGUMENTS, Render, is_long
from gnomon.compiler.lowering.shares import Use
from gnomon.compiler.program import Branch, Copy, Launch, Library, Prepare, Repeat, Slot, Step, all_steps, own
from gnomon.compiler.sizes import Dim, symbol

MOST_BODIES = 64
"""Kernels in one loop: what they are compiled to is read again in each round."""


def persistent(
    steps: Sequence[Step],
    slots: list[Slot],
    kernels: Mapping[str, Kernel],
    uses: Mapping[Launch, Use | None],
    render: Render,
    barrier: Callable[[], int],
    room: int = 48 << 10,
) -> tuple[list[Step], dict[Launch, Launch]]:
    """The steps with launches for loops, and what became of the launches that are no more.

    slots     those of the program; what a loop leaves in a row that only the device knows gets a place of its own
    uses      the row programs of launches in loops, as far as they are known; of several launches that are one row
              program the first has it, and the others None
    barrier   gives the kept slot (uint32[2]) in which blocks count who has come
    room      bytes of shared memory that a block may have
    """
    return _Loops(steps, slots, kernels, uses, render, barrier, room).run()


class _Loops:
    def __init__(self, steps, slots, kernels, uses, render, barrier, room):
        self.all, self.slots, self.kernels, self.render, self.barrier = steps, slots, kernels, render, barrier
        self.uses: Mapping[Launch, Use | None] = uses
        self.room: int = room
        self.became: dict[Launch, Launch] = {}
        self.used = Counter(s for step in all_steps(steps) for s in own(step))
        self.readers = [counters_of(slots, k) for k in range(len(slots))]
        self.fixed: dict[int, int] = {}  # views that are read after their loop, and where what they were is kept

    def run(self) -> tuple[list[Step], dict[Launch, Launch]]:
        steps = self._steps(self.all)
        return self._replaced(steps) if self.fixed else steps, self.became

    def _steps(self, steps: Sequence[Step]) -> list[Step]:
        found: list[Step] = []
        waiting = list(reversed(steps))
        while waiting:
            step = waiting.pop()
            match step:
                case Repeat():
                    after: list[Copy] = []  # of what the loop leaves behind
                    counters = {step.counter, step.round}
                    while waiting and isinstance(c := waiting[-1], Copy) and self.readers[c.source] & counters:
                        after.append(c)
                        waiting.pop()
                    try:
                        found.append(self._launch(step, after))
                    except HostsOwn:
                        found += [replace(step, steps=tuple(self._steps(step.steps))), *after]
                case Prepare():
                    found.append(replace(step, steps=tuple(self._steps(step.steps))))
                case Branch():
                    sides = [tuple(self._steps(side)) for side in (step.then, step.orelse)]
                    found.append(replace(step, then=sides[0], orelse=sides[1]))
                case _:
                    found.append(step)
        return found

    def _launch(self, step: Repeat, after: Sequence[Copy]) -> Launch:
        launches = [s for s in all_steps([step]) if isinstance(s, Launch)]
        if len(launches) > MOST_BODIES or any(is_long(s) or s.cooperative for s in launches):
            raise HostsOwn
        inside = Counter(s for x in all_steps([step, *after]) for s in own(x))
        inner = {k for k in inside if self.used[k] == inside[k]}
        apart = apart_in(step, after, self.slots, self.uses, inner, self.room)
        if apart is not None:
            try:
                return self._made(RowsOwned(self.slots, self.kernels, -1, apart), step, after)
            except HostsOwn:
                pass
        return self._made(Body(self.slots, self.kernels, self.barrier()), step, after)

    def _made(self, made: Body, step: Repeat, after: Sequence[Copy]) -> Launch:
        launches = [s for s in all_steps([step]) if isinstance(s, Launch)]
        made.memory([step, *after])
        inside = Counter(s for x in all_steps([step, *after]) for s in own(x))
        made.repeat(step)
        for copy in after:
            made.step(copy)
        for k in [k for k in inside if self.used[k] > inside[k]] + [k for k in self.used if k not in inside]:
            self._leave(k, step, made, inside)
        kernel = made.kernel(launches)
        if len(kernel.buffers) + len(kernel.sizes) > MOST_ARGUMENTS:
            raise HostsOwn
        name, geometry = self.render(kernel)
        rounds = step.count if step.count is not None else 1
        launch = Launch(
            name,
            tuple(made.slot_of[b] for b in kernel.buffers),
            tuple(symbol(s) for s in kernel.sizes),
            1,
            _sum(s.work for s in launches) * rounds,
            _sum(s.flops for s in launches) * rounds,
            _sum(s.bytes for s in launches) * rounds,
            kernel.label,
            tuple(dict.fromkeys(layer for s in launches for layer in s.layers))[:8],
            *geometry,
        )
        launch = replace(launch, cooperative=made.meet_in is not None)
        self.fixed |= made.fixed
        self.became.update(dict.fromkeys(launches, launch))
        return launch

    def _leave(self, slot: int, step: Repeat, made: Body, inside: Counter[int]) -> None:
        """Let a slot that is used after the loop too be what the loop made of it."""
        counters = {s for x in all_steps([step]) if isinstance(x, Repeat) for s in (x.counter, x.round)}
        if slot in counters:
            made.keep_counter(slot)
        elif not self.readers[slot] & counters:
            return
        elif (row := self.slots[slot].row) is not None and row.counter in counters:
            made.keep_view(slot)
        elif slot in inside:
            raise HostsOwn
        else:  # a view of another loop, which begins or ends with what this one leaves
            for part in (self.slots[slot].alias, -1 if row is None else row.edge):
                if part >= 0:
                    self._leave(part, step, made, inside)

    # ---- views that became arrays

    def _replaced(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with the arrays in the place of the views."""
        for k, s in enumerate(self.slots):
            alias = self.fixed.get(s.alias, s.alias)
            row = s.row and replace(s.row, edge=self.fixed.get(s.row.edge, s.row.edge))
            if k not in self.fixed and (alias, row) != (s.alias, s.row):
                self.slots[k] = replace(s, alias=alias, row=row)
        return [self._replaced_in(s) for s in steps]

    def _replaced_in(self, step: Step) -> Step:
        def change(slots: Sequence[int]) -> tuple[int, ...]:
            return tuple(self.fixed.get(s, s) for s in slots)

        match step:
            case Launch():
                new = replace(step, buffers=change(step.buffers))
                if new != step:
                    self.became = {k: new if v == step else v for k, v in self.became.items()}
                    self.became[step] = new
                return new
            case Copy():
                return Copy(*change((step.source, step.target)))
            case Branch():
                then, orelse = (tuple(map(self._replaced_in, side)) for side in (step.then, step.orelse))
                return Branch(change([step.condition])[0], then, orelse)
            case Repeat():
                until, limit = change((step.until, step.limit))
                return replace(step, steps=tuple(map(self._replaced_in, step.steps)), until=until, limit=limit)
            case Prepare():
                return replace(step, steps=tuple(map(self._replaced_in, step.steps)))
            case Library():
                return replace(step, inputs=change(step.inputs), outputs=change(step.outputs))
        return step


def _sum(dims) -> Dim:
    total: Dim = 0
    for d in dims:
        total = total + d
    return total
