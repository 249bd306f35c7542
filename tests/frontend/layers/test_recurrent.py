"""Recurrent layers: Keras's numbers, and what is special about each."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import ArgumentError, DataError, DTypeError, GnomonError, ShapeError, StateError
from gnomon.compiler.graph import walk
from gnomon.compiler.ops.scan import Scan
from gnomon.registry import register_keras_serializable
from gnomon.utils import tree
from tests.frontend.layers.check import check_layer
from tests.frontend.layers.sequences import check_case
from tests.recorded.load import FOLDER, load

CASES = {k: case for k, case in load("recurrent")["cases"].items() if not k.startswith(("Embedding", "ConvLSTM"))}
COMPILED = {
    "SimpleRNN, one row, one step, one feature", "SimpleRNN, gaps, backwards", "SimpleRNN, gaps, unrolled",
    "LSTM, sequences and state", "LSTM, gaps", "GRU, backwards", "GRU, ragged", "GRU, reset before, gaps",
    "RNN of cells", "Bidirectional, concat", "Bidirectional, from a state", "Bidirectional, ragged",
    "TimeDistributed recurrence",
}  # fmt: skip
"""Cases that are compiled, too: the programs of the others are like one of these."""
KINDS = [layers.SimpleRNN, layers.LSTM, layers.GRU]
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.mark.parametrize("name", CASES)
def test_recorded(name):
    check_case(CASES[name], compiled=name in COMPILED)


def data(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "return_state": True, "go_backwards": True}])
def test_layer(cls, options):
    check_layer(cls, (3, 2), units=2, **options)


@pytest.mark.parametrize("make", [lambda: layers.SimpleRNNCell(2), lambda: [layers.LSTMCell(2), layers.GRUCell(3)]])
def test_rnn(make):
    layer = layers.RNN(make(), return_sequences=True)
    x = data(3, 4, 2)
    again = layers.RNN.from_config(layer.get_config())
    expected = layer(x)
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), expected)


@pytest.mark.parametrize("cls", KINDS)
def test_float64_and_mixed_precision(cls):
    x = data(2, 3, 2)
    exact, mixed = cls(3, dtype="float64"), cls(3, dtype="mixed_float16")
    a, b = exact(x), mixed(x)
    assert (a.dtype, b.dtype) == ("float64", "float16")
    assert {w.dtype for w in exact.weights} == {"float64"}
    assert {w.dtype for w in mixed.weights} == {"float32"}
    mixed.set_weights(exact.get_weights())
    np.testing.assert_allclose(mixed(x), a, atol=5e-3)


# ---- gradients


@pytest.mark.parametrize("cls", KINDS)
def test_second_gradient(cls):
    """The derivative of a gradient along a direction, by finite differences of the gradient, in float64."""
    layer = cls(2, dtype="float64", return_sequences=True)
    x = layers.Input((4, 2), dtype="float64")
    mask = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    cost = (layer(x, mask=mask) ** 3).sum()
    weights = layer.trainable_weights
    gradients = gnomon.grad(cost, weights)
    rng = np.random.default_rng(1)
    directions = [rng.standard_normal(w.shape) for w in weights]
    along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    second = gnomon.grad(along, [*weights, x])
    f, g = gnomon.function([x], [*second]), gnomon.function([x], [along])
    points = data(3, 4, 2, dtype="float64")
    found, h = f(points), 1e-5
    for target, value in zip([*weights, None], found, strict=True):
        place = tuple(rng.integers(n) for n in value.shape)
        sides = []
        for sign in (1, -1):
            moved = points.copy()
            if target is None:
                moved[place] += sign * h
                sides.append(g(moved)[0])
            else:
                before = target.numpy()
                changed = before.copy()
                changed[place] += sign * h
                target.assign(changed)
                sides.append(g(moved)[0])
                target.assign(before)
        np.testing.assert_allclose(value[place], (sides[0] - sides[1]) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", KINDS)
def test_one_product_with_the_state(cls):
    """In a step there is one product, with all gates; that of the inputs is done before the loop, for all steps."""
    x = layers.Input((None, 3))
    function = gnomon.function([x], cls(4)(x))
    products = [line for line in function.show("simplified").splitlines() if "Contract(" in line]
    assert len(products) == 2
    assert [line[0] == " " for line in products] == [False, True]  # one in the body of the loop


# ---- sequences


def test_all_lengths_are_one_program():
    model = gnomon.Sequential([layers.Input((None, 3)), layers.LSTM(4, return_sequences=True), layers.GRU(2)])
    model.compile("sgd", "mse")
    model.fit(data(4, 5, 3), data(4, 2), verbose=0)
    model.predict(data(4, 5, 3), verbose=0)
    before = len(gnomon.compile_events())
    for steps in (1, 2, 7, 33):
        for batch in (1, 3):
            assert model.predict(data(batch, steps, 3), verbose=0).shape == (batch, 2)
            model.train_on_batch(data(batch, steps, 3), data(batch, 2))
    assert len(gnomon.compile_events()) == before


@pytest.mark.parametrize("cls", KINDS)
def test_graph_does_not_grow_with_the_steps(cls):
    layer = cls(2)
    sizes = [len(walk([layer(layers.Input((steps, 3))).node])) for steps in (2, 2000)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("cls", KINDS)
def test_unrolled(cls):
    """No loop is left, the numbers are the same; with a mask, too."""
    x, mask = data(3, 4, 2), np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]], bool)
    loop = cls(3, return_sequences=True, return_state=True, go_backwards=True)
    unrolled = cls(3, return_sequences=True, return_state=True, go_backwards=True, unroll=True)
    symbol = layers.Input((4, 2))
    assert not any(isinstance(n.op, Scan) for t in tree.flatten(unrolled(symbol)) for n in walk([t.node]))
    loop(x)
    unrolled.set_weights(loop.get_weights())
    first = [data(3, 3, seed=k) for k in range(len(loop.get_initial_state(3)))]
    for options in ({}, {"mask": mask}, {"mask": mask, "initial_state": first}):
        for a, b in zip(loop(x, **options), unrolled(x, **options), strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("cls", KINDS)
def test_ragged_sequences(cls):
    """A sequence whose end is masked gives what its beginning gives alone."""
    x, lengths = data(3, 6, 2), [6, 2, 1]
    mask = np.arange(6) < np.array(lengths)[:, None]
    layer = cls(3, return_state=True)
    found = layer(x, mask=mask)
    for k, n in enumerate(lengths):
        for a, b in zip(found, layer(x[k : k + 1, :n]), strict=True):
            np.testing.assert_allclose(a[k], b[0], **CLOSE)
    changed = np.where(mask[..., None], x, 1e6).astype("float32")
    np.testing.assert_array_equal(layer(changed, mask=mask)[0], found[0])


def test_sequence_of_which_nothing_counts():
    layer = layers.LSTM(3, return_state=True)
    first = [data(2, 3, seed=k) for k in (1, 2)]
    output, h, c = layer(data(2, 4, 2), mask=np.zeros((2, 4), bool), initial_state=first)
    np.testing.assert_array_equal(output, first[0])
    np.testing.assert_array_equal(h, first[0])
    np.testing.assert_array_equal(c, first[1])


def test_mask_of_several_numbers_a_step():
    """A step counts if one of its numbers does; numbers other than 0 are true."""
    layer, x = layers.GRU(2), data(2, 3, 2)
    mask = np.array([[1, 0, 1], [1, 1, 0]])
    expected = layer(x, mask=mask.astype(bool))
    np.testing.assert_array_equal(layer(x, mask=mask), expected)
    np.testing.assert_array_equal(layer(x, mask=mask[..., None].astype(bool)), expected)


# ---- dropout


def test_dropout_drops_the_same_inputs_in_all_steps():
    layer = layers.SimpleRNN(50, activation=None, dropout=0.5, use_bias=False, return_sequences=True,
                             kernel_initializer="identity", recurrent_initializer="zeros", seed=1)  # fmt: skip
    x = np.ones((4, 6, 50), "float32")
    np.testing.assert_array_equal(layer(x), x)
    a, b = layer(x, training=True), layer(x, training=True)
    assert set(np.unique(a)) == {0, 2}
    assert (a == a[:, :1]).all()
    assert (a[0] != a[1]).any()
    assert (a != b).any()
    assert 0.4 < (a != 0).mean() < 0.6
    np.testing.assert_array_equal(layers.SimpleRNN.from_config(layer.get_config())(x, training=True), a)


def test_recurrent_dropout_drops_the_same_states_in_all_steps():
    layer = layers.SimpleRNN(50, activation=None, recurrent_dropout=0.5, use_bias=False, return_sequences=True,
                             kernel_initializer="identity", recurrent_initializer="identity", seed=1)  # fmt: skip
    x = np.ones((4, 5, 50), "float32")
    np.testing.assert_allclose(layer(x)[:, -1], 5)
    a = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(np.unique(a[:, -1]), [1, 1 + 2 + 4 + 8 + 16])  # kept, a state doubles at each step
    np.testing.assert_array_equal(a[:, 0], x[:, 0])


@pytest.mark.parametrize("cls", [layers.LSTM, layers.GRU])
@pytest.mark.parametrize(
    "options", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"dropout": 0.2, "implementation": 1}], ids=str
)
def test_dropout_of_gates(cls, options):
    """Not while predicting; while training in the loop and in the compiled program, and different each time."""
    layer, x = cls(8, **options), data(3, 4, 5)
    layer(x)
    plain = cls(8)
    plain(x)
    plain.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), plain(x))
    symbol = layers.Input((None, 5))
    function = gnomon.function([symbol], layer(symbol, training=True))
    a, b = function(x), function(x)
    assert (a != b).any()
    assert (a != plain(x)).any()
    assert len(layer.weights) == 3
    assert [v.shape for v in layer.variables][3:] == [(2,)]


def test_dropout_of_stacked_cells():
    layer = layers.RNN([layers.LSTMCell(6, dropout=0.5), layers.GRUCell(5, recurrent_dropout=0.5)])
    x = data(2, 3, 4)
    a, b = layer(x, training=True), layer(x, training=True)
    assert (a != b).any()
    np.testing.assert_array_equal(layer(x), layer(x))


def test_cell_on_its_own():
    cell = layers.GRUCell(3, dropout=0.5, seed=2)
    x, first = data(2, 4), cell.get_initial_state(2)
    a, (state,) = cell(x, first)
    np.testing.assert_array_equal(a, state)
    b, _ = cell(x, first, training=True)
    c, _ = cell(x, first, training=True)
    assert (a != b).any()
    assert (b != c).any()


def test_rates_outside_are_brought_inside():
    cell = layers.LSTMCell(2, dropout=-1.0, recurrent_dropout=3.0)
    assert (cell.dropout, cell.recurrent_dropout) == (0.0, 1.0)
    with pytest.raises(ArgumentError, match="dropout of LSTMCell is a number"):
        layers.LSTMCell(2, dropout="0.5")


# ---- states that are kept


@pytest.mark.parametrize("cls", KINDS)
def test_stateful_goes_on_where_the_last_batch_ended(cls):
    """A long sequence in parts gives what it gives in one piece: at once, in predict, in a function."""
    x = data(3, 8, 2)
    whole = cls(4, return_sequences=True)
    expected = whole(x)
    symbol = layers.Input(batch_shape=(3, None, 2))
    layer = cls(4, return_sequences=True, stateful=True)
    model = gnomon.Model(symbol, layer(symbol))
    layer.set_weights(whole.get_weights())
    assert len(layer.weights) == 3
    parts = np.concatenate([x[:, :5], x[:, 5:]], 1)
    for run in (lambda part: layer(part), lambda part: model.predict(part, verbose=0), model.predict_on_batch, model):
        layer.reset_state()
        found = [run(parts[:, a:b]) for a, b in ((0, 3), (3, 5), (5, 8))]
        np.testing.assert_allclose(np.concatenate(found, 1), expected, **CLOSE)
    layer.reset_states()
    batches = np.concatenate([x[:, :4], x[:, 4:]])  # one batch after the other is one part after the other
    found = model.predict(batches, batch_size=3, verbose=0)
    np.testing.assert_allclose(np.concatenate([found[:3], found[3:]], 1), expected, **CLOSE)


def test_stateful_training():
    """Training sees the states of the batch before, as a loop in NumPy has them."""
    x, y = data(4, 3, 1), data(4, 1)
    model = gnomon.Sequential(
        [layers.Input(batch_shape=(2, 3, 1)), layers.SimpleRNN(1, activation=None, use_bias=False, stateful=True)]
    )
    model.compile(gnomon.optimizers.SGD(0.01), "mse")
    k, r = (float(w.item()) for w in model.get_weights())
    model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
    h = np.zeros((2, 1))
    for step in range(4):
        part, target = x[step % 2 * 2 :][:2].astype("float64"), y[step % 2 * 2 :][:2]
        dk, dr = np.zeros((2, 1)), np.zeros((2, 1))  # the state before the batch is a constant
        for t in range(3):
            h, dk, dr = k * part[:, t] + r * h, part[:, t] + r * dk, h + r * dr
        slope = 2 * (h - target) / 2
        k, r = k - 0.01 * float((slope * dk).sum()), r - 0.01 * float((slope * dr).sum())
    np.testing.assert_allclose([w.item() for w in model.get_weights()], [k, r], rtol=1e-5)
    np.testing.assert_allclose(model.layers[0].states[0].numpy(), h, rtol=1e-5)


def test_states_can_be_set():
    layer, x = layers.LSTM(2, stateful=True), data(2, 3, 1)
    layer(x)
    given = [data(2, 2, seed=k) for k in (1, 2)]
    layer.reset_state(given)
    found = layer(x)
    np.testing.assert_allclose(found, layer(x, initial_state=given), **CLOSE)
    with pytest.raises(ArgumentError, match="has 2 states, got 1"):
        layer.reset_state(given[:1])
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        layer.reset_state([a[:1] for a in given])
    with pytest.raises(StateError, match="without stateful=True"):
        layers.LSTM(2).reset_state()


def test_stateful_with_another_batch_size():
    symbol = layers.Input(batch_shape=(3, None, 2))
    layer = layers.GRU(2, stateful=True, name="memory")
    model = gnomon.Model(symbol, layer(symbol))
    model.compile("sgd", "mse")
    text = "layer 'memory' is stateful: it keeps the states of 3 sequences from call to call, so every batch has 3, got"
    runs = [
        lambda x: model.predict(x, verbose=0),
        lambda x: model.predict(x, batch_size=5, verbose=0),
        lambda x: model.fit(x, np.zeros((len(x), 2)), verbose=0),
        lambda x: model.train_on_batch(x, np.zeros((len(x), 2))),
        lambda x: layer(x),
    ]
    for run in runs:
        with pytest.raises((DataError, ShapeError), match=text):
            run(data(5, 4, 2))
    with pytest.raises(ShapeError, match=text):
        layer(layers.Input(batch_shape=(4, 5, 2)))
    model.fit(data(6, 4, 2), np.zeros((6, 2)), batch_size=3, verbose=0)
    with pytest.raises(ShapeError, match="the number of sequences in a batch must be known"):
        layers.LSTM(2, stateful=True)(layers.Input((3, 2)))


# ---- cells of one's own


class Accumulator:
    """No layer: sums its inputs, and gives the sum of their squares, which it does not keep."""

    state_size = 2

    def call(self, inputs, states):
        total = states[0] + inputs
        return (total**2).sum(axis=-1, keepdims=True), [total]

    output_size = 1


def test_cell_that_is_no_layer():
    x = data(2, 4, 2)
    sums = x.cumsum(1)
    expected = (sums**2).sum(-1, keepdims=True)
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 0]], bool)
    layer = layers.RNN(Accumulator(), return_sequences=True, return_state=True)
    output, state = layer(x)
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    np.testing.assert_allclose(state, sums[:, -1], rtol=1e-5)
    np.testing.assert_allclose(layers.RNN(Accumulator())(x), expected[:, -1], rtol=1e-5)
    masked = np.where(mask[..., None], x, 0).cumsum(1)
    expected = (masked**2).sum(-1, keepdims=True)
    symbol = layers.Input((None, 2))
    for options in ({}, {"unroll": True}):
        layer = layers.RNN(Accumulator(), return_sequences=True, **options)
        np.testing.assert_allclose(layer(x, mask=mask), expected, rtol=1e-5)
    last = layers.RNN(Accumulator())
    np.testing.assert_allclose(last(x, mask=mask), expected[:, -1], rtol=1e-5)
    np.testing.assert_allclose(gnomon.function([symbol], last(symbol, mask=mask))(x), expected[:, -1], rtol=1e-5)
    assert last.compute_output_shape((None, 5, 2)) == (None, 1)


@register_keras_serializable()
class Clockwork(layers.Layer):
    """Two states of different shapes, a count and a table; begins with ones."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [1, (2, units)]
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, 1)), ops.ones((batch_size, 2, self.units))]

    def call(self, inputs, states, training=False):
        count, table = states
        new = ops.stack([inputs @ self.kernel, table[:, 0] * count], axis=1)
        return new[:, 0] + new[:, 1], [count + 1, new]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_cell_with_states_of_several_shapes():
    layer = layers.RNN(Clockwork(3), return_state=True, return_sequences=True)
    x = data(2, 3, 4)
    output, count, table = layer(x)
    projected = x @ layer.get_weights()[0]
    np.testing.assert_allclose(output[:, 1], projected[:, 1] + 2 * projected[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(count, np.full((2, 1), 4))
    assert table.shape == (2, 2, 3)
    assert layer.compute_output_shape((None, 3, 4)) == ((None, 3, 3), (None, 1), (None, 2, 3))
    again = layers.RNN.from_config(layer.get_config())
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x)[0], output)


