"""The line about a compilation that takes long."""

import io
import re
import time

import numpy as np
import pytest

import gnomon
from gnomon import ops, programs, progress
from gnomon.compiler.request import Stages
from gnomon.runtime import cpu


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.01)


@pytest.fixture
def terminal(monkeypatch, quick):
    """Makes stderr a terminal; in the test, for pytest puts its own there when a test begins."""

    def made():
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return made


def test_it_appears_after_a_while_and_goes_away(terminal):
    stream = terminal()
    states = iter(range(1000))
    with progress.told("f", lambda: f"kernels {next(states)} of 1000"):
        time.sleep(0.1)
    shown = stream.getvalue().split("\r")
    assert re.fullmatch(r"compiling f: kernels 0 of 1000, 0 s", shown[1])
    assert len(shown) > 4
    assert shown[-2].strip() == ""
    assert len(shown[-2]) >= len(shown[1])
    assert shown[-1] == ""


def test_it_does_not_appear_if_all_is_done_soon(terminal, monkeypatch):
    stream = terminal()
    monkeypatch.setattr(progress, "AFTER", 5.0)
    with progress.told("f", lambda: "kernels"):
        pass
    assert stream.getvalue() == ""


def test_it_goes_away_when_compiling_fails(terminal):
    stream = terminal()

    def fail():
        with progress.told("f", lambda: "kernels"):
            time.sleep(0.05)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert stream.getvalue().endswith(" \r")


def test_nothing_is_written_where_nobody_sees_it(monkeypatch, quick):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress.told("f", lambda: "kernels"):
        time.sleep(0.05)
    monkeypatch.setattr("sys.stderr", None)
    with progress.told("f", lambda: "kernels"):
        time.sleep(0.05)
    assert stream.getvalue() == ""


def test_it_can_be_switched_off(terminal):
    stream = terminal()
    gnomon.config.disable_interactive_logging()
    try:
        with progress.told("f", lambda: "kernels"):
            time.sleep(0.05)
    finally:
        gnomon.config.enable_interactive_logging()
    assert stream.getvalue() == ""


def test_states_of_a_compilation(monkeypatch):
    stages = Stages()
    assert progress.state_of(stages) == "simplifying the graph (0 passes done)"
    stages.passes.append(("simplify", []))
    assert progress.state_of(stages) == "simplifying the graph (1 passes done)"
    stages.groups = [None] * 5
    stages.lowered = [None] * 2
    assert progress.state_of(stages) == "kernels 2 of 5"
    monkeypatch.setattr(cpu, "_made", [3, 7])
    assert progress.state_of(stages) == "machine code 3 of 7"


def test_compiling_a_function_tells_its_name(terminal, monkeypatch):
    stream = terminal()
    monkeypatch.setenv("GNOMON_CACHE", "0")
    compile = programs.compile

    def slow(*arguments):
        program = compile(*arguments)
        time.sleep(0.1)
        return program

    monkeypatch.setattr(programs, "compile", slow)
    x = gnomon.vector("x", dtype="float32")
    fn = gnomon.function([x], ops.exp(x) + 1, name="exponential")
    assert "compiling exponential: kernels" in stream.getvalue()
    np.testing.assert_allclose(fn(np.zeros(3, "float32")), 2)
    assert cpu.made() == (0, 0)
