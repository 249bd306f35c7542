"""What libraries compute on CUDA: large products by cublasLt, convolutions of many channels by cuDNN.

    pieces(rows, target, label, constant, generated)     what runs a row program, in order; None: kernels of our own

A product is a library's if it is large, reads stored arrays as matrices with a leading dimension, and a library is
there (`Target.libraries`). What follows it is the library's too as far as it offers just that: a factor, an array that
is added, a bias for each column, relu, and gelu in its tanh form. If more follows, the product and that are two steps,
where the sums are deep enough to pay for writing and reading the product once more.

The row-major result [m, n] is to cublasLt the column-major [n, m], and so is the rest: `Library.parameters` are told in
row-major terms, and the runtime turns them round.

    cublaslt.matmul   d = act(alpha * x w + beta * c + bias)      inputs x, w, c if beta is not 0, bias if there is one
        m, n, k, batch         sizes of d [batch, m, n] and of the sums
        x, w                   'plain' ([m, k], [k, n]) or 'transposed' ([k, m], [n, k]) as stored
        ld_*, stride_*, at_*   of x, w, d and c: from row to row, from matrix to matrix, and where the first begins
        at_bias                where the bias begins; without it there is none
        alpha, beta, epilogue ('none', 'relu', 'gelu'), compute ('float32', 'tf32', 'bfloat16')
                      With epilogue 'relu_mask' a second output has a bit for each element of d: is it positive? With
                      'relu_gradient', such bits are the last input, and where they are 0 the result is 0; a second
                      output has the sums over all rows if there is one (see `cuda_masks`).
        ld_mask                bits from row to row
    cudnn.*           see `cuda_convolution`

The bound on the size is that below which a generated tile is as quick. What cublasLt's relu makes of NaN is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from gnomon.compiler.kernel import (
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    Load,
    Local,
    Rewriter,
    Value,
    children,
    expressions,
)
from gnomon.compiler.lowering.cuda_parts import call, extent_of, mentioned
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.sizes import (
    Dim,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    evaluate,
    non_negative,
    product,
    symbols,
)
from gnomon.compiler.targets import Target

LARGE = 2 * 128**3
"""Operations from which a product is a library's."""
EACH = 2 * 64**3
"""The same for each product of a batch."""
NARROW = 16
"""With fewer rows, columns or terms a product is bound by memory, and kernels of our own are as good."""
DEEP, HARD = 256, 2 * 512**3
"""Terms of each sum, and operations, from which a product and what follows it may be two steps: if a library is a third
quicker at 50 TFLOP/s, that is what 8 bytes of traffic for each element and a launch of 2 microseconds cost."""
TYPICAL = 128
"""What a symbolic size is taken to be when work is estimated."""
WORKSPACE = {"sm_90": 32 << 20}
OTHERWISE = 4 << 20
"""Bytes that a routine may use while it runs, as NVIDIA recommends: cuBLAS Library, 2.4.8 cublasSetWorkspace."""
NUMBERS = ("float32", "float16", "bfloat16")

Generated = Callable[[RowProgram], Piece]
"""The kernel that runs a row program."""
Parameters = tuple[tuple[str, Dim | str], ...]
Stores = list[tuple[Buffer, tuple[Dim, ...], Expr]]


@dataclass(frozen=True)
class Call:
    """A library's routine where a kernel would be.

    reads, writes   buffers in the order in which the routine takes them
    workspace       memory that it may use while it runs
    others          memory that is written here and had from others, besides the workspace
    relu            the array whose positive elements it must know, made by another call
    sums            what it writes sums over rows to
    """

    name: str
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    parameters: Parameters
    workspace: Buffer
    flops: Dim
    label: str
    others: tuple[Buffer, ...] = ()
    relu: Buffer | None = None
    sums: Buffer | None = None
    early = False

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        return (self.workspace, *self.others)


@dataclass(frozen=True)
class Around:
    """What there is around a product.

    relus   (name of a buffer, rows, columns) of what calls of cublasLt have made by relu
    sums    how many sums over all rows of the result are wanted: as many as there are columns, or none
    """

    relus: tuple[tuple[str, Dim, Dim], ...] = ()
    sums: Dim = 0


NOTHING = Around()


