"""Weights of 8 bits: what a product multiplies with is stored as int8, with a scale for each channel of the result.

Post-training, calibrated on data that the caller gives. Values stay float32; only what is stored is smaller. For each
channel the scale is the one with the least error of the result, the second moments of what is multiplied taken from the
data (Nagel et al. 2021, "A White Paper on Neural Network Quantization", sections 2.4 and 3.1), and what the rounding
still adds on the average is taken off again (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
Bias Correction", section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gnomon.compiler.errors import DataError
from gnomon.compiler.graph import Node, TensorType, inherit, origins, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, StopGradient
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.ops.patches import Patches
from gnomon.compiler.ops.scan import Scan
from gnomon.compiler.ops.shape import Equate, Reshape, Slice, Transpose
from gnomon.compiler.sizes import Dim, product
from gnomon.functions import Function, Graph
from gnomon.variable import Variable, variable_of

LEVELS = 127
"""The largest number of 8 bits whose negative is one too."""

FEWEST = 16
"""Weights that are fewer stay as they are, and so do those that their scales would not make smaller."""

TRIED = np.linspace(0.4, 1.0, 61)
"""Fractions of the largest weight of a channel that its scale is tried with."""

CUT = np.linspace(0.3, 1.0, 15)
"""Fractions of the largest value of an array that its step is tried with, where products are of whole numbers."""

DEEPEST = 2**31 // (255 * LEVELS)
"""Products of 8 bits whose sum is sure to fit 32."""

MOVES = (Equate, Patches, Reshape, Slice, StopGradient, Transpose)
"""Ops that only move elements."""

ROWS = 32
"""Samples that the data are taken in."""


@dataclass
class Weights:
    """The weights of one product: where they are, and what the data say of what they are multiplied with."""

    product: Node
    value: np.ndarray
    side: int  # which operand they are
    label: str
    moments: np.ndarray = field(default_factory=lambda: np.zeros(0))
    means: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def own(self) -> tuple[int, ...]:
        """The numbers of the weights' axes."""
        op: Any = self.product.op
        return op.w if self.side else op.x

    @property
    def other(self) -> tuple[int, ...]:
        op: Any = self.product.op
        return op.x if self.side else op.w

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of the axes that have scales of their own."""
        op: Any = self.product.op
        return tuple(a for a in self.own if a in op.out)

    @property
    def shared(self) -> tuple[int, ...]:
        """Axes of the weights that the other operand has too."""
        return tuple(a for a in self.own if a in self.other)


@dataclass(frozen=True)
class Report:
    """What became smaller, and what it cost.

    layers     the label, bytes before and bytes after of each product
    kept       layers whose weights stay float32, for they are used inside a loop
    before, after   accuracy, if there were labels; else None and the largest difference of an output
    """

    layers: tuple[tuple[str, int, int], ...]
    kept: tuple[str, ...]
    measure: str
    before: float | None
    after: float

    def __str__(self) -> str:
        lines = [f"{before:>12,} -> {after:,} bytes  {label}" for label, before, after in self.layers]
        lines += [f"{'':>12} as it is       {label}" for label in self.kept]
        if self.before is None:
            lines.append(f"{self.measure}: {self.after:.3g}")
        else:
            lines.append(f"{self.measure}: {self.before:.2%} -> {self.after:.2%} ({self.after - self.before:+.2%})")
        return "\n".join(lines)


def quantize(
    graph: Graph,
    arrays: Sequence[np.ndarray],
    labels: np.ndarray | None = None,
    in_place: bool = False,
    whole: bool = False,
    compared: Sequence[np.ndarray] | None = None,
) -> tuple[Graph, Report]:
    """The graph with weights of 8 bits, and what that does to its results on data.

    arrays     for each input, the first axis being the samples: what scales are chosen by
    compared   other ones that results are compared on, if not those
    labels     classes of those (whole numbers, or one for each class), if the accuracy is wanted
    in_place   compute so that weights are never stored as float32 again, not even for a moment: slower where there are
               caches, smaller where there are none
    whole      in place, and products are of whole numbers: what weights are multiplied with is rounded to 8 bits too,
               by steps that the data decide, and sums have 32

    Raises DataError for data that do not fit, or if there is nothing that could be stored so.
    """
    found, kept = _weights(graph)
    if not found:
        raise DataError(f"{graph.name!r} has no product with weights that 8 bits would make smaller")
    _observe(graph, found, arrays)
    steps = _steps(graph, found, arrays) if whole else {}
    small = _rewritten(graph, found, in_place or whole, steps)
    layers = [(w.label, w.value.nbytes, w.value.size + 8 * _count(w)) for w in found]
    measure, before, after = _compare(graph, small, arrays if compared is None else compared, labels)
    return small, Report(tuple(layers), kept, measure, before, after)


def _count(w: Weights) -> int:
    return int(np.prod([w.value.shape[w.own.index(a)] for a in w.channels]))


# ---- what there is


def _weights(graph: Graph) -> tuple[list[Weights], tuple[str, ...]]:
    """The products with weights that do not change, and the labels of loops that have some inside."""
    changed = {v.node for v in graph.updates}
    fixed: set[Node] = set()
    found: list[Weights] = []
    kept: dict[str, None] = {}
    values: dict[Node, np.ndarray] = {}
    for node in walk([*graph.outputs, *graph.updates.values()]):
        if isinstance(node.op, Parameter) and node not in changed:
            fixed.add(node)
            values[node] = variable_of(node).numpy()
        elif isinstance(node.op, Input):
            continue
        elif node.inputs and isinstance(node.type, TensorType) and all(x in fixed for x in node.inputs):
            fixed.add(node)
        elif isinstance(node.op, Scan) and any(x in fixed and x.rank > 1 for x in node.inputs):
            kept[_label(node)] = None
        if isinstance(node.op, Contract) and node.dtype == "float32" and node not in fixed:
            for side in (1, 0):
                x = node.inputs[side]
                count = product(x.shape)
                if x not in fixed or not isinstance(count, int) or count < FEWEST:
                    continue
                (value,) = evaluate_graph([x], values, {})
                weights = Weights(node, np.asarray(value), side, _label(node))
                if count + 8 * _count(weights) < 4 * count:
                    found.append(weights)
                    break
    return found, tuple(kept)


def _label(node: Node) -> str:
    return next((o.layer for o in origins(node) if getattr(o, "layer", "")), node.op.__class__.__name__.lower())


# ---- what the data say


def _observe(graph: Graph, found: Sequence[Weights], arrays: Sequence[np.ndarray]) -> None:
    """Means and second moments of what each weight is multiplied with, over the samples and places."""
    outputs: list[Node] = []
    for w in found:
        x = w.product.inputs[1 - w.side]
        rest = [k for k, a in enumerate(w.other) if a not in w.shared]
        sums = [build.reduce("sum", y, rest) for y in (x, build.apply("multiply", x, x))]
        order = [a for a in w.other if a in w.shared]
        back = [order.index(a) for a in w.shared]
        outputs += [build.transpose(y, back) if back != sorted(back) else y for y in sums]
        outputs.append(build.size(product(x.shape[k] for k in rest), "float32"))
    totals = [r.astype(np.float64).sum(0) for r in _gathered(graph, "moments", outputs, arrays)]
    for k, w in enumerate(found):
        total, squares, count = totals[3 * k : 3 * k + 3]
        times = max(float(count), 1.0)
        w.means, w.moments = total / times, squares / times


@dataclass(frozen=True)
class Whole:
    """How numbers are rounded to whole ones: by steps, to a dtype of 8 bits with and without a sign."""

    step: float
    dtype: str

    @property
    def most(self) -> int:
        return LEVELS if self.dtype == "int8" else 255

    def round(self, x: Node) -> Node:
        """The numbers of steps that values are, as floats."""
        scaled = build.apply("multiply", x, build.full(x.shape, 1 / self.step))
        low = -self.most if self.dtype == "int8" else 0
        cut = build.apply("minimum", build.apply("maximum", scaled, build.full(x.shape, low)),
                          build.full(x.shape, self.most))  # fmt: skip
        return build.apply("round", cut)


def _source(x: Node) -> tuple[Node, list[Node]]:
    """The node whose elements `x` only moves, and the moves, the last first. What is padded is padded before: a product
    does not ask for each number whether it is there."""
    moves = []
    while isinstance(x.op, MOVES):
        moves.append(x)
        x = x.inputs[0]
    return x, moves


def _steps(graph: Graph, found: Sequence[Weights], arrays: Sequence[np.ndarray]) -> dict[Node, Whole]:
    """How the values that products read are rounded: by the steps with the least error on the data. Those of products
    that have too many terms for 32 bits, or read other than float32, are not."""
    sources: dict[Node, None] = {}
    for w in found:
        op: Any = w.product.op
        deep = int(np.prod([d for a, d in zip(w.own, w.value.shape, strict=True) if a not in op.out]))
        source, _ = _source(w.product.inputs[1 - w.side])
        if deep <= DEEPEST and source.dtype == "float32":
            sources[source] = None
    nodes = list(sources)
    ends = [f(x, range(x.rank)) for x in nodes for f in (partial(build.reduce, "max"), partial(build.reduce, "min"))]
    results = [np.asarray(r, np.float64) for r in _gathered(graph, "ends", ends, arrays)]
    tried: list[Whole] = []
    for k in range(len(nodes)):
        high, low = results[2 * k].max(), results[2 * k + 1].min()
        dtype = "uint8" if low >= 0 else "int8"
        largest = max(high, -low) or 1.0
        tried += [Whole(float(np.float32(f * largest / (255 if dtype == "uint8" else LEVELS))), dtype) for f in CUT]
    errors = []
    for k, way in enumerate(tried):
        x = nodes[k // len(CUT)]
        error = build.apply("subtract", x, build.apply("multiply", way.round(x), build.full(x.shape, way.step)))
        errors.append(build.reduce("sum", build.apply("multiply", error, error), range(x.rank)))
    costs = np.array([r.sum() for r in _gathered(graph, "errors", errors, arrays)]).reshape(len(nodes), len(CUT))
    best = len(CUT) - 1 - costs[:, ::-1].argmin(1) if len(nodes) else []
    return {x: tried[k * len(CUT) + b] for k, (x, b) in enumerate(zip(nodes, best, strict=True))}


def _gathered(graph: Graph, what: str, outputs: Sequence[Node], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values of nodes of a graph, of all parts of the data, one behind the other."""
    look = Graph(f"{graph.name}_{what}", list(graph.inputs), list(outputs), {})
    look.variables, look.form = list(graph.variables), list(range(len(outputs)))
    observe = Function(look)
    parts = [observe(*part) for part in _parts(arrays)]
    return [np.stack([np.asarray(p[k]) for p in parts]) for k in range(len(outputs))]


