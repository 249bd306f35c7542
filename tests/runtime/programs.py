"""Programs written by hand, for tests of what runs them."""

from __future__ import annotations

from gnomon.compiler.program import Branch, Check, Copy, Launch, Program, Repeat, Slot, Source
from gnomon.compiler.sizes import symbol

N = symbol("n")

SAXPY = """
define void @test_saxpy(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %py = load ptr, ptr %buffers
  %q1 = getelementptr ptr, ptr %buffers, i64 1
  %px = load ptr, ptr %q1
  %q2 = getelementptr ptr, ptr %buffers, i64 2
  %pa = load ptr, ptr %q2
  %a = load float, ptr %pa
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %loop ]
  %qx = getelementptr float, ptr %px, i64 %i
  %qy = getelementptr float, ptr %py, i64 %i
  %x = load float, ptr %qx
  %y = load float, ptr %qy
  %ax = fmul float %a, %x
  %s = fadd float %ax, %y
  store float %s, ptr %qy
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""
"""buffers: y (in place), x, a scalar: y += a * x."""

DOUBLE = """
define void @test_double(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %py = load ptr, ptr %buffers
  %q1 = getelementptr ptr, ptr %buffers, i64 1
  %px = load ptr, ptr %q1
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %loop ]
  %qx = getelementptr float, ptr %px, i64 %i
  %qy = getelementptr float, ptr %py, i64 %i
  %x = load float, ptr %qx
  %s = fadd float %x, %x
  store float %s, ptr %qy
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""
"""buffers: y, x: y = 2 * x."""

EXP = """
declare float @expf(float)
define void @test_exp(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %py = load ptr, ptr %buffers
  %q1 = getelementptr ptr, ptr %buffers, i64 1
  %px = load ptr, ptr %q1
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %loop ]
  %qx = getelementptr float, ptr %px, i64 %i
  %qy = getelementptr float, ptr %py, i64 %i
  %x = load float, ptr %qx
  %s = call float @expf(float %x)
  store float %s, ptr %qy
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""
"""buffers: y, x: y = exp(x), by C's function."""


def launch_text(number: int, kernel: str, slots: tuple[int, ...], extent: str, work: str) -> str:
    """What an entry does to launch a kernel: `extent` and `work` are LLVM values."""
    lines = [f"  %table{number} = alloca [{len(slots)} x ptr]"]
    for i, slot in enumerate(slots):
        lines += [
            f"  %from{number}.{i} = getelementptr ptr, ptr %slots, i64 {slot}",
            f"  %address{number}.{i} = load ptr, ptr %from{number}.{i}",
            f"  %to{number}.{i} = getelementptr ptr, ptr %table{number}, i64 {i}",
            f"  store ptr %address{number}.{i}, ptr %to{number}.{i}",
        ]
    call = f"(ptr @{kernel}, ptr %table{number}, ptr %sizes, i64 {extent}, i64 {work})"
    lines.append(f"  call void @share{call.replace('ptr @', 'ptr %parallel, ptr @', 1)}")
    return "\n".join(lines)


def entry_text(name: str, kernels: tuple[str, ...], body: str, status: int = 0) -> str:
    """An entry that declares `kernels` and runs `body`, in which %n is the first size."""
    declares = "\n".join(f"declare void @{k}(ptr, ptr, i64, i64)" for k in kernels)
    return f"""
{declares}
define internal void @share(ptr %parallel, ptr %kernel, ptr %buffers, ptr %sizes, i64 %extent, i64 %work) nounwind {{
entry:
  %alone = icmp eq ptr %parallel, null
  br i1 %alone, label %serial, label %shared
serial:
  call void %kernel(ptr %buffers, ptr %sizes, i64 0, i64 %extent)
  ret void
shared:
  call void %parallel(ptr %kernel, ptr %buffers, ptr %sizes, i64 %extent, i64 %work)
  ret void
}}
define i32 @{name}(ptr %slots, ptr %sizes, ptr %parallel) nounwind {{
entry:
  %n = load i64, ptr %sizes
{body}
  ret i32 {status}
}}
"""


SOURCES = {
    "test_saxpy": Source("saxpy", SAXPY, ("test_saxpy",)),
    "test_double": Source("double", DOUBLE, ("test_double",)),
    "test_exp": Source("exp", EXP, ("test_exp",)),
}


