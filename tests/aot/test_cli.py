"""`gnomon compile`, `run`, `bench` and `profile`: what they write, print and refuse."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gnomon.cli import main

SCRIPT = """
    import gnomon
    from gnomon import layers, ops

    def make():
        gnomon.utils.set_random_seed(1)
        inputs = gnomon.Input((2, 3), name="features")
        hidden = layers.Dense(4, activation="relu", name="hidden")(layers.Flatten(name="flat")(inputs))
        return gnomon.Model(inputs, layers.Dense(2, name="out")(hidden), name="small")

    model = make()
    trained = make()
    trained.compile("sgd", loss="mse")
    series = gnomon.Input((None, 3), name="series")
    recurrent = gnomon.Model(series, layers.SimpleRNN(2, name="cell")(series), name="recurrent")
    x, y = gnomon.fvector("x"), gnomon.fvector("y")
    line = gnomon.function([x, y], {"sum": x + y, "product": x * y}, name="line")
    number = 3
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("user") / "train.py"
    file.write_text(textwrap.dedent(SCRIPT))
    return str(file)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("GNOMON_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "train", sys)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gnomon(capsys):
    """Run the command; its exit code, and what it printed on stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def x_of(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 2, 3)).astype("float32")


# ---- compile


@pytest.mark.parametrize(
    "arguments, files",
    [
        (["-o", "net.o"], {"net.o", "net.h"}),
        (["-o", "net"], {"net.o", "net.h"}),
        (["-o", "net", "--format", "static"], {"net.a", "net.h"}),
        (["-o", "net.a", "--weights", "file"], {"net.a", "net.h", "net.weights"}),
        (["-o", "net", "--target", "windows"], {"net.obj", "net.h"}),
        (["-o", "net", "--target", "windows", "-f", "static"], {"net.lib", "net.h"}),
        (["-o", "net", "--target", "cortex-m4", "--batch", "1"], {"net.o", "net.h"}),
        (["-o", "net.o", "--cpu", "x86-64", "--target", "x86_64-linux-gnu", "--max-batch", "8"], {"net.o", "net.h"}),
        (["-o", "net.o", "--threads"], {"net.o", "net.h"}),
    ],
)
def test_what_compile_writes(gnomon, script, tmp_path, arguments, files):
    code, out, err = gnomon("compile", f"{script}:model", *arguments)
    assert (code, err) == (0, "")
    assert {f.name for f in tmp_path.iterdir()} == files
    assert all(f in out for f in files)
    header = (tmp_path / "net.h").read_text()
    assert "int net_run(" in header
    assert "made by gnomon 0.1.0 from model 'small'" in header


def test_compile_for_programs(gnomon, script, tmp_path):
    arguments = ["compile", f"{script}:trained", "-o", "sub-1.o", "--train", "--batch", "2", "--json"]
    code, out, _ = gnomon(*arguments)
    assert code == 0
    told = json.loads(out)
    assert told["files"] == {f: (tmp_path / f).stat().st_size for f in ("sub-1.o", "sub-1.h")}
    assert told["workspace"] > 0
    header = (tmp_path / "sub-1.h").read_text()
    for name in ("run", "step", "evaluate", "init", "save", "load", "reset_metrics", "workspace_bytes", "error_text"):
        assert f" sub_1_{name}(" in header or f"*sub_1_{name}(" in header
    first = (tmp_path / "sub-1.o").read_bytes()
    gnomon(*arguments)
    assert (tmp_path / "sub-1.o").read_bytes() == first


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{}:model", "--target", "cortex-m4"], "these sizes are open: 'batch' (an axis of 'features')"),
        (["{}:recurrent", "--target", "cortex-m4", "--batch", "1"], "'series_1' (an axis of 'series'). Fix"),
        (["{}:model", "--target", "cortex-m44"], "there is no target 'cortex-m44'. Did you mean"),
        (["{}:model", "--cpu", "zen9"], "there is no cpu 'zen9'"),
        (["{}:model", "--size", "time=3"], "there is no size 'time' to be set"),
        (["{}:model", "--name", "2x"], "'2x' cannot begin a name in C"),
        (["{}:number"], "is of type int; compile takes a model or a function"),
        (["{}:model", "--train"], "model 'small' is not compiled"),
        (["{}:line", "--train"], "'line' is a function: only a model can be trained"),
    ],
)
def test_what_cannot_be_compiled(gnomon, script, tmp_path, arguments, message):
    code, out, err = gnomon("compile", *(a.format(script) for a in arguments), "-o", "net.o")
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(gnomon, script, tmp_path):
    code, _, err = gnomon("compile", f"{script}:model", "-o", "nowhere/net.o")
    assert code == 1
    assert "there is no folder 'nowhere'" in err
    code, _, err = gnomon("compile", f"{script}:model", "-o", ".")
    assert (code, err) == (1, "gnomon: '.' is a folder: name a file in it, such as 'model.o'\n")
    (tmp_path / "net.o").write_text("old")
    (tmp_path / "net.h").mkdir()
    code, _, err = gnomon("compile", f"{script}:model", "-o", "net.o")
    assert code == 1
    assert "net.h': it is a folder" in err
    assert (tmp_path / "net.o").read_text() == "old"
    assert {f.name for f in tmp_path.iterdir()} == {"net.o", "net.h"}


@pytest.mark.parametrize(
    "arguments",
    [["compile"], ["compile", "{}:model"], ["compile", "{}:model", "-o", "x.o", "--batch", "none"],
     ["compile", "{}:model", "-o", "x.o", "--batch", "0"], ["compile", "{}:model", "-o", "x.o", "--size", "time"],
     ["compile", "{}:model", "-o", "x.o", "--format", "elf"], ["run", "{}:model"], ["profile"],
     ["bench", "{}:model", "--batch", "a"], ["compile", "{}:model", "-o", "x.o", "--batch", "2", "--max-batch", "4"],
     ["compile", "{}:model", "-o", "x.o", "--compare", "x.npy"]],
)  # fmt: skip
def test_wrong_usage_is_code_2(gnomon, script, arguments):
    code, out, err = gnomon(*(a.format(script) for a in arguments))
    assert (code, out) == (2, "")
    assert "Error: " in err


# ---- run


@pytest.fixture
def wanted(script):
    """The outputs of the script's model for `x_of(5)`."""
    import gnomon as library

    namespace: dict = {}
    exec(compile(Path(script).read_text(), script, "exec"), namespace)
    assert library
    return namespace["model"].predict(x_of(5), verbose=0)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
def test_run_from_file_to_file(gnomon, script, tmp_path, wanted, ending):
    x = x_of(5)
    np.save("x.npy", x)
    np.savez("x.npz", features=x)
    np.savetxt("x.csv", x.reshape(5, 6), delimiter=",", header="a,b,c,d,e,f", comments="", fmt="%.9g")
    assert gnomon("run", f"{script}:model", f"x{ending}", "-o", f"y{ending}", "--batch", "2") == (0, "", "")
    found = {
        ".npy": lambda: np.load("y.npy"),
        ".npz": lambda: np.load("y.npz")["out"],
        ".csv": lambda: np.loadtxt("y.csv", delimiter=",", skiprows=1),
    }[ending]()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    code, out, _ = gnomon("run", f"{script}:model", f"features=x{ending}")
    assert out.splitlines()[0] == "out_0,out_1"
    np.testing.assert_allclose(np.array([line.split(",") for line in out.split()[1:]], float), wanted, rtol=1e-6)
    code, out, _ = gnomon("run", f"{script}:model", f"x{ending}", "--json")
    np.testing.assert_allclose(json.loads(out)["out"], wanted, rtol=1e-6)


def test_run_a_compiled_file(gnomon, script, wanted):
    np.save("x.npy", x_of(5))
    code, _, err = gnomon("compile", f"{script}:model", "-o", "net.gnx")
    if "no linker" in err:
        pytest.skip("there is no linker here")
    assert code == 0
    assert gnomon("run", "net.gnx", "x.npy", "-o", "y.npy")[0] == 0
    np.testing.assert_array_equal(np.load("y.npy"), wanted)
    Path("cut.gnx").write_bytes(Path("net.gnx").read_bytes()[:-9])
    code, _, err = gnomon("run", "cut.gnx", "x.npy")
    assert code == 1
    assert "'cut.gnx' is cut short" in err


def test_run_a_function(gnomon, script):
    np.savez("both.npz", x=np.arange(3.0), y=np.ones(3))
    assert gnomon("run", f"{script}:line", "both.npz")[1] == "sum,product\n1.0,0.0\n2.0,1.0\n3.0,2.0\n"
    np.save("x.npy", np.arange(3.0))
    assert gnomon("run", f"{script}:line", "y=x.npy", "x.npy")[1].splitlines()[3] == "4.0,4.0"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bad.npy"], "the input features: float32[batch, 2, 3] cannot be an array of shape (5, 7)"),
        (["text.npy"], "the input features: float32[batch, 2, 3] cannot be <U1"),
        (["empty.npy"], "there are no rows to run small on"),
        (["empty.csv"], "cannot read 'empty.csv': there are no numbers in it"),
        (["ragged.csv"], "cannot read 'ragged.csv': the number of columns changed from 2 to 1 at row 2"),
        (["short.npy"], "cannot read 'short.npy': Failed to read all data"),
        (["complex.npy"], "the input features: float32[batch, 2, 3] cannot be complex64"),
        (["text.csv"], "cannot read 'text.csv': could not convert string"),
        (["none.npy"], "there is no file 'none.npy'"),
        (["junk.npy"], "cannot read 'junk.npy'"),
        (["x.txt"], "'x.txt': arrays are read from .npy, .npz and .csv files"),
        (["feature=x.npy"], "small has no input 'feature'. Did you mean 'features'?"),
        (["x.npy", "x.npy"], "small takes 1 arrays (features), and 1 more were given"),
        (["x.npy", "-o", "y.txt"], "'y.txt': results are written to .npy, .npz and .csv files"),
    ],
)
def test_what_does_not_run(gnomon, script, arguments, message):
    np.save("x.npy", x_of(5))
    np.save("bad.npy", np.ones((5, 7)))
    np.save("text.npy", np.array([["a"]]))
    Path("text.csv").write_text("a,b\n1,2\n3,x\n")
    Path("junk.npy").write_bytes(b"nothing")
    Path("short.npy").write_bytes(Path("x.npy").read_bytes()[:-9])
    np.save("complex.npy", x_of(5).astype("complex64"))
    np.save("empty.npy", np.ones((0, 2, 3)))
    Path("empty.csv").write_text("\n")
    Path("ragged.csv").write_text("1,2\n3\n")
    Path("x.txt").write_text("1")
    code, out, err = gnomon("run", f"{script}:model", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


# ---- bench and profile


def test_bench(gnomon, script):
    code, out, _ = gnomon("bench", f"{script}:model", "--batch", "1,4", "--seconds", "0.01")
    assert code == 0
    assert out.splitlines()[0].split("  ")[0] == "batch"
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["1", "4"]
    code, out, _ = gnomon("bench", f"{script}:recurrent", "--seconds", "0.01", "--size", "series_1=5", "--json")
    told = json.loads(out)
    assert [c["batch"] for c in told["calls"]] == [1, 32, 256]
    assert all(0 < c["best"] <= c["median"] for c in told["calls"])
    code, _, err = gnomon("bench", f"{script}:recurrent", "--size", "time=5")
    assert code == 1
    assert "recurrent has no open size 'time'" in err


def test_profile(gnomon, script):
    code, out, _ = gnomon("profile", f"{script}:trained", "--train", "--repeat", "1")
    assert code == 0
    assert out.startswith("small_train: ")
    assert "small/hidden (" in out
    assert "train.py:8)" in out
    rows = json.loads(gnomon("profile", f"{script}:line", "--repeat", "1", "--json")[1])["rows"]
    assert rows[0]["nanoseconds"] >= 0
    code, _, err = gnomon("profile", f"{script}:line", "--train")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("command", ["compile", "run", "bench", "profile"])
def test_help_teaches_with_examples(gnomon, command):
    code, out, _ = gnomon(command, "--help")
    assert code == 0
    assert f"gnomon {command} digits.keras" in out
