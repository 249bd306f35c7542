"""Convolutions, their gradients and pooling in the forms that cost least."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.patches import FirstMax, Patches, Unpatch
from gnomon.compiler.ops.shape import Pad, Reshape, Slice
from gnomon.compiler.passes.rewrite import Rules, number
from gnomon.compiler.passes.transposed import as_contract, convolved
from gnomon.compiler.sizes import Dim, floordiv, modulo, non_negative

cuts = Rules()  # before `forms`, which replaces what they look at
forms = Rules()


def windows(roots: Sequence[Node]) -> list[Node]:
    """The graph with no Unpatch of a Contract left, and no windows where a reshape does."""
    return forms(cuts(roots))


# ---- transposed convolution


@cuts.watch(Slice)
def convolve_for_a_part(node: Node) -> Node | None:
    """slice(unpatch(x @ w)) -> x's convolution with w turned around, for the elements of the slice only."""
    op, (whole,) = node.op, node.inputs
    assert isinstance(op, Slice)
    if not isinstance(whole.op, Unpatch) or any(s != 1 for s in op.step):
        return None
    first = whole.op.axis
    inner = range(first, first + len(whole.op.sizes))
    if any(op.start[k] != 0 or op.size[k] != whole.shape[k] for k in range(whole.rank) if k not in inner):
        return None
    return convolved(whole, [op.start[k] for k in inner], [op.size[k] for k in inner])


@forms.watch(Unpatch)
def convolve_with_the_kernel_turned(node: Node) -> Node | None:
    """unpatch(x @ w) -> patches(pad(x)) @ flip(w), by phases where windows move by more than one element."""
    assert isinstance(node.op, Unpatch)
    return convolved(node, [0] * len(node.op.sizes), node.op.sizes)


@forms.watch(Unpatch)
def add_what_is_convolved(node: Node) -> Node | None:
    """unpatch(x @ w + y) -> unpatch(x @ w) + unpatch(y), so that nothing of a product's size is stored."""
    (x,) = node.inputs
    name = x.op.name if isinstance(x.op, Elementwise) else ""
    if name in ("add", "subtract") and any(as_contract(y) is not None for y in x.inputs):
        return build.apply(name, *(Node(node.op, (y,)) for y in x.inputs))
    return None


# ---- windows that are less than that


@forms.watch(FirstMax)
def forget_which_maximum_is_first(node: Node) -> Node | None:
    """first_max(x) -> max(x), differentiation being over."""
    assert isinstance(node.op, FirstMax)
    return build.reduce("max", node.inputs[0], node.op.axes)


@forms.watch(Patches)
def take_windows_apart(node: Node) -> Node | None:
    """patches(x) -> transpose(reshape(x)), x cut to whole windows, where windows lie side by side;
    patches(x) -> x[::stride] where they have one element."""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Patches)
    rank, axis = len(op.windows), op.axis
    end = axis + rank
    if all(k == 1 for k in op.windows):
        step = [1] * x.rank
        step[axis:end] = op.strides
        shape = node.shape[:end] + node.shape[end + rank :]
        return build.reshape(build.slice(x, [0] * x.rank, shape, step), node.shape)
    if any(k != s or (d != 1 and k != 1) for k, s, d in zip(op.windows, op.strides, op.dilations, strict=True)):
        return None
    outer = node.shape[axis:end]
    whole = [n * k for n, k in zip(outer, op.windows, strict=True)]
    x = build.slice(x, [0] * x.rank, (*x.shape[:axis], *whole, *x.shape[end:]))
    split = [d for pair in zip(outer, op.windows, strict=True) for d in pair]
    x = build.reshape(x, (*x.shape[:axis], *split, *x.shape[end:]))
    return build.transpose(x, _sorted_pairs(axis, rank, x.rank))


def _sorted_pairs(axis: int, count: int, rank: int) -> list[int]:
    """The order that brings pairs of axes from `axis` on to all their firsts, then all their seconds."""
    inner = [axis + 2 * k for k in range(count)] + [axis + 2 * k + 1 for k in range(count)]
    return [*range(axis), *inner, *range(axis + 2 * count, rank)]


