"""The CPU's policy: which loop of a row program is shared among threads, which is a vector, how wide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    IDENTITY,
    Alloc,
    Apply,
    Buffer,
    Const,
    Expr,
    Fold,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    Rewriter,
    Stmt,
    Store,
    children,
    expressions,
)
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.pairs import paired
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import (
    Dim,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    floordiv,
    known_factor,
    modulo,
    product,
)
from gnomon.compiler.targets import Target

DUPLICATE = 60
"""A vector body cheaper than this is written twice, without masks for whole vectors and with them for the rest."""
LONG_ROW, REGISTERS = 512, 32
"""Numbers of a row up to which two rows are done together, and how many vector registers that takes."""
ROWS = 16
"""With this many outer iterations known (or a symbolic number) the rows alone are shared among threads."""


def kernel(rows: RowProgram, target: Target, label: str = "kernel") -> tuple[Kernel, Dim]:
    """The kernel of a row program, and how many iterations its parallel loop has."""
    rows = flat(rows)
    rows = merged(rows)
    schedule = _Schedule(rows, target)
    schedule.in_pairs = schedule.waits()
    made = schedule.run(label)
    return paired(made[0]) if schedule.in_pairs else made


def kernel_by_shares(rows: RowProgram, target: Target, label: str, share: Dim) -> tuple[Kernel, Dim, Dim]:
    """The same with `share` rows of the first outer axis, then the next ones; and how many iterations do them, 0 if the
    kernel is not in this order."""
    rows = flat(rows)
    first, *others = rows.outer
    rows = merged(replace(rows, outer=tuple(others)))
    rows = replace(rows, outer=(first, *rows.outer))
    schedule = _Schedule(rows, target)
    lanes = schedule.vector_axis()
    kernel, extent = schedule.run(label)
    factor, whole = known_factor(extent), known_factor(first.extent)
    each = factor // whole if whole else 0
    return kernel, extent, share * each if lanes is not first and each * first.extent == extent else 0


# ---- one-dimensional buffers: every access is one polynomial


def flat(rows: RowProgram) -> RowProgram:
    """The same with all buffers but row buffers one-dimensional, so that an access is one polynomial of the indices."""

    def one(b: Buffer) -> Buffer:
        return b if len(b.shape) == 1 else Buffer(b.name, b.dtype, (product(b.shape),), b.space)

    def change(e: Expr) -> Expr | None:
        if isinstance(e, Load):
            mask = None if e.mask is None else rewriter.expr(e.mask)
            return Load(one(e.buffer), (rewriter.size(e.buffer.offset(e.index)),), mask)
        return None

    rewriter = Rewriter(change)
    stages = tuple(
        Stage(
            s.axes,
            [(n, k, rewriter.expr(e)) for n, k, e in s.folds],
            [(n, rewriter.expr(e)) for n, e in s.lets],
            [(one(b), (rewriter.size(b.offset(i)),), rewriter.expr(e)) for b, i, e in s.stores],
        )
        for s in rows.stages
    )
    names = lambda buffers: tuple(one(b) for b in buffers)
    return RowProgram(rows.outer, stages, names(rows.scratch), names(rows.reads), names(rows.writes))


def _sizes_of(stage: Stage) -> Iterable[Dim]:
    """Every size that a stage computes with, once each."""
    roots = [e for _, _, e in stage.folds] + [e for _, e in stage.lets] + [e for _, _, e in stage.stores]
    for _, index, _ in stage.stores:
        yield from index
    for e in expressions(roots):
        match e:
            case Load():
                yield from e.index
            case IndexValue():
                yield e.size


def merged(rows: RowProgram, apart: frozenset[Index] = frozenset()) -> RowProgram:
    """Neighbouring axes run as one where every access steps evenly over both, but for those that are to stay apart:
    fewer, longer loops."""
    changed = True
    while changed:
        changed = False
        for a, b in zip(rows.outer, rows.outer[1:], strict=False):
            if all(_evenly(d, a, b) for s in rows.stages for d in _sizes_of(s)):
                rows = _fuse_axes(rows, a, b, outer=True)
                changed = True
                break
        if changed:
            continue
        for s in rows.stages:
            pairs = zip(s.axes, s.axes[1:], strict=False)
            for a, b in pairs:
                if a in apart or b in apart:
                    continue
                sharing = [t for t in rows.stages if a in t.axes or b in t.axes]
                if all(_adjacent(t.axes, a, b) for t in sharing) and all(
                    _evenly(d, a, b) for t in sharing for d in _sizes_of(t)
                ):
                    rows = _fuse_axes(rows, a, b, outer=False)
                    changed = True
                    break
            if changed:
                break
    return rows


def _adjacent(axes: tuple[Index, ...], a: Index, b: Index) -> bool:
    return a in axes and b in axes and axes.index(b) == axes.index(a) + 1


def _evenly(d: Dim, a: Index, b: Index) -> bool:
    """Whether `d` depends on a and b only as a * extent(b) + b."""
    left, right = coefficient(d, a), coefficient(d, b)
    if left is None or right is None or left != right * b.extent:
        return False
    inner = [x for x in atoms(d) if x is a or x is b]
    top = [x for m, _ in d.terms for x in m if x is a or x is b] if isinstance(d, Size) else []
    return len(inner) == len(top)


def _fuse_axes(rows: RowProgram, a: Index, b: Index, outer: bool) -> RowProgram:
    one = Index(f"{a.name}{b.name}", a.extent * b.extent)
    rewriter = Rewriter(index=lambda x: 0 if x is a else Size.of(one) if x is b else None)
    join = lambda axes: tuple(one if x is a else x for x in axes if x is not b)
    stages = tuple(
        Stage(
            join(s.axes),
            [(n, k, rewriter.expr(e)) for n, k, e in s.folds],
            [(n, rewriter.expr(e)) for n, e in s.lets],
            [(buf, tuple(rewriter.size(i) for i in idx), rewriter.expr(e)) for buf, idx, e in s.stores],
        )
        for s in rows.stages
    )
    return replace(rows, outer=join(rows.outer) if outer else rows.outer, stages=stages)


# ---- what it costs


def cost_of(roots: Iterable[Expr]) -> int:
    """About how many additions the expressions are worth, shared ones once."""
    return sum(
        1 if not isinstance(e, Apply) else e.fn.cost for e in expressions(roots) if not isinstance(e, (Const, Local))
    )


def bytes_of(buffers: Iterable[Buffer]) -> int:
    """Bytes of buffers of static size."""
    total = 0
    for b in buffers:
        (n,) = b.shape
        assert isinstance(n, int), b
        total += n * dtypes.named(b.dtype).bytes
    return total


def stage_cost(s: Stage) -> int:
    """What one iteration of a stage is worth."""
    return cost_of([*(e for _, _, e in s.folds), *(e for _, e in s.lets), *(e for _, _, e in s.stores)])


def _access_cost(stage_sizes: Iterable[tuple[Buffer, Dim]], axis: Index) -> float:
    """What the accesses cost for each element if `axis` is the vector: gathers are dear."""
    total = 0.0
    for _, d in stage_sizes:
        c = coefficient(d, axis)
        if c is None or (isinstance(d, Size) and c == 0 and axis in set(atoms(d))):
            total += 8.0
        elif isinstance(c, int) and abs(c) == 1:
            total += 1.0
        elif isinstance(c, int) and c == 0:
            total += 0.2
        else:
            total += 6.0
    return total


def _accesses(stage: Stage) -> list[tuple[Buffer, Dim]]:
    roots = [e for _, _, e in stage.folds] + [e for _, e in stage.lets] + [e for _, _, e in stage.stores]
    found = [(b, i) for b, (i,), _ in stage.stores if len(b.shape) == 1]
    found += [(b, index[-1]) for b, index, _ in stage.stores if len(b.shape) != 1]
    found += [(e.buffer, e.index[-1]) for e in expressions(roots) if isinstance(e, Load) and e.index]
    return found


def _widest(rows: RowProgram) -> int:
    """Bits of the widest number that vectors hold here: those stored, and those computed on the way, bools aside."""
    bits = [8]
    for s in rows.stages:
        roots = [e for _, _, e in s.folds] + [e for _, e in s.lets] + [e for _, _, e in s.stores]
        for e in expressions(roots):
            if not isinstance(e, IndexValue) and e.dtype not in ("bool", "int64"):
                bits.append(dtypes.named(dtypes.named(e.dtype).compute).bits)
    return max(max(bits), 32)


# ---- the schedule


@dataclass
class _Vector:
    """A vector loop: its lanes' index and how many there are."""

    index: Index
    lanes: int


