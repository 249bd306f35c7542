"""Sorting numbers by their digits: each pass deals elements out by one digit, the lowest first, equal ones in order.

Knuth 1998, "The Art of Computer Programming" 3, section 5.2.5 (radix sorting by distribution counting). The work is
linear in the length, and the order of equal elements is kept, so that all devices give the same ranks.

`threads` threads take neighbouring chunks of the row: counts are kept by digit and thread, and their running total, in
this order, tells where each thread puts its elements of each digit.
"""

from __future__ import annotations

from collections.abc import Callable

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Alloc,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Stmt,
    Store,
    value_size,
)
from gnomon.compiler.ops.writing import INSTRUCTION, call, converted, less, shared, value_of
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, modulo
from gnomon.compiler.targets import Target

THREADS = 256
"""Of a block, on a GPU."""


def sortable(x: Expr) -> Expr:
    """An unsigned number that is ordered as x is: -0 and 0 alike, all NaN alike and above everything else."""
    dtype = dtypes.named(x.dtype)
    if dtype.kind == "b":
        return Cast("uint8", x)
    if dtype.kind == "u":
        return x
    if dtype.kind == "f":
        wide = "float64" if dtype.bits == 64 else "float32"
        x = converted(x, wide)
        key = f"uint{dtypes.named(wide).bits}"
        sign = Const(key, 1 << (dtypes.named(wide).bits - 1))
        bits: Expr = Bitcast(key, call("where", call("equal", x, Const(wide, 0)), Const(wide, 0), x))
        below = call("not_equal", call("bitwise_and", bits, sign), Const(key, 0))
        bits = call("where", below, call("bitwise_not", bits), call("bitwise_or", bits, sign))
        return call("where", call("isnan", x), Const(key, 2 ** dtypes.named(wide).bits - 1), bits)
    key = f"uint{dtype.bits}"
    return call("bitwise_xor", Bitcast(key, x), Const(key, 1 << (dtype.bits - 1)))


def ranking(target: Target, out: Buffer, x: Buffer, descending: bool) -> Kernel:
    """The kernel that gives each element its rank along the middle one of three axes."""
    before, n, after = x.shape
    on_gpu = target.kind == "cuda"
    threads, digit_bits = (THREADS, 4) if on_gpu else (1, 8)
    values, space = 1 << digit_bits, "shared" if on_gpu else "local"
    key_dtype = sortable(Load(x, (0, 0, 0))).dtype
    passes = dtypes.named(key_dtype).bits // digit_bits
    counts = Buffer("counts", "int32", (values * threads,), space)
    sums = Buffer("sums", "int32", (threads,), space)
    total = Buffer("total", "int32", (1,), "register")
    rows = before * after
    keys = Buffer("keys", key_dtype, (rows, 2, n), "global")
    places = Buffer("places", "int32", (rows, 2, n), "global")
    thread = Size.of(t := Index("t", threads)) if threads > 1 else 0
    chunk: Dim = ceildiv(n, threads)

    def each_thread(*body: Stmt) -> tuple[Stmt, ...]:
        return (For(t, body, "thread"), Barrier()) if threads > 1 else body

    def over(extent: Dim, name: str, body: Callable[[Dim], tuple[Stmt, ...]]) -> Stmt:
        i = Index(name, extent)
        return For(i, body(Size.of(i)))

    def elements(body: Callable[[Dim], tuple[Stmt, ...]]) -> Stmt:
        """`body` for each element of the thread's chunk."""
        if threads == 1:
            return over(n, "i", body)

        def guarded(j: Dim) -> tuple[Stmt, ...]:
            i = thread * chunk + j
            return (If(less(i, n), body(i)),)

        return over(chunk, "j", guarded)

    def more(b: Buffer, at: Dim, by: Expr) -> Stmt:
        return Store(b, (at,), call("add", Load(b, (at,)), by))

    zero, one = Const("int32", 0), Const("int32", 1)

    def sort_row(row: Dim) -> tuple[Stmt, ...]:
        at_row = (row, 0) if after == 1 else (floordiv(row, after), modulo(row, after))

        def element(d: int, i: Dim) -> tuple[list[Stmt], Expr, Dim]:
            """Statements that name the key of the i-th element before pass d; the key; the element's counter."""
            if d == 0:
                found = sortable(Load(x, (at_row[0], i, at_row[1])))
                source: Expr = call("bitwise_not", found) if descending else found
            else:
                source = Load(keys, (row, (d - 1) % 2, i))
            key, digit = Local(f"key{d}", key_dtype), Local(f"digit{d}", "int64")
            shifted = call("shr", key, Const(key_dtype, d * digit_bits)) if d else key
            low = Cast("int64", call("bitwise_and", shifted, Const(key_dtype, values - 1)))
            named: list[Stmt] = [Let(key, source), Let(digit, low)]
            return named, key, value_size(digit, values) * threads + thread

        def count(d: int) -> Callable[[Dim], tuple[Stmt, ...]]:
            def body(i: Dim) -> tuple[Stmt, ...]:
                named, _, counter = element(d, i)
                return (*named, more(counts, counter, one))

            return body

        def deal(d: int) -> Callable[[Dim], tuple[Stmt, ...]]:
            def body(i: Dim) -> tuple[Stmt, ...]:
                named, key, counter = element(d, i)
                at = Local(f"at{d}", "int32")
                place = converted(value_of(i), "int32") if d == 0 else Load(places, (row, (d - 1) % 2, i))
                named += [Let(at, Load(counts, (counter,))), Store(counts, (counter,), call("add", at, one))]
                if d == passes - 1:
                    return (*named, Store(out, (at_row[0], value_size(place, n), at_row[1]), at))
                to = (row, d % 2, value_size(at, n))
                return (*named, Store(keys, to, key), Store(places, to, place))

            return body

        def clear(k: Dim) -> tuple[Stmt, ...]:
            return (Store(counts, (k * threads + thread,), zero),)

        def add_up(k: Dim) -> tuple[Stmt, ...]:
            return (more(total, 0, Load(counts, (thread * values + k,))),)

        def add_before(k: Dim) -> tuple[Stmt, ...]:
            return (If(less(k, thread), (more(total, 0, Load(sums, (k,))),)),)

        def start_at(k: Dim) -> tuple[Stmt, ...]:
            at, own = thread * values + k, Local("own", "int32")
            return (Let(own, Load(counts, (at,))), Store(counts, (at,), Load(total, (0,))), more(total, 0, own))

        reset = Store(total, (0,), zero)
        body: list[Stmt] = []
        for d in range(passes):
            body += each_thread(over(values, "k", clear), elements(count(d)))
            if threads > 1:
                body += each_thread(reset, over(values, "k", add_up), Store(sums, (thread,), Load(total, (0,))))
            before_own = (over(threads, "s", add_before),) if threads > 1 else ()
            body += each_thread(reset, *before_own, over(values, "k", start_at))
            body += each_thread(elements(deal(d)))
        return tuple(body)

    kept = (keys, places) if passes > 1 else ()
    flops = rows * (n + values) * (2 * passes * INSTRUCTION)
    if on_gpu:
        row = Index("row", rows)
        allocs = (Alloc(counts), Alloc(sums), Alloc(total))
        loop: Stmt = For(row, (*allocs, *sort_row(Size.of(row))), "block")
        return Kernel((x, *kept), (out, *kept), (loop,), flops, "rank")
    body = (Alloc(counts), Alloc(total), shared(rows, 1, lambda row, _: sort_row(row)))
    return Kernel((x, *kept), (out, *kept), body, flops, "rank")
