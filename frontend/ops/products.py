"""Sums of products: matmul, dot, tensordot, einsum and their like."""

from __future__ import annotations

from itertools import count
from typing import Any

from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.shape import surely_differ
from gnomon.ops.arguments import as_axes, as_axis, together
from gnomon.tensor import node_of, op


def _pair(x1: Any, x2: Any) -> tuple[Node, Node]:
    x, w = together(x1, x2)
    return x, w


def contracted(x: Node, w: Node, x_axes: list[int], w_axes: list[int], out: list[int]) -> Node:
    """A product with its axes numbered; sizes of one number that are not known to be equal are checked at each call."""
    extent = dict(zip(x_axes, x.shape, strict=True))
    for a, d in zip(w_axes, w.shape, strict=True):
        if a in extent and surely_differ(extent[a], d):
            raise ShapeError(
                f"cannot multiply {x.type} and {w.type}: axis {x_axes.index(a)} of the first has {extent[a]} elements, "
                f"axis {w_axes.index(a)} of the second {d}"
            )
    w = build.equate(w, [extent.get(a, d) for a, d in zip(w_axes, w.shape, strict=True)])
    return build.contract(x, w, x_axes, w_axes, out)


@op
def matmul(x1, x2):
    """Rows by columns: [..., m, k] by [..., k, n] gives [..., m, n]; leading axes broadcast."""
    x, w = _pair(x1, x2)
    return build.matmul(x, w)


@op
def dot(x1, x2):
    """The sum of products over the last axis of x1 and the next to last (or only) axis of x2."""
    x, w = _pair(x1, x2)
    if not x.rank or not w.rank:
        return build.multiply(x, w)
    k = x.rank - 1
    at = max(w.rank - 2, 0)
    w_axes = [k if a == at else x.rank + a for a in range(w.rank)]
    out = [*range(k), *(a for a in w_axes if a != k)]
    return contracted(x, w, list(range(x.rank)), w_axes, out)


@op
def vdot(x1, x2):
    """The sum of products of all elements."""
    x, w = _pair(x1, x2)
    x, w = (build.reshape(v, (build.product(v.shape),)) for v in (x, w))
    return contracted(x, w, [0], [0], [])


@op
def inner(x1, x2):
    """The sum of products over the last axes of both."""
    x, w = _pair(x1, x2)
    if not x.rank or not w.rank:
        return build.multiply(x, w)
    k = x.rank - 1
    w_axes = [*range(x.rank, x.rank + w.rank - 1), k]
    return contracted(x, w, list(range(x.rank)), w_axes, [*range(k), *w_axes[:-1]])


@op
def outer(x1, x2):
    """All products of an element of x1 with one of x2, both flattened: [n, m]."""
    x, w = (build.reshape(v, (build.product(v.shape),)) for v in _pair(x1, x2))
    return build.contract(x, w, [0], [1], [0, 1])


@op
def tensordot(x1, x2, axes=2):
    """The sum of products over the last `axes` axes of x1 and the first of x2, or over the given axes of each."""
    x, w = _pair(x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.rank, w.rank):
            raise ShapeError(f"tensordot of {x.type} and {w.type} cannot sum over {axes} axes")
        left, right = tuple(range(x.rank - axes, x.rank)), tuple(range(axes))
    else:
        left, right = as_axes(x, axes[0]), as_axes(w, axes[1])
        if len(left) != len(right):
            raise ShapeError(f"tensordot needs as many axes of the first operand as of the second, got {axes}")
    names = dict(zip(right, left, strict=True))
    w_axes = [names.get(a, x.rank + a) for a in range(w.rank)]
    out = [*(a for a in range(x.rank) if a not in left), *(a for a in w_axes if a >= x.rank)]
    return contracted(x, w, list(range(x.rank)), w_axes, out)


@op
def kron(x1, x2):
    """Kronecker's product: each element of x1 times the whole of x2, as blocks."""
    x, w = _pair(x1, x2)
    rank = max(x.rank, w.rank)
    a = (1,) * (rank - x.rank) + x.shape
    b = (1,) * (rank - w.rank) + w.shape
    first = build.reshape(x, [d for n in a for d in (n, 1)])
    second = build.reshape(w, [d for n in b for d in (1, n)])
    return build.reshape(build.multiply(first, second), [m * n for m, n in zip(a, b, strict=True)])


@op
def cross(x1, x2, axisa=-1, axisb=-1, axisc=-1, axis=None):
    """The vector product along `axis` (axisa of x1, axisb of x2, axisc of the result), of 3 (or 2) components."""
    from gnomon.ops.shaping import cut, joined, moved

    x, w = _pair(x1, x2)
    if axis is not None:
        axisa = axisb = axisc = axis
    x, w = moved(x, axisa, -1), moved(w, axisb, -1)
    for v in (x, w):
        if v.shape[-1] not in (2, 3):
            raise ShapeError(f"cross needs 2 or 3 components, got {v.type}")

    def component(v: Node, k: int) -> Node:
        last = v.rank - 1
        if k == 2 and v.shape[-1] == 2:
            return build.full(v.shape[:-1], 0, v.dtype)
        return cut(v, last, k, 1, drop=True)

    (a0, a1, a2), (b0, b1, b2) = ([component(v, k) for k in range(3)] for v in (x, w))
    def minor(p, q, r, s):
        return build.subtract(build.multiply(p, s), build.multiply(q, r))
    third = minor(a0, a1, b0, b1)
    if x.shape[-1] == 2 and w.shape[-1] == 2:
        return third
    parts = [minor(a1, a2, b1, b2), minor(a2, a0, b2, b0), third]
    result = joined([build.reshape(p, (*p.shape, 1)) for p in parts], -1)
    return moved(result, -1, axisc)


