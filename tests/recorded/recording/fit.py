# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Training of small models from given weights, without shuffling: history, results, weights afterwards."""

from typing import Any

import numpy as np

from .snippets import train
from .store import random_of

CASES: dict[str, dict[str, Any]] = {}


def _data() -> dict[str, Any]:
    """50 rows of 6 features, which batches of 16 do not divide."""
    random = random_of("fit data")
    x = random.standard_normal((50, 6)).astype("float32")
    target = (x[:, :1] * x[:, 1:2] + np.sin(x[:, 2:3])).astype("float32")
    label = (x[:, :4] + 0.3 * random.standard_normal((50, 4))).argmax(-1)
    return {
        "x": x, "target": target, "label": label, "one_hot": np.eye(4, dtype="float32")[label],
        "binary": (target > 0).astype("float32"), "weight": random.uniform(0, 2, 50).astype("float32"),
        "sequence": random.standard_normal((20, 5, 3)).astype("float32"),
        "steps": random.standard_normal((20, 5, 2)).astype("float32"),
    }  # fmt: skip


DATA = _data()
REGRESSION = """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
"""
CLASSES = """
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(4, activation="softmax"),
    ])
"""
LOGITS = """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(4)])
"""
BINARY = """
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(1, activation="sigmoid"),
    ])
"""
TWO_HEADS = """
    features = keras.Input((6,), name="features")
    hidden = layers.Dense(5, activation="tanh", name="hidden")(features)
    amount = layers.Dense(1, name="amount")(hidden)
    kind = layers.Dense(4, activation="softmax", name="kind")(hidden)
    model = keras.Model(features, [amount, kind], name="heads")
"""
FIT = "batch_size=16, epochs=3, shuffle=False, verbose=0"


def record() -> dict[str, Any]:
    CASES.clear()
    for part in (_plain, _optimizers, _weights, _validation, _heads, _custom, _graphs, _flow, _batches, _callbacks):
        part()
    return {"cases": CASES}


def add(name: str, build: str, run: str, data: str, **given: Any) -> None:
    """Record a case; `data` names the arrays of DATA that it is given."""
    assert name not in CASES, name
    CASES[name] = train(name, build, run.replace("$FIT", FIT), **{key: DATA[key] for key in data.split()}, **given)


