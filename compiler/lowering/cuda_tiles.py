"""Products on CUDA: a tile of the result for each block, tiles of the operands in shared memory.

    product_of(rows)              what a row program multiplies, None if it is no product
    planned(product, target)      the tile, and into how many parts the sum is cut
    tiled(rows, product, plan)    the statements of its kernel
    whole(rows, target, label)    all at once

A block walks along the sum. While it multiplies what is in shared memory, each thread has its share of the next tiles
on the way into registers; there are two of each tile, so that the threads meet once a step. Producers melt into
fetching, consumers into storing. A convolution is a product whose operand is read through windows: where a row begins
is worked out before the walk, where a window's element lies from there is arithmetic on the position in the sum. Four
numbers that are neighbours in memory are fetched and stored as one where their alignment is known.

What is stored in shared memory are words: a number, or for matrix units a number rounded to tfloat32, or two bfloat16
or float16 that follow each other along the sum. `PLAIN` tiles are multiplied by threads, `UNITS` by the matrix units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
    Const,
    CopyVector,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Let,
    Load,
    Local,
    MultiplyFragments,
    Rewriter,
    ScalarFn,
    Stmt,
    Store,
    Value,
    expressions,
    value_size,
)
from gnomon.compiler.lowering.cpu import flat, merged
from gnomon.compiler.lowering.cuda_parts import (
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
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.sizes import (
    Dim,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    evaluate,
    floordiv,
    known_factor,
    maximum,
    modulo,
    symbols,
)
from gnomon.compiler.targets import CUDA, Target

# ---- which tile


@dataclass(frozen=True)
class Tile:
    """`tall` x `broad` elements of the result, `deep` words of the sum at a time.

    high, wide   elements of a thread; of a warp where matrix units multiply
    speed        arithmetic of a full GPU with such tiles, against the best
    """

    tall: int
    broad: int
    deep: int
    high: int
    wide: int
    speed: float


# A step fetches (tall + broad) * deep words for tall * broad * deep products: 64 products a word with tiles of 128 x
# 128, 32 with 64 x 64, 16 with 32 x 32. A card that multiplies 19.5e12 / 2 times a second and reads 1.5e12 / 4 words
# from memory needs 26; what it has in its cache of the second level comes three times as fast. From shared memory a
# thread reads high + wide words for high * wide products: 8 x 8 makes 4 a word, 4 x 4 makes 2. A multiprocessor
# multiplies 128 times and delivers 32 words of shared memory in a cycle, more where threads of a warp read the same
# ones, as 8 in a row and 4 in a column do here: from 4 products a word on, arithmetic is what limits.
PLAIN = (
    Tile(128, 128, 8, 8, 8, 1.0),
    Tile(128, 64, 8, 8, 4, 0.85),
    Tile(64, 128, 8, 4, 8, 0.85),
    Tile(64, 64, 16, 4, 4, 0.7),
    Tile(128, 32, 16, 4, 4, 0.65),
    Tile(32, 128, 16, 4, 4, 0.65),
    Tile(32, 64, 16, 2, 4, 0.5),
    Tile(32, 32, 16, 2, 2, 0.35),
    Tile(128, 16, 16, 4, 2, 0.35),
    Tile(16, 128, 16, 2, 4, 0.35),
    Tile(128, 8, 16, 4, 1, 0.2),
    Tile(8, 128, 16, 1, 4, 0.2),
)
WIDER = (
    Tile(64, 64, 8, 4, 4, 1.0),
    Tile(32, 32, 8, 2, 2, 0.5),
    Tile(64, 8, 8, 2, 1, 0.25),
    Tile(8, 64, 8, 1, 2, 0.25),
)
"""For numbers of 64 bits."""
# A warp of 64 x 32 elements reads 96 * 8 words from shared memory for 16 multiplications of fragments, each of 1024
# products of tfloat32 or 2048 of bfloat16: 24 cycles of shared memory, in which the units of an A100 do 12 of the 16.
# Four warps share the memory and have units of their own, so both are busy to three quarters or more. One of 32 x 32
# reads 64 * 8 words for 8 multiplications, a third more for each.
UNITS = (
    Tile(128, 128, 16, 64, 32, 1.0),
    Tile(128, 64, 16, 32, 32, 0.85),
    Tile(64, 128, 16, 32, 32, 0.85),
    Tile(64, 64, 16, 32, 32, 0.7),
    Tile(128, 32, 16, 32, 32, 0.6),
    Tile(32, 128, 16, 32, 32, 0.6),
    Tile(32, 64, 16, 16, 32, 0.5),
    Tile(64, 16, 16, 16, 16, 0.3),
    Tile(16, 64, 16, 16, 16, 0.3),
)
MULTIPROCESSORS = 108
"""Blocks that run at once for sure: an A100's; an H100 has 132."""
TYPICAL = 128
"""What a symbolic size is taken to be."""
PER_NANOSECOND = 90.0, 700.0
"""Products of one multiprocessor, by threads and by matrix units."""
STEP = 350.0
"""Nanoseconds that a step takes at least: what it fetches comes from memory."""
LAUNCH = 3000.0
"""Nanoseconds that one more kernel costs."""
BYTES_PER_NANOSECOND = 1000.0
PARTS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Into how many parts a sum may be cut."""
LEAST_STEPS = 4
"""Steps of a part."""
STRIP = 8
"""Rows of tiles that are done together."""
NARROW = 8
"""A result narrower than this is left to reductions."""
LENGTHY = 2048
"""But not if it is so long."""
EPILOGUE = 600
"""Operations that the code of a thread's epilogue may have: it is written out for each of its elements."""


