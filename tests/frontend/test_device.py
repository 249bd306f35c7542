"""Models on a GPU, or the emulator of one: what the CPU computes, without a line of the script changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError, CheckError, DataError, DeviceError, NumericError
from gnomon.models import steps
from tests.emulator.driver import Foreign
from tests.on_device import offer, where  # noqa: F401  # a fixture

RNG = np.random.default_rng(4)


def perceptron() -> Any:
    """Dropout's random stream is a variable of the program, and the optimizer's state is."""
    return gnomon.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(3, activation="softmax"),
        ]
    )


def convolutional() -> Any:
    """Batch normalization's moving averages are variables too, and dropout draws in every step."""
    return gnomon.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25, seed=2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def recurrent() -> Any:
    words = layers.Input((None,), dtype="int32")
    h = layers.LSTM(5)(layers.Embedding(11, 4, mask_zero=True)(words))
    return gnomon.Model(words, layers.Dense(3, activation="softmax")(h))


def attentive() -> Any:
    x = layers.Input((5, 8))
    h = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return gnomon.Model(x, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(h)))


X, LABELS = RNG.random((38, 12), dtype=np.float32), RNG.integers(0, 3, 38)


def adam() -> Any:
    return gnomon.optimizers.Adam(0.01)


def momentum() -> Any:
    """Where a gradient is nothing but rounding (of a bias before a normalization), Adam would make much of it."""
    return gnomon.optimizers.SGD(0.1, momentum=0.9, nesterov=True)


def trained(make: Any, x: Any, y: Any, optimizer: Any = adam, **options: Any) -> dict[str, Any]:
    """What a model tells when it is trained, tested and asked on the present device, and its weights afterwards."""
    gnomon.utils.set_random_seed(7)
    model = make()
    model.compile(optimizer=optimizer(), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=9, epochs=2, verbose=0, **options)  # the last batch is smaller
    return {
        "history": {k: np.array(v) for k, v in history.history.items()},
        "evaluated": np.array(model.evaluate(x, y, batch_size=16, verbose=0)),
        "predicted": model.predict(x, verbose=0),
        "weights": model.get_weights(),
        "model": model,
    }


def agree(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted["history"].items():
        np.testing.assert_allclose(found["history"][name], value, rtol=2e-4, err_msg=name)
    for name in ("evaluated", "predicted"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)
    for k, (a, b) in enumerate(zip(found["weights"], wanted["weights"], strict=True)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=f"weight {k}")


def test_a_perceptron_learns_what_it_learns_on_the_cpu(where: str) -> None:  # noqa: F811
    wanted = trained(perceptron, X, LABELS, validation_split=0.2)
    with gnomon.device(where):
        found = trained(perceptron, X, LABELS, validation_split=0.2)
        assert gnomon.current_device() == where
    agree(found, wanted)
    assert gnomon.current_device() == "cpu"
    model = found["model"]  # trained there, asked here, trained here, asked there
    np.testing.assert_allclose(model.predict(X, verbose=0), found["predicted"], rtol=1e-4, atol=1e-6)
    model.fit(X, LABELS, batch_size=9, verbose=0)
    here = model.predict(X, verbose=0)
    assert not np.allclose(here, found["predicted"], atol=1e-4)
    with gnomon.device(where):
        np.testing.assert_allclose(model.predict(X, verbose=0), here, rtol=1e-4, atol=1e-6)
        model.set_weights([w * 0 for w in model.get_weights()])
        np.testing.assert_allclose(model.predict(X, verbose=0), 1 / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "make, x",
    [
        (convolutional, RNG.random((20, 6, 6, 1), dtype=np.float32)),
        (recurrent, RNG.integers(0, 11, (20, 7)).astype(np.int32)),
        (attentive, RNG.random((20, 5, 8), dtype=np.float32)),
    ],
    ids=["convolutional", "recurrent", "attentive"],
)
def test_other_models_learn_what_they_learn_on_the_cpu(where: str, make: Any, x: Any) -> None:  # noqa: F811
    wanted = trained(make, x, LABELS[:20], momentum)
    with gnomon.device(where):
        found = trained(make, x, LABELS[:20], momentum)
    agree(found, wanted)


def test_one_compilation_serves_ragged_batches(where: str) -> None:  # noqa: F811
    model = perceptron()
    with gnomon.device(where):
        before = len(gnomon.compile_events())
        for rows in (1, 2, 9, 38):
            assert model.predict(X[:rows], verbose=0).shape == (rows, 3)
        assert len(gnomon.compile_events()) == before + 1


def small() -> Any:
    """One product, so that little is compiled."""
    model = gnomon.Sequential([layers.Input((12,)), layers.Dense(3)])
    loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=momentum(), loss=loss)
    return model


