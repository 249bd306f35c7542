"""What is compiled ahead of time, in figures: a call from C, sizes, and the time to the first result of a .gnx file.

    python benchmarks/ahead.py
    python benchmarks/ahead.py --onnx /path/to/python    # beside ONNX Runtime, in an environment that has it
    python benchmarks/ahead.py --first chrt -f 50         # what is put before each command that is timed

The first result counts from the start of the process: Python, NumPy, loading, ResNet-50 on one picture. Each process is
timed alone and in turn with its peer; the best of five counts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import gnomon
from gnomon import ahead, layers
from gnomon.compiler.aot import targets

ROUNDS = 5

CALL = """
#include "article.h"
#include <stdio.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(void) {
    static float x[784], y[10];
    static unsigned char workspace[ARTICLE_WORKSPACE_BYTES + 64];
    double best = 1;
    for (int k = 0; k < 784; k++) x[k] = (float)k / 784;
    for (int round = 0; round < 200; round++) {
        double began = now();
        for (int k = 0; k < 1000; k++) if (article_run(x, y, 1, workspace, sizeof workspace)) return 1;
        double took = (now() - began) / 1000;
        if (took < best) best = took;
    }
    printf("%.4f", 1e6 * best);
    return 0;
}
"""

FIRST = """
import sys, gnomon.runtime
model = gnomon.runtime.load(sys.argv[1])
import numpy as np
model(np.ones((1, 224, 224, 3), "float32"))
"""

ONNX = """
import sys, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
import numpy as np
session.run(None, {"x": np.ones((1, 3, 224, 224), "float32")})
"""

ONNX_MODEL = """
import sys
sys.path.insert(0, sys.argv[2])
import networks, onnx_networks
open(sys.argv[1], "wb").write(onnx_networks.model(networks.resnet50, (3, 224, 224)))
"""


def article() -> gnomon.Model:
    pixels = gnomon.Input((784,), name="pixels")
    return gnomon.Sequential([pixels, layers.Dense(32, activation="relu"), layers.Dense(10, activation="softmax")])


def digits() -> gnomon.Model:
    return gnomon.Sequential([
        gnomon.Input((28, 28, 1), name="image"),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def from_c(folder: Path, before: list[str]) -> None:
    """One row of the article's network: from C, and in this process."""
    model = article()
    written = ahead.write(ahead.build(model, "article", max_batch=64), folder / "article", "obj", ".o")
    size = written.files[str(folder / "article.o")]
    print(f"library of 784-32-10 with its weights   {size:>10,} bytes   (asked: under 130,000)")
    if shutil.which("cc") is None:
        print("no C compiler here: the call is not timed")
        return
    (folder / "call.c").write_text(CALL)
    subprocess.run(["cc", "-O2", "call.c", "article.o", "-o", "call"], cwd=folder, check=True)
    in_c = float(subprocess.run([*before, folder / "call"], capture_output=True, check=True).stdout)
    pixels = gnomon.fmatrix("pixels")
    f = gnomon.function([pixels], model(pixels), name="article")
    x, best = np.ones((1, 784), "float32"), 1.0
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(1000):
            f(x)
        best = min(best, (time.perf_counter() - began) / 1000)
    print(f"one row from C                          {in_c:>10.2f} us      (asked: under 5)")
    share = in_c / best / 1e6
    print(f"one row in the process, from Python     {1e6 * best:>10.2f} us      (C takes {share:.2f} of it)")


def microcontroller() -> None:
    """The code of a small convolutional network for a Cortex-M4."""
    with tempfile.TemporaryDirectory() as folder:
        written = ahead.write(
            ahead.build(digits(), "digits", targets.find("cortex-m4"), batch=1), Path(folder) / "digits", "obj", ".o"
        )
    print(f"code of a digits CNN for Cortex-M4      {written.code:>10,} bytes   (asked: under 24,576)")


def first_result(folder: Path, before: list[str], onnx: str | None) -> None:
    """From the start of a process to what ResNet-50 says of a picture."""
    model = gnomon.applications.ResNet50(weights=None)
    ahead.write(ahead.build(model, "resnet", embed=False, threads=True), folder / "resnet", "gnx", ".gnx")
    commands = {"gnomon": [sys.executable, "-c", FIRST, folder / "resnet.gnx"]}
    if onnx:
        workers = Path(__file__).with_name("workers")
        subprocess.run([onnx, "-c", ONNX_MODEL, folder / "resnet.onnx", workers], check=True)
        commands["ONNX Runtime"] = [onnx, "-c", ONNX, folder / "resnet.onnx"]
    best = dict.fromkeys(commands, 1e9)
    for _ in range(ROUNDS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run([*before, *command], check=True)
            best[name] = min(best[name], time.perf_counter() - began)
    for name, seconds in best.items():
        asked = "(asked: 0.35)" if name == "gnomon" else ""
        print(f"first result of ResNet-50, {name:<12} {seconds:>10.3f} s       {asked}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--onnx", help="the Python of an environment with onnxruntime and onnx")
    parser.add_argument("--first", nargs=argparse.REMAINDER, default=[], help="put before each command that is timed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gnomon-ahead-") as temporary:
        folder = Path(temporary)
        from_c(folder, chosen.first)
        microcontroller()
        first_result(folder, chosen.first, chosen.onnx)


if __name__ == "__main__":
    main()
