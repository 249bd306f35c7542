"""What training does to a model: weights, optimizer, layers that are frozen, shared, random; steps of one's own."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import StateError
from gnomon.utils import set_random_seed
from tests.frontend.training.support import classifier, data

X, LABEL = data()
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_fit_goes_on_where_it_ended():
    once, twice = classifier(optimizer="adam"), classifier(optimizer="adam")
    once.fit(X, LABEL, epochs=4, **FIT)
    twice.fit(X, LABEL, epochs=2, **FIT)
    twice.fit(X, LABEL, epochs=2, **FIT)
    assert same(once.get_weights(), twice.get_weights())
    assert same([v.numpy() for v in once.optimizer.variables], [v.numpy() for v in twice.optimizer.variables])
    assert int(twice.optimizer.iterations.numpy()) == 16


def test_compile_again_begins_with_a_new_optimizer():
    model, fresh = classifier(optimizer="adam"), classifier(optimizer="adam")
    model.fit(X, LABEL, epochs=1, **FIT)
    fresh.set_weights(model.get_weights())
    model.compile("adam", loss="sparse_categorical_crossentropy")
    assert int(model.optimizer.iterations.numpy()) == 0
    a, b = model.fit(X, LABEL, **FIT).history, fresh.fit(X, LABEL, **FIT).history
    assert a["loss"] == b["loss"]
    assert "accuracy" not in a
    assert same(model.get_weights(), fresh.get_weights())


def test_fit_evaluate_and_single_batches_agree():
    fitted, stepped = classifier(), classifier()
    fitted.fit(X, LABEL, epochs=1, **FIT)
    for at in range(0, 50, 16):
        stepped.train_on_batch(X[at : at + 16], LABEL[at : at + 16])
    assert same(fitted.get_weights(), stepped.get_weights())
    whole = fitted.evaluate(X, LABEL, verbose=0)
    np.testing.assert_allclose(whole, fitted.test_on_batch(X, LABEL), rtol=1e-6)
    np.testing.assert_allclose(fitted.predict(X, verbose=0), fitted.predict_on_batch(X), rtol=1e-6)
    p = fitted.predict(X, verbose=0)
    np.testing.assert_allclose(whole[0], -np.log(p[np.arange(50), LABEL]).mean(), rtol=1e-5)
    np.testing.assert_allclose(whole[1], (p.argmax(1) == LABEL).mean(), rtol=1e-6)


def test_metrics_are_of_the_epoch_and_start_anew():
    model = classifier(optimizer=gnomon.optimizers.SGD(0.0))
    history = model.fit(X, LABEL, epochs=3, **FIT).history
    assert history["loss"][0] == history["loss"][1] == history["loss"][2]
    assert model.train_on_batch(X[:16], LABEL[:16]) == model.train_on_batch(X[:16], LABEL[:16])
    assert model.evaluate(X, LABEL, verbose=0) == model.evaluate(X, LABEL, verbose=0)


# ---- what is trainable


def test_a_frozen_layer_keeps_its_weights():
    model = classifier()
    model.layers[0].trainable = False
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(X, LABEL, epochs=2, **FIT)
    after = model.get_weights()
    assert same(before[:2], after[:2])
    assert not np.array_equal(before[2], after[2])
    assert len(model.optimizer.variables) == 2  # iteration and learning rate: SGD without momentum


def test_what_is_trainable_is_noted_by_compile():
    model = classifier()
    model.fit(X, LABEL, **FIT)
    model.layers[0].trainable = False
    before = model.get_weights()
    with pytest.warns(UserWarning, match=r"`trainable` of 'dense.*' has changed since .*: call compile\(\)"):
        model.fit(X, LABEL, **FIT)
    assert not np.array_equal(before[0], model.get_weights()[0])
    model.fit(X, LABEL, **FIT)  # said once
    assert not model.layers[0].trainable
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(X, LABEL, **FIT)
    assert np.array_equal(before[0], model.get_weights()[0])


def test_layers_are_unfrozen_with_a_new_optimizer():
    model = classifier()
    model.layers[0].trainable = False
    optimizer = gnomon.optimizers.Adam()
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    model.fit(X, LABEL, **FIT)
    model.layers[0].trainable = True
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    with pytest.raises(
        StateError, match="trains '.*kernel', '.*bias', which its optimizer 'adam.* with a new optimizer"
    ):
        model.fit(X, LABEL, **FIT)
    model.compile("adam", loss="sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(X, LABEL, **FIT)
    assert not np.array_equal(before[0], model.get_weights()[0])


@pytest.mark.filterwarnings("ignore:`trainable` of")
def test_a_discriminator_frozen_inside_another_model_learns_on_its_own():
    judge = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(1, activation="sigmoid")])
    judge.compile("sgd", loss="binary_crossentropy")
    maker = gnomon.Sequential([gnomon.Input((2,)), layers.Dense(6)])
    judge.trainable = False
    both = gnomon.Sequential([gnomon.Input((2,)), maker, judge])
    both.compile("sgd", loss="binary_crossentropy")
    noise, one = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    programs = None
    for _ in range(3):
        judges, makers = judge.get_weights(), maker.get_weights()
        judge.train_on_batch(maker.predict(noise, verbose=0), 0 * one)
        assert not same(judges, judge.get_weights())
        assert same(makers, maker.get_weights())
        judges = judge.get_weights()
        both.train_on_batch(noise, one)
        assert same(judges, judge.get_weights())
        assert not same(makers, maker.get_weights())
        programs = programs or len(gnomon.compile_events())
    assert len(gnomon.compile_events()) == programs


def test_no_trainable_weights_is_worth_a_warning():
    model = classifier()
    model.trainable = False
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(X, LABEL, **FIT)
    assert same(before, model.get_weights())


# ---- layers that are shared, random, that have losses


def test_two_models_that_share_a_layer_train_it_in_turn():
    shared = layers.Dense(4, name="shared")
    x = gnomon.Input((6,))
    first = gnomon.Model(x, layers.Dense(1)(shared(x)))
    second = gnomon.Model(x, layers.Dense(4, activation="softmax")(shared(x)))
    first.compile("adam", loss="mse")
    second.compile("rmsprop", loss="sparse_categorical_crossentropy")
    target = X[:, :1] * 2
    losses = []
    for _ in range(10):
        before = shared.kernel.numpy()
        a = first.fit(X, target, **FIT).history["loss"][0]
        between = shared.kernel.numpy()
        b = second.fit(X, LABEL, **FIT).history["loss"][0]
        assert not np.array_equal(before, between)
        assert not np.array_equal(between, shared.kernel.numpy())
        losses.append((a, b))
    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1] < losses[0][1]


def test_dropout_acts_in_fit_alone_and_anew_in_each_step():
    dropout, total = layers.Dropout(0.5, seed=1), layers.Dense(1, kernel_initializer="ones")
    model = gnomon.Sequential([gnomon.Input((100,)), dropout, total])
    model.compile(gnomon.optimizers.SGD(0.0), loss=lambda y, p: ops.mean(p, -1))
    ones = np.ones((64, 100), "float32")
    assert model.evaluate(ones, ones[:, :1], verbose=0) == 100
    assert (model.predict(ones, verbose=0) == 100).all()
    seen = []
    note = gnomon.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    model.fit(ones, ones[:, :1], batch_size=16, epochs=2, verbose=0, callbacks=[note])
    assert all(80 < loss < 120 for loss in seen)  # running means of what is 100 on average
    assert len({round(loss, 3) for loss in seen}) == 8
    assert model.evaluate(ones, ones[:, :1], verbose=0) == 100


def test_regularizers_and_add_loss_are_part_of_the_loss():
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(0.5 * ops.mean(ops.abs(x)))
            return x

    kernel = np.full((6, 1), 0.25, "float32")
    model = gnomon.Sequential(
        [gnomon.Input((6,)), Penalty(), layers.Dense(1, kernel_regularizer=gnomon.regularizers.L2(0.1), use_bias=False)]
    )
    model.set_weights([kernel])
    model.compile(gnomon.optimizers.SGD(0.0), loss="mse", metrics=["mse"])
    target = np.zeros((50, 1), "float32")
    loss, mse = model.evaluate(X, target, batch_size=50, verbose=0)
    np.testing.assert_allclose(mse, np.mean((X @ kernel) ** 2), rtol=1e-5)
    np.testing.assert_allclose(loss, mse + 0.5 * abs(X).mean() + 0.1 * (kernel**2).sum(), rtol=1e-5)
    assert model.fit(X, target, batch_size=50, verbose=0).history["loss"][0] == pytest.approx(loss, rel=1e-6)
    assert len(model.losses) == 1  # that of the batch is gone with it


def test_state_of_layers_moves_on_in_training():
    class Count(layers.Layer):
        def build(self, shape):
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

        def call(self, x, training=False):
            if training:
                self.steps.assign_add(1.0)
            return x

    counter = Count()
    model = gnomon.Sequential([gnomon.Input((6,)), counter, layers.Dense(1)])
    model.compile("sgd", loss="mse")
    model.fit(X, X[:, :1], epochs=2, **FIT)
    model.evaluate(X, X[:, :1], verbose=0)
    model.predict(X, verbose=0)
    assert float(counter.steps.numpy()) == 8


def test_an_attribute_that_changes_takes_effect():
    model = gnomon.Sequential([gnomon.Input((6,)), layers.LeakyReLU(0.5)])
    model.compile(gnomon.optimizers.SGD(0.0), loss="mse")
    assert model.evaluate(X, np.where(X > 0, X, X / 2), verbose=0) == 0
    events = len(gnomon.compile_events())
    for slope in (0.25, 0.5):
        model.layers[0].negative_slope = slope
        assert model.evaluate(X, np.where(X > 0, X, X * slope), verbose=0) == 0
        assert (model.predict(-abs(X), verbose=0) == -abs(X) * slope).all()
    assert len(gnomon.compile_events()) == events + 3  # what was 0.5 before is still known


def test_programs_for_attributes_that_are_gone_go_too():
    model = gnomon.Sequential([gnomon.Input((6,)), layers.LeakyReLU(0.5)])
    model.compile("sgd", loss="mse")
    for k in range(40):
        model.layers[0].negative_slope = k / 40
        assert model.evaluate(X[:4], np.where(X > 0, X, X * (k / 40))[:4], verbose=0) < 1e-12
    assert len(model._trainer_state().programs) == 16


def test_whole_numbers_are_encoded_between_layers():
    inputs = gnomon.Input((3,), dtype="int32")
    model = gnomon.Model(inputs, layers.Dense(1)(layers.Flatten()(ops.one_hot(inputs, 5))))
    model.compile("adam", loss="mse")
    x = np.random.default_rng(0).integers(0, 5, (50, 3))
    losses = model.fit(x, x[:, :1].astype("float32"), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    encoded = np.eye(5, dtype="float32")[x].reshape(50, 15)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), encoded @ model.get_weights()[0] + model.get_weights()[1], rtol=1e-5, atol=1e-6
    )


def test_training_leaves_compiled_calls_of_the_model_valid():
    model = classifier()
    model.fit(X, LABEL, **FIT)
    model(X)
    model.predict(X, verbose=0)
    events = len(gnomon.compile_events())
    for _ in range(2):
        model.fit(X, LABEL, **FIT)
        np.testing.assert_allclose(model(X), model.predict(X, verbose=0), rtol=1e-6)
    assert len(gnomon.compile_events()) == events


# ---- models that are not built, or by subclassing


@pytest.mark.parametrize("train", ["fit", "train_on_batch", "evaluate", "predict"])
def test_a_model_is_built_by_the_data(train):
    model = gnomon.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(4, activation="softmax")])
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    if train == "predict":
        assert model.predict(X, verbose=0).shape == (50, 4)
    else:
        getattr(model, train)(X, LABEL, **({} if train == "train_on_batch" else {"verbose": 0}))
    assert [w.shape for w in model.get_weights()] == [(6, 8), (8,), (8, 4), (4,)]
    first = model.fit(X, LABEL, epochs=30, verbose=0).history["loss"]
    assert first[-1] < first[0]


def test_a_step_of_ones_own():
    class Mine(gnomon.Model):
        def train_step(self, data):
            x, y = data
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
            variables = self.trainable_variables
            self.optimizer.apply(gnomon.grad(loss, variables), variables)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss, sample_weight=ops.shape(y)[0])
                else:
                    metric.update_state(y, y_pred)
            return {metric.name: metric.result() for metric in self.metrics}

    plain = classifier()
    inputs = gnomon.Input((6,))
    mine = Mine(inputs, layers.Dense(4, activation="softmax")(layers.Dense(8, activation="tanh")(inputs)))
    mine.set_weights(plain.get_weights())
    mine.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    a = mine.fit(X, LABEL, epochs=2, validation_data=(X, LABEL), **FIT).history
    b = plain.fit(X, LABEL, epochs=2, validation_data=(X, LABEL), **FIT).history
    assert list(a) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for name, values in b.items():
        np.testing.assert_allclose(a[name], values, rtol=1e-5)


def test_a_model_with_its_own_metrics_and_loss():
    class Mine(gnomon.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)
            self.tracker = gnomon.metrics.Mean(name="error")

        def call(self, x):
            return self.dense(x)

        @property
        def metrics(self):
            return [self.tracker]

        def compute_loss(self, x, y, y_pred, sample_weight=None):  # as before Keras 3.3
            error = ops.mean(ops.abs(y - y_pred))
            self.tracker.update_state(error)
            return error

        def test_step(self, data):
            x, y = data
            self.tracker.update_state(ops.mean(ops.abs(y - self(x))))
            return {"error": self.tracker.result()}

    model = Mine()
    model.compile(gnomon.optimizers.SGD(0.0))
    history = model.fit(X, X[:, :1], batch_size=50, epochs=2, verbose=0).history
    assert list(history) == ["error"]
    error = model.evaluate(X, X[:, :1], batch_size=50, verbose=0)
    assert history["error"] == pytest.approx([error, error])
    np.testing.assert_allclose(error, abs(model(X) - X[:, :1]).mean(), rtol=1e-5)
    assert model.metrics_names == ["error"]


def test_predict_step_of_ones_own():
    class Mine(gnomon.Model):
        def predict_step(self, data):
            return ops.argmax(self(data), -1)

    inputs = gnomon.Input((6,))
    model = Mine(inputs, layers.Dense(4)(inputs))
    assert np.array_equal(model.predict(X, verbose=0), np.argmax(model(X), -1))


def test_a_seed_repeats_training():
    def run():
        set_random_seed(5)
        model = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(8), layers.Dropout(0.3), layers.Dense(4)])
        model.compile("adam", loss=gnomon.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(X, LABEL, batch_size=16, epochs=3, verbose=0)
        return history.history["loss"], model.get_weights()

    (losses, weights), (again, same_weights) = run(), run()
    assert losses == again
    assert same(weights, same_weights)
