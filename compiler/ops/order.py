"""Order along an axis: which place each element would have, and what has come before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Node, Op, TensorType
from gnomon.compiler.kernel import (
    COMBINE,
    Alloc,
    Buffer,
    Cast,
    Const,
    Fold,
    For,
    IndexValue,
    Kernel,
    Load,
    Store,
    atom_of,
    fresh_index,
)
from gnomon.compiler.ops.control import WALKS
from gnomon.compiler.ops.radix import ranking
from gnomon.compiler.ops.writing import INSTRUCTION, Columns, around, call, converted, shared
from gnomon.compiler.sizes import Index, Size

FEW = 64
"""Elements of an axis up to which each is compared with all others: vectors do that sooner than sorting."""


def _check_axis(op: Op, axis: int, x: TensorType) -> None:
    if not 0 <= axis < x.rank:
        raise ShapeError(f"{op} needs the axis {axis}, but {x} has {x.rank} axes")


@dataclass(frozen=True)
class Rank(Op):
    """How many elements of `axis` come before each one: its place in sorted order. Equal ones keep their order.

    NaN counts as the largest.   x: [before, n, after]   result: int32, as x
    """

    axis: int
    descending: bool = False

    def infer(self, x):
        _check_axis(self, self.axis, x)
        return TensorType("int32", x.shape)

    def numpy(self, env, x):
        if self.descending:  # a stable sort of the reversed axis, read backwards, keeps equal elements in order
            order = x.shape[self.axis] - 1 - np.argsort(np.flip(x, self.axis), self.axis, kind="stable")
            order = np.flip(order, self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        ranks = np.empty(x.shape, np.int32)
        place = np.arange(x.shape[self.axis], dtype=np.int32)
        place = place.reshape([-1 if k == self.axis else 1 for k in range(x.ndim)])
        np.put_along_axis(ranks, order, np.broadcast_to(place, x.shape), self.axis)
        return ranks

    def grad(self, g, out, x):
        return (None,)

    def batch(self, size, inputs, mapped):
        return Rank(self.axis + 1, self.descending)(*inputs)

    def element(self, index, out, x):
        k = self.axis
        other_index = fresh_index(x.type.shape[k])
        own, other = x(*index), x(*index[:k], other_index, *index[k + 1 :])
        before = call("greater" if self.descending else "less", other, own)
        same = call("equal", other, own)
        if dtypes.is_float(x.type.dtype):
            own_nan, other_nan = call("isnan", own), call("isnan", other)
            ahead, behind = (other_nan, own_nan) if self.descending else (own_nan, other_nan)
            before = call("logical_or", before, call("logical_and", ahead, call("logical_not", behind)))
            same = call("logical_or", same, call("logical_and", own_nan, other_nan))
        earlier = call("less", IndexValue("int64", other_index), IndexValue("int64", index[k]))
        counted = call("logical_or", before, call("logical_and", same, earlier))
        return Fold("sum", (atom_of(other_index),), Cast("int32", counted))

    def stands_alone(self, out, x):
        n = x.shape[self.axis]
        return not isinstance(n, int) or n > FEW

    def kernel(self, target, out, x):
        return (ranking(target, around(out, self.axis), around(x, self.axis), self.descending),)


@dataclass(frozen=True)
class Cumulate(Op):
    """The sum or product of each element and all before it along `axis`; with `reverse`, and all behind it."""

    kind: str
    axis: int
    reverse: bool = False

    def infer(self, x):
        _check_axis(self, self.axis, x)
        if self.kind not in ("sum", "prod") or x.dtype == "bool":
            raise DTypeError(f"{self} of {x}: running sums and products are of numbers")
        return x

    def numpy(self, env, x):
        wide = np.float32 if x.dtype == np.float16 else x.dtype
        turned = np.flip(x, self.axis) if self.reverse else x
        with np.errstate(over="ignore", invalid="ignore"):
            total = (np.cumsum if self.kind == "sum" else np.cumprod)(turned, self.axis, dtype=wide)
        return (np.flip(total, self.axis) if self.reverse else total).astype(x.dtype)

    def grad(self, g, out, x):
        if not dtypes.is_float(x.dtype):
            return (None,)
        if self.kind == "sum":
            return (Cumulate("sum", self.axis, not self.reverse)(g),)
        # a product of which one factor is 0 has a gradient too: that of the reduction which it is
        return tuple(WALKS["vjp"]([_as_reduction(self, x)], [g], [x]))

    def batch(self, size, inputs, mapped):
        return Cumulate(self.kind, self.axis + 1, self.reverse)(*inputs)

    def kernel(self, target, out, x):
        """One pass along the axis with the totals of a block of columns in registers."""
        x, out = around(x, self.axis), around(out, self.axis)
        before, n, after = x.shape
        columns = Columns.of(after, out.dtype, target)
        compute = dtypes.named(out.dtype).compute
        totals = Buffer("totals", compute, (columns.width,), "register")
        i = Index("i", n)
        at = n - 1 - Size.of(i) if self.reverse else Size.of(i)

        def start(_, c):
            return (Store(totals, (c,), Const(compute, 0 if self.kind == "sum" else 1)),)

        def pass_along(row, block):
            def step(column, c):
                element = Load(x, (row, at, column))
                total = call(COMBINE[self.kind], Load(totals, (c,)), converted(element, compute))
                return (
                    Store(totals, (c,), total),
                    Store(out, (row, at, column), converted(Load(totals, (c,)), out.dtype)),
                )

            return (*columns.each(block, start), For(i, columns.each(block, step)))

        flops = before * n * columns.blocks * INSTRUCTION
        body = (Alloc(totals), shared(before, columns.blocks, pass_along))
        return (Kernel((x,), (out,), body, flops, f"cumulate_{self.kind}"),)

    def __repr__(self) -> str:
        return f"Cumulate({self.kind}[{self.axis}]{', reverse' if self.reverse else ''})"


def _as_reduction(op: Cumulate, x: Node) -> Node:
    """The same running result as a Reduce over a new axis, of which each element masks what it does not count."""
    from gnomon.compiler.ops import build

    n, last = x.shape[op.axis], x.rank
    wide = (*x.shape, n)  # [before, i, after, j]: element j counts for i
    value = build.broadcast(x, wide, [last if k == op.axis else k for k in range(last)])
    # x has one axis that is now last: the axis i of the result is free to repeat it
    upto = build.apply(
        "greater_equal" if op.reverse else "less_equal", build.iota(wide, last), build.iota(wide, op.axis)
    )
    return build.reduce(op.kind, build.where(upto, value, build.constant(op.kind == "prod", x.dtype)), [last])
