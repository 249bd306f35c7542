"""Every row of the op table: the oracle against the formula, gradients, batching, compiled code against the oracle."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

import numpy as np
import pytest

from gnomon.compiler import dtypes, ops
from gnomon.compiler.grad import jvp, vjp
from gnomon.compiler.graph import Node, Op, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import control, elementwise, leaves
from gnomon.compiler.ops.scalar import SCALAR
from gnomon.compiler.vectorize import vectorize
from gnomon.functions import function
from gnomon.tensor import Tensor
from tests.op_table import ROWS, Row, generator, names

SMOOTH = [r for r in ROWS if r.smooth and "float64" in r.dtypes]


def by_row(rows: Sequence[Row]):
    return pytest.mark.parametrize("row", rows, ids=names(rows))


def evaluated(outputs: Sequence[Node], inputs: Sequence[Node], arrays: Sequence[np.ndarray], sizes) -> list[np.ndarray]:
    return evaluate_graph(outputs, dict(zip(inputs, arrays, strict=True)), sizes)


@by_row(ROWS)
def test_the_oracle_gives_what_the_formula_says(row: Row) -> None:
    rng = generator(row)
    for dtype in row.dtypes:
        inputs, outputs = row.build(dtype)
        for sizes in row.sizes:
            arrays = row.arrays(sizes, dtype, rng)
            row.check(evaluated(outputs, inputs, arrays, sizes), row.expected(arrays), dtype, sizes)


def is_float(node: Node) -> bool:
    return dtypes.is_float(node.dtype)


@by_row(SMOOTH)
def test_gradients_agree_with_finite_differences(row: Row) -> None:
    """Along random directions v and for random cotangents u: u . J v, by reverse mode, forward mode and differences."""
    rng = generator(row)
    inputs, outputs = row.build("float64")
    wrt = [x for x in inputs if is_float(x)]
    results = [y for y in outputs if is_float(y)]
    seeds = [leaves.fresh_input("seed", y.type) for y in results]
    tangents = [leaves.fresh_input("tangent", x.type) for x in wrt]
    back = [np.zeros(()) if g is None else g for g in vjp(results, seeds, wrt)]
    forward = jvp(results, wrt, tangents)
    for sizes in row.sizes[:2]:
        arrays = row.arrays(sizes, "float64", rng)
        values = dict(zip(inputs, arrays, strict=True))
        u = [rng.standard_normal(np.shape(y)) for y in evaluate_graph(results, values, sizes)]
        v = [rng.standard_normal(values[x].shape) for x in wrt]
        step = 1e-6
        ends = []
        for sign in (1, -1):
            moved = {**values, **{x: values[x] + sign * step * d for x, d in zip(wrt, v, strict=True)}}
            ends.append(evaluate_graph(results, moved, sizes))
        difference = [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]
        numeric = sum(float(np.sum(d * w)) for d, w in zip(difference, u, strict=True))
        given = {**values, **dict(zip(seeds, u, strict=True)), **dict(zip(tangents, v, strict=True))}
        nodes = [g for g in back if isinstance(g, Node)]
        found = iter(evaluate_graph(nodes, given, sizes))
        gradients = [
            next(found) if isinstance(g, Node) else np.zeros(values[x].shape) for g, x in zip(back, wrt, strict=True)
        ]
        reverse = sum(float(np.sum(g * d)) for g, d in zip(gradients, v, strict=True))
        products = evaluate_graph(forward, given, sizes)
        for product, d in zip(products, difference, strict=True):
            np.testing.assert_allclose(product, d, rtol=1e-5, atol=1e-6, err_msg=f"forward mode, {dict(sizes)}")
        size = sum(float(np.sum(np.abs(d * w))) for d, w in zip(difference, u, strict=True))
        np.testing.assert_allclose(
            reverse, numeric, rtol=1e-5, atol=1e-6 * (1 + size), err_msg=f"reverse mode, {dict(sizes)}"
        )


@by_row([r for r in ROWS if not r.name.startswith("RandomBits")])
def test_batching_is_a_loop_over_slices(row: Row) -> None:
    """With all arguments mapped, and with each of several alone."""
    rng = generator(row)
    dtype = row.dtypes[0]
    inputs, outputs = row.build(dtype)
    sizes = row.sizes[min(1, len(row.sizes) - 1)]
    size = 3
    choices = [set(inputs)] if len(inputs) == 1 else [set(inputs), *({x} for x in inputs)]
    slices = [row.arrays(sizes, dtype, rng) for _ in range(size)]
    for mapped in choices:
        batched = {
            x: leaves.Input(x.op.key + 10**8, "batch", x.dtype, (size, *x.shape))() for x in inputs if x in mapped
        }
        whole = vectorize(outputs, batched, size)
        values = {batched[x]: np.stack([s[k] for s in slices]) for k, x in enumerate(inputs) if x in mapped}
        values |= {x: slices[0][k] for k, x in enumerate(inputs) if x not in mapped}
        got = evaluate_graph(whole, values, sizes)
        for i in range(size):
            one = [slices[i][k] if x in mapped else slices[0][k] for k, x in enumerate(inputs)]
            expected = evaluated(outputs, inputs, one, sizes)
            row.check([g[i] for g in got], [np.asarray(e) for e in expected], dtype, sizes)


def has_lowering(nodes: Sequence[Node]) -> bool:
    return not any(isinstance(x.op, control.Cond) for x in walk(nodes))


@by_row([r for r in ROWS if not r.guarded])
def test_compiled_code_agrees_with_the_oracle(row: Row) -> None:
    rng = generator(row)
    for dtype in row.dtypes:
        inputs, outputs = row.build(dtype)
        compiled = function(
            [Tensor(x) for x in inputs], [Tensor(y) for y in outputs], name=row.name, on_unused_input="ignore"
        )
        for sizes in row.sizes:
            arrays = row.arrays(sizes, dtype, rng)
            expected = [np.asarray(e) for e in evaluated(outputs, inputs, arrays, sizes)]
            row.check(compiled(*arrays), expected, dtype, sizes, factor=2)  # both sides may be wrong by the tolerance


@by_row(SMOOTH)
def test_compiled_gradients_agree_with_the_oracle(row: Row) -> None:
    rng = generator(row)
    inputs, outputs = row.build("float32")
    results = [y for y in outputs if is_float(y)]
    seeds = [leaves.fresh_input("seed", y.type) for y in results]
    gradients = [g for g in vjp(results, seeds, [x for x in inputs if is_float(x)]) if g is not None]
    compiled = function(
        [Tensor(x) for x in (*inputs, *seeds)], [Tensor(g) for g in gradients], name=row.name, on_unused_input="ignore"
    )
    for sizes in row.sizes:
        arrays = row.arrays(sizes, "float32", rng)
        shapes = [np.shape(y) for y in evaluated(results, inputs, arrays, sizes)]
        arrays += [rng.standard_normal(s).astype(np.float32) for s in shapes]
        expected = [np.asarray(g) for g in evaluated(gradients, [*inputs, *seeds], arrays, sizes)]
        row.check(compiled(*arrays), expected, "float32", sizes, factor=16)  # a few more operations than the row itself


def test_every_op_and_scalar_function_has_a_row() -> None:
    used: set[type] = set()
    scalars: set[str] = set()
    for row in ROWS:
        for node in walk(row.build(row.dtypes[0])[1]):
            used.add(type(node.op))
            if isinstance(node.op, elementwise.Elementwise):
                scalars.add(node.op.name)
    missing = sorted(set(SCALAR) - scalars)
    assert not missing, f"scalar functions without a row in tests/op_table.py: {missing}"
    known = set()
    for module in pkgutil.iter_modules(ops.__path__):
        for value in vars(importlib.import_module(f"gnomon.compiler.ops.{module.name}")).values():
            if (
                isinstance(value, type)
                and issubclass(value, Op)
                and value.__module__ == f"gnomon.compiler.ops.{module.name}"
            ):
                known.add(value)
    outside = {leaves.Parameter, control.Tuple}  # an Input to a graph; only there while a graph is vectorized
    assert not (lacking := sorted(c.__name__ for c in known - used - outside)), f"ops without a row: {lacking}"
