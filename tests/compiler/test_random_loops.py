"""Loops with random bodies: compiled, with both derivatives, they are what the interpreter computes."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from gnomon.compiler import verify
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.grad import vjp
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.shape import Equate
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import function
from gnomon.loops import loop
from gnomon.tensor import Tensor

T, B = symbol("steps"), symbol("batch")
_keys = count(7_000_000)
UNARY = ("tanh", "sin", "sigmoid", "negative")
BINARY = ("add", "multiply", "subtract", "maximum")


def leaf(*shape: Dim) -> Node:
    return Input(next(_keys), "x", "float64", shape)()


def grown(rng: np.random.Generator, leaves: list[Node], steps: int) -> list[Node]:
    """Nodes that are made of leaves at random; those that do not fit each other are left out."""
    pool = list(leaves)
    pick = lambda: pool[rng.integers(len(pool))]
    for _ in range(steps):
        x = pick()
        columns = x.shape[1] if x.rank == 2 else 0
        match int(rng.integers(8)):
            case 0 | 1:
                pool.append(build.apply(UNARY[rng.integers(4)], x))
            case 2 | 3:
                try:
                    made = build.apply(BINARY[rng.integers(4)], x, pick())
                except ShapeError:
                    continue
                if not any(isinstance(y.op, Equate) for y in walk([made])):  # a batch is no width
                    pool.append(made)
            case 4 if columns and (fitting := [w for w in pool if w.rank == 2 and w.shape[0] == columns]):
                pool.append(build.matmul(x, fitting[rng.integers(len(fitting))]))
            case 5 if x.rank:
                pool.append(build.mean(x, int(rng.integers(x.rank)), keepdims=bool(rng.integers(2))))
            case 6 if isinstance(columns, int) and columns > 1:
                begin = int(rng.integers(columns - 1))
                pool.append(build.slice(x, (0, begin), (x.shape[0], columns - begin)))
            case 7 if columns and (y := pick()).rank == 2 and y.shape[0] == x.shape[0]:
                pool.append(build.concat([x, y], 1))
    return pool


def like(rng: np.random.Generator, pool: list[Node], shape: tuple[Dim, ...]) -> Node:
    """Something of a shape, not large."""
    fitting = [x for x in pool if x.shape == shape]
    other = pool[rng.integers(len(pool))]
    x = build.multiply(build.tanh(fitting[rng.integers(len(fitting))]), 0.8)
    return build.add(x, build.multiply(build.tanh(build.mean(other)), 0.3))


@pytest.mark.parametrize("seed", range(12))
def test_random_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wide = int(rng.integers(1, 4))
    shapes = [(B, wide), (wide,), (), (wide, wide)][: rng.integers(1, 5)]
    first = [leaf(*s) for s in shapes]
    sequences = [leaf(T, *s) for s in [(B, wide), (wide,), (B, 5)][: rng.integers(1, 4)]]
    fixed = [leaf(*s) for s in [(wide, wide), (wide,), (5, wide), (wide, 2 * wide)][: rng.integers(0, 5)]]

    def step(counter: Tensor, carries: list[Tensor], slices: list[Tensor]) -> tuple:
        own = [t.node for t in (*carries, *slices)]
        pool = grown(rng, [*own, *fixed, build.cast(counter.node, "float64")], int(rng.integers(3, 16)))
        new = []
        for carry in own[: len(carries)]:
            value = like(rng, pool, carry.shape)
            new.append(build.add(carry, value) if rng.integers(5) == 0 else carry if rng.integers(9) == 0 else value)
        rows = [new[0], *(pool[rng.integers(len(pool))] for _ in range(rng.integers(3)))]
        return [Tensor(n) for n in new], [Tensor(r) for r in rows], None, {}

    every = int(rng.integers(1, 4)) if rng.integers(4) == 0 else 0
    found = loop(step, first, sequences, T, reverse=bool(rng.integers(2)), checkpoint_every=every)
    outputs = [*found.last, *found.stacks]
    inputs = [*first, *sequences, *fixed]
    seeds = [leaf(*y.shape) for y in outputs]
    back = [g for g in vjp(outputs, seeds, inputs) if g is not None]
    again = vjp(back, [build.full_like(g, 1.0) for g in back], inputs) if seed % 3 == 0 else []
    wanted = [*outputs, *back, *(g for g in again if g is not None)]
    given = [*inputs, *seeds]
    fn = function([Tensor(x) for x in given], [Tensor(y) for y in wanted], on_unused_input="ignore")
    verify.check_program(fn.program, fn.stages.kernels)
    for sizes in ({"steps": 4, "batch": 2}, {"steps": 1, "batch": 1}, {"steps": 0, "batch": 3}):
        arrays = [0.6 * rng.standard_normal([evaluate(d, sizes) for d in x.shape]) for x in given]
        expected = evaluate_graph(wanted, dict(zip(given, arrays, strict=True)), sizes)
        for k, (a, b) in enumerate(zip(fn(*arrays), expected, strict=True)):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"result {k}, {sizes}")
