"""The pipeline: a graph goes in, a `Program` comes out. Pure: no device, no file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.graph import Item, Node, TensorType, origins, walk
from gnomon.compiler.kernel import Buffer, Kernel
from gnomon.compiler.lower import Code, lower, lower_border, lower_op, rendered
from gnomon.compiler.lowering import cuda_masks, loops
from gnomon.compiler.lowering.cuda_library import NOTHING, Call
from gnomon.compiler.lowering.cuda_loops import persistent
from gnomon.compiler.lowering.cuda_shares import room
from gnomon.compiler.lowering.cuda_together import together
from gnomon.compiler.lowering.emit import NeedsMemory, OverwritesTooSoon, emit
from gnomon.compiler.lowering.fuse import Accesses, Group, choose_stored, make_groups
from gnomon.compiler.lowering.inlay import inlaid, shifted
from gnomon.compiler.lowering.melt import outer_index
from gnomon.compiler.lowering.schedule import scheduled
from gnomon.compiler.lowering.shares import Use
from gnomon.compiler.lowering.taps import borders
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.lowering.touched import touched
from gnomon.compiler.ops.control import Cond
from gnomon.compiler.ops.index import Gather, GatherAlong
from gnomon.compiler.ops.leaves import Array, Input, Parameter, key_of, size_of
from gnomon.compiler.ops.remat import After
from gnomon.compiler.ops.scan import Scan
from gnomon.compiler.ops.shape import Equate, Pad, Slice
from gnomon.compiler.passes import simplify
from gnomon.compiler.passes.folding import folded, lasting
from gnomon.compiler.passes.tables import tabled
from gnomon.compiler.program import (
    Branch,
    Changed,
    Check,
    Copy,
    Launch,
    Library,
    Prepare,
    Program,
    Repeat,
    Slot,
    Source,
    Step,
    all_steps,
    lifetimes,
    memory_of,
    own,
)
from gnomon.compiler.render import cuda as cuda_text
from gnomon.compiler.render.entry import render_entry
from gnomon.compiler.request import Lowered, Request, Stages
from gnomon.compiler.sizes import Dim, Size, Symbol, known_factor, maximum, non_negative, product, symbol
from gnomon.compiler.targets import Target


def compile(request: Request, target: Target, stages: Stages | None = None) -> Program:
    """Lower a graph to a program for `target`. `stages`, if given, is filled with what the pipeline went through."""
    stages = stages if stages is not None else Stages()
    roots = [*request.outputs, *(value for _, value in request.updates)]
    stages.graph = roots
    roots = simplify(roots, lambda name, after: stages.passes.append((name, after)))
    if request.prepare:
        written = {p for p, _ in request.updates}
        if request.tables:
            roots = tabled(roots, written)
            stages.passes.append(("products of tables", roots))
        roots = folded(roots, written)
        stages.passes.append(("fold into weights", roots))
    stages.simplified = roots
    outputs, values = roots[: len(request.outputs)], roots[len(request.outputs) :]
    updates = [(p, v) for (p, _), v in zip(request.updates, values, strict=True) if p is not v]
    stored = choose_stored(roots)
    groups = make_groups(stored)
    stages.groups = groups
    plan = _Plan(request, outputs, updates, stored, groups)
    plan.place_updates()
    if request.prepare and target.kind == "cpu":
        plan.inlay()
    for group in scheduled(plan.groups, plan.readers, plan.slot_of):
        plan.lower(group, target, stages)
    return plan.program(target, stages)


class _Plan:
    """A program while it is put together."""

    def __init__(self, request, outputs, updates, stored, groups):
        self.request, self.outputs, self.updates = request, outputs, updates
        self.stored, self.groups = set(stored), groups
        self.old = {v for _, v in updates}  # among them variables whose old value another one gets
        self.stored_in: dict[Node, list[Node]] = {}  # the variables that get a value
        for p, v in updates:
            self.stored_in.setdefault(v, []).append(p)
        self.slots: list[Slot] = []
        self.slot_of: dict[Node, int] = {}  # where a node's value is
        self.steps: list[Step] = []
        self.preparing: list[Step] = []  # steps whose results are kept from call to call
        self.loops: list[tuple[set[int], list[Step]]] = []  # around: slots that stay as they are, and steps before it
        self.inlaid: dict[Node, Node] = {}  # products that are computed into the middle of what they are padded to
        self.padded: set[Node] = set()
        self.share: Dim = 0  # rows of a share, in a loop whose shares may not meet, and what was lowered there
        self.uses: list[Use] = []
        self.clock = -1
        self.fences: dict[int, Step] = {}  # steps, by identity, that what comes after them must not overtake
        self.looped: dict[Launch, Use | None] = {}  # launches in loops, and the row program that they begin
        self.barrier = -1  # the slot in which blocks of a kernel count who has come
        self.sources: dict[str, Source] = {}
        self.of = {m: g for g in groups for m in g.members}
        self.readers = self._readers()
        self.inputs = [self._leaf(leaf, "input") for leaf in request.inputs]
        if request.repeat is not None:
            self._leaf(request.repeat[0], "temporary")
        roots = [*outputs, *(v for _, v in updates)]
        self.nodes = walk(roots)
        self.parameters = [n for n in self.nodes if isinstance(n.op, Parameter)]
        self.parameters += [p for p, _ in updates if p not in set(self.parameters)]
        for p in self.parameters:
            self._leaf(p, "variable")
        self.constants: list[tuple[int, bytes]] = []
        for n in self.nodes:
            if isinstance(n.op, Array):
                self.constants.append((self._leaf(n, "constant"), n.op.data))
            elif isinstance(n.op, Input) and n not in self.slot_of:
                raise CompileError(f"{request.name}: {n!r} is not among the inputs")
        self.fixed = self._fixed()
        self.output_slots: list[int] = []
        self.late: list[Copy] = []  # what is copied when all kernels have run
        for k, n in enumerate(outputs):
            slot = self._slot(f"output{k}", n.type, "output")
            self.output_slots.append(slot)
            if n in self.slot_of:
                self.late.append(Copy(self.slot_of[n], slot))
            else:
                self._give(n, slot)

    # ---- slots

    def _slot(self, name: str, t: TensorType, kind: str) -> int:
        self.slots.append(Slot(name, t.dtype, t.shape, kind))
        return len(self.slots) - 1

    def _give(self, node: Node, slot: int) -> None:
        self.slot_of[node] = slot

    def _leaf(self, leaf: Node, kind: str) -> int:
        slot = self._slot(getattr(leaf.op, "name", "constant"), leaf.type, kind)
        self._give(leaf, slot)
        return slot

    def _fixed(self) -> set[Node]:
        """Nodes whose values change only when variables that this program does not write do."""
        return lasting(self.nodes, {p for p, _ in self.updates}) if self.request.prepare else set()

    def _is_kept(self, node: Node) -> bool:
        """Whether what a node's slot holds stays from call to call."""
        slot = self.slot_of.get(node)
        return slot is not None and node in self.fixed and self.slots[slot].kind in ("variable", "constant", "kept")

    def _stays(self, group: Group) -> bool:
        """Whether what a group computes is kept from call to call: it reads only what is, and no caller sees it."""
        for m in group.members:
            if m not in self.fixed or m in self.slot_of:
                return False
            if not all(x in group.members or self._is_kept(x) for x in self.accesses.of(m)):
                return False
        return True

    def _is_steady(self, node: Node) -> bool:
        """Whether what a node's slot holds stays from call to call, or at least through the innermost loop."""
        return self._is_kept(node) or bool(self.loops and self.slot_of.get(node, -1) in self.loops[-1][0])

    def _ahead(self, group: Group, slots: set[int]) -> tuple[list[Step], str]:
        """Where a launch goes that reads only `slots`, which are steady, and of what kind its result's memory is."""
        kept = {self.slot_of[n] for m in group.members for n in self.accesses.of(m) if self._is_kept(n)}
        if all(s in kept or self.slots[s].kind == "kept" for s in slots):  # what was made ahead may be read ahead
            return self.preparing, "kept"
        return next(steps for steady, steps in self.loops if slots <= steady), "temporary"

    def _readers(self) -> dict[Node, set[Group]]:
        """Groups that read each member or external."""
        accesses = Accesses(self.stored)
        readers: dict[Node, set[Group]] = {}
        for g in self.groups:
            for m in g.members:
                for x in accesses.of(m):
                    readers.setdefault(x, set()).add(g)
        self.accesses = accesses
        return readers

    # ---- updates

    def place_updates(self) -> None:
        """Compute new values straight into their variables where no one needs the old ones; else copy at the end."""
        changed = {p for p, _ in self.updates}
        first: list[Copy] = []
        for parameter, value in self.updates:
            slot = self.slot_of[parameter]
            if value in changed:  # the old value of a variable that changes itself: kept apart before any does
                kept = self._slot(f"t{len(self.slots)}", value.type, "temporary")
                first.append(Copy(self.slot_of[value], kept))
                self.late.append(Copy(kept, slot))
            elif value in self.slot_of or not self._may_overwrite(parameter, value):
                self._memory(value)
                self.late.append(Copy(self.slot_of[value], slot))
            else:
                self._give(value, slot)
        self.late = first + self.late

    def _may_overwrite(self, parameter: Node, value: Node) -> bool:
        """Whether `value` can be written over `parameter`: whoever else reads the old value can run before."""
        group = self.of.get(value)
        if group is None or parameter in self.outputs or parameter in self.old:
            return False
        if group.special and [k for k, x in enumerate(value.inputs) if x is parameter] != [value.op.over]:
            return False
        others = [g for g in self.readers.get(parameter, ()) if g is not group]
        if any(g.runs_after(group) for g in others):
            return False
        own = outer_index(value.shape)
        for m in group.members:
            for place in self.accesses.of(m).get(parameter, ()):
                if place != own or m.shape != value.shape or len(group.members) > 1 and group.rank != value.rank:
                    return False
        before = 0
        for g in others:
            before |= g.through
        for g in self.groups if before & ~group.after else ():
            if g is group or g.runs_after(group):
                g.after |= before
        return True

    def _memory(self, node: Node, kind: str = "temporary") -> None:
        """Give memory to a node that other kernels or the caller read, if it has none."""
        if node in self.inlaid:
            self._memory(self.inlaid[node], kind)
            self._give(node, self.slot_of[self.inlaid[node]])
        if node not in self.slot_of:
            self._give(node, self._slot(f"t{len(self.slots)}", node.type, kind))

    def inlay(self) -> None:
        """Find products that are only read padded."""
        asked = {*self.outputs, *self.old}
        self.inlaid = inlaid(self.groups, self.readers, lambda n: n in self.slot_of or n in asked)
        self.padded = set(self.inlaid.values())

    # ---- lowering

    def lower(self, group: Group, target: Target, stages: Stages) -> None:
        if group.special:
            (node,) = group.members
            if isinstance(node.op, Cond):
                self._branch(node, target, stages)
            elif isinstance(node.op, Scan):
                loops.lower_loop(self, node, target, stages)
            elif isinstance(node.op, After):
                self.fences.update((id(s), s) for s in self.steps[-1:])  # what comes now comes late on purpose
                self._lay(node, self.slot_of[node.inputs[0]])
            elif node.op.has_kernel:
                self._memory(node)
                names = self._names(group)
                inputs = tuple(names[x] for x in node.inputs)
                self._launches(group, names, lower_op(node.op, names[node], inputs, target), stages)
            elif not isinstance(node.op, Item):
                raise CompileError(f"{self.request.name}: {node!r} has no element rule and no kernel")
            return
        if len(group.members) == 1 and group.members[0] in self.padded:
            (pad,) = group.members
            names = {pad: Buffer("m0", pad.dtype, pad.shape)}
            self._launches(group, names, lower_border(pad, names[pad], target), stages)
            return
        if not group.members:
            return
        kept = self._stays(group)
        for m in group.members:
            if any(g is not group for g in self.readers.get(m, ())):
                self._memory(m, "kept" if kept else "temporary")
        while True:
            names = self._names(group)
            overwritten = {
                p: v for v in names for p in self.stored_in.get(v, ()) if self.slot_of[v] == self.slot_of[p]
            }
            try:
                rows = emit(group, names, self.stored, overwritten)
                break
            except NeedsMemory as need:
                for node in need.nodes:
                    self._memory(node, "kept" if kept else "temporary")
            except OverwritesTooSoon as early:  # the new value is kept apart, and copied when all has run
                value = early.value
                self._give(value, self._slot(f"t{len(self.slots)}", value.type, "temporary"))
                self.late += [Copy(self.slot_of[value], self.slot_of[p]) for p, v in overwritten.items() if v is value]
        label = label_of(group)
        places = {
            names[x].name: (Buffer(names[x].name, x.dtype, pad.shape), pad.op.low)  # type: ignore[attr-defined]  # a Pad
            for x, pad in ((m, self.inlaid[m]) for m in group.members if m in self.inlaid)
        }
        if places:
            rows = shifted(rows, places)
        stages.rows.append((label, rows))
        constant = frozenset(b.name for n, b in names.items() if self._is_steady(n))
        if self.share != 0:
            self.uses.append(Use(rows, {b.name: self.slot_of[n] for n, b in names.items()}))
        aligned = target.kind != "cuda" or all(self._is_aligned(self.slot_of[n]) for n in names)
        asks = group.contract is not None and target.libraries and not kept
        around = cuda_masks.around(self, group, names) if asks else NOTHING
        zeros = borders(names) if group.contract is not None and target.kind == "cpu" else ()
        is_product = group.contract is not None
        code = lower(rows, is_product, target, label, constant, self.share, aligned, around, zeros)
        cuda_masks.take_sums(self, group, names, code)
        self._launches(group, names, code, stages, kept)
        made = stages.lowered[-1].launches
        if target.kind == "cuda" and self.loops and len(made) == len(code):
            use = Use(rows, {b.name: self.slot_of[n] for n, b in names.items()})
            self.looped |= {step: use if step is made[0] else None for step in made if isinstance(step, Launch)}

    def _is_aligned(self, slot: int) -> bool:
        """Whether a slot is sure to begin at a multiple of 16 bytes, as memory does: a row may not."""
        s = self.slots[slot]
        size = product(s.shape) * dtypes.named(s.dtype).bytes
        places = [s.alias] if s.row is None else [s.alias, s.row.edge]
        return (s.row is None or known_factor(size) % 16 == 0) and all(self._is_aligned(k) for k in places if k >= 0)

    def _lay(self, node: Node, slot: int) -> None:
        """Let a node be what a slot holds: a copy only where that has another place already, or may change before it is
        read."""
        if node not in self.slot_of and self.slots[slot].kind != "variable":
            self._give(node, slot)
        else:
            self._memory(node)
            self.steps.append(Copy(slot, self.slot_of[node]))

    def _launches(
        self, group: Group, names: dict[Node, Buffer], code: Sequence[Code | Call], stages: Stages, kept: bool = False
    ) -> None:
        layers = tuple(dict.fromkeys(repr(o) for m in group.members for o in origins(m) if repr(o)))[:8]
        slot_by_buffer = {b.name: self.slot_of[n] for n, b in names.items()}
        sources = dict.fromkeys(x for m in group.members for x in self.accesses.of(m) if x not in group.members)
        stages.lowered.append(
            Lowered(
                list(group.members),
                [(self.slot_of[x], x) for x in sources if x in self.slot_of],
                [(self.slot_of[m], m) for m in group.members if m in self.slot_of],
            )
        )
        for made in code:
            steps, kind = (self.preparing, "kept") if kept else (self.steps, "temporary")
            if made.early and not kept:
                own = {b.name for b in made.scratch}
                read = {slot_by_buffer[b.name] for b in made.reads if b.name not in own}
                steps, kind = self._ahead(group, read)
            for b in made.scratch:
                slot_by_buffer[b.name] = self._slot(b.name, TensorType(b.dtype, b.shape), kind)
            for steady, before in self.loops:
                if before is steps:
                    steady.update(slot_by_buffer[b.name] for b in made.scratch)
            step: Launch | Library
            if isinstance(made, Call):
                step = self._library(made, slot_by_buffer, layers)
                if made.relu is not None:
                    step = cuda_masks.connected(self, made, step, slot_by_buffer[made.relu.name], stages.lowered)
            else:
                step = self._launch(made, slot_by_buffer, layers, group, stages)
            steps.append(step)
            if kept or not made.early:  # what runs long before the others does not tell when the group begins
                stages.lowered[-1].launches.append(step)

    def _library(self, call: Call, slot_by_buffer: dict[str, int], layers: tuple[str, ...]) -> Library:
        """The step that calls a library."""
        inputs, outputs = (tuple(slot_by_buffer[b.name] for b in side) for side in (call.reads, call.writes))
        slots = dict.fromkeys((*inputs, *outputs))
        moved = sum_sizes(product(self.slots[s].shape) * dtypes.named(self.slots[s].dtype).bytes for s in slots)
        work = sum_sizes([floor(call.flops, 48), floor(moved, 30)])
        workspace = slot_by_buffer[call.workspace.name]
        return Library(
            call.name, inputs, outputs, call.parameters, workspace, work, call.flops, moved, call.label, layers
        )

    def _names(self, group: Group) -> dict[Node, Buffer]:
        """Buffers of what a group reads and of those of its members that have memory, named by their place in the
        group, so that equal groups are equal text. What is updated in place has one name."""
        by_slot: dict[int, str] = {}
        names: dict[Node, Buffer] = {}
        for m in group.members:
            for n in (*self.accesses.of(m), m):
                slot = self.slot_of.get(n)
                if slot is not None and n not in names:
                    name = by_slot.setdefault(slot, f"m{len(by_slot)}")
                    names[n] = Buffer(name, n.dtype, n.shape)
        return names

    def _branch(self, node: Node, target: Target, stages: Stages) -> None:
        """A condition: the steps of both sides, of which the entry function runs one."""
        condition, *operands = (self.slot_of[x] for x in node.inputs)
        results = [
            self.slot_of[item]
            if (item := Item(k)(node)) in self.slot_of
            else self._slot(f"t{len(self.slots)}", t, "temporary")
            for k, t in enumerate(node.type.items)
        ]
        for k, slot in enumerate(results):
            self._give(Item(k)(node), slot)
        sides = []
        for graph in (node.op.then, node.op.orelse):  # type: ignore[attr-defined]  # a Cond
            outer = self.steps, self.stored, self.groups, self.of, self.readers, self.accesses
            for leaf, slot in zip(graph.inputs, operands, strict=True):
                self._give(leaf, slot)
            roots = simplify(graph.outputs)
            for leaf in walk(roots):
                if isinstance(leaf.op, Array) and leaf not in self.slot_of:
                    self.constants.append((self._leaf(leaf, "constant"), leaf.op.data))
            stored = choose_stored(roots)
            self.steps, self.stored, self.groups = [], set(stored), make_groups(stored)
            self.of = {m: g for g in self.groups for m in g.members}
            self.readers = self._readers()
            copies = []
            for root, slot in zip(roots, results, strict=True):
                if root in self.slot_of:
                    copies.append(Copy(self.slot_of[root], slot))
                else:
                    self._give(root, slot)
            for group in self.groups:
                self.lower(group, target, stages)
            sides.append((*self.steps, *copies))
            self.nodes += walk(roots)
            self.steps, self.stored, self.groups, self.of, self.readers, self.accesses = outer
        self.steps.append(Branch(condition, *sides))

    def _launch(self, made: Code, slot_by_buffer, layers, group: Group, stages: Stages) -> Launch:
        name, kernel = made.source.name, made.kernel
        if name not in self.sources:
            self.sources[name] = made.source
            stages.kernels[name] = kernel
        stages.nodes.setdefault(name, list(group.members))
        buffers = tuple(slot_by_buffer[b.name] for b in kernel.buffers)
        moved = self._moved(kernel, buffers)
        flops = made.piece.flops
        work = sum_sizes([floor(flops, 48), floor(moved, 30)])
        sizes = tuple(symbol(s) for s in made.sizes)
        extent = made.piece.extent
        launch = Launch(name, buffers, sizes, extent, work, flops, moved, kernel.label, layers, *made.geometry)
        return replace(launch, share=made.piece.share)

    def _moved(self, kernel: Kernel, slots: Sequence[int]) -> Dim:
        """The bytes of memory that a kernel touches."""
        some, used = touched(kernel), dict(zip(slots, kernel.buffers, strict=True))
        known = [(self.slots[s], some.get(b.name, product(self.slots[s].shape))) for s, b in used.items()]
        return sum_sizes(n * dtypes.named(slot.dtype).bytes for slot, n in known)

    # ---- the whole

    def program(self, target: Target, stages: Stages) -> Program:
        request = self.request
        steps = [*self.steps, *self.late]
        if target.kind == "cuda":
            steps = self._persistent(steps, target, stages)
        if request.repeat is not None:
            counter, count = request.repeat
            steps = [Repeat(count, self.slot_of[counter], tuple(steps))]
        steps = [*self._prepared(), *steps, *self._changed()]
        if target.kind == "cuda":
            steps = self._together(steps, target, stages)
        self._forget_between(steps)
        lives = lifetimes(self.slots, steps)
        slots = [
            replace(s, first=lives.get(k, (0, 0))[0], last=lives.get(k, (0, 0))[1]) if s.kind == "temporary" else s
            for k, s in enumerate(self.slots)
        ]
        names, bindings = self._bindings()
        sources, entry = self._sources(steps, slots, names, target)
        return Program(
            request.name,
            target.kind,
            tuple(self.inputs),
            tuple(self.output_slots),
            tuple((self.slot_of[p], key_of(p)) for p in self.parameters),
            tuple(self.constants),
            names,
            bindings,
            self._checks(),
            tuple(slots),
            tuple(steps),
            sources,
            entry,
            {name: k.text() for name, k in stages.kernels.items()},
        )

    def _persistent(self, steps: list[Step], target: Target, stages: Stages) -> list[Step]:
        """The steps with loops that run by themselves. The loop around the whole program stays the runtime's."""

        def barrier() -> int:
            if self.barrier < 0:
                self.barrier = self._slot("barrier", TensorType("uint32", (2,)), "kept")
            return self.barrier

        render = self._renders(target, stages)
        steps, became = persistent(steps, self.slots, stages.kernels, self.looped, render, barrier, room(target.cpu))
        for before, now in became.items():
            stages.nodes[now.kernel] = [*stages.nodes.get(now.kernel, []), *stages.nodes.get(before.kernel, [])]
        for lowered in stages.lowered:  # what a group computes in each round cannot be looked at any more
            if any(launch in became for launch in lowered.launches):
                lowered.launches = []
        return steps

    def _renders(self, target: Target, stages: Stages) -> Callable[[Kernel], tuple[str, tuple]]:
        """What files the text of a kernel and gives its name and (grid, block, shared bytes)."""

        def render(kernel: Kernel) -> tuple[str, tuple]:
            code = rendered(Piece(kernel, 1, kernel.flops), target)
            self.sources[code.source.name] = code.source
            stages.kernels[code.source.name] = kernel
            return code.source.name, code.geometry

        return render

    def _together(self, steps: list[Step], target: Target, stages: Stages) -> list[Step]:
        """The steps with launches joined that do not wait for each other."""
        steps, became = together(steps, self.slots, stages.kernels, self._renders(target, stages), self.fences)
        for before, now in became.items():
            stages.nodes[now.kernel] = [*stages.nodes.get(now.kernel, []), *stages.nodes[before.kernel]]
        for lowered in stages.lowered:
            lowered.launches = [became.get(s, s) if isinstance(s, Launch) else s for s in lowered.launches]
        used = {s.kernel for s in all_steps(steps) if isinstance(s, Launch)}
        for name in [name for name in self.sources if name not in used]:
            del self.sources[name], stages.kernels[name]
        return steps

    def _prepared(self) -> list[Step]:
        """The step that renews what is kept from call to call."""
        if not self.preparing:
            return []
        clock, seen = self._clock(), self._slot("seen", TensorType("int64", ()), "kept")
        return [Prepare(clock, seen, tuple(self.preparing))]

    def _forget_between(self, steps: Sequence[Step]) -> None:
        """What is kept but read only while other things that are kept are made needs no memory of its own."""
        made = {k for s in all_steps(self.preparing) if isinstance(s, Launch) for k in s.buffers}
        others = [s for s in steps if not isinstance(s, Prepare)]
        used = {m for s in all_steps(others) for k in own(s) for m in memory_of(self.slots, k)}
        for k in made - used:
            if self.slots[k].kind == "kept":
                self.slots[k] = replace(self.slots[k], kind="temporary")

    def _changed(self) -> list[Step]:
        """The step that tells other programs that variables have changed."""
        return [Changed(self._clock())] if self.request.prepare and self.updates else []

    def _clock(self) -> int:
        if self.clock < 0:
            self.clock = self._slot("clock", TensorType("int64", ()), "clock")
        return self.clock

    def _sources(self, steps, slots, names, target: Target) -> tuple[tuple[Source, ...], str]:
        """The program's text, and the name of its entry function. CUDA has none: the runtime launches the kernels."""
        if target.kind == "cuda":
            return (Source("prelude", cuda_text.PRELUDE, ()), *self.sources.values()), ""
        text = render_entry("ENTRY", steps, slots, names, target)
        # not named after the function: an equal one of another name (`sequential_7_train`) needs no code of its own
        entry = f"entry_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        source = Source(entry, text.replace("@ENTRY(", f"@{entry}("), (entry,))
        return (*self.sources.values(), source), entry

    def _bindings(self) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """Each named size and the input axis it is read from. Raises CompileError for one that no input has."""
        found: dict[str, tuple[int, int]] = {}
        for k, leaf in enumerate(self.request.inputs):
            for axis, d in enumerate(leaf.shape):
                if isinstance(d, Size) and len(d.terms) == 1 and d.terms[0][1] == 1 and len(d.terms[0][0]) == 1:
                    atom = d.terms[0][0][0]
                    if isinstance(atom, Symbol):
                        found.setdefault(atom.name, (k, axis))
        from gnomon.compiler.sizes import symbols

        used = {s for slot in self.slots for d in slot.shape for s in symbols(d)}
        used |= {
            s
            for step in all_steps(self.steps)
            if isinstance(step, Launch)
            for d in (*step.sizes, step.extent)
            for s in symbols(d)
        }
        counts = [step.count for step in all_steps(self.steps) if isinstance(step, Repeat) and step.count is not None]
        counts += [] if self.request.repeat is None else [self.request.repeat[1]]
        used |= {s for d in counts for s in symbols(d)}
        for k, leaf in enumerate(self.request.inputs):
            if leaf.shape == () and size_of(leaf) in used:
                found[size_of(leaf)] = (k, -1)
        for s in used - set(found):
            raise CompileError(
                f"{self.request.name}: no input tells the size {s!r}: some input must have an axis of just that size"
            )
        names = tuple(sorted(found))
        return names, tuple(found[n] for n in names)

    def _checks(self) -> tuple[Check, ...]:
        """Sizes that the graph takes to be equal."""
        checks: dict[tuple, Check] = {}
        for n in self.nodes:
            if isinstance(n.op, Equate):
                for a, b in zip(n.op.shape, n.inputs[0].shape, strict=True):
                    if a != b:
                        where = ", ".join(repr(o) for o in origins(n))
                        checks.setdefault(
                            (a, b), Check(a, b, f"{a} and {b} must be equal: two operands meet at {where}")
                        )
            elif isinstance(n.op, Slice):
                (x,) = n.inputs
                for start, size, step, have in zip(n.op.start, n.op.size, n.op.step, x.shape, strict=True):
                    if size == 0:
                        continue
                    last = start + (size - 1) * step
                    # only the outer ends: of an empty slice (x[1:] of one row) the inner one may lie outside
                    lowest, highest = (start, last) if step > 0 else (last, start)
                    where = ", ".join(repr(o) for o in origins(n))
                    for least, what in ((lowest, f"position {lowest}"), (size, f"the number of elements, {size},")):
                        if not non_negative(least):
                            message = f"{what} must not be below 0: a slice of {x.type} at {where}"
                            checks.setdefault((maximum(least, 0), least), Check(maximum(least, 0), least, message))
                    if not non_negative(have - 1 - highest):
                        inside = maximum(highest + 1, have)  # is `have` if the position is within the axis
                        message = f"position {highest} must be inside an axis of {have} elements: a slice at {where}"
                        checks.setdefault((inside, have), Check(inside, have, message))
            else:
                for have, least in _needed(n, self.request.repeat[1] if self.request.repeat is not None else 1):
                    if not non_negative(have - 1):
                        where = ", ".join(repr(o) for o in origins(n))
                        inside = maximum(least, have)
                        message = f"an axis of {have} elements must not be empty: {type(n.op).__name__} at {where}"
                        checks.setdefault((inside, have), Check(inside, have, message))
        return tuple(checks.values())


def _needed(node: Node, runs: Dim) -> list[tuple[Dim, Dim]]:
    """Axes that must have elements if the graph runs at all, and how many: those that are read at computed positions,
    if anything is read, and those that something is put between."""
    if isinstance(node.op, (Gather, GatherAlong)):
        return [(node.inputs[0].shape[node.op.axis], _one_if_any(product(node.shape) * runs))]
    if isinstance(node.op, Pad):
        between = zip(node.inputs[0].shape, node.op.interior, strict=True)
        return [(d, _one_if_any(runs)) for d, inside in between if inside]
    return []


def _one_if_any(count: Dim) -> Dim:
    """1 if `count` is above 0."""
    return 1 - maximum(0, 1 - count)


def label_of(group: Group) -> str:
    names: dict[str, None] = {}
    for m in group.members:
        names[type(m.op).__name__.lower() if not hasattr(m.op, "kind") else str(m.op.kind)] = None
        if hasattr(m.op, "name"):
            names[m.op.name] = None
    names.pop("elementwise", None)
    return "_".join(list(names)[:5]) or "kernel"


def sum_sizes(dims) -> Dim:
    total: Dim = 0
    for d in dims:
        total = total + d
    return total


def floor(d: Dim, by: int) -> Dim:
    """About d / by, without making the size more complicated: an estimate."""
    return d // by if isinstance(d, int) else d.__floordiv__(by)