@dataclass(frozen=True)
class Plan:
    """A tile, the word that numbers are rounded to ('' for none: then threads multiply), parts of the sum."""

    tile: Tile
    word: str = ""
    parts: int = 1

    @property
    def pairs(self) -> int:
        """Terms of the sum in a word."""
        return 2 if self.word in ("bfloat16", "float16") else 1

    @property
    def terms(self) -> int:
        """Terms of the sum in a step."""
        return self.tile.deep * self.pairs

    @property
    def threads(self) -> int:
        pieces = (self.tile.tall // self.tile.high) * (self.tile.broad // self.tile.wide)
        return pieces * 32 if self.word else pieces


@dataclass
class Product:
    """sum over `summed` of left * right. `rows` are outer axes of the left operand alone, `columns` of the right."""

    local: Local
    left: Expr
    right: Expr
    batch: tuple[Index, ...]
    rows: tuple[Index, ...]
    columns: tuple[Index, ...]
    summed: tuple[Index, ...]

    @property
    def sides(self) -> tuple[Dim, Dim, Dim]:
        """Rows, columns, terms of the sum."""
        return extent_of(self.rows), extent_of(self.columns), extent_of(self.summed)


def simple(rows: RowProgram) -> RowProgram:
    """The same with one-dimensional buffers, and as few axes as can be."""
    return merged(flat(rows))


def product_of(rows: RowProgram) -> Product | None:
    """The product that a row program computes first, if what follows is done to one element at a time."""
    if not rows.stages or not rows.outer or rows.scratch or any(s.axes for s in rows.stages[1:]):
        return None
    first = rows.stages[0]
    if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
        return None
    local, kind, value = first.folds[0]
    if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply" or outer_folds(value):
        return None
    left, right = value.args
    if rows.outer[-1] in mentioned(left):  # neighbours in the result are columns
        left, right = right, left
    of_left, of_right = mentioned(left), mentioned(right)
    of_rows = tuple(a for a in rows.outer if a in of_left and a not in of_right)
    of_columns = tuple(a for a in rows.outer if a in of_right and a not in of_left)
    if not of_columns or not of_left & of_right & set(first.axes):
        return None
    batch = tuple(a for a in rows.outer if a not in of_rows and a not in of_columns)
    p = Product(local, left, right, batch, of_rows, of_columns, first.axes)
    return p if _broad_enough(p) else None


def _broad_enough(p: Product) -> bool:
    """Whether both sides of the result are, or one is long; reductions do the others."""
    m, n, k = p.sides
    if not p.rows:  # a vector by a matrix, whose rows are read as they lie
        along = neighbours(p.right, p.summed[-1])
        return not along and typical(k) > 64 and typical(n) * typical(extent_of(p.batch)) >= 64
    narrow = [isinstance(d, int) and d < NARROW for d in (m, n)]
    return not any(narrow) or max(typical(m), typical(n)) >= LENGTHY


def typical(d: Dim) -> int:
    return max(0, evaluate(d, dict.fromkeys(symbols(d), TYPICAL)))


def planned(rows: RowProgram, p: Product, target: Target = CUDA, whole: bool = False, few: int = 0) -> Plan:
    """What is quickest by a simple account of work and waiting. `whole`: the sum is not to be cut. `few`: there are no
    more rows than that."""
    word = _word(p, target)
    wide = dtypes.named(compute(p.local.dtype)).bits == 64
    tiles = UNITS if word else WIDER if wide else PLAIN
    m, n, k = map(typical, p.sides)
    m = few or m
    batch = typical(extent_of(p.batch))
    cost = _operations(rows)
    bytes_ = dtypes.named(compute(p.local.dtype)).bytes

    def nanoseconds(plan: Plan) -> float:
        tile = plan.tile
        blocks = batch * ceil(m / tile.tall) * ceil(n / tile.broad) * plan.parts
        steps = ceil(k / plan.terms / plan.parts)
        busy = tile.tall * tile.broad * plan.terms / (PER_NANOSECOND[bool(word)] * tile.speed * (0.5 if wide else 1))
        waves = max(1.0, blocks / MULTIPROCESSORS) if blocks > 4 * MULTIPROCESSORS else ceil(blocks / MULTIPROCESSORS)
        total = steps * max(busy * waves, STEP * max(1.0, waves / 4))
        if plan.parts > 1:
            total += LAUNCH + 2 * plan.parts * batch * m * n * bytes_ / BYTES_PER_NANOSECOND
        return total

    def useful(plan: Plan) -> bool:
        """Whether parts of its sums are deep enough, and blocks too few without them."""
        blocks = batch * ceil(m / plan.tile.tall) * ceil(n / plan.tile.broad)
        return k / plan.terms >= LEAST_STEPS * plan.parts and blocks < MULTIPROCESSORS

    plans = [Plan(tile, word, parts) for tile in tiles for parts in (PARTS[:1] if whole else PARTS)]
    plans = [plan for plan in plans if plan.parts == 1 or useful(plan)]
    brief = [plan for plan in plans if plan.parts > 1 or _elements(plan) * cost <= EPILOGUE]
    return min(brief or [plan for plan in plans if _elements(plan) == min(map(_elements, plans))], key=nanoseconds)


def _elements(plan: Plan) -> int:
    """Elements of the result that one thread has."""
    return plan.tile.tall * plan.tile.broad // plan.threads


def _operations(rows: RowProgram) -> int:
    """Operations done to an element when its sum is known."""
    after = rows.stages[1:]
    roots = [x for s in after for x in (*(f[2] for f in s.folds), *(e for _, e in s.lets), *(e for *_, e in s.stores))]
    return sum(e.fn.cost for e in expressions(roots) if isinstance(e, Apply))


def _word(p: Product, target: Target) -> str:
    """What the operands are rounded to for matrix units: nothing is lost of what is stored in 16 bits."""
    stored = {_stripped(x).dtype for x in (p.left, p.right)}
    if compute(p.local.dtype) != "float32":
        return ""
    if stored in ({"bfloat16"}, {"float16"}):
        return stored.pop()
    return {"tf32": "tfloat32", "bfloat16": "bfloat16"}.get(target.matrix, "")


def _stripped(x: Expr) -> Expr:
    """A number as it is stored, where it is only made wider."""
    return x.x if isinstance(x, Cast) and x.dtype == "float32" and x.x.dtype in ("bfloat16", "float16") else x


# ---- words


def _round_to_tfloat32(x: np.ndarray) -> np.ndarray:
    bits = np.asarray(x, np.float32).view(np.uint32)
    return np.where(np.isfinite(x), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


def _joined(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.asarray(high, np.uint32) << np.uint32(16) | low


def _bfloat16_pair(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    bits = (dtypes.rounded("bfloat16", np.asarray(x, np.float32)).view(np.uint32) >> np.uint32(16) for x in (low, high))
    return _joined(*bits)


TFLOAT32 = ScalarFn("tfloat32_word", 1, _round_to_tfloat32, "uint32", cuda={"f": "gn_tfloat32({0})"})
BFLOAT16 = ScalarFn("bfloat16_word", 2, _bfloat16_pair, "uint32", cuda={"f": "gn_bfloat16_pair({0}, {1})"})
PAIR = ScalarFn("pair_word", 2, _joined, "uint32", cuda={"u": "((unsigned int){1} << 16 | (unsigned int){0})"})


def _packed(word: str, x: Sequence[Expr]) -> Expr:
    """A word of its terms."""
    if word == "tfloat32":
        return Apply(TFLOAT32, (cast("float32", x[0]),))
    if word:
        if x[0].dtype == word:
            return Apply(PAIR, tuple(Bitcast("uint16", e) for e in x))
        if word == "bfloat16":
            return Apply(BFLOAT16, tuple(cast("float32", e) for e in x))
        return Apply(PAIR, tuple(Bitcast("uint16", cast(word, e)) for e in x))
    return x[0]


# ---- copies


def _copied(target: Buffer, t: Dim, source: Buffer, s: Dim, size: int, each: str = "c") -> Stmt:
    """`size` numbers that follow each other, as few accesses as can be. Places are multiples of `size`."""
    bytes_ = dtypes.named(target.dtype).bytes
    whole = min(size, 16 // bytes_)
    if whole * bytes_ not in (4, 8, 16):
        i, at = named_index(each, size)
        return For(i, (Store(target, (t + at,), Load(source, (s + at,))),), "unroll")
    if whole == size:
        return CopyVector(target, t, source, s, size)
    i, at = named_index(each, size // whole)
    return For(i, (CopyVector(target, t + at * whole, source, s + at * whole, whole),), "unroll")


def _aligned(b: Buffer, offset: Dim, along: Index, lanes: int) -> bool:
    """Whether `lanes` neighbours along an index are neighbours in memory that can be reached as one."""
    if b.space != "global" or len(b.shape) != 1 or lanes * dtypes.named(b.dtype).bytes not in (4, 8, 16):
        return False
    if coefficient(offset, along) != 1:
        return False
    return known_factor(offset - Size.of(along)) % lanes == 0 and known_factor(b.shape[0]) % lanes == 0


def _together(x: Expr, along: Index, lanes: int) -> list[Load]:
    """Loads in `x` of which `lanes` along an index can be one."""
    loads = (e for e in expressions((x,)) if isinstance(e, Load))
    return [
        e for e in loads
        if _aligned(e.buffer, e.index[0], along, lanes) and (e.mask is None or along not in mentioned(e.mask))
    ]  # fmt: skip


class _Lanes:
    """Writes statements for `lanes` neighbours: what they read and store in a row is moved as one."""

    def __init__(self, lane: Index, lanes: int, name: str):
        self.lane, self.lanes, self.name = lane, lanes, name
        self.before: list[Stmt] = []
        self.after: list[Stmt] = []
        self.known: dict[Expr, Expr] = {}

    def _buffer(self, dtype: str) -> Buffer:
        return Buffer(f"{self.name}{len(self.known) + len(self.after)}", dtype, (self.lanes,), "register")

    def _first(self, d: Dim) -> Dim:
        return d - Size.of(self.lane)

    def read(self, x: Expr) -> Expr:
        """`x` with its loads of neighbours replaced by registers, filled before."""
        for e in _together(x, self.lane, self.lanes):
            if e in self.known:
                continue
            held = self._buffer(e.dtype)
            move: Stmt = _copied(held, 0, e.buffer, self._first(e.index[0]), self.lanes)
            if e.mask is not None:
                i, at = named_index("c", self.lanes)
                move = If(e.mask, (move,), (For(i, (Store(held, (at,), Const(e.dtype, 0)),), "unroll"),))
            self.before += [Alloc(held), move]
            self.known[e] = Load(held, (Size.of(self.lane),))
        return Rewriter(self.known.get).expr(x)

    def store(self, s: Store) -> Store:
        """The store of a lane; to neighbours all are stored after."""
        if not _aligned(s.buffer, s.index[0], self.lane, self.lanes):
            return replace(s, value=self.read(s.value))
        value = self.read(s.value)
        held = self._buffer(s.buffer.dtype)
        self.before.append(Alloc(held))
        self.after.append(_copied(s.buffer, self._first(s.index[0]), held, 0, self.lanes))
        return Store(held, (Size.of(self.lane),), value)

    def body(self, statements: Sequence[Stmt]) -> list[Stmt]:
        """All of it."""
        inside: list[Stmt] = []
        for s in statements:
            match s:
                case Let():
                    inside.append(Let(s.local, self.read(s.value)))
                case Store():
                    inside.append(self.store(s))
                case _:
                    raise AssertionError(s)
        return [*self.before, For(self.lane, tuple(inside), "unroll"), *self.after]


# ---- a block


@dataclass
class _Walk:
    """Where a block is: its indices, and what is worked out once for all steps."""

    plan: Plan
    p: Product
    thread: Size
    batch: dict[Index, Dim]
    aligned: bool = True
    named: dict[Dim, Dim] = field(default_factory=dict)
    lets: list[Stmt] = field(default_factory=list)

    def once(self, name: str, d: Dim, extent: Dim | None = None, small: bool = False) -> Dim:
        """A size that is worked out before the walk. One below 2**31 takes one register and not two: what is `small`,
        as numbers of blocks and of steps are, and what has so small an `extent`."""
        if isinstance(d, int) or any(d == Size.of(a) for a in atoms(d) if isinstance(a, Index | Value)):
            return d
        if d not in self.named:
            small = small or (isinstance(extent, int) and extent <= 1 << 31)
            local = Local(f"{name}{len(self.named)}", "int32" if small else "int64")
            self.lets.append(Let(local, IndexValue(local.dtype, d)))
            self.named[d] = value_size(local, extent)
        return self.named[d]


class _Operand:
    """One operand: how its tiles are fetched into registers, put into shared memory and read there."""

    def __init__(self, walk: _Walk, name: str, x: Expr, axes: tuple[Index, ...], block: Dim, width: int, limit: Dim):
        self.walk, self.name, self.width = walk, name, width
        plan, summed = walk.plan, walk.p.summed
        self.pairs, self.deep = plan.pairs, plan.tile.deep
        self.x = _stripped(x) if plan.word else x
        if isinstance(self.x, Cast) and self.x.dtype == plan.word and self.x.x.dtype == "float32":
            self.x = self.x.x  # words are rounded when they are put, and nobody waits for what is being fetched
        self.dtype = compute(walk.p.local.dtype)
        if self.x.dtype == plan.word:
            self.dtype = plan.word
        self.axes, self.block, self.limit = axes, block, limit
        self.along_sum = neighbours(x, summed[-1]) or not axes
        self.lanes = self._lanes(summed[-1] if self.along_sum else axes[-1])
        # a unit is what a thread fetches at a time: terms x places, `words` of them
        self.terms = max(self.lanes, self.pairs) if self.along_sum else self.pairs
        self.places = 1 if self.along_sum else self.lanes
        self.words = self.terms * self.places // self.pairs
        self.units = width * self.deep // self.words
        self.turns = -(-self.units // plan.threads)
        self.held = Buffer(f"{name}_held", self.dtype, (self.turns * self.terms * self.places,), "register")
        self.turned = bool(plan.word) and self.along_sum  # the words of a place follow each other
        # so that threads which read, or write, at the same time find different banks
        self.stride = self.deep + 4 if self.turned else width + (8 if plan.word else 4)
        self.size = (width if self.turned else self.deep) * self.stride
        self.tile = Buffer(name, "uint32" if plan.word else self.dtype, (2 * self.size,), "shared")

    def _lanes(self, axis: Index) -> int:
        """How many neighbours along an axis are fetched as one."""
        loads = [e for e in expressions((self.x,)) if isinstance(e, Load) and coefficient(e.index[0], axis) == 1]
        most = 16 // max((dtypes.named(e.dtype).bytes for e in loads), default=16)
        room = self.walk.plan.terms if self.along_sum else self.width
        for lanes in (8, 4, 2):
            even = known_factor(axis.extent) % lanes == 0 and room % lanes == 0
            if self.walk.aligned and lanes <= most and even and _together(self.x, axis, lanes):
                return lanes
        return 1

    def at(self, word: Dim, place: Dim, stage: Dim) -> Dim:
        """Where a word is in shared memory."""
        row, column = (place, word) if self.turned else (word, place)
        return stage * self.size + row * self.stride + column

    def _unit(self, turn: Dim) -> tuple[Dim, Dim]:
        """The first term and the first place of a thread's unit, in units."""
        once, thread, threads = self.walk.once, self.walk.thread, self.walk.plan.threads
        row = self.walk.plan.terms // self.terms if self.along_sum else self.width // self.places
        assert threads % row == 0, (self.walk.plan, row)
        column = once("column", modulo(thread, row), row)
        rest = once("rest", floordiv(thread, row), threads) + turn * (threads // row)
        return (column, rest) if self.along_sum else (rest, column)

    def _each(self, name: str, unit: Callable[[Dim], list[Stmt]]) -> list[Stmt]:
        """Statements for all units of a thread. Where they lie along the rows that is worked out before the walk, so
        those of different rows are written one by one."""
        threads = self.walk.plan.threads
        if self.units < threads:
            return [If(_less(self.walk.thread, self.units), tuple(unit(0)))]
        if self.turns == 1 or self.along_sum:
            return [s for turn in range(self.turns) for s in unit(turn)]
        index, turn = named_index(name, self.turns)
        return [For(index, tuple(unit(turn)), "unroll")]

    def fetch(self, step: Dim) -> list[Stmt]:
        """A thread's share of the tiles of a step, into its registers."""
        return self._each("f", lambda turn: self._fetch_unit(turn, step))

    def _fetch_unit(self, turn: Dim, step: Dim) -> list[Stmt]:
        term, place = self._unit(turn)
        walk, summed = self.walk, self.walk.p.summed
        vector = self.block * (self.width // self.places) + place
        last = floordiv(self.limit, self.places) - 1
        if modulo(self.limit, self.width) != 0:  # beyond the edge the last one is fetched, and not stored in the end
            vector = vector + last - maximum(vector, last)
        lane, at = named_index("lane", self.lanes)
        vector = walk.once(f"{self.name}_", vector, last + 1)
        here = _along(vector, self.axes, self.places, 0 if self.along_sum else at, walk)
        first = turn * self.terms * self.places
        if self.along_sum and self.lanes > 1:
            row = walk.plan.terms // self.terms
            number, limit = step * row + term, floordiv(extent_of(summed), self.terms)
            body = self._element(here | _along(number, summed, self.terms, at), lane, first)
            return self._guarded(number, limit, row, body, first, self.terms)
        found: list[Stmt] = []
        for k in range(self.terms):
            number = step * walk.plan.terms + term * self.terms + k
            body = self._element(here | _along(number, summed), lane, first + k * self.places)
            limit = extent_of(summed)
            found += self._guarded(number, limit, walk.plan.terms, body, first + k * self.places, self.places)
        return found

    def _element(self, change: dict[Index, Dim], lane: Index, first: Dim) -> list[Stmt]:
        """Neighbours along `lane` into registers from `first` on."""
        x = placed(self.walk.batch | change).expr(self.x)
        if self.lanes == 1:
            return [Store(self.held, (first,), cast(self.dtype, placed({lane: 0}).expr(x)))]
        plain = isinstance(x, Load) and x.mask is None and x.dtype == self.dtype
        if isinstance(x, Load) and plain and _aligned(x.buffer, x.index[0], lane, self.lanes):
            return [_copied(self.held, first, x.buffer, x.index[0] - Size.of(lane), self.lanes)]
        store = Store(self.held, (first + Size.of(lane),), cast(self.dtype, x))
        return _Lanes(lane, self.lanes, f"{self.name}_read").body([store])

    def _guarded(self, number: Dim, limit: Dim, tile: int, body: list[Stmt], first: Dim, count: int) -> list[Stmt]:
        """0 in the place of terms after the last."""
        inside = below((number, limit, tile))
        if inside is None:
            return body
        i, at = named_index("z", count)
        zero: Stmt = Store(self.held, (first + (at if count > 1 else 0),), Const(self.dtype, 0))
        return [If(inside, tuple(body), (For(i, (zero,), "unroll") if count > 1 else zero,))]

    def put(self, stage: Dim) -> list[Stmt]:
        """What a thread fetched, into shared memory."""
        return self._each("p", lambda turn: self._put_unit(turn, stage))

    def _put_unit(self, turn: Dim, stage: Dim) -> list[Stmt]:
        term, place = self._unit(turn)
        first = turn * self.terms * self.places
        word, begin = term * (self.terms // self.pairs if self.along_sum else 1), place * self.places
        i, at = named_index("w", self.words)
        if self.along_sum:
            terms = [Load(self.held, (first + at * self.pairs + k,)) for k in range(self.pairs)]
        else:
            terms = [Load(self.held, (first + k * self.places + at,)) for k in range(self.pairs)]
        value = _packed(self.walk.plan.word, terms)
        if self.words == 1 or (self.along_sum and not self.turned):
            where = self.at(word + at, begin, stage) if self.along_sum else self.at(word, begin + at, stage)
            return [For(i, (Store(self.tile, (where,), value),), "unroll")]
        if not self.walk.plan.word:
            return [_copied(self.tile, self.at(word, begin, stage), self.held, first, self.words)]
        made = Buffer(f"{self.name}_words", "uint32", (self.words,), "register")
        copy = _copied(self.tile, self.at(word, begin, stage), made, 0, self.words)
        return [Alloc(made), For(i, (Store(made, (at,), value),), "unroll"), copy]


def _along(
    number: Dim, axes: tuple[Index, ...], by: int = 1, lane: Dim = 0, walk: _Walk | None = None
) -> dict[Index, Dim]:
    """Where a lane of vector `number` is along axes, of the last of which `by` elements are a vector."""
    if not axes:
        return {}
    last = axes[-1]
    short = Index(last.name, floordiv(last.extent, by))
    found = spread(number, (*axes[:-1], short))
    if walk is not None:
        found = {a: walk.once(f"{a.name}_", d, a.extent) for a, d in found.items()}
    whole = found.pop(short)
    return found | {last: whole * by + lane}


def _less(a: Dim, b: Dim) -> Expr:
    return call("less", IndexValue("int64", a), IndexValue("int64", b))


# ---- who multiplies


@dataclass
class _Place:
    """Elements of a thread: loops over rows and columns, where they are in the tile, and in the thread's registers."""

    rows: tuple[Index, ...]
    columns: tuple[Index, ...]
    row: Dim
    column: Dim  # of the first of `lanes` neighbours
    lanes: int
    total: Dim  # of the first of them


class _Threads:
    """Each thread multiplies `high` x `wide` elements, in groups of up to four rows and columns that are neighbours."""

    def __init__(self, walk: _Walk, left: _Operand, right: _Operand):
        self.walk, self.left, self.right = walk, left, right
        tile = walk.plan.tile
        self.dtype = compute(walk.p.local.dtype)
        self.high, self.wide = tile.high, tile.wide
        most = min(4, 16 // dtypes.named(self.dtype).bytes)
        self.group = min(most, tile.high), min(most, tile.wide)
        across, down = tile.broad // tile.wide, tile.tall // tile.high
        # a warp is 4 x 8 threads: they read 4 groups of rows and 8 of columns, which lie in different banks
        columns = min(8, across)
        rows = min(32 // columns, down)
        lane, warp = modulo(walk.thread, rows * columns), floordiv(walk.thread, rows * columns)
        in_row = across // columns
        self.x = walk.once("x", modulo(warp, in_row) * columns + modulo(lane, columns), across)
        self.y = walk.once("y", floordiv(warp, in_row) * rows + floordiv(lane, columns), down)
        self.span = down * self.group[0], across * self.group[1]
        self.total = Buffer("total", self.dtype, (tile.high * tile.wide,), "register")

    def multiply(self, stage: Dim) -> list[Stmt]:
        tile, dtype = self.walk.plan.tile, self.dtype
        k, term = named_index("k", tile.deep)
        rows, columns = (Buffer(name, dtype, (n,), "register") for name, n in (("x", self.high), ("w", self.wide)))
        reads: list[Stmt] = [Alloc(rows), Alloc(columns)]
        sides = (rows, self.left, self.y), (columns, self.right, self.x)
        for (held, operand, thread), size, span in zip(sides, self.group, self.span, strict=True):
            g, group = named_index("g", held.shape[0] // size)
            at = operand.at(term, group * span + thread * size, stage)
            reads.append(For(g, (_copied(held, group * size, operand.tile, at, size),), "unroll"))
        i, row = named_index("i", self.high)
        j, column = named_index("j", self.wide)
        place = (row * self.wide + column,)
        both = call("multiply", Load(rows, (row,)), Load(columns, (column,)))
        more = Store(self.total, place, call("add", Load(self.total, place), both))
        return [For(k, (*reads, For(i, (For(j, (more,), "unroll"),), "unroll")), "unroll")]

    def place(self) -> _Place:
        (high, wide), (down, across) = self.group, self.span
        a, half = named_index("a", self.high // high)
        i, row = named_index("i", high)
        b, part = named_index("b", self.wide // wide)
        total = (half * high + row) * self.wide + part * wide
        return _Place((a, i), (b,), half * down + self.y * high + row, part * across + self.x * wide, wide, total)


class _MatrixUnits:
    """Each warp multiplies `high` x `wide` elements in fragments of 16 x 8."""

    def __init__(self, walk: _Walk, left: _Operand, right: _Operand):
        self.walk, self.left, self.right = walk, left, right
        tile = walk.plan.tile
        warp, lane = floordiv(walk.thread, 32), modulo(walk.thread, 32)
        self.g, self.q = walk.once("g", floordiv(lane, 4), 8), walk.once("q", modulo(lane, 4), 4)
        across = tile.broad // tile.wide
        self.row = walk.once("down", floordiv(warp, across), tile.tall // tile.high) * tile.high
        self.column = walk.once("across", modulo(warp, across), across) * tile.wide
        self.down, self.across = tile.high // 16, tile.wide // 8
        self.total = Buffer("total", "float32", (self.down * self.across * 4,), "register")

    def multiply(self, stage: Dim) -> list[Stmt]:
        rows = Buffer("x", "uint32", (4,), "register")
        columns = Buffer("w", "uint32", (self.across * 2,), "register")
        k, group = named_index("k", self.walk.plan.tile.deep // 8)
        i, down = named_index("i", self.down)
        j, across = named_index("j", self.across)
        r, half = named_index("r", 2)
        s, word = named_index("s", 2)
        x = self.left.at(group * 8 + self.q + word * 4, self.row + down * 16 + self.g + half * 8, stage)
        w = self.right.at(group * 8 + self.q + word * 4, self.column + across * 8 + self.g, stage)
        read_x = Store(rows, (word * 2 + half,), Load(self.left.tile, (x,)))
        read_w = Store(columns, (across * 2 + word,), Load(self.right.tile, (w,)))
        multiply = MultiplyFragments(
            self.walk.plan.word, self.total, (down * self.across + across) * 4, rows, 0, columns, across * 2
        )
        body = (
            Alloc(columns),
            _unrolled((j, s), read_w),
            For(i, (Alloc(rows), _unrolled((s, r), read_x), _unrolled((j,), multiply)), "unroll"),
        )
        return [For(k, body, "unroll")]

    def place(self) -> _Place:
        i, down = named_index("i", self.down)
        r, half = named_index("r", 2)
        j, across = named_index("j", self.across)
        row, column = self.row + down * 16 + self.g + half * 8, self.column + across * 8 + self.q * 2
        return _Place((i, r), (j,), row, column, 2, (down * self.across + across) * 4 + half * 2)


def _unrolled(axes: Sequence[Index], *body: Stmt) -> Stmt:
    for a in reversed(axes):
        body = (For(a, body, "unroll"),)
    (loop,) = body
    return loop


# ---- the kernel


PART = "part"
"""The index that tells the parts of a sum, in stores of what they come to."""


def whole(
    rows: RowProgram, target: Target = CUDA, label: str = "kernel", aligned: bool = True
) -> Kernel | None:
    """A product as one kernel; None if the row program is none.

    aligned   all buffers begin at multiples of 16 bytes
    """
    rows = simple(rows)
    p = product_of(rows)
    if p is None:
        return None
    return Kernel(rows.reads, rows.writes, tiled(rows, p, planned(rows, p, target, True), aligned), label=label)


def tiled(rows: RowProgram, p: Product, plan: Plan, aligned: bool = True) -> tuple[Stmt, ...]:
    """The statements of a product's kernel. Of a sum in parts, stages after the first see which by the index `PART`."""
    tile = plan.tile
    m, n, k = p.sides
    across, down, batch = ceildiv(n, tile.broad), ceildiv(m, tile.tall), extent_of(p.batch)
    block, at = named_index("tile", batch * down * across * plan.parts)
    t, thread = named_index("t", plan.threads)
    rest = floordiv(at, across * down)
    walk = _Walk(plan, p, thread, {}, aligned)
    row_block, column_block = _block(walk, modulo(at, across * down), down, across)
    part = walk.once("part", floordiv(rest, batch), plan.parts, True) if plan.parts > 1 else 0
    inner = modulo(rest, batch) if plan.parts > 1 else rest
    walk.batch.update({a: walk.once("batch", d, a.extent, True) for a, d in spread(inner, p.batch).items()})
    left = _Operand(walk, "left", p.left, p.rows, row_block, tile.tall, m)
    right = _Operand(walk, "right", p.right, p.columns, column_block, tile.broad, n)
    workers = (_MatrixUnits if plan.word else _Threads)(walk, left, right)
    steps = ceildiv(k, plan.terms)
    first: Dim = 0
    if plan.parts > 1:
        share = ceildiv(steps, plan.parts)
        first = walk.once("first", part * share, small=True)
        over = steps - first
        steps = walk.once("steps", maximum(0, share + over - maximum(share, over)), small=True)
    step, walked = named_index("step", steps + 1)
    fetch = (*left.fetch(first + walked), *right.fetch(first + walked))
    turn = Local("stage", "int32")
    stage = value_size(turn, 2)
    before = 1 - stage
    march = (
        Let(turn, IndexValue("int32", modulo(walked, 2))),
        If(_less(walked, steps), fetch),
        # threads of a warp that fetched, or did not, on their own must be together when the units are asked
        If(_less(0, walked), (*((Barrier(warp=True),) if plan.word else ()), *workers.multiply(before))),
        If(_less(walked, steps), (*left.put(stage), *right.put(stage))),
        Barrier(),
    )
    z, zero = named_index("z", workers.total.shape[0])
    thread_body = (
        *walk.lets,
        Alloc(left.tile),
        Alloc(right.tile),
        Alloc(left.held),
        Alloc(right.held),
        Alloc(workers.total),
        For(z, (Store(workers.total, (zero,), Const(workers.total.dtype, 0)),), "unroll"),
        For(step, march),
        *_finish(rows, p, plan, walk, workers, row_block * tile.tall, column_block * tile.broad, part),
    )
    return (For(block, (For(t, thread_body, "thread"),), "block"),)


def _block(walk: _Walk, number: Dim, down: Dim, across: Dim) -> tuple[Dim, Dim]:
    """Which tile of the result is a block's. Blocks that run at the same time lie together where there are many: a
    strip of `STRIP` rows of tiles is gone through column by column, and what they read is read once from memory."""

    def named(name: str, d: Dim, extent: Dim | None = None) -> Dim:
        return walk.once(name, d, extent, True)

    if min(typical(down), typical(across)) < STRIP:
        return named("row", floordiv(number, across), down), named("column", modulo(number, across), across)
    strip = named("strip", floordiv(number, STRIP * across))
    within = named("within", number - strip * (STRIP * across))
    left = down - strip * STRIP
    height = named("height", STRIP + left - maximum(left, STRIP)) if modulo(down, STRIP) != 0 else STRIP
    column = named("column", floordiv(within, height), across)
    return named("row", strip * STRIP + within - column * height, down), column


def _finish(
    rows: RowProgram,
    p: Product,
    plan: Plan,
    walk: _Walk,
    workers: _Threads | _MatrixUnits,
    first_row: Dim,
    first_column: Dim,
    part: Dim,
) -> tuple[Stmt, ...]:
    """What is done to the elements of a thread when their sums are known."""
    m, n, _ = p.sides
    place = workers.place()
    row, column = first_row + place.row, first_column + place.column
    values = Values()
    stages = [s for stage in rows.stages[1:] for s in serially(stage, values)]
    straight = all(isinstance(s, Let | Store) for s in stages)
    lanes = place.lanes if straight else 1
    lane, at = named_index("lane", place.lanes)
    result: list[Stmt] = [Let(p.local, cast(p.local.dtype, Load(workers.total, (place.total + at,)))), *stages]
    change = walk.batch | spread(row, p.rows) | spread(column + at, p.columns) | {Index(PART, plan.parts): part}
    finished = placed(change).body(tuple(result))
    even = modulo(n, place.lanes) == 0
    if not even:
        inside = below((column + at, n, plan.tile.broad))
        finished = finished if inside is None else (If(inside, finished),)
    if lanes > 1 and even and walk.aligned:
        body = _Lanes(lane, lanes, "held").body(finished)
    else:
        body = [For(lane, finished, "unroll")]
    if even and modulo(n, plan.tile.broad) != 0:
        body = [If(_less(column, n), tuple(body))]
    body = [_unrolled(place.columns, *body)]
    if modulo(m, plan.tile.tall) != 0:
        body = [If(_less(row, m), tuple(body))]
    return (_unrolled(place.rows, *body),)
