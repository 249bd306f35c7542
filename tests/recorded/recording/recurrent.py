# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""Embedding, masks on their way through models, recurrent layers and their wrappers: outputs, states, gradients.

States that Keras on JAX loses in compiled programs are not here: those of stateful layers in `fit` and `predict`.
"""

from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from keras import layers

from .snippets import train
from .store import FOLDER, plain, random_of

CASES: dict[str, dict[str, Any]] = {}
MODELS: dict[str, dict[str, Any]] = {}
LENGTHS = np.array([4, 1, 0, 5])  # of the ragged sequences below, of 5 steps
GAPS = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]], bool)


def record() -> dict[str, Any]:
    CASES.clear()
    MODELS.clear()
    for part in (_embedding, _simple, _lstm, _gru, _cells, _stacked, _bidirectional, _distributed, _convolutional):
        part()
    _models()
    return {"cases": CASES, "models": MODELS, "files": _files()}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def add(name: str, code: str, inputs: Any, state: Any = None, mask: Any = None) -> None:
    """Record the layer that `code` makes, called on an array, perhaps with an initial state (a list) and a mask.

    Each weight is normal, drawn by its place, name and shape; all outputs go into the cost, with weights of their own.
    """
    assert name not in CASES, name
    keras.utils.clear_session()
    made = eval(code, {"layers": layers, "keras": keras})
    stateful = getattr(made, "stateful", False)
    shape = {"batch_shape": inputs.shape} if stateful else {"shape": inputs.shape[1:]}
    symbolic = made(keras.Input(**shape, dtype=inputs.dtype.name))
    weights = [0.5 * normal(f"{k} {v.name} {tuple(v.shape)}", *v.shape) for k, v in enumerate(made.trainable_weights)]
    for variable, value in zip(made.trainable_weights, weights, strict=True):
        variable.assign(value)
    more: dict[str, Any] = {} if mask is None else {"mask": mask}

    def call(x: Any, state: Any) -> list[Any]:
        extra = more if state is None else {**more, "initial_state": state}
        return jax.tree.leaves(made(x, **extra))

    outputs = [np.asarray(a) for a in call(inputs, state)]
    if stateful:
        made.reset_state()
    factors = [normal(f"factor {k} {a.shape}", *a.shape) for k, a in enumerate(outputs)]

    def total(trainable: list[Any], x: Any, state: Any) -> Any:
        extra = more if state is None else {**more, "initial_state": state}
        found, _ = made.stateless_call(trainable, [v.value for v in made.non_trainable_variables], x, **extra)
        return sum((a * f).sum() for a, f in zip(jax.tree.leaves(found), factors, strict=True))

    values = [v.value for v in made.trainable_variables]
    wrt = (0,) if inputs.dtype.kind == "i" else (0, 1) if state is None else (0, 1, 2)
    of_weights, *others = jax.grad(total, argnums=wrt)(values, inputs, state)
    case = {
        "code": code, "inputs": inputs, "weights": weights, "outputs": outputs, "factors": factors,
        "weight gradients": [np.asarray(g) for g in of_weights],
        "other gradients": [np.asarray(g) for g in jax.tree.leaves(others)],
        "symbolic": [list(t.shape) for t in jax.tree.leaves(symbolic)],
        "weight paths": [v.path for v in made.weights], "parameters": made.count_params(),
        "build config": plain(made.get_build_config()),
        "computed shape": plain(made.compute_output_shape((None, *inputs.shape[1:]))),
    }  # fmt: skip
    if "," not in name or "everything" in name or "kinds" in name:
        case["config"] = plain(made.get_config())
    if mask is not None:
        case["mask"] = mask
    if state is not None:
        case["state"] = state
    if stateful:  # the same call again goes on from the state that the first left
        made.reset_state()
        case["calls"] = [[np.asarray(a) for a in call(inputs, state)] for _ in range(2)]
    CASES[name] = case


def _embedding() -> None:
    ids = random_of("ids").integers(0, 6, (4, 5)).astype("int32")
    add("Embedding", "layers.Embedding(6, 3)", ids)
    add("Embedding of numbers", "layers.Embedding(6, 3, mask_zero=True)", ids[:, 0])
    add("Embedding of tables", "layers.Embedding(6, 1)", np.stack([ids, ids[::-1]], 1))
    add("Embedding, everything", "layers.Embedding(6, 3, 'glorot_normal', 'l2', 'max_norm', True, name='words')", ids)


TABLES = normal("tables", 2, 3, 4, 2)
SEQUENCES = normal("sequences", 4, 5, 3)
RAGGED = np.arange(5) < LENGTHS[:, None]


def _every(kind: str, units: int, states: int) -> None:
    """What all recurrent layers have, for one kind."""
    x, s = SEQUENCES, [normal(f"state {k} {units}", 4, units) for k in range(states)]
    make = f"layers.{kind}({units}"
    add(kind, f"{make})", x)
    add(f"{kind}, one row, one step, one feature", f"layers.{kind}(1)", x[:1, :1, :1])
    add(f"{kind}, sequences and state", f"{make}, return_sequences=True, return_state=True)", x)
    add(f"{kind}, from a state", f"{make}, return_state=True)", x, s)
    add(f"{kind}, backwards", f"{make}, go_backwards=True, return_sequences=True, return_state=True)", x, s)
    add(f"{kind}, unrolled", f"{make}, unroll=True, return_sequences=True)", x)
    add(f"{kind}, no bias", f"{make}, use_bias=False, return_sequences=True)", x)
    add(f"{kind}, linear", f"{make}, activation=None)", x)
    add(f"{kind}, ragged", f"{make}, return_sequences=True, return_state=True)", x, mask=RAGGED)
    add(f"{kind}, ragged, last", f"{make})", x, mask=RAGGED)
    add(f"{kind}, gaps", f"{make}, return_sequences=True)", x, s, GAPS)
    add(f"{kind}, gaps, backwards", f"{make}, return_sequences=True, return_state=True, go_backwards=True)", x,
        mask=GAPS)  # fmt: skip
    add(f"{kind}, gaps, zeros", f"{make}, return_sequences=True, zero_output_for_mask=True)", x, mask=GAPS)
    add(f"{kind}, gaps, zeros, last", f"{make}, zero_output_for_mask=True)", x, mask=GAPS)
    add(f"{kind}, gaps, unrolled", f"{make}, return_sequences=True, return_state=True, unroll=True)", x, mask=GAPS)
    add(f"{kind}, stateful", f"{make}, stateful=True, return_sequences=True)", x)
    add(f"{kind}, everything", f"{make}, activation='elu', kernel_initializer='he_normal', "
        "recurrent_initializer='glorot_normal', bias_initializer='ones', kernel_regularizer='l2', "
        "recurrent_regularizer='l1', bias_regularizer='l2', activity_regularizer='l1', kernel_constraint='max_norm', "
        "recurrent_constraint='non_neg', bias_constraint='unit_norm', dropout=0.2, recurrent_dropout=0.3, seed=7, "
        "name='every')", x)  # fmt: skip


def _simple() -> None:
    _every("SimpleRNN", 3, 1)


def _lstm() -> None:
    _every("LSTM", 3, 2)
    add("LSTM, other gates", "layers.LSTM(3, recurrent_activation='hard_sigmoid', unit_forget_bias=False)", SEQUENCES)


def _gru() -> None:
    _every("GRU", 3, 1)
    add("GRU, reset before", "layers.GRU(3, reset_after=False, return_sequences=True)", SEQUENCES)
    add("GRU, reset before, no bias", "layers.GRU(3, reset_after=False, use_bias=False)", SEQUENCES)
    add("GRU, reset before, gaps", "layers.GRU(3, reset_after=False, return_state=True)", SEQUENCES, mask=GAPS)


def _cells() -> None:
    for cell in ("SimpleRNNCell(3)", "LSTMCell(2)", "GRUCell(3)", "GRUCell(3, reset_after=False)"):
        add(f"RNN of {cell}", f"layers.RNN(layers.{cell}, return_sequences=True, return_state=True)", SEQUENCES)


def _stacked() -> None:
    cells = "[layers.LSTMCell(3), layers.GRUCell(2), layers.SimpleRNNCell(4)]"
    add("RNN of cells", f"layers.RNN({cells}, return_sequences=True)", SEQUENCES)
    add("RNN of StackedRNNCells", f"layers.RNN(layers.StackedRNNCells({cells}), return_state=True)", SEQUENCES)
    add("RNN of two LSTM cells, gaps", "layers.RNN([layers.LSTMCell(3), layers.LSTMCell(2)], return_sequences=True)",
        SEQUENCES, mask=GAPS)  # fmt: skip


def _bidirectional() -> None:
    x = SEQUENCES
    for mode in ("concat", "sum", "mul", "ave", None):
        add(f"Bidirectional, {mode}", f"layers.Bidirectional(layers.GRU(3, return_sequences=True), {mode!r})", x)
        add(f"Bidirectional, {mode}, last", f"layers.Bidirectional(layers.LSTM(2), {mode!r})", x)
    add("Bidirectional, state", "layers.Bidirectional(layers.LSTM(2, return_state=True))", x)
    add("Bidirectional, from a state", "layers.Bidirectional(layers.GRU(2, return_state=True), None)", x,
        [normal("forward state", 4, 2), normal("backward state", 4, 2)])  # fmt: skip
    add("Bidirectional, ragged", "layers.Bidirectional(layers.LSTM(2, return_sequences=True))", x, mask=RAGGED)
    add("Bidirectional, gaps, last", "layers.Bidirectional(layers.GRU(2))", x, mask=GAPS)
    add("Bidirectional, stateful", "layers.Bidirectional(layers.GRU(2, stateful=True))", x)
    add("Bidirectional, two kinds", "layers.Bidirectional(layers.LSTM(2, name='a'), name='both', merge_mode='sum', "
        "backward_layer=layers.SimpleRNN(2, go_backwards=True, name='b'))", x)  # fmt: skip
    add("Bidirectional RNN", "layers.Bidirectional(layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]))", x)


def _distributed() -> None:
    add("TimeDistributed", "layers.TimeDistributed(layers.Dense(2, activation='tanh'))", SEQUENCES)
    add("TimeDistributed of pictures", "layers.TimeDistributed(layers.Flatten())", normal("pictures", 2, 3, 2, 2))
    add("TimeDistributed recurrence", "layers.TimeDistributed(layers.GRU(2), name='each')", TABLES)


def _convolutional() -> None:
    x1, x2, x3 = normal("video 1", 2, 3, 5, 2), normal("video 2", 2, 3, 4, 5, 2), normal("video 3", 1, 2, 3, 4, 3, 1)
    add("ConvLSTM1D", "layers.ConvLSTM1D(2, 3)", x1)
    add("ConvLSTM1D, sequences", "layers.ConvLSTM1D(2, 2, strides=2, padding='same', return_sequences=True, "
        "return_state=True)", x1)  # fmt: skip
    add("ConvLSTM1D, channels_first", "layers.ConvLSTM1D(2, 2, data_format='channels_first', return_sequences=True)",
        normal("video 1 first", 2, 3, 2, 5))  # fmt: skip
    add("ConvLSTM2D", "layers.ConvLSTM2D(3, (2, 3), padding='same', return_sequences=True)", x2)
    add("ConvLSTM2D, from a state", "layers.ConvLSTM2D(2, (1, 2), return_state=True)", x2,
        [normal(f"video state {k}", 2, 4, 4, 2) for k in range(2)])  # fmt: skip
    add("ConvLSTM2D, dilated, no bias", "layers.ConvLSTM2D(2, 2, dilation_rate=2, use_bias=False, go_backwards=True, "
        "activation='relu')", x2)  # fmt: skip
    add("ConvLSTM2D, everything", "layers.ConvLSTM2D(2, 2, recurrent_activation='hard_sigmoid', "
        "kernel_initializer='he_normal', bias_initializer='ones', unit_forget_bias=False, kernel_regularizer='l2', "
        "recurrent_regularizer='l1', bias_regularizer='l2', activity_regularizer='l1', kernel_constraint='max_norm', "
        "dropout=0.2, recurrent_dropout=0.3, seed=7, name='video')", x2)  # fmt: skip
    add("ConvLSTM3D", "layers.ConvLSTM3D(1, 2, return_sequences=True)", x3)
    add("Bidirectional ConvLSTM1D", "layers.Bidirectional(layers.ConvLSTM1D(1, 2))", x1)


def model(name: str, build: str, run: str, **given: Any) -> None:
    MODELS[name] = train(name, build, run, **given)


def _models() -> None:
    """How masks go through models, and count in losses and metrics; recurrent models in training."""
    ids = random_of("token ids").integers(1, 8, (10, 6)).astype("int32")
    for row, length in zip(ids, random_of("lengths").integers(0, 7, 10), strict=True):
        row[length:] = 0
    steps = normal("step targets", 10, 6, 2)
    classes = random_of("step classes").integers(0, 3, (10, 6)).astype("int32")
    binary = (normal("binary", 10, 1) > 0).astype("float32")
    weight = random_of("step weights").uniform(0, 2, (10, 6)).astype("float32")
    run = """
    result["evaluate"] = model.evaluate(ids, y, batch_size=4, verbose=0)
    history = model.fit(ids, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict(ids, verbose=0)
    """
    model("loss of steps", """
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(8, 3, mask_zero=True),
                              layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], weighted_metrics=["mse"])
    """, run, ids=ids, y=steps)  # fmt: skip
    model("classes of steps", """
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(8, 3, mask_zero=True),
                              layers.LSTM(4, return_sequences=True), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    """, run, ids=ids, y=classes)  # fmt: skip
    model("weights of steps", """
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(8, 3, mask_zero=True),
                              layers.Bidirectional(layers.GRU(2, return_sequences=True)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", weighted_metrics=["mae"])
    """, run.replace("y, ", "y, sample_weight=weight, "), ids=ids, y=steps, weight=weight)  # fmt: skip
    model("last state", """
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(8, 3, mask_zero=True),
                              layers.LSTM(4, return_sequences=True), layers.Dropout(0.5), layers.LSTM(3),
                              layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    """, """
    result["evaluate"] = model.evaluate(ids, y, batch_size=4, verbose=0)
    result["predict"] = model.predict(ids, verbose=0)
    """, ids=ids, y=binary)  # fmt: skip
    model("masked features", """
    a = keras.Input((6, 3))
    b = layers.Masking(1.5)(a)
    c = layers.GRU(2, return_sequences=True)(b)
    d = layers.TimeDistributed(layers.Dense(2))(layers.Concatenate()([b, c]))
    model = keras.Model(a, [d, layers.SimpleRNN(2)(c)])
    model.compile(keras.optimizers.SGD(0.1), ["mse", "mae"])
    """, """
    result["evaluate"] = model.evaluate(x, [y, z], batch_size=4, verbose=0)
    history = model.fit(x, [y, z], batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict(x, verbose=0)
    """, x=_with_gaps(), y=steps, z=steps[:, 0])  # fmt: skip
    model("shared embedding, two inputs", """
    a, b = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    words = layers.Embedding(8, 3, mask_zero=True)
    read = layers.LSTM(3)
    model = keras.Model([a, b], layers.Dense(1)(layers.Multiply()([read(words(a)), read(words(b))])))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    """, """
    history = model.fit([ids, ids[::-1, :4]], y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict([ids, ids[::-1, :4]], verbose=0)
    """, ids=ids, y=binary)  # fmt: skip
    model("encoder and decoder", """
    a, b = keras.Input((None,), dtype="int32"), keras.Input((None, 2))
    _, *state = layers.LSTM(3, return_state=True)(layers.Embedding(8, 3, mask_zero=True)(a))
    c = layers.LSTM(3, return_sequences=True)(layers.Masking()(b), initial_state=state)
    model = keras.Model([a, b], layers.Dense(2)(c))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    """, """
    history = model.fit([ids, before], y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict([ids, before], verbose=0)
    """, ids=ids, y=steps, before=_shifted(steps))  # fmt: skip
    model("nested model, explicit mask", """
    a = keras.Input((None,), dtype="int32")
    words = layers.Embedding(8, 3, mask_zero=True)
    inner_input = keras.Input((None, 3))
    inner = keras.Model(inner_input, layers.GRU(2, return_sequences=True)(inner_input))
    b = inner(words(a))
    c = layers.LSTM(2)(layers.Dense(2)(words(a)), mask=words.compute_mask(a))
    model = keras.Model(a, [b, c])
    model.compile(keras.optimizers.SGD(0.1), ["mse", "mse"])
    """, """
    history = model.fit(ids, [y, y[:, 0]], batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict(ids, verbose=0)
    """, ids=ids, y=steps)  # fmt: skip
    model("custom cell", """
    class Leaky(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
            self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")
        def call(self, inputs, states):
            old = states[0]
            new = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + keras.ops.matmul(old, self.recurrent))
            return new, [0.5 * old + 0.5 * new]
    model = keras.Sequential([keras.Input((6, 2)), layers.RNN([Leaky(3), Leaky(2)], return_sequences=True)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    """, """
    history = model.fit(y, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    result["predict"] = model.predict(y, verbose=0)
    """, y=steps)  # fmt: skip


def _with_gaps() -> np.ndarray:
    x = normal("masked features", 10, 6, 3)
    x[random_of("gaps").random((10, 6)) < 0.4] = 1.5
    return x


def _shifted(steps: np.ndarray) -> np.ndarray:
    """What a decoder gets: the steps one later, some of them 0."""
    before = np.zeros_like(steps)
    before[:, 1:] = steps[:, :-1]
    before[::2, 3:5] = 0
    return before


def _files() -> dict[str, Any]:
    """Models that Keras wrote, with what they predict."""
    found = {}
    ids = random_of("file ids").integers(0, 9, (5, 7)).astype("int32")
    made = {
        "lstm": keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True),
                                  layers.LSTM(3), layers.Dense(1, activation="sigmoid")], name="lstm"),
        "bidirectional": keras.Sequential([
            keras.Input((None,), dtype="int32"), layers.Embedding(9, 4),
            layers.Bidirectional(layers.GRU(3, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(2))], name="both"),
    }  # fmt: skip
    for name, model in made.items():
        model.set_weights([
            0.5 * normal(f"{name} {k} {w.shape}", *w.shape) for k, w in enumerate(model.get_weights())
        ])  # fmt: skip
        model.compile("adam", "mse")
        y = normal(f"{name} y", *model.compute_output_shape(ids.shape))
        model.fit(ids, y, epochs=1, verbose=0)
        folder: Path = FOLDER / "saving"
        model.save(folder / f"{name}.keras")
        model.save_weights(folder / f"{name}.weights.h5")
        found[name] = {
            "inputs": ids, "predict": model.predict(ids, verbose=0), "weights": model.get_weights(), "y": y,
            "weight paths": [w.path for w in model.weights], "evaluate": model.evaluate(ids, y, verbose=0),
        }  # fmt: skip
    return found
