"""Operations that some targets lack, as we write them out: equal to NumPy's to the last bit."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest

from gnomon.compiler.aot.legal import legalized
from gnomon.compiler.errors import CompileError

FLOATS = {"f32": ("float", "float32", "uint32"), "f64": ("double", "float64", "uint64")}
NAMES = {"f32": "f", "f64": ""}


def loop(operation: str, source: str, target: str, lanes: int) -> str:
    """A module with a function that applies `operation` (of %x, and of %y, the elements backwards) to an array."""
    x, y = (t if lanes == 1 else f"<{lanes} x {t}>" for t in (source, target))
    return f"""
define void @each(ptr %from, ptr %other, ptr %to, i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  %p = getelementptr {source}, ptr %from, i64 %i
  %o = getelementptr {source}, ptr %other, i64 %i
  %q = getelementptr {target}, ptr %to, i64 %i
  %x = load {x}, ptr %p, align 1
  %y = load {x}, ptr %o, align 1
  {operation}
  store {y} %r, ptr %q, align 1
  %j = add i64 %i, {lanes}
  %more = icmp ult i64 %j, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def run(operation: str, types: tuple[str, str], lanes: int, called: list[str], x: np.ndarray, y: np.ndarray, kind: str):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    context, whole = llvm.create_context(), None
    texts = legalized([loop(operation, *types, lanes)], called)
    assert len(texts) == 2
    for text in texts:
        part = llvm.parse_assembly(text, context=context)
        part.verify()
        whole = part if whole is None else whole.link_in(part) or whole
    machine = llvm.Target.from_default_triple().create_target_machine()
    assert not [f.name for f in whole.functions if f.name.startswith("llvm.sqrt")]
    engine = llvm.create_mcjit_compiler(whole, machine)
    engine.finalize_object()
    result = np.empty(len(x), kind)
    enter = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(engine.get_function_address("each"))
    enter(x.ctypes.data, y.ctypes.data, result.ctypes.data, len(x))
    return result


def every_kind(kind: str) -> np.ndarray:
    _, dtype, bits = FLOATS[kind]
    rng = np.random.default_rng(0)
    top = np.iinfo(bits).max
    wild = rng.integers(0, top, 20_000, dtype=bits, endpoint=True).view(dtype)
    near = np.concatenate([rng.normal(scale=s, size=10_000) for s in (1, 100, 1e6)]).astype(dtype)
    halves = np.arange(-20, 20, 0.5, dtype=dtype)
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 0.5, -0.5, 2**23 - 0.5, 2**52 - 0.5, 4, 2], dtype)
    found = np.concatenate([wild, near, halves, odd])
    return np.resize(found, -(-len(found) // 8) * 8)


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    both = np.isnan(found) & np.isnan(wanted)
    np.testing.assert_array_equal(np.where(both, 0, found), np.where(both, 0, wanted))
    np.testing.assert_array_equal(np.signbit(found) & ~both, np.signbit(wanted) & ~both)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "roundeven", "sqrt"])
def test_functions_of_one_number(name, kind, lanes):
    llvm_type, dtype, _ = FLOATS[kind]
    x = every_kind(kind)
    t, m = (llvm_type, kind) if lanes == 1 else (f"<8 x {llvm_type}>", f"v8{kind}")
    operation = f"%r = call {t} @llvm.{name}.{m}({t} %x)"
    found = run(operation, (llvm_type, llvm_type), lanes, [f"{name}{NAMES[kind]}"], x, x, dtype)
    with np.errstate(invalid="ignore"):
        wanted = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "roundeven": np.rint, "sqrt": np.sqrt}[name](x)
    assert_same(found, wanted)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_the_larger_and_the_smaller(name, kind, lanes):
    llvm_type, dtype, _ = FLOATS[kind]
    x = every_kind(kind)
    y = x[::-1].copy()
    y[:2000] = x[:2000]
    x[-4:], y[-4:] = [0.0, -0.0, 0.0, -0.0], [-0.0, 0.0, 0.0, -0.0]
    t, m = (llvm_type, kind) if lanes == 1 else (f"<8 x {llvm_type}>", f"v8{kind}")
    operation = f"%r = call {t} @llvm.{name}.{m}({t} %x, {t} %y)"
    found = run(operation, (llvm_type, llvm_type), lanes, [f"f{name}{NAMES[kind]}"], x, y, dtype)
    with np.errstate(invalid="ignore"):
        wanted = (np.maximum if name == "maximum" else np.minimum)(x, y)
    wanted[-4:] = [0.0, 0.0, 0.0, -0.0] if name == "maximum" else [-0.0, -0.0, 0.0, -0.0]
    assert_same(found, wanted)


@pytest.mark.parametrize("lanes", [1, 8])
def test_every_half_becomes_its_float(lanes):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half, single = ("half", "float") if lanes == 1 else ("<8 x half>", "<8 x float>")
    found = run(f"%r = fpext {half} %x to {single}", ("half", "float"), lanes, ["__extendhfsf2"], x, x, "float32")
    assert_same(found, x.astype("float32"))


@pytest.mark.parametrize("lanes", [1, 8])
def test_floats_become_the_nearest_half(lanes):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype("float32")
    with np.errstate(invalid="ignore", over="ignore"):
        between = np.nextafter(halves, np.float32(0)), np.nextafter(halves, np.float32(np.inf)), halves * 1.00048828125
    x = np.concatenate([every_kind("f32"), halves, *between]).astype("float32")
    half, single = ("half", "float") if lanes == 1 else ("<8 x half>", "<8 x float>")
    found = run(f"%r = fptrunc {single} %x to {half}", ("float", "half"), lanes, ["__truncsfhf2"], x, x, "float16")
    with np.errstate(over="ignore"):
        assert_same(found, x.astype("float16"))


def test_products_that_do_not_fuse():
    product = "%r = call float @llvm.fma.f32(float %x, float %x, float %x)"
    text = f"define float @f(float %x) {{\n  {product}\n  ret float %r\n}}\n"
    assert "@llvm.fmuladd.f32(" in legalized([text], ["fmaf"])[0]
    assert legalized([text], []) == [text]
    with pytest.raises(CompileError, match="fused multiply-add"):
        legalized(["define void @g() {\n  ret void\n}\n"], ["fmaf"])
