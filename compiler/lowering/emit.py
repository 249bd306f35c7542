"""A group of members as a row program: what is computed in which loop, before anyone decides how the loops run.

A row program has outer axes, whose iterations are independent, and stages that run in order for each of them. A stage
is a loop nest over inner axes; in it, folds are accumulated and elements stored. The policies (`cpu`, `cuda`) turn a
row program into a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.kernel import Buffer, Cast, Expr, Fold, Load, Local, Rewriter, atom_of, expressions, index_names
from gnomon.compiler.lowering.fuse import Group, is_fold
from gnomon.compiler.lowering.melt import Melter, outer_index
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.sizes import Dim, Index, Size, product

ROW_BYTES = 64 << 10
"""A row buffer up to this size is local to the iteration; a larger or symbolic one needs memory of its own."""


class NeedsMemory(Exception):
    """Members are handed from stage to stage and too large for row buffers: they must be given memory."""

    def __init__(self, nodes: list[Node]):
        super().__init__(*nodes)
        self.nodes = nodes


class OverwritesTooSoon(Exception):
    """A variable's new value would be stored over the old one while a later stage still needs that."""

    def __init__(self, value: Node):
        super().__init__(value)
        self.value = value


@dataclass
class Stage:
    """A loop nest over `axes`: name, fold, then store. A stage without axes is straight code.

    folds    (name, kind, value): the reduction of `value` over all `axes`, known by its name in later stages
    lets     (name, value): values of one iteration that several others are made of
    stores   (buffer, index, value)
    """

    axes: tuple[Index, ...]
    folds: list[tuple[Local, str, Expr]] = field(default_factory=list)
    lets: list[tuple[Local, Expr]] = field(default_factory=list)
    stores: list[tuple[Buffer, tuple[Dim, ...], Expr]] = field(default_factory=list)


@dataclass
class RowProgram:
    """Outer axes, the stages of one iteration in order, and the row buffers they hand values on in."""

    outer: tuple[Index, ...]
    stages: tuple[Stage, ...]
    scratch: tuple[Buffer, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]

    def __repr__(self) -> str:
        lines = [f"rows({', '.join(f'{a.name} < {a.extent}' for a in self.outer)}):"]
        for s in self.stages:
            lines.append(f"  stage({', '.join(f'{a.name} < {a.extent}' for a in s.axes)}):")
            lines += [f"    {n.name} = {kind} of {e!r}" for n, kind, e in s.folds]
            lines += [f"    {n.name} = {e!r}" for n, e in s.lets]
            lines += [f"    {b.name}[{', '.join(map(str, i))}] = {e!r}" for b, i, e in s.stores]
        return "\n".join(lines)


@dataclass
class _Member:
    """What is known of a member while its group is emitted."""

    node: Node
    index: tuple[Dim, ...]  # the element that its stage's loops compute
    axes: tuple[Index, ...]
    level: int
    value: Expr | None = None
    local: Local | None = None  # set if it is one value for each outer iteration
    stored: Buffer | None = None
    kind: str = ""  # of its fold
    shared: bool = False  # read by others where it is made
    reads: dict[Node, list[tuple[Dim, ...]]] = field(default_factory=dict)  # of other members
    old: set[Node] = field(default_factory=set)  # parameters it reads that are overwritten


def emit(
    group: Group, memory: Mapping[Node, Buffer], stored: set[Node], overwritten: Mapping[Node, Node] | None = None
) -> RowProgram:
    """The row program of a group.

    memory   buffers of externals, of other groups' members, and of those members whose values are wanted outside
    stored   all nodes that do not melt
    overwritten   parameters whose new values are stored in their place: {parameter: value}

    Raises NeedsMemory, OverwritesTooSoon: the caller changes `memory` and tries again.
    """
    with index_names():
        return _Emitter(group, memory, stored, overwritten or {}).run()


