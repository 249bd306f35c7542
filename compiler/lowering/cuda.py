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

from collections.abc import Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    COMBINE,
    Alloc,
    Barrier,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Rewriter,
    Stmt,
    Store,
    expressions,
)
from gnomon.compiler.lowering import cuda_tiles
from gnomon.compiler.lowering.cuda_parts import (
    Accumulator,
    Values,
    below,
    call,
    cast,
    extent_of,
    named_index,
    neighbours,
    placed,
    serially,
    spread,
)
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, evaluate, product
from gnomon.compiler.targets import CUDA, Target

THREADS = 256
ALONE = 64
"""Inner iterations that one thread does alone: fewer than would keep a block busy."""
ROW = 32
"""Elements of a row buffer that a thread may hold."""
MOST_SHARED = 160 << 10
"""Bytes of row buffers that shared memory holds; what is larger goes to the thread's own memory, which is slow."""


def kernel(
    rows: RowProgram, target: Target = CUDA, label: str = "kernel", aligned: bool = True
) -> tuple[Kernel, Dim]:
    """The kernel of a row program, and how many outer iterations it has. `aligned`: all buffers begin at multiples of
    16 bytes."""
    multiplied = cuda_tiles.whole(rows, target, label, aligned)
    if multiplied is not None:
        return multiplied, extent_of(rows.outer)
    if _alone(rows) or _scratch_bytes(rows) > MOST_SHARED:
        body = _by_thread(rows)
    else:
        body = _by_block(rows)
    return Kernel(rows.reads, rows.writes, body, label=label), extent_of(rows.outer)


# ---- a thread for each outer iteration


def _alone(rows: RowProgram) -> bool:
    """Whether one thread is to do all of an outer iteration."""
    inner = [extent_of(s.axes) for s in rows.stages if s.axes]
    if not inner:
        return True
    if any(not isinstance(n := product(b.shape), int) or n > ROW for b in rows.scratch):
        return False
    if all(isinstance(n, int) and n <= ALONE for n in inner):
        return True
    if not rows.outer:
        return False
    read = [(x, s.axes[-1]) for s in rows.stages if s.axes for _, _, x in s.folds]
    along_row = any(neighbours(x, axis) for x, axis in read)
    across_rows = any(neighbours(x, rows.outer[-1]) for x, _ in read)
    return across_rows and not along_row


def _scratch_bytes(rows: RowProgram) -> int:
    return sum(evaluate(product(b.shape) * dtypes.named(b.dtype).bytes, {}) for b in rows.scratch)


def _by_thread(rows: RowProgram) -> tuple[Stmt, ...]:
    values = Values()
    body: list[Stmt] = [Alloc(b) for b in rows.scratch]
    for stage in rows.stages:
        body += serially(stage, values)
    if not rows.outer:
        return tuple(body)
    if len(rows.outer) == 1:
        return (For(rows.outer[0], tuple(body), "parallel"),)
    element, position = named_index("element", extent_of(rows.outer))
    inside = placed(spread(position, rows.outer)).body(tuple(body))
    return (For(element, inside, "parallel"),)


# ---- a block for each outer iteration


def _by_block(rows: RowProgram) -> tuple[Stmt, ...]:
    values = Values()
    threads = _threads(rows)
    body: list[Stmt] = [Alloc(_shared(b)) for b in rows.scratch]
    for k, stage in enumerate(rows.stages):
        if k:
            body.append(Barrier())  # what a stage stores is read, and what it reads overwritten, by other threads
        body += _together(stage, values, threads)
    inside = _sharing(rows.scratch).body(tuple(body))
    if not rows.outer:
        return inside
    row, position = named_index("row", extent_of(rows.outer))
    return (For(row, placed(spread(position, rows.outer)).body(inside), "block"),)


def _threads(rows: RowProgram) -> int:
    """Threads of a block: a power of two, no more than there is work for."""
    inner = [extent_of(s.axes) for s in rows.stages if s.axes]
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


def _together(stage: Stage, values: Values, threads: int) -> list[Stmt]:
    """A stage by all threads of the block."""
    if not stage.axes:
        return _by_each(stage, values)
    t, thread = named_index("t", threads)
    extent = extent_of(stage.axes)
    turn = Index("turn", ceildiv(extent, threads))
    step: Dim = 0 if turn.extent == 1 else Size.of(turn)
    totals = [Accumulator(f"{local.name}_{kind}", kind, local.dtype) for local, kind, _ in stage.folds]
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
    work = placed(spread(position, stage.axes)).body(tuple(inside))
    left_over = below((position, extent, threads))
    work = work if left_over is None else (If(left_over, work),)
    each = [s for total in totals for s in total.start()]
    each += work if step == 0 else [For(turn, work)]
    each += [Store(part, (thread,), total.value) for part, total in zip(parts, totals, strict=True)]
    body: list[Stmt] = [*map(Alloc, parts), For(t, tuple(each), "thread")]
    if parts:
        body += _tree(parts, [kind for _, kind, _ in stage.folds], threads)
    return body + [
        Let(local, cast(local.dtype, Load(part, (0,)))) for part, (local, _, _) in zip(parts, stage.folds, strict=True)
    ]


def _by_each(stage: Stage, values: Values) -> list[Stmt]:
    """Straight code: every thread of the block computes all values, one of them stores."""
    body = serially(stage, values)
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
        t, thread = named_index("t", threads)
        halves = [
            Store(part, (thread,), call(COMBINE[kind], Load(part, (thread,)), Load(part, (thread + threads,))))
            for part, kind in zip(parts, kinds, strict=True)
        ]
        body += [Barrier(), For(t, tuple(halves), "thread")]
    return [*body, Barrier()]
