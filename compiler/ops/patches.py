"""Windows that slide over axes: what convolution and pooling are made of.

A convolution is Pad (if any), Patches, Contract; pooling is Patches and a reduction. The two ops here are each other's
transpose, so that all gradients of both are made of the same few ops.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as every
from typing import overload

import numpy as np

from gnomon.compiler import dtypes, kernel
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, Shape, TensorType
from gnomon.compiler.kernel import Apply, Cast, Const, Fold, atom_of, fresh_index
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.ops.shape import compare, guard
from gnomon.compiler.sizes import Dim, ceildiv, floordiv, modulo


@overload
def reach(window: int, dilation: int) -> int: ...
@overload
def reach(window: Dim, dilation: int) -> Dim: ...
def reach(window: Dim, dilation: int) -> Dim:
    """How many elements a window spans, those between its own included."""
    return dilation * (window - 1) + 1


def places(extent: Dim, window: Dim, stride: int, dilation: int) -> Dim:
    """How many windows there are along an axis."""
    return floordiv(extent - reach(window, dilation), stride) + 1


def _check(op: Op, t: TensorType, axis: int, *given: tuple) -> int:
    """How many axes the windows slide over, if there are that many and a number for each."""
    rank = len(given[0])
    numbers = [n for g in given for n in g if isinstance(n, int)]
    if any(len(g) != rank for g in given) or not 0 <= axis <= t.rank - rank or any(n < 1 for n in numbers):
        raise ShapeError(f"{op} does not fit {t}")
    return rank


@dataclass(frozen=True)
class Patches(Op):
    """All windows that fit into consecutive axes of x from `axis` on.

    x: [lead, L1..Ld, rest]   result: [lead, O1..Od, K1..Kd, rest]
    K is the size of a window, O = floor((L - dilation * (K - 1) - 1) / stride) + 1; window o has the elements
    x[.., o * stride + k * dilation, ..].
    """

    axis: int
    windows: Shape
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    def infer(self, x):
        rank = _check(self, x, self.axis, self.windows, self.strides, self.dilations)
        end = self.axis + rank
        found = []
        for extent, window, stride, dilation in zip(
            x.shape[self.axis : end], self.windows, self.strides, self.dilations, strict=True
        ):
            found.append(places(extent, window, stride, dilation))
            if isinstance(found[-1], int) and found[-1] < 0:
                raise ShapeError(
                    f"windows of {reach(window, dilation)} elements do not fit into the {extent} of axis "
                    f"{self.axis + len(found) - 1} of {x}"
                )
        return TensorType(x.dtype, (*x.shape[: self.axis], *found, *self.windows, *x.shape[end:]))

    def numpy(self, env, x):
        rank = len(self.windows)
        index = []
        for k, window in enumerate(env.shape(self.windows)):
            last = x.shape[self.axis + k] - reach(window, self.dilations[k])
            place = np.arange(0, last + 1, self.strides[k])[:, None] + np.arange(window) * self.dilations[k]
            shape = [1] * (2 * rank)
            shape[k], shape[rank + k] = place.shape
            index.append(place.reshape(shape))
        return x[(np.s_[:],) * self.axis + tuple(index)]

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        extents = x.shape[self.axis : self.axis + len(self.windows)]
        return (build.unpatch(g, self.axis, extents, self.strides, self.dilations),)

    def batch(self, size, inputs, mapped):
        return Patches(self.axis + 1, self.windows, self.strides, self.dilations)(*inputs)

    def element(self, index, out, x):
        rank, axis = len(self.windows), self.axis
        outer, inner = index[axis : axis + rank], index[axis + rank : axis + 2 * rank]
        place = (
            o * stride + k * dilation
            for o, k, stride, dilation in zip(outer, inner, self.strides, self.dilations, strict=True)
        )
        return x(*index[:axis], *place, *index[axis + 2 * rank :])


@dataclass(frozen=True)
class Unpatch(Op):
    """Windows laid over axes of `sizes` elements, added where they overlap, 0 where none is: Patches' transpose.

    x: [lead, O1..Od, K1..Kd, rest]   result: [lead, sizes, rest]
    """

    axis: int
    sizes: Shape
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    def infer(self, x):
        rank, axis = len(self.sizes), self.axis
        if x.dtype == "bool":
            raise DTypeError(f"{self} adds, which {x} cannot")
        _check(self, x, axis, self.strides, self.dilations)
        outer, windows = x.shape[axis : axis + rank], x.shape[axis + rank : axis + 2 * rank]
        if len(self.strides) != rank or len(windows) != rank:
            raise ShapeError(f"{self} does not fit {x}")
        for n, extent, window, stride, dilation in zip(
            outer, self.sizes, windows, self.strides, self.dilations, strict=True
        ):
            wanted = places(extent, window, stride, dilation)
            if n != wanted:
                raise ShapeError(
                    f"windows of {reach(window, dilation)} elements lie at {wanted} places of {extent} elements, but "
                    f"{x} has {n} of them"
                )
        return TensorType(x.dtype, (*x.shape[:axis], *self.sizes, *x.shape[axis + 2 * rank :]))

    def numpy(self, env, x):
        rank, axis = len(self.sizes), self.axis
        lead, rest = x.shape[:axis], x.shape[axis + 2 * rank :]
        outer, windows = x.shape[axis : axis + rank], x.shape[axis + rank : axis + 2 * rank]
        total = np.zeros((*lead, *env.shape(self.sizes), *rest), dtypes.named(x.dtype.name).compute)
        if 0 in outer:
            return total.astype(x.dtype)
        before = (np.s_[:],) * axis
        for k in every(*map(range, windows)):
            place = tuple(
                slice(i * dilation, i * dilation + (n - 1) * stride + 1, stride)
                for i, n, stride, dilation in zip(k, outer, self.strides, self.dilations, strict=True)
            )
            total[before + place] += x[before + (np.s_[:],) * rank + k]
        return total.astype(x.dtype)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        start = self.axis + len(self.sizes)
        windows = x.shape[start : start + len(self.sizes)]
        return (build.patches(g, self.axis, windows, self.strides, self.dilations),)

    def batch(self, size, inputs, mapped):
        return Unpatch(self.axis + 1, self.sizes, self.strides, self.dilations)(*inputs)

    def element(self, index, out, x):
        rank, axis = len(self.sizes), self.axis
        outer, windows = x.type.shape[axis : axis + rank], x.type.shape[axis + rank : axis + 2 * rank]
        inside: kernel.Expr = Const("bool", True)
        both = scalar("logical_and")
        found: list[Dim] = []
        taps: list[Dim] = []
        axes = []
        for at, n, window, stride, dilation in zip(
            index[axis : axis + rank], outer, windows, self.strides, self.dilations, strict=True
        ):
            tap: Dim
            if dilation == 1:  # the taps that meet this element are its remainder by the stride and every stride-th on
                count = ceildiv(window, stride)
                step = fresh_index(count) if count != 1 else 0
                place = floordiv(at, stride) - step
                tap = modulo(at, stride) + step * stride
                if modulo(window, stride) != 0:
                    inside = Apply(both, (inside, compare("less", tap, window)))
            else:
                step = tap = fresh_index(window) if window != 1 else 0
                place = floordiv(at - tap * dilation, stride)
                if stride != 1:
                    inside = Apply(both, (inside, compare("equal", modulo(at - tap * dilation, stride), 0)))
            if window != 1:
                inside = Apply(both, (inside, compare("greater_equal", place, 0)))
            inside = Apply(both, (inside, compare("less", place, n)))
            if not isinstance(step, int):
                axes.append(atom_of(step))
            found.append(place)
            taps.append(tap)
        value = guard(x(*index[:axis], *found, *taps, *index[axis + rank :]), inside)
        compute = dtypes.named(out.dtype).compute
        if compute != out.dtype:
            value = Cast(compute, value)
        value = Apply(scalar("where"), (inside, value, Const(compute, 0)))
        total = Fold("sum", tuple(axes), value) if axes else value
        return total if compute == out.dtype else Cast(out.dtype, total)


@dataclass(frozen=True)
class FirstMax(Op):
    """The maximum over `axes`, which vanish; of equal maxima the first in row-major order alone has a gradient.

    That is what pooling wants: Reduce, for which equal maxima are equals, shares it among them.
    """

    axes: tuple[int, ...]

    def infer(self, x):
        return self.plain.infer(x)

    @property
    def plain(self) -> Reduce:
        """The same maximum, differentiation being over."""
        return Reduce("max", self.axes)

    def numpy(self, env, x):
        return self.plain.numpy(env, x)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        if not dtypes.is_float(x.dtype):
            return (None,)
        kept = [k for k in range(x.rank) if k not in self.axes]
        spread = lambda y: build.broadcast(y, x.shape, kept)
        hit = build.logical_or(build.equal(x, spread(out)), build.isnan(x))
        number = build.full(x.shape, 0, "int32")
        for a in self.axes:
            size = build.broadcast(build.size(x.shape[a], "int32"), x.shape, ())
            number = build.add(build.multiply(number, size), build.iota(x.shape, a))
        first = build.reduce("min", build.where(hit, number, (1 << 31) - 1), self.axes)
        return (build.where(build.equal(number, spread(first)), spread(g), 0),)

    def batch(self, size, inputs, mapped):
        return FirstMax(tuple(a + 1 for a in self.axes))(*inputs)

    def element(self, index, out, x):
        return self.plain.element(index, out, x)

