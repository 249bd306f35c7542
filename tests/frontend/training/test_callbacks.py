"""Callbacks: what is called when, with what; what each of gnomon's own does."""

import os

import numpy as np
import pytest

import gnomon
from gnomon import callbacks
from gnomon.compiler.errors import ArgumentError, NumericError
from tests.frontend.training.support import classifier, data

X, LABEL = data()
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}
HOOKS = [name for name in dir(callbacks.Callback) if name.startswith("on_") and not name.startswith("on_batch_")]


def noting(calls: list, name: str = ""):
    """A callback that notes every hook."""

    def hook(hook_name):
        def method(self, *given):
            calls.append((name, hook_name, *given[:-1]))  # without the logs

        return method

    return type("Noting", (callbacks.Callback,), {h: hook(h) for h in HOOKS})()


def watched(monitor_values, **options):
    """An EarlyStopping shown these values of `monitor`; and the epoch it stopped at, None if it did not."""
    stop = callbacks.EarlyStopping(monitor=options.pop("monitor", "loss"), **options)
    model = classifier()
    model.test_on_batch(X, LABEL)  # now it is known which accuracy is meant
    stop.set_model(model)
    stop.on_train_begin()
    for epoch, value in enumerate(monitor_values):
        stop.on_epoch_end(epoch, {stop.monitor: value})
        if model.stop_training:
            stop.on_train_end()
            return stop, epoch
    stop.on_train_end()
    return stop, None


def test_callbacks_are_called_in_their_order_the_progress_bar_last():
    calls: list = []
    given = callbacks.CallbackList([noting(calls, "a"), [noting(calls, "b")]], add_history=True, add_progbar=True)
    assert [type(c).__name__ for c in given.callbacks] == ["Noting", "Noting", "History", "ProgbarLogger"]
    given.on_epoch_begin(3)
    assert calls == [("a", "on_epoch_begin", 3), ("b", "on_epoch_begin", 3)]
    history, bar = callbacks.History(), callbacks.ProgbarLogger()
    given = callbacks.CallbackList([bar, history], add_history=True, add_progbar=True)
    assert given.callbacks == [bar, history]
    assert given.history is history


def test_a_list_of_callbacks_may_be_given_whole():
    calls: list = []
    model = classifier()
    hooks = callbacks.CallbackList([noting(calls)], add_history=True, model=model, verbose=0, epochs=1, steps=4)
    history = model.fit(X, LABEL, callbacks=hooks, **FIT)
    assert history.epoch == [0]
    assert [c[1] for c in calls].count("on_train_batch_end") == 4
    model.evaluate(X, LABEL, callbacks=hooks, verbose=0)
    model.predict(X, callbacks=hooks, verbose=0)
    assert {c[1] for c in calls} == set(HOOKS)


def test_logs_are_numbers_and_may_be_added_to():
    def add(epoch, logs):
        logs["mine"] = epoch

    seen = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    history = classifier().fit(X, LABEL, epochs=2, callbacks=[callbacks.LambdaCallback(on_epoch_end=add), note], **FIT)
    assert all(type(value) is float for value in (seen[0]["loss"], seen[0]["accuracy"]))
    assert [logs["mine"] for logs in seen] == [0, 1]
    assert history.history["mine"] == [0, 1]
    assert history.params == {"verbose": 0, "epochs": 2, "steps": 4}
    assert history.model.history is history


def test_a_callback_need_not_derive_from_callback():
    class Plain:
        def __init__(self):
            self.batches = 0

        def __getattr__(self, name):
            if name.startswith(("on_", "set_")):
                return lambda *given, **named: None
            raise AttributeError(name)

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1

    plain = Plain()
    classifier().fit(X, LABEL, callbacks=[plain], **FIT)
    assert plain.batches == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [([5], "must be instances of .*Callback, got 5"), (callbacks.EarlyStopping, r"write EarlyStopping\(\.\.\.\)")],
)
def test_what_is_no_callback_is_refused(given, message):
    with pytest.raises(ArgumentError, match=message):
        classifier().fit(X, LABEL, callbacks=given, verbose=0)


