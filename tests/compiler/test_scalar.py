"""The table of scalar functions: expansions against NumPy and SciPy, spellings against the meaning; Philox."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from scipy import special

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.grad import grad
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.kernel import Apply, Bitcast, Cast, Const, Expr, Local, children, expressions, rewrite
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.philox import (
    philox_expr,
    philox_numpy,
    uniform32_expr,
    uniform32_numpy,
    uniform64_expr,
    uniform64_numpy,
)
from gnomon.compiler.ops.scalar import SCALAR, scalar

# ---- two evaluators of expressions: NumPy, and LLVM through the table's spellings


def value(root: Expr, env: dict[str, np.ndarray]) -> np.ndarray:
    """The expression in NumPy, operation by operation, in its own dtypes."""
    done: dict[Expr, np.ndarray] = {}
    for e in expressions([root]):
        match e:
            case Local():
                done[e] = env[e.name]
            case Const():
                done[e] = np.array(e.value, e.dtype)
            case Apply():
                done[e] = e.fn.numpy(*(done[a] for a in e.args))
            case Cast():
                done[e] = done[e.x].astype(e.dtype)
            case Bitcast():
                done[e] = done[e.x].view(e.dtype)
    return done[root]


def expanded(name: str, *arguments: Expr) -> Expr:
    expand = scalar(name).expand
    assert expand is not None, name
    return expand(*arguments)


class Text:
    """A function over arrays as LLVM text: `lanes` elements at a time (1: scalar types)."""

    def __init__(self, lanes: int, fma: bool = True):
        self.fma, self.lanes, self.count = fma, lanes, 0
        self.lines: list[str] = []
        self.declared: set[str] = set()

    def type(self, dtype: str) -> str:
        return dtypes.named(dtype).llvm if self.lanes == 1 else f"<{self.lanes} x {dtypes.named(dtype).llvm}>"

    def mangled(self, dtype: str) -> str:
        row = dtypes.named(dtype)
        return ("" if self.lanes == 1 else f"v{self.lanes}") + f"{'f' if row.kind == 'f' else 'i'}{row.bits}"

    def emit(self, text: str) -> str:
        if self.fma:  # as a compiler may have it that fuses by itself
            text = re.sub(r"^(fadd|fsub|fmul) ", r"\1 contract ", text)
        self.count += 1
        self.lines.append(f"  %t{self.count} = {text}")
        return f"%t{self.count}"

    def const(self, e: Const) -> str:
        row = dtypes.named(e.dtype)
        if row.kind == "f":
            text = f"0x{np.float64(e.value).view(np.uint64):016X}"
        else:
            text = {True: "true", False: "false"}[e.value] if row.kind == "b" else str(e.value)
        return text if self.lanes == 1 else f"splat ({row.llvm} {text})"

    def expr(self, root: Expr, names: dict[str, str]) -> str:
        done: dict[Expr, str] = {}
        stack = [root]
        while stack:
            e = stack[-1]
            args = children(e)
            if any(a not in done for a in args):
                stack.extend(a for a in args if a not in done)
                continue
            if stack.pop() in done:
                continue
            match e:
                case Local():
                    done[e] = names[e.name]
                case Const():
                    done[e] = self.const(e)
                case Cast():
                    done[e] = self.cast(e, done[e.x])
                case Bitcast():
                    done[e] = self.emit(f"bitcast {self.type(e.x.dtype)} {done[e.x]} to {self.type(e.dtype)}")
                case Apply():
                    dtype = args[-1].dtype
                    template = e.fn.llvm.get(dtypes.named(dtype).kind)
                    if template is None or (e.fn.name == "fma" and not self.fma):
                        simpler = expanded(e.fn.name, *args)
                        done[e] = done.get(simpler) or self.expand(simpler, done, names)
                    else:
                        kind = {"t": self.type(dtype), "m": self.mangled(dtype), "c": self.type("bool")}
                        if "@llvm" in template:
                            head = re.sub(r" \{\d\}| false|call |nsz ", "", template)
                            self.declared.add("declare " + head.format(**kind))
                        done[e] = self.emit(template.format(*(done[a] for a in args), **kind))
        return done[root]

    def expand(self, simpler: Expr, done, names) -> str:
        for a in [e for e in expressions([simpler]) if e in done]:
            names = {**names, f"known{id(a)}": done[a]}
        swap = {a: Local(f"known{id(a)}", a.dtype) for a in expressions([simpler]) if a in done}
        return self.expr(rewrite(simpler, swap.get), names)

    def cast(self, e: Cast, x: str) -> str:
        a, b = dtypes.named(e.x.dtype), dtypes.named(e.dtype)
        if a == b or (a.kind in "iu" and b.kind in "iu" and a.bits == b.bits):
            return x
        if b.kind == "b":
            op = "fcmp une" if a.kind == "f" else "icmp ne"
            return self.emit(f"{op} {self.type(a.name)} {x}, {self.const(Const(a.name, 0))}")
        if a.kind == "f" and b.kind == "f":
            op = "fpext" if b.bits > a.bits else "fptrunc"
        elif a.kind == "f":
            op = "fptosi" if b.kind == "i" else "fptoui"
        elif b.kind == "f":
            op = "sitofp" if a.kind == "i" else "uitofp"
        else:
            op = "trunc" if b.bits < a.bits else ("sext" if a.kind == "i" else "zext")
        return self.emit(f"{op} {self.type(a.name)} {x} to {self.type(b.name)}")


@cache
def machine():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=2, jit=True)


def source(root: Expr, arguments: list[Local], lanes: int, fma: bool = True, name: str = "f") -> str:
    """`void f(n, out, in...)` over arrays of n elements, n a multiple of `lanes`."""
    text = Text(lanes, fma)
    pointers = ", ".join(f"ptr noalias %p{i}" for i in range(len(arguments)))

    def memory(dtype: str) -> str:  # a bool is a byte in memory
        if dtype != "bool":
            return text.type(dtype)
        return "i8" if lanes == 1 else f"<{lanes} x i8>"

    names = {}
    for i, a in enumerate(arguments):
        width = dtypes.named(a.dtype).bytes
        at = text.emit(f"getelementptr i8, ptr %p{i}, i64 {text.emit(f'mul i64 %i, {width}')}")
        x = text.emit(f"load {memory(a.dtype)}, ptr {at}, align {width}")
        names[a.name] = text.emit(f"trunc {memory('bool')} {x} to {text.type('bool')}") if a.dtype == "bool" else x
    result = text.expr(root, names)
    width = dtypes.named(root.dtype).bytes
    if root.dtype == "bool":
        result = text.emit(f"zext {text.type('bool')} {result} to {memory('bool')}")
    at = text.emit(f"getelementptr i8, ptr %out, i64 {text.emit(f'mul i64 %i, {width}')}")
    lines = "\n".join(text.lines)
    host = f'"target-cpu"="{llvm.get_host_cpu_name()}" "target-features"="{llvm.get_host_cpu_features().flatten()}"'
    return f"""
{chr(10).join(sorted(text.declared))}
define void @{name}(i64 %n, ptr noalias %out, {pointers}) #0 {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{lines}
  store {memory(root.dtype)} {result}, ptr {at}, align {width}
  %next = add i64 %i, {lanes}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}}
