# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""The configs of models: what `get_config`, `to_json` and `get_compile_config` hold (addresses left out)."""

import json
from textwrap import dedent
from typing import Any

import keras

from .store import plain

MODELS = {
    "Sequential": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(1)], name="stack")
""",
    "Sequential, not built": """
model = keras.Sequential([layers.Dense(3), layers.Dropout(0.5, seed=1)], name="stack")
""",
    "shared layer, two inputs, two outputs": """
left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
shared = layers.Dense(4, activation="tanh", name="shared")
a, b = shared(left), shared(right)
merged = layers.Concatenate(name="together", axis=-1)([a, b])
model = keras.Model([left, right], [layers.Dense(1, name="out")(merged), a], name="twins")
""",
    "inputs and outputs in dicts": """
inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
outputs = {"sum": layers.Add(name="add")([inputs["a"], inputs["b"]]), "same": layers.Identity(name="id")(inputs["a"])}
model = keras.Model(inputs, outputs, name="dicts")
""",
    "nested": """
inner = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="deep")], name="inner")
inputs = keras.Input((6,), name="x")
model = keras.Model(inputs, layers.Flatten(name="flat")(inner(inputs)), name="outer")
""",
    "operations": """
inputs = keras.Input((4,), name="x", dtype="float32")
model = keras.Model(inputs, keras.ops.exp(inputs) * 2.0 + inputs, name="operations")
""",
    "compiled": """
model = keras.Sequential([keras.Input((4,)), layers.Dense(1)], name="compiled")
model.compile(keras.optimizers.RMSprop(0.01, momentum=0.5), loss="mse", metrics=["mae", keras.metrics.AUC(name="auc")],
              weighted_metrics=["mse"], loss_weights=[0.5])
""",
    "compiled with objects and dicts": """
inputs = keras.Input((4,), name="x")
model = keras.Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(2, name="b")(inputs)], name="heads")
model.compile("adam", loss={"a": keras.losses.Huber(delta=0.5), "b": "mae"}, metrics={"b": ["mse"]},
              loss_weights={"a": 1.0, "b": 2.0}, steps_per_execution=2, jit_compile=True)
""",
}


def record() -> dict[str, Any]:
    found = {}
    for name, code in MODELS.items():
        keras.utils.clear_session()
        names: dict[str, Any] = {"keras": keras, "layers": keras.layers}
        code = dedent(code).strip()
        exec(code, names)
        model = names["model"]
        compiled = plain(model.get_compile_config()) if model.compiled else None
        found[name] = {"code": code, "get_config": plain(model.get_config()),
                       "to_json": plain(json.loads(model.to_json())), "get_compile_config": compiled}  # fmt: skip
    return {"models": found}
