# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""What Keras prints: progress bars, summaries, callbacks' messages; the names that it gives."""

import contextlib
import io
from typing import Any

import keras

from .fit import DATA
from .snippets import Clock, printed

MODEL = """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    set_weights(model)
"""
TINY = """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    set_weights(model)
"""
FIT = "batch_size=16, shuffle=False"


def record() -> dict[str, Any]:
    return {"progress": _progress(), "fit": _fit(), "callbacks": _callbacks(), "summary": _summaries(),
            "names": _names(), "repr": _reprs()}  # fmt: skip


def _progress() -> dict[str, Any]:
    """The bar alone, on a given clock: nothing is masked."""
    loss = [["loss", 0.5], ["accuracy", 0.25]]
    calls: dict[str, tuple[dict[str, Any], list[list[Any]]]] = {
        "three steps": ({"target": 3}, [[0.1, 1, loss], [0.3, 2, loss], [0.5, 3, loss]]),
        "a step too soon is not shown": ({"target": 4}, [[0.1, 1, loss], [0.12, 2, loss], [0.14, 3, loss],
                                                         [0.2, 4, loss]]),
        "no values": ({"target": 12}, [[1, 3, []], [2, 12, []]]),
        "long": ({"target": 60000}, [[30, 1, []], [100, 10, []], [4000, 200, []], [70000, 60000, []]]),
        "minutes": ({"target": 100}, [[1, 1, []], [3, 2, []], [50, 40, []], [130, 100, []]]),
        "microseconds": ({"target": 100000}, [[0.06, 1000, []], [0.5, 100000, []]]),
        "numbers": ({"target": 2}, [[0.1, 1, [["a", 1e-3], ["b", 1.1e-3], ["c", 123456.789], ["d", -0.5], ["e", 0.0]]],
                                    [0.2, 2, [["a", 1e-9], ["b", -1e-5], ["c", 7], ["d", float("nan")], ["e", 1e8]]]]),
        "means": ({"target": 4}, [[0.1, 1, [["loss", 1.0]]], [0.2, 2, [["loss", 2.0]]], [0.3, 3, [["loss", 6.0]]],
                                  [0.4, 4, [["loss", 1.0]]]]),
        "stateful": ({"target": 3, "stateful_metrics": ["loss"]},
                     [[0.1, 1, [["loss", 1.0]]], [0.2, 2, [["loss", 2.0]]], [0.3, 3, [["loss", 6.0]]]]),
        "unknown length": ({"target": None}, [[0.1, 1, loss], [0.3, 2, loss], [0.5, 3, loss], [0.6, 3, loss, True]]),
        "wide, other unit": ({"target": 10, "width": 30, "unit_name": "sample"}, [[0.1, 5, loss], [0.5, 10, loss]]),
        "shorter than before": ({"target": 2}, [[0.1, 1, [["loss", 123456.0]]], [0.3, 2, [["loss", 1.0]]]]),
        "verbose 2": ({"target": 3, "verbose": 2}, [[0.1, 1, loss], [0.3, 2, loss], [2.7, 3, loss]]),
        "verbose 2, numbers": ({"target": 1, "verbose": 2}, [[0.1, 1, [["a", 1e-3], ["b", -0.5], ["c", 1e8]]]]),
        "verbose 0": ({"target": 1, "verbose": 0}, [[0.1, 1, loss]]),
    }  # fmt: skip
    found = {}
    for name, (arguments, updates) in calls.items():
        texts = []
        for out in (io.StringIO(), _Terminal()):
            clock = keras.src.utils.progbar.time = _Set()
            with contextlib.redirect_stdout(out):
                bar = keras.utils.Progbar(**arguments)
                for seconds, current, values, *finalize in updates:
                    clock.now = seconds
                    bar.update(current, [tuple(value) for value in values], *finalize)
            texts.append(out.getvalue())
        assert texts[0] == texts[1]  # on POSIX systems Keras takes every output for a terminal
        found[name] = {"arguments": arguments, "updates": updates, "text": texts[0]}
    return found


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Set(Clock):
    """A clock that is set by hand, 0 at first."""

    now = 0.0

    def time(self) -> float:
        return self.now


def _case(name: str, code: str, data: str) -> dict[str, Any]:
    given = {key: DATA[key] for key in data.split()}
    return printed(name, code.replace("$FIT", FIT), **given)