class Growing(layers.Layer):
    """A cell whose state becomes longer."""

    state_size = 2

    def call(self, inputs, states):
        new = ops.concatenate([states[0], inputs], axis=-1)
        return new, [new]


class Rounding(layers.Layer):
    """A cell whose state becomes an integer."""

    state_size = 2

    def call(self, inputs, states):
        return inputs, [ops.cast(states[0], "int32")]


class Forgetful(layers.Layer):
    state_size = [2, 2]

    def call(self, inputs, states):
        return inputs, [states[0]]


class Half(layers.Layer):
    state_size = 2

    def call(self, inputs, states):
        return inputs


class NoSize(layers.Layer):
    def call(self, inputs, states):
        return inputs, states


# ---- errors


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: layers.RNN(Growing(name="g"))(data(2, 3, 1)), ShapeError,
         r"keeps its shape .* makes float32\[2, 3\] of state 0, which is float32\[2, 2\]"),
        (lambda: layers.RNN(Growing())(layers.Input((3, 1))), ShapeError, r"makes float32\[batch, 3\] of state 0"),
        (lambda: layers.RNN(Growing(), unroll=True)(layers.Input((3, 1))), ShapeError, r"makes float32\[batch, 3\] of"),
        (lambda: layers.RNN(Rounding())(data(2, 3, 2)), DTypeError, r"makes int32\[2, 2\] of state 0"),
        (lambda: layers.RNN(Forgetful())(data(2, 3, 2)), ArgumentError, "has 2 states and returned 1 new ones"),
        (lambda: layers.RNN(Half())(data(2, 3, 2)), ArgumentError, r"returns \(output, new states\)"),
        (lambda: layers.RNN(NoSize()), ArgumentError, "should have a `state_size` attribute"),
        (lambda: layers.RNN("LSTMCell"), ArgumentError, "should have a `call` method"),
        (lambda: layers.RNN([]), ArgumentError, "at least one cell"),
        (lambda: layers.StackedRNNCells([3]), ArgumentError, "All cells must have `call`"),
        (lambda: layers.LSTM(0), ArgumentError, "argument `units`, expected a positive integer, got 0"),
        (lambda: layers.GRU(2.5), ArgumentError, "expected a positive integer, got 2.5"),
        (lambda: layers.LSTM(2, activation="tan"), GnomonError, "tan"),
        (lambda: layers.LSTM(2, recurent_dropout=0.1), ArgumentError, "recurrent_dropout"),
        (lambda: layers.LSTM(2, use_cudnn="yes"), ArgumentError, "use_cudnn"),
        (lambda: layers.LSTM(2)(data(2, 3)), ShapeError, "expected ndim=3, found ndim=2"),
        (lambda: layers.RNN(layers.LSTMCell(2))(data(2, 3)), ShapeError, "min_ndim=3"),
        (lambda: layers.LSTM(2)(data(2, 0, 3)), ShapeError, "sequences of at least one step"),
        (lambda: layers.LSTM(2)(layers.Input((0, 3))), ShapeError, "sequences of at least one step"),
        (lambda: layers.LSTM(2, unroll=True)(layers.Input((None, 3))), ShapeError, "cannot unroll sequences whose"),
        (lambda: layers.LSTM(2)(data(2, 4, 3), mask=np.ones((2, 5), bool)), ShapeError,
         r"mask of layer 'lstm.*must be bool\[2, 4\], got bool\[2, 5\]"),
        (lambda: layers.GRU(2)(data(2, 4, 3), mask=np.ones(4, bool)), ShapeError, r"must be bool\[2, 4\]"),
        (lambda: layers.GRU(2)(layers.Input((4, 3)), mask=layers.Input((3,), dtype="bool")), ShapeError,
         r"must be bool\[batch, 4\], got"),
        (lambda: layers.LSTM(2)(data(2, 4, 3), initial_state=[data(2, 2)]), ArgumentError,
         r"has the states float32\[2, 2\], float32\[2, 2\], got float32\[2, 2\] as initial_state"),
        (lambda: layers.LSTM(2)(data(2, 4, 3), initial_state=[data(2, 3), data(2, 3)]), ShapeError,
         r"must be float32\[2, 2\], got float32\[2, 3\] as initial_state"),
        (lambda: layers.Bidirectional(layers.GRU(2))(data(2, 4, 3), initial_state=[data(2, 2)]), ArgumentError,
         "as many of the backward layer; got 1"),
        (lambda: layers.Bidirectional(layers.Dense(2)), ArgumentError, "has no attribute 'go_backwards'"),
        (lambda: layers.Bidirectional(layers.LSTMCell), ArgumentError, "is a recurrent layer"),
        (lambda: layers.Bidirectional(layers.LSTM(2), "max"), ArgumentError, "Invalid merge mode. Received: max"),
        (lambda: layers.Bidirectional(layers.LSTM(2), backward_layer=layers.LSTM(2)), ArgumentError,
         "different `go_backwards` value"),
        (lambda: layers.Bidirectional(
            layers.LSTM(2), backward_layer=layers.LSTM(2, go_backwards=True, return_sequences=True)), ArgumentError,
         "same value for attribute 'return_sequences', got False for forward layer and True"),
        (lambda: layers.Bidirectional(layers.LSTM(2)).reset_state(), StateError, "keeps no state"),
        (lambda: layers.TimeDistributed(3), ArgumentError, "supported layer type"),
        (lambda: layers.TimeDistributed(layers.Dense(2))(data(2, 3)), ShapeError, "at least 3 dimensions"),
        (lambda: layers.TimeDistributed(layers.Dense(2))(data(2, 3, 4), mask=np.ones((2, 4), bool)), ShapeError,
         r"mask of layer 'time_distributed.*must be bool\[2, 3\], got bool\[2, 4\]"),
    ],
)  # fmt: skip
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_sequences_of_no_steps_where_the_length_is_open():
    x = layers.Input((None, 2))
    model = gnomon.Model(x, layers.LSTM(3, name="reader")(x))
    model.compile("sgd", "mse")
    function = gnomon.function([x], model(x))
    empty, y = np.zeros((2, 0, 2), "float32"), np.zeros((2, 3))
    runs = [lambda: model.predict(empty, verbose=0), lambda: model.fit(empty, y, verbose=0), lambda: function(empty)]
    for run in runs:
        with pytest.raises(DataError, match="layer 'reader' goes through sequences of at least one step"):
            run()


