"""Training in C where samples or classes count differently."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon.ahead import Weighing
from gnomon.cli import main
from gnomon.compiler import aot
from gnomon.compiler.errors import ArgumentError
from tests.aot.support import compile_c, needs_cc
from tests.aot.test_gnx import save

STEPS, BATCH = 12, 8


def classifier(loss: str = "sparse_categorical_crossentropy", **options) -> gnomon.Model:
    gnomon.utils.set_random_seed(5)
    x = gnomon.Input((6,), name="x")
    model = gnomon.Model(x, layers.Dense(3, activation="softmax", name="kind")(layers.Dense(5)(x)), name="net")
    model.compile(gnomon.optimizers.Adam(0.01), loss, **options)
    return model


def data(labels: str = "int32") -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(STEPS * BATCH, 6)).astype("float32"), rng.integers(0, 3, STEPS * BATCH)
    w = rng.uniform(0, 2, STEPS * BATCH).astype("float32")
    return x, y.astype("int32") if labels == "int32" else np.eye(3, dtype="float32")[y], w


PROGRAM = """
    #include "net.h"
    #include <stdio.h>
    int main(void) {
        static float x[STEPS * BATCH * 6], w[STEPS * BATCH];
        static int32_t y[STEPS * BATCH];
        static uint64_t state[(NET_STATE_BYTES + 7) / 8];
        static unsigned char workspace[NET_WORKSPACE_BYTES];
        float accuracy, weighted, loss;
        if (fread(x, sizeof x, 1, stdin) + fread(y, sizeof y, 1, stdin) + fread(w, sizeof w, 1, stdin) != 3) return 1;
        if (net_init(state)) return 2;
        for (int k = 0; k < STEPS; k++) {
            if (net_reset_metrics(state)) return 3;
            if (net_step(state, x + k * BATCH * 6, y + k * BATCH, w + k * BATCH, &accuracy, &loss, &weighted,
                         BATCH, workspace, sizeof workspace)) return 4;
            printf("%.9g %.9g %.9g\\n", (double)loss, (double)accuracy, (double)weighted);
        }
        if (net_reset_metrics(state)) return 5;
        if (net_evaluate(state, x, y, w, &accuracy, &loss, &weighted, STEPS * BATCH, workspace, sizeof workspace))
            return 6;
        printf("%.9g %.9g %.9g\\n", (double)loss, (double)accuracy, (double)weighted);
        return net_step(state, x, y, NULL, &accuracy, &loss, &weighted, BATCH, workspace, sizeof workspace);
    }
"""


@needs_cc
def test_steps_in_c_take_a_weight_for_each_sample(tmp_path):
    model = classifier(metrics=["accuracy"], weighted_metrics=["accuracy"])
    library = ahead.build(model, "net", train=True, max_batch=STEPS * BATCH)
    step = library.routines[1]
    assert [a.name for a in step.inputs] == ["x", "y", "sample_weight"]
    header = aot.header(library)
    assert "sample_weight" in header
    names = [a.name for a in step.outputs]
    assert names == ["accuracy", "loss", "weighted_accuracy"], names
    ahead.write(library, tmp_path / "net", "obj", ".o")
    program = compile_c(tmp_path, PROGRAM, "net.o", options=[f"-DSTEPS={STEPS}", f"-DBATCH={BATCH}"])
    x, y, w = data()
    done = subprocess.run([program], input=x.tobytes() + y.tobytes() + w.tobytes(), capture_output=True)
    assert done.returncode == 1, "a NULL for the weights is refused"
    found = np.array([line.split() for line in done.stdout.decode().splitlines()], "float32")
    parts = [slice(k, k + BATCH) for k in range(0, STEPS * BATCH, BATCH)]
    wanted = [model.train_on_batch(x[p], y[p], sample_weight=w[p], return_dict=True) for p in parts]
    wanted.append(model.test_on_batch(x, y, sample_weight=w, return_dict=True))
    order = ("loss", "accuracy", "weighted_accuracy")
    # the process gathers the rows of its batches, and so adds up in another order
    np.testing.assert_allclose(found, np.array([[row[k] for k in order] for row in wanted]), rtol=1e-6)


@pytest.mark.parametrize("labels", ["int32", "float32"])
def test_weights_of_classes(labels, tmp_path):
    kind = "sparse_categorical_crossentropy" if labels == "int32" else "categorical_crossentropy"
    model, weights = classifier(kind), {0: 0.5, 1: 3.0}
    loaded = gnomon.runtime.load(save(model, tmp_path / "net", train=True, weighing=Weighing(classes=weights)))
    x, y, _ = data(labels)
    for k in range(0, STEPS * BATCH, BATCH):
        own = slice(k, k + BATCH)
        wanted = model.train_on_batch(x[own], y[own], class_weight=weights, return_dict=True)
        assert loaded.step(x[own], y[own]) == pytest.approx(wanted, rel=1e-6)
    assert loaded.evaluate(x, y) == pytest.approx(model.test_on_batch(x, y, return_dict=True), rel=1e-6)


def test_weights_for_each_of_several_outputs(tmp_path):
    gnomon.utils.set_random_seed(0)
    x = gnomon.Input((6,), name="x")
    outputs = {"size": layers.Dense(2, name="size")(x), "kind": layers.Dense(3, activation="softmax", name="kind")(x)}
    model = gnomon.Model(x, outputs)
    model.compile("sgd", {"size": "mse", "kind": "sparse_categorical_crossentropy"})
    loaded = gnomon.runtime.load(save(model, tmp_path / "net", train=True, weighing=Weighing(samples=True)))
    values, y, w = data()
    labels = {"size": values[:, :2], "kind": y}
    weights = {"size": w, "kind": w[::-1].copy()}
    given = {f"y_{k}": v for k, v in labels.items()} | {f"sample_weight_{k}": v for k, v in weights.items()}
    for _ in range(2):
        found = loaded.step(values, **given)
        assert found == pytest.approx(model.train_on_batch(values, labels, weights, return_dict=True), rel=1e-6)


def test_what_does_not_go_together(tmp_path, capsys, monkeypatch):
    model = classifier()
    with pytest.raises(ArgumentError, match="for each sample or for each class, not both"):
        ahead.build(model, "net", train=True, weighing=Weighing(True, {0: 1.0}))
    with pytest.raises(ArgumentError, match="they go with `train`"):
        ahead.build(model, "net", weighing=Weighing(True))
    with pytest.raises(ArgumentError, match="classes are whole numbers from 0 on"):
        ahead.build(model, "net", train=True, weighing=Weighing(classes={-1: 1.0}))
    x = gnomon.Input((4, 6))
    series = gnomon.Model(x, layers.Dense(3)(x))
    series.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=r"\(batch,\) or \(batch, classes\), not \(batch, 4, 3\)"):
        ahead.build(series, "net", train=True, weighing=Weighing(classes={1: 1.0}))
    monkeypatch.chdir(tmp_path)
    model.save("net.keras")
    line = ["compile", "net.keras", "-o", "net.o"]
    assert main([*line, "--sample-weight"]) == 2
    assert main([*line, "--train", "--sample-weight", "--class-weight", "0=1"]) == 2
    assert main([*line, "--train", "--class-weight", "a=1"]) == 2
    assert "'a=1' is not CLASS=W, such as 3=2.5" in capsys.readouterr().err
    assert main([*line, "--train", "--class-weight", "0=.5", "--class-weight", "2=4"]) == 0
    assert "sample_weight" not in (tmp_path / "net.h").read_text()
    assert main([*line, "--train", "--sample-weight"]) == 0
    assert "const float *sample_weight" in (tmp_path / "net.h").read_text()