def test_stopping_ends_after_the_batch_or_the_epoch():
    model = classifier()
    batches = []

    def stop_batch(batch, logs):
        batches.append(batch)
        model.stop_training = batch == 1

    note = callbacks.LambdaCallback(on_train_batch_end=stop_batch)
    history = model.fit(X, LABEL, epochs=3, callbacks=[note], **FIT)
    assert batches == [0, 1]
    assert history.epoch == [0]
    stop = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1))
    assert model.fit(X, LABEL, epochs=9, callbacks=[stop], **FIT).epoch == [0, 1]
    assert model.fit(X, LABEL, epochs=2, **FIT).epoch == [0, 1]
    seen = []

    def stop_test(batch, logs):
        seen.append(batch)
        model.stop_evaluating = model.stop_predicting = batch == 2

    model.evaluate(X, LABEL, batch_size=8, verbose=0, callbacks=[callbacks.LambdaCallback(on_test_batch_end=stop_test)])
    note = callbacks.LambdaCallback(on_predict_batch_end=stop_test)
    assert model.predict(X, batch_size=8, verbose=0, callbacks=[note]).shape == (24, 4)
    assert seen == [0, 1, 2, 0, 1, 2]


def test_weights_set_in_a_callback_count_from_the_next_batch():
    model = classifier(optimizer=gnomon.optimizers.SGD(0.0))
    zeros = [np.zeros_like(w) for w in model.get_weights()]
    losses = []

    def change(batch, logs):
        losses.append(logs["loss"])
        model.set_weights(zeros)

    model.fit(X, LABEL, callbacks=[callbacks.LambdaCallback(on_train_batch_end=change)], **FIT)
    sums = np.array(losses) * [16, 32, 48, 50]
    np.testing.assert_allclose(np.diff(sums), np.log(4) * np.array([16, 16, 2]), rtol=1e-5)


# ---- EarlyStopping


@pytest.mark.parametrize(
    ("values", "options", "stopped", "best"),
    [
        ([3, 2, 1, 2, 0], {}, 3, 2),
        ([3, 2, 2.5, 1, 2, 2, 2], {"patience": 2}, 5, 3),
        ([3, 2.9, 2.8, 2.7], {"min_delta": 0.5, "patience": 2}, 2, 0),
        ([1, 2, 3, 2], {"monitor": "accuracy"}, 3, 2),
        ([1, 2, 3, 2], {"mode": "max"}, 3, 2),
        ([5, 4, 3, 3], {"start_from_epoch": 2}, 3, 2),
        ([5, 4, 3, 2], {"baseline": 1, "patience": 3}, None, 3),
        ([5, 4, 3, 2, 2], {"baseline": 1, "patience": 3}, 4, 3),
        ([5, 4, 0.5, 2, 2, 2], {"baseline": 1, "patience": 3}, 5, 2),
        ([1, 2], {"monitor": "val_loss"}, 1, 0),
        ([float("nan"), 3, 2, 3], {}, 3, 2),
        ([3, float("nan"), 2], {"patience": 2}, None, 2),
    ],
)
def test_early_stopping(values, options, stopped, best):
    stop, at = watched(values, **options)
    assert at == stopped
    assert stop.best_epoch == best
    assert stop.stopped_epoch == (stopped or 0)


def test_early_stopping_brings_back_the_best_weights():
    model = classifier(optimizer=gnomon.optimizers.SGD(0.3))
    kept = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    stop = callbacks.EarlyStopping("accuracy", mode="min", patience=2, restore_best_weights=True)
    model.fit(X, LABEL, epochs=20, callbacks=[note, stop], **FIT)
    assert stop.best_epoch < len(kept) - 1
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), kept[stop.best_epoch], strict=True))


