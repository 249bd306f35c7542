"""Convolutions, their gradients and pooling in the forms that cost least.

The gradient of a convolution with respect to its input, and a transposed convolution, arise as Unpatch of a Contract,
which would store every window of the result. Both are convolutions: of what the windows were made from, padded, with
the kernel turned around. Where windows move by more than one element, the elements of the result fall into phases, by
their position's remainder; each phase is met by the taps of its own remainder, a small convolution, and the phases are
put side by side. Nothing is multiplied by inserted zeros.

Elements outside an array count as 0, so a kernel that holds infinity or NaN gives NaN at the border, as it does in the
convolution itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product as every
from math import gcd, prod

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.patches import FirstMax, Patches, Unpatch, reach
from gnomon.compiler.ops.shape import Broadcast, Pad, Reshape, Slice
from gnomon.compiler.passes.rewrite import Rules, number
from gnomon.compiler.sizes import Dim, ceildiv, floordiv, maximum, modulo, non_negative

MOST_PHASES = 64
"""Convolutions that one Unpatch may become; beyond, a kernel is filled up with zeros so that its phases are alike."""

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
    return _transposed(whole, [op.start[k] for k in inner], [op.size[k] for k in inner])


@forms.watch(Unpatch)
def convolve_with_the_kernel_turned(node: Node) -> Node | None:
    """unpatch(x @ w) -> patches(pad(x)) @ flip(w), by phases where windows move by more than one element."""
    assert isinstance(node.op, Unpatch)
    return _transposed(node, [0] * len(node.op.sizes), node.op.sizes)


@forms.watch(Unpatch)
def add_what_is_convolved(node: Node) -> Node | None:
    """unpatch(x @ w + y) -> unpatch(x @ w) + unpatch(y), so that nothing of a product's size is stored."""
    (x,) = node.inputs
    name = x.op.name if isinstance(x.op, Elementwise) else ""
    if name in ("add", "subtract") and any(as_contract(y) is not None for y in x.inputs):
        return build.apply(name, *(Node(node.op, (y,)) for y in x.inputs))
    return None


def as_contract(node: Node) -> tuple[Contract, Node, Node] | None:
    """A product as a Contract and its operands: also one that sums nothing and became a multiplication of repeated
    operands."""
    if isinstance(node.op, Contract):
        return node.op, node.inputs[0], node.inputs[1]
    if isinstance(node.op, Elementwise) and node.op.name == "multiply":
        x, w = node.inputs
        if isinstance(x.op, Broadcast) and isinstance(w.op, Broadcast):
            axes = tuple(range(node.rank))
            if {*x.op.axes, *w.op.axes} == set(axes):
                return Contract(x.op.axes, w.op.axes, axes), x.inputs[0], w.inputs[0]
    return None