def _plain() -> None:
    for loss in ("mse", "mae", "huber", "log_cosh", "cosine_similarity", "mean_squared_logarithmic_error"):
        add(f"regression, {loss}", REGRESSION + f"""
    model.compile("sgd", loss="{loss}", metrics=["mae"])
""", """
    history = model.fit(x, target, $FIT)
    result["evaluate"] = model.evaluate(x, target, batch_size=16, verbose=0)
    result["predict"] = model.predict(x[:7], verbose=0)
""", "x target")
    add("no metrics", REGRESSION + """
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
    result["evaluate"] = model.evaluate(x, target, verbose=0)
    result["evaluate, return_dict"] = model.evaluate(x, target, verbose=0, return_dict=True)
""", "x target")
    add("labels of rank 1 for one unit", REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae", "mse"])
""", """
    history = model.fit(x, target[:, 0], $FIT)
""", "x target")
    add("sparse classes", CLASSES + """
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
""", """
    history = model.fit(x, label, $FIT)
    result["evaluate"] = model.evaluate(x, label, batch_size=16, verbose=0)
    result["predict"] = model.predict(x[:7], verbose=0)
""", "x label")
    add("sparse classes as a column of floats", CLASSES + """
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
""", """
    history = model.fit(x, label[:, None].astype("float32"), $FIT)
""", "x label")
    add("one-hot classes", CLASSES + """
    model.compile("sgd", loss="categorical_crossentropy", metrics=["accuracy", "mse", "top_k_categorical_accuracy"])
""", """
    history = model.fit(x, one_hot, $FIT)
    result["evaluate"] = model.evaluate(x, one_hot, verbose=0, return_dict=True)
""", "x one_hot")
    add("the article's loss: mse of a softmax", CLASSES + """
    model.compile(keras.optimizers.RMSprop(0.01), loss="mse", metrics=["accuracy"])
""", """
    history = model.fit(x, one_hot, $FIT)
""", "x one_hot")
    add("logits and label smoothing", LOGITS + """
    model.compile("sgd", loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
                  metrics=[keras.metrics.CategoricalCrossentropy(from_logits=True), "acc"])
""", """
    history = model.fit(x, one_hot, $FIT)
""", "x one_hot")
    add("sparse logits, crossentropy by shapes", LOGITS + """
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
""", """
    history = model.fit(x, label, $FIT)
""", "x label")
    add("binary", BINARY + """
    model.compile("sgd", loss="binary_crossentropy",
                  metrics=["accuracy", "AUC", keras.metrics.Precision(), keras.metrics.Recall(name="recalled")])
""", """
    history = model.fit(x, binary, $FIT)
    result["evaluate"] = model.evaluate(x, binary, verbose=0, return_dict=True)
""", "x binary")
    add("hinge", REGRESSION + """
    model.compile("sgd", loss="squared_hinge", metrics=["hinge", "binary_accuracy"])
""", """
    history = model.fit(x, 2 * binary - 1, $FIT)
""", "x binary")
    add("kl_divergence and poisson", CLASSES + """
    model.compile("sgd", loss="kl_divergence", metrics=["poisson", "kl_divergence", "cosine_similarity"])
""", """
    history = model.fit(x, 0.7 * one_hot + 0.075, $FIT)
""", "x one_hot")
    for reduction in ("sum", "mean_with_sample_weight"):
        add(f"reduction {reduction}", REGRESSION + f"""
    model.compile(keras.optimizers.SGD(0.001), loss=keras.losses.MeanSquaredError(reduction="{reduction}"))
""", """
    history = model.fit(x, target, sample_weight=weight, $FIT)
    result["evaluate"] = model.evaluate(x, target, sample_weight=weight, batch_size=16, verbose=0)
""", "x target weight")
    add("integer and double inputs", REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae"])
""", """
    history = model.fit((3 * x).astype("int32"), target.astype("float64"), $FIT)
    result["predict"] = model.predict((3 * x[:4]).astype("int32"), verbose=0)
    result["predict dtype"] = model.predict(x[:4].astype("float64"), verbose=0).dtype.name
""", "x target")  # fmt: skip


def _optimizers() -> None:
    made = {
        "SGD, nesterov": 'keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)',
        "RMSprop": '"rmsprop"', "Adam": '"adam"', "Adagrad": 'keras.optimizers.Adagrad(0.1)',
        "AdamW": 'keras.optimizers.AdamW(0.01, weight_decay=0.1)',
        "Adam, clipnorm": 'keras.optimizers.Adam(0.01, clipnorm=0.1)',
        "SGD, global_clipnorm": 'keras.optimizers.SGD(0.1, global_clipnorm=0.1)',
        "SGD, accumulation 2": 'keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)',
        "SGD, use_ema": 'keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)',
        "SGD, use_ema, overwrite 3": 'keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8, '
                                     'ema_overwrite_frequency=3)',
        "SGD, exponential decay": 'keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5))',
        "LossScaleOptimizer": 'keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0, '
                              'dynamic_growth_steps=3)',
    }  # fmt: skip
    for name, code in made.items():
        add(f"optimizer {name}", REGRESSION + f"""
    model.compile({code}, loss="mse")
""", """
    history = model.fit(x, target, $FIT)
    result["iterations"] = int(np.asarray(model.optimizer.iterations))
    result["evaluate"] = model.evaluate(x, target, verbose=0)
""", "x target")  # fmt: skip


