"""Products on the CPU in all their forms, at sizes around the edges of tiles, for the vectors of many targets.

What is generated for other targets runs here too: LLVM takes vectors apart that are too long for this machine. NumPy in
float64 is what must come out.
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import Alloc, CopyTransposed, Prefetch, Stmt, statements
from gnomon.compiler.lowering.minimal import matrices
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter, key_of
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.compiler.targets import Target
from gnomon.runtime.buffer import Buffer, address_of
from gnomon.runtime.cpu import host_target
from gnomon.runtime.executable import Executable

HOST = host_target()


def target(vector_bytes: int, registers: int, **others: Any) -> Target:
    """This machine's instructions, but vectors, registers, caches and threads that are the same everywhere."""
    known = {"fma": True, "winograd": False, "l1": 32 << 10, "l2": 512 << 10, "threads": 2}
    return replace(HOST, vector_bytes=vector_bytes, registers=registers, **{**known, **others})


TARGETS = {f"{v}x{r}": target(v, r) for v in (16, 32, 64) for r in (16, 32)}
TARGETS["unfused"] = target(16, 16, fma=False)
TARGETS["scarce"] = target(16, 8, l1=8 << 10, l2=32 << 10, threads=1)
TARGETS["many_threads"] = target(32, 16, threads=16)

MAIN_TARGETS = ("16x16", "32x16", "64x32")  # SSE, AVX2, AVX-512

SYMBOLS: dict[str, Dim] = {"n": symbol("n"), "m": symbol("m"), "k": symbol("k"), "b": 3, "j": 2, "r": 2, "c": 3}
"""Extents of the axes in a form: rows n, lanes m, depth k, a batch b, more of each: rows r, columns c, summed j."""
n, m, k = SYMBOLS["n"], SYMBOLS["m"], SYMBOLS["k"]
SIZES = [
    *({"n": rows, "m": 17, "k": 5} for rows in (*range(10), 31, 32, 33)),
    *({"n": rows, "m": lanes, "k": 3} for lanes in (1, 10, 17, 33, 63, 65, 100) for rows in (2, 9)),
    *({"n": 11, "m": 33, "k": depth} for depth in (0, 1, 2, 7, 33)),
    {"n": 0, "m": 0, "k": 4},
]
MAIN_FORMS = ["nk,km->nm", "kn,km->nm", "nk,mk->nm", "kn,mk->nm"]
FORMS = [
    *MAIN_FORMS,
    "bnk,bkm->bnm", "bkn,bmk->bnm", "nbk,bkm->nbm", "bnk,km->bnm", "nk,bkm->bnm",
    "njk,jkm->nm", "njk,kjm->nm", "nkj,mjk->nm", "nkj,km->nm",
    "rnk,km->rnm", "rnk,mk->nrm", "nk,kcm->ncm", "nk,cmk->ncm", "nk,kcm->cnm", "nk,kcm->nmc", "nk,km->mn",
    "k,km->m", "nk,k->n", "k,k->", "n,m->nm",
]  # fmt: skip

Sizes = Mapping[str, int]
_keys = count(4_000_000)


def leaf(name: str, *shape: Dim, dtype: str = "float32") -> Node:
    """An input; integers are positions below 4."""
    return Input(next(_keys), name, dtype, shape)()


def parameter(*shape: Dim, dtype: str = "float32") -> Node:
    return Parameter(next(_keys), "w", dtype, shape)()


@dataclass
class Product:
    """A graph with a product in it, and what NumPy says of the inputs, then the old values of variables: the new
    values of these, then the outputs."""

    inputs: Sequence[Node]
    outputs: Sequence[Node]
    formula: Callable[..., Sequence[Any]]
    updates: Sequence[tuple[Node, Node]] = ()


def contraction(form: str, dims: Mapping[str, Dim], dtype: str = "float32") -> Product:
    operands, out = form.split("->")
    x_axes, w_axes = operands.split(",")
    x = leaf("x", *(dims[a] for a in x_axes), dtype=dtype)
    w = leaf("w", *(dims[a] for a in w_axes), dtype=dtype)
    number = {a: i for i, a in enumerate(dict.fromkeys(x_axes + w_axes))}
    y = build.contract(x, w, *([number[a] for a in axes] for axes in (x_axes, w_axes, out)))
    return Product([x, w], [y], lambda x, w: [np.einsum(form, x, w)])


