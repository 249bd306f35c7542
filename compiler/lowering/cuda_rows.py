"""Rows on CUDA: kernels in which a team of threads shares each outer iteration of a row program.

    team_of(rows)       who shares, None if one thread is to do all
    rows_by_teams(...)  the kernel's statements

Teams are
    of a warp     2 to 32 neighbouring threads, several rows a block; folds are shuffles, and no warp waits for another
    of a block    all threads; warps fold by shuffles and meet once in shared memory
    of columns    where neighbours in memory are outer iterations (column sums): 32 rows lie beside each other in a
                  block, and each is shared by threads of different warps

What a thread of a team hands on to itself, and what it reads from memory more than once, stays in its registers as far
as a row is short enough. Every fold has a fixed shape: results do not depend on the order of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    Alloc,
    Barrier,
    Buffer,
    Expr,
    For,
    If,
    IndexValue,
    Let,
    Load,
    Local,
    Rewriter,
    Shuffle,
    Stmt,
    Store,
    Value,
    expressions,
)
from gnomon.compiler.lowering.cuda_parts import (
    Accumulator,
    Values,
    call,
    cast,
    extent_of,
    named_index,
    neighbours,
    outer_folds,
    placed,
    serially,
    spread,
)
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.sizes import (
    Dim,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    evaluate,
    floordiv,
    modulo,
    product,
)

THREADS = 256
WARP = 32
VECTOR = 4
"""Neighbouring elements that a thread reads and writes as one: 16 bytes of float32."""
ALONE = 4
"""Inner iterations that one thread does alone: fewer than would keep a team busy."""
ALONE_IN_COLUMNS = 16
"""The same where neighbouring threads read neighbouring elements all the same."""
MANY = 1 << 16
"""Outer iterations that keep all threads of a GPU busy, one each."""
FEW = 64
"""Outer iterations that do not, one warp each."""
OF_WARP = 256
"""Inner iterations up to which a warp is enough."""
KEPT = 16
"""Elements of one array that a thread keeps in registers."""
ROW = 32
"""Elements of a row buffer that a thread alone may hold."""
MOST_SHARED = 160 << 10
"""Bytes of row buffers that shared memory holds; what is larger goes to the thread's own memory, which is slow."""
STATIC_SHARED = 48 << 10
"""Bytes of them that several rows may have together: more must be asked for, and few blocks run at once."""


def rows_by_teams(rows: RowProgram, team: Team, aligned: bool) -> tuple[Stmt, ...]:
    """The statements of a kernel. `aligned`: all buffers begin at multiples of 16 bytes."""
    return _Rows(rows, team, aligned).body()


def less(a: Dim, b: Dim) -> Expr:
    """Whether one size is below another."""
    return call("less", IndexValue("int64", a), IndexValue("int64", b))


def _bytes(b: Buffer) -> Dim:
    return product(b.shape) * dtypes.named(b.dtype).bytes


def _is_first(a: Dim) -> Expr:
    return call("equal", IndexValue("int64", a), IndexValue("int64", 0))


def _both(a: Expr | None, b: Expr | None) -> Expr | None:
    return call("logical_and", a, b) if a is not None and b is not None else b if a is None else a


def _if(condition: Expr | None, body: Sequence[Stmt]) -> list[Stmt]:
    return [If(condition, tuple(body))] if condition is not None and body else list(body)


# ---- who shares an outer iteration


@dataclass(frozen=True)
class Team:
    """How the threads of a block share outer iterations: `rows` of them at a time, `size` threads each.

    form   'warp', 'block' or 'columns'
    """

    form: str
    rows: int
    size: int

    @property
    def threads(self) -> int:
        return self.rows * self.size


