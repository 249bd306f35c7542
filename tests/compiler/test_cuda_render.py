"""Kernels as CUDA C++: the text, what it computes on the emulator, what it costs a GPU, what the emulator notices."""

import os
from pathlib import Path

import numpy as np
import pytest

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
    Const,
    CopyTransposed,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    Prefetch,
    ScalarFn,
    Shuffle,
    Stmt,
    Store,
    value_size,
)
from gnomon.compiler.ops.scalar import SCALAR, scalar
from gnomon.compiler.render.cuda import geometry, program, render
from gnomon.compiler.sizes import Dim, Index, Size, floordiv, maximum, symbol
from tests.emulator import EmulatorError, Module, compiler, nvrtc

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")

n, m = symbol("n"), symbol("m")


# ---- writing kernels by hand


def loop(name: str, extent: Dim) -> tuple[Index, Size]:
    i = Index(name, extent)
    return i, Size.of(i)


def call(name: str, *args: Expr) -> Expr:
    return Apply(scalar(name), args)


def number(value: float) -> Expr:
    return Const("float32", value)


def tree(array: Buffer, threads: int, function: str) -> list[Stmt]:
    """Fold the `threads` elements of a shared array into its first, with all threads of the block."""
    body: list[Stmt] = []
    while threads > 1:
        threads //= 2
        u, at = loop("u", threads)
        both = call(function, Load(array, (at,)), Load(array, (at + threads,)))
        body += [Barrier(), For(u, (Store(array, (at,), both),), "thread")]
    return [*body, Barrier()]


def row_fold(array: Buffer, threads: int, function: str, start: float, name: str, element) -> list[Stmt]:
    """Fold `element(j)` over j < n by all threads of the block; `name` is then the result in each of them."""
    t, at = loop("t", threads)
    k, step = loop("k", floordiv(n - at + threads - 1, threads))
    total = Buffer("total", "float32", (), "local")
    more = Store(total, (), call(function, Load(total, ()), element(step * threads + at)))
    each = (Alloc(total), Store(total, (), number(start)), For(k, (more,)), Store(array, (at,), Load(total, ())))
    result = Let(Local(name, "float32"), Load(array, (0,)))
    return [For(t, each, "thread"), *tree(array, threads, function), result, Barrier()]


def softmax(threads: int) -> Kernel:
    """One block per row: its maximum, its exponentials in shared memory, their sum, the quotient."""
    x, y = Buffer("x", "float32", (m, n)), Buffer("y", "float32", (m, n))
    partial, kept = Buffer("partial", "float32", (threads,), "shared"), Buffer("kept", "float32", (n,), "shared")
    row, r = loop("row", m)
    j, at = loop("j", n)
    largest, whole = Local("largest", "float32"), Local("whole", "float32")
    power = call("exp", call("subtract", Load(x, (r, at)), largest))
    body = (
        Alloc(partial),
        Alloc(kept),
        *row_fold(partial, threads, "maximum", -np.inf, "largest", lambda i: Load(x, (r, i))),
        For(j, (Store(kept, (at,), power),), "thread"),
        Barrier(),
        *row_fold(partial, threads, "add", 0, "whole", lambda i: Load(kept, (i,))),
        For(j, (Store(y, (r, at), call("divide", Load(kept, (at,)), whole)),), "thread"),
    )
    return Kernel((x,), (y,), (For(row, body, "block"),), label="softmax of rows")


def axpy() -> Kernel:
    """y = a x + y, in place; the loop is bound to nothing."""
    x, y, a = Buffer("x", "float32", (n,)), Buffer("y", "float32", (n,)), Buffer("a", "float32", ())
    i, at = loop("i", n)
    scaled = call("multiply", Load(a, ()), Load(x, (at,)))
    body = For(i, (Store(y, (at,), call("add", scaled, Load(y, (at,)))),), "parallel")
    return Kernel((x, y, a), (y,), (body,), label="multiply+add")


