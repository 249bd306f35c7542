"""Taps of a convolution that meet nothing but padding: which they are, so that nobody multiplies by zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import Buffer, Load, expressions
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.ops.leaves import Literal
from gnomon.compiler.ops.shape import Pad
from gnomon.compiler.sizes import Dim, Index, Size, coefficient, product

INSIDE = 16
"""Terms that a tap must have for it to be worth a loop."""
SAVED = 0.01
"""The share of taps that must meet nothing."""

Border = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A buffer's name, and how many zeros it has before and after what is in it, along each axis."""


def borders(names: Mapping[Node, Buffer]) -> tuple[Border, ...]:
    """The buffers that are surely zero at their edges."""
    found = []
    for node, buffer in names.items():
        if isinstance(node.op, Pad) and isinstance(node.inputs[1].op, Literal) and node.inputs[1].op.value == 0:
            low, high = ([n for n in ends if isinstance(n, int) and n >= 0] for ends in (node.op.low, node.op.high))
            if not any(node.op.interior) and len(low) == len(high) == node.rank:
                found.append((buffer.name, tuple(low), tuple(high)))
    return tuple(found)


@dataclass(frozen=True)
class Edge:
    """What a tap meets at a row of the result: nothing unless low <= stride * row + dilation * tap < high."""

    row: Index
    tap: Index
    stride: int
    dilation: int
    low: int
    high: int

    def before(self, tap: int, rows: int) -> int:
        """How many of the first `rows` rows the tap meets nothing at."""
        return sum(self.stride * row + self.dilation * tap < self.low for row in range(rows))

    def after(self, tap: int, rows: int) -> int:
        """How many of the last `rows` rows the tap meets nothing at."""
        assert isinstance(self.row.extent, int)
        last = range(self.row.extent - rows, self.row.extent)
        return sum(self.stride * row + self.dilation * tap >= self.high for row in last)

    def share(self) -> float:
        """The share of taps that meet nothing, of those of all rows."""
        rows, taps = self.row.extent, self.tap.extent
        assert isinstance(rows, int)
        assert isinstance(taps, int)
        return sum(self.before(t, rows) + self.after(t, rows) for t in range(taps)) / (rows * taps)


def edges(rows: RowProgram, known: Iterable[Border]) -> tuple[Edge, ...]:
    """Those of a product one of whose factors is such a buffer."""
    around = {name: (low, high) for name, low, high in known}
    if len(rows.stages[0].folds) != 1 or not around:
        return ()
    found = []
    for e in expressions([rows.stages[0].folds[0][2]]):
        if not isinstance(e, Load) or e.mask is not None or e.buffer.name not in around:
            continue
        low, high = around[e.buffer.name]
        for place, extent, before, after in zip(e.index, e.buffer.shape, low, high, strict=True):
            edge = _edge(rows, place, extent, before, after) if before or after else None
            if edge is not None:
                found.append(edge)
    return tuple(found)


def worthwhile(rows: RowProgram, found: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """Those that save more than loops for each tap by itself cost."""
    axes = rows.stages[0].axes
    inside = lambda e: product(a.extent for a in axes[axes.index(e.tap) + 1 :])
    long = lambda size: not isinstance(size, int) or size >= INSIDE
    return tuple(e for e in found if long(inside(e)) and e.share() >= SAVED)


def _edge(rows: RowProgram, place: Dim, extent: Dim, before: int, after: int) -> Edge | None:
    along = [[a for a in axes if coefficient(place, a) != 0] for axes in (rows.outer, rows.stages[0].axes)]
    if not isinstance(extent, int) or [len(a) for a in along] != [1, 1]:
        return None
    (row,), (tap,) = along
    stride, dilation = coefficient(place, row), coefficient(place, tap)
    if not (isinstance(stride, int) and isinstance(dilation, int) and stride > 0 and dilation > 0):
        return None
    rest = place - Size.of(row) * stride - Size.of(tap) * dilation
    if not (isinstance(rest, int) and isinstance(row.extent, int) and isinstance(tap.extent, int)):
        return None
    return Edge(row, tap, stride, dilation, before - rest, extent - after - rest)
