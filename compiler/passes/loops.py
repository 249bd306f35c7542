"""What need not be done in a loop leaves it.

    join_families    a loop and the wider ones that gradients made of it are one loop
    loops            bodies simplified; what is the same in all steps is computed once; products of what does not depend
                     on carries are one product for all steps; products that no carry depends on come after the loop,
                     one for all steps; sums over steps too, so that a weight's gradient is one product
    read_in_place    sequences that are parts of others, or delayed, are read where they lie

Work moves out of a loop by making one op of what the steps do (`vectorize`), its operands stacked. So a product of
[batch, n] with a weight becomes one of [steps * batch, n].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gnomon.compiler.graph import Item, Node, Op, TensorType, inherit, walk
from gnomon.compiler.graph import replace as replaced
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import SubGraph, without_unused_results
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.patches import Patches
from gnomon.compiler.ops.random import RandomBits
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.scan import Delayed, Scan
from gnomon.compiler.ops.shape import Broadcast, Concat, Equate, Pad, Reshape, Slice, Transpose
from gnomon.compiler.passes.rewrite import Rules, is_number
from gnomon.compiler.sizes import Dim, maximum, product, substitute
from gnomon.compiler.vectorize import vectorize

VIEWS = (Broadcast, Equate, Reshape, Slice, Transpose)
"""Ops that only move elements: done where they are read, in the loop and outside it."""
DEAREST = 8
"""How many times as large as what comes of it may be what is stacked so that work can be done after a loop."""
USUAL = 32
"""What a named size is taken to be where sizes are compared."""

# ---- one loop of several


def join_families(roots: Sequence[Node]) -> list[Node]:
    """Loops that differ only in what they stack are one.

    A gradient asks for more stacks of a loop by making another one with the same body and more rows. The counter of the
    body tells who belongs together.
    """
    roots = list(roots)
    while change := _next_family(roots):
        roots = replaced(roots, change)
    return roots


def _next_family(roots: Sequence[Node]) -> dict[Node, Node]:
    """The results of some loops that are one, by the results of that one; nothing if there are no such loops."""
    families: dict[tuple, list[Node]] = {}
    for n in walk(roots):
        if isinstance(n.op, Scan):
            op = n.op
            ends = op.body.outputs[-1] if op.until else None
            limit = n.inputs[0] if op.limited else None
            key = (op.counter, op.steps, op.reverse, limit, ends, op.truncate, op.recomputed)
            families.setdefault(key, []).append(n)
    for family in families.values():
        for k, first in enumerate(family):
            for n in family[k + 1 :]:
                if _fit(first, n) and not _meet(first, n):
                    return _joined([first, n])
    return {}


def _leaves(n: Node) -> list[tuple[Node, Node, Node | None]]:
    """(leaf, value from outside, new value of a carry) for all leaves of a body but the counter."""
    op = n.op
    assert isinstance(op, Scan)
    given = op.given(n.inputs)
    found: list[tuple[Node, Node, Node | None]] = list(
        zip(op.carry_leaves, given.first, op.new_carries, strict=True)
    )
    found += [(leaf, x, None) for leaf, x in zip(op.slice_leaves, given.sequences, strict=True)]
    return found + [(leaf, x, None) for leaf, x in zip(op.invariant_leaves, given.invariants, strict=True)]


def _fit(a: Node, b: Node) -> bool:
    """Whether the same leaves of two bodies stand for the same."""
    known = {leaf: (x, new) for leaf, x, new in _leaves(a)}
    return all(known.get(leaf, (x, new)) == (x, new) for leaf, x, new in _leaves(b))


def _meet(a: Node, b: Node) -> bool:
    """Whether one of two loops reads what the other one gives."""
    first, last = sorted((a, b), key=lambda n: n.serial)
    return first in walk([last], stop=lambda n: n.serial < first.serial)


def _joined(loops: Sequence[Node]) -> dict[Node, Node]:
    """The results of the loops by those of one loop that does it all."""
    ops: list[Scan] = [n.op for n in loops]  # type: ignore[misc]  # Scans
    first = ops[0]
    carries: dict[Node, tuple[Node, Node]] = {}
    sequences: dict[Node, Node] = {}
    invariants: dict[Node, Node] = {}
    rows: dict[Node, None] = {}
    for n, op in zip(loops, ops, strict=True):
        given = op.given(n.inputs)
        carries |= dict(zip(op.carry_leaves, zip(given.first, op.new_carries, strict=True), strict=True))
        sequences |= dict(zip(op.slice_leaves, given.sequences, strict=True))
        invariants |= dict(zip(op.invariant_leaves, given.invariants, strict=True))
        rows |= dict.fromkeys(op.rows)
    body = SubGraph(
        (first.counter, *carries, *sequences, *invariants),
        (*(new for _, new in carries.values()), *rows, *first.body.outputs[first.carries + first.stacks :]),
    )
    whole = replace(first, body=body, carries=len(carries), sequences=len(sequences))
    limit = loops[0].inputs[:1] if first.limited else ()
    with inherit(*loops):
        made = whole(*limit, *(x for x, _ in carries.values()), *sequences.values(), *invariants.values())
    at = {leaf: k for k, leaf in enumerate(carries)}
    of = {r: len(carries) + k for k, r in enumerate(rows)}
    change: dict[Node, Node] = {}
    for n, op in zip(loops, ops, strict=True):
        places = [*(at[leaf] for leaf in op.carry_leaves), *(of[r] for r in op.rows)]
        places += [len(carries) + len(rows)] if op.counts else []
        change |= {Item(k)(n): Item(place)(made) for k, place in enumerate(places)}
    return change


# ---- work that leaves the loop


def loops(roots: Sequence[Node]) -> list[Node]:
    """All loops of a graph, those inside others first, with as little in them as need be."""
    if not any(isinstance(n.op, Scan) for n in walk(roots)):
        return list(roots)
    done: dict[Node, Node] = {}
    results: dict[Node, list[Node]] = {}
    for n in walk(roots):
        inputs = [done[x] for x in n.inputs] if not isinstance(n.op, Item) or n.inputs[0] not in results else []
        with inherit(n):
            if isinstance(n.op, Scan) and n.op.is_plain:
                results[n] = _Leaving(n.op, inputs).results()
                done[n] = n
            elif isinstance(n.op, Item) and n.inputs[0] in results:
                done[n] = results[n.inputs[0]][n.op.k]
            else:
                same = all(a is b for a, b in zip(inputs, n.inputs, strict=True))
                done[n] = n if same else Node(n.op, tuple(inputs))
    return without_unused_results([done[r] for r in roots])


class _Leaving:
    """A loop, and what is left of it."""

    def __init__(self, op: Scan, inputs: Sequence[Node]):
        from gnomon.compiler.passes import simplify_body

        self.op, self.given = op, op.given(inputs)
        outputs = simplify_body(op.body.outputs)
        self.new = outputs[: op.carries]
        self.rows = outputs[op.carries : op.carries + op.stacks]
        self.ends = outputs[op.carries + op.stacks :]
        self.carries = dict(zip(op.carry_leaves, self.given.first, strict=True))
        self.sequences = dict(zip(op.slice_leaves, self.given.sequences, strict=True))
        self.invariants = dict(zip(op.invariant_leaves, self.given.invariants, strict=True))
        self.stacked: dict[Node, Node] = {}  # rows that work after the loop wants: what stands for their stack

    def results(self) -> list[Node]:
        """The loop's results, in order."""
        op = self.op
        self._fix_unchanging()
        self._merge_leaves()
        self._compute_once()
        apart: dict[int, Node] = {}  # results that are computed outside
        # what is computed again to save memory must not be stacked for all steps
        saving = any(isinstance(n.op, Scan) and n.op.recomputed for n in walk(self._outputs()))
        if op.steps is not None and not saving:
            self._hoist()
            self._note_kinds()
            apart = self._rows_apart()
            apart |= self._sums_apart()
        return self._rebuilt(apart)

    # ---- what changes in the body

    def _outputs(self) -> list[Node]:
        return [*self.new, *self.rows, *self.ends]

    def _change(self, change: dict[Node, Node]) -> None:
        if change:
            outputs = replaced(self._outputs(), change)
            n, m = len(self.new), len(self.new) + len(self.rows)
            self.new, self.rows, self.ends = outputs[:n], outputs[n:m], outputs[m:]

    def _fix_unchanging(self) -> None:
        """A carry that no step changes is an invariant."""
        for leaf, new in zip(self.op.carry_leaves, self.new, strict=True):
            if leaf is new:
                self.invariants[leaf] = self.carries[leaf]

    def _merge_leaves(self) -> None:
        """Two leaves for one value are one."""
        change: dict[Node, Node] = {}
        for table in (self.sequences, self.invariants):
            known: dict[Node, Node] = {}
            for leaf, value in table.items():
                first = known.setdefault(value, leaf)
                if first is not leaf:
                    change[leaf] = first
        self._change(change)

    def _note_kinds(self) -> None:
        """What each node of the body depends on: 'carry', 'slice' (or the counter), 'once' (invariants alone)."""
        self.order = walk(self._outputs())
        self.kinds: dict[Node, str] = {}
        moving = {leaf for leaf in self.carries if leaf not in self.invariants}
        for n in self.order:
            inputs = {self.kinds[x] for x in n.inputs}
            if n in moving or "carry" in inputs:
                self.kinds[n] = "carry"
            elif n in self.sequences or n is self.op.counter or "slice" in inputs:
                self.kinds[n] = "slice"
            else:
                self.kinds[n] = "once"

    def _outside(self, nodes: Sequence[Node]) -> list[Node]:
        """Nodes that depend on invariants alone, computed outside."""
        return replaced(nodes, self.invariants)

    def _compute_once(self) -> None:
        """What depends on invariants alone, and is more than another view of one, becomes an invariant."""
        self._note_kinds()
        fixed: set[Node] = set()  # depends on an invariant, not only on numbers
        for n in self.order:
            if n in self.invariants or (self.kinds[n] == "once" and any(x in fixed for x in n.inputs)):
                fixed.add(n)
        found = _frontier(
            [x for n in self.order if self.kinds[n] != "once" for x in n.inputs] + self._outputs(),
            lambda n: n in fixed and n not in self.invariants and isinstance(n.type, TensorType),
        )
        leaves = {n: fresh_input("invariant", n.type) for n in found}
        self.invariants |= dict(zip(leaves.values(), self._outside(found), strict=True))
        self._change(leaves)

    # ---- before the loop

    def _hoist(self) -> None:
        """Products that depend on no carry, and what is made of them alone, become sequences."""
        if self.op.counts:
            return  # nobody knows how many of the steps will be done
        self._note_kinds()
        products: set[Node] = set()  # and what depends on them, and on no carry
        for n in self.order:
            if self.kinds[n] == "slice" and (_is_product(n) or any(x in products for x in n.inputs)):
                products.add(n)
        wanted = [x for n in self.order if self.kinds[n] == "carry" for x in n.inputs] + self.new + self.ends
        found = _frontier(wanted, lambda n: n in products and self._moves(n))
        wholes = self._all(found, lambda x: True)
        leaves = {n: fresh_input("slice", n.type) for n in found}
        self.sequences |= dict(zip(leaves.values(), wholes, strict=True))
        self._change(leaves)

    def _moves(self, node: Node) -> bool:
        """Whether one op can do what all steps do: of `node` and all that changes below it."""
        for n in walk([node], stop=lambda x: x in self.sequences or self.kinds.get(x) == "once"):
            if self.kinds[n] == "slice" and n.inputs and not _can_be_one(n):
                return False
        return True

    # ---- after the loop

    def _needed(self) -> set[Node]:
        """What the next step or the end of the loop depends on."""
        return set(walk([*self.new, *self.ends]))

    def _rows_apart(self) -> dict[int, Node]:
        """Stacks that are computed outside the loop: they depend on no carry, or on products that no carry needs."""
        if self.op.counts:
            return {}
        needed = self._needed()
        late: set[Node] = set()  # products that come after the loop, and what is made of them
        for n in self.order:
            if n not in needed and self.kinds[n] == "carry" and _can_be_one(n):
                if _is_product(n) or any(x in late for x in n.inputs):
                    late.add(n)
        found: dict[int, Node] = {}
        for k, row in enumerate(self.rows):
            if self.kinds[row] != "carry":
                if self._moves(row):
                    (found[self.op.carries + k],) = self._all([row], lambda x: True)
            elif row in late:
                through = lambda x: x in late or self._is_seen_through(x)
                if self._is_worth(row, through):
                    (found[self.op.carries + k],) = self._all([row], through)
        return found

    def _sums_apart(self) -> dict[int, Node]:
        """Last carries that are sums over all steps, computed after the loop."""
        found: dict[int, Node] = {}
        readers: dict[Node, int] = {}
        for n in self.order:
            for x in n.inputs:
                readers[x] = readers.get(x, 0) + 1
        for n in (*self.rows, *self.ends, *self.new):
            readers[n] = readers.get(n, 0) + 1
        for k, (leaf, new) in enumerate(zip(self.op.carry_leaves, self.new, strict=True)):
            if not _is(new, "add") or readers.get(leaf) != 1 or readers.get(new) != 1 or leaf not in new.inputs:
                continue
            terms = [x for x in new.inputs if x is not leaf]
            if len(terms) != 1:
                continue
            before = dict(self.stacked)
            total = self._total(terms[0])
            if total is None:
                self.stacked = before
            else:
                found[k] = build.add(self.carries[leaf], total)
        return found

    def _total(self, term: Node) -> Node | None:
        """The sum of `term` over all steps, computed after the loop; None if that is no gain."""
        op = term.op
        if self.kinds[term] == "once" or (self.kinds[term] == "slice" and self.op.counts):
            return None
        if _is(term, "add", "subtract"):
            parts = [self._total(x) for x in term.inputs]
            return None if None in parts else Node(op, tuple(parts))  # type: ignore[arg-type]
        if _is(term, "negative"):
            part = self._total(term.inputs[0])
            return None if part is None else Node(op, (part,))
        if isinstance(op, (Transpose, Reshape, Broadcast, Slice, Equate)):
            part = self._total(term.inputs[0])
            return None if part is None else Node(op, (part,))
        if isinstance(op, Pad) and is_number(term.inputs[1], 0):
            part = self._total(term.inputs[0])
            return None if part is None else Node(op, (part, term.inputs[1]))
        if isinstance(op, Concat):
            parts = [self._total(x) for x in term.inputs]
            return None if None in parts else Node(op, tuple(parts))  # type: ignore[arg-type]
        if isinstance(op, Contract):
            return self._total_product(term)
        if isinstance(op, Reduce) and op.kind == "sum":
            (x,) = term.inputs
            whole = self._stack_of(x)
            return None if whole is None else build.reduce("sum", whole, [0, *(a + 1 for a in op.axes)])
        if self.kinds[term] == "slice" and self._moves(term):
            return build.reduce("sum", self._all([term], lambda x: True)[0], [0])
        return None

    def _total_product(self, term: Node) -> Node | None:
        """The sum over all steps of x @ w: one product, in which the steps are one more axis that is summed over."""
        op = term.op
        assert isinstance(op, Contract)
        x, w = term.inputs
        for k, (fixed, other) in enumerate(((w, x), (x, w))):
            if self.kinds[fixed] == "once":
                part = self._total(other)
                if part is None:
                    return None
                (outside,) = self._outside([fixed])
                return Node(op, (part, outside) if k == 0 else (outside, part))
        left, right = self._stack_of(x), self._stack_of(w)
        if left is None or right is None:
            return None
        lane = max((*op.x, *op.w), default=-1) + 1
        return Contract((lane, *op.x), (lane, *op.w), op.out)(left, right)

    def _stack_of(self, node: Node) -> Node | None:
        """All steps' values of a node; None if they cannot be had."""
        if self.kinds[node] != "carry" and not self._moves(node):
            return None
        return self._all([node], self._is_seen_through)[0]

    def _is_seen_through(self, n: Node) -> bool:
        """Whether not a value that depends on a carry is stacked, but what it is a view of. Of a part not the whole,
        unless that is stacked anyway."""
        if isinstance(n.op, Slice):
            (x,) = n.inputs
            return self._is_seen_through(x) or x in self.stacked or x in self.rows or x in self.carries
        return isinstance(n.op, (*VIEWS, Patches))

    def _is_worth(self, row: Node, through: Callable[[Node], bool]) -> bool:
        """Whether what has to be stacked is not much larger than what is computed from it."""
        free = {*self.rows, *self.stacked, *self.new, *self.carries}
        ends = [n for n in walk([row], stop=lambda n: self._is_end(n, through)) if self._is_end(n, through)]
        added = sum(_elements(n) for n in ends if self.kinds[n] == "carry" and n not in free)
        return added <= DEAREST * _elements(row)

    # ---- making one op of what all steps do

    def _all(self, nodes: Sequence[Node], through: Callable[[Node], bool]) -> list[Node]:
        """The stacks of `nodes`, computed outside. What depends on carries is stacked, unless `through` says that it is
        computed outside, too, from what it depends on."""
        steps = self.op.steps
        assert steps is not None
        given: dict[Node, Node] = {}
        for n in walk(nodes, stop=lambda x: self._is_end(x, through)):
            if n is self.op.counter:
                given[n] = build.iota((steps,), 0, "int64")
            elif n in self.sequences:
                given[n] = self.sequences[n]
            elif self._is_end(n, through):
                given[n] = self._before_each(n) if n in self.carries else self._stack(n)
        fixed = {**self.invariants, **{n: n for n in given}}  # what is stacked is not looked into
        return vectorize(replaced(nodes, fixed), given, steps)

    def _is_end(self, n: Node, through: Callable[[Node], bool]) -> bool:
        """Whether the stack of a value is at hand, or will be: nothing below it is computed outside."""
        if n in self.sequences or n is self.op.counter:
            return True
        return self.kinds[n] == "carry" and (not n.inputs or not through(n))

    def _stack(self, n: Node) -> Node:
        """What stands for the stack of a value of the body, until the loop is made that stacks it."""
        if n not in self.stacked:
            self.stacked[n] = fresh_input("stack", TensorType(n.dtype, (self.op.steps, *n.shape)))  # type: ignore[arg-type]
        return self.stacked[n]

    def _before_each(self, leaf: Node) -> Node:
        """The stack of a carry as it is before each step."""
        if self.op.reverse and self.op.counts:
            return self._stack(leaf)
        new = self.new[self.op.carry_leaves.index(leaf)]
        return Delayed(self.op.reverse)(self.carries[leaf], self._stack(new))

    # ---- what is left

    def _rebuilt(self, apart: dict[int, Node]) -> list[Node]:
        op = self.op
        lasting = {leaf: new for leaf, new in zip(op.carry_leaves, self.new, strict=True)
                   if leaf not in self.invariants}  # fmt: skip
        dropped = {leaf for k, leaf in enumerate(op.carry_leaves) if k in apart}
        carries = [leaf for leaf in lasting if leaf not in dropped]
        rows = list(dict.fromkeys([
            *(row for k, row in enumerate(self.rows) if op.carries + k not in apart), *self.stacked,
        ]))  # fmt: skip
        body = SubGraph(
            (op.counter, *carries, *self.sequences, *self.invariants),
            (*(lasting[leaf] for leaf in carries), *rows, *self.ends),
        )
        whole = replace(op, body=body, carries=len(carries), sequences=len(self.sequences))(
            *([self.given.limit] if op.limited else []),
            *(self.carries[leaf] for leaf in carries),
            *self.sequences.values(),
            *self.invariants.values(),
        )
        of = {row: Item(len(carries) + k)(whole) for k, row in enumerate(rows)}
        found: list[Node] = []
        for k, leaf in enumerate(op.carry_leaves):
            if k in apart:
                found.append(apart[k])
            else:
                found.append(Item(carries.index(leaf))(whole) if leaf in lasting else self.carries[leaf])
        found += [apart[op.carries + k] if op.carries + k in apart else of[row] for k, row in enumerate(self.rows)]
        found += [Item(len(carries) + len(rows))(whole)] if op.counts else []
        return replaced(found, {leaf: of[row] for row, leaf in self.stacked.items()})


