"""Loops: a computation that is repeated, each step taking what the one before gave it.

A `Scan` holds its body once, as a `SubGraph`, and the number of steps as a size: nothing here grows with the number
of steps, and no pass unrolls. One step is

    carries, rows = body(counter, carries, slices of the sequences, invariants)

A *carry* is what a step hands to the next. A *sequence* has one slice for each step along its first axis, an
*invariant* is the same in all steps. *Rows* are what the steps leave behind: stacked along a new first axis, row t by
the step whose counter is t, whichever way the loop runs.

How a loop runs.     The body becomes a list of program steps inside a `Repeat`, compiled once (`lowering.loops`). The
slice of a sequence is not copied: it is a *view*, row `counter` of the sequence's memory, and rows are computed into
their place. A carry that is also stacked lives in its stack: it is read in the row before. Other carries alternate
between two places. So a loop copies nothing.

How it is differentiated.     Backwards: a Scan that runs the other way. It reads the carries as they were before each
step, which the forward loop stacks for it (`Delayed` turns a stack of new carries into one of old ones without a
copy), and of the values inside the step those that are dearer to make again than to keep (`residuals`). What the
forward loop leaves behind for this is added to it: the Scan of the gradient is a wider one of the same family, and
`join_families` (in `passes.loops`) makes one loop of both. Gradients of invariants are carries that only ever grow;
that pass takes such sums out of the loop, so that the gradient of a weight is one large product over all steps.
Differentiating the result again is differentiating Scans. Forward mode is backward mode twice, as everywhere here;
the loop that runs backwards in between is not needed in the end and vanishes.

Checkpoints.     `recomputed` says that of this loop nothing but what goes into it is kept when a loop around it is
differentiated. A loop of T steps written as T/k times k steps, the inner one recomputed, keeps the carries of every
k-th step: Griewank, Walther 2000, "Algorithm 799: revolve", its simplest schedule (`checkpointed`).

Ends.     The number of steps is a size, or comes at run time as a scalar (`limited`), or is decided by the body
(`until`: its last output ends the loop after the step in which it is true). Stacks have a row for each of `steps`;
those of steps that were not done are 0, and the last result tells how many were. Without `steps` nothing can be
stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, GraphError, ShapeError
from gnomon.compiler.graph import Item, Node, Op, TensorType, TupleType, walk
from gnomon.compiler.graph import replace as replaced
from gnomon.compiler.ops.control import WALKS, SubGraph
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.residuals import residuals
from gnomon.compiler.sizes import Dim, floordiv, maximum

COUNTER = TensorType("int64", ())
FLAG = TensorType("bool", ())


@dataclass(frozen=True)
class Scan(Op):
    """`body` repeated.

    Inputs: the limit (an int64 scalar, if `limited`), the first carries, the sequences, the invariants, the edges.
    Body: inputs counter (int64), carries, slices, invariants; outputs carries, rows, and (if `until`) a bool scalar.
    result: a tuple: the last carries, the stacks, and (if `limited` or `until`) the number of steps done, int64

    steps       of a sequence or stack; None if only the limit or the body knows
    carries, sequences   how many of each
    reverse     the counter goes from the last step to 0
    truncate    how many steps at the end the gradient goes through; 0: all
    recomputed  see the module
    offsets     for each sequence, what is added to the counter to get the row; () is 0 for all
    edges       sequences that have a value of their own (an edge) for rows that lie outside
    Raises ShapeError or DTypeError where a carry would change its type, and for sequences that are too short.
    """

    body: SubGraph
    steps: Dim | None
    carries: int
    sequences: int
    reverse: bool = False
    until: bool = False
    limited: bool = False
    truncate: int = 0
    recomputed: bool = False
    offsets: tuple[Dim, ...] = ()
    edges: tuple[int, ...] = ()

    # ---- parts

    @property
    def counts(self) -> bool:
        """Whether the number of steps done is a result."""
        return self.until or self.limited

    @property
    def stacks(self) -> int:
        """How many rows a step leaves behind."""
        return len(self.body.outputs) - self.carries - self.until

    @property
    def counter(self) -> Node:
        return self.body.inputs[0]

    @property
    def carry_leaves(self) -> tuple[Node, ...]:
        return self.body.inputs[1 : 1 + self.carries]

    @property
    def slice_leaves(self) -> tuple[Node, ...]:
        return self.body.inputs[1 + self.carries : 1 + self.carries + self.sequences]

    @property
    def invariant_leaves(self) -> tuple[Node, ...]:
        return self.body.inputs[1 + self.carries + self.sequences :]

    @property
    def new_carries(self) -> tuple[Node, ...]:
        return self.body.outputs[: self.carries]

    @property
    def rows(self) -> tuple[Node, ...]:
        return self.body.outputs[self.carries : self.carries + self.stacks]

    @property
    def is_plain(self) -> bool:
        """Whether each sequence is read at the counter."""
        return not (self.offsets or self.edges)

    def offset(self, k: int) -> Dim:
        return self.offsets[k] if self.offsets else 0

    def given(self, inputs: Sequence[Any]) -> Given:
        """The inputs, or whatever there is one of for each of them, by what they are for."""
        rest = list(inputs)
        limit = rest.pop(0) if self.limited else None
        first, rest = rest[: self.carries], rest[self.carries :]
        sequences, rest = rest[: self.sequences], rest[self.sequences :]
        end = len(rest) - len(self.edges)
        return Given(limit, first, sequences, rest[:end], rest[end:])

    # ---- meaning

    def infer(self, *types):
        given = self.given(types)
        assert len(self.body.inputs) == 1 + self.carries + self.sequences + len(given.invariants), (self, types)
        assert self.counter.type == COUNTER, self.counter
        assert given.limit in (None, COUNTER), given.limit
        for k, (leaf, t, new) in enumerate(zip(self.carry_leaves, given.first, self.new_carries, strict=True)):
            if leaf.type != t or new.type != t:
                error = ShapeError if new.dtype == t.dtype == leaf.dtype else DTypeError
                raise error(
                    f"carry {k} of a loop must stay of one type: it begins as {t} and is {new.type} after a step"
                )
        for k, (leaf, t) in enumerate(zip(self.slice_leaves, given.sequences, strict=True)):
            if not t.rank or leaf.type != TensorType(t.dtype, t.shape[1:]):
                raise ShapeError(f"sequence {k} of a loop has slices {leaf.type}, got {t}")
            if self.steps is None:
                raise ShapeError(f"a loop over a sequence, {t}, needs to know the number of its steps")
            if self.is_plain and t.shape[0] != self.steps:
                raise ShapeError(f"a loop of {self.steps} steps needs as many slices of each sequence, got {t}")
        for leaf, t in zip(self.invariant_leaves, given.invariants, strict=True):
            assert leaf.type == t, (leaf, t)
        for k, t in zip(self.edges, given.edges, strict=True):
            assert t == self.slice_leaves[k].type, (k, t)
        if self.until and self.body.outputs[-1].type != FLAG:
            raise DTypeError(f"what ends a loop must be a scalar bool, got {self.body.outputs[-1].type}")
        if self.steps is None and self.stacks:
            raise ShapeError("a loop whose number of steps is not known as a size cannot stack what its steps give")
        stacks = tuple(TensorType(r.dtype, (self.steps, *r.shape)) for r in self.rows)  # type: ignore[arg-type]
        return TupleType((*given.first, *stacks, *((COUNTER,) if self.counts else ())))

    def numpy(self, env, *inputs):
        return self.run(env, inputs, WALKS["evaluate_graph"])

    def run(self, env: Any, inputs: Sequence[Any], evaluate: Callable[..., list[Any]]) -> tuple[Any, ...]:
        """The meaning, as a Python loop; `evaluate(outputs, values, sizes)` is one step's."""
        given = self.given(inputs)
        steps = None if self.steps is None else env.size(self.steps)
        count = steps
        if given.limit is not None:
            count = max(0, int(given.limit)) if steps is None else min(max(0, int(given.limit)), steps)
        stacks: list[Any] = []
        edges = dict(zip(self.edges, given.edges, strict=True))
        offsets = [env.size(self.offset(k)) for k in range(self.sequences)]
        carries = list(given.first)
        values = dict(zip(self.invariant_leaves, given.invariants, strict=True))
        done, stop = 0, False
        while not stop and (count is None or done < count):
            t = done if not self.reverse or count is None else count - 1 - done
            values[self.counter] = np.asarray(t, np.int64)
            values.update(zip(self.carry_leaves, carries, strict=True))
            for k, (leaf, sequence) in enumerate(zip(self.slice_leaves, given.sequences, strict=True)):
                row = t + offsets[k]
                values[leaf] = edges[k] if k in edges and not 0 <= row < len(sequence) else sequence[row]
            found = [np.asarray(v) for v in evaluate(self.body.outputs, values, env.values)]
            carries = found[: self.carries]
            rows = found[self.carries : self.carries + self.stacks]
            stacks = stacks or [np.zeros((steps, *r.shape), r.dtype) for r in rows]
            for stack, row in zip(stacks, rows, strict=True):
                stack[t] = row
            stop = bool(self.until and found[-1])
            done += 1
        if not done:
            stacks = [np.zeros((steps, *env.shape(r.shape)), dtypes.named(r.dtype).numpy) for r in self.rows]
        return (*carries, *stacks, *((np.asarray(done, np.int64),) if self.counts else ()))

    # ---- rewriting

    def with_rows(self, out: Node, rows: Sequence[Node]) -> tuple[Node, list[Node]]:
        """The loop `out` with more rows, and the stacks of these; what is a row already is not stacked twice."""
        known = {r: k for k, r in reversed(list(enumerate(self.rows)))}
        added = [r for r in dict.fromkeys(rows) if r not in known]
        known |= {r: self.stacks + k for k, r in enumerate(added)}
        outputs = (*self.new_carries, *self.rows, *added, *self.body.outputs[self.carries + self.stacks :])
        wider = replace(self, body=SubGraph(self.body.inputs, outputs))(*out.inputs) if added else out
        return wider, [Item(self.carries + known[r])(wider) for r in rows]

    def narrowed(self, kept: Sequence[int], simpler: Callable[[Sequence[Node]], list[Node]]):
        """The loop with only the results `kept` and what these need: (op, inputs kept, results kept).

        simpler   does the same to the loops inside the body
        """
        results = set(kept)
        outputs = list(self.body.outputs)
        stacks = [k for k in range(self.stacks) if self.carries + k in results]
        ends = outputs[self.carries + self.stacks :]
        live: list[int] = []
        while True:
            wanted = [*(outputs[k] for k in live), *(self.rows[k] for k in stacks), *ends]
            read = set(walk(wanted))
            now = [k for k in range(self.carries) if k in results or k in live or self.carry_leaves[k] in read]
            if now == live:
                break
            live = now
        new = simpler(wanted)
        read = set(walk(new))
        sequences = [k for k in range(self.sequences) if self.slice_leaves[k] in read]
        invariants = [k for k in range(len(self.invariant_leaves)) if self.invariant_leaves[k] in read]
        leaves = (
            self.counter,
            *(self.carry_leaves[k] for k in live),
            *(self.slice_leaves[k] for k in sequences),
            *(self.invariant_leaves[k] for k in invariants),
        )
        edges = [k for k in sequences if k in self.edges]
        op = replace(
            self,
            body=SubGraph(leaves, tuple(new)),
            carries=len(live),
            sequences=len(sequences),
            offsets=tuple(self.offset(k) for k in sequences) if self.offsets else (),
            edges=tuple(sequences.index(k) for k in edges),
        )
        base = int(self.limited)
        inputs = [*range(base), *(base + k for k in live), *(base + self.carries + k for k in sequences)]
        base += self.carries + self.sequences
        inputs += [base + k for k in invariants]
        base += len(self.invariant_leaves)
        inputs += [base + self.edges.index(k) for k in edges]
        count = [self.carries + self.stacks] if self.counts else []
        return op, inputs, [*live, *(self.carries + k for k in stacks), *count]

    def grad(self, g, out, *inputs):
        return _Backward(self, out, inputs).gradients(g)

    def batch(self, size, inputs, mapped):
        return _batched(self, size, inputs, mapped)

    def __repr__(self) -> str:
        how = [f"{self.steps} steps"] if self.steps is not None else []
        how += [name for name in ("reverse", "until", "limited", "recomputed") if getattr(self, name)]
        how += [f"truncate={self.truncate}"] if self.truncate else []
        return f"Scan({', '.join(how)}: {self.carries} carries, {self.sequences} sequences, {self.stacks} stacks)"


