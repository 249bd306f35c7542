"""Ctrl-C: fit ends by KeyboardInterrupt between two steps, and the model goes on working."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import gnomon
from gnomon import callbacks, layers
from tests.frontend.training.support import classifier, data

X, LABEL = data(2000)
FIT = {"batch_size": 16, "verbose": 0}


def usable(model, x, y) -> None:
    """The model is as after some whole number of steps: it predicts, trains and agrees with itself."""
    weights = model.get_weights()
    assert all(np.isfinite(w).all() for w in weights)
    assert all(np.isfinite(v.numpy()).all() for v in model.optimizer.variables)
    outputs = model.predict(x, verbose=0)
    assert np.isfinite(outputs).all()
    fresh = gnomon.models.clone_model(model)
    fresh.set_weights(weights)
    np.testing.assert_allclose(fresh.predict(x, verbose=0), outputs, rtol=1e-5)
    history = model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    assert history.epoch == [0, 1]
    assert all(np.isfinite(value) for value in history.history["loss"])


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_epoch_end"])
def test_raised_by_a_callback(hook):
    def interrupt(number, logs):
        if number == 1:
            raise KeyboardInterrupt

    ended = []
    model = classifier(optimizer="adam")
    watch = callbacks.LambdaCallback(**{hook: interrupt, "on_train_end": lambda logs: ended.append(1)})
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABEL, epochs=3, callbacks=[watch], **FIT)
    assert not ended
    steps = int(model.optimizer.iterations.numpy())
    assert (
        steps == {"on_train_batch_begin": 1, "on_train_batch_end": 2, "on_epoch_begin": 125, "on_epoch_end": 250}[hook]
    )
    usable(model, X, LABEL)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to the process itself")
@pytest.mark.parametrize("wait", [0.05, 0.3])
def test_sent_while_it_trains(wait):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    try:
        _interrupted(wait)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(wait):
    model = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(200, activation="relu"), layers.Dense(4)])
    model.compile("adam", loss=gnomon.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(X[:16], LABEL[:16])
    timer = threading.Timer(wait, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABEL, epochs=100_000, **FIT)
    assert time.perf_counter() - start < 10
    timer.join()
    assert int(model.optimizer.iterations.numpy()) > 1
    usable(model, X, LABEL)


def test_averaged_weights_are_put_in_place():
    """As Keras does: what is averaged ends in the weights, however training ends."""

    def interrupt(batch, logs):
        if batch == 20:
            raise KeyboardInterrupt

    model = classifier(optimizer=gnomon.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABEL, callbacks=[callbacks.LambdaCallback(on_train_batch_end=interrupt)], **FIT)
    averages = [v for v in model.optimizer.variables if "average" in v.path]
    for weight, average in zip(model.get_weights(), averages, strict=True):
        assert np.array_equal(weight, average.numpy())


def test_a_progress_bar_begins_anew(capsys):
    def interrupt(batch, logs):
        if batch == 3 and len(raised) == 0:
            raised.append(1)
            raise KeyboardInterrupt

    raised: list = []
    model, bar = classifier(), callbacks.ProgbarLogger()
    watch = [callbacks.LambdaCallback(on_train_batch_end=interrupt), bar]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABEL, epochs=2, batch_size=16, verbose=2, callbacks=watch)
    model.fit(X, LABEL, epochs=1, batch_size=16, verbose=2, callbacks=watch)
    model.evaluate(X, LABEL, batch_size=16, verbose=2, callbacks=watch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "125/125", "125/125"]
