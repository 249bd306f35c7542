"""Products on CUDA: a tile of the result for each block, tiles of the operands in shared memory.

Producers melt into fetching, consumers into storing; several elements of the result are in each thread's registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Barrier,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Let,
    Load,
    Local,
    Stmt,
    Store,
)
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
from gnomon.compiler.sizes import Dim, Index, ceildiv, floordiv, modulo

SIDE = 16
"""A tiled product runs blocks of SIDE x SIDE threads."""
DEPTH = 16
"""Terms of the sum that a tile of an operand holds."""


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


def product_of(rows: RowProgram) -> Product | None:
    """The product that a row program computes first, if what follows is done to one element at a time."""
    if not rows.stages or rows.scratch or any(s.axes for s in rows.stages[1:]):
        return None
    first = rows.stages[0]
    if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
        return None
    local, kind, value = first.folds[0]
    if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply" or outer_folds(value):
        return None
    left, right = value.args
    of_left, of_right = mentioned(left), mentioned(right)
    of_rows = tuple(a for a in rows.outer if a in of_left and a not in of_right)
    of_columns = tuple(a for a in rows.outer if a in of_right and a not in of_left)
    if not of_rows or not of_columns or not of_left & of_right & set(first.axes):
        return None
    small = [isinstance(n := extent_of(axes), int) and n < SIDE // 2 for axes in (of_rows, of_columns)]
    if any(small):
        return None
    batch = tuple(a for a in rows.outer if a not in of_rows and a not in of_columns)
    return Product(local, left, right, batch, of_rows, of_columns, first.axes)


def tiled(rows: RowProgram, p: Product) -> tuple[Stmt, ...]:
    """Blocks walk along the sum: fetch a tile of each operand, then multiply them from shared memory."""
    values = Values()
    m, n, k = extent_of(p.rows), extent_of(p.columns), extent_of(p.summed)
    high, wide = _elements_of_thread(m), _elements_of_thread(n)
    tall, broad = SIDE * high, SIDE * wide
    across, down = ceildiv(n, broad), ceildiv(m, tall)
    block, at = named_index("tile", extent_of(p.batch) * down * across)
    first_column = modulo(at, across) * broad
    first_row = modulo(floordiv(at, across), down) * tall
    batch = spread(floordiv(at, across * down), p.batch)
    ty, y = named_index("ty", SIDE)
    tx, x = named_index("tx", SIDE)
    step, walked = named_index("step", ceildiv(k, DEPTH))
    dtype = compute(p.local.dtype)
    left = Buffer("left", dtype, (DEPTH, tall), "shared")
    right = Buffer("right", dtype, (DEPTH, broad), "shared")
    total = Buffer("total", dtype, (high, wide), "register")

    def fetch(tile: Buffer, operand: Expr, axes: tuple[Index, ...], first: Dim, limit: Dim, each: str) -> Stmt:
        """Fill a tile, neighbouring threads on neighbouring elements of memory."""
        width = tile.shape[1]
        assert isinstance(width, int)
        turn, number = named_index(each, width * DEPTH // SIDE**2)
        linear = number * SIDE**2 + y * SIDE + x
        if neighbours(operand, p.summed[-1]):
            here = modulo(linear, DEPTH), floordiv(linear, DEPTH)
        else:
            here = floordiv(linear, width), modulo(linear, width)
        term, place = walked * DEPTH + here[0], first + here[1]
        change = batch | spread(place, axes) | spread(term, p.summed)
        element = cast(dtype, placed(change).expr(operand))
        outside = (Store(tile, here, Const(dtype, 0)),)
        inside = below((term, k, DEPTH), (place, limit, width))
        fill: tuple[Stmt, ...] = (Store(tile, here, element),)
        return For(turn, (If(inside, fill, outside),) if inside is not None else fill, "unroll")

    i, row = named_index("i", high)
    j, column = named_index("j", wide)
    term, deep = named_index("term", DEPTH)
    both = call("multiply", Load(left, (deep, row * SIDE + y)), Load(right, (deep, column * SIDE + x)))
    more = Store(total, (row, column), call("add", Load(total, (row, column)), both))
    clear = Store(total, (row, column), Const(dtype, 0))
    march = (
        fetch(left, p.left, p.rows, first_row, m, "l"),
        fetch(right, p.right, p.columns, first_column, n, "r"),
        Barrier(),
        For(term, (_grid(i, j, more),)),
        Barrier(),
    )
    result: list[Stmt] = [Let(p.local, cast(p.local.dtype, Load(total, (row, column))))]
    for stage in rows.stages[1:]:
        result += serially(stage, values)
    final_row, final_column = first_row + row * SIDE + y, first_column + column * SIDE + x
    change = batch | spread(final_row, p.rows) | spread(final_column, p.columns)
    finished = placed(change).body(tuple(result))
    inside = below((final_row, m, tall), (final_column, n, broad))
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
