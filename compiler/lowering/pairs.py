"""Rows two at a time: while one waits for the end of its sum, the other goes on.

A softmax ends a maximum before it begins its sum, and the sum before it divides; each end is a chain of a dozen
instructions that wait for each other, longer than a processor looks ahead. Two rows that do not know of each other go
through the same loops, statement by statement.
"""

from __future__ import annotations

from gnomon.compiler.kernel import (
    Alloc,
    Apply,
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
    Store,
    expressions,
    statements,
)
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, atoms, ceildiv


def paired(kernel: Kernel) -> tuple[Kernel, Dim]:
    """A kernel whose parallel loop does the rows of `kernel` in pairs, and how many iterations that has."""
    allocs = tuple(s for s in kernel.body if isinstance(s, Alloc))
    (loop,) = (s for s in kernel.body if not isinstance(s, Alloc))
    assert isinstance(loop, For)
    rows = loop.index.extent
    pair = Index("pair", ceildiv(rows, 2))
    first: Dim = Size.of(pair) * 2
    own = {s.buffer: Buffer(f"{s.buffer.name}_other", s.buffer.dtype, s.buffer.shape, s.buffer.space) for s in allocs}
    one, other = _Row(loop.index, first, "", {}), _Row(loop.index, first + 1, "_other", own)
    body = _together(loop.body, one, other)
    if not (isinstance(rows, int) and rows % 2 == 0):
        both = Apply(scalar("less"), (IndexValue("int64", first + 1), IndexValue("int64", rows)))
        body = (If(both, body, one.body(loop.body)),)
    more = tuple(Alloc(b) for b in own.values())
    made = Kernel(kernel.reads, kernel.writes, (*allocs, *more, For(pair, body, loop.kind)), label=kernel.label)
    return made, pair.extent


class _Row(Rewriter):
    """Statements for one row of a pair, with names and buffers of its own."""

    def __init__(self, index: Index, row: Dim, ending: str, own: dict[Buffer, Buffer]):
        super().__init__(self._renamed, lambda a: row if a is index else None)
        self.of, self.ending, self.own = index, ending, own

    def _renamed(self, e: Expr) -> Expr | None:
        if isinstance(e, Local):
            return self._local(e)
        if isinstance(e, Load) and e.buffer in self.own:
            mask = None if e.mask is None else self.expr(e.mask)
            return Load(self.own[e.buffer], tuple(self.size(i) for i in e.index), mask)
        return None

    def _local(self, e: Local) -> Local:
        return Local(f"{e.name}{self.ending}", e.dtype) if self.ending else e

    def statement(self, s: Stmt) -> Stmt:
        if isinstance(s, Let):
            return Let(self._local(s.local), self.expr(s.value))
        if isinstance(s, Store) and s.buffer in self.own:
            return Store(self.own[s.buffer], tuple(self.size(i) for i in s.index), self.expr(s.value))
        return super().statement(s)

    def same(self, e: Expr) -> bool:
        """Whether an expression is the same of all rows."""
        for x in expressions([e]):
            if isinstance(x, (Local, Load)):
                return False
            if isinstance(x, IndexValue) and any(a is self.of for a in atoms(x.size)):
                return False
        return True


def _writes(loop: For) -> bool:
    """Whether a loop stores what others see: a row at a time, for a processor writes long runs of memory quicker."""
    return any(isinstance(s, Store) and s.buffer.space == "global" for s in statements(loop.body))


def _together(body: tuple[Stmt, ...], one: _Row, other: _Row) -> tuple[Stmt, ...]:
    """Both rows' statements in turn, in the same loops."""
    found: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and one.of not in atoms(s.index.extent) and not _writes(s):
            found.append(For(s.index, _together(s.body, one, other), s.kind))
        elif isinstance(s, If) and one.same(s.condition):
            found.append(If(s.condition, _together(s.then, one, other), _together(s.orelse, one, other)))
        else:
            found += [one.statement(s), other.statement(s)]
    return tuple(found)
