"""One row per op and per scalar function: what it is applied to, and an independent formula of what must come out.

The rows drive every check there is: the NumPy oracle against the formula, gradients and batching against the oracle,
compiled code of every target against the oracle. A test takes what it needs:

    for row in ROWS:
        for dtype in row.dtypes:
            inputs, outputs = row.build(dtype)
            for sizes in row.sizes:
                arrays = row.arrays(sizes, dtype, rng)
                expected = row.expected(arrays)
                row.check(got, expected, dtype, sizes)

Tolerances: `ulps` units in the last place of the result's dtype, and for sums as many times that as `length` numbers of
size 1 are added up (each addition may round once), because results near 0 keep the error of what was added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from scipy import special

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, TensorType
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import Cond, SubGraph, WithGradient, with_gradient
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.leaves import Array, Input, fresh_input
from gnomon.compiler.ops.order import Cumulate, Rank
from gnomon.compiler.ops.patches import FirstMax, Patches, Unpatch
from gnomon.compiler.ops.philox import philox_numpy
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.remat import After, Checkpoint
from gnomon.compiler.ops.rows import FirstEqual, WriteRows
from gnomon.compiler.ops.scalar import SCALAR
from gnomon.compiler.ops.scan import Delayed, Scan
from gnomon.compiler.ops.shape import Concat, Equate, Pad, Slice
from gnomon.compiler.sizes import Dim, evaluate, symbol

SIZES: tuple[Mapping[str, int], ...] = ({"n": 1, "m": 1}, {"n": 3, "m": 5}, {"n": 8, "m": 33})
n, m = symbol("n"), symbol("m")
FLOATS = ("float32", "float64")
INTEGERS = ("int32", "int64", "uint8")
_keys = count(1_000_000)  # no other leaf of a test has these


@dataclass(frozen=True)
class Arg:
    """An argument: its shape, and which numbers it takes. `dtype` '' is that of the row."""

    shape: tuple[Dim, ...]
    values: str | tuple[float, float] = "normal"
    dtype: str = ""
    below: Dim = 0  # for positions: they are smaller than this

    def array(self, sizes: Mapping[str, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
        shape = tuple(evaluate(d, sizes) for d in self.shape)
        numpy = dtypes.named(self.dtype or dtype).numpy
        if self.values == "positions":
            return rng.integers(0, evaluate(self.below, sizes), shape).astype(numpy)
        if self.values == "state":
            return rng.integers(0, 2**32, shape, dtype=np.uint64).astype(numpy)
        if numpy.kind == "b":
            return rng.integers(0, 2, shape).astype(numpy)
        if numpy.kind in "iu":
            low, high = self.values if isinstance(self.values, tuple) else ((-9, 10) if numpy.kind == "i" else (0, 10))
            drawn = rng.integers(int(low), int(high), shape)
            return np.where(drawn == 0, 1, drawn).astype(numpy) if self.values == "nonzero" else drawn.astype(numpy)
        if isinstance(self.values, tuple):
            return dtypes.rounded(self.dtype or dtype, rng.uniform(*self.values, shape))
        drawn = rng.standard_normal(shape)
        if self.values == "nonzero":
            drawn = np.copysign(np.abs(drawn) + 0.2, drawn)
        return dtypes.rounded(self.dtype or dtype, drawn)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    name        of the op or scalar function, with what is special after a space
    args        arguments
    make        nodes -> the result, or a list of results
    formula     arrays -> what NumPy or SciPy say it is; floats come as float64
    dtypes      of the arguments that have none of their own
    ulps, length   tolerance, see above
    smooth      whether gradients can be compared with finite differences
    guarded     a machine's operation that traps: kernels reach it through another one's guard only
    """

    name: str
    args: tuple[Arg, ...]
    make: Callable[..., Any]
    formula: Callable[..., Any]
    dtypes: tuple[str, ...] = FLOATS
    ulps: float = 4
    length: Dim = 1
    smooth: bool = True
    guarded: bool = False
    sizes: tuple[Mapping[str, int], ...] = field(default=SIZES)

    def build(self, dtype: str) -> tuple[list[Node], list[Node]]:
        """Inputs and outputs, new ones at each call."""
        inputs = [Input(next(_keys), f"x{k}", a.dtype or dtype, a.shape)() for k, a in enumerate(self.args)]
        made = self.make(*inputs)
        return inputs, made if isinstance(made, list) else [made]

    def arrays(self, sizes: Mapping[str, int], dtype: str, rng: np.random.Generator) -> list[np.ndarray]:
        return [a.array(sizes, dtype, rng) for a in self.args]

    def expected(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Values of the outputs by the formula."""
        wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        with np.errstate(all="ignore"):
            found = self.formula(*wide)
        return [np.asarray(v) for v in (found if isinstance(found, list) else [found])]

    def check(
        self,
        got: Sequence[Any],
        expected: Sequence[np.ndarray],
        dtype: str,
        sizes: Mapping[str, int],
        factor: float = 1,
    ) -> None:
        """Raises AssertionError if values are further apart than the row allows (`factor` times, for gradients)."""
        assert len(got) == len(expected), (self.name, len(got), len(expected))
        for k, (a, b) in enumerate(zip(got, expected, strict=True)):
            a = np.asarray(a)
            own = dtype if dtype == "bfloat16" and a.dtype == np.float32 else a.dtype.name  # NumPy does not have it
            a = dtypes.rounded(own, a)
            where = f"{self.name}, result {k}, {dtype}, {dict(sizes)}"
            assert a.shape == b.shape, (where, a.shape, b.shape)
            if a.dtype.kind != "f":
                np.testing.assert_array_equal(a, b.astype(a.dtype), err_msg=where)
                continue
            eps = dtypes.limits(own).eps * self.ulps * factor
            atol = eps * max(1, evaluate(self.length, sizes)) if self.length != 1 else eps * 0.25
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=eps, atol=atol, err_msg=where)

    def __repr__(self) -> str:
        return self.name


ROWS: list[Row] = []


def row(name: str, args: Sequence[Arg], make: Callable[..., Any], formula: Callable[..., Any], **options: Any) -> None:
    ROWS.append(Row(name, tuple(args), make, formula, **options))


def scalar(name: str, formula: Callable[..., Any], *values: Any, **options: Any) -> None:
    """The row of a scalar function of as many arguments as it has, with the numbers each takes."""
    arity = SCALAR[name].arity
    given = values or ("normal",) * arity
    args = [Arg((n, m), v) if isinstance(v, (str, tuple)) else v for v in given]
    row(name, args, Elementwise(name), formula, **options)


# ---- scalar functions

ANY = (*FLOATS, *INTEGERS)
truth = Arg((n, m), dtype="bool")

HALVES = ("float16", "bfloat16")
scalar("add", lambda x, y: x + y, dtypes=(*ANY, *HALVES))
scalar("subtract", lambda x, y: x - y, dtypes=ANY)
scalar("multiply", lambda x, y: x * y, dtypes=ANY)
scalar("divide", lambda x, y: x / y, "normal", "nonzero")
scalar("fma", lambda x, y, z: x * y + z, dtypes=(*FLOATS, "int32"))
scalar("floor_divide", lambda x, y: x // y, "normal", "nonzero", dtypes=ANY, smooth=False)
scalar("mod", lambda x, y: x % y, "normal", "nonzero", dtypes=ANY, smooth=False, ulps=8)
scalar("quotient", lambda x, y: np.trunc(x / y), "normal", "nonzero", dtypes=INTEGERS, smooth=False,
       guarded=True)
scalar("remainder", np.fmod, "normal", "nonzero", dtypes=INTEGERS, smooth=False,
       guarded=True)
scalar("negative", lambda x: -x, dtypes=(*FLOATS, "int32", "int64"))
scalar("abs", np.abs, "nonzero", dtypes=(*FLOATS, "int32", "int64"))
scalar("sign", np.sign, "nonzero", dtypes=(*FLOATS, "int32"))
scalar("copysign", np.copysign, "nonzero", "nonzero")
scalar("reciprocal", lambda x: 1 / x, "nonzero")
scalar("square", lambda x: x * x, dtypes=ANY)
scalar("sqrt", np.sqrt, (0.1, 9.0))
scalar("rsqrt", lambda x: x**-0.5, (0.1, 9.0))
scalar("hypot", np.hypot)
scalar("mulhi", lambda x, y: (x.astype(object) * y.astype(object)) >> 32, "state", "state", dtypes=("uint32",),
       smooth=False)
scalar("floor", np.floor, smooth=False)
scalar("ceil", np.ceil, smooth=False)
scalar("trunc", np.trunc, smooth=False)
scalar("round", np.round, smooth=False)
for name, function in {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal,
}.items():  # fmt: skip
    scalar(name, function, dtypes=(*ANY, "bool"), smooth=False)
scalar("maximum", np.maximum, dtypes=(*ANY, "bool"))
scalar("minimum", np.minimum, dtypes=(*ANY, "bool"))
scalar("relu", lambda x: np.where(x > 0, x, 0), dtypes=(*FLOATS, "int32"))
scalar("where", lambda c, x, y: np.choose(c, [y, x]), truth, "normal", "normal", dtypes=(*ANY, "bool"))
for name, function in {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite}.items():
    row(
        name, [Arg((n, m))], lambda x, name=name: Elementwise(name)(build.divide(build.trunc(x), build.trunc(x))),
        lambda x, function=function: function(np.trunc(x) / np.trunc(x)), smooth=False,
    )  # fmt: skip
scalar("logical_and", lambda x, y: x & y, dtypes=("bool",), smooth=False)
scalar("logical_or", lambda x, y: x | y, dtypes=("bool",), smooth=False)
scalar("logical_xor", lambda x, y: x ^ y, dtypes=("bool",), smooth=False)
scalar("logical_not", lambda x: ~x, dtypes=("bool",), smooth=False)
scalar("bitwise_and", lambda x, y: x & y, dtypes=(*INTEGERS, "bool"), smooth=False)
scalar("bitwise_or", lambda x, y: x | y, dtypes=(*INTEGERS, "bool"), smooth=False)
scalar("bitwise_xor", lambda x, y: x ^ y, dtypes=(*INTEGERS, "bool"), smooth=False)
scalar("bitwise_not", lambda x: ~x, dtypes=(*INTEGERS, "bool"), smooth=False)
scalar("left_shift", lambda x, y: x * 2**y, (0, 8), (0, 4), dtypes=("int32", "int64", "uint8"), smooth=False)
scalar("right_shift", lambda x, y: x // 2**y, (-50, 50), (0, 6), dtypes=("int32", "int64"), smooth=False)
scalar("shl", lambda x, y: x * 2**y, (0, 8), (0, 4), dtypes=("int32", "uint32"), smooth=False)
scalar("shr", lambda x, y: x // 2**y, (-50, 50), (0, 6), dtypes=("int32", "int64"), smooth=False)
scalar("exp", lambda x: np.e**x, ulps=8, dtypes=(*FLOATS, *HALVES))
scalar("exp2", lambda x: 2**x)
scalar("expm1", lambda x: 2 * np.exp(x / 2) * np.sinh(x / 2))
scalar("log", lambda x: np.log2(x) * np.log(2), (0.1, 9.0))
scalar("log1p", lambda x: 2 * np.arctanh(x / (2 + x)), (-0.8, 5.0))
scalar("log2", lambda x: np.log(x) / np.log(2), (0.1, 9.0))
scalar("log10", lambda x: np.log(x) / np.log(10), (0.1, 9.0))
scalar("power", lambda x, y: np.exp(y * np.log(x)), (0.2, 4.0), "normal", ulps=16)
scalar("sigmoid", special.expit)
scalar("softplus", lambda x: -special.log_expit(-x))
scalar("log_sigmoid", special.log_expit)
scalar("sin", lambda x: np.imag(np.exp(1j * x)))
scalar("cos", lambda x: np.real(np.exp(1j * x)))
scalar("tan", lambda x: np.sin(x) / np.cos(x), (-1.3, 1.3))
scalar("arcsin", lambda x: np.arctan2(x, np.sqrt((1 - x) * (1 + x))), (-0.95, 0.95))
scalar("arccos", lambda x: np.arctan2(np.sqrt((1 - x) * (1 + x)), x), (-0.95, 0.95))
scalar("arctan", lambda x: np.angle(1 + 1j * x))
scalar("arctan2", lambda y, x: np.angle(x + 1j * y), "nonzero", "nonzero")
scalar("sinh", lambda x: (np.expm1(x) + np.expm1(x) / np.exp(x)) / 2)
scalar("cosh", lambda x: (np.exp(x) + np.exp(-x)) / 2)
scalar("tanh", lambda x: np.expm1(2 * x) / (np.expm1(2 * x) + 2))
scalar("arcsinh", lambda x: np.sign(x) * np.log(np.abs(x) + np.sqrt(x * x + 1)), "nonzero")
scalar("arccosh", lambda x: np.log(x + np.sqrt(x * x - 1)), (1.2, 5.0), ulps=8)
scalar("arctanh", lambda x: (np.log1p(x) - np.log1p(-x)) / 2, (-0.9, 0.9))
scalar("erf", special.erf)
scalar("erfc", special.erfc, ulps=8)
scalar("erfinv", special.erfinv, (-0.99, 0.99), ulps=8)
scalar("lgamma", special.gammaln, (0.1, 6.0), ulps=16)
scalar("digamma", special.digamma, (0.1, 6.0), ulps=16)
scalar("trigamma", lambda x: special.polygamma(1, x), (0.1, 6.0), ulps=16, smooth=False)

# ---- casts and constants


def cast_row(source: str, target: str, values: Any = "normal") -> None:
    def formula(x: np.ndarray) -> np.ndarray:
        if target == "bfloat16":  # 8 binary digits, half-way cases to even ones
            fraction, exponent = np.frexp(x)
            return np.ldexp(np.round(fraction * 256), exponent - 8)
        return x != 0 if target == "bool" else x.astype(target)

    row(f"Cast {source} to {target}", [Arg((n, m), values, source)], Cast(target), formula, dtypes=("float32",),
        smooth=False)


for source, target in (
    ("float32", "float64"), ("float64", "float32"), ("float32", "float16"), ("float32", "int32"), ("float64", "int64"),
    ("float32", "bool"), ("int32", "float32"), ("int64", "float64"), ("int32", "int64"), ("int64", "int32"),
    ("bool", "float32"), ("bool", "int32"), ("uint8", "float32"), ("int32", "bool"), ("float32", "bfloat16"),
    ("bfloat16", "float32"), ("bfloat16", "int32"), ("bool", "bfloat16"),
):  # fmt: skip
    cast_row(source, target)
cast_row("float32", "uint8", values=(0.0, 200.0))

row("Cast saturates", [Arg((n, m), (-1e12, 1e12), "float32")], Cast("int32"),
    lambda x: np.clip(np.trunc(x), -(2.0**31), 2.0**31 - 1).astype(np.int64), dtypes=("float32",), smooth=False)
row("Literal", [Arg((n, m))], lambda x: build.add(x, build.constant(0.75, x.dtype)), lambda x: x + 0.75)
row("Array", [Arg((n, 4))], lambda x: build.multiply(x, Array(x.dtype, (4,), np.arange(4, dtype=x.dtype).tobytes())()),
    lambda x: x * np.array([0, 1, 2, 3]))
row("SizeValue", [Arg((n, m))], lambda x: build.divide(x, build.size(n * m + 1, x.dtype)), lambda x: x / (x.size + 1))
row("Iota", [Arg((n, m))], lambda x: [build.add(x, build.iota((n, m), 1, x.dtype)), build.iota((n, 3), 0, "int64")],
    lambda x: [x + np.arange(x.shape[1]), np.arange(len(x))[:, None] + np.zeros((1, 3), int)])
row("StopGradient", [Arg((n, m))], lambda x: build.stop_gradient(build.exp(x)), np.exp, smooth=False, ulps=8)

# ---- moving elements

SHAPED = (*FLOATS, "int32", "bool", "bfloat16")
row("Broadcast rows", [Arg((m,)), Arg((n, m))], lambda x, y: build.maximum(build.broadcast(x, (n, m), [1]), y),
    lambda x, y: np.array([np.maximum(x, r) for r in y]), dtypes=SHAPED)
row("Broadcast between", [Arg((n, m))], lambda x: build.broadcast(x, (n, 3, m), [0, 2]),
    lambda x: np.repeat(x[:, None], 3, 1), dtypes=SHAPED)
row("Broadcast transposes", [Arg((n, m))], lambda x: build.broadcast(x, (m, 2, n), [2, 0]),
    lambda x: np.repeat(x.T[:, None], 2, 1), dtypes=SHAPED)
row("Equate", [Arg((n, m)), Arg((n, symbol("k")))], lambda x, y: build.add(x, Equate((n, m))(y)), lambda x, y: x + y,
    sizes=tuple({**s, "k": s["m"]} for s in SIZES))
row("Reshape merges", [Arg((n, m, 3))], lambda x: build.reshape(x, (n * m, 3)), lambda x: x.reshape(-1, 3),
    dtypes=SHAPED)
row("Reshape splits", [Arg((n * 6, m)), Arg((n, 2, 3, m))],
    lambda x, y: build.maximum(build.reshape(x, (n, 2, 3, m)), y),
    lambda x, y: np.maximum(x.reshape(-1, 2, 3, x.shape[1]), y), dtypes=SHAPED)
row("Reshape across", [Arg((n, 6, m))], lambda x: build.reshape(x, (n * 2, 3 * m)),
    lambda x: x.reshape(x.shape[0] * 2, -1), dtypes=SHAPED)
row("Transpose", [Arg((n, m, 4))], lambda x: build.transpose(x, [2, 0, 1]), lambda x: np.moveaxis(x, 2, 0),
    dtypes=SHAPED)
row("Slice", [Arg((n, m))], lambda x: Slice((1, 0), (n - 1, m), (1, 1))(x), lambda x: x[1:], dtypes=SHAPED)
row("Slice strided", [Arg((n, m))], lambda x: Slice((0, 0), (n, build.strided_size(m, 0, m, 2)), (1, 2))(x),
    lambda x: x[:, ::2], dtypes=SHAPED)
row("Slice backwards", [Arg((n, m))], lambda x: build.flip(x, [0, 1]), lambda x: x[::-1, ::-1], dtypes=SHAPED)
row("Pad", [Arg((n, m))], lambda x: build.pad(x, (1, 0), (2, 3)), lambda x: np.pad(x, ((1, 2), (0, 3))), dtypes=SHAPED)


def padded_between(x: np.ndarray, value: Any) -> np.ndarray:
    out = np.full((3 * x.shape[0] - 2 + 1, x.shape[1] + 1), value)
    out[1::3, :-1] = x
    return out


row("Pad between", [Arg((n, m)), Arg(())], Pad((1, 0), (0, 1), (2, 0)), padded_between, length=n * m + 8)
row("Concat", [Arg((n, m)), Arg((n, 3)), Arg((n, 2 * m))], Concat(1), lambda *x: np.concatenate(x, 1), dtypes=SHAPED)

# ---- sums and products

COUNTED = (*FLOATS, "int32", "int64", *HALVES)
row("Reduce sum", [Arg((n, m))], Reduce("sum", (1,)), lambda x: np.array([sum(r) for r in x]),
    dtypes=COUNTED, length=m)
row("Reduce sum of columns", [Arg((n, m))], Reduce("sum", (0,)), lambda x: x.T.sum(1), dtypes=COUNTED, length=n)
row("Reduce sum of all", [Arg((n, m))], Reduce("sum", (0, 1)), lambda x: x.ravel().sum(), dtypes=COUNTED, length=n * m)
row("Reduce sum between", [Arg((n, m, 4))], Reduce("sum", (1,)), lambda x: np.einsum("abc->ac", x),
    length=m)
row("Reduce prod", [Arg((n, m), (0.5, 1.5))], Reduce("prod", (1,)),
    lambda x: np.multiply.accumulate(x, 1)[:, -1], dtypes=(*FLOATS, "int32"), ulps=40)
row("Reduce max", [Arg((n, m))], Reduce("max", (1,)), lambda x: np.sort(x, 1)[:, -1],
    dtypes=(*FLOATS, *INTEGERS))
row("Reduce min", [Arg((n, m))], Reduce("min", (0,)), lambda x: np.sort(x, 0)[0],
    dtypes=(*FLOATS, *INTEGERS))
row("Reduce any", [Arg((n, m))], Reduce("any", (1,)), lambda x: x.sum(1) > 0, dtypes=("bool",), smooth=False)
row("Reduce all", [Arg((n, m))], Reduce("all", (0, 1)), lambda x: x.sum() == x.size, dtypes=("bool",), smooth=False)


def contract(name: str, x: Arg, w: Arg, op: Contract, text: str, length: Dim, **options: Any) -> None:
    def formula(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.einsum(text, x, w, optimize=False)

    row(f"Contract {name}", [x, w], op, formula, length=length, **options)


contract("rows by columns", Arg((n, m)), Arg((m, 7)), Contract((0, 1), (1, 2), (0, 2)), "ab,bc->ac", m,
         dtypes=(*FLOATS, "int32", *HALVES))
contract("first transposed", Arg((m, n)), Arg((m, 7)), Contract((1, 0), (1, 2), (0, 2)), "ba,bc->ac", m)
contract("second transposed", Arg((n, m)), Arg((9, m)), Contract((0, 1), (2, 1), (0, 2)), "ab,cb->ac", m)
contract("batches", Arg((3, n, m)), Arg((3, m, 5)), Contract((0, 1, 2), (0, 2, 3), (0, 1, 3)), "zab,zbc->zac", m)
contract("of vectors", Arg((m,)), Arg((m,)), Contract((0,), (0,), ()), "a,a->", m)
contract("outer", Arg((n,)), Arg((m,)), Contract((0,), (1,), (0, 1)), "a,b->ab", 1)
contract("two axes", Arg((n, m, 3)), Arg((m, 3, 4)), Contract((0, 1, 2), (1, 2, 3), (0, 3)), "abc,bcd->ad", 3 * m)
contract("an axis of its own", Arg((n, m)), Arg((m, 3)), Contract((0, 1), (1, 2), (0,)), "ab,bc->a", 3 * m)
contract("of bools", Arg((n, m)), Arg((m, 4)), Contract((0, 1), (1, 2), (0, 2)), "ab,bc->ac", 1, dtypes=("bool",),
         smooth=False)

# ---- positions


def along(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.array([[x[i, j] for j in at[i]] for i in range(len(at))])


def added(at: np.ndarray, updates: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, *updates.shape[1:]))
    for i, u in zip(at, updates, strict=True):
        out[i] += u
    return out


def added_along(at: np.ndarray, updates: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((len(updates), size))
    for i, j in np.ndindex(*updates.shape):
        out[i, at[i, j]] += updates[i, j]
    return out


def first_equal(at: np.ndarray) -> np.ndarray:
    return np.array([list(at).index(i) for i in at], np.int32)


def first_of_each(at: Node, size: Dim, shift: int = 0) -> Node:
    """The positions, -1 in place of those that have come before."""
    own = build.apply("equal", FirstEqual(size + 2 * shift)(build.add(at, shift)), build.iota(at.shape, 0))
    return build.where(own, at, build.full_like(at, -1))


def written(x: np.ndarray, at: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = x.copy()
    for place, row in reversed(list(zip(at, rows, strict=True))):
        if 0 <= place < len(x):
            out[place] = row
    return out


def places(shape: tuple[Dim, ...], below: Dim, dtype: str = "int32") -> Arg:
    return Arg(shape, "positions", dtype, below)


row("Gather rows", [Arg((n, m)), places((4,), n)], lambda x, i: build.gather(x, i, 0), lambda x, i: x[i], dtypes=SHAPED)
row("Gather of an inner axis", [Arg((2, n, m)), places((2, 3), n, "int64")], lambda x, i: build.gather(x, i, 1),
    lambda x, i: x[:, i], dtypes=SHAPED)
row("Gather one", [Arg((n, m)), places((), m)], lambda x, i: build.gather(x, i, 1), lambda x, i: x[:, i], dtypes=SHAPED)
row("Gather clamps", [Arg((n,)), Arg((4,), (-40, 40), "int32")], lambda x, i: build.gather(x, i, 0),
    lambda x, i: x[np.clip(i, 0, len(x) - 1)])
row("ScatterAdd", [places((n,), 5), Arg((n, m))], lambda i, u: build.scatter_add(i, u, 5),
    lambda i, u: added(i, u, 5), length=n)
row("ScatterAdd to an inner axis", [places((m,), 4), Arg((n, m))], lambda i, u: build.scatter_add(i, u, 4, 1),
    lambda i, u: added(i, u.T, 4).T, length=m)
row("GatherAlong", [Arg((n, m)), places((n, 3), m)], lambda x, i: build.gather_along(x, i, 1), along, dtypes=SHAPED)
row("ScatterAlong", [places((n, m), 6), Arg((n, m))], lambda i, u: build.scatter_along(i, u, 6, 1),
    lambda i, u: added_along(i, u, 6), length=m)
row("ScatterAlong one", [places((n, 1), m), Arg((n, 1)), Arg((n, m))],
    lambda i, u, x: build.add(build.scatter_along(i, u, m, 1), x),
    lambda i, u, x: x + (i == np.arange(x.shape[1])) * u)

row("FirstEqual", [places((n,), 7)], FirstEqual(7), first_equal, dtypes=("float32",))
row("FirstEqual clamps", [Arg((m,), (-9, 9), "int64")], FirstEqual(5), lambda i: first_equal(np.clip(i, 0, 4)),
    dtypes=("float32",))
row("WriteRows", [Arg((n, m)), places((6,), n), Arg((6, m))], lambda x, i, r: WriteRows()(x, first_of_each(i, n), r),
    written, dtypes=SHAPED)
row("WriteRows of numbers", [Arg((n,)), Arg((4,), (-9, 9), "int64"), Arg((4,))],
    lambda x, i, r: WriteRows()(x, first_of_each(i, n, 9), r), written, dtypes=SHAPED)

# ---- windows


LONGER = tuple({k: v + 4 for k, v in s.items()} for s in SIZES)


def windows(x: np.ndarray, window: int, stride: int, dilation: int, axis: int = 1) -> np.ndarray:
    """By definition, along one axis: the windows follow it."""
    x = np.moveaxis(x, axis, 0)
    count = (len(x) - dilation * (window - 1) - 1) // stride + 1
    taken = [[x[o * stride + k * dilation] for k in range(window)] for o in range(count)]
    return np.moveaxis(np.array(taken), (0, 1), (axis, axis + 1))


def overlapped(x: np.ndarray, size: int, stride: int, dilation: int) -> np.ndarray:
    """By definition, along the second axis."""
    out = np.zeros((x.shape[0], size, *x.shape[3:]))
    for o, k in np.ndindex(*x.shape[1:3]):
        out[:, o * stride + k * dilation] += x[:, o, k]
    return out


for window, stride, dilation in (
    (1, 1, 1), (3, 1, 1), (3, 2, 1), (2, 2, 1), (2, 3, 1), (2, 1, 3), (3, 2, 2), (2, 2, 3), (2, 4, 2), (1, 3, 1),
):  # fmt: skip
    form = (window, stride, dilation)
    row(f"Patches of {window} by {stride} and {dilation}", [Arg((n, m, 2))],
        lambda x, f=form: Patches(1, (f[0],), (f[1],), (f[2],))(x), lambda x, f=form: windows(x, *f),
        dtypes=SHAPED if form == (3, 2, 1) else FLOATS, sizes=LONGER)
    held = (m - dilation * (window - 1) - 1) // stride + 1
    row(f"Unpatch of {window} by {stride} and {dilation}", [Arg((n, held, window, 2)), Arg((n, m, 2))],
        lambda x, y, f=form: build.add(Unpatch(1, (m,), (f[1],), (f[2],))(x), y),
        lambda x, y, f=form: overlapped(x, y.shape[1], f[1], f[2]) + y, dtypes=(*FLOATS, "int32"), length=window,
        sizes=LONGER)

row("Patches of two axes", [Arg((2, n, m))], Patches(1, (3, 2), (1, 2), (1, 2)),
    lambda x: np.moveaxis(windows(windows(x, 2, 2, 2, 2), 3, 1, 1, 1), 2, 3), dtypes=SHAPED,
    sizes=LONGER)


def overlapped_twice(x: np.ndarray) -> np.ndarray:
    rows = overlapped(np.moveaxis(x, 3, 2), x.shape[1] + 2, 1, 1)
    return overlapped(rows.reshape(-1, 4, 2), 9, 2, 2).reshape(*rows.shape[:2], 9)


row("Unpatch of two axes", [Arg((2, n - 2, 4, 3, 2)), Arg((n,))],
    lambda x, y: build.add(Unpatch(1, (n, 9), (1, 2), (1, 2))(x), build.reshape(y, (n, 1))),
    lambda x, y: overlapped_twice(x) + y[:, None], length=6, sizes=LONGER)
row("FirstMax", [Arg((n, 3, m, 2))], FirstMax((1, 3)), lambda x: np.sort(x, 1)[:, -1].max(-1),
    dtypes=(*FLOATS, "int32"))

# ---- order


def ranked(x: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(x, 1, kind="stable"), 1)


def ranked_downwards(x: np.ndarray) -> np.ndarray:
    return np.array([[sum(b > a or (b == a and j < i) for j, b in enumerate(r)) for i, a in enumerate(r)] for r in x])


row("Rank", [Arg((n, m))], Rank(1), ranked, dtypes=(*FLOATS, "int32", "uint8"), smooth=False)
row("Rank descending", [Arg((n, m))], Rank(1, True), ranked_downwards, dtypes=(*FLOATS, "int32"), smooth=False)
row("Rank of columns", [Arg((n, m))], Rank(0), lambda x: ranked(x.T).T, dtypes=("float32", "int64"), smooth=False)
row("Cumulate sum", [Arg((n, m))], Cumulate("sum", 1),
    lambda x: np.einsum("ij,kj->ik", x, np.tri(x.shape[1]).astype(x.dtype)), dtypes=(*FLOATS, "int32"), length=m)
row("Cumulate sum backwards", [Arg((n, m))], Cumulate("sum", 0, True), lambda x: x[::-1].cumsum(0)[::-1], length=n)
row("Cumulate prod", [Arg((n, m), (0.5, 1.5))], Cumulate("prod", 1), lambda x: np.multiply.accumulate(x, 1),
    dtypes=(*FLOATS, "int32"), ulps=40)

# ---- random bits


def bits(state: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Element n of the draw is word n div 16 mod 4 of Philox at the counter (16 (n div 64) + n mod 16, 0, draw)."""
    counters = ((16 * (n // 64) + n % 16, 0, *state[2:]) for n in range(x.size))
    words = [philox_numpy(c, state[:2])[n // 16 % 4] for n, c in enumerate(counters)]
    return np.array(words, np.uint32).reshape(x.shape) ^ x


row("RandomBits", [Arg((4,), "state", "uint32"), Arg((n, m), "state", "uint32")],
    lambda s, x: build.bitwise_xor(build.random_bits(s, (n, m)), x), bits, dtypes=("uint32",), smooth=False)
row("RandomBits few", [Arg((4,), "state", "uint32"), Arg((3, 37), "state", "uint32")],
    lambda s, x: build.bitwise_xor(build.random_bits(s, (3, 37)), x), bits, dtypes=("uint32",), smooth=False)

# ---- control


def conditional(above: Node, x: Node, y: Node) -> list[Node]:
    a, b, c, d = (fresh_input("operand", v.type) for v in (x, y, x, y))
    then = SubGraph((a, b), (build.multiply(build.sin(a), b), build.sum(a)))
    orelse = SubGraph((c, d), (build.add(c, d), build.sum(build.square(d))))
    whole = Cond(then, orelse)(build.greater(above, 0.0), x, y)
    return [Item(0)(whole), Item(1)(whole)]


def chosen(above: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    return [np.sin(x) * y, x.sum()] if above > 0 else [x + y, (y * y).sum()]


row("Cond", [Arg((), "nonzero"), Arg((n, m)), Arg((n, m))], conditional, chosen, ulps=8, length=n * m)


def recurrence(op: Callable[..., Scan], *inputs: Node) -> list[Node]:
    """h = tanh(x * w + h), y = h * (t + 1): over x, from h, with w."""
    first, xs, w = inputs
    t, h, x, u = (fresh_input(n, v) for n, v in
                  (("t", TensorType("int64", ())), ("h", first.type), ("x", TensorType(xs.dtype, xs.shape[1:])),
                   ("w", w.type)))  # fmt: skip
    new = build.tanh(build.add(build.multiply(x, u), h))
    row = build.multiply(new, build.cast(build.add(t, 1), xs.dtype))
    whole = op(SubGraph((t, h, x, u), (new, row)))(first, xs, w)
    return [Item(0)(whole), Item(1)(whole)]


def recurrent(first: np.ndarray, xs: np.ndarray, w: np.ndarray, down: bool = False) -> list[np.ndarray]:
    h, rows = first, np.zeros(xs.shape)
    for t in sorted(range(len(xs)), reverse=down):
        h = np.tanh(xs[t] * w + h)
        rows[t] = h * (t + 1)
    return [h, rows]


LOOPED = tuple({**s, "k": k} for s, k in zip(SIZES, (4, 1, 7), strict=True))
row("Scan", [Arg((n, m)), Arg((symbol("k"), n, m)), Arg((n, m))],
    lambda *x: recurrence(lambda body: Scan(body, symbol("k"), 1, 1), *x), recurrent, sizes=LOOPED, ulps=32)
row("Scan backwards", [Arg((n, m)), Arg((symbol("k"), n, m)), Arg((n, m))],
    lambda *x: recurrence(lambda body: Scan(body, symbol("k"), 1, 1, True), *x),
    lambda *x: recurrent(*x, down=True), sizes=LOOPED, ulps=32)
row("Delayed", [Arg((m,)), Arg((n, m))], Delayed(), lambda first, rows: np.concatenate([first[None], rows[:-1]]),
    dtypes=SHAPED)
row("Delayed backwards", [Arg((m,)), Arg((n, m))], Delayed(True),
    lambda first, rows: np.concatenate([rows[1:], first[None]]), dtypes=SHAPED)


def _twice(g: Node) -> list[Node | None]:
    return [build.multiply(g, 2.0)]


row("WithGradient", [Arg((n, m))], lambda x: WithGradient(_twice)(x, build.multiply(x, 2.0)), lambda x: 2 * x)
row("GivenGradient", [Arg((n, m)), Arg((n, m))],
    lambda x, y: with_gradient(build.multiply(x, y), [x, y], lambda g: [build.multiply(g, y), build.multiply(g, x)]),
    lambda x, y: x * y)


def _made_again(x: Node, w: Node) -> list[Node]:
    a, b = fresh_input("a", x.type), fresh_input("b", w.type)
    hidden = build.tanh(build.multiply(a, b))
    body = SubGraph((a, b), (build.multiply(hidden, hidden), build.sin(build.add(hidden, b))))
    whole = Checkpoint(body, 1)(x, w)
    return [Item(0)(whole), Item(1)(whole)]


row("Checkpoint", [Arg((n, m)), Arg((n, m))], _made_again,
    lambda x, w: [np.tanh(x * w) ** 2, np.sin(np.tanh(x * w) + w)], ulps=16)
row("After", [Arg((n, m)), Arg((n,))], lambda x, y: build.exp(After()(build.sin(x), build.reduce("sum", y, [0]))),
    lambda x, y: np.exp(np.sin(x)), ulps=8)


def names(rows: Sequence[Row] = tuple(ROWS)) -> list[str]:
    """For the ids of a parametrised test."""
    return [r.name.replace(" ", "_") for r in rows]


def generator(row: Row) -> np.random.Generator:
    """A generator of its own for each row, so that a new row changes no other's numbers."""
    return np.random.default_rng(list(row.name.encode()))


__all__ = ["ROWS", "SIZES", "Arg", "Row", "generator", "names"]
