"""A loop in a program: the steps of its body, compiled once, inside a `Repeat`.

Nothing is copied from round to round. Slices of sequences are views, rows of stacks are computed in their place, and a
carry is found where the round before left it:
    in its stack     if its new value is stacked anyway: the row before, in the first round the first carry itself
    in a pair        of places that rounds take turns in, else
What a loop leaves behind is not copied either: the last carry is read where it lies.

If all carries have as many rows, and no row asks for another's, threads go through all rounds with rows of their own
(see `shares`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gnomon.compiler.graph import Item, Node, TensorType, walk
from gnomon.compiler.lowering import shares
from gnomon.compiler.lowering.fuse import choose_stored, is_external, make_groups
from gnomon.compiler.ops.leaves import Array
from gnomon.compiler.ops.scan import COUNTER, Scan
from gnomon.compiler.passes import simplify
from gnomon.compiler.program import Clear, Copy, Repeat, Row, Slot, Step
from gnomon.compiler.sizes import Dim, ceildiv


def lower_loop(plan: Any, node: Node, target: Any, stages: Any) -> None:
    """Append the steps of a Scan to a plan of `gnomon.compiler.compile`, whose slots have all its inputs."""
    loop = _Loop(plan, node)
    outer = plan.share, plan.uses
    plan.share, plan.uses = loop.share(target) if target.kind == "cpu" else 0, []
    loop.run(lambda group: plan.lower(group, target, stages))
    plan.share, plan.uses = outer


class _Loop:
    def __init__(self, plan: Any, node: Node):
        assert isinstance(node.op, Scan)
        self.plan, self.node, self.op = plan, node, node.op
        self.given = self.op.given([plan.slot_of[x] for x in node.inputs])
        self.outside = self.op.given(node.inputs).invariants
        self.counter = plan._slot("step", COUNTER, "temporary")
        self.round = plan._slot("round", COUNTER, "temporary")
        self.kept: list[int] = []  # slots that one round leaves for the next
        self.inside: dict[Node, int] = {}  # where the values of the body are
        self.constants: list[Node] = []  # leaves of the body
        self.copies: list[tuple[Node, int]] = []  # (value, slot it is copied to at the end of each round)
        self.stacks = [self._result(self.op.carries + k) for k in range(self.op.stacks)]
        self.kept += self.stacks

    def share(self, target: Any) -> Dim:
        """How many rows a share is to have, if shares may never meet; else 0. What all of them read in each round must
        be so little that a core keeps it at hand."""
        slots = [self.plan.slots[s] for s in self.given.invariants]
        ends = self.op.until or self.op.counts or self.given.limit is not None
        rows = shares.rows_of(self.op.carry_leaves)
        return 0 if ends or shares.held(slots) > target.l2 * 3 // 4 else shares.share_of(rows, target.threads)

    def run(self, lower: Callable[[Any], None]) -> None:
        plan, op = self.plan, self.op
        edges = dict(zip(op.edges, self.given.edges, strict=True))
        self.inside[op.counter] = self.counter
        self.inside.update(zip(op.invariant_leaves, self.given.invariants, strict=True))
        for k, (leaf, slot) in enumerate(zip(op.slice_leaves, self.given.sequences, strict=True)):
            rows = plan.slots[slot].shape[0]
            self.inside[leaf] = self._view(leaf.type, slot, self.counter, op.offset(k), rows, edges.get(k, -1))
        roots = simplify(op.body.outputs)
        for leaf in walk(roots):
            if isinstance(leaf.op, Array):
                self.inside[leaf] = plan._slot("constant", leaf.type, "constant")
                plan.constants.append((self.inside[leaf], leaf.op.data))
                self.constants.append(leaf)
        last = self._place(roots)
        until = self._place_end(roots[-1]) if op.until else -1
        steps = self._steps(roots, lower)
        if op.counts:
            plan.steps += [Clear(s) for s in self.stacks]  # rows of rounds that are not done
        limit = -1 if self.given.limit is None else self.given.limit
        count: Dim = 0
        if plan.share != 0:
            rows = shares.rows_of(op.carry_leaves)
            count = ceildiv(rows, plan.share) if shares.apart(plan.uses, steps, plan.slots, rows) else 0
        plan.steps.append(
            Repeat(op.steps, self.counter, tuple(steps), until, op.reverse, self.round, limit, tuple(self.kept), count)
        )
        for k, slot in enumerate(last):
            self._give_last(k, slot)
        if op.counts:
            self._give(op.carries + op.stacks, self.round)

    # ---- slots

    def _view(
        self, t: TensorType, of: int, counter: int, shift: Dim = 0, rows: Dim | None = None, edge: int = -1, ring=0
    ) -> int:
        slot = Slot("row", t.dtype, t.shape, "view", alias=of, row=Row(counter, shift, rows, edge, ring))
        self.plan.slots.append(slot)
        return len(self.plan.slots) - 1

    def _result(self, k: int) -> int:
        """The slot of a result, made if it has none."""
        item = Item(k)(self.node)
        if item not in self.plan.slot_of:
            self.plan._memory(item)
        return self.plan.slot_of[item]

    def _give(self, k: int, slot: int) -> None:
        """Say where a result is: there, or a copy of it where somebody wants it."""
        item = Item(k)(self.node)
        if item in self.plan.slot_of:
            self.plan.steps.append(Copy(slot, self.plan.slot_of[item]))
        else:
            self.plan._give(item, slot)

    def _give_last(self, k: int, slot: int) -> None:
        """A last carry. If it may be the first one, and that a variable, it is copied before the variable changes."""
        first = self.given.first[k]
        if self.plan.slots[first].kind == "variable":
            self.plan._memory(Item(k)(self.node))
        self._give(k, slot)

    # ---- where the body's results go

    def _place(self, roots: Sequence[Node]) -> list[int]:
        """Decide where rows and carries are computed. Gives for each carry where it is read."""
        op = self.op
        new, rows = roots[: op.carries], roots[op.carries : op.carries + op.stacks]
        stack_of: dict[Node, int] = {}
        for row, stack in zip(rows, self.stacks, strict=True):
            place = self._view(row.type, stack, self.counter)
            if self._is_free(row):
                self.inside[row] = place
                stack_of[row] = stack
            else:
                self.copies.append((row, place))
        places = []
        for k, (leaf, value) in enumerate(zip(op.carry_leaves, new, strict=True)):
            first = self.given.first[k]
            if value is leaf:
                places.append(first)
            elif value in stack_of and not (op.reverse and op.limited):
                shift = 1 if op.reverse else -1
                places.append(self._view(leaf.type, stack_of[value], self.counter, shift, op.steps, first))
            else:
                pair = self.plan._slot("carry", TensorType(leaf.dtype, (2, *leaf.shape)), "temporary")
                self.kept.append(pair)
                place = self._view(leaf.type, pair, self.round, ring=2)
                if self._is_free(value):
                    self.inside[value] = place
                else:
                    self.copies.append((value, place))
                places.append(self._view(leaf.type, pair, self.round, -1, edge=first, ring=2))
        self.inside.update(zip(op.carry_leaves, places, strict=True))
        return places

    def _is_free(self, root: Node) -> bool:
        """Whether a result of the body is computed, and nobody has said where yet."""
        return not is_external(root) and root not in self.inside

    def _place_end(self, root: Node) -> int:
        if self._is_free(root):
            self.inside[root] = self.plan._slot("end", root.type, "temporary")
        return self.inside[root]

    def _steps(self, roots: Sequence[Node], lower: Callable[[Any], None]) -> list[Step]:
        """The steps of one round."""
        plan = self.plan
        plan.fixed |= {leaf for leaf, x in zip(self.op.invariant_leaves, self.outside, strict=True) if plan._is_kept(x)}
        if plan.request.prepare:
            plan.fixed |= set(self.constants)
        early: list[Step] = []
        plan.loops.append(({*self.given.invariants, *(self.inside[c] for c in self.constants)}, early))
        outer = plan.steps, plan.stored, plan.groups, plan.of, plan.readers, plan.accesses, plan.slot_of
        stored = choose_stored(roots)
        plan.steps, plan.stored, plan.groups, plan.slot_of = [], set(stored), make_groups(stored), self.inside
        plan.of = {m: g for g in plan.groups for m in g.members}
        plan.readers = plan._readers()
        for group in plan.groups:
            lower(group)
        plan.nodes += walk(roots)
        steps = plan.steps
        plan.steps, plan.stored, plan.groups, plan.of, plan.readers, plan.accesses, plan.slot_of = outer
        plan.loops.pop()
        plan.steps += early
        return [*steps, *(Copy(self.inside[value], place) for value, place in self.copies)]
