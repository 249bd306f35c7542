"""MultiHeadAttention and GroupQueryAttention: several attentions side by side, between learned projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import constraints, initializers, regularizers
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.guards import fitting
from gnomon.layers.activation import Softmax
from gnomon.layers.attention import checked_rate
from gnomon.layers.einsum_dense import EinsumDense
from gnomon.layers.layer import Layer
from gnomon.layers.noise import Dropout
from gnomon.ops.attention import (
    both,
    by_blocks,
    by_group,
    causal,
    fitted_mask,
    grouped_scores,
    hidden,
    mix,
    nearby,
    score_axes,
    softmax_over,
)
from gnomon.ops.blockwise import blockwise_attention
from gnomon.ops.products import contracted
from gnomon.tensor import Tensor, node_of


class HeadedAttention(Layer):
    """Base of both: projections, masks, gate. A subclass has `build`, `scores_of`, `mixed`."""

    _scale: float  # of the scores
    _softmax: Softmax
    _dropout_layer: Dropout

    def __init__(
        self,
        dropout: float,
        use_bias: bool,
        sliding_window: int | None,
        flash_attention: bool | None,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        activity_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        use_gate: bool,
        seed: int | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self._dropout, self._use_bias, self._use_gate, self.seed = checked_rate(self, dropout), use_bias, use_gate, seed
        if sliding_window is not None:
            self.checked_size("sliding_window", sliding_window, " or None")
        self._sliding_window = sliding_window
        self._flash_attention = flash_attention
        if flash_attention and dropout > 0:
            raise ArgumentError(
                "Dropout is not supported when flash attention is enabled. Please set dropout to 0.0 to use flash "
                "attention."
            )
        self._kernel_initializer = initializers.get(kernel_initializer)
        self._bias_initializer = initializers.get(bias_initializer)
        self._kernel_regularizer = regularizers.get(kernel_regularizer)
        self._bias_regularizer = regularizers.get(bias_regularizer)
        self._activity_regularizer = regularizers.get(activity_regularizer)
        self._kernel_constraint = constraints.get(kernel_constraint)
        self._bias_constraint = constraints.get(bias_constraint)

    def checked_size(self, name: str, value: Any, otherwise: str = "") -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ArgumentError(
                f"Received an invalid value for argument `{name}` of {type(self).__name__}, expected a positive "
                f"integer{otherwise}. Received: {name}={value!r}"
            )
        return value

    # ---- weights

    def projection(self, name: str, equation: str, sizes: Sequence[int], shape: tuple, activation: Any = None):
        """A built EinsumDense; the bias differs along the axes that the kernel alone has."""
        inputs, kernel = equation.split("->")[0].split(",")
        own = "".join(letter for letter in kernel if letter not in inputs)
        layer = EinsumDense(
            equation,
            output_shape=tuple(sizes),
            activation=activation,
            bias_axes=own if self._use_bias else None,
            # each a copy: one without a seed draws other numbers
            kernel_initializer=type(self._kernel_initializer).from_config(self._kernel_initializer.get_config()),
            bias_initializer=type(self._bias_initializer).from_config(self._bias_initializer.get_config()),
            kernel_regularizer=self._kernel_regularizer,
            bias_regularizer=self._bias_regularizer,
            activity_regularizer=self._activity_regularizer,
            kernel_constraint=self._kernel_constraint,
            bias_constraint=self._bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer

    def build_projections(
        self, shapes: tuple[tuple, tuple, tuple], heads: int, groups: int, key_dim: int, value_dim: int, out: Sequence
    ) -> None:
        """The layers from query, value and key to heads, and that from heads to the output."""
        query, value, key = shapes
        self._query_dense = self.projection("query", "...m,mhd->...hd", [heads, key_dim], query)
        self._key_dense = self.projection("key", "...m,mhd->...hd", [groups, key_dim], key)
        if self._use_gate:
            self._gate_dense = self.projection("gate", "...m,mhd->...hd", [heads, value_dim], query, "sigmoid")
        self._value_dense = self.projection("value", "...m,mhd->...hd", [groups, value_dim], value)
        letters = "abcefgijklnopqrstuvwxyz"[: len(out)]
        self._output_dense = self.projection(
            "attention_output", f"...hd,hd{letters}->...{letters}", out, (*query[:-1], heads, value_dim)
        )

    # ---- the call

    pairs = 1  # how many axes of positions queries have, and keys

    def scores_of(self, query: Node, key: Node) -> Node:
        """[..., heads, positions of queries, positions of keys], not scaled."""
        raise NotImplementedError

    def mixed(self, weights: Node, value: Node, query: Node) -> Node:
        """The values mixed by the weights, in the axes of the query."""
        raise NotImplementedError

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        if self._flash_attention and return_attention_scores:
            raise ArgumentError(
                "Returning attention scores is not supported when flash attention is enabled. Please disable flash "
                "attention to access attention scores."
            )
        query, value, key = (Tensor(x.node) for x in (query, value, value if key is None else key))  # without masks
        q, k, v = self._query_dense(query).node, self._key_dense(key).node, self._value_dense(value).node
        scores = self.scores_of(build.multiply(q, self._scale), k)
        masks = self.masks(scores, query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
        axes = list(range(scores.rank - self.pairs, scores.rank))
        weights = None
        mixes_alone = q.rank == 4 and self._dropout == 0 and not return_attention_scores
        if mixes_alone and by_blocks(self._flash_attention, q.shape[1], k.shape[1]):
            scaled = build.multiply(q, self._scale)
            mixed = blockwise_attention(scaled, k, v, None, masks, use_causal_mask, self._sliding_window)
        elif mixes_alone:
            mixed = self.mixed(softmax_over(hidden(scores, self.allowed(scores, masks, use_causal_mask)), axes), v, q)
        else:  # as in Keras, a query that may look at nothing gives 0 here, and the mean of all values above
            allowed = self.allowed(scores, masks, use_causal_mask)
            weights = self._softmax(Tensor(scores), mask=None if allowed is None else Tensor(allowed))
            dropped = self._dropout_layer(weights, training=training) if self._dropout > 0 else weights
            mixed = self.mixed(dropped.node, v, q)
        if self._use_gate:
            mixed = build.multiply(mixed, self._gate_dense(query).node)
        output = self._output_dense(Tensor(mixed))
        return output if weights is None or not return_attention_scores else (output, self.by_head(weights))

    def by_head(self, weights: Tensor) -> Tensor:
        """The weights with one axis for the heads."""
        return weights

    def masks(
        self, scores: Node, query_mask: Any, value_mask: Any, key_mask: Any, attention_mask: Any, is_causal: bool
    ) -> list[Node]:
        """The masks given, with the axes of the scores; what each of them forbids is forbidden."""
        n = self.pairs
        if n > 1 and (is_causal or self._sliding_window is not None):
            raise ArgumentError(
                f"{type(self).__name__} {self.name!r} attends over {n} axes: which positions are later, or nearby, is "
                "not known; pass an attention_mask"
            )
        found = []
        queries, keys = ((scores.shape[0], *axes) for axes in (scores.shape[-2 * n : -n], scores.shape[-n:]))
        if query_mask is not None:
            own = fitting(node_of(query_mask), queries, self.name)
            found.append(fitted_mask(build.reshape(own, (*own.shape, *(1,) * n)), scores, n))
        for mask in (value_mask, key_mask):
            if mask is not None:
                own = fitting(node_of(mask), keys, self.name)
                at = own.rank - n
                pairs = build.reshape(own, (*own.shape[:at], *(1,) * n, *own.shape[at:]))
                found.append(fitted_mask(pairs, scores, n))
        if attention_mask is not None:
            own = node_of(attention_mask)
            if own.rank == 1 + 2 * n:  # for all heads alike
                own = fitting(own, (*queries, *keys[1:]), self.name)
            found.append(self.given_mask(own, scores))
        return found

    def given_mask(self, mask: Node, scores: Node) -> Node:
        """The `attention_mask` of a call with the axes of the scores."""
        return fitted_mask(mask, scores, self.pairs)

    def allowed(self, scores: Node, masks: Sequence[Node], is_causal: bool) -> Node | None:
        """Which scores count, None for all."""
        found = None
        for mask in masks:
            found = both(found, build.broadcast_to(mask, scores.shape))
        if is_causal:
            found = both(found, causal(scores))
        if self._sliding_window is not None:
            found = both(found, nearby(scores, self._sliding_window))
        return found

    def compute_output_shape(self, query_shape, value_shape, key_shape=None):
        self.checked_shapes(query_shape, value_shape, key_shape)
        return tuple(query_shape)

    def checked_shapes(self, query_shape: Any, value_shape: Any, key_shape: Any) -> tuple[tuple, tuple, tuple]:
        """The three shapes. Raises ShapeError if there are not as many keys as values."""
        query, value = tuple(query_shape), tuple(value_shape)
        key = value if key_shape is None else tuple(key_shape)
        if min(map(len, (query, value, key))) < 3:
            raise ShapeError(
                f"{type(self).__name__} needs query, value and key of [batch, positions, features], got the shapes "
                f"{query}, {value}, {key}"
            )
        if len(value) != len(key) or any(
            None not in (a, b) and a != b for a, b in zip(value[1:-1], key[1:-1], strict=True)
        ):
            raise ShapeError(
                "All dimensions of `value` and `key`, except the last one, must be equal. Received: "
                f"value_shape={value} and key_shape={key}"
            )
        return query, value, key

    def common_config(self) -> dict[str, Any]:
        """The part of the configuration that both kinds have."""
        return {
            "dropout": self._dropout,
            "use_bias": self._use_bias,
            "use_gate": self._use_gate,
            "sliding_window": self._sliding_window,
            "kernel_initializer": initializers.serialize(self._kernel_initializer),
            "bias_initializer": initializers.serialize(self._bias_initializer),
            "kernel_regularizer": regularizers.serialize(self._kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self._bias_regularizer),
            "activity_regularizer": regularizers.serialize(self._activity_regularizer),
            "kernel_constraint": constraints.serialize(self._kernel_constraint),
            "bias_constraint": constraints.serialize(self._bias_constraint),
            "seed": self.seed,
        }


class MultiHeadAttention(HeadedAttention):
    """Attention of `num_heads` kinds at once: layer(query, value, key), the key being the value if it is left out.

    key_dim, value_dim   size of a head's queries and keys, and of its values (default: key_dim)
    output_shape     the last axes of the output; that of the query if left out
    attention_axes   the axes of positions; all between batch and features if left out
    sliding_window   look only at positions less than this apart
    use_gate         multiply each head's result by a sigmoid projection of the query
    flash_attention  go through the keys by blocks, storing no matrix of scores, if there is one axis of positions; with
                     it, neither dropout nor weights are to be had. None: where there are many keys; see `ops`
    query: [batch, t, n]   value: [batch, s, m]   key: [batch, s, k]   result: [batch, t, n or output_shape]

    Masks of query, value and key come with them, or as `query_mask` ...; `attention_mask` is [batch, t, s] or has a
    second axis for the heads. With `use_causal_mask` no position looks at later ones. With `return_attention_scores`
    the weights [batch, heads, t, s] are returned, too. Keras takes the masks off the inputs, so that layers called on
    them afterwards see none; here they stay.

    Raises ArgumentError for sizes that are not positive, ShapeError for inputs and masks that do not fit.
    Vaswani et al. 2017, "Attention is all you need", section 3.2.2; the gate: Qiu et al. 2025, "Gated attention for
    large language models", section 2.2.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | Sequence[int] | None = None,
        attention_axes: int | Sequence[int] | None = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            dropout, use_bias, sliding_window, flash_attention, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, use_gate,
            seed, **kwargs,
        )  # fmt: skip
        self._num_heads = self.checked_size("num_heads", num_heads)
        self._key_dim = self.checked_size("key_dim", key_dim)
        self._value_dim = key_dim if value_dim is None else self.checked_size("value_dim", value_dim, " or `None`")
        self._scale = self._key_dim**-0.5
        if isinstance(output_shape, int):
            output_shape = (output_shape,)
        if output_shape is not None and not isinstance(output_shape, (list, tuple)):
            raise ArgumentError(
                f"Invalid `output_shape`: {output_shape}. When specified, the `output_shape` should be of type tuple, "
                "list, or int."
            )
        self._output_shape = tuple(self.checked_size("output_shape", d) for d in output_shape) if output_shape else None
        if isinstance(attention_axes, int):
            attention_axes = (attention_axes,)
        if attention_axes is not None and not isinstance(attention_axes, (list, tuple)):
            raise ArgumentError(
                f"`attention_axes` must be an int, list, or tuple. Received: attention_axes={attention_axes}"
            )
        self._attention_axes: Any = None if attention_axes is None else tuple(attention_axes)  # until it is built

    num_heads = property(lambda self: self._num_heads)
    key_dim = property(lambda self: self._key_dim)
    value_dim = property(lambda self: self._value_dim)
    dropout = property(lambda self: self._dropout)
    use_bias = property(lambda self: self._use_bias)
    attention_axes = property(lambda self: self._attention_axes)
    query_dense = property(lambda self: self._query_dense)
    key_dense = property(lambda self: self._key_dense)
    value_dense = property(lambda self: self._value_dense)
    output_dense = property(lambda self: self._output_dense)

    def build(self, query_shape, value_shape, key_shape=None):
        shapes = self.checked_shapes(query_shape, value_shape, key_shape)
        rank = len(shapes[1])
        axes = self._attention_axes or range(1, rank - 1)
        self._attention_axes = tuple(a if a >= 0 else rank + a for a in axes)
        if len(shapes[0]) != rank or any(not 0 < a < rank - 1 for a in self._attention_axes):
            raise ShapeError(
                f"MultiHeadAttention over the axes {self._attention_axes} cannot take a query of the shape {shapes[0]} "
                f"and values of {shapes[1]}: those axes must lie between batch and features"
            )
        heads = self._num_heads
        self.build_projections(
            shapes, heads, heads, self._key_dim, self._value_dim, self._output_shape or shapes[0][-1:]
        )
        self._softmax = Softmax(axis=tuple(range(-self.pairs, 0)), dtype=self.dtype_policy)
        self._dropout_layer = Dropout(self._dropout, dtype=self.dtype_policy, seed=self.seed)

    @property
    def pairs(self):
        return len(self._attention_axes)

    def scores_of(self, query, key):
        return contracted(query, key, *score_axes(query.rank, self._attention_axes))

    def mixed(self, weights, value, query):
        queries, keys, scores = score_axes(query.rank, self._attention_axes)
        return contracted(weights, value, scores, keys, queries)

    def compute_output_shape(self, query_shape, value_shape, key_shape=None):
        query = super().compute_output_shape(query_shape, value_shape, key_shape)
        return (*query[:-1], *self._output_shape) if self._output_shape else query

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self._num_heads,
            "key_dim": self._key_dim,
            "value_dim": self._value_dim,
            "output_shape": self._output_shape,
            "attention_axes": self._attention_axes,
            **self.common_config(),
        }