attributes #0 = {{ {host} }}
"""


class Compiled:
    """An expression as a function of arrays, through LLVM."""

    def __init__(self, root: Expr, arguments: list[Local], lanes: int, fma: bool = True):
        module = llvm.parse_assembly(source(root, arguments, lanes, fma))
        module.verify()
        builder = llvm.create_pass_builder(machine(), llvm.create_pipeline_tuning_options(speed_level=1))
        manager = llvm.create_new_module_pass_manager()
        manager.add_instruction_combine_pass()
        manager.run(module, builder)
        self.dtype, self.lanes, self.assembly = root.dtype, lanes, machine().emit_assembly(module)
        self.engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
        self.engine.finalize_object()
        types = [ctypes.c_int64, *[ctypes.c_void_p] * (len(arguments) + 1)]
        self.entry = ctypes.CFUNCTYPE(None, *types)(self.engine.get_function_address("f"))

    def __call__(self, *arrays: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        n = len(arrays[0])
        assert n % self.lanes == 0
        if out is None:
            out = np.empty(n, self.dtype)
        self.entry(n, out.ctypes.data, *(a.ctypes.data for a in arrays))
        return out


def compiled(root: Expr, arguments: list[Local], lanes: int, fma: bool = True) -> Compiled:
    machine()  # before any text is parsed
    return Compiled(root, arguments, lanes, fma)


# ---- expansions: how far from the correctly rounded value


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# name: (reference, bounds in ulp for float32 and float64, ranges to sample besides all magnitudes)
UNARY: dict[str, tuple[Callable[..., Any], tuple[float, float], list[tuple[float, float]]]] = {
    "exp": (np.exp, (1, 1), [(-105, 89), (-746, 710), (-1, 1)]),
    "exp2": (np.exp2, (1.1, 1.1), [(-151, 129), (-1076, 1025), (-1, 1)]),
    "expm1": (np.expm1, (1.6, 2), [(-20, 89), (-40, 710), (-1, 1)]),
    "log": (np.log, (1, 1), [(0, 4), (0.9, 1.1)]),
    "log1p": (np.log1p, (1.6, 1.6), [(-1, 2), (-0.1, 0.1)]),
    "log2": (np.log2, (1.3, 1.3), [(0, 4), (0.9, 1.1)]),
    "log10": (np.log10, (2, 2), [(0, 4), (0.9, 1.1)]),
    "sin": (np.sin, (1.6, 1), [(-10, 10), (-1e5, 1e5)]),
    "cos": (np.cos, (1.6, 1), [(-10, 10), (-1e5, 1e5)]),
    "tan": (np.tan, (3.3, 2.4), [(-10, 10), (-1e5, 1e5)]),
    "arcsin": (np.arcsin, (2.5, 2.5), [(-1, 1)]),
    "arccos": (np.arccos, (1.3, 1.3), [(-1, 1)]),
    "arctan": (np.arctan, (2, 2), [(-1, 1), (-10, 10)]),
    "sinh": (np.sinh, (2.4, 2.4), [(-1, 1), (-90, 90), (-711, 711)]),
    "cosh": (np.cosh, (1.6, 1.6), [(-1, 1), (-90, 90), (-711, 711)]),
    "tanh": (np.tanh, (2.6, 2.6), [(-1, 1), (-20, 20)]),
    "arcsinh": (np.arcsinh, (2, 2), [(-1, 1), (-10, 10)]),
    "arccosh": (np.arccosh, (2.6, 2.6), [(1, 1.1), (1, 100)]),
    "arctanh": (np.arctanh, (2.3, 2.3), [(-1, 1)]),
    "sigmoid": (sigmoid, (2.6, 2.6), [(-105, 20), (-750, 40), (-5, 5)]),
    "softplus": (softplus, (1.8, 1.8), [(-105, 20), (-750, 40), (-5, 5)]),
    "log_sigmoid": (lambda x: -softplus(-x), (1.8, 1.8), [(-20, 105), (-5, 5)]),
    "erf": (np.vectorize(math.erf, otypes=[float]), (1.4, 2.5), [(-1, 1), (-4, 4)]),
    "erfc": (np.vectorize(math.erfc, otypes=[float]), (3.5, 4), [(-1, 1), (-4, 10.5), (0, 27.5)]),
    "erfinv": (special.erfinv, (2.5, 6), [(-1, 1), (0.99, 1)]),
    "lgamma": (special.gammaln, (0.6, 8), [(0, 3), (0, 20)]),
    "digamma": (special.digamma, (0.6, 8), [(0, 1.4), (1.5, 20)]),
    "trigamma": (lambda x: special.polygamma(1, x), (0.6, 8), [(0, 3), (0, 20)]),
}
BY_DOUBLE = ("erf", "erfc", "erfinv", "lgamma", "digamma", "trigamma")  # the reference is itself some ulp away
POSITIVE = ("lgamma", "digamma", "trigamma")  # below 0 they have zeros, near which only the absolute error is small
SPECIAL = [0.0, 1.0, 2.0, 0.5, 3.0, np.inf, 1e-5, 1e-20, 1e-40, 1.4e-45, 1e-310, 5e-324, 1e30, 3.4e38, 1.7e308, 88.72,
           88.73, 103.9, 104.1, 709.7, 709.8, 745.1, 745.2, 10.0, 1000.0, np.pi, 1e22]  # fmt: skip
PRECISE = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant


def points(dtype: str, ranges, count: int = 8192) -> np.ndarray:
    """Numbers of all magnitudes, numbers within `ranges`, special ones; a multiple of 16 of them."""
    rng = np.random.default_rng(7)
    parts = [rng.integers(0, 2 ** dtypes.named(dtype).bits, count, dtype.replace("float", "uint")).view(dtype)]
    parts += [rng.uniform(a, b, count).astype(dtype) for a, b in ranges]
    with np.errstate(over="ignore"):
        parts.append(np.array([*SPECIAL, *(-s for s in SPECIAL), np.nan]).astype(dtype))
    x = np.concatenate(parts)
    return np.resize(x, -(-len(x) // 16) * 16)


def distance(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """In units of the last place of the dtype; 0 where both are the same infinity or NaN, huge where one is not."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        unit = np.ldexp(want.dtype.type(1), np.frexp(want)[1] - 1 - info.nmant)
        units = np.abs(got - want) / np.maximum(unit, want.dtype.type(info.smallest_subnormal))
        units = np.where(np.isfinite(units), units, 1e30).astype(np.float64)
        # an infinity where the largest number was due (or the other way) counts as one unit
        edge = np.isinf(rounded) & (np.abs(got) == info.max) | np.isinf(got) & (np.abs(rounded) == info.max)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(edge, 1, np.where(same & ~np.isfinite(rounded), 0, units))