def pieces(
    rows: RowProgram,
    target: Target,
    label: str,
    constant: frozenset[str],
    generated: Generated,
    around: Around = NOTHING,
) -> list[Piece | Call] | None:
    """What runs a row program in order, a library's routine among it; None if none computes it, or none pays."""
    from gnomon.compiler.lowering import cuda_convolution

    sums = Sums.of(rows)
    if sums is None or all(b.name in constant for b in rows.reads):
        return None  # what is computed once need not be quick
    work = Work(rows, sums, target, label, constant, generated, around)
    if "cudnn" in target.libraries:
        found = cuda_convolution.pieces(work)
        if found is not None:
            return found
    return _matmul(work) if "cublaslt" in target.libraries else None


# ---- what a row program is


@dataclass
class Sums:
    """Sums over `axes` of left * right, both elements of stored arrays, and what is stored of them: (buffer, index,
    value) with values of other stages written out."""

    local: Local
    left: Load
    right: Load
    axes: tuple[Index, ...]
    stores: Stores

    @classmethod
    def of(cls, rows: RowProgram) -> Sums | None:
        """None if a row program is not of this form."""
        if not rows.stages or not rows.outer or rows.scratch or any(s.axes or s.folds for s in rows.stages[1:]):
            return None
        first = rows.stages[0]
        if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
            return None
        local, kind, value = first.folds[0]
        if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply":
            return None
        left, right = map(_loaded, value.args)
        if left is None or right is None or left.dtype != right.dtype or left.dtype not in NUMBERS:
            return None
        named: dict[Expr, Expr] = {}
        stores = []
        for stage in rows.stages[1:]:
            for name, x in stage.lets:
                named[name] = Rewriter(named.get).expr(x)
            stores += [(buffer, index, Rewriter(named.get).expr(x)) for buffer, index, x in stage.stores]
        return cls(local, left, right, first.axes, stores)


def _loaded(x: Expr) -> Load | None:
    """The element that a value is, whatever dtype it is computed in."""
    if isinstance(x, Cast) and x.dtype == "float32":
        x = x.x
    return x if isinstance(x, Load) and x.mask is None and x.buffer.space == "global" else None


@dataclass
class Work:
    """A row program that may be a library's, and what else there is to know of it."""

    rows: RowProgram
    sums: Sums
    target: Target
    label: str
    constant: frozenset[str]
    generated: Generated
    around: Around = NOTHING

    @property
    def outer(self) -> tuple[Index, ...]:
        return self.rows.outer

    @property
    def compute(self) -> str:
        """What the products of float32 may be computed in."""
        return str(getattr(self.target, "matrix", "float32"))

    def pays_in_two(self) -> bool:
        """Whether what follows the sums may be a step of its own."""
        depth = typical(extent_of(self.sums.axes))
        return depth >= DEEP and 2 * depth * typical(extent_of(self.outer)) >= HARD

    def workspace(self) -> Buffer:
        return Buffer("workspace", "uint8", (WORKSPACE.get(self.target.cpu, OTHERWISE),))

    def result(self, epilogue: Epilogue) -> tuple[Buffer, Stores]:
        """Where the library stores what it computes, row-major, and what a kernel has to store of that then."""
        index, shape = tuple(Size.of(a) for a in self.outer), tuple(a.extent for a in self.outer)
        scratch = Buffer("product", epilogue.value.dtype, shape)
        taken = {load.buffer for load in (self.sums.left, self.sums.right)}
        for k, (buffer, place, x) in enumerate(self.sums.stores):
            if x is not epilogue.value or buffer in taken or buffer.offset(place) != scratch.offset(index):
                continue
            here = Load(buffer, place)
            rest = self.rest(epilogue, here, skip=k)
            read = {e.buffer for e in expressions([x for _, _, x in rest]) if isinstance(e, Load) and e is not here}
            if buffer not in read:
                return buffer, rest
        return scratch, self.rest(epilogue, Load(scratch, index))

    def rest(self, epilogue: Epilogue, here: Load, skip: int = -1) -> Stores:
        """What is stored besides store number `skip`, the library's result being read from memory."""
        change = {epilogue.value: here}
        return [(b, i, Rewriter(change.get).expr(x)) for k, (b, i, x) in enumerate(self.sums.stores) if k != skip]

    def kernel_of(self, stores: Stores) -> Piece:
        """The kernel that stores what is left, element by element."""
        return self.generated(elementwise(self.outer, stores))


def elementwise(outer: tuple[Index, ...], stores: Stores) -> RowProgram:
    """A row program that stores values without folds."""
    reads = dict.fromkeys(e.buffer for e in expressions([x for _, _, x in stores]) if isinstance(e, Load))
    writes = dict.fromkeys(b for b, _, _ in stores)
    return RowProgram(outer, (Stage((), stores=list(stores)),), (), tuple(reads), tuple(writes))


