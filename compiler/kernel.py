"""Level 2: kernels, loops over scalars. The same kernel is rendered as LLVM IR and as CUDA C++.

Expressions are interned and pure; a `Load` reads what its buffer holds when the statement that uses it runs.
Index arithmetic is in sizes (`gnomon.compiler.sizes`): loop indices are `Index` atoms, named sizes are `Symbol`s,
so the stride of any access along any loop is a coefficient of a polynomial.

Loops count from 0 to the extent of their index. `For.kind` is the only difference between targets:
    serial     in order
    parallel   iterations are independent and may be shared among threads; at most one, outermost, alone in its kernel
    vector     lanes of one vector register: a small static extent; every statement inside runs for all lanes at once
    unroll     a static extent, written out
    block, thread   CUDA: one block, one thread of the block, per iteration (`axis` x, y or z)
Inside a vector loop an `If` whose condition depends on the lane masks the stores and loads inside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.interning import Interned
from gnomon.compiler.sizes import Atom, Dim, Index, Size, Symbol, atoms, substitute, symbols

# ---- scalar functions


@dataclass(frozen=True, eq=False)
class ScalarFn:
    """One scalar function: its meaning, its gradient, how targets spell it. The table is `gnomon.compiler.ops.scalar`.

    numpy   the meaning on arrays
    result  'same' (the dtype of the last argument, arguments alike), 'bool', or a dtype's name
    llvm    by kind of dtype ('f', 'i', 'u', 'b'): one instruction, `{t}` the (vector) type, `{m}` its mangled name,
            `{0}`, `{1}` the arguments: "fadd {t} {0}, {1}", "call {t} @llvm.sqrt.{m}({t} {0})"
    cuda    by kind, or by dtype name where it matters: "({0} + {1})", "sqrtf({0})"
    expand  arguments -> expression of simpler functions; used where a target has no spelling
    grad    (g, out, *inputs) -> one node or None per input
    cost    about how many additions it is worth
    bits    of the registers that `llvm` is spelled for, if that is not for any number of lanes
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    result: str = "same"
    llvm: dict[str, str] = field(default_factory=dict)
    cuda: dict[str, str] = field(default_factory=dict)
    expand: Callable[..., Expr] | None = None
    grad: Callable[..., Any] | None = None
    cost: int = 1
    bits: int = 0

    def __repr__(self) -> str:
        return self.name


# ---- buffers


class Buffer(metaclass=Interned):
    """An array that a kernel reads or writes, row-major. `space` is where it lives:

    global     an argument of the kernel
    local      per iteration of the parallel loop, on the stack (CUDA: per thread)
    shared     CUDA: shared by the threads of a block; on the CPU as local
    register   a small static array of which every index is static after unrolling and vectorising
    """

    __slots__ = ("name", "dtype", "shape", "space", "__weakref__")
    SPACES = ("global", "local", "shared", "register")

    def __init__(self, name: str, dtype: str, shape: tuple[Dim, ...], space: str = "global"):
        assert space in self.SPACES, space
        self.name, self.dtype, self.shape, self.space = name, dtype, shape, space

    @classmethod
    def key(cls, name: str, dtype: str, shape: tuple[Dim, ...], space: str = "global") -> tuple:
        return name, dtype, shape, space

    def offset(self, index: tuple[Dim, ...]) -> Dim:
        """Position of the element `index`, counted in elements."""
        assert len(index) == len(self.shape), (self, index)
        total: Dim = 0
        for i, extent in zip(index, self.shape, strict=True):
            total = total * extent + i
        return total

    def __repr__(self) -> str:
        return f"{self.name}: {self.space} {self.dtype}[{', '.join(map(str, self.shape))}]"


# ---- expressions


class Expr(metaclass=Interned):
    """A scalar value. Equal expressions are identical, so shared ones are computed once."""

    __slots__ = ("dtype", "__weakref__")
    dtype: str

    def __repr__(self) -> str:
        shared, (text,) = written((self,), count())
        return text if not shared else f"{text} where {', '.join(shared)}"