def expansion(name: str, dtype: str, fma: bool = True):
    fn = scalar(name)
    arguments = [Local(f"x{i}", dtype) for i in range(fn.arity)]
    return compiled(Apply(fn, tuple(arguments)), arguments, 8 if dtype == "float32" else 4, fma)


def reference(f, dtype: str, *arrays: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return f(*(a.astype(np.float64 if dtype == "float32" else np.longdouble) for a in arrays))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_expansion_is_close_everywhere(name, dtype):
    """With products fused and not, and without a call of a library."""
    f, bounds, ranges = UNARY[name]
    x = points(dtype, ranges)
    x = np.abs(x) if name in POSITIVE else x
    bound = bounds[dtype == "float64"]
    if dtype == "float64" and name in BY_DOUBLE:
        with np.errstate(all="ignore"):
            want = f(x)
            # what the reference itself does not know: lgamma below 1e-300, and places near roots
            x = np.where((np.abs(x) < 1e-300) | (name in NEAR_ROOTS) & (np.abs(want) < 0.5), 3.0, x)
            want = f(x)
    else:
        want = reference(f, dtype, x)
        bound += 0 if dtype == "float32" or PRECISE else 1.5
    for fma in (True, False):
        run = expansion(name, dtype, fma)
        assert "call" not in run.assembly
        got = run(x)
        units = distance(got, want)
        worst = int(np.argmax(units))
        assert units[worst] <= bound, (fma, x[worst], got[worst], want[worst], units[worst])
        zero = (x == 0) & (want == 0) & (name not in BY_DOUBLE)
        assert (np.signbit(got) == np.signbit(want))[zero].all()


NEAR_ROOTS = {  # values by mpmath
    "lgamma": {
        0.9999999999999999: 6.408381213480008e-17, 1.0000000000000002: -1.2816762426960008e-16,
        1.0000305: -1.7604312690932794e-05, 0.97: 0.01806773312602201, 1.2499: -0.09824908508160847,
        1.2501: -0.09829457578872629, 2.0000000000000004: 1.8775396131086244e-16, 1.9: -0.03898427592308336,
    },
    "digamma": {
        1.4616321449683622: -9.241265521729427e-17, 1.4616321449683625: 1.2245374622004068e-16,
        1.4616: -3.110625123034165e-05, 1.4617: 6.56593922936765e-05, 1.45: -0.011316422586445888,
        1.47: 0.008066489011364869, 1.4: -0.06138454458511624, 1.5: 0.03648997397857652,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR_ROOTS)
def test_expansion_is_close_at_its_roots(name):
    x, want = np.array([*NEAR_ROOTS[name].items()]).T.copy()
    for fma in (True, False):
        assert (distance(expansion(name, "float64", fma)(x), want) <= 4).all()


def pairs(name: str, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(8)
    n = 4096
    wide = rng.normal(size=(2, n)) * np.exp(rng.uniform(-80, 80, (2, n)))
    sides = [wide, rng.normal(size=(2, n)) * 10, np.stack([1 + rng.normal(size=n) * 1e-3, rng.normal(size=n) * 1e4])]
    sides.append(np.stack([rng.normal(size=n) * 5, rng.integers(-9, 9, n)]))
    known = np.array([0.0, -0.0, 1, -1, 2, -2, 3, 0.5, -1.5, np.inf, -np.inf, np.nan, 1e-40, 3e38, -3e38, 7])
    sides.append(np.stack([a.ravel() for a in np.meshgrid(known, known)]))
    with np.errstate(all="ignore"):
        return [np.ascontiguousarray(a) for a in np.concatenate(sides, axis=1).astype(dtype)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "bound"), [("power", 1.5), ("arctan2", 2.1), ("hypot", 1.3)])
def test_expansion_of_two_is_close_everywhere(name, bound, dtype):
    x, y = pairs(name, dtype)
    want = reference(getattr(np, name), dtype, x, y)
    for fma in (True, False):
        run = expansion(name, dtype, fma)
        assert "call" not in run.assembly
        got = run(x, y)
        units = distance(got, want)
        worst = int(np.argmax(units))
        assert units[worst] <= bound, (fma, x[worst], y[worst], got[worst], want[worst])
        zero = (got == 0) & (want == 0)
        assert (np.signbit(got) == np.signbit(want))[zero].all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["mod", "floor_divide"])
def test_remainder_is_exact(name, dtype):
    x, y = pairs(name, dtype)
    want = scalar(name).numpy(x, y)
    for fma in (True, False):
        got = expansion(name, dtype, fma)(x, y)
        with np.errstate(all="ignore"):
            known = np.abs(x / y) < 2.0**100 if dtype == "float64" and name == "mod" else np.full(x.shape, True)
        known |= np.isnan(want) | ~np.isfinite(y)
        assert np.array_equal(got[known], want[known], equal_nan=True)
        assert np.isnan(got[~known]).all()  # not computed, and not silently wrong
        zero = (want == 0) & known
        assert (np.signbit(got) == np.signbit(want))[zero].all()


# x: sin and cos by mpmath with 2,500 bits. The first of each dtype is its number closest to a multiple of pi/2
# (Muller 2016, "Elementary Functions", chapter 11)
ANGLES = {
    "float64": {
        6381956970095103 * 2.0**797: (1.0, -4.687165924254628e-19),
        1e22: (-0.8522008497671888, 0.523214785395139),
        1.7976931348623157e308: (0.004961954789184062, -0.9999876894265599),
        3.141592653589793: (1.2246467991473532e-16, -1.0),
        -5e15: (0.901711760523585, -0.432337716297638),
    },
    "float32": {
        16367173 * 2.0**72: (1.0, -1.6147697982476211e-09),
        9.999999778196308e21: (-0.7340815352961015, 0.679061337095051),
        3.4028234663852886e38: (-0.5218765233336585, 0.8530210398303042),
    },
}


@pytest.mark.parametrize("dtype", ANGLES)
def test_angles_are_reduced_however_large(dtype):
    x = np.resize(np.array([*ANGLES[dtype]], dtype), 16)
    for k, name in enumerate(("sin", "cos")):
        want = np.array([ANGLES[dtype][float(v)][k] for v in x])
        for fma in (True, False):
            assert (distance(expansion(name, dtype, fma)(x), want) <= 1.5).all()


@pytest.mark.parametrize("name", UNARY)
def test_expansion_means_the_same_in_numpy(name):
    """The expression evaluated by the table's own meanings: what the compiler's checks rely on."""
    f, bounds, ranges = UNARY[name]
    x = np.concatenate([np.random.default_rng(9).uniform(a, b, 200) for a, b in ranges[-1:]]).astype(np.float32)
    argument = Local("x", "float32")
    got = value(expanded(name, argument), {"x": x})
    assert got.dtype == np.float32
    assert (distance(got, reference(f, "float32", x)) <= bounds[0] + 0.2).all()


# ---- integers


INTEGERS = ["int8", "uint8", "int32", "uint32", "int64", "uint64"]


def integers(dtype: str) -> list[np.ndarray]:
    """Every pair of the ends, small numbers and random ones."""
    info, rng = np.iinfo(dtype), np.random.default_rng(3)
    some = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 5, 7, 8, 31, 32, 63, 64, 100]
    some += [-v for v in (1, 2, 3, 7, 64) if info.min < 0]
    some += rng.integers(info.min, info.max, 11 if info.min < 0 else 16, dtype, endpoint=True).tolist()
    return [np.ascontiguousarray(g.ravel()) for g in np.meshgrid(*[np.array(some, dtype)] * 2)]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("lanes", [1, 8])
