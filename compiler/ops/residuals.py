"""What a step keeps for its gradient: the cheapest values from which the rest can be made again.

Every value that the gradient reads is either kept or computed again from values that are. Which of them are kept is a
minimum cut between what is dear to compute and what the gradient reads, a node's capacity being its bytes. Zheng et al.
2023, "Transcending runtime-memory tradeoffs in checkpointing by being fusion aware" (PyTorch's partitioner), section 4,
with another rule of what is never computed again: here also functions that cost more than reading a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, TensorType, walk
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import Tuple
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.index import ScatterAdd
from gnomon.compiler.ops.order import Cumulate, Rank
from gnomon.compiler.ops.random import RandomBits
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.shape import Broadcast, Equate, Reshape, Slice, Transpose
from gnomon.compiler.sizes import product, substitute

VIEWS = (Broadcast, Equate, Reshape, Slice, Transpose)
DEAR = 10
"""Additions: a function that costs as much is rather kept."""
USUAL = 32
"""What a named size is taken to be where bytes are compared."""
ENDLESS = 1 << 60


def is_dear(node: Node) -> bool:
    """Whether a value is never computed a second time."""
    match node.op:
        case Elementwise():
            return node.op.fn.cost >= DEAR
        case Contract() | Reduce() | ScatterAdd() | Rank() | Cumulate() | RandomBits():
            return True
    if getattr(node.op, "recomputed", False):
        return False
    return not node.op.has_element and bool(node.inputs) and not isinstance(node.op, (Item, Tuple))


def residuals(
    outputs: Sequence[Node],
    kind: Callable[[Node, Sequence[str]], str],
    stacked: Iterable[Node] = (),
    twins: Mapping[Node, Node] | None = None,
) -> tuple[list[Node], list[Node]]:
    """The nodes that a step keeps for `outputs`, and those that are the same in all steps and dear: made once.

    kind        (node, kinds of its inputs) -> 'later' (a gradient), 'carry' (what the step before gave, or made of it),
                'slice' (made of what is there anyway), 'once' (the same in all steps)
    stacked     what is kept anyway
    twins       {a: b}: where b is kept, so is a
    """
    order = walk(outputs)
    kinds: dict[Node, str] = {}
    read: dict[Node, None] = {}  # what gradients read of the step
    for node in order:
        kinds[node] = kind(node, [kinds[x] for x in node.inputs])
        if kinds[node] == "later":
            read.update(dict.fromkeys(x for x in node.inputs if kinds[x] != "later"))
    read.update(dict.fromkeys(o for o in outputs if kinds[o] != "later"))
    made = _made_once(order, kinds)
    known = set(made)
    cut = _Cut()
    free = {*stacked, *(a for a, b in (twins or {}).items() if b in read)}
    for node in walk(read, stop=known.__contains__):
        if kinds[node] not in ("carry", "slice") or (not node.inputs and kinds[node] == "slice"):
            continue
        entry, end = (node, 0), (node, 1)
        cut.join(entry, end, 1 if node in free else _bytes(node))
        if not node.inputs or is_dear(node):
            cut.join(cut.source, entry, ENDLESS)
        else:
            for x in node.inputs:
                if kinds[x] in ("carry", "slice") and (x.inputs or kinds[x] == "carry"):
                    cut.join((x, 1), entry, ENDLESS)
        if node in read:
            cut.join(end, cut.sink, ENDLESS)
    kept = cut.smallest()
    return [n for n in order if n in kept], made


def _made_once(order: Sequence[Node], kinds: dict[Node, str]) -> list[Node]:
    """Dear values that are the same in all steps and read by others that are not."""
    found: dict[Node, None] = {}
    dear: set[Node] = set()
    for node in order:
        for x in node.inputs:
            if kinds[x] == "once" and kinds[node] != "once" and x in dear and isinstance(x.type, TensorType):
                while isinstance(x.op, VIEWS) and isinstance(x.inputs[0].type, TensorType):
                    (x,) = x.inputs
                found[x] = None
        if kinds[node] == "once" and (is_dear(node) or any(x in dear for x in node.inputs)):
            dear.add(node)
    return list(found)


def _bytes(node: Node) -> int:
    """About how many a value takes; that of a tuple cannot be kept."""
    if not isinstance(node.type, TensorType):
        return ENDLESS
    count = substitute(product(node.shape), lambda atom: USUAL)
    assert isinstance(count, int)
    return max(2, 2 * count * dtypes.named(node.dtype).bytes)


class _Cut:
    """A minimum cut by augmenting paths, the shortest first: Edmonds, Karp 1972."""

    source, sink = "source", "sink"

    def __init__(self) -> None:
        self.left: dict = {self.source: {}, self.sink: {}}  # what each edge can still take

    def join(self, a, b, capacity: int) -> None:
        self.left.setdefault(a, {}).setdefault(b, 0)
        self.left.setdefault(b, {}).setdefault(a, 0)
        self.left[a][b] = min(ENDLESS, self.left[a][b] + capacity)

    def smallest(self) -> set[Node]:
        """The nodes that are cut; of several smallest cuts the one that is nearest to the sink."""
        while path := self._path():
            most = min(self.left[a][b] for a, b in path)
            for a, b in path:
                self.left[a][b] -= most
                self.left[b][a] += most
        reaching = {self.sink}
        waiting = deque(reaching)
        while waiting:
            b = waiting.popleft()
            for a in self.left[b]:
                if a not in reaching and self.left[a][b] > 0:
                    reaching.add(a)
                    waiting.append(a)
        return {place[0] for place in self.left if isinstance(place, tuple) and place[1] == 0
                and place not in reaching and (place[0], 1) in reaching}  # fmt: skip

    def _path(self) -> list[tuple]:
        came: dict = {self.source: None}
        waiting = deque([self.source])
        while waiting:
            a = waiting.popleft()
            for b, capacity in self.left[a].items():
                if capacity > 0 and b not in came:
                    came[b] = a
                    if b == self.sink:
                        path = []
                        while came[b] is not None:
                            path.append((came[b], b))
                            b = came[b]
                        return path
                    waiting.append(b)
        return []
