"""README.md says what is true: its Python runs, its commands name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_python_blocks_run_in_order(capsys):
    names: dict = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "README.md", "exec"), names)
    assert names["history"].history["accuracy"][-1] > 0.8
    assert "us" in capsys.readouterr().out  # the profile


def test_commands_are_one_line_each_and_name_files_that_exist():
    commands = [code.strip() for language, code in BLOCKS if language == "sh"]
    assert len(commands) == 2
    assert all("\n" not in c and c.startswith("python3 -m venv ") for c in commands)
    for path in re.findall(r"(?:examples|tests|benchmarks)/[\w./]+", TEXT):
        assert (ROOT / path.rstrip(".")).exists(), path
