# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""What Keras says to ordinary mistakes; `type` is None where it says nothing."""

from typing import Any

from .snippets import error

MODEL = """
model = keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dense(3, activation="softmax")])
model.compile("sgd", loss="categorical_crossentropy", metrics=["accuracy"])
x, y = np.ones((10, 8), "float32"), np.eye(3, dtype="float32")[np.arange(10) % 3]
"""
HEADS = """
inputs = keras.Input((8,))
model = keras.Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(3, name="b")(inputs)])
x, a, b = np.ones((10, 8), "float32"), np.ones((10, 1)), np.ones((10, 3))
"""
TWO = """
left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
model = keras.Model([left, right], layers.Dense(1)(layers.Concatenate()([left, right])))
model.compile("sgd", loss="mse")
"""


def record() -> dict[str, Any]:
    groups = {"layers": LAYERS, "names": NAMES, "models": MODELS, "compile": COMPILE, "data": DATA, "objects": OBJECTS,
              "tensors": TENSORS}  # fmt: skip
    return {group: {name: error(name, code) for name, code in cases.items()} for group, cases in groups.items()}


LAYERS = {
    "Dense on another width": """
layer = layers.Dense(3)
layer(keras.Input((8,)))
layer(keras.Input((9,)))
""",
    "Dense on an array of another width": """
layer = layers.Dense(3)
layer.build((None, 8))
layer(np.ones((10, 9)))
""",
    "Dense on a vector": "layers.Dense(3)(np.ones(4))",
    "Dense on an unknown width": "layers.Dense(3)(keras.Input((None,)))",
    "Dense with negative units": "layers.Dense(-1)",
    "Dense with units 0": "layers.Dense(0)",
    "Dense with units as text": 'layers.Dense("10")',
    "Dense with units as float": "layers.Dense(2.5)",
    "unknown argument": "layers.Dense(3, foo=1)",
    "two unknown arguments": "layers.Flatten(foo=1, bar=2)",
    "layer on a list of numbers": "layers.Dense(3)([1.0, 2.0])",
    "layer on text": 'layers.Dense(3)("hello")',
    "Dropout rate above 1": "layers.Dropout(1.5)",
    "Dropout rate negative": "layers.Dropout(-0.1)",
    "Reshape to another count": "layers.Reshape((3, 3))(keras.Input((8,)))",
    "Reshape with -1 that does not divide": "layers.Reshape((-1, 3))(keras.Input((8,)))",
    "Reshape with two -1": "layers.Reshape((-1, -1))(keras.Input((8,)))",
    "Permute with a wrong axis": "layers.Permute((0, 1))(keras.Input((2, 3)))",
    "RepeatVector on a matrix": "layers.RepeatVector(3)(keras.Input((2, 3)))",
    "Add of other shapes": "layers.Add()([keras.Input((4,)), keras.Input((5,))])",
    "Add of one tensor": "layers.Add()(keras.Input((4,)))",
    "Add of a list of one": "layers.Add()([keras.Input((4,))])",
    "Subtract of three": "layers.Subtract()([keras.Input((4,)), keras.Input((4,)), keras.Input((4,))])",
    "Concatenate of other shapes": "layers.Concatenate()([keras.Input((3, 4)), keras.Input((2, 4))])",
    "Concatenate, axis 1": "layers.Concatenate(axis=1)([keras.Input((3, 4)), keras.Input((3, 5))])",
    "Concatenate of other ranks": "layers.Concatenate()([keras.Input((3, 4)), keras.Input((4,))])",
    "Concatenate of one tensor": "layers.Concatenate()(keras.Input((4,)))",
    "Concatenate, axis too large": "layers.Concatenate(axis=3)([keras.Input((4,)), keras.Input((4,))])",
    "Dot of other sizes": "layers.Dot(axes=1)([keras.Input((4,)), keras.Input((5,))])",
    "Dot of three": "layers.Dot(axes=1)([keras.Input((4,)), keras.Input((4,)), keras.Input((4,))])",
    "Dot with axes as text": 'layers.Dot(axes="1")',
    "Dot with three axes": "layers.Dot(axes=(1, 2, 3))",
    "LeakyReLU with a negative slope": "layers.LeakyReLU(negative_slope=-1.0)",
    "LeakyReLU without slope": "layers.LeakyReLU(negative_slope=None)",
    "ReLU with a negative maximum": "layers.ReLU(max_value=-1.0)",
    "Lambda that fails": "layers.Lambda(lambda x: x.nothing)(keras.Input((4,)))",
    "custom layer without super().__init__": """
class Mine(layers.Layer):
    def __init__(self):
        self.inner = layers.Dense(2)

Mine()
""",
    "custom layer without call": """
class Mine(layers.Layer):
    pass

Mine()(keras.Input((4,)))
""",
    "custom layer whose call fails": """
class Mine(layers.Layer):
    def call(self, x):
        raise RuntimeError("oh")

Mine()(np.ones((2, 3)))
""",
    "custom layer whose call gets a wrong argument": """
class Mine(layers.Layer):
    def call(self, x):
        return x

Mine()(np.ones((2, 3)), scale=2)
""",
    "add_weight with an unknown initializer": """
class Mine(layers.Layer):
    def build(self, shape):
        self.add_weight(shape=(2,), initializer="nothing")

    def call(self, x):
        return x

Mine()(np.ones((2, 3)))
""",
    "kernel before build": "layers.Dense(3).kernel",
    "output before call": "layers.Dense(3).output",
    "set_weights before build": "layers.Dense(3).set_weights([np.ones((2, 3))])",
    "set_weights with too few arrays": """
layer = layers.Dense(3)
layer.build((None, 2))
layer.set_weights([np.ones((2, 3))])
""",
    "set_weights with another shape": """
layer = layers.Dense(3)
layer.build((None, 2))
layer.set_weights([np.ones((3, 3)), np.ones(3)])
""",
    "UnitNormalization with a wrong axis": 'layers.UnitNormalization(axis="last")',
}