def tiled(tile: int = 16) -> Kernel:
    """C = A B: a tile of C per block, an element per thread, tiles of A and B in shared memory."""
    k = symbol("k")
    a, b, c = (Buffer(name, "float32", shape) for name, shape in (("a", (m, k)), ("b", (k, n)), ("c", (m, n))))
    left, right = (Buffer(name, "float32", (tile, tile), "shared") for name in ("left", "right"))
    total = Buffer("total", "float32", (), "local")
    bi, bj, step = loop("bi", floordiv(m + tile - 1, tile)), loop("bj", floordiv(n + tile - 1, tile)), None
    ti, tj = loop("ti", tile), loop("tj", tile)
    step = loop("step", floordiv(k + tile - 1, tile))
    inner, e = loop("e", tile)
    row, column = bi[1] * tile + ti[1], bj[1] * tile + tj[1]

    def inside(*pairs: tuple[Dim, Dim]) -> Expr:
        tests = [call("less", IndexValue("int64", x), IndexValue("int64", limit)) for x, limit in pairs]
        return call("logical_and", *tests)

    def fetch(to: Buffer, of: Buffer, i: Dim, j: Dim) -> Stmt:
        here = (ti[1], tj[1])
        return If(inside((i, of.shape[0]), (j, of.shape[1])), (Store(to, here, Load(of, (i, j))),),
                  (Store(to, here, number(0)),))

    product = call("multiply", Load(left, (ti[1], e)), Load(right, (e, tj[1])))
    march = For(step[0], (
        fetch(left, a, row, step[1] * tile + tj[1]),
        fetch(right, b, step[1] * tile + ti[1], column),
        Barrier(),
        For(inner, (Store(total, (), call("add", Load(total, ()), product)),), "unroll"),
        Barrier(),
    ))
    each = (Alloc(left), Alloc(right), Alloc(total), Store(total, (), number(0)), march,
            If(inside((row, m), (column, n)), (Store(c, (row, column), Load(total, ())),)))
    threads = For(ti[0], (For(tj[0], each, "thread", "x"),), "thread", "y")
    return Kernel((a, b), (c,), (For(bi[0], (For(bj[0], (threads,), "block", "x"),), "block", "y"),), label="matmul")


def lanes() -> Kernel:
    """Rows of 8 lanes, statement by statement: masked, summed across, and reduced outside of the loop too."""
    x, y = Buffer("x", "float32", (n, 8)), Buffer("y", "float32", (n, 8))
    z = Buffer("z", "float32", (n,))
    kept = Buffer("kept", "float32", (8,), "register")
    i, r = loop("i", n)
    lane, l = loop("lane", 8)
    other, o = loop("other", 8)
    value = Local("value", "float32")
    inside = (
        Let(value, Load(x, (r, l))),
        If(call("greater", value, number(0)), (Store(kept, (l,), Lanes("sum", lane, value)),),
           (Store(kept, (l,), Lanes("max", lane, value)),)),
        Store(y, (r, l), call("subtract", Load(kept, (l,)), Lanes("min", lane, Load(kept, (l,))))),
    )
    body = (Alloc(kept), For(lane, inside, "vector"), Store(z, (r,), Lanes("sum", other, Load(kept, (o,)))))
    return Kernel((x,), (y, z), (For(i, body, "parallel"),), label="lanes")


def gather() -> Kernel:
    """y[i] = x[index[i]] for two blocks' worth of threads that stride, and sizes that need care."""
    x, index, y = Buffer("x", "float32", (m,)), Buffer("index", "int32", (n,)), Buffer("y", "float32", (n,))
    sizes, z = Buffer("sizes", "int64", (3,)), Buffer("z", "float32", (n,))
    j, at = loop("j", n)
    read = Load(x, (value_size(Load(index, (at,)), m),))
    shifted = IndexValue("int64", at - 9000)
    inside = call("logical_and", call("greater_equal", shifted, Const("int64", 0)),
                  call("less", shifted, IndexValue("int64", m)))
    body = (
        For(j, (Store(y, (at,), read), Store(z, (at,), Load(x, (at - 9000,), inside))), "thread"),
        Store(sizes, (0,), IndexValue("int64", floordiv(n - m, 2))),
        Store(sizes, (1,), IndexValue("int64", maximum(n, 2 * m))),
        Store(sizes, (2,), IndexValue("int64", n * m - 5_000_000_000)),
    )
    return Kernel((x, index), (y, z, sizes), body, label="gather")


