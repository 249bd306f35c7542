"""Which nodes get memory, and which of those are computed by one kernel.

Most nodes *melt*: their element rule is substituted into whoever reads them. A node is *stored* (is a member of a
group) if it is asked for, if it is a reduction or product, or if it would be computed too often. Members that share
their outer axes and read each other only at the same outer index form one group, which becomes one kernel: a row
program, or a product with what is done to its result. Whether a member needs memory at all is decided when the group
is emitted: one that is read only where it is made stays in registers, one read later in the row in a row buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Item, Node, TensorType, walk
from gnomon.compiler.kernel import Buffer, Expr, Load, index_names
from gnomon.compiler.lowering.melt import Melter, outer_index
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, Elementwise, StopGradient
from gnomon.compiler.ops.index import Gather, GatherAlong, ScatterAlong
from gnomon.compiler.ops.leaves import Array, Input
from gnomon.compiler.ops.order import Rank
from gnomon.compiler.ops.patches import Patches
from gnomon.compiler.ops.random import RandomBits
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.shape import Broadcast, Concat, Equate, Pad, Reshape, Slice, Transpose
from gnomon.compiler.sizes import Dim, product

EXPENSIVE = 12
"""Additions: a value read by several nodes is kept rather than computed again from here on."""
REPEATED = 5
"""The same for a value repeated by a broadcast along an outer axis."""
DEEP = 48
"""Elementwise steps that may melt into one expression."""
SMALL_PRODUCT = 512
"""Multiplications below which a static product is a plain reduction in somebody's kernel."""
MANY = 3
"""Readers of a value more than which are not to wait for what would share its kernel."""

VIEWS = (Reshape, Transpose, Slice, Broadcast, Equate, Patches, StopGradient)


@dataclass(eq=False)
class Group:
    """Members that one kernel computes, in order. `rank` outer axes are shared by all of them.

    after   the groups that must run before, directly or not: bit k is set for number k. In a network of hundreds of
            layers these are millions of pairs, which numbers of some thousand bits hold and unite quickly
    """

    members: list[Node] = field(default_factory=list)
    rank: int = 0
    contract: Node | None = None
    special: bool = False
    number: int = 0
    after: int = 0

    def runs_after(self, other: Group) -> bool:
        return bool(self.after >> other.number & 1)

    @property
    def through(self) -> int:
        """The group and all that must run before it, as `after` has them."""
        return self.after | 1 << self.number

    def __repr__(self) -> str:
        return f"group {self.number} of rank {self.rank}: " + ", ".join(repr(m.op) for m in self.members)


def is_external(node: Node) -> bool:
    """Whether a node's memory exists before any kernel runs."""
    return isinstance(node.op, (Input, Array))


def is_fold(node: Node) -> bool:
    return isinstance(node.op, (Reduce, Contract)) or _searches(node)


def _searches(node: Node) -> bool:
    """Whether each element of the result looks at many elements of an input, besides reductions and products."""
    if isinstance(node.op, ScatterAlong):
        return node.inputs[0].shape[node.op.axis] != 1
    return isinstance(node.op, Rank)


def needs_kernel(node: Node) -> bool:
    """Ops that are not written as elements: lowered on their own."""
    if node.op.has_kernel:
        return node.op.stands_alone(node.type, *(x.type for x in node.inputs))
    return not node.op.has_element and not is_external(node) and not isinstance(node.op, Item)