@dataclass(frozen=True)
class Given:
    """The inputs of a Scan by what they are for."""

    limit: Any
    first: list[Any]
    sequences: list[Any]
    invariants: list[Any]
    edges: list[Any]


@dataclass(frozen=True)
class Delayed(Op):
    """What was there before each step, given what was there after it: row 0 is `first`, row t is rows[t - 1].

    first: [shape]   rows: [steps, shape]   result: as rows
    With `reverse` the steps run backwards: the last row is `first`, row t is rows[t + 1].
    """

    reverse: bool = False

    def infer(self, first, rows):
        if not rows.rank or rows.dtype != first.dtype or rows.shape[1:] != first.shape:
            raise ShapeError(f"{first} cannot stand before {rows}")
        return rows

    def numpy(self, env, first, rows):
        if not len(rows):
            return rows
        parts = (rows[1:], first[None]) if self.reverse else (first[None], rows[:-1])
        return np.concatenate(parts)

    def grad(self, g, out, first, rows):
        from gnomon.compiler.ops import build

        nothing = build.full_like(first, 0)
        place = build.iota(g.shape, 0, "int64")
        at = build.subtract(build.size(g.shape[0], "int64"), 1) if self.reverse else build.constant(0, "int64")
        own = build.where(build.equal(place, at), g, 0)
        return build.reduce("sum", own, [0]), Delayed(not self.reverse)(nothing, g)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        first, rows = (x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True))
        order = [1, 0, *range(2, rows.rank)]
        return build.transpose(Delayed(self.reverse)(first, build.transpose(rows, order)), order)

    def element(self, index, out, first, rows):
        from gnomon.compiler.kernel import Apply
        from gnomon.compiler.ops.scalar import scalar
        from gnomon.compiler.ops.shape import compare, guard

        t, *rest = index
        last = out.shape[0] - 1
        here = t + 1 if self.reverse else t - 1
        inside = compare("less", t, last) if self.reverse else compare("greater", t, 0)
        return Apply(scalar("where"), (inside, guard(rows(here, *rest), inside), first(*rest)))