def _fit() -> dict[str, Any]:
    codes = {
        "verbose 1": MODEL + """
    model.fit(x, target, epochs=2, verbose=1, $FIT)
""",
        "verbose auto": MODEL + """
    model.fit(x, target, epochs=2, $FIT)
""",
        "verbose 2": MODEL + """
    model.fit(x, target, epochs=2, verbose=2, $FIT)
""",
        "one epoch": MODEL + """
    model.fit(x, target, verbose=2, $FIT)
""",
        "validation": MODEL + """
    model.fit(x, target, validation_split=0.3, epochs=2, verbose=1, $FIT)
""",
        "validation, verbose 2": MODEL + """
    model.fit(x, target, validation_split=0.3, epochs=2, verbose=2, $FIT)
""",
        "validation every second epoch": MODEL + """
    model.fit(x, target, validation_split=0.3, validation_freq=2, epochs=3, verbose=2, $FIT)
""",
        "initial_epoch": MODEL + """
    model.fit(x, target, initial_epoch=3, epochs=5, verbose=2, $FIT)
""",
        "learning rate shown": MODEL + """
    callbacks = [keras.callbacks.LearningRateScheduler(lambda epoch: 10.0 ** -(epoch + 2))]
    model.fit(x, target, callbacks=callbacks, epochs=3, verbose=2, $FIT)
""",
        "small and large numbers": TINY + """
    model.fit(1e-3 * x, 1e-2 * target, epochs=1, verbose=2, $FIT)
    model.fit(x, 1e3 * target, epochs=1, verbose=2, $FIT)
""",
        "steps_per_epoch": MODEL + """
    model.fit(x, target, steps_per_epoch=2, epochs=2, verbose=2, $FIT)
""",
        "generator of unknown length": MODEL + """
    def batches():
        for start in range(0, 50, 16):
            yield x[start : start + 16], target[start : start + 16]

    model.fit(batches(), epochs=1, verbose=1)
    model.fit(batches(), epochs=1, verbose=2)
""",
        "evaluate": MODEL + """
    model.evaluate(x, target, batch_size=16)
    model.evaluate(x, target, batch_size=16, verbose=2)
    model.evaluate(x, target, batch_size=16, verbose=0)
""",
        "predict": MODEL + """
    model.predict(x, batch_size=16)
    model.predict(x, batch_size=16, verbose=2)
    model.predict(x, batch_size=16, verbose=0)
""",
        "two heads": """
    features = keras.Input((6,))
    heads = [layers.Dense(1, name="amount")(features), layers.Dense(4, activation="softmax", name="kind")(features)]
    model = keras.Model(features, heads)
    model.compile("sgd", loss=["mse", "sparse_categorical_crossentropy"], metrics=[["mae"], ["accuracy"]])
    set_weights(model)
    model.fit(x, [target, label], validation_split=0.2, epochs=1, verbose=2, $FIT)
    model.evaluate(x, [target, label], batch_size=16, verbose=2)
""",
        "nothing but the loss": TINY + """
    model.fit(x, target, epochs=1, verbose=2, $FIT)
    model.evaluate(x, target, verbose=2)
""",
    }  # fmt: skip
    return {name: _case(name, code, "x target label") for name, code in codes.items()}