def _weights() -> None:
    plain = CLASSES + """
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"],
                  weighted_metrics=["sparse_categorical_crossentropy"])
"""
    add("sample_weight", plain, """
    history = model.fit(x, label, sample_weight=weight, $FIT)
    result["evaluate"] = model.evaluate(x, label, sample_weight=weight, batch_size=16, verbose=0, return_dict=True)
    result["evaluate without"] = model.evaluate(x, label, batch_size=16, verbose=0, return_dict=True)
""", "x label weight")
    add("sample_weight, a column", REGRESSION + """
    model.compile("sgd", loss="mse", weighted_metrics=["mae"])
""", """
    history = model.fit(x, target, sample_weight=weight[:, None], $FIT)
""", "x target weight")
    add("class_weight", plain, """
    history = model.fit(x, label, class_weight={0: 0.5, 1: 2.0, 2: 1.0, 3: 3.0}, $FIT)
""", "x label")
    add("class_weight, a class left out", plain, """
    history = model.fit(x, label, class_weight={0: 0.5, 1: 2.0}, $FIT)
""", "x label")
    add("class_weight, one-hot", CLASSES + """
    model.compile("sgd", loss="categorical_crossentropy", weighted_metrics=["accuracy"])
""", """
    history = model.fit(x, one_hot, class_weight={0: 0.5, 1: 2.0, 2: 1.0, 3: 3.0}, $FIT)
""", "x one_hot")
    add("class_weight, binary", BINARY + """
    model.compile("sgd", loss="binary_crossentropy", metrics=["accuracy"], weighted_metrics=["binary_crossentropy"])
""", """
    history = model.fit(x, binary, class_weight={0: 0.3, 1: 2.0}, validation_split=0.2, $FIT)
""", "x binary")
    sequence = """
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
    model.compile("sgd", loss="mse", metrics=["mae"], weighted_metrics=["mse"])
"""
    add("sequence", sequence, """
    history = model.fit(sequence, steps, batch_size=8, epochs=2, shuffle=False, verbose=0)
""", "sequence steps")
    add("sequence, weight a row", sequence, """
    rows = weight[:20, None]
    history = model.fit(sequence, steps, sample_weight=rows, batch_size=8, epochs=2, shuffle=False, verbose=0)
""", "sequence steps weight")
    add("sequence, weight a step", sequence, """
    each = np.resize(weight, (20, 5))
    history = model.fit(sequence, steps, sample_weight=each, batch_size=8, epochs=2, shuffle=False, verbose=0)
""", "sequence steps weight")
    add("sequence, masked", """
    model = keras.Sequential([
        keras.Input((5, 3)), layers.Masking(), layers.Dense(4, activation="tanh"), layers.Dense(2),
    ])
    model.compile("sgd", loss="mse", metrics=["mae"], weighted_metrics=["mse"])
""", """
    masked = sequence.copy()
    masked[::2, 3:] = 0
    masked[1::4, 1:] = 0
    history = model.fit(masked, steps, batch_size=8, epochs=2, shuffle=False, verbose=0)
    result["evaluate"] = model.evaluate(masked, steps, batch_size=8, verbose=0, return_dict=True)
""", "sequence steps")  # fmt: skip


def _validation() -> None:
    build = REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae"])
"""
    add("validation_split", build, """
    history = model.fit(x, target, validation_split=0.3, $FIT)
""", "x target")
    add("validation_split and sample_weight", REGRESSION + """
    model.compile("sgd", loss="mse", weighted_metrics=["mae"])
""", """
    history = model.fit(x, target, sample_weight=weight, validation_split=0.3, $FIT)
""", "x target weight")
    add("validation_data", build, """
    history = model.fit(x[:30], target[:30], validation_data=(x[30:], target[30:]), $FIT)
""", "x target")
    add("validation_data, weighted, other batch size", build, """
    rest = (x[30:], target[30:], weight[30:])
    history = model.fit(x[:30], target[:30], validation_data=rest, validation_batch_size=7, $FIT)
""", "x target weight")
    add("validation_freq 2", build, """
    history = model.fit(x, target, validation_data=(x[:20], target[:20]), validation_freq=2, batch_size=16, epochs=5,
                        shuffle=False, verbose=0)
