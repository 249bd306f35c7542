"""Ops that only move elements: their element rule is arithmetic on indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler import kernel
from gnomon.compiler.errors import DataError, ShapeError
from gnomon.compiler.graph import Op, Shape, TensorType
from gnomon.compiler.kernel import Apply, Const, IndexValue
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, ceildiv, floordiv, modulo, product


@dataclass(frozen=True)
class Broadcast(Op):
    """Axis i of x becomes axis `axes[i]` of the result; its other axes repeat x. No axis of x is stretched."""

    shape: Shape
    axes: tuple[int, ...]

    def infer(self, x):
        if len(self.axes) != x.rank or any(self.shape[a] != d for a, d in zip(self.axes, x.shape, strict=True)):
            raise ShapeError(f"cannot broadcast {x} to {list(self.shape)} along axes {list(self.axes)}")
        return TensorType(x.dtype, self.shape)

    def numpy(self, env, x):
        shape = env.shape(self.shape)
        order = np.argsort(self.axes)
        x = np.transpose(x, order)
        kept = sorted(self.axes)
        return np.broadcast_to(x.reshape([shape[k] if k in kept else 1 for k in range(len(shape))]), shape)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        total = build.reduce("sum", g, [k for k in range(out.rank) if k not in self.axes])
        kept = sorted(self.axes)
        return (build.transpose(total, [kept.index(a) for a in self.axes]),)

    def batch(self, size, inputs, mapped):
        return Broadcast((size, *self.shape), (0, *(a + 1 for a in self.axes)))(*inputs)

    def element(self, index, out, x):
        return x(*(index[a] for a in self.axes))


@dataclass(frozen=True)
class Equate(Op):
    """x under another spelling of its shape: sizes that the graph cannot show to be equal, checked at each call."""

    shape: Shape

    def infer(self, x):
        if x.rank != len(self.shape) or any(surely_differ(a, b) for a, b in zip(x.shape, self.shape, strict=True)):
            raise ShapeError(f"{x} cannot have the shape [{', '.join(map(str, self.shape))}]")
        return TensorType(x.dtype, self.shape)

    def numpy(self, env, x):
        if x.shape != env.shape(self.shape):
            raise DataError(
                f"sizes must be equal for an operation on both: [{', '.join(map(str, self.shape))}] is "
                f"{list(env.shape(self.shape))} here, but the other operand has the shape {list(x.shape)}"
            )
        return x

    def grad(self, g, out, x):
        return (Equate(x.shape)(g),)

    def batch(self, size, inputs, mapped):
        return Equate((size, *self.shape))(*inputs)

    def element(self, index, out, x):
        return x(*index)


def surely_differ(a: Dim, b: Dim) -> bool:
    """Whether two sizes differ for all values of the names in them."""
    difference = a - b
    return isinstance(difference, int) and difference != 0


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape."""

    shape: Shape

    def infer(self, x):
        if product(x.shape) != product(self.shape):
            raise ShapeError(f"cannot reshape {x} to [{', '.join(map(str, self.shape))}]: another number of elements")
        return TensorType(x.dtype, self.shape)

    def numpy(self, env, x):
        return np.reshape(x, env.shape(self.shape))

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        return (build.reshape(g, x.shape),)

    def batch(self, size, inputs, mapped):
        return Reshape((size, *self.shape))(*inputs)

    def element(self, index, out, x):
        return x(*reindex(index, self.shape, x.type.shape))


def reindex(index: tuple[Dim, ...], shape: Shape, wanted: Shape) -> list[Dim]:
    """Index into `wanted` of the element that has `index` in `shape`, the two having the same elements in order.

    Axes are matched in groups of equal product, so that an axis that stays, or is split, or is merged with its
    neighbour, needs no division by what is outside its group.
    """
    result: list[Dim] = []
    for (a0, a1), (b0, b1) in groups(shape, wanted):
        if b0 == b1:
            continue
        if b1 - b0 == 1 and a1 - a0 == 1:
            result.append(index[a0])
            continue
        linear: Dim = 0
        for k in range(a0, a1):
            linear = linear * shape[k] + index[k]
        rest: list[Dim] = []
        for k in range(b1 - 1, b0, -1):
            rest.append(modulo(linear, wanted[k]) if wanted[k] != 1 else 0)
            linear = floordiv(linear, wanted[k])
        rest.append(linear)
        result.extend(reversed(rest))
    return result