NAMES = {
    "unknown activation": 'layers.Dense(3, activation="rellu")',
    "activation of another kind": "layers.Dense(3, activation=5)",
    "unknown initializer": 'layers.Dense(3, kernel_initializer="glorot")',
    "unknown regularizer": 'layers.Dense(3, kernel_regularizer="l3")',
    "unknown constraint": 'layers.Dense(3, kernel_constraint="max")',
    "unknown optimizer": MODEL + 'model.compile("adamm", loss="mse")',
    "optimizer of another kind": MODEL + 'model.compile(5, loss="mse")',
    "unknown loss": MODEL + """
model.compile("sgd", loss="msee")
model.fit(x, y, verbose=0)
""",
    "unknown metric": MODEL + """
model.compile("sgd", loss="mse", metrics=["acuracy"])
model.fit(x, y, verbose=0)
""",
    "metrics as text": MODEL + """
model.compile("sgd", loss="mse", metrics="accuracy")
model.fit(x, y, verbose=0)
""",
    "losses.get": 'keras.losses.get("nothing")',
    "metrics.get": 'keras.metrics.get("nothing")',
    "optimizers.get": 'keras.optimizers.get("nothing")',
    "activations.get": 'keras.activations.get("nothing")',
    "initializers.get": 'keras.initializers.get("nothing")',
    "regularizers.get": 'keras.regularizers.get("nothing")',
    "constraints.get": 'keras.constraints.get("nothing")',
    "unknown dtype": 'layers.Dense(3, dtype="float31")',
    "name with a slash": 'layers.Dense(3, name="a/b")',
    "name of another kind": "layers.Dense(3, name=5)",
}

