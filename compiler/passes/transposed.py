"""Transposed convolution as convolution.

The gradient of a convolution with respect to its input, and a transposed convolution, arise as Unpatch of a Contract,
which would store every window of the result. Both are convolutions: of what the windows were made from, padded, with
the kernel turned around. Where windows move by more than one element, the elements of the result fall into phases, by
their position's remainder; each phase is met by the taps of its own remainder, a small convolution, and the phases are
put side by side. Nothing is multiplied by inserted zeros.

Where all phases are alike they are filters of one convolution, whose result is then unfolded (Shi et al. 2016,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural network", 3.2).

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
from gnomon.compiler.ops.patches import Unpatch, reach
from gnomon.compiler.ops.shape import Broadcast
from gnomon.compiler.sizes import Dim, ceildiv, floordiv, maximum, modulo, non_negative

MOST_PHASES = 64
"""Convolutions that one Unpatch may become; beyond, a kernel is filled up with zeros so that its phases are alike."""


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
class Axis:
    """One axis that windows slide over, and the part of it that is wanted.

    place, tap    its numbers in the contraction: of the windows, and within a window
    whole         all phases are alike and one contraction makes them, as filters
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
    beside: int = field(default=-1)  # the number of the axis of these filters

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


def convolved(node: Node, start: Sequence[Dim], size: Sequence[Dim]) -> Node | None:
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
        Axis(product.out[at + k], taps[k], patches.shape[at + k], extents[k], op.strides[k], op.dilations[k],
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


def _filled(w: Node, product: Contract, axes: list[Axis]) -> Node:
    """The kernel with taps of 0 behind its own, so that there are as many in each phase."""
    behind = [0] * w.rank
    for a in axes:
        if not a.whole and a.dilation == 1:
            more = -a.taps % a.stride
            behind[product.w.index(a.tap)] = more
            a.taps, a.whole = a.taps + more, True
    return build.pad(w, [0] * w.rank, behind)


def _with_places_together(x: Node, product: Contract, axes: list[Axis]) -> tuple[Node, Contract]:
    """x transposed, if need be, so that the axes of the places stand side by side in their order."""
    numbers = [a.place for a in axes]
    first = product.x.index(numbers[0])
    if list(product.x[first : first + len(axes)]) == numbers:
        return x, product
    order = [n for n in product.x[:first] if n not in numbers] + numbers
    order += [n for n in product.x if n not in order]
    x = build.transpose(x, [product.x.index(n) for n in order])
    return x, Contract(tuple(order), product.w, product.out)


def _assembled(x: Node, w: Node, product: Contract, axes: list[Axis], at: int) -> Node:
    """The phases' convolutions, put side by side and cut to what is wanted."""
    filters = Filters.of(w, product, axes, at)
    begins = []
    for k, a in enumerate(axes, product.x.index(axes[0].place)):  # padded and cut once, for all phases
        met = [m for m in map(a.met_by, a.phases) if m.count]
        begins.append(min(m.begin for m in met))
        x = _part(x, k, a.first + begins[-1], a.groups + max(m.window for m in met) - begins[-1])
    joined = {
        phases: filters.unfolded(_piece(x, filters, product.x, axes, begins, phases))
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


@dataclass
class Filters:
    """The kernel with the phases of all axes that are `whole` as filters, and how to unfold what it makes.

    kernel, numbers   the kernel and the numbers of its axes
    out               the numbers of the axes of what it makes
    split             the axis of these filters -> the numbers and sizes of what it is made of
    wanted            the numbers of the axes when unfolded
    """

    kernel: Node
    numbers: list[int]
    out: list[int]
    split: dict[int, list[tuple[int, Dim]]]
    wanted: list[int]
    axes: list[Axis]

    @classmethod
    def of(cls, w: Node, product: Contract, axes: list[Axis], at: int) -> Filters:
        lead, rest = list(product.out[:at]), list(product.out[at + 2 * len(axes) :])
        places = [a.place for a in axes]
        folded = [a for a in axes if a.whole and a.stride > 1]
        fresh = max((*product.x, *product.w)) + 1
        w, numbers = _turned(w, list(product.w), [a for a in axes if a.whole], fresh)
        wanted = lead + [n for a in axes for n in ((a.place, a.beside) if a in folded else (a.place,))] + rest
        if not folded:
            return cls(w, numbers, lead + places + rest, {}, wanted, axes)
        # the filters' own axis stands beside the places, if it is not a batch axis: both are made one
        own = next((side for side in (rest[:1], lead[-1:]) if side and side[0] not in product.x), [])
        besides = [a.beside for a in folded]
        parts = own + besides if own and own == lead[-1:] else besides + own
        extent = dict(zip(numbers, w.shape, strict=True))
        order = [n for n in numbers if n not in parts]
        w = build.transpose(w, [numbers.index(n) for n in order + parts])
        w = build.reshape(w, [*(extent[n] for n in order), build.product(extent[n] for n in parts)])
        one = fresh + len(axes)
        put = lambda side: [one if [n] == own else n for n in side]
        out = put(lead) + places + ([] if own else [one]) + put(rest)
        return cls(w, [*order, one], out, {one: [(n, extent[n]) for n in parts]}, wanted, axes)

    def unfolded(self, piece: Node) -> Node:
        """What the kernel makes, with an axis of phases behind each axis whose stride is not 1."""
        numbers: list[int] = []
        shape: list[Dim] = []
        for n, d in zip(self.out, piece.shape, strict=True):
            for number, extent in self.split.get(n, [(n, d)]):
                numbers.append(number)
                shape.append(extent)
        piece = build.transpose(build.reshape(piece, shape), [numbers.index(n) for n in self.wanted])
        missing = {a.beside: a.stride - min(a.taps, a.stride) for a in self.axes if a.beside >= 0}  # met by no tap
        piece = build.pad(piece, [0] * piece.rank, [missing.get(n, 0) for n in self.wanted])
        alone = {a.place for a in self.axes if a.stride > 1 and a.beside < 0}
        shape = []
        for n, d in zip(self.wanted, piece.shape, strict=True):
            shape += [d, 1] if n in alone else [d]
        return build.reshape(piece, shape)


def _turned(w: Node, numbers: list[int], axes: list[Axis], fresh: int) -> tuple[Node, list[int]]:
    """The kernel with an axis of phases behind the taps of each of `axes` that has some, its taps turned around."""
    for k, a in enumerate(axes):
        at = numbers.index(a.tap)
        if a.stride > 1:
            a.beside = fresh + k
            numbers = [*numbers[: at + 1], a.beside, *numbers[at + 1 :]]
            count = -(-a.taps // a.stride)
            w = build.reshape(w, (*w.shape[:at], count, min(a.taps, a.stride), *w.shape[at + 1 :]))
    turned = [numbers.index(a.tap) for a in axes]
    return build.flip(w, [k for k in turned if w.shape[k] != 1]), numbers


def _piece(
    x: Node, filters: Filters, x_numbers: Sequence[int], axes: list[Axis], begins: list[int], phases: tuple[int, ...]
) -> Node:
    """One phase of each axis: the windows of x that meet it times the kernel's taps, turned. x begins at `begins`."""
    met = [a.met_by(phase) for a, phase in zip(axes, phases, strict=True)]
    w, numbers = filters.kernel, filters.numbers
    if not all(m.count for m in met):
        extent = dict(zip((*x_numbers, *numbers), x.shape + w.shape, strict=True)) | {a.place: a.groups for a in axes}
        return build.full([extent[n] for n in filters.out], 0, x.dtype)
    start, step = [0] * w.rank, [1] * w.rank
    size = list(w.shape)
    begin: list[Dim] = [0] * x.rank
    length = list(x.shape)
    first = x_numbers.index(axes[0].place)
    for k, (a, m) in enumerate(zip(axes, met, strict=True)):
        if not a.whole:
            at = numbers.index(a.tap)
            start[at], size[at] = m.tap + (m.count - 1) * m.apart, m.count
            step[at] = -m.apart if m.count > 1 else 1
        begin[first + k] = m.begin - begins[k]
        length[first + k] = a.groups + (m.count - 1) * m.dilation
    x = build.slice(x, begin, length)
    x = build.patches(x, first, [m.count for m in met], [1] * len(axes), [m.dilation for m in met])
    end = first + len(axes)
    x_axes = (*x_numbers[:end], *(a.tap for a in axes), *x_numbers[end:])
    return Contract(x_axes, tuple(numbers), tuple(filters.out))(x, build.slice(w, start, size, step))


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


__all__ = ["as_contract", "convolved"]
