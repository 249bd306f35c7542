"""Attention by blocks of keys: the scores of one block are there at a time, never those of all keys.

A loop goes through the blocks. It carries, for each query, the largest score that it has met, the sum of the powers
of the scores over that largest one, and the values mixed by those powers; when a larger score comes, sum and values are
scaled down. The derivative goes through the blocks again and makes their scores anew. So t queries and s keys take
memory in proportion to t + s, times the block, instead of t * s. Where no query looks at later keys, queries go in
blocks, too, and blocks that none of them may look at are left out.

Milakov, Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3; Rabe, Staats 2021, "Self-attention
does not need O(n^2) memory", section 2; Dao, Fu, Ermon, Rudra, Ré 2022, "FlashAttention", algorithms 1 and 4. Here all
queries, or all of their block, go through a block at once; and the largest score and the logarithm of the sum are kept
apart, for where all keys are masked the score is so low that their sum would forget the logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.grad import vjp
from gnomon.compiler.graph import Node, replace
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import WithGradient
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.order import Cumulate
from gnomon.compiler.ops.shape import surely_differ
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.sizes import Dim, ceildiv
from gnomon.ops.products import contracted

BLOCK = 256
"""How many keys are looked at together. Smaller blocks take less memory, larger ones have quicker products."""

LONG = 1024
"""From so many keys on, where their number is known, attention goes by blocks without being asked."""


@dataclass(frozen=True)
class OwnGradient(WithGradient):
    """The value of the last input; `rule(g, out, *inputs)` gives gradients of the inputs but the last.

    Unlike that of a WithGradient, the rule refers to no node but those it is given: it stays right when the graph is
    copied with other nodes, into the body of a loop, say. Mapped over slices, it is the plain gradient of the value.
    """

    rule: Callable[..., Sequence[Node | None]]

    def identity(self):
        return self.rule

    def grad(self, g, out, *inputs):
        return (*self.rule(g, out, *inputs[:-1]), None)

    def batch(self, size, inputs, mapped):
        return inputs[-1] if mapped[-1] else build.repeat_first(inputs[-1], size)


@algebra.watch(OwnGradient)
def drop_own_gradients(node: Node) -> Node:
    """own_gradient(..., x) -> x, differentiation being over."""
    return node.inputs[-1]


@dataclass(frozen=True)
class Place:
    """Which block of keys, and which block of queries, if not all of them: numbers, int64."""

    keys: Node
    queries: Node | None = None


@dataclass(frozen=True)
class Sums:
    """What `Blockwise.backward` is given besides the inputs."""

    most: Node
    total: Node
    shift: Node
    g: Node | None


@dataclass(frozen=True)
class Blockwise:
    """An attention by blocks. `inputs` of its methods are queries, keys, values, cap, bias, masks; cap and bias if any.

    block      the number of keys in each; the last is filled up
    is_causal  no query looks at later keys
    window     keys must be less than this away; None: any
    capped, biased   which of the inputs there are

    queries: [batch, groups, (heads in a group,) t, d]   keys: [batch, groups, s, d]   values: [batch, groups, s, e]
    cap: a scalar   bias, masks: with the axes of the scores, [batch, groups, (heads,) t, s]; each of 1, or full
    """

    block: int
    is_causal: bool
    window: int | None
    capped: bool
    biased: bool

    # ---- parts

    def blocks(self, x: Node, axis: int) -> Node:
        """x cut along an axis: [blocks, ..., block, ...], the last filled up with 0."""
        length = x.shape[axis]
        count = ceildiv(length, self.block)
        high = [count * self.block - length if k == axis else 0 for k in range(x.rank)]
        whole = build.pad(x, [0] * x.rank, high)
        cut = build.reshape(whole, (*x.shape[:axis], count, self.block, *x.shape[axis + 1 :]))
        return build.transpose(cut, [axis, *(k for k in range(cut.rank) if k != axis)])

    def whole(self, rows: Node, axis: int, length: Dim) -> Node:
        """The inverse of `blocks`."""
        order = [k + 1 for k in range(rows.rank - 1)]
        order.insert(axis, 0)
        shape = list(rows.shape[1:])
        shape[axis] = rows.shape[0] * self.block
        joined = build.reshape(build.transpose(rows, order), shape)
        return build.slice(joined, [0] * len(shape), [length if k == axis else d for k, d in enumerate(shape)])

    def scores(self, place: Place, keys: Dim, q: Node, k: Node, extra: Sequence[Node]) -> Node:
        """Of queries and the keys k [batch, groups, block, d] of a block: [batch, ..., t, block].

        keys   the number of all
        extra  cap, bias and masks, of this block
        """
        rest = list(extra)
        n = q.rank
        found = contracted(q, k, list(range(n)), [0, 1, n, n - 1], [*range(n - 1), n])
        if self.capped:
            cap = rest.pop(0)
            found = build.multiply(build.tanh(build.divide(found, cap)), cap)
        if self.biased:
            found = build.add(found, rest.pop(0))
        found = build.cast(found, _wide(found.dtype))
        allowed = list(rest)
        at = build.add(build.iota(found.shape, n - 1), self.begin(place.keys))
        own = build.iota(found.shape, n - 2)
        own = own if place.queries is None else build.add(own, self.begin(place.queries))
        if self.is_causal:
            allowed.append(build.less_equal(at, own))
        if self.window is not None:
            allowed.append(build.less(build.abs(build.subtract(at, own)), self.window))
        for mask in allowed:
            found = build.where(mask, found, 0.7 * _lowest(found.dtype))
        if (keys % self.block) != 0:
            found = build.where(build.less(at, build.size(keys, "int32")), found, -np.inf)
        return found

    def begin(self, number: Node) -> Node:
        """The position at which a block begins."""
        return build.multiply(build.cast(number, "int32"), self.block)

    def extra(self, inputs: Sequence[Node], slices: Sequence[Node]) -> list[Node]:
        """Cap, bias and masks of a block, of which those that differ from key to key are among the `slices`."""
        return _taken(inputs[3:], slices, _has_keys)

    def sequences(self, inputs: Sequence[Node]) -> list[Node]:
        """What a loop over the blocks goes through: keys, values, and what of cap, bias and masks differs with keys."""
        _, k, v, *extra = inputs
        return [self.blocks(k, 2), self.blocks(v, 2), *(self.blocks(x, x.rank - 1) for x in extra if _has_keys(x))]

    def repeated(
        self, step: Any, first: Sequence[Node], sequences: Sequence[Node], limit: Node | None = None
    ) -> Any:
        """The loop over blocks, all or at most `limit`.

        Products that depend on no carry leave a loop, to be one for all steps: here that would be all scores. Of a loop
        that may end early nobody knows which products are wanted, so it says that it may.
        """
        from gnomon.loops import loop  # which stands on the ops

        count = sequences[0].shape[0]
        return loop(step, first, sequences, count, build.size(count, "int64") if limit is None else limit)

    # ---- there

    def forward(self, inputs: Sequence[Node]) -> tuple[Node, Node, Node]:
        """The largest scores, the logarithms of the sums of powers, [batch, ..., t], the mixed values [..., t, e]."""
        return self.mixed(inputs, self.sequences(inputs))

    def mixed(
        self,
        inputs: Sequence[Node],
        sequences: Sequence[Node],
        queries: Node | None = None,
        limit: Node | None = None,
    ) -> tuple[Node, Node, Node]:
        """What `forward` gives, of the blocks `sequences` of keys, at most `limit`, for the block `queries` of them."""
        q, k, v = inputs[:3]
        n, wide, rows = q.rank, _wide(q.dtype), q.shape[:-1]

        def step(counter: Any, carries: Any, slices: Any) -> Any:
            most, total, mixed = (c.node for c in carries)
            keys, values, *rest = (x.node for x in slices)
            place = Place(counter.node, queries)
            scores = self.scores(place, k.shape[2], q, keys, self.extra(inputs, rest))
            new = build.stop_gradient(build.maximum(most, build.max(scores, -1)))
            power = build.exp(build.subtract(scores, _column(new)))
            fade = build.exp(build.subtract(build.stop_gradient(most), new))
            own = contracted(build.cast(power, v.dtype), values, [*range(n - 1), n], [0, 1, n, n - 1], list(range(n)))
            total = build.add(build.multiply(total, fade), build.sum(power, -1))
            mixed = build.add(build.multiply(mixed, _column(fade)), build.cast(own, wide))
            return [new, total, mixed], [], None, {}

        first = [build.full(rows, _lowest(wide), wide), build.full(rows, 0.0, wide)]
        first.append(build.full((*rows, v.shape[-1]), 0.0, wide))
        most, total, mixed = self.repeated(step, first, sequences, limit).last
        output = build.cast(build.divide(mixed, _column(total)), v.dtype)
        return build.stop_gradient(most), build.log(total), output

    # ---- and back

    def changes(self, place: Place, keys: Dim, inputs: Sequence[Node], sums: Sums) -> list[Node]:
        """Gradients of the inputs, which are those of one block: of queries, keys, bias if there is one, and values."""
        q, k, v, *extra = inputs
        n, wide = q.rank, _wide(q.dtype)
        scores_axes = [*range(n - 1), n]
        at = int(self.capped)
        wanted = [q, k, *extra[at : at + self.biased]]
        leaves = [fresh_input("operand", x.type) for x in wanted]  # of which none is made of another
        now = [*extra[:at], *leaves[2:], *extra[at + self.biased :]]
        scores = self.scores(place, keys, leaves[0], leaves[1], now)
        weights = build.exp(build.subtract(build.subtract(scores, _column(sums.most)), _column(sums.total)))
        change: Node = build.broadcast_to(_column(sums.shift), weights.shape)
        of_values = build.full_like(v, 0)
        if sums.g is not None:
            of_weights = contracted(sums.g, v, list(range(n)), [0, 1, n, n - 1], scores_axes)
            change = build.add(build.cast(of_weights, wide), change)
            of_values = contracted(
                build.cast(weights, v.dtype), sums.g, scores_axes, list(range(n)), [0, 1, n, n - 1]
            )
        found = vjp([scores], [build.multiply(weights, change)], leaves)
        present = [build.full_like(x, 0) if d is None else d for d, x in zip(found, leaves, strict=True)]
        return replace([*present, of_values], dict(zip(leaves, wanted, strict=True)))

    def backward(
        self, inputs: Sequence[Node], most: Node, total: Node, shift: Node, g: Node | None
    ) -> list[Node | None]:
        """Gradients of the inputs.

        most, total   as `forward` gave them
        shift   [batch, ..., t], which is added to the gradients of the weights
        g       the gradient of the mixed values; None is 0
        With weights p, scores gain p * (g · values + shift).
        """
        q, k, v, *others = inputs
        wide = _wide(q.dtype)
        bias = others[int(self.capped)] if self.biased else None
        carried = [q] if bias is None or _has_keys(bias) else [q, bias]

        def step(counter: Any, carries: Any, slices: Any) -> Any:
            keys, values, *rest = (x.node for x in slices)
            own = [q, keys, values, *self.extra(inputs, rest)]
            of_q, of_k, *of_bias, of_values = self.changes(
                Place(counter.node), k.shape[2], own, Sums(most, total, shift, g)
            )
            grown = [of_q, *of_bias][: len(carried)]
            sums = [build.add(c.node, build.cast(d, wide)) for c, d in zip(carries, grown, strict=True)]
            return sums, [of_k, of_values, *of_bias[len(carried) - 1 :]], None, {}

        first = [build.full(x.shape, 0.0, wide) for x in carried]
        done = self.repeated(step, first, self.sequences(inputs))
        results: list[Node | None] = [None] * len(inputs)
        results[0] = build.cast(done.last[0], q.dtype)
        results[1] = self.whole(done.stacks[0], 2, k.shape[2])
        results[2] = self.whole(done.stacks[1], 2, v.shape[2]) if g is not None else None
        if bias is not None:
            own = done.last[1] if len(carried) > 1 else self.whole(done.stacks[2], bias.rank - 1, bias.shape[-1])
            results[3 + int(self.capped)] = build.cast(own, bias.dtype)
        return results


@dataclass(frozen=True)
class Triangular(Blockwise):
    """Causal attention without bias, whose blocks above the diagonal are left out: nearly half of them.

    Blocks are of queries, too. Each block of queries goes through the blocks of keys up to its own; in the derivative
    each block of keys goes through the blocks of queries from its own on. Masks are of keys or of queries, not of
    pairs. A query that may look at nothing looks at all keys alike, those in blocks that are left out among them.
    """

    def forward(self, inputs: Sequence[Node]) -> tuple[Node, Node, Node]:
        q, k, v = inputs[:3]
        keys, along = [_held(x) for x in self.sequences(inputs)], q.rank - 2
        count = build.size(keys[0].shape[0], "int64")

        def step(counter: Any, _: Any, slices: Any) -> Any:
            limit = build.minimum(build.add(counter.node, 1), count)
            own, *rest = (x.node for x in slices)
            now = [own, k, v, *_taken(inputs[3:], rest, _has_queries)]
            return [], self.mixed(now, keys, counter.node, limit), None, {}

        by_query = [q, *filter(_has_queries, inputs[3:])]
        found = self.repeated(step, [], [self.blocks(x, x.rank - 2) for x in by_query]).stacks
        most, total, output = (self.whole(x, along, q.shape[along]) for x in found)
        most = build.stop_gradient(most)
        if len(inputs) > 3 + self.capped:
            dead, number = self.dead(most), build.size(k.shape[2], most.dtype)
            total = build.where(dead, build.log(number), total)
            mean = build.divide(build.sum(build.cast(v, most.dtype), 2), number)
            mean = build.broadcast(build.cast(mean, v.dtype), output.shape, [0, 1, output.rank - 1])
            output = build.where(build.broadcast_to(_column(dead), output.shape), mean, output)
        return most, total, output

    def dead(self, most: Node) -> Node:
        """Which queries may look at nothing, by their largest scores."""
        return build.less(most, 0.5 * _lowest(most.dtype))

    def backward(
        self, inputs: Sequence[Node], most: Node, total: Node, shift: Node, g: Node | None
    ) -> list[Node | None]:
        q, k, v, *others = inputs
        along, wide, lead = q.rank - 2, _wide(q.dtype), q.shape[:-2]
        # from the last block of queries on, so that those from a block of keys on come first
        given = [(x, along) for x in (q, most, total, shift, g) if x is not None]
        given += [(x, x.rank - 2) for x in others if _has_queries(x)]
        queries = [_held(build.flip(self.blocks(x, axis), [0])) for x, axis in given]
        count = queries[0].shape[0]

        def step(counter: Any, carries: Any, slices: Any) -> Any:
            keys, values, *of_keys = (x.node for x in slices)

            def inner(number: Any, sums: Any, own: Any) -> Any:
                q, most, total, shift, *rest = (x.node for x in own)
                now = Sums(most, total, shift, None if g is None else rest.pop(0))
                extra = _taken(_taken(others, of_keys, _has_keys), rest, _has_queries)
                place = Place(counter.node, build.subtract(build.size(count - 1, "int64"), number.node))
                of_q, *of_both = self.changes(place, k.shape[2], [q, keys, values, *extra], now)
                grown = [build.add(c.node, build.cast(d, wide)) for c, d in zip(sums, of_both, strict=True)]
                return grown, [build.cast(of_q, wide)], None, {}

            first = [build.full(x.shape, 0.0, wide) for x in (keys, values)]
            limit = build.subtract(build.size(count, "int64"), counter.node)
            done = self.repeated(inner, first, queries, limit)
            return [build.add(carries[0].node, done.stacks[0])], done.last, None, {}

        first = [build.full((count, *lead, self.block, q.shape[-1]), 0.0, wide)]
        done = self.repeated(step, first, self.sequences(inputs))
        of_q = self.whole(build.flip(done.last[0], [0]), along, q.shape[along])
        of_k, of_v = (self.whole(x, 2, k.shape[2]) for x in done.stacks)
        if g is not None and len(others) > self.capped:
            of_v = build.add(of_v, self.whole(self.above(most, g, k.shape[2]), 2, k.shape[2]))
        results = [build.cast(of_q, q.dtype), build.cast(of_k, k.dtype)]
        return [*results, None if g is None else build.cast(of_v, v.dtype), *(None for _ in others)]

    def above(self, most: Node, g: Node, keys: Dim) -> Node:
        """What values in blocks that are left out gain by queries that look at all alike: [blocks, ..., block, e]."""
        mine = build.where(build.broadcast_to(_column(self.dead(most)), g.shape), build.cast(g, most.dtype), 0.0)
        parts = self.blocks(mine, most.rank - 1)
        sums = build.sum(parts, tuple(range(3, parts.rank - 1)))  # [blocks of queries, batch, groups, e]
        before = build.pad(Cumulate("sum", 0)(sums), [1, 0, 0, 0], [0, 0, 0, 0])
        count = ceildiv(keys, self.block)
        own = build.gather(before, build.minimum(build.iota((count,), 0), build.size(parts.shape[0], "int32")), 0)
        own = build.divide(own, build.size(keys, own.dtype))
        return build.broadcast(own, (*own.shape[:3], self.block, own.shape[3]), [0, 1, 2, 4])


@dataclass(frozen=True)
class OfTotal:
    """The gradient of the logarithm of the sums of powers; further inputs: the largest scores."""

    attention: Blockwise

    def __call__(self, g: Node, out: Node, *inputs: Node) -> list[Node | None]:
        *own, most = inputs
        return [*self.attention.backward(own, most, out, g, None), None]


@dataclass(frozen=True)
class OfOutput:
    """The gradient of the mixed values; further inputs: the largest scores, and the logarithms of the sums."""

    attention: Blockwise

    def __call__(self, g: Node, out: Node, *inputs: Node) -> list[Node | None]:
        *own, most, total = inputs
        wide = most.dtype
        along = build.sum(build.multiply(build.cast(g, wide), build.cast(out, wide)), -1)
        # the path through `total` is part of this
        return [*self.attention.backward(own, most, total, build.negative(along), g), None, None]


@dataclass(frozen=True)
class HandedOn:
    """The gradient of what is left as it is."""

    def __call__(self, g: Node, out: Node, x: Node) -> list[Node | None]:
        return [g]


def attend(attention: Blockwise, inputs: Sequence[Node]) -> Node:
    """The mixed values, [batch, groups, (heads in a group,) t, e], with the gradient that goes by blocks."""
    most, total, output = attention.forward(inputs)
    total = OwnGradient(OfTotal(attention))(*inputs, most, total)
    return OwnGradient(OfOutput(attention))(*inputs, most, total, output)


def blockwise_attention(
    q: Node,
    k: Node,
    v: Node,
    bias: Node | None = None,
    masks: Sequence[Node] = (),
    is_causal: bool = False,
    window: int | None = None,
    cap: float | None = None,
    block: int | None = None,
) -> Node:
    """Softmax of the products of queries and keys, applied to the values, by blocks of keys.

    q: float[batch, t, heads, d], scaled   k, v: [batch, s, key heads, d or e], of which the heads are a multiple
    bias: float   masks: bool; both have the axes of `grouped_scores`, each of 1 or full
    result: [batch, t, heads, e]
    block  how many keys are looked at together; the module says where the method is from
    A query that may look at nothing looks at all alike. Raises ShapeError for what does not fit together.
    """
    batch, length, heads, size = q.shape
    groups, keys = k.shape[2], k.shape[1]
    if any(surely_differ(a, b) for a, b in zip(k.shape[:3], v.shape[:3], strict=True)):
        raise ShapeError(f"an attention needs one value, [batch, s, heads, e], for each key of {k.type}, got {v.type}")
    lead = (batch, groups) if groups == heads else (batch, groups, heads // groups)
    queries = build.transpose(build.reshape(q, (batch, length, *lead[1:], size)), _heads_first(len(lead)))
    k = build.transpose(build.equate(k, (batch, keys, groups, size)), [0, 2, 1, 3])
    v = build.transpose(build.equate(v, (batch, keys, groups, v.shape[3])), [0, 2, 1, 3])
    shape = (*lead, length, keys)

    def own(x: Node) -> Node:
        build.broadcast_to(x, shape)  # or it does not fit
        return build.equate(x, [1 if d == 1 else full for d, full in zip(x.shape, shape, strict=True)])

    extra = [build.constant(cap, q.dtype)] if cap is not None else []
    extra += [own(build.cast(bias, q.dtype))] if bias is not None else []
    size_of_block = block or (min(BLOCK, keys) if isinstance(keys, int) else BLOCK)
    lower = is_causal and window is None and bias is None
    lower = lower and not any(_has_keys(m) and _has_queries(m) for m in masks)
    kind = Triangular if lower else Blockwise
    attention = kind(size_of_block, is_causal, window, cap is not None, bias is not None)
    found = attend(attention, [queries, k, v, *extra, *map(own, masks)])
    order = [0, found.rank - 2, *range(1, found.rank - 2), found.rank - 1]
    return build.reshape(build.transpose(found, order), (batch, length, heads, v.shape[-1]))


def _held(x: Node) -> Node:
    """x, as a value that loops find made: what only moves elements they would make anew at each step."""
    return OwnGradient(HandedOn())(x, x)


def _heads_first(lead: int) -> list[int]:
    """The order of axes that makes [batch, heads, t, d] of [batch, t, heads, d]; heads have `lead` - 1 axes."""
    return [0, *range(2, lead + 1), 1, lead + 1]


def _column(x: Node) -> Node:
    """x with an axis of 1 behind."""
    return build.reshape(x, (*x.shape, 1))


def _wide(dtype: str) -> str:
    """In which dtype sums over all keys are kept."""
    return dtypes.named(dtype).compute


def _lowest(dtype: str) -> float:
    return dtypes.limits(dtype).min


def _has_keys(x: Node) -> bool:
    """Whether a bias or mask differs from key to key."""
    return x.rank > 0 and x.shape[-1] != 1


def _has_queries(x: Node) -> bool:
    """Whether a mask differs from query to query."""
    return x.rank > 0 and x.shape[-2] != 1


def _taken(given: Sequence[Node], parts: Sequence[Node], has: Callable[[Node], bool]) -> list[Node]:
    """What is given, with those that `has` an axis replaced by their parts, in order."""
    rest = iter(parts)
    return [next(rest) if has(x) else x for x in given]


__all__ = ["blockwise_attention"]
