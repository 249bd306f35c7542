"""Kernel expressions are interned by their bits, print as code, and are rewritten without recursion."""

import numpy as np
import pytest

from gnomon.compiler.dtypes import TABLE
from gnomon.compiler.kernel import (
    IDENTITY,
    Alloc,
    Apply,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
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
    ScalarFn,
    Store,
    Value,
    expressions,
    fresh_index,
    highest,
    index_names,
    lowest,
    rewrite,
    statements,
    value_size,
)
from gnomon.compiler.sizes import Index, Size, Symbol, coefficient, floordiv, symbol, symbols

ADD = ScalarFn("add", 2, np.add)
LESS = ScalarFn("less", 2, np.less, result="bool")
n = symbol("n")
X = Buffer("x", "float32", (n, 4))
Y = Buffer("y", "float32", (n, 4))
ROWS = Buffer("rows", "int64", (n,))
I, J = Index("i", n), Index("j", 4)
i, j = Size.of(I), Size.of(J)


# ---- interning


def test_equal_expressions_are_identical():
    assert Load(X, (i, j)) is Load(Buffer("x", "float32", (symbol("n"), 4)), (Size.of(Index("i", n)), j))
    assert Apply(ADD, (Load(X, (i, j)), Const("float32", 1))) is Apply(ADD, (Load(X, (i, j)), Const("float32", 1.0)))
    assert Load(X, (i, j)) is not Load(X, (i, j + 1))


def test_constants_are_told_apart_by_bits():
    assert Const("float32", 0.0) is not Const("float32", -0.0)
    assert Const("float32", float("nan")) is Const("float32", np.float32("nan"))
    assert Const("float32", 1) is not Const("float64", 1)
    assert Const("int32", 1) is not Const("bool", True)
    assert len({Const(dtype, 1) for dtype in TABLE}) == len(TABLE)


def test_a_constant_is_what_its_dtype_holds():
    """0.1 and the float32 nearest to it are one float32 constant."""
    assert Const("float32", 0.1) is Const("float32", np.float32(0.1))
    assert Const("float32", 0.1).value == float(np.float32(0.1))
    assert Const("float64", 0.1) is not Const("float64", float(np.float32(0.1)))
    assert Const("bool", 2) is Const("bool", True)
    assert Const("float16", 1e6).value == float("inf")
    assert str(Const("float32", -0.0).value) == "-0.0"


def test_a_mask_is_part_of_a_load():
    inside = Const("bool", True)
    assert Load(X, (i, j), inside) is not Load(X, (i, j))
    assert repr(Load(X, (i, j), inside)) == "x[i, j if True]"


def test_wrong_constructions_are_our_mistake():
    with pytest.raises(AssertionError):
        Load(X, (i,))
    with pytest.raises(AssertionError):
        Apply(ADD, (Const("float32", 1),))
    with pytest.raises(AssertionError):
        Store(X, (i, j), Const("float64", 1))
    with pytest.raises(AssertionError):
        For(I, (), "vector")  # n lanes
    with pytest.raises(AssertionError):
        Bitcast("int64", Const("float32", 1))


def test_offsets_are_row_major():
    assert X.offset((i, j)) == 4 * i + j
    assert Buffer("b", "bool", (2, n, 3)).offset((1, i, 2)) == 3 * n + 3 * i + 2
    assert Buffer("scalar", "bool", ()).offset(()) == 0


# ---- what gathers read


def test_an_index_read_from_memory_depends_on_what_it_reads():
    """x[rows[i]] moves with i: `coefficient` must not call it constant."""
    row = value_size(Load(ROWS, (i,)), n)
    assert coefficient(row, I) is None
    assert coefficient(4 * row + j, J) == 1
    assert symbols(value_size(Load(ROWS, (floordiv(n, 2),)))) == {"n"}


