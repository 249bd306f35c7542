"""Products by cublasLt: matrices with a leading dimension, and an epilogue. `cuda_library` tells what a step says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gnomon.compiler.kernel import Buffer, Load
from gnomon.compiler.lowering.cuda_call import Call, Parameters, Place, Work, elementwise, typical
from gnomon.compiler.lowering.cuda_epilogue import Epilogue, Offers, epilogue_of
from gnomon.compiler.lowering.cuda_parts import extent_of, mentioned
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, non_negative, product

EACH = 2 * 64**3
"""The same for each product of a batch."""
NARROW = 16
"""With fewer rows, columns or terms a product is bound by memory, and kernels of our own are as good."""

RELU = "cublaslt.relu"
"""The target has it among its libraries if cublasLt's relu may be used, which makes 0 of NaN."""


def _merged(axes: Sequence[Index], places: Sequence[Place]) -> list[Index]:
    """Axes of one kind as few as can be: two that all places step evenly over are one, the inner."""
    left = list(axes)
    pairs = [(a, b) for a in axes for b in axes if a is not b]
    while pairs:
        a, b = pairs.pop(0)
        if a not in left or b not in left or any(p.step(a) != p.step(b) * b.extent for p in places):
            continue
        one = Index(f"{a.name}{b.name}", a.extent * b.extent)
        for p in places:
            p.steps.pop(a, None)
            step = p.steps.pop(b, 0)
            if step != 0:
                p.steps[one] = step
        left = [one if x is b else x for x in left if x is not a]
        pairs = [(x, y) for x in left for y in left if x is not y]
    return left


@dataclass
class _Matrices:
    """A product as cublasLt has it: the places of all arrays, and one axis of each kind."""

    x: Place
    w: Place
    d: Place
    c: Place | None
    bias: Place | None
    relu: Place | None
    batch: Index | None
    m: Index
    n: Index
    k: Index
    parameters: list[tuple[str, Dim | str]] = field(default_factory=list)


def matmul(work: Work) -> list[Piece | Call] | None:
    """A product by cublasLt, and a kernel for what is left, if that pays."""
    if not _large(work):
        return None
    work, before = _gathered(work)
    sums = work.sums
    columns = {a for a in work.outer if (a in mentioned(sums.left)) != (a in mentioned(sums.right))}
    mine = [side for side in (sums.left, sums.right) if work.outer[-1] in mentioned(side)]
    if len(mine) != 1:
        return None
    columns &= mentioned(mine[0])
    w = mine[0]
    x = sums.left if w is sums.right else sums.right
    acts = ("gelu", "relu") if RELU in work.target.libraries else ("gelu",)
    biased = Offers(lambda load: bool(found := mentioned(load)) and found <= columns, acts=acts)
    masked = {name for name, _, _ in work.around.relus}
    everything = Offers(biased.bias, lambda load: True, biased.acts, lambda load: load.buffer.name in masked)
    split: list[Piece | Call] | None = None
    for offers in (everything, biased, Offers()):  # what does not fit is left out
        epilogue = epilogue_of(sums, offers)
        result, rest = work.result(epilogue)
        matrices = _laid_out(work, x, w, result, epilogue)
        if matrices is None:
            continue
        found: list[Piece | Call] = [*before, _call(work, matrices, epilogue, result, alone=not rest)]
        if not rest:
            return found
        split = split or [*found, work.kernel_of(rest)]
    return split if work.pays_in_two() else None


def _gathered(work: Work) -> tuple[Work, list[Piece]]:
    """Operands whose rows are picked by number are written as matrices first, if the product is hard enough."""
    before: list[Piece] = []
    operands = {"left": work.sums.left, "right": work.sums.right}
    axes = (*work.outer, *work.sums.axes)
    for name, load in operands.items():
        if Place.of(load, axes) is not None or not work.pays_in_two():
            continue
        own = tuple(a for a in axes if a in mentioned(load))
        rows, index = Buffer(name, load.dtype, tuple(a.extent for a in own)), tuple(Size.of(a) for a in own)
        picking = work.generated(elementwise(own, [(rows, index, load)]))
        picking.scratch = (rows,)
        before.append(picking)
        operands[name] = Load(rows, index)
    if before:
        work = replace(work, sums=replace(work.sums, left=operands["left"], right=operands["right"]))
    return work, before


def _large(work: Work) -> bool:
    left, right = mentioned(work.sums.left), mentioned(work.sums.right)
    size = lambda axes: typical(extent_of(axes))
    m, n = (size(a for a in work.outer if a in one and a not in other) for one, other in ((left, right), (right, left)))
    k = size(work.sums.axes)
    return min(m, n, k) >= NARROW and 2 * m * n * k >= EACH and work.is_large