MODELS = {
    "duplicate layer names": """
inputs = keras.Input((4,))
x = layers.Dense(3, name="same")(inputs)
keras.Model(inputs, layers.Dense(3, name="same")(x))
""",
    "duplicate layer names in a Sequential": """
keras.Sequential([keras.Input((4,)), layers.Dense(3, name="same"), layers.Dense(3, name="same")])
""",
    "Sequential with wrong shapes": """
shared = layers.Dense(3)
shared.build((None, 5))
keras.Sequential([keras.Input((4,)), shared])
""",
    "inputs not connected to the outputs": """
a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
keras.Model(a, layers.Dense(3)(b))
""",
    "an input left out": """
a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
keras.Model(a, layers.Add()([a, b]))
""",
    "arrays as inputs": "keras.Model(np.ones((2, 3)), np.ones((2, 3)))",
    "outputs not symbolic": "keras.Model(keras.Input((4,)), np.ones((2, 3)))",
    "inputs that are not inputs": """
a = keras.Input((4,))
b = layers.Dense(4, name="first")(a)
model = keras.Model(b, layers.Dense(3)(b))
""",
    "add what is no layer": "keras.Sequential().add(np.ones(3))",
    "add a second input": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
model.add(keras.Input((4,)))
""",
    "pop from an empty model": "keras.Sequential().pop()",
    "Input without a shape": "keras.Input()",
    "Input with a number": "keras.Input(5)",
    "Input with a wrong shape": 'keras.Input(("a",))',
    "Input with shape and batch_shape": "keras.Input((4,), batch_shape=(2, 4))",
    "get_layer by an unknown name": MODEL + 'model.get_layer("hidden")',
    "get_layer by an index too large": MODEL + "model.get_layer(index=7)",
    "get_layer by nothing": MODEL + "model.get_layer()",
    "summary before build": """
class Mine(keras.Model):
    def call(self, x):
        return x

Mine().summary()
""",
    "count_params before build": "keras.Sequential([layers.Dense(3)]).count_params()",
    "layers is read only": MODEL + "model.layers = []",
    "set_weights with too few arrays": MODEL + "model.set_weights([np.ones((8, 4))])",
    "set_weights with another shape": MODEL + """
weights = model.get_weights()
weights[0] = weights[0].T
model.set_weights(weights)
""",
    "call with another width": MODEL + "model(np.ones((2, 9)))",
    "call with another rank": MODEL + "model(np.ones(8))",
    "call with two inputs instead of one": MODEL + "model([np.ones((2, 8)), np.ones((2, 8))])",
    "call with one input instead of two": TWO + "model(np.ones((2, 2)))",
    "a key missing in the inputs": TWO + 'model({"left": np.ones((4, 2))})',
    "a key that is unknown": TWO + """
model({"left": np.ones((4, 2)), "right": np.ones((4, 3)), "up": np.ones((4, 3))})
""",
    "predict with another width": MODEL + "model.predict(np.ones((10, 9)), verbose=0)",
    "predict with another rank": MODEL + "model.predict(np.ones((10, 8, 1)), verbose=0)",
    "a subclassed model without call": """
class Mine(keras.Model):
    pass

Mine()(np.ones((2, 3)))
""",
    "a subclassed model without super().__init__": """
class Mine(keras.Model):
    def __init__(self):
        self.inner = layers.Dense(2)

Mine()
""",
}

COMPILE = {
    "fit before compile": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
model.fit(np.ones((4, 4)), np.ones((4, 1)))
""",
    "evaluate before compile": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
model.evaluate(np.ones((4, 4)), np.ones((4, 1)))
""",
    "train_on_batch before compile": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
model.train_on_batch(np.ones((4, 4)), np.ones((4, 1)))
""",
    "fit without a loss": MODEL + """
model.compile("sgd")
model.fit(x, y, verbose=0)
""",
    "fit without labels": MODEL + "model.fit(x, verbose=0)",
    "loss for an unknown head": HEADS + """
model.compile("sgd", loss={"a": "mse", "c": "mse"})
model.fit(x, [a, b], verbose=0)
""",
    "too many losses": HEADS + """
model.compile("sgd", loss=["mse", "mse", "mse"])
model.fit(x, [a, b], verbose=0)
""",
    "too few losses": HEADS + """
model.compile("sgd", loss=["mse"])
model.fit(x, [a, b], verbose=0)
""",
    "loss_weights for an unknown head": HEADS + """
model.compile("sgd", loss={"a": "mse", "b": "mse"}, loss_weights={"a": 1.0, "c": 1.0})
model.fit(x, [a, b], verbose=0)
""",
    "too many loss_weights": HEADS + """
model.compile("sgd", loss=["mse", "mse"], loss_weights=[1.0, 2.0, 3.0])
model.fit(x, [a, b], verbose=0)
""",
    "a loss weight as text": HEADS + """
model.compile("sgd", loss=["mse", "mse"], loss_weights=["1", "2"])
model.fit(x, [a, b], verbose=0)
""",
    "metrics for an unknown head": HEADS + """
model.compile("sgd", loss=["mse", "mse"], metrics={"c": ["mae"]})
model.fit(x, [a, b], verbose=0)
""",
    "metrics as a flat list for two heads": HEADS + """
model.compile("sgd", loss=["mse", "mse"], metrics=["mae", "mse", "mae"])
model.fit(x, [a, b], verbose=0)
""",
    "labels of one head for two": HEADS + """
model.compile("sgd", loss=["mse", "mse"])
model.fit(x, a, verbose=0)
""",
    "old argument lr": "keras.optimizers.RMSprop(lr=0.001)",
    "old argument decay": "keras.optimizers.SGD(decay=0.1)",
    "old argument nb_epoch": MODEL + "model.fit(x, y, nb_epoch=2, verbose=0)",
    "an optimizer of another model": MODEL + """
optimizer = keras.optimizers.Adam()
model.compile(optimizer, loss="mse")
model.fit(x, y, verbose=0)
other = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
other.compile(optimizer, loss="mse")
other.fit(x, y, verbose=0)
""",
    "unknown argument of compile": MODEL + 'model.compile("sgd", loss="mse", lr=0.1)',
    "unknown argument of fit": MODEL + "model.fit(x, y, epoch=2, verbose=0)",
}

