"""Compiled functions in files: the same results and the same further course, and files that are refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.cli import main
from gnomon.compiler.errors import ArgumentError, FileError, MissingFileError
from gnomon.inspecting import function_of
from gnomon.saving import load_function, save_function


def step() -> gnomon.Function:
    """Logistic regression, with its gradients and updates."""
    x, y = gnomon.fmatrix("x"), gnomon.ivector("y")
    w = gnomon.shared(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"), "w")
    rate = gnomon.shared(np.float32(0.1), "rate")
    cost = ops.mean(ops.sparse_categorical_crossentropy(y, x @ w, from_logits=True))
    updates = [(w, w - rate * gnomon.grad(cost, w)), (rate, rate * 0.9)]
    return gnomon.function([x, y], {"cost": cost, "classes": (ops.argmax(x @ w, axis=-1),)}, updates, name="step")


def through_a_file(f: gnomon.Function, tmp_path) -> gnomon.Function:
    save_function(f, tmp_path / "f.gnf")
    return load_function(tmp_path / "f.gnf")


def test_it_goes_on_as_the_original_does(tmp_path):
    f = step()
    x, y = np.random.default_rng(1).normal(size=(6, 5)).astype("float32"), np.array([0, 1, 2, 2, 1, 0], "int32")
    f(x, y)
    again = through_a_file(f, tmp_path)
    assert again.name == "step"
    assert again.input_names == ["x", "y"]
    for _ in range(3):
        found, wanted = again(x, y), f(x, y)
        np.testing.assert_array_equal(found["cost"], wanted["cost"])
        assert isinstance(found["classes"], tuple)
        np.testing.assert_array_equal(found["classes"][0], wanted["classes"][0])


def functions() -> dict[str, tuple[gnomon.Function, list]]:
    x, k, flag = gnomon.fvector("x"), gnomon.iscalar("k"), gnomon.bscalar("flag")
    powers, _ = gnomon.scan(lambda before, x: before * x, outputs_info=ops.ones_like(x), non_sequences=x, n_steps=k)
    given = np.array([1, -2, 3], "float32")
    either = gnomon.ifelse(flag, ops.exp(x), x[::-1] * np.float32(1e-30))
    constant = np.arange(3, dtype="float32")
    m = gnomon.fmatrix("m")
    matrix = np.ones((3, 2), "float32")
    return {
        "loop": (gnomon.function([x, k], powers[-1]), [given, 4]),
        "branch": (gnomon.function([x, flag], either), [given, 0]),
        "constants": (gnomon.function([x], [x + constant, ops.mean(x) * 0.5, ops.sort(x)]), [given]),
        "sizes": (gnomon.function([m], [ops.mean(m, axis=0), m[1:] - m[:-1], ops.reshape(m, -1)]), [matrix]),
        "norm": (gnomon.function([x], gnomon.grad(ops.norm(x), x)), [given]),
    }


@pytest.mark.parametrize("name", ["loop", "branch", "constants", "sizes", "norm"])
def test_kinds_of_graphs(name, tmp_path):
    f, arguments = functions()[name]
    found, wanted = through_a_file(f, tmp_path)(*arguments), f(*arguments)
    for a, b in zip(*((v if isinstance(v, list) else [v]) for v in (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_models_own_function(tmp_path):
    inputs = gnomon.Input((None, 4))
    model = gnomon.Model(inputs, layers.Dense(2)(layers.LSTM(3)(layers.LayerNormalization()(inputs))))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    wanted = model.predict(x, verbose=0)
    f = function_of(model, "predict")
    np.testing.assert_array_equal(through_a_file(f, tmp_path)(x), wanted)


def test_equal_functions_are_equal_files(tmp_path):
    for name in ("one.gnf", "two.gnf"):
        save_function(step(), tmp_path / name)
    assert (tmp_path / "one.gnf").read_bytes() == (tmp_path / "two.gnf").read_bytes()


def test_the_command_line_takes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = gnomon.fvector("x"), gnomon.fvector("y")
    save_function(gnomon.function([x, y], {"sum": x + y}, name="sum"), "sum.gnf")
    np.savez("both.npz", x=np.arange(3.0), y=np.ones(3))
    assert main(["run", "sum.gnf", "both.npz"]) == 0
    assert capsys.readouterr().out == "sum\n1.0\n2.0\n3.0\n"
    assert main(["compile", "sum.gnf", "-o", "sum.o"]) == 0
    header = (tmp_path / "sum.h").read_text()
    assert "int sum_run(\n    const float *x,\n    const float *y,\n    float *sum,\n    size_t x_0" in header
    assert main(["dump", "sum.gnf"]) == 0
    assert main(["run", "none.gnf", "both.npz"]) == 1


def test_what_cannot_be_written(tmp_path):
    f = step()
    with pytest.raises(ArgumentError, match="must end in '.gnf'"):
        save_function(f, tmp_path / "step.keras")
    with pytest.raises(MissingFileError, match="there is no folder"):
        save_function(f, tmp_path / "nowhere" / "step.gnf")
    save_function(f, tmp_path / "step.gnf")
    with pytest.raises(FileError, match="exists already"):
        save_function(f, tmp_path / "step.gnf", overwrite=False)


def test_what_cannot_be_read(tmp_path):
    file = tmp_path / "step.gnf"
    save_function(step(), file)
    with pytest.raises(MissingFileError, match="In that folder are 'step.gnf'"):
        load_function(tmp_path / "stap.gnf")
    content = file.read_bytes()
    for damaged in (content[:-30], b"nothing", b""):
        (tmp_path / "bad.gnf").write_bytes(damaged)
        with pytest.raises(FileError, match="is not a function saved by gnomon, or damaged"):
            load_function(tmp_path / "bad.gnf")

    def changed(change) -> None:
        with zipfile.ZipFile(file) as archive:
            parts = {n: archive.read(n) for n in archive.namelist()}
        told = json.loads(parts["graph.json"])
        change(told)
        with zipfile.ZipFile(tmp_path / "bad.gnf", "w") as archive:
            archive.writestr("graph.json", json.dumps(told))
            archive.writestr("arrays.npz", parts["arrays.npz"])

    changed(lambda told: told.update(form=2))
    with pytest.raises(FileError, match="is a function of form 2, and this gnomon reads form 1"):
        load_function(tmp_path / "bad.gnf")
    for change in (
        lambda told: told["nodes"][-1].update(op="System"),
        lambda told: told["nodes"][-1].update(inputs=[10**6]),
        lambda told: next(n for n in told["nodes"] if n["op"] == "Contract")["fields"].update(out=[7]),
        lambda told: told["outputs"].append("x"),
    ):
        changed(change)
        with pytest.raises(FileError, match="is damaged: its graph makes no sense"):
            load_function(tmp_path / "bad.gnf")