def _callbacks() -> dict[str, Any]:
    codes = {
        "EarlyStopping": MODEL + """
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0.3, patience=1, verbose=1,
                                         restore_best_weights=True)
    model.fit(x, target, validation_split=0.3, callbacks=[stop], epochs=9, verbose=2, $FIT)
""",
        "EarlyStopping not reached": MODEL + """
    stop = keras.callbacks.EarlyStopping(monitor="loss", verbose=1, restore_best_weights=True)
    model.fit(x, target, callbacks=[stop], epochs=2, verbose=2, $FIT)
""",
        "EarlyStopping of an unknown quantity": MODEL + """
    stop = keras.callbacks.EarlyStopping(monitor="val_loss")
    model.fit(x, target, callbacks=[stop], epochs=2, verbose=0, $FIT)
""",
        "ModelCheckpoint, best": MODEL + """
    import os

    save = keras.callbacks.ModelCheckpoint("best-{epoch:02d}-{val_loss:.2f}.weights.h5", save_best_only=True,
                                           save_weights_only=True, verbose=1)
    model.fit(x, target, validation_split=0.3, callbacks=[save], epochs=2, verbose=2, $FIT)
    model.optimizer.learning_rate = 5.0
    model.fit(x, target, validation_split=0.3, callbacks=[save], epochs=2, verbose=2, $FIT)
    result["files"] = sorted(os.listdir())
""",
        "ModelCheckpoint, each epoch": MODEL + """
    import os

    save = keras.callbacks.ModelCheckpoint("each-{epoch}.weights.h5", save_weights_only=True, verbose=1)
    model.fit(x, target, callbacks=[save], epochs=2, verbose=2, $FIT)
    result["files"] = sorted(os.listdir())
""",
        "ModelCheckpoint, initial_value_threshold and max": MODEL + """
    save = keras.callbacks.ModelCheckpoint("best.weights.h5", monitor="mae", mode="max", save_best_only=True,
                                           save_weights_only=True, initial_value_threshold=100.0, verbose=1)
    model.fit(x, target, callbacks=[save], epochs=1, verbose=0, $FIT)
""",
        "ModelCheckpoint of an unknown quantity": MODEL + """
    save = keras.callbacks.ModelCheckpoint("best.weights.h5", save_best_only=True, save_weights_only=True)
    model.fit(x, target, callbacks=[save], epochs=1, verbose=0, $FIT)
""",
        "ModelCheckpoint, save_freq 3": MODEL + """
    import os

    save = keras.callbacks.ModelCheckpoint("step-{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=3,
                                           verbose=1)
    model.fit(x, target, callbacks=[save], epochs=2, verbose=0, $FIT)
    result["files"] = sorted(os.listdir())
""",
        "ReduceLROnPlateau": MODEL + """
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=9.0, verbose=1)
    model.fit(x, target, callbacks=[plateau], epochs=4, verbose=2, $FIT)
""",
        "ReduceLROnPlateau of an unknown quantity": MODEL + """
    model.fit(x, target, callbacks=[keras.callbacks.ReduceLROnPlateau()], epochs=1, verbose=0, $FIT)
""",
        "LearningRateScheduler": MODEL + """
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate, verbose=1)
    model.fit(x, target, callbacks=[rate], epochs=2, verbose=2, $FIT)
""",
        "TerminateOnNaN": MODEL + """
    x = x.copy()
    x[40] = np.nan
    model.fit(x, target, callbacks=[keras.callbacks.TerminateOnNaN()], epochs=2, verbose=2, $FIT)
""",
        "CSVLogger": MODEL + """
    save = keras.callbacks.CSVLogger("log.csv")
    model.fit(x, target, validation_split=0.3, callbacks=[save], epochs=2, verbose=0, $FIT)
    with open("log.csv") as file:
        result["log"] = file.read()
""",
        "CSVLogger, appended, other separator": MODEL + """
    for _ in range(2):
        save = keras.callbacks.CSVLogger("log.csv", separator=";", append=True)
        model.fit(x, target, callbacks=[save], epochs=2, verbose=0, $FIT)
    with open("log.csv") as file:
        result["log"] = file.read()
""",
    }  # fmt: skip
    return {name: _case(name, code, "x target") for name, code in codes.items()}