""", "x target")
    add("validation_freq list", build, """
    rows = (x[:20], target[:20])
    history = model.fit(x, target, validation_data=rows, validation_freq=[1, 4], batch_size=16, epochs=5,
                        shuffle=False, verbose=0)
""", "x target")
    add("validation_steps", build, """
    history = model.fit(x, target, validation_data=(x, target), validation_steps=2, $FIT)
""", "x target")  # fmt: skip


def _heads() -> None:
    compiled = {
        "lists": """loss=["mse", "sparse_categorical_crossentropy"], loss_weights=[1.0, 0.5],
                  metrics=[["mae"], ["accuracy"]]""",
        "dicts": """loss={"amount": "mse", "kind": "sparse_categorical_crossentropy"},
                  loss_weights={"amount": 1.0, "kind": 0.5}, metrics={"amount": "mae", "kind": ["accuracy"]}""",
        "no weights, no metrics": """loss=["mse", "sparse_categorical_crossentropy"]""",
        "metrics of one head": """loss=["mse", "sparse_categorical_crossentropy"],
                  metrics={"kind": ["accuracy", "sparse_categorical_crossentropy"]}""",
        "no loss of one head": """loss=["mse", None], metrics=[["mae"], ["accuracy"]]""",
        "one loss for all": """loss="mse", metrics=[["mae"], ["mae"]]""",
        "weighted_metrics": """loss={"amount": "mse", "kind": "sparse_categorical_crossentropy"},
                  weighted_metrics={"amount": ["mae", "mse"], "kind": ["accuracy"]}""",
    }  # fmt: skip
    for name, arguments in compiled.items():
        kind, data = ("one_hot", "x target one_hot") if name == "one loss for all" else ("label", "x target label")
        add(f"two heads, {name}", TWO_HEADS + f"""
    model.compile("sgd", {arguments})
""", f"""
    history = model.fit(x, [target, {kind}], validation_split=0.2, $FIT)
    result["evaluate"] = model.evaluate(x, [target, {kind}], batch_size=16, verbose=0)
    result["evaluate, return_dict"] = model.evaluate(x, [target, {kind}], batch_size=16, verbose=0, return_dict=True)
    result["metrics_names"] = model.metrics_names
    result["metrics"] = [metric.name for metric in model.metrics]
    result["output_names"] = model.output_names
    result["predict"] = model.predict(x[:5], verbose=0)
""", data)
    add("two heads, labels in a dict", TWO_HEADS + """
    model.compile("sgd", loss={"kind": "sparse_categorical_crossentropy", "amount": "mse"},
                  metrics={"kind": ["accuracy"]})
""", """
    history = model.fit({"features": x}, {"kind": label, "amount": target}, $FIT)
""", "x target label")
    add("two heads, weights of each", TWO_HEADS + """
    model.compile("sgd", loss=["mse", "sparse_categorical_crossentropy"], weighted_metrics=[["mae"], ["accuracy"]])
""", """
    history = model.fit(x, [target, label], sample_weight=[weight, weight[::-1]], $FIT)
""", "x target label weight")
    add("two heads, outputs in a dict", """
    features = keras.Input((6,))
    hidden = layers.Dense(5, activation="tanh")(features)
    outputs = {"one": layers.Dense(1)(hidden), "another": layers.Dense(4, activation="softmax")(hidden)}
    model = keras.Model(features, outputs)
    model.compile("sgd", loss={"one": "mse", "another": "sparse_categorical_crossentropy"},
                  loss_weights={"one": 2.0, "another": 1.0}, metrics={"another": ["accuracy"]})
""", """
    history = model.fit(x, {"one": target, "another": label}, $FIT)
    result["predict"] = model.predict(x[:5], verbose=0)
    result["output_names"] = model.output_names
""", "x target label")
    add("loss_weights of one output", REGRESSION + """
    model.compile("sgd", loss="mse", loss_weights=[0.5], metrics=["mse"])
""", """
    history = model.fit(x, target, $FIT)