class Compiled:
    """A product's program on a target. `place` moves arrays to memory of a test's own."""

    def __init__(self, product: Product, target: Target, place: Callable[[np.ndarray], np.ndarray] = lambda a: a):
        self.product, self.place, self.stages = product, place, Stages()
        self.program = compile(
            Request("product", product.inputs, product.outputs, product.updates), target, self.stages
        )
        parameters = {key_of(p): p for p, _ in product.updates}
        self.buffers: dict[Node, Buffer] = {}
        for _, key in self.program.variables:
            p = parameters[key]
            buffer = Buffer(tuple(evaluate(d, {}) for d in p.shape), p.dtype)
            buffer._memory = place(buffer.array)
            buffer.address = address_of(buffer._memory)
            self.buffers[p] = buffer
        self.executable = Executable(self.program, list(self.buffers.values()))

    def check(self, **sizes: int) -> None:
        """Random operands; every result within the rounding of its sums."""
        rng = np.random.default_rng(sum(sizes.values()))
        leaves = [*self.product.inputs, *(p for p, _ in self.product.updates)]
        arrays = {x: self.place(value(x, sizes, rng)) for x in leaves}
        for p, buffer in self.buffers.items():
            buffer.array[...] = arrays[p]
        wanted = self.product.formula(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays.values()))
        outputs = self.executable(*(arrays[x] for x in self.product.inputs))
        got = [*(self.buffers[p].array for p, _ in self.product.updates), *outputs]
        near = 4 * float(np.finfo(leaves[0].dtype).eps) * (8 + sizes.get("k", 64))
        for number, (found, right) in enumerate(zip(got, wanted, strict=True)):
            where = f"result {number} with {sizes}"
            np.testing.assert_allclose(found, right, rtol=near, atol=near, err_msg=where)

    def statements(self) -> list[Stmt]:
        return [s for kernel in self.stages.kernels.values() for s in statements(kernel.body)]

    def launches(self, **sizes: int) -> list[str]:
        """Labels of what has something to do."""
        return [s.label for s in self.program.steps if isinstance(s, Launch) and evaluate(s.extent, sizes)]


