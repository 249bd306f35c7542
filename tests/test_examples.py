"""Each example runs, in its short form, and reaches what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))
REACHES = {
    "article.py": {r"Sequential: test accuracy ([\d.]+) %": 88, r"Functional: test accuracy ([\d.]+) %": 88},
    "mnist_mlp.py": {r"Test accuracy ([\d.]+) %": 85},
    "mnist_convnet.py": {r"Test accuracy ([\d.]+) %": 88},
    "sign_digits.py": {r"Test accuracy ([\d.]+) %": 75},
    "residual.py": {r"Test accuracy ([\d.]+) %": 80},
    "memory_network.py": {r"3 hops: ([\d.]+) %": 95},
    "siamese.py": {r"Pairs judged right: ([\d.]+) %": 80},
    "transformer_text.py": {r"Letters foreseen: ([\d.]+) %": 25},
    "visual_question_answering.py": {r"Answered right, all: ([\d.]+) %": 65},
    "functional.py": {r"Same or not: ([\d.]+) % right": 80, r"Which digit: ([\d.]+) % right": 85},
    "character_model.py": {r"([\d.]+) % of the next characters found": 27},
    "sentiment.py": {r"LSTM: .* ([\d.]+) % of new": 90, r"Bidirectional GRU: .* ([\d.]+) % of new": 90},
    "forecasting.py": {r"the network by .*: ([\d.]+) % less": 5},
    "neural_turing_machine.py": {r"3 rows: ([\d.]+) % of the bits": 95, r"6 rows: ([\d.]+) % of the bits": 80},
    "video.py": {r"repeating the last picture .*: ([\d.]+) % less": 35},
    "theano_style.py": {r"Newton-CG: .*accuracy ([\d.]+) %": 80},
}
"""Least percentages in the output."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    command = [sys.executable, str(FOLDER / name), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    for pattern, least in REACHES.get(name, {}).items():
        found = re.search(pattern, done.stdout)
        assert found, f"{pattern} is not in the output:\n{done.stdout}"
        assert float(found[1]) >= least
    told = [line for line in done.stderr.splitlines() if "Warning" in line]
    if name == "article.py":
        text = "\n".join(told)
        assert all(new in text for new in ("gnomon.Input(shape=(784,))", "learning_rate=0.001", "`epochs`"))
        assert len(told) == 4, text  # input_shape once, nb_epoch at one line, lr once for each model
        assert all(str(FOLDER / name) in line for line in told)
    else:
        assert not told
    assert not list(tmp_path.iterdir()), "an example leaves files behind"


def test_every_example_says_how_it_is_run():
    for name in EXAMPLES:
        assert f"    python examples/{name}" in (FOLDER / name).read_text(), name
