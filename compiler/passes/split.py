"""Reductions cut so that there is something to do in parallel."""

from __future__ import annotations

from gnomon.compiler import dtypes, kernel
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.passes.rewrite import Rules
from gnomon.compiler.sizes import ceildiv, product

split = Rules()

LARGE = 1 << 15
"""Elements from which a reduction is worth several threads."""
CHUNK = 1 << 13
"""Elements of one part."""
COLUMNS = 1 << 10
"""Columns up to which a reduction of all rows has too little to do in parallel."""
EACH = 64
"""Elements that are worth a step of their own."""


@split.watch(Reduce)
def split_rows(node: Node) -> Node | None:
    """reduce(x, (0, 1)) -> reduce(reduce(x, 1), 0): the rows in parallel, then the few that are left."""
    op = node.op
    assert isinstance(op, Reduce)
    (x,) = node.inputs
    if node.rank or x.rank < 2 or len(op.axes) < 2:
        return None
    total = product(x.shape)
    if isinstance(total, int) and total < LARGE:
        return None
    rows = 1
    while rows < x.rank - 1 and isinstance(lead := product(x.shape[:rows]), int) and lead < 64:
        rows += 1
    return build.reduce(op.kind, build.reduce(op.kind, x, range(rows, x.rank)), range(rows))


@split.watch(Reduce)
def split_columns(node: Node) -> Node | None:
    """reduce(x, (0, 1 …)) -> reduce(reduce(x, (1 …)), 0) if few columns are left: each of the first axis in parallel.

    Sums of a hundred thousand terms also lose fewer digits so.
    """
    op = node.op
    assert isinstance(op, Reduce)
    (x,) = node.inputs
    axes = tuple(sorted(op.axes))
    if not node.rank or len(axes) < 2 or axes != tuple(range(len(axes))) or x.shape[0] == 1:
        return None
    columns, each = product(node.shape), product(x.shape[1 : len(axes)])
    if not isinstance(columns, int) or columns > COLUMNS or (isinstance(each, int) and each < EACH):
        return None
    return build.reduce(op.kind, build.reduce(op.kind, x, axes[1:]), [0])


@split.watch(Reduce)
def split_vectors(node: Node) -> Node | None:
    """reduce(x) of one long axis -> reduce(reduce(x as [parts, CHUNK])), padded with what changes nothing."""
    op = node.op
    assert isinstance(op, Reduce)
    (x,) = node.inputs
    if node.rank or x.rank != 1 or x.dtype == "bool":
        return None
    n = x.shape[0]
    if not isinstance(n, int) or n < LARGE:
        return None
    parts = ceildiv(n, CHUNK)
    neutral = kernel.IDENTITY[op.kind](dtypes.named(x.dtype))
    whole = build.pad(x, [0], [parts * CHUNK - n], value=neutral)
    return build.reduce(op.kind, build.reduce(op.kind, build.reshape(whole, (parts, CHUNK)), [1]), [0])
