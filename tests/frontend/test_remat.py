"""Computing again instead of keeping: the same numbers, less memory."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.checkpointing import get_current_remat_mode
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.compiler.graph import walk
from gnomon.compiler.ops.remat import After, Checkpoint
from gnomon.runtime.binding import Binding
from tests.emulator.programs import for_cuda

random = np.random.default_rng(0)


def _initial(k):
    return gnomon.initializers.GlorotUniform(seed=k)


def _dense(k, width=256):
    return [
        layers.Dense(width, activation="tanh", kernel_initializer=_initial(k)),
        layers.Dropout(0.3, seed=k),
        layers.LayerNormalization(),
    ]


def _conv(k):
    return [
        layers.Conv2D(8, 3, padding="same", kernel_initializer=_initial(k)),
        layers.BatchNormalization(),
        layers.Activation("relu"),
    ]


def _model(blocks, parts, shape, scope, **options):
    """Blocks of layers; with `scope`, each is made of what went into it again."""
    x = inputs = layers.Input(shape)
    for b in range(blocks):
        block = [layer for k in range(3) for layer in parts(3 * b + k)]
        if scope:
            with gnomon.RematScope():
                whole = gnomon.Sequential(name=f"block_{b}")
            for layer in block:
                whole.add(layer)
            x = whole(x)
        else:
            for layer in block:
                x = layer(x)
    if len(shape) > 1:
        x = layers.GlobalAveragePooling2D()(x)
    model = gnomon.Model(inputs, layers.Dense(5, kernel_initializer=_initial(99))(x))
    model.compile(options.pop("optimizer", "adam"), gnomon.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


# ---- whole models


def test_launches_that_are_joined_for_a_gpu_do_not_undo_it():
    peaks = []
    for scope in (False, True):
        data = np.zeros((24, 256), "float32"), np.arange(24) % 5, None
        program = for_cuda(_model(4, _dense, (256,), scope)._step_program("train", data).function)
        peaks.append(Binding(program).temporary_bytes(dict.fromkeys(program.sizes, 512)))
    assert peaks[1] < 0.5 * peaks[0], peaks


@pytest.mark.parametrize(("parts", "shape", "share"), [(_dense, (256,), 0.5), (_conv, (12, 12, 8), 0.62)])
def test_peak_falls_and_training_is_the_same(parts, shape, share):
    x, y = random.standard_normal((24, *shape)).astype("float32"), np.arange(24) % 5
    plain, saving = (_model(4, parts, shape, scope, optimizer="sgd") for scope in (False, True))
    whole, less = (m.memory(512).temporaries for m in (plain, saving))
    assert less < share * whole, (less, whole)
    histories = [m.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (plain, saving)]
    np.testing.assert_allclose(*histories, rtol=1e-6)
    for a, b in zip(plain.weights, saving.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=a.path)
    np.testing.assert_allclose(plain.predict(x, verbose=0), saving.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert saving.memory(512, training=False).temporaries == plain.memory(512, training=False).temporaries


def test_memory_of_deep_networks_grows_with_blocks_not_layers():
    def temporaries(depth, size):
        x = inputs = layers.Input((128,))
        for _ in range(depth // size):
            with gnomon.RematScope():
                block = gnomon.Sequential()
            for _ in range(size):
                block.add(layers.Dense(128, activation="tanh"))
            x = block(x)
        model = gnomon.Model(inputs, layers.Dense(1)(x))
        model.compile("sgd", "mse")
        return model.memory(1024).temporaries

    # 16 layers: activations of 4 blocks and of the 4 layers of one, instead of 16
    one = 1024 * 128 * 4
    assert temporaries(16, 4) < 12 * one
    assert temporaries(16, 1) > 16 * one


class _Block(layers.Layer):
    """A layer of one's own: with layers inside, and a loss."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = layers.Dense(8, activation="relu"), layers.Dense(8)

    def call(self, x):
        self.add_loss(0.01 * ops.mean(x * x))
        return x + self.outer(self.inner(x))


def _attention():
    x = inputs = layers.Input((12, 8))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, dropout=0.1, seed=3)(x, x))
    return gnomon.Model(inputs, layers.GlobalAveragePooling1D()(x))


SEQUENCES = random.standard_normal((4, 12, 8)).astype("float32")