""", "x target")  # fmt: skip


def _custom() -> None:
    add("custom loss function, a row each", REGRESSION + """
    def fourth(y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 4, axis=-1)

    model.compile("sgd", loss=fourth, metrics=[fourth])
""", """
    history = model.fit(x, target, sample_weight=weight, $FIT)
""", "x target weight")
    add("custom loss function, a scalar", REGRESSION + """
    def root(y_true, y_pred):
        return keras.ops.sqrt(keras.ops.mean((y_true - y_pred) ** 2))

    model.compile("sgd", loss=root, metrics=[root])
""", """
    history = model.fit(x, target, $FIT)
""", "x target")
    add("custom Loss and Metric classes", REGRESSION + """
    class Scaled(keras.losses.Loss):
        def __init__(self, factor, name="scaled"):
            super().__init__(name=name)
            self.factor = factor

        def call(self, y_true, y_pred):
            return self.factor * keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

    class Largest(keras.metrics.Metric):
        def __init__(self, name="largest"):
            super().__init__(name=name)
            self.value = self.add_variable((), "zeros", name="value")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.value.assign(keras.ops.maximum(self.value, keras.ops.max(keras.ops.abs(y_true - y_pred))))

        def result(self):
            return keras.ops.convert_to_tensor(self.value)

    model.compile("sgd", loss=Scaled(0.5), metrics=[Largest()])
""", """
    history = model.fit(x, target, validation_split=0.2, $FIT)
""", "x target")
    add("regularizers", """
    model = keras.Sequential([
        keras.Input((6,)),
        layers.Dense(5, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01), bias_regularizer="l1"),
        layers.Dense(1, kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02), activity_regularizer="l2"),
    ])
    model.compile("sgd", loss="mse", metrics=["mse"])
""", """
    history = model.fit(x, target, $FIT)
    result["evaluate"] = model.evaluate(x, target, batch_size=16, verbose=0)
    result["losses"] = [float(loss) for loss in model.losses]
""", "x target")
    add("constraints", """
    model = keras.Sequential([
        keras.Input((6,)),
        layers.Dense(5, activation="tanh", kernel_constraint=keras.constraints.MaxNorm(0.8), bias_constraint="non_neg"),
        layers.Dense(1, kernel_constraint="unit_norm"),
    ])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
""", """
    history = model.fit(x, target, $FIT)
""", "x target")
    add("add_loss in a layer", """
    class Sparse(layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(x)))
            return x

    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), Sparse(), layers.Dense(1)])
    model.compile("sgd", loss="mse", metrics=["mse"])
""", """
    history = model.fit(x, target, $FIT)
    result["evaluate"] = model.evaluate(x, target, batch_size=16, verbose=0)
""", "x target")
    add("add_loss only, no labels", """
    class Reconstruct(layers.Layer):
        def call(self, inputs):
            x, y = inputs
            self.add_loss(keras.ops.mean((x - y) ** 2))
            return y

    inputs = keras.Input((6,))
    outputs = Reconstruct()([inputs, layers.Dense(6)(layers.Dense(2)(inputs))])
    model = keras.Model(inputs, outputs)
    model.compile("sgd")
""", """
    history = model.fit(x, $FIT)
    result["evaluate"] = model.evaluate(x, batch_size=16, verbose=0)
""", "x")
    add("custom layer with weights", """
    class Scale(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")
            self.offset = self.add_weight(shape=(), initializer="zeros", name="offset", trainable=False)

        def call(self, x):
            return x * self.factor + self.offset

    model = keras.Sequential([keras.Input((6,)), Scale(), layers.Dense(1)])
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
    result["paths"] = [weight.path for weight in model.weights]
    result["trainable"] = [weight.path for weight in model.trainable_weights]
""", "x target")
    add("a layer not trained", """
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, trainable=False, name="fixed"), layers.Dense(1)])
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
""", "x target")
    add("subclassed model", """
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(5, activation="tanh")
            self.second = layers.Dense(1)

        def call(self, x):
            return self.second(self.first(x))

    model = Mine()
    model(np.zeros((1, 6), "float32"))
    model.compile("sgd", loss="mse", metrics=["mae"])