@dataclass
class _Axis:
    """One axis that windows slide over, and the part of it that is wanted.

    place, tap    its numbers in the contraction: of the windows, and within a window
    whole         all phases are alike and one contraction makes them, side by side along an axis of its own
    """

    place: int
    tap: int
    places: Dim
    taps: int
    stride: int
    dilation: int
    start: Dim
    size: Dim
    whole: bool = False
    beside: int = field(default=-1)  # the number of the phases' axis, if it has one

    def __post_init__(self):
        self.whole = self.dilation == 1 and (self.taps % self.stride == 0 or self.taps < self.stride)

    @property
    def phases(self) -> range:
        """Those that are computed apart."""
        return range(1 if self.whole else self.stride)

    @property
    def aligned(self) -> bool:
        """Whether groups of `stride` elements are counted from 0 on; else from `start` on."""
        return self.whole or not isinstance(self.start, int)

    @property
    def first(self) -> Dim:
        """The group that what is wanted begins in."""
        return floordiv(self.start, self.stride) if self.aligned else 0

    @property
    def ahead(self) -> Dim:
        """How many elements of that group are not wanted."""
        return modulo(self.start, self.stride) if self.aligned else 0

    @property
    def groups(self) -> Dim:
        """How many groups to compute: no more than windows reach, if that can be decided."""
        wanted = ceildiv(self.ahead + self.size, self.stride)
        reached = (self.places - 1) * self.stride + reach(self.taps, self.dilation)
        reached = ceildiv(reached - (self.first * self.stride if self.aligned else self.start), self.stride)
        return reached if non_negative(wanted - reached) and non_negative(reached - 1) else wanted

    def met_by(self, phase: int) -> Met:
        """What meets the elements of a phase.

        Element q * stride + phase is met by tap k of window o where o * stride + k * dilation is that position.
        """
        if self.whole:
            return Met(0, self.stride, -(-self.taps // self.stride), 1, 0)
        shift = 0 if self.aligned else self.start
        assert isinstance(shift, int)
        later, phase = divmod(phase + shift, self.stride)
        common = gcd(self.stride, self.dilation)
        apart = self.stride // common
        first = next((k for k in range(apart) if (k * self.dilation - phase) % self.stride == 0), self.taps)
        count = max(0, -((first - self.taps) // apart))
        before = (first * self.dilation - phase) // self.stride
        return Met(first, apart, count, self.dilation // common, later - before)


@dataclass(frozen=True)
class Met:
    """The taps and windows that meet one phase's elements.

    tap, apart, count   the first tap, how far they are apart, how many there are
    dilation            how far apart the windows of neighbouring taps are
    window              of the first tap, counted from the group that the element is in
    """

    tap: int
    apart: int
    count: int
    dilation: int
    window: int

    @property
    def begin(self) -> int:
        """The first of the windows."""
        return self.window - (self.count - 1) * self.dilation


def _transposed(node: Node, start: Sequence[Dim], size: Sequence[Dim]) -> Node | None:
    """The elements from `start` on of an Unpatch, by convolutions; None if it is not of a product of two such that one
    has the windows and the other the places."""
    op, (patches,) = node.op, node.inputs
    assert isinstance(op, Unpatch)
    found = as_contract(patches)
    if found is None:
        return None
    product, x, w = found
    rank, at = len(op.sizes), op.axis
    taps = product.out[at + rank : at + 2 * rank]
    if set(taps) & set(product.x):
        product, x, w = Contract(product.w, product.x, product.out), w, x
    extents = [d for d in patches.shape[at + rank : at + 2 * rank] if isinstance(d, int)]
    if len(extents) < rank:
        return None
    axes = [
        _Axis(product.out[at + k], taps[k], patches.shape[at + k], extents[k], op.strides[k], op.dilations[k],
              start[k], size[k])
        for k in range(rank)
    ]  # fmt: skip
    apart = all(a.tap not in product.x and a.place not in product.w for a in axes)
    if not apart or any(a.place not in product.x or a.tap not in product.w for a in axes):
        return None
    if prod(len(a.phases) for a in axes) > MOST_PHASES:
        w = _filled(w, product, axes)
        if prod(len(a.phases) for a in axes) > MOST_PHASES:
            return None
    x, product = _with_places_together(x, product, axes)
    return _assembled(x, w, product, axes, at)


def _filled(w: Node, product: Contract, axes: list[_Axis]) -> Node:
    """The kernel with taps of 0 behind its own, so that there are as many in each phase."""
    behind = [0] * w.rank
    for a in axes:
        if not a.whole and a.dilation == 1:
            more = -a.taps % a.stride
            behind[product.w.index(a.tap)] = more
            a.taps, a.whole = a.taps + more, True
    return build.pad(w, [0] * w.rank, behind)


def _with_places_together(x: Node, product: Contract, axes: list[_Axis]) -> tuple[Node, Contract]:
    """x transposed, if need be, so that the axes of the places stand side by side in their order."""
    numbers = [a.place for a in axes]
    first = product.x.index(numbers[0])
    if list(product.x[first : first + len(axes)]) == numbers:
        return x, product
    order = [n for n in product.x[:first] if n not in numbers] + numbers
    order += [n for n in product.x if n not in order]
    x = build.transpose(x, [product.x.index(n) for n in order])
    return x, Contract(tuple(order), product.w, product.out)


def _assembled(x: Node, w: Node, product: Contract, axes: list[_Axis], at: int) -> Node:
    """The phases' convolutions, put side by side and cut to what is wanted."""
    fresh = max((*product.x, *product.w)) + 1
    out: list[int] = list(product.out[:at])
    w_axes = list(product.w)
    for k, a in enumerate(axes):
        out.append(a.place)
        if a.whole and a.stride > 1:
            a.beside = fresh + k
            w_axes.insert(w_axes.index(a.tap) + 1, a.beside)
            out.append(a.beside)
    lead = len(out)
    out += product.out[at + 2 * len(axes) :]
    w = build.reshape(w, _with_phases(w, product, axes))
    begins = []
    for k, a in enumerate(axes, product.x.index(axes[0].place)):  # padded and cut once, for all phases
        met = [m for m in map(a.met_by, a.phases) if m.count]
        begins.append(min(m.begin for m in met))
        x = _part(x, k, a.first + begins[-1], a.groups + max(m.window for m in met) - begins[-1])
    contract = Contract(product.x, tuple(w_axes), tuple(out))
    joined = {
        phases: _separate(_piece(x, w, contract, axes, begins, phases), axes, at, lead)
        for phases in every(*(a.phases for a in axes))
    }
    # axis k of the windows is now at + k + (how many before it are in groups), its phases behind it
    for k in reversed(range(len(axes))):
        place = at + k + sum(a.stride > 1 for a in axes[:k]) + 1
        joined = {
            phases: build.concat([joined[(*phases, p)] for p in axes[k].phases], place)
            for phases in dict.fromkeys(p[:k] for p in joined)
        }
    result = joined[()]
    rest = result.shape[at + len(axes) + sum(a.stride > 1 for a in axes) :]
    result = build.reshape(result, (*result.shape[:at], *(a.groups * a.stride for a in axes), *rest))
    start: list[Dim] = [0] * result.rank
    behind: list[Dim] = [0] * result.rank
    size = list(result.shape)
    for k, a in enumerate(axes, at):
        start[k], size[k] = a.ahead, a.size
        behind[k] = _positive(a.ahead + a.size - a.groups * a.stride)
    return build.slice(build.pad(result, [0] * result.rank, behind), start, size)


def _with_phases(w: Node, product: Contract, axes: list[_Axis]) -> list[Dim]:
    """The kernel's shape with the phases of each axis that has them all in one contraction behind its taps."""
    shape: list[Dim] = []
    for n, d in zip(product.w, w.shape, strict=True):
        axis = next((a for a in axes if a.tap == n and a.beside >= 0), None)
        shape += [d] if axis is None else [ceildiv(axis.taps, axis.stride), min(axis.taps, axis.stride)]
    return shape


def _separate(piece: Node, axes: list[_Axis], at: int, lead: int) -> Node:
    """A piece with an axis of phases behind each axis whose stride is not 1."""
    shape = list(piece.shape[:at])
    more = [0] * piece.rank
    k = at
    for a in axes:
        shape.append(piece.shape[k])
        k += 1
        if a.beside >= 0:
            more[k] = a.stride - min(a.taps, a.stride)  # phases that no tap meets
            shape.append(a.stride)
            k += 1
        elif a.stride > 1:
            shape.append(1)
    assert k == lead, (k, lead)
    return build.reshape(build.pad(piece, [0] * piece.rank, more), (*shape, *piece.shape[lead:]))


def _piece(
    x: Node, w: Node, product: Contract, axes: list[_Axis], begins: list[int], phases: tuple[int, ...]
) -> Node:
    """One phase of each axis: the windows of x that meet it times the kernel's taps, turned. x begins at `begins`."""
    met = [a.met_by(phase) for a, phase in zip(axes, phases, strict=True)]
    if not all(m.count for m in met):
        extent = dict(zip(product.x + product.w, x.shape + w.shape, strict=True)) | {a.place: a.groups for a in axes}
        return build.full([extent[n] for n in product.out], 0, x.dtype)
    start, step = [0] * w.rank, [1] * w.rank
    size = list(w.shape)
    from_: list[Dim] = [0] * x.rank
    length = list(x.shape)
    first = product.x.index(axes[0].place)
    for k, (a, m) in enumerate(zip(axes, met, strict=True)):
        at = product.w.index(a.tap)
        tap, apart = (m.tap, m.apart) if a.beside < 0 else (0, 1)  # the taps of a phase may be an axis of their own
        start[at], size[at], step[at] = tap + (m.count - 1) * apart, m.count, -apart if m.count > 1 else 1
        from_[first + k] = m.begin - begins[k]
        length[first + k] = a.groups + (m.count - 1) * m.dilation
    x = build.slice(x, from_, length)
    x = build.patches(x, first, [m.count for m in met], [1] * len(axes), [m.dilation for m in met])
    end = first + len(axes)
    x_axes = (*product.x[:end], *(a.tap for a in axes), *product.x[end:])
    return Contract(x_axes, product.w, product.out)(x, build.slice(w, start, size, step))


def _part(x: Node, axis: int, start: Dim, size: Dim) -> Node:
    """`size` elements of an axis from `start` on, 0 where x has none."""
    low: list[Dim] = [0] * x.rank
    high, begin, length = list(low), list(low), list(x.shape)
    low[axis] = _positive(-start)
    high[axis] = _positive(start + size - x.shape[axis])
    begin[axis], length[axis] = _positive(start), size
    return build.slice(build.pad(x, low, high), begin, length)


def _positive(d: Dim) -> Dim:
    """d, or 0 if it is less."""
    return d if non_negative(d) else 0 if non_negative(-d) else maximum(d, 0)


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