class GroupedQueryAttention(HeadedAttention):
    """MultiHeadAttention in which `num_query_heads` share `num_key_value_heads` keys and values, in groups.

    head_dim   size of a head's queries, keys and values
    query: [batch, t, n]   value: [batch, s, m]   key: [batch, s, k]   result: [batch, t, n]
    All else is as in MultiHeadAttention. Keys and values are not repeated for the heads that share them.

    Raises ArgumentError unless the query's heads are a multiple of the others.
    Ainslie et al. 2023, "GQA: training generalized multi-query transformer models from multi-head checkpoints".
    """

    keras_class_name = "GroupQueryAttention"

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            dropout, use_bias, sliding_window, flash_attention, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, use_gate,
            seed, **kwargs,
        )  # fmt: skip
        self.head_dim = self.checked_size("head_dim", head_dim)
        self.num_query_heads = self.checked_size("num_query_heads", num_query_heads)
        self.num_key_value_heads = self.checked_size("num_key_value_heads", num_key_value_heads)
        if num_query_heads % num_key_value_heads:
            raise ArgumentError(
                "`num_query_heads` must be divisible by `num_key_value_heads`. Received: "
                f"num_query_heads={num_query_heads}, num_key_value_heads={num_key_value_heads}"
            )
        self._scale = head_dim**-0.5

    dropout = property(lambda self: self._dropout)
    use_bias = property(lambda self: self._use_bias)
    use_gate = property(lambda self: self._use_gate)
    sliding_window = property(lambda self: self._sliding_window)

    def build(self, query_shape, value_shape, key_shape=None):
        shapes = self.checked_shapes(query_shape, value_shape, key_shape)
        if any(len(shape) != 3 for shape in shapes):
            raise ShapeError(
                "GroupQueryAttention needs query, value and key of three axes, [batch, positions, features], got the "
                f"shapes {', '.join(map(str, shapes))}"
            )
        size = self.head_dim
        self.build_projections(
            shapes, self.num_query_heads, self.num_key_value_heads, size, size, shapes[0][-1:]
        )
        self._softmax = Softmax(axis=-1, dtype=self.dtype_policy)
        self._dropout_layer = Dropout(self._dropout, dtype=self.dtype_policy, seed=self.seed)

    def scores_of(self, query, key):
        return grouped_scores(query, key)

    def mixed(self, weights, value, query):
        return mix(weights, value, query)

    def given_mask(self, mask, scores):
        return fitted_mask(by_group(mask, scores), scores)

    def by_head(self, weights):
        batch, *heads, queries, keys = weights.node.shape
        return Tensor(build.reshape(weights.node, (batch, build.product(heads), queries, keys)))

    def get_config(self):
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            **self.common_config(),
        }