def test_which_way_is_better_is_known_of_losses_and_metrics():
    inputs = gnomon.Input((6,))
    heads = [gnomon.layers.Dense(1, name="a")(inputs), gnomon.layers.Dense(4, activation="softmax", name="b")(inputs)]
    model = gnomon.Model(inputs, heads)
    model.compile("sgd", loss=["mse", "sparse_categorical_crossentropy"], metrics={"a": ["mae"], "b": ["accuracy"]})
    for name, sign in (("b_accuracy", 1), ("a_mae", -1), ("b_loss", -1), ("loss", -1)):
        stop = callbacks.EarlyStopping(f"val_{name}", patience=9)
        model.fit(X, [X[:, :1], LABEL], validation_split=0.2, callbacks=[stop], **FIT)
        assert stop.sign == sign
    with pytest.raises(ArgumentError, match="monitor=thing, but it is not known whether .* Pass mode='max'"):
        model.fit(X, [X[:, :1], LABEL], callbacks=[callbacks.EarlyStopping("thing")], **FIT)
    with pytest.warns(UserWarning, match="EarlyStopping mode 'most' is unknown"):
        assert callbacks.EarlyStopping(mode="most").mode == "auto"


# ---- ModelCheckpoint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_holds_the_weights_of_its_epoch(folder):
    model = classifier()
    kept = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    save = callbacks.ModelCheckpoint("deep/{epoch:02d}-{loss:.2f}.weights.h5", save_weights_only=True)
    history = model.fit(X, LABEL, epochs=3, callbacks=[save, note], **FIT).history
    files = sorted(os.listdir("deep"))
    assert files == [f"{k + 1:02d}-{loss:.2f}.weights.h5" for k, loss in enumerate(history["loss"])]
    fresh = classifier()
    for k, name in enumerate(files):
        fresh.load_weights(os.path.join("deep", name))
        assert all(np.array_equal(a, b) for a, b in zip(fresh.get_weights(), kept[k], strict=True))


def test_a_checkpoint_of_a_whole_model(folder):
    model = classifier()
    model.fit(X, LABEL, callbacks=[callbacks.ModelCheckpoint("model.keras")], **FIT)
    loaded = gnomon.models.load_model("model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)
    a, b = (m.fit(X, LABEL, **FIT).history["loss"] for m in (model, loaded))
    assert a == pytest.approx(b, rel=1e-5)


def test_only_what_is_best_is_saved(folder):
    model = classifier()
    save = callbacks.ModelCheckpoint("best.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True)
    save.set_model(model)
    saved = []
    model.save_weights = lambda path, overwrite: saved.append(path)
    for epoch, loss in enumerate([3.0, 4.0, 2.0, 2.0, float("nan"), 1.0]):
        save.on_epoch_end(epoch, {"loss": loss})
    assert len(saved) == 3
    assert save.best == 1.0


def test_checkpoints_by_batches(folder):
    saved = []
    model = classifier()
    model.save_weights = lambda path, overwrite: saved.append(path)
    save = callbacks.ModelCheckpoint("{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=3)
    model.fit(X, LABEL, epochs=3, callbacks=[save], **FIT)
    assert saved == ["1-3.weights.h5", "2-2.weights.h5", "3-1.weights.h5", "3-4.weights.h5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filepath": "a.h5", "save_weights_only": True}, "must end in `.weights.h5`"),
        ({"filepath": "a.weights"}, "must end in `.keras`"),
        ({"filepath": "a.keras", "save_freq": "day"}, "save_freq must be 'epoch' or a number"),
        ({"filepath": "a.keras", "save_freq": 0}, "save_freq must be 'epoch' or a number"),
    ],
)
def test_checkpoints_that_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        callbacks.ModelCheckpoint(**arguments)