class Const(Expr):
    """A number."""

    __slots__ = ("value",)

    def __init__(self, dtype: str, value: Any):
        self.dtype, self.value = dtype, _rounded(dtype, value).item()

    @classmethod
    def key(cls, dtype: str, value: Any) -> tuple:
        return dtype, _rounded(dtype, value).tobytes()


def _rounded(dtype: str, value: Any) -> Any:
    """The number nearest to `value` that the dtype has: infinity where a float is too large for it."""
    with np.errstate(over="ignore"):
        return dtypes.rounded(dtype, dtypes.named(dtype).numpy.type(value))[()]


class IndexValue(Expr):
    """The value of a size (loop indices allowed) as a number of an integer or float dtype."""

    __slots__ = ("size",)

    def __init__(self, dtype: str, size: Dim):
        self.dtype, self.size = dtype, size


class Load(Expr):
    """An element of a buffer; where `mask` (a bool) is false nothing is read and the value is 0."""

    __slots__ = ("buffer", "index", "mask")

    def __init__(self, buffer: Buffer, index: tuple[Dim, ...], mask: Expr | None = None):
        assert len(index) == len(buffer.shape), (buffer, index)
        self.dtype, self.buffer, self.index, self.mask = buffer.dtype, buffer, index, mask

    @classmethod
    def key(cls, buffer: Buffer, index: tuple[Dim, ...], mask: Expr | None = None) -> tuple:
        return buffer, index, mask


class Apply(Expr):
    """A scalar function of scalars."""

    __slots__ = ("fn", "args")

    def __init__(self, fn: ScalarFn, args: tuple[Expr, ...]):
        assert len(args) == fn.arity, (fn, args)
        self.fn, self.args = fn, args
        self.dtype = args[-1].dtype if fn.result == "same" else fn.result


class Cast(Expr):
    """A value converted to another dtype, as NumPy's astype; to bool is `!= 0`."""

    __slots__ = ("x",)

    def __init__(self, dtype: str, x: Expr):
        self.dtype, self.x = dtype, x


class Bitcast(Expr):
    """The bits of a value as another dtype of the same width."""

    __slots__ = ("x",)

    def __init__(self, dtype: str, x: Expr):
        assert dtypes.named(dtype).bits == dtypes.named(x.dtype).bits
        self.dtype, self.x = dtype, x


class Local(Expr):
    """The value that a `Let` named."""

    __slots__ = ("name",)

    def __init__(self, name: str, dtype: str):
        self.name, self.dtype = name, dtype


class Fold(Expr):
    """A reduction of `body` over loop indices: sum, prod, max, min, any, all. `emit` turns it into loops; no renderer
    sees it."""

    __slots__ = ("kind", "axes", "body")
    KINDS = ("sum", "prod", "max", "min", "any", "all")

    def __init__(self, kind: str, axes: tuple[Index, ...], body: Expr):
        assert kind in self.KINDS, kind
        self.dtype, self.kind, self.axes, self.body = body.dtype, kind, axes, body


class Lanes(Expr):
    """A reduction over the lanes of the innermost vector loop around the statement; the same value in every lane.
    In a statement outside any vector loop `x` must be loads of a register buffer whose index has the lane `index`."""

    __slots__ = ("kind", "index", "x")

    def __init__(self, kind: str, index: Index, x: Expr):
        self.dtype, self.kind, self.index, self.x = x.dtype, kind, index, x


class Shuffle(Expr):
    """CUDA: the value that `x` has in the thread of the same warp whose number differs in the bit `lane` (1, 2 … 16).
    All threads of the warp must come by."""

    __slots__ = ("x", "lane")

    def __init__(self, x: Expr, lane: int):
        assert lane in (1, 2, 4, 8, 16), lane
        self.dtype, self.x, self.lane = x.dtype, x, lane