class _Emitter:
    def __init__(
        self, group: Group, memory: Mapping[Node, Buffer], stored: set[Node], overwritten: Mapping[Node, Node]
    ):
        self.group, self.memory, self.stored, self.overwritten = group, memory, stored, overwritten
        self.rank = group.rank
        first = group.members[0]
        self.outer = outer_index(first.shape)[: self.rank]
        self.members: dict[Node, _Member] = {}
        self.scratch: list[Buffer] = []

    def run(self) -> RowProgram:
        order = [self._place(n) for n in self.group.members]
        for parameter, new in self.overwritten.items():
            if new in self.members and any(parameter in m.old and m.level > self.members[new].level for m in order):
                raise OverwritesTooSoon(new)
        self._decide_storage(order)
        stages: dict[tuple[int, tuple[Index, ...]], Stage] = {}

        def stage(level: int, axes: tuple[Index, ...]) -> Stage:
            return stages.setdefault((level, axes), Stage(axes))

        for m in order:
            value = self._value(m)
            m.value = value
            if m.kind:
                assert m.local is not None
                stage(m.level, m.axes).folds.append((m.local, m.kind, value))
                if m.stored is not None:
                    stage(m.level + 1, ()).stores.append((m.stored, m.index, self._finished(m)))
                continue
            where = stage(m.level, m.axes)
            if m.local is not None or m.shared:
                name = m.local or Local(f"w{order.index(m)}", m.node.dtype)
                where.lets.append((name, value))
                m.value = value = name
            if m.stored is not None:
                place = m.index if m.stored.space == "global" else m.index[self.rank :]
                where.stores.append((m.stored, place, value))
        ordered = [s for _, s in sorted(stages.items(), key=lambda item: item[0][0])]
        outer = tuple(atom_of(i) for i in self.outer if not isinstance(i, int))
        reads, writes = _touched(ordered, set(self.scratch))
        return RowProgram(outer, tuple(ordered), tuple(self.scratch), reads, writes)

    # ---- where each member is computed

    def _place(self, node: Node) -> _Member:
        index = list(self.outer)
        for k in range(self.rank, node.rank):
            index.append(Size.of(Index(f"i{k}", node.shape[k])) if node.shape[k] != 1 else 0)
        inner = tuple(atom_of(i) for i in index[self.rank :] if not isinstance(i, int))
        axes, kind = inner, ""
        if is_fold(node) and not inner:
            body = self._fold_of(node, tuple(index))
            if body is not None and body.axes:
                axes, kind = body.axes, body.kind
        m = _Member(node, tuple(index), axes, 0, kind=kind)
        if not inner:
            m.local = Local(f"v{len(self.members)}", _accumulates(node) if kind else node.dtype)
        self.members[node] = m
        for x, places in self._reads(node, m).items():
            other = self.members.get(x)
            if other is None or other is m:
                continue
            here = not other.kind and other.axes == m.axes and not m.kind and all(p == other.index for p in places)
            if not here and not other.kind and m.kind and other.axes == m.axes:
                here = all(p == other.index for p in places)
            if other.local is not None and not other.kind and other.axes == m.axes:
                here = True
            m.level = max(m.level, other.level if here else other.level + 1)
        return m

    def _fold_of(self, node: Node, index: tuple[Dim, ...]) -> Fold | None:
        """The reduction that a member is, its axes renamed so that loops over the same axes are the same loops."""
        melter = Melter(self._placeholder)
        e = melter.element(node, index)
        if isinstance(e, Cast) and isinstance(e.x, Fold):
            e = e.x
        return self._renamed(node, e) if isinstance(e, Fold) else None

    def _renamed(self, node: Node, fold: Fold) -> Fold:
        change: dict[Any, Size] = {}
        positions = sorted(node.op.axes) if isinstance(node.op, Reduce) else range(len(fold.axes))
        for a, k in zip(fold.axes, positions, strict=True):
            row = isinstance(node.op, Reduce) and k >= self.rank
            change[a] = Size.of(Index(f"i{k}" if row else f"j{k}", a.extent))
        rewriter = Rewriter(index=change.get)
        axes = tuple(atom_of(change[a]) for a in fold.axes if a.extent != 1)
        one: dict[Any, Dim] = {atom_of(change[a]): 0 for a in fold.axes if a.extent == 1}
        body = rewriter.expr(fold.body)
        if one:
            body = Rewriter(index=one.get).expr(body)
        return Fold(fold.kind, axes, body)

    def _placeholder(self, x: Node, index: tuple[Dim, ...]) -> Expr | None:
        if x in self.members or x in self.stored or x in self.memory:
            return Load(Buffer(f"n{x.serial}", x.dtype, x.shape), index)
        return None

    def _reads(self, node: Node, m: _Member) -> dict[Node, list[tuple[Dim, ...]]]:
        by_name = {f"n{x.serial}": x for x in self.members}
        changing = {f"n{x.serial}": x for x in self.overwritten}
        found: dict[Node, list[tuple[Dim, ...]]] = {}
        melter = Melter(self._placeholder)
        e = melter.element(node, m.index)
        if m.kind:
            if isinstance(e, Cast):
                e = e.x
            assert isinstance(e, Fold)
            e = self._renamed(node, e).body
        for load in expressions([e]):
            if isinstance(load, Load) and load.buffer.name in by_name:
                found.setdefault(by_name[load.buffer.name], []).append(load.index)
            elif isinstance(load, Load) and load.buffer.name in changing:
                m.old.add(changing[load.buffer.name])
        m.reads = found
        return found

    # ---- memory

    def _decide_storage(self, order: list[_Member]) -> None:
        for m in order:
            m.stored = self.memory.get(m.node)
        large: dict[Node, None] = {}
        for m in order:
            for x in m.reads:
                other = self.members[x]
                if other is m or other.local is not None or other.stored is not None:
                    continue
                if other.level == m.level and other.axes == m.axes:
                    other.shared = True
                if other.level != m.level or other.axes != m.axes or any(p != other.index for p in m.reads[x]):
                    other.stored = self._row_buffer(other)
                    if other.stored is None:
                        large[x] = None
        if large:  # all at once: each time the whole group is written anew
            raise NeedsMemory(list(large))

    def _row_buffer(self, m: _Member) -> Buffer | None:
        shape = m.node.shape[self.rank :]
        size = product(shape) * dtypes.named(m.node.dtype).bytes
        if not isinstance(size, int) or size > ROW_BYTES:
            return None
        buffer = Buffer(f"row{len(self.scratch)}", m.node.dtype, shape, "local")
        self.scratch.append(buffer)
        return buffer

    # ---- values

    def _value(self, m: _Member) -> Expr:
        melter = Melter(lambda x, index: self._read(m, x, index))
        e = melter.element(m.node, m.index)
        if m.kind:
            if isinstance(e, Cast):
                e = e.x
            assert isinstance(e, Fold)
            e = self._renamed(m.node, e)
            # operands were written with the fold's own axes: members of this stage are read by the renamed ones
            return _inlined(e.body, self, m)
        return _inlined(e, self, m)

    def _finished(self, m: _Member) -> Expr:
        assert m.local is not None
        return m.local if m.local.dtype == m.node.dtype else Cast(m.node.dtype, m.local)

    def _read(self, m: _Member, x: Node, index: tuple[Dim, ...]) -> Expr | None:
        other = self.members.get(x)
        if other is not None and other is not m:
            if other.local is not None:
                return self._finished(other)
            return Load(
                Buffer(f"n{x.serial}", x.dtype, x.shape), index
            )  # resolved by _inlined, once axes have their names
        if x in self.memory:
            return Load(self.memory[x], index)
        return None


