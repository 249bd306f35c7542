"""What the kernels that ops write themselves (`Op.kernel`) are made of.

Such a kernel sees its arrays as [before, n, after] around the axis that it walks, shares `before` and blocks of `after`
among threads, and does the columns of a block side by side: as lanes of vectors on a CPU, one in each thread on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import Apply, Buffer, Cast, Const, Expr, For, If, IndexValue, Kernel, Stmt, Store
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, modulo, product
from gnomon.compiler.targets import Target

REGISTERS = 4
"""Vectors that a block of columns is wide: enough to hide what one addition waits for another."""
INSTRUCTION = 16
"""Additions that one step of a scalar loop is worth, in the unit of `Kernel.flops`, where vectors set the pace."""


def call(name: str, *args: Expr) -> Expr:
    return Apply(scalar(name), args)


def value_of(d: Dim) -> Expr:
    """A size or position as a number."""
    return IndexValue("int64", d)


def less(a: Dim, b: Dim) -> Expr:
    return call("less", value_of(a), value_of(b))


def converted(x: Expr, dtype: str) -> Expr:
    return x if x.dtype == dtype else Cast(dtype, x)


def around(b: Buffer, axis: int, axes: int = 1) -> Buffer:
    """The same memory as [before, n, after]: `axes` axes from `axis` on are the middle one."""
    parts = b.shape[:axis], b.shape[axis : axis + axes], b.shape[axis + axes :]
    return Buffer(b.name, b.dtype, tuple(map(product, parts)))


@dataclass(frozen=True)
class Columns:
    """`extent` neighbouring columns, in blocks of `width`."""

    extent: Dim
    width: int

    @classmethod
    def of(cls, extent: Dim, dtype: str, target: Target) -> Columns:
        """Blocks as wide as vectors of `dtype` are on a CPU, no wider than they must be; of one column on a GPU."""
        if target.kind == "cuda":
            return cls(extent, 1)
        lanes = target.lanes(dtypes.named(dtypes.named(dtype).compute).bits)
        width = lanes * REGISTERS
        if isinstance(extent, int):
            while width > 1 and width // 2 >= extent:
                width //= 2
            while width > lanes and extent % width and extent % (width // 2) == 0:
                width //= 2
        return cls(extent, width)

    @property
    def blocks(self) -> Dim:
        return ceildiv(self.extent, self.width)

    def each(self, block: Dim, body: Callable[[Dim, Dim], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
        """body(column, place in the block) for all columns of a block at once."""
        if self.width == 1:
            return body(block, 0)
        lane = Index(f"l{self.width}", self.width)
        column = block * self.width + Size.of(lane)
        inner = body(column, Size.of(lane))
        if not isinstance(self.extent, int) or self.extent % self.width:
            inner = (If(less(column, self.extent), inner),)
        return (For(lane, inner, "vector"),)


def shared(rows: Dim, blocks: Dim, body: Callable[[Dim, Dim], tuple[Stmt, ...]]) -> For:
    """The parallel loop over body(row, block)."""
    p = Index("p", rows * blocks)
    at = Size.of(p)
    if blocks == 1:
        return For(p, body(at, 0), "parallel")
    return For(p, body(floordiv(at, blocks), modulo(at, blocks)), "parallel")


def if_any(extent: Dim, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """`body` where an axis of `extent` elements has any."""
    if isinstance(extent, int):
        return body if extent else ()
    return (If(less(0, extent), body),)


def zeros(out: Buffer, target: Target, label: str) -> Kernel:
    """The kernel that clears a buffer."""
    flat = Buffer(out.name, out.dtype, (product(out.shape),))
    columns = Columns.of(flat.shape[0], out.dtype, target)
    zero = Const(out.dtype, 0)
    body = shared(1, columns.blocks, lambda _, q: columns.each(q, lambda c, _: (Store(flat, (c,), zero),)))
    return Kernel((), (flat,), (body,), label=f"{label}_zeros")