DATA = {
    "x and y of other lengths": MODEL + "model.fit(x, y[:8], verbose=0)",
    "inputs of other lengths": TWO + "model.fit([np.ones((4, 2)), np.ones((5, 3))], np.ones((4, 1)), verbose=0)",
    "sample_weight of another length": MODEL + "model.fit(x, y, sample_weight=np.ones(8), verbose=0)",
    "x of another width": MODEL + "model.fit(np.ones((10, 9)), y, verbose=0)",
    "y of another width": MODEL + "model.fit(x, np.ones((10, 4)), verbose=0)",
    "integer labels for categorical_crossentropy": MODEL + "model.fit(x, np.arange(10) % 3, verbose=0)",
    "one-hot labels for sparse_categorical_crossentropy": MODEL + """
model.compile("sgd", loss="sparse_categorical_crossentropy")
model.fit(x, y, verbose=0)
""",
    "labels out of range": MODEL + """
model.compile("sgd", loss="sparse_categorical_crossentropy")
result["loss"] = model.fit(x, np.full(10, 7), verbose=0).history["loss"]
""",
    "negative labels": MODEL + """
model.compile("sgd", loss="sparse_categorical_crossentropy")
result["loss"] = model.fit(x, np.full(10, -1), verbose=0).history["loss"]
""",
    "float labels": MODEL + """
model.compile("sgd", loss="sparse_categorical_crossentropy")
model.fit(x, np.full(10, 0.5), verbose=0)
""",
    "binary_crossentropy with other shapes": """
model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
model.compile("sgd", loss="binary_crossentropy")
model.fit(np.ones((10, 8)), np.ones((10, 2)), verbose=0)
""",
    "mse with labels that broadcast": """
model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
model.compile("sgd", loss="mse")
model.fit(np.ones((10, 8)), np.ones((10, 1)), verbose=0)
""",
    "x as a list of lists": MODEL + "model.fit([[1.0] * 8] * 10, y, verbose=0)",
    "x as text": MODEL + 'model.fit("data", y, verbose=0)',
    "x of strings": MODEL + 'model.fit(np.full((10, 8), "a"), y, verbose=0)',
    "x of objects": MODEL + "model.fit(np.full((10, 8), None), y, verbose=0)",
    "nothing as x": MODEL + "model.fit(None, y, verbose=0)",
    "no rows": MODEL + "model.fit(x[:0], y[:0], verbose=0)",
    "no rows in predict": MODEL + "model.predict(x[:0], verbose=0)",
    "no rows in evaluate": MODEL + "model.evaluate(x[:0], y[:0], verbose=0)",
    "NaN in x": MODEL + """
result["loss"] = model.fit(np.full((10, 8), np.nan), y, verbose=0).history["loss"]
""",
    "validation_split of 1": MODEL + "model.fit(x, y, validation_split=1.0, verbose=0)",
    "validation_split above 1": MODEL + "model.fit(x, y, validation_split=1.5, verbose=0)",
    "validation_split negative": MODEL + "model.fit(x, y, validation_split=-0.5, verbose=0)",
    "validation_split that leaves no rows to validate": MODEL + "model.fit(x, y, validation_split=0.01, verbose=0)",
    "validation_split of one row": MODEL + "model.fit(x[:1], y[:1], validation_split=0.5, verbose=0)",
    "validation_split of a generator": MODEL + """
model.fit(((x, y) for _ in range(3)), validation_split=0.5, verbose=0)
""",
    "validation_data without labels": MODEL + "model.fit(x, y, validation_data=x, verbose=0)",
    "validation_data of another width": MODEL + "model.fit(x, y, validation_data=(x[:, :7], y), verbose=0)",
    "class_weight and sample_weight": MODEL + """
model.fit(x, y, class_weight={0: 1.0, 1: 2.0, 2: 1.0}, sample_weight=np.ones(10), verbose=0)
""",
    "class_weight with two heads": HEADS + """
model.compile("sgd", loss="mse")
model.fit(x, [a, b], class_weight={0: 1.0}, verbose=0)
""",
    "class_weight as a list": MODEL + "model.fit(x, y, class_weight=[1.0, 2.0, 1.0], verbose=0)",
    "batch_size 0": MODEL + "model.fit(x, y, batch_size=0, verbose=0)",
    "batch_size negative": MODEL + "model.fit(x, y, batch_size=-1, verbose=0)",
    "batch_size as float": MODEL + "model.fit(x, y, batch_size=2.5, verbose=0)",
    "batch_size with a generator": MODEL + """
model.fit(((x, y) for _ in range(3)), batch_size=2, verbose=0)
""",
    "epochs 0": MODEL + 'result["history"] = model.fit(x, y, epochs=0, verbose=0).history',
    "epochs as text": MODEL + 'model.fit(x, y, epochs="2", verbose=0)',
    "verbose as text": MODEL + 'model.fit(x, y, verbose="yes")',
    "steps_per_epoch 0": MODEL + "model.fit(x, y, steps_per_epoch=0, verbose=0)",
    "steps_per_epoch too large": MODEL + "model.fit(x, y, steps_per_epoch=50, verbose=0)",
    "y with a generator": MODEL + "model.fit(((x, y) for _ in range(3)), y, verbose=0)",
    "an empty generator": MODEL + "model.fit((pair for pair in []), verbose=0)",
    "a generator of four": MODEL + "model.fit(((x, y, y, y) for _ in range(3)), verbose=0)",
    "a generator of arrays": MODEL + "model.fit((x for _ in range(3)), verbose=0)",
    "validation_freq 0": MODEL + "model.fit(x, y, validation_data=(x, y), validation_freq=0, verbose=0)",
    "callbacks that are none": MODEL + "model.fit(x, y, callbacks=[5], verbose=0)",
    "two models in one callback": MODEL + "model.fit(x, y, callbacks=keras.callbacks.EarlyStopping, verbose=0)",
    "train_on_batch of other lengths": MODEL + "model.train_on_batch(x, y[:8])",
    "train_on_batch with both weights": MODEL + """
model.train_on_batch(x, y, sample_weight=np.ones(10), class_weight={0: 1.0})
""",
}