MASKED = {
    "lstm": lambda x, mask: layers.LSTM(3, name="reader")(x, mask=mask),
    "both ways": lambda x, mask: layers.Bidirectional(layers.GRU(3, name="reader"))(x, mask=mask),
    "mean": lambda x, mask: layers.GlobalAveragePooling1D(name="reader")(x, mask=mask),
    "attention": lambda x, mask: layers.Attention(name="reader")([x, x], mask=[mask, mask]),
    "keys": lambda x, mask: layers.MultiHeadAttention(2, 2, name="reader")(x, x, key_mask=mask),
    "pairs": lambda x, mask: layers.MultiHeadAttention(2, 2, name="reader")(x, x, attention_mask=mask[:, None]),
}


@pytest.mark.parametrize("name", MASKED)
def test_mask_of_another_length_where_it_is_open(name):
    """The layer and both shapes are named before the program runs."""
    x, mask = layers.Input((None, 2)), layers.Input((None,), dtype="bool")
    model = gnomon.Model([x, mask], layers.Dense(1)(MASKED[name](x, mask)))
    model.compile("sgd", "mse")
    right, wrong = ([data(2, 3, 2), np.ones((2, n), bool)] for n in (3, 4))
    y = np.zeros_like(model.predict(right, verbose=0))
    function = gnomon.function([x, mask], model([x, mask]))
    pattern = r"mask of layer '(.*_)?reader'.*must be bool\[2, (1, )?3\], got bool\[2, (1, )?4\]"
    runs = [lambda: function(*wrong), lambda: model.predict(wrong, verbose=0), lambda: model.fit(wrong, y, verbose=0)]
    for run in runs:
        with pytest.raises(DataError, match=pattern):
            run()


