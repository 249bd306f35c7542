"""Products on CUDA whose sums are long and whose results are small: one kernel sums parts, a second adds them up.

A kernel's gradient sums over every position of every picture, and its few tiles would keep a few multiprocessors busy.
The sum is cut into parts, each a range of steps; a part's result goes to memory, and a kernel that adds the parts in
their order does what consumes the product. How many there are depends on known sizes alone, so that results repeat.
"""

from __future__ import annotations

from gnomon.compiler.kernel import Buffer, Kernel, Load
from gnomon.compiler.lowering import cuda
from gnomon.compiler.lowering.cuda_parts import extent_of
from gnomon.compiler.lowering.cuda_tiles import PART, Plan, Product, planned, product_of, simple, tiled
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.sizes import Dim, Index, Size
from gnomon.compiler.targets import Target


def kernels(rows: RowProgram, target: Target, label: str) -> list[Piece] | None:
    """The kernels of a product, None if its row program is not of this form."""
    rows = simple(rows)
    p = product_of(rows)
    if p is None:
        return None
    plan = planned(rows, p, target)
    m, n, k = p.sides
    flops = 2 * m * n * k * extent_of(p.batch)
    if plan.parts == 1:
        kernel = Kernel(rows.reads, rows.writes, tiled(rows, p, plan), label=label)
        return [Piece(kernel, extent_of(rows.outer), flops)]
    return _in_parts(rows, p, plan, target, label, flops)


def _in_parts(rows: RowProgram, p: Product, plan: Plan, target: Target, label: str, flops: Dim) -> list[Piece]:
    extent = extent_of(rows.outer)
    partial = Buffer("partial", p.local.dtype, (plan.parts * extent,))
    part = Index(PART, plan.parts)
    place: Dim = Size.of(part)
    for a in rows.outer:
        place = place * a.extent + Size.of(a)
    first = rows.stages[0]
    after = [b.name for s in rows.stages[1:] for b in _read(s)]
    of_sum = RowProgram(
        rows.outer,
        (first, Stage((), stores=[(partial, (place,), p.local)])),
        (),
        tuple(_read(first)),
        (partial,),
    )
    added = Stage((part,), folds=[(p.local, "sum", Load(partial, (place,)))])
    reads = (partial, *(b for b in rows.reads if b.name in after))
    rest = RowProgram(rows.outer, (added, *rows.stages[1:]), (), reads, rows.writes)
    kernel, _ = cuda.kernel(rest, target, label)
    summing = Kernel(of_sum.reads, of_sum.writes, tiled(of_sum, p, plan), label=f"{label} in parts")
    return [Piece(summing, extent * plan.parts, flops, (partial,)), Piece(kernel, extent, extent * plan.parts)]


def _read(stage: Stage) -> list[Buffer]:
    """Global buffers that a stage reads, each once."""
    from gnomon.compiler.lowering.tiles import loads

    roots = [e for _, _, e in stage.folds] + [e for _, e in stage.lets] + [e for *_, e in stage.stores]
    return list(dict.fromkeys(b for b in loads(roots) if b.space == "global"))
