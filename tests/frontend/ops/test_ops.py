"""Every function of `gnomon.ops` against NumPy or SciPy: at once on arrays, and compiled with open sizes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest
from scipy import special

from gnomon import function, ops
from gnomon.compiler.errors import ArgumentError, GnomonError, ShapeError
from gnomon.tensor import Tensor, as_dims, new_input
from tests.recorded.load import load

rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def u(low: float, high: float, *shape: int) -> np.ndarray:
    return rng.uniform(low, high, shape).astype(np.float32)


def i(high: int, *shape: int, low: int = 0) -> np.ndarray:
    return rng.integers(low, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """`ops.<name>(*args, **options)` is `reference(*args, **options)`; arrays among `args` become inputs."""

    name: str
    args: tuple[Any, ...]
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    open: bool = True  # whether sizes may be open in the compiled form

    def __repr__(self) -> str:
        return self.name


CASES: list[Case] = []


def case(name: str, *args: Any, ref: Callable[..., Any] | None = None, open: bool = True, **options: Any) -> None:
    CASES.append(Case(name, args, ref or getattr(np, name), options, open))


X, Y, V, P = f(3, 5), f(3, 5), f(5), u(0.1, 3.0, 3, 5)
I, J = i(9, 3, 5, low=-9), i(6, 3, 5, low=1)
B = X > 0
Z = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5], np.float32)
NANS = np.where(X > 0.8, np.nan, X).astype(np.float32)

# ---- elementwise

for name in """abs absolute fabs arcsinh arctan ceil cos cosh exp exp2 expm1 floor isfinite isinf isnan negative
    reciprocal sign signbit sin sinc sinh square tanh trunc round deg2rad rad2deg angle conj conjugate real imag
    isreal copy isposinf isneginf logical_not nan_to_num cbrt""".split():
    case(name, X)
for name in "log log10 log1p log2 sqrt arccosh".split():
    case(name, P + 1)
for name in "arcsin arccos arctanh".split():
    case(name, u(-0.9, 0.9, 3, 5))
for name in "isfinite isinf isnan isposinf isneginf nan_to_num signbit".split():
    case(name, Z)
for name in """add subtract multiply divide true_divide maximum minimum arctan2 hypot logaddexp logaddexp2 fmax
    fmin""".split():
    case(name, X, V)
for name in "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor".split():
    case(name, I, J)
for name in "floor_divide mod fmod power add subtract multiply maximum bitwise_and bitwise_or bitwise_xor".split():
    case(name, I, J)
case("floor_divide", X, P)
case("mod", X, P)
case("fmod", X, P)
case("power", P, X)
case("fmax", Z, np.float32(2))
case("fmin", Z, np.float32(2))
case("add", X, 1.5)
case("add", I, 2, ref=lambda x, y: (x + y).astype(np.int32))
case("bitwise_not", I, ref=np.invert)
case("bitwise_invert", I, ref=np.invert)
case("left_shift", J, J)
case("bitwise_left_shift", J, J, ref=np.left_shift)
case("right_shift", I, J)
case("bitwise_right_shift", I, J, ref=np.right_shift)
case("heaviside", np.where(X > 1, 0, X), V)
case("ldexp", X, J)
case("clip", X, -0.5, 0.5)
case("clip", X, V, V + 1)
case("rsqrt", P, ref=lambda x: 1 / np.sqrt(x))
case("round", X, 2)
case("divide_no_nan", X, I, ref=lambda x, y: np.divide(x, y, out=np.zeros_like(x), where=y != 0))
case("isclose", X, X + 1e-6)
case("isclose", Z, Z, equal_nan=True)
case("allclose", X, X + 1e-7)
case("where", B, X, Y)
case("where", B, X, 0.0)
case("erf", X, ref=special.erf)
case("erfc", X, ref=special.erfc)
case("erfinv", u(-0.9, 0.9, 7), ref=special.erfinv)
case("i0", u(-9, 9, 40))

# ---- reductions

for name in "sum prod mean var std max min amax amin ptp argmax argmin median count_nonzero".split():
    case(name, X)
    case(name, X, axis=1)
    case(name, X, 0)
for name in "sum mean var std max min median".split():
    case(name, f(2, 3, 4), axis=(0, 2), keepdims=True)
for name in "any all".split():
    case(name, B, axis=1)
    case(name, B)
case("argmax", i(3, 4, 6), axis=1, keepdims=True)
case("argmin", np.array([2.0, np.nan, 1.0], np.float32))
case("sum", np.ones((4, 3), np.int8), axis=0)
case("average", X, axis=1)
case("average", X, axis=1, weights=np.abs(V) + 1, ref=lambda x, axis, weights: np.average(x, axis, weights))
for name in "nansum nanprod nanmean nanvar nanstd nanmax nanmin nanargmax nanargmin".split():
    case(name, NANS, axis=0)
for name in "nancumsum nancumprod".split():
    case(name, NANS, axis=1)
case("logsumexp", X, axis=1, ref=special.logsumexp)
case("logsumexp", np.array([1000.0, 1000.0], np.float32), ref=special.logsumexp)
case("max", X, axis=1, initial=0.5)
for order in (None, 1, 2, 3, np.inf, -np.inf, 0):
    case("norm", X, order, 1, ref=np.linalg.norm)
for order in (None, "fro", 1, -1, np.inf, -np.inf):
    case("norm", X, order, (0, 1), ref=np.linalg.norm)
case("norm", X, keepdims=True, ref=np.linalg.norm)

# ---- creation

case("zeros", (2, 3), ref=lambda s: np.zeros(s, np.float32))
case("ones", (2, 3), dtype="int32")
case("full", (2, 3), 7.5, ref=lambda s, v: np.full(s, v, np.float32))
case("empty", 3, ref=lambda s: np.zeros(s, np.float32))
for name in "zeros_like ones_like".split():
    case(name, X)
case("empty_like", X, ref=np.zeros_like)
case("full_like", X, 3)
case("arange", 7, ref=lambda *a: np.arange(*a, dtype=np.int32))
case("arange", 2, 9, 3, ref=lambda *a: np.arange(*a, dtype=np.int32))
case("arange", 9, 2, -2, ref=lambda *a: np.arange(*a, dtype=np.int32))
case("arange", 0.0, 1.0, 0.25, ref=lambda *a: np.arange(*a, dtype=np.float32))
case("linspace", 1.0, 3.0, 7)
case("linspace", 1.0, 3.0, 4, endpoint=False)
case("linspace", V, V + 2, 3, axis=1)
case("logspace", 0.0, 2.0, 5)
case("geomspace", 1.0, 256.0, 9)
case("eye", 3, 4, 1, ref=lambda *a: np.eye(*a, dtype=np.float32))
case("identity", 4)
case("tri", 3, 5, -1)
case("tril", X, 1)
case("triu", X, -1)
case("meshgrid", V, f(3), ref=lambda *a: list(np.meshgrid(*a)))
case("meshgrid", V, f(3), f(2), indexing="ij", ref=lambda *a, indexing: list(np.meshgrid(*a, indexing=indexing)))
case("vander", V)
case("vander", V, 3, increasing=True)
for name in "hanning hamming blackman bartlett".split():
    case(name, 9)
case("kaiser", 9, 5.0)

# ---- moving elements

T = f(2, 3, 4)
case("reshape", T, (4, 6), open=False)
case("reshape", T, (2, -1), open=False)
case("reshape", X, -1)
case("ravel", T)
case("transpose", T)
case("transpose", T, (1, 2, 0))
case("squeeze", f(2, 1, 3, 1), open=False)
case("squeeze", f(2, 1, 3), 1, open=False)
case("expand_dims", X, 1)
case("expand_dims", X, (0, -1))
case("moveaxis", T, 0, -1)
case("moveaxis", T, (0, 1), (2, 0))
case("swapaxes", T, 0, 2)
case("broadcast_to", V, (3, 5))
for turns in range(4):
    case("rot90", X, turns)
case("flip", T)
case("flip", T, 1)
case("fliplr", X)
case("flipud", X)
case("concatenate", [X, f(2, 5)], ref=np.concatenate)
case("concatenate", [X, f(3, 2)], axis=1)
case("append", X, Y, 0)
case("append", X, V)
case("stack", [X, Y])
case("stack", [X, Y], axis=-1)
for name in "hstack vstack dstack".split():
    case(name, [X, Y])
    case(name, [V, V])
case("split", f(6, 4), 3, open=False)
case("split", f(6, 4), [1, 4], open=False)
case("array_split", f(7, 4), 3, open=False)
case("hsplit", X, [2])
case("vsplit", X, [1])
case("dsplit", T, 2, open=False)
case("unstack", T, axis=1, ref=lambda x, axis: list(np.moveaxis(x, axis, 0)), open=False)
case("tile", X, 2)
case("tile", X, (2, 1, 3))
case("repeat", X, 3, axis=1)
case("repeat", X, 2)
case("repeat", X, [2, 0, 1], axis=0, open=False)
case("roll", X, 2, axis=1)
case("roll", X, -4)
case("roll", T, (1, 2), axis=(0, 2))
case("pad", X, 1)
case("pad", X, ((1, 0), (2, 3)), constant_values=2.0)
for mode in "edge reflect symmetric wrap".split():
    case("pad", X, ((2, 1), (3, 4)), mode=mode)
case("diagonal", T, 1, 1, 2)
case("diagonal", X, -1)
case("trace", X)
case("diag", X, 1)
case("diag", V, -1)
case("diagflat", X)

# ---- products

W = f(5, 4)
case("matmul", X, W)
case("matmul", f(2, 3, 5), f(2, 5, 4))
case("matmul", f(2, 1, 3, 5), f(4, 5, 2), open=False)
case("matmul", V, W)
case("matmul", X, V)
case("dot", X, W)
case("dot", f(2, 3, 5), f(4, 5, 2))
case("dot", V, V)
case("dot", X, 2.0)
case("vdot", X, Y)
case("inner", X, f(4, 5))
case("outer", V, f(3))
case("tensordot", f(2, 3, 4), f(3, 4, 5), 2)
case("tensordot", f(2, 3, 4), f(4, 2, 5), [[0, 2], [1, 0]])
case("kron", X, f(2, 2))
case("cross", f(4, 3), f(4, 3), open=False)
case("cross", f(4, 2), f(4, 2), open=False, ref=lambda a, b: a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
for text, shapes in {
    "ij,jk->ik": [(3, 5), (5, 4)],
    "bij,bjk->bik": [(2, 3, 5), (2, 5, 4)],
    "ij->ji": [(3, 5)],
    "ii->i": [(4, 4)],
    "ii": [(4, 4)],
    "ij,ij->": [(3, 5), (3, 5)],
    "ij,j": [(3, 5), (5,)],
    "...ij,...jk->...ik": [(2, 3, 5), (2, 5, 4)],
    "ab,bc,cd->ad": [(2, 3), (3, 4), (4, 5)],
    "a,b,c->abc": [(2,), (3,), (4,)],
    "ijk,k->i": [(2, 3, 4), (4,)],
    "bhqd,bhkd->bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
}.items():
    arrays = [f(*s) for s in shapes]
    case("einsum", text, *arrays, ref=np.einsum)
case("trapezoid", X, dx=0.5)
case("trapezoid", X, V, axis=1)

# ---- positions, order

A = i(5, 4)
case("take", X, A, axis=1, ref=lambda x, a, axis: np.take(x, a, axis))
case("take", X, np.array([0, -1, -14], np.int32))
case("take_along_axis", X, i(5, 3, 2), axis=1)
case("get_item", X, (slice(1, None), slice(None, None, 2)), ref=lambda x, k: x[k])
case("slice", X, (1, 2), (2, 3), ref=lambda x, s, n: x[1:3, 2:5])
case("slice_update", X, (1, 2), f(2, 3), ref=lambda x, s, v: np.block([[x[:1]], [x[1:, :2], v]]))
case("scatter", np.array([[0], [2], [0]], np.int32), f(3, 4), (5, 4),
     ref=lambda a, v, s: np.stack([v[0] + v[2], 0 * v[0], v[1], 0 * v[0], 0 * v[0]]), open=False)
case("segment_sum", f(5, 2), np.array([0, 1, 0, 2, 1], np.int32), 4,
     ref=lambda d, a, n: np.stack([d[a == k].sum(0) for k in range(n)]))
case("segment_max", f(5, 2), np.array([0, 1, 0, 2, 1], np.int32), 3,
     ref=lambda d, a, n: np.stack([d[a == k].max(0) for k in range(n)]))
case("segment_min", f(5, 2), np.array([0, 1, 0, 2, 1], np.int32), 3,
     ref=lambda d, a, n: np.stack([d[a == k].min(0) for k in range(n)]))
case("segment_prod", f(5, 2), np.array([0, 1, 0, 2, 1], np.int32), 3,
     ref=lambda d, a, n: np.stack([d[a == k].prod(0) for k in range(n)]))
case("bincount", A, minlength=6, ref=lambda a, minlength: np.bincount(a, minlength=minlength))
case("bincount", A, f(4), 6, ref=np.bincount)
case("histogram", f(40), 7, ref=lambda x, b: list(np.histogram(x, b)))
case("histogram", f(40), 5, range=(-1.0, 1.0), ref=lambda x, b, range: list(np.histogram(x, b, range)))
case("unravel_index", np.array([5, 11, 0], np.int32), (3, 4))
case("one_hot", i(4, 3, 2), 4, ref=lambda a, n: np.eye(n, dtype=np.float32)[a])
case("one_hot", np.array([1, -1, 9], np.int32), 4, axis=0,
     ref=lambda a, n, axis: (np.arange(n)[:, None] == a).astype(np.float32))
case("multi_hot", np.array([[0, 2], [1, 1]], np.int32), 4,
     ref=lambda a, n: np.max(np.eye(n, dtype=np.float32)[a], 1))
case("in_top_k", np.array([0, 1, 2], np.int32), f(3, 5), 2,
     ref=lambda t, p, k: np.array([t_ in np.argsort(-r)[:k] for t_, r in zip(t, p, strict=True)]))
case("sort", X)
case("sort", T, 0)
case("sort", np.array([3, np.nan, 1, -np.inf], np.float32))
case("argsort", i(4, 3, 9), axis=-1, ref=lambda x, axis: np.argsort(x, axis, kind="stable"))
case("argpartition", V, 2, ref=lambda x, k: np.argsort(x, kind="stable"))
case("top_k", X, 3, ref=lambda x, k: [-np.sort(-x, -1)[:, :k], np.argsort(-x, -1)[:, :k]])
case("searchsorted", np.sort(f(9)), X)
case("searchsorted", np.array([1, 2, 2, 3], np.int32), np.array([2, 0, 9], np.int32), side="right")
case("digitize", X, np.array([-1.0, 0.0, 1.0], np.float32))
case("isin", I, np.array([1, 4, -3], np.int32))
case("isin", I, np.array([1, 4, -3], np.int32), invert=True)
case("select", [B, X < -1], [X, Y], 2.5, ref=lambda c, v, d: np.select(c, v, np.float32(d)))
for method in "linear lower higher nearest midpoint".split():
    case("quantile", X, 0.3, 1, method=method)
case("quantile", X, np.array([0.25, 0.9], np.float32), 0)
case("quantile", T, 0.5, (0, 2), keepdims=True)
case("percentile", X, 40.0, axis=1)
for name in "cumsum cumprod".split():
    case(name, X)
    case(name, X, axis=1)
    case(name, I, axis=0)
case("diff", X)
case("diff", X, 2, axis=0)
case("corrcoef", X)
for mode in "valid same full".split():
    case("correlate", f(7), f(3), mode=mode, open=False)
    case("correlate", f(3), f(6), mode=mode, open=False)

# ---- casts

case("cast", X, "int32", ref=lambda x, d: x.astype(d))
case("saturate_cast", np.array([-5.0, 300.0, 7.9], np.float32), "uint8", ref=lambda x, d: np.clip(x, 0, 255).astype(d))
case("saturate_cast", np.array([-5, 300, 7], np.int32), "uint8", ref=lambda x, d: np.clip(x, 0, 255).astype(d))
case("size", X)
case("view", X, ref=lambda x: x)
case("stop_gradient", X, ref=lambda x: x)

# ---- nn


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return special.softmax(x.astype(np.float64), axis)


PROBABILITIES = softmax(X).astype(np.float32)
ONE_HOT = np.eye(5, dtype=np.float32)[[1, 4, 0]]
case("relu", X, ref=lambda x: np.maximum(x, 0))
case("gelu", X, False, ref=lambda x, a: x * special.ndtr(x))
case("softmax", X, ref=softmax)
case("log_softmax", X, ref=lambda x: special.log_softmax(x.astype(np.float64), -1))
case("sigmoid", X, ref=special.expit)
case("categorical_crossentropy", ONE_HOT, PROBABILITIES, ref=lambda t, p: -np.log((t * p).sum(-1)))
case("categorical_crossentropy", ONE_HOT, X, True, ref=lambda t, x, _: -special.log_softmax(x, -1)[t > 0])
case("sparse_categorical_crossentropy", np.array([1, 4, 0], np.int32), X, True,
     ref=lambda t, x, _: -special.log_softmax(x, -1)[range(3), t])
case("sparse_categorical_crossentropy", np.array([[1], [9], [-1]], np.int32), PROBABILITIES, open=False,
     ref=lambda t, p: np.array([-np.log(p[0, 1]), 0, 0]))
case("binary_crossentropy", B.astype(np.float32), X * 20, True,
     ref=lambda t, x, _: np.logaddexp(0, np.where(t > 0, -x, x).astype(np.float64)))
case("binary_crossentropy", B.astype(np.float32), special.expit(X),
     ref=lambda t, p: -np.log(np.where(t > 0, p, 1 - p)))
case("moments", X, 0, ref=lambda x, a: [x.mean(a), x.var(a)])
for order in (1, 2, 3, np.inf):
    case("normalize", X, order=order, ref=lambda x, order: x / np.linalg.norm(x, order, axis=-1, keepdims=True))
case("batch_normalization", X, V, np.abs(V), 1, offset=V + 1, scale=V - 1,
     ref=lambda x, m, v, a, offset, scale: (x - m) / np.sqrt(v + 1e-3) * scale + offset)
case("layer_normalization", X, V, V + 1, epsilon=1e-3,
     ref=lambda x, g, b, epsilon: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * g + b)
case("rms_normalization", X, V, epsilon=1e-3,
     ref=lambda x, g, epsilon: x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * g)
case("psnr", X, Y, 2.0, ref=lambda x, y, m: 10 * np.log10(m**2 / ((x - y) ** 2).mean()))


def attention(q, k, v, mask=None, is_causal=False):
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], 2) for x in (k, v))
    logits = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    if is_causal:
        logits = np.where(np.tri(*logits.shape[-2:]) > 0, logits, -np.inf)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    return np.einsum("bhts,bshd->bthd", special.softmax(logits, -1), v)


case("dot_product_attention", f(2, 3, 4, 5), f(2, 6, 4, 5), f(2, 6, 4, 5), ref=attention)
case("dot_product_attention", f(2, 3, 4, 5), f(2, 3, 2, 5), f(2, 3, 2, 5), is_causal=True, ref=attention, open=False)
case("dot_product_attention", f(2, 3, 4, 5), f(2, 6, 4, 5), f(2, 6, 4, 5), mask=np.arange(6) < 4, ref=attention)


# ---- the checks


def close(got: Any, expected: Any) -> None:
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            close(a, b)
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=3e-6)  # float32, up to a few dozen terms
    else:
        np.testing.assert_array_equal(got, expected)


_names = count()


def expected_of(c: Case) -> Any:
    with np.errstate(all="ignore"):
        return c.reference(*c.args, **c.options)


@pytest.mark.parametrize("c", CASES, ids=lambda c: c.name)
def test_at_once_on_arrays(c: Case) -> None:
    result = getattr(ops, c.name)(*c.args, **c.options)
    close(result, expected_of(c))


@pytest.mark.parametrize("c", CASES, ids=lambda c: c.name)
def test_compiled_with_open_sizes(c: Case) -> None:
    inputs: list[Tensor] = []
    arrays: list[np.ndarray] = []
    sizes: dict[int, str] = {}

    def symbolic(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # one name for each number: what must be equal is
            shape = [sizes.setdefault(d, f"s{d}") if c.open else d for d in value.shape]
            name = f"x{next(_names)}"
            inputs.append(Tensor(new_input(name, value.dtype.name, as_dims(shape, name)), name))
            arrays.append(value)
            return inputs[-1]
        if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
            return type(value)(map(symbolic, value))
        return value

    args = [symbolic(a) for a in c.args]
    options = {k: symbolic(v) for k, v in c.options.items()}
    outputs = getattr(ops, c.name)(*args, **options)
    if not inputs:
        pytest.skip("takes no tensors")
    compiled = function(inputs, outputs, name=c.name, on_unused_input="ignore")
    close(compiled(*arrays), expected_of(c))


def test_names_and_arguments_are_those_of_keras() -> None:
    recorded = load("signatures")["keras.ops"]
    for name in ops.__all__:
        if name in ("nn", "numpy", "image"):
            continue
        assert name in recorded, name
        ours = list(inspect.signature(getattr(ops, name)).parameters)
        (theirs,) = ast.parse(f"def f{recorded[name]}: ...").body
        assert isinstance(theirs, ast.FunctionDef)
        assert {a.arg for a in (*theirs.args.args, *theirs.args.kwonlyargs)} <= set(ours), (name, ours)


def test_sizes_of_a_tensor_are_sizes_again() -> None:
    x = Tensor(new_input("x", "float32", as_dims((None, 3), "x")))
    n, three = ops.shape(x)
    assert three == 3
    y = ops.reshape(x, (n * three,))
    assert str(y.node.type) == "float32[3*x_0]"
    assert ops.zeros((n, 2)).shape == (None, 2)
    compiled = function([x], [ops.arange(n), n * 2, ops.broadcast_to(ops.sum(x, 1, keepdims=True), (n, 4))])
    counted, twice, spread = compiled(np.ones((4, 3), np.float32))
    assert counted.tolist() == [0, 1, 2, 3]
    assert twice == 8
    assert spread.shape == (4, 4)


def test_scatter_update_keeps_the_last_and_combines() -> None:
    x, at, new = np.zeros(4, np.float32), np.array([[1], [3], [1]], np.int32), np.array([5.0, 2.0, 7.0], np.float32)
    assert ops.scatter_update(x, at, new).tolist() == [0, 7, 0, 2]
    outside = np.array([[3], [-1], [4], [-5], [9]], np.int32)
    assert ops.scatter_update(x, outside, np.arange(5)).tolist() == [0, 0, 0, 1]
    assert ops.scatter_update(x, at, new, "add").tolist() == [0, 12, 0, 2]
    assert ops.scatter_update(x + 6, at, new, "max").tolist() == [6, 7, 6, 6]
    assert ops.scatter_update(x + 6, at, new, "min").tolist() == [6, 5, 6, 2]
    assert ops.scatter_update(x + 1, at, new, "mul").tolist() == [1, 35, 1, 2]


def test_a_slice_may_begin_where_only_the_run_knows() -> None:
    x = Tensor(new_input("x", "float32", (4, 3)))
    at = Tensor(new_input("at", "int32", ()))
    part = ops.slice(x, (at, 0), (2, 3))
    changed = ops.slice_update(x, (at, 1), np.zeros((2, 2), np.float32))
    compiled = function([x, at], [part, changed])
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    for start, begin in ((0, 0), (2, 2), (9, 2)):
        got, new = compiled(array, start)
        np.testing.assert_array_equal(got, array[begin : begin + 2])
        expected = array.copy()
        expected[begin : begin + 2, 1:] = 0
        np.testing.assert_array_equal(new, expected)


def test_what_python_numbers_become() -> None:
    assert ops.exp(1).dtype == np.float32
    assert ops.add(1, 2).dtype == np.int32
    assert ops.convert_to_tensor([1.0, 2.0]).dtype == np.float32
    assert ops.convert_to_tensor(np.zeros(2)).dtype == np.float64
    assert ops.is_tensor(ops.convert_to_tensor(1))
    assert not ops.is_tensor(np.zeros(1))
    assert ops.ndim(X) == 2
    assert ops.dtype(X) == "float32"


MISTAKES = {
    "matmul": (lambda: ops.matmul(X, X), r"float32\[3, 5\] and float32\[3, 5\].*5 elements.*3"),
    "concatenate": (lambda: ops.concatenate([X, V]), r"float32\[3, 5\] and float32\[5\]"),
    "reshape": (lambda: ops.reshape(X, (4, -1)), r"float32\[3, 5\].*15 elements are not a multiple of 4"),
    "axis": (lambda: ops.expand_dims(X, 7), r"axis 7 is out of range for float32\[3, 5\]"),
    "broadcast": (lambda: ops.add(X, f(4)), r"\[3, 5\] and \[4\] cannot be broadcast"),
    "squeeze": (lambda: ops.squeeze(X, 1), "its size is 5, not 1"),
    "split": (lambda: ops.split(X, 2), "cannot split axis 0 .* in 2 equal parts: its size is 3"),
    "einsum": (lambda: ops.einsum("ij,jk->il", X, X), "'l' of the result is in no operand"),
    "pad mode": (lambda: ops.pad(X, 1, mode="mirror"), "'reflect'"),
    "where": (lambda: ops.where(B), "needs both values"),
    "top_k": (lambda: ops.top_k(X, 9), "fewer than 9 elements"),
    "size from data": (
        lambda: ops.zeros((Tensor(new_input("k", "int32", ())),)), r"computed value int32\[\].*gnomon.ops.shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_what_was_given(name: str) -> None:
    mistake, message = MISTAKES[name]
    with pytest.raises(GnomonError, match=message) as raised:
        mistake()
    assert isinstance(raised.value, (ShapeError, ArgumentError))