def _parts(arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    rows = len(arrays[0]) if arrays and arrays[0].ndim else 0
    if not rows or any(len(a) != rows for a in arrays):
        raise DataError("data to calibrate with are arrays with the same number of samples, at least 1")
    return [[a[at : at + ROWS] for a in arrays] for at in range(0, rows, ROWS)]


# ---- what becomes of it


def _rounded(w: Weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 weights, their scales by channel, and what the rounding adds to the result on the average, by channel."""
    summed = tuple(k for k, a in enumerate(w.own) if a not in w.channels)
    axes = [k for k, a in enumerate(w.own) if a in w.shared]

    def spread(x: np.ndarray) -> np.ndarray:
        shape = [1] * len(w.own)
        for k, d in zip(axes, x.shape, strict=True):
            shape[k] = d
        return x.reshape(shape)

    weight, mean = spread(w.moments), spread(w.means)
    value = w.value.astype(np.float64)
    largest = np.abs(value).max(axis=summed, keepdims=True)
    best = np.full(largest.shape, np.inf)
    scale = np.ones(largest.shape)
    for fraction in TRIED:
        tried = np.where(largest > 0, fraction * largest / LEVELS, 1.0)
        error = value - tried * np.clip(np.rint(value / tried), -LEVELS, LEVELS)
        cost = (weight * error**2).sum(axis=summed, keepdims=True)
        better = cost <= best  # of equal ones the larger scale, which cuts nothing off
        best, scale = np.where(better, cost, best), np.where(better, tried, scale)
    scale = scale.astype(np.float32)
    small = np.clip(np.rint(value / scale), -LEVELS, LEVELS).astype(np.int8)
    added = (mean * (small * scale.astype(np.float64) - value)).sum(axis=summed)
    return small, np.squeeze(scale, summed), added.astype(np.float32)


def _rewritten(graph: Graph, found: Sequence[Weights], in_place: bool, steps: Mapping[Node, Whole]) -> Graph:
    """The graph with products of int8 weights."""
    by_node = {w.product: w for w in found}
    read: dict[Node, Node] = {}  # what products read, in 8 bits
    variables: list[Variable] = []
    new: dict[Node, Node] = {}
    roots = [*graph.outputs, *graph.updates.values()]
    for node in walk(roots):
        inputs = tuple(new[x] for x in node.inputs)
        if node in by_node:
            w = by_node[node]
            source, moves = _source(node.inputs[1 - w.side])
            with inherit(node):
                if source in steps:
                    if source not in read:
                        way = steps[source]
                        read[source] = build.cast(way.round(new[source]), way.dtype)
                    x = read[source]
                    for move in reversed(moves):
                        x = Node(move.op, (x,))
                    new[node] = _product(w, x, in_place, variables, steps[source].step)
                else:
                    new[node] = _product(w, inputs[1 - w.side], in_place, variables)
        elif inputs == node.inputs:
            new[node] = node
        else:
            with inherit(node):
                new[node] = Node(node.op, inputs)
    small = Graph(
        graph.name, list(graph.inputs), [new[n] for n in graph.outputs], {v: new[n] for v, n in graph.updates.items()}
    )
    used = {n for n in walk([*small.outputs, *small.updates.values()]) if isinstance(n.op, Parameter)}
    small.variables = [v for v in (*graph.variables, *variables) if v.node in used]
    small.form = graph.form
    return small


def _product(w: Weights, x: Node, in_place: bool, variables: list[Variable], step: float | None = None) -> Node:
    """`x` times int8 weights. With a `step`, x is whole numbers of steps, and so is the sum."""
    op: Any = w.product.op
    small, scale, added = _rounded(w)
    stored = Variable(small, name=f"{w.label}/int8", trainable=False)
    scales = Variable(scale * np.float32(step or 1), name=f"{w.label}/scale", trainable=False)
    offset = Variable(-added, name=f"{w.label}/offset", trainable=False)
    variables += [stored, scales, offset]
    weights = stored.node
    if in_place:
        extent: dict[int, Dim] = dict(zip(w.other, x.shape, strict=True)) | dict(zip(w.own, small.shape, strict=True))
        summed = [a for a in (*w.other, *w.own) if a not in op.out]
        axes = [*op.out, *dict.fromkeys(summed)]
        shape = tuple(extent[a] for a in axes)
        dtype = "float32" if step is None else "int32"
        left = build.broadcast(_ordered(x, w.other, axes), shape, sorted(axes.index(a) for a in w.other))
        right = build.broadcast(_ordered(weights, w.own, axes), shape, sorted(axes.index(a) for a in w.own))
        terms = build.apply("multiply", build.cast(left, dtype), build.cast(right, dtype))
        result = build.cast(build.reduce("sum", terms, list(range(len(op.out), len(axes)))), "float32")
    else:
        weights = build.cast(weights, "float32")
        result = Node(op, (x, weights) if w.side else (weights, x))
    places = [op.out.index(a) for a in w.channels]
    order = sorted(range(len(places)), key=lambda k: places[k])
    for name, variable in (("multiply", scales), ("add", offset)):
        along = build.transpose(variable.node, order) if order != sorted(order) else variable.node
        result = build.apply(name, result, build.broadcast(along, result.shape, sorted(places)))
    return result


def _ordered(x: Node, own: Sequence[int], axes: Sequence[int]) -> Node:
    """x with its axes in the order in which `axes` has them."""
    order = sorted(range(len(own)), key=lambda k: axes.index(own[k]))
    return build.transpose(x, order) if order != sorted(order) else x


def rounded(outputs: Sequence[Node]) -> list[Node]:
    """The nodes of a graph that are values rounded to 8 bits: what is made once, and read by products."""
    return [
        n for n in walk(outputs)
        if isinstance(n.op, Cast) and n.dtype in ("int8", "uint8") and n.inputs[0].dtype == "float32"
    ]  # fmt: skip


# ---- what it costs


def _compare(
    graph: Graph, small: Graph, arrays: Sequence[np.ndarray], labels: np.ndarray | None
) -> tuple[str, float | None, float]:
    results = []
    for g in (graph, small):
        copy = Graph(g.name, list(g.inputs), list(g.outputs[:1]), {})
        copy.variables, copy.form = list(g.variables), 0
        run = Function(copy)
        results.append(np.concatenate([run(*part) for part in _parts(arrays)]))
    if labels is None:
        return "largest difference of an output", None, float(np.abs(results[0] - results[1]).max())
    labels = np.asarray(labels)
    if len(labels) != len(results[0]):
        raise DataError(f"there are {len(labels)} labels for {len(results[0])} samples")
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(-1)
    labels = labels.reshape(len(labels), -1)[:, 0] if labels.ndim > 1 else labels
    accuracies = [_accuracy(r, labels) for r in results]
    return "accuracy", accuracies[0], accuracies[1]


def _accuracy(results: np.ndarray, labels: np.ndarray) -> float:
    several = results.ndim > 1 and results.shape[-1] > 1
    classes = results.argmax(-1) if several else results.reshape(len(results)) > 0.5
    return float((classes == labels).mean())


__all__ = ["Report", "quantize", "rounded"]
