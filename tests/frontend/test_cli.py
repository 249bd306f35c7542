"""The command line: what it prints, what it returns, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import networkx
import pytest

from gnomon.cli import main

SCRIPT = """
    import gnomon
    from gnomon import layers, ops

    def make():
        inputs = layers.Input((6,), name="features")
        hidden = layers.Dense(4, activation="relu", name="hidden")(inputs)
        return gnomon.Model(inputs, layers.Dense(2, name="out")(hidden), name="small")

    def needs(argument):
        return argument

    def stumble():
        return [][3]

    model = make()
    trained = make()
    trained.compile(loss="mse")
    x = gnomon.vector("x")
    double = gnomon.function([x], x * 2 + x * 0 + 0, name="double")
    number = 3
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("user") / "train.py"
    file.write_text(textwrap.dedent(SCRIPT))
    return str(file)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A cache of its own, and no trace of the imported scripts afterwards."""
    monkeypatch.setenv("GNOMON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GNOMON_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "train", sys)


@pytest.fixture
def gnomon(capsys):
    """Run the command; its exit code, and what it printed on stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


# ---- dump


def test_dump_of_a_model_shows_its_layers_and_lines(gnomon, script):
    code, out, err = gnomon("dump", f"{script}:model")
    assert (code, err) == (0, "")
    first, second, third, last = out.splitlines()
    assert first.startswith("%0 = InputLayer[features] : float32[batch, 6]  ; ")
    assert second.startswith("%1 = Dense[hidden, 28 parameters](%0) : float32[batch, 4]  ; hidden (train.py:7)")
    assert third.startswith("%2 = Dense[out, 10 parameters](%1) : float32[batch, 2]")
    assert last == "return %2"


def test_dump_of_a_function_by_stage(gnomon, script):
    for stage, expected in {
        "graph": "multiply", "simplified": "return %", "rows": "rows(", "kernels": "for p <", "llvm": "define",
        "program": "launch ", "split-reductions": "return %",
    }.items():  # fmt: skip
        code, out, _ = gnomon("dump", f"{script}:double", "--stage", stage)
        assert code == 0
        assert expected in out, stage


def test_dump_of_a_training_step(gnomon, script):
    code, out, _ = gnomon("dump", f"{script}:trained", "--stage", "differentiated")
    assert code == 0
    assert "small/hidden" in out
    assert "hidden/kernel <- %" in out
    code, _, err = gnomon("dump", f"{script}:model", "--stage", "differentiated")
    assert (code, err.count("\n")) == (1, 1)
    assert "no training step before `compile()`" in err


def test_formats(gnomon, script):
    _, out, _ = gnomon("dump", f"{script}:model", "--format", "json")
    assert [n["op"] for n in json.loads(out)["nodes"]] == ["InputLayer", "Dense", "Dense"]
    _, out, _ = gnomon("dump", f"{script}:double", "-f", "graphml")
    graph = networkx.parse_graphml(out)
    assert {d["op"] for _, d in graph.nodes(data=True)} >= {"Input", "Elementwise"}
    _, out, _ = gnomon("dump", f"{script}:double", "-f", "dot", "-s", "kernels")
    assert out.startswith("digraph")
    _, out, _ = gnomon("dump", f"{script}:double", "-f", "json", "-s", "assembly")
    assert {"name", "text"} == set(json.loads(out)["sources"][0])


def test_difference_of_two_stages(gnomon, script):
    code, out, _ = gnomon("dump", f"{script}:double", "--diff", "graph", "simplified")
    assert code == 0
    assert out.startswith("--- double: graph\n+++ double: simplified\n")
    assert "\n-%" in out
    assert gnomon("dump", f"{script}:double", "--diff", "graph", "graph")[1].endswith("are the same\n")


def test_a_file_is_written_whole_or_not_at_all(gnomon, script, tmp_path):
    file = tmp_path / "graph.txt"
    file.write_text("old")
    assert gnomon("dump", f"{script}:double", "-o", str(file)) == (0, "", "")
    assert file.read_text().startswith("%0 = Input(x)")
    assert gnomon("dump", f"{script}:double", "-s", "nonsense", "-o", str(file))[0] == 1
    assert file.read_text().startswith("%0 = Input(x)")
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["graph.txt"]
    code, _, err = gnomon("dump", f"{script}:double", "-o", str(tmp_path / "no" / "file"))
    assert code == 1
    assert "No such file or directory" in err


def test_stages_can_be_listed(gnomon, script):
    assert gnomon("dump", f"{script}:model", "--list")[1].split("\n")[:3] == ["layers", "graph", "differentiated"]


def test_what_a_function_returns(gnomon, script):
    code, out, _ = gnomon("dump", f"{script}:make()")
    assert code == 0
    assert "Dense[hidden" in out


# ---- summary


def test_summary(gnomon, script):
    code, out, _ = gnomon("summary", f"{script}:model")
    assert code == 0
    assert 'Model: "small"' in out
    assert "Total params: 38" in out
    assert "\x1b" not in out