@pytest.mark.parametrize("mode", ["full", "activations"])
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: gnomon.Sequential([layers.LSTM(6, return_sequences=True, dropout=0.2, seed=1), layers.LSTM(8)]),
         SEQUENCES),
        (lambda: gnomon.Sequential([layers.Bidirectional(layers.GRU(4))]), SEQUENCES),
        (lambda: gnomon.Sequential([layers.Embedding(20, 8, mask_zero=True), layers.SimpleRNN(8)]),
         random.integers(0, 20, (4, 10))),
        (_attention, SEQUENCES),
        (lambda: gnomon.Sequential([_Block(), _Block(), layers.Dense(8, activity_regularizer="l2",
                                                                     kernel_regularizer="l1")]), SEQUENCES[:, 0]),
        (lambda: gnomon.Sequential([layers.TimeDistributed(layers.Dense(8, "tanh")), layers.GlobalMaxPooling1D()]),
         SEQUENCES),
        (lambda: gnomon.Sequential([layers.SpectralNormalization(layers.Dense(8, "relu"))]), SEQUENCES[:, 0]),
    ],
    ids=["lstm", "bidirectional", "mask", "attention", "own", "distributed", "spectral"],
)  # fmt: skip
def test_layers_of_all_kinds_learn_the_same(make, x, mode):
    y = np.linspace(-1, 1, 32, dtype="float32").reshape(4, 8)
    losses = []
    for scope in (None, mode):
        gnomon.utils.set_random_seed(0)
        with gnomon.RematScope(scope):
            model = make()
        model.compile(gnomon.optimizers.SGD(0.1), "mse")
        losses.append([model.train_on_batch(x, y) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][2] < losses[0][0]


# ---- functions


def _loss_and_gradients(f, x, w):
    a, b = gnomon.matrix("a", dtype="float32"), gnomon.matrix("b", dtype="float32")
    cost = ops.sum(ops.square(f(a, b)))
    first = gnomon.grad(cost, [a, b])
    second = gnomon.hessian_vector_product(cost, [a, b], [ops.ones_like(a), ops.ones_like(b)])
    forward = gnomon.jvp(cost, [a, b], [ops.ones_like(a), ops.ones_like(b)])
    return gnomon.function([a, b], [cost, *first, *second, forward])(x, w)


def _inside(a, b):
    h = ops.tanh(a @ b)
    return ops.tanh(h @ ops.transpose(b)) * ops.sigmoid(a)


def test_derivatives_of_all_kinds_agree():
    x, w = random.standard_normal((4, 6)).astype("float32"), random.standard_normal((6, 3)).astype("float32")
    for a, b in zip(
        _loss_and_gradients(_inside, x, w), _loss_and_gradients(gnomon.remat(_inside), x, w), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_nested_scopes_agree():
    x, w = random.standard_normal((4, 6)).astype("float32"), random.standard_normal((6, 3)).astype("float32")

    @gnomon.checkpoint
    def outer(a, b):
        return _inside(gnomon.checkpoint(_inside)(a, b) + a, b)

    plain = _loss_and_gradients(lambda a, b: _inside(_inside(a, b) + a, b), x, w)
    for a, b in zip(plain, _loss_and_gradients(outer, x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_jacobian_and_hessian_agree():
    x = random.standard_normal((3,)).astype("float32")
    a = gnomon.vector("a", dtype="float32")

    def f(v):
        return ops.tanh(v * ops.sum(v)) * ops.exp(v)

    def both(g):
        y = g(a)
        return gnomon.function([a], [gnomon.jacobian(y, a), gnomon.hessian(ops.sum(y), a)])(x)

    for one, other in zip(both(f), both(gnomon.remat(f)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_gradient_keeps_only_what_went_in():
    a = gnomon.matrix("a", dtype="float32")
    w = gnomon.shared(random.standard_normal((6, 6)).astype("float32"), "w")
    hidden = []

    def f(v):
        hidden.append(ops.tanh(v @ w))
        return ops.sin(hidden[0] @ w)

    cost = ops.sum(gnomon.remat(f)(ops.exp(a)))
    da, dw = gnomon.grad(cost, [a, w])
    marks = [n for n in walk([da.node, dw.node]) if isinstance(n.op, After)]
    assert len(marks) == 1
    # the forward value of what is inside is not read by the gradient, but one like it that reads the mark
    kept = [n for n in walk([da.node, dw.node], stop=lambda n: isinstance(n.op, (After, Checkpoint)))]
    assert hidden[0].node not in kept
    fn = gnomon.function([a], [cost, da, dw], name="kept")
    x = random.standard_normal((5, 6)).astype("float32")
    plain = ops.sum(f(ops.exp(a)) if hidden.clear() is None else None)
    expected = gnomon.function([a], [plain, *gnomon.grad(plain, [a, w])])(x)
    for found, wanted in zip(fn(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(fn.interpret(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_structures_keywords_and_values_that_pass_through():
    a, b = gnomon.vector("a", dtype="float32"), gnomon.vector("b", dtype="float32")

    @gnomon.remat
    def f(pair, *, scale=2.0):
        x, y = pair
        return {"product": x * y * scale, "same": x, "positive": x > 0, "number": 3}

    found = f((a, b), scale=3.0)
    assert found["same"].node is a.node
    assert found["number"] == 3
    cost = ops.sum(found["product"]) + ops.sum(found["same"])
    values = gnomon.function([a, b], [cost, found["positive"], *gnomon.grad(cost, [a, b])])(
        np.array([1.0, -2.0], "float32"), np.array([4.0, 5.0], "float32")
    )
    assert values[0] == 3 * (4 - 10) - 1
    assert values[1].tolist() == [True, False]
    np.testing.assert_allclose(values[2], [13, 16])
    np.testing.assert_allclose(values[3], [3, -6])


def test_what_is_taken_from_outside_gets_its_gradient():
    a, b = gnomon.vector("a", dtype="float32"), gnomon.vector("b", dtype="float32")
    outside = ops.exp(b)

    def f(x):
        return ops.sin(x * outside) * outside

    for g in (f, gnomon.remat(f)):
        cost = ops.sum(g(a))
        found = gnomon.function([a, b], gnomon.grad(cost, [a, b]))(np.float32([1, 2]), np.float32([0.5, -1]))
        e = np.exp([0.5, -1])
        x = np.array([1, 2])
        np.testing.assert_allclose(found[0], np.cos(x * e) * e * e, rtol=1e-5)
        np.testing.assert_allclose(found[1], (np.cos(x * e) * x * e + np.sin(x * e)) * e, rtol=1e-5)


def test_without_arguments_what_it_reads_is_what_it_took():
    a = gnomon.vector("a", dtype="float32")
    cost = ops.sum(gnomon.remat(lambda: ops.sin(a) * a)())
    (found,) = gnomon.grad(cost, [a])
    assert any(isinstance(n.op, After) for n in walk([found.node]))
    x = np.float32([0.5, 2])
    np.testing.assert_allclose(gnomon.function([a], found)(x), np.cos(x) * x + np.sin(x), rtol=1e-5)


def test_arrays_are_computed_at_once():
    found = gnomon.remat(ops.exp)(np.float32([0, 1]))
    np.testing.assert_allclose(found, [1, np.e], rtol=1e-6)
    assert gnomon.checkpoint(lambda x, k=2: x * k)(3, k=4) == 12


def test_random_numbers_are_drawn_once():
    stream = gnomon.random.SeedGenerator(3)
    a = gnomon.matrix("a", dtype="float32")

    def f(x):
        return ops.tanh(gnomon.random.dropout(x, 0.5, seed=stream)) * x

    y = gnomon.remat(f)(a)
    fn = gnomon.function([a], [y, *gnomon.grad(ops.sum(y), [a])])
    x = random.standard_normal((50, 40)).astype("float32")
    for _ in range(2):
        value, gradient = fn(x)
        kept = value != 0
        assert 0.4 < kept.mean() < 0.6
        wanted = np.where(kept, np.tanh(2 * x) + 2 * x / np.cosh(2 * x) ** 2, 0)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)
    assert stream.state.numpy()[1] == 2


def test_moving_statistics_move_once():
    x = random.standard_normal((32, 4)).astype("float32") + 3
    means = []
    for scope in (None, "full"):
        with gnomon.RematScope(scope):
            model = gnomon.Sequential([layers.Input((4,)), layers.BatchNormalization(momentum=0.5), layers.Dense(1)])
        model.compile("sgd", "mse")
        model.train_on_batch(x, np.zeros((32, 1), "float32"))
        means.append(model.layers[0].moving_mean.numpy())
    np.testing.assert_array_equal(*means)
    np.testing.assert_allclose(means[0], 0.5 * x.mean(0), rtol=1e-5)


def test_inside_a_loop():
    x = random.standard_normal((7, 3, 4)).astype("float32")
    w0 = 0.3 * random.standard_normal((4, 4)).astype("float32")

    def run(wrap):
        xs, w = gnomon.tensor3("xs", dtype="float32"), gnomon.shared(w0, "w")
        step = wrap(lambda h, x: ops.tanh(h @ w + ops.sin(x @ w)))

        def body(h, x):
            h = step(h, x)
            return h, h

        last, _ = ops.scan(body, ops.zeros((3, 4)), xs)
        cost = ops.sum(ops.square(last))
        return gnomon.function([xs], [cost, *gnomon.grad(cost, [xs, w])])(x)

    for a, b in zip(run(lambda f: f), run(gnomon.remat), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---- scopes


def _checkpoints(layer, shape):
    return [n for n in walk([layer(layers.Input(shape)).node]) if isinstance(n.op, Checkpoint)]


def test_scopes_nest_and_end():
    assert get_current_remat_mode() is None
    with gnomon.RematScope(mode="full"):
        assert get_current_remat_mode().mode == "full"
        with gnomon.RematScope(mode="larger_than", output_size_threshold=5):
            assert get_current_remat_mode() == ("larger_than", 5, [])
        with gnomon.RematScope(mode=None):
            assert not _checkpoints(layers.Dense(3), (4,))
        assert get_current_remat_mode().mode == "full"
    assert get_current_remat_mode() is None


def test_the_mode_is_that_of_where_the_layer_was_made():
    outside = layers.Dense(3)
    with gnomon.RematScope():
        inside = layers.Dense(3)
        assert not _checkpoints(outside, (4,))
    assert len(_checkpoints(inside, (4,))) == 1


def test_modes_choose_layers():
    with gnomon.RematScope("list_of_layers", layer_names=["chosen"]):
        assert _checkpoints(layers.Dense(3, name="chosen"), (4,))
        assert not _checkpoints(layers.Dense(3, name="another"), (4,))
    with gnomon.RematScope("larger_than", output_size_threshold=100):
        assert _checkpoints(layers.Dense(101), (4,))
        assert not _checkpoints(layers.Dense(100), (4,))
    with gnomon.RematScope("activations"):
        assert not _checkpoints(layers.Dropout(0.5), (4,))
        relu = layers.Dense(3, activation="gelu")
        (mark,) = _checkpoints(relu, (4,))
        assert len(mark.inputs) == 1
    assert relu.activation is gnomon.activations.gelu


def test_scopes_that_there_are_not():
    with pytest.raises(ArgumentError, match=r"'larger_than', 'list_of_layers' or None, got 'ful'. Did you mean 'full'"):
        gnomon.RematScope(mode="ful")
    with pytest.raises(ArgumentError, match="is a list of names, got the string 'dense'"):
        gnomon.RematScope("list_of_layers", layer_names="dense")


def test_at_once_over_slices_and_in_a_choice():
    with gnomon.RematScope():
        layer = layers.Dense(3, activation="relu", kernel_initializer="ones")
    np.testing.assert_allclose(layer(np.ones((2, 4), "float32")), np.full((2, 3), 4))
    f = gnomon.remat(lambda v: ops.tanh(v * ops.sum(v)))
    a, x = gnomon.matrix("a", dtype="float32"), 0.1 * np.arange(6, dtype="float32").reshape(3, 2)
    rows = gnomon.vectorized_map(f, a)
    chosen = gnomon.cond(ops.sum(a) > 0, lambda: f(a), lambda: a)
    plain = ops.tanh(a * ops.sum(a, axis=1, keepdims=True)), ops.tanh(a * ops.sum(a))
    for found, wanted in zip((rows, chosen), plain, strict=True):
        one, other = (gnomon.function([a], [y, gnomon.grad(ops.sum(y), a)])(x) for y in (found, wanted))
        for p, q in zip(one, other, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-5)


def test_ids_are_looked_at_inside_too():
    with gnomon.RematScope():
        model = gnomon.Sequential([layers.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="words")])
    with pytest.raises(DataError, match="layer 'words' takes token ids from 0 to 4"):
        model.predict(np.array([[1, 2, 9]]), verbose=0)
