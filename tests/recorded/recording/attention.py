# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""The attention layers and EinsumDense: outputs, weights, gradients, masks, configurations, and how files hold them."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from keras import layers, ops

from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}
SEEN = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool)  # of queries
KEPT = np.array([[1, 1, 0], [1, 0, 0]], bool)  # of values


def record() -> dict[str, Any]:
    CASES.clear()
    _listed()
    _headed()
    _grouped()
    _einsum()
    return {"cases": CASES, "function": _function(), "fans": _fans(), "model": _model()}


def normal(name: str, *shape: int) -> np.ndarray:
    return random_of(name).standard_normal(shape).astype("float32")


def add(name: str, layer: str, inputs: list[np.ndarray], call: dict[str, Any] | None = None,
        masks: list[Any] | None = None, listed: bool = False, /, **arguments: Any) -> None:  # fmt: skip
    """Record a layer, called on the inputs one by one or `listed`; `masks` come with the inputs."""
    keras.utils.clear_session()
    call = call or {}
    made = getattr(layers, layer)(**arguments)

    def called(given: list[Any]) -> list[Any]:
        tensors = [ops.convert_to_tensor(x) for x in given]
        for tensor, mask in zip(tensors, masks or [], strict=False):
            if mask is not None:
                keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(mask))
        output = made(tensors, **call) if listed else made(*tensors, **call)
        return list(output) if isinstance(output, tuple) else [output]

    called(inputs)
    weights = {v.path: normal(f"attention {v.path} {tuple(v.shape)}", *v.shape) for v in made.weights}
    for variable in made.weights:
        variable.assign(weights[variable.path])
    outputs = called(inputs)
    mask = keras.src.backend.get_keras_mask(outputs[0])
    factors = [normal(f"attention weight {t.shape}", *t.shape) for t in outputs]

    def total(values: list[Any], given: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(made.trainable_variables, values, strict=True))):
            return sum((t * f).sum() for t, f in zip(called(given), factors, strict=True))

    of_weights, of_inputs = jax.grad(total, argnums=(0, 1))([v.value for v in made.trainable_variables], inputs)
    symbolic = [keras.Input(x.shape[1:]) for x in inputs]
    open_sized = getattr(layers, layer)(**arguments)
    shapes = open_sized(*([symbolic] if listed else symbolic))
    assert name not in CASES, name
    CASES[name] = {
        "class": layer, "arguments": plain(arguments), "listed": listed, "inputs": inputs, "call": call,
        "masks": masks or [], "weights": weights, "outputs": [np.asarray(t) for t in outputs],
        "mask": None if mask is None else np.asarray(mask), "factors": factors,
        "weight gradients": [np.asarray(g) for g in of_weights],
        "input gradients": [np.asarray(g) for g in of_inputs], "symbolic output": list(shapes.shape),
        "config": plain(made.get_config()), "build config": plain(open_sized.get_build_config()),
        "class name": keras.saving.serialize_keras_object(made)["class_name"],
    }  # fmt: skip


def _listed() -> None:
    q, v, k = normal("attend q", 2, 5, 4), normal("attend v", 2, 3, 4), normal("attend k", 2, 3, 4)
    wide = normal("attend wide", 2, 3, 6)
    for layer in ("Attention", "AdditiveAttention"):
        add(f"{layer}", layer, [q, v], None, None, True)
        add(f"{layer}, key", layer, [q, wide, k], None, None, True)
        add(f"{layer}, scale", layer, [q, v], None, None, True, use_scale=True)
        add(f"{layer}, no scale", layer, [q, v], None, None, True, use_scale=False)
        add(f"{layer}, scores", layer, [q, v], {"return_attention_scores": True}, None, True, dropout=0.3, seed=5)
        add(f"{layer}, causal", layer, [q, v], {"use_causal_mask": True}, None, True)
        add(f"{layer}, masks", layer, [q, v], None, [SEEN, KEPT], True)
        add(f"{layer}, value mask", layer, [q, v], None, [None, KEPT], True)
        add(f"{layer}, causal and masks", layer, [q, v], {"use_causal_mask": True}, [SEEN, KEPT], True)
    add("Attention, concat", "Attention", [q, v, k], None, None, True, score_mode="concat")
    add("Attention, concat and scale", "Attention", [q, v, k], None, None, True, score_mode="concat", use_scale=True)
    add("Attention, four axes", "Attention", [normal("attend q4", 2, 2, 5, 4), normal("attend v4", 2, 2, 3, 4)], None,
        None, True)  # fmt: skip


