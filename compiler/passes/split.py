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