def test_integer_functions_are_exact(dtype, lanes):
    x, y = integers(dtype)
    signed = np.dtype(dtype).kind == "i"
    for name in ("floor_divide", "mod", "left_shift", "right_shift", "power"):
        a, b = Local("a", dtype), Local("b", dtype)
        got = compiled(Apply(scalar(name), (a, b)), [a, b], lanes)(x, y)
        assert np.array_equal(got, scalar(name).numpy(x, y)), name
    for name in ("abs", "sign", "negative", "square", "bitwise_not", "relu", "isfinite", "floor", "round"):
        a = Local("a", dtype)
        got = compiled(Apply(scalar(name), (a,)), [a], lanes)(x)
        assert np.array_equal(got, scalar(name).numpy(x)), name
    assert signed or np.array_equal(scalar("abs").numpy(x), x)


def test_integer_division_by_zero_is_zero():
    x = np.array([5, -5, 0, -128], np.int8)
    assert scalar("floor_divide").numpy(x, np.zeros(4, np.int8)).tolist() == [0, 0, 0, 0]
    assert scalar("mod").numpy(x, np.zeros(4, np.int8)).tolist() == [0, 0, 0, 0]
    assert scalar("floor_divide").numpy(x, np.full(4, -1, np.int8)).tolist() == [-5, 5, 0, -128]


