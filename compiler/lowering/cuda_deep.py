"""Long sums on CUDA whose results are small: one kernel sums parts, a second adds them up.

    kernels(rows, target, label)    of a product, or of reductions few of which are long; None for anything else

A product by a large matrix has kernels of its own for few rows (one sample of a model that serves): a call with as few
launches those alone.

A kernel's gradient sums over every position of every picture, and its few tiles would keep a few multiprocessors busy;
so would the sums for a bias. The sum is cut into parts. What each comes to goes to memory, and a kernel that adds the
parts in their order does what consumes the result. How many parts there are depends on the program alone, never on the
machine or on what runs beside it, so that results repeat.
"""

from __future__ import annotations

from dataclasses import replace

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import IDENTITY, Buffer, Const, Expr, For, IndexValue, Kernel, Load, Local
from gnomon.compiler.lowering import cuda
from gnomon.compiler.lowering.cuda_parts import call, cast, compute, extent_of, neighbours, outer_folds, placed
from gnomon.compiler.lowering.cuda_tiles import (
    MULTIPROCESSORS,
    PART,
    Plan,
    Product,
    planned,
    product_of,
    simple,
    tiled,
    typical,
)
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.tiles import Piece, loads
from gnomon.compiler.ops.shape import guard
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, evaluate, floordiv, maximum, modulo, symbols
from gnomon.compiler.targets import Target

LONG = 1 << 17
"""Terms of all sums together from which a second kernel pays."""
TERMS = 512
"""Terms of a part."""
BESIDE = 32
"""Sums that one block has if they are neighbours in memory."""
MOST = 128
"""Parts of a sum."""
FEW = 8
"""Rows of a product up to which tiles that are as low are used, where the number of rows is known in a call only."""
HEAVY = 1 << 21
"""Elements of the other operand from which on this pays: it is read once in any case, and with few rows that is all
the time there is, if the multiplications of rows that are not there are left out."""


def kernels(rows: RowProgram, target: Target, label: str, aligned: bool = True) -> list[Piece] | None:
    """The kernels of a product or of long sums in parts, None if the row program is neither."""
    rows = simple(rows)
    p = product_of(rows)
    if p is None:
        return _long_sums(rows, target, label, aligned)
    pieces = _product(rows, p, planned(rows, p, target), target, label, aligned)
    m, n, k = p.sides
    other = n * k
    if isinstance(m, int) or _least(m) > FEW or not isinstance(other, int) or other < HEAVY:
        return pieces
    of_few = _product(rows, p, planned(rows, p, target, few=FEW), target, f"{label} of few rows", aligned)
    are_few = maximum(0, 1 - floordiv(m, FEW + 1))
    return [*(_only_if(are_few, x) for x in of_few), *(_only_if(1 - are_few, x) for x in pieces)]


def _least(d: Dim) -> int:
    """A size if all that is open in it is 1."""
    return evaluate(d, dict.fromkeys(symbols(d), 1))


def _only_if(flag: Dim, piece: Piece) -> Piece:
    """A piece that has something to do if the flag is 1, and nothing, so that it is not launched, if it is 0."""
    (loop,) = piece.kernel.body
    assert isinstance(loop, For), loop
    index = Index(loop.index.name, loop.index.extent * flag)
    body = placed({loop.index: Size.of(index)}).body(loop.body)
    kernel = replace(piece.kernel, body=(replace(loop, index=index, body=body),))
    return replace(piece, kernel=kernel, extent=piece.extent * flag, flops=piece.flops * flag)


def _product(rows: RowProgram, p: Product, plan: Plan, target: Target, label: str, aligned: bool) -> list[Piece]:
    m, n, k = p.sides
    flops = 2 * m * n * k * extent_of(p.batch)
    if plan.parts > 1:
        return _product_in_parts(rows, p, plan, target, label, flops, aligned)
    kernel = Kernel(rows.reads, rows.writes, tiled(rows, p, plan, aligned), label=label)
    return [Piece(kernel, extent_of(rows.outer), flops)]


def _product_in_parts(
    rows: RowProgram, p: Product, plan: Plan, target: Target, label: str, flops: Dim, aligned: bool
) -> list[Piece]:
    extent = extent_of(rows.outer)
    partial = Buffer("partial", p.local.dtype, (plan.parts * extent,))
    part = Index(PART, plan.parts)
    place = _place(part, rows)
    first = rows.stages[0]
    of_parts = RowProgram(
        rows.outer, (first, Stage((), stores=[(partial, (place,), p.local)])), (), _read(first), (partial,)
    )
    rest = _added(rows, part, {p.local: partial})
    summing = Kernel(of_parts.reads, of_parts.writes, tiled(of_parts, p, plan, aligned), label=f"{label} in parts")
    adding, _ = cuda.kernel(rest, target, label, aligned)
    return [Piece(summing, extent * plan.parts, flops, (partial,)), Piece(adding, extent, extent * plan.parts)]


