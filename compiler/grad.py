"""Differentiation: reverse mode is a walk that calls each op's rule; forward mode is reverse mode applied twice."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DisconnectedError, DTypeError, ShapeError
from gnomon.compiler.graph import Item, Node, TupleType, inherit, origins, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import walks_subgraphs, without_unused_results
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.remat import without_waiting


@walks_subgraphs
def vjp(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    known: dict[Node, Node] | None = None,
    constants: Sequence[Node] = (),
) -> list[Node | None]:
    """The product of cotangents with the Jacobian of `outputs`: one gradient per node of `wrt`, None if disconnected.

    cotangents   one per output, of its type; None is zero
    known        gradients of some nodes given from outside; the walk goes on below them
    constants    nodes that gradients do not pass
    """
    total: dict[Node, Node] = {}
    parts: dict[Node, dict[int, Node]] = {}  # gradients of the items of ops with several results

    def give(node: Node, g: Node | None) -> None:
        if g is None or node in blocked or node not in needed or node in fixed:
            return
        if g.type != node.type:
            raise ShapeError(f"the gradient of {node.type} was given as {g.type}: {node!r}")
        if isinstance(node.op, Item):
            known_part = parts.setdefault(node.inputs[0], {})
            known_part[node.op.k] = build.add(known_part[node.op.k], g) if node.op.k in known_part else g
        total[node] = build.add(total[node], g) if node in total else g

    known = known or {}
    fixed: set[Node] = set()  # nodes whose gradient is known: nothing is added to it
    blocked = set(constants)
    order = walk([*outputs, *known], stop=lambda n: n in blocked)
    wanted = set(wrt)
    needed: set[Node] = set()
    for node in order:
        if node in wanted or any(x in needed for x in node.inputs):
            needed.add(node)
    for node, g in zip(outputs, cotangents, strict=True):
        give(node, g)
    for node, g in known.items():
        total.pop(node, None)
        give(node, g)
    fixed.update(known)
    for node in reversed(order):
        if node not in needed or not node.inputs or node in blocked:
            continue
        if isinstance(node.type, TupleType):
            if node not in parts:
                continue
            g_items = tuple(parts[node].get(k) for k in range(len(node.type.items)))
            with inherit(node):
                gradients = node.op.grad(g_items, node, *node.inputs)  # type: ignore[arg-type]
        elif isinstance(node.op, Item):
            continue
        else:
            g = total.get(node)
            if g is None or not any(x in needed for x in node.inputs):
                continue
            with inherit(node):
                gradients = node.op.grad(g, node, *node.inputs)
        with inherit(node):
            for x, gx in zip(node.inputs, gradients, strict=True):
                give(x, gx)
    return [total.get(x) for x in wrt]


def grad(
    cost: Node,
    wrt: Sequence[Node],
    known: dict[Node, Node] | None = None,
    constants: Sequence[Node] = (),
    disconnected: str = "raise",
) -> list[Node]:
    """Gradients of a scalar cost. `disconnected`: 'raise', 'zero' (or Theano's 'ignore').

    Raises ShapeError if `cost` is not a scalar, DTypeError if it is not a float, DisconnectedError if it does not
    depend on a node of `wrt`.
    """
    if cost.rank != 0:
        raise ShapeError(
            f"a gradient needs a scalar cost, got {cost.type} made at {_where(cost)}: sum or average it first"
        )
    if not dtypes.is_float(cost.dtype):
        raise DTypeError(f"a gradient needs a float cost, got {cost.type} made at {_where(cost)}")
    found = vjp([cost], [build.constant(1, cost.dtype)], wrt, known, constants)
    result = []
    for x, g in zip(wrt, found, strict=True):
        if g is None:
            if disconnected == "raise":
                raise DisconnectedError(
                    f"the cost ({cost.type} made at {_where(cost)}) does not depend on {x!r}, or only through "
                    "operations without a gradient (comparisons, integers, stop_gradient): its gradient would be zero. "
                    "Ask for disconnected_inputs='zero' if that is meant"
                )
            g = build.full_like(x, 0)
        result.append(g)
    return result


def jvp(outputs: Sequence[Node], wrt: Sequence[Node], tangents: Sequence[Node]) -> list[Node]:
    """The product of the Jacobian of `outputs` with tangents: one per output.

    Reverse mode is linear in its cotangent, so that its own reverse mode is the forward mode: Townsend 2017,
    "A new trick for calculating Jacobian vector products". The dummy cotangents vanish from the result.
    """
    dummies = [fresh_input(f"cotangent{k}", o.type) for k, o in enumerate(outputs)]
    back = vjp(outputs, dummies, wrt)
    pairs = [(b, t) for b, t in zip(back, tangents, strict=True) if b is not None]
    forward = vjp([b for b, _ in pairs], [t for _, t in pairs], dummies)
    forward = [build.full_like(o, 0) if f is None else f for o, f in zip(outputs, forward, strict=True)]
    return without_unused_results(without_waiting(forward, dummies))  # what is not read may still hold dummies


def _where(node: Node) -> str:
    return ", ".join(map(repr, origins(node))) or "an unknown place"