def _laid_out(work: Work, x: Load, w: Load, result: Buffer, epilogue: Epilogue) -> _Matrices | None:
    """The product as matrices, None if its arrays are none."""
    axes = (*work.outer, *work.sums.axes)
    whole = Buffer("", x.dtype, tuple(a.extent for a in work.outer))
    found = [
        Place.of(x, axes),
        Place.of(w, axes),
        Place.at(result, whole.offset(tuple(Size.of(a) for a in work.outer)), axes),
        *(Place.of(load, axes) for load in (epilogue.added, epilogue.bias, epilogue.relu) if load is not None),
    ]
    places = [p for p in found if p is not None]
    if len(places) < len(found) or any(p.buffer.dtype != x.dtype for p in places):
        return None
    of_x, of_w, of_d, *others = places
    if any(a not in of_x.steps or a not in of_w.steps for a in work.sums.axes):
        return None
    kinds = [
        [a for a in work.outer if (a in of_x.steps, a in of_w.steps) == kind]
        for kind in ((True, True), (True, False), (False, True))
    ]
    if sum(map(len, kinds)) < len(work.outer):
        return None  # an axis along which the result only repeats
    batch, m, n, k = (_merged(kind, places) for kind in (*kinds, work.sums.axes))
    if len(batch) > 1 or len(m) != 1 or len(n) != 1 or len(k) != 1:
        return None
    made = _Matrices(
        of_x, of_w, of_d,
        others.pop(0) if epilogue.added is not None else None,
        others.pop(0) if epilogue.bias is not None else None,
        others.pop(0) if epilogue.relu is not None else None,
        batch[0] if batch else None, m[0], n[0], k[0],
    )  # fmt: skip
    if made.relu is not None:
        known = (made.relu.buffer.name, made.m.extent, made.n.extent) in work.around.relus
        if not known or made.batch is not None or (made.relu.steps, made.relu.base) != (made.d.steps, made.d.base):
            return None
    return made if _described(made) else None


def _described(p: _Matrices) -> bool:
    """Whether all arrays have the layouts that cublasLt takes; the parameters say which."""
    told: list[tuple[str, Dim | str]] = [
        ("m", p.m.extent), ("n", p.n.extent), ("k", p.k.extent),
        ("batch", p.batch.extent if p.batch is not None else 1),
    ]  # fmt: skip
    operands = [("x", p.x, p.m, p.k), ("w", p.w, p.k, p.n), ("d", p.d, p.m, p.n)]
    operands += [("c", p.c, p.m, p.n)] if p.c is not None else []
    for name, place, high, wide in operands:
        form = "plain"
        if place.step(wide) != 1 and name in ("x", "w"):
            high, wide, form = wide, high, "transposed"
        if place.step(wide) != 1 or not non_negative(place.step(high) - wide.extent):
            return False
        if name in ("x", "w"):
            told.append((name, form))
        told.append((f"ld_{name}", place.step(high)))
        told += [(k, v) for k, v in ((f"stride_{name}", place.step(p.batch)), (f"at_{name}", place.base)) if v != 0]
    if p.c is not None and p.c.buffer is p.d.buffer and (p.c.steps, p.c.base) != (p.d.steps, p.d.base):
        return False
    if p.bias is not None:
        if p.bias.steps != {p.n: 1}:
            return False
        told.append(("at_bias", p.bias.base))
    if p.relu is not None:
        told.append(("ld_mask", bits(p.n.extent)))
    p.parameters = told
    return True


def _call(work: Work, p: _Matrices, epilogue: Epilogue, result: Buffer, alone: bool) -> Call:
    reads = [p.x.buffer, p.w.buffer, *(place.buffer for place in (p.c, p.bias) if place is not None)]
    size = product((p.m.extent, p.n.extent, p.k.extent, p.batch.extent if p.batch is not None else 1))
    how: Parameters = (
        ("alpha", repr(epilogue.alpha)),
        ("beta", repr(epilogue.beta)),
        ("epilogue", epilogue.act),
        ("compute", work.compute),
    )
    stored = any(b is result for b, _, _ in work.sums.stores)
    both = alone and p.relu is not None and work.around.sums == p.n.extent
    over_rows = Buffer("sums", result.dtype, (p.n.extent,)) if both else None
    return Call(
        "cublaslt.matmul",
        tuple(reads),
        (result,) if over_rows is None else (result, over_rows),
        (*p.parameters, *how),
        work.workspace(),
        2 * size,
        work.label,
        () if stored else (result,),
        p.relu.buffer if p.relu is not None else None,
        over_rows,
    )


def bits(columns: Dim) -> Dim:
    """How many bits of a mask there are for a row: cublasLt wants a multiple of 128."""
    return ceildiv(columns, 128) * 128


__all__ = ["bits", "matmul"]