def groups(a: Shape, b: Shape) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut two shapes with equal products into as many consecutive groups of equal products as can be decided."""
    cuts: list[tuple[tuple[int, int], tuple[int, int]]] = []
    i = j = i0 = j0 = 0
    left: Dim = 1
    right: Dim = 1
    while i < len(a) or j < len(b):
        if i < len(a) and (j == len(b) or not _ahead(left, right)):
            left, i = left * a[i], i + 1
        else:
            right, j = right * b[j], j + 1
        if left == right and i > i0 - 1:
            while i < len(a) and a[i] == 1:
                i += 1
            while j < len(b) and b[j] == 1:
                j += 1
            cuts.append(((i0, i), (j0, j)))
            i0, j0, left, right = i, j, 1, 1
    if left != right and not cuts:
        return [((0, len(a)), (0, len(b)))]
    if i0 < len(a) or j0 < len(b):
        cuts.append(((i0, len(a)), (j0, len(b))))
    return cuts


def _ahead(left: Dim, right: Dim) -> bool:
    """Whether the left product already reaches further: take from the right next."""
    if isinstance(left, int) and isinstance(right, int):
        return left > right
    if isinstance(left, int):
        return False
    if isinstance(right, int):
        return True
    return len(left.terms[0][0]) > len(right.terms[0][0]) or (
        len(left.terms[0][0]) == len(right.terms[0][0]) and left.terms[0][1] > right.terms[0][1]
    )


@dataclass(frozen=True)
class Transpose(Op):
    """Axis k of the result is axis `axes[k]` of x."""

    axes: tuple[int, ...]

    def infer(self, x):
        if sorted(self.axes) != list(range(x.rank)):
            raise ShapeError(f"cannot transpose {x} by {list(self.axes)}")
        return TensorType(x.dtype, tuple(x.shape[a] for a in self.axes))

    def numpy(self, env, x):
        return np.transpose(x, self.axes)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        return (build.transpose(g, [self.axes.index(k) for k in range(out.rank)]),)

    def batch(self, size, inputs, mapped):
        return Transpose((0, *(a + 1 for a in self.axes)))(*inputs)

    def element(self, index, out, x):
        return x(*(index[self.axes.index(k)] for k in range(len(index))))


@dataclass(frozen=True)
class Slice(Op):
    """`size[k]` elements of each axis from `start[k]` on, every `step[k]`-th; a negative step runs backwards."""

    start: tuple[Dim, ...]
    size: Shape
    step: tuple[int, ...]

    def infer(self, x):
        if not len(self.start) == len(self.size) == len(self.step) == x.rank:
            raise ShapeError(f"cannot slice {x} with {len(self.size)} ranges")
        for k, (start, size, step, have) in enumerate(zip(self.start, self.size, self.step, x.shape, strict=True)):
            last = start + (size - 1) * step if size != 0 else start
            numbers = [n for n in (start, last) if isinstance(n, int)]
            outside = any(n < 0 or (isinstance(have, int) and n >= have) for n in numbers)
            if size != 0 and outside:
                raise ShapeError(f"slice from {start} of {size} elements by {step} leaves axis {k} of {x}")
        return TensorType(x.dtype, self.size)

    def numpy(self, env, x):
        take = []
        for start, size, step in zip(self.start, self.size, self.step, strict=True):
            first, n = env.size(start), env.size(size)
            stop = first + n * step
            take.append(slice(first, None if stop < 0 else stop, step) if n else slice(0, 0))
        return x[tuple(take)]

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        turned = [k for k, s in enumerate(self.step) if s < 0]
        g = build.flip(g, turned)
        low, high = [], []
        for start, size, step, have in zip(self.start, self.size, self.step, x.shape, strict=True):
            last = start + (size - 1) * step
            first, end = (last, start) if step < 0 else (start, last)
            low.append(first)
            high.append(have - 1 - end)
        return (build.pad(g, low, high, [abs(s) - 1 for s in self.step]),)

    def batch(self, size, inputs, mapped):
        return Slice((0, *self.start), (size, *self.size), (1, *self.step))(*inputs)

    def element(self, index, out, x):
        return x(*(start + i * step for i, start, step in zip(index, self.start, self.step, strict=True)))


@dataclass(frozen=True)
class Pad(Op):
    """`low[k]` elements of `value` before, `high[k]` behind and `interior[k]` between the elements of each axis."""

    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    interior: tuple[int, ...]

    def infer(self, x, value):
        if not len(self.low) == len(self.high) == len(self.interior) == x.rank or value.rank or value.dtype != x.dtype:
            raise ShapeError(f"cannot pad {x} by {list(self.low)}, {list(self.high)} with {value}")
        shape = tuple(
            low + d + (d - 1) * between + high
            for d, low, high, between in zip(x.shape, self.low, self.high, self.interior, strict=True)
        )
        return TensorType(x.dtype, shape)

    def numpy(self, env, x, value):
        low = env.shape(self.low)
        shape = [
            b + d + max(d - 1, 0) * i + a
            for d, b, a, i in zip(x.shape, low, env.shape(self.high), self.interior, strict=True)
        ]
        out = np.full(shape, value, x.dtype)
        place = tuple(
            slice(b, b + d + (d - 1) * i, i + 1) if d else slice(0, 0)
            for d, b, i in zip(x.shape, low, self.interior, strict=True)
        )
        out[place] = x
        return out

    def grad(self, g, out, x, value):
        from gnomon.compiler.ops import build

        inner = build.slice(g, self.low, x.shape, [i + 1 for i in self.interior])
        return inner, build.subtract(build.sum(g), build.sum(inner))

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        x, value = inputs
        op = Pad((0, *self.low), (0, *self.high), (0, *self.interior))
        if not mapped[1]:
            return op(x, value)
        x = x if mapped[0] else build.repeat_first(x, size)
        inside = op(build.full(x.shape, True, "bool"), build.constant(False))
        return build.where(inside, op(x, build.constant(0, x.dtype)), build.broadcast(value, inside.shape, [0]))

    def element(self, index, out, x, value):
        inside: kernel.Expr = Const("bool", True)
        place: list[Dim] = []
        both = scalar("logical_and")
        for i, low, high, between, have in zip(index, self.low, self.high, self.interior, x.type.shape, strict=True):
            at = i - low
            if between:
                inside = Apply(both, (inside, compare("equal", modulo(at, between + 1), 0)))
                at = floordiv(at, between + 1)
            if low != 0 or between:
                inside = Apply(both, (inside, compare("greater_equal", at, 0)))
            if high != 0 or between:
                inside = Apply(both, (inside, compare("less", at, have)))
            place.append(at)
        return Apply(scalar("where"), (inside, guard(x(*place), inside), value()))


def compare(name: str, a: Dim, b: Dim) -> kernel.Expr:
    return Apply(scalar(name), (IndexValue("int64", a), IndexValue("int64", b)))


def guard(x: kernel.Expr, condition: kernel.Expr) -> kernel.Expr:
    """`x` with nothing read where `condition` is false: there its value means nothing and must not be used."""
    both = scalar("logical_and")

    def masked(e: kernel.Expr) -> kernel.Expr | None:
        if not isinstance(e, kernel.Load):
            return None
        index = tuple(rewriter.size(i) for i in e.index)  # positions may be loaded too
        return kernel.Load(e.buffer, index, condition if e.mask is None else Apply(both, (e.mask, condition)))

    rewriter = kernel.Rewriter(masked)
    return rewriter.expr(x)


@dataclass(frozen=True)
class Concat(Op):
    """Inputs one behind the other along `axis`."""

    axis: int

    def infer(self, *types):
        first = types[0]
        for t in types[1:]:
            alike = t.rank == first.rank and t.dtype == first.dtype
            if not alike or any(
                a != b for k, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if k != self.axis
            ):
                raise ShapeError(f"cannot concatenate {' and '.join(map(str, types))} along axis {self.axis}")
        total: Dim = 0
        for t in types:
            total = total + t.shape[self.axis]
        return TensorType(first.dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]))

    def numpy(self, env, *arrays):
        return np.concatenate(arrays, self.axis)

    def grad(self, g, out, *inputs):
        from gnomon.compiler.ops import build

        parts, start = [], 0
        for x in inputs:
            begin: list[Dim] = [0] * out.rank
            begin[self.axis] = start
            parts.append(build.slice(g, begin, x.shape, [1] * out.rank))
            start = start + x.shape[self.axis]
        return tuple(parts)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        parts = (x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True))
        return Concat(self.axis + 1)(*parts)

    def element(self, index, out, *inputs):
        ends, end = [], 0
        for x in inputs:
            end = end + x.type.shape[self.axis]
            ends.append(end)
        result = None
        for x, end in reversed(list(zip(inputs, ends, strict=True))):
            start = end - x.type.shape[self.axis]
            place = list(index)
            place[self.axis] = index[self.axis] - start
            inside = compare("less", index[self.axis], end)
            if start != 0:
                inside = Apply(scalar("logical_and"), (compare("greater_equal", index[self.axis], start), inside))
            value = guard(x(*place), inside)
            result = value if result is None else Apply(scalar("where"), (inside, value, result))
        return result


def strided_size(extent: Dim, start: Dim, stop: Dim, step: int) -> Dim:
    """How many elements `start:stop:step` takes, all within the axis."""
    return ceildiv(stop - start, step) if step > 0 else ceildiv(start - stop, -step)