def test_an_index_read_twice_over():
    inner = value_size(Load(ROWS, (i,)), n)
    outer = value_size(Load(ROWS, (inner,)), n)
    assert coefficient(outer, I) is None
    assert Load(ROWS, (i,)) in expressions([Load(X, (outer, j))])


def test_values_that_are_sizes_or_numbers_are_not_hidden():
    assert value_size(IndexValue("int64", i + 1)) == i + 1
    assert value_size(Const("int64", 7)) == 7
    hidden = Size.of(Value(Local("k", "int64"), 10))
    seen = rewrite(Load(ROWS, (hidden,)), lambda e: Const("int64", 3) if isinstance(e, Local) else None)
    assert seen is Load(ROWS, (3,))


# ---- printing


def small_kernel() -> Kernel:
    row = Buffer("row", "float32", (4,), "local")
    total = Local("total", "float32")
    far = Apply(LESS, (Load(X, (i, j)), Const("float32", 0.5)))
    body = (
        Alloc(row),
        For(J, (Store(row, (j,), Apply(ADD, (Load(X, (i, j)), Load(Y, (i, j))))),), "vector"),
        Let(total, Fold("sum", (J,), Load(row, (j,)))),
        For(J, (If(far, (Store(Y, (i, j), total),), (Store(Y, (i, j), Cast("float32", IndexValue("int64", i))),)),)),
        Barrier(),
    )
    return Kernel((X, Y), (Y,), (For(I, body, "parallel"),), flops=8 * n, label="small")


def test_a_kernel_prints_as_code():
    assert small_kernel().text().splitlines() == [
        "kernel(y: global float32[n, 4], x: global float32[n, 4])",
        "  for i < n parallel:",
        "    alloc row: local float32[4]",
        "    for j < 4 vector:",
        "      row[j] = add(x[i, j], y[i, j])",
        "    total:float32 = sum[j<4](row[j])",
        "    for j < 4 serial:",
        "      if less(x[i, j], 0.5):",
        "        y[i, j] = total",
        "      else:",
        "        y[i, j] = float32(int64(i))",
        "    barrier",
    ]


def test_other_expressions_print():
    assert repr(Bitcast("int32", Load(X, (i, j)))) == "bits_int32(x[i, j])"
    assert repr(Lanes("max", J, Load(X, (i, j)))) == "max_lanes[j<4](x[i, j])"
    assert repr(Load(X, (value_size(Load(ROWS, (i,))), 0))) == "x[<rows[i]>, 0]"
    assert [repr(Const(d, 1)) for d in ("float32", "int64", "bool", "float64", "uint8")] == [
        "1.0",
        "1",
        "True",
        "1.0:float64",
        "1:uint8",
    ]


def test_what_is_shared_prints_once():
    """A chain of doublings is a tree of 2^300 letters."""
    x: Expr = Load(Buffer("a_buffer_with_a_long_name", "float32", (9,)), (i,))
    for _ in range(300):
        x = Apply(ADD, (x, x))
    out = Buffer("out", "float32", (9,))
    text = Kernel((), (out,), (For(I, (Store(out, (i,), x),)),)).text()
    lines = text.splitlines()
    assert lines[2] == "    e0 = add(a_buffer_with_a_long_name[i], a_buffer_with_a_long_name[i])"
    assert lines[3].startswith("    e1 = add(add(add(e0, e0), ")
    assert len(lines) < 310
    assert len(text) < 30_000
    assert len(repr(x)) < 30_000
    assert len(repr(value_size(Cast("int64", x), 9))) < 100  # the name of an index made of it


def test_a_kernels_arguments_are_writes_then_reads():
    kernel = small_kernel()
    assert kernel.buffers == (Y, X)
    assert kernel.parallel is kernel.body[0]
    assert Kernel((X,), (Y,), ()).parallel is None


def test_statements_come_outer_first():
    kinds = [type(s).__name__ for s in statements(small_kernel().body)]
    assert kinds == ["For", "Alloc", "For", "Store", "Let", "For", "If", "Store", "Store", "Barrier"]


