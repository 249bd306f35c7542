"""Convolutions by cuDNN: of two axes, windows of 3 x 3 and larger, channels a multiple of 8.

A convolution is a sum over windows of a stored array [N, H, W, C], padded if need be by whoever made it: cuDNN pads by
nothing. The gradient for the input is a convolution too when it comes here, its kernel turned around. cuDNN wants
kernels as [K, R, S, C], so another kernel writes them that way first (once, where they stay the same), whatever order
or direction they are in; the gradient for a kernel it gives in this form, and what is done with it follows.

    cudnn.forward            y[n, p, q, k] = act(alpha * sum of x[n, at(p, r), at(q, s), c] w[k, r, s, c] + bias[k])
                             inputs x, w, bias if there is one
    cudnn.backward_filter    w[k, r, s, c] = alpha * sum of x[n, at(p, r), at(q, s), c] g[n, p, q, k]
                             inputs x, g
    where at(p, r) = p * stride + r * dilation
        n, h, w, c          sizes of x
        k, r, s, p, q       filters, the windows' size, how many there are
        stride_h, stride_w, dilation_h, dilation_w, alpha, bias ('yes', 'no'), epilogue ('none', 'relu'), compute
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.compiler.kernel import Buffer, Load
from gnomon.compiler.lowering.cuda_call import Call, Place, Work, elementwise
from gnomon.compiler.lowering.cuda_epilogue import Epilogue, Offers, epilogue_of
from gnomon.compiler.lowering.cuda_parts import mentioned
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.ops.patches import places
from gnomon.compiler.sizes import Dim, Index, Size, product

CHANNELS = 8
"""Tensor cores take channels by so many, and so do cuDNN's quick kernels."""
WINDOW = 3
"""Taps of a window along each axis, at least: a product does the rest."""


def convolution(work: Work) -> list[Piece | Call] | None:
    """What computes a convolution or its kernel's gradient with cuDNN; None if a row program is neither."""
    if not work.is_large:
        return None
    for x, other in ((work.sums.left, work.sums.right), (work.sums.right, work.sums.left)):
        made = _forward(work, x, other) or _backward_filter(work, x, other)
        if made is not None:
            return made
    return None


@dataclass(frozen=True)
class _Side:
    """An axis that windows slide over: their number, and the taps of one. `place` is None if there is one window."""

    place: Index | None
    tap: Index
    stride: int
    dilation: int
    extent: Dim

    @property
    def count(self) -> Dim:
        return self.place.extent if self.place is not None else 1


@dataclass(frozen=True)
class _Windows:
    """x[n, h, w, c] read in windows; `batch` is None if there is one picture."""

    buffer: Buffer
    batch: Index | None
    high: _Side
    wide: _Side
    channel: Index

    @property
    def places(self) -> tuple[Index, ...]:
        """Axes of the result [n, p, q] that have more than one element."""
        return tuple(a for a in (self.batch, self.high.place, self.wide.place) if a is not None)

    @property
    def taps(self) -> tuple[Index, Index, Index]:
        return self.high.tap, self.wide.tap, self.channel


def _windows(x: Load, placing: Sequence[Index], tapping: Sequence[Index]) -> _Windows | None:
    """How an array is read in windows, the windows numbered by `placing` and their elements by `tapping`."""
    if len(x.index) != 4:
        return None
    steps = []
    for d in x.index:
        found = Place.at(x.buffer, d, (*placing, *tapping))
        if found is None or found.base != 0:
            return None
        steps.append(found.steps)
    first, *sides, last = steps
    if len(last) != 1 or len(first) > 1 or any(s != 1 for s in (*first.values(), *last.values())):
        return None
    batch, channel = next(iter(first), None), next(iter(last))
    if batch in tapping or channel not in tapping:
        return None
    made = []
    for found_steps, extent in zip(sides, x.buffer.shape[1:3], strict=True):
        place = [a for a in found_steps if a in placing]
        tap = [a for a in found_steps if a in tapping]
        if len(tap) != 1 or len(place) > 1 or not isinstance(tap[0].extent, int) or tap[0].extent < WINDOW:
            return None
        stride = found_steps[place[0]] if place else 1
        dilation = found_steps[tap[0]]
        if not isinstance(stride, int) or not isinstance(dilation, int) or stride < 1 or dilation < 1:
            return None
        side = _Side(place[0] if place else None, tap[0], stride, dilation, extent)
        if places(extent, tap[0].extent, stride, dilation) != side.count:
            return None
        made.append(side)
    found_windows = _Windows(x.buffer, batch, made[0], made[1], channel)
    used = [*found_windows.places, *found_windows.taps]
    return found_windows if len(set(used)) == len(used) else None