class _Schedule:
    def __init__(self, rows: RowProgram, target: Target):
        self.rows, self.target = rows, target
        self.lanes = target.lanes(_widest(rows))
        self.counter = 0
        self.accumulators: list[Buffer] = []
        self.wide: tuple[Buffer, ...] = ()  # row buffers of all lanes, if outer iterations are the lanes
        self.in_pairs = False  # two rows at a time, which share the registers

    def waits(self) -> bool:
        """Whether rows wait for one fold after the other, and are short enough for two to be near at once."""
        rows = self.rows
        folding = [s for s in rows.stages if s.axes and s.folds]
        if len(folding) < 2 or self.target.registers < REGISTERS or not rows.outer or self.vector_axis() is not None:
            return False
        long = [n for s in folding if isinstance(n := product(a.extent for a in s.axes), int) and n > LONG_ROW]
        return not long and bytes_of(rows.scratch) <= self.target.l1 // 4

    def run(self, label: str) -> tuple[Kernel, Dim]:
        rows = self.rows
        axis = self.vector_axis()
        outer = list(rows.outer)
        body: tuple[Stmt, ...]
        if axis is not None:
            outer.remove(axis)
            loops: Dim = product(a.extent for a in outer)
            width = self._width(axis.extent, self._cost())
            blocks = ceildiv(axis.extent, width)
            enough = not isinstance(loops, int) or loops >= ROWS
            if enough and outer:  # rows among threads, blocks of the vector axis in each
                inner = self._blocks(axis, width)
                return self._finish(outer, inner, label)
            q = self._index("q", blocks)
            inner = self._block(axis, width, Size.of(q), blocks)
            return self._finish([*outer, q], inner, label)
        body = self._stages(None)
        return self._finish(outer, body, label)

    def _finish(self, outer: list[Index], body: tuple[Stmt, ...], label: str) -> tuple[Kernel, Dim]:
        """The parallel loop over all outer axes around the body."""
        rows = self.rows
        extent = product(a.extent for a in outer)
        allocs = tuple(Alloc(b) for b in (*(self.wide or rows.scratch), *self.accumulators))
        p = Index("p", extent)
        change: dict[Index, Dim] = {}
        rest: Dim = Size.of(p)
        for k, a in enumerate(reversed(outer)):
            if k == len(outer) - 1:
                change[a] = rest
            else:
                change[a], rest = modulo(rest, a.extent), floordiv(rest, a.extent)
        if extent == 1:
            change = dict.fromkeys(outer, 0)
        body = Rewriter(index=lambda x: change.get(x) if isinstance(x, Index) else None).body(body)
        return Kernel(rows.reads, rows.writes, (*allocs, For(p, body, "parallel")), label=label), extent

    def _index(self, name: str, extent: Dim) -> Index:
        self.counter += 1
        return Index(f"{name}{self.counter}", extent)

    def _cost(self) -> int:
        return cost_of(
            e
            for s in self.rows.stages
            for e in [*(f[2] for f in s.folds), *(x[1] for x in s.lets), *(x[2] for x in s.stores)]
        )

    def vector_axis(self) -> Index | None:
        """The outer axis to run as lanes, None if the inner loops are the vectors."""
        rows = self.rows
        if not rows.outer:
            return None
        size = bytes_of(rows.scratch)
        if size * 4 * self.lanes > self.target.l2 // 4:
            return None  # a row for each lane would not stay in cache
        inner = [s for s in rows.stages if s.axes]
        best, least = None, float("inf")
        for axis in (rows.outer[-1], *([rows.outer[0]] if len(rows.outer) > 1 and not inner else [])):
            cost = sum(_access_cost(_accesses(s), axis) * (_iterations(s)) for s in rows.stages)
            cost /= self._use(axis.extent)
            if cost < least:
                best, least = axis, cost
        if not inner:
            return best
        cost = 0.0
        for s in inner:
            cost += _access_cost(_accesses(s), s.axes[-1]) * _iterations(s) / self._use(s.axes[-1].extent)
            cost += 1.5 * len(s.folds)
        return best if least < cost else None

    def _use(self, extent: Dim) -> float:
        """The share of the lanes that a loop of `extent` iterations keeps busy."""
        if not isinstance(extent, int):
            return 1.0
        return extent / (-(-extent // self.lanes) * self.lanes) if extent else 1.0

    def _width(self, extent: Dim, cost: int) -> int:
        """Lanes of a loop of `extent` iterations: several registers where the body is light, none idle if short."""
        registers = 4 if cost <= 400 else 2  # two at least: one alone waits for its own results
        if self.in_pairs:
            registers = max(1, registers // 2)
        if self.target.registers <= 16:
            registers = min(registers, 4 if cost <= 12 else 2 if cost <= 90 else 1)
        width = self.lanes * registers
        if isinstance(extent, int):
            while width > self.lanes and width > extent:
                width //= 2
            while width > 1 and width // 2 >= extent:
                width //= 2
            while width > self.lanes and extent % width and extent % (width // 2) == 0:
                width //= 2
        return width

    # ---- outer vectors: all stages run for a block of neighbouring outer iterations

    def _blocks(self, axis: Index, width: int) -> tuple[Stmt, ...]:
        """All blocks of the vector axis, one after the other."""
        extent = axis.extent
        whole = floordiv(extent, width)
        parts: list[Stmt] = []
        if whole != 0:
            q = self._index("q", whole)
            parts.append(For(q, self._lanes_of(axis, width, Size.of(q) * width, None)))
        rest = extent - whole * width
        if rest != 0:
            masked = self._lanes_of(axis, width, whole * width, extent)
            parts += masked if isinstance(rest, int) else (If(less(0, rest), masked),)
        return tuple(parts)

    def _block(self, axis: Index, width: int, q: Size, blocks: Dim) -> tuple[Stmt, ...]:
        """Block q alone."""
        extent = axis.extent
        start = q * width
        if isinstance(extent, int) and extent % width == 0:
            return self._lanes_of(axis, width, start, None)
        masked = self._lanes_of(axis, width, start, extent)
        if blocks == 1 or self._cost() > DUPLICATE:
            return masked
        return (If(less(start + (width - 1), extent), self._lanes_of(axis, width, start, None), masked),)

    def _lanes_of(self, axis: Index, width: int, start: Dim, extent: Dim | None) -> tuple[Stmt, ...]:
        """The stages for lanes start … start + width - 1, those beyond `extent` masked off."""
        lane = Index(f"l{width}", width)
        vector = _Vector(lane, width)
        at = start + Size.of(lane) if width > 1 else start
        body = self._stages(vector)
        if width > 1:
            body = self._widened(body, lane, width)
        body = Rewriter(index=lambda x: at if x is axis else None).body(body)
        if width == 1:
            return body if extent is None else (If(less(start, extent), body),)
        if extent is not None:
            body = (If(less(at, extent), body),)
        return (For(lane, body, "vector"),)

    def _widened(self, body: tuple[Stmt, ...], lane: Index, width: int) -> tuple[Stmt, ...]:
        """Row buffers with a place for each lane: every lane has a row of its own."""
        wide = {b: Buffer(b.name, b.dtype, (b.shape[0] * width,), b.space) for b in self.rows.scratch}
        self.wide = tuple(wide.values())

        def change(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer in wide:
                mask = None if e.mask is None else rewriter.expr(e.mask)
                return Load(wide[e.buffer], (rewriter.size(e.index[0]) * width + Size.of(lane),), mask)
            return None

        class Widen(Rewriter):
            def statement(self, s: Stmt) -> Stmt:
                if isinstance(s, Store) and s.buffer in wide:
                    return Store(wide[s.buffer], (self.size(s.index[0]) * width + Size.of(lane),), self.expr(s.value))
                return super().statement(s)

        rewriter = Widen(change)
        return rewriter.body(body)

    # ---- stages

    def _stages(self, outer: _Vector | None) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        for s in self.rows.stages:
            result += self._straight(s, outer) if not s.axes else self._looped(s, outer)
        return tuple(result)

    def _straight(self, s: Stage, outer: _Vector | None) -> list[Stmt]:
        result: list[Stmt] = []
        values = []
        for name, e in s.lets:
            before, e = self._without_folds(e, outer)
            result += [*before, Let(name, e)]
        for b, i, e in s.stores:
            before, e = self._without_folds(e, outer)
            result += before
            values.append((b, i, e))
        return result + self._stores(values)

    def _stores(self, values: list[tuple[Buffer, tuple[Dim, ...], Expr]]) -> list[Stmt]:
        """All values first, then all stores: what is updated in place is read before it is written."""
        if len(values) == 1:
            return [Store(*values[0])]
        result: list[Stmt] = []
        named = []
        for b, i, e in values:
            self.counter += 1
            name = Local(f"t{self.counter}", e.dtype)
            result.append(Let(name, e))
            named.append(Store(b, i, name))
        return [*result, *named]

    def _looped(self, s: Stage, outer: _Vector | None) -> list[Stmt]:
        if outer is not None:
            return self._serial(s, outer)
        *high, last = s.axes
        cost = stage_cost(s)
        if self._use(last.extent) * _gain(s, last) < 0.3:
            width = 1
        else:
            width = self._width(last.extent, cost)
        lane = Index(f"l{width}", width)
        sums: list[tuple[Buffer, str, Local]] = []
        before: list[Stmt] = []
        for name, kind, _ in s.folds:
            acc = self._accumulator(name.dtype, width)
            sums.append((acc, kind, name))
            before.append(_each(lane, width, Store(acc, self._lane(lane, width), _identity(kind, name.dtype))))
        lane_at = self._lane(lane, width)
        vector = _Vector(lane, width)

        def body(at: Dim, mask: Dim | None) -> Stmt:
            inner: list[Stmt] = []
            values = []
            for name, e in s.lets:
                first, e = self._without_folds(e, vector)
                inner += [*first, Let(name, e)]
            for (acc, kind, _), (_, _, e) in zip(sums, s.folds, strict=True):
                first, e = self._without_folds(e, vector)
                inner += first
                inner.append(Store(acc, lane_at, _combined(kind, Load(acc, lane_at), e)))
            for b, i, e in s.stores:
                first, e = self._without_folds(e, vector)
                inner += first
                values.append((b, i, e))
            inner += self._stores(values) if values else []
            here = Rewriter(index=lambda x: at if x is last else None).body(tuple(inner))
            if mask is not None:
                here = (If(less(at, mask), here),)
            return For(lane, here, "vector") if width > 1 else For(Index("l1", 1), here, "unroll")

        extent = last.extent
        whole = floordiv(extent, width)
        loops: list[Stmt] = []
        if whole != 0:
            q = self._index("q", whole)
            at = Size.of(q) * width + (Size.of(lane) if width > 1 else 0)
            loops.append(For(q, (body(at, None),)))
        rest = extent - whole * width
        if rest != 0:
            masked = body(whole * width + Size.of(lane), extent)
            loops.append(masked if isinstance(rest, int) else If(less(0, rest), (masked,)))
        nest: tuple[Stmt, ...] = tuple(loops)
        for a in reversed(high):
            nest = (For(a, nest),)
        after: list[Stmt] = []
        for acc, kind, name in sums:
            value: Expr = Load(acc, self._lane(lane, width))
            after.append(Let(name, Lanes(kind, lane, value) if width > 1 else value))
        return [*before, *nest, *after]

    def _serial(self, s: Stage, outer: _Vector) -> list[Stmt]:
        """A stage whose loops run in order, for all lanes of the outer vector at once."""
        lane_at = self._lane(outer.index, outer.lanes)
        before: list[Stmt] = []
        inner: list[Stmt] = []
        after: list[Stmt] = []
        values = []
        for name, e in s.lets:
            first, e = self._without_folds(e, outer)
            inner += [*first, Let(name, e)]
        for name, kind, e in s.folds:
            acc = self._accumulator(name.dtype, outer.lanes)
            before.append(Store(acc, lane_at, _identity(kind, name.dtype)))
            first, e = self._without_folds(e, outer)
            inner += [*first, Store(acc, lane_at, _combined(kind, Load(acc, lane_at), e))]
            after.append(Let(name, Load(acc, lane_at)))
        for b, i, e in s.stores:
            first, e = self._without_folds(e, outer)
            inner += first
            values.append((b, i, e))
        inner += self._stores(values) if values else []
        nest: tuple[Stmt, ...] = tuple(inner)
        for a in reversed(s.axes):
            nest = (For(a, nest),)
        return [*before, *nest, *after]

    def _without_folds(self, e: Expr, outer: _Vector | None) -> tuple[list[Stmt], Expr]:
        """Reductions inside an expression become loops before it, each into a register."""
        before: list[Stmt] = []
        done: dict[Expr, Expr] = {}
        for fold in _outermost_folds(e):
            first, done[fold] = self._fold(fold, outer)
            before += first
        return before, Rewriter(lambda x: done.get(x)).expr(e) if done else e

    def _fold(self, fold: Fold, outer: _Vector | None) -> tuple[list[Stmt], Local]:
        """The loop of a reduction, and its result. Reductions inside it run in the loop if they change with it."""
        before: list[Stmt] = []
        inside: list[Stmt] = []
        done: dict[Expr, Expr] = {}
        for inner in _outermost_folds(fold.body):
            first, done[inner] = self._fold(inner, outer)
            if any(_changes_with(inner, a) for a in fold.axes):
                inside += first
            else:
                before += first
        body = Rewriter(lambda x: done.get(x)).expr(fold.body) if done else fold.body
        acc = self._accumulator(fold.dtype, outer.lanes if outer else 1)
        place = self._lane(outer.index, outer.lanes) if outer else (0,)
        combined = _combined(fold.kind, Load(acc, place), body)
        nest: tuple[Stmt, ...] = (*inside, Store(acc, place, combined))
        for a in reversed(fold.axes):
            nest = (For(a, nest),)
        self.counter += 1
        name = Local(f"f{self.counter}", fold.dtype)
        return [*before, Store(acc, place, _identity(fold.kind, fold.dtype)), *nest, Let(name, Load(acc, place))], name

    def _accumulator(self, dtype: str, lanes: int) -> Buffer:
        self.counter += 1
        b = Buffer(f"acc{self.counter}", dtype, (lanes,), "register")
        self.accumulators.append(b)
        return b

    def _lane(self, lane: Index, width: int) -> tuple[Dim, ...]:
        return (Size.of(lane) if width > 1 else 0,)


def _combined(kind: str, before: Expr, e: Expr) -> Expr:
    """A fold's next value. Of an extremum's two numbers the first is looked at for NaN: the new one, for the other is
    waited for."""
    return Apply(scalar(COMBINE[kind]), (e, before) if kind in ("max", "min") else (before, e))


def _gain(s: Stage, axis: Index) -> float:
    """How much faster the stage's accesses are as vectors along `axis`: 1 all contiguous, near 0 all gathers."""
    accesses = _accesses(s)
    if not accesses:
        return 1.0
    return len(accesses) / max(len(accesses), _access_cost(accesses, axis))


def _outermost_folds(e: Expr) -> list[Fold]:
    """Reductions in `e` that are in no other one, each once."""
    found: dict[Fold, None] = {}
    seen: set[Expr] = set()
    stack = [e]
    while stack:
        x = stack.pop()
        if x in seen:
            continue
        seen.add(x)
        if isinstance(x, Fold):
            found[x] = None
        else:
            stack.extend(children(x))
    return list(found)


def _changes_with(e: Expr, index: Index) -> bool:
    """Whether `e` has `index` in an access or as a number."""
    for x in expressions([e]):
        sizes = x.index if isinstance(x, Load) else (x.size,) if isinstance(x, IndexValue) else ()
        if any(a is index for d in sizes for a in atoms(d)):
            return True
    return False


def _iterations(s: Stage) -> float:
    n = product(a.extent for a in s.axes)
    return float(n) if isinstance(n, int) else 64.0


def _each(lane: Index, width: int, statement: Stmt) -> Stmt:
    return For(lane, (statement,), "vector") if width > 1 else statement


def _identity(kind: str, dtype: str) -> Const:
    return Const(dtype, IDENTITY[kind](dtypes.named(dtype)))


def less(a: Dim, b: Dim) -> Expr:
    return Apply(scalar("less"), (IndexValue("int64", a), IndexValue("int64", b)))
