"""Which loops blocks go through with rows of their own, and the kernels of these.

    apart_in(step, ...)     what is needed to know of such a loop; None if it is none
    RowsOwned               its kernel while it is put together

How a block computes its rows is told in `cuda_shares`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import Alloc, Barrier, Buffer, For, Kernel, Load, Stmt, Store, expressions, statements
from gnomon.compiler.lowering import cuda_shares
from gnomon.compiler.lowering.cuda_rounds import Body, HostsOwn
from gnomon.compiler.lowering.cuda_together import Renamer, owners
from gnomon.compiler.lowering.shares import Use, held
from gnomon.compiler.program import Copy, Launch, Repeat, Slot, Step, memory_of
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, product

MOST_HELD = 384 << 10
"""Bytes of weights that each block reads in each round; of more, it is better if all blocks share the work."""
NEAR = 32 << 10
"""Bytes of shared memory for what a round hands on."""


@dataclass(frozen=True)
class Apart:
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


def apart_in(
    step: Repeat,
    after: Sequence[Copy],
    slots: Sequence[Slot],
    uses: Mapping[Launch, Use | None],
    inner: set[int],
    room: int,
) -> Apart | None:
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
    return Apart(extent, known, threads, tuple(near), steps)


class RowsOwned(Body):
    """A kernel whose blocks have rows of their own."""

    def __init__(self, slots: list[Slot], kernels: Mapping[str, Kernel], barrier: int, apart: Apart):
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
            raise HostsOwn
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
        used = {e.buffer for e in _loads(body)}
        buffers = {b: self.buffer(s, b.shape) for b, s in given.items() if b in used}
        return Renamer(buffers).body(tuple(body))

    def _placed(self, body: Sequence[Stmt], given: Mapping[Buffer, int]) -> None:
        """Add statements whose buffers are slots."""
        near = {b: self.near[s] for b, s in given.items() if s in self.near}
        values = {b: self.value(s) for b, s in given.items() if s in self.known}
        buffers = {b: self.buffer(s, b.shape) for b, s in given.items() if b not in near and b not in values}
        beside = cuda_shares.Beside(near, lambda index: (index[0] - self.first, *index[1:]))
        self.body += Renamer(buffers, values).body(beside.body(tuple(body)))


def _loads(body: Sequence[Stmt]) -> Iterator[Load]:
    """What the stores among statements read."""
    values = [s.value for s in statements(tuple(body)) if isinstance(s, Store)]
    yield from (e for e in expressions(values) if isinstance(e, Load))