def _inlined(e: Expr, emitter: _Emitter, m: _Member) -> Expr:
    """`e` with reads of members replaced by their values, or by loads from where they are kept."""
    by_name = {f"n{x.serial}": o for x, o in emitter.members.items()}

    def change(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        other = by_name.get(x.buffer.name)
        if other is None:
            return None
        if other.level == m.level and other.axes == m.axes and x.index == other.index:
            assert other.value is not None
            return other.value
        assert other.stored is not None, (m.node, other.node)
        place = x.index if other.stored.space == "global" else x.index[emitter.rank :]
        mask = None if x.mask is None else rewriter.expr(x.mask)
        return Load(other.stored, tuple(rewriter.size(i) for i in place), mask)

    rewriter = Rewriter(change)
    return rewriter.expr(e)


def _accumulates(node: Node) -> str:
    """The dtype a reduction is accumulated in."""
    compute = dtypes.named(node.dtype).compute
    return compute if not isinstance(node.op, Reduce) else node.dtype


def _touched(stages: list[Stage], scratch: set[Buffer]) -> tuple[tuple[Buffer, ...], tuple[Buffer, ...]]:
    """Buffers read and written, in order of first use."""
    writes = list(dict.fromkeys(b for s in stages for b, _, _ in s.stores if b not in scratch))
    roots = [e for s in stages for e in [*(f[2] for f in s.folds), *(x[1] for x in s.lets), *(x[2] for x in s.stores)]]
    loads = [e.buffer for e in expressions(roots) if isinstance(e, Load)]
    reads = list(dict.fromkeys(b for b in loads if b not in scratch))
    return tuple(reads), tuple(writes)