# ---- differentiation


class _Backward:
    """The gradient of a loop."""

    def __init__(self, op: Scan, out: Node, inputs: Sequence[Node]):
        self.op, self.out, self.inputs = op, out, inputs
        self.given = op.given(inputs)
        assert op.is_plain, "sequences are read in other places only when a program is made"

    def gradients(self, g: Sequence[Node | None]) -> tuple[Node | None, ...]:
        """One for each input, given those of the results, None where there is none."""
        op = self.op
        if op.steps is None:
            raise GraphError(
                "a loop whose number of steps is not known as a size has no gradient, for nothing says how much must "
                "be kept for it: give the most steps it may take (maximum_iterations of while_loop, n_steps of scan)"
            )
        last, stacks = list(g[: op.carries]), list(g[op.carries : op.carries + op.stacks])
        leaves = [*op.carry_leaves, *op.slice_leaves, *op.invariant_leaves]
        rows = {k: fresh_input("gradient", op.rows[k].type) for k, s in enumerate(stacks) if s is not None}
        live = {k for k, x in enumerate(last) if x is not None}
        carried: dict[int, Node] = {}
        while True:  # a carry is live if its gradient is given, or comes from that of another one a step later
            carried = {k: carried.get(k) or fresh_input("gradient", op.new_carries[k].type) for k in sorted(live)}
            outputs = [*(op.new_carries[k] for k in carried), *(op.rows[k] for k in rows)]
            found = WALKS["vjp"](outputs, [*carried.values(), *rows.values()], leaves)
            now = live | {k for k in range(op.carries) if found[k] is not None}
            if now == live:
                break
            live = now
        of_carries = {k: found[k] for k in carried}
        of_slices = {k: x for k in range(op.sequences) if (x := found[op.carries + k]) is not None}
        base = op.carries + op.sequences
        of_invariants = {k: x for k in range(len(op.invariant_leaves)) if (x := found[base + k]) is not None}
        loop = self._loop(last, stacks, carried, rows, of_carries, of_slices, of_invariants)
        results: list[Node | None] = [None] * len(self.inputs)
        base = int(op.limited)
        for i, k in enumerate(of_carries):
            results[base + k] = self._untruncated(Item(i)(loop))
        base += op.carries
        at = len(of_carries) + len(of_invariants)
        for i, k in enumerate(of_slices):
            results[base + k] = self._padded(Item(at + i)(loop))
        base += op.sequences
        for i, k in enumerate(of_invariants):
            results[base + k] = Item(len(of_carries) + i)(loop)
        return tuple(results)

    def _loop(self, last, stacks, carried, rows, of_carries, of_slices, of_invariants) -> Node:
        """The loop backwards. Its carries are the gradients of the carries, and sums for those of the invariants."""
        from gnomon.compiler.ops import build

        op, given = self.op, self.given
        totals = {k: fresh_input("total", op.invariant_leaves[k].type) for k in of_invariants}
        outputs = [
            *(build.full_like(op.carry_leaves[k], 0) if x is None else x for k, x in of_carries.items()),
            *(build.add(totals[k], x) for k, x in of_invariants.items()),
            *of_slices.values(),
        ]
        before = _Known(op, {*carried.values(), *rows.values(), *totals.values()})
        pairs = dict(zip(op.new_carries, op.carry_leaves, strict=True))
        stacked = [*op.rows, *(leaf for new, leaf in pairs.items() if new in op.rows)]
        kept, made = residuals(outputs, before.kind, stacked, pairs)
        # what the step knew before any gradient comes: slices and invariants are there anyway, the rest is stacked
        saved = self._saved(kept)
        leaf_of = {n: fresh_input("kept", n.type) for n in kept}
        once = self._computed_once(made)
        constant = {n: fresh_input("invariant", n.type) for n in made}
        counter = fresh_input("step", COUNTER)
        start, size = self._part()
        there = build.add(counter, build.size(start, "int64")) if start != 0 else counter
        outputs = replaced(outputs, {**leaf_of, **constant, op.counter: there})
        read = set(walk(outputs))
        sequences = [(leaf, s) for leaf, s in zip(op.slice_leaves, given.sequences, strict=True) if leaf in read]
        sequences += [(leaf, stacks[k]) for k, leaf in rows.items() if leaf in read]
        sequences += [(leaf, s) for leaf, s in zip(leaf_of.values(), saved, strict=True) if leaf in read]
        invariants = [(leaf, x) for leaf, x in zip(op.invariant_leaves, given.invariants, strict=True) if leaf in read]
        invariants += [(leaf, x) for leaf, x in zip(constant.values(), once, strict=True) if leaf in read]
        first = [build.full_like(leaf, 0) if last[k] is None else last[k] for k, leaf in carried.items()]
        first += [build.full_like(leaf, 0) for leaf in totals.values()]
        body = SubGraph(
            (counter, *carried.values(), *totals.values(), *(a for a, _ in sequences), *(a for a, _ in invariants)),
            tuple(outputs),
        )
        loop = Scan(body, size, len(first), len(sequences), not op.reverse, limited=op.counts)
        limit = [Item(op.carries + op.stacks)(self.out)] if op.counts else []
        return loop(*limit, *first, *(self._cut(s) for _, s in sequences), *(x for _, x in invariants))

    def _saved(self, kept: Sequence[Node]) -> list[Node]:
        """The stacks of values inside the step. A carry is stacked as it is after the step, which it may be anyway."""
        op = self.op
        of = {leaf: k for k, leaf in enumerate(op.carry_leaves)}
        delayed = not (op.reverse and op.counts)  # there the first step is not the one of the last row
        rows = [op.new_carries[of[n]] if n in of and delayed else n for n in kept]
        _, stacks = op.with_rows(self.out, rows)
        return [
            Delayed(op.reverse)(self.given.first[of[n]], s) if n in of and delayed else s
            for n, s in zip(kept, stacks, strict=True)
        ]

    def _computed_once(self, made: Sequence[Node]) -> list[Node]:
        """Values inside the step that depend on invariants alone, computed outside it."""
        return replaced(made, dict(zip(self.op.invariant_leaves, self.given.invariants, strict=True)))

    # ---- truncated gradients: the last steps only

    def _part(self) -> tuple[Dim, Dim]:
        """The first row and the number of the steps that the gradient goes through."""
        op = self.op
        if not op.truncate:
            return 0, op.steps  # type: ignore[return-value]  # not None here
        if op.counts:
            raise GraphError("truncate_gradient is for loops whose number of steps is known before they run")
        left = maximum(op.steps - op.truncate, 0)  # type: ignore[operator]
        return (0 if op.reverse else left), op.steps - left  # type: ignore[operator]

    def _cut(self, sequence: Node) -> Node:
        from gnomon.compiler.ops import build

        start, size = self._part()
        rest = sequence.shape[1:]
        return build.slice(sequence, (start, *(0 for _ in rest)), (size, *rest))

    def _padded(self, rows: Node) -> Node:
        """Gradients of slices, 0 for those of steps that are left out."""
        from gnomon.compiler.ops import build

        start, size = self._part()
        rest = [0] * (rows.rank - 1)
        return build.pad(rows, [start, *rest], [self.op.steps - size - start, *rest])  # type: ignore[operator]

    def _untruncated(self, g: Node) -> Node:
        """The gradient of a first carry: 0 if the steps next to it are left out."""
        from gnomon.compiler.ops import build

        _, size = self._part()
        if size == self.op.steps:
            return g
        whole = build.equal(build.size(size, "int64"), build.size(self.op.steps, "int64"))  # type: ignore[arg-type]
        return build.where(build.broadcast(whole, g.shape, ()), g, 0)


