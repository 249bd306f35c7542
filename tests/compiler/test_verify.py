"""What `verify` says of stages that are broken in one way each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gnomon.compiler import verify
from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.errors import CheckError
from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import (
    Apply,
    Buffer,
    Const,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    Store,
    value_size,
)
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.program import Branch, Copy, Program, Repeat, Slot
from gnomon.compiler.sizes import Dim, Index, Size, floordiv, modulo, symbol
from gnomon.compiler.targets import Target

TARGET = Target("cpu", "", "", "", 32, 16, True)
n = symbol("n")


def leaf(key: int, *shape: Dim, dtype: str = "float32") -> Node:
    return Input(-5000 - key, f"x{key}", dtype, shape)()


def compiled() -> tuple[Program, dict[str, Kernel]]:
    """Two products, and a temporary between them."""
    x, w = leaf(1, n, 40), leaf(2, 40, 50)
    hidden = build.sin(build.matmul(x, w))
    stages = Stages()
    request = Request("f", [x, w], [build.matmul(hidden, build.transpose(w, [1, 0]))])
    return compile(request, TARGET, stages), stages.kernels


# ---- graphs


def test_a_graph_reads_only_what_is_given():
    x, y = leaf(1, n), leaf(2, n)
    total = build.add(x, y)
    verify.check_graph([total], [x, y])
    with pytest.raises(CheckError, match="x2.* is read but not given"):
        verify.check_graph([total], [x])


def test_a_type_is_what_the_op_infers(monkeypatch):
    x = leaf(1, n, 4)
    total = build.sum(x, 1)
    monkeypatch.setattr(type(total.op), "infer", lambda op, x: x)
    with pytest.raises(CheckError, match=r"has another type than its op infers, float32\[n, 4\]"):
        verify.check_graph([total])


def test_a_pass_keeps_results_and_their_types():
    x = leaf(1, n, 4)
    verify.check_pass("fine", [x], [build.negative(x)])
    with pytest.raises(CheckError, match="the pass 'careless' made 1 results of 2"):
        verify.check_pass("careless", [x, x], [x])
    with pytest.raises(CheckError, match=r"'sloppy' changed the type of result 0 from float32\[n, 4\] to float64"):
        verify.check_pass("sloppy", [x], [build.cast(x, "float64")])


# ---- programs


def test_what_is_compiled_holds():
    verify.check_program(*compiled())


def broken(change, message: str) -> None:
    program, kernels = compiled()
    with pytest.raises(CheckError, match=message):
        verify.check_program(change(program), kernels)


def with_steps(program: Program, change) -> Program:
    return replace(program, steps=tuple(change(list(program.steps))))


def test_slots_are_written_before_they_are_read():
    broken(lambda p: with_steps(p, lambda steps: steps[1:]), "reads '.*' before anything is written to it")
    broken(lambda p: with_steps(p, lambda steps: steps[::-1]), "before anything is written")


def test_outputs_are_written():
    broken(lambda p: with_steps(p, lambda steps: steps[:-1]), "the output 'output0' is never written")


def test_kernels_are_there_and_get_what_they_take():
    broken(
        lambda p: with_steps(p, lambda s: [replace(s[0], kernel="gone"), *s[1:]]), "'gone' is launched but not there"
    )
    broken(lambda p: with_steps(p, lambda s: [replace(s[0], buffers=s[0].buffers[1:]), *s[1:]]), "takes . buffers")
    broken(lambda p: with_steps(p, lambda s: [replace(s[0], sizes=()), *s[1:]]), "and . sizes, but is launched with")

    def shrink(p: Program) -> Program:
        slots = list(p.slots)
        at = p.outputs[0]
        slots[at] = replace(slots[at], shape=(n, 39))
        return replace(p, slots=tuple(slots))

    broken(shrink, r"takes m\d+: global float32\[40\*n\], but slot 'output0' is float32\[n, 39\]")


def test_slots_exist():
    broken(lambda p: with_steps(p, lambda s: [replace(s[0], buffers=(99, *s[0].buffers[1:])), *s[1:]]), "uses slot 99")


def test_sizes_are_told_by_inputs():
    broken(lambda p: replace(p, sizes=(), bindings=()), "depends on the size 'n', which no input tells")


def test_temporaries_live_while_they_are_used():
    def die_early(p: Program) -> Program:
        slots = [replace(s, last=s.first) if s.kind == "temporary" else s for s in p.slots]
        return replace(p, slots=tuple(slots))

    broken(die_early, r"step \d uses '.*', which lives from")


def test_only_what_both_sides_write_is_written_after_a_branch():
    slots = (
        Slot("c", "bool", (), "input"),
        Slot("x", "float32", (n,), "input"),
        Slot("y", "float32", (n,), "output"),
        Slot("k", "int64", (), "temporary", 0, 0),
    )
    copy = Copy(1, 2)
    program = Program("f", "cpu", (0, 1), (2,), (), (), ("n",), ((1, 0),), (), slots, (Branch(0, (copy,), (copy,)),))
    verify.check_program(program, {})
    with pytest.raises(CheckError, match="output 'y' is never written"):
        verify.check_program(replace(program, steps=(Branch(0, (copy,), ()),)), {})
    verify.check_program(replace(program, steps=(Repeat(n, 3, (copy,)),)), {})
    with pytest.raises(CheckError, match="the end of a loop reads 'k'|a copy of 'k' to 'y', which is of another type"):
        verify.check_program(replace(program, steps=(Repeat(n, 3, (Copy(3, 2),)),)), {})


# ---- kernels


def kernel(body, *buffers: Buffer) -> Kernel:
    return Kernel(buffers[1:], buffers[:1], tuple(body), label="test")


def less(a: Dim, b: Dim) -> Expr:
    return Apply(scalar("less"), (IndexValue("int64", a), IndexValue("int64", b)))


ONE = Const("float32", 1)


def test_bounds_of_loops():
    x = Buffer("x", "float32", (n,))
    p = Index("p", n)
    for shift, fine in ((0, True), (1, False), (-1, False)):
        k = kernel([For(p, (Store(x, (Size.of(p) + shift,), ONE),), "parallel")], x)
        if fine:
            verify.check_bounds(k, {"n": 5})
        else:
            with pytest.raises(CheckError, match="kernel 'test' touches x.* outside its bounds: axis 0 has 5 elements"):
                verify.check_bounds(k, {"n": 5})
            verify.check_bounds(k, {"n": 0})  # nothing runs


def test_bounds_of_long_loops_are_tried_at_both_ends():
    x = Buffer("x", "float32", (n,))
    p = Index("p", n)
    with pytest.raises(CheckError, match=r"reaches 1000000 where n = 1000000"):
        verify.check_bounds(kernel([For(p, (Store(x, (Size.of(p) + 1,), ONE),))], x), {"n": 10**6})


def test_conditions_count():
    x = Buffer("x", "float32", (n,))
    q, lane = Index("q", floordiv(n + 7, 8)), Index("l8", 8)
    at = Size.of(q) * 8 + Size.of(lane)
    store = Store(x, (at,), ONE)
    guarded = kernel([For(q, (For(lane, (If(less(at, n), (store,)),), "vector"),))], x)
    masked = kernel([For(q, (For(lane, (Let(Local("w", "float32"), Load(x, (at,), less(at, n))),), "vector"),))], x)
    turned = kernel([For(q, (For(lane, (If(less(at, n), (), (store,)),), "vector"),))], x)
    for size in (1, 8, 13):
        verify.check_bounds(guarded, {"n": size})
        verify.check_bounds(masked, {"n": size})
    with pytest.raises(CheckError):
        verify.check_bounds(kernel([For(q, (For(lane, (store,), "vector"),))], x), {"n": 13})
    with pytest.raises(CheckError):
        verify.check_bounds(turned, {"n": 13})
    verify.check_bounds(turned, {"n": 16})


def test_conditions_on_data_are_believed():
    x, y = Buffer("x", "float32", (n,)), Buffer("y", "int64", (n,))
    p = Index("p", n)
    chosen = Apply(scalar("less"), (Load(y, (Size.of(p),)), Const("int64", 1)))
    verify.check_bounds(kernel([For(p, (If(chosen, (Store(x, (Size.of(p) * 2,), ONE),)),))], x, y), {"n": 3})


def test_what_is_gathered_is_within_its_promise():
    x, y = Buffer("x", "float32", (n,)), Buffer("y", "int64", (n,))
    p = Index("p", n)
    at = lambda extent: value_size(Load(y, (Size.of(p),)), extent)
    verify.check_bounds(kernel([For(p, (Store(x, (at(n),), ONE),))], x, y), {"n": 3})
    with pytest.raises(CheckError, match="reaches 3"):
        verify.check_bounds(kernel([For(p, (Store(x, (at(n + 1),), ONE),))], x, y), {"n": 3})


def test_extents_that_depend_on_outer_loops():
    x = Buffer("x", "float32", (n,))
    p = Index("p", n)
    q = Index("q", Size.of(p))  # a triangle: q < p
    verify.check_bounds(kernel([For(p, (For(q, (Store(x, (Size.of(q) + 1,), ONE),)),))], x), {"n": 4})
    with pytest.raises(CheckError):
        verify.check_bounds(kernel([For(p, (For(q, (Store(x, (Size.of(q) + 2,), ONE),)),))], x), {"n": 4})


def test_quotients_and_remainders():
    x = Buffer("x", "float32", (3, n))
    p = Index("p", n * 3)
    place = (floordiv(Size.of(p), n), modulo(Size.of(p), n))
    verify.check_bounds(kernel([For(p, (Store(x, place, ONE),))], x), {"n": 7})
    with pytest.raises(CheckError, match="axis 0 has 3 elements, the index reaches"):
        verify.check_bounds(kernel([For(p, (Store(x, (place[1], 0), ONE),))], x), {"n": 7})


def test_reductions_over_lanes_go_through_their_own_loop():
    acc, lane = Buffer("acc", "float32", (8,), "register"), Index("l8", 8)
    x = Buffer("x", "float32", (1,))
    total = Lanes("sum", lane, Load(acc, (Size.of(lane),)))
    verify.check_bounds(kernel([Store(x, (0,), total)], x), {})
    wide = Lanes("sum", Index("l9", 9), Load(acc, (Size.of(Index("l9", 9)),)))
    with pytest.raises(CheckError):
        verify.check_bounds(kernel([Store(x, (0,), wide)], x), {})


@pytest.mark.parametrize("size", [1, 2, 7, 8, 33, 64])
def test_kernels_of_the_compiler_stay_in_bounds(size):
    for k in compiled()[1].values():
        verify.check_bounds(k, {"n": size})
