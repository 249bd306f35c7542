"""Programs from the disk: what they give is what would be compiled, with the names of whoever asks."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gnomon
from gnomon import compiler, layers, ops, programs
from gnomon.compiler.errors import DataError
from gnomon.compiler.program import Launch, all_steps
from gnomon.runtime import cache, cpu


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and a compiler that is taken to be unchanged."""
    monkeypatch.setenv("GNOMON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GNOMON_CACHE", raising=False)
    monkeypatch.setattr(programs, "_this_compiler", lambda: "the compiler of this test")
    return tmp_path / "cache"


@pytest.fixture
def compilations(monkeypatch):
    """The names of what went through the compiler."""
    names = []
    compile = programs.compile

    def counted(request, target, stages):
        names.append(request.name)
        return compile(request, target, stages)

    monkeypatch.setattr(programs, "compile", counted)
    return names


def _function(name):
    x = gnomon.Input((4,), name=f"{name}_x")
    w = gnomon.Variable(np.arange(12, dtype="float32").reshape(4, 3), name=f"{name}_w")
    b = gnomon.Variable(np.ones(3, "float32"), name=f"{name}_b")
    y = ops.tanh(x @ w + b)
    return gnomon.function([x], [y, ops.sum(w)], updates=[(b, b + 1), (w, w * 2)], name=name)


