"""Rows of a table times weights, as rows of the table times weights, which is made once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import DataError
from gnomon.compiler.graph import walk
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.passes import tables
from gnomon.inspecting import function_of

WORDS = 37


def unsettled(model: Any, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.4, w.shape).astype(w.dtype) for w in model.get_weights()])


def by_layers(model: Any, x: np.ndarray) -> np.ndarray:
    """Each layer by itself, without the compiler knowing of the others."""
    for layer in model.layers:
        x = np.asarray(layer(x))
    return x


def each_call(model: Any) -> list[str]:
    """What a prediction multiplies in each call: the products of the graph that do not stay."""
    written = {p for p, _ in function_of(model, "predict")._request.updates}
    roots = function_of(model, "predict").stages.simplified
    fixed = tables.lasting(walk(roots), written)
    return [str(n.op) for n in walk(roots) if isinstance(n.op, Contract) and n not in fixed]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "after",
    [
        lambda dtype: [layers.Dense(5, activation="relu", dtype=dtype)],
        lambda dtype: [layers.Dense(5, activation="softplus", dtype=dtype), layers.Dense(7, dtype=dtype)],
        lambda dtype: [layers.LSTM(6, dtype=dtype)],
        lambda dtype: [layers.GRU(6, return_sequences=True, go_backwards=True, dtype=dtype)],
        lambda dtype: [layers.EinsumDense("abc,cde->adbe", (3, 9, 2), bias_axes="de", dtype=dtype)],
    ],
)
def test_results_are_those_of_the_layers(after: Any, batch: int, dtype: str) -> None:
    words = [layers.Input((9,), dtype="int32"), layers.Embedding(WORDS, 4, dtype=dtype)]
    model = gnomon.Sequential([*words, *after(dtype)])
    x = np.random.default_rng(1).integers(0, WORDS, (batch, 9)).astype("int32")
    for seed in (0, 1):  # what was made follows its variables
        unsettled(model, seed)
        got = model.predict(x, verbose=0)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, by_layers(model, x), rtol=1e-5, atol=1e-6)
    assert each_call(model) == []


def test_rows_that_others_read_too() -> None:
    """Both directions have a table of their own; the mask comes from the indices; the rows themselves are an output."""
    words = layers.Input((None,), dtype="int32")
    rows = layers.Embedding(WORDS, 4, mask_zero=True)(words)
    both = layers.Bidirectional(layers.GRU(3))(rows)
    model = gnomon.Model(words, [both, rows, layers.Dense(2)(rows)])
    unsettled(model)
    x = np.random.default_rng(1).integers(0, 3, (4, 7)).astype("int32")
    got = model.predict(x, verbose=0)
    embedding, bidirectional, dense = (layer for layer in model.layers if layer.weights)
    want = np.asarray(embedding(x))
    np.testing.assert_array_equal(got[1], want)
    np.testing.assert_allclose(got[2], np.asarray(dense(want)), rtol=1e-5, atol=1e-6)
    states = np.asarray(bidirectional(want, mask=ops.convert_to_tensor(x != 0)))
    np.testing.assert_allclose(got[0], states, rtol=1e-5, atol=1e-6)
    assert each_call(model) == []


def _scored(x: Any, features: Any) -> Any:
    """A product of rows along their places: of these no table can be made."""
    return ops.einsum("bpe,bpf->bef", x, features)


def test_products_that_are_none_of_a_table() -> None:
    words, features = layers.Input((5,), dtype="int32"), layers.Input((5, 2))
    rows = layers.Embedding(WORDS, 4)(words)
    model = gnomon.Model([words, features], layers.Lambda(lambda both: _scored(*both))([rows, features]))
    rng = np.random.default_rng(1)
    x, f = rng.integers(0, WORDS, (3, 5)).astype("int32"), rng.normal(size=(3, 5, 2)).astype("float32")
    (table,) = model.get_weights()
    want = np.einsum("bpe,bpf->bef", table[x], f)
    np.testing.assert_allclose(model.predict([x, f], verbose=0), want, rtol=1e-5, atol=1e-6)
    assert len(each_call(model)) == 1


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_ADDED"])
def test_tables_that_would_be_large_are_not_made(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, limit, 4 * WORDS * 5 - 1)
    model = gnomon.Sequential([layers.Input((9,), dtype="int32"), layers.Embedding(WORDS, 4), layers.Dense(5)])
    x = np.random.default_rng(1).integers(0, WORDS, (2, 9)).astype("int32")
    np.testing.assert_allclose(model.predict(x, verbose=0), by_layers(model, x), rtol=1e-5, atol=1e-6)
    assert len(each_call(model)) == 1


def test_what_is_trained_is_multiplied() -> None:
    """A step sees the weights of the step before; what is frozen may become a table, and its results are the same."""
    x = np.random.default_rng(1).integers(0, WORDS, (8, 9)).astype("int32")
    y = np.random.default_rng(2).normal(size=(8, 9, 1)).astype("float32")
    losses = []
    for most in (tables.MOST_BYTES, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "MOST_BYTES", most)
            hidden = [layers.Embedding(WORDS, 4, trainable=False), layers.Dense(6, activation="tanh", trainable=False)]
            model = gnomon.Sequential([layers.Input((9,), dtype="int32"), *hidden, layers.Dense(1)])
            unsettled(model)
            model.compile(optimizer="adam", loss="mse")
            losses.append([model.train_on_batch(x, y) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][2] < losses[0][0]


def test_an_index_that_is_none_is_still_told() -> None:
    model = gnomon.Sequential([layers.Input((9,), dtype="int32"), layers.Embedding(WORDS, 4), layers.Dense(5)])
    x = np.zeros((2, 9), "int32")
    model.predict(x, verbose=0)
    x[1, 3] = WORDS
    with pytest.raises(DataError, match="embedding"):
        model.predict(x, verbose=0)
