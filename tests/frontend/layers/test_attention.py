"""Attention layers and EinsumDense: Keras's numbers, gradients, masks and files; all lengths by one program."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.models import Model
from gnomon.registry import deserialize_object, register_keras_serializable, serialize_object
from gnomon.saving.tree import saved_objects
from gnomon.tensor import Tensor, node_of
from gnomon.utils import clear_session, tree
from tests.frontend.layers.check import check_layer, evaluate
from tests.frontend.layers.recorded import check_shape, plain
from tests.recorded.load import load

RECORDED = load("attention")
CLOSE = {"rtol": 2e-5, "atol": 3e-6}


def made(case):
    clear_session()
    return getattr(layers, case["class"])(**case["arguments"])


def called(layer, case, tensors):
    for tensor, mask in zip(tensors, case["masks"], strict=False):
        tensor.mask = None if mask is None else Tensor(node_of(mask))
    return tree.flatten(layer(tensors, **case["call"]) if case["listed"] else layer(*tensors, **case["call"]))


@pytest.mark.parametrize("name", list(RECORDED["cases"]))
def test_layer_is_keras_s(name):
    case = RECORDED["cases"][name]
    layer = made(case)
    inputs = [layers.Input(x.shape[1:]) for x in case["inputs"]]
    outputs = called(layer, case, inputs)
    assert [w.path for w in layer.weights] == list(case["weights"])
    layer.set_weights(list(case["weights"].values()))
    for t, wanted in zip(outputs, case["outputs"], strict=True):
        np.testing.assert_allclose(evaluate(t, inputs, case["inputs"]), wanted, **CLOSE)
    if case["mask"] is None:
        assert outputs[0].mask is None
    else:
        np.testing.assert_array_equal(outputs[0].mask.numpy(), case["mask"])
    cost = sum((t * f).sum() for t, f in zip(outputs, case["factors"], strict=True))
    gradients = grad(cost, [*layer.trainable_weights, *inputs], disconnected_inputs="zero")
    recorded = case["weight gradients"] + case["input gradients"]
    largest = max(np.abs(wanted).max() for wanted in recorded)  # terms of this size cancel, as in the bias of the keys
    for g, wanted in zip(gradients, recorded, strict=True):
        np.testing.assert_allclose(evaluate(g, inputs, case["inputs"]), wanted, rtol=5e-5, atol=2e-6 * largest)
    assert plain(layer.get_config()) == plain(case["config"])
    assert plain(layer.get_build_config()) == plain(case["build config"])
    assert serialize_object(layer)["class_name"] == case["class name"]
    check_shape(outputs[0].shape, case["symbolic output"])
    again = deserialize_object(serialize_object(layer))
    assert type(again) is type(layer)
    assert plain(again.get_config()) == plain(case["config"])


@pytest.mark.parametrize("case", RECORDED["function"], ids=lambda c: " ".join(c["options"]) or "plain")
def test_function_is_keras_s(case):
    result = ops.dot_product_attention(case["query"], case["key"], case["value"], **case["options"])
    np.testing.assert_allclose(result, case["result"], **CLOSE)


def test_fans_of_an_einsum_kernel_are_those_of_its_letters():
    for equation, case in RECORDED["fans"].items():
        layer = layers.EinsumDense(equation, case["output"], kernel_initializer=gnomon.initializers.GlorotUniform(1))
        layer.build((None, *case["input"]))
        np.testing.assert_allclose(np.abs(layer.kernel.numpy()).max(), case["largest"], rtol=0.02)


def test_model_and_its_file_are_keras_s(tmp_path):
    recorded = RECORDED["model"]
    clear_session()
    model = deserialize_object(recorded["config"])
    assert {w.shape for w in model.weights} == {w.shape for w in recorded["weights"]}
    model.set_weights(recorded["weights"])
    np.testing.assert_allclose(model.predict(recorded["inputs"], verbose=0), recorded["predict"], **CLOSE)
    ours = {
        f"{path}/vars/{k}": list(w.shape)
        for path, found in saved_objects(model)
        if isinstance(found, layers.Layer)
        for k, w in enumerate(found._own_variables())
    }
    assert ours == recorded["groups"]
    model.save(tmp_path / "m.keras")
    again = gnomon.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        again.predict(recorded["inputs"], verbose=0), model.predict(recorded["inputs"], verbose=0)
    )
    for a, b in zip(model.layers, again.layers, strict=True):
        assert plain(a.get_config()) == plain(b.get_config())


@register_keras_serializable()
class Listed(layers.MultiHeadAttention):
    """Takes a list, as `check_layer` wants it."""

    def build(self, input_shape):
        super().build(*input_shape)

    def call(self, inputs, training=None, use_causal_mask=True):
        return super().call(*inputs, training=training, use_causal_mask=use_causal_mask)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(*input_shape)


@register_keras_serializable()
class ListedGroups(layers.GroupQueryAttention):
    def build(self, input_shape):
        super().build(*input_shape)

    def call(self, inputs, training=None):
        return super().call(*inputs, training=training)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(*input_shape)


CHECKED = [
    (layers.EinsumDense, [(3, 4)], {"equation": "abc,cd->abd", "output_shape": (None, 2), "bias_axes": "d"}),
    (layers.EinsumDense, [(4,)], {"equation": "...c,cde->...de", "output_shape": (2, 3), "activation": "tanh"}),
    (layers.Attention, [(3, 4), (5, 4)], {"use_scale": True}),
    (layers.Attention, [(1, 2), (1, 3), (1, 2)], {"score_mode": "concat"}),
    (layers.AdditiveAttention, [(3, 4), (2, 4)], {}),
    (Listed, [(3, 4), (5, 2)], {"num_heads": 2, "key_dim": 3, "use_gate": True}),
    (Listed, [(1, 1), (1, 1)], {"num_heads": 1, "key_dim": 1, "output_shape": 2}),
    (Listed, [(2, 3, 4), (2, 2, 4)], {"num_heads": 2, "key_dim": 3, "attention_axes": 2}),
    (ListedGroups, [(3, 4), (5, 2)], {"head_dim": 2, "num_query_heads": 6, "num_key_value_heads": 3}),
]


@pytest.mark.parametrize(("cls", "shapes", "arguments"), CHECKED, ids=lambda c: getattr(c, "__name__", ""))
def test_layer(cls, shapes, arguments):
    check_layer(cls, *shapes, **arguments)


def test_one_program_for_all_lengths():
    clear_session()
    x, y = layers.Input((None, 6)), layers.Input((None, 6))
    heads = layers.MultiHeadAttention(2, 3)
    groups = layers.GroupQueryAttention(3, 4, 2)
    outputs = [heads(x, y, use_causal_mask=True), groups(x, y), layers.Attention()([x, y])]
    f = gnomon.function([x, y], outputs)
    random = np.random.default_rng(0)
    for batch, queries, keys in ((2, 5, 7), (1, 1, 1), (3, 4, 1)):
        a, b = (random.standard_normal((batch, n, 6)).astype("float32") for n in (queries, keys))
        for found, t in zip(f(a, b), outputs, strict=True):
            np.testing.assert_allclose(found, evaluate(t, [x, y], [a, b]), **CLOSE)


def test_padding_changes_nothing():
    """What an Embedding masks does not count, in any layer after it."""
    clear_session()
    gnomon.utils.set_random_seed(2)
    x = layers.Input((None,), dtype="int32")
    words = layers.Embedding(9, 8, mask_zero=True)(x)
    heads = layers.MultiHeadAttention(2, 4)(words, words)
    groups = layers.GroupQueryAttention(4, 4, 2)(heads, words, use_causal_mask=True)
    mixed = layers.AdditiveAttention()([layers.Attention()([groups, words]), words])
    model = Model(x, [mixed, layers.GlobalAveragePooling1D()(mixed)])
    rows, mean = model.predict(np.array([[3, 1, 4]]), verbose=0)
    for padding in (1, 4):
        padded, padded_mean = model.predict(np.array([[3, 1, 4, *[0] * padding]]), verbose=0)
        np.testing.assert_allclose(padded[:, :3], rows, **CLOSE)
        np.testing.assert_array_equal(padded[:, 3:], 0)
        np.testing.assert_allclose(padded_mean, mean, **CLOSE)


def test_a_program_trains_with_dropout():
    clear_session()
    gnomon.utils.set_random_seed(1)
    x = layers.Input((None, 4))
    h = layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x)
    model = Model(x, layers.Dense(1)(layers.Attention(dropout=0.1)([h, x])))
    model.compile(gnomon.optimizers.Adam(0.01), "mse")
    data = np.random.default_rng(2).standard_normal((32, 6, 4)).astype("float32")
    target = data.mean(1, keepdims=True).mean(2, keepdims=True) * np.ones((1, 6, 1), "float32")
    losses = model.fit(data, target, epochs=15, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    layer = layers.MultiHeadAttention(2, 4, dropout=0.5, seed=1)
    a, b = layer(data, data, training=True), layer(data, data, training=True)
    assert (a != b).any()
    assert len(layer.variables) == len(layer.weights) + 1


def test_what_cannot_be_is_refused():
    for arguments in ({"num_heads": 0}, {"key_dim": -1}, {"value_dim": 0}, {"dropout": 2.0}, {"sliding_window": 0},
                      {"attention_axes": "x"}, {"output_shape": "x"}, {"flash_attention": True, "dropout": 0.1},
                      {"output_shape": (0,)}):  # fmt: skip
        with pytest.raises(ArgumentError):
            layers.MultiHeadAttention(**{"num_heads": 2, "key_dim": 3, **arguments})
    with pytest.raises(ArgumentError, match="divisible"):
        layers.GroupQueryAttention(2, 3, 2)
    with pytest.raises(ArgumentError, match="score_mode"):
        layers.Attention(score_mode="sum")
    x = np.zeros((2, 3, 4), "float32")
    with pytest.raises(ArgumentError, match="list of inputs"):
        layers.Attention()(x)
    with pytest.raises(ArgumentError, match="length 2 or 3"):
        layers.Attention()([x])
    with pytest.raises(ShapeError, match=r"must be bool\[2, 3, 3\], got bool\[2, 5, 3\]"):
        layers.MultiHeadAttention(2, 3)(x, x, attention_mask=np.ones((2, 5, 3), bool))
    with pytest.raises(ShapeError, match="must broadcast to its scores"):
        layers.MultiHeadAttention(2, 3)(x, x, attention_mask=np.ones((2, 5), bool))
    with pytest.raises(ShapeError, match="except the last one"):
        layers.MultiHeadAttention(2, 3)(x, x, x[:, :2])
    with pytest.raises(ShapeError, match="batch, positions, features"):
        layers.MultiHeadAttention(2, 3)(x[0], x[0])
    with pytest.raises(ArgumentError, match="not known"):
        layers.MultiHeadAttention(2, 3)(x[None], x[None], use_causal_mask=True)
    with pytest.raises(ArgumentError, match="flash"):
        layers.MultiHeadAttention(2, 3, flash_attention=True)(x, x, return_attention_scores=True)
    with pytest.raises(ShapeError):
        layers.Attention()([x, x[..., :2]])


@pytest.mark.parametrize(
    ("equation", "shape", "error"),
    [
        ("abc", 3, "Invalid einsum equation"), ("ab...,bc->...ac", 3, "Invalid einsum equation"),
        ("abc,cd->abe", 3, "no corresponding dim"), ("ab,bcd->ac", 3, "must be fully specified"),
        ("aab,bc->ac", 3, "twice"),
    ],
)  # fmt: skip
def test_equations_that_are_none_are_refused(equation, shape, error):
    with pytest.raises(ArgumentError, match=error):
        layers.EinsumDense(equation, shape)


def test_einsum_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="Bias dimension"):
        layers.EinsumDense("ab,bc->ac", 3, bias_axes="b")
    with pytest.raises(ArgumentError, match="positive sizes"):
        layers.EinsumDense("ab,bc->ac", -3)
    with pytest.raises(ShapeError, match="shared dimension 'b'"):
        layers.EinsumDense("abc,cd->abd", (4, 3)).build((None, 5, 2))
    with pytest.raises(ShapeError, match="cannot take inputs of 2 axes"):
        layers.EinsumDense("abc,cd->abd", (None, 3)).build((None, 5))
    with pytest.raises(ShapeError, match="needs output_shape to have 2 sizes"):
        layers.EinsumDense("abc,cd->abd", 3).build((None, 5, 2))
    with pytest.raises(ShapeError, match="known shape"):
        layers.EinsumDense("abc,bcd->abd", (None, 3)).build((None, None, 2))