OBJECTS = {
    "two ways to clip": "keras.optimizers.SGD(clipnorm=1.0, clipvalue=0.5)",
    "learning rate as int": "keras.optimizers.SGD(1)",
    "learning rate as text": 'keras.optimizers.SGD("fast")',
    "momentum above 1": "keras.optimizers.SGD(0.1, momentum=1.5)",
    "ema_momentum above 1": "keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=1.5)",
    "ema_overwrite_frequency 0.5": "keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=0.5)",
    "gradient_accumulation_steps 1": "keras.optimizers.SGD(0.1, gradient_accumulation_steps=1)",
    "unknown argument of an optimizer": "keras.optimizers.Adam(0.1, beta=0.9)",
    "setting a learning rate that is scheduled": """
optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))
optimizer.learning_rate = 0.1
""",
    "gradients of another number": """
variables = [keras.Variable(np.ones(2))]
optimizer = keras.optimizers.SGD()
optimizer.build(variables)
optimizer.apply([np.ones(2), np.ones(2)])
""",
    "apply before build": "keras.optimizers.SGD().apply([np.ones(2)])",
    "no gradients": """
keras.optimizers.SGD().apply([None], [keras.Variable(np.ones(2))])
""",
    "set_weights before build, optimizer": "keras.optimizers.SGD().set_weights([])",
    "PiecewiseConstantDecay of other lengths": "keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2])",
    "CosineDecay with warmup without target": """
keras.optimizers.schedules.CosineDecay(0.1, 0)
""",
    "AdamW without decay": "keras.optimizers.AdamW(weight_decay=None)",
    "unknown reduction": 'keras.losses.MeanSquaredError(reduction="average")',
    "loss of other shapes": "keras.losses.MeanSquaredError()(np.ones((4, 3)), np.ones((4, 2)))",
    "categorical_crossentropy of other shapes": """
keras.losses.categorical_crossentropy(np.ones((4, 3)), np.ones((4, 2)))
""",
    "sparse_categorical_crossentropy of other shapes": """
keras.losses.sparse_categorical_crossentropy(np.ones((4, 3)), np.ones((4, 3)))
""",
    "binary_crossentropy of other shapes": "keras.losses.binary_crossentropy(np.ones((4, 3)), np.ones((4, 2)))",
    "categorical_crossentropy with one column": """
keras.losses.categorical_crossentropy(np.ones((4, 1)), np.ones((4, 1)))
""",
    "label_smoothing above 1": "keras.losses.CategoricalCrossentropy(label_smoothing=1.5)",
    "huber with a negative delta": "keras.losses.Huber(delta=-1.0)(np.ones((4, 3)), np.ones((4, 3)))",
    "Precision threshold above 1": "keras.metrics.Precision(thresholds=1.5)",
    "AUC of an unknown curve": 'keras.metrics.AUC(curve="XY")',
    "AUC of values above 1": "keras.metrics.AUC().update_state(np.ones(3), np.full(3, 2.0))",
    "MeanIoU of other shapes": "keras.metrics.MeanIoU(2).update_state(np.ones(3), np.ones(4))",
    "F1Score of an unknown average": 'keras.metrics.F1Score(average="mean")',
    "F1Score of vectors": "keras.metrics.F1Score().update_state(np.ones(3), np.ones(3))",
    "VarianceScaling with scale 0": "keras.initializers.VarianceScaling(scale=0.0)",
    "VarianceScaling with an unknown mode": 'keras.initializers.VarianceScaling(mode="fan")',
    "VarianceScaling with an unknown distribution": 'keras.initializers.VarianceScaling(distribution="cauchy")',
    "Identity of a vector": "keras.initializers.Identity()((3,))",
    "Orthogonal of a vector": "keras.initializers.Orthogonal()((3,))",
    "a seed as text": 'keras.initializers.GlorotUniform(seed="a")',
    "L1 negative": "keras.regularizers.L1(-1.0)",
    "L2 as text": 'keras.regularizers.L2("a")',
    "OrthogonalRegularizer of an unknown mode": 'keras.regularizers.OrthogonalRegularizer(mode="diagonal")',
    "EarlyStopping of an unknown mode": 'keras.callbacks.EarlyStopping(mode="most")',
    "EarlyStopping of a quantity whose direction is unknown": MODEL + """
model.fit(x, y, callbacks=[keras.callbacks.EarlyStopping(monitor="thing")], verbose=0)
""",
    "ReduceLROnPlateau with factor 1": "keras.callbacks.ReduceLROnPlateau(factor=1.0)",
    "ModelCheckpoint of weights with a wrong name": """
keras.callbacks.ModelCheckpoint("model.h5", save_weights_only=True)
""",
    "ModelCheckpoint of a model with a wrong name": 'keras.callbacks.ModelCheckpoint("model.weights")',
    "ModelCheckpoint with a wrong save_freq": 'keras.callbacks.ModelCheckpoint("model.keras", save_freq="day")',
    "LearningRateScheduler that gives text": MODEL + """
model.fit(x, y, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: "slow")], verbose=0)
""",
    "assign of another shape": "keras.Variable(np.ones((2, 3))).assign(np.ones((3, 2)))",
    "Variable without a shape": 'keras.Variable("zeros")',
    "gelu of text": 'keras.activations.gelu("x")',
    "softmax of a vector": "result['softmax'] = keras.activations.softmax(np.ones(3, 'float32'))",
    "glu of an odd size": "keras.activations.glu(np.ones((2, 3), 'float32'))",
    "to_categorical out of range": "keras.utils.to_categorical([0, 5], 3)",
    "to_categorical": "result['one hot'] = keras.utils.to_categorical([0, 2, 1])",
}

