"""Attention: products of queries and keys, a softmax, products with the values.

Scores are one contraction, their softmax and masks elementwise, the mixing of values another contraction: nothing is
transposed or reshaped in between, so that the compiler may go through them row by row and store no matrix of scores.
Where keys are many, they are gone through by blocks (`ops.blockwise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim
from gnomon.config import is_flash_attention_enabled
from gnomon.ops.arguments import floating
from gnomon.ops.blockwise import BLOCK, LONG, blockwise_attention
from gnomon.ops.products import contracted
from gnomon.tensor import node_of, op, operand


def softmax_over(x: Node, axes: Sequence[int]) -> Node:
    """exp(x) over its sum along `axes`, the largest element taken off before."""
    power = build.exp(build.subtract(x, build.stop_gradient(build.max(x, axes, True))))
    return build.divide(power, build.sum(power, axes, True))


def score_axes(rank: int, axes: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """How to number the axes of queries, of keys (and values), and of their scores.

    queries: [..., t, ..., n] of `rank` axes, the last of them summed over, `axes` those that keys have in other sizes
    scores: [the other axes, `axes` of the queries, `axes` of the keys]
    """
    queries = list(range(rank))
    keys = [rank + axes.index(k) if k in axes else k for k in queries]
    return queries, keys, [*(k for k in queries[:-1] if k not in axes), *axes, *(keys[k] for k in axes)]


def aligned(x: Node, scores: Node, axes: int) -> Node:
    """x with the axes that it lacks (heads) put before the last 2 * `axes`, which are pairs of positions."""
    missing = scores.rank - x.rank
    at = max(x.rank - 2 * axes, 0)
    return build.reshape(x, (*x.shape[:at], *(1,) * missing, *x.shape[at:]))


def fitted_mask(mask: Any, scores: Node, axes: int = 1) -> Node:
    """A mask as bool with the axes of scores, each of 1 or full; their last 2 * `axes` axes are pairs of positions.

    Raises ShapeError if it cannot be spread to the shape of the scores.
    """
    found = build.cast(node_of(mask), "bool")
    try:
        build.broadcast_to(aligned(found, scores, axes), scores.shape)
        return aligned(found, scores, axes)
    except ShapeError:
        raise ShapeError(
            f"the mask of an attention must broadcast to its scores, [{', '.join(map(str, scores.shape))}], or to "
            f"those without heads; got {found.type}"
        ) from None


def spread_mask(mask: Any, scores: Node, axes: int = 1) -> Node:
    """A mask as bool of the shape of scores; see `fitted_mask`."""
    return build.broadcast_to(fitted_mask(mask, scores, axes), scores.shape)


def causal(scores: Node) -> Node:
    """Which pairs of positions (the last two axes) do not look into the future: true where key <= query."""
    last = scores.rank - 1
    return build.less_equal(build.iota(scores.shape, last), build.iota(scores.shape, last - 1))


def nearby(scores: Node, width: int) -> Node:
    """Which pairs of positions (the last two axes) are less than `width` apart."""
    last = scores.rank - 1
    distance = build.subtract(build.iota(scores.shape, last), build.iota(scores.shape, last - 1))
    return build.less(build.abs(distance), width)


def row_products(q: Node, k: Node) -> Node:
    """Products of the rows of q [..., t, d] with those of k [..., s, d]: [..., t, s]; leading axes broadcast."""
    lead = build.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    q, k = (build.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (q, k))
    n = len(lead)
    batch = list(range(n))
    return contracted(q, k, [*batch, n, n + 2], [*batch, n + 1, n + 2], [*batch, n, n + 1])


def both(a: Node | None, b: Node | None) -> Node | None:
    """Two masks as one; None allows all."""
    if a is None or b is None:
        return b if a is None else a
    return build.logical_and(a, b)


@op
def dot_product_attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    flash_attention=None,
    attn_logits_soft_cap=None,
):
    """Softmax of the scaled products of queries and keys, applied to the values.

    query: [batch, t, heads, d]   key, value: [batch, s, key heads, d or other], of which the heads are a multiple
    bias, mask: broadcast to [batch, heads, t, s]; of three axes they are [batch, t, s]
    result: [batch, t, heads, as value]
    scale is 1 / sqrt(d) by default; scores are kept below `attn_logits_soft_cap` by its tanh. A query that may look at
    nothing looks at all alike. With `flash_attention` keys are gone through by blocks, and no matrix of scores is
    stored; if it is None, that is done where keys are many, their number is known, and `config` has it enabled.

    Raises ShapeError for other numbers of axes or heads. Vaswani et al. 2017, "Attention is all you need", equation 1;
    heads in groups: Ainslie et al. 2023, "GQA: training generalized multi-query transformer models", section 2.2.
    """
    q, k, v = floating(node_of(query)), node_of(key), node_of(value)
    for x in (q, k, v):
        if x.rank != 4:
            raise ShapeError(f"dot_product_attention needs [batch, time, heads, size], got {x.type}")
    dtype = build.promote(q, k, v)
    q, k, v = (build.cast(x, dtype) for x in (q, k, v))
    heads, groups = q.shape[2], k.shape[2]
    if heads != groups and not (isinstance(heads, int) and isinstance(groups, int) and heads % groups == 0):
        raise ShapeError(f"the heads of the query ({heads}) must be a multiple of those of the key ({groups})")
    factor = operand(scale) if scale is not None else build.rsqrt(build.size(q.shape[-1], dtype))
    q = build.multiply(q, build.cast(factor, dtype))
    scores = grouped_scores(q, k)
    if bias is not None:
        bias = aligned(by_group(node_of(bias), scores), scores, 1)
    if by_blocks(flash_attention, q.shape[1], k.shape[1]) and (bias is None or build.promote(q, bias) == dtype):
        masks = [] if mask is None else [fitted_mask(by_group(node_of(mask), scores), scores)]
        return blockwise_attention(q, k, v, bias, masks, is_causal, None, attn_logits_soft_cap)
    if attn_logits_soft_cap is not None:
        cap = float(attn_logits_soft_cap)
        scores = build.multiply(build.tanh(build.divide(scores, cap)), cap)
    if bias is not None:
        scores = build.add(scores, bias)
    allowed = None
    if mask is not None:
        allowed = spread_mask(by_group(node_of(mask), scores), scores)
    if is_causal:
        allowed = both(allowed, causal(scores))
    return mix(softmax_over(hidden(scores, allowed), [scores.rank - 1]), v, q)


def by_blocks(wanted: bool | None, queries: Dim, keys: Dim) -> bool:
    """Whether attention goes by blocks of keys; if nothing is said, where the scores would be many."""
    if wanted is not None:
        return bool(wanted)
    few = isinstance(queries, int) and queries < BLOCK  # then the scores take no more than the keys
    return is_flash_attention_enabled() and isinstance(keys, int) and keys >= LONG and not few


def hidden(scores: Node, allowed: Node | None) -> Node:
    """Scores far below all others where they are not allowed; where none is, all are alike."""
    if allowed is None:
        return scores
    low = dtypes.limits(scores.dtype).min * 0.7  # so that differences stay finite
    return build.where(allowed, scores, low)


def grouped_scores(q: Node, k: Node) -> Node:
    """Products of queries [b, t, heads, d] with keys [b, s, groups, d]: [b, groups, heads in a group, t, s].

    With as many groups as heads: [b, heads, t, s].
    """
    heads, groups = q.shape[2], k.shape[2]
    if heads == groups:
        return contracted(q, k, [0, 1, 2, 4], [0, 3, 2, 4], [0, 2, 1, 3])
    batch, length, _, size = q.shape
    own = build.reshape(q, (batch, length, groups, heads // groups, size))
    return contracted(own, k, [0, 1, 2, 5, 4], [0, 3, 2, 4], [0, 2, 5, 1, 3])


def mix(weights: Node, v: Node, q: Node) -> Node:
    """The values [b, s, groups, e], mixed by the weights of `grouped_scores`, for queries q: [b, t, heads, e]."""
    if weights.rank == 4:
        return contracted(weights, v, [0, 2, 1, 3], [0, 3, 2, 4], [0, 1, 2, 4])
    mixed = contracted(weights, v, [0, 2, 5, 1, 3], [0, 3, 2, 4], [0, 1, 2, 5, 4])
    return build.reshape(mixed, (*q.shape[:3], v.shape[-1]))


def by_group(x: Node, scores: Node) -> Node:
    """A bias or mask for [batch, heads, t, s] in the axes of the scores."""
    if scores.rank == 4 or x.rank < 4:
        return x
    groups, own = scores.shape[1:3]
    heads = x.shape[-3]
    split = (1, 1) if heads == 1 else (groups, own)
    if heads not in (1, groups * own):
        raise ShapeError(f"a bias or mask of attention needs 1 or {groups * own} heads, got {x.type}")
    return build.reshape(x, (*x.shape[:-3], *split, *x.shape[-2:]))


__all__ = ["dot_product_attention"]
