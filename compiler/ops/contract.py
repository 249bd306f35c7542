"""Sums of products: every product of matrices, batched or not, and its gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import Apply, Cast, Fold, atom_of, fresh_index
from gnomon.compiler.ops.scalar import scalar

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Contract(Op):
    """Sum of products over the axes that `out` leaves out: a two-operand einsum.

    `x` and `w` number the axes of the operands, `out` those of the result; a number in both operands but not in `out`
    is summed over, one in both and in `out` is a batch axis. Matrix product: x=(0, 1), w=(1, 2), out=(0, 2).
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    out: tuple[int, ...]

    def infer(self, x, w):
        if len(self.x) != x.rank or len(self.w) != w.rank:
            raise ShapeError(f"{self} cannot contract {x} and {w}")
        if x.dtype != w.dtype:
            raise DTypeError(f"cannot contract {x} and {w}: the dtypes differ")
        extent = dict(zip(self.x, x.shape, strict=True))
        for axis, d in zip(self.w, w.shape, strict=True):
            if extent.setdefault(axis, d) != d:
                raise ShapeError(
                    f"cannot multiply {x} and {w}: axis {self.x.index(axis)} of the first has {extent[axis]} elements, "
                    f"axis {self.w.index(axis)} of the second {d}"
                )
        return TensorType(x.dtype, tuple(extent[a] for a in self.out))

    @property
    def summed(self) -> tuple[int, ...]:
        """Axes summed over, in x's order, then w's own."""
        return tuple(dict.fromkeys(a for a in self.x + self.w if a not in self.out))

    def numpy(self, env, x, w):
        text = "{},{}->{}".format(*("".join(LETTERS[a] for a in axes) for axes in (self.x, self.w, self.out)))
        if x.dtype == np.bool_:
            return np.einsum(text, x.astype(np.int64), w.astype(np.int64)).astype(bool)
        wide = np.float32 if x.dtype == np.float16 else x.dtype
        with np.errstate(over="ignore", invalid="ignore"):
            return np.einsum(text, x.astype(wide), w.astype(wide), optimize=True).astype(x.dtype)

    def grad(self, g, out, x, w):
        from gnomon.compiler.ops import build

        if not dtypes.is_float(x.dtype):
            return None, None
        extent = dict(zip(self.x + self.w, x.shape + w.shape, strict=True))

        def towards(axes, other, other_axes):
            """Contract g with the other operand; an axis that neither has was summed alone: repeat along it."""
            have = [a for a in axes if a in self.out or a in other_axes]
            part = Contract(self.out, other_axes, tuple(have))(g, other)
            return build.broadcast(part, tuple(extent[a] for a in axes), [axes.index(a) for a in have])

        return towards(self.x, w, self.w), towards(self.w, x, self.x)

    def batch(self, size, inputs, mapped):
        lane = max((*self.x, *self.w), default=-1) + 1
        first = lambda axes, own: (lane, *axes) if own else axes
        return Contract(first(self.x, mapped[0]), first(self.w, mapped[1]), (lane, *self.out))(*inputs)

    def element(self, index, out, x, w):
        place = dict(zip(self.out, index, strict=True))
        extent = dict(zip(self.x + self.w, x.type.shape + w.type.shape, strict=True))
        axes = []
        for a in self.summed:
            place[a] = fresh_index(extent[a])
            axes.append(atom_of(place[a]))
        left, right = x(*(place[a] for a in self.x)), w(*(place[a] for a in self.w))
        compute = dtypes.named(out.dtype).compute
        if compute != out.dtype:
            left, right = Cast(compute, left), Cast(compute, right)
        name = "logical_and" if out.dtype == "bool" else "multiply"
        product = Apply(scalar(name), (left, right))
        total = Fold("any" if out.dtype == "bool" else "sum", tuple(axes), product) if axes else product
        return total if compute == out.dtype else Cast(out.dtype, total)

    def __repr__(self) -> str:
        return "Contract({},{}->{})".format(*("".join(LETTERS[a] for a in t) for t in (self.x, self.w, self.out)))