TENSORS = {
    "truth of a symbolic tensor": "bool(keras.Input((4,)) > 0)",
    "if of a symbolic tensor": """
x = keras.Input((4,))
if x > 0:
    pass
""",
    "float of a symbolic tensor": "float(keras.Input(()))",
    "int of a symbolic tensor": "int(keras.Input(()))",
    "iteration over a symbolic tensor": "list(keras.Input((4,)))",
    "NumPy function of a symbolic tensor": "np.exp(keras.Input((4,)))",
    "NumPy array of a symbolic tensor": "np.asarray(keras.Input((4,)))",
    "length of a symbolic tensor": "len(keras.Input((4,)))",
    "sum of other shapes": "keras.Input((4,)) + keras.Input((5,))",
    "matmul of other shapes": "keras.ops.matmul(keras.Input((4,)), np.ones((5, 3)))",
    "reshape to another count": "keras.ops.reshape(np.ones(6), (4, 2))",
    "an index out of range": "keras.Input((4,))[:, 7]",
    "concatenate of other shapes": "keras.ops.concatenate([np.ones((2, 3)), np.ones((3, 3))], axis=1)",
    "assigning to an element": "keras.Input((4,))[0] = 1.0",
    "an unknown attribute": "keras.Input((4,)).numpy()",
}