def program(name, slots, steps, body, kernels, inputs, outputs, variables=(), constants=(), status=0, **others):
    """A program with the size n, read from axis 0 of the first input, and the entry `body`."""
    entry = f"test_{name}_entry"
    sources = (*(SOURCES[k] for k in kernels), Source(entry, entry_text(entry, kernels, body, status), (entry,)))
    defaults = {"sizes": ("n",), "bindings": ((0, 0),), "checks": ()}
    return Program(
        name, "cpu", inputs, outputs, variables, constants, slots=slots, steps=steps, sources=sources, entry=entry,
        **{**defaults, **others},
    )  # fmt: skip


def saxpy(work=N) -> Program:
    """out = y + a * x with y an updated variable of 1000 numbers at most: here exactly n."""
    slots = (
        Slot("x", "float32", (N,), "input"),
        Slot("a", "float32", (), "input"),
        Slot("out", "float32", (N,), "output"),
    )
    steps = (
        Copy(0, 2),
        Launch("test_saxpy", (2, 0, 1), (N,), N, work, 2 * N, 12 * N, "saxpy", ("layer one (model.py:3)",)),
    )
    body = "\n".join(
        [
            "  %bytes = mul i64 %n, 4",
            "  %source = load ptr, ptr %slots",
            "  %place = getelementptr ptr, ptr %slots, i64 2",
            "  %target = load ptr, ptr %place",
            "  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %bytes, i1 false)",
            "  %work = mul i64 %n, 100" if work is not N else "  %work = add i64 %n, 0",
            launch_text(0, "test_saxpy", (2, 0, 1), "%n", "%work"),
        ]
    )
    return program("saxpy" if work is N else "saxpy_large", slots, steps, body, ("test_saxpy",), (0, 1), (2,))


def chain() -> Program:
    """out = exp(2 * x + c): two kernels with temporaries between them, and a constant."""
    slots = (
        Slot("x", "float32", (N,), "input"),
        Slot("doubled", "float32", (N,), "temporary", 0, 1),
        Slot("one", "float32", (), "constant"),
        Slot("out", "float32", (N,), "output"),
        Slot("also", "float32", (N,), "temporary", 1, 2),
    )
    steps = (
        Launch("test_double", (1, 0), (N,), N, N, N, 8 * N, "double"),
        Launch("test_saxpy", (1, 0, 2), (N,), N, N, 2 * N, 12 * N, "saxpy"),
        Launch("test_exp", (3, 1), (N,), N, 10 * N, 8 * N, 8 * N, "exp"),
    )
    body = "\n".join(
        [
            launch_text(0, "test_double", (1, 0), "%n", "%n"),
            launch_text(1, "test_saxpy", (1, 0, 2), "%n", "%n"),
            launch_text(2, "test_exp", (3, 1), "%n", "%n"),
        ]
    )
    kernels = ("test_double", "test_saxpy", "test_exp")
    return program("chain", slots, steps, body, kernels, (0,), (3,), constants=((2, b"\0\0\x80\x3f"),))


def accumulate() -> Program:
    """A variable of 4 numbers, to which a * x is added three times; the output is the variable's memory."""
    slots = (
        Slot("x", "float32", (4,), "input"),
        Slot("a", "float32", (), "input"),
        Slot("total", "float32", (4,), "variable"),
        Slot("result", "float32", (4,), "output", alias=2),
        Slot("counter", "int64", (), "temporary", 0, 0),
        Slot("stop", "bool", (), "constant"),
    )
    launch = Launch("test_saxpy", (2, 0, 1), (), 4, 4, 8, 48, "saxpy")
    steps = (Repeat(3, 4, (Branch(5, (), (launch,)),)),)
    body = "\n".join(launch_text(k, "test_saxpy", (2, 0, 1), "4", "4") for k in range(3))
    return program(
        "accumulate", slots, steps, body, ("test_saxpy",), (0, 1), (3,), variables=((2, 7),), constants=((5, b"\0"),),
        sizes=(), bindings=(),
    )  # fmt: skip


def matched() -> Program:
    """Two inputs of which the second is one longer than the first, and twice whose length is the third's."""
    m = symbol("m")
    slots = (
        Slot("x", "float32", (N,), "input"),
        Slot("y", "float32", (N + 1, 3), "input"),
        Slot("z", "float32", (m,), "input"),
        Slot("out", "float32", (N,), "output"),
    )
    return program(
        "matched", slots, (Copy(0, 3),), "", (), (0, 1, 2), (3,), sizes=("n", "m"), bindings=((0, 0), (2, 0)),
        checks=(Check(2 * N, m, "z must be twice as long as x"),),
    )  # fmt: skip