def test_negative_powers_of_integers_are_cut():
    x = np.array([1, -1, -1, 2, 0, -3], np.int32)
    y = np.array([-5, -5, -4, -1, -2, 3], np.int32)
    assert scalar("power").numpy(x, y).tolist() == [1, -1, 1, 0, 0, -27]


# ---- spellings


FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.7, -3.7, 1e10, np.inf, -np.inf, np.nan]


def operands(name: str, dtype: str, arity: int) -> list[np.ndarray]:
    if dtype == "bool":
        values = np.array([False, True] * 8)
    elif np.dtype(dtype).kind == "f":
        values = np.array(FLOATS, dtype)
    else:
        return [*integers(dtype), integers(dtype)[0][::-1].copy()][:arity]
    grids = [np.ascontiguousarray(g.ravel()) for g in np.meshgrid(values, values)]
    return [*grids, np.roll(grids[0], 5)][:arity]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int32", "uint32", "int64", "bool"])
def test_llvm_spellings_mean_what_numpy_means(dtype):
    """Each row with a spelling for the dtype, on scalars and on vectors."""
    kind = dtypes.named(dtype).kind
    for name, fn in SCALAR.items():
        if kind not in fn.llvm:
            continue
        arrays = operands(name, dtype, fn.arity)
        if name in ("quotient", "remainder"):  # never meet these
            arrays[1] = np.where((arrays[1] == 0) | (arrays[1].astype(np.int64) == -1), 3, arrays[1]).astype(dtype)
        if name in ("shl", "shr"):
            arrays[1] = (arrays[1] & np.array(7, dtype)).astype(dtype)
        if name == "where":
            arrays[0] = arrays[0].astype(np.float64) > 0
        if name == "quotient":  # the meaning goes through float64
            arrays = [(a % 2**15).astype(dtype) if dtype.endswith("64") else a for a in arrays]
            arrays[1] = np.maximum(arrays[1], 1)
        want = fn.numpy(*arrays)
        arguments = [Local(f"x{i}", a.dtype.name) for i, a in enumerate(arrays)]
        root = Apply(fn, tuple(arguments))
        assert root.dtype == want.dtype
        for lanes in (1, 8):
            run = compiled(root, arguments, lanes)
            got = run(*arrays)
            assert np.array_equal(got, want, equal_nan=kind == "f"), (name, lanes)
            assert "call" not in run.assembly


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_without_an_instruction(dtype):
    x = np.concatenate([np.array(FLOATS), np.random.default_rng(1).normal(size=48) * 1e3]).astype(dtype)
    argument = Local("x", dtype)
    for name in ("floor", "ceil", "trunc", "round"):
        want = scalar(name).numpy(x)
        got = value(expanded(name, argument), {"x": x})
        assert np.array_equal(got, want, equal_nan=True)
        assert np.array_equal(np.signbit(got), np.signbit(want))