class Value(Atom, metaclass=Interned):
    """An integer expression used in an index: what a gather reads. Clamped to its range by whoever makes it."""

    __slots__ = ("x", "extent", "__weakref__")

    def __init__(self, x: Expr, extent: Dim | None = None):
        assert dtypes.is_integer(x.dtype), x
        text = repr(x)
        if len(text) > NAMED:  # a name is sorted by and printed with every size that the value is in
            text = sha256(text.encode()).hexdigest()[:16]
        self.x, self.extent, self.name = x, extent, f"<{text}>"

    @classmethod
    def key(cls, x: Expr, extent: Dim | None = None) -> tuple:
        return x, extent

    def range(self):
        return 0, None if self.extent is None else self.extent - 1

    def inner(self):
        return [a for e in expressions((self.x,)) for size in _sizes(e) for a in atoms(size)]

    def substitute(self, change):
        return value_size(rewrite(self.x, lambda e: None, change), self.extent)


def value_size(x: Expr, extent: Dim | None = None) -> Dim:
    """An integer expression as a size, to index with; `extent` promises 0 <= x < extent."""
    match x:
        case IndexValue():
            return x.size
        case Const():
            return int(x.value)
    return Size.of(Value(x, extent))


_fresh: ContextVar[Iterator[int] | None] = ContextVar("fresh", default=None)


@contextmanager
def index_names() -> Iterator[None]:
    """Number the fresh indices made inside from 0, so that equal kernels get equal texts."""
    token = _fresh.set(count())
    try:
        yield
    finally:
        _fresh.reset(token)


_outside = count()


def fresh_index(extent: Dim) -> Size:
    """A loop index that no other loop of the kernel has."""
    return Size.of(Index(f"r{next(_fresh.get() or _outside)}", extent))


def atom_of(index: Size) -> Index:
    """The `Index` that a size made by `fresh_index` consists of."""
    ((monomial, _),) = index.terms
    (atom,) = monomial
    assert isinstance(atom, Index), index
    return atom


# ---- statements


@dataclass(frozen=True, eq=False)
class Store:
    """buffer[index] = value."""

    buffer: Buffer
    index: tuple[Dim, ...]
    value: Expr

    def __post_init__(self):
        assert self.value.dtype == self.buffer.dtype, (self.buffer, self.value)


@dataclass(frozen=True, eq=False)
class Let:
    """Name a value for the statements that follow in this block. Evaluated once, here."""

    local: Local
    value: Expr


@dataclass(frozen=True, eq=False)
class For:
    """Run `body` for each value of `index`."""

    index: Index
    body: tuple[Stmt, ...]
    kind: str = "serial"
    axis: str = "x"
    KINDS = ("serial", "parallel", "vector", "unroll", "block", "thread")

    def __post_init__(self):
        assert self.kind in self.KINDS, self.kind
        if self.kind in ("vector", "unroll"):
            assert isinstance(self.index.extent, int), self.index.extent


@dataclass(frozen=True, eq=False)
class If:
    """Run `then` where `condition` (a bool) holds, else `orelse`."""

    condition: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True, eq=False)
class Alloc:
    """A local, shared or register buffer, living until the end of the block. Not initialised."""

    buffer: Buffer


@dataclass(frozen=True, eq=False)
class Barrier:
    """CUDA: all threads of the block meet, or those of each warp for themselves. On the CPU nothing.

    everywhere   a buffer of two numbers (uint32), all bits 0 at first: the threads of all blocks meet, and count there.
                 Only in a kernel of which all blocks run at once
    """

    warp: bool = False
    everywhere: Buffer | None = None


@dataclass(frozen=True, eq=False)
class CopyTransposed:
    """target[t + j * target_stride + i] = source[s + i * source_stride + j] for i, j < size: a square block turned over
    in registers. Buffers are one-dimensional; `target_stride` and `source_stride` are at least `size`."""

    target: Buffer
    t: Dim
    target_stride: Dim
    source: Buffer
    s: Dim
    source_stride: Dim
    size: int


@dataclass(frozen=True, eq=False)
class CopyVector:
    """target[t + i] = source[s + i] for i < size, between memory and registers in one access. Buffers are
    one-dimensional; in memory the place is a multiple of `size`, which is that of 4, 8 or 16 bytes."""

    target: Buffer
    t: Dim
    source: Buffer
    s: Dim
    size: int


