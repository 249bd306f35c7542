"""The CUDA policy: row programs as kernels of blocks and threads.

    kernel(rows, target)   one of
        by thread   a thread for each outer iteration, everything inside in order. Elementwise work, short rows, and
                    reductions whose neighbours in memory are outer iterations (column sums)
        by block    a block for each outer iteration; its threads share the inner loops and fold by a tree in shared
                    memory; row buffers are shared
        tiled       a product: a tile of the result for each block, tiles of the operands in shared memory, several
                    elements in the registers of each thread; producers melt into fetching, consumers into storing

Results do not depend on the order of threads: every tree has a fixed shape and nothing is added atomically.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    IDENTITY,
    Alloc,
    Apply,
    Barrier,
    Buffer,
    Cast,
    Const,
    Expr,
    Fold,
    For,
    If,
    IndexValue,
    Kernel,
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
from gnomon.compiler.sizes import Dim, Index, Size, atoms, ceildiv, coefficient, evaluate, floordiv, modulo, product
from gnomon.compiler.targets import CUDA, Target

THREADS = 256
ALONE = 64
"""Inner iterations that one thread does alone: fewer than would keep a block busy."""
ROW = 32
"""Elements of a row buffer that a thread may hold."""
SIDE = 16
"""A tiled product runs blocks of SIDE x SIDE threads."""
DEPTH = 16
"""Terms of the sum that a tile of an operand holds."""
MOST_SHARED = 160 << 10
"""Bytes of row buffers that shared memory holds; what is larger goes to the thread's own memory, which is slow."""


def kernel(rows: RowProgram, target: Target = CUDA, label: str = "kernel") -> tuple[Kernel, Dim]:
    """The kernel of a row program, and how many outer iterations it has."""
    operands = _product_of(rows)
    if operands is not None:
        body = _tiled(rows, operands)
    elif _alone(rows) or _scratch_bytes(rows) > MOST_SHARED:
        body = _by_thread(rows)
    else:
        body = _by_block(rows)
    return Kernel(rows.reads, rows.writes, body, label=label), _extent(rows.outer)


# ---- indices


def _index(name: str, extent: Dim) -> tuple[Index, Size]:
    i = Index(name, extent)
    return i, Size.of(i)


def _extent(axes: Iterable[Index]) -> Dim:
    return product(a.extent for a in axes)


def _spread(position: Dim, axes: Sequence[Index]) -> dict[Index, Dim]:
    """The index along each of `axes` of the element that is at `position` in row-major order."""
    found: dict[Index, Dim] = {}
    for a in reversed(axes[1:]):
        found[a] = modulo(position, a.extent)
        position = floordiv(position, a.extent)
    if axes:
        found[axes[0]] = position
    return found


def _placed(change: dict[Index, Dim]) -> Rewriter:
    """Puts sizes in the place of indices."""
    return Rewriter(index=lambda a: change.get(a) if isinstance(a, Index) else None)


def _mentioned(x: Expr) -> set[Index]:
    """The loop indices that a value depends on."""
    sizes: list[Dim] = []
    for e in expressions((x,)):
        match e:
            case IndexValue():
                sizes.append(e.size)
            case Load():
                sizes.extend(e.index)
    return {a for d in sizes for a in atoms(d) if isinstance(a, Index)}


def _neighbours(x: Expr, index: Index) -> bool:
    """Whether a step along `index` is a step to the next element of something that `x` reads."""
    loads = (e for e in expressions((x,)) if isinstance(e, Load) and e.buffer.space == "global")
    return any(coefficient(e.buffer.offset(e.index), index) == 1 for e in loads)


# ---- folds


def _call(name: str, *arguments: Expr) -> Expr:
    from gnomon.compiler.ops.scalar import scalar

    return Apply(scalar(name), arguments)


def _cast(dtype: str, x: Expr) -> Expr:
    return x if x.dtype == dtype else Cast(dtype, x)


def _compute(dtype: str) -> str:
    """What a reduction is accumulated in."""
    return dtypes.named(dtype).compute


class _Accumulator:
    """A running reduction in a variable of the thread."""

    def __init__(self, name: str, kind: str, dtype: str):
        self.kind, self.dtype = kind, _compute(dtype)
        self.buffer = Buffer(name, self.dtype, (), "local")

    def start(self) -> list[Stmt]:
        identity = Const(self.dtype, IDENTITY[self.kind](dtypes.named(self.dtype)))
        return [Alloc(self.buffer), Store(self.buffer, (), identity)]

    def add(self, x: Expr) -> Stmt:
        return Store(self.buffer, (), _call(COMBINE[self.kind], self.value, _cast(self.dtype, x)))

    @property
    def value(self) -> Expr:
        return Load(self.buffer, ())


