"""Reductions over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler import dtypes, kernel
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import Fold, atom_of, fresh_index

NUMPY: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all}


@dataclass(frozen=True)
class Reduce(Op):
    """Sum, product, maximum, minimum, any or all over `axes`, which vanish. NaN wins a maximum, as in NumPy.

    An empty sum is 0, an empty maximum the lowest value of the dtype.
    """

    kind: str
    axes: tuple[int, ...]

    def infer(self, x):
        if any(not 0 <= a < x.rank for a in self.axes) or len(set(self.axes)) != len(self.axes):
            raise ShapeError(f"cannot reduce axes {list(self.axes)} of {x}")
        if (self.kind in ("any", "all")) != (x.dtype == "bool"):
            raise DTypeError(f"{self.kind} cannot reduce {x}")
        return TensorType(x.dtype, tuple(d for k, d in enumerate(x.shape) if k not in self.axes))

    def numpy(self, env, x):
        if x.size == 0 and self.kind in ("max", "min"):
            row = dtypes.named(x.dtype.name)
            shape = [d for k, d in enumerate(x.shape) if k not in self.axes]
            return np.full(shape, kernel.IDENTITY[self.kind](row), x.dtype)
        if x.dtype == np.float16:
            return NUMPY[self.kind](x.astype(np.float32), self.axes).astype(np.float16)
        with np.errstate(over="ignore", invalid="ignore"):
            extra = {"dtype": x.dtype} if self.kind in ("sum", "prod") else {}
            return NUMPY[self.kind](x, self.axes, **extra)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        if not dtypes.is_float(x.dtype):
            return (None,)
        kept = [k for k in range(x.rank) if k not in self.axes]
        spread = lambda y: build.broadcast(y, x.shape, kept)
        if self.kind == "sum":
            return (spread(g),)
        if self.kind == "prod":
            return (_product_gradient(spread(g), spread(out), x, self.axes),)
        chosen = build.equal(x, spread(out))  # ties share the gradient evenly
        count = build.reduce("sum", build.cast(chosen, x.dtype), self.axes)
        return (build.where(chosen, spread(build.divide(g, count)), 0.0),)

    def batch(self, size, inputs, mapped):
        return Reduce(self.kind, tuple(a + 1 for a in self.axes))(*inputs)

    def element(self, index, out, x):
        place = list(index)
        axes = []
        for a in sorted(self.axes):
            i = fresh_index(x.type.shape[a])
            axes.append(atom_of(i))
            place.insert(a, i)
        return Fold(self.kind, tuple(axes), x(*place))

    def __repr__(self) -> str:
        return f"{self.kind}{list(self.axes)}"


def _product_gradient(g, product, x, axes):
    """g times the product of the other elements: product / x, and where there are zeros, worked out apart."""
    from gnomon.compiler.ops import build

    kept = [k for k in range(x.rank) if k not in axes]
    zero = build.equal(x, 0.0)
    zeros = build.broadcast(build.reduce("sum", build.cast(zero, x.dtype), axes), x.shape, kept)
    nonzero = build.reduce("prod", build.where(zero, 1.0, x), axes)
    others = build.broadcast(nonzero, x.shape, kept)
    safe = build.where(zero, 1.0, x)
    single = build.where(build.logical_and(zero, build.equal(zeros, 1.0)), others, 0.0)
    return build.multiply(g, build.where(build.equal(zeros, 0.0), build.divide(product, safe), single))