# ---- einsum


@op
def einsum(subscripts, *operands, **kwargs):
    """Einstein's sum: `einsum("bij,bjk->bik", x, w)`; '...' stands for leading axes, which broadcast.

    More than two operands are multiplied from left to right; an axis is summed as soon as no later operand has it.
    """
    if kwargs:
        raise ArgumentError(f"einsum takes no option {next(iter(kwargs))!r}")
    nodes = together(*operands)
    terms, out = _parse(subscripts, nodes)
    parts = [_without_repeats(x, t) for x, t in zip(nodes, terms, strict=True)]
    parts = _aligned(parts)
    value, names = parts[0]
    for k, (w, w_names) in enumerate(parts[1:], 1):
        later = {n for _, rest in parts[k + 1 :] for n in rest} | set(out)
        value, names = _summed(value, names, later | set(w_names))
        w, w_names = _summed(w, w_names, later | set(names))
        kept = [n for n in dict.fromkeys((*names, *w_names)) if n in later]
        value, names = contracted(value, w, names, w_names, kept), kept
    value, names = _summed(value, names, set(out))
    return build.transpose(value, [names.index(n) for n in out])


def _parse(subscripts: str, nodes: list[Node]) -> tuple[list[list[int]], list[int]]:
    """Numbers for the axes of each operand and of the result."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise ArgumentError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(nodes)}")
    numbers = count()
    letters: dict[str, int] = {}
    most = 0
    for term, x in zip(terms, nodes, strict=True):
        named = len(term.replace("...", ""))
        if named > x.rank or ("..." not in term and named != x.rank):
            raise ShapeError(f"einsum {subscripts!r}: {term!r} names {named} axes of {x.type}, which has {x.rank}")
        most = max(most, x.rank - named) if "..." in term else most
    dots = [next(numbers) for _ in range(most)]

    def read(term: str, rank: int | None) -> list[int]:
        before, has, after = term.partition("...")
        for letter in before + after:
            if not letter.isalpha():
                raise ArgumentError(f"einsum {subscripts!r}: {letter!r} is not a letter")
            if letter not in letters:
                letters[letter] = next(numbers)
        extra = 0 if not has else most if rank is None else rank - len(before) - len(after)
        return [*(letters[c] for c in before), *dots[most - extra :], *(letters[c] for c in after)]

    found = [read(term, x.rank) for term, x in zip(terms, nodes, strict=True)]
    if arrow:
        unknown = [c for c in right.replace("...", "") if c not in letters]
        if unknown:
            raise ArgumentError(f"einsum {subscripts!r}: {unknown[0]!r} of the result is in no operand")
        return found, read(right, None)
    once = sorted(c for c in letters if left.count(c) == 1)
    return found, [*dots, *(letters[c] for c in once)]


def _without_repeats(x: Node, names: list[int]) -> tuple[Node, list[int]]:
    """A number that stands twice in one operand means its diagonal."""
    from gnomon.ops.shaping import _diagonal

    while len(set(names)) < len(names):
        name = next(n for n in names if names.count(n) > 1)
        first = names.index(name)
        second = names.index(name, first + 1)
        if surely_differ(x.shape[first], x.shape[second]):
            raise ShapeError(f"einsum: the axes {first} and {second} of {x.type} have one letter but different sizes")
        x = build.equate(x, [x.shape[first] if k == second else d for k, d in enumerate(x.shape)])
        x = _diagonal(x, 0, first, second)
        names = [*(n for k, n in enumerate(names) if k not in (first, second)), name]
    return x, names


def _aligned(parts: list[tuple[Node, list[int]]]) -> list[tuple[Node, list[int]]]:
    """Axes of size 1 that stand for a longer one elsewhere are dropped: their element is the same for all."""
    extent: dict[int, Any] = {}
    for x, names in parts:
        for n, d in zip(names, x.shape, strict=True):
            if extent.get(n, 1) == 1:
                extent[n] = d
    result = []
    for x, names in parts:
        kept = [k for k, n in enumerate(names) if not (x.shape[k] == 1 and extent[n] != 1)]
        result.append((build.reshape(x, [x.shape[k] for k in kept]), [names[k] for k in kept]))
    return result


def _summed(x: Node, names: list[int], needed: set[int]) -> tuple[Node, list[int]]:
    axes = [k for k, n in enumerate(names) if n not in needed]
    return (build.sum(x, tuple(axes)), [n for n in names if n in needed]) if axes else (x, names)


@op
def trapezoid(y, x=None, dx=1.0, axis=-1):
    """The integral of y along `axis` by the trapezoid rule, at positions x or at distances dx."""
    from gnomon.ops.arguments import floating
    from gnomon.ops.shaping import cut

    y = floating(node_of(y))
    at = as_axis(y, axis)
    n = y.shape[at]
    mean = build.multiply(build.add(cut(y, at, 1, n - 1), cut(y, at, 0, n - 1)), 0.5)
    if x is None:
        return build.multiply(build.sum(mean, at), dx)
    x = build.cast(node_of(x), y.dtype)
    if x.rank == 1:
        step = build.subtract(cut(x, 0, 1, x.shape[0] - 1), cut(x, 0, 0, x.shape[0] - 1))
        step = build.reshape(step, [step.shape[0] if k == at else 1 for k in range(y.rank)])
    else:
        step = build.subtract(cut(x, at, 1, n - 1), cut(x, at, 0, n - 1))
    return build.sum(build.multiply(mean, step), at)