def turned() -> Kernel:
    """A matrix turned over, a block of 8 x 8 for each iteration, then one more block into shared memory and back."""
    x, y, z = (Buffer(name, "float32", (n,)) for name in "xyz")
    kept = Buffer("kept", "float32", (80,), "shared")
    i, at = loop("i", m)
    j, back = loop("t", 64)
    body = (
        Alloc(kept),
        Prefetch(x, 0),
        For(i, (CopyTransposed(y, at * 8, m * 8, x, at * m * 64, m * 8, 8),), "block"),
        CopyTransposed(kept, 0, 10, x, 0, m * 8, 8),
        Barrier(),
        For(j, (Store(z, (back,), Load(kept, (floordiv(back, 8) * 10 + back % 8,))),), "thread"),
    )
    return Kernel((x,), (y, z), body, label="transposed")


KERNELS = {
    "transposed": turned(),
    "softmax": softmax(64),
    "axpy": axpy(),
    "matmul": tiled(),
    "lanes": lanes(),
    "gather": gather(),
}


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(program([render(kernel, name) for name, kernel in KERNELS.items()]))


Arrays = dict[str, np.ndarray]


def launch(module: Module, name: str, kernel: Kernel, arrays: Arrays, order: int = 0, **sizes: int) -> None:
    grid, block, shared = geometry(kernel).launch(sizes)
    arguments: list = [arrays[b.name] for b in kernel.buffers]
    module.launch(name, grid, block, [*arguments, *(np.int64(sizes[s]) for s in kernel.sizes)], shared, order)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


# ---- text


@pytest.mark.parametrize("name", ["axpy", "softmax"])
def test_text_is_as_recorded(name: str) -> None:
    kernel = softmax(8) if name == "softmax" else KERNELS[name]
    text = render(kernel, name)
    path = GOLDEN / f"cuda_{name}.cu"
    if os.environ.get("GNOMON_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_geometry_is_in_sizes() -> None:
    launched = geometry(KERNELS["matmul"])
    assert str(launched.grid) == "(((n + 15)//16), ((m + 15)//16), 1)"
    assert launched.block == (16, 16, 1)
    assert str(geometry(KERNELS["axpy"]).grid) == "(((n + 255)//256), 1, 1)"
    assert geometry(KERNELS["softmax"]).launch({"m": 3, "n": 10}) == ((3, 1, 1), (256, 1, 1), 48)
    assert KERNELS["matmul"].sizes == ("k", "m", "n")


def test_a_barrier_in_divergent_code_is_refused() -> None:
    y = Buffer("y", "float32", (n,))
    i, at = loop("i", n)
    t, here = loop("t", 64)
    few = call("less", IndexValue("int64", here), Const("int64", 7))
    for body in (For(i, (Barrier(), Store(y, (at,), number(0))), "thread"),
                 For(t, (If(few, (Barrier(),)), Store(y, (here,), number(0))), "thread")):
        with pytest.raises(CompileError, match="barrier"):
            render(Kernel((), (y,), (body,)), "k")


def test_a_local_array_of_symbolic_size_is_refused() -> None:
    y, kept = Buffer("y", "float32", (n,)), Buffer("kept", "float32", (n,), "local")
    i, at = loop("i", n)
    with pytest.raises(CompileError, match="kept: local float32"):
        render(Kernel((), (y,), (For(i, (Alloc(kept), Store(y, (at,), number(0))), "parallel"),)), "k")


def test_names_never_collide() -> None:
    """Buffers called as a keyword, a function in use and a size; indices and locals that hide each other."""
    buffers = [Buffer(name, "float32", (n,)) for name in ("float", "expf", "n", "a.b", "a_b", "3")]
    out = Buffer("i", "float32", (n,))
    i, at = loop("i", n)
    total: Expr = number(0)
    for b in buffers:
        total = call("add", total, Load(b, (at,)))
    v = Local("v1", "float32")
    body = (Let(v, total), Store(out, (at,), call("exp", v)))
    text = program([render(Kernel(tuple(buffers), (out,), (For(i, body, "parallel"),)), "k")])
    if compiler():
        y, one = np.zeros(3, np.float32), np.ones(3, np.float32)
        Module(text).launch("k", (1, 1, 1), (32, 1, 1), [y, *[one] * 6, np.int64(3)])
        np.testing.assert_allclose(y, np.exp(6 * one), rtol=1e-6)


# ---- values


@needs_compiler
@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 63), (2, 500), (0, 4)])
def test_softmax(module: Module, rows: int, columns: int, order: int) -> None:
    x, y = normal(rows, columns), np.zeros((rows, columns), np.float32)
    launch(module, "softmax", KERNELS["softmax"], {"x": x, "y": y}, order, m=rows, n=columns)
    e = np.exp(x - x.max(1, keepdims=True, initial=-np.inf))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6)