def choose_stored(outputs: Sequence[Node]) -> list[Node]:
    """The nodes that get memory, in an order in which they can be computed."""
    order = walk(outputs)
    readers: dict[Node, int] = {}
    spread: set[Node] = set()  # nodes that something repeats along outer axes, or reads at computed places
    wanted = {o for o in outputs if not is_external(o)}
    for node in order:
        for x in dict.fromkeys(node.inputs):
            readers[x] = readers.get(x, 0) + 1
        if isinstance(node.op, Contract) and not is_small(node):
            for x in node.inputs:
                wanted |= _storage(x)
        elif needs_kernel(node) or _searches(node):
            wanted |= {x for x in node.op.read(node.inputs) if not is_external(x)}
        if isinstance(node.op, Broadcast):
            (x,) = node.inputs
            if x.rank and not _leading(node.op.axes):
                spread.add(_made(x))
        elif isinstance(node.op, (Gather, GatherAlong)):
            spread.add(_made(node.inputs[0]))
    for node in order:
        if isinstance(node.op, Pad) and _ends_product(node.inputs[0], readers):
            wanted.add(node.inputs[0])  # computed with the product, into its place (see `inlay`)
    stored: set[Node] = set()
    cost: dict[Node, int] = {}
    depth: dict[Node, int] = {}
    for node in order:
        if is_external(node):
            cost[node], depth[node] = 1, 0
            continue
        if not isinstance(node.type, TensorType):
            stored.add(node)
            cost[node], depth[node] = 1, 0
            continue
        own = _cost(node)
        total = own + sum(cost[x] for x in node.inputs)
        deep = 1 + max((depth[x] for x in node.inputs), default=0)
        keep = (
            node in wanted
            or is_fold(node)
            or needs_kernel(node)
            or isinstance(node.op, Item)
            or (total >= EXPENSIVE and readers.get(node, 0) > 1 and own > 0)
            or (total >= REPEATED and node in spread and own > 0)
            or deep > DEEP
        )
        if keep:
            stored.add(node)
            cost[node], depth[node] = 1, 0
        else:
            cost[node], depth[node] = min(total, 10**6), deep
    return [n for n in order if n in stored]


def _ends_product(x: Node, readers: dict[Node, int]) -> bool:
    """Whether an elementwise function of a product is read once, and so is all between them."""
    while isinstance(x.op, Elementwise) and readers[x] == 1:
        products = [y for y in x.inputs if isinstance(y.op, (Contract, Elementwise)) and readers[y] == 1]
        if not products:
            return False
        x = products[0]
    return isinstance(x.op, Contract) and readers[x] == 1 and not is_small(x)


def _made(x: Node) -> Node:
    """What a node only shows in another form."""
    while isinstance(x.op, (Reshape, Equate, StopGradient)):
        x = x.inputs[0]
    return x


def _leading(axes: Sequence[int]) -> bool:
    return tuple(axes) == tuple(range(len(axes)))


def _cost(node: Node) -> int:
    match node.op:
        case Elementwise():
            return node.op.fn.cost
        case RandomBits():
            return 60
        case Cast() | Concat() | Pad():
            return 1
        case Gather() | GatherAlong() | ScatterAlong():
            return 2
    return 0


def _storage(x: Node) -> set[Node]:
    """Nodes that need memory so that a product can read its operand x: x itself unless x only moves elements; the
    positions that rows are gathered from, which are read once for each product."""
    found: set[Node] = set()
    while not is_external(x):
        if isinstance(x.op, VIEWS):
            x = x.inputs[0]
        elif isinstance(x.op, Gather) and (is_external(x.inputs[0]) or isinstance(x.inputs[0].op, VIEWS)):
            found |= {x.inputs[1]} if not is_external(x.inputs[1]) else set()
            x = x.inputs[0]
        else:
            return found | {x}
    return found


def is_small(contract: Node) -> bool:
    """Whether a product is so small that it needs no schedule of its own."""
    op = contract.op
    assert isinstance(op, Contract)
    x, w = contract.inputs
    extent = dict(zip(op.x + op.w, x.shape + w.shape, strict=True))
    depth = product(extent[a] for a in op.summed)
    size = product(contract.shape)
    if not dtypes.is_float(contract.dtype):
        return True
    return isinstance(depth, int) and isinstance(size, int) and depth * size <= SMALL_PRODUCT