def twice(run: Any) -> None:
    """`run(model)` gives the same and leaves the same weights on the CPU and on the emulator."""
    results = []
    for name in ("cpu", "emulator"):
        with gnomon.device(name):
            gnomon.utils.set_random_seed(3)
            model = small()
            result = run(model)
            results.append([*(result if isinstance(result, list) else [result]), *model.get_weights()])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_data_that_comes_in_batches(monkeypatch: Any) -> None:
    offer(monkeypatch)

    def batches() -> Any:
        for k in range(0, 38, 8):
            yield X[k : k + 8], LABELS[k : k + 8]

    twice(lambda model: model.fit(batches(), verbose=0).history["loss"])
    twice(lambda model: [np.array(model.train_on_batch(X[:5], LABELS[:5])), np.array(model.test_on_batch(X, LABELS))])


def test_data_too_large_for_the_device_goes_there_by_and_by(monkeypatch: Any) -> None:
    gpu = offer(monkeypatch)
    monkeypatch.setattr(gpu, "room", lambda: 100)
    monkeypatch.setattr(steps, "AT_ONCE", 100)
    monkeypatch.setattr(steps, "CHUNK", 2000)  # of some batches
    uploads: list[int] = []
    upload = gpu.driver.upload
    monkeypatch.setattr(gpu.driver, "upload", lambda a, array: (uploads.append(array.nbytes), upload(a, array)))
    twice(lambda model: model.fit(X, LABELS, batch_size=5, epochs=2, verbose=0).history["loss"])
    assert max(uploads) <= 2000


