"""In which order groups run: as they were made, but what frees memory runs as soon as it can.

A backward pass as it comes out of the graph computes all gradients of activations first and those of weights last, so
that at its end everything is alive. Whoever reads a value last frees it: such a group runs at once if what it frees is
not less than what it makes. The sum of all lifetimes falls, and what was just computed is read while it is in cache.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, TensorType
from gnomon.compiler.lowering.fuse import Group, Waiting, is_external
from gnomon.compiler.ops.remat import After
from gnomon.compiler.sizes import Dim, evaluate, product, symbols

TYPICAL = 32
"""What every symbolic size is taken to be when memory is weighed."""
NOTHING = 4096
"""Bytes that do not count, of a fixed size: a learning rate that all updates wait for is computed first."""


def scheduled(groups: Sequence[Group], readers: Mapping[Node, set[Group]], placed: Collection[Node]) -> list[Group]:
    """Groups in an order in which they can run: of the ready ones the oldest that needs no more memory than it frees,
    else the oldest.

    readers   groups that read each node
    placed    nodes whose memory is there in any case: inputs, variables, outputs
    """
    numbered = {g.number: g for g in groups}
    of = {m: g.number for g in groups for m in g.members}
    reading: dict[Node, set[int]] = {}  # groups that still have to read what another one makes
    for node, found in readers.items():
        whole = node
        while isinstance(whole.op, (Item, After)):  # they have no memory of their own
            whole = whole.inputs[0]
        maker = of.get(whole)
        if maker is not None and node not in placed and not is_external(node):
            reading.setdefault(whole, set()).update(g.number for g in found if g.number != maker)
    growth = dict.fromkeys(numbered, 0)  # bytes that a group makes, less those that it frees
    reads: dict[int, list[Node]] = {k: [] for k in numbered}
    size: dict[Node, int] = {}
    for node, users in reading.items():
        size[node] = _bytes(node)
        if users:
            growth[of[node]] += size[node]
        for k in users:
            reads[k].append(node)
            if len(users) == 1:
                growth[k] -= size[node]
    waiting = Waiting(groups)
    at_once: list[int] = []
    ready: list[int] = []

    def enter(k: int) -> None:
        heapq.heappush(at_once if growth[k] <= 0 else ready, k)

    started = set(waiting.ready(numbered))
    for k in started:
        enter(k)
    order: list[Group] = []
    done: set[int] = set()
    while at_once or ready:
        k = heapq.heappop(at_once or ready)
        if k in done:
            continue
        done.add(k)
        order.append(numbered[k])
        for node in reads[k]:
            users = reading[node]
            users.discard(k)
            if len(users) == 1:
                (last,) = users
                growth[last] -= size[node]
                if last in started and growth[last] <= 0:
                    heapq.heappush(at_once, last)
        for f in waiting.ran(k):
            started.add(f)
            enter(f)
    assert len(order) == len(groups), "groups depend on each other"
    return order


def _bytes(node: Node) -> int:
    types = [node.type] if isinstance(node.type, TensorType) else node.type.items
    total: Dim = 0
    for t in types:
        total = total + product(t.shape) * dtypes.named(t.dtype).bytes
    return 0 if isinstance(total, int) and total <= NOTHING else _typical(total)


def _typical(d: Dim) -> int:
    return max(0, evaluate(d, dict.fromkeys(symbols(d), TYPICAL)))