def _headed() -> None:
    x, v, k = normal("heads x", 2, 5, 6), normal("heads v", 2, 3, 4), normal("heads k", 2, 3, 7)
    layer = "MultiHeadAttention"
    ones = {"num_heads": 2, "key_dim": 3}
    add("heads", layer, [x, v], **ones)
    add("heads, itself", layer, [x, x], **ones)
    add("heads, key", layer, [x, v, k], **ones, value_dim=5, dropout=0.1)  # without it Keras on JAX fails
    add("heads, one row", layer, [x[:1], v[:1]], **ones)
    add("heads, no bias", layer, [x, v], **ones, use_bias=False)
    add("heads, output_shape", layer, [x, v], **ones, output_shape=3)
    add("heads, output_shape of two", layer, [x, v], **ones, output_shape=(3, 2))
    add("heads, causal", layer, [x, x], {"use_causal_mask": True}, **ones)
    add("heads, causal, other length", layer, [x, v], {"use_causal_mask": True}, **ones)
    add("heads, masks", layer, [x, v], None, [SEEN, KEPT], **ones)
    add("heads, masks, scores", layer, [x, v], {"return_attention_scores": True}, [SEEN, KEPT], **ones)
    add("heads, value mask", layer, [x, v], None, [None, KEPT], **ones)
    add("heads, key mask", layer, [x, v, k], None, [None, None, KEPT], **ones)
    add("heads, causal and masks", layer, [x, x], {"use_causal_mask": True}, [SEEN, SEEN], **ones)
    add("heads, scores", layer, [x, v], {"return_attention_scores": True}, **ones)
    add("heads, causal, scores", layer, [x, v], {"return_attention_scores": True, "use_causal_mask": True}, **ones)
    allowed = random_of("heads allowed").random((2, 5, 3)) < 0.6
    add("heads, attention_mask", layer, [x, v], {"attention_mask": allowed}, **ones)
    add("heads, attention_mask for all", layer, [x, v], {"attention_mask": allowed[:1]}, **ones)
    by_head = random_of("heads by head").random((2, 2, 5, 3)) < 0.6
    add("heads, attention_mask of heads", layer, [x, v], {"attention_mask": by_head}, **ones)
    add("heads, attention_mask and causal", layer, [x, v], {"attention_mask": allowed, "use_causal_mask": True}, **ones)
    add("heads, window", layer, [x, x], None, **ones, sliding_window=2)
    add("heads, window, causal", layer, [x, x], {"use_causal_mask": True}, **ones, sliding_window=3)
    add("heads, gate", layer, [x, v], **ones, value_dim=4, use_gate=True, dropout=0.1)
    add("heads, dropout", layer, [x, v], **ones, dropout=0.4, seed=3)
    add("heads, dropout, causal", layer, [x, x], {"use_causal_mask": True}, **ones, dropout=0.4, seed=3)
    add("heads, everything", layer, [x, v], **ones, kernel_initializer="he_normal", bias_initializer="ones",
        kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2", kernel_constraint="max_norm",
        bias_constraint="non_neg", name="every")  # fmt: skip
    x4, v4 = normal("heads x4", 2, 3, 4, 6), normal("heads v4", 2, 3, 2, 6)
    add("heads, axis 2", layer, [x4, v4], **ones, attention_axes=2)
    add("heads, axis -2", layer, [x4, v4], **ones, attention_axes=(-2,))
    add("heads, axis 1", layer, [x4, normal("heads w4", 2, 5, 4, 6)], **ones, attention_axes=1)
    add("heads, two axes", layer, [x4, v4], {"return_attention_scores": True}, **ones)
    add("heads, two axes, mask", layer, [x4, x4],
        {"attention_mask": random_of("two axes").random((2, 2, 3, 4, 3, 4)) < 0.6}, **ones)  # fmt: skip


def _grouped() -> None:
    x, v, k = normal("heads x", 2, 5, 6), normal("groups v", 2, 3, 6), normal("heads k", 2, 3, 7)
    layer = "GroupQueryAttention"
    ones = {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}
    add("groups", layer, [x, v], **ones)
    add("groups, key", layer, [x, v, k], **ones)
    add("groups, one", layer, [x, v], head_dim=2, num_query_heads=3, num_key_value_heads=1)
    add("groups, as many as heads", layer, [x, v], head_dim=2, num_query_heads=2, num_key_value_heads=2)
    add("groups, causal", layer, [x, x], {"use_causal_mask": True}, **ones)
    add("groups, masks", layer, [x, v], None, [SEEN, KEPT], **ones)
    add("groups, scores", layer, [x, v], {"return_attention_scores": True}, **ones)
    add("groups, masks, scores", layer, [x, v], {"return_attention_scores": True}, [None, KEPT], **ones)
    by_head = random_of("groups by head").random((2, 4, 5, 3)) < 0.6
    add("groups, attention_mask of heads", layer, [x, v], {"attention_mask": by_head}, **ones)
    add("groups, attention_mask", layer, [x, v], {"attention_mask": by_head[:, 0]}, **ones)
    add("groups, window", layer, [x, x], None, **ones, sliding_window=2)
    add("groups, gate, no bias", layer, [x, v], **ones, use_gate=True, use_bias=False)
    add("groups, dropout", layer, [x, v], **ones, dropout=0.4, seed=3)