def _long_sums(rows: RowProgram, target: Target, label: str, aligned: bool) -> list[Piece] | None:
    """Reductions, few and long, in parts."""
    cut = _cut(rows)
    if cut is None:
        return None
    axis, parts = cut
    first, extent = rows.stages[0], extent_of(rows.outer)
    part, share = Index(PART, parts), ceildiv(axis.extent, parts)
    own = Index(axis.name, share)
    at = Size.of(part) * share + Size.of(own)
    inside = None
    if modulo(axis.extent, parts) != 0:
        inside = call("less", IndexValue("int64", at), IndexValue("int64", axis.extent))

    def moved(kind: str, x: Expr) -> Expr:
        """A term where it is now; nothing is added beyond the last one."""
        x = placed({axis: at}).expr(x)
        if inside is None:
            return x
        return call("where", inside, guard(x, inside), Const(x.dtype, IDENTITY[kind](dtypes.named(x.dtype))))

    place = _place(part, rows)
    axes = tuple(own if a is axis else a for a in first.axes)
    of_parts: dict[Local, Buffer] = {}
    folds: list[tuple[Local, str, Expr]] = []
    stores: list[tuple[Buffer, tuple[Dim, ...], Expr]] = []
    for k, (local, kind, x) in enumerate(first.folds):
        total = Local(local.name, compute(local.dtype))
        of_parts[local] = Buffer(f"partial{k}", total.dtype, (parts * extent,))
        folds.append((total, kind, cast(total.dtype, moved(kind, x))))
        stores.append((of_parts[local], (place,), total))
    buffers = tuple(of_parts.values())
    stages = Stage(axes, folds=folds), Stage((), stores=stores)
    sums = RowProgram((part, *rows.outer), stages, (), _read(first), buffers)
    summing, _ = cuda.kernel(sums, target, f"{label} in parts", aligned)
    adding, _ = cuda.kernel(_added(rows, part, of_parts), target, label, aligned)
    terms = extent * extent_of(first.axes) * len(folds)
    return [Piece(summing, extent * parts, terms, buffers), Piece(adding, extent, extent * parts)]


def _cut(rows: RowProgram) -> tuple[Index, int] | None:
    """The axis of the sums that is cut, and into how many parts; None if they are no long sums, or many."""
    if not rows.stages or rows.scratch:
        return None
    first = rows.stages[0]
    if not first.folds or not first.axes or first.lets or first.stores:
        return None
    if any(outer_folds(x) for *_, x in first.folds) or any(first.axes == s.axes for s in rows.stages[1:]):
        return None
    outer, terms = typical(extent_of(rows.outer)), typical(extent_of(first.axes))
    if outer * terms < LONG:
        return None
    columns = bool(rows.outer) and any(neighbours(x, rows.outer[-1]) for *_, x in first.folds)
    blocks = -(-outer // BESIDE) if columns else outer
    wanted = min(MOST, 4 * MULTIPROCESSORS // max(1, blocks), terms // TERMS)
    for axis in first.axes:
        parts = 1
        while 2 * parts <= min(wanted, typical(axis.extent)):
            parts *= 2
        if parts >= 4:
            return axis, parts
    return None


def _place(part: Index, rows: RowProgram) -> Dim:
    """Where the sum of a part is among those of all parts."""
    place: Dim = Size.of(part)
    for a in rows.outer:
        place = place * a.extent + Size.of(a)
    return place


def _added(rows: RowProgram, part: Index, partial: dict[Local, Buffer]) -> RowProgram:
    """The row program that adds the parts and goes on from there."""
    place = _place(part, rows)
    first, *after = rows.stages
    sums = Stage((part,), folds=[(local, kind, Load(partial[local], (place,))) for local, kind, _ in first.folds])
    read = {b.name for s in after for b in _read(s)}
    reads = (*partial.values(), *(b for b in rows.reads if b.name in read))
    return RowProgram(rows.outer, (sums, *after), (), reads, rows.writes)


def _read(stage: Stage) -> tuple[Buffer, ...]:
    """Global buffers that a stage reads, each once."""
    roots = [e for _, _, e in stage.folds] + [e for _, e in stage.lets] + [e for *_, e in stage.stores]
    return tuple(b for b in loads(roots) if b.space == "global")
