"""Computing again instead of keeping: what a gradient reads of a computation is made anew from what went into it.

Equal nodes are one node, so that what is computed again would be what was computed before. It reads its inputs through
`After`, which makes it another computation, and one that cannot begin before the gradient it is for has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, Op, TensorType, TupleType, replace, walk
from gnomon.compiler.ops.control import WALKS
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
    """The results of a computation, of which the gradient keeps nothing but what went into it.

    Inputs: the `count` tensors that it takes, then its results, of which each is made of those and of constants. The
    last `lasting` of what it takes are there at any time, such as weights: they need not be waited for.
    result: a tuple of the results
    Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost", section 3; each is one segment.
    """

    count: int
    lasting: int = 0

    def infer(self, *types):
        assert all(isinstance(t, TensorType) for t in types), types
        return TupleType(types[self.count :])

    def numpy(self, env, *arrays):
        return arrays[self.count :]

    def grad(self, g, out, *inputs):
        """The derivative of the results as they are made again of their inputs, once their gradients are there."""
        operands, results = inputs[: self.count], inputs[self.count :]
        passing = operands[: self.count - self.lasting]
        given = [k for k, gk in enumerate(g) if gk is not None]
        incoming = [g[k] for k in given]
        again: dict[Node, Node] = {}  # what stands for an operand -> the operand, when its time has come
        change: dict[Node, Node] = {}
        for x in (*passing, *_states([results[k] for k in given], operands, passing)):
            later = after(x, incoming)
            if later is not x and x not in change:
                change[x] = fresh_input("operand", x.type)
                again[change[x]] = later
        made = replace([results[k] for k in given], change)
        found = WALKS["vjp"](made, incoming, [change.get(x, x) for x in operands])
        present = [d for d in found if d is not None]
        done = iter(replace(present, again))
        return (*(None if d is None else next(done) for d in found), *(None for _ in results))

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        results = zip(inputs[self.count :], mapped[self.count :], strict=True)
        return self(*inputs[: self.count], *(x if m else build.repeat_first(x, size) for x, m in results))


def _states(results: Sequence[Node], operands: Sequence[Node], passing: Sequence[Node]) -> list[Node]:
    """What random bits are made of that depend on no operand but lasting ones: the bits would be kept, for they are the
    same when they are made again."""
    moved = set(passing)
    found: dict[Node, None] = {}
    for node in walk(results, stop=set(operands).__contains__):
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
    operands = [n for n in walk([results[k] for k in wrapped], stop=is_taken) if is_taken(n)]
    lasting = [x for x in operands if isinstance(x.op, Parameter) or (isinstance(x.op, Input) and x not in taken)]
    if len(lasting) == len(operands):  # it has no arguments: leaves must wait, or nothing would be computed again
        lasting = [x for x in operands if isinstance(x.op, Parameter)]
    operands = [*(x for x in operands if x not in set(lasting)), *lasting]
    whole = Checkpoint(len(operands), len(lasting))(*operands, *(results[k] for k in wrapped))
    item = {k: Item(place)(whole) for place, k in enumerate(wrapped)}
    return [item.get(k, r) for k, r in enumerate(results)]


__all__ = ["After", "Checkpoint", "after", "checkpointed", "without_waiting"]