def _by_eights(*axes: Index) -> bool:
    return all(isinstance(a.extent, int) and a.extent % CHANNELS == 0 for a in axes)


def _forward(work: Work, x: Load, w: Load) -> list[Piece | Call] | None:
    """A convolution of x: what writes its kernel as cuDNN wants it, the convolution, and what is left."""
    of = _windows(x, work.outer[:-1], work.sums.axes)
    filters = work.outer[-1]
    if of is None or set(of.taps) != set(work.sums.axes) or len(work.sums.axes) != 3:
        return None
    if of.places != work.outer[:-1] or mentioned(w) != {filters, *of.taps} or not _by_eights(of.channel, filters):
        return None
    epilogue = epilogue_of(work.sums, Offers(lambda load: load.index == (Size.of(filters),), acts=("relu",)))
    if epilogue.act != "none" and epilogue.bias is None:
        epilogue = epilogue_of(work.sums, Offers())
    result, rest = work.result(epilogue)
    if result.dtype != x.dtype or rest and not work.pays_in_two():
        return None
    order = (filters, *of.taps)
    kernel = Buffer("filters", x.dtype, tuple(a.extent for a in order))
    packing = work.generated(elementwise(order, [(kernel, tuple(Size.of(a) for a in order), w)]))
    packing.scratch, packing.early = (kernel,), w.buffer.name in work.constant
    reads = [x.buffer, kernel, *([epilogue.bias.buffer] if epilogue.bias is not None else [])]
    call = _call(work, "cudnn.forward", of, filters, epilogue, reads, result)
    return [packing, call, *([work.kernel_of(rest)] if rest else [])]


def _backward_filter(work: Work, x: Load, g: Load) -> list[Piece | Call] | None:
    """The gradient of a convolution's kernel as cuDNN gives it, and what is done with it."""
    of = _windows(x, work.sums.axes, work.outer)
    if of is None or set(of.places) != set(work.sums.axes):
        return None
    others = [a for a in work.outer if a not in of.taps]
    if len(others) != 1 or len(work.outer) != 4 or not _by_eights(of.channel, others[0]):
        return None
    filters = others[0]
    count = of.batch.extent if of.batch is not None else 1
    shape = (count, of.high.count, of.wide.count, filters.extent)
    at = tuple(0 if a is None else Size.of(a) for a in (of.batch, of.high.place, of.wide.place, filters))
    if g.buffer.shape != shape or g.index != at:
        return None
    order = (filters, *of.taps)
    kernel = Buffer("filters", x.dtype, tuple(a.extent for a in order))
    epilogue = epilogue_of(work.sums, Offers())
    if epilogue.value.dtype != x.dtype or not work.pays_in_two():
        return None
    call = _call(work, "cudnn.backward_filter", of, filters, epilogue, [x.buffer, g.buffer], kernel)
    return [call, work.kernel_of(work.rest(epilogue, Load(kernel, tuple(Size.of(a) for a in order))))]


def _call(
    work: Work, name: str, of: _Windows, filters: Index, epilogue: Epilogue, reads: Sequence[Buffer], result: Buffer
) -> Call:
    count = of.batch.extent if of.batch is not None else 1
    sizes: list[tuple[str, Dim | str]] = [
        ("n", count), ("h", of.high.extent), ("w", of.wide.extent), ("c", of.channel.extent), ("k", filters.extent),
        ("r", of.high.tap.extent), ("s", of.wide.tap.extent), ("p", of.high.count), ("q", of.wide.count),
        ("stride_h", of.high.stride), ("stride_w", of.wide.stride),
        ("dilation_h", of.high.dilation), ("dilation_w", of.wide.dilation),
        ("alpha", repr(epilogue.alpha)), ("bias", "no" if epilogue.bias is None else "yes"),
        ("epilogue", epilogue.act), ("compute", work.compute),
    ]  # fmt: skip
    flops = 2 * product((count, of.high.count, of.wide.count, filters.extent, *(a.extent for a in of.taps)))
    stored = any(b is result for b, _, _ in work.sums.stores)
    others = () if stored else (result,)
    return Call(name, tuple(reads), (result,), tuple(sizes), work.workspace(), flops, work.label, others)


__all__ = ["convolution"]