@forms.watch(Unpatch)
def put_windows_together(node: Node) -> Node | None:
    """unpatch(x) -> pad(reshape(transpose(x))) where windows lie side by side."""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Unpatch)
    rank, axis = len(op.sizes), op.axis
    outer, taps = x.shape[axis : axis + rank], x.shape[axis + rank : axis + 2 * rank]
    if any(k != s or (d != 1 and k != 1) for k, s, d in zip(taps, op.strides, op.dilations, strict=True)):
        return None
    order = _sorted_pairs(axis, rank, x.rank)
    x = build.transpose(x, [order.index(k) for k in range(x.rank)])
    whole = [n * k for n, k in zip(outer, taps, strict=True)]
    x = build.reshape(x, (*x.shape[:axis], *whole, *x.shape[axis + 2 * rank :]))
    return build.pad(x, [0] * x.rank, [have - d for have, d in zip(node.shape, x.shape, strict=True)])


@forms.watch(Contract)
def contract_less(node: Node) -> Node | None:
    """contract(x, w) -> reshape(contract) without the axes of one element: those that are summed over, and those of the
    result that a reshape has put there. Windows stay as they are."""
    op = node.op
    assert isinstance(op, Contract)
    x, w = node.inputs
    if isinstance(x.op, Patches) or isinstance(w.op, Patches):
        return None
    extent = dict(zip(op.x + op.w, x.shape + w.shape, strict=True))
    put = lambda a: all(isinstance(v.op, Reshape) for v, axes in zip((x, w), (op.x, op.w), strict=True) if a in axes)
    ones = {a for a, d in extent.items() if d == 1 and (a not in op.out or put(a))}
    if not ones or ones >= set(op.summed):
        return None
    kept = [tuple(a for a in axes if a not in ones) for axes in (op.x, op.w, op.out)]
    operands = (build.reshape(v, [extent[a] for a in axes]) for v, axes in zip((x, w), kept, strict=False))
    return build.reshape(Contract(*kept)(*operands), node.shape)


# ---- padding


@forms.watch(Pad)
def join_pads(node: Node) -> Node | None:
    """pad(pad(x)) -> pad(x) of the same value;  pad(x) by nothing -> x;  pad(number) of that number -> number."""
    op, (x, value) = node.op, node.inputs
    assert isinstance(op, Pad)
    if all(v == 0 for v in (*op.low, *op.high)) and all(
        i == 0 or d == 1 for i, d in zip(op.interior, x.shape, strict=True)
    ):
        return x
    if number(x) is not None and number(value) is not None and number(x) == number(value):
        return build.full(node.shape, number(x), node.dtype)
    if not isinstance(x.op, Pad) or x.inputs[1] is not value or any(op.interior):
        return None
    low = [a + b for a, b in zip(op.low, x.op.low, strict=True)]
    high = [a + b for a, b in zip(op.high, x.op.high, strict=True)]
    return Pad(tuple(low), tuple(high), x.op.interior)(x.inputs[0], value)


@forms.watch(Slice)
def slice_what_was_padded(node: Node) -> Node | None:
    """slice(pad(x)) -> slice(x) where it takes nothing of the padding, -> the padding's value where it takes nothing
    else. A slice that takes of both stays: others may read what was padded, which is then made once."""
    op, (padded,) = node.op, node.inputs
    assert isinstance(op, Slice)
    if not isinstance(padded.op, Pad):
        return None
    x, value = padded.inputs
    starts: list[Dim] = []
    steps: list[int] = []
    inside = True
    for low, between, begin, size, step, extent in zip(
        padded.op.low, padded.op.interior, op.start, op.size, op.step, x.shape, strict=True
    ):
        first, spread = begin - low, 1
        if between:
            if step != between + 1 or modulo(first, step) != 0:
                return None
            first, spread = floordiv(first, step), step
        starts.append(first)
        steps.append(step // spread)
        last = first + (size - 1) * steps[-1]
        least, most = (first, last) if step > 0 else (last, first)
        if non_negative(least - extent) or non_negative(-1 - most):
            return build.broadcast(value, node.shape, ())
        inside = inside and non_negative(least) and non_negative(extent - 1 - most)
    return build.slice(x, starts, op.size, steps) if inside else None


__all__ = ["windows"]