def dependencies(node: Node, stored: set[Node]) -> list[Node]:
    """Members and externals that computing `node` reads, those it melts looked through."""
    found: dict[Node, None] = {}
    stack = list(node.inputs)
    seen: set[Node] = set()
    while stack:
        x = stack.pop()
        if x in seen:
            continue
        seen.add(x)
        if x in stored or is_external(x):
            found[x] = None
        else:
            stack.extend(x.inputs)
    return list(found)


class Accesses:
    """How members read each other, found by writing out their element rules once."""

    def __init__(self, stored: set[Node]):
        self.stored = stored
        self.known: dict[Node, dict[Node, list[tuple[Dim, ...]]]] = {}

    def of(self, node: Node) -> dict[Node, list[tuple[Dim, ...]]]:
        """For each member and external that computing `node` reads, the indices it is read at, for the element of
        `node` at `outer_index(node.shape)`."""
        found = self.known.get(node)
        if found is None:
            found = self.known[node] = {}
            if needs_kernel(node) or isinstance(node.op, Item):
                found.update({x: [] for x in node.op.read(node.inputs)})  # as a whole
                return found
            melter = Melter(
                lambda x, index: self._note(found, x, index) if x in self.stored or is_external(x) else None
            )
            with index_names():
                melter.element(node, outer_index(node.shape))
        return found

    def _note(self, found: dict[Node, list[tuple[Dim, ...]]], x: Node, index: tuple[Dim, ...]) -> Expr:
        found.setdefault(x, []).append(index)
        return Load(Buffer(f"n{x.serial}", x.dtype, x.shape), index)

    def aligned(self, node: Node, members: Sequence[Node]) -> int:
        """How many leading axes `node` and the members it reads share: there it reads them at its own index."""
        own = outer_index(node.shape)
        rank = len(own)
        for member, places in self.of(node).items():
            if member in members:
                for place in places:
                    same = 0
                    while same < min(rank, len(place)) and place[same] == own[same]:
                        same += 1
                    rank = min(rank, same)
        return rank


def make_groups(stored: Sequence[Node]) -> list[Group]:
    """Members gathered into groups, in an order in which the groups can run.
    """
    inside = set(stored)
    reads = {n: dependencies(n, inside) for n in stored}
    accesses = Accesses(inside)
    users = Counter(x for found in reads.values() for x in found)
    groups: list[Group] = []
    of: dict[Node, Group] = {}
    awaited = 0  # groups that others run after

    def join(node: Node, group: Group) -> None:
        nonlocal awaited
        group.members.append(node)
        of[node] = group
        before = 0
        for x in reads[node]:
            if x in of and of[x] is not group:
                before |= of[x].through
        if not before & ~group.after:
            return
        group.after |= before
        if awaited >> group.number & 1:
            for other in groups:
                if other.runs_after(group):
                    other.after |= group.after
        awaited |= before

    for node in stored:
        chosen = None
        if not needs_kernel(node) and isinstance(node.type, TensorType) and not isinstance(node.op, Item):
            producers = [of[x] for x in reads[node] if x in of]
            candidates = list(dict.fromkeys(sorted(producers, key=lambda g: -g.number)))
            candidates += [g for g in reversed(groups[-24:]) if g not in candidates and not g.contract]
            for group in candidates:
                if group.special or is_big(node):
                    continue
                others = [of[x] for x in reads[node] if x in of and of[x] is not group]
                if any(o.runs_after(group) for o in others):
                    continue  # something between the two must run first
                if group.rank == 0 and any(users[m] > MANY for m in group.members):
                    if not all(group.runs_after(o) for o in others):
                        continue  # a learning rate that all updates read would come after the first gradient
                rank = _joined_rank(node, group, reads, accesses)
                if rank is None:
                    continue
                chosen = group
                group.rank = rank
                break
        if chosen is None:
            chosen = Group(number=len(groups), special=needs_kernel(node) or isinstance(node.op, Item))
            chosen.rank = node.rank if isinstance(node.type, TensorType) else 0
            if is_big(node):
                chosen.contract = node
            groups.append(chosen)
        join(node, chosen)
    return ordered(groups)


