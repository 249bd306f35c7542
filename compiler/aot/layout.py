"""Where temporaries lie in the workspace, for any values of the sizes.

Two temporaries that are alive at the same time must lie one above the other. A layout says of each such pair which is
below. It is found for typical sizes, but whatever the sizes are, offsets follow from it and nothing overlaps: each
temporary begins where the highest of those below it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.program import Program
from gnomon.compiler.sizes import Dim, evaluate, product


@dataclass(frozen=True)
class Block:
    """A temporary: its slot, its bytes, the first and last step at which it is alive."""

    slot: int
    bytes: Dim
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Blocks in an order in which each comes after those below it, with what is right below each.

    `top` are the blocks with nothing above them: the highest of their ends is the end of all.
    """

    blocks: tuple[Block, ...]
    below: tuple[tuple[int, ...], ...]
    top: tuple[int, ...]

    def place(self, sizes: Mapping[str, int], align: int) -> tuple[list[int], int]:
        """The offset of each block and the bytes of all, with these values of the sizes."""
        offsets: list[int] = []
        ends: list[int] = []
        for block, below in zip(self.blocks, self.below, strict=True):
            offsets.append(max((ends[j] for j in below), default=0))
            ends.append(offsets[-1] + -(-evaluate(block.bytes, sizes) // align) * align)
        return offsets, max((ends[j] for j in self.top), default=0)


def blocks_of(program: Program) -> list[Block]:
    """The temporaries that need memory of their own."""
    end = max((s.last for s in program.slots), default=0) + 1
    lives: dict[int, tuple[int, int]] = {}
    for number, slot in enumerate(program.slots):
        owner = owner_of(program, number)
        if program.slots[owner].kind != "temporary" or slot.row is not None:
            continue
        first, last = (0, end) if slot.first < 0 or slot.last < 0 else (slot.first, slot.last)
        if number in program.outputs:
            last = end  # copied out when all has run
        if owner in lives:
            first, last = min(first, lives[owner][0]), max(last, lives[owner][1])
        lives[owner] = first, last
    return [
        Block(k, product(program.slots[k].shape) * dtypes.named(program.slots[k].dtype).bytes, first, last)
        for k, (first, last) in lives.items()
    ]


def owner_of(program: Program, slot: int) -> int:
    """The slot whose memory `slot` is."""
    while program.slots[slot].alias >= 0:
        slot = program.slots[slot].alias
    return slot


def arrange(blocks: Sequence[Block], typical: Mapping[str, int]) -> Layout:
    """A layout that wastes little for `typical` sizes.

    The largest are placed first, each into the tightest gap between those alive at the same time that holds it.
    Pisarchyk, Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", section 5.2 (greedy by size).
    """
    amounts = [max(1, evaluate(b.bytes, typical)) for b in blocks]
    placed: list[tuple[int, int, int]] = []  # begin, end, number
    begin = [0] * len(blocks)
    for i in sorted(range(len(blocks)), key=lambda i: (-amounts[i], blocks[i].first, blocks[i].last, i)):
        b, reach, best = blocks[i], 0, None
        for at, end, j in placed:
            if blocks[j].last < b.first or blocks[j].first > b.last:
                continue
            gap = at - reach
            if gap >= amounts[i] and (best is None or gap < best[0]):
                best = gap, reach
            reach = max(reach, end)
        begin[i] = reach if best is None else best[1]
        placed.append((begin[i], begin[i] + amounts[i], i))
        placed.sort()
    order = [j for _, _, j in placed]
    number = {j: k for k, j in enumerate(order)}
    below: list[tuple[int, ...]] = []
    covered: list[set[int]] = []  # all that is somewhere below a block, by its own and their conditions
    above = [False] * len(order)
    for k, i in enumerate(order):
        b = blocks[i]
        under = [
            number[j]
            for at, end, j in placed[:k]
            if end <= begin[i] and not (blocks[j].last < b.first or blocks[j].first > b.last)
        ]
        kept: list[int] = []
        known: set[int] = set()
        for j in reversed(under):  # the nearest first: what is below them need not be said again
            if j not in known:
                kept.append(j)
                known |= covered[j] | {j}
                above[j] = True
        below.append(tuple(sorted(kept)))
        covered.append(known)
    ordered = tuple(blocks[i] for i in order)
    return Layout(ordered, tuple(below), tuple(k for k, has in enumerate(above) if not has))