def test_every_row_can_be_rendered():
    """A spelling or an expansion, for LLVM and for CUDA; C++ literals of float32 end in f."""
    for name, fn in SCALAR.items():
        assert fn.llvm or fn.expand, name
        assert fn.cuda or fn.expand, name
        assert not re.search(r"\d\.\d+(?!\d*f)", fn.cuda.get("float32", "")), name


def test_meanings_keep_the_dtype_and_do_not_warn():
    for dtype in ("float16", "float32", "float64"):
        x = np.array([0, -1, 1, 0.5, np.inf, -np.inf, np.nan, 6e4], dtype)
        for name, fn in SCALAR.items():
            if fn.llvm.keys() & {"b", "i"} and "f" not in fn.llvm or name in ("left_shift", "right_shift", "mulhi"):
                continue
            arrays = [x, x[::-1].copy(), x][: fn.arity]
            if name == "where":
                arrays[0] = x > 0
            got = fn.numpy(*arrays)
            assert isinstance(got, np.ndarray)
            assert got.dtype == (dtype if fn.result == "same" else fn.result), name


def test_sign_and_maximum_keep_nan():
    x = np.array([np.nan, -0.0, 2.0, -3.0], np.float32)
    for name, want in (("sign", [np.nan, 0, 1, -1]), ("relu", [np.nan, 0, 2, 0])):
        argument = Local("x", "float32")
        got = value(expanded(name, argument), {"x": x})
        assert np.array_equal(got, np.array(want, np.float32), equal_nan=True)