def value(x: Node, sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
    shape = [evaluate(d, sizes) for d in x.shape]
    return rng.uniform(-1, 1, shape).astype(x.dtype) if x.dtype[0] == "f" else rng.integers(0, 4, shape)


# ---- forms and sizes


@pytest.mark.parametrize("name", ["16x16", "64x32"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_symbolic_sizes(form: str, name: str) -> None:
    compiled = Compiled(contraction(form, SYMBOLS), TARGETS[name])
    for sizes in SIZES:
        compiled.check(**sizes)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("16x16", "64x32")])
def test_other_targets(name: str) -> None:
    for form in (*MAIN_FORMS, "bnk,bkm->bnm", "njk,kjm->nm"):
        compiled = Compiled(contraction(form, SYMBOLS), TARGETS[name])
        for sizes in SIZES:
            compiled.check(**sizes)


@pytest.mark.parametrize("name", MAIN_TARGETS)
def test_float64(name: str) -> None:
    for form in (*MAIN_FORMS, "bkn,bmk->bnm", "nkj,mjk->nm", "nk,cmk->ncm", "k,km->m"):
        compiled = Compiled(contraction(form, SYMBOLS, "float64"), TARGETS[name])
        for sizes in SIZES:
            compiled.check(**sizes)


@pytest.mark.parametrize("name", MAIN_TARGETS)
@pytest.mark.parametrize("form", MAIN_FORMS)
def test_layers(form: str, name: str) -> None:
    """Lanes and depth static, rows of any number: a dense layer. The last depths are a power of two."""
    for lanes, depth in ((1, 5), (10, 32), (17, 1), (33, 2), (63, 16), (65, 17), (100, 33), (64, 128), (24, 256)):
        compiled = Compiled(contraction(form, {**SYMBOLS, "m": lanes, "k": depth}), TARGETS[name])
        for rows in (1, 7, 8, 9, 16, 33, 70):
            compiled.check(n=rows, k=depth)


@pytest.mark.parametrize("name", ["16x16", "64x32"])
@pytest.mark.parametrize("form", ["nk,km->nm", "kn,km->nm", "nk,mk->nm"])
def test_static_rows(form: str, name: str) -> None:
    """With rows static too, a schedule knows which edges there are; with 128 of them, that they are far apart."""
    for rows in (*range(1, 10), 31, 32, 33, 128):
        Compiled(contraction(form, {"n": rows, "m": 33, "k": 19}), TARGETS[name]).check(k=19)


@pytest.mark.parametrize("name", [*MAIN_TARGETS, "many_threads"])
def test_long_strips_of_few_rows(name: str) -> None:
    long = ({"n": 3, "m": 5000, "k": 13}, {"n": 7, "m": 2049, "k": 8}, {"n": 1, "m": 4096, "k": 16})
    cases: list[tuple[Mapping[str, Dim], Sequence[Sizes]]] = [(sizes, [sizes]) for sizes in long]
    for dims, given in [*cases, (SYMBOLS, [*long, {"n": 2, "m": 1, "k": 1}, {"n": 5, "m": 100, "k": 0}])]:
        compiled = Compiled(contraction("nk,km->nm", dims), TARGETS[name])
        strips = [s for s in compiled.statements() if isinstance(s, Alloc) and s.buffer.name == "strip"]
        assert strips, dims
        for sizes in given:
            compiled.check(**sizes)


@pytest.mark.parametrize("name", MAIN_TARGETS)
def test_a_panel_that_each_iteration_packs_for_itself(name: str) -> None:
    """Many rows are done in runs, each with a panel of its own."""
    compiled = Compiled(contraction("nk,mk->nm", {**SYMBOLS, "k": 21}), TARGETS[name])
    assert any(isinstance(s, Alloc) and s.buffer.name == "lanes" for s in compiled.statements())
    for rows, lanes in ((600, 65), (513, 3), (256, 33), (257, 16), (5, 40), (0, 9)):
        compiled.check(n=rows, m=lanes, k=21)


@pytest.mark.parametrize("name", [*MAIN_TARGETS, "scarce", "many_threads"])
def test_long_sums(name: str) -> None:
    """Gone through in chunks, in parts where the result is small; what consumes the product comes after all parts."""
    for rows, lanes, depth in ((9, 32, 5000), (37, 45, 4097), (140, 200, 4100)):
        Compiled(contraction("kn,km->nm", {"n": rows, "m": lanes, "k": depth}), TARGETS[name]).check(k=depth)
    for form, rows, lanes in (("jkn,jkm->nm", 9, 32), ("jkn,jkm->nm", 41, 70), ("njk,jkm->nm", 10, 3)):
        compiled = Compiled(contraction(form, {"n": rows, "m": lanes, "j": symbol("j"), "k": 45}), TARGETS[name])
        for batch in (0, 1, 3, 13, 40):
            compiled.check(j=batch, k=45 * max(batch, 1))
    x, g, bias = leaf("x", symbol("b"), 7, 6, 11), leaf("g", symbol("b"), 7, 6, 21), leaf("bias", 21)
    y = build.contract(x, g, (0, 1, 2, 3), (0, 1, 2, 4), (3, 4))
    both = Product(
        [x, g, bias],
        [build.relu(build.add(y, bias))],
        lambda x, g, c: [np.maximum(np.einsum("bijk,bijm->km", x, g) + c, 0)],
    )
    compiled = Compiled(both, TARGETS[name])
    assert any(isinstance(s, Alloc) and s.buffer.name == "sums" for s in compiled.statements())
    for batch in (1, 5):
        compiled.check(b=batch, k=42 * batch)
    far = {"n": 1024, "m": 33, "j": symbol("j"), "k": 36}  # a page from one term to the next
    for batch in (1, 17):
        Compiled(contraction("jkn,jkm->nm", far), TARGETS[name]).check(j=batch, k=36 * batch)
    one = {"j": symbol("j"), "k": 600, "n": 33, "m": 20}
    Compiled(contraction("jkn,kjm->nm", one), TARGETS[name]).check(j=2, k=1200)
    few = Compiled(contraction("nk,km->nm", {"n": n, "m": 40, "k": 4500}), TARGETS[name])
    for rows in (0, 1, 7, 8, 30):
        few.check(n=rows, k=4500)


def convolution(batch: Dim, height: int, width: int, channels: int, filters: int, flip: bool = False) -> Product:
    """3x3, with what a residual network does to it; flipped as in a gradient."""
    x, w = leaf("x", batch, height + 2, width + 2, channels), leaf("w", 3, 3, channels, filters)
    bias, r = leaf("bias", filters), leaf("r", batch, height, width, filters)
    taps = build.flip(w, (0, 1)) if flip else w
    patches = build.patches(x, 1, (3, 3), (1, 1), (1, 1))
    y = build.contract(patches, taps, (0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))

    def formula(x, w, bias, r):
        w = w[::-1, ::-1] if flip else w
        y = sum(x[:, i : i + height, j : j + width] @ w[i, j] for i in range(3) for j in range(3))
        return [np.maximum(y + bias + r, 0), y]

    return Product([x, w, bias, r], [build.relu(build.add(build.add(y, bias), r)), y], formula)


@pytest.mark.parametrize("name", ["16x16", "64x32", "unfused"])
def test_minimal_filtering(name: str) -> None:
    """Where tiles reach beyond the picture, with lanes left over, and where few pictures take the plain way; all of
    some tiles at once, and, of many channels, one thing after the other."""
    fast = replace(TARGETS[name], winograd=True)
    for batch, height, width, channels, filters in (
        (symbol("b"), 40, 41, 40, 48), (1, 42, 39, 41, 50), (2, 24, 20, 64, 48), (symbol("b"), 14, 11, 70, 60),
        (symbol("b"), 12, 9, 330, 170),
    ):  # fmt: skip
        compiled = Compiled(convolution(batch, height, width, channels, filters, flip=batch == 2), fast)
        labels = {s.label for s in compiled.program.steps if isinstance(s, Launch)}
        assert any("filters of" in label for label in labels), labels
        assert any("tiles of" in label for label in labels) == (channels + filters > 256), labels
        for pictures in [batch] if isinstance(batch, int) else (0, 1, 2, 9 if channels < 256 else 33):
            compiled.check(b=pictures, k=9 * channels)  # within the rounding of the plain sum
    few = Compiled(convolution(symbol("b"), 14, 14, 96, 96), fast)
    assert not any("filters of" in label for label in few.launches(b=1))
    assert any("filters of" in label for label in few.launches(b=8))
    plain = Compiled(convolution(symbol("b"), 40, 41, 40, 48), TARGETS[name])
    assert not any("filters of" in label for label in plain.launches(b=4))


def kernel_gradient(batch: Dim, height: int, width: int, channels: int, filters: int) -> Product:
    """Of a 3x3 convolution, with a step of the optimizer."""
    x, g = leaf("x", batch, height + 2, width + 2, channels), leaf("g", batch, height, width, filters)
    w = leaf("w", 3, 3, channels, filters)
    patches = build.patches(x, 1, (3, 3), (1, 1), (1, 1))
    total = build.contract(patches, g, (0, 1, 2, 3, 4, 5), (0, 1, 2, 6), (3, 4, 5, 6))

    def formula(x, g, w):
        seen = [[x[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)]
        total = np.array([[np.einsum("bijc,bijf->cf", part, g) for part in row] for row in seen])
        return [w - total, total]

    return Product([x, g, w], [build.subtract(w, total), total], formula)


@pytest.mark.parametrize("name", ["16x16", "64x32", "unfused"])
def test_minimal_filtering_of_gradients(name: str) -> None:
    """Where tiles reach beyond the picture, with lanes left over, and batches of none and one."""
    fast = replace(TARGETS[name], winograd=True)
    for batch, height, width, channels, filters in (
        (symbol("b"), 20, 21, 24, 33), (1, 42, 39, 41, 50), (3, 24, 20, 64, 48), (symbol("b"), 6, 11, 70, 60),
    ):  # fmt: skip
        compiled = Compiled(kernel_gradient(batch, height, width, channels, filters), fast)
        assert any("gradients of" in label for label in compiled.launches(b=1))
        for pictures in [batch] if isinstance(batch, int) else (0, 1, 2, 9):
            compiled.check(b=pictures, k=max(1, pictures) * height * width)
    for batch, height, channels in ((symbol("b"), 20, 8), (2, 7, 512)):  # too few channels, too few tiles
        plain = Compiled(kernel_gradient(batch, height, height, channels, channels), fast)
        assert not any("gradients of" in label for label in plain.launches(b=4))


def long_convolution(batch: Dim, length: int, channels: int, filters: int, taps: int, dilation: int) -> Product:
    reach = (taps - 1) * dilation
    x, w, bias = leaf("x", batch, length + reach, channels), leaf("w", taps, channels, filters), leaf("bias", filters)
    patches = build.patches(x, 1, (taps,), (1,), (dilation,))
    y = build.relu(build.add(build.contract(patches, w, (0, 1, 2, 3), (2, 3, 4), (0, 1, 4)), bias))

    def formula(x, w, bias):
        y = sum(x[:, k * dilation : k * dilation + length] @ w[k] for k in range(taps))
        return [np.maximum(y + bias, 0)]

    return Product([x, w, bias], [y], formula)


@pytest.mark.parametrize("name", ["16x16", "64x32", "unfused"])
def test_long_filters(name: str) -> None:
    """With taps left over by groups, outputs by tiles, lanes by vectors, and dilation."""
    fast = replace(TARGETS[name], winograd=True)
    for batch, length, channels, filters, taps, dilation in (
        (symbol("b"), 1001, 33, 47, 11, 1), (1, 1200, 32, 48, 13, 3), (2, 999, 40, 33, 16, 2),
        (symbol("b"), 700, 48, 40, 41, 25),
    ):  # fmt: skip
        compiled = Compiled(long_convolution(batch, length, channels, filters, taps, dilation), fast)
        assert any("tiles" in label for label in compiled.launches(b=1))
        for pictures in [batch] if isinstance(batch, int) else (0, 1, 3):
            compiled.check(b=pictures, k=taps * channels)
    plain = Compiled(long_convolution(1, 1200, 32, 48, 13, 3), TARGETS[name])
    assert not any("tiles" in label for label in plain.launches())


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (3, 3), (4, 3), (4, 4), (2, 5)])
def test_matrices_of_minimal_filtering(outputs: int, taps: int) -> None:
    rng = np.random.default_rng(outputs)
    a, g, b = (np.array(m) for m in matrices(outputs, taps))
    w, d = rng.standard_normal(taps), rng.standard_normal(outputs + taps - 1)
    wanted = [d[i : i + taps] @ w for i in range(outputs)]
    np.testing.assert_allclose(a @ ((g @ w) * (b @ d)), wanted, rtol=1e-9, atol=1e-9)