def typical(d: Dim) -> int:
    return d if isinstance(d, int) else evaluate(d, dict.fromkeys(symbols(d), TYPICAL))


# ---- what follows a product


@dataclass
class Epilogue:
    """What a library does to a sum: act(alpha * sum + beta * added + bias). `value` is the expression that this is;
    `relu` is what must be positive where the act is a relu's gradient."""

    value: Expr
    alpha: float = 1.0
    beta: float = 0.0
    added: Load | None = None
    bias: Load | None = None
    act: str = "none"
    relu: Load | None = None

    @property
    def plain(self) -> bool:
        """Whether it is no more than a factor."""
        return self.added is None and self.bias is None and self.act == "none"


@dataclass(frozen=True)
class Offers:
    """What of an epilogue may be taken: whether a load is a bias, or is what may be added; activations; whether a load
    is of what is known to be positive or not."""

    bias: Callable[[Load], bool] = lambda load: False
    added: Callable[[Load], bool] = lambda load: False
    acts: tuple[str, ...] = ()
    relu: Callable[[Load], bool] = lambda load: False


def epilogue_of(sums: Sums, offers: Offers) -> Epilogue:
    """As much of what follows a sum as is offered. A value that is needed for something else too ends it."""
    roots = [x for _, _, x in sums.stores]
    users: dict[Expr, list[Expr]] = {}
    for e in expressions(roots):
        for inner in dict.fromkeys(children(e)):
            users.setdefault(inner, []).append(e)
    taken = Epilogue(sums.local)
    while taken.act == "none":
        e = taken.value
        if "gelu" in offers.acts and len(roots) == 1 and _same(roots[0], gelu(e)):
            taken.value, taken.act = roots[0], "gelu"
            break
        using = users.get(e, [])
        if e in roots or len(using) != 1 or not _take(taken, using[0], offers):
            break
        taken.value = using[0]
    return taken


def _take(taken: Epilogue, x: Expr, offers: Offers) -> bool:
    """Whether `x`, made of what is taken so far, is offered too; it is taken then."""
    e = taken.value
    if isinstance(x, Cast):
        return {x.dtype, e.dtype} <= set(NUMBERS) and "float32" in (x.dtype, e.dtype)
    if not isinstance(x, Apply) or x.args.count(e) != 1:
        return False
    name = x.fn.name
    if name == "relu":
        taken.act = "relu" if "relu" in offers.acts else taken.act
        return taken.act == "relu"
    if name == "where":
        relu = _relu_of(x)
        if relu is None or not taken.plain or x.args[1] is not e or not offers.relu(relu):
            return False
        taken.act, taken.relu = "relu_gradient", relu
        return True
    if len(x.args) != 2:
        return False
    first, other = x.args[0] is e, x.args[1 - x.args.index(e)]
    if isinstance(other, Const) and taken.plain and (name == "multiply" or name == "divide" and first):
        number = float(other.value)
        if name == "divide" and number == 0:
            return False
        taken.alpha = taken.alpha * number if name == "multiply" else taken.alpha / number
        return True
    if not isinstance(other, Load) or other.mask is not None or name not in ("add", "subtract"):
        return False
    if name == "add" and taken.bias is None and offers.bias(other):
        taken.bias = other
        return True
    if taken.added is not None or not offers.added(other) or name == "subtract" and not first and not taken.plain:
        return False
    taken.added = other
    taken.beta = -1.0 if name == "subtract" and first else 1.0
    taken.alpha = -taken.alpha if name == "subtract" and not first else taken.alpha
    return True


def _relu_of(x: Apply) -> Load | None:
    """h of where(h > 0, .., 0)."""
    test, _, other = x.args
    if not isinstance(test, Apply) or test.fn.name != "greater" or not isinstance(other, Const) or other.value != 0:
        return None
    h, zero = test.args
    known = isinstance(h, Load) and h.mask is None and isinstance(zero, Const) and zero.value == 0
    return h if known and isinstance(h, Load) else None


def bits(columns: Dim) -> Dim:
    """How many bits of a mask there are for a row: cublasLt wants a multiple of 128."""
    return ceildiv(columns, 128) * 128