""", """
    history = model.fit(x, target, $FIT)
    result["predict"] = model.predict(x[:5], verbose=0)
    result["paths"] = [weight.path for weight in model.weights]
""", "x target")  # fmt: skip


def _graphs() -> None:
    add("shared layer, two inputs", """
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    shared = layers.Dense(4, activation="tanh", name="shared")
    merged = layers.Concatenate()([shared(left), shared(right)])
    model = keras.Model([left, right], layers.Dense(1)(merged))
    model.compile("sgd", loss="mse")
""", """
    history = model.fit([x[:, :3], x[:, 3:]], target, $FIT)
    result["predict"] = model.predict([x[:5, :3], x[:5, 3:]], verbose=0)
    result["predict of a dict"] = model.predict({"right": x[:5, 3:], "left": x[:5, :3]}, verbose=0)
""", "x target")
    add("inputs in a dict", """
    inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
    model = keras.Model(inputs, layers.Dense(1)(layers.Subtract()([inputs["a"], inputs["b"]])))
    model.compile("sgd", loss="mse")
""", """
    history = model.fit({"a": x[:, :3], "b": x[:, 3:]}, target, $FIT)
""", "x target")
    add("nested models", """
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(3)], name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()([inner(inputs), layers.Dense(3)(inputs)])))
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
    result["paths"] = [weight.path for weight in model.weights]
""", "x target")
    add("residual, merging layers", """
    inputs = keras.Input((6,))
    a, b = layers.Dense(6, activation="tanh")(inputs), layers.Dense(6)(inputs)
    merged = [layers.Add()([inputs, a]), layers.Multiply()([a, b]), layers.Average()([a, b, inputs]),
              layers.Maximum()([a, b]), layers.Minimum()([a, b]), layers.Subtract()([a, b]),
              layers.Dot(axes=1)([a, b]), layers.Dot(axes=1, normalize=True)([a, inputs])]
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(merged)))
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
""", "x target")
    add("shapes and activations", """
    inputs = keras.Input((6,))
    h = layers.Reshape((2, 3))(inputs)
    h = layers.ELU()(layers.Dense(4)(h))
    h = layers.Flatten()(layers.LeakyReLU()(layers.Dense(3)(h)))
    h = layers.Dropout(0.0)(layers.ReLU(max_value=2.0)(h))
    model = keras.Model(inputs, layers.Softmax()(layers.Activation("tanh")(layers.Dense(4)(h))))
    model.compile("sgd", loss="categorical_crossentropy", metrics=["accuracy"])
""", """
    history = model.fit(x, one_hot, $FIT)
""", "x one_hot")
    add("lambda layer", """
    inputs = keras.Input((6,))
    h = layers.Lambda(lambda x: keras.ops.square(x) + 1.0)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(keras.ops.tanh(h)))
    model.compile("sgd", loss="mse")
""", """
    history = model.fit(x, target, $FIT)
    result["layers"] = [layer.name for layer in model.layers]
""", "x target")  # fmt: skip


def _flow() -> None:
    build = REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae"])
"""
    add("initial_epoch", build, """
    history = model.fit(x, target, initial_epoch=2, batch_size=16, epochs=5, shuffle=False, verbose=0)
""", "x target")
    add("two fits", build, """
    result["first"] = model.fit(x, target, $FIT).history
    history = model.fit(x, target, $FIT)
""", "x target")
    add("steps_per_epoch", build, """
    history = model.fit(x, target, steps_per_epoch=2, $FIT)
""", "x target")
    add("generator", build, """
    def batches():
        while True:
            for start in range(0, 48, 16):
                yield x[start : start + 16], target[start : start + 16]

    history = model.fit(batches(), steps_per_epoch=3, epochs=2, verbose=0)
    result["evaluate"] = model.evaluate(batches(), steps=3, verbose=0)
    result["predict"] = model.predict(((x[start : start + 16],) for start in (0, 16)), verbose=0).shape
""", "x target")
    add("generator of weighted batches", build, """
    def batches():
        while True:
            for start in range(0, 50, 16):
                rows = slice(start, start + 16)
                yield x[rows], target[rows], weight[rows]

    history = model.fit(batches(), steps_per_epoch=4, epochs=2, verbose=0)
""", "x target weight")
    add("PyDataset", build, """
    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            rows = slice(16 * index, 16 * index + 16)
            return x[rows], target[rows]

    history = model.fit(Rows(), epochs=2, shuffle=False, verbose=0, validation_data=Rows())
""", "x target")
    add("steps_per_execution 3", REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae"], steps_per_execution=3)
""", """
    seen = []
    history = model.fit(x, target, callbacks=[keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(["begin", batch]),
        on_train_batch_end=lambda batch, logs: seen.append(["end", batch]))], $FIT)
    result["seen"] = seen
