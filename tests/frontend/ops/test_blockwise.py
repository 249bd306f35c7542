"""Attention by blocks of keys: the plain formula's values and derivatives, and no matrix of scores in memory."""

import numpy as np
import pytest

import gnomon
from gnomon import config, layers, ops
from gnomon.calculus import Rop, grad, hessian_vector_product
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.graph import walk
from gnomon.compiler.ops.scan import Scan
from gnomon.ops import attention
from gnomon.ops.blockwise import blockwise_attention
from gnomon.tensor import Tensor

TOLERANCE = {"float64": 1e-9, "float32": 2e-5}


def softmax_of_scores(q, k, v, bias=None, mask=None, causal=False, window=None, cap=None):
    """NumPy's, written out; q is scaled already."""
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = np.einsum("bthd,bshd->bhts", q, k)
    if cap is not None:
        scores = np.tanh(scores / cap) * cap
    if bias is not None:
        scores = scores + bias
    allowed = np.ones_like(scores, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    t, s = (np.arange(n) for n in scores.shape[-2:])
    if causal:
        allowed = allowed & (s <= t[:, None])
    if window is not None:
        allowed = allowed & (abs(s - t[:, None]) < window)
    scores = np.where(allowed, scores, -1e30)
    power = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bshe->bthe", power / power.sum(-1, keepdims=True), v)


def data(dtype="float64", batch=1, t=5, s=7, heads=4, groups=2, d=3, e=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (batch, t, heads, d), (batch, s, groups, d), (batch, s, groups, e)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def by_blocks(q, k, v, bias=None, mask=None, causal=False, window=None, cap=None, block=3):
    """Of tensors; bias and mask have four axes."""
    scores = attention.grouped_scores(q.node, k.node)
    own = lambda x: attention.aligned(attention.by_group(x.node, scores), scores, 1)
    masks = [] if mask is None else [own(mask)]
    bias = None if bias is None else own(bias)
    return Tensor(blockwise_attention(q.node, k.node, v.node, bias, masks, causal, window, cap, block))


def open_inputs(dtype, heads=4, groups=2, d=3, e=2):
    """Batch and lengths are symbolic."""
    return [layers.Input(shape, dtype=dtype) for shape in ((None, heads, d), (None, groups, d), (None, groups, e))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_one_program_gives_the_softmax_for_all_sizes(dtype, groups):
    inputs = open_inputs(dtype, groups=groups)
    f = gnomon.function(inputs, by_blocks(*inputs))
    for batch, t, s in [(1, 5, 7), (2, 1, 1), (3, 4, 6), (1, 2, 2), (2, 3, 9)]:
        x = data(dtype, batch, t, s, groups=groups)
        np.testing.assert_allclose(f(*x), softmax_of_scores(*x), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


OPTIONS = {
    "causal": dict(causal=True),
    "window": dict(window=2),
    "cap": dict(cap=1.5),
    "padding": dict(mask=(2, 1, 1, 7)),
    "queries": dict(mask=(2, 1, 5, 1)),
    "padding, causal": dict(mask=(2, 1, 1, 7), causal=True),
    "queries, causal": dict(mask=(2, 1, 5, 1), causal=True, cap=2.0),
    "mask": dict(mask=(1, 4, 5, 7), causal=True),
    "bias": dict(bias=(1, 4, 5, 7)),
    "bias of keys": dict(bias=(2, 1, 1, 7), cap=2.0),
    "bias of queries": dict(bias=(1, 4, 5, 1)),
    "all": dict(bias=(2, 4, 5, 7), mask=(2, 1, 1, 7), causal=True, window=4, cap=2.0),
}


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, groups):
    """Rows that may look at nothing are among them."""
    options = dict(OPTIONS[name])
    rng = np.random.default_rng(3)
    known = data(batch=2, groups=groups)
    inputs = open_inputs("float64", groups=groups)
    own = {}
    for what, make in (("bias", rng.standard_normal), ("mask", lambda shape: rng.random(shape) < 0.5)):
        if what in options:
            own[what] = make(options.pop(what))
            batch, _, *lengths = (n if n == 1 else None for n in own[what].shape)
            shape = (batch, own[what].shape[1], *lengths)
            inputs.append(layers.Input(batch_shape=shape, dtype=str(own[what].dtype)))
    found = by_blocks(*inputs[:3], **dict(zip(own, inputs[3:], strict=True)), **options)
    f = gnomon.function(inputs, found)
    expected = softmax_of_scores(*known, **own, **options)
    np.testing.assert_allclose(f(*known, *own.values()), expected, rtol=1e-9, atol=1e-9)


def both_ways(inputs, **options):
    """The plain way's result and that by blocks."""
    return [ops.dot_product_attention(*inputs, scale=1.0, flash_attention=way, **options) for way in (False, True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_those_of_the_plain_way(dtype):
    """First and second; some queries may look at nothing."""
    inputs = open_inputs(dtype)
    bias = layers.Input((4, None, None), dtype=dtype)
    mask = layers.Input((1, 1, None), dtype="bool")
    weights = layers.Input((None, 4, 2), dtype=dtype)
    results = []
    options = dict(bias=bias, mask=mask, is_causal=True, attn_logits_soft_cap=2.0)
    for y in (ops.dot_product_attention(*inputs, scale=1.0, flash_attention=False, **options),
              by_blocks(*inputs, bias=bias, mask=mask, causal=True, cap=2.0)):  # fmt: skip
        first = grad(ops.sum(y * weights), [*inputs, bias])
        second = grad(sum(ops.sum(ops.sin(g)) for g in first), [*inputs, bias, weights])
        results += [y, *first, *second]
    f = gnomon.function([*inputs, bias, mask, weights], results)
    rng = np.random.default_rng(1)
    for batch, t, s in [(1, 5, 7), (2, 3, 6)]:
        allowed = rng.random((batch, 1, 1, s)) < 0.7
        allowed[..., 0] = False
        x = [*data(dtype, batch, t, s), rng.standard_normal((batch, 4, t, s)).astype(dtype), allowed]
        found = f(*x, rng.standard_normal((batch, t, 4, 2)).astype(dtype))
        half = len(found) // 2
        for plain, blocks in zip(found[:half], found[half:], strict=True):
            assert blocks.dtype == plain.dtype == dtype
            tolerance = TOLERANCE[dtype] * max(1.0, abs(plain).max())
            np.testing.assert_allclose(blocks, plain, rtol=0, atol=tolerance)


def test_derivatives_by_differences():
    inputs = open_inputs("float64")
    directions = open_inputs("float64")
    loss = ops.sum(ops.sin(by_blocks(*inputs, causal=True)))
    first = grad(loss, inputs)
    second = hessian_vector_product(loss, inputs, directions)
    f = gnomon.function([*inputs, *directions], [loss, *first, *second, Rop(loss, inputs, directions)])
    x, v = data(batch=1), data(batch=1, seed=9)
    value, *rest = f(*x, *v)
    step = 1e-5
    ahead, behind = (f(*(a + sign * step * d for a, d in zip(x, v, strict=True)), *v) for sign in (1, -1))
    slope = sum((g * d).sum() for g, d in zip(rest[:3], v, strict=True))
    np.testing.assert_allclose(slope, (ahead[0] - behind[0]) / (2 * step), rtol=1e-7)
    np.testing.assert_allclose(rest[6], slope, rtol=1e-9)
    for found, a, b in zip(rest[3:6], ahead[1:4], behind[1:4], strict=True):
        np.testing.assert_allclose(found, (a - b) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derivatives_without_the_blocks_above_the_diagonal(dtype, masked):
    """First and second; more queries than keys, fewer, as many, and blocks that they fill or do not fill; with masks of
    keys and of queries, which leave some queries nothing to look at."""
    inputs = open_inputs(dtype)
    weights = layers.Input((None, 4, 2), dtype=dtype)
    given = [*inputs, weights]
    keys, queries = layers.Input((1, 1, None), dtype="bool"), layers.Input((1, None, 1), dtype="bool")
    both = ops.logical_and(keys, queries)
    plain = dict(is_causal=True, scale=1.0, flash_attention=False, attn_logits_soft_cap=2.0)
    scores = attention.grouped_scores(inputs[0].node, inputs[1].node)
    masks = [attention.aligned(attention.by_group(m.node, scores), scores, 1) for m in (keys, queries)]
    blocks = lambda masks: Tensor(blockwise_attention(*(x.node for x in inputs), None, masks, True, None, 2.0, 2))
    ways = [ops.dot_product_attention(*inputs, **plain), blocks([])]
    if masked:
        ways = [ops.dot_product_attention(*inputs, mask=both, **plain), blocks(masks)]
    results = []
    for y in ways:
        first = grad(ops.sum(y * weights), inputs)
        results += [y, *first, *grad(sum(ops.sum(ops.sin(g)) for g in first), given)]
    f = gnomon.function([*given, keys, queries], results, on_unused_input="ignore")
    rng = np.random.default_rng(1)
    for batch, t, s in [(1, 6, 6), (2, 5, 5), (2, 7, 3), (1, 1, 4), (3, 4, 1), (1, 2, 9)]:
        own = rng.standard_normal((batch, t, 4, 2)).astype(dtype)
        found = f(*data(dtype, batch, t, s), own, *(rng.random((batch, 1, *n)) < 0.6 for n in ((1, s), (t, 1))))
        half = len(found) // 2
        for plain, blocks in zip(found[:half], found[half:], strict=True):
            tolerance = TOLERANCE[dtype] * max(1.0, abs(plain).max())
            np.testing.assert_allclose(blocks, plain, rtol=0, atol=tolerance)


def test_blocks_above_the_diagonal_are_left_out():
    """Of four times four blocks ten are looked at, there and back."""
    inputs = open_inputs("float32", 2, 2, 8, 8)
    y = by_blocks(*inputs, causal=True, block=16)
    f = gnomon.function(inputs, [y, *grad(ops.sum(ops.square(y)), inputs)])
    x = data("float32", 1, 64, 64, 2, 2, 8, 8)
    products = [r.count for r in f.profile(*x, repeat=1).rows if r.label.startswith("contract")]
    assert products == [10] * len(products)
    assert len(products) == 7


@pytest.mark.parametrize("causal", [False, True])
def test_gradient_inside_a_loop(causal):
    """Its rule must refer to the values of the step."""
    q, k, v = open_inputs("float64")
    results = []
    for way in (False, True):
        again = lambda x, _, way=way: (
            ops.dot_product_attention(x, k, k, is_causal=causal, flash_attention=way),
            None,
        )
        last, _ = ops.scan(again, q, length=3)
        results += grad(ops.sum(ops.sin(last)), [q, k])
    f = gnomon.function([q, k], results)
    found = f(*data(t=5, s=7)[:2])
    for plain, blocks in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(blocks, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_mapped_over_slices(causal):
    x = data(batch=4)
    f = lambda parts: grad(ops.sum(ops.sin(by_blocks(*parts, causal=causal))), parts)
    many = ops.vectorized_map(lambda parts: tuple(f([p[None] for p in parts])), tuple(x))
    inputs = open_inputs("float64")
    at_once = gnomon.function(inputs, f(inputs))(*x)
    for a, b in zip(many, at_once, strict=True):
        np.testing.assert_allclose(np.asarray(a)[:, 0], b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias", [-np.inf, -1e4])
def test_large_scores(bias):
    """-inf as a mask, in all keys of the first block; scores that powers of them alone would overflow."""
    q, k, v = data()
    own = np.zeros((1, 4, 5, 7))
    own[..., :4] = bias
    for x in (q, 300 * q):
        inputs = [layers.Input((None, *a.shape[2:]), dtype="float64") for a in (q, k, v)]
        b = layers.Input((4, None, None), dtype="float64")
        f = gnomon.function([*inputs, b], by_blocks(*inputs, bias=b))
        np.testing.assert_allclose(f(x, k, v, own), softmax_of_scores(x, k, v, own), rtol=1e-9, atol=1e-9)


def test_half_precision_sums_in_full():
    """Over 300 keys, nothing is further from the truth than it is the plain way."""
    x = [a.astype("float16") for a in data("float32", 2, 3, 300, d=8)]
    found = {}
    for dtype, ways in (("float16", (True, False)), ("float64", (False,))):
        inputs = open_inputs(dtype, d=8)
        for way in ways:
            y = ops.dot_product_attention(*inputs, flash_attention=way)
            f = gnomon.function(inputs, [y, *grad(ops.sum(ops.square(y)), inputs)])
            found[dtype, way] = f(*(a.astype(dtype) for a in x))
    for blocks, plain, exact in zip(*found.values(), strict=True):
        assert blocks.dtype == "float16"
        assert abs(blocks - exact).max() < 1.5 * abs(plain - exact).max() + 1e-3 * abs(exact).max()


def test_what_does_not_fit_is_refused():
    q, k = layers.Input((5, 4, 3)), layers.Input((7, 4, 3))
    own = dict(flash_attention=True)
    with pytest.raises(ShapeError, match="one value, .* for each key of .*7, 4, 3.*6, 4, 3"):
        ops.dot_product_attention(q, k, layers.Input((6, 4, 3)), **own)
    with pytest.raises(ShapeError, match="cannot multiply"):
        ops.dot_product_attention(q, layers.Input((7, 4, 2)), k, **own)
    with pytest.raises(ShapeError, match="cannot broadcast"):
        ops.dot_product_attention(q, k, k, bias=layers.Input((4, 5, 6)), **own)
    with pytest.raises(ShapeError, match="must broadcast to its scores"):
        ops.dot_product_attention(q, k, k, mask=layers.Input((4, 5, 6), dtype="bool"), **own)


def test_training_is_that_of_the_plain_way():
    """Whole steps of Adam, in half precision; batches that the data do not fill, keys that fill no block."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((7, 300, 4)), rng.standard_normal((7, 1))
    losses = []
    for way in (False, True):
        gnomon.utils.set_random_seed(4)
        i = layers.Input((None, 4))
        h = layers.MultiHeadAttention(2, 3, flash_attention=way, dtype="mixed_float16")(i, i, use_causal_mask=True)
        model = gnomon.Model(i, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
        model.compile("adam", "mse")
        losses.append(model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)


def test_padding_before_and_behind_in_a_causal_model():
    """What is padding is nothing to look at: before the words it leaves queries without any key."""
    words = np.random.default_rng(5).integers(1, 20, (3, 11))
    words[0, :4] = words[1, 7:] = 0
    found = []
    for way in (False, True):
        gnomon.utils.set_random_seed(6)
        i = layers.Input((None,), dtype="int32")
        h = layers.Embedding(20, 4, mask_zero=True)(i)
        h = layers.MultiHeadAttention(2, 3, flash_attention=way)(h, h, use_causal_mask=True)
        model = gnomon.Model(i, layers.Dense(1)(h))
        model.compile("sgd", "mse")
        found.append([model.predict(words, verbose=0)])
        model.fit(words, words[..., None] / 20, epochs=2, batch_size=2, shuffle=False, verbose=0)
        found[-1] += model.get_weights()
    for plain, blocks in zip(*found, strict=True):
        np.testing.assert_allclose(blocks, plain, rtol=1e-4, atol=1e-6)


# ---- memory, and who goes by blocks


def goes_by_blocks(y):
    return any(isinstance(n.op, Scan) for n in walk([y.node]))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask": True}])
def test_no_matrix_of_scores_is_kept(options):
    n, heads, d = 3072, 2, 8
    inputs = [layers.Input((n, heads, d)) for _ in range(3)]
    mask = layers.Input((1, 1, n), dtype="bool")
    options = {"mask": mask} if "mask" in options else options
    matrix = n * n * heads * 4
    for train in (False, True):
        taken = []
        for way in (True, False):
            y = ops.dot_product_attention(*inputs, flash_attention=way, **options)
            results = grad(ops.sum(ops.square(y)), inputs) if train else y
            taken.append(gnomon.function([*inputs, mask], results).memory(batch=1).temporaries)
        assert taken[0] < matrix / 3 < matrix < taken[1]


def test_memory_grows_with_the_length_not_with_its_square():
    inputs = [layers.Input((None, 2, 8)) for _ in range(3)]
    y = ops.dot_product_attention(*inputs, is_causal=True, flash_attention=True)
    f = gnomon.function(inputs, grad(ops.sum(ops.square(y)), inputs))
    names = [str(x.node.shape[1]) for x in inputs]
    taken = [f.memory(batch=1, **{name: n for name in names}).temporaries for n in (1024, 2048, 4096)]
    assert taken[2] < 2.1 * taken[1] < 4.5 * taken[0]


def test_who_goes_by_blocks():
    short, long, unknown = (layers.Input((n, 2, 8)) for n in (512, 1024, None))
    token = layers.Input((1, 2, 8))
    of = lambda q, k, **options: goes_by_blocks(ops.dot_product_attention(q, k, k, **options))
    assert of(long, long)
    assert not of(short, short)
    assert not of(unknown, unknown)
    assert not of(token, long)
    assert of(unknown, unknown, flash_attention=True)
    assert not of(long, long, flash_attention=False)
    config.disable_flash_attention()
    try:
        assert not of(long, long)
        assert of(long, long, flash_attention=True)
    finally:
        config.enable_flash_attention()


LAYERS = {
    "MultiHeadAttention": (layers.MultiHeadAttention, (2, 3)),
    "GroupQueryAttention": (layers.GroupQueryAttention, (3, 4, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind):
    """With all masks at once, both layers having the same weights."""
    cls, sizes = LAYERS[kind]
    x, y = layers.Input((None, 6)), layers.Input((None, 6))
    query_mask, value_mask = layers.Input((None,), dtype="bool"), layers.Input((None,), dtype="bool")
    pairs = layers.Input((None, None), dtype="bool")
    outputs, weights = [], None
    for way in (False, True):
        layer = cls(*sizes, flash_attention=way, sliding_window=3, use_gate=True)
        masks = dict(query_mask=query_mask, value_mask=value_mask, attention_mask=pairs)
        out = layer(x, y, use_causal_mask=True, **masks)
        assert goes_by_blocks(out) is way
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
        outputs += [out, *grad(ops.sum(ops.square(out)), [x, y])]
        copy = cls.from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()
    f = gnomon.function([x, y, query_mask, value_mask, pairs], outputs)
    rng = np.random.default_rng(0)
    for batch, t, s in [(1, 5, 5), (3, 2, 7)]:
        given = [rng.standard_normal((batch, n, 6)).astype("float32") for n in (t, s)]
        given += [rng.random(shape) < 0.6 for shape in ((batch, t), (batch, s), (batch, t, s))]
        found = f(*given)
        for plain, blocks in zip(found[:3], found[3:], strict=True):
            np.testing.assert_allclose(blocks, plain, rtol=2e-5, atol=2e-6)


def test_a_long_layer_goes_by_blocks_unless_scores_are_asked_for():
    x = layers.Input((1024, 4))
    assert goes_by_blocks(layers.MultiHeadAttention(1, 2)(x, x))
    assert not goes_by_blocks(layers.MultiHeadAttention(1, 2, dropout=0.5)(x, x))
    assert not goes_by_blocks(layers.MultiHeadAttention(1, 2)(x, x, return_attention_scores=True)[0])