def test_policy() -> None:
    """What the sizes above are meant to reach is reached."""
    target = TARGETS["32x16"]
    turned = Compiled(contraction("nk,mk->nm", SYMBOLS), target)
    assert any(isinstance(s, CopyTransposed) for s in turned.statements())
    symbolic = Compiled(contraction("nk,km->nm", SYMBOLS), target)
    assert symbolic.launches(n=3, m=50, k=9) == ["contract few rows"]
    assert symbolic.launches(n=30, m=50, k=9) == ["pack contract", "contract"]
    row = Compiled(contraction("nk,km->nm", {"n": 1, "m": 4096, "k": 4096}), target)
    assert any(isinstance(s, Alloc) and s.buffer.name == "strip" for s in row.statements())
    short = Compiled(contraction("nk,km->nm", {**SYMBOLS, "m": 32, "k": 784}), target)
    assert short.launches(n=128) == ["contract"]  # read in place
    transposed = Compiled(contraction("kn,km->nm", {"n": 784, "m": 32, "k": symbol("k")}), target)
    assert transposed.launches(k=128) == ["contract"]
    scattered = Compiled(contraction("kn,km->nm", {"n": 1024, "m": 32, "k": symbol("k")}), target)
    assert scattered.launches(k=128) == ["pack contract", "contract"]


