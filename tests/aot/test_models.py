"""Kinds of models as C libraries: convolutions, recurrent layers, attention; predicted and trained, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon.compiler import aot
from gnomon.compiler.aot import targets
from gnomon.compiler.errors import CompileError
from gnomon.compiler.program import Library
from tests.aot.support import Built, needs_cc
from tests.aot.test_gnx import save
from tests.aot.test_targets import EMULATED, compiled, emulated, results


def convnet() -> gnomon.Model:
    return gnomon.Sequential(
        [
            gnomon.Input((12, 12, 2), name="image"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(6, 3, strides=2),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ],
        name="convnet",
    )


def recurrent() -> gnomon.Model:
    series = gnomon.Input((None, 6), name="series")
    outputs = layers.Dense(3)(layers.GRU(7)(layers.LSTM(12, return_sequences=True)(series)))
    return gnomon.Model(series, outputs, name="recurrent")


def attention() -> gnomon.Model:
    tokens = gnomon.Input((None, 16), name="tokens")
    attended = layers.MultiHeadAttention(2, 8)(tokens, tokens)
    x = layers.LayerNormalization()(layers.Add()([tokens, attended]))
    return gnomon.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="attention")


KINDS: dict[str, tuple[Callable[[], gnomon.Model], tuple[int, ...]]] = {
    "convnet": (convnet, (12, 12, 2)), "recurrent": (recurrent, (9, 6)), "attention": (attention, (7, 16)),
}  # fmt: skip


def data(kind: str, rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, *KINDS[kind][1])).astype("float32")


def made(kind: str) -> gnomon.Model:
    gnomon.utils.set_random_seed(2)
    return KINDS[kind][0]()


@needs_cc
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_in_c(kind, pack, tmp_path):
    model = made(kind)
    run = Built(tmp_path, ahead.build(model, "model", pack=pack))
    for rows in (1, 2, 5):
        x = data(kind, rows)
        sizes = {s: x.shape[axis] for s, (_, axis) in zip(run.library.sizes, run.routine.program.bindings, strict=True)}
        np.testing.assert_array_equal(run([x], sizes)[0], model.predict(x, verbose=0))


@pytest.mark.parametrize("kind", KINDS)
def test_training(kind, tmp_path):
    model = made(kind)
    model.compile("adam", "mse", metrics=["mae"])
    loaded = gnomon.runtime.load(save(model, tmp_path / kind, train=True))
    x, y = data(kind, 4), np.random.default_rng(0).random((4, 3), "float32")
    for _ in range(10):
        assert loaded.step(x, y) == model.train_on_batch(x, y, return_dict=True)
    assert loaded.evaluate(x, y) == model.test_on_batch(x, y, return_dict=True)
    np.testing.assert_array_equal(loaded(x), model.predict(x, verbose=0))


@needs_cc
@pytest.mark.parametrize("batch", [1, 3])
def test_fixed_sizes_need_no_arguments(batch, tmp_path):
    model = made("recurrent")
    library = ahead.build(model, "model", batch=batch, sizes={"series_1": 9})
    assert library.sizes == ()
    run = Built(tmp_path, library)
    x = data("recurrent", batch)
    np.testing.assert_allclose(run([x], {})[0], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", ["aarch64", "riscv64", "riscv64-v", "x86-64"])
def test_a_convnet_elsewhere(name, pack, tmp_path):
    if shutil.which(EMULATED[name][0]) is None:
        pytest.skip(f"{EMULATED[name][0]} is not here")
    model = made("convnet")
    library, content = compiled(model, name, pack=pack)
    command = emulated(name, tmp_path, library, content)
    x = data("convnet", 3)
    done = subprocess.run([*command, "3", str(x.nbytes), str(3 * 3 * 4)], input=x.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    (found,) = results(library, done.stdout, {"batch": 3})
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_weights_are_packed_where_that_costs_little():
    series = gnomon.Input((4, 100), name="series")
    model = gnomon.Model(series, layers.Dense(200)(series))
    plain, either, packed = (ahead.build(model, "net", pack=pack) for pack in (False, None, True))
    assert len(plain.weights) < 1.05 * 4 * 100 * 200 < 1.5 * len(plain.weights) < len(packed.weights)
    assert either.weights == plain.weights  # open sizes: the packed ones would be beside the others
    either = ahead.build(model, "net", batch=8)
    assert len(either.weights) < 1.1 * len(plain.weights)
    assert not [s for s in either.routines[0].program.slots if s.kind == "kept"]


@pytest.mark.parametrize("name", ["cortex-m4", "riscv64", "wasm32"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_one_number_at_a_time(name, dtype):
    x = gnomon.Input((9, 8, 2), dtype=dtype)
    model = gnomon.Model(x, layers.Conv2D(4, 3, dtype=dtype)(x))
    for options in ({"max_batch": 3}, {"batch": 2}):
        aot.modules(ahead.build(model, "net", targets.find(name), **options))


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw", "adafactor", "lamb", "muon", "schedule_free_adam_w"])
def test_optimizers(optimizer, tmp_path):
    gnomon.utils.set_random_seed(0)
    model = gnomon.Sequential([gnomon.Input((5,)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
    found = {"schedule_free_adam_w": gnomon.optimizers.ScheduleFreeAdamW()}.get(optimizer, optimizer)
    model.compile(found, "mse")
    loaded = gnomon.runtime.load(save(model, tmp_path / "net", train=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
    for _ in range(3):
        assert loaded.step(x, y) == model.train_on_batch(x, y, return_dict=True)


def test_several_inputs_and_outputs_are_trained_by_name(tmp_path):
    gnomon.utils.set_random_seed(0)
    a, b = gnomon.Input((3,), name="a"), gnomon.Input((4,), name="b")
    both = layers.Concatenate()([layers.Dense(3)(a), layers.Dense(2)(b)])
    size, kind = layers.Dense(2, name="size"), layers.Dense(3, activation="softmax", name="kind")
    outputs = {"size": size(both), "kind": kind(both)}
    model = gnomon.Model({"a": a, "b": b}, outputs)
    model.compile("adam", {"size": "mse", "kind": "sparse_categorical_crossentropy"}, metrics={"kind": ["accuracy"]})
    loaded = gnomon.runtime.load(save(model, tmp_path / "net", train=True))
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(6, 3)).astype("float32"), "b": rng.normal(size=(6, 4)).astype("float32")}
    y = {"size": rng.normal(size=(6, 2)).astype("float32"), "kind": rng.integers(0, 3, 6).astype("int32")}
    for _ in range(2):
        found = loaded.step(**x, y_size=y["size"], y_kind=y["kind"])
        assert found == model.train_on_batch(x, y, return_dict=True)
    for name, value in loaded(**x).items():
        np.testing.assert_array_equal(value, model.predict(x, verbose=0)[name])


def test_layers_that_remember(tmp_path):
    gnomon.utils.set_random_seed(0)
    series = gnomon.Input(batch_shape=(2, 3, 4))
    model = gnomon.Model(series, layers.LSTM(5, stateful=True)(series))
    loaded = gnomon.runtime.load(save(model, tmp_path / "net"))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for _ in range(3):
        np.testing.assert_array_equal(loaded(x), model.predict(x, verbose=0))


def test_random_numbers_are_part_of_the_state(tmp_path):
    x = gnomon.fvector("x")
    stream = gnomon.RandomStream(3)
    f = gnomon.function([x], x + stream.uniform((4,)), name="noisy")
    loaded = gnomon.runtime.load(save(f, tmp_path / "noisy"))
    given = np.zeros(4, "float32")
    first = loaded(given)
    assert not np.array_equal(first, loaded(given))
    np.testing.assert_array_equal(first, f(given))


def test_calls_of_python_are_refused_with_the_layer():
    library = ahead.build(made("convnet"), "model")
    program = library.routines[0].program
    called = replace(program, steps=(*program.steps, Library("cholesky", (0,), (1,))))
    with pytest.raises(CompileError, match="'cholesky' is a call of Python or LAPACK, which a compiled library cannot"):
        aot.check_steps([called])