def test_unknown_function_names_its_neighbours():
    with pytest.raises(ArgumentError, match="Unknown scalar function 'tahn'.*'tanh'"):
        scalar("tahn")


# ---- gradients


DOMAINS = {
    "log": (0.2, 3), "log1p": (-0.8, 3), "log2": (0.2, 3), "log10": (0.2, 3), "sqrt": (0.2, 3), "rsqrt": (0.2, 3),
    "arcsin": (-0.9, 0.9), "arccos": (-0.9, 0.9), "arccosh": (1.2, 3), "arctanh": (-0.9, 0.9), "erfinv": (-0.9, 0.9),
    "lgamma": (0.3, 5), "digamma": (0.3, 5), "reciprocal": (0.3, 2), "tan": (-1.2, 1.2), "power": (0.3, 2),
    "divide": (0.5, 2), "arctan2": (0.3, 2), "hypot": (0.3, 2), "mod": (1.05, 1.95),
}  # fmt: skip
NO_SLOPE = ("sign", "floor", "ceil", "trunc", "round", "floor_divide", "isnan", "isinf", "isfinite", "equal")


def slopes(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
    nodes = [Input(-1 - i, f"x{i}", a.dtype.name, a.shape)() for i, a in enumerate(arrays)]
    out = Elementwise(name)(*nodes)
    wrt = [n for n in nodes if n.dtype != "bool"]
    found = grad(build.sum(out, tuple(range(out.rank))), wrt, disconnected="zero")
    return [np.asarray(v) for v in evaluate_graph(found, dict(zip(nodes, arrays, strict=True)))]


DIFFERENTIABLE = [n for n, fn in SCALAR.items() if fn.grad is not None and n not in ("where", "trigamma")]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_is_the_slope(name):
    """Against central differences in float64."""
    low, high = DOMAINS.get(name, (-2, 2))
    rng = np.random.default_rng(4)
    arrays = [rng.uniform(low, high, 40) for _ in range(scalar(name).arity)]
    if name == "mod":
        arrays[0] += 4 * arrays[1] - 2
    step = 1e-6
    for k, got in enumerate(slopes(name, *arrays)):
        up, down = ([a + (s if i == k else 0) for i, a in enumerate(arrays)] for s in (step, -step))
        want = (scalar(name).numpy(*up) - scalar(name).numpy(*down)) / (2 * step)
        smooth = np.abs(want) < 50 if name == "mod" else np.full(want.shape, True)  # off the jumps
        assert np.allclose(got[smooth], want[smooth], rtol=1e-6, atol=1e-7)


def test_gradients_at_special_points():
    x = np.array([0.0, 0.0, 1.0, -1.0])
    assert slopes("relu", x)[0].tolist() == [0, 0, 1, 0]
    assert slopes("abs", x)[0].tolist() == [0, 0, 1, -1]
    y = np.array([0.0, 1.0, 1.0, -2.0])
    assert [g.tolist() for g in slopes("maximum", x, y)] == [[0.5, 0, 0.5, 1], [0.5, 1, 0.5, 0]]
    assert [g.tolist() for g in slopes("minimum", x, y)] == [[0.5, 1, 0.5, 0], [0.5, 0, 0.5, 1]]
    base, exponent = slopes("power", np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0, 0.0]))
    assert base.tolist() == [0, 1, 0, 0]
    assert np.allclose(exponent, [0, 0, 0, np.log(2)])
    assert [g.tolist() for g in slopes("hypot", np.zeros(1), np.zeros(1))] == [[0], [0]]
    with np.errstate(divide="ignore"):
        assert slopes("sqrt", np.zeros(1))[0].tolist() == [np.inf]
    a, b = slopes("where", np.array([True, False]), np.ones(2), np.ones(2))
    assert a.tolist() == [1, 0]
    assert b.tolist() == [0, 1]
    for name in NO_SLOPE:
        assert scalar(name).grad is None