# ---- what is multiplied


def gathered(x: Node, i: Node) -> Node:
    return build.gather(x, i, 0)


def operands() -> dict[str, Product]:
    """Products whose operands are computed: melted into packing and loading."""
    x, w, i, v = leaf("x", n, k), leaf("w", k, m), leaf("i", n, dtype="int64"), leaf("v", k)
    table, short, at = leaf("table", 4, k), leaf("short", n, 4), leaf("at", k, dtype="int64")
    wide, words = leaf("wide", n, k, dtype="int64"), leaf("words", m, dtype="int64")
    relu = lambda a: np.maximum(a, 0)
    return {
        "gathered_rows": Product([table, i, w], [build.matmul(gathered(table, i), w)],
                                 lambda t, i, w: [t[i] @ w]),
        "gathered_depth": Product([short, at, w], [build.matmul(build.gather(short, at, 1), w)],
                                  lambda x, i, w: [x[:, i] @ w]),
        "gathered_lanes": Product([x, table, words], [build.matmul(x, build.transpose(gathered(table, words), (1, 0)))],
                                  lambda x, t, i: [x @ t[i].T]),
        "computed": Product([x, w], [build.matmul(build.relu(x), build.add(build.exp(w), 1.0))],
                            lambda x, w: [relu(x) @ (np.exp(w) + 1)]),
        "scaled": Product([x, v, w], [build.matmul(build.multiply(x, v), w)], lambda x, v, w: [(x * v) @ w]),
        "broadcast_rows": Product([v, w, x], [build.matmul(build.broadcast_to(v, (n, k)), w), x],
                                  lambda v, w, x: [np.broadcast_to(v, x.shape) @ w, x]),
        "broadcast_lanes": Product([x, v, w], [build.matmul(x, build.broadcast(v, (k, m), (0,))), w],
                                   lambda x, v, w: [np.repeat((x @ v)[:, None], w.shape[1], 1), w]),
        "of_integers": Product([x, wide, w], [build.matmul(build.cast(wide, "float32"), w)],
                               lambda x, i, w: [i.astype(float) @ w]),
        "square": Product([x], [build.matmul(x, build.transpose(x, (1, 0)))], lambda x: [x @ x.T]),
        "padded": Product([x, w], [build.matmul(build.pad(x, (1, 0), (2, 0)), w)],
                          lambda x, w: [np.pad(x, ((1, 2), (0, 0))) @ w]),
        "chain": Product([x, w, v], [build.matmul(build.matmul(x, w), build.transpose(w, (1, 0)))],
                         lambda x, w, v: [x @ w @ w.T]),
    }  # fmt: skip


