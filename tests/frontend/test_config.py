"""Settings of the session: what they do, and what Keras has that gnomon takes or refuses."""

import logging

import numpy as np
import pytest

import gnomon
from gnomon import callbacks, config, layers
from gnomon.compiler.errors import ArgumentError
from tests.recorded.load import load

X, Y = np.ones((28, 2), "float32"), np.zeros((28, 1), "float32")


def model():
    made = gnomon.Sequential([layers.Input((2,)), layers.Dense(1)])
    made.compile(optimizer="sgd", loss="mse")
    return made


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    config.set_max_epochs(None)
    config.set_max_steps_per_epoch(None)
    config.enable_interactive_logging()
    config.enable_flash_attention()
    config.enable_traceback_filtering()


def test_all_names_of_keras_are_there():
    missing = [name for name in load("signatures")["keras.config"] if not hasattr(config, name)]
    assert missing == []


def test_limits_of_epochs_and_steps():
    seen = []
    note = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append("epoch"),
        on_train_batch_begin=lambda batch, logs: seen.append(batch),
    )
    config.set_max_epochs(2)
    config.set_max_steps_per_epoch(3)
    assert (config.max_epochs(), config.max_steps_per_epoch()) == (2, 3)
    with pytest.warns(UserWarning, match="Limiting epochs to 2"):
        model().fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[note])
    assert seen == ["epoch", 0, 1, 2, "epoch", 0, 1, 2]
    assert model().predict(X, batch_size=4).shape == (12, 1)
    assert model().predict(X, batch_size=10).shape == (28, 1)
    with pytest.warns(UserWarning, match="Limiting steps_per_epoch to 3"):
        model().evaluate(X, Y, batch_size=4, steps=4, verbose=0)
    for wrong in (0, 1.5, True):
        with pytest.raises(ArgumentError, match="positive integer"):
            config.set_max_epochs(wrong)


def test_messages_to_the_log(capsys, caplog):
    config.disable_interactive_logging()
    assert not gnomon.utils.is_interactive_logging_enabled()
    with caplog.at_level(logging.INFO, "gnomon"):
        model().fit(X, Y, epochs=1, verbose=2)
    assert capsys.readouterr().out == ""
    assert any("loss" in record.message for record in caplog.records)
    config.enable_interactive_logging()
    model().fit(X, Y, epochs=1, verbose=2)
    assert "loss" in capsys.readouterr().out


def test_what_there_is_nothing_to_choose_about():
    assert config.backend() == "gnomon"
    config.set_backend("gnomon")
    with pytest.raises(ArgumentError, match="no back ends"):
        config.set_backend("jax")
    with pytest.raises(ArgumentError, match="never runs code"):
        config.enable_unsafe_deserialization()
    assert config.is_nnx_enabled() is False
    for what in ("flash_attention", "traceback_filtering"):
        getattr(config, f"disable_{what}")()
        assert getattr(config, f"is_{what}_enabled")() is False
        getattr(config, f"enable_{what}")()
        assert getattr(config, f"is_{what}_enabled")() is True
