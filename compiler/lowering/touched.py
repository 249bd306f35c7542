"""What a kernel touches of its buffers: all of most, but of a table that is read at places given by data only those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from gnomon.compiler.kernel import (
    Buffer,
    Expr,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Store,
    Value,
    expressions,
    statements,
)
from gnomon.compiler.sizes import Dim, atoms, product

_known: WeakKeyDictionary[Kernel, dict[str, Dim]] = WeakKeyDictionary()


def touched(kernel: Kernel) -> dict[str, Dim]:
    """By name, the buffers of which every place depends on data, and how many elements of them are touched at most."""
    found = _known.get(kernel)
    if found is None:
        found = _known[kernel] = _found(kernel)
    return found


def _found(kernel: Kernel) -> dict[str, Dim]:
    known: dict[str, Expr] = {}  # what is named
    roots: list[Expr] = []
    accesses: list[tuple[Buffer, Sequence[Dim]]] = []
    for s in statements(kernel.body):
        match s:
            case Let():
                known[s.local.name] = s.value
                roots.append(s.value)
            case If():
                roots.append(s.condition)
            case Store():
                accesses.append((s.buffer, s.index))
                roots += [s.value, *(v.x for v in _values(s.index))]
    accesses += [(e.buffer, e.index) for e in expressions(roots) if isinstance(e, Load)]
    counts: dict[str, Dim | None] = {}
    for buffer, index in accesses:
        if counts.get(buffer.name, 0) is not None:
            counts[buffer.name] = _elements(buffer, index, known)
    return {name: n for name, n in counts.items() if n is not None}


def _values(index: Iterable[Dim]) -> list[Value]:
    return list(dict.fromkeys(a for i in index for a in atoms(i) if isinstance(a, Value)))


def _elements(buffer: Buffer, index: Sequence[Dim], known: Mapping[str, Expr]) -> Dim | None:
    """Rows as many as there are numbers that say which; None for all."""
    values = _values(index)
    if len(values) != 1 or not isinstance(values[0].extent, int) or not values[0].extent:
        return None
    inside = expressions([values[0].x])
    inside += expressions([known[e.name] for e in inside if isinstance(e, Local) and e.name in known])
    numbers = [e.buffer for e in inside if isinstance(e, Load) and e.buffer.space == "global"]
    if not numbers:
        return None
    return product(numbers[-1].shape) * (product(buffer.shape) // values[0].extent)