""", "x target")
    add("batch as large as the data, and larger", build, """
    history = model.fit(x, target, batch_size=50, epochs=2, shuffle=False, verbose=0)
    result["larger"] = model.fit(x, target, batch_size=500, epochs=2, shuffle=False, verbose=0).history
""", "x target")
    add("default batch size", build, """
    history = model.fit(x, target, epochs=2, shuffle=False, verbose=0)
    result["params"] = history.params
""", "x target")
    add("batches of one", build, """
    history = model.fit(x[:5], target[:5], batch_size=1, epochs=2, shuffle=False, verbose=0)
""", "x target")
    add("learning rate changed between fits", build, """
    result["first"] = model.fit(x, target, $FIT).history
    model.optimizer.learning_rate = 0.1
    history = model.fit(x, target, $FIT)
    result["learning rate"] = float(np.asarray(model.optimizer.learning_rate))
""", "x target")  # fmt: skip


def _batches() -> None:
    build = REGRESSION + """
    model.compile("sgd", loss="mse", metrics=["mae"])
"""
    add("train_on_batch", build, """
    result["steps"] = [model.train_on_batch(x[:16], target[:16]) for _ in range(3)]
    result["return_dict"] = model.train_on_batch(x[16:32], target[16:32], return_dict=True)
    result["weighted"] = model.train_on_batch(x[:16], target[:16], sample_weight=weight[:16])
    result["other size"] = model.train_on_batch(x[:3], target[:3])
    result["iterations"] = int(np.asarray(model.optimizer.iterations))
""", "x target weight")
    add("train_on_batch without metrics", REGRESSION + """
    model.compile("sgd", loss="mse")
""", """
    result["steps"] = [model.train_on_batch(x[:16], target[:16]) for _ in range(3)]
    result["reset"] = []
    for _ in range(2):
        model.reset_metrics()
        result["reset"].append(model.train_on_batch(x[:16], target[:16]))
""", "x target")
    add("train_on_batch, class_weight", CLASSES + """
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
""", """
    result["steps"] = [model.train_on_batch(x, label, class_weight={0: 0.5, 1: 2.0, 2: 1.0, 3: 3.0}) for _ in range(3)]
""", "x label")
    add("test_on_batch and predict_on_batch", build, """
    result["steps"] = [model.test_on_batch(x[a:b], target[a:b]) for a, b in ((0, 16), (16, 32), (32, 35))]
    result["return_dict"] = model.test_on_batch(x[:16], target[:16], return_dict=True)
    result["weighted"] = model.test_on_batch(x[:16], target[:16], sample_weight=weight[:16])
    result["predict"] = model.predict_on_batch(x[:5])
    result["call"] = np.asarray(model(x[:5]))
""", "x target weight")
    add("evaluate in batches", build, """
    result["evaluate"] = [model.evaluate(x, target, batch_size=size, verbose=0) for size in (1, 7, 16, 50, 100)]
    result["steps"] = model.evaluate(x, target, batch_size=16, steps=2, verbose=0)
    result["weighted"] = model.evaluate(x, target, sample_weight=weight, batch_size=16, verbose=0)
    result["predict"] = [model.predict(x[:n], batch_size=16, verbose=0).shape for n in (1, 15, 16, 17, 50)]
    result["predict, 2 steps"] = model.predict(x, batch_size=16, steps=2, verbose=0).shape