# ---- Philox


def words(text: str) -> list[np.ndarray]:
    return [np.array(int(w, 16), np.uint32) for w in text.split()]


KNOWN = [  # Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize("counter, key, result", KNOWN)
def test_philox_gives_the_published_words(counter, key, result):
    assert [int(w) for w in philox_numpy(words(counter), words(key))] == [int(w) for w in words(result)]


def test_philox_is_the_same_as_expression():
    rng = np.random.default_rng(6)
    arrays = [rng.integers(0, 2**32, 64, np.uint32) for _ in range(6)]
    arguments = [Local(f"x{i}", "uint32") for i in range(6)]
    want = philox_numpy(arrays[:4], arrays[4:])
    got = philox_expr(*arguments)
    env = {a.name: v for a, v in zip(arguments, arrays, strict=True)}
    for w, e in zip(want, got, strict=True):
        assert np.array_equal(value(e, env), w)
        assert np.array_equal(compiled(e, arguments, 8)(*arrays), w)


def test_uniform_numbers_are_in_the_unit_interval_and_the_same_as_expression():
    high, low = (np.array([0, 255, 256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 12345, 0xDEADBEEF], np.uint32),) * 2
    a, b = Local("a", "uint32"), Local("b", "uint32")
    single, double = uniform32_numpy(high), uniform64_numpy(high, low)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert single.min() == double[0] == 0
    assert single.max() == 1 - 2.0**-24
    assert double.max() == 1 - 2.0**-53
    assert np.array_equal(compiled(uniform32_expr(a), [a], 8)(high), single)
    assert np.array_equal(compiled(uniform64_expr(a, b), [a, b], 8)(high, low), double)