def test_equal_kernels_get_equal_index_names():
    def names():
        with index_names():
            return [str(fresh_index(4)) for _ in range(3)]

    assert names() == names() == ["r0", "r1", "r2"]
    assert fresh_index(4) != fresh_index(4)


# ---- rewriting


def test_rewriting_nothing_is_the_same_expression():
    x = Apply(ADD, (Load(X, (i, j)), Cast("float32", Load(ROWS, (i,)))))
    assert rewrite(x, lambda e: None) is x


def test_index_atoms_are_replaced_everywhere():
    x = Apply(ADD, (Load(X, (floordiv(i + 1, 2), j)), Cast("float32", IndexValue("int64", 3 * i))))
    moved = rewrite(x, lambda e: None, lambda a: i + n if a is I else None)
    row, number = floordiv(i + n + 1, 2), IndexValue("int64", 3 * i + 3 * n)
    assert moved is Apply(ADD, (Load(X, (row, j)), Cast("float32", number)))


def test_index_atoms_inside_gathers_and_masks_are_replaced():
    inside = Apply(LESS, (IndexValue("int64", i), IndexValue("int64", n)))
    x = Load(X, (value_size(Load(ROWS, (i,)), n), j), inside)
    moved = rewrite(x, lambda e: None, lambda a: 0 if a is I else None)
    outside = Apply(LESS, (IndexValue("int64", 0), IndexValue("int64", n)))
    assert moved is Load(X, (value_size(Load(ROWS, (0,)), n), j), outside)


def test_what_was_put_in_is_not_looked_into():
    one = Const("float32", 1)
    assert rewrite(one, lambda e: Apply(ADD, (one, one)) if e is one else None) is Apply(ADD, (one, one))


def test_statements_are_rewritten():
    change = Rewriter(lambda e: Const("float32", 2) if e is Load(X, (i, j)) else None, lambda a: 3 if a is I else None)
    text = "\n".join(map(repr, change.body(small_kernel().body[0].body)))
    assert "x[" not in text
    kernel = Kernel((), (Y,), change.body(small_kernel().body[0].body))
    assert kernel.text().splitlines()[3:] == [
        "    row[j] = add(2.0, y[3, j])",
        "  total:float32 = sum[j<4](row[j])",
        "  for j < 4 serial:",
        "    if less(2.0, 0.5):",
        "      y[3, j] = total",
        "    else:",
        "      y[3, j] = float32(int64(3))",
        "  barrier",
    ]


def test_symbols_may_become_numbers():
    assert rewrite(IndexValue("int64", n * n), lambda e: None, lambda a: 3 if a is Symbol("n") else None) is IndexValue(
        "int64", 9
    )


def test_long_chains_need_no_recursion_and_shared_parts_are_done_once():
    calls = []

    def change(e):
        calls.append(e)
        return Const("float32", 2) if e is Const("float32", 1) else None

    x = Const("float32", 1)
    for _ in range(20_000):
        x = Apply(ADD, (x, x))
    y = rewrite(x, change)
    assert len(expressions([y])) == 20_001
    assert len(calls) < 100_000


# ---- reductions


@pytest.mark.parametrize("dtype", TABLE)
def test_identities_change_nothing(dtype):
    row = TABLE[dtype]
    values = np.array([0, 1]).astype(row.numpy)
    for kind, fold in [("sum", np.sum), ("prod", np.prod), ("max", np.max), ("min", np.min)]:
        start = np.array(IDENTITY[kind](row)).astype(row.numpy)
        assert fold([*values, start]) == fold(values), kind
    assert lowest(row) <= 0
    assert highest(row) >= 1
    if row.kind in "iu":
        assert (lowest(row), highest(row)) == (np.iinfo(row.numpy).min, np.iinfo(row.numpy).max)