def _model():
    model = gnomon.Sequential(
        [layers.Input((6,)), layers.Dense(5, activation="relu"), layers.Dropout(0.5, seed=1), layers.Dense(2)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


def test_the_second_is_read(compilations):
    x = np.ones((2, 4), "float32")
    first, second = _function("one"), _function("two")
    assert compilations == ["one"]
    for _ in range(3):
        for a, b in zip(first(x), second(x), strict=True):
            np.testing.assert_array_equal(a, b)
    first(x)  # whose variables are its own
    assert first(x)[1] == 2 * second(x)[1]


def test_variables_keep_their_places(compilations):
    x = np.ones((2, 4), "float32")
    expected = _function("one").interpret(x)
    for name in ("two", "three"):
        for a, b in zip(_function(name)(x), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert compilations == ["one"]


def test_names_and_lines_are_of_who_asks():
    models = [_model() for _ in range(2)]
    steps = [inspected(m) for m in models]
    for model, step in zip(models, steps, strict=True):
        program = step.executable.program
        assert program.name == step.name == f"{model.name}_train"
        named = {slot.name for slot in program.slots}
        assert {v.path for v in model.weights} <= named
        places = {text for s in all_steps(program.steps) if isinstance(s, Launch) for text in s.layers}
        assert any(model.layers[0].name in text for text in places)
        assert not any("\x02" in text for text in places)
    first, second = ({s.name for s in step.executable.program.slots} for step in steps)
    assert first != second


def inspected(model):
    from gnomon.inspecting import function_of

    return function_of(model, "train")


def test_all_of_a_program_is_as_it_would_be_compiled():
    def details(step):
        program = step.executable.program
        launches = [s for s in all_steps(program.steps) if isinstance(s, Launch)]
        return program.name, program.slots, program.sizes, program.checks, [s.layers for s in launches], program.entry

    _model()
    _ = inspected(_model())
    read = inspected(_model())
    made = read.program  # compiled now, to be looked at
    launches = [s for s in all_steps(made.steps) if isinstance(s, Launch)]
    whole = made.name, made.slots, made.sizes, made.checks, [s.layers for s in launches], made.entry
    assert details(read) == whole
    assert programs.without_texts(made) == read.executable.program


def test_training_is_the_same(compilations):
    x = np.random.default_rng(0).standard_normal((20, 6)).astype("float32")
    y = x[:, :2] * 2
    losses = []
    for _ in range(2):
        gnomon.utils.set_random_seed(3)
        model = _model()
        losses.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0, validation_split=0.2).history)
        losses[-1]["predicted"] = model.predict(x, verbose=0).tolist()
    assert losses[0] == losses[1]
    assert len(compilations) == 3  # train, test, predict


def test_layers_that_look_at_what_they_get_share_programs(compilations):
    for _ in range(2):
        model = gnomon.Sequential([layers.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.GRU(2)])
        model.predict(np.zeros((2, 4), "int32"), verbose=0)
    assert len(compilations) == 1


def test_errors_name_the_layer_of_who_asks():
    def adding(name):
        a, b = gnomon.Input((None,), name="a"), gnomon.Input((None,), name="b")
        model = gnomon.Model([a, b], layers.Add(name=name)([a, b]))
        return model

    x, y = np.ones((2, 3), "float32"), np.ones((2, 4), "float32")
    for name in ("first_sum", "second_sum"):
        with pytest.raises(DataError, match="must be equal") as error:
            adding(name).predict([x, y], verbose=0)
        assert name in str(error.value)
        assert "\x02" not in str(error.value)


def test_stages_are_made_when_they_are_looked_at(compilations):
    _function("one")
    fn = _function("two")
    assert compilations == ["one"]
    assert "tanh" in fn.show("simplified")
    assert "define" in fn.show("llvm")
    assert fn.show("kernels").count("\nkernel(") == len(fn.program.kernels)
    assert [s.key for s in fn.program.sources] == [s.digest for s in fn.executable.program.sources]
    assert all(not s.text for s in fn.executable.program.sources)


def test_a_damaged_entry_is_compiled_anew(fresh, compilations):
    x = np.ones((2, 4), "float32")
    expected = _function("one").interpret(x)
    for file in fresh.glob("*.gno"):
        file.write_bytes(file.read_bytes()[:-7] + b"garbage")
    for a, b in zip(_function("two")(x), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert compilations == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x05cos\nsystem\n(S'true'\ntR.", b"\x80\x05N."])
def test_an_entry_of_something_else_is_compiled_anew(monkeypatch, compilations, content):
    _function("one")
    get = cache.get
    monkeypatch.setattr(cache, "get", lambda key: None if (found := get(key)) is None else
                        content if found.startswith(b"\x80\x05") else found)  # fmt: skip
    _function("two")
    assert compilations == ["one", "two"]


def test_code_that_is_not_there_any_more_is_compiled_anew(fresh, monkeypatch):
    x = np.ones((2, 4), "float32")
    expected = _function("one").interpret(x)
    for entry in cache.list_entries():
        if not entry.name.startswith("program "):
            (fresh / f"{entry.key}.gno").unlink()
    monkeypatch.setattr(cpu, "_symbols", {})
    for a, b in zip(_function("two")(x), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    monkeypatch.setattr(cpu, "_symbols", {})  # and is there again
    events = len(gnomon.compile_events())
    _function("three")
    assert gnomon.compile_events()[events].compiled == 0


def test_without_a_cache_everything_is_compiled(monkeypatch, compilations):
    monkeypatch.setenv("GNOMON_CACHE", "0")
    _function("one"), _function("two")
    assert compilations == ["one", "two"]


@pytest.mark.parametrize("mode", ["GNOMON_CHECK", "GNOMON_NAN"])
def test_debug_modes_look_at_what_is_compiled_now(monkeypatch, mode):
    _function("one")
    monkeypatch.setenv(mode, "1")
    fn = _function("two")
    assert all(s.text for s in fn.program.sources)
    fn(np.ones((2, 4), "float32"))


def test_a_compiler_whose_files_have_changed_is_not_trusted(monkeypatch):
    monkeypatch.undo()
    programs._this_compiler.cache_clear()
    whole = programs._this_compiler()
    assert whole is None or "compile.py" in whole
    programs._this_compiler.cache_clear()
    monkeypatch.setattr(compiler, "LOADED", 0)
    assert programs._this_compiler() is None
    programs._this_compiler.cache_clear()


def test_another_process_reads_it(fresh):
    script = """
import json, sys
import numpy as np
import gnomon
from gnomon import layers, programs
programs._this_compiler = lambda: "the compiler of this test"
compiled = []
compile = programs.compile
programs.compile = lambda *arguments: (compiled.append(arguments[0].name), compile(*arguments))[1]
gnomon.utils.set_random_seed(1)
model = gnomon.Sequential([layers.Input((5,)), layers.Dense(7, "tanh"), layers.Dropout(0.2), layers.Dense(1)])
model.compile("rmsprop", "mse")
x = np.linspace(-1, 1, 60, dtype="float32").reshape(12, 5)
loss = model.fit(x, x[:, :1], epochs=2, batch_size=4, verbose=0).history["loss"]
print(json.dumps([compiled, loss, gnomon.compile_events()[0].from_cache, "llvmlite" in sys.modules]))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    command = [sys.executable, "-c", script]
    printed = [subprocess.run(command, env=environment, capture_output=True, check=True).stdout for _ in range(2)]
    results = list(map(json.loads, printed))
    assert results[0][0] == ["sequential_train"]
    assert results[1][0] == []
    assert results[0][1] == results[1][1]
    assert results[1][2:] == [True, False]
