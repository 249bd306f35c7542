"""Choosing between two computations, and gradients that are given rather than derived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler.errors import DTypeError, GraphError, ShapeError
from gnomon.compiler.graph import Item, Node, Op, TensorType, TupleType, inherit, replace, walk
from gnomon.compiler.ops.leaves import Input, fresh_input

WALKS: dict[str, Callable[..., Any]] = {}
"""How the graph around an op is evaluated, differentiated and batched, for the graphs inside it. These are levels above
the ops, so they enter themselves here."""


def walks_subgraphs(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: enter a function in WALKS under its name."""
    WALKS[fn.__name__] = fn
    return fn


@dataclass(frozen=True, eq=False)
class SubGraph:
    """A computation of its own over the leaves `inputs`; compared by identity. It reads nothing else but constants."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(o.type for o in self.outputs)

    def __call__(self, *values: Node) -> list[Node]:
        """The computation inlined on `values`."""
        return replace(self.outputs, dict(zip(self.inputs, values, strict=True)))

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self.types))})"


@dataclass(frozen=True)
class Cond(Op):
    """The results of `then` if the first input, a scalar bool, is true, else those of `orelse`; only one is computed.

    Inputs: the condition, then what both sub-graphs take in order.   result: a tuple
    """

    then: SubGraph
    orelse: SubGraph

    def infer(self, pred, *operands):
        if pred != TensorType("bool", ()):
            raise DTypeError(f"a condition must be a scalar bool, got {pred}")
        if self.then.types != self.orelse.types:
            raise ShapeError(
                f"both sides of a condition must give the same types, got {TupleType(self.then.types)} if true "
                f"and {TupleType(self.orelse.types)} if false"
            )
        for side in (self.then, self.orelse):
            assert tuple(x.type for x in side.inputs) == operands, (side.inputs, operands)
        return TupleType(self.then.types)

    def numpy(self, env, pred, *operands):
        side = self.then if pred else self.orelse
        values = dict(zip(side.inputs, operands, strict=True))
        return tuple(np.asarray(v) for v in WALKS["evaluate_graph"](side.outputs, values, env.values))

    def grad(self, g, out, pred, *operands):
        """A condition between the two derivatives, over the operands and the incoming gradients."""
        given = [k for k, gk in enumerate(g) if gk is not None]
        sides = [_derivative(side, given) for side in (self.then, self.orelse)]
        wanted = [k for k in range(len(operands)) if any(found[k] is not None for _, found in sides)]
        if not wanted:
            return (None, *(None for _ in operands))
        from gnomon.compiler.ops import build

        filled = []
        for inputs, found in sides:
            outputs = tuple(build.full_like(operands[k], 0) if (x := found[k]) is None else x for k in wanted)
            filled.append(SubGraph(inputs, outputs))
        whole = make_cond(pred, filled, (*operands, *(g[k] for k in given)))
        place = {k: i for i, k in enumerate(wanted)}
        return (None, *(Item(place[k])(whole) if k in place else None for k in range(len(operands))))

    def batch(self, size, inputs, mapped):
        """Where the condition differs between slices both sides are computed; else it stays one choice."""
        from gnomon.compiler.ops import build

        pred, *operands = inputs
        if not mapped[0]:
            spread = [x if m else build.repeat_first(x, size) for x, m in zip(operands, mapped[1:], strict=True)]
            sides = []
            for side in (self.then, self.orelse):
                leaves = tuple(fresh_input("operand", x.type) for x in spread)
                outputs = WALKS["vectorize"](side.outputs, dict(zip(side.inputs, leaves, strict=True)), size)
                sides.append(SubGraph(leaves, tuple(outputs)))
            return make_cond(pred, sides, spread)
        results = []
        for side in (self.then, self.orelse):
            change = {a: x for a, x, m in zip(side.inputs, operands, mapped[1:], strict=True) if m}
            plain = {a: x for a, x, m in zip(side.inputs, operands, mapped[1:], strict=True) if not m}
            results.append(WALKS["vectorize"](replace(side.outputs, plain), change, size))
        chosen = [build.where(build.broadcast(pred, a.shape, [0]), a, b) for a, b in zip(*results, strict=True)]
        return Tuple()(*chosen)

    def narrowed(self, kept, simpler):
        """The condition with only the results `kept` and what these need: (op, inputs kept, results kept).

        simpler   does the same to the ops inside both sides
        """
        sides = [simpler([side.outputs[k] for k in kept]) for side in (self.then, self.orelse)]
        read = set(walk([o for side in sides for o in side]))
        halves = (self.then, self.orelse)
        alive = [k for k in range(len(self.then.inputs)) if any(side.inputs[k] in read for side in halves)]
        then, orelse = (
            SubGraph(tuple(side.inputs[k] for k in alive), tuple(results))
            for side, results in zip(halves, sides, strict=True)
        )
        return Cond(then, orelse), [0, *(1 + k for k in alive)], list(kept)

    def __repr__(self) -> str:
        return f"Cond({self.then!r})"


@dataclass(frozen=True)
class Tuple(Op):
    """Several tensors as one node of several results."""

    def infer(self, *types):
        return TupleType(types)

    def numpy(self, env, *arrays):
        return arrays

    def grad(self, g, out, *inputs):
        return g

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        return Tuple()(*(x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True)))


def _derivative(side: SubGraph, given: Sequence[int]) -> tuple[tuple[Node, ...], list[Node | None]]:
    """Inputs (the operands, then gradients of the results `given`) and outputs of the derivative of a side."""
    incoming = tuple(fresh_input("gradient", side.outputs[k].type) for k in given)
    found = WALKS["vjp"]([side.outputs[k] for k in given], incoming, side.inputs)
    return (*side.inputs, *incoming), found


def capture(outputs: Sequence[Node], is_inside: Callable[[Node], bool]) -> tuple[list[Node], list[Node]]:
    """The outer values that a computation reads, and `outputs` as they are: nodes inside are those computed with it.

    Numbers and counting are made anew wherever they are needed, so they are inside.
    """
    order = walk(outputs, stop=lambda n: bool(n.inputs) and not is_inside(n))
    return [n for n in order if isinstance(n.op, Input) or (n.inputs and not is_inside(n))], list(outputs)


def make_cond(pred: Node, sides: Sequence[SubGraph], operands: Sequence[Node]) -> Node:
    """A Cond without the operands that neither side reads: a derivative by forward mode must not keep its dummies."""
    read = set(walk([o for side in sides for o in side.outputs]))
    kept = [k for k in range(len(operands)) if any(side.inputs[k] in read for side in sides)]
    then, orelse = (SubGraph(tuple(side.inputs[k] for k in kept), side.outputs) for side in sides)
    return Cond(then, orelse)(pred, *(operands[k] for k in kept))


def without_unused_results(outputs: Sequence[Node]) -> list[Node]:
    """`outputs` with every op that holds graphs reduced to the results that are read, and to the inputs these need."""
    order = walk(outputs)
    if not any(hasattr(n.op, "narrowed") for n in order):
        return list(outputs)
    needed = set(outputs)
    reduced: dict[Node, tuple[Op, list[int], list[int]]] = {}
    used: dict[Node, set[int]] = {}
    for node in reversed(order):
        if node not in needed:
            continue
        if isinstance(node.op, Item):
            used.setdefault(node.inputs[0], set()).add(node.op.k)
        if hasattr(node.op, "narrowed"):
            kept = sorted(used.get(node, range(len(node.type.items))))
            reduced[node] = node.op.narrowed(kept, without_unused_results)
            needed.update(node.inputs[k] for k in reduced[node][1])
        else:
            needed.update(node.inputs)
    new: dict[Node, Node] = {}
    for node in order:
        if node not in needed:
            continue
        if node in reduced:
            op, alive, _ = reduced[node]
            with inherit(node):
                new[node] = op(*(new[node.inputs[k]] for k in alive))
        elif isinstance(node.op, Item) and node.inputs[0] in reduced:
            new[node] = Item(reduced[node.inputs[0]][2].index(node.op.k))(new[node.inputs[0]])
        else:
            inputs = tuple(new[x] for x in node.inputs)
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            new[node] = node if same else Node(node.op, inputs)
    return [new[o] for o in outputs]


def choose(pred: Node, then: Sequence[Node], orelse: Sequence[Node], inside: tuple[Callable, Callable]) -> list[Node]:
    """`then` if `pred` is true, else `orelse`; `inside` says for each side which nodes are computed only if chosen."""
    sides = [capture(outputs, is_inside) for outputs, is_inside in zip((then, orelse), inside, strict=True)]
    read = list(dict.fromkeys(n for operands, _ in sides for n in operands))
    graphs = []
    for _, outputs in sides:
        leaves = [fresh_input("operand", n.type) for n in read]
        graphs.append(SubGraph(tuple(leaves), tuple(replace(outputs, dict(zip(read, leaves, strict=True))))))
    whole = make_cond(pred, graphs, read)
    return [Item(k)(whole) for k in range(len(then))]


@dataclass(frozen=True)
class WithGradient(Op):
    """The value of the last input, whose gradient with respect to the others is what `rule` makes of the incoming one.

    rule   gradient of the result -> one node, or None, per input but the last; compared by identity. It refers to no
           other node: when the graph is copied with other nodes, it would go on referring to the old ones. What does
           is for `with_gradient`
    """

    rule: Callable[[Node], Sequence[Node | None]]

    def identity(self):
        return id(self.rule)

    def essence(self):
        return ()  # programs are made when differentiation is over

    def infer(self, *types):
        return types[-1]

    def numpy(self, env, *arrays):
        return arrays[-1]

    def grad(self, g, out, *inputs):
        return (*self.rule(g), None)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        both = [x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True)]
        return WithGradient(_no_rule)(*both)

    def element(self, index, out, *inputs):
        return inputs[-1](*index)

    def __repr__(self) -> str:
        return "WithGradient"


def _no_rule(g: Node) -> Any:
    raise GraphError(
        "a function with a custom gradient was mapped over slices and then differentiated: differentiate inside "
        "vectorized_map instead"
    )


@dataclass(frozen=True)
class GivenGradient(WithGradient):
    """The value of the last input, whose gradients with respect to some of the others are those of a graph.

    rule   the graph: of the incoming gradient and all inputs but the last
    wrt    for each of its results, which input it is the gradient of
    All that the gradients are made of is among the inputs, and follows when the graph is copied with other nodes.
    """

    rule: SubGraph
    wrt: tuple[int, ...]

    def grad(self, g, out, *inputs):
        from gnomon.compiler.ops import build

        found: list[Node | None] = [None] * len(inputs)
        for place, gradient in zip(self.wrt, self.rule(g, *inputs[:-1]), strict=True):
            before = found[place]
            found[place] = gradient if before is None else build.add(before, gradient)
        return tuple(found)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        both = [x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True)]
        leaves = tuple(fresh_input("operand", TensorType(x.dtype, (size, *x.shape))) for x in self.rule.inputs)
        outputs = WALKS["vectorize"](self.rule.outputs, dict(zip(self.rule.inputs, leaves, strict=True)), size)
        return GivenGradient(SubGraph(leaves, tuple(outputs)), self.wrt)(*both)


def with_gradient(value: Node, wrt: Sequence[Node], rule: Callable[[Node], Sequence[Node | None]]) -> Node:
    """`value`, whose gradient with respect to each node of `wrt` is what `rule` makes of the incoming one, if anything.

    The rule is asked once, now. Of what it reads, all that does not depend on the incoming gradient becomes an input.
    """
    incoming = fresh_input("gradient", value.type)
    given = [(x, d) for x, d in zip(wrt, rule(incoming), strict=True) if d is not None]
    gradients = [d for _, d in given]
    moving = {incoming}
    used = list(gradients)
    for node in walk(gradients):
        if any(x in moving for x in node.inputs):
            moving.add(node)
            used += node.inputs
    read = dict.fromkeys([*wrt, *(x for x in used if x not in moving and (x.inputs or isinstance(x.op, Input)))])
    leaves = {x: fresh_input("operand", x.type) for x in read}
    body = SubGraph((incoming, *leaves.values()), tuple(replace(gradients, leaves)))
    place = {x: k for k, x in enumerate(read)}
    return GivenGradient(body, tuple(place[x] for x, _ in given))(*read, value)