class _Values:
    """Writes statements whose values may hold folds: each becomes a loop that the thread runs before."""

    def __init__(self) -> None:
        self.count = 0

    def plain(self, x: Expr) -> tuple[list[Stmt], Expr]:
        """Statements to run before, and `x` without folds."""
        before: list[Stmt] = []
        found: dict[Expr, Expr] = {}
        for fold in _outer_folds(x):
            self.count += 1
            total = _Accumulator(f"fold{self.count}", fold.kind, fold.dtype)
            inner, value = self.plain(fold.body)
            loops = _nest(fold.axes, [*inner, total.add(value)])
            before += [*total.start(), *loops]
            found[fold] = _cast(fold.dtype, total.value)
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
        return [*before, Let(local, _cast(local.dtype, value))]


def _outer_folds(x: Expr) -> list[Fold]:
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


def _nest(axes: Sequence[Index], body: Sequence[Stmt]) -> list[Stmt]:
    """`body` inside serial loops, the first axis outermost."""
    inner = tuple(body)
    for a in reversed(axes):
        inner = (For(a, inner),)
    return list(inner)


# ---- a thread for each outer iteration


def _alone(rows: RowProgram) -> bool:
    """Whether one thread is to do all of an outer iteration."""
    inner = [_extent(s.axes) for s in rows.stages if s.axes]
    if not inner:
        return True
    if any(not isinstance(n := product(b.shape), int) or n > ROW for b in rows.scratch):
        return False
    if all(isinstance(n, int) and n <= ALONE for n in inner):
        return True
    if not rows.outer:
        return False
    read = [(x, s.axes[-1]) for s in rows.stages if s.axes for _, _, x in s.folds]
    along_row = any(_neighbours(x, axis) for x, axis in read)
    across_rows = any(_neighbours(x, rows.outer[-1]) for x, _ in read)
    return across_rows and not along_row


def _scratch_bytes(rows: RowProgram) -> int:
    return sum(evaluate(product(b.shape) * dtypes.named(b.dtype).bytes, {}) for b in rows.scratch)


def _by_thread(rows: RowProgram) -> tuple[Stmt, ...]:
    values = _Values()
    body: list[Stmt] = [Alloc(b) for b in rows.scratch]
    for stage in rows.stages:
        body += _serially(stage, values)
    if not rows.outer:
        return tuple(body)
    if len(rows.outer) == 1:
        return (For(rows.outer[0], tuple(body), "parallel"),)
    element, position = _index("element", _extent(rows.outer))
    inside = _placed(_spread(position, rows.outer)).body(tuple(body))
    return (For(element, inside, "parallel"),)


