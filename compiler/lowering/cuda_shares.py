"""A recurrence over a batch on CUDA: each block goes through all rounds with rows of its own, and waits for nobody.

    suits(rows, threads)      whether a block of so many threads can compute its rows of a row program
    Share(...).statements     how it does, inside a loop over its threads
    Share(...).weights        what it does before the first round

That no row asks for another's is read off the row programs (`shares.Use`). What a round hands on inside the block and
nobody reads afterwards lies in shared memory, and so do weights, as many as fit; the rest is read again in each round.

A product sums in pieces: a thread has some columns, and for all rows of the block adds up one piece of each sum, so
that a weight is read once for all rows; pieces are added in shared memory. Threads of a warp read neighbouring weights,
which are those of different columns or different terms of a sum. The left operand, with all that melted into
it, is computed once and shared. Other row programs are spread over threads element by element, or row by row where they
fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    Alloc,
    Apply,
    Barrier,
    Buffer,
    Const,
    Expr,
    For,
    If,
    IndexValue,
    Let,
    Load,
    Local,
    Rewriter,
    Stmt,
    Store,
)
from gnomon.compiler.lowering.cuda_parts import (
    Accumulator,
    Values,
    below,
    call,
    cast,
    compute,
    extent_of,
    mentioned,
    named_index,
    neighbours,
    outer_folds,
    placed,
    serially,
    spread,
)
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, maximum, modulo, product

ROWS = 2
"""Rows of a block: a weight is read once for all of them, and 64 rows are to keep some dozens of blocks busy."""
THREADS = 1024
"""Threads of a block: what they wait for is the cache."""
PLAIN_THREADS = 256
"""The same where there is no product."""
WARP = 32
ROOM = {"sm_70": 96, "sm_75": 64, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_120": 99, "sm_121": 99}
"""KiB of shared memory that a block may have, of architectures where it is not as in their neighbours (`room`)."""
COLUMNS = 4
"""Columns of a product that a thread has, where it is that wide: what it reads of the left operand serves them all."""
TERMS = 8
"""Terms of a sum that make a piece."""
SERIAL = 16
"""Inner iterations that one thread does alone."""
ALIGNED = 16
"""Bytes that may be lost in front of an array in shared memory."""


@dataclass(frozen=True)
class Product:
    """sum over `summed` of left * right, which becomes `local`. Only `left` depends on the row, only `right` on the
    columns."""

    local: Local
    left: Expr
    right: Expr
    columns: tuple[Index, ...]
    summed: tuple[Index, ...]

    @property
    def width(self) -> int:
        return _static(extent_of(self.columns))

    @property
    def depth(self) -> int:
        return _static(extent_of(self.summed))

    @property
    def along(self) -> bool:
        """Whether weights that are neighbours in memory are terms of one sum."""
        return neighbours(self.right, self.summed[-1])

    @property
    def each(self) -> int:
        """Columns of a thread."""
        return COLUMNS if self.width >= 32 * COLUMNS else 2 if self.width >= 64 else 1

    @property
    def across(self) -> int:
        """Threads side by side that have different columns: of different warps if weights lie along the sums."""
        wanted = -(-self.width // self.each)
        return min(THREADS // WARP, wanted) if self.along else min(THREADS, -(-wanted // WARP) * WARP)

    @property
    def pieces(self) -> int:
        """Into how many pieces each sum is cut: equal ones if that costs not too many."""
        if self.along:
            return WARP
        most = max(1, min(THREADS // self.across, self.depth // TERMS))
        return next((p for p in range(most, most // 2, -1) if self.depth % p == 0), most)

    @property
    def steps(self) -> int:
        """Terms of a piece."""
        return -(-self.depth // self.pieces)

    @property
    def bytes_of_step(self) -> int:
        """Those of the weights that all threads together read in one step along their pieces."""
        return self.pieces * self.width * dtypes.named(compute(self.local.dtype)).bytes

    def place(self, piece: Dim, row: Dim, column: Dim) -> tuple[Dim, ...]:
        """Where a piece of a sum is kept."""
        return (row, column, piece) if self.along else (piece, row, column)

    def term(self, step: Dim, piece: Dim) -> Dim:
        """The term of a sum that a step along a piece adds."""
        return step * self.pieces + piece if self.along else piece * self.steps + step

    def kept(self, number: int, steps: int) -> Buffer:
        """The weights of the first `steps` steps in shared memory."""
        shape = (self.width, steps * self.pieces) if self.along else (steps, self.pieces, self.width)
        return Buffer(f"weights{number}", compute(self.local.dtype), shape, "shared")

    def kept_at(self, step: Dim, piece: Dim, column: Dim) -> tuple[Dim, ...]:
        return (column, step * self.pieces + piece) if self.along else (step, piece, column)

    def weight(self, term: Dim, column: Dim) -> Expr:
        value = placed(spread(column, self.columns) | spread(term, self.summed)).expr(self.right)
        return cast(compute(self.local.dtype), value)


def _static(d: Dim) -> int:
    assert isinstance(d, int), d
    return d


def product_of(rows: RowProgram) -> Product | None:
    """The product that a row program begins with, if what follows is done to one element at a time."""
    if not rows.stages or not rows.outer or rows.scratch or any(s.axes for s in rows.stages[1:]):
        return None
    first, (row, *columns) = rows.stages[0], rows.outer
    if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
        return None
    if not isinstance(extent_of(columns), int) or not isinstance(extent_of(first.axes), int):
        return None
    local, kind, value = first.folds[0]
    if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply" or outer_folds(value):
        return None
    for left, right in (value.args, value.args[::-1]):
        if row not in mentioned(right) and not mentioned(left) & set(columns):
            return Product(local, left, right, tuple(columns), first.axes)
    return None


def room(arch: str) -> int:
    """Bytes of shared memory that a block may have: 163 KiB from sm_80 on, 227 from sm_90 on."""
    number = int("".join(c for c in arch if c.isdigit()) or 80)
    return ROOM.get(f"sm_{number}", 227 if number >= 90 else 163 if number >= 80 else 48) << 10


def bytes_of(body: Sequence[Stmt]) -> int:
    """Shared memory that statements declare."""
    shared = [s.buffer for s in body if isinstance(s, Alloc) and s.buffer.space == "shared"]
    return sum(_static(product(b.shape)) * dtypes.named(b.dtype).bytes + ALIGNED for b in shared)


def threads_for(programs: Sequence[RowProgram]) -> int:
    """Threads of a block that computes all these."""
    found = [p.across * p.pieces for rows in programs if (p := product_of(rows)) is not None]
    return max(found, default=PLAIN_THREADS)


def suits(rows: RowProgram, threads: int) -> bool:
    """Whether a block of so many threads can compute its rows of a row program."""
    if product_of(rows) is not None or _is_plain(rows):
        return True
    items = extent_of(rows.outer[1:])
    return isinstance(items, int) and ROWS * items <= threads and all(
        isinstance(product(b.shape), int) for b in rows.scratch
    )  # fmt: skip


def _is_plain(rows: RowProgram) -> bool:
    """Whether one thread is to do all of an outer iteration."""
    inner = [extent_of(s.axes) for s in rows.stages if s.axes]
    inner += [product(b.shape) for b in rows.scratch]
    return all(isinstance(n, int) and n <= SERIAL for n in inner)


class Share:
    """The rows of a block: `ROWS` from `first` on, of which there are `extent` in all. `thread` is one of `threads`."""

    def __init__(self, first: Dim, extent: Dim, thread: Dim, threads: int):
        self.first, self.extent, self.thread, self.threads = first, extent, thread, threads

    def weights(self, p: Product, number: int, steps: int) -> list[Stmt]:
        """Put the weights of the first `steps` steps of a product into shared memory."""
        kept = p.kept(number, steps)
        total = product(kept.shape)
        turn, turns = named_index("turn", ceildiv(total, self.threads))
        at = turns * self.threads + self.thread
        if p.along:
            column, place = floordiv(at, steps * p.pieces), modulo(at, steps * p.pieces)
            step, piece = floordiv(place, p.pieces), modulo(place, p.pieces)
        else:
            step, place = floordiv(at, p.pieces * p.width), modulo(at, p.pieces * p.width)
            piece, column = floordiv(place, p.width), modulo(place, p.width)
        term = p.term(step, piece)
        fill: tuple[Stmt, ...] = (Store(kept, p.kept_at(step, piece, column), p.weight(term, column)),)
        inside = below((at, total, self.threads), (term, p.depth, p.pieces))
        return [Alloc(kept), For(turn, fill if inside is None else (If(inside, fill),))]

    def statements(self, rows: RowProgram, number: int, steps: int = 0) -> list[Stmt]:
        """The block's part of a row program, which `number` tells from others in the same kernel. `steps`: the weights
        of so many steps are at hand."""
        p = product_of(rows)
        if p is not None:
            return self._product(rows, p, number, steps)
        return self._plain(rows) if _is_plain(rows) else self._teams(rows, number)

    def copy(self, target: Buffer, source: Buffer) -> list[Stmt]:
        """Copy the block's rows of one buffer to another."""
        axes = [Index(f"a{k}", d) for k, d in enumerate(source.shape[1:])]
        place = tuple(Size.of(a) for a in axes)
        return self._each(extent_of(axes), lambda r, at: list(placed(spread(at, axes)).body(
            (Store(target, (r, *place), Load(source, (r, *place))),))))  # fmt: skip

    # ---- element by element

    def _each(self, each: Dim, work) -> list[Stmt]:
        """`work(row, position)` for all rows and `each` positions, shared among the threads."""
        total = ROWS * each
        turn, turns = named_index("turn", ceildiv(total, self.threads))
        position = self.thread if turn.extent == 1 else turns * self.threads + self.thread
        r = floordiv(position, each)
        body = tuple(work(self.first + r, modulo(position, each)))
        inside = below((position, total, self.threads), (self.first + r, self.extent, ROWS))
        body = body if inside is None else (If(inside, body),)
        return list(body) if turn.extent == 1 else [For(turn, body)]

    def _plain(self, rows: RowProgram) -> list[Stmt]:
        values = Values()
        body: list[Stmt] = [Alloc(b) for b in rows.scratch]
        for stage in rows.stages:
            body += serially(stage, values)
        row, *rest = rows.outer
        return self._each(extent_of(rest), lambda r, at: placed({row: r} | spread(at, rest)).body(tuple(body)))

    # ---- products

    def _product(self, rows: RowProgram, p: Product, number: int, steps: int) -> list[Stmt]:
        row = rows.outer[0]
        dtype = compute(p.local.dtype)
        left = Buffer(f"left{number}", dtype, (ROWS, p.depth), "shared")
        shape = (ROWS, p.width, p.pieces + 1) if p.along else (p.pieces, ROWS, p.width)  # no two in the same bank
        parts = Buffer(f"parts{number}", dtype, shape, "shared")
        total = Buffer(f"total{number}", dtype, (ROWS, p.each), "register")

        def fill(r: Dim, at: Dim) -> list[Stmt]:
            change = {row: r} | spread(at, p.summed)
            return [Store(left, (r - self.first, at), cast(dtype, placed(change).expr(p.left)))]

        across, pieces = p.across, p.pieces
        turn, turns = named_index("turn", ceildiv(p.width, across * p.each))
        if p.along:
            lane, piece = floordiv(self.thread, pieces), modulo(self.thread, pieces)
        else:
            piece, lane = floordiv(self.thread, across), modulo(self.thread, across)
        r, which = named_index("r", ROWS)
        j, column = named_index("j", p.each)
        wide = turns * (across * p.each) + column * across + lane
        inside = wide if p.width % (across * p.each) == 0 else _smaller(wide, p.width - 1)  # what is not stored
        weight = Local(f"weight{number}", dtype)

        def multiply(first: int, last: int) -> list[Stmt]:
            """Steps along the piece."""
            k, further = named_index("k", last - first)
            step = first + further
            term = p.term(step, piece)
            kept = last <= steps
            value = Load(p.kept(number, steps), p.kept_at(step, piece, inside)) if kept else p.weight(term, inside)
            more = call("add", Load(total, (which, column)), call("multiply", Load(left, (which, term)), weight))
            of_rows = For(r, (Store(total, (which, column), more),), "unroll")
            body: tuple[Stmt, ...] = (For(j, (Let(weight, value), of_rows), "unroll"),)
            rest = below((term, p.depth, pieces))
            return [For(k, body if rest is None else (If(rest, body),))] if first < last else []

        zero = Store(total, (which, column), Const(dtype, 0))
        place = Store(parts, p.place(piece, which, wide), Load(total, (which, column)))
        within = below((wide, p.width, across * p.each))
        keep: tuple[Stmt, ...] = (For(r, (place,), "unroll"),)
        add: list[Stmt] = [
            For(j, (For(r, (zero,), "unroll"),), "unroll"),
            *multiply(0, steps),
            *multiply(steps, p.steps),
            For(j, keep if within is None else (If(within, keep),), "unroll"),
        ]
        busy = below((self.thread, across * pieces, self.threads))
        work = list(placed({turn: 0}).body(tuple(add))) if turn.extent == 1 else [For(turn, tuple(add))]
        body: list[Stmt] = [Alloc(left), Alloc(parts), Alloc(total)]
        body += self._each(p.depth, fill)
        body.append(Barrier())
        body += work if busy is None else [If(busy, tuple(work))]
        body.append(Barrier())
        return body + self._each(p.width, lambda r, at: self._finished(rows, p, parts, r, at))

    def _finished(self, rows: RowProgram, p: Product, parts: Buffer, r: Dim, at: Dim) -> Sequence[Stmt]:
        """Add the pieces of one element's sum, and do what follows."""
        values = Values()
        total = Accumulator(f"{p.local.name}_sum", "sum", p.local.dtype)
        piece, number = named_index("piece", p.pieces)
        body: list[Stmt] = total.start()
        body.append(For(piece, (total.add(Load(parts, p.place(number, r - self.first, at))),), "unroll"))
        after: list[Stmt] = [Let(p.local, cast(p.local.dtype, total.value))]
        for stage in rows.stages[1:]:
            after += serially(stage, values)
        change = {rows.outer[0]: r} | spread(at, p.columns)
        return [*body, *placed(change).body(tuple(after))]

    # ---- row by row

    def _teams(self, rows: RowProgram, number: int) -> list[Stmt]:
        """A team of threads for each outer iteration. Teams that have none read what others do, and store nothing."""
        row, *rest = rows.outer
        each = _static(extent_of(rest))
        items = ROWS * each
        size = 1
        while size * 2 * items <= self.threads:
            size *= 2
        item, lane = floordiv(self.thread, size), modulo(self.thread, size)
        inside = self.thread, items * size, self.threads
        present = below(inside, (self.first + floordiv(item, each), self.extent, ROWS))
        if items * size < self.threads:
            item = _smaller(item, items - 1)
        here = self.first + floordiv(item, each)
        if modulo(self.extent, ROWS) != 0:
            here = _smaller(here, self.extent - 1)
        team = _Team(item, lane, size, items, present, below(inside))
        scratch = {b: Buffer(f"{b.name}_{number}", b.dtype, (items, *b.shape), "shared") for b in rows.scratch}
        beside = Beside(scratch, lambda index: (item, *index))
        change = placed({row: here} | spread(modulo(item, each), rest))
        body: list[Stmt] = [Alloc(b) for b in scratch.values()]
        values = Values()
        for k, stage in enumerate(rows.stages):
            if k:
                body.append(Barrier())  # what a stage stores is read by others of the team
            body += beside.body(change.body(tuple(team.stage(stage, values, f"{number}_{k}"))))
        return body