@dataclass(frozen=True, eq=False)
class MultiplyFragments:
    """CUDA: the matrix units of a warp add left * right to total: 16 x 8 numbers of float32, in four registers of each
    thread, more by the product of 16 x 8 and 8 x 8 words, in four and two. A word is one number ('tfloat32') or two
    that follow each other along the sum ('bfloat16', 'float16'). Which thread has what, PTX tells under
    mma.m16n8k8/k16."""

    kind: str
    total: Buffer
    t: Dim
    left: Buffer
    x: Dim
    right: Buffer
    w: Dim


@dataclass(frozen=True, eq=False)
class View:
    """CUDA: let the buffer `row` be row number `number` of the first axis of `whole`; if `inside` is given and does not
    hold, the buffer `edge`. For the statements that follow in this block."""

    row: Buffer
    whole: Buffer
    number: Dim
    inside: Expr | None = None
    edge: Buffer | None = None


@dataclass(frozen=True, eq=False)
class Rounds:
    """CUDA: run `body` for each value of `index`, in order and by all threads of all blocks; stop after the round at
    whose end `until` holds. `done` is how many rounds there were, for the statements that follow in this block."""

    index: Index
    body: tuple[Stmt, ...]
    done: Local
    until: Expr | None = None


@dataclass(frozen=True, eq=False)
class Prefetch:
    """Have the cache line of buffer[index] come near: it is read soon. Means nothing else."""

    buffer: Buffer
    index: Dim


Stmt = (
    Store | Let | For | If | Alloc | Barrier
    | CopyTransposed | CopyVector | MultiplyFragments | View | Rounds | Prefetch
)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop nest over global buffers.

    reads, writes   global buffers; one that is in both is updated in place (elements are read before they are written)
    body            statements
    flops           arithmetic of one run, a size in the kernel's named sizes: what to tell a profiler and a scheduler
    label           what it computes, for people: 'matmul+add+relu'
    Symbols of the body's sizes are arguments. Two kernels with the same `text()` are the same code.
    """

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    flops: Dim = 0
    label: str = "kernel"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Arguments in order: writes, then reads that are not also written."""
        return self.writes + tuple(b for b in self.reads if b not in self.writes)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the sizes it takes as arguments, sorted: all symbols in its body and its buffers' shapes."""
        found: set[str] = set()
        roots: list[Expr] = []
        for b in self.buffers:
            found.update(*map(symbols, b.shape)) if b.shape else None
        for s in statements(self.body):
            match s:
                case Store():
                    found.update(*map(symbols, s.index)) if s.index else None
                    roots.append(s.value)
                    roots.extend(a.x for i in s.index for a in atoms(i) if isinstance(a, Value))
                case Let():
                    roots.append(s.value)
                case For():
                    found |= symbols(s.index.extent)
                case If():
                    roots.append(s.condition)
                case Rounds():
                    found |= symbols(s.index.extent)
                    roots += [] if s.until is None else [s.until]
                case View():
                    found |= symbols(s.number)
                    roots += [] if s.inside is None else [s.inside]
                case Alloc():
                    found.update(*map(symbols, s.buffer.shape)) if s.buffer.shape else None
                case Prefetch():
                    found |= symbols(s.index)
                case CopyTransposed():
                    found.update(*map(symbols, (s.t, s.target_stride, s.s, s.source_stride)))
                case CopyVector():
                    found.update(symbols(s.t), symbols(s.s))
                    roots.extend(a.x for d in (s.t, s.s) for a in atoms(d) if isinstance(a, Value))
                case MultiplyFragments():
                    found.update(*map(symbols, (s.t, s.x, s.w)))
        for e in expressions(roots):
            match e:
                case IndexValue():
                    found |= symbols(e.size)
                case Load():
                    found.update(*map(symbols, e.index), *map(symbols, e.buffer.shape))
        return tuple(sorted(found))

    @property
    def parallel(self) -> For | None:
        """The parallel loop, if there is one."""
        first = self.body[-1] if self.body else None
        return first if isinstance(first, For) and first.kind == "parallel" else None

    def text(self) -> str:
        """The whole kernel as text; equal texts are equal code."""
        head = "kernel(" + ", ".join(map(repr, self.buffers)) + ")"
        return "\n".join([head, *_lines(self.body, 1, count())])

    def __repr__(self) -> str:
        return self.text()