def _serially(stage: Stage, values: _Values) -> list[Stmt]:
    """A stage as loops of one thread."""
    body: list[Stmt] = []
    inside: list[Stmt] = []
    for local, x in stage.lets:
        (inside if stage.axes else body).extend(values.let(local, x))
    if not stage.axes:
        for local, _, x in stage.folds:
            body += values.let(local, x)
        return body + values.stores(stage.stores)
    totals = [_Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
    for total, (_, _, x) in zip(totals, stage.folds, strict=True):
        before, value = values.plain(x)
        inside += [*before, total.add(value)]
    inside += values.stores(stage.stores)
    for total in totals:
        body += total.start()
    body += _nest(stage.axes, inside)
    return body + [
        Let(local, _cast(local.dtype, total.value)) for total, (local, _, _) in zip(totals, stage.folds, strict=True)
    ]


# ---- a block for each outer iteration


def _by_block(rows: RowProgram) -> tuple[Stmt, ...]:
    values = _Values()
    threads = _threads(rows)
    body: list[Stmt] = [Alloc(_shared(b)) for b in rows.scratch]
    for k, stage in enumerate(rows.stages):
        if k:
            body.append(Barrier())  # what a stage stores is read, and what it reads overwritten, by other threads
        body += _together(stage, values, threads)
    inside = _sharing(rows.scratch).body(tuple(body))
    if not rows.outer:
        return inside
    row, position = _index("row", _extent(rows.outer))
    return (For(row, _placed(_spread(position, rows.outer)).body(inside), "block"),)


def _threads(rows: RowProgram) -> int:
    """Threads of a block: a power of two, no more than there is work for."""
    inner = [_extent(s.axes) for s in rows.stages if s.axes]
    threads = 32
    while threads < THREADS and any(not isinstance(n, int) or threads < n for n in inner):
        threads *= 2
    return threads


def _shared(b: Buffer) -> Buffer:
    return Buffer(b.name, b.dtype, b.shape, "shared")


def _sharing(scratch: Sequence[Buffer]) -> _Sharing:
    return _Sharing(set(scratch))


class _Sharing(Rewriter):
    """Moves row buffers to shared memory."""

    def __init__(self, scratch: set[Buffer]):
        super().__init__(self._load)
        self.scratch = scratch

    def _load(self, e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer not in self.scratch:
            return None
        mask = None if e.mask is None else self.expr(e.mask)
        return Load(_shared(e.buffer), tuple(self.size(i) for i in e.index), mask)

    def statement(self, s: Stmt) -> Stmt:
        new = super().statement(s)
        if isinstance(new, Store) and new.buffer in self.scratch:
            return Store(_shared(new.buffer), new.index, new.value)
        return new


def _together(stage: Stage, values: _Values, threads: int) -> list[Stmt]:
    """A stage by all threads of the block."""
    if not stage.axes:
        return _by_each(stage, values)
    t, thread = _index("t", threads)
    extent = _extent(stage.axes)
    turn = Index("turn", ceildiv(extent, threads))
    step: Dim = 0 if turn.extent == 1 else Size.of(turn)
    totals = [_Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
    parts = [Buffer(f"{local.name}_parts", total.dtype, (threads,), "shared")
             for total, (local, _, _) in zip(totals, stage.folds, strict=True)]  # fmt: skip
    inside: list[Stmt] = []
    for local, x in stage.lets:
        inside += values.let(local, x)
    for total, (_, _, x) in zip(totals, stage.folds, strict=True):
        before, value = values.plain(x)
        inside += [*before, total.add(value)]
    inside += values.stores(stage.stores)
    position = step * threads + thread
    work = _placed(_spread(position, stage.axes)).body(tuple(inside))
    left_over = _below((position, extent, threads))
    work = work if left_over is None else (If(left_over, work),)
    each = [s for total in totals for s in total.start()]
    each += work if step == 0 else [For(turn, work)]
    each += [Store(part, (thread,), total.value) for part, total in zip(parts, totals, strict=True)]
    body: list[Stmt] = [*map(Alloc, parts), For(t, tuple(each), "thread")]
    if parts:
        body += _tree(parts, [kind for _, kind, _ in stage.folds], threads)
    return body + [
        Let(local, _cast(local.dtype, Load(part, (0,)))) for part, (local, _, _) in zip(parts, stage.folds, strict=True)
    ]


def _by_each(stage: Stage, values: _Values) -> list[Stmt]:
    """Straight code: every thread of the block computes all values, one of them stores."""
    body = _serially(stage, values)
    stored = {buffer for buffer, _, _ in stage.stores}
    roots = [x for _, x in stage.lets] + [x for _, _, x in (*stage.folds, *stage.stores)]
    read = {e.buffer for e in expressions(roots) if isinstance(e, Load)}
    if stored & read:  # an update in place: all must have read the old value before it goes
        first = next(k for k, s in enumerate(body) if isinstance(s, Store) and s.buffer in stored)
        body.insert(first, Barrier())
    return body


def _tree(parts: Sequence[Buffer], kinds: Sequence[str], threads: int) -> list[Stmt]:
    """Fold shared arrays, one element of each thread, into their first elements."""
    body: list[Stmt] = []
    while threads > 1:
        threads //= 2
        t, thread = _index("t", threads)
        halves = [
            Store(part, (thread,), _call(COMBINE[kind], Load(part, (thread,)), Load(part, (thread + threads,))))
            for part, kind in zip(parts, kinds, strict=True)
        ]
        body += [Barrier(), For(t, tuple(halves), "thread")]
    return [*body, Barrier()]


# ---- products


@dataclass
class _Product:
    """sum over `summed` of left * right. `rows` are outer axes of the left operand alone, `columns` of the right."""

    local: Local
    left: Expr
    right: Expr
    batch: tuple[Index, ...]
    rows: tuple[Index, ...]
    columns: tuple[Index, ...]
    summed: tuple[Index, ...]


def _product_of(rows: RowProgram) -> _Product | None:
    """The product that a row program computes first, if what follows is done to one element at a time."""
    if not rows.stages or rows.scratch or any(s.axes for s in rows.stages[1:]):
        return None
    first = rows.stages[0]
    if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
        return None
    local, kind, value = first.folds[0]
    if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply" or _outer_folds(value):
        return None
    left, right = value.args
    of_left, of_right = _mentioned(left), _mentioned(right)
    of_rows = tuple(a for a in rows.outer if a in of_left and a not in of_right)
    of_columns = tuple(a for a in rows.outer if a in of_right and a not in of_left)
    if not of_rows or not of_columns or not of_left & of_right & set(first.axes):
        return None
    small = [isinstance(n := _extent(axes), int) and n < SIDE // 2 for axes in (of_rows, of_columns)]
    if any(small):
        return None
    batch = tuple(a for a in rows.outer if a not in of_rows and a not in of_columns)
    return _Product(local, left, right, batch, of_rows, of_columns, first.axes)


def _tiled(rows: RowProgram, p: _Product) -> tuple[Stmt, ...]:
    """Blocks walk along the sum: fetch a tile of each operand, then multiply them from shared memory."""
    values = _Values()
    m, n, k = _extent(p.rows), _extent(p.columns), _extent(p.summed)
    high, wide = _elements_of_thread(m), _elements_of_thread(n)
    tall, broad = SIDE * high, SIDE * wide
    across, down = ceildiv(n, broad), ceildiv(m, tall)
    block, at = _index("tile", _extent(p.batch) * down * across)
    first_column = modulo(at, across) * broad
    first_row = modulo(floordiv(at, across), down) * tall
    batch = _spread(floordiv(at, across * down), p.batch)
    ty, y = _index("ty", SIDE)
    tx, x = _index("tx", SIDE)
    step, walked = _index("step", ceildiv(k, DEPTH))
    dtype = _compute(p.local.dtype)
    left = Buffer("left", dtype, (DEPTH, tall), "shared")
    right = Buffer("right", dtype, (DEPTH, broad), "shared")
    total = Buffer("total", dtype, (high, wide), "register")

    def fetch(tile: Buffer, operand: Expr, axes: tuple[Index, ...], first: Dim, limit: Dim, each: str) -> Stmt:
        """Fill a tile, neighbouring threads on neighbouring elements of memory."""
        width = tile.shape[1]
        assert isinstance(width, int)
        turn, number = _index(each, width * DEPTH // SIDE**2)
        linear = number * SIDE**2 + y * SIDE + x
        if _neighbours(operand, p.summed[-1]):
            here = modulo(linear, DEPTH), floordiv(linear, DEPTH)
        else:
            here = floordiv(linear, width), modulo(linear, width)
        term, place = walked * DEPTH + here[0], first + here[1]
        change = batch | _spread(place, axes) | _spread(term, p.summed)
        element = _cast(dtype, _placed(change).expr(operand))
        outside = (Store(tile, here, Const(dtype, 0)),)
        inside = _below((term, k, DEPTH), (place, limit, width))
        fill: tuple[Stmt, ...] = (Store(tile, here, element),)
        return For(turn, (If(inside, fill, outside),) if inside is not None else fill, "unroll")

    i, row = _index("i", high)
    j, column = _index("j", wide)
    term, deep = _index("term", DEPTH)
    both = _call("multiply", Load(left, (deep, row * SIDE + y)), Load(right, (deep, column * SIDE + x)))
    more = Store(total, (row, column), _call("add", Load(total, (row, column)), both))
    clear = Store(total, (row, column), Const(dtype, 0))
    march = (
        fetch(left, p.left, p.rows, first_row, m, "l"),
        fetch(right, p.right, p.columns, first_column, n, "r"),
        Barrier(),
        For(term, (_grid(i, j, more),)),
        Barrier(),
    )
    result: list[Stmt] = [Let(p.local, _cast(p.local.dtype, Load(total, (row, column))))]
    for stage in rows.stages[1:]:
        result += _serially(stage, values)
    final_row, final_column = first_row + row * SIDE + y, first_column + column * SIDE + x
    change = batch | _spread(final_row, p.rows) | _spread(final_column, p.columns)
    finished = _placed(change).body(tuple(result))
    inside = _below((final_row, m, tall), (final_column, n, broad))
    thread = (
        Alloc(left),
        Alloc(right),
        Alloc(total),
        _grid(i, j, clear),
        For(step, march),
        _grid(i, j, *((If(inside, finished),) if inside is not None else finished)),
    )
    return (For(block, (For(ty, (For(tx, thread, "thread", "x"),), "thread", "y"),), "block"),)


def _elements_of_thread(extent: Dim) -> int:
    """How many elements along one side of a tile a thread computes."""
    return 4 if not isinstance(extent, int) or extent > 2 * SIDE else 2 if extent > SIDE else 1


def _grid(i: Index, j: Index, *body: Stmt) -> Stmt:
    return For(i, (For(j, body, "unroll"),), "unroll")


def _below(*limits: tuple[Dim, Dim, int]) -> Expr | None:
    """Whether every index is below its limit, of those whose limit is no multiple of the tile."""
    found: Expr | None = None
    for index, limit, tile in limits:
        if modulo(limit, tile) == 0:
            continue
        test = _call("less", IndexValue("int64", index), IndexValue("int64", limit))
        found = test if found is None else _call("logical_and", found, test)
    return found