@dataclass(frozen=True)
class _Team:
    """Some threads that share the inner iterations of an outer one.

    item, items      which outer iteration, and how many there are
    lane, size       which thread of the team, and how many
    present, inside  what must hold to store (None: nothing), and to have a place among the teams
    """

    item: Dim
    lane: Dim
    size: int
    items: int
    present: Expr | None
    inside: Expr | None

    def stage(self, stage: Stage, values: Values, name: str) -> list[Stmt]:
        """A stage; what it stores without inner axes is stored by the first thread."""
        if not stage.axes:
            body: list[Stmt] = []
            for local, x in [*stage.lets, *((local, x) for local, _, x in stage.folds)]:
                body += values.let(local, x)
            if not stage.stores:
                return body
            first = call("equal", IndexValue("int64", self.lane), IndexValue("int64", 0))
            # all have read what is overwritten before it goes
            return [*body, Barrier(), If(_both(self.present, first), tuple(values.stores(stage.stores)))]
        totals = [Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
        inside: list[Stmt] = []
        for local, x in stage.lets:
            inside += values.let(local, x)
        for total, (_, _, x) in zip(totals, stage.folds, strict=True):
            before, value = values.plain(x)
            inside += [*before, total.add(value)]
        inside += values.stores(stage.stores)
        extent = extent_of(stage.axes)
        turn, turns = named_index("turn", ceildiv(extent, self.size))
        position = self.lane if turn.extent == 1 else turns * self.size + self.lane
        work = placed(spread(position, stage.axes)).body(tuple(inside))
        rest = _both(self.present, below((position, extent, self.size)))
        work = work if rest is None else (If(rest, work),)
        found = [s for total in totals for s in total.start()]
        found += work if turn.extent == 1 else [For(turn, work)]
        return found + self._folded(stage, totals, name) if totals else found

    def _folded(self, stage: Stage, totals: Sequence[Accumulator], name: str) -> list[Stmt]:
        """Fold what the threads have by a tree in shared memory, and let all know the result."""
        place = self.item, self.lane
        parts = [Buffer(f"{local.name}_parts{name}", total.dtype, (self.items, self.size), "shared")
                 for total, (local, _, _) in zip(totals, stage.folds, strict=True)]  # fmt: skip
        store: tuple[Stmt, ...] = tuple(Store(p, place, total.value) for p, total in zip(parts, totals, strict=True))
        body: list[Stmt] = [*map(Alloc, parts), *(store if self.inside is None else [If(self.inside, store)])]
        half = self.size
        while half > 1:
            half //= 2
            low = call("less", IndexValue("int64", self.lane), IndexValue("int64", half))
            other = self.item, self.lane + half
            halves = tuple(
                Store(p, place, call(COMBINE[kind], Load(p, place), Load(p, other)))
                for p, (_, kind, _) in zip(parts, stage.folds, strict=True)
            )
            body += [Barrier(), If(_both(self.inside, low), halves)]
        body.append(Barrier())
        return body + [
            Let(local, cast(local.dtype, Load(p, (self.item, 0))))
            for p, (local, _, _) in zip(parts, stage.folds, strict=True)
        ]


class Beside(Rewriter):
    """Puts other buffers in the place of some, `where` their elements are in them."""

    def __init__(self, buffers: Mapping[Buffer, Buffer], where: Callable[[tuple[Dim, ...]], tuple[Dim, ...]]):
        super().__init__(self._load)
        self.buffers, self.where = buffers, where

    def _load(self, e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer not in self.buffers:
            return None
        mask = None if e.mask is None else self.expr(e.mask)
        return Load(self.buffers[e.buffer], self.where(tuple(self.size(i) for i in e.index)), mask)

    def statement(self, s: Stmt) -> Stmt:
        new = super().statement(s)
        if isinstance(new, Store) and new.buffer in self.buffers:
            return Store(self.buffers[new.buffer], self.where(new.index), new.value)
        return new


def _smaller(a: Dim, b: Dim) -> Dim:
    return -maximum(-a, -b)


def _both(a: Expr | None, b: Expr | None) -> Any:
    """Both conditions, of which None always holds; None if both do."""
    return call("logical_and", a, b) if a is not None and b is not None else b if a is None else a