def test_models_take_what_other_libraries_have_on_the_device(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    results = []
    for given in (lambda a: a, lambda a: Foreign(driver, a)):
        with gnomon.device("emulator"):
            gnomon.utils.set_random_seed(3)
            model = small()
            x, y = given(X[:8]), given(LABELS[:8])
            losses = model.fit(x, y, batch_size=4, verbose=0).history["loss"]
            results.append([losses, model.train_on_batch(x, y), model.predict(x, verbose=0), model.predict_on_batch(x)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_data_is_copied_once_for_all_epochs(monkeypatch: Any) -> None:
    gpu = offer(monkeypatch)
    uploads: list[int] = []
    upload = gpu.driver.upload
    monkeypatch.setattr(gpu.driver, "upload", lambda a, array: (uploads.append(array.nbytes), upload(a, array)))
    with gnomon.device("emulator"):
        model = small()
        asked: list[int] = []
        monkeypatch.setattr(gpu, "room", lambda: (asked.append(1), 1 << 20 if len(asked) < 3 else 0)[1])
        model.fit(X, LABELS, batch_size=8, epochs=3, verbose=0, validation_data=(X[:9], LABELS[:9]))
    assert len(asked) == 2  # what is there already needs no more room
    assert uploads.count(X.nbytes) == 1
    assert uploads.count(X[:9].nbytes) == 1
    used = gpu.driver.used
    model.fit(X, LABELS, batch_size=8, verbose=0)  # and let go afterwards
    assert gpu.driver.used <= used


def test_a_training_step_is_one_graph(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    launched: list[str] = []
    launch = driver.launch
    monkeypatch.setattr(driver, "launch", lambda module, kernel, *more: (launched.append(kernel),
                                                                         launch(module, kernel, *more)))  # fmt: skip
    with gnomon.device("emulator"):
        model = small()
        model.fit(X[:8], LABELS[:8], batch_size=2, verbose=0)
        launched.clear()
        model.fit(X[:32], LABELS[:32], batch_size=2, epochs=3, verbose=0)
        own = [kernel for kernel in launched if kernel != "gn_set_counter"]
        assert max(map(own.count, own), default=0) <= 2  # of 48 steps the first, and to note the graph


def test_many_steps_are_a_graph_too(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    rows = RNG.integers(0, 38, (70, 3))
    replays, weights = [], []
    for name in ("emulator", "cpu"):
        with gnomon.device(name):
            gnomon.utils.set_random_seed(3)
            model = small()
            step = model._step_program("train", (X, LABELS, None))
            for table in (rows, rows, rows[:66], rows[:5]):
                before = driver.replays
                step.run(table, [X, LABELS])
                replays.append(driver.replays - before)
            weights.append(model.get_weights())
    # launched, noted and replayed, then eight steps at once; then all; a table of another size begins anew
    assert replays == [1 + 68 // 8 + 68 % 8, 70 // 8 + 70 % 8, 66 // 8 + 66 % 8, 4, 0, 0, 0, 0]
    for found, wanted in zip(*weights, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_callbacks_see_and_set_what_is_on_the_device(monkeypatch: Any) -> None:
    offer(monkeypatch)

    def run(model: Any) -> Any:
        seen: list[Any] = []

        class Look(gnomon.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                seen.append(logs["loss"])
                if batch == 2:
                    self.model.optimizer.learning_rate = 0.01
                    self.model.set_weights([w * 0.5 for w in self.model.get_weights()])

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                seen.append(float(np.abs(self.model.get_weights()[0]).sum()))

        halve = gnomon.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        model.fit(X, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[Look(), halve])
        return np.array(seen)

    twice(run)


def test_files_are_the_same_whichever_device_wrote_them(monkeypatch: Any, tmp_path: Any) -> None:
    offer(monkeypatch)
    with gnomon.device("emulator"):
        model = small()
        model.fit(X, LABELS, batch_size=8, verbose=0)
        model.save(tmp_path / "model.keras")
        expected = model.predict(X, verbose=0)
    for name in ("cpu", "emulator"):
        with gnomon.device(name):
            loaded = gnomon.models.load_model(tmp_path / "model.keras")
            np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
            loaded.fit(X, LABELS, batch_size=8, verbose=0)  # the optimizer's state is there too
            again = loaded.get_weights()
            if name == "cpu":
                weights = again
    for a, b in zip(again, weights, strict=True):
        assert a.shape == b.shape


def test_ids_that_are_none_are_found_before_they_are_read(monkeypatch: Any) -> None:
    offer(monkeypatch)
    model = gnomon.Sequential([layers.Input((4,), dtype="int32"), layers.Embedding(5, 3), layers.Flatten()])
    model.compile(optimizer="sgd", loss="mse")
    x, y = np.zeros((6, 4), np.int32), np.zeros((6, 12), np.float32)
    x[4, 2] = 7
    with gnomon.device("emulator"), pytest.raises(DataError, match=r"got 7 at position \(4, 2\)"):
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)


def test_what_is_looked_at_is_what_runs(monkeypatch: Any) -> None:
    offer(monkeypatch)
    with gnomon.device("emulator"):
        model = small()
        assert "__global__" in model.show("cuda")
        assert model.memory(8, mode="train", samples=38).data > X.nbytes
        assert model.profile(X[:8], LABELS[:8], batch_size=8, repeat=1).rows


def test_debug_modes_look_at_what_the_device_computes(monkeypatch: Any) -> None:
    gpu = offer(monkeypatch)
    with monkeypatch.context() as inner:
        inner.setenv("GNOMON_CHECK", "1")
        twice(lambda model: model.fit(X[:10], LABELS[:10], batch_size=5, verbose=0).history["loss"])
        x = gnomon.Input((4,), name="x")
        f = gnomon.function([x], gnomon.ops.exp(x) + 1.0, device="emulator")
        given = np.ones((3, 4), np.float32)
        f(given)
        launch = gpu.driver.launch

        def planted(module: Any, kernel: str, grid: Any, block: Any, shared: int, arguments: Any, *more: Any) -> None:
            launch(module, kernel, grid, block, shared, arguments, *more)
            for span in arguments[:1]:  # what it writes
                gpu.driver.fill(span.address, 0, 4)

        inner.setattr(gpu.driver, "launch", planted)
        with pytest.raises(CheckError, match=r"the kernel 'add' .* differs from NumPy"):
            f(given)
    monkeypatch.setenv("GNOMON_NAN", "1")
    f = gnomon.function([x], gnomon.ops.log(x) * 2.0, device="emulator")
    with pytest.raises(NumericError, match="NaN from log"):
        f(-given)


def test_factors_are_rounded_only_if_asked(monkeypatch: Any) -> None:
    """Products of 48 x 48 by 48: in float32, by matrix units after rounding, and again."""
    offer(monkeypatch)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 48, 48)).astype("float32")
    exact = a.astype("float64") @ b
    x = gnomon.Input(batch_shape=(48, 48))
    product = lambda: gnomon.function([x], gnomon.ops.matmul(x, gnomon.ops.convert_to_tensor(b)), device="emulator")
    error = lambda: np.abs(product()(a) - exact).max()
    assert gnomon.config.matmul_precision() == "float32"
    assert error() < 1e-5
    try:
        for name, least, most in (("tensorfloat32", 5e-4, 2e-2), ("bfloat16", 5e-3, 2e-1)):
            gnomon.config.set_matmul_precision(name)
            assert gnomon.config.matmul_precision() == name
            assert least < error() < most
            cpu = gnomon.function([x], gnomon.ops.matmul(x, gnomon.ops.convert_to_tensor(b)), device="cpu")
            assert np.abs(cpu(a) - exact).max() < 1e-5
        with pytest.raises(ArgumentError, match="must be one of float32, tensorfloat32, tf32, bfloat16, got 'float16'"):
            gnomon.config.set_matmul_precision("float16")
        gnomon.config.set_matmul_precision(None)
        monkeypatch.setenv("GNOMON_MATMUL_PRECISION", "tf32")
        assert 5e-4 < error() < 2e-2
        monkeypatch.setenv("GNOMON_MATMUL_PRECISION", "half")
        with pytest.raises(ArgumentError, match="got 'half'"):
            product()
    finally:
        gnomon.config.set_matmul_precision(None)


# ---- which device


def test_a_device_is_chosen_in_many_ways(monkeypatch: Any) -> None:
    offer(monkeypatch)
    x = gnomon.vector("x")
    made = lambda **options: gnomon.function([x], x * 2, **options).device.name
    assert made() == gnomon.current_device() == "cpu"
    assert made(device="emulator") == "emulator"
    with gnomon.device("emulator") as outer:
        assert made() == "emulator"
        with gnomon.device("cpu"):
            assert (made(), made(device="emulator")) == ("cpu", "emulator")
            with outer:
                assert made() == "emulator"
        assert made() == "emulator"
    monkeypatch.setenv("GNOMON_DEVICE", "emulator")
    assert made() == "emulator"
    gnomon.set_device("cpu")
    try:
        assert made() == "cpu"
    finally:
        gnomon.set_device(None)
    monkeypatch.setenv("GNOMON_DEVICE", "tpu")
    with pytest.raises(DeviceError, match="GNOMON_DEVICE is 'tpu'. There is no device 'tpu'"):
        made()
    assert repr(outer) == "device('emulator')"


def test_a_model_may_have_a_device_of_its_own(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    model = small()
    model.compile(optimizer="sgd", loss="mse", device="emulator")
    model.fit(X, X[:, :3], verbose=0)
    assert driver.launches
    with pytest.raises(DeviceError, match="no device 'card'"):
        model.compile(optimizer="sgd", loss="mse", device="card")


def test_unknown_devices_are_refused_at_once() -> None:
    with pytest.raises(DeviceError, match="There is no device 'tpu'"):
        gnomon.device("tpu")
    with pytest.raises(DeviceError, match="no device 'emulator'"):
        gnomon.set_device("emulator")
    with pytest.raises(DeviceError, match="no device 'gpu:x'"):
        gnomon.device("gpu:x")