def team_of(rows: RowProgram) -> Team | None:
    """Who shares an outer iteration, None if one thread does all of it."""
    inner = [extent_of(s.axes) for s in rows.stages if s.axes]
    if not inner or sum(evaluate(_bytes(b), {}) for b in rows.scratch) > MOST_SHARED:
        return None
    static = [n for n in inner if isinstance(n, int)]
    most = max(static) if len(static) == len(inner) else None
    outer = extent_of(rows.outer)
    in_columns = bool(rows.outer) and _in_columns(rows)
    holds = all(isinstance(n := product(b.shape), int) and n <= ROW for b in rows.scratch)
    if most is not None and holds:
        if most <= (ALONE_IN_COLUMNS if in_columns else ALONE):
            return None
        if in_columns and isinstance(outer, int) and outer >= MANY:
            return None
    if in_columns:
        wide = rows.outer[-1].extent
        beside = min(WARP, _power(wide)) if isinstance(wide, int) else WARP
        if _fits(rows, beside):
            return Team("columns", beside, THREADS // beside)
    few = isinstance(outer, int) and outer <= FEW
    if rows.outer and (not few if most is None else most <= OF_WARP):
        size = WARP if most is None else max(2, min(WARP, _power((_units(rows, most) + 1) // 2)))
        if _fits(rows, THREADS // size):
            return Team("warp", THREADS // size, size)
    if most is None or most <= THREADS * KEPT:
        return Team("block", 1, THREADS)
    return Team("block", 1, 512 if most <= 512 * KEPT else 1024)


def _units(rows: RowProgram, most: int) -> int:
    """Vectors of a row, or elements if it has none."""
    return most // VECTOR if any(s.axes and _goes_wide(s) for s in rows.stages) else most


def _fits(rows: RowProgram, several: int) -> bool:
    """Whether so many rows have their buffers in shared memory together."""
    return several * sum(evaluate(_bytes(b), {}) for b in rows.scratch) <= STATIC_SHARED


def _power(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _in_columns(rows: RowProgram) -> bool:
    """Whether neighbours in memory are outer iterations, and not inner ones."""
    read = [(x, s.axes[-1]) for s in rows.stages if s.axes for _, _, x in s.folds]
    along_row = any(neighbours(x, axis) for x, axis in read)
    across_rows = any(neighbours(x, rows.outer[-1]) for x, _ in read)
    return across_rows and not along_row


def _values(s: Stage) -> list[Expr]:
    return [x for _, x in s.lets] + [x for _, _, x in (*s.folds, *s.stores)]


def _loads(s: Stage) -> list[Load]:
    return [e for e in expressions(_values(s)) if isinstance(e, Load)]


def _goes_wide(s: Stage) -> bool:
    """Whether neighbouring iterations of a stage are to be done by one thread."""
    last = s.axes[-1]
    if not isinstance(last.extent, int) or last.extent % VECTOR or any(map(outer_folds, _values(s))):
        return False
    along = [(e.buffer, e.index) for e in _loads(s) if e.mask is None] + [(b, i) for b, i, _ in s.stores]
    return any(b.space == "global" and coefficient(b.offset(i), last) == 1 for b, i in along)


# ---- the kernel


class _Rows:
    """Writes the kernel of a team for each outer iteration."""

    def __init__(self, rows: RowProgram, team: Team, aligned: bool):
        self.rows, self.team = rows, team
        self.values = Values()
        self.thread, t = named_index("t", team.threads)
        self.begin: list[Stmt] = []
        self.row: Dim = 0  # of the thread among those of its block
        self.rank: Dim = t  # of the thread among those of its row
        if team.form == "columns":
            self.row, self.rank = self._named("beside", modulo(t, team.rows), team.rows), floordiv(t, team.rows)
        elif team.rows > 1:
            self.row, self.rank = floordiv(t, team.size), self._named("rank", modulo(t, team.size), team.size)
        self.lanes: dict[tuple[Index, ...], int] = {}  # by the axes of stages: neighbouring iterations of one thread
        for s in rows.stages:
            if s.axes and aligned and _goes_wide(s):
                self.lanes[s.axes] = VECTOR
        self.turn: dict[tuple[Index, ...], Index] = {
            s.axes: Index("turn", ceildiv(self._units(s.axes), team.size)) for s in rows.stages if s.axes
        }
        self.written = {b for s in rows.stages for b, _, _ in s.stores}
        self.memory: dict[Buffer, Buffer] = {}  # where row buffers are: the registers of a thread, or shared memory
        self.cached: dict[tuple[tuple[Index, ...], Load], Buffer] = {}  # what is read more than once
        self.filled: set[Buffer] = set()
        self.parts: list[Buffer] = []  # shared arrays of what warps hand to each other
        self.inside: Expr | None = None  # whether the thread has a row at all
        for b in rows.scratch:
            home = self._home(b)
            shape = (team.rows, *b.shape) if team.rows > 1 else b.shape
            shared = Buffer(b.name, b.dtype, shape, "shared")
            self.memory[b] = shared if home is None else self._registers(b.name, b.dtype, home)
        for s in rows.stages:
            self._cache(s)

    def _named(self, name: str, value: Dim, extent: Dim) -> Dim:
        """A size computed once."""
        local = Local(name, "int64")
        self.begin.append(Let(local, IndexValue("int64", value)))
        return Size.of(Value(local, extent))

    # ---- what stays in registers

    def _units(self, axes: tuple[Index, ...]) -> Dim:
        return floordiv(extent_of(axes), self.lanes.get(axes, 1))

    def _is_short(self, axes: tuple[Index, ...]) -> bool:
        """Whether a thread's iterations are few enough for registers."""
        turns = self.turn[axes].extent if axes else 0
        return isinstance(turns, int) and 0 < turns * self.lanes.get(axes, 1) <= KEPT

    def _home(self, b: Buffer) -> tuple[Index, ...] | None:
        """The axes of the stages that use a buffer, if each thread reads only what it has stored itself."""
        stored = [(s.axes, i) for s in self.rows.stages for c, i, _ in s.stores if c is b]
        read = [(s.axes, e.index) for s in self.rows.stages for e in _loads(s) if e.buffer is b]
        places = set(stored + read)
        if len(places) != 1 or any(e.mask is not None for s in self.rows.stages for e in _loads(s) if e.buffer is b):
            return None
        ((axes, index),) = places
        own = [Size.of(a) for a in axes]
        return axes if self._is_short(axes) and [i for i in index if i != 0] == own else None

    def _registers(self, name: str, dtype: str, axes: tuple[Index, ...]) -> Buffer:
        turns = self.turn[axes].extent
        assert isinstance(turns, int)
        return Buffer(name, dtype, (turns * self.lanes.get(axes, 1),), "local")

    def _cache(self, stage: Stage) -> None:
        """Note what later stages read again from the same places."""
        if not self._is_short(stage.axes):
            return
        again = [s for s in self.rows.stages if s.axes == stage.axes]
        for e in _loads(stage):
            key = (stage.axes, e)
            steady = e.mask is None and e.buffer.space == "global" and e.buffer not in self.written
            moving = any(a in stage.axes for d in e.index for a in atoms(d))
            if steady and moving and key not in self.cached and sum(e in _loads(s) for s in again) > 1:
                name = f"{e.buffer.name}_kept{len(self.cached)}"
                self.cached[key] = self._registers(name, e.dtype, stage.axes)

    # ---- the whole

    def body(self) -> tuple[Stmt, ...]:
        rows, team = self.rows, self.team
        total = extent_of(rows.outer)
        block, number = named_index("row", ceildiv(total, team.rows))
        place: Dim = number
        if team.rows > 1:
            place = number * team.rows + self.row
            if modulo(total, team.rows) != 0:
                self.inside = less(place, total)
                at = Local("here", "int64")
                last = call("minimum", IndexValue("int64", place), IndexValue("int64", total - 1))
                self.begin.append(Let(at, last))  # a row in any case: what all threads read must be there
                place = Size.of(Value(at, total))
        inside: list[Stmt] = []
        unsettled: list[Stage] = []  # stages whose stores other threads may not see yet
        for stage in rows.stages:
            if any(self._meet(before, stage) for before in unsettled):
                inside.append(self._barrier())
                unsettled = []
            inside += self._straight(stage) if not stage.axes else self._shared_out(stage)
            unsettled = [*unsettled, stage] if not stage.folds or not stage.axes or team.form == "warp" else []
        work = placed(spread(place, rows.outer)).body(tuple(inside))
        own = [Alloc(b) for b in (*self.memory.values(), *self.cached.values()) if b.space == "local"]
        shared = [Alloc(b) for b in (*self.memory.values(), *self.parts) if b.space == "shared"]
        whole: tuple[Stmt, ...] = (*shared, For(self.thread, (*own, *self.begin, *work), "thread"))
        return (For(block, whole, "block"),) if rows.outer else whole

    def _barrier(self) -> Stmt:
        return Barrier(warp=self.team.form == "warp")

    def _meet(self, before: Stage, now: Stage) -> bool:
        """Whether a stage needs to know that all threads have come through an earlier one."""
        stored, storing = before.stores, now.stores
        for b in {b for b, _, _ in stored} & ({e.buffer for e in _loads(now)} | {b for b, _, _ in storing}):
            places = {i for c, i, _ in (*stored, *storing) if c is b} | {e.index for e in _loads(now) if e.buffer is b}
            if len(places) > 1 or not now.axes or before.axes != now.axes:
                return True
        for b in {b for b, _, _ in storing} & {e.buffer for e in _loads(before)}:
            places = {i for c, i, _ in storing if c is b} | {e.index for e in _loads(before) if e.buffer is b}
            if len(places) > 1 or not now.axes or before.axes != now.axes:
                return True
        return False

    def _straight(self, stage: Stage) -> list[Stmt]:
        """Straight code: every thread computes what later stages need, the first of the row stores."""
        home = _Home(self, (), 0)
        named = home.body(tuple(serially(Stage((), stage.folds, stage.lets), self.values)))
        stores = home.body(tuple(self.values.stores(stage.stores))) if stage.stores else ()
        body = [*named]
        if named and {b for b, _, _ in stage.stores} & {e.buffer for e in _loads(stage)}:
            body.append(self._barrier())  # all must have read the old value before it goes
        return body + _if(_both(_is_first(self.rank), self.inside), stores)

    def _shared_out(self, stage: Stage) -> list[Stmt]:
        """A loop whose iterations the threads of the row share."""
        lanes, turn, units = self.lanes.get(stage.axes, 1), self.turn[stage.axes], self._units(stage.axes)
        lane, at = named_index("lane", lanes)
        step: Dim = 0 if turn.extent == 1 else Size.of(turn)
        totals = [Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
        inside: list[Stmt] = []
        for local, x in stage.lets:
            inside += self.values.let(local, x)
        for total, (_, _, x) in zip(totals, stage.folds, strict=True):
            before, value = self.values.plain(x)
            inside += [*before, total.add(value)]
        inside += self.values.stores(stage.stores) if stage.stores else []
        home = _Home(self, stage.axes, step * lanes + (at if lanes > 1 else 0))
        body = home.body(tuple(inside))
        body = (*home.filling(stage), *body)
        number = step * self.team.size + self.rank
        *first, last = stage.axes
        short = Index(last.name, floordiv(last.extent, lanes))
        change = spread(number, (*first, short))
        if lanes > 1:
            change[last] = change.pop(short) * lanes + at
            body = (For(lane, body, "vector"),)
        work = _if(None if modulo(units, self.team.size) == 0 else less(number, units), body)
        if step != 0:
            work = [For(turn, tuple(work), "unroll" if self._is_short(stage.axes) else "serial")]
        loops = placed(change).body(tuple(_if(self.inside, work)))
        return [*(s for total in totals for s in total.start()), *loops, *self._folded(stage, totals)]

    # ---- folds over threads

    def _folded(self, stage: Stage, totals: Sequence[Accumulator]) -> list[Stmt]:
        """From what each thread has to what all of them know."""
        if not totals:
            return []
        team, body = self.team, []
        parts: list[Buffer] = []
        warps = team.size // WARP if team.form == "block" else team.size
        if team.form != "columns":
            lane = min(team.size, WARP) // 2
            while lane:
                body += [t.add(Shuffle(t.value, lane)) for t in totals]
                lane //= 2
        if team.form != "warp":
            shape = (warps,) if team.form == "block" else (warps, team.rows)
            parts = [Buffer(f"{local.name}_parts", t.dtype, shape, "shared")
                     for t, (local, _, _) in zip(totals, stage.folds, strict=True)]  # fmt: skip
            own = (floordiv(self.rank, WARP),) if team.form == "block" else (self.rank, self.row)
            hand = [Store(part, own, t.value) for part, t in zip(parts, totals, strict=True)]
            alone = _is_first(modulo(self.rank, WARP)) if team.form == "block" else None
            body += [*_if(alone, hand), Barrier()]
            self.parts += parts
        for k, (local, kind, _) in enumerate(stage.folds):
            whole = totals[k].value
            if parts:
                places: list[tuple[Dim, ...]] = [(w, self.row)[: len(parts[k].shape)] for w in range(warps)]
                each: list[Expr] = [Load(parts[k], place) for place in places]
                whole = reduce(partial(call, COMBINE[kind]), each)
            body.append(Let(local, cast(local.dtype, whole)))
        return body


class _Home(Rewriter):
    """Puts what threads keep where they keep it: `slot` is the place of an iteration among those of its thread."""

    def __init__(self, rows: _Rows, axes: tuple[Index, ...], slot: Dim):
        super().__init__(self._load)
        self.rows, self.axes, self.slot = rows, axes, slot

    def _place(self, b: Buffer, index: tuple[Dim, ...]) -> tuple[Buffer, tuple[Dim, ...]]:
        """Where an element of a row buffer is."""
        new = self.rows.memory[b]
        if new.space == "local":
            return new, (self.slot,)
        return new, (self.rows.row, *index) if self.rows.team.rows > 1 else index

    def _load(self, e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        kept = self.rows.cached.get((self.axes, e))
        if kept is not None:
            return Load(kept, (self.slot,))
        if e.buffer not in self.rows.memory:
            return None
        new, index = self._place(e.buffer, tuple(self.size(i) for i in e.index))
        return Load(new, index, None if e.mask is None else self.expr(e.mask))

    def statement(self, s: Stmt) -> Stmt:
        new = super().statement(s)
        if isinstance(new, Store) and new.buffer in self.rows.memory:
            return Store(*self._place(new.buffer, new.index), new.value)
        return new

    def filling(self, stage: Stage) -> list[Stmt]:
        """Statements that read what is kept, before its first use."""
        found: list[Stmt] = []
        for e in _loads(stage):
            kept = self.rows.cached.get((self.axes, e))
            if kept is not None and kept not in self.rows.filled:
                self.rows.filled.add(kept)
                found.append(Store(kept, (self.slot,), e))
        return found