# ---- both ways


def test_bidirectional_takes_weights():
    layer, x = layers.Bidirectional(layers.LSTM(2, return_sequences=True)), data(2, 3, 2)
    expected = layer(x)
    again = layers.Bidirectional(layers.LSTM(2, return_sequences=True), weights=layer.get_weights())
    np.testing.assert_array_equal(again(x), expected)


def test_bidirectional_of_unregistered_cells():
    class Own(layers.Layer):
        state_size = 2

        def build(self, input_shape):
            self.kernel = self.add_weight((input_shape[-1], 2), name="kernel")

        def call(self, inputs, states):
            new = states[0] * 0.5 + inputs @ self.kernel
            return new, [new]

    layer = layers.Bidirectional(layers.RNN(Own(), return_sequences=True), merge_mode=None)
    x = data(2, 3, 4)
    forward, backward = layer(x)
    a, b = layer.get_weights()
    np.testing.assert_allclose(forward[:, 0], x[:, 0] @ a, **CLOSE)
    np.testing.assert_allclose(backward[:, -1], x[:, -1] @ b, **CLOSE)
    assert (a != b).any()


def test_bidirectional_passes_masks():
    x = layers.Masking()(layers.Input((None, 2)))
    sequences = layers.Bidirectional(layers.GRU(2, return_sequences=True))(x)
    assert sequences.mask is not None
    assert all(t.mask is not None for t in layers.Bidirectional(layers.GRU(2, return_sequences=True), None)(x))
    assert layers.Bidirectional(layers.GRU(2))(x).mask is None
    output, *states = layers.Bidirectional(layers.GRU(2, return_sequences=True, return_state=True))(x)
    assert output.mask is not None
    assert all(s.mask is None for s in states)