def _einsum() -> None:
    x = normal("einsum x", 2, 5, 4)
    layer = "EinsumDense"
    add("einsum", layer, [x], equation="abc,cd->abd", output_shape=(None, 3), bias_axes="d")
    add("einsum, no bias", layer, [x], equation="abc,cd->abd", output_shape=(None, 3), activation="relu")
    add("einsum, bias of two axes", layer, [x], equation="abc,cd->abd", output_shape=(5, 3), bias_axes="bd")
    add("einsum, bias of the middle", layer, [x], equation="abc,cde->abde", output_shape=(None, 3, 2), bias_axes="d")
    add("einsum, dots before", layer, [x], equation="...x,xy->...y", output_shape=3, bias_axes="y")
    add("einsum, dots before, two", layer, [x], equation="...x,xyz->...yz", output_shape=(3, 2), bias_axes="yz")
    add("einsum, dots after", layer, [normal("einsum after", 2, 5, 4, 3)], equation="abc...,cd->abd...",
        output_shape=(None, 6), bias_axes="d")  # fmt: skip
    add("einsum, shared axis", layer, [x], equation="abc,bcd->abd", output_shape=(5, 3), bias_axes="d")
    add("einsum, moved", layer, [x], equation="abc,cd->adb", output_shape=(3, None), bias_axes="d")
    add("einsum, summed", layer, [x], equation="abc,bcd->ad", output_shape=3, bias_axes="d",
        kernel_regularizer="l2", kernel_initializer="he_normal")  # fmt: skip


def _function() -> list[dict[str, Any]]:
    """`ops.dot_product_attention`."""
    q, k, v = normal("dot q", 2, 5, 4, 3), normal("dot k", 2, 6, 2, 3), normal("dot v", 2, 6, 2, 3)
    mask = random_of("dot mask").random((2, 4, 5, 6)) < 0.6
    found = []
    for options in (
        {}, {"scale": 0.7}, {"is_causal": True}, {"mask": mask}, {"mask": mask[:, :1]},
        {"bias": normal("dot bias", 2, 4, 5, 6)}, {"bias": normal("dot bias", 2, 4, 5, 6)[:1, :1], "mask": mask},
        {"mask": mask, "is_causal": True},
    ):  # fmt: skip
        value = ops.dot_product_attention(q, k, v, **options)
        found.append({"query": q, "key": k, "value": v, "options": options, "result": np.asarray(value)})
    return found


def _fans() -> dict[str, Any]:
    """The largest weight of kernels drawn evenly, by which Keras's fan can be told."""
    found = {}
    for equation, shape, size in (("...m,mhd->...hd", (2, 60), (4, 30)), ("...hd,hdm->...m", (2, 4, 30), 60)):
        made = layers.EinsumDense(equation, size, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        made.build((None, *shape))
        found[equation] = {"input": list(shape), "output": size, "largest": float(np.abs(made.kernel).max())}
    return found


def _model() -> dict[str, Any]:
    """A model of all of them: its configuration, and where its file keeps which arrays."""
    import h5py

    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 6), name="x")
    a = layers.MultiHeadAttention(2, 3, use_gate=True, name="heads")(x, x, use_causal_mask=True)
    b = layers.GroupQueryAttention(3, 4, 2, name="groups")(a, x)
    c = layers.Attention(use_scale=True, name="plain")([b, x])
    d = layers.EinsumDense("...x,xy->...y", 2, bias_axes="y", name="last")(layers.AdditiveAttention()([c, x]))
    model = keras.Model(x, d, name="attentive")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.keras"
        model.save(path)
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            groups: dict[str, Any] = {}
            file.visititems(
                lambda name, item: groups.update({name: list(item.shape)}) if isinstance(item, h5py.Dataset) else None
            )
    data = normal("attention model", 2, 4, 6)
    return {"config": plain(keras.saving.serialize_keras_object(model)), "groups": groups,
            "weights": model.get_weights(), "inputs": data, "predict": model.predict(data, verbose=0)}  # fmt: skip