""", "x target weight")  # fmt: skip


def _callbacks() -> None:
    build = REGRESSION + """
    model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
"""
    add("the order of hooks", build, """
    calls = []

    class Log(keras.callbacks.Callback):
        pass

    def hook(name):
        def method(self, *given, **named):
            *index, logs = [*given, *named.values()]
            calls.append([name, *index, None if logs is None else sorted(logs)])

        return method

    for name in ("train_begin", "train_end", "epoch_begin", "epoch_end", "train_batch_begin", "train_batch_end",
                 "test_begin", "test_end", "test_batch_begin", "test_batch_end", "predict_begin", "predict_end",
                 "predict_batch_begin", "predict_batch_end"):
        setattr(Log, "on_" + name, hook(name))
    log = Log()
    history = model.fit(x, target, validation_split=0.2, callbacks=[log], batch_size=16, epochs=2, shuffle=False,
                        verbose=0)
    result["fit"] = list(calls)
    result["params"] = log.params
    calls.clear()
    model.evaluate(x, target, batch_size=32, callbacks=[log], verbose=0)
    result["evaluate"] = list(calls)
    result["evaluate params"] = log.params
    calls.clear()
    model.predict(x, batch_size=32, callbacks=[log], verbose=0)
    result["predict"] = [[name, *index, [] if logs is None else logs] for name, *index, logs in calls]
    result["predict params"] = log.params
""", "x target")
    add("logs of batches are running means", build, """
    seen = []

    def note(batch, logs):
        seen.append({name: float(value) for name, value in logs.items()})

    history = model.fit(x, target, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)], $FIT)
    result["logs"] = seen
""", "x target")
    add("LearningRateScheduler", build, """
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (1 + epoch))
    history = model.fit(x, target, callbacks=[rate], $FIT)
""", "x target")
    add("ReduceLROnPlateau", build, """
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2, min_delta=0.5, cooldown=1,
                                                min_lr=0.02)
    history = model.fit(x, target, callbacks=[plateau], batch_size=16, epochs=12, shuffle=False, verbose=0)
""", "x target")
    add("EarlyStopping", build, """
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, min_delta=0.3, restore_best_weights=True)
    history = model.fit(x, target, validation_split=0.3, callbacks=[stop], batch_size=16, epochs=20, shuffle=False,
                        verbose=0)
    result["stopped_epoch"], result["best_epoch"] = stop.stopped_epoch, stop.best_epoch
    result["best"] = float(stop.best)
""", "x target")
    add("EarlyStopping, start_from_epoch, mode max", build, """
    stop = keras.callbacks.EarlyStopping(monitor="mae", mode="max", patience=1, start_from_epoch=3)
    history = model.fit(x, target, callbacks=[stop], batch_size=16, epochs=20, shuffle=False, verbose=0)
    result["stopped_epoch"], result["best_epoch"] = stop.stopped_epoch, stop.best_epoch
    result["best"] = float(stop.best)
""", "x target")
    add("EarlyStopping, baseline", build, """
    stop = keras.callbacks.EarlyStopping(monitor="loss", baseline=1e-6, patience=3)
    history = model.fit(x, target, callbacks=[stop], batch_size=16, epochs=20, shuffle=False, verbose=0)
    result["stopped_epoch"] = stop.stopped_epoch
""", "x target")
    add("stop_training in a batch", build, """
    def stop(batch, logs):
        if batch == 1:
            model.stop_training = True

    history = model.fit(x, target, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=stop)], $FIT)
""", "x target")
    add("TerminateOnNaN", build, """
    bad = x.copy()
    bad[20] = np.nan
    history = model.fit(bad, target, callbacks=[keras.callbacks.TerminateOnNaN()], $FIT)
""", "x target")  # fmt: skip
