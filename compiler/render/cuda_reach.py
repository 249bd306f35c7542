"""How far index arithmetic of a kernel reaches: whether 32 bits are enough for it.

A division in 64 bits costs a GPU ten times what one in 32 bits does, and every index two registers. How large indices
get depends on sizes that are known when a function is called: so a text is written for both (`gn_int`), and whoever
compiles it defines GN_WIDE where some number in its reach is not below NARROW.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

from gnomon.compiler.kernel import For, IndexValue, Kernel, Load, Stmt, statements
from gnomon.compiler.program import NARROW
from gnomon.compiler.render.cuda_launch import all_expressions
from gnomon.compiler.sizes import Dim, Pair, Size, atoms, bounds, non_negative, product


@lru_cache(maxsize=64)
def reach(kernel: Kernel) -> tuple[Dim, ...] | None:
    """Numbers that no index or size of the kernel exceeds, in named sizes: 32 bits do while all are below NARROW.

    None if that is not known, or some is not in any case.
    """
    found: set[Dim] = set()
    for d in set(_sizes(kernel)):
        top = _largest(d)
        if top is None or isinstance(top, int) and top >= NARROW:
            return None
        if isinstance(top, Size):
            found.add(top)
    kept: list[Dim] = []
    for d in sorted(found, key=lambda d: (-len(str(d)), str(d))):
        if not any(non_negative(other - d) for other in kept):
            kept = [other for other in kept if not non_negative(d - other)] + [d]
    return tuple(kept)


def _sizes(kernel: Kernel) -> Iterator[Dim]:
    """All sizes that the kernel computes, and those that they are made of."""
    for d in _written(kernel):
        yield d
        for a in atoms(d):
            if isinstance(a, Pair):
                yield a.a
                yield a.b


def _written(kernel: Kernel) -> Iterator[Dim]:
    for b in kernel.buffers:
        yield product(b.shape)
    for s in statements(kernel.body):
        yield from _of(s)
    for e in all_expressions(kernel.body):
        if isinstance(e, Load):
            yield e.buffer.offset(e.index)
        elif isinstance(e, IndexValue):
            yield e.size


def _of(s: Stmt) -> Iterator[Dim]:
    """Sizes that stand in a statement itself."""
    for f in fields(s):
        value = getattr(s, f.name)
        if isinstance(value, (int, Size)) and not isinstance(value, bool):
            yield value
        elif f.name == "index" and isinstance(value, tuple):
            yield s.buffer.offset(value)  # type: ignore[union-attr]  # a Store
        elif f.name == "index":
            yield value.extent
            if isinstance(s, For) and s.kind in ("block", "thread", "parallel"):
                yield value.extent + (1 << 12)  # the threads that have nothing to do


def _largest(d: Dim) -> Dim | None:
    """What no part of a sum and no sum of some of its parts exceeds, None if that is not known."""
    if isinstance(d, int):
        return abs(d)
    total: Dim = 0
    for monomial, c in d.terms:
        _, top = bounds(Size.build({monomial: abs(c)}))
        if top is None:
            return None
        total = total + top
    return total