OPERANDS = operands()


@pytest.mark.parametrize("name", ["16x16", "64x32"])
@pytest.mark.parametrize("case", OPERANDS)
def test_operands(case: str, name: str) -> None:
    compiled = Compiled(OPERANDS[case], TARGETS[name])
    for sizes in SIZES:
        compiled.check(**sizes)


# ---- what becomes of the product


def epilogues(n: Dim, m: Dim, k: Dim) -> dict[str, Product]:
    x, w, c, r = leaf("x", n, k), leaf("w", k, m), leaf("c", m), leaf("r", n, m)
    column, other, y = leaf("column", n, 1), leaf("other", n, k), build.matmul(x, w)
    return {
        "bias_relu": Product([x, w, c], [build.relu(build.add(y, c))], lambda x, w, c: [np.maximum(x @ w + c, 0)]),
        "residual": Product([x, w, c, r], [build.add(build.add(build.multiply(y, 0.5), c), r)],
                            lambda x, w, c, r: [(x @ w) * 0.5 + c + r]),
        "several": Product([x, w, r], [build.tanh(y), build.subtract(y, r), build.cast(y, "float64")],
                           lambda x, w, r: [np.tanh(x @ w), x @ w - r, x @ w]),
        "also_read": Product([x, w], [y, build.sum(y, 0), build.max(build.add(y, 1.0))],
                             lambda x, w: [x @ w, (x @ w).sum(0), (x @ w + 1).max(initial=-np.inf)]),
        "compared": Product([x, w, r, column], [build.where(build.greater(r, column), y, build.multiply(column, 3.0))],
                            lambda x, w, r, column: [np.where(r > column, x @ w, column * 3)]),
        "by_position": Product([x, w], [build.multiply(y, build.iota((n, m), 1, "float32")),
                                        build.divide(y, build.size(m + 1))],
                               lambda x, w: [(x @ w) * np.arange(w.shape[1]), x @ w / (w.shape[1] + 1)]),
        "two_products": Product([x, w, other], [build.add(y, build.matmul(other, w))],
                                lambda x, w, other: [x @ w + other @ w]),
    }  # fmt: skip


SOME = [{"n": rows, "m": lanes, "k": depth} for rows, lanes, depth in (
    (1, 1, 1), (3, 10, 0), (4, 17, 5), (9, 33, 7), (16, 32, 8), (33, 65, 3), (8, 100, 20),
)]  # fmt: skip


