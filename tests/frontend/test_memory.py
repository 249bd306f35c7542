"""`model.memory()` against what the process is measured to take, and what it is made of."""

import ctypes
import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError, StateError


def _mlp():
    hidden = [layers.Dense(256, activation="relu") for _ in range(6)]
    return gnomon.Sequential([layers.Input((256,)), *hidden, layers.Dense(10)])


def _convnet():
    hidden = [layers.Conv2D(16, 3, padding="same", activation="relu") for _ in range(4)]
    return gnomon.Sequential([layers.Input((32, 32, 3)), *hidden, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def _recurrent():
    hidden = [layers.LSTM(64, return_sequences=True), layers.LSTM(64)]
    return gnomon.Sequential([layers.Input((50, 32)), *hidden, layers.Dense(10)])


def _wide():
    return gnomon.Sequential([layers.Input((2048,)), layers.Dense(2048, activation="relu"), layers.Dense(10)])


def _compiled(make):
    model = make()
    model.compile("adam", gnomon.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def _can_measure():
    """Whether the system tells what was resident at most since a moment that we choose."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") > 0 and hasattr(ctypes.CDLL(None), "malloc_trim")
    except (OSError, StopIteration):
        return False


def _resident():
    """Bytes of this process in memory, when what it has freed is given back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def _run(model, mode, x, y):
    if mode == "train":
        return model.train_on_batch(x, y)
    return model.test_on_batch(x, y) if mode == "evaluate" else model.predict_on_batch(x)


measured = pytest.mark.skipif(not sys.platform.startswith("linux") or not _can_measure(), reason="cannot be measured")


@measured
@pytest.mark.parametrize(
    ("make", "shape", "batch", "mode"),
    [
        (_mlp, (256,), 8192, "train"),
        (_wide, (2048,), 64, "train"),
        (_convnet, (32, 32, 3), 160, "train"),
        (_recurrent, (50, 32), 512, "train"),
        (_mlp, (256,), 32768, "predict"),
        (_convnet, (32, 32, 3), 768, "evaluate"),
    ],
)
def test_prediction_is_within_five_percent_of_what_is_measured(make, shape, batch, mode):
    small = np.zeros((2, *shape), "float32"), np.zeros(2, "int32")
    _run(_compiled(make), mode, *small)  # what is made once, code and tables of the compiler, is there from now on
    before = _resident()
    model = _compiled(make)
    predicted = model.memory(batch, mode=mode)
    x, y = np.full((batch, *shape), 0.1, "float32"), np.zeros(batch, "int32")
    _resident()  # not what initializers took meanwhile
    Path("/proc/self/clear_refs").write_text("5")
    result = _run(model, mode, x, y)
    found = _status("VmHWM") - before
    assert predicted.total == pytest.approx(found, rel=0.05), (predicted, result)


def test_it_is_known_before_the_first_step_and_changes_nothing():
    model = _compiled(_mlp)
    weights = [v.numpy() for v in model.weights]
    found = model.memory(64)
    assert model.optimizer.iterations.numpy() == 0
    for v, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(v.numpy(), before)
    assert found.weights == sum(4 * v.numpy().size for v in model.weights)
    assert found.optimizer == pytest.approx(2 * found.weights, rel=1e-3)  # two moments of Adam
    assert found.data == 64 * (256 * 4 + 4 + 8)
    assert found.total == sum(found.parts.values())


def test_more_rows_take_more():
    model = _compiled(_convnet)
    small, large = model.memory(8), model.memory(64)
    assert small.temporaries < large.temporaries < 9 * small.temporaries
    assert small.weights == large.weights
    whole = model.memory(8, samples=1000)
    assert whole.temporaries == small.temporaries
    assert whole.data == 1000 * (32 * 32 * 3 * 4 + 4 + 8)


def test_prediction_takes_less_than_training():
    model = _compiled(_mlp)
    training, testing, predicting = (model.memory(256, mode=m) for m in ("train", "evaluate", "predict"))
    assert predicting.temporaries <= testing.temporaries < training.temporaries
    assert model.memory(256, training=False).parts == predicting.parts
    assert predicting.data == 256 * 256 * 4
    assert predicting.outputs == 256 * 10 * 4
    # many batches in one call, and their outputs once more as one array
    many = model.memory(256, training=False, samples=100_000)
    assert many.temporaries > predicting.temporaries
    assert 100_000 * 40 < many.outputs < 2 * 100_000 * 40


def test_axes_that_are_open_are_asked_for():
    model = gnomon.Sequential([layers.Input((None, 8)), layers.LSTM(8), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match="depends on input_layer") as error:
        model.memory(16)
    name = str(error.value).split("depends on ")[1].split(":")[0]
    assert model.memory(16, **{name: 100}).temporaries > model.memory(16, **{name: 10}).temporaries


def test_a_model_of_unknown_inputs_needs_an_example():
    class Net(gnomon.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model.compile("sgd", "mse")
    with pytest.raises(StateError, match="is not known"):
        model.memory(32)
    x, y = np.zeros((3, 8), "float32"), np.zeros((3, 4), "float32")
    found = model.memory(32, x=x, y=y)
    assert found.data == 32 * (8 * 4 + 4 * 4 + 8)
    assert model.memory(32, training=False, x=x).data == 32 * 8 * 4


def test_labels_of_another_dtype():
    model = _compiled(_mlp)
    x, y = np.zeros((4, 256), "uint8"), np.zeros(4, "uint8")
    assert model.memory(10, x=x, y=y).data == 10 * (256 + 1 + 8)


def test_mistakes_are_told():
    model = _mlp()
    with pytest.raises(StateError, match="compile"):
        model.memory(32)
    assert model.memory(32, training=False).optimizer == 0
    model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match="batch_size must be a positive integer"):
        model.memory(0)
    with pytest.raises(ArgumentError, match="mode must be 'train', 'evaluate' or 'predict', got 'trains'"):
        model.memory(32, mode="trains")
    with pytest.raises(ArgumentError, match="has no size 'length'"):
        model.memory(32, length=3)


def test_it_prints_as_a_table():
    text = repr(_compiled(_mlp).memory(32))
    assert text.startswith("memory of a training step of 'sequential")
    assert "bytes  temporaries" in text
    assert text.splitlines()[-1].endswith("bytes  total")


# ---- what stays


def _small(units=16):
    model = gnomon.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )
    model.compile("adam", gnomon.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def _rows(n):
    random = np.random.default_rng(0)
    return random.random((n, 8, 8, 1), np.float32), random.integers(0, 3, n)


@measured
def test_memory_is_flat_over_training_steps():
    model, (x, y) = _small(), _rows(32)
    for k in range(1200):
        if k == 200:
            before = _resident()
        rows = 8 + k // 50 % 24  # other sizes of batches now and then
        model.train_on_batch(x[:rows], y[:rows])
    assert _resident() - before < 1 << 20


@measured
def test_memory_is_flat_over_models_that_are_discarded():
    x, y = _rows(24)
    for k in range(35):
        gc.collect()  # what is garbage for a while is no leak
        if k == 5:
            before, objects = _resident(), len(gc.get_objects())
        model = _small()
        model.fit(x, y, batch_size=8, epochs=1, verbose=0, validation_split=0.25)
        model.predict(x, verbose=0)
    del model
    assert _resident() - before < 2 << 20
    assert len(gc.get_objects()) - objects < 30 * 10  # an event for each compilation


def test_a_discarded_model_is_collected_at_once():
    x, y = _rows(24)
    model = _small()
    model.fit(x, y, verbose=0)
    weights = [weakref.ref(v) for v in model.weights]
    arrays = [weakref.ref(v.buffer.array) for v in model.weights]
    del model
    gc.collect()
    assert not any(w() is not None for w in (*weights, *arrays))


def test_kernels_of_many_shapes_are_not_all_remembered(monkeypatch):
    from gnomon.compiler import lower
    from gnomon.compiler.render import llvm_values

    monkeypatch.setenv("GNOMON_CACHE", "0")
    monkeypatch.setattr(lower, "REMEMBERED", 50_000)
    monkeypatch.setattr(llvm_values, "REMEMBERED", (10, 10))
    monkeypatch.setattr(lower, "_kernels", lower.Remembered())
    for units in (7, 9):
        _small(units).memory(4)
    kept = lower._kernels
    assert kept.characters == sum(len(c.source.text) for made in kept for c in made)
    assert kept.characters <= 50_000 or len(kept) == 1
    assert len(llvm_values._expansions) < 200