def test_bidirectional_keeps_states():
    layer, x = layers.Bidirectional(layers.LSTM(2, stateful=True)), data(2, 3, 2)
    assert layer.states is None
    a = layer(x)
    assert len(layer.states) == 4
    assert (layer(x) != a).any()
    layer.reset_state()
    np.testing.assert_array_equal(layer(x), a)


# ---- a layer on each step


def test_time_distributed_layers():
    dense = layers.Dense(2, activation="tanh", dtype="float64")
    check_layer(layers.TimeDistributed, (3, 2), layer=dense, dtype="float64")


def test_time_distributed_is_one_product():
    x = layers.Input((None, 3))
    text = gnomon.function([x], layers.TimeDistributed(layers.Dense(4))(x)).show("simplified")
    assert text.count("Contract(") == 1
    assert "Scan" not in text


def test_time_distributed_recurrence_takes_masks_of_its_own():
    """Sentences of words: the mask of words goes in, a mask of sentences does not exist."""
    ids = np.array([[[1, 2, 0], [3, 0, 0]], [[2, 2, 2], [1, 0, 0]]], "int32")
    x = layers.Input((2, 3), dtype="int32")
    words = layers.Embedding(5, 4, mask_zero=True)(x)
    inner = layers.LSTM(3)
    outer = layers.TimeDistributed(inner)
    function = gnomon.function([x], [outer(words), words])
    found, vectors = function(ids)
    for b in range(2):
        for t in range(2):
            n = int((ids[b, t] != 0).sum())
            np.testing.assert_allclose(found[b, t], inner(vectors[b : b + 1, t, :n])[0], **CLOSE)