class _Known:
    """What is known of a node of a backward step before the step runs."""

    def __init__(self, op: Scan, later: set[Node]):
        self.carries, self.later = set(op.carry_leaves), later
        self.changing = {op.counter, *op.slice_leaves}

    def kind(self, node: Node, inputs: Sequence[str]) -> str:
        """'later': depends on gradients. 'carry': on a carry. 'slice': on the counter or slices of sequences.
        'once': on invariants alone."""
        if node in self.later or "later" in inputs:
            return "later"
        if node in self.carries or "carry" in inputs:
            return "carry"
        return "slice" if node in self.changing or "slice" in inputs else "once"


# ---- checkpoints


def checkpointed(loop: Node, every: int) -> list[Node]:
    """The results of a loop, written as a loop over `every` steps at a time: its gradient keeps what goes into each of
    these and computes the rest again. The steps that are left over by whole ones are a loop of their own.
    """
    from gnomon.compiler.ops import build

    op = loop.op
    assert isinstance(op, Scan)
    steps = op.steps
    if steps is None or op.counts or op.truncate:
        raise GraphError("checkpoints are for loops whose number of steps is known before they run, with all gradients")
    given = op.given(loop.inputs)
    whole = floordiv(steps, every)
    done = whole * every

    def part(start: Dim, size: Dim) -> list[Node]:
        return [build.slice(s, (start, *(0 for _ in s.shape[1:])), (size, *s.shape[1:])) for s in given.sequences]

    def steps_of(carries: Sequence[Node], sequences: Sequence[Node], invariants: Sequence[Node], base: Node, size: Dim,
                 recomputed: bool) -> list[Node]:  # fmt: skip
        """The results of some steps, counted from `base` on."""
        counter, begin = fresh_input("step", COUNTER), fresh_input("begin", COUNTER)
        outputs = replaced(op.body.outputs, {op.counter: build.add(begin, counter)})
        body = SubGraph((counter, *op.body.inputs[1:], begin), tuple(outputs))
        inner = replace(op, body=body, steps=size, recomputed=recomputed)(*carries, *sequences, *invariants, base)
        return [Item(k)(inner) for k in range(op.carries + op.stacks)]

    def chunks(carries: Sequence[Node]) -> list[Node]:
        chunk = fresh_input("chunk", COUNTER)
        leaf = lambda name, t: fresh_input(name, t)
        own = [leaf("carry", x.type) for x in carries]
        slices = [leaf("slices", TensorType(s.dtype, (every, *s.shape[1:]))) for s in given.sequences]
        fixed = [leaf("invariant", x.type) for x in given.invariants]
        outputs = steps_of(own, slices, fixed, build.multiply(chunk, every), every, True)
        body = SubGraph((chunk, *own, *slices, *fixed), tuple(outputs))
        sequences = [build.reshape(s, (whole, every, *s.shape[1:])) for s in part(0, done)]
        outer = Scan(body, whole, op.carries, op.sequences, op.reverse)(*carries, *sequences, *given.invariants)
        stacks = [Item(op.carries + k)(outer) for k in range(op.stacks)]
        last = [Item(k)(outer) for k in range(op.carries)]
        return [*last, *(build.reshape(s, (done, *s.shape[2:])) for s in stacks)]

    def rest(carries: Sequence[Node]) -> list[Node]:
        base = build.size(done, "int64")
        return steps_of(carries, part(done, steps - done), given.invariants, base, steps - done, False)

    if steps == done:
        return chunks(given.first)
    early, late = (rest, chunks) if op.reverse else (chunks, rest)
    before = early(given.first)
    after = late(before[: op.carries])
    parts = (after, before) if op.reverse else (before, after)
    stacks = [build.concat([a, b], 0) for a, b in zip(*(p[op.carries :] for p in parts), strict=True)]
    return [*after[: op.carries], *(build.equate(s, (steps, *s.shape[1:])) for s in stacks)]


