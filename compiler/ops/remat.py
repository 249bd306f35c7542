"""Computing again instead of keeping: what a gradient reads of a computation is made anew from what went into it.

Equal nodes are one node, so that what is computed again would be what was computed before. It reads its inputs through
`After`, which makes it another computation, and one that cannot begin before the gradient it is for has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, Op, TupleType, inherit, replace, walk
from gnomon.compiler.ops.control import WALKS, SubGraph
from gnomon.compiler.ops.leaves import Input, Parameter, fresh_input
from gnomon.compiler.ops.random import RandomBits
from gnomon.compiler.ops.shape import Broadcast, Equate, Reshape, Transpose

VIEWS = (Broadcast, Equate, Reshape, Transpose)


@dataclass(frozen=True)
class After(Op):
    """The first input, once the others have been computed. It stays where it is: nothing is copied."""

    def infer(self, x, *awaited):
        return x

    def numpy(self, env, x, *awaited):
        return x

    def grad(self, g, out, x, *awaited):
        return (g, *(None for _ in awaited))

    def batch(self, size, inputs, mapped):
        return self(*inputs)

    def read(self, inputs):
        return inputs[:1]


def after(x: Node, awaited: Iterable[Node]) -> Node:
    """`x` for whoever must not read it before `awaited` are there.

    after(reshape(x)) is reshape(after(x)): what has no memory of its own is not given any.
    """
    shown = []
    while isinstance(x.op, VIEWS):
        shown.append(x.op)
        (x,) = x.inputs
    waited = list(dict.fromkeys(awaited))
    if isinstance(x.op, After):
        waited = list(dict.fromkeys((*x.inputs[1:], *waited)))
        x = x.inputs[0]
    if waited and (x.inputs or isinstance(x.op, Input) and not isinstance(x.op, Parameter)):
        x = After()(x, *waited)  # numbers, counting and variables are there at any time
    for op in reversed(shown):
        x = Node(op, (x,))
    return x


def without_waiting(outputs: Sequence[Node], leaves: Iterable[Node]) -> list[Node]:
    """`outputs` with every x itself for an `After` that waits for something made of `leaves`, unless x is too."""
    leaves = set(leaves)
    made, change = set(leaves), {}
    for node in walk(outputs):
        if any(x in made for x in node.op.read(node.inputs)):
            made.add(node)
        elif any(x in made for x in node.inputs):
            change[node] = node.inputs[0]
    while change:  # what an After gives may hold others
        outputs = replace(outputs, change)
        change = {n: x for n, x in change.items() if n in set(walk(outputs))}
    return list(outputs)


@dataclass(frozen=True)
class Checkpoint(Op):
    """The results of `body`, of whose gradient nothing is kept but what goes into it.

    Inputs: what the body takes. The last `lasting` of them are there at any time, like weights: nobody waits for them.
    result: a tuple of the results
    The body is a graph of its own and not made of its inputs, for whatever replaces nodes could cut it in the middle.
    Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost", section 3; each is one segment.
    """

    body: SubGraph
    lasting: int = 0

    def identity(self):
        return id(self.body)

    def infer(self, *types):
        assert types == tuple(x.type for x in self.body.inputs), (types, self.body.inputs)
        return TupleType(self.body.types)

    def numpy(self, env, *arrays):
        values = dict(zip(self.body.inputs, arrays, strict=True))
        return tuple(map(np.asarray, WALKS["evaluate_graph"](self.body.outputs, values, env.values)))

    def grad(self, g, out, *inputs):
        """The derivative of the results as they are made again, once their gradients are there."""
        leaves, results = self.body.inputs, self.body.outputs
        given = [k for k, gk in enumerate(g) if gk is not None]
        incoming = [g[k] for k in given]
        passing = len(inputs) - self.lasting
        again = {leaf: after(x, incoming) for leaf, x in zip(leaves[:passing], inputs[:passing], strict=True)}
        again |= dict(zip(leaves[passing:], inputs[passing:], strict=True))
        wanted = [results[k] for k in given]
        for state in _states(wanted, set(leaves[:passing])):
            again[state] = after(replace([state], again)[0], incoming)
        found = WALKS["vjp"](wanted, incoming, leaves)
        done = iter(replace([d for d in found if d is not None], again))
        return tuple(None if d is None else next(done) for d in found)

    def batch(self, size, inputs, mapped):
        leaves = [fresh_input("operand", x.type) for x in inputs]
        pairs = list(zip(self.body.inputs, leaves, mapped, strict=True))
        plain = replace(self.body.outputs, {a: b for a, b, m in pairs if not m})
        made = WALKS["vectorize"](plain, {a: b for a, b, m in pairs if m}, size)
        return Checkpoint(SubGraph(tuple(leaves), tuple(made)), self.lasting)(*inputs)

    def __repr__(self) -> str:
        return f"Checkpoint({self.body!r})"


def _states(results: Sequence[Node], passing: set[Node]) -> list[Node]:
    """What random bits are made of that depends on lasting inputs only: the bits would be kept, for they are the same
    when they are made again."""
    moved = set(passing)
    found: dict[Node, None] = {}
    for node in walk(results):
        if any(x in moved for x in node.inputs):
            moved.add(node)
        elif isinstance(node.op, RandomBits):
            found[node.inputs[0]] = None
    return list(found)


def checkpointed(results: Sequence[Node], arguments: Iterable[Node], newest: int) -> list[Node]:
    """`results` so that their gradients keep nothing but what the computation took: its arguments, variables and other
    leaves, and what was computed of data before it began.

    newest   the serial number of the last node that was there before
    """
    taken = {x for x in arguments if not isinstance(x.op, Parameter)}
    made: set[Node] = set()  # by the computation, of its arguments or anew
    data: set[Node] = set()  # there before, and not of variables and numbers alone
    for node in walk(results, stop=taken.__contains__):
        new = node.serial > newest and not (isinstance(node.op, Item) and node.inputs[0] in data)
        if node in taken or isinstance(node.op, Parameter):
            continue
        if isinstance(node.op, Input):  # the leaf of a variable inside a loop may be as new as what reads it
            data.add(node)
        elif new or any(x in taken or x in made for x in node.inputs):
            made.add(node)
        elif any(x in data for x in node.inputs):
            data.add(node)

    def is_taken(node: Node) -> bool:
        return node in taken or node in data or isinstance(node.op, Parameter)

    wrapped = [k for k, r in enumerate(results) if not is_taken(r) and dtypes.is_float(r.dtype)]
    inside = [results[k] for k in wrapped]
    operands = [n for n in walk(inside, stop=is_taken) if is_taken(n)]
    lasting = {x for x in operands if isinstance(x.op, Parameter) or (isinstance(x.op, Input) and x not in taken)}
    if len(lasting) == len(operands):  # it has no arguments: leaves must wait, or nothing would be computed again
        lasting = {x for x in operands if isinstance(x.op, Parameter)}
    operands.sort(key=lasting.__contains__)
    leaves = [fresh_input("operand", x.type) for x in operands]
    body = SubGraph(tuple(leaves), tuple(replace(inside, dict(zip(operands, leaves, strict=True)))))
    whole = Checkpoint(body, len(lasting))(*operands)
    item = {k: Item(place)(whole) for place, k in enumerate(wrapped)}
    return [item.get(k, r) for k, r in enumerate(results)]


def inlined(roots: Sequence[Node]) -> list[Node]:
    """`roots` with the results of checkpoints computed where they are read, differentiation being over."""
    roots = list(roots)
    while True:  # a body may hold others
        order = walk(roots)
        if not any(isinstance(n.op, Checkpoint) for n in order):
            return roots
        done: dict[Node, Node] = {}
        results: dict[Node, list[Node]] = {}
        for node in order:
            inputs = tuple([done[x] for x in node.inputs])
            if isinstance(node.op, Checkpoint):
                done[node], results[node] = node, node.op.body(*inputs)
            elif isinstance(node.op, Item) and node.inputs[0] in results:
                done[node] = results[node.inputs[0]][node.op.k]
            elif inputs == node.inputs:
                done[node] = node
            else:
                with inherit(node):
                    done[node] = Node(node.op, inputs)
        roots = [done[r] for r in roots]


__all__ = ["After", "Checkpoint", "after", "checkpointed", "inlined", "without_waiting"]