def _lines(body: tuple[Stmt, ...], depth: int, names: Iterator[int]) -> Iterator[str]:
    pad = "  " * depth
    for s in body:
        yield from (pad + line for line in heading(s, names))
        match s:
            case For() | Rounds():
                yield from _lines(s.body, depth + 1, names)
            case If():
                yield from _lines(s.then, depth + 1, names)
                if s.orelse:
                    yield f"{pad}else:"
                    yield from _lines(s.orelse, depth + 1, names)


def heading(s: Stmt, names: Iterator[int]) -> list[str]:
    """A statement as text, without those inside it; before it, what several of its values have in common."""

    def lines(text: str, *values: Expr | Dim) -> list[str]:
        shared, texts = written([v if isinstance(v, Expr) else IndexValue("int64", v) for v in values], names)
        bare = [t if isinstance(v, Expr) else _without_type(t) for v, t in zip(values, texts, strict=True)]
        return [*shared, text.format(*bare)]

    match s:
        case Store():
            place = ", ".join(f"{{{k + 1}}}" for k in range(len(s.index)))
            return lines(f"{s.buffer.name}[{place}] = {{0}}", s.value, *s.index)
        case Let():
            return lines(f"{s.local.name}:{s.local.dtype} = {{0}}", s.value)
        case For():
            axis = f".{s.axis}" if s.kind in ("block", "thread") else ""
            return lines(f"for {s.index.name} < {{0}} {s.kind}{axis}:", s.index.extent)
        case If():
            return lines("if {0}:", s.condition)
        case Alloc():
            return [f"alloc {s.buffer!r}"]
        case Barrier():
            return [f"barrier{' of warps' if s.warp else ' of all blocks' if s.everywhere else ''}"]
        case View() if s.inside is not None and s.edge is not None:
            return lines(f"{s.row.name} = row {{0}} of {s.whole.name} if {{1}} else {s.edge.name}", s.number, s.inside)
        case View():
            return lines(f"{s.row.name} = row {{0}} of {s.whole.name}", s.number)
        case Rounds():
            end = f" until {s.until!r}" if s.until is not None else ""
            return lines(f"round {s.index.name} < {{0}}{end}, {s.done.name} in all:", s.index.extent)
        case Prefetch():
            return lines(f"prefetch {s.buffer.name}[{{0}}]", s.index)
        case CopyTransposed():
            square = f"transposed {s.size} x {s.size} of {s.source.name}"
            text = f"{s.target.name}[{{0}}], stride {{1}} = {square}[{{2}}], stride {{3}}"
            return lines(text, s.t, s.target_stride, s.s, s.source_stride)
        case CopyVector():
            return lines(f"{s.target.name}[{{0}}], {s.size} together = {s.source.name}[{{1}}]", s.t, s.s)
        case MultiplyFragments():
            text = f"{s.total.name}[{{0}}] += {s.left.name}[{{1}}] * {s.right.name}[{{2}}] in fragments of {s.kind}"
            return lines(text, s.t, s.x, s.w)
    raise AssertionError(type(s))


def _without_type(text: str) -> str:
    """A size that stands where only sizes do."""
    return text[len("int64(") : -1] if text.startswith("int64(") else text


NAMED = 40
"""Letters: of a longer text that is needed in several places there is one, with a name."""
WIDE = 400
"""Letters: a longer text gets a name even if it is needed once."""


