"""A relu's gradient by cublasLt: from a bit for each element, and with the sums for a bias beside it.

A layer x w + b with relu is one call. If its gradient where(h > 0, g v, 0) is to be one too, the first call must also
store which elements of h are positive, as bits; and the sums of the gradient over all rows, which a bias is updated
with, are had in the same call. So what a call stores depends on what comes later:

    around      what there is around a product: arrays that a call made by relu, and whether sums over rows are wanted
    take_sums   lets the sums be made by the call instead of where they were to be
    connected   the call of the gradient, and the first one changed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gnomon.compiler.graph import Node, TensorType
from gnomon.compiler.kernel import Buffer
from gnomon.compiler.lowering.cuda_call import Around, Call
from gnomon.compiler.lowering.cuda_matmul import bits
from gnomon.compiler.lowering.fuse import Group
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.program import Library
from gnomon.compiler.sizes import Dim, floordiv

RELU, MASKED = "relu", "relu_mask"


def around(plan: Any, group: Group, names: Mapping[Node, Buffer]) -> Around:
    """What there is around a product. `plan` is that of `compile`."""
    relus: list[tuple[str, Dim, Dim]] = []
    for node, buffer in names.items():
        made = _maker(plan, plan.slot_of[node])
        if made is not None and node not in group.members:
            relus.append((buffer.name, *_sizes(made)))
    sums = _sums(plan, group) if relus else None
    return Around(tuple(relus), 0 if sums is None else sums.shape[0], bool(plan.loops))


def _maker(plan: Any, slot: int) -> Library | None:
    """The call that made what a slot holds by relu, among the steps so far."""
    for step in plan.steps:
        if isinstance(step, Library) and step.name == "cublaslt.matmul" and step.outputs[0] == slot:
            told = dict(step.parameters)
            if told["epilogue"] in (RELU, MASKED) and told["batch"] == 1:
                return step
    return None


def _sizes(step: Library) -> tuple[Dim, Dim]:
    """Rows and columns of what a call makes."""
    told = dict(step.parameters)
    m, n = told["m"], told["n"]
    assert not isinstance(m, str), step
    assert not isinstance(n, str), step
    return m, n


def _sums(plan: Any, group: Group) -> Node | None:
    """The sums over all rows of the last thing that a group computes, if another group was to compute them, and nobody
    has said where."""
    last = group.members[-1]
    for reader in plan.readers.get(last, ()):
        for node in reader.members if reader is not group and not reader.special else ():
            axes = tuple(range(last.rank - 1))
            if node.op == Reduce("sum", axes) and node.inputs[0] is last and node not in plan.slot_of:
                return node
    return None


def take_sums(plan: Any, group: Group, names: dict[Node, Buffer], code: Sequence[Any]) -> None:
    """If a call makes the sums over rows too, they belong to its group, and have memory."""
    call = next((made for made in code if isinstance(made, Call) and made.sums is not None), None)
    if call is None or call.sums is None:
        return
    node = _sums(plan, group)
    assert node is not None, group
    plan._memory(node)
    names[node] = call.sums
    plan.of[node].members.remove(node)
    group.members.append(node)
    plan.of[node] = group


def connected(plan: Any, call: Call, step: Library, made: int, lowered: Sequence[Any]) -> Library:
    """The step of a call that wants to know where the elements of slot `made` are positive: whoever made it stores that
    from now on."""
    first = _maker(plan, made)
    assert first is not None, call
    told = dict(first.parameters)
    if told["epilogue"] == RELU:
        rows, columns = _sizes(first)
        width = bits(columns)
        mask = plan._slot("positive", TensorType("uint8", (rows, floordiv(width, 8))), "temporary")
        parameters = (*(told | {"epilogue": MASKED}).items(), ("ld_mask", width))
        new = replace(first, outputs=(*first.outputs, mask), parameters=parameters)
        plan.steps[next(k for k, s in enumerate(plan.steps) if s is first)] = new
        for group in lowered:
            group.launches = [new if s is first else s for s in group.launches]
        first = new
    return replace(step, inputs=(*step.inputs, first.outputs[1]))


__all__ = ["around", "connected", "take_sums"]
