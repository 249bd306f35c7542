"""Loops whose work falls into shares that never meet: a recurrence over a batch, where no row asks for another's state.

Threads then go through all rounds with shares of their own. They need not wait for each other in each round, and a core
works on what it computed itself in the round before.

A share is some neighbouring rows of the first axis: as many as give each thread one, but at most `MOST`, so that what
all of them read is read seldom and no thread waits long for another. That shares stay apart is read off the row
programs: all that the loop writes is written and read in the row at hand alone. That a kernel's parallel iterations go
from share to share is its schedule's to say (`Piece.share`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import Buffer, Load, expressions
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.program import Launch, Slot, Step
from gnomon.compiler.sizes import Dim, Size, ceildiv, maximum, product

FEW, MOST = 8, 32
"""Rows of a share: a multiple of the first, so that register tiles are full, and at most the second."""


def rows_of(carries: Sequence[Node]) -> Dim:
    """How many rows all carries of a loop have; 0 if they have none in common, or too few to share."""
    extents = {c.shape[0] if c.rank else 1 for c in carries}
    rows = extents.pop() if len(extents) == 1 else 0
    return 0 if isinstance(rows, int) and rows < 2 * FEW else rows


def share_of(rows: Dim, threads: int) -> Dim:
    """How many of the rows are a share. Results do not depend on it."""
    if rows == 0:
        return 0
    most, wanted = MOST // FEW, ceildiv(rows, FEW * threads)
    return FEW * (most + wanted - maximum(most, wanted))


def held(slots: Iterable[Slot]) -> int:
    """Bytes of those of static size: what each share reads again in each round."""
    sizes = [product(s.shape) * dtypes.named(s.dtype).bytes for s in slots]
    return sum(n for n in sizes if isinstance(n, int))


@dataclass(frozen=True)
class Use:
    """A row program in a loop, and the slots that its buffers are."""

    rows: RowProgram
    slots: dict[str, int]

    def apart(self, written: set[int], memory: Sequence[int], extent: Dim) -> bool:
        """Whether it touches what the loop writes in the row at hand alone. `memory`: the slot that each slot is in."""
        if not self.rows.outer or self.rows.outer[0].extent != extent:
            return False
        row = Size.of(self.rows.outer[0])

        def own(b: Buffer, index: tuple[Dim, ...]) -> bool:
            return bool(b.shape) and b.shape[0] == extent and index[0] == row

        stages = self.rows.stages
        roots = [e for s in stages for e in (*(x for _, _, x in s.folds), *(x for _, x in s.lets))]
        stores = [store for s in stages for store in s.stores]
        loads = [e for e in expressions([*roots, *(x for _, _, x in stores)]) if isinstance(e, Load)]
        given = [(e.buffer, e.index) for e in loads if e.buffer.name in self.slots]
        return all(own(b, i) for b, i, _ in stores if b.name in self.slots) and all(
            own(b, i) for b, i in given if memory[self.slots[b.name]] in written
        )


def apart(uses: Sequence[Use], steps: Sequence[Step], slots: Sequence[Slot], extent: Dim) -> bool:
    """Whether the shares of a loop never meet."""
    if not all(isinstance(s, Launch) and s.share != 0 for s in steps):
        return False
    memory = []
    for k, slot in enumerate(slots):
        while slot.alias >= 0:
            k, slot = slot.alias, slots[slot.alias]
        memory.append(k)
    written = {memory[u.slots[b.name]] for u in uses for b in u.rows.writes}
    return all(u.apart(written, memory, extent) for u in uses)