@needs_compiler
@pytest.mark.parametrize("length", [1, 255, 1000])
def test_unbound_parallel_loop_and_update_in_place(module: Module, length: int) -> None:
    x, y, a = normal(length), normal(length, 1)[:, 0].copy(), np.array(3, np.float32)
    want = np.float32(3) * x + y
    launch(module, "axpy", KERNELS["axpy"], {"x": x, "y": y, "a": a}, n=length)
    np.testing.assert_allclose(y, want, rtol=1e-6)


@needs_compiler
@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (16, 16, 16), (17, 33, 20)])
def test_tiled_matmul(module: Module, sizes: tuple[int, int, int], order: int) -> None:
    rows, columns, inner = sizes
    a, b, c = normal(rows, inner), normal(inner, columns), np.zeros((rows, columns), np.float32)
    launch(module, "matmul", KERNELS["matmul"], {"a": a, "b": b, "c": c}, order, m=rows, n=columns, k=inner)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_lanes_run_in_lockstep(module: Module) -> None:
    x, y, z = normal(5, 8), np.zeros((5, 8), np.float32), np.zeros(5, np.float32)
    launch(module, "lanes", KERNELS["lanes"], {"x": x, "y": y, "z": z}, n=5)
    positive = np.where(x > 0, x, 0).sum(1, keepdims=True)
    others = np.where(x > 0, -np.inf, x).max(1, keepdims=True)
    kept = np.where(x > 0, positive, others)
    np.testing.assert_allclose(y, kept - kept.min(1, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z, kept.sum(1), rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("length", [2, 600, 9004])
def test_gather_masked_reads_and_sizes_as_values(module: Module, length: int) -> None:
    x, index = normal(7), np.random.default_rng(0).integers(0, 7, length).astype(np.int32)
    y, z, sizes = np.zeros(length, np.float32), np.ones(length, np.float32), np.zeros(3, np.int64)
    arrays = {"x": x, "index": index, "y": y, "z": z, "sizes": sizes}
    launch(module, "gather", KERNELS["gather"], arrays, 1, n=length, m=7)
    np.testing.assert_array_equal(y, x[index])
    want = [(length - 7) // 2, max(length, 14), length * 7 - 5_000_000_000]
    np.testing.assert_array_equal(sizes, want)
    moved = np.zeros(length, np.float32)
    moved[9000:9007] = x[: max(0, length - 9000)]
    np.testing.assert_array_equal(z, moved)


@needs_compiler
def test_blocks_turned_over(module: Module) -> None:
    """y is (m 8, m 8) in blocks of columns: block i of rows of x becomes the columns from 8 i on."""
    for blocks in (1, 3):
        size = (8 * blocks) ** 2
        x, y, z = normal(size), np.zeros(size, np.float32), np.zeros(size, np.float32)
        launch(module, "transposed", KERNELS["transposed"], {"x": x, "y": y, "z": z}, 1, n=size, m=blocks)
        square = x.reshape(8 * blocks, 8 * blocks)
        np.testing.assert_array_equal(y.reshape(8 * blocks, 8 * blocks)[:8], square.T[:8])
        np.testing.assert_array_equal(z[:64].reshape(8, 8), square[:8, :8].T)
        assert not y[64 * blocks :].any()


@needs_compiler
def test_floats_beyond_an_integer_dtype_saturate() -> None:
    """Cut towards zero; what is too large or too small is the end of the range, NaN is 0."""
    small = [0.9, -0.9, 254.9, 255.9, -128.9, -129, 3e4]
    values = np.array([*small, 2.0**31, -(2.0**31), 1e10, -1e10, 2.0**63, 1e30, -1e30, np.inf, -np.inf, np.nan])
    whole = [0 if np.isnan(v) else int(v) if np.isfinite(v) else int(np.copysign(10**40, v)) for v in values]
    i, at = loop("i", len(values))
    arrays: Arrays = {}
    sources, writes, body, wanted = [], [], [], {}
    for of in ("float32", "float64"):
        sources.append(Buffer(of, of, (len(values),)))
        arrays[of] = values.astype(of)
        for to in (d for d in dtypes.TABLE.values() if d.kind in "iu"):
            name, limits = f"{of}_to_{to.name}", np.iinfo(to.numpy)
            writes.append(Buffer(name, to.name, (len(values),)))
            body.append(Store(writes[-1], (at,), Cast(to.name, Load(sources[-1], (at,)))))
            arrays[name] = np.zeros(len(values), to.numpy)
            wanted[name] = np.array([min(max(w, int(limits.min)), int(limits.max)) for w in whole], to.numpy)
    kernel = Kernel(tuple(sources), tuple(writes), (For(i, tuple(body), "parallel"),), label="saturating casts")
    launch(Module(program([render(kernel, "casts")])), "casts", kernel, arrays)
    for name, want in wanted.items():
        np.testing.assert_array_equal(arrays[name], want, err_msg=name)


@needs_compiler
def test_every_cast_constant_and_bit_pattern() -> None:
    """Casts between all pairs of dtypes as NumPy's, the extremes of each as constants, bits kept by a bitcast."""
    values = np.array([0, 1, 2, 3, 100, 7])
    sources = {d: Buffer(f"x_{d}", d, (6,)) for d in dtypes.TABLE}
    i, at = loop("i", 6)
    outputs: dict[str, np.ndarray] = {}
    wanted: dict[str, np.ndarray] = {}
    writes: list[Buffer] = []
    body: list[Stmt] = []

    def store(name: str, value: Expr, want: np.ndarray) -> None:
        writes.append(Buffer(name, value.dtype, (6,)))
        body.append(Store(writes[-1], (at,), value))
        outputs[name], wanted[name] = np.zeros(6, dtypes.named(value.dtype).memory), dtypes.encoded(value.dtype, want)

    for d, x in sources.items():
        row = dtypes.named(d)
        numbers = values.astype(row.numpy)
        for to in dtypes.TABLE:
            store(f"{d}_to_{to}", Cast(to, Load(x, (at,))), numbers.astype(dtypes.named(to).numpy))
        if row.kind == "f":
            limits = dtypes.limits(d)
            extremes = [limits.max, -limits.tiny, np.inf, -np.inf, np.nan, -0.0, 0.1]
        else:
            extremes = [0, 1] if row.kind == "b" else [np.iinfo(d).min, np.iinfo(d).max]
        for k, extreme in enumerate(extremes):
            store(f"{d}_{k}", Const(d, extreme), np.full(6, extreme, row.numpy))
        if row.kind == "f":
            bits = f"uint{row.bits}"
            store(f"{d}_bits", Bitcast(bits, Load(x, (at,))), dtypes.encoded(d, numbers).view(bits))
            store(f"{d}_back", Bitcast(d, Bitcast(bits, Load(x, (at,)))), numbers)
    kernel = Kernel(tuple(sources.values()), tuple(writes), (For(i, tuple(body), "parallel"),), label="casts")
    text = program([render(kernel, "casts")])
    numpy = {d: values.astype(dtypes.named(d).numpy) for d in dtypes.TABLE}
    arrays = {f"x_{d}": dtypes.encoded(d, x) for d, x in numpy.items()} | outputs
    launch(Module(text), "casts", kernel, arrays)
    for b in writes:
        got, want = (dtypes.decoded(b.dtype, a[b.name]) for a in (outputs, wanted))
        np.testing.assert_array_equal(got, want, err_msg=b.name)
        if want.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want), err_msg=b.name)


@needs_compiler
def test_half_precision_rounds_to_nearest_even() -> None:
    """Every float16 survives, and float32 and float64 numbers between two of them round as NumPy rounds."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits.view(np.float16)
    finite = np.unique(halves[np.isfinite(halves)].astype(np.float64))
    steps = np.random.default_rng(0).choice([0, 0.25, 0.5, 0.5 + 1e-12, 0.75], len(finite) - 1)
    special = [65519.999, 65520, 1e300, 2.0**-25, 2.0**-26, np.nan, np.inf]
    doubles = np.concatenate([finite[:-1] + steps * np.diff(finite), special])
    x, y = Buffer("x", "float64", (len(doubles),)), Buffer("y", "float16", (len(doubles),))
    h, f = Buffer("h", "float16", (len(bits),)), Buffer("f", "float32", (len(bits),))
    i, at = loop("i", len(doubles))
    j, here = loop("j", len(bits))
    narrow = Kernel((x,), (y,), (For(i, (Store(y, (at,), Cast("float16", Load(x, (at,)))),), "parallel"),))
    widen = Kernel((h,), (f,), (For(j, (Store(f, (here,), Cast("float32", Load(h, (here,)))),), "parallel"),))
    module = Module(program([render(narrow, "narrow"), render(widen, "widen")]))
    with np.errstate(over="ignore"):
        got, want = np.zeros(len(doubles), np.float16), doubles.astype(np.float16)
    launch(module, "narrow", narrow, {"x": doubles, "y": got})
    np.testing.assert_array_equal(got, want)
    wide = np.zeros(len(bits), np.float32)
    launch(module, "widen", widen, {"h": halves, "f": wide})
    np.testing.assert_array_equal(wide, halves.astype(np.float32))


@needs_compiler
def test_bfloat16_rounds_to_nearest_even() -> None:
    """Every bfloat16 survives, and so does a NaN; numbers between two of them go to the nearer, or to the even one."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    finite = np.unique(values[np.isfinite(values)].astype(np.float64))
    steps = np.random.default_rng(0).choice([0.25, 0.5, 0.75], len(finite) - 1)
    between = (finite[:-1] + steps * np.diff(finite)).astype(np.float32)
    place = np.searchsorted(finite, between, "right") - 1
    even = np.where((finite[place].astype(np.float32).view(np.uint32) >> 16) % 2 == 0, place, place + 1)
    near = finite[np.where(steps == 0.5, even, place + (steps > 0.5))].astype(np.float32)
    given = np.concatenate([between, values])
    x, y = Buffer("x", "float32", (len(given),)), Buffer("y", "bfloat16", (len(given),))
    i, at = loop("i", len(given))
    narrow = Kernel((x,), (y,), (For(i, (Store(y, (at,), Cast("bfloat16", Load(x, (at,)))),), "parallel"),))
    got = np.zeros(len(given), dtypes.named("bfloat16").memory)
    launch(Module(program([render(narrow, "narrow")])), "narrow", narrow, {"x": given, "y": got})
    found = dtypes.decoded("bfloat16", got)
    np.testing.assert_array_equal(found[: len(near)], near)
    kept = found[len(near) :]
    number = ~np.isnan(values)
    np.testing.assert_array_equal(kept.view(np.uint32)[number], values.view(np.uint32)[number])
    np.testing.assert_array_equal(np.isnan(kept), ~number)


# ---- every scalar function

FLOATS = [0, 1, -1, 0.5, -0.5, 2.5, -3.5, 1e-3, 0.999, -0.25, 7.3, -11.7, 30.1, np.inf, -np.inf, np.nan, 1e-20, 3.3]
SIGNED, UNSIGNED = [0, 1, -1, 2, 3, -7, 13, 100, -100, 31], [0, 1, 2, 3, 7, 13, 100, 200, 31]
VALUES = {"f": FLOATS, "i": SIGNED, "u": UNSIGNED, "b": [0, 1]}
EXPANDED = {
    "abs": "fiu", "sign": "fiu", "square": "fiu", "relu": "fiu", "floor_divide": "fiu", "mod": "fiu", "negative": "fiu",
    "left_shift": "iu", "right_shift": "iu", "isnan": "fiu", "isinf": "fiu", "isfinite": "fiu",
}  # fmt: skip
NO_ZERO = ("quotient", "remainder")  # the machine's own: an operand that traps never reaches it
SMALL_SECOND = ("shl", "shr")
DTYPES = ["float32", "float64", "float16", "int32", "int64", "int8", "uint8", "uint32", "bool"]


def domain(fn: ScalarFn, dtype: str) -> bool:
    """Whether a function is meant for a dtype: it has a spelling, or an expansion that is said to do."""
    row = dtypes.named(dtype)
    if fn.name == "mulhi":
        return dtype == "uint32"
    if not fn.cuda and fn.expand is None:
        return False
    spelled = {k if len(k) == 1 else dtypes.named(k).kind for k in (*fn.llvm, *fn.cuda)}
    return row.kind in EXPANDED.get(fn.name, "".join(spelled) or "f")


def operands(fn: ScalarFn, dtype: str) -> list[np.ndarray]:
    """Every pair of the dtype's test values (a third operand follows along)."""
    values = np.array(VALUES[dtypes.named(dtype).kind]).astype(dtype)
    grids = [g.ravel().copy() for g in np.meshgrid(*[values] * min(fn.arity, 2), indexing="ij")]
    if fn.arity == 3:
        grids.append(np.roll(grids[0], 3))
    if fn.name == "where":
        grids[0] = grids[0].astype(bool)
    if fn.name in NO_ZERO:
        grids[1][grids[1] == 0] = 3
    if fn.name in SMALL_SECOND:
        grids[1] = np.where((grids[1] >= 0) & (grids[1] < 8), grids[1], 5).astype(dtype)
    return grids


def table_kernel(fn: ScalarFn, arrays: list[np.ndarray]) -> Kernel:
    buffers = tuple(Buffer(name, a.dtype.name, a.shape) for name, a in zip("abc", arrays, strict=False))
    i, at = loop("i", len(arrays[0]))
    value = Apply(fn, tuple(Load(b, (at,)) for b in buffers))
    y = Buffer("y", value.dtype, arrays[0].shape)
    return Kernel(buffers, (y,), (For(i, (Store(y, (at,), value),), "parallel"),), label=fn.name)


def table(dtype: str) -> dict[str, tuple[Kernel, list[np.ndarray]]]:
    found = {}
    for fn in SCALAR.values():
        if domain(fn, dtype):
            arrays = operands(fn, dtype)
            found[f"{fn.name}_of_{dtype}"] = table_kernel(fn, arrays), arrays
    return found


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalar_functions(dtype: str) -> None:
    """Floats within a few units of the last place of NumPy's value; NaN, infinity and all else exact."""
    kernels = table(dtype)
    module = Module(program([render(kernel, name) for name, (kernel, _) in kernels.items()]))
    wrong = []
    for name, (kernel, arrays) in kernels.items():
        want = SCALAR[kernel.label].numpy(*arrays)
        got = np.zeros(arrays[0].shape, kernel.writes[0].dtype)
        launch(module, name, kernel, {"y": got, **dict(zip("abc", arrays, strict=False))})
        exact = got.dtype.kind != "f"
        units = 0 if exact else 8 * float(np.finfo(got.dtype).eps)
        floor = 0 if exact else 4 * float(np.finfo(got.dtype).tiny)
        if kernel.label in ("lgamma", "digamma"):
            floor = units  # a root between the test values' neighbours
        left, right = (a.astype(np.float64) if not exact else a for a in (got, want))
        with np.errstate(invalid="ignore"):
            same = (got == want) if exact else np.isclose(left, right, rtol=units, atol=floor, equal_nan=True)
        wrong += [f"{name}{tuple(a[k] for a in arrays)} = {got[k]}, not {want[k]}" for k in np.flatnonzero(~same)[:3]]
    assert not wrong, "\n".join(wrong)


@needs_compiler
def test_a_shuffle_is_done_by_all() -> None:
    """Even as the second operand of a function that C would leave out where the first decides."""
    x, y = Buffer("x", "bool", (64,)), Buffer("y", "bool", (64,))
    t, at = loop("t", 64)
    either = call("logical_or", Load(x, (at,)), Shuffle(Load(x, (at,)), 2))
    kernel = Kernel((x,), (y,), (For(t, (Store(y, (at,), either),), "thread"),))
    given = np.arange(64) % 5 == 0
    got = np.zeros(64, bool)
    launch(Module(program([render(kernel, "k")])), "k", kernel, {"x": given, "y": got})
    np.testing.assert_array_equal(got, given | given[np.arange(64) ^ 2])


def test_no_shuffle_where_threads_part() -> None:
    x, y = Buffer("x", "float32", (64,)), Buffer("y", "float32", (64,))
    t, at = loop("t", 64)
    some = call("less", IndexValue("int64", at), Const("int64", 7))
    body = If(some, (Store(y, (at,), Shuffle(Load(x, (at,)), 1)),))
    with pytest.raises(CompileError, match="a shuffle where not all threads of a block come by"):
        render(Kernel((x,), (y,), (For(t, (body,), "thread"),)), "k")


# ---- what a GPU's compiler says


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_kernels_compile_to_cubin_without_spills(arch: str) -> None:
    usage = nvrtc.compile(program([render(kernel, name) for name, kernel in KERNELS.items()]), arch)
    assert usage.keys() == KERNELS.keys()
    for name, used in usage.items():
        assert used.spilled == 0, name
        assert used.registers <= 64, name
    assert usage["matmul"].shared == 2 * 16 * 16 * 4


@needs_compiler
def test_sizes_of_any_width_are_divided_and_compared() -> None:
    """A number by a size that is read from memory, in kernels that index in 32 bits."""
    widths = [(f"({a})-7", f"({b})2") for a in ("int", "long long") for b in ("int", "long long")]
    calls = [f"{fn}({a}, {b})" for fn in ("gn_floordiv", "gn_larger") for a, b in widths]
    lines = "\n".join(f"y[{k}] = {call};" for k, call in enumerate(calls))
    y = np.zeros(len(calls), np.int64)
    text = f'extern "C" __global__ void __launch_bounds__(32) k(long long *y) {{\nif (!threadIdx.x) {{\n{lines}\n}}\n}}'
    Module(program([text])).launch("k", (1, 1, 1), (32, 1, 1), [y])
    assert y.tolist() == [-4] * 4 + [2] * 4


# ---- faults that the emulator must notice


def fault(body: str, threads: int = 64, arguments: int = 64, order: int = 0) -> np.ndarray:
    text = f'extern "C" __global__ void __launch_bounds__({threads}) k(float *x) {{\n{body}\n}}'
    x = np.zeros(arguments, np.float32)
    Module(program([text])).launch("k", (1, 1, 1), (threads, 1, 1), [x], order=order)
    return x


@needs_compiler
@pytest.mark.parametrize(
    "body, message",
    [
        ("x[threadIdx.x] = x[threadIdx.x + 4];", "outside of every buffer"),
        ("x[threadIdx.x - 4096 * 2] = 1;", "outside of every buffer"),
        ("x[(int)threadIdx.x - 1] = 1;", "beside the buffer"),
        ("__shared__ float s[64];\ns[threadIdx.x + 1] = 1; __syncthreads(); x[0] = s[0];", "past the end of a shared"),
        ("if (threadIdx.x < 32) __syncthreads();", "deadlock: 32 of 64 threads"),
        ("if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();", "divergent barrier"),
        ("__shared__ double s[30000];\ns[0] = 1; x[0] = s[0];", "227 KiB"),
        ("x[0] = 77 / (int)blockIdx.x;", "divided by zero"),
        ("if (threadIdx.x % 2) x[0] = __shfl_xor_sync(~0u, 1.f, 1);", "divergent warp: 16 of 32 threads"),
        ("if (threadIdx.x % 2) __syncwarp();\nelse __syncwarp();", "divergent warp: threads meet at lines"),
        ("gn_store(x + 1, gn_vector<float, 4>{1, 2, 3, 4});", "misaligned vector access"),
    ],
)
def test_emulator_notices(body: str, message: str) -> None:
    with pytest.raises(EmulatorError, match=message):
        fault(body)


@needs_compiler
def test_emulator_poisons_shared_memory() -> None:
    missing = "__shared__ float s[64];\ns[threadIdx.x] = 1;{} x[threadIdx.x] = s[threadIdx.x ^ 63];"
    assert np.isnan(fault(missing.format(""))).any()
    assert (fault(missing.format(" __syncthreads();")) == 1).all()


@needs_compiler
def test_emulator_shows_a_race_by_the_order_of_threads() -> None:
    last = "x[0] = threadIdx.x; if (0) __syncthreads();"
    assert fault(last)[0] == 63
    assert fault(last, order=1)[0] == 0
    assert fault(last, order=5)[0] == fault(last, order=5)[0]
