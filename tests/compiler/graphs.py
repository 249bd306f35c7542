"""Random graphs, and arrays to run them on: what a fuzzer of the compiler needs.

Everything is decided by `choose(k)`, a number below k: hypothesis shrinks it, a seeded generator explores with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.sizes import Dim, evaluate, product, symbol
from gnomon.tensor import Tensor
from gnomon.variable import Variable

Choose = Callable[[int], int]
n, m = symbol("n"), symbol("m")
DIMS: tuple[Dim, ...] = (n, m, 1, 3, 8, 20)
SIZES = ({"n": 1, "m": 1}, {"n": 3, "m": 5}, {"n": 9, "m": 2}, {"n": 33, "m": 17})
_keys = count(3_000_000)

FLOAT_UNARY = (
    "negative abs sign square sqrt exp log1p tanh sigmoid softplus relu sin floor round reciprocal erf".split()
)
INTEGER_UNARY = "negative abs square sign".split()
BINARY = "add subtract multiply maximum minimum".split()
COMPARE = "less greater_equal equal not_equal".split()
LOGICAL = "logical_and logical_or logical_xor".split()
MOST = 20_000
"""Elements that a node may have at the largest sizes."""


@dataclass
class Made:
    """A graph: its arguments, results and updates of variables."""

    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    updates: dict[Variable, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


def make(choose: Choose, steps: int = 12) -> Made:
    """A graph of about `steps` ops."""
    made = Made()
    pick = lambda options: options[choose(len(options))]
    # two arguments tell the sizes
    for shape in ((n, m), (m,)):
        made.inputs.append(_leaf("float32", shape))
    for _ in range(1 + choose(3)):
        dtype = pick(("float32", "float32", "float32", "float64", "int32", "bool"))
        made.inputs.append(_leaf(dtype, tuple(pick(DIMS) for _ in range(choose(4)))))
    made.nodes = [x for x in made.inputs if _count(x) <= MOST]
    variables = []
    if choose(2):
        like = pick([x for x in made.nodes if all(isinstance(d, int) for d in x.shape)] or [_leaf("float32", (8, 3))])
        variable = Variable(np.ones(like.shape), dtype=like.dtype, name="v")
        variables.append(variable)
        made.nodes.append(variable.node)
    for _ in range(steps):
        node = pick(STEPS)(made.nodes, choose)
        if node is not None and _count(node) <= MOST:
            made.nodes.append(node)
    for variable in variables:
        same = [x for x in made.nodes if x.type == variable.node.type]
        made.updates[variable] = Tensor(pick(same[::-1]))
    computed = [x for x in made.nodes if x.inputs] or made.nodes
    made.outputs = [computed[-1], *(pick(computed) for _ in range(choose(3)))]
    return made


def arrays(made: Made, sizes: Mapping[str, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Values of the arguments: small numbers, many of them whole, zeros and signs among them."""
    return [value(x, sizes, rng) for x in made.inputs]