def gelu(x: Expr) -> Expr:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    Hendrycks, Gimpel 2016, "Gaussian error linear units (GELUs)", section 2.
    """
    number = lambda v: Const(x.dtype, v)
    cube = call("multiply", x, call("square", x))
    inner = call("multiply", call("add", x, call("multiply", cube, number(0.044715))), number(sqrt(0.6366197723675814)))
    return call("multiply", call("multiply", x, number(0.5)), call("add", call("tanh", inner), number(1.0)))


def _same(a: Expr, b: Expr) -> bool:
    """Whether two expressions are sums of equal products, in whatever order they are written."""
    known: dict[Expr, Any] = {}
    for e in expressions((a, b)):
        known[e] = _canonical(e, known)
    return known[a] == known[b]


def _canonical(e: Expr, known: Mapping[Expr, Any]) -> Any:
    if not isinstance(e, Apply):
        return ("is", id(e))  # expressions are interned
    parts = [known[x] for x in e.args]
    name = "multiply" if e.fn.name == "square" else e.fn.name
    if e.fn.name == "square":
        parts = parts * 2
    if name not in ("multiply", "add"):
        return (name, *parts)
    flat = [inner for p in parts for inner in (p[1:] if p[0] == name else (p,))]
    return (name, *sorted(flat, key=repr))


# ---- matrices


@dataclass
class Place:
    """Where the elements of an array are: at `base` + the sum of steps[a] * a, counted in elements."""

    buffer: Buffer
    steps: dict[Index, Dim]
    base: Dim

    @classmethod
    def of(cls, load: Load, axes: Iterable[Index]) -> Place | None:
        return cls.at(load.buffer, load.buffer.offset(load.index), axes)

    @classmethod
    def at(cls, buffer: Buffer, offset: Dim, axes: Iterable[Index]) -> Place | None:
        """None if the offset is no such sum."""
        steps: dict[Index, Dim] = {}
        base = offset
        for a in axes:
            step = coefficient(offset, a)
            if step is None:
                return None
            if step != 0:
                steps[a] = step
                base = base - step * Size.of(a)
        inner = [x for d in (base, *steps.values()) for x in atoms(d)]
        return None if any(isinstance(x, (Index, Value)) for x in inner) else cls(buffer, steps, base)

    def step(self, axis: Index | None) -> Dim:
        return 0 if axis is None else self.steps.get(axis, 0)


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


def _matmul(work: Work) -> list[Piece | Call] | None:
    """A product by cublasLt, and a kernel for what is left, if that pays."""
    sums = work.sums
    if not _large(work):
        return None
    columns = {a for a in work.outer if (a in mentioned(sums.left)) != (a in mentioned(sums.right))}
    mine = [side for side in (sums.left, sums.right) if work.outer[-1] in mentioned(side)]
    if len(mine) != 1:
        return None
    columns &= mentioned(mine[0])
    w = mine[0]
    x = sums.left if w is sums.right else sums.right
    biased = Offers(lambda load: bool(found := mentioned(load)) and found <= columns, acts=("relu", "gelu"))
    masked = {name for name, _, _ in work.around.relus}
    everything = Offers(biased.bias, lambda load: True, biased.acts, lambda load: load.buffer.name in masked)
    split: list[Piece | Call] | None = None
    for offers in (everything, biased, Offers()):  # what does not fit is left out
        epilogue = epilogue_of(sums, offers)
        result, rest = work.result(epilogue)
        matrices = _laid_out(work, x, w, result, epilogue)
        if matrices is None:
            continue
        found: list[Piece | Call] = [_call(work, matrices, epilogue, result, alone=not rest)]
        if not rest:
            return found
        split = split or [*found, work.kernel_of(rest)]
    return split if work.pays_in_two() else None


def _large(work: Work) -> bool:
    left, right = mentioned(work.sums.left), mentioned(work.sums.right)
    size = lambda axes: typical(extent_of(axes))
    batch = size(a for a in work.outer if a in left and a in right)
    m, n = (size(a for a in work.outer if a in one and a not in other) for one, other in ((left, right), (right, left)))
    k = size(work.sums.axes)
    each = 2 * m * n * k
    return min(m, n, k) >= NARROW and each >= EACH and batch * each >= LARGE


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
        told += [(f"ld_{name}", place.step(high)), (f"stride_{name}", place.step(p.batch)), (f"at_{name}", place.base)]
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


__all__ = [
    "NOTHING", "Around", "Call", "Epilogue", "Offers", "Place", "Sums", "Work", "bits", "elementwise", "epilogue_of",
    "pieces", "typical",
]  # fmt: skip
