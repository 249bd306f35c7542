"""The programs in examples/c run and say what they should."""

import re
import subprocess
import sys
from pathlib import Path

from tests.aot.support import needs_cc

EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "digits.py"


@needs_cc
def test_c(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--short", "--out", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("It is a 7, with probability") == 2
    losses = [float(n) for n in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 4
    before, after = (float(n) for n in re.findall(r"test accuracy ([\d.]+) %", done.stdout))
    assert after > before
    assert "equal weights" in done.stdout
