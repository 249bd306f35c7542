"""Launches that do not wait for each other as one: ranges of blocks of one kernel do what several kernels did.

    together(steps, slots, kernels, render)     the steps of a program, with fewer launches

A launch costs a GPU some microseconds, as much as a small kernel takes, and a small kernel leaves most of the GPU idle.
Steps are put into bundles in the order they stand in: each goes into the first bundle after all that it depends on.
Gradients of weights, sums for biases and updates of small arrays run beside the products of a backward pass in this
way, and what an optimizer does to all its variables when their gradients are known becomes a launch or two.

Only what is brief moves: a long kernel gains nothing, and what runs earlier keeps memory longer. A long kernel is not
joined by one that needs more registers than it has, for all blocks of a launch get as many as the greediest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Barrier,
    Buffer,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Let,
    Load,
    Local,
    Rewriter,
    Stmt,
    Value,
    statements,
)
from gnomon.compiler.program import (
    Branch,
    Clear,
    Copy,
    Launch,
    Library,
    Prepare,
    Repeat,
    Row,
    Slot,
    Step,
    memory_of,
    touched,
)
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, evaluate, modulo, symbol, symbols

THREADS = 256
"""Threads of a block where no body of a bundle says how many."""
TYPICAL = 128
"""What a symbolic size is taken to be when the time of a launch is estimated."""
BRIEF_BYTES = 32 << 20
"""A launch that moves more takes longer than starting it, by far."""
BRIEF_FLOPS = 1 << 29
"""The same for arithmetic."""
MOST_BODIES = 16
"""Kernels in one launch: each is compiled again in every different company."""
MOST_ARGUMENTS = 400
"""Buffers and sizes of one launch, of 8 bytes each: 4 KiB of them may be handed over."""

Render = Callable[[Kernel], tuple[str, tuple]]
"""Files the text of a kernel and gives its name and (grid, block, shared bytes)."""


def together(
    steps: Sequence[Step],
    slots: Sequence[Slot],
    kernels: Mapping[str, Kernel],
    render: Render,
    fences: Mapping[int, Step] | None = None,
) -> tuple[list[Step], dict[Launch, Launch]]:
    """The steps with independent launches joined, and what became of the launches that are no more.

    fences   steps by identity: nothing that comes after one of them is put before it
    """
    became: dict[Launch, Launch] = {}
    return _Joiner(slots, kernels, render, became, fences or {}).steps(steps), became


# ---- what a kernel is made of


@dataclass(frozen=True)
class Part:
    """A kernel as one of several: `blocks` is how many blocks it needs, `threads` of how many threads, None if any
    number does; `weight` tells a loop over elements (0) from row programs (1) and tiles in registers (2)."""

    kernel: Kernel
    form: str  # 'parallel', 'block' or 'single'
    threads: int | None
    weight: int

    def blocks(self, threads: int) -> Dim:
        loop = self.kernel.body[0]
        if self.form == "single" or not isinstance(loop, For):
            return 1
        return loop.index.extent if self.form == "block" else ceildiv(loop.index.extent, threads)


def part_of(kernel: Kernel, block: Sequence[int]) -> Part | None:
    """A kernel as a part of another; None if it can only be launched alone. `block` is what it was launched with."""
    body = kernel.body
    loops = [s for s in statements(body) if isinstance(s, For)]
    spread = [s for s in loops if s.kind in ("block", "thread", "parallel")]
    if any(s.kind == "block" and (s.axis != "x" or s is not body[0]) or s.axis == "z" for s in spread):
        return None
    registers = any(isinstance(s, Alloc) and s.buffer.space == "register" for s in statements(body))
    shared = any(isinstance(s, Barrier) for s in statements(body))
    weight = 2 if registers and shared else 1 if shared or registers else 0
    first = body[0] if len(body) == 1 else None
    if isinstance(first, For) and first.kind == "parallel":
        return Part(kernel, "parallel", None, weight)
    if any(s.kind == "parallel" for s in spread):
        return None
    form = "block" if isinstance(first, For) and first.kind == "block" else "single"
    if form == "single" and any(s.kind == "block" for s in spread):
        return None
    if any(s.axis == "y" for s in spread):
        flat = _flattened(kernel, block)
        if flat is None:
            return None
        kernel = flat
    threads = block[0] * block[1] * block[2] if shared or any(s.kind == "thread" for s in spread) else None
    return Part(kernel, form, threads, weight)


def _flattened(kernel: Kernel, block: Sequence[int]) -> Kernel | None:
    """Threads in rows and columns as threads in one row; None unless all loops over them are loops over both."""
    wide, high = block[0], block[1]

    def body(inside: tuple[Stmt, ...]) -> tuple[Stmt, ...] | None:
        found: list[Stmt] = []
        for s in inside:
            if isinstance(s, For) and s.kind == "thread":
                inner = s.body[0] if len(s.body) == 1 else None
                if s.axis != "y" or s.index.extent != high or not isinstance(inner, For):
                    return None
                if inner.kind != "thread" or inner.axis != "x" or inner.index.extent != wide:
                    return None
                thread = Index("t", wide * high)
                t = Size.of(thread)
                change = {s.index: t // wide, inner.index: modulo(t, wide)}
                found.append(For(thread, Rewriter(index=_change(change)).body(inner.body), "thread"))
            elif isinstance(s, For):
                deeper = body(s.body)
                if deeper is None:
                    return None
                found.append(replace(s, body=deeper))
            elif isinstance(s, If):
                then, orelse = body(s.then), body(s.orelse)
                if then is None or orelse is None:
                    return None
                found.append(replace(s, then=then, orelse=orelse))
            else:
                found.append(s)
        return tuple(found)

    made = body(kernel.body)
    return None if made is None else replace(kernel, body=made)


def _change(found: Mapping[Index, Dim]) -> Callable[[Any], Dim | None]:
    return lambda a: found.get(a)


# ---- several kernels as one


class Renamer(Rewriter):
    """Puts other buffers in the place of some, wherever they stand, and values in the place of what is loaded from
    others."""

    def __init__(self, buffers: Mapping[Buffer, Buffer], values: Mapping[Buffer, Expr] | None = None):
        super().__init__(self._load)
        self.buffers, self.values = buffers, values or {}

    def _load(self, e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer in self.values:
            return self.values[e.buffer]
        if not isinstance(e, Load) or e.buffer not in self.buffers:
            return None
        mask = None if e.mask is None else self.expr(e.mask)
        return Load(self.buffers[e.buffer], tuple(self.size(i) for i in e.index), mask)

    def statement(self, s: Stmt) -> Stmt:
        new = super().statement(s)
        assert is_dataclass(new), new
        changed: dict[str, Any] = {f.name: self.buffers[v] for f in fields(new)
                                   if isinstance(v := getattr(new, f.name), Buffer) and v in self.buffers}  # fmt: skip
        return replace(new, **changed) if changed else new


def joined(parts_: Sequence[Part], arguments: Sequence[Mapping[Buffer, Buffer]]) -> Kernel:
    """One kernel of several: each gets blocks of its own, the first the first ones.

    arguments   for each part, the buffers of the whole that its own are
    """
    threads = next((p.threads for p in parts_ if p.threads), THREADS)
    starts: list[Dim] = [0]
    for p in parts_:
        starts.append(starts[-1] + p.blocks(threads))
    index = Index("place", starts[-1])
    place = Size.of(index)

    def choose(first: int, last: int) -> tuple[Stmt, ...]:
        """The bodies from `first` to before `last`, of which the block does one."""
        if last - first == 1:
            return _of_block(parts_[first], arguments[first], first, place - starts[first], threads)
        middle = (first + last + 1) // 2
        test = _less(place, starts[middle])
        return (If(test, choose(first, middle), choose(middle, last)),)

    body = For(index, choose(0, len(parts_)), "block")
    writes = dict.fromkeys(own[b] for p, own in zip(parts_, arguments, strict=True) for b in p.kernel.writes)
    reads = dict.fromkeys(own[b] for p, own in zip(parts_, arguments, strict=True) for b in p.kernel.reads)
    flops: Dim = 0
    for p in parts_:
        flops = flops + p.kernel.flops
    label = " & ".join(dict.fromkeys(p.kernel.label for p in parts_))
    return Kernel(tuple(reads), tuple(writes), (body,), flops, label)


def _of_block(p: Part, buffers: Mapping[Buffer, Buffer], number: int, block: Dim, threads: int) -> tuple[Stmt, ...]:
    """What block number `block` of a part does."""
    shared = {s.buffer: Buffer(f"{s.buffer.name}_{number}", s.buffer.dtype, s.buffer.shape, "shared")
              for s in statements(p.kernel.body) if isinstance(s, Alloc) and s.buffer.space == "shared"}  # fmt: skip
    body = Renamer({**buffers, **shared}).body(p.kernel.body)
    if p.form == "single":
        return body
    (loop,) = body
    assert isinstance(loop, For)
    extent = loop.index.extent
    at = Local("block", "int64")
    here = Size.of(Value(at, p.blocks(threads)))
    begin = Let(at, IndexValue("int64", block))
    if p.form == "block":
        return (begin, *Rewriter(index=_change({loop.index: here})).body(loop.body))
    t = Index("t", threads)
    position = here * threads + Size.of(t)
    inside = Rewriter(index=_change({loop.index: position})).body(loop.body)
    if modulo(extent, threads) != 0:
        inside = (If(_less(position, extent), inside),)
    return begin, For(t, inside, "thread")


def _less(a: Dim, b: Dim) -> Expr:
    from gnomon.compiler.ops.scalar import scalar

    return Apply(scalar("less"), (IndexValue("int64", a), IndexValue("int64", b)))


# ---- which launches


@dataclass
class _Bundle:
    """Steps that run at once: launches, or one step of another kind."""

    steps: list[Step]
    parts: list[Part] = field(default_factory=list)
    threads: int | None = None
    arguments: int = 0
    long: bool = False
    weight: int = 0  # of the long one


class _Joiner:
    def __init__(
        self,
        slots: Sequence[Slot],
        kernels: Mapping[str, Kernel],
        render: Render,
        became: dict[Launch, Launch],
        fences: Mapping[int, Step],
    ):
        self.slots, self.kernels, self.render, self.became, self.fences = slots, kernels, render, became, fences

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        bundles: list[_Bundle] = []
        written: dict[int, int] = {}  # memory, and the last bundle that writes it
        read: dict[int, int] = {}
        least = 0  # the first bundle after the last fence
        for original in steps:
            step = self._inside(original)
            reads, writes = uses(step, self.slots, self.kernels)
            first = 1 + max(
                (b for k in reads | writes for b in (written.get(k, -1), read.get(k, -1) if k in writes else -1)),
                default=least - 1,
            )
            first = max(first, least)
            number = self._put(step, bundles, first)
            for k in writes:
                written[k] = max(written.get(k, -1), number)
            for k in reads:
                read[k] = max(read.get(k, -1), number)
            if id(original) in self.fences:
                least = len(bundles)
        return [s for b in bundles for s in self._made(b)]

    def _inside(self, step: Step) -> Step:
        match step:
            case Repeat() | Prepare():
                return replace(step, steps=tuple(self.steps(step.steps)))
            case Branch():
                return replace(step, then=tuple(self.steps(step.then)), orelse=tuple(self.steps(step.orelse)))
        return step

    def _put(self, step: Step, bundles: list[_Bundle], first: int) -> int:
        """Add a step to a bundle from number `first` on, or as a new one; its number."""
        part = self._part(step)
        if part is not None and isinstance(step, Launch):
            long = is_long(step)
            arguments = len(step.buffers) + len(step.sizes)
            for number in range(first, len(bundles)):
                b = bundles[number]
                if _fits(b, part, long, arguments):
                    b.steps.append(step)
                    b.parts.append(part)
                    b.threads = b.threads or part.threads
                    b.arguments += arguments
                    b.weight = part.weight if long else b.weight
                    b.long |= long
                    return number
            bundles.append(_Bundle([step], [part], part.threads, arguments, long, part.weight if long else 0))
        else:
            bundles.append(_Bundle([step]))
        return len(bundles) - 1

    def _part(self, step: Step) -> Part | None:
        if not isinstance(step, Launch) or step.kernel not in self.kernels or getattr(step, "cooperative", False):
            return None
        kernel = self.kernels[step.kernel]
        if step.sizes != tuple(symbol(s) for s in kernel.sizes):
            return None  # the sizes that it names are others of the program
        return part_of(kernel, step.block)

    def _made(self, bundle: _Bundle) -> Sequence[Step]:
        """The steps of a bundle, its launches as one."""
        if len(bundle.parts) < 2:
            return bundle.steps
        launches = [s for s in bundle.steps if isinstance(s, Launch)]
        longest = sorted(range(len(launches)), key=lambda k: (-_nanoseconds(launches[k]), k))  # its blocks begin first
        chosen, parts_ = [launches[k] for k in longest], [bundle.parts[k] for k in longest]
        known: dict[tuple, Buffer] = {}
        slot_of: dict[Buffer, int] = {}
        arguments = []
        for launch, p in zip(chosen, parts_, strict=True):
            own = {}
            for b, slot in zip(p.kernel.buffers, launch.buffers, strict=True):
                new = known.setdefault((slot, b.dtype, b.shape), Buffer(f"m{len(known)}", b.dtype, b.shape))
                own[b] = new
                slot_of[new] = slot
            arguments.append(own)
        kernel = joined(parts_, arguments)
        name, geometry = self.render(kernel)
        layers = tuple(dict.fromkeys(layer for launch in chosen for layer in launch.layers))[:8]
        made = Launch(
            name,
            tuple(slot_of[b] for b in kernel.buffers),
            tuple(symbol(s) for s in kernel.sizes),
            1,
            _sum(launch.work for launch in chosen),
            _sum(launch.flops for launch in chosen),
            _sum(launch.bytes for launch in chosen),
            kernel.label,
            layers,
            *geometry,
        )
        self.became.update(dict.fromkeys(chosen, made))
        return [made]


def uses(step: Step, slots: Sequence[Slot], kernels: Mapping[str, Kernel]) -> tuple[set[int], set[int]]:
    """Memory that a step reads, what tells where that is among it, and memory that it writes."""
    match step:
        case Launch() if step.kernel in kernels:
            kernel = kernels[step.kernel]
            writes = step.buffers[: len(kernel.writes)]
            reads = step.buffers
        case Copy():
            reads, writes = (step.source,), (step.target,)
        case Clear():
            reads, writes = (), (step.target,)
        case Library():
            reads, writes = step.inputs, step.written
        case _:
            reads = writes = tuple(touched(step))
    found = {k for s in (*reads, *writes) for k in memory_of(slots, s)}
    return found, {k for s in writes for k in owners(slots, s)}


def owners(slots: Sequence[Slot], slot: int) -> set[int]:
    """The memory that is written with a slot: all of what a view may be, but not what tells where it is."""
    s = slots[slot]
    if s.alias < 0:
        return {slot}
    edge = owners(slots, s.row.edge) if isinstance(s.row, Row) and s.row.edge >= 0 else set()
    return owners(slots, s.alias) | edge


def _fits(b: _Bundle, part: Part, long: bool, arguments: int) -> bool:
    """Whether a launch may join a bundle."""
    if not b.parts or len(b.parts) >= MOST_BODIES or b.arguments + arguments > MOST_ARGUMENTS:
        return False
    if b.threads and part.threads and b.threads != part.threads:
        return False
    if long and b.long:
        return False
    if long:
        return all(p.weight <= part.weight for p in b.parts)
    return not b.long or part.weight <= b.weight


def _typical(d: Dim) -> int:
    return d if isinstance(d, int) else evaluate(d, dict.fromkeys(symbols(d), TYPICAL))


def is_long(launch: Launch) -> bool:
    """Whether a launch keeps the device busy for much longer than starting it takes."""
    return _typical(launch.bytes) > BRIEF_BYTES or _typical(launch.flops) > BRIEF_FLOPS


def _nanoseconds(launch: Launch) -> int:
    """About how long a launch takes, for comparing."""
    return _typical(launch.bytes) // 2000 + _typical(launch.flops) // 10_000


def _sum(dims) -> Dim:
    total: Dim = 0
    for d in dims:
        total = total + d
    return total
