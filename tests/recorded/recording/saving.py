# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Files that Keras writes, in `saving/`, and what the models in them compute and go on to learn."""

import io
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import Any

import keras
import numpy as np

from .store import random_of

FOLDER = Path(__file__).parent.parent / "saving"
FILES = {
    "sequential": ["sequential.weights.h5", "sequential.keras"],
    "functional": ["functional.keras"],
    "subclassed": ["subclassed.weights.h5"],
}

MODELS = {
    "sequential": """
model = keras.Sequential([
    keras.Input((6,)), layers.Dense(5, activation="relu", name="hidden"), layers.Dropout(0.25, seed=3), layers.Dense(2),
], name="stack")
model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
""",
    "functional": """
left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
tower = keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(3)], name="tower")
shared = layers.Dense(3, name="shared")
both = layers.Concatenate(name="both")([shared(tower(left)), shared(tower(right))])
out = layers.Dense(2, name="out", kernel_regularizer="l2")(both * 2.0 + 1.0)
model = keras.Model([left, right], out, name="twins")
model.compile(keras.optimizers.RMSprop(0.01, momentum=0.5), loss=keras.losses.Huber(), metrics=["mae"])
""",
    "subclassed": """
class Scale(layers.Layer):
    def build(self, shape):
        self.offset = self.add_weight((shape[-1],), name="offset", trainable=False)
        self.factor = self.add_weight((shape[-1],), name="factor")
        self.inner = layers.Dense(shape[-1])
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.factor + self.offset


class Net(keras.Model):
    def __init__(self):
        super().__init__(name="net")
        self.total = self.add_weight((), name="total")
        self.blocks = [layers.Dense(6), Scale(), layers.Dense(6)]
        self.nested = [[layers.Dense(6)], (layers.Dense(6),)]
        self.heads = {"z": layers.Dense(2), "a": layers.Dense(2)}
        self._hidden = layers.Dense(6)
        self.Upper = layers.Dense(6)
        self.again = self.Upper

    def call(self, x):
        for block in [*self.blocks, *self.nested[0], *self.nested[1], self._hidden, self.Upper]:
            x = block(x)
        return self.heads["z"](x) * self.total + self.heads["a"](x)


model = Net()
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss="mse")
""",
}


def record() -> dict[str, Any]:
    """Trains each model a little, saves it, and goes on: who reads the file has to get the same."""
    FOLDER.mkdir(exist_ok=True)
    return {"models": {name: _case(name, dedent(code).strip()) for name, code in MODELS.items()}}


def _case(name: str, code: str) -> dict[str, Any]:
    random = random_of(f"saving {name}")
    x = random.normal(size=(12, 6)).astype("float32")
    y = random.normal(size=(12, 2)).astype("float32")
    keras.utils.set_random_seed(5)
    names: dict[str, Any] = {"keras": keras, "layers": keras.layers, "np": np}
    exec(code, names)
    model = names["model"]
    inputs = {"left": x, "right": x[::-1].copy()} if name == "functional" else x
    model.fit(inputs, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for file in FILES[name]:
        save = model.save if file.endswith(".keras") else model.save_weights
        save(FOLDER / file)
    found = {
        "code": code, "files": FILES[name], "inputs": inputs, "y": y,
        "weights": model.get_weights(), "optimizer": [np.asarray(v) for v in model.optimizer.variables],
        "predict": model.predict(inputs, verbose=0), "evaluate": model.evaluate(inputs, y, verbose=0, return_dict=True),
        "groups": _groups(FOLDER / FILES[name][0]),
    }  # fmt: skip
    if name != "sequential":  # dropout draws other numbers elsewhere
        history = model.fit(inputs, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
        found["goes on"] = history.history
    return found


def _groups(path: Path) -> dict[str, Any]:
    """Where the arrays are in a file, and of what shape: {"layers/dense/vars": {"0": [6, 5], "1": [5]}}."""
    import h5py

    groups: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and name.endswith("vars"):
            groups[name] = {key: list(item[key].shape) for key in item}

    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source) as file:
        file.visititems(note)
    return groups