def written(roots: Sequence[Expr], names: Iterator[int]) -> tuple[list[str], list[str]]:
    """Expressions as text: `e3 = ...` for what they share, inner ones first, and a text for each. `names` numbers what
    gets a name. Linear in the number of different expressions, where the tree may be exponentially large."""
    order = expressions(roots)
    uses = Counter(c for e in order for c in children(e))
    texts: dict[Expr, str] = {}
    shared = []
    for e in order:
        text = _text(e, texts)
        if (uses[e] > 1 and len(text) > NAMED) or (uses[e] and len(text) > WIDE):
            name = f"e{next(names)}"
            shared.append(f"{name} = {text}")
            text = name
        texts[e] = text
    return shared, [texts[r] for r in roots]


def _text(e: Expr, texts: Mapping[Expr, str]) -> str:
    """The text of an expression whose inner ones have texts."""

    def size(d: Dim) -> str:
        def change(a: Atom) -> Dim | None:
            return Size.of(Symbol(f"<{texts[a.x]}>")) if isinstance(a, Value) else None

        return str(substitute(d, change))

    match e:
        case Const():
            return f"{e.value!r}" if e.dtype in ("float32", "int64", "bool") else f"{e.value!r}:{e.dtype}"
        case Local():
            return e.name
        case IndexValue():
            return f"{e.dtype}({size(e.size)})"
        case Load():
            mask = f" if {texts[e.mask]}" if e.mask is not None else ""
            return f"{e.buffer.name}[{', '.join(map(size, e.index))}{mask}]"
        case Apply():
            return f"{e.fn.name}({', '.join(texts[a] for a in e.args)})"
        case Cast():
            return f"{e.dtype}({texts[e.x]})"
        case Bitcast():
            return f"bits_{e.dtype}({texts[e.x]})"
        case Fold():
            return f"{e.kind}[{', '.join(f'{a.name}<{a.extent}' for a in e.axes)}]({texts[e.body]})"
        case Lanes():
            return f"{e.kind}_lanes[{e.index.name}<{e.index.extent}]({texts[e.x]})"
        case Shuffle():
            return f"shuffle{e.lane}({texts[e.x]})"
    raise AssertionError(type(e))


# ---- rewriting: the mechanism under every loop transform


def rewrite(
    x: Expr, change: Callable[[Expr], Expr | None], index: Callable[[Atom], Dim | None] = lambda a: None
) -> Expr:
    """`x` with sub-expressions replaced by `change` (None: keep, look inside) and index atoms by `index`."""
    return Rewriter(change, index).expr(x)