def test_a_checkpoint_says_what_its_name_may_hold(folder):
    save = callbacks.ModelCheckpoint("{val_loss}.weights.h5", save_weights_only=True)
    with pytest.raises(ArgumentError, match="names 'val_loss', which is not known: there are accuracy, epoch, loss"):
        classifier().fit(X, LABEL, callbacks=[save], **FIT)
    os.mkdir("taken.keras")
    with pytest.raises(ArgumentError, match="is a directory"):
        classifier().fit(X, LABEL, callbacks=[callbacks.ModelCheckpoint("taken.keras")], **FIT)


# ---- learning rates


def test_a_schedule_may_take_the_rate_or_not():
    rates = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(logs["learning_rate"]))
    model = classifier(optimizer=gnomon.optimizers.SGD(0.5))
    for schedule in (lambda epoch: 0.25, lambda epoch, rate: rate / 2, np.float32(0.1).__mul__):
        model.fit(X, LABEL, callbacks=[callbacks.LearningRateScheduler(schedule), note], **FIT)
    assert rates == pytest.approx([0.25, 0.125, 0.0])

    def broken(epoch, rate):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        model.fit(X, LABEL, callbacks=[callbacks.LearningRateScheduler(broken)], **FIT)
    with pytest.raises(ArgumentError, match="should be a float. Got: 'slow'"):
        model.fit(X, LABEL, callbacks=[callbacks.LearningRateScheduler(lambda epoch: "slow")], **FIT)


def test_the_rate_falls_on_a_plateau():
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, cooldown=1, min_lr=0.2)
    model = classifier(optimizer=gnomon.optimizers.SGD(1.0))
    plateau.set_model(model)
    plateau.on_train_begin()
    rates = []
    for epoch, loss in enumerate([5, 4, 4, 4, 4, 4, 4, 4, 4, 4]):
        plateau.on_epoch_end(epoch, {"loss": loss})
        rates.append(float(model.optimizer.learning_rate.numpy()))
    np.testing.assert_allclose(rates, [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])
    with pytest.raises(ArgumentError, match="factor >= 1.0"):
        callbacks.ReduceLROnPlateau(factor=1.0)


def test_a_rate_that_changes_needs_no_other_program():
    model = classifier(optimizer="adam")
    model.fit(X, LABEL, **FIT)
    events = len(gnomon.compile_events())
    model.fit(X, LABEL, epochs=3, callbacks=[callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))], **FIT)
    model.optimizer.learning_rate = 0.5
    model.fit(X, LABEL, **FIT)
    assert len(gnomon.compile_events()) == events


# ---- NaN, CSV


def test_nan_ends_training():
    x = X.copy()
    x[20] = np.nan
    with pytest.raises(NumericError, match="at batch 1. Loss value: nan"):
        classifier().fit(x, LABEL, callbacks=[callbacks.TerminateOnNaN(raise_error=True)], **FIT)
    model = classifier(optimizer=gnomon.optimizers.SGD(1e30), loss="mse", metrics=[])
    target = np.eye(4, dtype="float32")[LABEL] * 1e20
    history = model.fit(X, target, epochs=5, callbacks=[callbacks.TerminateOnNaN()], **FIT)
    assert history.epoch == [0]


def test_a_table_of_epochs(folder):
    model = classifier()
    model.fit(X, LABEL, epochs=2, validation_split=0.2, callbacks=[callbacks.CSVLogger("a.csv", separator=";")], **FIT)
    with open("a.csv") as file:
        lines = file.read().splitlines()
    assert lines[0] == "epoch;accuracy;loss;val_accuracy;val_loss"
    history = model.history.history
    assert [float(cell) for cell in lines[2].split(";")] == [1, *(history[name][1] for name in lines[0].split(";")[1:])]

    def listed(epoch, logs):
        logs["list"] = [1, 2]

    log = callbacks.CSVLogger("a.csv")
    model.fit(X, LABEL, callbacks=[callbacks.LambdaCallback(on_epoch_end=listed), log], **FIT)
    with open("a.csv") as file:
        assert file.read().splitlines()[1].split(",")[2:4] == ['"""[1', ' 2]"""']