def _summaries() -> dict[str, Any]:
    two_inputs = """
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    shared = layers.Dense(4, activation="tanh", name="shared")
    merged = layers.Concatenate(name="together")([shared(left), shared(right)])
    model = keras.Model([left, right], layers.Dense(1, name="out")(merged), name="twins")
"""
    nested = """
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(3)], name="inner")
    inputs = keras.Input((6,))
    added = layers.Add()([inner(inputs), layers.Dense(3)(inputs)])
    model = keras.Model(inputs, layers.Dense(1)(added), name="outer")
"""
    article = """
    model = keras.Sequential()
    model.add(layers.Dense(32, activation="relu", input_shape=(784,)))
    model.add(layers.Dense(10, activation="softmax"))
"""
    codes = {
        "the article's model": article + "    model.summary()\n",
        "compiled": article + """
    model.compile("adam", loss="mse")
    model.summary()
""",
        "trained": """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)], name="trained")
    model.compile("adam", loss="mse")
    model.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    model.summary()
""",
        "not built": """
    model = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    model.summary()
""",
        "shared layer and two inputs": two_inputs + "    model.summary()\n",
        "shared, wide": two_inputs + "    model.summary(line_length=120)\n",
        "shared, wide, in a wide window": two_inputs + """
    import os

    os.environ["COLUMNS"] = "200"
    model.summary(line_length=120)
    model.summary()
    os.environ["COLUMNS"] = "80"
""",
        "shared, narrow": two_inputs + "    model.summary(line_length=50)\n",
        "shared, positions": two_inputs + "    model.summary(positions=[0.3, 0.5, 0.6, 1.0])\n",
        "shared, show_trainable": two_inputs + """
    shared.trainable = False
    model.summary(show_trainable=True)
""",
        "nested": nested + "    model.summary()\n",
        "nested, expanded": nested + "    model.summary(expand_nested=True)\n",
        "nested, expanded, trainable": nested + "    model.summary(expand_nested=True, show_trainable=True)\n",
        "layer_range": nested + '    model.summary(layer_range=["inner", "add"])\n',
        "print_fn": article + """
    lines = []
    model.summary(print_fn=lines.append)
    result["lines"] = lines
""",
        "long names, large numbers": """
    model = keras.Sequential([keras.Input((40000,), name="an_input_with_a_rather_long_name"),
                              layers.Dense(5000, name="a_layer_whose_name_does_not_fit_into_its_column_of_the_table"),
                              layers.Dense(1)], name="large")
    model.summary()
""",
        "reshaping and no weights": """
    model = keras.Sequential([keras.Input((4, 6)), layers.Flatten(), layers.Dropout(0.5), layers.Activation("relu"),
                              layers.Reshape((6, 4)), layers.Dense(2)])
    model.summary()
""",
        "subclassed": """
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(5)
            self.second = layers.Dense(1)

        def call(self, x):
            return self.second(self.first(x))

    model = Mine()
    model(np.ones((2, 3)))
    model.summary()
""",
        "several outputs of one layer": """
    class Halves(layers.Layer):
        def call(self, x):
            return x[:, :2], x[:, 2:]

    inputs = keras.Input((4,))
    a, b = Halves(name="halves")(inputs)
    model = keras.Model(inputs, [layers.Dense(1)(a), layers.Dense(2)(b)])
    model.summary()
""",
        "operations": """
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(keras.ops.exp(inputs) * 2.0 + inputs))
    model.summary()
""",
    }  # fmt: skip
    return {name: printed(name, code) for name, code in codes.items()}


