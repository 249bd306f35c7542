"""Connectionist temporal classification: Keras's numbers, sums over all alignments, any number of steps."""

from itertools import groupby, product

import numpy as np
import pytest

import gnomon
from gnomon import layers, losses, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.eager import evaluate_all
from gnomon.tensor import node_of
from tests.recorded.load import load

RECORDED = load("ctc")


def labels_of(path, blank):
    return tuple(k for k, _ in groupby(path) if k != blank)


def chances(x, blank):
    """{label sequence: probability}, by going through all paths."""
    p = np.exp(x - x.max(-1, keepdims=True)).astype(float)
    p /= p.sum(-1, keepdims=True)
    found = {}
    for path in product(range(x.shape[1]), repeat=len(x)):
        key = labels_of(path, blank)
        found[key] = found.get(key, 0.0) + np.prod([p[t, k] for t, k in enumerate(path)])
    return found


@pytest.mark.parametrize("case", RECORDED["loss"], ids=lambda c: f"{c['target_length']} {c['output_length']}")
def test_loss_is_keras_s(case):
    lengths = np.array(case["target_length"]), np.array(case["output_length"])
    found = ops.ctc_loss(case["target"], case["output"], *lengths, case["mask_index"])
    np.testing.assert_allclose(found, case["result"], rtol=2e-5, atol=2e-5)
    x = layers.Input((None, 4))
    y = layers.Input((None,), dtype="int32")
    n, m = layers.Input((), dtype="int32"), layers.Input((), dtype="int32")
    loss = ops.ctc_loss(y, x, n, m, case["mask_index"])
    inputs = [case["output"], case["target"], *(v.astype("int32") for v in lengths)]
    f = gnomon.function([x, y, n, m], [loss, grad(ops.sum(loss), x)])
    value, gradient = f(*inputs)
    np.testing.assert_allclose(value, case["result"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=2e-4, atol=2e-5)
    assert f(*(v[:1] for v in inputs))[0].shape == (1,)


@pytest.mark.parametrize(("steps", "target"), [(4, (1, 2)), (5, (1, 1)), (3, (2,)), (4, ()), (1, (1,))])
def test_loss_is_the_sum_over_alignments(steps, target):
    x = np.random.default_rng(steps).standard_normal((1, 6, 3))
    padded = np.array([[*target, 1, 1]])  # what is after the end does not count
    found = ops.ctc_loss(padded, x, np.array([len(target)]), np.array([steps]))
    np.testing.assert_allclose(found, -np.log(chances(x[0, :steps], 0)[target]), rtol=1e-9)


def test_gradient_by_differences():
    x = np.random.default_rng(1).standard_normal((2, 5, 4))
    y, n, m = np.array([[1, 3, 3], [2, 0, 0]]), np.array([3, 1]), np.array([5, 3])
    t = layers.Input((5, 4), dtype="float64")
    loss = ops.sum(ops.ctc_loss(y, t, n, m) * np.array([1.0, 0.3]))
    values = [node_of(loss), node_of(grad(loss, t))]
    gradient = evaluate_all(values, {t.node: x})[1]
    for place in [(0, 1, 3), (0, 4, 0), (1, 2, 2), (1, 3, 1)]:
        moved = [x.copy(), x.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        high, low = (evaluate_all(values[:1], {t.node: v})[0] for v in moved)
        np.testing.assert_allclose(gradient[place], (high - low) / 2e-6, atol=1e-7)


def test_a_model_learns_by_ctc():
    """Steps that show labels, each for two or three steps with pauses: of any number."""
    random = np.random.default_rng(0)
    gnomon.utils.set_random_seed(1)
    y = random.integers(1, 4, (96, 3))
    x = np.stack([np.repeat(np.insert(row, [0, 1, 2, 3], 0), random.permutation([2, 3, 2, 2, 3, 2, 2])) for row in y])
    model = gnomon.Sequential([layers.Input((None,), dtype="int32"), layers.Embedding(4, 8), layers.Dense(4)])
    model.compile(gnomon.optimizers.Adam(0.05), loss=losses.CTC())
    history = model.fit(x, y, epochs=12, batch_size=32, verbose=0).history["loss"]
    assert history[-1] < 0.5 < history[0]
    labels, _ = ops.ctc_decode(model.predict(x, verbose=0), np.full(len(x), x.shape[1]))
    np.testing.assert_array_equal(labels[0, :, :3], np.where(y == 0, -1, y))


@pytest.mark.parametrize("case", RECORDED["decode"], ids=lambda c: str(c["options"]))
def test_decoding_is_keras_s(case):
    labels, scores = ops.ctc_decode(case["inputs"], np.array(case["lengths"]), **case["options"])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, case["labels"])
    np.testing.assert_allclose(scores, case["scores"], rtol=1e-5)
    if case["options"].get("strategy") != "beam_search":
        x, n = layers.Input((None, 5)), layers.Input((), dtype="int32")
        f = gnomon.function([x, n], list(ops.ctc_decode(x, n, **case["options"])))
        again = f(case["inputs"], np.array(case["lengths"], "int32"))
        np.testing.assert_array_equal(again[0], labels)
        np.testing.assert_allclose(again[1], scores, rtol=1e-6)


def test_a_wide_search_finds_the_likeliest():
    x = np.random.default_rng(3).standard_normal((2, 5, 3))
    labels, scores = ops.ctc_decode(x, [5, 4], "beam_search", beam_width=400, top_paths=4, mask_index=1)
    for b, steps in enumerate((5, 4)):
        best = sorted(((p, k) for k, p in chances(x[b, :steps], 1).items()), reverse=True)[:4]
        for k, (p, path) in enumerate(best):
            np.testing.assert_allclose(scores[b, k], np.log(p), rtol=1e-9)
            assert labels[k, b].tolist() == [*path, *[-1] * (5 - len(path))]


def test_what_cannot_be_is_refused():
    x = np.zeros((2, 5, 3), "float32")
    with pytest.raises(ShapeError, match="batch, labels"):
        ops.ctc_loss(np.zeros(2), x, [1, 1], [5, 5])
    with pytest.raises(ArgumentError, match="mask_index"):
        ops.ctc_loss(np.zeros((2, 3), int), x, np.array([1, 1]), np.array([5, 5]), mask_index=3)
    with pytest.raises(ArgumentError, match="strategy"):
        ops.ctc_decode(x, [5, 5], "best")
    with pytest.raises(ArgumentError, match="top_paths"):
        ops.ctc_decode(x, [5, 5], "beam_search", beam_width=2, top_paths=3)
    with pytest.raises(ArgumentError, match="works on arrays"):
        ops.ctc_decode(layers.Input((5, 3)), [5, 5], "beam_search")
    with pytest.raises(ShapeError, match="batch, steps, classes"):
        ops.ctc_decode(x[0], [5])
