"""Minimal filtering: sums of products of neighbours with fewer multiplications.

m outputs of a filter of r taps take m + r - 1 multiplications instead of m r: y = A' [(G w) * (B' d)] for the filter w
and the m + r - 1 inputs d. The matrices come from evaluating polynomials at m + r - 2 points and at infinity.

Winograd 1980, "Arithmetic Complexity of Computations", chapter 5; Blahut 2010, "Fast Algorithms for Signal Processing",
section 5.4 (Toom and Cook); Lavin, Gray 2015, "Fast Algorithms for Convolutional Neural Networks", section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import Apply, Buffer, Const, Expr, For, If, Let, Local, Rewriter, Stmt
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.tiles import Product, loads
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv
from gnomon.compiler.targets import Target

PLANE = 16
"""Numbers of a cache line, by which planes are moved apart."""

Matrix = tuple[tuple[float, ...], ...]


class Matrices(NamedTuple):
    """A' [outputs, points], G [points, taps], B' [points, points]."""

    a: Matrix
    g: Matrix
    b: Matrix


@cache
def matrices(outputs: int, taps: int) -> Matrices:
    """Those of `outputs` outputs of a filter of `taps` taps; the points are small, for that keeps errors small."""
    count = outputs + taps - 2
    points = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")[:count]]
    assert len(points) == count, (outputs, taps)

    def polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
        """The coefficients of the product of (x - root), the constant first."""
        c = [Fraction(1)]
        for root in roots:
            c = [u - root * v for u, v in zip([Fraction(0), *c], [*c, Fraction(0)], strict=True)]
        return c

    a = [[p**i for p in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    g, b = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        g.append([p**k / scale for k in range(taps)])
        b.append([*polynomial(others), Fraction(0)])
    g.append([Fraction(k == taps - 1) for k in range(taps)])
    b.append(polynomial(points))
    floats = lambda m: tuple(tuple(float(x) for x in row) for row in m)
    return Matrices(floats(a), floats(g), floats(b))


def transposed(m: Matrix) -> Matrix:
    return tuple(zip(*m, strict=True))


class Filtering:
    """What schedules by minimal filtering share: a product taken apart, and how its parts are transformed."""

    def __init__(self, p: Product, target: Target, constant: frozenset[str]):
        self.p, self.target, self.constant = p, target, constant
        self.dtype = p.total.dtype
        self.lanes = target.lanes(dtypes.named(self.dtype).bits)

    def _constant(self) -> bool:
        """Whether the filters stay the same."""
        return all(b.name in self.constant for b in loads([self.p.right]))

    def _blocks(self, axis: Index, body: tuple[Stmt, ...]) -> Stmt:
        """`body` for all of an axis, by vectors."""
        block, vector = Index("block", ceildiv(axis.extent, self.lanes)), Index(f"l{self.lanes}", self.lanes)
        return For(block, (self._vector(axis, Size.of(block) * self.lanes + Size.of(vector), vector, body),))

    def _vector(self, axis: Index, at: Dim, vector: Index, body: tuple[Stmt, ...]) -> Stmt:
        """`body` where `axis` is `at`, if it is not beyond the last."""
        inside = Rewriter(index=lambda a: at if a is axis else None).body(body)
        if axis.extent % self.lanes:
            inside = (If(less(at, axis.extent), inside),)
        return For(vector, inside, "vector")

    def _multiplied(
        self, taps: Sequence[Expr], m: Matrix, store: Callable[[int, Expr], Stmt]
    ) -> tuple[Stmt, ...]:
        """`store` of each element of m taps."""
        named = [Local(f"d{k}", self.dtype) for k in range(len(taps))]
        lets = [Let(name, e) for name, e in zip(named, taps, strict=True)]
        return (*lets, *(store(i, self._combined(row, named)) for i, row in enumerate(m)))

    def _transformed(
        self, taps: Sequence[Sequence[Expr]], m: Matrix, store: Callable[[int, int, Expr], Stmt]
    ) -> tuple[Stmt, ...]:
        """`store` of each element of m taps m'."""
        columns = range(len(taps))
        body: list[Stmt] = []

        def named(name: str, e: Expr) -> Local:
            local = Local(name, self.dtype)
            body.append(Let(local, e))
            return local

        half: list[list[Local]] = [[] for _ in m]
        for j in columns:
            tap = [named(f"d{i}{j}", taps[i][j]) for i in columns]
            for i, row in enumerate(m):
                half[i].append(named(f"h{i}{j}", self._combined(row, tap)))
        for i in range(len(m)):
            for j, row in enumerate(m):
                body.append(store(i, j, self._combined(row, half[i])))
        return tuple(body)

    def _combined(self, factors: Sequence[float], values: Sequence[Expr]) -> Expr:
        """The sum of factors * values."""
        pairs = [(f, v) for f, v in zip(factors, values, strict=True) if f]
        pairs.sort(key=lambda pair: abs(pair[0]) != 1 or pair[0] < 0)  # begin with a plain one
        total: Expr | None = None
        for f, v in pairs:
            if total is None:
                total = v if f == 1 else Apply(scalar("multiply"), (Const(self.dtype, f), v))
            elif abs(f) == 1:
                total = Apply(scalar("add" if f > 0 else "subtract"), (total, v))
            else:
                total = Apply(scalar("fma"), (Const(self.dtype, f), v, total))
        assert total is not None
        return total


def apart(size: Dim) -> Dim:
    """How far planes of `size` numbers are apart: not a power of two, or all compete for the same places of a cache."""
    return size + PLANE


def planes(count: int, size: Dim, name: str, dtype: str) -> Buffer:
    """Memory of `count` planes."""
    return Buffer(name, dtype, (count * apart(size),))