def _names() -> dict[str, Any]:
    codes = {
        "counted by class": """
    result["dense"] = [layers.Dense(1).name for _ in range(3)]
    result["models"] = [keras.Sequential().name, keras.Sequential().name]
    inputs = keras.Input((1,))
    result["models"] += [keras.Model(inputs, inputs + 1.0).name, keras.Model(inputs, inputs + 1.0).name]
    result["inputs"] = [keras.Input((1,)).name, keras.Input((1,)).name, keras.Input((1,), name="mine").name]
    result["given names do not count"] = [layers.Dense(1, name="dense_3").name, layers.Dense(1).name]
    keras.utils.clear_session()
    result["cleared"] = [layers.Dense(1).name, keras.Sequential().name]
""",
        "of classes": """
    classes = [layers.LeakyReLU, layers.ReLU, layers.ELU, layers.PReLU, layers.Softmax, layers.Flatten, layers.Add,
               layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate,
               layers.BatchNormalization, layers.LayerNormalization, layers.GlobalAveragePooling2D, layers.Masking,
               layers.Identity, layers.UpSampling2D, layers.ActivityRegularization, layers.MaxPooling2D, layers.Reshape]
    made = [c((1,)) if c is layers.Reshape else c() for c in classes]
    result["names"] = {type(layer).__name__: layer.name for layer in made}

    class MyOwnLayer2D(layers.Layer):
        pass

    class HTTPLayer(layers.Layer):
        pass

    class lower(layers.Layer):
        pass

    class _Hidden(layers.Layer):
        pass

    result["own"] = [c().name for c in (MyOwnLayer2D, HTTPLayer, lower, _Hidden)]
    result["others"] = [keras.losses.MeanSquaredError().name, keras.metrics.Mean().name, keras.metrics.AUC().name,
                        keras.metrics.AUC().name, keras.optimizers.Adam().name, keras.optimizers.RMSprop().name]
""",
        "layers and weights of a functional model": """
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    second = layers.Dense(5, name="second")
    first = layers.Dense(5, name="first")
    x = layers.Add(name="sum")([first(a), second(b)])
    x = layers.Multiply(name="product")([x, second(b)])
    model = keras.Model([b, a], [layers.Dense(2, name="tail")(x), x], name="graph")
    result["layers"] = [layer.name for layer in model.layers]
    result["inputs"] = [tensor.name for tensor in model.inputs]
    result["outputs"] = [list(tensor.shape) for tensor in model.outputs]
    result["output_names"] = model.output_names
    result["weights"] = [weight.path for weight in model.weights]
    result["weight names"] = [weight.name for weight in model.weights]
    result["shapes"] = [list(array.shape) for array in model.get_weights()]
    result["count_params"] = model.count_params()
    result["input_shape"], result["output_shape"] = model.input_shape, model.output_shape
    result["get_layer"] = [model.get_layer("tail").name, model.get_layer(index=2).name]
""",
        "layers and weights of a Sequential": """
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Activation("relu"), layers.Dense(2)])
    result["name"], result["layers"] = model.name, [layer.name for layer in model.layers]
    result["weights"] = [weight.path for weight in model.weights]
    result["shapes"] = [list(array.shape) for array in model.get_weights()]
    result["input_shape"], result["output_shape"] = model.input_shape, model.output_shape
    model.pop()
    result["after pop"] = [layer.name for layer in model.layers]
    result["output_shape after pop"] = model.output_shape
    late = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    result["built"] = [late.built]
    late(np.ones((2, 3)))
    result["built"].append(late.built)
    result["late weights"] = [weight.path for weight in late.weights]
""",
        "shared and nested": """
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(3)])
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Add()([inner(inputs), inner(inputs)]))
    result["layers"] = [layer.name for layer in model.layers]
    result["weights"] = [weight.path for weight in model.weights]
    result["shapes"] = [list(array.shape) for array in model.get_weights()]
""",
        "trainable": """
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])
    model.get_layer("a").trainable = False
    result["trainable"] = [weight.path for weight in model.trainable_weights]
    result["non_trainable"] = [weight.path for weight in model.non_trainable_weights]
    result["weights"] = [weight.path for weight in model.weights]
    model.trainable = False
    result["none trainable"] = [weight.path for weight in model.trainable_weights]
    model.trainable = True
    result["all trainable"] = [weight.path for weight in model.trainable_weights]
""",
        "a layer's weights": """
    class Mine(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(2)
            self.list = [layers.Dense(1), layers.Dense(1)]

        def build(self, shape):
            self.last = self.add_weight(shape=(2,), name="last", trainable=False)
            self.first = self.add_weight(shape=(3,))
            self.inner.build(shape)
            for layer in self.list:
                layer.build(shape)

        def call(self, x):
            return x

    layer = Mine()
    layer.build((None, 3))
    result["weights"] = [weight.path for weight in layer.weights]
    result["trainable"] = [weight.path for weight in layer.trainable_weights]
    result["shapes"] = [list(array.shape) for array in layer.get_weights()]
""",
        "old names": """
    layer = layers.Dense(4, input_shape=(3,))
    model = keras.Sequential([layer])
    result["built"] = model.built
    model = keras.Sequential()
    model.add(layers.Dense(4, input_dim=3))
    result["input_shape"] = model.input_shape
""",
        "operators of symbolic tensors": """
    x = keras.Input((4,), name="x")
    made = [x + 1.0, 2.0 - x, x * x, x / 2.0, x**2.0, -x, abs(x), x @ keras.ops.ones((4, 3)), x[:, 1:3], x > 0.0,
            x[..., None]]
    result["shapes"] = [list(y.shape) for y in made]
    result["dtypes"] = [y.dtype for y in made]
    result["text"] = repr(x)
    result["ndim"] = x.ndim
""",
    }  # fmt: skip
    return {name: printed(name, code) for name, code in codes.items()}


def _reprs() -> dict[str, Any]:
    codes = {
        "objects": """
    layer = layers.Dense(4)
    result["layer"] = repr(layer)
    model = keras.Sequential([keras.Input((3,)), layer])
    result["model"] = repr(model)
    result["functional"] = repr(keras.Model(model.inputs, model.outputs))
    result["variable"] = repr(layer.bias)
    result["input"] = repr(keras.Input((3,)))
    result["metric"] = repr(keras.metrics.Mean())
    result["history"] = type(model).__name__
    result["loss"] = repr(keras.losses.Huber(delta=2.0)).split(" at ")[0]
    result["input_spec"] = repr(keras.InputSpec(ndim=2, axes={-1: 3}))
""",
    }  # fmt: skip
    return {name: printed(name, code) for name, code in codes.items()}