class Rewriter:
    """Replaces expressions and index atoms throughout expressions and statements; shared expressions are done once."""

    def __init__(
        self,
        change: Callable[[Expr], Expr | None] = lambda e: None,
        index: Callable[[Atom], Dim | None] = lambda a: None,
    ):
        self.change, self.index = change, index
        self.done: dict[Expr, Expr] = {}

    def size(self, d: Dim) -> Dim:
        return substitute(d, self._atom) if isinstance(d, Size) else d

    def _atom(self, a: Atom) -> Dim | None:
        new = self.index(a)
        if new is None and isinstance(a, Value):
            return value_size(self.expr(a.x), a.extent)
        return new

    def expr(self, x: Expr) -> Expr:
        stack = [x]
        while stack:  # no recursion: melted chains are long
            e = stack[-1]
            if e in self.done:
                stack.pop()
                continue
            new = self.change(e)
            if new is not None:
                self.done[e] = new
                stack.pop()
                continue
            waiting = [c for c in children(e) if c not in self.done]
            if waiting:
                stack.extend(waiting)
                continue
            self.done[e] = self._rebuild(e)
            stack.pop()
        return self.done[x]

    def _rebuild(self, e: Expr) -> Expr:
        d = self.done
        match e:
            case IndexValue():
                return IndexValue(e.dtype, self.size(e.size))
            case Load():
                mask = None if e.mask is None else d[e.mask]
                return Load(e.buffer, tuple(self.size(i) for i in e.index), mask)
            case Apply():
                return Apply(e.fn, tuple(d[a] for a in e.args))
            case Cast():
                return Cast(e.dtype, d[e.x])
            case Bitcast():
                return Bitcast(e.dtype, d[e.x])
            case Fold():
                return Fold(e.kind, e.axes, d[e.body])
            case Lanes():
                return Lanes(e.kind, e.index, d[e.x])
            case Shuffle():
                return Shuffle(d[e.x], e.lane)
        return e

    def body(self, statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(self.statement(s) for s in statements)

    def statement(self, s: Stmt) -> Stmt:
        match s:
            case Store():
                return Store(s.buffer, tuple(self.size(i) for i in s.index), self.expr(s.value))
            case Let():
                return Let(s.local, self.expr(s.value))
            case For():
                return replace(s, body=self.body(s.body))
            case If():
                return If(self.expr(s.condition), self.body(s.then), self.body(s.orelse))
            case Prefetch():
                return Prefetch(s.buffer, self.size(s.index))
            case View():
                inside = None if s.inside is None else self.expr(s.inside)
                return replace(s, number=self.size(s.number), inside=inside)
            case Rounds():
                return replace(s, body=self.body(s.body), until=None if s.until is None else self.expr(s.until))
            case CopyVector():
                return replace(s, t=self.size(s.t), s=self.size(s.s))
            case MultiplyFragments():
                return replace(s, t=self.size(s.t), x=self.size(s.x), w=self.size(s.w))
            case CopyTransposed():
                strides = self.size(s.target_stride), self.size(s.source_stride)
                return CopyTransposed(
                    s.target, self.size(s.t), strides[0], s.source, self.size(s.s), strides[1], s.size
                )
        return s


def children(e: Expr) -> tuple[Expr, ...]:
    """Expressions directly inside `e` (those inside index atoms too)."""
    match e:
        case Apply():
            return e.args
        case Cast() | Bitcast() | Lanes() | Shuffle():
            return (e.x,)
        case Fold():
            return (e.body,)
        case Load() | IndexValue():
            inner = tuple(a.x for size in _sizes(e) for a in atoms(size) if isinstance(a, Value))
            return inner if not isinstance(e, Load) or e.mask is None else (*inner, e.mask)
    return ()


def _sizes(e: Expr) -> tuple[Dim, ...]:
    """The sizes that `e` itself computes with."""
    match e:
        case Load():
            return e.index
        case IndexValue():
            return (e.size,)
    return ()


def expressions(roots: Any) -> list[Expr]:
    """Every expression inside `roots`, each once, inner ones first."""
    order: list[Expr] = []
    done: set[Expr] = set()
    stack = [(r, False) for r in roots]
    while stack:
        e, ready = stack.pop()
        if e in done:
            continue
        inner = children(e)
        if ready or not inner:
            done.add(e)
            order.append(e)
        else:
            stack.append((e, True))
            stack.extend((c, False) for c in inner)
    return order


def statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement in `body`, those inside others too, outer first."""
    for s in body:
        yield s
        match s:
            case For() | Rounds():
                yield from statements(s.body)
            case If():
                yield from statements(s.then)
                yield from statements(s.orelse)


IDENTITY: dict[str, Callable[[dtypes.DType], Any]] = {
    "sum": lambda d: 0,
    "prod": lambda d: 1,
    "max": lambda d: lowest(d),
    "min": lambda d: highest(d),
    "any": lambda d: False,
    "all": lambda d: True,
}
"""What each kind of reduction starts from, by dtype."""


COMBINE: dict[str, str] = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "any": "logical_or",
    "all": "logical_and",
}
"""The scalar function that each kind of reduction is made of."""


def lowest(d: dtypes.DType) -> Any:
    """The smallest value of a dtype (-infinity for floats)."""
    if d.kind == "f":
        return -float("inf")
    return 0 if d.kind in "ub" else -(1 << (d.bits - 1))


def highest(d: dtypes.DType) -> Any:
    """The largest value of a dtype (infinity for floats)."""
    if d.kind == "f":
        return float("inf")
    return {"b": 1, "u": (1 << d.bits) - 1}.get(d.kind, (1 << (d.bits - 1)) - 1)
