"""Reading and adding at computed positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import (
    Buffer,
    Const,
    Expr,
    Fold,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Stmt,
    Store,
    atom_of,
    fresh_index,
    value_size,
)
from gnomon.compiler.ops.writing import (
    INSTRUCTION,
    REGISTERS,
    Columns,
    around,
    call,
    converted,
    if_any,
    less,
    shared,
    value_of,
    zeros,
)
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, modulo, product

FEW = 16
"""Positions along an axis up to which each element of a scattered result looks at all of them."""
PARTS = 128
"""A power of two: parts of a scattered result that threads of a GPU take."""
TOGETHER = 16
"""Neighbouring columns that one pass along an axis does."""


def clamped(x: Expr, extent: Dim) -> Expr:
    """An index expression kept within an axis: what memory safety needs. Range errors are for the caller to find."""
    return call("minimum", call("maximum", converted(x, "int64"), Const("int64", 0)), value_of(extent - 1))


def clamp(x: Expr, extent: Dim) -> Dim:
    """The same as a size, to index with."""
    return value_size(clamped(x, extent), extent)


def integers(t: TensorType, what: str) -> None:
    if not dtypes.is_integer(t.dtype):
        raise DTypeError(f"{what} needs integer indices, got {t}")


def rows_of_lanes(indices, extent: Dim):
    """Positions in `size` axes of `extent` elements laid end to end, of which row k of `indices` means the kth."""
    from gnomon.compiler.ops import build

    wide = build.cast(indices, "int64")
    inside = build.maximum(build.minimum(wide, build.size(extent - 1, "int64")), 0)
    return build.add(inside, build.multiply(build.iota(indices.shape, 0, "int64"), build.size(extent, "int64")))


@dataclass(frozen=True)
class Gather(Op):
    """x[..., indices, ...]: elements or rows of `axis` at `indices`; indices outside the axis are clamped to it.

    x: [before, n, after]   indices: int[place]   result: [before, place, after]
    """

    axis: int

    def infer(self, x, indices):
        integers(indices, "Gather")
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"cannot gather along axis {self.axis} of {x}")
        return TensorType(x.dtype, x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :])

    def numpy(self, env, x, indices):
        if x.shape[self.axis] == 0:
            return np.zeros(x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :], x.dtype)
        return np.take(x, np.clip(indices.astype(np.int64), 0, x.shape[self.axis] - 1), self.axis)

    def grad(self, g, out, x, indices):
        return (ScatterAdd(self.axis, x.shape[self.axis])(indices, g) if dtypes.is_float(x.dtype) else None), None

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        x, indices = inputs
        k = self.axis
        if not mapped[1]:
            return Gather(k + 1)(x, indices)
        if not mapped[0]:
            found = Gather(k)(x, indices)
            return build.transpose(found, [k, *range(k), *range(k + 1, found.rank)])
        rows = build.transpose(x, [0, k + 1, *range(1, k + 1), *range(k + 2, x.rank)])  # [size, n, before, after]
        rows = build.reshape(rows, (size * rows.shape[1], *rows.shape[2:]))
        found = Gather(0)(rows, rows_of_lanes(indices, x.shape[k + 1]))  # [size, place, before, after]
        place = indices.rank - 1
        return build.transpose(
            found, [0, *range(place + 1, place + 1 + k), *range(1, place + 1), *range(place + 1 + k, found.rank)]
        )

    def element(self, index, out, x, indices):
        rank = indices.type.rank
        i = clamp(indices(*index[self.axis : self.axis + rank]), x.type.shape[self.axis])
        return x(*index[: self.axis], i, *index[self.axis + rank :])


@dataclass(frozen=True)
class ScatterAdd(Op):
    """Zeros with `updates` added at `indices` along `axis`: the transpose of Gather. Positions may repeat.

    indices: int[place]   updates: [before, place, after]   result: [before, size, after]
    """

    axis: int
    size: Dim

    def infer(self, indices, updates):
        integers(indices, "ScatterAdd")
        k = self.axis
        if updates.shape[k : k + indices.rank] != indices.shape:
            raise ShapeError(f"cannot scatter {updates} at {indices} along axis {k}")
        return TensorType(updates.dtype, updates.shape[:k] + (self.size,) + updates.shape[k + indices.rank :])

    def numpy(self, env, indices, updates):
        size, k = env.size(self.size), self.axis
        shape = updates.shape[:k] + (size,) + updates.shape[k + indices.ndim :]
        moved = np.zeros((size,) + shape[:k] + shape[k + 1 :], updates.dtype)
        if size:
            where = np.clip(indices.astype(np.int64), 0, size - 1)
            np.add.at(moved, where, np.moveaxis(updates, range(k, k + indices.ndim), range(indices.ndim)))
        return np.moveaxis(moved, 0, k)

    def grad(self, g, out, indices, updates):
        return None, Gather(self.axis)(g, indices)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        indices, updates = inputs
        k, place = self.axis, indices.rank - mapped[0]
        if not mapped[0]:
            return ScatterAdd(k + 1, self.size)(indices, updates)
        updates = updates if mapped[1] else build.repeat_first(updates, size)
        first = range(k + 1, k + 1 + place)
        rest = [*range(1, k + 1), *range(k + 1 + place, updates.rank)]
        moved = build.transpose(updates, [0, *first, *rest])  # [size, place, before, after]
        total = ScatterAdd(0, size * self.size)(rows_of_lanes(indices, self.size), moved)
        total = build.reshape(total, (size, self.size, *total.shape[1:]))
        return build.transpose(total, [0, *range(2, 2 + k), 1, *range(2 + k, total.rank)])

    def kernel(self, target, out, indices, updates):
        """Zeros, then one pass over the updates for each block of columns: elements add up in the order they come in.

        On a GPU the rows of the result are dealt out too: each thread looks at all positions and takes its own.
        """
        k, count = self.axis, product(indices.shape)
        updates, total = around(updates, k, len(indices.shape)), around(out, k)
        indices = Buffer(indices.name, indices.dtype, (count,))
        before, _, after = updates.shape
        columns = Columns.of(after, out.dtype, target)
        parts = PARTS if target.kind == "cuda" else 1
        u, where = Index("u", count), Local("where", "int64")

        def add(row, rest):
            part, block = floordiv(rest, columns.blocks), modulo(rest, columns.blocks)

            def step(column, _):
                place = (row, value_size(where, self.size), column)
                return (Store(total, place, call("add", Load(total, place), Load(updates, (row, Size.of(u), column)))),)

            body = columns.each(block, step)
            if parts != 1:
                own = call("equal", call("bitwise_and", where, Const("int64", parts - 1)), value_of(part))
                body = (If(own, body),)
            return if_any(self.size, (For(u, (Let(where, clamped(Load(indices, (Size.of(u),)), self.size)), *body)),))

        body = (shared(before, parts * columns.blocks, add),)
        flops = before * parts * columns.blocks * count * REGISTERS * INSTRUCTION
        added = Kernel((indices, updates, total), (total,), body, flops, "scatter_add")
        return zeros(out, target, "scatter_add"), added


@dataclass(frozen=True)
class GatherAlong(Op):
    """x's element at `indices` along `axis`, all other axes alike: take_along_axis.

    x: [before, n, after]   indices: int[before, m, after]   result: [before, m, after]
    """

    axis: int

    def infer(self, x, indices):
        integers(indices, "GatherAlong")
        k = self.axis
        if x.rank != indices.rank or x.shape[:k] + x.shape[k + 1 :] != indices.shape[:k] + indices.shape[k + 1 :]:
            raise ShapeError(f"cannot take elements of {x} along axis {k} at {indices}")
        return TensorType(x.dtype, indices.shape)

    def numpy(self, env, x, indices):
        if x.shape[self.axis] == 0:
            return np.zeros(indices.shape, x.dtype)
        return np.take_along_axis(x, np.clip(indices.astype(np.int64), 0, x.shape[self.axis] - 1), self.axis)

    def grad(self, g, out, x, indices):
        return (ScatterAlong(self.axis, x.shape[self.axis])(indices, g) if dtypes.is_float(x.dtype) else None), None

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        both = (x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True))
        return GatherAlong(self.axis + 1)(*both)

    def element(self, index, out, x, indices):
        i = clamp(indices(*index), x.type.shape[self.axis])
        return x(*index[: self.axis], i, *index[self.axis + 1 :])


@dataclass(frozen=True)
class ScatterAlong(Op):
    """Zeros with `updates` added at `indices` along `axis`: the transpose of GatherAlong."""

    axis: int
    size: Dim

    def infer(self, indices, updates):
        integers(indices, "ScatterAlong")
        if indices.shape != updates.shape:
            raise ShapeError(f"cannot scatter {updates} at {indices}")
        return TensorType(updates.dtype, (*updates.shape[: self.axis], self.size, *updates.shape[self.axis + 1 :]))

    def numpy(self, env, indices, updates):
        size, k = env.size(self.size), self.axis
        out = np.zeros((*updates.shape[:k], size, *updates.shape[k + 1 :]), updates.dtype)
        if size:
            place = list(np.indices(updates.shape, sparse=True))
            place[k] = np.clip(indices.astype(np.int64), 0, size - 1)
            np.add.at(out, tuple(place), updates)
        return out

    def grad(self, g, out, indices, updates):
        return None, GatherAlong(self.axis)(g, indices)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        both = (x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True))
        return ScatterAlong(self.axis + 1, self.size)(*both)

    def stands_alone(self, out, indices, updates):
        n = indices.shape[self.axis]
        return not isinstance(n, int) or n > FEW

    def element(self, index, out, indices, updates):
        k = self.axis
        m = fresh_index(indices.type.shape[k]) if indices.type.shape[k] != 1 else 0
        place = (*index[:k], m, *index[k + 1 :])
        hit = call("equal", value_of(clamp(indices(*place), self.size)), value_of(index[k]))
        value = call("where", hit, updates(*place), Const(out.dtype, 0))
        return value if isinstance(m, int) else Fold("sum", (atom_of(m),), value)

    def kernel(self, target, out, indices, updates):
        """Zeros, then one pass along the axis for each block of columns: elements add up in the order they come in."""
        indices, updates, total = (around(b, self.axis) for b in (indices, updates, out))
        before, n, after = updates.shape
        together = 1 if target.kind == "cuda" or after == 1 else TOGETHER
        u, c = Index("u", n), Index("c", together)

        def add(row, block):
            column = block * together + Size.of(c)
            at = (row, Size.of(u), column)
            place = (row, clamp(Load(indices, at), self.size), column)
            step: tuple[Stmt, ...] = (Store(total, place, call("add", Load(total, place), Load(updates, at))),)
            if not isinstance(after, int) or after % together:
                step = (If(less(column, after), step),)
            return if_any(self.size, (For(u, (For(c, step),)),))

        body = (shared(before, ceildiv(after, together), add),)
        flops = before * n * after * INSTRUCTION
        added = Kernel((indices, updates, total), (total,), body, flops, "scatter_along")
        return zeros(out, target, "scatter_along"), added
