"""Attention and AdditiveAttention: values mixed by how well their keys fit each query."""

from __future__ import annotations

from typing import Any

from gnomon import random
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.guards import fitting
from gnomon.layers.layer import Layer
from gnomon.ops.attention import both, causal, row_products, softmax_over, spread_mask
from gnomon.tensor import Tensor, node_of


class Attention(Layer):
    """softmax(scores of queries and keys) @ values, called on [query, value] or [query, value, key].

    use_scale    multiply the scores by a weight that is learned
    score_mode   'dot': query · key; 'concat': w * sum(tanh(query + key)), with the scale inside the tanh
    dropout      probability with which each weight is dropped while training
    query: [..., t, d]   value: [..., s, e]   key: [..., s, d], the value if it is left out   result: [..., t, e]

    Masks are [query mask, value mask]: values outside theirs are given no weight, queries outside theirs give 0. With
    `use_causal_mask` no position looks at later ones; with `return_attention_scores` the weights are returned, too.
    Luong, Pham, Manning 2015, "Effective approaches to attention-based neural machine translation", section 3.1.
    """

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ArgumentError(
                "Invalid value for argument score_mode. Expected one of {'dot', 'concat'}. "
                f"Received: score_mode={score_mode}"
            )
        self.use_scale, self.score_mode, self.seed = use_scale, score_mode, seed
        self.dropout = checked_rate(self, dropout)
        if dropout > 0:
            self.seed_generator = random.SeedGenerator(seed)

    def build(self, input_shape):
        self._check(input_shape)
        self.scale = self.concat_score_weight = None
        if self.use_scale:
            self.scale = self.add_weight((), "ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight")

    def scores(self, query: Node, key: Node) -> Node:
        """How well each key fits each query: [..., t, s]."""
        if self.score_mode == "dot":
            products = row_products(query, key)
            return products if self.scale is None else build.multiply(products, node_of(self.scale))
        added = sums_of_pairs(query, key)
        if self.scale is not None:
            added = build.multiply(added, node_of(self.scale))
        return build.multiply(build.sum(build.tanh(added), -1), node_of(self.concat_score_weight))

    def call(self, inputs, mask=None, training=False, return_attention_scores=False, use_causal_mask=False):
        self._check(inputs, mask)
        query, value, key = (x.node for x in (*inputs, inputs[1])[:3])
        query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
        scores = self.scores(query, key)
        allowed = causal(scores) if use_causal_mask else None
        if value_mask is not None:
            own = self._fitting(value_mask, (*scores.shape[:-2], scores.shape[-1]))
            pairs = build.reshape(own, (*own.shape[:-1], 1, own.shape[-1])) if own.rank < scores.rank else own
            allowed = both(spread_mask(pairs, scores), allowed)
        if allowed is not None:
            largest = 65504.0 if scores.dtype == "float16" else 1e9
            scores = build.where(allowed, scores, build.subtract(scores, largest))
        weights = Tensor(softmax_over(scores, [scores.rank - 1]))
        if training and self.dropout > 0:
            weights = random.dropout(weights, self.dropout, seed=self.seed_generator)
        mixed = build.matmul(weights.node, value)
        if query_mask is not None:
            own = build.cast(self._fitting(query_mask, scores.shape[:-1]), "bool")
            mixed = build.where(build.reshape(own, (*own.shape, 1)), mixed, 0.0)
        return (Tensor(mixed), weights) if return_attention_scores else Tensor(mixed)

    def _fitting(self, mask: Any, shape: Any) -> Node:
        node = node_of(mask)
        return fitting(node, shape, self.name) if node.rank == len(shape) else node

    def compute_mask(self, inputs, mask=None):
        self._check(inputs, mask)
        return None if mask is None else mask[0]

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], input_shape[1][-1])

    def _check(self, inputs: Any, mask: Any = None) -> None:
        name = type(self).__name__
        if not isinstance(inputs, list):
            raise ArgumentError(
                f"{name} layer must be called on a list of inputs, namely [query, value] or [query, value, key]. "
                f"Received: inputs={inputs}."
            )
        if not 2 <= len(inputs) <= 3:
            raise ArgumentError(
                f"{name} layer accepts inputs list of length 2 or 3, namely [query, value] or [query, value, key]. "
                f"Received length: {len(inputs)}."
            )
        if mask is not None and not isinstance(mask, list):
            raise ArgumentError(
                f"{name} layer mask must be a list, namely [query_mask, value_mask]. Received: mask={mask}."
            )
        if mask is not None and not 2 <= len(mask) <= 3:
            raise ArgumentError(
                f"{name} layer accepts mask list of length 2 or 3. Received: inputs={inputs}, mask={mask}."
            )

    def get_config(self):
        return {**super().get_config(), "use_scale": self.use_scale, "score_mode": self.score_mode,
                "dropout": self.dropout, "seed": self.seed}  # fmt: skip


class AdditiveAttention(Attention):
    """Attention whose scores are sum(scale * tanh(query + key)), with a scale for each element that is learned.

    use_scale   whether there is a scale
    query: [..., t, d]   value, key: [..., s, d]   scale: [d]   otherwise as Attention

    Bahdanau, Cho, Bengio 2015, "Neural machine translation by jointly learning to align and translate", appendix A.1.2.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any):
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape):
        self._check(input_shape)
        self.scale = None
        if self.use_scale:
            self.scale = self.add_weight((input_shape[0][-1],), "glorot_uniform", name="scale")

    def scores(self, query, key):
        squashed = build.tanh(sums_of_pairs(query, key))
        if self.scale is not None:
            squashed = build.multiply(squashed, node_of(self.scale))
        return build.sum(squashed, -1)

    def get_config(self):
        config = super().get_config()
        del config["score_mode"]
        return config


def sums_of_pairs(query: Node, key: Node) -> Node:
    """query [..., t, d] plus key [..., s, d], each with each: [..., t, s, d]."""
    own = build.reshape(query, (*query.shape[:-1], 1, query.shape[-1]))
    return build.add(own, build.reshape(key, (*key.shape[:-2], 1, *key.shape[-2:])))


def checked_rate(layer: Layer, rate: Any) -> float:
    """The rate of dropout. Raises ArgumentError unless it is a number from 0 to 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise ArgumentError(
            f"Invalid value received for argument `dropout` of {type(layer).__name__}. Expected a float value between "
            f"0 and 1. Received: dropout={rate!r}"
        )
    return rate
