"""Workloads written against Keras's API: the same lines run on Keras and on gnomon."""

import common
import numpy as np
from common import Job, sample


class Calls:
    """How models are called batch by batch; `place` puts an array where the library reads it quickest."""

    def __init__(self, place=lambda array: array):
        self.place = place

    def training(self, model, x, y):
        """A function that makes a step and returns the loss."""
        x, y = self.place(x), self.place(y)
        return lambda: model.train_on_batch(x, y)

    def inference(self, model, x):
        x = self.place(x)
        return lambda: model.predict_on_batch(x)


class Workloads:
    """`keras` is keras or gnomon; `as_function(model)` compiles a model into a plain callable of arrays."""

    def __init__(self, keras, as_function, calls, steps_per_execution=None):
        self.keras, self.as_function, self.calls, self.steps = keras, as_function, calls, steps_per_execution

    def served(self):
        return {
            "article_mlp_fit": self.article_mlp_fit,
            "mlp_1024_adam": self.mlp_1024_adam,
            "one_row_inference": self.one_row_inference,
            "one_row_predict": self.one_row_predict,
        }

    def once(self):
        return {"process_start": self.process_start, "mnist_accuracy": self.mnist_accuracy}

    def article(self, loss="mse", **more):
        keras = self.keras
        model = keras.Sequential([
            keras.Input((784,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ])
        model.set_weights(common.weights(common.ARTICLE))
        rmsprop = keras.optimizers.RMSprop(learning_rate=0.001)
        model.compile(optimizer=rmsprop, loss=loss, metrics=["accuracy"], **more)
        return model

    def article_mlp_fit(self):
        x, y = common.mnist()
        model = self.article(**({} if self.steps is None else {"steps_per_execution": self.steps}))

        def run(n=1):
            history = model.fit(x, y, batch_size=common.BATCH, epochs=n, verbose=0)
            return history.history["loss"][0]

        return Job(run, [run()])

    def mlp_1024_adam(self):
        keras = self.keras
        x, y = common.wide_batch()
        model = keras.Sequential([
            keras.Input((784,)),
            keras.layers.Dense(1024, activation="relu"),
            keras.layers.Dense(1024, activation="relu"),
            keras.layers.Dense(10),
        ])
        model.set_weights(common.weights(common.WIDE))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.001), loss=loss)
        step = self.calls.training(model, x, y)

        def run(n=1):
            for _ in range(n):
                cost = step()
            return float(np.asarray(cost).reshape(-1)[0])

        return Job(run, [run() for _ in range(3)])

    def one_row_inference(self):
        fn, x = self.as_function(self.article()), common.one_row()

        def run(n=1):
            for _ in range(n):
                y = fn(x)
            return y

        return Job(run, sample(run()))

    def one_row_predict(self):
        model, x = self.article(), common.one_row()

        def run(n=1):
            for _ in range(n):
                y = model.predict(x, verbose=0)
            return y

        return Job(run, sample(run()))

    def process_start(self):
        model = self.article()
        x, y = np.zeros((128, 784), np.float32), np.zeros((128, 10), np.float32)
        return float(np.asarray(model.train_on_batch(x, y)[0]))

    def mnist_accuracy(self):
        """Test accuracy after ten epochs from the given weights, the rows in the given order."""
        x, y = common.mnist()
        model = self.article("categorical_crossentropy")
        for order in common.orders():
            model.fit(x[order], y[order], batch_size=common.BATCH, epochs=1, shuffle=False, verbose=0)
        return float(model.evaluate(*common.mnist("t10k"), batch_size=1000, verbose=0)[1])
