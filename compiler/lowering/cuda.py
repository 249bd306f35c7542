"""The CUDA policy: row programs as kernels of blocks and threads.

    kernel(rows, target)   one of
        tiles       a product (`cuda_tiles`)
        elements    a thread for each outer iteration, or for four that are neighbours in memory, which are read and
                    written as one. Elementwise work, and what has a few inner iterations
        rows        a team of threads for each outer iteration (`cuda_rows`)

Results do not depend on the order of threads: every fold has a fixed shape and nothing is added atomically.
"""

from __future__ import annotations

from gnomon.compiler.kernel import (
    Alloc,
    Buffer,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
    expressions,
    statements,
)
from gnomon.compiler.lowering import cuda_tiles
from gnomon.compiler.lowering.cuda_parts import (
    Values,
    extent_of,
    named_index,
    placed,
    serially,
    spread,
)
from gnomon.compiler.lowering.cuda_rows import VECTOR, less, rows_by_teams, team_of
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.sizes import (
    Dim,
    FloorDiv,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    floordiv,
    known_factor,
    modulo,
)
from gnomon.compiler.targets import CUDA, Target

SMALL = 1 << 15
"""Elements below which there is not enough to do for threads that do four each."""


def kernel(
    rows: RowProgram, target: Target = CUDA, label: str = "kernel", aligned: bool = True
) -> tuple[Kernel, Dim]:
    """The kernel of a row program, and how many outer iterations it has. `aligned`: all buffers begin at multiples of
    16 bytes."""
    multiplied = cuda_tiles.whole(rows, target, label, aligned)
    if multiplied is not None:
        return multiplied, extent_of(rows.outer)
    team = team_of(rows)
    body = _elements(rows, aligned) if team is None else rows_by_teams(rows, team, aligned)
    return Kernel(rows.reads, rows.writes, body, label=label), extent_of(rows.outer)


# ---- a thread for each outer iteration


def _elements(rows: RowProgram, aligned: bool) -> tuple[Stmt, ...]:
    values = Values()
    body: list[Stmt] = [Alloc(b) for b in rows.scratch]
    for stage in rows.stages:
        body += serially(stage, values)
    inside = tuple(body)
    if not rows.outer:
        return inside
    total = extent_of(rows.outer)
    if aligned and not any(s.axes for s in rows.stages) and not (isinstance(total, int) and total < SMALL):
        wide = _vectors(rows, inside)
        if wide is not None:
            return wide
    if len(rows.outer) == 1:
        return (For(rows.outer[0], inside, "parallel"),)
    element, position = named_index("element", total)
    return (For(element, placed(spread(position, rows.outer)).body(inside), "parallel"),)


def _vectors(rows: RowProgram, body: tuple[Stmt, ...]) -> tuple[Stmt, ...] | None:
    """Loops over vectors of neighbouring elements; None if there would be none in memory."""
    *first, last = rows.outer
    lane, at = named_index("lane", VECTOR)
    if modulo(last.extent, VECTOR) == 0:  # a vector lies within a row
        short = Index(last.name, floordiv(last.extent, VECTOR))
        vector, number = named_index("vector", extent_of((*first, short)))
        change = spread(number, (*first, short))
        change[last] = change.pop(short) * VECTOR + at
        total: Dim = 0
    else:  # rows must follow each other without anything that depends on where they begin
        total = extent_of(rows.outer)
        vector, number = named_index("vector", ceildiv(total, VECTOR))
        change = spread(number * VECTOR + at, rows.outer)
    found = placed(change).body(body)
    stores = [s for s in found if isinstance(s, Store)]
    if len(stores) == 0 or not all(_is_wide(s.buffer, s.index, lane) for s in stores) or _divided(found, lane):
        return None
    each: tuple[Stmt, ...] = (For(lane, found, "vector"),)
    if total != 0 and modulo(total, VECTOR) != 0:
        place = number * VECTOR + at
        rest = For(lane, (If(less(place, total), found),))
        each = (If(less(number * VECTOR + VECTOR - 1, total), each, (rest,)),)
    return (For(vector, each, "parallel"),)


def _divided(body: tuple[Stmt, ...], lane: Index) -> bool:
    """Whether each lane would have to find out by a division of its own where it is."""
    roots = [s.value for s in statements(body) if isinstance(s, (Let, Store))]
    sizes = [_size(e) for e in expressions(roots)]
    return any(isinstance(a, FloorDiv) and lane in a.inner() for d in sizes for a in atoms(d))


def _size(e: Expr) -> Dim:
    return e.buffer.offset(e.index) if isinstance(e, Load) else e.size if isinstance(e, IndexValue) else 0


def _is_wide(b: Buffer, index: tuple[Dim, ...], lane: Index) -> bool:
    """Whether the lanes' elements are neighbours in memory, and the first of them at a multiple of their number."""
    offset = b.offset(index)
    return coefficient(offset, lane) == 1 and known_factor(offset - Size.of(lane)) % VECTOR == 0