# ---- many loops at once


def _batched(op: Scan, size: Dim, inputs: Sequence[Node], mapped: Sequence[bool]) -> Node:
    """The loop over `size` slices at once. Those that end before others stay as they are then."""
    from gnomon.compiler.ops import build

    assert op.is_plain
    given, own = op.given(inputs), op.given(mapped)
    ends = bool(own.limit)  # whether slices end at different steps
    spread = set(k for k, m in enumerate(own.first) if m)
    while True:  # a carry is different in each slice if it begins so or becomes so
        leaves = [k for k, m in enumerate(own.sequences) if m], [k for k, m in enumerate(own.invariants) if m]
        change = {op.carry_leaves[k] for k in spread}
        change |= {op.slice_leaves[k] for k in leaves[0]} | {op.invariant_leaves[k] for k in leaves[1]}
        touched: set[Node] = set()
        for n in walk(op.body.outputs):
            if n in change or any(x in touched for x in n.inputs):
                touched.add(n)
        ends = ends or (op.until and op.body.outputs[-1] in touched)
        now = spread | {k for k, n in enumerate(op.new_carries) if n in touched or ends}
        if now == spread:
            break
        spread = now
    wide = lambda leaf: fresh_input("slices", TensorType(leaf.dtype, (size, *leaf.shape)))
    new = {leaf: wide(leaf) for leaf in op.body.inputs if leaf in change}
    outputs = WALKS["vectorize"](op.body.outputs, new, size)
    counter = op.counter
    carries = [new.get(leaf, leaf) for leaf in op.carry_leaves]
    results = [outputs[k] if k in spread else n for k, n in enumerate(op.new_carries)]
    rows = outputs[op.carries : op.carries + op.stacks]
    first = [
        x if m else build.repeat_first(x, size) if k in spread else x
        for k, (x, m) in enumerate(zip(given.first, own.first, strict=True))
    ]
    sequences = [
        build.transpose(x, (1, 0, *range(2, x.rank))) if m else x
        for x, m in zip(given.sequences, own.sequences, strict=True)
    ]
    invariants = list(given.invariants)
    invariant_leaves = [new.get(leaf, leaf) for leaf in op.invariant_leaves]
    limit, stop = given.limit, outputs[-1] if op.until and ends else (op.body.outputs[-1] if op.until else None)
    if ends:
        most = limit
        if op.limited and own.limit:
            most = build.reduce("max", limit, [0]) if size != 0 else build.constant(0, "int64")
        done = fresh_input("done", TensorType("int64", (size,)))  # how many steps each slice has done
        going = fresh_input("going", TensorType("bool", (size,)))
        here: Node = going
        if own.limit:
            each = fresh_input("limit", TensorType("int64", (size,)))
            here = build.logical_and(here, build.less(counter, each))
            invariants.append(limit)
            invariant_leaves.append(each)

        def chosen(now: Node, before: Node) -> Node:
            return build.where(build.broadcast(here, now.shape, [0]), now, before)

        results = [chosen(now, before) for now, before in zip(results, carries, strict=True)]
        rows = [chosen(r, build.full_like(r, 0)) for r in rows]
        carries = [*carries, done, going]
        still = build.logical_and(here, build.logical_not(stop)) if stop is not None else going
        results = [*results, build.add(done, build.cast(here, "int64")), still]
        first = [*first, build.full((size,), 0, "int64"), build.full((size,), True, "bool")]
        stop = build.logical_not(build.any(still)) if stop is not None else None
        limit = most
    body = SubGraph(
        (counter, *carries, *(new.get(x, x) for x in op.slice_leaves), *invariant_leaves),
        (*results, *rows, *((stop,) if stop is not None else ())),
    )
    loop = replace(op, body=body, carries=len(carries))(
        *((limit,) if op.limited else ()), *first, *sequences, *invariants
    )
    return _results(op, loop, size, spread, ends)


def _results(op: Scan, loop: Node, size: Dim, spread: set[int], ends: bool) -> Node:
    """The results of a batched loop in the order of those of the loop, each with a first axis of `size`."""
    from gnomon.compiler.ops import build
    from gnomon.compiler.ops.control import Tuple

    width = loop.op.carries  # type: ignore[attr-defined]  # a Scan
    found = [Item(k)(loop) if k in spread else build.repeat_first(Item(k)(loop), size) for k in range(op.carries)]
    for k in range(op.stacks):
        stack = Item(width + k)(loop)
        found.append(build.transpose(stack, (1, 0, *range(2, stack.rank))))
    if op.counts:
        count = Item(op.carries)(loop) if ends else build.repeat_first(Item(width + op.stacks)(loop), size)
        found.append(count)
    return Tuple()(*found)
