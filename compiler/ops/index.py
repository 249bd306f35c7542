"""Reading and adding at computed positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import Apply, Cast, Const, Fold, IndexValue, atom_of, fresh_index, value_size
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim


def clamp(x, extent: Dim) -> Dim:
    """An index expression kept within an axis: what memory safety needs. Range errors are for the caller to find."""
    wide = Cast("int64", x)
    low = Apply(scalar("maximum"), (wide, Const("int64", 0)))
    return value_size(Apply(scalar("minimum"), (low, IndexValue("int64", extent - 1))), extent)


def _integers(t: TensorType, what: str) -> None:
    if not dtypes.is_integer(t.dtype):
        raise DTypeError(f"{what} needs integer indices, got {t}")


@dataclass(frozen=True)
class Gather(Op):
    """x[..., indices, ...]: elements or rows of `axis` at `indices`; indices outside the axis are clamped to it.

    x: [before, n, after]   indices: int[place]   result: [before, place, after]
    """

    axis: int

    def infer(self, x, indices):
        _integers(indices, "Gather")
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"cannot gather along axis {self.axis} of {x}")
        return TensorType(x.dtype, x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :])

    def numpy(self, env, x, indices):
        if x.shape[self.axis] == 0:
            return np.zeros(x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :], x.dtype)
        return np.take(x, np.clip(indices.astype(np.int64), 0, x.shape[self.axis] - 1), self.axis)

    def grad(self, g, out, x, indices):
        return (ScatterAdd(self.axis, x.shape[self.axis])(indices, g) if dtypes.is_float(x.dtype) else None), None

    def element(self, index, out, x, indices):
        rank = indices.type.rank
        i = clamp(indices(*index[self.axis : self.axis + rank]), x.type.shape[self.axis])
        return x(*index[: self.axis], i, *index[self.axis + rank :])


@dataclass(frozen=True)
class ScatterAdd(Op):
    """Zeros with `updates` added at `indices` along `axis`: the transpose of Gather. Positions repeat, sums are in order.

    indices: int[place]   updates: [before, place, after]   result: [before, size, after]
    """

    axis: int
    size: Dim

    def infer(self, indices, updates):
        _integers(indices, "ScatterAdd")
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

    def element(self, index, out, indices, updates):
        k = self.axis
        place = [fresh_index(d) for d in indices.type.shape]
        axes = tuple(atom_of(i) for i in place)
        hit = Apply(
            scalar("equal"), (IndexValue("int64", clamp(indices(*place), self.size)), IndexValue("int64", index[k]))
        )
        value = Apply(
            scalar("where"), (hit, updates(*index[:k], *place, *index[k + 1 :]), Const(out.dtype, 0))
        )
        return Fold("sum", axes, value) if axes else value


@dataclass(frozen=True)
class GatherAlong(Op):
    """x's element at `indices` along `axis`, all other axes alike: take_along_axis.

    x: [before, n, after]   indices: int[before, m, after]   result: [before, m, after]
    """

    axis: int

    def infer(self, x, indices):
        _integers(indices, "GatherAlong")
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

    def element(self, index, out, x, indices):
        i = clamp(indices(*index), x.type.shape[self.axis])
        return x(*index[: self.axis], i, *index[self.axis + 1 :])


@dataclass(frozen=True)
class ScatterAlong(Op):
    """Zeros with `updates` added at `indices` along `axis`: the transpose of GatherAlong."""

    axis: int
    size: Dim

    def infer(self, indices, updates):
        _integers(indices, "ScatterAlong")
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

    def element(self, index, out, indices, updates):
        k = self.axis
        m = fresh_index(indices.type.shape[k]) if indices.type.shape[k] != 1 else 0
        place = (*index[:k], m, *index[k + 1 :])
        hit = Apply(
            scalar("equal"), (IndexValue("int64", clamp(indices(*place), self.size)), IndexValue("int64", index[k]))
        )
        value = Apply(scalar("where"), (hit, updates(*place), Const(out.dtype, 0)))
        return value if isinstance(m, int) else Fold("sum", (atom_of(m),), value)
