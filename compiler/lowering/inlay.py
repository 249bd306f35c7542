"""Products that are computed where they are padded: into the middle of what a convolution reads, whose border is filled
apart. The copy that padding would be is not made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import Buffer, Const, For, If, Kernel, Load, Rewriter, Stmt, Store
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.fuse import Group
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.ops.leaves import Literal
from gnomon.compiler.ops.shape import Pad
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, product
from gnomon.compiler.targets import Target


def inlaid(
    groups: Iterable[Group], readers: Mapping[Node, set[Group]], taken: Callable[[Node], bool]
) -> dict[Node, Node]:
    """The products that are computed into the middle of their padded form, with that. `taken`: who has a place already,
    or is asked for as it is."""
    found: dict[Node, Node] = {}
    of = {m: g for g in groups for m in g.members}
    for group in of.values():
        if len(group.members) != 1:
            continue
        (pad,) = group.members
        if not isinstance(pad.op, Pad) or not isinstance(pad.inputs[1].op, Literal):
            continue
        x = pad.inputs[0]
        made = of.get(x)
        if made is None or made.contract is None or readers.get(x) != {group} or taken(x) or taken(pad):
            continue
        amounts = (*pad.op.low, *pad.op.high)
        if not any(pad.op.interior) and all(isinstance(n, int) and n >= 0 for n in amounts):
            found[x] = pad
    return found


def shifted(rows: RowProgram, places: Mapping[str, tuple[Buffer, tuple[Dim, ...]]]) -> RowProgram:
    """`rows` with some buffers (by name) being others, and the elements so far from theirs."""

    def moved(b: Buffer, index: tuple[Dim, ...]) -> tuple[Buffer, tuple[Dim, ...]]:
        whole, low = places[b.name]
        return whole, tuple(i + n for i, n in zip(index, low, strict=True))

    def change(e):
        if isinstance(e, Load) and e.buffer.name in places:
            buffer, index = moved(e.buffer, tuple(rewriter.size(i) for i in e.index))
            return Load(buffer, index, None if e.mask is None else rewriter.expr(e.mask))
        return None

    rewriter = Rewriter(change)
    other = lambda buffers: tuple(places[b.name][0] if b.name in places else b for b in buffers)
    stages = tuple(
        Stage(
            s.axes,
            [(n, k, rewriter.expr(e)) for n, k, e in s.folds],
            [(n, rewriter.expr(e)) for n, e in s.lets],
            [(*(moved(b, i) if b.name in places else (b, i)), rewriter.expr(e)) for b, i, e in s.stores],
        )
        for s in rows.stages
    )
    return RowProgram(rows.outer, stages, rows.scratch, other(rows.reads), other(rows.writes))


def border(pad: Node, out: Buffer, target: Target) -> Piece:
    """The kernel that fills what is around the middle."""
    assert isinstance(pad.op, Pad)
    assert isinstance(pad.inputs[1].op, Literal)
    value = Const(out.dtype, pad.inputs[1].op.value)
    low, high, shape = pad.op.low, pad.op.high, pad.shape
    flat = Buffer(out.name, out.dtype, (product(shape),))
    lanes = 4 * target.lanes(dtypes.named(out.dtype).bits)
    first = next(k for k in range(len(shape)) if low[k] or high[k])
    outer = Index("p", product(shape[:first]))

    def filled(place: Dim, count: Dim, name: str) -> Stmt:
        """`count` numbers from a place on."""
        block, lane = Index(f"b{name}", ceildiv(count, lanes)), Index(f"l{lanes}", lanes)
        at = Size.of(block) * lanes + Size.of(lane)
        store: Stmt = Store(flat, (place + at,), value)
        if not (isinstance(count, int) and count % lanes == 0):
            store = If(less(at, count), (store,))
        return For(block, (For(lane, (store,), "vector"),))

    def around(k: int, place: Dim) -> tuple[Stmt, ...]:
        """The border along axis k and all later ones, of the part of the array that begins at a place."""
        if not any(low[k:]) and not any(high[k:]):
            return ()
        each = product(shape[k + 1 :])
        body: list[Stmt] = []
        if low[k]:
            body.append(filled(place, low[k] * each, f"low{k}"))
        if high[k]:
            body.append(filled(place + (shape[k] - high[k]) * each, high[k] * each, f"high{k}"))
        row = Index(f"r{k}", shape[k] - low[k] - high[k])
        inner = around(k + 1, place + (low[k] + Size.of(row)) * each) if k + 1 < len(shape) else ()
        return (*body, For(row, inner)) if inner else tuple(body)

    body = around(first, Size.of(outer) * product(shape[first:]))
    kernel = Kernel((), (flat,), (For(outer, body, "parallel"),), label="border")
    return Piece(kernel, outer.extent, 0)