def test_summary_for_programs(gnomon, script):
    code, out, _ = gnomon("summary", f"{script}:model", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["parameters"] == told["trainable_parameters"] == 38
    assert [(layer["name"], layer["output_shape"], layer["parameters"]) for layer in told["layers"][1:]] == [
        ("hidden", [None, 4], 28), ("out", [None, 2], 10)
    ]  # fmt: skip


def test_saved_models(gnomon, tmp_path):
    import gnomon as library

    inputs = library.Input((6,), name="features")
    file = tmp_path / "model.keras"
    library.Model(inputs, library.layers.Dense(2, name="out")(inputs), name="saved").save(file)
    code, out, _ = gnomon("summary", str(file))
    assert code == 0
    assert 'Model: "saved"' in out
    assert "Dense[out, 14 parameters]" in gnomon("dump", str(file))[1]
    code, _, err = gnomon("summary", str(tmp_path / "other.keras"))
    assert (code, err) == (1, f"gnomon: there is no file {tmp_path / 'other.keras'}\n")


# ---- failures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dump", "{}:modle"], "has no 'modle'. Did you mean 'model'"),
        (["dump", "{}:make"], "is a Python function (write () behind it to call it); dump takes a model or"),
        (["dump", "{}:number"], "is of type int; dump takes a model or a compiled function"),
        (["dump", "{}:stumble()"], "failed: IndexError: list index out of range ("),
        (["dump", "{}:needs()"], "failed: TypeError: needs() missing 1 required positional argument"),
        (["dump", "nowhere.py:model"], "there is no file nowhere.py"),
        (["dump", "no_such_module:model"], "failed: ModuleNotFoundError: No module named 'no_such_module'"),
        (["dump", "{}:double", "--stage", "kernel"], "There is no stage 'kernel'. Did you mean 'kernels'?"),
        (["dump", "{}:double", "--format", "dott"], "There is no format 'dott'. Did you mean 'dot'"),
        (["dump", "{}:double", "-s", "llvm", "-f", "dot"], "'llvm' is text that cannot be drawn"),
        (["summary", "{}:double"], "is of type Function; summary takes a model"),
    ],
)
def test_failures_are_one_line(gnomon, script, arguments, message):
    code, out, err = gnomon(*(a.format(script) for a in arguments))
    assert (code, out) == (1, "")
    assert err.startswith("gnomon: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "arguments", [["dump"], ["dump", "nothing"], ["dmp"], ["cache", "lst"], ["dump", "{}:double", "--stge", "llvm"],
                  ["dump", "{}:double", "--diff", "graph"], ["dump", "{}:double", "-s", "graph", "--diff", "a", "b"]]
)  # fmt: skip
def test_wrong_usage_is_code_2(gnomon, script, arguments):
    code, out, err = gnomon(*(a.format(script) for a in arguments))
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_the_traceback_on_demand(gnomon, script, monkeypatch):
    monkeypatch.setenv("GNOMON_TRACEBACK", "1")
    code, _, err = gnomon("dump", f"{script}:stumble()")
    assert code == 1
    assert "Traceback" in err
    assert "return [][3]" in err


# ---- cache


def test_cache_commands(gnomon, script, tmp_path):
    assert gnomon("cache", "path")[1] == f"{tmp_path / 'cache'}\n"
    assert gnomon("cache", "list")[:2] == (0, "")
    gnomon("dump", f"{script}:double")
    found = json.loads(gnomon("cache", "list", "--json")[1])
    info = json.loads(gnomon("cache", "info", "--json")[1])
    assert info["entries"] == len(found)
    assert info["bytes"] == sum(e["bytes"] for e in found)
    assert info["problem"] == ""
    assert len(gnomon("cache", "list")[1].splitlines()) == (len(found) + 1 if found else 0)
    assert "in use   yes" in gnomon("cache", "info")[1]
    code, out, _ = gnomon("cache", "clear")
    assert (code, out.partition(" ")[0]) == (0, str(len(found)))
    assert json.loads(gnomon("cache", "info", "--json")[1])["entries"] == 0


def test_a_cache_that_is_switched_off(gnomon, monkeypatch):
    monkeypatch.setenv("GNOMON_CACHE", "0")
    assert gnomon("cache", "path") == (1, "", "gnomon: there is no cache: switched off by GNOMON_CACHE\n")
    assert "no: switched off by GNOMON_CACHE" in gnomon("cache", "info")[1]


# ---- doctor, help


def test_doctor(gnomon):
    code, out, _ = gnomon("doctor")
    assert code == 0
    for word in ("gnomon", "python", "llvmlite", "processor", "threads", "cache", "gpu", "compiling", "works: "):
        assert word in out
    found = json.loads(gnomon("doctor", "--json")[1])
    assert found["compiling"]["ok"] is True


def test_doctor_tells_what_is_wrong(gnomon, monkeypatch):
    monkeypatch.setenv("GNOMON_THREADS", "many")
    code, out, _ = gnomon("doctor")
    assert code == 1
    assert "! ArgumentError: GNOMON_THREADS is 'many'" in out


@pytest.mark.parametrize("command", [[], ["dump"], ["summary"], ["cache"], ["doctor"]])
def test_help_teaches_with_examples(gnomon, command):
    code, out, _ = gnomon(*command, "--help")
    assert code == 0
    assert "gnomon " + " ".join(command) in out


def test_the_command_is_light():
    """`gnomon cache` starts without the compiler, and nothing is imported before it is needed."""
    code = "import sys, gnomon.cli; assert 'click' not in sys.modules; gnomon.cli.main(['cache', 'path']); " + (
        "print([m for m in ('llvmlite', 'networkx', 'rich', 'gnomon.models', 'gnomon.functions') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_no_traceback(script):
    code = f"from gnomon.cli import main; raise SystemExit(main(['dump', {script!r} + ':double', '-s', 'llvm']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert error == b""