@pytest.mark.parametrize("name", ["16x16", "64x32"])
@pytest.mark.parametrize("case", epilogues(n, m, k))
def test_epilogues(case: str, name: str) -> None:
    compiled = Compiled(epilogues(n, m, k)[case], TARGETS[name])
    for sizes in SOME:
        compiled.check(**sizes)
    for lanes, depth in ((10, 32), (33, 17)):
        compiled = Compiled(epilogues(n, lanes, depth)[case], TARGETS[name])
        for rows in (1, 5, 33):
            compiled.check(n=rows, k=depth)


def test_an_epilogue_takes_no_further_kernel() -> None:
    for case in ("bias_relu", "residual", "several", "compared", "by_position"):
        compiled = Compiled(epilogues(n, 32, 784)[case], TARGETS["32x16"])
        assert len(compiled.launches(n=128)) == 1, case
    residual = Compiled(epilogues(n, 32, 784)["residual"], TARGETS["32x16"])
    assert any(isinstance(s, Prefetch) for s in residual.statements())


def updated() -> dict[str, Product]:
    """Variables changed by products that read them, or others that they are operands of."""
    x, g = leaf("x", n, 19), leaf("g", n, 33)
    w, momentum, square, state = parameter(19, 33), parameter(19, 33), parameter(33, 33), parameter(21, 33)
    gradient = build.matmul(build.transpose(x, (1, 0)), g)
    change = build.add(build.multiply(momentum, 0.5), gradient)
    return {
        "weights": Product([x, g], [build.matmul(x, w)],
                           lambda x, g, w: [w - 0.1 * (x.T @ g), x @ w],
                           [(w, build.subtract(w, build.multiply(gradient, 0.1)))]),
        "momentum": Product([x, g], [build.sum(build.matmul(x, w), 1)],
                            lambda x, g, w, v: [w - (0.5 * v + x.T @ g), 0.5 * v + x.T @ g, (x @ w).sum(1)],
                            [(w, build.subtract(w, change)), (momentum, change)]),
        "by_itself": Product([], [], lambda v: [0.1 * (v @ v) + v],
                             [(square, build.add(build.multiply(build.matmul(square, square), 0.1), square))]),
        "rows_of_itself": Product([], [], lambda s, v: [np.maximum(s @ v + s, 0), v - s.T @ s],
                                  [(state, build.relu(build.add(build.matmul(state, square), state))),
                                   (square, build.subtract(square, build.matmul(
                                       build.transpose(state, (1, 0)), state)))]),
    }  # fmt: skip


UPDATED = updated()


@pytest.mark.parametrize("name", ["16x16", "64x32"])
@pytest.mark.parametrize("case", UPDATED)
def test_updates_in_place(case: str, name: str) -> None:
    compiled = Compiled(UPDATED[case], TARGETS[name])
    for rows in (1, 4, 33):
        compiled.check(n=rows, k=64)


def test_weights_are_updated_where_they_are() -> None:
    compiled = Compiled(UPDATED["weights"], TARGETS["32x16"])
    assert all(isinstance(s, Launch) for s in compiled.program.steps), compiled.program.steps  # and nothing copied


# ---- memory


PAGE = mmap.PAGESIZE


def before_a_wall(array: np.ndarray) -> np.ndarray:
    """A copy that ends where a page begins that must not be touched."""
    room = -(-array.nbytes // PAGE) * PAGE
    whole = np.frombuffer(mmap.mmap(-1, PAGE + room + PAGE), np.uint8)
    libc = ctypes.CDLL(None)
    for wall in (0, PAGE + room):
        if libc.mprotect(ctypes.c_void_p(address_of(whole) + wall), ctypes.c_size_t(PAGE), 0):
            raise OSError("mprotect failed")
    moved = whole[PAGE + room - array.nbytes : PAGE + room].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def touch_all_but_walls() -> None:
    """Ends the process if a product reads or writes beside its operands or its result."""
    for name in MAIN_TARGETS:
        for form in (*MAIN_FORMS, "bnk,bkm->bnm"):
            compiled = Compiled(contraction(form, SYMBOLS), TARGETS[name], before_a_wall)
            for sizes in SIZES:
                compiled.check(**sizes)
        for case in UPDATED:
            Compiled(UPDATED[case], TARGETS[name], before_a_wall).check(n=9, k=64)


@pytest.mark.skipif(sys.platform == "win32", reason="walls are made with mprotect")
def test_nothing_beside_the_operands_is_touched() -> None:
    """In a process of its own: this one could not survive it."""
    command = "from tests.compiler.test_contraction import touch_all_but_walls as touch; touch()"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", command], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
