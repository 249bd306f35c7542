"""Weights of 8 bits: what is stored, what it costs, and that the ways to compute with them agree."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon import quantize as quantize_module
from gnomon.cli import main
from gnomon.compiler.aot import targets
from gnomon.compiler.errors import DataError
from gnomon.compiler.graph import walk
from gnomon.compiler.ops.reduce import Reduce
from gnomon.functions import Function
from gnomon.quantize import CUT, _steps, quantize, rounded
from gnomon.tracing import traced
from tests.aot.support import Built, needs_cc

CORTEX = targets.find("cortex-m4")


def graph_of(model: gnomon.Model):
    return traced(model)[0].graph


def run(graph, x: np.ndarray) -> np.ndarray:
    return np.asarray(Function(graph)(x))


def stored(graph) -> dict[str, np.ndarray]:
    return {v.name.partition("/")[2]: v.numpy() for v in graph.variables}


def dense(units: int = 6) -> gnomon.Model:
    gnomon.utils.set_random_seed(3)
    inputs = gnomon.Input((20,), name="x")
    return gnomon.Model(inputs, layers.Dense(units, name="dense")(inputs), name="net")


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, 1.0, size=shape).astype("float32")


def test_weights_are_stored_in_eight_bits_with_a_scale_for_each_channel():
    model, x = dense(), data(50, 20)
    small, report = quantize(graph_of(model), [x])
    found = stored(small)
    assert found["dense/int8"].dtype == np.int8
    assert found["dense/int8"].shape == (20, 6)
    assert found["dense/scale"].shape == found["dense/offset"].shape == (6,)
    assert "kernel" not in found
    assert np.abs(found["dense/int8"]).max() <= 127
    kernel = model.layers[-1].kernel.numpy()
    step = found["dense/scale"]
    inside = np.abs(kernel) < 127 * step
    error = np.abs(found["dense/int8"] * step - kernel) / step
    assert (error[inside] <= 0.501).all()
    assert report.layers == (("net/dense", 480, 120 + 48),)
    assert report.before is None
    assert report.after < 0.05
    assert "480 -> 168 bytes  net/dense" in str(report)


def test_the_error_has_no_mean_on_the_data():
    model, x = dense(), data(200, 20)
    difference = run(quantize(graph_of(model), [x])[0], x) - model.predict(x, verbose=0)
    assert np.abs(difference.mean(0)).max() < 1e-5
    assert difference.std() > 1e-4


def test_scales_are_chosen_by_what_is_multiplied():
    """A large weight that meets only zeros does not make the others coarse."""
    model, x = dense(), data(100, 20)
    x[:, 0] = 0
    kernel = model.layers[-1].kernel.numpy()
    kernel[0] = 1.5 * np.abs(kernel[1:]).max(0)
    model.layers[-1].kernel.assign(kernel)
    scale = stored(quantize(graph_of(model), [x])[0])["dense/scale"]
    assert (scale / (np.abs(kernel).max(0) / 127)).mean() < 0.9


@pytest.mark.parametrize("kind", ["dense", "conv", "depthwise", "strided", "einsum"])
def test_both_ways_to_compute_agree(kind):
    gnomon.utils.set_random_seed(4)
    image = gnomon.Input((9, 8, 6), name="image")
    outputs = {
        "dense": lambda: layers.Dense(5)(image),
        "conv": lambda: layers.Conv2D(7, 3, padding="same")(image),
        "depthwise": lambda: layers.DepthwiseConv2D(4, depth_multiplier=2)(image),
        "strided": lambda: layers.Conv2D(4, (2, 3), strides=2, dilation_rate=1)(image),
        "einsum": lambda: layers.EinsumDense("abcd,de->abce", output_shape=(None, 8, 12))(image),
    }[kind]()
    model = gnomon.Model(image, outputs)
    x = data(6, 9, 8, 6)
    wanted = model.predict(x, verbose=0)
    graph = graph_of(model)
    found = [run(quantize(graph, [x], in_place=in_place)[0], x) for in_place in (False, True)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)
    error = found[0] - wanted
    assert 0 < np.abs(error).max() < 0.03 * np.abs(wanted).max()
    assert np.abs(error.mean((0, 1, 2))).max() < 1e-5


@pytest.mark.parametrize("kind", ["dense", "conv", "depthwise", "strided", "einsum", "shared"])
def test_products_of_whole_numbers(kind):
    """What is multiplied has 8 bits, what is added up 32, and the results are near those of floats."""
    gnomon.utils.set_random_seed(4)
    image = gnomon.Input((9, 8, 6), name="image")
    relu = layers.ReLU()(image)
    outputs = {
        "dense": lambda: layers.Dense(5)(image),
        "conv": lambda: layers.Conv2D(7, 3, padding="same")(relu),
        "depthwise": lambda: layers.DepthwiseConv2D(4, depth_multiplier=2)(relu),
        "strided": lambda: layers.Conv2D(4, (2, 3), strides=2)(layers.ZeroPadding2D(1)(image)),
        "einsum": lambda: layers.EinsumDense("abcd,de->abce", output_shape=(None, 8, 12))(image),
        "shared": lambda: layers.Add()([layers.Dense(7)(relu)[:, 1:-1, 1:-1], layers.Conv2D(7, 3)(relu)]),
    }[kind]()
    model, x = gnomon.Model(image, outputs), data(40, 9, 8, 6)
    wanted = model.predict(x, verbose=0)
    graph = quantize(graph_of(model), [x], whole=True)[0]
    whole = rounded(graph.outputs)
    assert len(whole) == 1  # made once, however many read it
    assert whole[0].dtype == ("int8" if kind in ("dense", "strided", "einsum") else "uint8")
    sums = [n for n in walk(graph.outputs) if isinstance(n.op, Reduce) and n.dtype == "int32"]
    assert len(sums) == (2 if kind == "shared" else 1)
    error = run(graph, x) - wanted
    assert 0 < np.sqrt((error**2).mean()) < 0.02 * wanted.std()
    assert np.abs(error.mean()) < 0.002 * wanted.std()


def test_steps_are_chosen_by_the_data():
    """By those with the least error: of many small numbers and few large ones those are cut. Zeros have a step too."""
    x = np.random.default_rng(0).laplace(size=(5000, 20)).astype("float32")
    graph = graph_of(dense())
    found = quantize_module._weights(graph)[0]
    (way,) = _steps(graph, found, [x]).values()
    errors = {f: np.square(x - f * np.clip(np.rint(x / f), -127, 127)).sum() for f in CUT * np.abs(x).max() / 127}
    assert way.dtype == "int8"
    assert way.step == pytest.approx(min(errors, key=errors.get))
    assert way.step < 0.99 * np.abs(x).max() / 127
    (way,) = _steps(graph, found, [0 * x]).values()
    assert way.step > 0


def test_sums_that_might_not_fit_stay_floats():
    x = gnomon.Input((70_000,), name="x")
    model = gnomon.Model(x, layers.Dense(1)(x))
    graph = quantize(graph_of(model), [data(2, 70_000)], whole=True)[0]
    assert not rounded(graph.outputs)


def test_what_stays_as_it_is():
    series = gnomon.Input((5, 20), name="series")
    outputs = layers.Dense(9, name="last")(layers.LSTM(20, name="memory")(series))
    _, report = quantize(graph_of(gnomon.Model(series, outputs)), [data(3, 5, 20)])
    assert any(label.endswith("/last") for label, _, _ in report.layers)
    assert any("memory" in label for label in report.kept)
    with pytest.raises(DataError, match="has no product with weights that 8 bits would make"):
        quantize(graph_of(gnomon.Model(series, layers.Activation("relu")(series))), [data(3, 5, 20)])


def test_channels_of_zeros():
    model = dense()
    kernel = model.layers[-1].kernel.numpy()
    kernel[:, 2] = 0
    model.layers[-1].kernel.assign(kernel)
    x = data(10, 20)
    found = run(quantize(graph_of(model), [x])[0], x)
    np.testing.assert_array_equal(found[:, 2], model.predict(x, verbose=0)[:, 2])


@pytest.mark.parametrize("classes, shape", [(6, ()), (6, (6,)), (1, ()), (1, (1,))])
def test_accuracy_before_and_after(classes, shape):
    model, x = dense(classes), data(40, 20)
    logits = model.predict(x, verbose=0)
    right = logits.argmax(-1) if classes > 1 else (logits[:, 0] > 0.5).astype(int)
    y = np.eye(6)[right] if shape == (6,) else right.reshape(40, *shape)
    report = quantize(graph_of(model), [x], y)[1]
    assert report.measure == "accuracy"
    assert report.before == 1
    assert 0.9 <= report.after <= 1
    assert "accuracy: 100.00% -> " in str(report)
    with pytest.raises(DataError, match="there are 39 labels for 40 samples"):
        quantize(graph_of(model), [x], y[:39])


def test_data_that_do_not_fit():
    with pytest.raises(DataError, match="takes 1 arrays, but 2 were given"):
        ahead.quantized(dense(), [data(3, 20), data(3, 20)])
    with pytest.raises(DataError, match="with the same number of samples, at least 1"):
        ahead.quantized(dense(), [data(0, 20)])


@needs_cc
def test_whole_numbers_in_c(tmp_path):
    """Values between layers have 8 bits, in memory too; one library for any batch."""
    gnomon.utils.set_random_seed(4)
    image = gnomon.Input((12, 12, 2), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(image))
    model = gnomon.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    pictures = data(40, 12, 12, 2)
    small = ahead.quantized(model, [pictures], whole=True)
    library = ahead.build(small, "small")
    assert library.model.startswith("int8 weights and products of")
    found = Built(tmp_path, library)
    for count in (1, 5):
        (result,) = found([pictures[:count]], {"batch": count})
        wanted = run(small.traced[0].graph, pictures[:count])
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
    options = {"target": CORTEX, "batch": 1}
    floats = ahead.build(ahead.quantized(model, [pictures], target=CORTEX), "floats", **options)
    whole = ahead.build(ahead.quantized(model, [pictures], target=CORTEX, whole=True), "whole", **options)
    assert 3 * whole.greatest_workspace < floats.greatest_workspace


@needs_cc
@pytest.mark.parametrize("target", [None, CORTEX])
def test_in_c(target, tmp_path):
    """For a microcontroller no weight becomes float32 in memory: the workspace does not grow."""
    model, x = dense(), data(30, 20)
    small = ahead.quantized(model, [x], target=target)
    assert len(ahead.build(small, "open").weights) < 300
    library = ahead.build(small, "small", target and targets.find("x86-64"), batch=1)
    assert len(library.weights) < 300
    (found,) = Built(tmp_path, library)([x[:1]], {})
    np.testing.assert_allclose(found, run(small.traced[0].graph, x[:1]), rtol=1e-5, atol=1e-6)
    if target is not None:
        assert library.greatest_workspace <= ahead.build(model, "plain", CORTEX, batch=1).greatest_workspace


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, x = dense(), data(30, 20)
    model.save("small.keras")
    np.savez("data.npz", x=x, y=model.predict(x, verbose=0).argmax(-1))
    arguments = ["compile", "small.keras", "-o", "small.o", "--quantize", "int8", "--calibrate", "data.npz"]
    assert main([*arguments, "--target", "cortex-m4", "--batch", "1"]) == 0
    printed = capsys.readouterr().out
    assert "accuracy: 100.00% -> " in printed
    assert "flash" in printed
    assert "RAM" in printed
    assert "int8 weights of 'net'" in (tmp_path / "small.h").read_text()
    assert main([arguments[0], *arguments[1:4], "--quantize", "integers", *arguments[6:]]) == 0
    assert "accuracy: 100.00% -> " in capsys.readouterr().out
    assert "int8 weights and products of 'net'" in (tmp_path / "small.h").read_text()
    np.savez("test.npz", x=x[:10], y=1 - model.predict(x[:10], verbose=0).argmax(-1))
    assert main([*arguments, "--compare", "test.npz"]) == 0
    assert "accuracy: 0.00% -> 0.00%" in capsys.readouterr().out
    np.save("x.npy", x)
    assert main([*arguments[:-1], "x.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quantized"]["measure"] == "largest difference of an output"
    assert main(arguments[:-2]) == 2
    assert main([*arguments[:-1], "none.npz"]) == 1
    assert "there is no file 'none.npz'" in capsys.readouterr().err
    assert main([*arguments, "--train"]) == 1
    assert "has weights of 8 bits, which cannot be trained" in capsys.readouterr().err