def _frontier(wanted: Iterable[Node], is_found: Callable[[Node], bool]) -> list[Node]:
    """The nodes that `is_found` among those that are read, views looked through."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    waiting = list(wanted)
    while waiting:
        n = waiting.pop()
        if n in seen or not is_found(n):
            continue
        seen.add(n)
        if isinstance(n.op, VIEWS):
            waiting += n.inputs
        else:
            found[n] = None
    return sorted(found, key=lambda n: n.serial)


def _is_product(n: Node) -> bool:
    return isinstance(n.op, Contract)


def _can_be_one(n: Node) -> bool:
    return isinstance(n.type, TensorType) and n.op.has_element and not isinstance(n.op, (RandomBits, Item))


def _is(n: Node, *names: str) -> bool:
    return isinstance(n.op, Elementwise) and n.op.name in names


def _elements(n: Node) -> int:
    count = substitute(product(n.shape), lambda atom: USUAL)
    assert isinstance(count, int)
    return count


# ---- delayed stacks in products

undelayed = Rules()


@undelayed.watch(Transpose, Reshape, Broadcast, Slice, Patches)
def delay_later(node: Node) -> Node | None:
    """view(delayed(first, rows)) -> delayed(view(first), view(rows)), where the view leaves the rows apart."""
    (x,) = node.inputs
    if not isinstance(x.op, Delayed):
        return None
    first, rows = x.inputs
    view: Op
    match node.op:
        case Transpose(axes=(0, *axes)):
            view = Transpose(tuple(a - 1 for a in axes))
        case Reshape(shape=(size, *shape)) if size == x.shape[0] and x.shape[0] != 1:
            view = Reshape(tuple(shape))
        case Broadcast(shape=(size, *shape), axes=(0, *axes)) if size == x.shape[0]:
            view = Broadcast(tuple(shape), tuple(a - 1 for a in axes))
        case Slice(start=(0, *start), size=(size, *sizes), step=(1, *step)) if size == x.shape[0]:
            view = Slice(tuple(start), tuple(sizes), tuple(step))
        case Patches(axis=axis) if axis > 0:
            view = replace(node.op, axis=axis - 1)
        case _:
            return None
    return Delayed(x.op.reverse)(view(first), Node(node.op, (rows,)))


@undelayed.watch(Contract)
def multiply_in_place(node: Node) -> Node | None:
    """contract(delayed(first, rows), w) -> contract(rows[:-1], w[1:]) + contract(first, w[:1]), summed over the steps:
    rows and w are read where they lie."""
    op = node.op
    assert isinstance(op, Contract)
    for k, (x, w) in enumerate((node.inputs, node.inputs[::-1])):
        own, other = (op.x, op.w) if k == 0 else (op.w, op.x)
        if not isinstance(x.op, Delayed) or own[0] in op.out or own[0] not in other:
            continue
        first, rows = x.inputs
        most = maximum(rows.shape[0] - 1, 0)
        few = rows.shape[0] - most  # 1, or 0 if there are no steps
        here, there = (few, 0) if x.op.reverse else (0, few)  # where the part begins that rows and w have in common
        at = other.index(own[0])
        pairs = [
            (_part(rows, 0, here, most), _part(w, at, there, most)),
            (build.repeat_first(first, few), _part(w, at, most if x.op.reverse else 0, few)),
        ]
        products = [Node(op, pair if k == 0 else pair[::-1]) for pair in pairs]
        return build.add(*products)
    return None


def _part(x: Node, axis: int, start: Dim, size: Dim) -> Node:
    return build.slice(
        x, [start if k == axis else 0 for k in range(x.rank)], [size if k == axis else d for k, d in enumerate(x.shape)]
    )


@undelayed.watch(Reduce)
def sum_products(node: Node) -> Node | None:
    """sum(x @ w) -> x @ w, where both have the axes that are summed over."""
    op = node.op
    assert isinstance(op, Reduce)
    (x,) = node.inputs
    if op.kind != "sum" or not isinstance(x.op, Contract):
        return None
    gone = {x.op.out[a] for a in op.axes}
    if not gone <= set(x.op.x) & set(x.op.w):
        return None
    return Contract(x.op.x, x.op.w, tuple(a for a in x.op.out if a not in gone))(*x.inputs)


# ---- reading in place


def read_in_place(roots: Sequence[Node]) -> list[Node]:
    """Sequences that are rows of another array one after the other, or delayed, are not made: their rows are read."""
    done: dict[Node, Node] = {}
    for n in walk(roots):
        inputs = tuple(done[x] for x in n.inputs)
        with inherit(n):
            if isinstance(n.op, Scan) and n.op.is_plain:
                done[n] = _read_in_place(n.op, inputs)
            else:
                done[n] = n if all(a is b for a, b in zip(inputs, n.inputs, strict=True)) else Node(n.op, inputs)
    return [done[r] for r in roots]


def _read_in_place(op: Scan, inputs: Sequence[Node]) -> Node:
    given = op.given(inputs)
    sequences = list(given.sequences)
    offsets: list[Dim] = [0] * op.sequences
    edges: dict[int, Node] = {}
    for k, s in enumerate(given.sequences):
        if isinstance(s.op, Delayed):
            edges[k], sequences[k] = s.inputs
            offsets[k] = 1 if s.op.reverse else -1
        elif isinstance(s.op, Slice) and _takes_rows(s.op, s.inputs[0]):
            offsets[k], sequences[k] = s.op.start[0], s.inputs[0]
    if sequences == given.sequences:
        return op(*inputs)
    limit = [given.limit] if op.limited else []
    moved = replace(op, offsets=tuple(offsets), edges=tuple(edges))
    return moved(*limit, *given.first, *sequences, *given.invariants, *edges.values())


def _takes_rows(op: Slice, x: Node) -> bool:
    """Whether a slice takes whole rows, one after the other."""
    whole = all(a == 0 and b == c for a, b, c in zip(op.start[1:], op.size[1:], x.shape[1:], strict=True))
    return whole and all(s == 1 for s in op.step)
