"""What the kernels of all CUDA policies are made of: indices, and folds as loops that one thread runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    IDENTITY,
    Alloc,
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    Fold,
    For,
    IndexValue,
    Let,
    Load,
    Local,
    Rewriter,
    Stmt,
    Store,
    children,
    expressions,
)
from gnomon.compiler.lowering.emit import Stage
from gnomon.compiler.sizes import Dim, Index, Size, atoms, coefficient, floordiv, modulo, product

# ---- indices


def named_index(name: str, extent: Dim) -> tuple[Index, Size]:
    i = Index(name, extent)
    return i, Size.of(i)


def extent_of(axes: Iterable[Index]) -> Dim:
    return product(a.extent for a in axes)


def spread(position: Dim, axes: Sequence[Index]) -> dict[Index, Dim]:
    """The index along each of `axes` of the element that is at `position` in row-major order."""
    found: dict[Index, Dim] = {}
    for a in reversed(axes[1:]):
        found[a] = modulo(position, a.extent)
        position = floordiv(position, a.extent)
    if axes:
        found[axes[0]] = position
    return found


def placed(change: dict[Index, Dim]) -> Rewriter:
    """Puts sizes in the place of indices."""
    return Rewriter(index=lambda a: change.get(a) if isinstance(a, Index) else None)


def mentioned(x: Expr) -> set[Index]:
    """The loop indices that a value depends on."""
    sizes: list[Dim] = []
    for e in expressions((x,)):
        match e:
            case IndexValue():
                sizes.append(e.size)
            case Load():
                sizes.extend(e.index)
    return {a for d in sizes for a in atoms(d) if isinstance(a, Index)}


def neighbours(x: Expr, index: Index) -> bool:
    """Whether a step along `index` is a step to the next element of something that `x` reads."""
    loads = (e for e in expressions((x,)) if isinstance(e, Load) and e.buffer.space == "global")
    return any(coefficient(e.buffer.offset(e.index), index) == 1 for e in loads)


def below(*limits: tuple[Dim, Dim, int]) -> Expr | None:
    """Whether every index is below its limit, of those whose limit is no multiple of the tile."""
    found: Expr | None = None
    for index, limit, tile in limits:
        if modulo(limit, tile) == 0:
            continue
        test = call("less", IndexValue("int64", index), IndexValue("int64", limit))
        found = test if found is None else call("logical_and", found, test)
    return found


# ---- folds


def call(name: str, *arguments: Expr) -> Expr:
    from gnomon.compiler.ops.scalar import scalar

    return Apply(scalar(name), arguments)


def cast(dtype: str, x: Expr) -> Expr:
    return x if x.dtype == dtype else Cast(dtype, x)


def compute(dtype: str) -> str:
    """What a reduction is accumulated in."""
    return dtypes.named(dtype).compute


class Accumulator:
    """A running reduction in a variable of the thread."""

    def __init__(self, name: str, kind: str, dtype: str):
        self.kind, self.dtype = kind, compute(dtype)
        self.buffer = Buffer(name, self.dtype, (), "local")

    def start(self) -> list[Stmt]:
        identity = Const(self.dtype, IDENTITY[self.kind](dtypes.named(self.dtype)))
        return [Alloc(self.buffer), Store(self.buffer, (), identity)]

    def add(self, x: Expr) -> Stmt:
        return Store(self.buffer, (), call(COMBINE[self.kind], self.value, cast(self.dtype, x)))

    @property
    def value(self) -> Expr:
        return Load(self.buffer, ())


class Values:
    """Writes statements whose values may hold folds: each becomes a loop that the thread runs before."""

    def __init__(self) -> None:
        self.count = 0

    def plain(self, x: Expr) -> tuple[list[Stmt], Expr]:
        """Statements to run before, and `x` without folds."""
        before: list[Stmt] = []
        found: dict[Expr, Expr] = {}
        for fold in outer_folds(x):
            self.count += 1
            total = Accumulator(f"fold{self.count}", fold.kind, fold.dtype)
            inner, value = self.plain(fold.body)
            loops = nest(fold.axes, [*inner, total.add(value)])
            before += [*total.start(), *loops]
            found[fold] = cast(fold.dtype, total.value)
        return before, Rewriter(found.get).expr(x) if found else x

    def stores(self, places: Sequence[tuple[Buffer, tuple[Dim, ...], Expr]]) -> list[Stmt]:
        """All values first, then all stores: what is updated in place is read before it is written."""
        if len(places) == 1:
            ((buffer, index, x),) = places
            before, value = self.plain(x)
            return [*before, Store(buffer, index, value)]
        named = [Local(f"new_{buffer.name}", buffer.dtype) for buffer, _, _ in places]
        body = [s for new, (_, _, x) in zip(named, places, strict=True) for s in self.let(new, x)]
        return body + [Store(buffer, index, new) for new, (buffer, index, _) in zip(named, places, strict=True)]

    def let(self, local: Local, x: Expr) -> list[Stmt]:
        before, value = self.plain(x)
        return [*before, Let(local, cast(local.dtype, value))]


def outer_folds(x: Expr) -> list[Fold]:
    """The folds in `x` that are in no other fold."""
    found: list[Fold] = []
    seen: set[Expr] = set()
    stack = [x]
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if isinstance(e, Fold):
            found.append(e)
        else:
            stack.extend(reversed(children(e)))
    return found


def nest(axes: Sequence[Index], body: Sequence[Stmt]) -> list[Stmt]:
    """`body` inside serial loops, the first axis outermost."""
    inner = tuple(body)
    for a in reversed(axes):
        inner = (For(a, inner),)
    return list(inner)


def serially(stage: Stage, values: Values) -> list[Stmt]:
    """A stage as loops of one thread."""
    body: list[Stmt] = []
    inside: list[Stmt] = []
    for local, x in stage.lets:
        (inside if stage.axes else body).extend(values.let(local, x))
    if not stage.axes:
        for local, _, x in stage.folds:
            body += values.let(local, x)
        return body + values.stores(stage.stores)
    totals = [Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
    for total, (_, _, x) in zip(totals, stage.folds, strict=True):
        before, value = values.plain(x)
        inside += [*before, total.add(value)]
    inside += values.stores(stage.stores)
    for total in totals:
        body += total.start()
    body += nest(stage.axes, inside)
    return body + [
        Let(local, cast(local.dtype, total.value)) for total, (local, _, _) in zip(totals, stage.folds, strict=True)
    ]