def test_time_distributed_normalization_goes_step_by_step():
    """Its averages move at each step, with the mean of that step alone."""
    layer = layers.TimeDistributed(layers.BatchNormalization(momentum=0.5))
    x = data(6, 3, 2) + np.arange(3, dtype="float32")[:, None]
    output = layer(x, training=True)
    mean = np.zeros(2)
    for t in range(3):
        mean = 0.5 * mean + 0.5 * x[:, t].mean(0)
        normal = (x[:, t] - x[:, t].mean(0)) / np.sqrt(x[:, t].var(0) + 1e-3)
        np.testing.assert_allclose(output[:, t], normal, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.layer.moving_mean.numpy(), mean, rtol=1e-5)
    symbol = layers.Input((None, 2))
    assert gnomon.function([symbol], layer(symbol))(x).shape == (6, 3, 2)


# ---- files


@pytest.mark.parametrize("name", ["lstm", "bidirectional"])
def test_files_of_keras(name, tmp_path):
    """Models that Keras saved predict, evaluate and go on as there, and are saved and read again."""
    case = load("recurrent")["files"][name]
    folder = FOLDER / "saving"
    model = gnomon.models.load_model(folder / f"{name}.keras")
    assert [w.name for w in model.weights] == [path.split("/")[-1] for path in case["weight paths"]]
    for a, b in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(model.predict(case["inputs"], verbose=0), case["predict"], **CLOSE)
    np.testing.assert_allclose(model.evaluate(case["inputs"], case["y"], verbose=0), case["evaluate"], rtol=1e-5)
    fresh = gnomon.models.model_from_json(model.to_json())
    fresh.load_weights(folder / f"{name}.weights.h5")
    np.testing.assert_allclose(fresh.predict(case["inputs"], verbose=0), case["predict"], **CLOSE)
    model.fit(case["inputs"], case["y"], verbose=0)
    model.save(tmp_path / "again.keras")
    again = gnomon.models.load_model(tmp_path / "again.keras")
    expected = model.predict(case["inputs"], verbose=0)
    np.testing.assert_array_equal(again.predict(case["inputs"], verbose=0), expected)
    model.save_weights(tmp_path / "again.weights.h5")
    fresh.load_weights(tmp_path / "again.weights.h5")
    np.testing.assert_array_equal(fresh.predict(case["inputs"], verbose=0), expected)


def test_files_of_everything(tmp_path):
    """All kinds of recurrent layers, stateful and with a cell of one's own, come back from a file."""
    symbol = layers.Input(batch_shape=(2, 3, 4, 4, 1))
    x = layers.ConvLSTM2D(2, 2, return_sequences=True, dropout=0.1)(symbol)
    x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True, stateful=True))(layers.Masking()(x))
    x = layers.RNN([Clockwork(2), layers.LSTMCell(3), layers.SimpleRNNCell(2)], return_sequences=True)(x)
    model = gnomon.Model(symbol, layers.SimpleRNN(2)(x))
    model.save(tmp_path / "all.keras")
    again = gnomon.models.load_model(tmp_path / "all.keras")
    given = data(2, 3, 4, 4, 1)
    np.testing.assert_array_equal(again.predict(given, verbose=0), model.predict(given, verbose=0))
    assert again.to_json() == model.to_json()