def is_big(node: Node) -> bool:
    """A product that gets a schedule of its own."""
    return isinstance(node.op, Contract) and not is_small(node)


def _joined_rank(node: Node, group: Group, reads, accesses: Accesses) -> int | None:
    """How many outer axes the group keeps if `node` joins it; None if it must not."""
    shape = node.shape
    first = group.members[0]
    if group.contract is not None:
        same = shape == group.contract.shape and not is_fold(node)
        reads_it = any(x in group.members for x in reads[node])
        full = same and reads_it and accesses.aligned(node, group.members) == len(shape)
        return len(shape) if full else None
    limit = 0
    for a, b in zip(shape, first.shape, strict=False):
        if a != b or limit >= group.rank:
            break
        limit += 1
    connected = any(x in group.members for x in reads[node])
    if connected:
        limit = min(limit, accesses.aligned(node, group.members))
    elif not _siblings(node, group, reads):
        return None
    if limit == group.rank and (limit == len(shape) or limit > 0):
        return limit if _worth(node, group, limit) else None
    # fewer outer axes than now: only if what is left still has enough independent iterations
    if limit == 0:
        return 0 if _tiny(node) and all(_tiny(m) for m in group.members) else None
    return limit if _worth(node, group, limit) else None


def _siblings(node: Node, group: Group, reads) -> bool:
    """Not connected, but worth one pass: alike in shape and reading the same memory, or scalars."""
    if node.rank == 0:
        return group.rank == 0 and all(m.rank == 0 for m in group.members)
    if node.shape != group.members[0].shape or is_fold(node) != is_fold(group.members[0]):
        return False
    if is_fold(node) and node.inputs[0].shape != group.members[0].inputs[0].shape:
        return False
    shared = {x for m in group.members for x in reads[m] if x.rank}
    return any(x in shared for x in reads[node] if x.rank)


def _worth(node: Node, group: Group, rank: int) -> bool:
    """Whether `rank` outer axes leave enough to do in parallel: not a few rows where there were many elements."""
    outer = product(node.shape[:rank])
    if not isinstance(outer, int):
        return True
    had = product(group.members[0].shape[: group.rank])
    if isinstance(had, int) and outer < had and outer < 8:
        return all(_tiny(m) for m in [*group.members, node])
    return True


def _tiny(node: Node) -> bool:
    """So little to do that one thread may do it alone."""
    total = product(node.shape)
    if is_fold(node) and isinstance(node.op, Reduce):
        total = product(node.inputs[0].shape)
    return isinstance(total, int) and total <= 4096


class Waiting:
    """Which groups can run: each waits for the last of those before it that have not run yet."""

    def __init__(self, groups: Sequence[Group]):
        self.after = {g.number: g.after for g in groups}  # not by place: what comes here may be ordered already
        self.done = 0
        self.for_: dict[int, list[int]] = {}

    def ready(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that can run now. The others will be among what `ran` gives."""
        found = []
        for k in numbers:
            rest = self.after[k] & ~self.done
            if rest:
                self.for_.setdefault(rest.bit_length() - 1, []).append(k)
            else:
                found.append(k)
        return found

    def ran(self, number: int) -> list[int]:
        """A group has run: the groups that can run now and could not before."""
        self.done |= 1 << number
        return self.ready(self.for_.pop(number, ()))


def ordered(groups: list[Group]) -> list[Group]:
    """Groups so that each comes after those it depends on; among the ready ones, the oldest first."""
    import heapq

    numbered = {g.number: g for g in groups}
    waiting = Waiting(groups)
    ready = waiting.ready(numbered)
    heapq.heapify(ready)
    order = []
    while ready:
        k = heapq.heappop(ready)
        order.append(numbered[k])
        for u in waiting.ran(k):
            heapq.heappush(ready, u)
    assert len(order) == len(groups), "groups depend on each other"
    return order