def value(leaf: Node, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    shape = tuple(evaluate(d, sizes) for d in leaf.shape)
    numpy = dtypes.named(leaf.dtype).numpy
    if numpy.kind == "b":
        return rng.integers(0, 2, shape).astype(numpy)
    if numpy.kind in "iu":
        return rng.integers(-9 if numpy.kind == "i" else 0, 10, shape).astype(numpy)
    drawn = rng.standard_normal(shape)
    return dtypes.rounded(leaf.dtype, np.where(rng.random(shape) < 0.3, np.round(drawn), drawn))


def _leaf(dtype: str, shape: Sequence[Dim]) -> Node:
    key = next(_keys)
    return Input(key, f"x{key - 3_000_000}", dtype, tuple(shape))()


def _count(node: Node) -> int:
    return evaluate(product(node.shape), SIZES[-1])


def _is_float(x: Node) -> bool:
    return dtypes.is_float(x.dtype)


# ---- steps: a node made of nodes that there are, or None if none fits


def _unary(nodes: list[Node], choose: Choose) -> Node | None:
    x = nodes[choose(len(nodes))]
    if x.dtype == "bool":
        return build.logical_not(x)
    names = FLOAT_UNARY if _is_float(x) else INTEGER_UNARY
    name = names[choose(len(names))]
    if name in ("sqrt", "log1p", "reciprocal"):
        x = build.add(build.abs(x), 0.5)
    return build.apply(name, x)


def _pair(nodes: list[Node], choose: Choose) -> tuple[Any, Any] | None:
    """Two nodes that broadcast together, or a node and a number."""
    x = nodes[choose(len(nodes))]
    if choose(4) == 0:
        number: Any = (True, False)[choose(2)] if x.dtype == "bool" else (0, 1, 2, -1, 0.5, -3)[choose(6)]
        if not _is_float(x) and number == 0.5:
            number = 3
        return (x, number) if choose(2) else (number, x)
    fitting = [y for y in nodes if _fits(x, y)]
    return x, fitting[choose(len(fitting))]


def _fits(x: Node, y: Node) -> bool:
    if (x.dtype == "bool") != (y.dtype == "bool") or _is_float(x) != _is_float(y):
        return False
    pairs = list(zip(x.shape[::-1], y.shape[::-1], strict=False))
    return all(a == b or a == 1 or b == 1 for a, b in pairs)


def _binary(nodes: list[Node], choose: Choose) -> Node | None:
    pair = _pair(nodes, choose)
    if pair is None:
        return None
    kind = next(x.dtype for x in pair if isinstance(x, Node))
    names = LOGICAL + ["equal"] if kind == "bool" else BINARY * 2 + COMPARE + (["divide"] if kind != "int32" else [])
    name = names[choose(len(names))]
    a, b = pair
    if name == "divide":
        b = build.add(build.square(b), 0.5) if isinstance(b, Node) else b or 2
    return build.apply(name, a, b)


def _where(nodes: list[Node], choose: Choose) -> Node | None:
    pair = _pair(nodes, choose)
    conditions = [c for c in nodes if c.dtype == "bool"]
    if pair is None or not conditions:
        return None
    c = conditions[choose(len(conditions))]
    shaped = [x for x in pair if isinstance(x, Node)]
    bare = [build.broadcast_to(build.constant(0.0), x.shape) for x in (*shaped, c)]
    if not all(_shapes_fit(a.shape, b.shape) for a in bare for b in bare):
        return None
    return build.where(c, *pair)


def _shapes_fit(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return all(x == y or x == 1 or y == 1 for x, y in zip(a[::-1], b[::-1], strict=False))


def _reduce(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank]
    if not ranked:
        return None
    x = ranked[choose(len(ranked))]
    axes = [k for k in range(x.rank) if choose(2)] or [choose(x.rank)]
    keep = bool(choose(2))
    if x.dtype == "bool":
        return (build.any, build.all, build.sum)[choose(3)](x, axes, keep)
    kinds: list[Any] = [build.sum, build.sum, build.max, build.min, build.mean]
    return kinds[choose(5)](x, axes, keep)


def _softmax(nodes: list[Node], choose: Choose) -> Node | None:
    rows = [x for x in nodes if x.rank and _is_float(x)]
    if not rows:
        return None
    x = rows[choose(len(rows))]
    axis = choose(x.rank)
    e = build.exp(build.subtract(x, build.max(x, axis, True)))
    share = build.divide(e, build.sum(e, axis, True))
    return (share, build.log(share), build.multiply(share, build.sum(build.square(share), axis, True)))[choose(3)]


def _normalize(nodes: list[Node], choose: Choose) -> Node | None:
    rows = [x for x in nodes if x.rank and _is_float(x)]
    if not rows:
        return None
    x = rows[choose(len(rows))]
    axis = choose(x.rank)
    centred = build.subtract(x, build.mean(x, axis, True))
    return build.divide(centred, build.sqrt(build.add(build.mean(build.square(centred), axis, True), 1e-3)))


def _argmax(nodes: list[Node], choose: Choose) -> Node | None:
    rows = [x for x in nodes if x.rank and x.dtype != "bool" and x.shape[-1] not in (n, m)]
    if not rows:
        return None
    x = rows[choose(len(rows))]
    return build.argmax(x, x.rank - 1)


def _product(nodes: list[Node], choose: Choose) -> Node | None:
    matrices = [x for x in nodes if x.rank >= 1 and _is_float(x)]
    pairs = [
        (x, w)
        for x in matrices
        for w in matrices
        if x.dtype == w.dtype
        and x.shape[-1] == w.shape[-2 if w.rank > 1 else 0]
        and (w.rank <= 2 or (x.rank > 1 and _shapes_fit(x.shape[:-2], w.shape[:-2])))
    ]
    if not pairs:
        return None
    return build.matmul(*pairs[choose(len(pairs))])


def _product_of_two(nodes: list[Node], choose: Choose) -> Node | None:
    """x' w, w x' and the like: gradients of products."""
    matrices = [x for x in nodes if x.rank == 2 and _is_float(x)]
    if not matrices:
        return None
    x = matrices[choose(len(matrices))]
    others = [w for w in matrices if w.dtype == x.dtype and any(a == b for a in x.shape for b in w.shape)]
    w = others[choose(len(others))]
    for a in (0, 1):
        for b in (0, 1):
            if x.shape[a] == w.shape[b] and choose(2):
                x_axes, w_axes = [0, 1], [2, 3]
                w_axes[b] = x_axes[a]
                out = [x_axes[1 - a], w_axes[1 - b]]
                return build.contract(x, w, x_axes, w_axes, out[:: 1 if choose(2) else -1])
    return None


def _transpose(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank > 1]
    if not ranked:
        return None
    x = ranked[choose(len(ranked))]
    axes = list(range(x.rank))
    order = [axes.pop(choose(len(axes))) for _ in range(x.rank)]
    return build.transpose(x, order)


def _reshape(nodes: list[Node], choose: Choose) -> Node | None:
    x = nodes[choose(len(nodes))]
    shape = list(x.shape)
    action = choose(4)
    if action == 0:
        shape.insert(choose(len(shape) + 1), 1)
    elif action == 1 and len(shape) > 1:
        k = choose(len(shape) - 1)
        shape[k : k + 2] = [shape[k] * shape[k + 1]]
    elif action == 2 and 1 in shape:
        shape.remove(1)
    else:
        split = [(k, f) for k, d in enumerate(shape) if isinstance(d, int) for f in (2, 4, 5) if d % f == 0 and d > f]
        if not split:
            return None
        k, f = split[choose(len(split))]
        shape[k : k + 1] = [shape[k] // f, f]  # type: ignore[operator]  # an integer
    return build.reshape(x, shape)


def _repeat(nodes: list[Node], choose: Choose) -> Node | None:
    x = nodes[choose(len(nodes))]
    if x.rank > 2:
        return None
    shape = list(x.shape)
    shape.insert(choose(len(shape) + 1), DIMS[choose(len(DIMS))])
    axes = list(range(len(shape)))
    skipped = next((k for k in axes if [shape[a] for a in axes if a != k] == list(x.shape)), 0)
    return build.broadcast(x, shape, [a for a in axes if a != skipped])


def _slice(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank]
    if not ranked:
        return None
    x = ranked[choose(len(ranked))]
    axis = choose(x.rank)
    start: list[Dim] = [0] * x.rank
    size, step = list(x.shape), [1] * x.rank
    extent = x.shape[axis]
    if choose(3) == 0:
        return build.flip(x, [axis])
    if not isinstance(extent, int) or extent == 1:
        return None
    start[axis] = choose(extent)
    step[axis] = (1, 2, -1)[choose(3)]
    left = extent - start[axis] if step[axis] > 0 else start[axis] + 1  # type: ignore[operator]  # integers
    size[axis] = 1 + choose(-(-left // abs(step[axis])))
    return build.slice(x, start, size, step)


def _pad(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank and x.dtype != "bool"]
    if not ranked:
        return None
    x = ranked[choose(len(ranked))]
    low, high, interior = ([choose(3) if choose(2) else 0 for _ in x.shape] for _ in range(3))
    if choose(3):
        interior = [0] * x.rank
    return build.pad(x, low, high, interior, (0, 2)[choose(2)])


def _concat(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank]
    if not ranked:
        return None
    x = ranked[choose(len(ranked))]
    axis = choose(x.rank)
    rest = lambda y: (y.rank, y.dtype, [d for k, d in enumerate(y.shape) if k != axis])
    fitting = [y for y in ranked if y.rank == x.rank and rest(y) == rest(x)]
    return build.concat([x, fitting[choose(len(fitting))]], axis)


def _gather(nodes: list[Node], choose: Choose) -> Node | None:
    ranked = [x for x in nodes if x.rank]
    places = [i for i in nodes if i.dtype == "int32" and i.rank <= 2]
    if not ranked or not places:
        return None
    x, i = ranked[choose(len(ranked))], places[choose(len(places))]
    axis = choose(x.rank)
    i = build.abs(i)
    if choose(3) == 0 and i.rank == 1 and _is_float(x) and x.shape[axis] == i.shape[0]:
        return build.scatter_add(i, x, 7, axis)
    return build.gather(x, i, axis) if x.rank + i.rank <= 4 else None


def _cast(nodes: list[Node], choose: Choose) -> Node | None:
    x = nodes[choose(len(nodes))]
    return build.cast(x, ("float32", "float64", "int32", "bool", "float32", "float16")[choose(6)])


def _count_up(nodes: list[Node], choose: Choose) -> Node | None:
    x = nodes[choose(len(nodes))]
    if not x.rank:
        return build.size(m, "float32")
    return build.iota(x.shape, choose(x.rank), ("int32", "float32")[choose(2)])


STEPS = [
    _unary, _unary, _binary, _binary, _binary, _where, _reduce, _reduce, _softmax, _normalize, _argmax, _product,
    _product_of_two, _transpose, _reshape, _repeat, _slice, _pad, _concat, _gather, _cast, _count_up,
]  # fmt: skip

__all__ = ["SIZES", "Made", "arrays", "make", "value"]
