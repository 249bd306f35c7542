"""Loops of a program as single launches: a kernel whose blocks all run at once goes through the rounds by itself.

    persistent(steps, slots, kernels, uses, render, barrier)    the steps of a program, its loops launches

What the host did between launches, blocks do among themselves. Each kernel of a round is run by all blocks, which share
its iterations; where one reads what another wrote, the threads of all blocks meet first. Views of rows are addresses
that are worked out in each round, and the loop's counter, its early end and the conditions in it are looked at on the
device. So a loop costs one launch, and nothing in it waits for the host.

A recurrence over a batch needs less: where no row asks for another's, a block goes through all rounds with rows of its
own (`cuda_shares`), and only its threads wait for each other.

A loop stays one of the host if a round calls a library or has a kernel that keeps the device busy by itself: what a
launch costs is little there, and a kernel alone gets more registers than it would among others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from gnomon.compiler import dtypes
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
    expressions,
    statements,
)
from gnomon.compiler.lowering import cuda_shares
from gnomon.compiler.lowering.cuda_parts import call, named_index
from gnomon.compiler.lowering.cuda_together import (
    MOST_ARGUMENTS,
    Part,
    Renamer,
    Render,
    is_long,
    owners,
    part_of,
    uses,
)
from gnomon.compiler.lowering.shares import Use, held
from gnomon.compiler.program import (
    Branch,
    Clear,
    Copy,
    Launch,
    Library,
    Prepare,
    Repeat,
    Slot,
    Step,
    all_steps,
    memory_of,
    own,
)
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, maximum, modulo, product, symbol

MOST_BODIES = 64
"""Kernels in one loop: what they are compiled to is read again in each round."""
MOST_HELD = 384 << 10
"""Bytes of weights that each block reads in each round; of more, it is better if all blocks share the work."""
NEAR = 32 << 10
"""Bytes of shared memory for what a round hands on."""
WITHOUT_END = 1 << 62
"""Rounds of a loop that only its own condition ends."""


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


class _HostsOwn(Exception):
    """A loop that the host has to run."""


class _Loops:
    def __init__(self, steps, slots, kernels, uses, render, barrier, room):
        self.all, self.slots, self.kernels, self.render, self.barrier = steps, slots, kernels, render, barrier
        self.uses: Mapping[Launch, Use | None] = uses
        self.room: int = room
        self.became: dict[Launch, Launch] = {}
        self.used = Counter(s for step in all_steps(steps) for s in own(step))
        self.readers = [_rows(slots, k) for k in range(len(slots))]
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
                    except _HostsOwn:
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
            raise _HostsOwn
        inside = Counter(s for x in all_steps([step, *after]) for s in own(x))
        inner = {k for k in inside if self.used[k] == inside[k]}
        apart = _apart(step, after, self.slots, self.uses, inner, self.room)
        if apart is not None:
            try:
                return self._made(_Rows(self.slots, self.kernels, -1, apart), step, after)
            except _HostsOwn:
                pass
        return self._made(_Body(self.slots, self.kernels, self.barrier()), step, after)

    def _made(self, made: _Body, step: Repeat, after: Sequence[Copy]) -> Launch:
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
            raise _HostsOwn
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

    def _leave(self, slot: int, step: Repeat, made: _Body, inside: Counter[int]) -> None:
        """Let a slot that is used after the loop too be what the loop made of it."""
        counters = {s for x in all_steps([step]) if isinstance(x, Repeat) for s in (x.counter, x.round)}
        if slot in counters:
            made.keep_counter(slot)
        elif not self.readers[slot] & counters:
            return
        elif (row := self.slots[slot].row) is not None and row.counter in counters:
            made.keep_view(slot)
        elif slot in inside:
            raise _HostsOwn
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


def _rows(slots: Sequence[Slot], slot: int) -> frozenset[int]:
    """The counters that a slot is, or that tell where it is."""
    s = slots[slot]
    found = {slot}
    if s.alias >= 0:
        found |= _rows(slots, s.alias)
    if s.row is not None:
        found.add(s.row.counter)
        if s.row.edge >= 0:
            found |= _rows(slots, s.row.edge)
    return frozenset(found)


# ---- one kernel


@dataclass
class _Body:
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
        if not _rows(self.slots, slot) & self.counters:
            return self._argument(slot, s.dtype, shape)  # the host knows the row
        key = slot, shape
        if key not in self.views:
            if s.row.counter not in self.known:
                raise _HostsOwn
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
                raise _HostsOwn

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
            raise _HostsOwn
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
        self.views = {key: b for key, b in self.views.items() if not _rows(self.slots, key[0]) & changed}

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


# ---- a block with rows of its own


@dataclass(frozen=True)
class _Apart:
    """A loop whose rows are apart.

    extent   how many rows there are
    uses     the row programs
    threads  of a block
    near     slots of which a block has its rows in shared memory
    steps    of products whose weights it has there
    """

    extent: Dim
    uses: Mapping[Launch, Use]
    threads: int
    near: tuple[int, ...]
    steps: Mapping[Launch, int]


def _apart(
    step: Repeat,
    after: Sequence[Copy],
    slots: Sequence[Slot],
    uses: Mapping[Launch, Use | None],
    inner: set[int],
    room: int,
) -> _Apart | None:
    """None if blocks cannot go through a loop with rows of their own. `inner` are slots that nothing else uses, `room`
    the bytes of shared memory that a block may have."""
    launches = [s for s in step.steps if isinstance(s, Launch)]
    inside = [s for s in step.steps if isinstance(s, Copy)]
    if step.count is None or step.until >= 0 or step.limit >= 0 or len(launches) + len(inside) < len(step.steps):
        return None
    if not all(s in uses for s in launches):
        return None
    copies = [*inside, *after]
    known = {s: use for s in launches if (use := uses[s]) is not None}
    if not known or not all(use.rows.outer for use in known.values()):
        return None
    extent = next(iter(known.values())).rows.outer[0].extent
    memory = []
    for k, slot in enumerate(slots):
        while slot.alias >= 0:
            k, slot = slot.alias, slots[slot.alias]
        memory.append(k)
    written = {memory[u.slots[b.name]] for u in known.values() for b in u.rows.writes}
    written |= {memory[c.target] for c in copies}
    if not all(u.apart(written, memory, extent) for u in known.values()):
        return None
    if not all(slots[s].shape[:1] == (extent,) for c in copies for s in (c.source, c.target)):
        return None
    programs = [u.rows for u in known.values()]
    threads = cuda_shares.threads_for(programs)
    read = {s for u in known.values() for b in u.rows.reads if memory[s := u.slots[b.name]] not in written}
    if held(slots[s] for s in read) > MOST_HELD or not all(cuda_shares.suits(rows, threads) for rows in programs):
        return None
    aliased = {s.alias for s in slots}
    near, left = [], NEAR
    for s in sorted(inner & written - aliased - set(step.kept) - {c.target for c in after}):
        slot = slots[s]
        size = product((cuda_shares.ROWS, *slot.shape[1:])) * dtypes.named(slot.dtype).bytes
        if slot.kind == "temporary" and slot.shape[:1] == (extent,) and isinstance(size, int) and size <= left:
            near.append(s)
            left -= size
    share = cuda_shares.Share(0, extent, 0, threads)
    room -= NEAR - left + len(near) * cuda_shares.ALIGNED
    room -= sum(cuda_shares.bytes_of(share.statements(rows, 0)) for rows in programs)
    steps = {}
    for launch, use in known.items():
        p = cuda_shares.product_of(use.rows)
        weights = {use.slots[e.buffer.name] for e in expressions([p.right]) if isinstance(e, Load)} if p else set()
        if p is not None and all(memory[s] not in written and slots[s].alias < 0 for s in weights):
            steps[launch] = max(0, min(p.steps, room // p.bytes_of_step))
            room -= steps[launch] * p.bytes_of_step
    return _Apart(extent, known, threads, tuple(near), steps)


class _Rows(_Body):
    """A kernel whose blocks have rows of their own."""

    def __init__(self, slots: list[Slot], kernels: Mapping[str, Kernel], barrier: int, apart: _Apart):
        super().__init__(slots, kernels, barrier)
        self.apart = apart
        self.block = Index("block", ceildiv(apart.extent, cuda_shares.ROWS))
        self.thread = Index("thread", apart.threads)
        self.first = Size.of(self.block) * cuda_shares.ROWS
        self.share = cuda_shares.Share(self.first, apart.extent, Size.of(self.thread), apart.threads)
        shapes = {s: (cuda_shares.ROWS, *slots[s].shape[1:]) for s in apart.near}
        self.early: list[Stmt] = []  # what is done before the first round
        self.near = {s: Buffer(f"near{s}", slots[s].dtype, shape, "shared") for s, shape in shapes.items()}

    def kernel(self, launches: Sequence[Launch]) -> Kernel:
        found = super().kernel(launches)
        early = [*self.early, Barrier()] if self.early else []
        body = (*map(Alloc, self.near.values()), *early, *found.body)
        whole = For(self.block, (For(self.thread, body, "thread"),), "block")
        return replace(found, body=(whole,), label=f"{found.label} by rows")

    def _uses(self, step: Step) -> tuple[set[int], set[int]]:
        use = self.apart.uses.get(step) if isinstance(step, Launch) else None
        if use is None:
            return (set(), set()) if isinstance(step, Launch) else super()._uses(step)
        reads = {k for s in use.slots.values() for k in memory_of(self.slots, s)}
        return reads, {k for b in use.rows.writes for k in owners(self.slots, use.slots[b.name])}

    def _meet(self) -> None:
        if self.reads or self.writes:
            self.body.append(Barrier())
            self.reads, self.writes = set(), set()

    def copy(self, source: int, target: int) -> None:
        shape = self.slots[source].shape
        if shape != self.slots[target].shape or shape[:1] != (self.apart.extent,):
            raise _HostsOwn
        self._touch(*self._uses(Copy(source, target)))
        to, of = (Buffer(name, self.slots[s].dtype, shape) for name, s in (("to", target), ("of", source)))
        self._placed(self.share.copy(to, of), {to: target, of: source})

    def _launch(self, step: Launch) -> None:
        use = self.apart.uses.get(step)
        if use is None:  # done with the launch before
            return
        self._touch(*self._uses(step))
        given = {b: use.slots[b.name] for b in (*use.rows.writes, *use.rows.reads)}
        number, steps = self._number(), self.apart.steps.get(step, 0)
        product = cuda_shares.product_of(use.rows)
        if product is not None and steps:
            self.early += self._renamed(self.share.weights(product, number, steps), given)
        self._placed(self.share.statements(use.rows, number, steps), given)

    def _renamed(self, body: Sequence[Stmt], given: Mapping[Buffer, int]) -> Sequence[Stmt]:
        """Statements that read only what is an argument of the kernel."""
        used = {e.buffer for e in all_loads(body)}
        buffers = {b: self.buffer(s, b.shape) for b, s in given.items() if b in used}
        return Renamer(buffers).body(tuple(body))

    def _placed(self, body: Sequence[Stmt], given: Mapping[Buffer, int]) -> None:
        """Add statements whose buffers are slots."""
        near = {b: self.near[s] for b, s in given.items() if s in self.near}
        values = {b: self.value(s) for b, s in given.items() if s in self.known}
        buffers = {b: self.buffer(s, b.shape) for b, s in given.items() if b not in near and b not in values}
        beside = cuda_shares.Beside(near, lambda index: (index[0] - self.first, *index[1:]))
        self.body += Renamer(buffers, values).body(beside.body(tuple(body)))


def all_loads(body: Sequence[Stmt]) -> Iterator[Load]:
    """What the stores among statements read."""
    values = [s.value for s in statements(tuple(body)) if isinstance(s, Store)]
    yield from (e for e in expressions(values) if isinstance(e, Load))


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


def _sum(dims) -> Dim:
    total: Dim = 0
    for d in dims:
        total = total + d
    return total
