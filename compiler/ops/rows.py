"""Some rows of a table: which of many positions are the same, and new values for a few rows.

With these an embedding's gradient stays a list of rows: a step costs what the rows cost that it touches, however long
the table is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gnomon.compiler.errors import ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import Buffer, Cast, Const, For, If, Kernel, Let, Load, Local, Stmt, Store, value_size
from gnomon.compiler.ops.index import PARTS, Gather, clamp, clamped, integers, rows_of_lanes
from gnomon.compiler.ops.writing import INSTRUCTION, Columns, call, converted, if_any, shared, value_of
from gnomon.compiler.sizes import Dim, Index, Size, product


@dataclass(frozen=True)
class FirstEqual(Op):
    """For each of `indices` the first place that holds the same one. Indices outside 0 … `size` - 1 are clamped.

    indices: int[n]   result: int32[n]
    What it costs does not depend on `size`: a place of a table of so many is written for each index before any is read.
    """

    size: Dim

    def infer(self, indices):
        integers(indices, "FirstEqual")
        if indices.rank != 1:
            raise ShapeError(f"FirstEqual needs one axis of indices, got {indices}")
        return TensorType("int32", indices.shape)

    def numpy(self, env, indices):
        inside = np.clip(indices.astype(np.int64), 0, max(0, env.size(self.size) - 1))
        _, first, own = np.unique(inside, return_index=True, return_inverse=True)
        return first[own.reshape(-1)].astype(np.int32)

    def grad(self, g, out, indices):
        return (None,)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        (indices,) = inputs
        count = indices.shape[1]
        found = FirstEqual(size * self.size)(build.reshape(rows_of_lanes(indices, self.size), (size * count,)))
        lane = build.multiply(build.iota(indices.shape, 0), build.size(count, "int32"))
        return build.subtract(build.reshape(found, indices.shape), lane)

    def kernel(self, target, out, indices):
        """Each index writes its place into the table, the first place last; then all read what is there.

        On a GPU the rows of the table are dealt out: each thread looks at all indices and takes its own.
        """
        (count,) = indices.shape
        table = Buffer("places", "int32", (self.size,))
        parts = PARTS if target.kind == "cuda" else 1
        u, where = Index("u", count), Local("where", "int64")
        at = count - 1 - Size.of(u)

        def mark(part, _):
            put: tuple[Stmt, ...] = (Store(table, (value_size(where, self.size),), Cast("int32", value_of(at))),)
            if parts != 1:
                own = call("equal", call("bitwise_and", where, Const("int64", parts - 1)), value_of(part))
                put = (If(own, put),)
            return if_any(self.size, (For(u, (Let(where, clamped(Load(indices, (at,)), self.size)), *put)),))

        columns = Columns.of(count, "int32", target)

        def look(_, block):
            def one(k, _):
                return (Store(out, (k,), Load(table, (clamp(Load(indices, (k,)), self.size),))),)

            return columns.each(block, one)

        flops, label = count * INSTRUCTION, "first_equal"
        marked = Kernel((indices,), (table,), (shared(parts, 1, mark),), parts * flops, f"{label}_marks")
        return marked, Kernel((indices, table), (out,), (shared(1, columns.blocks, look),), flops, label)


@dataclass(frozen=True)
class WriteRows(Op):
    """x with `rows` at `indices` of its first axis. Indices outside of it are left out; no two others may be equal.

    x: [size, ...]   indices: int[n]   rows: [n, ...]   result: as x
    Where the result takes the place of x, as in the update of a variable, only these rows are touched.
    """

    over: ClassVar[int | None] = 0

    def infer(self, x, indices, rows):
        integers(indices, "WriteRows")
        if not x.rank or indices.rank != 1 or rows != TensorType(x.dtype, (*indices.shape, *x.shape[1:])):
            raise ShapeError(f"cannot write {rows} at {indices} into rows of {x}")
        return x

    def numpy(self, env, x, indices, rows):
        inside = (indices >= 0) & (indices < len(x))
        assert np.unique(indices[inside]).size == np.sum(inside), "WriteRows was given equal indices"
        out = x.copy()
        out[indices[inside].astype(np.int64)] = rows[inside]
        return out

    def grad(self, g, out, x, indices, rows):
        from gnomon.compiler.ops import build

        zeros = build.full_like(rows, 0)
        inside = _inside(indices, x.shape[0])
        wide = build.broadcast(inside, rows.shape, [0])
        return WriteRows()(g, indices, zeros), None, build.where(wide, Gather(0)(g, indices), zeros)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        x, indices, rows = (a if m else build.repeat_first(a, size) for a, m in zip(inputs, mapped, strict=True))
        length, count = x.shape[1], indices.shape[1]
        own = build.where(_inside(indices, length), rows_of_lanes(indices, length), build.constant(-1, "int64"))
        flat = [
            build.reshape(x, (size * length, *x.shape[2:])),
            build.reshape(own, (size * count,)),
            build.reshape(rows, (size * count, *rows.shape[2:])),
        ]
        return build.reshape(WriteRows()(*flat), x.shape)

    def kernel(self, target, out, x, indices, rows):
        """x, if the result has memory of its own; then the rows."""
        size, (count,) = out.shape[0], indices.shape
        label = "write_rows"
        table = Buffer(out.name, out.dtype, (size, product(out.shape[1:])))
        new = Buffer(rows.name, rows.dtype, (count, product(rows.shape[1:])))
        columns = Columns.of(table.shape[1], out.dtype, target)
        where = Local("where", "int64")

        def write(row, block):
            def one(c, _):
                return (Store(table, (value_size(where, size), c), Load(new, (row, c))),)

            inside = call(
                "logical_and",
                call("greater_equal", where, Const("int64", 0)),
                call("less", where, value_of(size)),
            )
            return Let(where, converted(Load(indices, (row,)), "int64")), If(inside, columns.each(block, one))

        flops = count * columns.blocks * INSTRUCTION
        written = Kernel((indices, new), (table,), (shared(count, columns.blocks, write),), flops, label)
        return (written,) if out.name == x.name else (_copy(x, out, target, label), written)


def _copy(x: Buffer, out: Buffer, target, label: str) -> Kernel:
    source, goal = (Buffer(b.name, b.dtype, (product(b.shape),)) for b in (x, out))
    columns = Columns.of(goal.shape[0], goal.dtype, target)

    def copied(_, block):
        return columns.each(block, lambda c, _: (Store(goal, (c,), Load(source, (c,))),))

    return Kernel((source,), (goal,), (shared(1, columns.blocks, copied),), label=f"{label}_copy")


def _inside(indices, size: Dim):
    """Which of `indices` are of an axis of `size` elements."""
    from gnomon.compiler.ops import build

    wide = build.cast(indices, "int64")
    return build.logical_and(build.greater_equal(wide, 0), build.less(wide, build.size(size, "int64")))
