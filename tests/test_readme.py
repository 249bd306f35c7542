"""What README.md and docs/ show is true: their Python runs, their commands exist, their links lead somewhere."""

import re
import shlex
import tomllib
import warnings
from pathlib import Path

import pytest

from gnomon.cli import commands
from gnomon.compiler import errors
from gnomon.datasets import mnist
from gnomon.utils import clear_session

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROWS = 2000
"""Digits that the code on the pages gets instead of all."""


def blocks(page, language):
    """(line number, text) of the code blocks in a language."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [(page.read_text(encoding="utf-8")[: m.start(1)].count("\n") + 1, m[1]) for m in found]


def shell_lines(page):
    return [line for _, text in blocks(page, "sh") for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def few_digits(monkeypatch):
    (x, y), (x_test, y_test) = mnist.load_data()
    monkeypatch.setattr(mnist, "load_data", lambda: ((x[:ROWS], y[:ROWS]), (x_test[:ROWS], y_test[:ROWS])))


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_python_runs(page, few_digits, tmp_path, monkeypatch, capsys):
    clear_session()
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for line, text in blocks(page, "python"):
            code = compile("\n" * (line - 1) + text, str(page), "exec")  # so that tracebacks show the page's own lines
            expected = re.search(r"# raises (\w+)", text)
            if expected is None:
                exec(code, names)
            else:
                with pytest.raises(getattr(errors, expected[1])):
                    exec(code, names)
    messages = [str(w.message) for w in told]
    if page.name == "README.md":
        assert len(messages) == 3
        assert all(any(new in m for m in messages) for new in ("gnomon.Input", "learning_rate", "`epochs`"))
    else:
        assert not messages


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_commands_of_gnomon_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GNOMON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in shell_lines(page):
        if line.startswith("gnomon "):
            assert commands.run(shlex.split(line)[1:]) == 0, line
            capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_commands_that_are_named_exist(page, capsys):
    for words in re.findall(r"`gnomon ([a-z ]+?)`", page.read_text(encoding="utf-8")):
        assert commands.run([*words.split(), "--help"]) == 0, words


def test_set_up_is_two_commands_of_one_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for line in shell_lines(ROOT / "README.md") if "venv" in line]
    assert len(lines) == 2
    for line in lines:
        made, installed, run = (shlex.split(part) for part in line.split("&&"))
        folder = made[-1]
        assert made == ["python3", "-m", "venv", folder]
        assert installed[:2] == [f"{folder}/bin/pip", "install"]
        assert run[0] == f"{folder}/bin/python"
        for extra in re.findall(r"\[(\w+)\]", installed[-1]):
            assert extra in project["optional-dependencies"]
        if run[1] != "-m":
            assert (ROOT / run[1]).exists()
    assert any("-m pytest" in line for line in lines)


def test_examples_are_listed():
    listed = re.findall(r"^\| `examples/(\w+\.py)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(p.name for p in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_environment_variables_are_looked_at(page):
    sources = "\n".join(
        p.read_text(encoding="utf-8") for f in ("frontend", "runtime") for p in (ROOT / f).rglob("*.py")
    )
    for name in re.findall(r"GNOMON_\w+", page.read_text(encoding="utf-8")):
        assert name in sources
