"""A loop as one kernel: what it is made of while it is put together, step by step.

    Body        the kernel; `repeat` and `step` file what the steps of a program are, `kernel` gives the whole
    HostsOwn    raised where a step can only be the host's

Each kernel of a round is run by all blocks, which share its iterations; where one reads what another wrote, the threads
of all blocks meet first. Views of rows are addresses that are worked out in each round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from gnomon.compiler.kernel import (
    Alloc,
    Barrier,
    Buffer,
    Const,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Let,
    Load,
    Local,
    Rounds,
    Stmt,
    Store,
    Value,
    View,
    statements,
)
from gnomon.compiler.lowering.cuda_parts import call, named_index
from gnomon.compiler.lowering.cuda_together import Part, Renamer, owners, part_of, uses
from gnomon.compiler.program import Branch, Clear, Copy, Launch, Prepare, Repeat, Slot, Step, all_steps, memory_of
from gnomon.compiler.sizes import Dim, Index, Size, maximum, modulo, product, symbol

WITHOUT_END = 1 << 62
"""Rounds of a loop that only its own condition ends."""


class HostsOwn(Exception):
    """A loop that the host has to run."""


def counters_of(slots: Sequence[Slot], slot: int) -> frozenset[int]:
    """The counters that a slot is, or that tell where it is."""
    s = slots[slot]
    found = {slot}
    if s.alias >= 0:
        found |= counters_of(slots, s.alias)
    if s.row is not None:
        found.add(s.row.counter)
        if s.row.edge >= 0:
            found |= counters_of(slots, s.row.edge)
    return frozenset(found)


@dataclass
class Body:
    """A kernel while it is put together: `add` files statements into the block at hand.

    known     the values of counters, in indices of the loops around
    views     buffers that stand for views here
    reads, writes   memory touched since the threads of all blocks last met
    """

    slots: list[Slot]
    kernels: Mapping[str, Kernel]
    barrier: int
    body: list[Stmt] = field(default_factory=list)
    known: dict[int, Dim] = field(default_factory=dict)
    views: dict[tuple, Buffer] = field(default_factory=dict)
    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    arguments: dict[tuple, Buffer] = field(default_factory=dict)
    slot_of: dict[Buffer, int] = field(default_factory=dict)
    counters: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    fixed: dict[int, int] = field(default_factory=dict)
    named: int = 0
    meet_in: Buffer | None = None

    def memory(self, steps: Sequence[Step]) -> None:
        """Find out what is counted and what is written in `steps`."""
        for step in all_steps(steps):
            if isinstance(step, Repeat):
                self.counters |= {step.counter, step.round} - {-1}
            elif not isinstance(step, (Branch, Prepare)):
                self.written |= self._uses(step)[1]
        if self.barrier >= 0:
            self.meet_in = self._argument(self.barrier, "uint32", (2,))

    def kernel(self, launches: Sequence[Launch]) -> Kernel:
        writes = [b for b, s in self.slot_of.items() if owners(self.slots, s) & self.written or b is self.meet_in]
        reads = [b for b in self.slot_of if b not in writes]
        label = "loop of " + ", ".join(dict.fromkeys(s.label for s in launches))
        return Kernel(tuple(reads), tuple(writes), tuple(self.body), label=label)

    # ---- buffers

    def _argument(self, slot: int, dtype: str, shape: tuple[Dim, ...]) -> Buffer:
        key = slot, dtype, shape
        if key not in self.arguments:
            self.arguments[key] = b = Buffer(f"m{len(self.arguments)}", dtype, shape)
            self.slot_of[b] = slot
        return self.arguments[key]

    def buffer(self, slot: int, shape: tuple[Dim, ...] | None = None) -> Buffer:
        """What a slot is here: an argument, or a row of one."""
        s = self.slots[slot]
        shape = s.shape if shape is None else shape
        if s.row is None:
            return self._argument(slot, s.dtype, shape) if s.alias < 0 else self.buffer(s.alias, shape)
        if not counters_of(self.slots, slot) & self.counters:
            return self._argument(slot, s.dtype, shape)  # the host knows the row
        key = slot, shape
        if key not in self.views:
            if s.row.counter not in self.known:
                raise HostsOwn
            row = s.row
            whole = self.buffer(s.alias)
            number = self.known[row.counter] + row.shift
            edge, inside = None, None
            if row.edge >= 0:
                edge = self.buffer(row.edge, shape)
                inside = call("greater_equal", IndexValue("int64", number), Const("int64", 0))
                if row.rows is not None:
                    below = call("less", IndexValue("int64", number), IndexValue("int64", row.rows))
                    inside = call("logical_and", inside, below)
            number = modulo(number, row.ring) if row.ring else number
            self.views[key] = view = Buffer(f"row{self._number()}", s.dtype, shape)
            self.body.append(View(view, whole, number, inside, edge))
        return self.views[key]

    def value(self, slot: int) -> Expr:
        """What a scalar slot holds."""
        if slot in self.known:
            return IndexValue("int64", self.known[slot])
        return Load(self.buffer(slot, ()), ())

    def _number(self) -> int:
        self.named += 1
        return self.named

    @contextmanager
    def _inside(self, body: list[Stmt]) -> Iterator[None]:
        """What is added goes into `body`; the views made there are not seen outside."""
        outer, views = self.body, dict(self.views)
        self.body = body
        yield
        self.body, self.views = outer, views

    # ---- who waits for whom

    def _touch(self, reads: set[int], writes: set[int]) -> None:
        """All blocks meet if what comes next depends on what was done since they last did."""
        if reads & self.writes or writes & (self.reads | self.writes):
            self._meet()
        self.reads |= reads
        self.writes |= writes

    def _uses(self, step: Step) -> tuple[set[int], set[int]]:
        return uses(step, self.slots, self.kernels)

    def _memory(self, slot: int) -> set[int]:
        return set(memory_of(self.slots, slot))

    def _meet(self) -> None:
        if self.reads or self.writes:
            self.body.append(Barrier(everywhere=self.meet_in))
            self.reads, self.writes = set(), set()

    # ---- steps

    def step(self, step: Step) -> None:
        match step:
            case Launch():
                self._launch(step)
            case Copy():
                self.copy(step.source, step.target)
            case Clear():
                self._touch(*self._uses(step))
                n = product(self.slots[step.target].shape)
                target = self.buffer(step.target, (n,))
                i, at = named_index(f"clear{self._number()}", n)
                self.body.append(For(i, (Store(target, (at,), Const(target.dtype, 0)),), "parallel"))
            case Repeat():
                self.repeat(step)
            case Branch():
                self._branch(step)
            case _:
                raise HostsOwn

    def copy(self, source: int, target: int) -> None:
        self._touch(*self._uses(Copy(source, target)))
        if source in self.known:
            self.body.append(Store(self.buffer(target, ()), (), self.value(source)))
            return
        n = product(self.slots[target].shape)
        to, of = self.buffer(target, (n,)), self.buffer(source, (n,))
        i, at = named_index(f"copy{self._number()}", n)
        self.body.append(For(i, (Store(to, (at,), Load(of, (at,))),), "parallel"))

    def _launch(self, step: Launch) -> None:
        kernel = self.kernels[step.kernel]
        part = part_of(kernel, step.block)
        if part is None or step.sizes != tuple(symbol(s) for s in kernel.sizes):
            raise HostsOwn
        self._touch(*self._uses(step))
        buffers, values = {}, {}
        for b, slot in zip(part.kernel.buffers, step.buffers, strict=True):
            if slot in self.known:
                values[b] = self.value(slot)
            else:
                buffers[b] = self.buffer(slot, b.shape)
        self.body += _shared_out(part, buffers, values, self._number())

    def _branch(self, step: Branch) -> None:
        self._touch(self._memory(step.condition), set())
        local = Local(f"condition{self._number()}", "bool")
        self.body.append(Let(local, self.value(step.condition)))
        before = set(self.reads), set(self.writes)
        sides: list[list[Stmt]] = [[], []]
        after: tuple[set[int], set[int]] = set(), set()
        for body, steps in zip(sides, (step.then, step.orelse), strict=True):
            self.reads, self.writes = map(set, before)
            with self._inside(body):
                for s in steps:
                    self.step(s)
            after[0].update(self.reads)
            after[1].update(self.writes)
        self.reads, self.writes = after
        self.body.append(If(local, tuple(sides[0]), tuple(sides[1])))

    def repeat(self, step: Repeat) -> None:
        number = self._number()
        most = None if step.count is None else maximum(step.count, 0)
        if step.limit >= 0:
            self._touch(self._memory(step.limit), set())
            local = Local(f"most{number}", "int64")
            limit = call("maximum", self.value(step.limit), Const("int64", 0))
            if most is not None:
                limit = call("minimum", limit, IndexValue("int64", most))
            self.body.append(Let(local, limit))
            most = Size.of(Value(local))
        index = Index(f"round{number}", WITHOUT_END if most is None else most)
        i = Size.of(index)
        self._count(step, _counter(step, most, i), i)
        body: list[Stmt] = []
        end = self._memory(step.until) if step.until >= 0 else set()
        self.reads |= end  # a block may still look at it when another is in the next round
        with self._inside(body):
            for s in step.steps:
                self.step(s)
            self._meet()
            until = self.value(step.until) if step.until >= 0 else None
            self.reads |= end
        done = Local(f"rounds{number}", "int64")
        self.body.append(Rounds(index, tuple(body), done, until))
        rounds = most if step.until < 0 and most is not None else Size.of(Value(done))
        self._count(step, _counter(step, most, rounds), rounds)

    def _count(self, step: Repeat, counter: Dim, rounds: Dim) -> None:
        """Know what the counters of a loop are from here on."""
        self.known[step.counter] = counter
        if step.round >= 0:
            self.known[step.round] = rounds
        changed = {step.counter, step.round}
        self.views = {key: b for key, b in self.views.items() if not counters_of(self.slots, key[0]) & changed}

    # ---- what is left behind

    def keep_counter(self, slot: int) -> None:
        """Store a counter in its slot."""
        if slot in self.known:
            self.written.add(slot)
            self.body.append(Store(self.buffer(slot, ()), (), self.value(slot)))

    def keep_view(self, slot: int) -> None:
        """Copy the row that a view is to a place of its own."""
        if slot not in self.fixed:
            s = self.slots[slot]
            self.slots.append(Slot(s.name, s.dtype, s.shape, "temporary"))
            self.fixed[slot] = target = len(self.slots) - 1
            self.written.add(target)
            self.copy(slot, target)


def _counter(step: Repeat, most: Dim | None, done: Dim) -> Dim:
    """What the counter of a loop of `most` rounds is when `done` are done."""
    if not step.reverse:
        return done
    return (0 if most is None else most - 1) - done


def _shared_out(p: Part, buffers: Mapping[Buffer, Buffer], values: Mapping[Buffer, Expr], number: int) -> list[Stmt]:
    """A kernel's work, shared by however many blocks there are."""
    shared = {s.buffer: Buffer(f"{s.buffer.name}_{number}", s.buffer.dtype, s.buffer.shape, "shared")
              for s in statements(p.kernel.body) if isinstance(s, Alloc) and s.buffer.space == "shared"}  # fmt: skip
    body = Renamer({**buffers, **shared}, values).body(p.kernel.body)
    if p.form == "parallel":
        return list(body)
    if p.form == "single":
        loop = For(Index(f"one{number}", 1), body, "block")
    else:
        (first,) = body
        assert isinstance(first, For)
        loop = first
    if shared:  # what one iteration has there, the next may overwrite
        loop = replace(loop, body=(*loop.body, Barrier()))
    return [loop]
